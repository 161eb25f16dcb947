//! Pure work over owned memory that a world may run wherever and whenever it likes.
//!
//! A job is moved out of the core, run once, and moved back with its result inside. When it is
//! run never changes what reaches the disk. Not covered: who runs it and in which order.

use super::flush::FlushJob;
use super::merge::MergeJob;

/// One piece of work for a helper.
#[derive(Debug)]
pub enum Job {
    /// Turns a column of a frozen memtable into a run.
    Flush(FlushJob),
    /// One bounded step of merging neighbouring runs.
    Merge(MergeJob),
}

impl Job {
    /// Does the work. Pure: it reads and writes only what the job owns.
    pub fn run(&mut self) {
        match self {
            Job::Flush(job) => job.run(),
            Job::Merge(job) => job.run(),
        }
    }

    /// Identity of the table that gets the job back, as in its options.
    #[must_use]
    pub fn table(&self) -> u8 {
        match self {
            Job::Flush(job) => job.table,
            Job::Merge(job) => job.table,
        }
    }
}
