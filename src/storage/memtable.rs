//! The newest rows of a table's indexes, in memory: one column of hashes per tag.
//!
//! Beside the columns there are hash tables for tags that are looked up by unique value, and one
//! for accounts whose newest row is nowhere else in memory. All memory is reserved once. Not
//! covered: when a memtable is full and what becomes of it (`table`).

use std::sync::Arc;

use super::prefetch::prefetch;
use super::table::TagOptions;
use super::{count_of, index_of};
use crate::protocol::huge_pages::zeros;

/// Where a search of a [`PointTable`] goes on; starts as the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointCursor(u32);

/// Rows by hash: open addressing with linear probing. A slot holds the hash's upper half and the
/// row in the memtable + 1; the lower bits of the hash are the place.
#[derive(Debug)]
struct PointTable {
    slots: Vec<u64>,
    used: usize,
}

const UPPER: u64 = 0xffff_ffff_0000_0000;

impl PointTable {
    /// At most half of the slots are ever used.
    fn new(rows: usize) -> PointTable {
        PointTable { slots: zeros(PointTable::slots_for(rows)), used: 0 }
    }

    fn slots_for(rows: usize) -> usize {
        (2 * rows).next_power_of_two()
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        index_of(hash) & (self.slots.len() - 1)
    }

    fn insert(&mut self, hash: u64, row: u64) {
        assert!(row < u64::from(u32::MAX));
        assert!(self.used * 2 < self.slots.len(), "a memtable has one value per row at most");
        let mask = self.slots.len() - 1;
        let mut slot = self.home(hash);
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = (hash & UPPER) | (row + 1);
        self.used += 1;
    }

    /// Undoes the newest insert: nothing was put behind it, so clearing its slot is all.
    fn remove(&mut self, hash: u64, row: u64) {
        let mask = self.slots.len() - 1;
        let wanted = (hash & UPPER) | (row + 1);
        let mut slot = self.home(hash);
        while self.slots[slot] != wanted {
            assert!(self.slots[slot] != 0, "only what was inserted is removed");
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = 0;
        self.used -= 1;
    }

    fn find(&self, hash: u64, cursor: &mut PointCursor) -> Option<u64> {
        let mask = self.slots.len() - 1;
        let home = self.home(hash);
        loop {
            let found = self.slots[(home + crate::protocol::to_index(cursor.0)) & mask];
            if found == 0 {
                return None;
            }
            cursor.0 += 1;
            if (found ^ hash) & UPPER == 0 {
                return Some((found & !UPPER) - 1);
            }
        }
    }

    fn clear(&mut self) {
        if self.used > 0 {
            self.slots.fill(0);
            self.used = 0;
        }
    }
}

/// Newest rows of accounts by id: open addressing with linear probing. The id is compared in
/// full: a collision must not hide an account's newest row.
#[derive(Debug)]
struct SpillTable {
    keys: Vec<u128>,
    /// Row in the memtable + 1; 0 for a free slot.
    rows: Vec<u32>,
    used: usize,
}

impl SpillTable {
    /// A row names two accounts at most, so at most half of the slots are ever used.
    fn new(rows: usize) -> SpillTable {
        let slots = SpillTable::slots_for(rows);
        SpillTable { keys: vec![0; slots], rows: vec![0; slots], used: 0 }
    }

    fn slots_for(rows: usize) -> usize {
        (4 * rows).next_power_of_two()
    }

    fn slot(&self, hash: u64, key: u128) -> usize {
        let mask = self.keys.len() - 1;
        let mut slot = index_of(hash) & mask;
        while self.rows[slot] != 0 && self.keys[slot] != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn insert(&mut self, hash: u64, key: u128, row: u64) {
        let slot = self.slot(hash, key);
        if self.rows[slot] == 0 {
            assert!(self.used * 2 < self.rows.len(), "a row names two accounts at most");
            self.used += 1;
            self.keys[slot] = key;
        }
        let row = u32::try_from(row + 1).expect("rows of a memtable fit 32 bits");
        self.rows[slot] = self.rows[slot].max(row);
    }

    fn find(&self, hash: u64, key: u128) -> Option<u64> {
        u64::from(self.rows[self.slot(hash, key)]).checked_sub(1)
    }

    fn clear(&mut self) {
        if self.used > 0 {
            self.rows.fill(0);
            self.used = 0;
        }
    }
}

/// What is known of one tag's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnFacts {
    /// Slots that hold a hash.
    pub entries: u64,
    /// The hash of every row so far, if they all have the same; else 0.
    pub constant: u64,
    /// Smallest value, for tags with bounds.
    pub value_min: u128,
    /// Largest value, for tags with bounds.
    pub value_max: u128,
}

impl ColumnFacts {
    /// Of no rows.
    pub(super) const EMPTY: ColumnFacts =
        ColumnFacts { entries: 0, constant: 0, value_min: u128::MAX, value_max: 0 };
}

#[derive(Debug)]
struct Column {
    hashes: Arc<Vec<u64>>,
    per_row: u64,
    points: Option<PointTable>,
    facts: ColumnFacts,
}

/// The newest rows, or those on their way into runs.
#[derive(Debug)]
pub struct Memtable {
    first_row: u64,
    /// Rows that are complete and counted.
    rows: u64,
    /// Rows whose slots do not hold anything of the past.
    prepared: u64,
    capacity: u64,
    columns: Vec<Column>,
    spill: Option<SpillTable>,
}

impl Memtable {
    /// Memory for `rows` rows of the given tags; `spills`: with a table for accounts.
    ///
    /// # Panics
    ///
    /// If there are no rows, or a point tag has two entries per row.
    #[must_use]
    pub fn new(tags: &[TagOptions], rows: u64, spills: bool) -> Memtable {
        assert!(rows > 0);
        let mut columns = Vec::with_capacity(tags.len());
        for tag in tags {
            assert!(!tag.point || tag.entries_per_row == 1);
            columns.push(Column {
                hashes: Arc::new(zeros(index_of(rows * u64::from(tag.entries_per_row)))),
                per_row: u64::from(tag.entries_per_row),
                points: tag.point.then(|| PointTable::new(index_of(rows))),
                facts: ColumnFacts::EMPTY,
            });
        }
        let spill = spills.then(|| SpillTable::new(index_of(rows)));
        Memtable { first_row: 0, rows: 0, prepared: 0, capacity: rows, columns, spill }
    }

    /// Bytes that a memtable occupies.
    #[must_use]
    pub fn memory_bytes(tags: &[TagOptions], rows: u64, spills: bool) -> u64 {
        let slots: u64 = tags.iter().map(|tag| rows * u64::from(tag.entries_per_row)).sum();
        let points = count_of(tags.iter().filter(|tag| tag.point).count());
        let points = points * count_of(PointTable::slots_for(index_of(rows)));
        let spill = u64::from(spills) * count_of(SpillTable::slots_for(index_of(rows)));
        (slots + points) * 8 + spill * (16 + 4) + count_of(size_of_val(tags) + size_of::<Column>())
    }

    /// Forgets everything and begins at `first_row`.
    pub fn reset(&mut self, first_row: u64) {
        self.first_row = first_row;
        self.rows = 0;
        self.prepared = 0;
        for column in &mut self.columns {
            column.facts = ColumnFacts::EMPTY;
            if let Some(points) = &mut column.points {
                points.clear();
            }
        }
        if let Some(spill) = &mut self.spill {
            spill.clear();
        }
    }

    /// The first row it holds.
    #[must_use]
    pub fn first_row(&self) -> u64 {
        self.first_row
    }

    /// The row behind the last complete one.
    #[must_use]
    pub fn end_row(&self) -> u64 {
        self.first_row + self.rows
    }

    /// What is known of a tag's column.
    #[must_use]
    pub fn facts(&self, tag: usize) -> &ColumnFacts {
        &self.columns[tag].facts
    }

    /// The hashes of all complete rows, `entries_per_row` slots each.
    #[must_use]
    pub fn column(&self, tag: usize) -> &[u64] {
        let column = &self.columns[tag];
        &column.hashes[..index_of(self.rows * column.per_row)]
    }

    /// The column for a job to read beside us.
    #[must_use]
    pub(super) fn column_shared(&self, tag: usize) -> (Arc<Vec<u64>>, usize) {
        let column = &self.columns[tag];
        (Arc::clone(&column.hashes), index_of(self.rows * column.per_row))
    }

    /// The slots of rows `first_row` to before `end_row`: zero, unless set since the last
    /// truncation.
    ///
    /// # Panics
    ///
    /// If the rows are complete already or beyond the capacity.
    pub fn column_mut(&mut self, tag: usize, first_row: u64, end_row: u64) -> &mut [u64] {
        assert!(first_row >= self.end_row(), "complete rows do not change");
        assert!(first_row <= end_row);
        let end = end_row - self.first_row;
        assert!(end <= self.capacity, "a bar ends before its rows run out");
        if end > self.prepared {
            for column in &mut self.columns {
                let range =
                    index_of(self.prepared * column.per_row)..index_of(end * column.per_row);
                hashes_mut(&mut column.hashes)[range].fill(0);
            }
            self.prepared = end;
        }
        let column = &mut self.columns[tag];
        let from = index_of((first_row - self.first_row) * column.per_row);
        &mut hashes_mut(&mut column.hashes)[from..index_of(end * column.per_row)]
    }

    /// Forgets the slots of row `end_row` and all behind it.
    ///
    /// # Panics
    ///
    /// If the rows are complete already.
    pub fn truncate(&mut self, end_row: u64) {
        assert!(end_row >= self.end_row(), "complete rows do not change");
        self.prepared = self.prepared.min(end_row - self.first_row);
    }

    /// Makes all rows before `end_row` complete, and counts them.
    ///
    /// # Panics
    ///
    /// If rows vanished, or there are more than fit.
    pub fn complete(&mut self, end_row: u64) {
        assert!(end_row >= self.end_row());
        if end_row == self.end_row() {
            return;
        }
        let from = self.end_row();
        let first = from == self.first_row;
        for tag in 0..self.columns.len() {
            let slots = self.column_mut(tag, from, end_row);
            let entries = count_of(slots.iter().filter(|hash| **hash != 0).count());
            let (head, same) = (slots[0], slots.iter().all(|hash| *hash == slots[0]));
            let column = &mut self.columns[tag];
            let facts = &mut column.facts;
            facts.entries += entries;
            let constant = if first { head } else { facts.constant };
            let uniform = same && head == constant && column.per_row == 1;
            facts.constant = if uniform { constant } else { 0 };
        }
        self.rows = end_row - self.first_row;
    }

    /// Widens the bounds of a tag to contain `value`. For complete rows only: there is no way back.
    pub fn extend_bounds(&mut self, tag: usize, value: u128) {
        let facts = &mut self.columns[tag].facts;
        facts.value_min = facts.value_min.min(value);
        facts.value_max = facts.value_max.max(value);
    }

    /// Makes `row` findable by a hash of a tag with a point table.
    ///
    /// # Panics
    ///
    /// If the row is not of this memtable, or the tag has no point table.
    pub fn point_insert(&mut self, tag: usize, hash: u64, row: u64) {
        let row = row.checked_sub(self.first_row).expect("the row is in this memtable");
        assert!(row < self.capacity);
        self.points_mut(tag).insert(hash, row);
    }

    /// Undoes the newest insert of that tag.
    ///
    /// # Panics
    ///
    /// If the row was not inserted.
    pub fn point_remove(&mut self, tag: usize, hash: u64, row: u64) {
        let row = row.checked_sub(self.first_row).expect("the row is in this memtable");
        self.points_mut(tag).remove(hash, row);
    }

    fn points_mut(&mut self, tag: usize) -> &mut PointTable {
        self.columns[tag].points.as_mut().expect("a tag with a point table")
    }

    /// The next row that may have this hash; the caller verifies.
    ///
    /// # Panics
    ///
    /// If the tag has no point table.
    #[must_use]
    pub fn point_find(&self, tag: usize, hash: u64, cursor: &mut PointCursor) -> Option<u64> {
        let points = self.columns[tag].points.as_ref().expect("a tag with a point table");
        points.find(hash, cursor).map(|row| row + self.first_row)
    }

    /// Tells the processor that this hash will be looked for soon.
    #[inline]
    pub fn prefetch(&self, tag: usize, hash: u64) {
        if let Some(points) = &self.columns[tag].points {
            prefetch(&points.slots[points.home(hash)]);
        }
    }

    /// Remembers the newest row of an account.
    ///
    /// # Panics
    ///
    /// If the row is not of this memtable, or accounts do not spill.
    pub fn spill(&mut self, hash: u64, account: u128, row: u64) {
        let row = row.checked_sub(self.first_row).expect("the row is in this memtable");
        assert!(row < self.capacity);
        self.spill.as_mut().expect("a table that spills").insert(hash, account, row);
    }

    /// The row remembered for an account.
    ///
    /// # Panics
    ///
    /// If accounts do not spill.
    #[must_use]
    pub fn spill_find(&self, hash: u64, account: u128) -> Option<u64> {
        let spill = self.spill.as_ref().expect("a table that spills");
        spill.find(hash, account).map(|row| row + self.first_row)
    }
}

fn hashes_mut(hashes: &mut Arc<Vec<u64>>) -> &mut Vec<u64> {
    Arc::get_mut(hashes).expect("no job reads the column of a memtable that changes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: [TagOptions; 2] = [
        TagOptions { name: "id", entries_per_row: 1, point: true, bounds: true },
        TagOptions { name: "account", entries_per_row: 2, point: false, bounds: false },
    ];

    /// Goal: undoing inserts newest first restores the point table exactly, collisions included.
    #[test]
    fn points_undo_exactly() {
        let mut memtable = Memtable::new(&TAGS, 64, true);
        memtable.reset(1000);
        // All of these share their place and some their upper half as well.
        let hash = |row: u64| ((row % 5) << 32) | 3;
        for row in 1000..1020 {
            memtable.point_insert(0, hash(row), row);
        }
        let before = memtable.columns[0].points.as_ref().unwrap().slots.clone();
        for row in 1020..1064 {
            memtable.point_insert(0, hash(row), row);
        }
        for row in (1020..1064).rev() {
            memtable.point_remove(0, hash(row), row);
        }
        assert_eq!(before, memtable.columns[0].points.as_ref().unwrap().slots);
        let mut cursor = PointCursor::default();
        let mut found = Vec::new();
        while let Some(row) = memtable.point_find(0, hash(1002), &mut cursor) {
            found.push(row);
        }
        assert_eq!(found, [1002, 1007, 1012, 1017]);
        assert_eq!(memtable.point_find(0, 9 << 32, &mut PointCursor::default()), None);
    }

    /// Goal: the spill table keeps the newest row of every account, even when hashes collide.
    #[test]
    fn spill_keeps_the_newest() {
        let mut memtable = Memtable::new(&TAGS, 8, true);
        memtable.reset(50);
        for row in 50..58 {
            memtable.spill(7, 1, row);
            memtable.spill(7, u128::from(row), row);
        }
        assert_eq!(memtable.spill_find(7, 1), Some(57));
        assert_eq!(memtable.spill_find(7, 53), Some(53));
        assert_eq!(memtable.spill_find(7, 2), None);
        memtable.reset(58);
        assert_eq!(memtable.spill_find(7, 1), None);
    }

    /// Goal: counts and constants follow complete rows only; nothing of a past bar shines through.
    #[test]
    fn columns_are_counted() {
        let mut memtable = Memtable::new(&TAGS, 8, false);
        memtable.column_mut(0, 0, 4).fill(9);
        memtable.column_mut(1, 0, 4)[3] = 5;
        memtable.truncate(2);
        memtable.column_mut(0, 2, 3).fill(9);
        memtable.complete(3);
        assert_eq!((memtable.facts(0).entries, memtable.facts(0).constant), (3, 9));
        assert_eq!((memtable.facts(1).entries, memtable.facts(1).constant), (1, 0));
        memtable.column_mut(0, 3, 4)[0] = 9;
        memtable.complete(5);
        assert_eq!((memtable.facts(0).entries, memtable.facts(0).constant), (4, 0));
        assert_eq!(memtable.column(0), [9, 9, 9, 9, 0]);
        memtable.reset(5);
        memtable.complete(8);
        assert_eq!(memtable.column(0), [0, 0, 0]);
        assert_eq!((memtable.facts(0).entries, memtable.facts(0).constant), (0, 0));
    }
}
