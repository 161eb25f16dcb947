//! What the simulator's checkers look at and production code has no use for.

use super::Opening;
use super::machine::StateMachine;
use super::replica::{Replica, Status};
use super::superblock::Superblock;
use crate::protocol::PrepareHeader;

impl<M: StateMachine> Replica<M> {
    /// Header of an op as the log has it, or should have it.
    #[must_use]
    pub fn log_header(&self, op: u64) -> Option<&PrepareHeader> {
        self.journal.header(op)
    }

    /// The durable superblock, once it was read.
    #[must_use]
    pub fn durable_superblock(&self) -> Option<&Superblock> {
        match self.status {
            Status::Opening(Opening::Start | Opening::Superblock) => None,
            _ => Some(self.superblock.durable()),
        }
    }
}
