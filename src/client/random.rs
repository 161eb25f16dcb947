//! Fast reproducible pseudo-random numbers: xoshiro256++.
//!
//! For identifiers, jitter and generated load, where uniqueness and speed matter. Not for secrets:
//! whoever sees enough of the output can predict the rest.

use std::io::Read;

/// A generator with 256 bits of state; equal seeds give equal sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: [u64; 4],
}

/// Spreads a counter over all 64 bits, one to one (the finaliser of splitmix64).
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Random {
    /// The sequence of `seed` and `stream`: streams of one seed are independent of each other.
    ///
    /// # Panics
    ///
    /// Never: the state is not zero, whatever the seed.
    #[must_use]
    pub const fn new(seed: u64, stream: u64) -> Random {
        let mut counter = mix(seed ^ 0x6a09_e667_f3bc_c909) ^ mix(stream.wrapping_add(1));
        let mut state = [0; 4];
        let mut index = 0;
        while index < state.len() {
            counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            state[index] = mix(counter);
            index += 1;
        }
        // The one state that never leaves itself: four zeros. `mix` is one to one over four
        // different counters, so at most one of them is zero.
        assert!(state[0] | state[1] != 0);
        Random { state }
    }

    /// A generator that nobody can repeat, seeded by the operating system.
    ///
    /// # Errors
    ///
    /// If the system's source of randomness cannot be read.
    pub fn from_system() -> std::io::Result<Random> {
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let value = u128::from_le_bytes(bytes);
        Ok(Random::new(low_half(value), low_half(value >> 64)))
    }

    /// 64 random bits.
    #[inline]
    pub const fn next_u64(&mut self) -> u64 {
        // The reference's order: s2 ^= s0; s3 ^= s1; s1 ^= s2; s0 ^= s3; s2 ^= s1 << 17.
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let c = c ^ a;
        let d = d ^ b;
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// 128 random bits.
    #[inline]
    pub fn next_u128(&mut self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }

    /// A number in `0..bound`, each as likely as the others (within 2^-32 for 32-bit bounds).
    ///
    /// # Panics
    ///
    /// If the bound is zero.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        let product = u128::from(self.next_u64()) * u128::from(bound);
        low_half(product >> 64)
    }
}

/// The low 64 bits of a number of 128.
#[inline]
#[must_use]
pub const fn low_half(value: u128) -> u64 {
    let bytes = value.to_le_bytes();
    let (low, _) = bytes.split_at(8);
    match low.first_chunk() {
        Some(low) => u64::from_le_bytes(*low),
        None => unreachable!(),
    }
}

/// The low 32 bits of a number of 64.
#[inline]
#[must_use]
pub const fn low_word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the sequence is xoshiro256++: the reference's first values from state 1, 2, 3, 4.
    #[test]
    fn reference_vector() {
        let mut random = Random { state: [1, 2, 3, 4] };
        let values: Vec<u64> = (0..4).map(|_| random.next_u64()).collect();
        assert_eq!(values, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    /// Goal: equal seeds repeat, different seeds and streams do not.
    #[test]
    fn seeds_and_streams() {
        let take = |seed, stream| Random::new(seed, stream).next_u128();
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(1, 3));
        assert_ne!(take(1, 2), take(2, 2));
        assert_ne!(take(1, 2), take(2, 1));
    }

    /// Goal: bounded numbers stay in bounds and reach every value about equally often.
    #[test]
    fn bounded() {
        let mut random = Random::new(7, 0);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            counts[usize::try_from(random.below(10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(random.below(1), 0);
    }

    /// Goal: the halves are the low bits.
    #[test]
    fn halves() {
        assert_eq!(low_half(u128::MAX - 5), u64::MAX - 5);
        assert_eq!(low_half(7 << 64 | 3), 3);
        assert_eq!(low_word(7 << 32 | 3), 3);
    }
}
