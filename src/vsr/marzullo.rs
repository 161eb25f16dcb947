//! Marzullo's question: where is the truth, if most of several uncertain sources contain it?
//!
//! Each source says that the truth lies in its interval; some sources are wrong. [`agree`] finds
//! the smallest interval consistent with the largest number of them. Pure arithmetic: what the
//! intervals measure, and how many sources are enough, is for the caller (see
//! [`clock`](super::clock)).

use crate::protocol::REPLICAS_MAX;

/// Sources at most: all replicas that vote, and one more.
pub const SOURCES_MAX: usize = REPLICAS_MAX as usize + 1;

/// What one source says: the truth is not below `low` and not above `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Lower bound, inclusive.
    pub low: i128,
    /// Upper bound, inclusive.
    pub high: i128,
}

impl Interval {
    /// The interval around `middle`.
    ///
    /// # Panics
    ///
    /// If `error` is negative.
    #[must_use]
    pub fn around(middle: i128, error: i128) -> Interval {
        assert!(error >= 0);
        Interval { low: middle - error, high: middle + error }
    }

    /// Distance of the bounds.
    #[must_use]
    pub fn width(&self) -> i128 {
        self.high - self.low
    }

    /// Both bounds moved outwards by `error`.
    ///
    /// # Panics
    ///
    /// If `error` is negative.
    #[must_use]
    pub fn widened(&self, error: i128) -> Interval {
        assert!(error >= 0);
        Interval { low: self.low - error, high: self.high + error }
    }
}

/// What most sources agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The interval common to all that agree.
    pub interval: Interval,
    /// How many agree.
    pub count: u32,
}

/// The smallest interval consistent with the largest number of sources; the lowest of several
/// equally small ones. Intervals that touch agree at the point where they do. `None` without
/// sources.
///
/// # Panics
///
/// If there are too many sources, or one's bounds are in the wrong order.
#[must_use]
pub fn agree(sources: &[Interval]) -> Option<Agreement> {
    assert!(sources.len() <= SOURCES_MAX);
    let mut best: Option<Agreement> = None;
    // What any set of sources has in common begins where one of them begins.
    for source in sources {
        assert!(source.low <= source.high, "the bounds of a source are in order");
        let low = source.low;
        let (mut high, mut count) = (source.high, 0);
        for other in sources {
            if other.low <= low && low <= other.high {
                high = high.min(other.high);
                count += 1;
            }
        }
        let found = Agreement { interval: Interval { low, high }, count };
        assert!(count > 0, "a source agrees with itself");
        let rank = |agreement: &Agreement| {
            (u32::MAX - agreement.count, agreement.interval.width(), agreement.interval.low)
        };
        if best.as_ref().is_none_or(|best| rank(&found) < rank(best)) {
            best = Some(found);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sources: &[(i128, i128)]) -> (i128, i128, u32) {
        let sources: Vec<Interval> =
            sources.iter().map(|(low, high)| Interval { low: *low, high: *high }).collect();
        let agreement = agree(&sources).unwrap();
        // The order of the sources does not matter.
        let mut turned = sources.clone();
        for _ in 0..sources.len() {
            turned.rotate_left(1);
            assert_eq!(agree(&turned), Some(agreement));
        }
        turned.reverse();
        assert_eq!(agree(&turned), Some(agreement));
        (agreement.interval.low, agreement.interval.high, agreement.count)
    }

    /// Goal: examples that a person can check: one source, overlaps, a liar, nested intervals.
    #[test]
    fn examples() {
        assert_eq!(agree(&[]), None);
        assert_eq!(found(&[(3, 9)]), (3, 9, 1));
        assert_eq!(found(&[(8, 12), (11, 13), (10, 12)]), (11, 12, 3));
        assert_eq!(found(&[(8, 12), (11, 13), (14, 15)]), (11, 12, 2));
        assert_eq!(found(&[(0, 100), (40, 60), (50, 51)]), (50, 51, 3));
        assert_eq!(found(&[(-5, -1), (-3, 4), (1000, 1001)]), (-3, -1, 2));
    }

    /// Goal: touching intervals agree at a point; disjoint ones do not agree, and then the smallest
    /// wins; among equals the lowest; identical sources all count.
    #[test]
    fn ties_touching_and_disjoint() {
        assert_eq!(found(&[(0, 5), (5, 9)]), (5, 5, 2));
        assert_eq!(found(&[(0, 5), (6, 9), (20, 40)]), (6, 9, 1));
        assert_eq!(found(&[(0, 5), (10, 15)]), (0, 5, 1));
        assert_eq!(found(&[(0, 4), (2, 6), (10, 12), (11, 20)]), (11, 12, 2));
        assert_eq!(found(&[(0, 4), (2, 6), (10, 14), (12, 20)]), (2, 4, 2));
        assert_eq!(found(&[(7, 7), (7, 7), (7, 7)]), (7, 7, 3));
        assert_eq!(found(&[(1, 2), (2, 3), (3, 4)]), (2, 2, 2));
    }

    /// Goal: against a count point by point, for many small intervals.
    #[test]
    fn like_counting_every_point() {
        let mut state: u64 = 1;
        let mut below = |limit: i128| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            i128::from(state >> 33) % limit
        };
        for _ in 0..2_000 {
            let count = usize::try_from(1 + below(7)).unwrap();
            let sources: Vec<Interval> = (0..count)
                .map(|_| {
                    let low = below(20);
                    Interval { low, high: low + below(8) }
                })
                .collect();
            let agreement = agree(&sources).unwrap();
            let at = |point: i128| {
                sources.iter().filter(|source| source.low <= point && point <= source.high).count()
            };
            let most = (0..40).map(at).max().unwrap();
            assert_eq!(to_count(agreement.count), most);
            for point in agreement.interval.low..=agreement.interval.high {
                assert_eq!(at(point), most);
            }
        }
    }

    fn to_count(count: u32) -> usize {
        crate::protocol::to_index(count)
    }
}
