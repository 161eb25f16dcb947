"""Sessions: many short clients beside those that stay."""

import threading

import tigerbeetle as tb

from harness.checks import equal, require, wait_until
from harness.commands import Stream, florin, florin_json

from .world import account, books, connect, in_threads, post, transfer, T

PLACES = 64


def check_short_clients_beside_a_stream(options):
    """Hundreds of short clients beside `florin cdc`: every event comes once, in order."""
    count = options.size(200, 600)
    with books("churn") as ledger:
        ledger.accounts(account(1), account(2))
        with Stream("cdc", f"--addresses={ledger.address}", "--idle=50") as stream:
            hold = transfer(1, 2, 3, T.PENDING)
            ledger.moved(hold)

            def work(worker):
                for number in range(count // 8):
                    with connect(ledger.address) as client:
                        ledger.judge.create_transfers(client, [transfer(
                            1, 2, 1, user_data_64=worker << 32 | number)])

            in_threads([lambda worker=worker: work(worker) for worker in range(8)])
            # The long-lived client may have been evicted by the short ones: it is the least
            # recently used. The ledger is read through a new one.
            ledger.client.close()
            ledger.client = connect(ledger.address)
            ledger.moved(post(hold.id))
            total = count // 8 * 8 + 2
            stream.wait_for(lambda lines: len(lines) >= total, "the stream")
            equal(stream.end(), 0, "exit code of the stream")
            ledger.verify()
            wanted = sorted(event.timestamp for event in ledger.judge.model.events)
            equal([int(event["timestamp"]) for event in stream.records()], wanted,
                  "timestamps of the stream")


def check_own_tools_beside_an_idle_client(options):
    """`florin balance` again and again beside an idle official client: that one stays."""
    with books("idle") as ledger:
        ledger.accounts(account(1), account(2))
        ledger.moved(transfer(1, 2, 5))
        for _ in range(options.size(80, 200)):
            florin("balance", "--account=1", f"--addresses={ledger.address}")
        try:
            equal(ledger.balances(1), (0, 5, 0, 0), "balances as the idle client reads them")
        except tb.ClientEvictedError:
            ledger.client.close()
            ledger.client = connect(ledger.address)
            require(False, "the idle client was evicted by runs of `florin balance`")


def check_evicted_clients_and_new_ones(_options):
    """More clients than places: the least recently used one is evicted, and a new one works."""
    with books("evicted") as ledger:
        ledger.accounts(account(1), account(2))
        clients = [connect(ledger.address) for _ in range(PLACES + 6)]
        try:
            first = clients[0]
            in_threads([lambda client=client: ledger.judge.create_transfers(
                client, [transfer(1, 2, 1)]) for client in clients[1:PLACES - 6]])
            ledger.judge.create_transfers(first, [transfer(1, 2, 1)])
            in_threads([lambda client=client: ledger.judge.create_transfers(
                client, [transfer(1, 2, 1)]) for client in clients[PLACES - 6:]])
            # In use, so not one of those that made way.
            first.lookup_accounts([1])
            evicted = 0
            for client in clients[1:]:
                try:
                    client.lookup_accounts([1])
                except tb.ClientEvictedError:
                    evicted += 1
            require(1 <= evicted <= 20, f"{evicted} clients were evicted")
        finally:
            for client in clients:
                client.close()
        ledger.client.close()
        ledger.client = connect(ledger.address)
        ledger.verify()


def check_reads_see_what_was_acknowledged(options):
    """What one client was told is done, every other client sees, and so do florin's commands."""
    with books("reads") as ledger:
        ledger.accounts(account(1), account(2))
        clients = [connect(ledger.address) for _ in range(4)]
        try:
            for number in range(options.size(40, 400)):
                event = transfer(1, 2, 1)
                ledger.judge.create_transfers(clients[number % 4], [event])
                for client in clients:
                    equal(client.lookup_accounts([1])[0].debits_posted, number + 1, "debits")
                    equal(len(client.lookup_transfers([event.id])), 1, "the transfer")
            (found,) = florin_json("balance", "--account=1", "--format=json",
                                   f"--addresses={ledger.address}")
            equal(int(found["debits_posted"]), number + 1, "debits by `florin balance`")
        finally:
            for client in clients:
                client.close()


def check_many_connections_at_once(options):
    """Clients that come and go at the same time as others write: all writes are there."""
    with books("crowd") as ledger:
        ledger.accounts(account(1), account(2))
        done = threading.Event()

        def come_and_go():
            while not done.is_set():
                with connect(ledger.address) as client:
                    client.lookup_accounts([1])

        def write():
            try:
                with connect(ledger.address) as client:
                    for _ in range(options.size(60, 400)):
                        ledger.judge.create_transfers(client, [transfer(1, 2, 1)] * 1)
            finally:
                done.set()

        in_threads([write, *[come_and_go] * 6])
        ledger.client.close()
        ledger.client = connect(ledger.address)
        ledger.verify()
        wait_until(ledger.server.is_running, "the server runs")
