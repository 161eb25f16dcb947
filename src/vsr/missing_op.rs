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

/// A refusal counts for so long: who said it may have fetched the op since. One of five others,
/// asked by chance, one each 100 ms, is not asked in that time once in 87 times.
const REFUSED_NS: u64 = 2 * STUCK_NS;

/// What is known of the op that is missing.
#[derive(Clone, Copy, Debug)]
pub struct MissingOp {
    op: u64,
    since_ns: u64,
    /// When each replica said last that it does not have it.
    refused_ns: [Option<u64>; REPLICAS_MAX as usize],
}

impl MissingOp {
    fn new(op: u64, now_ns: u64) -> MissingOp {
        MissingOp { op, since_ns: now_ns, refused_ns: [None; REPLICAS_MAX as usize] }
    }

    /// Notes that a replica does not have an op.
    fn refuse(&mut self, replica: u8, op: u64, now_ns: u64) {
        if op == self.op
            && let Some(refused_ns) = self.refused_ns.get_mut(usize::from(replica))
        {
            *refused_ns = Some(now_ns);
        }
    }

    /// Whether it has been missing for a while, since who has it may just be away, and all of those
    /// that are there, one at least, have said of late that they do not have it.
    fn is_nowhere(&self, now_ns: u64, mut are_there: impl Iterator<Item = u8>) -> bool {
        let refused = |at_ns: &Option<u64>| {
            at_ns.is_some_and(|at_ns| now_ns.saturating_sub(at_ns) < REFUSED_NS)
        };
        now_ns.saturating_sub(self.since_ns) >= STUCK_NS
            && self.refused_ns.iter().any(refused)
            && are_there.all(|replica| refused(&self.refused_ns[usize::from(replica)]))
    }
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
            self.missing = op.map(|op| MissingOp::new(op, self.now.monotonic_ns));
        }
    }

    /// Notes that a replica does not have the op that a `Checkpoint` names.
    pub(super) fn note_refusal(&mut self, message: &Message) {
        let peer = message.peer();
        if let Some(missing) = &mut self.missing {
            missing.refuse(peer.frame.replica, peer.op, self.now.monotonic_ns);
        }
    }

    /// Whether an op that is needed here can't be had from any replica that is there.
    pub(super) fn nobody_has_op(&self) -> bool {
        let now_ns = self.now.monotonic_ns;
        let heard_ns = now_ns.saturating_sub(HEARD_NS);
        let is_there = |replica: &u8| {
            *replica != self.options.replica && self.peers.was_heard(*replica, heard_ns)
        };
        let mut are_there = (0..self.options.replica_count).filter(is_there);
        self.missing.is_some_and(|missing| missing.is_nowhere(now_ns, &mut are_there))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an op is nowhere if it has been missing for a second and all that are there have said
    /// so within two; a refusal of another op is none, and nobody is no witness.
    #[test]
    fn refusals_fade() {
        let start_ns = 7 * STUCK_NS;
        let late_ns = start_ns + STUCK_NS;
        let mut missing = MissingOp::new(413, start_ns);
        assert!(!missing.is_nowhere(late_ns, [].into_iter()), "nobody has said so");
        missing.refuse(0, 412, start_ns);
        missing.refuse(REPLICAS_MAX, 413, start_ns);
        assert!(!missing.is_nowhere(late_ns, [].into_iter()), "another op, another kind of node");
        missing.refuse(0, 413, start_ns);
        assert!(!missing.is_nowhere(late_ns - 1, [0].into_iter()), "too early");
        assert!(missing.is_nowhere(late_ns, [0].into_iter()));
        assert!(!missing.is_nowhere(late_ns, [0, 2].into_iter()), "one has not been asked");
        missing.refuse(2, 413, late_ns);
        assert!(missing.is_nowhere(late_ns, [0, 2].into_iter()));
        assert!(missing.is_nowhere(start_ns + REFUSED_NS - 1, [0, 2].into_iter()));
        assert!(!missing.is_nowhere(start_ns + REFUSED_NS, [0, 2].into_iter()), "too long ago");
        missing.refuse(0, 413, start_ns + REFUSED_NS);
        assert!(missing.is_nowhere(start_ns + REFUSED_NS, [0, 2].into_iter()));
    }
}
