//! Turning one frozen memtable column into a level-0 run: a pure job over owned memory.
//!
//! The column's index is the row field already, so a flush is one counting sort by the top bits:
//! count, scatter, copy into blocks. Not covered: when it runs and where its blocks go (`table`).

use std::sync::Arc;

use super::block::BlockRef;
use super::run::{RunFacts, RunOutput};
use super::{count_of, index_of};
use crate::protocol::to_index;

/// One column of a frozen memtable on its way to becoming a level-0 run.
#[derive(Debug)]
pub struct FlushJob {
    /// Identity of the table the job belongs to.
    pub table: u8,
    /// Number of the tag in its table.
    pub tag: usize,
    /// The column; shared for reading with lookups.
    pub(super) column: Option<Arc<Vec<u64>>>,
    /// How many slots of the column are in use.
    pub(super) slots: usize,
    facts: Option<RunFacts>,
    scratch: Vec<u64>,
    starts: Vec<u32>,
    /// The run in the making.
    pub(super) output: RunOutput,
    /// The finished run.
    pub(super) root: Option<BlockRef>,
}

impl FlushJob {
    /// Memory for columns of up to `slots_max` slots and runs of up to `blocks_max` blocks and
    /// `buckets_max` buckets.
    #[must_use]
    pub fn new(table: u8, slots_max: usize, buckets_max: usize, blocks_max: usize) -> FlushJob {
        FlushJob {
            table,
            tag: 0,
            column: None,
            slots: 0,
            facts: None,
            scratch: vec![0; slots_max],
            starts: vec![0; buckets_max + 1],
            output: RunOutput::new(blocks_max, blocks_max),
            root: None,
        }
    }

    /// Bytes that a job occupies.
    #[must_use]
    pub fn memory_bytes(slots_max: u64, buckets_max: u64, blocks_max: u64) -> u64 {
        let output = RunOutput::memory_bytes(blocks_max, blocks_max);
        slots_max * 8 + (buckets_max + 1) * 4 + output
    }

    /// Takes a column; memory for its blocks must be put into the output's spare by the caller.
    pub(super) fn start(
        &mut self,
        tag: usize,
        column: Arc<Vec<u64>>,
        slots: usize,
        facts: RunFacts,
        addresses: &[u64],
    ) {
        assert!(self.column.is_none());
        assert!(slots <= column.len());
        assert!(slots <= self.scratch.len());
        assert!(slots > 0);
        assert!(count_of(slots) <= facts.shape.mask() + 1);
        self.tag = tag;
        self.column = Some(column);
        self.slots = slots;
        self.facts = Some(facts);
        self.root = None;
        self.output.start(facts, addresses);
    }

    /// Does the whole work.
    ///
    /// # Panics
    ///
    /// If the job was not started, or the column has other entries than were counted.
    pub fn run(&mut self) {
        let facts = self.facts.take().expect("a started job");
        let column = self.column.as_ref().expect("a started job has a column");
        let shape = facts.shape;
        let buckets = index_of(shape.buckets());
        let column = &column[..self.slots];
        let starts = &mut self.starts[..=buckets];
        starts.fill(0);
        for hash in column {
            if *hash != 0 {
                starts[index_of(shape.bucket(*hash)) + 1] += 1;
            }
        }
        let mut total = 0;
        for start in starts.iter_mut() {
            total += *start;
            *start = total;
        }
        assert!(u64::from(total) == facts.layout.entries, "entries were counted before");
        let mask = shape.mask();
        for (field, hash) in (0_u64..).zip(column) {
            if *hash != 0 {
                let start = &mut starts[index_of(shape.bucket(*hash))];
                self.scratch[to_index(*start)] = (*hash & !mask) | field;
                *start += 1;
            }
        }
        // Every start has moved to the start of the next bucket by now.
        let mut from = 0;
        for (words, start) in (1_u64..).zip(&starts[..buckets]) {
            let to = to_index(*start);
            let complete = self.output.push_words(words);
            assert!(complete, "memory for all blocks was provided");
            let pushed = self.output.push_entries(&self.scratch[from..to]);
            assert!(pushed == to - from, "memory for all blocks was provided");
            from = to;
        }
        let complete = self.output.push_words(facts.layout.words);
        assert!(complete, "memory for all blocks was provided");
        self.root = Some(self.output.finish());
    }
}
