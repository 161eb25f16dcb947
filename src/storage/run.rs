//! The form of a run: what its entries are, and how its blocks are laid out and written.
//!
//! A run holds the index entries of one tag for a range of rows. An entry is one u64: the top bits
//! of a hash, and below them the row field (row relative to the run, times entries per row, plus
//! the slot). Entries are grouped into buckets by their top bits and lie in row order within.
//! Three streams make a run: references to its blocks, a directory of bucket starts (u32), and the
//! entries. Each stream is a sequence of 32-byte items. The root block starts with the references;
//! if the directory fits behind them, it lies there, and a tiny run has its entries there as well.
//! Not covered: who makes runs and when (`table`), and reading them (`lookup`, `scan`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::block::{self, BlockFacts, BlockKind, BlockRef};
use super::fetch::Fetch;
use super::filter::Filter;
use super::grid::Grid;
use super::{count_of, index_of};
use crate::protocol::Buffer;

/// Bytes of an item; all three streams are made of these.
pub const ITEM_SIZE: u32 = 32;
const SECTOR: u64 = 4096;
const HEADER: u64 = 256;
/// Bytes of items in sector 0 of a block.
const SECTOR_FIRST: u64 = (4088 - HEADER) / 32 * 32;
/// Bytes of items in every other sector.
const SECTOR_OTHER: u64 = 4088 / 32 * 32;
/// Entries per bucket on average: 2 to the power of this.
const BUCKET_FILL_BITS: u32 = 8;
/// Most bits of a row field: offsets in a directory are 32 bits.
pub const ROW_BITS_MAX: u32 = 31;

/// Bytes of items that a block of `block_size` bytes holds.
///
/// # Panics
///
/// If a block has no sector.
#[must_use]
pub fn payload_of(block_size: u32) -> u64 {
    let sectors = u64::from(block_size) / SECTOR;
    assert!(sectors > 0);
    SECTOR_FIRST + (sectors - 1) * SECTOR_OTHER
}

/// Where a byte of a block's items lies: its sector, its offset there, and how many bytes of items
/// follow in that sector, itself included.
///
/// # Panics
///
/// If the byte is not in a block.
#[inline]
#[must_use]
pub fn place(byte: u64) -> (u32, usize, usize) {
    let (sector, offset, end) = if byte < SECTOR_FIRST {
        (0, HEADER + byte, HEADER + SECTOR_FIRST)
    } else {
        let rest = byte - SECTOR_FIRST;
        (1 + rest / SECTOR_OTHER, rest % SECTOR_OTHER, SECTOR_OTHER)
    };
    let sector = u32::try_from(sector).expect("sectors of a block fit 32 bits");
    (sector, index_of(offset), index_of(end - offset))
}

/// How many bits of an entry are row field and bucket: the same for all runs of a tag and level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunShape {
    /// Bits of the row field.
    pub row_bits: u32,
    /// Bits that select the bucket.
    pub bucket_bits: u32,
}

impl RunShape {
    /// The shape with this many bits of row field.
    ///
    /// # Panics
    ///
    /// If there are none, or more than fit a directory.
    #[must_use]
    pub fn new(row_bits: u32) -> RunShape {
        assert!(row_bits > 0);
        assert!(row_bits <= ROW_BITS_MAX);
        RunShape { row_bits, bucket_bits: row_bits.saturating_sub(BUCKET_FILL_BITS).max(1) }
    }

    /// Mask of the row field.
    #[inline]
    #[must_use]
    pub fn mask(&self) -> u64 {
        (1 << self.row_bits) - 1
    }

    /// Bucket of an entry or a hash.
    #[inline]
    #[must_use]
    pub fn bucket(&self, entry: u64) -> u64 {
        entry >> (64 - self.bucket_bits)
    }

    /// Number of buckets.
    #[must_use]
    pub fn buckets(&self) -> u64 {
        1 << self.bucket_bits
    }
}

/// A run as the manifest names it. 128 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Run {
    /// Rows from here ...
    pub first_row: u64,
    /// ... to before here.
    pub end_row: u64,
    /// Entries in the run.
    pub entries: u64,
    /// If not 0: every row has exactly this hash, and there are no blocks.
    pub constant: u64,
    /// Smallest value, for tags with bounds and if there are entries.
    pub value_min: u128,
    /// Largest value, likewise.
    pub value_max: u128,
    /// The root block; none for a constant or empty run.
    pub root: BlockRef,
    /// Number of the tag in its table.
    pub tag: u32,
    /// Level: how many times its rows were merged.
    pub level: u32,
    /// Zero.
    pub reserved: [u64; 3],
}

static_assertions::const_assert_eq!(size_of::<Run>(), 128);

impl Run {
    /// No rows, no entries.
    pub const EMPTY: Run = Run {
        first_row: 0,
        end_row: 0,
        entries: 0,
        constant: 0,
        value_min: 0,
        value_max: 0,
        root: BlockRef::NONE,
        tag: 0,
        level: 0,
        reserved: [0; 3],
    };

    /// Whether the run has blocks.
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        self.entries > 0 && self.constant == 0
    }
}

/// Where the streams of a run lie: follows from its shape, its entries and the block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of items in a block.
    pub payload: u64,
    /// Entries of the run.
    pub entries: u64,
    /// Words of the directory: buckets + 1.
    pub words: u64,
    /// Blocks that hold only entries; 0 if they are in the root.
    pub data_blocks: u64,
    /// Blocks that hold only the directory; 0 if it is in the root.
    pub directory_blocks: u64,
    /// First byte of the directory in the root, if there.
    pub directory_start: u64,
    /// First byte of the entries in the root, if there.
    pub data_start: u64,
}

impl Layout {
    /// Layout of a run with `entries` entries.
    #[must_use]
    pub fn new(shape: RunShape, entries: u64, block_size: u32) -> Layout {
        Layout::with_payload(shape, entries, payload_of(block_size))
    }

    /// The same for blocks with `payload` bytes of items.
    #[must_use]
    pub fn with_payload(shape: RunShape, entries: u64, payload: u64) -> Layout {
        let item = u64::from(ITEM_SIZE);
        let words = shape.buckets() + 1;
        let directory_bytes = (words * 4).next_multiple_of(item);
        let data_bytes = entries * 8;
        let mut layout = Layout {
            payload,
            entries,
            words,
            data_blocks: 0,
            directory_blocks: 0,
            directory_start: 0,
            data_start: directory_bytes,
        };
        if directory_bytes + data_bytes <= payload {
            return layout;
        }
        layout.data_blocks = data_bytes.div_ceil(payload);
        layout.data_start = 0;
        layout.directory_start = layout.data_blocks * item;
        if layout.directory_start + directory_bytes > payload {
            layout.directory_blocks = directory_bytes.div_ceil(payload);
            layout.directory_start = 0;
        }
        layout
    }

    /// Whether one root block can hold the references.
    #[must_use]
    pub fn fits(&self) -> bool {
        (self.data_blocks + self.directory_blocks) * u64::from(ITEM_SIZE) <= self.payload
    }

    /// All blocks with the root.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.data_blocks + self.directory_blocks + 1
    }

    /// Bytes of items in block `number`: those of entries come first, then those of the directory,
    /// then the root.
    ///
    /// # Panics
    ///
    /// If there is no such block.
    #[must_use]
    pub fn used(&self, number: u64) -> u64 {
        assert!(number < self.blocks());
        if number < self.data_blocks {
            return self.payload.min(self.entries * 8 - number * self.payload);
        }
        let number = number - self.data_blocks;
        if number < self.directory_blocks {
            return self.payload.min(self.words * 4 - number * self.payload);
        }
        if self.data_blocks == 0 {
            self.data_start + self.entries * 8
        } else if self.directory_blocks == 0 {
            self.directory_start + self.words * 4
        } else {
            (self.data_blocks + self.directory_blocks) * u64::from(ITEM_SIZE)
        }
    }

    /// Items in block `number`, see [`Layout::used`].
    ///
    /// # Panics
    ///
    /// If there is no such block.
    #[must_use]
    pub fn items(&self, number: u64) -> u32 {
        let items = self.used(number).div_ceil(ITEM_SIZE.into());
        u32::try_from(items).expect("items of a block fit 32 bits")
    }

    /// Number of the block that holds an entry among the data blocks, or none for the root; and
    /// the byte of its items there.
    #[inline]
    #[must_use]
    pub fn entry_place(&self, position: u64) -> (Option<u64>, u64) {
        let byte = position * 8;
        if self.data_blocks == 0 {
            (None, self.data_start + byte)
        } else {
            (Some(byte / self.payload), byte % self.payload)
        }
    }

    /// Number of the reference to the directory block that holds a word, or none for the root; and
    /// the byte of its items there.
    #[inline]
    #[must_use]
    pub fn word_place(&self, word: u64) -> (Option<u64>, u64) {
        let byte = word * 4;
        if self.directory_blocks == 0 {
            (None, self.directory_start + byte)
        } else {
            (Some(self.data_blocks + byte / self.payload), byte % self.payload)
        }
    }
}

/// Reads a run's streams from pages of its blocks.
#[derive(Clone, Copy, Debug)]
pub struct RunReader<'a> {
    /// The run; it has blocks.
    pub run: &'a Run,
    /// Its shape.
    pub shape: RunShape,
    /// Its layout.
    pub layout: Layout,
}

impl RunReader<'_> {
    /// The block with the given number among the references, or the root.
    fn block(&self, grid: &mut Grid, reference: Option<u64>) -> Fetch<BlockRef> {
        let Some(number) = reference else {
            return Fetch::Ready(self.run.root);
        };
        let (sector, offset, _) = place(number * u64::from(ITEM_SIZE));
        grid.page(&self.run.root, sector).map(|page| {
            let (block, _) =
                BlockRef::read_from_prefix(&page[offset..]).expect("a reference is never cut");
            block
        })
    }

    fn word(&self, grid: &mut Grid, word: u64) -> Fetch<u64> {
        let (reference, byte) = self.layout.word_place(word);
        let Fetch::Ready(block) = self.block(grid, reference) else {
            return Fetch::Wait;
        };
        let (sector, offset, _) = place(byte);
        grid.page(&block, sector).map(|page| {
            let bytes = page[offset..offset + 4].try_into().expect("a word has 4 bytes");
            u64::from(u32::from_le_bytes(bytes))
        })
    }

    /// Positions of the entries of a bucket, from the first to behind the last.
    ///
    /// # Panics
    ///
    /// If the directory, which is verified, does not fit the run.
    pub fn bucket(&self, grid: &mut Grid, bucket: u64) -> Fetch<(u64, u64)> {
        // Ask for both before waiting for one.
        let (start, end) = (self.word(grid, bucket), self.word(grid, bucket + 1));
        let (Fetch::Ready(start), Fetch::Ready(end)) = (start, end) else {
            return Fetch::Wait;
        };
        assert!(start <= end);
        assert!(end <= self.run.entries);
        Fetch::Ready((start, end))
    }

    /// All entries in the page of the one at `position`, and the position of the first of them.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    pub fn entries<'b>(&self, grid: &'b mut Grid, position: u64) -> Fetch<(&'b [u64], u64)> {
        assert!(position < self.run.entries);
        let (reference, byte) = self.layout.entry_place(position);
        let Fetch::Ready(block) = self.block(grid, reference) else {
            return Fetch::Wait;
        };
        let (sector, offset, room) = place(byte);
        let floor = if sector == 0 { index_of(HEADER) } else { 0 };
        let before = (offset - floor) / 8;
        let before = before.min(index_of(position));
        let after = (room / 8).min(index_of(self.run.entries - position));
        let start = offset - before * 8;
        grid.page(&block, sector).map(|page| {
            let bytes = &page[start..offset + after * 8];
            let entries = <[u64]>::ref_from_bytes(bytes).expect("entries are aligned in a page");
            (entries, position - count_of(before))
        })
    }
}

/// What all blocks of a run in the making have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// Cluster the blocks belong to.
    pub cluster: u128,
    /// The op at which the run was scheduled.
    pub sequence: u64,
    /// Its shape.
    pub shape: RunShape,
    /// Its layout.
    pub layout: Layout,
}

/// A run in the making: takes directory words and entries in order, gives sealed blocks.
///
/// The blocks' addresses are known beforehand: first those of the entries, then the directory,
/// then the root. Memory for blocks is taken from `spare`; what finds none there must wait.
#[derive(Debug)]
pub struct RunOutput {
    facts: Option<RunFacts>,
    addresses: Vec<u64>,
    /// Memory for the next blocks; contents do not matter.
    pub spare: Vec<Buffer>,
    /// Finished blocks.
    pub sealed: Vec<(Buffer, BlockRef)>,
    root: Option<Buffer>,
    directory: Option<Buffer>,
    data: Option<Buffer>,
    words: u64,
    entries: u64,
    /// Gets every entry, if there is one; taken away when the run is finished.
    pub filter: Option<Filter>,
}

impl RunOutput {
    /// Room for runs of at most `blocks_max` blocks, of which at most `sealed_max` are handed out
    /// at a time.
    #[must_use]
    pub fn new(blocks_max: usize, sealed_max: usize) -> RunOutput {
        RunOutput {
            facts: None,
            addresses: Vec::with_capacity(blocks_max),
            spare: Vec::with_capacity(sealed_max),
            sealed: Vec::with_capacity(sealed_max),
            root: None,
            directory: None,
            data: None,
            words: 0,
            entries: 0,
            filter: None,
        }
    }

    /// Bytes that it occupies.
    #[must_use]
    pub fn memory_bytes(blocks_max: u64, sealed_max: u64) -> u64 {
        let sealed = size_of::<Buffer>() + size_of::<(Buffer, BlockRef)>();
        blocks_max * 8 + sealed_max * count_of(sealed)
    }

    /// Starts a run.
    ///
    /// # Panics
    ///
    /// If the last one is not finished, or the addresses are not as many as the layout needs.
    pub fn start(&mut self, facts: RunFacts, addresses: &[u64]) {
        assert!(self.root.is_none());
        assert!(self.directory.is_none());
        assert!(self.data.is_none());
        assert!(self.sealed.is_empty());
        assert!(count_of(addresses.len()) == facts.layout.blocks());
        assert!(addresses.len() <= self.addresses.capacity());
        assert!(facts.layout.fits());
        self.addresses.clear();
        self.addresses.extend_from_slice(addresses);
        if let Some(filter) = &mut self.filter {
            filter.start(facts.layout.entries);
        }
        self.facts = Some(facts);
        self.words = 0;
        self.entries = 0;
    }

    fn facts(&self) -> &RunFacts {
        self.facts.as_ref().expect("a run is in the making")
    }

    /// Entries taken so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Directory words taken so far.
    #[must_use]
    pub fn words(&self) -> u64 {
        self.words
    }

    fn take_spare(&mut self) -> Option<Buffer> {
        let mut buffer = self.spare.pop()?;
        buffer.fill_zero();
        Some(buffer)
    }

    /// Makes sure that there is memory for the root; false: none to spare.
    fn open_root(&mut self) -> bool {
        if self.root.is_none() {
            self.root = self.take_spare();
        }
        self.root.is_some()
    }

    /// Adds directory words that all say "the next entry" until there are `words` of them.
    /// Returns false if memory ran out before.
    ///
    /// # Panics
    ///
    /// If there are more words than the layout has.
    pub fn push_words(&mut self, words: u64) -> bool {
        assert!(words <= self.facts().layout.words);
        while self.words < words {
            let layout = self.facts().layout;
            let (reference, byte) = layout.word_place(self.words);
            if !self.open_root() {
                return false;
            }
            if reference.is_some() && self.directory.is_none() {
                self.directory = self.take_spare();
            }
            let Some(buffer) =
                (if reference.is_some() { &mut self.directory } else { &mut self.root }).as_mut()
            else {
                return false;
            };
            let (sector, offset, room) = place(byte);
            let count = (words - self.words).min(count_of(room / 4));
            let entry = u32::try_from(self.entries).expect("entries of a run fit 32 bits");
            let start = index_of(u64::from(sector) * SECTOR) + offset;
            let target = &mut buffer.bytes_mut()[start..start + index_of(count * 4)];
            for word in target.chunks_exact_mut(4) {
                word.copy_from_slice(&entry.to_le_bytes());
            }
            self.words += count;
            if reference.is_some() && byte + count * 4 == layout.payload {
                self.seal_directory();
            }
        }
        true
    }

    /// Adds entries; returns how many found room.
    ///
    /// # Panics
    ///
    /// If there are more entries than the layout has.
    pub fn push_entries(&mut self, entries: &[u64]) -> usize {
        let mut done = 0;
        while done < entries.len() {
            let layout = self.facts().layout;
            let (reference, byte) = layout.entry_place(self.entries);
            if !self.open_root() {
                break;
            }
            if reference.is_some() && self.data.is_none() {
                self.data = self.take_spare();
            }
            let Some(buffer) =
                (if reference.is_some() { &mut self.data } else { &mut self.root }).as_mut()
            else {
                break;
            };
            let (sector, offset, room) = place(byte);
            let count = (entries.len() - done).min(room / 8);
            let start = index_of(u64::from(sector) * SECTOR) + offset;
            let source = entries[done..done + count].as_bytes();
            buffer.bytes_mut()[start..start + source.len()].copy_from_slice(source);
            if let Some(filter) = &mut self.filter {
                for entry in &entries[done..done + count] {
                    filter.insert(*entry);
                }
            }
            done += count;
            self.entries += count_of(count);
            assert!(self.entries <= layout.entries);
            if reference.is_some() && byte + count_of(count) * 8 == layout.payload {
                self.seal_data();
            }
        }
        done
    }

    fn seal_data(&mut self) {
        let number = (self.entries * 8 - 1) / self.facts().layout.payload;
        let buffer = self.data.take().expect("a block of entries is open");
        self.seal(buffer, number, BlockKind::RunData);
    }

    fn seal_directory(&mut self) {
        let layout = self.facts().layout;
        let number = (self.words * 4 - 1) / layout.payload;
        let buffer = self.directory.take().expect("a block of the directory is open");
        self.seal(buffer, layout.data_blocks + number, BlockKind::RunDirectory);
    }

    fn seal(&mut self, mut buffer: Buffer, number: u64, kind: BlockKind) -> BlockRef {
        let facts = BlockFacts {
            cluster: self.facts().cluster,
            address: self.addresses[index_of(number)],
            sequence: self.facts().sequence,
            kind,
            item_size: ITEM_SIZE,
            item_count: self.facts().layout.items(number),
        };
        let block = block::seal(buffer.bytes_mut(), &facts);
        if kind != BlockKind::RunRoot {
            let root = self.root.as_mut().expect("the root is open before other blocks");
            let (sector, offset, _) = place(number * u64::from(ITEM_SIZE));
            let start = index_of(u64::from(sector) * SECTOR) + offset;
            let target = &mut root.bytes_mut()[start..start + size_of::<BlockRef>()];
            target.copy_from_slice(block.as_bytes());
        }
        assert!(self.sealed.len() < self.sealed.capacity(), "sealed blocks are handed out");
        self.sealed.push((buffer, block));
        block
    }

    /// Seals what is left and ends the run; gives the root.
    ///
    /// # Panics
    ///
    /// If entries or words are missing.
    pub fn finish(&mut self) -> BlockRef {
        let layout = self.facts().layout;
        assert!(self.entries == layout.entries, "a run has the entries that were counted");
        assert!(self.words == layout.words, "a run has a start for every bucket");
        if self.data.is_some() {
            self.seal_data();
        }
        if self.directory.is_some() {
            self.seal_directory();
        }
        let buffer = self.root.take().expect("every run writes words to its root");
        let block = self.seal(buffer, layout.blocks() - 1, BlockKind::RunRoot);
        self.facts = None;
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: bytes of items never meet a sector's trailer, and sectors follow without gaps.
    #[test]
    fn places_are_dense() {
        assert_eq!(payload_of(8192), 3808 + 4064);
        let mut last = (0, 256, 3808);
        assert_eq!(place(0), last);
        for byte in 1..payload_of(4096 * 4) {
            let found = place(byte);
            let same = found.0 == last.0 && found.1 == last.1 + 1;
            let next = found.0 == last.0 + 1 && found.1 == 0 && last.2 == 1;
            assert!(same || next, "byte {byte}");
            assert!(found.1 + found.2 <= 4088);
            last = found;
        }
    }

    /// Goal: small runs are one block, larger ones have data blocks, huge ones a directory.
    #[test]
    fn layouts() {
        let tiny = Layout::new(RunShape::new(9), 100, 8192);
        assert_eq!((tiny.blocks(), tiny.data_start), (1, 32));
        assert_eq!(tiny.entry_place(3), (None, 56));
        let small = Layout::new(RunShape::new(9), 1000, 8192);
        assert_eq!((small.data_blocks, small.directory_blocks, small.directory_start), (2, 0, 64));
        assert_eq!(small.entry_place(984), (Some(1), 0));
        assert_eq!(small.word_place(2), (None, 72));
        let large = Layout::new(RunShape::new(28), 1 << 28, 524_288);
        assert_eq!((large.data_blocks, large.directory_blocks), (4131, 9));
        assert!(large.fits());
        let bulky = Layout::new(RunShape::new(18), 1 << 18, 8192);
        assert!(!bulky.fits());
    }
}
