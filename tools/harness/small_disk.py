"""A small file system, to see what happens when a disk is full."""

import os
import subprocess

# How the file system is divided, in MiB: data files as they are made, room to fill, and what is
# given back when all is full.
FILES, ROOM, BALLAST = 3 * 34, 40, 160


def mount_small_disk(directory):
    """Makes a small file system in a folder and mounts it there, for everybody to write into; needs
    root. Raises `CalledProcessError` if the machine refuses."""
    place = directory / "disk"
    place.mkdir()
    image = directory / "image"
    with open(image, "wb") as file:
        file.truncate((FILES + ROOM + BALLAST) << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    place.chmod(0o777)
    return place


def unmount(place):
    """Takes it away again, if it is there; at once from the tree of files, even while a process that
    is just ending has a file of it open."""
    if not os.path.ismount(place):
        return
    if subprocess.run(["umount", str(place)], check=False).returncode != 0:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
