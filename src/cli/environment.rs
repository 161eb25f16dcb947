//! The command line with the environment beside it: `FLORIN_ADDRESSES=44000 florin status`.
//!
//! Options name their variables where they are defined. Here are the rules that hold for all of
//! them: an option on the command line wins, an empty variable counts as none, and an error about a
//! value from the environment names the variable. Not covered: which options have a variable.

use super::exit::{ExitClass, Failure};
use super::help::with_groups;
use super::{Arguments, output};
use crate::client::{ReplicaAddress, resolve_addresses};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};
use std::ffi::{OsStr, OsString};

/// Where a client connects if nothing else is given: where `florin dev` listens.
pub const ADDRESSES_DEFAULT: &str = "127.0.0.1:3000";

/// Parses the command line of this process; prints help and errors, and ends, as clap does.
#[must_use]
pub fn parse() -> Arguments {
    let result = command().try_get_matches().and_then(|it| Arguments::from_arg_matches(&it));
    result.unwrap_or_else(|error| match origin_of_mistake(&error) {
        None => error.exit(),
        Some(message) => {
            output::print_error(&message);
            std::process::exit(ExitClass::Usage as i32);
        }
    })
}

/// The definition of the command line, without the variables that are empty.
#[must_use]
pub fn command() -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    without_variables(with_groups(Arguments::command()), &is_empty)
}

/// Removes those variables from the options of a command and of all its subcommands that are to be
/// ignored.
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

/// Whether an option is on the command line, as `--name` or `--name=value`.
#[must_use]
pub fn is_given(option: &str) -> bool {
    std::env::args_os().any(|word| is_option(&word, option))
}

fn is_option(word: &OsString, option: &str) -> bool {
    let rest = word.to_str().and_then(|word| word.strip_prefix(option));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// The variable of an option: `FLORIN_CACHE_GRID` of `--cache-grid`.
fn variable_of(option: &str) -> String {
    let name = option.trim_start_matches('-').replace('-', "_").to_ascii_uppercase();
    format!("FLORIN_{name}")
}

/// How an error should name an option whose value is wrong: by its variable if the value is from
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

/// The text of an error about a value that is from the environment; none for other errors.
fn origin_of_mistake(error: &clap::Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let source = source_of(argument.split(' ').next()?);
    let named = format!("in {source}, which stands for '{argument}'");
    let text = error.to_string();
    source
        .starts_with("environment")
        .then(|| text.trim_end().replacen(&format!("for '{argument}'"), &named, 1))
}

/// The replicas that `--addresses` or `FLORIN_ADDRESSES` lists; host names are looked up.
///
/// # Errors
///
/// If the list is not a valid one, or a name has no address.
pub fn resolve(addresses: &str) -> Result<Vec<ReplicaAddress>, Failure> {
    resolve_addresses(addresses).map_err(|error| {
        let source = source_of("--addresses");
        Failure::new(ExitClass::Usage, format!("{source}: {error}"))
    })
}

/// Refuses options about a cluster for a command that was given a data file.
///
/// Their variables are ignored instead: they may be set for other commands.
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

    /// Goal: an option is found with and without a value, and no other is.
    #[test]
    fn options() {
        for (word, expected) in
            [("--addresses", true), ("--addresses=1", true), ("--addresses-x", false), ("x", false)]
        {
            assert_eq!(is_option(&OsString::from(word), "--addresses"), expected, "{word}");
        }
    }
}
