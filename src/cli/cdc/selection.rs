//! Selects events by kind, ledger, code and account.

use std::fmt;

use super::position::Event;

/// A kind of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Transfers that were created, and pending transfers that expired
    Transfers,
    /// Accounts that were created
    Accounts,
    /// Both
    All,
}

/// The events to print. An empty list selects everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Whether events of transfers are selected.
    pub transfers: bool,
    /// Whether events of accounts are selected.
    pub accounts: bool,
    /// Sorted ledgers.
    pub ledgers: Vec<u32>,
    /// Sorted codes: of the transfer, or of the account that was created.
    pub codes: Vec<u16>,
    /// Sorted ids of accounts: one of the transfer's, or the one that was created.
    pub account_ids: Vec<u128>,
}

impl Selection {
    /// Selects all events of these kinds.
    #[must_use]
    pub fn of(what: &[What]) -> Selection {
        let has = |kind| what.contains(&kind) || what.contains(&What::All);
        Selection {
            transfers: has(What::Transfers),
            accounts: has(What::Accounts),
            ledgers: Vec::new(),
            codes: Vec::new(),
            account_ids: Vec::new(),
        }
    }

    /// Narrows the selection to these ledgers, codes and accounts.
    #[must_use]
    pub fn only(mut self, ledgers: &[u32], codes: &[u16], account_ids: &[u128]) -> Selection {
        self.ledgers = sorted(ledgers);
        self.codes = sorted(codes);
        self.account_ids = sorted(account_ids);
        self
    }

    /// Whether an event is selected.
    #[must_use]
    pub fn has(&self, event: &Event) -> bool {
        let (ledger, code, ids) = match event {
            Event::Change(event) => (
                event.ledger,
                event.transfer_code,
                [event.debit_account_id, event.credit_account_id],
            ),
            Event::Account(account) => (account.ledger, account.code, [account.id; 2]),
        };
        (self.ledgers.is_empty() || self.ledgers.binary_search(&ledger).is_ok())
            && (self.codes.is_empty() || self.codes.binary_search(&code).is_ok())
            && (self.account_ids.is_empty()
                || ids.iter().any(|id| self.account_ids.binary_search(id).is_ok()))
    }
}

fn sorted<Number: Ord + Copy>(numbers: &[Number]) -> Vec<Number> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Writes the options that make this selection.
impl fmt::Display for Selection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match (self.transfers, self.accounts) {
            (true, true) => "--what=all",
            (false, true) => "--what=accounts",
            _ => "--what=transfers",
        })?;
        write_list(formatter, "ledger", &self.ledgers)?;
        write_list(formatter, "code", &self.codes)?;
        write_list(formatter, "account", &self.account_ids)
    }
}

fn write_list<Number: fmt::Display>(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    numbers: &[Number],
) -> fmt::Result {
    for (index, number) in numbers.iter().enumerate() {
        match index {
            0 => write!(formatter, " --{name}={number}")?,
            _ => write!(formatter, ",{number}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::{Account, ChangeEvent};
    use zerocopy::FromZeros;

    /// Goal: each list narrows the selection; either account of a transfer is enough.
    #[test]
    fn selects() {
        let change = Event::Change(ChangeEvent {
            ledger: 7,
            transfer_code: 3,
            debit_account_id: 1,
            credit_account_id: 2,
            ..ChangeEvent::new_zeroed()
        });
        let account = Event::Account(Account { id: 2, ledger: 7, code: 9, ..Account::default() });
        let all = || Selection::of(&[What::All]);
        assert!(all().has(&change) && all().has(&account));
        let by_account = all().only(&[], &[], &[2]);
        assert!(by_account.has(&change) && by_account.has(&account));
        let by_code = all().only(&[8, 7, 7], &[3], &[]);
        assert!(by_code.has(&change) && !by_code.has(&account));
        assert!(!all().only(&[8], &[], &[]).has(&change));
        assert!(!all().only(&[], &[], &[3]).has(&change));
        assert_eq!(by_code.to_string(), "--what=all --ledger=7,8 --code=3");
        assert_eq!(Selection::of(&[What::Accounts]).to_string(), "--what=accounts");
        assert_eq!(Selection::of(&[What::Accounts, What::Transfers]), all());
    }
}
