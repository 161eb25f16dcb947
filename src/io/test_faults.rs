//! Completions that fail on purpose, for tests: what `ptrace` cannot do (`tools/faults`), since the
//! kernel answers to operations of the ring without a system call.
//!
//! The operation is done all the same; only its result is another one, as when a device fails after
//! the fact. One fault for each thread, which is its ring's.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::os::fd::{FromRawFd, OwnedFd};

/// What an operation of the ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Sync,
    Accept,
    Receive,
    Send,
    Connect,
    SendBatch,
    Watch,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Read,
        Kind::Write,
        Kind::Sync,
        Kind::Accept,
        Kind::Receive,
        Kind::Send,
        Kind::Connect,
        Kind::SendBatch,
        Kind::Watch,
    ];
}

/// Operations of this kind end with this error, so many times, after others that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub kind: Kind,
    pub errno: i32,
    pub skip: u32,
    pub times: u32,
}

impl Fault {
    /// As text for another process.
    pub(crate) fn text(self) -> String {
        format!("{:?} {} {} {}", self.kind, self.errno, self.skip, self.times)
    }

    /// From such a text.
    pub(crate) fn parse(text: &str) -> Fault {
        let words: Vec<&str> = text.split(' ').collect();
        let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == words[0]).unwrap();
        let number = |place: usize| words[place].parse::<u32>().unwrap();
        Fault { kind, errno: number(1).cast_signed(), skip: number(2), times: number(3) }
    }
}

thread_local! {
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// From now on this happens to the rings of this thread.
pub(crate) fn set(fault: Fault) {
    FAULT.set(Some(fault));
}

/// Whether it has happened as often as it was to happen.
pub(crate) fn is_over() -> bool {
    FAULT.get().is_none_or(|fault| fault.times == 0)
}

/// The result that an operation has.
pub(crate) fn apply(kind: Kind, result: i32) -> i32 {
    let Some(mut fault) = FAULT.get() else { return result };
    if fault.kind != kind || fault.times == 0 {
        return result;
    }
    if fault.skip > 0 {
        fault.skip -= 1;
        FAULT.set(Some(fault));
        return result;
    }
    fault.times -= 1;
    FAULT.set(Some(fault));
    if kind == Kind::Accept && result >= 0 {
        // SAFETY: the kernel has just made this descriptor, and nobody will hear of it.
        drop(unsafe { OwnedFd::from_raw_fd(result) });
    }
    -fault.errno
}
