//! Hands events over to the reader, and moves the cursor once they are delivered.
//!
//! By default an event is delivered when `write` has accepted its line: a pipe may still hold it
//! when its reader ends. With acknowledgements an event is delivered when the reader has written
//! its timestamp to standard input. The reader may be behind by a fixed number of events, the
//! window.
//!
//! The cursor is written as soon as there is nothing else to do, and at the end. While there are
//! events to deliver it may be some seconds behind, so that a slow disk takes a tenth of the time.
//!
//! No write blocks: lines are written in slices that a pipe takes whole, and between two slices
//! acknowledgements and signals are looked at, however slow the reader is. A thread of its own
//! reads the acknowledgements, so that a reader that waits until they are taken never waits for a
//! writer that waits for the reader.
//!
//! An expiry and an imported record may have the same timestamp: they are *twins*. The first
//! acknowledgement of the timestamp moves the cursor past the twin that was printed first, since
//! the reader may not have read the other one yet. But it may have: the acknowledged events include
//! the later twin wherever the stream would wait for it otherwise, for room in the window and at
//! the end. A reader that acknowledges both twins at once, and nothing after them, gets the later
//! one again after a restart. Not covered: what is delivered ([`stream`](super::stream)).

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::cursor::CursorFile;
use super::lines;
use super::position::Position;
use super::stream::Found;
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::output::{Output, SLICE_SIZE};
use crate::cli::patient::Stop;

/// Approximate size of the lines that are made at a time, in bytes.
const LINES_SIZE: usize = 1 << 20;
/// Maximum delay before a signal or the reader's end is noticed.
const SLICE: Duration = Duration::from_millis(100);
/// Maximum length of an acknowledgement line, in bytes.
const LINE_SIZE_MAX: usize = 64;
/// Time without an acknowledgement after which the stream ends although the last event's timestamp
/// was acknowledged only once, and the event is a later twin.
const AMBIGUOUS_PAUSE: Duration = Duration::from_secs(2);

/// Why the stream ends before its last event.
#[derive(Debug)]
pub enum End {
    /// Something failed.
    Failure(Failure),
    /// The reader of the events has ended, or its acknowledgements have.
    ReaderGone,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failure(failure)
    }
}

/// Minimum pause between two writes of the cursor, as a multiple of the duration of the last one.
const CURSOR_PAUSES: u32 = 9;
/// Maximum pause between two writes of the cursor while events are delivered.
const CURSOR_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A line of standard input.
type Acknowledgement = Result<u64, String>;

/// An event that waits to be acknowledged.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    timestamp: u64,
    /// Whether an event with this timestamp or a higher one was printed before: all later twins
    /// are late.
    is_late: bool,
    /// The position after the event and after those that follow it and are not wanted.
    position: Position,
}

/// Events that wait to be acknowledged.
#[derive(Debug)]
struct Window {
    /// Maximum number of events that wait, but for those that the reader may have acknowledged.
    size: usize,
    lines: Receiver<Acknowledgement>,
    /// In the order in which they were written.
    waiting: VecDeque<Waiting>,
    /// Number of late events that wait.
    late_count: usize,
    /// Number of the first events that the last acknowledgement may cover: up to the later twin.
    ambiguous: usize,
    /// The last acknowledgement, if there was one.
    last: Option<u64>,
    /// When the last acknowledgement was taken.
    taken_at: Instant,
    /// No more acknowledgements come: standard input has ended, or one was wrong.
    is_closed: bool,
}

/// Where events go. See the module.
#[derive(Debug)]
pub struct Delivery {
    stop: Stop,
    output: Output,
    /// The next event does not begin a line of a file.
    is_within_line: bool,
    text: String,
    cursor: Option<CursorFile>,
    /// The position after all events that were written, or wait to be acknowledged.
    position: Position,
    /// The position of the cursor, if it is not written yet.
    unwritten: Option<Position>,
    /// When the cursor may be written again.
    write_at: Instant,
    window: Option<Window>,
}

impl Delivery {
    /// Delivers the events after a position, with a cursor or without.
    #[must_use]
    pub fn new(
        output: Output,
        cursor: Option<CursorFile>,
        position: Position,
        stop: Stop,
    ) -> Delivery {
        Delivery {
            stop,
            is_within_line: output.is_within_line(),
            output,
            text: String::with_capacity(LINES_SIZE),
            cursor,
            position,
            unwritten: None,
            write_at: Instant::now(),
            window: None,
        }
    }

    /// The cursor, if there is one.
    #[must_use]
    pub fn cursor(&self) -> Option<&CursorFile> {
        self.cursor.as_ref()
    }

    /// Moves the cursor from now on when events are acknowledged on standard input. No more than
    /// `size` events wait for that at a time.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    ///
    /// # Panics
    ///
    /// If the size is zero.
    pub fn acknowledge(&mut self, size: usize) -> Result<(), Failure> {
        assert!(size > 0);
        let (sender, lines) = sync_channel(size);
        let thread = std::thread::Builder::new().name("acknowledgements".to_owned());
        thread.spawn(move || read_acknowledgements(&sender)).map_err(|error| {
            let message = format!("--ack: no thread can be started: {error}");
            Failure::new(ExitClass::Machine, message)
        })?;
        self.window = Some(Window::new(size, lines));
        Ok(())
    }

    /// Hands over the events that are wanted, in order: all of them, unless the user wants it to
    /// end.
    ///
    /// # Errors
    ///
    /// If the reader is gone, or the cursor cannot be written.
    pub fn deliver(&mut self, found: &[Found]) -> Result<(), End> {
        let mut rest = found;
        while !rest.is_empty() && !self.stop.is_wanted() {
            let room = self.window.as_ref().map_or(usize::MAX, Window::room);
            if room == 0 {
                self.listen(SLICE)?;
                continue;
            }
            let (now, later) = rest.split_at(self.fill(&rest[..rest.len().min(room)]));
            rest = later;
            if self.window.is_some() {
                // Before: the reader may acknowledge the first lines and close the pipe on the
                // others.
                self.expect(now);
                self.write()?;
                self.listen(Duration::ZERO)?;
            } else {
                let line_count = self.write()?;
                self.pass_written(now, line_count);
                self.write_cursor_if_due()?;
            }
        }
        Ok(())
    }

    /// Waits while there is nothing to deliver.
    ///
    /// # Errors
    ///
    /// As [`Delivery::deliver`].
    pub fn rest(&mut self, pause: Duration) -> Result<(), End> {
        self.write_cursor()?;
        let mut left = pause;
        while !left.is_zero() && !self.stop.is_wanted() {
            let slice = left.min(SLICE);
            left -= slice;
            if self.window.is_some() {
                self.listen(slice)?;
            } else {
                self.wait_for_reader(slice)?;
            }
            self.write_cursor()?;
        }
        Ok(())
    }

    /// Waits until all events are acknowledged. The reader sees the end of its input before.
    ///
    /// # Errors
    ///
    /// As [`Delivery::deliver`].
    pub fn finish(&mut self) -> Result<(), End> {
        if self.window.as_ref().is_none_or(|window| window.waiting.is_empty()) {
            return Ok(());
        }
        self.output.close_standard().map_err(|error| {
            let message = format!("standard output cannot be closed: {error}");
            Failure::new(ExitClass::Error, message)
        })?;
        while self.window.as_ref().is_some_and(|window| !window.may_be_done())
            && !self.stop.is_wanted()
        {
            self.receive(SLICE)?;
        }
        Ok(())
    }

    /// Takes the remaining acknowledgements and writes the cursor.
    ///
    /// # Errors
    ///
    /// If an acknowledgement is wrong, or the cursor cannot be written.
    pub fn close(mut self) -> Result<(), Failure> {
        let taken = self.take_remaining();
        self.write_cursor()?;
        taken
    }

    /// Takes acknowledgements until none comes for a moment; only for a moment if the user wants it
    /// to end.
    fn take_remaining(&mut self) -> Result<(), Failure> {
        let mut end = Instant::now() + SLICE;
        while self.window.as_ref().is_some_and(Window::is_expecting) && Instant::now() < end {
            match self.receive(SLICE) {
                Ok(true) if !self.stop.is_wanted() => end = Instant::now() + SLICE,
                Ok(true) => {}
                Ok(false) | Err(End::ReaderGone) => return Ok(()),
                Err(End::Failure(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Makes the lines of the first events. Returns how many events these are.
    fn fill(&mut self, found: &[Found]) -> usize {
        self.text.clear();
        let mut count = 0;
        for found in found {
            if self.text.len() >= LINES_SIZE {
                break;
            }
            if found.is_wanted {
                lines::push(&mut self.text, &found.event, found.is_late);
            }
            count += 1;
        }
        count
    }

    /// Writes the lines, and takes acknowledgements meanwhile. Returns how many lines were accepted
    /// in full: all of them, unless the user wants it to end.
    fn write(&mut self) -> Result<usize, End> {
        let text = std::mem::take(&mut self.text);
        let result = self.write_lines(text.as_bytes());
        self.text = text;
        result
    }

    fn write_lines(&mut self, text: &[u8]) -> Result<usize, End> {
        let mut start = 0;
        while start < text.len() && !self.stop.is_wanted() {
            if self.is_within_line {
                // The event whose line was cut off comes again, on a line of its own.
                self.is_within_line = self.write_some(b"\n")? == 0;
                continue;
            }
            start += self.write_some(&text[start..whole_lines_end(text, start)])?;
            if self.window.is_some() {
                self.receive(Duration::ZERO)?;
            }
        }
        Ok(text[..start].split(|byte| *byte == b'\n').count() - 1)
    }

    /// Writes some bytes, or none if the reader is slow.
    fn write_some(&mut self, bytes: &[u8]) -> Result<usize, End> {
        self.output.write_some(bytes, SLICE).map_err(|error| {
            if error.kind() == ErrorKind::BrokenPipe {
                return End::ReaderGone;
            }
            let message = format!("the events cannot be written: {error}");
            Failure::new(ExitClass::Error, message).into()
        })
    }

    /// Passes the events whose lines were accepted, and those between them that are not wanted.
    fn pass_written(&mut self, found: &[Found], line_count: usize) {
        let mut left = line_count;
        for found in found {
            if found.is_wanted {
                let Some(after) = left.checked_sub(1) else { break };
                left = after;
            }
            self.position.pass(&found.event);
        }
        assert_eq!(left, 0, "each line is one of the events");
        self.unwritten = Some(self.position);
    }

    /// Has events wait for their acknowledgements.
    fn expect(&mut self, found: &[Found]) {
        let window = self.window.as_mut().expect("there are acknowledgements");
        for found in found {
            self.position.pass(&found.event);
            match window.waiting.back_mut() {
                _ if found.is_wanted => window.push(Waiting {
                    timestamp: found.event.timestamp(),
                    is_late: found.is_late,
                    position: self.position,
                }),
                Some(last) => last.position = self.position,
                // No event waits, so the unwanted one counts as delivered.
                None => self.unwritten = Some(self.position),
            }
        }
    }

    /// Takes acknowledgements, waits for the first one no longer than `pause`, and notices the end
    /// of the output's reader.
    fn listen(&mut self, pause: Duration) -> Result<(), End> {
        self.receive(pause)?;
        self.wait_for_reader(Duration::ZERO)
    }

    /// Takes all acknowledgements that are there, and waits for the first one no longer than
    /// `pause`. Returns whether there was one.
    fn receive(&mut self, pause: Duration) -> Result<bool, End> {
        let window = self.window.as_mut().expect("there are acknowledgements");
        let mut wait = pause;
        let mut taken = Ok(());
        let mut any = false;
        while taken.is_ok() {
            match window.lines.recv_timeout(wait) {
                Ok(line) => {
                    any = true;
                    wait = Duration::ZERO;
                    // What came before a wrong one counts.
                    taken =
                        window.take(line).map(|moved| self.unwritten = moved.or(self.unwritten));
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    window.is_closed = true;
                    break;
                }
            }
        }
        window.is_closed |= taken.is_err();
        let is_closed = window.is_closed;
        self.write_cursor_if_due()?;
        taken?;
        if is_closed { Err(End::ReaderGone) } else { Ok(any) }
    }

    /// Waits for `pause`, or until the reader closes its end.
    fn wait_for_reader(&self, pause: Duration) -> Result<(), End> {
        let has_ended = self.output.wait_for_end(pause).map_err(|error| {
            Failure::new(ExitClass::Error, format!("the output cannot be waited for: {error}"))
        })?;
        if has_ended { Err(End::ReaderGone) } else { Ok(()) }
    }

    /// Writes the cursor if it has moved, unless it was written a moment ago.
    fn write_cursor_if_due(&mut self) -> Result<(), Failure> {
        if Instant::now() < self.write_at { Ok(()) } else { self.write_cursor() }
    }

    /// Writes the cursor if it has moved.
    fn write_cursor(&mut self) -> Result<(), Failure> {
        let Some(position) = self.unwritten.take() else { return Ok(()) };
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        let start = Instant::now();
        if self.window.is_none() {
            // Before: the cursor never passes lines of a file that are not durable.
            self.output.sync().map_err(|error| {
                let message = format!("the events cannot be made durable: {error}");
                Failure::new(ExitClass::Error, message)
            })?;
        }
        cursor.write(&position)?;
        let pause = (start.elapsed() * CURSOR_PAUSES).min(CURSOR_PAUSE_MAX);
        self.write_at = Instant::now() + pause;
        Ok(())
    }
}

impl Window {
    fn new(size: usize, lines: Receiver<Acknowledgement>) -> Window {
        Window {
            size,
            lines,
            waiting: VecDeque::with_capacity(size),
            late_count: 0,
            ambiguous: 0,
            last: None,
            taken_at: Instant::now(),
            is_closed: false,
        }
    }

    /// Number of events that may be written now.
    fn room(&self) -> usize {
        self.size.saturating_sub(self.waiting.len() - self.ambiguous)
    }

    /// Whether acknowledgements may come.
    fn is_expecting(&self) -> bool {
        !self.is_closed && !self.waiting.is_empty()
    }

    fn push(&mut self, event: Waiting) {
        self.late_count += usize::from(event.is_late);
        self.waiting.push_back(event);
    }

    /// Takes one acknowledgement. Returns the position up to which all is delivered then, if it
    /// moves.
    fn take(&mut self, line: Acknowledgement) -> Result<Option<Position>, Failure> {
        let failed = |what: String| {
            let message = format!(
                "--ack: standard input has {what}; expected is the timestamp of an event that was \
                 written and not acknowledged yet, on a line"
            );
            Failure::new(ExitClass::Error, message)
        };
        let timestamp = line.map_err(failed)?;
        // The first twin: the other one may not have been read.
        let place = self.waiting.iter().position(|event| event.timestamp == timestamp);
        let mut moved = None;
        match place {
            Some(place) => {
                for event in self.waiting.drain(..=place) {
                    self.late_count -= usize::from(event.is_late);
                    moved = Some(event.position);
                }
            }
            None if self.last == Some(timestamp) => {}
            None => return Err(failed(format!("`{timestamp}`"))),
        }
        (self.last, self.taken_at) = (Some(timestamp), Instant::now());
        self.ambiguous = self.twin_end(timestamp);
        Ok(moved)
    }

    /// Number of the first events up to the last one of this timestamp.
    fn twin_end(&self, timestamp: u64) -> usize {
        if self.late_count == 0 {
            return 0;
        }
        let twin = self.waiting.iter().rposition(|event| event.timestamp == timestamp);
        twin.map_or(0, |place| place + 1)
    }

    /// Whether the reader has acknowledged all that was written, or may have: some time ago.
    fn may_be_done(&self) -> bool {
        self.waiting.is_empty()
            || self.waiting.len() == self.ambiguous && self.taken_at.elapsed() >= AMBIGUOUS_PAUSE
    }
}

/// The end of the lines from `start` on that fit one slice: a reader of a pipe never finds a part
/// of a line at its end. A longer rest of a line counts as one.
fn whole_lines_end(text: &[u8], start: usize) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let slice = &text[start..text.len().min(start + SLICE_SIZE)];
    let end = slice.iter().rposition(is_end).or_else(|| text[start..].iter().position(is_end));
    end.map_or(text.len(), |end| start + end + 1)
}

/// Reads lines of standard input until it ends.
fn read_acknowledgements(sender: &SyncSender<Acknowledgement>) {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(LINE_SIZE_MAX).expect("a small number");
        let read = Read::take(&mut input, limit).read_until(b'\n', &mut line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        let acknowledgement = match read {
            Ok(0) => return,
            Ok(_) if line.len() == LINE_SIZE_MAX => Err(format!("a long line: `{text}`")),
            // Its writer was cut off: digits may be missing.
            Ok(_) if !line.ends_with(b"\n") => return,
            Ok(_) if text.is_empty() => continue,
            Ok(_) => text.parse().map_err(|_| format!("`{text}`")),
            Err(error) => Err(format!("an error: {error}")),
        };
        let is_last = acknowledgement.is_err();
        if sender.send(acknowledgement).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter::repeat_n;

    fn window(timestamps: &[u64]) -> (Window, SyncSender<Acknowledgement>) {
        let (sender, lines) = sync_channel(1);
        let mut window = Window::new(timestamps.len(), lines);
        let mut newest = 0;
        for &timestamp in timestamps {
            let position = Position::before(timestamp);
            window.push(Waiting { timestamp, is_late: timestamp <= newest, position });
            newest = newest.max(timestamp);
        }
        (window, sender)
    }

    /// Goal: an acknowledgement covers the first event of its timestamp and all before it, and
    /// nothing that may not have been read; one that is repeated covers the later twin, or nothing.
    #[test]
    fn covers() {
        let (mut window, _sender) = window(&[1, 5, 5, 9]);
        assert!(window.take(Ok(5)).unwrap().is_some());
        assert_eq!(window.waiting.len(), 2);
        assert!(window.take(Ok(5)).unwrap().is_some());
        assert_eq!(window.waiting.len(), 1);
        assert!(window.take(Ok(5)).unwrap().is_none());
        assert!(window.take(Ok(7)).is_err());
        assert!(window.take(Ok(9)).unwrap().is_some());
        assert!(window.may_be_done() && window.late_count == 0);
    }

    /// Goal: a reader that acknowledges both twins at once is not waited for without end, neither
    /// for room nor at the end; one that has not acknowledged all is.
    #[test]
    fn twins() {
        let (mut window, _sender) = window(&[5, 7, 5]);
        assert!(!window.may_be_done() && window.room() == 0);
        window.take(Ok(5)).unwrap();
        assert_eq!((window.waiting.len(), window.room()), (2, 3));
        assert!(!window.may_be_done(), "the reader is about to acknowledge the others");
        let before = Instant::now().checked_sub(AMBIGUOUS_PAUSE).unwrap();
        window.taken_at = before;
        assert!(window.may_be_done());
        window.take(Ok(7)).unwrap();
        window.taken_at = before;
        assert!(!window.may_be_done(), "the later twin was not acknowledged yet");
        assert_eq!(window.room(), 2);
        window.take(Ok(5)).unwrap();
        assert!(window.may_be_done() && window.room() == 3);
    }

    /// Goal: acknowledgements that are there when the user ends the stream count.
    #[test]
    fn stopped() {
        let (window, sender) = window(&[1, 5]);
        sender.send(Ok(1)).unwrap();
        let output = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let output = Output::new(output).unwrap();
        let mut delivery = Delivery::new(output, None, Position::before(1), Stop::at_once());
        delivery.window = Some(window);
        delivery.take_remaining().unwrap();
        assert_eq!(delivery.window.unwrap().waiting.len(), 1);
    }

    /// Goal: slices end with a line wherever one fits.
    #[test]
    fn slices() {
        let text: Vec<u8> = b"ab\ncd\n".iter().copied().chain(repeat_n(b'x', SLICE_SIZE)).collect();
        assert_eq!(whole_lines_end(&text, 0), 6);
        assert_eq!(whole_lines_end(&text, 1), 6);
        assert_eq!(whole_lines_end(&text, 6), text.len());
        let text = [&text[..], b"y\nz\n"].concat();
        assert_eq!(whole_lines_end(&text, 6), text.len() - 2, "a line that is longer than a slice");
        assert_eq!(whole_lines_end(&text, 7), text.len() - 2, "no more than a slice fits");
    }
}
