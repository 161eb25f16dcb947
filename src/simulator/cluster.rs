//! A simulated cluster: owner of machines, network, clients, faults and checkers, and the loop that
//! lets one thing happen after the other.
//!
//! Everything a replica wants is taken from its outbox after each input, checked, and planned as an
//! event. What strikes with time is in [`injector`](super::injector), the phases of a run in
//! [`run`](super::run).

use super::atlas;
use super::checkers::Failure;
use super::checkers::blocks::Blocks;
use super::checkers::durability::Durability;
use super::checkers::history::History;
use super::checkers::references::check_references;
use super::checkers::storage::Storage;
use super::clients::{Clients, Outcome, Sends};
use super::clocks::{Clock, true_realtime_ns};
use super::disk_faults::DiskOutcome;
use super::events::{Event, Events};
use super::faults::{Fault, Faults};
use super::network::{Arrival, FrameBytes, Network, NetworkOptions, Packet};
use super::process::{Activity, CLUSTER, Process, ProcessOptions, config};
use super::random::{Part, Random};
use super::swarm::Swarm;
use super::trace::{Detail, Trace};
use crate::ledger::Ledger;
use crate::protocol::{Command, HEADER_SIZE, Header, Message, to_index};
use crate::require;
use crate::storage::{DiskKind, DiskOwner, DiskRequest, Zone, Zones, index_of};
use crate::vsr::fatal::Fatal;
use crate::vsr::{ConnectionId, Destination, Now, Replica, Status};

const MICROSECOND_NS: u64 = 1_000;
const MILLISECOND_NS: u64 = 1_000_000;
/// What a majority of clocks may be wrong by: they jump by less than ten seconds.
const TIME_ERROR_MAX_NS: i128 = 20_000_000_000;
/// What is meant for a process that stands still waits so long before it is offered again.
const RESUME_LOOK_NS: u64 = 5 * MILLISECOND_NS;
/// Of so many new checkpoints one is looked at in full.
const SURVEY_INTERVAL: u64 = 16;
/// Time between two ticks.
pub const TICK_NS: u64 = 10 * MILLISECOND_NS;

/// What was seen of a replica last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) status: Option<Status>,
    pub(super) view: u32,
    pub(super) commit: u64,
    pub(super) checkpoint: u64,
}

const SEEN_NOTHING: Seen = Seen { status: None, view: 0, commit: 0, checkpoint: 0 };

/// What a run has done, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Ticks of the whole cluster.
    pub ticks: u64,
    /// Inputs of replicas.
    pub inputs: u64,
    /// Starts of processes.
    pub starts: u64,
    /// Times a replica came to a newer view.
    pub view_changes: u64,
    /// Clients told that their session is over.
    pub evictions: u64,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The draw.
    pub swarm: Swarm,
    /// What will happen.
    pub events: Events,
    /// Faults and their rates.
    pub faults: Faults,
    /// The network.
    pub network: Network,
    /// Replicas, then standbys.
    pub processes: Vec<Process>,
    /// The clients.
    pub clients: Clients,
    /// What was committed.
    pub history: History,
    /// What is durable where.
    pub durability: Durability,
    /// The checkpoints.
    pub storage: Storage,
    /// The blocks that were written.
    pub blocks: Blocks,
    /// What happened.
    pub trace: Trace,
    /// Numbers for the summary.
    pub counters: Counters,
    /// Latencies of answered requests in nanoseconds.
    pub latencies_ns: Vec<u64>,
    /// Processes that are not started again by themselves.
    pub kept_down: Vec<bool>,
    /// Ops that a replica may lag before clients are held back.
    pub lag_max: u64,
    /// Whether faults may pause for a replica that lags.
    pub may_rescue: bool,
    pub(super) is_rescuing: bool,
    /// The time of faults is over: a rescue that ends does not bring them back.
    pub(super) faults_are_over: bool,
    pub(super) seen: Vec<Seen>,
    /// Newest op that each replica ever had executed.
    pub(super) commit_max: Vec<u64>,
    /// Head of the log of each replica, as seen last.
    pub(super) head_last: Vec<u64>,
    /// Newest durable checkpoint that each replica ever had.
    pub(super) checkpoint_max: Vec<u64>,
    /// Whether blocks of its checkpoint may be missing on each replica.
    pub(super) syncing: Vec<bool>,
    /// Whether each replica lost its file and has no vote yet.
    pub(super) recovering: Vec<bool>,
    /// Whether each replica ever took over a checkpoint.
    pub(super) ever_synced: Vec<bool>,
    /// Highest block address that the checkpoint of each replica needs.
    pub(super) blocks_max: Vec<u64>,
    /// Times that a superblock with another checkpoint was looked at.
    checkpoints_seen: u64,
    pub(super) zones: Zones,
}

impl Cluster {
    /// A cluster of fresh data files, all processes about to start.
    ///
    /// # Panics
    ///
    /// If an invariant of the simulator is broken.
    #[must_use]
    pub fn new(swarm: &Swarm, detail: Detail) -> Cluster {
        let seed = swarm.seed;
        let nodes = swarm.nodes();
        let mut clocks = Random::new(seed, Part::Clocks, 0);
        let replicas = 0..u8::try_from(nodes).expect("few nodes");
        let processes = replicas.map(|replica| {
            let options = ProcessOptions {
                seed,
                replica,
                replica_count: swarm.replicas,
                standby_count: swarm.standbys,
            };
            Process::new(&options, Clock::draw(&mut clocks))
        });
        let clients = Clients::new(swarm, Random::new(seed, Part::Clients, 0));
        let network = NetworkOptions {
            nodes: nodes + clients.len() + 1,
            min_us: swarm.packet_min_us,
            mean_us: swarm.packet_mean_us,
        };
        let mut cluster = Cluster {
            swarm: swarm.clone(),
            events: Events::new(),
            faults: swarm.faults.clone(),
            network: Network::new(network, Random::new(seed, Part::Network, 0)),
            processes: processes.collect(),
            clients,
            history: History::new(CLUSTER, &config()),
            durability: Durability::new(&config(), nodes, usize::from(swarm.replicas)),
            storage: Storage::new(),
            blocks: Blocks::new(&config()),
            trace: Trace::new(detail, nodes),
            counters: Counters::default(),
            latencies_ns: Vec::new(),
            kept_down: vec![false; nodes],
            lag_max: atlas::LAG_MAX,
            may_rescue: true,
            is_rescuing: false,
            faults_are_over: false,
            seen: vec![SEEN_NOTHING; nodes],
            commit_max: vec![0; nodes],
            head_last: vec![0; nodes],
            checkpoint_max: vec![0; nodes],
            syncing: vec![false; nodes],
            recovering: vec![false; nodes],
            ever_synced: vec![false; nodes],
            blocks_max: vec![0; nodes],
            checkpoints_seen: 0,
            zones: Zones::new(&config()),
        };
        for replica in 0..nodes {
            cluster.events.after(0, Event::Start { replica });
        }
        for client in 0..cluster.clients.len() {
            cluster.events.after(MILLISECOND_NS, Event::Client { client });
        }
        cluster.events.after(TICK_NS, Event::Tick);
        cluster
    }

    /// Lets the next thing happen; whether it was a tick.
    ///
    /// # Errors
    ///
    /// If something wrong was done.
    ///
    /// # Panics
    ///
    /// If an invariant of the simulator is broken.
    pub fn step(&mut self) -> Result<bool, Failure> {
        let event = self.events.advance();
        match event {
            Event::Tick => {
                self.tick()?;
                return Ok(true);
            }
            Event::Deliver(packet) => self.deliver(packet)?,
            Event::Disk { replica, incarnation, id } => self.disk_done(replica, incarnation, id)?,
            Event::Job { replica, incarnation, id } => self.job_done(replica, incarnation, id)?,
            Event::Work { replica, incarnation } => self.work(replica, incarnation)?,
            Event::PeerLost { replica, peer } => {
                self.note(4, replica, peer);
                let peer = u8::try_from(peer).expect("few replicas");
                if self.processes[replica].is_running() {
                    self.input(replica, |replica, now| replica.on_peer_lost(peer, now))?;
                }
            }
            Event::Start { replica } => self.start(replica)?,
            Event::Client { client } => self.wake_client(client),
        }
        Ok(false)
    }

    fn note(&mut self, kind: u64, first: usize, second: usize) {
        let now = self.events.now_ns();
        let words = [now, kind, crate::storage::count_of(first), crate::storage::count_of(second)];
        self.trace.note(words);
    }

    /// Prints something about a node.
    pub(super) fn tell(&mut self, replica: usize, text: &str) {
        self.trace.node(self.events.now_ns(), replica, text);
    }

    fn tick(&mut self) -> Result<(), Failure> {
        self.counters.ticks += 1;
        let now_ns = self.events.now_ns();
        for replica in 0..self.processes.len() {
            if let Activity::Paused { until_ns } = self.processes[replica].activity
                && now_ns >= until_ns
            {
                self.processes[replica].activity = Activity::Running;
                self.tell(replica, "resumed");
            }
            if self.processes[replica].is_running() {
                self.input(replica, Replica::tick)?;
            }
        }
        self.rescue();
        if !self.is_rescuing {
            self.inject();
        }
        self.events.after(TICK_NS, Event::Tick);
        Ok(())
    }

    /// Pauses faults while some replica is about to fall out of the log.
    fn rescue(&mut self) {
        let lag = self.lag();
        if !self.is_rescuing && lag > atlas::RESCUE_LAG && self.may_rescue {
            self.is_rescuing = true;
            self.faults.set_active(false);
            self.heal(|_| true);
            let now_ns = self.events.now_ns();
            self.trace.line(now_ns, Detail::Short, || "rescue begins".to_owned());
        } else if self.is_rescuing && lag <= atlas::RESCUED_LAG {
            self.is_rescuing = false;
            self.faults.set_active(self.may_rescue && !self.faults_are_over);
            let now_ns = self.events.now_ns();
            self.trace.line(now_ns, Detail::Short, || "rescue ends".to_owned());
        }
    }

    /// Heals the network among these nodes, starts and continues everything that is not kept down,
    /// and sets the clocks right.
    pub(super) fn heal(&mut self, among: impl Fn(usize) -> bool) {
        self.network.heal(among);
        for index in 0..self.processes.len() {
            let kept_down = self.kept_down[index];
            let process = &mut self.processes[index];
            process.clock.repair();
            process.gray = None;
            process.full_until_ns = None;
            if matches!(process.activity, Activity::Paused { .. }) {
                process.activity = Activity::Running;
            }
            if process.activity == Activity::Down && !kept_down {
                self.events.after(0, Event::Start { replica: index });
            }
        }
    }

    /// Starts a process, unless it runs or is kept down.
    fn start(&mut self, replica: usize) -> Result<(), Failure> {
        if self.processes[replica].replica.is_some() || self.kept_down[replica] {
            return Ok(());
        }
        self.note(5, replica, 0);
        self.counters.starts += 1;
        self.durability.rescan(replica, &self.processes[replica].disk);
        self.tell(replica, "starts");
        let now_ns = self.events.now_ns();
        self.processes[replica].start(now_ns);
        self.after_input(replica)
    }

    /// Kills a process and plans its next start. Others notice if the machine stays on.
    pub fn kill(&mut self, replica: usize, is_powered: bool, down_ns: u64) {
        self.note(6, replica, 0);
        self.processes[replica].kill(is_powered);
        self.seen[replica] = SEEN_NOTHING;
        if self.swarm.replicas == 1 {
            self.blocks.forget_after(self.history.head());
        }
        self.tell(replica, if is_powered { "killed" } else { "power lost" });
        self.damage_head(replica);
        for client in self.processes.len()..self.processes.len() + self.clients.len() {
            self.network.disconnect(client, replica);
            self.network.disconnect(replica, client);
        }
        if is_powered {
            for peer in 0..self.processes.len() {
                if peer != replica && !self.network.is_cut(replica, peer) {
                    let lost = Event::PeerLost { replica: peer, peer: replica };
                    self.events.after(self.swarm.packet_min_us * MICROSECOND_NS, lost);
                }
            }
        }
        self.events.after(down_ns, Event::Start { replica });
    }

    /// Takes the data file from a process that was killed; it starts with a new one.
    pub(super) fn lose_file(&mut self, replica: usize) {
        assert!(self.processes[replica].is_voter(), "standbys are formatted anew");
        self.processes[replica].lose_file();
        self.durability.lose(replica);
        self.recovering[replica] = true;
        self.syncing[replica] = false;
        self.commit_max[replica] = 0;
        self.head_last[replica] = 0;
        self.checkpoint_max[replica] = 0;
        self.blocks_max[replica] = 0;
        self.tell(replica, "data file lost");
    }

    fn deliver(&mut self, packet: Packet) -> Result<(), Failure> {
        let now_ns = self.events.now_ns();
        match self.network.arrive(&packet, now_ns) {
            Arrival::Never => return Ok(()),
            Arrival::Later { delay_ns } => {
                self.events.after(delay_ns, Event::Deliver(packet));
                return Ok(());
            }
            Arrival::Now => {}
        }
        let nodes = self.processes.len();
        if let Some(flipped) = self.network.corrupt(&packet.frame, &mut self.faults) {
            // A hostile frame may have been damaged before, which a second flip can undo.
            let unnoticed = frame_is_valid(flipped.bytes()) && frame_is_valid(packet.frame.bytes());
            require!(!unnoticed, "a flipped bit went unnoticed");
            self.break_connection(packet.from, packet.to);
            return Ok(());
        }
        if packet.to >= nodes {
            return self.deliver_to_client(&packet);
        }
        match self.processes[packet.to].activity {
            Activity::Running => self.deliver_to_replica(packet),
            Activity::Paused { .. } => {
                self.events.after(RESUME_LOOK_NS, Event::Deliver(packet));
                Ok(())
            }
            Activity::Down => {
                if self.processes[packet.to].is_powered {
                    self.break_connection(packet.from, packet.to);
                }
                Ok(())
            }
        }
    }

    /// The sender's connection breaks, which a replica learns.
    fn break_connection(&mut self, from: usize, to: usize) {
        self.network.disconnect(from, to);
        if from >= self.processes.len() {
            self.network.disconnect(to, from);
        } else if to < self.processes.len() {
            let delay = self.swarm.packet_min_us * MICROSECOND_NS;
            self.events.after(delay, Event::PeerLost { replica: from, peer: to });
        }
    }

    fn deliver_to_replica(&mut self, packet: Packet) -> Result<(), Failure> {
        let bytes = packet.frame.bytes();
        if !frame_is_valid(bytes) {
            self.break_connection(packet.from, packet.to);
            return Ok(());
        }
        let Some(mut buffer) = self.processes[packet.to].pool().try_acquire() else {
            self.events.after(MILLISECOND_NS, Event::Deliver(packet));
            return Ok(());
        };
        buffer.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        let header = Header::from_bytes(bytes);
        self.trace.note([
            self.events.now_ns(),
            1,
            crate::storage::count_of(packet.from << 8 | packet.to),
            u64::try_from(header.frame.checksum >> 64).expect("the upper half"),
        ]);
        self.trace.line(self.events.now_ns(), Detail::Full, || {
            format!("{} -> {}: {}", packet.from, packet.to, describe(header))
        });
        let connection = ConnectionId {
            index: u32::try_from(packet.from).expect("few nodes"),
            generation: packet.connection,
        };
        let message = Message(buffer);
        self.input(packet.to, |replica, now| replica.on_message(connection, message, now))
    }

    fn deliver_to_client(&mut self, packet: &Packet) -> Result<(), Failure> {
        let index = packet.to - self.processes.len();
        if index >= self.clients.len() {
            return Ok(());
        }
        let mut sends = Sends::new();
        let now_ns = self.events.now_ns();
        let outcome = self.clients.receive(index, packet.frame.bytes(), now_ns, &mut sends);
        self.note(7, packet.from, index);
        match outcome {
            Outcome::Nothing => {}
            Outcome::Accepted(accepted) => {
                require!(
                    accepted.op > accepted.acknowledged_op,
                    "client {index}: op {} was answered to a request made after the answer to op \
                     {}",
                    accepted.op,
                    accepted.acknowledged_op
                );
                if !accepted.is_register {
                    self.latencies_ns.push(accepted.latency_ns);
                }
            }
            Outcome::Evicted { client, reason } => {
                self.counters.evictions += 1;
                self.history.evicted(client, reason)?;
            }
            Outcome::Broken(what) => return Err(Failure::correctness(what)),
        }
        self.send_from_clients(sends);
        self.plan_client(index);
        Ok(())
    }

    /// Whether what this start of a process waits for can be given to it now. If it is paused, the
    /// event comes again.
    fn takes(&mut self, replica: usize, incarnation: u32, event: Event) -> bool {
        let process = &self.processes[replica];
        if process.incarnation != incarnation {
            return false;
        }
        let is_paused = matches!(process.activity, Activity::Paused { .. });
        if is_paused {
            self.events.after(RESUME_LOOK_NS, event);
        }
        !is_paused
    }

    fn disk_done(&mut self, replica: usize, incarnation: u32, id: u64) -> Result<(), Failure> {
        if !self.takes(replica, incarnation, Event::Disk { replica, incarnation, id }) {
            return Ok(());
        }
        let outcome = self.disk_outcome(replica, id);
        let process = &mut self.processes[replica];
        let done = match outcome {
            DiskOutcome::Done => process.complete_request(id),
            DiskOutcome::Elsewhere(offset) => process.disk.complete_misdirected(id, offset),
            DiskOutcome::Lost => process.disk.complete_lost(id),
            DiskOutcome::Failed(error) => process.fail_request(id, error),
        };
        let Some(done) = done else { return Ok(()) };
        if done.request.kind == DiskKind::WriteDurable && done.result.is_ok() {
            self.durability.written(replica, &done.request);
        }
        self.note(2, replica, index_of(done.request.offset));
        self.trace.line(self.events.now_ns(), Detail::Full, || {
            let (zone, offset) = self.zones.locate(done.request.offset);
            let (kind, result) = (done.request.kind, done.result);
            format!("{replica} disk: {kind:?} {zone} at {offset}, {result:?}")
        });
        self.input(replica, |replica, now| replica.on_disk_done(done, now))
    }

    fn job_done(&mut self, replica: usize, incarnation: u32, id: u64) -> Result<(), Failure> {
        if !self.takes(replica, incarnation, Event::Job { replica, incarnation, id }) {
            return Ok(());
        }
        let Some(job) = self.processes[replica].do_job(id) else { return Ok(()) };
        self.note(3, replica, 0);
        self.input(replica, |replica, now| replica.on_job_done(job, now))
    }

    /// A replica does a part of its work.
    fn work(&mut self, replica: usize, incarnation: u32) -> Result<(), Failure> {
        if !self.takes(replica, incarnation, Event::Work { replica, incarnation }) {
            return Ok(());
        }
        let process = &mut self.processes[replica];
        if process.replica.is_none() {
            return Ok(());
        }
        process.is_work_planned = false;
        self.note(9, replica, 0);
        self.input(replica, Replica::work)
    }

    /// Plans when a replica gets around to its work, if there is any: sooner or later than what its
    /// disk is doing.
    fn plan_work(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let has_work = process.replica.as_ref().is_some_and(|replica| replica.has_work());
        if has_work && !process.is_work_planned {
            process.is_work_planned = true;
            let delay_ns = process.jobs_random.delay(1, self.swarm.disk_mean_us) * MICROSECOND_NS;
            let incarnation = process.incarnation;
            self.events.after(delay_ns, Event::Work { replica: index, incarnation });
        }
    }

    fn wake_client(&mut self, client: usize) {
        if self.clients.wake_ns(client) > self.events.now_ns() {
            return;
        }
        if self.must_wait() && self.clients.is_free(client) {
            self.clients.delay(client, self.events.now_ns() + TICK_NS);
        } else {
            let mut sends = Sends::new();
            self.clients.wake(client, self.events.now_ns(), &mut sends);
            self.send_from_clients(sends);
        }
        self.plan_client(client);
    }

    /// Whether clients are held back because some replica lags as far as it may.
    pub(super) fn must_wait(&self) -> bool {
        self.lag() > self.lag_max
    }

    /// Plans the next look of a client.
    pub(super) fn plan_client(&mut self, client: usize) {
        let wake_ns = self.clients.wake_ns(client);
        let delay_ns = wake_ns.saturating_sub(self.events.now_ns());
        self.events.after(delay_ns, Event::Client { client });
    }

    /// Sends what clients want sent.
    pub(super) fn send_from_clients(&mut self, sends: Sends) {
        let nodes = self.processes.len();
        for (client, replica, frame) in sends {
            self.network.send(nodes + client, replica, frame, &mut self.events, &mut self.faults);
        }
    }

    /// Gives an input to a replica and takes what it wants.
    fn input(
        &mut self,
        replica: usize,
        give: impl FnOnce(&mut Replica<Ledger>, Now),
    ) -> Result<(), Failure> {
        self.counters.inputs += 1;
        let process = &mut self.processes[replica];
        let now = process.now(self.events.now_ns());
        give(process.replica.as_mut().expect("a running process"), now);
        self.after_input(replica)
    }

    fn after_input(&mut self, replica: usize) -> Result<(), Failure> {
        self.take_disk_requests(replica)?;
        self.observe(replica)?;
        if self.processes[replica].replica.is_none() {
            // It has to start again.
            return Ok(());
        }
        self.plan_work(replica);
        self.take_sends(replica)
    }

    fn take_disk_requests(&mut self, index: usize) -> Result<(), Failure> {
        let process = &mut self.processes[index];
        let replica = process.replica.as_mut().expect("a running process");
        let incarnation = process.incarnation;
        while let Some(request) = replica.outbox.storage.disk.pop() {
            learn_prepare(&mut self.history, &self.zones, &request);
            if request.token.owner == DiskOwner::GridWrite {
                self.blocks.writes(index, &request)?;
            }
            let random = &mut process.disk_random;
            let (min_us, mean_us) = (self.swarm.disk_min_us, self.swarm.disk_mean_us);
            let mut delay_ns = random.delay(min_us, mean_us) * MICROSECOND_NS;
            delay_ns *= process.gray.map_or(1, |gray| gray.factor);
            if self.faults.strikes(Fault::DiskSlow) {
                self.faults.count(Fault::DiskSlow);
                let random = self.faults.random(Fault::DiskSlow);
                delay_ns += random.scale(10, 2000) * MILLISECOND_NS;
            }
            let id = if atlas::leaves_damage(&request) {
                process.disk.submit_damage(request)
            } else {
                process.disk.submit(request)
            };
            self.events.after(delay_ns, Event::Disk { replica: index, incarnation, id });
        }
        while let Some(job) = process.replica.as_mut().and_then(|it| it.outbox.storage.jobs.pop()) {
            let mut delay_ns = process.jobs_random.delay(1, self.swarm.job_mean_us);
            delay_ns *= MICROSECOND_NS;
            if self.faults.strikes(Fault::JobSlow) {
                self.faults.count(Fault::JobSlow);
                delay_ns += self.faults.random(Fault::JobSlow).scale(10, 2000) * MILLISECOND_NS;
            }
            let id = process.take_job(job);
            self.events.after(delay_ns, Event::Job { replica: index, incarnation, id });
        }
        Ok(())
    }

    /// Looks at what a replica has come to.
    fn observe(&mut self, index: usize) -> Result<(), Failure> {
        let process = &self.processes[index];
        let replica = process.replica.as_ref().expect("a running process");
        let status = replica.status();
        if let Some(Fatal::Synced { op }) = replica.fatal() {
            let op = *op;
            self.note_superblock(index)?;
            self.tell(index, &format!("takes over checkpoint {op}"));
            self.kill(index, true, MILLISECOND_NS);
            return Ok(());
        }
        if let Some(fatal) = replica.fatal()
            && atlas::may_stop(process, fatal)
        {
            let reason = format!("stops: {fatal}");
            self.tell(index, &reason);
            let down_ms = self.processes[index].disk_random.scale(10, 1000);
            self.kill(index, true, down_ms * MILLISECOND_NS);
            return Ok(());
        }
        if let Some(fatal) = replica.fatal() {
            return Err(Failure::correctness(format!("replica {index} stopped: {fatal}")));
        }
        let before = self.seen[index];
        let mut now = Seen { status: Some(status), view: replica.view(), ..before };
        if process.knows_checkpoint() {
            now.commit = replica.commit_op();
            now.checkpoint = replica.checkpoint_op();
            let superblock = replica.durable_superblock().expect("it was read");
            self.syncing[index] = superblock.sync_op_max > 0;
            self.head_last[index] = replica.head_op();
            if self.recovering[index] && !replica.is_recovering() {
                self.recovering[index] = false;
                self.durability.recovered(index);
            }
        }
        if now == before {
            return Ok(());
        }
        if now.commit > before.commit {
            self.commit_through(index, before.commit.max(now.checkpoint), now.commit)?;
        }
        self.commit_max[index] = self.commit_max[index].max(now.commit);
        self.checkpoint_max[index] = self.checkpoint_max[index].max(now.checkpoint);
        self.seen[index] = now;
        if now.checkpoint != before.checkpoint {
            self.note_superblock(index)?;
        }
        self.counters.view_changes += u64::from(before.view != 0 && now.view > before.view);
        let commit = crate::storage::index_of(now.commit);
        self.note(8, index, commit << 32 | to_index(now.view));
        let transition = (now.status, now.view, now.checkpoint)
            != (before.status, before.view, before.checkpoint);
        if transition || self.trace.wants(Detail::Full) {
            self.tell(index, &summary(&now));
        }
        Ok(())
    }

    /// Looks at a superblock that names another checkpoint than before, or tells more of it.
    fn note_superblock(&mut self, index: usize) -> Result<(), Failure> {
        let replica = self.processes[index].replica.as_ref().expect("a running process");
        let superblock = replica.durable_superblock().expect("it was read");
        self.syncing[index] = superblock.sync_op_max > 0;
        self.ever_synced[index] |= superblock.sync_op_max > 0;
        let grid = superblock.storage_size.saturating_sub(self.zones.start(Zone::Grid));
        self.blocks_max[index] = grid / u64::from(config().block_size);
        self.storage.checkpoint(index, superblock, &self.history)?;
        self.checkpoints_seen += 1;
        let looks = self.checkpoints_seen.is_multiple_of(SURVEY_INTERVAL);
        if looks && !self.syncing[index] && replica.machine.store.is_open() {
            let free_set = replica.machine.store.grid().free_set();
            let disk = &self.processes[index].disk;
            if disk.damaged_from(self.zones.start(Zone::Grid)).next().is_none() {
                let is_needed = |address| free_set.is_acquired(address);
                check_references(index, disk, superblock, is_needed)?;
            }
        }
        Ok(())
    }

    /// Notes that a replica has executed the ops after `from` up to `to`.
    fn commit_through(&mut self, index: usize, from: u64, to: u64) -> Result<(), Failure> {
        for op in from + 1..=to {
            let replica = self.processes[index].replica.as_ref().expect("a running process");
            let header = replica.log_header(op).copied();
            let Some(header) = header else {
                let what = format!("replica {index} executed op {op}, which its log does not have");
                return Err(Failure::correctness(what));
            };
            if self.history.commit(index, &header)? {
                self.durability.committed(index, &header)?;
                self.check_time(index, header.op, header.timestamp)?;
            }
        }
        Ok(())
    }

    /// The clocks of a minority must not carry the time of history away.
    fn check_time(&self, index: usize, op: u64, timestamp: u64) -> Result<(), Failure> {
        let ahead_ns = i128::from(timestamp) - true_realtime_ns(self.events.now_ns());
        require!(
            self.swarm.replicas < 3 || ahead_ns < TIME_ERROR_MAX_NS,
            "replica {index} committed op {op} with a time that is {} ms ahead",
            ahead_ns / 1_000_000
        );
        Ok(())
    }

    fn take_sends(&mut self, index: usize) -> Result<(), Failure> {
        loop {
            let process = &mut self.processes[index];
            let replica = process.replica.as_mut().expect("a running process");
            if let Some(closed) = replica.outbox.closes.pop() {
                let node = to_index(closed.index);
                self.network.disconnect(node, index);
                self.network.disconnect(index, node);
                continue;
            }
            let Some((destination, message)) = replica.outbox.sends.pop() else { return Ok(()) };
            let frame = FrameBytes::new(message.bytes());
            drop(message);
            self.check_sent(index, &frame)?;
            let node = match destination {
                Destination::Replica(node) => usize::from(node),
                Destination::Connection(connection) => {
                    let node = to_index(connection.index);
                    if self.network.connection(node, index) != connection.generation {
                        continue;
                    }
                    node
                }
            };
            require!(node != index, "replica {index} sends a message to itself");
            self.network.send(index, node, frame, &mut self.events, &mut self.faults);
        }
    }

    fn check_sent(&mut self, index: usize, frame: &FrameBytes) -> Result<(), Failure> {
        let bytes = frame.bytes();
        let header = Header::from_bytes(bytes);
        require!(
            frame_is_valid(bytes),
            "replica {index} sends an invalid frame: {} {:?}",
            describe(header),
            header.invalid()
        );
        if header.frame.command == Command::Block as u8 {
            return self.blocks.sends(index, header, &bytes[to_index(HEADER_SIZE)..]);
        }
        if header.frame.command != Command::Reply as u8 {
            return self.durability.sent(index, header);
        }
        let op = header.reply().op;
        let head = self.history.head();
        if op > head {
            self.commit_through(index, head, op)?;
        }
        self.history.reply(index, bytes)
    }
}

/// Looks for a prepare among what is about to be written.
fn learn_prepare(history: &mut History, zones: &Zones, request: &DiskRequest) {
    let is_write = matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable);
    if is_write && zones.locate(request.offset).0 == Zone::WalPrepares {
        let buffer = request.buffer.as_ref().expect("a write has a buffer");
        history.learn(&buffer.bytes()[to_index(request.buffer_offset)..]);
    }
}

/// What a bus checks of a frame before anybody interprets it.
fn frame_is_valid(bytes: &[u8]) -> bool {
    if bytes.len() < to_index(HEADER_SIZE) {
        return false;
    }
    let header = Header::from_bytes(bytes);
    header.valid_checksum()
        && header.frame.cluster == CLUSTER
        && to_index(header.frame.size) == bytes.len()
        && header.invalid().is_none()
        && header.valid_checksum_body(&bytes[to_index(HEADER_SIZE)..])
}

/// A header for people.
fn describe(header: &Header) -> String {
    let Ok(command) = Command::try_from(header.frame.command) else {
        return format!("command {}", header.frame.command);
    };
    let view = header.frame.view;
    match command {
        Command::Prepare => {
            let prepare = header.prepare();
            format!("Prepare v{view} op {} commit {}", prepare.op, prepare.commit)
        }
        Command::Request => {
            let request = header.request();
            format!("Request {} of {:#x}", request.request, request.client >> 64)
        }
        Command::Reply => {
            let reply = header.reply();
            format!("Reply {} of {:#x}, op {}", reply.request, reply.client >> 64, reply.op)
        }
        _ if command.is_peer() => {
            let peer = header.peer();
            let (op, commit, log_view) = (peer.op, peer.commit, peer.log_view);
            format!(
                "{command:?} v{view} op {op} commit {commit} log view {log_view} present {:b} \
                 nack {:b}",
                peer.present, peer.nack
            )
        }
        _ => format!("{command:?} v{view}"),
    }
}

fn summary(seen: &Seen) -> String {
    let status = match seen.status {
        None => "down".to_owned(),
        Some(Status::Opening(stage)) => format!("{stage:?}"),
        Some(status) => format!("{status:?}"),
    };
    format!("{status} v{} c{} k{}", seen.view, seen.commit, seen.checkpoint)
}
