"""The worked examples of the accounting specification through the official Python client's library.

The examples are data, `tests/fixtures/worked_examples.txt`, shared with the tests of the reference
model and of the ledger; `src/simulator/examples.rs` documents the format. All run on one server,
one after the other, so ids get an offset that differs from example to example. Records go through
the library as bytes: that reaches reserved fields and change events, which the Python classes
do not offer.

Not covered: exact clock readings. The timestamps of one batch must agree with each other, be one
nanosecond apart and later than those of the batch before.
"""

import struct
import time

import tigerbeetle as tb

from harness.checks import CheckFailed, equal, require
from harness.records import layout, pack, submit, unpack
from harness.server import ROOT
from harness import wire

EXAMPLE_COUNT = 55
U128_MAX = (1 << 128) - 1
HOUR = 3_600_000_000_000

ID_FIELDS = {"id", "account_id", "debit_account_id", "credit_account_id", "pending_id",
             "transfer_id", "transfer_pending_id"}
FLAGS = {
    "A": {"linked": 1, "D<=C": 2, "C<=D": 4, "history": 8, "imported": 16, "closed": 32},
    "T": {"linked": 1, "pending": 2, "post": 4, "void": 8, "bal_dr": 16, "bal_cr": 32,
          "close_dr": 64, "close_cr": 128, "imported": 256},
}
IMPORTED = {"A": 16, "T": 256}
QUERIES = {
    "lookup_accounts": (wire.LOOKUP_ACCOUNTS, None, "account"),
    "lookup_transfers": (wire.LOOKUP_TRANSFERS, None, "transfer"),
    "get_account_transfers": (wire.GET_ACCOUNT_TRANSFERS, "account_filter", "transfer"),
    "get_account_balances": (wire.GET_ACCOUNT_BALANCES, "account_filter", "balance"),
    "get_change_events": (wire.GET_CHANGE_EVENTS, "change_events_filter", "change_event"),
}


def read_examples():
    """The lines of each example, its title first."""
    examples = []
    path = ROOT / "tests" / "fixtures" / "worked_examples.txt"
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("example "):
            examples.append([])
        examples[-1].append(line)
    equal(len(examples), EXAMPLE_COUNT, "number of examples")
    return examples


class Runner:
    """Runs one example."""

    def __init__(self, client, id_offset):
        self.client = client
        self.id_offset = id_offset
        self.batch = []
        self.timestamps = {}
        self.last_timestamp = 0

    def run(self, lines):
        """Runs all lines but the first, which is the title."""
        for line in lines[1:]:
            try:
                self.run_line(line)
            except CheckFailed as failure:
                raise CheckFailed(f"{line}: {failure}") from None
        self.flush()

    def run_line(self, line):
        """Runs one line."""
        verb, _, rest = line.partition(" ")
        if verb == "event":
            self.batch.append(self.parse_event(rest))
            return
        self.flush()
        if verb == "accounts":
            self.batch = [self.parse_event(f"{text} => created") for text in rest.split("; ")]
            self.flush()
            time.sleep(0.003)
        elif verb == "wait":
            time.sleep(int(rest.removesuffix(" ms")) / 1000)
        elif verb == "balances":
            for text in rest.split("; "):
                self.check_balances(text.split())
        elif verb == "amounts":
            for text in rest.split(", "):
                name, amount = text.split()
                equal(self.lookup_one(name)["amount"], self.value(amount), f"amount of {name}")
        elif verb == "missing":
            for name in rest.split(", "):
                equal(self.lookup(name[0], [self.identifier(name[1:])]), [], f"records of {name}")
        elif verb == "query":
            self.check_query(rest)
        else:
            equal(verb, "batch", "kind of line")

    def flush(self):
        """Executes the collected batch and checks every result."""
        batch, self.batch = self.batch, []
        if not batch:
            return
        kind = batch[0]["kind"]
        operation = wire.CREATE_ACCOUNTS if kind == "A" else wire.CREATE_TRANSFERS
        record = "account" if kind == "A" else "transfer"
        events = [pack(record, event["fields"]) for event in batch]
        replies = submit(self.client, operation, events, 128, 16)
        equal(len(replies), len(batch), "number of results")
        start = None
        for index, (event, reply) in enumerate(zip(batch, replies)):
            timestamp, status, reserved = struct.unpack("<QII", reply)
            equal(self.status_name(kind, status), event["status"], event["text"])
            equal(reserved, 0, "reserved field of a result")
            key = (kind, event["fields"]["id"])
            given = self.given_timestamp(kind, event, key)
            if given is None:
                start = timestamp - index if start is None else start
                equal(timestamp, start + index, f"{event['text']}: timestamp of the event")
                require(start > self.last_timestamp, f"{event['text']}: time went back")
            else:
                equal(timestamp, given, f"{event['text']}: timestamp")
            # A member of a chain that fails later may be met as `exists` before it does.
            if event["status"] in ("created", "linked_event_failed"):
                self.timestamps[key] = timestamp
        if start is not None:
            self.last_timestamp = start + len(batch) - 1

    def given_timestamp(self, kind, event, key):
        """The timestamp a result must have; `None` if it is the event's own."""
        imported = event["fields"]["flags"] & IMPORTED[kind] != 0
        if event["rule"] == "given" or (event["rule"] is None and event["status"] == "created"
                                        and imported):
            return event["fields"]["timestamp"]
        if event["rule"] is None and event["status"] == "exists":
            return self.timestamps[key]
        return None

    @staticmethod
    def status_name(kind, status):
        """The name of a status in lower case."""
        names = tb.CreateAccountStatus if kind == "A" else tb.CreateTransferStatus
        return names(status).name.lower()

    def lookup(self, kind, identifiers):
        """Records by id."""
        name = "account" if kind == "A" else "transfer"
        operation = wire.LOOKUP_ACCOUNTS if kind == "A" else wire.LOOKUP_TRANSFERS
        events = [identifier.to_bytes(16, "little") for identifier in identifiers]
        return [unpack(name, record) for record in submit(self.client, operation, events, 16, 128)]

    def lookup_one(self, name):
        """The record of this name, which must be there."""
        records = self.lookup(name[0], [self.identifier(name[1:])])
        equal(len(records), 1, f"records of {name}")
        return records[0]

    def check_balances(self, words):
        """A line such as `A1 4/6/0/10 closed`."""
        record = self.lookup_one(words[0])
        names = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
        for name, value in zip(names, words[1].split("/"), strict=True):
            equal(record[name], self.value(value), f"{words[0]} {name}")
        equal(record["flags"] & 32 != 0, words[2:] == ["closed"], f"{words[0]} closed")

    def check_query(self, text):
        """A line such as `query OPERATION(ARGUMENTS) => {FIELD VALUE, ...}; {...}`."""
        call, _, expected = text.partition(" => ")
        name, _, arguments = call.removesuffix(")").partition("(")
        operation, filter_kind, result_kind = QUERIES[name]
        if filter_kind is None:
            listed = arguments.removeprefix("ids=[").removesuffix("]").split(", ")
            found = self.lookup("A" if result_kind == "account" else "T",
                                [self.identifier(word) for word in listed])
        else:
            fields = dict(argument.split("=") for argument in arguments.split(", "))
            record = pack(filter_kind, {field: self.field_value(field, value)
                                        for field, value in fields.items()})
            size = layout(result_kind)[1]
            replies = submit(self.client, operation, [record], len(record), size)
            found = [unpack(result_kind, reply) for reply in replies]
        wanted = [] if expected == "nothing" else expected.split("; ")
        equal(len(found), len(wanted), "number of results")
        for record, fields in zip(found, wanted):
            for field in fields.strip("{}").split(", "):
                key, value = field.split(" ")
                equal(record[key], self.field_value(key, value), key)

    def parse_event(self, text):
        """An event such as `T2 1→2 amount 9 [post] of T1, code=7 => created @given`."""
        text, _, outcome = text.partition(" => ")
        status, _, rule = outcome.partition(" @")
        before, _, rest = text.partition("[")
        flag_names, _, after = rest.partition("]")
        words = [word.rstrip(",") for word in f"{before} {after}".split()]
        kind = words[0][0]
        fields = {"id": self.identifier(words[0][1:]), "flags": 0}
        for flag in filter(None, flag_names.split(", ")):
            fields["flags"] |= int(flag, 16) if flag.startswith("0x") else FLAGS[kind][flag]
        if kind == "A":
            fields.update(ledger=1, code=1)
        rest = iter(words[1:])
        for word in rest:
            if "→" in word:
                debit, credit = word.split("→")
                fields.update(debit_account_id=self.identifier(debit), ledger=1, code=1,
                              credit_account_id=self.identifier(credit))
            elif word == "amount":
                fields["amount"] = self.value(next(rest))
            elif word == "of":
                fields["pending_id"] = self.identifier(next(rest).removeprefix("T"))
            else:
                field, value = word.split("=")
                fields[field] = self.field_value(field, value)
        return {"text": text, "kind": kind, "fields": fields, "status": status,
                "rule": rule or None}

    def field_value(self, field, text):
        """The value of a field; ids are numbers of this example."""
        return self.identifier(text) if field in ID_FIELDS else self.value(text)

    def identifier(self, text):
        """An id: zero and the maximum stay, all others are moved to this example's own."""
        if text == "MAX":
            return U128_MAX
        return 0 if int(text) == 0 else self.id_offset + int(text)

    def value(self, text):
        """A number: decimal, hexadecimal, `MAX`, `2^63`, `now`, the timestamp of a record such as
        `A1`; with an optional offset such as `-10` or `+1h`."""
        at = next((index for index, letter in enumerate(text) if letter in "+-"), len(text))
        base, offset = text[:at], text[at:]
        if base in ("MAX", "2^63", "now"):
            value = {"MAX": U128_MAX, "2^63": 1 << 63, "now": time.time_ns()}[base]
        elif base[0] in "AT":
            value = self.timestamps[(base[0], self.identifier(base[1:]))]
        else:
            value = int(base, 0) if base.startswith("0x") else int(base)
        if not offset:
            return value
        amount = HOUR if offset[1:] == "1h" else int(offset[1:])
        return value + amount if offset[0] == "+" else value - amount


def run(checks, client):
    """Runs all examples, each as one check."""
    base = time.time_ns() << 32
    for number, lines in enumerate(read_examples()):
        runner = Runner(client, base + number * 1000)
        checks.run(lines[0], runner.run, lines)
