"""Random requests that an application might send, right or wrong, over accounts of all kinds.

The requests only have to be interesting: whether they are accepted is for the model to say.
"""

import dataclasses

import tigerbeetle as tb

from .world import A, T, account

LIMITS = (A.NONE, A.NONE, A.DEBITS_MUST_NOT_EXCEED_CREDITS, A.CREDITS_MUST_NOT_EXCEED_DEBITS)
AMOUNTS = (0, 1, 2, 5, 10, 50, 100, 500)


class Requests:
    """Random batches over a few accounts, with ids that begin at `first`."""

    def __init__(self, chance, first, accounts=10, timeouts=(0,), ledgers=(1,)):
        self.chance = chance
        self.next_id = first
        self.timeouts = timeouts
        self.accounts = [account(first + number, flags=LIMITS[number % len(LIMITS)] | A.HISTORY,
                                 ledger=ledgers[number % len(ledgers)], code=1 + number % 3,
                                 user_data_32=1 + number % 5)
                         for number in range(accounts)]
        self.next_id += accounts
        # Ids of transfers that were sent, and of those that reserve.
        self.sent = []
        self.holds = []

    def funding(self, amount=800):
        """Transfers that give limited accounts something to move, from an account without limits
        that comes first in its ledger."""
        sources = {}
        for item in self.accounts:
            if not item.flags & (A.DEBITS_MUST_NOT_EXCEED_CREDITS
                                 | A.CREDITS_MUST_NOT_EXCEED_DEBITS):
                sources.setdefault(item.ledger, item)
        events = []
        for item in self.accounts:
            source = sources.get(item.ledger)
            if source is None or item is source:
                continue
            debit, credit = source, item
            if item.flags & A.CREDITS_MUST_NOT_EXCEED_DEBITS:
                debit, credit = item, source
            events.append(tb.Transfer(id=self.new_id(), debit_account_id=debit.id,
                                      credit_account_id=credit.id, amount=amount,
                                      ledger=item.ledger, code=9))
        return events

    def send(self, judge, client, size):
        """Sends the next batch, and forgets the holds that were refused."""
        events = self.batch(size)
        statuses = judge.create_transfers(client, events)
        refused = {event.id for event, status in zip(events, statuses) if status != "created"}
        self.holds = [hold for hold in self.holds if hold.id not in refused]

    def batch(self, size):
        """The next batch."""
        events = []
        while len(events) < size:
            if self.chance.random() < 0.15:
                events += self.chain(self.chance.randrange(2, 6))
            else:
                events.append(self.event())
        return events

    def chain(self, length):
        """A chain; of twenty, one stays open if nothing follows."""
        events = [self.event() for _ in range(length)]
        for event in events[:-1]:
            event.flags |= T.LINKED
        if self.chance.random() < 0.05:
            events[-1].flags |= T.LINKED
        return events

    def event(self):
        """One transfer of any kind."""
        kind = self.chance.random()
        if kind < 0.25 and self.holds:
            return self.resolution()
        if kind < 0.30 and self.sent:
            return self.repetition()
        event = self.movement()
        if kind > 0.97:
            self.spoil(event)
        self.sent.append(event)
        return event

    def new_id(self):
        """An id that was not used."""
        self.next_id += 1
        return self.next_id

    def movement(self):
        """A transfer, or a hold."""
        chance = self.chance
        debit, credit = chance.sample(self.accounts, 2)
        while debit.ledger != credit.ledger and chance.random() < 0.95:
            debit, credit = chance.sample(self.accounts, 2)
        event = tb.Transfer(id=self.new_id(), debit_account_id=debit.id,
                            credit_account_id=credit.id, amount=chance.choice(AMOUNTS),
                            ledger=debit.ledger, code=1 + chance.randrange(5),
                            user_data_64=chance.randrange(4), user_data_32=chance.randrange(3))
        if chance.random() < 0.35:
            event.flags |= T.PENDING
            event.timeout = chance.choice(self.timeouts)
            if chance.random() < 0.02:
                event.timeout = event.timeout or max(self.timeouts)
                event.flags |= chance.choice((T.CLOSING_DEBIT, T.CLOSING_CREDIT))
                event.amount = chance.choice((0, event.amount))
            self.holds.append(event)
        if chance.random() < 0.12:
            event.flags |= chance.choice((T.BALANCING_DEBIT, T.BALANCING_CREDIT,
                                          T.BALANCING_DEBIT | T.BALANCING_CREDIT))
            event.amount = chance.choice((event.amount, tb.AMOUNT_MAX))
        return event

    def resolution(self):
        """Posts or voids a hold, mostly a new one."""
        chance = self.chance
        newest = len(self.holds) - 1
        hold = self.holds[max(0, newest - int(chance.expovariate(0.2)))]
        closing = [hold for hold in self.holds
                   if hold.flags & (T.CLOSING_DEBIT | T.CLOSING_CREDIT)]
        if closing and chance.random() < 0.4:
            hold = chance.choice(closing)
        event = tb.Transfer(id=self.new_id(), pending_id=hold.id)
        if chance.random() < (0.1 if hold in closing else 0.6):
            event.flags = T.POST_PENDING_TRANSFER
            event.amount = chance.choice((tb.AMOUNT_MAX, hold.amount, hold.amount // 2,
                                          min(hold.amount + 1, tb.AMOUNT_MAX), 0))
        else:
            event.flags = T.VOID_PENDING_TRANSFER
            event.amount = chance.choice((0, 0, hold.amount, hold.amount // 2))
        if chance.random() < 0.1:
            event.debit_account_id = chance.choice((hold.debit_account_id,
                                                    hold.credit_account_id))
        if chance.random() < 0.1:
            event.user_data_64 = 1 + chance.randrange(4)
        self.sent.append(event)
        return event

    def repetition(self):
        """Something that was sent before, sometimes changed."""
        newest = len(self.sent) - 1
        earlier = self.sent[max(0, newest - int(self.chance.expovariate(0.05)))]
        event = dataclasses.replace(earlier)
        if self.chance.random() < 0.5:
            event.flags &= ~T.LINKED
        if self.chance.random() < 0.3:
            name = self.chance.choice(("amount", "code", "user_data_64", "debit_account_id"))
            setattr(event, name, getattr(event, name) + 1
                    if getattr(event, name) < tb.AMOUNT_MAX else 0)
        return event

    def spoil(self, event):
        """Makes one mistake."""
        mistakes = (("id", 0), ("id", tb.AMOUNT_MAX), ("ledger", 0), ("ledger", 77), ("code", 0),
                    ("debit_account_id", 0), ("credit_account_id", 1 << 100),
                    ("debit_account_id", tb.AMOUNT_MAX), ("timestamp", 5),
                    ("credit_account_id", event.debit_account_id), ("pending_id", 9),
                    ("timeout", 4_294_967_295), ("amount", tb.AMOUNT_MAX))
        name, value = self.chance.choice(mistakes)
        setattr(event, name, value)
