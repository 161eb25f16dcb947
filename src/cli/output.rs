//! Text for people and pipes, and the option that chooses between both.
//!
//! A reader of standard output may stop reading: that is not a failure of the command.

use std::io::Write;

/// The form of a command's output. One spelling for all commands: `--format=json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Human-readable
    #[default]
    #[value(alias = "text")]
    Table,
    /// JSON
    Json,
}

/// Options of a command that prints one document.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct OutputArguments {
    /// Form of the output
    #[arg(long, value_enum, default_value = "table", global = true)]
    format: Format,
    /// Earlier spelling of `--format=json`
    #[arg(long, hide = true, global = true, conflicts_with = "format")]
    json: bool,
}

impl OutputArguments {
    /// Whether JSON is wanted.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json || self.format == Format::Json
    }
}

/// Prints a text and a line end to standard output, at once.
pub fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// Prints a text and a line end to standard error.
pub fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
