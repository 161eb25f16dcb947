//! The journal alone: what it says of each slot while prepares are written, read and lost.

use zerocopy::{FromZeros, IntoBytes};

use super::journal::{
    Journal, JournalGeometry, ReadFault, ReadPurpose, SlotFault, SlotState, reserved_header,
};
use super::test_log::{CLUSTER, checksum, geometry, outbox, prepare, pulse, with_parent};
use crate::protocol::{Header, Message, Pool, to_index};
use crate::storage::{DiskDone, DiskError, DiskKind, DiskOwner, DiskRequest, StorageOutbox};

fn journal() -> (Journal, Pool, StorageOutbox) {
    let geometry = geometry();
    let pool = Pool::new("test", 32, geometry.message_size_max);
    (Journal::new(geometry), pool, outbox())
}

fn finish(journal: &mut Journal, outbox: &mut StorageOutbox, request: DiskRequest) {
    request.check();
    journal.on_disk_done(DiskDone { request, result: Ok(()) }, outbox).unwrap();
}

/// Answers every write, and what follows from it.
fn finish_all(journal: &mut Journal, outbox: &mut StorageOutbox) {
    while let Some(request) = outbox.disk.pop() {
        finish(journal, outbox, request);
    }
}

/// Writes a prepare to the end.
fn store(journal: &mut Journal, outbox: &mut StorageOutbox, message: &mut Message) {
    journal.write(message, outbox);
    finish_all(journal, outbox);
    assert_eq!(journal.take_written().unwrap(), *message.prepare());
}

/// Goal: an op is durable only after its prepare and then its header were written, the tail
/// of the last sector is zero, and the header's sector holds what it must.
#[test]
fn prepare_then_header() {
    let (mut journal, pool, mut outbox) = journal();
    let mut message = pulse(1, 1, &pool);
    let sum = checksum(&message);
    message.0.bytes_mut()[256..].fill(0xaa);
    journal.write(&mut message, &mut outbox);
    assert_eq!(journal.header(1), Some(message.prepare()));
    assert!(!journal.has(1, sum) && journal.is_writing(1) && journal.stored(1).is_none());
    let prepare = outbox.disk.pop().unwrap();
    assert_eq!((prepare.length, prepare.kind), (4096, DiskKind::WriteDurable));
    let bytes = &prepare.buffer.as_ref().unwrap().bytes()[..4096];
    assert!(bytes[256..].iter().all(|byte| *byte == 0));
    assert!(outbox.disk.is_empty(), "the header waits for the prepare");
    finish(&mut journal, &mut outbox, prepare);
    assert!(!journal.has(1, sum) && journal.take_written().is_none());
    let sector = outbox.disk.pop().unwrap();
    assert_eq!(sector.token.owner, DiskOwner::JournalHeader);
    let written = sector.buffer.as_ref().unwrap().bytes();
    assert_eq!(&written[256..512], message.header().as_bytes());
    assert_eq!(&written[512..768], reserved_header(CLUSTER, 2).as_bytes());
    finish(&mut journal, &mut outbox, sector);
    assert!(journal.has(1, sum) && !journal.is_writing(1) && !journal.is_idle());
    assert_eq!(journal.take_written().unwrap().op, 1);
    assert!(journal.take_written().is_none() && journal.is_idle());
    assert_eq!(journal.stored(1).unwrap().op, 1);
    assert!(journal.header(2).is_none() && journal.header(33).is_none());
    assert!(journal.stored(33).is_none() && !journal.has(33, sum));
}

/// Goal: headers count as linked to one above them down to a gap or to one of another history, and
/// no farther than asked.
#[test]
fn headers_link_down() {
    let (mut journal, pool, _) = journal();
    let mut parent = 7;
    let mut headers = Vec::new();
    for op in 10..=20 {
        let message = with_parent(op, 1, parent, 0, &pool);
        parent = checksum(&message);
        headers.push(*message.prepare());
    }
    let last = headers.pop().unwrap();
    assert_eq!(journal.linked_down_to(&last, 10), 20, "it need not be here, nor anything below");
    for header in &headers {
        journal.set_header(header);
    }
    let linked = |journal: &Journal| [10, 14, 20, 25].map(|op| journal.linked_down_to(&last, op));
    assert_eq!(linked(&journal), [10, 14, 20, 20]);
    let sibling = with_parent(20, 2, headers[9].frame.checksum, 0, &pool);
    assert_eq!(journal.linked_down_to(sibling.prepare(), 10), 10, "it has the same parent");
    journal.set_header(with_parent(15, 2, headers[4].frame.checksum, 0, &pool).prepare());
    assert_eq!(linked(&journal), [16, 16, 20, 20]);
}

/// Goal: writes of one sector are never concurrent, one write serves all that waited, and none has
/// the header of a prepare that is not durable.
#[test]
fn sector_writes_are_serialized_and_shared() {
    let (mut journal, pool, mut outbox) = journal();
    let mut messages: Vec<Message> = (1..=4).map(|op| pulse(op, 1, &pool)).collect();
    for message in &mut messages {
        journal.write(message, &mut outbox);
    }
    let prepares: Vec<DiskRequest> = (0..4).map(|_| outbox.disk.pop().unwrap()).collect();
    for prepare in prepares.into_iter().rev() {
        finish(&mut journal, &mut outbox, prepare);
    }
    assert_eq!(outbox.disk.len(), 1, "one sector write at a time");
    let first = outbox.disk.pop().unwrap();
    let bytes = first.buffer.as_ref().unwrap().bytes();
    assert_eq!(&bytes[4 * 256..5 * 256], messages[3].header().as_bytes());
    for slot in 1..4_u32 {
        let at = to_index(slot * 256);
        assert_eq!(&bytes[at..at + 256], reserved_header(CLUSTER, slot).as_bytes());
    }
    finish(&mut journal, &mut outbox, first);
    assert!(journal.stored(4).is_some() && journal.stored(3).is_none());
    assert_eq!(outbox.disk.len(), 1, "the three others share the second");
    let second = outbox.disk.pop().unwrap();
    finish(&mut journal, &mut outbox, second);
    assert!(outbox.disk.is_empty());
    let mut written: Vec<u64> = (0..4).map(|_| journal.take_written().unwrap().op).collect();
    written.sort_unstable();
    assert_eq!(written, [1, 2, 3, 4]);
    assert!(journal.is_idle());
    assert!(messages.iter().all(|message| journal.has(message.prepare().op, checksum(message))));
}

/// Goal: ops are written in any order and with gaps, one of a slot at a time, and only so many as
/// there are places; a place is free again when its write was taken.
#[test]
fn writes_in_any_order_are_bounded() {
    let (mut journal, pool, mut outbox) = journal();
    let ops = [40, 7, 9, 33, 20, 3, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30];
    assert_eq!(to_index(2 * geometry().pipeline_max), ops.len());
    for op in ops {
        assert!(journal.can_write(op));
        journal.write(&mut pulse(op, 1, &pool), &mut outbox);
        assert!(!journal.can_write(op), "the slot is being written");
        assert!(journal.is_writing(op + 32), "whichever op of the slot");
    }
    assert!(!journal.can_write(2), "no place is free");
    finish_all(&mut journal, &mut outbox);
    assert!(!journal.can_write(2), "what was written is not taken");
    assert_eq!(journal.take_written().map(|header| header.op), Some(40));
    assert!(journal.can_write(2) && journal.can_write(8) && !journal.is_writing(8));
    while journal.take_written().is_some() {}
    assert!(journal.is_idle());
    assert!(ops.iter().all(|op| journal.stored(*op).is_some()));
    assert_eq!(journal.headers().count(), ops.len());
}

/// Goal: a prepare that changed on disk, or cannot be read, is not returned: the reason says where
/// it was, the slot is faulty and is never nacked, until the prepare is durable again.
#[test]
fn read_verifies() {
    let (mut journal, pool, mut outbox) = journal();
    let mut message = prepare(1, 1, 9_000, &pool);
    let sum = checksum(&message);
    store(&mut journal, &mut outbox, &mut message);
    for fault in ["", "header", "body", "device"] {
        let purpose = ReadPurpose::Serve { to: 2 };
        journal.read(1, sum, pool.acquire(), purpose, &mut outbox);
        assert!(journal.take_read().is_none() && !journal.is_idle());
        let mut request = outbox.disk.pop().unwrap();
        assert_eq!((request.kind, request.length), (DiskKind::Read, 12_288));
        let bytes = request.buffer.as_mut().unwrap().bytes_mut();
        bytes[..message.bytes().len()].copy_from_slice(message.bytes());
        bytes[100] ^= u8::from(fault == "header");
        bytes[8_999] ^= u8::from(fault == "body");
        let error = DiskError { errno: 5, bytes_done: 0 };
        let result = if fault == "device" { Err(error) } else { Ok(()) };
        journal.on_disk_done(DiskDone { request, result }, &mut outbox).unwrap();
        let done = journal.take_read().unwrap();
        assert_eq!((done.op, done.checksum, done.purpose), (1, sum, purpose));
        if fault.is_empty() {
            assert!(done.result.unwrap().bytes() == message.bytes());
            assert!(journal.has(1, sum) && !journal.is_faulty(1));
            continue;
        }
        let Err(ReadFault::Lost(fatal)) = done.result else { panic!("{fault} is noticed") };
        let text = fatal.to_string();
        let device = text.contains("error 5") && text.contains("zone WAL prepares: file offset");
        let damage = text.contains("zone WAL prepares: slot 1 at file offset");
        assert!(if fault == "device" { device } else { damage }, "{text}");
        assert!(!journal.has(1, sum) && journal.is_faulty(1) && !journal.may_nack(1, sum));
        assert!(!journal.may_hide_op_after(0, 32), "what is lost is known");
        assert_eq!(journal.header(1).unwrap().frame.checksum, sum, "it is still wanted");
        store(&mut journal, &mut outbox, &mut message);
        assert!(journal.has(1, sum) && !journal.is_faulty(1));
    }
}

/// Goal: a read whose slot is given to another prepare fails without blaming the disk, unless it
/// got the prepare in time; a read of others leaves a place for execution.
#[test]
fn reads_meet_writes() {
    let (mut journal, pool, mut outbox) = journal();
    let mut message = pulse(1, 1, &pool);
    store(&mut journal, &mut outbox, &mut message);
    for _ in 0..2 {
        journal.read(1, checksum(&message), pool.acquire(), ReadPurpose::Commit, &mut outbox);
    }
    let mut early = outbox.disk.pop().unwrap();
    let late = outbox.disk.pop().unwrap();
    store(&mut journal, &mut outbox, &mut pulse(33, 1, &pool));
    early.buffer.as_mut().unwrap().bytes_mut()[..256].copy_from_slice(message.bytes());
    finish(&mut journal, &mut outbox, early);
    finish(&mut journal, &mut outbox, late);
    assert_eq!(journal.take_read().unwrap().result.unwrap().bytes(), message.bytes());
    assert_eq!(journal.take_read().unwrap().result.unwrap_err(), ReadFault::Overwritten);
    assert!(!journal.is_faulty(33) && journal.stored(33).is_some());

    let mut message = pulse(2, 1, &pool);
    store(&mut journal, &mut outbox, &mut message);
    for _ in 0..3 {
        assert!(journal.can_read(ReadPurpose::Serve { to: 1 }));
        let purpose = ReadPurpose::Serve { to: 1 };
        journal.read(2, checksum(&message), pool.acquire(), purpose, &mut outbox);
    }
    assert!(!journal.can_read(ReadPurpose::Serve { to: 1 }));
    assert!(journal.can_read(ReadPurpose::Commit));
    journal.read(2, checksum(&message), pool.acquire(), ReadPurpose::Commit, &mut outbox);
    assert!(!journal.can_read(ReadPurpose::Commit));
}

/// Goal: learned headers replace others without touching what is stored; truncation forgets, and a
/// write that was on its way then still ends, and counts as stored if the log has it again.
#[test]
fn headers_and_truncation() {
    let (mut journal, pool, mut outbox) = journal();
    let mut first = pulse(5, 1, &pool);
    store(&mut journal, &mut outbox, &mut first);
    let second = pulse(5, 2, &pool);
    journal.set_header(second.prepare());
    assert_eq!(journal.header(5), Some(second.prepare()));
    assert!(journal.has(5, checksum(&first)) && !journal.has(5, checksum(&second)));
    assert!(journal.may_nack(5, checksum(&second)) && !journal.may_nack(5, checksum(&first)));
    journal.set_header(pulse(37, 2, &pool).prepare());
    assert!(journal.header(5).is_none() && journal.header(37).is_some());
    assert_eq!(journal.stored(5), Some(first.prepare()));

    let mut third = pulse(6, 2, &pool);
    journal.write(&mut third, &mut outbox);
    journal.remove_after(4);
    assert!(journal.headers().count() == 0 && journal.stored(5).is_none());
    assert!(journal.may_nack(6, checksum(&third)), "it was not acknowledged yet");
    finish_all(&mut journal, &mut outbox);
    assert_eq!(journal.take_written().as_ref(), Some(third.prepare()));
    assert!(journal.stored(6).is_none() && journal.header(6).is_none());
    assert!(journal.may_nack(6, checksum(&third)), "nor was it since");
    journal.write(&mut third, &mut outbox);
    journal.remove_after(4);
    journal.set_header(third.prepare());
    finish_all(&mut journal, &mut outbox);
    assert_eq!(journal.take_written().as_ref(), Some(third.prepare()));
    assert!(journal.has(6, checksum(&third)));
    journal.remove_after(5);
    assert!(journal.stored(6).is_none());
    assert!(journal.is_idle());
}

/// Goal: a view settles damage behind its head and no other, but for a slot that is being written,
/// and redundant headers say so from then on.
#[test]
fn damage_behind_a_views_head() {
    let (mut journal, pool, mut outbox) = journal();
    let unknown = SlotState { header: None, stored: None, fault: SlotFault::Unknown };
    let unproven = SlotState { fault: SlotFault::Unproven, ..unknown };
    let damaged = [3, 4, 7, 9, 20];
    let slots = 0..journal.geometry().slots;
    let states = slots.map(|slot| match slot {
        9 | 30 => unproven,
        5 => SlotState { fault: SlotFault::Hides { op: 5, checksum: 1 }, ..unknown },
        _ if damaged.contains(&slot) => unknown,
        _ => SlotState::EMPTY,
    });
    let ring = vec![Header::new_zeroed(); to_index(journal.geometry().slots)];
    journal.open(&ring, states);
    let mut message = pulse(7, 2, &pool);
    journal.write(&mut message, &mut outbox);
    assert!(journal.may_hide_op_after(3, 10));
    assert!(journal.may_hide_op_after(7, 10) && !journal.may_nack(9, 1));
    assert_eq!(journal.geometry().pipeline_max, 8);
    assert!(journal.may_hide_op_after(22, 31) && !journal.may_hide_op_after(21, 31), "too far");
    assert!(!journal.may_nack(5, 1));
    journal.settle_after(3, 10);
    assert!(
        journal.may_nack(5, 1)
            && !journal.may_nack(3, 1)
            && !journal.may_nack(7, 1)
            && !journal.may_nack(20, 1)
    );
    assert!(journal.may_nack(4, 1) && journal.may_nack(9, 1));
    assert!(!journal.may_hide_op_after(7, 10) && journal.may_hide_op_after(10, 20));
    let prepare = outbox.disk.pop().unwrap();
    finish(&mut journal, &mut outbox, prepare);
    let sector = outbox.disk.pop().unwrap();
    let bytes = sector.buffer.as_ref().unwrap().bytes();
    for slot in 0..16_u32 {
        let header = match slot {
            4 | 9 => reserved_header(CLUSTER, slot),
            7 => *message.header(),
            _ => Header::new_zeroed(),
        };
        assert_eq!(&bytes[to_index(slot * 256)..][..256], header.as_bytes(), "slot {slot}");
    }
    finish(&mut journal, &mut outbox, sector);
    assert!(journal.has(7, checksum(&message)));
}

/// Goal: a refused write of either ring is fatal, with the zone.
#[test]
fn refused_writes_are_fatal() {
    for (rounds, zone) in [(0, "zone WAL prepares"), (1, "zone WAL headers")] {
        let (mut journal, pool, mut outbox) = journal();
        journal.write(&mut pulse(1, 1, &pool), &mut outbox);
        for _ in 0..rounds {
            let request = outbox.disk.pop().unwrap();
            finish(&mut journal, &mut outbox, request);
        }
        let request = outbox.disk.pop().unwrap();
        let result = Err(DiskError { errno: 28, bytes_done: 0 });
        let fatal = journal.on_disk_done(DiskDone { request, result }, &mut outbox).unwrap_err();
        let text = fatal.to_string();
        assert!(text.contains(zone) && text.contains("free space"), "{text}");
    }
}

/// Goal: a sector of headers that is damaged or unreadable is written again from memory, one that
/// is intact is not, and neither is one that was written while it was read.
#[test]
fn scrub_of_headers() {
    let (mut journal, pool, mut outbox) = journal();
    let mut message = pulse(1, 1, &pool);
    store(&mut journal, &mut outbox, &mut message);
    let mut sector = [0; 4096];
    for (round, what) in ["intact", "changed", "device", "overwritten"].into_iter().enumerate() {
        assert!(journal.scrub_sector(0, &mut outbox) && !journal.scrub_sector(0, &mut outbox));
        assert!(journal.is_idle(), "nobody waits for the scrub");
        let mut read = outbox.disk.pop().unwrap();
        assert_eq!((read.kind, read.length), (DiskKind::Read, 4096));
        let bytes = read.buffer.as_mut().unwrap().bytes_mut();
        let headers = [reserved_header(CLUSTER, 0), *message.header()];
        for (slot, header) in headers.iter().enumerate() {
            bytes[slot * 256..(slot + 1) * 256].copy_from_slice(header.as_bytes());
        }
        for slot in 2..16_u32 {
            let at = to_index(slot * 256);
            bytes[at..at + 256].copy_from_slice(reserved_header(CLUSTER, slot).as_bytes());
        }
        if round == 0 {
            sector.copy_from_slice(bytes);
        }
        bytes[300] ^= u8::from(what == "changed" || what == "overwritten");
        if what == "overwritten" {
            store(&mut journal, &mut outbox, &mut pulse(2, 1, &pool));
        }
        let error = DiskError { errno: 5, bytes_done: 0 };
        let result = if what == "device" { Err(error) } else { Ok(()) };
        journal.on_disk_done(DiskDone { request: read, result }, &mut outbox).unwrap();
        let write = outbox.disk.pop();
        assert_eq!(write.is_some(), what == "changed" || what == "device", "{what}");
        if let Some(write) = write {
            assert_eq!(write.kind, DiskKind::WriteDurable);
            assert!(write.buffer.as_ref().unwrap().bytes() == sector);
            assert!(!journal.scrub_sector(0, &mut outbox), "it is being written");
            finish(&mut journal, &mut outbox, write);
        }
    }
    assert_eq!(journal.sectors_repaired(), 2);
    assert!(journal.has(1, checksum(&message)));
}

/// Goal: the scrub leaves places among the reads for others, and what it finds damaged is missing
/// from then on.
#[test]
fn scrub_of_prepares() {
    let (mut journal, pool, mut outbox) = journal();
    for op in 1..=4 {
        store(&mut journal, &mut outbox, &mut pulse(op, 1, &pool));
    }
    assert!(journal.stored_in(0).is_none());
    let header = *journal.stored_in(3).unwrap();
    let (op, sum) = (header.op, header.frame.checksum);
    for _ in 0..2 {
        assert!(journal.can_read(ReadPurpose::Scrub));
        journal.read(op, sum, pool.acquire(), ReadPurpose::Scrub, &mut outbox);
    }
    assert!(!journal.can_read(ReadPurpose::Scrub) && journal.can_read(ReadPurpose::Commit));
    assert!(journal.is_idle(), "nobody waits for the scrub");
    finish_all(&mut journal, &mut outbox);
    let done = journal.take_read().unwrap();
    assert_eq!((done.op, done.purpose), (3, ReadPurpose::Scrub));
    assert!(matches!(done.result, Err(ReadFault::Lost(_))), "zeros are no prepare");
    assert!(!journal.has(3, sum) && !journal.may_nack(3, sum) && journal.stored_in(3).is_none());
    journal.count_as_stored(3, sum + 1);
    assert!(!journal.has(3, sum), "another prepare");
    journal.count_as_stored(3, sum);
    assert!(journal.has(3, sum) && journal.stored_in(3) == Some(&header));
}

/// Goal: two ops of one slot are not confused, and the shared helper chains as its name says.
#[test]
fn slots_wrap() {
    let (mut journal, pool, mut outbox) = journal();
    let geometry: &JournalGeometry = journal.geometry();
    assert_eq!((geometry.slot(1), geometry.slot(33), geometry.slot(64)), (1, 1, 0));
    let mut old = pulse(1, 1, &pool);
    store(&mut journal, &mut outbox, &mut old);
    let mut new = with_parent(33, 1, 77, 0, &pool);
    assert_eq!(new.prepare().parent, 77);
    store(&mut journal, &mut outbox, &mut new);
    assert!(journal.has(33, checksum(&new)) && !journal.has(1, checksum(&old)));
    assert!(journal.header(1).is_none() && journal.stored(1).is_none());
}
