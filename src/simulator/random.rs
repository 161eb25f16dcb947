//! Random numbers of a seed: one independent stream for each part of the simulator.
//!
//! A draw more or less in one part leaves the others as they were, so that a failure survives
//! small changes of its surroundings.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// One million: probabilities are given in parts of it.
pub const MILLION: u64 = 1_000_000;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

/// The parts that have streams; those with several members add an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The draw of the whole run.
    Swarm = 1,
    /// Delays of packets.
    Network = 2,
    /// Clocks of all replicas.
    Clocks = 3,
    /// What clients do and when.
    Clients = 4,
    /// What the phases of a run choose.
    Phases = 5,
    /// A hostile client.
    Hostile = 6,
    /// Latencies and crashes of the disk of replica i.
    Disk = 100,
    /// Durations of the jobs of replica i.
    Jobs = 200,
    /// What a replica uses as its own randomness.
    Replica = 300,
    /// Whether and how fault i strikes.
    Fault = 400,
    /// Whether fault i is on, and how often it strikes.
    FaultDraw = 500,
}

impl Random {
    /// The stream of member `index` of a part.
    ///
    /// # Panics
    ///
    /// If an invariant of the simulator is broken.
    #[must_use]
    pub fn new(seed: u64, part: Part, index: usize) -> Random {
        assert!(index < 100, "members of parts are few");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(part as u64 + index as u64);
        Random(random)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// The generator behind it.
    pub fn generator(&mut self) -> &mut ChaCha8Rng {
        &mut self.0
    }

    /// A number below `end`, zero if that is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.next_u64() % end }
    }

    /// A number of a range, both ends included.
    ///
    /// # Panics
    ///
    /// If the range is empty.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        assert!(least <= most);
        least + self.below(most - least + 1)
    }

    /// An index below `end`.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn index(&mut self, end: usize) -> usize {
        assert!(end > 0);
        crate::storage::index_of(self.below(crate::storage::count_of(end)))
    }

    /// True in so many of a million cases.
    pub fn chance(&mut self, per_million: u64) -> bool {
        self.below(MILLION) < per_million
    }

    /// A number of a range whose logarithm is spread evenly: small ones are as likely as large
    /// ones.
    ///
    /// # Panics
    ///
    /// If an invariant of the simulator is broken.
    pub fn scale(&mut self, least: u64, most: u64) -> u64 {
        assert!(0 < least && least <= most);
        let doublings = u64::from((most / least).ilog2());
        let low = least << self.below(doublings + 1);
        self.between(low, (2 * low).min(most).max(low))
    }

    /// A delay of at least `least` whose excess is about exponential around `mean`.
    pub fn delay(&mut self, least: u64, mean: u64) -> u64 {
        // The number of leading zeros of a random word is geometric: doublings of the mean.
        let word = self.number() | 1;
        let doublings = u64::from(word.leading_zeros()).min(6);
        let limit = (mean / 2) << doublings;
        least + self.below(limit + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: streams differ by seed, part and index, and are the same for the same.
    #[test]
    fn streams() {
        let first = |seed, part, index| Random::new(seed, part, index).number();
        assert_eq!(first(1, Part::Disk, 2), first(1, Part::Disk, 2));
        assert_ne!(first(1, Part::Disk, 2), first(1, Part::Disk, 3));
        assert_ne!(first(1, Part::Disk, 2), first(2, Part::Disk, 2));
        assert_ne!(first(1, Part::Network, 0), first(1, Part::Clocks, 0));
    }

    /// Goal: numbers stay in their ranges.
    #[test]
    fn ranges() {
        let mut random = Random::new(1, Part::Swarm, 0);
        for _ in 0..1000 {
            assert!((5..=9).contains(&random.between(5, 9)));
            assert!((3..=1000).contains(&random.scale(3, 1000)));
            assert!(random.delay(10, 100) >= 10);
            assert!(!random.chance(0) && random.chance(MILLION));
        }
        assert_eq!(random.below(0), 0);
    }
}
