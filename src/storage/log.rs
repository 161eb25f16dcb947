//! An append-only array of rows of one size: the newest in memory, all on the disk.
//!
//! Blocks that leave the memory of the newest may go on in a cache of packed rows.
//! Rows are numbered from 0 without gaps, so the place of a row is arithmetic and one look into the
//! directory. Appending is memory only; blocks that an op has filled are sealed and written at its
//! end. A checkpoint copies the block being filled, so that blocks are never written twice. Not
//! covered: what rows mean, and finding them by anything but number and the two monotone keys.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::block::{BlockKind, BlockRef};
use super::config::Config;
use super::decode::{DecodeError, Reader, require};
use super::directory::{Directory, DirectoryEntry, require_address};
use super::fetch::Fetch;
use super::grid::Grid;
use super::image::LogImage;
use super::packed_rows::PackedRows;
use super::packing::Packing;
use super::ring::{BlockRing, Loader};
use super::{count_of, index_of};
use crate::protocol::to_index;
use crate::ready;

/// What a log is for, and its memory.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Name of the memory of the newest rows, for messages to people.
    pub name: &'static str,
    /// Kind of the blocks of rows.
    pub kind: BlockKind,
    /// Kind of the blocks of the directory.
    pub directory_kind: BlockKind,
    /// Bytes of a row.
    pub row_size: u32,
    /// Blocks of newest rows in memory: what [`Log::retain_from`] demands, one op and the writes in
    /// flight must fit; whatever is more is a cache.
    pub recent_blocks: u32,
    /// Bytes of memory for rows that are no longer among those, packed; too few for anything mean
    /// none.
    pub packed_bytes: u64,
    /// Rows that one op appends at most.
    pub op_rows_max: u32,
    /// Blocks in the grid at most.
    pub blocks_max: u64,
}

/// State of a log at a checkpoint, followed by that of its directory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct LogState {
    pub(super) tail: BlockRef,
    pub(super) rows: u64,
    pub(super) row_size: u64,
}

/// What is still to be read after decoding: the directory first, then the rows.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per log")]
enum Opening {
    Done,
    Directory,
    Rows(Loader),
}

/// A log.
#[derive(Debug)]
pub struct Log {
    ring: BlockRing,
    packed: Option<PackedRows>,
    directory: Directory,
    op_rows_max: u64,
    blocks_max: u64,
    /// Rows from here on must stay in memory.
    retain_from: u64,
    /// Copy of the block being filled, in the last checkpoint.
    tail: BlockRef,
    /// Rows at that checkpoint.
    tail_rows: u64,
    opening: Opening,
}

impl Log {
    /// An empty log; all memory is reserved here.
    ///
    /// # Panics
    ///
    /// If `recent_blocks` has no room for one op.
    #[must_use]
    pub fn new(config: &Config, options: &LogOptions) -> Log {
        let packing = Packing::new(options.row_size, config.block_size);
        let op_rows_max = u64::from(options.op_rows_max);
        // The tail, an op beyond it, and one block that is being written.
        let needed = packing.blocks_for(op_rows_max) + 2;
        assert!(u64::from(options.recent_blocks) >= needed, "room for one op");
        let name = options.name;
        let blocks_max = options.blocks_max;
        Log {
            ring: BlockRing::new(name, options.kind, packing, options.recent_blocks),
            packed: packs(options, &packing)
                .then(|| PackedRows::new(packing, options.packed_bytes)),
            directory: Directory::new(name, options.directory_kind, config.block_size, blocks_max),
            op_rows_max,
            blocks_max,
            retain_from: 0,
            tail: BlockRef::NONE,
            tail_rows: 0,
            opening: Opening::Done,
        }
    }

    /// Bytes that a log occupies.
    #[must_use]
    pub fn memory_bytes(config: &Config, options: &LogOptions) -> u64 {
        let packing = Packing::new(options.row_size, config.block_size);
        let packed = if packs(options, &packing) {
            PackedRows::memory_bytes(&packing, options.packed_bytes)
        } else {
            0
        };
        packed
            + BlockRing::memory_bytes(options.recent_blocks, config.block_size)
            + Directory::memory_bytes(config.block_size, options.blocks_max)
    }

    /// Bytes of the longest state of a log.
    #[must_use]
    pub fn state_size_max(config: &Config, options: &LogOptions) -> u64 {
        count_of(size_of::<LogState>())
            + Directory::state_size_max(config.block_size, options.blocks_max)
    }

    /// Rows in the log.
    #[inline]
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.ring.rows()
    }

    /// First row in memory; all from it on are.
    #[inline]
    #[must_use]
    pub fn recent_from(&self) -> u64 {
        self.ring.first_row()
    }

    /// Layout of the rows.
    #[must_use]
    pub fn packing(&self) -> &Packing {
        self.ring.packing()
    }

    /// Blocks that one op and a checkpoint together acquire at most.
    #[must_use]
    pub fn blocks_per_op_max(&self) -> u64 {
        Log::blocks_per_op_of(self.packing(), self.op_rows_max)
    }

    /// The same for a log of this layout.
    #[must_use]
    pub fn blocks_per_op_of(packing: &Packing, op_rows_max: u64) -> u64 {
        // One more row block than full ones, one directory block, two tails.
        packing.blocks_for(op_rows_max) + 1 + 1 + 2
    }

    /// Demands that rows from `row` on stay in memory from now on.
    ///
    /// # Panics
    ///
    /// If they are not in memory, or less was demanded before.
    pub fn retain_from(&mut self, row: u64) {
        assert!(row >= self.retain_from, "the watermark never goes back");
        assert!(row >= self.recent_from());
        assert!(row <= self.rows());
        self.retain_from = row;
    }

    /// Makes room for one op: call before each until ready; waits for writes if need be.
    ///
    /// # Panics
    ///
    /// If the memory is too small for what must be retained: a mistake in its sizing.
    pub fn reserve_op(&mut self) -> Fetch<()> {
        let blocks = self.packing().blocks_for(self.op_rows_max) + 1;
        ready!(self.directory.reserve(blocks));
        let packed = &mut self.packed;
        self.ring.reserve(self.op_rows_max, self.retain_from, |block, bytes| {
            if let Some(packed) = packed {
                packed.push(block, bytes);
            }
        })
    }

    /// Appends a row; returns its number.
    ///
    /// # Panics
    ///
    /// If the row has another size, or no room was made.
    #[inline]
    pub fn append(&mut self, row: &[u8]) -> u64 {
        let number = self.rows();
        self.ring.append_slot().copy_from_slice(row);
        number
    }

    /// Appends a row; the caller fills all its bytes.
    ///
    /// # Panics
    ///
    /// If no room was made.
    #[inline]
    pub fn append_slot(&mut self) -> &mut [u8] {
        self.ring.append_slot()
    }

    /// Forgets rows of the current op from `rows` on.
    ///
    /// # Panics
    ///
    /// If some are not there, or of an op that has ended with their block full.
    pub fn truncate(&mut self, rows: u64) {
        self.ring.truncate(rows);
    }

    /// The row, if it is in memory.
    #[inline]
    #[must_use]
    pub fn recent(&self, row: u64) -> Option<&[u8]> {
        self.ring.recent(row)
    }

    /// Copies the row into `out`, read from the disk if need be.
    ///
    /// # Panics
    ///
    /// If there is no such row, or `out` has not its size.
    #[inline]
    pub fn read(&self, grid: &mut Grid, row: u64, out: &mut [u8]) -> Fetch<()> {
        if let Some(bytes) = self.ring.recent(row) {
            out.copy_from_slice(bytes);
            return Fetch::Ready(());
        }
        self.read_old(grid, row, out)
    }

    fn read_old(&self, grid: &mut Grid, row: u64, out: &mut [u8]) -> Fetch<()> {
        assert!(row < self.rows());
        if let Some(packed) = &self.packed {
            let (block, index) = self.packing().split(row);
            if packed.read(block, index, out) {
                return Fetch::Ready(());
            }
        }
        let location = self.packing().locate(row);
        let entry = ready!(self.directory.entry(grid, location.block));
        let page = ready!(grid.page(&entry.block, location.sector));
        let start = to_index(location.offset);
        out.copy_from_slice(&page[start..start + to_index(self.packing().item_size())]);
        Fetch::Ready(())
    }

    /// Ends an op: seals the blocks that are full and queues their writes. `keys_before` gives the
    /// two keys of a block from the number of its first row: maxima over all rows before it.
    ///
    /// # Panics
    ///
    /// If keys decrease.
    pub fn end_op(
        &mut self,
        grid: &mut Grid,
        sequence: u64,
        mut keys_before: impl FnMut(u64) -> [u64; 2],
    ) {
        while let Some(number) = self.ring.next_to_seal() {
            let keys = keys_before(number * self.packing().per_block());
            let block = self.ring.seal_next(grid, sequence);
            let entry = DirectoryEntry { block, keys, reserved: [0; 16] };
            self.directory.append(grid, sequence, &entry);
        }
        assert!(self.directory.entries() == self.ring.sealed_blocks());
    }

    /// First row of the last sealed block whose key `key` is below `value`, or 0: all rows before
    /// it have keys below `value`. Ask again with the same arguments after `Wait`.
    ///
    /// # Panics
    ///
    /// If there is no such key.
    pub fn search(&mut self, grid: &mut Grid, key: usize, value: u64) -> Fetch<u64> {
        let per_block = self.packing().per_block();
        self.directory.search(grid, key, value).map(|number| number * per_block)
    }

    /// Full block number `block` of the directory, and behind the last of them the copies of the
    /// blocks that are being filled, of the directory and of rows; none for a copy that there is
    /// not.
    #[must_use]
    pub fn directory_block(&self, block: u64) -> Option<BlockRef> {
        let count = self.directory.full_blocks().len();
        let block = index_of(block);
        match block.checked_sub(count) {
            None => Some(self.directory.full_blocks()[block]),
            Some(0) => Some(self.directory.tail()),
            Some(1) => Some(self.tail),
            Some(_) => None,
        }
    }

    /// Sealed block number `block` of rows, if there is one.
    pub fn row_block(&self, grid: &mut Grid, block: u64) -> Fetch<Option<BlockRef>> {
        if block == self.directory.entries() {
            return Fetch::Ready(None);
        }
        self.directory.entry(grid, block).map(|entry| Some(entry.block))
    }

    /// At a checkpoint, after the op has ended: writes copies of the blocks being filled, of rows
    /// and directory, and releases the copies of the checkpoint before.
    ///
    /// # Panics
    ///
    /// If the grid has not two block buffers.
    pub fn checkpoint_tails(&mut self, grid: &mut Grid, sequence: u64) {
        if self.tail_rows != self.rows() {
            if !self.tail.is_none() {
                grid.release(self.tail.address);
            }
            self.tail = self.ring.copy_tail(grid, sequence);
            self.tail_rows = self.rows();
        }
        self.directory.checkpoint_tail(grid, sequence);
    }

    /// Appends the state at the checkpoint whose tails were written last.
    ///
    /// # Panics
    ///
    /// If rows were appended since.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.tail_rows == self.rows(), "the tails were written");
        let row_size = u64::from(self.packing().item_size());
        let state = LogState { tail: self.tail, rows: self.rows(), row_size };
        out.extend_from_slice(state.as_bytes());
        self.directory.encode(out);
    }

    /// Replaces the state and returns the bytes read; then call [`Log::open_step`] until ready.
    ///
    /// # Errors
    ///
    /// If the bytes are no log of this kind.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut reader = Reader::new(bytes);
        let packing = *self.packing();
        let image = LogImage::read(&mut reader, packing.item_size(), packing.block_size())?;
        let fits = image.blocks < self.blocks_max;
        require(fits, "log rows", image.rows, "within the storage limit")?;
        require_address(&image.tail, self.blocks_max)?;
        self.directory.decode(&image)?;
        self.tail = image.tail;
        self.tail_rows = image.rows;
        self.ring.restore(image.rows, packing.blocks_for(image.rows));
        if let Some(packed) = &mut self.packed {
            packed.clear();
        }
        self.retain_from = 0;
        self.opening = Opening::Directory;
        Ok(reader.position())
    }

    /// Reads what must be in memory after [`Log::decode`]: the newest directory blocks, the block
    /// being filled, and all rows from `recent_from_row` on. Call until ready, with the same row.
    ///
    /// # Errors
    ///
    /// If a block holds something else than it should.
    ///
    /// # Panics
    ///
    /// If those rows do not fit the memory of the log.
    pub fn open_step(
        &mut self,
        grid: &mut Grid,
        recent_from_row: u64,
    ) -> Fetch<Result<(), DecodeError>> {
        if matches!(self.opening, Opening::Directory) {
            if let Err(error) = ready!(self.directory.open_step(grid)) {
                return Fetch::Ready(Err(error));
            }
            let rows = self.ring.rows();
            let first = self.ring.packing().split(recent_from_row.min(rows)).0;
            self.ring.restore(rows, first.min(self.ring.sealed_blocks()));
            self.opening = Opening::Rows(Loader::new(&self.ring));
        }
        let Opening::Rows(loader) = &mut self.opening else { return Fetch::Ready(Ok(())) };
        let (directory, tail) = (&self.directory, self.tail);
        let sealed = directory.entries();
        let result = ready!(loader.step(&mut self.ring, grid, |grid, number| {
            if number == sealed {
                return Fetch::Ready(tail);
            }
            directory.entry(grid, number).map(|entry| entry.block)
        }));
        self.opening = Opening::Done;
        self.retain_from = self.ring.first_row().max(recent_from_row.min(self.ring.rows()));
        Fetch::Ready(result)
    }
}

/// Whether rows are kept packed: if there is memory for some.
fn packs(options: &LogOptions, packing: &Packing) -> bool {
    options.packed_bytes >= PackedRows::bytes_min(packing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::disk::MemoryDisk;
    use crate::storage::{GridOptions, StorageOutbox, Zone, Zones};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    const BLOCKS_MAX: u64 = 4000;

    /// Rows of one op at most: about two blocks.
    fn op_rows_max(row_size: u32) -> u32 {
        126 * 128 / row_size
    }

    struct World {
        log: Log,
        grid: Grid,
        disk: MemoryDisk,
        outbox: StorageOutbox,
        random: ChaCha8Rng,
        row_size: u32,
        op: u64,
    }

    fn options(row_size: u32) -> LogOptions {
        LogOptions {
            name: "test rows",
            kind: BlockKind::Transfers,
            directory_kind: BlockKind::TransfersDirectory,
            row_size,
            recent_blocks: 10,
            // Rows of 128 bytes are also packed: some of the older ones are in memory then.
            packed_bytes: if row_size == 128 { 400_000 } else { 0 },
            op_rows_max: op_rows_max(row_size),
            blocks_max: BLOCKS_MAX,
        }
    }

    fn grid_of(config: &Config) -> Grid {
        Grid::new(
            config,
            &GridOptions {
                cluster: 9,
                cache_bytes: 128 * 4096,
                blocks_max: BLOCKS_MAX,
                page_reads_max: 8,
                block_reads_max: 3,
                read_buffers: 4,
                write_buffers: 4,
                writes_queued_max: 4 + 10 + 4,
                writes_in_flight_max: 3,
            },
        )
    }

    /// Contents of a row, different for every row and every byte position.
    fn row_of(number: u64, size: u32) -> Vec<u8> {
        let mut row = vec![0; to_index(size)];
        for (index, chunk) in (0_u64..).zip(row.chunks_mut(8)) {
            let value = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7) ^ index;
            chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
        }
        row
    }

    /// Keys of a block: the time of the row before, at ten a row; and a third of that.
    fn keys_before(first: u64) -> [u64; 2] {
        [first * 10, first * 10 / 3]
    }

    impl World {
        fn new(seed: u64, row_size: u32) -> World {
            let config = Config::testing();
            World {
                log: Log::new(&config, &options(row_size)),
                grid: grid_of(&config),
                disk: MemoryDisk::new(Zones::new(&config).file_size(BLOCKS_MAX)),
                outbox: StorageOutbox::new(32, 1),
                random: ChaCha8Rng::seed_from_u64(seed),
                row_size,
                op: 0,
            }
        }

        fn turn(&mut self) -> bool {
            self.grid.pump(&mut self.outbox);
            self.disk.submit_all(&mut self.outbox);
            let done = self.disk.complete_one(&mut self.random);
            let some = done.is_some();
            if let Some(done) = done {
                self.grid.on_disk_done(done);
            }
            assert!(self.grid.fault().is_none(), "{:?}", self.grid.fault());
            some
        }

        fn settle(&mut self) {
            while self.turn() {}
        }

        /// One op of `rows` rows, after a rollback of `undone` others.
        fn op(&mut self, rows: u64, undone: u64) {
            while self.log.reserve_op().is_wait() {
                assert!(self.turn(), "a write makes room");
            }
            self.op += 1;
            let start = self.log.rows();
            for _ in 0..undone {
                self.log.append_slot().fill(0xee);
            }
            self.log.truncate(start);
            for _ in 0..rows {
                let number = self.log.rows();
                assert_eq!(self.log.append(&row_of(number, self.row_size)), number);
            }
            self.log.end_op(&mut self.grid, self.op, keys_before);
            if self.op.is_multiple_of(2) {
                self.log.retain_from(self.log.rows());
            }
        }

        fn get(&mut self, row: u64) -> Vec<u8> {
            loop {
                let mut bytes = vec![0; to_index(self.row_size)];
                if self.log.read(&mut self.grid, row, &mut bytes).is_ready() {
                    return bytes;
                }
                assert!(self.turn());
            }
        }

        fn search(&mut self, key: usize, value: u64) -> u64 {
            loop {
                if let Fetch::Ready(row) = self.log.search(&mut self.grid, key, value) {
                    return row;
                }
                assert!(self.turn());
            }
        }

        fn checkpoint(&mut self) -> Vec<u8> {
            while self.grid.block_buffers_available() < 2 {
                assert!(self.turn());
            }
            self.grid.release_staged();
            self.log.checkpoint_tails(&mut self.grid, self.op);
            self.grid.stage_checkpoint();
            self.settle();
            let mut bytes = Vec::new();
            self.log.encode(&mut bytes);
            let limit = Log::state_size_max(&Config::testing(), &options(self.row_size));
            assert!(count_of(bytes.len()) <= limit);
            self.grid.free_set_encode(&mut bytes);
            bytes
        }

        /// Another world that opens a copy of this one's disk at its last checkpoint.
        fn reopen(&self, bytes: &[u8], recent_from: u64) -> World {
            let mut world = World::new(77, self.row_size);
            world.disk = self.disk.copy();
            world.op = self.op;
            let used = world.log.decode(bytes).unwrap();
            world.grid.free_set_decode(&bytes[used..]).unwrap();
            loop {
                match world.log.open_step(&mut world.grid, recent_from) {
                    Fetch::Ready(result) => {
                        result.unwrap();
                        return world;
                    }
                    Fetch::Wait => assert!(world.turn()),
                }
            }
        }

        fn check_rows(&mut self, count: u64) {
            for _ in 0..count {
                let row = self.random.next_u64() % self.log.rows();
                assert_eq!(self.get(row), row_of(row, self.row_size), "row {row}");
            }
            for row in self.log.recent_from()..self.log.rows() {
                assert_eq!(self.log.recent(row).unwrap(), row_of(row, self.row_size));
            }
        }
    }

    /// Goal: over many blocks and a small ring, with rollbacks and any order of completion, every
    /// row is what was appended.
    #[test]
    fn rows_come_back() {
        for (seed, row_size) in [(1, 128), (2, 136), (3, 1000)] {
            let mut world = World::new(seed, row_size);
            for _ in 0..150 {
                let rows = world.random.next_u64() % world.log.op_rows_max;
                let undone = world.random.next_u64() % (rows + 1);
                world.op(rows, undone);
                if world.log.rows() > 0 && world.op.is_multiple_of(10) {
                    world.check_rows(20);
                }
            }
            assert!(world.log.recent_from() > 0);
            assert!(world.log.recent(world.log.recent_from() - 1).is_none());
            assert!(world.log.recent(world.log.rows()).is_none());
            world.check_rows(300);
            assert!(world.grid.counters().page_reads > 0);
        }
    }

    /// Goal: the search gives the last block below the value, for every value and both keys, also
    /// when the directory is on the disk.
    #[test]
    fn search_is_a_lower_bound() {
        let mut world = World::new(4, 1000);
        while world.log.directory.entries() < 600 {
            world.op(16, 0);
        }
        assert!(world.log.directory.entries() > 3 * world.log.directory.entries_per_block());
        let per_block = world.log.packing().per_block();
        for key in [0, 1] {
            for round in 0..300_u64 {
                let value = match round {
                    0 => 0,
                    1 => u64::MAX,
                    _ => world.random.next_u64() % (world.log.rows() * 11),
                };
                let sealed = world.log.directory.entries();
                let below = (0..sealed).filter(|block| keys_before(block * per_block)[key] < value);
                let expected = below.max().unwrap_or(0) * per_block;
                assert_eq!(world.search(key, value), expected, "key {key} value {value}");
            }
        }
    }

    /// Goal: a log that is reopened at a checkpoint goes on to write the same bytes at the same
    /// addresses as one that was not, and both have the same state afterwards.
    #[test]
    fn reopened_is_identical() {
        for seed in 0..12 {
            let row_size = [128, 136, 1000][usize::try_from(seed % 3).unwrap()];
            let mut world = World::new(seed, row_size);
            let mut plan = ChaCha8Rng::seed_from_u64(seed);
            for _ in 0..40 * (1 + seed) {
                world.op(plan.next_u64() % world.log.op_rows_max, 0);
                if plan.next_u64().is_multiple_of(9) {
                    world.checkpoint();
                }
            }
            let bytes = world.checkpoint();
            let back = plan.next_u64() % (2 * world.log.op_rows_max);
            let recent = world.log.rows().saturating_sub(back);
            let mut other = world.reopen(&bytes, recent);
            assert!(other.log.recent_from() <= recent);
            assert_eq!(other.checkpoint_bytes(), bytes);
            other.check_rows(100);
            let start = Zones::new(&Config::testing()).start(Zone::Grid);
            for _ in 0..40 {
                let rows = plan.next_u64() % world.log.op_rows_max;
                world.op(rows, 3);
                other.op(rows, 0);
                if plan.next_u64().is_multiple_of(9) {
                    assert_eq!(world.checkpoint(), other.checkpoint());
                }
            }
            assert_eq!(world.checkpoint(), other.checkpoint());
            assert_eq!(world.disk.first_difference(&other.disk, start), None);
            other.check_rows(100);
        }
    }

    impl World {
        fn checkpoint_bytes(&self) -> Vec<u8> {
            let mut bytes = Vec::new();
            self.log.encode(&mut bytes);
            self.grid.free_set_encode(&mut bytes);
            bytes
        }
    }

    /// Goal: encoded state that is cut or changed is an error or leads to one, never a panic.
    #[test]
    fn damaged_state_is_an_error() {
        let mut world = World::new(5, 128);
        (0..20).for_each(|_| world.op(100, 0));
        let mut bytes = world.checkpoint();
        let fresh = || Log::new(&Config::testing(), &options(128));
        let used = fresh().decode(&bytes).unwrap();
        for length in 0..used {
            assert!(matches!(fresh().decode(&bytes[..length]), Err(DecodeError::Short { .. })));
        }
        let error = Log::new(&Config::testing(), &options(64)).decode(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "row size is 128, but must be that of the log");
        bytes[32] ^= 1;
        assert!(fresh().decode(&bytes).is_err() || bytes[32] != 0);
        bytes[39] = 0xff;
        assert!(fresh().decode(&bytes).is_err());
    }

    /// Goal: a ring that is too small for what must be retained is reported as such.
    #[test]
    #[should_panic(expected = "pool test rows: too few blocks to retain")]
    fn retention_is_checked() {
        let mut world = World::new(6, 128);
        for _ in 0..4 {
            world.op(126, 0);
        }
        world.log.op_rows_max = 600;
        assert!(world.log.reserve_op().is_ready());
    }
}
