//! Blocks that are missing, repaired and served, on a disk in memory.

use super::*;
use crate::simulator::disk::MemoryDisk;
use crate::storage::block::{BlockFacts, BlockKind, seal};
use crate::storage::fetch::Fetch;
use crate::storage::{Config, GridOptions, Zones};

struct World {
    grid: Grid,
    disk: MemoryDisk,
    outbox: StorageOutbox,
    config: Config,
}

impl World {
    fn new(has_peers: bool) -> World {
        let config = Config::testing();
        let options = GridOptions {
            cluster: 7,
            cache_bytes: 1 << 20,
            blocks_max: 64,
            page_reads_max: 8,
            block_reads_max: 2,
            read_buffers: 2,
            write_buffers: 4,
            writes_queued_max: 8,
            writes_in_flight_max: 2,
        };
        let mut grid = Grid::new(&config, &options);
        if has_peers {
            grid.set_has_peers();
        }
        let disk = MemoryDisk::new(Zones::new(&config).file_size(64));
        World { grid, disk, outbox: StorageOutbox::new(64, 8), config }
    }

    /// Lets everything happen that was asked for.
    fn settle(&mut self) {
        loop {
            self.grid.pump(&mut self.outbox);
            while let Some(request) = self.outbox.disk.pop() {
                self.disk.submit(request);
            }
            let Some(done) = self.disk.complete_first() else { return };
            self.grid.on_disk_done(done);
        }
    }

    /// Writes a block; its reference and its bytes.
    fn write(&mut self, sequence: u64) -> (BlockRef, Vec<u8>) {
        let address = self.grid.acquire();
        let mut buffer = self.grid.block_buffer();
        let facts = BlockFacts {
            cluster: 7,
            address,
            sequence,
            kind: BlockKind::Checkpoint,
            item_size: 1,
            item_count: 1,
        };
        buffer.bytes_mut()[300] = 9;
        let block = seal(buffer.bytes_mut(), &facts);
        let bytes = buffer.bytes().to_vec();
        self.grid.write(buffer, block);
        self.settle();
        (block, bytes)
    }

    fn offset(&self, block: &BlockRef) -> u64 {
        Zones::new(&self.config).block_offset(block.address).unwrap()
    }

    fn missing(&self) -> Vec<BlockRef> {
        let mut wanted = [BlockRef::NONE; 8];
        let count = self.grid.missing(&mut wanted);
        assert_eq!(count > 0, self.grid.has_missing());
        wanted[..count].to_vec()
    }
}

/// Goal: a page, a whole block and a probe that cannot be read wait for the same copy, which
/// completes all three and is written where it belongs; a wrong copy changes nothing.
#[test]
fn one_copy_serves_all() {
    let mut world = World::new(true);
    let (block, bytes) = world.write(5);
    let offset = world.offset(&block);
    world.disk.corrupt(offset + 300);
    assert!(world.grid.page(&block, 0).is_wait());
    let read = world.grid.block_read_start(block).unwrap();
    assert!(world.grid.probe_start(SERVING, block));
    world.settle();
    assert_eq!(world.missing(), [block]);
    assert!(world.grid.fault().is_none());
    let mut wrong = bytes.clone();
    wrong[301] ^= 1;
    assert!(!world.grid.repair(&block, &wrong));
    assert!(!world.grid.repair(&BlockRef { sequence: 6, ..block }, &bytes));
    assert!(!world.grid.repair(&block, &bytes[1..]));
    assert_eq!(world.missing(), [block]);
    assert!(world.grid.repair(&block, &bytes));
    assert!(world.missing().is_empty());
    let page = world.grid.page(&block, 0).ready().unwrap();
    assert_eq!(page, &bytes[..4096]);
    let Fetch::Ready(buffer) = world.grid.block_read_take(read) else { panic!("repaired") };
    assert_eq!(buffer.bytes(), bytes);
    let probe = world.grid.probe_take(SERVING).unwrap().unwrap();
    assert_eq!(probe.bytes(), bytes);
    world.settle();
    assert_eq!(world.disk.read(offset, bytes.len()), bytes);
    assert!(!world.grid.repair(&block, &bytes), "it is not missing any more");
}

/// Goal: what is released while it is missing is wanted no more, so that no late copy is written
/// over what comes to lie at its address.
#[test]
fn released_blocks_are_not_repaired() {
    let mut world = World::new(true);
    let (block, bytes) = world.write(5);
    let offset = world.offset(&block);
    world.disk.corrupt(offset + 300);
    assert!(world.grid.page(&block, 0).is_wait());
    assert!(world.grid.probe_start(SERVING + 1, block));
    world.settle();
    assert_eq!(world.missing(), [block]);
    world.grid.release(block.address);
    assert!(world.missing().is_empty());
    assert!(!world.grid.repair(&block, &bytes));
    assert!(world.grid.probe_take(SERVING + 1).unwrap().is_none());
    // Its reads are free again.
    let others: Vec<_> = (0..4).map(|sequence| world.write(10 + sequence).0).collect();
    for other in &others {
        assert!(world.grid.page(other, 0).is_wait());
    }
    world.settle();
    assert!(others.iter().all(|other| world.grid.page(other, 0).is_ready()));
}

/// Goal: a peer gets nothing but an intact block; without peers damage is a fault.
#[test]
fn serving_and_alone() {
    let mut world = World::new(true);
    let (block, bytes) = world.write(5);
    assert!(world.grid.probe_start(0, block));
    assert!(!world.grid.probe_start(0, block), "the place is taken");
    assert!(world.grid.probe_take(0).is_none());
    world.settle();
    assert_eq!(world.grid.probe_take(0).unwrap().unwrap().bytes(), bytes);
    for wrong in [BlockRef { checksum: 4, ..block }, BlockRef { address: 1000, ..block }] {
        assert!(world.grid.probe_start(0, wrong));
        world.settle();
        assert!(world.grid.probe_take(0).unwrap().is_none());
    }
    assert!(world.missing().is_empty());

    let mut alone = World::new(false);
    let (block, _) = alone.write(5);
    let offset = alone.offset(&block);
    alone.disk.corrupt(offset + 300);
    assert!(alone.grid.page(&block, 0).is_wait());
    alone.settle();
    assert!(alone.grid.fault().is_some());
}

/// Goal: whoever reads a block whose copy is still being written does not keep one of the few
/// buffers for copies: otherwise a merge that waits for another block would stop all repair.
#[test]
fn readers_do_not_hold_copies() {
    let mut world = World::new(true);
    let blocks: Vec<_> = (0..6).map(|sequence| world.write(sequence)).collect();
    let offset = world.offset(&blocks[0].0);
    world.disk.corrupt(offset + 300);
    assert!(world.grid.probe_start(SERVING, blocks[0].0));
    world.settle();
    assert!(world.grid.repair(&blocks[0].0, &blocks[0].1));
    // Not settled: the copy waits to be written, and is read from memory.
    let read = world.grid.block_read_start(blocks[0].0).unwrap();
    let Fetch::Ready(held) = world.grid.block_read_take(read) else { panic!("in memory") };
    assert!(world.grid.probe_start(SERVING + 1, blocks[0].0));
    let probe = world.grid.probe_take(SERVING + 1).unwrap().unwrap();
    world.settle();
    assert_eq!(held.bytes(), probe.bytes());
    assert_eq!(world.grid.repair_pool.available(), REPAIR_BUFFERS);
}
