//! An answer as one line of JSON, page by page.
//!
//! `{"statement":"lookup_accounts","results":[{"id":"1", …}]}`: fields of 64 and 128 bits are
//! strings, since many readers of JSON lose digits of such numbers; smaller ones are numbers, flags
//! are lists of names, statuses and types are names.

use super::answer::{Answer, flag_names};
use super::schema::{Field, Kind, Record, value_name};
use serde_json::json;
use std::fmt::Write;

/// The end of an answer's line.
pub const END: &str = "]}";

/// A page of an answer as a part of its line; with the line's beginning if no rows come before it.
///
/// # Panics
///
/// Never: writing to a string does not fail.
#[must_use]
pub fn render(answer: &Answer, rows_before: usize) -> String {
    let mut text = String::new();
    if rows_before == 0 {
        write!(text, "{{\"statement\":{},\"results\":[", json!(answer.statement))
            .expect("to a string");
    }
    for (index, row) in answer.rows().enumerate() {
        if rows_before + index > 0 {
            text.push(',');
        }
        push_object(&mut text, answer.record, row);
    }
    text
}

/// The answer as the reference's REPL prints it: an object on several lines for each result, with
/// all numbers as strings; nothing if there are no results. Without the last line's end.
///
/// # Panics
///
/// Never: writing to a string does not fail.
#[must_use]
pub fn render_objects(answer: &Answer) -> String {
    let mut text = String::new();
    for (index, row) in answer.rows().enumerate() {
        text.push_str(if index > 0 { "\n{" } else { "{" });
        for (index, field) in answer.record.fields.iter().enumerate() {
            let (separator, name) = (if index > 0 { "," } else { "" }, field.name);
            write!(text, "{separator}\n  \"{name}\": ").expect("to a string");
            let value = field.read(row);
            match field.kind {
                Kind::Flags(_) => push_value(&mut text, field, value),
                kind => {
                    let named = value_name(kind, value);
                    let shown = named.map_or_else(|| value.to_string(), str::to_owned);
                    write!(text, "\"{shown}\"").expect("to a string");
                }
            }
        }
        text.push_str("\n}");
    }
    text
}

/// Adds one row as an object. Names need no escapes: they are words.
///
/// # Panics
///
/// If the row is not one of the record.
pub fn push_object(text: &mut String, record: &Record, row: &[u8]) {
    assert_eq!(row.len(), record.size);
    // Written one by one: the order is the record's.
    for (index, field) in record.fields.iter().enumerate() {
        text.push(if index > 0 { ',' } else { '{' });
        push_member(text, field, field.read(row));
    }
    text.push('}');
}

/// Adds the name and the value of one field.
///
/// # Panics
///
/// Never: writing to a string does not fail.
pub fn push_member(text: &mut String, field: &Field, value: u128) {
    write!(text, "\"{}\":", field.name).expect("to a string");
    push_value(text, field, value);
}

fn push_value(text: &mut String, field: &Field, value: u128) {
    let result = match field.kind {
        Kind::Flags([..]) if value == 0 => write!(text, "[]"),
        Kind::Flags(flags) => write!(text, "[\"{}\"]", flag_names(flags, value).join("\",\"")),
        kind => match value_name(kind, value) {
            Some(name) => write!(text, "\"{name}\""),
            None if field.size <= 4 => write!(text, "{value}"),
            None => write!(text, "\"{value}\""),
        },
    };
    result.expect("to a string");
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::{accounts, created};
    use super::*;
    use crate::protocol::types::{Account, account_flags};
    use serde_json::Value;

    /// Goal: the pages are one document of JSON, and no number in it loses digits.
    #[test]
    fn documents() {
        let flags = account_flags::HISTORY;
        let account = Account { id: u128::MAX - 1, code: 10, flags, ..Account::default() };
        let text = render(&accounts(&[account], None), 0)
            + &render(&accounts(&[Account::default()], None), 1)
            + END;
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

    /// Goal: the reference's form is JSON: an object for each result, numbers as strings.
    #[test]
    fn objects() {
        let flags = account_flags::HISTORY | account_flags::LINKED;
        let account = Account { id: 7, code: 10, flags, ..Account::default() };
        let text = render_objects(&accounts(&[account, account], None));
        assert!(text.starts_with("{\n  \"id\": \"7\",\n  \"debits_pending\": \"0\",\n"), "{text}");
        let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let objects: Vec<Value> = objects.map(Result::unwrap).collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[1]["code"], "10");
        assert_eq!(objects[1]["flags"], json!(["linked", "history"]));
        assert_eq!(render_objects(&accounts(&[], None)), "");
    }

    /// Goal: statuses are names; no rows are an empty list.
    #[test]
    fn statuses() {
        let expected = "{\"statement\":\"create_accounts\",\"results\":[\
             {\"id\":\"1\",\"status\":\"created\",\"timestamp\":\"1700000000000000000\"},\
             {\"id\":\"2\",\"status\":77,\"timestamp\":\"1700000000000000001\"}]}";
        assert_eq!(render(&created(&[u32::MAX, 77]), 0) + END, expected);
        assert_eq!(
            render(&accounts(&[], None), 0) + END,
            "{\"statement\":\"lookup_accounts\",\"results\":[]}"
        );
    }
}
