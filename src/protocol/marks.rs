//! Coverage marks: rare branches with a name, counted over a fleet of simulated runs.
//!
//! `mark!("name")` counts a visit. The names are listed here, so that those never reached are
//! known; a name that is not listed does not compile. A count is written and never read by the
//! code that is counted, costs one relaxed addition, and so changes nothing but itself. Not
//! covered: who reports them (the simulator).

use std::sync::atomic::{AtomicU64, Ordering};

/// All marks, in alphabetical order.
pub const MARKS: [&str; 51] = [
    "ack_waits_for_checkpoint",
    "ack_waits_for_sync",
    "backup_knows_commit",
    "block_missing",
    "block_refused",
    "block_repaired",
    "block_served",
    "chain_restarted",
    "checkpoint_durable",
    "damage_not_nacked",
    "damage_settled",
    "eviction_passed_on",
    "head_recovered",
    "head_uncertain",
    "header_rewritten",
    "headers_repaired",
    "headers_requested",
    "journal_read_failed",
    "op_refused",
    "page_missing",
    "prepare_beyond_log",
    "prepare_gap",
    "prepare_requested",
    "prepare_resent",
    "prepare_rewritten",
    "prepare_served_from_disk",
    "primary_abdicates",
    "probe_missing",
    "recover_asks",
    "recover_completed",
    "recover_leaves",
    "recover_waits",
    "recovering_does_not_report",
    "repair_timed_out",
    "reply_from_backup",
    "reply_withheld",
    "request_forwarded",
    "request_resent",
    "session_evicted",
    "superblock_repaired",
    "sync_completed",
    "sync_started",
    "upgraded",
    "view_began_as_primary",
    "view_change_for_recovery",
    "view_change_forfeits",
    "view_change_joined",
    "view_change_truncates",
    "view_change_undecided",
    "view_change_vote",
    "write_postponed",
];

static HITS: [AtomicU64; MARKS.len()] = [const { AtomicU64::new(0) }; MARKS.len()];

/// Counts a visit of the named branch.
#[macro_export]
macro_rules! mark {
    ($name:literal) => {{
        const INDEX: usize =
            $crate::protocol::names::position(&$crate::protocol::marks::MARKS, $name);
        $crate::protocol::marks::hit(INDEX);
    }};
}

/// Counts a visit of the mark with this index; see [`mark!`].
///
/// # Panics
///
/// If there is no such mark.
pub fn hit(index: usize) {
    HITS[index].fetch_add(1, Ordering::Relaxed);
}

/// Visits of each mark since the start of the process, in the order of [`MARKS`].
#[must_use]
pub fn counts() -> [u64; MARKS.len()] {
    std::array::from_fn(|index| HITS[index].load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the list is sorted and without repetition, and a visit counts for its own name only.
    #[test]
    fn counting() {
        assert!(MARKS.is_sorted());
        assert!(MARKS.windows(2).all(|pair| pair[0] != pair[1]));
        let before = counts();
        mark!("request_resent");
        let index = crate::protocol::names::position(&MARKS, "request_resent");
        assert!(counts()[index] > before[index]);
    }
}
