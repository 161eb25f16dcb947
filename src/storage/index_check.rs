//! Whether logs and indexes say the same, row by row and entry by entry, with little memory.
//!
//! [`RowCheck`] knows the rules that rows of a log keep among each other. [`IndexCheck`] makes the
//! index entries of rows again, through the code that made them first, and keeps of each index only
//! their number, their bounds and the sum of their hashes. [`RunCheck`] takes the entries of a run
//! as they lie, checks their order and the directory, and sums them up as well. Equal sums mean
//! equal sets of entries: an accident would have to hit one of 2^64. Not covered: reading blocks.

use std::fmt;

use super::hash::{HashKey, hash};
use super::image::CheckpointImage;
use super::indexing::{fill_account, fill_events};
use super::memtable::{ColumnFacts, Memtable};
use super::rows::{BalanceRow, EventKind, is_expiry, is_orphan};
use super::run::{Layout, Run, RunShape, place};
use super::store::{Maxima, table_options};
use super::table::TableOptions;
use super::{Config, count_of, index_of};
use crate::protocol::types::{Account, Transfer};
use crate::protocol::{SECTOR_SIZE, to_index};

/// Rows whose entries are made together at most.
pub const CHUNK_ROWS: usize = 4096;
/// Sets the sums apart from the hashes of the indexes.
const SUM_TAG: u8 = 255;

/// A rule between rows that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// The row.
    pub row: u64,
    /// The rule.
    pub rule: &'static str,
}

impl fmt::Display for RowFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "row {}: {}", self.row, self.rule)
    }
}

/// The rules of both logs of events and of the log of accounts, given row by row.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowCheck {
    maxima: Maxima,
}

impl RowCheck {
    /// Before the first rows.
    #[must_use]
    pub fn new() -> RowCheck {
        RowCheck::default()
    }

    /// Takes the next event, with the number of its row, and gives its kind.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn event(
        &mut self,
        row: u64,
        transfer: &Transfer,
        balances: &BalanceRow,
    ) -> Result<EventKind, RowFault> {
        let fault = |rule| RowFault { row, rule };
        let kind = balances.event_kind().ok_or(fault("its kind is unknown"))?;
        let orphan = is_orphan(transfer) == (kind == EventKind::Orphan);
        let expiry = is_expiry(transfer) == (kind == EventKind::Expired);
        if !orphan || !expiry {
            return Err(fault("the transfer is not of the kind of its balances"));
        }
        if kind.resolves() && balances.pending_row() >= row {
            return Err(fault("the pending transfer it resolves is not before it"));
        }
        let line = match kind {
            EventKind::Expired | EventKind::Orphan => &mut self.maxima.expiry,
            _ => &mut self.maxima.transfer,
        };
        let rises = *line < transfer.timestamp;
        *line = (*line).max(transfer.timestamp);
        if kind != EventKind::Expired {
            self.maxima.transfer_id = self.maxima.transfer_id.max(transfer.id);
        }
        if rises { Ok(kind) } else { Err(fault("its timestamp is not after those before")) }
    }

    /// Takes the next account, with the number of its row.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn account(&mut self, row: u64, account: &Account) -> Result<(), RowFault> {
        let fault = |rule| Err(RowFault { row, rule });
        let rises = self.maxima.account < account.timestamp;
        self.maxima.account = self.maxima.account.max(account.timestamp);
        if account.ledger == 0 {
            return fault("the account has no ledger");
        }
        if rises { Ok(()) } else { fault("its timestamp is not after those before") }
    }

    /// Keys of a block of transfers that begins here.
    #[must_use]
    pub fn event_keys(&self) -> [u64; 2] {
        [self.maxima.transfer, self.maxima.expiry]
    }

    /// Keys of a block of accounts that begins here.
    #[must_use]
    pub fn account_keys(&self) -> [u64; 2] {
        [self.maxima.account, 0]
    }

    /// Whether the checkpoint's summary is that of all rows.
    #[must_use]
    pub fn is_summary(&self, image: &CheckpointImage<'_>) -> bool {
        self.maxima == image.header.maxima
    }
}

/// How a run differs from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFault {
    /// The number of entries.
    Entries {
        /// In the run.
        found: u64,
        /// Of the log's rows.
        expected: u64,
    },
    /// The number is right, but some entries are not those of the log's rows.
    Content,
    /// The hash that all rows have in common.
    Constant {
        /// In the manifest.
        found: u64,
        /// Of the log's rows.
        expected: u64,
    },
    /// Smallest or largest value.
    Bounds,
    /// An entry is not behind the one before, or outside the rows of the run.
    Order {
        /// Position of the entry.
        position: u64,
    },
    /// The directory says that an entry is in another bucket.
    Directory {
        /// The bucket.
        bucket: u64,
    },
    /// The number of blocks reserved for a flush.
    Blocks {
        /// In the manifest.
        found: u64,
        /// Needed by the log's rows.
        expected: u64,
    },
}

impl fmt::Display for IndexFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries { found, expected } => {
                write!(formatter, "{found} entries, but {expected} by the log")
            }
            Self::Content => write!(formatter, "some entries are of other values than the log's"),
            Self::Constant { found, expected } => {
                write!(formatter, "common hash {found:#x}, but {expected:#x} by the log")
            }
            Self::Bounds => write!(formatter, "smallest or largest value is not the log's"),
            Self::Order { position } => write!(formatter, "entry {position} is out of order"),
            Self::Directory { bucket } => write!(formatter, "bucket {bucket} starts elsewhere"),
            Self::Blocks { found, expected } => {
                write!(formatter, "{found} blocks are reserved, but {expected} needed by the log")
            }
        }
    }
}

impl std::error::Error for IndexFault {}

/// What is kept of the entries of an index over a range of rows.
#[derive(Clone, Copy, Debug)]
struct Content {
    facts: ColumnFacts,
    sum: u64,
    is_first: bool,
}

impl Content {
    const EMPTY: Content = Content { facts: ColumnFacts::EMPTY, sum: 0, is_first: true };

    fn add(&mut self, facts: &ColumnFacts) {
        let constant = if self.is_first { facts.constant } else { self.facts.constant };
        self.facts.constant = if facts.constant == constant { constant } else { 0 };
        self.facts.entries += facts.entries;
        self.facts.value_min = self.facts.value_min.min(facts.value_min);
        self.facts.value_max = self.facts.value_max.max(facts.value_max);
        self.is_first = false;
    }
}

/// The entries that rows should have, for all indexes of a table.
#[derive(Debug)]
pub struct IndexCheck {
    options: TableOptions,
    key: HashKey,
    memtable: Memtable,
    level: u32,
    first_row: u64,
    next_row: u64,
    contents: Vec<Content>,
}

impl IndexCheck {
    /// For a table, 0 events or 1 accounts, of a file of this cluster and geometry.
    ///
    /// # Panics
    ///
    /// If there is no such table.
    #[must_use]
    pub fn new(table: usize, config: &Config, cluster: u128) -> IndexCheck {
        let options = table_options(config, cluster)[table];
        IndexCheck {
            options,
            key: HashKey::new(cluster),
            memtable: Memtable::new(options.tags, count_of(CHUNK_ROWS), false),
            level: 0,
            first_row: 0,
            next_row: 0,
            contents: vec![Content::EMPTY; options.tags.len()],
        }
    }

    /// Whether its rows are events, not accounts.
    #[must_use]
    pub fn is_events(&self) -> bool {
        self.options.account_tag.is_some()
    }

    /// Begins with the rows of a run of this level.
    pub fn start(&mut self, first_row: u64, level: u32) {
        (self.first_row, self.next_row, self.level) = (first_row, first_row, level);
        self.contents.fill(Content::EMPTY);
    }

    /// Takes the next events, at most [`CHUNK_ROWS`].
    ///
    /// # Panics
    ///
    /// If there are more, or not as many balances as transfers.
    pub fn events(&mut self, rows: &[(EventKind, &Transfer)], balances: &[BalanceRow]) {
        assert!(rows.len() == balances.len());
        let first_row = self.next_row;
        self.memtable.reset(first_row);
        let pending_row = |row: u64| balances[index_of(row - first_row)].pending_row();
        fill_events(&mut self.memtable, self.key, first_row, rows, pending_row);
        self.add(count_of(rows.len()));
    }

    /// Takes the next accounts, at most [`CHUNK_ROWS`].
    pub fn accounts(&mut self, accounts: &[Account]) {
        self.memtable.reset(self.next_row);
        for (row, account) in (self.next_row..).zip(accounts) {
            fill_account(&mut self.memtable, self.key, row, account);
        }
        self.add(count_of(accounts.len()));
    }

    fn add(&mut self, rows: u64) {
        self.memtable.complete(self.next_row + rows);
        for (tag, content) in self.contents.iter_mut().enumerate() {
            content.add(self.memtable.facts(tag));
            let mask = self.options.shape(tag, self.level).mask();
            let slots = u64::from(self.options.tags[tag].entries_per_row);
            let first_field = (self.next_row - self.first_row) * slots;
            for (field, value) in (first_field..).zip(self.memtable.column(tag)) {
                if *value != 0 {
                    let entry = (value & !mask) | field;
                    content.sum = content.sum.wrapping_add(sum_of(self.key, entry));
                }
            }
        }
        self.next_row += rows;
    }

    /// Whether a run is that of the rows taken. `found` is the sum of its blocks, none if it has
    /// none.
    ///
    /// # Errors
    ///
    /// The first difference.
    ///
    /// # Panics
    ///
    /// If the run is of other rows.
    pub fn compare(&self, run: &Run, found: Option<u64>) -> Result<(), IndexFault> {
        assert!((run.first_row, run.end_row) == (self.first_row, self.next_row));
        let content = &self.contents[to_index(run.tag)];
        let facts = &content.facts;
        if run.entries != facts.entries {
            let (found, expected) = (run.entries, facts.entries);
            return Err(IndexFault::Entries { found, expected });
        }
        if run.constant != facts.constant {
            let (found, expected) = (run.constant, facts.constant);
            return Err(IndexFault::Constant { found, expected });
        }
        let filled = facts.entries > 0;
        let bounds = if filled { (facts.value_min, facts.value_max) } else { (0, 0) };
        if (run.value_min, run.value_max) != bounds {
            return Err(IndexFault::Bounds);
        }
        match found {
            Some(sum) if sum != content.sum => Err(IndexFault::Content),
            _ => Ok(()),
        }
    }

    /// Whether as many blocks are reserved for the flush of the rows taken as it needs.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn compare_flush(&self, tag: usize, blocks: u64) -> Result<(), IndexFault> {
        let facts = &self.contents[tag].facts;
        let has_blocks = facts.entries > 0 && facts.constant == 0;
        let shape = self.options.shape(tag, 0);
        let layout = Layout::new(shape, facts.entries, self.options.block_size);
        let expected = if has_blocks { layout.blocks() } else { 0 };
        if blocks == expected {
            return Ok(());
        }
        Err(IndexFault::Blocks { found: blocks, expected })
    }
}

fn sum_of(key: HashKey, entry: u64) -> u64 {
    hash(key, SUM_TAG, entry.into())
}

/// The entries of a run with blocks, as they lie.
#[derive(Debug)]
pub struct RunCheck {
    key: HashKey,
    shape: RunShape,
    layout: Layout,
    /// Row fields are below this.
    fields: u64,
    /// Starts of the buckets.
    words: Vec<u32>,
    position: u64,
    /// Bucket and row field of the entry before.
    last: Option<(u64, u64)>,
    sum: u64,
}

impl RunCheck {
    /// For a run of a table of a file of this cluster.
    ///
    /// # Panics
    ///
    /// If the run has no blocks.
    #[must_use]
    pub fn new(run: &Run, options: &TableOptions, cluster: u128) -> RunCheck {
        assert!(run.has_blocks());
        let tag = to_index(run.tag);
        let shape = options.shape(tag, run.level);
        let layout = Layout::new(shape, run.entries, options.block_size);
        let slots = u64::from(options.tags[tag].entries_per_row);
        RunCheck {
            key: HashKey::new(cluster),
            shape,
            layout,
            fields: (run.end_row - run.first_row) * slots,
            words: Vec::with_capacity(index_of(layout.words)),
            position: 0,
            last: None,
            sum: 0,
        }
    }

    /// Layout of the run.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes the part of the directory that a block of it, or the root, holds. All of it comes
    /// before the first entry.
    ///
    /// # Panics
    ///
    /// If the block is shorter than one.
    pub fn directory(&mut self, number: u64, block: &[u8]) {
        let start = if self.layout.directory_blocks == 0 { self.layout.directory_start } else { 0 };
        let end = if self.layout.directory_blocks == 0 {
            start + self.layout.words * 4
        } else {
            self.layout.used(number)
        };
        items(block, start, end, |bytes| {
            let words = bytes.chunks_exact(4);
            let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
            self.words.extend(words.map(word));
        });
    }

    /// Takes the entries that a block of them, or the root, holds.
    ///
    /// # Errors
    ///
    /// The first entry that is not where it should be.
    ///
    /// # Panics
    ///
    /// If the block is shorter than one.
    pub fn entries(&mut self, number: u64, block: &[u8]) -> Result<(), IndexFault> {
        let (start, end) = if self.layout.data_blocks == 0 {
            (self.layout.data_start, self.layout.data_start + self.layout.entries * 8)
        } else {
            (0, self.layout.used(number))
        };
        let mut result = Ok(());
        items(block, start, end, |bytes| {
            for bytes in bytes.chunks_exact(8) {
                let entry = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
                if result.is_ok() {
                    result = self.entry(entry);
                }
            }
        });
        result
    }

    fn entry(&mut self, entry: u64) -> Result<(), IndexFault> {
        let (bucket, field) = (self.shape.bucket(entry), entry & self.shape.mask());
        let place = (bucket, field);
        let follows = self.last.is_none_or(|last| last < place);
        if !follows || field >= self.fields {
            return Err(IndexFault::Order { position: self.position });
        }
        let start = |bucket: u64| self.words.get(index_of(bucket)).copied().map(u64::from);
        let inside = start(bucket).is_some_and(|start| start <= self.position)
            && start(bucket + 1).is_some_and(|end| self.position < end);
        if !inside {
            return Err(IndexFault::Directory { bucket });
        }
        self.last = Some(place);
        self.position += 1;
        self.sum = self.sum.wrapping_add(sum_of(self.key, entry));
        Ok(())
    }

    /// The sum of all entries.
    ///
    /// # Errors
    ///
    /// If the directory does not end where the entries do, or goes back.
    pub fn finish(self) -> Result<u64, IndexFault> {
        let (found, expected) = (self.position, self.layout.entries);
        if found != expected {
            return Err(IndexFault::Entries { found, expected });
        }
        let back = self.words.windows(2).position(|pair| pair[0] > pair[1]);
        let ends = self.words.last().copied().map(u64::from) == Some(self.layout.entries);
        if let Some(bucket) = back.or((!ends).then_some(self.words.len())) {
            return Err(IndexFault::Directory { bucket: count_of(bucket) });
        }
        Ok(self.sum)
    }
}

/// Gives the bytes `start` to before `end` of a block's items, piece by piece.
fn items(block: &[u8], start: u64, end: u64, mut piece: impl FnMut(&[u8])) {
    let mut byte = start;
    while byte < end {
        let (sector, offset, room) = place(byte);
        let length = room.min(index_of(end - byte));
        let at = to_index(sector * SECTOR_SIZE) + offset;
        piece(&block[at..at + length]);
        byte += count_of(length);
    }
}
