//! Lines to the operator: one for each event that he must know, on standard error.
//!
//! As text for people, or as one JSON object for each line for programs: `time` in seconds since
//! 1970, `level`, `message`. A level says what is left out. Nothing is allocated, so that a server
//! whose memory is frozen can speak; each line leaves with one call, so that lines of several
//! threads do not mix. Not covered: which events there are (who has them, says them), how often a
//! peer may cause one ([`complaint`](super::complaint)).

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use super::clock::Clock;
use super::metrics::text::Text;

/// Bytes of a line at most; what is longer is cut off.
const LINE_MAX: usize = 2048;
/// Bytes of a line that are left for its end.
const END_MAX: usize = 16;

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[repr(u8)]
pub enum Level {
    /// The server cannot go on.
    Error = 0,
    /// Something is wrong, or soon will be; the server goes on.
    Warning = 1,
    /// What an operator may want to know.
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

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[repr(u8)]
pub enum Format {
    /// For people.
    Text = 0,
    /// A JSON object on each line.
    Json = 1,
}

/// The least grave level that is written.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// A [`Format`].
static FORMAT: AtomicU8 = AtomicU8::new(Format::Text as u8);

/// Says for the whole process what is written, and how.
pub fn set(level: Level, format: Format) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    FORMAT.store(format as u8, Ordering::Relaxed);
}

/// What lines look like.
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
    let mut buffer = [0; LINE_MAX];
    let length = line(&mut buffer, level, format(), Clock::new().realtime_ns(), message);
    // Nobody to tell if standard error is gone; that is no reason to stop.
    let _ = io::stderr().write_all(&buffer[..length]);
}

/// Writes something of note.
pub fn info(message: fmt::Arguments<'_>) {
    write(Level::Info, message);
}

/// Writes that something is wrong.
pub fn warn(message: fmt::Arguments<'_>) {
    write(Level::Warning, message);
}

/// Makes a line; how many bytes it has.
fn line(
    buffer: &mut [u8],
    level: Level,
    format: Format,
    time_ns: u64,
    message: fmt::Arguments<'_>,
) -> usize {
    let (start, end) = buffer.split_at_mut(buffer.len() - END_MAX);
    let mut text = Text::new(start);
    // What does not fit is cut off: an error means nothing else.
    let closing = match format {
        Format::Text => {
            let _ = match level {
                Level::Info => Ok(()),
                Level::Error | Level::Warning => write!(text, "{}: ", level.name()),
            };
            let _ = Lines(&mut text).write_fmt(message);
            "\n"
        }
        Format::Json => {
            let (seconds, rest_ms) = (time_ns / 1_000_000_000, time_ns / 1_000_000 % 1000);
            let name = level.name();
            let _ = write!(
                text,
                "{{\"time\":{seconds}.{rest_ms:03},\"level\":\"{name}\",\"message\":\""
            );
            let _ = Escaped(&mut text).write_fmt(message);
            "\"}\n"
        }
    };
    let length = text.len();
    end[..closing.len()].copy_from_slice(closing.as_bytes());
    let end_start = buffer.len() - END_MAX;
    buffer.copy_within(end_start..end_start + closing.len(), length);
    length + closing.len()
}

/// Writes as it is.
struct Lines<'a, 'b>(&'a mut Text<'b>);

impl fmt::Write for Lines<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.0.write_char(character))
    }
}

/// Writes what may stand in a string of JSON.
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

    fn made(level: Level, format: Format, message: fmt::Arguments<'_>) -> String {
        let mut buffer = [0; LINE_MAX];
        let before = allocations_of_thread();
        let length = line(&mut buffer, level, format, 1_700_000_000_012_345_678, message);
        assert_eq!(allocations_of_thread(), before);
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Goal: text is as it was always, and JSON is JSON whatever the message holds.
    #[test]
    fn formats() {
        let text = |level| made(level, Format::Text, format_args!("view {}", 3));
        assert_eq!(text(Level::Info), "view 3\n");
        assert_eq!(text(Level::Warning), "warning: view 3\n");
        assert_eq!(text(Level::Error), "error: view 3\n");
        let nasty = "a \"quote\", a \\, a\nline, \u{1}, é";
        let json = made(Level::Warning, Format::Json, format_args!("{nasty}"));
        assert_eq!(json.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (value["level"].as_str(), value["message"].as_str()),
            (Some("warning"), Some(nasty))
        );
        assert!(json.starts_with("{\"time\":1700000000.012,"), "{json}");
    }

    /// Goal: a message that is too long is cut off between characters, and the line is whole.
    #[test]
    fn too_long() {
        let long = "é\"".repeat(LINE_MAX);
        for format in [Format::Text, Format::Json] {
            let line = made(Level::Info, format, format_args!("{long}"));
            assert!(line.len() <= LINE_MAX && line.ends_with('\n'));
            if format == Format::Json {
                assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
            }
        }
    }

    /// Goal: what is less grave than the level is not written.
    #[test]
    fn levels() {
        assert!(writes(Level::Error) && writes(Level::Info));
        assert_eq!(format(), Format::Text);
        assert!(Level::Error < Level::Warning && Level::Warning < Level::Info);
    }
}
