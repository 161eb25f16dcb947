//! From requests to prepares: the queue, the pipeline and group commit.
//!
//! Accepted requests wait in order, one per client. A request that meets an idle replica becomes a
//! prepare at once, in the buffer it came in. While small prepares are on their way, small requests
//! wait and are packed together into the next one, so that many clients share one write of the
//! log. Large requests travel alone. In one prepare reads stand before creates, for the store's
//! indexes learn of new rows when an op ends. When the storage limit is reached, requests that
//! append are dropped, so that others still get their answers. Not covered: what makes a request
//! acceptable.

use super::ConnectionId;
use super::machine::StateMachine;
use super::replica::{Replica, Status};
use super::requests::InFlightFacts;
use crate::protocol::packed::{PACKED_REQUEST_SIZE, PackedWriter};
use crate::protocol::{
    HEADER_SIZE, Message, Operation, PrepareFacts, PrepareHeader, Release, round_up, to_index,
};
use crate::storage::{Config, Queue, Room};

/// Prepares of small requests on their way at most: more of them would be smaller.
const SMALL_MAX: usize = 2;
/// Unit to which bodies are padded in a prepare of several, in bytes.
const BODY_ALIGNMENT: u32 = 16;

/// A client's request from its acceptance to its reply.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    client: u128,
    registers: bool,
    request_checksum: u128,
    connection: ConnectionId,
}

impl InFlight {
    /// What the rules for requests need.
    #[must_use]
    pub fn facts(&self) -> InFlightFacts {
        InFlightFacts { registers: self.registers, request_checksum: self.request_checksum }
    }
}

/// A prepare on its way from the log to its execution.
#[derive(Debug)]
pub struct Prepared {
    /// The prepare.
    pub message: Message,
    small: bool,
}

/// Requests that wait and prepares on their way.
#[derive(Debug)]
pub struct Pipeline {
    waiting: Queue<Message>,
    in_flight: Vec<InFlight>,
    in_flight_max: usize,
    prepared: Queue<Prepared>,
    small_size_max: u32,
}

impl Pipeline {
    /// An empty pipeline.
    #[must_use]
    pub fn new(config: &Config) -> Pipeline {
        let clients_max = to_index(config.clients_max);
        Pipeline {
            waiting: Queue::new(clients_max),
            in_flight: Vec::with_capacity(clients_max),
            in_flight_max: clients_max,
            prepared: Queue::new(to_index(config.pipeline_max)),
            small_size_max: config.message_size_max / 4,
        }
    }

    /// Whether no prepare is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prepared.is_empty()
    }

    /// Whether no request is anywhere between acceptance and reply.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.prepared.is_empty() && self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Whether no more requests can be accepted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.in_flight.len() == self.in_flight_max
    }

    /// The client's request.
    #[must_use]
    pub fn find(&self, client: u128) -> Option<&InFlight> {
        self.in_flight.iter().find(|in_flight| in_flight.client == client)
    }

    /// Notes where a client was heard that sent its request again.
    pub fn heard(&mut self, client: u128, request_checksum: u128, connection: ConnectionId) {
        let in_flight = self.in_flight.iter_mut().find(|in_flight| in_flight.client == client);
        if let Some(in_flight) = in_flight
            && in_flight.request_checksum == request_checksum
        {
            in_flight.connection = connection;
        }
    }

    /// Takes in a request.
    ///
    /// # Panics
    ///
    /// If there is no room, or the client has a request.
    pub fn accept(&mut self, connection: ConnectionId, request: Message) {
        assert!(!self.is_full());
        let header = request.request();
        assert!(self.find(header.client).is_none());
        self.in_flight.push(InFlight {
            client: header.client,
            registers: header.operation == u8::from(Operation::Register),
            request_checksum: header.frame.checksum,
            connection,
        });
        self.waiting.push(request);
    }

    /// Ends a client's request, and says where the client is. `None` during replay.
    pub fn finish(&mut self, client: u128, request_checksum: u128) -> Option<ConnectionId> {
        let index = self.in_flight.iter().position(|in_flight| {
            in_flight.client == client && in_flight.request_checksum == request_checksum
        })?;
        Some(self.in_flight.swap_remove(index).connection)
    }

    /// The oldest prepare on its way.
    #[must_use]
    pub fn front(&self) -> Option<&Prepared> {
        self.prepared.front()
    }

    /// Ends the oldest prepare, which was executed.
    ///
    /// # Panics
    ///
    /// If the oldest is another.
    pub fn pop(&mut self, op: u64) {
        let prepared = self.prepared.pop().expect("what was executed was prepared");
        assert!(prepared.message.prepare().op == op, "prepares are executed in order");
    }

    fn small_count(&self) -> usize {
        self.prepared.iter().filter(|prepared| prepared.small).count()
    }

    fn is_small(&self, message: &Message) -> bool {
        message.size() <= self.small_size_max
    }

    /// Whether the oldest request may become a prepare now.
    fn next_may_go(&self) -> bool {
        let Some(next) = self.waiting.front() else { return false };
        let room = !self.prepared.is_full();
        room && (!self.is_small(next) || self.small_count() < SMALL_MAX)
    }
}

impl<M: StateMachine> Replica<M> {
    /// Prepares what may be prepared; whether anything was.
    pub(super) fn pump_prepare(&mut self) -> bool {
        assert!(self.status == Status::Normal);
        let mut progress = false;
        while self.pipeline.next_may_go() {
            let room = self.machine.room();
            if room == Room::Nothing {
                break;
            }
            if room == Room::Reads && self.drop_creates() {
                continue;
            }
            self.prepare_requests();
            progress = true;
        }
        progress
    }

    /// Drops waiting requests that append rows; whether there were any. Their clients ask again.
    fn drop_creates(&mut self) -> bool {
        let before = self.pipeline.waiting.len();
        for _ in 0..before {
            let request = self.pipeline.waiting.pop().expect("as many as there were");
            if self.span(&request) > 0 {
                let header = request.request();
                let dropped = self.pipeline.finish(header.client, header.frame.checksum);
                assert!(dropped.is_some(), "a request that waits is in flight");
            } else {
                self.pipeline.waiting.push(request);
            }
        }
        self.pipeline.waiting.len() < before
    }

    /// Makes a prepare of the oldest request and, if it is small, of other small ones.
    fn prepare_requests(&mut self) {
        let config = self.options.config;
        let first = self.pipeline.waiting.pop().expect("a request waits");
        let small = self.pipeline.is_small(&first);
        let mut events = self.span(&first);
        let mut bodies_size = round_up(first.header().body_size(), BODY_ALIGNMENT);
        let timestamp = self.clock.advance(self.now, events);
        let mut writer = PackedWriter::from_request(first, timestamp);
        if small {
            for _ in 0..self.pipeline.waiting.len() {
                let request = self.pipeline.waiting.pop().expect("as many as there were");
                let span = self.span(&request);
                let body_size = round_up(request.header().body_size(), BODY_ALIGNMENT);
                let table_size = (writer.count() + 1) * PACKED_REQUEST_SIZE;
                let size = HEADER_SIZE + bodies_size + body_size + table_size;
                // A read after a create would miss its rows in the indexes.
                let in_order = events == 0 || span > 0;
                let fits = in_order
                    && size <= config.message_size_max
                    && events + span <= u64::from(config.batch_max)
                    && self.pipeline.is_small(&request);
                if fits && writer.fits(request.header().body_size()) {
                    let timestamp = self.clock.advance(self.now, span);
                    writer.append(request.request(), request.body(), timestamp);
                    bodies_size += body_size;
                    events += span;
                } else {
                    self.pipeline.waiting.push(request);
                }
            }
        }
        let message = writer.finish(&self.facts());
        self.append(message, small);
    }

    /// Prepares a pulse if one is due and none is on its way.
    pub(super) fn prepare_pulse(&mut self) {
        assert!(self.status == Status::Normal);
        self.pulse_looked_ns = self.now.monotonic_ns;
        let pulse = u8::from(Operation::Pulse);
        let is_pulse = |prepared: &Prepared| prepared.message.prepare().operation == pulse;
        if self.pipeline.prepared.iter().any(is_pulse)
            || self.pipeline.prepared.is_full()
            || self.machine.room() < Room::Everything
        {
            return;
        }
        if !self.machine.pulse_due(self.clock.peek(self.now)) {
            return;
        }
        let Some(buffer) = self.pool.try_acquire() else { return };
        let span = self.machine.timestamp_span(Operation::Pulse, &[]);
        self.clock.advance(self.now, span);
        let mut message = Message(buffer);
        *message.header_mut() = *PrepareHeader::pulse(&self.facts()).header();
        self.append(message, true);
    }

    /// Timestamps that a request takes besides its own; as many as the rows it may append.
    fn span(&self, request: &Message) -> u64 {
        let operation = Operation::from_client(request.request().operation);
        let operation = operation.expect("the request was judged");
        self.machine.timestamp_span(operation, request.body())
    }

    /// The place in history of the next prepare.
    fn facts(&self) -> PrepareFacts {
        PrepareFacts {
            cluster: self.options.cluster,
            view: self.view,
            replica: self.options.replica,
            release: Release::SERVER,
            parent: self.head.frame.checksum,
            checkpoint_id: self.superblock.durable().checkpoint.frame.checksum,
            op: self.head.op + 1,
            commit: self.commit.op,
            timestamp: self.clock.newest,
        }
    }

    /// Puts the next prepare into the log and the pipeline.
    fn append(&mut self, mut message: Message, small: bool) {
        let header = *message.prepare();
        assert!(header.op == self.head.op + 1);
        assert!(header.parent == self.head.frame.checksum);
        assert!(header.timestamp > self.head.timestamp);
        // The slot's old contents are needed until a durable checkpoint covers them. Commits wait
        // for checkpoints early enough that this never has to wait.
        let slots = u64::from(self.options.config.journal_slots);
        assert!(header.op <= self.superblock.durable().checkpoint.op + slots);
        self.journal.write(&mut message, &mut self.outbox.storage);
        self.head = header;
        self.pipeline.prepared.push(Prepared { message, small });
    }
}
