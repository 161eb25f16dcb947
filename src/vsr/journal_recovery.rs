//! Reading the write-ahead log when a file is opened.
//!
//! Reads both rings, verifies whole what may be needed after the checkpoint, and decides for each
//! slot what to believe (see [`journal_decision`](super::journal_decision)). Then the replica says
//! how to end. In a cluster redundant headers are repaired and nothing else is overwritten: where
//! the log ends, and what is fetched from others, is the replica's business. A cluster of one
//! follows the chain to its end, removes what lies beyond it, and stops at damage that cannot be
//! decided, as there is nobody to ask. All writes are durable before anybody may append; recovery
//! can be interrupted anywhere and started again.

use zerocopy::{FromZeros, IntoBytes};

use super::fatal::Fatal;
use super::journal::{
    HEADERS_PER_SECTOR, Journal, JournalGeometry, SlotFault, SlotState, encode_sector,
    reserved_header,
};
use super::journal_decision::{Decision, HeaderCase, PrepareCase, Relation, decide};
use crate::protocol::{
    Buffer, Command, HEADER_SIZE, Header, Message, Pool, PrepareHeader, SECTOR_SIZE, round_up,
    to_index,
};
use crate::storage::{DiskDone, DiskKind, DiskOwner, StorageOutbox};

/// Reads and writes of sectors on their way at most.
const SECTORS_MAX: u32 = 8;
/// Reads of whole prepares on their way at most.
const PREPARES_MAX: u32 = 4;

/// What was found of a header in the ring of redundant ones.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "kept in a table with a place for each slot")]
pub enum HeaderSeen {
    /// It does not verify.
    Invalid,
    /// The mark of an empty slot.
    Reserved,
    /// The header of a prepare.
    Op(PrepareHeader),
}

impl HeaderSeen {
    /// What `header` is, found in the place of this slot.
    #[must_use]
    pub fn new(geometry: &JournalGeometry, slot: u32, header: &Header) -> HeaderSeen {
        if *header == reserved_header(geometry.cluster, slot) {
            return HeaderSeen::Reserved;
        }
        match verified(geometry, slot, header) {
            Some(header) => HeaderSeen::Op(header),
            None => HeaderSeen::Invalid,
        }
    }
}

/// What was found in a slot of prepares.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "kept in a table with a place for each slot")]
pub enum PrepareSeen {
    /// Header or body does not verify.
    Invalid,
    /// Nothing was ever written.
    Blank,
    /// A prepare.
    Op(PrepareHeader),
}

impl PrepareSeen {
    /// What `bytes` are, the start of this slot, of at least a header. A body is checked only if
    /// all of it is there.
    ///
    /// # Panics
    ///
    /// If there are fewer bytes than a header.
    #[must_use]
    pub fn new(geometry: &JournalGeometry, slot: u32, bytes: &[u8]) -> PrepareSeen {
        if bytes.iter().all(|byte| *byte == 0) {
            return PrepareSeen::Blank;
        }
        let Some(header) = verified(geometry, slot, Header::from_bytes(bytes)) else {
            return PrepareSeen::Invalid;
        };
        match bytes.get(to_index(HEADER_SIZE)..to_index(header.frame.size)) {
            Some(body) if !header.header().valid_checksum_body(body) => PrepareSeen::Invalid,
            _ => PrepareSeen::Op(header),
        }
    }
}

/// The header if it is whole, a prepare's, ours and in its place.
fn verified(geometry: &JournalGeometry, slot: u32, header: &Header) -> Option<PrepareHeader> {
    let prepare = header.frame.command == Command::Prepare as u8;
    if !prepare || !header.valid_checksum() || header.invalid().is_some() {
        return None;
    }
    let header = header.prepare();
    let ours = header.frame.cluster == geometry.cluster;
    let fits = header.frame.size <= geometry.message_size_max;
    let placed = geometry.slot(header.op) == slot;
    if ours && fits && placed { Some(*header) } else { None }
}

/// What to believe of a slot, of a log of `slots` slots after the checkpoint of this op.
///
/// # Panics
///
/// Never: the table of decisions is exhaustive.
#[must_use]
pub fn decide_slot(
    checkpoint: u64,
    slots: u32,
    header: &HeaderSeen,
    prepare: &PrepareSeen,
) -> Decision {
    let end = checkpoint + u64::from(slots);
    let (header, prepare, relation) = classify(checkpoint, end, header, prepare);
    decide(header, prepare, relation)
}

/// What recovery is doing; in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not started.
    Idle,
    /// Reading the headers ring.
    Headers,
    /// Reading sectors of headers again in which something does not verify: what a read brought may
    /// have been of another place, and damage that is not there would become so, as it is kept.
    HeadersAgain,
    /// Reading the first sector of every prepare.
    Starts,
    /// Reading and verifying the prepares that are needed and longer than a sector.
    Bodies,
    /// Everything was read: the replica is to say how to end.
    Read,
    /// Making slots beyond the end empty.
    Cleaning,
    /// Writing sectors of headers that differ from what they must be.
    Repairing,
    /// All is well.
    Done,
}

/// Recovery of the log.
#[derive(Debug)]
pub struct JournalRecovery {
    geometry: JournalGeometry,
    checkpoint: PrepareHeader,
    stage: Stage,
    /// Next sector, slot or op to start, by stage.
    cursor: u64,
    in_flight: u32,
    sectors: Pool,
    messages: Pool,
    headers_seen: Vec<HeaderSeen>,
    prepares_seen: Vec<PrepareSeen>,
    /// The headers ring as it is or must be on disk; zero where it could not be read.
    headers: Vec<Header>,
    dirty: Vec<bool>,
    /// In a cluster of one: where the log ends.
    solo_head: Option<u64>,
    /// Slots that were emptied, and sectors of headers that were written.
    repairs: u32,
}

impl JournalRecovery {
    /// A recovery that has not started. `messages` has buffers for whole prepares.
    ///
    /// # Panics
    ///
    /// If those buffers are too small.
    #[must_use]
    pub fn new(geometry: JournalGeometry, messages: Pool) -> JournalRecovery {
        assert!(messages.size() >= geometry.message_size_max);
        let slots = to_index(geometry.slots);
        JournalRecovery {
            geometry,
            checkpoint: PrepareHeader::root(geometry.cluster),
            stage: Stage::Idle,
            cursor: 0,
            in_flight: 0,
            sectors: Pool::new("journal recovery", SECTORS_MAX, SECTOR_SIZE),
            messages,
            headers_seen: vec![HeaderSeen::Invalid; slots],
            prepares_seen: vec![PrepareSeen::Invalid; slots],
            headers: vec![Header::new_zeroed(); slots],
            dirty: vec![false; to_index(geometry.sectors())],
            solo_head: None,
            repairs: 0,
        }
    }

    /// Bytes that a recovery occupies, the messages excepted.
    #[must_use]
    pub fn memory_bytes(geometry: &JournalGeometry) -> u64 {
        let slot = size_of::<HeaderSeen>() + size_of::<PrepareSeen>() + size_of::<Header>();
        u64::from(geometry.slots) * slot as u64
            + u64::from(geometry.sectors())
            + Pool::memory_bytes(SECTORS_MAX, SECTOR_SIZE)
    }

    /// Starts to read the log after `checkpoint`.
    ///
    /// # Panics
    ///
    /// If called twice.
    pub fn start(&mut self, checkpoint: &PrepareHeader, outbox: &mut StorageOutbox) {
        assert!(self.stage == Stage::Idle, "a log is recovered once");
        assert!(checkpoint.frame.cluster == self.geometry.cluster);
        self.checkpoint = *checkpoint;
        self.stage = Stage::Headers;
        self.pump(outbox);
    }

    /// Whether everything was read, and it is to be said how to end: with
    /// [`finish_cluster`](Self::finish_cluster), or [`solo_head`](Self::solo_head) and
    /// [`finish_solo`](Self::finish_solo).
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.stage == Stage::Read
    }

    /// Whether the log is ready for use.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Slots emptied and sectors of headers written.
    #[must_use]
    pub fn repairs(&self) -> u32 {
        self.repairs
    }

    /// Ends recovery in a cluster: repairs the redundant headers of prepares that are there.
    ///
    /// # Panics
    ///
    /// Before everything was read.
    pub fn finish_cluster(&mut self, outbox: &mut StorageOutbox) {
        assert!(self.is_read());
        for slot in 0..self.geometry.slots {
            if self.decision(slot) == Decision::RepairHeader {
                let header = *self.found_prepare(slot).header();
                self.want_header(slot, &header);
            }
        }
        self.stage = Stage::Repairing;
        self.pump(outbox);
    }

    /// Ends recovery in a cluster of one, whose log ends at `head`: empties what lies beyond, and
    /// makes the headers ring what follows from the prepares alone.
    ///
    /// # Panics
    ///
    /// Before everything was read, or if the head is not in reach of the checkpoint.
    pub fn finish_solo(&mut self, head: &PrepareHeader, outbox: &mut StorageOutbox) {
        assert!(self.is_read());
        assert!(head.op >= self.checkpoint.op);
        assert!(head.op <= self.checkpoint.op + u64::from(self.geometry.slots));
        self.solo_head = Some(head.op);
        for slot in 0..self.geometry.slots {
            let wanted = match &self.prepares_seen[to_index(slot)] {
                PrepareSeen::Op(header) if header.op <= head.op => *header.header(),
                _ => reserved_header(self.geometry.cluster, slot),
            };
            self.want_header(slot, &wanted);
        }
        self.stage = Stage::Cleaning;
        self.pump(outbox);
    }

    /// Hands the log to the journal that goes on with it.
    ///
    /// # Panics
    ///
    /// Before recovery is done.
    pub fn open(&self, journal: &mut Journal) {
        assert!(self.is_done());
        journal.open(&self.headers, (0..self.geometry.slots).map(|slot| self.state(slot)));
    }

    /// What the journal is to believe of a slot.
    fn state(&self, slot: u32) -> SlotState {
        let there = |header: PrepareHeader| SlotState {
            header: Some(header),
            stored: Some(header),
            fault: SlotFault::None,
        };
        if let Some(head) = self.solo_head {
            return match &self.prepares_seen[to_index(slot)] {
                PrepareSeen::Op(header) if header.op <= head => there(*header),
                _ => SlotState::EMPTY,
            };
        }
        match self.decision(slot) {
            Decision::Keep | Decision::RepairHeader => there(*self.found_prepare(slot)),
            Decision::Empty | Decision::Torn => SlotState::EMPTY,
            Decision::Either => {
                let (header, prepare) = (*self.found_header(slot), *self.found_prepare(slot));
                assert!(header.op == prepare.op, "a slot has one op after the checkpoint");
                // The later one is what the log had, if it is of the view that the log is of.
                SlotState {
                    header: Some(if self.is_header_later(slot) { header } else { prepare }),
                    stored: Some(prepare),
                    fault: SlotFault::hides(&header),
                }
            }
            Decision::FaultyKnown(_) => {
                let header = *self.found_header(slot);
                let fault = SlotFault::hides(&header);
                SlotState { header: Some(header), stored: None, fault }
            }
            Decision::Unproven => {
                SlotState { header: None, stored: None, fault: SlotFault::Unproven }
            }
            Decision::FaultyUnknown(_) => {
                SlotState { header: None, stored: None, fault: SlotFault::Unknown }
            }
        }
    }

    /// The prepare of a slot whose decision says that it is there.
    fn found_prepare(&self, slot: u32) -> &PrepareHeader {
        let PrepareSeen::Op(header) = &self.prepares_seen[to_index(slot)] else {
            panic!("the prepare is there")
        };
        header
    }

    /// The redundant header of a slot whose decision says that it is of an op.
    fn found_header(&self, slot: u32) -> &PrepareHeader {
        let HeaderSeen::Op(header) = &self.headers_seen[to_index(slot)] else {
            panic!("the header is known")
        };
        header
    }

    /// Makes the slot's place in the headers ring what it must be.
    fn want_header(&mut self, slot: u32, wanted: &Header) {
        if self.headers[to_index(slot)] != *wanted {
            self.headers[to_index(slot)] = *wanted;
            self.dirty[to_index(slot / HEADERS_PER_SECTOR)] = true;
        }
    }

    /// Starts whatever can be started now.
    fn pump(&mut self, outbox: &mut StorageOutbox) {
        // Each round ends with requests on their way or the next of a few stages.
        loop {
            let started_all = match self.stage {
                Stage::Headers => self.pump_headers(|_, _| true, outbox),
                Stage::HeadersAgain => self.pump_headers(JournalRecovery::is_invalid, outbox),
                Stage::Starts => self.pump_starts(outbox),
                Stage::Bodies => self.pump_bodies(outbox),
                Stage::Cleaning => self.pump_cleaning(outbox),
                Stage::Repairing => self.pump_repairing(outbox),
                Stage::Idle | Stage::Read | Stage::Done => return,
            };
            if !started_all || self.in_flight > 0 {
                return;
            }
            self.cursor = 0;
            self.stage = match self.stage {
                Stage::Headers => Stage::HeadersAgain,
                Stage::HeadersAgain => Stage::Starts,
                Stage::Starts => {
                    self.cursor = self.checkpoint.op + 1;
                    Stage::Bodies
                }
                Stage::Bodies | Stage::Read => Stage::Read,
                Stage::Cleaning => Stage::Repairing,
                Stage::Repairing | Stage::Idle | Stage::Done => Stage::Done,
            };
        }
    }

    fn pump_headers(
        &mut self,
        is_wanted: impl Fn(&JournalRecovery, u32) -> bool,
        outbox: &mut StorageOutbox,
    ) -> bool {
        while self.cursor < u64::from(self.geometry.sectors()) {
            let sector = u32::try_from(self.cursor).expect("sectors fit 32 bits");
            if !is_wanted(self, sector) {
                self.cursor += 1;
                continue;
            }
            let Some(buffer) = self.sector() else { return false };
            self.cursor += 1;
            outbox.disk.push(self.geometry.header_request(DiskKind::Read, sector, buffer));
        }
        true
    }

    /// Whether a header in this sector does not verify.
    fn is_invalid(&self, sector: u32) -> bool {
        self.slots_of(sector)
            .any(|slot| matches!(self.headers_seen[to_index(slot)], HeaderSeen::Invalid))
    }

    /// Slots whose headers are in a sector.
    fn slots_of(&self, sector: u32) -> std::ops::Range<u32> {
        let first = sector * HEADERS_PER_SECTOR;
        first..self.geometry.slots.min(first + HEADERS_PER_SECTOR)
    }

    fn pump_starts(&mut self, outbox: &mut StorageOutbox) -> bool {
        while self.cursor < u64::from(self.geometry.slots) {
            let Some(buffer) = self.sector() else { return false };
            let slot = self.next();
            let read = DiskKind::Read;
            outbox.disk.push(self.geometry.prepare_request(read, slot, SECTOR_SIZE, buffer));
        }
        true
    }

    fn pump_bodies(&mut self, outbox: &mut StorageOutbox) -> bool {
        let end = self.checkpoint.op + u64::from(self.geometry.slots);
        while self.cursor <= end {
            let slot = self.geometry.slot(self.cursor);
            let size = match &self.prepares_seen[to_index(slot)] {
                PrepareSeen::Op(header) if header.op == self.cursor => header.frame.size,
                _ => 0,
            };
            if size > SECTOR_SIZE {
                if self.in_flight == PREPARES_MAX {
                    return false;
                }
                let Some(buffer) = self.messages.try_acquire() else { return false };
                self.in_flight += 1;
                let length = round_up(size, SECTOR_SIZE);
                let read = DiskKind::Read;
                outbox.disk.push(self.geometry.prepare_request(read, slot, length, buffer));
            }
            self.cursor += 1;
        }
        true
    }

    fn pump_cleaning(&mut self, outbox: &mut StorageOutbox) -> bool {
        while self.cursor < u64::from(self.geometry.slots) {
            let slot = u32::try_from(self.cursor).expect("slots fit 32 bits");
            if self.is_beyond(slot) {
                let Some(mut buffer) = self.sector() else { return false };
                buffer.fill_zero();
                let kind = DiskKind::WriteDurable;
                outbox.disk.push(self.geometry.prepare_request(kind, slot, SECTOR_SIZE, buffer));
                self.repairs += 1;
            }
            self.cursor += 1;
        }
        true
    }

    fn pump_repairing(&mut self, outbox: &mut StorageOutbox) -> bool {
        while self.cursor < u64::from(self.geometry.sectors()) {
            let sector = u32::try_from(self.cursor).expect("sectors fit 32 bits");
            if self.dirty[to_index(sector)] {
                let Some(mut buffer) = self.sector() else { return false };
                encode_sector(&self.headers, sector, buffer.bytes_mut());
                let kind = DiskKind::WriteDurable;
                outbox.disk.push(self.geometry.header_request(kind, sector, buffer));
                self.repairs += 1;
            }
            self.cursor += 1;
        }
        true
    }

    /// A sector's buffer for one more request.
    fn sector(&mut self) -> Option<Buffer> {
        let buffer = self.sectors.try_acquire()?;
        self.in_flight += 1;
        Some(buffer)
    }

    fn next(&mut self) -> u32 {
        let next = u32::try_from(self.cursor).expect("slots and sectors fit 32 bits");
        self.cursor += 1;
        next
    }

    /// Takes the answer to one of recovery's requests.
    ///
    /// # Errors
    ///
    /// If a write failed.
    ///
    /// # Panics
    ///
    /// If the answer is to nothing that was asked.
    pub fn on_disk_done(
        &mut self,
        done: DiskDone,
        outbox: &mut StorageOutbox,
    ) -> Result<(), Fatal> {
        assert!(self.in_flight > 0);
        self.in_flight -= 1;
        let index = done.request.token.index;
        let read = done.request.kind == DiskKind::Read;
        if !read && let Some(fatal) = self.geometry.disk_fault(&done) {
            return Err(fatal);
        }
        // A sector that cannot be read is damaged, no more and no less.
        let buffer = if done.result.is_ok() { done.request.buffer } else { None };
        match (self.stage, done.request.token.owner) {
            (Stage::Headers | Stage::HeadersAgain, DiskOwner::JournalHeader) => {
                self.headers_read(index, buffer);
            }
            (Stage::Starts, DiskOwner::JournalPrepare) => self.start_read(index, buffer),
            (Stage::Bodies, DiskOwner::JournalPrepare) => self.body_read(index, buffer),
            (Stage::Cleaning, DiskOwner::JournalPrepare)
            | (Stage::Repairing, DiskOwner::JournalHeader) => drop(buffer),
            (stage, owner) => panic!("an answer for {owner:?} during {stage:?}"),
        }
        self.pump(outbox);
        Ok(())
    }

    fn headers_read(&mut self, sector: u32, buffer: Option<Buffer>) {
        let Some(buffer) = buffer else { return };
        for (place, slot) in self.slots_of(sector).enumerate() {
            let seen = &mut self.headers_seen[to_index(slot)];
            if matches!(seen, HeaderSeen::Invalid) {
                let header = Header::from_bytes(&buffer.bytes()[place * to_index(HEADER_SIZE)..]);
                *seen = HeaderSeen::new(&self.geometry, slot, header);
                self.headers[to_index(slot)] = *header;
            }
        }
    }

    fn start_read(&mut self, slot: u32, buffer: Option<Buffer>) {
        let seen = match buffer {
            None => PrepareSeen::Invalid,
            Some(buffer) => PrepareSeen::new(&self.geometry, slot, buffer.bytes()),
        };
        self.prepares_seen[to_index(slot)] = seen;
    }

    fn body_read(&mut self, slot: u32, buffer: Option<Buffer>) {
        let PrepareSeen::Op(expected) = self.prepares_seen[to_index(slot)] else {
            panic!("only prepares with a valid header are read whole")
        };
        let valid = buffer.is_some_and(|buffer| {
            let message = Message(buffer);
            let same = message.header().as_bytes() == expected.as_bytes();
            same && message.valid_checksum_body()
        });
        if !valid {
            self.prepares_seen[to_index(slot)] = PrepareSeen::Invalid;
        }
    }

    /// The decision about a slot.
    fn decision(&self, slot: u32) -> Decision {
        let header = &self.headers_seen[to_index(slot)];
        let prepare = &self.prepares_seen[to_index(slot)];
        decide_slot(self.checkpoint.op, self.geometry.slots, header, prepare)
    }

    /// Follows the chain from the checkpoint to the end of the log: its newest op, or the
    /// checkpoint's if there is none. A head that was torn is not of the log.
    ///
    /// # Errors
    ///
    /// If the log is damaged where it is needed, or ends too early.
    ///
    /// # Panics
    ///
    /// Before everything was read.
    pub fn solo_head(&self) -> Result<PrepareHeader, Fatal> {
        assert!(self.is_read());
        let mut head = self.checkpoint;
        for _ in 0..self.geometry.slots {
            let op = head.op + 1;
            let slot = self.geometry.slot(op);
            match self.decision(slot) {
                Decision::Either if self.is_header_later(slot) => {
                    let what = "the prepare is older than its redundant header";
                    return Err(self.geometry.prepare_fault(op, what));
                }
                Decision::Keep | Decision::RepairHeader | Decision::Either => {
                    let header = self.found_prepare(slot);
                    if header.op < op {
                        break;
                    }
                    assert!(header.op == op, "a slot has one op after the checkpoint");
                    if header.parent != head.frame.checksum {
                        let what = "the prepare does not continue the one before it";
                        return Err(self.geometry.prepare_fault(op, what));
                    }
                    head = *header;
                }
                Decision::Empty | Decision::Unproven | Decision::Torn => break,
                Decision::FaultyKnown(what) | Decision::FaultyUnknown(what) => {
                    return Err(self.geometry.prepare_fault(op, what));
                }
            }
        }
        self.verify_end(&head)?;
        Ok(head)
    }

    /// Whether the redundant header of a slot is of a later view than the prepare.
    fn is_header_later(&self, slot: u32) -> bool {
        self.found_header(slot).frame.view > self.found_prepare(slot).frame.view
    }

    /// Nothing in the log may prove that the op after its end was committed.
    fn verify_end(&self, head: &PrepareHeader) -> Result<(), Fatal> {
        let missing = head.op + 1;
        let proof = |header: &PrepareHeader| {
            header.commit >= missing || header.op >= missing + u64::from(self.geometry.pipeline_max)
        };
        let prepares = self.prepares_seen.iter().filter_map(|seen| match seen {
            PrepareSeen::Op(header) => Some(header),
            PrepareSeen::Invalid | PrepareSeen::Blank => None,
        });
        let headers = self.headers_seen.iter().filter_map(|seen| match seen {
            HeaderSeen::Op(header) => Some(header),
            HeaderSeen::Invalid | HeaderSeen::Reserved => None,
        });
        if prepares.chain(headers).any(proof) {
            let what = "the prepare is missing, but newer ones prove that it was committed";
            return Err(self.geometry.prepare_fault(missing, what));
        }
        Ok(())
    }

    /// Whether the slot holds nothing that may stay in a cluster of one: damage, or ops beyond the
    /// end.
    fn is_beyond(&self, slot: u32) -> bool {
        let head = self.solo_head.expect("only a cluster of one empties slots");
        match &self.prepares_seen[to_index(slot)] {
            PrepareSeen::Invalid => true,
            PrepareSeen::Blank => false,
            PrepareSeen::Op(header) => header.op > head,
        }
    }
}

/// The cases of a slot: ops up to `checkpoint` are old, ops up to `end` needed.
fn classify(
    checkpoint: u64,
    end: u64,
    header: &HeaderSeen,
    prepare: &PrepareSeen,
) -> (HeaderCase, PrepareCase, Relation) {
    assert!(checkpoint < end);
    let header_case = match header {
        HeaderSeen::Invalid => HeaderCase::Invalid,
        HeaderSeen::Reserved => HeaderCase::Reserved,
        HeaderSeen::Op(found) if found.op <= checkpoint => HeaderCase::Old,
        HeaderSeen::Op(found) if found.op > end => HeaderCase::Beyond,
        HeaderSeen::Op(_) => HeaderCase::Needed,
    };
    let prepare_case = match prepare {
        PrepareSeen::Invalid => PrepareCase::Invalid,
        PrepareSeen::Blank => PrepareCase::Blank,
        PrepareSeen::Op(found) if found.op <= checkpoint => PrepareCase::Old,
        PrepareSeen::Op(found) if found.op > end => PrepareCase::Beyond,
        PrepareSeen::Op(_) => PrepareCase::Needed,
    };
    let relation = match (header, prepare) {
        (HeaderSeen::Op(header), PrepareSeen::Op(prepare))
            if Relation::Same.fits(header_case, prepare_case) =>
        {
            if header == prepare {
                Relation::Same
            } else {
                Relation::Different
            }
        }
        _ => Relation::Apart,
    };
    (header_case, prepare_case, relation)
}
