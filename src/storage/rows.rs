//! The rows of the logs: what the store keeps of every event.
//!
//! One *event* is everything that ever happens to a balance, and makes two rows with the same
//! number: a [`Transfer`] in the `transfers` log, and a [`BalanceRow`] in the `balances` log. They
//! are two streams because queries want transfers only, and a cache holds twice as many of them.
//!
//! Three kinds of event share the numbering:
//! * a created transfer, stored as it reads back;
//! * an expiry: a copy of the pending transfer with the expiry's own timestamp, marked with
//!   [`STORED_FLAG_EXPIRY`];
//! * a burnt id (an *orphan*): nothing but id and timestamp, ledger and code zero.
//!
//! Not covered: how rows become index entries (`store.rs`).

use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::protocol::types::Transfer;

/// Marks the `transfers` row of an expiry. The bit is reserved in every request, so no client can
/// set it, and it is cleared before a row leaves the ledger.
pub const STORED_FLAG_EXPIRY: u16 = 0x8000;

/// The four balances of an account, 64 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, packed(8))]
pub struct Balances {
    /// Reserved by pending transfers on the debit side.
    pub debits_pending: u128,
    /// Moved on the debit side, for good.
    pub debits_posted: u128,
    /// Reserved by pending transfers on the credit side.
    pub credits_pending: u128,
    /// Moved on the credit side, for good.
    pub credits_posted: u128,
}
const_assert_eq!(size_of::<Balances>(), 64);

/// The second half of an event: both accounts right after it, 136 bytes.
///
/// 30 of them fill the payload of a 4 KiB sector exactly, which is why the accounts' flags are
/// bytes and the pending row has 40 bits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, packed(8))]
pub struct BalanceRow {
    /// Balances of the debit account.
    pub debit: Balances,
    /// Balances of the credit account.
    pub credit: Balances,
    pending_row_low: u32,
    pending_row_high: u8,
    /// An [`EventKind`].
    pub kind: u8,
    /// Flags of the debit account.
    pub debit_flags: u8,
    /// Flags of the credit account.
    pub credit_flags: u8,
}
const_assert_eq!(size_of::<BalanceRow>(), 136);

/// Rows fit 40 bits: a trillion events.
pub const ROWS_MAX: u64 = 1 << 40;

impl BalanceRow {
    /// Row of the pending transfer that this event resolved; zero for the kinds that resolve none.
    #[must_use]
    pub fn pending_row(&self) -> u64 {
        (u64::from(self.pending_row_high) << 32) | u64::from(self.pending_row_low)
    }

    /// Sets the row of the pending transfer.
    ///
    /// # Panics
    /// When the row doesn't fit 40 bits.
    pub fn set_pending_row(&mut self, row: u64) {
        assert!(row < ROWS_MAX, "a row number has at most 40 bits");
        let bytes = row.to_le_bytes();
        self.pending_row_low = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        self.pending_row_high = bytes[4];
    }

    /// The kind of event, or `None` for a byte that no version ever wrote.
    #[must_use]
    pub fn event_kind(&self) -> Option<EventKind> {
        EventKind::from_byte(self.kind)
    }
}

/// What happened. The first five are the types of the change event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// A transfer that moved money at once.
    SinglePhase = 0,
    /// A transfer that reserved money.
    Pending = 1,
    /// A transfer that posted a pending one.
    Posted = 2,
    /// A transfer that voided a pending one.
    Voided = 3,
    /// A pending transfer that ran out of time.
    Expired = 4,
    /// No event at all: an id that failed transiently and must keep failing.
    Orphan = 5,
}

impl EventKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::SinglePhase),
            1 => Some(Self::Pending),
            2 => Some(Self::Posted),
            3 => Some(Self::Voided),
            4 => Some(Self::Expired),
            5 => Some(Self::Orphan),
            _ => None,
        }
    }

    /// Does an event of this kind end a pending transfer?
    #[must_use]
    pub fn resolves(self) -> bool {
        matches!(self, Self::Posted | Self::Voided | Self::Expired)
    }
}

/// Is this row of the `transfers` log a burnt id?
#[must_use]
pub fn is_orphan(transfer: &Transfer) -> bool {
    transfer.ledger == 0 && transfer.code == 0
}

/// Is this row of the `transfers` log an expiry?
#[must_use]
pub fn is_expiry(transfer: &Transfer) -> bool {
    transfer.flags & STORED_FLAG_EXPIRY != 0
}

/// Width of a slot of the expiry index: expiries are found by `expires_at >> EXPIRY_SLOT_BITS`
/// (134 ms), then sorted by the nanosecond.
///
/// Sketch: 1 M timed transfers a second that expire together make 134 k candidates a slot, which a
/// pulse reads once for each 8190 that it takes; a second would make it eight times as many.
pub const EXPIRY_SLOT_BITS: u32 = 27;

/// When a transfer expires in nanoseconds, if it does.
#[must_use]
pub fn expires_at(transfer: &Transfer) -> Option<u64> {
    if transfer.timeout == 0 {
        return None;
    }
    let timeout_ns = u64::from(transfer.timeout) * 1_000_000_000;
    Some(transfer.timestamp.saturating_add(timeout_ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    /// Goal: all 40 bits of a pending row survive the packed form, and no bit more is accepted.
    #[test]
    fn pending_row_round_trip() {
        let mut row = BalanceRow::default();
        for value in [0, 1, 0xFFFF_FFFF, 1 << 32, ROWS_MAX - 1] {
            row.set_pending_row(value);
            assert_eq!(row.pending_row(), value);
        }
        assert_eq!(row.kind, 0, "the neighbouring byte is untouched");
    }

    /// Goal: every kind reads back from its byte, every other byte is refused.
    #[test]
    fn event_kind_bytes() {
        for byte in 0..=u8::MAX {
            match EventKind::from_byte(byte) {
                Some(kind) => assert_eq!(kind as u8, byte),
                None => assert!(byte > 5),
            }
        }
    }

    /// Goal: the three kinds of row are told apart by the transfer alone.
    #[test]
    fn markers() {
        let mut transfer = Transfer::new_zeroed();
        assert!(is_orphan(&transfer));
        transfer.ledger = 1;
        transfer.code = 1;
        assert!(!is_orphan(&transfer));
        assert!(!is_expiry(&transfer));
        transfer.flags |= STORED_FLAG_EXPIRY;
        assert!(is_expiry(&transfer));
        assert_eq!(expires_at(&transfer), None);
        transfer.timeout = 2;
        transfer.timestamp = 5;
        assert_eq!(expires_at(&transfer), Some(2_000_000_005));
    }
}
