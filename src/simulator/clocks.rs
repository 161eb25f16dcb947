//! The clocks of simulated machines: each a little off, drifting, and jumping when told.

use super::random::Random;
use crate::protocol::NODES_MAX;
use crate::vsr::Now;

/// When runs begin, in nanoseconds since the Unix epoch: the first second of 2026.
const BEGINNING_NS: i128 = 1_767_225_600_000_000_000;
/// Honest clocks are off by so much at most.
const OFFSET_MAX_NS: u64 = 50_000_000;
/// Honest clocks run so much too fast or slow at most, in parts of a million.
const DRIFT_MAX: u64 = 50;
const MILLISECOND_NS: i128 = 1_000_000;

/// The clock of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: i128,
    drift_per_million: i128,
    /// What a fault added.
    error_ns: i128,
}

/// The true time, in nanoseconds since the Unix epoch.
#[must_use]
pub fn true_realtime_ns(elapsed_ns: u64) -> i128 {
    BEGINNING_NS + signed(elapsed_ns)
}

fn signed(value: u64) -> i128 {
    i128::from(value)
}

impl Clock {
    /// An honest clock.
    #[must_use]
    pub fn draw(random: &mut Random) -> Clock {
        let offset = random.below(2 * OFFSET_MAX_NS + 1);
        let drift = random.below(2 * DRIFT_MAX + 1);
        Clock {
            offset_ns: signed(offset) - signed(OFFSET_MAX_NS),
            drift_per_million: signed(drift) - signed(DRIFT_MAX),
            error_ns: 0,
        }
    }

    /// What it shows at this time of the run.
    ///
    /// # Panics
    ///
    /// Never: errors are far smaller than the time since 1970.
    #[must_use]
    pub fn now(&self, elapsed_ns: u64) -> Now {
        let elapsed = signed(elapsed_ns);
        let monotonic = elapsed + elapsed * self.drift_per_million / 1_000_000;
        let realtime = BEGINNING_NS + monotonic + self.offset_ns + self.error_ns;
        Now {
            realtime_ns: u64::try_from(realtime).expect("after 1970"),
            monotonic_ns: u64::try_from(monotonic).expect("drift is small"),
        }
    }

    /// Jumps forwards or back, up to two seconds; the error stays below ten.
    pub fn jump(&mut self, random: &mut Random) {
        let jump = signed(random.below(4_001)) - 2_000;
        self.error_ns =
            (self.error_ns + jump * MILLISECOND_NS).clamp(-9_000_000_000, 9_000_000_000);
    }

    /// Goes wrong by minutes to hours. No two nodes by the same time: a clock that was wrong until
    /// just now is still in the samples of the others, and one that agreed with it would be the
    /// second of what may be three.
    ///
    /// # Panics
    ///
    /// If there can be no such node.
    pub fn go_far(&mut self, node: usize, random: &mut Random) {
        let count = i128::from(NODES_MAX);
        let index = i128::try_from(node).expect("a few");
        assert!(index < count);
        let minutes = signed(random.between(1, 50)) * count + index;
        let sign = if random.chance(500_000) { 1 } else { -1 };
        self.error_ns = sign * minutes * 60 * 1000 * MILLISECOND_NS;
    }

    /// Is set right, as far as honest clocks are.
    pub fn repair(&mut self) {
        self.error_ns = 0;
    }

    /// Whether it is minutes off or more.
    #[must_use]
    pub fn is_far(&self) -> bool {
        self.error_ns.abs() >= 60_000 * MILLISECOND_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::random::Part;

    /// Goal: honest clocks agree within a tenth of a second, monotonic time never runs back, and a
    /// far clock is minutes off until it is repaired, no two by the same time.
    #[test]
    fn honest_and_far() {
        let mut random = Random::new(3, Part::Clocks, 0);
        let (first, mut second) = (Clock::draw(&mut random), Clock::draw(&mut random));
        let minute = 60_000_000_000;
        let difference = |first: &Clock, second: &Clock| {
            first.now(minute).realtime_ns.abs_diff(second.now(minute).realtime_ns)
        };
        assert!(difference(&first, &second) < 110_000_000);
        let before = second.now(minute - 1).monotonic_ns;
        second.go_far(1, &mut random);
        assert!(second.is_far() && difference(&first, &second) > 59_000_000_000);
        assert!(second.now(minute).monotonic_ns >= before);
        second.repair();
        assert!(!second.is_far() && difference(&first, &second) < 110_000_000);
        for _ in 0..1000 {
            let (mut first, mut second) = (first, second);
            first.go_far(0, &mut random);
            second.go_far(1, &mut random);
            assert!(difference(&first, &second) > 59_000_000_000);
        }
    }
}
