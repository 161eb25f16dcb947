//! A table against a naive list of rows, on a disk that completes in any order.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::simulator::disk::MemoryDisk;
use crate::storage::Config;
use crate::storage::disk::{DiskOwner, StorageOutbox};
use crate::storage::grid::GridOptions;
use crate::storage::hash::{HashKey, hash};
use crate::storage::lookup::Lookup;
use crate::storage::scan::{Condition, RowList, Scan, ScanState};
use crate::storage::zones::Zones;

const ID: usize = 0;
const ACCOUNT: usize = 1;
const LEDGER: usize = 2;
const CODE: usize = 3;
const USER: usize = 4;
const RESOLUTION: usize = 5;

const fn tag(name: &'static str, entries_per_row: u32, point: bool, bounds: bool) -> TagOptions {
    TagOptions { name, entries_per_row, point, bounds }
}

static TAGS: [TagOptions; 6] = [
    tag("id", 1, true, true),
    tag("account", 2, false, false),
    tag("ledger", 1, false, false),
    tag("code", 1, false, false),
    tag("user", 1, false, false),
    tag("resolution", 1, true, false),
];

fn config(block_size: u32) -> Config {
    Config { block_size, ..Config::testing() }
}

fn options(bar_rows: u64, rows_per_op_max: u64, fan_in: u64) -> TableOptions {
    TableOptions {
        id: 3,
        name: "test",
        cluster: 1,
        tags: &TAGS,
        account_tag: Some(ACCOUNT),
        bar_rows,
        rows_per_op_max,
        fan_in,
        levels_max: 4,
        block_size: 8192,
        scratch_entries: 48,
    }
}

/// The values of a row: two per tag, 0 for none.
type Row = [[u128; 2]; 6];

fn hash_of(tag: usize, value: u128) -> u64 {
    if value == 0 { 0 } else { hash(HashKey::new(1), u8::try_from(tag).unwrap(), value) }
}

struct World {
    table: Table,
    grid: Grid,
    disk: MemoryDisk,
    outbox: StorageOutbox,
    jobs: Vec<Job>,
    /// Order of completions.
    timing: ChaCha8Rng,
    /// What happens.
    workload: ChaCha8Rng,
    rows: Vec<Row>,
    op: u64,
}

fn grid(options: &TableOptions, table: &Table) -> (Grid, MemoryDisk) {
    let config = config(options.block_size);
    let blocks_max = 4000;
    let grid_options = GridOptions {
        cluster: 1,
        cache_bytes: 64 * 4096,
        blocks_max,
        page_reads_max: 16,
        block_reads_max: table.options().read_buffers_max(),
        read_buffers: table.options().read_buffers_max(),
        write_buffers: 1,
        writes_queued_max: table.options().blocks_in_flight_max(),
        writes_in_flight_max: 2,
    };
    let disk = MemoryDisk::new(Zones::new(&config).file_size(blocks_max));
    (Grid::new(&config, &grid_options), disk)
}

impl World {
    fn new(options: &TableOptions, workload: u64, timing: u64) -> World {
        let filters = FilterOptions { tag: ID, bytes_max: 20_000 };
        let filters = (options.tags.len() > 1).then_some(filters);
        let table = Table::with_filters(options, filters);
        let (grid, disk) = grid(options, &table);
        World {
            table,
            grid,
            disk,
            outbox: StorageOutbox::new(32, 2),
            jobs: Vec::new(),
            timing: ChaCha8Rng::seed_from_u64(timing),
            workload: ChaCha8Rng::seed_from_u64(workload),
            rows: Vec::new(),
            op: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.workload.next_u64() % limit
    }

    /// One step of the world; false when there is nothing to do.
    fn turn(&mut self) -> bool {
        self.table.pump(&mut self.grid, &mut self.outbox);
        self.grid.pump(&mut self.outbox);
        self.disk.submit_all(&mut self.outbox);
        while let Some(job) = self.outbox.jobs.pop() {
            self.jobs.push(job);
        }
        assert!(self.jobs.len() <= 1);
        assert!(self.grid.fault().is_none(), "{}", self.grid.fault().unwrap());
        let idle = self.disk.in_flight() == 0;
        if !self.jobs.is_empty() && (idle || self.timing.next_u64().is_multiple_of(3)) {
            let mut job = self.jobs.remove(0);
            job.run();
            self.table.on_job_done(&mut self.grid, job);
            return true;
        }
        let Some(done) = self.disk.complete_one(&mut self.timing) else {
            return false;
        };
        let owner = done.request.token.owner;
        assert!(owner != DiskOwner::Superblock);
        self.grid.on_disk_done(done);
        true
    }

    fn settle(&mut self) {
        while self.turn() {}
    }

    fn row(&mut self) -> Row {
        let number = count_of(self.rows.len());
        let random = self.below(4) == 0;
        let id = if random { u128::from(self.workload.next_u64()) } else { u128::from(number) + 1 };
        let account = |world: &mut World| match world.below(4) {
            0 | 1 => 7,
            2 => 10 + world.below(5),
            _ => 100 + world.below(1000),
        };
        let (debit, credit) = (account(self), 5000 + account(self) % 50);
        let ledger = if number / 300 % 3 == 2 { 1 + self.below(3) } else { 1 + number / 600 };
        let code = 1 + self.below(3);
        let user = if self.below(20) == 0 { 1 + self.below(5) } else { 0 };
        let resolution = if self.below(5) == 0 { number + 1 } else { 0 };
        let one = |value: u64| [u128::from(value), 0];
        let swapped = self.below(2) == 0;
        let sides = if swapped { [credit, debit] } else { [debit, credit] };
        [[id, 0], sides.map(u128::from), one(ledger), one(code), one(user), one(resolution)]
    }

    fn insert_points(&mut self, row: u64, values: &Row) {
        for tag in [ID, RESOLUTION] {
            if values[tag][0] != 0 {
                self.table.unique_insert(tag, hash_of(tag, values[tag][0]), row);
            }
        }
    }

    fn remove_points(&mut self, row: u64, values: &Row) {
        for tag in [RESOLUTION, ID] {
            if values[tag][0] != 0 {
                self.table.unique_remove(tag, hash_of(tag, values[tag][0]), row);
            }
        }
    }

    fn set_row(&mut self, row: u64, values: &Row) {
        for (tag, options) in TAGS.iter().enumerate() {
            for slot in 0..options.entries_per_row {
                let value = values[tag][to_index(slot)];
                self.table.set(row, tag, slot, hash_of(tag, value));
            }
        }
        self.table.extend_bounds(row, ID, values[ID][0]);
        for account in values[ACCOUNT] {
            self.table.spill(hash_of(ACCOUNT, account), account, row);
        }
    }

    /// Commits one op of some rows, some of them rolled back and replaced.
    fn commit(&mut self) {
        self.op += 1;
        let count = self.below(self.table.options.rows_per_op_max + 1);
        let first = count_of(self.rows.len());
        for _ in 0..count {
            if self.below(8) == 0 {
                let row = count_of(self.rows.len());
                let undone = [self.row(), self.row()];
                for (row, values) in (row..).zip(&undone) {
                    if row < first + count {
                        self.insert_points(row, values);
                    }
                }
                for (row, values) in [(row + 1, &undone[1]), (row, &undone[0])] {
                    if row < first + count {
                        self.remove_points(row, values);
                    }
                }
            }
            let row = self.row();
            self.insert_points(count_of(self.rows.len()), &row);
            self.rows.push(row);
        }
        let end = count_of(self.rows.len());
        for row in first..end {
            let values = self.rows[index_of(row)];
            self.set_row(row, &values);
        }
        for _ in 0..100_000 {
            if self.table.end_op(&mut self.grid, self.op, end).is_ready() {
                match self.op % 16 {
                    0 => self.grid.stage_checkpoint(),
                    4 if self.op > 16 => self.grid.release_staged(),
                    _ => {}
                }
                return;
            }
            assert!(self.turn(), "the end of an op waits for nothing");
        }
        panic!("the end of an op makes no progress");
    }

    fn lookup_all(&mut self, mut lookup: Lookup) -> Vec<u64> {
        let mut found = Vec::new();
        loop {
            match self.table.lookup(&mut self.grid, &mut lookup) {
                Fetch::Ready(Some(row)) => found.push(row),
                Fetch::Ready(None) => return found,
                Fetch::Wait => assert!(self.turn(), "a lookup waits for nothing"),
            }
        }
    }

    /// Every value of a sample of rows is found, newest first, and nothing is invented.
    fn check_lookups(&mut self, count: u64) {
        for _ in 0..count {
            if self.rows.is_empty() {
                return;
            }
            let row = index_of(self.timing.next_u64() % count_of(self.rows.len()));
            let tag = index_of(self.timing.next_u64() % 6);
            let value = self.rows[row][tag][0];
            if value == 0 {
                continue;
            }
            let all = (0..count_of(self.rows.len())).rev();
            let mut expected: Vec<u64> =
                all.filter(|row| self.rows[index_of(*row)][tag].contains(&value)).collect();
            let lookup = Lookup::new(tag, hash_of(tag, value), Some(value));
            let mut found = self.lookup_all(lookup);
            found.retain(|row| self.rows[index_of(*row)][tag].contains(&value));
            if tag == ACCOUNT {
                // In memory only the newest row of each memtable is kept.
                let (active, frozen) = (self.table.active_row(), self.table.watermark());
                let newest = |rows: &[u64], from: u64, to: u64| {
                    rows.iter().copied().find(|row| (from..to).contains(row))
                };
                let memory =
                    [newest(&expected, active, u64::MAX), newest(&expected, frozen, active)];
                expected.retain(|row| *row < frozen);
                let mut all: Vec<u64> = memory.into_iter().flatten().collect();
                all.append(&mut expected);
                expected = all;
            }
            if TAGS[tag].point {
                found.sort_unstable();
                expected.sort_unstable();
            }
            assert_eq!(found, expected, "{} {value}", TAGS[tag].name);
            assert!(self.lookup_all(Lookup::new(tag, 12345, Some(u128::MAX))).is_empty());
        }
    }

    fn random_scan(&mut self) -> (Vec<(usize, u128, u8)>, u64, u64, bool) {
        let end = count_of(self.rows.len());
        let mut wanted = Vec::new();
        let like = index_of(self.timing.next_u64() % end);
        for tag in [ACCOUNT, LEDGER, CODE, USER, ACCOUNT] {
            let slot = index_of(self.timing.next_u64() % 2) % to_index(TAGS[tag].entries_per_row);
            let value = self.rows[like][tag][slot];
            if value != 0 && self.timing.next_u64().is_multiple_of(2) {
                let slots = if self.timing.next_u64().is_multiple_of(2) { 3 } else { 1 << slot };
                wanted.push((tag, value, slots));
            }
        }
        let (mut from, mut to) = (0, end);
        if self.timing.next_u64().is_multiple_of(2) {
            from = self.timing.next_u64() % end;
            to = from + self.timing.next_u64() % (end - from + 1);
        }
        (wanted, from, to, self.timing.next_u64().is_multiple_of(2))
    }

    fn check_scans(&mut self, count: u64) {
        for _ in 0..count {
            if self.rows.is_empty() {
                return;
            }
            let (wanted, from, to, reverse) = self.random_scan();
            let meets = |values: &Row| {
                wanted.iter().all(|(tag, value, slots)| {
                    (0..2).any(|slot| slots >> slot & 1 == 1 && values[*tag][slot] == *value)
                })
            };
            let rows = (from..to).filter(|row| meets(&self.rows[index_of(*row)]));
            let mut expected: Vec<u64> = rows.collect();
            if reverse {
                expected.reverse();
            }
            let conditions: Vec<Condition> = wanted
                .iter()
                .map(|(tag, value, slots)| Condition {
                    tag: *tag,
                    hash: hash_of(*tag, *value),
                    slots: *slots,
                })
                .collect();
            let mut scan = Scan::new(&conditions, from, to, reverse);
            let mut list = RowList::new(1 + index_of(self.timing.next_u64() % 40));
            let mut found = Vec::new();
            loop {
                let state = self.table.scan(&mut self.grid, &mut scan, &mut list);
                let Fetch::Ready(state) = state else {
                    assert!(self.turn(), "a scan waits for nothing");
                    continue;
                };
                found.extend_from_slice(list.rows());
                list.clear();
                if state == ScanState::End {
                    break;
                }
            }
            found.retain(|row| meets(&self.rows[index_of(*row)]));
            assert_eq!(found, expected, "{wanted:?} {from}..{to} {reverse}");
        }
    }

    fn check_bounds(&mut self) {
        let from = u128::from(self.timing.next_u64() % 2000);
        let values = self.rows.iter().map(|row| row[ID][0]);
        let exact = values.filter(|value| *value >= from).min();
        let found = self.table.value_min_from(ID, from);
        match (found, exact) {
            (Some(found), Some(exact)) => assert!(from <= found && found <= exact),
            (found, exact) => assert!(found.is_some() || exact.is_none()),
        }
    }

    /// A world that starts again from what a checkpoint would hold now.
    fn restart(mut self, timing: u64) -> World {
        let mark = self.grid.write_mark();
        while !self.grid.written_below(mark) {
            self.grid.pump(&mut self.outbox);
            self.disk.submit_all(&mut self.outbox);
            if let Some(done) = self.disk.complete_one(&mut self.timing) {
                self.grid.on_disk_done(done);
            }
        }
        let mut manifest = Vec::with_capacity(index_of(self.table.options().manifest_size_max()));
        self.table.encode(&mut manifest);
        assert!(manifest.len() <= index_of(self.table.options().manifest_size_max()));
        let mut free = Vec::new();
        self.grid.free_set_encode(&mut free);
        let mut world = World::new(&self.table.options, 0, timing);
        world.disk = self.disk.copy();
        assert_eq!(world.grid.free_set_decode(&free).unwrap(), free.len());
        assert_eq!(world.table.decode(&manifest).unwrap(), manifest.len());
        world.rows = self.rows;
        world.op = self.op;
        world.workload = self.workload;
        world.table.reindex_begin();
        for row in world.table.watermark()..count_of(world.rows.len()) {
            let values = world.rows[index_of(row)];
            world.insert_points(row, &values);
            world.set_row(row, &values);
        }
        world.table.reindex_end(count_of(world.rows.len())).unwrap();
        let mut again = Vec::new();
        world.table.encode(&mut again);
        assert_eq!(manifest, again);
        world
    }

    fn manifest(&self) -> Vec<u8> {
        let mut manifest = Vec::new();
        self.table.encode(&mut manifest);
        manifest
    }
}

/// Goal: at any moment, during flushes and merges, every lookup and scan gives what a naive list
/// gives, for skewed, constant, sparse and absent values, with oversized buckets.
#[test]
fn finds_what_a_list_finds() {
    for (seed, (bar, per_op, fan_in)) in
        (0_u64..).zip([(64, 16, 2), (64, 9, 4), (32, 8, 8), (512, 128, 4), (256, 256, 2)])
    {
        let mut options = options(bar, per_op, fan_in);
        // Once every bucket is oversized, once only those of heavy values are.
        options.scratch_entries = if seed.is_multiple_of(2) { 48 } else { 600 };
        let mut world = World::new(&options, seed, seed + 100);
        let mut constants = 0;
        let ops = 2 * (8_000).max(3 * bar * fan_in * fan_in) / per_op;
        for op in 0..ops {
            world.commit();
            for _ in 0..world.timing.next_u64() % 8 {
                world.turn();
            }
            if op % 16 == 0 {
                world.check_lookups(4);
                world.check_scans(3);
                world.check_bounds();
                let merged = world.table.runs(LEDGER).iter().filter(|run| run.level > 0);
                constants += merged.filter(|run| run.constant != 0).count();
            }
        }
        let level = world.table.runs(0)[0].level;
        assert!(level >= 2, "merges of merges were seen: {level}");
        assert!(constants > 0 || bar > 64, "merged runs of one value were seen");
        assert!(world.table.filters.iter().any(Option::is_some));
        world.settle();
        world.check_lookups(100);
        world.check_scans(60);
    }
}

/// Goal: a run whose directory has blocks of its own is written, merged and read like any other.
#[test]
fn large_directories() {
    static ONE: [TagOptions; 1] = [tag("number", 1, false, false)];
    let (bar_rows, step) = (1 << 18, 1 << 17);
    let options = TableOptions {
        tags: &ONE,
        account_tag: None,
        block_size: 16_384,
        scratch_entries: 65_536,
        ..options(bar_rows, step, 2)
    };
    let mut world = World::new(&options, 1, 2);
    assert_eq!(world.table.levels(), 2);
    let value = |row: u64| 1 + u128::from(row % 200_000);
    for end in (1..=11).map(|op| op * step) {
        let column = world.table.column_mut(0, end - step, end);
        for (row, slot) in (end - step..end).zip(column) {
            *slot = hash_of(0, value(row));
        }
        while world.table.end_op(&mut world.grid, end, end).is_wait() {
            assert!(world.turn());
        }
    }
    let merged = world.table.runs(0)[0];
    let layout = world.table.layout(&merged);
    assert_eq!((merged.level, merged.entries, layout.directory_blocks), (1, 1 << 19, 1));
    world.settle();
    let end = 11 * step;
    for row in (0..200_000).step_by(997) {
        let mut expected: Vec<u64> = (row..end).step_by(200_000).collect();
        let hash = hash_of(0, value(row));
        let conditions = [Condition { tag: 0, hash, slots: 1 }];
        let mut scan = Scan::new(&conditions, 0, u64::MAX, false);
        let mut list = RowList::new(100);
        while world.table.scan(&mut world.grid, &mut scan, &mut list).is_wait() {
            assert!(world.turn());
        }
        let mut found = list.rows().to_vec();
        found.retain(|found| value(*found) == value(row));
        assert_eq!(found, expected);
        expected.reverse();
        let mut found = world.lookup_all(Lookup::new(0, hash, None));
        found.retain(|found| value(*found) == value(row));
        assert_eq!(found, expected);
    }
}

/// Goal: a manifest that was cut or changed is refused or read without a panic.
#[test]
fn damaged_manifests_are_refused() {
    let options = options(64, 16, 4);
    let mut world = World::new(&options, 5, 6);
    for _ in 0..100 {
        world.commit();
    }
    let manifest = world.manifest();
    for length in (0..manifest.len()).step_by(37) {
        assert!(Table::new(&options).decode(&manifest[..length]).is_err());
    }
    for at in (0..56).chain((56..manifest.len()).step_by(101)) {
        let mut bytes = manifest.clone();
        bytes[at] ^= 0x80;
        // Some bits only mean another address or bound, which the checkpoint's checksum guards.
        let outcome = Table::new(&options).decode(&bytes);
        assert!(outcome.is_err() || at >= 24, "byte {at}");
    }
    let mut other = Table::new(&TableOptions { bar_rows: 128, ..options });
    assert!(other.decode(&manifest).is_err());
}

/// Goal: neither the order of completions nor restarts change a byte on the disk or the manifest.
#[test]
fn disk_is_a_function_of_the_rows() {
    for seed in 0..3 {
        let options = options(64, 16, [2, 4, 8][index_of(seed)]);
        let mut first = World::new(&options, seed, 1);
        let mut second = World::new(&TableOptions { scratch_entries: 1000, ..options }, seed, 2);
        let mut third = World::new(&options, seed, 3);
        for op in 0..700_u64 {
            for world in [&mut first, &mut second, &mut third] {
                world.commit();
                for _ in 0..world.timing.next_u64() % 6 {
                    world.turn();
                }
            }
            if third.timing.next_u64().is_multiple_of(40) {
                third = third.restart(1000 + op);
                third.check_lookups(5);
                third.check_scans(2);
            }
            assert_eq!(first.manifest(), third.manifest());
        }
        for world in [&mut first, &mut second, &mut third] {
            world.settle();
        }
        assert_eq!(first.manifest(), second.manifest());
        let start = Zones::new(&config(8192)).block_offset(1).unwrap();
        assert_eq!(first.disk.first_difference(&second.disk, start), None);
        assert_eq!(first.disk.first_difference(&third.disk, start), None);
        assert!(first.disk.counters().writes > 100);
    }
}
