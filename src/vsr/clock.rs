//! Time: timestamps that strictly increase whatever the system's clock does, and a cluster's
//! agreement on what time it is.
//!
//! Replicas ask each other for the time. An answer says, with an error of half the round trip,
//! how far another's clock is from our *monotonic* one, so that jumps of our own clock change
//! nothing about what was learned. What a majority agrees on bounds our clock; a replica whose
//! clock no majority confirms has no time, and must not hand out timestamps. Not covered: who is
//! asked how often, and the messages.

use super::marzullo::{Interval, SOURCES_MAX, agree};
use crate::protocol::REPLICAS_MAX;
use crate::protocol::types::TIMESTAMP_MAX;

/// How long samples are collected before an agreement is renewed from them, in nanoseconds.
const WINDOW_NS: u64 = 5_000_000_000;
/// How long an agreement holds without being renewed, in nanoseconds.
const AGREEMENT_AGE_MAX_NS: u64 = 60_000_000_000;
/// Clocks run apart by no more than one nanosecond in so many: 200 parts per million.
const DRIFT_DIVISOR: u64 = 5_000;
/// An agreement wider than this says nothing, in nanoseconds. Honest clocks differ by less.
const WIDTH_MAX_NS: i128 = 10_000_000_000;
/// First step of the tolerance for clocks that are not set alike, in nanoseconds; it is doubled
/// until a majority agrees.
const TOLERANCE_FIRST_NS: i128 = 1_000;

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

/// Our own clock against what a majority agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Nanoseconds by which ours is ahead of the middle of the agreement.
    pub offset_ns: i64,
    /// Nanoseconds by which that middle may be wrong, to either side.
    pub error_ns: u64,
}

/// What was learned of one replica's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    /// Its real time minus our monotonic time.
    offset: i128,
    /// How wrong the offset may be, when it was learned.
    error: i128,
    /// Our monotonic time then.
    learned_ns: u64,
}

impl Sample {
    /// How wrong the offset may be now.
    fn error_at(&self, monotonic_ns: u64) -> i128 {
        self.error + drift(monotonic_ns.saturating_sub(self.learned_ns))
    }
}

/// What a majority agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Agreed {
    /// Real time minus our monotonic time, when it was agreed.
    offset: Interval,
    /// Our monotonic time then.
    agreed_ns: u64,
}

/// What time it is, as far as a majority of the cluster confirms it.
#[derive(Clone, Copy, Debug)]
pub struct ClusterClock {
    replica: u8,
    replica_count: u8,
    /// The best sample of each replica in the present window.
    samples: [Option<Sample>; REPLICAS_MAX as usize],
    /// When the first answer of the present window came; `None` before the first of all.
    window_start_ns: Option<u64>,
    agreed: Option<Agreed>,
}

impl ClusterClock {
    /// A clock that knows of nobody yet. `replica` may be a standby's index, which is none of the
    /// `replica_count` that vote.
    ///
    /// # Panics
    ///
    /// If there are no or too many replicas.
    #[must_use]
    pub fn new(replica: u8, replica_count: u8) -> ClusterClock {
        assert!((1..=REPLICAS_MAX).contains(&replica_count));
        let samples = [None; REPLICAS_MAX as usize];
        ClusterClock { replica, replica_count, samples, window_start_ns: None, agreed: None }
    }

    /// What to send with a question for the time, and to be echoed with the answer.
    #[must_use]
    pub fn ping(&self, now: Now) -> u64 {
        now.monotonic_ns
    }

    /// Takes the answer of replica `peer`: the time it was asked, of our monotonic clock, and the
    /// peer's real time. Answers of replicas that do not vote, and nonsense, are ignored.
    pub fn learn(&mut self, peer: u8, ping_monotonic_ns: u64, peer_realtime_ns: u64, now: Now) {
        let voter = peer < self.replica_count && peer != self.replica;
        let Some(round_trip_ns) = now.monotonic_ns.checked_sub(ping_monotonic_ns) else { return };
        let useful = i128::from(round_trip_ns) <= WIDTH_MAX_NS;
        if !voter || !useful || peer_realtime_ns > TIMESTAMP_MAX {
            return;
        }
        // The peer read its clock at some time of the round trip.
        let half = i128::from(round_trip_ns.div_ceil(2));
        let sample = Sample {
            offset: i128::from(peer_realtime_ns) + half - i128::from(now.monotonic_ns),
            error: half + drift(round_trip_ns),
            learned_ns: now.monotonic_ns,
        };
        let best = &mut self.samples[usize::from(peer)];
        let is_better = |best: Sample| {
            let error = best.error_at(now.monotonic_ns);
            // What cannot both be true of one clock says that it was set in between.
            let was_set =
                best.offset.abs_diff(sample.offset) > (error + sample.error).unsigned_abs();
            sample.error <= error || was_set
        };
        if best.is_none_or(is_better) {
            *best = Some(sample);
        }
        self.renew(now);
    }

    /// The time now in nanoseconds since the Unix epoch: our own clock's, bounded by what a
    /// majority agrees on. `None` while none does. Alone, our own clock's.
    #[must_use]
    pub fn realtime(&self, now: Now) -> Option<u64> {
        if self.replica_count == 1 {
            return Some(now.realtime_ns);
        }
        let agreed = self.agreed.filter(|agreed| !agreed.is_expired(now))?;
        let age_ns = now.monotonic_ns.saturating_sub(agreed.agreed_ns);
        let offset = agreed.offset.widened(drift(age_ns));
        if offset.width() > WIDTH_MAX_NS {
            return None;
        }
        let monotonic = i128::from(now.monotonic_ns);
        let own = i128::from(now.realtime_ns);
        let bounded = own.clamp(monotonic + offset.low, monotonic + offset.high);
        // A cluster that agrees on a time before the epoch has none.
        u64::try_from(bounded).ok()
    }

    /// How our own clock stands against the middle of what a majority agrees on; `None` alone, and
    /// while none does.
    ///
    /// # Panics
    ///
    /// Never: wider agreements say nothing.
    #[must_use]
    pub fn reading(&self, now: Now) -> Option<ClockReading> {
        let agreed = self.agreed.filter(|agreed| !agreed.is_expired(now))?;
        let age_ns = now.monotonic_ns.saturating_sub(agreed.agreed_ns);
        let interval = agreed.offset.widened(drift(age_ns));
        if self.replica_count == 1 || interval.width() > WIDTH_MAX_NS {
            return None;
        }
        let own = i128::from(now.realtime_ns) - i128::from(now.monotonic_ns);
        let middle = i128::midpoint(interval.low, interval.high);
        let bound = i128::from(i64::MAX);
        let offset_ns = (own - middle).clamp(-bound, bound);
        Some(ClockReading {
            offset_ns: i64::try_from(offset_ns).expect("clamped"),
            error_ns: u64::try_from(interval.width() / 2).expect("at most ten seconds"),
        })
    }

    /// Agrees anew when the window is over, or nothing is agreed on.
    fn renew(&mut self, now: Now) {
        let start_ns = *self.window_start_ns.get_or_insert(now.monotonic_ns);
        let over = now.monotonic_ns.saturating_sub(start_ns) >= WINDOW_NS;
        let needed = self.agreed.is_none_or(|agreed| agreed.is_expired(now));
        if !over && !needed {
            return;
        }
        if let Some(offset) = self.majority(now) {
            self.agreed = Some(Agreed { offset, agreed_ns: now.monotonic_ns });
        }
        if over {
            self.samples = [None; REPLICAS_MAX as usize];
            self.window_start_ns = Some(now.monotonic_ns);
        }
    }

    /// What a majority agrees on, with the smallest tolerance with which one does.
    fn majority(&self, now: Now) -> Option<Interval> {
        let mut sources = [Interval::default(); SOURCES_MAX];
        let mut count = 0;
        let mut add = |interval: Interval| {
            sources[count] = interval;
            count += 1;
        };
        if self.replica < self.replica_count {
            let own = i128::from(now.realtime_ns) - i128::from(now.monotonic_ns);
            add(Interval::around(own, 0));
        }
        for sample in self.samples.iter().flatten() {
            add(Interval::around(sample.offset, sample.error_at(now.monotonic_ns)));
        }
        let needed = u32::from(self.replica_count) / 2 + 1;
        let mut tolerance = 0;
        // Doubled from a microsecond to five seconds: less than thirty rounds.
        while 2 * tolerance <= WIDTH_MAX_NS {
            let mut tolerant = sources;
            for source in &mut tolerant[..count] {
                *source = source.widened(tolerance);
            }
            let agreement = agree(&tolerant[..count])?;
            if agreement.count >= needed {
                let interval = agreement.interval;
                return if interval.width() <= WIDTH_MAX_NS { Some(interval) } else { None };
            }
            tolerance = (tolerance * 2).max(TOLERANCE_FIRST_NS);
        }
        None
    }
}

impl Agreed {
    fn is_expired(&self, now: Now) -> bool {
        now.monotonic_ns.saturating_sub(self.agreed_ns) > AGREEMENT_AGE_MAX_NS
    }
}

/// How far two clocks may run apart in a span of time.
fn drift(span_ns: u64) -> i128 {
    i128::from(span_ns.div_ceil(DRIFT_DIVISOR))
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

    const SECOND: u64 = 1_000_000_000;
    const MILLISECOND: u64 = 1_000_000;
    /// Real time at monotonic time zero.
    const EPOCH: u64 = 1_700_000_000 * SECOND;

    /// Our time, with a clock that is ahead of the truth (or behind it).
    fn at(monotonic_ns: u64, ahead_ns: i64) -> Now {
        let realtime_ns = (EPOCH + monotonic_ns).checked_add_signed(ahead_ns).unwrap();
        Now { realtime_ns, monotonic_ns }
    }

    /// A peer whose clock is ahead answers, half a millisecond each way.
    fn answer(clock: &mut ClusterClock, peer: u8, now: Now, ahead_ns: i64) {
        let sent_ns = now.monotonic_ns - MILLISECOND;
        let read_ns = EPOCH + sent_ns + MILLISECOND / 2;
        let read_ns = read_ns.checked_add_signed(ahead_ns).unwrap();
        clock.learn(peer, sent_ns, read_ns, now);
    }

    /// Goal: alone there is always a time; otherwise only once a majority confirms it, and then it
    /// is our own clock's if that is among those that agree.
    #[test]
    fn majority_confirms() {
        let now = at(SECOND, 0);
        assert_eq!(ClusterClock::new(0, 1).realtime(now), Some(now.realtime_ns));
        for (count, answers) in [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3)] {
            let mut clock = ClusterClock::new(count - 1, count);
            for peer in 0..answers {
                assert_eq!(clock.realtime(now), None, "{count} replicas");
                answer(&mut clock, peer, now, 0);
            }
            assert_eq!(clock.realtime(now), Some(now.realtime_ns), "{count} replicas");
        }
    }

    /// Goal: a clock that is wrong is bounded by two that agree, whichever way it is wrong; a
    /// wrong peer changes nothing.
    #[test]
    fn wrong_clocks_are_bounded() {
        for ahead in [-3_600_000_000_000, -12_000_000_000, 12_000_000_000, 3_600_000_000_000] {
            let mut clock = ClusterClock::new(0, 3);
            let now = at(100 * SECOND, ahead);
            answer(&mut clock, 1, now, 0);
            assert_eq!(clock.realtime(now), None, "one peer disagrees by {ahead}");
            answer(&mut clock, 2, now, 0);
            let truth = EPOCH + now.monotonic_ns;
            let error = clock.realtime(now).unwrap().abs_diff(truth);
            assert!(error <= MILLISECOND, "wrong by {error}");

            let mut clock = ClusterClock::new(0, 3);
            let now = at(100 * SECOND, 0);
            answer(&mut clock, 1, now, ahead);
            answer(&mut clock, 2, now, 0);
            assert_eq!(clock.realtime(now), Some(now.realtime_ns));
        }
    }

    /// Goal: clocks that differ by some seconds still agree, on a time between them; those that
    /// differ by more than the tolerance never do.
    #[test]
    fn tolerance() {
        for (ahead, agrees) in [(2 * SECOND, true), (7 * SECOND, true), (11 * SECOND, false)] {
            let mut clock = ClusterClock::new(1, 2);
            let now = at(SECOND, 0);
            answer(&mut clock, 0, now, i64::try_from(ahead).unwrap());
            let found = clock.realtime(now);
            assert_eq!(found.is_some(), agrees, "{ahead}");
            if let Some(found) = found {
                assert!(found >= now.realtime_ns && found <= now.realtime_ns + ahead);
            }
        }
    }

    /// Goal: a jump of our own clock after the agreement does not move the time; without answers
    /// the agreement ends, and it comes back with them.
    #[test]
    fn jumps_and_expiry() {
        let mut clock = ClusterClock::new(0, 3);
        answer(&mut clock, 1, at(SECOND, 0), 0);
        assert!(clock.realtime(at(SECOND, 0)).is_some());
        let jumped = at(2 * SECOND, 3_600_000_000_000);
        let error = clock.realtime(jumped).unwrap().abs_diff(EPOCH + 2 * SECOND);
        assert!(error <= 2 * MILLISECOND, "wrong by {error}");
        let back = at(3 * SECOND, -3_600_000_000_000);
        let error = clock.realtime(back).unwrap().abs_diff(EPOCH + 3 * SECOND);
        assert!(error <= 2 * MILLISECOND, "wrong by {error}");
        assert!(clock.realtime(at(61 * SECOND, 0)).is_some());
        assert_eq!(clock.realtime(at(62 * SECOND, 0)), None);
        answer(&mut clock, 2, at(63 * SECOND, 0), 0);
        assert!(clock.realtime(at(63 * SECOND, 0)).is_some());
    }

    /// Goal: the agreement follows the majority window after window, and stays as long as a window
    /// does not agree.
    #[test]
    fn windows() {
        let mut clock = ClusterClock::new(0, 3);
        answer(&mut clock, 1, at(SECOND, 0), 0);
        answer(&mut clock, 2, at(SECOND, 0), 0);
        let hour = 3_600_000_000_000;
        for second in 2..8 {
            answer(&mut clock, 1, at(second * SECOND, 0), -hour);
            answer(&mut clock, 2, at(second * SECOND, 0), hour);
        }
        let now = at(8 * SECOND, 0);
        assert_eq!(clock.realtime(now), Some(now.realtime_ns));
        for second in 8..20 {
            answer(&mut clock, 1, at(second * SECOND, 0), hour);
            answer(&mut clock, 2, at(second * SECOND, 0), hour);
        }
        let now = at(20 * SECOND, 0);
        let found = clock.realtime(now).unwrap();
        assert!(found.abs_diff(now.realtime_ns + 3_600 * SECOND) < 10 * MILLISECOND);
    }

    /// Goal: of a clock that was set within a window, what it showed before counts no more, however
    /// slow the answers after that are.
    #[test]
    fn set_within_a_window() {
        let hour = 3_600_000_000_000;
        let mut clock = ClusterClock::new(0, 3);
        let wrong = at(SECOND, hour);
        answer(&mut clock, 1, wrong, hour);
        let slow = at(2 * SECOND, hour);
        clock.learn(1, SECOND, EPOCH + 3 * SECOND / 2, slow);
        for second in 6..8 {
            answer(&mut clock, 2, at(second * SECOND, hour), 0);
        }
        let now = at(8 * SECOND, hour);
        let found = clock.realtime(now).unwrap();
        assert!(found.abs_diff(EPOCH + 8 * SECOND) < SECOND, "it is {found}");
    }

    /// Goal: nonsense, echoes from the future, useless round trips, standbys and ourselves are no
    /// sources; of several samples the best counts.
    #[test]
    fn only_useful_samples_count() {
        let now = at(100 * SECOND, 0);
        let mut clock = ClusterClock::new(0, 3);
        answer(&mut clock, 0, now, 0);
        answer(&mut clock, 3, now, 0);
        answer(&mut clock, 255, now, 0);
        clock.learn(1, 101 * SECOND, now.realtime_ns, now);
        clock.learn(1, 0, now.realtime_ns, now);
        clock.learn(1, 99 * SECOND, u64::MAX, now);
        assert_eq!(clock.realtime(now), None);
        assert_eq!(clock.ping(now), now.monotonic_ns);

        // A slow answer says little: a wrong clock of our own passes by it, by a fast one not.
        let mut clock = ClusterClock::new(9, 2);
        let slow = |clock: &mut ClusterClock, peer| {
            clock.learn(peer, 98 * SECOND, EPOCH + 99 * SECOND, now);
        };
        answer(&mut clock, 0, now, 0);
        slow(&mut clock, 0);
        assert_eq!(clock.realtime(now), None, "a standby is no source itself");
        slow(&mut clock, 1);
        let wrong = at(100 * SECOND, 900_000_000);
        let error = clock.realtime(wrong).unwrap().abs_diff(EPOCH + 100 * SECOND);
        assert!(error <= MILLISECOND, "wrong by {error}");
    }
}
