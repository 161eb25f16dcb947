//! The rows of exports: records with the fields that become columns.

use std::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::protocol::types::{Account, Transfer, transfer_flags};
use crate::repl::schema::{ACCOUNT_FLAGS, Field, Kind, Record, TRANSFER};

/// The balances of an account at a moment: a row of 96 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct BalanceAt {
    /// The account.
    pub account_id: u128,
    /// Sum of pending debits.
    pub debits_pending: u128,
    /// Sum of posted debits.
    pub debits_posted: u128,
    /// Sum of pending credits.
    pub credits_pending: u128,
    /// Sum of posted credits.
    pub credits_posted: u128,
    /// Timestamp of the account's last event, or of its creation.
    pub timestamp: u64,
    /// The account's ledger.
    pub ledger: u32,
    /// The account's code.
    pub code: u16,
    /// The account's flags at that moment, `closed` included.
    pub flags: u16,
}

const_assert_eq!(size_of::<BalanceAt>(), 96);

impl BalanceAt {
    /// Returns the balances of an account before its first event.
    #[must_use]
    pub fn of_new(account: &Account) -> BalanceAt {
        BalanceAt {
            account_id: account.id,
            timestamp: account.timestamp,
            ledger: account.ledger,
            code: account.code,
            flags: account.flags,
            ..BalanceAt::default()
        }
    }
}

const fn field(name: &'static str, kind: Kind, offset: usize, size: usize) -> Field {
    Field { name, kind, offset, size, about: "" }
}

/// Balances at a moment.
pub static BALANCE_AT: Record = Record {
    name: "balance",
    plural: "balances",
    size: size_of::<BalanceAt>(),
    fields: &[
        field("account_id", Kind::Number, offset_of!(BalanceAt, account_id), 16),
        field("ledger", Kind::Number, offset_of!(BalanceAt, ledger), 4),
        field("code", Kind::Number, offset_of!(BalanceAt, code), 2),
        field("flags", Kind::Flags(ACCOUNT_FLAGS), offset_of!(BalanceAt, flags), 2),
        field("debits_pending", Kind::Balance, offset_of!(BalanceAt, debits_pending), 16),
        field("debits_posted", Kind::Balance, offset_of!(BalanceAt, debits_posted), 16),
        field("credits_pending", Kind::Balance, offset_of!(BalanceAt, credits_pending), 16),
        field("credits_posted", Kind::Balance, offset_of!(BalanceAt, credits_posted), 16),
        field("timestamp", Kind::Timestamp, offset_of!(BalanceAt, timestamp), 8),
    ],
};

/// A transfer with the amount that it posted: a row of 144 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct TransferMoved {
    /// The transfer.
    pub transfer: Transfer,
    /// The amount that it added to the posted balances of its accounts.
    pub posted_amount: u128,
}

const_assert_eq!(size_of::<TransferMoved>(), 144);

impl TransferMoved {
    /// Returns the transfer with the amount that it posted: 0 if it is pending or voids one.
    #[must_use]
    pub fn new(transfer: &Transfer) -> TransferMoved {
        let nothing = transfer_flags::PENDING | transfer_flags::VOID_PENDING_TRANSFER;
        let posted_amount = if transfer.flags & nothing == 0 { transfer.amount } else { 0 };
        TransferMoved { transfer: *transfer, posted_amount }
    }
}

const TRANSFER_FIELDS: usize = 13;

/// The fields of a transfer, followed by the amount that it posted.
static TRANSFER_MOVED_FIELDS: [Field; TRANSFER_FIELDS + 1] = {
    let posted = offset_of!(TransferMoved, posted_amount);
    let mut fields = [field("posted_amount", Kind::Balance, posted, 16); TRANSFER_FIELDS + 1];
    assert!(TRANSFER.fields.len() == TRANSFER_FIELDS, "all fields of a transfer are exported");
    let mut index = 0;
    while index < TRANSFER_FIELDS {
        fields[index] = TRANSFER.fields[index];
        index += 1;
    }
    fields
};

/// Transfers with the amounts that they posted.
pub static TRANSFER_MOVED: Record = Record {
    name: "transfer",
    plural: "transfers",
    size: size_of::<TransferMoved>(),
    fields: &TRANSFER_MOVED_FIELDS,
};

/// An account without balances and `closed`: see [`Account::created`].
pub static ACCOUNT_CREATED: Record = Record {
    name: "account",
    plural: "accounts",
    size: size_of::<Account>(),
    fields: &[
        field("id", Kind::Number, offset_of!(Account, id), 16),
        field("user_data_128", Kind::Number, offset_of!(Account, user_data_128), 16),
        field("user_data_64", Kind::Number, offset_of!(Account, user_data_64), 8),
        field("user_data_32", Kind::Number, offset_of!(Account, user_data_32), 4),
        field("ledger", Kind::Number, offset_of!(Account, ledger), 4),
        field("code", Kind::Number, offset_of!(Account, code), 2),
        field("flags", Kind::Flags(ACCOUNT_FLAGS), offset_of!(Account, flags), 2),
        field("timestamp", Kind::Timestamp, offset_of!(Account, timestamp), 8),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::account_flags;

    /// Goal: a row shows the numbers of its structure; a created account has no balances and is not
    /// closed.
    #[test]
    fn fields_are_where_they_are() {
        let account = Account {
            id: 1,
            debits_posted: 5,
            ledger: 2,
            code: 3,
            flags: account_flags::CLOSED | account_flags::HISTORY,
            timestamp: 4,
            ..Account::default()
        };
        let row = BalanceAt { credits_posted: 9, ..BalanceAt::of_new(&account) };
        let read = |name: &str| BALANCE_AT.field(name).unwrap().read(row.as_bytes());
        let names = ["account_id", "ledger", "code", "timestamp", "credits_posted", "flags"];
        assert_eq!(names.map(read), [1, 2, 3, 4, 9, 40]);
        let created = account.created();
        assert_eq!((created.debits_posted, created.flags), (0, account_flags::HISTORY));
    }

    /// Goal: a transfer posts its amount, unless it is pending or voids a pending transfer.
    #[test]
    fn what_moved() {
        for (flags, moved) in [
            (0, 7),
            (transfer_flags::PENDING, 0),
            (transfer_flags::POST_PENDING_TRANSFER, 7),
            (transfer_flags::VOID_PENDING_TRANSFER, 0),
            (transfer_flags::IMPORTED | transfer_flags::BALANCING_DEBIT, 7),
        ] {
            let row = TransferMoved::new(&Transfer { amount: 7, flags, ..Transfer::default() });
            let field = TRANSFER_MOVED.field("posted_amount").unwrap();
            assert_eq!(field.read(row.as_bytes()), moved, "{flags}");
            assert_eq!(TRANSFER_MOVED.field("amount").unwrap().read(row.as_bytes()), 7);
        }
    }
}
