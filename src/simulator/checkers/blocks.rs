//! Blocks: everybody writes the same bytes at one address for one op, nobody sends a block that is
//! not intact, and what is in use at rest is what was written.
//!
//! Replicas that executed the same ops have the same grid. That is checked of every block that is
//! written, at any time, so that nothing depends on who is compared with whom at the end. Not
//! covered: which blocks must be there: see [`references`](super::references).

use std::collections::{BTreeMap, BTreeSet};

use super::Failure;
use crate::protocol::Header;
use crate::require;
use crate::simulator::disk::MemoryDisk;
use crate::storage::store::Store;
use crate::storage::{BlockRef, Config, DiskRequest, Zones, block, index_of};

/// All blocks that were ever written: by address and op, with the checksum.
#[derive(Debug)]
pub struct Blocks {
    zones: Zones,
    block_size: u32,
    written: BTreeMap<(u64, u64), u128>,
}

impl Blocks {
    /// None yet.
    #[must_use]
    pub fn new(config: &Config) -> Blocks {
        let (zones, block_size) = (Zones::new(config), config.block_size);
        Blocks { zones, block_size, written: BTreeMap::new() }
    }

    /// Notes a block that a replica wants written.
    ///
    /// # Errors
    ///
    /// If it is not intact, does not belong there, or another replica wrote something else.
    ///
    /// # Panics
    ///
    /// If the request is no write.
    pub fn writes(&mut self, replica: usize, request: &DiskRequest) -> Result<(), Failure> {
        let buffer = request.buffer.as_ref().expect("a write has a buffer");
        let bytes = buffer.bytes();
        let block = reference(bytes);
        let (address, sequence) = (block.address, block.sequence);
        require!(
            self.zones.block_offset(address) == Some(request.offset),
            "replica {replica} writes block {address} at offset {}",
            request.offset
        );
        let intact = block::verify(bytes, &block);
        require!(
            intact.is_ok(),
            "replica {replica} writes block {address} of op {sequence}, which is not intact: \
             {intact:?}"
        );
        let known = *self.written.entry((address, sequence)).or_insert(block.checksum);
        require!(
            known == block.checksum,
            "replica {replica} writes block {address} of op {sequence} as {:#x}, others as \
             {known:#x}",
            block.checksum
        );
        Ok(())
    }

    /// Forgets blocks of ops after `op`: who wrote them had executed ahead of its log, alone, and
    /// is gone. Other ops may come in their place.
    pub fn forget_after(&mut self, op: u64) {
        self.written.retain(|(_, sequence), _| *sequence <= op);
    }

    /// Checks a block that a replica sends to another.
    ///
    /// # Errors
    ///
    /// If it is not what it is said to be, or nobody ever wrote it.
    pub fn sends(&self, replica: usize, header: &Header, body: &[u8]) -> Result<(), Failure> {
        let peer = header.peer();
        let block = BlockRef { address: peer.address, sequence: peer.op, checksum: peer.context };
        let (address, sequence) = (block.address, block.sequence);
        if body.is_empty() {
            // It says that it does not have it.
            return Ok(());
        }
        require!(
            body.len() == crate::protocol::to_index(self.block_size),
            "replica {replica} sends {} bytes as block {address} of op {sequence}",
            body.len()
        );
        let intact = block::verify(body, &block);
        require!(
            intact.is_ok(),
            "replica {replica} sends block {address} of op {sequence}, which is not intact: \
             {intact:?}"
        );
        let known = self.written.get(&(address, sequence));
        require!(
            known == Some(&block.checksum),
            "replica {replica} sends block {address} of op {sequence}, which nobody wrote"
        );
        Ok(())
    }

    /// Checks that damage is left on a disk only where nothing is in use.
    ///
    /// # Errors
    ///
    /// The first block in use that is damaged.
    ///
    /// # Panics
    ///
    /// If an address is out of range.
    pub fn rest(
        &self,
        replica: usize,
        disk: &MemoryDisk,
        in_use: impl Iterator<Item = u64>,
    ) -> Result<(), Failure> {
        let size = u64::from(self.block_size);
        for address in in_use {
            let offset = self.zones.block_offset(address).expect("a block in use");
            if !disk.is_damaged(offset, size) {
                continue;
            }
            let written = self.written.range((address, 0)..=(address, u64::MAX)).next_back();
            let Some(((_, sequence), checksum)) = written else { continue };
            let block = BlockRef { address, sequence: *sequence, checksum: *checksum };
            let found = block::verify(&disk.read(offset, index_of(size)), &block);
            require!(
                found.is_ok(),
                "replica {replica}: block {address} of op {sequence} is in use and damaged at \
                 rest: {found:?}"
            );
        }
        Ok(())
    }
}

/// Addresses in use. What scheduled work has written is not, before its deadline: only then the
/// scrub looks after it.
pub fn in_use(store: &Store) -> impl Iterator<Item = u64> {
    let free_set = store.grid().free_set();
    let reserved: BTreeSet<u64> = store.reserved().collect();
    (1..=free_set.highest_acquired())
        .filter(|address| free_set.is_acquired(*address))
        .filter(move |address| !reserved.contains(address))
}

/// What a block says of itself.
fn reference(bytes: &[u8]) -> BlockRef {
    let header = block::header(bytes);
    let (address, sequence) = (header.address, header.sequence);
    BlockRef { address, sequence, checksum: header.checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Pool;
    use crate::storage::block::{BlockFacts, BlockKind};
    use crate::storage::{DiskKind, DiskOwner, DiskToken};

    fn request(pool: &Pool, zones: &Zones, address: u64, mark: u8) -> DiskRequest {
        let mut buffer = pool.acquire();
        buffer.bytes_mut().fill(0);
        buffer.bytes_mut()[300] = mark;
        let facts = BlockFacts {
            cluster: 1,
            address,
            sequence: 7,
            kind: BlockKind::RunData,
            item_size: 8,
            item_count: 9,
        };
        block::seal(buffer.bytes_mut(), &facts);
        DiskRequest {
            token: DiskToken { owner: DiskOwner::GridWrite, index: 0 },
            kind: DiskKind::Write,
            offset: zones.block_offset(address).unwrap(),
            length: buffer.size(),
            buffer: Some(buffer),
            buffer_offset: 0,
        }
    }

    /// Goal: the same block may be written by all, another one, a damaged one or one in the wrong
    /// place by nobody.
    #[test]
    fn writes() {
        let config = Config::testing();
        let zones = Zones::new(&config);
        let pool = Pool::new("test", 4, config.block_size);
        let mut blocks = Blocks::new(&config);
        let first = request(&pool, &zones, 3, 1);
        assert_eq!(blocks.writes(0, &first), Ok(()));
        assert_eq!(blocks.writes(1, &first), Ok(()));
        assert!(blocks.writes(1, &request(&pool, &zones, 3, 2)).is_err());
        blocks.forget_after(7);
        assert!(blocks.writes(1, &request(&pool, &zones, 3, 2)).is_err());
        blocks.forget_after(6);
        assert_eq!(blocks.writes(1, &request(&pool, &zones, 3, 2)), Ok(()));
        let mut misplaced = request(&pool, &zones, 4, 1);
        misplaced.offset += u64::from(config.block_size);
        assert!(blocks.writes(0, &misplaced).is_err());
        let mut damaged = request(&pool, &zones, 4, 1);
        damaged.buffer.as_mut().unwrap().bytes_mut()[5000] ^= 1;
        assert!(blocks.writes(0, &damaged).is_err());
    }

    /// Goal: damage in use is told, damage elsewhere and marks without damage are not.
    #[test]
    fn rest() {
        let config = Config::testing();
        let zones = Zones::new(&config);
        let pool = Pool::new("test", 1, config.block_size);
        let mut disk = MemoryDisk::new(zones.file_size(9));
        let mut blocks = Blocks::new(&config);
        let write = request(&pool, &zones, 3, 1);
        blocks.writes(0, &write).unwrap();
        let offset = write.offset;
        let id = disk.submit(write);
        disk.complete_lost(id).unwrap();
        assert!(blocks.rest(0, &disk, [3].into_iter()).is_err());
        assert_eq!(blocks.rest(0, &disk, [2, 4].into_iter()), Ok(()));
        let id = disk.submit(request(&pool, &zones, 3, 1));
        disk.complete(id).unwrap();
        let id = disk.submit(request(&pool, &zones, 3, 1));
        disk.complete_lost(id).unwrap();
        assert!(disk.is_damaged(offset, 4096) && disk.is_stale(offset, 4096));
        assert_eq!(blocks.rest(0, &disk, [3].into_iter()), Ok(()));
    }
}
