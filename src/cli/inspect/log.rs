//! `florin inspect log`: the logs of events and accounts, or one row of them.

use std::path::Path;

use zerocopy::FromBytes;

use super::document::{Cell, Document};
use super::file::{Checkpoint, Inspected};
use super::grid::LOGS;
use super::records::{account_facts, account_flags_cell, snake_case, transfer_facts};
use crate::cli::exit::{ExitClass, Failure};
use crate::protocol::AlignedMemory;
use crate::protocol::types::{Account, Transfer};
use crate::storage::image::CheckpointImage;
use crate::storage::reachable::{CheckpointWalk, Owner, Reached};
use crate::storage::rows::{BalanceRow, Balances, EventKind};
use crate::storage::{BlockRef, Packing};

/// Numbers of the logs.
const TRANSFERS: usize = 0;
const BALANCES: usize = 1;
const ACCOUNTS: usize = 2;

/// Which row to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Of the logs of events.
    Event(u64),
    /// Of the log of accounts.
    Account(u64),
}

/// A summary, or one row.
///
/// # Errors
///
/// If the file cannot be read, what is needed is damaged, or there is no such row.
pub fn inspect(path: &Path, row: Option<Row>) -> Result<Document, Failure> {
    let inspected = Inspected::open(path)?;
    let mut document = Document::new();
    let Some(checkpoint) = inspected.checkpoint()? else {
        if row.is_some() {
            let message = "--row: there is no checkpoint yet, and no row outside of the WAL";
            return Err(Failure::new(ExitClass::Usage, message));
        }
        document.facts("checkpoint", vec![("op", Cell::Number(0))]);
        document.note("There is no checkpoint yet: all rows are in the WAL.");
        return Ok(document);
    };
    let image = inspected.image(&checkpoint)?;
    document.facts("checkpoint", vec![("op", Cell::Number(checkpoint.root.op))]);
    let mut reader = Rows { inspected: &inspected, checkpoint: &checkpoint, image: &image };
    match row {
        None => summary(&mut document, &image),
        Some(Row::Event(row)) => reader.event(&mut document, row)?,
        Some(Row::Account(row)) => reader.account(&mut document, row)?,
    }
    Ok(document)
}

fn summary(document: &mut Document, image: &CheckpointImage<'_>) {
    let columns =
        ["log", "rows", "full_blocks", "tail_block", "directory_blocks", "directory_tail"];
    let address = |block: &BlockRef| {
        if block.is_none() { Cell::Nothing } else { Cell::Number(block.address) }
    };
    let rows = LOGS.iter().zip(&image.logs).map(|(name, log)| {
        vec![
            Cell::text(*name),
            Cell::Count(log.rows),
            Cell::Count(log.blocks),
            address(&log.tail),
            Cell::Count(log.directory_blocks()),
            address(&log.directory_tail),
        ]
    });
    document.rows("logs", &columns, rows.collect());
    document.note(
        "Rows of the checkpoint; what was created since is in the WAL.\n\
         A row is shown by --row N, one of the accounts with --accounts.",
    );
}

/// Reads single rows.
struct Rows<'a> {
    inspected: &'a Inspected,
    checkpoint: &'a Checkpoint,
    image: &'a CheckpointImage<'a>,
}

impl Rows<'_> {
    fn event(&mut self, document: &mut Document, row: u64) -> Result<(), Failure> {
        let (block, bytes) = self.read::<128>(TRANSFERS, row)?;
        let transfer = Transfer::read_from_bytes(&bytes).expect("a row has the size");
        let (balances_block, bytes) = self.read::<136>(BALANCES, row)?;
        let balances = BalanceRow::read_from_bytes(&bytes).expect("a row has the size");
        let kind = match balances.event_kind() {
            Some(kind) => snake_case(&format!("{kind:?}")),
            None => format!("unknown: {}", balances.kind),
        };
        let resolves = balances.event_kind().is_some_and(EventKind::resolves);
        let pending_row = resolves.then(|| balances.pending_row());
        document.facts(
            "event",
            vec![
                ("row", Cell::Number(row)),
                ("kind", Cell::Text(kind)),
                ("pending_row", Cell::number(pending_row)),
                ("transfer_block", Cell::Number(block.address)),
                ("balances_block", Cell::Number(balances_block.address)),
            ],
        );
        document.facts("transfer", transfer_facts(&transfer));
        let sides = [
            ("debit", balances.debit, balances.debit_flags),
            ("credit", balances.credit, balances.credit_flags),
        ];
        let columns = [
            "account",
            "debits_pending",
            "debits_posted",
            "credits_pending",
            "credits_posted",
            "flags",
        ];
        let rows = sides.map(|(side, balances, flags)| side_row(side, &balances, flags));
        document.rows("balances_after", &columns, rows.to_vec());
        Ok(())
    }

    fn account(&mut self, document: &mut Document, row: u64) -> Result<(), Failure> {
        let (block, bytes) = self.read::<128>(ACCOUNTS, row)?;
        let account = Account::read_from_bytes(&bytes).expect("a row has the size");
        let place = vec![("row", Cell::Number(row)), ("block", Cell::Number(block.address))];
        document.facts("account_row", place);
        document.facts("account", account_facts(&account));
        document.note("As it was created: balances are in its newest event.");
        Ok(())
    }

    /// A row of a log with rows of `SIZE` bytes, and the block it is in.
    fn read<const SIZE: usize>(
        &mut self,
        log: usize,
        row: u64,
    ) -> Result<(BlockRef, [u8; SIZE]), Failure> {
        let rows = self.image.logs[log].rows;
        if row >= rows {
            let name = LOGS[log];
            let message = format!("--row={row}: the log of {name} has {rows} rows, from 0");
            return Err(Failure::new(ExitClass::Usage, message));
        }
        let size = u32::try_from(SIZE).expect("rows are small");
        let packing = Packing::new(size, self.inspected.config().block_size);
        let (number, index) = packing.split(row);
        let mut memory = self.inspected.block_memory();
        let reached = self.find(log, number, &mut memory)?;
        let address = reached.block.address;
        let damage = |problem| self.inspected.block_damage(address, &problem);
        self.inspected.read_reached(&reached, &mut memory).map_err(damage)?;
        let start = packing.offset_in_block(index);
        let bytes = memory[start..start + SIZE].try_into().expect("as many as asked for");
        Ok((reached.block, bytes))
    }

    /// The block of a log with this number: only the log's directory is read, up to it.
    fn find(
        &self,
        log: usize,
        number: u64,
        memory: &mut AlignedMemory,
    ) -> Result<Reached, Failure> {
        let inspected = self.inspected;
        let mut walk = CheckpointWalk::of_log(&self.checkpoint.root, inspected.config(), log);
        let mut known = None;
        loop {
            if let Some(parent) = walk.parent().filter(|parent| known != Some(parent.block)) {
                let damage = |problem| inspected.block_damage(parent.block.address, &problem);
                inspected.read_reached(parent, memory).map_err(damage)?;
                known = Some(parent.block);
            }
            let parent = walk.parent().map(|_| &memory[..]);
            let next = walk.next(Some(self.image), parent);
            let address = known.map_or(0, |block| block.address);
            let next = next.map_err(|error| inspected.block_damage(address, &error))?;
            let reached = next.expect("the directory names all blocks of rows");
            let is_rows = reached.kind as usize == log + 1;
            if reached.owner == Owner::Log(log) && is_rows && reached.number == number {
                return Ok(reached);
            }
        }
    }
}

fn side_row(side: &'static str, balances: &Balances, flags: u8) -> Vec<Cell> {
    vec![
        Cell::text(side),
        Cell::Wide(balances.debits_pending),
        Cell::Wide(balances.debits_posted),
        Cell::Wide(balances.credits_pending),
        Cell::Wide(balances.credits_posted),
        account_flags_cell(flags.into()),
    ]
}
