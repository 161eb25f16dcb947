"""Florin's own commands as a user runs them: `florin WORDS`, with output, exit code and patience."""

import json
import subprocess
import threading
import time

from .checks import require
from .server import BINARY

PATIENCE_SECONDS = 60


def florin(*words, codes=(0,), given=None, seconds=PATIENCE_SECONDS, environment=None):
    """Runs a command to its end; it must end with one of `codes`."""
    command = [str(BINARY), *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=given,
                          timeout=seconds, env=environment)
    require(done.returncode in codes, f"{' '.join(command[1:])}: ended with {done.returncode}, "
            f"expected {' or '.join(map(str, codes))}: {done.stderr.strip()[-500:]}")
    return done


def florin_json(*words, **options):
    """Runs a command and returns its lines of JSON."""
    return [json.loads(line) for line in florin(*words, **options).stdout.splitlines() if line]


class Stream:
    """A command that keeps writing lines of JSON, such as `florin cdc`, read by a thread."""

    def __init__(self, *words):
        command = [str(BINARY), *(str(word) for word in words)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.errors = []
        self.readers = [threading.Thread(target=self._read, args=(pipe, target), daemon=True)
                        for pipe, target in ((self.process.stdout, self.lines),
                                             (self.process.stderr, self.errors))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def _read(pipe, target):
        for line in pipe:
            target.append(line)

    def records(self):
        """What was read so far."""
        return [json.loads(line) for line in list(self.lines)]

    def wait_for(self, condition, what, seconds=PATIENCE_SECONDS):
        """Waits until the records read so far meet a condition."""
        deadline = time.monotonic() + seconds
        while not condition(self.lines):
            require(self.process.poll() is None or condition(self.lines),
                    f"{what}: ended with {self.process.poll()}: {''.join(self.errors)[-500:]}")
            require(time.monotonic() < deadline, f"{what}: {len(self.lines)} lines after "
                    f"{seconds} s")
            time.sleep(0.02)

    def end(self, signal_number=15):
        """Ends the command by a signal and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        return self.wait()

    def wait(self, seconds=PATIENCE_SECONDS):
        """Waits for the end and returns the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        for reader in self.readers:
            reader.join(seconds)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
