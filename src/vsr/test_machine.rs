//! A state machine for tests of the replica: it counts and hashes what it executes.
//!
//! Each reply tells the count, the timestamp and a hash over everything executed so far, so that a
//! test can prove that every request was executed exactly once and in one order. It reads the disk
//! now and then, so that execution has to wait, and keeps its checkpoints in two areas of the grid.
//! If it is told to, it gets a checkpoint that is not here from peers, block by block.

use std::collections::VecDeque;

use super::machine::{Blocks, CheckpointFault, CheckpointRoot, StateMachine};
use crate::protocol::{Buffer, Operation, Pool, checksum, to_index, to_size};
use crate::storage::grid::GridFault;
use crate::storage::grid_repair::SERVING;
use crate::storage::walk::WalkPart;
use crate::storage::{
    BlockRef, Config, DiskDone, DiskKind, DiskOwner, DiskRequest, DiskToken, Fetch, Job, Room,
    StorageOutbox, StorageUse, Zone, Zones,
};

const CHUNK_SIZE: u32 = 16_384;
/// Bytes of a block of a checkpoint, as peers have it.
const BLOCK_SIZE: u32 = 8_192;
/// Bytes of each of the two areas for checkpoints.
pub const AREA_SIZE: u64 = 2 * 1024 * 1024;
/// Nanoseconds from pulse to pulse.
const PULSE_INTERVAL: u64 = 1_000_000_000;
const IN_FLIGHT_MAX: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    None,
    Moving {
        op: u64,
        size: u64,
        next: u64,
        sum: u128,
    },
    Syncing {
        op: u64,
        size: u64,
        sum: u128,
    },
    /// It is had from peers; bit i: not block i yet.
    Fetching {
        op: u64,
        size: u64,
        sum: u128,
        missing: u128,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peek {
    None,
    Reading,
    Done,
}

/// The hash after another operation.
pub fn next_hash(hash: u128, timestamp: u64, operation: Operation, body: &[u8]) -> u128 {
    let mut bytes = hash.to_le_bytes().to_vec();
    bytes.extend_from_slice(&timestamp.to_le_bytes());
    bytes.push(operation.into());
    bytes.extend_from_slice(body);
    checksum(&bytes)
}

#[derive(Debug)]
pub struct TestMachine {
    grid: u64,
    interval: u64,
    pool: Pool,
    wanted: VecDeque<DiskRequest>,
    received: Vec<(u64, Buffer)>,
    in_flight: u32,
    pub count: u64,
    pub hash: u128,
    pub next_pulse: u64,
    pub releases: u64,
    /// For which ops there is room.
    pub room: Room,
    op_ended: u64,
    current: Option<(Operation, u64)>,
    peek: Peek,
    transfer: Transfer,
    extra: Vec<u8>,
    /// Whether checkpoints are had from peers.
    pub has_blocks: bool,
    /// The newest checkpoint that was written or read here: its op, checksum and bytes.
    saved: (u64, u128, Vec<u8>),
    /// Blocks to be served.
    serving: [Option<BlockRef>; SERVING],
    blocks: Pool,
}

impl TestMachine {
    pub fn new(config: &Config) -> TestMachine {
        TestMachine {
            grid: Zones::new(config).start(Zone::Grid),
            interval: config.checkpoint_interval.into(),
            pool: Pool::new("test machine", 8, CHUNK_SIZE),
            wanted: VecDeque::new(),
            received: Vec::new(),
            in_flight: 0,
            count: 0,
            hash: 0,
            next_pulse: 0,
            releases: 0,
            room: Room::Everything,
            op_ended: 0,
            current: None,
            peek: Peek::None,
            transfer: Transfer::None,
            extra: Vec::with_capacity(usize::try_from(AREA_SIZE).unwrap()),
            has_blocks: false,
            saved: (0, 0, Vec::new()),
            serving: [None; SERVING],
            blocks: Pool::new("test blocks", to_size(SERVING), BLOCK_SIZE),
        }
    }

    fn area(&self, op: u64) -> u64 {
        self.grid + (op / self.interval % 2) * AREA_SIZE
    }

    /// Writes a checkpoint that was had from peers.
    fn write_saved(&mut self) {
        let (op, _, bytes) = std::mem::take(&mut self.saved);
        for (place, chunk) in (0_u64..).zip(bytes.chunks(to_index(CHUNK_SIZE))) {
            let mut buffer = self.pool.acquire();
            buffer.fill_zero();
            buffer.bytes_mut()[..chunk.len()].copy_from_slice(chunk);
            let offset = self.area(op) + place * u64::from(CHUNK_SIZE);
            self.want(DiskOwner::GridWrite, DiskKind::WriteDurable, offset, Some(buffer));
        }
        self.saved = (op, checksum(&bytes), bytes);
    }

    fn want(&mut self, owner: DiskOwner, kind: DiskKind, offset: u64, buffer: Option<Buffer>) {
        let length = buffer.as_ref().map_or(0, Buffer::size);
        let token = DiskToken { owner, index: 0 };
        self.in_flight += 1;
        self.wanted.push_back(DiskRequest {
            token,
            kind,
            offset,
            length,
            buffer,
            buffer_offset: 0,
        });
    }
}

impl StateMachine for TestMachine {
    fn open(&mut self, op: u64, root: &CheckpointRoot) -> Result<(), CheckpointFault> {
        assert!(self.transfer == Transfer::None);
        self.op_ended = op;
        if op == 0 {
            assert!(root.bytes.iter().all(|byte| *byte == 0));
            return Ok(());
        }
        let size = u64::from_le_bytes(root.bytes[..8].try_into().unwrap());
        let sum = u128::from_le_bytes(root.bytes[16..32].try_into().unwrap());
        let found = size;
        if size > AREA_SIZE {
            let (what, expected) = ("the size", "within an area");
            return Err(CheckpointFault { part: "root", what, found, expected });
        }
        self.extra.resize(usize::try_from(size).unwrap(), 0);
        self.transfer = Transfer::Moving { op, size, next: 0, sum };
        Ok(())
    }

    fn open_step(&mut self) -> Fetch<Result<(), CheckpointFault>> {
        if matches!(self.transfer, Transfer::Fetching { .. }) {
            return Fetch::Wait;
        }
        let Transfer::Moving { op, size, next, sum } = self.transfer else {
            return Fetch::Ready(Ok(()));
        };
        let area = self.area(op);
        for (offset, buffer) in self.received.drain(..) {
            let at = usize::try_from(offset - area).unwrap();
            let end = usize::try_from(size).unwrap().min(at + to_index(CHUNK_SIZE));
            self.extra[at..end].copy_from_slice(&buffer.bytes()[..end - at]);
        }
        let mut next = next;
        while next < size && self.in_flight < IN_FLIGHT_MAX {
            let buffer = self.pool.acquire();
            self.want(DiskOwner::GridBlock, DiskKind::Read, area + next, Some(buffer));
            next += u64::from(CHUNK_SIZE);
        }
        self.transfer = Transfer::Moving { op, size, next, sum };
        if self.in_flight > 0 || next < size {
            return Fetch::Wait;
        }
        self.transfer = Transfer::None;
        if checksum(&self.extra) != sum && self.has_blocks {
            let missing = (1 << size.div_ceil(BLOCK_SIZE.into())) - 1;
            self.transfer = Transfer::Fetching { op, size, sum, missing };
            return Fetch::Wait;
        }
        self.saved = (op, sum, self.extra.clone());
        if checksum(&self.extra) != sum {
            let (part, what, expected) = ("area", "the checksum of a size", "the root's");
            return Fetch::Ready(Err(CheckpointFault { part, what, found: size, expected }));
        }
        Fetch::Ready(Ok(()))
    }

    fn opened_extra(&self) -> &[u8] {
        &self.extra
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(), CheckpointFault> {
        assert!(bytes.len() == 48);
        self.count = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        self.next_pulse = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
        self.hash = u128::from_le_bytes(bytes[16..32].try_into().unwrap());
        self.releases = u64::from_le_bytes(bytes[32..40].try_into().unwrap());
        Ok(())
    }

    fn encode(&self, out: &mut [u8]) -> usize {
        out[..8].copy_from_slice(&self.count.to_le_bytes());
        out[8..16].copy_from_slice(&self.next_pulse.to_le_bytes());
        out[16..32].copy_from_slice(&self.hash.to_le_bytes());
        out[32..40].copy_from_slice(&self.releases.to_le_bytes());
        out[40..48].fill(0);
        48
    }

    fn timestamp_span(&self, operation: Operation, body: &[u8]) -> u64 {
        match operation {
            Operation::Pulse => 10,
            Operation::CreateTransfers => u64::from(to_size(body.len()) / 128 - 1),
            _ => 0,
        }
    }

    fn room(&self) -> Room {
        self.room
    }

    fn storage_use(&self) -> StorageUse {
        StorageUse { limit_bytes: 1 << 20, used_bytes: 0, usable_bytes: 1 << 20, room: self.room }
    }

    fn pulse_due(&self, now: u64) -> bool {
        now >= self.next_pulse
    }

    fn begin(&mut self, operation: Operation, timestamp: u64, _body: &[u8]) {
        assert!(self.current.is_none());
        self.current = Some((operation, timestamp));
        self.peek = Peek::None;
    }

    fn step(&mut self, body: &[u8], reply: &mut [u8]) -> Fetch<u32> {
        let (operation, timestamp) = self.current.unwrap();
        if operation == Operation::Pulse {
            self.next_pulse = timestamp + PULSE_INTERVAL;
            self.current = None;
            return Fetch::Ready(0);
        }
        if self.count.is_multiple_of(3) && self.peek != Peek::Done {
            if self.peek == Peek::None {
                let buffer = self.pool.acquire();
                self.want(DiskOwner::GridPage, DiskKind::Read, self.grid, Some(buffer));
                self.peek = Peek::Reading;
            }
            return Fetch::Wait;
        }
        self.current = None;
        self.hash = next_hash(self.hash, timestamp, operation, body);
        self.count += 1;
        reply[..8].copy_from_slice(&self.count.to_le_bytes());
        reply[8..16].copy_from_slice(&timestamp.to_le_bytes());
        reply[16..32].copy_from_slice(&self.hash.to_le_bytes());
        Fetch::Ready(32)
    }

    fn end_op(&mut self, op: u64) -> Fetch<()> {
        assert!(self.current.is_none());
        assert!(op == self.op_ended + 1, "every op ends once");
        self.op_ended = op;
        Fetch::Ready(())
    }

    fn is_paused(&self) -> bool {
        false
    }

    fn checkpoint_begin(&mut self, op: u64) -> &mut Vec<u8> {
        assert!(self.transfer == Transfer::None);
        assert!(op == self.op_ended);
        self.extra.clear();
        &mut self.extra
    }

    fn checkpoint_start(&mut self) {
        let size = u64::from(to_size(self.extra.len()));
        assert!(size <= AREA_SIZE);
        let (op, sum) = (self.op_ended, checksum(&self.extra));
        self.transfer = Transfer::Moving { op, size, next: 0, sum };
    }

    fn checkpoint_step(&mut self) -> Fetch<CheckpointRoot> {
        match self.transfer {
            Transfer::Moving { op, size, mut next, sum } => {
                while next < size && self.in_flight < IN_FLIGHT_MAX {
                    let at = usize::try_from(next).unwrap();
                    let end = self.extra.len().min(at + to_index(CHUNK_SIZE));
                    let mut buffer = self.pool.acquire();
                    buffer.fill_zero();
                    buffer.bytes_mut()[..end - at].copy_from_slice(&self.extra[at..end]);
                    let offset = self.area(op) + next;
                    self.want(DiskOwner::GridWrite, DiskKind::Write, offset, Some(buffer));
                    next += u64::from(CHUNK_SIZE);
                }
                self.transfer = Transfer::Moving { op, size, next, sum };
                if next >= size && self.in_flight == 0 {
                    self.want(DiskOwner::GridSync, DiskKind::Sync, 0, None);
                    self.transfer = Transfer::Syncing { op, size, sum };
                }
                Fetch::Wait
            }
            Transfer::Syncing { op, size, sum } if self.in_flight == 0 => {
                assert!(checksum(&self.extra) == sum, "what is written does not change meanwhile");
                let mut bytes = [0; 256];
                bytes[..8].copy_from_slice(&size.to_le_bytes());
                bytes[16..32].copy_from_slice(&sum.to_le_bytes());
                self.transfer = Transfer::None;
                self.saved = (op, sum, self.extra.clone());
                Fetch::Ready(CheckpointRoot { bytes, address_max: AREA_SIZE / 4096 })
            }
            Transfer::Syncing { .. } => Fetch::Wait,
            Transfer::None | Transfer::Fetching { .. } => panic!("no checkpoint"),
        }
    }

    fn release_staged(&mut self) {
        self.releases += 1;
    }

    fn pump(&mut self, outbox: &mut StorageOutbox) {
        while let Some(request) = self.wanted.pop_front() {
            outbox.disk.push(request);
        }
    }

    fn on_disk_done(&mut self, done: DiskDone) {
        self.in_flight -= 1;
        assert!(done.result.is_ok());
        match done.request.token.owner {
            DiskOwner::GridPage => self.peek = Peek::Done,
            DiskOwner::GridBlock => {
                self.received.push((done.request.offset, done.request.buffer.unwrap()));
            }
            _ => {}
        }
    }

    fn on_job_done(&mut self, _job: Job) {
        panic!("there are no jobs");
    }

    fn fault(&self) -> Option<GridFault> {
        None
    }

    fn blocks(&mut self) -> Option<&mut dyn Blocks> {
        if self.has_blocks { Some(self) } else { None }
    }
}

impl Blocks for TestMachine {
    fn set_has_peers(&mut self) {}

    fn missing(&self, wanted: &mut [BlockRef]) -> usize {
        let Transfer::Fetching { op, sum, missing, .. } = self.transfer else { return 0 };
        let addresses = (1..=128_u64).filter(|address| missing & (1 << (address - 1)) != 0);
        let mut count = 0;
        for (place, address) in wanted.iter_mut().zip(addresses) {
            *place = BlockRef { address, sequence: op, checksum: sum };
            count += 1;
        }
        count
    }

    fn repair(&mut self, block: &BlockRef, bytes: &[u8]) -> bool {
        let Transfer::Fetching { op, size, sum, missing } = self.transfer else { return false };
        let bit = 1 << (block.address - 1);
        if (block.sequence, block.checksum) != (op, sum) || missing & bit == 0 {
            return false;
        }
        let at = (block.address - 1) * u64::from(BLOCK_SIZE);
        let place = usize::try_from(at).unwrap();
        let end = self.extra.len().min(place + bytes.len());
        self.extra[place..end].copy_from_slice(&bytes[..end - place]);
        let missing = missing & !bit;
        self.transfer = Transfer::Fetching { op, size, sum, missing };
        if missing == 0 {
            assert!(checksum(&self.extra) == sum, "what peers have is the same");
            self.transfer = Transfer::None;
            self.saved = (op, sum, self.extra.clone());
            self.write_saved();
        }
        true
    }

    fn serve_start(&mut self, place: usize, block: BlockRef) -> bool {
        self.serving[place] = Some(block);
        true
    }

    fn serve_take(&mut self, place: usize) -> Option<Option<Buffer>> {
        let block = self.serving[place].take()?;
        let (op, sum, bytes) = &self.saved;
        if (block.sequence, block.checksum) != (*op, *sum) {
            return Some(None);
        }
        let mut buffer = self.blocks.try_acquire()?;
        let at = usize::try_from(block.address - 1).unwrap() * to_index(BLOCK_SIZE);
        let end = bytes.len().min(at + to_index(BLOCK_SIZE));
        buffer.fill_zero();
        buffer.bytes_mut()[..end - at].copy_from_slice(&bytes[at..end]);
        Some(Some(buffer))
    }

    fn walk_start(&mut self, _part: WalkPart, _sequence_max: u64) {}

    fn walk_step(&mut self, _at_a_time: usize) -> Fetch<()> {
        if self.in_flight == 0 { Fetch::Ready(()) } else { Fetch::Wait }
    }
}
