//! How the store is, as plain numbers for people. Decides nothing.

use super::config::RUN_LEVELS_MAX;
use super::count_of;
use super::grid::GridCounters;
use super::store::Store;
use super::table::Table;
use crate::protocol::to_index;

/// How an index table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Runs of each level, of one tag: all tags have as many.
    pub runs: [u64; RUN_LEVELS_MAX],
    /// Memtables flushed in the life of the data file.
    pub flushes: u64,
    /// Merges that became visible since the start.
    pub merges: u64,
    /// Flushes and merges under way.
    pub work: u64,
}

/// How the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// Rows of the log of events.
    pub events: u64,
    /// Rows of the log of accounts.
    pub accounts: u64,
    /// The index of events.
    pub event_table: TableReport,
    /// The index of accounts.
    pub account_table: TableReport,
    /// What the grid has done.
    pub grid: GridCounters,
    /// Blocks that wait to be written.
    pub writes_queued: u64,
    /// Blocks that the scrub or the sync has visited in its present walk.
    pub walk_visited: u64,
    /// Whether blocks are wanted from peers.
    pub blocks_missing: bool,
}

impl Table {
    /// How it is.
    #[must_use]
    pub fn report(&self) -> TableReport {
        let mut runs = [0; RUN_LEVELS_MAX];
        for run in self.runs(0) {
            runs[to_index(run.level)] += 1;
        }
        let merges = self.tasks.merges.iter().filter(|merge| merge.live);
        let work = count_of(merges.count()) + u64::from(self.tasks.flush.live);
        TableReport { runs, flushes: self.bars, merges: self.merged, work }
    }
}

impl Store {
    /// How it is.
    #[must_use]
    pub fn report(&self) -> StoreReport {
        StoreReport {
            events: self.events_rows(),
            accounts: self.accounts_rows(),
            event_table: self.events.report(),
            account_table: self.account_table.report(),
            grid: self.grid.counters(),
            writes_queued: count_of(self.grid.writes.len()),
            walk_visited: self.walk_visited(),
            blocks_missing: self.grid.has_missing(),
        }
    }
}
