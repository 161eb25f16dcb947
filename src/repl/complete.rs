//! Completion at the cursor: operations, and fields and flags not given yet.

use super::schema::{FORMS, Flag, Form, Kind};
use super::token::{Token, TokenKind, Tokens, WORDS_OF_A_LINE};

/// The completions at the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Start of the word at the cursor, which is replaced, in bytes.
    pub start: usize,
    /// The words with what follows them: `id=`, `create_accounts `, `linked`.
    pub words: Vec<String>,
}

/// Returns the completions at a place of a text, which may hold several statements.
///
/// # Panics
///
/// If the place is not between two characters of the text.
#[must_use]
pub fn complete(text: &str, cursor: usize) -> Completion {
    let before = &text[..cursor];
    let statement = before.rfind(';').map_or(0, |position| position + 1);
    let mut tokens: Vec<Token> = Tokens::new(&before[statement..]).collect();
    let text = &before[statement..];
    let is_word_at_end =
        |token: &Token| token.kind == TokenKind::Word && token.span.end == text.len();
    let (start, word) = match tokens.last() {
        Some(token) if is_word_at_end(token) => (token.span.start, &text[token.span.clone()]),
        _ => (text.len(), ""),
    };
    if start < text.len() {
        tokens.pop();
    }
    let words = candidates(text, &tokens)
        .into_iter()
        .filter(|candidate| candidate.starts_with(word))
        .collect();
    Completion { start: statement + start, words }
}

/// All words that can follow these tokens of one statement.
fn candidates(text: &str, tokens: &[Token]) -> Vec<String> {
    let operations = || FORMS.iter().map(|form| form.name);
    let Some((first, rest)) = tokens.split_first() else {
        let forms = operations().map(|name| format!("{name} "));
        return forms.chain(WORDS_OF_A_LINE.iter().map(|word| (*word).to_owned())).collect();
    };
    let name = &text[first.span.clone()];
    if name == "help" && rest.is_empty() {
        return operations().map(str::to_owned).collect();
    }
    let Some(form) = Form::find(name) else {
        return Vec::new();
    };
    if let Some(flags) = flags_being_given(text, form, rest) {
        return flags;
    }
    match rest.last().map(|token| token.kind) {
        None | Some(TokenKind::Word | TokenKind::Comma) => fields_left(text, form, rest),
        Some(_) => Vec::new(),
    }
}

/// The flags that can follow `flags=` or a bar behind it.
fn flags_being_given(text: &str, form: &Form, tokens: &[Token]) -> Option<Vec<String>> {
    let last = tokens.last()?.kind;
    if !matches!(last, TokenKind::Equals | TokenKind::Bar) {
        return None;
    }
    let equals = tokens.iter().rposition(|token| token.kind == TokenKind::Equals)?;
    let field = form.event.field(&text[tokens.get(equals.checked_sub(1)?)?.span.clone()])?;
    let Kind::Flags(flags) = field.kind else {
        return None;
    };
    let given: Vec<&str> =
        tokens[equals + 1..].iter().map(|token| &text[token.span.clone()]).collect();
    let left = |flag: &&Flag| !given.contains(&flag.name);
    Some(flags.iter().filter(left).map(|flag| flag.name.to_owned()).collect())
}

/// The fields that the object at the end of the tokens does not have yet.
fn fields_left(text: &str, form: &Form, tokens: &[Token]) -> Vec<String> {
    let is_comma = |token: &Token| token.kind == TokenKind::Comma;
    let object = tokens.iter().rposition(is_comma).map_or(0, |position| position + 1);
    let given: Vec<&str> = tokens[object..].iter().map(|token| &text[token.span.clone()]).collect();
    let fields = form.event.fields.iter().filter(|field| field.kind != Kind::Balance);
    let left = fields.filter(|field| !given.contains(&field.name));
    left.map(|field| format!("{}=", field.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks what is offered at `^`.
    fn check(text: &str, replaced: &str, first: &str, count: usize) {
        let cursor = text.find('^').unwrap();
        let line = text.replacen('^', "", 1);
        let completion = complete(&line, cursor);
        assert_eq!(&line[completion.start..cursor], replaced, "{text}");
        assert_eq!(completion.words.len(), count, "{text}: {:?}", completion.words);
        assert_eq!(completion.words.first().map_or("", String::as_str), first, "{text}");
    }

    /// Goal: at each place of a statement exactly the valid words are offered.
    #[test]
    fn places() {
        check("^", "", "create_accounts ", 12);
        check("lookup^", "lookup", "lookup_accounts ", 2);
        check("lookup^ id=1", "lookup", "lookup_accounts ", 2);
        check("he^", "he", "help", 1);
        check("help ^", "", "create_accounts", 9);
        check("help query_a^", "query_a", "query_accounts", 1);
        check("create_accounts ^", "", "id=", 8);
        check("create_accounts id=1 co^", "co", "code=", 1);
        check("create_accounts id=1 i^", "i", "", 0);
        check("create_accounts id=1, i^", "i", "id=", 1);
        check("create_accounts id=^", "", "", 0);
        check("create_accounts id ^", "", "user_data_128=", 7);
        check("create_accounts flags=^", "", "linked", 6);
        check("create_accounts flags=linked|hi^", "hi", "history", 1);
        check("create_accounts flags=linked|l^", "l", "", 0);
        check("create_accounts flags=linked ^", "", "id=", 7);
        check("exit; get_account_transfers flags=debits|^", "", "credits", 2);
        check("select ^", "", "", 0);
        check("create_accounts = ^", "", "", 0);
        check("create_accounts | ^", "", "", 0);
    }
}
