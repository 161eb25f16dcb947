//! The keyed hash that places index entries.
//!
//! Keyed by the cluster, never by the process: what it gives reaches the disk and must be the same
//! on every replica and after every restart. A collision costs time, never correctness: whoever
//! gets a row from an index compares the row itself. Not covered: what a tag or a value means.

/// Key of the hash, derived from the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey {
    words: [u64; 4],
}

/// Odd constant of the sequence that spreads the cluster over the key.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl HashKey {
    /// The key of `cluster`.
    #[must_use]
    pub fn new(cluster: u128) -> HashKey {
        let (low, high) = halves(cluster);
        let mut state = spread(low ^ STEP) ^ spread(high.wrapping_add(STEP));
        let mut words = [0; 4];
        for word in &mut words {
            state = state.wrapping_add(STEP);
            *word = spread(state);
        }
        HashKey { words }
    }
}

/// Hash of `value` under `tag`; never 0, which stands for "not indexed".
#[inline]
#[must_use]
pub fn hash(key: HashKey, tag: u8, value: u128) -> u64 {
    let (low, high) = halves(value);
    let tag = u64::from(tag).wrapping_add(1).wrapping_mul(STEP);
    let mixed = fold(low ^ key.words[0], high ^ key.words[1] ^ tag);
    let result = fold(mixed ^ key.words[2] ^ low.rotate_left(32), key.words[3] ^ tag ^ high);
    if result == 0 { 1 } else { result }
}

#[inline]
fn halves(value: u128) -> (u64, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    let halves = (value as u64, (value >> 64) as u64);
    halves
}

/// Product of both, its halves folded together.
#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let (low, high) = halves(u128::from(left) * u128::from(right));
    low ^ high
}

/// Spreads every bit over all bits; one to one.
fn spread(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Goal: the hash depends on key, tag and value, is never zero, and is stable across releases.
    #[test]
    fn depends_on_everything() {
        let key = HashKey::new(7);
        let base = hash(key, 1, 5);
        assert_ne!(base, hash(HashKey::new(8), 1, 5));
        assert_ne!(base, hash(HashKey::new(7 << 64), 1, 5));
        assert_ne!(base, hash(key, 2, 5));
        assert_ne!(base, hash(key, 1, 6));
        assert_ne!(base, hash(key, 1, 5 << 64));
        assert_eq!(base, hash(HashKey::new(7), 1, 5));
    }

    /// Goal: sequences of values that differ in few bits spread evenly over the top bits.
    #[test]
    fn spreads_sequences() {
        let key = HashKey::new(42);
        for shift in [0, 20, 64, 100] {
            let mut counts = [0_u32; 256];
            let mut seen = BTreeSet::new();
            for value in 0..65_536_u128 {
                let found = hash(key, 3, value << shift);
                counts[usize::try_from(found >> 56).unwrap()] += 1;
                assert!(seen.insert(found), "a collision of 64 bits among 65536 values");
            }
            let low = *counts.iter().min().unwrap();
            let high = *counts.iter().max().unwrap();
            assert!(low > 170 && high < 350, "shift {shift}: buckets from {low} to {high}");
        }
    }
}
