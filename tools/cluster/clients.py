#!/usr/bin/env python3
"""Official clients at work on a cluster until standard input ends; then what they must find.

Usage: clients.py CLUSTER ADDRESSES, with the Python of an environment that holds the official
client. Started by the test of real clusters, `tests/cluster`, which kills and stops the replicas
meanwhile. Ends with 0 if every client carried on and all that was acknowledged is there, once.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.checks import Checks  # noqa: E402
from harness.writers import Writer, check_content, silence_logs  # noqa: E402

CLIENTS = 3
BATCH = 10


def main():
    """Runs the clients and checks."""
    cluster_id, addresses = int(sys.argv[1]), sys.argv[2].split(",")
    silence_logs()
    writers = [Writer(number, addresses, BATCH, cluster_id) for number in range(CLIENTS)]
    for writer in writers:
        writer.start()
    sys.stdin.read()
    checks = Checks("cluster")
    checks.run("content", check_content, addresses, writers, cluster_id)
    checks.finish()


if __name__ == "__main__":
    main()
