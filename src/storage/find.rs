//! Cursors of the store's searches: what is looked for and how far the search has come.
//!
//! They are small and copied freely. A search that has to wait for a page is simply asked again.

use super::lookup::Lookup;

/// What a [`Find`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FindKind {
    /// A row of the transfers log by id.
    Transfer,
    /// An account by id.
    Account,
    /// The newest event of an account by the account's id.
    NewestEvent,
    /// The event that resolved a pending transfer, by the row of the latter.
    Resolution,
}

/// A search for one row. Make one with a constructor of [`super::store::Store`], then call the
/// store's `find_*` function until it is ready.
#[derive(Clone, Copy, Debug)]
pub struct Find {
    pub(super) kind: FindKind,
    /// The id, or the pending row.
    pub(super) key: u128,
    pub(super) lookup: Lookup,
    /// A row that the index named and that has not been compared yet.
    pub(super) candidate: Option<u64>,
}

/// A search for a row with exactly one timestamp.
#[derive(Clone, Copy, Debug)]
pub struct FindTimestamp {
    pub(super) timestamp: u64,
    /// Next row to compare, once the directory was searched.
    pub(super) row: Option<u64>,
}

impl Find {
    pub(super) fn new(kind: FindKind, key: u128, lookup: Lookup) -> Self {
        Self { kind, key, lookup, candidate: None }
    }
}

impl FindTimestamp {
    /// Starts looking for `timestamp`.
    #[must_use]
    pub fn new(timestamp: u64) -> Self {
        Self { timestamp, row: None }
    }
}

/// Which of the two time lines of the event log a search follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeKey {
    /// Created transfers, imported ones included: their timestamps only rise.
    Transfer,
    /// Expiries (and burnt ids): the cluster's clock, which only rises too. The two may interleave
    /// in the log in another order, since an imported transfer is older than its neighbours.
    Expiry,
}

/// Which rows a scan of the events wants. A zero means "any", as on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventFilter {
    /// Only events of this account, when not zero.
    pub account_id: u128,
    /// With an account: events where it is debited.
    pub debits: bool,
    /// With an account: events where it is credited.
    pub credits: bool,
    /// Filter of the field of that name.
    pub user_data_128: u128,
    /// Filter of the field of that name.
    pub user_data_64: u64,
    /// Filter of the field of that name.
    pub user_data_32: u32,
    /// Filter of the field of that name.
    pub ledger: u32,
    /// Filter of the field of that name.
    pub code: u16,
    /// Pending transfers that expire in this slot.
    pub expiry_slot: Option<u64>,
}

/// Which accounts a scan wants. A zero means "any".
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountScanFilter {
    /// Filter of the field of that name.
    pub user_data_128: u128,
    /// Filter of the field of that name.
    pub user_data_64: u64,
    /// Filter of the field of that name.
    pub user_data_32: u32,
    /// Filter of the field of that name.
    pub ledger: u32,
    /// Filter of the field of that name.
    pub code: u16,
}
