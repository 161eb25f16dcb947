//! Blocks of the grid: asking peers for those that are missing here, and serving theirs.
//!
//! Grids are the same everywhere, so a block is named by its reference and anybody's copy will do.
//! A few requests are on their way at a time, so that repair never starves the normal path. Whoever
//! is asked reads and verifies the block then, and says so if it is not intact there, so that the
//! next one is asked at once; when all have said so, after a while. This goes on while a replica
//! opens its checkpoint. Not covered: which blocks are missing, and what is done with a copy: see
//! [`grid_repair`](crate::storage::grid_repair).

use super::Destination;
use super::machine::StateMachine;
use super::replica::Replica;
use crate::mark;
use crate::protocol::{Command, Message, to_size};
use crate::storage::grid_repair::SERVING;
use crate::storage::{BlockRef, Queue};

/// Blocks asked for at a time.
const REQUESTS_MAX: usize = 4;
/// Requests of others that wait at most; more are dropped, and will be made again.
const ASKED_MAX: usize = 16;
/// A block is asked for again after so long.
const REQUEST_NS: u64 = 100_000_000;

#[derive(Clone, Copy, Debug)]
struct Request {
    block: BlockRef,
    since_ns: u64,
    /// Others who have said that they do not have it, since it was asked for first.
    refusals: u8,
}

/// What is asked for and served.
#[derive(Debug)]
pub struct BlockRepair {
    requests: [Option<Request>; REQUESTS_MAX],
    /// Who wants which block from here.
    asked: Queue<(u8, BlockRef)>,
    serving: [Option<(u8, BlockRef)>; SERVING],
    /// When a block arrived last, or none was missing.
    progress_ns: u64,
}

impl BlockRepair {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> BlockRepair {
        BlockRepair {
            requests: [None; REQUESTS_MAX],
            asked: Queue::new(ASKED_MAX),
            serving: [None; SERVING],
            progress_ns: 0,
        }
    }

    /// Blocks that were asked for and have not come.
    #[must_use]
    pub fn requested(&self) -> usize {
        self.requests.iter().flatten().count()
    }
}

impl Default for BlockRepair {
    fn default() -> BlockRepair {
        BlockRepair::new()
    }
}

impl<M: StateMachine> Replica<M> {
    /// Serves and asks; whether there was progress.
    pub(super) fn pump_blocks(&mut self) -> bool {
        if self.is_alone() {
            return false;
        }
        let progress = self.serve_blocks();
        if !self.options.is_solo() {
            self.request_blocks();
        }
        progress
    }

    /// Asks for blocks that are missing and were not asked for yet.
    fn request_blocks(&mut self) {
        let mut wanted = [BlockRef::NONE; REQUESTS_MAX];
        let count = self.machine.blocks().map_or(0, |blocks| blocks.missing(&mut wanted));
        if count == 0 {
            self.blocks.progress_ns = self.now.monotonic_ns;
            return;
        }
        for block in &wanted[..count] {
            let requests = &self.blocks.requests;
            if requests.iter().flatten().any(|request| request.block == *block) {
                continue;
            }
            let Some(place) = requests.iter().position(Option::is_none) else { return };
            let since_ns = self.now.monotonic_ns;
            let request = Request { block: *block, since_ns, refusals: 0 };
            let replica = self.next_peer();
            if !self.request_block(block, replica) {
                return;
            }
            self.blocks.requests[place] = Some(request);
        }
    }

    /// Asks a replica for a block; whether there was a message for it.
    fn request_block(&mut self, block: &BlockRef, replica: u8) -> bool {
        let Some(mut message) = self.control(Command::RequestBlock) else { return false };
        name_block(&mut message, block);
        self.send_control(replica, message);
        true
    }

    /// That replica does not have a block: asks the one after it, unless all were asked.
    fn on_block_refused(&mut self, block: &BlockRef, replica: u8) {
        let requests = &mut self.blocks.requests;
        let found = requests.iter_mut().flatten().find(|request| request.block == *block);
        let Some(request) = found else { return };
        request.refusals = request.refusals.saturating_add(1);
        mark!("block_refused");
        if request.refusals + 1 < self.options.replica_count {
            request.since_ns = self.now.monotonic_ns;
            // Without a message it is asked for again later.
            let _ = self.request_block(block, self.peer_after(replica));
        }
    }

    /// Forgets requests that were not answered, so that another replica is asked.
    pub(super) fn blocks_tick(&mut self) {
        let before_ns = self.now.monotonic_ns.saturating_sub(REQUEST_NS);
        for request in &mut self.blocks.requests {
            if request.is_some_and(|request| request.since_ns < before_ns) {
                *request = None;
            }
        }
    }

    /// Since when blocks are missing that nobody has sent, in nanoseconds.
    pub(super) fn blocks_stuck_ns(&self) -> u64 {
        self.now.monotonic_ns.saturating_sub(self.blocks.progress_ns)
    }

    pub(super) fn on_request_block(&mut self, message: &Message) {
        let peer = message.peer();
        let block = BlockRef { address: peer.address, sequence: peer.op, checksum: peer.context };
        let asked = (peer.frame.replica, block);
        if !self.blocks.asked.is_full() && !self.blocks.asked.iter().any(|other| *other == asked) {
            self.blocks.asked.push(asked);
        }
    }

    pub(super) fn on_block(&mut self, message: &Message) {
        let peer = message.peer();
        let block = BlockRef { address: peer.address, sequence: peer.op, checksum: peer.context };
        if message.body().is_empty() {
            self.on_block_refused(&block, peer.frame.replica);
            return;
        }
        for request in &mut self.blocks.requests {
            if request.is_some_and(|request| request.block == block) {
                *request = None;
            }
        }
        let Some(blocks) = self.machine.blocks() else { return };
        if blocks.repair(&block, message.body()) {
            self.blocks.progress_ns = self.now.monotonic_ns;
        }
    }

    fn serve_blocks(&mut self) -> bool {
        let mut progress = false;
        for place in 0..SERVING {
            if let Some((replica, block)) = self.blocks.serving[place] {
                let Some(blocks) = self.machine.blocks() else { return false };
                let Some(buffer) = blocks.serve_take(place) else { continue };
                self.blocks.serving[place] = None;
                progress = true;
                let bytes = buffer.as_ref().map_or(&[][..], |buffer| buffer.bytes());
                self.send_block(replica, &block, bytes);
            }
            let Some(asked) = self.blocks.asked.pop() else { continue };
            let Some(blocks) = self.machine.blocks() else { return false };
            let started = blocks.serve_start(place, asked.1);
            assert!(started, "the place is free");
            self.blocks.serving[place] = Some(asked);
            progress = true;
        }
        progress
    }

    fn send_block(&mut self, replica: u8, block: &BlockRef, bytes: &[u8]) {
        let Some(mut message) = self.control(Command::Block) else { return };
        if !bytes.is_empty() {
            mark!("block_served");
        }
        name_block(&mut message, block);
        message.body_area_mut()[..bytes.len()].copy_from_slice(bytes);
        message.set_body_size(to_size(bytes.len()));
        message.set_checksums();
        self.send(Destination::Replica(replica), message);
    }
}

fn name_block(message: &mut Message, block: &BlockRef) {
    let peer = message.peer_mut();
    peer.address = block.address;
    peer.op = block.sequence;
    peer.context = block.checksum;
}
