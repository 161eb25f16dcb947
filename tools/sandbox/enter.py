#!/usr/bin/env python3
"""Runs a command without privileges, as most people run Florin: `enter.py [OPTIONS] -- COMMAND`.

Two profiles:

    user        an ordinary user: a user id without a name, no group, no capability, no way to gain
                one. The file system is the machine's.
    container   the same user in a sandbox like that of a container or of the systemd unit: every
                mount is read-only except `--writable` folders, there is no /proc, /dev has only
                what containers get and a /dev/shm of 64 KiB, the network is a loopback device
                without IPv6 and without DNS, and the limits are the usual ones: 64 KiB of locked
                memory and 1,024 open files.

Root enters directly, in namespaces of its own. For any other user the profile `user` changes
nothing, and the profile `container` needs user namespaces. Where the machine refuses what a profile
needs, the exit code is 77 and the message says so; a root that may not make namespaces, as in many
containers, still becomes the user. Before the command starts, the sandbox is checked: if it does
not hold what the profile promises, the exit code is 1. `--writable` folders are created if they are
missing and belong to the user afterwards. The command's standard streams stay as they are.

Options: --profile=user|container, --writable=FOLDER (repeatable).
"""

import argparse
import ctypes
import fcntl
import os
import pathlib
import resource
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile

# A user and a group that have no name on any machine.
USER = 61_234
# Exit code of a test that cannot run here, as automake and others use it.
SKIPPED = 77
ROOT = pathlib.Path(__file__).resolve().parents[2]

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x8000000, 0x10000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 0x1, 0x2, 0x4, 0x20, 0x1000
MS_MOVE, MS_REC, MS_PRIVATE = 0x2000, 0x4000, 0x40000
# Flags of a mount that a remount must repeat, since a user namespace may not clear them.
LOCKED_FLAGS = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x400,
                "nodiratime": 0x800, "relatime": 0x200000}
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 24, 38, 39
# The layout of sets of capabilities that has 64 bits.
CAPABILITY_VERSION = 0x20080522
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SHARED_MEMORY = "64k"
# 64 KiB of locked memory, 1,024 open files, no files of crashes.
LIMITS = ((resource.RLIMIT_MEMLOCK, 64 * 1024), (resource.RLIMIT_NOFILE, 1024),
          (resource.RLIMIT_CORE, 0))

LIBC = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The machine does not allow a sandbox."""


class Leaky(Exception):
    """The sandbox does not hold what it promises."""


def call(name, *arguments):
    """Calls a function of the C library; raises `OSError` if it fails."""
    if getattr(LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def mount(source, target, kind=None, flags=0, data=None):
    """Mounts `source` at `target`."""
    encoded = [None if it is None else str(it).encode() for it in (source, target, kind)]
    call("mount", *encoded, ctypes.c_ulong(flags), data.encode() if data else None)


def blocked_ancestor(path):
    """Returns the first folder above `path` that other users may not enter; `None` if there is
    none."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def needed_paths(command):
    """Returns what the command needs besides the system: the repository, its own program, the
    interpreters, and the folders named by variables of the tests."""
    paths = {ROOT, pathlib.Path(sys.base_prefix), pathlib.Path(sys.prefix)}
    words = [*command[:2], os.environ.get("FLORIN_BINARY"), os.environ.get("FLORIN_PYTHON")]
    words += [shutil.which("node")]
    for word in words:
        path = pathlib.Path(word or "")
        if path.is_absolute() and path.exists():
            paths.add(path.parent)
            paths.add(path.resolve().parent)
    target = os.environ.get("CARGO_TARGET_DIR")
    if target:
        paths.add(pathlib.Path(target))
    return sorted(path.absolute() for path in paths)


def open_ways(paths):
    """Makes each path reachable for other users: a folder on its way that they may not enter is
    covered by one that shows only the path."""
    staged = {}
    staging = pathlib.Path(tempfile.mkdtemp(prefix="florin-sandbox-"))
    mount("tmpfs", staging, "tmpfs", 0, "mode=755")
    for number, path in enumerate(paths):
        blocked = blocked_ancestor(path)
        if blocked is not None:
            place = staging / str(number)
            place.mkdir()
            mount(path, place, None, MS_BIND | MS_REC)
            staged.setdefault(blocked, []).append((path, place))
    # Outer folders first, so that none of them covers what was opened before.
    for blocked in sorted(staged):
        mount("tmpfs", blocked, "tmpfs", 0, "mode=755")
        for path, place in staged[blocked]:
            path.mkdir(parents=True, exist_ok=True)
            mount(place, path, None, MS_BIND | MS_REC)
    call("umount2", str(staging).encode(), 2)
    staging.rmdir()


def mounts():
    """Returns the mount points with their flags, in the order in which they were made."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            fields = line.split()
            path = fields[4].encode().decode("unicode_escape")
            flags = sum(LOCKED_FLAGS.get(it, 0) for it in fields[5].split(","))
            found.append((path, flags))
    return found


def protect_mounts(writable):
    """Makes every mount read-only but the writable folders; returns those that must be."""
    for folder in writable:
        mount(folder, folder, None, MS_BIND | MS_REC)
    kept = {str(folder) for folder in writable}
    for path, flags in mounts():
        if path not in kept:
            try:
                mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
            except OSError:
                # Covered by a later mount: nobody can reach it.
                continue
    return [path for path, _ in mounts() if path not in kept]


def build_devices():
    """Replaces /dev by the few devices that containers get, and a small /dev/shm."""
    staging = pathlib.Path(tempfile.mkdtemp(prefix="florin-sandbox-"))
    mount("tmpfs", staging, "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for name in DEVICES:
        (staging / name).touch()
        mount(f"/dev/{name}", staging / name, None, MS_BIND)
    (staging / "pts").mkdir()
    mount("devpts", staging / "pts", "devpts", MS_NOSUID, "newinstance,ptmxmode=0666,mode=620")
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"),
                         ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
                         ("stderr", "/proc/self/fd/2")):
        (staging / name).symlink_to(target)
    (staging / "shm").mkdir()
    mount("tmpfs", staging / "shm", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={SHARED_MEMORY}")
    mount(staging, "/dev", None, MS_MOVE)
    staging.rmdir()


def start_loopback():
    """Starts the loopback device of a new network, without IPv6."""
    settings = pathlib.Path("/proc/sys/net/ipv6/conf")
    for device in ("all", "default", "lo"):
        place = settings / device / "disable_ipv6"
        if place.exists():
            place.write_text("1", encoding="ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def hide(path):
    """Covers a folder or a file by an empty one."""
    if path.is_dir():
        mount("tmpfs", path, "tmpfs", MS_RDONLY, "mode=555,size=4k")
    elif path.exists():
        mount("/dev/null", path, None, MS_BIND)


def build_container(writable):
    """Builds the sandbox of the profile `container` around this process; returns the mounts that
    must be read-only."""
    call("unshare", CLONE_NEWNET | CLONE_NEWIPC)
    start_loopback()
    build_devices()
    hide(pathlib.Path("/etc/resolv.conf"))
    protected = protect_mounts(writable)
    hide(pathlib.Path("/proc"))
    for limit, value in LIMITS:
        resource.setrlimit(limit, (value, value))
    return protected


def capabilities():
    """Returns the capabilities of this process: effective, permitted and inheritable ones."""
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    call("capget", header, sets)
    return list(sets)


def drop_privileges():
    """Becomes the unprivileged user, for good."""
    for capability in range(64):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    # In a user namespace of its own, a user has all of them until it becomes another program.
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def own(folder):
    """Creates a writable folder and hands what is in it to the unprivileged user."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or folder.stat().st_uid == USER:
        return
    for place, _, names in os.walk(folder):
        for name in [".", *names]:
            os.chown(os.path.join(place, name), USER, USER, follow_symlinks=False)


def unshare_as_user():
    """Enters a user namespace and a mount namespace, for a user who is not root."""
    user, group = os.getuid(), os.getgid()
    try:
        call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    except OSError as error:
        raise Refused(f"no user namespace: {error.strerror}; run this as root, or allow "
                      "them (sysctl kernel.unprivileged_userns_clone=1)") from error
    pathlib.Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    pathlib.Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    pathlib.Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def unshare_as_root(profile, paths):
    """Enters a mount namespace and opens the ways to the paths. Where that is forbidden, the profile
    `user` does without if other users may reach the paths already."""
    try:
        call("unshare", CLONE_NEWNS)
    except OSError as error:
        blocked = [str(path) for path in paths if blocked_ancestor(path) is not None]
        if profile == "user" and not blocked:
            return
        reason = f"other users may not reach {blocked[0]}" if blocked else "no mount namespace"
        raise Refused(f"{reason}, and root has no CAP_SYS_ADMIN here: {error.strerror}") from error
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    open_ways(paths)


def enter(profile, writable, command):
    """Builds the sandbox around this process, drops all privileges, and checks both."""
    protected = []
    try:
        for folder in writable:
            own(folder)
        if os.geteuid() == 0:
            unshare_as_root(profile, needed_paths(command))
        elif profile == "container":
            unshare_as_user()
            mount(None, "/", None, MS_REC | MS_PRIVATE)
        if profile == "container":
            protected = build_container(writable)
        drop_privileges()
    except OSError as error:
        raise Refused(f"the machine refuses a part of the sandbox: {error}") from error
    check_privileges()
    if profile == "container":
        check_container(protected, writable)


def demand(holds, message):
    """Raises `Leaky` unless a promise of the sandbox holds."""
    if not holds:
        raise Leaky(message)


def check_privileges():
    """Checks that nothing is left of root."""
    demand(0 not in os.getresuid(), f"the user is root: {os.getresuid()}")
    demand(not any(capabilities()), f"capabilities are left: {capabilities()}")
    demand(LIBC.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "privileges can be gained")


def check_container(protected, writable):
    """Checks the promises of the profile `container`."""
    demand({"/", "/dev"} <= set(protected), f"only these are read-only: {protected}")
    for path in protected:
        try:
            flags = os.statvfs(path).f_flag
        except OSError:
            # Hidden or covered: nobody can reach it.
            continue
        demand(flags & os.ST_RDONLY, f"{path} can be written")
    for folder in writable:
        demand(os.access(folder, os.W_OK), f"{folder} cannot be written")
    demand(not os.listdir("/proc"), "there is a /proc")
    for limit, value in LIMITS:
        demand(resource.getrlimit(limit) == (value, value), f"limit {limit} is not {value}")


def main():
    """Enters the sandbox and becomes the command."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=("user", "container"), default="user")
    parser.add_argument("--writable", action="append", default=[], metavar="FOLDER")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args()
    home = ROOT / "target" / "tools" / "home"
    temporary = ROOT / "target" / "tools" / "temporary"
    writable = [pathlib.Path(it).resolve() for it in options.writable] + [home, temporary]
    directory = os.getcwd()
    try:
        enter(options.profile, writable, options.command)
    except Refused as refusal:
        print(f"SKIPPED: {refusal}", file=sys.stderr)
        sys.exit(SKIPPED)
    except Leaky as leak:
        print(f"FAILED: the sandbox {options.profile}: {leak}", file=sys.stderr)
        sys.exit(1)
    # Again, since a folder on the way may have been covered meanwhile.
    os.chdir(directory)
    # Python ignores these, and a program inherits that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.environ.update(HOME=str(home), TMPDIR=str(temporary), USER="florin-test")
    os.execvp(options.command[0], options.command)


if __name__ == "__main__":
    main()
