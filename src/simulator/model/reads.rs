//! The model's reads: linear scans over what the range of timestamps leaves.

use zerocopy::{FromBytes, IntoBytes};

use super::{Model, TransferRecord, decode};
use crate::protocol::types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, QueryFilter,
    TIMESTAMP_MAX, Transfer, account_filter_flags, account_flags, query_filter_flags,
};

impl Model {
    pub(super) fn lookup_accounts(&self, batch: &[u8]) -> Vec<u8> {
        let found = decode_ids(batch).into_iter().filter_map(|id| self.accounts.get(&id));
        found.flat_map(|account| account.as_bytes().to_vec()).collect()
    }

    pub(super) fn lookup_transfers(&self, batch: &[u8]) -> Vec<u8> {
        let found = decode_ids(batch).into_iter().filter_map(|id| self.transfers.get(&id));
        found.flat_map(|record| record.transfer.as_bytes().to_vec()).collect()
    }

    pub(super) fn get_account_transfers(&self, batch: &[u8]) -> Vec<u8> {
        let records = self.account_transfers(&decode(batch));
        records.iter().flat_map(|record| record.transfer.as_bytes().to_vec()).collect()
    }

    pub(super) fn get_account_balances(&self, batch: &[u8]) -> Vec<u8> {
        let filter: AccountFilter = decode(batch);
        let history = self
            .accounts
            .get(&filter.account_id)
            .is_some_and(|account| account.flags & account_flags::HISTORY != 0);
        if !history {
            return Vec::new();
        }
        let mut reply = Vec::new();
        for record in self.account_transfers(&filter) {
            let balances = if record.transfer.debit_account_id == filter.account_id {
                &record.debit_balances
            } else {
                assert_eq!(record.transfer.credit_account_id, filter.account_id);
                &record.credit_balances
            };
            let row = AccountBalance {
                debits_pending: balances.debits_pending,
                debits_posted: balances.debits_posted,
                credits_pending: balances.credits_pending,
                credits_posted: balances.credits_posted,
                timestamp: record.transfer.timestamp,
                reserved: [0; 56],
            };
            reply.extend_from_slice(row.as_bytes());
        }
        reply
    }

    /// The transfers an account filter asks for; none if the filter is not valid.
    fn account_transfers(&self, f: &AccountFilter) -> Vec<&TransferRecord> {
        let sides = account_filter_flags::DEBITS | account_filter_flags::CREDITS;
        let valid = f.account_id != 0
            && f.account_id != u128::MAX
            && f.flags & sides != 0
            && f.flags & !(sides | account_filter_flags::REVERSED) == 0
            && f.reserved.iter().all(|&byte| byte == 0)
            && range_and_limit_are_valid(f.timestamp_min, f.timestamp_max, f.limit);
        if !valid {
            return Vec::new();
        }
        let matches = |t: &Transfer| {
            let debits = f.flags & account_filter_flags::DEBITS != 0;
            let credits = f.flags & account_filter_flags::CREDITS != 0;
            (debits && t.debit_account_id == f.account_id
                || credits && t.credit_account_id == f.account_id)
                && (f.user_data_128 == 0 || f.user_data_128 == t.user_data_128)
                && (f.user_data_64 == 0 || f.user_data_64 == t.user_data_64)
                && (f.user_data_32 == 0 || f.user_data_32 == t.user_data_32)
                && (f.code == 0 || f.code == t.code)
        };
        let range = self.transfer_ids.range(range(f.timestamp_min, f.timestamp_max));
        let records = range.map(|(_, id)| &self.transfers[id]);
        let found = records.filter(|record| matches(&record.transfer)).collect();
        let reversed = f.flags & account_filter_flags::REVERSED != 0;
        first(found, reversed, f.limit, self.options.query_results_max)
    }

    pub(super) fn query_accounts(&self, batch: &[u8]) -> Vec<u8> {
        let f: QueryFilter = decode(batch);
        if !query_filter_is_valid(&f) {
            return Vec::new();
        }
        let matches = |a: &Account| {
            (f.user_data_128 == 0 || f.user_data_128 == a.user_data_128)
                && (f.user_data_64 == 0 || f.user_data_64 == a.user_data_64)
                && (f.user_data_32 == 0 || f.user_data_32 == a.user_data_32)
                && (f.ledger == 0 || f.ledger == a.ledger)
                && (f.code == 0 || f.code == a.code)
        };
        let range = self.account_ids.range(range(f.timestamp_min, f.timestamp_max));
        let accounts = range.map(|(_, id)| &self.accounts[id]);
        let found: Vec<&Account> = accounts.filter(|account| matches(account)).collect();
        let reversed = f.flags & query_filter_flags::REVERSED != 0;
        let found = first(found, reversed, f.limit, self.options.query_results_max);
        found.iter().flat_map(|account| account.as_bytes().to_vec()).collect()
    }

    pub(super) fn query_transfers(&self, batch: &[u8]) -> Vec<u8> {
        let f: QueryFilter = decode(batch);
        if !query_filter_is_valid(&f) {
            return Vec::new();
        }
        let matches = |t: &Transfer| {
            (f.user_data_128 == 0 || f.user_data_128 == t.user_data_128)
                && (f.user_data_64 == 0 || f.user_data_64 == t.user_data_64)
                && (f.user_data_32 == 0 || f.user_data_32 == t.user_data_32)
                && (f.ledger == 0 || f.ledger == t.ledger)
                && (f.code == 0 || f.code == t.code)
        };
        let range = self.transfer_ids.range(range(f.timestamp_min, f.timestamp_max));
        let transfers = range.map(|(_, id)| &self.transfers[id].transfer);
        let found: Vec<&Transfer> = transfers.filter(|transfer| matches(transfer)).collect();
        let reversed = f.flags & query_filter_flags::REVERSED != 0;
        let found = first(found, reversed, f.limit, self.options.query_results_max);
        found.iter().flat_map(|transfer| transfer.as_bytes().to_vec()).collect()
    }

    pub(super) fn get_change_events(&self, body: &[u8]) -> Vec<u8> {
        let f: ChangeEventsFilter = decode(body);
        let valid = f.reserved.iter().all(|&byte| byte == 0)
            && range_and_limit_are_valid(f.timestamp_min, f.timestamp_max, f.limit);
        if !valid {
            return Vec::new();
        }
        let range = self.change_events.range(range(f.timestamp_min, f.timestamp_max));
        let found: Vec<&ChangeEvent> = range.map(|(_, event)| event).collect();
        let found = first(found, false, f.limit, self.options.change_events_max);
        found.iter().flat_map(|event| event.as_bytes().to_vec()).collect()
    }
}

fn range_and_limit_are_valid(timestamp_min: u64, timestamp_max: u64, limit: u32) -> bool {
    timestamp_min <= TIMESTAMP_MAX
        && timestamp_max <= TIMESTAMP_MAX
        && (timestamp_max == 0 || timestamp_min <= timestamp_max)
        && limit != 0
}

fn query_filter_is_valid(f: &QueryFilter) -> bool {
    f.flags & !query_filter_flags::REVERSED == 0
        && f.reserved.iter().all(|&byte| byte == 0)
        && range_and_limit_are_valid(f.timestamp_min, f.timestamp_max, f.limit)
}

fn range(timestamp_min: u64, timestamp_max: u64) -> std::ops::RangeInclusive<u64> {
    timestamp_min..=if timestamp_max == 0 { TIMESTAMP_MAX } else { timestamp_max }
}

/// The first `limit` items, but at most `limit_max`, from the front or from the back.
fn first<Item>(mut items: Vec<Item>, reversed: bool, limit: u32, limit_max: usize) -> Vec<Item> {
    if reversed {
        items.reverse();
    }
    let limit = usize::try_from(limit).expect("a limit fits a length").min(limit_max);
    items.truncate(limit);
    items
}

fn decode_ids(batch: &[u8]) -> Vec<u128> {
    let ids = batch.chunks_exact(16);
    assert!(ids.remainder().is_empty());
    ids.map(|id| u128::read_from_bytes(id).expect("a chunk is an id")).collect()
}
