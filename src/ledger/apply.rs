//! Effects: accounts change in the cache, and the event is appended to the logs.

use crate::protocol::types::{Account, Transfer, account_flags, transfer_flags};
use crate::storage::rows::{BalanceRow, Balances, EventKind, STORED_FLAG_EXPIRY};
use crate::storage::store::Store;

use super::account_cache::AccountCache;
use super::chain::Scope;
use super::state::State;
use super::transfer_rules::has;

/// Everything that an event changes.
pub(super) struct Books<'a> {
    pub store: &'a mut Store,
    pub cache: &'a mut AccountCache,
    pub scope: &'a mut Scope,
    pub state: &'a mut State,
}

impl Books<'_> {
    /// A transfer in one step, or a pending one; `stored` as it will read back.
    pub fn create(&mut self, stored: &Transfer, slots: [u32; 2]) {
        let [debit, credit] = self.accounts_will_change(slots);
        let amount = stored.amount;
        let kind = if has(stored.flags, transfer_flags::PENDING) {
            let account = &mut self.cache.entry_mut(debit).account;
            account.debits_pending = sum(account.debits_pending, amount);
            let account = &mut self.cache.entry_mut(credit).account;
            account.credits_pending = sum(account.credits_pending, amount);
            self.state.pending_created(stored);
            EventKind::Pending
        } else {
            let account = &mut self.cache.entry_mut(debit).account;
            account.debits_posted = sum(account.debits_posted, amount);
            let account = &mut self.cache.entry_mut(credit).account;
            account.credits_posted = sum(account.credits_posted, amount);
            EventKind::SinglePhase
        };
        if has(stored.flags, transfer_flags::CLOSING_DEBIT) {
            self.cache.entry_mut(debit).account.flags |= account_flags::CLOSED;
        }
        if has(stored.flags, transfer_flags::CLOSING_CREDIT) {
            self.cache.entry_mut(credit).account.flags |= account_flags::CLOSED;
        }
        self.transfer_was_created(stored);
        self.append(stored, slots, kind, 0);
    }

    /// A post or a void of the pending transfer in `pending_row`.
    pub fn resolve(
        &mut self,
        stored: &Transfer,
        pending: &Transfer,
        pending_row: u64,
        slots: [u32; 2],
        kind: EventKind,
    ) {
        assert!(matches!(kind, EventKind::Posted | EventKind::Voided));
        assert!(stored.amount <= pending.amount);
        self.release(pending, slots);
        if kind == EventKind::Posted {
            let account = &mut self.cache.entry_mut(slots[0]).account;
            account.debits_posted = sum(account.debits_posted, stored.amount);
            let account = &mut self.cache.entry_mut(slots[1]).account;
            account.credits_posted = sum(account.credits_posted, stored.amount);
        } else {
            self.reopen(pending, slots);
        }
        self.transfer_was_created(stored);
        self.append(stored, slots, kind, pending_row);
    }

    /// The pending transfer in `pending_row` expires at `timestamp`.
    pub fn expire(
        &mut self,
        pending: &Transfer,
        pending_row: u64,
        slots: [u32; 2],
        timestamp: u64,
    ) {
        self.release(pending, slots);
        self.reopen(pending, slots);
        let flags = pending.flags | STORED_FLAG_EXPIRY;
        let stored = Transfer { flags, timestamp, ..*pending };
        self.append(&stored, slots, EventKind::Expired, pending_row);
    }

    /// The id of an event that failed transiently must fail for ever.
    pub fn burn(&mut self, id: u128, timestamp: u64) {
        let orphan = Transfer { id, timestamp, ..Transfer::default() };
        let mut balances = BalanceRow::default();
        balances.kind = EventKind::Orphan as u8;
        self.store.append_event(&orphan, &balances);
    }

    /// What a pending transfer held is free again.
    fn release(&mut self, pending: &Transfer, slots: [u32; 2]) {
        assert!(has(pending.flags, transfer_flags::PENDING));
        let [debit, credit] = self.accounts_will_change(slots);
        let account = &mut self.cache.entry_mut(debit).account;
        assert!(account.id == pending.debit_account_id);
        account.debits_pending = difference(account.debits_pending, pending.amount);
        let account = &mut self.cache.entry_mut(credit).account;
        assert!(account.id == pending.credit_account_id);
        account.credits_pending = difference(account.credits_pending, pending.amount);
        self.state.pending_resolved(pending);
    }

    /// Sides that a pending transfer closed are open again.
    fn reopen(&mut self, pending: &Transfer, slots: [u32; 2]) {
        let closing = [transfer_flags::CLOSING_DEBIT, transfer_flags::CLOSING_CREDIT];
        for (slot, flag) in slots.into_iter().zip(closing) {
            if has(pending.flags, flag) {
                let account = &mut self.cache.entry_mut(slot).account;
                assert!(has(account.flags, account_flags::CLOSED), "the transfer closed it");
                account.flags &= !account_flags::CLOSED;
            }
        }
    }

    fn accounts_will_change(&mut self, slots: [u32; 2]) -> [u32; 2] {
        assert!(slots[0] != slots[1], "a transfer has two different accounts");
        self.scope.will_change(self.cache, slots[0]);
        self.scope.will_change(self.cache, slots[1]);
        slots
    }

    fn transfer_was_created(&mut self, stored: &Transfer) {
        assert!(
            stored.timestamp > self.state.transfer_timestamp_max,
            "timestamps of transfers only rise"
        );
        self.state.transfer_timestamp_max = stored.timestamp;
    }

    /// Appends the event with both accounts as they are now, after it.
    fn append(&mut self, stored: &Transfer, slots: [u32; 2], kind: EventKind, pending_row: u64) {
        let debit = &self.cache.entry(slots[0]).account;
        let credit = &self.cache.entry(slots[1]).account;
        let mut row = BalanceRow::default();
        row.debit = balances(debit);
        row.credit = balances(credit);
        row.kind = kind as u8;
        row.debit_flags = flags_byte(debit);
        row.credit_flags = flags_byte(credit);
        row.set_pending_row(pending_row);
        let newest_row = self.store.append_event(stored, &row);
        self.cache.entry_mut(slots[0]).newest_row = newest_row;
        self.cache.entry_mut(slots[1]).newest_row = newest_row;
    }
}

fn balances(account: &Account) -> Balances {
    Balances {
        debits_pending: account.debits_pending,
        debits_posted: account.debits_posted,
        credits_pending: account.credits_pending,
        credits_posted: account.credits_posted,
    }
}

fn flags_byte(account: &Account) -> u8 {
    u8::try_from(account.flags).expect("accounts have no flags beyond bit 5")
}

fn sum(balance: u128, amount: u128) -> u128 {
    balance.checked_add(amount).expect("what overflows is refused before")
}

fn difference(balance: u128, amount: u128) -> u128 {
    balance.checked_sub(amount).expect("a pending amount is part of the pending balance")
}
