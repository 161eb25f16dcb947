//! Split-block Bloom filters: which runs can be skipped when an id is looked up.
//!
//! A filter holds the top bits of hashes, those that entries of every level keep, so that a merge
//! can build the filter of its output from entries alone. Keys arrive in the order of these bits,
//! which is also the order of the filter's blocks: building walks through memory. Filters live in
//! a fixed number of slots; a run without one is simply searched. They are never on disk, and
//! after a restart runs have none until they merge. Not covered: which tag has filters (`table`).

use super::{count_of, index_of};

/// Words of a block: one cache line, one bit set in each word per key.
const BLOCK_WORDS: usize = 8;
/// Bits of filter per key.
const KEY_BITS: u64 = 24;

/// A filter for one run, in memory reserved before.
#[derive(Debug)]
pub struct Filter {
    words: Vec<u64>,
    /// Level of the runs it is large enough for.
    level: u32,
    /// Blocks in use.
    blocks: u64,
    /// The bits of a hash that count.
    mask: u64,
}

impl Filter {
    /// Memory for up to `keys_max` keys with the hash bits in `mask`.
    #[must_use]
    pub fn new(level: u32, keys_max: u64, mask: u64) -> Filter {
        let words = index_of(Filter::blocks_of(keys_max)) * BLOCK_WORDS;
        Filter { words: vec![0; words], level, blocks: 0, mask }
    }

    /// Bytes of a filter for `keys` keys.
    #[must_use]
    pub fn size_of(keys: u64) -> u64 {
        Filter::blocks_of(keys) * count_of(BLOCK_WORDS) * 8
    }

    fn blocks_of(keys: u64) -> u64 {
        (keys * KEY_BITS).div_ceil(count_of(BLOCK_WORDS) * 64).max(1)
    }

    /// Level of the runs it is large enough for.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Empties it for `keys` keys to come.
    ///
    /// # Panics
    ///
    /// If it was made for fewer.
    pub fn start(&mut self, keys: u64) {
        self.blocks = Filter::blocks_of(keys);
        let words = index_of(self.blocks) * BLOCK_WORDS;
        assert!(words <= self.words.len());
        self.words[..words].fill(0);
    }

    /// First word of the block of a key, and the key's bits spread for the choice of its bits.
    #[inline]
    fn place(&self, hash: u64) -> (usize, u64) {
        let key = hash & self.mask;
        let block = (u128::from(key) * u128::from(self.blocks)) >> 64;
        let block = u64::try_from(block).expect("a product with a fraction is below the factor");
        let mixed = (key ^ (key >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (index_of(block) * BLOCK_WORDS, mixed)
    }

    /// Adds a hash, or an entry made of it.
    #[inline]
    pub fn insert(&mut self, hash: u64) {
        let (start, mixed) = self.place(hash);
        let block = &mut self.words[start..start + BLOCK_WORDS];
        for (shift, word) in (16..).step_by(6).zip(block) {
            *word |= 1 << ((mixed >> shift) & 63);
        }
    }

    /// Whether the hash may have been added. "No" is certain.
    #[inline]
    #[must_use]
    pub fn may_contain(&self, hash: u64) -> bool {
        let (start, mixed) = self.place(hash);
        let block = &self.words[start..start + BLOCK_WORDS];
        let bits = (16..).step_by(6).zip(block);
        bits.fold(1, |all, (shift, word)| all & (word >> ((mixed >> shift) & 63))) & 1 == 1
    }
}

/// The filters not in use, by level.
#[derive(Debug)]
pub struct FilterPool {
    free: Vec<Filter>,
}

impl FilterPool {
    /// As many filters as fit `bytes_max`: up to `per_level` for each level, the lowest first,
    /// for the given number of keys each.
    #[must_use]
    pub fn new(keys_by_level: &[u64], per_level: usize, mask: u64, bytes_max: u64) -> FilterPool {
        let mut free = Vec::with_capacity(keys_by_level.len() * per_level);
        let mut left = bytes_max;
        for (level, keys) in (0..).zip(keys_by_level) {
            for _ in 0..per_level {
                let Some(rest) = left.checked_sub(Filter::size_of(*keys)) else {
                    return FilterPool { free };
                };
                left = rest;
                free.push(Filter::new(level, *keys, mask));
            }
        }
        FilterPool { free }
    }

    /// Bytes that the filters occupy together.
    #[must_use]
    pub fn memory_bytes(keys_by_level: &[u64], per_level: usize, bytes_max: u64) -> u64 {
        let all = keys_by_level.iter().flat_map(|keys| (0..per_level).map(|_| *keys));
        let mut used = 0;
        for size in all.map(Filter::size_of) {
            if used + size > bytes_max {
                break;
            }
            used += size;
        }
        used
    }

    /// A filter for a run of this level, if there is one.
    pub fn take(&mut self, level: u32) -> Option<Filter> {
        let at = self.free.iter().position(|filter| filter.level == level)?;
        Some(self.free.swap_remove(at))
    }

    /// Takes a filter back.
    ///
    /// # Panics
    ///
    /// If it is not from this pool.
    pub fn give(&mut self, filter: Filter) {
        assert!(self.free.len() < self.free.capacity());
        self.free.push(filter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::hash::{HashKey, hash};

    /// Goal: what was added is found whatever its low bits, and little else is.
    #[test]
    fn few_false_positives() {
        let key = HashKey::new(3);
        let low = (1 << 28) - 1;
        let mut filter = Filter::new(0, 20_000, !low);
        for keys in [1, 100, 20_000] {
            filter.start(keys);
            for value in 0..keys {
                filter.insert(hash(key, 0, value.into()) & !low);
            }
            for value in 0..keys {
                assert!(filter.may_contain(hash(key, 0, value.into())));
            }
            let others = 1_000_000..1_100_000_u64;
            let wrong = others.filter(|value| filter.may_contain(hash(key, 0, (*value).into())));
            let wrong = wrong.count();
            assert!(wrong < 200, "{wrong} of 100000 with {keys} keys");
        }
    }

    /// Goal: the pool keeps to its budget, lowest levels first.
    #[test]
    fn pool_keeps_its_budget() {
        let bytes = 3 * Filter::size_of(100) + Filter::size_of(800);
        let mut pool = FilterPool::new(&[100, 800, 6400], 3, !0, bytes);
        let filter = pool.take(1).unwrap();
        assert!(pool.take(1).is_none());
        assert!(pool.take(2).is_none());
        pool.give(filter);
        assert_eq!(pool.take(1).unwrap().level(), 1);
        assert!((0..3).all(|_| pool.take(0).is_some()));
        assert!(pool.take(0).is_none());
        let mut none = FilterPool::new(&[100], 3, !0, 0);
        assert!(none.take(0).is_none());
    }
}
