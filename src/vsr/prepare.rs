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
use super::laps::Stage;
use super::machine::StateMachine;
use super::replica::Replica;
use super::requests::InFlightFacts;
use crate::protocol::packed::{PACKED_REQUEST_SIZE, PackedWriter};
use crate::protocol::{
    HEADER_SIZE, Message, NODES_MAX, Operation, PrepareFacts, PrepareHeader, Release, round_up,
    to_index,
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
    connection: Option<ConnectionId>,
    accepted_ns: u64,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Where its client is, if that is known.
    pub connection: Option<ConnectionId>,
    /// When it was accepted, by the monotonic clock.
    pub accepted_ns: u64,
}

impl InFlight {
    /// What the rules for requests need.
    #[must_use]
    pub fn facts(&self) -> InFlightFacts {
        InFlightFacts { registers: self.registers, request_checksum: self.request_checksum }
    }
}

/// A prepare on its way from the log to its execution.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    /// Its op.
    pub op: u64,
    /// Its checksum.
    pub checksum: u128,
    /// Replicas on which it is durable, a bit each.
    acks: u8,
    /// When it was made, by the monotonic clock.
    pub made_ns: u64,
    /// When it was last sent, by the monotonic clock.
    pub sent_ns: u64,
    small: bool,
    pulse: bool,
}

impl Prepared {
    /// Whether it is durable on this replica.
    #[must_use]
    pub fn is_acked(&self, replica: u8) -> bool {
        self.acks & (1 << replica) != 0
    }

    /// Replicas on which it is durable.
    #[must_use]
    pub fn acks_count(&self) -> u32 {
        self.acks.count_ones()
    }
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

    /// Requests between acceptance and reply.
    #[must_use]
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Requests that are in no prepare yet.
    #[must_use]
    pub fn requests_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When a request was accepted, by the monotonic clock.
    fn accepted_ns(&self, request: &Message) -> Option<u64> {
        self.find(request.request().client).map(|in_flight| in_flight.accepted_ns)
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
    pub fn heard(
        &mut self,
        client: u128,
        request_checksum: u128,
        connection: Option<ConnectionId>,
    ) {
        let in_flight = self.in_flight.iter_mut().find(|in_flight| in_flight.client == client);
        if let Some(in_flight) = in_flight
            && in_flight.request_checksum == request_checksum
        {
            in_flight.connection = connection.or(in_flight.connection);
        }
    }

    /// Takes in a request.
    ///
    /// # Panics
    ///
    /// If there is no room, or the client has a request.
    pub fn accept(&mut self, connection: Option<ConnectionId>, request: Message, now_ns: u64) {
        assert!(!self.is_full());
        let header = request.request();
        assert!(self.find(header.client).is_none());
        self.in_flight.push(InFlight {
            client: header.client,
            registers: header.operation == u8::from(Operation::Register),
            request_checksum: header.frame.checksum,
            connection,
            accepted_ns: now_ns,
        });
        self.waiting.push(request);
    }

    /// Ends a client's request if it was accepted here.
    pub fn finish(&mut self, client: u128, request_checksum: u128) -> Option<Finished> {
        let index = self.in_flight.iter().position(|in_flight| {
            in_flight.client == client && in_flight.request_checksum == request_checksum
        })?;
        let InFlight { connection, accepted_ns, .. } = self.in_flight.swap_remove(index);
        Some(Finished { connection, accepted_ns })
    }

    /// Prepares on their way, oldest first.
    pub fn prepared(&self) -> impl Iterator<Item = &Prepared> {
        self.prepared.iter()
    }

    /// The same, to change them.
    pub fn prepared_mut(&mut self) -> impl Iterator<Item = &mut Prepared> {
        self.prepared.iter_mut()
    }

    /// Notes that a prepare is durable on a replica.
    pub fn acknowledge(&mut self, op: u64, checksum: u128, replica: u8) {
        let prepared = self.prepared.iter_mut().find(|prepared| prepared.op == op);
        if let Some(prepared) = prepared
            && prepared.checksum == checksum
        {
            prepared.acks |= 1 << replica;
        }
    }

    /// Takes over an op that the view began with, as if it were prepared here.
    ///
    /// # Panics
    ///
    /// If the pipeline is full.
    pub fn inherit(&mut self, header: &PrepareHeader) {
        self.prepared.push(Prepared {
            op: header.op,
            checksum: header.frame.checksum,
            acks: 0,
            made_ns: 0,
            sent_ns: 0,
            small: false,
            pulse: header.operation == u8::from(Operation::Pulse),
        });
    }

    /// The oldest op on its way.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.prepared.front().map(|prepared| prepared.op)
    }

    /// Ends the oldest prepare if it is the one that was executed.
    ///
    /// # Panics
    ///
    /// If an op was executed before an older one.
    pub fn executed(&mut self, op: u64) {
        if self.prepared.front().is_some_and(|prepared| prepared.op <= op) {
            let prepared = self.prepared.pop().expect("there is a front");
            assert!(prepared.op == op, "prepares are executed in order");
        }
    }

    /// Takes out the oldest waiting request, with what is known of its client's place.
    ///
    /// # Panics
    ///
    /// Never: a request that waits is in flight.
    pub fn take_waiting(&mut self) -> Option<(Message, Option<ConnectionId>)> {
        let request = self.waiting.pop()?;
        let header = request.request();
        let connection = self.finish(header.client, header.frame.checksum);
        let finished = connection.expect("a request that waits is in flight");
        Some((request, finished.connection))
    }

    /// Takes out a request that was prepared: its client, its checksum and where the client is.
    pub fn take_in_flight(&mut self) -> Option<(u128, u128, Option<ConnectionId>)> {
        let in_flight = self.in_flight.pop()?;
        Some((in_flight.client, in_flight.request_checksum, in_flight.connection))
    }

    /// Forgets everything: another replica goes on with it.
    ///
    /// # Panics
    ///
    /// If requests still wait.
    pub fn reset(&mut self) {
        assert!(self.waiting.is_empty(), "waiting requests are taken out first");
        self.prepared.clear();
        self.in_flight.clear();
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
        if !self.may_prepare() {
            return false;
        }
        let mut progress = false;
        while self.pipeline.next_may_go() && self.may_append() {
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
        let now = self.cluster_now().expect("who may prepare knows the time");
        let first = self.pipeline.waiting.pop().expect("a request waits");
        self.lap_queue(&first);
        let small = self.pipeline.is_small(&first);
        let mut events = self.span(&first);
        let mut bodies_size = round_up(first.header().body_size(), BODY_ALIGNMENT);
        let timestamp = self.clock.advance(now, events);
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
                    self.lap_queue(&request);
                    let timestamp = self.clock.advance(now, span);
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

    /// Notes that a request becomes part of a prepare.
    fn lap_queue(&mut self, request: &Message) {
        if let Some(accepted_ns) = self.pipeline.accepted_ns(request) {
            self.lap(Stage::Queue, accepted_ns);
        }
    }

    /// Prepares a pulse if one is due and none is on its way.
    pub(super) fn prepare_pulse(&mut self) {
        self.pulse_looked_ns = self.now.monotonic_ns;
        if !self.may_prepare() || !self.may_append() {
            return;
        }
        if self.pipeline.prepared.iter().any(|prepared| prepared.pulse)
            || self.pipeline.prepared.is_full()
            || self.machine.room() < Room::Everything
        {
            return;
        }
        let Some(now) = self.cluster_now() else { return };
        if !self.machine.pulse_due(self.clock.peek(now)) {
            return;
        }
        let Some(buffer) = self.pool.try_acquire() else { return };
        let span = self.machine.timestamp_span(Operation::Pulse, &[]);
        self.clock.advance(now, span);
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
        let head = self.chain.head();
        PrepareFacts {
            cluster: self.options.cluster,
            view: self.view,
            replica: self.options.replica,
            release: Release::SERVER,
            program: self.program_of_next(),
            parent: head.frame.checksum,
            checkpoint_id: self.superblock.durable().checkpoint_id(),
            op: head.op + 1,
            commit: self.commit_op(),
            timestamp: self.clock.newest,
        }
    }

    /// Whether the journal and the outbox can take another prepare now.
    fn may_append(&self) -> bool {
        let op = self.chain.head().op + 1;
        let sends = usize::from(self.options.nodes() + NODES_MAX);
        self.journal.can_write(op) && self.outbox.sends.room() > sends
    }

    /// Puts the next prepare into the log and the pipeline, and sends it to the backups.
    fn append(&mut self, mut message: Message, small: bool) {
        let header = *message.prepare();
        assert!(self.chain.follows(&header), "each op names its parent");
        // The slot's old contents are needed until a durable checkpoint covers them. Commits wait
        // for checkpoints early enough that this never has to wait.
        assert!(header.op <= self.op_max(), "the log has room for what may be prepared");
        self.laps.write_began(header.op, self.now.monotonic_ns);
        self.journal.write(&mut message, &mut self.outbox.storage);
        self.chain.append(&header);
        self.recent.put(&message);
        self.pipeline.prepared.push(Prepared {
            op: header.op,
            checksum: header.frame.checksum,
            acks: 0,
            made_ns: self.now.monotonic_ns,
            sent_ns: self.now.monotonic_ns,
            small,
            pulse: header.operation == u8::from(Operation::Pulse),
        });
        self.replicate(&message);
    }
}
