#!/usr/bin/env python3
"""Damages the disks of a real cluster under load, and demands that no client notices.

Usage: chaos.py [--rounds=N] [--seed=N] [--only=ROUND[,ROUND]] [--clients=N] [--batch=N] [--fill=N]
[--scrub-rate=MiB] [--production], with the Python of an environment that holds the newest official client.

Official clients write and read without pause, and a model judges each reply: balances to the last
unit, old and new transfers by id, account, age and user data. Meanwhile, in rounds:

    stopped     30% of one file's used blocks are overwritten while its replica is dead
    running     the same while it runs
    helix       all replicas die; of each used block, and of each slot of the log, only one or two
                copies survive, here on this replica and there on that one
    zones       random stretches of each zone of one file
    rollback    stretches of one file go back to what they were some checkpoints ago
    absent      a replica is dead until the others have made several checkpoints beyond their logs
    frozen      the same, but stopped and continued
    lost        a data file is gone, and made anew by `florin recover`
    full        all disks are full, then there is room again
    clocks      one clock is hours wrong, then two
    six         helix in a cluster of six

After each, the files of all replicas must be intact by `florin inspect integrity` and have the same
content; at the end everything acknowledged is read back. Ends with `N passed, M failed`.
"""

import argparse
import os
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.checks import Checks  # noqa: E402
from harness.server import remove_directory, scratch_directory  # noqa: E402
from harness.writers import silence_logs  # noqa: E402

from chaos import own, rounds  # noqa: E402
from chaos.world import World  # noqa: E402

# Rounds of one cluster of three that goes on, and rounds with a cluster of their own.
COMMON = {"stopped": rounds.stopped, "running": rounds.running, "helix": rounds.helix,
          "zones": rounds.zones, "rollback": rounds.rollback, "absent": rounds.absent,
          "frozen": rounds.frozen, "lost": rounds.lost}
OWN = {"full": own.full, "clocks": own.clocks, "six": own.six}


def common_rounds(checks, options, chance, names):
    """Strikes one cluster, round after round."""
    directory = scratch_directory("chaos")
    world = World(directory, options, chance)
    try:
        checks.run("start", world.start, options.fill)
        for number in range(options.rounds):
            for name in names:
                if checks.failed:
                    break
                checks.run(f"{name} {number + 1}", COMMON[name], world)
        checks.run("content", world.end)
        checks.run("no panic", world.panics)
    finally:
        world.cluster.kill()
    if checks.failed:
        print(f"kept: {directory}")
    else:
        remove_directory(directory)


def main():
    """Runs the rounds and prints the count."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join([*COMMON, *OWN]), metavar="ROUND[,ROUND]")
    parser.add_argument("--without", default="", metavar="ROUND[,ROUND]")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--batch", type=int, default=15)
    parser.add_argument("--fill", type=int, default=300_000)
    parser.add_argument("--scrub-rate", type=int, default=64)
    parser.add_argument("--small-disk", metavar="FOLDER",
                        help="a mounted file system of 302 MiB for the round `full`, which else "
                             "needs root to mount one")
    parser.add_argument("--production", action="store_true")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name not in options.without.split(",")]
    unknown = set(names) - set(COMMON) - set(OWN)
    if unknown:
        parser.error(f"unknown round {', '.join(sorted(unknown))}")
    silence_logs()
    if "full" in names and not options.small_disk and os.geteuid() != 0:
        print("full: not run: only root can mount a small file system", flush=True)
        names.remove("full")
    checks = Checks("chaos")
    common = [name for name in names if name in COMMON]
    if common:
        common_rounds(checks, options, random.Random(options.seed), common)
    for name in names:
        if name in OWN:
            checks.run(name, OWN[name], options, random.Random(options.seed))
    checks.finish()


if __name__ == "__main__":
    main()
