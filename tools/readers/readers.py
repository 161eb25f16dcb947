"""Reads Florin's outputs with programs of others: metrics with the Python client of Prometheus,
exports with DuckDB.

Usage: readers.py, with a Python that has tigerbeetle, prometheus_client and duckdb.
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import duckdb  # noqa: E402
import tigerbeetle as tb  # noqa: E402
from prometheus_client import parser  # noqa: E402

from harness.checks import Checks, equal, require  # noqa: E402
from harness.server import (BINARY, Server, format_file, free_port,  # noqa: E402
                            remove_directory, scratch_directory)

TRANSFERS = 500
PATIENCE_SECONDS = 60
# Nearly all networks transport a datagram of this size whole.
DATAGRAM_MAX = 1432
STATSD_LINE = re.compile(r"florin\.[a-z0-9_.]+:-?[0-9.]+\|(c|g|ms|h)(\|#[a-z_]+:[^,|]+(,[a-z_]+:[^,|]+)*)?$")


class MeteredServer(Server):
    """A server that publishes metrics for Prometheus and for StatsD."""

    def __init__(self, path):
        super().__init__(path, port=free_port())
        self.metrics_port = free_port()
        self.statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.statsd.bind(("127.0.0.1", 0))
        self.statsd.settimeout(PATIENCE_SECONDS)

    def command(self):
        statsd_port = self.statsd.getsockname()[1]
        return [*super().command(), f"--metrics={self.metrics_port}", f"--statsd={statsd_port}"]

    def scrape(self):
        """Content type and text of the metrics."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    def families(self):
        """The metrics as Prometheus reads them, by name."""
        return {family.name: family for family in
                parser.text_string_to_metric_families(self.scrape()[1])}


def florin(*words):
    """The output of a command."""
    done = subprocess.run([str(BINARY), *words], capture_output=True, text=True, check=False,
                          timeout=PATIENCE_SECONDS)
    require(done.returncode == 0, f"{words}: {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def value(families, name, **labels):
    """Returns the value of one sample, or None if it is absent."""
    for family in families.values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def load(server):
    """Two accounts and transfers between them, some of which are refused."""
    with tb.ClientSync(cluster_id=0, replica_addresses=f"127.0.0.1:{server.port}") as client:
        client.create_accounts([tb.Account(id=id, ledger=7, code=1) for id in (1, 2)])
        for number in range(TRANSFERS):
            client.create_transfers([tb.Transfer(
                id=number + 1, debit_account_id=1, credit_account_id=2, amount=2**70 + number,
                ledger=7, code=1)])
        client.create_transfers([tb.Transfer(
            id=9_999, debit_account_id=1, credit_account_id=77, amount=1, ledger=7, code=1)])


def wait_for_commit(server):
    """Waits for the last transfer of the load, which is refused. Metrics are published a little
    after what they count, so one publication may have all transfers before it and not this one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        families = server.families()
        refused = value(families, "florin_transfer_results_total",
                        status="credit_account_not_found")
        if refused:
            return families
        time.sleep(0.1)
    raise AssertionError(f"{refused} refused transfers are counted, 1 was sent")


def check_all_are_there(server):
    """Exactly the documented metrics are published, with their types and help texts."""
    listed = json.loads(florin("inspect", "metrics", "--json"))["metrics"]
    families = server.families()
    for metric in listed:
        name = metric["name"].removesuffix("_total")
        family = families.get(name)
        # One of each other replica is not there in a cluster of one.
        if family is None:
            require(metric["label"] == "replica" or "clock" in name, f"{name} is not told")
            continue
        equal(family.type, metric["type"], f"type of {name}")
        require(family.documentation, f"{name} has no help")
    known = {metric["name"].removesuffix("_total") for metric in listed}
    equal(set(families) - known, set(), "metrics that are not documented")


def check_samples(server):
    """Samples are distinct; buckets of histograms only grow, up to the count."""
    content_type, text = server.scrape()
    require(content_type.startswith("text/plain; version=0.0.4"), content_type)
    seen = set()
    for family in parser.text_string_to_metric_families(text):
        series = {}
        for sample in family.samples:
            labels = dict(sample.labels)
            key = (sample.name, tuple(sorted(labels.items())))
            require(key not in seen, f"{key} is there twice")
            seen.add(key)
            if family.type == "counter":
                require(sample.value >= 0, f"{key} is {sample.value}")
            if family.type == "histogram":
                bound = labels.pop("le", None)
                group = series.setdefault(tuple(sorted(labels.items())), {"buckets": []})
                if bound is None:
                    group[sample.name.removeprefix(family.name)] = sample.value
                else:
                    group["buckets"].append((float(bound), sample.value))
        for labels, group in series.items():
            counts = [count for _, count in group["buckets"]]
            bounds = [bound for bound, _ in group["buckets"]]
            equal((bounds, counts), (sorted(bounds), sorted(counts)), f"{family.name} {labels}")
            equal((bounds[-1], counts[-1]), (float("inf"), group["_count"]), f"{family.name}")
            require(group["_sum"] >= 0, f"{family.name} {labels}: sum")


def check_values(server):
    """Counters match the operations of the client, and never fall."""
    families = wait_for_commit(server)
    equal(value(families, "florin_account_results_total", status="created"), 2.0, "accounts")
    created = value(families, "florin_transfer_results_total", status="created")
    equal(created, TRANSFERS, "created transfers")
    refused = value(families, "florin_transfer_results_total", status="credit_account_not_found")
    equal(refused, 1.0, "refused transfers")
    require(value(families, "florin_stage_seconds_count", stage="request") > TRANSFERS, "requests")
    later = server.families()
    for name, family in families.items():
        if family.type == "counter":
            for sample in family.samples:
                after = value(later, sample.name, **sample.labels)
                require(after >= sample.value, f"{name} fell from {sample.value} to {after}")


def check_statsd(server):
    """Datagrams are small, and each line is one of StatsD with tags."""
    names = set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "florin.commit_op" not in names and time.monotonic() < deadline:
        datagram = server.statsd.recv(65536)
        require(len(datagram) <= DATAGRAM_MAX, f"a datagram of {len(datagram)} bytes")
        for line in datagram.decode().splitlines():
            require(STATSD_LINE.match(line), f"no line of StatsD: {line!r}")
            names.add(line.split(":")[0])
    require("florin.commit_op" in names, f"the commit is not among {sorted(names)}")


def check_exports(server, folder):
    """SQL sums over transfers and balances agree in all formats."""
    database = duckdb.connect()
    total = sum(2**70 + number for number in range(TRANSFERS))
    readers = {"csv": "read_csv('{}', types={{'amount': 'HUGEINT'}})",
               "jsonl": "read_json('{}', format='newline_delimited')",
               "parquet": "read_parquet('{}')"}
    for kind, reader in readers.items():
        path = folder / f"transfers.{kind}"
        florin("export", f"--addresses=127.0.0.1:{server.port}", "--what=transfers",
               f"--format={kind}", f"--output={path}")
        source = reader.format(path)
        question = f"SELECT count(*), sum(amount::HUGEINT), max(ledger) FROM {source}"
        ((rows, amount, ledger),) = database.execute(question).fetchall()
        equal((rows, int(amount), ledger), (TRANSFERS, total, 7), f"transfers as {kind}")
    path = folder / "balances.parquet"
    florin("export", f"--addresses=127.0.0.1:{server.port}", "--format=parquet",
           f"--output={path}")
    question = f"SELECT sum(debits_posted), sum(credits_posted) FROM read_parquet('{path}')"
    ((debits, credits),) = database.execute(question).fetchall()
    equal((int(debits), int(credits)), (total, total), "balances")


def load_books(server):
    """In ledger 700, 1000 that move at once, 100 that are held, and 60 of them posted: 1060 moved,
    in 3 transfers whose amounts are 1160. In ledger 9 the largest amount there is, from an account
    with the id 100."""
    with tb.ClientSync(cluster_id=0, replica_addresses=f"127.0.0.1:{server.port}") as client:
        client.create_accounts([tb.Account(id=id, ledger=ledger, code=1)
                                for id, ledger in ((11, 700), (12, 700), (100, 9), (101, 9))])
        common = {"debit_account_id": 11, "credit_account_id": 12, "ledger": 700, "code": 1}
        results = client.create_transfers([
            tb.Transfer(id=2**127 + 1, amount=1000, **common),
            tb.Transfer(id=2**127 + 2, amount=100, flags=tb.TransferFlags.PENDING, **common),
            tb.Transfer(id=2**127 + 3, amount=60, pending_id=2**127 + 2,
                        flags=tb.TransferFlags.POST_PENDING_TRANSFER),
            tb.Transfer(id=2**127 + 4, amount=2**128 - 2, debit_account_id=100,
                        credit_account_id=101, ledger=9, code=1)])
        require(all(result.status == tb.CreateTransferStatus.CREATED for result in results),
                f"{results}")


def check_sql(server, folder):
    """SQL statements of the documentation: posted amounts, one id, and the widest amount."""
    load_books(server)
    database = duckdb.connect()
    for kind in ("parquet", "csv", "jsonl"):
        path = folder / f"books.{kind}"
        florin("export", f"--addresses=127.0.0.1:{server.port}", "--what=transfers",
               f"--format={kind}", f"--output={path}")
    path = folder / "books.parquet"

    def ask(question):
        return database.execute(question.replace("FILE", f"'{path}'")).fetchall()

    ((moved, amounts),) = ask("SELECT sum(posted_amount), sum(amount) FROM FILE WHERE ledger = 700")
    equal((int(moved), int(amounts)), (1060, 1160), "what moved in ledger 700")
    equal(ask("SELECT ledger FROM FILE WHERE debit_account_id_text = '100'"), [(9,)], "an id")
    equal(ask(f"SELECT posted_amount_text FROM FILE WHERE id_text = '{2**127 + 3}'"), [("60",)],
          "a large id")
    equal(ask("SELECT amount, amount_text, posted_amount_text FROM FILE WHERE ledger = 9"),
          [(None, str(2**128 - 2), str(2**128 - 2))], "the widest amount")
    equal(ask("SELECT count(*) FROM FILE WHERE amount IS NULL"), [(1,)], "wide amounts")
    path = folder / "books.csv"
    ((moved, ids),) = ask("SELECT sum(posted_amount::HUGEINT), count(*) FILTER (id IN "
                          f"('{2**127 + 1}', '{2**127 + 3}')) FROM read_csv(FILE, all_varchar = "
                          "true) WHERE ledger = '700'")
    equal((int(moved), ids), (1060, 2), "what moved, from csv")
    path = folder / "books.jsonl"
    ((moved,),) = ask("SELECT sum(posted_amount::HUGEINT) FROM "
                      "read_json(FILE, format = 'newline_delimited') WHERE ledger = 700")
    equal(int(moved), 1060, "what moved, from jsonl")
    path = folder / "wide.parquet"
    florin("export", f"--addresses=127.0.0.1:{server.port}", "--format=parquet",
           f"--output={path}")
    equal(ask("SELECT debits_posted, debits_posted_text FROM FILE WHERE account_id_text = '100'"),
          [(None, str(2**128 - 2))], "the widest balance")
    ((debits,),) = ask("SELECT sum(debits_posted) FROM FILE WHERE ledger = 700")
    equal(int(debits), 1060, "balances agree with what moved")


def main():
    """Runs all checks against one server."""
    checks = Checks("readers")
    folder = scratch_directory("readers")
    server = MeteredServer(folder / "ledger")
    format_file(server.path)
    server.start()
    load(server)
    checks.run("metrics count what was done", check_values, server)
    checks.run("all metrics are told", check_all_are_there, server)
    checks.run("samples are sound", check_samples, server)
    checks.run("StatsD", check_statsd, server)
    checks.run("exports", check_exports, server, folder)
    checks.run("SQL on exports", check_sql, server, folder)
    server.stop()
    if checks.failed == 0:
        remove_directory(folder)
    checks.finish()


if __name__ == "__main__":
    main()
