//! For tests: prepares of any op, view and size, and a disk with a log on it.

use rand_chacha::ChaCha8Rng;

use super::journal::{Journal, JournalGeometry, encode_sector, reserved_header};
use super::journal_recovery::JournalRecovery;
use crate::protocol::{
    HEADER_SIZE, Header, Message, Operation, Pool, PrepareFacts, PrepareHeader, Release,
    RequestHeader, SECTOR_SIZE, round_up, to_index, to_size,
};
use crate::simulator::disk::MemoryDisk;
use crate::storage::{Config, DiskKind, DiskRequest, StorageOutbox, Zone};

pub const CLUSTER: u128 = 5;

pub fn geometry() -> JournalGeometry {
    JournalGeometry::new(&Config::testing(), CLUSTER)
}

pub fn outbox() -> StorageOutbox {
    StorageOutbox::new(256, 1)
}

/// A prepare without a body. Its parent is no real one.
pub fn pulse(op: u64, view: u32, pool: &Pool) -> Message {
    with_parent(op, view, 0, 0, pool)
}

/// A prepare of `size` bytes. Its parent is no real one.
pub fn prepare(op: u64, view: u32, size: u32, pool: &Pool) -> Message {
    with_parent(op, view, 0, size, pool)
}

/// A prepare of `size` bytes, or without a body if that is less than a header.
pub fn with_parent(op: u64, view: u32, parent: u128, size: u32, pool: &Pool) -> Message {
    let facts = PrepareFacts {
        cluster: CLUSTER,
        view,
        replica: 0,
        release: Release::SERVER,
        program: Release::PROGRAM,
        parent,
        checkpoint_id: 0,
        op,
        commit: op - 1,
        timestamp: op,
    };
    let mut message = Message(pool.acquire());
    message.0.fill_zero();
    if size <= HEADER_SIZE {
        *message.header_mut() = *PrepareHeader::pulse(&facts).header();
        return message;
    }
    let mark = u8::try_from((op * 7 + u64::from(view)) % 251).unwrap();
    message.0.bytes_mut()[to_index(HEADER_SIZE)..to_index(size)].fill(mark);
    let mut request = RequestHeader::new();
    request.frame.cluster = CLUSTER;
    request.frame.release = Release::SERVER;
    request.frame.size = size;
    request.client = 3;
    request.session = 1;
    request.request = 1;
    request.operation = Operation::CreateTransfers.into();
    let body = message.0.bytes()[to_index(HEADER_SIZE)..to_index(size)].to_vec();
    request.header_mut().set_checksums(&body);
    *message.header_mut() = *PrepareHeader::lone(&facts, &request).header();
    message
}

/// A disk with a log as formatting leaves it: empty, up to the root in slot 0.
pub fn empty_disk() -> MemoryDisk {
    let geometry = geometry();
    let mut disk = MemoryDisk::new(geometry.zones.start(Zone::Grid));
    let mut ring: Vec<Header> =
        (0..geometry.slots).map(|slot| reserved_header(CLUSTER, slot)).collect();
    let root = PrepareHeader::root(CLUSTER);
    ring[0] = *root.header();
    write_ring(&mut disk, &ring);
    let pool = Pool::new("root", 1, geometry.message_size_max);
    let mut message = Message(pool.acquire());
    message.0.fill_zero();
    *message.header_mut() = *root.header();
    write_sectors(&mut disk, &message, |_| true);
    disk
}

/// Makes the ring of redundant headers durable.
pub fn write_ring(disk: &mut MemoryDisk, ring: &[Header]) {
    let geometry = geometry();
    let pool = Pool::new("ring", 1, SECTOR_SIZE);
    for sector in 0..geometry.sectors() {
        let mut buffer = pool.acquire();
        encode_sector(ring, sector, buffer.bytes_mut());
        disk.submit(geometry.header_request(DiskKind::WriteDurable, sector, buffer));
        disk.complete_first().unwrap().result.unwrap();
    }
}

/// Makes the redundant header of one prepare durable, and leaves all others as they are.
pub fn write_header(disk: &mut MemoryDisk, header: &PrepareHeader) {
    let geometry = geometry();
    let mut ring: Vec<Header> = (0..geometry.slots)
        .map(|slot| {
            let bytes = disk.read(geometry.zones.wal_header_offset(slot), 256);
            zerocopy::FromBytes::read_from_bytes(&bytes).unwrap()
        })
        .collect();
    ring[to_index(geometry.slot(header.op))] = *header.header();
    write_ring(disk, &ring);
}

/// Makes those sectors of a prepare durable that are asked for, as a torn write does.
pub fn write_sectors(disk: &mut MemoryDisk, message: &Message, chosen: impl Fn(u32) -> bool) {
    let geometry = geometry();
    let slot = geometry.slot(message.prepare().op);
    for sector in 0..sectors_of(message) {
        if chosen(sector) {
            let kind = DiskKind::WriteDurable;
            let buffer = message.0.clone();
            let whole = geometry.prepare_request(kind, slot, SECTOR_SIZE, buffer);
            let start = sector * SECTOR_SIZE;
            let offset = whole.offset + u64::from(start);
            disk.submit(DiskRequest { offset, buffer_offset: start, ..whole });
            disk.complete_first().unwrap().result.unwrap();
        }
    }
}

/// Sectors of a prepare.
pub fn sectors_of(message: &Message) -> u32 {
    round_up(message.size(), SECTOR_SIZE) / SECTOR_SIZE
}

/// Reads the log of a disk until it is to be said how to end.
pub fn read_log(disk: &mut MemoryDisk, checkpoint: &PrepareHeader) -> JournalRecovery {
    let geometry = geometry();
    let messages = Pool::new("recovery", 4, geometry.message_size_max);
    let mut recovery = JournalRecovery::new(geometry, messages);
    let mut outbox = outbox();
    recovery.start(checkpoint, &mut outbox);
    assert!(!recovery.is_read() && !recovery.is_done());
    drive(disk, &mut recovery, &mut outbox, None, u32::MAX);
    assert!(recovery.is_read());
    recovery
}

/// Recovers the log of a disk as a replica of a cluster does; it may lose power after so many
/// answers of the disk, and then begins again.
pub fn recover(
    disk: &mut MemoryDisk,
    checkpoint: &PrepareHeader,
    random: &mut ChaCha8Rng,
    crashes: &[u32],
) -> Journal {
    for answers in crashes.iter().copied().chain([u32::MAX]) {
        let geometry = geometry();
        let messages = Pool::new("recovery", 4, geometry.message_size_max);
        let mut recovery = JournalRecovery::new(geometry, messages);
        let mut outbox = outbox();
        recovery.start(checkpoint, &mut outbox);
        let left = drive(disk, &mut recovery, &mut outbox, Some(random), answers);
        if recovery.is_read() {
            recovery.finish_cluster(&mut outbox);
            drive(disk, &mut recovery, &mut outbox, Some(random), left);
        }
        if recovery.is_done() {
            let mut journal = Journal::new(geometry);
            recovery.open(&mut journal);
            return journal;
        }
        disk.submit_all(&mut outbox);
        disk.crash(random);
    }
    panic!("recovery without a crash ends");
}

/// Recovers the log of a disk as a cluster of one does, which must be possible.
pub fn recover_solo(disk: &mut MemoryDisk, checkpoint: &PrepareHeader) -> (Journal, PrepareHeader) {
    let mut recovery = read_log(disk, checkpoint);
    let head = recovery.solo_head().unwrap();
    let mut outbox = outbox();
    recovery.finish_solo(&head, &mut outbox);
    drive(disk, &mut recovery, &mut outbox, None, u32::MAX);
    assert!(recovery.is_done());
    let mut journal = Journal::new(geometry());
    recovery.open(&mut journal);
    (journal, head)
}

/// Lets the disk answer, so many times at most; how many are left.
fn drive(
    disk: &mut MemoryDisk,
    recovery: &mut JournalRecovery,
    outbox: &mut StorageOutbox,
    mut random: Option<&mut ChaCha8Rng>,
    answers_max: u32,
) -> u32 {
    for answers in 0..answers_max {
        disk.submit_all(outbox);
        let done = match &mut random {
            Some(random) => disk.complete_one(*random),
            None => disk.complete_first(),
        };
        let Some(done) = done else { return answers_max - answers };
        recovery.on_disk_done(done, outbox).unwrap();
    }
    0
}

/// Bytes of the index of a slot's first byte of the prepare, and of its redundant header.
pub fn offsets(op: u64) -> (u64, u64) {
    let geometry = geometry();
    let slot = geometry.slot(op);
    (geometry.zones.wal_prepare_offset(slot), geometry.zones.wal_header_offset(slot))
}

/// Checksum of a prepare's header.
pub fn checksum(message: &Message) -> u128 {
    assert!(to_size(message.bytes().len()) == message.size());
    message.prepare().frame.checksum
}
