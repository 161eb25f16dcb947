//! Output of commands: human-readable or JSON, and the option that selects the form.
//!
//! A reader of standard output may stop reading: that is not a failure of the command. Output that
//! is lost for another reason, such as a full disk, is: the command ends with exit code 1.
//!
//! Long-running commands use [`Output`]: a reader that is slow, or does not read at all, never
//! keeps them from noticing a signal.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use super::exit::{ExitClass, Failure};
use super::patient::Stop;
use crate::client::system::{POLLOUT, pollfd, wait_ready};
use crate::io::system::{open_mode, replace_standard_output, standard_output_was_open};

/// Maximum size of one write, in bytes: `PIPE_BUF`. A pipe that is writable takes it whole, without
/// blocking.
pub const SLICE_SIZE: usize = 4096;
/// Maximum delay before a writer that waits for its reader notices a signal.
const SLICE_PAUSE: Duration = Duration::from_millis(100);

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

/// Prints a text and a line end to standard error. The text may quote a value of any length and
/// content: see [`legible`].
pub fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", legible(text));
}

/// Maximum length of a line on standard error, in characters.
const LINE_MAX: usize = 1000;
/// Characters at the end of a longer line that are kept.
const LINE_END: usize = 300;

/// Returns a text for a terminal: control characters are escaped, and lines of more than
/// 1000 characters lose their middle.
#[must_use]
pub fn legible(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(legible_line).collect();
    lines.join("\n")
}

fn legible_line(line: &str) -> String {
    let count = line.chars().count();
    let (first, end) =
        if count > LINE_MAX { (LINE_MAX - LINE_END, count - LINE_END) } else { (count, count) };
    let mut text = String::with_capacity(line.len().min(2 * LINE_MAX));
    for (index, character) in line.chars().enumerate() {
        if index == first {
            let left_out = (end - first).to_string();
            text.extend(["… (", &left_out, " characters) …"]);
        }
        if (first..end).contains(&index) {
            continue;
        }
        if character.is_control() && character != '\t' {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what a message quotes cannot command the terminal, or hide the message in its length.
    #[test]
    fn legible_texts() {
        let text = "error: `ä`\n1 |\tx\n";
        assert_eq!(legible(text), text);
        assert_eq!(legible("a\x1b[2J\x07\r\u{9b}"), "a\\u{1b}[2J\\u{7}\\r\\u{9b}");
        let long = format!("--output: {}: not found\nsecond", "ä".repeat(100_000));
        let shown = legible(&long);
        assert!(shown.starts_with("--output: ää") && shown.ends_with("ä: not found\nsecond"));
        assert!(shown.contains("… (99021 characters) …"), "{shown}");
        assert!(shown.chars().count() < LINE_MAX + 50);
        assert_eq!(legible(&"x".repeat(LINE_MAX)), "x".repeat(LINE_MAX));
    }
}

/// An output whose reader may be slow: it is written in slices, none of which blocks. See the
/// module.
#[derive(Debug)]
pub struct Output {
    file: File,
    is_regular: bool,
}

impl Output {
    /// Standard output.
    ///
    /// # Errors
    ///
    /// If it is not open for writing.
    pub fn standard() -> Result<Output, Failure> {
        let failed = |text: String| {
            Failure::new(ExitClass::Error, format!("standard output cannot be written: {text}"))
        };
        if !standard_output_was_open() {
            return Err(failed("it is closed".to_owned()));
        }
        let opened = open_mode(io::stdout().as_fd()).and_then(|mode| {
            let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            Ok((mode.is_writable, Output::new(file)?))
        });
        match opened {
            Ok((true, output)) => Ok(output),
            Ok((false, _)) => Err(failed("it is open for reading only".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// An open file, device or pipe.
    ///
    /// # Errors
    ///
    /// If the system does not report the kind of file.
    pub fn new(file: File) -> io::Result<Output> {
        let is_regular = file.metadata()?.is_file();
        Ok(Output { file, is_regular })
    }

    /// Writes the first bytes, and returns how many were accepted. Waits until some can be, for no
    /// longer than `pause`: then it returns 0. Only a regular file takes more than
    /// [`SLICE_SIZE`] bytes.
    ///
    /// # Errors
    ///
    /// If the output fails, or its reader has ended.
    pub fn write_some(&mut self, bytes: &[u8], pause: Duration) -> io::Result<usize> {
        let size_max = if self.is_regular { bytes.len() } else { SLICE_SIZE };
        if self.wait(POLLOUT, pause)? == 0 {
            return Ok(0);
        }
        match self.file.write(&bytes[..bytes.len().min(size_max)]) {
            Ok(0) if !bytes.is_empty() => Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Waits for the end of the reader, for no longer than `pause`. Returns whether it has ended.
    ///
    /// # Errors
    ///
    /// If the system cannot wait.
    pub fn wait_for_end(&self, pause: Duration) -> io::Result<bool> {
        Ok(self.wait(0, pause)? != 0)
    }

    fn wait(&self, events: i16, pause: Duration) -> io::Result<i16> {
        let mut descriptors = [pollfd { fd: self.file.as_raw_fd(), events, revents: 0 }];
        wait_ready(&mut descriptors, pause)?;
        Ok(descriptors[0].revents)
    }

    /// Whether it is a regular file that continues after a line without an end. A file that cannot
    /// be read counts as one with whole lines.
    #[must_use]
    pub fn is_within_line(&self) -> bool {
        self.is_regular && self.last_byte().is_ok_and(|byte| byte.is_some_and(|byte| byte != b'\n'))
    }

    /// The byte before the place of the next write.
    fn last_byte(&self) -> io::Result<Option<u8>> {
        let size = self.file.metadata()?.len();
        let is_append = open_mode(self.file.as_fd())?.is_append;
        let next = if is_append { size } else { (&self.file).stream_position()? };
        if next == 0 || next > size {
            return Ok(None);
        }
        let mut byte = [0];
        if self.file.read_exact_at(&mut byte, next - 1).is_err() {
            // The descriptor is most likely open for writing alone.
            let again = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
            again.read_exact_at(&mut byte, next - 1)?;
        }
        Ok(Some(byte[0]))
    }

    /// Makes durable what a regular file was given.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        if self.is_regular { self.file.sync_data() } else { Ok(()) }
    }

    /// Ends standard output: a reader of a pipe sees its end. What is written later goes nowhere.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn close_standard(&mut self) -> io::Result<()> {
        let nowhere = File::options().write(true).open("/dev/null")?;
        replace_standard_output(nowhere.as_fd())?;
        *self = Output::new(nowhere)?;
        Ok(())
    }
}

/// An [`Output`] that fails after a signal, also while its reader does not read.
#[derive(Debug)]
pub struct StoppableOutput {
    output: Output,
    stop: Stop,
}

impl StoppableOutput {
    /// An output that fails once `stop` is set.
    #[must_use]
    pub fn new(output: Output, stop: Stop) -> StoppableOutput {
        StoppableOutput { output, stop }
    }
}

impl Write for StoppableOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !bytes.is_empty() {
            if self.stop.is_wanted() {
                return Err(io::Error::other("interrupted"));
            }
            let count = self.output.write_some(bytes, SLICE_PAUSE)?;
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
