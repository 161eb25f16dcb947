//! The command line with the environment beside it: `FLORIN_ADDRESSES=44000 florin status`.
//!
//! Options name their variables where they are defined. This module has the rules for all of them:
//! an option on the command line wins, an empty variable counts as not set, and an error about a
//! value from the environment names the variable. [`ClusterArguments`] are the options of commands
//! that connect to a cluster. Not covered: which other options have a variable.

use super::exit::{ExitClass, Failure};
use super::help::with_groups;
use super::patient::FIRST_DEADLINE;
use super::{Arguments, output};
use crate::client::{AddressError, ReplicaAddress, read_replicas, resolve_addresses_within};
use crate::protocol::NODES_MAX;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;
use std::time::Duration;

/// Default address of a client: where `florin dev` listens.
pub const ADDRESSES_DEFAULT: &str = "127.0.0.1:3000";

/// The cluster that a command connects to.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArguments {
    /// Id of the cluster
    #[arg(
        long,
        value_name = "ID",
        default_value_t = 0,
        env = "FLORIN_CLUSTER",
        hide_env_values = true
    )]
    pub cluster: u128,
    /// Addresses of all replicas of the cluster, in order; host names are resolved
    #[arg(long, value_name = "LIST", default_value = ADDRESSES_DEFAULT,
        env = "FLORIN_ADDRESSES", hide_env_values = true)]
    pub addresses: String,
}

impl ClusterArguments {
    /// Returns the replicas for a client. Names are looked up within the deadline of its first
    /// answer; those without an address are looked up again by the client.
    ///
    /// # Errors
    ///
    /// If the list is not a valid one, or none of its names has an address.
    pub fn replicas(&self, deadline: Option<Duration>) -> Result<Vec<ReplicaAddress>, Failure> {
        let deadline = deadline.unwrap_or(FIRST_DEADLINE);
        resolve_addresses_within(&self.addresses, deadline).map_err(|error| wrong_list(&error))
    }

    /// Returns the replicas and the standbys behind them, none of whose names are looked up.
    ///
    /// # Errors
    ///
    /// If the list is not a valid one.
    pub fn replicas_and_standbys(&self) -> Result<Vec<ReplicaAddress>, Failure> {
        let limit = usize::from(NODES_MAX);
        read_replicas(&self.addresses, limit).map_err(|error| wrong_list(&error))
    }
}

fn wrong_list(error: &AddressError) -> Failure {
    Failure::new(error.into(), format!("{}: {error}", source_of("--addresses")))
}

/// The options of this process, from its command line and the environment.
static MATCHES: OnceLock<ArgMatches> = OnceLock::new();

/// Parses the command line of this process. As clap does, prints help or an error and exits.
#[must_use]
pub fn parse() -> Arguments {
    let result = command()
        .try_get_matches()
        .and_then(|matches| Arguments::from_arg_matches(MATCHES.get_or_init(|| matches)));
    result.unwrap_or_else(|error| match origin_of_mistake(&error).or_else(|| plain(&error)) {
        None => error.exit(),
        Some(message) => {
            output::print_error(&message);
            std::process::exit(ExitClass::Usage as i32);
        }
    })
}

/// Returns the definition of the command line, without the variables that are empty.
#[must_use]
pub fn command() -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    without_variables(with_groups(Arguments::command()), &is_empty)
}

/// Removes the variables to ignore from the options of a command and of all its subcommands.
fn without_variables(command: Command, ignores: &dyn Fn(&OsStr) -> bool) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(name) if ignores(name) => argument.env(clap::builder::Resettable::Reset),
        _ => argument,
    });
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |inner| without_variables(inner, ignores))
    })
}

/// Whether an option is on the command line.
#[must_use]
pub fn is_given(option: &str) -> bool {
    MATCHES.get().is_some_and(|matches| is_given_in(matches, option))
}

/// Whether an option of a command or of the one below it is on the command line.
fn is_given_in(matches: &ArgMatches, option: &str) -> bool {
    let id = option.trim_start_matches('-').replace('-', "_");
    let source = matches.try_contains_id(&id).ok().and_then(|_| matches.value_source(&id));
    let below = matches.subcommand().is_some_and(|(_, below)| is_given_in(below, option));
    source == Some(ValueSource::CommandLine) || below
}

/// Returns the variable of an option: `FLORIN_CACHE_GRID` of `--cache-grid`.
fn variable_of(option: &str) -> String {
    let name = option.trim_start_matches('-').replace('-', "_").to_ascii_uppercase();
    format!("FLORIN_{name}")
}

/// Returns the name of an option for an error about its value: its variable if the value is from
/// the environment.
#[must_use]
pub fn source_of(option: &str) -> String {
    let variable = variable_of(option);
    let is_set = std::env::var_os(&variable).is_some_and(|value| !value.is_empty());
    if is_set && !is_given(option) {
        format!("environment variable {variable}")
    } else {
        option.to_owned()
    }
}

/// Returns the text of an error that must not be shown as it is, with colours: it quotes control
/// characters or a long value.
fn plain(error: &clap::Error) -> Option<String> {
    // Without colours, and also without sequences for the terminal in a value.
    let text = error.to_string();
    let has_control = |word: OsString| word.to_string_lossy().contains(char::is_control);
    let is_quoting = output::legible(&text) != text || std::env::args_os().any(has_control);
    (error.use_stderr() && is_quoting).then(|| text.trim_end().to_owned())
}

/// Returns the name of a variable of an option whose value is not text, if there is one.
fn variable_without_text() -> Option<String> {
    let mut variables = std::env::vars_os().filter(|(_, value)| value.to_str().is_none());
    variables
        .find_map(|(name, _)| name.into_string().ok().filter(|name| name.starts_with("FLORIN_")))
}

/// Returns the text of an error about a value from the environment; none for other errors.
fn origin_of_mistake(error: &clap::Error) -> Option<String> {
    if error.kind() == ErrorKind::InvalidUtf8 {
        let variable = variable_without_text()?;
        return Some(format!("error: the value of environment variable {variable} is not UTF-8"));
    }
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let text_of = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = text_of(ContextKind::InvalidArg)?;
    let value = text_of(ContextKind::InvalidValue)?;
    let variable = variable_of(argument.split(' ').next()?);
    // Of a value that is also on the command line, either name is right.
    if std::env::var_os(&variable).is_none_or(|it| it != value) {
        return None;
    }
    let named = format!("in environment variable {variable}, which stands for '{argument}'");
    let text = error.to_string();
    Some(text.trim_end().replacen(&format!("for '{argument}'"), &named, 1))
}

/// Refuses options about a cluster for a command that was given a data file.
///
/// Their variables may be set, for other commands. Beside a data file nothing uses them, but clap
/// refuses a value that is not valid for the option.
///
/// # Errors
///
/// If one of them is on the command line.
pub fn refuse_with_path(options: &[&str]) -> Result<(), Failure> {
    match options.iter().find(|option| is_given(option)) {
        None => Ok(()),
        Some(option) => {
            let message = format!("{option} cannot be used with PATH: name a file or a cluster");
            Err(Failure::new(ExitClass::Usage, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: variables are derived from options, and each definition follows that rule.
    #[test]
    fn variables() {
        assert_eq!(variable_of("--cache-grid"), "FLORIN_CACHE_GRID");
        let root = Arguments::command();
        let mut count = 0;
        for command in root.get_subcommands() {
            for argument in command.get_arguments() {
                let (Some(variable), Some(long)) = (argument.get_env(), argument.get_long()) else {
                    assert!(argument.get_env().is_none(), "{argument:?}");
                    continue;
                };
                let expected = variable_of(&format!("--{long}"));
                assert_eq!(variable.to_str(), Some(expected.as_str()));
                assert!(argument.is_hide_env_values_set(), "manuals must not depend on them");
                count += 1;
            }
        }
        assert!(count > 10, "{count}");
    }

    /// Goal: the id that a new data file keeps for good is never taken from the environment.
    #[test]
    fn ids_that_stay() {
        let root = Arguments::command();
        for name in ["format", "recover"] {
            let command = root.find_subcommand(name).unwrap();
            let cluster = command.get_arguments().find(|it| it.get_id() == "cluster").unwrap();
            assert!(cluster.get_env().is_none() && cluster.is_required_set(), "{name}");
        }
    }

    /// Goal: variables that are ignored are gone from all commands, and others are not.
    #[test]
    fn ignored_variables() {
        let command = without_variables(Arguments::command(), &|name| name == "FLORIN_ADDRESSES");
        let has = |command: &Command, name: &str| {
            command.get_arguments().any(|it| it.get_env().is_some_and(|env| env == name))
        };
        for inner in command.get_subcommands() {
            assert!(!has(inner, "FLORIN_ADDRESSES"), "{}", inner.get_name());
        }
        assert!(command.get_subcommands().any(|inner| has(inner, "FLORIN_CLUSTER")));
    }

    /// Goal: an option counts as given if it is on the command line, with its value behind it or
    /// as the next word, and not if it has its value from elsewhere.
    #[test]
    fn options() {
        let matches = |words: &str| {
            let command = without_variables(Arguments::command(), &|_| true);
            command.try_get_matches_from(words.split(' ')).unwrap()
        };
        for words in ["florin status --addresses=1", "florin status --addresses 1"] {
            assert!(is_given_in(&matches(words), "--addresses"), "{words}");
            assert!(!is_given_in(&matches(words), "--cluster"), "{words}");
        }
        let words = "florin repl --command=--addresses=1";
        assert!(!is_given_in(&matches(words), "--addresses"), "a value is not an option");
        assert!(!is_given_in(&matches(words), "--no-such-option"));
    }
}
