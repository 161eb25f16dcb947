//! The store against naive lists of rows, on a disk that completes in any order and may crash.
//!
//! A *plan* is a list of ops made from a seed alone. Worlds run plans: each with its own order of
//! completions, its own memory and its own cache of accounts, as different machines would.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zerocopy::{FromBytes, FromZeros};

use super::block::{self, BlockRef};
use super::checkpoint::CheckpointRoot;
use super::config::Config;
use super::disk::StorageOutbox;
use super::fetch::Fetch;
use super::find::{AccountScanFilter, EventFilter, FindTimestamp, TimeKey};
use super::image::{CheckpointImage, TableImage};
use super::index_check::{CHUNK_ROWS, IndexCheck, IndexFault, RowCheck, RunCheck};
use super::job::Job;
use super::reachable::{Reached, Survey, survey};
use super::room::Room;
use super::rows::{BalanceRow, Balances, EXPIRY_SLOT_BITS, EventKind, STORED_FLAG_EXPIRY};
use super::rows::{expires_at, is_orphan};
use super::run::{Run, place};
use super::scan::{RowList, ScanState};
use super::scanning::Direction;
use super::store::{Store, StoreOptions};
use super::zones::Zones;
use super::{count_of, index_of};
use crate::protocol::to_index;
use crate::protocol::types::{Account, Transfer};
use crate::simulator::disk::MemoryDisk;

const BLOCKS_MAX: u64 = 6000;
const EXTRA_MAX: u64 = 5000;

/// What an op does, in order.
#[derive(Clone, Debug)]
enum Step {
    Event(Transfer, BalanceRow),
    Account(Account),
    /// Rows of events that are left.
    TruncateEvents(u64),
    TruncateAccounts(u64),
}

type Op = Vec<Step>;

/// Makes ops, with no other memory than what a ledger has.
struct Planner {
    random: ChaCha8Rng,
    now: u64,
    transfer_time: u64,
    account_time: u64,
    ids: u64,
    events: u64,
    accounts: u64,
    /// Pending transfers with their rows.
    open: Vec<(u64, Transfer)>,
    /// Ids that were rolled back and may come again.
    undone: Vec<u128>,
    account_ids: Vec<u128>,
    batch_max: u64,
    /// Only plain transfers, for size.
    plain: bool,
}

impl Planner {
    fn new(seed: u64, config: &Config) -> Planner {
        Planner {
            random: ChaCha8Rng::seed_from_u64(seed),
            now: 1_700_000_000_000_000_000,
            transfer_time: 0,
            account_time: 0,
            ids: 0,
            events: 0,
            accounts: 0,
            open: Vec::new(),
            undone: Vec::new(),
            account_ids: Vec::new(),
            batch_max: config.batch_max.into(),
            plain: false,
        }
    }

    fn plan(seed: u64, ops: usize) -> Vec<Op> {
        let mut planner = Planner::new(seed, &Config::testing());
        (0..ops).map(|_| planner.op()).collect()
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn op(&mut self) -> Op {
        self.now += self.random.next_u64() % 300_000_000;
        let count = if self.chance(4) { self.batch_max } else { self.below(self.batch_max + 1) };
        match self.below(10) {
            0 => Vec::new(),
            1 | 2 => self.accounts_op(count),
            _ => self.events_op(count),
        }
    }

    fn events_op(&mut self, count: u64) -> Op {
        let mut steps = Vec::new();
        let end = self.events + count;
        while self.events < end {
            let before = (self.events, self.open.clone());
            let chain = self.chance(12);
            let length = if chain { 1 + self.below(20) } else { 1 };
            for _ in 0..length.min(end - self.events) {
                let (transfer, balances) = self.event();
                steps.push(Step::Event(transfer, balances));
            }
            if chain && self.chance(2) {
                let undone = index_of(self.events - before.0);
                for step in &steps[steps.len() - undone..] {
                    if let Step::Event(transfer, _) = step
                        && transfer.flags & STORED_FLAG_EXPIRY == 0
                    {
                        self.undone.push(transfer.id);
                    }
                }
                (self.events, self.open) = before;
                steps.push(Step::TruncateEvents(self.events));
            }
        }
        steps
    }

    fn accounts_op(&mut self, count: u64) -> Op {
        let mut steps = Vec::new();
        for _ in 0..count {
            let account = self.account();
            steps.push(Step::Account(account));
            if self.chance(20) {
                self.accounts -= 1;
                self.account_ids.pop();
                steps.push(Step::TruncateAccounts(self.accounts));
            }
        }
        steps
    }

    fn id(&mut self) -> u128 {
        if self.chance(6)
            && let Some(id) = self.undone.pop()
        {
            return id;
        }
        self.ids += 1;
        let high = if self.chance(4) { self.random.next_u64() >> 1 } else { self.now };
        (u128::from(high) << 64) | u128::from(self.ids)
    }

    fn account(&mut self) -> Account {
        self.now += 1 + self.below(3);
        let behind = self.chance(3);
        let time = if behind { self.account_time + 1 } else { self.now };
        self.account_time = time;
        self.accounts += 1;
        let mut account = Account::new_zeroed();
        account.id = self.id();
        self.account_ids.push(account.id);
        account.timestamp = time;
        account.ledger =
            if (self.accounts / 900).is_multiple_of(2) { 1 } else { 1 + self.small(3) };
        account.code = if self.chance(3) { 1 } else { 2 };
        account.user_data_32 = self.small(4);
        account.user_data_64 = if self.chance(10) { self.random.next_u64() } else { 7 };
        account.user_data_128 = u128::from(self.below(50)) << 90;
        account.flags = 1 << self.below(5);
        account
    }

    fn small(&mut self, limit: u64) -> u32 {
        u32::try_from(self.below(limit)).unwrap()
    }

    /// Accounts of transfers: one of very many events, some of many, many of a few.
    fn party(&mut self) -> u128 {
        match self.below(6) {
            0..=2 => 7,
            3 => 10 + u128::from(self.below(6)),
            4 => (1 << 100) + u128::from(self.below(3000)),
            _ => {
                let known = count_of(self.account_ids.len()).max(1);
                let index = index_of(self.below(known));
                self.account_ids.get(index).copied().unwrap_or(9)
            }
        }
    }

    /// The calm half of the rows has one ledger, and nothing but plain transfers.
    fn calm(&self) -> bool {
        self.plain || (self.events / 2500).is_multiple_of(2)
    }

    fn event(&mut self) -> (Transfer, BalanceRow) {
        self.now += 1 + self.below(3);
        let kind = match self.below(20) {
            _ if self.calm() => EventKind::SinglePhase,
            8..=13 => EventKind::Pending,
            14 | 15 if !self.open.is_empty() => EventKind::Posted,
            16 if !self.open.is_empty() => EventKind::Voided,
            17 | 18 if !self.open.is_empty() => EventKind::Expired,
            19 => EventKind::Orphan,
            _ => EventKind::SinglePhase,
        };
        let mut balances = self.balances(kind);
        let mut transfer = self.transfer();
        match kind {
            EventKind::SinglePhase => {}
            EventKind::Pending => {
                transfer.timeout = if self.chance(3) { 0 } else { 1 + self.small(40) };
                self.open.push((self.events, transfer));
            }
            EventKind::Posted | EventKind::Voided | EventKind::Expired => {
                let index = index_of(self.below(count_of(self.open.len())));
                let (row, pending) = self.open.swap_remove(index);
                balances.set_pending_row(row);
                transfer.pending_id = pending.id;
                if kind == EventKind::Expired {
                    transfer = pending;
                    transfer.timestamp = self.now;
                    transfer.flags |= STORED_FLAG_EXPIRY;
                }
            }
            EventKind::Orphan => {
                let id = transfer.id;
                transfer = Transfer::new_zeroed();
                (transfer.id, transfer.timestamp) = (id, self.now);
            }
        }
        if !matches!(kind, EventKind::Orphan | EventKind::Expired) {
            self.transfer_time = transfer.timestamp;
        }
        self.events += 1;
        (transfer, balances)
    }

    fn transfer(&mut self) -> Transfer {
        let imported = (self.events / 700).is_multiple_of(3) && self.transfer_time > 0;
        let mut transfer = Transfer::new_zeroed();
        transfer.timestamp = if imported { self.transfer_time + 1 } else { self.now };
        transfer.id = self.id();
        transfer.debit_account_id = self.party();
        transfer.credit_account_id = self.party();
        while transfer.credit_account_id == transfer.debit_account_id {
            transfer.credit_account_id = self.party() + 1;
        }
        transfer.amount = u128::from(self.random.next_u64());
        let skewed = if self.chance(9) { 2 } else { 1 };
        transfer.ledger = if self.calm() { 1 } else { skewed };
        transfer.code = if self.chance(5) { 1 } else { 2 };
        transfer.user_data_32 = if self.chance(20) { 1 + self.small(5) } else { 0 };
        transfer.user_data_64 = if self.chance(10) { self.random.next_u64() } else { 7 };
        let value = u128::from(self.events / 3) << 70;
        transfer.user_data_128 = if self.chance(3) { 0 } else { value };
        transfer
    }

    fn balances(&mut self, kind: EventKind) -> BalanceRow {
        let side = |value: u64| Balances {
            debits_posted: u128::from(value),
            credits_pending: u128::from(value) << 60,
            ..Balances::default()
        };
        let mut row = BalanceRow::default();
        row.debit = side(self.random.next_u64());
        row.credit = side(self.random.next_u64());
        row.kind = kind as u8;
        row.debit_flags = u8::try_from(self.below(256)).unwrap();
        row
    }
}

/// A store, its disk, and what it ought to hold.
struct World {
    config: Config,
    options: StoreOptions,
    store: Store,
    disk: MemoryDisk,
    zones: Zones,
    outbox: StorageOutbox,
    jobs: Vec<Job>,
    timing: ChaCha8Rng,
    events: Vec<(Transfer, BalanceRow)>,
    accounts: Vec<Account>,
    /// Rows of both after each op.
    history: Vec<(usize, usize)>,
    /// Newest rows of accounts, for as long as the cache remembers.
    cache: BTreeMap<u128, u64>,
    cache_max: usize,
    roots: Vec<CheckpointRoot>,
}

fn options_testing(cache_pages: u64) -> StoreOptions {
    StoreOptions {
        cluster: 77,
        cache_grid_bytes: cache_pages * 4096,
        cache_transfers_bytes: cache_pages * 2048,
        storage_limit_bytes: BLOCKS_MAX * 8192,
        blob_extra_bytes: EXTRA_MAX,
        filter_bytes: cache_pages * 256,
        page_reads_max: 16,
    }
}

/// What the layers above put into the checkpoint of an op.
fn extra_of(op: u64) -> Vec<u8> {
    (0..op * 977 % EXTRA_MAX).map(|index| (index ^ op).to_le_bytes()[0]).collect()
}

impl World {
    fn new(config: Config, options: StoreOptions, timing: u64, cache_max: usize) -> World {
        let zones = Zones::new(&config);
        let blocks_max = options.storage_limit_bytes / u64::from(config.block_size);
        let mut world = World {
            config,
            options,
            store: Store::new(&config, &options),
            disk: MemoryDisk::new(zones.file_size(blocks_max)),
            zones,
            outbox: StorageOutbox::new(24, 2),
            jobs: Vec::new(),
            timing: ChaCha8Rng::seed_from_u64(timing),
            events: Vec::new(),
            accounts: Vec::new(),
            history: vec![(0, 0)],
            cache: BTreeMap::new(),
            cache_max,
            roots: Vec::new(),
        };
        world.open(CheckpointRoot::EMPTY);
        assert!(world.store.opened_extra().is_empty());
        world
    }

    fn testing(timing: u64, cache_pages: u64, cache_max: usize) -> World {
        World::new(Config::testing(), options_testing(cache_pages), timing, cache_max)
    }

    fn open(&mut self, root: CheckpointRoot) {
        self.store.open(root).unwrap();
        self.wait(Store::open_step).unwrap();
    }

    /// The same data opened again by another process, at the newest root that is durable.
    fn reopen(&self, timing: u64, cache_pages: u64) -> World {
        let root = self.roots.last().copied().unwrap_or(CheckpointRoot::EMPTY);
        let blocks = BLOCKS_MAX * 8192;
        assert!(self.options.storage_limit_bytes == blocks, "a world of the testing kind");
        let mut world = World {
            store: Store::new(&self.config, &options_testing(cache_pages)),
            disk: self.disk.copy(),
            outbox: StorageOutbox::new(24, 2),
            jobs: Vec::new(),
            timing: ChaCha8Rng::seed_from_u64(timing),
            events: self.events.clone(),
            accounts: self.accounts.clone(),
            history: self.history[..=index_of(root.op)].to_vec(),
            cache: BTreeMap::new(),
            roots: self.roots.clone(),
            ..*self
        };
        let (events, accounts) = self.history[index_of(root.op)];
        world.events.truncate(events);
        world.accounts.truncate(accounts);
        world.open(root);
        assert_eq!(world.store.events_rows(), count_of(events));
        assert_eq!(world.store.accounts_rows(), count_of(accounts));
        if !root.is_empty() {
            assert_eq!(world.store.opened_extra(), extra_of(root.op));
            assert_eq!((root.event_rows, root.account_rows), (events as u64, accounts as u64));
        }
        world
    }

    fn op(&self) -> u64 {
        count_of(self.history.len()) - 1
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.timing.next_u64() % limit
    }

    /// One step of the world; false when there is nothing to do.
    fn turn(&mut self) -> bool {
        self.store.pump(&mut self.outbox);
        self.disk.submit_all(&mut self.outbox);
        while let Some(job) = self.outbox.jobs.pop() {
            self.jobs.push(job);
        }
        assert!(self.jobs.len() <= 2, "a job per table");
        assert!(self.store.fault().is_none(), "{}", self.store.fault().unwrap());
        let idle = self.disk.in_flight() == 0;
        if !self.jobs.is_empty() && (idle || self.timing.next_u64().is_multiple_of(3)) {
            let index = index_of(self.timing.next_u64() % count_of(self.jobs.len()));
            let mut job = self.jobs.swap_remove(index);
            job.run();
            self.store.on_job_done(job);
            return true;
        }
        let Some(done) = self.disk.complete_one(&mut self.timing) else {
            return false;
        };
        self.store.on_disk_done(done);
        true
    }

    fn settle(&mut self) {
        while self.turn() {}
    }

    fn wait<T>(&mut self, mut ask: impl FnMut(&mut Store) -> Fetch<T>) -> T {
        for _ in 0..1_000_000 {
            if let Fetch::Ready(value) = ask(&mut self.store) {
                return value;
            }
            let went_on = self.turn();
            assert!(went_on || self.store.is_paused(), "the store waits for nothing");
        }
        panic!("the store makes no progress");
    }

    /// Commits one op as a replica would, the checkpoint included.
    fn run(&mut self, op: &Op) {
        let number = self.op() + 1;
        let interval = u64::from(self.config.checkpoint_interval);
        let delay = u64::from(self.config.release_delay);
        if number > interval && number % interval == delay {
            self.finish_checkpoint();
            self.store.release_staged();
        }
        let events_before = self.events.len();
        for step in op {
            self.step(step);
        }
        self.wait(|store| store.end_op(number));
        self.history.push((self.events.len(), self.accounts.len()));
        self.touch(events_before);
        if number.is_multiple_of(interval) {
            self.store.checkpoint_begin(number).extend_from_slice(&extra_of(number));
            self.store.checkpoint_start();
        } else if self.store.checkpoint_in_progress()
            && let Fetch::Ready(root) = self.store.checkpoint_step()
        {
            self.roots.push(root);
        }
        for _ in 0..self.below(12) {
            self.turn();
        }
    }

    fn finish_checkpoint(&mut self) {
        if self.store.checkpoint_in_progress() {
            let root = self.wait(Store::checkpoint_step);
            self.roots.push(root);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Event(transfer, balances) => {
                let row = self.store.append_event(transfer, balances);
                assert_eq!(row, count_of(self.events.len()));
                self.events.push((*transfer, *balances));
                if self.below(20) == 0 {
                    self.check_event(row);
                }
            }
            Step::Account(account) => {
                let row = self.store.append_account(account);
                assert_eq!(row, count_of(self.accounts.len()));
                self.accounts.push(*account);
                if self.below(20) == 0 {
                    self.check_account(row);
                }
            }
            Step::TruncateEvents(rows) => {
                self.store.truncate_events(*rows);
                let undone = self.events.split_off(index_of(*rows));
                for (transfer, balances) in undone {
                    if transfer.flags & STORED_FLAG_EXPIRY == 0 {
                        assert_eq!(self.store.recent_transfer(transfer.id), None);
                    }
                    if balances.event_kind().unwrap().resolves() {
                        assert_eq!(self.store.recent_resolution(balances.pending_row()), None);
                    }
                }
            }
            Step::TruncateAccounts(rows) => {
                self.store.truncate_accounts(*rows);
                self.accounts.truncate(index_of(*rows));
            }
        }
    }

    /// The cache of accounts after an op: remembers both sides of every event, and forgets some.
    fn touch(&mut self, from: usize) {
        for row in from..self.events.len() {
            let transfer = self.events[row].0;
            if is_orphan(&transfer) {
                continue;
            }
            self.cache.insert(transfer.debit_account_id, count_of(row));
            self.cache.insert(transfer.credit_account_id, count_of(row));
            while self.cache.len() > self.cache_max {
                let index = index_of(self.below(count_of(self.cache.len())));
                let (id, newest) = self.cache.iter().nth(index).map(|(k, v)| (*k, *v)).unwrap();
                self.cache.remove(&id);
                // A row of this op may still be followed by others with the account.
                self.store.spill_account(id, newest);
            }
        }
    }
}

// Comparison with the naive lists.

fn kind_of(row: &(Transfer, BalanceRow)) -> EventKind {
    row.1.event_kind().unwrap()
}

fn created(row: &(Transfer, BalanceRow)) -> bool {
    !matches!(kind_of(row), EventKind::Expired | EventKind::Orphan)
}

fn wants(wanted: u128, found: u128) -> bool {
    wanted == 0 || wanted == found
}

fn slot_of(row: &(Transfer, BalanceRow)) -> Option<u64> {
    if kind_of(row) != EventKind::Pending {
        return None;
    }
    expires_at(&row.0).map(|time| time >> EXPIRY_SLOT_BITS)
}

fn event_matches(filter: &EventFilter, row: &(Transfer, BalanceRow)) -> bool {
    let transfer = &row.0;
    let id = filter.account_id;
    let side = (filter.debits && transfer.debit_account_id == id)
        || (filter.credits && transfer.credit_account_id == id);
    if id != 0 && !side {
        return false;
    }
    let fields = [
        (u128::from(filter.ledger), u128::from(transfer.ledger)),
        (filter.code.into(), transfer.code.into()),
        (filter.user_data_32.into(), transfer.user_data_32.into()),
        (filter.user_data_64.into(), transfer.user_data_64.into()),
        (filter.user_data_128, transfer.user_data_128),
    ];
    let any = fields.iter().all(|(wanted, _)| *wanted == 0) && filter.expiry_slot.is_none();
    let slot = filter.expiry_slot.is_none() || filter.expiry_slot == slot_of(row);
    let equal = fields.iter().all(|(wanted, found)| wants(*wanted, *found));
    any || (created(row) && slot && equal)
}

fn account_matches(filter: &AccountScanFilter, account: &Account) -> bool {
    wants(filter.ledger.into(), account.ledger.into())
        && wants(filter.code.into(), account.code.into())
        && wants(filter.user_data_32.into(), account.user_data_32.into())
        && wants(filter.user_data_64.into(), account.user_data_64.into())
        && wants(filter.user_data_128, account.user_data_128)
}

impl World {
    fn event_row(&mut self) -> u64 {
        let rows = count_of(self.events.len());
        let old = self.below(rows);
        // The newest rows are where things happen.
        if self.below(3) == 0 { rows - 1 - self.below(rows.min(1200)) } else { old }
    }

    /// Everything, some of each.
    fn check(&mut self, samples: u64) {
        for _ in 0..samples {
            if !self.events.is_empty() {
                let row = self.event_row();
                self.check_event(row);
                self.check_newest(row);
                self.check_event_scan(row);
                self.check_event_searches(row);
                self.check_expiry_slot(row);
            }
            if !self.accounts.is_empty() {
                let row = self.below(count_of(self.accounts.len()));
                self.check_account(row);
                self.check_account_scan(row);
                self.check_account_searches(row);
            }
        }
        self.check_absent();
    }

    fn check_event(&mut self, row: u64) {
        let (transfer, balances) = self.events[index_of(row)];
        assert_eq!(self.wait(|store| store.transfer(row)), transfer);
        assert_eq!(self.wait(|store| store.balances(row)), balances);
        let unflushed = row >= self.store.events.watermark();
        let recent = self.store.transfer_recent(row).copied();
        assert!(recent == Some(transfer) || (recent.is_none() && !unflushed));
        let recent = self.store.balances_recent(row).copied();
        assert!(recent == Some(balances) || (recent.is_none() && !unflushed));
        let active = row >= self.store.events.active_row();
        let (kind, id) = (balances.event_kind().unwrap(), transfer.id);
        if kind != EventKind::Expired {
            let mut find = self.store.find_transfer_start(id);
            assert_eq!(self.wait(|store| store.find(&mut find)), Some(row), "transfer of {row}");
            assert_eq!(self.store.recent_transfer(id), Some(row).filter(|_| active));
        }
        let highest = |rows: &[(Transfer, BalanceRow)]| {
            let rows = rows.iter().filter(|row| kind_of(row) != EventKind::Expired);
            rows.map(|row| row.0.id).max().unwrap_or(0)
        };
        if self.below(30) == 0 {
            let ended = self.history.last().unwrap().0;
            let newest = id > highest(&self.events[..ended]);
            assert_eq!(self.store.transfer_id_is_newest(id), newest);
        }
        if kind.resolves() {
            self.check_resolution(balances.pending_row(), Some(row));
        }
        if kind == EventKind::Pending {
            let resolved = |other: &&(Transfer, BalanceRow)| {
                kind_of(other).resolves() && other.1.pending_row() == row
            };
            let expected = self.events.iter().rposition(|other| resolved(&other));
            self.check_resolution(row, expected.map(count_of));
        }
    }

    fn check_resolution(&mut self, pending: u64, expected: Option<u64>) {
        let mut find = self.store.find_resolution_start(pending);
        assert_eq!(self.wait(|store| store.find(&mut find)), expected, "resolution of {pending}");
        let active = self.store.events.active_row();
        let recent = expected.filter(|row| *row >= active);
        assert_eq!(self.store.recent_resolution(pending), recent);
    }

    /// The newest events of the accounts of a row, if the cache would ask. Only between ops.
    fn check_newest(&mut self, row: u64) {
        let transfer = self.events[index_of(row)].0;
        if is_orphan(&transfer) {
            return;
        }
        for id in [transfer.debit_account_id, transfer.credit_account_id] {
            if self.cache.contains_key(&id) {
                continue;
            }
            let names = |transfer: &Transfer| {
                transfer.debit_account_id == id || transfer.credit_account_id == id
            };
            let expected = self.events.iter().rposition(|row| names(&row.0)).map(count_of);
            let mut find = self.store.find_newest_event_start(id);
            assert_eq!(self.wait(|store| store.find(&mut find)), expected, "newest of {id}");
        }
    }

    fn check_account(&mut self, row: u64) {
        let account = self.accounts[index_of(row)];
        assert_eq!(self.wait(|store| store.account(row)), account);
        let mut find = self.store.find_account_start(account.id);
        assert_eq!(self.wait(|store| store.find(&mut find)), Some(row));
        let recent = self.store.account_recent(row).copied();
        assert!(recent.is_none_or(|recent| recent == account));
    }

    /// Nothing is invented.
    fn check_absent(&mut self) {
        let id = u128::from(self.timing.next_u64()) << 5;
        let mut finds = [
            self.store.find_transfer_start(id),
            self.store.find_account_start(id),
            self.store.find_newest_event_start(id),
            self.store.find_resolution_start(1 << 39),
        ];
        for find in &mut finds {
            assert_eq!(self.wait(|store| store.find(find)), None);
        }
        assert_eq!(self.store.recent_transfer(id), None);
    }

    fn event_filter(&mut self, row: u64) -> EventFilter {
        let (transfer, _) = self.events[index_of(row)];
        let mut filter = EventFilter::default();
        if self.below(2) == 0 {
            filter.account_id = transfer.debit_account_id;
            let sides = self.below(3);
            (filter.debits, filter.credits) = (sides != 0, sides != 1);
        }
        if self.below(4) == 0 {
            filter.expiry_slot = slot_of(&self.events[index_of(row)]).or(Some(5));
        } else if self.below(3) == 0 {
            filter.code = transfer.code;
        }
        if self.below(3) == 0 {
            filter.ledger = transfer.ledger;
        }
        if self.below(3) == 0 {
            filter.user_data_32 = transfer.user_data_32;
        }
        if self.below(3) == 0 {
            filter.user_data_64 = transfer.user_data_64;
        }
        if self.below(3) == 0 {
            filter.user_data_128 = transfer.user_data_128;
        }
        filter
    }

    /// Bounds of a scan around a row, and its direction.
    fn range(&mut self, rows: usize) -> (u64, u64, Direction) {
        let rows = count_of(rows);
        let ends = [self.below(rows + 1), self.below(rows + 1)];
        let direction =
            if self.below(2) == 0 { Direction::Ascending } else { Direction::Descending };
        let (min, max) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        if self.below(2) == 0 { (0, rows + 5, direction) } else { (min, max, direction) }
    }

    fn check_event_scan(&mut self, row: u64) {
        let filter = self.event_filter(row);
        let (min, max, direction) = self.range(self.events.len());
        let mut scan = self.store.scan_events_start(&filter, min, max, direction);
        let mut out = RowList::new(1 + index_of(self.below(60)));
        let mut found = Vec::new();
        loop {
            let state = self.wait(|store| store.scan_events(&mut scan, &mut out));
            found.extend_from_slice(out.rows());
            assert!(out.is_full() || state == ScanState::End);
            out.clear();
            if state == ScanState::End {
                break;
            }
        }
        let end = max.min(count_of(self.events.len()));
        let matching = |row: &u64| event_matches(&filter, &self.events[index_of(*row)]);
        let expected: Vec<u64> = (min..end).filter(matching).collect();
        check_candidates(found, &expected, (min, end), direction);
    }

    fn check_account_scan(&mut self, row: u64) {
        let account = self.accounts[index_of(row)];
        let filter = AccountScanFilter {
            ledger: if self.below(2) == 0 { account.ledger } else { 0 },
            code: if self.below(2) == 0 { account.code } else { 0 },
            user_data_32: if self.below(2) == 0 { account.user_data_32 } else { 0 },
            user_data_64: if self.below(2) == 0 { account.user_data_64 } else { 0 },
            user_data_128: if self.below(2) == 0 { account.user_data_128 } else { 0 },
        };
        let (min, max, direction) = self.range(self.accounts.len());
        let mut scan = self.store.scan_accounts_start(&filter, min, max, direction);
        let mut out = RowList::new(1 + index_of(self.below(60)));
        let mut found = Vec::new();
        loop {
            let state = self.wait(|store| store.scan_accounts(&mut scan, &mut out));
            found.extend_from_slice(out.rows());
            out.clear();
            if state == ScanState::End {
                break;
            }
        }
        let end = max.min(count_of(self.accounts.len()));
        let matching = |row: &u64| account_matches(&filter, &self.accounts[index_of(*row)]);
        let expected: Vec<u64> = (min..end).filter(matching).collect();
        check_candidates(found, &expected, (min, end), direction);
    }

    fn check_event_searches(&mut self, row: u64) {
        let shift = self.below(3);
        let time = self.events[index_of(row)].0.timestamp + shift - 1;
        for key in [TimeKey::Transfer, TimeKey::Expiry] {
            let on_line =
                |row: &&(Transfer, BalanceRow)| created(row) == (key == TimeKey::Transfer);
            let start = index_of(self.wait(|store| store.search_events(key, time)));
            let before = self.events[..start].iter().filter(on_line);
            assert!(before.map(|row| row.0.timestamp).all(|found| found < time));
            // And no block more than necessary.
            let per_block = index_of(self.store.transfers.packing().per_block());
            let next = start + per_block;
            if next + per_block <= self.events.len() / per_block * per_block {
                let mut skipped = self.events[..next].iter().filter(on_line);
                assert!(skipped.any(|row| row.0.timestamp >= time), "a later block would do");
            }
        }
        let times = self.events.iter().filter(|row| created(row)).map(|row| row.0.timestamp);
        let expected = times.clone().any(|found| found == time);
        let mut find = FindTimestamp::new(time);
        let found = self.wait(|store| store.find_transfer_timestamp(&mut find));
        assert_eq!(found, expected);
    }

    fn check_account_searches(&mut self, row: u64) {
        let shift = self.below(3);
        let time = self.accounts[index_of(row)].timestamp + shift - 1;
        let start = index_of(self.wait(|store| store.search_accounts(time)));
        assert!(self.accounts[..start].iter().all(|account| account.timestamp < time));
        let expected = self.accounts.iter().any(|account| account.timestamp == time);
        let mut find = FindTimestamp::new(time);
        let found = self.wait(|store| store.find_account_timestamp(&mut find));
        assert_eq!(found, expected);
    }

    fn check_expiry_slot(&mut self, row: u64) {
        let shift = self.below(400);
        let time = self.events[index_of(row)].0.timestamp >> EXPIRY_SLOT_BITS;
        let from = time + shift;
        let exact = self.events.iter().filter_map(slot_of).filter(|slot| *slot >= from).min();
        let found = self.store.expiry_slot_min(from);
        if let Some(exact) = exact {
            assert!(found.is_some_and(|found| found >= from && found <= exact));
        }
        let highest = self.events.iter().filter_map(slot_of).max().unwrap_or(0);
        assert_eq!(self.store.expiry_slot_min(highest + 1), None);
    }
}

/// Candidates are in order, within bounds, without duplicates, and leave no match out.
fn check_candidates(
    mut found: Vec<u64>,
    expected: &[u64],
    (min, end): (u64, u64),
    direction: Direction,
) {
    if direction == Direction::Descending {
        found.reverse();
    }
    assert!(found.is_sorted_by(|left, right| left < right));
    assert!(found.iter().all(|row| (min..end).contains(row)));
    let candidates: BTreeSet<u64> = found.into_iter().collect();
    for row in expected {
        assert!(candidates.contains(row), "row {row} is missing");
    }
}

// What a checkpoint refers to.

impl World {
    fn block(&self, block: &BlockRef) -> Vec<u8> {
        let offset = self.zones.block_offset(block.address).unwrap();
        let bytes = self.disk.read(offset, to_index(self.config.block_size));
        if let Err(error) = block::verify(&bytes, block) {
            panic!("block {}: {error}", block.address);
        }
        bytes
    }

    /// Everything that the newest checkpoint needs, from nothing but its root and the disk; only
    /// while no op has followed it.
    fn survey(&self) -> Survey {
        let root = self.roots.last().unwrap();
        assert!(root.op == self.op());
        let survey = survey(root, &self.config, |reached, bytes| {
            bytes.copy_from_slice(&self.block(&reached.block));
            Ok::<(), ()>(())
        });
        let survey = survey.unwrap();
        for reached in &survey.blocks {
            reached.check(&block::header(&self.block(&reached.block))).unwrap();
        }
        let image = CheckpointImage::decode(&survey.blob, &self.config).unwrap();
        assert_eq!(image.logs[0].rows, self.store.events_rows());
        survey
    }

    /// Acquired blocks are exactly those that something refers to.
    fn check_free_set(&self) {
        let survey = self.survey();
        assert_eq!(survey.claim_faults(), []);
        let (live, stored) = (self.store.grid.free_set(), &survey.free_set);
        let live: Vec<u64> = (1..=BLOCKS_MAX).filter(|at| live.is_acquired(*at)).collect();
        let stored: Vec<u64> = (1..=BLOCKS_MAX).filter(|at| stored.is_acquired(*at)).collect();
        assert_eq!(live, stored);
        assert!(self.roots.last().unwrap().address_max >= *live.last().unwrap());
    }
}

// Logs against indexes, from nothing but the disk.

impl World {
    /// The sum of a run's blocks; `spoil` may change each before it is looked at.
    fn run_sum(
        &self,
        image: &TableImage<'_>,
        run: &Run,
        spoil: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<u64, IndexFault> {
        let mut check = RunCheck::new(run, &image.options, self.options.cluster);
        let layout = *check.layout();
        let root = self.block(&run.root);
        let last = layout.blocks() - 1;
        let mut block = |number: u64| {
            let (sector, offset, _) = place(number * 32);
            let at = to_index(sector) * 4096 + offset;
            let reference = BlockRef::read_from_bytes(&root[at..at + 32]).unwrap();
            let mut bytes = if number == last { root.clone() } else { self.block(&reference) };
            spoil(number, &mut bytes);
            bytes
        };
        if layout.directory_blocks == 0 {
            check.directory(last, &block(last));
        }
        for number in layout.data_blocks..last {
            check.directory(number, &block(number));
        }
        if layout.data_blocks == 0 {
            check.entries(last, &block(last))?;
        }
        for number in 0..layout.data_blocks {
            check.entries(number, &block(number))?;
        }
        check.finish()
    }

    /// Takes the rows of a range, by the rules of rows as well.
    fn take_rows(&self, rows: &mut RowCheck, check: &mut IndexCheck, range: Range<u64>) {
        let is_events = check.is_events();
        for first in range.clone().step_by(CHUNK_ROWS) {
            let end = range.end.min(first + count_of(CHUNK_ROWS));
            let chunk = index_of(first)..index_of(end);
            if is_events {
                let events = &self.events[chunk];
                let kinds = (first..).zip(events).map(|(row, (transfer, balances))| {
                    (rows.event(row, transfer, balances).unwrap(), transfer)
                });
                let balances: Vec<BalanceRow> = events.iter().map(|event| event.1).collect();
                check.events(&kinds.collect::<Vec<_>>(), &balances);
            } else {
                let accounts = &self.accounts[chunk];
                for (row, account) in (first..).zip(accounts) {
                    rows.account(row, account).unwrap();
                }
                check.accounts(accounts);
            }
        }
    }

    /// Every run holds exactly the entries of its rows; runs that were checked with blocks.
    fn check_indexes(&self) -> u64 {
        let blob = self.survey().blob;
        let image = CheckpointImage::decode(&blob, &self.config).unwrap();
        let mut rows = RowCheck::new();
        let mut checked = 0;
        for (table, state) in image.tables.iter().enumerate() {
            let mut check = IndexCheck::new(table, &self.config, self.options.cluster);
            for number in 0..state.run_count() {
                let run = state.run(0, number);
                check.start(run.first_row, run.level);
                self.take_rows(&mut rows, &mut check, run.first_row..run.end_row);
                for tag in 0..state.options.tags.len() {
                    let run = state.run(tag, number);
                    let sum = run
                        .has_blocks()
                        .then(|| self.run_sum(state, &run, &mut |_, _| {}).unwrap());
                    assert_eq!(check.compare(&run, sum), Ok(()), "{run:?}");
                    checked += u64::from(sum.is_some());
                    if let Some(sum) = sum {
                        assert_eq!(check.compare(&run, Some(sum ^ 1)), Err(IndexFault::Content));
                    }
                }
            }
            check.start(state.frozen_row, 0);
            self.take_rows(&mut rows, &mut check, state.frozen_row..state.active_row);
            for tag in 0..state.options.tags.len() {
                let blocks = count_of(state.flush.addresses.of(tag).count());
                assert_eq!(check.compare_flush(tag, blocks), Ok(()));
                assert!(check.compare_flush(tag, blocks + 1).is_err());
            }
            check.start(state.active_row, 0);
            let end = image.logs[2 * table].rows;
            self.take_rows(&mut rows, &mut check, state.active_row..end);
        }
        assert!(rows.is_summary(&image));
        checked
    }
}

/// Goal: the check of indexes against the log agrees with every run that a store makes of all kinds
/// of rows, merged or not, and notices each single entry or word of a directory that is changed.
#[test]
fn indexes_are_checked_against_the_log() {
    let mut world = World::testing(9, 100, 60);
    for op in &Planner::plan(31, 224) {
        world.run(op);
    }
    world.finish_checkpoint();
    assert_eq!(world.roots.last().unwrap().op, world.op());
    assert!(world.check_indexes() > 50);
    let blob = world.survey().blob;
    let image = CheckpointImage::decode(&blob, &world.config).unwrap();
    let state = &image.tables[0];
    assert!(state.runs(0).any(|run| run.level > 0), "runs have merged");
    let runs = (0..state.options.tags.len()).flat_map(|tag| state.runs(tag));
    for run in runs.filter(Run::has_blocks) {
        let sum = world.run_sum(state, &run, &mut |_, _| {}).unwrap();
        let last = state.layout(&run).blocks() - 1;
        for number in 0..=last {
            let items = state.layout(&run).used(number);
            // The first half of a root are references, which the walk follows.
            let byte = if number == last { items - 1 } else { items / 2 };
            let changed = world.run_sum(state, &run, &mut |block, bytes| {
                if block == number {
                    let (sector, offset, _) = place(byte);
                    bytes[to_index(sector) * 4096 + offset] ^= 0x10;
                }
            });
            let is_directory_end = number == last && state.layout(&run).data_blocks > 0;
            let is_unread = is_directory_end && state.layout(&run).directory_blocks > 0;
            assert!(changed != Ok(sum) || is_unread, "{run:?} block {number} byte {byte}");
        }
    }
}

/// Both stores have the same checkpoints, and byte by byte the same blocks.
fn check_identical(left: &World, right: &World) {
    assert_eq!(left.roots, right.roots);
    let [blocks, others] = [left, right].map(World::survey);
    assert_eq!(blocks.blocks, others.blocks);
    assert_eq!(blocks.scheduled, others.scheduled);
    for Reached { block, .. } in &blocks.blocks {
        assert_eq!(left.block(block), right.block(block), "block {}", block.address);
    }
}

/// Goal: whatever happened, every search and scan gives what a naive list gives, while runs are
/// made and merged in any order of completions, and accounts fall out of their cache.
#[test]
fn searches_and_scans_equal_naive_lists() {
    // The second has pages enough to ask for those of the next runs, the others have not.
    for (seed, pages, cache_max) in [(1, 40, 40), (2, 1000, 3000), (3, 40, 2)] {
        let mut world = World::testing(seed + 100, pages, cache_max);
        for op in &Planner::plan(seed, 230) {
            world.run(op);
            if world.below(6) == 0 {
                world.check(4);
            }
        }
        world.check(150);
        let levels = world.store.events.runs(0).iter().map(|run| run.level).max();
        assert!(levels >= Some(1), "runs have merged");
    }
}

/// Goal: the same ops make the same checkpoints and the same blocks to the byte, whatever the order
/// in which reads, writes and jobs complete, and however much memory there is.
#[test]
fn checkpoints_and_blocks_are_identical_to_the_byte_whatever_the_timing() {
    let plan = Planner::plan(11, 160);
    let mut worlds = [(1, 24, 5), (2, 2000, 500), (3, 90, 40)]
        .map(|(timing, pages, cache_max)| World::testing(timing, pages, cache_max));
    for op in plan.chunks(16) {
        for (index, world) in worlds.iter_mut().enumerate() {
            for op in op {
                world.run(op);
                if index == 0 && world.below(10) == 0 {
                    world.check(2);
                }
            }
            world.finish_checkpoint();
        }
        check_identical(&worlds[0], &worlds[1]);
        check_identical(&worlds[0], &worlds[2]);
    }
    assert_eq!(worlds[0].roots.len(), 10);
}

/// Goal: a store that is opened again holds everything of its checkpoint and goes on exactly as
/// the store that was never closed.
#[test]
fn reopened_stores_hold_everything_and_go_on_identically() {
    let plan = Planner::plan(21, 224);
    let mut world = World::testing(5, 60, 100);
    let mut second: Option<World> = None;
    for (number, op) in (1..).zip(&plan) {
        world.run(op);
        if let Some(second) = &mut second {
            second.run(op);
        }
        if number % 16 != 0 {
            continue;
        }
        world.finish_checkpoint();
        world.check_free_set();
        if let Some(second) = &mut second {
            second.finish_checkpoint();
            second.check_free_set();
            check_identical(&world, second);
        }
        if number % 48 == 0 {
            let mut reopened = world.reopen(number, 30 + number);
            reopened.check_free_set();
            reopened.check(25);
            check_identical(&world, &reopened);
            second = Some(reopened);
        }
    }
    world.check(50);
    second.unwrap().check(50);
}

/// Goal: a power loss at any moment leaves the newest finished checkpoint intact, and what is done
/// again after it ends in the same blocks.
#[test]
fn crashes_leave_the_newest_checkpoint_intact() {
    let plan = Planner::plan(31, 240);
    let mut calm = World::testing(6, 200, 1000);
    let mut world = World::testing(7, 60, 100);
    let mut done = 0;
    let mut crashes = 0;
    while done < plan.len() {
        world.run(&plan[done]);
        done += 1;
        if world.below(18) != 0 || crashes > 40 {
            continue;
        }
        crashes += 1;
        for _ in 0..world.below(30) {
            world.turn();
        }
        let mut random = ChaCha8Rng::seed_from_u64(1000 + crashes);
        world.disk.crash(&mut random);
        world = world.reopen(crashes, 60);
        if world.op() > 0 {
            world.check_free_set();
            world.check(6);
        }
        done = index_of(world.op());
    }
    assert!(crashes > 15, "{crashes} crashes");
    for op in &plan {
        calm.run(op);
    }
    for world in [&mut calm, &mut world] {
        world.finish_checkpoint();
        world.check_free_set();
    }
    check_identical(&calm, &world);
}

/// Goal: a store that admits an op has room for it and for the checkpoint, until it is full; and
/// what is in a full store can be read, for any number of ops.
#[test]
fn full_stores_refuse_in_time() {
    let mut options = options_testing(40);
    options.storage_limit_bytes = 1500 * 8192;
    let mut world = World::new(Config::testing(), options, 9, 50);
    let mut ops = 0;
    for op in &Planner::plan(41, 1000) {
        if world.store.room() < Room::Everything {
            break;
        }
        world.run(op);
        ops += 1;
        let used = world.store.storage_use();
        assert!(used.used_bytes <= used.usable_bytes && used.usable_bytes <= used.limit_bytes);
    }
    assert!(ops > 60 && ops < 1000, "{ops} ops fit");
    assert!(world.store.storage_use().is_high());
    // Reads go on, and with them checkpoints, which take blocks and give them back.
    for _ in 0..10 * world.config.checkpoint_interval {
        assert!(world.store.room() >= Room::Reads);
        world.run(&Op::new());
    }
    world.finish_checkpoint();
    world.check(20);
}

/// Goal: larger blocks and memtables, many rows and little memory: all ids and newest events are
/// found, and a year of a busy account is scanned in order.
#[test]
fn many_events_with_little_memory() {
    let config = Config::development();
    let options = StoreOptions {
        cluster: 3,
        cache_grid_bytes: 512 * 4096,
        cache_transfers_bytes: 0,
        storage_limit_bytes: 8000 * 65_536,
        blob_extra_bytes: EXTRA_MAX,
        filter_bytes: 1 << 20,
        page_reads_max: 32,
    };
    let mut world = World::new(config, options, 8, 500);
    let mut planner = Planner::new(51, &config);
    planner.plain = true;
    while planner.events < 300_000 {
        let op = planner.events_op(config.batch_max.into());
        world.run(&op);
    }
    world.settle();
    for _ in 0..300 {
        let row = world.event_row();
        world.check_event(row);
        world.check_newest(row);
    }
    for _ in 0..6 {
        let row = world.event_row();
        world.check_event_scan(row);
        world.check_event_searches(row);
    }
    assert!(world.store.counters().page_reads > 0);
}
