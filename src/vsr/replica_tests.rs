//! The replica on a disk that loses power and rots, with clients that check every promise.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::test_machine::{AREA_SIZE, TestMachine, next_hash};
use super::*;
use crate::protocol::{
    Command, EvictionReason, Message, Operation, Pool, Release, RequestHeader, to_index,
};
use crate::simulator::disk::MemoryDisk;
use crate::storage::{Config, Zone, Zones};

const CLUSTER: u128 = 77;

fn options() -> ReplicaOptions {
    ReplicaOptions {
        cluster: CLUSTER,
        replica: 0,
        config: Config::testing(),
        release_client_min: Release::CLIENT_MIN,
        release_client_max: Release::CLIENT_MAX,
    }
}

fn replica() -> Replica<TestMachine> {
    let config = Config::testing();
    let pool = Pool::new("messages", messages_needed(&config) + 80, config.reply_size_max);
    Replica::new(&options(), pool, TestMachine::new(&config))
}

fn formatted() -> MemoryDisk {
    let config = Config::testing();
    let mut disk = MemoryDisk::new(Zones::new(&config).start(Zone::Grid) + 2 * AREA_SIZE);
    let genesis = Genesis { cluster: CLUSTER, replica: 0, replica_count: 1, config };
    for step in format(&genesis) {
        if let FormatStep::Write { offset, bytes } = step {
            write(&mut disk, offset, &bytes);
        }
    }
    disk.copy()
}

/// Writes bytes as a formatting program would.
fn write(disk: &mut MemoryDisk, offset: u64, bytes: &[u8]) {
    use crate::storage::{DiskKind, DiskOwner, DiskRequest, DiskToken};
    let pool = Pool::new("write", 1, u32::try_from(bytes.len()).unwrap());
    let mut buffer = pool.acquire();
    buffer.bytes_mut().copy_from_slice(bytes);
    disk.submit(DiskRequest {
        token: DiskToken { owner: DiskOwner::Superblock, index: 0 },
        kind: DiskKind::WriteDurable,
        offset,
        length: buffer.size(),
        buffer: Some(buffer),
        buffer_offset: 0,
    });
    disk.complete_first().unwrap().result.unwrap();
}

/// What an answered request was and what came back.
#[derive(Clone)]
struct Answered {
    operation: Operation,
    body: Vec<u8>,
    reply: Vec<u8>,
}

struct Client {
    id: u128,
    session: u64,
    number: u32,
    context: u128,
    /// The newest request, byte by byte.
    request: Vec<u8>,
    answered: bool,
    last: Option<Answered>,
    history: Vec<Answered>,
    evicted: Option<u8>,
    resent: u32,
}

impl Client {
    fn new(id: u128) -> Client {
        Client {
            id,
            session: 0,
            number: 0,
            context: 0,
            request: Vec::new(),
            answered: true,
            last: None,
            history: Vec::new(),
            evicted: None,
            resent: 0,
        }
    }

    /// Makes the next request: a register first.
    fn next(&mut self, view: u32, transfers: u32) {
        assert!(self.answered);
        let first = self.request.is_empty();
        let (operation, body) = if first {
            (Operation::Register, vec![0; 256])
        } else if transfers > 0 {
            let mut body = vec![0; to_index(transfers) * 128];
            body[..16].copy_from_slice(&self.id.to_le_bytes());
            body.extend_from_slice(&[0xff; 124]);
            body.extend_from_slice(&u16::try_from(transfers).unwrap().to_le_bytes());
            body.extend_from_slice(&1_u16.to_le_bytes());
            (Operation::CreateTransfers, body)
        } else {
            let mut body = self.id.to_le_bytes().to_vec();
            body.extend_from_slice(&[0xff; 12]);
            body.extend_from_slice(&[1, 0, 1, 0]);
            (Operation::LookupAccounts, body)
        };
        let mut header = RequestHeader::new();
        header.frame.cluster = CLUSTER;
        header.frame.view = view;
        header.frame.release = Release::SERVER;
        header.frame.size = 256 + u32::try_from(body.len()).unwrap();
        header.parent = self.context;
        header.client = self.id;
        header.session = self.session;
        header.request = self.number + u32::from(!first);
        header.operation = operation.into();
        header.header_mut().set_checksums(&body);
        self.number = header.request;
        self.request = zerocopy::IntoBytes::as_bytes(&header).to_vec();
        self.request.extend_from_slice(&body);
        self.answered = false;
    }

    fn receive(&mut self, message: &Message) {
        assert!(message.header().valid_checksum() && message.valid_checksum_body());
        assert_eq!(message.header().invalid(), None);
        if message.header().frame.command == Command::Eviction as u8 {
            self.evicted = Some(message.eviction().reason);
            return;
        }
        let reply = message.reply();
        if reply.request < self.number {
            return;
        }
        let request =
            crate::protocol::Header::from_bytes(&aligned(&self.request).0).request().to_owned();
        assert_eq!(reply.request_checksum, request.frame.checksum);
        assert_eq!((reply.request, reply.client), (self.number, self.id));
        if self.answered {
            self.resent += 1;
            let last = self.last.as_ref().expect("an answered request has a reply");
            assert!(last.reply == message.bytes(), "the same reply, byte by byte");
            return;
        }
        self.answered = true;
        self.context = reply.context;
        if request.operation == u8::from(Operation::Register) {
            self.session = reply.commit;
        }
        let answered = Answered {
            operation: Operation::try_from(request.operation).unwrap(),
            body: self.request[256..].to_vec(),
            reply: message.bytes().to_vec(),
        };
        self.last = Some(answered.clone());
        self.history.push(answered);
    }
}

/// Bytes with the alignment of a header.
struct Aligned(crate::protocol::AlignedMemory);

fn aligned(bytes: &[u8]) -> Aligned {
    let mut memory = crate::protocol::AlignedMemory::new(bytes.len());
    memory.copy_from_slice(bytes);
    Aligned(memory)
}

struct World {
    disk: MemoryDisk,
    replica: Replica<TestMachine>,
    random: ChaCha8Rng,
    now_ns: u64,
    requests: Pool,
    clients: Vec<Client>,
    generation: u32,
}

impl World {
    fn new(seed: u64, clients: u32) -> World {
        let config = Config::testing();
        World {
            disk: formatted(),
            replica: replica(),
            random: ChaCha8Rng::seed_from_u64(seed),
            now_ns: 1_000_000_000_000,
            requests: Pool::new("requests", 300, config.message_size_max),
            clients: (1..=u128::from(clients)).map(Client::new).collect(),
            generation: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn now(&self) -> Now {
        Now { realtime_ns: self.now_ns, monotonic_ns: self.now_ns }
    }

    fn drain(&mut self) {
        self.disk.submit_all(&mut self.replica.outbox.storage);
        while let Some((connection, message)) = self.replica.outbox.sends.pop() {
            if connection.generation == self.generation {
                self.clients[to_index(connection.index)].receive(&message);
            }
        }
    }

    fn send(&mut self, index: usize) {
        let bytes = self.clients[index].request.clone();
        let mut message = Message(self.requests.acquire());
        message.0.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        let connection =
            ConnectionId { index: u32::try_from(index).unwrap(), generation: self.generation };
        let now = self.now();
        self.replica.on_message(connection, message, now);
        self.drain();
    }

    /// One disk answer, or a tick if there is none.
    fn step(&mut self) {
        self.now_ns += 1_000_000;
        let now = self.now();
        match self.disk.complete_one(&mut self.random) {
            Some(done) => self.replica.on_disk_done(done, now),
            None => self.replica.tick(now),
        }
        self.drain();
    }

    /// Opens the replica and waits until it serves or stops.
    fn open(&mut self) {
        let now = self.now();
        self.replica.open(now);
        self.drain();
        for _ in 0..20_000 {
            if !matches!(self.replica.status(), Status::Opening(_)) {
                return;
            }
            self.step();
        }
        panic!("stuck in {:?}", self.replica.status());
    }

    fn open_serving(&mut self) {
        self.open();
        assert_eq!(self.replica.status(), Status::Normal, "{:?}", self.replica.fatal());
    }

    /// Power loss, and a fresh replica that was not opened yet.
    fn crash(&mut self) {
        self.generation += 1;
        self.replica = replica();
        self.disk.crash(&mut self.random);
    }

    /// Clients make requests and time passes for so many steps.
    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            if self.below(2) == 0 {
                let index = usize::try_from(self.below(self.clients.len() as u64)).unwrap();
                if self.clients[index].answered {
                    let transfers = match self.below(8) {
                        0 => self.below(100),
                        1 | 2 => self.below(8),
                        _ => 0,
                    };
                    let view = self.replica.view();
                    let transfers = u32::try_from(transfers).unwrap();
                    self.clients[index].next(view, transfers);
                    self.send(index);
                } else if self.below(4) == 0 {
                    self.send(index);
                }
            }
            self.step();
            assert_eq!(self.replica.status(), Status::Normal, "{:?}", self.replica.fatal());
        }
    }

    /// Everybody sends its newest request again and again until it is answered, and once more.
    fn settle(&mut self) {
        let resent: Vec<u32> = self.clients.iter().map(|client| client.resent).collect();
        for _ in 0..100 {
            for (index, resent) in resent.iter().enumerate() {
                let client = &self.clients[index];
                if !client.request.is_empty() && client.resent == *resent {
                    self.send(index);
                }
            }
            for _ in 0..100 {
                self.step();
            }
            let pending = |(client, resent): (&Client, &u32)| {
                !client.request.is_empty() && client.resent == *resent
            };
            if !self.clients.iter().zip(&resent).any(pending) && self.replica.is_quiet() {
                return;
            }
        }
        panic!("requests stay unanswered");
    }

    /// Every answered operation was executed exactly once, in one order, and none is missing.
    fn check_history(&self) {
        let mut all: BTreeMap<u64, &Answered> = BTreeMap::new();
        for client in &self.clients {
            for answered in &client.history {
                if answered.operation == Operation::Register {
                    continue;
                }
                let count = u64::from_le_bytes(answered.reply[256..264].try_into().unwrap());
                assert!(all.insert(count, answered).is_none(), "executed twice");
            }
        }
        let (mut hash, mut expected, mut timestamp_before) = (0, 1, 0);
        for (count, answered) in all {
            assert_eq!(count, expected, "executed and never answered");
            let body = &answered.reply[256..];
            let timestamp = u64::from_le_bytes(body[8..16].try_into().unwrap());
            assert!(timestamp > timestamp_before);
            timestamp_before = timestamp;
            hash = next_hash(hash, timestamp, answered.operation, &answered.body);
            assert_eq!(body[16..32], hash.to_le_bytes());
            expected += 1;
        }
        assert_eq!(self.replica.machine.hash, hash);
    }
}

/// Goal: many clients, requests of all sizes, checkpoints and wraps of the log, without faults:
/// everything is executed once, and afterwards all memory is returned.
#[test]
fn serves() {
    let mut world = World::new(1, 12);
    world.open_serving();
    assert_eq!(world.replica.view(), 1);
    world.run(6_000);
    world.settle();
    world.check_history();
    assert!(world.replica.checkpoint_op() >= 64, "{}", world.replica.checkpoint_op());
    let commit = world.replica.commit_op();
    let releases = (commit - 4) / 16;
    assert_eq!(world.replica.machine.releases, releases, "one release after each checkpoint");
    assert_eq!(world.replica.sessions_count(), 12);
    let registered = world.clients.iter().filter(|client| client.session > 0).count();
    assert_eq!(registered, 12);
}

/// Goal: requests that wait share prepares, so that there are far fewer ops than requests.
#[test]
fn group_commit() {
    let mut world = World::new(2, 40);
    world.open_serving();
    for index in 0..40 {
        world.clients[index].next(1, 0);
        world.send(index);
    }
    for _ in 0..1_000 {
        world.step();
    }
    assert!(world.clients.iter().all(|client| client.session > 0));
    let before = world.replica.commit_op();
    for _ in 0..10 {
        for index in 0..40 {
            world.clients[index].next(1, 1);
            world.send(index);
        }
        for _ in 0..1_000 {
            world.step();
        }
        assert!(world.clients.iter().all(|client| client.answered));
    }
    let ops = world.replica.commit_op() - before;
    assert!(ops < 80, "{ops} ops for 400 requests");
    world.settle();
    world.check_history();
}

/// Goal: power is lost again and again, anywhere, also while recovering; what was answered stays
/// true, retries get the same bytes, nothing is executed twice, the view only grows.
#[test]
fn survives_crashes() {
    for seed in 0..30 {
        let mut world = World::new(100 + seed, 10);
        world.open_serving();
        for _ in 0..12 {
            let steps = u32::try_from(world.below(400)).unwrap();
            world.run(steps);
            let view = world.replica.view();
            world.crash();
            // Lose power some more while opening.
            for _ in 0..world.below(4) {
                let now = world.now();
                world.replica.open(now);
                world.drain();
                for _ in 0..world.below(120) {
                    world.step();
                }
                world.crash();
            }
            world.open_serving();
            assert!(world.replica.view() > view, "the view grows");
            if world.below(2) == 0 {
                world.settle();
            }
        }
        world.settle();
        world.check_history();
    }
}

/// Goal: after any single byte of the superblock or the log rots, the replica serves what it
/// answered before, or stops and names the zone and an offset; it never panics or is wrong.
#[test]
fn rot_is_repaired_or_named() {
    let config = Config::testing();
    let zones = Zones::new(&config);
    let mut base = World::new(3, 6);
    base.open_serving();
    base.run(700);
    base.settle();
    while base.replica.commit_op() % 16 < 12 {
        base.clients[0].next(1, 3);
        base.settle();
    }
    let (mut repaired, mut stopped) = (0, 0);
    for round in 0..240_u64 {
        let mut world = World::new(1_000 + round, 0);
        world.disk = base.disk.copy();
        world.now_ns = base.now_ns;
        let zone = Zone::ALL[usize::try_from(round % 3).unwrap()];
        let size = zones.size(zone).unwrap();
        let mut offset = zones.start(zone) + world.below(size);
        if zone == Zone::WalPrepares && round % 2 == 0 {
            // Most of a slot is unused: aim at the used part.
            offset = zones.start(zone)
                + world.below(config.journal_slots.into()) * u64::from(config.message_size_max)
                + world.below(600);
        }
        world.disk.corrupt(offset);
        world.open();
        match world.replica.status() {
            Status::Normal => {
                repaired += u32::from(world.replica.repairs() > 0);
                assert_eq!(world.replica.machine.hash, base.replica.machine.hash);
                assert_eq!(world.replica.machine.count, base.replica.machine.count);
                assert_eq!(world.replica.commit_op(), base.replica.commit_op());
                for client in &base.clients {
                    let session = world.replica.sessions.find(client.id).unwrap();
                    assert!(session.reply.bytes() == client.last.as_ref().unwrap().reply);
                }
            }
            Status::Fatal => {
                stopped += 1;
                let text = world.replica.fatal().unwrap().to_string();
                assert_eq!(zone, Zone::WalPrepares, "{text}");
                assert!(text.contains("zone WAL prepares: slot"), "{text}");
            }
            status @ Status::Opening(_) => panic!("{status:?}"),
        }
    }
    assert!(repaired > 60, "{repaired}");
    assert!(stopped > 5, "{stopped}");
}

/// Goal: three damaged copies of the superblock, a foreign file and an unformatted one are
/// refused with what is wrong; two damaged copies are repaired.
#[test]
fn superblock_damage() {
    let damaged = |count: u64| {
        let mut world = World::new(4, 0);
        for copy in 0..count {
            world.disk.corrupt(copy * 16_384 + 100);
        }
        world.open();
        world
    };
    assert_eq!(damaged(2).replica.status(), Status::Normal);
    assert_eq!(damaged(2).replica.repairs(), 2);
    let text = damaged(3).replica.fatal().unwrap().to_string();
    assert!(text.contains("copy 2 at file offset 32768: checksum does not match"), "{text}");
    let mut world = World::new(5, 0);
    world.disk = MemoryDisk::new(1 << 20);
    world.open();
    let text = world.replica.fatal().unwrap().to_string();
    assert!(text.contains("not formatted"), "{text}");
    let mut world = World::new(6, 0);
    let mut options = options();
    options.cluster = 78;
    let pool = Pool::new("messages", 400, 16_384);
    world.replica = Replica::new(&options, pool, TestMachine::new(&options.config));
    world.open();
    let text = world.replica.fatal().unwrap().to_string();
    assert!(text.contains("field cluster"), "{text}");
}

/// Goal: a device that refuses to write stops the replica, with the zone; nothing is answered
/// after that.
#[test]
fn refused_writes_stop() {
    let config = Config::testing();
    let zones = Zones::new(&config);
    for (offset, zone) in [
        (zones.wal_prepare_offset(1), "zone WAL prepares"),
        (zones.wal_header_offset(1), "zone WAL headers"),
    ] {
        let mut world = World::new(7, 1);
        world.open_serving();
        world.disk.fail(offset, 1);
        world.clients[0].next(1, 0);
        world.send(0);
        for _ in 0..20 {
            world.step();
        }
        assert_eq!(world.replica.status(), Status::Fatal);
        let text = world.replica.fatal().unwrap().to_string();
        assert!(text.contains(zone) && text.contains("error 5"), "{text}");
        assert!(!world.clients[0].answered);
    }
}

/// Goal: the session least recently active goes when one too many registers, and is told when it
/// next speaks; the newcomer works.
#[test]
fn too_many_sessions() {
    let mut world = World::new(8, 65);
    world.open_serving();
    for index in 0..65 {
        world.clients[index].next(1, 0);
        world.send(index);
        for _ in 0..30 {
            world.step();
        }
        assert!(world.clients[index].answered, "{index}");
    }
    assert_eq!(world.replica.sessions_count(), 64);
    for (index, evicted) in [(0, Some(1)), (1, None), (64, None)] {
        world.clients[index].next(1, 0);
        world.send(index);
        for _ in 0..30 {
            world.step();
        }
        assert_eq!(world.clients[index].evicted, evicted);
        assert_eq!(world.clients[index].answered, evicted.is_none());
    }
    assert_eq!(EvictionReason::NoSession as u8, 1);
}

/// Goal: pings are answered with view, release and the client's clock, before registration too;
/// a session that is gone is told so.
#[test]
fn pings() {
    let mut world = World::new(9, 1);
    world.open_serving();
    let connection = ConnectionId { index: 0, generation: 99 };
    let mut ping = |session: u64, release: Release| {
        let mut message = Message::new(world.requests.acquire(), Command::PingClient);
        message.ping_client_mut().client = 5;
        message.ping_client_mut().ping_timestamp_monotonic = 1234;
        message.ping_client_mut().session = session;
        message.ping_client_mut().frame.release = release;
        message.ping_client_mut().frame.cluster = CLUSTER;
        message.set_checksums();
        let now = world.now();
        world.replica.on_message(connection, message, now);
        let (to, answer) = world.replica.outbox.sends.pop().unwrap();
        assert_eq!(to, connection);
        assert_eq!(answer.header().invalid(), None);
        answer
    };
    let answer = ping(0, Release::SERVER);
    assert_eq!(answer.pong_client().ping_timestamp_monotonic, 1234);
    assert_eq!((answer.pong_client().frame.view, answer.pong_client().frame.replica), (1, 0));
    let answer = ping(1_000, Release::SERVER);
    assert_eq!(answer.header().frame.command, Command::PongClient as u8, "maybe not committed yet");
    let answer = ping(0, Release::new(0, 16, 0));
    assert_eq!(answer.eviction().reason, EvictionReason::ClientReleaseTooLow as u8);
    let answer = ping(0, Release::new(0, 18, 0));
    assert_eq!(answer.eviction().reason, EvictionReason::ClientReleaseTooHigh as u8);
    world.clients[0].next(1, 0);
    world.send(0);
    for _ in 0..30 {
        world.step();
    }
    let mut message = Message::new(world.requests.acquire(), Command::PingClient);
    message.ping_client_mut().client = 5;
    message.ping_client_mut().session = 1;
    message.ping_client_mut().frame.release = Release::SERVER;
    message.set_checksums();
    let now = world.now();
    world.replica.on_message(connection, message, now);
    let (_, answer) = world.replica.outbox.sends.pop().unwrap();
    assert_eq!(answer.eviction().reason, EvictionReason::NoSession as u8);
}
