//! Memory that is resident before a server serves, in huge pages where the machine has them.
//!
//! Used for the rings, the page cache and the tables that every load touches at random. Not
//! covered: which memory that is.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use zerocopy::IntoBytes;

/// Whether memory that every load uses is made resident, in huge pages.
static HUGE_PAGES: AtomicBool = AtomicBool::new(false);

/// Bytes that were made resident so far.
static RESIDENT_BYTES: AtomicU64 = AtomicU64::new(0);
/// Bytes made resident by one system call. A signal waits until it ends, so it must not last.
const POPULATE_MAX: usize = 64 << 20;

/// Bytes that were made resident so far: the progress of a start.
#[must_use]
pub fn resident_bytes() -> u64 {
    RESIDENT_BYTES.load(Ordering::Relaxed)
}

/// From now on [`populate`] does its work.
///
/// Why: a batch touches 16,000 accounts, ids and columns at random places of a gigabyte. With pages
/// of 4 KiB nearly each touch also misses the processor's cache of page addresses, and the first
/// touch of every page costs a fault. Memory
/// that may never be used is left alone: a fault that clears a huge page takes milliseconds.
pub fn prefer() {
    HUGE_PAGES.store(true, Ordering::SeqCst);
}

/// Makes memory of a region resident now, so that its first use costs no page faults: seconds of
/// starting against stalls while serving. Does nothing unless [`prefer`] was called, as in
/// production: development keeps to the memory that it really needs. A hint as well.
pub fn populate(region: &mut [u8]) {
    if region.is_empty() || !HUGE_PAGES.load(Ordering::Relaxed) {
        return;
    }
    advise(region, libc::MADV_HUGEPAGE);
    for part in region.chunks_mut(POPULATE_MAX) {
        advise(part, libc::MADV_POPULATE_WRITE);
        RESIDENT_BYTES.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
}

/// Gives the kernel advice that keeps all content.
fn advise(region: &mut [u8], advice: i32) {
    // The call wants whole pages: the one in which the region begins, too.
    let before = region.as_ptr().addr() % 4096;
    // SAFETY: the range is a live exclusive borrow and the rest of its first page, which is mapped
    // as well, and the advice keeps all content.
    unsafe {
        let start: *mut libc::c_void = region.as_mut_ptr().sub(before).cast();
        let _ = libc::madvise(start, region.len() + before, advice);
    }
}

/// `count` zeros whose memory is resident from the start in production.
#[must_use]
pub fn zeros(count: usize) -> Vec<u64> {
    let mut words = vec![0_u64; count];
    populate(words.as_mut_bytes());
    words
}
