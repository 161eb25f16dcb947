//! Events of a ledger, and which of them belong to the state at a moment.

use crate::protocol::types::{Account, Transfer, transfer_flags};
use crate::storage::rows::{EventKind, STORED_FLAG_EXPIRY, is_expiry, is_orphan};

/// A change of two accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kind of event.
    pub kind: EventKind,
    /// The transfer. That of an expiry is the expired transfer with the expiry's timestamp.
    pub transfer: Transfer,
}

impl Event {
    /// Returns the event of a row of the log; `None` if the row is an orphaned id.
    #[must_use]
    pub fn of_row(row: &Transfer) -> Option<Event> {
        if is_orphan(row) {
            return None;
        }
        let has = |flag| row.flags & flag != 0;
        let kind = if is_expiry(row) {
            EventKind::Expired
        } else if has(transfer_flags::POST_PENDING_TRANSFER) {
            EventKind::Posted
        } else if has(transfer_flags::VOID_PENDING_TRANSFER) {
            EventKind::Voided
        } else if has(transfer_flags::PENDING) {
            EventKind::Pending
        } else {
            EventKind::SinglePhase
        };
        let transfer = Transfer { flags: row.flags & !STORED_FLAG_EXPIRY, ..*row };
        Some(Event { kind, transfer })
    }

    /// Whether the account is one of the two.
    #[must_use]
    pub fn is_of(&self, account_id: u128) -> bool {
        self.transfer.debit_account_id == account_id
            || self.transfer.credit_account_id == account_id
    }
}

/// The part of a ledger that belongs to the state at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The last timestamp of the state.
    pub last: u64,
    /// Timestamp of the newest transfer when the question was asked. It excludes a transfer that
    /// was imported since with a timestamp before `last`.
    pub last_transfer: u64,
    /// Timestamp of the newest account when the question was asked. It excludes later imports in
    /// the same way.
    pub last_account: u64,
}

impl Extent {
    /// The extent of a data file: everything.
    pub const ALL: Extent =
        Extent { last: u64::MAX, last_transfer: u64::MAX, last_account: u64::MAX };

    /// Whether the event belongs to the state.
    #[must_use]
    pub fn has(&self, event: &Event) -> bool {
        let timestamp = event.transfer.timestamp;
        timestamp <= self.last
            && (event.kind == EventKind::Expired || timestamp <= self.last_transfer)
    }

    /// Whether the account belongs to the state.
    #[must_use]
    pub fn has_account(&self, account: &Account) -> bool {
        account.timestamp <= self.last.min(self.last_account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the kinds of rows are recognized by their flags; an orphaned id is not an event.
    #[test]
    fn rows() {
        let row = |flags| Transfer { ledger: 1, code: 1, flags, ..Transfer::default() };
        for (flags, kind) in [
            (0, EventKind::SinglePhase),
            (transfer_flags::PENDING, EventKind::Pending),
            (transfer_flags::PENDING | STORED_FLAG_EXPIRY, EventKind::Expired),
            (transfer_flags::POST_PENDING_TRANSFER, EventKind::Posted),
            (transfer_flags::VOID_PENDING_TRANSFER, EventKind::Voided),
        ] {
            let event = Event::of_row(&row(flags)).unwrap();
            assert_eq!(event.kind, kind);
            assert_eq!(event.transfer.flags, flags & !STORED_FLAG_EXPIRY);
        }
        assert_eq!(Event::of_row(&Transfer::default()), None);
    }

    /// Goal: a transfer or an account that was imported later is not part of an earlier state; an
    /// expiry is.
    #[test]
    fn extents() {
        let extent = Extent { last: 10, last_transfer: 5, last_account: 7 };
        let event = |kind, timestamp| {
            let transfer = Transfer { timestamp, ..Transfer::default() };
            extent.has(&Event { kind, transfer })
        };
        assert!(event(EventKind::SinglePhase, 5) && !event(EventKind::SinglePhase, 6));
        assert!(event(EventKind::Expired, 10) && !event(EventKind::Expired, 11));
        let account = |extent: Extent, timestamp| {
            extent.has_account(&Account { timestamp, ..Account::default() })
        };
        assert!(account(extent, 7) && !account(extent, 8));
        let earlier = Extent { last: 6, ..extent };
        assert!(account(earlier, 6) && !account(earlier, 7));
    }
}
