//! The fault atlas: which faults a cluster must survive, so that every failure is a bug. All rules
//! are here; [`docs/SIMULATOR.md`](../../docs/SIMULATOR.md) explains them with their reasons.
//!
//! * **Fit.** A voter is *fit* if it has no damage on its log that was not repaired, knows its
//!   head, lacks no blocks, and does not lag by more than the logs reach. A redundant header that
//!   does not verify is damage, also if the journal has written it so again.
//! * **Log.** Damage may be done to a voter only if the others that are fit make up a view-change
//!   quorum: then everything committed is intact on one of them, and they can go on without the
//!   damaged one. A cluster of one or two gets no damage of its log.
//! * **Two rings.** What is intact but *older* than it should be (a lost write, a misdirected one
//!   where it was meant to go, a stretch that was rolled back) cannot be told from what was never
//!   written, unless the other ring has the newer header: so the other ring's part must be intact,
//!   and stays so until that is repaired.
//! * **Superblock.** One copy of four at a time, and no write of another is torn meanwhile: of four
//!   copies two equal ones are needed, and an update interrupted anywhere uses up one.
//! * **Grid.** A block may be damaged on as many voters as the others can do without, of whom those
//!   that lack blocks anyway count as damaged: any view-change quorum then has an intact one. Only
//!   who has the newest checkpoint is damaged: what an older one needs the others may have freed.
//! * **Data file.** That of a voter may be lost if the others that are fit make up a view-change
//!   quorum: whatever it acknowledged is on one of them. It is not fit before it has recovered. Who
//!   needs one of its blocks, alone in having a checkpoint as new, is not fit without it.
//! * **Absence.** So many may be away, too, or have a full disk, for as long as it takes to fall
//!   out of the log; and so many disks may be slow.
//! * **Reads that fail or go astray** count as damage until the place is read again.
//! * **Writes and syncs that fail** are no damage: nothing was promised yet, and the process stops.

use super::checkers::durability::view_change_quorum;
use super::cluster::Cluster;
use super::disk::MemoryDisk;
use super::faults::Fault;
use super::process::{CLUSTER, Process, config};
use crate::protocol::{AlignedMemory, HEADER_SIZE, Header, to_index, to_size};
use crate::storage::zones::SUPERBLOCK_COPIES;
use crate::storage::{DiskKind, DiskRequest, GridFaultKind, Zone, Zones, count_of, index_of};
use crate::vsr::fatal::Fatal;
use crate::vsr::journal_geometry::JournalGeometry;
use crate::vsr::journal_recovery::HeaderSeen;
use crate::vsr::superblock::{COPY_SIZE, Superblock};

/// Ops that a replica may be behind the newest before clients are held back: the log reaches
/// farther, and a replica that fell out of it cannot come back yet.
pub const LAG_MAX: u64 = 8;
/// Ops that a replica may be behind before faults pause until it has come closer again: pulses go
/// on without clients.
pub const RESCUE_LAG: u64 = 14;
/// Ops that the checkpoint of a replica may be behind when its log is damaged.
pub const DAMAGE_LAG_MAX: u64 = 20;
/// Ops that a replica may be behind when they go on.
pub const RESCUED_LAG: u64 = 4;
/// What a replica without all its blocks counts as being behind.
const SYNCING_LAG: u64 = u64::MAX / 2;
/// Redundant headers in a sector of the log.
const HEADERS_PER_SECTOR: u64 = 16;
const SECTOR: u64 = 4096;
/// Faults by which a replica may come to need a checkpoint of others.
const LEADING_OUT: [Fault; 12] = [
    Fault::Absence,
    Fault::FileLoss,
    Fault::GridRot,
    Fault::GridUnreadable,
    Fault::GridLostWrite,
    Fault::GridMisdirectedWrite,
    Fault::GridMisdirectedRead,
    Fault::GridRollback,
    Fault::GridHelix,
    Fault::ReadError,
    Fault::DiskGray,
    Fault::DiskFull,
];
/// Faults that leave something else in the grid than what was written last.
pub const GRID_HARM: [Fault; 8] = [
    Fault::GridRot,
    Fault::GridUnreadable,
    Fault::GridLostWrite,
    Fault::GridMisdirectedWrite,
    Fault::GridRollback,
    Fault::GridHelix,
    Fault::WriteError,
    Fault::SyncError,
];

/// What a fault leaves in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Something that does not verify.
    Damage,
    /// What was there before.
    Stale,
}

/// Whether damage was done to a log and not repaired.
#[must_use]
pub fn log_is_damaged(process: &Process) -> bool {
    let zones = Zones::new(&config());
    let start = zones.start(Zone::WalHeaders);
    process.disk.is_damaged(start, zones.start(Zone::Grid) - start)
}

/// Zone and offset in it of the first damage of a log that was not repaired.
#[must_use]
pub fn first_damage(process: &Process) -> Option<(Zone, u64)> {
    let zones = Zones::new(&config());
    let (start, end) = (zones.start(Zone::WalHeaders), zones.start(Zone::Grid));
    let is_there = |offset: &u64| *offset < end && process.disk.is_damaged(*offset, 1);
    let found = process.disk.damaged_from(start).find(is_there)?;
    Some(zones.locate(found))
}

/// Whether a write leaves damage where it goes: a redundant header that does not verify. The
/// journal writes with its neighbours what it found of it, as long as its slot is in doubt; the log
/// lacks what it lacked.
///
/// # Panics
///
/// If a write has no buffer.
#[must_use]
pub fn leaves_damage(request: &DiskRequest) -> bool {
    let is_write = matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable);
    let geometry = JournalGeometry::new(&config(), CLUSTER);
    let (zone, within) = geometry.zones.locate(request.offset);
    if !is_write || zone != Zone::WalHeaders {
        return false;
    }
    let first = to_size(index_of(within / u64::from(HEADER_SIZE)));
    let count = (geometry.slots - first).min(request.length / HEADER_SIZE);
    let buffer = request.buffer.as_ref().expect("a write has a buffer");
    let headers = &buffer.bytes()[to_index(request.buffer_offset)..];
    (0..count).any(|place| {
        let header = Header::from_bytes(&headers[to_index(place * HEADER_SIZE)..]);
        matches!(HeaderSeen::new(&geometry, first + place, header), HeaderSeen::Invalid)
    })
}

/// The rest of a slot, as offset and length, behind a prepare that was written: nobody reads it any
/// more, whatever it was that an earlier and longer prepare had there.
#[must_use]
pub fn rest_of_slot(request: &DiskRequest) -> Option<(u64, u32)> {
    let is_write = matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable);
    let (zone, within) = Zones::new(&config()).locate(request.offset);
    let size = config().message_size_max;
    let begins = within.is_multiple_of(size.into()) && request.length < size;
    let place = (request.offset + u64::from(request.length), size - request.length.min(size));
    (is_write && zone == Zone::WalPrepares && begins).then_some(place)
}

/// Whether damage was done to a superblock and not repaired.
#[must_use]
pub fn superblock_is_damaged(disk: &MemoryDisk) -> bool {
    disk.is_damaged(0, Zones::new(&config()).start(Zone::WalHeaders))
}

/// Whether a voter can be relied on, now or after it has started again.
#[must_use]
pub fn is_fit(process: &Process) -> bool {
    process.is_voter() && !log_is_damaged(process) && !process.is_lost()
}

/// Voters that the others can do without.
#[must_use]
pub fn spare(voters: usize) -> usize {
    voters - view_change_quorum(voters)
}

/// Whether another clock of a voter may go wrong: an honest majority must remain.
#[must_use]
pub fn may_go_far(processes: &[Process], replica: usize) -> bool {
    let voters = processes.iter().filter(|process| process.is_voter()).count();
    let far = processes.iter().enumerate().filter(|(index, process)| {
        process.is_voter() && *index != replica && process.clock.is_far()
    });
    !processes[replica].is_voter() || 2 * (far.count() + 1) < voters || voters == 1
}

/// Whether another disk may become slow: a quorum of quick ones must remain.
#[must_use]
pub fn may_be_gray(processes: &[Process], replica: usize) -> bool {
    let voters = processes.iter().filter(|process| process.is_voter()).count();
    let gray = processes.iter().enumerate().filter(|(index, process)| {
        process.is_voter() && *index != replica && process.gray.is_some()
    });
    !processes[replica].is_voter() || gray.count() < spare(voters)
}

/// Whether a process may stop for this reason: its disk has failed it.
#[must_use]
pub fn may_stop(process: &Process, fatal: &Fatal) -> bool {
    if process.errors == 0 {
        return false;
    }
    let is_alone = process.options.replica_count == 1;
    match fatal {
        Fatal::SuperblockWrite { .. } | Fatal::JournalDisk { .. } => true,
        Fatal::Journal(_) => is_alone,
        Fatal::Grid(fault) => match fault.kind {
            GridFaultKind::Write(_) | GridFaultKind::Sync(_) => true,
            GridFaultKind::Read(_) => is_alone,
            GridFaultKind::Address | GridFaultKind::Block(_) => false,
        },
        _ => false,
    }
}

/// Sequence and checksum of each copy that is intact, but for one that does not count.
fn superblock_copies(disk: &MemoryDisk, but: Option<u32>) -> Vec<(u64, u128)> {
    let zones = Zones::new(&config());
    let mut memory = AlignedMemory::new(COPY_SIZE);
    let mut found = Vec::new();
    for copy in (0..SUPERBLOCK_COPIES).filter(|copy| Some(*copy) != but) {
        memory.copy_from_slice(&disk.read(zones.superblock_offset(copy), COPY_SIZE));
        if let Ok(superblock) = Superblock::parse(&memory, copy) {
            found.push((superblock.sequence, superblock.checksum));
        }
    }
    found
}

/// Whether a superblock survives a torn write of any one copy: three copies are equal, without
/// counting one if need be.
#[must_use]
pub fn superblock_is_safe(disk: &MemoryDisk, but: Option<u32>) -> bool {
    let copies = superblock_copies(disk, but);
    copies.iter().any(|pair| copies.iter().filter(|other| *other == pair).count() >= 3)
}

/// Whether no other copy than this one is damaged.
#[must_use]
pub fn other_copies_are_sound(disk: &MemoryDisk, copy: u32) -> bool {
    let zones = Zones::new(&config());
    let mut others = (0..SUPERBLOCK_COPIES).filter(|other| *other != copy);
    others.all(|other| !disk.is_damaged(zones.superblock_offset(other), count_of(COPY_SIZE)))
}

/// Where the other ring has its part of a stretch of the log: offset and length.
fn other_ring(offset: u64, length: u64) -> (u64, u64) {
    let zones = Zones::new(&config());
    let (zone, within) = zones.locate(offset);
    let size = u64::from(config().message_size_max);
    let (headers, prepares) = (zones.start(Zone::WalHeaders), zones.start(Zone::WalPrepares));
    if zone == Zone::WalHeaders {
        let first = within / SECTOR * HEADERS_PER_SECTOR;
        let end = (within + length).div_ceil(SECTOR) * HEADERS_PER_SECTOR;
        let end = end.min(u64::from(config().journal_slots));
        (prepares + first * size, (end - first) * size)
    } else {
        assert!(zone == Zone::WalPrepares, "the log has two rings");
        let first = within / size / HEADERS_PER_SECTOR;
        let last = (within + length - 1) / size / HEADERS_PER_SECTOR;
        (headers + first * SECTOR, (last + 1 - first) * SECTOR)
    }
}

impl Cluster {
    /// Ops that the last of those replicas is behind the newest that must not fall out of the log.
    /// If machines may be away, or their grids be damaged, voters that the others can do without
    /// may, and standbys.
    pub(super) fn lag(&self) -> u64 {
        let head = self.history.head();
        let lags = (0..self.processes.len()).map(|index| head - self.position(index));
        if LEADING_OUT.into_iter().all(|fault| self.faults.rate(fault) == 0) {
            return lags.max().expect("there are replicas");
        }
        let voters = usize::from(self.swarm.replicas);
        let damaged = |index: &usize| {
            let process = &self.processes[*index];
            !self.is_out(*index) && (log_is_damaged(process) || process.is_lost())
        };
        let spare = spare(voters).saturating_sub((0..voters).filter(damaged).count());
        let mut lags: Vec<u64> = lags.take(voters).collect();
        for (index, lag) in lags.iter_mut().enumerate() {
            if self.syncing[index] || self.is_out(index) {
                *lag = (*lag).max(SYNCING_LAG);
            }
        }
        lags.sort_unstable_by(|left, right| right.cmp(left));
        lags[spare]
    }

    /// Whether a replica has, or will have, to take over a checkpoint, or lacks blocks.
    pub(super) fn is_out(&self, index: usize) -> bool {
        let lag = self.history.head() - self.position(index);
        let stale = self.checkpoint_max[index] < self.checkpoint_newest();
        // What it lacks the others may have freed, or not written yet.
        let stuck = (stale || self.leads_alone(index, index)) && self.grid_is_damaged(index);
        self.syncing[index] || self.recovering[index] || lag > RESCUE_LAG || stuck
    }

    /// Whether no other voter has come to the checkpoint that a replica has, this one not counted.
    fn leads_alone(&self, index: usize, but: usize) -> bool {
        let voters = 0..usize::from(self.swarm.replicas);
        let mut others = voters.filter(|other| *other != index && *other != but);
        others.all(|other| self.checkpoint_max[other] < self.checkpoint_max[index])
    }

    fn checkpoint_newest(&self) -> u64 {
        *self.checkpoint_max.iter().max().expect("there are replicas")
    }

    /// Whether a block that may be in use on this replica is damaged.
    fn grid_is_damaged(&self, index: usize) -> bool {
        let process = &self.processes[index];
        let start = self.zones.start(Zone::Grid);
        let size = u64::from(config().block_size);
        let store = process.replica.as_ref().map(|replica| &replica.machine.store);
        let store = store.filter(|store| store.is_open());
        process.disk.damaged_from(start).any(|offset| {
            let address = (offset - start) / size + 1;
            store.is_none_or(|store| store.grid().free_set().is_acquired(address))
        })
    }

    /// Whether a voter can be relied on, now or after it has started again.
    pub(super) fn is_fit(&self, index: usize) -> bool {
        is_fit(&self.processes[index]) && !self.is_out(index)
    }

    /// Whether the voters but this one that can be relied on are enough.
    fn others_are_fit(&self, replica: usize) -> bool {
        self.others_are(replica, |index| self.is_fit(index))
    }

    /// Whether the voters but this one of whom that can be said are enough.
    fn others_are(&self, replica: usize, what: impl Fn(usize) -> bool) -> bool {
        let voters = usize::from(self.swarm.replicas);
        let count = (0..voters).filter(|index| *index != replica && what(*index)).count();
        count >= view_change_quorum(voters)
    }

    /// Whether the other voters of a core can do without the one at a place: each of them whose
    /// blocks are damaged has another one at its checkpoint to fetch them from.
    pub(super) fn can_do_without(&self, core: &[usize], place: usize) -> bool {
        let left: Vec<usize> = core.iter().copied().filter(|index| *index != core[place]).collect();
        left.iter().all(|index| {
            let checkpoint = self.checkpoint_max[*index];
            let mut others = left.iter().filter(|other| *other != index);
            let alone = others.all(|other| self.checkpoint_max[*other] < checkpoint);
            !alone || !self.grid_is_damaged(*index)
        })
    }

    /// Whether a machine may be away until it has fallen out of the log.
    pub(super) fn may_be_away(&self, replica: usize) -> bool {
        self.others_are_fit(replica)
    }

    /// Whether the data file of this replica may be lost: what it promised is on others, enough of
    /// which can be relied on, also for blocks that only this one has beside them.
    pub(super) fn may_lose_file(&self, replica: usize) -> bool {
        let stays_fit = |index: usize| {
            let alone = self.leads_alone(index, replica) && self.grid_is_damaged(index);
            self.is_fit(index) && !alone
        };
        let process = &self.processes[replica];
        process.is_voter() && self.swarm.replicas >= 3 && self.others_are(replica, stays_fit)
    }

    /// Whether a block of this replica may be damaged.
    pub(super) fn may_damage_block(&self, replica: usize, address: u64) -> bool {
        let voters = usize::from(self.swarm.replicas);
        if voters <= 2 {
            return false;
        }
        let size = u64::from(config().block_size);
        let offset = self.zones.block_offset(address).expect("a block in use");
        let newest = self.checkpoint_newest();
        if self.checkpoint_max[replica] < newest {
            return false;
        }
        let lacks = |index: &usize| {
            self.is_out(*index)
                || self.checkpoint_max[*index] < newest
                || self.processes[*index]
                    .disk
                    .damaged_from(offset)
                    .any(|damaged| damaged < offset + size)
        };
        let others = (0..voters).filter(|index| *index != replica).filter(lacks).count();
        others < spare(voters)
    }

    /// The op from which on a replica may need others' logs, now or after its next start.
    fn position(&self, index: usize) -> u64 {
        let process = &self.processes[index];
        if !log_is_damaged(process) {
            self.commit_max[index]
        } else if process.is_normal() {
            self.seen[index].commit
        } else {
            self.checkpoint_max[index]
        }
    }

    /// Whether the log of this replica may be damaged now: others are fit, and what it needs from
    /// its checkpoint on is still in their logs.
    pub(super) fn may_damage(&self, index: usize) -> bool {
        let behind = self.history.head() - self.checkpoint_max[index];
        behind <= DAMAGE_LAG_MAX && self.others_are_fit(index)
    }

    /// Whether a stretch of the log of this replica, within one ring, may come to harm.
    pub(super) fn may_harm_log(
        &self,
        replica: usize,
        (offset, length): (u64, u64),
        harm: Harm,
    ) -> bool {
        let (start, size) = other_ring(offset, length);
        let disk = &self.processes[replica].disk;
        let told = match harm {
            Harm::Damage => !disk.is_stale(start, size),
            Harm::Stale => !disk.is_damaged(start, size),
        };
        told && self.may_damage(replica)
    }

    /// Whether a disk may be full for a while.
    pub(super) fn may_be_full(&self, replica: usize) -> bool {
        self.swarm.replicas == 1 || self.others_are_fit(replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Pool, PrepareHeader, SECTOR_SIZE};
    use crate::storage::{DiskKind, DiskOwner, DiskRequest, DiskToken};
    use crate::vsr::Genesis;
    use crate::vsr::journal_geometry::{encode_sector, reserved_header};
    use zerocopy::IntoBytes;

    /// Goal: the parts of both rings that belong together find each other, for every slot.
    #[test]
    fn rings_belong_together() {
        let zones = Zones::new(&config());
        let size = u64::from(config().message_size_max);
        let contains = |(start, length): (u64, u64), offset: u64, part: u64| {
            start <= offset && offset + part <= start + length
        };
        for slot in 0..config().journal_slots {
            let (header, prepare) = (zones.wal_header_offset(slot), zones.wal_prepare_offset(slot));
            for offset in [prepare, prepare + size - SECTOR] {
                assert!(contains(other_ring(offset, SECTOR), header, 256), "slot {slot}");
            }
            let sector = header / SECTOR * SECTOR;
            assert!(contains(other_ring(sector, SECTOR), prepare, size), "slot {slot}");
            let (start, length) = other_ring(sector, SECTOR);
            assert!(start >= zones.start(Zone::WalPrepares));
            assert!(start + length <= zones.start(Zone::Grid));
        }
    }

    /// Goal: a sector of redundant headers leaves damage if one of them does not verify, and only
    /// then; other places and reads never do.
    #[test]
    fn doubtful_headers_are_damage() {
        let geometry = JournalGeometry::new(&config(), CLUSTER);
        let mut ring: Vec<Header> =
            (0..geometry.slots).map(|slot| reserved_header(CLUSTER, slot)).collect();
        let pool = Pool::new("test", 1, SECTOR_SIZE);
        let leaves = |ring: &[Header], kind| {
            let mut buffer = pool.acquire();
            encode_sector(ring, 1, buffer.bytes_mut());
            leaves_damage(&geometry.header_request(kind, 1, buffer))
        };
        assert!(!leaves(&ring, DiskKind::WriteDurable));
        ring[19].frame.size += 1;
        assert!(leaves(&ring, DiskKind::WriteDurable) && !leaves(&ring, DiskKind::Read));
        ring[19] = reserved_header(CLUSTER, 18);
        assert!(leaves(&ring, DiskKind::WriteDurable), "of another slot");
        ring[19] = PrepareHeader::root(CLUSTER).header().to_owned();
        assert!(leaves(&ring, DiskKind::WriteDurable), "of another slot");
        ring[19] = reserved_header(CLUSTER, 19);
        ring[3].frame.size += 1;
        assert!(!leaves(&ring, DiskKind::WriteDurable), "in another sector");
        let buffer = pool.acquire();
        let kind = DiskKind::WriteDurable;
        assert!(!leaves_damage(&geometry.prepare_request(kind, 3, SECTOR_SIZE, buffer)));
    }

    /// Goal: what a shorter prepare leaves behind it in its slot is told, and nothing else is.
    #[test]
    fn rest_behind_a_prepare() {
        let geometry = JournalGeometry::new(&config(), CLUSTER);
        let (size, kind) = (config().message_size_max, DiskKind::WriteDurable);
        let pool = Pool::new("test", 1, size);
        let rest = |kind, slot, length| {
            let request = geometry.prepare_request(kind, slot, length, pool.acquire());
            rest_of_slot(&request)
        };
        for slot in [0, 11, geometry.slots - 1] {
            let start = geometry.zones.wal_prepare_offset(slot);
            let (offset, length) = rest(kind, slot, 2 * SECTOR_SIZE).expect("it is shorter");
            assert_eq!((offset - start, offset - start + u64::from(length)), (8192, size.into()));
            assert_eq!(rest(kind, slot, size), None, "there is no rest");
            assert_eq!(rest(DiskKind::Read, slot, SECTOR_SIZE), None);
        }
        let headers = geometry.header_request(kind, 0, pool.acquire());
        assert_eq!(rest_of_slot(&headers), None, "another ring");
    }

    /// Goal: a superblock with three equal copies survives any one torn write, one with two equal
    /// ones does not; a copy that is to be damaged does not count.
    #[test]
    fn equal_copies() {
        let zones = Zones::new(&config());
        let genesis = Genesis {
            cluster: 1,
            replica: 0,
            replica_count: 3,
            config: config(),
            is_recovering: false,
        };
        let mut superblock = Superblock::genesis(&genesis);
        let pool = Pool::new("test", 1, to_size(COPY_SIZE));
        let mut disk = MemoryDisk::new(zones.file_size(1));
        for copy in 0..SUPERBLOCK_COPIES {
            superblock.copy = copy;
            let mut buffer = pool.acquire();
            buffer.bytes_mut().copy_from_slice(superblock.as_bytes());
            let token = DiskToken { owner: DiskOwner::Superblock, index: copy };
            let (kind, length) = (DiskKind::WriteDurable, buffer.size());
            let offset = zones.superblock_offset(copy);
            let buffer = Some(buffer);
            let request = DiskRequest { token, kind, offset, length, buffer, buffer_offset: 0 };
            let id = disk.submit(request);
            assert!(disk.complete(id).is_some());
        }
        assert!(superblock_is_safe(&disk, None) && superblock_is_safe(&disk, Some(2)));
        assert!(other_copies_are_sound(&disk, 1) && !superblock_is_damaged(&disk));
        disk.corrupt(zones.superblock_offset(1) + 100);
        assert!(superblock_is_safe(&disk, None) && superblock_is_safe(&disk, Some(1)));
        assert!(!superblock_is_safe(&disk, Some(2)));
        assert!(other_copies_are_sound(&disk, 1) && !other_copies_are_sound(&disk, 2));
        disk.corrupt(zones.superblock_offset(2) + 100);
        assert!(!superblock_is_safe(&disk, None) && superblock_is_damaged(&disk));
    }
}
