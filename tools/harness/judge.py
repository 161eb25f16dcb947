"""Judges what a cluster answered: replays all batches in the order of their timestamps in the model.

Every answered batch says by its timestamps when it was executed. So batches of any number of
concurrent clients have one order, and the model says what each event must have been answered.
Expiries happen when the server carries them out; change events say when.
"""

import collections
import dataclasses
import threading
import time

import tigerbeetle as tb

from . import model as rules
from . import wire
from .checks import CheckFailed, equal, equal_lists, require
from .records import pack, submit, unpack

EVENTS_MAX = 1000
LOOKUP_MAX = 1000
PAGE = 37
REST_SECONDS = 60
ACCOUNT_FIELDS = [field.name for field in dataclasses.fields(rules.Account)]
TRANSFER_FIELDS = [field.name for field in dataclasses.fields(rules.Transfer)
                   if field.name != "resolution"]


def change_events(client, timestamp_min=0, timestamp_max=0):
    """Returns all change events in a range as dictionaries, page by page."""
    found = []
    while True:
        question = pack("change_events_filter", {"timestamp_min": timestamp_min,
                                                 "timestamp_max": timestamp_max,
                                                 "limit": EVENTS_MAX})
        page = [unpack("change_event", record) for record in
                submit(client, wire.GET_CHANGE_EVENTS, [question], 64, 384)]
        found += page
        if len(page) < EVENTS_MAX:
            return found
        timestamp_min = page[-1]["timestamp"] + 1


def account_filter(account_id, **fields):
    """An account filter; both sides and a full page unless given."""
    values = {"user_data_128": 0, "user_data_64": 0, "user_data_32": 0, "code": 0,
              "timestamp_min": 0, "timestamp_max": 0, "limit": wire_limit(),
              "flags": tb.AccountFilterFlags.DEBITS | tb.AccountFilterFlags.CREDITS, **fields}
    return tb.AccountFilter(account_id=account_id, **values)


def query_filter(**fields):
    """A query filter; a full page unless given."""
    values = {"user_data_128": 0, "user_data_64": 0, "user_data_32": 0, "ledger": 0, "code": 0,
              "timestamp_min": 0, "timestamp_max": 0, "limit": wire_limit(),
              "flags": tb.QueryFilterFlags.NONE, **fields}
    return tb.QueryFilter(**values)


def wire_limit():
    """The largest number of records in one answer."""
    return 8189


def values_of(record, names):
    """Fields of a record of the client or of the model, as plain numbers."""
    return {name: int(getattr(record, name)) for name in names}


def status_of(result):
    """The status of a result as the rules name it."""
    return result.status.name.lower()


@dataclasses.dataclass
class Batch:
    """One answered batch."""

    kind: str
    events: list
    results: list
    # The commit timestamp, or a moment close to it if no result tells it.
    commit: int
    exact: bool


def commit_of(kind, events, results):
    """Returns the commit timestamp that the results imply, or none."""
    imported = rules.ACCOUNT_IMPORTED if kind == "accounts" else rules.TRANSFER_IMPORTED
    for index, (event, result) in enumerate(zip(events, results)):
        status = status_of(result)
        given = status == "exists" or (int(event.flags) & imported
                                       and status in ("created", "linked_event_failed"))
        if not given:
            return result.timestamp + len(events) - 1 - index
    return None


class Judge:
    """Collects answered batches of all clients and judges them when the cluster is quiet."""

    def __init__(self):
        self.model = rules.Model()
        self.waiting = []
        # How often each status was right.
        self.statuses = collections.Counter()
        self.last_commit = 0
        self.expiry_floor = 0
        self.lock = threading.Lock()

    def create_accounts(self, client, events):
        """Sends accounts and keeps the answer to be judged; returns the statuses."""
        return self._create("accounts", client.create_accounts, events)

    def create_transfers(self, client, events):
        """Sends transfers and keeps the answer to be judged; returns the statuses."""
        return self._create("transfers", client.create_transfers, events)

    def _create(self, kind, call, events):
        results = call(events)
        self.note(kind, events, results)
        return [status_of(result) for result in results]

    def note(self, kind, events, results):
        """Keeps an answered batch to be judged."""
        equal(len(results), len(events), f"results of a batch of {kind}")
        if not events:
            return
        commit = commit_of(kind, events, results)
        exact = commit is not None
        if not exact:
            newest = max(result.timestamp for result in results)
            with self.lock:
                earlier = max((batch.commit for batch in self.waiting),
                              default=self.last_commit)
            commit = max(newest, earlier) + 1
        batch = Batch(kind, [dataclasses.replace(event) for event in events], list(results),
                      commit, exact)
        with self.lock:
            self.waiting.append(batch)

    def settle(self, client):
        """Judges everything answered so far. No other client may be at work."""
        expiries = [event for event in change_events(client, self.expiry_floor)
                    if event["type"] == 4]
        if expiries:
            self.expiry_floor = expiries[-1]["timestamp"] + 1
        steps = [(batch.commit, 0, batch) for batch in self.waiting]
        steps += [(event["timestamp"], 1, event) for event in expiries]
        steps.sort(key=lambda step: step[:2])
        self.waiting = []
        for when, is_expiry, step in steps:
            if is_expiry:
                try:
                    self.model.expire(step["transfer_id"], when)
                except ValueError as error:
                    raise CheckFailed(str(error)) from None
            else:
                self._judge(step)
        self.model.check_invariants()

    def _judge(self, batch):
        """Compares the answers of one batch with those of the model."""
        first = batch.commit - len(batch.events) + 1
        if batch.exact:
            require(first > self.last_commit, f"a batch of {len(batch.events)} at {batch.commit} "
                    f"overlaps the one before, of {self.last_commit}")
            self.last_commit = batch.commit
        create = getattr(self.model, f"create_{batch.kind}")
        expected = create(batch.events, batch.commit)
        for index, (event, result, (status, timestamp)) in enumerate(
                zip(batch.events, batch.results, expected)):
            what = f"event {index} of {len(batch.events)} at {batch.commit}: {event}"
            equal(status_of(result), status, what)
            equal(result.timestamp, timestamp, f"timestamp of {what}")
            self.statuses[status] += 1

    def rest(self, client):
        """Judges everything answered, and waits until no hold runs out within the next minute."""
        self.settle(client)
        deadline = time.monotonic() + 2 * REST_SECONDS
        while self.model.due(time.time_ns() + REST_SECONDS * rules.SECOND):
            require(time.monotonic() < deadline, "holds that should have run out are still open: "
                    f"{self.model.due(time.time_ns())[:5]}")
            time.sleep(0.1)
            self.settle(client)

    def compare(self, client, histories=8):
        """Compares everything that can be read with the model, after `rest`."""
        self.rest(client)
        self.compare_accounts(client)
        self.compare_transfers(client)
        self.compare_events(client)
        for account_id in list(self.model.accounts)[:histories]:
            self.compare_history(client, account_id)

    def compare_accounts(self, client):
        """All accounts by id."""
        compare_lookups(client.lookup_accounts, self.model.accounts, ACCOUNT_FIELDS, "accounts")

    def compare_transfers(self, client):
        """All transfers by id, and none of those whose ids are burnt."""
        compare_lookups(client.lookup_transfers, self.model.transfers, TRANSFER_FIELDS,
                        "transfers")
        burnt = sorted(self.model.burnt)[:LOOKUP_MAX]
        equal(client.lookup_transfers(burnt), [], "transfers that failed")

    def compare_events(self, client):
        """The whole stream of changes, with the balances after each event."""
        expected = sorted(self.model.events, key=lambda event: event.timestamp)
        found = change_events(client)
        equal_lists([event_values(event) for event in found],
                    [wanted_values(event, self.model) for event in expected], "change events")

    def compare_history(self, client, account_id):
        """An account's transfers, and its balances after each of them, in pages of either order."""
        for reverse in (False, True):
            rows = self.model.account_rows(account_id, limit=1 << 30, reverse=reverse)
            found = list(paged(client.get_account_transfers, account_id, reverse))
            equal_lists([transfer.id for transfer in found], [row[0].id for row in rows],
                        f"transfers of account {account_id}")
            if not self.model.accounts[account_id].flags & rules.HISTORY:
                rows = []
            found = list(paged(client.get_account_balances, account_id, reverse))
            equal_lists([(row.timestamp, (row.debits_pending, row.debits_posted,
                                          row.credits_pending, row.credits_posted))
                         for row in found],
                        [(transfer.timestamp, balances) for transfer, balances in rows],
                        f"balances of account {account_id}")

    def summary(self):
        """How much was judged, for a person who looks at the output."""
        kinds = collections.Counter(rules.EVENT_TYPES[event.kind] for event in self.model.events)
        common = ", ".join(f"{count} {name}" for name, count in self.statuses.most_common(4))
        return (f"{self.statuses.total()} events judged, {len(self.statuses)} statuses ({common});"
                f" {', '.join(f'{count} {name}' for name, count in sorted(kinds.items()))}")


def compare_lookups(lookup, records, fields, what):
    """Looks up all records of the model by id, and compares these fields of each."""
    wanted = list(records.values())
    for start in range(0, len(wanted), LOOKUP_MAX):
        part = wanted[start:start + LOOKUP_MAX]
        found = lookup([record.id for record in part])
        equal_lists([values_of(record, fields) for record in found],
                    [values_of(record, fields) for record in part], f"{what} by id")


def paged(call, account_id, reverse, size=PAGE):
    """Reads all of an account in pages: the next one begins after the last timestamp."""
    flags = tb.AccountFilterFlags.DEBITS | tb.AccountFilterFlags.CREDITS
    if reverse:
        flags |= tb.AccountFilterFlags.REVERSED
    low = high = 0
    while True:
        page = call(account_filter(account_id, flags=flags, limit=size, timestamp_min=low,
                                   timestamp_max=high))
        yield from page
        if len(page) < size:
            return
        if reverse:
            high = page[-1].timestamp - 1
        else:
            low = page[-1].timestamp + 1


def event_values(event):
    """What is compared of a change event as read."""
    names = ("debits_pending", "debits_posted", "credits_pending", "credits_posted", "flags")
    return {"type": event["type"], "timestamp": event["timestamp"],
            "transfer": {name: event[f"transfer_{name}"] for name in
                         ("id", "amount", "pending_id", "user_data_128", "user_data_64",
                          "user_data_32", "timeout", "code", "flags", "timestamp")},
            "accounts": (event["ledger"], event["debit_account_id"], event["credit_account_id"]),
            "debit": tuple(event[f"debit_account_{name}"] for name in names),
            "credit": tuple(event[f"credit_account_{name}"] for name in names),
            "account_timestamps": (event["debit_account_timestamp"],
                                   event["credit_account_timestamp"])}


def wanted_values(event, model):
    """The same of an event of the model."""
    transfer = event.transfer
    return {"type": event.kind, "timestamp": event.timestamp,
            "transfer": {name: getattr(transfer, name) for name in
                         ("id", "amount", "pending_id", "user_data_128", "user_data_64",
                          "user_data_32", "timeout", "code", "flags", "timestamp")},
            "accounts": (transfer.ledger, transfer.debit_account_id, transfer.credit_account_id),
            "debit": event.debit, "credit": event.credit,
            "account_timestamps": (model.accounts[transfer.debit_account_id].timestamp,
                                   model.accounts[transfer.credit_account_id].timestamp)}
