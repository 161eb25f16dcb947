//! Turning one frozen memtable column into a sorted run: a pure job over owned memory.

/// One column of a frozen memtable on its way to becoming a level-0 run.
#[derive(Debug)]
pub struct FlushJob {
    /// Identity of the table the job belongs to.
    pub table: u8,
}

impl FlushJob {
    /// Does the whole work.
    pub fn run(&mut self) {}
}
