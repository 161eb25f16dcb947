//! The list of commands that `florin help` shows: grouped by what people want to do.

use clap::Command;
use std::fmt::Write as _;

/// The groups, and the commands in each in the order in which they are needed.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Develop with a ledger", &["dev", "repl", "benchmark"]),
    ("Run replicas", &["doctor", "format", "start", "recover", "status"]),
    ("Read a ledger", &["balance", "export", "cdc"]),
    ("Look into and test Florin itself", &["inspect", "vopr"]),
    ("Use this program", &["help", "version", "completions", "man"]),
];

/// What `florin help` says of itself; clap adds this command only when it parses.
const ABOUT_HELP: &str = "Show this list, or the help of a command";

/// The command with a help that shows its subcommands in their groups.
///
/// # Panics
///
/// If a group names a command that does not exist.
#[must_use]
pub fn with_groups(command: Command) -> Command {
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (heading, names) in GROUPS {
        write!(text, "\n{heading}:\n").expect("to a string");
        for name in names {
            let about = match command.find_subcommand(name) {
                Some(found) => found.get_about().map(ToString::to_string).unwrap_or_default(),
                None => ABOUT_HELP.to_owned(),
            };
            writeln!(text, "  {name:<12} {about}").expect("to a string");
        }
    }
    text.push_str("\nOptions:\n{options}{after-help}");
    command.help_template(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::CommandFactory;

    /// Goal: every command is in one group, and the help has all of them and fits 80 columns.
    #[test]
    fn groups_are_complete() {
        let root = Arguments::command();
        let mut grouped: Vec<&str> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        grouped.sort_unstable();
        let mut names: Vec<&str> = root.get_subcommands().map(Command::get_name).collect();
        names.push("help");
        names.sort_unstable();
        assert_eq!(grouped, names);
        let text = with_groups(Arguments::command()).render_long_help().to_string();
        assert!(text.contains("\nRun replicas:\n  doctor       "), "{text}");
        let (list, _) = text.split_once("\nOptions:\n").unwrap();
        assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    }
}
