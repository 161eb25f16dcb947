//! Mistakes in a statement, and how they are shown: the line, and a caret under the place.

use std::fmt::Write;
use std::ops::Range;

/// Width of the line that is shown, and of what was expected, in columns.
const COLUMNS_MAX: usize = 78;

/// A mistake in a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The place of the mistake, in bytes of the text; empty at its end if something is missing.
    pub span: Range<usize>,
    /// The mistake.
    pub message: String,
    /// The valid alternatives; may be empty.
    pub expected: String,
    /// Whether the text is right so far and only not finished.
    pub is_incomplete: bool,
}

impl SyntaxError {
    /// A mistake at a place.
    #[must_use]
    pub fn new(span: Range<usize>, message: impl Into<String>) -> SyntaxError {
        let message = message.into();
        SyntaxError { span, message, expected: String::new(), is_incomplete: false }
    }

    /// The same with the valid alternatives.
    #[must_use]
    pub fn expected(self, expected: impl Into<String>) -> SyntaxError {
        SyntaxError { expected: expected.into(), ..self }
    }

    /// The mistake as several human-readable lines: the message, the line of the text (of a long
    /// one the part around the place), the caret, the valid alternatives. `line_first` is the
    /// number of the text's first line; no numbers are shown if it is zero.
    ///
    /// # Panics
    ///
    /// If the place is outside the text.
    #[must_use]
    pub fn render(&self, text: &str, line_first: usize) -> String {
        assert!(self.span.start <= self.span.end && self.span.end <= text.len());
        // The place of something that is missing at the end is behind the last token.
        let start = self.span.start.min(text.trim_end().len());
        let line_start = text[..start].rfind('\n').map_or(0, |position| position + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let number = match line_first {
            0 => String::new(),
            first => (first + text[..line_start].matches('\n').count()).to_string(),
        };
        let margin = " ".repeat(number.len());
        let end = self.span.end.clamp(start, line_start + line.len().max(start - line_start));
        let place = text[line_start..start].chars().count();
        let room = COLUMNS_MAX - margin.len() - 3;
        let (line, place) = window(line, place, room);
        let width = text[start..end].chars().count().clamp(1, room - place.min(room - 1));
        let blank = |character| if character == '\t' { '\t' } else { ' ' };
        let indent: String = line.chars().take(place).map(blank).collect();
        let mut output = format!("error: {}\n", self.message);
        let carets = "^".repeat(width);
        write!(output, "{number} | {line}\n{margin} | {indent}{carets}").expect("to a string");
        let mut column = COLUMNS_MAX;
        for (index, word) in self.expected.split_whitespace().enumerate() {
            let is_first = index == 0;
            if is_first || column + 1 + word.len() > COLUMNS_MAX {
                let start = if is_first { "= expected" } else { "          " };
                write!(output, "\n{margin} {start}").expect("to a string");
                column = margin.len() + 1 + start.len();
            }
            write!(output, " {word}").expect("to a string");
            column += 1 + word.len();
        }
        output
    }
}

/// As much of a line as there is room for, in characters, so that a place in it is shown, and where
/// the place is then. What is left out has a mark.
fn window(line: &str, place: usize, room: usize) -> (String, usize) {
    assert!(room > 2);
    let count = line.chars().count();
    if count <= room {
        return (line.to_owned(), place);
    }
    // The place a third from the left, unless an end of the line is near.
    let first = place.saturating_sub(room / 3).min(count - room);
    let mut shown: Vec<char> = line.chars().skip(first).take(room).collect();
    if first > 0 {
        shown[0] = '…';
    }
    if first + room < count {
        shown[room - 1] = '…';
    }
    (shown.into_iter().collect(), place - first)
}

/// The name most like what was typed, if one is like it at all.
pub fn similar<'names>(
    word: &str,
    names: impl Iterator<Item = &'names str>,
) -> Option<&'names str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&word.to_ascii_lowercase(), name);
    let nearest = names.map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance);
    let (distance, name) = nearest?;
    let near = 1 + name.len() / 4;
    if distance <= near && distance < name.len() { Some(name) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the caret is under the place, and the line has its number.
    #[test]
    fn renders() {
        let text = "create_accounts id=1,\n  idd=2;";
        let error = SyntaxError::new(24..27, "no field `idd`").expected("a field");
        assert_eq!(
            error.render(text, 1),
            "error: no field `idd`\n2 |   idd=2;\n  |   ^^^\n  = expected a field"
        );
        assert_eq!(
            error.render(text, 0),
            "error: no field `idd`\n |   idd=2;\n |   ^^^\n = expected a field"
        );
    }

    /// Goal: what is expected is broken between words, so that a narrow terminal does not do it.
    #[test]
    fn folds_what_is_expected() {
        let error = SyntaxError::new(0..1, "x").expected("abcdefgh ".repeat(20));
        let text = error.render("x", 7);
        assert!(text.lines().all(|line| line.len() <= COLUMNS_MAX), "{text}");
        let folded: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(folded.len(), 3, "{text}");
        assert!(folded[0].starts_with("  = expected abcdefgh abcdefgh "), "{text}");
        assert!(folded[1].starts_with("             abcdefgh "), "{text}");
    }

    /// Goal: "expected" is there once, also if a line of what is expected is exactly full.
    #[test]
    fn expects_once() {
        for size in 1..COLUMNS_MAX {
            let words = format!("{} b {} c", "a".repeat(size), "d".repeat(COLUMNS_MAX - size));
            let text = SyntaxError::new(0..1, "x").expected(words).render("x", 7);
            assert_eq!(text.matches("expected").count(), 1, "{text}");
        }
    }

    /// Goal: what is missing at the end is pointed at behind the last thing there.
    #[test]
    fn renders_at_the_end() {
        let text = "lookup_accounts id=\n\n";
        let error = SyntaxError::new(21..21, "a value is missing");
        assert_eq!(
            error.render(text, 10),
            "error: a value is missing\n10 | lookup_accounts id=\n   |                    ^"
        );
        assert_eq!(SyntaxError::new(0..0, "x").render("", 1), "error: x\n1 | \n  | ^");
    }

    /// Goal: of a line that is longer than a terminal is wide, the part with the place is shown.
    #[test]
    fn renders_long_lines() {
        let text =
            format!("lookup_accounts {} idd=7, {};", "id=1, ".repeat(40), "id=2, ".repeat(40));
        let start = text.find("idd").unwrap();
        let shown = SyntaxError::new(start..start + 3, "x").render(&text, 12);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS_MAX), "{shown}");
        let column = lines[2].find('^').unwrap();
        let marked: String = lines[1].chars().skip(column).take(3).collect();
        assert_eq!((marked.as_str(), lines[2].matches('^').count()), ("idd", 3), "{shown}");
        assert_eq!(lines[1].matches('…').count(), 2, "{shown}");
        let end = text.len() - 1..text.len();
        let shown = SyntaxError::new(end, "x").render(&text, 0);
        assert!(shown.lines().nth(1).unwrap().ends_with("id=2, ;"), "{shown}");
        let all = SyntaxError::new(0..text.len(), "x").render(&text, 0);
        assert!(all.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{all}");
    }

    /// Goal: characters count, not bytes; a place of several lines is marked to its line's end.
    #[test]
    fn renders_characters() {
        let error = SyntaxError::new(2..5, "x");
        assert_eq!(error.render("äö\n", 0).lines().last(), Some(" |  ^"));
        let error = SyntaxError::new(3..8, "x");
        assert_eq!(error.render("\tä abc\nd", 0).lines().last(), Some(" | \t ^^^^"));
    }

    /// Goal: a slip of the keys is understood, something else is not.
    #[test]
    fn suggestions() {
        let names = ["create_accounts", "create_transfers", "id"];
        assert_eq!(similar("create_acounts", names.into_iter()), Some("create_accounts"));
        assert_eq!(similar("create_account", names.into_iter()), Some("create_accounts"));
        assert_eq!(similar("Id", names.into_iter()), Some("id"));
        assert_eq!(similar("select", names.into_iter()), None);
        assert_eq!(similar("x", [].into_iter()), None);
    }
}
