"""Official clients that create transfers until they are told to end, and what must be there then."""

import logging
import threading
import time

import tigerbeetle as tb
from tigerbeetle.client import InitError

from .checks import equal, require

# Requests of a client a second at most: a replica that is away for a moment must find what it
# missed in the others' logs.
RATE = 40
LOOKUP_MAX = 1000
# How long a client waits for locked memory of others that have ended.
ROOM_SECONDS = 10


def silence_logs():
    """Clients report every connection that is refused; here that is no news."""
    logging.getLogger("tigerbeetle").addFilter(lambda record: False)


def connected(addresses, cluster_id=0):
    """An official client. It has an io_uring, and the kernel gives the locked memory of one back some
    time after its client or server has ended: under a small limit, room may come a little later."""
    deadline = time.monotonic() + ROOM_SECONDS
    while True:
        try:
            return tb.ClientSync(cluster_id=cluster_id, replica_addresses=",".join(addresses))
        except InitError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Writer(threading.Thread):
    """Creates transfers between two accounts of its own until it is told to end."""

    def __init__(self, number, addresses, batch, cluster_id=0):
        super().__init__(daemon=True)
        self.number = number
        self.addresses = addresses
        self.cluster_id = cluster_id
        self.batch = batch
        self.accounts = [1_000_000 * (number + 1), 1_000_000 * (number + 1) + 1]
        self.next_id = (number + 1) << 64
        self.acknowledged = []
        self.answer_times = []
        self.ending = False
        self.error = None

    def run(self):
        try:
            with connected(self.addresses, self.cluster_id) as client:
                self.create_accounts(client)
                while not self.ending:
                    start = time.monotonic()
                    self.create_transfers(client)
                    time.sleep(max(0, start + 1 / RATE - time.monotonic()))
        except BaseException as error:  # noqa: BLE001 (reported by the check)
            self.error = error

    def create_accounts(self, client):
        """Makes the two accounts."""
        accounts = [tb.Account(id=number, ledger=1, code=1) for number in self.accounts]
        for result in client.create_accounts(accounts):
            equal(result.status, tb.CreateAccountStatus.CREATED, "status of an account")

    def create_transfers(self, client):
        """Makes one batch, and notes when it was answered."""
        first = self.next_id
        self.next_id += self.batch
        transfers = [tb.Transfer(id=number, debit_account_id=self.accounts[0],
                                 credit_account_id=self.accounts[1], amount=1, ledger=1, code=1)
                     for number in range(first, self.next_id)]
        for result in client.create_transfers(transfers):
            equal(result.status, tb.CreateTransferStatus.CREATED, "status of a transfer")
        self.answer_times.append(time.monotonic())
        self.acknowledged.append(first)


def check_content(addresses, writers, cluster_id=0):
    """Everything acknowledged is there, once, and nothing else."""
    for writer in writers:
        writer.ending = True
    for writer in writers:
        writer.join(60)
        require(not writer.is_alive(), f"writer {writer.number} hangs")
        require(writer.error is None, f"writer {writer.number}: {writer.error!r}")
    with connected(addresses, cluster_id) as client:
        for writer in writers:
            total = len(writer.acknowledged) * writer.batch
            debit, credit = client.lookup_accounts(writer.accounts)
            equal(debit.debits_posted, total, f"debits of writer {writer.number}")
            equal(credit.credits_posted, total, f"credits of writer {writer.number}")
            ids = [number for first in writer.acknowledged
                   for number in range(first, first + writer.batch)]
            for start in range(0, len(ids), LOOKUP_MAX):
                part = ids[start:start + LOOKUP_MAX]
                found = [transfer.id for transfer in client.lookup_transfers(part)]
                equal(found, part, f"transfers of writer {writer.number}")
    total = sum(len(writer.acknowledged) * writer.batch for writer in writers)
    print(f"  {total} acknowledged transfers are there", flush=True)
