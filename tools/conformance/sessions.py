"""Sessions of official clients: eviction, releases, and retries over restarts of the server.

Usage: sessions.py OLD_PYTHON, with the Python of an environment that holds the newest client.
OLD_PYTHON is the Python of an environment with a client older than any that the server admits.
"""

import logging
import pathlib
import random
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tigerbeetle as tb  # noqa: E402

from harness import wire  # noqa: E402
from harness.checks import Checks, equal, raises, require  # noqa: E402
from harness.server import (Server, format_file, free_port, remove_directory,  # noqa: E402
                            scratch_directory)

SESSIONS_MAX = 64
RESTARTS = 8

OLD_CLIENT = """
import sys
import tigerbeetle as tb
with tb.ClientSync(cluster_id=0, replica_addresses=sys.argv[1]) as client:
    try:
        client.lookup_accounts([1])
    except Exception as error:
        print(repr(error))
        sys.exit(0)
    print("served")
"""


def official(server):
    """An official client of this server."""
    return tb.ClientSync(cluster_id=0, replica_addresses=f"127.0.0.1:{server.port}")


def check_eviction(server):
    """The 65th session takes the place of the least recently active one."""
    raw_clients = []
    with official(server) as victim:
        equal(victim.lookup_accounts([1]), [], "the victim's first call")
        for _ in range(SESSIONS_MAX - 1):
            raw_clients.append(wire.RawClient(server.port).register())
        equal(victim.lookup_accounts([1]), [], "64 sessions fit, and now this one is the newest")
        raw_clients.append(wire.RawClient(server.port).register())
        equal(victim.lookup_accounts([1]), [], "the least recently active was another")
        reason = None
        try:
            raw_clients[0].call(wire.LOOKUP_ACCOUNTS, wire.ids([1]))
        except wire.Evicted as eviction:
            (reason,) = eviction.args
        equal(reason, 1, "reason for the session that was evicted")
        for client in raw_clients[1:]:
            equal(client.call(wire.LOOKUP_ACCOUNTS, wire.ids([1])), b"", "another session")
        raw_clients.append(wire.RawClient(server.port).register())
        raises(tb.ClientEvictedError, lambda: victim.lookup_accounts([1]), "the evicted client")
        raises(tb.ClientClosedError, lambda: victim.lookup_accounts([1]), "a call after that")
    for client in raw_clients:
        client.close()


def check_many_official(server):
    """65 official clients at once: all are served, one after the other is evicted."""
    clients = [official(server) for _ in range(SESSIONS_MAX + 1)]
    outcomes = [None] * len(clients)

    def first_call(index):
        outcomes[index] = clients[index].lookup_accounts([1])

    threads = [threading.Thread(target=first_call, args=(index,)) for index in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(outcomes, [[]] * len(clients), "first calls")
    evicted = 0
    for client in clients:
        try:
            client.lookup_accounts([1])
        except tb.ClientEvictedError:
            evicted += 1
        client.close()
    equal(evicted, 1, "clients evicted")


def check_release_too_low(server, old_python):
    """A client older than all admitted is told so."""
    done = subprocess.run([old_python, "-c", OLD_CLIENT, f"127.0.0.1:{server.port}"],
                          capture_output=True, text=True, timeout=60, check=False)
    require("TOO_LOW" in done.stdout.upper().replace("RELEASETOOLOW", "RELEASE_TOO_LOW"),
            f"the old client said: {done.stdout}{done.stderr}")


def check_releases_raw(server):
    """Releases below and above the admitted range, and one that changes within a session."""
    for release, expected in ((16 << 8 | 60, 2), (17 << 8, None), (wire.RELEASE, None),
                              (99 << 16, 3)):
        with wire.RawClient(server.port, release=release) as client:
            reason = None
            try:
                client.register()
            except wire.Evicted as eviction:
                (reason,) = eviction.args
            equal(reason, expected, f"reason for release {release:#x}")
            if expected is None:
                client.release = 17 << 8 | 5
                try:
                    client.call(wire.LOOKUP_ACCOUNTS, wire.ids([1]))
                    reason = None
                except wire.Evicted as eviction:
                    (reason,) = eviction.args
                equal(reason, 8, "reason for a release that changed")


def check_restarts(server):
    """Calls in flight when the server is killed complete by themselves, once."""
    chance = random.Random(7)
    stop = threading.Event()
    failures = []
    counts = [0] * 3
    with official(server) as client:
        accounts = [tb.Account(id=tb.id(), ledger=1, code=1) for _ in range(2)]
        client.create_accounts(accounts)
        clients = [official(server) for _ in counts]

        def work(index):
            try:
                while not stop.is_set():
                    batch = [tb.Transfer(id=tb.id(), debit_account_id=accounts[0].id,
                                         credit_account_id=accounts[1].id, amount=1, ledger=1,
                                         code=1) for _ in range(20)]
                    results = clients[index].create_transfers(batch)
                    equal({result.status.name for result in results}, {"CREATED"}, "statuses")
                    counts[index] += len(batch)
            except BaseException as error:  # noqa: BLE001 (reported by the check)
                failures.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(counts))]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        for _ in range(RESTARTS):
            time.sleep(chance.uniform(0.2, 1.5))
            server.kill()
            time.sleep(chance.uniform(0, 0.3))
            server.start()
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
            require(not thread.is_alive(), "a call did not complete after the restart")
        equal(failures, [], "failures")
        (debit,) = client.lookup_accounts([accounts[0].id])
        equal(debit.debits_posted, sum(counts), "sum of all acknowledged amounts")
        require(all(count > 0 for count in counts), f"some client did nothing: {counts}")
        for one in clients:
            one.close()


def main():
    """Runs all checks, each on a server of its own."""
    # The client reports every attempt to connect while the server is down.
    logging.getLogger("tigerbeetle").setLevel(logging.CRITICAL)
    checks = Checks("sessions")
    directory = scratch_directory("sessions")
    for name, check, *arguments in (
            ("eviction", check_eviction), ("many official clients", check_many_official),
            ("release too low", check_release_too_low, sys.argv[1]),
            ("releases", check_releases_raw), ("restarts", check_restarts)):
        path = directory / name.replace(" ", "-")
        server = Server(path, port=free_port())

        def run(check=check, server=server, arguments=arguments, path=path):
            format_file(path)
            server.start()
            check(server, *arguments)
            server.stop()

        checks.run(name, run)
        server.kill()
    remove_directory(directory)
    checks.finish()


if __name__ == "__main__":
    main()
