//! Which blocks of the grid are in use.
//!
//! Addresses are handed out lowest first, so that the same history gives the same addresses on
//! every replica. A block that is released stays untouched until a checkpoint that no longer
//! refers to it is durable: free -> acquired -> staged -> releasing -> free.

use zerocopy::IntoBytes;

use super::decode::{DecodeError, Reader, require};
use super::{count_of, index_of};

const WORD_BITS: usize = 64;
/// Literal words that one marker can announce.
const LITERALS_MAX: u64 = u32::MAX as u64;
/// Uniform words that one marker can announce.
const UNIFORM_MAX: u64 = (1 << 31) - 1;

/// Set of all block addresses of a grid, by state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeSet {
    blocks_max: u64,
    /// Not free: acquired, staged or releasing.
    used: Vec<u64>,
    /// Released since the last checkpoint; still used.
    staged: Vec<u64>,
    /// Released before the last checkpoint; still used.
    releasing: Vec<u64>,
    used_count: u64,
    staged_count: u64,
    releasing_count: u64,
    /// No word before this one has a free block.
    hint: usize,
}

impl FreeSet {
    /// All of `blocks_max` blocks free.
    ///
    /// # Panics
    ///
    /// If `blocks_max` is zero.
    #[must_use]
    pub fn new(blocks_max: u64) -> FreeSet {
        assert!(blocks_max > 0);
        let words = index_of(blocks_max.div_ceil(count_of(WORD_BITS)));
        FreeSet {
            blocks_max,
            used: vec![0; words],
            staged: vec![0; words],
            releasing: vec![0; words],
            used_count: 0,
            staged_count: 0,
            releasing_count: 0,
            hint: 0,
        }
    }

    /// Bytes that a set of `blocks_max` blocks occupies.
    #[must_use]
    pub fn memory_bytes(blocks_max: u64) -> u64 {
        3 * blocks_max.div_ceil(count_of(WORD_BITS)) * 8
    }

    /// Addresses go from 1 to this.
    #[must_use]
    pub fn blocks_max(&self) -> u64 {
        self.blocks_max
    }

    /// Blocks that can be acquired.
    #[must_use]
    pub fn free_count(&self) -> u64 {
        self.blocks_max - self.used_count
    }

    /// Blocks that the last checkpoint does not need: they become free at a fixed op after it.
    #[must_use]
    pub fn releasing_count(&self) -> u64 {
        self.releasing_count
    }

    /// Blocks that are not free, in any state.
    #[must_use]
    pub fn acquired_count(&self) -> u64 {
        self.used_count
    }

    /// Highest address that is not free; 0 if all are.
    #[must_use]
    pub fn highest_acquired(&self) -> u64 {
        match self.used.iter().rposition(|word| *word != 0) {
            Some(word) => {
                let top = WORD_BITS - index_of(self.used[word].leading_zeros().into());
                count_of(word * WORD_BITS + top)
            }
            None => 0,
        }
    }

    /// Takes the lowest free address.
    ///
    /// # Panics
    ///
    /// If none is free: admission has checked that before.
    pub fn acquire(&mut self) -> u64 {
        assert!(self.free_count() > 0, "admission keeps blocks free for every op");
        while self.used[self.hint] == u64::MAX {
            self.hint += 1;
        }
        let bit = index_of(self.used[self.hint].trailing_ones().into());
        self.used[self.hint] |= 1 << bit;
        self.used_count += 1;
        let address = count_of(self.hint * WORD_BITS + bit) + 1;
        assert!(address <= self.blocks_max);
        address
    }

    /// Gives an acquired address back, to become free after the next checkpoint.
    ///
    /// # Panics
    ///
    /// If it is not acquired, or was released already.
    pub fn release(&mut self, address: u64) {
        assert!(self.is_acquired(address), "block {address} is released but not acquired");
        let (word, mask) = position(address);
        if crate::mutated!("reuse_blocks_early") {
            self.used[word] &= !mask;
            self.used_count -= 1;
            self.hint = self.hint.min(word);
            return;
        }
        self.staged[word] |= mask;
        self.staged_count += 1;
    }

    /// Whether the address is in use and not released.
    #[must_use]
    pub fn is_acquired(&self, address: u64) -> bool {
        if address == 0 || address > self.blocks_max {
            return false;
        }
        let (word, mask) = position(address);
        self.used[word] & !self.staged[word] & !self.releasing[word] & mask != 0
    }

    /// Whether the address can be handed out.
    #[must_use]
    pub fn is_free(&self, address: u64) -> bool {
        if address == 0 || address > self.blocks_max {
            return false;
        }
        let (word, mask) = position(address);
        self.used[word] & mask == 0
    }

    /// At a checkpoint: what was released before it waits for its durability from now on.
    ///
    /// # Panics
    ///
    /// If blocks of the checkpoint before still wait.
    pub fn stage_checkpoint(&mut self) {
        assert!(self.releasing_count == 0, "release_staged comes between checkpoints");
        std::mem::swap(&mut self.staged, &mut self.releasing);
        self.releasing_count = self.staged_count;
        self.staged_count = 0;
    }

    /// Frees what was released before the last checkpoint, which is durable now.
    pub fn release_staged(&mut self) {
        if self.releasing_count == 0 {
            return;
        }
        for (word, releasing) in self.releasing.iter_mut().enumerate() {
            if *releasing != 0 {
                self.used[word] &= !*releasing;
                *releasing = 0;
                self.hint = self.hint.min(word);
            }
        }
        self.used_count -= self.releasing_count;
        self.releasing_count = 0;
    }

    /// Most bytes that [`FreeSet::encode`] appends when the highest address is `address_max`.
    #[must_use]
    pub fn encoded_size_max(address_max: u64) -> u64 {
        let words = address_max.div_ceil(count_of(WORD_BITS));
        // Per set: at worst every literal has its own marker, and one marker more.
        8 + 3 * (2 * words + 1) * 8
    }

    /// Appends all states, up to the highest address that is not free.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let words = index_of(self.highest_acquired().div_ceil(count_of(WORD_BITS)));
        out.extend_from_slice(count_of(words).as_bytes());
        for set in [&self.used, &self.staged, &self.releasing] {
            encode_words(&set[..words], out);
        }
    }

    /// Replaces all states by encoded ones; returns the bytes read.
    ///
    /// # Errors
    ///
    /// If the bytes are no free set of this size; the set is then unusable.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut reader = Reader::new(bytes);
        let words = reader.read::<u64>("free set words")?;
        let words_max = count_of(self.used.len());
        require(words <= words_max, "free set words", words, "within the storage limit")?;
        for set in [&mut self.used, &mut self.staged, &mut self.releasing] {
            set.fill(0);
            decode_words(&mut reader, &mut set[..index_of(words)])?;
        }
        self.used_count = count_ones(&self.used);
        self.staged_count = count_ones(&self.staged);
        self.releasing_count = count_ones(&self.releasing);
        self.hint = 0;
        let highest = self.highest_acquired();
        require(highest <= self.blocks_max, "free set", highest, "within the storage limit")?;
        for (word, used) in self.used.iter().enumerate() {
            let (staged, releasing) = (self.staged[word], self.releasing[word]);
            let whole = staged & releasing == 0 && (staged | releasing) & !used == 0;
            require(whole, "free set word", count_of(word), "in one state per block")?;
        }
        Ok(reader.position())
    }
}

fn position(address: u64) -> (usize, u64) {
    assert!(address > 0);
    let bit = index_of(address - 1);
    (bit / WORD_BITS, 1 << (bit % WORD_BITS))
}

fn count_ones(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// Length of the run of words equal to `value` at the front.
fn run_of(words: &[u64], value: u64) -> usize {
    words.iter().take(index_of(UNIFORM_MAX)).take_while(|word| **word == value).count()
}

/// Words as markers, each followed by its literals. A marker says: bit 0 the value of the uniform
/// words before the literals, bits 1..32 how many they are, bits 32..64 how many literals follow.
fn encode_words(mut words: &[u64], out: &mut Vec<u8>) {
    while !words.is_empty() {
        let bit = u64::from(words[0] == u64::MAX);
        let uniform = run_of(words, if bit == 1 { u64::MAX } else { 0 });
        words = &words[uniform..];
        let literals = words
            .iter()
            .take(index_of(LITERALS_MAX))
            .take_while(|word| **word != 0 && **word != u64::MAX)
            .count();
        let marker = bit | count_of(uniform) << 1 | count_of(literals) << 32;
        out.extend_from_slice(marker.as_bytes());
        out.extend_from_slice(words[..literals].as_bytes());
        words = &words[literals..];
    }
}

fn decode_words(reader: &mut Reader<'_>, words: &mut [u64]) -> Result<(), DecodeError> {
    let mut filled = 0;
    while filled < words.len() {
        let marker = reader.read::<u64>("free set marker")?;
        let uniform = index_of(marker >> 1 & UNIFORM_MAX);
        let literals = index_of(marker >> 32);
        let fits = uniform + literals > 0 && uniform + literals <= words.len() - filled;
        require(fits, "free set marker", marker, "within the words announced")?;
        words[filled..filled + uniform].fill(if marker & 1 == 1 { u64::MAX } else { 0 });
        filled += uniform;
        for word in &mut words[filled..filled + literals] {
            *word = reader.read::<u64>("free set literal")?;
        }
        filled += literals;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum State {
        Free,
        Acquired,
        Staged,
        Releasing,
    }

    fn assert_same(set: &FreeSet, naive: &[State]) {
        let count = |state| count_of(naive.iter().filter(|other| **other == state).count());
        assert_eq!(set.free_count(), count(State::Free));
        assert_eq!(set.acquired_count(), count_of(naive.len()) - count(State::Free));
        let highest = naive.iter().rposition(|state| *state != State::Free);
        assert_eq!(set.highest_acquired(), highest.map_or(0, |index| count_of(index) + 1));
        for (address, state) in (1..).zip(naive) {
            assert_eq!(set.is_acquired(address), *state == State::Acquired);
            assert_eq!(set.is_free(address), *state == State::Free);
        }
    }

    fn step(set: &mut FreeSet, naive: &mut [State], random: u64) {
        match random % 100 {
            0..60 if set.free_count() > 0 => {
                let lowest = naive.iter().position(|state| *state == State::Free).unwrap();
                assert_eq!(set.acquire(), count_of(lowest) + 1);
                naive[lowest] = State::Acquired;
            }
            0..94 => {
                let start = index_of(random >> 8) % naive.len();
                let found = (start..naive.len()).find(|index| naive[*index] == State::Acquired);
                if let Some(index) = found {
                    set.release(count_of(index) + 1);
                    naive[index] = State::Staged;
                }
            }
            _ => {
                set.release_staged();
                set.stage_checkpoint();
                for state in naive {
                    *state = match *state {
                        State::Releasing => State::Free,
                        State::Staged => State::Releasing,
                        other => other,
                    };
                }
            }
        }
    }

    /// Goal: over random histories the set does what a naive array does, and an encoded copy is
    /// the same and goes on in the same way.
    #[test]
    fn like_a_naive_set() {
        for seed in 0..20 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let blocks_max = 1 + random.next_u64() % 400;
            let mut set = FreeSet::new(blocks_max);
            let mut naive = vec![State::Free; index_of(blocks_max)];
            for _ in 0..1500 {
                step(&mut set, &mut naive, random.next_u64());
            }
            assert_same(&set, &naive);
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            let limit = FreeSet::encoded_size_max(set.highest_acquired());
            assert!(count_of(bytes.len()) <= limit);
            let mut copy = FreeSet::new(blocks_max);
            assert_eq!(copy.decode(&bytes), Ok(bytes.len()));
            for _ in 0..200 {
                let random = random.next_u64();
                let mut naive_copy = naive.clone();
                step(&mut copy, &mut naive_copy, random);
                step(&mut set, &mut naive, random);
            }
            assert_same(&copy, &naive);
        }
    }

    /// Goal: damage gives an error or another valid set, never a panic; short input is an error.
    #[test]
    fn damage_is_survived() {
        let mut set = FreeSet::new(1000);
        let addresses: Vec<u64> = (0..700).map(|_| set.acquire()).collect();
        addresses.iter().step_by(3).for_each(|address| set.release(*address));
        set.stage_checkpoint();
        addresses.iter().skip(1).step_by(3).for_each(|address| set.release(*address));
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        for index in 0..bytes.len() {
            assert!(FreeSet::new(1000).decode(&bytes[..index]).is_err());
            for flip in [1, 0x80] {
                bytes[index] ^= flip;
                let mut other = FreeSet::new(1000);
                if other.decode(&bytes).is_ok() {
                    assert_ne!(other, set);
                }
                bytes[index] ^= flip;
            }
        }
        let error = FreeSet::new(64).decode(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "free set words is 11, but must be within the storage limit");
    }

    /// Goal: long uniform stretches take a few words.
    #[test]
    fn uniform_is_small() {
        let mut set = FreeSet::new(1 << 20);
        (0..1 << 19).for_each(|_| assert!(set.acquire() > 0));
        set.release(77);
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        assert!(bytes.len() < 100, "{} bytes", bytes.len());
    }

    /// Goal: releasing twice is a broken invariant.
    #[test]
    #[should_panic(expected = "block 1 is released but not acquired")]
    fn double_release_panics() {
        let mut set = FreeSet::new(10);
        let address = set.acquire();
        set.release(address);
        set.release(address);
    }
}
