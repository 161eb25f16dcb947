//! Merging neighbouring runs into one of the next level: a pure job over owned memory.

/// One bounded step of merging neighbouring runs of one tag.
#[derive(Debug)]
pub struct MergeJob {
    /// Identity of the table the job belongs to.
    pub table: u8,
}

impl MergeJob {
    /// Does one bounded step of the work.
    pub fn run(&mut self) {}
}
