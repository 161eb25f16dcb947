//! Index entries: which fields of which rows go into which column of a table.
//!
//! When an op ends, its rows are indexed in one go, a chunk of rows at a time, one column after the
//! other: the rows stay in the processor's first caches while the columns are filled one by one.
//!
//! Sketch: a chunk is 256 rows of 128 bytes, 32 KiB; nine columns of it are 20 KiB. Hashing and
//! storing cost about 2 ns each.
//!
//! Not covered: what becomes of columns (`table`), and ids and resolutions in the point tables,
//! which
//! are entered when a row is appended, since the next event of the same batch may ask for them.

use super::count_of;
use super::hash::HashKey;
use super::index_of;
use super::log::Log;
use super::memtable::Memtable;
use super::persistence::OpenError;
use super::rows::{BalanceRow, EXPIRY_SLOT_BITS, EventKind, expires_at};
use super::store::{Maxima, Store, account_tag, event_tag, tag_hash, view};
use crate::protocol::types::{Account, Transfer};

/// Rows that are indexed together.
const CHUNK: usize = 256;

impl Maxima {
    fn note_event(&mut self, transfer: &Transfer, kind: EventKind) {
        let line = match kind {
            EventKind::Expired | EventKind::Orphan => &mut self.expiry,
            _ => &mut self.transfer,
        };
        assert!(*line < transfer.timestamp, "both time lines of the events rise");
        *line = transfer.timestamp;
        if kind != EventKind::Expired {
            self.transfer_id = self.transfer_id.max(transfer.id);
        }
    }
}

/// Which kinds of event have an entry in a column.
#[derive(Clone, Copy)]
enum Has {
    /// Everything that took an id: created transfers and burnt ids.
    Id,
    /// Everything that moved a balance: created transfers and expiries.
    Accounts,
    /// Created transfers.
    Fields,
}

impl Has {
    fn admits(self, kind: EventKind) -> bool {
        match self {
            Self::Id => kind != EventKind::Expired,
            Self::Accounts => kind != EventKind::Orphan,
            Self::Fields => !matches!(kind, EventKind::Expired | EventKind::Orphan),
        }
    }
}

/// A chunk of events, and the memtable that gets its entries.
struct Columns<'a> {
    memtable: &'a mut Memtable,
    key: HashKey,
    first_row: u64,
    rows: &'a [(EventKind, &'a Transfer)],
}

impl Columns<'_> {
    fn end_row(&self) -> u64 {
        self.first_row + count_of(self.rows.len())
    }

    /// Fills one column with the hashes of a field; a value of zero is not indexed.
    #[inline]
    fn fill(&mut self, tag: usize, has: Has, value: impl Fn(&Transfer) -> u128) {
        let column = self.memtable.column_mut(tag, self.first_row, self.end_row());
        for (slot, (kind, transfer)) in column.iter_mut().zip(self.rows) {
            let value = value(transfer);
            if value != 0 && has.admits(*kind) {
                *slot = tag_hash(self.key, tag, value);
            }
        }
    }

    fn fill_accounts(&mut self) {
        let tag = event_tag::ACCOUNT;
        let column = self.memtable.column_mut(tag, self.first_row, self.end_row());
        for (slots, (kind, transfer)) in column.chunks_exact_mut(2).zip(self.rows) {
            if Has::Accounts.admits(*kind) {
                slots[0] = tag_hash(self.key, tag, transfer.debit_account_id);
                slots[1] = tag_hash(self.key, tag, transfer.credit_account_id);
            }
        }
    }

    fn extend_id_bounds(&mut self) {
        let taken = self.rows.iter().filter(|(kind, _)| Has::Id.admits(*kind));
        let ids = taken.map(|(_, transfer)| transfer.id);
        if let (Some(min), Some(max)) = (ids.clone().min(), ids.max()) {
            self.memtable.extend_bounds(event_tag::ID, min);
            self.memtable.extend_bounds(event_tag::ID, max);
        }
    }

    fn fill_resolutions(&mut self, pending_row: impl Fn(u64) -> u64) {
        for ((kind, _), row) in self.rows.iter().zip(self.first_row..) {
            if kind.resolves() {
                let value = u128::from(pending_row(row)) + 1;
                let hash = tag_hash(self.key, event_tag::RESOLUTION, value);
                self.memtable.column_mut(event_tag::RESOLUTION, row, row + 1)[0] = hash;
            }
        }
    }

    fn fill_expiries(&mut self) {
        for ((kind, transfer), row) in self.rows.iter().zip(self.first_row..) {
            if let (EventKind::Pending, Some(expires_at)) = (*kind, expires_at(transfer)) {
                let slot = u128::from(expires_at >> EXPIRY_SLOT_BITS);
                let hash = tag_hash(self.key, event_tag::EXPIRY, slot);
                self.memtable.column_mut(event_tag::EXPIRY, row, row + 1)[0] = hash;
                self.memtable.extend_bounds(event_tag::EXPIRY, slot);
            }
        }
    }
}

/// Makes all entries of a few neighbouring events; `pending_row` says which row one resolves.
pub(super) fn fill_events(
    memtable: &mut Memtable,
    key: HashKey,
    first_row: u64,
    rows: &[(EventKind, &Transfer)],
    pending_row: impl Fn(u64) -> u64,
) {
    let plain = rows.iter().all(|(kind, _)| *kind == EventKind::SinglePhase);
    let resolves = rows.iter().any(|(kind, _)| kind.resolves());
    let mut columns = Columns { memtable, key, first_row, rows };
    columns.fill_accounts();
    columns.fill(event_tag::ID, Has::Id, |transfer| transfer.id);
    columns.fill(event_tag::LEDGER, Has::Fields, |transfer| transfer.ledger.into());
    columns.fill(event_tag::CODE, Has::Fields, |transfer| transfer.code.into());
    columns.fill(event_tag::USER_DATA_32, Has::Fields, |row| row.user_data_32.into());
    columns.fill(event_tag::USER_DATA_64, Has::Fields, |row| row.user_data_64.into());
    columns.fill(event_tag::USER_DATA_128, Has::Fields, |row| row.user_data_128);
    columns.extend_id_bounds();
    if resolves {
        columns.fill_resolutions(pending_row);
    }
    if !plain {
        columns.fill_expiries();
    }
}

/// Makes all entries of an account.
pub(super) fn fill_account(memtable: &mut Memtable, key: HashKey, row: u64, account: &Account) {
    memtable.extend_bounds(account_tag::ID, account.id);
    let mut set = |tag: usize, value: u128| {
        memtable.column_mut(tag, row, row + 1)[0] = tag_hash(key, tag, value);
    };
    set(account_tag::ID, account.id);
    let fields = [
        (account_tag::LEDGER, account.ledger.into()),
        (account_tag::CODE, account.code.into()),
        (account_tag::USER_DATA_32, account.user_data_32.into()),
        (account_tag::USER_DATA_64, account.user_data_64.into()),
        (account_tag::USER_DATA_128, account.user_data_128),
    ];
    for (tag, value) in fields {
        if value != 0 {
            set(tag, value);
        }
    }
}

impl Store {
    /// Makes all entries of the events of this op.
    pub(super) fn index_events(&mut self) {
        let end = self.transfers.rows();
        let per_block = self.transfers.packing().per_block();
        for row in self.events_indexed..end {
            if row.is_multiple_of(per_block) {
                self.note_boundary(row);
            }
            let transfer: &Transfer = view(recent(&self.transfers, row));
            let kind = kind_of(&self.balances, row).expect("this build wrote the row");
            self.maxima.note_event(transfer, kind);
        }
        self.index_event_rows(self.events_indexed, end);
        self.events_indexed = end;
    }

    /// Notes the keys of the block that begins at `row`: maxima over the rows before.
    fn note_boundary(&mut self, row: u64) {
        let keys = [self.maxima.transfer, self.maxima.expiry];
        push_bounded(&mut self.boundaries, (row, keys));
    }

    /// Makes the entries of rows that are in memory, all of one memtable.
    fn index_event_rows(&mut self, first_row: u64, end_row: u64) {
        let mut row = first_row;
        while row < end_row {
            let chunk_end = end_row.min(row + count_of(CHUNK));
            self.index_event_chunk(row, chunk_end);
            row = chunk_end;
        }
    }

    fn index_event_chunk(&mut self, first_row: u64, end_row: u64) {
        let Store { events, transfers, balances, key, .. } = self;
        let count = index_of(end_row - first_row);
        let mut rows = [(EventKind::Orphan, view::<Transfer>(recent(transfers, first_row))); CHUNK];
        for (slot, row) in rows.iter_mut().zip(first_row..end_row) {
            let kind = kind_of(balances, row).expect("the rows were checked before");
            *slot = (kind, view(recent(transfers, row)));
        }
        let pending_row = |row| view::<BalanceRow>(recent(balances, row)).pending_row();
        let memtable = events.memtable_mut(first_row);
        fill_events(memtable, *key, first_row, &rows[..count], pending_row);
    }

    /// Makes all entries of the accounts of this op.
    pub(super) fn index_accounts(&mut self) {
        for row in self.accounts_indexed..self.accounts.rows() {
            let account = *view::<Account>(recent(&self.accounts, row));
            if row.is_multiple_of(self.accounts.packing().per_block()) {
                push_bounded(&mut self.account_boundaries, (row, [self.maxima.account, 0]));
            }
            assert!(self.maxima.account < account.timestamp, "timestamps of accounts rise");
            self.maxima.account = account.timestamp;
            self.index_account(row, &account);
        }
        self.accounts_indexed = self.accounts.rows();
    }

    fn index_account(&mut self, row: u64, account: &Account) {
        fill_account(self.account_table.memtable_mut(row), self.key, row, account);
    }

    /// Makes the entries of all rows that are in no run yet.
    ///
    /// # Errors
    /// When the rows are not those that the manifest was made for.
    pub(super) fn index_again(&mut self) -> Result<(), OpenError> {
        let rows = self.transfers.rows();
        self.events.reindex_begin();
        for row in self.events.watermark()..rows {
            let transfer = *view::<Transfer>(recent(&self.transfers, row));
            let balances = *view::<BalanceRow>(recent(&self.balances, row));
            let error = OpenError::Index { tag: "event kinds" };
            let kind = balances.event_kind().ok_or(error)?;
            self.insert_points(row, transfer.id, kind, balances.pending_row());
        }
        let boundary = self.events.active_row().min(rows);
        self.index_event_rows(self.events.watermark(), boundary);
        self.index_event_rows(boundary, rows);
        self.events.reindex_end(rows).map_err(|tag| OpenError::Index { tag })?;
        for row in self.events.watermark()..rows {
            let transfer = *view::<Transfer>(recent(&self.transfers, row));
            if transfer.ledger != 0 {
                self.spill_account(transfer.debit_account_id, row);
                self.spill_account(transfer.credit_account_id, row);
            }
        }
        self.events_indexed = rows;
        self.index_accounts_again()
    }

    fn index_accounts_again(&mut self) -> Result<(), OpenError> {
        let rows = self.accounts.rows();
        self.account_table.reindex_begin();
        for row in self.account_table.watermark()..rows {
            let account = *view::<Account>(recent(&self.accounts, row));
            let hash = self.hash(account_tag::ID, account.id);
            self.account_table.unique_insert(account_tag::ID, hash, row);
            self.index_account(row, &account);
        }
        self.accounts_indexed = rows;
        self.account_table.reindex_end(rows).map_err(|tag| OpenError::Index { tag })
    }
}

fn recent(log: &Log, row: u64) -> &[u8] {
    log.recent(row).expect("rows that are in no run are in memory")
}

fn kind_of(balances: &Log, row: u64) -> Option<EventKind> {
    view::<BalanceRow>(recent(balances, row)).event_kind()
}

/// Appends to a list that never grows beyond the room it was given.
pub(super) fn push_bounded<T>(list: &mut Vec<T>, item: T) {
    assert!(list.len() < list.capacity(), "the list has room for an op");
    list.push(item);
}
