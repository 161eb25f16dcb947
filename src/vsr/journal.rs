//! The write-ahead log: a ring of prepares and a ring of redundant copies of their headers.
//!
//! A prepare is written to its slot first, durably; only then the sector with its redundant header.
//! The op is durable after both. Ops are written in any order, several at a time; writes to one
//! sector of headers are serialized and shared by all that wait for it. For each slot the journal
//! knows three things: the header that the log should have there, the prepare that is durable
//! there, and whether damage may hide one that was acknowledged. Not covered: which ops the log
//! should have (the replica decides), and what to believe after a restart (see
//! [`journal_recovery`](super::journal_recovery)).

use zerocopy::IntoBytes;

use super::fatal::Fatal;
pub use super::journal_geometry::{
    HEADERS_PER_SECTOR, JournalGeometry, encode_sector, reserved_header,
};
use crate::protocol::{
    Buffer, Header, Message, Pool, PrepareHeader, SECTOR_SIZE, round_up, to_index,
};
use crate::storage::{DiskDone, DiskKind, DiskOwner, StorageOutbox};

/// Reads of prepares on their way, or waiting to be taken, at most.
pub const READS_MAX: u32 = 4;
/// Writes on their way, or waiting to be taken, at most: so many for each place of the pipeline,
/// since repairs are written while new prepares arrive.
const WRITES_PER_PIPELINE: u32 = 2;
/// Sectors of headers that are read or repaired by the scrub at a time.
const SCRUBBING: u32 = 2;

/// Damage of a slot, and what it may hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotFault {
    /// Nothing that was ever acknowledged is missing.
    None,
    /// This prepare was durable here and is lost; no other was.
    Hides {
        /// Its op.
        op: u64,
        /// Checksum of its header.
        checksum: u128,
    },
    /// Any prepare of this slot may have been durable here.
    Unknown,
    /// The same, but most likely there was none: the slot reads as never written, and only the
    /// header that would say so is damaged.
    Unproven,
}

impl SlotFault {
    /// That the prepare with this header is lost.
    #[must_use]
    pub fn hides(header: &PrepareHeader) -> SlotFault {
        SlotFault::Hides { op: header.op, checksum: header.frame.checksum }
    }
}

/// One slot of the log, as recovery finds it and the journal keeps it.
#[derive(Clone, Copy, Debug)]
pub struct SlotState {
    /// Header of the op that the log should have here, as far as known.
    pub header: Option<PrepareHeader>,
    /// The prepare that is durable here, with its redundant header, and not being overwritten.
    pub stored: Option<PrepareHeader>,
    /// What is damaged. If `stored` is known, at most another prepare of the same op is hidden.
    pub fault: SlotFault,
}

impl SlotState {
    /// A slot in which nothing was ever acknowledged.
    pub const EMPTY: SlotState = SlotState { header: None, stored: None, fault: SlotFault::None };
}

/// How far the write of one op is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteStage {
    /// The prepare is being written.
    Prepare,
    /// The prepare is durable; another write of its header's sector is going on.
    HeaderWaits,
    /// The header's sector is being written.
    Header,
    /// Both are durable; to be taken.
    Written,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    header: PrepareHeader,
    slot: u32,
    stage: WriteStage,
    /// The prepare was there before.
    header_only: bool,
}

/// What a prepare is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPurpose {
    /// To execute it.
    Commit,
    /// To send it to a replica that lacks it.
    Serve {
        /// The replica.
        to: u8,
    },
    /// To see whether it is intact.
    Scrub,
}

/// Why a prepare could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// Its slot was given to another prepare meanwhile.
    Overwritten,
    /// It is damaged or unreadable, and its slot is faulty from now on. A replica without peers
    /// stops with this reason.
    Lost(Fatal),
}

/// The end of a read.
#[derive(Debug)]
pub struct ReadDone {
    /// The op that was asked for.
    pub op: u64,
    /// Checksum of its header.
    pub checksum: u128,
    /// As it was asked for.
    pub purpose: ReadPurpose,
    /// The prepare, verified.
    pub result: Result<Message, ReadFault>,
}

#[derive(Debug)]
struct Read {
    header: PrepareHeader,
    purpose: ReadPurpose,
    /// A write of the slot was started since.
    overwritten: bool,
    result: Option<Result<Message, ReadFault>>,
}

/// A sector of headers that is read to see whether it is intact.
#[derive(Clone, Copy, Debug)]
struct SectorRead {
    sector: u32,
    /// A write of the sector was started since.
    overwritten: bool,
}

/// The log of an open file.
#[derive(Debug)]
pub struct Journal {
    geometry: JournalGeometry,
    slots: Vec<SlotState>,
    /// The ring of redundant headers: only headers of prepares that are or were durable, and what
    /// was found of damaged ones, which must stay damaged until a prepare is durable there.
    ring: Vec<Header>,
    writes: Vec<Option<Write>>,
    reads: Vec<Option<Read>>,
    sector_busy: Vec<bool>,
    sector_read: Option<SectorRead>,
    sector_pool: Pool,
    /// Sectors of headers that were damaged and written again.
    sectors_repaired: u64,
    /// Requests to write that have ended.
    writes_done: u64,
}

impl Journal {
    /// A journal that knows nothing yet.
    ///
    /// # Panics
    ///
    /// Never: a valid geometry has room for a prepare.
    #[must_use]
    pub fn new(geometry: JournalGeometry) -> Journal {
        assert!(geometry.slots > 0);
        let ring =
            (0..geometry.slots).map(|slot| reserved_header(geometry.cluster, slot)).collect();
        let writes_max = writes_max(&geometry);
        Journal {
            geometry,
            slots: vec![SlotState::EMPTY; to_index(geometry.slots)],
            ring,
            writes: vec![None; to_index(writes_max)],
            reads: (0..READS_MAX).map(|_| None).collect(),
            sector_busy: vec![false; to_index(geometry.sectors())],
            sector_read: None,
            sector_pool: Pool::new("journal headers", writes_max + SCRUBBING, SECTOR_SIZE),
            sectors_repaired: 0,
            writes_done: 0,
        }
    }

    /// Bytes that a journal occupies.
    #[must_use]
    pub fn memory_bytes(geometry: &JournalGeometry) -> u64 {
        let slot = size_of::<Header>() + size_of::<SlotState>();
        let writes_max = writes_max(geometry);
        u64::from(geometry.slots) * slot as u64
            + u64::from(writes_max) * size_of::<Option<Write>>() as u64
            + u64::from(READS_MAX) * size_of::<Option<Read>>() as u64
            + u64::from(geometry.sectors())
            + Pool::memory_bytes(writes_max + SCRUBBING, SECTOR_SIZE)
    }

    /// Takes over the rings as recovery left them on disk.
    ///
    /// # Panics
    ///
    /// If there are more or fewer slots, or something is on its way.
    pub fn open(&mut self, ring: &[Header], slots: impl Iterator<Item = SlotState>) {
        assert!(self.is_idle());
        self.ring.copy_from_slice(ring);
        let mut count = 0;
        for (place, slot) in self.slots.iter_mut().zip(slots) {
            let hides_other = |stored: PrepareHeader| match slot.fault {
                SlotFault::Hides { op, checksum } => {
                    op == stored.op && checksum != stored.frame.checksum
                }
                fault => fault == SlotFault::None,
            };
            assert!(slot.stored.is_none_or(hides_other));
            *place = slot;
            count += 1;
        }
        assert!(count == self.slots.len(), "recovery knows every slot");
    }

    /// Where the log lies.
    #[must_use]
    pub fn geometry(&self) -> &JournalGeometry {
        &self.geometry
    }

    /// Whether nothing is on its way or waits to be taken, but for what the scrub reads.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let mut reads = self.reads.iter().flatten();
        self.writes.iter().all(Option::is_none)
            && reads.all(|read| read.purpose == ReadPurpose::Scrub)
    }

    /// The header that the log should have at `op`, if it is known.
    #[must_use]
    pub fn header(&self, op: u64) -> Option<&PrepareHeader> {
        self.slot(op).header.as_ref().filter(|header| header.op == op)
    }

    /// The oldest op, not before `first`, from which on each header names the one before it, up to
    /// this one, which need not be here.
    #[must_use]
    pub fn linked_down_to(&self, header: &PrepareHeader, first: u64) -> u64 {
        let (mut lowest, mut parent) = (header.op, header.parent);
        while lowest > first {
            let below = self.header(lowest - 1);
            let Some(below) = below.filter(|below| below.frame.checksum == parent) else { break };
            (lowest, parent) = (below.op, below.parent);
        }
        lowest
    }

    /// All headers that the log should have, as far as known, by slot.
    pub fn headers(&self) -> impl Iterator<Item = &PrepareHeader> {
        self.slots.iter().filter_map(|slot| slot.header.as_ref())
    }

    /// Notes a header that was learned from others, in place of the one that its slot had; the
    /// prepare may be missing.
    ///
    /// # Panics
    ///
    /// If it is not a header of this log.
    pub fn set_header(&mut self, header: &PrepareHeader) {
        assert!(header.frame.cluster == self.geometry.cluster);
        assert!(header.frame.size <= self.geometry.message_size_max);
        self.slot_mut(header.op).header = Some(*header);
    }

    /// Forgets every op after `op`: it is not of this history. The disk stays as it is, and what is
    /// damaged stays so. A write on its way still ends, but its prepare counts only if the log has
    /// it again by then.
    pub fn remove_after(&mut self, op: u64) {
        for slot in &mut self.slots {
            slot.header = slot.header.filter(|header| header.op <= op);
            slot.stored = slot.stored.filter(|header| header.op <= op);
        }
    }

    /// Forgets what is not of this view in slots of ops after `op`: those were prepared in it, so
    /// that what an earlier one had there is over, here or lost. Where two prepares may have been
    /// the last, both stay.
    pub fn retain_view(&mut self, op: u64, view: u32) {
        let is_of_view = |header: &PrepareHeader| header.op <= op || header.frame.view == view;
        for slot in &mut self.slots {
            slot.stored = slot.stored.filter(is_of_view);
            if slot.header.is_some_and(|header| !is_of_view(&header)) {
                slot.header = slot.stored;
                // Of two the later one is known, so that neither is of the view.
                if slot.stored.is_none() && matches!(slot.fault, SlotFault::Hides { .. }) {
                    slot.fault = SlotFault::None;
                }
            }
        }
    }

    /// The prepare of `op` that is durable, if there is one.
    #[must_use]
    pub fn stored(&self, op: u64) -> Option<&PrepareHeader> {
        self.slot(op).stored.as_ref().filter(|header| header.op == op)
    }

    /// Whether exactly this prepare is durable and, as far as known, intact.
    #[must_use]
    pub fn has(&self, op: u64, checksum: u128) -> bool {
        self.stored(op).is_some_and(|header| header.frame.checksum == checksum)
    }

    /// Whether this replica certainly never acknowledged this prepare: it is not there, and nothing
    /// that is damaged may have been it.
    #[must_use]
    pub fn may_nack(&self, op: u64, checksum: u128) -> bool {
        !self.may_hide(op, checksum) && !self.has(op, checksum)
    }

    /// Whether damage may hide this prepare.
    #[must_use]
    pub fn may_hide(&self, op: u64, checksum: u128) -> bool {
        match self.slot(op).fault {
            SlotFault::None => false,
            SlotFault::Hides { op: lost_op, checksum: lost } => lost_op == op && lost == checksum,
            SlotFault::Unknown | SlotFault::Unproven => true,
        }
    }

    /// Whether damage may hide a prepare of `op`.
    #[must_use]
    pub fn is_faulty(&self, op: u64) -> bool {
        match self.slot(op).fault {
            SlotFault::None => false,
            SlotFault::Hides { op: lost, .. } => lost == op,
            SlotFault::Unknown | SlotFault::Unproven => true,
        }
    }

    /// Whether damage of which nothing is known may hide an op after `head`, up to `last`. A slot
    /// that reads as never written may only within the pipeline: farther on a read would have gone
    /// elsewhere for an op that came here alone, without all those between. Otherwise headers of
    /// empty slots, damaged on all replicas at once, would stop a cluster for good.
    #[must_use]
    pub fn may_hide_op_after(&self, head: u64, last: u64) -> bool {
        let slots = u64::from(self.geometry.slots);
        let near = head.saturating_add(self.geometry.pipeline_max.into());
        let last = last.min(head.saturating_add(slots));
        (head.saturating_add(1)..=last).any(|op| match self.slot(op).fault {
            SlotFault::Unknown => true,
            SlotFault::Unproven => op <= near,
            SlotFault::None | SlotFault::Hides { .. } => false,
        })
    }

    /// Whether a write is on its way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.writes.iter().flatten().any(|write| write.stage != WriteStage::Written)
    }

    /// Requests to write that have ended since the file was opened.
    #[must_use]
    pub fn writes_done(&self) -> u64 {
        self.writes_done
    }

    /// Takes damage behind `head`, up to `last`, for settled: the view that is durable here says
    /// where the log ended when it began, so that whatever was lost there is no promise any more.
    /// What is prepared from now on is told by redundant headers again.
    pub fn settle_after(&mut self, head: u64, last: u64) {
        let slots = u64::from(self.geometry.slots);
        for op in head.saturating_add(1)..=last.min(head.saturating_add(slots)) {
            let slot = self.geometry.slot(op);
            let fault = self.slots[to_index(slot)].fault;
            if fault == SlotFault::None || self.is_writing(op) {
                continue;
            }
            crate::mark!("damage_settled");
            self.slots[to_index(slot)].fault = SlotFault::None;
            if matches!(fault, SlotFault::Unknown | SlotFault::Unproven) {
                self.ring[to_index(slot)] = reserved_header(self.geometry.cluster, slot);
            }
        }
    }

    /// Whether a write of the op's slot is on its way, of whichever op.
    #[must_use]
    pub fn is_writing(&self, op: u64) -> bool {
        let slot = self.geometry.slot(op);
        let mut writes = self.writes.iter().flatten();
        writes.any(|write| write.slot == slot && write.stage != WriteStage::Written)
    }

    /// Whether a prepare of `op` can be written now. Writes that ended count until they are taken.
    #[must_use]
    pub fn can_write(&self, op: u64) -> bool {
        self.writes.iter().any(Option::is_none) && !self.is_writing(op)
    }

    /// Starts to write a prepare whose checksums are set, and wants its header from now on. What
    /// the slot had is gone: the caller knows that nobody needs it. The rest of the prepare's last
    /// sector is made zero here if it is not, so that the buffer must have no other reference then.
    ///
    /// # Panics
    ///
    /// If it cannot be written now, or is too large.
    pub fn write(&mut self, message: &mut Message, outbox: &mut StorageOutbox) {
        let header = *message.prepare();
        let size = header.frame.size;
        assert!(self.can_write(header.op), "whoever writes has looked for a place");
        assert!(size <= self.geometry.message_size_max);
        assert!(header.frame.cluster == self.geometry.cluster);
        let length = round_up(size, SECTOR_SIZE);
        let rest = to_index(size)..to_index(length);
        if message.0.bytes()[rest.clone()].iter().any(|byte| *byte != 0) {
            message.0.bytes_mut()[rest].fill(0);
        }
        let slot = self.geometry.slot(header.op);
        let place = self.writes.iter_mut().find(|place| place.is_none());
        let place = place.expect("a place among the writes is free");
        let stage = WriteStage::Prepare;
        *place = Some(Write { header, slot, stage, header_only: false });
        let known = self.slot_mut(header.op);
        known.header = Some(header);
        known.stored = None;
        for read in self.reads.iter_mut().flatten() {
            read.overwritten |= self.geometry.slot(read.header.op) == slot;
        }
        let kind = DiskKind::WriteDurable;
        let buffer = message.0.clone();
        outbox.disk.push(self.geometry.prepare_request(kind, slot, length, buffer));
    }

    /// Whether the prepare of `op` that is here is not the one that its redundant header tells of:
    /// if it were damaged from now on, only the latter would be known to be missing.
    #[must_use]
    pub fn is_untold(&self, op: u64) -> bool {
        self.stored(op).is_some() && self.slot(op).fault != SlotFault::None
    }

    /// Starts to write the redundant header of the prepare of `op` that is here. What it told of
    /// until now is given up: the caller knows that nobody needs it.
    ///
    /// # Panics
    ///
    /// If it cannot be written now, the header tells of the prepare, or the log has another one.
    pub fn write_header(&mut self, op: u64, outbox: &mut StorageOutbox) {
        assert!(self.can_write(op) && self.is_untold(op));
        let header = *self.stored(op).expect("it is here");
        assert!(self.header(op) == Some(&header), "what the log has is told of");
        let slot = self.geometry.slot(op);
        let place = self.writes.iter_mut().find(|place| place.is_none());
        let place = place.expect("a place among the writes is free");
        let stage = WriteStage::HeaderWaits;
        *place = Some(Write { header, slot, stage, header_only: true });
        self.ring[to_index(slot)] = *header.header();
        self.sector_write(slot / HEADERS_PER_SECTOR, outbox);
    }

    /// A prepare that became durable since, each once, in any order. It may no longer be wanted.
    pub fn take_written(&mut self) -> Option<PrepareHeader> {
        let written = |place: &&mut Option<Write>| {
            place.as_ref().is_some_and(|write| write.stage == WriteStage::Written)
        };
        let write = self.writes.iter_mut().find(written)?.take()?;
        Some(write.header)
    }

    /// Whether a read can be started now. Reads for others leave a place for execution, the scrub
    /// leaves one for both.
    #[must_use]
    pub fn can_read(&self, purpose: ReadPurpose) -> bool {
        let free = self.reads.iter().filter(|read| read.is_none()).count();
        match purpose {
            ReadPurpose::Commit => free > 0,
            ReadPurpose::Serve { .. } => free > 1,
            ReadPurpose::Scrub => free > 2,
        }
    }

    /// The prepare that is durable in a slot, if there is one.
    #[must_use]
    pub fn stored_in(&self, slot: u32) -> Option<&PrepareHeader> {
        self.slots[to_index(slot)].stored.as_ref()
    }

    /// Takes back that a prepare was found damaged, unless its slot has another one or is being
    /// written: without peers there is nothing to do but to read it again another time.
    pub fn count_as_stored(&mut self, op: u64, checksum: u128) {
        let is_writing = self.is_writing(op);
        let slot = self.slot_mut(op);
        let header = slot.header.filter(|header| header.frame.checksum == checksum);
        if header.is_some() && slot.stored.is_none() && !is_writing {
            slot.stored = header;
            slot.fault = SlotFault::None;
        }
    }

    /// Sectors of headers that were damaged and have been written again since the file was opened.
    #[must_use]
    pub fn sectors_repaired(&self) -> u64 {
        self.sectors_repaired
    }

    /// Starts to read a sector of headers, to write it again if it is damaged; whether it could be
    /// done now.
    ///
    /// # Panics
    ///
    /// If there is no such sector.
    pub fn scrub_sector(&mut self, sector: u32, outbox: &mut StorageOutbox) -> bool {
        if self.sector_read.is_some() || self.sector_busy[to_index(sector)] {
            return false;
        }
        let Some(buffer) = self.sector_pool.try_acquire() else { return false };
        self.sector_read = Some(SectorRead { sector, overwritten: false });
        outbox.disk.push(self.geometry.header_request(DiskKind::Read, sector, buffer));
        true
    }

    /// Compares a sector with what must be there. While no write of it is on its way, that is what
    /// the ring in memory says.
    fn scrub_done(&mut self, done: DiskDone, outbox: &mut StorageOutbox) {
        let read = self.sector_read.take().expect("an answer to a read of a sector");
        assert!(read.sector == done.request.token.index);
        if read.overwritten {
            return;
        }
        assert!(!self.sector_busy[to_index(read.sector)], "every write is noted");
        let refused = self.geometry.disk_fault(&done).is_some();
        let found = done.request.buffer.expect("a read returns its buffer");
        let mut buffer = self.sector_pool.acquire();
        encode_sector(&self.ring, read.sector, buffer.bytes_mut());
        if !refused && found.bytes() == buffer.bytes() {
            return;
        }
        crate::mark!("headers_repaired");
        self.sectors_repaired += 1;
        self.sector_push(read.sector, buffer, outbox);
    }

    /// Starts to read a prepare that the log has into `buffer`.
    ///
    /// # Panics
    ///
    /// If the log does not have it, or no place among the reads is free.
    pub fn read(
        &mut self,
        op: u64,
        checksum: u128,
        buffer: Buffer,
        purpose: ReadPurpose,
        outbox: &mut StorageOutbox,
    ) {
        assert!(self.has(op, checksum), "what is read is there");
        assert!(self.can_read(purpose));
        let header = *self.stored(op).expect("what is read is there");
        let place = self.reads.iter().position(Option::is_none).expect("a place is free");
        self.reads[place] = Some(Read { header, purpose, overwritten: false, result: None });
        let length = round_up(header.frame.size, SECTOR_SIZE);
        let slot = self.geometry.slot(op);
        let kind = DiskKind::Read;
        let mut request = self.geometry.prepare_request(kind, slot, length, buffer);
        request.token.index = crate::protocol::to_size(place);
        outbox.disk.push(request);
    }

    /// A read that ended, each once, in any order.
    ///
    /// # Panics
    ///
    /// Never: a read that ended has a result.
    pub fn take_read(&mut self) -> Option<ReadDone> {
        let ended =
            |place: &&mut Option<Read>| place.as_ref().is_some_and(|read| read.result.is_some());
        let Read { header, purpose, result, .. } = self.reads.iter_mut().find(ended)?.take()?;
        let checksum = header.frame.checksum;
        let result = result.expect("the read ended");
        Some(ReadDone { op: header.op, checksum, purpose, result })
    }

    /// Takes the answer to one of the journal's requests.
    ///
    /// # Errors
    ///
    /// If the device refused a write.
    ///
    /// # Panics
    ///
    /// If the answer is to nothing that was asked.
    pub fn on_disk_done(
        &mut self,
        done: DiskDone,
        outbox: &mut StorageOutbox,
    ) -> Result<(), Fatal> {
        let index = done.request.token.index;
        match (done.request.token.owner, done.request.kind) {
            (DiskOwner::JournalPrepare, DiskKind::Read) => self.read_done(done),
            (DiskOwner::JournalHeader, DiskKind::Read) => self.scrub_done(done, outbox),
            (DiskOwner::JournalPrepare | DiskOwner::JournalHeader, _) => {
                if let Some(fatal) = self.geometry.disk_fault(&done) {
                    return Err(fatal);
                }
                self.writes_done += 1;
                let owner = done.request.token.owner;
                // The buffer of a sector goes back before the next write of it needs one.
                drop(done);
                if owner == DiskOwner::JournalPrepare {
                    self.prepare_done(index, outbox);
                } else {
                    self.sector_done(index, outbox);
                }
            }
            (owner, _) => panic!("an answer for {owner:?} is not the journal's"),
        }
        Ok(())
    }

    fn read_done(&mut self, done: DiskDone) {
        let place = to_index(done.request.token.index);
        let read = self.reads[place].as_ref().expect("an answer to a read");
        assert!(read.result.is_none(), "a read ends once");
        let expected = read.header;
        let refused = self.geometry.disk_fault(&done);
        let message = Message(done.request.buffer.expect("a read returns its buffer"));
        let intact = refused.is_none()
            && message.header().as_bytes() == expected.as_bytes()
            && message.valid_checksum_body();
        let result = if intact {
            Ok(message)
        } else if read.overwritten {
            Err(ReadFault::Overwritten)
        } else {
            let op = expected.op;
            let slot = self.slot_mut(op);
            slot.stored = None;
            slot.fault = match slot.fault {
                SlotFault::None => SlotFault::hides(&expected),
                // Of two, either may have been acknowledged.
                _ => SlotFault::Unknown,
            };
            let what = "changed since it was verified";
            Err(ReadFault::Lost(refused.unwrap_or(self.geometry.prepare_fault(op, what))))
        };
        self.reads[place].as_mut().expect("an answer to a read").result = Some(result);
    }

    fn prepare_done(&mut self, slot: u32, outbox: &mut StorageOutbox) {
        let mut writes = self.writes.iter_mut().flatten();
        let write = writes.find(|write| write.slot == slot && write.stage == WriteStage::Prepare);
        let write = write.expect("an answer to a prepare on its way");
        write.stage = WriteStage::HeaderWaits;
        self.ring[to_index(slot)] = *write.header.header();
        self.sector_write(slot / HEADERS_PER_SECTOR, outbox);
    }

    fn sector_done(&mut self, sector: u32, outbox: &mut StorageOutbox) {
        assert!(self.sector_busy[to_index(sector)], "an answer to a write of this sector");
        self.sector_busy[to_index(sector)] = false;
        for write in self.writes.iter_mut().flatten() {
            let ours = write.slot / HEADERS_PER_SECTOR == sector;
            if ours && write.stage == WriteStage::Header {
                write.stage = WriteStage::Written;
                let slot = &mut self.slots[to_index(write.slot)];
                if write.header_only {
                    // Else it was found damaged, or is not of the log any more.
                    if slot.stored == Some(write.header) {
                        slot.fault = SlotFault::None;
                    }
                    continue;
                }
                assert!(slot.stored.is_none(), "one write of a slot at a time");
                slot.stored = slot.header.filter(|header| *header == write.header);
                slot.fault = SlotFault::None;
            }
        }
        self.sector_write(sector, outbox);
    }

    /// Writes a sector of headers if some op waits for it and it is not being written.
    fn sector_write(&mut self, sector: u32, outbox: &mut StorageOutbox) {
        if self.sector_busy[to_index(sector)] {
            return;
        }
        let mut needed = false;
        for write in self.writes.iter_mut().flatten() {
            let ours = write.slot / HEADERS_PER_SECTOR == sector;
            if ours && write.stage == WriteStage::HeaderWaits {
                write.stage = WriteStage::Header;
                needed = true;
            }
        }
        if needed {
            let mut buffer = self.sector_pool.acquire();
            encode_sector(&self.ring, sector, buffer.bytes_mut());
            self.sector_push(sector, buffer, outbox);
        }
    }

    fn sector_push(&mut self, sector: u32, buffer: Buffer, outbox: &mut StorageOutbox) {
        assert!(!self.sector_busy[to_index(sector)], "one write of a sector at a time");
        self.sector_busy[to_index(sector)] = true;
        if let Some(read) = self.sector_read.as_mut().filter(|read| read.sector == sector) {
            read.overwritten = true;
        }
        let kind = DiskKind::WriteDurable;
        outbox.disk.push(self.geometry.header_request(kind, sector, buffer));
    }

    fn slot(&self, op: u64) -> &SlotState {
        &self.slots[to_index(self.geometry.slot(op))]
    }

    fn slot_mut(&mut self, op: u64) -> &mut SlotState {
        let slot = self.geometry.slot(op);
        &mut self.slots[to_index(slot)]
    }
}

/// Writes on their way at most.
fn writes_max(geometry: &JournalGeometry) -> u32 {
    assert!(geometry.pipeline_max > 0);
    geometry.pipeline_max * WRITES_PER_PIPELINE
}
