//! Where the blocks of a log are, and what each begins with.
//!
//! An append-only array of 64-byte entries, one for each sealed block of the log, kept in blocks of
//! its own. The newest of those are in memory, the others are read by page; only their references
//! are all in memory, one for every few hundred or thousand blocks of the log.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::block::{BlockKind, BlockRef};
use super::decode::{DecodeError, require};
use super::fetch::Fetch;
use super::grid::Grid;
use super::image::LogImage;
use super::packing::Packing;
use super::ring::{BlockRing, Loader};
use super::{count_of, index_of};
use crate::protocol::{to_index, to_size};
use crate::ready;

/// Full directory blocks kept in memory besides the one being filled.
const FULL_BLOCKS: u64 = 2;
/// Those, the one being filled, and one more while a write of an older one is under way.
pub(super) const RING_BLOCKS: u32 = 4;

/// Entry for one block of a log; 64 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DirectoryEntry {
    /// The block.
    pub block: BlockRef,
    /// Two keys, each the maximum over all rows before this block: so they never decrease.
    pub keys: [u64; 2],
    /// Zero.
    pub reserved: [u8; 16],
}

/// Bytes of an entry.
pub(super) const DIRECTORY_ENTRY_SIZE: u32 = 64;
const ENTRY_SIZE: usize = to_index(DIRECTORY_ENTRY_SIZE);
static_assertions::const_assert_eq!(size_of::<DirectoryEntry>(), ENTRY_SIZE);

impl DirectoryEntry {
    /// Entries in a full block of this many bytes.
    #[must_use]
    pub fn per_block(block_size: usize) -> u64 {
        Packing::new(DIRECTORY_ENTRY_SIZE, to_size(block_size)).per_block()
    }

    /// The first `count` entries of a verified block of a directory.
    pub fn all(block: &[u8], count: u32) -> impl Iterator<Item = DirectoryEntry> + '_ {
        let packing = Packing::new(DIRECTORY_ENTRY_SIZE, to_size(block.len()));
        (0..u64::from(count).min(packing.per_block())).map(move |index| {
            let start = packing.offset_in_block(index);
            entry_of(&block[start..start + ENTRY_SIZE])
        })
    }
}

/// State of a directory at a checkpoint, followed by the references of its full blocks.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct DirectoryState {
    pub(super) tail: BlockRef,
    pub(super) entries: u64,
    pub(super) blocks: u64,
}

/// How far a search has come, so that asking again does not begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Search {
    key: usize,
    value: u64,
    entries: u64,
    low: u64,
    high: u64,
}

/// Directory of one log.
#[derive(Debug)]
pub struct Directory {
    ring: BlockRing,
    /// References of the full blocks; the capacity is for the whole grid.
    blocks: Vec<BlockRef>,
    /// Copy of the block being filled, in the last checkpoint.
    tail: BlockRef,
    /// Entries at that checkpoint.
    tail_entries: u64,
    blocks_max: u64,
    search: Option<Search>,
    opening: Option<Loader>,
}

impl Directory {
    /// An empty directory for a log in a grid of at most `blocks_max` blocks of `block_size` bytes.
    #[must_use]
    pub fn new(name: &'static str, kind: BlockKind, block_size: u32, blocks_max: u64) -> Directory {
        let packing = Packing::new(to_size(ENTRY_SIZE), block_size);
        let capacity = Directory::blocks_capacity(block_size, blocks_max);
        Directory {
            ring: BlockRing::new(name, kind, packing, RING_BLOCKS),
            blocks: Vec::with_capacity(index_of(capacity)),
            tail: BlockRef::NONE,
            tail_entries: 0,
            blocks_max,
            search: None,
            opening: None,
        }
    }

    /// Full blocks that a directory can have.
    fn blocks_capacity(block_size: u32, blocks_max: u64) -> u64 {
        blocks_max / Packing::new(to_size(ENTRY_SIZE), block_size).per_block() + 1
    }

    /// Bytes that a directory occupies.
    #[must_use]
    pub fn memory_bytes(block_size: u32, blocks_max: u64) -> u64 {
        let references = Directory::blocks_capacity(block_size, blocks_max);
        BlockRing::memory_bytes(RING_BLOCKS, block_size)
            + references * count_of(size_of::<BlockRef>())
    }

    /// Bytes of the longest state of a directory.
    #[must_use]
    pub fn state_size_max(block_size: u32, blocks_max: u64) -> u64 {
        let references = Directory::blocks_capacity(block_size, blocks_max);
        count_of(size_of::<DirectoryState>()) + references * count_of(size_of::<BlockRef>())
    }

    /// Entries, one for each sealed block of the log.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.ring.rows()
    }

    /// The full blocks, oldest first.
    #[must_use]
    pub fn full_blocks(&self) -> &[BlockRef] {
        &self.blocks
    }

    /// Copy of the block being filled in the last checkpoint; none if there is no such block.
    #[must_use]
    pub fn tail(&self) -> BlockRef {
        self.tail
    }

    /// Entries in a full directory block.
    #[must_use]
    pub fn entries_per_block(&self) -> u64 {
        self.ring.packing().per_block()
    }

    /// Makes room for `entries` more, before an op; may wait for a write.
    ///
    /// # Panics
    ///
    /// If an op could fill a directory block twice.
    pub fn reserve(&mut self, entries: u64) -> Fetch<()> {
        assert!(entries <= self.entries_per_block());
        self.ring.reserve(entries, u64::MAX, |_, _| {})
    }

    /// Appends the entry of the next block of the log. A directory block that it fills is sealed
    /// and its write queued.
    ///
    /// # Panics
    ///
    /// If the keys decrease, or no room was reserved.
    pub fn append(&mut self, grid: &mut Grid, sequence: u64, entry: &DirectoryEntry) {
        if let Some(last) = self.ring.rows().checked_sub(1).and_then(|row| self.ring.recent(row)) {
            let last = entry_of(last);
            assert!(last.keys[0] <= entry.keys[0], "keys never decrease");
            assert!(last.keys[1] <= entry.keys[1], "keys never decrease");
        }
        self.ring.append_slot().copy_from_slice(entry.as_bytes());
        if self.ring.next_to_seal().is_some() {
            let block = self.ring.seal_next(grid, sequence);
            assert!(self.blocks.len() < self.blocks.capacity(), "no more blocks than the grid");
            self.blocks.push(block);
        }
    }

    /// The entry of a block of the log.
    ///
    /// # Panics
    ///
    /// If there is no such entry.
    pub fn entry(&self, grid: &mut Grid, index: u64) -> Fetch<DirectoryEntry> {
        if let Some(bytes) = self.ring.recent(index) {
            return Fetch::Ready(entry_of(bytes));
        }
        assert!(index < self.ring.rows());
        let location = self.ring.packing().locate(index);
        let block = self.blocks[index_of(location.block)];
        let page = ready!(grid.page(&block, location.sector));
        let start = crate::protocol::to_index(location.offset);
        Fetch::Ready(entry_of(&page[start..start + ENTRY_SIZE]))
    }

    /// Index of the last entry whose key `key` is below `value`; 0 if there is none.
    ///
    /// # Panics
    ///
    /// If there is no such key.
    pub fn search(&mut self, grid: &mut Grid, key: usize, value: u64) -> Fetch<u64> {
        assert!(key < 2);
        let entries = self.entries();
        let start = Search { key, value, entries, low: 0, high: entries };
        // The answer lies in [low, high): entry `low` is below the value, or 0.
        let mut search = match self.search {
            Some(search) if (search.key, search.value, search.entries) == (key, value, entries) => {
                search
            }
            _ => start,
        };
        while search.low + 1 < search.high {
            let middle = search.low.midpoint(search.high);
            self.search = Some(search);
            let entry = ready!(self.entry(grid, middle));
            if entry.keys[key] < value {
                search.low = middle;
            } else {
                search.high = middle;
            }
        }
        self.search = None;
        Fetch::Ready(search.low)
    }

    /// At a checkpoint: writes a copy of the block being filled and releases the copy before.
    pub fn checkpoint_tail(&mut self, grid: &mut Grid, sequence: u64) {
        if self.tail_entries == self.entries() {
            return;
        }
        if !self.tail.is_none() {
            grid.release(self.tail.address);
        }
        self.tail = self.ring.copy_tail(grid, sequence);
        self.tail_entries = self.entries();
    }

    /// Appends the state at the checkpoint whose tail was written last.
    ///
    /// # Panics
    ///
    /// If entries were appended since.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.tail_entries == self.entries(), "the tail was written");
        let (entries, blocks) = (self.entries(), count_of(self.blocks.len()));
        let state = DirectoryState { tail: self.tail, entries, blocks };
        out.extend_from_slice(state.as_bytes());
        out.extend_from_slice(self.blocks.as_bytes());
    }

    /// Replaces the state; entries are readable after [`Directory::open_step`].
    ///
    /// # Errors
    ///
    /// If there are more entries than the limit admits.
    pub fn decode(&mut self, image: &LogImage<'_>) -> Result<(), DecodeError> {
        let entries = image.blocks;
        require(entries <= self.blocks_max, "directory entries", entries, "within the limit")?;
        require_address(&image.directory_tail, self.blocks_max)?;
        let full = image.directory_blocks();
        self.blocks.clear();
        for number in 0..full {
            let block = image.directory_block(number);
            require_address(&block, self.blocks_max)?;
            self.blocks.push(block);
        }
        self.tail = image.directory_tail;
        self.tail_entries = entries;
        self.search = None;
        self.ring.restore(entries, full.saturating_sub(FULL_BLOCKS));
        self.opening = Some(Loader::new(&self.ring));
        Ok(())
    }

    /// Reads the newest blocks after [`Directory::decode`]; call until ready.
    ///
    /// # Errors
    ///
    /// If a block holds something else than it should.
    pub fn open_step(&mut self, grid: &mut Grid) -> Fetch<Result<(), DecodeError>> {
        let Some(loader) = &mut self.opening else { return Fetch::Ready(Ok(())) };
        let (blocks, tail) = (&self.blocks, self.tail);
        let result = ready!(loader.step(&mut self.ring, grid, |_, number| {
            Fetch::Ready(blocks.get(index_of(number)).copied().unwrap_or(tail))
        }));
        self.opening = None;
        Fetch::Ready(result)
    }
}

fn entry_of(bytes: &[u8]) -> DirectoryEntry {
    DirectoryEntry::read_from_bytes(bytes).expect("exactly the size of an entry")
}

/// Whether an address from a disk can exist, if there is one.
pub(super) fn require_address(block: &BlockRef, blocks_max: u64) -> Result<(), DecodeError> {
    let known = block.address <= blocks_max;
    require(known, "block address", block.address, "within the storage limit")
}
