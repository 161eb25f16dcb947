//! Huge pages for large regions of memory, where the operator's machine has them.
//!
//! Used by the pools of buffers and by the allocator. Not covered: which memory is large.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use zerocopy::IntoBytes;

/// Whether large regions ask for huge pages.
static HUGE_PAGES: AtomicBool = AtomicBool::new(false);
/// Regions from this size on are large.
const LARGE_BYTES: usize = 4 << 20;
/// A huge page of the processors that Florin runs on.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// From now on large regions ask the kernel for huge pages.
///
/// Why: a batch touches 16,000 accounts, ids and columns at random places of a gigabyte. With pages
/// of 4 KiB nearly each touch also misses the processor's cache of page addresses, and the first
/// touch of every page costs a fault: together a third of the time of executing a batch.
pub fn prefer() {
    HUGE_PAGES.store(true, Ordering::SeqCst);
}

/// Asks for huge pages for the whole ones inside a new region. A hint: it may be refused.
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "the pointer is only an address here")]
pub fn advise(pointer: *mut u8, bytes: usize) {
    if bytes < LARGE_BYTES || pointer.is_null() || !HUGE_PAGES.load(Ordering::Relaxed) {
        return;
    }
    let skip = pointer.align_offset(HUGE_PAGE_BYTES);
    if skip >= bytes {
        return;
    }
    let whole = (bytes - skip) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    let start = pointer.wrapping_add(skip);
    // SAFETY: the range lies inside the region that was just allocated, and the advice changes
    // nothing about its content.
    let _ = unsafe { libc::madvise(start.cast(), whole, libc::MADV_HUGEPAGE) };
}

/// Makes memory of a region resident now, so that its first use costs no page faults: seconds of
/// starting against stalls while serving. Does nothing unless huge pages are preferred, as in
/// production: development keeps to the memory that it really needs. A hint as well.
pub fn populate(region: &mut [u8]) {
    if region.is_empty() || !HUGE_PAGES.load(Ordering::Relaxed) {
        return;
    }
    // The call wants whole pages: the one in which the region begins, too.
    let before = region.as_ptr().addr() % 4096;
    // SAFETY: the range is a live exclusive borrow and the rest of its first page, which is mapped
    // as well, and the advice keeps all content.
    let _ = unsafe {
        let start = region.as_mut_ptr().sub(before);
        libc::madvise(start.cast(), region.len() + before, libc::MADV_POPULATE_WRITE)
    };
}

/// `count` zeros whose memory is resident from the start in production.
#[must_use]
pub fn zeros(count: usize) -> Vec<u64> {
    let mut words = vec![0_u64; count];
    populate(words.as_mut_bytes());
    words
}
