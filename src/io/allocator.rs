//! A global allocator that can be frozen: all memory is reserved at start, none afterwards.
//!
//! [`FrozenAllocator`] passes everything on to the system until [`freeze`] is called. From then on
//! an allocation on any thread, in any build, names itself on standard error and aborts the
//! process: a server that runs within its memory at start runs within it forever. Releasing memory
//! stays allowed. Counts the bytes in use and their peak. Not covered: memory mapped directly
//! (buffers), stacks, memory that the C library takes for itself.
//!
//! What runs frozen, and in which files:
//!
//! * the serving thread, from `Server::run` until it returns, which unfreezes: `server`, `bus`,
//!   `peers`, `batch`, `ring`, `socket`, `framing`, `about`, `growth`, `clock`, `log`, `complaint`,
//!   `cluster_report`, `storage_warning`, `metrics/publish`, and the whole core: `vsr`, `ledger`,
//!   `storage`, `protocol`;
//! * the helper thread, from the start of its loop: `worker`, and `Job::run` in `storage`;
//! * the thread of metrics, from the start of its loop: `metrics/*`, `system`;
//! * the thread that looks names up, from the start of its loop: `resolver`. The C library takes
//!   memory for a look-up, beside this allocator.
//!
//! The other threads keep running after the serving thread has unfrozen, and may allocate then. In
//! these files `tests/tidy.rs` refuses every name that allocates: files and environment, threads,
//! `format!`, `String`, boxed errors, the text of a system's error, name look-ups, stable sorts. A
//! line that runs before the freeze or after it says so: `// Not frozen: why`. What no name shows
//! (a list that grows beyond its capacity) is for the assertions of the lists, the tests that
//! count allocations, and `tools/faults`.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether an allocation aborts.
static FROZEN: AtomicBool = AtomicBool::new(false);
/// Panics that are being printed.
static PRINTING: AtomicUsize = AtomicUsize::new(0);
/// Bytes allocated and not yet released.
static BYTES_NOW: AtomicUsize = AtomicUsize::new(0);
/// The most that `BYTES_NOW` has ever been.
static BYTES_PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with a freeze and counters. Declare it as the global allocator of a
/// binary; the state is the process's, so there is no use in a second one.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrozenAllocator;

/// From now on an allocation aborts the process.
pub fn freeze() {
    FROZEN.store(true, Ordering::SeqCst);
}

/// Allocations are allowed again: to end the process, or to tell why it must.
pub fn unfreeze() {
    FROZEN.store(false, Ordering::SeqCst);
}

/// Whether an allocation aborts.
#[must_use]
pub fn is_frozen() -> bool {
    FROZEN.load(Ordering::Relaxed)
}

/// Bytes allocated and not yet released; zero if [`FrozenAllocator`] is not the global allocator.
#[must_use]
pub fn bytes_now() -> usize {
    BYTES_NOW.load(Ordering::Relaxed)
}

/// The most bytes that were ever allocated at a time.
#[must_use]
pub fn bytes_peak() -> usize {
    BYTES_PEAK.load(Ordering::Relaxed)
}

/// Makes a panic print its message also when the allocator is frozen: printing may allocate. If
/// there is no memory for that, the process ends at once: std would wait for a lock that it holds.
pub fn install_panic_hook() {
    let print = std::panic::take_hook();
    // Not frozen: this is the start.
    std::panic::set_hook(Box::new(move |info| {
        unfreeze();
        PRINTING.fetch_add(1, Ordering::SeqCst);
        print(info);
        PRINTING.fetch_sub(1, Ordering::SeqCst);
    }));
}

/// Passes an allocation on, unless it failed while a panic is being printed.
fn passed(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() && PRINTING.load(Ordering::Relaxed) > 0 {
        write_error(b"florin: no memory to tell why the program stops\n");
        std::process::abort();
    }
    pointer
}

/// Counts an allocation, and aborts if there must not be one.
fn note_allocation(bytes: usize) {
    if FROZEN.load(Ordering::Relaxed) {
        refuse(bytes);
    }
    #[cfg(test)]
    tests::note_allocation();
    let now = BYTES_NOW.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    BYTES_PEAK.fetch_max(now, Ordering::Relaxed);
}

fn note_release(bytes: usize) {
    BYTES_NOW.fetch_sub(bytes, Ordering::Relaxed);
}

/// Writes the reason to standard error without allocating, and aborts.
#[cold]
fn refuse(bytes: usize) -> ! {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut rest = bytes;
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).expect("a digit fits a byte");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    write_error(b"florin: invariant broken: allocation of ");
    write_error(&digits[start..]);
    write_error(b" bytes after the memory was frozen\n");
    std::process::abort();
}

/// As much of `text` as standard error takes at once.
fn write_error(text: &[u8]) {
    // SAFETY: the pointer and length are those of a live slice, which the call only reads.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

// SAFETY: every call is passed on to the system's allocator with the caller's own arguments, so its
// guarantees are ours; the counting around it neither allocates nor unwinds (it aborts).
unsafe impl GlobalAlloc for FrozenAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_allocation(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        passed(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_allocation(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        passed(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note_release(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) };
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size_new: usize) -> *mut u8 {
        note_allocation(size_new);
        note_release(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        passed(unsafe { System.realloc(pointer, layout, size_new) })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[global_allocator]
    static ALLOCATOR: FrozenAllocator = FrozenAllocator;

    /// Set in the process that a test starts to see it die.
    const CHILD_VARIABLE: &str = "FLORIN_TEST_ALLOCATOR_CHILD";

    thread_local! {
        static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn note_allocation() {
        // A thread that is ending has no counter any more; nobody would read it either.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    }

    /// Allocations of this thread so far: other modules' tests prove with it that they make none.
    pub(crate) fn allocations_of_thread() -> u64 {
        ALLOCATIONS.with(Cell::get)
    }

    fn run_child(mode: &str) -> std::process::Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "io::allocator::tests::child", "--nocapture", "--test-threads=1"])
            .env(CHILD_VARIABLE, mode)
            .output()
            .unwrap()
    }

    /// Goal: not a test of its own: what the process started by the tests below does.
    #[test]
    fn child() {
        let Ok(mode) = std::env::var(CHILD_VARIABLE) else {
            assert!(!is_frozen());
            return;
        };
        if mode == "starve" {
            // What prints needs more than there can be.
            std::panic::set_hook(Box::new(|_| {
                drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 62)));
            }));
        }
        install_panic_hook();
        freeze();
        assert!(mode != "starve");
        assert!(is_frozen());
        assert!(mode != "panic", "the reason of the panic");
        drop(std::hint::black_box(vec![0_u8; 123_457]));
        std::process::exit(0);
    }

    /// Goal: an allocation after the freeze aborts the process and says how large it was.
    #[test]
    fn allocation_aborts() {
        let output = run_child("allocate");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let text = String::from_utf8_lossy(&output.stderr);
        let expected = "florin: invariant broken: allocation of 123457 bytes after the memory";
        assert!(text.contains(expected), "{text}");
    }

    /// Goal: a panic after the freeze still tells its reason and is not taken for an allocation.
    #[test]
    fn panic_prints() {
        let output = run_child("panic");
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("the reason of the panic"), "{text}");
        assert!(!text.contains("after the memory was frozen"), "{text}");
    }

    /// Goal: a panic that finds no memory to print its reason ends the process at once.
    #[test]
    fn panic_without_memory_aborts() {
        let output = run_child("starve");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text.matches("no memory to tell why").count(), 1, "{text}");
        assert!(!text.contains("memory allocation of"), "{text}");
    }

    /// Goal: allocations are counted on their own thread, and the bytes of a large one show.
    #[test]
    fn counters() {
        let before = allocations_of_thread();
        let memory = std::hint::black_box(vec![1_u8; 1 << 20]);
        assert_eq!(allocations_of_thread(), before + 1);
        assert!(bytes_now() >= memory.len());
        assert!(bytes_peak() >= memory.len());
        let quiet = allocations_of_thread();
        drop(memory);
        assert_eq!(allocations_of_thread(), quiet);
    }
}
