//! `florin inspect metrics`: every metric that a server tells, with its meaning.

use super::document::{Cell, Document};
use crate::io::metrics::catalogue::{DEFINITIONS, PREFIX};

/// All metrics, from the definitions that the server tells them by.
#[must_use]
pub fn inspect() -> Document {
    let mut rows = vec![vec![
        Cell::text(format!("{PREFIX}info")),
        Cell::text("gauge"),
        Cell::text("always 1"),
        Cell::text("version"),
        Cell::text("The version and place of this replica; always 1."),
    ]];
    rows.extend(DEFINITIONS.iter().map(|definition| {
        vec![
            Cell::text(format!("{PREFIX}{}", definition.name)),
            Cell::text(definition.kind.name()),
            Cell::text(definition.unit.name()),
            Cell::text(definition.label.name()),
            Cell::text(definition.help),
        ]
    }));
    let mut document = Document::new();
    document.rows("metrics", &["name", "type", "unit", "label", "meaning"], rows);
    document
}

/// Columns of a terminal that the list fits.
const WIDTH: usize = 80;
/// Columns before the meaning.
const INDENT: usize = 4;

/// The same for people: names do not fit a column beside all the rest.
#[must_use]
pub fn human() -> String {
    let mut lines = vec!["Metrics".to_owned()];
    for definition in &DEFINITIONS {
        let label = definition.label.name();
        let by = if label.is_empty() { String::new() } else { format!(", by {label}") };
        let (kind, unit) = (definition.kind.name(), definition.unit.name());
        lines.push(format!("{PREFIX}{} ({kind}, {unit}{by})", definition.name));
        let mut line = " ".repeat(INDENT);
        for word in definition.help.split(' ') {
            if line.len() > INDENT && line.len() + 1 + word.len() > WIDTH {
                lines.push(std::mem::replace(&mut line, " ".repeat(INDENT)));
            }
            if line.len() > INDENT {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every metric is listed with its unit and help, for people and for programs.
    #[test]
    fn complete() {
        let document = inspect();
        let (human, json) = (human(), document.json());
        for definition in &DEFINITIONS {
            assert!(json.contains(&format!("\"{PREFIX}{}\"", definition.name)), "{json}");
            assert!(json.contains(definition.help), "{}", definition.help);
            assert!(human.contains(definition.name), "{human}");
        }
        assert!(human.lines().all(|line| line.chars().count() <= WIDTH), "{human}");
    }
}
