//! The ids of generated accounts and transfers: a function of their number, so that they can be
//! generated again.

use crate::client::random::mix;

/// The order in which ids are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IdOrder {
    /// Time-ordered, as clients make them.
    Tbid,
    /// 1, 2, 3 and so on.
    Sequential,
    /// In no order at all.
    Random,
    /// From the largest down.
    Reversed,
}

impl IdOrder {
    /// The name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            IdOrder::Tbid => "tbid",
            IdOrder::Sequential => "sequential",
            IdOrder::Random => "random",
            IdOrder::Reversed => "reversed",
        }
    }
}

/// The ids of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdRange {
    /// The first id and those after it.
    Ascending(u128),
    /// The first id and those before it.
    Descending(u128),
    /// Scattered over all ids; the number of the first record and the seed.
    Scattered(u64, u64),
}

impl IdRange {
    /// Ids of records that are numbered from `index`; `tbid` is the first id of a reserved range.
    ///
    /// # Panics
    ///
    /// If ids are time-ordered and no range was reserved.
    #[must_use]
    pub fn new(order: IdOrder, index: u64, tbid: u128, seed: u64) -> IdRange {
        match order {
            IdOrder::Tbid => {
                assert_ne!(tbid, 0, "ids are reserved before they are used");
                IdRange::Ascending(tbid)
            }
            IdOrder::Sequential => IdRange::Ascending(u128::from(index) + 1),
            IdOrder::Reversed => IdRange::Descending(u128::MAX - 1 - u128::from(index)),
            IdOrder::Random => IdRange::Scattered(index, seed),
        }
    }

    /// The id at this place of the range. Never zero and never all ones.
    #[inline]
    #[must_use]
    pub fn at(self, offset: u64) -> u128 {
        match self {
            IdRange::Ascending(first) => first + u128::from(offset),
            IdRange::Descending(first) => first - u128::from(offset),
            IdRange::Scattered(first, seed) => {
                // The upper half is one to one in the number, so ids never repeat.
                let high = mix((first + offset).wrapping_add(mix(seed ^ 0x5bd1_e995)));
                let low = mix(high ^ seed);
                (u128::from(high) << 64 | u128::from(low) | 1) & !2
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Goal: in every order ids are valid and do not repeat, whatever the batch boundaries.
    #[test]
    fn unique_and_independent_of_batches() {
        for order in [IdOrder::Sequential, IdOrder::Random, IdOrder::Reversed] {
            let whole = IdRange::new(order, 0, 0, 9);
            let mut ids = BTreeSet::new();
            for index in 0..5000 {
                let id = whole.at(index);
                assert!(id != 0 && id != u128::MAX);
                assert!(ids.insert(id));
                assert_eq!(IdRange::new(order, index, 0, 9).at(0), id);
            }
        }
    }

    /// Goal: each order is the one of its name.
    #[test]
    fn orders() {
        assert_eq!(IdRange::new(IdOrder::Sequential, 0, 0, 0).at(2), 3);
        assert_eq!(IdRange::new(IdOrder::Reversed, 0, 0, 0).at(2), u128::MAX - 3);
        assert_eq!(IdRange::new(IdOrder::Tbid, 100, 77, 0).at(2), 79);
        let random = IdRange::new(IdOrder::Random, 0, 0, 1);
        let ascents = (0..1000).filter(|index| random.at(*index) < random.at(index + 1)).count();
        assert!((400..600).contains(&ascents), "{ascents}");
        assert_ne!(random.at(0), IdRange::new(IdOrder::Random, 0, 0, 2).at(0));
    }
}
