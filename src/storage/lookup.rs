//! Finding rows by hash, from the newest to the oldest.
//!
//! A lookup walks the active memtable, the frozen one, and the runs. What it gives are candidates:
//! the caller compares the row and asks again if it is another. Memtables answer for tags with a
//! point table and for the account tag (accounts that spilled); for other tags they are searched
//! row by row. Not covered: more than one condition, or rows in ascending order (`scan`).

use super::fetch::Fetch;
use super::grid::Grid;
use super::memtable::{Memtable, PointCursor};
use super::run::{Run, RunReader};
use super::table::Table;
use super::{count_of, index_of};

/// Where a lookup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Active,
    Frozen,
    Runs,
}

/// A search for rows with one hash; give it to [`Table::lookup`] until that says "none". It is
/// valid within one op.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    tag: usize,
    hash: u64,
    value: Option<u128>,
    row_min: u64,
    stage: Stage,
    cursor: PointCursor,
    /// Only rows below are still to be found.
    bound: u64,
    /// Root of the run that `start` and `next` belong to; 0 for none.
    root: u64,
    start: u64,
    next: u64,
}

impl Lookup {
    /// A search among all rows. With `value` given, runs whose bounds exclude it are skipped; for
    /// the account tag it is the account's id and must be given.
    ///
    /// # Panics
    ///
    /// If the hash is 0.
    #[must_use]
    pub fn new(tag: usize, hash: u64, value: Option<u128>) -> Lookup {
        assert!(hash != 0, "what is not indexed is not found");
        Lookup {
            tag,
            hash,
            value,
            row_min: 0,
            stage: Stage::Active,
            cursor: PointCursor::default(),
            bound: u64::MAX,
            root: 0,
            start: 0,
            next: 0,
        }
    }

    /// The same for rows from `row_min` on only.
    #[must_use]
    pub fn from_row(self, row_min: u64) -> Lookup {
        Lookup { row_min, ..self }
    }
}

impl Table {
    /// The next older row that may have the hash, or none. Restartable: after `Wait` call again
    /// with the same lookup.
    pub fn lookup(&self, grid: &mut Grid, lookup: &mut Lookup) -> Fetch<Option<u64>> {
        loop {
            let found = match lookup.stage {
                Stage::Runs => return self.lookup_runs(grid, lookup),
                Stage::Active => self.lookup_memory(&self.active, lookup),
                Stage::Frozen => self.lookup_memory(&self.frozen, lookup),
            };
            match found {
                Some(row) if row >= lookup.row_min => return Fetch::Ready(Some(row)),
                Some(_) => {}
                None => {
                    let active = lookup.stage == Stage::Active;
                    lookup.stage = if active { Stage::Frozen } else { Stage::Runs };
                    lookup.cursor = PointCursor::default();
                    lookup.bound = u64::MAX;
                }
            }
        }
    }

    fn lookup_memory(&self, memtable: &Memtable, lookup: &mut Lookup) -> Option<u64> {
        let (tag, hash) = (lookup.tag, lookup.hash);
        if self.options.tags[tag].point {
            return memtable.point_find(tag, hash, &mut lookup.cursor);
        }
        if self.options.account_tag == Some(tag) {
            let account = lookup.value.expect("an account is looked up by its id");
            let row = memtable.spill_find(hash, account)?;
            if row >= lookup.bound {
                return None;
            }
            lookup.bound = row;
            return Some(row);
        }
        let per_row = u64::from(self.options.tags[tag].entries_per_row);
        let column = memtable.column(tag);
        let first = memtable.first_row();
        let rows = lookup.bound.min(memtable.end_row()).saturating_sub(first);
        let searched = &column[..index_of(rows * per_row)];
        let at = searched.iter().rposition(|found| *found == hash)?;
        lookup.bound = first + count_of(at) / per_row;
        Some(lookup.bound)
    }

    fn lookup_runs(&self, grid: &mut Grid, lookup: &mut Lookup) -> Fetch<Option<u64>> {
        let runs = &self.runs[lookup.tag];
        loop {
            let newer = runs.partition_point(|run| run.first_row < lookup.bound);
            let Some(index) = newer.checked_sub(1) else {
                return Fetch::Ready(None);
            };
            let run = &runs[index];
            if run.end_row <= lookup.row_min {
                return Fetch::Ready(None);
            }
            if !run.has_blocks() || Table::excludes(run, lookup, self) {
                if run.constant == lookup.hash {
                    let row = lookup.bound.min(run.end_row) - 1;
                    lookup.bound = row;
                    return Fetch::Ready(Some(row).filter(|row| *row >= lookup.row_min));
                }
                lookup.bound = run.first_row;
                continue;
            }
            if lookup.root != run.root.address && self.filtered(index, lookup) {
                lookup.bound = run.first_row;
                continue;
            }
            match self.lookup_run(grid, run, lookup) {
                Fetch::Wait => return Fetch::Wait,
                Fetch::Ready(Some(row)) => {
                    return Fetch::Ready(Some(row).filter(|row| *row >= lookup.row_min));
                }
                Fetch::Ready(None) => {
                    lookup.root = 0;
                    lookup.bound = run.first_row;
                }
            }
        }
    }

    /// Whether the filter of a run tells that the hash is not there.
    fn filtered(&self, index: usize, lookup: &Lookup) -> bool {
        self.tasks.filter_tag == Some(lookup.tag)
            && self.filters[index].as_ref().is_some_and(|filter| !filter.may_contain(lookup.hash))
    }

    /// Whether the bounds of a run tell that the value is not there.
    fn excludes(run: &Run, lookup: &Lookup, table: &Table) -> bool {
        let bounded = table.options.tags[lookup.tag].bounds;
        lookup.value.is_some_and(|value| {
            bounded && run.constant == 0 && (value < run.value_min || value > run.value_max)
        })
    }

    fn lookup_run(&self, grid: &mut Grid, run: &Run, lookup: &mut Lookup) -> Fetch<Option<u64>> {
        let (shape, layout) = (self.shape(run), self.layout(run));
        let reader = RunReader { run, shape, layout };
        if lookup.root != run.root.address {
            let Fetch::Ready(range) = reader.bucket(grid, shape.bucket(lookup.hash)) else {
                return Fetch::Wait;
            };
            (lookup.start, lookup.next) = range;
            lookup.root = run.root.address;
        }
        let per_row = u64::from(self.options.tags[lookup.tag].entries_per_row);
        let mask = shape.mask();
        while lookup.next > lookup.start {
            let Fetch::Ready((entries, first)) = reader.entries(grid, lookup.next - 1) else {
                return Fetch::Wait;
            };
            let from = index_of(lookup.start.saturating_sub(first));
            let to = index_of(lookup.next - first);
            let wanted = lookup.hash & !mask;
            let found = entries[from..to].iter().rposition(|entry| entry & !mask == wanted);
            let Some(at) = found else {
                lookup.next = first + count_of(from);
                continue;
            };
            lookup.next = first + count_of(from + at);
            let row = run.first_row + (entries[from + at] & mask) / per_row;
            if row < lookup.bound {
                lookup.bound = row;
                return Fetch::Ready(Some(row));
            }
        }
        Fetch::Ready(None)
    }
}
