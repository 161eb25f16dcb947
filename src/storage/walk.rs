//! Walks over all blocks that the store refers to, so that each is read, verified and, if need be,
//! had from a peer.
//!
//! A walk goes on beside the store's work, a few blocks at a time. What is made meanwhile is intact
//! and may be passed over; what is released meanwhile is needed by nobody. Runs of indexes first,
//! and of them the directories: merges read the entries of runs that they replace, but not the
//! directories, which a replica that opens its checkpoint again would need.
//!
//! Sketch: a block of 512 KiB takes a few hundred microseconds to read and verify, so 100 GiB take
//! about two minutes at full speed. A scrub spreads that over hours.

use super::block::BlockRef;
use super::fetch::Fetch;
use super::grid::Grid;
use super::grid_repair::{SERVING, WALKING};
use super::log::Log;
use super::run::{ITEM_SIZE, Run, place};
use super::store::Store;
use super::table::{Table, reference_of};
use super::{count_of, index_of};
use crate::ready;

/// Which blocks a walk visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkPart {
    /// Roots and directories of the runs of indexes.
    Directories,
    /// Their entries, and all blocks of logs.
    Rest,
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Runs of a tag of a table that begin at a row or behind it; of the first of them, the
    /// blocks from this number on. Number 0 is the root.
    Runs {
        table: usize,
        tag: usize,
        row: u64,
        block: u64,
    },
    /// Full directory blocks of a log from this number on, then copies of blocks that are being
    /// filled.
    Directory {
        log: usize,
        block: u64,
    },
    /// Blocks of rows of a log from this number on.
    Rows {
        log: usize,
        block: u64,
    },
    /// Blocks of the last checkpoint's blob from this number on, unless one is being written.
    Blob {
        block: usize,
    },
    /// All were visited.
    End,
    /// What came from peers is being written, and this is behind the last of them.
    Draining {
        mark: u64,
    },
    /// It is being made durable.
    Syncing,
    Done,
}

/// A walk over blocks that were written by an op or before it.
#[derive(Debug)]
pub struct Walk {
    part: WalkPart,
    sequence_max: u64,
    stage: Stage,
    /// Blocks that were visited.
    pub visited: u64,
}

const LOGS: usize = 3;
const TABLES: usize = 2;

impl Walk {
    /// Nothing to walk over.
    pub const NONE: Walk =
        Walk { part: WalkPart::Rest, sequence_max: 0, stage: Stage::Done, visited: 0 };

    fn new(part: WalkPart, sequence_max: u64) -> Walk {
        let stage = Stage::Runs { table: 0, tag: 0, row: 0, block: 0 };
        Walk { part, sequence_max, stage, visited: 0 }
    }

    /// The next block, if there is one.
    fn next(&mut self, store: &mut Store) -> Fetch<Option<BlockRef>> {
        loop {
            let block = match self.stage {
                Stage::Runs { .. } => ready!(self.next_of_runs(store)),
                Stage::Directory { log, block } => {
                    let found = log_of(store, log).directory_block(block);
                    self.stage = match found {
                        Some(_) => Stage::Directory { log, block: block + 1 },
                        None => Stage::Rows { log, block: 0 },
                    };
                    found
                }
                Stage::Rows { log, block } => {
                    let Store { grid, transfers, balances, accounts, .. } = store;
                    let logs = [&*transfers, &*balances, &*accounts];
                    let found = ready!(logs[log].row_block(grid, block));
                    self.stage = match found {
                        Some(_) => Stage::Rows { log, block: block + 1 },
                        None if log + 1 < LOGS => Stage::Directory { log: log + 1, block: 0 },
                        None => Stage::Blob { block: 0 },
                    };
                    found
                }
                Stage::Blob { block } => {
                    let is_whole = !store.checkpoint_in_progress();
                    let found = store.blob.block(block).filter(|_| is_whole);
                    self.stage = match found {
                        Some(_) => Stage::Blob { block: block + 1 },
                        None => Stage::End,
                    };
                    found
                }
                _ => return Fetch::Ready(None),
            };
            if let Some(block) = block.filter(|it| !it.is_none())
                && block.sequence <= self.sequence_max
                && store.grid.free_set().is_acquired(block.address)
            {
                return Fetch::Ready(Some(block));
            }
        }
    }

    /// The next block of a run, or none if the walk has moved on to other runs.
    fn next_of_runs(&mut self, store: &mut Store) -> Fetch<Option<BlockRef>> {
        let Stage::Runs { table, tag, row, block } = self.stage else {
            unreachable!("only while runs are walked over")
        };
        let Store { grid, events, account_table, .. } = store;
        let tables = [&*events, &*account_table];
        let from = tables[table].runs(tag).iter().find(|run| run.first_row >= row);
        let Some(run) = from else {
            self.stage = self.next_tag(tables[table], table, tag);
            return Fetch::Ready(None);
        };
        // Another run than before: that one was merged away.
        let block = if run.first_row == row { block } else { 0 };
        // Those that were merged are released one by one before they are gone from the table.
        let is_used = grid.free_set().is_acquired(run.root.address);
        let is_wanted = is_used && run.root.sequence <= self.sequence_max;
        let found = if run.has_blocks() && is_wanted {
            ready!(block_of(grid, tables[table], run, self.part, block))
        } else {
            None
        };
        self.stage = match found {
            Some(_) => Stage::Runs { table, tag, row: run.first_row, block: block + 1 },
            None => Stage::Runs { table, tag, row: run.first_row + 1, block: 0 },
        };
        Fetch::Ready(found)
    }

    fn next_tag(&self, tags_of: &Table, table: usize, tag: usize) -> Stage {
        if tag + 1 < tags_of.options().tags.len() {
            Stage::Runs { table, tag: tag + 1, row: 0, block: 0 }
        } else if table + 1 < TABLES {
            Stage::Runs { table: table + 1, tag: 0, row: 0, block: 0 }
        } else if self.part == WalkPart::Rest {
            Stage::Directory { log: 0, block: 0 }
        } else {
            Stage::End
        }
    }
}

fn log_of(store: &Store, log: usize) -> &Log {
    [&store.transfers, &store.balances, &store.accounts][log]
}

/// Block number `block` of a run as far as this part of a walk visits them: the root, and of the
/// others the directory, or the entries.
fn block_of(
    grid: &mut Grid,
    table: &Table,
    run: &Run,
    part: WalkPart,
    block: u64,
) -> Fetch<Option<BlockRef>> {
    if block == 0 {
        return Fetch::Ready(Some(run.root));
    }
    let layout = table.layout(run);
    let (first, count) = match part {
        WalkPart::Directories => (layout.data_blocks, layout.directory_blocks),
        WalkPart::Rest => (0, layout.data_blocks),
    };
    if block > count {
        return Fetch::Ready(None);
    }
    let (sector, offset, _) = place((first + block - 1) * u64::from(ITEM_SIZE));
    grid.page(&run.root, sector).map(|page| Some(reference_of(&page[offset..])))
}

impl Store {
    /// Begins a walk over what ops up to `sequence_max` have written.
    ///
    /// # Panics
    ///
    /// Before the store is open.
    pub fn walk_start(&mut self, part: WalkPart, sequence_max: u64) {
        assert!(self.is_open(), "a walk needs to know all runs");
        self.walk = Walk::new(part, sequence_max);
    }

    /// Goes on with the walk, with so many blocks at a time; ready when all of them are intact and
    /// durable, or no longer needed.
    ///
    /// # Panics
    ///
    /// If it is to visit more blocks at a time than there are places.
    pub fn walk_step(&mut self, at_a_time: usize) -> Fetch<()> {
        assert!((1..=WALKING).contains(&at_a_time));
        let mut walk = std::mem::replace(&mut self.walk, Walk::NONE);
        let visited = self.walk_on(&mut walk, at_a_time);
        self.walk = walk;
        ready!(visited);
        if self.walk.stage == Stage::End {
            self.walk.stage = Stage::Draining { mark: self.grid.write_mark() };
        }
        if let Stage::Draining { mark } = self.walk.stage
            && self.grid.written_below(mark)
            && self.grid.sync_done()
        {
            self.grid.sync_start();
            self.walk.stage = Stage::Syncing;
        }
        if self.walk.stage == Stage::Syncing && self.grid.sync_done() {
            self.walk.stage = Stage::Done;
        }
        if self.walk.stage == Stage::Done { Fetch::Ready(()) } else { Fetch::Wait }
    }

    /// Visits blocks; ready when all were visited.
    fn walk_on(&mut self, walk: &mut Walk, at_a_time: usize) -> Fetch<()> {
        for place in SERVING..SERVING + WALKING {
            // What was read is verified; nobody wants to see it.
            drop(self.grid.probe_take(place));
            if place < SERVING + at_a_time && self.grid.probe_is_idle(place) {
                let Some(block) = ready!(walk.next(self)) else { continue };
                let started = self.grid.probe_start(place, block);
                assert!(started, "the place was idle");
                walk.visited += 1;
            }
        }
        let idle = |place| self.grid.probe_is_idle(place);
        if (SERVING..SERVING + WALKING).all(idle) { Fetch::Ready(()) } else { Fetch::Wait }
    }

    /// Blocks that the walk has visited.
    #[must_use]
    pub fn walk_visited(&self) -> u64 {
        self.walk.visited
    }

    /// Blocks in use.
    #[must_use]
    pub fn blocks_used(&self) -> u64 {
        count_of(index_of(self.grid.free_set().acquired_count()))
    }
}
