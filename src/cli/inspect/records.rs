//! Accounts, transfers and the events of requests as cells of a document.

use zerocopy::FromBytes;

use super::document::{Cell, Document};
use crate::protocol::types::{
    Account, AccountFilter, ChangeEventsFilter, QueryFilter, RegisterRequest, Transfer,
    account_flags, transfer_flags,
};
use crate::protocol::{MultiBatch, OPERATION_PACKED, Operation, to_index};

/// Events that people are shown; programs get all.
pub const EVENTS_SHOWN: usize = 20;

const ACCOUNT_FLAGS: [(u16, &str); 6] = [
    (account_flags::LINKED, "linked"),
    (account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS, "debits_must_not_exceed_credits"),
    (account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS, "credits_must_not_exceed_debits"),
    (account_flags::HISTORY, "history"),
    (account_flags::IMPORTED, "imported"),
    (account_flags::CLOSED, "closed"),
];

const TRANSFER_FLAGS: [(u16, &str); 10] = [
    (transfer_flags::LINKED, "linked"),
    (transfer_flags::PENDING, "pending"),
    (transfer_flags::POST_PENDING_TRANSFER, "post_pending_transfer"),
    (transfer_flags::VOID_PENDING_TRANSFER, "void_pending_transfer"),
    (transfer_flags::BALANCING_DEBIT, "balancing_debit"),
    (transfer_flags::BALANCING_CREDIT, "balancing_credit"),
    (transfer_flags::CLOSING_DEBIT, "closing_debit"),
    (transfer_flags::CLOSING_CREDIT, "closing_credit"),
    (transfer_flags::IMPORTED, "imported"),
    (crate::storage::rows::STORED_FLAG_EXPIRY, "(expiry)"),
];

fn flags_cell(flags: u16, names: &[(u16, &str)]) -> Cell {
    let set = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name);
    let text = set.collect::<Vec<_>>().join(", ");
    if text.is_empty() { Cell::Nothing } else { Cell::Text(text) }
}

/// Flags of an account.
#[must_use]
pub fn account_flags_cell(flags: u16) -> Cell {
    flags_cell(flags, &ACCOUNT_FLAGS)
}

/// Name of an operation's number, as clients know it.
#[must_use]
pub fn operation_name(operation: u8) -> String {
    if operation == OPERATION_PACKED {
        return "packed".to_owned();
    }
    let Ok(operation) = Operation::try_from(operation) else { return operation.to_string() };
    snake_case(&format!("{operation:?}"))
}

/// The name of a variant with underscores.
#[must_use]
pub fn snake_case(variant: &str) -> String {
    let mut name = String::new();
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// All fields of an account.
#[must_use]
pub fn account_facts(account: &Account) -> Vec<(&'static str, Cell)> {
    vec![
        ("id", Cell::Wide(account.id)),
        ("debits_pending", Cell::Wide(account.debits_pending)),
        ("debits_posted", Cell::Wide(account.debits_posted)),
        ("credits_pending", Cell::Wide(account.credits_pending)),
        ("credits_posted", Cell::Wide(account.credits_posted)),
        ("user_data_128", Cell::Wide(account.user_data_128)),
        ("user_data_64", Cell::Number(account.user_data_64)),
        ("user_data_32", Cell::Number(account.user_data_32.into())),
        ("ledger", Cell::Number(account.ledger.into())),
        ("code", Cell::Number(account.code.into())),
        ("flags", account_flags_cell(account.flags)),
        ("timestamp", Cell::Time(account.timestamp)),
    ]
}

/// All fields of a transfer.
#[must_use]
pub fn transfer_facts(transfer: &Transfer) -> Vec<(&'static str, Cell)> {
    vec![
        ("id", Cell::Wide(transfer.id)),
        ("debit_account_id", Cell::Wide(transfer.debit_account_id)),
        ("credit_account_id", Cell::Wide(transfer.credit_account_id)),
        ("amount", Cell::Wide(transfer.amount)),
        ("pending_id", Cell::Wide(transfer.pending_id)),
        ("user_data_128", Cell::Wide(transfer.user_data_128)),
        ("user_data_64", Cell::Number(transfer.user_data_64)),
        ("user_data_32", Cell::Number(transfer.user_data_32.into())),
        ("timeout", Cell::Number(transfer.timeout.into())),
        ("ledger", Cell::Number(transfer.ledger.into())),
        ("code", Cell::Number(transfer.code.into())),
        ("flags", flags_cell(transfer.flags, &TRANSFER_FLAGS)),
        ("timestamp", Cell::Time(transfer.timestamp)),
    ]
}

/// The events of a request, each as its bytes; an error in words if the body is malformed.
///
/// # Errors
///
/// What is wrong with the body.
pub fn events(operation: Operation, body: &[u8]) -> Result<Vec<&[u8]>, String> {
    elements(operation.event_size(), operation.is_multi_batch(), body)
}

/// The results in a reply, each as its bytes.
///
/// # Errors
///
/// What is wrong with the body.
pub fn results(operation: Operation, body: &[u8]) -> Result<Vec<&[u8]>, String> {
    elements(operation.result_size(), operation.is_multi_batch(), body)
}

fn elements(size: u32, is_multi_batch: bool, body: &[u8]) -> Result<Vec<&[u8]>, String> {
    if size == 0 {
        return Ok(Vec::new());
    }
    if !is_multi_batch {
        return Ok(body.chunks_exact(to_index(size)).collect());
    }
    let batches = MultiBatch::decode(body, size).map_err(|error| format!("{error:?}"))?;
    Ok(batches.iter().flat_map(|batch| batch.chunks_exact(to_index(size))).collect())
}

/// Adds the events of a request as rows.
pub fn event_rows(document: &mut Document, operation: Operation, events: &[&[u8]]) {
    match operation {
        Operation::CreateAccounts => {
            let columns = ["id", "ledger", "code", "flags", "user_data_128"];
            let rows = events.iter().map(|bytes| account_row(&read::<Account>(bytes)));
            document.rows_some("events", &columns, rows.collect(), EVENTS_SHOWN);
        }
        Operation::CreateTransfers => {
            let columns = [
                "id",
                "debit_account_id",
                "credit_account_id",
                "amount",
                "ledger",
                "code",
                "flags",
            ];
            let rows = events.iter().map(|bytes| transfer_row(&read::<Transfer>(bytes)));
            document.rows_some("events", &columns, rows.collect(), EVENTS_SHOWN);
        }
        Operation::LookupAccounts | Operation::LookupTransfers => {
            let rows = events.iter().map(|bytes| vec![Cell::Wide(read::<u128>(bytes))]);
            document.rows_some("events", &["id"], rows.collect(), EVENTS_SHOWN);
        }
        _ => {
            let text = |bytes: &&[u8]| vec![Cell::Text(filter_text(operation, bytes))];
            document.rows("events", &["filter"], events.iter().map(text).collect());
        }
    }
}

fn read<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_bytes(bytes).expect("an element has the size of its type")
}

fn account_row(account: &Account) -> Vec<Cell> {
    vec![
        Cell::Wide(account.id),
        Cell::Number(account.ledger.into()),
        Cell::Number(account.code.into()),
        account_flags_cell(account.flags),
        Cell::Wide(account.user_data_128),
    ]
}

fn transfer_row(transfer: &Transfer) -> Vec<Cell> {
    vec![
        Cell::Wide(transfer.id),
        Cell::Wide(transfer.debit_account_id),
        Cell::Wide(transfer.credit_account_id),
        Cell::Wide(transfer.amount),
        Cell::Number(transfer.ledger.into()),
        Cell::Number(transfer.code.into()),
        flags_cell(transfer.flags, &TRANSFER_FLAGS),
    ]
}

fn filter_text(operation: Operation, bytes: &[u8]) -> String {
    match operation {
        Operation::Register => {
            format!("batch size limit {}", read::<RegisterRequest>(bytes).batch_size_limit)
        }
        Operation::GetChangeEvents => {
            let filter = read::<ChangeEventsFilter>(bytes);
            let (min, max) = (filter.timestamp_min, filter.timestamp_max);
            format!("timestamp {min} to {max}, limit {}", filter.limit)
        }
        Operation::GetAccountTransfers | Operation::GetAccountBalances => {
            let filter = read::<AccountFilter>(bytes);
            let (min, max) = (filter.timestamp_min, filter.timestamp_max);
            format!(
                "account {}, user data {} {} {}, code {}, timestamp {min} to {max}, limit {}, \
                 flags {:#x}",
                filter.account_id,
                filter.user_data_128,
                filter.user_data_64,
                filter.user_data_32,
                filter.code,
                filter.limit,
                filter.flags
            )
        }
        _ => {
            let filter = read::<QueryFilter>(bytes);
            let (min, max) = (filter.timestamp_min, filter.timestamp_max);
            format!(
                "user data {} {} {}, ledger {}, code {}, timestamp {min} to {max}, limit {}, \
                 flags {:#x}",
                filter.user_data_128,
                filter.user_data_64,
                filter.user_data_32,
                filter.ledger,
                filter.code,
                filter.limit,
                filter.flags
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: operations have the names that clients know, flags those of the protocol.
    #[test]
    fn names() {
        assert_eq!(operation_name(Operation::CreateTransfers.into()), "create_transfers");
        assert_eq!(operation_name(Operation::Register.into()), "register");
        assert_eq!(operation_name(OPERATION_PACKED), "packed");
        assert_eq!(operation_name(9), "9");
        let account = account_flags_cell(account_flags::LINKED | account_flags::HISTORY);
        assert_eq!(account, Cell::text("linked, history"));
        assert_eq!(flags_cell(0, &TRANSFER_FLAGS), Cell::Nothing);
        let all = TRANSFER_FLAGS.iter().fold(0, |all, (bit, _)| all | bit);
        assert_eq!(all & !crate::storage::rows::STORED_FLAG_EXPIRY, transfer_flags::ALL);
    }

    /// Goal: a body that is none is an error in words and not a panic.
    #[test]
    fn malformed_bodies() {
        assert!(events(Operation::CreateTransfers, &[1, 2, 3]).is_err());
        assert_eq!(events(Operation::Pulse, &[]), Ok(Vec::new()));
        assert!(results(Operation::LookupAccounts, &[]).is_err());
    }
}
