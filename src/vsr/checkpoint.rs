//! Checkpoints: from executed ops to a superblock that no longer needs them in the log.
//!
//! Taken at fixed ops. What is in memory only (sessions with their replies, the state machine's
//! scalars) is copied at that moment; everything is written while later ops are executed, then
//! the superblock names it. Not covered: blocks and their reuse, which are the state machine's.

use zerocopy::IntoBytes;

use super::fatal::Fatal;
use super::machine::{CheckpointFault, StateMachine};
use super::replica::Replica;
use super::sessions::Sessions;
use crate::protocol::{PrepareHeader, to_index, to_size};
use crate::storage::{Config, Fetch, Zones};

/// Bytes in front of the state machine's part: its size, and zeros.
const EXTRA_HEADER_SIZE: u32 = 16;
/// Bytes of the state machine's part at most.
pub const ENCODED_SIZE_MAX: u32 = 256;

/// What the checkpoint in progress is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// Blocks are being written.
    Blocks,
    /// The superblock is being written.
    Superblock,
}

/// Bytes that a checkpoint needs at most for what only the replica knows.
#[must_use]
pub fn checkpoint_extra_max(config: &Config) -> u64 {
    let sessions = Sessions::encoded_size_max(config.clients_max, config.reply_size_max);
    sessions + u64::from(EXTRA_HEADER_SIZE + ENCODED_SIZE_MAX)
}

/// The parts of what only the replica knows: the state machine's state, and the sessions.
///
/// # Errors
///
/// If there are fewer bytes than the parts need.
///
/// # Panics
///
/// Never: the size is read from as many bytes as it has.
pub fn extra_parts(bytes: &[u8]) -> Result<(&[u8], &[u8]), CheckpointFault> {
    let parts = bytes.split_at_checked(to_index(EXTRA_HEADER_SIZE));
    let (head, rest) = parts.ok_or_else(|| short(bytes))?;
    let state_size = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
    rest.split_at_checked(to_index(state_size)).ok_or_else(|| short(bytes))
}

fn short(bytes: &[u8]) -> CheckpointFault {
    let found = u64::from(to_size(bytes.len()));
    CheckpointFault { part: "sessions", what: "the size", found, expected: "enough for its parts" }
}

/// The checkpoint in progress, if there is one.
#[derive(Debug)]
pub struct Checkpoint {
    stage: Stage,
    /// Last prepare that it covers.
    header: PrepareHeader,
}

impl Checkpoint {
    /// None in progress.
    #[must_use]
    pub fn new() -> Checkpoint {
        Checkpoint { stage: Stage::Idle, header: PrepareHeader::root(0) }
    }

    /// Whether none is in progress.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }
}

impl Default for Checkpoint {
    fn default() -> Checkpoint {
        Checkpoint::new()
    }
}

impl<M: StateMachine> Replica<M> {
    /// Starts the checkpoint of the op that was just executed.
    pub(super) fn checkpoint_start(&mut self, header: &PrepareHeader) {
        let checkpoint = &mut self.checkpoint;
        assert!(checkpoint.is_idle(), "commits wait for the checkpoint before");
        checkpoint.header = *header;
        checkpoint.stage = Stage::Blocks;
        self.laps.checkpoint_ns = self.now.monotonic_ns;
        let mut state = [0; to_index(ENCODED_SIZE_MAX)];
        let state_size = self.machine.encode(&mut state);
        let extra = self.machine.checkpoint_begin(header.op);
        extra.extend_from_slice(&to_size(state_size).to_le_bytes());
        extra.extend_from_slice(&[0; to_index(EXTRA_HEADER_SIZE) - 4]);
        extra.extend_from_slice(&state[..state_size]);
        self.sessions.encode(extra);
        self.machine.checkpoint_start();
    }

    /// Goes on with the checkpoint in progress; whether there was progress.
    pub(super) fn pump_checkpoint(&mut self) -> bool {
        match self.checkpoint.stage {
            Stage::Idle => false,
            Stage::Blocks => {
                if !self.superblock.is_idle() || self.is_installing() {
                    return false;
                }
                let Fetch::Ready(root) = self.machine.checkpoint_step() else {
                    return false;
                };
                let header = self.checkpoint.header;
                let zones = Zones::new(&self.options.config);
                let storage_size = zones.file_size(root.address_max);
                self.superblock.update(&mut self.outbox.storage, |superblock| {
                    superblock.checkpoint = header;
                    superblock.checkpoint_release = header.program;
                    superblock.root = root.bytes;
                    superblock.storage_size = storage_size;
                });
                self.checkpoint.stage = Stage::Superblock;
                true
            }
            Stage::Superblock => {
                // Not whether the superblock rests: a view may be written down right after.
                let durable = &self.superblock.durable().checkpoint;
                if durable.op < self.checkpoint.header.op {
                    return false;
                }
                assert!(durable.as_bytes() == self.checkpoint.header.as_bytes());
                self.checkpoint.stage = Stage::Idle;
                self.lap(super::laps::Stage::Checkpoint, self.laps.checkpoint_ns);
                crate::mark!("checkpoint_durable");
                // Ops that waited for it may be acknowledged now.
                self.acknowledge_all();
                true
            }
        }
    }

    /// Loads the state machine's part of the checkpoint and, at the end, the sessions; true when
    /// both are there.
    pub(super) fn checkpoint_load(&mut self) -> Result<bool, Fatal> {
        let op = self.superblock.durable().checkpoint.op;
        let fatal = |fault| Fatal::Checkpoint { op, fault };
        let Fetch::Ready(result) = self.machine.open_step() else { return Ok(false) };
        result.map_err(fatal)?;
        if op == 0 {
            return Ok(true);
        }
        let (state, sessions) = extra_parts(self.machine.opened_extra()).map_err(fatal)?;
        self.sessions.decode(sessions, &self.pool).map_err(fatal)?;
        let mut copy = [0; to_index(ENCODED_SIZE_MAX)];
        let copy = copy.get_mut(..state.len()).ok_or_else(|| fatal(short(state)))?;
        copy.copy_from_slice(state);
        self.machine.decode(copy).map_err(fatal)?;
        Ok(true)
    }
}
