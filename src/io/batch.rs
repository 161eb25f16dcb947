//! Messages that leave together: one system call for what waits for a replica.
//!
//! A batch is filled from a queue, sent, and told how many bytes were taken; it forgets what left
//! whole and goes on in the middle of what did not. Nothing is copied: the kernel is given the
//! messages' own memory. Not covered: to whom, and when.

#![allow(unsafe_code)]

use std::fmt;

use crate::protocol::{Message, to_index};
use crate::storage::Queue;

/// Messages in a batch at most.
pub const BATCH_MESSAGES_MAX: usize = 8;
/// A batch of so many bytes gets no further message: others shall see progress.
const BATCH_LENGTH_MAX: usize = 256 * 1024;

/// Messages on their way to one receiver, in order. See the module.
pub struct Batch {
    messages: Queue<Message>,
    /// Bytes of the oldest message that were taken.
    sent: usize,
    vectors: [libc::iovec; BATCH_MESSAGES_MAX],
    header: libc::msghdr,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Batch {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Batch {
            messages: Queue::new(BATCH_MESSAGES_MAX),
            sent: 0,
            vectors: [vector; BATCH_MESSAGES_MAX],
            // SAFETY: zero is a valid value of every field: numbers, and pointers to nothing.
            header: unsafe { std::mem::zeroed() },
        }
    }

    /// Messages that have not left whole.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether everything has left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes that are still to leave.
    #[must_use]
    pub fn bytes_left(&self) -> usize {
        self.messages.iter().map(|message| to_index(message.size())).sum::<usize>() - self.sent
    }

    /// Takes messages from the front of `queue` while there is room.
    ///
    /// # Panics
    ///
    /// If a message is malformed.
    pub fn fill(&mut self, queue: &mut Queue<Message>) {
        let mut length = self.bytes_left();
        while !self.messages.is_full() && length < BATCH_LENGTH_MAX {
            let Some(message) = queue.pop() else { return };
            assert!(to_index(message.size()) == message.bytes().len());
            length += message.bytes().len();
            self.messages.push(message);
        }
    }

    /// Notes that `count` bytes have left.
    ///
    /// # Panics
    ///
    /// If those are more than there were.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.bytes_left());
        self.sent += count;
        // Each round removes a message.
        while let Some(front) = self.messages.front() {
            let size = to_index(front.size());
            if self.sent < size {
                return;
            }
            self.sent -= size;
            self.messages.pop();
        }
        assert!(self.sent == 0);
    }

    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.sent = 0;
    }

    /// What the kernel is to send, valid until the batch is changed or moved.
    ///
    /// # Panics
    ///
    /// If the batch is empty.
    pub(super) fn header(&mut self) -> *const libc::msghdr {
        assert!(!self.messages.is_empty());
        let mut skip = self.sent;
        for (message, vector) in self.messages.iter().zip(&mut self.vectors) {
            let bytes = &message.bytes()[skip..];
            assert!(!bytes.is_empty());
            // The kernel only reads: the call takes one type for both directions.
            vector.iov_base = bytes.as_ptr().cast_mut().cast();
            vector.iov_len = bytes.len();
            skip = 0;
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.messages.len();
        &raw const self.header
    }
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Batch({} messages, {} bytes)", self.len(), self.bytes_left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Command, HEADER_SIZE, Pool};

    fn message(pool: &Pool, size: u32) -> Message {
        let mut message = Message::new(pool.acquire(), Command::Request);
        message.set_body_size(size - HEADER_SIZE);
        message
    }

    /// Goal: whatever portions are taken, the same bytes leave once and in order, and messages go
    /// back to their pool as they leave.
    #[test]
    fn portions() {
        let pool = Pool::new("test", 3, 4096);
        for portion in [1, 255, 256, 257, 300, 1024, 2000] {
            let mut queue = Queue::new(3);
            for size in [256, 1024, 300] {
                queue.push(message(&pool, size));
            }
            let mut batch = Batch::new();
            batch.fill(&mut queue);
            assert_eq!((batch.len(), batch.bytes_left()), (3, 1580));
            let mut left = 1580;
            while left > 0 {
                let _ = batch.header();
                let first = batch.vectors[0].iov_len;
                let lengths = &batch.vectors[..batch.len()];
                assert_eq!(lengths.iter().map(|vector| vector.iov_len).sum::<usize>(), left);
                let count = portion.min(left);
                let before = batch.len();
                batch.advance(count);
                left -= count;
                assert_eq!(batch.bytes_left(), left);
                assert_eq!(batch.len() < before, count >= first);
            }
            assert!(batch.is_empty());
            assert_eq!(pool.available(), 3);
        }
    }

    /// Goal: a batch is bounded in messages and closed by a large one.
    #[test]
    fn bounds() {
        let pool = Pool::new("test", 20, 512 * 1024);
        let mut queue = Queue::new(20);
        for _ in 0..10 {
            queue.push(message(&pool, 256));
        }
        let mut batch = Batch::new();
        batch.fill(&mut queue);
        assert_eq!((batch.len(), queue.len()), (BATCH_MESSAGES_MAX, 2));
        batch.clear();
        queue.push(message(&pool, 300_000));
        queue.push(message(&pool, 256));
        batch.fill(&mut queue);
        assert_eq!((batch.len(), queue.len()), (3, 1));
        batch.advance(700);
        batch.fill(&mut queue);
        assert_eq!((batch.len(), queue.len()), (1, 1));
        batch.clear();
        assert_eq!(batch.bytes_left(), 0);
        batch.fill(&mut queue);
        assert!(queue.is_empty());
    }

    /// Goal: more bytes than there were is a broken invariant.
    #[test]
    #[should_panic(expected = "count <= self.bytes_left()")]
    fn too_much() {
        let pool = Pool::new("test", 1, 4096);
        let mut queue = Queue::new(1);
        queue.push(message(&pool, 256));
        let mut batch = Batch::new();
        batch.fill(&mut queue);
        batch.advance(257);
    }
}
