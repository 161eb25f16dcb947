"""Answers that get lost on the way, and clients that send again: nothing is done twice.

A proxy loses answers, holds them back and cuts connections. The official client repeats a request
by itself as long as it lives. An application that starts anew repeats with the same ids.
"""

import asyncio
import threading
import time

import tigerbeetle as tb

from harness.checks import CheckFailed, equal, require
from harness.proxy import DOWN, UP, Proxy
from harness.recipes import chain_done, chain_reason, documented_settle

from .requests import Requests
from .world import A, account, books, connect, in_threads, linked, transfer


def check_lost_answers_are_repeated_by_the_client(options):
    """Answers lost and connections cut under three clients: every batch happens once."""
    chance = options.chance("lost answers")
    with books("lost") as ledger:
        proxies = [Proxy(ledger.server.port) for _ in range(3)]
        rounds = options.size(40, 200)

        def lost():
            return sum(proxy.lost[DOWN] for proxy in proxies)

        def work(number):
            requests = Requests(options.chance(f"lost {number}"), (number + 1) << 64)
            with connect(proxies[number].address) as client:
                ledger.judge.create_accounts(client, requests.accounts)
                ledger.judge.create_transfers(client, requests.funding())
                count = 0
                while count < rounds or lost() == 0:
                    requests.send(ledger.judge, client, 5)
                    count += 1

        def spoil():
            while not done:
                proxy = chance.choice(proxies)
                fault = chance.choice((proxy.cut, lambda: proxy.lose(DOWN),
                                       lambda: proxy.lose(UP), lambda: proxy.hold(DOWN)))
                fault()
                quiet.wait(chance.random() * 0.05)
                proxy.heal()
                quiet.wait(chance.random() * 0.2)

        quiet, done = threading.Event(), []

        def all_work():
            try:
                in_threads([lambda number=number: work(number) for number in range(3)])
            finally:
                done.append(True)
                quiet.set()

        in_threads([all_work, spoil])
        cuts = sum(proxy.cuts for proxy in proxies)
        require(cuts > 0, "no connection was cut")
        require(lost() > 0, "no answer was lost")
        ledger.verify()
        for proxy in proxies:
            proxy.close()
        print(f"  {cuts} cuts, {lost()} bytes of answers lost; {ledger.judge.summary()}")


def lose_answer(ledger, events):
    """Has a batch executed for an application that ends before it sees the answer."""
    proxy = Proxy(ledger.server.port)

    async def work():
        client = tb.ClientAsync(cluster_id=0, replica_addresses=proxy.address)
        # The session must be there: only the answer of the transfers is lost.
        await client.lookup_accounts([1])
        proxy.lose(DOWN)
        task = asyncio.create_task(client.create_transfers(events))
        while proxy.lost[DOWN] < 256 + 16 * len(events):
            await asyncio.sleep(0.01)
        await client.close()
        try:
            await task
        except tb.ClientClosedError:
            return
        raise CheckFailed("the answer came although it was lost")

    asyncio.run(work())
    proxy.close()


def statuses_of(ledger, events):
    """The statuses of a batch that the judge does not see."""
    return [result.status.name.lower() for result in ledger.client.create_transfers(events)]


def check_application_restarts_and_sends_again(options):
    """An application that lost its answer and starts anew sends the same ids: exists."""
    with books("again") as ledger:
        ledger.accounts(account(1), account(2))
        for count in range(1, options.size(6, 40)):
            events = [transfer(1, 2, 10 + number) for number in range(count)]
            lose_answer(ledger, events)
            statuses = statuses_of(ledger, events)
            equal(statuses, ["exists"] * count, "statuses of the second attempt")
            found = ledger.client.lookup_transfers([event.id for event in events])
            equal([item.amount for item in found], [event.amount for event in events], "amounts")
        total = sum(10 + number for count in range(1, options.size(6, 40))
                    for number in range(count))
        equal(ledger.balances(1), (0, total, 0, 0), "what was moved once")


def check_retried_chain(_options):
    """A retried chain answers `exists, linked_event_failed`: the recipe says that it is done."""
    with books("chain") as ledger:
        ledger.accounts(account(1), account(2), account(3, A.DEBITS_MUST_NOT_EXCEED_CREDITS))
        chain = linked(transfer(1, 2, 100), transfer(1, 2, 5), transfer(2, 1, 1))
        lose_answer(ledger, chain)
        for _ in range(3):
            statuses = statuses_of(ledger, chain)
            equal(statuses, ["exists", "linked_event_failed", "linked_event_failed"],
                  "statuses of a retried chain")
            require(chain_done(statuses), "the recipe says that the chain did not happen")
        equal(ledger.balances(1), (0, 105, 0, 1), "the chain happened once")
        broken = linked(transfer(1, 2, 100), transfer(3, 2, 1), transfer(2, 1, 1))
        statuses = statuses_of(ledger, broken)
        equal(statuses, ["linked_event_failed", "exceeds_credits", "linked_event_failed"],
              "statuses of a chain that fails")
        require(not chain_done(statuses), "the recipe says that a failed chain happened")
        equal(chain_reason(statuses), "exceeds_credits", "reason")
        statuses = statuses_of(ledger, broken)
        equal(statuses, ["linked_event_failed", "id_already_failed", "linked_event_failed"],
              "statuses of its retry")
        require(not chain_done(statuses), "the recipe says that a failed chain happened")
        foreign = linked(transfer(1, 2, 9), chain[0])
        statuses = statuses_of(ledger, foreign)
        require(not chain_done(statuses), f"a chain with a foreign id: {statuses}")
        equal(ledger.balances(1), (0, 105, 0, 1), "balances")


def check_documented_recipe(_options):
    """The recipe "is my chain done?" of CONCEPTS, whenever the answer was lost."""
    settle = documented_settle()
    with books("recipe") as ledger:
        ledger.accounts(account(1), account(2), account(3, A.DEBITS_MUST_NOT_EXCEED_CREDITS))
        for length in (1, 2, 5):
            chain = linked(*(transfer(1, 2, 1) for _ in range(length)))
            lose_answer(ledger, chain)
            for _ in range(2):
                equal(settle(ledger.client, chain), None, f"a chain of {length}, sent again")
            fresh = linked(*(transfer(1, 2, 1) for _ in range(length)))
            for _ in range(2):
                equal(settle(ledger.client, fresh), None, f"a chain of {length}")
            poor = linked(*(transfer(1, 2, 1) for _ in range(length)), transfer(3, 1, 1))
            lose_answer(ledger, poor)
            equal(settle(ledger.client, poor), tb.CreateTransferStatus.ID_ALREADY_FAILED,
                  "a chain that was refused, sent again")
            equal(ledger.client.lookup_transfers([event.id for event in poor]), [],
                  "transfers of the refused chain")
        equal(ledger.balances(1), (0, 16, 0, 0), "what was moved")


def check_refusal_stays_a_refusal(_options):
    """A refusal whose answer was lost stays a refusal when money has come since."""
    with books("refusal") as ledger:
        ledger.accounts(account(1, A.DEBITS_MUST_NOT_EXCEED_CREDITS), account(2))
        payment = transfer(1, 2, 100)
        lose_answer(ledger, [payment])
        equal(ledger.client.create_transfers([transfer(2, 1, 500)])[0].status,
              tb.CreateTransferStatus.CREATED, "money in")
        for _ in range(2):
            (result,) = ledger.client.create_transfers([payment])
            equal(result.status.name, "ID_ALREADY_FAILED", "status of the retry")
        equal(ledger.client.lookup_transfers([payment.id]), [], "the refused payment")
        again = transfer(1, 2, 100)
        (result,) = ledger.client.create_transfers([again])
        equal(result.status.name, "CREATED", "a new attempt with a new id")


def check_server_restarts_between_attempts(options):
    """The server is killed between attempts: what was done answers `exists` afterwards."""
    with books("killed") as ledger:
        ledger.accounts(account(1), account(2))
        for _ in range(options.size(3, 20)):
            events = [transfer(1, 2, 1) for _ in range(5)]
            chain = linked(*(transfer(1, 2, 1) for _ in range(3)))
            ledger.moved(*events)
            ledger.moved(*chain)
            ledger.server.kill()
            ledger.server.start()
            equal(ledger.transfers(*events), ["exists"] * 5, "statuses after the kill")
            statuses = ledger.transfers(*chain)
            equal(statuses, ["exists"] + ["linked_event_failed"] * 2, "statuses of the chain")
        ledger.verify()


def check_kills_under_random_requests(options):
    """The server is killed again and again under four clients: every answer stays true."""
    with books("kills") as ledger:
        shared = Requests(options.chance("kills"), 1 << 64, accounts=12)
        ledger.accounts(*shared.accounts)
        ledger.transfers(*shared.funding())
        done = []

        def work(number):
            requests = Requests(options.chance(f"kills {number}"), (number + 2) << 64,
                                timeouts=(0, 1, 2))
            requests.accounts = shared.accounts
            with connect(ledger.address) as client:
                while not done:
                    requests.send(ledger.judge, client, requests.chance.randrange(1, 20))

        def kill():
            chance = options.chance("when")
            try:
                for _ in range(options.size(5, 40)):
                    time.sleep(0.2 + chance.random() / 2)
                    ledger.server.kill()
                    ledger.server.start()
            finally:
                done.append(True)

        in_threads([kill, *(lambda number=number: work(number) for number in range(4))])
        ledger.verify(histories=12)
        print(f"  {ledger.judge.summary()}")
