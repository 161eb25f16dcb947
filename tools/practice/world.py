"""What the scenarios share: the options of a run, servers with clients and judges, and patience."""

import contextlib
import random
import signal
import threading

import tigerbeetle as tb

from harness.checks import CheckFailed, equal, require
from harness.judge import Judge
from harness.server import Server, format_file, remove_directory, scratch_directory

CHECK_SECONDS_MAX = 240
BATCH_DEVELOPMENT = 1021
BATCH_PRODUCTION = 8189

A = tb.AccountFlags
T = tb.TransferFlags


class Options:
    """Seed and size of a run."""

    def __init__(self, seed, long):
        self.seed = seed
        self.long = long

    def chance(self, name):
        """A source of random numbers for one scenario."""
        return random.Random(f"{self.seed} {name}")

    def size(self, small, large):
        """A size for a usual run, and one for a long run."""
        return large if self.long else small


def bounded(function, *arguments):
    """Calls a function that must end within `CHECK_SECONDS_MAX`, even if a client waits for ever."""

    def expire(*_):
        raise CheckFailed(f"did not end within {CHECK_SECONDS_MAX} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(CHECK_SECONDS_MAX)
    try:
        return function(*arguments)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def in_threads(functions):
    """Runs functions at the same time; raises the first error of any."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,), daemon=True)
               for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CHECK_SECONDS_MAX)
        require(not thread.is_alive(), "a worker hangs")
    if errors:
        raise errors[0]


def connect(address):
    """An official client."""
    return tb.ClientSync(cluster_id=0, replica_addresses=str(address))


class Books:
    """A cluster of one with an empty ledger, an official client, and a judge of its answers."""

    def __init__(self, directory, development=True, options=()):
        self.directory = directory
        self.server = Server(directory / "books.florin", development)
        self.server.options = list(options)
        self.batch_max = BATCH_DEVELOPMENT if development else BATCH_PRODUCTION
        format_file(self.server.path, development)
        self.server.start()
        self.address = f"127.0.0.1:{self.server.port}"
        self.client = connect(self.address)
        self.judge = Judge()

    def accounts(self, *accounts):
        """Creates accounts, all of which must be accepted."""
        equal(set(self.judge.create_accounts(self.client, list(accounts))), {"created"},
              "statuses of accounts")

    def transfers(self, *transfers):
        """Sends transfers as one batch; returns the statuses."""
        return self.judge.create_transfers(self.client, list(transfers))

    def moved(self, *transfers):
        """Sends transfers, all of which must be accepted."""
        equal(set(self.transfers(*transfers)), {"created"}, "statuses of transfers")

    def balances(self, account_id):
        """Debits pending and posted, credits pending and posted."""
        (account,) = self.client.lookup_accounts([account_id])
        return (account.debits_pending, account.debits_posted, account.credits_pending,
                account.credits_posted)

    def verify(self, histories=8):
        """Judges everything answered, and everything that can be read."""
        self.judge.compare(self.client, histories)

    def stop(self):
        """Ends client and server in good order."""
        self.client.close()
        self.server.stop()


@contextlib.contextmanager
def books(name, **options):
    """Serves new books in a scratch directory, which stays if the scenario fails."""
    directory = scratch_directory(f"practice-{name}")
    ledger = Books(directory, **options)
    try:
        yield ledger
        ledger.stop()
    finally:
        ledger.server.kill()
    remove_directory(directory)


def account(account_id, flags=A.NONE, ledger=1, code=1, **fields):
    """An account."""
    return tb.Account(id=account_id, ledger=ledger, code=code, flags=flags, **fields)


def transfer(debit, credit, amount, flags=T.NONE, ledger=1, code=1, **fields):
    """A transfer with a new id unless one is given."""
    fields.setdefault("id", tb.id())
    return tb.Transfer(debit_account_id=debit, credit_account_id=credit, amount=amount,
                       flags=flags, ledger=ledger, code=code, **fields)


def post(pending_id, amount=tb.AMOUNT_MAX, flags=T.NONE, **fields):
    """Posts all of a pending transfer, or a part of it."""
    return tb.Transfer(id=fields.pop("id", None) or tb.id(), pending_id=pending_id, amount=amount,
                       flags=T.POST_PENDING_TRANSFER | flags, **fields)


def void(pending_id, flags=T.NONE, **fields):
    """Voids a pending transfer."""
    return tb.Transfer(id=fields.pop("id", None) or tb.id(), pending_id=pending_id,
                       flags=T.VOID_PENDING_TRANSFER | flags, **fields)


def linked(*transfers):
    """Ties transfers into a chain."""
    for event in transfers[:-1]:
        event.flags |= T.LINKED
    return list(transfers)
