//! A client's session with the cluster, without sockets or clocks.
//!
//! Seals requests (numbers, hash chain, checksums) and judges the replies. One request is in flight
//! at a time; the first is the registration. The caller has checked the checksums and the cluster
//! of each frame. Not covered: when and to which replica to send.

use super::error::ServerError;
use crate::protocol::types::RegisterResult;
use crate::protocol::{
    BODY_SIZE_MAX, Command, EvictionReason, HEADER_SIZE, Header, Operation, PingClientHeader,
    Release, ReplyHeader, RequestHeader, to_index,
};
use zerocopy::FromBytes;

/// Bytes of a request's body that every cluster must accept: one event of any kind and the trailer
/// that counts it.
const BATCH_SIZE_LIMIT_MIN: u32 = 256;

/// The identity of a client.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// The cluster.
    pub cluster: u128,
    /// Random, nonzero, new for every session.
    pub client: u128,
    /// The release the client claims.
    pub release: Release,
    /// Replicas of the cluster: 1 to 6.
    pub replica_count: u8,
}

/// A request's body, ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// The operation.
    pub operation: Operation,
    /// Bytes of the body.
    pub body_size: u32,
    /// Checksum of the body.
    pub checksum_body: u128,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    checksum: u128,
    request: u32,
    operation: Operation,
}

/// The fields of a reply's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyFacts {
    /// The operation of the request.
    pub operation: Operation,
    /// Position in history.
    pub op: u64,
    /// Time of the commit, in nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// Bytes of the body.
    pub body_size: u32,
}

/// The meaning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing: a duplicate, or meant for another client.
    Ignored,
    /// The answer to a ping sent at this time of the client's clock.
    Pong {
        /// Nanoseconds, as in the ping.
        sent_at_ns: u64,
    },
    /// The session is open.
    Registered,
    /// The answer to the request in flight, which has ended.
    Reply(ReplyFacts),
    /// The session is over.
    Evicted(EvictionReason),
}

/// A session's state. See the module.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    view: u32,
    /// Zero until registered.
    number: u64,
    request_next: u32,
    parent: u128,
    batch_size_limit: u32,
    in_flight: Option<InFlight>,
    latency_previous_us: u32,
}

impl Session {
    /// A session that is not registered yet.
    ///
    /// # Panics
    ///
    /// If an option is outside its documented range.
    #[must_use]
    pub fn new(options: SessionOptions) -> Session {
        assert_ne!(options.client, 0, "a client's id is not zero");
        assert_ne!(options.release, Release::ZERO);
        assert!((1..=6).contains(&options.replica_count));
        Session {
            options,
            view: 0,
            number: 0,
            request_next: 0,
            parent: 0,
            batch_size_limit: 0,
            in_flight: None,
            latency_previous_us: 0,
        }
    }

    /// Whether the session is open.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.number != 0
    }

    /// Whether a request awaits its reply.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.options.cluster
    }

    /// Returns the newest view known here.
    #[must_use]
    pub fn view(&self) -> u32 {
        self.view
    }

    /// Returns the index of the primary of the newest view known here.
    ///
    /// # Panics
    ///
    /// Never: there are few replicas.
    #[must_use]
    pub fn primary(&self) -> u8 {
        let primary = self.view % u32::from(self.options.replica_count);
        u8::try_from(primary).expect("below the number of replicas")
    }

    /// Largest request body that the cluster accepts, in bytes.
    ///
    /// # Panics
    ///
    /// If the session is not open.
    #[must_use]
    pub fn batch_size_limit(&self) -> u32 {
        assert!(self.is_registered());
        self.batch_size_limit
    }

    /// Records the latency of the last request, which the next one reports to the server.
    pub fn set_latency_previous(&mut self, microseconds: u64) {
        self.latency_previous_us = u32::try_from(microseconds).unwrap_or(u32::MAX);
    }

    /// Writes the header of the next request to the start of `frame`, and marks it as in flight.
    ///
    /// # Panics
    ///
    /// If another request is in flight, or the operation does not suit the session's state.
    pub fn seal(&mut self, frame: &mut [u8], staged: &Staged) {
        assert!(self.in_flight.is_none(), "one request at a time");
        let registers = staged.operation == Operation::Register;
        assert_eq!(registers, !self.is_registered());
        assert_eq!(registers, self.request_next == 0);
        assert!(registers || staged.body_size <= self.batch_size_limit);
        let mut header = RequestHeader::new();
        header.frame.cluster = self.options.cluster;
        header.frame.release = self.options.release;
        header.frame.view = self.view;
        header.frame.size = HEADER_SIZE + staged.body_size;
        header.frame.checksum_body = staged.checksum_body;
        header.parent = self.parent;
        header.client = self.options.client;
        header.session = self.number;
        header.request = self.request_next;
        header.operation = staged.operation.into();
        header.previous_request_latency = self.latency_previous_us;
        header.header_mut().set_checksum();
        assert_eq!(header.invalid(), None);
        *Header::from_bytes_mut(frame) = *header.header();
        self.in_flight = Some(InFlight {
            checksum: header.frame.checksum,
            request: self.request_next,
            operation: staged.operation,
        });
        self.request_next += 1;
    }

    /// A ping at this time of the client's clock.
    ///
    /// # Panics
    ///
    /// Never: what it makes is valid.
    #[must_use]
    pub fn ping(&self, now_ns: u64) -> Header {
        let mut header = PingClientHeader::new();
        header.frame.cluster = self.options.cluster;
        header.frame.release = self.options.release;
        header.client = self.options.client;
        header.session = self.number;
        header.ping_timestamp_monotonic = now_ns;
        header.header_mut().set_checksums(&[]);
        assert_eq!(header.invalid(), None);
        *header.header()
    }

    /// Judges a frame whose checksums and cluster are right.
    ///
    /// # Errors
    ///
    /// If the server broke the protocol; the session cannot be used any more.
    ///
    /// # Panics
    ///
    /// If `frame` is not one whole frame.
    pub fn receive(&mut self, frame: &[u8]) -> Result<Received, ServerError> {
        let header = Header::from_bytes(frame);
        assert_eq!(frame.len(), to_index(header.frame.size));
        if let Some(error) = header.invalid() {
            return Err(ServerError::Header(error));
        }
        match header.command() {
            Command::PongClient => {
                self.view = self.view.max(header.frame.view);
                let sent_at_ns = header.pong_client().ping_timestamp_monotonic;
                Ok(Received::Pong { sent_at_ns })
            }
            Command::Reply => {
                let body = &frame[to_index(HEADER_SIZE)..];
                self.receive_reply(header.reply(), body)
            }
            Command::Eviction => {
                let eviction = header.eviction();
                let ours = eviction.client == self.options.client;
                if !ours || header.frame.view < self.view {
                    return Ok(Received::Ignored);
                }
                let reason = EvictionReason::try_from(eviction.reason);
                Ok(Received::Evicted(reason.expect("a valid header has a known reason")))
            }
            // Other commands are not for clients.
            _ => Ok(Received::Ignored),
        }
    }

    fn receive_reply(&mut self, reply: &ReplyHeader, body: &[u8]) -> Result<Received, ServerError> {
        if reply.client != self.options.client {
            return Ok(Received::Ignored);
        }
        if reply.frame.release != self.options.release {
            return Err(ServerError::Release(reply.frame.release));
        }
        if reply.request >= self.request_next {
            return Err(ServerError::Request(reply.request));
        }
        let Some(in_flight) = self.in_flight else {
            return Ok(Received::Ignored);
        };
        if reply.request < in_flight.request {
            return Ok(Received::Ignored);
        }
        if reply.request_checksum != in_flight.checksum {
            return Err(ServerError::RequestChecksum);
        }
        if reply.operation != u8::from(in_flight.operation) {
            return Err(ServerError::Operation(reply.operation));
        }
        self.view = self.view.max(reply.frame.view);
        if in_flight.operation == Operation::Register {
            self.register(reply, body)?;
        }
        self.parent = reply.context;
        self.in_flight = None;
        if in_flight.operation == Operation::Register {
            return Ok(Received::Registered);
        }
        Ok(Received::Reply(ReplyFacts {
            operation: in_flight.operation,
            op: reply.op,
            timestamp: reply.timestamp,
            body_size: reply.frame.size - HEADER_SIZE,
        }))
    }

    fn register(&mut self, reply: &ReplyHeader, body: &[u8]) -> Result<(), ServerError> {
        assert!(!self.is_registered());
        let body_size = reply.frame.size - HEADER_SIZE;
        let result =
            RegisterResult::read_from_bytes(body).map_err(|_| ServerError::Body { body_size })?;
        if !(BATCH_SIZE_LIMIT_MIN..=BODY_SIZE_MAX).contains(&result.batch_size_limit) {
            return Err(ServerError::BatchSizeLimit(result.batch_size_limit));
        }
        assert_ne!(reply.commit, 0, "a valid reply has a position");
        self.number = reply.commit;
        self.batch_size_limit = result.batch_size_limit;
        Ok(())
    }
}
