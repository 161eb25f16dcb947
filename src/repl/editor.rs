//! The line editor: history across sessions, statements of several lines, completion and colours.
//!
//! Enter ends the input only if the last statement in it is finished or wrong; otherwise it starts
//! another line. The caller decides what to do with the input.

use super::complete::complete;
use super::highlight::highlight;
use super::parse::parse;
use super::token::statement_end;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::{FileHistory, History};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, ColorMode, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event,
    EventContext, EventHandler, Helper, HistoryDuplicates, KeyEvent,
};
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Statements kept in the history.
const HISTORY_MAX: usize = 10_000;
const PROMPT: &str = "> ";
const PROMPT_COLOURED: &str = "\x1b[1;32m>\x1b[0m ";

/// The action of the person at the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Gave statements.
    Text(String),
    /// Pressed Ctrl-C, to start over with this input.
    Interrupted,
    /// Pressed Ctrl-D, to end.
    End,
}

/// A line editor. See the module.
pub struct LineEditor {
    editor: Editor<Assistant, FileHistory>,
    history: Option<PathBuf>,
    has_colours: bool,
    /// Set by Ctrl-C while a line is edited.
    interrupted: Arc<AtomicBool>,
}

impl std::fmt::Debug for LineEditor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LineEditor").field("history", &self.history).finish_non_exhaustive()
    }
}

fn io_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

impl LineEditor {
    /// An editor over the terminal, with the history of this file if there is one.
    ///
    /// # Errors
    ///
    /// If the terminal cannot be used. An unreadable history is ignored.
    pub fn new(history: Option<&Path>, has_colours: bool) -> io::Result<LineEditor> {
        let interrupted = Arc::default();
        let mut editor = with_assistant(has_colours, &interrupted).map_err(io_error)?;
        // A FIFO would stop the editor, and a device keeps nothing.
        let is_usable = |path: &&Path| path.metadata().map_or(true, |facts| facts.is_file());
        let history = history.filter(is_usable);
        if let Some(path) = history {
            let _ = editor.load_history(path);
        }
        let history = history.map(Path::to_owned);
        Ok(LineEditor { editor, history, has_colours, interrupted })
    }

    /// Discards the input that was read from the terminal but not edited yet.
    ///
    /// # Errors
    ///
    /// If the terminal cannot be used.
    pub fn discard_ahead(&mut self) -> io::Result<()> {
        // The editor has no call for it: a new editor starts without such input.
        let mut editor = with_assistant(self.has_colours, &self.interrupted).map_err(io_error)?;
        std::mem::swap(editor.history_mut(), self.editor.history_mut());
        self.editor = editor;
        Ok(())
    }

    /// Reads statements.
    ///
    /// # Errors
    ///
    /// If the terminal fails.
    pub fn read(&mut self) -> io::Result<Line> {
        match self.editor.readline(&(PROMPT, PROMPT_COLOURED)) {
            Ok(_) if self.interrupted.swap(false, Ordering::Relaxed) => Ok(Line::Interrupted),
            Ok(text) => Ok(Line::Text(text)),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(error) => Err(io_error(error)),
        }
    }

    /// Adds statements to the history of this session and of later ones. A history that cannot be
    /// kept does not end the session.
    pub fn remember(&mut self, text: &str) {
        let is_new = self.editor.add_history_entry(text.trim()).unwrap_or(false);
        if let Some(path) = self.history.as_deref().filter(|_| is_new) {
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = self.editor.append_history(path);
        }
    }
}

fn with_assistant(
    has_colours: bool,
    interrupted: &Arc<AtomicBool>,
) -> rustyline::Result<Editor<Assistant, FileHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .history_ignore_dups(true)?
        .completion_type(CompletionType::List)
        .color_mode(if has_colours { ColorMode::Enabled } else { ColorMode::Disabled })
        .bracketed_paste(true)
        .build();
    assert_eq!(config.history_duplicates(), HistoryDuplicates::IgnoreConsecutive);
    let history = FileHistory::with_config(&config);
    assert!(history.is_empty());
    let mut editor = Editor::with_history(config, history)?;
    editor.set_helper(Some(Assistant));
    let handler = Interrupt(Arc::clone(interrupted));
    let key = Event::from(KeyEvent::ctrl('C'));
    editor.bind_sequence(key, EventHandler::Conditional(Box::new(handler)));
    Ok(editor)
}

/// Ctrl-C ends the editing of a line as Enter does, and leaves a mark.
///
/// By default the editor fails then, and loses the input that it has read ahead of this key.
struct Interrupt(Arc<AtomicBool>);

impl ConditionalEventHandler for Interrupt {
    fn handle(&self, _: &Event, _: u16, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(true, Ordering::Relaxed);
        Some(Cmd::AcceptLine)
    }
}

/// Completion, colours and validation while a person types.
struct Assistant;

impl Helper for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let completion = complete(line, cursor);
        let pair = |word: String| Pair {
            display: word.trim_end_matches(['=', ' ']).to_owned(),
            replacement: word,
        };
        Ok((completion.start, completion.words.into_iter().map(pair).collect()))
    }
}

impl Highlighter for Assistant {
    fn highlight<'line>(&self, line: &'line str, _: usize) -> Cow<'line, str> {
        Cow::Owned(highlight(line))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        kind != CmdKind::MoveCursor
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_finished(context.input()) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

/// Whether the last statement of a text is finished, or has a mistake that more text cannot mend.
///
/// # Panics
///
/// Never: every statement has a length.
#[must_use]
pub fn is_finished(text: &str) -> bool {
    let mut rest = text;
    while let Some(end) = statement_end(rest) {
        assert!(end > 0, "every statement makes progress");
        rest = &rest[end..];
    }
    match parse(rest) {
        Ok(_) => true,
        Err(error) => !error.is_incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the editor asks for more exactly while something can be missing.
    #[test]
    fn finished() {
        for text in ["", " ", "help", "exit", "lookup_accounts id=1;", "a; help", "x", "id=1"] {
            assert!(is_finished(text), "{text}");
        }
        for text in ["lookup_accounts", "lookup_accounts id=1,", "help; query_accounts\n"] {
            assert!(!is_finished(text), "{text}");
        }
    }

    /// Goal: the history of one session is there in the next, once per statement.
    #[test]
    fn history_across_sessions() {
        let name = format!("florin-history-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let path = folder.join("below").join("history");
        let _ = std::fs::remove_dir_all(&folder);
        for text in ["lookup_accounts\n id=1;", "exit"] {
            let mut editor = LineEditor::new(Some(&path), false).unwrap();
            editor.remember(text);
            editor.remember(text);
        }
        let editor = LineEditor::new(Some(&path), true).unwrap();
        let history: Vec<&String> = editor.editor.history().iter().collect();
        assert_eq!(history, ["lookup_accounts\n id=1;", "exit"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
