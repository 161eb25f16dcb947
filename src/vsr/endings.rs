//! Ends of sessions, for the log and the metrics: evictions that were sent, and sessions that made
//! way for new ones.
//!
//! A bounded queue that the world empties; what does not fit is only counted. Decides nothing. Not
//! covered: which session ends, see [`requests`](super::requests) and
//! [`sessions`](super::sessions).

use super::ConnectionId;
use crate::protocol::EvictionReason;
use crate::storage::Queue;

/// Ends that wait for the world.
const ENDINGS_MAX: usize = 8;
/// Reasons of evictions; their numbers begin with 1.
pub const EVICTION_REASONS: usize = 8;

/// A session ended against its client's will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client was evicted.
    Evicted {
        /// Its id.
        client: u128,
        /// The reason that it was given.
        reason: EvictionReason,
        /// Its connection, unless another replica handed the request over.
        connection: Option<ConnectionId>,
    },
    /// The least recently active session made way for another: the table is full.
    Displaced {
        /// The client whose session ended.
        client: u128,
        /// The client that registered.
        by: u128,
    },
}

/// What has ended since the start.
#[derive(Debug)]
pub struct Endings {
    queue: Queue<Ending>,
    evicted: [u64; EVICTION_REASONS],
    displaced: u64,
}

impl Endings {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Endings {
        Endings { queue: Queue::new(ENDINGS_MAX), evicted: [0; EVICTION_REASONS], displaced: 0 }
    }

    /// Notes an end.
    pub fn note(&mut self, ending: Ending) {
        match ending {
            Ending::Evicted { reason, .. } => self.evicted[reason as usize - 1] += 1,
            Ending::Displaced { .. } => self.displaced += 1,
        }
        if !self.queue.is_full() {
            self.queue.push(ending);
        }
    }

    /// The next end to report.
    pub fn take(&mut self) -> Option<Ending> {
        self.queue.pop()
    }

    /// Evictions by reason; the reason of number 1 comes first.
    #[must_use]
    pub fn evicted(&self) -> [u64; EVICTION_REASONS] {
        self.evicted
    }

    /// Sessions that made way.
    #[must_use]
    pub fn displaced(&self) -> u64 {
        self.displaced
    }
}

impl Default for Endings {
    fn default() -> Endings {
        Endings::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every end is counted, and as many as fit are kept, in order.
    #[test]
    fn counted_and_bounded() {
        let mut endings = Endings::new();
        endings.note(Ending::Displaced { client: 1, by: 2 });
        for client in 0..20 {
            let reason = EvictionReason::NoSession;
            endings.note(Ending::Evicted { client, reason, connection: None });
        }
        assert_eq!((endings.evicted()[0], endings.evicted()[1], endings.displaced()), (20, 0, 1));
        assert_eq!(endings.take(), Some(Ending::Displaced { client: 1, by: 2 }));
        assert_eq!(std::iter::from_fn(|| endings.take()).count(), ENDINGS_MAX - 1);
    }
}
