//! When a pending transfer may be posted or voided, and the transfer that comes of it.
//!
//! Pure, like `transfer_rules.rs`; here too the order of the conditions is what clients see.

use crate::protocol::status::CreateTransferStatus as Status;
use crate::protocol::types::{Account, Transfer, account_flags, transfer_flags};
use crate::storage::rows::{EventKind, expires_at};

use super::transfer_rules::{ImportFacts, has};

/// Whether the event is meant to post or to void.
#[inline]
pub(super) fn is_post_or_void(event: &Transfer) -> bool {
    const BOTH: u16 = transfer_flags::POST_PENDING_TRANSFER | transfer_flags::VOID_PENDING_TRANSFER;
    has(event.flags, BOTH)
}

fn is_void(event: &Transfer) -> bool {
    has(event.flags, transfer_flags::VOID_PENDING_TRANSFER)
}

/// Rows 7 to 11: what the event says about itself. Row 12, that the transfer exists, follows.
pub(super) fn check_event(event: &Transfer) -> Result<(), Status> {
    const OTHERS: u16 = transfer_flags::PENDING
        | transfer_flags::BALANCING_DEBIT
        | transfer_flags::BALANCING_CREDIT
        | transfer_flags::CLOSING_DEBIT
        | transfer_flags::CLOSING_CREDIT;
    let posts = has(event.flags, transfer_flags::POST_PENDING_TRANSFER);
    if (posts && is_void(event)) || has(event.flags, OTHERS) {
        return Err(Status::FlagsAreMutuallyExclusive);
    }
    if event.pending_id == 0 {
        return Err(Status::PendingIdMustNotBeZero);
    }
    if event.pending_id == u128::MAX {
        return Err(Status::PendingIdMustNotBeIntMax);
    }
    if event.pending_id == event.id {
        return Err(Status::PendingIdMustBeDifferent);
    }
    if event.timeout != 0 {
        return Err(Status::TimeoutReservedForPendingTransfer);
    }
    Ok(())
}

/// The amount that the event stands for, given the pending transfer's.
pub(super) fn amount(event: &Transfer, pending: &Transfer) -> u128 {
    let stands_for_all = if is_void(event) { 0 } else { u128::MAX };
    if event.amount == stands_for_all { pending.amount } else { event.amount }
}

/// Rows 13 to 19: whether the event fits the pending transfer. Gives the amount.
pub(super) fn check_pending(event: &Transfer, pending: &Transfer) -> Result<u128, Status> {
    if !has(pending.flags, transfer_flags::PENDING) {
        return Err(Status::PendingTransferNotPending);
    }
    if event.debit_account_id != 0 && event.debit_account_id != pending.debit_account_id {
        return Err(Status::PendingTransferHasDifferentDebitAccountId);
    }
    if event.credit_account_id != 0 && event.credit_account_id != pending.credit_account_id {
        return Err(Status::PendingTransferHasDifferentCreditAccountId);
    }
    if event.ledger != 0 && event.ledger != pending.ledger {
        return Err(Status::PendingTransferHasDifferentLedger);
    }
    if event.code != 0 && event.code != pending.code {
        return Err(Status::PendingTransferHasDifferentCode);
    }
    let amount = amount(event, pending);
    if amount > pending.amount {
        return Err(Status::ExceedsPendingTransferAmount);
    }
    if is_void(event) && amount < pending.amount {
        return Err(Status::PendingTransferHasDifferentAmount);
    }
    Ok(amount)
}

/// Rows 20 to 22: whether the pending transfer is still open at the time of the event.
pub(super) fn check_open(
    pending: &Transfer,
    resolution: Option<EventKind>,
    event_timestamp: u64,
) -> Result<(), Status> {
    match resolution {
        Some(EventKind::Posted) => return Err(Status::PendingTransferAlreadyPosted),
        Some(EventKind::Voided) => return Err(Status::PendingTransferAlreadyVoided),
        Some(EventKind::Expired) => return Err(Status::PendingTransferExpired),
        Some(EventKind::SinglePhase | EventKind::Pending | EventKind::Orphan) => {
            unreachable!("only a post, a void and an expiry resolve a pending transfer")
        }
        None => {}
    }
    if expires_at(pending).is_some_and(|expires_at| event_timestamp >= expires_at) {
        return Err(Status::PendingTransferExpired);
    }
    Ok(())
}

/// Rows 23 to 25: import and closed accounts.
pub(super) fn check_accounts(
    event: &Transfer,
    debit: &Account,
    credit: &Account,
    import: &ImportFacts,
) -> Result<(), Status> {
    if has(event.flags, transfer_flags::IMPORTED) && import.regresses(event) {
        return Err(Status::ImportedEventTimestampMustNotRegress);
    }
    if !is_void(event) {
        if has(debit.flags, account_flags::CLOSED) {
            return Err(Status::DebitAccountAlreadyClosed);
        }
        if has(credit.flags, account_flags::CLOSED) {
            return Err(Status::CreditAccountAlreadyClosed);
        }
    }
    Ok(())
}

/// The transfer as it is stored.
pub(super) fn stored(
    event: &Transfer,
    pending: &Transfer,
    amount: u128,
    timestamp: u64,
) -> Transfer {
    let inherit_128 = event.user_data_128 == 0;
    let inherit_64 = event.user_data_64 == 0;
    let inherit_32 = event.user_data_32 == 0;
    Transfer {
        id: event.id,
        debit_account_id: pending.debit_account_id,
        credit_account_id: pending.credit_account_id,
        amount,
        pending_id: event.pending_id,
        user_data_128: if inherit_128 { pending.user_data_128 } else { event.user_data_128 },
        user_data_64: if inherit_64 { pending.user_data_64 } else { event.user_data_64 },
        user_data_32: if inherit_32 { pending.user_data_32 } else { event.user_data_32 },
        timeout: 0,
        ledger: pending.ledger,
        code: pending.code,
        flags: event.flags,
        timestamp,
    }
}

/// What the event does: the kind that is recorded.
pub(super) fn kind(event: &Transfer) -> EventKind {
    if is_void(event) { EventKind::Voided } else { EventKind::Posted }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Transfer {
        Transfer {
            id: 1,
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 5,
            user_data_64: 7,
            timeout: 1,
            ledger: 1,
            code: 1,
            flags: transfer_flags::PENDING,
            timestamp: 100,
            ..Transfer::default()
        }
    }

    const POST: u16 = transfer_flags::POST_PENDING_TRANSFER;
    const VOID: u16 = transfer_flags::VOID_PENDING_TRANSFER;

    /// Goal: each of the event's own rules hides all later ones.
    #[test]
    fn event_precedence() {
        let mut event = Transfer { id: 2, timeout: 1, flags: POST | VOID, ..Transfer::default() };
        assert_eq!(check_event(&event), Err(Status::FlagsAreMutuallyExclusive));
        for bit in [1, 4, 5, 6, 7] {
            for kind in [POST, VOID] {
                event.flags = kind | 1 << bit;
                assert_eq!(check_event(&event), Err(Status::FlagsAreMutuallyExclusive));
            }
        }
        event.flags = POST | transfer_flags::LINKED | transfer_flags::IMPORTED;
        assert_eq!(check_event(&event), Err(Status::PendingIdMustNotBeZero));
        event.pending_id = u128::MAX;
        assert_eq!(check_event(&event), Err(Status::PendingIdMustNotBeIntMax));
        event.pending_id = 2;
        assert_eq!(check_event(&event), Err(Status::PendingIdMustBeDifferent));
        event.pending_id = 1;
        assert_eq!(check_event(&event), Err(Status::TimeoutReservedForPendingTransfer));
        event.timeout = 0;
        assert_eq!(check_event(&event), Ok(()));
    }

    /// Goal: each rule about the pending transfer hides all later ones.
    #[test]
    fn pending_precedence() {
        let mut pending = Transfer { flags: 0, ..pending() };
        let mut event = Transfer {
            debit_account_id: 8,
            credit_account_id: 9,
            amount: 6,
            ledger: 6,
            code: 7,
            flags: POST,
            ..Transfer::default()
        };
        assert_eq!(check_pending(&event, &pending), Err(Status::PendingTransferNotPending));
        pending.flags = transfer_flags::PENDING;
        let mut expect = |change: fn(&mut Transfer), status| {
            assert_eq!(check_pending(&event, &pending), Err(status));
            change(&mut event);
        };
        let status = Status::PendingTransferHasDifferentDebitAccountId;
        expect(|e| e.debit_account_id = 0, status);
        let status = Status::PendingTransferHasDifferentCreditAccountId;
        expect(|e| e.credit_account_id = 2, status);
        expect(|e| e.ledger = 0, Status::PendingTransferHasDifferentLedger);
        expect(|e| e.code = 1, Status::PendingTransferHasDifferentCode);
        expect(|e| e.flags = VOID, Status::ExceedsPendingTransferAmount);
        expect(|e| e.amount = u128::MAX, Status::ExceedsPendingTransferAmount);
        expect(|e| e.amount = 4, Status::ExceedsPendingTransferAmount);
        expect(|e| e.amount = 0, Status::PendingTransferHasDifferentAmount);
        assert_eq!(check_pending(&event, &pending), Ok(5), "void: zero is all");
        event.flags = POST;
        assert_eq!(check_pending(&event, &pending), Ok(0), "post: zero is zero");
        event.amount = u128::MAX;
        assert_eq!(check_pending(&event, &pending), Ok(5), "post: the maximum is all");
    }

    /// Goal: the moment of expiry counts as expired, a nanosecond before does not.
    #[test]
    fn open() {
        let pending = pending();
        assert_eq!(check_open(&pending, None, 1_000_000_099), Ok(()));
        assert_eq!(check_open(&pending, None, 1_000_000_100), Err(Status::PendingTransferExpired));
        let posted = Some(EventKind::Posted);
        let status = Status::PendingTransferAlreadyPosted;
        assert_eq!(check_open(&pending, posted, 2_000_000_000), Err(status));
        let expired = Some(EventKind::Expired);
        assert_eq!(check_open(&pending, expired, 1), Err(Status::PendingTransferExpired));
        let forever = Transfer { timeout: 0, ..pending };
        assert_eq!(check_open(&forever, None, u64::MAX), Ok(()));
    }

    /// Goal: closed accounts stop posts only, after the import rule.
    #[test]
    fn accounts() {
        let open = Account::default();
        let closed = Account { flags: account_flags::CLOSED, ..open };
        let late = ImportFacts { transfer_timestamp_max: 9, timestamp_is_taken: false };
        let post = Transfer { flags: POST, ..Transfer::default() };
        let void = Transfer { flags: VOID, ..Transfer::default() };
        let imported = Transfer {
            flags: POST | transfer_flags::IMPORTED,
            timestamp: 9,
            ..Transfer::default()
        };
        let check = check_accounts;
        let status = Status::ImportedEventTimestampMustNotRegress;
        assert_eq!(check(&imported, &closed, &closed, &late), Err(status));
        assert_eq!(check(&post, &closed, &closed, &late), Err(Status::DebitAccountAlreadyClosed));
        assert_eq!(check(&post, &open, &closed, &late), Err(Status::CreditAccountAlreadyClosed));
        assert_eq!(check(&post, &open, &open, &late), Ok(()));
        assert_eq!(check(&void, &closed, &closed, &late), Ok(()));
    }

    /// Goal: zero user data is inherited, other is kept; flags and pending id are the event's.
    #[test]
    fn stored_fields() {
        let event = Transfer {
            id: 3,
            amount: u128::MAX,
            pending_id: 1,
            user_data_32: 4,
            flags: POST,
            ..Transfer::default()
        };
        let stored = stored(&event, &pending(), 5, 200);
        let expected = Transfer {
            id: 3,
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 5,
            pending_id: 1,
            user_data_64: 7,
            user_data_32: 4,
            ledger: 1,
            code: 1,
            flags: POST,
            timestamp: 200,
            ..Transfer::default()
        };
        assert_eq!(stored, expected);
    }
}
