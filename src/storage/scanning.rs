//! Scans over many rows: filters become conditions of the index.
//!
//! The rows that a scan names are candidates. A hash may collide, so whoever asks reads each row
//! and
//! compares it with the filter.

use super::fetch::Fetch;
use super::find::{AccountScanFilter, EventFilter, FindTimestamp, TimeKey};
use super::hash::HashKey;
use super::rows::{is_expiry, is_orphan};
use super::scan::{CONDITIONS_MAX, Condition, RowList, Scan, ScanState};
use super::store::{Store, account_tag, event_tag, tag_hash};
use crate::ready;

/// Slot masks of the account tag.
const MASK_DEBIT: u8 = 1;
const MASK_CREDIT: u8 = 2;
/// Slot mask of every other tag.
const MASK_ONLY: u8 = 1;

/// A scan of the event log under way.
#[derive(Clone, Debug)]
pub struct EventScan(Scan);

/// A scan of the account log under way.
#[derive(Clone, Debug)]
pub struct AccountScan(Scan);

/// The order in which a scan gives its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

impl Direction {
    fn is_reverse(self) -> bool {
        self == Self::Descending
    }
}

impl Store {
    /// Starts a scan of the events.
    ///
    /// # Panics
    /// When an account is named and neither of its sides.
    #[must_use]
    pub fn scan_events_start(
        &self,
        filter: &EventFilter,
        row_min: u64,
        row_max: u64,
        direction: Direction,
    ) -> EventScan {
        let mask_debit = if filter.debits { MASK_DEBIT } else { 0 };
        let mask_credit = if filter.credits { MASK_CREDIT } else { 0 };
        let sides = mask_debit | mask_credit;
        assert!(filter.account_id == 0 || sides != 0, "one side at least");
        let expiry = filter.expiry_slot.map_or(0, u128::from);
        let wanted = [
            (event_tag::ACCOUNT, filter.account_id, sides),
            (event_tag::LEDGER, filter.ledger.into(), MASK_ONLY),
            (event_tag::CODE, filter.code.into(), MASK_ONLY),
            (event_tag::USER_DATA_32, filter.user_data_32.into(), MASK_ONLY),
            (event_tag::USER_DATA_64, filter.user_data_64.into(), MASK_ONLY),
            (event_tag::USER_DATA_128, filter.user_data_128, MASK_ONLY),
            (event_tag::EXPIRY, expiry, MASK_ONLY),
        ];
        let conditions = Conditions::new(self.key, &wanted);
        EventScan(Scan::new(conditions.list(), row_min, row_max, direction.is_reverse()))
    }

    /// Starts a scan of the accounts.
    #[must_use]
    pub fn scan_accounts_start(
        &self,
        filter: &AccountScanFilter,
        row_min: u64,
        row_max: u64,
        direction: Direction,
    ) -> AccountScan {
        let wanted = [
            (account_tag::LEDGER, filter.ledger.into(), MASK_ONLY),
            (account_tag::CODE, filter.code.into(), MASK_ONLY),
            (account_tag::USER_DATA_32, filter.user_data_32.into(), MASK_ONLY),
            (account_tag::USER_DATA_64, filter.user_data_64.into(), MASK_ONLY),
            (account_tag::USER_DATA_128, filter.user_data_128, MASK_ONLY),
        ];
        let conditions = Conditions::new(self.key, &wanted);
        AccountScan(Scan::new(conditions.list(), row_min, row_max, direction.is_reverse()))
    }

    /// Puts the next candidate rows into `out`, as many as fit.
    pub fn scan_events(&mut self, scan: &mut EventScan, out: &mut RowList) -> Fetch<ScanState> {
        self.events.scan(&mut self.grid, &mut scan.0, out)
    }

    /// Puts the next candidate rows into `out`, as many as fit.
    pub fn scan_accounts(&mut self, scan: &mut AccountScan, out: &mut RowList) -> Fetch<ScanState> {
        self.account_table.scan(&mut self.grid, &mut scan.0, out)
    }

    /// A row of the event log before which nothing of the time line `key` is at or after
    /// `timestamp`: the first row of a block.
    pub fn search_events(&mut self, key: TimeKey, timestamp: u64) -> Fetch<u64> {
        let key = match key {
            TimeKey::Transfer => 0,
            TimeKey::Expiry => 1,
        };
        self.transfers.search(&mut self.grid, key, timestamp)
    }

    /// A row of the account log before which no account is at or after `timestamp`.
    pub fn search_accounts(&mut self, timestamp: u64) -> Fetch<u64> {
        self.accounts.search(&mut self.grid, 0, timestamp)
    }

    /// Is there a created transfer with exactly this timestamp?
    pub fn find_transfer_timestamp(&mut self, find: &mut FindTimestamp) -> Fetch<bool> {
        if find.row.is_none() {
            find.row = Some(ready!(self.search_events(TimeKey::Transfer, find.timestamp)));
        }
        while let Some(row) = find.row.filter(|row| *row < self.events_rows()) {
            let transfer = ready!(self.transfer(row));
            let created = !is_expiry(&transfer) && !is_orphan(&transfer);
            if created && transfer.timestamp >= find.timestamp {
                return Fetch::Ready(transfer.timestamp == find.timestamp);
            }
            find.row = Some(row + 1);
        }
        Fetch::Ready(false)
    }

    /// Is there an account with exactly this timestamp?
    pub fn find_account_timestamp(&mut self, find: &mut FindTimestamp) -> Fetch<bool> {
        if find.row.is_none() {
            find.row = Some(ready!(self.search_accounts(find.timestamp)));
        }
        while let Some(row) = find.row.filter(|row| *row < self.accounts_rows()) {
            let account = ready!(self.account(row));
            if account.timestamp >= find.timestamp {
                return Fetch::Ready(account.timestamp == find.timestamp);
            }
            find.row = Some(row + 1);
        }
        Fetch::Ready(false)
    }

    /// The earliest expiry slot at or after `from` that may hold a timed transfer. A lower bound:
    /// the transfer may be resolved, or the slot lie inside a run's range and be empty.
    ///
    /// # Panics
    /// Never: slots are cut from 64-bit timestamps.
    #[must_use]
    pub fn expiry_slot_min(&self, from: u64) -> Option<u64> {
        let slot = self.events.value_min_from(event_tag::EXPIRY, u128::from(from))?;
        Some(u64::try_from(slot).expect("slots have 37 bits"))
    }
}

/// Conditions for the values that are wanted.
struct Conditions {
    list: [Condition; CONDITIONS_MAX],
    count: usize,
}

impl Conditions {
    /// A condition for each value; zero stands for "any".
    fn new(key: HashKey, wanted: &[(usize, u128, u8)]) -> Self {
        let mut list = [Condition { tag: 0, hash: 1, slots: 1 }; CONDITIONS_MAX];
        let mut count = 0;
        for (tag, value, slots) in wanted.iter().copied().filter(|(_, value, _)| *value != 0) {
            list[count] = Condition { tag, hash: tag_hash(key, tag, value), slots };
            count += 1;
        }
        Self { list, count }
    }

    fn list(&self) -> &[Condition] {
        &self.list[..self.count]
    }
}
