//! One simulated machine: a disk, a clock, a helper, and a process that comes and goes.
//!
//! The process is the production replica with the production ledger. It is started, killed, stopped
//! and continued here; what the disk does to requests is decided by whoever completes them.

use super::atlas::{rest_of_slot, superblock_is_damaged};
use super::clocks::Clock;
use super::disk::MemoryDisk;
use super::random::{Part, Random};
use crate::ledger::{Ledger, LedgerOptions};
use crate::protocol::{Pool, Release, SECTOR_SIZE, to_index};
use crate::storage::store::{Store, StoreOptions};
use crate::storage::{
    Config, DiskDone, DiskError, DiskKind, DiskOwner, DiskRequest, DiskToken, Job, Zone, Zones,
};
use crate::vsr::checkpoint::checkpoint_extra_max;
use crate::vsr::{
    FormatStep, Genesis, Now, Opening, Replica, ReplicaOptions, Status, format, messages_needed,
};

/// Bytes of a data file at most.
pub const STORAGE_LIMIT: u64 = 48 << 20;
/// The cluster's id.
pub const CLUSTER: u128 = 0x00f1_0217;
/// Nanoseconds between blocks of the scrub: often enough that it comes around in a run.
const SCRUB_NS: u64 = 10_000_000;
/// Buffers for what a bus holds: frames that arrive.
const BUS_MESSAGES: u32 = 32;

/// The geometry of all simulated data files: so small that everything happens often.
#[must_use]
pub const fn config() -> Config {
    let mut config = Config::testing();
    config.clients_max = 8;
    config
}

/// Who and where a machine is.
#[derive(Clone, Copy, Debug)]
pub struct ProcessOptions {
    /// The seed of the run.
    pub seed: u64,
    /// Index in the list of addresses.
    pub replica: u8,
    /// Replicas that vote.
    pub replica_count: u8,
    /// Standbys.
    pub standby_count: u8,
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It does not exist.
    Down,
    /// It runs.
    Running,
    /// It stands still until this time of the run, in nanoseconds.
    Paused {
        /// When it goes on.
        until_ns: u64,
    },
}

/// A disk that is slower than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gray {
    /// So many times.
    pub factor: u64,
    /// Until this time of the run, in nanoseconds.
    pub until_ns: u64,
}

/// A machine.
#[derive(Debug)]
pub struct Process {
    /// Who and where it is.
    pub options: ProcessOptions,
    /// Its disk.
    pub disk: MemoryDisk,
    /// Its clock.
    pub clock: Clock,
    /// What the process is doing.
    pub activity: Activity,
    /// The replica, unless the process is down.
    pub replica: Option<Box<Replica<Ledger>>>,
    /// Counts the starts.
    pub incarnation: u32,
    /// Whether others can tell that the process is gone.
    pub is_powered: bool,
    /// Release of its program.
    pub program: Release,
    /// Whether its disk is slow.
    pub gray: Option<Gray>,
    /// Until when its disk is full, if it is, in nanoseconds of the run.
    pub full_until_ns: Option<u64>,
    /// Requests of the disk that failed since the process was started.
    pub errors: u32,
    /// Whether it is planned when the replica gets around to its work.
    pub is_work_planned: bool,
    pool: Pool,
    jobs: Vec<(u64, Job)>,
    jobs_taken: u64,
    /// Latencies of the disk, and what a crash leaves.
    pub disk_random: Random,
    /// Durations of jobs.
    pub jobs_random: Random,
}

impl Process {
    /// A machine with a fresh data file whose process was not started.
    #[must_use]
    pub fn new(options: &ProcessOptions, clock: Clock) -> Process {
        let index = usize::from(options.replica);
        let count = messages_needed(&config()) + BUS_MESSAGES;
        Process {
            options: *options,
            disk: formatted(options, false),
            clock,
            activity: Activity::Down,
            replica: None,
            incarnation: 0,
            is_powered: true,
            program: Release::PROGRAM,
            gray: None,
            full_until_ns: None,
            errors: 0,
            is_work_planned: false,
            pool: Pool::new("messages", count, config().reply_size_max),
            jobs: Vec::new(),
            jobs_taken: 0,
            disk_random: Random::new(options.seed, Part::Disk, index),
            jobs_random: Random::new(options.seed, Part::Jobs, index),
        }
    }

    /// Whether it votes.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.options.replica < self.options.replica_count
    }

    /// Whether the process takes inputs now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.activity == Activity::Running
    }

    /// How the replica is, if there is a process.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.replica.as_ref().map(|replica| replica.status())
    }

    /// Whether the replica takes part in the protocol.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        self.status() == Some(Status::Normal)
    }

    /// What its clock shows.
    #[must_use]
    pub fn now(&self, elapsed_ns: u64) -> Now {
        self.clock.now(elapsed_ns)
    }

    /// Starts the process.
    ///
    /// # Panics
    ///
    /// If there is one.
    pub fn start(&mut self, elapsed_ns: u64) {
        assert!(self.replica.is_none(), "a process is started once");
        self.incarnation += 1;
        let options = &self.options;
        let index = usize::from(options.replica);
        let mut random = Random::new(options.seed, Part::Replica, index);
        for _ in 0..self.incarnation {
            random.number();
        }
        let replica_options = ReplicaOptions {
            cluster: CLUSTER,
            replica: options.replica,
            replica_count: options.replica_count,
            standby_count: options.standby_count,
            seed: random.number(),
            scrub_ns: SCRUB_NS,
            config: config(),
            program: self.program,
            release_client_min: Release::CLIENT_MIN,
            release_client_max: Release::CLIENT_MAX,
        };
        let mut replica = Replica::new(&replica_options, self.pool.clone(), ledger());
        replica.open(self.now(elapsed_ns));
        self.replica = Some(Box::new(replica));
        self.activity = Activity::Running;
        self.is_powered = true;
        self.errors = 0;
        self.is_work_planned = false;
    }

    /// Lets a request of the disk end as it should; `None` if it is not in flight any more.
    pub fn complete_request(&mut self, id: u64) -> Option<DiskDone> {
        let done = self.disk.complete(id)?;
        let rest = rest_of_slot(&done.request).filter(|_| done.result.is_ok());
        if let Some((offset, length)) = rest {
            self.disk.disregard(offset, length);
        }
        Some(done)
    }

    /// Lets a request of the disk fail; `None` if it is not in flight any more.
    pub fn fail_request(&mut self, id: u64, error: DiskError) -> Option<DiskDone> {
        self.disk.complete_failed(id, error, self.disk_random.generator())
    }

    /// Kills the process, or the whole machine; both lose what the disk may lose.
    ///
    /// # Panics
    ///
    /// If there is none, or if it leaves a message behind.
    pub fn kill(&mut self, is_powered: bool) {
        assert!(self.replica.is_some(), "only what runs is killed");
        self.replica = None;
        self.jobs.clear();
        // Of four copies of the superblock a torn write may spoil one, if no other is spoilt.
        let damaged = superblock_is_damaged(&self.disk);
        let start = Zones::new(&config()).start(Zone::WalHeaders);
        let untorn_below = if damaged { start } else { 0 };
        self.disk.crash_untorn(self.disk_random.generator(), untorn_below);
        self.activity = Activity::Down;
        self.is_powered = is_powered;
        assert!(self.pool.available() == self.pool.count(), "a message outlived its replica");
    }

    /// Makes the data file anew, as after the loss of the old one.
    ///
    /// # Panics
    ///
    /// If the process runs.
    pub fn lose_file(&mut self) {
        assert!(self.replica.is_none(), "the file of a process that runs is in use");
        self.disk = formatted(&self.options, true);
    }

    /// Buffers that the replica holds.
    #[must_use]
    pub fn messages_held(&self) -> u32 {
        self.pool.count() - self.pool.available()
    }

    /// The pool of messages.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Jobs that were not given back.
    #[must_use]
    pub fn jobs_count(&self) -> usize {
        self.jobs.len()
    }

    /// Takes a job; returns its number.
    pub fn take_job(&mut self, job: Job) -> u64 {
        self.jobs_taken += 1;
        self.jobs.push((self.jobs_taken, job));
        self.jobs_taken
    }

    /// Does a job; `None` if it is gone.
    pub fn do_job(&mut self, id: u64) -> Option<Job> {
        let place = self.jobs.iter().position(|(number, _)| *number == id)?;
        let (_, mut job) = self.jobs.swap_remove(place);
        job.run();
        Some(job)
    }

    /// Whether the superblock was read, so that the replica knows its checkpoint.
    #[must_use]
    pub fn knows_checkpoint(&self) -> bool {
        !matches!(
            self.status(),
            None | Some(Status::Opening(Opening::Start | Opening::Superblock) | Status::Fatal)
        )
    }

    /// Whether the replica cannot help others: it does not know its head, or needs state sync.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| {
            replica.status() == Status::RecoveringHead || replica.waits_for_sync()
        })
    }

    /// Whether nothing is on its way in replica, disk and helper.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let Some(replica) = &self.replica else { return true };
        // Blocks are read all the time.
        replica.is_quiet() && self.disk.writes_in_flight() == 0 && self.jobs.is_empty()
    }
}

fn ledger() -> Ledger {
    let config = config();
    let options = StoreOptions {
        cluster: CLUSTER,
        cache_grid_bytes: 128 << 10,
        cache_transfers_bytes: 0,
        storage_limit_bytes: STORAGE_LIMIT,
        blob_extra_bytes: checkpoint_extra_max(&config),
        filter_bytes: 64 << 10,
        page_reads_max: 8,
    };
    Ledger::new(Store::new(&config, &options), &LedgerOptions::new(&config, 0))
}

/// A disk as the formatting program leaves it.
fn formatted(options: &ProcessOptions, is_recovering: bool) -> MemoryDisk {
    let config = config();
    let zones = Zones::new(&config);
    let mut disk = MemoryDisk::new(zones.start(Zone::Grid) + STORAGE_LIMIT);
    let genesis = Genesis {
        cluster: CLUSTER,
        replica: options.replica,
        replica_count: options.replica_count,
        config,
        is_recovering,
    };
    for step in format(&genesis) {
        if let FormatStep::Write { offset, bytes } = step {
            write(&mut disk, offset, &bytes);
        }
    }
    disk
}

/// Writes bytes durably, sector by sector.
fn write(disk: &mut MemoryDisk, offset: u64, bytes: &[u8]) {
    let pool = Pool::new("format", 1, SECTOR_SIZE);
    for (index, sector) in (0..).zip(bytes.chunks(to_index(SECTOR_SIZE))) {
        let mut buffer = pool.acquire();
        buffer.bytes_mut().copy_from_slice(sector);
        let id = disk.submit(DiskRequest {
            token: DiskToken { owner: DiskOwner::Superblock, index: 0 },
            kind: DiskKind::WriteDurable,
            offset: offset + index * u64::from(SECTOR_SIZE),
            length: SECTOR_SIZE,
            buffer: Some(buffer),
            buffer_offset: 0,
        });
        assert!(disk.complete(id).is_some_and(|done| done.result.is_ok()));
    }
}
