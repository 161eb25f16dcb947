"""Counts checks, prints one line for each, and ends a suite with a count.

A suite makes one `Checks`, hands it functions, and exits with `finish()`. A function passes if it
returns; it fails if it raises anything.
"""

import argparse
import sys
import time
import traceback

WAIT_SECONDS = 60


class CheckFailed(Exception):
    """A check found something other than what it expected."""


def require(condition, message):
    """Fails the running check with `message` unless `condition` holds."""
    if not condition:
        raise CheckFailed(message)


def equal(actual, expected, what):
    """Fails the running check unless both values are equal."""
    if actual != expected:
        raise CheckFailed(f"{what}: expected {expected!r}, got {actual!r}")


def equal_lists(actual, expected, what):
    """Fails the running check at the first place at which two lists differ."""
    for index, (one, other) in enumerate(zip(actual, expected)):
        equal(one, other, f"{what}, number {index} of {len(expected)}")
    if len(actual) != len(expected):
        rest = max(actual, expected, key=len)[min(len(actual), len(expected))]
        raise CheckFailed(f"{what}: expected {len(expected)}, got {len(actual)}; the first one "
                          f"that is not in both is {rest!r}")


def raises(kind, function, what):
    """Fails the running check unless `function` raises an exception of this kind."""
    try:
        result = function()
    except kind:
        return
    raise CheckFailed(f"{what}: expected {kind.__name__}, but it returned {result!r:.200}")


def wait_until(condition, what, seconds=WAIT_SECONDS):
    """Waits until a condition gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        require(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.02)


def cluster_options(description):
    """A parser with the options that all tools with a cluster of their own have."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--production", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    return parser


class Checks:
    """The checks of one suite."""

    def __init__(self, suite):
        self.suite = suite
        self.passed = 0
        self.failed = 0

    def run(self, name, function, *arguments):
        """Runs one check; gives whether it passed."""
        start = time.monotonic()
        try:
            function(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (a failed check must not end the suite)
            self.failed += 1
            print(f"FAILED {self.suite}: {name}: {type(error).__name__}: {error}", flush=True)
            if not isinstance(error, CheckFailed):
                traceback.print_exc(file=sys.stdout)
            return False
        self.passed += 1
        print(f"ok {self.suite}: {name} ({time.monotonic() - start:.2f} s)", flush=True)
        return True

    def finish(self):
        """Prints the count and ends the process: 0 if everything passed, else 1."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(0 if self.failed == 0 and self.passed > 0 else 1)
