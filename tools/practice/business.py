"""Payment processors, exchanges, wallets and billing: the recipes that applications are built of."""

import dataclasses
import time

import tigerbeetle as tb

from harness.checks import equal, equal_lists, require, wait_until
from harness.judge import account_filter, paged, query_filter
from harness.recipes import chain_done, chain_reason

from .world import A, T, account, books, connect, in_threads, linked, post, transfer, void

LIMITED = A.DEBITS_MUST_NOT_EXCEED_CREDITS
EURO, DOLLAR = 978, 840


def check_currency_exchange(options):
    """An exchange is a chain across two ledgers: both legs or none, under eight workers."""
    with books("exchange") as ledger:
        customers = range(10, 18)
        ledger.accounts(*(account(base * 1000 + customer, LIMITED | A.HISTORY, ledger=base)
                          for base in (EURO, DOLLAR) for customer in customers),
                        account(EURO, ledger=EURO), account(DOLLAR, ledger=DOLLAR))
        ledger.moved(*(transfer(EURO, EURO * 1000 + customer, 1_000, ledger=EURO)
                       for customer in customers))
        done = []

        def work(customer):
            chance = options.chance(f"exchange {customer}")
            with connect(ledger.address) as client:
                for _ in range(options.size(25, 200)):
                    amount = chance.randrange(1, 400)
                    one, two, rate = (EURO, DOLLAR, 1.08) if chance.random() < 0.6 else \
                        (DOLLAR, EURO, 0.92)
                    chain = linked(
                        transfer(one * 1000 + customer, one, amount, ledger=one, code=2),
                        transfer(two, two * 1000 + customer, int(amount * rate), ledger=two,
                                 code=2))
                    statuses = ledger.judge.create_transfers(client, chain)
                    if chain_done(statuses):
                        done.append(chain)
                    else:
                        equal(chain_reason(statuses), "exceeds_credits", "why not")

        in_threads([lambda customer=customer: work(customer) for customer in customers])
        ledger.verify(histories=16)
        ids = [event.id for chain in done for event in chain]
        equal(len(ledger.client.lookup_transfers(ids)), len(ids), "both legs of all exchanges")
        print(f"  {ledger.judge.summary()}")


def check_card_payments(options):
    """Authorize, capture in part with a fee in a chain, refund, reconcile by the order's id."""
    chance = options.chance("cards")
    card, merchant, fees, refunds = 1, 2, 3, 4
    with books("cards") as ledger:
        ledger.accounts(account(card, LIMITED | A.HISTORY), account(merchant, A.HISTORY),
                        account(fees), account(refunds), account(9))
        ledger.moved(transfer(9, card, 100_000))
        expected = {}
        for order in range(1, options.size(40, 300)):
            amount = chance.randrange(50, 500)
            hold = transfer(card, merchant, amount, T.PENDING, user_data_128=order, code=10,
                            timeout=3600)
            (status,) = ledger.transfers(hold)
            equal(status, "created", "authorization")
            outcome = chance.random()
            if outcome < 0.2:
                ledger.moved(void(hold.id))
                expected[order] = 0
                continue
            captured = chance.randrange(1, amount + 1)
            fee = captured // 50
            statuses = ledger.transfers(*linked(
                post(hold.id, captured), transfer(merchant, fees, fee, code=11,
                                                  user_data_128=order)))
            require(chain_done(statuses), f"capture with fee: {statuses}")
            expected[order] = captured
            if outcome > 0.8:
                ledger.moved(transfer(merchant, card, captured // 2, code=12,
                                      user_data_128=order, user_data_64=order))
                expected[order] -= captured // 2
        for order, moved in expected.items():
            found = ledger.client.query_transfers(query_filter(user_data_128=order))
            total = 0
            for item in found:
                if item.code == 10 and item.flags & T.POST_PENDING_TRANSFER:
                    total += item.amount
                elif item.code == 12:
                    total -= item.amount
            equal(total, moved, f"order {order}, added up from its transfers")
        equal(ledger.balances(card)[1] - ledger.balances(card)[3] + 100_000,
              sum(expected.values()), "what the card paid")
        ledger.verify()


def check_rate_limit_by_holds(_options):
    """Ten requests a second by holds that run out: the eleventh is refused, and later accepted."""
    with books("rate") as ledger:
        ledger.accounts(account(1, LIMITED), account(2))
        ledger.moved(transfer(2, 1, 10))
        taken = [transfer(1, 2, 1, T.PENDING, timeout=1) for _ in range(10)]
        ledger.moved(*taken)
        (status,) = ledger.transfers(transfer(1, 2, 1, T.PENDING, timeout=1))
        if time.time_ns() < taken_until(ledger):
            equal(status, "exceeds_credits", "the eleventh request")
        wait_until(lambda: ledger.balances(1)[0] == 0, "all places are free again")
        ledger.moved(*(transfer(1, 2, 1, T.PENDING, timeout=1) for _ in range(10)))
        ledger.verify()


def taken_until(ledger):
    """When the first of the newest holds runs out, in nanoseconds."""
    (newest,) = ledger.client.get_account_transfers(account_filter(
        1, limit=1, flags=tb.AccountFilterFlags.DEBITS | tb.AccountFilterFlags.REVERSED))
    return newest.timestamp + 900_000_000


def check_conditional_transfer(_options):
    """A payment only if the account has at least 500: reserve, give back, pay, in one chain."""
    with books("conditional") as ledger:
        ledger.accounts(account(1, LIMITED), account(2), account(3))
        ledger.moved(transfer(2, 1, 450))

        def chain():
            check = transfer(1, 3, 500, T.PENDING)
            return linked(check, void(check.id), transfer(1, 2, 10))

        statuses = ledger.transfers(*chain())
        equal(statuses, ["exceeds_credits"] + ["linked_event_failed"] * 2, "with 450")
        ledger.moved(transfer(2, 1, 50))
        ledger.moved(*chain())
        statuses = ledger.transfers(*chain())
        equal(chain_reason(statuses), "exceeds_credits", "with 490")
        equal(ledger.balances(1), (0, 10, 0, 500), "balances")
        ledger.verify()


def check_bounds_on_both_sides(_options):
    """A stock between 0 and 100 by a control account: the recipe for an upper bound."""
    stock, supply, control, desk = 1, 2, 3, 4
    with books("bounds") as ledger:
        ledger.accounts(account(stock, LIMITED), account(supply),
                        account(control, A.CREDITS_MUST_NOT_EXCEED_DEBITS), account(desk))

        def deliver(amount):
            # The control account may take as much as the stock lacks to 100.
            return linked(transfer(supply, stock, amount),
                          transfer(control, desk, 100),
                          probe := transfer(stock, control, tb.AMOUNT_MAX,
                                            T.PENDING | T.BALANCING_DEBIT),
                          void(probe.id),
                          transfer(desk, control, 100))

        require(chain_done(ledger.transfers(*deliver(60))), "60 of 100")
        statuses = ledger.transfers(*deliver(50))
        equal(chain_reason(statuses), "exceeds_debits", "110 of 100")
        require(chain_done(ledger.transfers(*deliver(40))), "100 of 100")
        equal(ledger.balances(stock), (0, 0, 0, 100), "the stock")
        equal(ledger.transfers(transfer(stock, supply, 101)), ["exceeds_credits"], "below 0")
        ledger.verify()


def check_month_end(options):
    """Income is swept into equity by balancing transfers, then all accounts are closed."""
    chance = options.chance("month")
    equity, customers = 1, 2
    incomes = range(10, 30)
    with books("month") as ledger:
        ledger.accounts(account(equity, A.HISTORY), account(customers),
                        *(account(income, LIMITED, code=40) for income in incomes))
        ledger.moved(*(transfer(customers, chance.choice(incomes), chance.randrange(1000))
                       for _ in range(400)))
        total = ledger.balances(customers)[1]
        sweeps = [transfer(income, equity, tb.AMOUNT_MAX, T.BALANCING_DEBIT, code=50,
                           user_data_32=202611) for income in incomes]
        require(chain_done(ledger.transfers(*linked(*sweeps))), "the sweep")
        again = ledger.transfers(*sweeps)
        require(chain_done(again), f"the sweep, sent again: {again}")
        found = ledger.client.query_transfers(query_filter(code=50, user_data_32=202611))
        equal(sum(item.amount for item in found), total, "what was swept")
        equal(ledger.balances(equity), (0, 0, 0, total), "equity")
        for item in ledger.client.query_accounts(query_filter(code=40)):
            equal(item.credits_posted, item.debits_posted, f"account {item.id} is empty")
        closing = [transfer(income, equity, 0, T.PENDING | T.CLOSING_DEBIT) for income in incomes]
        ledger.moved(*closing)
        equal(set(ledger.transfers(*(transfer(customers, income, 1) for income in incomes))),
              {"credit_account_already_closed"}, "a late payment")
        ledger.moved(void(closing[0].id), transfer(customers, incomes[0], 1))
        ledger.verify()


def check_pages(options):
    """Queries and histories in pages of any size, both ways: the same rows, each once."""
    chance = options.chance("pages")
    with books("pages") as ledger:
        ledger.accounts(account(1, A.HISTORY), account(2, A.HISTORY), account(3))
        for _ in range(options.size(8, 40)):
            ledger.moved(*(transfer(*chance.sample((1, 2, 3), 2), chance.randrange(9),
                                    code=1 + chance.randrange(3),
                                    user_data_64=1 + chance.randrange(2),
                                    user_data_32=1 + chance.randrange(3))
                           for _ in range(100)))
        ledger.judge.settle(ledger.client)
        for size in (1, 7, 100, 799, 800, 801, 8189):
            if size == 1 and not options.long:
                size = 13
            for reverse in (False, True):
                rows = ledger.judge.model.account_rows(1, limit=1 << 30, reverse=reverse)
                found = list(paged(ledger.client.get_account_transfers, 1, reverse, size))
                equal_lists([item.id for item in found], [row[0].id for row in rows], "transfers")
                found = list(paged(ledger.client.get_account_balances, 1, reverse, size))
                equal_lists([item.timestamp for item in found],
                            [row[0].timestamp for row in rows], "balances")
        for _ in range(options.size(60, 600)):
            conditions = {name: chance.choice((0, 0, 1, 2, 3))
                          for name in ("user_data_64", "user_data_32", "code")}
            compare_query(ledger, chance, conditions)
        ledger.verify()


def compare_query(ledger, chance, conditions):
    """One random query of transfers and one of an account's, against the model."""
    model = ledger.judge.model
    stamps = sorted(model.transfer_times)
    low, high = sorted((chance.choice(stamps), chance.choice(stamps)))
    limit, reverse = chance.choice((1, 5, 50, 8189)), chance.random() < 0.5
    times = {"timestamp_min": chance.choice((0, low, low + 1)),
             "timestamp_max": chance.choice((0, high, high + 2))}
    flags = tb.QueryFilterFlags.REVERSED if reverse else tb.QueryFilterFlags.NONE
    found = ledger.client.query_transfers(query_filter(ledger=1, limit=limit, flags=flags, **times,
                                                       **conditions))
    wanted = model.query_transfers(ledger=1, limit=limit, reverse=reverse, **times, **conditions)
    equal_lists([item.id for item in found], [item.id for item in wanted],
                f"query {conditions} {times} {limit} {reverse}")
    debits = chance.random() < 0.7
    credits = not debits or chance.random() < 0.5
    sides = tb.AccountFilterFlags.REVERSED if reverse else tb.AccountFilterFlags(0)
    sides |= tb.AccountFilterFlags.DEBITS if debits else sides
    sides |= tb.AccountFilterFlags.CREDITS if credits else sides
    question = account_filter(1, limit=limit, flags=sides, **times, **conditions)
    wanted = model.account_rows(1, limit=limit, reverse=reverse, debits=debits, credits=credits,
                                **times, **conditions)
    found = ledger.client.get_account_transfers(question)
    equal_lists([item.id for item in found], [row[0].id for row in wanted], f"{question}")
    found = ledger.client.get_account_balances(question)
    equal_lists([(item.timestamp, item.debits_posted, item.credits_posted) for item in found],
                [(row[0].timestamp, row[1][1], row[1][3]) for row in wanted], f"{question}")


def check_wallet_is_never_overdrawn(options):
    """Sixteen workers spend from one wallet at once: exactly as many succeed as it can pay."""
    funds = options.size(100, 1000)
    with books("wallet") as ledger:
        ledger.accounts(account(1, LIMITED | A.HISTORY), account(2))
        ledger.moved(transfer(2, 1, funds))
        outcomes = []

        def work():
            with connect(ledger.address) as client:
                for _ in range(funds // 8):
                    outcomes.extend(ledger.judge.create_transfers(client, [transfer(1, 2, 1)]))

        in_threads([work] * 16)
        equal(outcomes.count("created"), funds, "payments")
        equal(set(outcomes), {"created", "exceeds_credits"}, "statuses")
        equal(ledger.balances(1), (0, funds, 0, funds), "the wallet")
        ledger.verify()


def check_ids_in_any_order(options):
    """Ids that rise, fall, and are random, with all bits: each finds its own transfer."""
    chance = options.chance("ids")
    with books("ids") as ledger:
        ledger.accounts(account(1), account(2), account((1 << 128) - 2), account(1 << 64))
        count = options.size(600, 6000)
        made = [tb.id() for _ in range(count)]
        equal(made, sorted(set(made)), "ids of the client rise and differ")
        ids = made + [(1 << 127) - number for number in range(count)] \
            + [chance.randrange(1 << 64, 1 << 128) for _ in range(count)]
        chance.shuffle(ids)
        for start in range(0, len(ids), 1000):
            ledger.moved(*(transfer((1 << 128) - 2, 1 << 64, number % 1000, id=number)
                           for number in ids[start:start + 1000]))
        missing = [number + 1 for number in ids if number + 1 not in set(ids)][:1000]
        equal(ledger.client.lookup_transfers(missing), [], "ids beside those that exist")
        ledger.verify(histories=4)


def check_two_phase_with_user_data(_options):
    """Posts inherit user data, or bring their own; queries find both, and the hold."""
    with books("inherit") as ledger:
        ledger.accounts(account(1), account(2))
        hold = transfer(1, 2, 10, T.PENDING, user_data_128=5, user_data_64=6, user_data_32=7)
        other = dataclasses.replace(hold, id=tb.id())
        ledger.moved(hold, other, post(hold.id, 4), post(other.id, 3, user_data_64=66))
        client = ledger.client
        equal(len(client.query_transfers(query_filter(user_data_128=5))), 4, "of the order")
        equal(len(client.query_transfers(query_filter(user_data_64=66))), 1, "of the capture")
        equal([item.amount for item in client.query_transfers(query_filter(
            user_data_64=6, user_data_32=7, user_data_128=5))], [10, 10, 4], "inherited")
        ledger.verify()
