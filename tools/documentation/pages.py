"""Reads the fenced blocks of a Markdown page, with the markers before them.

A marker is an HTML comment on a line of its own, visible in the source and not on the page:

    <!-- not run: REASON -->   the next block is not run; the reason is printed and counted
    <!-- file: NAME -->        the next block is written to this file, relative to the directory of
                               the terminal
    <!-- exit: CODE -->        the last command of the next block ends with this exit code
    <!-- key: Ctrl-C in COMMAND -->
                               the reader interrupts the program that runs in the foreground
    <!-- new machine -->       what follows starts on a machine without data and processes
    <!-- run: COMMAND -->      a step that the prose describes, such as to wait, or to break something
"""

import dataclasses
import re

FENCE = re.compile(r"^```(\w*)\s*$")
MARKER = re.compile(r"^<!-- (not run|file|exit|key|new machine|run)(?:: (.*?))? -->$")
PROMPT = re.compile(r"^([a-z]?)\$ (.*)$")


class PageError(Exception):
    """The page is not written as this tool needs it."""


@dataclasses.dataclass
class Step:
    """Something to do, at a line of the page."""

    line: int
    kind: str  # "command", "input", "file", "key", "machine", "not run"
    text: str
    host: str = ""
    shown: list = dataclasses.field(default_factory=list)
    exit_code: int = 0


def read_steps(text):
    """Returns all steps of a page in order."""
    steps, markers = [], {}
    lines = text.splitlines()
    index = 0
    while index < len(lines):
        number, line = index + 1, lines[index]
        index += 1
        marker = MARKER.match(line)
        if marker and marker[1] in ("key", "new machine", "run"):
            kind = {"key": "key", "run": "command"}.get(marker[1], "machine")
            steps.append(Step(number, kind, marker[2] or ""))
        elif marker:
            markers[marker[1]] = marker[2] or ""
        fence = FENCE.match(line)
        require_read(number, line, marker or fence, markers)
        if not fence:
            continue
        if "```" not in lines[index:]:
            raise PageError(f"line {number}: this block has no end")
        end = lines.index("```", index)
        steps.extend(read_block(number, fence[1], lines[index:end], markers))
        markers, index = {}, end + 1
    if markers:
        raise PageError(f"no block follows the marker `{' '.join(markers)}`")
    return steps


def require_read(number, line, is_read, markers):
    """Refuses a line that looks like a block or a marker but is neither, and text between a marker
    and its block: such a block would not be run as the page says."""
    if is_read or not line.strip():
        return
    if "```" in line or line.lstrip().startswith(("~~~", "<!--")):
        raise PageError(f"line {number}: neither a block nor a marker that is known: {line!r}")
    if markers:
        raise PageError(f"line {number}: no block follows the marker `{' '.join(markers)}`")


def read_block(number, language, lines, markers):
    """Returns the steps of a fenced block."""
    if "not run" in markers:
        return [Step(number, "not run", markers["not run"])]
    if "file" in markers:
        return [Step(number, "file", markers["file"], shown=lines)]
    if language != "console":
        raise PageError(f"line {number}: a block of `{language or 'no language'}` needs a marker, "
                        "`<!-- file: NAME -->` or `<!-- not run: REASON -->`")
    steps = read_console(number + 1, lines)
    if steps and "exit" in markers:
        steps[-1].exit_code = int(markers["exit"])
    return steps


def read_console(number, lines):
    """Returns the commands of a block, with the input of interactive programs and what is shown."""
    steps = []
    for offset, line in enumerate(lines):
        prompt = PROMPT.match(line)
        previous = steps[-1] if steps else None
        if prompt:
            steps.append(Step(number + offset, "command", prompt[2], prompt[1]))
        elif previous is None:
            raise PageError(f"line {number + offset}: a console block begins with a prompt, `$ `")
        elif not previous.shown and is_continued(previous):
            previous.text += "\n" + line.removeprefix("> ")
        elif line.startswith("> ") and is_interactive(steps):
            steps.append(Step(number + offset, "input", line[2:], previous.host))
        else:
            previous.shown.append(line)
    for step in steps:
        while step.shown and not step.shown[-1].strip():
            step.shown.pop()
    return steps


def is_continued(step):
    """Whether the line after this one belongs to it: a shell's `\\`, or a statement without its end.
    """
    if step.kind == "input":
        return step.text.endswith(("=", ",")) or ("=" in step.text and ";" not in step.text)
    return step.text.endswith("\\")


def is_interactive(steps):
    """Whether the last command is the REPL at the terminal."""
    command = next(step for step in reversed(steps) if step.kind == "command")
    words = command.text.split()
    return words[:2] == ["florin", "repl"] and not {"<", "|"} & set(words) and (
        "--command" not in command.text)
