#!/usr/bin/env python3
"""Every system call of a serving replica fails with every plausible error, once and for a while.

The memory of a server is frozen when it serves, so an error path that allocates ends it by an
abort. Here a replica of a cluster serves clients while another one is away, so that it accepts,
dials and loses connections all the time; one thread after the other is traced, and its calls are
made to fail. Each time the server must go on: it answers pings, clients are served, and the thread
does its work. Or it ends with a message and a documented exit code; never by a signal. Calls that
were never made are listed. Then come limits of the process (open files, length of files) and what
standard error may be: closed, full, broken, or never read.

Usage: faults.py [--seconds=N]. x86-64 only. Needs no privileges.
"""

import argparse
import errno
import http.client
import os
import pathlib
import platform
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from ptrace import LIBC, Ended, Tracer  # noqa: E402
from harness import wire  # noqa: E402
from harness.checks import Checks, require  # noqa: E402
from harness.cluster import Cluster  # noqa: E402
from harness.server import ServerFailed, free_port, remove_directory, scratch_directory  # noqa: E402

# Errors by thread and call. What only a broken program gets (EBADF, EFAULT) is left out.
SERVING = {
    "io_uring_enter": "EINTR EAGAIN EBUSY ETIME ENOMEM EPERM EINVAL ENXIO",
    "socket": "EMFILE ENFILE ENOBUFS ENOMEM EACCES EPERM EAFNOSUPPORT EINVAL",
    "setsockopt": "EPERM EACCES EINVAL ENOPROTOOPT ENOBUFS ENOMEM ENOENT",
    "getsockopt": "EPERM EACCES EINVAL ENOPROTOOPT ENOBUFS",
    "getpeername": "ENOTCONN ENOBUFS EINVAL",
    "shutdown": "ENOTCONN EINVAL ENOBUFS",
    "recvfrom": "EINTR EAGAIN ECONNRESET ECONNREFUSED ETIMEDOUT ENOMEM ENOTCONN",
    "close": "EINTR EIO ENOSPC EDQUOT",
    "read": "EINTR EAGAIN EIO ENOMEM",
    "write": "EINTR EAGAIN EIO EPIPE ENOSPC",
    "poll": "EINTR ENOMEM EINVAL",
    "futex": "EINTR EAGAIN",
    "munmap": "ENOMEM EINVAL",
    "madvise": "EAGAIN ENOMEM EINVAL EPERM",
}
HELPER = {
    "futex": "EINTR EAGAIN",
    "write": "EINTR EAGAIN EIO ENOMEM",
    "madvise": "EAGAIN ENOMEM EINVAL EPERM",
}
METRICS = {
    "poll": "EINTR ENOMEM EINVAL",
    "accept4": "EMFILE ENFILE ENOBUFS ENOMEM ECONNABORTED EPERM EINTR EAGAIN EPROTO",
    "recvfrom": "EINTR EAGAIN ECONNRESET ETIMEDOUT ENOMEM",
    "sendto": "EINTR EAGAIN EPIPE ECONNRESET ENOBUFS ENOMEM ENETUNREACH",
    "ioctl": "EINVAL ENOTTY ENOMEM",
    "close": "EINTR EIO",
    "pread64": "EIO EINTR EACCES ESRCH",
    "statx": "EIO EACCES ENOSYS EPERM",
    "fstatfs": "EIO ENOSYS EPERM",
    "clock_gettime": "EINVAL ENOSYS EPERM",
}
# Of the thread that looks up names of other replicas: what the C library asks of the kernel.
RESOLVER = {
    "openat": "EMFILE ENFILE ENOMEM ENOENT EACCES",
    "read": "EINTR EIO ENOMEM",
    "socket": "EMFILE ENFILE ENOBUFS ENOMEM EACCES",
    "close": "EINTR EIO",
    "futex": "EINTR EAGAIN",
}
# Calls that every machine makes, so that they must have failed.
REACHED = {
    "serving": "io_uring_enter socket setsockopt getsockopt getpeername shutdown close read",
    "metrics": "poll accept4 recvfrom sendto close pread64 statx fstatfs",
    "worker": "write",
    "resolver": "openat",
}
# Exit codes of a server that cannot go on.
DOCUMENTED = {1, 3, 4, 5, 6}
PATIENCE_SECONDS = 30
# Exit code of a suite that cannot run on this machine.
SKIPPED = 77
# A thread that fails for ever is as good as dead; so many calls in a row are a long time.
MANY = 40
# Longest wait for a call that may never be made.
SECONDS = 0.4


class Metered:
    """Gives a replica an endpoint for metrics."""

    def __init__(self, replica):
        self.replica = replica
        self.port = free_port()
        replica.options = [f"--metrics=127.0.0.1:{self.port}"]


class Bustle:
    """Clients of a cluster in threads of their own, until closed: requests to whoever leads,
    connections that come and go at all replicas, scrapes of metrics."""

    def __init__(self, replicas, metrics):
        self.replicas = replicas
        self.metrics = metrics
        self.open = True
        self.bulk = threading.Event()
        self.answers = 0
        loops = (self.requests, self.visits, self.scrapes)
        self.threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
        for thread in self.threads:
            thread.start()

    def close(self):
        """Ends all threads."""
        self.open = False
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)

    def requests(self):
        """Sessions that create accounts and transfers, small and large requests."""
        port = 0
        while self.open:
            port = (port + 1) % len(self.replicas)
            try:
                with wire.RawClient(self.replicas[port].port, timeout_seconds=2) as client:
                    client.register()
                    self.session(client)
            except (OSError, wire.Evicted, wire.ProtocolError):
                time.sleep(0.02)

    def session(self, client):
        """One session for as long as it is answered."""
        client.create(wire.CREATE_ACCOUNTS, [wire.account(1), wire.account(2)])
        number = int.from_bytes(os.urandom(12), "little")
        while self.open:
            # One element less for what stands behind them.
            count = client.batch_size_limit // 128 - 1 if self.bulk.is_set() else 1
            events = [wire.transfer(number + index, 1, 2, 1) for index in range(count)]
            number += count
            client.create(wire.CREATE_TRANSFERS, events)
            self.answers += 1
            time.sleep(0.005)

    def visits(self):
        """Pings, frames that are none, and connections that say nothing."""
        number = 0
        while self.open:
            number += 1
            replica = self.replicas[number % len(self.replicas)]
            try:
                address = ("127.0.0.1", replica.port)
                with socket.create_connection(address, timeout=0.5) as connection:
                    if number % 4 == 0:
                        connection.sendall(bytes(256))
                    elif number % 4 != 1:
                        connection.sendall(wire.ping_frame(number))
                        wire.read_message(connection)
            except (OSError, wire.ProtocolError):
                pass
            time.sleep(0.01)

    def scrapes(self):
        """Reads metrics."""
        while self.open:
            try:
                scrape(self.metrics)
            except (OSError, ValueError, http.client.HTTPException):
                pass
            time.sleep(0.02)


def scrape(port):
    """Reads the metrics at a port; raises an error unless all of them come."""
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=0.5) as answer:
        answer.read()


class Faults:
    """A cluster of three of which two run, and the one whose calls fail."""

    def __init__(self, directory):
        self.cluster = Cluster(directory, 3)
        self.target = self.cluster.replicas[1]
        self.metered = Metered(self.target)
        # The others by their name: a thread looks it up whenever they cannot be reached.
        own = self.target.index
        self.target.addresses = [
            address if index == own else address.replace("127.0.0.1", "localhost")
            for index, address in enumerate(self.cluster.addresses)]
        self.cluster.start()
        self.cluster.replicas[2].kill()
        self.bustle = Bustle(self.cluster.replicas[:2], self.metered.port)
        self.reached = set()
        self.ends = {}

    def close(self):
        """Ends everything."""
        self.bustle.close()
        self.cluster.kill()

    def thread(self, name):
        """The id of a thread of the target by its name; the serving one has the process's."""
        process = self.target.process.pid
        if name == "serving":
            return process
        for entry in pathlib.Path(f"/proc/{process}/task").iterdir():
            if (entry / "comm").read_text().strip() == f"florin-{name}":
                return int(entry.name)
        raise ServerFailed(f"there is no thread {name}")

    def fail(self, thread, call, name, times):
        """Has a call fail with an error, and looks at what became of the server."""
        tracer = Tracer(self.thread(thread))
        status = None
        try:
            tracer.attach()
            # Once: what every machine makes is waited for, since it must have failed.
            is_certain = times == 1 and call in REACHED[thread].split()
            seconds = PATIENCE_SECONDS if is_certain else SECONDS
            tracer.fail(call, getattr(errno, name), seconds, times)
            tracer.detach()
        except Ended as end:
            # That of another thread than the first says nothing about the process.
            status = end.args[0] if thread == "serving" else None
        what = f"{thread}: {call} {name}"
        if tracer.failed:
            self.reached.add((thread, call, name))
        else:
            what += ", which was never made"
        self.judge(what, status, thread)

    def is_working(self, thread):
        """Whether the server answers, and this thread of it does its work."""
        try:
            self.target._ping()
            if thread == "metrics":
                scrape(self.metered.port)
            self.thread(thread)
        except (OSError, ValueError, http.client.HTTPException, wire.ProtocolError, ServerFailed):
            return False
        return True

    def judge(self, what, status, thread="serving"):
        """The server works and clients are served, for which the cluster needs it; or it has ended
        as documented, and is started again."""
        process = self.target.process
        if status is not None:
            process.returncode = os.waitstatus_to_exitcode(status)
        answers = self.bustle.answers
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            # One answer may have been under way before.
            if self.is_working(thread) and self.bustle.answers > answers + 1:
                return
            time.sleep(0.01)
        code = process.poll()
        require(code is not None, f"{what}: the server runs, and this thread does not "
                f"work: {self.bustle.answers - answers} requests answered")
        text = self.target.stderr_text()
        self.target.reap()
        self.target.start()
        require(code in DOCUMENTED, f"{what}: it ended with {code}: {text[-400:]}")
        require("invariant broken" not in text and "panicked" not in text, f"{what}: {text[-400:]}")
        last = text.strip().splitlines()[-1] if text.strip() else ""
        is_error = last.startswith("florin: ") or " error " in last
        require(is_error, f"{what}: it ended with {code}, saying {last!r}")
        self.ends[what] = f"{code}: {last}"

    def all_of(self, thread, table, call):
        """Every error of a call, once and many times."""
        for name in table[call].split():
            for times in (1, MANY):
                self.fail(thread, call, name, times)


def give_up_network_privileges():
    """What this process starts from now on may not set large buffers on sockets, as for any other
    user than root; then the serving thread asks for more."""
    drop, network = 24, 12
    LIBC.prctl(drop, network, 0, 0, 0)


def limit(process, which, value):
    """Sets the soft limit of a running process; gives the one before."""
    before, hard = resource.prlimit(process.pid, which)
    resource.prlimit(process.pid, which, (value, hard))
    return before


def check_open_files(faults):
    """Without descriptors to spare nobody new is accepted and no replica dialed; with them again
    everything goes on."""
    process = faults.target.process
    used = len(os.listdir(f"/proc/{process.pid}/fd"))
    for spare in (0, 1, 2, 5):
        before = limit(process, resource.RLIMIT_NOFILE, max(used - 3 + spare, 3))
        time.sleep(0.7)
        limit(process, resource.RLIMIT_NOFILE, before)
        faults.judge(f"open files: {spare} to spare", None)


def check_file_length(faults):
    """Beyond the largest length of a file a write fails: no signal ends the server. In the end the
    limit is lifted, and it serves."""
    process = faults.target.process
    length = os.stat(faults.target.path).st_size
    before = limit(process, resource.RLIMIT_FSIZE, length // 2)
    faults.bustle.bulk.set()
    deadline = time.monotonic() + 2
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    faults.bustle.bulk.clear()
    if process.poll() is None:
        limit(process, resource.RLIMIT_FSIZE, before)
    faults.judge("length of files", None)


def full_terminal():
    """Both ends of a terminal that has room for some characters, but not for a line."""
    shows, programs = os.openpty()
    os.set_blocking(programs, False)
    full_rounds = 0
    # What is written moves on inside the kernel for a moment, and makes room again.
    while full_rounds < 5:
        try:
            os.write(programs, b".")
            full_rounds = 0
        except BlockingIOError:
            full_rounds += 1
            time.sleep(0.02)
    os.set_blocking(programs, True)
    os.read(shows, 50)
    return shows, programs


def check_standard_error(faults, kind):
    """A server that cannot say anything serves all the same, and ends with 0 when it is told to."""
    target = faults.target
    target.stop()
    read, write = os.pipe()
    if kind == "full device":
        error = os.open("/dev/full", os.O_WRONLY)
    elif kind == "full terminal":
        os.close(read)
        read, error = full_terminal()
    else:
        error = os.dup(write)
    if kind == "full pipe":
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, bytes(4096))
        except BlockingIOError:
            pass
        os.set_blocking(write, True)
    if kind == "broken pipe":
        os.close(read)
        read = None
    close = (lambda: os.close(2)) if kind == "closed" else None
    target.process = subprocess.Popen(target.command(), stdin=subprocess.PIPE, preexec_fn=close,
                                      stdout=subprocess.PIPE, stderr=error)
    try:
        target.wait_ready()
        # The third replica is away: that is said. A frame that is none is said, too.
        time.sleep(0.5)
        target._ping()
        target.stop()
    finally:
        if target.is_running():
            target.kill()
        for descriptor in filter(None, (read, write, error)):
            os.close(descriptor)
        target.process = None
        target.start()


def main():
    """Runs everything."""
    global SECONDS
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.4,
                        help="longest wait for a call that may never be made")
    parser.add_argument("--only", default="", help="part of the name of a check")
    options = parser.parse_args()
    SECONDS = options.seconds
    checks = Checks("faults")
    if platform.machine() != "x86_64":
        print("faults: on x86-64 only")
        sys.exit(SKIPPED)
    give_up_network_privileges()
    directory = scratch_directory("faults")
    faults = None

    def start():
        nonlocal faults
        faults = Faults(directory)

    def run(name, function, *arguments):
        if options.only in name:
            checks.run(name, function, *arguments)

    if not checks.run("start", start):
        checks.finish()
    try:
        for call in SERVING:
            # The helper thread has work only if much is asked for.
            if call in HELPER or call == "read":
                faults.bustle.bulk.set()
            run(f"serving thread: {call}", faults.all_of, "serving", SERVING, call)
        faults.bustle.bulk.clear()
        for call in METRICS:
            run(f"thread of metrics: {call}", faults.all_of, "metrics", METRICS, call)
        faults.bustle.bulk.set()
        for call in HELPER:
            run(f"helper thread: {call}", faults.all_of, "worker", HELPER, call)
        print(f"requests answered: {faults.bustle.answers}", flush=True)
        faults.bustle.bulk.clear()
        # Names are looked up less and less often from the start on.
        faults.target.stop()
        faults.target.start()
        for call in RESOLVER:
            run(f"thread of names: {call}", faults.all_of, "resolver", RESOLVER, call)
        for kind in ("closed", "full device", "broken pipe", "full pipe", "full terminal"):
            run(f"standard error: {kind}", check_standard_error, faults, kind)
        run("few open files", check_open_files, faults)
        run("short files", check_file_length, faults)
        run("calls were reached", require_reached, faults)
        checks.run("an orderly end", faults.target.stop)
    finally:
        faults.close()
    for what, end in sorted(faults.ends.items()):
        print(f"ended by {what}: {end}")
    if checks.failed == 0:
        remove_directory(directory)
    checks.finish()


def require_reached(faults):
    """The calls that every machine makes were made to fail, each with every error."""
    tables = {"serving": SERVING, "metrics": METRICS, "worker": HELPER, "resolver": RESOLVER}
    wanted = {(thread, call, name) for thread, calls in REACHED.items() for call in calls.split()
              for name in tables[thread][call].split()}
    for thread, table in tables.items():
        for call, names in table.items():
            absent = [it for it in names.split() if (thread, call, it) not in faults.reached]
            if absent:
                print(f"never made to fail: {thread}: {call} {' '.join(absent)}", flush=True)
    missing = sorted(" ".join(it) for it in wanted - faults.reached)
    require(not missing, f"never made: {', '.join(missing)}")


if __name__ == "__main__":
    main()
