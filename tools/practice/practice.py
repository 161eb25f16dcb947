#!/usr/bin/env python3
"""Uses Florin as applications and operators do, with an independent model as the judge.

Usage: practice.py [--only=THEME[,THEME]] [--seed=N] [--long], with a Python that has the official
client (tigerbeetle 0.17); `amounts` also reads Parquet if duckdb is there. FLORIN_BINARY names the
program, FLORIN_SCRATCH the folder for data files. Needs no privileges. `--list` lists all checks.

A theme is a module of this folder; each public function named `check_…` in it is one check. All
random choices follow from the seed and the name of the check. No check passes or fails by time:
all wait for conditions, with generous bounds. Ends with `N passed, M failed`.
"""

import argparse
import importlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True

from harness.checks import Checks  # noqa: E402
from harness.writers import silence_logs  # noqa: E402
from practice.world import Options, bounded  # noqa: E402

THEMES = ("retries", "holds", "messages", "amounts", "caches", "sessions", "business",
          "imports", "restores", "addresses", "replicas")


def checks_of(theme):
    """The checks of a theme in the order in which they are written."""
    module = importlib.import_module(f"practice.{theme}")
    return [(f"{theme}: {(value.__doc__ or name).splitlines()[0].rstrip('.')}", value)
            for name, value in vars(module).items() if name.startswith("check_")]


def main():
    """Runs the themes asked for."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(THEMES), metavar="THEME[,THEME]",
                        help="themes, or THEME.CHECK for one check")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", action="store_true", help="larger sizes")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    options = parser.parse_args()
    wanted = [word.partition(".")[::2] for word in options.only.split(",")]
    unknown = {theme for theme, _ in wanted} - set(THEMES)
    if unknown:
        parser.error(f"unknown theme {', '.join(sorted(unknown))}; there are {', '.join(THEMES)}")
    silence_logs()
    checks = Checks("practice")
    start = time.monotonic()
    for theme, only in wanted:
        for name, check in checks_of(theme):
            if only and check.__name__ != f"check_{only}":
                continue
            if options.list:
                print(f"{theme}.{check.__name__.removeprefix('check_')}: {name}")
            else:
                checks.run(name, bounded, check, Options(options.seed, options.long))
    if not options.list:
        print(f"practice: {time.monotonic() - start:.0f} s", flush=True)
        checks.finish()


if __name__ == "__main__":
    main()
