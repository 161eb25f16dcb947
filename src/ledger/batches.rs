//! The sub-batches of a request and of its reply, in the ledger's own bounded memory.
//!
//! A request was found well-formed before it was ordered, so a malformed one is a broken invariant
//! here. A reply grows element by element, in several steps if reads have to wait, and gets its
//! trailer at the end.

use crate::protocol::multi_batch::{BATCH_COUNT_MAX, MultiBatch, trailer_size};
use crate::protocol::operation::Operation;
use crate::protocol::types::CreateResult;
use crate::protocol::{to_index, to_size};
use std::mem::offset_of;

/// Bytes of a batch count and of the number of batches.
const COUNT_SIZE: u32 = 2;

/// Where a request stands and what its reply holds so far.
#[derive(Debug)]
pub(super) struct Batches {
    /// Events of each sub-batch; one without multi-batch encoding.
    requested: Vec<u16>,
    /// Results of each finished sub-batch.
    answered: Vec<u16>,
    multi_batch: bool,
    event_size: u32,
    result_size: u32,
    /// Events of all sub-batches.
    events_total: u32,
    /// Events before the current sub-batch.
    events_before: u32,
    /// Results of the current sub-batch.
    results: u32,
    /// Bytes of the reply so far, without the trailer.
    reply_size: u32,
}

impl Batches {
    /// Room for the most sub-batches that a request of `body_size_max` bytes can have.
    pub fn new(body_size_max: u32) -> Batches {
        let batches_max = to_index((body_size_max / COUNT_SIZE).min(BATCH_COUNT_MAX));
        Batches {
            requested: Vec::with_capacity(batches_max),
            answered: Vec::with_capacity(batches_max),
            multi_batch: false,
            event_size: 1,
            result_size: 1,
            events_total: 0,
            events_before: 0,
            results: 0,
            reply_size: 0,
        }
    }

    /// Bytes that the lists occupy.
    pub fn memory_bytes(body_size_max: u32) -> u64 {
        let batches_max = (body_size_max / COUNT_SIZE).min(BATCH_COUNT_MAX);
        2 * 2 * u64::from(batches_max)
    }

    /// Reads the shape of a request.
    pub fn begin(&mut self, operation: Operation, body: &[u8]) {
        self.requested.clear();
        self.answered.clear();
        self.multi_batch = operation.is_multi_batch();
        self.event_size = operation.event_size();
        self.result_size = operation.result_size();
        self.events_before = 0;
        self.results = 0;
        self.reply_size = 0;
        if self.multi_batch {
            let batches =
                MultiBatch::decode(body, self.event_size).expect("requests are well-formed");
            for batch in &batches {
                assert!(self.requested.len() < self.requested.capacity());
                let events = to_size(batch.len()) / self.event_size;
                self.requested.push(u16::try_from(events).expect("counts have 16 bits"));
            }
        } else if self.event_size > 0 {
            assert!(body.len() == to_index(self.event_size), "requests are well-formed");
            self.requested.push(1);
        }
        self.events_total = self.requested.iter().map(|events| u32::from(*events)).sum();
    }

    /// Events of all sub-batches.
    pub fn events_total(&self) -> u32 {
        self.events_total
    }

    /// Whether all sub-batches are finished.
    pub fn is_done(&self) -> bool {
        self.answered.len() == self.requested.len()
    }

    /// Events of the current sub-batch.
    pub fn events(&self) -> u32 {
        u32::from(self.requested[self.answered.len()])
    }

    /// Events of all sub-batches before the current one.
    pub fn events_before(&self) -> u32 {
        self.events_before
    }

    /// Results that the reply can still take.
    pub fn room(&self, reply: &[u8]) -> u32 {
        let reserved = if self.multi_batch {
            trailer_size(to_size(self.requested.len()), self.result_size)
        } else {
            0
        };
        to_size(reply.len()).saturating_sub(reserved + self.reply_size) / self.result_size
    }

    /// Adds a result to the current sub-batch.
    #[inline]
    pub fn push(&mut self, reply: &mut [u8], result: &[u8]) {
        assert!(result.len() == to_index(self.result_size));
        let offset = to_index(self.reply_size);
        reply[offset..offset + result.len()].copy_from_slice(result);
        self.reply_size += self.result_size;
        self.results += 1;
    }

    /// Changes the status of an earlier result of the current sub-batch of a create operation.
    pub fn set_status(&mut self, reply: &mut [u8], index: u32, status: u32) {
        assert!(index < self.results);
        assert!(to_index(self.result_size) == size_of::<CreateResult>());
        let result = self.reply_size - (self.results - index) * self.result_size;
        let offset = to_index(result) + offset_of!(CreateResult, status);
        reply[offset..offset + size_of::<u32>()].copy_from_slice(&status.to_le_bytes());
    }

    /// The results of all sub-batches so far.
    pub fn answered<'a>(&self, reply: &'a [u8]) -> &'a [u8] {
        &reply[..to_index(self.reply_size)]
    }

    /// Finishes the current sub-batch.
    pub fn finish_batch(&mut self) {
        self.events_before += self.events();
        let results = u16::try_from(self.results).expect("a reply holds fewer results");
        self.answered.push(results);
        self.results = 0;
    }

    /// Writes the trailer and gives the size of the reply's body in bytes.
    pub fn finish(&mut self, reply: &mut [u8]) -> u32 {
        assert!(self.is_done());
        if !self.multi_batch {
            return self.reply_size;
        }
        let count = to_size(self.answered.len());
        let trailer = trailer_size(count, self.result_size);
        let start = to_index(self.reply_size);
        let end = start + to_index(trailer);
        reply[start..end].fill(0xFF);
        let mut position = end;
        let batches = u16::try_from(count).expect("the count was read from 16 bits");
        for value in std::iter::once(batches).chain(self.answered.iter().copied()) {
            position -= to_index(COUNT_SIZE);
            reply[position..position + to_index(COUNT_SIZE)].copy_from_slice(&value.to_le_bytes());
        }
        to_size(end)
    }
}

/// Events of all sub-batches of a create request.
pub(super) fn create_events(operation: Operation, body: &[u8]) -> u32 {
    assert!(operation.is_create());
    let batches =
        MultiBatch::decode(body, operation.event_size()).expect("requests are well-formed");
    batches.element_count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a request of batches of 2, 0 and 1 ids and its reply have exactly the known bytes.
    #[test]
    fn lookup_example() {
        let mut body = vec![7u8; 48];
        body.extend([0xFF; 8]);
        body.extend([1, 0, 0, 0, 2, 0, 3, 0]);
        let mut batches = Batches::new(4096);
        batches.begin(Operation::LookupAccounts, &body);
        let mut reply = vec![0u8; 4096];
        assert_eq!(batches.events_total(), 3);
        assert_eq!(batches.room(&reply), 31);
        assert_eq!((batches.events(), batches.events_before()), (2, 0));
        batches.push(&mut reply, &[1; 128]);
        batches.finish_batch();
        assert_eq!((batches.events(), batches.events_before()), (0, 2));
        batches.finish_batch();
        assert_eq!((batches.events(), batches.events_before()), (1, 2));
        batches.push(&mut reply, &[2; 128]);
        batches.finish_batch();
        assert!(batches.is_done());
        assert_eq!(batches.finish(&mut reply), 384);
        let mut expected = vec![1u8; 128];
        expected.extend([2; 128]);
        expected.extend([0xFF; 120]);
        expected.extend([1, 0, 0, 0, 1, 0, 3, 0]);
        assert_eq!(reply[..384], expected);
    }

    /// Goal: an operation without the encoding has one batch and no trailer.
    #[test]
    fn without_multi_batch() {
        let mut batches = Batches::new(4096);
        batches.begin(Operation::GetChangeEvents, &[0; 64]);
        let mut reply = vec![0u8; 1024];
        assert_eq!(batches.room(&reply), 2);
        assert_eq!(batches.events(), 1);
        batches.finish_batch();
        assert_eq!(batches.finish(&mut reply), 0);
    }

    /// Goal: the events of a create request are those of all its batches.
    #[test]
    fn create_events_of_all() {
        let mut body = vec![0u8; 128 * 3];
        body.extend([0xFF; 122]);
        body.extend([2, 0, 1, 0, 2, 0]);
        assert_eq!(create_events(Operation::CreateTransfers, &body), 3);
    }
}
