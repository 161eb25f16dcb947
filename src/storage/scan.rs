//! Rows that meet several conditions, in row order or in reverse.
//!
//! A scan walks runs and memtables in row order. Within a run, the condition with the smallest
//! bucket drives: its entries are in row order whatever their hash, and the other conditions are
//! searched for each of its rows, unless they are so few that the caller may as well look at the
//! rows. Memtables are searched column by column. What a scan gives are candidates: hashes may
//! collide, so the caller compares the rows. Not covered: newest-first search for one value with
//! point tables (`lookup`).

use super::fetch::Fetch;
use super::grid::Grid;
use super::memtable::Memtable;
use super::run::RunReader;
use super::table::Table;
use super::{count_of, index_of};

/// Most conditions of a scan.
pub const CONDITIONS_MAX: usize = 6;
/// A driver with no more entries than this is not intersected: reading the rows is as cheap.
const DRIVER_SMALL: u64 = 64;
/// Pages asked for together when one is missing.
const READ_AHEAD: u64 = 8;
/// Runs in which a scan asks for pages beside the one that it waits in.
const RUNS_AHEAD: usize = 16;
/// Pages of the cache for each of those runs at least. In a cache that is too small, pages for
/// later would drive out those that are needed now, for ever.
const CACHE_PAGES_PER_RUN: usize = 64;
/// Entries in a page at most.
const PAGE_ENTRIES_MAX: usize = 512;
/// Slots of a column compared together.
const CHUNK: usize = 32;

/// Rows found, up to a fixed number.
#[derive(Debug)]
pub struct RowList {
    rows: Vec<u64>,
}

impl RowList {
    /// An empty list for `capacity` rows.
    ///
    /// # Panics
    ///
    /// If the capacity is 0.
    #[must_use]
    pub fn new(capacity: usize) -> RowList {
        assert!(capacity > 0);
        RowList { rows: Vec::with_capacity(capacity) }
    }

    /// The rows, in the order they were found.
    #[must_use]
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// Whether there is no room for another row.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows.len() == self.rows.capacity()
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    fn push(&mut self, row: u64) {
        assert!(!self.is_full());
        self.rows.push(row);
    }
}

/// What a row must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Number of the tag.
    pub tag: usize,
    /// Hash that one of the row's slots has.
    pub hash: u64,
    /// Which slots count: bit 0 for slot 0, bit 1 for slot 1.
    pub slots: u8,
}

impl Condition {
    const NONE: Condition = Condition { tag: 0, hash: 0, slots: 0 };

    fn admits(&self, slot: u64) -> bool {
        self.slots >> slot & 1 == 1
    }
}

/// Whether a scan has more rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanState {
    /// The list is full; there may be more.
    More,
    /// There are no more.
    End,
}

/// A search for rows; give it to [`Table::scan`] until that says "end". Valid within one op.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    conditions: [Condition; CONDITIONS_MAX],
    count: usize,
    row_min: u64,
    row_max: u64,
    reverse: bool,
    /// Rows of the run that is open; empty for none.
    open: (u64, u64),
    /// Positions in the open run, by condition, where entries can still matter. Empty for a
    /// condition that all rows of the run meet.
    ranges: [(u64, u64); CONDITIONS_MAX],
    constant: [bool; CONDITIONS_MAX],
    /// The condition that drives; none if all rows of the run do.
    driver: Option<usize>,
    intersects: bool,
}

impl Scan {
    /// Rows from `row_min` to before `row_max` that meet all conditions; ascending, or descending
    /// if `reverse`.
    ///
    /// # Panics
    ///
    /// If there are too many conditions.
    #[must_use]
    pub fn new(conditions: &[Condition], row_min: u64, row_max: u64, reverse: bool) -> Scan {
        assert!(conditions.len() <= CONDITIONS_MAX);
        let mut all = [Condition::NONE; CONDITIONS_MAX];
        for (place, condition) in all.iter_mut().zip(conditions) {
            assert!(condition.hash != 0, "what is not indexed is not found");
            assert!(condition.slots != 0);
            *place = *condition;
        }
        Scan {
            conditions: all,
            count: conditions.len(),
            row_min,
            row_max,
            reverse,
            open: (0, 0),
            ranges: [(0, 0); CONDITIONS_MAX],
            constant: [false; CONDITIONS_MAX],
            driver: None,
            intersects: false,
        }
    }

    fn conditions(&self) -> &[Condition] {
        &self.conditions[..self.count]
    }

    /// Rows from here on, or before here, are done.
    fn done_to(&mut self, row: u64) {
        if self.reverse {
            self.row_max = self.row_max.min(row);
        } else {
            self.row_min = self.row_min.max(row);
        }
    }

    /// Puts out a row.
    fn emit(&mut self, row: u64, out: &mut RowList) {
        assert!(row >= self.row_min);
        assert!(row < self.row_max);
        out.push(row);
        self.done_to(if self.reverse { row } else { row + 1 });
    }

    /// All rows of a range.
    fn all(&mut self, first_row: u64, end_row: u64, out: &mut RowList) {
        let (first_row, end_row) = (first_row.max(self.row_min), end_row.min(self.row_max));
        for step in 0..end_row.saturating_sub(first_row) {
            if out.is_full() {
                return;
            }
            let row = if self.reverse { end_row - 1 - step } else { first_row + step };
            self.emit(row, out);
        }
    }

    /// Leaves the range of rows that was searched to its end.
    fn close(&mut self, first_row: u64, end_row: u64) {
        self.open = (0, 0);
        self.done_to(if self.reverse { first_row } else { end_row });
    }

    /// Marks entries up to this position as done: to before or to behind, as the direction goes.
    fn narrow(&mut self, condition: usize, position: u64) {
        if self.reverse {
            self.ranges[condition].1 = position;
        } else {
            self.ranges[condition].0 = position;
        }
    }
}

impl Table {
    /// Adds rows to `out` until it is full or there are no more. Restartable: after `Wait` call
    /// again with the same scan and list.
    pub fn scan(&self, grid: &mut Grid, scan: &mut Scan, out: &mut RowList) -> Fetch<ScanState> {
        let end = self.active.end_row();
        scan.row_max = scan.row_max.min(end);
        loop {
            if scan.row_min >= scan.row_max {
                return Fetch::Ready(ScanState::End);
            }
            if out.is_full() {
                return Fetch::Ready(ScanState::More);
            }
            let row = if scan.reverse { scan.row_max - 1 } else { scan.row_min };
            let (first, end) = if row >= self.watermark() {
                let active = row >= self.active.first_row();
                let memtable = if active { &self.active } else { &self.frozen };
                scan_memory(memtable, scan, out);
                (memtable.first_row(), memtable.end_row())
            } else {
                let index = self.runs[0].partition_point(|run| run.end_row <= row);
                if self.scan_run(grid, index, scan, out).is_wait() {
                    self.scan_ahead(grid, index, scan);
                    return Fetch::Wait;
                }
                (self.runs[0][index].first_row, self.runs[0][index].end_row)
            };
            if !out.is_full() {
                scan.close(first, end);
            }
        }
    }

    fn reader(&self, tag: usize, index: usize) -> RunReader<'_> {
        let run = &self.runs[tag][index];
        RunReader { run, shape: self.shape(run), layout: self.layout(run) }
    }

    /// Finds the buckets of all conditions in a run; whether the run can have matches at all.
    fn scan_open(&self, grid: &mut Grid, index: usize, scan: &mut Scan) -> Fetch<bool> {
        let (mut complete, mut possible) = (true, true);
        for number in 0..scan.count {
            let Condition { tag, hash, .. } = scan.conditions[number];
            let reader = self.reader(tag, index);
            scan.constant[number] = reader.run.constant == hash;
            if !reader.run.has_blocks() {
                possible = possible && scan.constant[number];
                continue;
            }
            let bucket = reader.shape.bucket(hash);
            match reader.bucket(grid, bucket) {
                Fetch::Ready(range) => {
                    scan.ranges[number] = range;
                    possible = possible && range.0 < range.1;
                }
                Fetch::Wait => complete = false,
            }
        }
        if !possible {
            return Fetch::Ready(false);
        }
        if !complete {
            return Fetch::Wait;
        }
        let length = |number: &usize| scan.ranges[*number].1 - scan.ranges[*number].0;
        let variable = (0..scan.count).filter(|number| !scan.constant[*number]);
        scan.driver = variable.min_by_key(length);
        scan.intersects = scan.driver.is_some_and(|driver| length(&driver) > DRIVER_SMALL);
        let run = &self.runs[0][index];
        let inside =
            if scan.reverse { scan.row_max < run.end_row } else { scan.row_min > run.first_row };
        if let Some(driver) = scan.driver.filter(|_| inside) {
            let row = if scan.reverse { scan.row_max } else { scan.row_min };
            let Fetch::Ready(position) = self.seek(grid, index, scan, driver, row) else {
                return Fetch::Wait;
            };
            scan.narrow(driver, position);
        }
        scan.open = (run.first_row, run.end_row);
        Fetch::Ready(true)
    }

    /// Position of the first entry of a condition's bucket that belongs to `row` or a later one.
    fn seek(
        &self,
        grid: &mut Grid,
        index: usize,
        scan: &Scan,
        condition: usize,
        row: u64,
    ) -> Fetch<u64> {
        let tag = scan.conditions[condition].tag;
        let reader = self.reader(tag, index);
        let per_row = u64::from(self.options.tags[tag].entries_per_row);
        let field = (row - reader.run.first_row) * per_row;
        let mask = reader.shape.mask();
        let (mut low, mut high) = scan.ranges[condition];
        // The page where the last search ended is the likeliest.
        let mut probe = if scan.reverse { high.saturating_sub(1).max(low) } else { low };
        while low < high {
            let Fetch::Ready((entries, first)) = reader.entries(grid, probe) else {
                return Fetch::Wait;
            };
            let from = index_of(low.saturating_sub(first));
            let to = entries.len().min(index_of(high - first));
            let page = &entries[from..to];
            let at = page.partition_point(|entry| entry & mask < field);
            let (page_first, page_end) = (first + count_of(from), first + count_of(to));
            if at == page.len() {
                low = page_end;
            } else if at == 0 {
                high = page_first;
            } else {
                return Fetch::Ready(page_first + count_of(at));
            }
            probe = low + (high - low) / 2;
        }
        Fetch::Ready(low)
    }

    fn scan_run(
        &self,
        grid: &mut Grid,
        index: usize,
        scan: &mut Scan,
        out: &mut RowList,
    ) -> Fetch<()> {
        let run = &self.runs[0][index];
        if scan.open != (run.first_row, run.end_row) {
            match self.scan_open(grid, index, scan) {
                Fetch::Wait => return Fetch::Wait,
                Fetch::Ready(false) => return Fetch::Ready(()),
                Fetch::Ready(true) => {}
            }
        }
        let Some(driver) = scan.driver else {
            scan.all(run.first_row, run.end_row, out);
            return Fetch::Ready(());
        };
        while scan.ranges[driver].0 < scan.ranges[driver].1 {
            if out.is_full() || scan.row_min >= scan.row_max {
                return Fetch::Ready(());
            }
            if self.scan_page(grid, index, driver, scan, out).is_wait() {
                return Fetch::Wait;
            }
        }
        Fetch::Ready(())
    }

    /// Goes through the entries of one page of the driver.
    fn scan_page(
        &self,
        grid: &mut Grid,
        index: usize,
        driver: usize,
        scan: &mut Scan,
        out: &mut RowList,
    ) -> Fetch<()> {
        let condition = scan.conditions[driver];
        let reader = self.reader(condition.tag, index);
        let (low, high) = scan.ranges[driver];
        let position = if scan.reverse { high - 1 } else { low };
        let mut page = [0; PAGE_ENTRIES_MAX];
        let Fetch::Ready((entries, first)) = reader.entries(grid, position) else {
            Table::read_ahead(grid, &reader, scan.reverse, scan.ranges[driver], 1);
            return Fetch::Wait;
        };
        let base = low.max(first);
        let entries = &entries[index_of(base - first)..entries.len().min(index_of(high - first))];
        let page = &mut page[..entries.len()];
        page.copy_from_slice(entries);
        let per_row = u64::from(self.options.tags[condition.tag].entries_per_row);
        let mask = reader.shape.mask();
        for step in 0..page.len() {
            let at = if scan.reverse { page.len() - 1 - step } else { step };
            let (entry, here) = (page[at], base + count_of(at));
            let field = entry & mask;
            let row = reader.run.first_row + field / per_row;
            let inside = row >= scan.row_min && row < scan.row_max;
            let matches = (entry ^ condition.hash) & !mask == 0;
            if inside && matches && condition.admits(field % per_row) {
                if out.is_full() {
                    scan.narrow(driver, here + u64::from(scan.reverse));
                    return Fetch::Ready(());
                }
                match self.meets_others(grid, index, driver, scan, row) {
                    Fetch::Ready(true) => scan.emit(row, out),
                    Fetch::Ready(false) => {}
                    Fetch::Wait => {
                        scan.narrow(driver, here + u64::from(scan.reverse));
                        return Fetch::Wait;
                    }
                }
            }
        }
        scan.narrow(driver, if scan.reverse { base } else { base + count_of(page.len()) });
        Fetch::Ready(())
    }

    /// Asks for what the scan will need of the runs after this one, so that it waits for the disk a
    /// few times in all and not a few times in each run: directory pages first, and when they are
    /// here, pages of the smallest bucket.
    fn scan_ahead(&self, grid: &mut Grid, index: usize, scan: &Scan) {
        let runs = RUNS_AHEAD.min(grid.cache_pages() / CACHE_PAGES_PER_RUN);
        for ahead in 1..=runs {
            let next = if scan.reverse { index.checked_sub(ahead) } else { Some(index + ahead) };
            let Some(next) = next.filter(|next| *next < self.runs[0].len()) else { return };
            let run = &self.runs[0][next];
            if run.end_row <= scan.row_min || run.first_row >= scan.row_max {
                return;
            }
            let mut smallest: Option<(usize, (u64, u64))> = None;
            let mut complete = true;
            for condition in scan.conditions() {
                let reader = self.reader(condition.tag, next);
                if !reader.run.has_blocks() {
                    continue;
                }
                match reader.bucket(grid, reader.shape.bucket(condition.hash)) {
                    Fetch::Wait => complete = false,
                    Fetch::Ready(range) => {
                        let length = range.1 - range.0;
                        if smallest.is_none_or(|(_, least)| length < least.1 - least.0) {
                            smallest = Some((condition.tag, range));
                        }
                    }
                }
            }
            if let (true, Some((tag, range))) = (complete, smallest) {
                Table::read_ahead(grid, &self.reader(tag, next), scan.reverse, range, 0);
            }
        }
    }

    /// Asks for pages of a range, from page `first` of it on.
    fn read_ahead(
        grid: &mut Grid,
        reader: &RunReader<'_>,
        reverse: bool,
        range: (u64, u64),
        first: u64,
    ) {
        let length = range.1 - range.0;
        for page in first..READ_AHEAD {
            let step = page * count_of(PAGE_ENTRIES_MAX);
            if step >= length {
                return;
            }
            let position = if reverse { range.1 - 1 - step } else { range.0 + step };
            // Only the request matters: the page is taken when it is its turn.
            let _requested = reader.entries(grid, position).is_ready();
        }
    }

    /// Whether a row meets the conditions beside the driver.
    fn meets_others(
        &self,
        grid: &mut Grid,
        index: usize,
        driver: usize,
        scan: &mut Scan,
        row: u64,
    ) -> Fetch<bool> {
        if !scan.intersects {
            return Fetch::Ready(true);
        }
        for number in 0..scan.count {
            if number == driver || scan.constant[number] {
                continue;
            }
            let Fetch::Ready(position) = self.seek(grid, index, scan, number, row) else {
                return Fetch::Wait;
            };
            let end = self.runs[scan.conditions[number].tag][index].entries;
            let end = scan.ranges[number].1.min(end);
            match self.row_matches(grid, index, scan.conditions[number], row, (position, end)) {
                Fetch::Ready(true) => {}
                Fetch::Ready(false) => {
                    // Entries of this row are kept in range: later rows lie beyond them.
                    self.narrow_other(scan, number, position);
                    return Fetch::Ready(false);
                }
                Fetch::Wait => return Fetch::Wait,
            }
            self.narrow_other(scan, number, position);
        }
        Fetch::Ready(true)
    }

    /// What lies before the row (or, in reverse, well behind it) is of no more use.
    fn narrow_other(&self, scan: &mut Scan, number: usize, position: u64) {
        let tag = scan.conditions[number].tag;
        let (low, high) = scan.ranges[number];
        if scan.reverse {
            let per_row = u64::from(self.options.tags[tag].entries_per_row);
            scan.ranges[number].1 = high.min(position + per_row);
        } else {
            scan.ranges[number].0 = low.max(position);
        }
    }

    /// Whether one of the entries of `row`, which begin at `position`, meets the condition.
    fn row_matches(
        &self,
        grid: &mut Grid,
        index: usize,
        condition: Condition,
        row: u64,
        (mut position, end): (u64, u64),
    ) -> Fetch<bool> {
        let reader = self.reader(condition.tag, index);
        let per_row = u64::from(self.options.tags[condition.tag].entries_per_row);
        let mask = reader.shape.mask();
        while position < end {
            let Fetch::Ready((entries, first)) = reader.entries(grid, position) else {
                return Fetch::Wait;
            };
            let entry = entries[index_of(position - first)];
            let field = entry & mask;
            if reader.run.first_row + field / per_row != row {
                return Fetch::Ready(false);
            }
            let matches = (entry ^ condition.hash) & !mask == 0;
            if matches && condition.admits(field % per_row) {
                return Fetch::Ready(true);
            }
            position += 1;
        }
        Fetch::Ready(false)
    }
}

/// Whether a row of a memtable meets a condition.
fn memory_matches(memtable: &Memtable, condition: &Condition, row: u64) -> bool {
    let column = memtable.column(condition.tag);
    let rows = memtable.end_row() - memtable.first_row();
    let per_row = count_of(column.len()) / rows;
    let at = (row - memtable.first_row()) * per_row;
    (0..per_row).any(|slot| column[index_of(at + slot)] == condition.hash && condition.admits(slot))
}

/// Searches a memtable until the list is full or the rows end.
fn scan_memory(memtable: &Memtable, scan: &mut Scan, out: &mut RowList) {
    let (first_row, end_row) = (memtable.first_row(), memtable.end_row());
    let Some(driver) = scan.conditions().first().copied() else {
        scan.all(first_row, end_row, out);
        return;
    };
    let from = scan.row_min.max(first_row);
    let to = scan.row_max.min(end_row);
    if from >= to {
        return;
    }
    let column = memtable.column(driver.tag);
    let per_row = index_of(count_of(column.len()) / (end_row - first_row));
    let chunk_rows = count_of(CHUNK / per_row);
    let chunks = (to - from).div_ceil(chunk_rows);
    for step in 0..chunks {
        let chunk = if scan.reverse { chunks - 1 - step } else { step };
        let start = from + chunk * chunk_rows;
        let end = to.min(start + chunk_rows);
        let slots = index_of(start - first_row) * per_row..index_of(end - first_row) * per_row;
        // Without a way out of the loop, it compares many at once.
        let hits =
            column[slots].iter().fold(0, |hits, hash| hits + u32::from(*hash == driver.hash));
        if hits == 0 {
            continue;
        }
        for step in 0..end - start {
            let row = if scan.reverse { end - 1 - step } else { start + step };
            if scan.conditions().iter().all(|found| memory_matches(memtable, found, row)) {
                if out.is_full() {
                    return;
                }
                scan.emit(row, out);
            }
        }
    }
}
