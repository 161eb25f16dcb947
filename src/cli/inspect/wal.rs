//! `florin inspect wal`: the slots of the log, and what an opening replica would believe of them.

use std::path::Path;

use super::document::{Cell, Document};
use super::file::Inspected;
use super::op::describe;
use super::records::operation_name;
use crate::cli::exit::{ExitClass, Failure};
use crate::io::file::FileError;
use crate::protocol::{AlignedMemory, HEADER_SIZE, Header, PrepareHeader, SECTOR_SIZE};
use crate::protocol::{round_up, to_index};
use crate::storage::Zone;
use crate::vsr::journal_decision::Decision;
use crate::vsr::journal_geometry::JournalGeometry;
use crate::vsr::journal_recovery::{HeaderSeen, PrepareSeen, decide_slot};

/// Columns of [`header_cells`].
pub const HEADER_COLUMNS: [&str; 6] = ["op", "view", "operation", "requests", "size", "timestamp"];

/// A header of a prepare in a row.
#[must_use]
pub fn header_cells(header: &PrepareHeader) -> [Cell; 6] {
    [
        Cell::Number(header.op),
        Cell::Number(header.frame.view.into()),
        Cell::Text(operation_name(header.operation)),
        Cell::Count(header.request_count.into()),
        Cell::Bytes(header.frame.size.into()),
        Cell::Time(header.timestamp),
    ]
}

/// What is in a slot.
#[derive(Debug)]
pub struct SlotSeen {
    /// Its redundant header.
    pub header: HeaderSeen,
    /// Its prepare.
    pub prepare: PrepareSeen,
    /// What follows.
    pub decision: Decision,
}

impl SlotSeen {
    /// In words.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.decision, &self.header) {
            (Decision::Keep, _) => "ok",
            (Decision::RepairHeader, HeaderSeen::Invalid) => "ok, redundant header damaged",
            (Decision::RepairHeader, _) => "ok, redundant header not yet written",
            (Decision::Either, _) => "ok, redundant header of another view",
            (Decision::Empty, _) => "empty",
            (Decision::Unproven, _) => "empty, redundant header damaged",
            (Decision::Torn, _) => "torn or damaged, and not needed",
            (Decision::FaultyKnown(what) | Decision::FaultyUnknown(what), _) => what,
        }
    }

    /// The prepare that is there, or the header of the one that should be.
    #[must_use]
    pub fn known(&self) -> Option<&PrepareHeader> {
        match (&self.prepare, &self.header) {
            (PrepareSeen::Op(header), _) | (_, HeaderSeen::Op(header)) => Some(header),
            _ => None,
        }
    }

    /// Whether a checksum in the slot fails.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        match self.decision {
            Decision::Keep | Decision::Either | Decision::Empty => false,
            Decision::RepairHeader => matches!(self.header, HeaderSeen::Invalid),
            Decision::Unproven
            | Decision::Torn
            | Decision::FaultyKnown(_)
            | Decision::FaultyUnknown(_) => true,
        }
    }
}

/// Reads the slots of a log.
#[derive(Debug)]
pub struct WalReader<'a> {
    inspected: &'a Inspected,
    geometry: JournalGeometry,
    ring: AlignedMemory,
    message: AlignedMemory,
}

impl<'a> WalReader<'a> {
    /// Reads the ring of redundant headers.
    ///
    /// # Errors
    ///
    /// If the system cannot read it.
    ///
    /// # Panics
    ///
    /// Never: the ring has a size.
    pub fn new(inspected: &'a Inspected) -> Result<WalReader<'a>, FileError> {
        let zones = &inspected.zones;
        let size = zones.size(Zone::WalHeaders).expect("only the grid grows");
        let size = u32::try_from(size).expect("slots are few");
        let ring = inspected.file.read(zones.start(Zone::WalHeaders), size)?;
        let message = AlignedMemory::new(to_index(inspected.config().message_size_max));
        Ok(WalReader { inspected, geometry: inspected.journal(), ring, message })
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.geometry.slots
    }

    /// Where the log lies.
    #[must_use]
    pub fn geometry(&self) -> &JournalGeometry {
        &self.geometry
    }

    /// Reads and verifies a slot whole.
    ///
    /// # Errors
    ///
    /// If the system cannot read it.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    pub fn slot(&mut self, slot: u32) -> Result<SlotSeen, FileError> {
        assert!(slot < self.slots());
        let start = to_index(slot * HEADER_SIZE);
        let header = Header::from_bytes(&self.ring[start..start + to_index(HEADER_SIZE)]);
        let header = HeaderSeen::new(&self.geometry, slot, header);
        let mut prepare = self.prepare(slot, SECTOR_SIZE)?;
        if let PrepareSeen::Op(found) = &prepare
            && found.frame.size > SECTOR_SIZE
        {
            let size = round_up(found.frame.size, SECTOR_SIZE);
            prepare = self.prepare(slot, size)?;
        }
        let checkpoint = self.inspected.superblock.checkpoint.op;
        let decision = decide_slot(checkpoint, self.geometry.slots, &header, &prepare);
        Ok(SlotSeen { header, prepare, decision })
    }

    fn prepare(&mut self, slot: u32, length: u32) -> Result<PrepareSeen, FileError> {
        let offset = self.geometry.zones.wal_prepare_offset(slot);
        self.inspected.file.read_into(offset, length, &mut self.message)?;
        Ok(PrepareSeen::new(&self.geometry, slot, &self.message[..to_index(length)]))
    }

    /// The body of the prepare of the slot that was read last.
    #[must_use]
    pub fn body(&self, header: &PrepareHeader) -> &[u8] {
        &self.message[to_index(HEADER_SIZE)..to_index(header.frame.size)]
    }
}

/// All slots in use, or one in detail.
///
/// # Errors
///
/// If the file cannot be read, or there is no such slot.
pub fn inspect(path: &Path, slot: Option<u32>) -> Result<Document, Failure> {
    let inspected = Inspected::open(path)?;
    let mut reader = WalReader::new(&inspected)?;
    match slot {
        Some(slot) => inspect_slot(&mut reader, slot),
        None => inspect_all(&inspected, &mut reader),
    }
}

fn inspect_all(inspected: &Inspected, reader: &mut WalReader<'_>) -> Result<Document, Failure> {
    let mut rows = Vec::new();
    let (mut empty, mut damaged) = (0, 0);
    let mut ops: Option<(u64, u64)> = None;
    for slot in 0..reader.slots() {
        let seen = reader.slot(slot)?;
        damaged += u64::from(seen.is_damaged());
        if seen.decision == Decision::Empty {
            empty += 1;
            continue;
        }
        if let PrepareSeen::Op(header) = &seen.prepare {
            let (min, max) = ops.unwrap_or((header.op, header.op));
            ops = Some((min.min(header.op), max.max(header.op)));
        }
        let known = seen.known().map_or([const { Cell::Nothing }; 6], header_cells);
        let row = [Cell::Number(slot.into())].into_iter().chain(known);
        rows.push(row.chain([Cell::text(seen.state())]).collect());
    }
    let mut document = Document::new();
    let facts = vec![
        ("checkpoint_op", Cell::Number(inspected.superblock.checkpoint.op)),
        ("op_min", Cell::number(ops.map(|(min, _)| min))),
        ("op_max", Cell::number(ops.map(|(_, max)| max))),
        ("slots", Cell::Count(reader.slots().into())),
        ("slots_empty", Cell::Count(empty)),
        ("slots_damaged", Cell::Count(damaged)),
    ];
    document.facts("wal", facts);
    let mut columns = vec!["slot"];
    columns.extend(HEADER_COLUMNS);
    columns.push("state");
    document.rows("slots", &columns, rows);
    Ok(document)
}

fn inspect_slot(reader: &mut WalReader<'_>, slot: u32) -> Result<Document, Failure> {
    if slot >= reader.slots() {
        let message = format!("--slot={slot}: the log has the slots 0 to {}", reader.slots() - 1);
        return Err(Failure::new(ExitClass::Usage, message));
    }
    let seen = reader.slot(slot)?;
    let zones = reader.geometry().zones;
    let mut document = Document::new();
    let header = match &seen.header {
        HeaderSeen::Invalid => "damaged".to_owned(),
        HeaderSeen::Reserved => "marks an empty slot".to_owned(),
        HeaderSeen::Op(header) => format!("of op {} in view {}", header.op, header.frame.view),
    };
    let prepare = match &seen.prepare {
        PrepareSeen::Invalid => "damaged".to_owned(),
        PrepareSeen::Blank => "never written".to_owned(),
        PrepareSeen::Op(header) => format!("op {} in view {}", header.op, header.frame.view),
    };
    let facts = vec![
        ("slot", Cell::Number(slot.into())),
        ("state", Cell::text(seen.state())),
        ("header", Cell::Text(header)),
        ("header_offset", Cell::Number(zones.wal_header_offset(slot))),
        ("prepare", Cell::Text(prepare)),
        ("prepare_offset", Cell::Number(zones.wal_prepare_offset(slot))),
    ];
    document.facts("slot", facts);
    if let PrepareSeen::Op(header) = &seen.prepare {
        describe(&mut document, header, reader.body(header));
    }
    Ok(document)
}
