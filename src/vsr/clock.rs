//! The primary's clock: timestamps that strictly increase whatever the system's clock does.

use crate::protocol::types::TIMESTAMP_MAX;

/// What a world tells the replica about time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the Unix epoch; may jump and run back.
    pub realtime_ns: u64,
    /// Nanoseconds since some point; never runs back.
    pub monotonic_ns: u64,
}

/// Hands out timestamps, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrimaryClock {
    /// The newest one handed out, or found in the log.
    pub newest: u64,
}

impl PrimaryClock {
    /// Where the clock would stand now, before any span.
    #[must_use]
    pub fn peek(&self, now: Now) -> u64 {
        now.realtime_ns.min(TIMESTAMP_MAX / 2).max(self.newest + 1)
    }

    /// The timestamp of the next commit; `span` events before and including it are its own too.
    ///
    /// # Panics
    ///
    /// If timestamps run out, 146 years after the limit of clocks taken seriously.
    pub fn advance(&mut self, now: Now, span: u64) -> u64 {
        self.newest = self.peek(now) + span;
        assert!(self.newest <= TIMESTAMP_MAX, "timestamps do not run out");
        self.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: timestamps strictly increase and leave room for spans, whatever real time does.
    #[test]
    fn strictly_increasing() {
        let mut clock = PrimaryClock::default();
        let at = |realtime_ns| Now { realtime_ns, monotonic_ns: 0 };
        assert_eq!(clock.advance(at(100), 0), 100);
        assert_eq!(clock.advance(at(100), 0), 101);
        assert_eq!(clock.advance(at(50), 8189), 102 + 8189);
        assert_eq!(clock.advance(at(0), 1), 102 + 8189 + 2);
        assert_eq!(clock.advance(at(1_000_000), 3), 1_000_003);
        assert_eq!(clock.peek(at(u64::MAX)), TIMESTAMP_MAX / 2);
    }
}
