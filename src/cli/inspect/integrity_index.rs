//! The part of `florin inspect integrity` that compares logs and indexes with each other.
//!
//! Goes through the rows once, in the ranges of the runs, and through the blocks of each run once.
//! What needs a damaged block is left out: the block itself was named before.

use zerocopy::IntoBytes;

use super::grid::owner_name;
use super::integrity::{Found, Integrity};
use crate::protocol::types::{Account, Transfer};
use crate::protocol::{AlignedMemory, to_size};
use crate::storage::count_of;
use crate::storage::image::{CheckpointImage, TableImage};
use crate::storage::index_check::{CHUNK_ROWS, IndexCheck, IndexFault, RowCheck, RunCheck};
use crate::storage::reachable::Owner;
use crate::storage::rows::{BalanceRow, EventKind};
use crate::storage::run::Run;
use crate::storage::{BlockRef, Packing};

const EVENTS: usize = 0;
const ACCOUNTS: usize = 1;

/// A block that is needed is damaged.
struct Missing;

/// Reads rows of one log in order.
struct Rows<'a> {
    log: usize,
    found: &'a Found,
    packing: Packing,
    memory: AlignedMemory,
    loaded: Option<BlockRef>,
}

impl<'a> Rows<'a> {
    fn new(integrity: &Integrity<'_>, found: &'a Found, log: usize, row_size: usize) -> Rows<'a> {
        let block_size = integrity.inspected.config().block_size;
        Rows {
            log,
            found,
            packing: Packing::new(to_size(row_size), block_size),
            memory: integrity.inspected.block_memory(),
            loaded: None,
        }
    }

    fn read(
        &mut self,
        integrity: &Integrity<'_>,
        row: u64,
        out: &mut [u8],
    ) -> Result<BlockRef, Missing> {
        let (number, index) = self.packing.split(row);
        let block = *self.found.rows.get(&(self.log, number)).ok_or(Missing)?;
        if self.loaded != Some(block) {
            integrity.step();
            self.loaded = None;
            integrity.inspected.read_block(&block, &mut self.memory).map_err(|_| Missing)?;
            self.loaded = Some(block);
        }
        let start = self.packing.offset_in_block(index);
        out.copy_from_slice(&self.memory[start..start + out.len()]);
        Ok(block)
    }

    /// Keys that the directory has for a block that begins at this row; none if none does.
    fn keys_at(&self, row: u64) -> Option<[u64; 2]> {
        let (number, index) = self.packing.split(row);
        let keys = self.found.keys.get(&(self.log, number)).copied();
        keys.filter(|_| index == 0)
    }
}

/// Compares all logs and indexes.
pub(super) fn check_indexes(
    integrity: &mut Integrity<'_>,
    image: &CheckpointImage<'_>,
    found: &Found,
) {
    let mut pass = Pass {
        image,
        found,
        transfers: Rows::new(integrity, found, 0, size_of::<Transfer>()),
        balances: Rows::new(integrity, found, 1, size_of::<BalanceRow>()),
        accounts: Rows::new(integrity, found, 2, size_of::<Account>()),
        check: RowCheck::new(),
        is_complete: true,
    };
    for table in [EVENTS, ACCOUNTS] {
        pass.table(integrity, table);
    }
    if pass.is_complete && !pass.check.is_summary(image) {
        let index = integrity.inspected.root().ok().flatten().map_or(0, |root| root.index.address);
        let problem = "the highest timestamps and id are not those of the rows".to_owned();
        integrity.block_damage(index, "checkpoint", problem);
    }
}

struct Pass<'a> {
    image: &'a CheckpointImage<'a>,
    found: &'a Found,
    transfers: Rows<'a>,
    balances: Rows<'a>,
    accounts: Rows<'a>,
    check: RowCheck,
    /// No row was left out so far.
    is_complete: bool,
}

impl Pass<'_> {
    fn table(&mut self, integrity: &mut Integrity<'_>, table: usize) {
        let image = self.image.tables[table];
        let rows = self.image.logs[2 * table].rows;
        let config = *integrity.inspected.config();
        let cluster = integrity.inspected.superblock.cluster;
        let mut check = IndexCheck::new(table, &config, cluster);
        for number in 0..image.run_count() {
            let run = image.run(0, number);
            check.start(run.first_row, run.level);
            let taken = self.range(integrity, &mut check, table, run.first_row, run.end_row);
            for tag in 0..image.options.tags.len() {
                self.run(integrity, &check, taken.is_ok(), (table, tag, number));
            }
        }
        check.start(image.frozen_row, 0);
        let flushing = self.range(integrity, &mut check, table, image.frozen_row, image.active_row);
        if flushing.is_ok() && image.flush.live {
            flush(integrity, &check, &image);
        }
        check.start(image.active_row, 0);
        let _ = self.range(integrity, &mut check, table, image.active_row, rows);
    }

    /// Takes the rows of a range. On the first that cannot be read the rest is left out.
    fn range(
        &mut self,
        integrity: &mut Integrity<'_>,
        check: &mut IndexCheck,
        table: usize,
        first_row: u64,
        end_row: u64,
    ) -> Result<(), Missing> {
        let chunk = count_of(CHUNK_ROWS);
        let mut row = first_row;
        while row < end_row {
            let end = end_row.min(row + chunk);
            let taken = if table == EVENTS {
                self.events(integrity, check, row, end)
            } else {
                self.account_rows(integrity, check, row, end)
            };
            if taken.is_err() {
                self.is_complete = false;
                return Err(Missing);
            }
            integrity.rows += end - row;
            row = end;
        }
        Ok(())
    }

    fn events(
        &mut self,
        integrity: &mut Integrity<'_>,
        check: &mut IndexCheck,
        first_row: u64,
        end_row: u64,
    ) -> Result<(), Missing> {
        let (mut transfers, mut kinds, mut balances) = (Vec::new(), Vec::new(), Vec::new());
        let mut result = Ok(());
        for row in first_row..end_row {
            if let Some(keys) = self.transfers.keys_at(row) {
                let expected = self.check.event_keys();
                self.keys(integrity, (0, row), keys, expected);
            }
            let mut transfer = Transfer::default();
            let block = self.transfers.read(integrity, row, transfer.as_mut_bytes())?;
            let mut balance = BalanceRow::default();
            self.balances.read(integrity, row, balance.as_mut_bytes())?;
            match self.check.event(row, &transfer, &balance) {
                Ok(kind) => kinds.push(kind),
                Err(fault) => {
                    integrity.block_damage(block.address, "log of transfers", fault.to_string());
                    kinds.push(EventKind::Orphan);
                    result = Err(Missing);
                }
            }
            transfers.push(transfer);
            balances.push(balance);
        }
        let rows: Vec<_> = kinds.into_iter().zip(&transfers).collect();
        check.events(&rows, &balances);
        result
    }

    fn account_rows(
        &mut self,
        integrity: &mut Integrity<'_>,
        check: &mut IndexCheck,
        first_row: u64,
        end_row: u64,
    ) -> Result<(), Missing> {
        let mut accounts = Vec::new();
        let mut result = Ok(());
        for row in first_row..end_row {
            if let Some(keys) = self.accounts.keys_at(row) {
                let expected = self.check.account_keys();
                self.keys(integrity, (2, row), keys, expected);
            }
            let mut account = Account::default();
            let block = self.accounts.read(integrity, row, account.as_mut_bytes())?;
            if let Err(fault) = self.check.account(row, &account) {
                integrity.block_damage(block.address, "log of accounts", fault.to_string());
                result = Err(Missing);
            }
            accounts.push(account);
        }
        check.accounts(&accounts);
        result
    }

    /// Keys of a block are the maxima over all rows before it.
    fn keys(
        &self,
        integrity: &mut Integrity<'_>,
        (log, row): (usize, u64),
        found: [u64; 2],
        expected: [u64; 2],
    ) {
        if self.is_complete && found != expected {
            let rows = if log == 0 { &self.transfers } else { &self.accounts };
            let number = rows.packing.split(row).0;
            let block = self.found.rows.get(&(log, number));
            let name = format!("directory of the {}", owner_name(self.image, Owner::Log(log)));
            let problem = format!("keys {found:?}, but the rows before have {expected:?}");
            integrity.block_damage(block.map_or(0, |block| block.address), &name, problem);
        }
    }

    /// Checks a run in itself, and against the rows if all of them were taken.
    fn run(
        &self,
        integrity: &mut Integrity<'_>,
        check: &IndexCheck,
        taken: bool,
        (table, tag, number): (usize, usize, u64),
    ) {
        let image = &self.image.tables[table];
        let run = image.run(tag, number);
        let owner = Owner::Run { table, tag, run: number };
        let blocks = self.found.runs.get(&(table, tag, number));
        let content = if run.has_blocks() {
            match read_run(integrity, image, &run, &|number| blocks?.get(&number).copied()) {
                Ok(Ok(sum)) => Ok(Some(sum)),
                Ok(Err(fault)) => Err(fault),
                Err(Missing) => return,
            }
        } else {
            Ok(None)
        };
        let result = match content {
            Ok(sum) if taken => check.compare(&run, sum),
            Ok(_) => Ok(()),
            Err(fault) => Err(fault),
        };
        integrity.entries += run.entries;
        if let Err(fault) = result {
            let name = owner_name(self.image, owner);
            integrity.block_damage(run.root.address, &name, fault.to_string());
        }
    }
}

/// Reads all blocks of a run; the sum of its entries.
fn read_run(
    integrity: &Integrity<'_>,
    image: &TableImage<'_>,
    run: &Run,
    block: &dyn Fn(u64) -> Option<BlockRef>,
) -> Result<Result<u64, IndexFault>, Missing> {
    let inspected = integrity.inspected;
    let mut check = RunCheck::new(run, &image.options, inspected.superblock.cluster);
    let layout = *check.layout();
    let (mut root, mut memory) = (inspected.block_memory(), inspected.block_memory());
    let read = |number: u64, memory: &mut AlignedMemory| {
        integrity.step();
        let reference = block(number).ok_or(Missing)?;
        inspected.read_block(&reference, memory).map_err(|_| Missing)
    };
    read(layout.blocks() - 1, &mut root)?;
    if layout.directory_blocks == 0 {
        check.directory(layout.blocks() - 1, &root);
    }
    for number in layout.data_blocks..layout.data_blocks + layout.directory_blocks {
        read(number, &mut memory)?;
        check.directory(number, &memory);
    }
    if layout.data_blocks == 0
        && let Err(fault) = check.entries(layout.blocks() - 1, &root)
    {
        return Ok(Err(fault));
    }
    for number in 0..layout.data_blocks {
        read(number, &mut memory)?;
        if let Err(fault) = check.entries(number, &memory) {
            return Ok(Err(fault));
        }
    }
    Ok(check.finish())
}

/// As many blocks are reserved for a flush as its rows need.
fn flush(integrity: &mut Integrity<'_>, check: &IndexCheck, image: &TableImage<'_>) {
    for (tag, options) in image.options.tags.iter().enumerate() {
        let blocks = count_of(image.flush.addresses.of(tag).count());
        if let Err(fault) = check.compare_flush(tag, blocks) {
            let index = integrity.inspected.root().ok().flatten();
            let name = format!("flush of {} by {}", image.options.name, options.name);
            let address = index.map_or(0, |root| root.index.address);
            integrity.block_damage(address, &name, fault.to_string());
        }
    }
}
