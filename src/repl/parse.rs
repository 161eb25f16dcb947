//! From the text of one statement to the request that it asks for.
//!
//! A statement is `operation field=value … , field=value … ;`: a name, then objects separated by
//! commas. Values are numbers, or flags joined by `|`. Every mistake has its place in the text and
//! what was expected there.

use super::error::{SyntaxError, similar};
use super::number::{NumberError, parse_number};
use super::schema::{FORMS, Field, Flag, Form, Kind, TRANSFER};
use super::token::{Token, TokenKind, Tokens, WORDS_OF_A_LINE};
use crate::protocol::types::{TIMESTAMP_MAX, account_filter_flags, transfer_flags};
use std::ops::Range;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Nothing: white space, or a semicolon alone.
    Empty,
    /// Help on everything, or on one statement.
    Help(Option<&'static Form>),
    /// The end.
    Exit,
    /// A request to the cluster.
    Request(Request),
}

/// A request to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The statement.
    pub form: &'static Form,
    /// Number of events.
    pub count: usize,
    /// The events one after the other, as they travel.
    pub events: Vec<u8>,
    /// Whether `limit` was given.
    pub has_limit: bool,
    /// Hints about values that the user may not have meant, a line for each.
    pub notes: Vec<String>,
}

/// Notes of one statement; further ones would say the same.
const NOTES_MAX: usize = 3;

/// Reads the one statement of a text.
///
/// # Errors
///
/// The first mistake.
///
/// # Panics
///
/// Never: any text has a result.
pub fn parse(text: &str) -> Result<Statement, SyntaxError> {
    let mut parser = Parser { text, tokens: Tokens::new(text), ahead: None };
    let Some(token) = parser.next() else {
        return Ok(Statement::Empty);
    };
    match token.kind {
        TokenKind::Semicolon => {
            parser.expect_end()?;
            Ok(Statement::Empty)
        }
        _ if is_comment(&text[token.span.start..]) => Err(comment(token.span)),
        TokenKind::Word => match &text[token.span.clone()] {
            "help" => parser.help(),
            "exit" | "quit" => {
                parser.semicolon_optional()?;
                Ok(Statement::Exit)
            }
            name => match Form::find(name) {
                Some(form) => parser.request(form, &token),
                None => Err(unknown_statement(name, token.span)),
            },
        },
        _ => Err(parser.unexpected(Some(&token), "an operation").expected(operations())),
    }
}

fn operations() -> String {
    let names: Vec<&str> = FORMS.iter().map(|form| form.name).collect();
    format!("{}, help or exit", names.join(", "))
}

/// Whether a text begins like a comment in other languages.
fn is_comment(text: &str) -> bool {
    ["#", "--", "//", "/*"].iter().any(|mark| text.starts_with(mark))
}

fn comment(span: Range<usize>) -> SyntaxError {
    SyntaxError::new(span, "statements cannot have comments").expected("the text without it")
}

fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn unknown_statement(word: &str, span: Range<usize>) -> SyntaxError {
    let names = FORMS.iter().map(|form| form.name).chain(WORDS_OF_A_LINE);
    let hint = did_you_mean(similar(word, names));
    SyntaxError::new(span, format!("no operation `{word}`{hint}")).expected(operations())
}

/// The object being read: its bytes, and where each of its fields was given.
struct Object {
    bytes: Vec<u8>,
    given: Vec<(&'static Field, Range<usize>)>,
}

impl Object {
    fn new(form: &Form) -> Object {
        Object { bytes: form.event_default(), given: Vec::new() }
    }

    fn place(&self, name: &str) -> Option<Range<usize>> {
        let (_, span) = self.given.iter().find(|(field, _)| field.name == name)?;
        Some(span.clone())
    }

    fn value(&self, form: &Form, name: &str) -> Option<u128> {
        form.event.field(name).map(|field| field.read(&self.bytes))
    }
}

/// The state of reading. See the module.
struct Parser<'text> {
    text: &'text str,
    tokens: Tokens<'text>,
    ahead: Option<Token>,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<Token> {
        self.ahead.take().or_else(|| self.tokens.next())
    }

    fn peek_kind(&mut self) -> Option<TokenKind> {
        if self.ahead.is_none() {
            self.ahead = self.tokens.next();
        }
        self.ahead.as_ref().map(|token| token.kind)
    }

    /// The token is not what it should be, or the text ends too early.
    fn unexpected(&self, token: Option<&Token>, wanted: &str) -> SyntaxError {
        if let Some(token) = token {
            if is_comment(&self.text[token.span.start..]) {
                return comment(token.span.clone());
            }
            let found = &self.text[token.span.clone()];
            let message = format!("unexpected `{found}`");
            return SyntaxError::new(token.span.clone(), message).expected(wanted);
        }
        let end = self.text.len();
        let error = SyntaxError::new(end..end, "the statement is not finished").expected(wanted);
        SyntaxError { is_incomplete: true, ..error }
    }

    fn expect_end(&mut self) -> Result<(), SyntaxError> {
        match self.next() {
            None => Ok(()),
            Some(token) => Err(self.unexpected(Some(&token), "the end: one statement at a time")),
        }
    }

    fn semicolon_optional(&mut self) -> Result<(), SyntaxError> {
        match self.next() {
            None => Ok(()),
            Some(token) if token.kind == TokenKind::Semicolon => self.expect_end(),
            Some(token) => Err(self.unexpected(Some(&token), "`;`")),
        }
    }

    fn help(&mut self) -> Result<Statement, SyntaxError> {
        if self.peek_kind() != Some(TokenKind::Word) {
            self.semicolon_optional()?;
            return Ok(Statement::Help(None));
        }
        let token = self.next().expect("a token was seen ahead");
        let name = &self.text[token.span.clone()];
        let Some(form) = Form::find(name) else {
            return Err(unknown_statement(name, token.span));
        };
        self.semicolon_optional()?;
        Ok(Statement::Help(Some(form)))
    }

    /// Objects, commas between them, and the semicolon.
    fn request(&mut self, form: &'static Form, name: &Token) -> Result<Statement, SyntaxError> {
        let (events, notes) = (Vec::new(), Vec::new());
        let mut request = Request { form, count: 0, events, has_limit: false, notes };
        let mut object = Object::new(form);
        loop {
            let token = self.next();
            match token.as_ref().map(|token| token.kind) {
                Some(TokenKind::Word) => {
                    let token = token.expect("a word is a token");
                    self.field(form, &mut object, &token)?;
                }
                Some(TokenKind::Comma) => {
                    let token = token.expect("a comma is a token");
                    finish_at_comma(form, &object, &token)?;
                    check_object(form, &object, name)?;
                    request.push(&object, self.text);
                    object = Object::new(form);
                }
                Some(TokenKind::Semicolon) => {
                    if object.given.is_empty() && request.count > 0 {
                        let message = "an object is missing behind the comma";
                        let span = token.expect("a semicolon is a token").span;
                        return Err(SyntaxError::new(span, message).expected(fields(form)));
                    }
                    check_object(form, &object, name)?;
                    request.push(&object, self.text);
                    self.expect_end()?;
                    return Ok(Statement::Request(request));
                }
                _ => {
                    let wanted = match object.given.last() {
                        None => fields(form),
                        Some(_) if form.operation.is_batchable() => {
                            "another field, `,` and another object, or `;`".to_owned()
                        }
                        Some(_) => "another field, or `;`".to_owned(),
                    };
                    return Err(self.unexpected(token.as_ref(), &wanted));
                }
            }
        }
    }

    /// One `field=value`, of which the field has been read.
    fn field(
        &mut self,
        form: &'static Form,
        object: &mut Object,
        token: &Token,
    ) -> Result<(), SyntaxError> {
        let name = &self.text[token.span.clone()];
        let Some(field) = form.event.field(name) else {
            return Err(self.unknown_field(form, token));
        };
        if object.place(name).is_some() {
            let error = SyntaxError::new(token.span.clone(), format!("`{name}` is given twice"));
            return Err(if form.operation.is_batchable() {
                error.expected("`,` before the next object")
            } else {
                error.expected("each field once")
            });
        }
        let equals = self.next();
        if equals.as_ref().is_none_or(|token| token.kind != TokenKind::Equals) {
            return Err(self.unexpected(equals.as_ref(), &format!("`=` behind `{name}`")));
        }
        let (value, span) = match field.kind {
            Kind::Flags(flags) => self.flags(flags)?,
            _ => self.number(field)?,
        };
        field.write(&mut object.bytes, value);
        object.given.push((field, token.span.start..span.end));
        Ok(())
    }

    /// A word where a field is expected.
    fn unknown_field(&self, form: &Form, token: &Token) -> SyntaxError {
        let name = &self.text[token.span.clone()];
        let error = |message: String| SyntaxError::new(token.span.clone(), message);
        if is_comment(name) {
            return comment(token.span.clone());
        }
        if Form::find(name).is_some() {
            let message = format!("`{name}` begins before {} has ended", form.name);
            return error(message).expected("`;` before it");
        }
        let flags = form.event.fields.iter().find_map(|field| match field.kind {
            Kind::Flags(flags) => Some(flags),
            _ => None,
        });
        if flags.is_some_and(|flags| flags.iter().any(|flag| flag.name == name)) {
            return error(format!("`{name}` is a flag, not a field"))
                .expected(format!("several flags joined by `|`: `flags=…|{name}`"));
        }
        let hint = did_you_mean(similar(name, form.event.fields.iter().map(|f| f.name)));
        error(format!("{} has no field `{name}`{hint}", form.name)).expected(fields(form))
    }

    /// The number of a field. A fraction is a mistake.
    fn number(&mut self, field: &Field) -> Result<(u128, Range<usize>), SyntaxError> {
        let max = field.max();
        let wanted = format!("a number from 0 to {max}: decimal, 0x…, or -N to count down from it");
        let token = self.next();
        let Some(Token { kind: TokenKind::Word, span }) = token else {
            return Err(self.unexpected(token.as_ref(), &wanted));
        };
        let word = &self.text[span.clone()];
        if let Some(fraction) = self.text[span.end..].strip_prefix('.') {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let span = span.start..span.end + 1 + digits;
            let message = format!("`{}` is not a whole number", &self.text[span.clone()]);
            let expected = format!("{wanted}; amounts count the smallest unit, such as cents");
            return Err(SyntaxError::new(span, message).expected(expected));
        }
        match parse_number(word, max) {
            Ok(value) => Ok((value, span)),
            Err(error) => {
                let message = match error {
                    NumberError::Invalid => format!("`{word}` is not a number"),
                    NumberError::TooLarge => format!("{word} is too large for {}", field.name),
                };
                Err(SyntaxError::new(span, message).expected(wanted))
            }
        }
    }

    /// Names joined by bars.
    fn flags(&mut self, flags: &'static [Flag]) -> Result<(u128, Range<usize>), SyntaxError> {
        let names = || flags.iter().map(|flag| flag.name);
        let wanted =
            || format!("{} (several joined by `|`)", names().collect::<Vec<_>>().join(", "));
        let mut bits = 0;
        let mut start = None;
        loop {
            let token = self.next();
            let Some(Token { kind: TokenKind::Word, span }) = token else {
                return Err(self.unexpected(token.as_ref(), &wanted()));
            };
            let word = &self.text[span.clone()];
            let Some(flag) = flags.iter().find(|flag| flag.name == word) else {
                let hint = did_you_mean(similar(word, names()));
                let error = SyntaxError::new(span, format!("no flag `{word}`{hint}"));
                return Err(error.expected(wanted()));
            };
            bits |= flag.bit;
            let start = *start.get_or_insert(span.start);
            if self.peek_kind() != Some(TokenKind::Bar) {
                return Ok((bits, start..span.end));
            }
            self.next();
        }
    }
}

impl Request {
    /// The lookup of one id.
    ///
    /// # Panics
    ///
    /// If the form does not look up ids.
    #[must_use]
    pub fn lookup(form: &'static Form, id: u128) -> Request {
        let mut events = form.event_default();
        form.event.field("id").expect("lookups have ids").write(&mut events, id);
        Request { form, count: 1, events, has_limit: false, notes: Vec::new() }
    }

    /// The number of a field of the first event, if it has such a field.
    #[must_use]
    pub fn event_value(&self, name: &str) -> Option<u128> {
        self.form.event.field(name).map(|field| field.read(&self.events))
    }

    fn push(&mut self, object: &Object, text: &str) {
        self.events.extend_from_slice(&object.bytes);
        self.count += 1;
        assert_eq!(self.events.len(), self.count * self.form.event.size);
        self.has_limit |= object.place("limit").is_some();
        for note in notes(self.form, object, text) {
            if self.notes.len() < NOTES_MAX {
                self.notes.push(note);
            }
        }
    }
}

/// Notes on an object that is accepted.
fn notes(form: &Form, object: &Object, text: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for (field, span) in &object.given {
        let typed = &text[span.clone()];
        let value = field.read(&object.bytes);
        // `-0` is the usual word for the maximum.
        if typed.contains('-') && value != field.max() {
            notes.push(format!("`{typed}` counts down from the maximum: {value} is sent"));
        }
    }
    let posts = |flags| flags & u128::from(transfer_flags::POST_PENDING_TRANSFER) != 0;
    let is_post = form.event == &TRANSFER && object.value(form, "flags").is_some_and(posts);
    if is_post && object.place("amount").is_none() {
        let without =
            "without `amount`, 0 of the pending transfer is posted and all of it released";
        notes.push(format!("{without}; `amount=-0` posts all of it"));
    }
    notes
}

/// The fields of a statement, for "expected".
fn fields(form: &Form) -> String {
    let names = form.event.fields.iter().filter(|field| field.kind != Kind::Balance);
    let names: Vec<&str> = names.map(|field| field.name).collect();
    match names.as_slice() {
        [one] => format!("`{one}=…`"),
        several => format!("a field: {}", several.join(", ")),
    }
}

/// Whether an object may end with this comma.
fn finish_at_comma(form: &Form, object: &Object, comma: &Token) -> Result<(), SyntaxError> {
    if !form.operation.is_batchable() {
        let message = format!("{} takes one {}", form.name, form.event.name);
        return Err(SyntaxError::new(comma.span.clone(), message).expected("`;`"));
    }
    if object.given.is_empty() {
        let message = "an object is missing before the comma";
        return Err(SyntaxError::new(comma.span.clone(), message).expected(fields(form)));
    }
    Ok(())
}

/// Refuses objects that cannot be meant, or that the cluster would answer with nothing.
fn check_object(form: &Form, object: &Object, name: &Token) -> Result<(), SyntaxError> {
    for required in form.required {
        if object.place(required).is_none() {
            let message = format!("{} needs `{required}`", form.name);
            return Err(SyntaxError::new(name.span.clone(), message)
                .expected(format!("`{} {required}=…;`", form.name)));
        }
    }
    if form.operation.is_create() {
        if object.given.is_empty() {
            let message = format!("{} needs objects", form.name);
            return Err(SyntaxError::new(name.span.clone(), message).expected(fields(form)));
        }
        return Ok(());
    }
    check_filter(form, object)
}

/// Filters that select nothing.
fn check_filter(form: &Form, object: &Object) -> Result<(), SyntaxError> {
    let value = |name| object.value(form, name);
    let error = |name, message: &str, expected: &str| {
        let span = object.place(name).expect("defaults are valid, so the field was given");
        Err(SyntaxError::new(span, message).expected(expected))
    };
    if value("limit") == Some(0) {
        return error("limit", "a limit of 0 asks for nothing", "a limit of 1 or more");
    }
    if let Some(account_id) = value("account_id") {
        if account_id == 0 || account_id == u128::MAX {
            return error("account_id", "no account has this id", "neither 0 nor the maximum");
        }
        let flags = value("flags").expect("account filters have flags");
        let either = account_filter_flags::DEBITS | account_filter_flags::CREDITS;
        if flags & u128::from(either) == 0 {
            return error(
                "flags",
                "neither debits nor credits are asked for",
                "`debits`, `credits` or both",
            );
        }
    }
    let (Some(min), Some(max)) = (value("timestamp_min"), value("timestamp_max")) else {
        return Ok(());
    };
    for (name, timestamp) in [("timestamp_min", min), ("timestamp_max", max)] {
        if timestamp > u128::from(TIMESTAMP_MAX) {
            let expected = format!("at most {TIMESTAMP_MAX}");
            return error(name, "no timestamp is as large", &expected);
        }
    }
    if max != 0 && min > max {
        let expected = "timestamp_min ≤ timestamp_max";
        return error("timestamp_max", "the end is before the beginning", expected);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
