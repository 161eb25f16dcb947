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
//! Acknowledgements are read by a thread of their own, so that a reader that waits until they are
//! taken never waits for a writer that waits for the reader. Not covered: what is delivered
//! ([`stream`](super::stream)).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::cursor::CursorFile;
use super::lines;
use super::position::Position;
use super::stream::Found;
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::patient::Stop;
use crate::client::system::{pollfd, wait_ready};
use crate::io::system::replace_standard_output;

/// Bytes of lines that are written at a time, about.
const LINES_SIZE: usize = 1 << 20;
/// Longest time in which neither a signal nor the end of the reader is noticed.
const SLICE: Duration = Duration::from_millis(100);
/// Length of a line of standard input, in bytes, from which on it is no acknowledgement.
const LINE_SIZE_MAX: usize = 64;
/// Acknowledgements beyond the window that are taken before they are looked at.
const REPEATS_MAX: usize = 64;

/// Why the stream ends before its last event.
#[derive(Debug)]
pub enum End {
    /// Something failed.
    Failure(Failure),
    /// Nobody reads the events, or nobody acknowledges them any more.
    ReaderGone,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failure(failure)
    }
}

/// An event that was passed, and the position after it and after all that follow and are not
/// wanted.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// The event, if it is wanted.
    pub wanted: Option<Found>,
    /// The position.
    pub position: Position,
}

/// Time without writing the cursor for each time that the last write took.
const CURSOR_PAUSES: u32 = 9;
/// Longest time without writing the cursor while events are delivered.
const CURSOR_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A line of standard input.
type Acknowledgement = Result<u64, String>;

/// Events that wait to be acknowledged.
#[derive(Debug)]
struct Window {
    size: usize,
    lines: Receiver<Acknowledgement>,
    /// In the order in which they were written: the timestamp, and the position to remember.
    waiting: VecDeque<(u64, Position)>,
    /// What was acknowledged last.
    last: Option<u64>,
    /// Standard input has ended.
    is_closed: bool,
}

/// Where events go. See the module.
#[derive(Debug)]
pub struct Delivery {
    stop: Stop,
    text: String,
    cursor: Option<CursorFile>,
    /// What the cursor does not have yet.
    unwritten: Option<Position>,
    /// When the cursor may be written again.
    write_at: Instant,
    window: Option<Window>,
}

impl Delivery {
    /// To standard output, with a cursor or without.
    #[must_use]
    pub fn new(cursor: Option<CursorFile>, stop: Stop) -> Delivery {
        let text = String::with_capacity(LINES_SIZE);
        Delivery { stop, text, cursor, unwritten: None, write_at: Instant::now(), window: None }
    }

    /// The cursor, if there is one.
    #[must_use]
    pub fn cursor(&self) -> Option<&CursorFile> {
        self.cursor.as_ref()
    }

    /// From now on the cursor moves when events are acknowledged on standard input. Waits while
    /// `size` events are not.
    ///
    /// # Errors
    ///
    /// If the system has no thread to give.
    ///
    /// # Panics
    ///
    /// If the size is zero.
    pub fn acknowledge(&mut self, size: usize) -> Result<(), Failure> {
        assert!(size > 0);
        let (sender, lines) = sync_channel(size + REPEATS_MAX);
        let thread = std::thread::Builder::new().name("acknowledgements".to_owned());
        thread.spawn(move || read_acknowledgements(&sender)).map_err(|error| {
            let message = format!("--ack: no thread can be started: {error}");
            Failure::new(ExitClass::Machine, message)
        })?;
        let waiting = VecDeque::with_capacity(size);
        self.window = Some(Window { size, lines, waiting, last: None, is_closed: false });
        Ok(())
    }

    /// Hands over the events that are wanted, in order.
    ///
    /// # Errors
    ///
    /// If the reader is gone, or the cursor cannot be written.
    ///
    /// # Panics
    ///
    /// Never: a window stays.
    pub fn deliver(&mut self, passed: &[Passed]) -> Result<(), End> {
        if self.window.is_none() {
            self.write(passed)?;
            return match passed.last() {
                Some(last) => self.remember(&last.position),
                None => Ok(()),
            };
        }
        let mut rest = passed;
        while !rest.is_empty() && !self.stop.is_wanted() {
            let window = self.window.as_mut().expect("there are acknowledgements");
            let room = window.size - window.waiting.len();
            let fit = rest.len().min(room);
            if fit == 0 {
                self.listen(SLICE)?;
                continue;
            }
            let (now, later) = rest.split_at(fit);
            rest = later;
            // Before: the reader may acknowledge the first lines and close the pipe on the others.
            self.expect(now)?;
            self.write(now)?;
            self.listen(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Waits for a moment, since nothing happens.
    ///
    /// # Errors
    ///
    /// As [`Delivery::deliver`].
    pub fn rest(&mut self, pause: Duration) -> Result<(), End> {
        self.write_cursor()?;
        if self.window.is_none() {
            return wait_for_reader(pause);
        }
        let mut left = pause;
        while !left.is_zero() && !self.stop.is_wanted() {
            let slice = left.min(SLICE);
            left -= slice;
            self.listen(slice)?;
            self.write_cursor()?;
        }
        Ok(())
    }

    /// Waits until all events are acknowledged. The reader sees the end of its input before.
    ///
    /// # Errors
    ///
    /// As [`Delivery::deliver`].
    ///
    /// # Panics
    ///
    /// Never: a window stays.
    pub fn finish(&mut self) -> Result<(), End> {
        let Some(window) = &self.window else { return Ok(()) };
        if window.waiting.is_empty() {
            return Ok(());
        }
        let nowhere = File::options().write(true).open("/dev/null");
        nowhere.and_then(|file| replace_standard_output(file.as_fd())).map_err(|error| {
            let message = format!("standard output cannot be closed: {error}");
            Failure::new(ExitClass::Error, message)
        })?;
        loop {
            let window = self.window.as_ref().expect("there are acknowledgements");
            if window.waiting.is_empty() || self.stop.is_wanted() {
                return Ok(());
            }
            self.receive(SLICE)?;
        }
    }

    /// Takes what the reader has acknowledged before it was gone, and writes the cursor.
    ///
    /// # Errors
    ///
    /// If an acknowledgement is wrong, or the cursor cannot be written.
    pub fn close(mut self) -> Result<(), Failure> {
        let taken = self.take_last_words();
        self.write_cursor()?;
        taken
    }

    fn take_last_words(&mut self) -> Result<(), Failure> {
        loop {
            let Some(window) = &self.window else { return Ok(()) };
            if window.is_closed || self.stop.is_wanted() {
                return Ok(());
            }
            match self.receive(SLICE) {
                Ok(true) => {}
                Ok(false) | Err(End::ReaderGone) => return Ok(()),
                Err(End::Failure(failure)) => return Err(failure),
            }
        }
    }

    /// Writes the lines of the events that are wanted.
    fn write(&mut self, passed: &[Passed]) -> Result<(), End> {
        let mut wanted = passed.iter().filter_map(|passed| passed.wanted).peekable();
        while wanted.peek().is_some() {
            self.text.clear();
            while self.text.len() < LINES_SIZE {
                let Some(found) = wanted.next() else { break };
                lines::push(&mut self.text, &found.event, found.is_late);
            }
            let mut output = io::stdout().lock();
            match output.write_all(self.text.as_bytes()).and_then(|()| output.flush()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(End::ReaderGone),
                Err(error) => {
                    let message = format!("the events cannot be written: {error}");
                    return Err(Failure::new(ExitClass::Error, message).into());
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Waits for acknowledgements of events that were written.
    fn expect(&mut self, passed: &[Passed]) -> Result<(), End> {
        for Passed { wanted, position } in passed {
            let window = self.window.as_mut().expect("there are acknowledgements");
            match (wanted, window.waiting.back_mut()) {
                (Some(found), _) => {
                    window.waiting.push_back((found.event.timestamp(), *position));
                }
                (None, Some((_, last))) => *last = *position,
                // Nothing is waited for: what is not wanted needs no acknowledgement.
                (None, None) => self.remember(position)?,
            }
        }
        Ok(())
    }

    /// Takes acknowledgements, waiting for the first one at most this long, and looks after the
    /// reader of the output.
    fn listen(&mut self, pause: Duration) -> Result<(), End> {
        self.receive(pause)?;
        wait_for_reader(Duration::ZERO)
    }

    /// Takes all acknowledgements that are there, waiting for the first one at most this long.
    /// Returns whether there was one.
    fn receive(&mut self, pause: Duration) -> Result<bool, End> {
        let window = self.window.as_mut().expect("there are acknowledgements");
        let mut wait = pause;
        let mut delivered = None;
        let mut any = false;
        loop {
            match window.lines.recv_timeout(wait) {
                Ok(line) => {
                    any = true;
                    wait = Duration::ZERO;
                    if let Some(position) = window.take(line)? {
                        delivered = Some(position);
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    window.is_closed = true;
                    break;
                }
            }
        }
        let is_closed = window.is_closed;
        if let Some(position) = delivered {
            self.remember(&position)?;
        }
        if is_closed { Err(End::ReaderGone) } else { Ok(any) }
    }

    /// Moves the cursor, if there is one; writes it unless it was written a moment ago.
    fn remember(&mut self, position: &Position) -> Result<(), End> {
        self.unwritten = Some(*position);
        if Instant::now() >= self.write_at {
            self.write_cursor()?;
        }
        Ok(())
    }

    /// Writes the cursor if it has moved.
    fn write_cursor(&mut self) -> Result<(), Failure> {
        let Some(position) = self.unwritten.take() else { return Ok(()) };
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        let start = Instant::now();
        if self.window.is_none() {
            sync(&io::stdout())?;
        }
        cursor.write(&position)?;
        let pause = (start.elapsed() * CURSOR_PAUSES).min(CURSOR_PAUSE_MAX);
        self.write_at = Instant::now() + pause;
        Ok(())
    }
}

impl Window {
    /// Takes one acknowledgement: the position up to which all is delivered then, if it moves.
    fn take(&mut self, line: Acknowledgement) -> Result<Option<Position>, Failure> {
        let failed = |what: String| {
            let message = format!(
                "--ack: standard input has {what}; expected is the timestamp of an event that was \
                 written and not acknowledged yet, on a line"
            );
            Failure::new(ExitClass::Error, message)
        };
        let timestamp = line.map_err(failed)?;
        let place = self.waiting.iter().position(|(waiting, _)| *waiting == timestamp);
        match place {
            Some(place) => {
                let (_, position) = self.waiting.drain(..=place).next_back().expect("at least one");
                self.last = Some(timestamp);
                Ok(Some(position))
            }
            None if self.last == Some(timestamp) => Ok(None),
            None => Err(failed(format!("`{timestamp}`"))),
        }
    }
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

/// Waits, but not for a reader that is gone.
fn wait_for_reader(pause: Duration) -> Result<(), End> {
    let mut descriptors = [pollfd { fd: io::stdout().as_raw_fd(), events: 0, revents: 0 }];
    let ready = wait_ready(&mut descriptors, pause).map_err(|error| {
        Failure::new(ExitClass::Error, format!("the output cannot be waited for: {error}"))
    })?;
    if ready > 0 { Err(End::ReaderGone) } else { Ok(()) }
}

/// Makes a file that the events go to durable before the cursor says that they are there.
fn sync(output: &impl AsFd) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(ExitClass::Error, format!("the events cannot be made durable: {error}"))
    };
    let file = File::from(output.as_fd().try_clone_to_owned().map_err(failed)?);
    let is_file = file.metadata().map_err(failed)?.is_file();
    if is_file { file.sync_data().map_err(failed) } else { Ok(()) }
}
