//! `florin inspect superblock`: the four copies, and what the one to believe says.

use std::path::Path;

use super::constants::{config_facts, zone_rows};
use super::document::{Cell, Document};
use super::wal::header_cells;
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::format::superblock_class;
use crate::io::file::DataFile;
use crate::protocol::{AlignedMemory, to_index};
use crate::storage::checkpoint::CheckpointRoot;
use crate::storage::zones::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use crate::vsr::Superblock;
use crate::vsr::ledger_machine::store_root;
use crate::vsr::superblock::{
    ASKING_FOR_VIEWS, COPIES, COPY_SIZE, CopyFault, NOT_RECOVERING, Quorum, SuperblockError, choose,
};

/// All copies as they lie in the file.
#[derive(Debug)]
pub struct Copies {
    memory: AlignedMemory,
}

impl Copies {
    /// Reads all copies.
    ///
    /// # Errors
    ///
    /// If the file is too short to have them, or cannot be read.
    pub fn read(file: &DataFile) -> Result<Copies, Failure> {
        let size = SUPERBLOCK_COPIES * SUPERBLOCK_COPY_SIZE;
        if file.size() < u64::from(size) {
            let (path, found) = (file.path().display(), file.size());
            let message = format!(
                "{path} has {found} bytes, and a superblock alone has {size}: no data file"
            );
            return Err(Failure::new(ExitClass::DataFile, message));
        }
        Ok(Copies { memory: file.read(0, size)? })
    }

    /// A copy, or what is wrong with it.
    ///
    /// # Errors
    ///
    /// Why the bytes are not a copy.
    ///
    /// # Panics
    ///
    /// If there is no such copy.
    pub fn parse(&self, copy: u32) -> Result<&Superblock, CopyFault> {
        let start = to_index(copy * SUPERBLOCK_COPY_SIZE);
        Superblock::parse(&self.memory[start..start + COPY_SIZE], copy)
    }

    /// The copy to believe, put into `chosen`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn choose(&self, chosen: &mut Superblock) -> Result<Quorum, SuperblockError> {
        let copies: [_; COPIES] =
            std::array::from_fn(|copy| Ok(&self.memory[copy * COPY_SIZE..(copy + 1) * COPY_SIZE]));
        choose(&copies, chosen)
    }
}

/// All copies, then the fields of the one to believe. The second is the failure when there is none.
///
/// # Errors
///
/// If the file cannot be read.
pub fn inspect(path: &Path) -> Result<(Document, Option<Failure>), Failure> {
    let file = DataFile::open_to_inspect(path)?;
    let copies = Copies::read(&file)?;
    let mut document = Document::new();
    let mut chosen = Superblock::blank();
    let choice = copies.choose(&mut chosen);
    let rows = (0..SUPERBLOCK_COPIES).map(|copy| {
        let is_other = choice.is_ok_and(|quorum| quorum.repair[to_index(copy)]);
        copy_row(&copies, copy, is_other)
    });
    let columns = ["copy", "offset", "state", "sequence", "view", "checkpoint_op", "checksum"];
    document.rows("copies", &columns, rows.collect());
    if let Err(error) = choice {
        let message = format!("{}: {error}", path.display());
        return Ok((document, Some(Failure::new(superblock_class(&error), message))));
    }
    describe(&mut document, &chosen, file.size());
    Ok((document, None))
}

fn copy_row(copies: &Copies, copy: u32, is_other: bool) -> Vec<Cell> {
    let offset = Cell::Count(u64::from(copy) * u64::from(SUPERBLOCK_COPY_SIZE));
    let place = [Cell::Number(copy.into()), offset];
    let facts = match copies.parse(copy) {
        Ok(superblock) => [
            Cell::text(if is_other { "valid, not the newest" } else { "valid" }),
            Cell::Number(superblock.sequence),
            Cell::Number(superblock.view.into()),
            Cell::Number(superblock.checkpoint.op),
            Cell::Checksum(superblock.checksum),
        ],
        Err(fault) => [
            Cell::text(format!("damaged: {fault}")),
            Cell::Nothing,
            Cell::Nothing,
            Cell::Nothing,
            Cell::Nothing,
        ],
    };
    place.into_iter().chain(facts).collect()
}

/// How far a file that replaces a lost one has come, in words.
fn recovering(superblock: &Superblock) -> String {
    match (superblock.recovering, superblock.safe_view) {
        (NOT_RECOVERING, _) => "no".to_owned(),
        (ASKING_FOR_VIEWS, 0) => "asking for views".to_owned(),
        (ASKING_FOR_VIEWS, view) => format!("waiting for view {view}"),
        _ => "following, without a vote".to_owned(),
    }
}

fn describe(document: &mut Document, superblock: &Superblock, file_size: u64) {
    let (replica, count) = (superblock.replica, superblock.replica_count);
    let role = if replica < count { "replica" } else { "standby" };
    let sync = [superblock.sync_op_min, superblock.sync_op_max];
    document.facts(
        "superblock",
        vec![
            ("cluster", Cell::Wide(superblock.cluster)),
            ("role", Cell::text(role)),
            ("replica", Cell::Number(replica.into())),
            ("replica_count", Cell::Count(count.into())),
            ("data_file_version", Cell::Number(superblock.version.into())),
            ("sequence", Cell::Number(superblock.sequence)),
            ("parent", Cell::Checksum(superblock.parent)),
            ("view", Cell::Number(superblock.view.into())),
            ("log_view", Cell::Number(superblock.log_view.into())),
            ("sync_op_min", Cell::Number(sync[0])),
            ("sync_op_max", Cell::Number(sync[1])),
            ("recovering", Cell::text(recovering(superblock))),
            ("storage_size", Cell::Bytes(superblock.storage_size)),
            ("file_size", Cell::Bytes(file_size)),
        ],
    );
    let op = superblock.checkpoint.op;
    let mut facts = vec![
        ("op", Cell::Number(op)),
        ("release", Cell::text(superblock.checkpoint_release.to_string())),
        ("timestamp", Cell::Time(superblock.checkpoint.timestamp)),
        ("prepare_checksum", Cell::Checksum(superblock.checkpoint.frame.checksum)),
        ("id", Cell::Checksum(superblock.checkpoint_id())),
    ];
    if op > 0
        && let Ok(root) = store_root(op, &superblock.checkpoint_root())
    {
        facts.extend(root_facts(&root));
    }
    document.facts("checkpoint", facts);
    let headers = &superblock.view_headers[..to_index(superblock.view_headers_count)];
    let rows = headers.iter().map(|header| header_cells(header).to_vec());
    document.rows("view_headers", &super::wal::HEADER_COLUMNS, rows.collect());
    document.facts("geometry", config_facts(&superblock.config));
    zone_rows(document, "zones", &superblock.config);
}

fn root_facts(root: &CheckpointRoot) -> Vec<(&'static str, Cell)> {
    vec![
        ("index_address", Cell::Number(root.index.address)),
        ("index_checksum", Cell::Checksum(root.index.checksum)),
        ("blob_size", Cell::Bytes(root.blob_size)),
        ("blob_blocks", Cell::Count(root.blob_blocks)),
        ("event_rows", Cell::Count(root.event_rows)),
        ("account_rows", Cell::Count(root.account_rows)),
        ("address_max", Cell::Number(root.address_max)),
    ]
}
