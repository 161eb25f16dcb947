"""What the text of the pages refers to: links, commands with options, metrics.

Links lead to files that are there and to headings that exist. Code in the text that begins with
`florin`, or with a command and has options, names a command with options that it has; code that
begins with `--` names an option of some command; `florin_…` names a metric, where `*` stands for
any ending; `FLORIN_…` names a variable of some command. The table of exit codes in README has the
codes that the help has, and text names no other code.
"""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
OPTION = re.compile(r"--[a-z][a-z-]*")
# Pages that tell what was, or what other programs have.
ABOUT_OTHERS = {"CHANGELOG.md", "docs/BUGS.md", "docs/COMPARISON.md"}
# Variables that only the systemd unit reads.
VARIABLES_OF_UNIT = {"FLORIN_FILE", "FLORIN_OPTIONS"}
# Options of other programs that the pages name.
FOREIGN = {"--only", "--features", "--release", "--memory", "--version"}


def pages():
    """All pages, with their text outside of fenced blocks."""
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]):
        text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        yield path, text


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(plain.replace(" ", "-"))
    return found


def broken_links(path, text):
    """Links of a page that lead nowhere."""
    for link in LINK.findall(CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            yield f"the link {link} leads to no file"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"the link {link} leads to no heading"


class Program:
    """The commands of florin and their options, as its help has them."""

    def __init__(self, florin):
        self.florin = florin
        self.known = {}
        listed = self.ask("--help")
        commands = re.findall(r"^  ([a-z]+)\b", listed.split("Options:")[0], re.MULTILINE)
        self.commands = {(name,) for name in commands}
        self.metrics = set(re.findall(r"\bflorin_\w+", self.ask("inspect", "metrics", "--json")))
        self.exit_codes = set(re.findall(r"^  (\d+) +\w", listed.split("Exit codes:")[-1],
                                         re.MULTILINE))
        for name in commands:
            text = self.options(name)
            if "Commands:" in text:
                part = text.split("Commands:")[1].split("Options:")[0]
                self.commands |= {(name, it) for it in
                                  re.findall(r"^  ([a-z]+)\b", part, re.MULTILINE)}
        self.all_options = set().union(*(set(OPTION.findall(self.options(*it)))
                                         for it in self.commands))
        self.variables = set(re.findall(r"\bFLORIN_[A-Z_]+", " ".join(self.known.values())))

    def ask(self, *words):
        """What the program prints."""
        return subprocess.run([self.florin, *words], capture_output=True, text=True,
                              check=False).stdout

    def options(self, *command):
        """The help of a command."""
        if command not in self.known:
            self.known[command] = self.ask(*command, "--help")
        return self.known[command]

    def problem(self, code):
        """What is wrong with a command line in the text, or `None`."""
        words = code.replace("\\|", "|").split()
        command = tuple(words[1:2])
        if len(words) < 2 or not re.match("[a-z]", command[0]):
            return None
        if command not in self.commands:
            return f"`{code}`: there is no command {command[0]}"
        if len(words) > 2 and (*command, words[2]) in self.commands:
            command = (*command, words[2])
        for option in OPTION.findall(code):
            if option not in OPTION.findall(self.options(*command)):
                return f"`{code}`: {' '.join(command)} has no option {option}"
        return None


def wrong_code(program, text):
    """Code in the text that names what is not there."""
    for code in CODE.findall(text):
        if code == "florin" or code.startswith("florin "):
            if problem := program.problem(code):
                yield problem
        elif "--" in code and (code.split()[0],) in program.commands:
            if problem := program.problem("florin " + code):
                yield problem
        elif re.fullmatch(r"FLORIN_[A-Z_]+", code):
            if code not in program.variables | VARIABLES_OF_UNIT:
                yield f"`{code}`: no command has this variable"
        elif code.startswith("--"):
            option = OPTION.match(code)
            if option and option[0] not in program.all_options | FOREIGN:
                yield f"`{code}`: no command has this option"
        elif re.fullmatch(r"florin_[\w*]+", code):
            pattern = re.compile(code.replace("*", r"\w*"))
            if not any(pattern.fullmatch(metric) for metric in program.metrics):
                yield f"`{code}`: there is no such metric"


def wrong_exit_codes(program, name, text):
    """Exit codes in the text, or in README's table, that the program's help does not have."""
    named = set(re.findall(r"exit codes? (\d+)", text))
    if name == "README.md":
        table = text.split("| code | meaning |")[1].split("\n\n")[0]
        rows = re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
        listed = {code for row in rows for code in row.split(", ")}
        if listed != program.exit_codes:
            yield f"the table of exit codes has {sorted(listed)}, the help {program.exit_codes}"
    for code in sorted(named - program.exit_codes):
        yield f"exit code {code} is not one of florin's"


def check(florin):
    """Returns what is wrong, and how many references were looked at."""
    program = Program(florin)
    problems, checked = [], 0
    for path, text in pages():
        name = str(path.relative_to(ROOT))
        found = list(broken_links(path, text))
        checked += len(LINK.findall(text))
        if name not in ABOUT_OTHERS:
            found += wrong_code(program, text)
            found += wrong_exit_codes(program, name, text)
            checked += len(CODE.findall(text))
        problems += [f"{name}: {problem}" for problem in found]
    return problems, checked
