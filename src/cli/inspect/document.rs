//! What an inspection has to say, once for people and once for programs.
//!
//! A document is a list of sections: facts with names, or rows of a table. People get tables that
//! fit 100 columns, or a terminal that is narrower, programs one JSON object with a member for each
//! section. Numbers of more than 64 bits are strings in JSON; checksums and hashes hexadecimal
//! ones.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde_json::{Map, Value, json};

use super::time::Time;
use crate::cli::benchmark::report::thousands;
use crate::io::memory::HumanSize;

/// Columns of a terminal that tables fit.
const WIDTH: u16 = 100;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// There is none.
    Nothing,
    /// A number of things.
    Count(u64),
    /// A number that is a name: an op, a row, an address, a slot.
    Number(u64),
    /// A number of bytes.
    Bytes(u64),
    /// An id or amount.
    Wide(u128),
    /// A checksum; people get its first digits where room is short.
    Checksum(u128),
    /// A hash.
    Hash(u64),
    /// Nanoseconds since 1970; zero for never.
    Time(u64),
    /// Words.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

impl Cell {
    /// Some words.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    /// A number, if there is one.
    #[must_use]
    pub fn number(number: Option<u64>) -> Cell {
        number.map_or(Cell::Nothing, Cell::Number)
    }

    fn json(&self) -> Value {
        match self {
            Cell::Nothing => Value::Null,
            Cell::Count(number) | Cell::Number(number) | Cell::Bytes(number) => json!(number),
            Cell::Time(time) => json!(time),
            Cell::Wide(number) => json!(number.to_string()),
            Cell::Checksum(number) => json!(format!("{number:032x}")),
            Cell::Hash(number) => json!(format!("{number:016x}")),
            Cell::Text(text) => json!(text),
            Cell::Flag(flag) => json!(flag),
        }
    }

    fn human(&self, short: bool) -> String {
        match self {
            Cell::Nothing | Cell::Time(0) => "-".to_owned(),
            Cell::Count(number) => thousands(*number),
            Cell::Number(number) => number.to_string(),
            Cell::Bytes(number) if short || *number < 1024 => HumanSize(*number).to_string(),
            Cell::Bytes(number) => format!("{} ({})", thousands(*number), HumanSize(*number)),
            Cell::Wide(number) => number.to_string(),
            Cell::Checksum(number) if short => format!("{:08x}…", number >> 96),
            Cell::Checksum(number) => format!("{number:032x}"),
            Cell::Hash(number) => format!("{number:016x}"),
            Cell::Time(time) if short => Time(*time).milliseconds(),
            Cell::Time(time) => Time(*time).to_string(),
            Cell::Text(text) => text.clone(),
            Cell::Flag(flag) => (if *flag { "yes" } else { "no" }).to_owned(),
        }
    }

    fn is_numeric(&self) -> bool {
        matches!(self, Cell::Count(_) | Cell::Number(_) | Cell::Bytes(_) | Cell::Wide(_))
    }
}

/// A part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Section {
    Facts {
        name: &'static str,
        facts: Vec<(&'static str, Cell)>,
    },
    Rows {
        name: &'static str,
        columns: Vec<&'static str>,
        rows: Vec<Vec<Cell>>,
        /// Rows that people are shown at most.
        shown: usize,
    },
    Note(String),
}

/// What an inspection has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    sections: Vec<Section>,
}

impl Document {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Document {
        Document::default()
    }

    /// Adds facts. Names are in JSON as they are, for people with spaces.
    pub fn facts(&mut self, name: &'static str, facts: Vec<(&'static str, Cell)>) {
        self.sections.push(Section::Facts { name, facts });
    }

    /// Adds rows.
    ///
    /// # Panics
    ///
    /// If a row has not as many cells as there are columns.
    pub fn rows(&mut self, name: &'static str, columns: &[&'static str], rows: Vec<Vec<Cell>>) {
        self.rows_some(name, columns, rows, usize::MAX);
    }

    /// Adds rows of which people are shown the first few.
    ///
    /// # Panics
    ///
    /// If a row has not as many cells as there are columns.
    pub fn rows_some(
        &mut self,
        name: &'static str,
        columns: &[&'static str],
        rows: Vec<Vec<Cell>>,
        shown: usize,
    ) {
        assert!(rows.iter().all(|row| row.len() == columns.len()));
        self.sections.push(Section::Rows { name, columns: columns.to_vec(), rows, shown });
    }

    /// Adds a sentence for people only.
    pub fn note(&mut self, text: impl Into<String>) {
        self.sections.push(Section::Note(text.into()));
    }

    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        let mut object = Map::new();
        for section in &self.sections {
            match section {
                Section::Facts { name, facts } => {
                    let facts = facts.iter().map(|(name, cell)| ((*name).to_owned(), cell.json()));
                    object.insert((*name).to_owned(), Value::Object(facts.collect()));
                }
                Section::Rows { name, columns, rows, .. } => {
                    let row = |row: &Vec<Cell>| {
                        let cells = columns.iter().zip(row);
                        let cells = cells.map(|(name, cell)| ((*name).to_owned(), cell.json()));
                        Value::Object(cells.collect())
                    };
                    object.insert((*name).to_owned(), rows.iter().map(row).collect());
                }
                Section::Note(_) => {}
            }
        }
        Value::Object(object).to_string()
    }

    /// Tables with headings.
    #[must_use]
    pub fn human(&self) -> String {
        let parts = self.sections.iter().map(|section| match section {
            Section::Facts { name, facts } => format!("{}\n{}", title(name), facts_text(facts)),
            Section::Rows { name, rows, .. } if rows.is_empty() => {
                format!("{}: none", title(name))
            }
            Section::Rows { name, columns, rows, shown } => {
                let (some, rest) = rows.split_at(rows.len().min(*shown));
                let text = format!("{}\n{}", title(name), rows_text(columns, some));
                match rest.len() {
                    0 => text,
                    more => format!("{text}\n ... and {more} more: --json has all of them"),
                }
            }
            Section::Note(text) => text.clone(),
        });
        parts.collect::<Vec<_>>().join("\n\n")
    }
}

/// A name with spaces, the first letter large.
fn title(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    let rest = letters.map(|letter| if letter == '_' { ' ' } else { letter });
    first.into_iter().chain(rest).collect()
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}

fn facts_text(facts: &[(&'static str, Cell)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, cell): &(&'static str, Cell)| {
        format!("  {:width$}  {}", spaced(name), cell.human(false))
    };
    facts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Columns that tables may have: those of the terminal, if the output goes to one that is narrow.
fn width() -> u16 {
    match terminal_size::terminal_size_of(std::io::stdout()) {
        Some((terminal_size::Width(width), _)) if width > 0 => width.min(WIDTH),
        _ => WIDTH,
    }
}

fn rows_text(columns: &[&'static str], rows: &[Vec<Cell>]) -> String {
    let mut table = Table::new();
    let line = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(line));
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width());
    table.set_header(columns.iter().map(|name| spaced(name)));
    for row in rows {
        table.add_row(row.iter().map(|cell| cell.human(true)));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((1, 0));
        if rows.iter().any(|row| row[index].is_numeric()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Document {
        let mut document = Document::new();
        let facts = vec![("view", Cell::Number(3)), ("file_size", Cell::Bytes(4096))];
        document.facts("superblock", facts);
        let row = vec![Cell::Checksum(1 << 120), Cell::Wide(u128::MAX), Cell::Time(0)];
        document.rows("wal_slots", &["checksum", "id", "timestamp"], vec![row]);
        document.rows("empty", &["none"], Vec::new());
        document.note("That is all.");
        document
    }

    /// Goal: programs get every value in full, with the names as they are.
    #[test]
    fn for_programs() {
        let value: Value = serde_json::from_str(&sample().json()).unwrap();
        assert_eq!(value["superblock"], json!({ "view": 3, "file_size": 4096 }));
        let row = &value["wal_slots"][0];
        assert_eq!(row["checksum"], "01000000000000000000000000000000");
        assert_eq!(row["id"], "340282366920938463463374607431768211455");
        assert_eq!(row["timestamp"], 0);
        assert_eq!(value["empty"], json!([]));
    }

    /// Goal: people get headings, units and short checksums, in lines of at most 100 columns.
    #[test]
    fn for_people() {
        let text = sample().human();
        for part in ["Superblock\n", "4,096 (4.0 KiB)", "Wal slots\n", "01000000…", "Empty: none"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("\n\nThat is all."));
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
