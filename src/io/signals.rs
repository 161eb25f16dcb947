//! SIGINT and SIGTERM before the loop of a server runs, and across its restart.
//!
//! [`end_at_once`] is the first thing that a server does: from then on these signals end the
//! process with exit code 0, whatever it is doing: waiting for a name, for a port or for memory.
//! Nothing was served yet, so there is nothing to wait for. The loop later blocks them and ends in
//! good order ([`EndSignals`]). While [`Held`] lives, they wait: a
//! signal must not leave half a data file. [`restart`] keeps them blocked until the new program
//! calls [`end_at_once`]. Not covered: commands that don't serve, which keep the default.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use super::log;
use super::socket::{checked, owned};

/// Signals that ask the process to end.
const SIGNALS: [i32; 2] = [libc::SIGINT, libc::SIGTERM];
/// The program that runs, whatever lies at its path by now.
const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// The set of both signals.
fn signal_set() -> libc::sigset_t {
    // SAFETY: an all-zero signal set is a valid value, and is initialised by the next call.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a live local, only written to.
    let emptied = checked(unsafe { libc::sigemptyset(&raw mut set) });
    emptied.expect("a signal set can be emptied");
    for signal in SIGNALS {
        // SAFETY: the set is a live, initialised local.
        let added = checked(unsafe { libc::sigaddset(&raw mut set, signal) });
        added.expect("these signals exist");
    }
    set
}

/// Name of one of these signals.
#[must_use]
pub const fn name(number: i32) -> &'static str {
    if number == libc::SIGINT { "SIGINT" } else { "SIGTERM" }
}

/// Ends the process. Runs as a signal handler: it takes no lock and allocates nothing.
extern "C" fn on_signal(number: i32) {
    if log::has_begun() {
        log::info(format_args!("ended by {} before anything was served", name(number)));
    }
    // SAFETY: the call takes no pointers and does not return. It runs no code of this program,
    // which was interrupted anywhere.
    unsafe { libc::_exit(0) }
}

/// Makes SIGINT and SIGTERM end the process with exit code 0 from now on, also one that came while
/// they were blocked, and also if the parent process had them ignored.
///
/// # Panics
///
/// Never: these signals exist and may be handled.
pub fn end_at_once() {
    // SAFETY: zero is valid for this structure: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(i32) = on_signal;
    action.sa_sigaction = handler as libc::sighandler_t;
    // One of them does not interrupt the other's line.
    action.sa_mask = signal_set();
    for signal in SIGNALS {
        // SAFETY: the action is a live local, only read; its handler is async-signal-safe.
        let set = checked(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) });
        set.expect("these signals may be handled");
    }
    set_mask(libc::SIG_UNBLOCK, &signal_set());
}

/// Changes which signals are blocked for this thread; those that were.
fn set_mask(how: i32, set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = *set;
    // SAFETY: both sets are live locals of the right type.
    let result = unsafe { libc::pthread_sigmask(how, &raw const *set, &raw mut before) };
    assert!(result == 0, "the mask of signals can be changed");
    before
}

/// SIGINT and SIGTERM wait while this lives, also in threads that are started meanwhile.
pub struct Held {
    before: libc::sigset_t,
}

impl Held {
    /// Makes them wait.
    #[must_use]
    pub fn new() -> Held {
        Held { before: set_mask(libc::SIG_BLOCK, &signal_set()) }
    }
}

impl Default for Held {
    fn default() -> Held {
        Held::new()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        set_mask(libc::SIG_SETMASK, &self.before);
    }
}

/// Both signals, as something to wait for. They are blocked for the calling thread and for every
/// thread that it starts from then on: a thread that was started before takes them by the handler
/// of [`end_at_once`], in the middle of serving.
#[derive(Debug)]
pub struct EndSignals(File);

impl EndSignals {
    /// Blocks SIGINT and SIGTERM and makes them readable here.
    ///
    /// # Errors
    ///
    /// If the system refuses a descriptor.
    pub fn new() -> io::Result<EndSignals> {
        let set = signal_set();
        set_mask(libc::SIG_BLOCK, &set);
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is a live, initialised local, only read.
        let descriptor = checked(unsafe { libc::signalfd(-1, &raw const set, flags) })?;
        Ok(EndSignals(File::from(owned(descriptor))))
    }

    /// The number of a signal that has arrived; `None` if there is none.
    ///
    /// # Panics
    ///
    /// If the kernel gives half a signal.
    #[must_use]
    pub fn take(&self) -> Option<i32> {
        let mut information = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let count = (&self.0).read(&mut information).ok()?;
        assert!(count == information.len(), "signals are read whole");
        let (number, _) = information.split_first_chunk::<4>()?;
        Some(i32::from_ne_bytes(*number))
    }
}

impl AsFd for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Replaces this process by the same program with the same arguments; returns only if that fails.
///
/// Signals that are blocked stay so: one that comes before the new program handles them waits,
/// where the default would end it as if it had crashed. (`std::process::Command` unblocks all.)
///
/// # Panics
///
/// Never: arguments that a process got have no zero bytes.
#[must_use]
pub fn restart() -> io::Error {
    let _held = Held::new();
    let own = |argument: OsString| {
        CString::new(argument.into_vec()).expect("an argument that a process got has no zero byte")
    };
    // Not frozen: the server has ended.
    let arguments: Vec<CString> = std::env::args_os().map(own).collect();
    // Not frozen: the server has ended.
    let mut pointers: Vec<*const libc::c_char> =
        arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: the path and all arguments are live strings that end with zero, and the list of them
    // with a null pointer.
    unsafe { libc::execv(OWN_PROGRAM.as_ptr(), pointers.as_ptr()) };
    let error = io::Error::last_os_error();
    // Without a /proc (in some sandboxes) the path must do by which the program was started.
    // SAFETY: the kernel gave this pointer to the process, to a string that lives as long.
    let path = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if !path.is_null() {
        // SAFETY: as above, and the path is a live string that ends with zero.
        unsafe { libc::execv(path, pointers.as_ptr()) };
    }
    error
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::process::Command;

    /// Set in the process that a test starts, to what it is to do.
    const CHILD_VARIABLE: &str = "FLORIN_TEST_SIGNALS_CHILD";

    /// Sends SIGTERM to the calling thread.
    pub(crate) fn raise_terminate() {
        // SAFETY: the call takes no pointers.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
    }

    /// Goal: not a test of its own: what the process started by the tests below does.
    #[test]
    fn child() {
        let Ok(mode) = std::env::var(CHILD_VARIABLE) else { return };
        match mode.as_str() {
            "now" => {
                end_at_once();
                raise_terminate();
            }
            "held" => {
                end_at_once();
                let held = Held::new();
                raise_terminate();
                println!("held");
                drop(held);
            }
            "restart" => {
                end_at_once();
                let _held = Held::new();
                raise_terminate();
                // SAFETY: no other thread runs: the tests of this process are one.
                unsafe { std::env::set_var(CHILD_VARIABLE, "restarted") };
                panic!("{}", restart());
            }
            "restarted" => {
                // Of the main thread: only there the signal waits.
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                let field = |name: &str| {
                    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                    u64::from_str_radix(line.trim(), 16).unwrap()
                };
                let terminate = 1 << (libc::SIGTERM - 1);
                assert_eq!(field("SigBlk:") & terminate, terminate, "it is blocked");
                println!("restarted");
                std::process::exit(0);
            }
            other => panic!("{other}"),
        }
        std::process::exit(9);
    }

    /// Goal: a signal sent to the thread that blocked it is read and does not end the process.
    #[test]
    fn end_signals() {
        let signals = EndSignals::new().unwrap();
        assert_eq!(signals.take(), None);
        raise_terminate();
        assert_eq!(signals.take(), Some(libc::SIGTERM));
        assert_eq!(signals.take(), None);
    }

    fn run_child(mode: &str) -> (Option<i32>, String) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "io::signals::tests::child", "--nocapture", "--test-threads=1"])
            .env(CHILD_VARIABLE, mode)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Goal: a signal ends the process with 0; a held one waits until it is released, or until
    /// the same program has started again.
    #[test]
    fn signals_end_with_zero() {
        assert_eq!(run_child("now").0, Some(0));
        let (code, output) = run_child("held");
        assert!(code == Some(0) && output.contains("held"), "{code:?} {output}");
        let (code, output) = run_child("restart");
        assert!(code == Some(0) && output.contains("restarted"), "{code:?} {output}");
    }
}
