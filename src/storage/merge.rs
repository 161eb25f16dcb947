//! Merging neighbouring runs into one of the next level: a pure job over owned memory, in steps.
//!
//! A bucket of the inputs splits into a few neighbouring buckets of the output: the entries of all
//! inputs are gathered in row order and stably partitioned by the next bits of the hash. A bucket
//! too large for the scratch memory (a value shared by very many rows) is counted first, and then
//! passed over a few times: its largest parts are streamed, the others gathered together. A step
//! ends when an input block is missing, memory for output is used up, or enough was done; every
//! state of the work is kept in the job, so it goes on where it was. Not covered: reading input
//! blocks, writing output blocks, and when a merge is due (`table`).

use zerocopy::FromBytes;

use super::block::BlockRef;
use super::run::{Layout, Run, RunFacts, RunOutput, RunShape, place};
use super::{count_of, index_of};
use crate::protocol::{Buffer, to_index};

/// Entries that a step processes before it lets others run: about 1 MiB.
const STEP_ENTRIES: usize = 128 * 1024;
/// Entries looked at together in a pass over an oversized bucket.
const CHUNK_ENTRIES: usize = 512;
/// Sealed blocks that can wait to be handed out: those of two spare and three open buffers.
const SEALED_MAX: usize = 8;
/// Most runs that merge into one.
pub(super) const FAN_IN_MAX: usize = 8;

/// One of the runs to merge.
#[derive(Debug)]
pub(super) struct MergeInput {
    /// The run.
    pub(super) run: Run,
    layout: Layout,
    /// Next entry.
    position: u64,
    /// First entry of the current bucket.
    mark: u64,
    /// What turns a row field of this run into one of the output.
    add: u64,
    /// Data blocks in memory, with their numbers.
    slots: [Option<(u64, Buffer)>; 2],
}

/// Why taking entries stopped.
enum Taken {
    BucketEnd,
    Missing,
    Full,
}

/// Bits of entries before and after.
#[derive(Clone, Copy, Debug)]
struct Bits {
    source: RunShape,
    mask_source: u64,
    mask_target: u64,
}

impl MergeInput {
    /// Entries that were taken.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Number of the data block that the merge needs now and `ahead` blocks later; none when there
    /// is no such block. A run without data blocks counts its root as block 0.
    pub(super) fn block_needed(&self, ahead: u64) -> Option<u64> {
        if self.position >= self.run.entries || self.run.constant != 0 {
            return None;
        }
        let number = self.layout.entry_place(self.position).0.unwrap_or(0) + ahead;
        (number < self.layout.data_blocks.max(1)).then_some(number)
    }

    /// Where the reference to data block `number` lies in the root; none if it is the root itself.
    pub(super) fn reference_byte(&self, number: u64) -> Option<u64> {
        (self.layout.data_blocks > 0).then_some(number * size_of::<BlockRef>() as u64)
    }

    /// Whether block `number` is in memory.
    pub(super) fn holds(&self, number: u64) -> bool {
        self.slots.iter().flatten().any(|slot| slot.0 == number)
    }

    /// Gives block `number`; blocks that are not needed now or next make room.
    pub(super) fn provide(&mut self, number: u64, buffer: Buffer) {
        assert!(!self.holds(number));
        self.forget_unneeded();
        let free = self.slots.iter_mut().find(|slot| slot.is_none());
        *free.expect("two blocks are needed at most") = Some((number, buffer));
    }

    /// Lets go of blocks that are not needed now or next.
    pub(super) fn forget_unneeded(&mut self) {
        let wanted = [self.block_needed(0), self.block_needed(1)];
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|slot| !wanted.contains(&Some(slot.0))) {
                *slot = None;
            }
        }
    }

    /// Lets go of all blocks.
    pub(super) fn forget_all(&mut self) {
        self.slots = [None, None];
    }

    /// Entries from the position to the end of their sector; none if the block is missing.
    fn sector(&self) -> Option<&[u64]> {
        let (number, byte) = self.layout.entry_place(self.position);
        let number = number.unwrap_or(0);
        let buffer = &self.slots.iter().flatten().find(|slot| slot.0 == number)?.1;
        let (sector, offset, room) = place(byte);
        let start = to_index(sector) * 4096 + offset;
        let bytes = &buffer.bytes()[start..start + room];
        let entries = <[u64]>::ref_from_bytes(bytes).expect("entries are aligned in a block");
        let left = self.run.entries - self.position;
        Some(&entries[..entries.len().min(index_of(left))])
    }

    /// Bucket of the next entry: none if all are taken, an error if its block is missing.
    fn bucket(&self, source: RunShape) -> Result<Option<u64>, ()> {
        if self.position >= self.run.entries {
            return Ok(None);
        }
        if self.run.constant != 0 {
            return Ok(Some(source.bucket(self.run.constant)));
        }
        self.sector().map(|entries| Some(source.bucket(entries[0]))).ok_or(())
    }

    /// Moves entries of `bucket`, converted, to `out` until it has `limit` entries.
    fn take(&mut self, bits: Bits, bucket: u64, out: &mut Vec<u64>, limit: usize) -> Taken {
        loop {
            let room = limit - out.len();
            if self.position >= self.run.entries {
                return Taken::BucketEnd;
            }
            if self.run.constant != 0 {
                if bits.source.bucket(self.run.constant) != bucket {
                    return Taken::BucketEnd;
                }
                let hash = self.run.constant & !bits.mask_target;
                let count = (self.run.entries - self.position).min(count_of(room));
                let from = self.position + self.add;
                out.extend((from..from + count).map(|field| hash | field));
                self.position += count;
            } else {
                let add = self.add;
                let Some(entries) = self.sector() else {
                    return Taken::Missing;
                };
                let same = entries
                    .iter()
                    .take(room)
                    .take_while(|entry| bits.source.bucket(**entry) == bucket);
                let before = out.len();
                out.extend(
                    same.map(|entry| {
                        (entry & !bits.mask_target) | ((entry & bits.mask_source) + add)
                    }),
                );
                let count = out.len() - before;
                if count < room.min(entries.len()) {
                    self.position += count_of(count);
                    return Taken::BucketEnd;
                }
                self.position += count_of(count);
            }
            if out.len() == limit && self.position < self.run.entries {
                return Taken::Full;
            }
        }
    }
}

/// What a step does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Find the next bucket.
    Next,
    /// Gather the bucket from this input on.
    Gather(usize),
    /// Count the parts of an oversized bucket, from this input on.
    Count(usize),
    /// Stream or gather some parts of an oversized bucket, from this input on.
    Pass(usize),
    /// Put out what was gathered and partitioned.
    Emit,
    /// Complete the directory and the run.
    Tail,
    /// Nothing is left.
    Done,
}

/// One bounded step of merging neighbouring runs of one tag, with all its state.
#[derive(Debug)]
pub struct MergeJob {
    /// Identity of the table the job belongs to.
    pub table: u8,
    /// Level of the inputs.
    pub level: u32,
    /// Number of the tag in its table.
    pub tag: usize,
    pub(super) inputs: Vec<MergeInput>,
    /// The run in the making.
    pub(super) output: RunOutput,
    /// The finished run.
    pub(super) root: Option<BlockRef>,
    bits: Bits,
    target: RunShape,
    phase: Phase,
    bucket: u64,
    gathered: Vec<u64>,
    parted: Vec<u64>,
    chunk: Vec<u64>,
    chunk_done: usize,
    /// Entries of the parts of an oversized bucket.
    counts: [u64; FAN_IN_MAX],
    /// The parts of the current pass; the first is streamed or not.
    pass: (usize, usize),
    streamed: bool,
    /// The parts to put out, their ends in `parted`, and how far it went.
    emit: (usize, usize),
    emit_ends: [usize; FAN_IN_MAX],
    emit_done: usize,
    budget: usize,
}

impl MergeJob {
    /// Memory for merges of level `level` with outputs of up to `blocks_max` blocks, and for
    /// buckets of up to `scratch_entries` before they count as oversized.
    ///
    /// # Panics
    ///
    /// If the scratch is smaller than a chunk.
    #[must_use]
    pub fn new(table: u8, level: u32, blocks_max: usize, scratch_entries: usize) -> MergeJob {
        assert!(scratch_entries > 0);
        let shape = RunShape::new(1);
        MergeJob {
            table,
            level,
            tag: 0,
            inputs: Vec::with_capacity(FAN_IN_MAX),
            output: RunOutput::new(blocks_max, SEALED_MAX),
            root: None,
            bits: Bits { source: shape, mask_source: 0, mask_target: 0 },
            target: shape,
            phase: Phase::Done,
            bucket: 0,
            gathered: Vec::with_capacity(scratch_entries),
            parted: vec![0; scratch_entries],
            chunk: Vec::with_capacity(CHUNK_ENTRIES),
            chunk_done: 0,
            counts: [0; FAN_IN_MAX],
            pass: (0, 0),
            streamed: false,
            emit: (0, 0),
            emit_ends: [0; FAN_IN_MAX],
            emit_done: 0,
            budget: 0,
        }
    }

    /// Bytes that a job occupies.
    #[must_use]
    pub fn memory_bytes(blocks_max: u64, scratch_entries: usize) -> u64 {
        let entries = count_of(2 * scratch_entries + CHUNK_ENTRIES);
        let inputs = count_of(FAN_IN_MAX * size_of::<MergeInput>());
        entries * 8 + inputs + RunOutput::memory_bytes(blocks_max, count_of(SEALED_MAX))
    }

    /// Starts merging `runs`, neighbours in row order with this many entries per row, into one.
    pub(super) fn start(
        &mut self,
        tag: usize,
        runs: &[Run],
        source: RunShape,
        entries_per_row: u64,
        facts: RunFacts,
        addresses: &[u64],
    ) {
        assert!(self.phase == Phase::Done);
        assert!(!runs.is_empty());
        assert!(runs.len() <= FAN_IN_MAX);
        let target = facts.shape;
        assert!(target.bucket_bits >= source.bucket_bits);
        assert!(target.bucket_bits - source.bucket_bits <= FAN_IN_MAX.ilog2());
        self.tag = tag;
        self.root = None;
        self.bits = Bits { source, mask_source: source.mask(), mask_target: target.mask() };
        self.target = target;
        self.inputs.clear();
        let block_bytes = facts.layout.payload;
        for run in runs {
            assert!(run.tag == runs[0].tag);
            self.inputs.push(MergeInput {
                run: *run,
                layout: Layout::with_payload(source, run.entries, block_bytes),
                position: 0,
                mark: 0,
                add: (run.first_row - runs[0].first_row) * entries_per_row,
                slots: [None, None],
            });
        }
        self.phase = Phase::Next;
        self.chunk.clear();
        self.chunk_done = 0;
        self.output.start(facts, addresses);
    }

    /// Parts of a bucket: the buckets of the output that it becomes.
    fn parts(&self) -> usize {
        1 << (self.target.bucket_bits - self.bits.source.bucket_bits)
    }

    fn part(&self, entry: u64) -> usize {
        index_of(self.target.bucket(entry)) & (self.parts() - 1)
    }

    /// Directory words that must be there before entries of this part are put out.
    fn words_before(&self, part: usize) -> u64 {
        self.bucket * count_of(self.parts()) + count_of(part) + 1
    }

    /// Does one bounded step of the work.
    ///
    /// # Panics
    ///
    /// If the runs contain other entries than were counted.
    pub fn run(&mut self) {
        self.budget = STEP_ENTRIES;
        loop {
            let goes_on = match self.phase {
                Phase::Next => self.next(),
                Phase::Gather(input) => self.gather(input),
                Phase::Count(input) => self.count(input),
                Phase::Pass(input) => self.pass(input),
                Phase::Emit => self.emit(),
                Phase::Tail => self.tail(),
                Phase::Done => false,
            };
            if !goes_on || self.budget == 0 {
                return;
            }
        }
    }

    fn next(&mut self) -> bool {
        let mut first = None;
        for input in &self.inputs {
            match input.bucket(self.bits.source) {
                Ok(None) => {}
                Ok(Some(bucket)) => {
                    first = Some(first.map_or(bucket, |other: u64| other.min(bucket)));
                }
                Err(()) => return false,
            }
        }
        let Some(bucket) = first else {
            self.phase = Phase::Tail;
            return true;
        };
        self.bucket = bucket;
        self.gathered.clear();
        for input in &mut self.inputs {
            input.mark = input.position;
        }
        self.phase = Phase::Gather(0);
        true
    }

    fn rewind(&mut self) {
        for input in &mut self.inputs {
            input.position = input.mark;
        }
    }

    fn spend(&mut self, entries: usize) {
        self.budget = self.budget.saturating_sub(entries);
    }

    fn gather(&mut self, input: usize) -> bool {
        if input == self.inputs.len() {
            self.spend(self.gathered.len());
            self.partition(0, self.parts());
            return true;
        }
        let limit = self.parted.len();
        let from = &mut self.inputs[input];
        match from.take(self.bits, self.bucket, &mut self.gathered, limit) {
            Taken::Missing => return false,
            Taken::BucketEnd => self.phase = Phase::Gather(input + 1),
            Taken::Full => {
                self.rewind();
                self.counts = [0; FAN_IN_MAX];
                self.phase = Phase::Count(0);
            }
        }
        true
    }

    /// Sorts what was gathered, which is all of parts `from` to `to`, and prepares to put it out.
    fn partition(&mut self, from: usize, to: usize) {
        let mut starts = [0; FAN_IN_MAX];
        for entry in &self.gathered {
            starts[self.part(*entry)] += 1;
        }
        let mut total = 0;
        for start in &mut starts {
            (*start, total) = (total, total + *start);
        }
        for index in 0..self.gathered.len() {
            let entry = self.gathered[index];
            let part = self.part(entry);
            self.parted[starts[part]] = entry;
            starts[part] += 1;
        }
        assert!(total == self.gathered.len());
        self.emit = (from, to);
        self.emit_ends = starts;
        self.emit_done = 0;
        self.phase = Phase::Emit;
    }

    fn emit(&mut self) -> bool {
        while self.emit.0 < self.emit.1 {
            let part = self.emit.0;
            if !self.output.push_words(self.words_before(part)) {
                return false;
            }
            let end = self.emit_ends[part];
            self.emit_done += self.output.push_entries(&self.parted[self.emit_done..end]);
            if self.emit_done < end {
                return false;
            }
            self.emit.0 += 1;
        }
        assert!(self.emit_done == self.gathered.len());
        if self.emit.1 < self.parts() {
            self.plan_pass(self.emit.1);
        } else {
            self.phase = Phase::Next;
        }
        true
    }

    fn count(&mut self, input: usize) -> bool {
        if input == self.inputs.len() {
            self.plan_pass(0);
            return true;
        }
        self.chunk.clear();
        let from = &mut self.inputs[input];
        let taken = from.take(self.bits, self.bucket, &mut self.chunk, CHUNK_ENTRIES);
        for index in 0..self.chunk.len() {
            self.counts[self.part(self.chunk[index])] += 1;
        }
        self.spend(self.chunk.len());
        self.chunk.clear();
        match taken {
            Taken::Missing => return false,
            Taken::BucketEnd => self.phase = Phase::Count(input + 1),
            Taken::Full => {}
        }
        true
    }

    /// Begins a pass for part `from` and as many following ones as can be gathered beside it.
    fn plan_pass(&mut self, from: usize) {
        let room = count_of(self.parted.len());
        self.streamed = self.counts[from] > room;
        let mut to = from + usize::from(self.streamed);
        let mut sum = 0;
        while to < self.parts() && sum + self.counts[to] <= room {
            sum += self.counts[to];
            to += 1;
        }
        assert!(to > from);
        self.pass = (from, to);
        self.gathered.clear();
        self.chunk.clear();
        self.chunk_done = 0;
        self.rewind();
        self.phase = Phase::Pass(0);
    }

    fn pass(&mut self, input: usize) -> bool {
        if self.streamed && !self.output.push_words(self.words_before(self.pass.0)) {
            return false;
        }
        if !self.pass_chunk() {
            return false;
        }
        if input == self.inputs.len() {
            self.partition(self.pass.0 + usize::from(self.streamed), self.pass.1);
            return true;
        }
        self.chunk.clear();
        self.chunk_done = 0;
        let from = &mut self.inputs[input];
        match from.take(self.bits, self.bucket, &mut self.chunk, CHUNK_ENTRIES) {
            // The entries taken so far are dealt with by the next call.
            Taken::Missing => return !self.chunk.is_empty(),
            Taken::BucketEnd => self.phase = Phase::Pass(input + 1),
            Taken::Full => {}
        }
        self.spend(self.chunk.len());
        true
    }

    /// Streams or gathers the rest of the chunk; false if memory for output ran out.
    fn pass_chunk(&mut self) -> bool {
        while self.chunk_done < self.chunk.len() {
            let part = self.part(self.chunk[self.chunk_done]);
            let rest = &self.chunk[self.chunk_done..];
            let same = rest.iter().take_while(|entry| self.part(**entry) == part).count();
            let entries = &rest[..same];
            let mut done = same;
            if self.streamed && part == self.pass.0 {
                done = self.output.push_entries(entries);
            } else if (self.pass.0..self.pass.1).contains(&part) {
                self.gathered.extend_from_slice(entries);
            }
            self.chunk_done += done;
            if done < same {
                return false;
            }
        }
        true
    }

    fn tail(&mut self) -> bool {
        if !self.output.push_words(self.target.buckets() + 1) {
            return false;
        }
        self.root = Some(self.output.finish());
        self.phase = Phase::Done;
        false
    }
}
