//! A session over its connections, without blocking: what a caller multiplexes.
//!
//! A wire holds two request buffers. While one request is in flight the next is written into the
//! other and *staged* (its body's checksum computed), so that a load generator prepares while the
//! server works. Requests are sent to the primary. A request without an answer is sent again with
//! the same bytes, to the primary and to one of the others, which may know of a newer primary; at
//! once if the connection to the primary breaks. Deadlines are left to the caller.

use super::address::ReplicaAddress;
use super::batch;
use super::connection::Connection;
use super::error::{ClientError, Trouble};
use super::random::Random;
use super::session::{Received, ReplyFacts, Session, SessionOptions, Staged};
use super::system::{POLLERR, POLLHUP, POLLIN, pollfd, wait_ready};
use crate::protocol::client_id::short_lived;
use crate::protocol::types::RegisterRequest;
use crate::protocol::{AlignedMemory, HEADER_SIZE, MESSAGE_SIZE_MAX, Operation, Release};
use crate::protocol::{checksum, to_index, to_size};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Pause before a request is sent again, in nanoseconds; doubles with each attempt.
const RETRY_MIN_NS: u64 = 600_000_000;
/// Longest pause before a request is sent again, in nanoseconds.
const RETRY_MAX_NS: u64 = 10_000_000_000;
/// Time between pings in nanoseconds.
const PING_INTERVAL_NS: u64 = 30_000_000_000;

/// Minimum number of consecutive connections, closed without an answer, that is not an accident.
const REFUSALS_MIN: u32 = 3;

/// The cluster to connect to, and the identity of the client.
#[derive(Clone, Debug)]
pub struct WireOptions {
    /// The cluster.
    pub cluster: u128,
    /// Addresses of the replicas of the cluster, in order: 1 to 6.
    pub addresses: Vec<ReplicaAddress>,
    /// The release the client claims.
    pub release: Release,
    /// How long the client lives.
    pub lifetime: Lifetime,
}

/// How long a client lives: decides which sessions make way when a cluster has no more room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as its program. Of these sessions, the one that was idle for longest makes way.
    #[default]
    Long,
    /// Some questions, or it connects again by itself. While there are eight or more such sessions,
    /// they make way before all others.
    Short,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'wire> {
    /// The fields of its header.
    pub facts: ReplyFacts,
    /// The body, as it came.
    pub body: &'wire [u8],
    /// From the submission to the arrival of the last byte, in nanoseconds.
    pub latency_ns: u64,
}

impl<'wire> Reply<'wire> {
    /// The bytes of the results of a request with one batch.
    ///
    /// # Errors
    ///
    /// If the body is not the encoding of one batch of results.
    pub fn results(&self) -> Result<&'wire [u8], ClientError> {
        batch::decode(self.facts.operation, self.body).map_err(ClientError::Server)
    }
}

/// The state of the request in flight.
#[derive(Clone, Debug)]
enum State {
    Idle,
    Waiting,
    /// The reply is at the front of the connection's incoming bytes.
    Answered {
        connection: usize,
        size: usize,
        facts: ReplyFacts,
        latency_ns: u64,
    },
    Failed(ClientError),
}

/// A session over its connections. See the module.
#[derive(Debug)]
pub struct Wire {
    session: Session,
    connections: Vec<Connection>,
    frames: [AlignedMemory; 2],
    /// Index of the frame that is in flight, or was last.
    current: usize,
    /// Size of the frame in flight, or last in flight, in bytes.
    current_size: usize,
    staged: Option<Staged>,
    state: State,
    random: Random,
    submitted_at_ns: u64,
    retry_at_ns: u64,
    attempts: u32,
    ping_at_ns: u64,
}

impl Wire {
    /// Begins to connect and to register.
    ///
    /// # Errors
    ///
    /// If the system provides no randomness.
    ///
    /// # Panics
    ///
    /// If there are no or too many addresses.
    pub fn new(options: &WireOptions, now_ns: u64) -> Result<Wire, ClientError> {
        let mut random = Random::from_system()?;
        let count = u8::try_from(options.addresses.len()).expect("1 to 6 addresses");
        let session = Session::new(SessionOptions {
            cluster: options.cluster,
            client: match options.lifetime {
                Lifetime::Long => random.next_u128().max(1),
                Lifetime::Short => short_lived(random.next_u64()),
            },
            release: options.release,
            replica_count: count,
        });
        let memory = || AlignedMemory::new(to_index(MESSAGE_SIZE_MAX));
        let mut wire = Wire {
            session,
            connections: options.addresses.iter().cloned().map(Connection::new).collect(),
            frames: [memory(), memory()],
            current: 0,
            current_size: 0,
            staged: None,
            state: State::Idle,
            random,
            submitted_at_ns: now_ns,
            retry_at_ns: u64::MAX,
            attempts: 0,
            ping_at_ns: now_ns + PING_INTERVAL_NS,
        };
        wire.stage_body(Operation::Register, to_size(size_of::<RegisterRequest>()));
        wire.submit(now_ns);
        Ok(wire)
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.session.cluster()
    }

    /// Whether the session is open.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.session.is_registered()
    }

    /// Whether a request can be submitted.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether a request is in flight without an answer.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// Whether the next request is ready.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        self.staged.is_some()
    }

    /// Whether the request in flight has left entirely towards the primary.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        !self.connections[usize::from(self.session.primary())].request_is_pending()
    }

    /// Whether the request in flight is still to leave, in part or entirely, to this replica.
    #[cfg(test)]
    pub(super) fn is_pending_at(&self, index: usize) -> bool {
        self.connections[index].request_is_pending()
    }

    /// Returns the maximum number of events in one request.
    ///
    /// # Panics
    ///
    /// If the session is not open.
    #[must_use]
    pub fn events_max(&self, operation: Operation) -> u32 {
        operation.events_max(self.session.batch_size_limit())
    }

    /// Returns the maximum number of results in one reply, if replies are as large as requests may
    /// be.
    ///
    /// # Panics
    ///
    /// If the session is not open.
    #[must_use]
    pub fn results_max(&self, operation: Operation) -> u32 {
        let limit = self.session.batch_size_limit();
        if operation == Operation::GetChangeEvents {
            return Operation::change_events_max(limit);
        }
        let fitting = limit / operation.result_size().max(1);
        operation.results_max().min(fitting.saturating_sub(1))
    }

    /// Returns the time at which the request in flight was submitted, in nanoseconds.
    #[must_use]
    pub fn submitted_at_ns(&self) -> u64 {
        self.submitted_at_ns
    }

    /// Returns the address of a replica that does not answer, the primary if it is one, and the
    /// reason.
    #[must_use]
    pub fn connection_error(&self) -> Option<(String, Trouble)> {
        let primary = usize::from(self.session.primary());
        let first = self.connections[primary].trouble();
        first.or_else(|| self.connections.iter().find_map(Connection::trouble))
    }

    /// Returns the address of a replica that closes every connection without an answer, as those of
    /// another cluster do, and whether all do; none if none does, or the session is open.
    #[must_use]
    pub fn refusal(&self) -> Option<(SocketAddr, bool)> {
        let refuses = |connection: &&Connection| connection.refusals() >= REFUSALS_MIN;
        if self.is_registered() {
            return None;
        }
        let first = self.connections.iter().find(refuses)?;
        let all = self.connections.iter().filter(refuses).count() == self.connections.len();
        Some((first.address()?, all))
    }

    /// Room for the body of the next request: as large as the cluster accepts.
    ///
    /// # Panics
    ///
    /// If the session is not open or a request is staged already.
    pub fn body_mut(&mut self) -> &mut [u8] {
        assert!(self.staged.is_none(), "the staged request comes first");
        let limit = to_index(self.session.batch_size_limit());
        let header = to_index(HEADER_SIZE);
        &mut self.frames[1 - self.current][header..header + limit]
    }

    /// Room for `count` events of the next request, to be written in place.
    ///
    /// # Panics
    ///
    /// As [`Wire::body_mut`], or if so many events do not fit.
    pub fn events_mut<Event>(&mut self, count: u32) -> &mut [Event]
    where
        Event: FromBytes + IntoBytes + KnownLayout,
    {
        let size = to_index(count) * size_of::<Event>();
        let body = &mut self.body_mut()[..size];
        <[Event]>::mut_from_bytes(body).expect("bodies are aligned and events have no gaps")
    }

    /// Completes the next request from the `count` events written to [`Wire::events_mut`].
    ///
    /// # Panics
    ///
    /// If more events than [`Wire::events_max`], or a request is staged already.
    pub fn stage(&mut self, operation: Operation, count: u32) {
        assert!(count <= self.events_max(operation));
        let body_size = batch::encode(operation, self.body_mut(), count);
        self.stage_body(operation, body_size);
    }

    /// Completes the next request from the bytes written to [`Wire::body_mut`].
    ///
    /// # Panics
    ///
    /// If the body is larger than the cluster accepts, or a request is staged already.
    pub fn stage_body(&mut self, operation: Operation, body_size: u32) {
        assert!(self.staged.is_none());
        let header = to_index(HEADER_SIZE);
        let body = &self.frames[1 - self.current][header..header + to_index(body_size)];
        self.staged = Some(Staged { operation, body_size, checksum_body: checksum(body) });
    }

    /// Sends the staged request.
    ///
    /// # Panics
    ///
    /// If nothing is staged or the wire is not idle.
    pub fn submit(&mut self, now_ns: u64) {
        assert!(self.is_idle(), "one request at a time");
        let staged = self.staged.take().expect("a request is staged before it is submitted");
        for connection in &mut self.connections {
            connection.request_cancel();
        }
        self.current = 1 - self.current;
        self.current_size = to_index(HEADER_SIZE + staged.body_size);
        self.session.seal(&mut self.frames[self.current], &staged);
        self.state = State::Waiting;
        self.submitted_at_ns = now_ns;
        self.attempts = 0;
        self.schedule_retry(now_ns);
        self.transmit(usize::from(self.session.primary()), now_ns);
    }

    /// Returns the answer or failure, if there is one. It stays until [`Wire::finish`].
    ///
    /// # Errors
    ///
    /// If the session is over or the server broke the protocol; this is final.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Reply<'_>, ClientError>> {
        match &self.state {
            State::Idle | State::Waiting => None,
            State::Answered { connection, size, facts, latency_ns } => {
                let frame = self.connections[*connection].front(*size);
                let body = &frame[to_index(HEADER_SIZE)..];
                Some(Ok(Reply { facts: *facts, body, latency_ns: *latency_ns }))
            }
            State::Failed(error) => Some(Err(error.clone())),
        }
    }

    /// Releases the answer, so that the next request can be submitted.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub fn finish(&mut self, now_ns: u64) {
        let State::Answered { connection, size, .. } = self.state else {
            panic!("only an answered request can be finished");
        };
        self.state = State::Idle;
        self.connections[connection].consume(size);
        self.read_frames(connection, now_ns);
    }

    /// Adds the events that each connection waits for: one entry per connection.
    pub fn interest(&self, descriptors: &mut Vec<pollfd>) {
        descriptors.extend(self.connections.iter().map(Connection::interest));
    }

    /// Number of connections: one per replica.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Handles the readiness of one connection.
    pub fn on_ready(&mut self, index: usize, ready: i16, now_ns: u64) {
        let result = self.exchange(index, ready);
        self.read_frames(index, now_ns);
        if let Err(error) = result {
            self.on_failure(index, error.kind(), now_ns);
        }
    }

    fn exchange(&mut self, index: usize, ready: i16) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.establish()?;
        if ready & (POLLIN | POLLHUP | POLLERR) != 0 {
            connection.receive()?;
        }
        connection.send(&self.frames[self.current][..self.current_size])
    }

    /// Handles the frames that have arrived, up to an answer that the caller must take first.
    fn read_frames(&mut self, index: usize, now_ns: u64) {
        loop {
            if let State::Answered { connection, .. } = self.state
                && connection == index
            {
                return;
            }
            match self.connections[index].frame_size(self.session.cluster()) {
                Ok(None) => return,
                Ok(Some(size)) => self.on_frame(index, size, now_ns),
                Err(error) => return self.on_failure(index, error.kind(), now_ns),
            }
        }
    }

    fn on_frame(&mut self, index: usize, size: usize, now_ns: u64) {
        if matches!(self.state, State::Failed(_)) {
            // The session is over, whatever else comes.
            return self.connections[index].consume(size);
        }
        let primary = self.session.primary();
        let received = self.session.receive(self.connections[index].front(size));
        if let Ok(Received::Reply(facts)) = received {
            assert!(self.is_waiting());
            let latency_ns = now_ns - self.submitted_at_ns;
            self.session.set_latency_previous(latency_ns / 1000);
            self.state = State::Answered { connection: index, size, facts, latency_ns };
            return;
        }
        self.connections[index].consume(size);
        match received {
            Ok(Received::Registered) => self.state = State::Idle,
            Ok(Received::Evicted(reason)) => {
                self.state = State::Failed(ClientError::Evicted(reason));
            }
            Err(error) => self.state = State::Failed(ClientError::Server(error)),
            Ok(Received::Ignored | Received::Pong { .. } | Received::Reply(_)) => {}
        }
        // A new view has a new primary: it gets the request without delay.
        if self.is_waiting() && self.session.primary() != primary {
            self.transmit(usize::from(self.session.primary()), now_ns);
        }
    }

    fn on_failure(&mut self, index: usize, error: ErrorKind, now_ns: u64) {
        let front_is_taken =
            matches!(&self.state, State::Answered { connection, .. } if *connection == index);
        if front_is_taken {
            // The answer has arrived in full. What follows is noticed again after it is finished.
            return;
        }
        self.connections[index].fail(error, now_ns, &mut self.random);
        if self.is_waiting() && index == usize::from(self.session.primary()) {
            self.connections[index].request_start();
            self.transmit_other(now_ns);
        }
    }

    /// Sends the request in flight to a random replica that can be reached and is not the primary
    /// known here: it may know of a newer one.
    fn transmit_other(&mut self, now_ns: u64) {
        let count = self.connections.len();
        let primary = usize::from(self.session.primary());
        let others = u64::try_from(count - 1).expect("few replicas");
        if others == 0 {
            return;
        }
        let first = usize::try_from(self.random.below(others)).expect("few replicas");
        // From a random one on, in a circle around the primary.
        let other = |offset| (primary + 1 + (first + offset) % (count - 1)) % count;
        let reachable = (0..count - 1).map(other);
        let chosen = reachable.clone().find(|index| self.connections[*index].is_established());
        let index = chosen.unwrap_or(other(0));
        assert_ne!(index, primary);
        self.transmit(index, now_ns);
    }

    /// Sends the request in flight to a replica, from the beginning.
    fn transmit(&mut self, index: usize, now_ns: u64) {
        let connection = &mut self.connections[index];
        connection.request_start();
        let result = connection.send(&self.frames[self.current][..self.current_size]);
        if let Err(error) = result {
            self.on_failure(index, error.kind(), now_ns);
        }
    }

    fn schedule_retry(&mut self, now_ns: u64) {
        let pause_ns = (RETRY_MIN_NS << self.attempts.min(5)).min(RETRY_MAX_NS);
        self.retry_at_ns = now_ns + pause_ns + self.random.below(pause_ns / 4);
    }

    /// Connects, sends again and pings if it is time to.
    ///
    /// # Panics
    ///
    /// Never: attempts are few.
    pub fn tick(&mut self, now_ns: u64) {
        for connection in &mut self.connections {
            connection.start(now_ns, &mut self.random);
        }
        if self.is_waiting() && now_ns >= self.retry_at_ns {
            self.attempts += 1;
            self.schedule_retry(now_ns);
            self.transmit(usize::from(self.session.primary()), now_ns);
            self.transmit_other(now_ns);
            self.ping_at_ns = now_ns;
        }
        if now_ns >= self.ping_at_ns {
            self.ping_at_ns = now_ns + PING_INTERVAL_NS;
            let ping = self.session.ping(now_ns);
            for connection in &mut self.connections {
                connection.ping_start(&ping);
            }
        }
    }

    /// Returns the time of the next [`Wire::tick`], unless the network has news before.
    #[must_use]
    pub fn wake_at_ns(&self) -> u64 {
        let connect = self.connections.iter().filter_map(Connection::connect_at_ns).min();
        let retry = if self.is_waiting() { self.retry_at_ns } else { u64::MAX };
        connect.unwrap_or(u64::MAX).min(retry).min(self.ping_at_ns)
    }
}

/// Waits for any of several wires.
#[derive(Debug)]
pub struct Poller {
    start: Instant,
    descriptors: Vec<pollfd>,
}

impl Default for Poller {
    fn default() -> Poller {
        Poller::new()
    }
}

impl Poller {
    /// A poller whose clock starts now.
    #[must_use]
    pub fn new() -> Poller {
        Poller { start: Instant::now(), descriptors: Vec::new() }
    }

    /// Nanoseconds since the poller was made.
    ///
    /// # Panics
    ///
    /// After five centuries.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("less than five centuries")
    }

    /// Waits until something happens on one of the wires, up to `wait_max`, and handles it.
    ///
    /// # Errors
    ///
    /// If the system cannot wait.
    ///
    /// # Panics
    ///
    /// Never: there is one descriptor per connection.
    pub fn turn(&mut self, wires: &mut [Wire], wait_max: Duration) -> Result<(), ClientError> {
        let now_ns = self.now_ns();
        self.descriptors.clear();
        let mut wake_at_ns = u64::MAX;
        for wire in wires.iter_mut() {
            wire.tick(now_ns);
            wire.interest(&mut self.descriptors);
            wake_at_ns = wake_at_ns.min(wire.wake_at_ns());
        }
        let wait = Duration::from_nanos(wake_at_ns.saturating_sub(now_ns)).min(wait_max);
        let ready_count = wait_ready(&mut self.descriptors, wait)?;
        if ready_count == 0 {
            return Ok(());
        }
        let now_ns = self.now_ns();
        let mut position = 0;
        for wire in wires.iter_mut() {
            for index in 0..wire.connection_count() {
                let ready = self.descriptors[position].revents;
                position += 1;
                if ready != 0 {
                    wire.on_ready(index, ready, now_ns);
                }
            }
        }
        assert_eq!(position, self.descriptors.len());
        Ok(())
    }
}
