"""Data files seen from outside: where zones lie, what is in use, what is damaged, and damaging it.

`florin inspect` is asked wherever the file is not in use; superblocks are also read while it is.
"""

import json
import os
import subprocess

from .server import BINARY, ServerFailed

COPIES, COPY_SIZE, SECTOR_SIZE, HEADER_SIZE = 4, 16 * 1024, 4096, 256
INSPECT_SECONDS = 600
EXIT_DAMAGED = 6


def inspect(path, subject, *options, codes=(0,)):
    """What `florin inspect` says about a data file that is not in use."""
    command = [str(BINARY), "inspect", subject, *options, "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSPECT_SECONDS,
                          check=False)
    if done.returncode not in codes:
        raise ServerFailed(f"inspect {subject} of {path} ended with {done.returncode}: "
                           + done.stderr.strip()[-1000:])
    return json.loads(done.stdout)


def damaged_places(path):
    """The places of a file that are damaged; empty if it is intact."""
    report = inspect(path, "integrity", codes=(0, EXIT_DAMAGED))
    places = report.get("damage", [])
    intact = report["integrity"]["state"] == "intact"
    assert intact == (not places), f"the verdict on {path} belies its list"
    return places


class Superblock:
    """The newest copy of the superblock that a file holds, its checksums taken on trust."""

    def __init__(self, path):
        with open(path, "rb") as file:
            copies = [file.read(COPY_SIZE) for _ in range(COPIES)]
        copies = [copy for copy in copies if copy[32:40] == b"florin\0\0"]
        if not copies:
            raise ServerFailed(f"{path} has no superblock")
        newest = max(copies, key=lambda copy: int.from_bytes(copy[80:88], "little"))
        self.checkpoint = newest[272:528]
        self.root = newest[528:784]
        self.checkpoint_op = int.from_bytes(newest[464:472], "little")
        # Beyond zero, blocks of a checkpoint that was taken over are missing.
        self.sync_op_max = int.from_bytes(newest[128:136], "little")

    def content(self):
        """What must be the same in all files that have this checkpoint."""
        return self.checkpoint, self.root


class Layout:
    """Where things lie in a data file."""

    def __init__(self, path):
        constants = inspect(path, "constants")
        geometry = constants["geometry"]
        zones = {zone["zone"]: zone["offset"] for zone in constants["zones"]}
        self.block_size = geometry["block_size"]
        self.prepare_size = geometry["message_size_max"]
        self.slots = geometry["journal_slots"]
        self.interval = geometry["checkpoint_interval"]
        self.headers, self.prepares = zones["WAL headers"], zones["WAL prepares"]
        self.grid = zones["grid"]

    def block(self, address):
        """Where a block lies."""
        return self.grid + (address - 1) * self.block_size

    def prepare(self, slot):
        """Where the prepare of a slot lies."""
        return self.prepares + slot * self.prepare_size


def used_blocks(path):
    """Addresses of all blocks that the checkpoint of a file refers to."""
    return sorted(row["address"] for row in inspect(path, "grid", "--list").get("blocks", []))


def overwrite(path, stretches):
    """Writes (offset, bytes) into a file, used or not, past the caches of the system."""
    with open(path, "r+b") as file:
        for offset, data in stretches:
            file.seek(offset)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def stretch(path, offset, size):
    """Bytes of a file as they are on the disk now."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_DONTNEED)
        file.seek(offset)
        return file.read(size)


def copy_file(path, target):
    """Copies a file; holes stay holes."""
    subprocess.run(["cp", "--sparse=always", str(path), str(target)], check=True)
