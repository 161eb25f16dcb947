"""Compares what a terminal shows with what the page shows.

On a page, `...` alone on a line stands for any number of lines, and `…` within a line for anything.
Besides, only what can't be the same twice is left out of the comparison:

    moments      nanoseconds since 1970, and dates with a time of day
    durations    a number with ns, µs, ms, s or min
    ids          numbers of 30 digits and more, which are ids made from the time
    processes    the numbers behind `[1]` when a shell starts a job
    widths       runs of spaces and of the line below a table's head
"""

import re

NORMALISED = (
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC)?"), "<moment>"),
    (re.compile(r"\b1[789]\d{17}\b"), "<moment>"),
    (re.compile(r"\b\d{30,39}\b"), "<id>"),
    (re.compile(r"(?<![\w.])[+-]?\d+(\.\d+)? ?(ns|µs|ms|s|min)(?!\w)"), "<duration>"),
    (re.compile(r"^(\[\d+\]) \d+$"), r"\1 <process>"),
    (re.compile(r"─+"), "─"),
    (re.compile(r"\s+"), " "),
)


def normalise(line):
    """Returns a line without what varies."""
    for pattern, replacement in NORMALISED:
        line = pattern.sub(replacement, line)
    return line.strip()


def matches(shown, seen, prefix=False):
    """Whether the lines seen are those shown on the page; with `prefix`, more may follow."""
    expected = [normalise(line) for line in shown if line.strip()]
    actual = [normalise(line) for line in seen if line.strip()]
    parts = []
    for line in expected:
        if line == "...":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            parts.append(".*?".join(re.escape(part) for part in line.split("…")) + r"\n")
    pattern = "".join(parts) + ("" if prefix else r"\Z")
    return re.match(pattern, "".join(line + "\n" for line in actual)) is not None
