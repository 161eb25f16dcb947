//! Rows that have left the memory of the newest blocks, kept small: a cache.
//!
//! Neighbours in a log are alike: ids and times rise by little, ledgers, flags and the upper bytes
//! of amounts repeat. So rows are kept in groups, and of each row only what differs from the first
//! row of its group: word by word, the bytes up to the highest that differs. A transfer of 128
//! bytes with random user data takes about 60, one without about 30, so the same memory holds two
//! to four times as many, and a row is unpacked in some 30 ns. Packing costs about as much.
//!
//! Blocks come in order; the oldest make way. Not covered: verification (rows come from memory and
//! stay there), rows that were never in memory.
//!
//! A group is its first row as it is, an offset (u16) for each row, and the packed rows. A packed
//! row is a word of nibbles, the number of bytes kept of each word, and those bytes.

use super::packing::Packing;
use super::{count_of, index_of};
use crate::protocol::{AlignedMemory, to_index};

/// Rows in a group: more of them share the first one, but differ more from it.
const GROUP: usize = 64;
/// Bytes of a word.
const WORD: usize = 8;
/// Words of the longest row: a nibble for each fits one word.
const WORDS_MAX: usize = 16;
/// Bytes of a packed row at most, when nothing is like in the first one.
const ROW_MAX: usize = WORD + WORDS_MAX * WORD;
/// Bytes of a group at most; packing writes up to a word more than it keeps.
const GROUP_MAX: usize = WORDS_MAX * WORD + GROUP * (2 + ROW_MAX) + WORD;
/// Rows are assumed to take this much at least: bounds the list of groups.
const ROW_MIN: u64 = 24;

/// Blocks of packed rows, without gaps, up to the one that was added last.
#[derive(Debug)]
pub struct PackedRows {
    memory: AlignedMemory,
    packing: Packing,
    row_size: usize,
    groups_per_block: u64,
    blocks_max: u64,
    first_block: u64,
    end_block: u64,
    /// Where groups begin, by number of the group modulo the length. Positions only grow; the place
    /// in memory is the position modulo the capacity, and no group goes over the end.
    starts: Box<[u64]>,
    /// Behind the newest group.
    position: u64,
}

impl PackedRows {
    /// An empty cache of `bytes` bytes for blocks of a packing.
    ///
    /// # Panics
    ///
    /// If rows are no whole number of words, too long, or `bytes` is less than
    /// [`PackedRows::bytes_min`].
    #[must_use]
    pub fn new(packing: Packing, bytes: u64) -> PackedRows {
        let row_size = to_index(packing.item_size());
        assert!(row_size.is_multiple_of(WORD));
        assert!(row_size <= WORDS_MAX * WORD);
        assert!(bytes >= PackedRows::bytes_min(&packing), "room for two blocks");
        let blocks_max = PackedRows::blocks_max(&packing, bytes);
        let groups_per_block = PackedRows::groups_per_block(&packing);
        PackedRows {
            memory: AlignedMemory::new_resident(index_of(bytes)),
            packing,
            row_size,
            groups_per_block,
            blocks_max,
            first_block: 0,
            end_block: 0,
            starts: vec![0; index_of(blocks_max * groups_per_block)].into(),
            position: 0,
        }
    }

    /// Bytes of the smallest cache: two blocks that cannot be packed at all.
    #[must_use]
    pub fn bytes_min(packing: &Packing) -> u64 {
        2 * (PackedRows::groups_per_block(packing) + 1) * count_of(GROUP_MAX)
    }

    /// Bytes that a cache of `bytes` bytes occupies.
    #[must_use]
    pub fn memory_bytes(packing: &Packing, bytes: u64) -> u64 {
        let groups = PackedRows::blocks_max(packing, bytes) * PackedRows::groups_per_block(packing);
        bytes + groups * 8
    }

    fn blocks_max(packing: &Packing, bytes: u64) -> u64 {
        bytes / (packing.per_block() * ROW_MIN) + 2
    }

    fn groups_per_block(packing: &Packing) -> u64 {
        packing.per_block().div_ceil(count_of(GROUP))
    }

    /// Blocks in memory, from the first to behind the last.
    #[must_use]
    pub fn blocks(&self) -> (u64, u64) {
        (self.first_block, self.end_block)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.first_block = 0;
        self.end_block = 0;
        self.position = 0;
    }

    /// Packs the rows of a full block. If it is not the one after the last, all others are
    /// forgotten.
    ///
    /// # Panics
    ///
    /// If the bytes are no block.
    pub fn push(&mut self, block: u64, bytes: &[u8]) {
        assert!(bytes.len() == to_index(self.packing.block_size()));
        if block != self.end_block {
            self.clear();
            self.first_block = block;
            self.end_block = block;
        }
        if self.end_block - self.first_block == self.blocks_max {
            self.first_block += 1;
        }
        for group in 0..self.groups_per_block {
            self.make_room();
            let number = block * self.groups_per_block + group;
            let slot = self.slot_of(number);
            self.starts[slot] = self.position;
            self.position += count_of(self.pack_group(group, bytes));
        }
        self.end_block = block + 1;
    }

    fn slot_of(&self, group: u64) -> usize {
        index_of(group % count_of(self.starts.len()))
    }

    fn place_of(&self, position: u64) -> usize {
        index_of(position % count_of(self.memory.len()))
    }

    /// Lets go of the oldest blocks until the largest group fits.
    fn make_room(&mut self) {
        let capacity = count_of(self.memory.len());
        let place = self.place_of(self.position);
        if self.memory.len() - place < GROUP_MAX {
            self.position += capacity - count_of(place);
        }
        let end = self.position + count_of(GROUP_MAX);
        while self.first_block < self.end_block {
            let oldest = self.starts[self.slot_of(self.first_block * self.groups_per_block)];
            if end <= oldest + capacity {
                return;
            }
            self.first_block += 1;
        }
    }

    /// Packs a group of a block at the current position; its bytes.
    fn pack_group(&mut self, group: u64, bytes: &[u8]) -> usize {
        let first = index_of(group) * GROUP;
        let count = GROUP.min(index_of(self.packing.per_block()) - first);
        let (row_size, packing) = (self.row_size, self.packing);
        let row = |index: usize| {
            let start = packing.offset_in_block(count_of(index));
            &bytes[start..start + row_size]
        };
        let place = self.place_of(self.position);
        let out = &mut self.memory[place..place + GROUP_MAX];
        let base = words_of(row(first));
        out[..row_size].copy_from_slice(row(first));
        let mut end = row_size + 2 * GROUP;
        for index in 0..count {
            let offset = u16::try_from(end).expect("groups are small");
            let at = row_size + 2 * index;
            out[at..at + 2].copy_from_slice(&offset.to_le_bytes());
            end += pack(&base, row(first + index), &mut out[end..]);
        }
        assert!(end + WORD <= GROUP_MAX);
        end
    }

    /// Unpacks a row of a block into `out`; whether it is here.
    ///
    /// # Panics
    ///
    /// If `out` has not the size of a row.
    #[must_use]
    pub fn read(&self, block: u64, index: u64, out: &mut [u8]) -> bool {
        assert!(out.len() == self.row_size);
        if block < self.first_block || block >= self.end_block {
            return false;
        }
        let (group, index) = (index / count_of(GROUP), index_of(index) % GROUP);
        assert!(group < self.groups_per_block);
        let start = self.starts[self.slot_of(block * self.groups_per_block + group)];
        let place = self.place_of(start);
        let bytes = &self.memory[place..place + GROUP_MAX];
        let at = self.row_size + 2 * index;
        let offset = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        unpack(&bytes[..self.row_size], &bytes[usize::from(offset)..], out);
        true
    }
}

fn word_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..WORD].try_into().expect("a word"))
}

fn words_of(row: &[u8]) -> [u64; WORDS_MAX] {
    let mut words = [0; WORDS_MAX];
    for (word, bytes) in words.iter_mut().zip(row.chunks_exact(WORD)) {
        *word = word_of(bytes);
    }
    words
}

/// Writes what differs from the base; the bytes written that count.
#[inline]
fn pack(base: &[u64; WORDS_MAX], row: &[u8], out: &mut [u8]) -> usize {
    let out = &mut out[..ROW_MAX + WORD];
    let (mut counts, mut end) = (0, WORD);
    for (place, (bytes, base)) in row.chunks_exact(WORD).zip(base).enumerate() {
        let difference = word_of(bytes) ^ base;
        let count = (u64::BITS - difference.leading_zeros()).div_ceil(8);
        out[end..end + WORD].copy_from_slice(&difference.to_le_bytes());
        counts |= u64::from(count) << (4 * place);
        end += to_index(count);
    }
    out[..WORD].copy_from_slice(&counts.to_le_bytes());
    end
}

/// The reverse of [`pack`].
#[inline]
fn unpack(base: &[u8], packed: &[u8], out: &mut [u8]) {
    let mut counts = word_of(packed);
    let mut at = WORD;
    for (out, base) in out.chunks_exact_mut(WORD).zip(base.chunks_exact(WORD)) {
        let count = counts & 15;
        counts >>= 4;
        // What lies behind the bytes kept is cut off; none and all are no exceptions.
        let kept = if count == 8 { u64::MAX } else { (1 << (8 * count)) - 1 };
        let difference = word_of(&packed[at..at + WORD]) & kept;
        out.copy_from_slice(&(word_of(base) ^ difference).to_le_bytes());
        at += index_of(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    const BLOCK: u32 = 16_384;

    /// A block of rows that are alike, more or less by turns; every eighth has nothing in common
    /// with any other.
    fn block(packing: &Packing, number: u64) -> Vec<u8> {
        let mut random = ChaCha8Rng::seed_from_u64(number);
        let mut bytes = vec![0xee; to_index(packing.block_size())];
        let size = to_index(packing.item_size());
        for index in 0..packing.per_block() {
            let start = packing.offset_in_block(index);
            for (place, word) in bytes[start..start + size].chunks_exact_mut(WORD).enumerate() {
                let shift = if index % 8 == 7 { 0 } else { 8 * (place % 8) + 7 };
                let value = (number << 32 | index) ^ (random.next_u64() >> shift);
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        bytes
    }

    fn check(rows: &PackedRows, packing: &Packing, number: u64) {
        let bytes = block(packing, number);
        let mut out = vec![0; to_index(packing.item_size())];
        for index in 0..packing.per_block() {
            assert!(rows.read(number, index, &mut out));
            let start = packing.offset_in_block(index);
            assert_eq!(out, bytes[start..start + out.len()], "row {index} of block {number}");
        }
    }

    /// Goal: all rows of all blocks that are said to be here come back, the newest are here, and
    /// old ones make way, for rows of one word to the longest.
    #[test]
    fn rows_come_back() {
        for row_size in [8, 72, 128] {
            let packing = Packing::new(row_size, BLOCK);
            let bytes = 5 * PackedRows::bytes_min(&packing) / 2 + 12_345;
            let mut rows = PackedRows::new(packing, bytes);
            for number in 3..40 {
                rows.push(number, &block(&packing, number));
                let (first, end) = rows.blocks();
                assert!(end == number + 1 && first >= 3);
                assert!(end - first >= 2.min(number - 2), "{first} to {end}");
                (first..end).for_each(|number| check(&rows, &packing, number));
                let mut out = vec![0; to_index(row_size)];
                assert!(!rows.read(first - 1, 0, &mut out) && !rows.read(end, 0, &mut out));
            }
            assert!(rows.blocks().0 > 3, "the cache was filled");
        }
    }

    /// Goal: a gap in the blocks empties the cache, as does clearing it.
    #[test]
    fn gaps() {
        let packing = Packing::new(128, BLOCK);
        let mut rows = PackedRows::new(packing, PackedRows::bytes_min(&packing));
        rows.push(0, &block(&packing, 0));
        rows.push(1, &block(&packing, 1));
        rows.push(5, &block(&packing, 5));
        assert_eq!(rows.blocks(), (5, 6));
        check(&rows, &packing, 5);
        rows.clear();
        assert!(!rows.read(5, 0, &mut [0; 128]));
        rows.push(6, &block(&packing, 6));
        check(&rows, &packing, 6);
    }

    /// Goal: rows that are alike take little memory: as many blocks as the list of groups allows.
    #[test]
    fn equal_rows_are_small() {
        let packing = Packing::new(128, BLOCK);
        let mut rows = PackedRows::new(packing, 1 << 20);
        let bytes = vec![7; to_index(BLOCK)];
        (0..1000).for_each(|number| rows.push(number, &bytes));
        let (first, end) = rows.blocks();
        assert_eq!(end - first, PackedRows::blocks_max(&packing, 1 << 20));
        let mut out = [0; 128];
        assert!(rows.read(first, 0, &mut out) && out == [7; 128]);
        assert!(rows.read(end - 1, packing.per_block() - 1, &mut out) && out == [7; 128]);
    }
}
