//! The write-ahead log: a ring of prepares and a ring of redundant copies of their headers.
//!
//! Slot of an op: op modulo slots. A prepare is written to its slot first, durably; only then the
//! sector with its redundant header. The op is durable after both. Several ops can be on their way
//! at a time; writes to one sector of headers are serialized and shared by all that wait for it.
//! Which of two damaged or differing copies to believe after a crash is decided in
//! [`journal_recovery`](super::journal_recovery), not here.

use zerocopy::{FromZeros, IntoBytes};

use super::fatal::{Fatal, JournalFault};
use crate::protocol::{
    Buffer, HEADER_SIZE, Header, Message, Pool, PrepareHeader, SECTOR_SIZE, round_up, to_index,
    to_size,
};
use crate::storage::{
    Config, DiskDone, DiskKind, DiskOwner, DiskRequest, DiskToken, StorageOutbox, Zone, Zones,
};

/// Headers in one sector of the ring.
pub const HEADERS_PER_SECTOR: u32 = SECTOR_SIZE / HEADER_SIZE;

/// The mark of an empty slot in the headers ring: command 0, and the slot where a prepare has its
/// op, so that a misdirected mark is noticed.
#[must_use]
pub fn reserved_header(cluster: u128, slot: u32) -> Header {
    let mut header = Header::new_zeroed();
    header.frame.cluster = cluster;
    header.frame.size = HEADER_SIZE;
    header.command_part[64..72].copy_from_slice(&u64::from(slot).to_le_bytes());
    header.frame.checksum_body = crate::protocol::checksum::CHECKSUM_EMPTY;
    header.set_checksum();
    header
}

/// Where and how large the rings are.
#[derive(Clone, Copy, Debug)]
pub struct JournalGeometry {
    /// The file's zones.
    pub zones: Zones,
    /// Slots of each ring.
    pub slots: u32,
    /// Bytes of the largest prepare.
    pub message_size_max: u32,
    /// Ops on their way at most.
    pub pipeline_max: u32,
    /// Whose log it is.
    pub cluster: u128,
}

impl JournalGeometry {
    /// The geometry that follows from a configuration.
    #[must_use]
    pub fn new(config: &Config, cluster: u128) -> JournalGeometry {
        JournalGeometry {
            zones: Zones::new(config),
            slots: config.journal_slots,
            message_size_max: config.message_size_max,
            pipeline_max: config.pipeline_max,
            cluster,
        }
    }

    /// The slot of an op.
    ///
    /// # Panics
    ///
    /// Never: a remainder is below its divisor.
    #[must_use]
    pub fn slot(&self, op: u64) -> u32 {
        u32::try_from(op % u64::from(self.slots)).expect("below the number of slots")
    }

    /// Sectors of the headers ring.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        self.slots.div_ceil(HEADERS_PER_SECTOR)
    }

    /// A request for one sector of headers.
    ///
    /// # Panics
    ///
    /// If there is no such sector.
    #[must_use]
    pub fn header_request(&self, kind: DiskKind, sector: u32, buffer: Buffer) -> DiskRequest {
        assert!(sector < self.sectors());
        DiskRequest {
            token: DiskToken { owner: DiskOwner::JournalHeader, index: sector },
            kind,
            offset: self.zones.wal_header_offset(sector * HEADERS_PER_SECTOR),
            length: SECTOR_SIZE,
            buffer: Some(buffer),
            buffer_offset: 0,
        }
    }

    /// A request for the first `length` bytes of a slot of prepares.
    ///
    /// # Panics
    ///
    /// If the slot is shorter.
    #[must_use]
    pub fn prepare_request(
        &self,
        kind: DiskKind,
        slot: u32,
        length: u32,
        buffer: Buffer,
    ) -> DiskRequest {
        assert!(length <= self.message_size_max);
        DiskRequest {
            token: DiskToken { owner: DiskOwner::JournalPrepare, index: slot },
            kind,
            offset: self.zones.wal_prepare_offset(slot),
            length,
            buffer: Some(buffer),
            buffer_offset: 0,
        }
    }

    /// Damage of a prepare.
    #[must_use]
    pub fn prepare_fault(&self, op: u64, what: &'static str) -> Fatal {
        let slot = self.slot(op);
        let offset = self.zones.wal_prepare_offset(slot);
        Fatal::Journal(JournalFault { zone: Zone::WalPrepares, slot, op, offset, what })
    }

    /// An operation on the log that the device refused.
    #[must_use]
    pub fn disk_fault(&self, done: &DiskDone) -> Option<Fatal> {
        let error = done.result.err()?;
        let offset = done.request.offset;
        let (zone, _) = self.zones.locate(offset);
        Some(Fatal::JournalDisk { zone, offset, error })
    }
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
}

#[derive(Clone, Copy, Debug)]
struct Write {
    slot: u32,
    op: u64,
    stage: WriteStage,
}

/// A prepare on its way from the log to memory.
#[derive(Debug)]
enum Load {
    None,
    Reading { op: u64 },
    Done(Message),
}

/// The log of an open file. Both rings are intact and agree, up to writes on their way.
#[derive(Debug)]
pub struct Journal {
    geometry: JournalGeometry,
    /// The headers ring: only headers of prepares that are durable.
    headers: Vec<Header>,
    /// Headers of ops on their way, found by slot.
    pending: Vec<Option<(Write, PrepareHeader)>>,
    sector_busy: Vec<bool>,
    sector_pool: Pool,
    load: Load,
    /// Newest op appended.
    head: u64,
}

impl Journal {
    /// A journal that knows nothing yet.
    #[must_use]
    pub fn new(geometry: JournalGeometry) -> Journal {
        let headers =
            (0..geometry.slots).map(|slot| reserved_header(geometry.cluster, slot)).collect();
        let pipeline = to_index(geometry.pipeline_max);
        Journal {
            geometry,
            headers,
            pending: vec![None; pipeline],
            sector_busy: vec![false; to_index(geometry.sectors())],
            sector_pool: Pool::new("journal headers", geometry.pipeline_max, SECTOR_SIZE),
            load: Load::None,
            head: 0,
        }
    }

    /// Bytes that a journal occupies.
    #[must_use]
    pub fn memory_bytes(geometry: &JournalGeometry) -> u64 {
        let pending = size_of::<Option<(Write, PrepareHeader)>>();
        u64::from(geometry.slots) * size_of::<Header>() as u64
            + to_index(geometry.pipeline_max) as u64 * pending as u64
            + u64::from(geometry.sectors())
            + Pool::memory_bytes(geometry.pipeline_max, SECTOR_SIZE)
    }

    /// Takes over the rings as recovery left them on disk.
    ///
    /// # Panics
    ///
    /// If the ring has another length or something is on its way.
    pub fn open(&mut self, headers: &[Header], head: u64) {
        assert!(self.is_idle());
        self.headers.copy_from_slice(headers);
        self.head = head;
    }

    /// The newest op in the log, durable or on its way.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Whether this op of the log is durable.
    #[must_use]
    pub fn is_durable(&self, op: u64) -> bool {
        let pending = self.pending.iter().flatten();
        op <= self.head && pending.clone().all(|(write, _)| write.op != op)
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.iter().all(Option::is_none)
    }

    /// The header of an op that the log holds durably.
    #[must_use]
    pub fn header(&self, op: u64) -> Option<&PrepareHeader> {
        let header = &self.headers[to_index(self.geometry.slot(op))];
        if header.frame.command != crate::protocol::Command::Prepare as u8 {
            return None;
        }
        let prepare = header.prepare();
        if prepare.op == op { Some(prepare) } else { None }
    }

    /// Starts to write the next prepare. Its checksums are set; the rest of its last sector is
    /// made zero here.
    ///
    /// # Panics
    ///
    /// If it is not the next op, too large, or more ops are on their way than allowed.
    pub fn append(&mut self, message: &mut Message, outbox: &mut StorageOutbox) {
        let header = *message.prepare();
        let size = header.frame.size;
        assert!(header.op == self.head + 1, "ops are appended in order");
        assert!(size <= self.geometry.message_size_max);
        let length = round_up(size, SECTOR_SIZE);
        message.0.bytes_mut()[to_index(size)..to_index(length)].fill(0);
        let slot = self.geometry.slot(header.op);
        let entry = self.pending.iter_mut().find(|entry| entry.is_none());
        let entry = entry.expect("no more ops on their way than the pipeline has");
        *entry = Some((Write { slot, op: header.op, stage: WriteStage::Prepare }, header));
        self.head = header.op;
        let buffer = message.0.clone();
        outbox.disk.push(self.geometry.prepare_request(
            DiskKind::WriteDurable,
            slot,
            length,
            buffer,
        ));
    }

    /// Starts to read a durable prepare into `buffer`; one at a time.
    ///
    /// # Panics
    ///
    /// If the log does not hold the op or another load is going on.
    pub fn load_start(&mut self, op: u64, buffer: Buffer, outbox: &mut StorageOutbox) {
        assert!(matches!(self.load, Load::None), "one load at a time");
        let header = self.header(op).expect("the log holds the op");
        let length = round_up(header.frame.size, SECTOR_SIZE);
        let slot = self.geometry.slot(op);
        outbox.disk.push(self.geometry.prepare_request(DiskKind::Read, slot, length, buffer));
        self.load = Load::Reading { op };
    }

    /// Whether a load is going on or waits to be taken.
    #[must_use]
    pub fn is_loading(&self) -> bool {
        !matches!(self.load, Load::None)
    }

    /// The prepare that was loaded, once it is there.
    pub fn load_take(&mut self) -> Option<Message> {
        match std::mem::replace(&mut self.load, Load::None) {
            Load::Done(message) => Some(message),
            other => {
                self.load = other;
                None
            }
        }
    }

    /// Takes the answer to one of the journal's requests.
    ///
    /// # Errors
    ///
    /// If the device failed or what was loaded is damaged.
    ///
    /// # Panics
    ///
    /// If the answer is to nothing that was asked.
    pub fn on_disk_done(
        &mut self,
        done: DiskDone,
        outbox: &mut StorageOutbox,
    ) -> Result<(), Fatal> {
        if let Some(fatal) = self.geometry.disk_fault(&done) {
            return Err(fatal);
        }
        let index = done.request.token.index;
        match (done.request.token.owner, done.request.kind) {
            (DiskOwner::JournalPrepare, DiskKind::Read) => self.load_done(done),
            (DiskOwner::JournalPrepare, _) => {
                self.prepare_done(index, outbox);
                Ok(())
            }
            (DiskOwner::JournalHeader, _) => {
                drop(done);
                self.header_done(index, outbox);
                Ok(())
            }
            (owner, _) => panic!("an answer for {owner:?} is not the journal's"),
        }
    }

    fn load_done(&mut self, done: DiskDone) -> Result<(), Fatal> {
        let Load::Reading { op } = self.load else { panic!("an answer without a load") };
        let message = Message(done.request.buffer.expect("a read returns its buffer"));
        let expected = self.header(op).expect("the log still holds the op");
        let same = message.header().as_bytes() == expected.as_bytes();
        if !same || !message.valid_checksum_body() {
            return Err(self.geometry.prepare_fault(op, "changed since it was verified"));
        }
        self.load = Load::Done(message);
        Ok(())
    }

    fn prepare_done(&mut self, slot: u32, outbox: &mut StorageOutbox) {
        let entry = self.pending.iter_mut().flatten().find(|(write, _)| write.slot == slot);
        let (write, header) = entry.expect("an answer to a prepare on its way");
        assert!(write.stage == WriteStage::Prepare);
        write.stage = WriteStage::HeaderWaits;
        self.headers[to_index(slot)] = *header.header();
        self.sector_write(slot / HEADERS_PER_SECTOR, outbox);
    }

    fn header_done(&mut self, sector: u32, outbox: &mut StorageOutbox) {
        assert!(self.sector_busy[to_index(sector)], "an answer to a write of this sector");
        self.sector_busy[to_index(sector)] = false;
        for entry in &mut self.pending {
            let Some((write, _)) = entry else { continue };
            let done = write.stage == WriteStage::Header;
            if done && write.slot / HEADERS_PER_SECTOR == sector {
                *entry = None;
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
        for (write, _) in self.pending.iter_mut().flatten() {
            let waits = write.stage == WriteStage::HeaderWaits;
            if waits && write.slot / HEADERS_PER_SECTOR == sector {
                write.stage = WriteStage::Header;
                needed = true;
            }
        }
        if needed {
            let mut buffer = self.sector_pool.acquire();
            encode_sector(&self.headers, sector, buffer.bytes_mut());
            self.sector_busy[to_index(sector)] = true;
            let kind = DiskKind::WriteDurable;
            outbox.disk.push(self.geometry.header_request(kind, sector, buffer));
        }
    }
}

/// The bytes of one sector of the headers ring; zero past its last slot.
///
/// # Panics
///
/// If there is no such sector or `bytes` is none.
pub fn encode_sector(headers: &[Header], sector: u32, bytes: &mut [u8]) {
    assert!(bytes.len() == to_index(SECTOR_SIZE));
    let first = to_index(sector * HEADERS_PER_SECTOR);
    let end = headers.len().min(first + to_index(HEADERS_PER_SECTOR));
    let used = headers[first..end].as_bytes();
    assert!(to_size(used.len()) <= SECTOR_SIZE);
    bytes[..used.len()].copy_from_slice(used);
    bytes[used.len()..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PrepareFacts;
    use crate::protocol::Release;

    const CLUSTER: u128 = 5;

    fn pulse(op: u64, parent: u128, pool: &Pool) -> Message {
        let header = PrepareHeader::pulse(&PrepareFacts {
            cluster: CLUSTER,
            view: 1,
            replica: 0,
            release: Release::SERVER,
            parent,
            checkpoint_id: 0,
            op,
            commit: op - 1,
            timestamp: op,
        });
        let mut message = Message(pool.acquire());
        message.0.bytes_mut().fill(0xaa);
        *message.header_mut() = *header.header();
        message
    }

    fn journal() -> (Journal, Pool) {
        let config = Config::testing();
        let geometry = JournalGeometry::new(&config, CLUSTER);
        let pool = Pool::new("test", 16, config.message_size_max);
        (Journal::new(geometry), pool)
    }

    fn finish(journal: &mut Journal, outbox: &mut StorageOutbox, request: DiskRequest) {
        request.check();
        journal.on_disk_done(DiskDone { request, result: Ok(()) }, outbox).unwrap();
    }

    /// Goal: an op is durable only after its prepare and then its header were written, the tail
    /// of the last sector is zero, and the header's sector holds what it must.
    #[test]
    fn prepare_then_header() {
        let (mut journal, pool) = journal();
        let mut outbox = StorageOutbox::new(16, 1);
        let mut message = pulse(1, 0, &pool);
        journal.append(&mut message, &mut outbox);
        assert_eq!((journal.head(), journal.is_durable(1)), (1, false));
        let prepare = outbox.disk.pop().unwrap();
        assert_eq!((prepare.length, prepare.kind), (4096, DiskKind::WriteDurable));
        let bytes = &prepare.buffer.as_ref().unwrap().bytes()[..4096];
        assert!(bytes[256..].iter().all(|byte| *byte == 0));
        assert!(outbox.disk.is_empty(), "the header waits for the prepare");
        finish(&mut journal, &mut outbox, prepare);
        assert!(!journal.is_durable(1));
        let sector = outbox.disk.pop().unwrap();
        assert_eq!(sector.token.owner, DiskOwner::JournalHeader);
        let written = sector.buffer.as_ref().unwrap().bytes();
        assert_eq!(&written[256..512], message.header().as_bytes());
        assert_eq!(&written[512..768], reserved_header(CLUSTER, 2).as_bytes());
        finish(&mut journal, &mut outbox, sector);
        assert!(journal.is_durable(1) && journal.is_idle());
        assert_eq!(journal.header(1).unwrap().op, 1);
        assert!(journal.header(2).is_none() && journal.header(33).is_none());
    }

    /// Goal: writes of one sector are never concurrent, and one write serves all that waited.
    #[test]
    fn sector_writes_are_serialized_and_shared() {
        let (mut journal, pool) = journal();
        let mut outbox = StorageOutbox::new(16, 1);
        for op in 1..=4 {
            journal.append(&mut pulse(op, 0, &pool), &mut outbox);
        }
        let prepares: Vec<DiskRequest> = (0..4).map(|_| outbox.disk.pop().unwrap()).collect();
        for prepare in prepares.into_iter().rev() {
            finish(&mut journal, &mut outbox, prepare);
        }
        assert_eq!(outbox.disk.len(), 1, "one sector write at a time");
        let first = outbox.disk.pop().unwrap();
        finish(&mut journal, &mut outbox, first);
        assert!(journal.is_durable(4) && !journal.is_durable(3));
        assert_eq!(outbox.disk.len(), 1, "the three others share the second");
        let second = outbox.disk.pop().unwrap();
        finish(&mut journal, &mut outbox, second);
        assert!(journal.is_idle() && outbox.disk.is_empty());
        assert!((1..=4).all(|op| journal.is_durable(op)));
    }

    /// Goal: a prepare that changed on disk since it was verified is an error that says where.
    #[test]
    fn load_verifies() {
        let (mut journal, pool) = journal();
        let mut outbox = StorageOutbox::new(16, 1);
        let message = pulse(1, 0, &pool);
        journal.headers[1] = *message.header();
        journal.head = 1;
        for damage in [false, true] {
            journal.load_start(1, pool.acquire(), &mut outbox);
            assert!(journal.load_take().is_none() && journal.is_loading());
            let mut request = outbox.disk.pop().unwrap();
            let bytes = request.buffer.as_mut().unwrap().bytes_mut();
            bytes[..256].copy_from_slice(message.header().as_bytes());
            bytes[100] ^= u8::from(damage);
            let result = journal.on_disk_done(DiskDone { request, result: Ok(()) }, &mut outbox);
            if damage {
                let text = result.unwrap_err().to_string();
                assert!(text.contains("zone WAL prepares: slot 1 at file offset"), "{text}");
            } else {
                result.unwrap();
                assert_eq!(journal.load_take().unwrap().prepare().op, 1);
            }
        }
    }
}
