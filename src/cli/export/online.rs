//! The records of a live cluster, in the order of their timestamps, page after page.
//!
//! Records never change, so pages that are read one after the other make one consistent picture:
//! that of the moment to which they go, which is the past when the first is asked for.

use zerocopy::{FromBytes, FromZeros};

use super::records::BalanceAt;
use crate::cli::exit::Failure;
use crate::cli::patient::PatientClient;
use crate::protocol::Operation;
use crate::protocol::types::{
    Account, AccountFilter, ChangeEvent, ChangeEventsFilter, QueryFilter, Transfer,
    account_filter_flags, account_flags,
};

/// A cluster.
#[derive(Debug)]
pub struct ClusterSource {
    client: PatientClient,
}

impl ClusterSource {
    /// The cluster that this client talks to.
    #[must_use]
    pub fn new(client: PatientClient) -> ClusterSource {
        ClusterSource { client }
    }

    /// The cluster's time; none if it shall stop.
    ///
    /// # Errors
    ///
    /// If the cluster cannot be reached or refuses the client.
    pub fn now(&mut self) -> Result<Option<u64>, Failure> {
        let answered = self.client.ask::<u128, Account>(Operation::LookupAccounts, &[])?;
        Ok(answered.map(|answered| answered.timestamp))
    }

    /// An account as it is now, if it exists, and the cluster's time; none if it shall stop.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn account(&mut self, id: u128) -> Result<Option<(Option<Account>, u64)>, Failure> {
        let answered = self.client.ask::<_, Account>(Operation::LookupAccounts, &[id])?;
        Ok(answered.map(|answered| (answered.results.first().copied(), answered.timestamp)))
    }

    /// Visits all events of a range; whether it came to the end.
    ///
    /// # Errors
    ///
    /// If the cluster fails, or the visitor.
    pub fn events(
        &mut self,
        first: u64,
        last: u64,
        visit: &mut dyn FnMut(&ChangeEvent) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let mut next = first;
        while next <= last {
            let filter = ChangeEventsFilter {
                timestamp_min: next,
                timestamp_max: last,
                limit: Operation::GetChangeEvents.results_max(),
                ..ChangeEventsFilter::new_zeroed()
            };
            let Some(page) = self.client.change_events(&filter)? else { return Ok(false) };
            let Some(newest) = page.results.last() else { return Ok(true) };
            next = newest.timestamp + 1;
            page.results.iter().try_for_each(&mut *visit)?;
        }
        Ok(true)
    }

    /// Visits all transfers up to a moment; whether it came to the end.
    ///
    /// # Errors
    ///
    /// If the cluster fails, or the visitor.
    pub fn transfers(
        &mut self,
        last: u64,
        visit: &mut dyn FnMut(&Transfer) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let mut next = 1;
        loop {
            let page = self.page::<Transfer>(Operation::QueryTransfers, next, last)?;
            let Some(page) = page else { return Ok(false) };
            let Some(newest) = page.last() else { return Ok(true) };
            next = newest.timestamp + 1;
            page.iter().try_for_each(&mut *visit)?;
        }
    }

    /// The next accounts of a range, as they are now; no account if there are no more.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn accounts(&mut self, first: u64, last: u64) -> Result<Option<Vec<Account>>, Failure> {
        self.page(Operation::QueryAccounts, first, last)
    }

    /// The balances of an account before its first event; none if it shall stop.
    ///
    /// Whether it was closed then is not in the account as it is now: who was closed from the start
    /// never had a transfer.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn before_first_event(&mut self, account: &Account) -> Result<Option<BalanceAt>, Failure> {
        let mut row = BalanceAt::of_new(account);
        if account.flags & account_flags::CLOSED != 0 {
            let Some(first) = self.transfers_of(account.id, 0, 1, 0)? else { return Ok(None) };
            if !first.is_empty() {
                row.flags &= !account_flags::CLOSED;
            }
        }
        Ok(Some(row))
    }

    /// Transfers of an account on either side up to a moment, or all if it is zero.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn transfers_of(
        &mut self,
        account_id: u128,
        last: u64,
        limit: u32,
        flags: u32,
    ) -> Result<Option<Vec<Transfer>>, Failure> {
        let filter = AccountFilter {
            account_id,
            timestamp_max: last,
            limit,
            flags: account_filter_flags::DEBITS | account_filter_flags::CREDITS | flags,
            ..AccountFilter::new_zeroed()
        };
        let answered = self.client.ask(Operation::GetAccountTransfers, &[filter])?;
        Ok(answered.map(|answered| answered.results))
    }

    fn page<Row: FromBytes>(
        &mut self,
        operation: Operation,
        first: u64,
        last: u64,
    ) -> Result<Option<Vec<Row>>, Failure> {
        if first > last {
            return Ok(Some(Vec::new()));
        }
        let filter = QueryFilter {
            timestamp_min: first,
            timestamp_max: last,
            limit: operation.results_max(),
            ..QueryFilter::new_zeroed()
        };
        let answered = self.client.ask(operation, &[filter])?;
        Ok(answered.map(|answered| answered.results))
    }
}
