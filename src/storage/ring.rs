//! The newest blocks of an append-only array of items, in memory.
//!
//! Items are built in place, full blocks are sealed where they lie and written without a copy, and
//! stay readable until their place is needed. The array has one block that is being filled, at most
//! a few full ones that are not sealed yet (within one op), and sealed ones before those. Not
//! covered: where older blocks are, see `log` and `directory`.

use super::block::{self, BlockFacts, BlockKind, BlockRef};
use super::decode::{DecodeError, require};
use super::fetch::Fetch;
use super::grid::{BlockReadId, Grid};
use super::packing::Packing;
use super::{count_of, index_of};
use crate::protocol::{Buffer, Pool, SECTOR_SIZE, to_index};
use crate::ready;

/// Whole-block reads that a loader keeps in flight.
const LOADS_MAX: u64 = 4;

/// Newest blocks of an array.
#[derive(Debug)]
pub struct BlockRing {
    packing: Packing,
    item_size: usize,
    kind: BlockKind,
    pool: Pool,
    /// The blocks in memory, those from `first_block` to `end_block`, at `slot_of`.
    slots: Vec<Option<Buffer>>,
    /// Slot of `first_block`.
    head: usize,
    first_block: u64,
    end_block: u64,
    /// Blocks before this one are sealed.
    sealed_blocks: u64,
    /// First item in memory.
    first_row: u64,
    rows: u64,
}

impl BlockRing {
    /// An empty array, with memory for `count` blocks.
    ///
    /// # Panics
    ///
    /// If `count` is below two.
    #[must_use]
    pub fn new(name: &'static str, kind: BlockKind, packing: Packing, count: u32) -> BlockRing {
        assert!(count >= 2, "one block being written and one being filled");
        BlockRing {
            packing,
            item_size: to_index(packing.item_size()),
            kind,
            pool: Pool::new_resident(name, count, packing.block_size(), count),
            slots: (0..count).map(|_| None).collect(),
            head: 0,
            first_block: 0,
            end_block: 0,
            sealed_blocks: 0,
            first_row: 0,
            rows: 0,
        }
    }

    /// Bytes that an array with `count` blocks in memory occupies.
    #[must_use]
    pub fn memory_bytes(count: u32, block_size: u32) -> u64 {
        let slot = count_of(size_of::<Option<Buffer>>());
        Pool::memory_bytes(count, block_size) + u64::from(count) * slot
    }

    /// Items in the array.
    #[inline]
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Layout of the items.
    #[must_use]
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Blocks that are full and sealed.
    #[must_use]
    pub fn sealed_blocks(&self) -> u64 {
        self.sealed_blocks
    }

    /// First block in memory.
    #[must_use]
    pub fn first_block(&self) -> u64 {
        self.first_block
    }

    /// First item in memory.
    #[must_use]
    pub fn first_row(&self) -> u64 {
        self.first_row
    }

    /// The item, if its block is in memory.
    ///
    /// # Panics
    ///
    /// If blocks are still being loaded.
    #[inline]
    #[must_use]
    pub fn recent(&self, row: u64) -> Option<&[u8]> {
        if row < self.first_row || row >= self.rows {
            return None;
        }
        let (block, index) = self.packing.split(row);
        let start = self.packing.offset_in_block(index);
        let buffer = self.slots[self.slot_of(block)].as_ref().expect("blocks in memory");
        Some(&buffer.bytes()[start..start + self.item_size])
    }

    /// Room for one more item at the end, for the caller to fill whole; the room was reserved.
    ///
    /// # Panics
    ///
    /// If no room was reserved.
    #[inline]
    pub fn append_slot(&mut self) -> &mut [u8] {
        let (block, index) = self.packing.split(self.rows);
        if block == self.end_block {
            self.append_block();
        }
        self.rows += 1;
        let start = self.packing.offset_in_block(index);
        let slot = self.slot_of(block);
        let buffer = self.slots[slot].as_mut().expect("the last block is in memory");
        &mut buffer.bytes_mut()[start..start + self.item_size]
    }

    /// Forgets the items from `rows` on, none of them in a sealed block.
    ///
    /// # Panics
    ///
    /// If they are not there, or sealed.
    pub fn truncate(&mut self, rows: u64) {
        assert!(rows <= self.rows);
        assert!(rows >= self.sealed_blocks * self.packing.per_block());
        self.rows = rows;
        let end_block = self.packing.blocks_for(rows).max(self.first_block);
        while self.end_block > end_block {
            self.end_block -= 1;
            let slot = self.slot_of(self.end_block);
            assert!(self.slots[slot].take().is_some());
        }
    }

    /// Makes room for `items` more, letting go of the oldest blocks with no item from
    /// `retain_from` on, which `let_go` is shown before. Waits for the writes of blocks that were
    /// let go.
    ///
    /// # Panics
    ///
    /// If the ring is too small for what it must retain: a mistake in its sizing.
    pub fn reserve(
        &mut self,
        items: u64,
        retain_from: u64,
        mut let_go: impl FnMut(u64, &[u8]),
    ) -> Fetch<()> {
        let end_block = self.packing.blocks_for(self.rows + items).max(self.end_block);
        let capacity = count_of(self.slots.len());
        while end_block - self.first_block > capacity {
            let next = self.first_block + 1;
            let retained = next * self.packing.per_block() > retain_from;
            assert!(!retained, "pool {}: too few blocks to retain", self.pool.name());
            assert!(next <= self.sealed_blocks, "pool {}: too few blocks", self.pool.name());
            let buffer = self.slots[self.head].take().expect("blocks in memory");
            let_go(self.first_block, buffer.bytes());
            self.head = (self.head + 1) % self.slots.len();
            self.first_block = next;
            self.first_row = next * self.packing.per_block();
        }
        let needed = end_block - self.end_block;
        if u64::from(self.pool.available()) >= needed { Fetch::Ready(()) } else { Fetch::Wait }
    }

    /// The oldest block that is full and not sealed.
    #[must_use]
    pub fn next_to_seal(&self) -> Option<u64> {
        let end = (self.sealed_blocks + 1) * self.packing.per_block();
        if end <= self.rows { Some(self.sealed_blocks) } else { None }
    }

    /// Seals the oldest full block and queues its write.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn seal_next(&mut self, grid: &mut Grid, sequence: u64) -> BlockRef {
        let number = self.next_to_seal().expect("the caller has asked");
        let count = self.packing.per_block();
        let facts = self.facts(grid, sequence, count);
        let slot = self.slot_of(number);
        let buffer = self.slots[slot].as_mut().expect("an unsealed block is in memory");
        let block = block::seal(buffer.bytes_mut(), &facts);
        grid.write(buffer.clone(), block);
        self.sealed_blocks = number + 1;
        block
    }

    /// Copies the items of the block being filled into a fresh sealed block and queues its write;
    /// `BlockRef::NONE` if there are none.
    ///
    /// # Panics
    ///
    /// If full blocks are not sealed yet, or the grid has no block buffer.
    pub fn copy_tail(&self, grid: &mut Grid, sequence: u64) -> BlockRef {
        assert!(self.next_to_seal().is_none(), "full blocks are sealed before");
        let (number, count) = self.packing.split(self.rows);
        if count == 0 {
            return BlockRef::NONE;
        }
        assert!(number == self.sealed_blocks);
        let facts = self.facts(grid, sequence, count);
        let mut copy = grid.block_buffer();
        let source = self.slots[self.slot_of(number)].as_ref().expect("the tail is in memory");
        self.copy_items(source.bytes(), copy.bytes_mut(), count);
        let block = block::seal(copy.bytes_mut(), &facts);
        grid.write(copy, block);
        block
    }

    /// Forgets everything and becomes an array of `rows` items of which none is in memory; the
    /// blocks from `first_block` on are to be loaded next, in order.
    ///
    /// # Panics
    ///
    /// If the blocks to load do not fit.
    pub fn restore(&mut self, rows: u64, first_block: u64) {
        let end = self.packing.blocks_for(rows);
        assert!(first_block <= end);
        assert!(end - first_block <= count_of(self.slots.len()));
        self.slots.fill_with(|| None);
        self.head = 0;
        self.first_block = first_block;
        self.first_row = first_block * self.packing.per_block();
        self.end_block = first_block;
        self.sealed_blocks = self.packing.split(rows).0;
        self.rows = rows;
    }

    /// Takes over the items of the next block in order, which was read and verified.
    ///
    /// # Errors
    ///
    /// If it holds something else than it should.
    ///
    /// # Panics
    ///
    /// If all blocks were loaded.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let number = self.end_block;
        assert!(number < self.packing.blocks_for(self.rows));
        let per_block = self.packing.per_block();
        let count = per_block.min(self.rows - number * per_block);
        let header = block::header(bytes);
        let kind = u64::from(header.kind);
        require(header.kind == self.kind as u8, "block kind", kind, "that of its owner")?;
        let (found, size) = (u64::from(header.item_count), u64::from(header.item_size));
        require(found == count, "block items", found, "what its owner counts")?;
        require(index_of(size) == self.item_size, "block item size", size, "that of its owner")?;
        self.append_block();
        let slot = self.slot_of(number);
        let mut buffer = self.slots[slot].take().expect("just appended");
        self.copy_items(bytes, buffer.bytes_mut(), count);
        self.slots[slot] = Some(buffer);
        Ok(())
    }

    fn facts(&self, grid: &mut Grid, sequence: u64, count: u64) -> BlockFacts {
        BlockFacts {
            cluster: grid.cluster(),
            address: grid.acquire(),
            sequence,
            kind: self.kind,
            item_size: self.packing.item_size(),
            item_count: u32::try_from(count).expect("items of a block"),
        }
    }

    #[inline]
    fn slot_of(&self, block: u64) -> usize {
        debug_assert!(block >= self.first_block);
        let slot = self.head + index_of(block - self.first_block);
        if slot >= self.slots.len() { slot - self.slots.len() } else { slot }
    }

    /// Adds an empty block at the end. Only the bytes between items need to be zero, since all
    /// others are overwritten before the block is sealed.
    fn append_block(&mut self) {
        assert!(self.end_block - self.first_block < count_of(self.slots.len()));
        let mut buffer = self.pool.acquire();
        let sectors = self.packing.block_size() / SECTOR_SIZE;
        let bytes = buffer.bytes_mut();
        for sector in 0..sectors {
            let last = self.packing.sector_items(sector).1 - 1;
            let start = self.packing.offset_in_block(last) + self.item_size;
            bytes[start..to_index((sector + 1) * SECTOR_SIZE)].fill(0);
        }
        let slot = self.slot_of(self.end_block);
        assert!(self.slots[slot].replace(buffer).is_none());
        self.end_block += 1;
    }

    /// Copies the first `count` items of a block from one buffer to another.
    fn copy_items(&self, from: &[u8], to: &mut [u8], count: u64) {
        for sector in 0..self.packing.block_size() / SECTOR_SIZE {
            let (first, end) = self.packing.sector_items(sector);
            if first >= count {
                return;
            }
            let start = self.packing.offset_in_block(first);
            let end = self.packing.offset_in_block(end.min(count) - 1) + self.item_size;
            to[start..end].copy_from_slice(&from[start..end]);
        }
    }
}

/// Loads blocks into a ring that was restored, a few reads at a time.
#[derive(Debug)]
pub struct Loader {
    started: u64,
    taken: u64,
    reads: [Option<BlockReadId>; index_of(LOADS_MAX)],
}

impl Loader {
    /// Loads from the first block of `ring` on.
    #[must_use]
    pub fn new(ring: &BlockRing) -> Loader {
        let first = ring.first_block();
        Loader { started: first, taken: first, reads: [None; index_of(LOADS_MAX)] }
    }

    /// Goes on until all blocks of the ring are loaded; `reference` says where a block is.
    pub fn step(
        &mut self,
        ring: &mut BlockRing,
        grid: &mut Grid,
        reference: impl Fn(&mut Grid, u64) -> Fetch<BlockRef>,
    ) -> Fetch<Result<(), DecodeError>> {
        let end = ring.packing.blocks_for(ring.rows);
        while self.taken < end {
            while self.started < end && self.started - self.taken < LOADS_MAX {
                let Fetch::Ready(block) = reference(grid, self.started) else { break };
                let Some(id) = grid.block_read_start(block) else { break };
                self.reads[index_of(self.started % LOADS_MAX)] = Some(id);
                self.started += 1;
            }
            let slot = index_of(self.taken % LOADS_MAX);
            let Some(id) = self.reads[slot] else { return Fetch::Wait };
            let buffer = ready!(grid.block_read_take(id));
            self.reads[slot] = None;
            self.taken += 1;
            if let Err(error) = ring.load(buffer.bytes()) {
                return Fetch::Ready(Err(error));
            }
        }
        Fetch::Ready(Ok(()))
    }
}
