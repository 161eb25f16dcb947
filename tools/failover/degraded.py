#!/usr/bin/env python3
"""Measures what clients notice of a replica that is dead or stopped: throughput and latency.

Usage: degraded.py [--replicas=N] [--transfers=N] [--runs=N] [--small] [--development]. For each
case a fresh cluster is made: all replicas healthy; a backup killed, a backup stopped; the primary
killed, the primary stopped, and then the load. The load is `florin benchmark`, one client with
full requests, or with --small 32 clients with one transfer each. Of several runs the best counts:
other work on the machine only makes them slower.

Ends with `N passed, M failed`: throughput and p99 must be within 1.5 of the healthy cluster's.
"""

import argparse
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.checks import Checks, require  # noqa: E402
from harness.cluster import Cluster  # noqa: E402
from harness.server import BINARY, remove_directory, scratch_directory  # noqa: E402

RATIO_MAX = 1.5
CASES = ("healthy", "backup killed", "backup stopped", "primary killed", "primary stopped")


def benchmark(cluster, options):
    """Transfers per second and p99 in milliseconds of one run."""
    command = [str(BINARY), "benchmark", f"--addresses={','.join(cluster.addresses)}",
               "--yes", f"--transfer-count={options.transfers}", "--query-count=0", "--json"]
    if options.small:
        command += ["--clients=32", "--transfer-batch-count=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    transfers = json.loads(done.stdout)["transfers"]
    return transfers["events_per_second"], transfers["batch_latency_us"]["p99"] / 1000


def case_run(name, options):
    """The best throughput and the best p99 of a case."""
    directory = scratch_directory("degraded")
    cluster = Cluster(directory, options.replicas, development=options.development)
    try:
        cluster.start()
        primary = cluster.primary()
        role, _, what = name.partition(" ")
        victim = primary
        if role == "backup":
            victim = cluster.replicas[(primary.index + 1) % options.replicas]
        if what == "killed":
            victim.kill()
        elif what == "stopped":
            victim.pause()
        results = [benchmark(cluster, options) for _ in range(options.runs)]
    finally:
        cluster.kill()
        remove_directory(directory)
    throughput = max(throughput for throughput, _ in results)
    p99 = min(p99 for _, p99 in results)
    print(f"  {options.replicas} replicas, {name}: {throughput:,.0f} transfers/s, p99 {p99:.1f} ms",
          flush=True)
    return throughput, p99


def compare(name, healthy, options):
    """Checks a case against the healthy one."""
    throughput, p99 = case_run(name, options)
    slower, later = healthy[0] / throughput, p99 / healthy[1]
    print(f"  {name}: throughput 1/{slower:.2f}, p99 x{later:.2f} of healthy", flush=True)
    require(slower <= RATIO_MAX, f"throughput is {slower:.2f} times lower")
    require(later <= RATIO_MAX, f"p99 is {later:.2f} times higher")


def main():
    """Runs the cases and prints the count."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--transfers", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--development", action="store_true")
    options = parser.parse_args()
    checks = Checks("degraded")
    healthy = case_run(CASES[0], options)
    for name in CASES[1:]:
        checks.run(name, compare, name, healthy, options)
    checks.finish()


if __name__ == "__main__":
    main()
