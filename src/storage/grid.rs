//! Reading, writing and allocating the blocks of the data file.
//!
//! Pages are read through a bounded cache, each verified alone; a page that fails is read once
//! more and then taken from the whole block, if that verifies. Whole blocks are read for merges and
//! recovery. Writes queue without ever blocking and stay readable until they are on the disk. What
//! cannot be read waits for a peer's copy ([`grid_repair`](super::grid_repair)), if there are
//! peers; otherwise, and if something cannot be written, it is a [`GridFault`], with which the
//! replica stops.

use std::collections::VecDeque;
use std::fmt;

use super::block::{self, BlockError, BlockRef};
use super::config::Config;
use super::decode::DecodeError;
use super::disk::{
    DiskDone, DiskError, DiskKind, DiskOwner, DiskRequest, DiskToken, StorageOutbox,
};
use super::fetch::Fetch;
use super::free_set::FreeSet;
use super::grid_repair::{PROBES, Probe, REPAIR_BUFFERS};
use super::page_cache::{PageCache, PageKey, PageSlot, PageState};
use super::queue::Queue;
use super::zones::{Zone, Zones};
use super::{count_of, index_of};
use crate::protocol::{Buffer, Pool, SECTOR_SIZE, to_index, to_size};

/// The part of the reads under way that is worth looking at: a quarter keeps the disk busy.
const PAGES_ARRIVED_PART: usize = 4;
/// Attempts at a read before the whole block is tried, and at a write or whole read.
const ATTEMPTS_MAX: u8 = 2;
/// Blocks read at a time beside writes of the log, which wait for them in the queue of the disk:
/// 0.65 ms each, and a merge wants sixteen at once.
const READS_BESIDE_LOG: usize = 2;

/// Pages of the cache for each page read at a time.
///
/// A page that has arrived must stay until its reader asks again. With 256 reads for a cache of 16
/// pages, readers evicted each other's pages for minutes, and none got on. With a quarter of the
/// cache, the pages that have arrived and those that are on their way fill half of it at most.
pub const PAGES_PER_READ: u32 = 4;

/// Maximum page reads at a time: what the options say, and no more than the cache can keep.
///
/// # Panics
///
/// If the options allow none.
#[must_use]
pub fn page_reads_max(options: &GridOptions) -> u32 {
    let pages = PageCache::pages_in(options.cache_bytes);
    let fitting = u32::try_from(pages / index_of(PAGES_PER_READ.into())).unwrap_or(u32::MAX);
    let reads = options.page_reads_max.min(fitting);
    assert!(reads > 0, "the smallest cache has several pages for a read");
    reads
}

/// What may differ from start to start: limits and memory.
#[derive(Clone, Copy, Debug)]
pub struct GridOptions {
    /// Cluster that the blocks belong to.
    pub cluster: u128,
    /// Bytes of the page cache.
    pub cache_bytes: u64,
    /// Blocks in the grid at most: the storage limit.
    pub blocks_max: u64,
    /// Maximum page reads wanted or in flight; fewer if the cache is small, see [`page_reads_max`].
    pub page_reads_max: u32,
    /// Whole-block reads at a time.
    pub block_reads_max: u32,
    /// Buffers for whole-block reads: those being read plus those that readers hold.
    pub read_buffers: u32,
    /// Buffers for new blocks, see [`Grid::block_buffer`].
    pub write_buffers: u32,
    /// Writes queued at most: no fewer than all block buffers of everyone who writes.
    pub writes_queued_max: u32,
    /// Writes in flight at a time.
    pub writes_in_flight_max: u32,
}

/// What the grid could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GridFaultKind {
    /// A reference names an address beyond the storage limit.
    Address,
    /// A block is not what its reference says.
    Block(BlockError),
    /// The device cannot read.
    Read(DiskError),
    /// The device cannot write.
    Write(DiskError),
    /// The device cannot make writes durable.
    Sync(DiskError),
}

/// A block that could not be read, verified or written: the replica stops with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridFault {
    /// Zone of the data file.
    pub zone: Zone,
    /// Offset in the file in bytes.
    pub offset: u64,
    /// Address of the block; 0 for a sync.
    pub address: u64,
    /// The op that wrote the block.
    pub sequence: u64,
    /// What happened.
    pub kind: GridFaultKind,
}

impl fmt::Display for GridFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} block {} of op {} at file offset {}: ",
            self.zone, self.address, self.sequence, self.offset
        )?;
        match self.kind {
            GridFaultKind::Address => formatter.write_str("the address is out of range"),
            GridFaultKind::Block(error) => error.fmt(formatter),
            GridFaultKind::Read(error) => write!(formatter, "read: {error}"),
            GridFaultKind::Write(error) => write!(formatter, "write: {error}"),
            GridFaultKind::Sync(error) => write!(formatter, "sync: {error}"),
        }
    }
}

impl std::error::Error for GridFault {}

/// What the grid has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GridCounters {
    /// Pages asked for and found in memory.
    pub page_hits: u64,
    /// Pages read from the disk.
    pub page_reads: u64,
    /// Whole blocks read.
    pub block_reads: u64,
    /// Blocks written.
    pub block_writes: u64,
    /// Reads and writes that failed and were tried again.
    pub retries: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Blocks had from peers.
    pub blocks_repaired: u64,
}

/// A whole-block read that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct BlockReadId {
    index: u32,
    block: BlockRef,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct PageRead {
    pub(super) block: BlockRef,
    pub(super) sector: u32,
    slot: PageSlot,
    attempts: u8,
    /// Waits for a copy of the block from a peer.
    pub(super) missing: bool,
    /// The block was released since: nobody waits for it any more.
    pub(super) stale: bool,
}

#[derive(Debug)]
pub(super) enum BlockReadState {
    /// Waits for its turn at the disk.
    Queued(Buffer),
    /// The disk has the buffer.
    InFlight,
    /// Waits for a copy of the block from a peer.
    Missing(Buffer),
    /// Verified.
    Ready(Buffer),
}

#[derive(Debug)]
pub(super) struct BlockRead {
    pub(super) block: BlockRef,
    attempts: u8,
    pub(super) state: BlockReadState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteState {
    Queued,
    InFlight,
    Done,
}

#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) block: BlockRef,
    /// Given back as soon as the write is done.
    pub(super) buffer: Option<Buffer>,
    pub(super) state: WriteState,
    pub(super) attempts: u8,
    /// A peer's copy: its buffer is one of a few, and nobody else may hold it.
    pub(super) is_repair: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncState {
    Idle,
    Wanted,
    InFlight,
}

/// The grid zone: cache, allocation and all block input and output.
#[derive(Debug)]
pub struct Grid {
    pub(super) zones: Zones,
    pub(super) block_size: u32,
    cluster: u128,
    free_set: FreeSet,
    cache: PageCache,
    page_pool: Pool,
    pub(super) page_reads: Vec<Option<PageRead>>,
    page_reads_free: Vec<u32>,
    /// Pages that arrived since someone last asked.
    pages_arrived: usize,
    page_reads_wanted: Queue<u32>,
    /// Page reads that failed twice: their blocks are read whole, one at a time.
    rescues: Queue<u32>,
    rescue_pool: Pool,
    rescue_in_flight: bool,
    read_pool: Pool,
    pub(super) block_reads: Vec<Option<BlockRead>>,
    write_pool: Pool,
    pub(super) writes: VecDeque<PendingWrite>,
    pub(super) writes_capacity: usize,
    writes_in_flight_max: u32,
    writes_in_flight: u32,
    /// Only this many writes at the front are submitted, so that those which are done but not in
    /// their turn to leave the queue are bounded.
    writes_window: usize,
    /// Number of the write at the front of `writes`.
    writes_first: u64,
    sync: SyncState,
    fault: Option<GridFault>,
    pub(super) counters: GridCounters,
    /// Whether peers have copies of all blocks.
    pub(super) has_peers: bool,
    /// Reads that wait for a copy from a peer.
    pub(super) missing_count: usize,
    pub(super) probes: [Probe; PROBES],
    pub(super) probe_pool: Pool,
    pub(super) repair_pool: Pool,
}

impl Grid {
    /// An empty grid; all memory is reserved here.
    ///
    /// # Panics
    ///
    /// If a limit is zero, or the grid could outgrow a file.
    #[must_use]
    pub fn new(config: &Config, options: &GridOptions) -> Grid {
        let zones = Zones::new(config);
        assert!(zones.block_offset(options.blocks_max).is_some(), "the limit fits a file");
        assert!(options.block_reads_max > 0);
        assert!(options.read_buffers >= options.block_reads_max);
        assert!(options.writes_in_flight_max > 0);
        let page_reads_max = page_reads_max(options);
        let reads = to_index(page_reads_max);
        let writes_window = 2 * to_index(options.writes_in_flight_max);
        let writes_capacity = to_index(options.writes_queued_max + REPAIR_BUFFERS) + writes_window;
        let probes = u32::try_from(PROBES).expect("a few");
        Grid {
            zones,
            block_size: config.block_size,
            cluster: options.cluster,
            free_set: FreeSet::new(options.blocks_max),
            cache: PageCache::new(options.cache_bytes),
            page_pool: Pool::new("grid pages", page_reads_max, SECTOR_SIZE),
            page_reads: vec![None; reads],
            page_reads_free: (0..page_reads_max).rev().collect(),
            pages_arrived: 0,
            page_reads_wanted: Queue::new(reads),
            rescues: Queue::new(reads),
            rescue_pool: Pool::new("grid rescue", 1, config.block_size),
            rescue_in_flight: false,
            read_pool: Pool::new("grid reads", options.read_buffers, config.block_size),
            block_reads: (0..options.block_reads_max).map(|_| None).collect(),
            write_pool: Pool::new("grid writes", options.write_buffers, config.block_size),
            writes: VecDeque::with_capacity(writes_capacity),
            writes_capacity,
            writes_in_flight_max: options.writes_in_flight_max,
            writes_in_flight: 0,
            writes_window,
            writes_first: 0,
            sync: SyncState::Idle,
            fault: None,
            counters: GridCounters::default(),
            has_peers: false,
            missing_count: 0,
            probes: [const { Probe::IDLE }; PROBES],
            probe_pool: Pool::new("grid probes", probes, config.block_size),
            repair_pool: Pool::new("grid repair", REPAIR_BUFFERS, config.block_size),
        }
    }

    /// Bytes that a grid occupies, page cache and free set excepted.
    ///
    /// # Panics
    ///
    /// Never: probes are few.
    #[must_use]
    pub fn memory_bytes(config: &Config, options: &GridOptions) -> u64 {
        let page_reads_max = page_reads_max(options);
        let pages = Pool::memory_bytes(page_reads_max, SECTOR_SIZE);
        let page_read = size_of::<Option<PageRead>>() + 3 * size_of::<u32>();
        let probes = u32::try_from(PROBES).expect("a few");
        let buffers = 1 + options.read_buffers + options.write_buffers + probes + REPAIR_BUFFERS;
        let blocks = Pool::memory_bytes(buffers, config.block_size);
        let window = 2 * options.writes_in_flight_max;
        let writes = u64::from(options.writes_queued_max + REPAIR_BUFFERS + window);
        pages
            + u64::from(page_reads_max) * count_of(page_read)
            + blocks
            + u64::from(options.block_reads_max) * count_of(size_of::<Option<BlockRead>>())
            + writes * count_of(size_of::<PendingWrite>())
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Cluster that the blocks belong to.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// Pages that the cache holds.
    #[must_use]
    pub fn cache_pages(&self) -> usize {
        self.cache.pages()
    }

    /// What the grid could not do, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<&GridFault> {
        self.fault.as_ref()
    }

    /// What the grid has done.
    #[must_use]
    pub fn counters(&self) -> GridCounters {
        self.counters
    }

    /// A verified page of a block: 4096 bytes. If it is not in memory, it is read.
    ///
    /// # Panics
    ///
    /// If the sector is not in a block.
    #[inline]
    pub fn page(&mut self, block: &BlockRef, sector: u32) -> Fetch<&[u8]> {
        let key = PageKey { address: block.address, sequence: block.sequence, sector };
        match self.cache.lookup(key) {
            PageState::Valid(slot) => {
                self.counters.page_hits += 1;
                Fetch::Ready(self.cache.page(slot))
            }
            PageState::Reading => Fetch::Wait,
            PageState::Missing => self.page_missing(block, sector),
        }
    }

    fn page_missing(&mut self, block: &BlockRef, sector: u32) -> Fetch<&[u8]> {
        assert!(sector < self.block_size / SECTOR_SIZE);
        if !self.in_range(block) {
            return Fetch::Wait;
        }
        if let Some(index) = self.pending_write(block) {
            let buffer = self.writes[index].buffer.as_ref().expect("found by its buffer");
            let start = to_index(sector) * to_index(SECTOR_SIZE);
            return Fetch::Ready(&buffer.bytes()[start..start + to_index(SECTOR_SIZE)]);
        }
        if self.page_reads_free.is_empty() {
            return Fetch::Wait;
        }
        let key = PageKey { address: block.address, sequence: block.sequence, sector };
        let Some(slot) = self.cache.reserve(key) else { return Fetch::Wait };
        let index = self.page_reads_free.pop().expect("checked above");
        let (missing, stale) = (false, false);
        let read = PageRead { block: *block, sector, slot, attempts: 0, missing, stale };
        assert!(self.page_reads[to_index(index)].replace(read).is_none());
        self.page_reads_wanted.push(index);
        Fetch::Wait
    }

    /// Is it worth asking for pages again? True when no read is left, or a good part of those under
    /// way has arrived since it was last true. Whoever waits for hundreds of pages would otherwise
    /// look at all of them each time that one arrives.
    pub fn pages_arrived(&mut self) -> bool {
        let under_way = self.page_reads.len() - self.page_reads_free.len();
        if under_way > 0 && self.pages_arrived * PAGES_ARRIVED_PART < under_way {
            return false;
        }
        self.pages_arrived = 0;
        true
    }

    /// Starts reading a whole block; `None` if all slots or buffers are taken: try again later.
    ///
    /// # Panics
    ///
    /// Never: a pending write that is found has its buffer.
    pub fn block_read_start(&mut self, block: BlockRef) -> Option<BlockReadId> {
        let index = self.block_reads.iter().position(Option::is_none)?;
        let state = match self.pending_write(&block) {
            Some(write) if self.writes[write].is_repair => {
                let mut own = self.read_pool.try_acquire()?;
                let buffer = self.writes[write].buffer.as_ref().expect("found by its buffer");
                own.bytes_mut().copy_from_slice(buffer.bytes());
                BlockReadState::Ready(own)
            }
            Some(write) => {
                let buffer = self.writes[write].buffer.as_ref().expect("found by its buffer");
                BlockReadState::Ready(buffer.clone())
            }
            None => BlockReadState::Queued(self.read_pool.try_acquire()?),
        };
        self.block_reads[index] = Some(BlockRead { block, attempts: 0, state });
        let index = u32::try_from(index).expect("few block reads");
        Some(BlockReadId { index, block })
    }

    /// The whole block, verified, once it has been read. The buffer may be shared: only read it.
    ///
    /// # Panics
    ///
    /// If the read was not started, or was taken already.
    pub fn block_read_take(&mut self, id: BlockReadId) -> Fetch<Buffer> {
        let slot = &mut self.block_reads[to_index(id.index)];
        let read = slot.take().expect("a block read is taken once");
        assert!(read.block == id.block, "a block read is taken once");
        match read.state {
            BlockReadState::Ready(buffer) => Fetch::Ready(buffer),
            state => {
                *slot = Some(BlockRead { state, ..read });
                Fetch::Wait
            }
        }
    }

    /// Queues the write of a sealed block and keeps a reference until it is done. Returns the mark
    /// for [`Grid::written_below`].
    ///
    /// # Panics
    ///
    /// If the block is not what its reference says, its address was not acquired, or the queue is
    /// full, which its size rules out.
    pub fn write(&mut self, sealed: Buffer, block: BlockRef) -> u64 {
        assert!(self.free_set.is_acquired(block.address));
        assert!(sealed.size() == self.block_size);
        assert!(block::header(sealed.bytes()).checksum == block.checksum);
        assert!(self.writes.len() < self.writes_capacity, "as many writes as buffers");
        debug_assert!(block::verify(sealed.bytes(), &block).is_ok());
        let (state, attempts, is_repair) = (WriteState::Queued, 0, false);
        let buffer = Some(sealed);
        self.writes.push_back(PendingWrite { block, buffer, state, attempts, is_repair });
        self.write_mark()
    }

    /// A mark behind all writes queued so far.
    #[must_use]
    pub fn write_mark(&self) -> u64 {
        self.writes_first + count_of(self.writes.len())
    }

    /// Whether all writes queued before `mark` was taken are done (not: durable).
    #[must_use]
    pub fn written_below(&self, mark: u64) -> bool {
        self.writes_first >= mark
    }

    /// Asks for everything written so far to be made durable.
    ///
    /// # Panics
    ///
    /// If the sync before has not ended.
    pub fn sync_start(&mut self) {
        assert!(self.sync == SyncState::Idle);
        if !crate::mutated!("skip_sync") {
            self.sync = SyncState::Wanted;
        }
    }

    /// Whether the sync that was asked for has ended.
    #[must_use]
    pub fn sync_done(&self) -> bool {
        self.sync == SyncState::Idle
    }

    /// A zeroed buffer for a new block.
    ///
    /// # Panics
    ///
    /// If all are in use: check [`Grid::block_buffers_available`].
    pub fn block_buffer(&mut self) -> Buffer {
        let mut buffer = self.write_pool.acquire();
        buffer.fill_zero();
        buffer
    }

    /// Buffers for new blocks that are not in use.
    #[must_use]
    pub fn block_buffers_available(&self) -> u32 {
        self.write_pool.available()
    }

    /// Takes the lowest free address.
    ///
    /// # Panics
    ///
    /// If none is free: admission has checked that before.
    pub fn acquire(&mut self) -> u64 {
        self.free_set.acquire()
    }

    /// Gives an address back; it becomes free after the next checkpoint is durable.
    ///
    /// # Panics
    ///
    /// If it is not acquired.
    pub fn release(&mut self, address: u64) {
        self.free_set.release(address);
        self.forget_missing(address);
    }

    /// At a checkpoint, see [`FreeSet::stage_checkpoint`].
    pub fn stage_checkpoint(&mut self) {
        self.free_set.stage_checkpoint();
    }

    /// At a fixed op after a checkpoint, see [`FreeSet::release_staged`].
    pub fn release_staged(&mut self) {
        self.free_set.release_staged();
    }

    /// The states of all blocks.
    #[must_use]
    pub fn free_set(&self) -> &FreeSet {
        &self.free_set
    }

    /// Appends the states of all blocks.
    pub fn free_set_encode(&self, out: &mut Vec<u8>) {
        self.free_set.encode(out);
    }

    /// Replaces the states of all blocks; returns the bytes read.
    ///
    /// # Errors
    ///
    /// If the bytes are no free set of this grid.
    pub fn free_set_decode(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        self.free_set.decode(bytes)
    }

    /// Bytes that the data file needs for all blocks in use.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.zones.file_size(self.free_set.highest_acquired())
    }

    /// Moves wanted reads and queued writes to the outbox as far as limits and room go.
    pub fn pump(&mut self, outbox: &mut StorageOutbox) {
        self.pump_writes(outbox);
        self.pump_blocks(outbox);
        self.pump_pages(outbox);
        if self.sync == SyncState::Wanted && !outbox.disk.is_full() {
            self.sync = SyncState::InFlight;
            outbox.disk.push(DiskRequest {
                token: DiskToken { owner: DiskOwner::GridSync, index: 0 },
                kind: DiskKind::Sync,
                offset: 0,
                length: 0,
                buffer: None,
                buffer_offset: 0,
            });
        }
    }

    fn pump_pages(&mut self, outbox: &mut StorageOutbox) {
        while !outbox.disk.is_full() {
            let Some(index) = self.page_reads_wanted.pop() else { return };
            let read = self.page_reads[to_index(index)].expect("a wanted read is known");
            let start = self.zones.block_offset(read.block.address).expect("checked before");
            let offset = start + u64::from(read.sector) * u64::from(SECTOR_SIZE);
            let token = DiskToken { owner: DiskOwner::GridPage, index };
            outbox.disk.push(read_request(token, offset, self.page_pool.acquire()));
        }
    }

    fn pump_blocks(&mut self, outbox: &mut StorageOutbox) {
        let under_way = |read: &&BlockRead| matches!(read.state, BlockReadState::InFlight);
        let mut in_flight = self.block_reads.iter().flatten().filter(under_way).count();
        let limit = if outbox.is_log_busy { READS_BESIDE_LOG } else { self.block_reads.len() };
        for index in 0..self.block_reads.len() {
            if outbox.disk.is_full() {
                return;
            }
            let Some(mut read) = self.block_reads[index].take() else { continue };
            let ready = self.in_range(&read.block) && in_flight < limit;
            let number = u32::try_from(index).expect("few block reads");
            let token = DiskToken { owner: DiskOwner::GridBlock, index: number };
            read.state = match read.state {
                BlockReadState::Queued(buffer) if ready => {
                    let offset = self.zones.block_offset(read.block.address).expect("in range");
                    outbox.disk.push(read_request(token, offset, buffer));
                    in_flight += 1;
                    BlockReadState::InFlight
                }
                state => state,
            };
            self.block_reads[index] = Some(read);
        }
        self.pump_probes(outbox);
        if self.rescue_in_flight || outbox.disk.is_full() {
            return;
        }
        let Some(index) = self.rescues.front() else { return };
        let read = self.page_reads[to_index(*index)].expect("a rescue is for a known read");
        let offset = self.zones.block_offset(read.block.address).expect("checked before");
        let token = DiskToken { owner: DiskOwner::GridBlock, index: self.rescue_index() };
        outbox.disk.push(read_request(token, offset, self.rescue_pool.acquire()));
        self.rescue_in_flight = true;
    }

    fn pump_writes(&mut self, outbox: &mut StorageOutbox) {
        let mut limit = self.writes_in_flight_max;
        if outbox.is_log_busy {
            limit = limit.min(writes_beside_log(self.writes.len()));
        }
        let mut position = 0;
        while self.writes_in_flight < limit && !outbox.disk.is_full() {
            if position == self.writes_window {
                return;
            }
            let Some(write) = self.writes.get_mut(position) else { return };
            if write.state == WriteState::Queued {
                write.state = WriteState::InFlight;
                let number = self.writes_first + count_of(position);
                let index = number % count_of(self.writes_capacity);
                outbox.disk.push(DiskRequest {
                    token: DiskToken {
                        owner: DiskOwner::GridWrite,
                        index: u32::try_from(index).expect("below a 32-bit limit"),
                    },
                    kind: DiskKind::Write,
                    offset: self.zones.block_offset(write.block.address).expect("acquired"),
                    length: self.block_size,
                    buffer: write.buffer.clone(),
                    buffer_offset: 0,
                });
                self.writes_in_flight += 1;
            }
            position += 1;
        }
    }

    /// Takes the answer to a request with one of the grid's owners.
    ///
    /// # Panics
    ///
    /// If the request is not the grid's.
    pub fn on_disk_done(&mut self, done: DiskDone) {
        match done.request.token.owner {
            DiskOwner::GridPage => self.on_page_done(&done),
            DiskOwner::GridBlock => self.on_block_done(done),
            DiskOwner::GridWrite => self.on_write_done(done),
            DiskOwner::GridSync => {
                assert!(self.sync == SyncState::InFlight);
                match done.result {
                    Ok(()) => self.sync = SyncState::Idle,
                    Err(_) if crate::mutated!("retry_sync") => self.sync = SyncState::Wanted,
                    Err(error) => self.fail(&BlockRef::NONE, GridFaultKind::Sync(error)),
                }
            }
            owner => panic!("a request of {owner:?} is not the grid's"),
        }
    }

    fn on_page_done(&mut self, done: &DiskDone) {
        let index = done.request.token.index;
        let read = self.page_reads[to_index(index)].as_mut().expect("a read in flight is known");
        let buffer = done.request.buffer.as_ref().expect("a read has a buffer");
        let verified = done.result.is_ok()
            && block::verify_sector(buffer.bytes(), &read.block, read.sector).is_ok();
        if verified {
            let read = *read;
            self.counters.page_reads += 1;
            self.counters.bytes_read += u64::from(SECTOR_SIZE);
            self.page_arrived(index, &read, buffer.bytes());
            return;
        }
        read.attempts += 1;
        self.counters.retries += 1;
        if read.attempts < ATTEMPTS_MAX {
            self.page_reads_wanted.push(index);
        } else {
            self.rescues.push(index);
        }
    }

    pub(super) fn page_arrived(&mut self, index: u32, read: &PageRead, bytes: &[u8]) {
        let (address, sequence) = (read.block.address, read.block.sequence);
        self.cache.fill(read.slot, PageKey { address, sequence, sector: read.sector }, bytes);
        self.page_read_ended(index);
    }

    /// Gives up a page that nobody needs any more.
    pub(super) fn page_forgotten(&mut self, index: u32, read: &PageRead) {
        self.cache.forget(read.slot);
        self.page_read_ended(index);
    }

    fn page_read_ended(&mut self, index: u32) {
        let read = self.page_reads[to_index(index)].take().expect("a read that ends is known");
        self.missing_count -= usize::from(read.missing);
        self.page_reads_free.push(index);
        self.pages_arrived += 1;
    }

    /// Whether any page is being read.
    pub(super) fn reads_pages(&self) -> bool {
        self.page_reads_free.len() < self.page_reads.len()
    }

    fn on_block_done(&mut self, done: DiskDone) {
        let index = done.request.token.index;
        let buffer = done.request.buffer.expect("a read has a buffer");
        if index == self.rescue_index() {
            self.on_rescue_done(&buffer, done.result);
            return;
        }
        if let Some(probe) = index.checked_sub(self.rescue_index() + 1) {
            self.on_probe_done(to_index(probe), buffer, done.result);
            return;
        }
        let mut read =
            self.block_reads[to_index(index)].take().expect("a block read in flight is known");
        assert!(matches!(read.state, BlockReadState::InFlight));
        match verify_block(&buffer, done.result, &read.block) {
            Ok(()) => {
                self.counters.block_reads += 1;
                self.counters.bytes_read += u64::from(self.block_size);
                read.state = BlockReadState::Ready(buffer);
            }
            Err(kind) => {
                read.attempts += 1;
                self.counters.retries += 1;
                if read.attempts < ATTEMPTS_MAX {
                    read.state = BlockReadState::Queued(buffer);
                } else if self.has_peers {
                    crate::mark!("block_missing");
                    self.missing_count += 1;
                    read.state = BlockReadState::Missing(buffer);
                } else {
                    self.fail(&read.block, kind);
                }
            }
        }
        self.block_reads[to_index(index)] = Some(read);
    }

    fn on_rescue_done(&mut self, buffer: &Buffer, result: Result<(), DiskError>) {
        assert!(self.rescue_in_flight);
        self.rescue_in_flight = false;
        let index = self.rescues.pop().expect("a rescue in flight is queued");
        let read = self.page_reads[to_index(index)].expect("a rescue is for a known read");
        match verify_block(buffer, result, &read.block) {
            Ok(()) => {
                self.counters.block_reads += 1;
                self.counters.bytes_read += u64::from(self.block_size);
                let start = to_index(read.sector) * to_index(SECTOR_SIZE);
                let page = &buffer.bytes()[start..start + to_index(SECTOR_SIZE)];
                self.page_arrived(index, &read, page);
            }
            Err(_) if read.stale => self.page_forgotten(index, &read),
            Err(_) if self.has_peers => {
                crate::mark!("page_missing");
                self.missing_count += 1;
                self.page_reads[to_index(index)] = Some(PageRead { missing: true, ..read });
            }
            Err(kind) => self.fail(&read.block, kind),
        }
    }

    fn on_write_done(&mut self, done: DiskDone) {
        let capacity = count_of(self.writes_capacity);
        let index = u64::from(done.request.token.index);
        let position = (index + capacity - self.writes_first % capacity) % capacity;
        let write = self.writes.get_mut(index_of(position)).expect("a write in flight is queued");
        assert!(write.state == WriteState::InFlight);
        assert!(self.writes_in_flight > 0);
        self.writes_in_flight -= 1;
        drop(done.request.buffer);
        if let Err(error) = done.result {
            write.attempts += 1;
            self.counters.retries += 1;
            if write.attempts < ATTEMPTS_MAX {
                write.state = WriteState::Queued;
            } else {
                let block = write.block;
                self.fail(&block, GridFaultKind::Write(error));
            }
            return;
        }
        write.state = WriteState::Done;
        write.buffer = None;
        self.counters.block_writes += 1;
        self.counters.bytes_written += u64::from(self.block_size);
        while self.writes.front().is_some_and(|write| write.state == WriteState::Done) {
            self.writes.pop_front();
            self.writes_first += 1;
        }
    }

    /// Position of the write of this block, if its bytes are still in memory.
    pub(super) fn pending_write(&self, block: &BlockRef) -> Option<usize> {
        let wanted = |write: &PendingWrite| write.block == *block && write.buffer.is_some();
        self.writes.iter().position(wanted)
    }

    /// Token index of the one rescue read: behind those of the block reads.
    pub(super) fn rescue_index(&self) -> u32 {
        u32::try_from(self.block_reads.len()).expect("few block reads")
    }

    /// Whether the address can exist; a fault if not.
    pub(super) fn in_range(&mut self, block: &BlockRef) -> bool {
        let known = (1..=self.free_set.blocks_max()).contains(&block.address);
        if !known {
            self.fail(block, GridFaultKind::Address);
        }
        known
    }

    /// Remembers the first fault.
    fn fail(&mut self, block: &BlockRef, kind: GridFaultKind) {
        let start = self.zones.start(Zone::Grid);
        let offset = self.zones.block_offset(block.address).unwrap_or(start);
        let (address, sequence) = (block.address, block.sequence);
        let fault = GridFault { zone: Zone::Grid, offset, address, sequence, kind };
        self.fault.get_or_insert(fault);
    }
}

pub(super) fn read_request(token: DiskToken, offset: u64, buffer: Buffer) -> DiskRequest {
    let length = buffer.size();
    let kind = DiskKind::Read;
    DiskRequest { token, kind, offset, length, buffer: Some(buffer), buffer_offset: 0 }
}

pub(super) fn verify_block(
    buffer: &Buffer,
    result: Result<(), DiskError>,
    block: &BlockRef,
) -> Result<(), GridFaultKind> {
    result.map_err(GridFaultKind::Read)?;
    block::verify(buffer.bytes(), block).map_err(GridFaultKind::Block)
}

/// Blocks written at a time beside writes of the log, if so many are queued: the log's flush of the
/// disk waits for them too, so they are only as many as it takes to keep up.
fn writes_beside_log(queued: usize) -> u32 {
    1 + to_size(queued) / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::disk::MemoryDisk;
    use crate::storage::block::{BlockFacts, BlockKind};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    struct World {
        grid: Grid,
        disk: MemoryDisk,
        outbox: StorageOutbox,
        random: ChaCha8Rng,
        config: Config,
    }

    impl World {
        fn new(seed: u64, cache_pages: u64) -> World {
            World::reading(seed, cache_pages, 2)
        }

        fn reading(seed: u64, cache_pages: u64, block_reads_max: u32) -> World {
            let options = World::options(cache_pages, block_reads_max);
            World::with(seed, &options)
        }

        fn options(cache_pages: u64, block_reads_max: u32) -> GridOptions {
            GridOptions {
                cluster: 1,
                cache_bytes: cache_pages * 4096,
                blocks_max: 200,
                page_reads_max: 8,
                block_reads_max,
                read_buffers: 3,
                write_buffers: 6,
                writes_queued_max: 6,
                writes_in_flight_max: 2,
            }
        }

        fn with(seed: u64, options: &GridOptions) -> World {
            let config = Config::testing();
            let grid = Grid::new(&config, options);
            World {
                disk: MemoryDisk::new(Zones::new(&config).file_size(200)),
                grid,
                outbox: StorageOutbox::new(16, 1),
                random: ChaCha8Rng::seed_from_u64(seed),
                config,
            }
        }

        fn turn(&mut self) -> bool {
            self.grid.pump(&mut self.outbox);
            self.disk.submit_all(&mut self.outbox);
            match self.disk.complete_one(&mut self.random) {
                Some(done) => {
                    self.grid.on_disk_done(done);
                    true
                }
                None => false,
            }
        }

        fn settle(&mut self) {
            while self.turn() {}
        }

        fn write(&mut self, sequence: u64) -> BlockRef {
            while self.grid.block_buffers_available() == 0 {
                assert!(self.turn());
            }
            let mut buffer = self.grid.block_buffer();
            let address = self.grid.acquire();
            buffer.bytes_mut()[256..264].copy_from_slice(&address.to_le_bytes());
            buffer.bytes_mut()[4096..4104].copy_from_slice(&sequence.to_le_bytes());
            let kind = BlockKind::RunData;
            let (item_size, item_count) = (8, 512);
            let facts = BlockFacts { cluster: 1, address, sequence, kind, item_size, item_count };
            let block = block::seal(buffer.bytes_mut(), &facts);
            self.grid.write(buffer, block);
            block
        }

        fn page(&mut self, block: &BlockRef, sector: u32) -> u64 {
            for _ in 0..1000 {
                if let Fetch::Ready(page) = self.grid.page(block, sector) {
                    let start = if sector == 0 { 256 } else { 0 };
                    return u64::from_le_bytes(page[start..start + 8].try_into().unwrap());
                }
                assert!(self.grid.fault().is_none(), "{}", self.grid.fault().unwrap());
                self.turn();
            }
            panic!("no progress")
        }

        fn offset(&self, block: &BlockRef) -> u64 {
            Zones::new(&self.config).block_offset(block.address).unwrap()
        }

        fn until_fault(&mut self, block: &BlockRef, sector: u32) -> GridFault {
            for _ in 0..100 {
                assert!(self.grid.page(block, sector).is_wait());
                self.turn();
            }
            *self.grid.fault().unwrap()
        }
    }

    /// Goal: beside writes of the log blocks are written one by one, more at a time only if many
    /// wait, and all of them in the end.
    #[test]
    fn writes_leave_the_disk_to_the_log() {
        let mut world = World::new(3, 16);
        world.outbox.is_log_busy = true;
        for sequence in 0..4 {
            world.write(sequence);
        }
        world.grid.pump(&mut world.outbox);
        assert_eq!(world.outbox.disk.len(), 1);
        world.outbox.is_log_busy = false;
        world.grid.pump(&mut world.outbox);
        assert_eq!(world.outbox.disk.len(), 2, "as many as the options allow");
        world.outbox.is_log_busy = true;
        world.settle();
        assert!(world.grid.writes.is_empty());
        assert_eq!([0, 7, 8, 63].map(writes_beside_log), [1, 1, 2, 8]);
    }

    /// Goal: beside writes of the log few blocks are read at a time, the others afterwards.
    #[test]
    fn reads_leave_the_disk_to_the_log() {
        let mut world = World::reading(4, 16, 3);
        let blocks: Vec<_> = (0..3).map(|sequence| world.write(sequence)).collect();
        world.settle();
        world.outbox.is_log_busy = true;
        let reads = blocks.iter().map(|block| world.grid.block_read_start(*block).unwrap());
        let reads: Vec<_> = reads.collect();
        world.grid.pump(&mut world.outbox);
        assert_eq!(world.outbox.disk.len(), READS_BESIDE_LOG);
        world.grid.pump(&mut world.outbox);
        assert_eq!(world.outbox.disk.len(), READS_BESIDE_LOG, "they are under way");
        world.outbox.is_log_busy = false;
        world.grid.pump(&mut world.outbox);
        assert_eq!(world.outbox.disk.len(), 3);
        world.settle();
        for (read, block) in reads.into_iter().zip(&blocks) {
            let Fetch::Ready(buffer) = world.grid.block_read_take(read) else { panic!("no read") };
            assert!(block::verify(buffer.bytes(), block).is_ok());
        }
    }

    /// Goal: whatever the order of completion and the size of the cache, a page read is the page
    /// written, while the write is queued and afterwards.
    #[test]
    fn pages_come_back() {
        for seed in 0..20 {
            let mut world = World::new(seed, 16 + seed * 8);
            let mut blocks = Vec::new();
            for round in 0..600 {
                if blocks.len() < 100 && world.random.next_u64().is_multiple_of(4) {
                    let block = world.write(round);
                    blocks.push(block);
                }
                let Some(chosen) = world.random.next_u64().checked_rem(count_of(blocks.len()))
                else {
                    continue;
                };
                let block = blocks[index_of(chosen)];
                if world.random.next_u64().is_multiple_of(2) {
                    assert_eq!(world.page(&block, 0), block.address);
                } else {
                    assert_eq!(world.page(&block, 1), block.sequence);
                }
                if world.random.next_u64().is_multiple_of(3) {
                    world.turn();
                }
            }
            world.settle();
            let counters = world.grid.counters();
            assert_eq!(counters.block_writes, count_of(blocks.len()));
            assert!(counters.page_reads > 0);
            assert_eq!(counters.retries, 0);
            assert_eq!(world.grid.page_reads_free.len(), world.grid.page_reads.len());
        }
    }

    /// Goal: readers of many pages get on with the smallest cache, whatever number of reads is
    /// asked for: they don't evict what the others wait for.
    #[test]
    fn many_readers_of_a_tiny_cache() {
        const READERS: usize = 128;
        const STEPS: usize = 20;
        let options = GridOptions { page_reads_max: 256, ..World::options(0, 2) };
        let mut world = World::with(7, &options);
        let blocks: Vec<BlockRef> = (0..100).map(|sequence| world.write(sequence)).collect();
        world.settle();
        // As many readers as a batch has lookups. Each step needs two pages at once.
        let walks: Vec<Vec<[BlockRef; 2]>> = (0..READERS)
            .map(|_| {
                let count = count_of(blocks.len());
                let mut next = || blocks[index_of(world.random.next_u64() % count)];
                (0..STEPS).map(|_| [next(), next()]).collect()
            })
            .collect();
        let mut steps = vec![0; READERS];
        let before = world.grid.counters().page_reads;
        while steps.iter().any(|step| *step < STEPS) {
            for (walk, step) in walks.iter().zip(&mut steps) {
                while *step < STEPS
                    && walk[*step].iter().all(|block| !world.grid.page(block, 0).is_wait())
                {
                    *step += 1;
                }
            }
            while !world.grid.pages_arrived() {
                assert!(world.turn(), "a page is on its way");
            }
            let reads = world.grid.counters().page_reads - before;
            let needed = count_of(2 * READERS * STEPS);
            assert!(reads <= 2 * needed, "{reads} reads for {needed} pages: {steps:?}");
        }
    }

    /// Goal: marks are passed in order of queueing, a sync ends, buffers come back.
    #[test]
    fn marks_and_sync() {
        let mut world = World::new(3, 16);
        world.write(1);
        let mark = world.grid.write_mark();
        world.write(2);
        assert!(!world.grid.written_below(mark));
        world.settle();
        assert!(world.grid.written_below(world.grid.write_mark()));
        assert_eq!(world.grid.block_buffers_available(), 6);
        world.grid.sync_start();
        assert!(!world.grid.sync_done());
        world.settle();
        assert!(world.grid.sync_done());
        assert_eq!(world.disk.counters().syncs, 1);
    }

    /// Goal: whole blocks are read, shared with a pending write, and bounded.
    #[test]
    fn block_reads() {
        let mut world = World::new(4, 16);
        let first = world.write(1);
        let id = world.grid.block_read_start(first).unwrap();
        assert!(world.grid.block_read_take(id).is_ready());
        world.settle();
        let one = world.grid.block_read_start(first).unwrap();
        let two = world.grid.block_read_start(first).unwrap();
        assert!(world.grid.block_read_start(first).is_none());
        assert!(world.grid.block_read_take(one).is_wait());
        world.settle();
        let buffer = world.grid.block_read_take(two).ready().unwrap();
        assert_eq!(block::verify(buffer.bytes(), &first), Ok(()));
        assert!(world.grid.block_read_take(one).is_ready());
        assert!(world.grid.block_read_start(first).is_some());
    }

    /// Goal: a read or write that fails once is tried again; a page whose read fails twice is
    /// taken from the whole block.
    #[test]
    fn transient_failures() {
        let mut world = World::new(5, 16);
        let offset = Zones::new(&world.config).start(Zone::Grid);
        world.disk.fail(offset, 1);
        let block = world.write(1);
        world.settle();
        assert!(world.grid.fault().is_none());
        for failures in [1, 2, 3] {
            let mut fresh = World::new(5, 16);
            fresh.disk = world.disk.copy();
            fresh.disk.fail(offset + 4096, failures);
            if failures < 3 {
                assert_eq!(fresh.page(&block, 1), 1);
            } else {
                let fault = fresh.until_fault(&block, 1);
                assert!(matches!(fault.kind, GridFaultKind::Read(_)));
            }
        }
    }

    /// Goal: damage, a misdirected sector and a stale sector are faults that say where.
    #[test]
    fn damage_is_a_fault() {
        for case in 0..4 {
            let mut world = World::new(6, 16);
            let (one, two) = (world.write(1), world.write(1));
            world.settle();
            let offset = world.offset(&one);
            match case {
                0 => world.disk.corrupt(offset + 5000),
                1 => world.disk.misdirect(world.offset(&two) + 4096, offset + 4096),
                2 => world.disk.misdirect(offset, offset + 4096),
                _ => world.disk.misdirect(0, offset + 4096),
            }
            assert_eq!(world.page(&one, 0), one.address);
            let fault = world.until_fault(&one, 1);
            assert!(matches!(fault.kind, GridFaultKind::Block(BlockError::Body { .. })));
            assert_eq!((fault.address, fault.offset), (one.address, offset));
            let text = fault.to_string();
            assert!(text.starts_with("grid block 1 of op 1 at file offset "), "{text}");
            assert_eq!(world.page_after_fault(&two), two.address);
        }
    }

    impl World {
        fn page_after_fault(&mut self, block: &BlockRef) -> u64 {
            self.grid.fault = None;
            self.page(block, 0)
        }
    }

    /// Goal: references with impossible addresses are faults, not arithmetic.
    #[test]
    fn addresses_out_of_range() {
        for address in [0, 201, u64::MAX] {
            let mut world = World::new(7, 16);
            let block = BlockRef { address, sequence: 1, checksum: 1 };
            assert_eq!(world.until_fault(&block, 0).kind, GridFaultKind::Address);
            let mut world = World::new(7, 16);
            let id = world.grid.block_read_start(block).unwrap();
            world.settle();
            assert!(world.grid.block_read_take(id).is_wait());
            assert_eq!(world.grid.fault().unwrap().kind, GridFaultKind::Address);
        }
    }
}
