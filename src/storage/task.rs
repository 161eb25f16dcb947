//! The work behind a table's schedule: flushes and merges, one job at a time, earliest due first.
//!
//! A group is one scheduled piece of work for all tags: the flush of a bar, or the merge of one
//! level. Groups are worked on in step with the rows that arrive (`pace`). A merge that has to make
//! way for a more urgent one keeps its state and lets go of its input blocks. After a restart every
//! group starts from zero, with the same addresses and the same result. Not covered: when groups
//! are scheduled and become visible (`table`).

use super::disk::StorageOutbox;
use super::fetch::Fetch;
use super::filter::{Filter, FilterPool};
use super::flush::FlushJob;
use super::grid::{BlockReadId, Grid};
use super::job::Job;
use super::merge::{FAN_IN_MAX, MergeInput, MergeJob};
use super::run::{Run, RunFacts, place};
use super::table::{FilterOptions, Table, TableOptions, reference_of};
use super::{count_of, index_of};
use crate::protocol::{Pool, to_index};

/// Buffers that a merge takes for its output before each step.
const MERGE_SPARE: usize = 2;
/// Buffers that a merge can hold: root, directory, entries and the spare ones.
const MERGE_BUFFERS: u64 = 3 + MERGE_SPARE as u64;
/// A merge makes way for a more urgent one only if there is this part of that one to do in one go:
/// what it lets go of must be read again.
const TURN_PART: u64 = 8;
/// Buffers beyond what jobs can hold, so that there is something to do during writes.
const WRITE_BUFFERS: u64 = 4;

/// Sizes of everything that works.
#[derive(Clone, Copy, Debug)]
pub(super) struct TasksSize {
    table: u8,
    tags: usize,
    levels: u32,
    slots_max: u64,
    buckets_max: u64,
    blocks_max: [u64; 8],
    block_size: u32,
    scratch_entries: usize,
    filter_tag: Option<usize>,
    filter_bytes: u64,
    filter_keys: [u64; 8],
    filter_mask: u64,
    fan_in: usize,
}

impl TasksSize {
    pub(super) fn of(
        options: &TableOptions,
        filters: Option<FilterOptions>,
        levels: u32,
    ) -> TasksSize {
        let shapes = (0..options.tags.len()).map(|tag| options.shape(tag, 0));
        let mut blocks_max = [0; 8];
        for (level, blocks) in (0..levels).zip(&mut blocks_max) {
            *blocks = options.blocks_max(level);
        }
        let filter_tag = filters.map(|filters| filters.tag);
        let shape = |level| options.shape(filter_tag.unwrap_or(0), level);
        let mut filter_keys = [0; 8];
        for (level, keys) in (0..levels).zip(&mut filter_keys) {
            *keys = shape(level).mask() + 1;
        }
        TasksSize {
            filter_tag,
            filter_bytes: filters.map_or(0, |filters| filters.bytes_max),
            filter_keys,
            filter_mask: !shape(levels - 1).mask(),
            fan_in: index_of(options.fan_in),
            table: options.id,
            tags: options.tags.len(),
            levels,
            slots_max: shapes.clone().map(|shape| shape.mask() + 1).max().unwrap_or(1),
            buckets_max: shapes.map(|shape| shape.buckets()).max().unwrap_or(1),
            blocks_max,
            block_size: options.block_size,
            scratch_entries: to_index(options.scratch_entries),
        }
    }
}

impl TasksSize {
    /// Blocks that are held or wait to be written at a time.
    pub(super) fn buffers(&self) -> u32 {
        let merges = u64::from(self.levels - 1);
        // Input blocks that are still being written are shared with the writer.
        let shared = 2 * count_of(FAN_IN_MAX);
        let buffers = self.blocks_max[0] + merges * MERGE_BUFFERS + shared + WRITE_BUFFERS;
        u32::try_from(buffers).expect("a flush is small")
    }

    /// Bytes that everything that works occupies, filters excepted.
    pub(super) fn memory_bytes(&self) -> u64 {
        let tags = count_of(self.tags);
        let group = |blocks: u64| tags * (blocks * 8 + count_of(size_of::<Run>()));
        let flush_blocks = self.blocks_max[0];
        let flush = FlushJob::memory_bytes(self.slots_max, self.buckets_max, flush_blocks);
        let merges = &self.blocks_max[1..to_index(self.levels)];
        let merge = |blocks| group(blocks) + MergeJob::memory_bytes(blocks, self.scratch_entries);
        Pool::memory_bytes(self.buffers(), self.block_size)
            + group(flush_blocks)
            + flush
            + merges.iter().map(|blocks| merge(*blocks)).sum::<u64>()
    }

    /// Bytes that the filters occupy.
    pub(super) fn filter_memory_bytes(&self) -> u64 {
        let keys = &self.filter_keys[..to_index(self.levels)];
        FilterPool::memory_bytes(keys, 2 * self.fan_in, self.filter_bytes)
    }

    /// Bytes of the longest list of addresses in a manifest.
    pub(super) fn addresses_size_max(&self) -> u64 {
        let lists = self.blocks_max[..to_index(self.levels)].iter();
        lists.map(|blocks| (blocks + 1) * 8 * count_of(self.tags)).sum()
    }
}

/// The flush of a bar.
#[derive(Debug)]
pub(super) struct FlushGroup {
    pub(super) live: bool,
    pub(super) sequence: u64,
    pub(super) addresses: Vec<Vec<u64>>,
    /// The runs it makes; their roots are known when done.
    pub(super) results: Vec<Run>,
    next_tag: usize,
    tags: usize,
    /// Filter of the run of the tag with filters.
    pub(super) filter: Option<Filter>,
}

impl FlushGroup {
    pub(super) fn unfinished(&self) -> bool {
        self.live && self.next_tag < self.tags
    }

    pub(super) fn clear(&mut self) {
        self.live = false;
        self.sequence = 0;
        self.next_tag = 0;
        self.results.clear();
        for addresses in &mut self.addresses {
            addresses.clear();
        }
    }
}

/// The merge of some runs of one level.
#[derive(Debug)]
pub(super) struct MergeGroup {
    pub(super) live: bool,
    pub(super) sequence: u64,
    /// Number of the bar at whose end the results become visible.
    pub(super) deadline: u64,
    /// First row of the first run.
    pub(super) first_row: u64,
    pub(super) addresses: Vec<Vec<u64>>,
    /// The runs it makes; their roots are known when done.
    pub(super) results: Vec<Run>,
    next_tag: usize,
    tags: usize,
    started: bool,
    /// Absent while it is at work.
    job: Option<MergeJob>,
    /// Input blocks being read: input and number of the block.
    reads: Vec<Option<(u64, BlockReadId)>>,
    /// Filter of the run of the tag with filters.
    pub(super) filter: Option<Filter>,
}

impl MergeGroup {
    pub(super) fn unfinished(&self) -> bool {
        self.live && self.next_tag < self.tags
    }

    pub(super) fn clear(&mut self) {
        assert!(!self.started);
        self.live = false;
        self.sequence = 0;
        self.deadline = 0;
        self.first_row = 0;
        self.next_tag = 0;
        self.results.clear();
        for addresses in &mut self.addresses {
            addresses.clear();
        }
    }

    /// Entries that are merged, and that there are to merge.
    fn progress(&self) -> (u64, u64) {
        let entries = |runs: &[Run]| {
            runs.iter().filter(|run| run.has_blocks()).map(|run| run.entries).sum::<u64>()
        };
        let job = self.job.as_ref().filter(|_| self.started);
        let current = job.map_or(0, |job| job.inputs.iter().map(MergeInput::position).sum());
        (entries(&self.results[..self.next_tag]) + current, entries(&self.results))
    }

    /// Takes what was read; keeps it only if the job is here and needs it.
    fn collect(&mut self, grid: &mut Grid, running: bool) {
        for (input, slot) in self.reads.iter_mut().enumerate() {
            let Some((number, read)) = slot else {
                continue;
            };
            if running && self.job.is_none() {
                continue;
            }
            let Fetch::Ready(buffer) = grid.block_read_take(*read) else {
                continue;
            };
            let number = *number;
            *slot = None;
            let Some(job) = self.job.as_mut().filter(|_| running && self.started) else {
                continue;
            };
            let input = &mut job.inputs[input];
            let needed = [input.block_needed(0), input.block_needed(1)].contains(&Some(number));
            if needed && !input.holds(number) {
                input.provide(number, buffer);
            }
        }
    }

    /// Requests input blocks; whether those needed first are all here.
    fn feed(&mut self, grid: &mut Grid) -> bool {
        let job = self.job.as_mut().expect("the job is here");
        let mut complete = true;
        for (input, slot) in job.inputs.iter_mut().zip(&mut self.reads) {
            input.forget_unneeded();
            for ahead in 0..2 {
                let Some(number) = input.block_needed(ahead) else {
                    continue;
                };
                if input.holds(number) {
                    continue;
                }
                complete = complete && ahead > 0;
                if slot.is_some() {
                    continue;
                }
                let mut block = input.run.root;
                if let Some(byte) = input.reference_byte(number) {
                    let (sector, offset, _) = place(byte);
                    let Fetch::Ready(page) = grid.page(&input.run.root, sector) else {
                        continue;
                    };
                    block = reference_of(&page[offset..]);
                }
                *slot = grid.block_read_start(block).map(|read| (number, read));
            }
        }
        complete
    }
}

/// All work of a table.
#[derive(Debug)]
pub(super) struct Tasks {
    pub(super) flush: FlushGroup,
    /// By level of the inputs.
    pub(super) merges: Vec<MergeGroup>,
    flush_job: Option<FlushJob>,
    /// A job is at work.
    job_out: bool,
    /// The merge that may hold input blocks.
    running: Option<usize>,
    pool: Pool,
    /// The tag whose runs have filters, if any.
    pub(super) filter_tag: Option<usize>,
    pub(super) filters: FilterPool,
}

impl Tasks {
    pub(super) fn new(size: &TasksSize) -> Tasks {
        let flush_blocks = size.blocks_max[0];
        let buffers = size.buffers();
        let vectors = |capacity: u64| {
            (0..size.tags).map(|_| Vec::with_capacity(index_of(capacity))).collect()
        };
        let merge = |level: u32| {
            let blocks_max = size.blocks_max[to_index(level) + 1];
            MergeGroup {
                live: false,
                sequence: 0,
                deadline: 0,
                first_row: 0,
                addresses: vectors(blocks_max),
                results: Vec::with_capacity(size.tags),
                next_tag: 0,
                tags: size.tags,
                started: false,
                job: Some(MergeJob::new(
                    size.table,
                    level,
                    index_of(blocks_max),
                    size.scratch_entries,
                )),
                reads: (0..FAN_IN_MAX).map(|_| None).collect(),
                filter: None,
            }
        };
        Tasks {
            flush: FlushGroup {
                live: false,
                sequence: 0,
                addresses: vectors(flush_blocks),
                results: Vec::with_capacity(size.tags),
                next_tag: 0,
                tags: size.tags,
                filter: None,
            },
            merges: (0..size.levels - 1).map(merge).collect(),
            flush_job: Some(FlushJob::new(
                size.table,
                index_of(size.slots_max),
                index_of(size.buckets_max),
                index_of(flush_blocks),
            )),
            job_out: false,
            running: None,
            pool: Pool::new("index blocks", buffers, size.block_size),
            filter_tag: size.filter_tag,
            filters: FilterPool::new(
                &size.filter_keys[..to_index(size.levels)],
                2 * size.fan_in,
                size.filter_mask,
                size.filter_bytes,
            ),
        }
    }

    /// Whether nothing was begun yet.
    pub(super) fn is_idle(&self) -> bool {
        !self.job_out && self.running.is_none() && !self.merges.iter().any(|group| group.started)
    }

    /// Leaves the input blocks to merge `level`, or to nobody.
    fn switch_to(&mut self, level: Option<usize>) {
        if self.running == level {
            return;
        }
        if let Some(before) = self.running.take() {
            let job = self.merges[before].job.as_mut().expect("no job is at work");
            for input in &mut job.inputs {
                input.forget_all();
            }
        }
        self.running = level;
    }

    fn collect(&mut self, grid: &mut Grid) {
        for (level, group) in self.merges.iter_mut().enumerate() {
            group.collect(grid, self.running == Some(level));
        }
    }

    pub(super) fn on_job_done(&mut self, grid: &mut Grid, job: Job) {
        assert!(self.job_out);
        self.job_out = false;
        match job {
            Job::Flush(mut job) => {
                job.column = None;
                for (buffer, block) in job.output.sealed.drain(..) {
                    grid.write(buffer, block);
                }
                assert!(job.output.spare.is_empty());
                assert!(self.flush.next_tag == job.tag);
                let root = job.root.take().expect("a flush is done in one go");
                self.flush.results[job.tag].root = root;
                self.flush.next_tag += 1;
                if self.filter_tag == Some(job.tag) {
                    self.flush.filter = job.output.filter.take();
                }
                self.flush_job = Some(job);
            }
            Job::Merge(mut job) => {
                for (buffer, block) in job.output.sealed.drain(..) {
                    grid.write(buffer, block);
                }
                let group = &mut self.merges[to_index(job.level)];
                if let Some(root) = job.root.take() {
                    assert!(group.next_tag == job.tag);
                    group.results[job.tag].root = root;
                    group.next_tag += 1;
                    group.started = false;
                    job.output.spare.clear();
                    if self.filter_tag == Some(job.tag) {
                        group.filter = job.output.filter.take();
                    }
                    job.inputs.clear();
                }
                group.job = Some(job);
            }
        }
    }
}

impl Table {
    pub(super) fn work(&mut self, grid: &mut Grid, outbox: &mut StorageOutbox) {
        self.tasks.collect(grid);
        if self.tasks.job_out || outbox.jobs.is_full() {
            return;
        }
        while self.tasks.flush.unfinished() && self.flush_due() {
            let tag = self.tasks.flush.next_tag;
            if self.tasks.flush.results[tag].has_blocks() {
                self.flush_start(tag, outbox);
                return;
            }
            self.tasks.flush.next_tag += 1;
        }
        while let Some(level) = self.merge_due() {
            self.tasks.switch_to(Some(level));
            let group = &mut self.tasks.merges[level];
            let tag = group.next_tag;
            if group.results[tag].has_blocks() {
                self.merge_step(level, tag, grid, outbox);
                return;
            }
            group.next_tag += 1;
        }
        let running = self.tasks.running;
        if running.is_some_and(|level| !self.tasks.merges[level].unfinished()) {
            self.tasks.switch_to(None);
        }
    }

    fn flush_due(&self) -> bool {
        let flush = &self.tasks.flush;
        self.pace(0, 1).allows(count_of(flush.next_tag), count_of(flush.tags))
    }

    /// The merge to work on: of those that are behind their pace the one due first, the lower level
    /// among equals.
    fn merge_due(&self) -> Option<usize> {
        let tasks = &self.tasks;
        let running = tasks.running.filter(|level| tasks.merges[*level].unfinished());
        let behind = |level: &usize| {
            let group = &tasks.merges[*level];
            if !group.unfinished() {
                return false;
            }
            let bars = self.merge_bars(u32::try_from(*level).expect("a few levels"));
            let pace = self.pace(self.bars + bars - group.deadline, bars);
            let (done, total) = group.progress();
            let in_turn = running.is_none_or(|running| running == *level);
            let part = if in_turn { 0 } else { total / TURN_PART };
            pace.allows_part(done, total, part)
        };
        (0..tasks.merges.len()).filter(behind).min_by_key(|level| tasks.merges[*level].deadline)
    }

    fn run_facts(&self, result: &Run, sequence: u64) -> RunFacts {
        RunFacts {
            cluster: self.options.cluster,
            sequence,
            shape: self.shape(result),
            layout: self.layout(result),
        }
    }

    fn flush_start(&mut self, tag: usize, outbox: &mut StorageOutbox) {
        let result = self.tasks.flush.results[tag];
        let facts = self.run_facts(&result, self.tasks.flush.sequence);
        let blocks = facts.layout.blocks();
        if u64::from(self.tasks.pool.available()) < blocks {
            return;
        }
        let mut job = self.tasks.flush_job.take().expect("no job is at work");
        for _ in 0..blocks {
            job.output.spare.push(self.tasks.pool.acquire());
        }
        let (column, slots) = self.frozen.column_shared(tag);
        if self.tasks.filter_tag == Some(tag) {
            job.output.filter = self.tasks.filters.take(0);
        }
        job.start(tag, column, slots, facts, &self.tasks.flush.addresses[tag]);
        self.tasks.job_out = true;
        outbox.jobs.push(Job::Flush(job));
    }

    fn merge_step(
        &mut self,
        level: usize,
        tag: usize,
        grid: &mut Grid,
        outbox: &mut StorageOutbox,
    ) {
        if !self.tasks.merges[level].started && !self.merge_start(level, tag) {
            return;
        }
        let group = &mut self.tasks.merges[level];
        if !group.feed(grid) {
            return;
        }
        let job = group.job.as_mut().expect("no job is at work");
        while job.output.spare.len() < MERGE_SPARE {
            let Some(buffer) = self.tasks.pool.try_acquire() else {
                break;
            };
            job.output.spare.push(buffer);
        }
        if job.output.spare.is_empty() {
            return;
        }
        let job = group.job.take().expect("no job is at work");
        self.tasks.job_out = true;
        outbox.jobs.push(Job::Merge(job));
    }

    /// Starts the merge of a tag; false while blocks for the tag before are still being read.
    fn merge_start(&mut self, level: usize, tag: usize) -> bool {
        let group = &self.tasks.merges[level];
        if group.reads.iter().any(Option::is_some) {
            return false;
        }
        let at = self.run_at(group.first_row);
        let result = group.results[tag];
        let facts = self.run_facts(&result, group.sequence);
        let runs = &self.runs[tag][at..at + index_of(self.options.fan_in)];
        let source = self.shape(&runs[0]);
        let group = &mut self.tasks.merges[level];
        let job = group.job.as_mut().expect("no job is at work");
        let per_row = u64::from(self.options.tags[tag].entries_per_row);
        assert!(count_of(group.addresses[tag].len()) == facts.layout.blocks());
        if self.tasks.filter_tag == Some(tag) {
            job.output.filter = self.tasks.filters.take(result.level);
        }
        job.start(tag, runs, source, per_row, facts, &group.addresses[tag]);
        group.started = true;
        true
    }
}
