//! The help: an overview, and one text for each statement, from the same tables as the parser.

use super::schema::{FORMS, Form, Kind};

/// The width of the help's texts, in columns.
const COLUMNS_MAX: usize = 79;

/// The overview of all statements.
///
/// # Panics
///
/// Never: writing to a string does not fail.
#[must_use]
pub fn overview() -> String {
    let mut text = String::from(
        "A statement is an operation and objects, and ends with a semicolon:\n\n  \
         OPERATION FIELD=VALUE FIELD=VALUE … , FIELD=VALUE … ;\n\n\
         Objects are separated by commas, flags are joined by `|`. Numbers are decimal\n\
         or hex (0x1F), or count down from the maximum: -0 is the maximum, -1 one less.\n\
         Amounts are whole numbers. Statements cannot have comments.\n\n\
         Operations:\n",
    );
    for form in &FORMS {
        push_line(&mut text, &format!("  {:<22} ", form.name), form.about);
    }
    text.push_str(
        "\nhelp OPERATION lists its fields and flags. exit or Ctrl-D ends.\n\
         TAB completes, ↑ and ↓ go through the history, Ctrl-R searches it.",
    );
    text
}

/// The help of one statement: its purpose, fields, flags and examples.
///
/// # Panics
///
/// Never: writing to a string does not fail.
#[must_use]
pub fn statement(form: &Form) -> String {
    let mut text = String::new();
    push_words(&mut text, "", &format!("{}: {}", form.name, form.about), 2);
    text.push_str("\n\nFields:\n");
    for field in form.event.fields.iter().filter(|field| field.kind != Kind::Balance) {
        let about = match field.kind {
            Kind::Flags(_) if field.about.is_empty() => "see below".to_owned(),
            Kind::Flags(_) => format!("see below; {}", field.about),
            _ => format!("{} bits; {}", field.size * 8, field.about),
        };
        let must = if form.required.contains(&field.name) { "; required" } else { "" };
        push_line(&mut text, &format!("  {:<18} ", field.name), &format!("{about}{must}"));
    }
    for field in form.event.fields {
        if let Kind::Flags(flags) = field.kind {
            text.push_str("\nFlags:\n");
            let width = flags.iter().map(|flag| flag.name.len()).max().unwrap_or(0).max(18);
            for flag in flags {
                push_line(&mut text, &format!("  {:<width$} ", flag.name), flag.about);
            }
        }
    }
    text.push_str("\nExamples:");
    for line in form.examples.lines() {
        let mut folded = String::new();
        push_words(&mut folded, "  ", line, 6);
        text.push('\n');
        text.push_str(&folded);
    }
    text
}

/// Adds a name and its description, which continues below itself if it is long.
fn push_line(text: &mut String, name: &str, about: &str) {
    push_words(text, name, about, name.len());
    text.push('\n');
}

/// Adds a start and words, broken so that no line is too long; later lines are indented.
fn push_words(text: &mut String, start: &str, words: &str, indent: usize) {
    text.push_str(start);
    let mut column = start.len();
    let mut is_first = true;
    for word in words.split(' ') {
        if !is_first && column + 1 + word.len() > COLUMNS_MAX {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else if !is_first {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the help names every operation, field and flag, and fits 80 columns.
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
                assert!(line.chars().count() < 80, "{line}");
            }
        }
        let text = statement(&FORMS[0]);
        assert!(!text.contains("debits_pending"), "{text}");
    }
}
