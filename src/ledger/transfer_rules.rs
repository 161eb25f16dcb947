//! When a transfer that is no post or void may be created, and how much it moves.
//!
//! Pure: everything that is asked for is given. The order of the conditions is the order in which
//! clients see them, so it must not change.

use crate::protocol::status::CreateTransferStatus as Status;
use crate::protocol::types::{Account, TIMESTAMP_MAX, Transfer, account_flags, transfer_flags};
use crate::storage::rows::expires_at;

/// Whether any of the bits is set.
#[inline]
pub(super) fn has(flags: u16, bits: u16) -> bool {
    flags & bits != 0
}

/// Rows 7 to 16: what the event says about itself.
#[inline]
pub(super) fn check_event(event: &Transfer) -> Result<(), Status> {
    if event.debit_account_id == 0 {
        return Err(Status::DebitAccountIdMustNotBeZero);
    }
    if event.debit_account_id == u128::MAX {
        return Err(Status::DebitAccountIdMustNotBeIntMax);
    }
    if event.credit_account_id == 0 {
        return Err(Status::CreditAccountIdMustNotBeZero);
    }
    if event.credit_account_id == u128::MAX {
        return Err(Status::CreditAccountIdMustNotBeIntMax);
    }
    if event.debit_account_id == event.credit_account_id {
        return Err(Status::AccountsMustBeDifferent);
    }
    if event.pending_id != 0 {
        return Err(Status::PendingIdMustBeZero);
    }
    if !has(event.flags, transfer_flags::PENDING) {
        if event.timeout != 0 {
            return Err(Status::TimeoutReservedForPendingTransfer);
        }
        if has(event.flags, transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT) {
            return Err(Status::ClosingTransferMustBePending);
        }
    }
    if event.ledger == 0 {
        return Err(Status::LedgerMustNotBeZero);
    }
    if event.code == 0 {
        return Err(Status::CodeMustNotBeZero);
    }
    Ok(())
}

/// What the import rules need to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct ImportFacts {
    /// Highest timestamp of any transfer.
    pub transfer_timestamp_max: u64,
    /// An account has exactly the event's timestamp.
    pub timestamp_is_taken: bool,
}

impl ImportFacts {
    /// Whether an imported event comes too late for its timestamp.
    #[inline]
    pub fn regresses(&self, event: &Transfer) -> bool {
        event.timestamp <= self.transfer_timestamp_max || self.timestamp_is_taken
    }
}

/// Rows 19 to 26: whether the two accounts may transact now. Rows 17 and 18, that both exist,
/// come before.
#[inline]
pub(super) fn check_accounts(
    event: &Transfer,
    debit: &Account,
    credit: &Account,
    import: &ImportFacts,
) -> Result<(), Status> {
    if debit.ledger != credit.ledger {
        return Err(Status::AccountsMustHaveTheSameLedger);
    }
    if event.ledger != debit.ledger {
        return Err(Status::TransferMustHaveTheSameLedgerAsAccounts);
    }
    if has(event.flags, transfer_flags::IMPORTED) {
        if import.regresses(event) {
            return Err(Status::ImportedEventTimestampMustNotRegress);
        }
        if event.timestamp <= debit.timestamp {
            return Err(Status::ImportedEventTimestampMustPostdateDebitAccount);
        }
        if event.timestamp <= credit.timestamp {
            return Err(Status::ImportedEventTimestampMustPostdateCreditAccount);
        }
        if event.timeout != 0 {
            return Err(Status::ImportedEventTimeoutMustBeZero);
        }
    }
    if has(debit.flags, account_flags::CLOSED) {
        return Err(Status::DebitAccountAlreadyClosed);
    }
    if has(credit.flags, account_flags::CLOSED) {
        return Err(Status::CreditAccountAlreadyClosed);
    }
    Ok(())
}

/// Row 27: the amount that really moves.
#[inline]
pub(super) fn amount(event: &Transfer, debit: &Account, credit: &Account) -> u128 {
    let mut amount = event.amount;
    if has(event.flags, transfer_flags::BALANCING_DEBIT) {
        let left = debit
            .credits_posted
            .saturating_sub(debit.debits_posted)
            .saturating_sub(debit.debits_pending);
        amount = amount.min(left);
    }
    if has(event.flags, transfer_flags::BALANCING_CREDIT) {
        let left = credit
            .debits_posted
            .saturating_sub(credit.credits_posted)
            .saturating_sub(credit.credits_pending);
        amount = amount.min(left);
    }
    amount
}

/// `a + b`, or the status if it exceeds 128 bits.
#[inline]
fn add(a: u128, b: u128, overflow: Status) -> Result<u128, Status> {
    a.checked_add(b).ok_or(overflow)
}

/// Rows 28 to 36: whether the amount fits. `stored` has its final amount and timestamp.
#[inline]
pub(super) fn check_amount(
    stored: &Transfer,
    debit: &Account,
    credit: &Account,
) -> Result<(), Status> {
    let amount = stored.amount;
    if has(stored.flags, transfer_flags::PENDING) {
        add(amount, debit.debits_pending, Status::OverflowsDebitsPending)?;
        add(amount, credit.credits_pending, Status::OverflowsCreditsPending)?;
    }
    add(amount, debit.debits_posted, Status::OverflowsDebitsPosted)?;
    add(amount, credit.credits_posted, Status::OverflowsCreditsPosted)?;
    let debits_held = debit
        .debits_pending
        .checked_add(debit.debits_posted)
        .expect("pending and posted debits always fit together");
    let credits_held = credit
        .credits_pending
        .checked_add(credit.credits_posted)
        .expect("pending and posted credits always fit together");
    let debits = add(amount, debits_held, Status::OverflowsDebits)?;
    let credits = add(amount, credits_held, Status::OverflowsCredits)?;
    if expires_at(stored).is_some_and(|expires_at| expires_at > TIMESTAMP_MAX) {
        return Err(Status::OverflowsTimeout);
    }
    if has(debit.flags, account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS)
        && debits > debit.credits_posted
    {
        return Err(Status::ExceedsCredits);
    }
    if has(credit.flags, account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS)
        && credits > credit.debits_posted
    {
        return Err(Status::ExceedsDebits);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: u128) -> Account {
        Account { id, ledger: 1, code: 1, timestamp: id_timestamp(id), ..Account::default() }
    }

    fn id_timestamp(id: u128) -> u64 {
        u64::try_from(id).unwrap()
    }

    fn transfer() -> Transfer {
        Transfer {
            id: 9,
            debit_account_id: 1,
            credit_account_id: 2,
            amount: 5,
            ledger: 1,
            code: 1,
            ..Transfer::default()
        }
    }

    /// Goal: each row of the event's own rules hides all later ones.
    #[test]
    fn event_precedence() {
        let mut event = Transfer {
            debit_account_id: 0,
            credit_account_id: 0,
            pending_id: 3,
            timeout: 1,
            flags: transfer_flags::CLOSING_DEBIT,
            ..Transfer::default()
        };
        let mut expect = |change: fn(&mut Transfer), status| {
            assert_eq!(check_event(&event), Err(status));
            change(&mut event);
        };
        expect(|e| e.debit_account_id = u128::MAX, Status::DebitAccountIdMustNotBeZero);
        expect(|e| e.debit_account_id = 1, Status::DebitAccountIdMustNotBeIntMax);
        expect(|e| e.credit_account_id = u128::MAX, Status::CreditAccountIdMustNotBeZero);
        expect(|e| e.credit_account_id = 1, Status::CreditAccountIdMustNotBeIntMax);
        expect(|e| e.credit_account_id = 2, Status::AccountsMustBeDifferent);
        expect(|e| e.pending_id = 0, Status::PendingIdMustBeZero);
        expect(|e| e.timeout = 0, Status::TimeoutReservedForPendingTransfer);
        expect(|e| e.flags = 0, Status::ClosingTransferMustBePending);
        expect(|e| e.ledger = 1, Status::LedgerMustNotBeZero);
        expect(|e| e.code = 1, Status::CodeMustNotBeZero);
        assert_eq!(check_event(&event), Ok(()));
    }

    /// Goal: each row of the accounts' rules hides all later ones.
    #[test]
    fn accounts_precedence() {
        let closed = account_flags::CLOSED;
        let mut debit = Account { ledger: 2, flags: closed, ..account(10) };
        let mut credit = Account { ledger: 3, flags: closed, ..account(20) };
        let mut event =
            Transfer { flags: transfer_flags::IMPORTED, timestamp: 5, timeout: 1, ..transfer() };
        let import = ImportFacts { transfer_timestamp_max: 5, timestamp_is_taken: false };
        let taken = ImportFacts { transfer_timestamp_max: 4, timestamp_is_taken: true };
        let fine = ImportFacts { transfer_timestamp_max: 4, timestamp_is_taken: false };
        let check = check_accounts;
        assert_eq!(
            check(&event, &debit, &credit, &import),
            Err(Status::AccountsMustHaveTheSameLedger)
        );
        credit.ledger = 2;
        assert_eq!(
            check(&event, &debit, &credit, &import),
            Err(Status::TransferMustHaveTheSameLedgerAsAccounts)
        );
        event.ledger = 2;
        for facts in [import, taken] {
            let status = Status::ImportedEventTimestampMustNotRegress;
            assert_eq!(check(&event, &debit, &credit, &facts), Err(status));
        }
        let status = Status::ImportedEventTimestampMustPostdateDebitAccount;
        assert_eq!(check(&event, &debit, &credit, &fine), Err(status));
        event.timestamp = 11;
        let status = Status::ImportedEventTimestampMustPostdateCreditAccount;
        assert_eq!(check(&event, &debit, &credit, &fine), Err(status));
        event.timestamp = 21;
        let status = Status::ImportedEventTimeoutMustBeZero;
        assert_eq!(check(&event, &debit, &credit, &fine), Err(status));
        event.timeout = 0;
        let status = Status::DebitAccountAlreadyClosed;
        assert_eq!(check(&event, &debit, &credit, &fine), Err(status));
        debit.flags = 0;
        let status = Status::CreditAccountAlreadyClosed;
        assert_eq!(check(&event, &debit, &credit, &fine), Err(status));
        credit.flags = 0;
        assert_eq!(check(&event, &debit, &credit, &fine), Ok(()));
    }

    /// Goal: overflows in their order, then the timeout, then the limits.
    #[test]
    fn amount_precedence() {
        let mut debit = Account { debits_pending: u128::MAX, ..account(1) };
        let mut credit = Account { credits_pending: u128::MAX, ..account(2) };
        let flags = transfer_flags::PENDING;
        let mut stored =
            Transfer { amount: 1, flags, timeout: 1, timestamp: TIMESTAMP_MAX, ..transfer() };
        let check = check_amount;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::OverflowsDebitsPending));
        debit.debits_pending = 0;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::OverflowsCreditsPending));
        credit.credits_pending = 0;
        debit.debits_posted = u128::MAX;
        credit.credits_posted = u128::MAX;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::OverflowsDebitsPosted));
        debit.debits_posted = u128::MAX - 1;
        debit.debits_pending = 1;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::OverflowsCreditsPosted));
        credit.credits_posted = u128::MAX - 1;
        credit.credits_pending = 1;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::OverflowsDebits));
        debit.debits_pending = 0;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::OverflowsCredits));
        credit.credits_pending = 0;
        debit.flags = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS;
        credit.flags = account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::OverflowsTimeout));
        stored.timestamp = TIMESTAMP_MAX - 1_000_000_000;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::ExceedsCredits));
        debit.credits_posted = u128::MAX;
        assert_eq!(check(&stored, &debit, &credit), Err(Status::ExceedsDebits));
        credit.debits_posted = u128::MAX;
        assert_eq!(check(&stored, &debit, &credit), Ok(()));
    }

    /// Goal: balancing takes the smaller room, zero when there is less than none.
    #[test]
    fn balancing() {
        let debit = Account {
            credits_posted: 20,
            debits_posted: 5,
            debits_pending: 3,
            credits_pending: 100,
            ..account(1)
        };
        let credit = Account { debits_posted: 10, credits_posted: 1, ..account(2) };
        let both = transfer_flags::BALANCING_DEBIT | transfer_flags::BALANCING_CREDIT;
        let amount_with = |flags, wanted| {
            amount(&Transfer { flags, amount: wanted, ..transfer() }, &debit, &credit)
        };
        assert_eq!(amount_with(0, u128::MAX), u128::MAX);
        assert_eq!(amount_with(transfer_flags::BALANCING_DEBIT, u128::MAX), 12);
        assert_eq!(amount_with(transfer_flags::BALANCING_CREDIT, u128::MAX), 9);
        assert_eq!(amount_with(both, u128::MAX), 9);
        assert_eq!(amount_with(both, 4), 4);
        assert_eq!(amount_with(both, 0), 0);
        let flags = transfer_flags::BALANCING_DEBIT;
        let event = Transfer { flags, ..transfer() };
        assert_eq!(amount(&event, &credit, &debit), 0, "more debits than credits");
    }
}
