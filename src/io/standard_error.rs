//! Standard error as the log writes it: no write waits longer for a reader than the caller allows.
//!
//! A terminal says that it is writable while it has room for a single character, and so does a pipe
//! that another process fills at the same moment; a write then blocks until somebody reads. Others
//! share the open file behind standard error, so it must stay blocking. Terminals and pipes are
//! therefore opened a second time, as open files of this process that do not block; to sockets
//! lines are sent with a flag to that effect. Not covered: a terminal or pipe that this user may
//! not open, which is written to once it says that it is writable; regular files.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use super::clock::Clock;
use super::system;

/// Time between two attempts if a terminal claims to be writable and takes nothing.
const PAUSE: Duration = Duration::from_millis(1);
/// Maximum attempts to write one line: interruptions, short writes and pauses.
const ATTEMPTS_MAX: u32 = 2_000;

/// The descriptor that lines are written to.
static OUTPUT: AtomicI32 = AtomicI32::new(libc::STDERR_FILENO);
/// Whether it is a socket.
static IS_SOCKET: AtomicBool = AtomicBool::new(false);

/// Looks at what standard error is, and opens it again if that helps. To be called once, at the
/// start.
pub fn open() {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the pointer is that of a live structure of the right type.
    if unsafe { libc::fstat(libc::STDERR_FILENO, status.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the call has filled the structure, of numbers only.
    let kind = unsafe { status.assume_init() }.st_mode & libc::S_IFMT;
    IS_SOCKET.store(kind == libc::S_IFSOCK, Ordering::Relaxed);
    if kind != libc::S_IFIFO && kind != libc::S_IFCHR {
        return;
    }
    let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero and is only read.
    let again = unsafe { libc::open(c"/proc/self/fd/2".as_ptr(), flags) };
    if again >= 0 {
        OUTPUT.store(again, Ordering::Relaxed);
    }
}

/// Writes a line, for at most `wait_max_ms` milliseconds; returns how many bytes were taken.
pub fn write(text: &[u8], wait_max_ms: i32) -> usize {
    let clock = Clock::new();
    let wait_max = u64::try_from(wait_max_ms).unwrap_or(0);
    let end_ns = clock.monotonic_ns().saturating_add(wait_max * 1_000_000);
    // SAFETY: nothing in this program closes standard error, which the runtime opens at the start
    // if it was closed, nor what `open` has made of it.
    let output = unsafe { BorrowedFd::borrow_raw(OUTPUT.load(Ordering::Relaxed)) };
    let mut taken = 0;
    for _ in 0..ATTEMPTS_MAX {
        let left_ms = end_ns.saturating_sub(clock.monotonic_ns()) / 1_000_000;
        let mut waited = [system::waited(output, true)];
        let result = system::wait(&mut waited, i32::try_from(left_ms).unwrap_or(wait_max_ms));
        if result.is_err() || waited[0].revents == 0 {
            return taken;
        }
        match write_once(output, &text[taken..]) {
            Ok(count) => taken += count,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock if left_ms > 0 => std::thread::sleep(PAUSE),
                _ => return taken,
            },
        }
        if taken == text.len() {
            return taken;
        }
    }
    taken
}

fn write_once(output: BorrowedFd<'_>, text: &[u8]) -> io::Result<usize> {
    let (pointer, length) = (text.as_ptr().cast(), text.len());
    let count = if IS_SOCKET.load(Ordering::Relaxed) {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the pointer and length are those of a live slice, which the call only reads.
        unsafe { libc::send(output.as_raw_fd(), pointer, length, flags) }
    } else {
        // SAFETY: as above.
        unsafe { libc::write(output.as_raw_fd(), pointer, length) }
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
