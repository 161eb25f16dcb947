//! Blocks that cannot be read here and come from a peer; and reads on behalf of others.
//!
//! A read that fails for good waits as *missing*. Whoever talks to peers asks for what
//! [`Grid::missing`] lists and gives their copies to [`Grid::repair`], which verifies them against
//! the reference that was wanted, completes the reads and writes the block where it belongs. All
//! grids have the same bytes at the same address, so any peer's copy will do. A block that is
//! released while it is missing is wanted no more: its address may soon hold another one.
//!
//! *Probes* read whole blocks beside the store's own reads: to serve peers, which get nothing if
//! the block is not intact here, and to look after blocks that nobody reads, which are repaired.

use super::block::{self, BlockRef};
use super::disk::{DiskError, DiskOwner, DiskToken, StorageOutbox};
use super::grid::{BlockReadState, Grid, PendingWrite, WriteState, read_request, verify_block};
use crate::protocol::{Buffer, SECTOR_SIZE, to_index};

/// Probes that serve peers: the first ones.
pub const SERVING: usize = 2;
/// Probes that look after blocks: those behind them.
pub const WALKING: usize = 4;
/// All probes.
pub const PROBES: usize = SERVING + WALKING;
/// Blocks from peers that are being written at a time.
pub const REPAIR_BUFFERS: u32 = 4;

#[derive(Debug)]
enum ProbeState {
    Idle,
    Queued(Buffer),
    InFlight,
    /// Waits for a copy from a peer.
    Missing(Buffer),
    Ready(Buffer),
    /// Not to be had.
    Lost,
}

/// A read of a whole block on behalf of others.
#[derive(Debug)]
pub struct Probe {
    block: BlockRef,
    state: ProbeState,
    /// The block was released since.
    stale: bool,
}

impl Probe {
    /// Reads nothing.
    pub const IDLE: Probe = Probe { block: BlockRef::NONE, state: ProbeState::Idle, stale: false };
}

impl Grid {
    /// From now on blocks that cannot be read are had from peers.
    pub fn set_has_peers(&mut self) {
        self.has_peers = true;
    }

    /// Starts to read a block in a place of its own, if that is free.
    ///
    /// # Panics
    ///
    /// If there is no such place.
    pub fn probe_start(&mut self, place: usize, block: BlockRef) -> bool {
        if !matches!(self.probes[place].state, ProbeState::Idle) {
            return false;
        }
        let known = (1..=self.free_set().blocks_max()).contains(&block.address);
        let state = match self.pending_write(&block) {
            _ if !known => ProbeState::Lost,
            Some(write) => {
                let buffer = self.writes[write].buffer.as_ref().expect("found by its buffer");
                let mut own = self.probe_pool.acquire();
                own.bytes_mut().copy_from_slice(buffer.bytes());
                ProbeState::Ready(own)
            }
            None => ProbeState::Queued(self.probe_pool.acquire()),
        };
        self.probes[place] = Probe { block, state, stale: false };
        true
    }

    /// Whether nothing is read in this place.
    #[must_use]
    pub fn probe_is_idle(&self, place: usize) -> bool {
        matches!(self.probes[place].state, ProbeState::Idle)
    }

    /// The block that was read in this place, or none if it is not to be had; nothing while it is
    /// being read or waits for a peer.
    pub fn probe_take(&mut self, place: usize) -> Option<Option<Buffer>> {
        let probe = &mut self.probes[place];
        match std::mem::replace(&mut probe.state, ProbeState::Idle) {
            ProbeState::Ready(buffer) => Some(Some(buffer)),
            ProbeState::Lost => Some(None),
            state => {
                probe.state = state;
                None
            }
        }
    }

    pub(super) fn pump_probes(&mut self, outbox: &mut StorageOutbox) {
        let first = self.rescue_index() + 1;
        for (index, probe) in (first..).zip(&mut self.probes) {
            if outbox.disk.is_full() {
                return;
            }
            probe.state = match std::mem::replace(&mut probe.state, ProbeState::Idle) {
                ProbeState::Queued(buffer) => {
                    let offset = self.zones.block_offset(probe.block.address);
                    let offset = offset.expect("the address is in range");
                    let token = DiskToken { owner: DiskOwner::GridBlock, index };
                    outbox.disk.push(read_request(token, offset, buffer));
                    ProbeState::InFlight
                }
                state => state,
            };
        }
    }

    pub(super) fn on_probe_done(
        &mut self,
        place: usize,
        buffer: Buffer,
        result: Result<(), DiskError>,
    ) {
        let probe = &mut self.probes[place];
        assert!(matches!(probe.state, ProbeState::InFlight));
        let believed = place < SERVING && crate::mutated!("serve_unverified");
        let intact = believed || verify_block(&buffer, result, &probe.block).is_ok();
        probe.state = if intact {
            ProbeState::Ready(buffer)
        } else if place >= SERVING && self.has_peers && !probe.stale {
            crate::mark!("probe_missing");
            self.missing_count += 1;
            ProbeState::Missing(buffer)
        } else {
            ProbeState::Lost
        };
    }

    /// Whether blocks are wanted from peers.
    #[must_use]
    pub fn has_missing(&self) -> bool {
        self.missing_count > 0
    }

    /// Blocks that are wanted from peers: fills `wanted` as far as there are any, and returns how
    /// many.
    pub fn missing(&self, wanted: &mut [BlockRef]) -> usize {
        let pages = self.page_reads.iter().flatten();
        let pages = pages.filter(|read| read.missing).map(|read| read.block);
        let blocks = self.block_reads.iter().flatten();
        let blocks = blocks.filter(|read| matches!(read.state, BlockReadState::Missing(_)));
        let probes = self.probes.iter();
        let probes = probes.filter(|probe| matches!(probe.state, ProbeState::Missing(_)));
        let all = blocks.map(|read| read.block).chain(pages).chain(probes.map(|it| it.block));
        let mut count = 0;
        for block in all {
            if count == wanted.len() {
                break;
            }
            if !wanted[..count].contains(&block) {
                wanted[count] = block;
                count += 1;
            }
        }
        count
    }

    fn is_missing(&self, block: &BlockRef) -> bool {
        let pages = self.page_reads.iter().flatten();
        let blocks = self.block_reads.iter().flatten();
        pages.filter(|read| read.missing).any(|read| read.block == *block)
            || blocks
                .filter(|read| matches!(read.state, BlockReadState::Missing(_)))
                .any(|read| read.block == *block)
            || self
                .probes
                .iter()
                .filter(|probe| matches!(probe.state, ProbeState::Missing(_)))
                .any(|probe| probe.block == *block)
    }

    /// Takes a peer's copy of a block; whether it was one that is wanted, and intact.
    ///
    /// # Panics
    ///
    /// Never: the queue of writes has room for all repairs.
    pub fn repair(&mut self, block: &BlockRef, bytes: &[u8]) -> bool {
        if bytes.len() != to_index(self.block_size) || !self.is_missing(block) {
            return false;
        }
        // All are being written: it will be asked for again.
        let Some(mut buffer) = self.repair_pool.try_acquire() else { return false };
        buffer.bytes_mut().copy_from_slice(bytes);
        if block::verify(buffer.bytes(), block).is_err() {
            return false;
        }
        crate::mark!("block_repaired");
        self.counters.blocks_repaired += 1;
        for index in 0..self.page_reads.len() {
            let Some(read) = self.page_reads[index].filter(|read| read.missing) else { continue };
            if read.block == *block {
                let start = to_index(read.sector) * to_index(SECTOR_SIZE);
                let page = &buffer.bytes()[start..start + to_index(SECTOR_SIZE)];
                let index = u32::try_from(index).expect("few page reads");
                self.page_arrived(index, &read, page);
            }
        }
        // Into their own buffers: readers may keep them for long.
        for read in self.block_reads.iter_mut().flatten().filter(|read| read.block == *block) {
            read.state = match std::mem::replace(&mut read.state, BlockReadState::InFlight) {
                BlockReadState::Missing(mut own) => {
                    own.bytes_mut().copy_from_slice(bytes);
                    self.missing_count -= 1;
                    BlockReadState::Ready(own)
                }
                state => state,
            };
        }
        for probe in self.probes.iter_mut().filter(|probe| probe.block == *block) {
            probe.state = match std::mem::replace(&mut probe.state, ProbeState::Idle) {
                ProbeState::Missing(mut own) => {
                    own.bytes_mut().copy_from_slice(bytes);
                    self.missing_count -= 1;
                    ProbeState::Ready(own)
                }
                state => state,
            };
        }
        if crate::mutated!("skip_block_repair") {
            return true;
        }
        assert!(self.writes.len() < self.writes_capacity, "as many writes as buffers");
        self.writes.push_back(PendingWrite {
            block: *block,
            buffer: Some(buffer),
            state: WriteState::Queued,
            attempts: 0,
            is_repair: true,
        });
        true
    }

    /// A block was released: whoever still waits for it does not need it, and a copy of it must
    /// never be written over what comes to lie at its address.
    pub(super) fn forget_missing(&mut self, address: u64) {
        for probe in &mut self.probes[SERVING..] {
            if probe.block.address == address {
                probe.stale = true;
                if matches!(probe.state, ProbeState::Missing(_)) {
                    probe.state = ProbeState::Lost;
                    self.missing_count -= 1;
                }
            }
        }
        if !self.reads_pages() {
            return;
        }
        for index in 0..self.page_reads.len() {
            let Some(read) = &mut self.page_reads[index] else { continue };
            if read.block.address != address {
                continue;
            }
            read.stale = true;
            if read.missing {
                let read = *read;
                self.page_forgotten(u32::try_from(index).expect("few page reads"), &read);
            }
        }
    }
}

#[cfg(test)]
#[path = "grid_repair_tests.rs"]
mod tests;
