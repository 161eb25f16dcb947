"""Holds: races for them, limits, closing, expiry in masses."""

import time

import tigerbeetle as tb

from harness.checks import equal, require, wait_until

from .requests import Requests
from .world import A, T, account, books, connect, in_threads, post, transfer, void

WORKERS = 32
# Statuses that random requests must meet, or they would prove little.
WANTED = {"created", "exists", "exceeds_credits", "exceeds_debits", "linked_event_failed",
          "id_already_failed", "debit_account_already_closed", "credit_account_already_closed",
          "pending_transfer_already_posted", "pending_transfer_already_voided",
          "exceeds_pending_transfer_amount"}


def check_thirty_two_workers_on_one_hold(options):
    """Posts, voids and the expiry race for each hold: exactly one wins."""
    rounds, size = options.size(2, 10), options.size(12, 50)
    with books("race") as ledger:
        ledger.accounts(account(1, A.HISTORY), account(2, A.HISTORY))
        for number in range(rounds):
            holds = [transfer(1, 2, 10 + index, T.PENDING, timeout=index % 3)
                     for index in range(size)]
            start = time.monotonic()
            ledger.moved(*holds)
            in_threads([lambda worker=worker: race(ledger, options, holds, start,
                                                   f"{number} {worker}")
                        for worker in range(WORKERS)])
        # Each worker tried to decide each hold: what nobody won runs out.
        wait_until(lambda: ledger.balances(1)[0] == 0, "all holds are decided")
        equal(ledger.balances(2)[2], 0, "what is reserved on the other side")
        ledger.verify()
        model = ledger.judge.model
        ends = {}
        for event in model.events:
            if event.kind >= 2:
                hold = event.transfer.pending_id or event.transfer.id
                ends.setdefault(hold, []).append(event.kind)
        equal({len(kinds) for kinds in ends.values()}, {1}, "winners of a hold")
        equal(len(ends), rounds * size, "holds that were decided")
        print(f"  {ledger.judge.summary()}")


def race(ledger, options, holds, start, name):
    """One worker tries to post or void all holds, some around the moment of their expiry."""
    chance = options.chance(f"race {name}")
    order = [hold for hold in holds if hold.timeout != 1]
    chance.shuffle(order)
    late = [hold for hold in holds if hold.timeout == 1]
    # All workers try these at one moment each: some before the expiry, some after it.
    moments = {hold.id: start + 0.9 + 0.2 * index / len(late) for index, hold in enumerate(late)}
    with connect(ledger.address) as client:
        for hold in order + late:
            time.sleep(max(0, moments.get(hold.id, start) - time.monotonic()))
            if chance.random() < 0.5:
                event = post(hold.id, chance.choice((tb.AMOUNT_MAX, 5)))
            else:
                event = void(hold.id)
            ledger.judge.create_transfers(client, [event])


def check_random_requests_under_limits(options):
    """Random transfers, holds and chains over limited accounts, each answer judged."""
    with books("limits") as ledger:
        requests = Requests(options.chance("limits"), 1 << 64, timeouts=(0, 0, 0, 1, 2))
        ledger.accounts(*requests.accounts)
        ledger.transfers(*requests.funding())
        for _ in range(options.size(150, 1000)):
            requests.send(ledger.judge, ledger.client, requests.chance.randrange(1, 40))
        ledger.verify(histories=10)
        print(f"  {ledger.judge.summary()}")
        missing = WANTED - set(ledger.judge.statuses)
        equal(missing, set(), "statuses that this seed never met")


def check_random_requests_of_many_clients(options):
    """Eight clients on the same accounts in two ledgers, each answer judged."""
    with books("many") as ledger:
        shared = Requests(options.chance("many"), 1 << 64, accounts=12, ledgers=(1, 2))
        ledger.accounts(*shared.accounts)
        ledger.transfers(*shared.funding())

        def work(number):
            requests = Requests(options.chance(f"many {number}"), (number + 2) << 64,
                                timeouts=(0, 1, 1, 2))
            requests.accounts = shared.accounts
            with connect(ledger.address) as client:
                for _ in range(options.size(40, 300)):
                    requests.send(ledger.judge, client, requests.chance.randrange(1, 20))

        in_threads([lambda number=number: work(number) for number in range(8)])
        ledger.verify(histories=12)
        print(f"  {ledger.judge.summary()}")


def check_closing_with_open_holds(_options):
    """An account is closed while holds are open: voids and expiries work, posts do not."""
    with books("closing") as ledger:
        ledger.accounts(account(1, A.HISTORY), account(2), account(3))
        holds = [transfer(1, 2, 10 + number, T.PENDING, timeout=timeout)
                 for number, timeout in enumerate((0, 0, 2, 0))]
        ledger.moved(transfer(2, 1, 1000), *holds)
        closing = transfer(1, 3, 0, T.PENDING | T.CLOSING_DEBIT)
        ledger.moved(closing)
        equal(ledger.transfers(transfer(1, 2, 1), transfer(2, 1, 1), post(holds[0].id),
                               void(holds[1].id), transfer(1, 3, 0, T.PENDING | T.CLOSING_DEBIT)),
              ["debit_account_already_closed", "credit_account_already_closed",
               "debit_account_already_closed", "created", "debit_account_already_closed"],
              "statuses while the account is closed")
        wait_until(lambda: ledger.balances(1)[0] == 10 + 13, "a hold expires while it is closed")
        equal(ledger.transfers(post(closing.id), void(closing.id), post(holds[0].id, 7),
                               post(holds[2].id)),
              ["debit_account_already_closed", "created", "created",
               "pending_transfer_expired"], "statuses around the reopening")
        ledger.verify()
        expiring = transfer(1, 2, 5, T.PENDING | T.CLOSING_CREDIT | T.CLOSING_DEBIT, timeout=1)
        ledger.moved(expiring)
        equal(ledger.transfers(transfer(3, 2, 1)), ["credit_account_already_closed"], "closed")
        wait_until(lambda: not ledger.client.lookup_accounts([2])[0].flags & A.CLOSED,
                   "the account opens when the closing transfer expires")
        ledger.moved(transfer(3, 2, 1))
        ledger.server.kill()
        ledger.server.start()
        ledger.verify()


def check_mass_expiry(options):
    """50,000 holds run out in one second while clients work."""
    count = options.size(50_000, 200_000)
    with books("mass", development=False) as ledger:
        ledger.accounts(account(1, A.HISTORY), account(2), account(3), account(4))
        batches = [[transfer(1, 2, 1, T.PENDING, timeout=3)
                    for _ in range(min(ledger.batch_max, count - start))]
                   for start in range(0, count, ledger.batch_max)]
        for batch in batches:
            equal(set(ledger.judge.create_transfers(ledger.client, batch)), {"created"},
                  "statuses of holds")
        done = []

        def work(number):
            with connect(ledger.address) as client:
                while not done:
                    events = [transfer(3, 4, 1), transfer(4, 3, 2, T.PENDING)]
                    events.append(post(events[1].id, 1))
                    ledger.judge.create_transfers(client, events)
                    if number == 0:
                        # A race with the expiry: this one or that one, judged afterwards.
                        late = batches[-1][len(ledger.judge.waiting) % len(batches[-1])]
                        ledger.judge.create_transfers(client, [post(late.id)])

        def watch():
            try:
                wait_until(lambda: ledger.balances(1)[0] == 0, "all holds have run out")
            finally:
                done.append(True)

        in_threads([watch, *(lambda number=number: work(number) for number in range(3))])
        ledger.judge.settle(ledger.client)
        model = ledger.judge.model
        expired = sum(event.kind == 4 for event in model.events)
        require(expired > count - ledger.batch_max, f"only {expired} holds have run out")
        equal(model.due(1 << 63), [], "holds that are still open with a timeout")
        ledger.judge.compare_accounts(ledger.client)
        ledger.judge.compare_events(ledger.client)
        print(f"  {ledger.judge.summary()}")
