//! The storage engine as the ledger sees it: three logs, two tables, one grid.
//!
//! Every event is appended to the logs `transfers` and `balances` and becomes a handful of entries
//! of the table `events`; every account is appended to the log `accounts` and becomes entries of
//! the table `accounts`. Nothing is ever changed in place. What an account's balance is now is
//! found
//! in its newest event.
//!
//! Ids and resolutions are visible to searches at once, since the next event of the same batch may
//! ask for them; all other entries are made in one go when the op ends.
//!
//! Not covered: what events mean (the ledger), when checkpoints happen (the replica).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::block::BlockKind;
use super::checkpoint::{BLOB_WRITES_MAX, BlobReader, BlobWriter, CheckpointRoot};
use super::config::Config;
use super::directory::RING_BLOCKS;
use super::disk::{DiskDone, StorageOutbox};
use super::fetch::Fetch;

use super::find::{Find, FindKind};
use super::free_set::FreeSet;
use super::grid::{Grid, GridCounters, GridFault, GridOptions};
use super::hash::{HashKey, hash};
use super::index_of;
use super::job::Job;
use super::log::{Log, LogOptions};
use super::lookup::Lookup;
use super::memtable::PointCursor;
use super::packing::Packing;
use super::page_cache::PageCache;
use super::rows::{self, BalanceRow, EventKind, is_expiry, is_orphan};
use super::table::{FilterOptions, Table, TableOptions, TagOptions};
use super::walk::Walk;
use crate::protocol::types::{Account, Transfer};
use crate::ready;

/// Tags of the event table: which column of a memtable, which index.
pub(super) mod event_tag {
    pub const ID: usize = 0;
    pub const ACCOUNT: usize = 1;
    pub const LEDGER: usize = 2;
    pub const CODE: usize = 3;
    pub const USER_DATA_32: usize = 4;
    pub const USER_DATA_64: usize = 5;
    pub const USER_DATA_128: usize = 6;
    pub const RESOLUTION: usize = 7;
    pub const EXPIRY: usize = 8;
}

/// Tags of the account table.
pub(super) mod account_tag {
    pub const ID: usize = 0;
    pub const LEDGER: usize = 1;
    pub const CODE: usize = 2;
    pub const USER_DATA_32: usize = 3;
    pub const USER_DATA_64: usize = 4;
    pub const USER_DATA_128: usize = 5;
}

const fn tag(name: &'static str) -> TagOptions {
    TagOptions { name, entries_per_row: 1, point: false, bounds: false }
}

static EVENT_TAGS: [TagOptions; 9] = [
    TagOptions { point: true, bounds: true, ..tag("transfer id") },
    TagOptions { entries_per_row: 2, ..tag("account") },
    tag("ledger"),
    tag("code"),
    tag("user_data_32"),
    tag("user_data_64"),
    tag("user_data_128"),
    TagOptions { point: true, ..tag("resolution") },
    TagOptions { bounds: true, ..tag("expiry") },
];

static ACCOUNT_TAGS: [TagOptions; 6] = [
    TagOptions { point: true, bounds: true, ..tag("account id") },
    tag("ledger"),
    tag("code"),
    tag("user_data_32"),
    tag("user_data_64"),
    tag("user_data_128"),
];

/// Form of a log, whatever its memory.
pub(super) struct LogForm {
    /// Name, for people.
    pub name: &'static str,
    /// Kind of the blocks of rows.
    pub kind: BlockKind,
    /// Kind of the blocks of the directory.
    pub directory_kind: BlockKind,
    /// Bytes of a row.
    pub row_size: u32,
}

/// The logs, in the order of a checkpoint.
pub(super) static LOG_FORMS: [LogForm; LOGS as usize] = [
    LogForm {
        name: "transfers",
        kind: BlockKind::Transfers,
        directory_kind: BlockKind::TransfersDirectory,
        row_size: TRANSFER_SIZE,
    },
    LogForm {
        name: "balances",
        kind: BlockKind::Balances,
        directory_kind: BlockKind::BalancesDirectory,
        row_size: BALANCE_SIZE,
    },
    LogForm {
        name: "accounts",
        kind: BlockKind::Accounts,
        directory_kind: BlockKind::AccountsDirectory,
        row_size: ACCOUNT_SIZE,
    },
];

/// Identities of the tables in their jobs.
const EVENT_TABLE: u8 = 0;
const ACCOUNT_TABLE: u8 = 1;

/// Entries that a merge partitions in memory.
const SCRATCH_ENTRIES: u32 = 65_536;
/// Grid writes in flight at most: enough to keep a disk busy while the log does not need it.
const WRITES_IN_FLIGHT_MAX: u32 = 8;
/// Logs: transfers, balances, accounts.
const LOGS: u32 = 3;
/// Tail blocks of a checkpoint: rows and directory of three logs.
pub(super) const TAILS_MAX: u32 = 2 * LOGS;

/// What the operator grants the store.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Cluster that the data file belongs to: keys the hashes and goes into every block.
    pub cluster: u128,
    /// Memory for pages of the grid in bytes.
    pub cache_grid_bytes: u64,
    /// Memory for the newest transfers in bytes; raised to what unflushed rows need. What is left
    /// when those have theirs is for older ones, packed.
    pub cache_transfers_bytes: u64,
    /// Memory for filters that tell which runs can't hold a transfer id, in bytes; 0 for none.
    pub filter_bytes: u64,
    /// Largest size of the grid in bytes.
    pub storage_limit_bytes: u64,
    /// Room in the checkpoint for the layers above, in bytes.
    pub blob_extra_bytes: u64,
    /// Page reads in flight at any time.
    pub page_reads_max: u32,
}

/// State of the making of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckpointStage {
    Idle,
    Filling { op: u64 },
    Writing { root: CheckpointRoot },
    Draining { root: CheckpointRoot, mark: u64 },
    Syncing { root: CheckpointRoot },
}

/// State of the opening of a data file.
#[derive(Debug)]
pub(super) enum OpenStage {
    Closed,
    Blob(CheckpointRoot, BlobReader),
    Logs(CheckpointRoot),
    Room,
    Open,
}

/// How far the end of the current op has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndOpStage {
    Index,
    Logs,
    Events,
    Accounts,
    Room,
}

/// Highest values over all rows so far.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(super) struct Maxima {
    /// Timestamp of a created transfer.
    pub transfer: u64,
    /// Timestamp of an expiry or burnt id.
    pub expiry: u64,
    /// Timestamp of an account.
    pub account: u64,
    pub reserved: u64,
    /// Id of a transfer or burnt id.
    pub transfer_id: u128,
}

/// The storage engine.
#[derive(Debug)]
pub struct Store {
    pub(super) grid: Grid,
    pub(super) transfers: Log,
    pub(super) balances: Log,
    pub(super) accounts: Log,
    pub(super) events: Table,
    pub(super) account_table: Table,
    pub(super) key: HashKey,
    /// Events whose entries are all made; the rest follow at the end of the op.
    pub(super) events_indexed: u64,
    pub(super) accounts_indexed: u64,
    pub(super) maxima: Maxima,
    /// Blocks of transfers that begin in the current op: first row and both keys before it.
    pub(super) boundaries: Vec<(u64, [u64; 2])>,
    /// The same of accounts.
    pub(super) account_boundaries: Vec<(u64, [u64; 2])>,
    pub(super) end_op_stage: EndOpStage,
    /// An op of more rows pauses at its end.
    pub(super) pause_rows: u64,
    /// The last `Wait` at the end of an op was only a pause.
    pub(super) is_paused: bool,
    pub(super) blob: BlobWriter,
    pub(super) checkpoint: CheckpointStage,
    pub(super) opening: OpenStage,
    pub(super) walk: Walk,
    /// Where the layers above put their state in the blob that was opened.
    pub(super) blob_extra: (usize, usize),
    pub(super) blob_extra_max: usize,
    /// Ops that may be on their way when another one is admitted.
    pub(super) ops_ahead_max: usize,
}

/// Sizes that follow from the configuration and the options.
pub(super) struct Sizes {
    blocks_max: u64,
    rows_per_op: u32,
    transfers_blocks: u32,
    /// Bytes for transfers that are packed.
    transfers_packed: u64,
    balances_blocks: u32,
    accounts_blocks: u32,
}

impl Sizes {
    pub(super) fn new(config: &Config, options: &StoreOptions) -> Self {
        let rows_per_op = rows_per_op_max(config);
        let recent = |row_size: u32, bar_rows: u32| {
            let packing = Packing::new(row_size, config.block_size);
            let unflushed = packing.blocks_for(2 * u64::from(bar_rows));
            let op = 2 * packing.blocks_for(rows_per_op.into());
            let blocks = unflushed + op + u64::from(WRITES_IN_FLIGHT_MAX) + 4;
            u32::try_from(blocks).expect("a few hundred blocks")
        };
        let transfers_blocks = recent(TRANSFER_SIZE, config.event_bar_rows);
        let newest = u64::from(transfers_blocks) * u64::from(config.block_size);
        Self {
            blocks_max: options.storage_limit_bytes / u64::from(config.block_size),
            rows_per_op,
            transfers_blocks,
            transfers_packed: options.cache_transfers_bytes.saturating_sub(newest),
            balances_blocks: recent(BALANCE_SIZE, config.event_bar_rows),
            accounts_blocks: recent(ACCOUNT_SIZE, config.account_bar_rows),
        }
    }
}

const TRANSFER_SIZE: u32 = 128;
const BALANCE_SIZE: u32 = 136;
const ACCOUNT_SIZE: u32 = 128;

/// Hash of a value under a tag of either table.
pub(super) fn tag_hash(key: HashKey, tag: usize, value: u128) -> u64 {
    hash(key, u8::try_from(tag).expect("a table has a handful of tags"), value)
}

impl Store {
    /// Bytes of the newest transfers, which are always in memory: the smallest cache of transfers.
    #[must_use]
    pub fn cache_transfers_min(config: &Config, options: &StoreOptions) -> u64 {
        u64::from(Sizes::new(config, options).transfers_blocks) * u64::from(config.block_size)
    }

    /// Allocates everything that the store will ever use. Then call [`Store::open`].
    ///
    /// # Panics
    /// When the configuration is not valid, or the storage limit holds no block.
    #[must_use]
    pub fn new(config: &Config, options: &StoreOptions) -> Self {
        config.validate().expect("a valid configuration");
        let sizes = Sizes::new(config, options);
        assert!(sizes.blocks_max > 0, "the storage limit holds a block at least");
        let log = |options: LogOptions| Log::new(config, &options);
        let [transfers, balances, accounts] = log_options(&sizes).map(log);
        let filters = filter_options(options);
        let [events, account_table] = table_options(config, options.cluster);
        let events = Table::with_filters(&events, filters);
        let account_table = Table::new(&account_table);
        let grid = Grid::new(config, &grid_options(config, options, &sizes));
        let blob_size = index_of(blob_size_max(config, options, &sizes));
        let boundaries_max = index_of(u64::from(sizes.rows_per_op) / 8 + 2);
        Self {
            grid,
            transfers,
            balances,
            accounts,
            events,
            account_table,
            key: HashKey::new(options.cluster),
            events_indexed: 0,
            accounts_indexed: 0,
            maxima: Maxima::default(),
            boundaries: Vec::with_capacity(boundaries_max),
            account_boundaries: Vec::with_capacity(boundaries_max),
            end_op_stage: EndOpStage::Index,
            pause_rows: u64::from(rows_per_op_max(config)) / 4,
            is_paused: false,
            blob: BlobWriter::new(options.cluster, config.block_size, blob_size),
            checkpoint: CheckpointStage::Idle,
            opening: OpenStage::Closed,
            walk: Walk::NONE,
            blob_extra: (0, 0),
            blob_extra_max: index_of(options.blob_extra_bytes),
            ops_ahead_max: index_of(config.pipeline_max.into()),
        }
    }

    /// Memory that a store occupies, by purpose, in bytes. Nothing is allocated for the answer.
    #[must_use]
    pub fn memory_bytes(config: &Config, options: &StoreOptions) -> [(&'static str, u64); 11] {
        let sizes = Sizes::new(config, options);
        let logs = log_options(&sizes).map(|log| Log::memory_bytes(config, &log));
        let filters = filter_options(options);
        let [events, accounts] = table_options(config, options.cluster);
        let (events, accounts) = (events.memory_bytes(filters), accounts.memory_bytes(None));
        let blob_size = blob_size_max(config, options, &sizes);
        let grid = grid_options(config, options, &sizes);
        [
            ("page cache", PageCache::memory_bytes(options.cache_grid_bytes)),
            ("newest transfers", logs[0]),
            ("newest balances", logs[1]),
            ("newest accounts", logs[2]),
            ("filters", events.filters + accounts.filters),
            ("newest index entries", events.memtables + accounts.memtables),
            ("flushes and merges", events.work + accounts.work),
            ("runs", events.runs + accounts.runs),
            ("grid reads and writes", Grid::memory_bytes(config, &grid)),
            ("free blocks", FreeSet::memory_bytes(sizes.blocks_max)),
            ("checkpoint", BlobWriter::memory_bytes(config.block_size, blob_size)),
        ]
    }

    /// Whether the data file has been opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.opening, OpenStage::Open)
    }

    /// Addresses that scheduled work writes: nobody reads them before its deadline.
    pub fn reserved(&self) -> impl Iterator<Item = u64> {
        self.events.reserved().chain(self.account_table.reserved())
    }

    /// The blocks of the data file.
    #[must_use]
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The blocks of the data file, for those who repair and serve them.
    pub fn grid_mut(&mut self) -> &mut Grid {
        &mut self.grid
    }

    // The world.

    /// Moves wanted reads, queued writes and jobs into the outbox, as far as they fit.
    pub fn pump(&mut self, outbox: &mut StorageOutbox) {
        // While a data file is opened, the tables know what is due before they know their rows.
        if matches!(self.opening, OpenStage::Room | OpenStage::Open) {
            self.events.pump(&mut self.grid, outbox);
            self.account_table.pump(&mut self.grid, outbox);
        }
        self.grid.pump(outbox);
    }

    /// Takes a read or write of the grid that is done.
    pub fn on_disk_done(&mut self, done: DiskDone) {
        self.grid.on_disk_done(done);
    }

    /// Takes a job that has run.
    pub fn on_job_done(&mut self, job: Job) {
        match job.table() {
            EVENT_TABLE => self.events.on_job_done(&mut self.grid, job),
            _ => self.account_table.on_job_done(&mut self.grid, job),
        }
    }

    /// Is it worth calling a function again that said `Wait`? See [`Grid::pages_arrived`].
    pub fn pages_arrived(&mut self) -> bool {
        self.grid.pages_arrived()
    }

    /// A block that could not be read, verified or written. The replica must stop.
    #[must_use]
    pub fn fault(&self) -> Option<&GridFault> {
        self.grid.fault()
    }

    /// What the grid has done so far.
    #[must_use]
    pub fn counters(&self) -> GridCounters {
        self.grid.counters()
    }

    pub(super) fn hash(&self, tag: usize, value: u128) -> u64 {
        tag_hash(self.key, tag, value)
    }

    // Appending.

    /// Appends an event and returns its row. Searches by id and by resolution see it at once.
    ///
    /// # Panics
    /// When the kind of the row and the transfer don't belong together.
    pub fn append_event(&mut self, transfer: &Transfer, balances: &BalanceRow) -> u64 {
        let kind = balances.event_kind().expect("a known kind of event");
        assert!(is_orphan(transfer) == (kind == EventKind::Orphan), "orphans have no ledger");
        assert!(is_expiry(transfer) == (kind == EventKind::Expired), "expiries are marked");
        let row = self.transfers.append(transfer.as_bytes());
        let row_balances = self.balances.append(balances.as_bytes());
        assert!(row == row_balances, "the two logs of the events are aligned");
        assert!(row < rows::ROWS_MAX, "row numbers have 40 bits");
        self.insert_points(row, transfer.id, kind, balances.pending_row());
        row
    }

    /// Makes an event findable by id and by the pending transfer that it resolves.
    pub(super) fn insert_points(&mut self, row: u64, id: u128, kind: EventKind, pending_row: u64) {
        if kind != EventKind::Expired {
            let hash = self.hash(event_tag::ID, id);
            self.events.unique_insert(event_tag::ID, hash, row);
        }
        if kind.resolves() {
            let hash = self.hash(event_tag::RESOLUTION, u128::from(pending_row) + 1);
            self.events.unique_insert(event_tag::RESOLUTION, hash, row);
        }
    }

    /// Appends an account and returns its row. Searches by id see it at once.
    ///
    /// # Panics
    /// When the account has no ledger.
    pub fn append_account(&mut self, account: &Account) -> u64 {
        assert!(account.ledger != 0, "accounts have a ledger");
        let row = self.accounts.append(account.as_bytes());
        let hash = self.hash(account_tag::ID, account.id);
        self.account_table.unique_insert(account_tag::ID, hash, row);
        row
    }

    /// Rows of the event log.
    #[must_use]
    pub fn events_rows(&self) -> u64 {
        self.transfers.rows()
    }

    /// Rows of the account log.
    #[must_use]
    pub fn accounts_rows(&self) -> u64 {
        self.accounts.rows()
    }

    /// Takes back the newest events until `rows` are left: only events of the current op.
    ///
    /// # Panics
    /// When that would take back earlier ops.
    pub fn truncate_events(&mut self, rows: u64) {
        assert!(rows >= self.events_indexed, "earlier ops stay");
        while self.transfers.rows() > rows {
            let row = self.transfers.rows() - 1;
            let balances = *self.balances_recent(row).expect("a row of this op is in memory");
            let id = self.transfer_recent(row).expect("a row of this op is in memory").id;
            let kind = balances.event_kind().expect("this build wrote the row");
            if kind.resolves() {
                let value = u128::from(balances.pending_row()) + 1;
                let hash = self.hash(event_tag::RESOLUTION, value);
                self.events.unique_remove(event_tag::RESOLUTION, hash, row);
            }
            if kind != EventKind::Expired {
                let hash = self.hash(event_tag::ID, id);
                self.events.unique_remove(event_tag::ID, hash, row);
            }
            self.transfers.truncate(row);
            self.balances.truncate(row);
        }
    }

    /// Takes back the newest accounts until `rows` are left: only accounts of the current op.
    ///
    /// # Panics
    /// When that would take back earlier ops.
    pub fn truncate_accounts(&mut self, rows: u64) {
        assert!(rows >= self.accounts_indexed, "earlier ops stay");
        while self.accounts.rows() > rows {
            let row = self.accounts.rows() - 1;
            let id = self.account_recent(row).expect("a row of this op is in memory").id;
            let hash = self.hash(account_tag::ID, id);
            self.account_table.unique_remove(account_tag::ID, hash, row);
            self.accounts.truncate(row);
        }
    }

    /// Is this id above every id that any transfer or burnt id of an earlier op has? Then nothing
    /// older than the current op can have it, and no search is needed.
    #[inline]
    #[must_use]
    pub fn transfer_id_is_newest(&self, id: u128) -> bool {
        id > self.maxima.transfer_id
    }

    /// Tells the processor that this transfer id will be looked for soon.
    #[inline]
    pub fn prefetch_transfer(&self, id: u128) {
        self.events.prefetch(event_tag::ID, self.hash(event_tag::ID, id));
    }

    // Rows.

    /// The transfer of an event, as stored (with [`rows::STORED_FLAG_EXPIRY`] for an expiry).
    pub fn transfer(&mut self, row: u64) -> Fetch<Transfer> {
        let mut transfer = Transfer::default();
        ready!(self.transfers.read(&mut self.grid, row, transfer.as_mut_bytes()));
        Fetch::Ready(transfer)
    }

    /// The balances of an event.
    pub fn balances(&mut self, row: u64) -> Fetch<BalanceRow> {
        let mut balances = BalanceRow::default();
        ready!(self.balances.read(&mut self.grid, row, balances.as_mut_bytes()));
        Fetch::Ready(balances)
    }

    /// An account as it was created.
    pub fn account(&mut self, row: u64) -> Fetch<Account> {
        let mut account = Account::default();
        ready!(self.accounts.read(&mut self.grid, row, account.as_mut_bytes()));
        Fetch::Ready(account)
    }

    /// The transfer of an event, if it is among those kept in memory.
    #[must_use]
    pub fn transfer_recent(&self, row: u64) -> Option<&Transfer> {
        self.transfers.recent(row).map(view)
    }

    /// The balances of an event, if they are among those kept in memory.
    #[must_use]
    pub fn balances_recent(&self, row: u64) -> Option<&BalanceRow> {
        self.balances.recent(row).map(view)
    }

    /// An account, if it is among those kept in memory.
    #[must_use]
    pub fn account_recent(&self, row: u64) -> Option<&Account> {
        self.accounts.recent(row).map(view)
    }

    // Searches for one row.

    /// A search for the event that took a transfer id: a created transfer or a burnt id.
    #[must_use]
    pub fn find_transfer_start(&self, id: u128) -> Find {
        let hash = self.hash(event_tag::ID, id);
        Find::new(FindKind::Transfer, id, Lookup::new(event_tag::ID, hash, Some(id)))
    }

    /// A search for an account by id.
    #[must_use]
    pub fn find_account_start(&self, id: u128) -> Find {
        let hash = self.hash(account_tag::ID, id);
        Find::new(FindKind::Account, id, Lookup::new(account_tag::ID, hash, Some(id)))
    }

    /// A search for the newest event of an account. The account must not have had an event in the
    /// current op.
    #[must_use]
    pub fn find_newest_event_start(&self, account_id: u128) -> Find {
        let hash = self.hash(event_tag::ACCOUNT, account_id);
        Find::new(
            FindKind::NewestEvent,
            account_id,
            Lookup::new(event_tag::ACCOUNT, hash, Some(account_id)),
        )
    }

    /// A search for the event that resolved the pending transfer in `pending_row`.
    #[must_use]
    pub fn find_resolution_start(&self, pending_row: u64) -> Find {
        let hash = self.hash(event_tag::RESOLUTION, u128::from(pending_row) + 1);
        let lookup = Lookup::new(event_tag::RESOLUTION, hash, None).from_row(pending_row + 1);
        Find::new(FindKind::Resolution, u128::from(pending_row), lookup)
    }

    /// Goes on with a search. Ready with the row, or with `None` if there is none.
    pub fn find(&mut self, find: &mut Find) -> Fetch<Option<u64>> {
        loop {
            let row = if let Some(row) = find.candidate {
                row
            } else {
                let table = match find.kind {
                    FindKind::Account => &mut self.account_table,
                    _ => &mut self.events,
                };
                let Some(row) = ready!(table.lookup(&mut self.grid, &mut find.lookup)) else {
                    return Fetch::Ready(None);
                };
                find.candidate = Some(row);
                row
            };
            let matches = match find.kind {
                FindKind::Transfer => ready!(self.transfer(row)).id == find.key,
                FindKind::Account => ready!(self.account(row)).id == find.key,
                FindKind::NewestEvent => {
                    let transfer = ready!(self.transfer(row));
                    transfer.debit_account_id == find.key || transfer.credit_account_id == find.key
                }
                FindKind::Resolution => {
                    let balances = ready!(self.balances(row));
                    balances.event_kind().is_some_and(EventKind::resolves)
                        && u128::from(balances.pending_row()) == find.key
                }
            };
            if matches {
                return Fetch::Ready(Some(row));
            }
            find.candidate = None;
        }
    }

    /// The event with this transfer id among the newest ones, those of the current op included.
    ///
    /// # Panics
    /// Never: rows of the memtables are in memory.
    #[must_use]
    pub fn recent_transfer(&self, id: u128) -> Option<u64> {
        let hash = self.hash(event_tag::ID, id);
        let mut cursor = PointCursor::default();
        while let Some(row) = self.events.unique_recent(event_tag::ID, hash, &mut cursor) {
            if self.transfer_recent(row).expect("a row of a memtable").id == id {
                return Some(row);
            }
        }
        None
    }

    /// The event that resolved a pending transfer, if it is among the newest ones.
    ///
    /// # Panics
    /// Never: rows of the memtables are in memory.
    #[must_use]
    pub fn recent_resolution(&self, pending_row: u64) -> Option<u64> {
        let hash = self.hash(event_tag::RESOLUTION, u128::from(pending_row) + 1);
        let mut cursor = PointCursor::default();
        let tag = event_tag::RESOLUTION;
        while let Some(row) = self.events.unique_recent(tag, hash, &mut cursor) {
            let balances = self.balances_recent(row).expect("a row of a memtable");
            if balances.pending_row() == pending_row {
                return Some(row);
            }
        }
        None
    }

    /// An account that left the cache of accounts: its newest event stays findable.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn spill_account(&mut self, account_id: u128, newest_row: u64) {
        assert!(newest_row < self.events_rows());
        let hash = self.hash(event_tag::ACCOUNT, account_id);
        self.events.spill(hash, account_id, newest_row);
    }
}

/// Rows that one op appends to a log at most.
fn rows_per_op_max(config: &Config) -> u32 {
    config.batch_max.max(config.pulse_max)
}

/// The tables, in the order of a checkpoint.
pub(super) fn table_options(config: &Config, cluster: u128) -> [TableOptions; 2] {
    let events = TableOptions {
        id: EVENT_TABLE,
        name: "events",
        cluster,
        tags: &EVENT_TAGS,
        account_tag: Some(event_tag::ACCOUNT),
        bar_rows: config.event_bar_rows.into(),
        rows_per_op_max: rows_per_op_max(config).into(),
        fan_in: config.fan_in.into(),
        levels_max: config.run_levels_max,
        block_size: config.block_size,
        scratch_entries: SCRATCH_ENTRIES,
    };
    let accounts = TableOptions {
        id: ACCOUNT_TABLE,
        name: "accounts",
        tags: &ACCOUNT_TAGS,
        account_tag: None,
        bar_rows: config.account_bar_rows.into(),
        ..events
    };
    [events, accounts]
}

fn filter_options(options: &StoreOptions) -> Option<FilterOptions> {
    let filters = FilterOptions { tag: event_tag::ID, bytes_max: options.filter_bytes };
    Some(filters).filter(|filters| filters.bytes_max > 0)
}

/// Transfers, balances, accounts.
pub(super) fn log_options(sizes: &Sizes) -> [LogOptions; 3] {
    let log = |form: &LogForm, recent_blocks| LogOptions {
        name: form.name,
        kind: form.kind,
        directory_kind: form.directory_kind,
        row_size: form.row_size,
        recent_blocks,
        packed_bytes: 0,
        op_rows_max: sizes.rows_per_op,
        blocks_max: sizes.blocks_max,
    };
    let [transfers, balances, accounts] = &LOG_FORMS;
    let transfers = log(transfers, sizes.transfers_blocks);
    let transfers = LogOptions { packed_bytes: sizes.transfers_packed, ..transfers };
    let balances = log(balances, sizes.balances_blocks);
    let accounts = log(accounts, sizes.accounts_blocks);
    [transfers, balances, accounts]
}

fn grid_options(config: &Config, options: &StoreOptions, sizes: &Sizes) -> GridOptions {
    let [events, accounts] = table_options(config, options.cluster);
    let write_buffers = TAILS_MAX + u32::try_from(BLOB_WRITES_MAX).expect("a few") + 6;
    let read_buffers = events.read_buffers_max() + accounts.read_buffers_max() + 4;
    let logs = sizes.transfers_blocks + sizes.balances_blocks + sizes.accounts_blocks;
    let directories = LOGS * RING_BLOCKS;
    let tables = events.blocks_in_flight_max() + accounts.blocks_in_flight_max();
    GridOptions {
        cluster: options.cluster,
        cache_bytes: options.cache_grid_bytes,
        blocks_max: sizes.blocks_max,
        page_reads_max: options.page_reads_max,
        block_reads_max: read_buffers,
        read_buffers,
        write_buffers,
        writes_queued_max: write_buffers + logs + directories + tables,
        writes_in_flight_max: WRITES_IN_FLIGHT_MAX,
    }
}

/// Bytes of the largest checkpoint blob.
pub(super) fn blob_size_max(config: &Config, options: &StoreOptions, sizes: &Sizes) -> u64 {
    let logs = log_options(sizes).map(|log| Log::state_size_max(config, &log));
    let tables = table_options(config, options.cluster);
    let tables = tables.iter().map(TableOptions::manifest_size_max).sum();
    let free_set = FreeSet::encoded_size_max(sizes.blocks_max);
    let logs = logs.iter().sum();
    super::persistence::blob_size_max(options.blob_extra_bytes, logs, tables, free_set)
}

/// A row where it lies in the memory of its log.
pub(super) fn view<T: FromBytes + Immutable + KnownLayout>(bytes: &[u8]) -> &T {
    T::ref_from_bytes(bytes).expect("rows of a log are aligned for their type")
}
