//! `get_account_transfers`, `get_account_balances`, `query_accounts` and `query_transfers`.
//!
//! Each is the same search: a range of rows that covers the timestamps, candidates from the
//! indexes (or all rows, without any condition), and every candidate read and judged by its
//! fields before it is answered. Rows are in timestamp order, so results are too.

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::protocol::operation::Operation;
use crate::protocol::to_index;
use crate::protocol::types::{
    Account, AccountBalance, AccountFilter, QueryFilter, TIMESTAMP_MAX, Transfer,
    account_filter_flags, account_flags, query_filter_flags,
};
use crate::ready;
use crate::storage::fetch::Fetch;
use crate::storage::find::{AccountScanFilter, EventFilter, TimeKey};
use crate::storage::rows::{is_expiry, is_orphan};
use crate::storage::scan::ScanState;
use crate::storage::scanning::{AccountScan, Direction, EventScan};
use crate::storage::store::Store;

use super::Ledger;
use super::account_cache::{AccountCache, SLOT_NONE};
use super::reads::{Reads, Verdict, WINDOW_MAX, WINDOW_MIN};
use super::transfer_rules::has;
use super::work::{AccountLoad, Extent, Task, load_copy};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Transfers,
    Balances,
    Accounts,
}

/// A filter, the same for all four operations. A zero is no condition.
#[derive(Clone, Copy, Debug)]
struct Conditions {
    subject: Subject,
    account_id: u128,
    debits: bool,
    credits: bool,
    user_data_128: u128,
    user_data_64: u64,
    user_data_32: u32,
    ledger: u32,
    code: u16,
    timestamp_min: u64,
    timestamp_max: u64,
    reversed: bool,
}

impl Conditions {
    fn from_account_filter(filter: &AccountFilter, subject: Subject) -> Conditions {
        Conditions {
            subject,
            account_id: filter.account_id,
            debits: filter.flags & account_filter_flags::DEBITS != 0,
            credits: filter.flags & account_filter_flags::CREDITS != 0,
            user_data_128: filter.user_data_128,
            user_data_64: filter.user_data_64,
            user_data_32: filter.user_data_32,
            ledger: 0,
            code: filter.code,
            timestamp_min: filter.timestamp_min,
            timestamp_max: upper_bound(filter.timestamp_max),
            reversed: filter.flags & account_filter_flags::REVERSED != 0,
        }
    }

    fn from_query_filter(filter: &QueryFilter, subject: Subject) -> Conditions {
        Conditions {
            subject,
            account_id: 0,
            debits: false,
            credits: false,
            user_data_128: filter.user_data_128,
            user_data_64: filter.user_data_64,
            user_data_32: filter.user_data_32,
            ledger: filter.ledger,
            code: filter.code,
            timestamp_min: filter.timestamp_min,
            timestamp_max: upper_bound(filter.timestamp_max),
            reversed: filter.flags & query_filter_flags::REVERSED != 0,
        }
    }

    /// Whether an index can narrow the search.
    fn is_indexed(&self) -> bool {
        self.account_id != 0
            || self.user_data_128 != 0
            || self.user_data_64 != 0
            || self.user_data_32 != 0
            || self.ledger != 0
            || self.code != 0
    }

    /// Judges a row of the event log.
    fn judge_transfer(&self, transfer: &Transfer) -> Verdict {
        if is_orphan(transfer) || is_expiry(transfer) {
            return Verdict::Skip;
        }
        let range = self.judge_timestamp(transfer.timestamp);
        if range != Verdict::Keep {
            return range;
        }
        let id = self.account_id;
        let side = id == 0
            || (self.debits && transfer.debit_account_id == id)
            || (self.credits && transfer.credit_account_id == id);
        let matches = side
            && (self.user_data_128 == 0 || self.user_data_128 == transfer.user_data_128)
            && (self.user_data_64 == 0 || self.user_data_64 == transfer.user_data_64)
            && (self.user_data_32 == 0 || self.user_data_32 == transfer.user_data_32)
            && (self.ledger == 0 || self.ledger == transfer.ledger)
            && (self.code == 0 || self.code == transfer.code);
        if matches { Verdict::Keep } else { Verdict::Skip }
    }

    /// Judges a row of the account log.
    fn judge_account(&self, account: &Account) -> Verdict {
        let range = self.judge_timestamp(account.timestamp);
        if range != Verdict::Keep {
            return range;
        }
        let matches = (self.user_data_128 == 0 || self.user_data_128 == account.user_data_128)
            && (self.user_data_64 == 0 || self.user_data_64 == account.user_data_64)
            && (self.user_data_32 == 0 || self.user_data_32 == account.user_data_32)
            && (self.ledger == 0 || self.ledger == account.ledger)
            && (self.code == 0 || self.code == account.code);
        if matches { Verdict::Keep } else { Verdict::Skip }
    }

    /// In range, still before it, or past it: timestamps of rows rise.
    fn judge_timestamp(&self, timestamp: u64) -> Verdict {
        let is_low = timestamp < self.timestamp_min;
        let is_high = timestamp > self.timestamp_max;
        if !is_low && !is_high {
            Verdict::Keep
        } else if is_high != self.reversed {
            Verdict::Beyond
        } else {
            Verdict::Skip
        }
    }
}

/// The last timestamp that a filter wants.
fn upper_bound(timestamp_max: u64) -> u64 {
    if timestamp_max == 0 { TIMESTAMP_MAX } else { timestamp_max }
}

/// How far the query of the current sub-batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is known about it.
    Parse,
    /// Does the account have a history?
    History,
    /// First row of the range.
    RowMin,
    /// End of the range.
    RowMax,
    /// Next candidates.
    Scan,
    /// Records of the window.
    Fetch,
}

/// Where candidates come from.
#[derive(Debug)]
enum Source {
    /// Every row of the range.
    All,
    Events(EventScan),
    Accounts(AccountScan),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Query {
    stage: Stage,
    conditions: Conditions,
    /// Results that are still wanted.
    limit: u32,
    row_min: u64,
    row_max: u64,
    source: Source,
    /// The source has no more candidates.
    exhausted: bool,
    load: Option<AccountLoad>,
}

impl Query {
    /// Before the first sub-batch.
    pub fn new() -> Query {
        let filter = QueryFilter::new_zeroed();
        Query {
            stage: Stage::Parse,
            conditions: Conditions::from_query_filter(&filter, Subject::Transfers),
            limit: 0,
            row_min: 0,
            row_max: 0,
            source: Source::All,
            exhausted: false,
            load: None,
        }
    }
}

/// What the reads of a window work on.
struct Context<'a> {
    store: &'a mut Store,
    cache: &'a AccountCache,
    reads: &'a mut Reads,
    conditions: Conditions,
}

fn run_task(context: &mut Context<'_>, task: &mut Task) -> Fetch<()> {
    let place = to_index(task.item);
    let row = context.reads.window[place];
    match context.conditions.subject {
        Subject::Transfers => {
            let transfer = ready!(context.store.transfer(row));
            context.reads.transfers[place] = transfer;
            context.reads.verdicts[place] = context.conditions.judge_transfer(&transfer);
            Fetch::Ready(())
        }
        Subject::Balances => {
            let transfer = ready!(context.store.transfer(row));
            let verdict = context.conditions.judge_transfer(&transfer);
            if verdict == Verdict::Keep {
                context.reads.balances[place] = ready!(context.store.balances(row));
            }
            context.reads.transfers[place] = transfer;
            context.reads.verdicts[place] = verdict;
            Fetch::Ready(())
        }
        Subject::Accounts => run_account(context, task, place, row),
    }
}

fn run_account(context: &mut Context<'_>, task: &mut Task, place: usize, row: u64) -> Fetch<()> {
    let Context { store, cache, reads, conditions } = context;
    if task.stage == 0 {
        let account = ready!(store.account(row));
        let verdict = conditions.judge_account(&account);
        if verdict != Verdict::Keep {
            reads.verdicts[place] = verdict;
            return Fetch::Ready(());
        }
        let slot = cache.find(account.id);
        if slot != SLOT_NONE {
            reads.accounts[place] = cache.entry(slot).account;
            reads.verdicts[place] = Verdict::Keep;
            return Fetch::Ready(());
        }
        task.advance(1);
        task.load = Some(AccountLoad::current(&account));
    }
    let load = task.load.as_mut().expect("set at the end of the first stage");
    let (account, _) = ready!(load.step(store)).expect("the account was read");
    reads.accounts[place] = account;
    reads.verdicts[place] = Verdict::Keep;
    Fetch::Ready(())
}

impl Ledger {
    /// Goes on with a query: the size of the reply's body in bytes.
    pub(super) fn query_step(
        &mut self,
        operation: Operation,
        body: &[u8],
        reply: &mut [u8],
    ) -> Fetch<u32> {
        while !self.batches.is_done() {
            ready!(self.query_batch(operation, body, reply));
            self.query.stage = Stage::Parse;
            self.batches.finish_batch();
        }
        Fetch::Ready(self.batches.finish(reply))
    }

    /// One sub-batch: ready when its results are in the reply.
    fn query_batch(&mut self, operation: Operation, body: &[u8], reply: &mut [u8]) -> Fetch<()> {
        loop {
            match self.query.stage {
                Stage::Parse => {
                    if !self.query_parse(operation, body, reply) {
                        return Fetch::Ready(());
                    }
                }
                Stage::History => {
                    if !ready!(self.query_history()) {
                        return Fetch::Ready(());
                    }
                    self.query.stage = Stage::RowMin;
                }
                Stage::RowMin => {
                    self.query.row_min = ready!(self.query_row_min());
                    self.query.stage = Stage::RowMax;
                }
                Stage::RowMax => {
                    self.query.row_max = ready!(self.query_row_max());
                    self.query_scan_start();
                    self.query.stage = Stage::Scan;
                }
                Stage::Scan => {
                    if !ready!(self.query_window_start()) {
                        return Fetch::Ready(());
                    }
                    self.query.stage = Stage::Fetch;
                }
                Stage::Fetch => {
                    let conditions = self.query.conditions;
                    let Ledger { store, cache, reads, work, .. } = self;
                    let mut context = Context { store, cache, reads, conditions };
                    ready!(work.drive(&mut context, run_task));
                    if self.query_answer(reply) {
                        return Fetch::Ready(());
                    }
                    self.query.stage = Stage::Scan;
                }
            }
        }
    }

    /// Whether the filter can select anything.
    fn query_parse(&mut self, operation: Operation, body: &[u8], reply: &[u8]) -> bool {
        let size = to_index(operation.event_size());
        assert!(self.batches.events() == 1, "a query has one filter");
        let start = to_index(self.batches.events_before()) * size;
        let bytes = &body[start..start + size];
        let subject = match operation {
            Operation::GetAccountTransfers | Operation::QueryTransfers => Subject::Transfers,
            Operation::GetAccountBalances => Subject::Balances,
            Operation::QueryAccounts => Subject::Accounts,
            _ => unreachable!("not a query"),
        };
        let (conditions, limit, valid) = match operation {
            Operation::GetAccountTransfers | Operation::GetAccountBalances => {
                let filter = AccountFilter::read_from_bytes(bytes).expect("the size is right");
                let conditions = Conditions::from_account_filter(&filter, subject);
                (conditions, filter.limit, filter.is_valid())
            }
            _ => {
                let filter = QueryFilter::read_from_bytes(bytes).expect("the size is right");
                let conditions = Conditions::from_query_filter(&filter, subject);
                (conditions, filter.limit, filter.is_valid())
            }
        };
        let limit = limit.min(operation.results_max()).min(self.batches.room(reply));
        self.query = Query { conditions, limit, ..Query::new() };
        self.query.stage =
            if subject == Subject::Balances { Stage::History } else { Stage::RowMin };
        valid && limit > 0
    }

    /// Whether the account exists and has a history.
    fn query_history(&mut self) -> Fetch<bool> {
        let Ledger { store, cache, query, .. } = self;
        let id = query.conditions.account_id;
        let account = ready!(load_copy(store, cache, &mut query.load, id, Extent::Immutable));
        Fetch::Ready(account.is_some_and(|account| has(account.flags, account_flags::HISTORY)))
    }

    fn query_row_min(&mut self) -> Fetch<u64> {
        let timestamp = self.query.conditions.timestamp_min;
        if timestamp <= 1 {
            return Fetch::Ready(0);
        }
        match self.query.conditions.subject {
            Subject::Accounts => self.store.search_accounts(timestamp),
            Subject::Transfers | Subject::Balances => {
                self.store.search_events(TimeKey::Transfer, timestamp)
            }
        }
    }

    /// Rows from here on are later than the range. Only a search that starts at the end needs
    /// to know better than the number of rows.
    fn query_row_max(&mut self) -> Fetch<u64> {
        let Conditions { subject, timestamp_max, reversed, .. } = self.query.conditions;
        let is_accounts = subject == Subject::Accounts;
        let (rows, highest) = if is_accounts {
            (self.store.accounts_rows(), self.state.account_timestamp_max)
        } else {
            (self.store.events_rows(), self.state.transfer_timestamp_max)
        };
        if !reversed || timestamp_max >= highest {
            return Fetch::Ready(rows);
        }
        let later = timestamp_max + 1;
        let block = if is_accounts {
            ready!(self.store.search_accounts(later))
        } else {
            ready!(self.store.search_events(TimeKey::Transfer, later))
        };
        // The first later row lies in this block or, if it is the last that is full, behind it.
        let block_end = block + self.options.rows_per_block;
        let newest_max = self.options.rows_per_block + u64::from(self.options.batch_max);
        Fetch::Ready(if block_end + newest_max < rows { block_end } else { rows })
    }

    fn query_scan_start(&mut self) {
        let Query { conditions, row_min, row_max, .. } = self.query;
        let direction =
            if conditions.reversed { Direction::Descending } else { Direction::Ascending };
        self.reads.clear();
        self.query.exhausted = row_min >= row_max;
        self.query.source = if !conditions.is_indexed() {
            Source::All
        } else if conditions.subject == Subject::Accounts {
            let filter = AccountScanFilter {
                user_data_128: conditions.user_data_128,
                user_data_64: conditions.user_data_64,
                user_data_32: conditions.user_data_32,
                ledger: conditions.ledger,
                code: conditions.code,
            };
            Source::Accounts(self.store.scan_accounts_start(&filter, row_min, row_max, direction))
        } else {
            let filter = EventFilter {
                account_id: conditions.account_id,
                debits: conditions.debits,
                credits: conditions.credits,
                user_data_128: conditions.user_data_128,
                user_data_64: conditions.user_data_64,
                user_data_32: conditions.user_data_32,
                ledger: conditions.ledger,
                code: conditions.code,
                expiry_slot: None,
            };
            Source::Events(self.store.scan_events_start(&filter, row_min, row_max, direction))
        };
    }

    /// Fills the window with candidates; false if there are none left.
    fn query_window_start(&mut self) -> Fetch<bool> {
        let window_max = to_index(self.query.limit).clamp(WINDOW_MIN, WINDOW_MAX);
        if let Source::All = self.query.source {
            self.query_window_of_all(window_max);
        } else {
            while self.reads.scanning || self.reads.rows_taken == self.reads.rows.rows().len() {
                if !self.reads.scanning {
                    if self.query.exhausted {
                        return Fetch::Ready(false);
                    }
                    self.reads.clear();
                    self.reads.scanning = true;
                }
                let state = match &mut self.query.source {
                    Source::Events(scan) => self.store.scan_events(scan, &mut self.reads.rows),
                    Source::Accounts(scan) => self.store.scan_accounts(scan, &mut self.reads.rows),
                    Source::All => unreachable!("handled above"),
                };
                self.query.exhausted = ready!(state) == ScanState::End;
                self.reads.scanning = false;
            }
            let taken = self.reads.rows_taken;
            let count = window_max.min(self.reads.rows.rows().len() - taken);
            self.reads.window_start(count);
            let rows = &self.reads.rows.rows()[taken..taken + count];
            self.reads.window.copy_from_slice(rows);
            self.reads.rows_taken += count;
        }
        self.work.clear();
        for item in 0..self.reads.window.len() {
            self.work.push(u32::try_from(item).expect("a place in a window"));
        }
        Fetch::Ready(!self.reads.window.is_empty())
    }

    /// The next rows of the range, without an index.
    fn query_window_of_all(&mut self, window_max: usize) {
        let Query { row_min, row_max, .. } = self.query;
        let left = row_max.saturating_sub(row_min);
        let window = u64::try_from(window_max).expect("a small number");
        let count = left.min(window);
        self.reads.window_start(usize::try_from(count).expect("a small number"));
        if self.query.conditions.reversed {
            for (row, place) in (row_min..row_max).rev().zip(&mut self.reads.window) {
                *place = row;
            }
            self.query.row_max = row_max.max(row_min) - count;
        } else {
            for (row, place) in (row_min..row_max).zip(&mut self.reads.window) {
                *place = row;
            }
            self.query.row_min += count;
        }
    }

    /// Answers the records of the window; true if no more are wanted.
    fn query_answer(&mut self, reply: &mut [u8]) -> bool {
        for place in 0..self.reads.window.len() {
            match self.reads.verdicts[place] {
                Verdict::Skip => continue,
                Verdict::Beyond => return true,
                Verdict::Keep => {}
            }
            let transfer = &self.reads.transfers[place];
            match self.query.conditions.subject {
                Subject::Transfers => self.batches.push(reply, transfer.as_bytes()),
                Subject::Accounts => {
                    self.batches.push(reply, self.reads.accounts[place].as_bytes());
                }
                Subject::Balances => {
                    let row = &self.reads.balances[place];
                    let is_debit = transfer.debit_account_id == self.query.conditions.account_id;
                    let side = if is_debit { row.debit } else { row.credit };
                    let balance = AccountBalance {
                        debits_pending: side.debits_pending,
                        debits_posted: side.debits_posted,
                        credits_pending: side.credits_pending,
                        credits_posted: side.credits_posted,
                        timestamp: transfer.timestamp,
                        reserved: [0; 56],
                    };
                    self.batches.push(reply, balance.as_bytes());
                }
            }
            self.query.limit -= 1;
            if self.query.limit == 0 {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions() -> Conditions {
        Conditions::from_query_filter(&QueryFilter::new_zeroed(), Subject::Transfers)
    }

    fn transfer() -> Transfer {
        Transfer { ledger: 1, code: 1, timestamp: 10, ..Transfer::default() }
    }

    /// Goal: what lies past the range ends a search, what lies before it does not.
    #[test]
    fn range() {
        let range = Conditions { timestamp_min: 5, timestamp_max: 7, ..conditions() };
        let judge =
            |reversed, timestamp| Conditions { reversed, ..range }.judge_timestamp(timestamp);
        assert_eq!(judge(false, 4), Verdict::Skip);
        assert_eq!(judge(false, 8), Verdict::Beyond);
        assert_eq!(judge(true, 4), Verdict::Beyond);
        assert_eq!(judge(true, 8), Verdict::Skip);
        for reversed in [false, true] {
            assert_eq!(judge(reversed, 5), Verdict::Keep);
            assert_eq!(judge(reversed, 7), Verdict::Keep);
        }
    }

    /// Goal: rows that are no created transfers never match, nor do they end a search.
    #[test]
    fn only_transfers() {
        let past = Conditions { timestamp_max: 1, ..conditions() };
        let orphan = Transfer { timestamp: 10, ..Transfer::default() };
        assert_eq!(past.judge_transfer(&orphan), Verdict::Skip);
        let expiry = Transfer { flags: crate::storage::rows::STORED_FLAG_EXPIRY, ..transfer() };
        assert_eq!(past.judge_transfer(&expiry), Verdict::Skip);
        assert_eq!(past.judge_transfer(&transfer()), Verdict::Beyond);
        assert_eq!(conditions().judge_transfer(&transfer()), Verdict::Keep);
    }

    /// Goal: an account matches on the sides asked for only.
    #[test]
    fn sides() {
        let row = Transfer { debit_account_id: 1, credit_account_id: 2, ..transfer() };
        let judge = |account_id, debits, credits| {
            Conditions { account_id, debits, credits, ..conditions() }.judge_transfer(&row)
        };
        assert_eq!(judge(1, true, false), Verdict::Keep);
        assert_eq!(judge(1, false, true), Verdict::Skip);
        assert_eq!(judge(2, true, false), Verdict::Skip);
        assert_eq!(judge(2, true, true), Verdict::Keep);
        assert_eq!(judge(3, true, true), Verdict::Skip);
    }
}
