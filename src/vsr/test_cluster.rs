//! For tests: a whole cluster in one thread, and a network that does as it is told.
//!
//! Time goes in steps of a millisecond. A message takes one, a disk request takes one, replicas
//! tick every ten. Everything arrives in order and nothing is left to chance: links are cut,
//! messages lost, held, kept to come again, replicas crashed, stopped and restarted, disks frozen
//! and damaged only on demand. What must always hold is checked after every step: no two replicas
//! execute different ops in one place. Not covered: random schedules, which the simulator draws.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::test_machine::{AREA_SIZE, TestMachine, next_hash};
use super::test_world::{Answered, CLUSTER, Client, formatted};
use super::*;
use crate::protocol::{Command, Header, Message, Operation, Pool, Release, to_index};
use crate::simulator::disk::MemoryDisk;
use crate::storage::{Config, DiskOwner, DiskRequest, Zone, Zones};

const MILLISECOND: u64 = 1_000_000;
const TICK_STEPS: u64 = 10;
/// True time when the monotonic clocks stand at zero.
pub const EPOCH_NS: u64 = 1_700_000_000_000_000_000;
/// Index of the first connection between replicas; those below are clients'.
const PEERS_FIRST: u32 = 1000;

/// Where a message is sent from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Replica(u8),
    Client(u8),
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    pub from: Place,
    pub to: Place,
    /// Of a client's connection: distinguishes it from earlier ones.
    pub generation: u32,
    pub bytes: Vec<u8>,
}

/// What happens to messages that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Lost.
    Drop,
    /// Kept, and delivered when they are released.
    Hold,
    /// Delivered, and a copy is kept to come again when released.
    Copy,
}

/// Which messages meet which fate; what is `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub fate: Fate,
    pub command: Option<Command>,
    pub op: Option<u64>,
    pub from: Option<Place>,
    pub to: Option<Place>,
}

impl Rule {
    fn applies(&self, letter: &Letter) -> bool {
        let (command, op) = letter.subject();
        self.command.is_none_or(|wanted| Some(wanted) == command)
            && self.op.is_none_or(|wanted| Some(wanted) == op)
            && self.from.is_none_or(|from| from == letter.from)
            && self.to.is_none_or(|to| to == letter.to)
    }
}

impl Letter {
    /// Its command, and the op that it is about.
    pub fn subject(&self) -> (Option<Command>, Option<u64>) {
        let mut memory = crate::protocol::AlignedMemory::new(256);
        memory.copy_from_slice(&self.bytes[..256]);
        let header = Header::from_bytes(&memory);
        let command = Command::try_from(header.frame.command).ok();
        let op = match command {
            Some(Command::Prepare) => Some(header.prepare().op),
            Some(command) if command.is_peer() => Some(header.peer().op),
            _ => None,
        };
        (command, op)
    }
}

/// What of a disk does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    Nothing,
    /// Writes of the superblock.
    Superblock,
    /// The log.
    Log,
    All,
}

impl Frozen {
    /// Whether a request is answered.
    fn answers(self, request: &DiskRequest) -> bool {
        let owner = request.token.owner;
        match self {
            Frozen::Nothing => true,
            Frozen::Superblock => owner != DiskOwner::Superblock,
            Frozen::Log => !matches!(owner, DiskOwner::JournalPrepare | DiskOwner::JournalHeader),
            Frozen::All => false,
        }
    }
}

/// One machine: a disk, a clock, and the replica if it runs.
pub struct Node {
    pub disk: MemoryDisk,
    pub replica: Option<Replica<TestMachine>>,
    /// Its process is stopped: messages and disk answers wait.
    pub stopped: bool,
    pub frozen: Frozen,
    /// Its clock minus the true time.
    pub clock_ns: i64,
    inbox: VecDeque<Letter>,
    commit_seen: u64,
    starts: u64,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub voters: u8,
    /// Whether checkpoints are had from others.
    pub has_blocks: bool,
    pub clients: BTreeMap<u8, Client>,
    generations: BTreeMap<u8, u32>,
    pub rules: Vec<Rule>,
    pub held: Vec<Letter>,
    letters: VecDeque<(u64, Letter)>,
    pub now_ns: u64,
    /// Checksums of the ops that somebody executed.
    executed: BTreeMap<u64, u128>,
    /// Messages sent since the last look: command, sender, receiver.
    pub sent: BTreeMap<(u8, Place, Place), u32>,
    /// Replicas that may stop for good.
    pub may_stop: BTreeSet<u8>,
}

/// A data file as `format` makes it, or `recover`.
fn new_file(replica: u8, replica_count: u8, is_recovering: bool) -> MemoryDisk {
    let config = Config::testing();
    let genesis = Genesis { cluster: CLUSTER, replica, replica_count, config, is_recovering };
    formatted(&genesis, 2 * AREA_SIZE)
}

/// A replica with everything new but its disk.
fn replica(
    node: u8,
    voters: u8,
    standbys: u8,
    starts: u64,
    has_blocks: bool,
) -> Replica<TestMachine> {
    let config = Config::testing();
    let pool = Pool::new("messages", messages_needed(&config) + 80, config.reply_size_max);
    let mut machine = TestMachine::new(&config);
    // No pulses: every op is one that the script asked for.
    machine.next_pulse = u64::MAX;
    machine.has_blocks = has_blocks;
    let options = ReplicaOptions {
        cluster: CLUSTER,
        replica: node,
        replica_count: voters,
        standby_count: standbys,
        seed: u64::from(node) + 100 * starts,
        scrub_ns: 100_000_000,
        config,
        program: Release::PROGRAM,
        release_client_min: Release::CLIENT_MIN,
        release_client_max: Release::CLIENT_MAX,
    };
    Replica::new(&options, pool, machine)
}

impl Cluster {
    /// A formatted cluster of which nobody runs.
    pub fn new(voters: u8, standbys: u8) -> Cluster {
        let node = |replica| Node {
            disk: new_file(replica, voters, false),
            replica: None,
            stopped: false,
            frozen: Frozen::Nothing,
            clock_ns: 0,
            inbox: VecDeque::new(),
            commit_seen: 0,
            starts: 0,
        };
        Cluster {
            nodes: (0..voters + standbys).map(node).collect(),
            voters,
            has_blocks: false,
            clients: BTreeMap::new(),
            generations: BTreeMap::new(),
            rules: Vec::new(),
            held: Vec::new(),
            letters: VecDeque::new(),
            now_ns: 1_000_000_000_000,
            executed: BTreeMap::new(),
            sent: BTreeMap::new(),
            may_stop: BTreeSet::new(),
        }
    }

    fn now(&self, node: u8) -> Now {
        let clock_ns = self.nodes[usize::from(node)].clock_ns;
        let realtime_ns = (EPOCH_NS + self.now_ns).checked_add_signed(clock_ns).unwrap();
        Now { realtime_ns, monotonic_ns: self.now_ns }
    }

    pub fn indexes(&self) -> std::ops::Range<u8> {
        0..u8::try_from(self.nodes.len()).unwrap()
    }

    pub fn node(&self, node: u8) -> &Node {
        &self.nodes[usize::from(node)]
    }

    pub fn node_mut(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    /// The replica, which runs.
    pub fn replica(&self, node: u8) -> &Replica<TestMachine> {
        self.node(node).replica.as_ref().unwrap_or_else(|| panic!("r{node} does not run"))
    }

    /// Replicas and standbys that run.
    pub fn running(&self) -> Vec<u8> {
        self.indexes().filter(|node| self.node(*node).replica.is_some()).collect()
    }

    /// The primary of the newest view that has one.
    pub fn primary(&self) -> Option<u8> {
        let running = self.running().into_iter();
        let primaries = running.filter(|node| self.replica(*node).is_primary());
        primaries.max_by_key(|node| self.replica(*node).view())
    }

    /// Starts a replica on its disk.
    pub fn open(&mut self, node: u8) {
        let (voters, nodes, now) = (self.voters, self.nodes.len(), self.now(node));
        let standbys = u8::try_from(nodes).unwrap() - voters;
        let target = self.node_mut(node);
        assert!(target.replica.is_none(), "r{node} runs already");
        target.starts += 1;
        target.commit_seen = 0;
        let starts = target.starts;
        let mut replica = replica(node, voters, standbys, starts, self.has_blocks);
        let target = self.node_mut(node);
        replica.open(now);
        target.replica = Some(replica);
        self.drain(node);
    }

    /// Power loss: see [`MemoryDisk::crash_keeping`].
    pub fn crash(&mut self, node: u8, keep: impl Fn(u64, u64) -> bool) {
        let target = self.node_mut(node);
        assert!(target.replica.take().is_some(), "r{node} does not run");
        target.stopped = false;
        target.frozen = Frozen::Nothing;
        target.inbox.clear();
        target.disk.crash_keeping(keep);
    }

    /// Takes a replica's file away for good: it stops, and has what `recover` makes.
    pub fn forget(&mut self, node: u8) {
        if self.node(node).replica.is_some() {
            self.crash(node, |_, _| false);
        }
        let voters = self.voters;
        let target = self.node_mut(node);
        target.disk = new_file(node, voters, true);
        target.commit_seen = 0;
    }

    /// Tells a replica that its connection to another broke.
    pub fn lose_connection(&mut self, node: u8, lost: u8) {
        self.input(node, |replica, now| replica.on_peer_lost(lost, now));
    }

    fn input(&mut self, node: u8, input: impl FnOnce(&mut Replica<TestMachine>, Now)) {
        let now = self.now(node);
        if let Some(replica) = &mut self.node_mut(node).replica {
            input(replica, now);
            self.drain(node);
        }
        while let Some(replica) = &mut self.node_mut(node).replica
            && replica.has_work()
        {
            replica.work(now);
            self.drain(node);
        }
    }

    /// Takes what a replica wants from the world.
    fn drain(&mut self, node: u8) {
        let target = &mut self.nodes[usize::from(node)];
        let Some(replica) = &mut target.replica else { return };
        target.disk.submit_all(&mut replica.outbox.storage);
        let mut letters = Vec::new();
        while let Some((destination, message)) = replica.outbox.sends.pop() {
            let (to, generation) = match destination {
                Destination::Replica(to) => (Place::Replica(to), 0),
                Destination::Connection(id) => {
                    assert!(id.index < PEERS_FIRST, "peers are not answered by connection");
                    (Place::Client(u8::try_from(id.index).unwrap()), id.generation)
                }
            };
            let bytes = message.bytes().to_vec();
            letters.push(Letter { from: Place::Replica(node), to, generation, bytes });
        }
        let fatal = replica.fatal();
        let is_synced = matches!(fatal, Some(Fatal::Synced { .. }));
        if let Some(fatal) = fatal.filter(|_| !is_synced) {
            assert!(self.may_stop.contains(&node), "r{node} stopped: {fatal:?}");
        }
        for letter in letters {
            self.post(letter);
        }
        if is_synced {
            self.crash(node, |_, _| true);
            self.open(node);
        }
    }

    /// Puts a message on the network, if the rules let it.
    fn post(&mut self, letter: Letter) {
        let command = letter.bytes[std::mem::offset_of!(crate::protocol::header::Frame, command)];
        *self.sent.entry((command, letter.from, letter.to)).or_default() += 1;
        for rule in self.rules.clone() {
            if rule.applies(&letter) {
                match rule.fate {
                    Fate::Drop => return,
                    Fate::Hold => return self.held.push(letter),
                    Fate::Copy => self.held.push(letter.clone()),
                }
            }
        }
        self.letters.push_back((self.now_ns + MILLISECOND, letter));
    }

    /// Delivers what was held, or comes again.
    pub fn release(&mut self) {
        for letter in std::mem::take(&mut self.held) {
            self.letters.push_back((self.now_ns + MILLISECOND, letter));
        }
    }

    /// A client sends its newest request to a replica.
    pub fn send(&mut self, client: u8, node: u8) {
        let generation = self.generations.get(&client).copied().unwrap_or_default();
        let bytes = self.clients[&client].request.clone();
        let (from, to) = (Place::Client(client), Place::Replica(node));
        self.post(Letter { from, to, generation, bytes });
    }

    /// A client's connections are new ones from now on.
    pub fn reconnect(&mut self, client: u8) {
        *self.generations.entry(client).or_default() += 1;
    }

    fn deliver(&mut self, letter: Letter) {
        match letter.to {
            Place::Client(client) => {
                if letter.generation != self.generations.get(&client).copied().unwrap_or_default() {
                    return;
                }
                let pool = Pool::new("letter", 1, Config::testing().reply_size_max);
                let mut message = Message(pool.acquire());
                message.0.bytes_mut()[..letter.bytes.len()].copy_from_slice(&letter.bytes);
                self.clients.get_mut(&client).unwrap().receive(&message);
            }
            Place::Replica(node) => {
                let target = self.node_mut(node);
                if target.stopped {
                    return target.inbox.push_back(letter);
                }
                let Some(replica) = &target.replica else { return };
                let Some(buffer) = replica.pool.try_acquire() else { return };
                let mut message = Message(buffer);
                message.0.bytes_mut()[..letter.bytes.len()].copy_from_slice(&letter.bytes);
                let index = match letter.from {
                    Place::Client(client) => u32::from(client),
                    Place::Replica(from) => PEERS_FIRST + u32::from(from),
                };
                let connection = ConnectionId { index, generation: letter.generation };
                self.input(node, |replica, now| replica.on_message(connection, message, now));
            }
        }
    }

    /// A stopped process goes on: with what waited for it.
    pub fn go_on(&mut self, node: u8) {
        let target = self.node_mut(node);
        target.stopped = false;
        for letter in std::mem::take(&mut target.inbox) {
            self.deliver(letter);
        }
    }

    /// The oldest requests of a replica's disk are answered.
    pub fn finish_disk(&mut self, node: u8, count: usize) {
        for _ in 0..count {
            let Some(done) = self.node_mut(node).disk.complete_first() else { return };
            self.input(node, |replica, now| replica.on_disk_done(done, now));
        }
    }

    /// What a replica's disk was asked for until now is answered, as far as it is not frozen.
    fn answer_disk(&mut self, node: u8) {
        let target = self.node(node);
        let frozen = target.frozen;
        for _ in 0..target.disk.in_flight() {
            let live = |request: &DiskRequest| frozen.answers(request);
            let done = self.node_mut(node).disk.complete_first_of(live);
            let Some(done) = done else { return };
            self.input(node, |replica, now| replica.on_disk_done(done, now));
        }
    }

    /// A millisecond passes.
    pub fn step(&mut self) {
        self.now_ns += MILLISECOND;
        while self.letters.front().is_some_and(|(due_ns, _)| *due_ns <= self.now_ns) {
            let (_, letter) = self.letters.pop_front().unwrap();
            self.deliver(letter);
        }
        let tick = (self.now_ns / MILLISECOND).is_multiple_of(TICK_STEPS);
        for node in self.indexes() {
            let target = self.node(node);
            if target.stopped || target.replica.is_none() {
                continue;
            }
            self.answer_disk(node);
            if tick {
                self.input(node, Replica::tick);
            }
            self.compare_executed(node);
        }
    }

    /// No two replicas execute different ops in one place.
    fn compare_executed(&mut self, node: u8) {
        let target = &mut self.nodes[usize::from(node)];
        let Some(replica) = &target.replica else { return };
        if matches!(replica.status(), Status::Opening(_) | Status::Fatal) {
            return;
        }
        if target.commit_seen == 0 {
            // What a checkpoint covers when it is opened is not executed, and slots may have more.
            target.commit_seen = replica.checkpoint_op();
        }
        let commit = replica.commit_op();
        while target.commit_seen < commit {
            target.commit_seen += 1;
            let op = target.commit_seen;
            let Some(header) = replica.journal.header(op) else { continue };
            let checksum = header.frame.checksum;
            let known = *self.executed.entry(op).or_insert(checksum);
            assert!(known == checksum, "r{node} executed another op {op} than others");
        }
    }

    /// Where a part of a replica's file begins.
    pub fn offset(zone: &str, number: u64) -> u64 {
        let config = Config::testing();
        let zones = Zones::new(&config);
        let slot = u32::try_from(number % u64::from(config.journal_slots)).unwrap();
        match zone {
            "prepare" => zones.wal_prepare_offset(slot),
            "header" => zones.wal_header_offset(slot),
            "superblock" => zones.superblock_offset(u32::try_from(number).unwrap()),
            "checkpoint" => {
                let area = number / u64::from(config.checkpoint_interval) % 2;
                zones.start(Zone::Grid) + area * AREA_SIZE
            }
            other => panic!("no zone '{other}'"),
        }
    }

    /// Damages a header in a replica's file.
    pub fn corrupt(&mut self, node: u8, zone: &str, number: u64) {
        self.node_mut(node).disk.corrupt(Cluster::offset(zone, number) + 100);
    }

    /// Makes the slot of an op what it was when the file was made: its prepare went elsewhere.
    pub fn blank(&mut self, node: u8, op: u64) {
        let offset = Cluster::offset("prepare", op);
        self.node_mut(node).disk.blank(offset, Config::testing().message_size_max);
    }

    /// Whether a header in a replica's file is damaged.
    pub fn is_damaged(&self, node: u8, zone: &str, number: u64) -> bool {
        self.node(node).disk.is_damaged(Cluster::offset(zone, number), 1)
    }

    /// Everything is in order: all run in one view, with one log, executed to its end.
    pub fn has_converged(&self) -> Result<(), String> {
        let first = self.replica(0);
        for node in self.indexes() {
            let replica = self.replica(node);
            if replica.status() != Status::Normal || replica.view() != first.view() {
                return Err(format!(
                    "r{node} is {:?} in view {}",
                    replica.status(),
                    replica.view()
                ));
            }
            let (commit, head) = (replica.commit_op(), replica.head_op());
            if commit != head || head != first.head_op() {
                return Err(format!("r{node} has executed {commit} of {head}"));
            }
        }
        Ok(())
    }

    /// What the clients were told is one history without a gap, and all replicas have it.
    pub fn check_history(&self) {
        let mut all: BTreeMap<u64, &Answered> = BTreeMap::new();
        for client in self.clients.values() {
            for answered in &client.history {
                if answered.operation == Operation::Register {
                    continue;
                }
                let count = u64::from_le_bytes(answered.reply[256..264].try_into().unwrap());
                assert!(all.insert(count, answered).is_none(), "executed twice");
            }
        }
        let gaps = self.clients.values().any(|client| client.evicted.is_some());
        let (mut hash, mut expected, mut timestamp_before) = (0, 1, 0);
        for (count, answered) in all {
            assert!(count == expected || gaps, "op {expected} was executed and never answered");
            let body = &answered.reply[256..];
            let timestamp = u64::from_le_bytes(body[8..16].try_into().unwrap());
            assert!(timestamp > timestamp_before, "timestamps increase");
            timestamp_before = timestamp;
            let told = u128::from_le_bytes(body[16..32].try_into().unwrap());
            hash = next_hash(hash, timestamp, answered.operation, &answered.body);
            assert!(hash == told || count != expected, "the reply tells another history");
            (hash, expected) = (told, count + 1);
        }
        for node in self.indexes() {
            let machine = &self.replica(node).machine;
            assert!(machine.count + 1 == expected || gaps, "r{node} executed {}", machine.count);
            assert!(machine.hash == self.replica(0).machine.hash, "r{node} has another state");
            assert!(machine.hash == hash || gaps, "r{node} has another state than was told");
        }
    }

    /// Every op of the log that is kept is the same on all, on their disks too.
    pub fn check_logs(&self) {
        let head = self.replica(0).head_op();
        let first = self.indexes().map(|node| self.replica(node).checkpoint_op()).max();
        for op in first.unwrap() + 1..=head {
            let header = *self.replica(0).journal.header(op).expect("the log has no gaps");
            for node in self.indexes() {
                let replica = self.replica(node);
                let found = replica.journal.header(op);
                assert!(found == Some(&header), "r{node} has another op {op}");
            }
        }
        let slots = to_index(Config::testing().journal_slots);
        assert!(usize::try_from(head - first.unwrap()).unwrap() <= slots);
    }
}
