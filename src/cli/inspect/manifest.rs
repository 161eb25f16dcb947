//! `florin inspect manifest`: the runs of all indexes, and the work that is scheduled.

use std::path::Path;

use super::document::{Cell, Document};
use super::file::Inspected;
use crate::cli::exit::Failure;
use crate::storage::count_of;
use crate::storage::image::TableImage;
use crate::storage::run::Run;

const RUN_COLUMNS: [&str; 8] =
    ["index", "level", "first_row", "rows", "entries", "blocks", "root", "common_hash"];
const WORK_COLUMNS: [&str; 7] =
    ["table", "work", "first_row", "rows", "blocks", "scheduled_op", "due_bar"];

/// The manifests of both tables.
///
/// # Errors
///
/// If the file cannot be read, or the checkpoint is damaged.
pub fn inspect(path: &Path) -> Result<Document, Failure> {
    let inspected = Inspected::open(path)?;
    let mut document = Document::new();
    let Some(checkpoint) = inspected.checkpoint()? else {
        document.facts("checkpoint", vec![("op", Cell::Number(0))]);
        document.note("There is no checkpoint yet.");
        return Ok(document);
    };
    let image = inspected.image(&checkpoint)?;
    document.facts("checkpoint", vec![("op", Cell::Number(checkpoint.root.op))]);
    let columns = ["table", "runs_per_index", "levels", "bars", "rows_in_runs", "rows_flushing"];
    let tables = image.tables.iter().map(|table| {
        vec![
            Cell::text(table.options.name),
            Cell::Count(table.run_count()),
            Cell::Count(table.levels.into()),
            Cell::Count(table.bars),
            Cell::Count(table.frozen_row),
            Cell::Count(table.active_row - table.frozen_row),
        ]
    });
    document.rows("tables", &columns, tables.collect());
    let work = image.tables.iter().flat_map(work_rows);
    document.rows("scheduled", &WORK_COLUMNS, work.collect());
    for (name, table) in ["event_runs", "account_runs"].into_iter().zip(&image.tables) {
        let tags = 0..table.options.tags.len();
        let rows = tags.flat_map(|tag| table.runs(tag).map(move |run| run_row(table, tag, &run)));
        document.rows(name, &RUN_COLUMNS, rows.collect());
    }
    Ok(document)
}

fn run_row(table: &TableImage<'_>, tag: usize, run: &Run) -> Vec<Cell> {
    let has_blocks = run.has_blocks();
    let blocks = if has_blocks { table.layout(run).blocks() } else { 0 };
    vec![
        Cell::text(table.options.tags[tag].name),
        Cell::Number(run.level.into()),
        Cell::Number(run.first_row),
        Cell::Count(run.end_row - run.first_row),
        Cell::Count(run.entries),
        Cell::Count(blocks),
        if has_blocks { Cell::Number(run.root.address) } else { Cell::Nothing },
        if run.constant == 0 { Cell::Nothing } else { Cell::Hash(run.constant) },
    ]
}

fn work_rows(table: &TableImage<'_>) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    let count = |blocks: usize| Cell::Count(count_of(blocks));
    let name = table.options.name;
    if table.flush.live {
        rows.push(vec![
            Cell::text(name),
            Cell::text("flush"),
            Cell::Number(table.frozen_row),
            Cell::Count(table.active_row - table.frozen_row),
            count(table.flush.addresses.all().count()),
            Cell::Number(table.flush.sequence),
            Cell::Number(table.bars + 1),
        ]);
    }
    for (level, merge) in table.merges.iter().enumerate() {
        let Some(merge) = merge else { continue };
        let last = table.run(0, merge.first_run + table.options.fan_in - 1);
        rows.push(vec![
            Cell::text(name),
            Cell::Text(format!("merge of level {level}")),
            Cell::Number(merge.first_row),
            Cell::Count(last.end_row - merge.first_row),
            count(merge.addresses.all().count()),
            Cell::Number(merge.sequence),
            Cell::Number(merge.deadline),
        ]);
    }
    rows
}
