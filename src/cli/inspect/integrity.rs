//! `florin inspect integrity`: checks everything in a data file that can be checked without peers.
//!
//! Superblock copies, both rings of the log, every block that the checkpoint refers to with each
//! checksum, the free set against those references, and logs and indexes against each other (see
//! [`integrity_index`](super::integrity_index)). Goes on after damage as far as possible and
//! names each place. What a crash leaves and a start puts right without loss is a notice, unless a
//! checksum fails.

use std::collections::BTreeMap;
use std::path::Path;

use indicatif::ProgressBar;

use super::document::{Cell, Document};
use super::file::{Checkpoint, Inspected};
use super::grid::owner_name;
use super::integrity_index::check_indexes;
use super::superblock::Copies;
use super::wal::{SlotSeen, WalReader};
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::progress::{self, Counts};
use crate::ledger::check_state;
use crate::protocol::{Pool, PrepareHeader, Requests, to_index};
use crate::storage::checkpoint::{CheckpointRoot, append_part};
use crate::storage::directory::DirectoryEntry;
use crate::storage::image::CheckpointImage;
use crate::storage::reachable::{CheckpointWalk, ClaimFault, Claims, Owner, Reached};
use crate::storage::zones::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use crate::storage::{BlockKind, BlockRef, FreeSet, Zone, count_of};
use crate::vsr::Superblock;
use crate::vsr::checkpoint::extra_parts;
use crate::vsr::journal_decision::Decision;
use crate::vsr::journal_recovery::{HeaderSeen, PrepareSeen};
use crate::vsr::sessions::Sessions;

/// Damage of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    zone: Zone,
    offset: u64,
    what: String,
    problem: String,
}

/// What the grid holds, as far as it is intact.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Intact blocks of rows, by log and number.
    pub rows: BTreeMap<(usize, u64), BlockRef>,
    /// Keys of full blocks of rows, by log and number.
    pub keys: BTreeMap<(usize, u64), [u64; 2]>,
    /// Intact blocks of runs, by table, tag, run and number.
    pub runs: BTreeMap<(usize, usize, u64), BTreeMap<u64, BlockRef>>,
}

/// The check of one file.
#[derive(Debug)]
pub(super) struct Integrity<'a> {
    pub(super) inspected: &'a Inspected,
    bar: ProgressBar,
    findings: Vec<Finding>,
    notices: Vec<String>,
    slots: u64,
    blocks: u64,
    pub(super) rows: u64,
    pub(super) entries: u64,
}

/// Checks a file. The second is the failure if it is damaged.
///
/// # Errors
///
/// If the file cannot be read, or there is no superblock to believe.
pub fn inspect(path: &Path) -> Result<(Document, Option<Failure>), Failure> {
    let inspected = Inspected::open(path)?;
    let mut integrity = Integrity {
        inspected: &inspected,
        bar: progress::bar(Counts::Bytes(inspected.zones.start(Zone::Grid))),
        findings: Vec::new(),
        notices: Vec::new(),
        slots: 0,
        blocks: 0,
        rows: 0,
        entries: 0,
    };
    integrity.superblock()?;
    integrity.wal()?;
    integrity.grid();
    integrity.bar.finish_and_clear();
    Ok(integrity.report())
}

impl Integrity<'_> {
    /// Notes damage at an offset of the file.
    pub(super) fn damage(&mut self, offset: u64, what: impl Into<String>, problem: String) {
        let (zone, _) = self.inspected.zones.locate(offset);
        self.findings.push(Finding { zone, offset, what: what.into(), problem });
    }

    /// Notes damage of a block.
    pub(super) fn block_damage(&mut self, address: u64, what: &str, problem: String) {
        let grid = self.inspected.zones.start(Zone::Grid);
        let offset = self.inspected.zones.block_offset(address).unwrap_or(grid);
        self.damage(offset, format!("block {address}: {what}"), problem);
    }

    /// Notes something that is not damage.
    pub(super) fn notice(&mut self, text: impl Into<String>) {
        self.notices.push(text.into());
    }

    /// Counts a block as read.
    pub(super) fn step(&self) {
        self.bar.inc(self.inspected.config().block_size.into());
    }

    fn superblock(&mut self) -> Result<(), Failure> {
        let copies = Copies::read(&self.inspected.file)?;
        let mut chosen = Superblock::blank();
        let Ok(quorum) = copies.choose(&mut chosen) else {
            return Err(Failure::new(ExitClass::Error, "the superblock changed while it was read"));
        };
        for copy in 0..SUPERBLOCK_COPIES {
            let offset = u64::from(copy) * u64::from(SUPERBLOCK_COPY_SIZE);
            match copies.parse(copy) {
                Err(fault) => self.damage(offset, format!("copy {copy}"), fault.to_string()),
                Ok(found) if quorum.repair[to_index(copy)] => {
                    let (found, newest) = (found.sequence, chosen.sequence);
                    self.notice(format!(
                        "copy {copy} of the superblock has sequence {found}, the one to believe \
                         {newest}: an update was interrupted; a start repairs it"
                    ));
                }
                Ok(_) => {}
            }
        }
        let (size, needed) = (self.inspected.file.size(), chosen.storage_size);
        if size < needed {
            let problem = format!("has {size} bytes, and the checkpoint needs {needed}");
            self.damage(size, "file", problem);
        }
        Ok(())
    }

    fn wal(&mut self) -> Result<(), Failure> {
        self.bar.set_prefix("log");
        let zones = self.inspected.zones;
        let mut reader = WalReader::new(self.inspected)?;
        let message_size = u64::from(self.inspected.config().message_size_max);
        let mut headers = BTreeMap::new();
        for slot in 0..reader.slots() {
            self.slots += 1;
            self.bar.inc(message_size);
            let offset = zones.wal_prepare_offset(slot);
            let seen = match reader.slot(slot) {
                Ok(seen) => seen,
                Err(error) => {
                    self.damage(offset, format!("slot {slot}"), error.to_string());
                    continue;
                }
            };
            self.slot(slot, &seen);
            if let PrepareSeen::Op(header) = &seen.prepare {
                if let Err(error) = Requests::decode(header, reader.body(header)) {
                    let what = format!("slot {slot}, op {}", header.op);
                    self.damage(offset, what, format!("the requests do not decode: {error:?}"));
                }
                headers.insert(header.op, *header);
            }
        }
        if self.inspected.superblock.replica_count == 1 {
            self.chain(&headers);
        }
        Ok(())
    }

    fn slot(&mut self, slot: u32, seen: &SlotSeen) {
        let zones = self.inspected.zones;
        let prepare_offset = zones.wal_prepare_offset(slot);
        let name = match seen.known() {
            Some(header) => format!("slot {slot}, op {}", header.op),
            None => format!("slot {slot}"),
        };
        let header_invalid = matches!(seen.header, HeaderSeen::Invalid);
        let prepare_invalid = matches!(seen.prepare, PrepareSeen::Invalid);
        if header_invalid {
            let problem = "the redundant header does not verify".to_owned();
            self.damage(zones.wal_header_offset(slot), name.clone(), problem);
        }
        match seen.decision {
            Decision::Torn => {
                let problem = "the prepare does not verify; it is not needed".to_owned();
                self.damage(prepare_offset, name, problem);
            }
            Decision::FaultyKnown(what) | Decision::FaultyUnknown(what) => {
                self.damage(prepare_offset, name, what.to_owned());
            }
            Decision::RepairHeader if !header_invalid => {
                self.notice(format!(
                    "{name}: its redundant header was not yet written; a start writes it"
                ));
            }
            Decision::Either => {
                self.notice(format!(
                    "{name}: its redundant header is of another view: it was not yet written, or \
                     one of the two writes was lost; in a cluster neither is given up"
                ));
            }
            Decision::Keep | Decision::RepairHeader | Decision::Empty | Decision::Unproven => {
                assert!(!prepare_invalid, "what does not verify is not kept");
            }
        }
    }

    /// In a cluster of one every prepare follows the one before it.
    fn chain(&mut self, headers: &BTreeMap<u64, PrepareHeader>) {
        let slots = u64::from(self.inspected.config().journal_slots);
        for header in headers.values() {
            let before = header.op.checked_sub(1).and_then(|op| headers.get(&op));
            if before.is_some_and(|before| before.frame.checksum != header.parent) {
                let slot = u32::try_from(header.op % slots).expect("slots fit 32 bits");
                let offset = self.inspected.zones.wal_prepare_offset(slot);
                let problem = "the prepare does not continue the one before it".to_owned();
                self.damage(offset, format!("slot {slot}, op {}", header.op), problem);
            }
        }
    }

    fn grid(&mut self) {
        self.bar.set_prefix("grid");
        let root = match self.inspected.root() {
            Ok(Some(root)) => root,
            Ok(None) => return,
            Err(failure) => return self.damage(0, "checkpoint root", failure.message),
        };
        let mut pass = GridPass::new(&root, self);
        let blob = pass.blob(self, &root);
        let index = root.index.address;
        if count_of(blob.len()) != root.blob_size {
            self.notice("the checkpoint is incomplete: the rest of the grid was not checked");
            return;
        }
        let checkpoint = Checkpoint { root, blob };
        let image = match CheckpointImage::decode(&checkpoint.blob, self.inspected.config()) {
            Ok(image) => image,
            Err(error) => return self.block_damage(index, "checkpoint", error.to_string()),
        };
        self.layers_above(index, image.extra);
        let size = u64::from(self.inspected.config().block_size);
        let mut free_set = FreeSet::new(root.address_max.max(1));
        let decoded = free_set.decode(image.free_set);
        if let Err(error) = &decoded {
            self.block_damage(index, "free set", error.to_string());
        }
        // Once to verify, and blocks of rows and runs again to compare them.
        self.bar.inc_length(2 * free_set.acquired_count() * size);
        pass.rest(self, &image);
        if decoded.is_ok() {
            pass.compare(self, &image, &free_set);
        }
        self.bar.set_prefix("indexes");
        check_indexes(self, &image, &pass.found);
    }

    /// What the replica and the ledger put into the checkpoint.
    fn layers_above(&mut self, index: u64, extra: &[u8]) {
        let config = self.inspected.config();
        let pool = Pool::new("replies", config.clients_max, config.reply_size_max);
        let mut sessions = Sessions::new(config.clients_max);
        let result = extra_parts(extra).and_then(|(state, bytes)| {
            sessions.decode(bytes, &pool)?;
            Ok(state)
        });
        match result {
            Err(fault) => self.block_damage(index, "sessions", fault.to_string()),
            Ok(state) => {
                if let Err(error) = check_state(state) {
                    self.block_damage(index, "ledger state", error.to_string());
                }
            }
        }
    }

    fn report(self) -> (Document, Option<Failure>) {
        let mut document = Document::new();
        let count = count_of(self.findings.len());
        let state = if count == 0 { "intact" } else { "damaged" };
        let facts = vec![
            ("state", Cell::text(state)),
            ("damaged_places", Cell::Count(count)),
            ("checkpoint_op", Cell::Number(self.inspected.superblock.checkpoint.op)),
            ("superblock_copies_checked", Cell::Count(SUPERBLOCK_COPIES.into())),
            ("wal_slots_checked", Cell::Count(self.slots)),
            ("grid_blocks_checked", Cell::Count(self.blocks)),
            ("rows_checked", Cell::Count(self.rows)),
            ("index_entries_checked", Cell::Count(self.entries)),
        ];
        document.facts("integrity", facts);
        if count > 0 {
            let rows = self.findings.iter().map(|finding| {
                vec![
                    Cell::text(finding.zone.to_string()),
                    Cell::Number(finding.offset),
                    Cell::text(finding.what.clone()),
                    Cell::text(finding.problem.clone()),
                ]
            });
            document.rows("damage", &["zone", "offset", "what", "problem"], rows.collect());
        }
        if !self.notices.is_empty() {
            let rows = self.notices.into_iter().map(|notice| vec![Cell::Text(notice)]);
            document.rows("notices", &["notice"], rows.collect());
        }
        let failure = self.findings.first().map(|first| {
            let path = self.inspected.file.path().display();
            let places = if count == 1 { "place" } else { "places" };
            let Finding { zone, offset, what, problem } = first;
            let message = format!(
                "{path}: damaged in {count} {places}, first in zone {zone} at file offset \
                 {offset}: {what}: {problem}"
            );
            Failure::new(ExitClass::Corruption, message)
        });
        (document, failure)
    }
}

/// The walk over all blocks, with what it has seen.
struct GridPass {
    walk: CheckpointWalk,
    claims: Claims,
    parent: crate::protocol::AlignedMemory,
    memory: crate::protocol::AlignedMemory,
    /// Blocks that refer to others were damaged, so some were never seen.
    is_partial: bool,
    found: Found,
}

impl GridPass {
    fn new(root: &CheckpointRoot, integrity: &Integrity<'_>) -> GridPass {
        let inspected = integrity.inspected;
        GridPass {
            walk: CheckpointWalk::new(root, inspected.config()),
            claims: Claims::new(root.address_max),
            parent: inspected.block_memory(),
            memory: inspected.block_memory(),
            is_partial: false,
            found: Found::default(),
        }
    }

    /// The next block, if it is not damaged whether there is one.
    fn next(
        &mut self,
        integrity: &mut Integrity<'_>,
        image: Option<&CheckpointImage<'_>>,
        parent_intact: &mut bool,
    ) -> Option<(Reached, bool)> {
        let parent = self.walk.parent().copied();
        let bytes = parent.filter(|_| *parent_intact).map(|_| &self.parent[..]);
        let reached = self.walk.next(image, bytes).ok().flatten()?;
        integrity.blocks += 1;
        integrity.step();
        let address = reached.block.address;
        let name = image.map_or("checkpoint".to_owned(), |image| owner_name(image, reached.owner));
        let name = format!("{} of the {name}", reached.kind.name());
        self.claim(integrity, address, &name);
        let result = integrity.inspected.read_reached(&reached, &mut self.memory);
        let intact = result.is_ok();
        if let Err(problem) = result {
            integrity.block_damage(address, &name, problem.to_string());
        }
        if self.walk.parent().is_some_and(|parent| parent.block == reached.block) {
            std::mem::swap(&mut self.parent, &mut self.memory);
            *parent_intact = intact;
            self.is_partial |= !intact;
            if intact && let Owner::Log(log) = reached.owner {
                self.keys(&reached, log);
            }
        }
        Some((reached, intact))
    }

    /// Notes the keys in a directory block.
    fn keys(&mut self, reached: &Reached, log: usize) {
        let entries = DirectoryEntry::all(&self.parent, reached.item_count);
        let first = reached.number * DirectoryEntry::per_block(self.parent.len());
        for (number, entry) in (first..).zip(entries) {
            self.found.keys.insert((log, number), entry.keys);
        }
    }

    fn claim(&mut self, integrity: &mut Integrity<'_>, address: u64, name: &str) {
        if let Err(fault) = self.claims.claim(address) {
            integrity.block_damage(address, name, fault.to_string());
        }
    }

    /// Reads the blob; shorter than it should be if damaged.
    fn blob(&mut self, integrity: &mut Integrity<'_>, root: &CheckpointRoot) -> Vec<u8> {
        let block_size = integrity.inspected.config().block_size;
        integrity.bar.inc_length((root.blob_blocks + 1) * u64::from(block_size));
        let (mut blob, mut complete, mut parent_intact) = (Vec::new(), true, true);
        while let Some((reached, intact)) = self.next(integrity, None, &mut parent_intact) {
            complete &= intact;
            if complete && reached.kind == BlockKind::Checkpoint {
                append_part(block_size, &self.memory, root.blob_size, &mut blob);
            }
        }
        blob
    }

    /// Everything that the blob refers to.
    fn rest(&mut self, integrity: &mut Integrity<'_>, image: &CheckpointImage<'_>) {
        // Those of the blocks being filled are in no directory yet.
        for (log, keys) in [0, 2].into_iter().zip(image.tail_keys()) {
            if !image.logs[log].tail.is_none() {
                self.found.keys.insert((log, image.logs[log].blocks), keys);
            }
        }
        let mut parent_intact = true;
        while let Some((reached, intact)) = self.next(integrity, Some(image), &mut parent_intact) {
            if !intact {
                continue;
            }
            match reached.owner {
                Owner::Blob => {}
                Owner::Log(log) => {
                    let rows = reached.kind as usize == log + 1;
                    if rows {
                        self.found.rows.insert((log, reached.number), reached.block);
                    }
                }
                Owner::Run { table, tag, run } => {
                    let blocks = self.found.runs.entry((table, tag, run)).or_default();
                    blocks.insert(reached.number, reached.block);
                }
            }
        }
    }

    /// Blocks in use by the free set are those that something refers to.
    fn compare(
        &mut self,
        integrity: &mut Integrity<'_>,
        image: &CheckpointImage<'_>,
        free_set: &FreeSet,
    ) {
        for address in image.scheduled() {
            self.claim(integrity, address, "reserved for a flush or merge");
        }
        for (address, fault) in self.claims.compare(free_set) {
            if fault != ClaimFault::Leaked || !self.is_partial {
                integrity.block_damage(address, "free set", fault.to_string());
            }
        }
        if self.is_partial {
            integrity.notice(
                "blocks that refer to others are damaged: those they name were not checked, nor \
                 whether blocks are lost that nothing refers to",
            );
        }
    }
}
