//! Accounts as they are now, in a fixed amount of memory.
//!
//! Fully associative: an open-addressing index of 8-byte words over slots of 160 bytes, with
//! second-chance (CLOCK) replacement that never touches what the current operation has pinned.
//! The cache is volatile and never decides a result: whatever is not here is found through the
//! store. Not covered: loading a missing account (`work.rs`) and what happens to its balances.

use crate::protocol::huge_pages::zeros;
use crate::protocol::types::Account;
use crate::storage::prefetch::prefetch;

use crate::protocol::to_index;
use crate::storage::index_of;

/// No slot: the account is not cached, or does not exist.
pub(super) const SLOT_NONE: u32 = u32::MAX;
/// No row: the account has had no event yet.
pub(super) const ROW_NONE: u64 = u64::MAX;

/// One cached account.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(super) struct Entry {
    /// With current balances and flags.
    pub account: Account,
    /// Row of the newest event of the account, or [`ROW_NONE`].
    pub newest_row: u64,
    /// The last operation that pinned the slot.
    pin: u64,
    occupied: bool,
    /// Used since the hand passed last.
    referenced: bool,
}

static_assertions::const_assert_eq!(size_of::<Entry>(), 160);

/// An account that made room for another; the store must remember its newest row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evicted {
    pub id: u128,
    pub newest_row: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct AccountCache {
    entries: Vec<Entry>,
    /// `tag << 32 | slot + 1`, or zero. A word's home is given by the top bits of its tag.
    index: Vec<u64>,
    index_bits: u32,
    hand: u32,
    /// Counts operations; a slot with this pin stays.
    operation: u64,
    occupied: u32,
    /// Accounts that transfers named, and those of them that had to be searched for elsewhere.
    pub lookups: u64,
    pub misses: u64,
}

impl AccountCache {
    /// A cache of `capacity` accounts.
    ///
    /// # Panics
    /// When the capacity is zero or exceeds 2^30.
    pub fn new(capacity: u32) -> AccountCache {
        assert!(capacity > 0);
        assert!(capacity <= 1 << 30, "the index addresses slots with 32 bits");
        let index_bits = AccountCache::index_bits(capacity);
        let entry = Entry {
            account: Account::default(),
            newest_row: ROW_NONE,
            pin: 0,
            occupied: false,
            referenced: false,
        };
        AccountCache {
            entries: vec![entry; to_index(capacity)],
            index: zeros(1 << index_bits),
            index_bits,
            hand: 0,
            operation: 1,
            occupied: 0,
            lookups: 0,
            misses: 0,
        }
    }

    /// Bytes that the cache occupies.
    pub fn memory_bytes(capacity: u32) -> u64 {
        let index = 1 << AccountCache::index_bits(capacity);
        let entries = to_index(capacity) * size_of::<Entry>();
        u64::try_from(entries + index * size_of::<u64>()).expect("memory sizes fit 64 bits")
    }

    fn index_bits(capacity: u32) -> u32 {
        (u64::from(capacity) * 2).next_power_of_two().trailing_zeros()
    }

    /// Accounts that fit.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("checked by the constructor")
    }

    /// Accounts in it.
    pub fn occupied(&self) -> u32 {
        self.occupied
    }

    /// Lets go of all pins.
    pub fn begin_operation(&mut self) {
        self.operation += 1;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.index.fill(0);
        for entry in &mut self.entries {
            entry.occupied = false;
            entry.pin = 0;
        }
        self.hand = 0;
        self.occupied = 0;
    }

    /// The tag of an id: a mix of all its bits.
    #[inline]
    pub fn tag(id: u128) -> u32 {
        const MULTIPLIER_LOW: u64 = 0x9E37_79B9_7F4A_7C15;
        const MULTIPLIER_HIGH: u64 = 0xC2B2_AE3D_27D4_EB4F;
        let low = low_half(id).wrapping_mul(MULTIPLIER_LOW);
        let high = low_half(id >> 64).wrapping_mul(MULTIPLIER_HIGH);
        let product = u128::from(low ^ high.rotate_left(32)) * u128::from(MULTIPLIER_HIGH);
        let mixed = low_half(product) ^ low_half(product >> 64);
        u32::try_from(mixed >> 32).expect("32 bits remain")
    }

    /// A guess at the slot of an account: only the first word of the index is looked at, and the
    /// entry is not touched. Confirm with [`AccountCache::find_guessed`].
    #[inline]
    pub fn guess(&self, tag: u32) -> u32 {
        let word = self.index[self.home(tag)];
        if word >> 32 == u64::from(tag) && word != 0 { slot_of(word) } else { SLOT_NONE }
    }

    /// Asks for the word of the index that [`AccountCache::guess`] looks at.
    #[inline]
    pub fn prefetch_index(&self, id: u128) {
        prefetch(&self.index[self.home(AccountCache::tag(id))]);
    }

    /// Asks for the part of an entry that [`AccountCache::find_guessed`] compares.
    #[inline]
    pub fn prefetch_id(&self, slot: u32) {
        if let Some(entry) = self.entries.get(to_index(slot)) {
            prefetch(entry);
        }
    }

    /// Asks for all of an entry.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        if let Some(entry) = self.entries.get(to_index(slot)) {
            prefetch(entry);
            prefetch(&entry.account.user_data_128);
            prefetch(&entry.newest_row);
        }
    }

    /// The slot of an account, pinned, given what [`AccountCache::guess`] said.
    #[inline]
    pub fn find_guessed(&mut self, id: u128, tag: u32, guess: u32) -> u32 {
        let mut slot = guess;
        if slot == SLOT_NONE || self.entries[to_index(slot)].account.id != id {
            slot = self.find_tagged(id, tag);
            if slot == SLOT_NONE {
                return SLOT_NONE;
            }
        }
        let entry = &mut self.entries[to_index(slot)];
        entry.pin = self.operation;
        entry.referenced = true;
        slot
    }

    /// The slot of an account, pinned for the current operation, or [`SLOT_NONE`].
    pub fn find_pinned(&mut self, id: u128) -> u32 {
        self.find_guessed(id, AccountCache::tag(id), SLOT_NONE)
    }

    /// The slot of an account or [`SLOT_NONE`], without pinning it.
    pub fn find(&self, id: u128) -> u32 {
        self.find_tagged(id, AccountCache::tag(id))
    }

    fn find_tagged(&self, id: u128, tag: u32) -> u32 {
        let mask = self.index.len() - 1;
        let mut position = self.home(tag);
        loop {
            let word = self.index[position];
            if word == 0 {
                return SLOT_NONE;
            }
            if word >> 32 == u64::from(tag) {
                let slot = slot_of(word);
                if self.entries[to_index(slot)].account.id == id {
                    return slot;
                }
            }
            position = (position + 1) & mask;
        }
    }

    /// The entry in an occupied slot.
    #[inline]
    pub fn entry(&self, slot: u32) -> &Entry {
        let entry = &self.entries[to_index(slot)];
        debug_assert!(entry.occupied);
        entry
    }

    /// The entry in a slot that is pinned.
    #[inline]
    pub fn entry_mut(&mut self, slot: u32) -> &mut Entry {
        let entry = &mut self.entries[to_index(slot)];
        assert!(entry.pin == self.operation, "only pinned accounts change");
        entry
    }

    /// Adds an account that is not here, pinned, and tells which one had to go.
    ///
    /// # Panics
    /// When the account is cached already, or everything is pinned.
    pub fn insert(&mut self, account: &Account, newest_row: u64) -> (u32, Option<Evicted>) {
        let tag = AccountCache::tag(account.id);
        assert!(self.find_tagged(account.id, tag) == SLOT_NONE, "an account is cached once");
        let (slot, evicted) = self.take_slot();
        self.entries[to_index(slot)] = Entry {
            account: *account,
            newest_row,
            pin: self.operation,
            occupied: true,
            referenced: true,
        };
        self.occupied += 1;
        let mask = self.index.len() - 1;
        let mut position = self.home(tag);
        while self.index[position] != 0 {
            position = (position + 1) & mask;
        }
        self.index[position] = u64::from(tag) << 32 | (u64::from(slot) + 1);
        (slot, evicted)
    }

    /// Removes an account whose creation is undone.
    pub fn remove(&mut self, slot: u32) {
        let entry = &mut self.entries[to_index(slot)];
        assert!(entry.occupied);
        entry.occupied = false;
        entry.pin = 0;
        self.occupied -= 1;
        let id = entry.account.id;
        self.unlink(id, slot);
    }

    /// Evicts some of the accounts, as if others had needed the room.
    #[cfg(test)]
    pub fn evict_where(&mut self, choose: impl Fn(u128) -> bool, mut spill: impl FnMut(Evicted)) {
        for slot in 0..self.capacity() {
            let Entry { account, newest_row, occupied, .. } = self.entries[to_index(slot)];
            if occupied && choose(account.id) {
                self.remove(slot);
                if newest_row != ROW_NONE {
                    spill(Evicted { id: account.id, newest_row });
                }
            }
        }
    }

    /// A free slot, made free if need be: one round to clear marks, one to find.
    fn take_slot(&mut self) -> (u32, Option<Evicted>) {
        let capacity = self.capacity();
        for _ in 0..2 * u64::from(capacity) {
            let slot = self.hand;
            self.hand = if slot + 1 == capacity { 0 } else { slot + 1 };
            let entry = &mut self.entries[to_index(slot)];
            if !entry.occupied {
                return (slot, None);
            }
            if entry.pin == self.operation {
                continue;
            }
            if entry.referenced {
                entry.referenced = false;
                continue;
            }
            let evicted = Evicted { id: entry.account.id, newest_row: entry.newest_row };
            self.remove(slot);
            return (slot, if evicted.newest_row == ROW_NONE { None } else { Some(evicted) });
        }
        panic!("the cache holds several times what one operation can pin");
    }

    /// Takes the word of a slot out of the index and closes the gap.
    fn unlink(&mut self, id: u128, slot: u32) {
        let mask = self.index.len() - 1;
        let tag = AccountCache::tag(id);
        let wanted = u64::from(tag) << 32 | (u64::from(slot) + 1);
        let mut gap = self.home(tag);
        while self.index[gap] != wanted {
            assert!(self.index[gap] != 0, "every occupied slot is in the index");
            gap = (gap + 1) & mask;
        }
        let mut position = (gap + 1) & mask;
        while self.index[position] != 0 {
            let home = self.home_of_word(self.index[position]);
            // The word may move back to the gap unless its home lies after the gap.
            if (position.wrapping_sub(home) & mask) >= (position.wrapping_sub(gap) & mask) {
                self.index[gap] = self.index[position];
                gap = position;
            }
            position = (position + 1) & mask;
        }
        self.index[gap] = 0;
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        index_of(u64::from(tag) >> (32 - self.index_bits))
    }

    fn home_of_word(&self, word: u64) -> usize {
        index_of(word >> 32 >> (32 - self.index_bits))
    }
}

#[inline]
fn low_half(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).expect("64 bits remain")
}

#[inline]
fn slot_of(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).expect("32 bits remain") - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: u128) -> Account {
        Account { id, ..Account::default() }
    }

    /// Goal: whatever is inserted, removed and evicted, the cache agrees with a plain list.
    #[test]
    fn agrees_with_a_list() {
        let mut cache = AccountCache::new(64);
        let mut present: Vec<u128> = Vec::new();
        let mut seed = 1u64;
        for round in 0..20_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
            let id = u128::from(seed >> 33) % 200 + 1;
            if (seed >> 20).is_multiple_of(8) {
                cache.begin_operation();
            }
            let slot = cache.find(id);
            assert_eq!(slot != SLOT_NONE, present.contains(&id));
            if slot != SLOT_NONE {
                assert_eq!(cache.entry(slot).account.id, id);
                if (seed >> 25).is_multiple_of(4) {
                    cache.remove(slot);
                    present.retain(|other| *other != id);
                }
                continue;
            }
            let (slot, evicted) = cache.insert(&account(id), 7);
            assert_eq!(cache.entry(slot).account.id, id);
            present.push(id);
            if let Some(evicted) = evicted {
                assert_eq!(evicted.newest_row, 7);
                present.retain(|other| *other != evicted.id);
            }
        }
        assert!(present.len() <= 64);
        assert_eq!(present.len(), usize::try_from(cache.occupied).unwrap());
    }

    /// Goal: what the current operation pinned outlives any pressure.
    #[test]
    fn pinned_stay() {
        let mut cache = AccountCache::new(16);
        for id in 1..=16 {
            cache.insert(&account(id), ROW_NONE);
        }
        cache.begin_operation();
        for id in 1..=4 {
            assert_ne!(cache.find_pinned(id), SLOT_NONE);
        }
        for id in 100..112 {
            let (_, evicted) = cache.insert(&account(id), 1);
            assert_eq!(evicted, None, "an account without events needs no remembering");
        }
        for id in (1..=4).chain(100..112) {
            assert_ne!(cache.find(id), SLOT_NONE, "account {id}");
        }
    }

    /// Goal: a full set of pins is a broken invariant, not an endless search.
    #[test]
    #[should_panic(expected = "several times")]
    fn all_pinned_panics() {
        let mut cache = AccountCache::new(2);
        for id in 1..=3 {
            cache.insert(&account(id), ROW_NONE);
        }
    }
}
