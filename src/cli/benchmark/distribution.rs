//! Which accounts a generated transfer is between.
//!
//! Uniform, or by Zipf's law with an exponent of 0.99: over accounts in no particular order, or
//! favouring the ones created last. Sampling is one multiplication and one table entry whatever
//! the number of accounts (an alias table: 8 bytes per account).

use crate::client::random::{Random, low_word};
use crate::protocol::to_index;

const ZIPF_EXPONENT: f64 = 0.99;
const THRESHOLD_ONE: f64 = 4_294_967_296.0;

/// The distribution of the chosen accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Distribution {
    /// All equally.
    Uniform,
    /// A few much more than most.
    Zipfian,
    /// The newest much more than most.
    Latest,
}

impl Distribution {
    /// The name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Distribution::Uniform => "uniform",
            Distribution::Zipfian => "zipfian",
            Distribution::Latest => "latest",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Share of the slot's own account, of 2^32.
    threshold: u32,
    /// The account that is meant otherwise.
    alias: u32,
}

/// Chooses indexes of accounts.
#[derive(Debug)]
pub struct Chooser {
    count: u32,
    /// Empty when all are equally likely.
    slots: Vec<Slot>,
}

impl Chooser {
    /// A chooser among `count` accounts.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[must_use]
    pub fn new(distribution: Distribution, count: u32, seed: u64) -> Chooser {
        assert!(count > 0);
        let slots = match distribution {
            Distribution::Uniform => Vec::new(),
            Distribution::Zipfian => {
                let mut weights = zipf_weights(count);
                shuffle(&mut weights, &mut Random::new(seed, u64::MAX));
                alias_table(&weights)
            }
            Distribution::Latest => {
                let mut weights = zipf_weights(count);
                weights.reverse();
                alias_table(&weights)
            }
        };
        Chooser { count, slots }
    }

    /// The index of an account.
    #[inline]
    pub fn choose(&self, random: &mut Random) -> u32 {
        let bits = random.next_u64();
        let index = low_word(((bits >> 32) * u64::from(self.count)) >> 32);
        if self.slots.is_empty() {
            return index;
        }
        let slot = self.slots[to_index(index)];
        if low_word(bits) < slot.threshold { index } else { slot.alias }
    }
}

/// Weights of ranks 1, 2, 3 and so on.
fn zipf_weights(count: u32) -> Vec<f64> {
    (1..=count).map(|rank| f64::from(rank).powf(-ZIPF_EXPONENT)).collect()
}

fn shuffle(weights: &mut [f64], random: &mut Random) {
    for last in (1..weights.len()).rev() {
        let bound = u64::try_from(last + 1).expect("lengths fit 64 bits");
        let other = usize::try_from(random.below(bound)).expect("below a length");
        weights.swap(last, other);
    }
}

/// The table by which one draw of 64 bits chooses an index with the given weights (Vose).
fn alias_table(weights: &[f64]) -> Vec<Slot> {
    let count = u32::try_from(weights.len()).expect("counts of accounts are of 32 bits");
    let mean = weights.iter().sum::<f64>() / f64::from(count);
    let mut scaled: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
    let (mut small, mut large): (Vec<u32>, Vec<u32>) =
        (0..count).partition(|index| scaled[to_index(*index)] < 1.0);
    let mut slots: Vec<Slot> =
        (0..count).map(|index| Slot { threshold: u32::MAX, alias: index }).collect();
    while let (Some(low), Some(high)) = (small.pop(), large.pop()) {
        let share = scaled[to_index(low)];
        slots[to_index(low)] = Slot { threshold: threshold(share), alias: high };
        scaled[to_index(high)] -= 1.0 - share;
        if scaled[to_index(high)] < 1.0 {
            small.push(high);
        } else {
            large.push(high);
        }
    }
    slots
}

/// A share of 0 to 1 as a part of 2^32.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn threshold(share: f64) -> u32 {
    // The conversion saturates, and a share of a 2^32nd more or less is of no importance.
    (share * THRESHOLD_ONE) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 200_000;

    fn frequencies(distribution: Distribution, count: u32) -> Vec<f64> {
        let chooser = Chooser::new(distribution, count, 3);
        let mut random = Random::new(5, 0);
        let mut counts = vec![0_u32; to_index(count)];
        for _ in 0..DRAWS {
            counts[to_index(chooser.choose(&mut random))] += 1;
        }
        counts.iter().map(|count| f64::from(*count) / f64::from(DRAWS)).collect()
    }

    fn check_near(actual: f64, expected: f64) {
        let error = (actual - expected).abs();
        assert!(error < 0.1 * expected + 0.001, "{actual} is not near {expected}");
    }

    /// Goal: uniform choices are even, and one account is always itself.
    #[test]
    fn uniform() {
        for frequency in frequencies(Distribution::Uniform, 50) {
            check_near(frequency, 0.02);
        }
        assert_eq!(frequencies(Distribution::Uniform, 1), [1.0]);
    }

    /// Goal: sorted by frequency, Zipfian choices follow 1 / rank^0.99, in no particular order.
    #[test]
    fn zipfian() {
        let actual = frequencies(Distribution::Zipfian, 1000);
        let weights = zipf_weights(1000);
        let total: f64 = weights.iter().sum();
        let mut sorted = actual.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for rank in [0, 1, 2, 5, 10, 50] {
            check_near(sorted[rank], weights[rank] / total);
        }
        assert!(actual[0] < sorted[0], "the most frequent account is not simply the first");
    }

    /// Goal: with `latest` the last account is the most frequent, then the one before.
    #[test]
    fn latest() {
        let actual = frequencies(Distribution::Latest, 1000);
        let weights = zipf_weights(1000);
        let total: f64 = weights.iter().sum();
        for rank in [0, 1, 2, 10] {
            check_near(actual[999 - rank], weights[rank] / total);
        }
        assert_eq!(frequencies(Distribution::Latest, 1), [1.0]);
    }
}
