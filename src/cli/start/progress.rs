//! Reports what a start does before its loop turns, so that it is never silent for much longer
//! than a second, and keeps the service manager from giving it up while it makes progress.
//!
//! A thread, since each step blocks: to look a name up, wait for a port, or make gigabytes of
//! memory resident. It ends before the memory is frozen.

use crate::io::memory::HumanSize;
use crate::io::notify::Notifier;
use crate::io::signals::Held;
use crate::io::{allocator, log};
use crate::protocol::buffer::mapped_bytes;
use crate::protocol::huge_pages::resident_bytes;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two lines.
const PERIOD: Duration = Duration::from_secs(1);
/// Lines after which only every fifth is written.
const LINES_DENSE: u64 = 10;
/// Periods without progress after which the manager may give the start up.
const STILL_PERIODS_MAX: u64 = 60;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Name look-ups.
    Names,
    /// Waiting for the file's lock, and reading its superblock.
    File,
    /// Reserving memory.
    Memory,
    /// Waiting for the port.
    Listen,
}

static STEP: AtomicU8 = AtomicU8::new(Step::Names as u8);
/// Bytes that are going to be reserved, once known.
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// The thread that reports; ends when dropped.
#[derive(Debug)]
pub struct Progress {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to report. Without a thread the start is only silent.
    #[must_use]
    pub fn begin() -> Progress {
        let (end, ended) = mpsc::channel();
        // Signals are for the main thread.
        let _held = Held::new();
        let work = move || {
            let mut watch = Watch::default();
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                watch.look();
            }
        };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(work).ok();
        Progress { end: Some(end), thread }
    }

    /// Notes the step that begins.
    pub fn step(&self, step: Step) {
        STEP.store(step as u8, Ordering::Relaxed);
    }

    /// Notes how much memory is going to be reserved.
    pub fn reserve(&self, bytes: u64) {
        TOTAL.store(bytes, Ordering::Relaxed);
        self.step(Step::Memory);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic aborts the process");
        }
    }
}

/// What the thread remembers between two looks.
#[derive(Default)]
struct Watch {
    notifier: Notifier,
    looks: u64,
    last: (u8, u64),
    still: u64,
}

impl Watch {
    fn look(&mut self) {
        if self.looks == 0 {
            self.notifier = Notifier::from_environment();
        }
        self.looks += 1;
        let now = (STEP.load(Ordering::Relaxed), resident_bytes());
        self.still = if now == self.last { self.still + 1 } else { 0 };
        self.last = now;
        let text = text(now.0, now.1);
        if self.still < STILL_PERIODS_MAX {
            self.notifier.starting(format_args!("starting: {text}"));
        }
        if self.looks <= LINES_DENSE || self.looks.is_multiple_of(5) {
            log::info(format_args!("still starting after {} s: {text}", self.looks));
        }
    }
}

fn text(step: u8, resident: u64) -> String {
    match step {
        step if step == Step::Names as u8 => "looking up the names in --addresses".to_owned(),
        step if step == Step::File as u8 => {
            "opening the data file (another process may be using it)".to_owned()
        }
        step if step == Step::Listen as u8 => "waiting for the port".to_owned(),
        _ => {
            let reserved = u64::try_from(allocator::bytes_now()).expect("64 bits") + mapped_bytes();
            format!(
                "reserving memory: {} of {} reserved, {} resident",
                HumanSize(reserved),
                HumanSize(TOTAL.load(Ordering::Relaxed)),
                HumanSize(resident),
            )
        }
    }
}
