"""The server under test: format, start, kill, stop, and what it left on stderr.

A server that chose its own port ends when its stdin closes, others end on SIGTERM; both ways are
used here. None is left behind when a suite ends. All addresses are on loopback.
"""

import atexit
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import wire

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("FLORIN_BINARY", ROOT / "target" / "release" / "florin"))
TIMEOUT_SECONDS = 60
# Options for the user's own servers, which the programs under test must not take from here.
for _option in ("ADDRESSES", "CLUSTER", "METRICS", "STATSD", "LOG_LEVEL", "LOG_FORMAT", "CACHE_GRID",
                "CACHE_ACCOUNTS", "CACHE_TRANSFERS", "FILTERS", "LIMIT_STORAGE", "SCRUB_RATE"):
    os.environ.pop(f"FLORIN_{_option}", None)
# Servers whose processes were not waited for.
RUNNING = set()


class ServerFailed(Exception):
    """The server did not do what it was started for."""


def scratch_directory(name):
    """A new directory for data files: on the disk that holds the build, or where
    FLORIN_SCRATCH says, as for a user who must not write into the build."""
    chosen = os.environ.get("FLORIN_SCRATCH")
    parent = pathlib.Path(chosen) if chosen else ROOT / "target" / "tools" / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))


def remove_directory(path):
    """Removes a scratch directory; keeps it when FLORIN_KEEP is set, to look at failures."""
    if not os.environ.get("FLORIN_KEEP"):
        shutil.rmtree(path, ignore_errors=True)


def format_command(path, development=True):
    """The command line that creates a data file."""
    mode = ["--development"] if development else []
    return [str(BINARY), "format", "--cluster=0", "--replica=0", "--replica-count=1", *mode,
            str(path)]


def format_file(path, development=True):
    """Creates a data file."""
    done = subprocess.run(format_command(path, development), capture_output=True, text=True,
                          timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"format ended with {done.returncode}: {done.stderr.strip()}")


def free_port():
    """A free port below those that the system gives to outgoing connections: a client that tries
    to connect while the server is down must not take the server's port or connect to itself."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Server:
    """One data file and the process that serves it, if it runs.

    `port` 0 lets the server choose one, which it prints; then it stays the same for restarts.
    """

    def __init__(self, path, development=True, port=0):
        self.path = pathlib.Path(path)
        self.development = development
        self.port = port
        # Options of `florin start` beyond those that every server has.
        self.options = []
        self.process = None
        self._ends_with_input = False
        self.log_path = self.path.with_name(self.path.name + ".log")
        self._log_mark = 0

    def command(self):
        """The command line that serves the data file."""
        mode = ["--development"] if self.development else []
        return [str(BINARY), "start", f"--addresses={self.port}", *mode, *self.options,
                str(self.path)]

    def spawn(self):
        """Starts the process without waiting for it."""
        assert self.process is None, "the previous process was waited for"
        command = self.command()
        self._ends_with_input = self.port == 0
        with open(self.log_path, "ab") as log:
            self._log_mark = log.tell()
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=log)
        RUNNING.add(self)

    def start(self):
        """Starts the process and waits until it serves."""
        self.spawn()
        self.wait_ready()
        return self

    def wait_ready(self):
        """Waits until the server answers a ping; raises `ServerFailed` if it ended.

        A connection alone proves nothing: for some milliseconds the kernel may still accept some
        for the socket of a process that was killed, only to reset them.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        if self.port == 0:
            self.port = self._read_port(deadline)
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServerFailed(self.describe_end())
            try:
                self._ping()
                return
            except OSError:
                time.sleep(0.005)
        raise ServerFailed("the server runs but does not answer")

    def _ping(self):
        """One ping and its answer; raises `OSError` if there is none within a second."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(wire.ping_frame(random.randrange(1, 1 << 100)))
            header, _ = wire.read_message(connection)
            if header[114] != wire.COMMAND_PONG_CLIENT:
                raise ServerFailed(f"a ping was answered with command {header[114]}")

    def _read_port(self, deadline):
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [],
                                        max(0, deadline - time.monotonic()))
            if not ready:
                raise ServerFailed("the server printed no port")
            byte = os.read(self.process.stdout.fileno(), 1)
            if not byte:
                self.process.wait()
                raise ServerFailed(self.describe_end())
            line += byte
        return int(line)

    def stderr_text(self):
        """What the newest process wrote to stderr."""
        with open(self.log_path, "rb") as log:
            log.seek(self._log_mark)
            return log.read().decode("utf-8", "replace")

    def describe_end(self):
        """The exit code and the last lines of stderr."""
        tail = "\n".join(self.stderr_text().strip().splitlines()[-5:])
        return f"the server ended with {self.process.poll()}: {tail}"

    def kill(self):
        """Kills the process at once, as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.reap()

    def reap(self):
        """Waits for a process that ends by itself and gives its exit code."""
        code = self.process.wait(timeout=TIMEOUT_SECONDS)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process = None
        RUNNING.discard(self)
        return code

    def stop(self):
        """Ends the process in good order. It must exit with 0."""
        if not self._ends_with_input:
            self.process.terminate()
        self.process.stdin.close()
        try:
            code = self.process.wait(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed("the server did not end when it was told to") from None
        self.process.stdout.close()
        self.process = None
        RUNNING.discard(self)
        if code != 0:
            raise ServerFailed(f"the server ended with {code} when it was told to end: "
                               + self.stderr_text()[-500:])

    def is_running(self):
        """Whether the process has not ended."""
        return self.process is not None and self.process.poll() is None

    def memory_bytes(self):
        """Resident memory of the process."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kill_running():
    """Kills all servers that are still running."""
    for server in list(RUNNING):
        server.kill()


atexit.register(kill_running)
