//! `florin repl`: statements to a cluster, from a terminal, a pipe or the command line.
//!
//! The language is in [`crate::repl`]. This module decides where statements come from, where
//! answers go, and what a failure means: an interactive session prints the failure and continues; a
//! script ends with the first mistake or failure. Refused events do not end a script, but they
//! change its exit code.

use super::connect::connect_patiently;
use super::environment::ClusterArguments;
use super::exit::{ExitClass, Failure};
use super::output::{JsonArgument, print, print_error, print_part};
use crate::client::error::RETRY;
use crate::client::{Client, ClientError, Lifetime, Options, ReplicaAddress};
use crate::protocol::types::account_flags;
use crate::protocol::{EvictionReason, Operation};
use crate::repl::{
    Answer, Extent, Form, Line, LineEditor, Pages, Request, Statement, SyntaxError, Tally, help,
    json, parse, statement_end, table,
};
use signal_hook::consts::SIGINT;
use signal_hook::flag::{register, register_conditional_shutdown};
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Maximum size of one statement in bytes: a full request with all fields given has less.
const STATEMENT_SIZE_MAX: usize = 16 << 20;
/// Statements that a note lists; further ones are counted.
const NOT_RUN_LISTED: usize = 10;
/// Maximum length of the line of such a statement, in characters.
const NOT_RUN_COLUMNS: usize = 72;
/// The answers to events that are sent again.
const RETRIED: &str = "\
An event that was done answers `exists` then. In a linked chain the first event decides: if it
answers `exists`, the chain was done, although the others answer `linked_event_failed`.";
/// The width of tables that go to a file or a program, in columns.
const WIDTH_WITHOUT_TERMINAL: u16 = 120;

const EXAMPLES: &str = "\
Examples:
  florin repl
      at the terminal, against the server that `florin dev` runs
  florin repl --cluster=7 --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000
  florin repl --command='lookup_accounts id=1;' | jq .debits_posted
      one statement; the answer is JSON if it goes to a program, unless --format=table is given
  florin repl < statements.txt
      a script: ends with the first mistake

Statements end with a semicolon; `help` lists them. Scripts end with exit code 2 if a statement is
wrong, 7 if the cluster cannot be reached, and 1 if all statements ran and the cluster refused some
events. At the terminal a failure ends the text that was pasted or typed as one; the statements of
it that did not run are listed. Ctrl-C ends the statement that runs and discards the input behind
it; a second Ctrl-C ends the program.

Long answers are read and printed page by page; each page of a table has its own widths.";

/// The form of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Human-readable
    #[value(alias = "text")]
    Table,
    /// One JSON document on a line for each statement
    Json,
    /// One JSON object for each result, as the reference's REPL prints it
    Objects,
}

/// Options of `florin repl`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ReplArguments {
    /// Cluster to connect to
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Statements to execute, instead of reading them from standard input
    #[arg(long, value_name = "STATEMENTS")]
    pub command: Option<String>,
    /// Timeout for connecting and for each reply, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline: u64,
    /// Form of the answers [default: table at a terminal, objects otherwise]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Read all results of queries that have no `limit`, instead of as many as fit in one reply
    #[arg(long)]
    pub all: bool,
    /// Earlier spelling of `--format=json`
    #[command(flatten)]
    pub json: JsonArgument,
    /// Accepted for scripts of the reference; without effect
    #[arg(long, hide = true)]
    pub verbose: bool,
}

/// Reads statements and shows answers until the end of the input.
///
/// # Errors
///
/// If an address is not valid, the cluster cannot be reached or, in a script, a statement is wrong
/// or an event is refused.
pub fn run(arguments: &ReplArguments) -> Result<(), Failure> {
    let addresses = arguments.cluster.replicas(Some(Duration::from_secs(arguments.deadline)))?;
    let is_interactive = arguments.command.is_none() && std::io::stdin().is_terminal();
    let mut repl = Repl {
        cluster: arguments.cluster.cluster,
        addresses,
        deadline: Duration::from_secs(arguments.deadline),
        format: match arguments.format {
            _ if arguments.json.is_given() => Format::Json,
            Some(format) => format,
            None => format_by_default(),
        },
        extent: if arguments.all { Extent::All } else { Extent::Reply },
        client: None,
        refused: 0,
        is_interactive,
        interrupt: None,
        has_shown: false,
    };
    match &arguments.command {
        Some(command) => repl.run_command(command)?,
        None if is_interactive => return repl.run_interactive(),
        None => repl.run_script(&mut std::io::stdin().lock())?,
    }
    match repl.refused {
        0 => Ok(()),
        1 => Err(Failure::new(ExitClass::Error, "1 event was refused")),
        count => Err(Failure::new(ExitClass::Error, format!("{count} events were refused"))),
    }
}

/// The effect of a statement on the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Continue,
    Exit,
}

/// The state of a run. See the module.
struct Repl {
    cluster: u128,
    addresses: Vec<ReplicaAddress>,
    deadline: Duration,
    format: Format,
    extent: Extent,
    /// Created when it is needed, and again after a failure.
    client: Option<Client>,
    /// Events refused so far.
    refused: usize,
    is_interactive: bool,
    /// Set by Ctrl-C while a statement runs.
    interrupt: Option<&'static AtomicBool>,
    /// Whether something has been printed.
    has_shown: bool,
}

impl Repl {
    /// Reads all statements before it executes the first. The last needs no semicolon.
    fn run_command(&mut self, command: &str) -> Result<(), Failure> {
        let is_ended = command.trim_end().ends_with(';');
        let text = if is_ended { command.to_owned() } else { format!("{command};") };
        let mut statements = Vec::new();
        let mut rest = text.as_str();
        while let Some(end) = statement_end(rest) {
            let (statement, after) = rest.split_at(end);
            statements.push(parse(statement).map_err(|error| mistake(&error, statement, 0))?);
            rest = after;
        }
        assert!(rest.trim().is_empty(), "the text ends with a semicolon");
        for statement in &statements {
            if self.carry_out(statement)? == Next::Exit {
                break;
            }
        }
        Ok(())
    }

    /// Executes each statement as soon as it is complete.
    fn run_script(&mut self, input: &mut dyn BufRead) -> Result<(), Failure> {
        let mut text = String::new();
        let mut line_first = 1;
        loop {
            let failed = |error: std::io::Error| {
                Failure::new(ExitClass::Error, format!("the input cannot be read: {error}"))
            };
            let before = text.len();
            let room = STATEMENT_SIZE_MAX.saturating_sub(before) + 1;
            let room = u64::try_from(room).expect("lengths fit 64 bits");
            let size = Read::take(&mut *input, room).read_line(&mut text).map_err(failed)?;
            // Text that was searched before without finding an end is not searched again: it would
            // take the square of the time. So blank lines do not stay before a statement either.
            let may_end = before == 0 || text[before..].contains(';');
            let mut done = 0;
            while may_end && let Some(end) = statement_end(&text[done..]) {
                let statement = &text[done..done + end];
                let parsed =
                    parse(statement).map_err(|error| mistake(&error, statement, line_first))?;
                if self.carry_out(&parsed)? == Next::Exit {
                    return Ok(());
                }
                line_first += statement.matches('\n').count();
                done += end;
            }
            text.drain(..done);
            if may_end && text.trim().is_empty() {
                line_first += text.matches('\n').count();
                text.clear();
            }
            if text.len() > STATEMENT_SIZE_MAX {
                let message = format!("line {line_first}: a statement of more than 16 MiB");
                return Err(Failure::new(ExitClass::Usage, message));
            }
            if size == 0 {
                let statement = parse(&text).map_err(|error| mistake(&error, &text, line_first))?;
                return self.carry_out(&statement).map(|_| ());
            }
        }
    }

    fn run_interactive(&mut self) -> Result<(), Failure> {
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let failed = |error: std::io::Error| {
            Failure::new(ExitClass::Error, format!("the terminal cannot be used: {error}"))
        };
        let interrupt = interrupt_on_signal()?;
        self.interrupt = Some(interrupt);
        let options = self.options();
        self.client = Some(connect_patiently(self.cluster, &self.addresses, &options)?);
        print(&format!(
            "Florin {}, cluster {}. Type `help` for help; Ctrl-D ends.",
            env!("CARGO_PKG_VERSION"),
            self.cluster
        ));
        let mut editor = LineEditor::new(history_path().as_deref(), has_colours).map_err(failed)?;
        loop {
            match editor.read().map_err(failed)? {
                Line::End => return Ok(()),
                Line::Interrupted => {}
                Line::Text(text) => {
                    if text.trim().is_empty() {
                        continue;
                    }
                    editor.remember(&text);
                    interrupt.store(false, Ordering::Relaxed);
                    if self.carry_out_all(&text) == Next::Exit {
                        return Ok(());
                    }
                    if interrupt.swap(false, Ordering::Relaxed) {
                        // The kernel discards input that it has not delivered; so does the editor.
                        editor.discard_ahead().map_err(failed)?;
                    }
                }
            }
        }
    }

    /// Executes the statements of a text up to the first failure or interruption, and lists those
    /// behind it.
    fn carry_out_all(&mut self, text: &str) -> Next {
        let mut rest = text;
        loop {
            let end = statement_end(rest).unwrap_or(rest.len());
            let (statement, after) = rest.split_at(end);
            let result = match parse(statement) {
                Ok(parsed) => self.carry_out(&parsed),
                Err(error) => Err(mistake(&error, statement, 0)),
            };
            match result {
                Ok(Next::Exit) => return Next::Exit,
                Ok(Next::Continue) if after.trim().is_empty() => return Next::Continue,
                Ok(Next::Continue) if !self.is_interrupted() => rest = after,
                Ok(Next::Continue) => {
                    print_error(&format!("interrupted{}", not_run(after)));
                    return Next::Continue;
                }
                Err(failure) => {
                    print_error(&format!("error: {failure}{}\n", not_run(after)));
                    return Next::Continue;
                }
            }
        }
    }

    /// Whether Ctrl-C was pressed since the last input.
    fn is_interrupted(&self) -> bool {
        self.interrupt.is_some_and(|interrupt| interrupt.load(Ordering::Relaxed))
    }

    fn carry_out(&mut self, statement: &Statement) -> Result<Next, Failure> {
        match statement {
            Statement::Empty => {}
            Statement::Exit => return Ok(Next::Exit),
            Statement::Help(None) => self.show(&help::overview()),
            Statement::Help(Some(form)) => self.show(&help::statement(form)),
            Statement::Request(request) => self.request(request)?,
        }
        Ok(Next::Continue)
    }

    /// Executes a request, and prints its answer page by page.
    fn request(&mut self, request: &Request) -> Result<(), Failure> {
        for note in &request.notes {
            print_error(&format!("note: {note}"));
        }
        let mut pages = Pages::new(request, self.extent);
        let mut tally: Option<Tally> = None;
        let mut waited = Duration::ZERO;
        loop {
            let rows_before = tally.map_or(0, |tally| tally.count);
            let result = match self.next_page(&mut pages, rows_before, &mut waited) {
                Ok(page) => page,
                Err(error) => {
                    if self.format == Format::Json && tally.is_some() {
                        // The line ends, and is not a document.
                        print("");
                    }
                    return Err(explain(&error, request));
                }
            };
            let Some(page) = result else { break };
            self.show_page(&page, rows_before);
            self.refused += page.refused();
            match &mut tally {
                None => tally = Some(Tally::of(&page)),
                Some(tally) => tally.add(&page),
            }
        }
        let tally = tally.expect("every answer has a page");
        self.show_end(&tally, waited, &pages);
        self.explain_nothing(request, tally.count);
        Ok(())
    }

    /// Reads one page, unless the user has interrupted the pages; adds how long that took.
    fn next_page(
        &mut self,
        pages: &mut Pages<'_>,
        rows_before: usize,
        waited: &mut Duration,
    ) -> Result<Option<Answer>, ClientError> {
        if rows_before > 0 && !pages.is_done() && self.is_interrupted() {
            return Err(ClientError::Interrupted { request: None });
        }
        let start = Instant::now();
        let result = match self.ask(pages) {
            // The session ended while the user was idle. A question may be repeated.
            Err(ClientError::Evicted(EvictionReason::NoSession)) if !pages.creates() => {
                self.ask(pages)
            }
            result => result,
        };
        *waited += start.elapsed();
        result
    }

    /// Prints a page, behind `rows_before` rows of earlier ones.
    fn show_page(&mut self, page: &Answer, rows_before: usize) {
        match self.format {
            Format::Json => print_part(&json::render(page, rows_before)),
            Format::Objects if page.count() == 0 => {}
            Format::Objects => print(&json::render_objects(page)),
            Format::Table => {
                if rows_before == 0 {
                    self.separate();
                }
                if page.count() > 0 {
                    print(&table::render(page, rows_before + 1, Some(output_width())));
                }
            }
        }
    }

    /// Prints what follows the last page.
    fn show_end(&self, tally: &Tally, waited: Duration, pages: &Pages<'_>) {
        let summary = tally.summary();
        match self.format {
            Format::Json => print(json::END),
            Format::Objects => {}
            Format::Table if self.is_interactive => {
                print(&format!("{summary}, {:.1} ms\n", waited.as_secs_f64() * 1000.0));
            }
            Format::Table => print(&summary),
        }
        if pages.may_have_more() {
            print_error(&format!(
                "note: there may be more than these {} {}, which fill one reply; `limit=N` in the \
                 statement reads up to N, `florin repl --all` reads all",
                tally.count, tally.record.plural
            ));
        }
    }

    /// Prints why an account has no balances over time, if that is so.
    fn explain_nothing(&mut self, request: &Request, count: usize) {
        let Some(account_id) = request.event_value("account_id") else { return };
        if count > 0 || request.form.operation != Operation::GetAccountBalances {
            return;
        }
        let lookup = Form::find("lookup_accounts").map(|form| Request::lookup(form, account_id));
        let lookup = lookup.expect("there is such a statement");
        // The question is answered already: without this one only the note is missing.
        let Ok(Some(found)) = self.ask(&mut Pages::new(&lookup, Extent::Reply)) else { return };
        let flags = found.record.field("flags").zip(found.rows().next());
        let history = u128::from(account_flags::HISTORY);
        match flags.map(|(flags, row)| flags.read(row)) {
            None => print_error(&format!("note: there is no account {account_id}")),
            Some(flags) if flags & history == 0 => print_error(&format!(
                "note: account {account_id} was created without flags=history: only its current \
                 balances are kept"
            )),
            Some(_) => {}
        }
    }

    /// Prints a text.
    fn show(&mut self, text: &str) {
        self.separate();
        print(text);
        if self.is_interactive {
            print("");
        }
    }

    /// Separates the text that follows from earlier ones. Interactive sessions separate at the end.
    fn separate(&mut self) {
        if !self.is_interactive && self.has_shown {
            print("");
        }
        self.has_shown = true;
    }

    /// Asks for a page. A client that failed is not used again: the next statement gets a new
    /// session.
    fn ask(&mut self, pages: &mut Pages<'_>) -> Result<Option<Answer>, ClientError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(self.cluster, &self.addresses, &self.options())?,
        };
        let page = pages.next(&mut client)?;
        self.client = Some(client);
        Ok(page)
    }

    /// The options of every session, the first and those that follow a failure. An interactive
    /// session is as long-lived as an application's; that of a script makes way before both.
    fn options(&self) -> Options {
        Options {
            deadline: self.deadline,
            interrupt: self.interrupt,
            lifetime: if self.is_interactive { Lifetime::Long } else { Lifetime::Short },
            ..Options::default()
        }
    }
}

/// Returns a flag that SIGINT sets from now on. A second SIGINT ends the process, whatever it does:
/// a terminal without an editor, or one that a large table fills, notices no flag.
fn interrupt_on_signal() -> Result<&'static AtomicBool, Failure> {
    let flag: &'static Arc<AtomicBool> = Box::leak(Box::default());
    // In this order: the second signal finds the mark that the first has left.
    register_conditional_shutdown(SIGINT, 128 + SIGINT, Arc::clone(flag))
        .and_then(|_| register(SIGINT, Arc::clone(flag)))
        .map_err(|error| {
            Failure::new(ExitClass::Error, format!("SIGINT cannot be handled: {error}"))
        })?;
    Ok(flag)
}

/// Returns a note with the statements of a text behind a failure; nothing if there are none.
fn not_run(text: &str) -> String {
    let mut rest = text;
    let (mut count, mut list) = (0, String::new());
    while !rest.trim().is_empty() {
        let (statement, after) = rest.split_at(statement_end(rest).unwrap_or(rest.len()));
        rest = after;
        let words: Vec<&str> = statement.split_whitespace().collect();
        if words == [";"] {
            continue;
        }
        count += 1;
        if count <= NOT_RUN_LISTED {
            let line = words.join(" ");
            let cut = line.char_indices().nth(NOT_RUN_COLUMNS).map(|(place, _)| place);
            list.push_str("\n  ");
            list.push_str(&line[..cut.unwrap_or(line.len())]);
            list.push_str(if cut.is_some() { "…" } else { "" });
        }
    }
    let more = match count.saturating_sub(NOT_RUN_LISTED) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    match count {
        0 => String::new(),
        1 => format!("\nThe statement behind it did not run:{list}"),
        _ => format!("\nThe {count} statements behind it did not run:{list}{more}"),
    }
}

/// Returns a mistake in a statement as a failure, with the exit code of a wrong command line.
fn mistake(error: &SyntaxError, text: &str, line_first: usize) -> Failure {
    let rendered = error.render(text, line_first);
    let message = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    Failure::new(ExitClass::Usage, message)
}

/// Returns the failure of a statement; of one that creates, with what a retry will answer.
fn explain(error: &ClientError, request: &Request) -> Failure {
    let mut failure = Failure::from(error.clone());
    if error.is_outcome_unknown() && request.form.operation.is_create() {
        let message = &mut failure.message;
        if !message.ends_with(RETRY) {
            message.push_str("; the outcome is unknown: ");
            message.push_str(RETRY);
        }
        message.push_str(".\n");
        message.push_str(RETRIED);
    }
    failure
}

/// Returns tables for a terminal, objects for a program.
fn format_by_default() -> Format {
    if std::io::stdout().is_terminal() { Format::Table } else { Format::Objects }
}

/// Returns the width of the terminal that answers go to, in columns.
fn output_width() -> u16 {
    match terminal_size::terminal_size_of(std::io::stdout()) {
        Some((terminal_size::Width(width), _)) if width > 0 => width,
        _ => WIDTH_WITHOUT_TERMINAL,
    }
}

/// Returns the path of the history: `$XDG_STATE_HOME/florin/history`, by default below
/// `~/.local/state`; none without a home.
fn history_path() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")))?;
    Some(state.join("florin").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::resolve_addresses;

    fn repl() -> Repl {
        Repl {
            cluster: 0,
            addresses: resolve_addresses("127.0.0.1:1").unwrap(),
            deadline: Duration::from_millis(50),
            format: Format::Table,
            extent: Extent::Reply,
            client: None,
            refused: 0,
            is_interactive: false,
            interrupt: None,
            has_shown: false,
        }
    }

    /// Goal: a script's mistake names its line, wherever statements end.
    #[test]
    fn script_mistakes() {
        let run = |text: &str| repl().run_script(&mut text.as_bytes()).unwrap_err();
        let failure = run(";\n;; ;\n\nlookup_accounts\n idd=1;");
        assert_eq!(failure.class, ExitClass::Usage);
        assert!(failure.message.contains("5 |  idd=1;\n  |  ^^^\n"), "{failure}");
        let failure = run("; lookup_accounts id=1");
        assert!(failure.message.contains("not finished"), "{failure}");
        assert!(failure.message.contains("1 |  lookup_accounts id=1\n"), "{failure}");
    }

    /// Goal: `exit` ends a script and a command before a wrong statement behind it.
    #[test]
    fn exit_ends() {
        assert_eq!(repl().run_script(&mut "exit\nlookup_accounts id=1;".as_bytes()), Ok(()));
        assert_eq!(repl().run_script(&mut "exit;".as_bytes()), Ok(()));
        assert_eq!(repl().run_script(&mut "".as_bytes()), Ok(()));
        assert_eq!(repl().run_command("exit; lookup_accounts id=1"), Ok(()));
        assert_eq!(repl().run_command(""), Ok(()));
    }

    /// Goal: nothing of a command is executed if a later statement is wrong.
    #[test]
    fn command_is_read_first() {
        let failure = repl().run_command("lookup_accounts id=1; lookup_accounts").unwrap_err();
        assert_eq!(failure.class, ExitClass::Usage);
        assert!(failure.message.contains("needs `id`"), "{failure}");
    }

    /// Goal: a cluster that cannot be reached is a failure of its own class, with the address.
    #[test]
    fn unreachable() {
        let failure = repl().run_command("query_accounts").unwrap_err();
        assert_eq!(failure.class, ExitClass::Cluster);
        assert!(failure.message.contains("127.0.0.1:1: connection refused"), "{failure}");
    }

    /// Goal: a script's session makes way before an application's; an interactive one does not.
    #[test]
    fn lifetimes() {
        for (is_interactive, expected) in [(false, Lifetime::Short), (true, Lifetime::Long)] {
            let options = Repl { is_interactive, ..repl() }.options();
            assert_eq!(options.lifetime, expected);
        }
    }

    /// Goal: statements that do not run are counted and listed, each on one line.
    #[test]
    fn statements_not_run() {
        assert_eq!(not_run(""), "");
        assert_eq!(not_run(" ;\n"), "");
        let one = "\nThe statement behind it did not run:\n  lookup_accounts id=1;";
        assert_eq!(not_run("\nlookup_accounts\n id=1;\n"), one);
        let many = not_run(&"lookup_accounts id=1;".repeat(12));
        assert!(many.starts_with("\nThe 12 statements behind it did not run:\n  look"), "{many}");
        assert!(many.ends_with("id=1;\n  and 2 more"), "{many}");
        assert_eq!(many.lines().count(), 1 + 1 + NOT_RUN_LISTED + 1);
        let long = not_run(&format!("lookup_accounts {};", "id=1, ".repeat(100)));
        assert!(long.lines().all(|line| line.chars().count() < 80) && long.ends_with('…'));
    }

    /// Goal: an unknown outcome comes with what to do, and with what a retry answers.
    #[test]
    fn unknown_outcomes() {
        let explained = |text: &str, error: fn(Operation) -> ClientError| match parse(text) {
            Ok(Statement::Request(request)) => {
                explain(&error(request.form.operation), &request).message
            }
            other => panic!("{other:?}"),
        };
        let late = |operation: Operation| ClientError::Deadline {
            waited: Duration::from_secs(1),
            request: Some(operation),
            connection: None,
        };
        let evicted = |_: Operation| ClientError::Evicted(EvictionReason::NoSession);
        for error in [late, evicted] {
            let text = explained("create_accounts id=1;", error);
            assert_eq!(text.matches("safe to retry with the same ids.\n").count(), 1, "{text}");
            assert!(text.contains("In a linked chain the first event decides"), "{text}");
            let text = explained("lookup_accounts id=1;", error);
            assert!(!text.contains("safe to retry"), "{text}");
        }
    }
}
