//! `florin inspect grid`: what the blocks are used for, or one block in detail.

use std::collections::BTreeMap;
use std::path::Path;

use super::document::{Cell, Document};
use super::file::{BlockProblem, Checkpoint, Inspected};
use crate::cli::exit::{ExitClass, Failure};
use crate::protocol::{SECTOR_SIZE, to_index};
use crate::storage::Zone;
use crate::storage::block::{self, BlockHeader, BlockKind, BlockRef};
use crate::storage::count_of;
use crate::storage::image::CheckpointImage;
use crate::storage::reachable::{Owner, Survey, SurveyFault, survey};

/// Names of the logs, in their order.
pub const LOGS: [&str; 3] = ["transfers", "balances", "accounts"];

/// Everything that the checkpoint refers to.
///
/// # Errors
///
/// If a block that refers to others is damaged.
pub fn survey_file(inspected: &Inspected, checkpoint: &Checkpoint) -> Result<Survey, Failure> {
    let mut memory = inspected.block_memory();
    let found = survey(&checkpoint.root, inspected.config(), |reached, bytes| {
        inspected.read_reached(reached, &mut memory)?;
        bytes.copy_from_slice(&memory);
        Ok::<(), BlockProblem>(())
    });
    let index = checkpoint.root.index.address;
    found.map_err(|fault| match fault {
        SurveyFault::Block(reached, problem) => {
            inspected.block_damage(reached.block.address, &problem)
        }
        SurveyFault::Parent(error) => inspected.block_damage(index, &error),
        SurveyFault::Blob(error) => inspected.block_damage(index, &error),
    })
}

/// What an owner is called.
#[must_use]
pub fn owner_name(image: &CheckpointImage<'_>, owner: Owner) -> String {
    match owner {
        Owner::Blob => "checkpoint".to_owned(),
        Owner::Log(log) => format!("log of {}", LOGS[log]),
        Owner::Run { table, tag, run } => {
            let table = &image.tables[table];
            let (name, tag_name) = (table.options.name, table.options.tags[tag].name);
            let run = table.run(tag, run);
            let (first, end, level) = (run.first_row, run.end_row, run.level);
            format!("index of {name} by {tag_name}, level {level}, rows {first} to {}", end - 1)
        }
    }
}

/// A summary, or one block.
///
/// # Errors
///
/// If the file cannot be read, what is needed is damaged, or there is no such block.
pub fn inspect(path: &Path, address: Option<u64>, list: bool) -> Result<Document, Failure> {
    let inspected = Inspected::open(path)?;
    match address {
        Some(address) => inspect_block(&inspected, address),
        None => inspect_all(&inspected, list),
    }
}

fn inspect_all(inspected: &Inspected, list: bool) -> Result<Document, Failure> {
    let mut document = Document::new();
    let size = u64::from(inspected.config().block_size);
    let grid = inspected.file.size().saturating_sub(inspected.zones.start(Zone::Grid));
    let mut facts = vec![
        ("block_size", Cell::Bytes(size)),
        ("blocks_in_file", Cell::Count(grid / size)),
        ("checkpoint_op", Cell::Number(inspected.superblock.checkpoint.op)),
    ];
    let Some(checkpoint) = inspected.checkpoint()? else {
        document.facts("grid", facts);
        document.note("There is no checkpoint yet: nothing refers to any block.");
        return Ok(document);
    };
    let survey = survey_file(inspected, &checkpoint)?;
    let (free_set, scheduled) = (&survey.free_set, survey.scheduled.len());
    facts.extend([
        ("address_max", Cell::Number(checkpoint.root.address_max)),
        ("acquired", Cell::Count(free_set.acquired_count())),
        ("releasing", Cell::Count(free_set.releasing_count())),
        ("free_below_address_max", Cell::Count(free_set.free_count())),
        ("scheduled", Cell::Count(count_of(scheduled))),
    ]);
    document.facts("grid", facts);
    let mut counts = BTreeMap::<BlockKind, (u64, u64)>::new();
    for reached in &survey.blocks {
        let count = counts.entry(reached.kind).or_default();
        count.0 += 1;
        count.1 += u64::from(reached.item_count);
    }
    let rows = counts.into_iter().map(|(kind, (blocks, items))| {
        let bytes = Cell::Bytes(blocks * size);
        vec![Cell::text(kind.name()), Cell::Count(blocks), bytes, Cell::Count(items)]
    });
    document.rows("kinds", &["kind", "blocks", "size", "items"], rows.collect());
    if list {
        let rows = survey.blocks.iter().map(|reached| {
            let BlockRef { address, sequence, .. } = reached.block;
            let offset = inspected.zones.block_offset(address).unwrap_or(0);
            let numbers = [address, offset, sequence].map(Cell::Number);
            numbers.into_iter().chain([Cell::text(reached.kind.name())]).collect()
        });
        document.rows("blocks", &["address", "offset", "sequence", "kind"], rows.collect());
    }
    Ok(document)
}

fn inspect_block(inspected: &Inspected, address: u64) -> Result<Document, Failure> {
    let mut memory = inspected.block_memory();
    let usage = |problem| Failure::new(ExitClass::Usage, format!("--block={address}: {problem}"));
    inspected.read_address(address, &mut memory).map_err(usage)?;
    let mut document = Document::new();
    let header = block::header(&memory);
    let offset = inspected.zones.block_offset(address).unwrap_or(0);
    let (state, sectors) = verdict(&memory, address, &header);
    let kind = BlockKind::from_byte(header.kind);
    let kind = kind.map_or_else(|| header.kind.to_string(), |kind| kind.name().to_owned());
    let facts = vec![
        ("address", Cell::Number(address)),
        ("offset", Cell::Number(offset)),
        ("state", Cell::Text(state)),
        ("sectors_damaged", Cell::Count(sectors)),
        ("header_address", Cell::Number(header.address)),
        ("sequence", Cell::Number(header.sequence)),
        ("kind", Cell::Text(kind)),
        ("item_count", Cell::Count(header.item_count.into())),
        ("item_size", Cell::Bytes(header.item_size.into())),
        ("size", Cell::Bytes(header.size.into())),
        ("cluster", Cell::Wide(header.cluster)),
        ("checksum", Cell::Checksum(header.checksum)),
        ("checksum_body", Cell::Checksum(header.checksum_body)),
    ];
    document.facts("block", facts);
    let usage = usage_of(inspected, address);
    let usage = usage.unwrap_or_else(|failure| vec![("state", Cell::Text(failure.message))]);
    document.facts("use", usage);
    Ok(document)
}

/// Whether a block verifies by its own header, and how many of its sectors do not.
fn verdict(bytes: &[u8], address: u64, header: &BlockHeader) -> (String, u64) {
    if bytes.iter().all(|byte| *byte == 0) {
        return ("never written".to_owned(), 0);
    }
    let own = BlockRef { address, sequence: header.sequence, checksum: header.checksum };
    let sectors = bytes.chunks_exact(to_index(SECTOR_SIZE));
    let bad = (0..)
        .zip(sectors)
        .filter(|(sector, bytes)| block::verify_sector(bytes, &own, *sector).is_err());
    let state = match block::verify(bytes, &own) {
        Ok(()) if header.address == address => "intact".to_owned(),
        Ok(()) => "intact, but of another address".to_owned(),
        Err(error) => format!("damaged: {error}"),
    };
    (state, count_of(bad.count()))
}

/// What the checkpoint knows of an address.
fn usage_of(inspected: &Inspected, address: u64) -> Result<Vec<(&'static str, Cell)>, Failure> {
    let Some(checkpoint) = inspected.checkpoint()? else {
        return Ok(vec![("state", Cell::text("there is no checkpoint"))]);
    };
    let image = inspected.image(&checkpoint)?;
    let survey = survey_file(inspected, &checkpoint)?;
    let free_set = &survey.free_set;
    if address > free_set.blocks_max() || free_set.is_free(address) {
        return Ok(vec![("state", Cell::text("free at the checkpoint"))]);
    }
    if survey.scheduled.contains(&address) {
        return Ok(vec![("state", Cell::text("reserved for a flush or merge"))]);
    }
    let Some(reached) = survey.blocks.iter().find(|reached| reached.block.address == address)
    else {
        return Ok(vec![("state", Cell::text("released; free after the next checkpoint"))]);
    };
    Ok(vec![
        ("state", Cell::text("in use")),
        ("owner", Cell::Text(owner_name(&image, reached.owner))),
        ("kind", Cell::text(reached.kind.name())),
        ("number", Cell::Number(reached.number)),
        ("sequence", Cell::Number(reached.block.sequence)),
        ("checksum", Cell::Checksum(reached.block.checksum)),
    ])
}
