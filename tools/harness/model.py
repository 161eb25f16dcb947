"""An independent model of the ledger: plain dictionaries, written from the accounting rules.

The model shares no code and no structure with the server. `create_accounts` and `create_transfers`
take the events of one batch and the batch's commit timestamp, and return the status and timestamp
that each event must get. `expire` carries out one expiry. The reads compute what a query must
return.
"""

import dataclasses

MAX = (1 << 128) - 1
TIMESTAMP_MAX = (1 << 63) - 1
SECOND = 1_000_000_000
CREATED = "created"

LINKED = 1
# Account flags.
DEBITS_LIMITED, CREDITS_LIMITED, HISTORY, ACCOUNT_IMPORTED, CLOSED = 2, 4, 8, 16, 32
# Transfer flags.
PENDING, POST, VOID, BALANCING_DEBIT, BALANCING_CREDIT = 2, 4, 8, 16, 32
CLOSING_DEBIT, CLOSING_CREDIT, TRANSFER_IMPORTED = 64, 128, 256
# Number of flags that exist; higher bits are reserved.
ACCOUNT_FLAGS, TRANSFER_FLAGS = 6, 9

TRANSIENT = {
    "debit_account_not_found", "credit_account_not_found", "pending_transfer_not_found",
    "exceeds_credits", "exceeds_debits", "debit_account_already_closed",
    "credit_account_already_closed",
}
EVENT_TYPES = ("single_phase", "two_phase_pending", "two_phase_posted", "two_phase_voided",
               "two_phase_expired")


@dataclasses.dataclass
class Account:
    """An account as it stands."""

    id: int
    user_data_128: int
    user_data_64: int
    user_data_32: int
    ledger: int
    code: int
    flags: int
    timestamp: int
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    def balances(self):
        """Debits pending and posted, credits pending and posted."""
        return (self.debits_pending, self.debits_posted, self.credits_pending,
                self.credits_posted)


@dataclasses.dataclass
class Transfer:
    """A transfer as it is stored. `resolution` is kept beside pending transfers."""

    id: int
    debit_account_id: int
    credit_account_id: int
    amount: int
    pending_id: int
    user_data_128: int
    user_data_64: int
    user_data_32: int
    timeout: int
    ledger: int
    code: int
    flags: int
    timestamp: int
    resolution: str = ""

    def expires(self):
        """The timestamp of the expiry; none without a timeout."""
        return self.timestamp + self.timeout * SECOND if self.timeout else None


@dataclasses.dataclass
class Event:
    """A change event: the balances and flags are those right after it."""

    kind: int
    timestamp: int
    transfer: Transfer
    debit: tuple
    credit: tuple


class Chain:
    """How to undo what was done since the open chain began."""

    def __init__(self, start):
        self.start = start
        self.broken = False
        self.undo = []


class Model:
    """All accounts and transfers of one cluster."""

    def __init__(self):
        self.accounts = {}
        self.transfers = {}
        self.burnt = set()
        # Highest timestamps of accounts and of transfers.
        self.account_floor = self.transfer_floor = 0
        self.account_times = set()
        self.transfer_times = set()
        # In the order in which they happened, which imported ones leave.
        self.events = []
        self.rows = {}
        self.chain = None

    # -- The frame around each event ------------------------------------------------------------

    def create_accounts(self, batch, commit):
        """Returns what each account of a batch must be answered: status and timestamp."""
        return self._create(batch, commit, ACCOUNT_IMPORTED, self._create_account)

    def create_transfers(self, batch, commit):
        """Returns what each transfer of a batch must be answered: status and timestamp."""
        return self._create(batch, commit, TRANSFER_IMPORTED, self._create_transfer)

    def _create(self, batch, commit, imported_flag, create):
        results = []
        self.chain = None
        imported = bool(batch) and int(batch[0].flags) & imported_flag != 0
        for index, event in enumerate(batch):
            when = commit - len(batch) + index + 1
            linked = int(event.flags) & LINKED != 0
            if linked and self.chain is None:
                self.chain = Chain(index)
            status = self._frame(event, int(event.flags) & imported_flag != 0, imported, commit,
                                 linked and index == len(batch) - 1)
            stored = when
            if status is None:
                status, stored = create(event, when)
            if self.chain is not None and status != CREATED and not self.chain.broken:
                self._break(results)
            if status in TRANSIENT:
                self.burnt.add(event.id)
            results.append((status, stored))
            if self.chain is not None and (not linked or status == "linked_event_chain_open"):
                self.chain = None
        return results

    def _frame(self, event, has_flag, imported, commit, open_end):
        if open_end:
            return "linked_event_chain_open"
        if self.chain is not None and self.chain.broken:
            return "linked_event_failed"
        if has_flag != imported:
            return "imported_event_not_expected" if has_flag else "imported_event_expected"
        if imported:
            if not 1 <= event.timestamp <= TIMESTAMP_MAX:
                return "imported_event_timestamp_out_of_range"
            if event.timestamp >= commit:
                return "imported_event_timestamp_must_not_advance"
        elif event.timestamp != 0:
            return "timestamp_must_be_zero"
        return None

    def _break(self, results):
        """Undoes an open chain; its earlier events have failed."""
        for action in reversed(self.chain.undo):
            action()
        self.chain.undo = []
        self.chain.broken = True
        for index in range(self.chain.start, len(results)):
            results[index] = ("linked_event_failed", results[index][1])

    def _on_rollback(self, action):
        if self.chain is not None:
            self.chain.undo.append(action)

    def _set(self, record, **values):
        """Changes fields of a record, so that a broken chain can put them back."""
        before = {name: getattr(record, name) for name in values}

        def restore():
            for name, value in before.items():
                setattr(record, name, value)

        self._on_rollback(restore)
        for name, value in values.items():
            setattr(record, name, value)

    def _insert(self, table, key, value):
        table[key] = value
        self._on_rollback(lambda: table.pop(key))

    @staticmethod
    def _check_id(event, flag_count):
        if int(event.flags) >> flag_count:
            return "reserved_flag"
        if event.id == 0:
            return "id_must_not_be_zero"
        if event.id == MAX:
            return "id_must_not_be_int_max"
        return None

    # -- Accounts -------------------------------------------------------------------------------

    def _create_account(self, event, when):
        flags = int(event.flags)
        if status := self._check_id(event, ACCOUNT_FLAGS):
            return status, when
        existing = self.accounts.get(event.id)
        if existing is not None:
            for name in ("flags", "user_data_128", "user_data_64", "user_data_32", "ledger",
                         "code"):
                if int(getattr(event, name)) != getattr(existing, name):
                    return f"exists_with_different_{name}", when
            return "exists", existing.timestamp
        if flags & DEBITS_LIMITED and flags & CREDITS_LIMITED:
            return "flags_are_mutually_exclusive", when
        for name in ("debits_pending", "debits_posted", "credits_pending", "credits_posted"):
            if getattr(event, name) != 0:
                return f"{name}_must_be_zero", when
        if event.ledger == 0:
            return "ledger_must_not_be_zero", when
        if event.code == 0:
            return "code_must_not_be_zero", when
        timestamp = event.timestamp if flags & ACCOUNT_IMPORTED else when
        if flags & ACCOUNT_IMPORTED and (timestamp <= self.account_floor
                                         or timestamp in self.transfer_times):
            return "imported_event_timestamp_must_not_regress", when
        account = Account(event.id, event.user_data_128, event.user_data_64, event.user_data_32,
                          event.ledger, event.code, flags, timestamp)
        self._insert(self.accounts, account.id, account)
        self._insert(self.rows, account.id, [])
        self._set(self, account_floor=max(self.account_floor, timestamp))
        self.account_times.add(timestamp)
        self._on_rollback(lambda: self.account_times.discard(timestamp))
        return CREATED, timestamp

    # -- Transfers ------------------------------------------------------------------------------

    def _create_transfer(self, event, when):
        flags = int(event.flags)
        if status := self._check_id(event, TRANSFER_FLAGS):
            return status, when
        existing = self.transfers.get(event.id)
        if existing is not None:
            status = self._compare(event, existing)
            return status, existing.timestamp if status == "exists" else when
        if event.id in self.burnt:
            return "id_already_failed", when
        timestamp = event.timestamp if flags & TRANSFER_IMPORTED else when
        if flags & (POST | VOID):
            status = self._resolve(event, when, timestamp)
        else:
            status = self._check_fields(event) or self._check_accounts(event, timestamp) \
                or self._move(event, timestamp)
        return status, timestamp if status == CREATED else when

    @staticmethod
    def _check_fields(event):
        flags = int(event.flags)
        if event.debit_account_id == 0:
            return "debit_account_id_must_not_be_zero"
        if event.debit_account_id == MAX:
            return "debit_account_id_must_not_be_int_max"
        if event.credit_account_id == 0:
            return "credit_account_id_must_not_be_zero"
        if event.credit_account_id == MAX:
            return "credit_account_id_must_not_be_int_max"
        if event.debit_account_id == event.credit_account_id:
            return "accounts_must_be_different"
        if event.pending_id != 0:
            return "pending_id_must_be_zero"
        if not flags & PENDING and event.timeout != 0:
            return "timeout_reserved_for_pending_transfer"
        if not flags & PENDING and flags & (CLOSING_DEBIT | CLOSING_CREDIT):
            return "closing_transfer_must_be_pending"
        if event.ledger == 0:
            return "ledger_must_not_be_zero"
        if event.code == 0:
            return "code_must_not_be_zero"
        return None

    def _check_accounts(self, event, timestamp):
        debit = self.accounts.get(event.debit_account_id)
        credit = self.accounts.get(event.credit_account_id)
        if debit is None:
            return "debit_account_not_found"
        if credit is None:
            return "credit_account_not_found"
        if debit.ledger != credit.ledger:
            return "accounts_must_have_the_same_ledger"
        if event.ledger != debit.ledger:
            return "transfer_must_have_the_same_ledger_as_accounts"
        if int(event.flags) & TRANSFER_IMPORTED:
            if self._regresses(timestamp):
                return "imported_event_timestamp_must_not_regress"
            if timestamp <= debit.timestamp:
                return "imported_event_timestamp_must_postdate_debit_account"
            if timestamp <= credit.timestamp:
                return "imported_event_timestamp_must_postdate_credit_account"
            if event.timeout != 0:
                return "imported_event_timeout_must_be_zero"
        if debit.flags & CLOSED:
            return "debit_account_already_closed"
        if credit.flags & CLOSED:
            return "credit_account_already_closed"
        return None

    def _regresses(self, timestamp):
        return timestamp <= self.transfer_floor or timestamp in self.account_times

    @staticmethod
    def _amount(event, debit, credit):
        flags, amount = int(event.flags), event.amount
        if flags & BALANCING_DEBIT:
            amount = min(amount, max(0, debit.credits_posted - debit.debits_posted
                                     - debit.debits_pending))
        if flags & BALANCING_CREDIT:
            amount = min(amount, max(0, credit.debits_posted - credit.credits_posted
                                     - credit.credits_pending))
        return amount

    @staticmethod
    def _overflow(amount, pending, debit, credit):
        if pending and amount + debit.debits_pending > MAX:
            return "overflows_debits_pending"
        if pending and amount + credit.credits_pending > MAX:
            return "overflows_credits_pending"
        if amount + debit.debits_posted > MAX:
            return "overflows_debits_posted"
        if amount + credit.credits_posted > MAX:
            return "overflows_credits_posted"
        if amount + debit.debits_pending + debit.debits_posted > MAX:
            return "overflows_debits"
        if amount + credit.credits_pending + credit.credits_posted > MAX:
            return "overflows_credits"
        return None

    def _move(self, event, timestamp):
        debit = self.accounts[event.debit_account_id]
        credit = self.accounts[event.credit_account_id]
        flags, amount = int(event.flags), self._amount(event, debit, credit)
        status = self._overflow(amount, flags & PENDING, debit, credit)
        if status is not None:
            return status
        if timestamp + event.timeout * SECOND > TIMESTAMP_MAX:
            return "overflows_timeout"
        if debit.flags & DEBITS_LIMITED and (debit.debits_pending + debit.debits_posted + amount
                                             > debit.credits_posted):
            return "exceeds_credits"
        if credit.flags & CREDITS_LIMITED and (credit.credits_pending + credit.credits_posted
                                               + amount > credit.debits_posted):
            return "exceeds_debits"
        if flags & PENDING:
            self._set(debit, debits_pending=debit.debits_pending + amount)
            self._set(credit, credits_pending=credit.credits_pending + amount)
        else:
            self._set(debit, debits_posted=debit.debits_posted + amount)
            self._set(credit, credits_posted=credit.credits_posted + amount)
        if flags & CLOSING_DEBIT:
            self._set(debit, flags=debit.flags | CLOSED)
        if flags & CLOSING_CREDIT:
            self._set(credit, flags=credit.flags | CLOSED)
        self._store(Transfer(event.id, debit.id, credit.id, amount, 0, event.user_data_128,
                             event.user_data_64, event.user_data_32, event.timeout, event.ledger,
                             event.code, flags, timestamp), 1 if flags & PENDING else 0)
        return CREATED

    def _resolve(self, event, when, timestamp):
        """Posts or voids a pending transfer."""
        flags = int(event.flags)
        status = self._check_resolution(event, flags)
        if status is not None:
            return status
        pending = self.transfers[event.pending_id]
        amount = event.amount
        if flags & POST and amount == MAX or flags & VOID and amount == 0:
            amount = pending.amount
        if amount > pending.amount:
            return "exceeds_pending_transfer_amount"
        if flags & VOID and amount < pending.amount:
            return "pending_transfer_has_different_amount"
        if pending.resolution in ("posted", "voided"):
            return f"pending_transfer_already_{pending.resolution}"
        if pending.resolution == "expired" or (pending.timeout and when >= pending.expires()):
            return "pending_transfer_expired"
        if flags & TRANSFER_IMPORTED and self._regresses(timestamp):
            return "imported_event_timestamp_must_not_regress"
        debit = self.accounts[pending.debit_account_id]
        credit = self.accounts[pending.credit_account_id]
        if flags & POST and debit.flags & CLOSED:
            return "debit_account_already_closed"
        if flags & POST and credit.flags & CLOSED:
            return "credit_account_already_closed"
        self._release(pending, "posted" if flags & POST else "voided", flags & VOID)
        if flags & POST:
            self._set(debit, debits_posted=debit.debits_posted + amount)
            self._set(credit, credits_posted=credit.credits_posted + amount)
        self._store(Transfer(event.id, debit.id, credit.id, amount, pending.id,
                             event.user_data_128 or pending.user_data_128,
                             event.user_data_64 or pending.user_data_64,
                             event.user_data_32 or pending.user_data_32, 0, pending.ledger,
                             pending.code, flags, timestamp), 2 if flags & POST else 3)
        return CREATED

    def _check_resolution(self, event, flags):
        others = PENDING | BALANCING_DEBIT | BALANCING_CREDIT | CLOSING_DEBIT | CLOSING_CREDIT
        if flags & POST and flags & VOID or flags & others:
            return "flags_are_mutually_exclusive"
        if event.pending_id == 0:
            return "pending_id_must_not_be_zero"
        if event.pending_id == MAX:
            return "pending_id_must_not_be_int_max"
        if event.pending_id == event.id:
            return "pending_id_must_be_different"
        if event.timeout != 0:
            return "timeout_reserved_for_pending_transfer"
        pending = self.transfers.get(event.pending_id)
        if pending is None:
            return "pending_transfer_not_found"
        if not pending.flags & PENDING:
            return "pending_transfer_not_pending"
        for name in ("debit_account_id", "credit_account_id", "ledger", "code"):
            if getattr(event, name) not in (0, getattr(pending, name)):
                return f"pending_transfer_has_different_{name}"
        return None

    def _release(self, pending, resolution, reopens):
        """Takes a pending amount out of both accounts."""
        debit = self.accounts[pending.debit_account_id]
        credit = self.accounts[pending.credit_account_id]
        self._set(debit, debits_pending=debit.debits_pending - pending.amount)
        self._set(credit, credits_pending=credit.credits_pending - pending.amount)
        self._set(pending, resolution=resolution)
        if reopens and pending.flags & CLOSING_DEBIT:
            self._set(debit, flags=debit.flags & ~CLOSED)
        if reopens and pending.flags & CLOSING_CREDIT:
            self._set(credit, flags=credit.flags & ~CLOSED)

    def _store(self, transfer, kind):
        self._insert(self.transfers, transfer.id, transfer)
        self._set(self, transfer_floor=max(self.transfer_floor, transfer.timestamp))
        self.transfer_times.add(transfer.timestamp)
        self._on_rollback(lambda: self.transfer_times.discard(transfer.timestamp))
        for side in (transfer.debit_account_id, transfer.credit_account_id):
            rows = self.rows[side]
            rows.append((transfer, self.accounts[side].balances()))
            self._on_rollback(rows.pop)
        self._record(kind, transfer.timestamp, transfer)

    def _record(self, kind, timestamp, transfer):
        debit = self.accounts[transfer.debit_account_id]
        credit = self.accounts[transfer.credit_account_id]
        self.events.append(Event(kind, timestamp, transfer, (*debit.balances(), debit.flags),
                                 (*credit.balances(), credit.flags)))
        self._on_rollback(self.events.pop)

    def _compare(self, event, stored):
        """Compares an event with the stored transfer of the same id."""
        flags = int(event.flags)
        if flags != stored.flags:
            return "exists_with_different_flags"
        resolves = flags & (POST | VOID)
        pending = self.transfers.get(stored.pending_id)
        for name in ("pending_id", "timeout", "debit_account_id", "credit_account_id", "amount",
                     "user_data_128", "user_data_64", "user_data_32", "ledger", "code"):
            given, kept = getattr(event, name), getattr(stored, name)
            same = given == kept
            if name == "amount":
                if resolves:
                    whole = MAX if flags & POST else 0
                    same = (pending.amount if given == whole else given) == kept
                elif flags & (BALANCING_DEBIT | BALANCING_CREDIT):
                    same = given >= kept
            elif resolves and name.startswith("user_data"):
                same = kept == getattr(pending, name) if given == 0 else same
            elif resolves and name not in ("pending_id", "timeout"):
                same = same or given == 0
            if not same:
                return f"exists_with_different_{name}"
        return "exists"

    # -- Expiry ---------------------------------------------------------------------------------

    def expire(self, transfer_id, timestamp):
        """Carries out one expiry; raises `ValueError` if it is not due."""
        pending = self.transfers.get(transfer_id)
        if pending is None or not pending.timeout or pending.resolution:
            raise ValueError(f"transfer {transfer_id} can't expire: {pending}")
        if timestamp < pending.expires():
            raise ValueError(f"transfer {transfer_id} expired at {timestamp}, before "
                             f"{pending.expires()}")
        self._release(pending, "expired", True)
        self._record(4, timestamp, pending)

    def due(self, timestamp):
        """Returns ids of the open holds that must have run out at this time."""
        return [transfer.id for transfer in self.transfers.values()
                if transfer.timeout and not transfer.resolution
                and transfer.expires() <= timestamp]

    # -- Reads ----------------------------------------------------------------------------------

    @staticmethod
    def _page(records, reversed_order, limit):
        records = sorted(records, key=lambda record: record.timestamp, reverse=reversed_order)
        return records[:limit]

    @staticmethod
    def _matches(record, conditions, timestamp_min, timestamp_max):
        return (timestamp_min <= record.timestamp <= (timestamp_max or TIMESTAMP_MAX)
                and all(value == 0 or getattr(record, name) == value
                        for name, value in conditions.items()))

    def query_transfers(self, *, limit, reverse=False, timestamp_min=0, timestamp_max=0,
                        **conditions):
        """Returns transfers that meet all conditions, in order of time."""
        found = [record for record in self.transfers.values()
                 if self._matches(record, conditions, timestamp_min, timestamp_max)]
        return self._page(found, reverse, limit)

    def query_accounts(self, *, limit, reverse=False, timestamp_min=0, timestamp_max=0,
                       **conditions):
        """Returns accounts that meet all conditions, in order of time."""
        found = [record for record in self.accounts.values()
                 if self._matches(record, conditions, timestamp_min, timestamp_max)]
        return self._page(found, reverse, limit)

    def account_rows(self, account_id, *, limit, debits=True, credits=True, reverse=False,
                     timestamp_min=0, timestamp_max=0, **conditions):
        """Returns an account's transfers, each with the account's balances right after it."""
        found = [(transfer, balances) for transfer, balances in self.rows.get(account_id, [])
                 if self._matches(transfer, conditions, timestamp_min, timestamp_max)
                 and (debits and transfer.debit_account_id == account_id
                      or credits and transfer.credit_account_id == account_id)]
        found.sort(key=lambda row: row[0].timestamp, reverse=reverse)
        return found[:limit]

    def balances_at(self, account_id, timestamp):
        """Returns the sums of all events of an account at or before a moment."""
        totals = [0, 0, 0, 0]
        for event in self.events:
            if event.timestamp > timestamp:
                continue
            transfer = event.transfer
            for side, offset in ((transfer.debit_account_id, 0), (transfer.credit_account_id, 2)):
                if side != account_id:
                    continue
                if event.kind == 1:
                    totals[offset] += transfer.amount
                elif event.kind == 0:
                    totals[offset + 1] += transfer.amount
                else:
                    held = transfer if event.kind == 4 else self.transfers[transfer.pending_id]
                    totals[offset] -= held.amount
                    if event.kind == 2:
                        totals[offset + 1] += transfer.amount
        return tuple(totals)

    def check_invariants(self):
        """Both sides of each ledger are equal, and no limit is broken."""
        sums = {}
        for account in self.accounts.values():
            total = sums.setdefault(account.ledger, [0, 0, 0, 0])
            for index, value in enumerate(account.balances()):
                total[index] += value
            if account.flags & DEBITS_LIMITED:
                assert account.debits_pending + account.debits_posted <= account.credits_posted
            if account.flags & CREDITS_LIMITED:
                assert account.credits_pending + account.credits_posted <= account.debits_posted
        for ledger, total in sums.items():
            assert total[0] == total[2] and total[1] == total[3], f"ledger {ledger}: {total}"
