//! Tests of the connections to other replicas, with real sockets on loopback.

use super::*;
use crate::io::allocator::tests::allocations_of_thread;
use crate::io::framing::tests::{CLUSTER, frame};
use crate::io::resolver::{LookupError, look_up};
use crate::io::ring::Completion;
use crate::io::test_faults::{self, Fault, Kind};
use crate::protocol::{MESSAGE_SIZE_MAX, Pool};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::Read;
use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Mutex;

/// Replica 0 with its ring; the others are sockets of the test.
struct World {
    peers: Peers,
    ring: Ring,
    pool: Pool,
    lost: Vec<u8>,
}

impl World {
    fn new(others: &[SocketAddr]) -> World {
        let others: Vec<_> = others.iter().map(|address| (*address).into()).collect();
        World::with_names(&others, look_up)
    }

    fn with_names(others: &[ReplicaAddress], lookup: Lookup) -> World {
        let own = SocketAddr::from(([127, 0, 0, 1], 1));
        let addresses = [&[own.into()], others].concat();
        let count = u32::try_from(others.len()).unwrap();
        let mut peers = Peers::new(0, &addresses);
        peers.start_resolver(lookup).unwrap();
        World {
            peers,
            ring: Ring::new(Peers::operations_max(count)).unwrap(),
            pool: Pool::new("messages", 32, MESSAGE_SIZE_MAX),
            lost: Vec::with_capacity(1024),
        }
    }

    fn message(&self, size: u32, fill: u8) -> Message {
        let mut buffer = self.pool.acquire();
        buffer.bytes_mut()[..to_index(size)].copy_from_slice(&frame(1, CLUSTER, size, fill));
        Message(buffer)
    }

    fn step(&mut self) {
        self.ring.wait(1_000_000).unwrap();
        while let Some(completion) = self.ring.next_completion() {
            match completion {
                Completion::Connected { replica, result } => {
                    self.peers.on_connected(&mut self.ring, replica, result);
                }
                Completion::BatchSent { replica, batch, result } => {
                    self.peers.on_sent(&mut self.ring, replica, batch, result);
                }
                Completion::Readable(Watch::Replica(replica)) => {
                    self.peers.on_readable(&mut self.ring, replica);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        while let Some(replica) = self.peers.next_lost() {
            self.lost.push(replica);
        }
    }

    fn run_until(&mut self, what: &str, condition: impl Fn(&World) -> bool) {
        for _ in 0..20_000 {
            if condition(self) {
                return;
            }
            self.step();
        }
        panic!("never happened: {what}; {:?} {:?}", self.peers, self.peers.counters());
    }

    fn ticks(&mut self, count: u64) {
        for _ in 0..count {
            self.peers.tick(&mut self.ring);
        }
    }

    /// One tick, then what follows from it at once.
    fn tick_and_settle(&mut self) {
        self.ticks(1);
        let settled = |world: &World| {
            world.peers.places.iter().all(|peer| {
                peer.state != State::Connecting && !matches!(peer.state, State::Closing { .. })
            })
        };
        self.run_until("settled", settled);
        self.step();
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    listener().1
}

/// Goal: messages queued while the connection is made, and after, arrive in order and whole, many
/// small ones with one call; one message is sent to two replicas from the same memory.
#[test]
fn in_order() {
    let (first, first_address) = listener();
    let (second, second_address) = listener();
    let mut world = World::new(&[first_address, second_address]);
    world.ticks(1);
    let sizes = [256, 300, 500_000, 257, 256, 1_000, MESSAGE_SIZE_MAX, 256];
    let mut expected = Vec::new();
    for (size, fill) in sizes.into_iter().zip(1..) {
        let message = world.message(size, fill);
        expected.extend_from_slice(message.bytes());
        world.peers.send(&mut world.ring, 2, message.clone());
        world.peers.send(&mut world.ring, 1, message);
    }
    let length = expected.len();
    let readers = [first, second].map(|listener| {
        std::thread::spawn(move || {
            let mut bytes = vec![0; length];
            listener.accept().unwrap().0.read_exact(&mut bytes).unwrap();
            bytes
        })
    });
    world.run_until("sent", |world| world.peers.counters().sent == 16);
    assert!(world.peers.counters().batches <= 16, "{:?}", world.peers.counters());
    assert_eq!(world.peers.counters().dropped, 0);
    assert_eq!(world.pool.available(), 32);
    for reader in readers {
        assert!(reader.join().unwrap() == expected);
    }
}

/// Goal: who cannot be reached is reported lost with each attempt, which come at once, then after
/// 20 ms, 40, and so on up to half a second; what is sent meanwhile is dropped.
#[test]
fn refused() {
    let mut world = World::new(&[nobody()]);
    let mut attempts = Vec::new();
    for tick in 1..=200 {
        world.tick_and_settle();
        if world.lost.len() > attempts.len() {
            attempts.push(tick);
        }
        let message = world.message(256, 0);
        world.peers.send(&mut world.ring, 1, message);
    }
    assert_eq!(attempts, [1, 3, 7, 15, 31, 63, 113, 163]);
    assert_eq!(world.peers.counters().refused, 8);
    assert_eq!(world.peers.counters().dropped, 200);
    assert_eq!(world.pool.available(), 32);
}

/// Goal: the end of a connection is noticed at once without sending anything; one that lasted is
/// made again at once, one that did not only after a pause.
#[test]
fn broken() {
    let (listener, address) = listener();
    let mut world = World::new(&[address]);
    world.tick_and_settle();
    for round in 1..=3 {
        let (stream, _) = listener.accept().unwrap();
        world.ticks(GOOD_TICKS);
        drop(stream);
        world.run_until("lost", |world| world.lost.len() == round);
        world.run_until("again", |world| world.peers.is_open(1));
    }
    for pause in [2, 4, 8] {
        drop(listener.accept().unwrap());
        let lost = world.lost.len();
        world.run_until("lost", |world| world.lost.len() > lost);
        let until_tick = world.peers.tick + pause;
        assert_eq!(world.peers.places[1].state, State::Waiting { until_tick });
        for _ in 1..pause {
            world.tick_and_settle();
            assert!(!world.peers.is_open(1));
        }
        world.tick_and_settle();
        assert!(world.peers.is_open(1));
    }
    assert_eq!(world.peers.counters().connected, 7);
}

/// What the names of tests mean, by the port that belongs to them.
static NAMES: Mutex<BTreeMap<u16, Vec<SocketAddr>>> = Mutex::new(BTreeMap::new());

fn names(port: u16, addresses: &[SocketAddr]) {
    NAMES.lock().unwrap().insert(port, addresses.to_vec());
}

fn look_up_in_test(_host: &CStr, port: u16) -> Result<Addresses, LookupError> {
    let mut found = Addresses::new();
    NAMES.lock().unwrap()[&port].iter().for_each(|address| found.add(*address));
    if found.as_slice().is_empty() { Err(LookupError(libc::EAI_NONAME)) } else { Ok(found) }
}

impl World {
    /// Ticks until there is a connection to replica 1, which takes real time: a look-up is another
    /// thread's.
    fn connect_by_name(&mut self) {
        for _ in 0..20_000 {
            self.tick_and_settle();
            if self.peers.is_open(1) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("never connected: {:?}", self.peers);
    }
}

/// Goal: a replica that moves is found under its name, also when somebody else has its old address
/// and hangs up; one whose name has no address at first is found when it has one; nothing is
/// allocated.
#[test]
fn moves() {
    let (first, first_address) = listener();
    let replica = ReplicaAddress::named("replica-1.test", 1, None);
    names(1, &[]);
    let mut world = World::with_names(&[replica], look_up_in_test);
    let before = allocations_of_thread();
    for _ in 0..50 {
        world.tick_and_settle();
    }
    assert_eq!(allocations_of_thread(), before);
    assert_eq!(world.peers.counters().refused, 0, "there is nothing to dial");
    names(1, &[first_address]);
    world.connect_by_name();
    assert_eq!(world.peers.places[1].address, Some(first_address));
    let (second, second_address) = listener();
    names(1, &[second_address]);
    drop(first);
    world.run_until("lost", |world| world.lost.len() == 1);
    world.connect_by_name();
    assert_eq!(world.peers.places[1].address, Some(second_address));
    // The name moves on, and a stranger has the address: each connection to it ends at once.
    let (_third, third_address) = listener();
    names(1, &[third_address]);
    let stranger = std::thread::spawn(move || while second.accept().is_ok_and(|_| true) {});
    for _ in 0..20_000 {
        world.tick_and_settle();
        if world.peers.places[1].address == Some(third_address) && world.peers.is_open(1) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(world.peers.places[1].address, Some(third_address));
    drop(stranger);
}

/// Goal: an answer that arrives while the replica is connected is not used when it is lost.
#[test]
fn stale_answer() {
    let (listener, address) = listener();
    let replica = ReplicaAddress::named("replica-1.test", 3, Some(address));
    names(3, &[nobody()]);
    let mut world = World::with_names(&[replica], look_up_in_test);
    world.tick_and_settle();
    assert!(world.peers.is_open(1));
    world.peers.resolver.as_ref().unwrap().ask(1);
    let mut waits = 0;
    while world.peers.resolver.as_ref().unwrap().has_question(1) {
        assert!(waits < 20_000, "the answer stays");
        waits += 1;
        world.ticks(1);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    names(3, &[address]);
    drop(listener.accept().unwrap());
    world.run_until("lost", |world| world.lost.len() == 1);
    world.connect_by_name();
    assert_eq!(world.peers.places[1].address, Some(address));
    assert_eq!(world.peers.counters().refused, 0, "the old answer was not dialed");
}

/// Goal: of a name with several addresses each is tried, and it is asked for seldom.
#[test]
fn several_addresses() {
    let (_listener, address) = listener();
    let dead = [nobody(), nobody()];
    let replica = ReplicaAddress::named("replica-1.test", 2, Some(dead[0]));
    names(2, &[dead[0], dead[1], address]);
    let mut world = World::with_names(&[replica], look_up_in_test);
    world.connect_by_name();
    assert_eq!(world.peers.places[1].address, Some(address));
    assert!(world.peers.places[1].lookups <= 6, "{}", world.peers.places[1].lookups);
}

/// Goal: whatever the kernel answers to an attempt or a send, the replica is dialed again, and
/// nothing is allocated.
#[test]
fn completions_fail() {
    let (listener, address) = listener();
    let reader = std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Each connection says with its first byte whether it is the last one.
            let mut first = [0];
            if stream.read(&mut first).is_ok_and(|count| count == 1) && first == [255] {
                return;
            }
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    let errors = [
        (Kind::Connect, libc::ECONNREFUSED),
        (Kind::Connect, libc::ETIMEDOUT),
        (Kind::Connect, libc::ENETUNREACH),
        (Kind::Connect, libc::EHOSTUNREACH),
        (Kind::Connect, libc::EADDRNOTAVAIL),
        (Kind::Connect, libc::EAFNOSUPPORT),
        (Kind::Connect, libc::EPERM),
        (Kind::Connect, libc::EINTR),
        (Kind::Connect, libc::EAGAIN),
        (Kind::Connect, libc::ENOMEM),
        (Kind::SendBatch, libc::EPIPE),
        (Kind::SendBatch, libc::ECONNRESET),
        (Kind::SendBatch, libc::ETIMEDOUT),
        (Kind::SendBatch, libc::ENOBUFS),
        (Kind::SendBatch, libc::ENOMEM),
        (Kind::SendBatch, libc::EAGAIN),
        (Kind::SendBatch, libc::EINTR),
    ];
    for (kind, errno) in errors {
        let mut world = World::new(&[address]);
        world.ticks(1);
        let message = world.message(300, 7);
        let before = allocations_of_thread();
        test_faults::set(Fault { kind, errno, skip: 0, times: 1 });
        for _ in 0..20_000 {
            world.tick_and_settle();
            world.peers.send(&mut world.ring, 1, message.clone());
            if test_faults::is_over() && world.peers.is_open(1) {
                break;
            }
        }
        assert!(test_faults::is_over() && world.peers.is_open(1), "{kind:?} {errno}");
        assert_eq!(allocations_of_thread(), before, "{kind:?} {errno}");
    }
    std::net::TcpStream::connect(address).unwrap().write_all(&[255]).unwrap();
    reader.join().unwrap();
}

/// Goal: somebody who dials us is dialed back without waiting.
#[test]
fn heard_from() {
    let address = nobody();
    let mut world = World::new(&[address]);
    for _ in 0..100 {
        world.tick_and_settle();
    }
    let listener = TcpListener::bind(address).unwrap();
    for nonsense in [0, 2, 255] {
        world.peers.heard_from(&mut world.ring, nonsense);
    }
    assert!(matches!(world.peers.places[1].state, State::Waiting { .. }));
    world.peers.heard_from(&mut world.ring, 1);
    world.peers.heard_from(&mut world.ring, 1);
    let message = world.message(300, 7);
    world.peers.send(&mut world.ring, 1, message);
    world.run_until("sent", |world| world.peers.counters().sent == 1);
    let mut bytes = [0; 300];
    listener.accept().unwrap().0.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[299], 7);
}

/// Goal: a replica that takes nothing gets no more than its queue, holds up nobody else, is not
/// disconnected for some seconds, and then is dialed again; no message is lost to the pool.
#[test]
fn stopped_replica() {
    let (stopped, stopped_address) = listener();
    let (running, running_address) = listener();
    let mut world = World::new(&[stopped_address, running_address]);
    world.tick_and_settle();
    let large = world.message(MESSAGE_SIZE_MAX, 3);
    for _ in 0..40 {
        world.peers.send(&mut world.ring, 1, large.clone());
        world.step();
    }
    assert!(world.peers.counters().dropped > 10);
    let peer = &world.peers.places[1];
    assert!(peer.queue.len() + peer.in_flight == to_index(SENDS_MAX));
    let mut reader = running.accept().unwrap().0;
    for fill in 0..20 {
        let sent = world.peers.counters().sent;
        let message = world.message(300, fill);
        world.peers.send(&mut world.ring, 2, message);
        world.run_until("the other", |world| world.peers.counters().sent > sent);
        let mut bytes = [0; 300];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes[299], fill);
    }
    world.ticks(STALL_TICKS);
    assert!(world.peers.is_open(1) && world.lost.is_empty());
    world.ticks(1);
    world.run_until("lost", |world| world.lost == [1]);
    world.run_until("again", |world| world.peers.is_open(1));
    assert_eq!(world.peers.counters().stalled, 1);
    drop(large);
    assert_eq!(world.pool.available(), 32);
    drop(stopped);
}

/// Goal: what a replica says where it should only listen is thrown away.
#[test]
fn chatter() {
    let (listener, address) = listener();
    let mut world = World::new(&[address]);
    world.tick_and_settle();
    let mut stream = listener.accept().unwrap().0;
    stream.write_all(&vec![5; 100_000]).unwrap();
    for fill in 0..50 {
        let message = world.message(256, fill);
        let sent = world.peers.counters().sent;
        world.peers.send(&mut world.ring, 1, message);
        world.run_until("sent", |world| world.peers.counters().sent > sent);
    }
    assert!(world.lost.is_empty());
    assert!(world.peers.is_open(1));
}

/// Goal: after a stop nobody is dialed.
#[test]
fn stop() {
    let (_listener, address) = listener();
    let mut world = World::new(&[address]);
    world.peers.stop();
    world.ticks(200);
    assert_eq!(world.ring.in_flight(), 0);
    assert!(!world.peers.is_open(1));
}

/// Goal: connecting, sending, losing and connecting again allocate nothing.
#[test]
fn no_allocation() {
    let (listener, address) = listener();
    let mut world = World::new(&[address, nobody()]);
    let messages: Vec<Message> =
        [256, 70_000].into_iter().map(|size| world.message(size, 1)).collect();
    let mut bytes = vec![0; 70_256];
    let before = allocations_of_thread();
    for round in 0..3 {
        world.ticks(3 * GOOD_TICKS);
        world.run_until("open", |world| world.peers.is_open(1));
        for message in &messages {
            world.peers.send(&mut world.ring, 1, message.clone());
        }
        let sent = 2 * (round + 1);
        let mut stream = listener.accept().unwrap().0;
        world.run_until("sent", |world| world.peers.counters().sent == sent);
        stream.read_exact(&mut bytes).unwrap();
        drop(stream);
        world.run_until("lost", |world| world.peers.counters().lost == round + 1);
    }
    assert_eq!(allocations_of_thread(), before);
    assert_eq!(world.pool.available(), 30);
}

/// Goal: we are not dialed ourselves.
#[test]
fn our_place_is_none_to_send_to() {
    let world = World::new(&[nobody()]);
    assert_eq!(world.peers.count(), 1);
    assert_eq!(world.peers.places[0].state, State::Ourselves);
    assert!(!world.peers.is_open(0));
}
