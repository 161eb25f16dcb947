//! The clocks: what time it is, and how much time has passed.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::vsr::Now;

/// Reads both clocks. The monotonic one counts from the making of this value.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    offset_s: i64,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Clock {
        Clock::ahead(0)
    }

    /// A clock whose real time is wrong by so many seconds: to test what that does.
    #[must_use]
    pub fn ahead(offset_s: i64) -> Clock {
        Clock { origin: Instant::now(), offset_s }
    }

    /// Nanoseconds since this clock was made; never goes back.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        // 2^64 ns are 584 years: longer than any process.
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since 1970 by the system's clock, which people set: it may jump. Zero if it
    /// stands before 1970.
    #[must_use]
    pub fn realtime_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = i128::from(self.offset_s) * 1_000_000_000;
        let since_ns = i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
        u64::try_from(since_ns.saturating_add(offset).max(0)).unwrap_or(u64::MAX)
    }

    /// Both.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { realtime_ns: self.realtime_ns(), monotonic_ns: self.monotonic_ns() }
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: monotonic time never goes back and starts near zero; real time is plausible.
    #[test]
    fn both_clocks() {
        let clock = Clock::default();
        let mut last = clock.monotonic_ns();
        for _ in 0..1_000 {
            let now = clock.now();
            assert!(now.monotonic_ns >= last);
            last = now.monotonic_ns;
        }
        // 2020-01-01 .. 2200-01-01.
        let realtime_s = clock.now().realtime_ns / 1_000_000_000;
        assert!((1_577_836_800..7_258_118_400).contains(&realtime_s));
    }

    /// Goal: a clock that is to be wrong is, in both directions, and never before 1970.
    #[test]
    fn wrong_clocks() {
        let right_s = Clock::new().realtime_ns() / 1_000_000_000;
        let ahead_s = Clock::ahead(3600).realtime_ns() / 1_000_000_000;
        assert!((3_590..3_610).contains(&(ahead_s - right_s)), "{ahead_s} {right_s}");
        let behind_s = Clock::ahead(-3600).realtime_ns() / 1_000_000_000;
        assert!((3_590..3_610).contains(&(right_s - behind_s)), "{behind_s} {right_s}");
        assert_eq!(Clock::ahead(i64::MIN).realtime_ns(), 0);
    }
}
