//! The next op to be executed, while it is missing here: since when, and who has said that it does
//! not have it either.
//!
//! Whoever is asked for a prepare or a header that it does not have says so, with a `Checkpoint`
//! that names the op. If all that are there have said so, only a newer checkpoint helps
//! ([`sync`](super::sync)): their logs need not reach back as far as a log can, for who has taken
//! a checkpoint over itself has nothing before it. To lose messages is no such reason: a checkpoint
//! that one replica has alone is taken over only if the log can't be had.

use super::machine::StateMachine;
use super::replica::Replica;
use super::sync::STUCK_NS;
use crate::protocol::{Message, REPLICAS_MAX};

/// Who was heard within so long is there: replicas ping each other more often.
const HEARD_NS: u64 = 500_000_000;

/// What is known of the op that is missing.
#[derive(Clone, Copy, Debug)]
pub struct MissingOp {
    op: u64,
    since_ns: u64,
    /// The replicas that have said that they do not have it.
    refused: [bool; REPLICAS_MAX as usize],
}

impl<M: StateMachine> Replica<M> {
    /// The committed op whose prepare, or header, has to be fetched before anything else can be
    /// executed.
    fn missing_op(&self) -> Option<u64> {
        let next = self.commit.op + 1;
        if !self.may_repair() || self.commit_max < next {
            return None;
        }
        if !self.chain.is_proven(next) {
            return Some(self.chain.op_min().saturating_sub(1).max(next));
        }
        let checksum = self.journal.header(next)?.frame.checksum;
        let here = self.journal.has(next, checksum) || self.journal.is_writing(next);
        (!here).then_some(next)
    }

    /// Lets time pass.
    pub(super) fn missing_tick(&mut self) {
        let op = self.missing_op();
        if op != self.missing.map(|missing| missing.op) {
            let since_ns = self.now.monotonic_ns;
            let refused = [false; REPLICAS_MAX as usize];
            self.missing = op.map(|op| MissingOp { op, since_ns, refused });
        }
    }

    /// Notes that a replica does not have the op that a `Checkpoint` names.
    pub(super) fn note_refusal(&mut self, message: &Message) {
        let peer = message.peer();
        let replica = usize::from(peer.frame.replica);
        if let Some(missing) = self.missing.as_mut().filter(|missing| missing.op == peer.op)
            && let Some(refused) = missing.refused.get_mut(replica)
        {
            *refused = true;
        }
    }

    /// Whether an op that is needed here has been missing for a while, since who has it may just be
    /// away, and all replicas that are there have said that they do not have it.
    pub(super) fn nobody_has_op(&self) -> bool {
        let Some(missing) = &self.missing else { return false };
        let now_ns = self.now.monotonic_ns;
        let heard_ns = now_ns.saturating_sub(HEARD_NS);
        let mut others = (0..self.options.replica_count).filter(|it| *it != self.options.replica);
        now_ns.saturating_sub(missing.since_ns) >= STUCK_NS
            && missing.refused.contains(&true)
            && others.all(|replica| {
                missing.refused[usize::from(replica)] || !self.peers.was_heard(replica, heard_ns)
            })
    }
}
