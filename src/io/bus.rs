//! The message bus: a listening socket, its connections, and messages in and out of them.
//!
//! Bounds hold everywhere: connections (one too many is accepted and closed at once), messages
//! queued for a peer (a peer that does not take them is disconnected), messages queued in total,
//! messages taken for frames that are still arriving. A peer that stops in the middle of a frame,
//! or stops reading, is disconnected after some seconds; no other peer waits for it. While a peer
//! leaves replies unread, nothing more is read from it. All structures are made at start.
//!
//! In a cluster, other replicas connect to us like clients and only send; what we have to say to
//! them goes through [`Peers`]. A connection shows by its frames which kind it is. Clients never
//! take the places or the memory that replicas need, nothing is sent on a replica's connection,
//! and the core cannot close it. Not covered: what a message means.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use super::about::{ProcessFacts, SetupMismatch, check_hello};
use super::address::ReplicaAddress;
use super::complaint::Complaint;
use super::framing::{Allowance, FrameError, Receiver, Rules, Step};
use super::peers::Peers;
use super::ring::{Part, Ring};
use super::socket::{expect_no_congestion, listen};
use super::twins::{Process, Sightings, address_bytes};
use crate::protocol::about::Hello;
use crate::protocol::{
    Buffer, Command, HEADER_SIZE, Header, Message, NODES_MAX, Pool, SECTOR_SIZE, to_index,
};
use crate::storage::Queue;
use crate::vsr::ConnectionId;

/// Messages that may wait for one peer.
const SENDS_MAX: usize = 16;
/// Messages waiting for a peer while nothing is read from it.
const SENDS_PAUSE: usize = 4;
/// A message is sent in portions of this size, to see that there is progress.
const PORTION_LENGTH: u32 = 256 * 1024;
/// A peer without progress for this many ticks of 10 ms, while there must be some, is disconnected.
const STALL_TICKS: u64 = 3_000;
/// The same while others wait for the memory it holds.
const STALL_TICKS_PRESSED: u64 = 200;
/// Silence, in ticks, after which a connection makes way for a replica.
const SILENT_TICKS: u64 = 50;
/// Stalls are looked for this often, in ticks.
const SCAN_TICKS: u64 = 100;

/// The bus cannot listen.
#[derive(Debug)]
pub struct BusError {
    /// The address.
    pub address: SocketAddr,
    /// What the system answered.
    pub error: io::Error,
}

impl BusError {
    /// Whether the machine's limit of open files is the cause, and not the address.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self.error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BusError { address, error } = self;
        // Not frozen: it listens at the start.
        write!(formatter, "cannot listen on {address}: {error}; ")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(formatter, "another process uses that port: stop it or choose another port")
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(formatter, "this machine has no such address")
            }
            io::ErrorKind::PermissionDenied => {
                write!(formatter, "ports below 1024 need privileges: choose a higher one")
            }
            _ if self.is_limit() => {
                write!(formatter, "raise the limit of open files (ulimit -n, LimitNOFILE=)")
            }
            _ => write!(formatter, "see the kernel's log for more"),
        }
    }
}

impl std::error::Error for BusError {}

/// What the bus needs to know.
#[derive(Clone, Debug)]
pub struct BusOptions {
    /// Addresses of all replicas and standbys, in order. Port zero for our own lets the system
    /// choose.
    pub addresses: Vec<ReplicaAddress>,
    /// Which of them we are, and listen on.
    pub replica: u8,
    /// Connections of clients at a time.
    pub clients_max: u32,
    /// Our cluster.
    pub cluster: u128,
    /// Messages of the pool that are always left to the replica and to what other replicas send.
    pub pool_reserve: u32,
    /// Those of them that are left to the replica alone.
    pub pool_reserve_replica: u32,
    /// Maximum frames larger than [`RECEIVE_SIZE`] arriving from clients at a time. The bus holds
    /// one message of the pool for each, besides those it was given to send.
    pub large_frames_max: u32,
    /// Messages that may wait for all clients together.
    pub sends_total_max: u32,
    /// What we say to other replicas first, and expect of them; `expected` and `listen` do not
    /// count.
    pub hello: Option<Hello>,
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

/// Kind of the peer, as far as its frames have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Client,
    Replica,
}

impl Kind {
    /// What a frame of this command says about its sender; in doubt nothing.
    fn of(command: u8) -> Kind {
        match Command::try_from(command) {
            Ok(Command::Request | Command::PingClient | Command::RequestStatus) => Kind::Client,
            Ok(Command::Reply | Command::Eviction | Command::PongClient | Command::Status)
            | Err(_) => Kind::Unknown,
            Ok(_) => Kind::Replica,
        }
    }
}

/// One place for a connection.
#[derive(Debug)]
struct Connection {
    /// Counts the connections that had this place.
    generation: u32,
    stream: Option<TcpStream>,
    closing: bool,
    kind: Kind,
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
    /// When the message in flight was handed over, by the monotonic clock in nanoseconds.
    sent_since_ns: u64,
    /// The process at the other end, if it is a replica's and has introduced itself.
    process: Option<Process>,
}

impl Connection {
    fn sends_count(&self) -> usize {
        self.sends.len() + usize::from(self.sending)
    }

    /// Whether it holds a message for a large frame that counts against the clients' limit.
    fn holds_large(&self) -> bool {
        self.kind != Kind::Replica && self.receiver.holds_buffer()
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
    /// Connections closed because the peer stopped in the middle of a frame, or did not read its
    /// replies.
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
    replica: u8,
    rules: Rules,
    pool_reserve: u32,
    pool_reserve_replica: u32,
    /// Connections that we opened, to other replicas.
    pub peers: Peers,
    connections: Box<[Connection]>,
    /// Places without a connection.
    free: Vec<u32>,
    /// Connections with received bytes to look at.
    ready: Queue<u32>,
    /// Connections that wait for a message of the pool.
    waiting_count: u32,
    /// Where to look for the next of them.
    waiting_cursor: u32,
    clients: u32,
    clients_max: u32,
    /// Large frames that are arriving from clients.
    large_frames: u32,
    large_frames_max: u32,
    sends_total: u32,
    sends_total_max: u32,
    accept_in_flight: bool,
    stopping: bool,
    tick: u64,
    /// The time by the monotonic clock, as set last.
    now_ns: u64,
    complaint_cluster: Complaint,
    complaint_other: Complaint,
    complaint_setup: Complaint,
    complaint_order: Complaint,
    hello: Option<Hello>,
    sightings: Sightings,
    counters: BusCounters,
}

/// Places for connections that other replicas open.
const CONNECTIONS_OF_REPLICAS: u32 = NODES_MAX as u32 - 1;

/// Size of the small receive buffer of each connection in bytes: frames up to it do not hold a
/// message of the pool while they arrive.
pub const RECEIVE_SIZE: u32 = 64 * 1024;

/// Returns empty places for connections.
fn connections_make(places: u32, receive_size: u32) -> Box<[Connection]> {
    let small = Pool::new("receive", places, receive_size);
    let connection = |_| Connection {
        generation: 0,
        stream: None,
        closing: false,
        kind: Kind::Unknown,
        place: Place::Away,
        receiver: Receiver::new(small.acquire()),
        receiving: false,
        received_tick: 0,
        sends: Queue::new(SENDS_MAX),
        sending: false,
        sent: 0,
        sent_tick: 0,
        sent_since_ns: 0,
        process: None,
    };
    (0..places).map(connection).collect()
}

/// Makes what is said first to each other replica.
fn prepare_hellos(peers: &mut Peers, hello: Hello) {
    if peers.count() == 0 {
        return;
    }
    let pool = Pool::new("hello", peers.count(), SECTOR_SIZE);
    for replica in (0..hello.nodes).filter(|replica| *replica != hello.replica) {
        let mut message = Message(pool.acquire());
        *message.header_mut() = Hello { expected: replica, ..hello }.header();
        assert!(message.size() == HEADER_SIZE);
        peers.set_hello(replica, message);
    }
}

impl Bus {
    /// Listens. Messages are received into buffers of `pool`.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    ///
    /// # Panics
    ///
    /// If the options allow no connection or no sending, we are none of the replicas, or our own
    /// address is not known.
    pub fn new(options: &BusOptions, pool: Pool) -> Result<Bus, BusError> {
        assert!(options.clients_max > 0);
        assert!(options.large_frames_max > 0);
        assert!(options.sends_total_max > 0);
        assert!(options.pool_reserve_replica <= options.pool_reserve);
        let own = options.addresses[usize::from(options.replica)].known();
        let listen_on = own.expect("our own address was looked up");
        let failure = |error| BusError { address: listen_on, error };
        let listener = listen(listen_on).map_err(failure)?;
        let address = listener.local_addr().map_err(failure)?;
        let mut peers = Peers::new(options.replica, &options.addresses);
        // What distinguishes this process from another one of the same index.
        let listen = address_bytes(address);
        let hello = options.hello.map(|hello| Hello { listen, ..hello });
        if let Some(hello) = hello {
            prepare_hellos(&mut peers, hello);
        }
        let places = Bus::places(options.clients_max, peers.count());
        Ok(Bus {
            listener,
            address,
            replica: options.replica,
            connections: connections_make(places, RECEIVE_SIZE.min(pool.size())),
            rules: Rules { cluster: options.cluster, pool },
            pool_reserve: options.pool_reserve,
            pool_reserve_replica: options.pool_reserve_replica,
            peers,
            free: (0..places).rev().collect(),
            ready: Queue::new(to_index(places)),
            waiting_count: 0,
            waiting_cursor: 0,
            clients: 0,
            clients_max: options.clients_max,
            large_frames: 0,
            large_frames_max: options.large_frames_max,
            sends_total: 0,
            sends_total_max: options.sends_total_max,
            accept_in_flight: false,
            stopping: false,
            tick: 0,
            now_ns: 0,
            complaint_cluster: Complaint::default(),
            complaint_other: Complaint::default(),
            complaint_setup: Complaint::default(),
            complaint_order: Complaint::default(),
            hello,
            sightings: Sightings::new(),
            counters: BusCounters::default(),
        })
    }

    /// Connections that may be open at a time, beside those that we open: clients, and in a
    /// cluster as many replicas as there can be, since an old connection may outlast its replica.
    const fn places(clients_max: u32, others: u32) -> u32 {
        if others == 0 { clients_max } else { clients_max + CONNECTIONS_OF_REPLICAS }
    }

    /// Maximum operations of the bus in flight in the ring, for these clients and other replicas.
    #[must_use]
    pub const fn operations_max(clients_max: u32, others: u32) -> u32 {
        1 + 2 * Bus::places(clients_max, others) + Peers::operations_max(others)
    }

    /// Maximum descriptors of the bus: connections, the listener, a connection that is refused.
    #[must_use]
    pub const fn descriptors_max(clients_max: u32, others: u32) -> u32 {
        Bus::places(clients_max, others) + others + 2
    }

    /// Bytes of the receive buffers, beside the pool.
    #[must_use]
    pub fn memory_bytes(clients_max: u32, others: u32) -> u64 {
        Pool::memory_bytes(Bus::places(clients_max, others), RECEIVE_SIZE)
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

    /// Where messages are received into.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.rules.pool
    }

    /// Which replica we are.
    #[must_use]
    pub fn replica(&self) -> u8 {
        self.replica
    }

    /// Places for connections of clients.
    #[must_use]
    pub fn clients_max(&self) -> u32 {
        self.clients_max
    }

    /// Places for connections.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections.len()
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

    /// From now on no connection is accepted or made and nothing more is read; replies still go
    /// out.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.peers.stop();
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
                // The text of the error itself would need memory.
                let kind = io::Error::from_raw_os_error(errno).kind();
                self.complaint_other
                    .write(self.tick, format_args!("cannot accept a connection: {kind} ({errno})"));
            }
        }
    }

    fn open(&mut self, ring: &mut Ring, stream: TcpStream) {
        let Some(index) = self.free.pop() else {
            self.counters.refused += 1;
            drop(stream);
            self.make_way();
            return;
        };
        self.counters.accepted += 1;
        if let Ok(peer) = stream.peer_addr() {
            expect_no_congestion(stream.as_fd(), peer.ip());
        }
        let tick = self.tick;
        let connection = &mut self.connections[to_index(index)];
        assert!(connection.stream.is_none());
        assert!(connection.place == Place::Away);
        assert!(connection.sends_count() == 0);
        connection.stream = Some(stream);
        connection.closing = false;
        connection.kind = Kind::Unknown;
        connection.received_tick = tick;
        connection.sent_tick = tick;
        self.receive(ring, index);
    }

    /// All places are taken. If one of them is by a peer that says nothing, it has to go: a replica
    /// may want to connect, and will try again.
    fn make_way(&mut self) {
        if self.peers.count() == 0 {
            return;
        }
        let silent = self.connections.iter().zip(0_u32..).filter(|(connection, _)| {
            connection.kind == Kind::Unknown
                && !connection.closing
                && self.tick - connection.received_tick >= SILENT_TICKS
        });
        if let Some((_, index)) = silent.min_by_key(|(connection, _)| connection.received_tick) {
            self.counters.stalled += 1;
            self.close_index(index);
        }
    }

    /// Notes what a frame shows about its sender; whether it may stay.
    fn identify(&mut self, ring: &mut Ring, index: u32, message: &Message) -> bool {
        let connection = &mut self.connections[to_index(index)];
        let frame = &message.header().frame;
        let kind = Kind::of(frame.command);
        if connection.kind == Kind::Replica || kind == Kind::Unknown || kind == connection.kind {
            return true;
        }
        if self.peers.count() == 0 {
            return true;
        }
        if kind == Kind::Client {
            connection.kind = Kind::Client;
            self.clients += 1;
            return self.clients <= self.clients_max;
        }
        self.clients -= u32::from(connection.kind == Kind::Client);
        connection.kind = Kind::Replica;
        // A prepare carries the index of the replica that made it, not of the sender.
        if frame.command != u8::from(Command::Prepare) {
            self.peers.heard_from(ring, frame.replica);
        }
        true
    }

    /// What a connection may take from the pool.
    fn allowance(&self, connection: &Connection) -> Allowance {
        if connection.kind == Kind::Replica {
            return Allowance { reserve: self.pool_reserve_replica, large: true };
        }
        let large = connection.receiver.holds_buffer() || self.large_frames < self.large_frames_max;
        // In a cluster the first frame of a connection may be a replica's.
        let unknown = connection.kind == Kind::Unknown && self.peers.count() > 0;
        let reserve = if unknown { self.pool_reserve_replica } else { self.pool_reserve };
        Allowance { reserve, large }
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
            let allowance = self.allowance(&self.connections[to_index(index)]);
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
            let held = connection.holds_large();
            let step = connection.receiver.next(&self.rules, allowance);
            self.large_frames += u32::from(connection.holds_large());
            self.large_frames -= u32::from(held);
            match step {
                Step::Message(message) => {
                    connection.place = Place::Ready;
                    self.ready.push(index);
                    let generation = connection.generation;
                    if !self.identify(ring, index, &message) {
                        self.counters.refused += 1;
                        self.close_index(index);
                        continue;
                    }
                    self.counters.received += 1;
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

    /// Takes what a replica says first. Logs if it was set up differently, and closes the
    /// connection unless only its list is of another length, as while a standby is being added.
    pub fn on_hello(&mut self, id: ConnectionId, header: &Header) {
        let Some(own) = self.hello.filter(|_| self.is_open(id)) else { return };
        let Some(hello) = Hello::from_header(header) else {
            self.complain(id.index, FrameError::Hello);
            self.counters.broken += 1;
            self.close_index(id.index);
            return;
        };
        let peer = self.peer_address(id);
        let process = Process::of(&hello, peer.ip());
        // Of a replica that listens everywhere, the address that others use is not known.
        let placed = process.filter(|process| address_bytes(process.address) == hello.listen);
        let Err(mismatch) = check_hello(&hello, &own) else {
            self.connections[to_index(id.index)].process = process;
            if let Some(placed) = placed {
                self.check_order(placed);
            }
            return;
        };
        if let (SetupMismatch::Twin { .. }, Some(process)) = (mismatch, process) {
            let (replica, instance, address) = (own.replica, own.instance, self.address);
            self.sightings.note(self.tick, Process { replica, instance, address }, process);
        }
        if let (SetupMismatch::Index { .. }, Some(placed)) = (mismatch, placed) {
            self.check_order(placed);
        }
        if matches!(mismatch, SetupMismatch::Nodes { .. }) {
            self.connections[to_index(id.index)].process = process;
            self.complaint_setup
                .write(self.tick, format_args!("a connection from {}: {mismatch}", peer.ip()));
            return;
        }
        self.complaint_setup
            .write(self.tick, format_args!("closed a connection from {}: {mismatch}", peer.ip()));
        self.counters.broken += 1;
        self.close_index(id.index);
    }

    /// Logs that our own list has another replica at the address where this one listens. The others
    /// only see that we expect the wrong replica at their addresses.
    fn check_order(&mut self, process: Process) {
        let Process { replica, address, .. } = process;
        let Some(listed) = self.peers.replica_at(address).filter(|it| *it != replica) else {
            return;
        };
        let (right, listed) = (replica + 1, listed + 1);
        self.complaint_order.write(
            self.tick,
            format_args!(
                "replica {replica} listens on {address}, which is entry {listed} of --addresses \
                 here and must be entry {right}: start every server with the same list, in the \
                 order of the replicas"
            ),
        );
    }

    /// Where a connection comes from; all zero if that is not known.
    #[must_use]
    pub fn peer_address(&self, id: ConnectionId) -> SocketAddr {
        let stream = self.connections[to_index(id.index)].stream.as_ref();
        let peer = stream.filter(|_| self.is_open(id)).and_then(|it| it.peer_addr().ok());
        peer.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// What this process knows about itself and others beside the replica.
    #[must_use]
    pub fn process_facts(&self) -> ProcessFacts {
        let instance = self.hello.map_or(0, |hello| hello.instance);
        ProcessFacts { instance, twins: self.sightings.first(self.tick) }
    }

    /// Whether two processes of a replica were heard lately.
    #[must_use]
    pub fn has_twins(&self, replica: u8) -> bool {
        self.sightings.of(replica, self.tick).is_some()
    }

    /// Connections that other replicas have opened.
    #[must_use]
    pub fn inbound(&self) -> usize {
        let replicas = self.connections.iter().filter(|it| it.kind == Kind::Replica && !it.closing);
        replicas.count()
    }

    /// Looks for two processes of one replica among those that were heard since the last scan.
    fn look_for_twins(&mut self) {
        let heard = |connection: &&Connection| {
            let lately = self.tick - connection.received_tick <= SCAN_TICKS;
            connection.process.is_some() && !connection.closing && lately
        };
        for (place, one) in self.connections.iter().enumerate() {
            let Some(process) = Some(one).filter(heard).and_then(|it| it.process) else { continue };
            let others = self.connections[place + 1..].iter().filter(heard);
            let mut others = others.filter_map(|other| other.process);
            let twin = others.find(|other| {
                other.replica == process.replica && other.instance != process.instance
            });
            if let Some(twin) = twin {
                self.sightings.note(self.tick, process, twin);
            }
        }
    }

    /// Takes a buffer for a small answer, unless all are reserved for more important messages.
    #[must_use]
    pub fn spare_buffer(&self) -> Option<Buffer> {
        let spare = self.rules.has_buffer(self.pool_reserve);
        if spare { self.rules.pool.try_acquire() } else { None }
    }

    /// Our cluster.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.rules.cluster
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
        if self.waiting_count == 0 || !self.rules.has_buffer(self.pool_reserve_replica) {
            return None;
        }
        for _ in 0..self.connections.len() {
            let index = self.waiting_cursor;
            let next = to_index(index) + 1;
            self.waiting_cursor = if next == self.connections.len() { 0 } else { index + 1 };
            let connection = &self.connections[to_index(index)];
            if let Place::WaitsForBuffer { large } = connection.place {
                let allowance = self.allowance(connection);
                if self.rules.has_buffer(allowance.reserve) && (allowance.large || !large) {
                    return Some(index);
                }
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

    fn complain(&mut self, index: u32, fault: FrameError) {
        let stream = self.connections[to_index(index)].stream.as_ref();
        let peer = stream.and_then(|stream| stream.peer_addr().ok());
        let peer = peer.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        if let FrameError::Cluster(cluster) = fault {
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
                .write(self.tick, format_args!("closed the connection of {peer}: it sent {fault}"));
        }
    }

    /// Queues a message for a client. If it is gone the message is dropped, and so is one for a
    /// replica's connection; if it leaves too much untaken it is disconnected.
    ///
    /// # Panics
    ///
    /// If the message is malformed.
    pub fn send(&mut self, ring: &mut Ring, id: ConnectionId, message: Message) {
        assert!(to_index(message.size()) == message.bytes().len());
        if !self.is_open(id) || self.connections[to_index(id.index)].kind == Kind::Replica {
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
        connection.sent_since_ns = self.now_ns;
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

    /// Sets the time, by the monotonic clock in nanoseconds.
    pub fn set_now(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// A peer has taken bytes, or an error. If it has taken a whole message, since when that was
    /// being sent, by the time that was set.
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
    ) -> Option<u64> {
        let tick = self.tick;
        let connection = &mut self.connections[to_index(index)];
        assert!(connection.sending);
        if connection.closing {
            connection.sending = false;
            self.note_sends_gone(1);
            self.close_finish(index);
            return None;
        }
        let Ok(count) = result else {
            connection.sending = false;
            self.note_sends_gone(1);
            self.close_index(index);
            return None;
        };
        connection.sent_tick = tick;
        connection.sent += count;
        if connection.sent < message.size() {
            self.send_portion(ring, index, message);
            return None;
        }
        drop(message);
        connection.sending = false;
        let since_ns = connection.sent_since_ns;
        if connection.place == Place::WaitsForSends && connection.sends_count() < SENDS_PAUSE {
            connection.place = Place::Ready;
            connection.received_tick = tick;
            self.ready.push(index);
        }
        self.counters.sent += 1;
        self.note_sends_gone(1);
        self.send_next(ring, index);
        Some(since_ns)
    }

    fn note_sends_gone(&mut self, count: usize) {
        let count = u32::try_from(count).expect("the queues are short");
        assert!(count <= self.sends_total);
        self.sends_total -= count;
    }

    /// Closes a connection, if it is still the one it was and not a replica's. A request that a
    /// replica has forwarded may be invalid; that is the client's fault, not the replica's.
    pub fn close(&mut self, id: ConnectionId) {
        if self.is_open(id) && self.connections[to_index(id.index)].kind != Kind::Replica {
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
        self.large_frames -= u32::from(connection.holds_large());
        self.clients -= u32::from(connection.kind == Kind::Client);
        connection.kind = Kind::Unknown;
        connection.process = None;
        connection.receiver.reset();
        connection.closing = false;
        self.free.push(index);
    }

    /// Every 10 ms: disconnects stalled peers, accepts again after an error, and maintains the
    /// connections to other replicas.
    ///
    /// # Panics
    ///
    /// If the bookkeeping of connections is broken.
    pub fn tick(&mut self, ring: &mut Ring) {
        self.tick += 1;
        if !self.accept_in_flight && !self.stopping {
            self.start(ring);
        }
        self.peers.tick(ring);
        if !self.tick.is_multiple_of(SCAN_TICKS) {
            return;
        }
        if self.peers.count() > 0 {
            self.look_for_twins();
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
