//! Tests of the bus with real sockets on loopback.

use super::*;
use crate::io::address::resolve;
use crate::io::allocator::tests::allocations_of_thread;
use crate::io::framing::tests::{CLUSTER, frame, reseal};
use crate::io::ring::{Completion, Watch};
use crate::protocol::MESSAGE_SIZE_MAX;
use std::io::{Read, Write};
use zerocopy::IntoBytes;

/// A bus with its ring, and what it received.
struct World {
    bus: Bus,
    ring: Ring,
    pool: Pool,
    inbox: Vec<(ConnectionId, Message)>,
    /// Sends every message back where it came from.
    echo: bool,
}

impl World {
    /// A bus of a cluster of one.
    fn new(clients_max: u32, messages: u32, pool_reserve: u32) -> World {
        World::of_cluster(clients_max, messages, pool_reserve, &[])
    }

    /// A bus of replica 0 in a cluster with others at these addresses.
    fn of_cluster(
        clients_max: u32,
        messages: u32,
        pool_reserve: u32,
        others: &[SocketAddr],
    ) -> World {
        let pool = Pool::new("messages", messages, MESSAGE_SIZE_MAX);
        let options = BusOptions {
            addresses: [&[resolve("127.0.0.1:0").unwrap()], others]
                .concat()
                .into_iter()
                .map(Into::into)
                .collect(),
            replica: 0,
            clients_max,
            cluster: CLUSTER,
            pool_reserve,
            pool_reserve_replica: 0,
            large_frames_max: 3,
            sends_total_max: 32,
            hello: None,
        };
        let mut bus = Bus::new(&options, pool.clone()).unwrap();
        let others = u32::try_from(others.len()).unwrap();
        let mut ring = Ring::new(Bus::operations_max(clients_max, others)).unwrap();
        bus.start(&mut ring);
        World { bus, ring, pool, inbox: Vec::with_capacity(256), echo: false }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.bus.address()).unwrap()
    }

    fn step(&mut self) {
        self.ring.wait(1_000_000).unwrap();
        while let Some(completion) = self.ring.next_completion() {
            match completion {
                Completion::Accepted(result) => self.bus.on_accepted(&mut self.ring, result),
                Completion::Received { connection, buffer, result } => {
                    self.bus.on_received(connection, buffer, result);
                }
                Completion::Sent { connection, message, result } => {
                    self.bus.on_sent(&mut self.ring, connection, message, result);
                }
                Completion::Connected { replica, result } => {
                    self.bus.peers.on_connected(&mut self.ring, replica, result);
                }
                Completion::BatchSent { replica, batch, result } => {
                    self.bus.peers.on_sent(&mut self.ring, replica, batch, result);
                }
                Completion::Readable(Watch::Replica(replica)) => {
                    self.bus.peers.on_readable(&mut self.ring, replica);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        while let Some((id, message)) = self.bus.next_message(&mut self.ring) {
            if self.echo {
                self.bus.send(&mut self.ring, id, message);
            } else {
                self.inbox.push((id, message));
            }
        }
    }

    fn run_until(&mut self, what: &str, condition: impl Fn(&World) -> bool) {
        for _ in 0..20_000 {
            if condition(self) {
                return;
            }
            self.step();
        }
        panic!("never happened: {what}; {:?} {:?}", self.bus, self.bus.counters());
    }

    fn ticks(&mut self, count: u64) {
        for _ in 0..count {
            self.bus.tick(&mut self.ring);
        }
    }
}

/// Whether the stream is at its end, by close or reset.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Goal: several frames in one write, small and of full size, come out in order and go back.
#[test]
fn pipelined_echo() {
    let mut world = World::new(4, 8, 1);
    world.echo = true;
    let mut peer = world.connect();
    let parts = [
        frame(5, CLUSTER, 300, 1),
        frame(5, CLUSTER, MESSAGE_SIZE_MAX, 2),
        frame(3, CLUSTER, 256, 0),
        frame(5, CLUSTER, 70_000, 3),
    ];
    let bytes = parts.concat();
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || {
        peer.write_all(&bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        peer.read_exact(&mut back).unwrap();
        back
    });
    world.run_until("the echo", |world| world.bus.counters().sent == 4);
    assert!(writer.join().unwrap() == expected);
    world.run_until("the close", |world| world.bus.connections_open() == 0);
    assert_eq!(world.pool.available(), 8);
    assert_eq!(world.bus.sends_pending(), 0);
}

/// Goal: a frame that drips byte by byte arrives, while another peer is served.
#[test]
fn dripping_peer_blocks_nobody() {
    let mut world = World::new(4, 2, 0);
    let mut slow = world.connect();
    let mut fast = world.connect();
    slow.set_nodelay(true).unwrap();
    let bytes = frame(5, CLUSTER, 280, 1);
    for (index, byte) in bytes.iter().enumerate() {
        slow.write_all(&[*byte]).unwrap();
        if index % 40 == 0 {
            fast.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
            world.run_until("the fast one", |world| !world.inbox.is_empty());
            let (_, message) = world.inbox.pop().unwrap();
            assert_eq!(message.size(), 256);
        }
    }
    world.run_until("the slow one", |world| !world.inbox.is_empty());
    assert_eq!(world.inbox[0].1.bytes(), bytes);
}

/// Goal: garbage, damaged frames and foreign clusters are disconnected; others stay.
#[test]
fn bad_peers_are_closed() {
    let mut world = World::new(8, 2, 0);
    let mut good = world.connect();
    let mut damaged = frame(5, CLUSTER, 9_000, 1);
    damaged[8_000] ^= 1;
    let bad = [vec![0xab; 256], frame(99, CLUSTER, 256, 0), frame(5, CLUSTER + 1, 256, 0), damaged];
    for (bytes, count) in bad.iter().zip(1..) {
        let mut peer = world.connect();
        peer.write_all(bytes).unwrap();
        world.run_until("the close", |world| world.bus.counters().broken == count);
        assert!(is_closed(&mut peer));
    }
    good.write_all(&frame(5, CLUSTER, 300, 1)).unwrap();
    world.run_until("the good one", |world| world.inbox.len() == 1);
    world.inbox.clear();
    assert_eq!(world.pool.available(), 2);
}

/// Goal: a hello of an impossible cluster is damage, and not the set-up of a replica.
#[test]
fn hellos_that_are_not_valid() {
    let mut world = World::of_cluster(3, 32, 0, &["127.0.0.1:1".parse().unwrap()]);
    let own = Hello {
        cluster: CLUSTER,
        replica: 0,
        expected: 0,
        replica_count: 2,
        nodes: 2,
        message_size_max: 0,
        instance: 1,
        listen: [0; 18],
    };
    world.bus.hello = Some(own);
    let other = Hello { replica: 1, ..own };
    let zeros = Hello { replica: 0, replica_count: 0, nodes: 0, instance: 0, ..own };
    for (hello, broken) in [(other, 0), (zeros, 1)] {
        let mut peer = world.connect();
        peer.write_all(hello.header().as_bytes()).unwrap();
        world.run_until("the hello", |world| world.inbox.len() == 1);
        let (id, message) = world.inbox.pop().unwrap();
        world.bus.on_hello(id, message.header());
        assert_eq!(world.bus.counters().broken, broken);
        if broken == 1 {
            world.run_until("the close", |world| !world.bus.is_open(id));
            assert!(is_closed(&mut peer));
        }
    }
    let text = FrameError::Hello.to_string();
    assert_eq!(text, "a hello that is not valid");
}

/// Goal: one connection above the limit is closed at once, and its place is free again later.
#[test]
fn too_many_connections() {
    let mut world = World::new(80, 2, 0);
    let mut peers: Vec<TcpStream> = Vec::new();
    for count in 1..=80 {
        peers.push(world.connect());
        world.run_until("accepted", |world| world.bus.connections_open() == count);
    }
    let mut extra = world.connect();
    world.run_until("refused", |world| world.bus.counters().refused == 1);
    assert!(is_closed(&mut extra));
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
        world.run_until("served", |world| world.inbox.len() == 1);
        let (id, _) = world.inbox.pop().unwrap();
        assert_eq!(usize::try_from(id.index).unwrap(), index);
    }
    drop(peers.pop());
    world.run_until("left", |world| world.bus.connections_open() == 79);
    let mut late = world.connect();
    late.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
    world.run_until("let in", |world| world.inbox.len() == 1);
    assert_eq!(world.inbox[0].0, ConnectionId { index: 79, generation: 1 });
}

/// Goal: a message for a connection that is gone, or for its successor's place, goes nowhere.
#[test]
fn stale_identity() {
    let mut world = World::new(1, 4, 0);
    let mut first = world.connect();
    first.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
    world.run_until("first", |world| world.inbox.len() == 1);
    drop(first);
    world.run_until("closed", |world| world.bus.connections_open() == 0);
    let mut second = world.connect();
    second.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
    world.run_until("second", |world| world.inbox.len() == 2);
    let (new, _) = world.inbox.pop().unwrap();
    let (old, message) = world.inbox.pop().unwrap();
    assert_eq!(old.index, new.index);
    assert!(!world.bus.is_open(old));
    world.bus.close(old);
    world.bus.send(&mut world.ring, old, message.clone());
    assert_eq!(world.bus.sends_pending(), 0);
    world.bus.send(&mut world.ring, new, message);
    world.run_until("sent", |world| world.bus.counters().sent == 1);
    let mut bytes = [0; 256];
    second.read_exact(&mut bytes).unwrap();
    world.bus.close(new);
    world.run_until("closed", |world| world.bus.connections_open() == 0);
    assert!(is_closed(&mut second));
}

/// Goal: a peer that takes no replies is read from no more, then disconnected, while another is
/// served all the time; no message is lost to the pool.
#[test]
fn slow_reader() {
    let mut world = World::new(2, 32, 1);
    world.echo = true;
    let slow = world.connect();
    let mut writing = slow.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let large = frame(5, CLUSTER, MESSAGE_SIZE_MAX, 2);
        while writing.write_all(&large).is_ok() {}
    });
    let paused = |world: &World| world.bus.connections[0].place == Place::WaitsForSends;
    world.run_until("the pause", paused);
    let mut fast = world.connect();
    for count in 0..5 {
        fast.write_all(&frame(5, CLUSTER, 300, count)).unwrap();
        let mut back = [0; 300];
        let sent = world.bus.counters().sent;
        world.run_until("served", |world| world.bus.counters().sent > sent);
        fast.read_exact(&mut back).unwrap();
        assert_eq!(back[299], count);
    }
    world.ticks(STALL_TICKS + SCAN_TICKS + 1);
    assert_eq!(world.bus.counters().stalled, 1);
    world.run_until("disconnected", |world| world.bus.connections_open() == 1);
    writer.join().unwrap();
    drop(slow);
    assert_eq!(world.pool.available(), 32);
}

/// Goal: replies beyond the queue of a peer, or beyond the total, disconnect who does not take
/// them.
#[test]
fn send_overflow() {
    let mut world = World::new(2, 64, 0);
    let mut peer = world.connect();
    peer.write_all(&frame(5, CLUSTER, MESSAGE_SIZE_MAX, 1)).unwrap();
    world.run_until("received", |world| world.inbox.len() == 1);
    let (id, message) = world.inbox.pop().unwrap();
    // One is in flight, the others wait.
    for _ in 0..=SENDS_MAX {
        world.bus.send(&mut world.ring, id, message.clone());
        assert!(world.bus.is_open(id));
    }
    world.bus.send(&mut world.ring, id, message.clone());
    assert!(!world.bus.is_open(id));
    assert_eq!(world.bus.counters().stalled, 1);
    world.run_until("closed", |world| world.bus.connections_open() == 0);
    assert_eq!(world.bus.sends_pending(), 0);
    world.bus.sends_total_max = 3;
    let mut peers = [world.connect(), world.connect()];
    for peer in &mut peers {
        peer.write_all(&frame(5, CLUSTER, 256, 1)).unwrap();
    }
    world.run_until("received", |world| world.inbox.len() == 2);
    let (second, _) = world.inbox.pop().unwrap();
    let (first, _) = world.inbox.pop().unwrap();
    for _ in 0..3 {
        world.bus.send(&mut world.ring, first, message.clone());
    }
    world.ticks(1);
    world.bus.send(&mut world.ring, second, message.clone());
    assert!(!world.bus.is_open(first));
    assert!(world.bus.is_open(second));
}

/// Goal: peers that stop inside a header, a small frame or a large one are disconnected after the
/// stall time, an idle peer is not, and a large one goes sooner when others wait for memory.
#[test]
fn stalled_senders() {
    let mut world = World::new(8, 2, 1);
    let idle = world.connect();
    let small = frame(5, CLUSTER, 4_000, 1);
    let large = frame(5, CLUSTER, 500_000, 1);
    let mut peers = Vec::new();
    for bytes in [&small[..100], &small[..3_000], &large[..400_000]] {
        let mut peer = world.connect();
        peer.write_all(bytes).unwrap();
        peers.push(peer);
    }
    world.run_until("arrived", |world| {
        world.bus.connections.iter().filter(|place| place.receiver.is_partial()).count() == 3
            && world.pool.available() == 1
    });
    for _ in 0..20 {
        world.step();
    }
    let mut waiting = world.connect();
    waiting.write_all(&small).unwrap();
    world.run_until("waiting", |world| world.bus.waiting_count == 1);
    world.ticks(STALL_TICKS_PRESSED + SCAN_TICKS + 1);
    assert_eq!(world.bus.counters().stalled, 1);
    world.run_until("the waiting one", |world| world.inbox.len() == 1);
    assert!(is_closed(&mut peers[2]));
    world.ticks(STALL_TICKS);
    assert_eq!(world.bus.counters().stalled, 3);
    world.run_until("two are left", |world| world.bus.connections_open() == 2);
    drop(idle);
}

/// Goal: no more large frames arrive at a time than may; the others wait their turn, small frames
/// pass, and in the end all arrive.
#[test]
fn large_frames_in_turn() {
    let mut world = World::new(8, 16, 0);
    let large = frame(5, CLUSTER, 150_000, 1);
    let mut peers: Vec<TcpStream> = (0..5).map(|_| world.connect()).collect();
    for peer in &mut peers {
        peer.write_all(&large[..100_000]).unwrap();
    }
    world.run_until("two wait", |world| world.bus.waiting_count == 2);
    assert_eq!(world.bus.large_frames, 3);
    assert_eq!(world.pool.available(), 13);
    let mut other = world.connect();
    other.write_all(&frame(5, CLUSTER, 300, 1)).unwrap();
    world.run_until("the small one", |world| world.inbox.len() == 1);
    for peer in &mut peers {
        peer.write_all(&large[100_000..]).unwrap();
    }
    world.run_until("all", |world| world.inbox.len() == 6);
    assert!(world.inbox[1..].iter().all(|(_, message)| message.bytes() == large));
    assert_eq!(world.bus.large_frames, 0);
}

/// Goal: once warm, receiving and sending allocate nothing.
#[test]
fn no_allocation() {
    let mut world = World::new(2, 8, 1);
    world.echo = true;
    let mut peer = world.connect();
    let bytes = [frame(5, CLUSTER, 300, 1), frame(5, CLUSTER, 200_000, 2)].concat();
    let mut back = vec![0; bytes.len()];
    let mut before = 0;
    for round in 0..5 {
        if round == 1 {
            before = allocations_of_thread();
        }
        peer.write_all(&bytes).unwrap();
        let sent = world.bus.counters().sent;
        world.run_until("the echo", |world| world.bus.counters().sent == sent + 2);
        peer.read_exact(&mut back).unwrap();
        assert!(back == bytes);
    }
    let mut foreign = world.connect();
    foreign.write_all(&vec_free_frame()).unwrap();
    world.run_until("the complaint", |world| world.bus.counters().broken == 1);
    assert_eq!(allocations_of_thread(), before);
}

/// A damaged header without a vector.
fn vec_free_frame() -> [u8; 256] {
    [7; 256]
}

/// Numbers that look random, always the same ones.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Goal: whatever mixture of good frames, garbage, pieces, and disconnections at any moment comes
/// from many peers, every buffer and every place is free in the end and the bus still serves.
#[test]
fn chaos() {
    let mut world = World::new(6, 6, 1);
    world.echo = true;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut peers: Vec<TcpStream> = Vec::new();
    for _ in 0..1_500 {
        let choice = numbers.below(10);
        if peers.len() < 9 && choice < 3 {
            let peer = world.connect();
            peer.set_nonblocking(true).unwrap();
            peers.push(peer);
        } else if !peers.is_empty() {
            let index =
                usize::try_from(numbers.below(u64::try_from(peers.len()).unwrap())).unwrap();
            let size = [256, 300, 5_000, 70_000, 300_000][usize::try_from(choice % 5).unwrap()];
            let mut bytes = frame(5, CLUSTER, size, u8::try_from(choice).unwrap());
            if numbers.below(8) == 0 {
                let place = usize::try_from(numbers.below(u64::from(size))).unwrap();
                bytes[place] ^= 1;
            }
            let length = usize::try_from(numbers.below(u64::from(size)) + 1).unwrap();
            let whole = numbers.below(3) > 0;
            // Errors and short writes belong to the chaos.
            let _ = peers[index].write(if whole { &bytes } else { &bytes[..length] });
            let _ = peers[index].read(&mut [0; 4096]);
            if numbers.below(6) == 0 {
                drop(peers.swap_remove(index));
            }
        }
        world.step();
    }
    peers.clear();
    world.run_until("all gone", |world| world.bus.connections_open() == 0);
    assert_eq!(world.pool.available(), 6);
    assert_eq!(world.bus.sends_pending(), 0);
    assert_eq!(world.bus.waiting_count, 0);
    assert_eq!(world.bus.large_frames, 0);
    assert!(world.bus.ready.is_empty());
    let counters = world.bus.counters();
    assert!(counters.received > 100 && counters.broken > 10, "{counters:?}");
    let mut peer = world.connect();
    peer.write_all(&frame(5, CLUSTER, 300, 1)).unwrap();
    let sent = counters.sent;
    world.run_until("served", |world| world.bus.counters().sent > sent);
}

/// Goal: a stopped bus accepts and reads nothing more.
#[test]
fn stop() {
    let mut world = World::new(4, 4, 0);
    let mut peer = world.connect();
    world.run_until("accepted", |world| world.bus.connections_open() == 1);
    world.bus.stop();
    let mut late = world.connect();
    peer.write_all(&frame(5, CLUSTER, 256, 1)).unwrap();
    for _ in 0..20 {
        world.step();
    }
    assert!(is_closed(&mut late));
    assert!(world.inbox.is_empty());
    assert_eq!(world.bus.connections_open(), 1);
}

/// Goal: a port in use is refused with a hint.
#[test]
fn port_in_use() {
    let world = World::new(1, 1, 0);
    let options = BusOptions {
        addresses: vec![world.bus.address().into()],
        replica: 0,
        clients_max: 1,
        cluster: 0,
        pool_reserve: 0,
        pool_reserve_replica: 0,
        large_frames_max: 1,
        sends_total_max: 1,
        hello: None,
    };
    let error = Bus::new(&options, world.pool.clone()).unwrap_err().to_string();
    assert!(error.contains("another process uses that port"), "{error}");
}

/// A frame of replica 1.
fn replica_frame(command: u8, size: u32) -> Vec<u8> {
    let mut bytes = frame(command, CLUSTER, size, 1);
    bytes[115] = 1;
    reseal(&mut bytes);
    bytes
}

/// Goal: a connection of a replica is none of the clients', who can take all their places and no
/// more; nothing is sent on it and the core cannot close it.
#[test]
fn replicas_have_places_of_their_own() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::of_cluster(3, 32, 0, &[address]);
    let mut clients: Vec<TcpStream> = Vec::new();
    for count in 1..=3 {
        let mut client = world.connect();
        client.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
        world.run_until("served", |world| world.inbox.len() == count);
        clients.push(client);
    }
    let mut extra = world.connect();
    extra.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
    world.run_until("refused", |world| world.bus.counters().refused == 1);
    assert!(is_closed(&mut extra));
    world.inbox.clear();
    let mut replicas: Vec<TcpStream> = Vec::new();
    for count in 1..=11 {
        let mut replica = world.connect();
        let command = if count % 2 == 0 { Command::Ping } else { Command::Prepare };
        replica.write_all(&replica_frame(command.into(), 256)).unwrap();
        world.run_until("heard", |world| world.inbox.len() == count);
        replicas.push(replica);
    }
    let mut more = world.connect();
    world.run_until("refused", |world| world.bus.counters().refused == 2);
    assert!(is_closed(&mut more));
    let (id, message) = world.inbox.pop().unwrap();
    world.bus.close(id);
    world.bus.send(&mut world.ring, id, message);
    assert!(world.bus.is_open(id));
    assert_eq!(world.bus.sends_pending(), 0);
    drop(clients.pop());
    world.run_until("left", |world| world.bus.connections_open() == 13);
    assert_eq!(world.bus.clients, 2);
    drop(replicas);
    world.run_until("left", |world| world.bus.connections_open() == 2);
}

/// Goal: a replica that first hands on a request of a client is known as one with its next frame.
#[test]
fn replica_that_begins_like_a_client() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::of_cluster(1, 8, 0, &[address]);
    let mut replica = world.connect();
    replica.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
    world.run_until("heard", |world| world.bus.clients == 1);
    replica.write_all(&replica_frame(Command::Ping.into(), 256)).unwrap();
    world.run_until("known", |world| world.bus.clients == 0);
    replica.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
    world.run_until("heard", |world| world.inbox.len() == 3);
    assert_eq!(world.bus.clients, 0);
}

/// Goal: when connections that say nothing have taken all places, one of them makes way.
#[test]
fn silence_makes_way() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::of_cluster(1, 8, 0, &[address]);
    let mut silent: Vec<TcpStream> = Vec::new();
    for count in 1..=12 {
        silent.push(world.connect());
        world.run_until("accepted", |world| world.bus.connections_open() == count);
    }
    let mut early = world.connect();
    world.run_until("refused", |world| world.bus.counters().refused == 1);
    assert!(is_closed(&mut early));
    assert_eq!(world.bus.counters().stalled, 0);
    world.bus.tick += SILENT_TICKS;
    let mut second = world.connect();
    world.run_until("a place", |world| world.bus.counters().stalled == 1);
    assert!(is_closed(&mut second));
    world.run_until("a free place", |world| world.bus.connections_open() == 11);
    let mut replica = world.connect();
    replica.write_all(&replica_frame(Command::Ping.into(), 256)).unwrap();
    world.run_until("heard", |world| world.inbox.len() == 1);
}

/// Goal: clients that take all memory they may, and all large frames, leave replicas theirs.
#[test]
fn replicas_have_memory_of_their_own() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::of_cluster(8, 8, 2, &[address]);
    let large = frame(5, CLUSTER, 200_000, 1);
    let mut clients: Vec<TcpStream> = (0..5).map(|_| world.connect()).collect();
    for client in &mut clients {
        client.write_all(&large[..100_000]).unwrap();
    }
    world.run_until("two wait", |world| world.bus.waiting_count == 2);
    let mut small = world.connect();
    for count in 1..=3 {
        small.write_all(&frame(5, CLUSTER, 300, 1)).unwrap();
        world.run_until("taken", |world| world.inbox.len() == count);
    }
    small.write_all(&frame(5, CLUSTER, 300, 1)).unwrap();
    world.run_until("three wait", |world| world.bus.waiting_count == 3);
    assert_eq!(world.pool.available(), 2);
    let mut replica = world.connect();
    replica.write_all(&replica_frame(Command::Ping.into(), 256)).unwrap();
    world.run_until("the ping", |world| world.inbox.len() == 4);
    replica.write_all(&replica_frame(Command::Prepare.into(), 200_000)).unwrap();
    world.run_until("the prepare", |world| world.inbox.len() == 5);
    assert_eq!(world.inbox[4].1.size(), 200_000);
    assert_eq!(world.pool.available(), 0);
    replica.write_all(&replica_frame(Command::Ping.into(), 256)).unwrap();
    world.run_until("four wait", |world| world.bus.waiting_count == 4);
    world.inbox.pop();
    world.run_until("the last", |world| world.inbox.len() == 5);
    assert_eq!(world.bus.waiting_count, 3);
}

/// Goal: two processes of one replica are seen, also if one of them has a list of another length.
#[test]
fn twin_with_another_list() {
    let others: Vec<TcpListener> =
        (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<SocketAddr> = others.iter().map(|it| it.local_addr().unwrap()).collect();
    let mut world = World::of_cluster(4, 8, 1, &addresses);
    let own = Hello {
        cluster: CLUSTER,
        replica: 0,
        expected: 0,
        replica_count: 3,
        nodes: 3,
        message_size_max: MESSAGE_SIZE_MAX,
        instance: 1,
        listen: [0; 18],
    };
    world.bus.hello = Some(own);
    let mut peers = Vec::new();
    for (instance, nodes) in [(5, 3), (6, 4)] {
        let hello = Hello { replica: 1, instance, nodes, ..own };
        let mut peer = world.connect();
        peer.write_all(zerocopy::IntoBytes::as_bytes(&hello.header())).unwrap();
        peers.push(peer);
        world.run_until("hello", |world| !world.inbox.is_empty());
        let (id, message) = world.inbox.pop().unwrap();
        world.bus.on_hello(id, message.header());
        assert!(world.bus.is_open(id));
    }
    assert!(!world.bus.has_twins(1));
    world.ticks(SCAN_TICKS);
    assert!(world.bus.has_twins(1));
}

/// Runs two worlds until something is true of them.
fn run_both(
    what: &str,
    [left, right]: [&mut World; 2],
    condition: impl Fn(&World, &World) -> bool,
) {
    for _ in 0..20_000 {
        if condition(left, right) {
            return;
        }
        left.step();
        right.step();
    }
    panic!("never happened: {what}");
}

/// Goal: two buses that know each other talk in both directions, and when one dies the other
/// notices and finds its successor.
#[test]
fn two_buses() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut left = World::of_cluster(2, 8, 0, &[address]);
    for _ in 0..2 {
        let mut right = World::of_cluster(2, 8, 0, &[left.bus.address()]);
        let listen_on = [left.bus.address(), address];
        right.bus = Bus::new(
            &BusOptions {
                addresses: listen_on.iter().map(|it| (*it).into()).collect(),
                replica: 1,
                clients_max: 2,
                cluster: CLUSTER,
                pool_reserve: 0,
                pool_reserve_replica: 0,
                large_frames_max: 3,
                sends_total_max: 32,
                hello: None,
            },
            right.pool.clone(),
        )
        .unwrap();
        right.ring = Ring::new(Bus::operations_max(2, 1)).unwrap();
        right.bus.start(&mut right.ring);
        left.ticks(100);
        right.ticks(1);
        run_both("open", [&mut left, &mut right], |left, right| {
            left.bus.peers.is_open(1) && right.bus.peers.is_open(0)
        });
        for size in [256, 100_000] {
            for (world, to) in [(&mut left, 1), (&mut right, 0)] {
                let mut buffer = world.pool.acquire();
                buffer.bytes_mut()[..to_index(size)].copy_from_slice(&replica_frame(1, size));
                world.bus.peers.send(&mut world.ring, to, Message(buffer));
            }
        }
        run_both("heard", [&mut left, &mut right], |left, right| {
            left.inbox.len() == 2 && right.inbox.len() == 2
        });
        left.inbox.clear();
        left.ticks(100);
        drop(right);
        left.run_until("lost", |world| !world.bus.peers.is_open(1));
        assert_eq!(left.bus.peers.next_lost(), Some(1));
    }
}
