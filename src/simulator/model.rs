//! The reference model: the accounting semantics, written to be obviously right.
//!
//! It takes the requests the real ledger takes and gives the replies the real ledger must give,
//! bit for bit: bodies as on the wire, multi-batch trailers included. It was written from the
//! specification alone and shares nothing with the ledger but the record types. Every check is
//! one line in the order of the specification's precedence tables; state is a handful of ordered
//! maps; chains are undone from a journal of "what was there before".
//!
//! Covered: every operation a client can send, pulses, and [`Model::check_invariants`]. Not
//! covered: request validation. A body must be valid as the replica checks it before a request is
//! prepared; the model asserts that it is.
//!
//! Timestamps: with `N` events in the whole message and the commit timestamp `C`, event `i` of the
//! message (counted through all its sub-batches) has the event timestamp `C - N + i + 1`. The
//! commit timestamp of a sub-batch is the event timestamp of its last event (that of the event
//! before it, if the sub-batch is empty).
//!
//! One corner is decided here because the specification leaves it open: an imported transfer may
//! be given exactly the timestamp of an earlier expiry event. The later change event then replaces
//! the earlier one.

mod invariants;
mod reads;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::{FromBytes, IntoBytes};

use super::batches::{decode_batches, encode_batches, event_and_result_size};
use crate::protocol::operation::Operation;
use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::protocol::types::{
    AMOUNT_MAX, Account, ChangeEvent, CreateResult, TIMESTAMP_MAX, Transfer, account_flags,
    transfer_flags,
};

use CreateAccountStatus as AccountStatus;
use CreateTransferStatus as TransferStatus;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
const STATUS_CREATED: u32 = u32::MAX;
const STATUS_LINKED_EVENT_FAILED: u32 = 1;
const STATUS_LINKED_EVENT_CHAIN_OPEN: u32 = 2;

/// The limits a server's message size sets; they show in replies.
#[derive(Clone, Copy, Debug)]
pub struct ModelOptions {
    /// The most expiries one pulse carries out.
    pub pulse_expiries_max: usize,
    /// The most records one query (of accounts, transfers or balances) returns.
    pub query_results_max: usize,
    /// The most change events one request returns.
    pub change_events_max: usize,
}

impl Default for ModelOptions {
    /// The limits of a server with full-size messages.
    fn default() -> ModelOptions {
        ModelOptions { pulse_expiries_max: 8190, query_results_max: 8189, change_events_max: 2730 }
    }
}

/// The four balances of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Balances {
    debits_pending: u128,
    debits_posted: u128,
    credits_pending: u128,
    credits_posted: u128,
}

impl Balances {
    fn of(account: &Account) -> Balances {
        Balances {
            debits_pending: account.debits_pending,
            debits_posted: account.debits_posted,
            credits_pending: account.credits_pending,
            credits_posted: account.credits_posted,
        }
    }
}

/// What became of a transfer. Everything but a pending transfer is `Final` from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Final,
    Open,
    Posted,
    Voided,
    Expired,
}

/// A stored transfer and what is kept beside it.
#[derive(Clone, Copy, Debug)]
struct TransferRecord {
    transfer: Transfer,
    resolution: Resolution,
    /// Balances of the two accounts right after the transfer was created.
    debit_balances: Balances,
    credit_balances: Balances,
}

impl TransferRecord {
    /// When the transfer expires, if it is open and has a timeout.
    fn expiry(&self) -> Option<u64> {
        if self.resolution == Resolution::Open { expires_at(&self.transfer) } else { None }
    }
}

/// One change to the state, by what was there before. Undone in reverse order.
#[derive(Clone, Debug)]
enum Undo {
    Account { id: u128, before: Option<Account> },
    Transfer { id: u128, before: Option<TransferRecord> },
    ChangeEvent { timestamp: u64, before: Option<ChangeEvent> },
}

/// An open chain within a batch.
struct Chain {
    /// Index of its first event.
    first: usize,
    broken: bool,
}

/// An event of a create batch.
enum Event {
    Account(Account),
    Transfer(Transfer),
}

impl Event {
    fn is_linked(&self) -> bool {
        match self {
            Event::Account(account) => account.flags & account_flags::LINKED != 0,
            Event::Transfer(transfer) => transfer.flags & transfer_flags::LINKED != 0,
        }
    }

    fn is_imported(&self) -> bool {
        match self {
            Event::Account(account) => account.flags & account_flags::IMPORTED != 0,
            Event::Transfer(transfer) => transfer.flags & transfer_flags::IMPORTED != 0,
        }
    }

    fn timestamp(&self) -> u64 {
        match self {
            Event::Account(account) => account.timestamp,
            Event::Transfer(transfer) => transfer.timestamp,
        }
    }
}

/// What the frame around the events finds wrong with one event's imported flag or timestamp.
enum FrameFault {
    ImportedEventNotExpected,
    ImportedEventExpected,
    ImportedEventTimestampOutOfRange,
    ImportedEventTimestampMustNotAdvance,
    TimestampMustBeZero,
}

impl FrameFault {
    fn account_status(&self) -> AccountStatus {
        match self {
            FrameFault::ImportedEventNotExpected => AccountStatus::ImportedEventNotExpected,
            FrameFault::ImportedEventExpected => AccountStatus::ImportedEventExpected,
            FrameFault::ImportedEventTimestampOutOfRange => {
                AccountStatus::ImportedEventTimestampOutOfRange
            }
            FrameFault::ImportedEventTimestampMustNotAdvance => {
                AccountStatus::ImportedEventTimestampMustNotAdvance
            }
            FrameFault::TimestampMustBeZero => AccountStatus::TimestampMustBeZero,
        }
    }

    fn transfer_status(&self) -> TransferStatus {
        match self {
            FrameFault::ImportedEventNotExpected => TransferStatus::ImportedEventNotExpected,
            FrameFault::ImportedEventExpected => TransferStatus::ImportedEventExpected,
            FrameFault::ImportedEventTimestampOutOfRange => {
                TransferStatus::ImportedEventTimestampOutOfRange
            }
            FrameFault::ImportedEventTimestampMustNotAdvance => {
                TransferStatus::ImportedEventTimestampMustNotAdvance
            }
            FrameFault::TimestampMustBeZero => TransferStatus::TimestampMustBeZero,
        }
    }
}

/// The reference model of the state machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Model {
    options: ModelOptions,
    accounts: BTreeMap<u128, Account>,
    account_ids: BTreeMap<u64, u128>,
    transfers: BTreeMap<u128, TransferRecord>,
    transfer_ids: BTreeMap<u64, u128>,
    /// Open transfers with a timeout: (expiry, timestamp) to id.
    expiries: BTreeMap<(u64, u64), u128>,
    change_events: BTreeMap<u64, ChangeEvent>,
    burnt_ids: BTreeSet<u128>,
    /// What to restore, newest last, if the open chain breaks. Empty between chains.
    journal: Vec<Undo>,
    commit_timestamp: u64,
}

impl Model {
    /// An empty database.
    ///
    /// # Panics
    ///
    /// If a limit is zero.
    #[must_use]
    pub fn new(options: ModelOptions) -> Model {
        assert!(options.pulse_expiries_max > 0);
        assert!(options.query_results_max > 0);
        assert!(options.change_events_max > 0);
        Model {
            options,
            accounts: BTreeMap::new(),
            account_ids: BTreeMap::new(),
            transfers: BTreeMap::new(),
            transfer_ids: BTreeMap::new(),
            expiries: BTreeMap::new(),
            change_events: BTreeMap::new(),
            burnt_ids: BTreeSet::new(),
            journal: Vec::new(),
            commit_timestamp: 0,
        }
    }

    /// Carries out one operation with its commit timestamp and a valid request body, both as on
    /// the wire, and returns the reply body as on the wire.
    ///
    /// # Panics
    ///
    /// If the body is not valid for the operation, or the timestamp does not advance.
    pub fn execute(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8> {
        assert!(timestamp > self.commit_timestamp, "commit timestamps must advance");
        assert!(timestamp <= TIMESTAMP_MAX);
        match operation {
            Operation::Pulse => {
                assert!(body.is_empty());
                self.pulse(timestamp);
                return Vec::new();
            }
            Operation::GetChangeEvents => {
                self.commit_timestamp = timestamp;
                return self.get_change_events(body);
            }
            _ => self.commit_timestamp = timestamp,
        }
        let (event_size, result_size) = event_and_result_size(operation);
        let batches = decode_batches(event_size, body);
        let events_total: usize = batches.iter().map(|batch| batch.len() / event_size).sum();
        let first_timestamp = timestamp - count_u64(events_total);
        let mut events_before = 0;
        let mut replies = Vec::new();
        for batch in &batches {
            events_before += count_u64(batch.len() / event_size);
            replies.push(match operation {
                Operation::CreateAccounts | Operation::CreateTransfers => {
                    self.create_batch(operation, first_timestamp + events_before, batch)
                }
                Operation::LookupAccounts => self.lookup_accounts(batch),
                Operation::LookupTransfers => self.lookup_transfers(batch),
                Operation::GetAccountTransfers => self.get_account_transfers(batch),
                Operation::GetAccountBalances => self.get_account_balances(batch),
                Operation::QueryAccounts => self.query_accounts(batch),
                Operation::QueryTransfers => self.query_transfers(batch),
                _ => panic!("not an operation of the state machine: {operation:?}"),
            });
        }
        encode_batches(result_size, &replies)
    }

    /// Carries out a pulse with its commit timestamp: expires what is due, up to the limit.
    ///
    /// # Panics
    ///
    /// If the timestamp does not advance.
    pub fn pulse(&mut self, timestamp: u64) {
        assert!(timestamp > self.commit_timestamp, "commit timestamps must advance");
        self.commit_timestamp = timestamp;
        let due: Vec<u128> = self
            .expiries
            .range(..=(timestamp, u64::MAX))
            .map(|(_, &id)| id)
            .take(self.options.pulse_expiries_max)
            .collect();
        for (index, &id) in due.iter().enumerate() {
            let event_timestamp = timestamp - count_u64(due.len()) + count_u64(index) + 1;
            self.expire(id, event_timestamp);
        }
        self.journal.clear();
    }

    fn expire(&mut self, id: u128, event_timestamp: u64) {
        let pending = self.transfers[&id].transfer;
        self.release(&pending, Resolution::Expired);
        let event = self.change_event(4, &pending, event_timestamp);
        assert_eq!(event.transfer_timestamp, pending.timestamp);
        assert_eq!(event.transfer_pending_id, 0, "a pending transfer has no pending id");
        self.put_change_event(&event);
    }
}

/// Writes: the frame around the events of a batch.
impl Model {
    fn create_batch(&mut self, operation: Operation, timestamp: u64, batch: &[u8]) -> Vec<u8> {
        assert!(self.journal.is_empty());
        let events = decode_events(operation, batch);
        let imported_batch = events.first().is_some_and(Event::is_imported);
        let mut results: Vec<CreateResult> = Vec::new();
        let mut chain: Option<Chain> = None;
        for (index, event) in events.iter().enumerate() {
            let event_timestamp = timestamp - count_u64(events.len()) + count_u64(index) + 1;
            if event.is_linked() && chain.is_none() {
                chain = Some(Chain { first: index, broken: false });
            }
            let chain_open = event.is_linked() && index + 1 == events.len();
            let (status, result_timestamp) = if chain_open {
                (STATUS_LINKED_EVENT_CHAIN_OPEN, event_timestamp)
            } else if chain.as_ref().is_some_and(|chain| chain.broken) {
                (STATUS_LINKED_EVENT_FAILED, event_timestamp)
            } else {
                let fault = frame_fault(event, imported_batch, timestamp);
                self.create_event(event, fault.as_ref(), event_timestamp)
            };
            if status != STATUS_CREATED
                && let Some(chain) = chain.as_mut()
                && !chain.broken
            {
                chain.broken = true;
                self.undo_journal();
                for earlier in &mut results[chain.first..] {
                    assert_eq!(earlier.status, STATUS_CREATED);
                    earlier.status = STATUS_LINKED_EVENT_FAILED;
                }
            }
            if let Event::Transfer(transfer) = event
                && is_transient(status)
            {
                assert!(self.burnt_ids.insert(transfer.id), "an id is burnt once");
            }
            results.push(CreateResult { timestamp: result_timestamp, status, reserved: 0 });
            if chain_open || !event.is_linked() {
                chain = None;
                self.journal.clear();
            }
        }
        assert!(chain.is_none(), "the last event ends its chain");
        results.iter().flat_map(|result| result.as_bytes().to_vec()).collect()
    }

    /// The status and result timestamp of one event outside a broken chain.
    fn create_event(
        &mut self,
        event: &Event,
        fault: Option<&FrameFault>,
        event_timestamp: u64,
    ) -> (u32, u64) {
        match (event, fault) {
            (Event::Account(_), Some(fault)) => (fault.account_status() as u32, event_timestamp),
            (Event::Transfer(_), Some(fault)) => (fault.transfer_status() as u32, event_timestamp),
            (Event::Account(account), None) => {
                match self.create_account(account, event_timestamp) {
                    Ok(stored) => (STATUS_CREATED, stored),
                    Err(AccountStatus::Exists) => {
                        (AccountStatus::Exists as u32, self.accounts[&account.id].timestamp)
                    }
                    Err(status) => (status as u32, event_timestamp),
                }
            }
            (Event::Transfer(transfer), None) => {
                match self.create_transfer(transfer, event_timestamp) {
                    Ok(stored) => (STATUS_CREATED, stored),
                    Err(TransferStatus::Exists) => (
                        TransferStatus::Exists as u32,
                        self.transfers[&transfer.id].transfer.timestamp,
                    ),
                    Err(status) => (status as u32, event_timestamp),
                }
            }
        }
    }
}

/// Writes: accounts. Returns the stored timestamp, or why the account was not created.
impl Model {
    fn create_account(&mut self, a: &Account, event_timestamp: u64) -> Result<u64, AccountStatus> {
        refuse(a.reserved != 0, AccountStatus::ReservedField)?;
        refuse(a.flags >> 6 != 0, AccountStatus::ReservedFlag)?;
        refuse(a.id == 0, AccountStatus::IdMustNotBeZero)?;
        refuse(a.id == u128::MAX, AccountStatus::IdMustNotBeIntMax)?;
        if let Some(existing) = self.accounts.get(&a.id) {
            return Err(compare_accounts(a, existing));
        }
        let limits = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS
            | account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS;
        refuse(a.flags & limits == limits, AccountStatus::FlagsAreMutuallyExclusive)?;
        refuse(a.debits_pending != 0, AccountStatus::DebitsPendingMustBeZero)?;
        refuse(a.debits_posted != 0, AccountStatus::DebitsPostedMustBeZero)?;
        refuse(a.credits_pending != 0, AccountStatus::CreditsPendingMustBeZero)?;
        refuse(a.credits_posted != 0, AccountStatus::CreditsPostedMustBeZero)?;
        refuse(a.ledger == 0, AccountStatus::LedgerMustNotBeZero)?;
        refuse(a.code == 0, AccountStatus::CodeMustNotBeZero)?;
        let imported = a.flags & account_flags::IMPORTED != 0;
        if imported {
            let regresses = a.timestamp <= last_key(&self.account_ids)
                || self.transfer_ids.contains_key(&a.timestamp);
            refuse(regresses, AccountStatus::ImportedEventTimestampMustNotRegress)?;
        }
        let timestamp = if imported { a.timestamp } else { event_timestamp };
        self.put_account(Account { timestamp, ..*a });
        Ok(timestamp)
    }
}

/// How an event that names an existing account differs from it, first difference first.
fn compare_accounts(a: &Account, existing: &Account) -> AccountStatus {
    if a.flags != existing.flags {
        AccountStatus::ExistsWithDifferentFlags
    } else if a.user_data_128 != existing.user_data_128 {
        AccountStatus::ExistsWithDifferentUserData128
    } else if a.user_data_64 != existing.user_data_64 {
        AccountStatus::ExistsWithDifferentUserData64
    } else if a.user_data_32 != existing.user_data_32 {
        AccountStatus::ExistsWithDifferentUserData32
    } else if a.ledger != existing.ledger {
        AccountStatus::ExistsWithDifferentLedger
    } else if a.code != existing.code {
        AccountStatus::ExistsWithDifferentCode
    } else {
        AccountStatus::Exists
    }
}

/// Writes: transfers. Returns the stored timestamp, or why the transfer was not created.
impl Model {
    fn create_transfer(
        &mut self,
        t: &Transfer,
        event_timestamp: u64,
    ) -> Result<u64, TransferStatus> {
        refuse(t.flags >> 9 != 0, TransferStatus::ReservedFlag)?;
        refuse(t.id == 0, TransferStatus::IdMustNotBeZero)?;
        refuse(t.id == u128::MAX, TransferStatus::IdMustNotBeIntMax)?;
        if let Some(existing) = self.transfers.get(&t.id) {
            return Err(self.compare_transfers(t, &existing.transfer));
        }
        refuse(self.burnt_ids.contains(&t.id), TransferStatus::IdAlreadyFailed)?;
        if has(t, transfer_flags::POST_PENDING_TRANSFER)
            || has(t, transfer_flags::VOID_PENDING_TRANSFER)
        {
            self.check_post_or_void_fields(t)?;
            let stored = self.check_post_or_void_state(t, event_timestamp)?;
            self.apply_post_or_void(stored);
            Ok(stored.timestamp)
        } else {
            check_regular_fields(t)?;
            let amount = self.check_regular_accounts(t)?;
            let timestamp = stored_timestamp(t, event_timestamp);
            let stored = Transfer { amount, timestamp, ..*t };
            self.check_regular_amount(&stored)?;
            self.apply_regular(stored);
            Ok(timestamp)
        }
    }

    /// How an event that names an existing transfer differs from it, first difference first.
    fn compare_transfers(&self, t: &Transfer, e: &Transfer) -> TransferStatus {
        if t.flags != e.flags {
            return TransferStatus::ExistsWithDifferentFlags;
        }
        if t.pending_id != e.pending_id {
            return TransferStatus::ExistsWithDifferentPendingId;
        }
        if t.timeout != e.timeout {
            return TransferStatus::ExistsWithDifferentTimeout;
        }
        let difference = if e.pending_id == 0 {
            difference_of_regular(t, e)
        } else {
            difference_of_post_or_void(t, e, &self.transfers[&e.pending_id].transfer)
        };
        difference.unwrap_or(TransferStatus::Exists)
    }

    /// Rows 17 to 27 of the table for regular and pending transfers; gives the amount.
    fn check_regular_accounts(&self, t: &Transfer) -> Result<u128, TransferStatus> {
        let debit = self.accounts.get(&t.debit_account_id);
        let debit = debit.ok_or(TransferStatus::DebitAccountNotFound)?;
        let credit = self.accounts.get(&t.credit_account_id);
        let credit = credit.ok_or(TransferStatus::CreditAccountNotFound)?;
        refuse(debit.ledger != credit.ledger, TransferStatus::AccountsMustHaveTheSameLedger)?;
        refuse(t.ledger != debit.ledger, TransferStatus::TransferMustHaveTheSameLedgerAsAccounts)?;
        if has(t, transfer_flags::IMPORTED) {
            refuse(
                self.transfer_timestamp_regresses(t.timestamp),
                TransferStatus::ImportedEventTimestampMustNotRegress,
            )?;
            refuse(
                t.timestamp <= debit.timestamp,
                TransferStatus::ImportedEventTimestampMustPostdateDebitAccount,
            )?;
            refuse(
                t.timestamp <= credit.timestamp,
                TransferStatus::ImportedEventTimestampMustPostdateCreditAccount,
            )?;
            refuse(t.timeout != 0, TransferStatus::ImportedEventTimeoutMustBeZero)?;
        }
        refuse(is_closed(debit), TransferStatus::DebitAccountAlreadyClosed)?;
        refuse(is_closed(credit), TransferStatus::CreditAccountAlreadyClosed)?;

        let mut amount = t.amount;
        if has(t, transfer_flags::BALANCING_DEBIT) {
            let debits = debit.debits_posted + debit.debits_pending;
            amount = amount.min(debit.credits_posted.saturating_sub(debits));
        }
        if has(t, transfer_flags::BALANCING_CREDIT) {
            let credits = credit.credits_posted + credit.credits_pending;
            amount = amount.min(credit.debits_posted.saturating_sub(credits));
        }
        Ok(amount)
    }

    /// Rows 28 to 36: overflows and limits. The transfer has its final amount and timestamp.
    fn check_regular_amount(&self, t: &Transfer) -> Result<(), TransferStatus> {
        let debit = &self.accounts[&t.debit_account_id];
        let credit = &self.accounts[&t.credit_account_id];
        let a = t.amount;
        if has(t, transfer_flags::PENDING) {
            refuse(overflows(&[a, debit.debits_pending]), TransferStatus::OverflowsDebitsPending)?;
            refuse(
                overflows(&[a, credit.credits_pending]),
                TransferStatus::OverflowsCreditsPending,
            )?;
        }
        refuse(overflows(&[a, debit.debits_posted]), TransferStatus::OverflowsDebitsPosted)?;
        refuse(overflows(&[a, credit.credits_posted]), TransferStatus::OverflowsCreditsPosted)?;
        refuse(
            overflows(&[a, debit.debits_pending, debit.debits_posted]),
            TransferStatus::OverflowsDebits,
        )?;
        refuse(
            overflows(&[a, credit.credits_pending, credit.credits_posted]),
            TransferStatus::OverflowsCredits,
        )?;
        let expiry =
            u128::from(t.timestamp) + u128::from(t.timeout) * u128::from(NANOSECONDS_PER_SECOND);
        refuse(expiry > u128::from(TIMESTAMP_MAX), TransferStatus::OverflowsTimeout)?;
        refuse(
            debit.flags & account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS != 0
                && debit.debits_pending + debit.debits_posted + a > debit.credits_posted,
            TransferStatus::ExceedsCredits,
        )?;
        refuse(
            credit.flags & account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS != 0
                && credit.credits_pending + credit.credits_posted + a > credit.debits_posted,
            TransferStatus::ExceedsDebits,
        )
    }

    fn apply_regular(&mut self, t: Transfer) {
        let mut debit = self.accounts[&t.debit_account_id];
        let mut credit = self.accounts[&t.credit_account_id];
        let pending = has(&t, transfer_flags::PENDING);
        if pending {
            debit.debits_pending += t.amount;
            credit.credits_pending += t.amount;
        } else {
            debit.debits_posted += t.amount;
            credit.credits_posted += t.amount;
        }
        if has(&t, transfer_flags::CLOSING_DEBIT) {
            debit.flags |= account_flags::CLOSED;
        }
        if has(&t, transfer_flags::CLOSING_CREDIT) {
            credit.flags |= account_flags::CLOSED;
        }
        self.put_account(debit);
        self.put_account(credit);
        self.put_created_transfer(t, if pending { Resolution::Open } else { Resolution::Final });
        let event = self.change_event(u8::from(pending), &t, t.timestamp);
        self.put_change_event(&event);
    }

    /// Rows 7 to 11 of the table for posts and voids.
    fn check_post_or_void_fields(&self, t: &Transfer) -> Result<(), TransferStatus> {
        let both = transfer_flags::POST_PENDING_TRANSFER | transfer_flags::VOID_PENDING_TRANSFER;
        let others = transfer_flags::PENDING
            | transfer_flags::BALANCING_DEBIT
            | transfer_flags::BALANCING_CREDIT
            | transfer_flags::CLOSING_DEBIT
            | transfer_flags::CLOSING_CREDIT;
        assert!(!self.transfers.contains_key(&t.id));
        refuse(
            t.flags & both == both || t.flags & others != 0,
            TransferStatus::FlagsAreMutuallyExclusive,
        )?;
        refuse(t.pending_id == 0, TransferStatus::PendingIdMustNotBeZero)?;
        refuse(t.pending_id == u128::MAX, TransferStatus::PendingIdMustNotBeIntMax)?;
        refuse(t.pending_id == t.id, TransferStatus::PendingIdMustBeDifferent)?;
        refuse(t.timeout != 0, TransferStatus::TimeoutReservedForPendingTransfer)
    }

    /// Rows 12 to 25 of the table for posts and voids; gives the transfer to store.
    fn check_post_or_void_state(
        &self,
        t: &Transfer,
        event_timestamp: u64,
    ) -> Result<Transfer, TransferStatus> {
        let record = self.transfers.get(&t.pending_id);
        let record = record.ok_or(TransferStatus::PendingTransferNotFound)?;
        let p = &record.transfer;
        let post = has(t, transfer_flags::POST_PENDING_TRANSFER);
        refuse(!has(p, transfer_flags::PENDING), TransferStatus::PendingTransferNotPending)?;
        check_post_or_void_matches(t, p)?;
        let amount = match (post, t.amount) {
            (true, AMOUNT_MAX) | (false, 0) => p.amount,
            (_, amount) => amount,
        };
        refuse(amount > p.amount, TransferStatus::ExceedsPendingTransferAmount)?;
        refuse(!post && amount < p.amount, TransferStatus::PendingTransferHasDifferentAmount)?;
        refuse(
            record.resolution == Resolution::Posted,
            TransferStatus::PendingTransferAlreadyPosted,
        )?;
        refuse(
            record.resolution == Resolution::Voided,
            TransferStatus::PendingTransferAlreadyVoided,
        )?;
        refuse(
            record.resolution == Resolution::Expired
                || expires_at(p).is_some_and(|expiry| event_timestamp >= expiry),
            TransferStatus::PendingTransferExpired,
        )?;
        assert_eq!(record.resolution, Resolution::Open);
        refuse(
            has(t, transfer_flags::IMPORTED) && self.transfer_timestamp_regresses(t.timestamp),
            TransferStatus::ImportedEventTimestampMustNotRegress,
        )?;
        let debit = &self.accounts[&p.debit_account_id];
        let credit = &self.accounts[&p.credit_account_id];
        refuse(post && is_closed(debit), TransferStatus::DebitAccountAlreadyClosed)?;
        refuse(post && is_closed(credit), TransferStatus::CreditAccountAlreadyClosed)?;
        let inherit = |own: u128, pending: u128| if own == 0 { pending } else { own };
        Ok(Transfer {
            debit_account_id: p.debit_account_id,
            credit_account_id: p.credit_account_id,
            amount,
            user_data_128: inherit(t.user_data_128, p.user_data_128),
            user_data_64: if t.user_data_64 == 0 { p.user_data_64 } else { t.user_data_64 },
            user_data_32: if t.user_data_32 == 0 { p.user_data_32 } else { t.user_data_32 },
            timeout: 0,
            ledger: p.ledger,
            code: p.code,
            timestamp: stored_timestamp(t, event_timestamp),
            ..*t
        })
    }

    fn apply_post_or_void(&mut self, t: Transfer) {
        let pending = self.transfers[&t.pending_id].transfer;
        let post = has(&t, transfer_flags::POST_PENDING_TRANSFER);
        if post {
            assert!(t.amount <= pending.amount);
            self.release(&pending, Resolution::Posted);
            let mut debit = self.accounts[&t.debit_account_id];
            let mut credit = self.accounts[&t.credit_account_id];
            debit.debits_posted += t.amount;
            credit.credits_posted += t.amount;
            self.put_account(debit);
            self.put_account(credit);
        } else {
            assert_eq!(t.amount, pending.amount);
            self.release(&pending, Resolution::Voided);
        }
        self.put_created_transfer(t, Resolution::Final);
        let event = self.change_event(if post { 2 } else { 3 }, &t, t.timestamp);
        self.put_change_event(&event);
    }

    /// Takes a pending transfer's amount out of the pending balances, resolves it, and, unless it
    /// is posted, opens the accounts it closed.
    fn release(&mut self, pending: &Transfer, resolution: Resolution) {
        let mut debit = self.accounts[&pending.debit_account_id];
        let mut credit = self.accounts[&pending.credit_account_id];
        debit.debits_pending -= pending.amount;
        credit.credits_pending -= pending.amount;
        if has(pending, transfer_flags::CLOSING_DEBIT) {
            assert!(is_closed(&debit));
            assert!(resolution != Resolution::Posted, "its own account is closed to a post");
            debit.flags &= !account_flags::CLOSED;
        }
        if has(pending, transfer_flags::CLOSING_CREDIT) {
            assert!(is_closed(&credit));
            assert!(resolution != Resolution::Posted, "its own account is closed to a post");
            credit.flags &= !account_flags::CLOSED;
        }
        self.put_account(debit);
        self.put_account(credit);
        let record = self.transfers[&pending.id];
        assert_eq!(record.resolution, Resolution::Open);
        self.put_transfer(&TransferRecord { resolution, ..record });
    }

    fn transfer_timestamp_regresses(&self, timestamp: u64) -> bool {
        timestamp <= last_key(&self.transfer_ids) || self.account_ids.contains_key(&timestamp)
    }
}

/// Rows 7 to 16 of the table for regular and pending transfers.
fn check_regular_fields(t: &Transfer) -> Result<(), TransferStatus> {
    let pending = has(t, transfer_flags::PENDING);
    let closing = transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT;
    refuse(t.debit_account_id == 0, TransferStatus::DebitAccountIdMustNotBeZero)?;
    refuse(t.debit_account_id == u128::MAX, TransferStatus::DebitAccountIdMustNotBeIntMax)?;
    refuse(t.credit_account_id == 0, TransferStatus::CreditAccountIdMustNotBeZero)?;
    refuse(t.credit_account_id == u128::MAX, TransferStatus::CreditAccountIdMustNotBeIntMax)?;
    refuse(t.debit_account_id == t.credit_account_id, TransferStatus::AccountsMustBeDifferent)?;
    refuse(t.pending_id != 0, TransferStatus::PendingIdMustBeZero)?;
    refuse(!pending && t.timeout != 0, TransferStatus::TimeoutReservedForPendingTransfer)?;
    refuse(!pending && t.flags & closing != 0, TransferStatus::ClosingTransferMustBePending)?;
    refuse(t.ledger == 0, TransferStatus::LedgerMustNotBeZero)?;
    refuse(t.code == 0, TransferStatus::CodeMustNotBeZero)
}

/// Rows 14 to 17 of the table for posts and voids: what they name must be the pending transfer's.
fn check_post_or_void_matches(t: &Transfer, p: &Transfer) -> Result<(), TransferStatus> {
    refuse(
        t.debit_account_id != 0 && t.debit_account_id != p.debit_account_id,
        TransferStatus::PendingTransferHasDifferentDebitAccountId,
    )?;
    refuse(
        t.credit_account_id != 0 && t.credit_account_id != p.credit_account_id,
        TransferStatus::PendingTransferHasDifferentCreditAccountId,
    )?;
    refuse(
        t.ledger != 0 && t.ledger != p.ledger,
        TransferStatus::PendingTransferHasDifferentLedger,
    )?;
    refuse(t.code != 0 && t.code != p.code, TransferStatus::PendingTransferHasDifferentCode)
}

/// Rows 4 to 11 of the comparison with an existing regular or pending transfer.
fn difference_of_regular(t: &Transfer, e: &Transfer) -> Option<TransferStatus> {
    let balancing = transfer_flags::BALANCING_DEBIT | transfer_flags::BALANCING_CREDIT;
    let amount_differs =
        if t.flags & balancing != 0 { t.amount < e.amount } else { t.amount != e.amount };
    let differences = [
        (
            t.debit_account_id != e.debit_account_id,
            TransferStatus::ExistsWithDifferentDebitAccountId,
        ),
        (
            t.credit_account_id != e.credit_account_id,
            TransferStatus::ExistsWithDifferentCreditAccountId,
        ),
        (amount_differs, TransferStatus::ExistsWithDifferentAmount),
        (t.user_data_128 != e.user_data_128, TransferStatus::ExistsWithDifferentUserData128),
        (t.user_data_64 != e.user_data_64, TransferStatus::ExistsWithDifferentUserData64),
        (t.user_data_32 != e.user_data_32, TransferStatus::ExistsWithDifferentUserData32),
        (t.ledger != e.ledger, TransferStatus::ExistsWithDifferentLedger),
        (t.code != e.code, TransferStatus::ExistsWithDifferentCode),
    ];
    differences.into_iter().find(|(differs, _)| *differs).map(|(_, status)| status)
}

/// Rows 4 to 11 of the comparison with an existing post or void `e` of the pending `p`.
fn difference_of_post_or_void(t: &Transfer, e: &Transfer, p: &Transfer) -> Option<TransferStatus> {
    let amount = if has(t, transfer_flags::POST_PENDING_TRANSFER) {
        if t.amount == AMOUNT_MAX { p.amount } else { t.amount }
    } else if t.amount == 0 {
        p.amount
    } else {
        t.amount
    };
    // A zero in user data stands for the pending transfer's value.
    let user_data_128 = if t.user_data_128 == 0 { p.user_data_128 } else { t.user_data_128 };
    let user_data_64 = if t.user_data_64 == 0 { p.user_data_64 } else { t.user_data_64 };
    let user_data_32 = if t.user_data_32 == 0 { p.user_data_32 } else { t.user_data_32 };
    let differences = [
        (
            t.debit_account_id != 0 && t.debit_account_id != e.debit_account_id,
            TransferStatus::ExistsWithDifferentDebitAccountId,
        ),
        (
            t.credit_account_id != 0 && t.credit_account_id != e.credit_account_id,
            TransferStatus::ExistsWithDifferentCreditAccountId,
        ),
        (amount != e.amount, TransferStatus::ExistsWithDifferentAmount),
        (user_data_128 != e.user_data_128, TransferStatus::ExistsWithDifferentUserData128),
        (user_data_64 != e.user_data_64, TransferStatus::ExistsWithDifferentUserData64),
        (user_data_32 != e.user_data_32, TransferStatus::ExistsWithDifferentUserData32),
        (t.ledger != 0 && t.ledger != e.ledger, TransferStatus::ExistsWithDifferentLedger),
        (t.code != 0 && t.code != e.code, TransferStatus::ExistsWithDifferentCode),
    ];
    differences.into_iter().find(|(differs, _)| *differs).map(|(_, status)| status)
}

/// The state and its journal. Every change goes through one of the `put` functions.
impl Model {
    fn put_account(&mut self, account: Account) {
        let before = self.replace_account(account.id, Some(account));
        self.journal.push(Undo::Account { id: account.id, before });
    }

    fn put_transfer(&mut self, record: &TransferRecord) {
        let id = record.transfer.id;
        let before = self.replace_transfer(id, Some(record));
        self.journal.push(Undo::Transfer { id, before });
    }

    /// Stores a new transfer, after its accounts were updated.
    fn put_created_transfer(&mut self, transfer: Transfer, resolution: Resolution) {
        assert!(!self.transfers.contains_key(&transfer.id));
        let debit_balances = Balances::of(&self.accounts[&transfer.debit_account_id]);
        let credit_balances = Balances::of(&self.accounts[&transfer.credit_account_id]);
        self.put_transfer(&TransferRecord {
            transfer,
            resolution,
            debit_balances,
            credit_balances,
        });
    }

    fn put_change_event(&mut self, event: &ChangeEvent) {
        let timestamp = event.timestamp;
        let before = self.change_events.insert(timestamp, *event);
        self.journal.push(Undo::ChangeEvent { timestamp, before });
    }

    fn undo_journal(&mut self) {
        while let Some(undo) = self.journal.pop() {
            match undo {
                Undo::Account { id, before } => {
                    self.replace_account(id, before);
                }
                Undo::Transfer { id, before } => {
                    self.replace_transfer(id, before.as_ref());
                }
                Undo::ChangeEvent { timestamp, before } => {
                    if let Some(event) = before {
                        self.change_events.insert(timestamp, event);
                    } else {
                        self.change_events.remove(&timestamp);
                    }
                }
            }
        }
    }

    /// Sets or removes an account and its place in the order of time; gives what was there.
    fn replace_account(&mut self, id: u128, account: Option<Account>) -> Option<Account> {
        let before = self.accounts.remove(&id);
        if let Some(before) = &before {
            assert_eq!(self.account_ids.remove(&before.timestamp), Some(id));
        }
        if let Some(account) = account {
            assert!(!self.transfer_ids.contains_key(&account.timestamp));
            assert_eq!(self.account_ids.insert(account.timestamp, id), None);
            self.accounts.insert(id, account);
        }
        before
    }

    /// Sets or removes a transfer, its place in the order of time, and its expiry.
    fn replace_transfer(
        &mut self,
        id: u128,
        record: Option<&TransferRecord>,
    ) -> Option<TransferRecord> {
        let before = self.transfers.remove(&id);
        if let Some(before) = &before {
            let timestamp = before.transfer.timestamp;
            assert_eq!(self.transfer_ids.remove(&timestamp), Some(id));
            if let Some(expiry) = before.expiry() {
                assert_eq!(self.expiries.remove(&(expiry, timestamp)), Some(id));
            }
        }
        if let Some(record) = record {
            let timestamp = record.transfer.timestamp;
            assert!(!self.account_ids.contains_key(&timestamp));
            assert_eq!(self.transfer_ids.insert(timestamp, id), None);
            if let Some(expiry) = record.expiry() {
                assert_eq!(self.expiries.insert((expiry, timestamp), id), None);
            }
            self.transfers.insert(id, *record);
        }
        before
    }

    /// The change event of a transfer, with both accounts as they are now.
    fn change_event(&self, kind: u8, transfer: &Transfer, timestamp: u64) -> ChangeEvent {
        let debit = &self.accounts[&transfer.debit_account_id];
        let credit = &self.accounts[&transfer.credit_account_id];
        ChangeEvent {
            transfer_id: transfer.id,
            transfer_amount: transfer.amount,
            transfer_pending_id: transfer.pending_id,
            transfer_user_data_128: transfer.user_data_128,
            transfer_user_data_64: transfer.user_data_64,
            transfer_user_data_32: transfer.user_data_32,
            transfer_timeout: transfer.timeout,
            transfer_code: transfer.code,
            transfer_flags: transfer.flags,
            ledger: transfer.ledger,
            type_: kind,
            reserved: [0; 39],
            debit_account_id: debit.id,
            debit_account_debits_pending: debit.debits_pending,
            debit_account_debits_posted: debit.debits_posted,
            debit_account_credits_pending: debit.credits_pending,
            debit_account_credits_posted: debit.credits_posted,
            debit_account_user_data_128: debit.user_data_128,
            debit_account_user_data_64: debit.user_data_64,
            debit_account_user_data_32: debit.user_data_32,
            debit_account_code: debit.code,
            debit_account_flags: debit.flags,
            credit_account_id: credit.id,
            credit_account_debits_pending: credit.debits_pending,
            credit_account_debits_posted: credit.debits_posted,
            credit_account_credits_pending: credit.credits_pending,
            credit_account_credits_posted: credit.credits_posted,
            credit_account_user_data_128: credit.user_data_128,
            credit_account_user_data_64: credit.user_data_64,
            credit_account_user_data_32: credit.user_data_32,
            credit_account_code: credit.code,
            credit_account_flags: credit.flags,
            timestamp,
            transfer_timestamp: transfer.timestamp,
            debit_account_timestamp: debit.timestamp,
            credit_account_timestamp: credit.timestamp,
        }
    }
}

/// What tests and the simulator ask about the state.
impl Model {
    /// The commit timestamp of the last operation, 0 before the first.
    #[must_use]
    pub fn commit_timestamp(&self) -> u64 {
        self.commit_timestamp
    }

    /// All accounts, by id.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// All transfers, by id.
    pub fn transfers(&self) -> impl Iterator<Item = &Transfer> {
        self.transfers.values().map(|record| &record.transfer)
    }

    /// The ids that failed for a transient reason and can never be used, ascending.
    pub fn burnt_ids(&self) -> impl Iterator<Item = u128> {
        self.burnt_ids.iter().copied()
    }

    /// When the next open pending transfer expires, if any has a timeout.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiries.keys().next().map(|&(expiry, _)| expiry)
    }
}

/// What rules 3 and 4 of the frame find wrong with an event, if anything.
fn frame_fault(event: &Event, imported_batch: bool, timestamp: u64) -> Option<FrameFault> {
    if event.is_imported() && !imported_batch {
        Some(FrameFault::ImportedEventNotExpected)
    } else if !event.is_imported() && imported_batch {
        Some(FrameFault::ImportedEventExpected)
    } else if event.is_imported() {
        if event.timestamp() == 0 || event.timestamp() > TIMESTAMP_MAX {
            Some(FrameFault::ImportedEventTimestampOutOfRange)
        } else if event.timestamp() >= timestamp {
            Some(FrameFault::ImportedEventTimestampMustNotAdvance)
        } else {
            None
        }
    } else if event.timestamp() != 0 {
        Some(FrameFault::TimestampMustBeZero)
    } else {
        None
    }
}

/// Whether a `create_transfers` status burns the transfer's id.
fn is_transient(status: u32) -> bool {
    [
        TransferStatus::DebitAccountNotFound,
        TransferStatus::CreditAccountNotFound,
        TransferStatus::PendingTransferNotFound,
        TransferStatus::ExceedsCredits,
        TransferStatus::ExceedsDebits,
        TransferStatus::DebitAccountAlreadyClosed,
        TransferStatus::CreditAccountAlreadyClosed,
    ]
    .iter()
    .any(|&transient| transient as u32 == status)
}

/// One row of a precedence table: if the condition holds, the answer is the status.
fn refuse<Status>(condition: bool, status: Status) -> Result<(), Status> {
    if condition { Err(status) } else { Ok(()) }
}

fn has(transfer: &Transfer, flag: u16) -> bool {
    transfer.flags & flag != 0
}

fn is_closed(account: &Account) -> bool {
    account.flags & account_flags::CLOSED != 0
}

fn overflows(amounts: &[u128]) -> bool {
    let mut sum: u128 = 0;
    for &amount in amounts {
        match sum.checked_add(amount) {
            Some(larger) => sum = larger,
            None => return true,
        }
    }
    false
}

fn stored_timestamp(transfer: &Transfer, event_timestamp: u64) -> u64 {
    if has(transfer, transfer_flags::IMPORTED) { transfer.timestamp } else { event_timestamp }
}

/// When a stored pending transfer expires; `None` if never.
fn expires_at(transfer: &Transfer) -> Option<u64> {
    if transfer.timeout == 0 {
        return None;
    }
    assert!(has(transfer, transfer_flags::PENDING), "only pending transfers have timeouts");
    Some(transfer.timestamp + u64::from(transfer.timeout) * NANOSECONDS_PER_SECOND)
}

/// The highest timestamp in an index, 0 if it is empty.
fn last_key(index: &BTreeMap<u64, u128>) -> u64 {
    index.keys().next_back().copied().unwrap_or(0)
}

fn count_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a count fits 64 bits")
}

fn decode<Record: FromBytes>(bytes: &[u8]) -> Record {
    Record::read_from_bytes(bytes).expect("a batch holds exactly one filter")
}

fn decode_events(operation: Operation, batch: &[u8]) -> Vec<Event> {
    let chunks = batch.chunks_exact(128);
    assert!(chunks.remainder().is_empty());
    chunks
        .map(|chunk| match operation {
            Operation::CreateAccounts => Event::Account(decode(chunk)),
            Operation::CreateTransfers => Event::Transfer(decode(chunk)),
            _ => panic!("{operation:?} creates nothing"),
        })
        .collect()
}
