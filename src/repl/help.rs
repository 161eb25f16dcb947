//! The help: of everything, and of each statement; from the same tables as the parser.

use super::schema::{FORMS, Form, Kind};
use std::fmt::Write;

/// The width of the help's texts, in columns.
const EXAMPLE_COLUMNS: usize = 76;

/// What can be said at all.
///
/// # Panics
///
/// Never: writing to a string does not fail.
#[must_use]
pub fn overview() -> String {
    let mut text = String::from(
        "A statement is an operation and objects, and ends with a semicolon:\n\n  \
         OPERATION FIELD=VALUE FIELD=VALUE … , FIELD=VALUE … ;\n\n\
         Objects are separated by commas, flags are joined by `|`. Numbers are decimal or hex\n\
         (0x1F), or count down from the maximum: -0 is the maximum, -1 one less.\n\nOperations:\n",
    );
    for form in &FORMS {
        writeln!(text, "  {:<22} {}", form.name, form.about).expect("to a string");
    }
    text.push_str(
        "\nhelp OPERATION tells its fields and flags. exit or Ctrl-D ends.\n\
         TAB completes, ↑ and ↓ go through the history, Ctrl-R searches it.",
    );
    text
}

/// One statement: what it does, its fields and flags, examples.
///
/// # Panics
///
/// Never: writing to a string does not fail.
#[must_use]
pub fn statement(form: &Form) -> String {
    let mut text = format!("{}: {}\n\nFields:\n", form.name, form.about);
    for field in form.event.fields.iter().filter(|field| field.kind != Kind::Balance) {
        let about = match field.kind {
            Kind::Flags(_) if field.about.is_empty() => "see below".to_owned(),
            Kind::Flags(_) => format!("see below; {}", field.about),
            _ => format!("{} bits; {}", field.size * 8, field.about),
        };
        let must = if form.required.contains(&field.name) { "; required" } else { "" };
        writeln!(text, "  {:<18} {about}{must}", field.name).expect("to a string");
    }
    for field in form.event.fields {
        if let Kind::Flags(flags) = field.kind {
            text.push_str("\nFlags:\n");
            let width = flags.iter().map(|flag| flag.name.len()).max().unwrap_or(0).max(18);
            for flag in flags {
                writeln!(text, "  {:<width$} {}", flag.name, flag.about).expect("to a string");
            }
        }
    }
    text.push_str("\nExamples:");
    for line in form.examples.lines() {
        text.push_str("\n  ");
        text.push_str(&fold(line));
    }
    text
}

/// A long example on several lines, broken between words.
fn fold(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut column = 0;
    for word in line.split(' ') {
        if column > 0 && column + 1 + word.len() > EXAMPLE_COLUMNS {
            text.push_str("\n      ");
            column = 4;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the help names every operation, field and flag, and fits 90 columns.
    #[test]
    fn is_complete() {
        let overview = overview();
        for form in &FORMS {
            assert!(overview.contains(&format!("\n  {} ", form.name)));
            let text = statement(form);
            for field in form.event.fields.iter().filter(|field| field.kind != Kind::Balance) {
                assert!(text.contains(&format!("\n  {} ", field.name)), "{text}");
                if let Kind::Flags(flags) = field.kind {
                    assert!(flags.iter().all(|flag| text.contains(&format!("\n  {} ", flag.name))));
                }
            }
            let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(form.examples.lines().all(|line| folded.contains(line)), "{text}");
            for line in overview.lines().chain(text.lines()) {
                assert!(line.chars().count() <= 90, "{line}");
            }
        }
        let text = statement(&FORMS[0]);
        assert!(!text.contains("debits_pending"), "{text}");
    }
}
