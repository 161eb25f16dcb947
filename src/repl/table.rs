//! A page of an answer as a table that fits the terminal.
//!
//! One line for each row, numbers to the right, titles on several lines so that columns are as
//! narrow as their numbers. Rarely used columns are left out where they are zero in all rows. A
//! table that is still too wide becomes one block for each row, with a field on each line. Each
//! page has its own widths, since later rows are not known yet.

use super::answer::{Answer, field_text};
use super::schema::{Field, Kind};
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use std::fmt::Write;

/// A thin line under the titles, and no other.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Spaces between columns, besides the one that is always there.
const GAP: u16 = 1;

/// Parts of the names of fields that are shown only if they are not zero somewhere.
const OPTIONAL: [&str; 4] = ["user_data_", "timeout", "pending_id", "flags"];

/// The rows of a page as lines, without the last line's end. `first` is the number of the page's
/// first row, from one. `width` is the terminal's, in columns.
///
/// # Panics
///
/// If there are no rows.
#[must_use]
pub fn render(answer: &Answer, first: usize, width: Option<u16>) -> String {
    assert!(answer.count() > 0);
    let fields = fields_shown(answer);
    let table = lines(answer, &fields);
    let widest = table.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let fits = width.is_none_or(|width| widest <= usize::from(width));
    if fits { table } else { blocks(answer, first, &fields_of_blocks(answer)) }
}

fn is_number(field: &Field) -> bool {
    matches!(field.kind, Kind::Number | Kind::Balance | Kind::Timestamp)
}

/// All fields but the optional ones that are zero everywhere.
fn fields_shown(answer: &Answer) -> Vec<&'static Field> {
    let is_shown = |field: &&Field| {
        let is_optional = OPTIONAL.iter().any(|part| field.name.contains(part));
        !is_optional || answer.rows().any(|row| field.read(row) != 0)
    };
    answer.record.fields.iter().filter(is_shown).collect()
}

/// As [`fields_shown`], and the flags of each row: in blocks there is room for them.
fn fields_of_blocks(answer: &Answer) -> Vec<&'static Field> {
    let shown = fields_shown(answer);
    let is_shown = |field: &&Field| shown.contains(field) || field.name == "flags";
    answer.record.fields.iter().filter(is_shown).collect()
}

/// A title on several lines: `debits_pending` as `debits` over `pending`.
fn title(field: &Field) -> String {
    field.name.replace("user_data_", "user data_").replace('_', "\n").replace(' ', "_")
}

/// One line for each row.
fn lines(answer: &Answer, fields: &[&Field]) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    let height = fields.iter().map(|field| title(field).lines().count()).max().unwrap_or(1);
    table.set_header(fields.iter().map(|field| {
        // Titles stand on the line, not under the ceiling.
        let title = title(field);
        let above = "\n".repeat(height - title.lines().count());
        Cell::new(format!("{above}{title}"))
    }));
    for row in answer.rows() {
        table.add_row(fields.iter().map(|field| Cell::new(field_text(field, row))));
    }
    let last = fields.len() - 1;
    for (index, (column, field)) in table.column_iter_mut().zip(fields).enumerate() {
        column.set_padding((0, if index < last { GAP } else { 0 }));
        if is_number(field) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A field of a block; flags that are not set are a dash.
fn block_text(field: &Field, row: &[u8]) -> String {
    let text = field_text(field, row);
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A block for each row, a field on each line; all values begin at the same column.
fn blocks(answer: &Answer, first: usize, fields: &[&Field]) -> String {
    let width = fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (index, row) in answer.rows().enumerate() {
        if index > 0 {
            text.push_str("\n\n");
        }
        write!(text, "── {} {} ──", answer.record.name, first + index).expect("to a string");
        let texts: Vec<String> = fields.iter().map(|field| block_text(field, row)).collect();
        let numbers = fields.iter().zip(&texts).filter(|(field, _)| is_number(field));
        let digits = numbers.map(|(_, text)| text.len()).max().unwrap_or(0);
        for (field, value) in fields.iter().zip(&texts) {
            let line = if is_number(field) {
                format!("\n{:<width$}  {value:>digits$}", field.name)
            } else {
                format!("\n{:<width$}  {value}", field.name)
            };
            text.push_str(line.trim_end_matches(' '));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::{accounts, created};
    use super::*;
    use crate::protocol::types::{Account, account_flags};

    fn account(id: u128) -> Account {
        Account {
            id,
            debits_posted: 1000,
            ledger: 700,
            code: 10,
            timestamp: 1_700_000_000_000_000_000,
            ..Account::default()
        }
    }

    /// Goal: numbers are aligned to the right under their titles, and zeros of rare fields hidden.
    #[test]
    fn table() {
        let answer = accounts(&[account(1), account(22)], None);
        let expected = "\
\u{20}    debits  debits  credits  credits
id  pending  posted  pending   posted  ledger  code            timestamp
────────────────────────────────────────────────────────────────────────
 1        0    1000        0        0     700    10  1700000000000000000
22        0    1000        0        0     700    10  1700000000000000000";
        assert_eq!(render(&answer, 1, None), expected);
        assert_eq!(render(&answer, 1, Some(80)), expected);
    }

    /// Goal: a field that is not zero in some row is shown for all.
    #[test]
    fn optional_columns() {
        let flags = account_flags::HISTORY | account_flags::LINKED;
        let answer =
            accounts(&[account(1), Account { flags, user_data_64: 7, ..account(2) }], None);
        let text = render(&answer, 1, None);
        assert!(text.contains("linked|history") && text.contains("user_data"), "{text}");
        assert!(!text.contains("128"), "{text}");
    }

    /// Goal: a table that is too wide for the terminal becomes a block for each row, numbered over
    /// all pages, with the flags of each row.
    #[test]
    fn blocks_when_narrow() {
        let history = Account { flags: account_flags::HISTORY, ..account(2) };
        let answer = accounts(&[account(1), history], Some(3));
        let text = render(&answer, 8, Some(60));
        assert!(
            text.starts_with("── account 8 ──\nid                                 1\n"),
            "{text}"
        );
        assert!(text.contains("\ntimestamp        1700000000000000000\n\n── account 9"), "{text}");
        assert!(text.contains("\nflags            history\n"), "{text}");
        let plain = render(&accounts(&[account(1)], None), 1, Some(60));
        assert!(plain.contains("\nflags            -\n"), "{plain}");
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }

    /// Goal: statuses are text, to the left.
    #[test]
    fn statuses() {
        let text = render(&created(&[u32::MAX, 6]), 1, None);
        let expected = "\
id  status                         timestamp
────────────────────────────────────────────
 1  created              1700000000000000000
 2  id_must_not_be_zero  1700000000000000001";
        assert_eq!(text, expected);
    }
}
