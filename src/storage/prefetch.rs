//! Telling the processor what memory is needed soon.
//!
//! Used where a batch names thousands of places up front: the waits for memory then overlap. Not
//! covered: what to ask for, and how far ahead.

/// Asks for the cache line in which `target` begins.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[inline]
pub fn prefetch<T>(target: &T) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch is a hint that reads nothing; the address is that of a live reference.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) };
}

/// Asks for the cache line in which `target` begins: on this processor, a no-op.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn prefetch<T>(_target: &T) {}
