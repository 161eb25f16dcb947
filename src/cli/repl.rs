//! `florin repl`: statements to a cluster, from a terminal, a pipe or the command line.
//!
//! The language is in [`crate::repl`]. Here is where statements come from, where answers go, and
//! what a failure means: at a terminal it is shown and one goes on; anything else ends with the
//! first mistake or failure. Refused events do not end a script, but its exit code tells of them.

use super::environment::ClusterArguments;
use super::exit::{ExitClass, Failure};
use super::output::{print, print_error};
use crate::client::error::RETRY;
use crate::client::{Client, ClientError, Lifetime, Options, ReplicaAddress};
use crate::protocol::EvictionReason;
use crate::repl::{
    Answer, Extent, Line, LineEditor, Request, Statement, SyntaxError, execute, help, json, parse,
    statement_end, table,
};
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long one waits at a terminal before one is told what for.
const CONNECT_SILENT: Duration = Duration::from_millis(1500);
/// Bytes of one statement at most: a full request with all fields given has less.
const STATEMENT_SIZE_MAX: usize = 16 << 20;
/// The width of tables that go to a file or a program, in columns.
const WIDTH_WITHOUT_TERMINAL: u16 = 120;

const EXAMPLES: &str = "\
Examples:
  florin repl
      at the terminal, with what `florin dev` serves
  florin repl --cluster=7 --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000
  florin repl --command='lookup_accounts id=1;' | jq .debits_posted
      one statement; the answer is JSON if it goes to a program, unless --format=table is given
  florin repl < statements.txt
      a script: ends with the first mistake

Statements end with a semicolon; `help` lists them. Scripts end with exit code 2 if a statement is
wrong, 7 if the cluster cannot be reached, and 1 if all was said but some events were refused.";

/// How answers are shown.
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
    /// Statements to execute, instead of asking for them
    #[arg(long, value_name = "STATEMENTS")]
    pub command: Option<String>,
    /// How long connecting, and each answer, may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline: u64,
    /// Form of the answers [default: table at a terminal, objects otherwise]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Read all results of queries, page by page, instead of as many as fit in one reply
    #[arg(long)]
    pub all: bool,
    /// Accepted for scripts of the reference; without effect
    #[arg(long, hide = true)]
    pub verbose: bool,
}

/// Reads statements and shows answers until the end of the input.
///
/// # Errors
///
/// If an address is none, the cluster cannot be reached or, unless at a terminal, a statement is
/// wrong or an event is refused.
pub fn run(arguments: &ReplArguments) -> Result<(), Failure> {
    let addresses = arguments.cluster.replicas(Some(Duration::from_secs(arguments.deadline)))?;
    let is_interactive = arguments.command.is_none() && std::io::stdin().is_terminal();
    let mut repl = Repl {
        cluster: arguments.cluster.cluster,
        addresses,
        deadline: Duration::from_secs(arguments.deadline),
        format: arguments.format.unwrap_or_else(format_by_default),
        extent: if arguments.all { Extent::All } else { Extent::Limit },
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

/// Whether to go on.
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
    /// Made when it is needed, and again after a failure.
    client: Option<Client>,
    /// Events refused so far.
    refused: usize,
    is_interactive: bool,
    /// Set by Ctrl-C while a statement runs.
    interrupt: Option<&'static AtomicBool>,
    /// Something has been shown already.
    has_shown: bool,
}

impl Repl {
    /// All statements are read before the first is executed. The last needs no semicolon.
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

    /// Each statement is executed as soon as it is complete.
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
            // What was looked at before without finding an end needs no second look.
            let may_end = text[before..].contains(';') || text[..before].trim().is_empty();
            let mut done = 0;
            while let Some(end) = statement_end(&text[done..]).filter(|_| may_end) {
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
        self.client = Some(self.connect_patiently()?);
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
                    if interrupt.load(Ordering::Relaxed) {
                        // The kernel discards what is typed ahead; so does the editor.
                        editor.discard_ahead().map_err(failed)?;
                    }
                }
            }
        }
    }

    /// The statements of a text, up to the first that fails; failures are shown.
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
                Ok(Next::Continue) if !after.trim().is_empty() => rest = after,
                Ok(next) => return next,
                Err(failure) => {
                    print_error(&format!("error: {failure}\n"));
                    return Next::Continue;
                }
            }
        }
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

    fn request(&mut self, request: &Request) -> Result<(), Failure> {
        let start = Instant::now();
        let answer = match self.ask(request) {
            // The session went while nothing was said. A question may be asked again unasked.
            Err(ClientError::Evicted(EvictionReason::NoSession))
                if !request.form.operation.is_create() =>
            {
                self.ask(request)
            }
            result => result,
        };
        let answer = answer.map_err(|error| explain(&error, request))?;
        let elapsed = start.elapsed();
        self.refused += answer.refused();
        match self.format {
            Format::Json => print(&json::render(&answer)),
            Format::Objects if answer.count() == 0 => {}
            Format::Objects => print(&json::render_objects(&answer)),
            Format::Table => {
                let text = table::render(&answer, Some(output_width()));
                let milliseconds = elapsed.as_secs_f64() * 1000.0;
                self.show(&if self.is_interactive {
                    format!("{text}, {milliseconds:.1} ms")
                } else {
                    text
                });
            }
        }
        if answer.may_have_more {
            print_error(&format!(
                "note: there may be more than these {} {}, which fill one reply; `limit=N` in the \
                 statement reads up to N, `florin repl --all` reads all",
                answer.count(),
                answer.record.plural
            ));
        }
        Ok(())
    }

    /// Shows a text, apart from what was shown before and is asked next.
    fn show(&mut self, text: &str) {
        if !self.is_interactive && self.has_shown {
            print("");
        }
        print(text);
        if self.is_interactive {
            print("");
        }
        self.has_shown = true;
    }

    /// A client that failed is not used again: the next statement gets a new session.
    fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.connect()?,
        };
        let answer = execute(&mut client, request, self.extent)?;
        self.client = Some(client);
        Ok(answer)
    }

    fn connect(&self) -> Result<Client, ClientError> {
        let interrupt = self.interrupt;
        let lifetime = Lifetime::Short;
        let deadline = self.deadline;
        let options = Options { deadline, interrupt, lifetime, ..Options::default() };
        Client::connect(self.cluster, &self.addresses, &options)
    }

    /// As [`Repl::connect`], and tells who waits that it takes a while.
    fn connect_patiently(&self) -> Result<Client, Failure> {
        let deadline = self.deadline.min(CONNECT_SILENT);
        let left = self.deadline.saturating_sub(deadline);
        let options = Options { deadline, interrupt: self.interrupt, ..Options::default() };
        match Client::connect(self.cluster, &self.addresses, &options) {
            Err(error @ ClientError::Deadline { .. }) if !left.is_zero() => {
                print_error(&format!("{error}; still trying …"));
                let options = Options { deadline: left, ..options };
                let mut client = Client::connect(self.cluster, &self.addresses, &options)?;
                client.set_deadline(self.deadline);
                Ok(client)
            }
            Ok(mut client) => {
                client.set_deadline(self.deadline);
                Ok(client)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A flag that SIGINT sets from now on, instead of ending the process.
fn interrupt_on_signal() -> Result<&'static AtomicBool, Failure> {
    let flag: &'static Arc<AtomicBool> = Box::leak(Box::default());
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(flag)).map_err(
        |error| Failure::new(ExitClass::Error, format!("SIGINT cannot be handled: {error}")),
    )?;
    Ok(flag)
}

/// A mistake in a script: the exit code is that of a wrong command line.
fn mistake(error: &SyntaxError, text: &str, line_first: usize) -> Failure {
    let rendered = error.render(text, line_first);
    let message = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    Failure::new(ExitClass::Usage, message)
}

/// A failure of a statement, and what it means for what was asked.
fn explain(error: &ClientError, request: &Request) -> Failure {
    let mut failure = Failure::from(error.clone());
    if error.is_outcome_unknown() && request.form.operation.is_create() {
        let message = &mut failure.message;
        if !message.ends_with(RETRY) {
            message.push_str("; the outcome is unknown: ");
            message.push_str(RETRY);
        }
        message.push_str(".\nWhat was done already then says `exists`.");
    }
    failure
}

/// A table for a reader at a terminal, JSON for a program.
fn format_by_default() -> Format {
    if std::io::stdout().is_terminal() { Format::Table } else { Format::Objects }
}

/// Columns of the terminal that answers go to.
fn output_width() -> u16 {
    match terminal_size::terminal_size_of(std::io::stdout()) {
        Some((terminal_size::Width(width), _)) if width > 0 => width,
        _ => WIDTH_WITHOUT_TERMINAL,
    }
}

/// Where the history is kept: `$XDG_STATE_HOME/florin/history`, by default below
/// `~/.local/state`; nowhere without a home.
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
    use crate::protocol::Operation;

    fn repl() -> Repl {
        Repl {
            cluster: 0,
            addresses: resolve_addresses("127.0.0.1:1").unwrap(),
            deadline: Duration::from_millis(50),
            format: Format::Table,
            extent: Extent::Limit,
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

    /// Goal: `exit` ends a script and a command before what is wrong behind it is executed.
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

    /// Goal: whoever does not know what became of events is told what to do.
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
            let text = explained("lookup_accounts id=1;", error);
            assert!(!text.contains("safe to retry"), "{text}");
        }
    }
}
