//! The message bus: a listening socket, its connections, and messages in and out of them.
//!
//! Bounds hold everywhere: connections (one too many is accepted and closed at once), messages
//! queued for a peer (a peer that does not take them is disconnected), messages queued in total,
//! messages taken for frames that are still arriving. A peer that stops in the middle of a frame,
//! or
//! stops taking what is sent, is disconnected after some seconds; nobody else waits for it. While a
//! peer leaves replies untaken, nothing more is read from it. All structures are made at start.
//! Not covered: connections to other replicas; what a message means.

use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;

use super::framing::{FrameError, Receiver, Rules, Step};
use super::ring::{Part, Ring};
use super::socket::listen;
use crate::protocol::{Buffer, Message, Pool, to_index};
use crate::storage::Queue;
use crate::vsr::ConnectionId;

/// Port of an address that names none.
pub const PORT_DEFAULT: u16 = 3001;
/// Messages that may wait for one peer.
const SENDS_MAX: usize = 16;
/// While so many wait for a peer, nothing is read from it.
const SENDS_PAUSE: usize = 4;
/// A message is sent in portions of this size, to see that there is progress.
const PORTION_LENGTH: u32 = 256 * 1024;
/// A peer without progress for this many ticks of 10 ms, while there must be some, is disconnected.
const STALL_TICKS: u64 = 3_000;
/// The same while others wait for the memory it holds.
const STALL_TICKS_PRESSED: u64 = 200;
/// Stalls are looked for this often, in ticks.
const SCAN_TICKS: u64 = 100;
/// Complaints about peers are printed at most this often, in ticks.
const COMPLAINT_TICKS: u64 = 1_000;

/// The bus cannot listen.
#[derive(Debug)]
pub enum BusError {
    /// The address is none, or names nothing.
    Address {
        /// As given.
        address: String,
        /// What the system answered.
        error: io::Error,
    },
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system answered.
        error: io::Error,
    },
}

impl fmt::Display for BusError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BusError::Address { address, error } => write!(
                formatter,
                "\"{address}\" is no usable address: {error}; give host:port, a host, a port, or \
                 [IPv6]:port"
            ),
            BusError::Listen { address, error } => {
                write!(formatter, "cannot listen on {address}: {error}; ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        formatter,
                        "another process uses that port: stop it or choose another port"
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        write!(formatter, "this machine has no such address")
                    }
                    io::ErrorKind::PermissionDenied => {
                        write!(formatter, "ports below 1024 need privileges: choose a higher one")
                    }
                    _ => write!(formatter, "see the kernel's log for more"),
                }
            }
        }
    }
}

impl std::error::Error for BusError {}

/// The address that `text` names: `host:port`, `host` (port 3001), `port` (on 127.0.0.1),
/// `[IPv6]:port` or `IPv6`. A host is an IP address or a name; of a name the first address counts.
///
/// # Errors
///
/// If it names none.
pub fn resolve(text: &str) -> Result<SocketAddr, BusError> {
    let failure = |error| BusError::Address { address: text.to_owned(), error };
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let reason = "a port is a number up to 65535";
        return Err(failure(io::Error::new(io::ErrorKind::InvalidInput, reason)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<std::net::IpAddr>() {
        return Ok(SocketAddr::new(address, PORT_DEFAULT));
    }
    let found = if text.contains(':') {
        text.to_socket_addrs()
    } else {
        (text, PORT_DEFAULT).to_socket_addrs()
    };
    let first = found.map_err(failure)?.next();
    first.ok_or_else(|| failure(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

/// What the bus needs to know.
#[derive(Clone, Copy, Debug)]
pub struct BusOptions {
    /// Where to listen; port zero lets the system choose.
    pub listen: SocketAddr,
    /// Connections at a time.
    pub connections_max: u32,
    /// Our cluster.
    pub cluster: u128,
    /// Messages of the pool that are always left to the replica.
    pub pool_reserve: u32,
    /// Frames larger than [`RECEIVE_SIZE`] that may be arriving at a time: so many messages of the
    /// pool the bus holds at most beside those it was given to send.
    pub large_frames_max: u32,
    /// Messages that may wait for all peers together.
    pub sends_total_max: u32,
}

/// Whether a connection's received bytes are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No: it is receiving, or closed.
    Away,
    /// In the queue of those with something to look at.
    Ready,
    /// It needs a message of the pool, perhaps for a large frame that is arriving.
    WaitsForBuffer { large: bool },
    /// Its peer must first take replies.
    WaitsForSends,
}

/// One place for a connection.
#[derive(Debug)]
struct Connection {
    /// Counts the connections that had this place.
    generation: u32,
    stream: Option<TcpStream>,
    closing: bool,
    place: Place,
    receiver: Receiver,
    receiving: bool,
    /// Tick of the last bytes received.
    received_tick: u64,
    sends: Queue<Message>,
    sending: bool,
    /// Bytes of the message in flight that were taken.
    sent: u32,
    /// Tick of the last bytes taken by the peer.
    sent_tick: u64,
}

impl Connection {
    fn sends_count(&self) -> usize {
        self.sends.len() + usize::from(self.sending)
    }
}

/// At most one complaint in [`COMPLAINT_TICKS`].
#[derive(Debug, Default)]
struct Complaint {
    next_tick: u64,
    suppressed: u64,
}

impl Complaint {
    fn write(&mut self, tick: u64, what: fmt::Arguments<'_>) {
        if tick < self.next_tick {
            self.suppressed += 1;
            return;
        }
        self.next_tick = tick + COMPLAINT_TICKS;
        // Nobody to tell if standard error is gone; that is no reason to stop.
        let _ = if self.suppressed == 0 {
            writeln!(io::stderr(), "warning: {what}")
        } else {
            writeln!(io::stderr(), "warning: {what} ({} more not shown)", self.suppressed)
        };
        self.suppressed = 0;
    }
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// Connections closed because of what the peer sent.
    pub broken: u64,
    /// Connections closed because the peer did not go on, or did not take its replies.
    pub stalled: u64,
    /// Messages received.
    pub received: u64,
    /// Messages sent completely.
    pub sent: u64,
}

/// The listening socket and its connections.
pub struct Bus {
    listener: TcpListener,
    address: SocketAddr,
    rules: Rules,
    connections: Box<[Connection]>,
    /// Places without a connection.
    free: Vec<u32>,
    /// Connections with received bytes to look at.
    ready: Queue<u32>,
    /// Connections that wait for a message of the pool.
    waiting_count: u32,
    /// Where to look for the next of them.
    waiting_cursor: u32,
    /// Large frames that are arriving.
    large_frames: u32,
    large_frames_max: u32,
    sends_total: u32,
    sends_total_max: u32,
    accept_in_flight: bool,
    stopping: bool,
    tick: u64,
    complaint_cluster: Complaint,
    complaint_other: Complaint,
    counters: BusCounters,
}

/// Size of the small receive buffer of each connection in bytes: frames up to it do not hold a
/// message of the pool while they arrive.
pub const RECEIVE_SIZE: u32 = 64 * 1024;

impl Bus {
    /// Listens. Messages are received into buffers of `pool`.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    ///
    /// # Panics
    ///
    /// If the options allow no connection or no sending.
    pub fn new(options: &BusOptions, pool: Pool) -> Result<Bus, BusError> {
        assert!(options.connections_max > 0);
        assert!(options.large_frames_max > 0);
        assert!(options.sends_total_max > 0);
        let failure = |error| BusError::Listen { address: options.listen, error };
        let listener = listen(options.listen).map_err(failure)?;
        let address = listener.local_addr().map_err(failure)?;
        let small = Pool::new("receive", options.connections_max, RECEIVE_SIZE.min(pool.size()));
        let connections = (0..options.connections_max).map(|_| Connection {
            generation: 0,
            stream: None,
            closing: false,
            place: Place::Away,
            receiver: Receiver::new(small.acquire()),
            receiving: false,
            received_tick: 0,
            sends: Queue::new(SENDS_MAX),
            sending: false,
            sent: 0,
            sent_tick: 0,
        });
        let rules = Rules { cluster: options.cluster, pool, pool_reserve: options.pool_reserve };
        Ok(Bus {
            listener,
            address,
            rules,
            connections: connections.collect(),
            free: (0..options.connections_max).rev().collect(),
            ready: Queue::new(to_index(options.connections_max)),
            waiting_count: 0,
            waiting_cursor: 0,
            large_frames: 0,
            large_frames_max: options.large_frames_max,
            sends_total: 0,
            sends_total_max: options.sends_total_max,
            accept_in_flight: false,
            stopping: false,
            tick: 0,
            complaint_cluster: Complaint::default(),
            complaint_other: Complaint::default(),
            counters: BusCounters::default(),
        })
    }

    /// Operations the bus may have in flight in the ring.
    #[must_use]
    pub const fn operations_max(connections_max: u32) -> u32 {
        1 + 2 * connections_max
    }

    /// Bytes of the receive buffers, beside the pool.
    #[must_use]
    pub fn memory_bytes(connections_max: u32) -> u64 {
        Pool::memory_bytes(connections_max, RECEIVE_SIZE)
    }

    /// Where it listens; with the real port if the system chose it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// See [`BusCounters`].
    #[must_use]
    pub fn counters(&self) -> BusCounters {
        self.counters
    }

    /// Connections open now.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    /// Messages not yet taken by their peers.
    #[must_use]
    pub fn sends_pending(&self) -> u32 {
        self.sends_total
    }

    /// Starts accepting.
    ///
    /// # Panics
    ///
    /// If it was started before.
    pub fn start(&mut self, ring: &mut Ring) {
        assert!(!self.accept_in_flight);
        ring.accept(self.listener.as_fd());
        self.accept_in_flight = true;
    }

    /// From now on no connection is accepted and nothing more is read; replies still go out.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// A new connection, or why there is none.
    ///
    /// # Panics
    ///
    /// If none was waited for.
    pub fn on_accepted(&mut self, ring: &mut Ring, result: Result<TcpStream, i32>) {
        assert!(self.accept_in_flight);
        self.accept_in_flight = false;
        match result {
            Ok(stream) => {
                self.start(ring);
                if !self.stopping {
                    self.open(ring, stream);
                }
            }
            // The peer was gone already: the next one, please.
            Err(libc::ECONNABORTED) => self.start(ring),
            // Too many open files, no memory: again with the next tick.
            Err(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                self.complaint_other
                    .write(self.tick, format_args!("cannot accept a connection: {error}"));
            }
        }
    }

    fn open(&mut self, ring: &mut Ring, stream: TcpStream) {
        let Some(index) = self.free.pop() else {
            self.counters.refused += 1;
            drop(stream);
            return;
        };
        self.counters.accepted += 1;
        let tick = self.tick;
        let connection = &mut self.connections[to_index(index)];
        assert!(connection.stream.is_none());
        assert!(connection.place == Place::Away);
        assert!(connection.sends_count() == 0);
        connection.stream = Some(stream);
        connection.closing = false;
        connection.received_tick = tick;
        connection.sent_tick = tick;
        self.receive(ring, index);
    }

    /// Asks for more bytes of a connection.
    fn receive(&mut self, ring: &mut Ring, index: u32) {
        let connection = &mut self.connections[to_index(index)];
        assert!(!connection.receiving);
        assert!(!connection.closing);
        assert!(connection.place == Place::Away);
        let (buffer, part, whole) = connection.receiver.take_target();
        let stream = connection.stream.as_ref().expect("an open connection has a stream");
        ring.receive(stream.as_fd(), index, buffer, part, whole);
        connection.receiving = true;
    }

    /// Bytes of a peer have arrived, or its end, or an error.
    ///
    /// # Panics
    ///
    /// If none were waited for.
    pub fn on_received(&mut self, index: u32, buffer: Buffer, result: Result<u32, i32>) {
        let tick = self.tick;
        let connection = &mut self.connections[to_index(index)];
        assert!(connection.receiving);
        connection.receiving = false;
        connection.receiver.received(buffer, result.unwrap_or(0));
        if connection.closing {
            self.close_finish(index);
            return;
        }
        match result {
            Ok(count) if count > 0 => {
                connection.received_tick = tick;
                connection.place = Place::Ready;
                self.ready.push(index);
            }
            // The peer is done, or the network failed: for us the same.
            _ => self.close_index(index),
        }
    }

    /// The next complete message of any peer; `None` if there is none now.
    ///
    /// # Panics
    ///
    /// If the bookkeeping of connections is broken.
    pub fn next_message(&mut self, ring: &mut Ring) -> Option<(ConnectionId, Message)> {
        while let Some(index) = self.next_to_look_at() {
            let connection = &mut self.connections[to_index(index)];
            assert!(connection.place == Place::Away);
            if connection.closing {
                self.close_finish(index);
                continue;
            }
            if connection.sends_count() >= SENDS_PAUSE {
                connection.place = Place::WaitsForSends;
                continue;
            }
            let held = connection.receiver.holds_buffer();
            let step = connection
                .receiver
                .next(&self.rules, held || self.large_frames < self.large_frames_max);
            self.large_frames += u32::from(connection.receiver.holds_buffer());
            self.large_frames -= u32::from(held);
            match step {
                Step::Message(message) => {
                    connection.place = Place::Ready;
                    self.ready.push(index);
                    self.counters.received += 1;
                    let generation = connection.generation;
                    return Some((ConnectionId { index, generation }, message));
                }
                Step::NeedBytes => self.receive(ring, index),
                Step::NeedBuffer { large } => {
                    connection.place = Place::WaitsForBuffer { large };
                    self.waiting_count += 1;
                }
                Step::Broken(error) => {
                    self.complain(index, error);
                    self.counters.broken += 1;
                    self.close_index(index);
                }
            }
        }
        None
    }

    /// Takes a connection out of its waiting place, in turn.
    fn next_to_look_at(&mut self) -> Option<u32> {
        if self.stopping {
            return None;
        }
        if let Some(index) = self.next_waiting() {
            self.leave_waiting(index);
            return Some(index);
        }
        let index = self.ready.pop()?;
        let connection = &mut self.connections[to_index(index)];
        assert!(connection.place == Place::Ready);
        connection.place = Place::Away;
        Some(index)
    }

    /// The next connection after the cursor that waits for a message of the pool and can have it.
    fn next_waiting(&mut self) -> Option<u32> {
        if self.waiting_count == 0 || !self.rules.has_buffer() {
            return None;
        }
        let large_allowed = self.large_frames < self.large_frames_max;
        for _ in 0..self.connections.len() {
            let index = self.waiting_cursor;
            let next = to_index(index) + 1;
            self.waiting_cursor = if next == self.connections.len() { 0 } else { index + 1 };
            match self.connections[to_index(index)].place {
                Place::WaitsForBuffer { large } if large_allowed || !large => return Some(index),
                _ => {}
            }
        }
        None
    }

    fn leave_waiting(&mut self, index: u32) {
        let connection = &mut self.connections[to_index(index)];
        assert!(matches!(connection.place, Place::WaitsForBuffer { .. }));
        assert!(self.waiting_count > 0);
        connection.place = Place::Away;
        self.waiting_count -= 1;
        // It was not the peer that made this last.
        connection.received_tick = self.tick;
    }

    fn complain(&mut self, index: u32, error: FrameError) {
        let stream = self.connections[to_index(index)].stream.as_ref();
        let peer = stream.and_then(|stream| stream.peer_addr().ok());
        let peer = peer.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        if let FrameError::Cluster(cluster) = error {
            self.complaint_cluster.write(
                self.tick,
                format_args!(
                    "closed the connection of {peer}: it is for cluster {cluster}, and this is \
                     cluster {}; check the client's cluster id and addresses",
                    self.rules.cluster
                ),
            );
        } else {
            self.complaint_other
                .write(self.tick, format_args!("closed the connection of {peer}: it sent {error}"));
        }
    }

    /// Queues a message for a peer. If the peer is gone the message is dropped; if it leaves too
    /// much untaken it is disconnected.
    ///
    /// # Panics
    ///
    /// If the message is malformed.
    pub fn send(&mut self, ring: &mut Ring, id: ConnectionId, message: Message) {
        assert!(to_index(message.size()) == message.bytes().len());
        if !self.is_open(id) {
            return;
        }
        if self.sends_total >= self.sends_total_max {
            self.disconnect_slowest();
            if !self.is_open(id) {
                return;
            }
        }
        let tick = self.tick;
        let connection = &mut self.connections[to_index(id.index)];
        if connection.sends.is_full() {
            self.counters.stalled += 1;
            self.close_index(id.index);
            return;
        }
        if connection.sends_count() == 0 {
            connection.sent_tick = tick;
        }
        connection.sends.push(message);
        self.sends_total += 1;
        self.send_next(ring, id.index);
    }

    /// Whether the connection is still the one it was.
    #[must_use]
    pub fn is_open(&self, id: ConnectionId) -> bool {
        let connection = &self.connections[to_index(id.index)];
        connection.generation == id.generation && connection.stream.is_some() && !connection.closing
    }

    /// Disconnects the peer that has not taken anything for longest.
    fn disconnect_slowest(&mut self) {
        let places = self.connections.iter().zip(0_u32..);
        let sending = places.filter(|(place, _)| place.sends_count() > 0 && !place.closing);
        let slowest = sending.min_by_key(|(place, _)| place.sent_tick);
        if let Some((_, index)) = slowest {
            self.counters.stalled += 1;
            self.close_index(index);
        }
    }

    fn send_next(&mut self, ring: &mut Ring, index: u32) {
        let connection = &mut self.connections[to_index(index)];
        if connection.sending {
            return;
        }
        let Some(message) = connection.sends.pop() else { return };
        connection.sending = true;
        connection.sent = 0;
        self.send_portion(ring, index, message);
    }

    fn send_portion(&mut self, ring: &mut Ring, index: u32, message: Message) {
        let connection = &mut self.connections[to_index(index)];
        assert!(connection.sending);
        assert!(!connection.closing);
        let rest = message.size() - connection.sent;
        let part = Part { offset: connection.sent, length: rest.min(PORTION_LENGTH) };
        let stream = connection.stream.as_ref().expect("an open connection has a stream");
        ring.send(stream.as_fd(), index, message, part);
    }

    /// A peer has taken bytes, or an error.
    ///
    /// # Panics
    ///
    /// If nothing was being sent to it.
    pub fn on_sent(
        &mut self,
        ring: &mut Ring,
        index: u32,
        message: Message,
        result: Result<u32, i32>,
    ) {
        let tick = self.tick;
        let connection = &mut self.connections[to_index(index)];
        assert!(connection.sending);
        if connection.closing {
            connection.sending = false;
            self.note_sends_gone(1);
            self.close_finish(index);
            return;
        }
        let Ok(count) = result else {
            connection.sending = false;
            self.note_sends_gone(1);
            self.close_index(index);
            return;
        };
        connection.sent_tick = tick;
        connection.sent += count;
        if connection.sent < message.size() {
            self.send_portion(ring, index, message);
            return;
        }
        drop(message);
        connection.sending = false;
        if connection.place == Place::WaitsForSends && connection.sends_count() < SENDS_PAUSE {
            connection.place = Place::Ready;
            connection.received_tick = tick;
            self.ready.push(index);
        }
        self.counters.sent += 1;
        self.note_sends_gone(1);
        self.send_next(ring, index);
    }

    fn note_sends_gone(&mut self, count: usize) {
        let count = u32::try_from(count).expect("the queues are short");
        assert!(count <= self.sends_total);
        self.sends_total -= count;
    }

    /// Closes a connection, if it is still the one it was.
    pub fn close(&mut self, id: ConnectionId) {
        if self.is_open(id) {
            self.close_index(id.index);
        }
    }

    /// Begins to close: what is in flight ends by itself now.
    fn close_index(&mut self, index: u32) {
        let connection = &mut self.connections[to_index(index)];
        assert!(!connection.closing);
        connection.closing = true;
        let stream = connection.stream.as_ref().expect("an open connection has a stream");
        // An error means that the connection is gone already.
        let _ = stream.shutdown(Shutdown::Both);
        let unsent = connection.sends.len();
        connection.sends.clear();
        self.note_sends_gone(unsent);
        match self.connections[to_index(index)].place {
            Place::WaitsForBuffer { .. } => self.leave_waiting(index),
            Place::WaitsForSends => self.connections[to_index(index)].place = Place::Away,
            // It is met in the queue.
            Place::Ready | Place::Away => {}
        }
        self.close_finish(index);
    }

    /// Closes the descriptor, once nothing refers to it any more.
    fn close_finish(&mut self, index: u32) {
        let connection = &mut self.connections[to_index(index)];
        assert!(connection.closing);
        if connection.receiving || connection.sending || connection.place != Place::Away {
            return;
        }
        connection.stream = None;
        connection.generation = connection.generation.wrapping_add(1);
        self.large_frames -= u32::from(connection.receiver.holds_buffer());
        connection.receiver.reset();
        connection.closing = false;
        self.free.push(index);
    }

    /// Every 10 ms: disconnects peers that do not go on, and accepts again after an error.
    ///
    /// # Panics
    ///
    /// If the bookkeeping of connections is broken.
    pub fn tick(&mut self, ring: &mut Ring) {
        self.tick += 1;
        if !self.accept_in_flight && !self.stopping {
            self.start(ring);
        }
        if !self.tick.is_multiple_of(SCAN_TICKS) {
            return;
        }
        for index in 0..u32::try_from(self.connections.len()).expect("made from 32 bits") {
            let connection = &self.connections[to_index(index)];
            if connection.stream.is_none() || connection.closing {
                continue;
            }
            let pressed = self.waiting_count > 0 && connection.receiver.holds_buffer();
            let limit = if pressed { STALL_TICKS_PRESSED } else { STALL_TICKS };
            let receive_stalled = connection.receiving
                && connection.receiver.is_partial()
                && self.tick - connection.received_tick > limit;
            let send_stalled = connection.sending && self.tick - connection.sent_tick > STALL_TICKS;
            if receive_stalled || send_stalled {
                self.counters.stalled += 1;
                self.close_index(index);
            }
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, places) = (self.connections_open(), self.connections.len());
        write!(formatter, "Bus({}, {open} of {places} connections)", self.address)
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
