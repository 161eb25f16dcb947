//! Submission to and completion from the kernel through `io_uring`.
//!
//! An operation in flight owns the buffer it works on: it is moved in at submission and moved out
//! with the completion, so memory the kernel may touch is never released or reused. Disk requests
//! are continued after short transfers and repeated when interrupted; what comes out is their final
//! result. Transfers on sockets come out as they end. Everything is reserved at construction, and
//! the number of operations in flight has a fixed limit. The submission queue may be smaller than
//! that: operations for which it has no room wait in a queue of the ring's own.
//! Not covered: which descriptor is whose; the caller keeps a descriptor open while an operation
//! on it is in flight.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::growth::Growth;
use io_uring::types::{CancelBuilder, Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use super::batch::Batch;
use super::socket::SocketName;
use super::system::{Limit, file_facts, limit};
use crate::protocol::{Buffer, Message, to_index};
use crate::storage::{DiskDone, DiskError, DiskKind, DiskRequest};

/// A disk request that is interrupted more often than this has failed.
const RETRIES_MAX: u32 = 10_000;
/// Mark of the reservation of space, which belongs to no operation and works on no memory.
const GROWTH: u64 = u64::MAX;
/// Bytes of locked memory below which rings are small.
pub const LOCKED_MEMORY_WANTED: u64 = 1 << 20;
/// Entries of the submission queue of a small ring.
const ENTRIES_SMALL: u32 = 64;
/// Attempts to set up a small ring for which there is no room, and the time between two: five
/// seconds in all.
const SETUP_ATTEMPTS_MAX: u32 = 100;
const SETUP_PAUSE: Duration = Duration::from_millis(50);
/// Maximum waits, of 100 ms each, for the end of operations when a ring is dropped.
const DROP_WAITS_MAX: u32 = 100;

/// The system refuses a ring.
#[derive(Debug)]
pub struct RingError {
    /// What was tried.
    pub step: &'static str,
    /// What the system answered.
    pub error: io::Error,
    /// Value of `kernel.io_uring_disabled`, 0 if it does not exist.
    pub disabled: u32,
}

impl fmt::Display for RingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}: ", self.step, self.error)?;
        match self.error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if self.disabled > 0 => write!(
                formatter,
                "io_uring is switched off on this machine (kernel.io_uring_disabled = {}); run \
                 `sysctl kernel.io_uring_disabled=0`",
                self.disabled
            ),
            Some(libc::EPERM | libc::EACCES) => write!(
                formatter,
                "io_uring is forbidden to this process, in a container usually by its seccomp \
                 profile; allow io_uring_setup, io_uring_enter and io_uring_register (docker: \
                 --security-opt seccomp=unconfined)"
            ),
            Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL) => write!(
                formatter,
                "io_uring is missing or too old; Linux 5.11 or newer is needed, and a container \
                 must not filter the call"
            ),
            Some(libc::ENOMEM) => write!(
                formatter,
                "the limit of locked memory is too low; raise it (ulimit -l, LimitMEMLOCK= in a \
                 systemd unit) to 8 MiB or more"
            ),
            Some(libc::EMFILE | libc::ENFILE) => {
                write!(formatter, "raise the limit of open files (ulimit -n)")
            }
            _ => write!(formatter, "see the kernel's log for more"),
        }
    }
}

impl std::error::Error for RingError {}

/// Why the system refuses a ring: whether it is switched off shows in a file.
fn setup_error(error: io::Error) -> RingError {
    // Not frozen: rings are made at the start.
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    RingError { step: "set up io_uring", error, disabled }
}

/// Why a ring that worked does not any more. Made while the memory is frozen.
fn use_error(step: &'static str, error: io::Error) -> RingError {
    RingError { step, error, disabled: 0 }
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// A job is done.
    WorkerDone,
    /// The process is asked to end.
    EndSignals,
    /// Standard input has something, or its end.
    Input,
    /// The connection that we opened to this replica has something to say: most likely its end.
    Replica(u8),
}

/// An operation that has ended, with everything that went into it.
#[derive(Debug)]
pub enum Completion {
    /// A disk request.
    Disk {
        /// How it ended.
        done: DiskDone,
        /// When it was handed over, as the caller said.
        since_ns: u64,
    },
    /// A new connection, or the errno of why there is none.
    Accepted(Result<TcpStream, i32>),
    /// Bytes from a peer: their number, zero at the end of the stream, or an errno.
    Received {
        /// As given at submission.
        connection: u32,
        /// The memory received into.
        buffer: Buffer,
        /// Bytes, or an errno.
        result: Result<u32, i32>,
    },
    /// Bytes to a peer: how many of those given were taken, or an errno.
    Sent {
        /// As given at submission.
        connection: u32,
        /// The message.
        message: Message,
        /// Bytes, or an errno.
        result: Result<u32, i32>,
    },
    /// The attempt to connect to this replica has ended.
    Connected {
        /// As given at submission.
        replica: u8,
        /// An errno if there is no connection.
        result: Result<(), i32>,
    },
    /// Messages to this replica: how many of the bytes were taken, or an errno.
    BatchSent {
        /// As given at submission.
        replica: u8,
        /// The messages, not advanced yet.
        batch: Box<Batch>,
        /// Bytes, or an errno.
        result: Result<u32, i32>,
    },
    /// A watched descriptor became readable; it is not watched any more.
    Readable(Watch),
}

/// What the kernel is doing for us, with the memory it does it on.
enum Operation {
    Disk { descriptor: RawFd, request: DiskRequest, bytes_done: u32, retries: u32, since_ns: u64 },
    Accept { descriptor: RawFd },
    Receive { descriptor: RawFd, connection: u32, buffer: Buffer, part: Part, whole: bool },
    Send { descriptor: RawFd, connection: u32, message: Message, part: Part },
    Connect { descriptor: RawFd, replica: u8, name: SocketName },
    SendBatch { descriptor: RawFd, replica: u8, batch: Box<Batch> },
    Watch { descriptor: RawFd, watch: Watch },
}

/// A part of a buffer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub offset: u32,
    /// Number of bytes, not zero.
    pub length: u32,
}

impl Part {
    fn check(self, size: u32) {
        assert!(self.length > 0);
        assert!(self.offset <= size);
        assert!(self.length <= size - self.offset);
    }
}

impl Operation {
    /// The submission entry. The addresses in it are those of pooled memory that the operation
    /// owns, or of the operation itself, which does not move while it is in flight.
    fn entry(&mut self) -> squeue::Entry {
        match self {
            Operation::Disk { descriptor, request, bytes_done, .. } => {
                disk_entry(Fd(*descriptor), request, *bytes_done)
            }
            Operation::Accept { descriptor } => {
                let null = std::ptr::null_mut();
                opcode::Accept::new(Fd(*descriptor), null, std::ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Operation::Receive { descriptor, buffer, part, whole, .. } => {
                part.check(buffer.size());
                let bytes = &mut buffer.bytes_mut()[to_index(part.offset)..];
                let flags = if *whole { libc::MSG_WAITALL } else { 0 };
                opcode::Recv::new(Fd(*descriptor), bytes.as_mut_ptr(), part.length)
                    .flags(flags)
                    .build()
            }
            Operation::Send { descriptor, message, part, .. } => {
                part.check(message.0.size());
                let bytes = &message.0.bytes()[to_index(part.offset)..];
                opcode::Send::new(Fd(*descriptor), bytes.as_ptr(), part.length)
                    .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build()
            }
            Operation::Connect { descriptor, name, .. } => {
                let (pointer, length) = name.raw();
                opcode::Connect::new(Fd(*descriptor), pointer, length).build()
            }
            Operation::SendBatch { descriptor, batch, .. } => {
                let flags = libc::MSG_NOSIGNAL.unsigned_abs();
                opcode::SendMsg::new(Fd(*descriptor), batch.header()).flags(flags).build()
            }
            Operation::Watch { descriptor, .. } => {
                let events = u32::try_from(libc::POLLIN).expect("poll events are positive");
                opcode::PollAdd::new(Fd(*descriptor), events).build()
            }
        }
    }
}

fn disk_entry(descriptor: Fd, request: &mut DiskRequest, bytes_done: u32) -> squeue::Entry {
    assert!(bytes_done < request.length || request.kind == DiskKind::Sync);
    let start = to_index(request.buffer_offset) + to_index(bytes_done);
    let length = request.length - bytes_done;
    let offset = request.offset + u64::from(bytes_done);
    if request.kind == DiskKind::Sync {
        return opcode::Fsync::new(descriptor).flags(FsyncFlags::DATASYNC).build();
    }
    let buffer = request.buffer.as_mut().expect("a read or write has a buffer");
    if request.kind == DiskKind::Read {
        let bytes = &mut buffer.bytes_mut()[start..start + to_index(length)];
        return opcode::Read::new(descriptor, bytes.as_mut_ptr(), length).offset(offset).build();
    }
    let bytes = &buffer.bytes()[start..start + to_index(length)];
    let flags = if request.kind == DiskKind::WriteDurable { libc::RWF_DSYNC } else { 0 };
    opcode::Write::new(descriptor, bytes.as_ptr(), length).offset(offset).rw_flags(flags).build()
}

/// The queues to and from the kernel, and a table of what is in flight.
pub struct Ring {
    kernel: IoUring,
    operations: Box<[Option<Operation>]>,
    /// Indexes of empty places in `operations`.
    free: Vec<u32>,
    /// Indexes of operations for which the submission queue had no room yet, the oldest first.
    waiting: VecDeque<u32>,
    growth: Growth,
}

impl fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ring({} in flight of {})", self.in_flight(), self.operations.len())
    }
}

/// Returns the entries of a ring that hands over `operations_max` operations with one system call,
/// or fewer if little memory may be locked.
///
/// The kernel counts the memory of all rings of a user against that user's limit of locked memory,
/// and refuses a ring beyond it. A ring for a production server takes 52 KiB, so under the old
/// default of 64 KiB a second server of the same user would not start. A small ring takes 8 KiB.
fn entries_for(operations_max: u32) -> u32 {
    let wanted = operations_max.next_power_of_two();
    match limit(Limit::LockedMemory) {
        Ok(Some(bytes)) if bytes < LOCKED_MEMORY_WANTED => wanted.min(ENTRIES_SMALL),
        _ => wanted,
    }
}

/// Builds the kernel's part, with the cheaper ways of notification where the kernel knows them.
fn build(entries: u32) -> io::Result<IoUring> {
    let mut modern = IoUring::builder();
    modern.setup_single_issuer().setup_defer_taskrun().setup_clamp();
    match modern.build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_clamp().build(entries)
        }
        result => result,
    }
}

/// Builds a ring, and a small one if the limit of locked memory has no room for it; of that, tries
/// again for some seconds. The kernel gives the memory of a ring back a while after the process
/// that had it has ended, so a server that was killed and started again would meet its own ring.
fn build_patiently<T>(
    entries: u32,
    mut build: impl FnMut(u32) -> io::Result<T>,
    mut pause: impl FnMut(),
) -> io::Result<T> {
    let mut made = build(entries);
    for attempt in 0..SETUP_ATTEMPTS_MAX {
        let errno = made.as_ref().err().and_then(io::Error::raw_os_error);
        if errno != Some(libc::ENOMEM) {
            break;
        }
        if attempt > 0 {
            pause();
        }
        made = build(entries.min(ENTRIES_SMALL));
    }
    made
}

impl Ring {
    /// A ring for at most `operations_max` operations in flight. To be used by the thread that made
    /// it.
    ///
    /// # Errors
    ///
    /// If the system refuses; the message says why and what to do.
    ///
    /// # Panics
    ///
    /// If `operations_max` is zero or above 16,384.
    pub fn new(operations_max: u32) -> Result<Ring, RingError> {
        assert!(operations_max > 0);
        assert!(operations_max <= 16_384);
        // One more for the reservation of space.
        Ring::with_entries(operations_max, entries_for(operations_max + 1))
    }

    /// A ring that hands over up to `entries` operations with one system call. If more end at a
    /// time than it has room for, the kernel keeps them (`IORING_FEAT_NODROP`).
    fn with_entries(operations_max: u32, entries: u32) -> Result<Ring, RingError> {
        let made = build_patiently(entries, build, || std::thread::sleep(SETUP_PAUSE));
        let kernel = made.map_err(setup_error)?;
        let parameters = kernel.params();
        if !parameters.is_feature_ext_arg() || !parameters.is_feature_nodrop() {
            return Err(setup_error(io::Error::from_raw_os_error(libc::ENOSYS)));
        }
        Ok(Ring {
            kernel,
            operations: (0..operations_max).map(|_| None).collect(),
            free: (0..operations_max).rev().collect(),
            waiting: VecDeque::with_capacity(to_index(operations_max)),
            growth: Growth::default(),
        })
    }

    /// Operations submitted whose completion was not taken yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.operations.len() - self.free.len()
    }

    /// Reads, writes or syncs the file. The completion carries the time, which is by
    /// the caller's clock.
    ///
    /// # Panics
    ///
    /// If the request is malformed or the ring is full.
    pub fn disk(&mut self, file: BorrowedFd<'_>, request: DiskRequest, since_ns: u64) {
        request.check();
        let descriptor = file.as_raw_fd();
        if matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable) {
            self.grow(file, request.offset + u64::from(request.length));
        }
        self.start(Operation::Disk { descriptor, request, bytes_done: 0, retries: 0, since_ns });
    }

    /// Has space reserved if a write comes near to the end of the file. Only a hint: if it fails,
    /// the write that needs the space says so.
    fn grow(&mut self, file: BorrowedFd<'_>, write_end: u64) {
        if self.growth.wants_size() {
            // A size that the system does not tell is too large to reserve anything behind.
            self.growth.set_size(file_facts(file).map_or(u64::MAX, |facts| facts.size));
        }
        let Some((offset, length)) = self.growth.next(write_end) else { return };
        let descriptor = Fd(file.as_raw_fd());
        let entry = opcode::Fallocate::new(descriptor, length).offset(offset).build();
        // SAFETY: the operation takes no memory.
        let pushed = unsafe { self.kernel.submission().push(&entry.user_data(GROWTH)) };
        if pushed.is_err() {
            // The queue is full. The next write that comes near the end asks again.
            self.growth.put_off(offset);
        }
    }

    /// Waits for one connection.
    ///
    /// # Panics
    ///
    /// If the ring is full.
    pub fn accept(&mut self, listener: BorrowedFd<'_>) {
        self.start(Operation::Accept { descriptor: listener.as_raw_fd() });
    }

    /// Receives into a part of `buffer`: what there is, or, if `whole`, until the part is full.
    ///
    /// # Panics
    ///
    /// If the part is not inside the buffer, the buffer is shared, or the ring is full.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        connection: u32,
        buffer: Buffer,
        part: Part,
        whole: bool,
    ) {
        let descriptor = socket.as_raw_fd();
        self.start(Operation::Receive { descriptor, connection, buffer, part, whole });
    }

    /// Sends a part of `message`.
    ///
    /// # Panics
    ///
    /// If the part is not inside the message's buffer, or the ring is full.
    pub fn send(&mut self, socket: BorrowedFd<'_>, connection: u32, message: Message, part: Part) {
        let descriptor = socket.as_raw_fd();
        self.start(Operation::Send { descriptor, connection, message, part });
    }

    /// Connects to a replica.
    ///
    /// # Panics
    ///
    /// If the ring is full.
    pub fn connect(&mut self, socket: BorrowedFd<'_>, replica: u8, name: SocketName) {
        self.start(Operation::Connect { descriptor: socket.as_raw_fd(), replica, name });
    }

    /// Sends to a replica as much of a batch as is taken at once, at least one byte.
    ///
    /// # Panics
    ///
    /// If the batch is empty, or the ring is full.
    pub fn send_batch(&mut self, socket: BorrowedFd<'_>, replica: u8, batch: Box<Batch>) {
        self.start(Operation::SendBatch { descriptor: socket.as_raw_fd(), replica, batch });
    }

    /// Reports once that the descriptor is readable or at its end.
    ///
    /// # Panics
    ///
    /// If the ring is full.
    pub fn watch(&mut self, descriptor: BorrowedFd<'_>, watch: Watch) {
        self.start(Operation::Watch { descriptor: descriptor.as_raw_fd(), watch });
    }

    /// Hands everything new to the kernel and waits for a completion, at most `timeout_ns`. One
    /// system call.
    ///
    /// # Errors
    ///
    /// If the kernel cannot.
    pub fn wait(&mut self, timeout_ns: u64) -> Result<(), RingError> {
        let nanoseconds = u32::try_from(timeout_ns % 1_000_000_000).unwrap_or(0);
        let time = Timespec::new().sec(timeout_ns / 1_000_000_000).nsec(nanoseconds);
        let arguments = SubmitArgs::new().timespec(&time);
        self.hand_over_waiting()?;
        match self.kernel.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or the kernel is short of memory for a moment: what
                // was not submitted is still in the queue for the next call.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(use_error("wait for io_uring", error)),
            },
        }
    }

    /// Hands everything new to the kernel and waits for nothing.
    ///
    /// # Errors
    ///
    /// If the kernel cannot.
    pub fn submit(&mut self) -> Result<(), RingError> {
        self.hand_over_waiting()?;
        self.submit_queue()
    }

    /// Hands the submission queue to the kernel.
    fn submit_queue(&mut self) -> Result<(), RingError> {
        if self.kernel.submission().is_empty() {
            return Ok(());
        }
        match self.kernel.submit() {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // What was not submitted is still in the queue.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(use_error("submit to io_uring", error)),
            },
        }
    }

    /// Moves operations that wait into the submission queue. If the kernel takes none of a full
    /// queue, they wait on: it is short of memory for a moment, or first wants completions taken.
    fn hand_over_waiting(&mut self) -> Result<(), RingError> {
        while !self.waiting.is_empty() {
            if self.kernel.submission().is_full() {
                self.submit_queue()?;
                if self.kernel.submission().is_full() {
                    return Ok(());
                }
            }
            let index = self.waiting.pop_front().expect("it was there a moment ago");
            let is_queued = self.queue(index);
            assert!(is_queued, "the queue has room");
        }
        Ok(())
    }

    /// An operation that has ended; `None` if there is no more now.
    pub fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let (index, result) = self.next_result()?;
            if let Some(completion) = self.finish(index, result) {
                return Some(completion);
            }
        }
    }

    /// Index of the operation, and its result as the kernel gives it.
    fn next_result(&mut self) -> Option<(u32, i32)> {
        let mut entry = self.kernel.completion().next()?;
        // One reservation at a time, so one look behind it is enough.
        if entry.user_data() == GROWTH {
            self.growth.done(entry.result() == 0);
            entry = self.kernel.completion().next()?;
            assert!(entry.user_data() != GROWTH, "one reservation at a time");
        }
        let index = u32::try_from(entry.user_data()).expect("we only submit indexes");
        Some((index, entry.result()))
    }

    fn start(&mut self, operation: Operation) {
        let index = self.free.pop().expect("no more operations than the ring was made for");
        let place = &mut self.operations[to_index(index)];
        assert!(place.is_none());
        *place = Some(operation);
        self.push(index);
    }

    /// Queues the operation at `index` for submission, behind those that wait.
    fn push(&mut self, index: u32) {
        if !self.waiting.is_empty() || !self.queue(index) {
            assert!(self.waiting.len() < self.operations.len(), "each operation waits once");
            self.waiting.push_back(index);
        }
    }

    /// Puts the operation at `index` into the submission queue. Returns whether there was room.
    fn queue(&mut self, index: u32) -> bool {
        let operation = self.operations[to_index(index)].as_mut().expect("it is in flight");
        let entry = operation.entry().user_data(u64::from(index));
        // SAFETY: the memory the entry points to is part of this place of the table, or belongs to
        // a pooled or boxed buffer that the table owns until the kernel reports the end of this
        // operation (see `finish` and `drop`), does not move with it, and is written by the kernel
        // only if the buffer has no other reference.
        let pushed = unsafe { self.kernel.submission().push(&entry) };
        pushed.is_ok()
    }

    /// Takes an ended operation out of the table, or starts it again if there is more to do.
    fn finish(&mut self, index: u32, result: i32) -> Option<Completion> {
        let place = &mut self.operations[to_index(index)];
        let operation = place.as_mut().expect("only operations in flight end");
        #[cfg(test)]
        let result = super::test_faults::apply(fault_kind(operation), result);
        if wants_more(operation, result) {
            self.push(index);
            return None;
        }
        let operation = place.take().expect("it was there a moment ago");
        self.free.push(index);
        Some(completion(operation, result))
    }

    /// Ends everything in flight; whether nothing is left.
    fn cancel_all(&mut self) -> bool {
        for _ in 0..DROP_WAITS_MAX {
            if self.in_flight() == 0 {
                return true;
            }
            if self.wait(0).is_err() {
                return false;
            }
            // Not found, too old to know: what counts is what has ended.
            let _ = self.kernel.submitter().register_sync_cancel(None, CancelBuilder::any());
            if self.wait(100_000_000).is_err() {
                return false;
            }
            while let Some((index, result)) = self.next_result() {
                let operation = self.operations[to_index(index)].take();
                self.free.push(index);
                drop(completion(operation.expect("only operations in flight end"), result));
            }
        }
        self.in_flight() == 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.cancel_all() {
            return;
        }
        // The kernel may still touch this memory: better never to release it.
        for operation in &mut self.operations {
            std::mem::forget(operation.take());
        }
    }
}

/// What an operation is for the faults of tests.
#[cfg(test)]
fn fault_kind(operation: &Operation) -> super::test_faults::Kind {
    use super::test_faults::Kind;
    match operation {
        Operation::Disk { request, .. } => match request.kind {
            DiskKind::Read => Kind::Read,
            DiskKind::Write | DiskKind::WriteDurable => Kind::Write,
            DiskKind::Sync => Kind::Sync,
        },
        Operation::Accept { .. } => Kind::Accept,
        Operation::Receive { .. } => Kind::Receive,
        Operation::Send { .. } => Kind::Send,
        Operation::Connect { .. } => Kind::Connect,
        Operation::SendBatch { .. } => Kind::SendBatch,
        Operation::Watch { .. } => Kind::Watch,
    }
}

/// Whether an ended operation must continue; notes its progress.
fn wants_more(operation: &mut Operation, result: i32) -> bool {
    let interrupted = result == -libc::EINTR || result == -libc::EAGAIN;
    match operation {
        Operation::Disk { request, bytes_done, retries, .. } => {
            if interrupted && *retries < RETRIES_MAX {
                *retries += 1;
                return true;
            }
            let Ok(count) = u32::try_from(result) else { return false };
            if request.kind == DiskKind::Sync {
                return false;
            }
            assert!(count <= request.length - *bytes_done);
            *bytes_done += count;
            count > 0 && *bytes_done < request.length
        }
        // Errors other than these two are for the owner, who also knows when to give up.
        Operation::Accept { .. }
        | Operation::Receive { .. }
        | Operation::Send { .. }
        | Operation::SendBatch { .. } => result == -libc::EINTR,
        // An attempt that was interrupted continues by itself and must not be made twice.
        Operation::Connect { .. } => false,
        Operation::Watch { .. } => interrupted,
    }
}

/// The completion of an operation that has ended.
fn completion(operation: Operation, result: i32) -> Completion {
    let count = u32::try_from(result).map_err(|_| -result);
    match operation {
        Operation::Disk { request, bytes_done, since_ns, .. } => {
            let complete = request.kind == DiskKind::Sync || bytes_done == request.length;
            let result = match count {
                Ok(_) if complete => Ok(()),
                Ok(_) => Err(DiskError { errno: 0, bytes_done }),
                Err(errno) => Err(DiskError { errno, bytes_done }),
            };
            Completion::Disk { done: DiskDone { request, result }, since_ns }
        }
        Operation::Accept { .. } => Completion::Accepted(count.map(|_| {
            // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
            TcpStream::from(unsafe { OwnedFd::from_raw_fd(result) })
        })),
        Operation::Receive { connection, buffer, part, .. } => {
            assert!(count.is_err() || count.is_ok_and(|count| count <= part.length));
            Completion::Received { connection, buffer, result: count }
        }
        Operation::Send { connection, message, part, .. } => {
            assert!(count.is_err() || count.is_ok_and(|count| count <= part.length));
            Completion::Sent { connection, message, result: count }
        }
        Operation::Connect { replica, .. } => {
            Completion::Connected { replica, result: count.map(drop) }
        }
        Operation::SendBatch { replica, batch, .. } => {
            Completion::BatchSent { replica, batch, result: count }
        }
        Operation::Watch { watch, .. } => Completion::Readable(watch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::allocator::tests::allocations_of_thread;
    use crate::io::file::DataFile;
    use crate::io::file::tests::TemporaryPath;
    use crate::io::socket::EventCounter;
    use crate::protocol::Pool;
    use crate::storage::{DiskOwner, DiskToken};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    const SECOND_NS: u64 = 1_000_000_000;
    const HANDED_OVER_NS: u64 = 42;

    fn wait_one(ring: &mut Ring) -> Completion {
        for _ in 0..60 {
            if let Some(completion) = ring.next_completion() {
                return completion;
            }
            ring.wait(SECOND_NS).unwrap();
        }
        panic!("no completion");
    }

    fn wait_disk(ring: &mut Ring) -> DiskDone {
        match wait_one(ring) {
            Completion::Disk { done, since_ns } => {
                assert_eq!(since_ns, HANDED_OVER_NS);
                done
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn request(kind: DiskKind, offset: u64, length: u32, buffer: Option<Buffer>) -> DiskRequest {
        let token = DiskToken { owner: DiskOwner::GridWrite, index: 7 };
        DiskRequest { token, kind, offset, length, buffer, buffer_offset: 0 }
    }

    fn data_file(path: &TemporaryPath, size: u64) -> DataFile {
        DataFile::format(&path.0, size, &[], true).unwrap();
        DataFile::open(&path.0, size, true).unwrap()
    }

    /// Goal: what is written, durably or not, is read back, from and to the middle of buffers.
    #[test]
    fn disk_round_trip() {
        let path = TemporaryPath::new("ring-disk");
        let file = data_file(&path, 1 << 20);
        let pool = Pool::new("test", 2, 65_536);
        let mut ring = Ring::new(8).unwrap();
        let mut buffer = pool.acquire();
        buffer.bytes_mut()[4096..12_288].fill(5);
        for kind in [DiskKind::Write, DiskKind::WriteDurable] {
            let mut write = request(kind, 8192, 8192, Some(buffer.clone()));
            write.buffer_offset = 4096;
            ring.disk(file.as_fd(), write, HANDED_OVER_NS);
            let done = wait_disk(&mut ring);
            assert_eq!(done.result, Ok(()));
            assert_eq!(done.request.token.index, 7);
        }
        ring.disk(file.as_fd(), request(DiskKind::Sync, 0, 0, None), HANDED_OVER_NS);
        assert_eq!(wait_disk(&mut ring).result, Ok(()));
        let read = request(DiskKind::Read, 4096, 16_384, Some(pool.acquire()));
        ring.disk(file.as_fd(), read, HANDED_OVER_NS);
        let done = wait_disk(&mut ring);
        assert_eq!(done.result, Ok(()));
        let bytes = done.request.buffer.unwrap();
        let bytes = &bytes.bytes()[..16_384];
        assert!(bytes[..4096].iter().all(|byte| *byte == 0));
        assert!(bytes[4096..12_288].iter().all(|byte| *byte == 5));
        assert!(bytes[12_288..].iter().all(|byte| *byte == 0));
        assert_eq!(ring.in_flight(), 0);
    }

    /// Goal: reading past the end is an error that says how far it came.
    #[test]
    fn disk_short_read() {
        let path = TemporaryPath::new("ring-short");
        let file = data_file(&path, 8192);
        let pool = Pool::new("test", 1, 65_536);
        let mut ring = Ring::new(1).unwrap();
        let read = request(DiskKind::Read, 4096, 16_384, Some(pool.acquire()));
        ring.disk(file.as_fd(), read, HANDED_OVER_NS);
        let expected = DiskError { errno: 0, bytes_done: 4096 };
        assert_eq!(wait_disk(&mut ring).result, Err(expected));
    }

    /// Goal: a write that the system refuses comes back with its errno and its buffer.
    #[test]
    fn disk_error() {
        let path = TemporaryPath::new("ring-error");
        let _file = data_file(&path, 8192);
        let read_only = std::fs::File::open(&path.0).unwrap();
        let pool = Pool::new("test", 1, 4096);
        let mut ring = Ring::new(1).unwrap();
        let write = request(DiskKind::Write, 0, 4096, Some(pool.acquire()));
        ring.disk(read_only.as_fd(), write, HANDED_OVER_NS);
        let done = wait_disk(&mut ring);
        assert_eq!(done.result, Err(DiskError { errno: libc::EBADF, bytes_done: 0 }));
        assert!(done.request.buffer.is_some());
    }

    /// Goal: many operations in one submission all end, whatever their order, without allocating.
    #[test]
    fn disk_batch() {
        let path = TemporaryPath::new("ring-batch");
        let file = data_file(&path, 1 << 20);
        let pool = Pool::new("test", 64, 4096);
        let mut ring = Ring::new(64).unwrap();
        let before = allocations_of_thread();
        for round in 0..3_u64 {
            for slot in 0..64_u64 {
                let kind = if round == 0 { DiskKind::Write } else { DiskKind::Read };
                let mut buffer = pool.acquire();
                buffer.bytes_mut().fill(u8::try_from(slot).unwrap() + 1);
                let request = request(kind, slot * 4096, 4096, Some(buffer));
                ring.disk(file.as_fd(), request, HANDED_OVER_NS);
            }
            for _ in 0..64 {
                let done = wait_disk(&mut ring);
                assert_eq!(done.result, Ok(()));
                let mark = u8::try_from(done.request.offset / 4096).unwrap() + 1;
                let buffer = done.request.buffer.unwrap();
                assert!(buffer.bytes().iter().all(|byte| *byte == mark));
            }
        }
        assert_eq!(allocations_of_thread(), before);
        assert_eq!(pool.available(), 64);
    }

    /// Goal: a ring much smaller than what is in flight loses no operation, lets them wait in the
    /// order in which they were started, and allocates nothing.
    #[test]
    fn small_ring() {
        let path = TemporaryPath::new("ring-small");
        let file = data_file(&path, 1 << 20);
        let pool = Pool::new("test", 64, 4096);
        let mut ring = Ring::with_entries(64, 2).unwrap();
        assert!(ring.kernel.params().cq_entries() < 64);
        let before = allocations_of_thread();
        for round in 0..20_u64 {
            let kind = if round % 2 == 0 { DiskKind::Write } else { DiskKind::Read };
            for slot in 0..64_u64 {
                ring.disk(
                    file.as_fd(),
                    request(kind, slot * 4096, 4096, Some(pool.acquire())),
                    HANDED_OVER_NS,
                );
            }
            assert!(ring.waiting.len() > 32);
            let offset_of = |index: &u32| match &ring.operations[to_index(*index)] {
                Some(Operation::Disk { request, .. }) => request.offset,
                _ => panic!("only disk requests wait"),
            };
            assert!(ring.waiting.iter().map(offset_of).is_sorted());
            let mut offsets = 0;
            for _ in 0..64 {
                let done = wait_disk(&mut ring);
                assert_eq!(done.result, Ok(()));
                offsets += done.request.offset;
            }
            assert_eq!(offsets, (0..64).map(|slot| slot * 4096).sum::<u64>());
            assert_eq!((ring.in_flight(), ring.waiting.len()), (0, 0));
        }
        assert_eq!(allocations_of_thread(), before);
    }

    /// Goal: accept, receive and send work on a loopback connection, and its end is seen.
    #[test]
    fn sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = Pool::new("test", 2, 4096);
        let mut ring = Ring::new(4).unwrap();
        ring.accept(listener.as_fd());
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Completion::Accepted(Ok(stream)) = wait_one(&mut ring) else { panic!("accept") };
        peer.write_all(b"hello").unwrap();
        let part = Part { offset: 10, length: 100 };
        ring.receive(stream.as_fd(), 3, pool.acquire(), part, false);
        let Completion::Received { connection, buffer, result } = wait_one(&mut ring) else {
            panic!("receive")
        };
        assert_eq!((connection, result), (3, Ok(5)));
        assert_eq!(&buffer.bytes()[10..15], b"hello");
        let part = Part { offset: 10, length: 5 };
        ring.send(stream.as_fd(), 3, Message(buffer), part);
        assert!(matches!(wait_one(&mut ring), Completion::Sent { result: Ok(5), .. }));
        let mut text = [0; 5];
        peer.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        drop(peer);
        let part = Part { offset: 0, length: 1 };
        ring.receive(stream.as_fd(), 3, pool.acquire(), part, true);
        assert!(matches!(wait_one(&mut ring), Completion::Received { result: Ok(0), .. }));
    }

    /// Goal: a watched counter is reported once, and time limits the wait.
    #[test]
    fn watch_and_timeout() {
        let counter = EventCounter::new().unwrap();
        let mut ring = Ring::new(2).unwrap();
        ring.watch(counter.as_fd(), Watch::WorkerDone);
        ring.wait(1_000_000).unwrap();
        assert!(ring.next_completion().is_none());
        counter.notify();
        assert!(matches!(wait_one(&mut ring), Completion::Readable(Watch::WorkerDone)));
        assert!(ring.next_completion().is_none());
    }

    /// Goal: dropping a ring with a receive in flight ends it and gives the buffer back.
    #[test]
    fn drop_in_flight() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let pool = Pool::new("test", 2, 4096);
        let mut ring = Ring::new(4).unwrap();
        ring.accept(listener.as_fd());
        ring.receive(stream.as_fd(), 0, pool.acquire(), Part { offset: 0, length: 9 }, true);
        ring.wait(1_000_000).unwrap();
        let part = Part { offset: 0, length: 9 };
        ring.receive(stream.as_fd(), 0, pool.acquire(), part, false);
        assert_eq!(pool.available(), 0);
        drop(ring);
        assert_eq!(pool.available(), 2);
        drop(peer);
    }

    /// Goal: every cause of a refused ring has its own remedy in the message.
    #[test]
    fn refusals() {
        let text = |errno, disabled| {
            let error = io::Error::from_raw_os_error(errno);
            RingError { step: "set up io_uring", error, disabled }.to_string()
        };
        assert!(text(libc::EPERM, 2).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(text(libc::EPERM, 0).contains("seccomp"));
        assert!(text(libc::ENOSYS, 0).contains("Linux 5.11"));
        assert!(text(libc::ENOMEM, 0).contains("ulimit -l"));
        assert!(text(libc::EMFILE, 0).contains("ulimit -n"));
    }

    /// Goal: a ring for which there is no room is made small, and as soon as there is room; other
    /// errors, and room that does not come, end the attempts.
    #[test]
    fn locked_memory_comes_back() {
        let attempts = |errno, refusals| {
            let (mut asked, mut pauses) = (Vec::new(), 0);
            let build = |entries| {
                asked.push(entries);
                if asked.len() > refusals {
                    Ok(())
                } else {
                    Err(io::Error::from_raw_os_error(errno))
                }
            };
            let made = build_patiently(1024, build, || pauses += 1);
            (made.is_ok(), asked, pauses)
        };
        assert_eq!(attempts(libc::ENOMEM, 0), (true, vec![1024], 0));
        assert_eq!(attempts(libc::ENOMEM, 1), (true, vec![1024, ENTRIES_SMALL], 0));
        let small = [ENTRIES_SMALL; 4];
        assert_eq!(attempts(libc::ENOMEM, 4), (true, [&[1024], &small[..]].concat(), 3));
        let (made, asked, pauses) = attempts(libc::ENOMEM, usize::MAX);
        assert!(!made);
        assert_eq!((asked.len(), pauses), (101, 99));
        assert_eq!(attempts(libc::EPERM, 1), (false, vec![1024], 0));
    }

    /// Goal: more operations than the ring was made for are a broken invariant.
    #[test]
    #[should_panic(expected = "no more operations than the ring was made for")]
    fn overfull() {
        let counter = EventCounter::new().unwrap();
        let mut ring = Ring::new(1).unwrap();
        ring.watch(counter.as_fd(), Watch::WorkerDone);
        ring.watch(counter.as_fd(), Watch::WorkerDone);
    }
}
