//! The checkpoint's blob: everything that a root must name, in blocks of its own.
//!
//! A checkpoint is made of the tail blocks of the logs and of one *blob*: the state of the layers
//! above (ledger, sessions, newest replies), then the logs, the tables' manifests and the free set.
//! The blob is cut into blocks, an index block names them, and a [`CheckpointRoot`] in the
//! superblock names the index block. Blocks of the blob are written a few at a time, while later
//! ops commit.
//!
//! Sketch: 64 replies of 1 MiB at the most, a free set of 1 bit per 512 KiB, a manifest of a few
//! hundred runs. Typically 1 to 10 MiB per 768 ops, against 768 MiB of log: about one percent.
//!
//! Not covered: what the parts hold (each encodes itself), and when a checkpoint is due.

use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::block::{self, BlockFacts, BlockKind, BlockRef};
use super::decode::{DecodeError, require};
use super::fetch::Fetch;
use super::grid::{BlockReadId, Grid};
use super::packing::{Packing, SECTOR_ITEMS_END};
use super::{count_of, index_of};
use crate::protocol::Buffer;
use crate::ready;

/// What the superblock keeps of a checkpoint, 96 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CheckpointRoot {
    /// The block that names the blob's blocks.
    pub index: BlockRef,
    /// Bytes of the blob.
    pub blob_size: u64,
    /// Blocks of the blob, without the index.
    pub blob_blocks: u64,
    /// Op after which the checkpoint was taken.
    pub op: u64,
    /// Rows of the event log at that op, for people who look at a superblock.
    pub event_rows: u64,
    /// Rows of the account log at that op.
    pub account_rows: u64,
    /// Highest block address in use, which gives the file's size.
    pub address_max: u64,
    /// Zero.
    pub reserved: [u64; 2],
}
const_assert_eq!(size_of::<CheckpointRoot>(), 96);

impl CheckpointRoot {
    /// The root of an empty data file, before the first checkpoint.
    pub const EMPTY: Self = Self {
        index: BlockRef { address: 0, sequence: 0, checksum: 0 },
        blob_size: 0,
        blob_blocks: 0,
        op: 0,
        event_rows: 0,
        account_rows: 0,
        address_max: 0,
        reserved: [0; 2],
    };

    /// Does it name no checkpoint at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.address == 0
    }
}

/// Writes of the blob that are queued in the grid at any time: bounds the buffers it holds, and the
/// share of the disk it takes from the write-ahead log.
pub(super) const BLOB_WRITES_MAX: usize = 4;

/// Writes one blob, a few blocks at a time.
#[derive(Debug)]
pub(super) struct BlobWriter {
    blob: Vec<u8>,
    addresses: Vec<u64>,
    references: Vec<BlockRef>,
    bytes_packing: Packing,
    references_packing: Packing,
    cluster: u128,
    sequence: u64,
    index: BlockRef,
    /// References at which the next few blocks must wait for those before.
    batch_end: usize,
    mark: u64,
}

impl BlobWriter {
    pub(super) fn new(cluster: u128, block_size: u32, capacity: usize) -> Self {
        let bytes_packing = Packing::new(1, block_size);
        let blocks_max = index_of(Self::blocks_max_of(block_size, count_of(capacity)));
        let references_packing = Packing::new(32, block_size);
        assert!(
            Self::fits(block_size, count_of(capacity)),
            "one index block names every block of the largest blob"
        );
        Self {
            blob: Vec::with_capacity(capacity),
            addresses: Vec::with_capacity(blocks_max),
            references: Vec::with_capacity(blocks_max),
            bytes_packing,
            references_packing,
            cluster,
            sequence: 0,
            index: BlockRef::NONE,
            batch_end: 0,
            mark: 0,
        }
    }

    /// Bytes that a writer of blobs of up to `capacity` bytes occupies.
    pub(super) fn memory_bytes(block_size: u32, capacity: u64) -> u64 {
        let blocks = Self::blocks_max_of(block_size, capacity);
        capacity + blocks * (8 + count_of(size_of::<BlockRef>()))
    }

    /// Blocks of a blob of `capacity` bytes at most, its index included.
    pub(super) fn blocks_max_of(block_size: u32, capacity: u64) -> u64 {
        capacity / Packing::new(1, block_size).per_block() + 2
    }

    /// Whether one index block names every block of a blob of `capacity` bytes.
    pub(super) fn fits(block_size: u32, capacity: u64) -> bool {
        Self::blocks_max_of(block_size, capacity) <= Packing::new(32, block_size).per_block()
    }

    /// Blocks of the largest blob, its index included.
    pub(super) fn blocks_max(&self) -> u64 {
        count_of(self.addresses.capacity())
    }

    /// Empties the blob for a new checkpoint and gives it out to be filled.
    pub(super) fn blob_mut(&mut self) -> &mut Vec<u8> {
        &mut self.blob
    }

    pub(super) fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Block number `block` of the blob that was written or read last, and behind those its index.
    pub(super) fn block(&self, block: usize) -> Option<BlockRef> {
        if block == self.references.len() {
            return Some(self.index).filter(|index| !index.is_none());
        }
        self.references.get(block).copied()
    }

    /// Blocks that `size` bytes need.
    pub(super) fn blocks_for(&self, size: u64) -> u64 {
        size.div_ceil(self.bytes_packing.per_block())
    }

    /// Takes the addresses of the blob's blocks and of its index, in that order.
    pub(super) fn acquire(&mut self, grid: &mut Grid, blocks: u64) {
        self.addresses.clear();
        assert!(index_of(blocks) < self.addresses.capacity(), "the blob has at most its capacity");
        for _ in 0..=blocks {
            self.addresses.push(grid.acquire());
        }
    }

    /// Gives the blocks of the previous checkpoint's blob back.
    pub(super) fn release(&mut self, grid: &mut Grid) {
        for address in self.addresses.drain(..) {
            grid.release(address);
        }
    }

    /// The blob is complete: writing may start. The addresses must have been acquired.
    pub(super) fn start(&mut self, sequence: u64) {
        assert!(self.blocks_for(count_of(self.blob.len())) < count_of(self.addresses.len()));
        self.sequence = sequence;
        self.references.clear();
        self.index = BlockRef::NONE;
        self.batch_end = 0;
        self.mark = 0;
    }

    /// Queues the next blocks, as far as the bound allows. Ready with the index block's reference
    /// and the number of blocks, once every block of the blob was handed to the grid.
    pub(super) fn step(&mut self, grid: &mut Grid) -> Fetch<(BlockRef, u64)> {
        let blocks = self.addresses.len() - 1;
        while self.references.len() < blocks {
            if self.references.len() == self.batch_end {
                if !grid.written_below(self.mark) {
                    return Fetch::Wait;
                }
                self.batch_end = self.references.len() + BLOB_WRITES_MAX;
            }
            let reference = self.write_data_block(grid, self.references.len());
            self.references.push(reference);
            self.mark = grid.write_mark();
        }
        if self.index.address == 0 {
            self.index = self.write_index_block(grid);
        }
        Fetch::Ready((self.index, count_of(blocks)))
    }

    fn write_data_block(&self, grid: &mut Grid, block_index: usize) -> BlockRef {
        let per_block = index_of(self.bytes_packing.per_block());
        let start = (block_index * per_block).min(self.blob.len());
        let end = (start + per_block).min(self.blob.len());
        let mut buffer = grid.block_buffer();
        copy_in(&self.bytes_packing, buffer.bytes_mut(), &self.blob[start..end]);
        let reference = block::seal(
            buffer.bytes_mut(),
            &BlockFacts {
                cluster: self.cluster,
                address: self.addresses[block_index],
                sequence: self.sequence,
                kind: BlockKind::Checkpoint,
                item_size: 1,
                item_count: u32::try_from(end - start).expect("a block has less than 4 GiB"),
            },
        );
        grid.write(buffer, reference);
        reference
    }

    fn write_index_block(&self, grid: &mut Grid) -> BlockRef {
        let mut buffer = grid.block_buffer();
        for (item, reference) in self.references.iter().enumerate() {
            let at = self.references_packing.offset_in_block(count_of(item));
            buffer.bytes_mut()[at..at + 32].copy_from_slice(reference.as_bytes());
        }
        let references = u32::try_from(self.references.len()).expect("bounded by the capacity");
        let reference = block::seal(
            buffer.bytes_mut(),
            &BlockFacts {
                cluster: self.cluster,
                address: *self.addresses.last().expect("the last address is the index's"),
                sequence: self.sequence,
                kind: BlockKind::CheckpointRoot,
                item_size: 32,
                item_count: references,
            },
        );
        grid.write(buffer, reference);
        reference
    }
}

/// Copies a contiguous stretch of the blob into the sectors of a block.
fn copy_in(packing: &Packing, block: &mut [u8], bytes: &[u8]) {
    let mut item = 0;
    while item < bytes.len() {
        let (at, length) = run_at(packing, item, bytes.len());
        block[at..at + length].copy_from_slice(&bytes[item..item + length]);
        item += length;
    }
}

/// Appends `length` bytes of the blob that lie in a block.
fn copy_out(packing: &Packing, block: &[u8], length: usize, blob: &mut Vec<u8>) {
    let mut item = 0;
    while item < length {
        let (at, run) = run_at(packing, item, length);
        blob.extend_from_slice(&block[at..at + run]);
        item += run;
    }
}

/// Appends the part of a blob of `size` bytes that a verified block holds to the parts before it.
///
/// # Panics
///
/// If `block` is shorter than `block_size`.
pub fn append_part(block_size: u32, block: &[u8], size: u64, blob: &mut Vec<u8>) {
    let packing = Packing::new(1, block_size);
    let left = size.saturating_sub(count_of(blob.len()));
    copy_out(&packing, block, index_of(left.min(packing.per_block())), blob);
}

/// Where byte `item` of a block's payload lies, and how many follow it without a gap.
fn run_at(packing: &Packing, item: usize, end: usize) -> (usize, usize) {
    let location = packing.locate(count_of(item));
    assert!(location.block == 0, "a payload byte of this block");
    let sector_end = index_of(SECTOR_ITEMS_END.into());
    let offset = index_of(location.offset.into());
    let at = index_of(location.sector.into()) * 4096 + offset;
    (at, (sector_end - offset).min(end - item))
}

/// Reads a blob back when a data file is opened.
#[derive(Debug)]
pub(super) struct BlobReader {
    root: CheckpointRoot,
    reading: Option<BlockReadId>,
}

impl BlobReader {
    /// # Errors
    /// When the root names more than there is room for, or its sizes don't agree.
    pub(super) fn new(root: CheckpointRoot, writer: &mut BlobWriter) -> Result<Self, DecodeError> {
        let (size, blocks) = (root.blob_size, root.blob_blocks);
        let fits = size <= count_of(writer.blob.capacity());
        require(fits, "size of the checkpoint's blob", size, "within the room for it")?;
        let enough = blocks >= writer.blocks_for(size) && blocks < writer.blocks_max();
        require(enough, "blocks of the checkpoint's blob", blocks, "what its size needs")?;
        writer.blob.clear();
        writer.references.clear();
        writer.addresses.clear();
        writer.index = root.index;
        Ok(Self { root, reading: None })
    }

    /// Reads the index, then block after block into the writer's blob.
    ///
    /// # Errors
    /// When the index names other blocks than the root says.
    pub(super) fn step(
        &mut self,
        grid: &mut Grid,
        writer: &mut BlobWriter,
    ) -> Fetch<Result<(), DecodeError>> {
        if writer.references.is_empty() {
            let buffer = ready!(self.read(grid, self.root.index));
            let found = u64::from(block::header(buffer.bytes()).item_count);
            let agree = found == self.root.blob_blocks && found > 0;
            if let Err(error) = require(agree, "blocks in the index", found, "as in the root") {
                return Fetch::Ready(Err(error));
            }
            for item in 0..self.root.blob_blocks {
                let at = writer.references_packing.offset_in_block(item);
                let bytes = &buffer.bytes()[at..at + 32];
                let reference = BlockRef::read_from_bytes(bytes).expect("32 bytes are a reference");
                writer.references.push(reference);
            }
        }
        while writer.addresses.len() < writer.references.len() {
            let block_index = writer.addresses.len();
            let reference = writer.references[block_index];
            let buffer = ready!(self.read(grid, reference));
            let block_size = writer.bytes_packing.block_size();
            append_part(block_size, buffer.bytes(), self.root.blob_size, &mut writer.blob);
            writer.addresses.push(reference.address);
        }
        assert!(count_of(writer.blob.len()) == self.root.blob_size, "every byte was read");
        writer.addresses.push(self.root.index.address);
        Fetch::Ready(Ok(()))
    }

    fn read(&mut self, grid: &mut Grid, block: BlockRef) -> Fetch<Buffer> {
        if self.reading.is_none() {
            self.reading = grid.block_read_start(block);
        }
        let Some(id) = self.reading else { return Fetch::Wait };
        let buffer = ready!(grid.block_read_take(id));
        self.reading = None;
        Fetch::Ready(buffer)
    }
}
