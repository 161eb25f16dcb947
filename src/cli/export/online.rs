//! The records of a live cluster, in the order of their timestamps, page after page.
//!
//! Records never change. New ones are newer than all there are, with one exception: a transfer can
//! be imported with a timestamp before expiries that happened already. [`Extent`] tells those that
//! came since the question was asked, so that all pages are of one state.

use zerocopy::{FromBytes, FromZeros};

use super::balances::{BalancesAt, Start};
use super::event::{Event, Extent};
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::patient::{Answered, PatientClient};
use crate::protocol::types::{
    Account, AccountFilter, ChangeEvent, ChangeEventsFilter, QueryFilter, Transfer,
    account_filter_flags, account_flags, query_filter_flags, transfer_flags,
};
use crate::protocol::{Operation, to_index};
use crate::storage::rows::{Balances, EventKind};

/// Returns how an account was when it was created; asks the source if need be.
pub type Creation<'a> = dyn FnMut(&Account) -> Result<Account, Failure> + 'a;
/// Visits an account.
pub type VisitAccount<'a> = dyn FnMut(&Account, &mut Creation<'_>) -> Result<(), Failure> + 'a;

/// A cluster.
#[derive(Debug)]
pub struct ClusterSource {
    client: PatientClient,
}

impl ClusterSource {
    /// Returns the cluster that this client talks to.
    #[must_use]
    pub fn new(client: PatientClient) -> ClusterSource {
        ClusterSource { client }
    }

    fn ask<Question, Row>(
        &mut self,
        operation: Operation,
        questions: &[Question],
    ) -> Result<Answered<Row>, Failure>
    where
        Question: zerocopy::IntoBytes + zerocopy::Immutable,
        Row: FromBytes,
    {
        let answered = self.client.ask(operation, questions)?;
        // Without an answer it shall stop.
        answered.ok_or_else(|| Failure::new(ExitClass::Error, "interrupted"))
    }

    /// Returns what belongs to the present state.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be reached or refuses the client.
    pub fn present(&mut self) -> Result<Extent, Failure> {
        let flags = query_filter_flags::REVERSED;
        let filter = QueryFilter { limit: 1, flags, ..QueryFilter::new_zeroed() };
        let answered = self.ask::<_, Transfer>(Operation::QueryTransfers, &[filter])?;
        let last_transfer = answered.results.first().map_or(0, |transfer| transfer.timestamp);
        Ok(Extent { last: answered.timestamp, last_transfer })
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
        self.change_events(first, last, &mut |event| visit(&event_of(event)))
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
        let mut next = first;
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
            let new = page.iter().filter(|it| it.timestamp != next || !seen.contains(&it.type_));
            let mut new = new.peekable();
            if new.peek().is_none() {
                return Ok(());
            }
            new.try_for_each(&mut *visit)?;
            next = page.last().expect("one is new").timestamp;
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
        Ok(answered.results.first().copied())
    }

    /// Returns an account as it was created. An account that was created closed never has a
    /// transfer.
    fn as_created(&mut self, account: &Account) -> Result<Account, Failure> {
        let mut created = Account {
            debits_pending: 0,
            debits_posted: 0,
            credits_pending: 0,
            credits_posted: 0,
            ..*account
        };
        let is_closed = account.flags & account_flags::CLOSED != 0;
        if is_closed && !self.transfers_of(account.id, 0, 1, 0)?.is_empty() {
            created.flags &= !account_flags::CLOSED;
        }
        Ok(created)
    }

    /// Returns transfers of an account on either side up to a moment, or of all times if it is 0.
    fn transfers_of(
        &mut self,
        account_id: u128,
        last: u64,
        limit: u32,
        flags: u32,
    ) -> Result<Vec<Transfer>, Failure> {
        let filter = AccountFilter {
            account_id,
            timestamp_max: last,
            limit,
            flags: account_filter_flags::DEBITS | account_filter_flags::CREDITS | flags,
            ..AccountFilter::new_zeroed()
        };
        Ok(self.ask(Operation::GetAccountTransfers, &[filter])?.results)
    }

    /// Begins the sum of an account's events as late as possible, with the balances after one of
    /// its transfers; returns from where on events must be added, if any must be.
    ///
    /// The balances after a transfer are those of its timestamp, unless it was imported: then they
    /// include expiries that happened before it was imported, and may be newer. Such expiries are
    /// of pending transfers with a timeout, which cannot be imported. So balances after a transfer
    /// that was not imported are where the sum begins.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    ///
    /// # Panics
    ///
    /// Never: every transfer is an event.
    pub fn shorten(
        &mut self,
        account_id: u128,
        extent: &Extent,
        balances: &mut BalancesAt,
    ) -> Result<Option<u64>, Failure> {
        // Before the question whether it has changed since.
        let current = self.account_now(account_id)?;
        let last = extent.last.min(extent.last_transfer);
        let Some(newest) = self.last_transfer_of(account_id, last)? else { return Ok(None) };
        let mut imported = Vec::new();
        let mut origin = Some(newest);
        while let Some(transfer) = origin.filter(is_imported) {
            imported.push(transfer);
            origin = self.before(account_id, transfer.timestamp, &mut imported)?;
        }
        let start = match &origin {
            Some(origin) => self.start_at(account_id, origin.timestamp)?,
            None => Start::default(),
        };
        // What was not pending, or could not be, did not expire.
        let mut is_settled = !is_open(&start);
        if imported.is_empty() && !is_settled && current.is_some_and(|it| is_as_now(&start, &it)) {
            // As now, unless it went and came again: only a newer transfer can do that.
            is_settled = self.last_transfer_of(account_id, 0)? == origin;
        }
        if is_settled {
            let start = self.start_at(account_id, newest.timestamp)?;
            balances.start(account_id, &start);
            return Ok(None);
        }
        balances.start(account_id, &start);
        self.add_holds(&imported, balances)?;
        Ok(Some(start.timestamp + 1))
    }

    fn last_transfer_of(&mut self, id: u128, last: u64) -> Result<Option<Transfer>, Failure> {
        let transfers = self.transfers_of(id, last, 1, account_filter_flags::REVERSED)?;
        Ok(transfers.first().copied())
    }

    /// Looks for the newest transfer before a moment that was not imported; adds those that were
    /// and returns the last one that was looked at, if there is any.
    fn before(
        &mut self,
        account_id: u128,
        timestamp: u64,
        imported: &mut Vec<Transfer>,
    ) -> Result<Option<Transfer>, Failure> {
        if timestamp == 1 {
            return Ok(None);
        }
        let limit = Operation::GetAccountTransfers.results_max();
        let flags = account_filter_flags::REVERSED;
        let mut page = self.transfers_of(account_id, timestamp - 1, limit, flags)?;
        let end = page.iter().position(|transfer| !is_imported(transfer));
        page.truncate(end.map_or(page.len(), |end| end + 1));
        let last = page.pop();
        imported.extend(page);
        Ok(last)
    }

    /// Returns the balances of an account right after its transfer of this timestamp.
    fn start_at(&mut self, account_id: u128, timestamp: u64) -> Result<Start, Failure> {
        let mut start = None;
        self.change_events(timestamp, timestamp, &mut |event| {
            // There can be an expiry of the same timestamp.
            if event.type_ != EventKind::Expired as u8 {
                start = start_of(event, account_id);
            }
            Ok(())
        })?;
        Ok(start.expect("every transfer is an event of both its accounts"))
    }

    /// Adds the pending transfers that these transfers end.
    fn add_holds(
        &mut self,
        transfers: &[Transfer],
        balances: &mut BalancesAt,
    ) -> Result<(), Failure> {
        let ids = transfers.iter().map(|transfer| transfer.pending_id);
        let ids: Vec<u128> = ids.filter(|id| *id != 0).collect();
        for ids in ids.chunks(to_index(Operation::LookupTransfers.results_max())) {
            let found = self.ask::<_, Transfer>(Operation::LookupTransfers, ids)?;
            found.results.iter().for_each(|pending| balances.add_hold(pending));
        }
        Ok(())
    }

    fn page<Row: FromBytes>(
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
        Ok(self.ask(operation, &[filter])?.results)
    }
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

/// Returns an event without the balances after it.
fn event_of(event: &ChangeEvent) -> Event {
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
    let kind = EventKind::from_byte(event.type_);
    Event { kind: kind.filter(|it| *it != EventKind::Orphan).expect("a known type"), transfer }
}

/// Returns the balances of an account right after an event; none if the event is of others.
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

    /// Goal: what expires or not, and what is as it was, is told apart by every balance and flag.
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
