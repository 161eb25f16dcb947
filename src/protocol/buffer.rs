//! Pooled, reference-counted, sector-aligned memory of fixed size.
//!
//! All memory for messages and blocks is reserved once, when a [`Pool`] is made, and handed out as
//! [`Buffer`]s. A buffer can be referenced from several places; the last reference to go returns
//! the memory. Acquiring, cloning and dropping never allocate. Memory is mapped lazily: what was
//! never touched takes no physical memory. Not covered: pools that grow, buffers of mixed sizes.

#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::huge_pages;
use super::{SECTOR_SIZE, to_index};

/// More references to one buffer than this can only be a leak.
const REFERENCES_MAX: u32 = 1 << 20;

/// A single owned region of zeroed memory, aligned to 4096 bytes and not resident until touched.
pub struct AlignedMemory {
    pointer: NonNull<u8>,
    length: usize,
}

// SAFETY: the region is owned by exactly this value and reached only through its borrows.
unsafe impl Send for AlignedMemory {}
// SAFETY: a shared borrow only reads.
unsafe impl Sync for AlignedMemory {}

/// Bytes mapped now by all of [`AlignedMemory`].
static MAPPED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes that this process has mapped for buffers; the allocator does not count them.
#[must_use]
pub fn mapped_bytes() -> u64 {
    MAPPED_BYTES.load(Ordering::Relaxed)
}

impl AlignedMemory {
    /// Maps `length` bytes, all zero.
    ///
    /// # Panics
    ///
    /// If `length` is zero or the system has no such memory to give.
    #[must_use]
    pub fn new(length: usize) -> AlignedMemory {
        assert!(length > 0);
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
        // existing memory; the result is checked before use.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(address != libc::MAP_FAILED, "the system refused to map {length} bytes");
        let pointer = NonNull::new(address.cast::<u8>()).expect("a mapping is never at zero");
        assert!(pointer.as_ptr().addr().is_multiple_of(to_index(SECTOR_SIZE)));
        MAPPED_BYTES.fetch_add(length as u64, Ordering::Relaxed);
        AlignedMemory { pointer, length }
    }

    /// The same, resident from the start in production, see [`huge_pages::populate`].
    ///
    /// # Panics
    ///
    /// As [`AlignedMemory::new`].
    #[must_use]
    pub fn new_resident(length: usize) -> AlignedMemory {
        let mut memory = AlignedMemory::new(length);
        huge_pages::populate(&mut memory);
        memory
    }

    /// Address of the first byte.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    /// Address of the first byte, for writing.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }
}

impl Deref for AlignedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is `length` bytes long, initialised (zero or written) and lives as
        // long as `self`; writes need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }
}

impl DerefMut for AlignedMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the unique borrow excludes every other access.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.length) }
    }
}

impl Drop for AlignedMemory {
    fn drop(&mut self) {
        // SAFETY: the region came from `mmap` with this length and nothing borrows it any more.
        let result = unsafe { libc::munmap(self.pointer.as_ptr().cast(), self.length) };
        assert!(result == 0, "unmapping an owned region cannot fail");
        MAPPED_BYTES.fetch_sub(self.length as u64, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for AlignedMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "AlignedMemory({} bytes)", self.length)
    }
}

/// What a pool and all its buffers share.
struct Shared {
    name: &'static str,
    count: u32,
    size: u32,
    /// Base address of `count` slots; written only through unique buffers.
    memory: AlignedMemory,
    references: Box<[AtomicU32]>,
    free: Mutex<Vec<u32>>,
}

impl Shared {
    /// The free list. It stays consistent even if a holder panicked: each change is one push or
    /// pop.
    fn free(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fixed number of buffers of a fixed size. Cloning gives another handle to the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Bytes that a pool of `count` buffers of `size` bytes occupies.
    #[must_use]
    pub fn memory_bytes(count: u32, size: u32) -> u64 {
        // Beside the buffers: a count of references each, and a list of those that are free.
        u64::from(count) * (u64::from(size) + 2 * 4)
    }

    /// Reserves `count` buffers of `size` bytes each; `name` is for messages to people.
    ///
    /// # Panics
    ///
    /// If `count` is zero, `size` is not a positive multiple of 4096, or memory is refused.
    #[must_use]
    pub fn new(name: &'static str, count: u32, size: u32) -> Pool {
        Pool::new_resident(name, count, size, 0)
    }

    /// The same, with the memory of the first `resident` buffers, those that are acquired first,
    /// resident from the start in production.
    ///
    /// # Panics
    ///
    /// As [`Pool::new`], and if more than all are to be resident.
    #[must_use]
    pub fn new_resident(name: &'static str, count: u32, size: u32, resident: u32) -> Pool {
        assert!(resident <= count, "pool {name}: {resident} of {count} buffers");
        assert!(count > 0, "pool {name}: no buffers");
        assert!(size > 0, "pool {name}: empty buffers");
        assert!(size.is_multiple_of(SECTOR_SIZE), "pool {name}: size {size} is not aligned");
        let length = to_index(count).checked_mul(to_index(size)).expect("a pool fits the memory");
        let mut memory = AlignedMemory::new(length);
        huge_pages::populate(&mut memory[..to_index(resident) * to_index(size)]);
        let mut free = Vec::with_capacity(to_index(count));
        free.extend((0..count).rev());
        Pool {
            shared: Arc::new(Shared {
                name,
                count,
                size,
                memory,
                references: (0..count).map(|_| AtomicU32::new(0)).collect(),
                free: Mutex::new(free),
            }),
        }
    }

    /// Takes a buffer, the most recently returned first; `None` when all are in use. The contents
    /// are whatever the last user left.
    ///
    /// # Panics
    ///
    /// Only if the free list is corrupt.
    #[must_use]
    pub fn try_acquire(&self) -> Option<Buffer> {
        let slot = self.shared.free().pop()?;
        assert!(slot < self.shared.count);
        // Acquire: the memory accesses of the last holder happened before its slot was pushed.
        let before = self.shared.references[to_index(slot)].swap(1, Ordering::Acquire);
        assert!(before == 0, "a free buffer has no references");
        let offset = to_index(slot) * to_index(self.shared.size);
        // SAFETY: slot < count, so the offset is inside the mapping of count * size bytes.
        let pointer = unsafe { self.shared.memory.pointer.add(offset) };
        Some(Buffer { shared: Arc::clone(&self.shared), pointer, slot })
    }

    /// Takes a buffer where the capacity is guaranteed by design.
    ///
    /// # Panics
    ///
    /// If all buffers are in use.
    #[must_use]
    pub fn acquire(&self) -> Buffer {
        match self.try_acquire() {
            Some(buffer) => buffer,
            None => panic!("pool {}: all {} buffers are in use", self.name(), self.count()),
        }
    }

    /// Buffers that can be acquired now.
    ///
    /// # Panics
    ///
    /// Never: the free list is no longer than the count.
    #[must_use]
    pub fn available(&self) -> u32 {
        u32::try_from(self.shared.free().len()).expect("no more free buffers than buffers")
    }

    /// All buffers, free or not.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.shared.count
    }

    /// Size of each buffer in bytes.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.shared.size
    }

    /// Name given at construction.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, count, size) = (self.name(), self.count(), self.size());
        write!(formatter, "Pool({name}, {}/{count} free, {size} bytes)", self.available())
    }
}

/// A reference to one buffer of a pool. Cloning makes another reference to the same memory;
/// dropping the last one returns the memory to the pool.
pub struct Buffer {
    shared: Arc<Shared>,
    pointer: NonNull<u8>,
    slot: u32,
}

// SAFETY: shared references only read; writing asserts that there is a single reference, and the
// atomic count orders the accesses of one holder before those of the next.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn references(&self) -> &AtomicU32 {
        &self.shared.references[to_index(self.slot)]
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.shared.size
    }

    /// Whether this is the only reference to the memory.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        // Acquire: pairs with the release of the reference that went before.
        self.references().load(Ordering::Acquire) == 1
    }

    /// The whole memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the slot is `size` bytes of initialised memory that the pool keeps while any
        // reference lives; nobody writes while this borrow of a reference exists.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), to_index(self.shared.size)) }
    }

    /// The whole memory, for writing.
    ///
    /// # Panics
    ///
    /// If there are other references.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let length = to_index(self.shared.size);
        // SAFETY: `as_mut_ptr` asserted that this is the only reference, `&mut self` keeps it so
        // (a clone would need a borrow), and the slot is `size` bytes of initialised memory.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), length) }
    }

    /// Address of the first byte.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    /// Address of the first byte, for a device to write to.
    ///
    /// # Panics
    ///
    /// If there are other references.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        assert!(self.is_unique(), "pool {}: writing to a shared buffer", self.shared.name);
        self.pointer.as_ptr()
    }

    /// Sets every byte to zero.
    ///
    /// # Panics
    ///
    /// If there are other references.
    pub fn fill_zero(&mut self) {
        self.bytes_mut().fill(0);
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        // Relaxed: whoever clones holds a reference already, nothing is published by this.
        let before = self.references().fetch_add(1, Ordering::Relaxed);
        assert!(before >= 1, "only a live buffer is cloned");
        assert!(before < REFERENCES_MAX, "pool {}: references leak", self.shared.name);
        Buffer { shared: Arc::clone(&self.shared), pointer: self.pointer, slot: self.slot }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Release: this holder's accesses happen before the last holder returns the memory.
        let before = self.references().fetch_sub(1, Ordering::Release);
        assert!(before >= 1, "a live buffer has a reference");
        if before > 1 {
            return;
        }
        fence(Ordering::Acquire);
        let mut free = self.shared.free();
        assert!(free.len() < to_index(self.shared.count), "more buffers returned than taken");
        free.push(self.slot);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Buffer({} {}, {} bytes)", self.shared.name, self.slot, self.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    static_assertions::assert_impl_all!(Pool: Send, Sync, Clone);
    static_assertions::assert_impl_all!(Buffer: Send, Sync, Clone);
    static_assertions::assert_impl_all!(AlignedMemory: Send, Sync);

    /// Goal: a pool hands out exactly its count, refuses the next, and takes back on drop.
    #[test]
    fn counts() {
        let pool = Pool::new("test", 3, 8192);
        assert_eq!((pool.name(), pool.count(), pool.size()), ("test", 3, 8192));
        let mut held: Vec<Buffer> = (0..3).map(|_| pool.acquire()).collect();
        assert_eq!(pool.available(), 0);
        assert!(pool.try_acquire().is_none());
        held.pop();
        assert_eq!(pool.available(), 1);
        assert!(pool.try_acquire().is_some());
        drop(held);
        assert_eq!(pool.available(), 3);
    }

    /// Goal: every buffer is aligned, zero at first, of full size and disjoint from the others.
    #[test]
    fn disjoint_and_aligned() {
        let pool = Pool::new("test", 5, 4096);
        let mut held: Vec<Buffer> = (0..5).map(|_| pool.acquire()).collect();
        for (buffer, mark) in held.iter_mut().zip(1_u8..) {
            assert!(buffer.as_ptr().addr().is_multiple_of(4096));
            assert_eq!(buffer.size(), 4096);
            assert_eq!(buffer.bytes().len(), 4096);
            assert!(buffer.bytes().iter().all(|byte| *byte == 0));
            buffer.bytes_mut().fill(mark);
        }
        for (buffer, mark) in held.iter().zip(1_u8..) {
            assert!(buffer.bytes().iter().all(|byte| *byte == mark));
        }
    }

    /// Goal: clones see the same memory, block writing, and only the last drop returns the slot.
    #[test]
    fn references() {
        let pool = Pool::new("test", 1, 4096);
        let mut first = pool.acquire();
        first.bytes_mut()[7] = 42;
        let second = first.clone();
        assert!(!first.is_unique());
        assert_eq!(second.bytes()[7], 42);
        assert_eq!(first.as_ptr(), second.as_ptr());
        drop(first);
        assert_eq!(pool.available(), 0);
        assert!(second.is_unique());
        drop(second);
        assert_eq!(pool.available(), 1);
    }

    /// Goal: the most recently returned buffer comes back first, with its contents kept.
    #[test]
    fn last_in_first_out() {
        let pool = Pool::new("test", 2, 4096);
        let mut buffer = pool.acquire();
        buffer.bytes_mut()[0] = 9;
        let address = buffer.as_ptr();
        drop(buffer);
        let mut again = pool.acquire();
        assert_eq!(again.as_ptr(), address);
        assert_eq!(again.bytes()[0], 9);
        again.fill_zero();
        assert_eq!(again.bytes()[0], 0);
    }

    /// Goal: memory outlives the pool handle while a buffer still refers to it.
    #[test]
    fn buffer_outlives_pool() {
        let pool = Pool::new("test", 1, 4096);
        let mut buffer = pool.acquire();
        drop(pool);
        buffer.bytes_mut()[4095] = 1;
        assert_eq!(buffer.bytes()[4095], 1);
    }

    /// Goal: writing to a shared buffer is a broken invariant, by slice and by pointer.
    #[test]
    #[should_panic(expected = "pool test: writing to a shared buffer")]
    fn shared_write_panics() {
        let pool = Pool::new("test", 1, 4096);
        let mut buffer = pool.acquire();
        let _other = buffer.clone();
        let _ = buffer.bytes_mut();
    }

    /// Goal: the address for a device is refused as well while there are other references.
    #[test]
    #[should_panic(expected = "pool test: writing to a shared buffer")]
    fn shared_pointer_panics() {
        let pool = Pool::new("test", 1, 4096);
        let mut buffer = pool.acquire();
        let _other = buffer.clone();
        let _ = buffer.as_mut_ptr();
    }

    /// Goal: running out where capacity is guaranteed names the pool.
    #[test]
    #[should_panic(expected = "pool journal: all 1 buffers are in use")]
    fn exhausted_panics() {
        let pool = Pool::new("journal", 1, 4096);
        let _held = pool.acquire();
        let _ = pool.acquire();
    }

    /// Goal: sizes that are zero or unaligned are refused, and so is a pool of nothing.
    #[test]
    fn bad_sizes_panic() {
        for (count, size) in [(0, 4096), (1, 0), (1, 4095), (1, 4097)] {
            let result = catch_unwind(AssertUnwindSafe(|| Pool::new("test", count, size)));
            assert!(result.is_err(), "{count} buffers of {size}");
        }
    }

    /// Goal: threads that acquire, write, share and drop never see each other's writes, and the
    /// pool is whole afterwards.
    #[test]
    fn threads() {
        let pool = Pool::new("test", 8, 4096);
        std::thread::scope(|scope| {
            for mark in 1..=4_u8 {
                let pool = pool.clone();
                scope.spawn(move || {
                    for round in 0..2_000_u32 {
                        let Some(mut buffer) = pool.try_acquire() else { continue };
                        buffer.bytes_mut()[..64].fill(mark);
                        let other = buffer.clone();
                        assert!(other.bytes()[..64].iter().all(|byte| *byte == mark));
                        if round.is_multiple_of(2) {
                            drop(buffer);
                            assert!(other.is_unique());
                        }
                    }
                });
            }
        });
        assert_eq!(pool.available(), 8);
    }

    /// Goal: references dropped by different threads return the memory once, and a writer that
    /// waits to be alone then sees it unshared.
    #[test]
    fn threads_share_one() {
        let pool = Pool::new("test", 1, 4096);
        for round in 0..200_u8 {
            let mut buffer = pool.acquire();
            buffer.bytes_mut().fill(round);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    let other = buffer.clone();
                    scope.spawn(move || assert!(other.bytes().iter().all(|byte| *byte == round)));
                }
            });
            assert!(buffer.is_unique());
            buffer.bytes_mut()[0] = 0;
            drop(buffer);
            assert_eq!(pool.available(), 1);
        }
    }

    /// Goal: a large pool costs no physical memory before it is touched.
    #[test]
    fn untouched_memory_is_not_resident() {
        let resident_pages = || -> u64 {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse().unwrap()
        };
        let before = resident_pages();
        let pool = Pool::new("test", 4096, 1024 * 1024);
        let buffer = pool.acquire();
        assert_eq!(buffer.bytes()[0], 0);
        let grown = resident_pages().saturating_sub(before) * 4096;
        assert!(grown < 1024 * 1024 * 1024, "{grown} bytes became resident");
    }

    /// Goal: aligned memory is zero, aligned, writable, and of exactly the asked length.
    #[test]
    fn aligned_memory() {
        let mut memory = AlignedMemory::new(10_000);
        assert!(memory.as_ptr().addr().is_multiple_of(4096));
        assert_eq!(memory.len(), 10_000);
        assert!(memory.iter().all(|byte| *byte == 0));
        memory[9_999] = 5;
        assert_eq!(memory[9_999], 5);
        assert_eq!(memory.as_mut_ptr().cast_const(), memory.as_ptr());
        assert_eq!(format!("{memory:?}"), "AlignedMemory(10000 bytes)");
    }

    /// Goal: values print what a person needs.
    #[test]
    fn debug_output() {
        let pool = Pool::new("journal", 2, 4096);
        let buffer = pool.acquire();
        assert_eq!(format!("{pool:?}"), "Pool(journal, 1/2 free, 4096 bytes)");
        assert_eq!(format!("{buffer:?}"), "Buffer(journal 0, 4096 bytes)");
    }
}
