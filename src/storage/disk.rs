//! The seam between the core and whatever reads and writes the data file.
//!
//! The core pushes [`DiskRequest`]s into a bounded queue and a world (the kernel's ring, or a disk
//! in memory) drains it and answers each with one [`DiskDone`], in any order. Nothing here does
//! input or output.

use std::fmt;

use super::job::Job;
use super::queue::Queue;
use crate::protocol::{Buffer, SECTOR_SIZE};

/// Which part of the core a request belongs to and its answer goes back to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DiskOwner {
    /// A copy of the superblock.
    Superblock,
    /// A prepare of the write-ahead log.
    JournalPrepare,
    /// A sector of redundant prepare headers.
    JournalHeader,
    /// A page of a block.
    GridPage,
    /// A read of a whole block.
    GridBlock,
    /// A write of a whole block.
    GridWrite,
    /// A sync of everything the grid has written.
    GridSync,
}

/// Identity of a request; `index` means what the owner wants it to mean.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DiskToken {
    /// To whom the answer goes.
    pub owner: DiskOwner,
    /// The owner's slot for this request.
    pub index: u32,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskKind {
    /// Read into the buffer, which has no other reference.
    Read,
    /// Write; durable only after a later sync.
    Write,
    /// Write; durable when done.
    WriteDurable,
    /// Make every write durable that was done before this request was submitted.
    Sync,
}

impl DiskKind {
    /// All of them, in order.
    pub const ALL: [DiskKind; 4] =
        [DiskKind::Read, DiskKind::Write, DiskKind::WriteDurable, DiskKind::Sync];

    /// As metrics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DiskKind::Read => "read",
            DiskKind::Write => "write",
            DiskKind::WriteDurable => "durable_write",
            DiskKind::Sync => "sync",
        }
    }
}

/// One operation on the data file.
#[derive(Debug)]
pub struct DiskRequest {
    /// Identity, echoed in the answer.
    pub token: DiskToken,
    /// What is to be done.
    pub kind: DiskKind,
    /// Absolute offset in the file in bytes, a multiple of 4096; 0 for a sync.
    pub offset: u64,
    /// Bytes, a multiple of 4096; 0 for a sync.
    pub length: u32,
    /// Memory to read to or write from; `None` for a sync.
    pub buffer: Option<Buffer>,
    /// Where in the buffer the bytes begin, a multiple of 4096.
    pub buffer_offset: u32,
}

impl DiskRequest {
    /// Asserts the rules of the fields: for worlds, before they obey.
    ///
    /// # Panics
    ///
    /// If a rule is broken.
    pub fn check(&self) {
        if self.kind == DiskKind::Sync {
            assert!(self.buffer.is_none(), "a sync has no buffer");
            assert!(self.length == 0, "a sync has no length");
            return;
        }
        assert!(self.offset.is_multiple_of(u64::from(SECTOR_SIZE)));
        assert!(self.length > 0);
        assert!(self.length.is_multiple_of(SECTOR_SIZE));
        assert!(self.buffer_offset.is_multiple_of(SECTOR_SIZE));
        let buffer = self.buffer.as_ref().expect("a read or write has a buffer");
        assert!(self.length <= buffer.size());
        assert!(self.buffer_offset <= buffer.size() - self.length);
        if self.kind == DiskKind::Read {
            assert!(buffer.is_unique(), "a read owns its buffer");
        }
    }
}

/// The answer to a request. A request is answered exactly once.
#[derive(Debug)]
pub struct DiskDone {
    /// The request, with its buffer.
    pub request: DiskRequest,
    /// Whether all bytes were transferred.
    pub result: Result<(), DiskError>,
}

/// Why a request failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskError {
    /// The system's error number; 0 when the system reported success but fewer bytes.
    pub errno: i32,
    /// Bytes that were transferred before.
    pub bytes_done: u32,
}

impl fmt::Display for DiskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errno == 0 {
            write!(formatter, "the device stopped after {} bytes", self.bytes_done)
        } else {
            write!(formatter, "system error {} after {} bytes", self.errno, self.bytes_done)
        }
    }
}

impl std::error::Error for DiskError {}

/// What storage wants done: drained by the world after every call into the core.
#[derive(Debug)]
pub struct StorageOutbox {
    /// Reads, writes and syncs of the data file.
    pub disk: Queue<DiskRequest>,
    /// Pure work for the helper thread.
    pub jobs: Queue<Job>,
    /// Writes of the log are on their way, for which clients wait: who has time leaves the disk to
    /// them.
    pub is_log_busy: bool,
}

impl StorageOutbox {
    /// An empty outbox for at most `disk_max` requests and `jobs_max` jobs.
    ///
    /// # Panics
    ///
    /// If a limit is zero.
    #[must_use]
    pub fn new(disk_max: usize, jobs_max: usize) -> StorageOutbox {
        let (disk, jobs) = (Queue::new(disk_max), Queue::new(jobs_max));
        StorageOutbox { disk, jobs, is_log_busy: false }
    }
}
