//! Executes the write-ahead log of a cluster of one, as a server does when it starts.
//!
//! A replica in memory reads the file; its writes are kept in memory, and the file does not change.
//! So the replica has every op that was ever acknowledged. Not for replicas of larger clusters: the
//! other replicas decide which ops of their logs are committed.

use std::collections::BTreeMap;

use crate::cli::exit::{ExitClass, Failure};
use crate::cli::inspect::file::Inspected;
use crate::cli::start::fatal_class;
use crate::io::memory;
use crate::ledger::{Ledger, LedgerOptions};
use crate::protocol::types::{Account, Transfer};
use crate::protocol::{AlignedMemory, Pool, Release, SECTOR_SIZE, to_index};
use crate::storage::fetch::Fetch;
use crate::storage::store::{Store, StoreOptions};
use crate::storage::{Config, DiskDone, DiskError, DiskKind, DiskRequest};
use crate::vsr::checkpoint::checkpoint_extra_max;
use crate::vsr::{Now, Replica, ReplicaOptions, Status, journal_memory_bytes, messages_needed};

/// Memory for pages of the file and for filters, in bytes.
const CACHE_SIZE: u64 = 32 << 20;
/// Maximum number of cached accounts.
const ACCOUNTS: u32 = 1 << 16;
/// Limit of the grid in bytes: the log of any file fits.
const STORAGE_LIMIT: u64 = 4 << 40;
/// Maximum page reads in flight.
const PAGE_READS_MAX: u32 = 256;
/// Time between two ticks of the replica, in nanoseconds.
const TICK_NS: u64 = 10_000_000;
/// Maximum number of ticks until the replica is open.
const TICKS_MAX: u32 = 100_000;

/// A replica on a file that is not written. See the module.
#[derive(Debug)]
pub struct Replayed {
    replica: Box<Replica<Ledger>>,
    overlay: Overlay,
    now: Now,
}

impl Replayed {
    /// Opens the file and executes its log.
    ///
    /// # Errors
    ///
    /// If something is damaged that a start needs, or the limits of the process have no room for a
    /// replica.
    ///
    /// # Panics
    ///
    /// If the file is one of a larger cluster, or the replica does not open.
    pub fn new(inspected: &Inspected) -> Result<Replayed, Failure> {
        let superblock = &inspected.superblock;
        assert_eq!(superblock.replica_count, 1, "others would have to be asked");
        let config = &superblock.config;
        let store = StoreOptions {
            cluster: superblock.cluster,
            cache_grid_bytes: CACHE_SIZE,
            cache_transfers_bytes: CACHE_SIZE,
            filter_bytes: CACHE_SIZE,
            storage_limit_bytes: STORAGE_LIMIT,
            blob_extra_bytes: checkpoint_extra_max(config),
            page_reads_max: PAGE_READS_MAX,
        };
        let ledger = LedgerOptions::new(config, ACCOUNTS);
        check_memory(inspected, &store, &ledger)?;
        let ledger = Ledger::new(Store::new(config, &store), &ledger);
        let options = ReplicaOptions {
            cluster: superblock.cluster,
            replica: superblock.replica,
            replica_count: superblock.replica_count,
            standby_count: 0,
            seed: 1,
            scrub_ns: u64::MAX,
            config: *config,
            program: Release::PROGRAM,
            release_client_min: Release::CLIENT_MIN,
            release_client_max: Release::CLIENT_MAX,
        };
        let (count, size) = message_sizes(config);
        let pool = Pool::new("messages", count, size);
        let mut replayed = Replayed {
            replica: Box::new(Replica::new(&options, pool, ledger)),
            overlay: Overlay::default(),
            // Any time: new timestamps follow the newest one in the log.
            now: Now { realtime_ns: 1, monotonic_ns: 1 },
        };
        replayed.replica.open(replayed.now);
        replayed.open(inspected)?;
        Ok(replayed)
    }

    fn open(&mut self, inspected: &Inspected) -> Result<(), Failure> {
        for _ in 0..TICKS_MAX {
            self.settle(inspected)?;
            if self.replica.status() == Status::Normal {
                return Ok(());
            }
            self.now.monotonic_ns += TICK_NS;
            self.replica.tick(self.now);
        }
        panic!("a file that is read at once is opened soon: {}", self.replica.describe());
    }

    /// Completes the replica's requests until it has none.
    fn settle(&mut self, inspected: &Inspected) -> Result<(), Failure> {
        loop {
            let outbox = &mut self.replica.outbox;
            while outbox.sends.pop().is_some() {}
            while outbox.closes.pop().is_some() {}
            if let Some(request) = outbox.storage.disk.pop() {
                let done = self.overlay.complete(inspected, request);
                self.replica.on_disk_done(done, self.now);
            } else if let Some(mut job) = outbox.storage.jobs.pop() {
                job.run();
                self.replica.on_job_done(job, self.now);
            } else {
                return match self.replica.fatal() {
                    None => Ok(()),
                    Some(fatal) => {
                        let path = inspected.file.path().display();
                        Err(Failure::new(fatal_class(fatal), format!("{path}: {fatal}")))
                    }
                };
            }
        }
    }

    /// Returns the number of rows of events, and of accounts.
    #[must_use]
    pub fn row_counts(&self) -> (u64, u64) {
        let store = &self.replica.machine.store;
        (store.events_rows(), store.accounts_rows())
    }

    /// Returns the row of an event in the log of transfers.
    ///
    /// # Errors
    ///
    /// If a block is damaged.
    pub fn transfer(&mut self, inspected: &Inspected, row: u64) -> Result<Transfer, Failure> {
        self.fetch(inspected, |store| store.transfer(row))
    }

    /// Returns an account as it was created.
    ///
    /// # Errors
    ///
    /// If a block is damaged.
    pub fn account(&mut self, inspected: &Inspected, row: u64) -> Result<Account, Failure> {
        self.fetch(inspected, |store| store.account(row))
    }

    fn fetch<T>(
        &mut self,
        inspected: &Inspected,
        mut find: impl FnMut(&mut Store) -> Fetch<T>,
    ) -> Result<T, Failure> {
        for _ in 0..TICKS_MAX {
            let replica = &mut self.replica;
            if let Fetch::Ready(found) = find(&mut replica.machine.store) {
                return Ok(found);
            }
            replica.machine.store.pump(&mut replica.outbox.storage);
            self.settle(inspected)?;
        }
        panic!("a row that was asked for is read");
    }
}

/// Refuses to execute the log if the replica's memory cannot be reserved. Not counted are the
/// sectors that it writes.
fn check_memory(
    inspected: &Inspected,
    store: &StoreOptions,
    ledger: &LedgerOptions,
) -> Result<(), Failure> {
    let config = &inspected.superblock.config;
    let (count, size) = message_sizes(config);
    let store = Store::memory_bytes(config, store).map(|(_, bytes)| bytes);
    let ledger = Ledger::memory_bytes(ledger).map(|(_, bytes)| bytes);
    let needed = Pool::memory_bytes(count, size)
        + journal_memory_bytes(config, inspected.superblock.cluster)
        + store.iter().chain(&ledger).sum::<u64>();
    let user = format!("reading {}", inspected.file.path().display());
    memory::check_limits(&user, needed).map_err(|text| Failure::new(ExitClass::Machine, text))
}

/// Returns the number and the size of the replica's messages.
fn message_sizes(config: &Config) -> (u32, u32) {
    (messages_needed(config), config.reply_size_max.max(config.message_size_max))
}

/// The sectors that the replica wrote, by offset.
#[derive(Debug, Default)]
struct Overlay {
    sectors: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// Completes a request.
    fn complete(&mut self, inspected: &Inspected, mut request: DiskRequest) -> DiskDone {
        request.check();
        let start = to_index(request.buffer_offset);
        let range = start..start + to_index(request.length);
        let (offset, mut result) = (request.offset, Ok(()));
        match (&mut request.buffer, request.kind) {
            (Some(buffer), DiskKind::Read) => {
                result = self.read(inspected, offset, &mut buffer.bytes_mut()[range]);
            }
            (Some(buffer), DiskKind::Write | DiskKind::WriteDurable) => {
                let sectors = buffer.bytes()[range].chunks_exact(to_index(SECTOR_SIZE));
                let offsets = (offset..).step_by(to_index(SECTOR_SIZE));
                self.sectors.extend(offsets.zip(sectors.map(Box::from)));
            }
            (_, DiskKind::Sync) => {}
            (None, _) => panic!("a read or write has a buffer"),
        }
        DiskDone { request, result }
    }

    /// Reads the file, with zeros behind its end, and over it the sectors that were written.
    fn read(&self, inspected: &Inspected, offset: u64, target: &mut [u8]) -> Result<(), DiskError> {
        let length = u32::try_from(target.len()).expect("lengths have 32 bits");
        let sector = u64::from(SECTOR_SIZE);
        let whole = inspected.file.size() / sector * sector;
        let there = u64::from(length).min(whole.saturating_sub(offset));
        target.fill(0);
        if there > 0 {
            let there = u32::try_from(there).expect("at most the length");
            let mut memory = AlignedMemory::new(to_index(there));
            let read = inspected.file.read_into(offset, there, &mut memory);
            read.map_err(|_| DiskError { errno: 0, bytes_done: 0 })?;
            target[..to_index(there)].copy_from_slice(&memory);
        }
        for (at, bytes) in self.sectors.range(offset..offset + u64::from(length)) {
            let at = usize::try_from(at - offset).expect("within the target");
            target[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }
}
