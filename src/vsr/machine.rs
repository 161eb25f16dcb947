//! What the replica needs from a state machine.
//!
//! The ledger is the one that serves; tests drive the replica with a smaller one. Everything
//! asynchronous follows the rules of [`Fetch`]: a `Wait` means to call again after the next
//! completion.

use std::fmt;

use super::superblock::ROOT_SIZE;
use crate::protocol::{Buffer, Operation};
use crate::storage::grid::GridFault;
use crate::storage::walk::WalkPart;
use crate::storage::{BlockRef, DiskDone, Fetch, Job, Room, StorageOutbox, StorageUse};

/// What a superblock keeps of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRoot {
    /// The state machine's own; all zero for an empty history.
    pub bytes: [u8; ROOT_SIZE as usize],
    /// Highest address of a block that the checkpoint needs; 0 if there is none.
    pub address_max: u64,
}

/// What is wrong with a checkpoint whose blocks are intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointFault {
    /// Which part of it.
    pub part: &'static str,
    /// What in that part.
    pub what: &'static str,
    /// The value found.
    pub found: u64,
    /// What it must be.
    pub expected: &'static str,
}

impl fmt::Display for CheckpointFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CheckpointFault { part, what, found, expected } = self;
        write!(formatter, "{part}: {what} is {found}, expected {expected}")
    }
}

/// A deterministic state machine over the grid of a data file.
pub trait StateMachine {
    /// Starts to load the checkpoint of `op`; of op 0 there is nothing to load.
    ///
    /// # Errors
    ///
    /// If the root cannot be right.
    fn open(&mut self, op: u64, root: &CheckpointRoot) -> Result<(), CheckpointFault>;

    /// Goes on loading.
    fn open_step(&mut self) -> Fetch<Result<(), CheckpointFault>>;

    /// After loading: what the replica had put into the checkpoint.
    fn opened_extra(&self) -> &[u8];

    /// Takes over what [`StateMachine::encode`] wrote.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn decode(&mut self, bytes: &[u8]) -> Result<(), CheckpointFault>;

    /// Writes the state that is in memory only, at most
    /// [`ENCODED_SIZE_MAX`](super::checkpoint::ENCODED_SIZE_MAX) bytes, and returns how many.
    fn encode(&self, out: &mut [u8]) -> usize;

    /// Timestamps that an operation takes besides its own. Of an operation of a client, rows that
    /// it appends at most.
    fn timestamp_span(&self, operation: Operation, body: &[u8]) -> u64;

    /// For which ops there is room in the data file.
    fn room(&self) -> Room;

    /// How much of the data file's limit is used, for people.
    fn storage_use(&self) -> StorageUse;

    /// Whether a pulse prepared at this time would have something to do.
    fn pulse_due(&self, now: u64) -> bool;

    /// Starts an operation whose commit has this timestamp.
    fn begin(&mut self, operation: Operation, timestamp: u64, body: &[u8]);

    /// Goes on with it; the bytes of its reply, once it is complete.
    fn step(&mut self, body: &[u8], reply: &mut [u8]) -> Fetch<u32>;

    /// Ends an op after all its operations; the same until it is ready.
    fn end_op(&mut self, op: u64) -> Fetch<()>;

    /// Whether the last `Wait` of `step` or `end_op` was only a pause in long work: the next call
    /// goes on at once.
    fn is_paused(&self) -> bool;

    /// Begins a checkpoint of the state right after the end of `op`. What the replica appends to
    /// the
    /// bytes that this returns becomes part of it: at most
    /// [`checkpoint_extra_max`](super::checkpoint::checkpoint_extra_max), for which there is room.
    fn checkpoint_begin(&mut self, op: u64) -> &mut Vec<u8>;

    /// Fixes the content of the checkpoint.
    fn checkpoint_start(&mut self);

    /// Goes on with it, while later ops are executed. Once ready, all of it is durable.
    fn checkpoint_step(&mut self) -> Fetch<CheckpointRoot>;

    /// Frees what only checkpoints before the durable one needed.
    fn release_staged(&mut self);

    /// Moves wanted reads, queued writes and jobs to the outbox.
    fn pump(&mut self, outbox: &mut StorageOutbox);

    /// Takes the answer to a request for the grid.
    fn on_disk_done(&mut self, done: DiskDone);

    /// Takes back a job.
    fn on_job_done(&mut self, job: Job);

    /// Why it cannot go on, if so.
    fn fault(&self) -> Option<GridFault>;

    /// The blocks of the grid, if it keeps its state in blocks that peers have too.
    fn blocks(&mut self) -> Option<&mut dyn Blocks> {
        None
    }
}

/// Blocks of a grid that is the same on all replicas; see [`crate::storage::grid_repair`] and
/// [`crate::storage::walk`].
pub trait Blocks {
    /// From now on blocks that cannot be read are had from peers.
    fn set_has_peers(&mut self);

    /// Blocks that are wanted: fills `wanted` as far as there are any, and returns how many.
    fn missing(&self, wanted: &mut [BlockRef]) -> usize;

    /// Takes a peer's copy of a block; whether it was wanted and intact.
    fn repair(&mut self, block: &BlockRef, bytes: &[u8]) -> bool;

    /// Starts to read a block for a peer in a place of its own, if that is free.
    fn serve_start(&mut self, place: usize, block: BlockRef) -> bool;

    /// The block that was read for a peer, or none if it is not to be had; nothing while it is
    /// being read.
    fn serve_take(&mut self, place: usize) -> Option<Option<Buffer>>;

    /// Begins a walk over the blocks that ops up to `sequence_max` have written.
    fn walk_start(&mut self, part: WalkPart, sequence_max: u64);

    /// Goes on with the walk, with so many blocks at a time; ready when all are intact.
    fn walk_step(&mut self, at_a_time: usize) -> Fetch<()>;
}
