#!/usr/bin/env python3
"""Tries the recipe of CONCEPTS, "Is my chain done?", on every way in which a chain can end.

Runs in the folder with `chain.py` as the page shows it, against a ledger at port 3000.
"""

import sys

import tigerbeetle as tb

sys.path.insert(0, ".")
from chain import settle  # noqa: E402

STATUS = tb.CreateTransferStatus
LEDGER = 9


class Cases:
    """Accounts of this test, and chains over them."""

    def __init__(self, client):
        self.client = client
        # Without a limit: two to transact; with a limit: an empty one.
        self.left, self.right, self.poor = tb.id(), tb.id(), tb.id()
        limit = tb.AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
        flags = {self.left: 0, self.right: 0, self.poor: limit}
        results = client.create_accounts([tb.Account(id=it, ledger=LEDGER, code=1, flags=flags[it])
                                          for it in flags])
        assert all(it.status == tb.CreateAccountStatus.CREATED for it in results), results

    def chain(self, length, poor_at=None):
        """A chain whose event at a place debits the account without money."""
        return [tb.Transfer(id=tb.id(), amount=5, ledger=LEDGER, code=1,
                            debit_account_id=self.poor if index == poor_at else self.left,
                            credit_account_id=self.right,
                            flags=tb.TransferFlags.LINKED if index < length - 1 else 0)
                for index in range(length)]

    def pay_in(self, amount):
        """Gives the account with a limit something to spend."""
        transfer = tb.Transfer(id=tb.id(), amount=amount, ledger=LEDGER, code=1,
                               debit_account_id=self.left, credit_account_id=self.poor)
        assert self.client.create_transfers([transfer])[0].status == STATUS.CREATED

    def expect(self, what, chain, reason):
        """Asks twice, compares the answer with what is expected and with what is in the books."""
        for _ in range(2):
            seen = settle(self.client, chain)
            assert seen == reason, f"{what}: {seen!r}, expected {reason!r}"
            found = len(self.client.lookup_transfers([it.id for it in chain]))
            assert found == (len(chain) if reason is None else 0), f"{what}: {found} are there"
            if reason is not None:
                reason = STATUS.ID_ALREADY_FAILED if reason == STATUS.EXCEEDS_CREDITS else reason
        print(f"as the page says: {what}")


def main():
    """Tries all cases."""
    with tb.ClientSync(cluster_id=0, replica_addresses="3000") as client:
        cases = Cases(client)
        for length in (1, 2, 3, 100):
            cases.expect(f"a chain of {length}, then again", cases.chain(length), None)
            lost = cases.chain(length)
            client.create_transfers(lost)
            cases.expect(f"a chain of {length} whose answer was lost", lost, None)
        for place in range(3):
            chain = cases.chain(3, poor_at=place)
            cases.expect(f"refused at event {place} for lack of money", chain,
                         STATUS.EXCEEDS_CREDITS)
            # The money comes, the answer to the first attempt was lost: it stays a refusal.
            chain = cases.chain(3, poor_at=place)
            client.create_transfers(chain)
            cases.pay_in(5)
            cases.expect(f"refused at event {place}, and there is money later", chain,
                         STATUS.ID_ALREADY_FAILED)
            # Spend it, for the next round.
            cases.expect("a chain with money", cases.chain(2, poor_at=1), None)
            chain = cases.chain(3)
            chain[place].credit_account_id = chain[place].debit_account_id
            cases.expect(f"never valid at event {place}", chain, STATUS.ACCOUNTS_MUST_BE_DIFFERENT)
        two_places(cases)
        missing_account(cases)
        used_before(cases)
        open_chain(cases)
        phases(cases)


def two_places(cases):
    """The first attempt fails at the last event, the second one at an earlier one."""
    spender = tb.id()
    limit = tb.AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
    cases.client.create_accounts([tb.Account(id=spender, ledger=LEDGER, code=1, flags=limit)])
    for debit, credit in ((cases.left, spender), (spender, cases.right)):
        chain = cases.chain(3, poor_at=2)
        chain[0].debit_account_id = spender
        if debit == cases.left:
            first = chain
            move = tb.Transfer(id=tb.id(), amount=5, ledger=LEDGER, code=1, debit_account_id=debit,
                               credit_account_id=credit)
            cases.client.create_transfers([move])
            assert settle(cases.client, first) == STATUS.EXCEEDS_CREDITS
        else:
            move = tb.Transfer(id=tb.id(), amount=5, ledger=LEDGER, code=1, debit_account_id=debit,
                               credit_account_id=credit)
            cases.client.create_transfers([move])
    cases.expect("refused at the last event, then at the first", first, STATUS.EXCEEDS_CREDITS)


def missing_account(cases):
    """An account comes too late."""
    late = tb.id()
    chain = cases.chain(3)
    chain[1].credit_account_id = late
    cases.client.create_transfers(chain)
    cases.client.create_accounts([tb.Account(id=late, ledger=LEDGER, code=1)])
    cases.expect("an account comes after the first attempt", chain, STATUS.ID_ALREADY_FAILED)


def used_before(cases):
    """Ids that are not the chain's own."""
    for place in range(3):
        chain = cases.chain(3)
        alone = cases.chain(1)[0]
        alone.id = chain[place].id
        chain_status = (STATUS.EXISTS_WITH_DIFFERENT_FLAGS if chain[place].flags else STATUS.EXISTS)
        assert cases.client.create_transfers([alone])[0].status == STATUS.CREATED
        seen = settle(cases.client, chain)
        assert seen == chain_status, f"{place}: {seen!r}"
    # The same first event, of another chain: its flags are the same, too.
    chain, other = cases.chain(3), cases.chain(3)
    other[0].id = chain[0].id
    assert settle(cases.client, other) is None
    try:
        settle(cases.client, chain)
        raise AssertionError("an id that was used in another chain was not noticed")
    except ValueError:
        print("as the page says: an id of another chain")


def open_chain(cases):
    """The last event has the flag, too."""
    chain = cases.chain(3)
    chain[2].flags = tb.TransferFlags.LINKED
    cases.expect("a chain without an end", chain, STATUS.LINKED_EVENT_CHAIN_OPEN)


def phases(cases):
    """Chains that reserve, and chains that post: also when the reservation is over."""
    holds = cases.chain(2)
    for hold in holds:
        hold.flags |= tb.TransferFlags.PENDING
    cases.expect("a chain of holds", holds, None)
    posts = [tb.Transfer(id=tb.id(), amount=3, pending_id=hold.id,
                         flags=tb.TransferFlags.POST_PENDING_TRANSFER) for hold in holds]
    posts[0].flags |= tb.TransferFlags.LINKED
    cases.expect("a chain of posts", posts, None)
    cases.expect("a chain of holds that are posted", holds, None)
    again = [tb.Transfer(id=tb.id(), amount=3, pending_id=hold.id,
                         flags=tb.TransferFlags.POST_PENDING_TRANSFER) for hold in holds]
    again[0].flags |= tb.TransferFlags.LINKED
    cases.expect("a second chain of posts", again, STATUS.PENDING_TRANSFER_ALREADY_POSTED)


if __name__ == "__main__":
    main()
