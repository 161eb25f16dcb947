#!/usr/bin/env python3
"""Makes the pictures in docs/images: real sessions in tmux, captured with their colours, as SVG.

    pip install rich
    tools/docs/screenshots.py [BINARY] [NAME ...]

BINARY is target/release/florin by default. Needs tmux, and free ports from 3000 on. Look at the
pictures before they are committed.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from rich.console import Console
from rich.text import Text

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
WIDTH = 100


class Terminal:
    """A tmux session of its own, in which one types and sees."""

    def __init__(self, folder, binary, height):
        self.name = f"florin-shot-{os.getpid()}"
        environment = {**os.environ, "PATH": f"{binary.parent}:{os.environ['PATH']}", "PS1": "$ "}
        environment["XDG_STATE_HOME"] = str(folder)
        environment.pop("NO_COLOR", None)
        self.tmux("new-session", "-d", "-x", str(WIDTH), "-y", str(height), "-c", str(folder),
                  "bash", "--norc", "--noprofile", environment=environment)
        self.tmux("set-option", "status", "off")

    def tmux(self, command, *words, environment=None):
        line = ["tmux", "-L", self.name, command, *words]
        return subprocess.run(line, check=True, capture_output=True, text=True,
                              env=environment or os.environ).stdout

    def type(self, text, wait_for, seconds=120):
        """Types a line, and waits until the screen shows what is expected below it."""
        # A semicolon at the end would be tmux's own.
        escaped = text[:-1] + "\\;" if text.endswith(";") else text
        self.tmux("send-keys", "-l", escaped)
        self.tmux("send-keys", "Enter")
        self.wait(wait_for, seconds)

    def wait(self, wait_for, seconds=120):
        end = time.monotonic() + seconds
        while wait_for not in self.tmux("capture-pane", "-p", "-S", "-"):
            if time.monotonic() > end:
                raise SystemExit(f"{wait_for!r} does not come:\n{self.tmux('capture-pane', '-p')}")
            time.sleep(0.1)
        time.sleep(0.3)

    def picture(self, name, title):
        text = self.tmux("capture-pane", "-e", "-p").rstrip("\n")
        console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)
        console.print(Text.from_ansi(text), no_wrap=True)
        IMAGES.mkdir(exist_ok=True)
        console.save_svg(str(IMAGES / f"{name}.svg"), title=title)
        print(IMAGES / f"{name}.svg")

    def end(self):
        subprocess.run(["tmux", "-L", self.name, "kill-server"], check=False)


def repl(terminal):
    terminal.type("florin dev > dev.log 2>&1 & sleep 2; clear; florin repl", "Ctrl-D ends")
    terminal.type("create_accounts id=1 ledger=700 code=10, id=2 ledger=700 code=10;", "2 accounts")
    terminal.type("create_transfers id=100 debit_account_id=1 credit_account_id=2 amount=500 "
                  "ledger=700 code=1;", "1 transfer,")
    terminal.type("create_transfers id=101 debit_account_id=1 credit_account_id=2 amount=100", "amount=100")
    terminal.type("ledger=700 code=1 flags=pending;", "101  created")
    terminal.type("lookup_accounts id=1, id=2;", "posted  ledger")
    terminal.type("lookup_accounts idd=1;", "did you mean")
    terminal.picture("repl", "florin repl")


def benchmark(terminal):
    terminal.type("clear", "$")
    terminal.type("florin benchmark --transfer-count=1000000", "memory at most", 600)
    terminal.picture("benchmark", "florin benchmark")


def inspect(terminal):
    terminal.type("florin benchmark --transfer-count=300000 --development --file=x.florin > /dev/null; clear", "$", 300)
    terminal.type("florin inspect log --row=1000 x.florin", "Balances after", 300)
    terminal.picture("inspect", "florin inspect")


def status(terminal):
    terminal.type("for i in 0 1 2; do florin format --cluster=7 --replica=$i --replica-count=3 --development "
                  "0_$i.florin; done > /dev/null; clear; echo MADE", "MADE\n")
    # In subshells, so that the shell says nothing of its jobs.
    terminal.type("for i in 0 1 2; do (florin start --development --addresses=3000,3001,3002 0_$i.florin "
                  "2> $i.log & echo $! > $i.pid); done; sleep 3; clear; echo UP", "UP\n")
    terminal.type("florin benchmark --cluster=7 --addresses=3000,3001,3002 --transfer-count=200000 > /dev/null; "
                  "sleep 1; clear; echo DONE", "DONE\n")
    terminal.type("clear", "$")
    terminal.type("florin status --cluster=7 --addresses=3000,3001,3002", "healthy")
    terminal.type("kill $(cat 2.pid)", "$")
    time.sleep(3)
    terminal.type("florin status --cluster=7 --addresses=3000,3001,3002", "connection refused")
    terminal.picture("status", "florin status")
    terminal.type("clear; kill $(cat 0.pid 1.pid); echo ENDED", "ENDED\n")


def doctor(terminal):
    terminal.type("clear", "$")
    terminal.type("florin doctor", "clock")
    terminal.picture("doctor", "florin doctor")


def data(terminal):
    terminal.type("florin dev > dev.log 2>&1 & sleep 2; clear", "$")
    terminal.type("florin repl --command='create_accounts id=1 ledger=700 code=10, id=2 ledger=700 code=10;' > /dev/null", "$")
    terminal.type("florin repl --command='create_transfers id=100 debit_account_id=1 credit_account_id=2 "
                  "amount=500 ledger=700 code=1;' > /dev/null; clear", "$")
    time.sleep(2)
    terminal.type("florin balance --account=1 --addresses=3000", "credits posted")
    terminal.type("florin export --what=transfers --addresses=3000", "timestamp")
    terminal.type("florin cdc --until=now | cut -c-95", "single_phase")
    terminal.picture("data", "getting data out")


SHOTS = {"repl": (repl, 38), "benchmark": (benchmark, 30), "status": (status, 22), "doctor": (doctor, 14),
         "inspect": (inspect, 36), "data": (data, 22)}


def main():
    binary = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/florin").resolve()
    for name in sys.argv[2:] or SHOTS:
        shot, height = SHOTS[name]
        folder = pathlib.Path(tempfile.mkdtemp(prefix="florin-shot-"))
        terminal = Terminal(folder, binary, height)
        try:
            shot(terminal)
        finally:
            terminal.end()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
