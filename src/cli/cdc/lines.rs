//! Formats events as lines of JSON.

use zerocopy::IntoBytes;

use super::position::Event;
use crate::cli::export::records::ACCOUNT_CREATED;
use crate::repl::json;
use crate::repl::schema::CHANGE_EVENT;

/// Adds the line of an event. Events that come after others with a later timestamp end with
/// `"late":true`.
///
/// # Panics
///
/// Never: the text of an event is an object.
pub fn push(text: &mut String, event: &Event, is_late: bool) {
    match event {
        Event::Change(event) => json::push_object(text, &CHANGE_EVENT, event.as_bytes()),
        Event::Account(account) => {
            let account = account.created();
            text.push_str("{\"type\":\"account_created\"");
            for field in ACCOUNT_CREATED.fields {
                text.push(',');
                json::push_member(text, field, field.read(account.as_bytes()));
            }
            text.push('}');
        }
    }
    if is_late {
        assert_eq!(text.pop(), Some('}'), "an object");
        text.push_str(",\"late\":true}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::{Account, account_flags};

    /// Goal: the line of an account has the fields that never change; only late events are marked.
    #[test]
    fn accounts() {
        let account = Account {
            id: 1,
            debits_posted: 5,
            ledger: 7,
            code: 3,
            flags: account_flags::HISTORY | account_flags::CLOSED,
            timestamp: 9,
            ..Account::default()
        };
        let mut text = String::new();
        push(&mut text, &Event::Account(account), false);
        let expected = "{\"type\":\"account_created\",\"id\":\"1\",\"user_data_128\":\"0\",\
             \"user_data_64\":\"0\",\"user_data_32\":0,\"ledger\":7,\"code\":3,\
             \"flags\":[\"history\"],\"timestamp\":\"9\"}\n";
        assert_eq!(text, expected);
        text.clear();
        push(&mut text, &Event::Account(account), true);
        assert!(text.ends_with("\"timestamp\":\"9\",\"late\":true}\n"), "{text}");
    }
}
