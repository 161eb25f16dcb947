//! Text to tokens: words, the four signs of the language, and where one statement ends.
//!
//! There are no quotes and no comments, so a semicolon always ends a statement. The parser decides
//! the meaning of a word.

use std::ops::Range;

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Letters, digits, `_` and `-`: a name or a number.
    Word,
    /// `=`
    Equals,
    /// `,`
    Comma,
    /// `|`
    Bar,
    /// `;`
    Semicolon,
    /// A character that means nothing.
    Unknown,
}

/// A token and its place in the text, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its kind.
    pub kind: TokenKind,
    /// Its place.
    pub span: Range<usize>,
}

/// The tokens of a text, one after the other.
#[derive(Clone, Debug)]
pub struct Tokens<'text> {
    text: &'text str,
    position: usize,
}

impl<'text> Tokens<'text> {
    /// All tokens of a text.
    #[must_use]
    pub fn new(text: &'text str) -> Tokens<'text> {
        Tokens { text, position: 0 }
    }
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == '-'
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let rest = &self.text[self.position..];
        let trimmed = rest.trim_start();
        let start = self.position + (rest.len() - trimmed.len());
        self.position = start;
        let first = trimmed.chars().next()?;
        let (kind, size) = match first {
            '=' => (TokenKind::Equals, 1),
            ',' => (TokenKind::Comma, 1),
            '|' => (TokenKind::Bar, 1),
            ';' => (TokenKind::Semicolon, 1),
            word if is_word(word) => {
                (TokenKind::Word, trimmed.find(|next| !is_word(next)).unwrap_or(trimmed.len()))
            }
            unknown => (TokenKind::Unknown, unknown.len_utf8()),
        };
        assert!(size > 0, "every token makes progress");
        self.position = start + size;
        Some(Token { kind, span: start..self.position })
    }
}

/// Words that are statements alone, and end with their line too.
pub const WORDS_OF_A_LINE: [&str; 3] = ["help", "exit", "quit"];

/// Returns the end of the first statement of a text: behind its semicolon, or for `help` and `exit`
/// behind its line. None if it continues behind the text.
#[must_use]
pub fn statement_end(text: &str) -> Option<usize> {
    let semicolon = text.find(';').map(|position| position + 1);
    let trimmed = text.trim_start();
    let word = trimmed.split(|character| !is_word(character)).next().unwrap_or_default();
    if !WORDS_OF_A_LINE.contains(&word) {
        return semicolon;
    }
    let start = text.len() - trimmed.len();
    let line_end = trimmed.find('\n').map(|position| start + position + 1);
    match (semicolon, line_end) {
        (Some(semicolon), Some(line_end)) => Some(semicolon.min(line_end)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        Tokens::new(text).map(|token| &text[token.span]).collect()
    }

    /// Goal: text falls into words and signs, whatever the white space.
    #[test]
    fn tokens() {
        assert_eq!(
            words("create_accounts id=-0x1F,\n\tflags = a|b ;"),
            ["create_accounts", "id", "=", "-0x1F", ",", "flags", "=", "a", "|", "b", ";"]
        );
        assert_eq!(words("  \n"), [""; 0]);
        assert_eq!(words("ä=\u{a0}\"1\""), ["ä", "=", "\"", "1", "\""]);
        assert_eq!(Tokens::new("ä").next().unwrap().kind, TokenKind::Unknown);
    }

    /// Goal: a statement ends at its semicolon; help and exit also at the end of their line.
    #[test]
    fn ends() {
        assert_eq!(statement_end("lookup_accounts id=1; x"), Some(21));
        assert_eq!(statement_end("lookup_accounts\nid=1"), None);
        assert_eq!(statement_end("\n help\nlookup_accounts id=1;"), Some(7));
        assert_eq!(statement_end("help create_accounts; exit"), Some(21));
        assert_eq!(statement_end("exit"), None);
        assert_eq!(statement_end("helpful\n"), None);
        assert_eq!(statement_end(" ;"), Some(2));
    }
}
