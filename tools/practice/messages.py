"""What fits into a message: chains, several batches, the largest and the smallest."""

import dataclasses

import tigerbeetle as tb

from harness import wire
from harness.checks import equal, raises, require
from harness.judge import account_filter, query_filter
from harness.records import pack
from harness.recipes import chain_done, chain_reason

from .requests import Requests
from .world import (A, BATCH_PRODUCTION, T, account, books, connect, in_threads, linked, post,
                    transfer, void)


def check_chains_of_holds_up_to_the_largest_batch(options):
    """Chains of holds up to 8,189, their posts in one chain, and one that fails at its end."""
    lengths = options.size((1, 2, 100, BATCH_PRODUCTION), (1, 2, 3, 1000, 4096, 8188, 8189))
    with books("chains", development=False) as ledger:
        ledger.accounts(account(1, A.HISTORY), account(2),
                        account(3, A.DEBITS_MUST_NOT_EXCEED_CREDITS), account(4))
        for length in lengths:
            holds = linked(*(transfer(1, 2, 1 + number % 7, T.PENDING) for number in range(length)))
            statuses = ledger.transfers(*holds)
            equal(set(statuses), {"created"}, f"statuses of {length} holds")
            require(chain_done(statuses), "the recipe says that the chain did not happen")
            statuses = ledger.transfers(*holds)
            equal(statuses, ["exists"] + ["linked_event_failed"] * (length - 1), "the same again")
            require(chain_done(statuses), "the recipe says that the chain did not happen")
            wrong = linked(*(post(hold.id) for hold in holds[:-1]), post(tb.id()))
            statuses = ledger.transfers(*wrong)
            equal(chain_reason(statuses), "pending_transfer_not_found", f"reason at {length}")
            right = linked(*(post(hold.id) if number % 2 else void(hold.id)
                             for number, hold in enumerate(holds)))
            equal(set(ledger.transfers(*right)), {"created"}, f"statuses of {length} posts")
        ledger.verify(histories=1)
        funds = [transfer(4, 3, 1_000_000)]
        ledger.moved(*funds)
        spending = linked(*(transfer(3, 4, 1_000_000 // 8188) for _ in range(8188)),
                          transfer(3, 4, 1_000_000))
        equal(chain_reason(ledger.transfers(*spending)), "exceeds_credits", "a chain too dear")
        equal(ledger.balances(3), (0, 0, 0, 1_000_000), "all of it was undone")
        ledger.verify(histories=0)


def check_open_chains_in_shared_messages(options):
    """Callers of one client, whose batches travel together: an open chain reaches nobody else."""
    with books("shared") as ledger:
        first = Requests(options.chance("shared"), 1 << 64)
        ledger.accounts(*first.accounts)
        ledger.transfers(*first.funding())

        def work(number):
            requests = Requests(options.chance(f"shared {number}"), (number + 2) << 64)
            requests.accounts = first.accounts
            for turn in range(options.size(15, 100)):
                events = requests.batch(1 + (number + turn) % 4)
                if turn % 3 == 0:
                    events[-1].flags |= T.LINKED
                statuses = ledger.judge.create_transfers(ledger.client, events)
                if turn % 3 == 0:
                    equal(statuses[-1], "linked_event_chain_open", "the end of an open chain")

        in_threads([lambda number=number: work(number) for number in range(12)])
        ledger.verify(histories=10)
        print(f"  {ledger.judge.summary()}")


@dataclasses.dataclass
class RawResult:
    """A result as the judge takes it."""

    status: tb.CreateTransferStatus
    timestamp: int


def packed(event):
    """The bytes of a transfer."""
    return pack("transfer", {name: int(value) for name, value in
                             dataclasses.asdict(event).items()})


def check_several_batches_in_one_message(options):
    """Messages of many batches, some empty, some with open chains: each is judged by itself."""
    chance = options.chance("several")
    with books("several") as ledger, wire.RawClient(ledger.server.port).register() as raw:
        requests = Requests(options.chance("several requests"), 1 << 64)
        ledger.accounts(*requests.accounts)
        ledger.transfers(*requests.funding())
        for _ in range(options.size(25, 200)):
            batches = [requests.batch(chance.randrange(0, 6)) for _ in range(chance.randrange(1, 9))]
            for events in batches:
                if events and chance.random() < 0.3:
                    events[-1].flags |= T.LINKED
            body = wire.encode_batches(128, [b"".join(map(packed, events)) for events in batches])
            answer = wire.decode_batches(16, raw.request(wire.CREATE_TRANSFERS, body))
            equal(len(answer), len(batches), "batches of the answer")
            for events, part in zip(batches, answer):
                results = [RawResult(tb.CreateTransferStatus(status), timestamp)
                           for status, timestamp in wire.results(part)]
                ledger.judge.note("transfers", events, results)
        ledger.verify(histories=10)
        print(f"  {ledger.judge.summary()}")


def check_duplicates_in_one_batch(_options):
    """The same id twice and thrice in one batch, in and out of chains, also changed."""
    with books("twice") as ledger:
        ledger.accounts(account(1), account(2))
        equal(ledger.judge.create_accounts(ledger.client, [account(3), account(3),
                                                           account(3, code=2)]),
              ["created", "exists", "exists_with_different_code"], "accounts")
        one = transfer(1, 2, 5)
        other = dataclasses.replace(one, amount=6)
        equal(ledger.transfers(one, one, other), ["created", "exists",
                                                  "exists_with_different_amount"], "transfers")
        chain = [transfer(1, 2, 7, T.LINKED), transfer(1, 2, 8)]
        again = dataclasses.replace(chain[0], flags=T.NONE)
        equal(ledger.transfers(chain[0], again), ["linked_event_failed",
                                                  "exists_with_different_flags"], "in a chain")
        equal(ledger.transfers(*chain, *chain, again),
              ["created", "created", "exists", "linked_event_failed",
               "exists_with_different_flags"], "a chain twice in one batch")
        hold = transfer(1, 2, 9, T.PENDING)
        taking = post(hold.id)
        equal(ledger.transfers(hold, taking, taking, post(hold.id), void(hold.id)),
              ["created", "created", "exists", "pending_transfer_already_posted",
               "pending_transfer_already_posted"], "a hold and its post twice")
        ledger.verify()


def check_largest_and_empty_batches(options):
    """8,189 events of every kind with duplicates and mistakes among them; 8,190 and none at all."""
    chance = options.chance("largest")
    with books("largest", development=False) as ledger:
        accounts = [account(1 + number, A.HISTORY if number < 3 else A.NONE, user_data_32=7)
                    for number in range(BATCH_PRODUCTION)]
        ledger.accounts(*accounts)
        events = [transfer(1 + chance.randrange(3), 4 + chance.randrange(9000), chance.randrange(9),
                           chance.choice((T.NONE, T.NONE, T.PENDING, T.LINKED)), user_data_32=9)
                  for _ in range(BATCH_PRODUCTION)]
        for index in range(0, BATCH_PRODUCTION, 97):
            events[index] = dataclasses.replace(events[index // 2])
        ledger.transfers(*events)
        ledger.verify(histories=4)
        found = ledger.client.query_transfers(query_filter(user_data_32=9))
        wanted = ledger.judge.model.query_transfers(limit=BATCH_PRODUCTION, user_data_32=9)
        equal([item.id for item in found], [item.id for item in wanted], "transfers by user data")
        equal(len(ledger.client.query_accounts(query_filter(user_data_32=7))), BATCH_PRODUCTION,
              "accounts by user data")
        client = ledger.client
        for call, sample in ((client.create_accounts, account(1)),
                             (client.create_transfers, transfer(1, 2, 1)),
                             (client.lookup_accounts, 1), (client.lookup_transfers, 1)):
            equal(call([]), [], "answer to an empty batch")
            raises(tb.TooMuchDataError, lambda call=call, sample=sample:
                   call([sample] * (BATCH_PRODUCTION + 1)), "a batch of 8,190")
        raises(tb.TooMuchDataError, lambda: client.get_account_transfers(
            account_filter(1, limit=BATCH_PRODUCTION + 1)), "a limit of 8,190")
        equal(client.get_account_transfers(account_filter(1, limit=0)), [], "limit 0")
        ledger.verify(histories=0)


def check_development_batches(_options):
    """The largest batch that a ledger for development takes, and one more."""
    with books("small") as ledger:
        ledger.accounts(account(1), account(2))
        ledger.moved(*(transfer(1, 2, 1) for _ in range(ledger.batch_max)))
        equal(ledger.balances(1), (0, ledger.batch_max, 0, 0), "balances")
        with connect(ledger.address) as client:
            raises(tb.TooMuchDataError, lambda: client.create_transfers(
                [transfer(1, 2, 1) for _ in range(ledger.batch_max + 1)]), "one more")
        ledger.verify()
