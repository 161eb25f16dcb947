//! Balances at a moment: the sum of the events up to it.
//!
//! An event counts from its own timestamp on, whenever it was executed. An imported transfer can be
//! older than an expiry that the ledger carried out before it, so the balances that are stored with
//! an event may include expiries after its timestamp. This module does not use them: it adds the
//! changes of each event. Therefore debits and credits are equal at every moment, and events may
//! come in any order, except that a pending transfer comes before its end.

use std::collections::HashMap;

use super::event::Event;
use super::records::BalanceAt;
use crate::cli::exit::{ExitClass, Failure};
use crate::protocol::types::{Account, Transfer, account_flags, transfer_flags};
use crate::storage::rows::{Balances, EventKind};

/// A sum of amounts. The balances of a ledger fit 128 bits, but in the order of timestamps a sum
/// may exceed them for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    low: u128,
    /// Number of overflows minus underflows of `low`.
    carry: i32,
}

impl Sum {
    fn add(&mut self, amount: u128) {
        let (low, is_over) = self.low.overflowing_add(amount);
        (self.low, self.carry) = (low, self.carry + i32::from(is_over));
    }

    fn subtract(&mut self, amount: u128) {
        let (low, is_under) = self.low.overflowing_sub(amount);
        (self.low, self.carry) = (low, self.carry - i32::from(is_under));
    }
}

/// The sums of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    debits_pending: Sum,
    debits_posted: Sum,
    credits_pending: Sum,
    credits_posted: Sum,
    /// Timestamp of the last event that changed them.
    timestamp: u64,
    /// Number of pending transfers that keep the account closed.
    closings: i32,
}

impl Sums {
    /// Applies an event to the side that the flag `closes` names.
    fn change(&mut self, event: &Event, hold: Option<Hold>, closes: u16) {
        let (pending, posted) = if closes == transfer_flags::CLOSING_DEBIT {
            (&mut self.debits_pending, &mut self.debits_posted)
        } else {
            (&mut self.credits_pending, &mut self.credits_posted)
        };
        let kind = event.kind;
        if matches!(kind, EventKind::SinglePhase | EventKind::Posted) {
            posted.add(event.transfer.amount);
        }
        // The expiry of a pending transfer of amount 0 changes nothing.
        let mut is_changed = kind != EventKind::Expired;
        if let Some(hold) = hold {
            let closings = i32::from(hold.closing & closes != 0);
            is_changed |= hold.amount > 0 || closings > 0;
            if kind == EventKind::Pending {
                pending.add(hold.amount);
                self.closings += closings;
            } else {
                pending.subtract(hold.amount);
                // An account that a posted transfer closed stays closed.
                self.closings -= if kind == EventKind::Posted { 0 } else { closings };
            }
        }
        if is_changed {
            self.timestamp = self.timestamp.max(event.transfer.timestamp);
        }
    }
}

/// The facts of a pending transfer that its end needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    amount: u128,
    /// Those of its flags that close accounts.
    closing: u16,
}

impl Hold {
    fn of(transfer: &Transfer) -> Hold {
        let closing = transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT;
        Hold { amount: transfer.amount, closing: transfer.flags & closing }
    }
}

/// The beginning of an account's sum: its balances right after an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Its balances then.
    pub balances: Balances,
    /// Its flags then.
    pub flags: u16,
    /// The event's timestamp.
    pub timestamp: u64,
}

/// Balances of all accounts that had an event. See the module.
#[derive(Debug, Default)]
pub struct BalancesAt {
    sums: HashMap<u128, Sums>,
    /// Pending transfers that have not ended.
    holds: HashMap<u128, Hold>,
    /// The only account to sum; `None` for all accounts.
    only: Option<u128>,
}

impl BalancesAt {
    /// Returns a sum of no event, for all accounts.
    #[must_use]
    pub fn new() -> BalancesAt {
        BalancesAt::default()
    }

    /// Returns a sum of no event, for one account.
    #[must_use]
    pub fn of_account(account_id: u128) -> BalancesAt {
        BalancesAt { only: Some(account_id), ..BalancesAt::default() }
    }

    /// Begins the sum of an account after one of its events.
    ///
    /// # Panics
    ///
    /// If there was an event of the account already.
    pub fn start(&mut self, account_id: u128, start: &Start) {
        let sum = |low| Sum { low, carry: 0 };
        let sums = Sums {
            debits_pending: sum(start.balances.debits_pending),
            debits_posted: sum(start.balances.debits_posted),
            credits_pending: sum(start.balances.credits_pending),
            credits_posted: sum(start.balances.credits_posted),
            timestamp: start.timestamp,
            closings: i32::from(start.flags & account_flags::CLOSED != 0),
        };
        assert_eq!(self.sums.insert(account_id, sums), None, "a sum begins before all events");
    }

    /// Adds a pending transfer whose creation is already in the sum.
    pub fn add_hold(&mut self, pending: &Transfer) {
        self.holds.insert(pending.id, Hold::of(pending));
    }

    /// Adds an event.
    ///
    /// # Errors
    ///
    /// If it ends a pending transfer that was not added.
    pub fn add(&mut self, event: &Event) -> Result<(), Failure> {
        let transfer = &event.transfer;
        if self.only.is_some_and(|account_id| !event.is_of(account_id)) {
            return Ok(());
        }
        let hold = match event.kind {
            EventKind::SinglePhase => None,
            EventKind::Pending => {
                self.holds.insert(transfer.id, Hold::of(transfer));
                Some(Hold::of(transfer))
            }
            EventKind::Expired => {
                self.holds.remove(&transfer.id);
                Some(Hold::of(transfer))
            }
            EventKind::Posted | EventKind::Voided => Some(self.end_hold(transfer)?),
            EventKind::Orphan => return Ok(()),
        };
        for (account_id, closes) in [
            (transfer.debit_account_id, transfer_flags::CLOSING_DEBIT),
            (transfer.credit_account_id, transfer_flags::CLOSING_CREDIT),
        ] {
            if self.only.is_none_or(|only| only == account_id) {
                let sums = self.sums.entry(account_id).or_default();
                sums.change(event, hold, closes);
            }
        }
        Ok(())
    }

    /// Removes the pending transfer that a post or void ends.
    fn end_hold(&mut self, transfer: &Transfer) -> Result<Hold, Failure> {
        self.holds.remove(&transfer.pending_id).ok_or_else(|| {
            let message = format!(
                "transfer {} ends the pending transfer {}, which is not among the events before \
                 it: check the data file with `florin inspect integrity`",
                transfer.id, transfer.pending_id
            );
            Failure::new(ExitClass::Corruption, message)
        })
    }

    /// Returns the row of an account; `None` if it had no event.
    ///
    /// # Errors
    ///
    /// If a balance does not fit 128 bits.
    pub fn row(&self, account: &Account) -> Result<Option<BalanceAt>, Failure> {
        let Some(sums) = self.sums.get(&account.id) else { return Ok(None) };
        let number = |sum: Sum, name| match sum {
            Sum { low, carry: 0 } => Ok(low),
            _ => Err(Failure::new(
                ExitClass::Error,
                format!(
                    "account {}: {name} do not fit 128 bits at this moment, because of transfers \
                     that were imported later: ask for another moment",
                    account.id
                ),
            )),
        };
        let is_closed = if sums.closings > 0 { account_flags::CLOSED } else { 0 };
        Ok(Some(BalanceAt {
            debits_pending: number(sums.debits_pending, "pending debits")?,
            debits_posted: number(sums.debits_posted, "posted debits")?,
            credits_pending: number(sums.credits_pending, "pending credits")?,
            credits_posted: number(sums.credits_posted, "posted credits")?,
            timestamp: sums.timestamp,
            flags: account.flags & !account_flags::CLOSED | is_closed,
            ..BalanceAt::of_new(account)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, id: u128, pending_id: u128, amount: u128, timestamp: u64) -> Event {
        let flags = match kind {
            EventKind::Pending | EventKind::Expired => transfer_flags::PENDING,
            _ => 0,
        };
        let (debit_account_id, credit_account_id) = (1, 2);
        let transfer = Transfer {
            id,
            debit_account_id,
            credit_account_id,
            amount,
            pending_id,
            flags,
            timestamp,
            ..Transfer::default()
        };
        Event { kind, transfer }
    }

    fn row(balances: &BalancesAt, id: u128) -> BalanceAt {
        let account = Account { id, ledger: 7, ..Account::default() };
        balances.row(&account).unwrap().unwrap()
    }

    /// Goal: every kind of event changes the right balances; ledger and code stay the account's.
    #[test]
    fn kinds() {
        let mut balances = BalancesAt::new();
        balances.add(&event(EventKind::SinglePhase, 10, 0, 5, 100)).unwrap();
        balances.add(&event(EventKind::Pending, 11, 0, 70, 101)).unwrap();
        assert_eq!((row(&balances, 1).debits_pending, row(&balances, 1).debits_posted), (70, 5));
        balances.add(&event(EventKind::Posted, 12, 11, 30, 102)).unwrap();
        balances.add(&event(EventKind::Pending, 13, 0, 7, 103)).unwrap();
        balances.add(&event(EventKind::Voided, 14, 13, 7, 104)).unwrap();
        let credit = row(&balances, 2);
        assert_eq!(
            (credit.credits_pending, credit.credits_posted, credit.debits_posted),
            (0, 35, 0)
        );
        assert_eq!((credit.timestamp, credit.ledger), (104, 7));
        let account = Account { id: 3, ..Account::default() };
        assert_eq!(balances.row(&account).unwrap(), None);
        let error = balances.add(&event(EventKind::Posted, 15, 11, 1, 105)).unwrap_err();
        assert!(error.message.contains("pending transfer 11"), "{error}");
    }

    /// Goal: a transfer that was imported after an expiry with an older timestamp counts from its
    /// own timestamp on, in whichever order the events come.
    #[test]
    fn late_imports() {
        let hold = event(EventKind::Pending, 10, 0, 70, 100);
        let imported = event(EventKind::SinglePhase, 11, 0, 11, 105);
        let expiry = event(EventKind::Expired, 10, 0, 70, 110);
        for events in [[hold, imported, expiry], [hold, expiry, imported]] {
            for (last, pending, posted, timestamp) in [(105, 70, 11, 105), (110, 0, 11, 110)] {
                let mut balances = BalancesAt::new();
                let until = events.iter().filter(|event| event.transfer.timestamp <= last);
                until.for_each(|event| balances.add(event).unwrap());
                let row = row(&balances, 1);
                assert_eq!((row.debits_pending, row.debits_posted), (pending, posted));
                assert_eq!(row.timestamp, timestamp);
            }
        }
    }

    /// Goal: an account is closed while a closing transfer is pending, and after it was posted.
    #[test]
    fn closing() {
        let closing = |kind, id, timestamp| {
            let mut event = event(kind, id, 0, 0, timestamp);
            event.transfer.flags |= transfer_flags::CLOSING_CREDIT;
            event
        };
        let mut balances = BalancesAt::new();
        balances.add(&closing(EventKind::Pending, 10, 100)).unwrap();
        assert_eq!((row(&balances, 1).flags, row(&balances, 2).flags), (0, account_flags::CLOSED));
        // The next one was imported after the first had expired, and is older than its expiry.
        balances.add(&closing(EventKind::Pending, 11, 105)).unwrap();
        balances.add(&closing(EventKind::Expired, 10, 110)).unwrap();
        assert_eq!(row(&balances, 2).flags, account_flags::CLOSED);
        assert_eq!((row(&balances, 1).timestamp, row(&balances, 2).timestamp), (105, 110));
        balances.add(&event(EventKind::Posted, 12, 11, 0, 111)).unwrap();
        assert_eq!(row(&balances, 2).flags, account_flags::CLOSED);
    }

    /// Goal: a sum may exceed 128 bits for a while; a moment at which it does is refused.
    #[test]
    fn wide() {
        let mut balances = BalancesAt::new();
        balances.add(&event(EventKind::Pending, 10, 0, u128::MAX, 100)).unwrap();
        balances.add(&event(EventKind::Pending, 11, 0, u128::MAX, 105)).unwrap();
        let account = Account { id: 1, ..Account::default() };
        let error = balances.row(&account).unwrap_err();
        assert!(error.message.contains("account 1: pending debits"), "{error}");
        balances.add(&event(EventKind::Expired, 10, 0, u128::MAX, 110)).unwrap();
        assert_eq!(row(&balances, 1).debits_pending, u128::MAX);
    }

    /// Goal: the sum of one account that begins after an event equals the whole sum.
    #[test]
    fn starts() {
        let start = Start {
            balances: Balances { debits_pending: 70, debits_posted: 5, ..Balances::default() },
            flags: account_flags::CLOSED,
            timestamp: 100,
        };
        let mut balances = BalancesAt::of_account(1);
        balances.start(1, &start);
        balances.add_hold(&event(EventKind::Pending, 10, 0, 70, 100).transfer);
        balances.add(&event(EventKind::Posted, 11, 10, 30, 101)).unwrap();
        let row = row(&balances, 1);
        assert_eq!((row.debits_pending, row.debits_posted, row.timestamp), (0, 35, 101));
        assert_eq!(row.flags, account_flags::CLOSED);
        assert_eq!(balances.row(&Account { id: 2, ..Account::default() }).unwrap(), None);
    }
}
