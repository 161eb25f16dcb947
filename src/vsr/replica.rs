//! The replica: what its components do together.
//!
//! A deterministic state machine without input or output of its own. Inputs are messages, answers
//! to disk requests, finished jobs, lost connections and ticks; outputs wait in bounded queues in
//! [`Outbox`] until the world takes them. This file holds the state and the inputs. What follows
//! from them is in files of their own: [`opening`](super::opening) brings the replica up,
//! [`client_requests`](super::client_requests) answers clients, [`prepare`](super::prepare) puts
//! requests into the log, [`replication`](super::replication) makes them durable on a quorum,
//! [`commit`](super::commit) executes them, [`checkpoint`](super::checkpoint) makes their effects
//! independent of the log, [`view_change`](super::view_change) replaces a primary,
//! [`repair`](super::repair) fetches what is missing in the log,
//! [`block_repair`](super::block_repair) in the grid, [`sync`](super::sync) brings back who was
//! away for too long, [`recover`](super::recover) who lost its data file,
//! [`upgrade`](super::upgrade) says by which rules an op is executed,
//! [`timers`](super::timers) says when.

use super::ahead::Ahead;
use super::block_repair::BlockRepair;
use super::checkpoint::Checkpoint;
use super::clock::{ClusterClock, Now, PrimaryClock};
use super::commit::Commit;
use super::endings::{Ending, Endings};
use super::fatal::Fatal;
use super::held::HeldRequests;
use super::journal::{Journal, JournalGeometry, ReadDone, ReadFault, ReadPurpose};
use super::journal_recovery::JournalRecovery;
use super::laps::{Lap, Laps, Stage};
use super::log_chain::LogChain;
use super::machine::StateMachine;
use super::missing_op::MissingOp;
use super::opening::Opening;
use super::peers::Peers;
use super::prepare::Pipeline;
use super::quorum::Quorums;
use super::readiness::Progress;
use super::recent::RecentPrepares;
use super::recover::Recover;
use super::repair::Repair;
use super::scrub::Scrub;
use super::sessions::Sessions;
use super::superblock_zone::SuperblockZone;
use super::sync::Sync;
use super::timers::Timers;
use super::view_change::ViewChange;
use super::{ConnectionId, Destination, Outbox};
use crate::protocol::{
    Command, Message, NODES_MAX, Pool, PrepareHeader, REPLICAS_MAX, Release, STANDBYS_MAX, to_index,
};
use crate::storage::{Config, DiskDone, DiskOwner, Job, StorageUse};

/// Disk requests between two visits of the world at most.
const DISK_REQUESTS_MAX: usize = 1024;
/// Jobs between two visits of the world at most.
const JOBS_MAX: usize = 32;
/// Messages to send between two visits of the world at most.
const SENDS_MAX: usize = 256;

/// What a replica is started with; cluster and geometry must be those of the file.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaOptions {
    /// The cluster.
    pub cluster: u128,
    /// Index of this replica; a standby's is not below `replica_count`.
    pub replica: u8,
    /// Replicas that vote, from 1 to 6.
    pub replica_count: u8,
    /// Standbys, up to 6.
    pub standby_count: u8,
    /// Where the jitter of timeouts comes from.
    pub seed: u64,
    /// Nanoseconds between blocks that the scrub reads.
    pub scrub_ns: u64,
    /// Geometry of the file.
    pub config: Config,
    /// Release of the program.
    pub program: Release,
    /// Oldest client release admitted.
    pub release_client_min: Release,
    /// Newest client release admitted.
    pub release_client_max: Release,
}

impl ReplicaOptions {
    /// Replicas and standbys together.
    #[must_use]
    pub fn nodes(&self) -> u8 {
        self.replica_count + self.standby_count
    }

    /// Whether this replica follows without a vote.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.replica >= self.replica_count
    }

    /// Whether this replica is the only one that votes.
    #[must_use]
    pub fn is_solo(&self) -> bool {
        self.replica_count == 1 && !self.is_standby()
    }

    /// Index of the primary of a view.
    ///
    /// # Panics
    ///
    /// Never: a remainder is below its divisor.
    #[must_use]
    pub fn primary_of(&self, view: u32) -> u8 {
        u8::try_from(view % u32::from(self.replica_count)).expect("below the number of replicas")
    }
}

/// How a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Coming up.
    Opening(Opening),
    /// Taking part in its view.
    Normal,
    /// Between two views.
    ViewChange,
    /// The end of its log is uncertain: waits for a view to tell it.
    RecoveringHead,
    /// Stopped; see [`Replica::fatal`].
    Fatal,
}

/// What a replica does for its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It orders.
    Primary,
    /// It follows the primary.
    Follower,
    /// Between two views.
    Changing,
    /// It does not know the end of its log.
    Recovering,
}

/// How a replica stands in its cluster, for people.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each told by itself")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterState {
    /// Its view.
    pub view: u32,
    /// The primary of that view.
    pub primary: u8,
    /// What it does.
    pub role: Role,
    /// Newest op executed here.
    pub executed: u64,
    /// Newest op known to be committed.
    pub committed: u64,
    /// It cannot catch up from the logs of others.
    pub too_far_behind: bool,
    /// Blocks of its checkpoint may be missing.
    pub syncing: bool,
    /// Its data file was lost, and it has no vote yet.
    pub recovering: bool,
    /// There is a time that a majority of the clocks agrees on.
    pub clocks_agree: bool,
}

/// Buffers of `reply_size_max` bytes that a replica needs in the pool it shares with the bus: the
/// newest reply of each session and another being sent, a request of each accepted and one held,
/// the pipeline with its prepares and pulses, prepares kept, read and repaired, and what one
/// operation, a replay and small answers take.
#[must_use]
pub fn messages_needed(config: &Config) -> u32 {
    let replies = 2 * config.clients_max;
    let requests = 2 * config.clients_max;
    let prepares = 2 * config.pipeline_max + RecentPrepares::places(config.pipeline_max);
    let repairs = 16;
    let answers = 32;
    replies + requests + prepares + repairs + answers
}

/// Bytes of a replica's write-ahead log in memory.
#[must_use]
pub fn journal_memory_bytes(config: &Config, cluster: u128) -> u64 {
    let geometry = JournalGeometry::new(config, cluster);
    Journal::memory_bytes(&geometry) + JournalRecovery::memory_bytes(&geometry)
}

/// A replica and everything it owns.
#[derive(Debug)]
pub struct Replica<M> {
    pub(super) options: ReplicaOptions,
    pub(super) quorums: Quorums,
    /// Results for the world: to be drained after every input.
    pub outbox: Outbox,
    pub(super) pool: Pool,
    pub(super) status: Status,
    pub(super) fatal: Option<Fatal>,
    pub(super) superblock: SuperblockZone,
    pub(super) recovery: JournalRecovery,
    pub(super) journal: Journal,
    pub(super) recent: RecentPrepares,
    pub(super) sessions: Sessions,
    pub(super) pipeline: Pipeline,
    pub(super) held: HeldRequests,
    pub(super) clock: PrimaryClock,
    pub(super) cluster_clock: ClusterClock,
    pub(super) commit: Commit,
    pub(super) ahead: Ahead,
    /// Newest op known to be committed.
    pub(super) commit_max: u64,
    pub(super) checkpoint: Checkpoint,
    /// What the log is executed by.
    pub machine: M,
    pub(super) view: u32,
    /// Newest view in which this replica was in normal operation.
    pub(super) log_view: u32,
    /// The log as `log_view` has it.
    pub(super) chain: LogChain,
    /// The head with which the view began here.
    pub(super) view_op: u64,
    pub(super) change: ViewChange,
    pub(super) repair: Repair,
    pub(super) blocks: BlockRepair,
    pub(super) sync: Sync,
    pub(super) missing: Option<MissingOp>,
    pub(super) scrub: Scrub,
    pub(super) recover: Recover,
    pub(super) peers: Peers,
    pub(super) timers: Timers,
    pub(super) now: Now,
    pub(super) pulse_looked_ns: u64,
    pub(super) laps: Laps,
    pub(super) progress: Progress,
    pub(super) endings: Endings,
}

impl<M: StateMachine> Replica<M> {
    /// A replica that has not read its file. `pool` is shared with the bus.
    ///
    /// # Panics
    ///
    /// If the options are not valid or the pool's buffers are too small.
    #[must_use]
    pub fn new(options: &ReplicaOptions, pool: Pool, machine: M) -> Replica<M> {
        let config = &options.config;
        assert!(config.validate().is_ok(), "the configuration was validated");
        assert!((1..=REPLICAS_MAX).contains(&options.replica_count));
        assert!(options.standby_count <= STANDBYS_MAX);
        assert!(options.replica < options.nodes());
        assert!(pool.size() >= config.reply_size_max.max(config.message_size_max));
        assert!(pool.count() >= messages_needed(config));
        // What may be uncommitted, and one below, is reported and written down with each view.
        assert!(config.pipeline_max < super::superblock::VIEW_HEADERS_MAX);
        let geometry = JournalGeometry::new(config, options.cluster);
        let root = PrepareHeader::root(options.cluster);
        Replica {
            options: *options,
            quorums: Quorums::new(options.replica_count),
            outbox: Outbox::new(DISK_REQUESTS_MAX, JOBS_MAX, SENDS_MAX),
            status: Status::Opening(Opening::Start),
            fatal: None,
            superblock: SuperblockZone::new(),
            recovery: JournalRecovery::new(geometry, pool.clone()),
            journal: Journal::new(geometry),
            recent: RecentPrepares::new(config.pipeline_max),
            sessions: Sessions::new(config.clients_max),
            pipeline: Pipeline::new(config),
            held: HeldRequests::new(config.clients_max),
            clock: PrimaryClock::default(),
            cluster_clock: ClusterClock::new(options.replica, options.replica_count),
            commit: Commit::new(),
            ahead: Ahead::new(config),
            commit_max: 0,
            checkpoint: Checkpoint::new(),
            machine,
            view: 0,
            log_view: 0,
            chain: LogChain::new(&root),
            view_op: 0,
            change: ViewChange::new(&root),
            repair: Repair::default(),
            blocks: BlockRepair::new(),
            sync: Sync::new(),
            missing: None,
            scrub: Scrub::new(),
            recover: Recover::default(),
            peers: Peers::default(),
            timers: Timers::new(options.seed),
            now: Now::default(),
            pulse_looked_ns: 0,
            laps: Laps::new(),
            progress: Progress::new(),
            endings: Endings::new(),
            pool,
        }
    }

    /// Starts to read the file.
    ///
    /// # Panics
    ///
    /// If called twice.
    pub fn open(&mut self, now: Now) {
        assert!(self.status == Status::Opening(Opening::Start), "a replica is opened once");
        self.now = now;
        self.superblock.open(&mut self.outbox.storage);
        if !self.options.is_solo()
            && let Some(blocks) = self.machine.blocks()
        {
            blocks.set_has_peers();
        }
        self.status = Status::Opening(Opening::Superblock);
    }

    /// Whether there are other replicas or standbys.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.options.replica_count + self.options.standby_count > 1
    }

    /// How the replica is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why the replica stopped, if it did.
    #[must_use]
    pub fn fatal(&self) -> Option<&Fatal> {
        self.fatal.as_ref()
    }

    /// The view; zero while opening.
    #[must_use]
    pub fn view(&self) -> u32 {
        self.view
    }

    /// Newest view in which this replica was in normal operation.
    #[must_use]
    pub fn log_view(&self) -> u32 {
        self.log_view
    }

    /// Whether this replica is the primary of its view, and the view has begun.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.status == Status::Normal && self.is_primary_index()
    }

    /// Whether the view's primary would be this replica.
    pub(super) fn is_primary_index(&self) -> bool {
        self.options.primary_of(self.view) == self.options.replica
    }

    /// Newest op that is executed and committed.
    #[must_use]
    pub fn commit_op(&self) -> u64 {
        self.commit.op.min(self.commit_max)
    }

    /// Newest op known to be committed.
    #[must_use]
    pub fn commit_max(&self) -> u64 {
        self.commit_max
    }

    /// Newest op of the log.
    #[must_use]
    pub fn head_op(&self) -> u64 {
        self.chain.head().op
    }

    /// Op of the newest durable checkpoint; meaningful once the superblock was read.
    ///
    /// # Panics
    ///
    /// Before.
    #[must_use]
    pub fn checkpoint_op(&self) -> u64 {
        self.superblock.durable().checkpoint.op
    }

    /// How this replica stands in its cluster; `None` while opening and in a cluster of one.
    #[must_use]
    pub fn cluster_state(&self) -> Option<ClusterState> {
        let role = match self.status {
            Status::Normal if self.is_primary_index() => Role::Primary,
            Status::Normal => Role::Follower,
            Status::ViewChange => Role::Changing,
            Status::RecoveringHead => Role::Recovering,
            Status::Opening(_) | Status::Fatal => return None,
        };
        (!self.options.is_solo()).then(|| ClusterState {
            view: self.view,
            primary: self.options.primary_of(self.view),
            role,
            executed: self.commit_op(),
            committed: self.commit_max,
            too_far_behind: self.waits_for_sync(),
            syncing: self.is_syncing(),
            recovering: self.is_recovering(),
            clocks_agree: self.cluster_now().is_some(),
        })
    }

    /// How much of the storage limit is used; meaningful while serving.
    #[must_use]
    pub fn storage_use(&self) -> StorageUse {
        self.machine.storage_use()
    }

    /// Sessions now.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.sessions.len()
    }

    /// Copies of the superblock, and slots and sectors of the log, that were damaged since the file
    /// was opened. But for prepares that no peer has sent yet they are repaired.
    #[must_use]
    pub fn repairs(&self) -> u64 {
        let opening = u64::from(self.superblock.repaired() + self.recovery.repairs());
        opening + self.journal.sectors_repaired() + self.repair.prepares_damaged
    }

    /// Whether no prepare that a restart would execute is known to be damaged here.
    #[must_use]
    pub fn is_log_whole(&self) -> bool {
        !self.repair.has_damaged()
    }

    /// The next stage of the work that has ended, to be measured.
    pub fn next_lap(&mut self) -> Option<Lap> {
        self.laps.take()
    }

    /// The next session that ended against its client's will, to be logged.
    pub fn next_ending(&mut self) -> Option<Ending> {
        self.endings.take()
    }

    /// Notes that a stage has ended which began then; not what is done again after a restart.
    pub(super) fn lap(&mut self, stage: Stage, since_ns: u64) {
        if self.status == Status::Normal {
            self.laps.end(stage, since_ns);
        }
    }

    /// Notes that something has happened.
    fn input(&mut self, now: Now) {
        self.now = now;
        self.ahead.input();
    }

    /// Takes a message whose frame is whole and of our cluster. The buffer has no other reference.
    pub fn on_message(&mut self, connection: ConnectionId, message: Message, now: Now) {
        self.input(now);
        let header = message.header();
        let Ok(command) = Command::try_from(header.frame.command) else { return };
        if command.is_peer() {
            if header.invalid().is_none() && header.frame.replica < self.options.nodes() {
                self.on_peer_message(connection, command, &message);
            }
        } else if self.listens(command) {
            match command {
                Command::PingClient => self.on_ping_client(connection, message.ping_client()),
                Command::Request => self.on_request(connection, message),
                Command::Prepare => self.on_prepare(connection, message),
                Command::Eviction => self.on_eviction(connection, message),
                // Replies and pongs are for clients.
                _ => {}
            }
        }
        self.pump();
    }

    /// Whether a message of this kind is wanted now: while opening only what may help with it.
    fn listens(&self, command: Command) -> bool {
        let block = matches!(command, Command::Block | Command::RequestBlock);
        match self.status {
            Status::Opening(Opening::Checkpoint) => block || command == Command::Checkpoint,
            Status::Opening(Opening::Journal) => block,
            Status::Opening(_) | Status::Fatal => false,
            Status::Normal | Status::ViewChange | Status::RecoveringHead => true,
        }
    }

    fn on_peer_message(&mut self, connection: ConnectionId, command: Command, message: &Message) {
        let replica = message.header().frame.replica;
        if replica == self.options.replica {
            return;
        }
        self.peers.heard(replica, connection, self.now.monotonic_ns);
        if !self.listens(command) {
            return;
        }
        if matches!(self.status, Status::Opening(_)) {
            match command {
                Command::Block => self.on_block(message),
                // Others may open a checkpoint too, and lack another block.
                Command::RequestBlock => self.on_request_block(message),
                _ => self.consider_checkpoint(message),
            }
            return;
        }
        match command {
            Command::Ping => self.on_ping(message),
            Command::Pong => self.on_pong(message),
            Command::PrepareOk => self.on_prepare_ok(message),
            Command::Commit => self.on_commit(message),
            Command::StartViewChange => self.on_start_view_change(message),
            Command::DoViewChange => self.on_do_view_change(message),
            Command::RequestStartView => self.on_request_start_view(message),
            Command::RequestHeaders => self.on_request_headers(message),
            Command::RequestPrepare => self.on_request_prepare(message),
            Command::Headers => self.on_headers(message),
            Command::StartView => self.on_start_view(message),
            Command::RequestBlock => self.on_request_block(message),
            Command::Block => self.on_block(message),
            Command::RequestCheckpoint => self.on_request_checkpoint(message),
            Command::Checkpoint => self.consider_checkpoint(message),
            other => panic!("{other:?} is no message of a replica"),
        }
    }

    /// Notes that the connection to another replica broke or was refused: evidence, no proof.
    ///
    /// # Panics
    ///
    /// If there is no such replica.
    pub fn on_peer_lost(&mut self, replica: u8, now: Now) {
        assert!(replica < self.options.nodes());
        self.input(now);
        self.peers.lost(replica);
        if matches!(self.status, Status::Normal | Status::ViewChange) {
            self.suspect_primary(replica);
        }
        self.pump();
    }

    /// Takes the answer to a disk request.
    pub fn on_disk_done(&mut self, done: DiskDone, now: Now) {
        self.input(now);
        if self.status == Status::Fatal {
            return;
        }
        let storage = &mut self.outbox.storage;
        let result = match done.request.token.owner {
            DiskOwner::Superblock => self.superblock.on_disk_done(done, storage),
            DiskOwner::JournalPrepare | DiskOwner::JournalHeader => {
                if self.status == Status::Opening(Opening::Journal) {
                    self.recovery.on_disk_done(done, storage)
                } else {
                    self.journal.on_disk_done(done, storage)
                }
            }
            DiskOwner::GridPage
            | DiskOwner::GridBlock
            | DiskOwner::GridWrite
            | DiskOwner::GridSync => {
                self.machine.on_disk_done(done);
                Ok(())
            }
        };
        match result {
            Ok(()) => self.pump(),
            Err(fatal) => self.stop(fatal),
        }
    }

    /// Takes back a job that was done.
    pub fn on_job_done(&mut self, job: Job, now: Now) {
        self.input(now);
        if self.status != Status::Fatal {
            self.machine.on_job_done(job);
            self.pump();
        }
    }

    /// Lets time pass; to be called at least every 10 ms.
    pub fn tick(&mut self, now: Now) {
        self.input(now);
        self.pump_timers();
        self.pump();
        self.note_progress();
    }

    /// Stops for good.
    pub(super) fn stop(&mut self, fatal: Fatal) {
        if self.fatal.is_none() {
            self.fatal = Some(fatal);
            self.status = Status::Fatal;
        }
    }

    /// Does everything that can be done now.
    pub(super) fn pump(&mut self) {
        // Each round ends with nothing left to do or with progress, which is finite: inputs are.
        while self.status != Status::Fatal {
            self.check_log_program();
            let mut progress = self.pump_sync();
            if self.status == Status::Fatal {
                // It starts again from what the superblock says now.
                break;
            }
            progress |= self.pump_opening();
            progress |= self.pump_journal();
            progress |= self.pump_view();
            progress |= self.pump_recover();
            // Before commits, which may go on to the next checkpoint once this one is durable.
            progress |= self.pump_checkpoint();
            progress |= self.pump_ahead();
            progress |= self.pump_commit();
            progress |= self.pump_repair();
            progress |= self.pump_blocks();
            progress |= self.pump_requests();
            progress |= self.pump_prepare();
            self.outbox.storage.is_log_busy = self.journal.is_busy();
            self.machine.pump(&mut self.outbox.storage);
            if let Some(fault) = self.machine.fault() {
                self.stop(Fatal::Grid(fault));
            }
            if !progress {
                break;
            }
        }
        self.send_commit_if_idle();
    }

    /// Takes what the journal has finished; whether there was anything.
    fn pump_journal(&mut self) -> bool {
        let mut progress = false;
        while let Some(header) = self.journal.take_written() {
            self.laps.write_ended(header.op, self.now.monotonic_ns);
            self.acknowledge(header.op, header.frame.checksum);
            progress = true;
        }
        while let Some(read) = self.journal.take_read() {
            self.on_journal_read(read);
            progress = true;
        }
        progress
    }

    fn on_journal_read(&mut self, read: ReadDone) {
        if let Err(ReadFault::Lost(fatal)) = read.result {
            if self.options.is_solo() && read.purpose != ReadPurpose::Scrub {
                return self.stop(fatal);
            }
            self.prepare_damaged(read.op, read.checksum);
        }
        let message = read.result.ok();
        if message.is_none() {
            crate::mark!("journal_read_failed");
        }
        match read.purpose {
            ReadPurpose::Scrub => {}
            ReadPurpose::Commit => self.commit_loaded(message),
            ReadPurpose::Serve { to } => {
                if let Some(message) = message {
                    self.send(Destination::Replica(to), message);
                }
            }
        }
    }

    /// Sends a message, unless too many wait already: all of them are sent again if needed.
    pub(super) fn send(&mut self, destination: Destination, message: Message) {
        // Replies of the op being executed have their own room.
        if self.outbox.sends.room() > usize::from(NODES_MAX) {
            self.outbox.sends.push((destination, message));
        }
    }

    /// A control message from here; none if no buffer is free.
    pub(super) fn control(&self, command: Command) -> Option<Message> {
        let mut message = Message::new(self.pool.try_acquire()?, command);
        let peer = message.peer_mut();
        peer.frame.cluster = self.options.cluster;
        peer.frame.view = self.view;
        peer.frame.release = Release::SERVER;
        peer.frame.replica = self.options.replica;
        Some(message)
    }

    /// Sends a control message to all other replicas that vote, and to standbys if they are meant.
    pub(super) fn broadcast(&mut self, mut message: Message, to: Audience) {
        message.set_checksums();
        let count = match to {
            Audience::Voters => self.options.replica_count,
            Audience::All => self.options.nodes(),
        };
        for replica in (0..count).filter(|replica| *replica != self.options.replica) {
            if self.outbox.sends.room() > usize::from(NODES_MAX) {
                self.outbox.sends.push((Destination::Replica(replica), message.clone()));
            }
        }
    }

    /// Sends a control message to one replica.
    pub(super) fn send_control(&mut self, replica: u8, mut message: Message) {
        assert!(replica != self.options.replica);
        message.set_checksums();
        self.send(Destination::Replica(replica), message);
    }

    /// Whether nothing waits, is being prepared, executed or checkpointed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let requests = self.pipeline.is_quiet() && self.commit.is_idle();
        let disk = self.superblock.is_resting() && self.journal.is_idle();
        requests && self.checkpoint.is_idle() && disk
    }

    /// Whether op `op` makes a checkpoint.
    pub(super) fn is_checkpoint(&self, op: u64) -> bool {
        op > 0 && op.is_multiple_of(u64::from(self.options.config.checkpoint_interval))
    }

    /// Highest op for which the log has a slot whose old content is not needed any more.
    pub(super) fn op_max(&self) -> u64 {
        let slots = u64::from(self.options.config.journal_slots);
        self.superblock.durable().checkpoint.op + slots
    }

    /// Bytes of the body of the largest reply.
    pub(super) fn reply_body_max(&self) -> usize {
        to_index(self.options.config.reply_size_max - crate::protocol::HEADER_SIZE)
    }
}

/// Whom a control message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// All other replicas that vote.
    Voters,
    /// Standbys too.
    All,
}
