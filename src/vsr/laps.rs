//! How long the stages of the work take: what the replica knows of it.
//!
//! The replica has no clock: it knows when a stage began, by the time it was told with some input,
//! and that it has ended, with this input or now. It leaves both in a bounded queue, and the world,
//! which has a clock, measures the rest. A world that never takes them loses nothing else. Not
//! covered: what is done with durations.

use crate::storage::Queue;

/// Ends of stages between two visits of the world at most; more are not measured.
const LAPS_MAX: usize = 512;
/// Writes of the log whose beginning is remembered: more than can be under way.
const WRITES: usize = 64;

/// A part of the work that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// A request from its acceptance to its prepare, on the primary.
    Queue,
    /// A prepare from its arrival until it is durable in the log here.
    Log,
    /// A prepare from its making until a quorum has it, on the primary.
    Commit,
    /// An op from the beginning of its execution to the end, with waiting for pages.
    Execute,
    /// A request from its acceptance until its reply is handed to the network, on the primary.
    Request,
    /// A checkpoint from its op until it is durable.
    Checkpoint,
    /// From leaving a view to taking part in another.
    ViewChange,
    /// A reply from being handed to the network until the kernel has taken all of it.
    Reply,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Stage; 8] = [
        Stage::Queue,
        Stage::Log,
        Stage::Commit,
        Stage::Execute,
        Stage::Request,
        Stage::Checkpoint,
        Stage::ViewChange,
        Stage::Reply,
    ];

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Log => "log",
            Stage::Commit => "commit",
            Stage::Execute => "execute",
            Stage::Request => "request",
            Stage::Checkpoint => "checkpoint",
            Stage::ViewChange => "view_change",
            Stage::Reply => "reply",
        }
    }
}

/// A stage that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    /// Which one.
    pub stage: Stage,
    /// When it began, by the monotonic clock in nanoseconds.
    pub since_ns: u64,
    /// When it ended; `None` if that is now, when the lap is taken.
    pub until_ns: Option<u64>,
}

/// The stages that have ended, and the beginnings of some that have not.
#[derive(Debug)]
pub struct Laps {
    ended: Queue<Lap>,
    /// Op and beginning of the newest writes of the log, by op.
    writes: [(u64, u64); WRITES],
    /// When the op being executed was begun.
    pub execute_ns: u64,
    /// When the checkpoint in progress was begun.
    pub checkpoint_ns: u64,
    /// When the view was left; `None` while taking part in one.
    pub change_ns: Option<u64>,
}

impl Laps {
    /// None yet.
    #[must_use]
    pub fn new() -> Laps {
        Laps {
            ended: Queue::new(LAPS_MAX),
            writes: [(0, 0); WRITES],
            execute_ns: 0,
            checkpoint_ns: 0,
            change_ns: None,
        }
    }

    /// Notes that a stage has ended just now which began then.
    pub fn end(&mut self, stage: Stage, since_ns: u64) {
        self.push(Lap { stage, since_ns, until_ns: None });
    }

    /// Notes that a stage ended with the input that told so, before what else that led to.
    pub fn end_at(&mut self, stage: Stage, since_ns: u64, until_ns: u64) {
        self.push(Lap { stage, since_ns, until_ns: Some(until_ns) });
    }

    fn push(&mut self, lap: Lap) {
        if !self.ended.is_full() {
            self.ended.push(lap);
        }
    }

    /// The next stage that has ended.
    pub fn take(&mut self) -> Option<Lap> {
        self.ended.pop()
    }

    /// Notes that the write of an op to the log begins.
    pub fn write_began(&mut self, op: u64, now_ns: u64) {
        self.writes[Laps::place(op)] = (op, now_ns);
    }

    /// Notes that an op is durable in the log since `now_ns`.
    pub fn write_ended(&mut self, op: u64, now_ns: u64) {
        let (began, since_ns) = self.writes[Laps::place(op)];
        if began == op && op > 0 {
            self.writes[Laps::place(op)] = (0, 0);
            self.end_at(Stage::Log, since_ns, now_ns);
        }
    }

    fn place(op: u64) -> usize {
        usize::try_from(op % 64).expect("a remainder is small")
    }
}

static_assertions::const_assert!(WRITES == 64);

impl Default for Laps {
    fn default() -> Laps {
        Laps::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: ends come out in order, a write's with its beginning, and too many are dropped.
    #[test]
    fn in_order() {
        let mut laps = Laps::new();
        laps.write_began(5, 100);
        laps.write_began(6, 110);
        laps.end(Stage::Queue, 90);
        laps.write_ended(5, 150);
        laps.write_ended(5, 160);
        laps.write_ended(70, 170);
        let queue = Lap { stage: Stage::Queue, since_ns: 90, until_ns: None };
        assert_eq!(laps.take(), Some(queue));
        let log = Lap { stage: Stage::Log, since_ns: 100, until_ns: Some(150) };
        assert_eq!(laps.take(), Some(log));
        assert_eq!(laps.take(), None);
        for _ in 0..2 * LAPS_MAX {
            laps.end(Stage::Execute, 1);
        }
        assert_eq!(std::iter::from_fn(|| laps.take()).count(), LAPS_MAX);
        let mut names = Stage::ALL.map(Stage::name).to_vec();
        names.dedup();
        assert_eq!(names.len(), Stage::ALL.len());
    }
}
