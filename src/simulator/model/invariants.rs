//! What must hold in the model between any two operations.

use std::collections::BTreeMap;

use super::{Balances, Model, Resolution, has, is_closed};
use crate::protocol::types::{Account, TIMESTAMP_MAX, account_flags, transfer_flags};

impl Model {
    /// Asserts what must hold between any two operations: sums per ledger agree, no account is
    /// over its limit, and all balances follow from the stored transfers.
    ///
    /// # Panics
    ///
    /// If an invariant is broken.
    pub fn check_invariants(&self) {
        assert!(self.journal.is_empty());
        assert_eq!(self.accounts.len(), self.account_ids.len());
        assert_eq!(self.transfers.len(), self.transfer_ids.len());
        let mut sums: BTreeMap<u32, [Sum; 4]> = BTreeMap::new();
        for account in self.accounts.values() {
            check_account(account);
            let sums = sums.entry(account.ledger).or_default();
            sums[0].add(account.debits_pending);
            sums[1].add(account.credits_pending);
            sums[2].add(account.debits_posted);
            sums[3].add(account.credits_posted);
        }
        for (ledger, [debits_pending, credits_pending, debits_posted, credits_posted]) in &sums {
            assert_eq!(debits_pending, credits_pending, "pending sums of ledger {ledger}");
            assert_eq!(debits_posted, credits_posted, "posted sums of ledger {ledger}");
        }
        self.check_balances_follow_from_transfers();
    }

    fn check_balances_follow_from_transfers(&self) {
        let mut expected: BTreeMap<u128, Balances> = BTreeMap::new();
        let zero =
            Balances { debits_pending: 0, debits_posted: 0, credits_pending: 0, credits_posted: 0 };
        let mut open_timed_count = 0;
        for record in self.transfers.values() {
            let t = &record.transfer;
            let pending = has(t, transfer_flags::PENDING);
            let void = has(t, transfer_flags::VOID_PENDING_TRANSFER);
            assert_eq!(pending, record.resolution != Resolution::Final);
            open_timed_count += usize::from(record.expiry().is_some());
            if record.resolution == Resolution::Open {
                expected.entry(t.debit_account_id).or_insert(zero).debits_pending += t.amount;
                expected.entry(t.credit_account_id).or_insert(zero).credits_pending += t.amount;
                let debit = &self.accounts[&t.debit_account_id];
                let credit = &self.accounts[&t.credit_account_id];
                assert!(!has(t, transfer_flags::CLOSING_DEBIT) || is_closed(debit));
                assert!(!has(t, transfer_flags::CLOSING_CREDIT) || is_closed(credit));
            }
            if !pending && !void {
                expected.entry(t.debit_account_id).or_insert(zero).debits_posted += t.amount;
                expected.entry(t.credit_account_id).or_insert(zero).credits_posted += t.amount;
            }
        }
        assert_eq!(open_timed_count, self.expiries.len());
        for account in self.accounts.values() {
            let expected = expected.get(&account.id).unwrap_or(&zero);
            assert_eq!(&Balances::of(account), expected, "balances of account {}", account.id);
        }
    }
}

/// A sum of any number of 128-bit amounts: how often it wrapped, and the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    wraps: u64,
    rest: u128,
}

impl Sum {
    fn add(&mut self, amount: u128) {
        let (rest, wrapped) = self.rest.overflowing_add(amount);
        self.rest = rest;
        self.wraps += u64::from(wrapped);
    }
}

fn check_account(account: &Account) {
    let debits = account.debits_pending.checked_add(account.debits_posted);
    let debits = debits.expect("debits fit 128 bits");
    let credits = account.credits_pending.checked_add(account.credits_posted);
    let credits = credits.expect("credits fit 128 bits");
    if account.flags & account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS != 0 {
        assert!(debits <= account.credits_posted, "debit limit of account {}", account.id);
    }
    if account.flags & account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS != 0 {
        assert!(credits <= account.debits_posted, "credit limit of account {}", account.id);
    }
    assert!(account.timestamp >= 1);
    assert!(account.timestamp <= TIMESTAMP_MAX);
}
