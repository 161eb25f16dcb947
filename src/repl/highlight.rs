//! Colours of the parts of a text while it is typed.

use super::schema::{Form, Kind};
use super::token::{TokenKind, Tokens, WORDS_OF_A_LINE};
use std::fmt::Write;
use std::ops::Range;

/// The kind of a part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The name of an operation, or help, or exit.
    Operation,
    /// A field of the operation.
    Field,
    /// A number.
    Number,
    /// A flag of the field.
    Flag,
    /// A name that does not belong there, or a character that means nothing.
    Mistake,
}

impl Part {
    /// The terminal's code to begin the colour.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Part::Operation => "\x1b[1;34m",
            Part::Field => "\x1b[36m",
            Part::Number => "\x1b[33m",
            Part::Flag => "\x1b[35m",
            Part::Mistake => "\x1b[31m",
        }
    }
}

/// The parts of a text that have a colour, in order. The word that ends the text may still be
/// typed, so it is not a mistake if a valid word begins like it.
#[must_use]
pub fn parts(text: &str) -> Vec<(Range<usize>, Part)> {
    let mut parts = Vec::new();
    let mut operation: Option<&str> = None;
    let mut field: Option<&str> = None;
    let mut is_value = false;
    for token in Tokens::new(text) {
        let word = &text[token.span.clone()];
        let is_typed = token.span.end == text.len();
        match token.kind {
            TokenKind::Equals => is_value = true,
            TokenKind::Bar => {}
            TokenKind::Comma => is_value = false,
            TokenKind::Semicolon => (operation, is_value) = (None, false),
            TokenKind::Unknown => parts.push((token.span, Part::Mistake)),
            TokenKind::Word => {
                let part = match operation {
                    Some(operation) if is_value => value_part(operation, field, word, is_typed),
                    Some(operation) => field_part(operation, word, is_typed),
                    None => operation_part(word, is_typed),
                };
                // A value ends with its word, unless a bar follows.
                let next = text[token.span.end..].trim_start().chars().next();
                if operation.is_none() {
                    operation = Some(word);
                } else if is_value {
                    is_value = next == Some('|');
                } else {
                    field = Some(word);
                }
                parts.push((token.span, part));
            }
        }
    }
    parts
}

/// A name that is right, or that may become right while it is typed.
fn known<'names>(word: &str, is_typed: bool, mut names: impl Iterator<Item = &'names str>) -> bool {
    names.any(|name| name == word || is_typed && name.starts_with(word))
}

fn operation_part(word: &str, is_typed: bool) -> Part {
    let forms = super::schema::FORMS.iter().map(|form| form.name);
    let is_known = known(word, is_typed, forms.chain(WORDS_OF_A_LINE));
    if is_known { Part::Operation } else { Part::Mistake }
}

fn field_part(operation: &str, word: &str, is_typed: bool) -> Part {
    if operation == "help" {
        return operation_part(word, is_typed);
    }
    let Some(form) = Form::find(operation) else {
        return Part::Mistake;
    };
    let names = form.event.fields.iter().map(|field| field.name);
    if known(word, is_typed, names) { Part::Field } else { Part::Mistake }
}

fn value_part(operation: &str, field: Option<&str>, word: &str, is_typed: bool) -> Part {
    let field = Form::find(operation).and_then(|form| form.event.field(field?));
    match field.map(|field| field.kind) {
        None => Part::Mistake,
        Some(Kind::Flags(flags)) => {
            let names = flags.iter().map(|flag| flag.name);
            if known(word, is_typed, names) { Part::Flag } else { Part::Mistake }
        }
        Some(_) => {
            let digits = word.strip_prefix('-').unwrap_or(word);
            let is_number = digits.is_empty() || digits.starts_with(|c: char| c.is_ascii_digit());
            if is_number { Part::Number } else { Part::Mistake }
        }
    }
}

/// The text with the terminal's codes for its colours.
///
/// # Panics
///
/// Never: writing to a string does not fail.
#[must_use]
pub fn highlight(text: &str) -> String {
    let mut output = String::with_capacity(text.len() * 2);
    let mut position = 0;
    for (span, part) in parts(text) {
        assert!(span.start >= position, "parts come in order");
        let plain = &text[position..span.start];
        let (code, word) = (part.code(), &text[span.clone()]);
        write!(output, "{plain}{code}{word}\x1b[0m").expect("to a string");
        position = span.end;
    }
    output.push_str(&text[position..]);
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use Part::{Field, Flag, Mistake, Number, Operation};

    fn check(text: &str, expected: &[(&str, Part)]) {
        let found: Vec<_> =
            parts(text).into_iter().map(|(span, part)| (&text[span], part)).collect();
        assert_eq!(found, expected, "{text}");
    }

    /// Goal: each part is recognized by its place, not by its look.
    #[test]
    fn recognizes() {
        check(
            "create_accounts id=0x1, id = -0 flags=linked | history x=1; exit",
            &[
                ("create_accounts", Operation),
                ("id", Field),
                ("0x1", Number),
                ("id", Field),
                ("-0", Number),
                ("flags", Field),
                ("linked", Flag),
                ("history", Flag),
                ("x", Mistake),
                ("1", Mistake),
                ("exit", Operation),
            ],
        );
        check("help query_accounts", &[("help", Operation), ("query_accounts", Operation)]);
        check("select a=1 ", &[("select", Mistake), ("a", Mistake), ("1", Mistake)]);
        check(
            "lookup_accounts id=x?",
            &[("lookup_accounts", Operation), ("id", Field), ("x", Mistake), ("?", Mistake)],
        );
    }

    /// Goal: the word being typed is not a mistake while it can become a valid one.
    #[test]
    fn forgives_what_is_typed() {
        check("crea", &[("crea", Operation)]);
        check("crea ", &[("crea", Mistake)]);
        check("query_accounts led", &[("query_accounts", Operation), ("led", Field)]);
        check("query_accounts led=", &[("query_accounts", Operation), ("led", Mistake)]);
    }

    /// Goal: colours add codes and leave the text as it is.
    #[test]
    fn adds_codes_only() {
        let text = "  lookup_accounts\n id=1 ; ü";
        let coloured = highlight(text);
        assert!(coloured.contains("\x1b[33m1\x1b[0m"), "{coloured:?}");
        let mut plain = coloured;
        for part in [Operation, Field, Number, Flag, Mistake] {
            plain = plain.replace(part.code(), "");
        }
        assert_eq!(plain.replace("\x1b[0m", ""), text);
    }
}
