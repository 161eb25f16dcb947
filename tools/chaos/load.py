"""Official clients that write and read without pause, each reply judged by a model.

All that a client does is a function of its number and a count, so the model keeps balances and no
transfers: what transfer number `n` must be is computed again whenever it is read.
"""

import random
import threading
import time

import tigerbeetle as tb

from harness.checks import equal, require
from harness.writers import connected

ACCOUNTS = 8
LOOKUP_MAX = 1000
# Requests of a client a second at most, and reads among them.
RATE, READS = 50, 0.3
WAIT_SECONDS = 60
MASK = (1 << 64) - 1


def mixed(value):
    """A number that looks random but follows from `value`."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


class Balance:
    """What an account must hold."""

    def __init__(self):
        self.debits_pending = self.debits_posted = 0
        self.credits_pending = self.credits_posted = 0

    def tuple(self):
        """In the order of `found`."""
        return (self.debits_pending, self.debits_posted, self.credits_pending,
                self.credits_posted)

    @staticmethod
    def found(account):
        """The same of an answer."""
        return (account.debits_pending, account.debits_posted, account.credits_pending,
                account.credits_posted)


class Client(threading.Thread):
    """Creates transfers among accounts of its own and reads old and new ones."""

    def __init__(self, number, addresses, batch, cluster_id=0):
        super().__init__(daemon=True)
        self.number = number
        self.addresses = addresses
        self.cluster_id = cluster_id
        self.batch = batch
        self.chance = random.Random(number)
        first = 1_000_000 * (number + 1)
        self.accounts = list(range(first, first + ACCOUNTS))
        self.balances = {account: Balance() for account in self.accounts}
        # Transfers that were acknowledged: numbers below this one.
        self.created = 0
        self.timestamp = 0
        # The newest timestamp less the right time when it came, in seconds.
        self.skew = 0.0
        # (when asked, when answered) of each request.
        self.answers = []
        self.reads = 0
        self.ending = False
        self.holding = threading.Event()
        self.held = threading.Event()
        self.error = None

    def run(self):
        try:
            with connected(self.addresses, self.cluster_id) as client:
                accounts = [tb.Account(id=number, ledger=1, code=1, flags=tb.AccountFlags.HISTORY)
                            for number in self.accounts]
                for result in client.create_accounts(accounts):
                    equal(result.status, tb.CreateAccountStatus.CREATED, "status of an account")
                while not self.ending:
                    self.one_request(client)
        except BaseException as error:  # noqa: BLE001 (reported by the check)
            self.error = error

    def one_request(self, client):
        """Writes or reads once, unless told to hold."""
        if self.holding.is_set():
            self.held.set()
            time.sleep(0.01)
            return
        start = time.monotonic()
        if self.created > 0 and self.chance.random() < READS:
            self.chance.choice((self.read_transfers, self.read_balances, self.read_history,
                                self.read_newest, self.read_query))(client)
            self.reads += 1
        else:
            self.write(client)
        self.answers.append((start, time.monotonic()))
        time.sleep(max(0, start + 1 / RATE - time.monotonic()))

    def id_of(self, number):
        """The id of transfer `number`."""
        return (self.number + 1) << 64 | number + 1

    def transfer(self, number):
        """Transfer `number`. Of ten, the fourth is pending and the ninth posts or voids it."""
        flags, pending_id, source = tb.TransferFlags.NONE, 0, number
        if number % 10 == 3:
            flags = tb.TransferFlags.PENDING
        elif number % 10 == 8:
            source = number - 5
            pending_id = self.id_of(source)
            flags = tb.TransferFlags.POST_PENDING_TRANSFER
            if mixed(number) % 2 == 0:
                flags = tb.TransferFlags.VOID_PENDING_TRANSFER
        chance = mixed(self.number << 40 | source)
        debit = chance % ACCOUNTS
        credit = (debit + 1 + (chance >> 8) % (ACCOUNTS - 1)) % ACCOUNTS
        return tb.Transfer(id=self.id_of(number), debit_account_id=self.accounts[debit],
                           credit_account_id=self.accounts[credit],
                           amount=1 + (chance >> 16) % 1000, pending_id=pending_id, ledger=1,
                           code=1 + (chance >> 32) % 5, flags=flags,
                           user_data_64=(self.number + 1) << 40 | number,
                           user_data_32=1 + number % 97)

    def apply(self, transfer):
        """What a transfer does to the balances."""
        debit = self.balances[transfer.debit_account_id]
        credit = self.balances[transfer.credit_account_id]
        amount = transfer.amount
        if transfer.flags == tb.TransferFlags.PENDING:
            debit.debits_pending += amount
            credit.credits_pending += amount
            return
        if transfer.pending_id:
            debit.debits_pending -= amount
            credit.credits_pending -= amount
        if transfer.flags != tb.TransferFlags.VOID_PENDING_TRANSFER:
            debit.debits_posted += amount
            credit.credits_posted += amount

    def write(self, client):
        """The next batch."""
        batch = [self.transfer(number)
                 for number in range(self.created, self.created + self.batch)]
        results = client.create_transfers(batch)
        equal(len(results), len(batch), "results of a batch")
        for transfer, result in zip(batch, results):
            equal(result.status, tb.CreateTransferStatus.CREATED, "status of a transfer")
            require(result.timestamp > self.timestamp, "timestamps rise: "
                    f"{result.timestamp} after {self.timestamp}")
            self.timestamp = result.timestamp
            self.apply(transfer)
        self.created += self.batch
        self.skew = self.timestamp / 1e9 - time.time()

    def same(self, found, numbers, what):
        """These transfers, in this order, and nothing else."""
        equal([transfer.id for transfer in found], [self.id_of(number) for number in numbers],
              what)
        for transfer, number in zip(found, numbers):
            expected = self.transfer(number)
            expected.timestamp = transfer.timestamp
            equal(transfer, expected, what)

    def read_transfers(self, client):
        """Some of any age, by id."""
        numbers = [self.chance.randrange(self.created) for _ in range(20)]
        found = client.lookup_transfers([self.id_of(number) for number in numbers])
        self.same(found, numbers, "transfers by id")

    def read_balances(self, client):
        """All accounts."""
        found = client.lookup_accounts(self.accounts)
        equal([account.id for account in found], self.accounts, "accounts by id")
        for account in found:
            equal(Balance.found(account), self.balances[account.id].tuple(),
                  f"balances of account {account.id}")

    def of_account(self, account, numbers, limit):
        """The first of these transfers that an account takes part in."""
        found = []
        for number in numbers:
            transfer = self.transfer(number)
            if account in (transfer.debit_account_id, transfer.credit_account_id):
                found.append(number)
                if len(found) == limit:
                    break
        return found

    def filter(self, account, limit, flags):
        """Of all transfers of an account."""
        both = tb.AccountFilterFlags.DEBITS | tb.AccountFilterFlags.CREDITS
        return tb.AccountFilter(account_id=account, user_data_128=0, user_data_64=0,
                                user_data_32=0, code=0, timestamp_min=0, timestamp_max=0,
                                limit=limit, flags=both | flags)

    def read_history(self, client):
        """The oldest transfers of an account."""
        account, limit = self.chance.choice(self.accounts), self.chance.randrange(1, 40)
        numbers = self.of_account(account, range(self.created), limit)
        found = client.get_account_transfers(
            self.filter(account, limit, tb.AccountFilterFlags(0)))
        self.same(found, numbers, "oldest transfers of an account")

    def read_newest(self, client):
        """The newest transfers of an account, and the balances after the last one."""
        account, limit = self.chance.choice(self.accounts), self.chance.randrange(1, 40)
        numbers = self.of_account(account, range(self.created - 1, -1, -1), limit)
        question = self.filter(account, limit, tb.AccountFilterFlags.REVERSED)
        self.same(client.get_account_transfers(question), numbers,
                  "newest transfers of an account")
        balances = client.get_account_balances(question)
        equal(len(balances), len(numbers), "balances of an account")
        if balances:
            equal(Balance.found(balances[0]), self.balances[account].tuple(), "newest balance")

    def read_query(self, client):
        """One transfer of any age, by its user data."""
        number = self.chance.randrange(self.created)
        found = client.query_transfers(tb.QueryFilter(
            user_data_128=0, user_data_64=(self.number + 1) << 40 | number, user_data_32=0,
            ledger=0, code=0, timestamp_min=0, timestamp_max=0, limit=10,
            flags=tb.QueryFilterFlags(0)))
        self.same(found, [number], "transfers by user data")

    def check_all(self, client):
        """Everything acknowledged is there, once, and the balances are its sums."""
        self.read_balances(client)
        for start in range(0, self.created, LOOKUP_MAX):
            numbers = range(start, min(start + LOOKUP_MAX, self.created))
            found = client.lookup_transfers([self.id_of(number) for number in numbers])
            self.same(found, numbers, f"all transfers of client {self.number}")
        after = client.lookup_transfers([self.id_of(self.created)])
        equal(len(after), 0, "transfers that nobody made")


class Load:
    """All clients."""

    def __init__(self, count, addresses, batch):
        self.addresses = addresses
        self.clients = [Client(number, addresses, batch) for number in range(count)]

    def start(self):
        """Starts all and waits until they are served."""
        for client in self.clients:
            client.start()
        self.answered()

    def check(self):
        """No client has found a mistake."""
        for client in self.clients:
            if client.error is not None:
                raise client.error
            require(client.is_alive() or client.ending, f"client {client.number} ended")

    def answered(self, seconds=WAIT_SECONDS):
        """Waits until every client was answered a question that it asks from now on."""
        start = time.monotonic()
        while True:
            self.check()
            if all(client.answers and client.answers[-1][0] >= start for client in self.clients):
                return
            waited = time.monotonic() - start
            require(waited < seconds, f"not all clients were answered within {seconds} s")
            time.sleep(0.01)

    def run_for(self, seconds):
        """Lets the clients work."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            time.sleep(0.05)

    def hold(self):
        """No client asks for anything until `go_on`."""
        for client in self.clients:
            client.held.clear()
            client.holding.set()
        deadline = time.monotonic() + WAIT_SECONDS
        for client in self.clients:
            while not client.held.wait(0.05):
                self.check()
                require(time.monotonic() < deadline, f"client {client.number} waits for ever")

    def go_on(self):
        """After `hold`."""
        for client in self.clients:
            client.holding.clear()
        self.answered()

    def slowest(self, since):
        """The longest that a client waited for an answer that came after this moment, in
        seconds."""
        waits = [answered - asked for client in self.clients
                 for asked, answered in reversed(client.answers) if answered >= since]
        return max(waits, default=0.0)

    def newest_asked(self):
        """When the newest question that was answered was asked."""
        return max(client.answers[-1][0] for client in self.clients)

    def created(self):
        """Transfers that were acknowledged."""
        return sum(client.created for client in self.clients)

    def reads(self):
        """Reading requests that were answered, and right."""
        return sum(client.reads for client in self.clients)

    def end(self):
        """Ends all clients and reads everything back."""
        for client in self.clients:
            client.ending = True
            client.join(WAIT_SECONDS)
            require(not client.is_alive(), f"client {client.number} hangs")
            require(client.error is None, f"client {client.number}: {client.error!r}")
        with connected(self.addresses) as client:
            for own in self.clients:
                own.check_all(client)
