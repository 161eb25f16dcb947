//! What a create event hears when its id exists already: where it first differs, or `exists`.

use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::protocol::types::{Account, Transfer, transfer_flags};

use super::post_void;
use super::transfer_rules::has;

/// Compares an event with the account of its id; `existing` has its current flags.
pub(super) fn account(event: &Account, existing: &Account) -> CreateAccountStatus {
    use CreateAccountStatus as Status;
    if event.flags != existing.flags {
        Status::ExistsWithDifferentFlags
    } else if event.user_data_128 != existing.user_data_128 {
        Status::ExistsWithDifferentUserData128
    } else if event.user_data_64 != existing.user_data_64 {
        Status::ExistsWithDifferentUserData64
    } else if event.user_data_32 != existing.user_data_32 {
        Status::ExistsWithDifferentUserData32
    } else if event.ledger != existing.ledger {
        Status::ExistsWithDifferentLedger
    } else if event.code != existing.code {
        Status::ExistsWithDifferentCode
    } else {
        Status::Exists
    }
}

/// Compares an event with the transfer of its id. `pending` finds the transfer that both post or
/// void; it is only called when both name the same.
pub(super) fn transfer(
    event: &Transfer,
    existing: &Transfer,
    pending: impl FnOnce() -> Transfer,
) -> CreateTransferStatus {
    use CreateTransferStatus as Status;
    if event.flags != existing.flags {
        return Status::ExistsWithDifferentFlags;
    }
    if event.pending_id != existing.pending_id {
        return Status::ExistsWithDifferentPendingId;
    }
    if event.timeout != existing.timeout {
        return Status::ExistsWithDifferentTimeout;
    }
    let same = if post_void::is_post_or_void(event) {
        post_or_void_same(event, existing, &pending())
    } else {
        single_or_pending_same(event, existing)
    };
    if !same.debit_account_id {
        Status::ExistsWithDifferentDebitAccountId
    } else if !same.credit_account_id {
        Status::ExistsWithDifferentCreditAccountId
    } else if !same.amount {
        Status::ExistsWithDifferentAmount
    } else if !same.user_data_128 {
        Status::ExistsWithDifferentUserData128
    } else if !same.user_data_64 {
        Status::ExistsWithDifferentUserData64
    } else if !same.user_data_32 {
        Status::ExistsWithDifferentUserData32
    } else if !same.ledger {
        Status::ExistsWithDifferentLedger
    } else if !same.code {
        Status::ExistsWithDifferentCode
    } else {
        Status::Exists
    }
}

/// Which fields of event and record agree, in the order of comparison.
#[allow(clippy::struct_excessive_bools)] // One per field compared.
struct Same {
    debit_account_id: bool,
    credit_account_id: bool,
    amount: bool,
    user_data_128: bool,
    user_data_64: bool,
    user_data_32: bool,
    ledger: bool,
    code: bool,
}

fn single_or_pending_same(event: &Transfer, existing: &Transfer) -> Same {
    let balancing = transfer_flags::BALANCING_DEBIT | transfer_flags::BALANCING_CREDIT;
    let amount = if has(event.flags, balancing) {
        // The event's amount is a limit, the record's what really moved.
        event.amount >= existing.amount
    } else {
        event.amount == existing.amount
    };
    Same {
        debit_account_id: event.debit_account_id == existing.debit_account_id,
        credit_account_id: event.credit_account_id == existing.credit_account_id,
        amount,
        user_data_128: event.user_data_128 == existing.user_data_128,
        user_data_64: event.user_data_64 == existing.user_data_64,
        user_data_32: event.user_data_32 == existing.user_data_32,
        ledger: event.ledger == existing.ledger,
        code: event.code == existing.code,
    }
}

/// Whether a field of a post or void agrees; a zero stands for the pending transfer's value.
fn inherited<T: PartialEq + Default + Copy>(event: T, existing: T, pending: T) -> bool {
    existing == if event == T::default() { pending } else { event }
}

fn post_or_void_same(event: &Transfer, existing: &Transfer, pending: &Transfer) -> Same {
    assert!(pending.id == existing.pending_id);
    let (debit, credit) = (event.debit_account_id, event.credit_account_id);
    Same {
        debit_account_id: debit == 0 || debit == existing.debit_account_id,
        credit_account_id: credit == 0 || credit == existing.credit_account_id,
        amount: post_void::amount(event, pending) == existing.amount,
        user_data_128: inherited(
            event.user_data_128,
            existing.user_data_128,
            pending.user_data_128,
        ),
        user_data_64: inherited(event.user_data_64, existing.user_data_64, pending.user_data_64),
        user_data_32: inherited(event.user_data_32, existing.user_data_32, pending.user_data_32),
        ledger: event.ledger == 0 || event.ledger == existing.ledger,
        code: event.code == 0 || event.code == existing.code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Transfer {
        panic!("no pending transfer is needed")
    }

    /// Goal: accounts are compared field by field in order, balances and times not at all.
    #[test]
    fn account_order() {
        use CreateAccountStatus as Status;
        let existing = Account { id: 1, ledger: 1, code: 1, timestamp: 9, ..Account::default() };
        let mut event = Account {
            id: 1,
            flags: 8,
            user_data_128: 1,
            user_data_64: 1,
            user_data_32: 1,
            debits_posted: 7,
            ..Account::default()
        };
        let mut expect = |change: fn(&mut Account), status| {
            assert_eq!(account(&event, &existing), status);
            change(&mut event);
        };
        expect(|e| e.flags = 0, Status::ExistsWithDifferentFlags);
        expect(|e| e.user_data_128 = 0, Status::ExistsWithDifferentUserData128);
        expect(|e| e.user_data_64 = 0, Status::ExistsWithDifferentUserData64);
        expect(|e| e.user_data_32 = 0, Status::ExistsWithDifferentUserData32);
        expect(|e| e.ledger = 1, Status::ExistsWithDifferentLedger);
        expect(|e| e.code = 1, Status::ExistsWithDifferentCode);
        expect(|_| (), Status::Exists);
    }

    /// Goal: transfers are compared field by field in order.
    #[test]
    fn transfer_order() {
        use CreateTransferStatus as Status;
        let existing = Transfer {
            id: 1,
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 5,
            timeout: 100,
            ledger: 1,
            code: 1,
            flags: transfer_flags::PENDING,
            timestamp: 9,
            ..Transfer::default()
        };
        let mut event = Transfer {
            id: 1,
            debit_account_id: 3,
            credit_account_id: 1,
            amount: 6,
            pending_id: 4,
            user_data_128: 1,
            user_data_64: 1,
            user_data_32: 1,
            ..Transfer::default()
        };
        let mut expect = |change: fn(&mut Transfer), status| {
            assert_eq!(transfer(&event, &existing, none), status);
            change(&mut event);
        };
        expect(|e| e.flags = transfer_flags::PENDING, Status::ExistsWithDifferentFlags);
        expect(|e| e.pending_id = 0, Status::ExistsWithDifferentPendingId);
        expect(|e| e.timeout = 100, Status::ExistsWithDifferentTimeout);
        expect(|e| e.debit_account_id = 1, Status::ExistsWithDifferentDebitAccountId);
        expect(|e| e.credit_account_id = 2, Status::ExistsWithDifferentCreditAccountId);
        expect(|e| e.amount = 5, Status::ExistsWithDifferentAmount);
        expect(|e| e.user_data_128 = 0, Status::ExistsWithDifferentUserData128);
        expect(|e| e.user_data_64 = 0, Status::ExistsWithDifferentUserData64);
        expect(|e| e.user_data_32 = 0, Status::ExistsWithDifferentUserData32);
        expect(|e| e.ledger = 1, Status::ExistsWithDifferentLedger);
        expect(|e| e.code = 1, Status::ExistsWithDifferentCode);
        expect(|_| (), Status::Exists);
    }

    /// Goal: with balancing, any limit from the stored amount up is the same request.
    #[test]
    fn balancing_amount() {
        use CreateTransferStatus as Status;
        let flags = transfer_flags::BALANCING_DEBIT;
        let existing = Transfer { amount: 7, flags, ..Transfer::default() };
        let status = |amount| transfer(&Transfer { amount, ..existing }, &existing, none);
        assert_eq!(status(6), Status::ExistsWithDifferentAmount);
        assert_eq!(status(7), Status::Exists);
        assert_eq!(status(u128::MAX), Status::Exists);
    }

    /// Goal: a repeated post or void may leave out what was inherited, and nothing else.
    #[test]
    fn post_and_void() {
        use CreateTransferStatus as Status;
        let pending = Transfer { id: 1, amount: 10, user_data_64: 7, ..Transfer::default() };
        let existing = Transfer {
            id: 3,
            pending_id: 1,
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 4,
            user_data_64: 8,
            ledger: 1,
            code: 1,
            flags: transfer_flags::POST_PENDING_TRANSFER,
            ..Transfer::default()
        };
        let status = |event: Transfer, stored: Transfer| transfer(&event, &stored, || pending);
        let bare =
            Transfer { debit_account_id: 0, credit_account_id: 0, ledger: 0, code: 0, ..existing };
        assert_eq!(status(bare, existing), Status::Exists);
        let event = Transfer { amount: u128::MAX, ..bare };
        assert_eq!(status(event, existing), Status::ExistsWithDifferentAmount);
        assert_eq!(status(event, Transfer { amount: 10, ..existing }), Status::Exists);
        let event = Transfer { user_data_64: 0, ..bare };
        assert_eq!(status(event, existing), Status::ExistsWithDifferentUserData64);
        assert_eq!(status(event, Transfer { user_data_64: 7, ..existing }), Status::Exists);
        let event = Transfer { ledger: 2, debit_account_id: 2, ..bare };
        assert_eq!(status(event, existing), Status::ExistsWithDifferentDebitAccountId);
        let event = Transfer { ledger: 2, ..bare };
        assert_eq!(status(event, existing), Status::ExistsWithDifferentLedger);
        let flags = transfer_flags::VOID_PENDING_TRANSFER;
        let voided = Transfer { amount: 10, flags, ..existing };
        assert_eq!(status(Transfer { amount: 0, ..voided }, voided), Status::Exists);
        let event = Transfer { amount: u128::MAX, ..voided };
        assert_eq!(status(event, voided), Status::ExistsWithDifferentAmount);
    }
}
