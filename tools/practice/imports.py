"""Old books imported, before and after going live: all ways to ask give one answer."""

import csv
import io
import random

import tigerbeetle as tb

from harness.checks import equal, equal_lists, require, wait_until
from harness.commands import Stream, florin, florin_json
from harness.judge import paged

from .requests import Requests
from .world import A, T, account, books, connect, post, transfer

NAMES = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")


def imported(debit, credit, amount, timestamp, flags=T.NONE, **fields):
    """A transfer with a timestamp of its own."""
    return transfer(debit, credit, amount, T.IMPORTED | flags, timestamp=timestamp, **fields)


def balance_of(ledger, account_id, at, place):
    """The four balances that `florin balance` shows."""
    (found,) = florin_json("balance", f"--account={account_id}", f"--at={at}", "--format=json",
                           place)
    return tuple(int(found[name]) for name in NAMES)


def exported_balances(at, place):
    """The balances of all accounts that `florin export` writes, by account."""
    text = florin("export", "--what=balances", f"--at={at}", place).stdout
    return {int(row["account_id"]): tuple(int(row[name]) for name in NAMES)
            for row in csv.DictReader(io.StringIO(text))}


def agree(ledger, moments, place, accounts):
    """`balance` and `export` say at each moment what the model says."""
    model = ledger.judge.model
    for at in moments:
        moment = at if at == "now" else int(at)
        limit = (1 << 63) - 1 if at == "now" else moment
        exported = exported_balances(at, place)
        known = {account_id for account_id, item in model.accounts.items()
                 if item.timestamp <= limit}
        equal(set(exported), known, f"accounts in the export at {at}")
        for account_id in known:
            wanted = model.balances_at(account_id, limit)
            equal(exported[account_id], wanted, f"export of account {account_id} at {at}")
        for account_id in accounts:
            if account_id in known:
                equal(balance_of(ledger, account_id, at, place),
                      model.balances_at(account_id, limit),
                      f"balance of account {account_id} at {at}")


def agree_everywhere(ledger, moments, accounts):
    """The same asked of the server, and of the file of a stopped server."""
    ledger.verify(histories=20)
    agree(ledger, moments, f"--addresses={ledger.address}", accounts)
    ledger.client.close()
    ledger.server.stop()
    agree(ledger, moments, str(ledger.server.path), accounts)
    ledger.server.start()
    ledger.client = connect(ledger.address)


def check_old_books_before_going_live(options):
    """Accounts and transfers of old books into an empty ledger, then ordinary work."""
    chance = options.chance("old books")
    with books("old") as ledger:
        start = 1_600_000_000_000_000_000
        ledger.accounts(*(account(number, A.IMPORTED | A.HISTORY, timestamp=start + number)
                          for number in range(1, 9)))
        stamp, holds = start + 1000, []
        for _ in range(options.size(10, 60)):
            batch = []
            for _ in range(50):
                stamp += chance.randrange(1, 10**12)
                flags = chance.choice((T.NONE, T.PENDING))
                one, two = chance.sample(range(1, 9), 2)
                if holds and chance.random() < 0.3:
                    hold = holds.pop(chance.randrange(len(holds)))
                    batch.append(post(hold.id, hold.amount // 2, T.IMPORTED, timestamp=stamp))
                else:
                    batch.append(imported(one, two, chance.randrange(100), stamp, flags))
                    if flags == T.PENDING:
                        holds.append(batch[-1])
            ledger.moved(*batch)
        late = imported(1, 2, 1, start + 500)
        equal(ledger.transfers(late), ["imported_event_timestamp_must_not_regress"], "too late")
        ledger.moved(*(transfer(1, 2, 3) for _ in range(20)), *(post(hold.id) for hold in holds))
        equal(ledger.transfers(imported(1, 2, 1, stamp + 1)),
              ["imported_event_timestamp_must_not_regress"], "after going live")
        ledger.judge.settle(ledger.client)
        stamps = sorted(event.timestamp for event in ledger.judge.model.events)
        moments = [stamps[0] - 1, stamps[0], *chance.sample(stamps, 4), stamps[-1], "now"]
        agree_everywhere(ledger, moments, (1, 2))


def check_late_imports_at_all_moments(options):
    """Imports dated before expiries that were carried out, and every way to ask, at any moment."""
    chance = options.chance("late imports")
    with books("late") as ledger:
        ledger.accounts(account(1), account(2), account(3, A.HISTORY), account(4, A.HISTORY))
        moments = ["now"]
        for _ in range(options.size(2, 6)):
            holds = [transfer(*chance.sample((1, 2, 3, 4), 2), 70 + number, T.PENDING, timeout=1)
                     for number in range(4)]
            ledger.moved(*holds)
            ledger.judge.rest(ledger.client)
            base = ledger.judge.model.transfers[holds[-1].id].timestamp
            moments += [base, base + 1_000_000_100]
            batch = [imported(*chance.sample((1, 2, 3, 4), 2), 11 + number,
                              base + 500_000_000 + 1000 * number) for number in range(5)]
            newcomer = tb.id()
            ledger.accounts(account(newcomer, A.IMPORTED, timestamp=base + 400_000_000))
            batch.append(imported(newcomer, 1, 5, base + 500_100_000))
            ledger.moved(*batch)
            moments += [base + 500_002_000, base + 500_002_001, base + 600_000_000]
            ledger.moved(transfer(1, 2, 1))
        agree_everywhere(ledger, moments, (1, 3))


def check_random_history_at_random_moments(options):
    """Random requests with expiries and late imports: the sums of events at random moments."""
    chance = options.chance("moments")
    with books("moments") as ledger:
        requests = Requests(chance, 1 << 64, accounts=8, timeouts=(0, 1, 1))
        ledger.accounts(*requests.accounts)
        ledger.transfers(*requests.funding())
        statuses = []
        for _ in range(options.size(3, 10)):
            for _ in range(6):
                requests.send(ledger.judge, ledger.client, 15)
            ledger.judge.rest(ledger.client)
            floor = ledger.judge.model.transfer_floor
            newest = max([floor, *(event.timestamp for event in ledger.judge.model.events)])
            if newest > floor + 10:
                stamps = sorted(chance.sample(range(floor + 1, newest), 5))
                statuses += ledger.transfers(*(imported(*[item.id for item in chance.sample(
                    requests.accounts, 2)], 3, stamp) for stamp in stamps))
        require("created" in statuses, f"late imports were all refused: {set(statuses)}")
        stamps = [event.timestamp for event in ledger.judge.model.events]
        moments = [chance.choice(stamps) + chance.randrange(-1, 2)
                   for _ in range(options.size(6, 40))]
        ids = [item.id for item in chance.sample(requests.accounts, 2)]
        agree_everywhere(ledger, [*moments, "now"], ids)
        print(f"  {ledger.judge.summary()}")


def check_exports_of_transfers_at_moments(options):
    """Exported transfers and accounts at a moment are those that there were."""
    chance = options.chance("export moments")
    with books("exports") as ledger:
        requests = Requests(random.Random(options.seed), 1 << 64, accounts=6)
        ledger.accounts(*requests.accounts)
        ledger.transfers(*requests.funding())
        for _ in range(8):
            requests.send(ledger.judge, ledger.client, 30)
        ledger.judge.settle(ledger.client)
        stamps = sorted(ledger.judge.model.transfer_times)
        for at in (*chance.sample(stamps, 3), stamps[0] - 1, "now"):
            limit = stamps[-1] if at == "now" else at
            rows = csv.DictReader(io.StringIO(florin(
                "export", f"--addresses={ledger.address}", "--what=transfers",
                f"--at={at}").stdout))
            wanted = ledger.judge.model.query_transfers(limit=1 << 30, timestamp_max=limit)
            equal_lists([int(row["id"]) for row in rows], [item.id for item in wanted],
                        f"transfers at {at}")


def check_stream_with_late_imports(options):
    """More late imports than one answer holds, with a cursor and in a running stream: all come."""
    count = options.size(8_400, 100_000)
    with books("stream", development=False) as ledger:
        at = f"--addresses={ledger.address}"
        cursor = ledger.directory / "cursor"
        ledger.accounts(account(1), account(2))
        hold = transfer(1, 2, 70, T.PENDING, timeout=1)
        ledger.moved(hold)
        wait_until(lambda: ledger.balances(1)[0] == 0, "the hold runs out")
        before = florin_json("cdc", at, f"--cursor={cursor}", "--until=now")
        equal(len(before), 2, "events before")
        ledger.judge.settle(ledger.client)
        base = ledger.judge.model.transfer_floor
        events = [imported(1, 2, 1, base + 1 + number) for number in range(count)]
        last = transfer(1, 2, 1)
        with Stream("cdc", at, "--idle=50") as running:
            running.wait_for(lambda lines: len(lines) == 2, "the events before")
            for start in range(0, count, ledger.batch_max):
                ledger.moved(*events[start:start + ledger.batch_max])
            ledger.moved(last)
            running.wait_for(lambda lines: len(lines) >= count + 3, "the running stream")
            equal(running.end(), 0, "exit code of the running stream")
        all_came(running.records()[2:], events, last, "running stream")
        after = florin_json("cdc", at, f"--cursor={cursor}", "--until=now")
        all_came(after, events, last, "stream with a cursor")
        ledger.judge.settle(ledger.client)
        ledger.judge.compare_events(ledger.client)
        found = list(paged(ledger.client.get_account_transfers, 1, False, 8189))
        equal(len(found), count + 2, "transfers of the account")


def all_came(records, late, last, what):
    """A stream has brought all late events in order, marked as late, and the last one, each once."""
    found = [int(record["transfer_id"]) for record in records if record.get("late")]
    equal_lists(found, [event.id for event in late], f"late events of the {what}")
    found = [int(record["transfer_id"]) for record in records if not record.get("late")]
    equal(found, [last.id], f"other events of the {what}")
