//! A checkpoint's blob as it lies: where each part is, read in place and checked for sense.
//!
//! The only place that knows the order of the blob's parts and of what is in them. Logs and tables
//! fill themselves from it when a file is opened; a walk over all blocks, repair and inspection
//! read it without a store. Nothing is copied or allocated. Not covered: limits of memory and
//! storage, which whoever fills something has to check, and the bytes of the layers above.

use zerocopy::FromBytes;

use super::block::BlockRef;
use super::config::Config;
use super::decode::{DecodeError, Reader, require};
use super::directory::{DIRECTORY_ENTRY_SIZE, DirectoryState};
use super::log::LogState;
use super::packing::Packing;
use super::persistence::{BlobHeader, OpenError, blob_parts};
use super::run::{Layout, Run};
use super::store::{LOG_FORMS, table_options};
use super::table::TableOptions;
use super::{count_of, index_of};
use crate::protocol::to_index;

/// Bytes of a reference to a block.
const REFERENCE_SIZE: usize = size_of::<BlockRef>();
/// Bytes of a run in a manifest.
const RUN_SIZE: usize = size_of::<Run>();
/// Levels of runs at most: what a table can count.
pub(super) const LEVELS_MAX: usize = 8;

/// Everything in a blob.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointImage<'a> {
    pub(super) header: BlobHeader,
    /// What the layers above wrote.
    pub extra: &'a [u8],
    /// The logs of transfers, balances and accounts.
    pub logs: [LogImage<'a>; 3],
    /// The tables of events and accounts.
    pub tables: [TableImage<'a>; 2],
    /// The free set, encoded.
    pub free_set: &'a [u8],
}

impl<'a> CheckpointImage<'a> {
    /// Reads the blob of a file with this geometry.
    ///
    /// # Errors
    ///
    /// The first part that makes no sense.
    pub fn decode(blob: &'a [u8], config: &Config) -> Result<Self, OpenError> {
        let part = |part: &'static str| move |error| OpenError::Part { part, error };
        let (header, extra, rest) = blob_parts(blob).map_err(part("header"))?;
        let mut reader = Reader::new(rest);
        let mut log = |form: usize, name| {
            let form = &LOG_FORMS[form];
            LogImage::read(&mut reader, form.row_size, config.block_size).map_err(part(name))
        };
        let logs = [log(0, "transfers log")?, log(1, "balances log")?, log(2, "accounts log")?];
        let [events, accounts] = table_options(config, 0);
        let tables = [
            TableImage::read(&mut reader, &events).map_err(part("events manifest"))?,
            TableImage::read(&mut reader, &accounts).map_err(part("accounts manifest"))?,
        ];
        let (transfers, balances) = (logs[0].rows, logs[1].rows);
        require(transfers == balances, "rows of balances", balances, "those of transfers")
            .map_err(part("balances log"))?;
        tables[0].require_rows(transfers).map_err(part("events manifest"))?;
        tables[1].require_rows(logs[2].rows).map_err(part("accounts manifest"))?;
        let size = count_of(reader.position());
        let exact = size == header.store_size;
        require(exact, "size of the store's part", header.store_size, "that of its parts")
            .map_err(part("header"))?;
        Ok(CheckpointImage { header, extra, logs, tables, free_set: &rest[reader.position()..] })
    }

    /// Keys of the block of transfers that is being filled, and of that of accounts.
    #[must_use]
    pub fn tail_keys(&self) -> [[u64; 2]; 2] {
        [self.header.tail_keys, self.header.account_tail_keys]
    }

    /// Addresses that flushes and merges have reserved for blocks which may not be written yet.
    pub fn scheduled(&self) -> impl Iterator<Item = u64> + use<'a> {
        let tables = self.tables;
        tables.into_iter().flat_map(|table| table.scheduled())
    }
}

/// State of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogImage<'a> {
    /// Rows in the log.
    pub rows: u64,
    /// Copy of the block being filled; none if no rows are in it.
    pub tail: BlockRef,
    /// Full blocks of rows, one entry of the directory each.
    pub blocks: u64,
    /// Copy of the directory block being filled; none if no entries are in it.
    pub directory_tail: BlockRef,
    directories: &'a [u8],
}

impl<'a> LogImage<'a> {
    /// Reads the state of a log whose rows have this size.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        row_size: u32,
        block_size: u32,
    ) -> Result<LogImage<'a>, DecodeError> {
        let state = reader.read::<LogState>("log")?;
        let same = state.row_size == u64::from(row_size);
        require(same, "row size", state.row_size, "that of the log")?;
        let (sealed, rest) = Packing::new(row_size, block_size).split(state.rows);
        require_tail(&state.tail, rest)?;
        let directory = reader.read::<DirectoryState>("directory")?;
        let entries = directory.entries;
        require(entries == sealed, "directory entries", entries, "one per block")?;
        let (full, rest) = Packing::new(DIRECTORY_ENTRY_SIZE, block_size).split(entries);
        let counted = directory.blocks == full;
        require(counted, "directory blocks", directory.blocks, "those that are full")?;
        require_tail(&directory.tail, rest)?;
        let directories = reader.read_bytes("directory block", index_of(full) * REFERENCE_SIZE)?;
        Ok(LogImage {
            rows: state.rows,
            tail: state.tail,
            blocks: sealed,
            directory_tail: directory.tail,
            directories,
        })
    }

    /// Full blocks of the directory.
    #[must_use]
    pub fn directory_blocks(&self) -> u64 {
        count_of(self.directories.len() / REFERENCE_SIZE)
    }

    /// A full block of the directory.
    ///
    /// # Panics
    ///
    /// If there is no such block.
    #[must_use]
    pub fn directory_block(&self, number: u64) -> BlockRef {
        item(self.directories, number)
    }
}

/// Whether the reference of a tail block is there exactly if there are items in it.
fn require_tail(tail: &BlockRef, items: u64) -> Result<(), DecodeError> {
    if items == 0 {
        return require(*tail == BlockRef::NONE, "tail address", tail.address, "none");
    }
    require(!tail.is_none(), "tail address", tail.address, "that of a block")
}

/// State of a table: runs and schedule.
#[derive(Clone, Copy, Debug)]
pub struct TableImage<'a> {
    /// What the table is made for.
    pub options: TableOptions,
    /// Levels of runs.
    pub levels: u32,
    /// Bars ended so far.
    pub bars: u64,
    /// Rows below are in runs.
    pub frozen_row: u64,
    /// Rows below and not in runs are being flushed.
    pub active_row: u64,
    /// The flush of the newest ended bar.
    pub flush: FlushImage<'a>,
    /// Merges by level of their inputs.
    pub merges: [Option<MergeImage<'a>>; LEVELS_MAX],
    run_count: u64,
    runs: &'a [u8],
}

/// A flush that is scheduled.
#[derive(Clone, Copy, Debug)]
pub struct FlushImage<'a> {
    /// Whether there is one.
    pub live: bool,
    /// The op that scheduled it.
    pub sequence: u64,
    /// Addresses of its blocks.
    pub addresses: Addresses<'a>,
}

/// A merge that is scheduled.
#[derive(Clone, Copy, Debug)]
pub struct MergeImage<'a> {
    /// The op that scheduled it.
    pub sequence: u64,
    /// The bar at whose end its results become visible.
    pub deadline: u64,
    /// First row of its first input.
    pub first_row: u64,
    /// Number of its first input among the runs of a tag.
    pub first_run: u64,
    /// Addresses of its blocks.
    pub addresses: Addresses<'a>,
}

/// A list of addresses for each tag of a table.
#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    bytes: &'a [u8],
    tags: usize,
}

impl<'a> Addresses<'a> {
    fn read(reader: &mut Reader<'a>, all: &'a [u8], tags: usize) -> Result<Self, DecodeError> {
        let start = reader.position();
        for _ in 0..tags {
            let count = reader.read::<u64>("addresses")?;
            let length = index_of(count).saturating_mul(size_of::<u64>());
            reader.read_bytes("address", length)?;
        }
        Ok(Addresses { bytes: &all[start..reader.position()], tags })
    }

    /// The bytes of the list of each tag.
    fn lists(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.bytes;
        (0..self.tags).map(move |_| {
            let (count, after) = rest.split_at(size_of::<u64>());
            let (list, after) = after.split_at(index_of(word_of(count)) * size_of::<u64>());
            rest = after;
            list
        })
    }

    /// Addresses for blocks of one tag's run, in order.
    ///
    /// # Panics
    ///
    /// If there is no such tag.
    pub fn of(self, tag: usize) -> impl Iterator<Item = u64> + use<'a> {
        assert!(tag < self.tags);
        self.lists().skip(tag).take(1).flat_map(words)
    }

    /// All addresses, by tag.
    pub fn all(self) -> impl Iterator<Item = u64> + use<'a> {
        self.lists().flat_map(words)
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(size_of::<u64>()).map(word_of)
}

fn word_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a word has 8 bytes"))
}

/// Item `number` of an array of structures that need not be aligned.
fn item<T: FromBytes>(bytes: &[u8], number: u64) -> T {
    let start = index_of(number) * size_of::<T>();
    T::read_from_bytes(&bytes[start..start + size_of::<T>()]).expect("exactly an item")
}

impl<'a> TableImage<'a> {
    /// Reads the manifest of a table with these options.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        options: &TableOptions,
    ) -> Result<TableImage<'a>, DecodeError> {
        let levels = options.levels();
        assert!(to_index(levels) <= LEVELS_MAX);
        let tags = reader.read::<u64>("index tags")?;
        require(tags == count_of(options.tags.len()), "index tags", tags, "as many as built in")?;
        let merges = reader.read::<u64>("index levels")?;
        let same = merges == u64::from(levels - 1);
        require(same, "index levels", merges, "as many as the geometry gives")?;
        let rows = reader.read::<u64>("bar rows")?;
        require(rows == options.bar_rows, "bar rows", rows, "those of the geometry")?;
        let bars = reader.read("bars")?;
        let frozen_row = reader.read::<u64>("frozen row")?;
        let active_row = reader.read::<u64>("active row")?;
        let fits = active_row >= frozen_row && active_row - frozen_row <= options.bar_rows;
        require(fits, "active row", active_row, "within a bar of the frozen row")?;
        let run_count = reader.read::<u64>("runs")?;
        let length = index_of(run_count).saturating_mul(RUN_SIZE * options.tags.len());
        let runs = reader.read_bytes("run", length)?;
        let flush = FlushImage::read(reader, options.tags.len())?;
        let pending = active_row > frozen_row;
        require(flush.live == pending, "flush", u64::from(flush.live), "for frozen rows")?;
        let mut image = TableImage {
            options: *options,
            levels,
            bars,
            frozen_row,
            active_row,
            flush,
            merges: [None; LEVELS_MAX],
            run_count,
            runs,
        };
        image.check_runs()?;
        for level in 0..levels - 1 {
            image.merges[to_index(level)] = image.read_merge(reader, level)?;
        }
        Ok(image)
    }

    /// Runs of each tag.
    #[must_use]
    pub fn run_count(&self) -> u64 {
        self.run_count
    }

    /// A run.
    ///
    /// # Panics
    ///
    /// If there is no such run.
    #[must_use]
    pub fn run(&self, tag: usize, number: u64) -> Run {
        assert!(number < self.run_count);
        item(self.runs, count_of(tag) * self.run_count + number)
    }

    /// The runs of a tag, in row order.
    pub fn runs(&self, tag: usize) -> impl Iterator<Item = Run> + use<'a> {
        let image = *self;
        (0..self.run_count).map(move |number| image.run(tag, number))
    }

    /// Layout of a run.
    #[must_use]
    pub fn layout(&self, run: &Run) -> Layout {
        let shape = self.options.shape(to_index(run.tag), run.level);
        Layout::new(shape, run.entries, self.options.block_size)
    }

    /// Addresses that the flush and the merges have reserved.
    pub fn scheduled(&self) -> impl Iterator<Item = u64> + use<'a> {
        let flush = Some(self.flush).filter(|flush| flush.live).map(|flush| flush.addresses);
        let merges = self.merges.into_iter().flatten().map(|merge| merge.addresses);
        flush.into_iter().chain(merges).flat_map(Addresses::all)
    }

    /// All tags have the same ranges of rows, without gaps; and each run fits its level.
    fn check_runs(&self) -> Result<(), DecodeError> {
        for (tag, options) in (0_u32..).zip(self.options.tags) {
            let mut row = 0;
            for run in self.runs(to_index(tag)) {
                let known = run.tag == tag && run.level < self.levels;
                require(known, "run tag", u64::from(run.tag), "that of its list")?;
                let next = run.first_row == row && run.end_row > row;
                require(next, "run row", run.first_row, "the one after the run before")?;
                let slots = (run.end_row - row).saturating_mul(options.entries_per_row.into());
                let room = self.options.shape(to_index(tag), run.level).mask() + 1;
                let fits = run.entries <= slots && slots <= room;
                require(fits, "run entries", run.entries, "no more than its rows have")?;
                let rooted = run.has_blocks() != run.root.is_none();
                require(rooted, "run root", run.root.address, "there if the run has blocks")?;
                row = run.end_row;
            }
            require(row == self.frozen_row, "last run row", row, "the frozen row")?;
        }
        Ok(())
    }

    fn read_merge(
        &self,
        reader: &mut Reader<'a>,
        level: u32,
    ) -> Result<Option<MergeImage<'a>>, DecodeError> {
        if !read_flag(reader, "merge")? {
            return Ok(None);
        }
        let sequence = reader.read("merge op")?;
        let deadline = reader.read("merge bar")?;
        let first_row = reader.read("merge row")?;
        let count = self.options.fan_in;
        let found = self.runs(0).position(|run| run.first_row == first_row).map(count_of);
        let inputs = |at: u64| (at..at + count).map(|number| self.run(0, number));
        let at = found
            .filter(|at| at + count <= self.run_count)
            .filter(|at| inputs(*at).all(|run| run.level == level));
        let expected = "the first of runs of its level";
        require(at.is_some(), "merge row", first_row, expected)?;
        let first_run = at.unwrap_or_default();
        let addresses = Addresses::read(reader, reader.bytes(), self.options.tags.len())?;
        Ok(Some(MergeImage { sequence, deadline, first_row, first_run, addresses }))
    }

    /// Are the rows of a log those of this table: no fewer than in runs, no more than fit in
    /// memory?
    fn require_rows(&self, rows: u64) -> Result<(), DecodeError> {
        let active = self.active_row;
        let known = rows >= active && rows - active <= self.options.bar_rows;
        require(known, "active row", active, "within a bar of the log's end")
    }
}

impl<'a> FlushImage<'a> {
    fn read(reader: &mut Reader<'a>, tags: usize) -> Result<FlushImage<'a>, DecodeError> {
        let live = read_flag(reader, "flush")?;
        let sequence = reader.read("flush op")?;
        let addresses = Addresses::read(reader, reader.bytes(), tags)?;
        Ok(FlushImage { live, sequence, addresses })
    }
}

fn read_flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    let flag = reader.read::<u64>(what)?;
    require(flag <= 1, what, flag, "0 or 1")?;
    Ok(flag == 1)
}
