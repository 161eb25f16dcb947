"""A terminal of the reader: bash on a pseudo-terminal, and a screen that shows what a person sees.

The shell writes marks that the screen leaves out (control sequences), when a command begins and when
it has ended, with its exit code. The screen is so tall that nothing scrolls out of it.
"""

import os
import pty
import re
import select
import struct
import termios
import time
import fcntl

import pyte

COLUMNS, ROWS = 110, 4000
MARK = re.compile(rb"\x1b\]777;(begin|end);(\d*)\x07")
# DuckDB asks for the background's colour and for the kind of terminal; terminals answer both.
BACKGROUND = b"\x1b]11;?"
RC_FILE = r"""
PS1='@prompt@'
PS2='> '
PS0='\e]777;begin;\a'
PROMPT_COMMAND='printf "\033]777;end;%s\007" $?'
bind 'set enable-bracketed-paste off' 2>/dev/null
HISTFILE=
"""


class Terminal:
    """A shell, and what is on its screen."""

    def __init__(self, command, prompt, rc_path):
        """Starts the shell by this command, which ends with bash's own name."""
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.pending = b""
        self.output_row = 0
        self.end_row = 0
        self.exit_code = None
        rc_path.write_text(RC_FILE.replace("@prompt@", prompt))
        pid, self.descriptor = pty.fork()
        if pid == 0:
            os.execvp(command[0], command)
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, size)
        if not self.wait(lambda: self.exit_code is not None, 60):
            raise OSError("no shell: " + "\n".join(self.lines(0)))
        self.settle(0.1)

    def read(self, seconds):
        """Shows what comes within this time; returns whether something came."""
        ready, _, _ = select.select([self.descriptor], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.descriptor, 1 << 16)
        except OSError as error:
            raise OSError("the shell ended: " + "\n".join(self.lines(0))) from error
        if BACKGROUND in data:
            self.write("\x1b]11;rgb:0000/0000/0000\x1b\\\x1b[?6c")
        self.pending += data
        while mark := MARK.search(self.pending):
            self.stream.feed(self.pending[:mark.start()])
            self.pending = self.pending[mark.end():]
            row = self.screen.cursor.y + (self.screen.cursor.x > 0)
            if mark[1] == b"begin":
                self.output_row = row
            else:
                self.exit_code, self.end_row = int(mark[2]), row
        # A mark may be cut in two; everything before its beginning can be shown.
        start = self.pending.rfind(b"\x1b]777")
        if start < 0 and b"\x1b" in self.pending[-6:]:
            start = self.pending.rfind(b"\x1b")
        shown = len(self.pending) if start < 0 else start
        self.stream.feed(self.pending[:shown])
        self.pending = self.pending[shown:]
        return True

    def wait(self, condition, seconds):
        """Reads until the condition holds; returns whether it does in time."""
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.read(min(left, 0.05))
        return True

    def settle(self, seconds):
        """Reads until nothing has come for this time."""
        while self.read(seconds):
            pass

    def write(self, text):
        """Types something."""
        os.write(self.descriptor, text.encode())

    def lines(self, first, last=None):
        """What is on the screen from a row on, to the last one that is used; a line that is longer
        than the screen is wide is put together again."""
        last = self.screen.cursor.y + 1 if last is None else last
        lines, wrapped = [], False
        for row in (self.row(number) for number in range(first, last)):
            if wrapped:
                lines[-1] += row.rstrip()
            else:
                lines.append(row.rstrip())
            wrapped = row[-1] != " "
        return lines

    def row(self, number):
        """One line of the screen."""
        cells = self.screen.buffer[number]
        return "".join(cells[column].data for column in range(COLUMNS))

    def begin(self, command):
        """Types a command, and waits until the shell has taken all of it."""
        self.exit_code = None
        before = self.output_row
        self.output_row = -1
        self.write(command + "\n")
        if not self.wait(lambda: self.output_row >= 0, 60):
            self.output_row = before

    def output(self):
        """What the command has written so far."""
        return self.lines(self.output_row, self.end_row if self.exit_code is not None else None)

    def is_idle(self):
        """Whether the shell waits for a command."""
        return self.exit_code is not None

    def row_of_cursor(self):
        """The text of the line in which the cursor is, up to the cursor."""
        return self.row(self.screen.cursor.y)[:self.screen.cursor.x]
