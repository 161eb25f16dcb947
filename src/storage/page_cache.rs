//! A bounded cache of verified 4 KiB pages of blocks.
//!
//! Set-associative, sixteen ways, in one piece of memory. A page is known by the block's address,
//! the op that wrote the block, and its sector, so pages of a block that was freed and written anew
//! can never be mistaken. A place is reserved when the read is requested and cannot be evicted
//! until
//! the page has arrived. A page that has arrived and was not touched yet outlives touched ones.

use super::{count_of, index_of};
use crate::protocol::{AlignedMemory, SECTOR_SIZE, to_index};

const PAGE: usize = to_index(SECTOR_SIZE);
const WAYS: usize = 16;
/// Times that the clock hand passes over a page which has just arrived.
const CHANCES_FRESH: u8 = 2;
/// Times that the clock hand passes over a page which was touched.
const CHANCES_TOUCHED: u8 = 1;

/// Identity of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageKey {
    /// Address of the block.
    pub address: u64,
    /// The op that wrote the block.
    pub sequence: u64,
    /// Sector of the block.
    pub sector: u32,
}

/// A place in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSlot(usize);

/// What the cache knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Here; it has been touched.
    Valid(PageSlot),
    /// On its way.
    Reading,
    /// Unknown.
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Reading,
    Valid,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: PageKey,
    state: State,
    chances: u8,
}

const EMPTY: Entry =
    Entry { key: PageKey { address: 0, sequence: 0, sector: 0 }, state: State::Empty, chances: 0 };

/// The cache.
#[derive(Debug)]
pub struct PageCache {
    memory: AlignedMemory,
    entries: Vec<Entry>,
    /// Eight bits of each key's hash, to find the way without looking at all the keys.
    tags: Vec<[u8; WAYS]>,
    /// Clock hand of each set.
    hands: Vec<u8>,
}

impl PageCache {
    /// A cache of about `bytes` bytes; at least one set of sixteen pages.
    #[must_use]
    pub fn new(bytes: u64) -> PageCache {
        let sets = PageCache::sets(bytes);
        PageCache {
            memory: AlignedMemory::new_resident(sets * WAYS * PAGE),
            entries: vec![EMPTY; sets * WAYS],
            tags: vec![[0; WAYS]; sets],
            hands: vec![0; sets],
        }
    }

    /// Bytes that a cache of about `bytes` bytes occupies.
    #[must_use]
    pub fn memory_bytes(bytes: u64) -> u64 {
        let sets = PageCache::sets(bytes);
        count_of(sets) * count_of(WAYS * (PAGE + size_of::<Entry>() + 1) + 1)
    }

    fn sets(bytes: u64) -> usize {
        (index_of(bytes) / (PAGE * WAYS)).max(1)
    }

    /// Pages of a cache of about `bytes` bytes.
    #[must_use]
    pub fn pages_in(bytes: u64) -> usize {
        PageCache::sets(bytes) * WAYS
    }

    /// Pages that fit.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.entries.len()
    }

    /// Looks a page up and touches it.
    #[inline]
    pub fn lookup(&mut self, key: PageKey) -> PageState {
        let (set, tag) = self.place(key);
        let mut candidates = 0_u32;
        for (way, other) in self.tags[set].iter().enumerate() {
            candidates |= u32::from(*other == tag) << way;
        }
        while candidates != 0 {
            let way = index_of(candidates.trailing_zeros().into());
            candidates &= candidates - 1;
            let slot = set * WAYS + way;
            let entry = &mut self.entries[slot];
            if entry.key == key {
                match entry.state {
                    State::Valid => {
                        entry.chances = CHANCES_TOUCHED;
                        return PageState::Valid(PageSlot(slot));
                    }
                    State::Reading => return PageState::Reading,
                    State::Empty => {}
                }
            }
        }
        PageState::Missing
    }

    /// Makes a place for a missing page that is going to be read; `None` if all places that it
    /// could take wait for pages.
    ///
    /// # Panics
    ///
    /// If the page is not missing.
    pub fn reserve(&mut self, key: PageKey) -> Option<PageSlot> {
        assert!(self.lookup(key) == PageState::Missing);
        let (set, tag) = self.place(key);
        let way = self.victim(set)?;
        let slot = set * WAYS + way;
        self.tags[set][way] = tag;
        self.entries[slot] = Entry { key, state: State::Reading, chances: 0 };
        Some(PageSlot(slot))
    }

    /// Puts the page that has arrived into its place.
    ///
    /// # Panics
    ///
    /// If the place does not wait for this page.
    pub fn fill(&mut self, slot: PageSlot, key: PageKey, bytes: &[u8]) {
        let entry = &mut self.entries[slot.0];
        assert!(entry.state == State::Reading);
        assert!(entry.key == key);
        entry.state = State::Valid;
        entry.chances = CHANCES_FRESH;
        self.memory[slot.0 * PAGE..(slot.0 + 1) * PAGE].copy_from_slice(bytes);
    }

    /// Gives up waiting for a page; its place is free again.
    ///
    /// # Panics
    ///
    /// If the place does not wait for a page.
    pub fn forget(&mut self, slot: PageSlot) {
        let entry = &mut self.entries[slot.0];
        assert!(entry.state == State::Reading);
        entry.state = State::Empty;
    }

    /// The page in a place that [`PageCache::lookup`] has just returned.
    #[inline]
    #[must_use]
    pub fn page(&self, slot: PageSlot) -> &[u8] {
        debug_assert!(self.entries[slot.0].state == State::Valid);
        &self.memory[slot.0 * PAGE..(slot.0 + 1) * PAGE]
    }

    /// Set and tag of a key. The set comes from the high bits of the hash, the tag from others;
    /// zero is no tag.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the tag is part of a hash")]
    fn place(&self, key: PageKey) -> (usize, u8) {
        let mut hash = key.address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 32) ^ u64::from(key.sector)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash = (hash ^ (hash >> 32) ^ key.sequence).wrapping_mul(0xa076_1d64_78bd_642f);
        hash ^= hash >> 32;
        let sets = count_of(self.tags.len());
        let set = ((u128::from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(sets)) >> 64)
            as u64;
        (index_of(set), (hash as u8).max(1))
    }

    /// The way to use next: an empty one, or the next under the clock hand that has no chances
    /// left; `None` if all are being read.
    fn victim(&mut self, set: usize) -> Option<usize> {
        let entries = &mut self.entries[set * WAYS..(set + 1) * WAYS];
        if let Some(way) = entries.iter().position(|entry| entry.state == State::Empty) {
            return Some(way);
        }
        if entries.iter().all(|entry| entry.state == State::Reading) {
            return None;
        }
        let mut hand = usize::from(self.hands[set]);
        // Every round takes a chance from each valid page.
        for _ in 0..=WAYS * usize::from(CHANCES_FRESH + 1) {
            let way = hand;
            hand = (hand + 1) % WAYS;
            let entry = &mut entries[way];
            if entry.state == State::Valid {
                if entry.chances == 0 {
                    self.hands[set] = u8::try_from(hand).expect("sixteen ways");
                    return Some(way);
                }
                entry.chances -= 1;
            }
        }
        unreachable!("a valid page has no chances left after that many rounds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: u64, sector: u32) -> PageKey {
        PageKey { address, sequence: 5, sector }
    }

    fn page_of(key: PageKey) -> Vec<u8> {
        let mut bytes = vec![0; PAGE];
        bytes[..8].copy_from_slice(&key.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&key.sector.to_le_bytes());
        bytes
    }

    fn insert(cache: &mut PageCache, key: PageKey) {
        let slot = cache.reserve(key).unwrap();
        cache.fill(slot, key, &page_of(key));
    }

    /// Goal: a page goes missing -> reading -> valid, and another sequence is another page.
    #[test]
    fn life_of_a_page() {
        let mut cache = PageCache::new(1 << 20);
        assert_eq!(cache.pages(), 256);
        assert_eq!(cache.lookup(key(1, 0)), PageState::Missing);
        let slot = cache.reserve(key(1, 0)).unwrap();
        assert_eq!(cache.lookup(key(1, 0)), PageState::Reading);
        cache.fill(slot, key(1, 0), &page_of(key(1, 0)));
        assert_eq!(cache.lookup(key(1, 0)), PageState::Valid(slot));
        assert_eq!(cache.page(slot), page_of(key(1, 0)));
        let newer = PageKey { sequence: 6, ..key(1, 0) };
        assert_eq!(cache.lookup(newer), PageState::Missing);
    }

    /// Goal: a page being read is never evicted, and a full set of them refuses another.
    #[test]
    fn reading_pages_stay() {
        let mut cache = PageCache::new(0);
        let slots: Vec<PageSlot> =
            (1..=16).map(|address| cache.reserve(key(address, 0)).unwrap()).collect();
        assert_eq!(cache.reserve(key(17, 0)), None);
        cache.fill(slots[3], key(4, 0), &page_of(key(4, 0)));
        assert_eq!(cache.reserve(key(17, 0)), Some(slots[3]));
        assert_eq!(cache.lookup(key(4, 0)), PageState::Missing);
    }

    /// Goal: a page that arrived and was not touched outlives pages that were touched.
    #[test]
    fn fresh_pages_outlive_touched() {
        let mut cache = PageCache::new(0);
        (1..=16).for_each(|address| insert(&mut cache, key(address, 0)));
        (1..=16).filter(|address| *address != 7).for_each(|address| {
            assert!(matches!(cache.lookup(key(address, 0)), PageState::Valid(_)));
        });
        for address in 17..=31 {
            let slot = cache.reserve(key(address, 0)).unwrap();
            cache.fill(slot, key(address, 0), &page_of(key(address, 0)));
            cache.lookup(key(address, 0));
            if address < 24 {
                assert!(matches!(cache.lookup(key(7, 0)), PageState::Valid(_)), "{address}");
            }
        }
    }

    /// Goal: whatever is found is the right page, with far more pages than places.
    #[test]
    fn never_a_wrong_page() {
        let mut cache = PageCache::new(64 * 4096);
        let mut hits = 0;
        for round in 0..20_000_u64 {
            let key = key(1 + round * round % 37, u32::try_from(round % 5).unwrap());
            match cache.lookup(key) {
                PageState::Valid(slot) => {
                    hits += 1;
                    assert_eq!(cache.page(slot), page_of(key));
                }
                PageState::Missing => insert(&mut cache, key),
                PageState::Reading => unreachable!(),
            }
        }
        assert!(hits > 1000, "{hits} hits");
    }
}
