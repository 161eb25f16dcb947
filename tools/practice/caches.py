"""Caches that are much smaller than the books."""

import csv
import io
import re

import tigerbeetle as tb

from harness.checks import equal, require
from harness.commands import florin
from harness.server import format_file

from .world import account, books, in_threads, transfer

CACHES = ("--cache-grid", "--cache-accounts", "--cache-transfers")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?(B|KiB|MiB|GiB)\b")


def smallest(directory):
    """The smallest size of each cache that the server accepts, as its own errors name it."""
    path = directory / "probe.florin"
    format_file(path)
    options = []
    for cache in CACHES:
        done = florin("start", "--addresses=0", "--development", f"{cache}=1B", path, codes=(2,),
                      given="")
        sizes = ["".join(size) for size in SIZE.findall(done.stderr) if size != ("1", "B")]
        require(sizes, f"{cache}=1B: the error names no minimum: {done.stderr}")
        options.append(f"{cache}={sizes[0]}")
    return options


def check_smallest_caches(options):
    """300,000 accounts behind the smallest caches that are accepted: served, and right."""
    count = options.size(300_000, 1_000_000)
    with books("caches") as ledger:
        ledger.client.close()
        ledger.server.stop()
        ledger.server.options = smallest(ledger.directory)
        work_behind(ledger, options, count)


def check_small_caches(options):
    """The same with caches that are small but not the smallest, restarted on the way."""
    with books("small-caches", options=("--cache-grid=6MiB", "--cache-accounts=3MiB",
                                        "--cache-transfers=7MiB")) as ledger:
        ledger.client.close()
        ledger.server.stop()
        work_behind(ledger, options, options.size(100_000, 300_000))


def work_behind(ledger, options, count):
    """Fills a ledger and reads and writes all over it."""
    print(f"  {' '.join(ledger.server.options)}")
    ledger.server.start()
    at = f"--addresses={ledger.address}"
    florin("benchmark", at, f"--account-count={count}", "--transfer-count=20000",
           "--query-count=2", "--id-order=sequential", seconds=200)
    ledger.client = tb.ClientSync(cluster_id=0, replica_addresses=ledger.address)
    ledger.accounts(account(10**30, ledger=7), account(10**30 + 1, ledger=7))

    def work(number):
        chance = options.chance(f"caches {number}")
        for _ in range(10):
            ids = [chance.randrange(1, count + 1) for _ in range(200)]
            found = ledger.client.lookup_accounts(ids)
            equal([item.id for item in found], ids, "accounts that the benchmark made")
            ledger.judge.create_transfers(ledger.client, [
                transfer(10**30, 10**30 + 1, 1, ledger=7) for _ in range(20)])

    in_threads([lambda number=number: work(number) for number in range(4)])
    ledger.judge.settle(ledger.client)
    equal(ledger.balances(10**30), (0, 800, 0, 0), "what was moved meanwhile")
    ledger.client.close()
    ledger.server.kill()
    ledger.server.start()
    rows = list(csv.DictReader(io.StringIO(florin("export", at, "--what=balances",
                                                  seconds=200).stdout)))
    equal(len(rows), count + 2, "accounts in the export")
    sums = [sum(int(row[name]) for row in rows)
            for name in ("debits_posted", "credits_posted", "debits_pending", "credits_pending")]
    require(sums[0] == sums[1] > 800 and sums[2] == sums[3], f"both sides are equal: {sums}")
    ledger.client = tb.ClientSync(cluster_id=0, replica_addresses=ledger.address)
