//! The replica: what its components do together.
//!
//! A deterministic state machine without input or output of its own. Inputs are messages, answers
//! to disk requests, finished jobs and ticks; outputs wait in bounded queues in [`Outbox`] until
//! the world takes them. This file holds the state, the inputs and the answers to clients;
//! [`opening`](super::opening) brings the replica up, [`prepare`](super::prepare) puts requests
//! into the log, [`commit`](super::commit) executes them and [`checkpoint`](super::checkpoint)
//! makes their effects independent of the log. A cluster of one for now: no messages from other
//! replicas.

use super::checkpoint::Checkpoint;
use super::clock::{Now, PrimaryClock};
use super::commit::Commit;
use super::fatal::Fatal;
use super::journal::{Journal, JournalGeometry};
use super::journal_recovery::JournalRecovery;
use super::machine::StateMachine;
use super::opening::Opening;
use super::prepare::Pipeline;
use super::requests::{Circumstances, Verdict, judge};
use super::sessions::Sessions;
use super::superblock_zone::SuperblockZone;
use super::{ConnectionId, Destination, Outbox};
use crate::protocol::{
    Command, EvictionHeader, EvictionReason, Message, PingClientHeader, Pool, PrepareHeader,
    Release, to_index,
};
use crate::storage::{Config, DiskDone, DiskOwner, Job, StorageUse};

/// How long an idle primary waits before it looks again for something to expire.
const PULSE_INTERVAL_NS: u64 = 100_000_000;
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
    /// Geometry of the file.
    pub config: Config,
    /// Oldest client release admitted.
    pub release_client_min: Release,
    /// Newest client release admitted.
    pub release_client_max: Release,
}

/// How a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Coming up.
    Opening(Opening),
    /// Serving.
    Normal,
    /// Stopped; see [`Replica::fatal`].
    Fatal,
}

/// Buffers of `reply_size_max` bytes that a replica needs in the pool it shares with the bus: the
/// newest reply of each session and another being sent, a request of each, the pipeline with its
/// prepares and pulses, and what one operation, a replay and small answers take.
#[must_use]
pub fn messages_needed(config: &Config) -> u32 {
    let replies = 2 * config.clients_max;
    let requests = config.clients_max;
    let answers = 16;
    replies + requests + 2 * config.pipeline_max + answers
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
    /// Results for the world: to be drained after every input.
    pub outbox: Outbox,
    pub(super) pool: Pool,
    pub(super) status: Status,
    pub(super) fatal: Option<Fatal>,
    pub(super) superblock: SuperblockZone,
    pub(super) recovery: JournalRecovery,
    pub(super) journal: Journal,
    pub(super) sessions: Sessions,
    pub(super) pipeline: Pipeline,
    pub(super) clock: PrimaryClock,
    pub(super) commit: Commit,
    pub(super) checkpoint: Checkpoint,
    /// What the log is executed by.
    pub machine: M,
    pub(super) view: u32,
    /// Header of the newest op in the log.
    pub(super) head: PrepareHeader,
    pub(super) now: Now,
    pub(super) pulse_looked_ns: u64,
}

impl<M: StateMachine> Replica<M> {
    /// A replica that has not read its file. `pool` is shared with the bus.
    ///
    /// # Panics
    ///
    /// If the configuration is not valid or the pool's buffers are too small.
    #[must_use]
    pub fn new(options: &ReplicaOptions, pool: Pool, machine: M) -> Replica<M> {
        let config = &options.config;
        assert!(config.validate().is_ok(), "the configuration was validated");
        assert!(pool.size() >= config.reply_size_max.max(config.message_size_max));
        assert!(pool.count() >= messages_needed(config));
        let geometry = JournalGeometry::new(config, options.cluster);
        Replica {
            options: *options,
            outbox: Outbox::new(DISK_REQUESTS_MAX, JOBS_MAX, SENDS_MAX),
            status: Status::Opening(Opening::Start),
            fatal: None,
            superblock: SuperblockZone::new(),
            recovery: JournalRecovery::new(geometry, pool.clone()),
            journal: Journal::new(geometry),
            sessions: Sessions::new(config.clients_max),
            pipeline: Pipeline::new(config),
            clock: PrimaryClock::default(),
            commit: Commit::new(),
            checkpoint: Checkpoint::new(),
            machine,
            view: 0,
            head: PrepareHeader::root(options.cluster),
            now: Now::default(),
            pulse_looked_ns: 0,
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
        self.status = Status::Opening(Opening::Superblock);
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

    /// Newest op executed.
    #[must_use]
    pub fn commit_op(&self) -> u64 {
        self.commit.op
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

    /// Copies of the superblock, slots and sectors of the log that were repaired on opening.
    #[must_use]
    pub fn repairs(&self) -> u32 {
        self.superblock.repaired() + self.recovery.repairs()
    }

    /// Takes a message whose frame is whole and of our cluster. The buffer has no other reference.
    pub fn on_message(&mut self, connection: ConnectionId, message: Message, now: Now) {
        self.now = now;
        if self.status != Status::Normal {
            return;
        }
        match Command::try_from(message.header().frame.command) {
            Ok(Command::PingClient) => self.on_ping(connection, message.ping_client()),
            Ok(Command::Request) => self.on_request(connection, message),
            // Nobody sends a replica of a cluster of one anything else.
            Ok(_) | Err(_) => {}
        }
        self.pump();
    }

    /// Notes that the connection to another replica broke or was refused.
    pub fn on_peer_lost(&mut self, replica: u8, now: Now) {
        assert!(replica < self.options.replica_count + self.options.standby_count);
        self.now = now;
        self.pump();
    }

    /// Takes the answer to a disk request.
    pub fn on_disk_done(&mut self, done: DiskDone, now: Now) {
        self.now = now;
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
        self.now = now;
        if self.status != Status::Fatal {
            self.machine.on_job_done(job);
            self.pump();
        }
    }

    /// Lets time pass; to be called at least every 10 ms.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        if self.status == Status::Normal {
            let since = now.monotonic_ns.saturating_sub(self.pulse_looked_ns);
            if since >= PULSE_INTERVAL_NS && self.pipeline.is_empty() {
                self.prepare_pulse();
            }
        }
        self.pump();
    }

    /// Stops for good.
    pub(super) fn stop(&mut self, fatal: Fatal) {
        assert!(self.fatal.is_none(), "a replica stops once");
        self.fatal = Some(fatal);
        self.status = Status::Fatal;
    }

    /// Does everything that can be done now.
    pub(super) fn pump(&mut self) {
        if self.status == Status::Fatal {
            return;
        }
        // Each round ends with nothing left to do or with progress, which is finite: inputs are.
        loop {
            let mut progress = self.pump_opening();
            progress |= self.pump_commit();
            progress |= self.pump_checkpoint();
            if self.status == Status::Normal {
                progress |= self.pump_prepare();
            }
            self.machine.pump(&mut self.outbox.storage);
            if let Some(fault) = self.machine.fault()
                && self.fatal.is_none()
            {
                self.stop(Fatal::Grid(fault));
            }
            if self.status == Status::Fatal || !progress {
                return;
            }
        }
    }

    fn on_ping(&mut self, connection: ConnectionId, ping: &PingClientHeader) {
        if ping.invalid().is_some() || self.outbox.sends.is_full() {
            return;
        }
        let release = ping.frame.release;
        if release < self.options.release_client_min {
            return self.evict(connection, ping.client, EvictionReason::ClientReleaseTooLow);
        }
        if release > self.options.release_client_max {
            return self.evict(connection, ping.client, EvictionReason::ClientReleaseTooHigh);
        }
        let unknown = ping.session != 0 && self.sessions.find(ping.client).is_none();
        if unknown && ping.session <= self.commit.op {
            return self.evict(connection, ping.client, EvictionReason::NoSession);
        }
        let Some(buffer) = self.pool.try_acquire() else { return };
        let mut answer = Message::new(buffer, Command::PongClient);
        let header = answer.pong_client_mut();
        header.frame.cluster = self.options.cluster;
        header.frame.view = self.view;
        header.frame.release = Release::SERVER;
        header.frame.replica = self.options.replica;
        header.ping_timestamp_monotonic = ping.ping_timestamp_monotonic;
        answer.set_checksums();
        self.outbox.sends.push((Destination::Connection(connection), answer));
    }

    fn on_request(&mut self, connection: ConnectionId, message: Message) {
        let header = message.request();
        let client = header.client;
        let session = self.sessions.find(client);
        let circumstances = Circumstances {
            view: self.view,
            release_min: self.options.release_client_min,
            release_max: self.options.release_client_max,
            request_size_max: self.options.config.message_size_max,
            session: session.map(super::sessions::Session::facts),
            in_flight: self.pipeline.find(client).map(super::prepare::InFlight::facts),
            full: self.pipeline.is_full(),
        };
        match judge(header, message.body(), &circumstances) {
            Verdict::Ignore(_) => {
                // The same bytes from elsewhere: the client has reconnected.
                self.pipeline.heard(client, header.frame.checksum, connection);
            }
            Verdict::Evict(reason) => self.evict(connection, client, reason),
            Verdict::Resend => {
                let session = self.sessions.find_mut(client).expect("a known client");
                session.connection = Some(connection);
                if !self.outbox.sends.is_full() {
                    self.outbox
                        .sends
                        .push((Destination::Connection(connection), session.reply.clone()));
                }
            }
            Verdict::Accept(_) => {
                if let Some(session) = self.sessions.find_mut(client) {
                    session.connection = Some(connection);
                }
                self.pipeline.accept(connection, message);
            }
        }
    }

    /// Tells a client that its session is over. If there is no room the client asks again.
    fn evict(&mut self, connection: ConnectionId, client: u128, reason: EvictionReason) {
        if self.outbox.sends.is_full() {
            return;
        }
        let Some(buffer) = self.pool.try_acquire() else { return };
        let mut eviction = Message::new(buffer, Command::Eviction);
        let header: &mut EvictionHeader = eviction.eviction_mut();
        header.frame.cluster = self.options.cluster;
        header.frame.view = self.view;
        header.frame.release = Release::SERVER;
        header.frame.replica = self.options.replica;
        header.client = client;
        header.reason = reason.into();
        eviction.set_checksums();
        self.outbox.sends.push((Destination::Connection(connection), eviction));
    }

    /// Whether nothing waits, is being prepared, executed or checkpointed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let requests = self.pipeline.is_quiet() && self.commit.is_idle();
        requests && self.checkpoint.is_idle() && self.superblock.is_idle()
    }

    /// Whether op `op` makes a checkpoint.
    pub(super) fn is_checkpoint(&self, op: u64) -> bool {
        op > 0 && op.is_multiple_of(u64::from(self.options.config.checkpoint_interval))
    }

    /// Bytes of the body of the largest reply.
    pub(super) fn reply_body_max(&self) -> usize {
        to_index(self.options.config.reply_size_max - crate::protocol::HEADER_SIZE)
    }
}
