//! The log: one line on standard error for each event that an operator needs to know.
//!
//! A line carries the time (UTC), the level, the index of the replica once it is known, and the
//! message; as text, or as one JSON object (`time` in seconds since 1970, `level`, `replica`,
//! `message`). Nothing is allocated, so that a server whose memory is frozen can log. Each line
//! leaves in one write of at most [`LINE_MAX`] bytes, which a pipe takes whole: lines of several
//! replicas and threads in one terminal never mix. A longer line is cut and marked.
//!
//! Standard error that is closed, full or not read never stops a server
//! ([`standard_error`](super::standard_error)). A line waits up to [`WAIT_MS`] for a reader; then
//! it is dropped, and so are the next ones, without a wait, until there is a reader again. An error
//! always waits, up to [`WAIT_ERROR_MS`]: it often is the last line. The first line after a loss
//! says how many were lost. Not covered: which events there are, how often a peer may cause one
//! ([`complaint`](super::complaint)).

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};

use super::clock::Clock;
use super::metrics::text::{Characters, Text};
use super::standard_error;

/// Maximum bytes of a line: what Linux writes to a pipe in one piece (`PIPE_BUF`).
const LINE_MAX: usize = 4096;
/// Bytes of a line that are left for its end.
const END_MAX: usize = 16;
/// Marks a line that was cut.
const CUT: &str = " [cut]";
/// Time that a line waits for a reader of standard error, in milliseconds.
const WAIT_MS: i32 = 50;
/// The same for an error.
const WAIT_ERROR_MS: i32 = 1_000;

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[repr(u8)]
pub enum Level {
    /// The server cannot continue.
    Error = 0,
    /// Something is wrong, or soon will be; the server keeps running.
    Warning = 1,
    /// An event that an operator may want to know.
    Info = 2,
}

impl Level {
    /// The name in lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        }
    }
}

/// Format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[repr(u8)]
pub enum Format {
    /// Human-readable lines.
    Text = 0,
    /// A JSON object on each line.
    Json = 1,
}

/// The least severe level that is written.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// A [`Format`].
static FORMAT: AtomicU8 = AtomicU8::new(Format::Text as u8);
/// Index of the replica of this process, or [`REPLICA_UNKNOWN`].
static REPLICA: AtomicU16 = AtomicU16::new(REPLICA_UNKNOWN);
const REPLICA_UNKNOWN: u16 = u16::MAX;
/// Whether this process logs: failures then go to the log, too.
static BEGUN: AtomicBool = AtomicBool::new(false);
/// Whether the last line was dropped since nobody read.
static STUCK: AtomicBool = AtomicBool::new(false);
/// Whether the last line left in part.
static TORN: AtomicBool = AtomicBool::new(false);
/// Lines that were dropped since the last one that was written.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Sets level and format for the whole process.
pub fn set(level: Level, format: Format) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    FORMAT.store(format as u8, Ordering::Relaxed);
}

/// Notes the index of the replica, which all lines carry from now on.
pub fn set_replica(index: u8) {
    REPLICA.store(index.into(), Ordering::Relaxed);
}

/// Notes that this process is a server that logs. To be called once.
pub fn begin() {
    standard_error::open();
    BEGUN.store(true, Ordering::Relaxed);
}

/// Whether this process is a server that logs.
#[must_use]
pub fn has_begun() -> bool {
    BEGUN.load(Ordering::Relaxed)
}

/// Format of the lines.
#[must_use]
pub fn format() -> Format {
    let json = FORMAT.load(Ordering::Relaxed) == Format::Json as u8;
    if json { Format::Json } else { Format::Text }
}

/// Whether events of this level are written.
#[must_use]
pub fn writes(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes an event of this level.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    if !writes(level) {
        return;
    }
    // Taken, so that of several threads one reports them.
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let note = format_args!("{lost} log lines were lost: nothing read standard error");
        if !leave(Level::Warning, note, wait_ms(level, STUCK.load(Ordering::Relaxed))) {
            LOST.fetch_add(lost + 1, Ordering::Relaxed);
            return;
        }
    }
    if !leave(level, message, wait_ms(level, STUCK.load(Ordering::Relaxed))) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Maximum time that a line waits for a reader, in milliseconds.
fn wait_ms(level: Level, is_stuck: bool) -> i32 {
    match (level, is_stuck) {
        (Level::Error, _) => WAIT_ERROR_MS,
        (Level::Warning | Level::Info, false) => WAIT_MS,
        (Level::Warning | Level::Info, true) => 0,
    }
}

/// Writes an informational event.
pub fn info(message: fmt::Arguments<'_>) {
    write(Level::Info, message);
}

/// Writes a warning.
pub fn warn(message: fmt::Arguments<'_>) {
    write(Level::Warning, message);
}

/// Writes an error.
pub fn error(message: fmt::Arguments<'_>) {
    write(Level::Error, message);
}

/// Makes a line and writes it. Returns whether standard error took it whole.
fn leave(level: Level, message: fmt::Arguments<'_>, wait_ms: i32) -> bool {
    let mut buffer = [0; 1 + LINE_MAX];
    // Ends what is left of a torn line.
    buffer[0] = b'\n';
    let replica = u8::try_from(REPLICA.load(Ordering::Relaxed)).ok();
    let event = Event { level, time_ns: Clock::new().realtime_ns(), replica };
    let length = line(&mut buffer[1..], format(), event, message);
    let start = usize::from(!TORN.load(Ordering::Relaxed));
    let text = &buffer[start..=length];
    let left = standard_error::write(text, wait_ms);
    STUCK.store(left < text.len(), Ordering::Relaxed);
    if left > 0 {
        TORN.store(left < text.len(), Ordering::Relaxed);
    }
    left == text.len()
}

/// The fields of a line besides its message.
#[derive(Clone, Copy, Debug)]
struct Event {
    level: Level,
    time_ns: u64,
    replica: Option<u8>,
}

/// Makes a line; how many bytes it has.
fn line(buffer: &mut [u8], format: Format, event: Event, message: fmt::Arguments<'_>) -> usize {
    let end_start = buffer.len() - END_MAX;
    let (start, end) = buffer.split_at_mut(end_start);
    let mut text = Text::new(start);
    // The only possible error: the message does not fit.
    let (written, closing) = match format {
        Format::Text => (line_text(&mut text, event, message), "\n"),
        Format::Json => (line_json(&mut text, event, message), "\"}\n"),
    };
    let cut = if written.is_ok() { "" } else { CUT };
    let length = text.len();
    let mut ending = Text::new(end);
    write!(ending, "{cut}{closing}").expect("the end of a line fits its place");
    let ending_length = ending.len();
    buffer.copy_within(end_start..end_start + ending_length, length);
    length + ending_length
}

fn line_text(text: &mut Text<'_>, event: Event, message: fmt::Arguments<'_>) -> fmt::Result {
    write!(text, "{} {:<7} ", Moment(event.time_ns), event.level.name())?;
    if let Some(replica) = event.replica {
        write!(text, "replica={replica} ")?;
    }
    Characters(text).write_fmt(message)
}

fn line_json(text: &mut Text<'_>, event: Event, message: fmt::Arguments<'_>) -> fmt::Result {
    let (seconds, rest_ms) = (event.time_ns / 1_000_000_000, event.time_ns / 1_000_000 % 1000);
    write!(text, "{{\"time\":{seconds}.{rest_ms:03},\"level\":\"{}\"", event.level.name())?;
    if let Some(replica) = event.replica {
        write!(text, ",\"replica\":{replica}")?;
    }
    text.write_str(",\"message\":\"")?;
    Escaped(text).write_fmt(message)
}

/// A time in nanoseconds since 1970 as RFC 3339 has it, in UTC with milliseconds.
struct Moment(u64);

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(self.0.into()) {
            Ok(time) => write!(formatter, "{time:.3}"),
            Err(_) => write!(formatter, "{}ns", self.0),
        }
    }
}

/// Escapes characters that may not stand in a JSON string.
struct Escaped<'a, 'b>(&'a mut Text<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '"' => self.0.write_str("\\\"")?,
                '\\' => self.0.write_str("\\\\")?,
                '\n' => self.0.write_str("\\n")?,
                control if control.is_control() => {
                    write!(self.0, "\\u{:04x}", u32::from(control))?;
                }
                other => self.0.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::allocator::tests::allocations_of_thread;

    const EVENT: Event =
        Event { level: Level::Info, time_ns: 1_700_000_000_012_345_678, replica: Some(3) };

    fn made(event: Event, format: Format, message: fmt::Arguments<'_>) -> String {
        let mut buffer = [0; LINE_MAX];
        let before = allocations_of_thread();
        let length = line(&mut buffer, format, event, message);
        assert_eq!(allocations_of_thread(), before);
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Goal: each line carries time, level and replica; JSON is JSON whatever the message holds.
    #[test]
    fn formats() {
        let text = |event| made(event, Format::Text, format_args!("view {}", 3));
        let expected = "2023-11-14T22:13:20.012Z info    replica=3 view 3\n";
        assert_eq!(text(EVENT), expected);
        let event = Event { level: Level::Warning, replica: None, ..EVENT };
        assert_eq!(text(event), "2023-11-14T22:13:20.012Z warning view 3\n");
        let event = Event { level: Level::Error, replica: Some(0), time_ns: u64::MAX };
        assert_eq!(text(event), "2554-07-21T23:34:33.709Z error   replica=0 view 3\n");
        let nasty = "a \"quote\", a \\, a\nline, \u{1}, é";
        let event = Event { level: Level::Warning, ..EVENT };
        let json = made(event, Format::Json, format_args!("{nasty}"));
        assert_eq!(json.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (value["level"].as_str(), value["message"].as_str(), value["replica"].as_u64()),
            (Some("warning"), Some(nasty), Some(3))
        );
        assert!(json.starts_with("{\"time\":1700000000.012,"), "{json}");
        let json = made(Event { replica: None, ..EVENT }, Format::Json, format_args!("x"));
        assert!(!json.contains("replica"), "{json}");
    }

    /// Goal: a message that is too long is cut between characters and marked; the line is whole.
    #[test]
    fn too_long() {
        let long = "é\"".repeat(LINE_MAX);
        for format in [Format::Text, Format::Json] {
            let line = made(EVENT, format, format_args!("{long}"));
            assert!((LINE_MAX - 32..=LINE_MAX).contains(&line.len()), "{}", line.len());
            assert!(line.trim_end_matches(['\n', '}', '"']).ends_with(" [cut]"), "{line}");
            assert!(line.ends_with('\n'));
            if format == Format::Json {
                assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
            }
        }
    }

    /// Goal: while nobody reads, lines cost no time, but an error is still waited for.
    #[test]
    fn waits() {
        assert_eq!(wait_ms(Level::Error, true), WAIT_ERROR_MS);
        assert_eq!(wait_ms(Level::Warning, true), 0);
        assert!((1..WAIT_ERROR_MS).contains(&wait_ms(Level::Info, false)));
    }

    /// Goal: events below the level are not written.
    #[test]
    fn levels() {
        assert!(writes(Level::Error) && writes(Level::Info));
        assert_eq!(format(), Format::Text);
        assert!(Level::Error < Level::Warning && Level::Warning < Level::Info);
    }
}
