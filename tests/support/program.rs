//! The program under test.

use std::process::Command;

/// A command of the program under test.
#[must_use]
pub fn florin() -> Command {
    command(env!("CARGO_BIN_EXE_florin"))
}

/// A command, without the variables by which the environment of the tests sets options for the
/// user's own servers.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("FLORIN_")) {
        command.env_remove(name);
    }
    command
}
