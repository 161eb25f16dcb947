//! What the ledger has done since the start, as plain numbers for people.
//!
//! Nothing here decides anything. Ops that are executed again after a restart count again.

use super::Ledger;
use crate::protocol::to_index;
use crate::protocol::types::CreateResult;
use std::mem::offset_of;

/// Places for statuses of accounts: by number, that of `created` in place 0.
pub const ACCOUNT_STATUSES: usize = 27;
/// Places for statuses of transfers, likewise.
pub const TRANSFER_STATUSES: usize = 69;

/// What the ledger has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerCounters {
    /// Results of creating accounts, by status.
    pub accounts: [u64; ACCOUNT_STATUSES],
    /// Results of creating transfers, by status.
    pub transfers: [u64; TRANSFER_STATUSES],
    /// Accounts that transfers named.
    pub account_lookups: u64,
    /// Those that were not in the cache and were searched for in the store.
    pub account_misses: u64,
}

impl Default for LedgerCounters {
    fn default() -> LedgerCounters {
        LedgerCounters {
            accounts: [0; ACCOUNT_STATUSES],
            transfers: [0; TRANSFER_STATUSES],
            account_lookups: 0,
            account_misses: 0,
        }
    }
}

/// Adds up the statuses of results, which are the bytes of as many [`CreateResult`]s.
pub(super) fn count_results(counts: &mut [u64], results: &[u8]) {
    let (results, rest) = results.as_chunks::<{ size_of::<CreateResult>() }>();
    assert!(rest.is_empty(), "results are whole");
    for result in results {
        let status = &result[offset_of!(CreateResult, status)..];
        let status = u32::from_le_bytes(status[..4].try_into().expect("four bytes"));
        // The status `created` is the highest number there is.
        counts[if status == u32::MAX { 0 } else { to_index(status) }] += 1;
    }
}

impl Ledger {
    /// See [`LedgerCounters`].
    #[must_use]
    pub fn counters(&self) -> LedgerCounters {
        let mut counters = self.counters;
        counters.account_lookups = self.cache.lookups;
        counters.account_misses = self.cache.misses;
        counters
    }

    /// Accounts in the cache, and how many there is room for.
    #[must_use]
    pub fn cached_accounts(&self) -> (u32, u32) {
        (self.cache.occupied(), self.cache.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
    use zerocopy::IntoBytes;

    /// Goal: every status has a place, and results are counted in it.
    #[test]
    fn places() {
        let mut counts = [0; TRANSFER_STATUSES];
        let mut results = Vec::new();
        for status in CreateTransferStatus::ALL {
            let result = CreateResult { timestamp: 9, status: status.number(), reserved: 0 };
            results.extend_from_slice(result.as_bytes());
        }
        count_results(&mut counts, &results);
        for (place, count) in counts.iter().enumerate() {
            assert_eq!(*count, u64::from(place != 18), "status 18 does not exist");
        }
        let mut counts = [0; ACCOUNT_STATUSES];
        let created = CreateAccountStatus::Created.number();
        let result = CreateResult { timestamp: 9, status: created, reserved: 0 };
        count_results(&mut counts, result.as_bytes());
        assert_eq!((counts[0], counts.iter().sum::<u64>()), (1, 1));
    }
}
