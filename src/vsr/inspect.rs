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

    /// What the replica needs next and what it lacks, for people who look for why it is stuck.
    #[must_use]
    pub fn describe(&self) -> String {
        let next = self.commit.op + 1;
        let header = self.journal.header(next);
        let has = header.is_some_and(|header| self.journal.has(next, header.frame.checksum));
        format!(
            "log {}..{}, committed {}, next op {next}: known {}, here {has}, writing {}, can \
             write {}; doubted {:?}; last room {}, repair {:?}, executing {}, {:?}, {:?}, \
             messages {}",
            self.chain.op_min(),
            self.chain.head().op,
            self.commit_max,
            header.is_some(),
            self.journal.is_writing(next),
            self.journal.can_write(next),
            (next..=self.op_max()).filter(|op| self.journal.is_faulty(*op)).collect::<Vec<_>>(),
            self.op_max(),
            self.repair,
            !self.commit.is_idle(),
            self.sync,
            self.blocks,
            self.pool.available()
        )
    }
}
