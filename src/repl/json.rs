//! An answer as one line of JSON.
//!
//! `{"statement":"lookup_accounts","results":[{"id":"1", …}]}`: fields of 64 and 128 bits are
//! strings, since many readers of JSON lose digits of such numbers; smaller ones are numbers, flags
//! are lists of names, statuses and types are names.

use super::answer::{Answer, field_text, flag_names};
use super::schema::{Field, Kind, value_name};
use serde_json::{Value, json};
use std::fmt::Write;

/// The answer as one line.
///
/// # Panics
///
/// Never: writing to a string does not fail.
#[must_use]
pub fn render(answer: &Answer) -> String {
    let mut text = format!("{{\"statement\":{},\"results\":[", json!(answer.statement));
    for (index, row) in answer.rows().enumerate() {
        let separator = if index > 0 { ",{" } else { "{" };
        text.push_str(separator);
        // Written one by one: the order is the record's.
        for (index, field) in answer.record.fields.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            let (name, value) = (json!(field.name), value_of(field, row));
            write!(text, "{separator}{name}:{value}").expect("to a string");
        }
        text.push('}');
    }
    text.push_str("]}");
    text
}

fn value_of(field: &Field, row: &[u8]) -> Value {
    let value = field.read(row);
    match field.kind {
        Kind::Flags(flags) => json!(flag_names(flags, value)),
        kind if value_name(kind, value).is_some() => json!(field_text(field, row)),
        _ if field.size <= 4 => json!(u32::try_from(value).expect("four bytes at most")),
        _ => json!(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::{accounts, created};
    use super::*;
    use crate::protocol::types::{Account, account_flags};

    /// Goal: the document is JSON, and no number in it loses digits.
    #[test]
    fn documents() {
        let flags = account_flags::HISTORY;
        let account = Account { id: u128::MAX - 1, code: 10, flags, ..Account::default() };
        let text = render(&accounts(&[account, Account::default()], None));
        assert!(!text.contains('\n'));
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["statement"], "lookup_accounts");
        assert_eq!(document["results"][0]["id"], (u128::MAX - 1).to_string());
        assert_eq!(document["results"][0]["code"], 10);
        assert_eq!(document["results"][0]["flags"], json!(["history"]));
        assert_eq!(document["results"][1]["flags"], json!([]));
        assert_eq!(document["results"][1]["timestamp"], "0");
        assert!(text.contains("{\"id\":\"340282366920938463463374607431768211454\",\"debits_"));
    }

    /// Goal: statuses are names; no rows are an empty list.
    #[test]
    fn statuses() {
        let expected = "{\"statement\":\"create_accounts\",\"results\":[\
             {\"id\":\"1\",\"status\":\"created\",\"timestamp\":\"1700000000000000000\"},\
             {\"id\":\"2\",\"status\":77,\"timestamp\":\"1700000000000000001\"}]}";
        assert_eq!(render(&created(&[u32::MAX, 77])), expected);
        assert_eq!(
            render(&accounts(&[], None)),
            "{\"statement\":\"lookup_accounts\",\"results\":[]}"
        );
    }
}
