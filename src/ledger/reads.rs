//! Memory that all reads share: candidate rows, and a window of records being fetched.
//!
//! A read goes through its candidates window by window: every record of a window is fetched (many
//! at a time), judged, and then answered in order.

use crate::protocol::types::{Account, Transfer};
use crate::storage::rows::BalanceRow;
use crate::storage::scan::RowList;

use super::account_cache::ROW_NONE;

/// Records in a window at most.
pub(super) const WINDOW_MAX: usize = 4096;
/// Records in a window at least, even when fewer are wanted: some may not match.
pub(super) const WINDOW_MIN: usize = 32;

/// What a record of the window is to the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not asked for.
    Skip,
    /// Part of the answer.
    Keep,
    /// Not asked for, and neither is any that follows.
    Beyond,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reads {
    /// Rows that a scan proposes.
    pub rows: RowList,
    /// How many of them have been taken.
    pub rows_taken: usize,
    /// The scan is still adding rows.
    pub scanning: bool,
    /// Rows of the window.
    pub window: Vec<u64>,
    /// What was fetched for each place of the window. Which of the three are used depends.
    pub transfers: Vec<Transfer>,
    pub balances: Vec<BalanceRow>,
    pub accounts: Vec<Account>,
    pub verdicts: Vec<Verdict>,
}

impl Reads {
    /// Allocates all of it.
    pub fn new() -> Reads {
        Reads {
            rows: RowList::new(WINDOW_MAX),
            rows_taken: 0,
            scanning: false,
            window: Vec::with_capacity(WINDOW_MAX),
            transfers: vec![Transfer::default(); WINDOW_MAX],
            balances: vec![BalanceRow::default(); WINDOW_MAX],
            accounts: vec![Account::default(); WINDOW_MAX],
            verdicts: vec![Verdict::Skip; WINDOW_MAX],
        }
    }

    /// Bytes that the buffers occupy.
    pub fn memory_bytes() -> u64 {
        let record = size_of::<Transfer>()
            + size_of::<BalanceRow>()
            + size_of::<Account>()
            + size_of::<Verdict>()
            + 2 * size_of::<u64>();
        u64::try_from(WINDOW_MAX * record).expect("memory sizes fit 64 bits")
    }

    /// Starts without candidates.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.rows_taken = 0;
        self.scanning = false;
        self.window.clear();
    }

    /// Starts a window of `count` places.
    pub fn window_start(&mut self, count: usize) {
        assert!(count <= WINDOW_MAX);
        self.window.clear();
        self.window.resize(count, ROW_NONE);
        self.verdicts[..count].fill(Verdict::Skip);
    }
}
