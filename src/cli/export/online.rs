//! The records of a live cluster, in the order of their timestamps, page after page.
//!
//! Records never change. A new transfer is newer than all other transfers, and a new account than
//! all other accounts; but an imported one can be older than the moment of the first question.
//! [`Extent`] excludes those that were created since, so that all pages are of one state.
//!
//! Answers are checked: the timestamps of a page must be in the range of the question and in its
//! order. Therefore each page goes beyond the one before, and there is a last page.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::balances::{BalancesAt, Start};
use super::event::{Event, Extent};
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::patient::{Answered, PatientClient};
use crate::client::ClientError;
use crate::client::page::{Record, check_order};
use crate::protocol::types::{
    Account, AccountFilter, ChangeEvent, ChangeEventsFilter, QueryFilter, TIMESTAMP_MAX,
    TIMESTAMP_MIN, Transfer, account_filter_flags, account_flags, query_filter_flags,
    transfer_flags,
};
use crate::protocol::{Operation, to_index};
use crate::storage::rows::{Balances, EventKind};

/// Returns an account as it was created; may ask the source.
pub type Creation<'a> = dyn FnMut(&Account) -> Result<Account, Failure> + 'a;
/// Visits an account.
pub type VisitAccount<'a> = dyn FnMut(&Account, &mut Creation<'_>) -> Result<(), Failure> + 'a;

/// Attempts to find the newest transfer and the newest account of one state.
const PRESENT_ATTEMPTS_MAX: u32 = 100;
/// Maximum pending transfers of one account that are known by their ids alone.
const ENDED_MAX: usize = 1 << 20;

/// A cluster.
#[derive(Debug)]
pub struct ClusterSource {
    cluster: Cluster,
    /// See [`ENDED_MAX`].
    ended_max: usize,
}

/// The program that answers questions.
#[derive(Debug)]
enum Cluster {
    Replicas(Box<PatientClient>),
    #[cfg(test)]
    Fake(tests::Fake),
}

/// The part of an account's history that only imported transfers are in, the newest first.
#[derive(Debug, Default)]
struct Imported {
    /// Whether there is any.
    is_any: bool,
    /// Ids of the pending transfers that they end.
    ended: Vec<u128>,
}

impl Imported {
    fn add(&mut self, transfer: &Transfer) {
        self.is_any = true;
        if transfer.pending_id != 0 {
            self.ended.push(transfer.pending_id);
        }
    }
}

impl ClusterSource {
    /// Returns the cluster that this client talks to.
    #[must_use]
    pub fn new(client: PatientClient) -> ClusterSource {
        ClusterSource { cluster: Cluster::Replicas(Box::new(client)), ended_max: ENDED_MAX }
    }

    fn ask<Question, Row>(
        &mut self,
        operation: Operation,
        questions: &[Question],
    ) -> Result<Answered<Row>, Failure>
    where
        Question: IntoBytes + Immutable,
        Row: FromBytes,
    {
        let answered = match &mut self.cluster {
            Cluster::Replicas(client) => client.ask(operation, questions)?,
            #[cfg(test)]
            Cluster::Fake(fake) => Some(fake.answer(operation, questions.as_bytes())),
        };
        // A wish of the user to end the command leaves the question unanswered.
        answered.ok_or_else(|| Failure::new(ExitClass::Error, "interrupted"))
    }

    /// Returns the extent of the present state, that of the answered question about transfers.
    ///
    /// The next question looks for the newest account up to the moment of that answer. An account
    /// with its own timestamp was created before that moment. An imported one may have been created
    /// since, unless an earlier attempt had found it already.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be reached or refuses the client, or accounts are imported all the
    /// time.
    pub fn present(&mut self) -> Result<Extent, Failure> {
        let mut known = None;
        for _ in 0..PRESENT_ATTEMPTS_MAX {
            let flags = query_filter_flags::REVERSED;
            let filter = QueryFilter { limit: 1, flags, ..QueryFilter::new_zeroed() };
            let transfers = self.ask::<_, Transfer>(Operation::QueryTransfers, &[filter])?;
            check_page(&transfers.results, TIMESTAMP_MIN, TIMESTAMP_MAX)?;
            let last_transfer = transfers.results.first().map_or(0, |transfer| transfer.timestamp);
            let last = transfers.timestamp;
            let filter = QueryFilter { timestamp_max: last, ..filter };
            let accounts = self.ask::<_, Account>(Operation::QueryAccounts, &[filter])?;
            check_page(&accounts.results, TIMESTAMP_MIN, last)?;
            let newest = accounts.results.first();
            let last_account = newest.map_or(0, |account| account.timestamp);
            let is_imported =
                newest.is_some_and(|account| account.flags & account_flags::IMPORTED != 0);
            if !is_imported || known == Some(last_account) {
                return Ok(Extent { last, last_transfer, last_account });
            }
            known = Some(last_account);
        }
        let message = "accounts are being imported all the time: try again when the import is over";
        Err(Failure::new(ExitClass::Error, message))
    }

    /// Visits all events of a range.
    ///
    /// # Errors
    ///
    /// If the cluster fails, or the visitor.
    pub fn events(
        &mut self,
        first: u64,
        last: u64,
        visit: &mut dyn FnMut(&Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.change_events(first, last, &mut |event| visit(&event_of(event)?))
    }

    /// Visits all change events of a range. An imported transfer can have the timestamp of an
    /// expiry, so a page can end between two events of one timestamp.
    fn change_events(
        &mut self,
        first: u64,
        last: u64,
        visit: &mut dyn FnMut(&ChangeEvent) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let limit = Operation::GetChangeEvents.results_max();
        let mut next = first.max(TIMESTAMP_MIN);
        // Types of the events of timestamp `next` that were visited.
        let mut seen = Vec::new();
        while next <= last {
            let filter = ChangeEventsFilter {
                timestamp_min: next,
                timestamp_max: last,
                limit,
                ..ChangeEventsFilter::new_zeroed()
            };
            let page = self.ask::<_, ChangeEvent>(Operation::GetChangeEvents, &[filter])?.results;
            check_page(&page, next, last)?;
            let new = page.iter().filter(|it| it.timestamp != next || !seen.contains(&it.type_));
            let mut new = new.peekable();
            let Some(newest) = page.last().filter(|_| new.peek().is_some()) else { return Ok(()) };
            new.try_for_each(&mut *visit)?;
            next = newest.timestamp;
            seen = page.iter().filter(|it| it.timestamp == next).map(|it| it.type_).collect();
        }
        Ok(())
    }

    /// Visits all transfers up to a moment.
    ///
    /// # Errors
    ///
    /// If the cluster fails, or the visitor.
    pub fn transfers(
        &mut self,
        last: u64,
        visit: &mut dyn FnMut(&Transfer) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut next = 1;
        loop {
            let page = self.page::<Transfer>(Operation::QueryTransfers, next, last)?;
            let Some(newest) = page.last() else { return Ok(()) };
            next = newest.timestamp + 1;
            page.iter().try_for_each(&mut *visit)?;
        }
    }

    /// Visits all accounts up to a moment, as they are now.
    ///
    /// # Errors
    ///
    /// If the cluster fails, or the visitor.
    pub fn accounts(&mut self, last: u64, visit: &mut VisitAccount<'_>) -> Result<(), Failure> {
        let mut next = 1;
        loop {
            let page = self.page::<Account>(Operation::QueryAccounts, next, last)?;
            let Some(newest) = page.last() else { return Ok(()) };
            next = newest.timestamp + 1;
            for account in &page {
                visit(account, &mut |account| self.as_created(account))?;
            }
        }
    }

    /// Returns an account as it was created, if it exists.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn account(&mut self, id: u128) -> Result<Option<Account>, Failure> {
        match self.account_now(id)? {
            Some(account) => self.as_created(&account).map(Some),
            None => Ok(None),
        }
    }

    fn account_now(&mut self, id: u128) -> Result<Option<Account>, Failure> {
        let answered = self.ask::<_, Account>(Operation::LookupAccounts, &[id])?;
        check_page(&answered.results, TIMESTAMP_MIN, TIMESTAMP_MAX)?;
        if answered.results.iter().any(|account| account.id != id) {
            return Err(Failure::contradiction(format!("another account than {id}")));
        }
        Ok(answered.results.first().copied())
    }

    /// Returns an account as it was created. An account that was created closed never has a
    /// transfer.
    fn as_created(&mut self, account: &Account) -> Result<Account, Failure> {
        let mut created = account.created();
        let is_closed = account.flags & account_flags::CLOSED != 0;
        if is_closed && self.transfers_of(account.id, TIMESTAMP_MAX, 1, 0)?.is_empty() {
            created.flags |= account_flags::CLOSED;
        }
        Ok(created)
    }

    /// Returns transfers of an account on either side up to a moment.
    fn transfers_of(
        &mut self,
        account_id: u128,
        last: u64,
        limit: u32,
        flags: u32,
    ) -> Result<Vec<Transfer>, Failure> {
        if last == 0 {
            // In a filter, 0 means unlimited.
            return Ok(Vec::new());
        }
        let filter = AccountFilter {
            account_id,
            timestamp_max: last,
            limit,
            flags: account_filter_flags::DEBITS | account_filter_flags::CREDITS | flags,
            ..AccountFilter::new_zeroed()
        };
        let transfers = self.ask::<_, Transfer>(Operation::GetAccountTransfers, &[filter])?.results;
        if flags & account_filter_flags::REVERSED == 0 {
            check_page(&transfers, TIMESTAMP_MIN, last)?;
        } else {
            check_reversed(&transfers, TIMESTAMP_MIN, last)?;
        }
        let is_of =
            |it: &Transfer| it.debit_account_id == account_id || it.credit_account_id == account_id;
        if let Some(other) = transfers.iter().find(|transfer| !is_of(transfer)) {
            let what = format!("transfer {} as one of account {account_id}", other.id);
            return Err(Failure::contradiction(what));
        }
        Ok(transfers)
    }

    /// Begins the sum of an account's events as late as possible, with the balances after one of
    /// its transfers. Returns the timestamp of the first event to add; `None` if the sum is
    /// complete.
    ///
    /// The balances after a transfer are those of its timestamp, unless it was imported: then they
    /// include expiries that happened before it was imported, and may be newer. Such expiries are
    /// of pending transfers with a timeout, which cannot be imported. So balances after a transfer
    /// that was not imported are where the sum begins. If too many imported ones end pending
    /// transfers, it begins at the first event.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn shorten(
        &mut self,
        account_id: u128,
        extent: &Extent,
        balances: &mut BalancesAt,
    ) -> Result<Option<u64>, Failure> {
        // Before the question for the newest transfer: a transfer in between is noticed.
        let current = self.account_now(account_id)?;
        let last = extent.last.min(extent.last_transfer);
        let Some(newest) = self.last_transfer_of(account_id, last)? else { return Ok(None) };
        let mut imported = Imported::default();
        let mut origin = Some(newest);
        while let Some(transfer) = origin.filter(is_imported) {
            imported.add(&transfer);
            origin = self.before(account_id, transfer.timestamp, &mut imported)?;
            if imported.ended.len() > self.ended_max {
                return Ok(Some(1));
            }
        }
        let start = match &origin {
            Some(origin) => self.start_at(account_id, origin.timestamp)?,
            None => Start::default(),
        };
        // Nothing expired if nothing was pending that could expire.
        let mut is_settled = !is_open(&start);
        if !imported.is_any && !is_settled && current.is_some_and(|it| is_as_now(&start, &it)) {
            // Equal to the balances of now, and only a newer transfer could have restored them.
            is_settled = self.last_transfer_of(account_id, TIMESTAMP_MAX)? == origin;
        }
        if is_settled {
            let start = self.start_at(account_id, newest.timestamp)?;
            balances.start(account_id, &start);
            return Ok(None);
        }
        balances.start(account_id, &start);
        self.add_holds(&imported.ended, start.timestamp, balances)?;
        Ok(Some(start.timestamp + 1))
    }

    fn last_transfer_of(&mut self, id: u128, last: u64) -> Result<Option<Transfer>, Failure> {
        let transfers = self.transfers_of(id, last, 1, account_filter_flags::REVERSED)?;
        Ok(transfers.first().copied())
    }

    /// Looks in one page for the newest transfer before a moment that was not imported. Adds the
    /// imported ones above it, and returns the last transfer of the search.
    fn before(
        &mut self,
        account_id: u128,
        timestamp: u64,
        imported: &mut Imported,
    ) -> Result<Option<Transfer>, Failure> {
        let limit = Operation::GetAccountTransfers.results_max();
        let flags = account_filter_flags::REVERSED;
        let mut page = self.transfers_of(account_id, timestamp - 1, limit, flags)?;
        let end = page.iter().position(|transfer| !is_imported(transfer));
        page.truncate(end.map_or(page.len(), |end| end + 1));
        let last = page.pop();
        for transfer in &page {
            imported.add(transfer);
        }
        Ok(last)
    }

    /// Returns the balances of an account right after its transfer of this timestamp.
    fn start_at(&mut self, account_id: u128, timestamp: u64) -> Result<Start, Failure> {
        let mut start = None;
        self.change_events(timestamp, timestamp, &mut |event| {
            // An expiry can have the same timestamp.
            if event.type_ != EventKind::Expired as u8 {
                start = start_of(event, account_id);
            }
            Ok(())
        })?;
        start.ok_or_else(|| {
            let what = format!("no event of account {account_id} at timestamp {timestamp}");
            Failure::contradiction(format!("{what}, but a transfer"))
        })
    }

    /// Adds those of these pending transfers that began at or before a moment.
    fn add_holds(
        &mut self,
        ids: &[u128],
        last: u64,
        balances: &mut BalancesAt,
    ) -> Result<(), Failure> {
        for ids in ids.chunks(to_index(Operation::LookupTransfers.results_max())) {
            let found = self.ask::<_, Transfer>(Operation::LookupTransfers, ids)?;
            let begun = found.results.iter().filter(|pending| pending.timestamp <= last);
            begun.for_each(|pending| balances.add_hold(pending));
        }
        Ok(())
    }

    fn page<Row: Record + FromBytes>(
        &mut self,
        operation: Operation,
        first: u64,
        last: u64,
    ) -> Result<Vec<Row>, Failure> {
        if first > last {
            return Ok(Vec::new());
        }
        let filter = QueryFilter {
            timestamp_min: first,
            timestamp_max: last,
            limit: operation.results_max(),
            ..QueryFilter::new_zeroed()
        };
        let page = self.ask::<_, Row>(operation, &[filter])?.results;
        check_page(&page, first, last)?;
        Ok(page)
    }
}

/// Checks that the records of an answer are of the range, and that their timestamps rise.
fn check_page<Row: Record>(page: &[Row], first: u64, last: u64) -> Result<(), Failure> {
    let checked = check_order(page.iter().map(Row::place), first, last);
    checked.map_err(|error| ClientError::Server(error).into())
}

/// Checks an answer that begins with the newest record.
fn check_reversed<Row: Record>(page: &[Row], first: u64, last: u64) -> Result<(), Failure> {
    let checked = check_order(page.iter().rev().map(Row::place), first, last);
    checked.map_err(|error| ClientError::Server(error).into())
}

fn is_imported(transfer: &Transfer) -> bool {
    transfer.flags & transfer_flags::IMPORTED != 0
}

/// Whether a pending transfer that expires would change something.
fn is_open(start: &Start) -> bool {
    let Balances { debits_pending, credits_pending, .. } = start.balances;
    debits_pending > 0 || credits_pending > 0 || start.flags & account_flags::CLOSED != 0
}

/// Whether balances and flags are those that the account has now.
fn is_as_now(start: &Start, current: &Account) -> bool {
    let now = Balances {
        debits_pending: current.debits_pending,
        debits_posted: current.debits_posted,
        credits_pending: current.credits_pending,
        credits_posted: current.credits_posted,
    };
    start.balances == now && start.flags == current.flags
}

/// Returns an event without the balances after it; fails if its type is unknown.
fn event_of(event: &ChangeEvent) -> Result<Event, Failure> {
    let transfer = Transfer {
        id: event.transfer_id,
        debit_account_id: event.debit_account_id,
        credit_account_id: event.credit_account_id,
        amount: event.transfer_amount,
        pending_id: event.transfer_pending_id,
        user_data_128: event.transfer_user_data_128,
        user_data_64: event.transfer_user_data_64,
        user_data_32: event.transfer_user_data_32,
        timeout: event.transfer_timeout,
        ledger: event.ledger,
        code: event.transfer_code,
        flags: event.transfer_flags,
        timestamp: event.timestamp,
    };
    let known = EventKind::from_byte(event.type_).filter(|it| *it != EventKind::Orphan);
    let kind = known.ok_or_else(|| {
        let (type_, timestamp) = (event.type_, event.timestamp);
        Failure::contradiction(format!("an event of type {type_} at timestamp {timestamp}"))
    })?;
    Ok(Event { kind, transfer })
}

/// Returns the balances of an account right after an event; `None` if the event is of others.
fn start_of(event: &ChangeEvent, account_id: u128) -> Option<Start> {
    let timestamp = event.timestamp;
    if event.debit_account_id == account_id {
        let balances = Balances {
            debits_pending: event.debit_account_debits_pending,
            debits_posted: event.debit_account_debits_posted,
            credits_pending: event.debit_account_credits_pending,
            credits_posted: event.debit_account_credits_posted,
        };
        return Some(Start { balances, flags: event.debit_account_flags, timestamp });
    }
    let balances = Balances {
        debits_pending: event.credit_account_debits_pending,
        debits_posted: event.credit_account_debits_posted,
        credits_pending: event.credit_account_credits_pending,
        credits_posted: event.credit_account_credits_posted,
    };
    let start = Start { balances, flags: event.credit_account_flags, timestamp };
    (event.credit_account_id == account_id).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::{TIMESTAMP_MIN, change_event_type};

    /// A cluster with few records to a page. `then` changes it after a number of questions.
    #[derive(Debug, Default)]
    pub struct Fake {
        accounts: Vec<Account>,
        transfers: Vec<Transfer>,
        events: Vec<ChangeEvent>,
        page: usize,
        now: u64,
        asked: Vec<Operation>,
        then: Vec<(usize, Change)>,
        /// Whether every page is the first one.
        ignores_range: bool,
    }

    #[derive(Clone, Copy, Debug)]
    enum Change {
        Account(Account),
        Transfer(Transfer),
    }

    impl Fake {
        pub fn answer<Row: FromBytes>(
            &mut self,
            operation: Operation,
            filter: &[u8],
        ) -> Answered<Row> {
            for (count, change) in &self.then {
                match change {
                    _ if *count != self.asked.len() => {}
                    Change::Account(account) => self.accounts.push(*account),
                    Change::Transfer(transfer) => self.transfers.push(*transfer),
                }
            }
            self.asked.push(operation);
            assert!(self.asked.len() < 10_000, "the questions end");
            self.now += 1;
            let bytes = match operation {
                Operation::QueryAccounts => {
                    self.select(&self.accounts, query(filter), |it| it.timestamp)
                }
                Operation::QueryTransfers => {
                    self.select(&self.transfers, query(filter), |it| it.timestamp)
                }
                Operation::GetChangeEvents => {
                    let filter = ChangeEventsFilter::read_from_bytes(filter).unwrap();
                    let range = (filter.timestamp_min, filter.timestamp_max);
                    self.select(&self.events, (range, filter.limit, false), |it| it.timestamp)
                }
                Operation::GetAccountTransfers => {
                    let filter = AccountFilter::read_from_bytes(filter).unwrap();
                    let is_reversed = filter.flags & account_filter_flags::REVERSED != 0;
                    let range = (filter.timestamp_min, filter.timestamp_max);
                    let filter = (range, filter.limit, is_reversed);
                    self.select(&self.transfers, filter, |it| it.timestamp)
                }
                Operation::LookupAccounts => self.accounts[0].as_bytes().to_vec(),
                other => panic!("{other:?} is not answered"),
            };
            let rows = bytes.chunks_exact(size_of::<Row>());
            let results = rows.map(|row| Row::read_from_bytes(row).unwrap()).collect();
            Answered { results, timestamp: self.now }
        }

        fn select<Record: IntoBytes + Immutable>(
            &self,
            records: &[Record],
            (range, limit, is_reversed): ((u64, u64), u32, bool),
            timestamp: impl Fn(&Record) -> u64,
        ) -> Vec<u8> {
            let last = if range.1 == 0 { TIMESTAMP_MAX } else { range.1 };
            let in_range = |record: &&Record| {
                self.ignores_range || (range.0..=last).contains(&timestamp(record))
            };
            let mut found: Vec<&Record> = records.iter().filter(in_range).collect();
            found.sort_by_key(|record| timestamp(record));
            if is_reversed {
                found.reverse();
            }
            found.truncate(self.page.min(to_index(limit)));
            found.iter().flat_map(|record| record.as_bytes().to_vec()).collect()
        }
    }

    fn query(filter: &[u8]) -> ((u64, u64), u32, bool) {
        let filter = QueryFilter::read_from_bytes(filter).unwrap();
        let is_reversed = filter.flags & query_filter_flags::REVERSED != 0;
        ((filter.timestamp_min, filter.timestamp_max), filter.limit, is_reversed)
    }

    fn source(fake: Fake) -> ClusterSource {
        ClusterSource { cluster: Cluster::Fake(Fake { page: 3, now: 1000, ..fake }), ended_max: 4 }
    }

    fn asked(source: &ClusterSource) -> &[Operation] {
        let Cluster::Fake(fake) = &source.cluster else { panic!("it is a fake") };
        &fake.asked
    }

    fn account(id: u128, timestamp: u64, flags: u16) -> Account {
        Account { id, flags, timestamp, ..Account::default() }
    }

    fn transfer(id: u128, timestamp: u64, flags: u16) -> Transfer {
        let (debit_account_id, credit_account_id) = (1, 2);
        Transfer {
            id,
            debit_account_id,
            credit_account_id,
            flags,
            timestamp,
            ..Transfer::default()
        }
    }

    fn change(type_: u8, transfer_id: u128, timestamp: u64) -> ChangeEvent {
        let debit_account_id = 1;
        ChangeEvent { transfer_id, type_, debit_account_id, timestamp, ..ChangeEvent::new_zeroed() }
    }

    /// Goal: pages continue where the last one ended, and none is read after the newest record.
    #[test]
    fn pages() {
        let accounts = (1..=6).map(|id| account(id, u64::try_from(id).unwrap() * 10, 0)).collect();
        let transfers =
            (1..=6).map(|id| transfer(id, u64::try_from(id).unwrap() * 10 + 5, 0)).collect();
        let mut source = source(Fake { accounts, transfers, ..Fake::default() });
        let extent = source.present().unwrap();
        assert_eq!(extent, Extent { last: 1001, last_transfer: 65, last_account: 60 });
        let mut found = Vec::new();
        let visit = &mut |account: &Account, _: &mut Creation<'_>| {
            found.push(account.id);
            Ok(())
        };
        source.accounts(extent.last_account, visit).unwrap();
        assert_eq!(found, [1, 2, 3, 4, 5, 6]);
        found.clear();
        let visit = &mut |transfer: &Transfer| {
            found.push(transfer.id);
            Ok(())
        };
        source.transfers(extent.last_transfer, visit).unwrap();
        assert_eq!(found, [1, 2, 3, 4, 5, 6]);
        let (accounts, transfers) = (Operation::QueryAccounts, Operation::QueryTransfers);
        assert_eq!(asked(&source), [transfers, accounts, accounts, accounts, transfers, transfers]);
    }

    /// Goal: where a page ends between two events of one timestamp, each comes once.
    #[test]
    fn pages_within_a_moment() {
        let (created, expired) =
            (change_event_type::SINGLE_PHASE, change_event_type::TWO_PHASE_EXPIRED);
        let events = vec![
            change(created, 1, 10),
            change(created, 2, 20),
            change(expired, 3, 30),
            change(created, 4, 30),
            change(created, 5, 40),
            change(expired, 6, 50),
            change(created, 7, 50),
        ];
        let mut source = source(Fake { events, ..Fake::default() });
        let mut found = Vec::new();
        let visit = &mut |event: &Event| {
            found.push(event.transfer.id);
            Ok(())
        };
        source.events(1, 100, visit).unwrap();
        assert_eq!(found, [1, 2, 3, 4, 5, 6, 7]);
    }

    /// Goal: an account that is imported between the first two questions is not part of the state;
    /// one that was imported before is.
    #[test]
    fn imported_accounts() {
        let imported = |id, timestamp| account(id, timestamp, account_flags::IMPORTED);
        let first = Fake { accounts: vec![imported(1, 10)], ..Fake::default() };
        let mut quiet = source(Fake { accounts: vec![imported(1, 10)], ..Fake::default() });
        assert_eq!(quiet.present().unwrap().last_account, 10);
        let then = vec![(1, Change::Account(imported(2, 20)))];
        let mut busy = source(Fake { then, ..first });
        let extent = busy.present().unwrap();
        assert_eq!((extent.last, extent.last_account), (1003, 20));
        let Cluster::Fake(fake) = &mut busy.cluster else { panic!("it is a fake") };
        fake.accounts.push(imported(3, 30));
        assert!(!extent.has_account(&imported(3, 30)) && extent.has_account(&imported(2, 20)));
        let imports = (0..1000_u16).map(|index| {
            let account = imported(u128::from(index) + 1, u64::from(index) + 10);
            (usize::from(index), Change::Account(account))
        });
        let mut endless = source(Fake { then: imports.collect(), ..Fake::default() });
        let failure = endless.present().unwrap_err();
        assert!(failure.message.contains("imported all the time"), "{failure}");
    }

    /// Goal: a sum does not begin after a transfer that is created since the first question, even
    /// if it is the first one of the ledger.
    #[test]
    fn first_transfer_comes_later() {
        let then = vec![(2, Change::Transfer(transfer(1, 1010, 0)))];
        let accounts = vec![account(1, 10, 0)];
        let mut source = source(Fake { accounts, then, ..Fake::default() });
        let extent = source.present().unwrap();
        assert_eq!(extent.last_transfer, 0);
        let mut balances = BalancesAt::of_account(1);
        assert_eq!(source.shorten(1, &extent, &mut balances).unwrap(), None);
        assert_eq!(balances.row(&account(1, 10, 0)).unwrap(), None);
    }

    /// Goal: imported transfers are passed without being kept; if too many of them end pending
    /// transfers, all events are read.
    #[test]
    fn many_imports() {
        for (pending_id, first) in [(0, None), (7, Some(TIMESTAMP_MIN))] {
            let transfers = (10..20_u64)
                .map(|time| Transfer {
                    pending_id,
                    ..transfer(time.into(), time, transfer_flags::IMPORTED)
                })
                .collect();
            let events = vec![change(change_event_type::SINGLE_PHASE, 19, 19)];
            let accounts = vec![account(1, 5, 0)];
            let mut source = source(Fake { accounts, transfers, events, ..Fake::default() });
            let extent = source.present().unwrap();
            let mut balances = BalancesAt::of_account(1);
            assert_eq!(source.shorten(1, &extent, &mut balances).unwrap(), first);
        }
    }

    /// Goal: a cluster that answers every question with the same page, or with records outside of
    /// the range, is reported: such pages have no end.
    #[test]
    fn pages_that_repeat() {
        for timestamp in [0, 10, TIMESTAMP_MAX + 1, u64::MAX] {
            let accounts = vec![account(1, timestamp, 0)];
            let transfers = vec![transfer(1, timestamp, transfer_flags::IMPORTED)];
            let events = vec![change(change_event_type::SINGLE_PHASE, 1, timestamp)];
            let ignores_range = true;
            let fake = Fake { accounts, transfers, events, ignores_range, ..Fake::default() };
            let mut source = source(fake);
            let extent = Extent { last: 1001, last_transfer: 1001, last_account: 1001 };
            let is_first = timestamp == 10;
            assert_eq!(source.events(1, 1001, &mut |_| Ok(())).is_ok(), is_first, "no more events");
            let results = [
                source.events(11, 1001, &mut |_| Ok(())),
                source.transfers(1001, &mut |_| Ok(())),
                source.accounts(1001, &mut |_, _| Ok(())),
                source.shorten(1, &extent, &mut BalancesAt::of_account(1)).map(|_| ()),
            ];
            for failure in results.map(Result::unwrap_err) {
                assert_eq!(failure.class, ExitClass::Corruption);
                assert!(failure.message.contains(&format!(" at timestamp {timestamp}")));
            }
            assert_eq!(source.present().is_ok(), is_first);
        }
    }

    /// Goal: answers that contradict each other are a failure, and nothing is assumed of them.
    #[test]
    fn contradictions() {
        let check = |failure: Failure, part: &str| {
            assert_eq!(failure.class, ExitClass::Corruption);
            assert!(failure.message.contains(part), "{failure}");
        };
        for type_ in [EventKind::Orphan as u8, 255] {
            let events = vec![change(type_, 1, 10)];
            let mut source = source(Fake { events, ..Fake::default() });
            let failure = source.events(1, 100, &mut |_| Ok(())).unwrap_err();
            check(failure, &format!("an event of type {type_} at timestamp 10"));
        }
        let (accounts, transfers) = (vec![account(1, 5, 0)], vec![transfer(1, 10, 0)]);
        let mut lacking = source(Fake { accounts, transfers, ..Fake::default() });
        let extent = lacking.present().unwrap();
        let failure = lacking.shorten(1, &extent, &mut BalancesAt::of_account(1)).unwrap_err();
        check(failure, "no event of account 1 at timestamp 10");
        check(lacking.account(2).unwrap_err(), "another account than 2");
        let failure = lacking.transfers_of(3, 100, 1, 0).unwrap_err();
        check(failure, "transfer 1 as one of account 3");
    }

    /// Goal: within a page timestamps rise; of events two of one moment differ in their type.
    #[test]
    fn orders() {
        let times = |times: &[u64]| times.iter().map(|time| transfer(1, *time, 0)).collect();
        let pages: [(Vec<Transfer>, bool); 6] = [
            (times(&[]), true),
            (times(&[10, 15, 20]), true),
            (times(&[10, 10]), false),
            (times(&[15, 12]), false),
            (times(&[9]), false),
            (times(&[21]), false),
        ];
        for (mut page, is_right) in pages {
            assert_eq!(check_page(&page, 10, 20).is_ok(), is_right);
            page.reverse();
            assert_eq!(check_reversed(&page, 10, 20).is_ok(), is_right);
        }
        let events = |second| check_page(&[change(4, 1, 10), change(second, 2, 10)], 10, 20);
        assert!(events(0).is_ok() && events(4).is_err());
    }

    /// Goal: every balance and flag counts for whether something may expire or has changed.
    #[test]
    fn expiries() {
        let account = Account { id: 1, debits_pending: 5, debits_posted: 7, ..Account::default() };
        let balances = Balances { debits_pending: 5, debits_posted: 7, ..Balances::default() };
        let after = Start { balances, flags: 0, timestamp: 3 };
        assert!(is_open(&after) && is_as_now(&after, &account));
        assert!(!is_as_now(&after, &Account { debits_pending: 4, ..account }));
        assert!(!is_as_now(&after, &Account { credits_posted: 8, ..account }));
        assert!(!is_as_now(&after, &Account { flags: account_flags::CLOSED, ..account }));
        let settled = Start { balances: Balances { debits_pending: 0, ..balances }, ..after };
        assert!(!is_open(&settled));
        assert!(is_open(&Start { flags: account_flags::CLOSED, ..settled }));
    }
}
