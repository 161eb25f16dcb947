#!/usr/bin/env python3
"""Runs what the documentation shows, and compares: `documentation.py [--only=PAGE[,PAGE]]`.

Every fenced block of README, QUICKSTART, CONCEPTS and OPERATING is carried out in order, page by
page, by a reader with a fresh account, no privileges, and a machine of their own (machine.py), at a
terminal (terminal.py). What the terminal shows is compared with what the page shows (compare.py);
where a page shows nothing below a command, the command must succeed. Blocks that can't be run carry
a marker with the reason (pages.py), which is printed. Then the links between all pages, and the
commands, options, metrics, variables and exit codes named in their text, are checked (references.py).

Needs Linux with namespaces, as root or with user namespaces allowed (exit code 77 where they are
not); `pyte`; and a folder with wheels of the packages that the pages install. The last line is
`N passed, M failed`.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import machine  # noqa: E402
import references  # noqa: E402
from compare import matches  # noqa: E402
from pages import PageError, read_steps  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Whether the reader has installed florin before, or builds it from the clone.
PAGES = {"README.md": False, "docs/QUICKSTART.md": False, "docs/CONCEPTS.md": True,
         "docs/OPERATING.md": True}
COMMAND_SECONDS, SERVER_SECONDS, QUIET_SECONDS = 600, 60, 1.5


class Mismatch(Exception):
    """The terminal showed something else than the page, or a command failed."""


class Reader:
    """Carries out the steps of a page."""

    def __init__(self, page, scratch, options):
        self.machine = machine.Machine(scratch, options, installed=PAGES[page])
        self.terminals = {}
        self.opened = 0
        self.not_run = []
        self.last = None

    def do(self, step):
        """Carries out a step; raises `Mismatch`."""
        getattr(self, "do_" + step.kind.replace(" ", "_"))(step)

    def do_not_run(self, step):
        """Counts a block that cannot be run."""
        self.not_run.append(f"line {step.line}: {step.text}")

    def do_file(self, step):
        """Writes a file as the page shows it, where the newest terminal is."""
        directory = self.directory()
        path = self.machine.path(directory, step.text)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(step.shown) + "\n")
        self.machine.give(path.parent)

    def directory(self):
        """The directory of the terminal that was used last."""
        terminal = self.idle_terminal(self.last or "")
        self.run_in(terminal, "pwd", COMMAND_SECONDS)
        return terminal.output()[0]

    def idle_terminal(self, host):
        """A terminal at this host that waits for a command; the REPL is left for it."""
        for terminal in reversed(self.terminals.get(host, [])):
            terminal.settle(0.05)
            if terminal.is_idle():
                return terminal
            if terminal.foreground.startswith("florin repl"):
                terminal.write("\x04")
                if terminal.wait(terminal.is_idle, SERVER_SECONDS):
                    return terminal
        self.opened += 1
        terminal = self.machine.terminal(self.opened, f"{host}$ ")
        terminal.foreground = ""
        self.terminals.setdefault(host, []).append(terminal)
        return terminal

    @staticmethod
    def run_in(terminal, command, seconds):
        """Runs a command to its end."""
        terminal.foreground = command
        terminal.begin(command)
        if not terminal.wait(terminal.is_idle, seconds):
            raise Mismatch(f"`{command}` did not end within {seconds} s:\n"
                           + "\n".join(terminal.output()))
        terminal.settle(0.05)

    def do_command(self, step):
        """Types a command, and compares what it shows."""
        terminal = self.idle_terminal(step.host)
        self.last = step.host
        if stays(step.text):
            self.start(terminal, step)
            return
        self.run_in(terminal, step.text, COMMAND_SECONDS)
        if terminal.exit_code != step.exit_code:
            raise Mismatch(f"exit code {terminal.exit_code}, not {step.exit_code}:\n"
                           + "\n".join(terminal.output()))
        if step.shown and not matches(step.shown, terminal.output()):
            raise Mismatch(difference(step.shown, terminal.output()))

    def start(self, terminal, step):
        """Starts a program that stays in the foreground, until it shows what the page shows."""
        terminal.foreground = step.text
        terminal.begin(step.text)
        end = time.monotonic() + (SERVER_SECONDS if step.shown else QUIET_SECONDS)
        while time.monotonic() < end:
            terminal.settle(0.1)
            if terminal.is_idle():
                break
            if step.shown and matches(step.shown, terminal.output(), prefix=True):
                return
        if terminal.is_idle():
            raise Mismatch(f"`{step.text}` ended with {terminal.exit_code}:\n"
                           + "\n".join(terminal.output()))
        if step.shown:
            raise Mismatch(difference(step.shown, terminal.output()))

    def do_input(self, step):
        """Types a statement into the REPL."""
        terminal = next(terminal for terminal in reversed(self.terminals[step.host])
                        if terminal.foreground.startswith("florin repl"))
        terminal.wait(lambda: terminal.row_of_cursor().strip() == ">", SERVER_SECONDS)
        for part in step.text.split("\n"):
            terminal.settle(0.1)
            first = terminal.screen.cursor.y + 1
            terminal.write(part.strip() + "\r")
        end = time.monotonic() + SERVER_SECONDS
        seen = []
        while time.monotonic() < end and not (seen and terminal.row_of_cursor().strip() == ">"):
            terminal.settle(0.15)
            seen = terminal.lines(first, terminal.screen.cursor.y)
        if terminal.row_of_cursor().strip() != ">":
            raise Mismatch(f"no answer within {SERVER_SECONDS} s:\n" + "\n".join(seen))
        if step.shown and not matches(step.shown, seen):
            raise Mismatch(difference(step.shown, seen))

    def do_key(self, step):
        """Interrupts a program in the foreground."""
        key, command = step.text.split(" in ", 1)
        assert key == "Ctrl-C", key
        for terminal in (it for group in self.terminals.values() for it in group):
            if terminal.foreground == command and not terminal.is_idle():
                terminal.write("\x03")
                if not terminal.wait(terminal.is_idle, SERVER_SECONDS):
                    raise Mismatch(f"`{command}` did not end:\n" + "\n".join(terminal.output()))
                return
        raise Mismatch(f"`{command}` does not run in the foreground of any terminal")


def stays(command):
    """Whether a command stays in the foreground until somebody ends it."""
    words = command.split()
    if words[:3] == ["cargo", "run", "--release"]:
        words = ["florin", *words[4:]]
    if words[:1] != ["florin"] or {"&", "<"} & set(words):
        return False
    if words[1] == "repl":
        return "--command" not in command
    if words[1] == "cdc":
        return "--until" not in command
    return words[1] in ("dev", "start") and "--help" not in command


def difference(shown, seen):
    """Both, for a person to compare."""
    return "\n".join(["the page shows", *("    " + line for line in shown), "the terminal shows",
                      *("    " + line for line in seen)])


def run_page(page, scratch, options):
    """Carries out a page; prints what failed; returns the counts and the reasons of what is not run."""
    passed = failed = 0
    number = 0
    not_run = []
    steps = read_steps((ROOT / page).read_text())
    groups = [[]]
    for step in steps:
        if step.kind == "machine":
            groups.append([])
        else:
            groups[-1].append(step)
    for number, group in enumerate(groups):
        process = run_group(page, number, group, scratch, options)
        passed, failed = passed + process[0], failed + process[1]
        not_run += process[2]
    return passed, failed, not_run


def run_group(page, number, group, scratch, options):
    """Carries out the steps up to the next machine, in a child with namespaces of its own."""
    folder = scratch / f"{page.replace('/', '-')}-{number}"
    folder.mkdir()
    report = folder / "report"
    arguments = [__file__, "--inside", str(folder), "--only", page, "--machine", str(number),
                 *(f"--{name}={getattr(options, name.replace('-', '_'))}"
                   for name in ("florin", "wheels", "rust", "cargo-home", "cache"))]
    code = machine.enter_namespaces(arguments)
    lines = report.read_text().splitlines() if report.exists() else ["0 1"]
    passed, failed = (int(word) for word in lines[0].split())
    if code and not failed:
        failed = 1
    return passed, failed, lines[1:], group


def run_inside(options):
    """The child: carries out one machine's steps of a page, and writes the counts to a file."""
    page, folder = options.only, pathlib.Path(options.inside)
    number, steps = 0, []
    for step in read_steps((ROOT / page).read_text()):
        if step.kind == "machine":
            number += 1
        elif number == options.machine:
            steps.append(step)
    reader = Reader(page, folder, options)
    passed = failed = 0
    for step in steps:
        what = f"{page}:{step.line}: {step.text}".splitlines()[0]
        start = time.monotonic()
        try:
            reader.do(step)
            passed += step.kind != "not run"
            if time.monotonic() - start > 5:
                print(f"{what} ({time.monotonic() - start:.0f} s)", flush=True)
        except Mismatch as mismatch:
            failed += 1
            print(f"FAILED {what}\n{mismatch}\n", flush=True)
    (folder / "report").write_text("\n".join([f"{passed} {failed}", *reader.not_run]) + "\n")


def parse_arguments():
    """The options, with defaults for a build in target/release."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True,
                             check=True).stdout.strip()
    cargo_home = os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PAGE[,PAGE]", help="such as docs/CONCEPTS.md")
    parser.add_argument("--florin", type=pathlib.Path, default=os.environ.get(
        "FLORIN_BINARY", ROOT / "target" / "release" / "florin"))
    parser.add_argument("--wheels", type=pathlib.Path, default=ROOT / "target/tools/wheels")
    parser.add_argument("--rust", type=pathlib.Path, default=sysroot)
    parser.add_argument("--cargo-home", type=pathlib.Path, default=cargo_home)
    parser.add_argument("--cache", type=pathlib.Path, default=ROOT / "target/tools/documentation")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--machine", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Runs the pages asked for and prints the count."""
    options = parse_arguments()
    if options.inside:
        run_inside(options)
        return
    if not machine.may_enter_namespaces():
        print("this machine forbids user namespaces to those who are not root")
        sys.exit(77)
    pages = options.only.split(",") if options.only else list(PAGES)
    passed, failed, not_run = 0, 0, []
    with tempfile.TemporaryDirectory(prefix="florin-documentation-") as folder:
        for page in pages:
            try:
                counts = run_page(page, pathlib.Path(folder), options)
            except PageError as error:
                print(f"FAILED {page}: {error}")
                counts = 0, 1, []
            print(f"{page}: {counts[0]} steps as shown, {counts[1]} not", flush=True)
            passed, failed = passed + counts[0], failed + counts[1]
            not_run += [f"{page}: {reason}" for reason in counts[2]]
    print(f"{len(not_run)} blocks not run:")
    for reason in not_run:
        print("    " + reason)
    problems, checked = references.check(options.florin)
    for problem in problems:
        print(f"FAILED {problem}")
    passed, failed = passed + checked - len(problems), failed + len(problems)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
