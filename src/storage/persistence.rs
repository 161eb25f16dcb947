//! The store over time: end of an op, checkpoint, opening a data file.
//!
//! Each of them takes several steps and says `Wait` in between; each is driven by whoever owns the
//! store until it is ready. Not covered: at which ops checkpoints are due (the replica decides),
//! and
//! what the layers above put into the blob.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checkpoint::{BlobReader, CheckpointRoot};
use super::decode::{DecodeError, Reader, require};
use super::fetch::Fetch;
use super::free_set::FreeSet;
use super::indexing::push_bounded;
use super::log::Log;
use super::store::{CheckpointStage, EndOpStage, Maxima, OpenStage, Store};
use super::table::Table;
use super::{count_of, index_of};
use crate::ready;

/// Sizes of the blob's parts, at its start.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct BlobHeader {
    pub(super) maxima: Maxima,
    /// Keys of the block of transfers that is being filled.
    pub(super) tail_keys: [u64; 2],
    /// The same of accounts.
    pub(super) account_tail_keys: [u64; 2],
    /// Bytes that the layers above wrote, right after this header.
    pub(super) extra_size: u64,
    /// Bytes of logs and tables after that; the free set is the rest.
    pub(super) store_size: u64,
}

const BLOB_HEADER_SIZE: usize = size_of::<BlobHeader>();

/// Bytes of the largest blob, when logs, tables and free set take so many.
pub(super) fn blob_size_max(extra: u64, logs: u64, tables: u64, free_set: u64) -> u64 {
    count_of(BLOB_HEADER_SIZE) + extra + logs + tables + free_set
}

/// The header, the bytes of the layers above, and the rest.
///
/// # Errors
///
/// If the blob is shorter than its parts.
pub(super) fn blob_parts(blob: &[u8]) -> Result<(BlobHeader, &[u8], &[u8]), DecodeError> {
    let mut reader = Reader::new(blob);
    let header = reader.read::<BlobHeader>("blob header")?;
    let rest = &blob[BLOB_HEADER_SIZE..];
    let left = count_of(rest.len());
    let sizes = header.extra_size <= left && header.store_size <= left - header.extra_size;
    require(sizes, "size of a part", header.extra_size, "within the blob")?;
    let (extra, rest) = rest.split_at(index_of(header.extra_size));
    Ok((header, extra, rest))
}

/// Why a data file cannot be opened, besides damage inside a block, which the grid reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The superblock's checkpoint root makes no sense.
    Root {
        /// Op of the checkpoint.
        op: u64,
        /// Address of its index block.
        address: u64,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A part of the checkpoint makes no sense although its checksum is right.
    Part {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The rows of the log aren't those that an index was made for.
    Index {
        /// Name of the index.
        tag: &'static str,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root { op, address, error } => {
                write!(formatter, "the checkpoint of op {op} in grid block {address}: {error}")
            }
            Self::Part { part, error } => write!(formatter, "the checkpoint's {part}: {error}"),
            Self::Index { tag } => {
                write!(formatter, "the index of {tag} was made for other rows than the log's")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    fn root(root: &CheckpointRoot, error: DecodeError) -> Self {
        Self::Root { op: root.op, address: root.index.address, error }
    }
}

impl Store {
    // End of an op.

    /// Ends an op: seals full blocks, makes index entries, rotates memtables and installs finished
    /// runs. Call until ready; it pauses once after many rows, and waits only where work with a
    /// deadline at this op isn't done.
    pub fn end_op(&mut self, op: u64) -> Fetch<()> {
        self.is_paused = false;
        if self.end_op_stage == EndOpStage::Index {
            let rows = self.transfers.rows() - self.events_indexed;
            self.index_events();
            self.index_accounts();
            self.end_op_stage = EndOpStage::Logs;
            if rows > self.pause_rows {
                self.is_paused = true;
                return Fetch::Wait;
            }
        }
        if self.end_op_stage == EndOpStage::Logs {
            self.end_op_logs(op);
            self.end_op_stage = EndOpStage::Events;
        }
        if self.end_op_stage == EndOpStage::Events {
            let rows = self.transfers.rows();
            ready!(self.events.end_op(&mut self.grid, op, rows));
            self.transfers.retain_from(self.events.watermark());
            self.balances.retain_from(self.events.watermark());
            self.end_op_stage = EndOpStage::Accounts;
        }
        if self.end_op_stage == EndOpStage::Accounts {
            let rows = self.accounts.rows();
            ready!(self.account_table.end_op(&mut self.grid, op, rows));
            self.accounts.retain_from(self.account_table.watermark());
            self.end_op_stage = EndOpStage::Room;
        }
        ready!(self.make_room());
        self.end_op_stage = EndOpStage::Index;
        Fetch::Ready(())
    }

    /// Whether the last `Wait` was only a pause: the next call goes on at once.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Makes room in memory for the rows of another op.
    fn make_room(&mut self) -> Fetch<()> {
        ready!(self.transfers.reserve_op());
        ready!(self.balances.reserve_op());
        self.accounts.reserve_op()
    }

    fn end_op_logs(&mut self, op: u64) {
        let boundaries = &self.boundaries;
        self.transfers.end_op(&mut self.grid, op, |row| keys_of(boundaries, row));
        self.balances.end_op(&mut self.grid, op, |_| [0, 0]);
        let boundaries = &self.account_boundaries;
        self.accounts.end_op(&mut self.grid, op, |row| keys_of(boundaries, row));
        // The block that is being filled is sealed by a later op.
        let transfers_sealed = sealed_rows(&self.transfers);
        let accounts_sealed = sealed_rows(&self.accounts);
        self.boundaries.retain(|(row, _)| *row >= transfers_sealed);
        self.account_boundaries.retain(|(row, _)| *row >= accounts_sealed);
    }

    // Checkpoint.

    /// Begins a checkpoint after `op`, which must have ended. The layers above append their state
    /// to the bytes that this returns, at most what they asked for in the options, and call
    /// [`Store::checkpoint_start`] before anything else.
    ///
    /// # Panics
    /// When the checkpoint before is not finished.
    pub fn checkpoint_begin(&mut self, op: u64) -> &mut Vec<u8> {
        assert!(self.checkpoint == CheckpointStage::Idle, "one checkpoint at a time");
        assert!(self.end_op_stage == EndOpStage::Index, "the op has ended");
        assert!(self.events_indexed == self.transfers.rows(), "the op has ended");
        self.checkpoint = CheckpointStage::Filling { op };
        let blob = self.blob.blob_mut();
        blob.clear();
        blob.resize(BLOB_HEADER_SIZE, 0);
        blob
    }

    /// Fixes the content of the checkpoint. From here on later ops may run.
    ///
    /// # Panics
    /// When the layers above wrote more than they asked for.
    pub fn checkpoint_start(&mut self) {
        let CheckpointStage::Filling { op } = self.checkpoint else {
            panic!("a checkpoint is begun before it is started")
        };
        let extra_size = self.blob.blob().len() - BLOB_HEADER_SIZE;
        assert!(extra_size <= self.blob_extra_max, "the state of the layers above fits");
        self.blob.release(&mut self.grid);
        self.transfers.checkpoint_tails(&mut self.grid, op);
        self.balances.checkpoint_tails(&mut self.grid, op);
        self.accounts.checkpoint_tails(&mut self.grid, op);
        self.grid.stage_checkpoint();

        let blob = self.blob.blob_mut();
        let extra_end = blob.len();
        self.transfers.encode(blob);
        self.balances.encode(blob);
        self.accounts.encode(blob);
        self.events.encode(blob);
        self.account_table.encode(blob);
        let header = BlobHeader {
            maxima: self.maxima,
            tail_keys: self.boundaries.first().map_or([0; 2], |(_, keys)| *keys),
            account_tail_keys: self.account_boundaries.first().map_or([0; 2], |(_, keys)| *keys),
            extra_size: count_of(extra_size),
            store_size: count_of(blob.len() - extra_end),
        };
        blob[..BLOB_HEADER_SIZE].copy_from_slice(header.as_bytes());
        self.acquire_blob();
        self.grid.free_set_encode(self.blob.blob_mut());
        self.blob.start(op);
        let root = CheckpointRoot {
            blob_size: count_of(self.blob.blob().len()),
            op,
            event_rows: self.transfers.rows(),
            account_rows: self.accounts.rows(),
            // As of this op: later ones may have run when the last block is written.
            address_max: self.grid.free_set().highest_acquired(),
            ..CheckpointRoot::EMPTY
        };
        self.checkpoint = CheckpointStage::Writing { root };
    }

    /// Takes addresses for a blob that ends with a free set which names those addresses too.
    fn acquire_blob(&mut self) {
        let size = count_of(self.blob.blob().len());
        let highest = self.grid.free_set().highest_acquired();
        let guess = self.blob.blocks_for(size + FreeSet::encoded_size_max(highest));
        let address_max = highest + guess + 8;
        let blocks = self.blob.blocks_for(size + FreeSet::encoded_size_max(address_max));
        self.blob.acquire(&mut self.grid, blocks);
        assert!(self.grid.free_set().highest_acquired() <= address_max, "the guess has slack");
    }

    /// Writes the checkpoint, a few blocks at a time, and makes it durable. Call until ready with
    /// the root that the superblock must name. [`Store::pump`] must be called in between.
    ///
    /// # Panics
    /// When no checkpoint was started.
    pub fn checkpoint_step(&mut self) -> Fetch<CheckpointRoot> {
        loop {
            self.checkpoint = match self.checkpoint {
                CheckpointStage::Idle | CheckpointStage::Filling { .. } => {
                    panic!("a checkpoint is started before it is written")
                }
                CheckpointStage::Writing { root } => {
                    let (index, blocks) = ready!(self.blob.step(&mut self.grid));
                    let root = CheckpointRoot { index, blob_blocks: blocks, ..root };
                    CheckpointStage::Draining { root, mark: self.grid.write_mark() }
                }
                CheckpointStage::Draining { root, mark } => {
                    // A walk may be making its repairs durable.
                    if !self.grid.written_below(mark) || !self.grid.sync_done() {
                        return Fetch::Wait;
                    }
                    self.grid.sync_start();
                    CheckpointStage::Syncing { root }
                }
                CheckpointStage::Syncing { root } => {
                    if !self.grid.sync_done() {
                        return Fetch::Wait;
                    }
                    self.checkpoint = CheckpointStage::Idle;
                    return Fetch::Ready(root);
                }
            }
        }
    }

    /// Is a checkpoint being written?
    #[must_use]
    pub fn checkpoint_in_progress(&self) -> bool {
        self.checkpoint != CheckpointStage::Idle
    }

    /// Blocks that the last durable checkpoint doesn't need become free. Must be called at a fixed
    /// op, the same on every replica.
    pub fn release_staged(&mut self) {
        self.grid.release_staged();
    }

    // Opening.

    /// Begins to open the checkpoint that the superblock names, or an empty store.
    ///
    /// # Errors
    /// When the root can't be right.
    ///
    /// # Panics
    /// When the store was opened before.
    pub fn open(&mut self, root: CheckpointRoot) -> Result<(), OpenError> {
        assert!(matches!(self.opening, OpenStage::Closed), "a store is opened once");
        self.opening = if root.is_empty() {
            OpenStage::Room
        } else {
            let reader = BlobReader::new(root, &mut self.blob)
                .map_err(|error| OpenError::root(&root, error))?;
            OpenStage::Blob(root, reader)
        };
        Ok(())
    }

    /// Goes on with opening. Call until ready; then [`Store::opened_extra`] gives what the layers
    /// above had put into the checkpoint.
    ///
    /// # Panics
    /// When [`Store::open`] was not called.
    pub fn open_step(&mut self) -> Fetch<Result<(), OpenError>> {
        loop {
            match &mut self.opening {
                OpenStage::Closed => panic!("open() comes first"),
                OpenStage::Blob(root, reader) => {
                    let root = *root;
                    if let Err(error) = ready!(reader.step(&mut self.grid, &mut self.blob)) {
                        return Fetch::Ready(Err(OpenError::root(&root, error)));
                    }
                    if let Err(error) = self.decode_blob() {
                        return Fetch::Ready(Err(error));
                    }
                    self.opening = OpenStage::Logs(root);
                }
                OpenStage::Logs(root) => {
                    let root = *root;
                    if let Err(error) = ready!(self.open_logs()) {
                        return Fetch::Ready(Err(OpenError::root(&root, error)));
                    }
                    if let Err(error) = self.index_again() {
                        return Fetch::Ready(Err(error));
                    }
                    self.opening = OpenStage::Room;
                }
                OpenStage::Room => {
                    ready!(self.make_room());
                    self.opening = OpenStage::Open;
                }
                OpenStage::Open => return Fetch::Ready(Ok(())),
            }
        }
    }

    /// What the layers above had put into the checkpoint that was opened; empty for a new store.
    ///
    /// # Panics
    /// Before opening has ended.
    #[must_use]
    pub fn opened_extra(&self) -> &[u8] {
        assert!(matches!(self.opening, OpenStage::Open), "after opening");
        &self.blob.blob()[self.blob_extra.0..self.blob_extra.1]
    }

    fn decode_blob(&mut self) -> Result<(), OpenError> {
        let blob = self.blob.blob();
        let part = |part: &'static str| move |error| OpenError::Part { part, error };
        let (header, extra, mut bytes) = blob_parts(blob).map_err(part("header"))?;
        let fits = extra.len() <= self.blob_extra_max;
        require(fits, "size of a part", header.extra_size, "within the room for it")
            .map_err(part("header"))?;
        self.maxima = header.maxima;
        self.blob_extra = (BLOB_HEADER_SIZE, BLOB_HEADER_SIZE + extra.len());
        bytes = &bytes[self.transfers.decode(bytes).map_err(part("transfers log"))?..];
        bytes = &bytes[self.balances.decode(bytes).map_err(part("balances log"))?..];
        bytes = &bytes[self.accounts.decode(bytes).map_err(part("accounts log"))?..];
        bytes = &bytes[self.events.decode(bytes).map_err(part("events manifest"))?..];
        bytes = &bytes[self.account_table.decode(bytes).map_err(part("accounts manifest"))?..];
        self.grid.free_set_decode(bytes).map_err(part("free set"))?;
        let aligned = self.transfers.rows() == self.balances.rows();
        require(aligned, "rows of balances", self.balances.rows(), "those of transfers")
            .map_err(part("balances log"))?;
        require_rows(&self.events, self.transfers.rows()).map_err(part("events manifest"))?;
        require_rows(&self.account_table, self.accounts.rows())
            .map_err(part("accounts manifest"))?;
        let sealed = sealed_rows(&self.transfers);
        if self.transfers.rows() > sealed {
            push_bounded(&mut self.boundaries, (sealed, header.tail_keys));
        }
        let sealed = sealed_rows(&self.accounts);
        if self.accounts.rows() > sealed {
            push_bounded(&mut self.account_boundaries, (sealed, header.account_tail_keys));
        }
        Ok(())
    }

    fn open_logs(&mut self) -> Fetch<Result<(), DecodeError>> {
        let watermark = self.events.watermark();
        if let Err(error) = ready!(self.transfers.open_step(&mut self.grid, watermark)) {
            return Fetch::Ready(Err(error));
        }
        if let Err(error) = ready!(self.balances.open_step(&mut self.grid, watermark)) {
            return Fetch::Ready(Err(error));
        }
        let watermark = self.account_table.watermark();
        self.accounts.open_step(&mut self.grid, watermark)
    }
}

/// Are the rows of a log those of its table: no fewer than in runs, no more than fit in memory?
fn require_rows(table: &Table, rows: u64) -> Result<(), DecodeError> {
    let active = table.active_row();
    let known = rows >= active && rows - active <= table.options().bar_rows;
    require(known, "active row", active, "within a bar of the log's end")
}

/// Rows in full blocks, all of which are sealed once an op has ended.
fn sealed_rows(log: &Log) -> u64 {
    log.rows() - log.rows() % log.packing().per_block()
}

/// Keys of the block that begins at `row`.
fn keys_of(boundaries: &[(u64, [u64; 2])], row: u64) -> [u64; 2] {
    let found = boundaries.iter().find(|(first_row, _)| *first_row == row);
    found.expect("the first row of every unsealed block was noted").1
}
