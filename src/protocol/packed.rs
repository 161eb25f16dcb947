//! How requests travel inside a prepare.
//!
//! A request alone keeps its body exactly where it was received and has its facts in the prepare's
//! header. Several share a body: their bodies one after the other, each padded with zeros to
//! 16 bytes, then a table with one [`PackedRequest`] each. The table stands behind the bodies, so
//! that the first request need not move either when others are packed behind it. Covered: writing,
//! and reading both forms alike, with every reason to refuse. Not covered: which requests go
//! together.

use static_assertions::const_assert_eq;
use std::mem::offset_of;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::header::{HEADER_SIZE, REGISTER_REQUEST_SIZE, RequestHeader};
use super::message::Message;
use super::operation::{OPERATION_PACKED, Operation};
use super::prepare::{PrepareFacts, PrepareHeader};
use super::release::Release;
use super::{BODY_SIZE_MAX, CLIENTS_MAX, Command, round_up, to_index, to_size};

/// Size of the facts of one of several requests in a prepare, in bytes.
pub const PACKED_REQUEST_SIZE: u32 = 64;
/// Requests in one prepare at most: every session has one in flight.
pub const PACKED_REQUESTS_MAX: u32 = CLIENTS_MAX;
/// Unit to which each body is padded, in bytes: the alignment of the largest numbers.
const BODY_ALIGNMENT: u32 = 16;

/// The facts of one of several requests in a prepare.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct PackedRequest {
    /// Checksum of the request's header.
    pub request_checksum: u128,
    /// Nonzero.
    pub client: u128,
    /// Zero to register.
    pub session: u64,
    /// The request's own, in nanoseconds since the Unix epoch; increasing from one to the next.
    pub timestamp: u64,
    /// Zero to register.
    pub request: u32,
    /// The client's.
    pub release: Release,
    /// Without padding, in bytes.
    pub body_size: u32,
    /// One that a client may send.
    pub operation: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

const_assert_eq!(size_of::<PackedRequest>(), PACKED_REQUEST_SIZE as usize);
const_assert_eq!(offset_of!(PackedRequest, request_checksum), 0);
const_assert_eq!(offset_of!(PackedRequest, client), 16);
const_assert_eq!(offset_of!(PackedRequest, session), 32);
const_assert_eq!(offset_of!(PackedRequest, timestamp), 40);
const_assert_eq!(offset_of!(PackedRequest, request), 48);
const_assert_eq!(offset_of!(PackedRequest, release), 52);
const_assert_eq!(offset_of!(PackedRequest, body_size), 56);
const_assert_eq!(offset_of!(PackedRequest, operation), 60);
const_assert_eq!(offset_of!(PackedRequest, reserved), 61);

/// A request inside a prepare, however it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestView<'a> {
    /// Nonzero.
    pub client: u128,
    /// Zero to register.
    pub session: u64,
    /// Zero to register.
    pub request: u32,
    /// The client's.
    pub release: Release,
    /// One that a client may send.
    pub operation: Operation,
    /// Checksum of the request's header.
    pub request_checksum: u128,
    /// Of the commit of this request, in nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// The request's body.
    pub body: &'a [u8],
}

/// Why the body of a prepare does not decode. An index is that of the request in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedError {
    /// The bodies need so many bytes, which is not what the prepare has in front of its table.
    BodiesSize(u64),
    /// The client is zero.
    ClientZero(u32),
    /// The client has another request before this one.
    ClientRepeated(u32),
    /// The session is zero, or not zero to register.
    Session(u32),
    /// The number is zero, or not zero to register.
    Request(u32),
    /// The release is zero.
    ReleaseZero(u32),
    /// The operation is none that a client may send.
    Operation(u32),
    /// The body of a register has not its size.
    RegisterSize(u32),
    /// The timestamp is not after the one before, or after the prepare's own.
    Timestamp(u32),
    /// The reserved bytes are not zero.
    Reserved(u32),
    /// The padding behind the body is not zero.
    Padding(u32),
}

/// Packs requests into a message, which becomes a prepare.
#[derive(Debug)]
pub struct PackedWriter {
    target: Message,
    entries: [PackedRequest; PACKED_REQUESTS_MAX as usize],
    count: u32,
    /// With padding between bodies, but none behind the last.
    bodies_size: u32,
    /// Of the first request's body.
    checksum_body: u128,
}

impl PackedWriter {
    /// Starts with nothing in `target`, whose contents are overwritten.
    ///
    /// # Panics
    ///
    /// If the buffer has other references.
    #[must_use]
    pub fn new(target: Message) -> PackedWriter {
        assert!(target.0.is_unique());
        PackedWriter {
            target,
            entries: [PackedRequest::new_zeroed(); PACKED_REQUESTS_MAX as usize],
            count: 0,
            bodies_size: 0,
            checksum_body: 0,
        }
    }

    /// Starts with a received request, which stays where it is: its message becomes the prepare.
    ///
    /// # Panics
    ///
    /// If it is no valid request, or the buffer has other references.
    #[must_use]
    pub fn from_request(request: Message, timestamp: u64) -> PackedWriter {
        let header = *request.request();
        let mut writer = PackedWriter::new(request);
        assert!(writer.fits(header.header().body_size()));
        writer.add(&header, timestamp);
        writer
    }

    /// Requests inside.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether another request with a body of so many bytes fits.
    #[must_use]
    pub fn fits(&self, body_size: u32) -> bool {
        let room = BODY_SIZE_MAX.min(self.target.body_size_max());
        if self.count == 0 {
            return body_size <= room;
        }
        let table_size = (self.count + 1) * PACKED_REQUEST_SIZE;
        let bodies_size = u64::from(round_up(self.bodies_size, BODY_ALIGNMENT))
            + u64::from(body_size).next_multiple_of(u64::from(BODY_ALIGNMENT));
        let count_holds = self.count < PACKED_REQUESTS_MAX;
        count_holds && bodies_size + u64::from(table_size) <= u64::from(room)
    }

    /// Copies a request behind those that are there.
    ///
    /// # Panics
    ///
    /// If it does not fit, is not valid, or `body` is not its body by size.
    pub fn append(&mut self, request: &RequestHeader, body: &[u8], timestamp: u64) {
        let body_size = request.header().body_size();
        assert!(to_size(body.len()) == body_size);
        assert!(self.fits(body_size));
        let start = self.pad();
        self.target.body_area_mut()[start..start + body.len()].copy_from_slice(body);
        self.add(request, timestamp);
    }

    /// Makes the message a prepare, complete with its checksums. The body of a request alone is not
    /// read again: its checksum stays as the client computed it.
    ///
    /// # Panics
    ///
    /// If there is no request, a timestamp is later than the prepare's, or, of a request alone,
    /// another.
    #[must_use]
    pub fn finish(mut self, facts: &PrepareFacts) -> Message {
        assert!(self.count > 0, "a prepare without requests is a pulse");
        let mut header = PrepareHeader::from_facts(facts);
        let last = self.entries[to_index(self.count - 1)];
        header.request_count = self.count;
        if self.count == 1 {
            assert!(last.timestamp == facts.timestamp);
            header.frame.size = HEADER_SIZE + self.bodies_size;
            header.frame.checksum_body = self.checksum_body;
            header.frame.release = last.release;
            header.request_checksum = last.request_checksum;
            header.client = last.client;
            header.session = last.session;
            header.request = last.request;
            header.operation = last.operation;
            header.header_mut().set_checksum();
            *self.target.header_mut() = *header.header();
        } else {
            assert!(last.timestamp <= facts.timestamp);
            let start = self.pad();
            let table = self.entries[..to_index(self.count)].as_bytes();
            let end = start + table.len();
            self.target.body_area_mut()[start..end].copy_from_slice(table);
            header.frame.size = HEADER_SIZE + to_size(end);
            header.operation = OPERATION_PACKED;
            *self.target.header_mut() = *header.header();
            self.target.set_checksums();
        }
        assert!(self.target.header().invalid().is_none());
        assert!(self.target.header().command() == Command::Prepare);
        self.target
    }

    /// Pads what is there with zeros, and returns where the next body or the table starts.
    fn pad(&mut self) -> usize {
        let end = to_index(self.bodies_size);
        let start = to_index(round_up(self.bodies_size, BODY_ALIGNMENT));
        self.target.body_area_mut()[end..start].fill(0);
        start
    }

    /// Notes a request whose body is in place.
    fn add(&mut self, request: &RequestHeader, timestamp: u64) {
        assert!(request.client != 0);
        assert!(Operation::from_client(request.operation).is_some());
        if self.count == 0 {
            self.checksum_body = request.frame.checksum_body;
        } else {
            assert!(timestamp > self.entries[to_index(self.count - 1)].timestamp);
        }
        let body_size = request.header().body_size();
        self.entries[to_index(self.count)] = PackedRequest {
            request_checksum: request.frame.checksum,
            client: request.client,
            session: request.session,
            timestamp,
            request: request.request,
            release: request.frame.release,
            body_size,
            operation: request.operation,
            reserved: [0; 3],
        };
        self.count += 1;
        self.bodies_size = round_up(self.bodies_size, BODY_ALIGNMENT) + body_size;
    }
}

/// The requests of a prepare, in their order; none in a pulse and in the root.
#[derive(Clone, Debug)]
pub struct Requests<'a> {
    header: &'a PrepareHeader,
    /// What is left of the bodies.
    bodies: &'a [u8],
    /// What is left of the table; empty for a lone request.
    table: &'a [u8],
    left: u32,
}

impl<'a> Requests<'a> {
    /// Decodes the body of a prepare.
    ///
    /// # Errors
    ///
    /// The first thing found wrong. A request alone has nothing that could be.
    ///
    /// # Panics
    ///
    /// If the header is not valid or `body` is not its body by size.
    pub fn decode(header: &'a PrepareHeader, body: &'a [u8]) -> Result<Self, PackedError> {
        assert!(header.invalid().is_none());
        assert!(to_size(body.len()) == header.header().body_size());
        let left = header.request_count;
        if header.operation != OPERATION_PACKED {
            assert!(left <= 1);
            return Ok(Requests { header, bodies: body, table: &[], left });
        }
        // The header's own rules leave room for the table.
        let table_start = body.len() - to_index(left * PACKED_REQUEST_SIZE);
        let (bodies, table) = body.split_at(table_start);
        check_table(header, bodies, table)?;
        Ok(Requests { header, bodies, table, left })
    }

    /// The requests of a prepare message: see [`Requests::decode`].
    ///
    /// # Errors
    ///
    /// As [`Requests::decode`].
    ///
    /// # Panics
    ///
    /// If the message is no valid prepare.
    pub fn of(message: &'a Message) -> Result<Self, PackedError> {
        Requests::decode(message.prepare(), message.body())
    }
}

impl<'a> Iterator for Requests<'a> {
    type Item = RequestView<'a>;

    fn next(&mut self) -> Option<RequestView<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        if self.table.is_empty() {
            return Some(lone(self.header, self.bodies));
        }
        let (entry, table) = self.table.split_at(to_index(PACKED_REQUEST_SIZE));
        let entry = PackedRequest::read_from_bytes(entry).expect("the size is an entry's");
        let padded_size = to_index(round_up(entry.body_size, BODY_ALIGNMENT));
        let (body, bodies) = self.bodies.split_at(padded_size);
        self.table = table;
        self.bodies = bodies;
        let operation = Operation::from_client(entry.operation).expect("the table was checked");
        Some(RequestView {
            client: entry.client,
            session: entry.session,
            request: entry.request,
            release: entry.release,
            operation,
            request_checksum: entry.request_checksum,
            timestamp: entry.timestamp,
            body: &body[..to_index(entry.body_size)],
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (to_index(self.left), Some(to_index(self.left)))
    }
}

impl ExactSizeIterator for Requests<'_> {}

fn lone<'a>(header: &PrepareHeader, body: &'a [u8]) -> RequestView<'a> {
    assert!(header.request_count == 1);
    let operation = Operation::from_client(header.operation).expect("the header is valid");
    RequestView {
        client: header.client,
        session: header.session,
        request: header.request,
        release: header.frame.release,
        operation,
        request_checksum: header.request_checksum,
        timestamp: header.timestamp,
        body,
    }
}

/// Checks every entry of a table, and that the bodies are what the entries say.
fn check_table(header: &PrepareHeader, bodies: &[u8], table: &[u8]) -> Result<(), PackedError> {
    let bodies_size = u64::from(to_size(bodies.len()));
    let mut clients = [0_u128; PACKED_REQUESTS_MAX as usize];
    let mut timestamp_before = 0;
    let mut end: u64 = 0;
    for index in 0..header.request_count {
        let offset = to_index(index * PACKED_REQUEST_SIZE);
        let (entry, _) =
            PackedRequest::read_from_prefix(&table[offset..]).expect("the table has its size");
        check_entry(&entry, index)?;
        if clients[..to_index(index)].contains(&entry.client) {
            return Err(PackedError::ClientRepeated(index));
        }
        clients[to_index(index)] = entry.client;
        if entry.timestamp <= timestamp_before || entry.timestamp > header.timestamp {
            return Err(PackedError::Timestamp(index));
        }
        timestamp_before = entry.timestamp;
        let start = end + u64::from(entry.body_size);
        end = start.next_multiple_of(u64::from(BODY_ALIGNMENT));
        if end <= bodies_size {
            // Both are below a length, so they are indexes.
            let range =
                usize::try_from(start).expect("an index")..usize::try_from(end).expect("an index");
            if bodies[range].iter().any(|byte| *byte != 0) {
                return Err(PackedError::Padding(index));
            }
        }
    }
    if end == bodies_size { Ok(()) } else { Err(PackedError::BodiesSize(end)) }
}

/// The rules of an entry by itself.
fn check_entry(entry: &PackedRequest, index: u32) -> Result<(), PackedError> {
    let Some(operation) = Operation::from_client(entry.operation) else {
        return Err(PackedError::Operation(index));
    };
    let registers = operation == Operation::Register;
    let register_body_size = REGISTER_REQUEST_SIZE - HEADER_SIZE;
    let rules = [
        (entry.client != 0, PackedError::ClientZero(index)),
        ((entry.session == 0) == registers, PackedError::Session(index)),
        ((entry.request == 0) == registers, PackedError::Request(index)),
        (entry.release != Release::ZERO, PackedError::ReleaseZero(index)),
        (!registers || entry.body_size == register_body_size, PackedError::RegisterSize(index)),
        (entry.reserved == [0; 3], PackedError::Reserved(index)),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, error)) => Err(*error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Header, MESSAGE_SIZE_MAX, Pool};

    fn facts(timestamp: u64) -> PrepareFacts {
        PrepareFacts {
            cluster: 7,
            view: 3,
            replica: 2,
            release: Release::SERVER,
            program: Release::PROGRAM,
            parent: 0x1234,
            checkpoint_id: 0x5678,
            op: 10,
            commit: 9,
            timestamp,
        }
    }

    /// A sealed request of a client, with a body of the client's number.
    fn request(pool: &Pool, client: u8, body_size: u32) -> Message {
        let mut message = Message::new(pool.acquire(), Command::Request);
        message.header_mut().frame.cluster = 7;
        message.header_mut().frame.release = Release::new(0, 17, client);
        let header = message.request_mut();
        header.client = u128::from(client);
        header.session = 100 + u64::from(client);
        header.request = 200 + u32::from(client);
        header.operation = Operation::CreateTransfers.into();
        message.set_body_size(body_size);
        message.body_mut().fill(client);
        message.set_checksums();
        assert_eq!(message.header().invalid(), None);
        message
    }

    fn pool() -> Pool {
        Pool::new("test", 70, MESSAGE_SIZE_MAX)
    }

    fn assert_view(view: &RequestView, request: &Message, timestamp: u64) {
        let header = request.request();
        assert_eq!(view.client, header.client);
        assert_eq!(view.session, header.session);
        assert_eq!(view.request, header.request);
        assert_eq!(view.release, header.frame.release);
        assert_eq!(u8::from(view.operation), header.operation);
        assert_eq!(view.request_checksum, header.frame.checksum);
        assert_eq!(view.timestamp, timestamp);
        assert_eq!(view.body, request.body());
    }

    /// Packs requests of the given body sizes, with timestamps 1, 2, 3 ...
    fn packed(pool: &Pool, body_sizes: &[u32]) -> (Vec<Message>, Message) {
        let requests: Vec<Message> =
            (1_u8..).zip(body_sizes).map(|(client, size)| request(pool, client, *size)).collect();
        let mut buffer = pool.acquire();
        buffer.bytes_mut().fill(0xee);
        let mut writer = PackedWriter::new(Message(buffer));
        for (timestamp, request) in (1..).zip(&requests) {
            writer.append(request.request(), request.body(), timestamp);
        }
        let prepare = writer.finish(&facts(u64::try_from(body_sizes.len()).unwrap()));
        (requests, prepare)
    }

    fn assert_round_trip(body_sizes: &[u32]) {
        let pool = pool();
        let (requests, prepare) = packed(&pool, body_sizes);
        assert_eq!(prepare.header().invalid(), None);
        assert!(prepare.header().valid_checksum());
        assert!(prepare.valid_checksum_body());
        let decoded = Requests::of(&prepare).unwrap();
        assert_eq!(decoded.len(), requests.len());
        for ((view, request), timestamp) in decoded.zip(&requests).zip(1..) {
            assert_view(&view, request, timestamp);
        }
    }

    /// Goal: a request alone, up to the largest body, stays in place with its body's checksum and
    /// reads back whole.
    #[test]
    fn lone_request() {
        let pool = pool();
        for body_size in [0, 1, 16, 1000, BODY_SIZE_MAX] {
            let request = request(&pool, 5, body_size);
            let copy = request.bytes().to_vec();
            let address = request.0.as_ptr();
            let writer = PackedWriter::from_request(request, 77);
            assert_eq!(writer.count(), 1);
            let prepare = writer.finish(&facts(77));
            assert_eq!(prepare.0.as_ptr(), address);
            assert_eq!(prepare.body(), &copy[256..]);
            assert!(prepare.header().valid_checksum());
            assert!(prepare.valid_checksum_body());
            let mut decoded = Requests::of(&prepare).unwrap();
            let mut original = pool.acquire();
            original.bytes_mut()[..copy.len()].copy_from_slice(&copy);
            let original = Message(original);
            assert_view(&decoded.next().unwrap(), &original, 77);
            assert_eq!(decoded.next(), None);
            let lone = PrepareHeader::lone(&facts(77), original.request());
            assert_eq!(lone, *prepare.prepare());
        }
    }

    /// Goal: requests of all sizes around the padding read back in order, also empty ones.
    #[test]
    fn several_requests() {
        assert_round_trip(&[16, 32]);
        assert_round_trip(&[0, 0]);
        assert_round_trip(&[1, 15, 16, 17, 0, 31]);
        assert_round_trip(&[500_000, 500_000]);
        assert_round_trip(&[160; 64]);
    }

    /// Goal: a received request with others packed behind it does not move.
    #[test]
    fn first_in_place() {
        let pool = pool();
        let (first, second) = (request(&pool, 1, 33), request(&pool, 2, 48));
        let mut copy = pool.acquire();
        copy.bytes_mut().copy_from_slice(first.0.bytes());
        let copy = Message(copy);
        let address = first.0.as_ptr();
        let mut writer = PackedWriter::from_request(first, 5);
        writer.append(second.request(), second.body(), 6);
        let prepare = writer.finish(&facts(9));
        assert_eq!(prepare.0.as_ptr(), address);
        let views: Vec<RequestView> = Requests::of(&prepare).unwrap().collect();
        assert_view(&views[0], &copy, 5);
        assert_view(&views[1], &second, 6);
    }

    /// Goal: what fits is exact: by bytes, by number of requests, and in smaller buffers.
    #[test]
    fn limits() {
        let pool = pool();
        let mut writer = PackedWriter::new(Message(pool.acquire()));
        assert!(writer.fits(BODY_SIZE_MAX));
        assert!(!writer.fits(BODY_SIZE_MAX + 1));
        let first = request(&pool, 1, 17);
        writer.append(first.request(), first.body(), 1);
        let room = BODY_SIZE_MAX - 32 - 2 * PACKED_REQUEST_SIZE;
        assert!(writer.fits(room));
        assert!(!writer.fits(room + 1));
        assert!(!writer.fits(u32::MAX));
        for client in 2..=64 {
            let next = request(&pool, client, 0);
            assert!(writer.fits(0));
            writer.append(next.request(), next.body(), u64::from(client));
        }
        assert_eq!(writer.count(), 64);
        assert!(!writer.fits(0));
        let small = Pool::new("small", 1, 4096);
        let writer = PackedWriter::new(Message(small.acquire()));
        assert!(writer.fits(4096 - 256));
        assert!(!writer.fits(4096 - 255));
    }

    /// Goal: a prepare filled to the last byte is a full message that reads back.
    #[test]
    fn full() {
        let room = BODY_SIZE_MAX - 32 - 2 * PACKED_REQUEST_SIZE;
        assert_round_trip(&[32, room]);
        let pool = pool();
        let (_, prepare) = packed(&pool, &[32, room]);
        assert_eq!(prepare.size(), MESSAGE_SIZE_MAX);
    }

    /// Goal: a register may be packed, with its facts of zero.
    #[test]
    fn register_among_others() {
        let pool = pool();
        let mut register = request(&pool, 1, 256);
        register.request_mut().session = 0;
        register.request_mut().request = 0;
        register.request_mut().operation = Operation::Register.into();
        let other = request(&pool, 2, 16);
        let mut writer = PackedWriter::from_request(register, 1);
        writer.append(other.request(), other.body(), 2);
        let prepare = writer.finish(&facts(2));
        let view = Requests::of(&prepare).unwrap().next().unwrap();
        assert_eq!((view.operation, view.session, view.request), (Operation::Register, 0, 0));
        assert_eq!(view.body.len(), 256);
    }

    /// Goal: a pulse and the root carry no requests.
    #[test]
    fn nothing_inside() {
        for header in [PrepareHeader::root(7), PrepareHeader::pulse(&facts(1))] {
            assert!(header.header().valid_checksum());
            assert!(header.header().valid_checksum_body(&[]));
            assert_eq!(Requests::decode(&header, &[]).unwrap().count(), 0);
        }
    }

    /// Decodes a prepare of three requests after `change` was made to the second's entry.
    fn error_of(change: impl Fn(&mut PackedRequest)) -> PackedError {
        let pool = pool();
        let (_, mut prepare) = packed(&pool, &[16, 256, 16]);
        let body = prepare.body_mut();
        let offset = body.len() - 2 * to_index(PACKED_REQUEST_SIZE);
        let entry = &mut body[offset..offset + to_index(PACKED_REQUEST_SIZE)];
        change(PackedRequest::mut_from_bytes(entry).unwrap());
        Requests::of(&prepare).unwrap_err()
    }

    /// Goal: each rule of an entry refuses when broken alone.
    #[test]
    fn entry_rules() {
        assert_eq!(error_of(|entry| entry.client = 0), PackedError::ClientZero(1));
        assert_eq!(error_of(|entry| entry.client = 1), PackedError::ClientRepeated(1));
        assert_eq!(error_of(|entry| entry.client = 3), PackedError::ClientRepeated(2));
        assert_eq!(error_of(|entry| entry.session = 0), PackedError::Session(1));
        assert_eq!(error_of(|entry| entry.request = 0), PackedError::Request(1));
        assert_eq!(error_of(|entry| entry.release = Release::ZERO), PackedError::ReleaseZero(1));
        assert_eq!(error_of(|entry| entry.timestamp = 1), PackedError::Timestamp(1));
        assert_eq!(error_of(|entry| entry.timestamp = 3), PackedError::Timestamp(2));
        assert_eq!(error_of(|entry| entry.timestamp = 4), PackedError::Timestamp(1));
        for index in 0..3 {
            assert_eq!(error_of(|entry| entry.reserved[index] = 1), PackedError::Reserved(1));
        }
        for operation in [0, 1, 3, 128, 129, 148, 255] {
            assert_eq!(error_of(|entry| entry.operation = operation), PackedError::Operation(1));
        }
    }

    /// Goal: a packed register must have its zeros and its size.
    #[test]
    fn entry_register_rules() {
        let register = |entry: &mut PackedRequest| {
            entry.operation = Operation::Register.into();
            entry.session = 0;
            entry.request = 0;
        };
        let with = |change: fn(&mut PackedRequest)| {
            error_of(|entry| {
                register(entry);
                change(entry);
            })
        };
        assert_eq!(with(|entry| entry.session = 1), PackedError::Session(1));
        assert_eq!(with(|entry| entry.request = 1), PackedError::Request(1));
        assert_eq!(with(|entry| entry.body_size = 255), PackedError::RegisterSize(1));
    }

    /// Goal: body sizes that do not add up are refused, also when they are huge, and padding that
    /// is not zero too.
    #[test]
    fn body_rules() {
        assert_eq!(error_of(|entry| entry.body_size = 272), PackedError::BodiesSize(304));
        assert_eq!(error_of(|entry| entry.body_size = 240), PackedError::BodiesSize(272));
        let end = (u64::from(u32::MAX) + 16).next_multiple_of(16) + 16;
        assert_eq!(error_of(|entry| entry.body_size = u32::MAX), PackedError::BodiesSize(end));
        assert_eq!(error_of(|entry| entry.body_size = 255), PackedError::Padding(1));
        let pool = pool();
        for (offset, index) in [(1, 0), (15, 0), (31, 1)] {
            let (_, mut prepare) = packed(&pool, &[1, 9]);
            prepare.body_mut()[offset] = 1;
            assert_eq!(Requests::of(&prepare).unwrap_err(), PackedError::Padding(index));
        }
    }

    /// Goal: a header that is not valid is refused before its body is looked at.
    #[test]
    fn header_rules() {
        let pool = pool();
        let (_, prepare) = packed(&pool, &[16, 16]);
        let valid = *prepare.prepare();
        for request_count in [0, 1, 65, u32::MAX] {
            let header = PrepareHeader { request_count, ..valid };
            assert!(header.invalid().is_some(), "{request_count} requests");
        }
        let mut short = valid;
        short.frame.size = HEADER_SIZE + 2 * PACKED_REQUEST_SIZE - 16;
        assert!(Header::invalid(short.header()).is_some());
    }

    /// Goal: finishing without requests is a broken invariant.
    #[test]
    #[should_panic(expected = "a prepare without requests is a pulse")]
    fn finish_empty() {
        let pool = Pool::new("test", 1, 4096);
        let _ = PackedWriter::new(Message(pool.acquire())).finish(&facts(1));
    }
}
