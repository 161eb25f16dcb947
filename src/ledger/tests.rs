//! The ledger over the store and a disk in memory: the worked examples, and random workloads
//! against the reference model, byte for byte.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::protocol::HEADER_SIZE;
use crate::protocol::types::{Account, Transfer, transfer_flags};
use crate::simulator::batches::encode_batches;
use crate::simulator::disk::MemoryDisk;
use crate::simulator::examples::{Subject, run_all};
use crate::simulator::model::{Model, ModelOptions};
use crate::simulator::workload::{Workload, WorkloadOptions, WorkloadStep};
use crate::storage::checkpoint::CheckpointRoot;
use crate::storage::disk::StorageOutbox;
use crate::storage::job::Job;
use crate::storage::room::Room;
use crate::storage::store::StoreOptions;
use crate::storage::zones::Zones;

const STORAGE_LIMIT: u64 = 64 << 20;

fn store(config: &Config) -> Store {
    Store::new(
        config,
        &StoreOptions {
            cluster: 7,
            cache_grid_bytes: 256 << 10,
            cache_transfers_bytes: 0,
            storage_limit_bytes: STORAGE_LIMIT,
            blob_extra_bytes: u64::try_from(STATE_SIZE).unwrap(),
            filter_bytes: 64 << 10,
            page_reads_max: 8,
        },
    )
}

/// A request that may have to be executed again.
#[derive(Clone)]
struct Logged {
    operation: Operation,
    timestamp: u64,
    body: Vec<u8>,
    reply: Vec<u8>,
}

/// A ledger with its disk and its helper, which answer in random order.
struct World {
    config: Config,
    ledger: Ledger,
    disk: MemoryDisk,
    outbox: StorageOutbox,
    jobs: Vec<Job>,
    random: ChaCha8Rng,
    op: u64,
    reply: Vec<u8>,
    /// The newest durable checkpoint: its op and root.
    root: (u64, CheckpointRoot),
    /// Requests by op, the first of which is op 1.
    log: Vec<Logged>,
}

impl World {
    fn new(seed: u64, config: Config) -> World {
        let zones = Zones::new(&config);
        let size = zones.start(crate::storage::Zone::Grid) + STORAGE_LIMIT;
        let mut world = World {
            config,
            ledger: Ledger::new(store(&config), &LedgerOptions::new(&config, 0)),
            disk: MemoryDisk::new(size),
            outbox: StorageOutbox::new(64, 8),
            jobs: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            op: 0,
            reply: vec![0; to_index(config.reply_size_max - HEADER_SIZE)],
            root: (0, CheckpointRoot::EMPTY),
            log: Vec::new(),
        };
        world.open();
        world
    }

    /// Moves I/O and jobs along, in random order.
    fn turn(&mut self) {
        self.ledger.store.pump(&mut self.outbox);
        self.disk.submit_all(&mut self.outbox);
        while let Some(job) = self.outbox.jobs.pop() {
            self.jobs.push(job);
        }
        assert!(self.ledger.store.fault().is_none());
        let work_on_job = !self.jobs.is_empty()
            && (self.disk.in_flight() == 0 || self.random.next_u32().is_multiple_of(4));
        if work_on_job {
            let chosen = self.random.next_u64() % crate::storage::count_of(self.jobs.len());
            let mut job = self.jobs.swap_remove(crate::storage::index_of(chosen));
            job.run();
            self.ledger.store.on_job_done(job);
        } else {
            let done = self.disk.complete_one(&mut self.random).expect("something is under way");
            self.ledger.store.on_disk_done(done);
        }
    }

    fn wait<T>(&mut self, mut step: impl FnMut(&mut World) -> Fetch<T>) -> T {
        loop {
            match step(self) {
                Fetch::Ready(value) => return value,
                Fetch::Wait if self.ledger.is_paused() && self.is_idle() => {}
                Fetch::Wait => self.turn(),
            }
        }
    }

    /// Nothing is under way that could end now.
    fn is_idle(&mut self) -> bool {
        self.ledger.store.pump(&mut self.outbox);
        self.disk.submit_all(&mut self.outbox);
        self.jobs.is_empty() && self.outbox.jobs.is_empty() && self.disk.in_flight() == 0
    }

    fn open(&mut self) {
        self.ledger.store.open(self.root.1).unwrap();
        self.wait(|world| world.ledger.store.open_step()).unwrap();
        let extra = self.ledger.store.opened_extra().to_vec();
        assert_eq!(extra.is_empty(), self.root.0 == 0);
        if !extra.is_empty() {
            self.ledger.decode(&extra).unwrap();
        }
        self.op = self.root.0;
    }

    /// One request is one op here.
    fn run(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8> {
        assert!(self.ledger.store.room() == Room::Everything);
        let mut area = std::mem::take(&mut self.reply);
        self.ledger.begin(operation, timestamp, body);
        let size = self.wait(|world| world.ledger.step(body, &mut area));
        let reply = area[..to_index(size)].to_vec();
        self.reply = area;
        self.op += 1;
        let op = self.op;
        self.wait(|world| world.ledger.store.end_op(op));
        self.checkpoint_work();
        self.evict();
        reply
    }

    /// Checkpoints are written while later ops run, and finished at a fixed op.
    fn checkpoint_work(&mut self) {
        let interval = u64::from(self.config.checkpoint_interval);
        if self.op.is_multiple_of(interval) {
            let mut state = [0; STATE_SIZE];
            self.ledger.encode(&mut state);
            self.ledger.store.checkpoint_begin(self.op).extend_from_slice(&state);
            self.ledger.store.checkpoint_start();
        }
        let is_last = self.op % interval == u64::from(self.config.release_delay);
        if self.ledger.store.checkpoint_in_progress() {
            let op = self.op - self.op % interval;
            if is_last {
                let root = self.wait(|world| world.ledger.store.checkpoint_step());
                self.root = (op, root);
            } else if let Fetch::Ready(root) = self.ledger.store.checkpoint_step() {
                self.root = (op, root);
            }
        }
        if is_last && self.op > interval {
            self.ledger.store.release_staged();
        }
    }

    /// Accounts leave the cache at random, which must not show.
    fn evict(&mut self) {
        let draw = self.random.next_u32();
        if draw.is_multiple_of(2) {
            let Ledger { store, cache, .. } = &mut self.ledger;
            let divisor = u128::from(draw / 2 % 4 + 1);
            let choose = |id: u128| (id ^ id >> 64).is_multiple_of(divisor);
            cache.evict_where(choose, |evicted| {
                store.spill_account(evicted.id, evicted.newest_row);
            });
        }
    }

    fn execute_logged(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8> {
        let reply = self.run(operation, timestamp, body);
        let (body, copy) = (body.to_vec(), reply.clone());
        self.log.push(Logged { operation, timestamp, body, reply: copy });
        reply
    }

    /// Power loss: everything in memory is gone; all ops since the checkpoint run again and must
    /// answer as they did.
    fn crash(&mut self) {
        self.disk.crash(&mut self.random);
        self.outbox = StorageOutbox::new(64, 8);
        self.jobs.clear();
        self.ledger = Ledger::new(store(&self.config), &LedgerOptions::new(&self.config, 0));
        self.open();
        let first = crate::storage::index_of(self.op);
        let again: Vec<Logged> = self.log[first..].to_vec();
        for request in again {
            let reply = self.run(request.operation, request.timestamp, &request.body);
            assert_eq!(reply, request.reply, "op {} differs after a restart", self.op);
        }
    }
}

impl Subject for World {
    fn execute(&mut self, operation: Operation, timestamp: u64, body: &[u8]) -> Vec<u8> {
        self.execute_logged(operation, timestamp, body)
    }

    fn pulse(&mut self, timestamp: u64) {
        self.execute_logged(Operation::Pulse, timestamp, &[]);
    }
}

/// Goal: all worked examples of the specification hold over the real store.
#[test]
fn worked_examples() {
    run_all(|| World::new(1, Config::testing()));
}

fn model_options(config: &Config) -> ModelOptions {
    let reply_size = config.reply_size_max - HEADER_SIZE;
    let change_events = Operation::change_events_max(config.message_size_max - HEADER_SIZE);
    ModelOptions {
        pulse_expiries_max: to_index(config.pulse_max),
        query_results_max: to_index(reply_size / 128 - 1),
        change_events_max: to_index(change_events.min(reply_size / 384)),
    }
}

/// Prints where two replies differ first.
fn explain(operation: Operation, body: &[u8], found: &[u8], expected: &[u8]) {
    let size = to_index(operation.result_size());
    println!("{} and {} bytes", found.len(), expected.len());
    let differs = |index: &usize| {
        let range = index * size..(index + 1) * size;
        found.get(range.clone()) != expected.get(range)
    };
    let Some(index) = (0..expected.len().div_ceil(size)).find(differs) else {
        return;
    };
    println!("result {index}");
    println!("found    {:?}", found.get(index * size..(index + 1) * size));
    println!("expected {:?}", expected.get(index * size..(index + 1) * size));
    let size = to_index(operation.event_size());
    for event in index.saturating_sub(3)..=index {
        println!("event {event}: {:?}", body.get(event * size..(event + 1) * size));
    }
}

/// What happens beside the workload.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// Power is lost now and then.
    crashes: bool,
    /// The clock leaps ahead by an hour now and then.
    leaps: bool,
}

/// Runs one seed's workload through ledger and model; both must give the same bytes.
fn compare(config: Config, seed: u64, steps: u32, trouble: Trouble) {
    let records_max = to_index((config.reply_size_max - HEADER_SIZE) / 128 - 1);
    let options = WorkloadOptions {
        create_events_max: to_index(config.batch_max).min(records_max),
        lookup_ids_max: records_max,
        query_results_max: u32::try_from(records_max).unwrap(),
        ..WorkloadOptions::default()
    };
    let mut world = World::new(seed, config);
    let mut model = Model::new(model_options(&config));
    let mut workload = Workload::new(seed, options);
    let mut clock = 1_700_000_000_000_000_000u64;
    for step in 0..steps {
        clock += 10_000;
        if trouble.leaps && world.random.next_u32().is_multiple_of(128) {
            clock += 3_600_000_000_000;
        }
        let (operation, body) = match workload.next_step() {
            WorkloadStep::AdvanceTime { nanoseconds } => {
                clock += nanoseconds;
                continue;
            }
            WorkloadStep::Pulse => (Operation::Pulse, Vec::new()),
            WorkloadStep::Request { operation, body } => (operation, body),
        };
        if operation == Operation::Pulse {
            let due = model.next_expiry().is_some_and(|expiry| expiry <= clock);
            assert!(!due || world.ledger.pulse_due(clock), "seed {seed} step {step}");
        }
        clock += world.ledger.timestamp_span(operation, &body);
        let found = world.execute_logged(operation, clock, &body);
        if operation == Operation::Pulse {
            model.pulse(clock);
        } else {
            let expected = model.execute(operation, clock, &body);
            if found != expected {
                explain(operation, &body, &found, &expected);
                panic!("seed {seed} step {step}: {operation:?} differs");
            }
            workload.on_reply(operation, clock, &body, &expected);
        }
        if trouble.crashes && world.random.next_u32().is_multiple_of(64) {
            world.crash();
        }
    }
    model.check_invariants();
}

/// Goal: whatever clients ask, the ledger answers like the reference model, byte for byte.
#[test]
fn agrees_with_the_model() {
    for seed in 0..24 {
        compare(Config::testing(), seed, 600, Trouble::default());
    }
}

/// Goal: and so it does when power is lost now and then.
#[test]
fn agrees_with_the_model_over_crashes() {
    for seed in 100..112 {
        compare(Config::testing(), seed, 600, Trouble { crashes: true, leaps: false });
    }
}

/// Goal: one pulse carries out all that is due, however long there was none: the machine was off,
/// or the clock was set.
#[test]
fn agrees_with_the_model_when_the_clock_leaps() {
    for seed in 300..312 {
        compare(Config::testing(), seed, 600, Trouble { crashes: true, leaps: true });
    }
}

/// Goal: when more is due than a pulse can take, the next pulse is due at once and goes on where
/// the last one stopped, in the same order.
#[test]
fn agrees_with_the_model_on_small_pulses() {
    let config = Config { pulse_max: 2, ..Config::testing() };
    for seed in 200..212 {
        compare(config, seed, 600, Trouble { crashes: true, leaps: false });
    }
}

/// Goal: while nothing runs out, pulses are seldom due, although the index has slots without end
/// in which something may be; and what runs out does so in the second it should.
#[test]
fn pulses_are_seldom_due_when_nothing_runs_out() {
    let mut world = World::new(7, Config::testing());
    let accounts = [1, 2].map(|id| Account { id, ledger: 1, code: 1, ..Account::new_zeroed() });
    let start = 1_700_000_000_000_000_000u64;
    let body = encode_batches(size_of::<Account>(), &[accounts.as_bytes().to_vec()]);
    world.execute_logged(Operation::CreateAccounts, start, &body);
    let transfers = [1, 1000].map(|timeout| Transfer {
        id: timeout.into(),
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 5,
        timeout,
        ledger: 1,
        code: 1,
        flags: transfer_flags::PENDING,
        ..Transfer::new_zeroed()
    });
    let body = encode_batches(size_of::<Transfer>(), &[transfers.as_bytes().to_vec()]);
    world.execute_logged(Operation::CreateTransfers, start + 100, &body);
    let (mut pulses, mut expired_at) = (0, Vec::new());
    for tenth in 1..=10_100 {
        let now = start + 100 + tenth * 100_000_000;
        if world.ledger.pulse_due(now) {
            let rows = world.ledger.store.events_rows();
            world.execute_logged(Operation::Pulse, now, &[]);
            pulses += 1;
            if world.ledger.store.events_rows() > rows {
                expired_at.push(tenth);
            }
        }
    }
    assert_eq!(expired_at, [10, 10_000]);
    assert!(pulses < 200, "{pulses} pulses in 1,010 seconds");
}
