//! Checkpoints: from executed ops to a superblock that no longer needs them in the log.
//!
//! Taken at fixed ops. What is in memory only (sessions with their replies, the state machine's
//! scalars) is copied at that moment; everything is written while later ops are executed, then
//! the superblock names it. Not covered: blocks and their reuse, which are the state machine's.

use zerocopy::IntoBytes;

use super::fatal::Fatal;
use super::machine::StateMachine;
use super::replica::Replica;
use super::sessions::Sessions;
use crate::protocol::{PrepareHeader, Release, to_index, to_size};
use crate::storage::{Config, Fetch};

/// Bytes in front of the state machine's part: its size, and zeros.
const EXTRA_HEADER_SIZE: usize = 16;

/// What the checkpoint in progress is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// Blocks are being written.
    Blocks,
    /// The superblock is being written.
    Superblock,
}

/// The checkpoint in progress, if there is one.
#[derive(Debug)]
pub struct Checkpoint {
    stage: Stage,
    /// Last prepare that it covers.
    header: PrepareHeader,
    /// State machine's scalars and sessions as they were then.
    extra: Vec<u8>,
    extra_size: usize,
}

impl Checkpoint {
    /// None in progress. The memory for what is copied is reserved but not touched.
    #[must_use]
    pub fn new(config: &Config, encoded_size_max: u32) -> Checkpoint {
        let sessions = Sessions::encoded_size_max(config.clients_max, config.reply_size_max);
        let size = EXTRA_HEADER_SIZE + to_index(encoded_size_max) + sessions;
        Checkpoint {
            stage: Stage::Idle,
            header: PrepareHeader::root(0),
            extra: vec![0; size],
            extra_size: 0,
        }
    }

    /// Whether none is in progress.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }
}

impl<M: StateMachine> Replica<M> {
    /// Starts the checkpoint of the op that was just executed.
    pub(super) fn checkpoint_start(&mut self, header: &PrepareHeader) {
        let checkpoint = &mut self.checkpoint;
        assert!(checkpoint.is_idle(), "commits wait for the checkpoint before");
        checkpoint.header = *header;
        let (head, rest) = checkpoint.extra.split_at_mut(EXTRA_HEADER_SIZE);
        let machine_size = self.machine.encode(rest);
        head.fill(0);
        head[..4].copy_from_slice(&to_size(machine_size).to_le_bytes());
        let sessions_size = self.sessions.encode(&mut rest[machine_size..]);
        checkpoint.extra_size = EXTRA_HEADER_SIZE + machine_size + sessions_size;
        checkpoint.stage = Stage::Blocks;
        let extra = &checkpoint.extra[..checkpoint.extra_size];
        self.machine.checkpoint_start(header.op, extra);
    }

    /// Goes on with the checkpoint in progress; whether there was progress.
    pub(super) fn pump_checkpoint(&mut self) -> bool {
        match self.checkpoint.stage {
            Stage::Idle => false,
            Stage::Blocks => {
                if !self.superblock.is_idle() {
                    return false;
                }
                let extra = &self.checkpoint.extra[..self.checkpoint.extra_size];
                let Fetch::Ready(root) = self.machine.checkpoint_step(extra) else {
                    return false;
                };
                let header = self.checkpoint.header;
                self.superblock.update(&mut self.outbox.storage, |superblock| {
                    superblock.checkpoint = header;
                    superblock.checkpoint_release = Release::SERVER;
                    superblock.root = root.bytes;
                    superblock.storage_size = root.storage_size;
                });
                self.checkpoint.stage = Stage::Superblock;
                true
            }
            Stage::Superblock => {
                if !self.superblock.is_idle() {
                    return false;
                }
                let durable = &self.superblock.durable().checkpoint;
                assert!(durable.as_bytes() == self.checkpoint.header.as_bytes());
                self.checkpoint.stage = Stage::Idle;
                true
            }
        }
    }

    /// Loads the state machine's part of the checkpoint and, at the end, the sessions; true when
    /// both are there.
    pub(super) fn checkpoint_load(&mut self) -> Result<bool, Fatal> {
        let op = self.superblock.durable().checkpoint.op;
        let Fetch::Ready(size) = self.machine.open_step(&mut self.checkpoint.extra) else {
            return Ok(false);
        };
        if op == 0 {
            return Ok(true);
        }
        let fault = |part, what| Fatal::Checkpoint { op, part, what };
        let bytes = &self.checkpoint.extra[..size];
        let parts = bytes.split_at_checked(EXTRA_HEADER_SIZE);
        let (head, rest) = parts.ok_or(fault("sizes", "no room for them"))?;
        let machine_size = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
        let parts = rest.split_at_checked(to_index(machine_size));
        let (machine, sessions) = parts.ok_or(fault("sizes", "larger than the whole"))?;
        self.machine.decode(machine).map_err(|what| fault("state", what))?;
        self.sessions.decode(sessions, &self.pool).map_err(|what| fault("sessions", what))?;
        Ok(true)
    }
}
