"""Every operation through the official Python client, against one server in production mode.

Usage: operations.py ADDRESS VERSION, with the Python of an environment that holds the `tigerbeetle`
package. Covers what an application sees: fields, statuses, timestamps, chains, two-phase, balancing,
closing and imported transfers, expiry, filters, full batches, concurrent callers, local errors; and
the worked examples of the specification.
"""

import asyncio
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import tigerbeetle as tb  # noqa: E402

from conformance import worked_examples  # noqa: E402
from harness.checks import Checks, equal, raises, require  # noqa: E402

A = tb.AccountFlags
T = tb.TransferFlags
BATCH_MAX = 8189
ACCOUNT_CREATED = tb.CreateAccountStatus.CREATED
CREATED = tb.CreateTransferStatus.CREATED
STATUS = tb.CreateTransferStatus
BOTH = tb.AccountFilterFlags.DEBITS | tb.AccountFilterFlags.CREDITS


def new_accounts(client, *flags, history=False, **fields):
    """Creates one account for each value in `flags`; gives their ids."""
    fields = {"ledger": 1, "code": 1, **fields}
    extra = A.HISTORY if history else A.NONE
    accounts = [tb.Account(id=tb.id(), flags=flag | extra, **fields) for flag in flags]
    results = client.create_accounts(accounts)
    equal([result.status for result in results], [ACCOUNT_CREATED] * len(accounts), "statuses")
    return [account.id for account in accounts]


def make_transfer(debit, credit, amount, **fields):
    """A transfer with a new id."""
    fields = {"id": tb.id(), "ledger": 1, "code": 1, **fields}
    return tb.Transfer(debit_account_id=debit, credit_account_id=credit, amount=amount, **fields)


def expect(client, transfers, *statuses):
    """Creates transfers and checks their statuses; gives the results."""
    results = client.create_transfers(transfers)
    equal([result.status.name for result in results], [status.name for status in statuses],
          "statuses")
    return results


def created(client, *transfers):
    """Creates transfers, all of which must succeed; gives the results."""
    return expect(client, list(transfers), *[CREATED] * len(transfers))


def balances(client, account_id):
    """The four balances of an account."""
    (account,) = client.lookup_accounts([account_id])
    return (account.debits_pending, account.debits_posted, account.credits_pending,
            account.credits_posted)


def account_filter(account_id, **fields):
    """A filter for transfers or balances of an account."""
    fields = {"user_data_128": 0, "user_data_64": 0, "user_data_32": 0, "code": 0,
              "timestamp_min": 0, "timestamp_max": 0, "limit": BATCH_MAX, "flags": BOTH, **fields}
    return tb.AccountFilter(account_id=account_id, **fields)


def query_filter(**fields):
    """A filter for queries."""
    return tb.QueryFilter(**{"user_data_128": 0, "user_data_64": 0, "user_data_32": 0, "ledger": 0,
                             "code": 0, "timestamp_min": 0, "timestamp_max": 0,
                             "limit": BATCH_MAX, "flags": tb.QueryFilterFlags.NONE, **fields})


def check_accounts(client):
    """All fields of an account come back; timestamps are consecutive; a repeat exists."""
    accounts = [tb.Account(id=tb.id(), user_data_128=(1 << 128) - number, user_data_64=2 + number,
                           user_data_32=3, ledger=700, code=65535,
                           flags=A.HISTORY | A.DEBITS_MUST_NOT_EXCEED_CREDITS)
                for number in range(1, 4)]
    before = time.time_ns()
    results = client.create_accounts(accounts)
    equal([result.status for result in results], [ACCOUNT_CREATED] * 3, "statuses")
    first = results[0].timestamp
    equal([result.timestamp for result in results], [first, first + 1, first + 2], "timestamps")
    require(abs(first - before) < 60 * 10**9, "the timestamp is not the present")
    for account, result in zip(accounts, results):
        account.timestamp = result.timestamp
    equal(client.lookup_accounts([account.id for account in accounts]), accounts, "accounts")
    repeated = tb.Account(id=accounts[1].id, user_data_128=accounts[1].user_data_128,
                          user_data_64=accounts[1].user_data_64, user_data_32=3, ledger=700,
                          code=65535, flags=accounts[1].flags)
    (result,) = client.create_accounts([repeated])
    equal((result.status, result.timestamp), (tb.CreateAccountStatus.EXISTS, first + 1), "repeat")
    repeated.code = 1
    (result,) = client.create_accounts([repeated])
    equal(result.status, tb.CreateAccountStatus.EXISTS_WITH_DIFFERENT_CODE, "other code")
    (result,) = client.create_accounts([tb.Account(ledger=1, code=1)])
    equal(result.status, tb.CreateAccountStatus.ID_MUST_NOT_BE_ZERO, "id zero")
    equal(client.lookup_accounts([0, (1 << 128) - 1, tb.id()]), [], "unknown accounts")


def check_transfers(client):
    """All fields of a transfer come back; balances follow; repeats and errors are told."""
    one, two = new_accounts(client, A.NONE, A.NONE)
    transfers = [make_transfer(one, two, 100 + number, user_data_128=7, user_data_64=8,
                               user_data_32=9, code=10) for number in range(3)]
    results = created(client, *transfers)
    for transfer, result in zip(transfers, results):
        transfer.timestamp = result.timestamp
    found = client.lookup_transfers([transfers[2].id, tb.id(), transfers[0].id])
    equal(found, [transfers[2], transfers[0]], "transfers")
    equal(balances(client, one), (0, 303, 0, 0), "debit side")
    equal(balances(client, two), (0, 0, 0, 303), "credit side")
    transfers[0].timestamp = 0
    (result,) = client.create_transfers([transfers[0]])
    equal((result.status, result.timestamp), (STATUS.EXISTS, results[0].timestamp), "repeat")
    expect(client, [make_transfer(one, one, 1), make_transfer(one, two, 1, ledger=2),
                    make_transfer(tb.id(), two, 1), make_transfer(one, two, 1, code=0)],
           STATUS.ACCOUNTS_MUST_BE_DIFFERENT,
           STATUS.TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS,
           STATUS.DEBIT_ACCOUNT_NOT_FOUND, STATUS.CODE_MUST_NOT_BE_ZERO)


def check_two_phase(client):
    """Post in full and in part, void, and what cannot be done twice."""
    one, two = new_accounts(client, A.NONE, A.NONE)
    pending = [make_transfer(one, two, 100, flags=T.PENDING) for _ in range(3)]
    created(client, *pending)
    equal(balances(client, one), (300, 0, 0, 0), "pending")

    def resolve(index, amount, flags):
        return make_transfer(0, 0, amount, flags=flags, pending_id=pending[index].id, ledger=0,
                             code=0)

    created(client, resolve(0, tb.AMOUNT_MAX, T.POST_PENDING_TRANSFER),
            resolve(1, 30, T.POST_PENDING_TRANSFER), resolve(2, 0, T.VOID_PENDING_TRANSFER))
    equal(balances(client, one), (0, 130, 0, 0), "resolved, debit side")
    equal(balances(client, two), (0, 0, 0, 130), "resolved, credit side")
    expect(client, [resolve(0, 0, T.VOID_PENDING_TRANSFER),
                    resolve(2, 1, T.POST_PENDING_TRANSFER),
                    make_transfer(0, 0, 1, flags=T.POST_PENDING_TRANSFER, pending_id=tb.id())],
           STATUS.PENDING_TRANSFER_ALREADY_POSTED, STATUS.PENDING_TRANSFER_ALREADY_VOIDED,
           STATUS.PENDING_TRANSFER_NOT_FOUND)


def check_chains(client):
    """A chain happens wholly or not at all."""
    one, two = new_accounts(client, A.NONE, A.NONE)
    good = [make_transfer(one, two, 1, flags=T.LINKED), make_transfer(one, two, 2)]
    bad = [make_transfer(one, two, 4, flags=T.LINKED), make_transfer(one, tb.id(), 8),
           make_transfer(one, two, 16), make_transfer(one, two, 32, flags=T.LINKED)]
    expect(client, good + bad, CREATED, CREATED, STATUS.LINKED_EVENT_FAILED,
           STATUS.CREDIT_ACCOUNT_NOT_FOUND, CREATED, STATUS.LINKED_EVENT_CHAIN_OPEN)
    equal(balances(client, one), (0, 19, 0, 0), "balances")
    expect(client, [make_transfer(one, two, 8, id=bad[1].id)], STATUS.ID_ALREADY_FAILED)
    accounts = [tb.Account(id=tb.id(), ledger=1, code=1, flags=A.LINKED),
                tb.Account(id=tb.id(), ledger=0, code=1)]
    statuses = [result.status for result in client.create_accounts(accounts)]
    equal(statuses, [tb.CreateAccountStatus.LINKED_EVENT_FAILED,
                     tb.CreateAccountStatus.LEDGER_MUST_NOT_BE_ZERO], "account chain")
    equal(client.lookup_accounts([accounts[0].id]), [], "account of a failed chain")


def check_limits_and_balancing(client):
    """Limits of accounts, balancing transfers, and the largest amount."""
    one, two, bank = new_accounts(client, A.DEBITS_MUST_NOT_EXCEED_CREDITS,
                                  A.CREDITS_MUST_NOT_EXCEED_DEBITS, A.NONE)
    created(client, make_transfer(bank, one, 50))
    expect(client, [make_transfer(one, bank, 51), make_transfer(bank, two, 1),
                    make_transfer(one, bank, tb.AMOUNT_MAX, flags=T.BALANCING_DEBIT)],
           STATUS.EXCEEDS_CREDITS, STATUS.EXCEEDS_DEBITS, CREATED)
    equal(balances(client, one), (0, 50, 0, 50), "balanced")
    left, right = new_accounts(client, A.NONE, A.NONE)
    transfer = make_transfer(left, right, tb.AMOUNT_MAX)
    created(client, transfer)
    equal(client.lookup_transfers([transfer.id])[0].amount, tb.AMOUNT_MAX, "largest amount")
    expect(client, [make_transfer(left, right, 1), make_transfer(right, left, tb.AMOUNT_MAX)],
           STATUS.OVERFLOWS_DEBITS_POSTED, CREATED)


def check_closing(client):
    """A closing transfer closes; voiding it opens again."""
    one, two = new_accounts(client, A.NONE, A.NONE)
    closing = make_transfer(one, two, 0, flags=T.PENDING | T.CLOSING_DEBIT)
    created(client, closing)
    require(client.lookup_accounts([one])[0].flags & A.CLOSED, "not closed")
    expect(client, [make_transfer(one, two, 1)], STATUS.DEBIT_ACCOUNT_ALREADY_CLOSED)
    created(client, make_transfer(0, 0, 0, flags=T.VOID_PENDING_TRANSFER, pending_id=closing.id,
                                  ledger=0, code=0))
    require(not client.lookup_accounts([one])[0].flags & A.CLOSED, "not open")
    created(client, make_transfer(one, two, 1))


def check_imported(client):
    """Imported records keep their timestamps."""
    anchor = client.create_accounts([tb.Account(id=tb.id(), ledger=1, code=1)])[0].timestamp
    time.sleep(0.005)
    accounts = [tb.Account(id=tb.id(), ledger=1, code=1, flags=A.IMPORTED,
                           timestamp=anchor + number) for number in (10, 20)]
    results = client.create_accounts(accounts)
    equal([(result.status, result.timestamp) for result in results],
          [(ACCOUNT_CREATED, anchor + 10), (ACCOUNT_CREATED, anchor + 20)], "imported accounts")
    one, two = accounts[0].id, accounts[1].id
    equal(client.lookup_accounts([two])[0].timestamp, anchor + 20, "timestamp of the account")
    good = make_transfer(one, two, 5, flags=T.IMPORTED, timestamp=anchor + 30)
    late = make_transfer(one, two, 5, flags=T.IMPORTED, timestamp=anchor + 25)
    future = make_transfer(one, two, 5, flags=T.IMPORTED, timestamp=time.time_ns() + 10**12)
    results = expect(client, [good, late, future, make_transfer(one, two, 5)], CREATED,
                     STATUS.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS,
                     STATUS.IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE,
                     STATUS.IMPORTED_EVENT_EXPECTED)
    equal(results[0].timestamp, anchor + 30, "timestamp of the transfer")
    equal(client.lookup_transfers([good.id]), [good], "the imported transfer")


def check_history(client):
    """The history of balances, in both directions, and none without the flag."""
    one, two = new_accounts(client, A.HISTORY, A.NONE)
    results = created(client, make_transfer(one, two, 5), make_transfer(two, one, 3),
                      make_transfer(one, two, 2, flags=T.PENDING))
    rows = [(row.timestamp, row.debits_pending, row.debits_posted, row.credits_posted)
            for row in client.get_account_balances(account_filter(one))]
    expected = [(results[0].timestamp, 0, 5, 0), (results[1].timestamp, 0, 5, 3),
                (results[2].timestamp, 2, 5, 3)]
    equal(rows, expected, "history")
    reversed_flags = BOTH | tb.AccountFilterFlags.REVERSED
    rows = client.get_account_balances(account_filter(one, flags=reversed_flags, limit=2))
    equal([row.timestamp for row in rows], [results[2].timestamp, results[1].timestamp],
          "history reversed")
    equal(client.get_account_balances(account_filter(two)), [], "history without the flag")


def check_expiry(client):
    """A pending transfer is released after its timeout."""
    one, two = new_accounts(client, A.NONE, A.NONE)
    pending = make_transfer(one, two, 11, flags=T.PENDING, timeout=1)
    created(client, pending)
    equal(balances(client, one), (11, 0, 0, 0), "pending")
    deadline = time.monotonic() + 5
    while balances(client, one) != (0, 0, 0, 0):
        require(time.monotonic() < deadline, "not released in time")
        time.sleep(0.1)
    expect(client, [make_transfer(0, 0, 11, flags=T.POST_PENDING_TRANSFER, pending_id=pending.id,
                                  ledger=0, code=0)], STATUS.PENDING_TRANSFER_EXPIRED)


def check_account_filters(client):
    """Transfers of an account by side, range, limit, order, code and user data."""
    one, two, three = new_accounts(client, A.NONE, A.NONE, A.NONE)
    transfers = []
    for number in range(30):
        debit, credit = ((one, two), (two, one), (two, three))[number % 3]
        transfers.append(make_transfer(debit, credit, number, code=1 + number % 2,
                                       user_data_64=number // 10))
    results = created(client, *transfers)
    for transfer, result in zip(transfers, results):
        transfer.timestamp = result.timestamp
    sides = tb.AccountFilterFlags

    def check(what, keep, **fields):
        wanted = [transfer for transfer in transfers
                  if one in (transfer.debit_account_id, transfer.credit_account_id)
                  and keep(transfer)]
        if fields.get("flags", BOTH) & sides.REVERSED:
            wanted.reverse()
        wanted = wanted[:fields.get("limit", BATCH_MAX)]
        found = client.get_account_transfers(account_filter(one, **fields))
        equal(found, wanted, what)

    check("both sides", lambda _: True)
    check("debits", lambda transfer: transfer.debit_account_id == one, flags=sides.DEBITS)
    check("credits", lambda transfer: transfer.credit_account_id == one, flags=sides.CREDITS)
    check("limit", lambda _: True, limit=3)
    check("reversed", lambda _: True, limit=7, flags=BOTH | sides.REVERSED)
    check("code", lambda transfer: transfer.code == 2, code=2)
    check("user data", lambda transfer: transfer.user_data_64 == 2, user_data_64=2)
    low, high = transfers[6].timestamp, transfers[21].timestamp
    check("range", lambda transfer: low <= transfer.timestamp <= high, timestamp_min=low,
          timestamp_max=high)
    equal(client.get_account_transfers(account_filter(one, limit=0)), [], "limit zero")
    equal(client.get_account_transfers(account_filter(0)), [], "account zero")
    equal(client.get_account_transfers(account_filter(tb.id())), [], "unknown account")


def check_queries(client):
    """Queries over all accounts and transfers by user data, ledger, code, range and order."""
    mark = tb.id()
    ledger = 1 + mark % 4_000_000_000
    ids = [tb.id() for _ in range(40)]
    accounts = [tb.Account(id=identifier, ledger=ledger, code=1 + number % 4, user_data_128=mark,
                           user_data_64=1 + number % 2, user_data_32=1 + number % 5)
                for number, identifier in enumerate(ids)]
    results = client.create_accounts(accounts)
    for account, result in zip(accounts, results):
        account.timestamp = result.timestamp

    def check(what, keep, **fields):
        wanted = [account for account in accounts if keep(account)]
        if fields.get("flags"):
            wanted.reverse()
        found = client.query_accounts(query_filter(user_data_128=mark, **fields))
        equal(found, wanted[:fields.get("limit", BATCH_MAX)], what)

    check("all", lambda _: True)
    check("ledger", lambda _: True, ledger=ledger)
    check("another ledger", lambda _: False, ledger=ledger + 1)
    check("two conditions", lambda account: account.code == 3 and account.user_data_32 == 2,
          code=3, user_data_32=2)
    check("reversed", lambda _: True, flags=tb.QueryFilterFlags.REVERSED, limit=5)
    low, high = accounts[10].timestamp, accounts[19].timestamp
    check("range", lambda account: low <= account.timestamp <= high and account.user_data_64 == 1,
          timestamp_min=low, timestamp_max=high, user_data_64=1)
    transfers = [make_transfer(ids[0], ids[1 + number], number, ledger=ledger, code=1 + number % 3,
                               user_data_128=mark) for number in range(30)]
    stamps = [result.timestamp for result in created(client, *transfers)]
    found = client.query_transfers(query_filter(user_data_128=mark, ledger=ledger, code=2))
    equal([transfer.id for transfer in found],
          [transfer.id for transfer in transfers if transfer.code == 2], "transfers by code")
    found = client.query_transfers(query_filter(user_data_128=mark, timestamp_min=stamps[5],
                                                flags=tb.QueryFilterFlags.REVERSED, limit=4))
    equal([transfer.timestamp for transfer in found], stamps[:25:-1], "transfers reversed")


def check_empty(client):
    """Empty batches have empty results."""
    for call in (client.create_accounts, client.create_transfers, client.lookup_accounts,
                 client.lookup_transfers):
        equal(call([]), [], call.__name__)


def check_full_batches(client):
    """The largest batches of every kind; one more is refused by the client itself."""
    mark = tb.id()
    accounts = [tb.Account(id=tb.id(), ledger=1, code=1, user_data_128=mark)
                for _ in range(BATCH_MAX)]
    results = client.create_accounts(accounts)
    equal({result.status for result in results}, {ACCOUNT_CREATED}, "statuses of accounts")
    ids = [account.id for account in accounts]
    equal([account.id for account in client.lookup_accounts(ids)], ids, "accounts looked up")
    found = client.query_accounts(query_filter(user_data_128=mark))
    equal([account.id for account in found], ids, "accounts queried")
    transfers = [make_transfer(ids[0], ids[1 + number % 1000], 1, user_data_128=mark)
                 for number in range(BATCH_MAX)]
    stamps = [result.timestamp for result in created(client, *transfers)]
    equal(stamps, list(range(stamps[0], stamps[0] + BATCH_MAX)), "timestamps")
    wanted = [transfer.id for transfer in transfers]
    equal([transfer.id for transfer in client.lookup_transfers(wanted)], wanted, "looked up")
    found = client.query_transfers(query_filter(user_data_128=mark))
    equal([transfer.id for transfer in found], wanted, "transfers queried")
    found = client.get_account_transfers(account_filter(ids[0]))
    equal([transfer.id for transfer in found], wanted, "transfers of one account")
    equal(balances(client, ids[0]), (0, BATCH_MAX, 0, 0), "balances")
    too_much = tb.TooMuchDataError
    raises(too_much, lambda: client.create_accounts(accounts + accounts[:1]), "8190 accounts")
    raises(too_much, lambda: client.create_transfers(transfers + transfers[:1]), "8190 transfers")
    raises(too_much, lambda: client.lookup_accounts(ids + ids[:1]), "8190 ids")
    raises(too_much, lambda: client.query_accounts(query_filter(limit=BATCH_MAX + 1)), "limit 8190")


def check_threads(client):
    """Concurrent callers of one client, whose calls travel together, each get their own results."""
    shared = new_accounts(client, A.NONE, A.NONE)
    failures = []

    def work(number):
        try:
            for turn in range(25):
                count = (number + turn) % 4
                one, two = new_accounts(client, A.HISTORY, A.NONE, user_data_64=1 + number)
                transfers = [make_transfer(one, two, 1 + number, user_data_32=1 + index)
                             for index in range(count)]
                bad = [make_transfer(one, tb.id(), 1)] if turn % 3 == 0 else []
                statuses = [CREATED] * count + [STATUS.CREDIT_ACCOUNT_NOT_FOUND] * len(bad)
                expect(client, transfers + bad, *statuses)
                expect(client, [make_transfer(*shared, 1)], CREATED)
                equal(balances(client, one), (0, count * (1 + number), 0, 0), "balances")
                found = client.get_account_transfers(account_filter(one))
                equal([transfer.id for transfer in found],
                      [transfer.id for transfer in transfers], "transfers")
                equal(len(client.get_account_balances(account_filter(one))), count, "rows")
                equal([transfer.id for transfer in client.lookup_transfers(
                    [transfer.id for transfer in reversed(transfers)])],
                      [transfer.id for transfer in reversed(transfers)], "looked up")
                found = client.query_accounts(query_filter(user_data_64=1 + number, limit=8,
                                                           flags=tb.QueryFilterFlags.REVERSED))
                equal([account.id for account in found][:2], [two, one], "queried accounts")
        except BaseException as error:  # noqa: BLE001 (reported by the check)
            failures.append(f"caller {number}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(failures, [], "failures")
    equal(balances(client, shared[0]), (0, 300, 0, 0), "balances of the shared account")


def check_async(address):
    """The asynchronous client with many calls in flight."""

    async def work():
        async with tb.ClientAsync(cluster_id=0, replica_addresses=address) as client:
            async def one_call(number):
                account = tb.Account(id=tb.id(), ledger=1, code=1, user_data_32=number)
                (result,) = await client.create_accounts([account])
                equal(result.status, ACCOUNT_CREATED, "status")
                (found,) = await client.lookup_accounts([account.id])
                equal((found.id, found.user_data_32), (account.id, number), "account")
                equal(found.timestamp, result.timestamp, "timestamp")

            await asyncio.gather(*(one_call(number) for number in range(200)))

    asyncio.run(work())


def check_closed(address):
    """A second client works beside the first; after closing, it is closed."""
    client = tb.ClientSync(cluster_id=0, replica_addresses=address)
    equal(client.lookup_accounts([1 << 100]), [], "accounts")
    client.close()
    raises(tb.ClientClosedError, lambda: client.lookup_accounts([1]), "a closed client")


def main():
    """Runs all checks against the server at the address given."""
    address = sys.argv[1]
    checks = Checks(f"python {sys.argv[2]}")
    with tb.ClientSync(cluster_id=0, replica_addresses=address) as client:
        for check in (check_accounts, check_transfers, check_two_phase, check_chains,
                      check_limits_and_balancing, check_closing, check_imported, check_history,
                      check_expiry, check_account_filters, check_queries, check_empty,
                      check_threads, check_full_batches):
            checks.run(check.__name__, check, client)
        worked_examples.run(checks, client)
    checks.run("check_async", check_async, address)
    checks.run("check_closed", check_closed, address)
    checks.finish()


if __name__ == "__main__":
    main()
