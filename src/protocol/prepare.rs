//! The prepare header: a place in history with the facts of the request that takes it.
//!
//! This is our own encoding, between replicas and in the log; no client sees it. A request that
//! travels alone keeps its body where it was received, so that its facts stand in the header
//! itself; several requests in one prepare have theirs in a table in the body
//! (see [`packed`](super::packed)). The root is the prepare before all others.

use static_assertions::const_assert_eq;
use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checksum::CHECKSUM_EMPTY;
use super::header::{
    Frame, HEADER_SIZE, HeaderError, REGISTER_REQUEST_SIZE, RequestHeader, first_broken, is_zero,
};
use super::operation::{OPERATION_PACKED, Operation};
use super::packed::PACKED_REQUEST_SIZE;
use super::release::Release;
use super::types::TIMESTAMP_MAX;
use super::{CLIENTS_MAX, REPLICAS_MAX};

/// Header of an entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PrepareHeader {
    /// The common half: view and replica of the primary that prepared it; the release of a lone
    /// request, otherwise the primary's.
    pub frame: Frame,
    /// Checksum of the header of the prepare before this; zero for the root.
    pub parent: u128,
    /// Checksum of the lone request's header, otherwise zero.
    pub request_checksum: u128,
    /// Of the lone request, otherwise zero.
    pub client: u128,
    /// The checkpoint on which the primary stood.
    pub checkpoint_id: u128,
    /// Position in history; zero for the root only.
    pub op: u64,
    /// Last op known to be committed when this was prepared.
    pub commit: u64,
    /// Of the commit, in nanoseconds since the Unix epoch; zero for the root only.
    pub timestamp: u64,
    /// Of the lone request, otherwise zero.
    pub session: u64,
    /// Of the lone request, otherwise zero.
    pub request: u32,
    /// Requests inside.
    pub request_count: u32,
    /// An [`Operation`], or [`OPERATION_PACKED`] for several requests.
    pub operation: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// Release of the program by whose rules it is executed; zero for the root only.
    pub program: Release,
    /// Zero.
    pub reserved: [u8; 16],
}

const_assert_eq!(size_of::<PrepareHeader>(), 256);
const_assert_eq!(offset_of!(PrepareHeader, parent), 128);
const_assert_eq!(offset_of!(PrepareHeader, request_checksum), 144);
const_assert_eq!(offset_of!(PrepareHeader, client), 160);
const_assert_eq!(offset_of!(PrepareHeader, checkpoint_id), 176);
const_assert_eq!(offset_of!(PrepareHeader, op), 192);
const_assert_eq!(offset_of!(PrepareHeader, commit), 200);
const_assert_eq!(offset_of!(PrepareHeader, timestamp), 208);
const_assert_eq!(offset_of!(PrepareHeader, session), 216);
const_assert_eq!(offset_of!(PrepareHeader, request), 224);
const_assert_eq!(offset_of!(PrepareHeader, request_count), 228);
const_assert_eq!(offset_of!(PrepareHeader, operation), 232);
const_assert_eq!(offset_of!(PrepareHeader, program), 236);
const_assert_eq!(offset_of!(PrepareHeader, reserved), 240);

/// What the primary decides for a prepare, whatever it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareFacts {
    /// The cluster.
    pub cluster: u128,
    /// The primary's view.
    pub view: u32,
    /// The primary's index.
    pub replica: u8,
    /// The primary's protocol release, for prepares other than a lone request.
    pub release: Release,
    /// Release of the program by whose rules it is executed.
    pub program: Release,
    /// Checksum of the header of the prepare before this.
    pub parent: u128,
    /// The checkpoint on which the primary stands.
    pub checkpoint_id: u128,
    /// Position in history; at least 1.
    pub op: u64,
    /// Last op known to be committed.
    pub commit: u64,
    /// Of the commit, in nanoseconds since the Unix epoch.
    pub timestamp: u64,
}

impl PrepareHeader {
    /// The beginning of a cluster's history, op 0: the same on every replica.
    ///
    /// # Panics
    ///
    /// Never: the root is valid.
    #[must_use]
    pub fn root(cluster: u128) -> PrepareHeader {
        let mut header = PrepareHeader::new();
        header.frame.cluster = cluster;
        header.frame.checksum_body = CHECKSUM_EMPTY;
        header.operation = Operation::Root.into();
        header.header_mut().set_checksum();
        assert!(header.invalid().is_none());
        header
    }

    /// The common fields of every prepare but the root; checksums are still to be set.
    ///
    /// # Panics
    ///
    /// If the op is zero or not after the commit, or the timestamp is out of range.
    #[must_use]
    pub fn from_facts(facts: &PrepareFacts) -> PrepareHeader {
        assert!(facts.op > facts.commit);
        assert!(facts.timestamp > 0);
        assert!(facts.timestamp <= TIMESTAMP_MAX);
        assert!(facts.replica < REPLICAS_MAX);
        let mut header = PrepareHeader::new();
        header.frame.cluster = facts.cluster;
        header.frame.view = facts.view;
        header.frame.replica = facts.replica;
        header.frame.release = facts.release;
        header.program = facts.program;
        header.parent = facts.parent;
        header.checkpoint_id = facts.checkpoint_id;
        header.op = facts.op;
        header.commit = facts.commit;
        header.timestamp = facts.timestamp;
        header
    }

    /// A prepare of one request whose body stays as it is: the body's checksum is the request's.
    /// The header is complete with its checksum.
    ///
    /// # Panics
    ///
    /// If the result is not valid: a request is checked before it is prepared.
    #[must_use]
    pub fn lone(facts: &PrepareFacts, request: &RequestHeader) -> PrepareHeader {
        let mut header = PrepareHeader::from_facts(facts);
        assert!(request.frame.cluster == facts.cluster);
        header.frame.size = request.frame.size;
        header.frame.checksum_body = request.frame.checksum_body;
        header.frame.release = request.frame.release;
        header.request_checksum = request.frame.checksum;
        header.client = request.client;
        header.session = request.session;
        header.request = request.request;
        header.request_count = 1;
        header.operation = request.operation;
        header.header_mut().set_checksum();
        assert!(header.invalid().is_none());
        header
    }

    /// A prepare without a request, by which the primary lets time pass (expiries). The header is
    /// complete with its checksum.
    ///
    /// # Panics
    ///
    /// If the result is not valid.
    #[must_use]
    pub fn pulse(facts: &PrepareFacts) -> PrepareHeader {
        let mut header = PrepareHeader::from_facts(facts);
        header.frame.checksum_body = CHECKSUM_EMPTY;
        header.operation = Operation::Pulse.into();
        header.header_mut().set_checksum();
        assert!(header.invalid().is_none());
        header
    }

    /// The rules of this command: see [`Header::invalid`](super::Header::invalid).
    pub(super) fn part_invalid(&self) -> Option<HeaderError> {
        if !is_zero(&self.reserved) || !is_zero(&self.padding) {
            return Some(HeaderError::Reserved);
        }
        match (self.operation, Operation::try_from(self.operation)) {
            (OPERATION_PACKED, _) => self.place_invalid().or_else(|| self.packed_invalid()),
            (_, Ok(Operation::Root)) => self.root_invalid(),
            (_, Ok(Operation::Pulse)) => self.place_invalid().or_else(|| self.pulse_invalid()),
            (_, Ok(_)) => self.place_invalid().or_else(|| self.lone_invalid()),
            (unknown, Err(_)) => Some(HeaderError::Operation(unknown)),
        }
    }

    fn root_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        first_broken(&[
            (frame.size == HEADER_SIZE, HeaderError::SizeOfCommand(frame.size)),
            (frame.checksum_body == CHECKSUM_EMPTY, HeaderError::ChecksumBody),
            (frame.view == 0, HeaderError::View(frame.view)),
            (frame.release == Release::ZERO, HeaderError::Release(frame.release)),
            (self.program == Release::ZERO, HeaderError::Release(self.program)),
            (frame.replica == 0, HeaderError::Replica(frame.replica)),
            (self.parent == 0, HeaderError::Parent),
            (self.checkpoint_id == 0, HeaderError::CheckpointId),
            (self.op == 0, HeaderError::Op(self.op)),
            (self.commit == 0, HeaderError::Commit(self.commit)),
            (self.timestamp == 0, HeaderError::Timestamp(self.timestamp)),
            (self.request_count == 0, HeaderError::RequestCount(self.request_count)),
        ])
        .or_else(|| self.requester_present())
    }

    /// The rules of every prepare but the root.
    fn place_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        let timestamp_holds = (1..=TIMESTAMP_MAX).contains(&self.timestamp);
        first_broken(&[
            (frame.release != Release::ZERO, HeaderError::Release(frame.release)),
            (self.program != Release::ZERO, HeaderError::Release(self.program)),
            (frame.replica < REPLICAS_MAX, HeaderError::Replica(frame.replica)),
            (self.op > 0, HeaderError::Op(self.op)),
            (self.commit < self.op, HeaderError::Commit(self.commit)),
            (timestamp_holds, HeaderError::Timestamp(self.timestamp)),
        ])
    }

    fn lone_invalid(&self) -> Option<HeaderError> {
        let size = self.frame.size;
        let registers = self.operation == u8::from(Operation::Register);
        first_broken(&[
            (self.request_count == 1, HeaderError::RequestCount(self.request_count)),
            (self.client != 0, HeaderError::Client),
            ((self.session == 0) == registers, HeaderError::Session(self.session)),
            ((self.request == 0) == registers, HeaderError::Request(self.request)),
            (!registers || size == REGISTER_REQUEST_SIZE, HeaderError::SizeOfCommand(size)),
        ])
    }

    fn packed_invalid(&self) -> Option<HeaderError> {
        let size = self.frame.size;
        let count = self.request_count;
        let count_holds = (2..=CLIENTS_MAX).contains(&count);
        if !count_holds {
            return Some(HeaderError::RequestCount(count));
        }
        if size < HEADER_SIZE + count * PACKED_REQUEST_SIZE {
            return Some(HeaderError::SizeOfCommand(size));
        }
        self.requester_present()
    }

    fn pulse_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        first_broken(&[
            (frame.size == HEADER_SIZE, HeaderError::SizeOfCommand(frame.size)),
            (frame.checksum_body == CHECKSUM_EMPTY, HeaderError::ChecksumBody),
            (self.request_count == 0, HeaderError::RequestCount(self.request_count)),
        ])
        .or_else(|| self.requester_present())
    }

    /// The fields of a lone request where there is none.
    fn requester_present(&self) -> Option<HeaderError> {
        first_broken(&[
            (self.request_checksum == 0, HeaderError::RequestChecksum),
            (self.client == 0, HeaderError::Client),
            (self.session == 0, HeaderError::Session(self.session)),
            (self.request == 0, HeaderError::Request(self.request)),
        ])
    }
}
