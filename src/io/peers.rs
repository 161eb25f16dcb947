//! The connections that we open to the other replicas, and on which we only send.
//!
//! Every replica dials every other one; what it has to say goes out there, and what others say
//! arrives on connections that they opened, see [`bus`](super::bus). A connection that breaks or is
//! refused shows that the other replica is gone: the core learns it at once. Messages wait in a
//! short queue for each replica; beyond that they are dropped, since the protocol repeats
//! everything, and no slow replica holds up another. All that waits leaves with one system call.
//! A replica given by its name is looked up again whenever it cannot be reached, by a thread of its
//! own ([`resolver`](super::resolver)). Not covered: receiving, what a message means.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;

use super::address::ReplicaAddress;
use super::batch::{BATCH_MESSAGES_MAX, Batch};
use super::complaint::Complaint;
use super::log::info;
use super::resolver::{Addresses, HostName, Lookup, Resolver};
use super::ring::{Ring, Watch};
use super::socket::{SocketName, dialer, discard};
use crate::protocol::{Message, NODES_MAX, to_index};
use crate::storage::Queue;

/// Messages that may wait for one replica, those in flight included.
pub const SENDS_MAX: u32 = 12;
/// Ticks of 10 ms after which a replica that reads nothing is given up and dialed again.
const STALL_TICKS: u64 = 500;
/// First pause after a failed attempt, in ticks; doubles.
const PAUSE_TICKS_MIN: u64 = 2;
/// Longest pause between attempts, in ticks.
const PAUSE_TICKS_MAX: u64 = 50;
/// First pause between two look-ups of a name, in ticks; doubles.
const LOOKUP_TICKS_MIN: u64 = 100;
/// Longest pause between them.
const LOOKUP_TICKS_MAX: u64 = 1_000;
/// Ticks after which a connection counts as good: when it ends, the replica is dialed at once.
const GOOD_TICKS: u64 = 100;

/// How the connection to one replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// That is us: there is none.
    Ourselves,
    /// The next attempt is made at this tick.
    Waiting { until_tick: u64 },
    /// An attempt is in flight.
    Connecting,
    /// Messages go out; since this tick.
    Open { since_tick: u64 },
    /// What is in flight ends by itself now. It was open since this tick.
    Closing { since_tick: u64 },
}

/// One other replica.
#[derive(Debug)]
struct Peer {
    /// As the operator wrote it.
    written: ReplicaAddress,
    /// Where it is dialed; `None` while its name has no address.
    address: Option<SocketAddr>,
    /// Its name may be looked up again at this tick.
    lookup_tick: u64,
    /// Look-ups since it was reached last.
    lookups: u32,
    state: State,
    stream: Option<TcpStream>,
    queue: Queue<Message>,
    /// What is said first on a new connection, if anything.
    hello: Option<Message>,
    /// Away while it is in flight.
    batch: Option<Box<Batch>>,
    /// Messages of the batch in flight.
    in_flight: usize,
    /// The kernel reports the end of the connection.
    watched: bool,
    /// Attempts that failed, or connections that did not last, one after the other.
    failures: u32,
    /// Tick of the last bytes taken.
    sent_tick: u64,
    /// The core is to hear that it was lost.
    lost: bool,
    /// It was logged that the replica cannot be reached.
    reported: bool,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Connections made.
    pub connected: u64,
    /// Attempts that failed.
    pub refused: u64,
    /// Connections that broke.
    pub lost: u64,
    /// Connections given up because nothing was taken.
    pub stalled: u64,
    /// Messages dropped: there was no connection, or too much waited.
    pub dropped: u64,
    /// Messages sent completely.
    pub sent: u64,
    /// System calls that sent something.
    pub batches: u64,
}

/// Connections to all other replicas. See the module.
pub struct Peers {
    places: Box<[Peer]>,
    stopping: bool,
    tick: u64,
    /// Looks up names, if there are any.
    resolver: Option<Resolver>,
    complaint: Complaint,
    counters: PeerCounters,
}

impl Peers {
    /// Those of replica `own` in a cluster whose replicas have these addresses, in order. Names
    /// are looked up after [`Peers::start_resolver`].
    ///
    /// # Panics
    ///
    /// If `own` is not one of them, or they are too many.
    #[must_use]
    pub fn new(own: u8, addresses: &[ReplicaAddress]) -> Peers {
        assert!(usize::from(own) < addresses.len());
        assert!(addresses.len() <= usize::from(NODES_MAX));
        let peer = |(index, address): (usize, &ReplicaAddress)| Peer {
            written: address.clone(),
            address: address.known(),
            lookup_tick: 0,
            lookups: 0,
            state: if index == usize::from(own) {
                State::Ourselves
            } else {
                State::Waiting { until_tick: 0 }
            },
            stream: None,
            // One more for what is said first.
            queue: Queue::new(to_index(SENDS_MAX) + 1),
            hello: None,
            batch: Some(Box::new(Batch::new())),
            in_flight: 0,
            watched: false,
            failures: 0,
            sent_tick: 0,
            lost: false,
            reported: false,
        };
        Peers {
            places: addresses.iter().enumerate().map(peer).collect(),
            stopping: false,
            tick: 0,
            resolver: None,
            complaint: Complaint::default(),
            counters: PeerCounters::default(),
        }
    }

    /// Starts the thread that looks up the names of other replicas, if any has one. The caller has
    /// blocked the signals that end the process: a new thread inherits its mask.
    ///
    /// # Errors
    ///
    /// If the system refuses the thread.
    pub fn start_resolver(&mut self, lookup: Lookup) -> io::Result<()> {
        let others = |peer: &Peer| peer.state != State::Ourselves;
        let name = |peer: &Peer| peer.written.name().filter(|_| others(peer)).cloned();
        // Not frozen: this is the start.
        let names: Box<[Option<HostName>]> = self.places.iter().map(name).collect();
        if names.iter().any(Option::is_some) {
            self.resolver = Some(Resolver::new(names, lookup)?);
        }
        Ok(())
    }

    /// Says this first on each new connection to a replica.
    ///
    /// # Panics
    ///
    /// If there is no such replica.
    pub fn set_hello(&mut self, replica: u8, hello: Message) {
        let peer = &mut self.places[usize::from(replica)];
        assert!(peer.state != State::Ourselves, "a replica does not greet itself");
        peer.hello = Some(hello);
    }

    /// Maximum operations in flight in the ring, for `count` other replicas.
    #[must_use]
    pub const fn operations_max(count: u32) -> u32 {
        2 * count
    }

    /// Maximum messages of the pool that wait for `count` other replicas.
    #[must_use]
    pub const fn messages_max(count: u32) -> u32 {
        SENDS_MAX * count
    }

    /// Other replicas.
    ///
    /// # Panics
    ///
    /// Never: there are few.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.places.len() - 1).expect("there are few replicas")
    }

    /// See [`PeerCounters`].
    #[must_use]
    pub fn counters(&self) -> PeerCounters {
        self.counters
    }

    /// Which replica of our list has this address.
    #[must_use]
    pub fn replica_at(&self, address: SocketAddr) -> Option<u8> {
        let index = self.places.iter().position(|peer| peer.address == Some(address))?;
        u8::try_from(index).ok()
    }

    /// Whether messages to this replica go out now.
    #[must_use]
    pub fn is_open(&self, replica: u8) -> bool {
        matches!(self.places[usize::from(replica)].state, State::Open { .. })
    }

    /// From now on no connection is made.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// A replica that was lost since this was asked last.
    ///
    /// # Panics
    ///
    /// Never: there are few replicas.
    pub fn next_lost(&mut self) -> Option<u8> {
        let index = self.places.iter().position(|peer| peer.lost)?;
        self.places[index].lost = false;
        Some(u8::try_from(index).expect("there are few replicas"))
    }

    /// Another replica has dialed us, so it is there: no need to wait longer with our own attempt.
    pub fn heard_from(&mut self, ring: &mut Ring, replica: u8) {
        let known = self.places.get(usize::from(replica));
        if known.is_some_and(|peer| matches!(peer.state, State::Waiting { .. })) {
            self.dial(ring, replica);
        }
    }

    /// Queues a message for a replica and sends it as soon as possible; drops it if there is no
    /// connection or too much waits.
    ///
    /// # Panics
    ///
    /// If the replica is unknown or ourselves, or the message is malformed.
    pub fn send(&mut self, ring: &mut Ring, replica: u8, message: Message) {
        assert!(to_index(message.size()) == message.bytes().len());
        let peer = &mut self.places[usize::from(replica)];
        assert!(peer.state != State::Ourselves, "a replica does not send to itself");
        let connected = matches!(peer.state, State::Open { .. } | State::Connecting);
        if !connected || peer.queue.len() + peer.in_flight >= to_index(SENDS_MAX) {
            self.counters.dropped += 1;
            return;
        }
        peer.queue.push(message);
        self.send_next(ring, replica);
    }

    /// Sends what waits, unless something is in flight.
    fn send_next(&mut self, ring: &mut Ring, replica: u8) {
        let peer = &mut self.places[usize::from(replica)];
        if !matches!(peer.state, State::Open { .. }) {
            return;
        }
        let Some(mut batch) = peer.batch.take() else { return };
        if batch.is_empty() {
            peer.sent_tick = self.tick;
        }
        batch.fill(&mut peer.queue);
        assert!(batch.len() <= BATCH_MESSAGES_MAX);
        if batch.is_empty() {
            peer.batch = Some(batch);
            return;
        }
        peer.in_flight = batch.len();
        let stream = peer.stream.as_ref().expect("an open connection has a stream");
        ring.send_batch(stream.as_fd(), replica, batch);
        self.counters.batches += 1;
    }

    /// A replica has taken bytes, or an error.
    ///
    /// # Panics
    ///
    /// If nothing was being sent to it.
    pub fn on_sent(
        &mut self,
        ring: &mut Ring,
        replica: u8,
        mut batch: Box<Batch>,
        result: Result<u32, i32>,
    ) {
        let tick = self.tick;
        let peer = &mut self.places[usize::from(replica)];
        assert!(peer.batch.is_none());
        peer.in_flight = 0;
        match (peer.state, result) {
            (State::Open { .. }, Ok(count)) => {
                let before = batch.len();
                batch.advance(to_index(count));
                self.counters.sent += u64::try_from(before - batch.len()).expect("64 bits");
                peer.in_flight = batch.len();
                peer.sent_tick = tick;
                peer.batch = Some(batch);
                self.send_next(ring, replica);
            }
            (State::Open { .. }, Err(errno)) => {
                batch.clear();
                peer.batch = Some(batch);
                self.lose(ring, replica, io::Error::from_raw_os_error(errno).kind());
            }
            _ => {
                batch.clear();
                peer.batch = Some(batch);
                self.close_finish(ring, replica);
            }
        }
    }

    /// Starts an attempt to connect.
    fn dial(&mut self, ring: &mut Ring, replica: u8) {
        let peer = &mut self.places[usize::from(replica)];
        assert!(matches!(peer.state, State::Waiting { .. }));
        assert!(peer.stream.is_none());
        assert!(!peer.watched);
        if self.stopping {
            return;
        }
        let Some(address) = peer.address else {
            // Its name has no address: that was said, and it is asked for again.
            self.pause(replica);
            self.ask(replica);
            return;
        };
        match dialer(address) {
            Ok(stream) => {
                ring.connect(stream.as_fd(), replica, SocketName::new(address));
                peer.stream = Some(stream);
                peer.state = State::Connecting;
            }
            // Too many open files, no memory: later.
            Err(error) => self.fail(replica, error.kind()),
        }
    }

    /// An attempt has ended.
    ///
    /// # Panics
    ///
    /// If none was made.
    pub fn on_connected(&mut self, ring: &mut Ring, replica: u8, result: Result<(), i32>) {
        let peer = &mut self.places[usize::from(replica)];
        assert!(peer.state == State::Connecting);
        if let Err(errno) = result {
            self.fail(replica, io::Error::from_raw_os_error(errno).kind());
            return;
        }
        peer.state = State::Open { since_tick: self.tick };
        if let Some(hello) = &peer.hello {
            peer.queue.push(hello.clone());
        }
        self.counters.connected += 1;
        self.watch(ring, replica);
        self.send_next(ring, replica);
    }

    /// An attempt has failed: the next one follows after a pause.
    fn fail(&mut self, replica: u8, kind: io::ErrorKind) {
        let peer = &mut self.places[usize::from(replica)];
        peer.stream = None;
        peer.queue.clear();
        peer.lost = true;
        self.counters.refused += 1;
        self.pause(replica);
        self.ask(replica);
        self.report(replica, kind);
    }

    fn pause(&mut self, replica: u8) {
        let peer = &mut self.places[usize::from(replica)];
        let pause = (PAUSE_TICKS_MIN << peer.failures.min(8)).min(PAUSE_TICKS_MAX);
        peer.failures = peer.failures.saturating_add(1);
        peer.state = State::Waiting { until_tick: self.tick + pause };
    }

    /// Has the name of a replica looked up that could not be reached, unless that was done a
    /// moment ago.
    fn ask(&mut self, replica: u8) {
        let Some(resolver) = &self.resolver else { return };
        let peer = &mut self.places[usize::from(replica)];
        if peer.written.name().is_none() || self.tick < peer.lookup_tick || self.stopping {
            return;
        }
        let pause = (LOOKUP_TICKS_MIN << peer.lookups.min(8)).min(LOOKUP_TICKS_MAX);
        peer.lookup_tick = self.tick + pause;
        peer.lookups = peer.lookups.saturating_add(1);
        resolver.ask(replica);
    }

    /// Drops an answer about a replica that was reached meanwhile: when the connection breaks, it
    /// may be days old.
    fn drop_answer(&self, replica: u8) {
        let has_name = self.places[usize::from(replica)].written.name().is_some();
        if let Some(resolver) = self.resolver.as_ref().filter(|_| has_name) {
            let _ = resolver.take(replica);
        }
    }

    /// Takes the answer about a replica that waits to be dialed, if there is one.
    fn take_address(&mut self, replica: u8) {
        let Some(resolver) = &self.resolver else { return };
        let peer = &self.places[usize::from(replica)];
        if peer.written.name().is_none() || peer.lookups == 0 {
            return;
        }
        // A name without an address was logged at the start; one that had an address keeps it.
        if let Some(Ok(addresses)) = resolver.take(replica) {
            self.move_to(replica, &addresses);
        }
    }

    /// The name of a replica has these addresses now: if the one that failed is gone or there are
    /// others, it is dialed elsewhere, and at once.
    fn move_to(&mut self, replica: u8, addresses: &Addresses) {
        let peer = &mut self.places[usize::from(replica)];
        let next = addresses.after(peer.address);
        if next == peer.address {
            return;
        }
        let before = std::mem::replace(&mut peer.address, next);
        let Some(next) = next else { return };
        peer.state = State::Waiting { until_tick: self.tick };
        let written = &peer.written;
        match before {
            // One of several, tried in turn.
            Some(before) if addresses.as_slice().contains(&before) => {}
            Some(before) => info(format_args!(
                "replica {replica}, {written}, has moved from {} to {}",
                before.ip(),
                next.ip()
            )),
            None => info(format_args!("replica {replica}, {written}, is at {}", next.ip())),
        }
    }

    fn watch(&mut self, ring: &mut Ring, replica: u8) {
        let peer = &mut self.places[usize::from(replica)];
        assert!(!peer.watched);
        let stream = peer.stream.as_ref().expect("an open connection has a stream");
        ring.watch(stream.as_fd(), Watch::Replica(replica));
        peer.watched = true;
    }

    /// Something has arrived where nothing should: usually the end.
    ///
    /// # Panics
    ///
    /// If the connection was not watched.
    pub fn on_readable(&mut self, ring: &mut Ring, replica: u8) {
        let peer = &mut self.places[usize::from(replica)];
        assert!(peer.watched);
        peer.watched = false;
        let stream = peer.stream.as_ref().expect("a watched connection has a stream");
        if matches!(peer.state, State::Closing { .. }) {
            self.close_finish(ring, replica);
            return;
        }
        match discard(stream.as_fd()) {
            Ok(0) => self.lose(ring, replica, io::ErrorKind::ConnectionReset),
            Ok(_) => self.watch(ring, replica),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => self.watch(ring, replica),
                kind => self.lose(ring, replica, kind),
            },
        }
    }

    /// A connection is broken, or given up.
    fn lose(&mut self, ring: &mut Ring, replica: u8, kind: io::ErrorKind) {
        let peer = &mut self.places[usize::from(replica)];
        let State::Open { since_tick } = peer.state else {
            panic!("only an open connection is lost");
        };
        peer.state = State::Closing { since_tick };
        peer.queue.clear();
        peer.lost = true;
        let stream = peer.stream.as_ref().expect("an open connection has a stream");
        // An error means that the connection is gone already.
        let _ = stream.shutdown(Shutdown::Both);
        self.counters.lost += 1;
        self.report(replica, kind);
        self.close_finish(ring, replica);
    }

    /// Closes the descriptor once nothing refers to it any more, and dials again.
    fn close_finish(&mut self, ring: &mut Ring, replica: u8) {
        let peer = &mut self.places[usize::from(replica)];
        let State::Closing { since_tick } = peer.state else {
            panic!("only what is closing is closed");
        };
        let Some(batch) = &mut peer.batch else { return };
        if peer.watched {
            return;
        }
        batch.clear();
        peer.in_flight = 0;
        peer.stream = None;
        if self.tick - since_tick < GOOD_TICKS {
            // Somebody else may have the address by now.
            self.pause(replica);
            self.ask(replica);
            return;
        }
        peer.failures = 0;
        peer.state = State::Waiting { until_tick: self.tick };
        self.dial(ring, replica);
    }

    /// Logs that a replica cannot be reached; not again before it was reached for a while.
    fn report(&mut self, replica: u8, kind: io::ErrorKind) {
        let peer = &mut self.places[usize::from(replica)];
        if peer.reported || self.stopping {
            return;
        }
        // The kind only: the text of the error itself would need memory.
        peer.reported = true;
        let Some(address) = peer.address else { return };
        self.complaint.write(
            self.tick,
            format_args!("no connection to replica {replica} at {address}: {kind}; retrying"),
        );
    }

    /// Every 10 ms, and at the start: dials replicas that are due, and gives up connections on
    /// which nothing is read.
    ///
    /// # Panics
    ///
    /// Never: there are few replicas.
    pub fn tick(&mut self, ring: &mut Ring) {
        self.tick += 1;
        for replica in 0..u8::try_from(self.places.len()).expect("there are few replicas") {
            match self.places[usize::from(replica)].state {
                State::Waiting { .. } => self.take_address(replica),
                State::Open { .. } => self.drop_answer(replica),
                _ => {}
            }
            let peer = &mut self.places[usize::from(replica)];
            match peer.state {
                State::Waiting { until_tick } if self.tick >= until_tick => {
                    self.dial(ring, replica);
                }
                State::Open { .. }
                    if peer.in_flight > 0 && self.tick - peer.sent_tick > STALL_TICKS =>
                {
                    self.counters.stalled += 1;
                    self.lose(ring, replica, io::ErrorKind::TimedOut);
                }
                State::Open { since_tick }
                    if peer.reported && self.tick - since_tick >= GOOD_TICKS =>
                {
                    peer.reported = false;
                    if let Some(address) = peer.address {
                        info(format_args!("connected to replica {replica} at {address}"));
                    }
                }
                State::Open { since_tick } if self.tick - since_tick >= GOOD_TICKS => {
                    peer.lookups = 0;
                }
                _ => {}
            }
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.places.iter().map(|peer| peer.state);
        formatter.debug_list().entries(states).finish()
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
