//! The records of the ledger and of registration, exactly as they travel.
//!
//! Every type here has a fixed little-endian layout without padding, checked when compiling, and
//! may be read from and written to bytes in place. Validity that depends only on a record itself
//! is here (filters); what an event does, and what it needs of others, is not.

use static_assertions::const_assert_eq;
use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Largest amount, and the amount that stands for "as much as possible".
pub const AMOUNT_MAX: u128 = u128::MAX;
/// Smallest valid timestamp in nanoseconds since the Unix epoch.
pub const TIMESTAMP_MIN: u64 = 1;
/// Largest valid timestamp in nanoseconds since the Unix epoch.
pub const TIMESTAMP_MAX: u64 = (1 << 63) - 1;

/// Bits of [`Account::flags`].
pub mod account_flags {
    /// Succeeds or fails together with the next event of the batch.
    pub const LINKED: u16 = 1;
    /// Debits may not exceed posted credits.
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: u16 = 2;
    /// Credits may not exceed posted debits.
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: u16 = 4;
    /// Balances after each transfer are kept and can be queried.
    pub const HISTORY: u16 = 8;
    /// The event brings its own timestamp.
    pub const IMPORTED: u16 = 16;
    /// No transfers but those that void a closing one.
    pub const CLOSED: u16 = 32;
    /// All bits with a meaning.
    pub const ALL: u16 = 63;
}

/// Bits of [`Transfer::flags`].
pub mod transfer_flags {
    /// Succeeds or fails together with the next event of the batch.
    pub const LINKED: u16 = 1;
    /// Reserves the amount until it is posted, voided or expired.
    pub const PENDING: u16 = 2;
    /// Posts a pending transfer.
    pub const POST_PENDING_TRANSFER: u16 = 4;
    /// Voids a pending transfer.
    pub const VOID_PENDING_TRANSFER: u16 = 8;
    /// At most what the debit account's limit allows.
    pub const BALANCING_DEBIT: u16 = 16;
    /// At most what the credit account's limit allows.
    pub const BALANCING_CREDIT: u16 = 32;
    /// Closes the debit account.
    pub const CLOSING_DEBIT: u16 = 64;
    /// Closes the credit account.
    pub const CLOSING_CREDIT: u16 = 128;
    /// The event brings its own timestamp.
    pub const IMPORTED: u16 = 256;
    /// All bits with a meaning.
    pub const ALL: u16 = 511;
}

/// Bits of [`AccountFilter::flags`].
pub mod account_filter_flags {
    /// Transfers that debit the account.
    pub const DEBITS: u32 = 1;
    /// Transfers that credit the account.
    pub const CREDITS: u32 = 2;
    /// Newest first.
    pub const REVERSED: u32 = 4;
    /// All bits with a meaning.
    pub const ALL: u32 = 7;
}

/// Bits of [`QueryFilter::flags`].
pub mod query_filter_flags {
    /// Newest first.
    pub const REVERSED: u32 = 1;
    /// All bits with a meaning.
    pub const ALL: u32 = 1;
}

/// Values of [`ChangeEvent::type_`].
pub mod change_event_type {
    /// A transfer in one step.
    pub const SINGLE_PHASE: u8 = 0;
    /// A pending transfer was made.
    pub const TWO_PHASE_PENDING: u8 = 1;
    /// A pending transfer was posted.
    pub const TWO_PHASE_POSTED: u8 = 2;
    /// A pending transfer was voided.
    pub const TWO_PHASE_VOIDED: u8 = 3;
    /// A pending transfer expired.
    pub const TWO_PHASE_EXPIRED: u8 = 4;
}

/// An account: 128 bytes, as created and as read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Account {
    /// Chosen by the client; neither zero nor all ones.
    pub id: u128,
    /// Sum of pending debits.
    pub debits_pending: u128,
    /// Sum of posted debits.
    pub debits_posted: u128,
    /// Sum of pending credits.
    pub credits_pending: u128,
    /// Sum of posted credits.
    pub credits_posted: u128,
    /// For the user.
    pub user_data_128: u128,
    /// For the user.
    pub user_data_64: u64,
    /// For the user.
    pub user_data_32: u32,
    /// Zero.
    pub reserved: u32,
    /// Only accounts of one ledger transact; not zero.
    pub ledger: u32,
    /// Kind of account, for the user; not zero.
    pub code: u16,
    /// See [`account_flags`].
    pub flags: u16,
    /// When it was created, in nanoseconds since the Unix epoch; unique among accounts.
    pub timestamp: u64,
}

impl Account {
    /// Returns the part that never changes: no balances, and no flag `closed`, which closing
    /// transfers set and clear.
    #[must_use]
    pub fn created(&self) -> Account {
        Account {
            debits_pending: 0,
            debits_posted: 0,
            credits_pending: 0,
            credits_posted: 0,
            flags: self.flags & !account_flags::CLOSED,
            ..*self
        }
    }
}

const_assert_eq!(size_of::<Account>(), 128);
const_assert_eq!(align_of::<Account>(), 16);
const_assert_eq!(offset_of!(Account, id), 0);
const_assert_eq!(offset_of!(Account, debits_pending), 16);
const_assert_eq!(offset_of!(Account, debits_posted), 32);
const_assert_eq!(offset_of!(Account, credits_pending), 48);
const_assert_eq!(offset_of!(Account, credits_posted), 64);
const_assert_eq!(offset_of!(Account, user_data_128), 80);
const_assert_eq!(offset_of!(Account, user_data_64), 96);
const_assert_eq!(offset_of!(Account, user_data_32), 104);
const_assert_eq!(offset_of!(Account, reserved), 108);
const_assert_eq!(offset_of!(Account, ledger), 112);
const_assert_eq!(offset_of!(Account, code), 116);
const_assert_eq!(offset_of!(Account, flags), 118);
const_assert_eq!(offset_of!(Account, timestamp), 120);

/// A transfer between two accounts: 128 bytes, as created and as read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Transfer {
    /// Chosen by the client; neither zero nor all ones.
    pub id: u128,
    /// The account whose debits grow.
    pub debit_account_id: u128,
    /// The account whose credits grow.
    pub credit_account_id: u128,
    /// What moves; as read, what really moved.
    pub amount: u128,
    /// The pending transfer to post or void, otherwise zero.
    pub pending_id: u128,
    /// For the user.
    pub user_data_128: u128,
    /// For the user.
    pub user_data_64: u64,
    /// For the user.
    pub user_data_32: u32,
    /// Seconds until a pending transfer expires; zero is never.
    pub timeout: u32,
    /// The ledger of both accounts.
    pub ledger: u32,
    /// Kind of transfer, for the user; not zero.
    pub code: u16,
    /// See [`transfer_flags`].
    pub flags: u16,
    /// When it was created, in nanoseconds since the Unix epoch; unique among transfers.
    pub timestamp: u64,
}

const_assert_eq!(size_of::<Transfer>(), 128);
const_assert_eq!(align_of::<Transfer>(), 16);
const_assert_eq!(offset_of!(Transfer, id), 0);
const_assert_eq!(offset_of!(Transfer, debit_account_id), 16);
const_assert_eq!(offset_of!(Transfer, credit_account_id), 32);
const_assert_eq!(offset_of!(Transfer, amount), 48);
const_assert_eq!(offset_of!(Transfer, pending_id), 64);
const_assert_eq!(offset_of!(Transfer, user_data_128), 80);
const_assert_eq!(offset_of!(Transfer, user_data_64), 96);
const_assert_eq!(offset_of!(Transfer, user_data_32), 104);
const_assert_eq!(offset_of!(Transfer, timeout), 108);
const_assert_eq!(offset_of!(Transfer, ledger), 112);
const_assert_eq!(offset_of!(Transfer, code), 116);
const_assert_eq!(offset_of!(Transfer, flags), 118);
const_assert_eq!(offset_of!(Transfer, timestamp), 120);

/// What became of one event of a create operation: 16 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct CreateResult {
    /// Of the record created or already there, else what the event would have received.
    pub timestamp: u64,
    /// A [`CreateAccountStatus`](super::status::CreateAccountStatus) or
    /// [`CreateTransferStatus`](super::status::CreateTransferStatus).
    pub status: u32,
    /// Zero.
    pub reserved: u32,
}

const_assert_eq!(size_of::<CreateResult>(), 16);
const_assert_eq!(offset_of!(CreateResult, timestamp), 0);
const_assert_eq!(offset_of!(CreateResult, status), 8);
const_assert_eq!(offset_of!(CreateResult, reserved), 12);

/// Which transfers or balances of one account to read: 128 bytes. Zero in a field selects all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AccountFilter {
    /// The account.
    pub account_id: u128,
    /// Equal to this, unless zero.
    pub user_data_128: u128,
    /// Equal to this, unless zero.
    pub user_data_64: u64,
    /// Equal to this, unless zero.
    pub user_data_32: u32,
    /// Equal to this, unless zero.
    pub code: u16,
    /// Zero.
    pub reserved: [u8; 58],
    /// First timestamp, unless zero.
    pub timestamp_min: u64,
    /// Last timestamp, unless zero.
    pub timestamp_max: u64,
    /// Results wanted at most; not zero.
    pub limit: u32,
    /// See [`account_filter_flags`].
    pub flags: u32,
}

const_assert_eq!(size_of::<AccountFilter>(), 128);
const_assert_eq!(offset_of!(AccountFilter, account_id), 0);
const_assert_eq!(offset_of!(AccountFilter, user_data_128), 16);
const_assert_eq!(offset_of!(AccountFilter, user_data_64), 32);
const_assert_eq!(offset_of!(AccountFilter, user_data_32), 40);
const_assert_eq!(offset_of!(AccountFilter, code), 44);
const_assert_eq!(offset_of!(AccountFilter, reserved), 46);
const_assert_eq!(offset_of!(AccountFilter, timestamp_min), 104);
const_assert_eq!(offset_of!(AccountFilter, timestamp_max), 112);
const_assert_eq!(offset_of!(AccountFilter, limit), 120);
const_assert_eq!(offset_of!(AccountFilter, flags), 124);

/// Which accounts or transfers to read: 64 bytes. Zero in a field selects all.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct QueryFilter {
    /// Equal to this, unless zero.
    pub user_data_128: u128,
    /// Equal to this, unless zero.
    pub user_data_64: u64,
    /// Equal to this, unless zero.
    pub user_data_32: u32,
    /// Equal to this, unless zero.
    pub ledger: u32,
    /// Equal to this, unless zero.
    pub code: u16,
    /// Zero.
    pub reserved: [u8; 6],
    /// First timestamp, unless zero.
    pub timestamp_min: u64,
    /// Last timestamp, unless zero.
    pub timestamp_max: u64,
    /// Results wanted at most; not zero.
    pub limit: u32,
    /// See [`query_filter_flags`].
    pub flags: u32,
}

const_assert_eq!(size_of::<QueryFilter>(), 64);
const_assert_eq!(offset_of!(QueryFilter, user_data_128), 0);
const_assert_eq!(offset_of!(QueryFilter, user_data_64), 16);
const_assert_eq!(offset_of!(QueryFilter, user_data_32), 24);
const_assert_eq!(offset_of!(QueryFilter, ledger), 28);
const_assert_eq!(offset_of!(QueryFilter, code), 32);
const_assert_eq!(offset_of!(QueryFilter, reserved), 34);
const_assert_eq!(offset_of!(QueryFilter, timestamp_min), 40);
const_assert_eq!(offset_of!(QueryFilter, timestamp_max), 48);
const_assert_eq!(offset_of!(QueryFilter, limit), 56);
const_assert_eq!(offset_of!(QueryFilter, flags), 60);

/// The balances of an account after one transfer: 128 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AccountBalance {
    /// Sum of pending debits.
    pub debits_pending: u128,
    /// Sum of posted debits.
    pub debits_posted: u128,
    /// Sum of pending credits.
    pub credits_pending: u128,
    /// Sum of posted credits.
    pub credits_posted: u128,
    /// Of the transfer that led to these balances.
    pub timestamp: u64,
    /// Zero.
    pub reserved: [u8; 56],
}

const_assert_eq!(size_of::<AccountBalance>(), 128);
const_assert_eq!(offset_of!(AccountBalance, debits_pending), 0);
const_assert_eq!(offset_of!(AccountBalance, debits_posted), 16);
const_assert_eq!(offset_of!(AccountBalance, credits_pending), 32);
const_assert_eq!(offset_of!(AccountBalance, credits_posted), 48);
const_assert_eq!(offset_of!(AccountBalance, timestamp), 64);
const_assert_eq!(offset_of!(AccountBalance, reserved), 72);

/// Which change events to read, in ascending order: 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ChangeEventsFilter {
    /// First timestamp, unless zero.
    pub timestamp_min: u64,
    /// Last timestamp, unless zero.
    pub timestamp_max: u64,
    /// Results wanted at most; not zero.
    pub limit: u32,
    /// Zero.
    pub reserved: [u8; 44],
}

const_assert_eq!(size_of::<ChangeEventsFilter>(), 64);
const_assert_eq!(offset_of!(ChangeEventsFilter, timestamp_min), 0);
const_assert_eq!(offset_of!(ChangeEventsFilter, timestamp_max), 8);
const_assert_eq!(offset_of!(ChangeEventsFilter, limit), 16);
const_assert_eq!(offset_of!(ChangeEventsFilter, reserved), 20);

/// A transfer's effect with both accounts as they were after it: 384 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ChangeEvent {
    /// As in [`Transfer`]; of the pending transfer for an expiry.
    pub transfer_id: u128,
    /// What really moved.
    pub transfer_amount: u128,
    /// As in [`Transfer`].
    pub transfer_pending_id: u128,
    /// As in [`Transfer`].
    pub transfer_user_data_128: u128,
    /// As in [`Transfer`].
    pub transfer_user_data_64: u64,
    /// As in [`Transfer`].
    pub transfer_user_data_32: u32,
    /// As in [`Transfer`].
    pub transfer_timeout: u32,
    /// As in [`Transfer`].
    pub transfer_code: u16,
    /// As in [`Transfer`].
    pub transfer_flags: u16,
    /// Of the transfer and both accounts.
    pub ledger: u32,
    /// See [`change_event_type`].
    pub type_: u8,
    /// Zero.
    pub reserved: [u8; 39],
    /// The debit account.
    pub debit_account_id: u128,
    /// Balance of the debit account after the event.
    pub debit_account_debits_pending: u128,
    /// Balance of the debit account after the event.
    pub debit_account_debits_posted: u128,
    /// Balance of the debit account after the event.
    pub debit_account_credits_pending: u128,
    /// Balance of the debit account after the event.
    pub debit_account_credits_posted: u128,
    /// As in the debit [`Account`].
    pub debit_account_user_data_128: u128,
    /// As in the debit [`Account`].
    pub debit_account_user_data_64: u64,
    /// As in the debit [`Account`].
    pub debit_account_user_data_32: u32,
    /// As in the debit [`Account`].
    pub debit_account_code: u16,
    /// As in the debit [`Account`], after the event.
    pub debit_account_flags: u16,
    /// The credit account.
    pub credit_account_id: u128,
    /// Balance of the credit account after the event.
    pub credit_account_debits_pending: u128,
    /// Balance of the credit account after the event.
    pub credit_account_debits_posted: u128,
    /// Balance of the credit account after the event.
    pub credit_account_credits_pending: u128,
    /// Balance of the credit account after the event.
    pub credit_account_credits_posted: u128,
    /// As in the credit [`Account`].
    pub credit_account_user_data_128: u128,
    /// As in the credit [`Account`].
    pub credit_account_user_data_64: u64,
    /// As in the credit [`Account`].
    pub credit_account_user_data_32: u32,
    /// As in the credit [`Account`].
    pub credit_account_code: u16,
    /// As in the credit [`Account`], after the event.
    pub credit_account_flags: u16,
    /// Of the event.
    pub timestamp: u64,
    /// Of the transfer: the event's own, but for an expiry the pending transfer's.
    pub transfer_timestamp: u64,
    /// Of the debit account's creation.
    pub debit_account_timestamp: u64,
    /// Of the credit account's creation.
    pub credit_account_timestamp: u64,
}

const_assert_eq!(size_of::<ChangeEvent>(), 384);
const_assert_eq!(offset_of!(ChangeEvent, transfer_id), 0);
const_assert_eq!(offset_of!(ChangeEvent, transfer_amount), 16);
const_assert_eq!(offset_of!(ChangeEvent, transfer_pending_id), 32);
const_assert_eq!(offset_of!(ChangeEvent, transfer_user_data_128), 48);
const_assert_eq!(offset_of!(ChangeEvent, transfer_user_data_64), 64);
const_assert_eq!(offset_of!(ChangeEvent, transfer_user_data_32), 72);
const_assert_eq!(offset_of!(ChangeEvent, transfer_timeout), 76);
const_assert_eq!(offset_of!(ChangeEvent, transfer_code), 80);
const_assert_eq!(offset_of!(ChangeEvent, transfer_flags), 82);
const_assert_eq!(offset_of!(ChangeEvent, ledger), 84);
const_assert_eq!(offset_of!(ChangeEvent, type_), 88);
const_assert_eq!(offset_of!(ChangeEvent, reserved), 89);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_id), 128);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_debits_pending), 144);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_debits_posted), 160);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_credits_pending), 176);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_credits_posted), 192);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_user_data_128), 208);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_user_data_64), 224);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_user_data_32), 232);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_code), 236);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_flags), 238);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_id), 240);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_debits_pending), 256);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_debits_posted), 272);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_credits_pending), 288);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_credits_posted), 304);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_user_data_128), 320);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_user_data_64), 336);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_user_data_32), 344);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_code), 348);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_flags), 350);
const_assert_eq!(offset_of!(ChangeEvent, timestamp), 352);
const_assert_eq!(offset_of!(ChangeEvent, transfer_timestamp), 360);
const_assert_eq!(offset_of!(ChangeEvent, debit_account_timestamp), 368);
const_assert_eq!(offset_of!(ChangeEvent, credit_account_timestamp), 376);

/// Body of a register request: 256 bytes, all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisterRequest {
    /// Zero from a client.
    pub batch_size_limit: u32,
    /// Zero.
    pub reserved: [u8; 252],
}

const_assert_eq!(size_of::<RegisterRequest>(), 256);
const_assert_eq!(offset_of!(RegisterRequest, batch_size_limit), 0);
const_assert_eq!(offset_of!(RegisterRequest, reserved), 4);

/// Body of a register reply: 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisterResult {
    /// Largest request body the server accepts, in bytes.
    pub batch_size_limit: u32,
    /// Zero.
    pub reserved: [u8; 60],
}

const_assert_eq!(size_of::<RegisterResult>(), 64);
const_assert_eq!(offset_of!(RegisterResult, batch_size_limit), 0);
const_assert_eq!(offset_of!(RegisterResult, reserved), 4);

/// Whether each bound is absent (zero) or a valid timestamp, and they are in order.
fn range_is_valid(timestamp_min: u64, timestamp_max: u64) -> bool {
    let ordered = timestamp_max == 0 || timestamp_min <= timestamp_max;
    timestamp_min <= TIMESTAMP_MAX && timestamp_max <= TIMESTAMP_MAX && ordered
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

impl AccountFilter {
    /// Whether the filter may select anything; an invalid one gives an empty result.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let sides = account_filter_flags::DEBITS | account_filter_flags::CREDITS;
        self.account_id != 0
            && self.account_id != u128::MAX
            && range_is_valid(self.timestamp_min, self.timestamp_max)
            && self.limit != 0
            && self.flags & sides != 0
            && self.flags & !account_filter_flags::ALL == 0
            && is_zero(&self.reserved)
    }
}

impl QueryFilter {
    /// Whether the filter may select anything; an invalid one gives an empty result.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        range_is_valid(self.timestamp_min, self.timestamp_max)
            && self.limit != 0
            && self.flags & !query_filter_flags::ALL == 0
            && is_zero(&self.reserved)
    }
}

impl ChangeEventsFilter {
    /// Whether the filter may select anything; an invalid one gives an empty result.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        range_is_valid(self.timestamp_min, self.timestamp_max)
            && self.limit != 0
            && is_zero(&self.reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn account_filter() -> AccountFilter {
        AccountFilter {
            account_id: 1,
            limit: 1,
            flags: account_filter_flags::DEBITS,
            ..AccountFilter::new_zeroed()
        }
    }

    fn query_filter() -> QueryFilter {
        QueryFilter { limit: 1, ..QueryFilter::new_zeroed() }
    }

    fn change_events_filter() -> ChangeEventsFilter {
        ChangeEventsFilter { limit: 1, ..ChangeEventsFilter::new_zeroed() }
    }

    /// Bounds that are right, and bounds that are not.
    const RANGES_VALID: [(u64, u64); 7] = [
        (0, 0),
        (1, 0),
        (0, 1),
        (5, 5),
        (TIMESTAMP_MAX, 0),
        (TIMESTAMP_MAX, TIMESTAMP_MAX),
        (1, TIMESTAMP_MAX),
    ];
    const RANGES_INVALID: [(u64, u64); 6] = [
        (2, 1),
        (TIMESTAMP_MAX + 1, 0),
        (0, TIMESTAMP_MAX + 1),
        (u64::MAX, 0),
        (1, u64::MAX),
        (TIMESTAMP_MAX + 1, TIMESTAMP_MAX + 1),
    ];

    /// Goal: each rule of an account filter refuses when broken alone.
    #[test]
    fn account_filter_rules() {
        assert!(account_filter().is_valid());
        assert!(AccountFilter { flags: account_filter_flags::ALL, ..account_filter() }.is_valid());
        assert!(!AccountFilter { account_id: 0, ..account_filter() }.is_valid());
        assert!(!AccountFilter { account_id: u128::MAX, ..account_filter() }.is_valid());
        assert!(AccountFilter { account_id: u128::MAX - 1, ..account_filter() }.is_valid());
        assert!(!AccountFilter { limit: 0, ..account_filter() }.is_valid());
        for flags in [0, account_filter_flags::REVERSED, 8 | 1, 1 << 31 | 2] {
            assert!(!AccountFilter { flags, ..account_filter() }.is_valid(), "flags {flags}");
        }
        for index in 0..58 {
            let mut filter = account_filter();
            filter.reserved[index] = 1;
            assert!(!filter.is_valid(), "reserved {index}");
        }
    }

    /// Goal: each rule of a query filter refuses when broken alone.
    #[test]
    fn query_filter_rules() {
        assert!(query_filter().is_valid());
        assert!(QueryFilter { flags: query_filter_flags::REVERSED, ..query_filter() }.is_valid());
        assert!(!QueryFilter { limit: 0, ..query_filter() }.is_valid());
        for flags in [2, 3, 1 << 31] {
            assert!(!QueryFilter { flags, ..query_filter() }.is_valid(), "flags {flags}");
        }
        for index in 0..6 {
            let mut filter = query_filter();
            filter.reserved[index] = 1;
            assert!(!filter.is_valid(), "reserved {index}");
        }
    }

    /// Goal: each rule of a change events filter refuses when broken alone.
    #[test]
    fn change_events_filter_rules() {
        assert!(change_events_filter().is_valid());
        assert!(!ChangeEventsFilter { limit: 0, ..change_events_filter() }.is_valid());
        for index in 0..44 {
            let mut filter = change_events_filter();
            filter.reserved[index] = 1;
            assert!(!filter.is_valid(), "reserved {index}");
        }
    }

    /// Goal: all three filters judge time bounds alike.
    #[test]
    fn ranges() {
        let cases = RANGES_VALID.iter().map(|range| (range, true));
        for ((timestamp_min, timestamp_max), valid) in
            cases.chain(RANGES_INVALID.iter().map(|range| (range, false)))
        {
            let (timestamp_min, timestamp_max) = (*timestamp_min, *timestamp_max);
            let account = AccountFilter { timestamp_min, timestamp_max, ..account_filter() };
            let query = QueryFilter { timestamp_min, timestamp_max, ..query_filter() };
            let change =
                ChangeEventsFilter { timestamp_min, timestamp_max, ..change_events_filter() };
            let answers = [account.is_valid(), query.is_valid(), change.is_valid()];
            assert_eq!(answers, [valid; 3], "{timestamp_min}..{timestamp_max}");
        }
    }

    /// Goal: the flag masks are exactly the union of the named bits.
    #[test]
    fn flag_masks() {
        use {account_flags as account, transfer_flags as transfer};
        let account_bits = account::LINKED
            | account::DEBITS_MUST_NOT_EXCEED_CREDITS
            | account::CREDITS_MUST_NOT_EXCEED_DEBITS
            | account::HISTORY
            | account::IMPORTED
            | account::CLOSED;
        assert_eq!(account_bits, account::ALL);
        let transfer_bits = transfer::LINKED
            | transfer::PENDING
            | transfer::POST_PENDING_TRANSFER
            | transfer::VOID_PENDING_TRANSFER
            | transfer::BALANCING_DEBIT
            | transfer::BALANCING_CREDIT
            | transfer::CLOSING_DEBIT
            | transfer::CLOSING_CREDIT
            | transfer::IMPORTED;
        assert_eq!(transfer_bits, transfer::ALL);
    }
}
