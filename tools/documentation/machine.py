"""A machine for the reader of a page: an own network and an own tree of files, no privileges.

Namespaces give what the pages take for granted: the ports are free, the addresses 10.0.0.1 to
10.0.0.3 are there (all on the loopback device), and so are empty folders `/data` and `/backup`. The
commands run as a user without capabilities and with a fresh home, who sees the system's programs, a
Python, a Rust toolchain with the crates that were fetched already, and a clone of the repository.
Neither the internet nor a server of the real machine is reached.
"""

import os
import pathlib
import shutil
import subprocess
import sys

from terminal import Terminal

ROOT = pathlib.Path(__file__).resolve().parents[2]
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "etc", "dev", "sys", "proc")
USER = 10001
HOME = "/home/reader"
# What stands in for a build that takes minutes and was done already.
CARGO = """#!/bin/sh
if [ "$1 $2" = "build --release" ] || [ "$1 $2" = "run --release" ]; then
    mkdir -p target/release && cp /opt/florin/florin target/release/florin || exit 1
    [ "$1" = build ] && exit 0
    shift 3
    exec target/release/florin "$@"
fi
exec /opt/rust/bin/cargo "$@"
"""


def unshare():
    """The beginning of a command that runs in namespaces of its own."""
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    return command if os.geteuid() == 0 else [*command, "--user", "--map-root-user"]


def may_enter_namespaces():
    """Whether this machine allows it."""
    return subprocess.run([*unshare(), "true"], check=False, capture_output=True).returncode == 0


def enter_namespaces(arguments):
    """Runs this program again in namespaces of its own, and returns its exit code."""
    return subprocess.run([*unshare(), sys.executable, *arguments], check=False).returncode


def run(*command):
    """Runs a command of the set-up, which must succeed."""
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


class Machine:
    """The tree of files, and the terminals on it."""

    def __init__(self, scratch, options, installed):
        """`installed` says whether florin is on the path already."""
        self.disk = scratch / "disk"
        self.root = scratch / "root"
        self.options = options
        self.installed = installed
        self.unprivileged_uid = USER if self.may_change_user() else 0
        self.set_up_network()
        self.set_up_files()

    @staticmethod
    def may_change_user():
        """Whether this namespace has more users than one."""
        return len(pathlib.Path("/proc/self/uid_map").read_text().split()) >= 3 and int(
            pathlib.Path("/proc/self/uid_map").read_text().split()[2]) > 1

    @staticmethod
    def set_up_network():
        """The loopback device with the addresses that the pages use."""
        run("ip", "link", "set", "lo", "up")
        for host in (1, 2, 3):
            run("ip", "address", "add", f"10.0.0.{host}/32", "dev", "lo")

    def set_up_files(self):
        """The system's folders, read-only where that is possible, and the reader's own."""
        self.root.mkdir()
        self.disk.mkdir()
        run("mount", "--make-rprivate", "/")
        run("mount", "-t", "tmpfs", "tmpfs", self.root)
        for name in SYSTEM:
            source = pathlib.Path("/") / name
            if source.is_symlink():
                (self.root / name).symlink_to(os.readlink(source))
            elif source.is_dir() and name != "proc":
                self.bind(source, source)
        (self.root / "proc").mkdir()
        # A container may forbid a fresh one.
        fresh = subprocess.run(["mount", "-t", "proc", "proc", self.root / "proc"], check=False,
                               capture_output=True)
        if fresh.returncode:
            run("mount", "--rbind", "/proc", self.root / "proc")
        base = pathlib.Path(sys.base_prefix)
        if not base.is_relative_to("/usr"):
            self.bind(base, base)
        self.bind(self.options.rust, "/opt/rust")
        tools = self.disk / "bin"
        tools.mkdir()
        (tools / "cargo").write_text(CARGO)
        (tools / "cargo").chmod(0o755)
        self.bind(tools, "/opt/bin")
        built = self.disk / "built"
        built.mkdir()
        shutil.copy2(self.options.florin, built / "florin")
        self.bind(built, "/opt/florin")
        self.bind(self.options.wheels, "/opt/wheels")
        for name in ("data", "backup", "tmp"):
            self.own(name)
        self.set_up_home()

    def set_up_home(self):
        """A fresh home: a clone of the repository, and the crates that were fetched already."""
        home = self.own(HOME[1:])
        names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                               capture_output=True, text=True, check=True).stdout.splitlines()
        for name in names:
            target = home / "florin" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy2(ROOT / name, target)
        if self.installed:
            (home / ".local" / "bin").mkdir(parents=True)
            shutil.copy2(self.options.florin, home / ".local" / "bin" / "florin")
        (home / ".cargo" / "registry").mkdir(parents=True)
        self.give(home)
        self.bind(self.options.cargo_home / "registry", f"{HOME}/.cargo/registry")
        cache = self.options.cache / f"cargo-{self.unprivileged_uid}"
        cache.mkdir(parents=True, exist_ok=True)
        self.give(cache)
        self.bind(cache, "/opt/cargo-target")

    def bind(self, source, target):
        """Shows a folder of the real machine at a place of this one."""
        place = self.root / str(target).lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        run("mount", "--rbind", source, place)

    def own(self, name):
        """Makes a folder that belongs to the reader, on the disk."""
        folder = self.disk / name
        folder.mkdir(parents=True)
        self.give(folder)
        self.bind(folder, "/" + name)
        return folder

    def give(self, folder):
        """Gives a folder and everything in it to the reader."""
        if self.unprivileged_uid:
            run("chown", "-R", f"{self.unprivileged_uid}:{self.unprivileged_uid}", folder)

    def path(self, directory, name):
        """Where the runner finds a file of the reader."""
        return self.root / os.path.normpath(os.path.join(directory, name)).lstrip("/")

    def terminal(self, number, prompt):
        """Opens a terminal, in the clone if there is something to build, else at home."""
        directory = HOME if self.installed else f"{HOME}/florin"
        rc_path = self.root / "tmp" / f".terminal-{number}"
        user = [] if not self.unprivileged_uid else [
            f"--reuid={self.unprivileged_uid}", f"--regid={self.unprivileged_uid}",
            "--clear-groups"]
        search = [*([f"{HOME}/.local/bin"] if self.installed else []), "/opt/bin",
                  f"{sys.base_prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin"]
        variables = {"HOME": HOME, "PATH": ":".join(search), "TERM": "xterm-256color",
                     "LANG": "C.UTF-8", "SHELL": "/bin/bash", "USER": "reader",
                     "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels",
                     "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                     "CARGO_NET_OFFLINE": "true", "CARGO_TERM_QUIET": "true",
                     "CARGO_TARGET_DIR": "/opt/cargo-target", "RUSTC": "/opt/rust/bin/rustc",
                     "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["/usr/sbin/chroot", str(self.root), "/usr/bin/env", "-i",
                   *(f"{name}={value}" for name, value in variables.items()), "setpriv", *user, "--bounding-set=-all",
                   "--inh-caps=-all", "--no-new-privs", "bash", "-c",
                   f"cd {directory} && exec bash --noprofile --rcfile /tmp/.terminal-{number} -i"]
        return Terminal(command, prompt, rc_path)
