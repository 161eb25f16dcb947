//! A table's indexes: two memtables, runs by tag, and the schedule by which one becomes the other.
//!
//! A *bar* ends at the end of an op when the active memtable might not take another one. Its rows
//! become one level-0 run per tag, which takes the next bar; `fan_in` neighbouring runs of a level
//! merge into one of the next, which takes half as long as until the next such merge. What is made,
//! at which addresses, and at which bar's end it becomes visible follows from the committed rows
//! alone; the op there waits if the work is not done. So neither timing nor restarts reach the
//! disk. All tags have bars and merges in common, and therefore the same ranges of rows. Not
//! covered: doing the work (`task`), the manifest's bytes (`manifest`), reading (`lookup`, `scan`).

use super::block::BlockRef;
use super::fetch::Fetch;
use super::filter::Filter;
use super::grid::Grid;
use super::job::Job;
use super::memtable::{Memtable, PointCursor};
use super::merge::FAN_IN_MAX;
use super::pace::Pace;
use super::run::{ITEM_SIZE, Layout, ROW_BITS_MAX, Run, RunShape, place};
use super::task::{FlushGroup, MergeGroup, Tasks, TasksSize};
use super::{count_of, index_of};
use crate::protocol::{SECTOR_SIZE, to_index};

use zerocopy::FromBytes;

/// Runs of the last level that a tag can have; they never merge. Small blocks have room for fewer,
/// so that one block can name all blocks of a manifest.
fn runs_last_max(block_size: u32) -> usize {
    to_index(block_size / 64).min(1024)
}

/// References that fit one sector.
const SECTOR_REFERENCES_MAX: usize = to_index(SECTOR_SIZE / ITEM_SIZE);

/// One index of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagOptions {
    /// Name, for people.
    pub name: &'static str,
    /// Hashes that a row can have: 1 or 2.
    pub entries_per_row: u32,
    /// Whether newest rows are found by hash in memory.
    pub point: bool,
    /// Whether the smallest and largest value of every run are kept.
    pub bounds: bool,
}

/// What a table is made for.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    /// Identity, which jobs carry.
    pub id: u8,
    /// Name, for people.
    pub name: &'static str,
    /// Cluster that the blocks belong to.
    pub cluster: u128,
    /// Its indexes; the number of a tag is its place here.
    pub tags: &'static [TagOptions],
    /// The tag by which accounts spill, if any.
    pub account_tag: Option<usize>,
    /// Rows that a memtable holds: a power of two.
    pub bar_rows: u64,
    /// Rows that one op can add.
    pub rows_per_op_max: u64,
    /// Runs that merge into one: 2, 4 or 8.
    pub fan_in: u64,
    /// Levels of runs at most; fewer if a run of a level would have more blocks than a root names.
    pub levels_max: u32,
    /// Bytes of a block.
    pub block_size: u32,
    /// Entries a merge can hold in memory: a bucket with more takes extra passes. 65,536 is good.
    pub scratch_entries: u32,
}

/// Filters in memory for the runs of one tag, see [`Filter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterOptions {
    /// The tag: one with random values that are looked up in vain.
    pub tag: usize,
    /// Memory in bytes: 3 per row of the runs that are to have a filter, the lowest levels first.
    pub bytes_max: u64,
}

impl TableOptions {
    /// Shape of the runs of a tag and level.
    #[must_use]
    pub fn shape(&self, tag: usize, level: u32) -> RunShape {
        RunShape::new(self.row_bits(tag, level))
    }

    fn row_bits(&self, tag: usize, level: u32) -> u32 {
        let slots = self.bar_rows * u64::from(self.tags[tag].entries_per_row);
        slots.ilog2() + level * self.fan_in.ilog2()
    }

    /// Layout of the largest run of a tag and level.
    fn layout_max(&self, tag: usize, level: u32) -> Layout {
        let shape = self.shape(tag, level);
        Layout::new(shape, shape.mask() + 1, self.block_size)
    }

    /// Blocks of the largest run of any tag at a level.
    pub(super) fn blocks_max(&self, level: u32) -> u64 {
        let blocks = (0..self.tags.len()).map(|tag| self.layout_max(tag, level).blocks());
        blocks.max().expect("a table has tags")
    }

    /// Levels of runs, as far as a root names their blocks.
    ///
    /// # Panics
    ///
    /// If not even a memtable fits.
    #[must_use]
    pub fn levels(&self) -> u32 {
        let fits = |level: u32| {
            (0..self.tags.len()).all(|tag| {
                self.row_bits(tag, level) <= ROW_BITS_MAX && self.layout_max(tag, level).fits()
            })
        };
        let levels = (0..self.levels_max).take_while(|level| fits(*level)).count();
        assert!(levels > 0, "table {}: a bar is too large for the blocks", self.name);
        u32::try_from(levels).expect("levels are few")
    }

    /// Runs of a tag at most.
    fn runs_max(&self) -> usize {
        let per_level = 2 * index_of(self.fan_in);
        to_index(self.levels()) * per_level + runs_last_max(self.block_size)
    }

    /// Blocks that can wait to be written at a time: the grid's queue must have room for them.
    #[must_use]
    pub fn blocks_in_flight_max(&self) -> u32 {
        TasksSize::of(self, None, self.levels()).buffers()
    }

    /// Whole blocks that the table can read or hold at a time: the grid must have as many
    /// buffers to spare, or merges could wait for each other.
    ///
    /// # Panics
    ///
    /// Never: the fan-in is 8 at most.
    #[must_use]
    pub fn read_buffers_max(&self) -> u32 {
        2 * u32::try_from(self.fan_in).expect("8 at most")
    }

    /// What a table occupies, in bytes.
    #[must_use]
    pub fn memory_bytes(&self, filters: Option<FilterOptions>) -> TableMemory {
        let tasks = TasksSize::of(self, filters, self.levels());
        let spills = self.account_tag.is_some();
        let run = self.tags.len() * size_of::<Run>() + size_of::<Option<Filter>>();
        TableMemory {
            memtables: 2 * Memtable::memory_bytes(self.tags, self.bar_rows, spills),
            work: tasks.memory_bytes(),
            filters: tasks.filter_memory_bytes(),
            runs: count_of(self.runs_max() * run),
        }
    }

    /// Bytes of the longest manifest.
    #[must_use]
    pub fn manifest_size_max(&self) -> u64 {
        let runs = count_of(self.runs_max() * self.tags.len() * size_of::<Run>());
        let fixed = 16 + 8 * u64::from(self.levels() - 1);
        runs + TasksSize::of(self, None, self.levels()).addresses_size_max() + fixed * 8
    }

    fn validate(&self) {
        assert!(self.bar_rows.is_power_of_two());
        assert!(self.bar_rows > 1);
        assert!(self.rows_per_op_max > 0);
        assert!(self.rows_per_op_max <= self.bar_rows);
        assert!([2, 4, 8].contains(&self.fan_in));
        assert!(index_of(self.fan_in) <= FAN_IN_MAX);
        assert!(!self.tags.is_empty());
        assert!(self.levels_max > 0);
        for tag in self.tags {
            assert!([1, 2].contains(&tag.entries_per_row), "tag {}", tag.name);
        }
    }
}

/// Memory of a table by purpose, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableMemory {
    /// The newest rows.
    pub memtables: u64,
    /// Flushes and merges.
    pub work: u64,
    /// Filters.
    pub filters: u64,
    /// The list of runs.
    pub runs: u64,
}

/// Where the release of merged runs goes on.
#[derive(Clone, Copy, Debug, Default)]
struct ReleaseCursor {
    level: usize,
    tag: usize,
    input: usize,
    reference: u64,
}

/// All indexes of one table.
#[derive(Debug)]
pub struct Table {
    pub(super) options: TableOptions,
    pub(super) levels: u32,
    pub(super) active: Memtable,
    pub(super) frozen: Memtable,
    /// Runs by tag, in row order, levels falling; the same ranges of rows for all tags.
    pub(super) runs: Vec<Vec<Run>>,
    /// Filters of the runs of the tag with filters; none for runs without.
    pub(super) filters: Vec<Option<Filter>>,
    /// Bars ended so far.
    pub(super) bars: u64,
    /// Merges made visible since the start.
    pub(super) merged: u64,
    pub(super) tasks: Tasks,
    release: ReleaseCursor,
    /// Rows are being indexed again after a restart.
    pub(super) reindexing: bool,
}

impl Table {
    /// An empty table without filters. All memory it will ever use is reserved here.
    ///
    /// # Panics
    ///
    /// If the options make no sense.
    #[must_use]
    pub fn new(options: &TableOptions) -> Table {
        Table::with_filters(options, None)
    }

    /// An empty table, with filters if wanted. They change nothing but speed.
    ///
    /// # Panics
    ///
    /// If the options make no sense.
    #[must_use]
    pub fn with_filters(options: &TableOptions, filters: Option<FilterOptions>) -> Table {
        options.validate();
        let options = *options;
        let levels = options.levels();
        let runs_max = options.runs_max();
        let spills = options.account_tag.is_some();
        Table {
            options,
            levels,
            active: Memtable::new(options.tags, options.bar_rows, spills),
            frozen: Memtable::new(options.tags, options.bar_rows, spills),
            runs: options.tags.iter().map(|_| Vec::with_capacity(runs_max)).collect(),
            filters: Vec::with_capacity(runs_max),
            bars: 0,
            merged: 0,
            tasks: Tasks::new(&TasksSize::of(&options, filters, levels)),
            release: ReleaseCursor::default(),
            reindexing: false,
        }
    }

    /// What it was made for.
    #[must_use]
    pub fn options(&self) -> &TableOptions {
        &self.options
    }

    /// Levels of runs.
    #[must_use]
    pub fn levels(&self) -> u32 {
        self.levels
    }

    /// Whether there is room for many more runs. Falls only after some thousands of merges of the
    /// last level.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.runs[0].len() + 2 * index_of(self.options.fan_in) < self.runs[0].capacity()
    }

    /// Most blocks that one `end_op` can acquire.
    #[must_use]
    pub fn acquires_max(&self) -> u64 {
        let tags = count_of(self.options.tags.len());
        (0..self.levels).map(|level| self.options.blocks_max(level) * tags).sum()
    }

    /// Runs of a tag in row order.
    #[must_use]
    pub fn runs(&self, tag: usize) -> &[Run] {
        &self.runs[tag]
    }

    /// Rows below are in runs; those from here on are in memory only, and are to be indexed again
    /// after a restart.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.frozen.first_row()
    }

    /// First row of the active memtable.
    #[must_use]
    pub fn active_row(&self) -> u64 {
        self.active.first_row()
    }

    pub(super) fn memtable_mut(&mut self, row: u64) -> &mut Memtable {
        if row >= self.active.first_row() { &mut self.active } else { &mut self.frozen }
    }

    /// Sets one slot of a row's entries: 0 for none.
    ///
    /// # Panics
    ///
    /// If the row is complete already, or there is no such slot.
    pub fn set(&mut self, row: u64, tag: usize, slot: u32, hash: u64) {
        assert!(slot < self.options.tags[tag].entries_per_row);
        self.memtable_mut(row).column_mut(tag, row, row + 1)[to_index(slot)] = hash;
    }

    /// Slots of rows `first_row` to before `end_row`, all of one memtable: those below
    /// [`Table::active_row`] are in one, the others in the other. Zero unless set before.
    ///
    /// # Panics
    ///
    /// If the rows are complete already, or of both memtables.
    pub fn column_mut(&mut self, tag: usize, first_row: u64, end_row: u64) -> &mut [u64] {
        assert!(first_row >= self.active_row() || end_row <= self.active_row());
        self.memtable_mut(first_row).column_mut(tag, first_row, end_row)
    }

    /// Forgets slots set for rows from `end_row` on. Point inserts are undone on their own.
    pub fn truncate(&mut self, end_row: u64) {
        self.active.truncate(end_row);
    }

    /// Makes a row findable by the hash of a point tag, at once.
    pub fn unique_insert(&mut self, tag: usize, hash: u64, row: u64) {
        self.memtable_mut(row).point_insert(tag, hash, row);
    }

    /// Undoes the newest insert of a point tag.
    pub fn unique_remove(&mut self, tag: usize, hash: u64, row: u64) {
        self.memtable_mut(row).point_remove(tag, hash, row);
    }

    /// The next row of the active memtable alone that may have this hash.
    #[must_use]
    pub fn unique_recent(&self, tag: usize, hash: u64, cursor: &mut PointCursor) -> Option<u64> {
        self.active.point_find(tag, hash, cursor)
    }

    /// Tells the processor that this hash of a point tag will be looked for soon.
    #[inline]
    pub fn prefetch(&self, tag: usize, hash: u64) {
        self.active.prefetch(tag, hash);
        self.frozen.prefetch(tag, hash);
    }

    /// Widens the bounds of a tag by the value of a row. There is no way back, so it is called at
    /// the end of an op, before [`Table::end_op`], and while indexing again.
    ///
    /// # Panics
    ///
    /// If the tag has no bounds.
    pub fn extend_bounds(&mut self, row: u64, tag: usize, value: u128) {
        assert!(self.options.tags[tag].bounds);
        self.memtable_mut(row).extend_bounds(tag, value);
    }

    /// Remembers an account's newest row, until that row is in runs. The row must be final.
    pub fn spill(&mut self, hash: u64, account: u128, row: u64) {
        if row >= self.watermark() {
            self.memtable_mut(row).spill(hash, account, row);
        }
    }

    /// A lower bound of the smallest value of a tag at or above `value`; none if there is none.
    ///
    /// # Panics
    ///
    /// If the tag has no bounds.
    #[must_use]
    pub fn value_min_from(&self, tag: usize, value: u128) -> Option<u128> {
        assert!(self.options.tags[tag].bounds);
        let memtables = [&self.active, &self.frozen].map(|memtable| memtable.facts(tag));
        let memory = memtables.iter().map(|facts| (facts.value_min, facts.value_max));
        let runs = self.runs[tag].iter().filter(|run| run.entries > 0);
        let bounds = memory.chain(runs.map(|run| (run.value_min, run.value_max)));
        let above = bounds.filter(|(min, max)| min <= max && *max >= value);
        above.map(|(min, _)| min.max(value)).min()
    }

    /// Ends an op after which there are `rows_end` rows: counts its rows, and at the end of a bar
    /// makes runs visible and schedules new ones. After `Wait`, call again with the same arguments.
    ///
    /// # Panics
    ///
    /// If rows vanished, or more were added than an op may.
    pub fn end_op(&mut self, grid: &mut Grid, sequence: u64, rows_end: u64) -> Fetch<()> {
        assert!(!self.reindexing);
        self.active.complete(rows_end);
        let rows = rows_end - self.active.first_row();
        if rows + self.options.rows_per_op_max <= self.options.bar_rows {
            return Fetch::Ready(());
        }
        let bar = self.bars + 1;
        let due = |group: &&MergeGroup| group.live && group.deadline == bar;
        if self.tasks.flush.unfinished() {
            return Fetch::Wait;
        }
        if self.tasks.merges.iter().filter(due).any(MergeGroup::unfinished) {
            return Fetch::Wait;
        }
        if self.release_inputs(grid, bar).is_wait() {
            return Fetch::Wait;
        }
        self.release = ReleaseCursor::default();
        self.bars = bar;
        self.install_flush();
        for level in 0..self.tasks.merges.len() {
            if self.tasks.merges[level].live && self.tasks.merges[level].deadline == bar {
                self.install_merge(level);
            }
        }
        std::mem::swap(&mut self.active, &mut self.frozen);
        self.active.reset(rows_end);
        self.schedule_flush(grid, sequence);
        for level in 0..self.levels - 1 {
            self.schedule_merge(grid, sequence, level);
        }
        self.check_ranges();
        Fetch::Ready(())
    }

    /// All tags have the same ranges of rows, without gaps, up to the watermark.
    fn check_ranges(&self) {
        let mut row = 0;
        for (index, run) in self.runs[0].iter().enumerate() {
            assert!(run.first_row == row);
            assert!(run.end_row > row);
            row = run.end_row;
            for runs in &self.runs {
                assert!(runs[index].end_row == row);
            }
        }
        assert!(row == self.watermark());
        assert!(self.runs.iter().all(|runs| runs.len() == self.runs[0].len()));
        assert!(self.filters.len() == self.runs[0].len());
    }

    fn install_flush(&mut self) {
        if !self.tasks.flush.live {
            return;
        }
        self.tasks.flush.live = false;
        for (runs, result) in self.runs.iter_mut().zip(&self.tasks.flush.results) {
            assert!(runs.len() < runs.capacity(), "the number of runs is checked at admission");
            runs.push(*result);
        }
        self.filters.push(self.tasks.flush.filter.take());
    }

    /// Number of the run that starts at this row.
    pub(super) fn run_at(&self, first_row: u64) -> usize {
        let found = self.runs[0].binary_search_by_key(&first_row, |run| run.first_row);
        found.expect("runs in a merge are in the table")
    }

    fn install_merge(&mut self, level: usize) {
        self.merged += 1;
        let group = &mut self.tasks.merges[level];
        group.live = false;
        let first_row = group.first_row;
        let at = self.run_at(first_row);
        let count = index_of(self.options.fan_in);
        for (runs, result) in self.runs.iter_mut().zip(&self.tasks.merges[level].results) {
            assert!(runs[at + count - 1].end_row == result.end_row);
            runs[at] = *result;
            runs.drain(at + 1..at + count);
        }
        for filter in self.filters[at..at + count].iter_mut().filter_map(Option::take) {
            self.tasks.filters.give(filter);
        }
        self.filters[at] = self.tasks.merges[level].filter.take();
        self.filters.drain(at + 1..at + count);
    }

    /// Releases the blocks of all runs whose merge is visible from this bar on.
    fn release_inputs(&mut self, grid: &mut Grid, bar: u64) -> Fetch<()> {
        while self.release.level < self.tasks.merges.len() {
            let group = &self.tasks.merges[self.release.level];
            if !group.live || group.deadline != bar || self.release.tag == self.runs.len() {
                let level = self.release.level + 1;
                self.release = ReleaseCursor { level, ..ReleaseCursor::default() };
                continue;
            }
            let run =
                self.runs[self.release.tag][self.run_at(group.first_row) + self.release.input];
            if run.has_blocks() && self.release_run(grid, &run).is_wait() {
                return Fetch::Wait;
            }
            self.release.reference = 0;
            self.release.input += 1;
            if self.release.input == index_of(self.options.fan_in) {
                self.release.input = 0;
                self.release.tag += 1;
            }
        }
        Fetch::Ready(())
    }

    fn release_run(&mut self, grid: &mut Grid, run: &Run) -> Fetch<()> {
        let layout = self.layout(run);
        let references = layout.blocks() - 1;
        while self.release.reference < references {
            let (sector, offset, room) = place(self.release.reference * u64::from(ITEM_SIZE));
            let Fetch::Ready(page) = grid.page(&run.root, sector) else {
                return Fetch::Wait;
            };
            let mut addresses = [0; SECTOR_REFERENCES_MAX];
            let left = index_of(references - self.release.reference);
            let count = left.min(room / size_of::<BlockRef>());
            let bytes = page[offset..].chunks_exact(size_of::<BlockRef>());
            for (address, bytes) in addresses[..count].iter_mut().zip(bytes) {
                *address = reference_of(bytes).address;
            }
            for address in &addresses[..count] {
                grid.release(*address);
            }
            self.release.reference += count_of(count);
        }
        grid.release(run.root.address);
        Fetch::Ready(())
    }

    /// Shape of a run.
    pub(super) fn shape(&self, run: &Run) -> RunShape {
        self.options.shape(to_index(run.tag), run.level)
    }

    /// Layout of a run.
    pub(super) fn layout(&self, run: &Run) -> Layout {
        Layout::new(self.shape(run), run.entries, self.options.block_size)
    }

    /// The run that the frozen memtable's column becomes.
    pub(super) fn flush_result(&self, tag: usize) -> Run {
        let facts = self.frozen.facts(tag);
        Run {
            first_row: self.frozen.first_row(),
            end_row: self.frozen.end_row(),
            entries: facts.entries,
            constant: facts.constant,
            value_min: if facts.entries > 0 { facts.value_min } else { 0 },
            value_max: if facts.entries > 0 { facts.value_max } else { 0 },
            tag: u32::try_from(tag).expect("tags are few"),
            ..Run::EMPTY
        }
    }

    fn schedule_flush(&mut self, grid: &mut Grid, sequence: u64) {
        assert!(!self.tasks.flush.live);
        self.tasks.flush.begin(sequence);
        for tag in 0..self.options.tags.len() {
            let result = self.flush_result(tag);
            let blocks = if result.has_blocks() { self.layout(&result).blocks() } else { 0 };
            let addresses = &mut self.tasks.flush.addresses[tag];
            acquire(grid, addresses, blocks);
            self.tasks.flush.results.push(result);
        }
    }

    /// The run that `runs`, neighbours of one tag, become.
    pub(super) fn merge_result(runs: &[Run]) -> Run {
        let constant = runs[0].constant;
        let uniform = runs.iter().all(|run| run.constant == constant);
        let filled = || runs.iter().filter(|run| run.entries > 0);
        Run {
            first_row: runs[0].first_row,
            end_row: runs[runs.len() - 1].end_row,
            entries: runs.iter().map(|run| run.entries).sum(),
            constant: if uniform { constant } else { 0 },
            value_min: filled().map(|run| run.value_min).min().unwrap_or(0),
            value_max: filled().map(|run| run.value_max).max().unwrap_or(0),
            tag: runs[0].tag,
            level: runs[0].level + 1,
            ..Run::EMPTY
        }
    }

    /// The pace of work that began so many bars before this one and is due after `bars` bars.
    pub(super) fn pace(&self, bars_before: u64, bars: u64) -> Pace {
        let rows_full = self.options.bar_rows - self.options.rows_per_op_max + 1;
        let rows = self.active.end_row() - self.active.first_row();
        Pace::new(bars_before, bars, rows, rows_full)
    }

    /// Bars that a merge of runs of this level may take.
    pub(super) fn merge_bars(&self, level: u32) -> u64 {
        self.options.fan_in / 2 * self.options.fan_in.pow(level)
    }

    fn schedule_merge(&mut self, grid: &mut Grid, sequence: u64, level: u32) {
        let count = index_of(self.options.fan_in);
        if self.tasks.merges[to_index(level)].live {
            return;
        }
        let runs = &self.runs[0];
        let at = runs.partition_point(|run| run.level > level);
        let end = runs.partition_point(|run| run.level >= level);
        if end - at < count {
            return;
        }
        let deadline = self.bars + self.merge_bars(level);
        let first_row = runs[at].first_row;
        self.tasks.merges[to_index(level)].begin(sequence, deadline, first_row);
        for tag in 0..self.options.tags.len() {
            let result = Table::merge_result(&self.runs[tag][at..at + count]);
            let blocks = if result.has_blocks() { self.layout(&result).blocks() } else { 0 };
            let group = &mut self.tasks.merges[to_index(level)];
            acquire(grid, &mut group.addresses[tag], blocks);
            group.results.push(result);
        }
    }

    /// Begins indexing rows from [`Table::watermark`] on again, after a restart. Rows are given by
    /// the same calls as new ones; [`Table::reindex_end`] ends it.
    ///
    /// # Panics
    ///
    /// If that was done already.
    pub fn reindex_begin(&mut self) {
        assert!(!self.reindexing);
        self.reindexing = true;
    }

    /// Ends indexing again when all rows before `rows_end` were given.
    ///
    /// # Errors
    ///
    /// The name of a tag whose rows are not those that the manifest was made for.
    ///
    /// # Panics
    ///
    /// If it was not begun.
    pub fn reindex_end(&mut self, rows_end: u64) -> Result<(), &'static str> {
        assert!(self.reindexing);
        assert!(rows_end >= self.active.first_row());
        self.reindexing = false;
        let boundary = self.active.first_row();
        self.frozen.complete(boundary);
        self.active.complete(rows_end);
        if !self.tasks.flush.live {
            return Ok(());
        }
        self.tasks.flush.results.clear();
        for tag in 0..self.options.tags.len() {
            let result = self.flush_result(tag);
            let blocks = if result.has_blocks() { self.layout(&result).blocks() } else { 0 };
            if count_of(self.tasks.flush.addresses[tag].len()) != blocks {
                return Err(self.options.tags[tag].name);
            }
            self.tasks.flush.results.push(result);
        }
        Ok(())
    }

    /// Does what can be done now for flushes and merges.
    pub fn pump(&mut self, grid: &mut Grid, outbox: &mut super::disk::StorageOutbox) {
        if !self.reindexing {
            self.work(grid, outbox);
        }
    }

    /// Takes back a job of this table that has run.
    ///
    /// # Panics
    ///
    /// If it is not this table's.
    pub fn on_job_done(&mut self, grid: &mut Grid, job: Job) {
        assert!(job.table() == self.options.id);
        self.tasks.on_job_done(grid, job);
    }
}

/// A reference from the bytes of a root.
pub(super) fn reference_of(bytes: &[u8]) -> BlockRef {
    let (block, _) = BlockRef::read_from_prefix(bytes).expect("a reference is never cut");
    block
}

fn acquire(grid: &mut Grid, addresses: &mut Vec<u64>, blocks: u64) {
    assert!(addresses.is_empty());
    assert!(index_of(blocks) <= addresses.capacity());
    addresses.extend((0..blocks).map(|_| grid.acquire()));
}

impl FlushGroup {
    fn begin(&mut self, sequence: u64) {
        assert!(!self.live);
        self.clear();
        self.live = true;
        self.sequence = sequence;
    }
}

impl MergeGroup {
    fn begin(&mut self, sequence: u64, deadline: u64, first_row: u64) {
        assert!(!self.live);
        self.clear();
        self.live = true;
        self.sequence = sequence;
        self.deadline = deadline;
        self.first_row = first_row;
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
