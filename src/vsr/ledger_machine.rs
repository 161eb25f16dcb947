//! The ledger as the replica's state machine.
//!
//! Only carries calls over; what they mean is in the ledger and its store.

use zerocopy::{FromBytes, IntoBytes};

use super::machine::{Blocks, CheckpointFault, CheckpointRoot, StateMachine};
use super::superblock::ROOT_SIZE;
use crate::ledger::{Ledger, STATE_SIZE, StateError};
use crate::protocol::{Buffer, Operation};
use crate::storage::checkpoint::CheckpointRoot as StoreRoot;
use crate::storage::decode::DecodeError;
use crate::storage::grid::GridFault;
use crate::storage::grid_repair::SERVING;
use crate::storage::persistence::OpenError;
use crate::storage::store::Store;
use crate::storage::walk::WalkPart;
use crate::storage::{BlockRef, DiskDone, Fetch, Job, Room, StorageOutbox, StorageUse};

static_assertions::const_assert!(size_of::<StoreRoot>() <= ROOT_SIZE as usize);
static_assertions::const_assert!(STATE_SIZE <= super::checkpoint::ENCODED_SIZE_MAX as usize);

/// The store's root in the superblock's root of the checkpoint of `op`.
///
/// # Errors
///
/// If it cannot be right.
///
/// # Panics
///
/// Never: it fits the superblock.
pub fn store_root(op: u64, root: &CheckpointRoot) -> Result<StoreRoot, CheckpointFault> {
    let (store_root, rest) =
        StoreRoot::read_from_prefix(&root.bytes).expect("a root fits the superblock");
    let fault = |what, found, expected| CheckpointFault { part: "root", what, found, expected };
    if store_root.op != op {
        return Err(fault("the op", store_root.op, "the checkpoint's"));
    }
    if store_root.address_max != root.address_max {
        return Err(fault("the highest address", store_root.address_max, "the superblock's"));
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(fault("the padding", 1, "zero"));
    }
    Ok(store_root)
}

impl StateMachine for Ledger {
    fn open(&mut self, op: u64, root: &CheckpointRoot) -> Result<(), CheckpointFault> {
        self.store.open(store_root(op, root)?).map_err(open_fault)
    }

    fn open_step(&mut self) -> Fetch<Result<(), CheckpointFault>> {
        self.store.open_step().map(|result| result.map_err(open_fault))
    }

    fn opened_extra(&self) -> &[u8] {
        self.store.opened_extra()
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(), CheckpointFault> {
        Ledger::decode(self, bytes).map_err(state_fault)
    }

    fn encode(&self, out: &mut [u8]) -> usize {
        let (state, _) = out.split_first_chunk_mut::<STATE_SIZE>().expect("there is room");
        Ledger::encode(self, state);
        STATE_SIZE
    }

    fn timestamp_span(&self, operation: Operation, body: &[u8]) -> u64 {
        Ledger::timestamp_span(self, operation, body)
    }

    fn room(&self) -> Room {
        self.store.room()
    }

    fn storage_use(&self) -> StorageUse {
        self.store.storage_use()
    }

    fn pulse_due(&self, now: u64) -> bool {
        Ledger::pulse_due(self, now)
    }

    fn begin(&mut self, operation: Operation, timestamp: u64, body: &[u8]) {
        Ledger::begin(self, operation, timestamp, body);
    }

    fn step(&mut self, body: &[u8], reply: &mut [u8]) -> Fetch<u32> {
        Ledger::step(self, body, reply)
    }

    fn end_op(&mut self, op: u64) -> Fetch<()> {
        self.store.end_op(op)
    }

    fn is_paused(&self) -> bool {
        Ledger::is_paused(self)
    }

    fn checkpoint_begin(&mut self, op: u64) -> &mut Vec<u8> {
        self.store.checkpoint_begin(op)
    }

    fn checkpoint_start(&mut self) {
        self.store.checkpoint_start();
    }

    fn checkpoint_step(&mut self) -> Fetch<CheckpointRoot> {
        self.store.checkpoint_step().map(|root| {
            let mut bytes = [0; ROOT_SIZE as usize];
            bytes[..size_of::<StoreRoot>()].copy_from_slice(root.as_bytes());
            CheckpointRoot { bytes, address_max: root.address_max }
        })
    }

    fn release_staged(&mut self) {
        self.store.release_staged();
    }

    fn pump(&mut self, outbox: &mut StorageOutbox) {
        self.store.pump(outbox);
    }

    fn on_disk_done(&mut self, done: DiskDone) {
        self.store.on_disk_done(done);
    }

    fn on_job_done(&mut self, job: Job) {
        self.store.on_job_done(job);
    }

    fn fault(&self) -> Option<GridFault> {
        self.store.fault().copied()
    }

    fn blocks(&mut self) -> Option<&mut dyn Blocks> {
        Some(&mut self.store)
    }
}

impl Blocks for Store {
    fn set_has_peers(&mut self) {
        self.grid_mut().set_has_peers();
    }

    fn missing(&self, wanted: &mut [BlockRef]) -> usize {
        if self.grid().has_missing() { self.grid().missing(wanted) } else { 0 }
    }

    fn repair(&mut self, block: &BlockRef, bytes: &[u8]) -> bool {
        self.grid_mut().repair(block, bytes)
    }

    fn serve_start(&mut self, place: usize, block: BlockRef) -> bool {
        assert!(place < SERVING);
        self.grid_mut().probe_start(place, block)
    }

    fn serve_take(&mut self, place: usize) -> Option<Option<Buffer>> {
        assert!(place < SERVING);
        self.grid_mut().probe_take(place)
    }

    fn walk_start(&mut self, part: WalkPart, sequence_max: u64) {
        Store::walk_start(self, part, sequence_max);
    }

    fn walk_step(&mut self, at_a_time: usize) -> Fetch<()> {
        Store::walk_step(self, at_a_time)
    }
}

fn open_fault(error: OpenError) -> CheckpointFault {
    match error {
        OpenError::Root { error, .. } => decode_fault("root", error),
        OpenError::Part { part, error } => decode_fault(part, error),
        OpenError::Index { tag } => CheckpointFault {
            part: tag,
            what: "the index",
            found: 0,
            expected: "made for the rows of the log",
        },
    }
}

fn decode_fault(part: &'static str, error: DecodeError) -> CheckpointFault {
    match error {
        DecodeError::Short { what, found, .. } => {
            CheckpointFault { part, what, found, expected: "more bytes" }
        }
        DecodeError::Value { what, found, expected } => {
            CheckpointFault { part, what, found, expected }
        }
    }
}

fn state_fault(error: StateError) -> CheckpointFault {
    let part = "ledger state";
    match error {
        StateError::Size { found } => {
            let found = u64::from(crate::protocol::to_size(found));
            CheckpointFault { part, what: "the size", found, expected: "that of the state" }
        }
        StateError::Version { found } => {
            CheckpointFault { part, what: "the version", found, expected: "ours" }
        }
    }
}
