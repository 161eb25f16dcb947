//! What the replica needs from a state machine.
//!
//! The ledger is the one that serves; tests drive the replica with a smaller one. Everything
//! asynchronous follows the rules of [`Fetch`]: a `Wait` means to call again after the next
//! completion.

use super::fatal::Fatal;
use super::superblock::ROOT_SIZE;
use crate::protocol::Operation;
use crate::storage::{DiskDone, Fetch, Job, StorageOutbox};

/// What a superblock keeps of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRoot {
    /// The state machine's own; all zero for an empty history.
    pub bytes: [u8; ROOT_SIZE as usize],
    /// Bytes of the data file that the checkpoint needs.
    pub storage_size: u64,
}

/// A deterministic state machine over the grid of a data file.
pub trait StateMachine {
    /// Bytes that [`StateMachine::encode`] writes at most.
    const ENCODED_SIZE_MAX: u32;

    /// Starts to load the checkpoint of `op`.
    fn open_start(&mut self, op: u64, root: &CheckpointRoot);

    /// Goes on loading. The bytes that came with the checkpoint are put into `extra`, and how many.
    fn open_step(&mut self, extra: &mut [u8]) -> Fetch<usize>;

    /// Takes over what [`StateMachine::encode`] wrote.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn decode(&mut self, bytes: &[u8]) -> Result<(), &'static str>;

    /// Writes the state that is in memory only, and returns the bytes used.
    fn encode(&self, out: &mut [u8]) -> usize;

    /// Timestamps that an operation takes besides its own. Of an operation of a client, rows that
    /// it appends at most.
    fn timestamp_span(&self, operation: Operation, body: &[u8]) -> u64;

    /// Whether there is room in the data file for another op.
    fn admits(&self) -> bool;

    /// Whether a pulse prepared at this time would have something to do.
    fn pulse_due(&self, now: u64) -> bool;

    /// Starts an operation whose commit has this timestamp.
    fn begin(&mut self, operation: Operation, timestamp: u64, body: &[u8]);

    /// Goes on with it; the bytes of its reply, once it is complete.
    fn step(&mut self, body: &[u8], reply: &mut [u8]) -> Fetch<u32>;

    /// Ends an op after all its operations; the same until it is ready.
    fn end_op(&mut self, op: u64) -> Fetch<()>;

    /// Starts a checkpoint of the state right after the end of `op`, together with `extra`.
    fn checkpoint_start(&mut self, op: u64, extra: &[u8]);

    /// Goes on with it, while later ops are executed; `extra` is unchanged. Once ready, all blocks
    /// are durable.
    fn checkpoint_step(&mut self, extra: &[u8]) -> Fetch<CheckpointRoot>;

    /// Frees what only checkpoints before the durable one needed.
    fn release_staged(&mut self);

    /// Moves wanted reads, queued writes and jobs to the outbox.
    fn pump(&mut self, outbox: &mut StorageOutbox);

    /// Takes the answer to a request for the grid.
    fn on_disk_done(&mut self, done: DiskDone);

    /// Takes back a job.
    fn on_job_done(&mut self, job: Job);

    /// Why it cannot go on, if so.
    fn fault(&self) -> Option<Fatal>;
}
