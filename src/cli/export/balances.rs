//! Balances at a moment, from events up to it.
//!
//! Every event carries the balances of both accounts right after it, so those of the last event are
//! the account's. What is kept is one row for each account that had an event.

use std::collections::HashMap;

use super::records::BalanceAt;
use crate::protocol::types::{Account, ChangeEvent, Transfer};
use crate::storage::rows::{BalanceRow, Balances};

/// What an event says of one of its accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The account.
    pub account_id: u128,
    /// Its balances right after the event.
    pub balances: Balances,
    /// Its flags right after the event.
    pub flags: u16,
    /// The event's timestamp.
    pub timestamp: u64,
}

/// Both sides of a change event.
#[must_use]
pub fn sides_of_event(event: &ChangeEvent) -> [Side; 2] {
    let timestamp = event.timestamp;
    let debit = Side {
        account_id: event.debit_account_id,
        balances: Balances {
            debits_pending: event.debit_account_debits_pending,
            debits_posted: event.debit_account_debits_posted,
            credits_pending: event.debit_account_credits_pending,
            credits_posted: event.debit_account_credits_posted,
        },
        flags: event.debit_account_flags,
        timestamp,
    };
    let credit = Side {
        account_id: event.credit_account_id,
        balances: Balances {
            debits_pending: event.credit_account_debits_pending,
            debits_posted: event.credit_account_debits_posted,
            credits_pending: event.credit_account_credits_pending,
            credits_posted: event.credit_account_credits_posted,
        },
        flags: event.credit_account_flags,
        timestamp,
    };
    [debit, credit]
}

/// Both sides of an event of a data file: its two rows.
#[must_use]
pub fn sides_of_rows(transfer: &Transfer, row: &BalanceRow) -> [Side; 2] {
    let side = |account_id, balances, flags: u8| Side {
        account_id,
        balances,
        flags: u16::from(flags),
        timestamp: transfer.timestamp,
    };
    [
        side(transfer.debit_account_id, row.debit, row.debit_flags),
        side(transfer.credit_account_id, row.credit, row.credit_flags),
    ]
}

/// The newest side of each account. See the module.
#[derive(Debug, Default)]
pub struct BalancesAt {
    newest: HashMap<u128, Side>,
}

impl BalancesAt {
    /// No event yet.
    #[must_use]
    pub fn new() -> BalancesAt {
        BalancesAt::default()
    }

    /// Adds an event that is newer than all before.
    ///
    /// # Panics
    ///
    /// If both sides are the same account.
    pub fn add(&mut self, sides: [Side; 2]) {
        assert_ne!(sides[0].account_id, sides[1].account_id, "transfers have two accounts");
        for side in sides {
            self.newest.insert(side.account_id, side);
        }
    }

    /// The row of an account; none if it had no event.
    #[must_use]
    pub fn row(&self, account: &Account) -> Option<BalanceAt> {
        self.newest.get(&account.id).map(|side| balance_at(account, side))
    }
}

/// The row of an account after its newest event.
///
/// # Panics
///
/// If the event is of another account.
#[must_use]
pub fn balance_at(account: &Account, side: &Side) -> BalanceAt {
    assert_eq!(account.id, side.account_id);
    let Balances { debits_pending, debits_posted, credits_pending, credits_posted } = side.balances;
    BalanceAt {
        debits_pending,
        debits_posted,
        credits_pending,
        credits_posted,
        timestamp: side.timestamp,
        flags: side.flags,
        ..BalanceAt::of_new(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the newest event counts, on either side; an account without events has no row.
    #[test]
    fn newest_counts() {
        let account = |id| Account { id, ledger: 7, ..Account::default() };
        let event = |debit, credit, posted, timestamp| ChangeEvent {
            debit_account_id: debit,
            credit_account_id: credit,
            debit_account_debits_posted: posted,
            credit_account_credits_posted: posted,
            timestamp,
            ..zerocopy::FromZeros::new_zeroed()
        };
        let mut balances = BalancesAt::new();
        balances.add(sides_of_event(&event(1, 2, 5, 10)));
        balances.add(sides_of_event(&event(3, 1, 6, 11)));
        let row = balances.row(&account(1)).unwrap();
        assert_eq!((row.debits_posted, row.credits_posted), (0, 6));
        assert_eq!((row.timestamp, row.ledger), (11, 7));
        assert_eq!(balances.row(&account(2)).unwrap().credits_posted, 5);
        assert_eq!(balances.row(&account(4)), None);
    }
}
