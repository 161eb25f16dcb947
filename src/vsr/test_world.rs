//! For tests: a replica on a disk that loses power, and clients that check every promise.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::test_machine::{AREA_SIZE, TestMachine, next_hash};
use super::*;
use crate::protocol::{Command, Message, Operation, Pool, Release, RequestHeader, to_index};
use crate::simulator::disk::MemoryDisk;
use crate::simulator::workload::{Workload, WorkloadStep};
use crate::storage::{Config, Job, Zone, Zones};

pub const CLUSTER: u128 = 77;

pub fn options(config: &Config) -> ReplicaOptions {
    ReplicaOptions {
        cluster: CLUSTER,
        replica: 0,
        replica_count: 1,
        standby_count: 0,
        seed: 0,
        scrub_ns: 100_000_000,
        config: *config,
        program: Release::PROGRAM,
        release_client_min: Release::CLIENT_MIN,
        release_client_max: Release::CLIENT_MAX,
    }
}

/// A replica over some state machine.
pub fn replica_of<M: StateMachine>(config: &Config, machine: M) -> Replica<M> {
    let pool = Pool::new("messages", messages_needed(config) + 80, config.reply_size_max);
    Replica::new(&options(config), pool, machine)
}

pub fn replica() -> Replica<TestMachine> {
    let config = Config::testing();
    replica_of(&config, TestMachine::new(&config))
}

/// A disk as the formatting program leaves it, with a grid of so many bytes.
pub fn formatted(genesis: &Genesis, grid_size: u64) -> MemoryDisk {
    let mut disk = MemoryDisk::new(Zones::new(&genesis.config).start(Zone::Grid) + grid_size);
    for step in format(genesis) {
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
pub struct Answered {
    pub operation: Operation,
    pub body: Vec<u8>,
    pub reply: Vec<u8>,
}

pub struct Client {
    pub id: u128,
    pub session: u64,
    pub number: u32,
    pub context: u128,
    /// The newest request, byte by byte.
    pub request: Vec<u8>,
    pub answered: bool,
    pub last: Option<Answered>,
    pub history: Vec<Answered>,
    pub evicted: Option<u8>,
    pub resent: u32,
}

impl Client {
    pub fn new(id: u128) -> Client {
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
    pub fn next(&mut self, view: u32, transfers: u32) {
        let (operation, body) = if transfers > 0 {
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
        self.ask(view, operation, body);
    }

    /// Makes the next request: a register first, whatever is asked for.
    pub fn ask(&mut self, view: u32, operation: Operation, body: Vec<u8>) {
        assert!(self.answered);
        let first = self.request.is_empty();
        let (operation, body) =
            if first { (Operation::Register, vec![0; 256]) } else { (operation, body) };
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

    /// Takes an answer, and checks it.
    pub fn receive(&mut self, message: &Message) {
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
pub struct Aligned(crate::protocol::AlignedMemory);

fn aligned(bytes: &[u8]) -> Aligned {
    let mut memory = crate::protocol::AlignedMemory::new(bytes.len());
    memory.copy_from_slice(bytes);
    Aligned(memory)
}

pub struct World<M> {
    pub disk: MemoryDisk,
    pub replica: Replica<M>,
    make: fn() -> Replica<M>,
    jobs: Vec<Job>,
    /// Pulses executed: op to timestamp.
    pub pulses: BTreeMap<u64, u64>,
    pulses_seen: u64,
    pub workload: Option<Workload>,
    pub random: ChaCha8Rng,
    pub now_ns: u64,
    pub requests: Pool,
    pub clients: Vec<Client>,
    generation: u32,
}

impl<M: StateMachine> World<M> {
    pub fn with(seed: u64, clients: u32, grid_size: u64, make: fn() -> Replica<M>) -> World<M> {
        let replica = make();
        let config = replica.options.config;
        let genesis = Genesis {
            cluster: CLUSTER,
            replica: 0,
            replica_count: 1,
            config,
            is_recovering: false,
        };
        World {
            disk: formatted(&genesis, grid_size),
            replica,
            make,
            jobs: Vec::new(),
            pulses: BTreeMap::new(),
            pulses_seen: 0,
            workload: None,
            random: ChaCha8Rng::seed_from_u64(seed),
            now_ns: 1_000_000_000_000,
            requests: Pool::new("requests", 300, config.message_size_max),
            clients: (1..=u128::from(clients)).map(Client::new).collect(),
            generation: 0,
        }
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    pub fn now(&self) -> Now {
        Now { realtime_ns: self.now_ns, monotonic_ns: self.now_ns }
    }

    pub fn drain(&mut self) {
        self.disk.submit_all(&mut self.replica.outbox.storage);
        while let Some(job) = self.replica.outbox.storage.jobs.pop() {
            self.jobs.push(job);
        }
        while let Some((connection, message)) = self.replica.outbox.sends.pop() {
            let Destination::Connection(connection) = connection else {
                panic!("there are no other replicas")
            };
            if connection.generation != self.generation {
                continue;
            }
            let client = &mut self.clients[to_index(connection.index)];
            let answered = client.history.len();
            client.receive(&message);
            if client.history.len() > answered
                && let Some(workload) = &mut self.workload
            {
                let last = client.history.last().unwrap();
                if last.operation != Operation::Register {
                    let timestamp = message.reply().timestamp;
                    workload.on_reply(last.operation, timestamp, &last.body, &last.reply[256..]);
                }
            }
        }
    }

    /// Remembers pulses among the ops that were executed since the last look.
    fn note_pulses(&mut self) {
        if !matches!(self.replica.status(), Status::Normal) {
            return;
        }
        let commit = self.replica.commit_op();
        self.pulses_seen = self.pulses_seen.max(self.replica.checkpoint_op());
        while self.pulses_seen < commit {
            self.pulses_seen += 1;
            let header = self.replica.journal.header(self.pulses_seen).unwrap();
            if header.operation == u8::from(Operation::Pulse) {
                self.pulses.insert(header.op, header.timestamp);
            }
        }
    }

    pub fn send(&mut self, index: usize) {
        let bytes = self.clients[index].request.clone();
        let mut message = Message(self.requests.acquire());
        message.0.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        let connection =
            ConnectionId { index: u32::try_from(index).unwrap(), generation: self.generation };
        let now = self.now();
        self.replica.on_message(connection, message, now);
        self.drain();
    }

    /// A part of the replica's work, one disk answer, or a tick if there is none.
    pub fn step(&mut self) {
        self.now_ns += 1_000_000;
        let now = self.now();
        if self.replica.has_work() && self.below(2) == 0 {
            self.replica.work(now);
        } else if !self.jobs.is_empty() && (self.disk.in_flight() == 0 || self.below(4) == 0) {
            let chosen = usize::try_from(self.below(self.jobs.len() as u64)).unwrap();
            let mut job = self.jobs.swap_remove(chosen);
            job.run();
            self.replica.on_job_done(job, now);
        } else {
            match self.disk.complete_one(&mut self.random) {
                Some(done) => self.replica.on_disk_done(done, now),
                None => self.replica.tick(now),
            }
        }
        self.drain();
        self.note_pulses();
    }

    /// Opens the replica and waits until it serves or stops.
    pub fn open(&mut self) {
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

    pub fn open_serving(&mut self) {
        self.open();
        assert_eq!(self.replica.status(), Status::Normal, "{:?}", self.replica.fatal());
    }

    /// Power loss, and a fresh replica that was not opened yet.
    pub fn crash(&mut self) {
        self.generation += 1;
        self.replica = (self.make)();
        self.jobs.clear();
        self.pulses_seen = 0;
        self.disk.crash(&mut self.random);
    }

    /// Clients make requests and time passes for so many steps.
    pub fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            if self.below(2) == 0 {
                let index = usize::try_from(self.below(self.clients.len() as u64)).unwrap();
                let workload = self.workload.as_mut();
                if let Some(workload) = workload
                    && self.clients[index].answered
                {
                    match workload.next_step() {
                        WorkloadStep::Request { operation, body } => {
                            let view = self.replica.view();
                            self.clients[index].ask(view, operation, body);
                            self.send(index);
                        }
                        WorkloadStep::AdvanceTime { nanoseconds } => self.now_ns += nanoseconds,
                        WorkloadStep::Pulse => {}
                    }
                } else if self.clients[index].answered {
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
    pub fn settle(&mut self) {
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
}

impl World<TestMachine> {
    pub fn new(seed: u64, clients: u32) -> World<TestMachine> {
        World::with(seed, clients, 2 * AREA_SIZE, replica)
    }

    /// Every answered operation was executed exactly once, in one order, and none is missing.
    pub fn check_history(&self) {
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
