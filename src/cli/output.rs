//! Output of the commands, and the option that chooses between a table and JSON.
//!
//! A reader of standard output may stop reading: that is not a failure of the command. If output is
//! lost for another reason, such as a full disk, the command ends with exit code 1.

use std::io::{self, Write};
use std::sync::atomic::{AtomicI32, Ordering};

use super::exit::{ExitClass, Failure};

/// Number of the system's error with which output was lost; 0 if none was.
static LOST: AtomicI32 = AtomicI32::new(0);

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
    #[command(flatten)]
    json: JsonArgument,
}

/// The earlier spelling of `--format=json`: accepted by every command that has that.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct JsonArgument {
    /// Earlier spelling of `--format=json`
    #[arg(long, hide = true, global = true, conflicts_with = "format")]
    json: bool,
}

impl JsonArgument {
    /// Whether it is given.
    #[must_use]
    pub fn is_given(self) -> bool {
        self.json
    }
}

impl OutputArguments {
    /// Whether JSON is wanted.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json.is_given() || self.format == Format::Json
    }
}

/// Prints a text and a line end to standard output, at once.
pub fn print(text: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = writeln!(output, "{text}").and_then(|()| output.flush()) {
        note_lost(&error);
    }
}

/// Prints a part of a line to standard output.
pub fn print_part(text: &str) {
    if let Err(error) = io::stdout().lock().write_all(text.as_bytes()) {
        note_lost(&error);
    }
}

/// Remembers that output was lost, unless its reader has ended.
pub fn note_lost(error: &io::Error) {
    if error.kind() != io::ErrorKind::BrokenPipe {
        LOST.store(error.raw_os_error().unwrap_or(libc::EIO), Ordering::Relaxed);
    }
}

/// Whether all output was written.
///
/// # Errors
///
/// If some was lost.
pub fn check_written() -> Result<(), Failure> {
    match LOST.load(Ordering::Relaxed) {
        0 => Ok(()),
        number => {
            let error = io::Error::from_raw_os_error(number);
            let message = format!("standard output cannot be written: {error}; its end is missing");
            Err(Failure::new(ExitClass::Error, message))
        }
    }
}

/// Prints a text and a line end to standard error.
pub fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
