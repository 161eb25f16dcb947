//! Time-ordered identifiers, as the official clients make them.
//!
//! An id is 48 bits of milliseconds since the Unix epoch over 80 random bits. Ids of one generator
//! always increase: within a millisecond (or while the clock stands or goes back) the next id is
//! the last one plus one. Ids of several generators are unique by chance and nearly ordered.

use super::random::Random;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const RANDOM_BITS: u32 = 80;
const RANDOM_MASK: u128 = (1 << RANDOM_BITS) - 1;
const MILLISECONDS_MAX: u64 = (1 << 48) - 1;

/// The generator behind [`id`], made at the first call.
static SHARED: Mutex<Option<IdGenerator>> = Mutex::new(None);

/// A new id for an account or a transfer: larger than all that this process got before, from any
/// thread, and unlike those of all other processes. Make it once, and send it again if the outcome
/// of a request is unknown.
///
/// ```
/// let (first, second) = (florin::id(), florin::id());
/// assert!(first < second);
/// ```
///
/// # Panics
///
/// If the system's source of randomness cannot be read.
#[must_use]
pub fn id() -> u128 {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let random = Random::from_system().expect("the system gives random bytes");
        IdGenerator::new(random)
    };
    shared.get_or_insert_with(make).next_id()
}

/// A source of increasing ids. See the module.
#[derive(Clone, Debug)]
pub struct IdGenerator {
    random: Random,
    last: u128,
}

impl IdGenerator {
    /// A generator drawing its random bits from `random`.
    #[must_use]
    pub const fn new(random: Random) -> IdGenerator {
        IdGenerator { random, last: 0 }
    }

    /// The next id at the time of the system's clock.
    pub fn next_id(&mut self) -> u128 {
        self.reserve(milliseconds_now(), 1)
    }

    /// The first of `count` consecutive ids at `milliseconds` since the epoch.
    ///
    /// # Panics
    ///
    /// If `count` is zero or the clock is beyond 48 bits (the year 10889).
    pub fn reserve(&mut self, milliseconds: u64, count: u64) -> u128 {
        assert!(count > 0);
        assert!(milliseconds < MILLISECONDS_MAX, "a clock before the year 10889");
        let extra = u128::from(count - 1);
        let time_last = self.last >> RANDOM_BITS;
        let mut time = u128::from(milliseconds);
        if self.last != 0 && time <= time_last {
            if (self.last & RANDOM_MASK) + 1 + extra <= RANDOM_MASK {
                let first = self.last + 1;
                self.last = first + extra;
                return first;
            }
            // The millisecond's random bits are used up: borrow from the next one.
            time = time_last + 1;
        }
        // The upper bit stays clear, so that a millisecond has room for 2^79 ids and more.
        let random = self.random.next_u128() & (RANDOM_MASK >> 1);
        let first = time << RANDOM_BITS | random;
        assert!(first > self.last);
        self.last = first + extra;
        assert_ne!(self.last, u128::MAX);
        first
    }
}

/// Milliseconds since the Unix epoch by the system's clock; zero before it.
#[must_use]
pub fn milliseconds_now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator() -> IdGenerator {
        IdGenerator::new(Random::new(1, 1))
    }

    /// Goal: the upper 48 bits are the time, the lower ones vary with it.
    #[test]
    fn layout() {
        let mut ids = generator();
        let (first, second) = (ids.reserve(1000, 1), ids.reserve(1001, 1));
        assert_eq!(first >> 80, 1000);
        assert_eq!(second >> 80, 1001);
        assert_ne!(first & RANDOM_MASK, second & RANDOM_MASK);
        assert_ne!((first & RANDOM_MASK) + 1, second & RANDOM_MASK);
    }

    /// Goal: within a millisecond, and when the clock goes back, ids follow each other.
    #[test]
    fn monotonic() {
        let mut ids = generator();
        let first = ids.reserve(1000, 1);
        assert_eq!(ids.reserve(1000, 1), first + 1);
        assert_eq!(ids.reserve(999, 1), first + 2);
        let after = ids.reserve(1001, 1);
        assert!(after > first + 2);
        assert_eq!(after >> 80, 1001);
    }

    /// Goal: a reserved range is never handed out again.
    #[test]
    fn ranges() {
        let mut ids = generator();
        let first = ids.reserve(1000, 8189);
        assert_eq!(ids.reserve(1000, 1), first + 8189);
    }

    /// Goal: when a millisecond's random bits run out the next millisecond is used.
    #[test]
    fn exhausted_millisecond() {
        let mut ids = generator();
        ids.last = 1000 << 80 | RANDOM_MASK;
        let next = ids.reserve(1000, 1);
        assert_eq!(next >> 80, 1001);
        ids.last = 1000 << 80 | (RANDOM_MASK - 5);
        assert_eq!(ids.reserve(1000, 6) >> 80, 1001);
    }

    /// Goal: many ids at the real clock strictly increase.
    #[test]
    fn system_clock() {
        let mut ids = generator();
        let mut last = 0;
        for _ in 0..10_000 {
            let id = ids.next_id();
            assert!(id > last);
            last = id;
        }
    }

    /// Goal: the ids of all threads are different, and increase in each.
    #[test]
    fn shared() {
        let take = || (0..1000).map(|_| id()).collect::<Vec<u128>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(take)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let ids = thread.join().unwrap();
            assert!(ids.is_sorted());
            all.extend(ids);
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4000);
    }
}
