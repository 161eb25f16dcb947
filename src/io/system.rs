//! Small questions to the kernel that std has no call for. None of them allocates.
//!
//! Covered: waiting for several descriptors, free space, processor time, limits and what happens at
//! one of them, the state of the clock's synchronisation. Not covered: sockets
//! ([`socket`](super::socket)), files ([`file`](super::file)), memory limits
//! ([`memory`](super::memory)).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A descriptor that is waited for, and what for.
pub type Waited = libc::pollfd;

/// Waits for a descriptor to be readable, or writable, besides being broken.
#[must_use]
pub fn waited(descriptor: BorrowedFd<'_>, write: bool) -> Waited {
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    Waited { fd: descriptor.as_raw_fd(), events, revents: 0 }
}

/// A place that waits for nothing.
pub const WAITED_NONE: Waited = Waited { fd: -1, events: 0, revents: 0 };

/// Waits until something has happened at one of the descriptors, for so long at most. Then those
/// at which something has happened have `revents`.
///
/// # Errors
///
/// If the system refuses; an interruption is none.
///
/// # Panics
///
/// Never: descriptors are few.
pub fn wait(descriptors: &mut [Waited], timeout_ms: i32) -> io::Result<()> {
    let count = libc::nfds_t::try_from(descriptors.len()).expect("a few descriptors");
    // SAFETY: the pointer and count are those of a live slice.
    let result = unsafe { libc::poll(descriptors.as_mut_ptr(), count, timeout_ms) };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    for descriptor in descriptors {
        descriptor.revents = 0;
    }
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Locks an open file for this process, without waiting. Returns whether the lock was free; the
/// lock ends when the file is closed.
///
/// # Errors
///
/// If the file system has no locks.
pub fn try_lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the call takes no pointers and the descriptor is open.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EWOULDBLOCK) { Ok(false) } else { Err(error) }
}

/// How a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenMode {
    /// It may be written. Otherwise a write fails with `EBADF`; std takes that for success if the
    /// file is standard output.
    pub is_writable: bool,
    /// Each write goes to the end.
    pub is_append: bool,
}

/// Returns how a file was opened.
///
/// # Errors
///
/// If the descriptor is not open.
pub fn open_mode(file: BorrowedFd<'_>) -> io::Result<OpenMode> {
    // SAFETY: the call takes no pointers, and the descriptor is open.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    let is_writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
    Ok(OpenMode { is_writable, is_append: flags & libc::O_APPEND != 0 })
}

static STDOUT_WAS_OPEN: AtomicBool = AtomicBool::new(false);

extern "C" fn note_standard_output() {
    // SAFETY: the call takes no pointers.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT_WAS_OPEN.store(flags >= 0, Ordering::Relaxed);
}

/// Called before `main`: std opens `/dev/null` where standard output is closed, and all that is
/// written would disappear without an error.
// SAFETY: the section holds pointers to functions of this type, and this one needs nothing that is
// initialized later.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_STANDARD_OUTPUT: extern "C" fn() = note_standard_output;

/// Whether standard output was open when the process started.
#[must_use]
pub fn standard_output_was_open() -> bool {
    STDOUT_WAS_OPEN.load(Ordering::Relaxed)
}

/// Sends all later standard output to another file, so that the reader of a pipe sees its end.
///
/// # Errors
///
/// If the system refuses.
pub fn replace_standard_output(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes no pointers and both descriptors are open.
    let result = unsafe { libc::dup2(file.as_raw_fd(), libc::STDOUT_FILENO) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes that a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemSpace {
    /// Free for processes like this one.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// The space on the file system of an open file or directory.
///
/// # Errors
///
/// If the system does not tell.
pub fn file_system_space(file: BorrowedFd<'_>) -> io::Result<FileSystemSpace> {
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the pointer is that of a live structure of the right type, zero being valid for it.
    let answer = unsafe {
        if libc::fstatvfs(file.as_raw_fd(), answer.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        answer.assume_init()
    };
    Ok(FileSystemSpace {
        free_bytes: answer.f_bavail.saturating_mul(answer.f_frsize),
        total_bytes: answer.f_blocks.saturating_mul(answer.f_frsize),
    })
}

/// Processor time that this process has used, in nanoseconds; zero if the system does not tell.
#[must_use]
pub fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of a live structure.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    if result != 0 {
        return 0;
    }
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}

/// What the system says of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Names that the file has.
    pub links: u64,
    /// Bytes.
    pub size: u64,
}

/// Asks for the names and the size of an open file; none if the system does not tell.
#[must_use]
pub fn file_facts(file: BorrowedFd<'_>) -> Option<FileFacts> {
    // SAFETY: all zeros is a value of this structure of numbers.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and the structure is ours to write.
    let result = unsafe { libc::fstat(file.as_raw_fd(), &raw mut status) };
    let size = u64::try_from(status.st_size).ok()?;
    (result == 0).then_some(FileFacts { links: status.st_nlink, size })
}

/// A limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes that may be locked in memory.
    LockedMemory,
    /// Open files.
    OpenFiles,
    /// Length of a file in bytes.
    FileSize,
    /// Bytes of address space.
    AddressSpace,
    /// Bytes of memory that can be written and is not shared.
    Data,
}

/// The value of a limit that holds now; `None` for no limit.
///
/// # Errors
///
/// If the system does not tell.
pub fn limit(which: Limit) -> io::Result<Option<u64>> {
    let resource = match which {
        Limit::LockedMemory => libc::RLIMIT_MEMLOCK,
        Limit::OpenFiles => libc::RLIMIT_NOFILE,
        Limit::FileSize => libc::RLIMIT_FSIZE,
        Limit::AddressSpace => libc::RLIMIT_AS,
        Limit::Data => libc::RLIMIT_DATA,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is that of a live structure.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

/// Has writes beyond the limit of a file's length (`ulimit -f`) answered with an error, which can
/// be told, instead of a signal that ends the process without a word.
///
/// # Panics
///
/// Never: that signal may be ignored.
pub fn ignore_file_size_signal() {
    // SAFETY: to ignore a signal runs no code of ours, and the number is valid.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    assert!(before != libc::SIG_ERR, "the signal exists and may be ignored");
}

/// How well the system's clock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    /// Whether a time service says that it is.
    pub synchronised: bool,
    /// What it believes the error to be at most, in microseconds.
    pub error_us: i64,
}

/// Asks the kernel how well its clock is kept.
///
/// # Errors
///
/// If the system does not tell.
pub fn clock_state() -> io::Result<ClockState> {
    // SAFETY: zero is valid for this structure of integers, and asks for nothing to be changed.
    let mut answer: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is that of a live structure.
    let state = unsafe { libc::adjtimex(&raw mut answer) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    let synchronised = state != libc::TIME_ERROR && answer.status & libc::STA_UNSYNC == 0;
    Ok(ClockState { synchronised, error_us: answer.maxerror })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    /// Goal: waiting ends when there is something to read, and tells where.
    #[test]
    fn waits() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut both = [WAITED_NONE, waited(reader.as_fd(), false)];
        wait(&mut both, 0).unwrap();
        assert_eq!((both[0].revents, both[1].revents), (0, 0));
        writer.write_all(&[1]).unwrap();
        wait(&mut both, 10_000).unwrap();
        assert_eq!((both[0].revents, both[1].revents), (0, libc::POLLIN));
        let mut one = [waited(writer.as_fd(), true)];
        wait(&mut one, 10_000).unwrap();
        assert_eq!(one[0].revents, libc::POLLOUT);
    }

    /// Goal: the answers are plausible.
    #[test]
    fn answers() {
        let directory = std::fs::File::open(std::env::temp_dir()).unwrap();
        let space = file_system_space(directory.as_fd()).unwrap();
        assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
        let before = cpu_ns();
        assert!(before > 0 && cpu_ns() >= before);
        assert!(limit(Limit::OpenFiles).unwrap().is_none_or(|files| files > 3));
        for which in [Limit::LockedMemory, Limit::FileSize, Limit::AddressSpace] {
            assert!(limit(which).is_ok(), "{which:?}");
        }
        assert!(clock_state().is_ok_and(|state| state.error_us >= 0));
    }

    /// Goal: how a file was opened is seen.
    #[test]
    fn modes() {
        let mode = |options: &std::fs::OpenOptions| {
            let file = options.open("/dev/null").unwrap();
            let OpenMode { is_writable, is_append } = open_mode(file.as_fd()).unwrap();
            (is_writable, is_append)
        };
        let options = std::fs::File::options;
        assert_eq!(mode(options().read(true)), (false, false));
        assert_eq!(mode(options().write(true)), (true, false));
        assert_eq!(mode(options().append(true)), (true, true));
    }
}
