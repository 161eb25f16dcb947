//! What disks do wrong: with time, and to a request whose turn has come.
//!
//! Each fault asks the [`atlas`](super::atlas) first. Not covered: how a disk keeps its contents,
//! and what it remembers of damage: see [`disk`](super::disk).

use super::atlas::{self, Harm};
use super::cluster::Cluster;
use super::disk::{ERRNO_IO, ERRNO_NO_SPACE};
use super::faults::Fault;
use super::process::{Activity, Gray, config};
use crate::protocol::to_size;
use crate::storage::zones::SUPERBLOCK_COPIES;
use crate::storage::{DiskError, DiskKind, Zone, Zones, count_of};
use crate::vsr::superblock::COPY_SIZE;

const SECTOR: u64 = 4096;
/// Blocks of a stretch that returns to older content, at most.
const STRETCH_MAX: u64 = 8;
/// Of the blocks in use, how many one helix damages: parts of a million.
const HELIX_PART: u64 = 300_000;

/// How a request of a disk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskOutcome {
    /// As it should.
    Done,
    /// It is done at another offset.
    Elsewhere(u64),
    /// It is acknowledged and not done.
    Lost,
    /// It fails.
    Failed(DiskError),
}

/// A request as faults see it.
#[derive(Clone, Copy, Debug)]
struct Target {
    replica: usize,
    zone: Zone,
    offset: u64,
    length: u64,
}

impl Target {
    fn is_log(&self) -> bool {
        matches!(self.zone, Zone::WalHeaders | Zone::WalPrepares)
    }

    /// Number of the superblock's copy, slot, sector of headers or block.
    fn unit(&self) -> u64 {
        let zones = Zones::new(&config());
        (self.offset - zones.start(self.zone)) / unit_of(self.zone)
    }
}

/// Bytes after which a zone repeats.
fn unit_of(zone: Zone) -> u64 {
    match zone {
        Zone::Superblock => count_of(COPY_SIZE),
        Zone::WalHeaders => SECTOR,
        Zone::WalPrepares => config().message_size_max.into(),
        Zone::Grid => config().block_size.into(),
    }
}

impl Cluster {
    /// Decides how a request of a disk ends.
    pub(super) fn disk_outcome(&mut self, replica: usize, id: u64) -> DiskOutcome {
        let Some(request) = self.processes[replica].disk.request(id) else {
            return DiskOutcome::Done;
        };
        let (kind, offset, length) = (request.kind, request.offset, u64::from(request.length));
        let zone = self.zones.locate(offset).0;
        let target = Target { replica, zone, offset, length };
        let outcome = match kind {
            DiskKind::Read => self.read_outcome(&target),
            DiskKind::Sync => self.sync_outcome(&target),
            DiskKind::Write | DiskKind::WriteDurable => self.write_outcome(&target),
        };
        if let DiskOutcome::Failed(error) = outcome {
            self.processes[replica].errors += 1;
            self.tell(replica, &format!("{kind:?} {zone} {}: {error}", target.unit()));
        }
        outcome
    }

    fn read_outcome(&mut self, target: &Target) -> DiskOutcome {
        let fault = match target.zone {
            Zone::Grid => Fault::GridMisdirectedRead,
            Zone::WalHeaders | Zone::WalPrepares => Fault::WalMisdirectedRead,
            Zone::Superblock => Fault::ReadError,
        };
        if fault != Fault::ReadError
            && self.faults.strikes(fault)
            && self.may_misread(target)
            && let Some(elsewhere) = self.elsewhere(fault, target)
        {
            return self.struck(fault, target, DiskOutcome::Elsewhere(elsewhere));
        }
        let fault = Fault::ReadError;
        if !self.faults.strikes(fault) {
            return DiskOutcome::Done;
        }
        let is_alone = self.swarm.replicas == 1 && target.zone != Zone::Superblock;
        if !is_alone && !self.may_misread(target) {
            return DiskOutcome::Done;
        }
        let random = self.faults.random(fault);
        let is_short = random.chance(300_000);
        let bytes_done = to_size(crate::storage::index_of(random.below(target.length)));
        let error = if is_short {
            DiskError { errno: 0, bytes_done }
        } else {
            DiskError { errno: ERRNO_IO, bytes_done: 0 }
        };
        self.struck(fault, target, DiskOutcome::Failed(error))
    }

    /// Whether a read may bring nothing, or something else.
    fn may_misread(&self, target: &Target) -> bool {
        let disk = &self.processes[target.replica].disk;
        match target.zone {
            Zone::Grid => self.may_damage_block(target.replica, target.unit() + 1),
            Zone::WalHeaders | Zone::WalPrepares => {
                let place = (target.offset, target.length);
                self.may_harm_log(target.replica, place, Harm::Damage)
            }
            Zone::Superblock => {
                let copy = to_size(crate::storage::index_of(target.unit()));
                atlas::other_copies_are_sound(disk, copy)
                    && atlas::superblock_is_safe(disk, Some(copy))
            }
        }
    }

    fn sync_outcome(&mut self, target: &Target) -> DiskOutcome {
        if !self.faults.strikes(Fault::SyncError) {
            return DiskOutcome::Done;
        }
        let error = DiskError { errno: ERRNO_IO, bytes_done: 0 };
        self.struck(Fault::SyncError, target, DiskOutcome::Failed(error))
    }

    fn write_outcome(&mut self, target: &Target) -> DiskOutcome {
        let process = &self.processes[target.replica];
        let end = self.zones.start(Zone::Grid).max(process.disk.extent());
        if process.full_until_ns.is_some() && target.offset + target.length > end {
            let error = DiskError { errno: ERRNO_NO_SPACE, bytes_done: 0 };
            return DiskOutcome::Failed(error);
        }
        let copy = (target.zone == Zone::Superblock)
            .then(|| to_size(crate::storage::index_of(target.unit())));
        let sound = copy.is_none_or(|copy| atlas::other_copies_are_sound(&process.disk, copy));
        if self.faults.strikes(Fault::WriteError) && sound {
            let error = DiskError { errno: ERRNO_IO, bytes_done: 0 };
            return self.struck(Fault::WriteError, target, DiskOutcome::Failed(error));
        }
        let (lost, misdirected) = match target.zone {
            Zone::Superblock => (Fault::SuperblockLostWrite, None),
            Zone::Grid => (Fault::GridLostWrite, Some(Fault::GridMisdirectedWrite)),
            Zone::WalHeaders | Zone::WalPrepares => {
                (Fault::WalLostWrite, Some(Fault::WalMisdirectedWrite))
            }
        };
        if self.faults.strikes(lost) && sound && self.may_be_stale(target) {
            return self.struck(lost, target, DiskOutcome::Lost);
        }
        if let Some(fault) = misdirected
            && self.faults.strikes(fault)
            && self.may_be_stale(target)
            && let Some(elsewhere) = self.elsewhere(fault, target)
            && self.may_be_overwritten(target, elsewhere)
        {
            return self.struck(fault, target, DiskOutcome::Elsewhere(elsewhere));
        }
        DiskOutcome::Done
    }

    /// Whether a place may keep what it had instead of what is written.
    fn may_be_stale(&self, target: &Target) -> bool {
        let place = (target.offset, target.length);
        match target.zone {
            Zone::Superblock => true,
            Zone::Grid => self.may_damage_block(target.replica, target.unit() + 1),
            _ => self.may_harm_log(target.replica, place, Harm::Stale),
        }
    }

    /// Whether what is meant for another place may be written here.
    fn may_be_overwritten(&self, target: &Target, elsewhere: u64) -> bool {
        if target.is_log() {
            return self.may_harm_log(target.replica, (elsewhere, target.length), Harm::Damage);
        }
        let start = self.zones.start(Zone::Grid);
        self.may_damage_block(target.replica, (elsewhere - start) / unit_of(Zone::Grid) + 1)
    }

    /// Another place in the same zone to which a request fits.
    fn elsewhere(&mut self, fault: Fault, target: &Target) -> Option<u64> {
        let start = self.zones.start(target.zone);
        let unit = unit_of(target.zone);
        let units = match target.zone {
            Zone::Grid => self.blocks_max[target.replica],
            zone => self.zones.size(zone)? / unit,
        };
        if units == 0 {
            return None;
        }
        let within = (target.offset - start) % unit;
        let elsewhere = start + within + unit * self.faults.random(fault).below(units);
        let fits = within + target.length <= unit && elsewhere != target.offset;
        fits.then_some(elsewhere)
    }

    fn struck(&mut self, fault: Fault, target: &Target, outcome: DiskOutcome) -> DiskOutcome {
        self.faults.count(fault);
        let text = format!("{} {} {}", fault.name(), target.zone, target.unit());
        self.tell(target.replica, &text);
        outcome
    }

    /// Lets what strikes disks with time strike.
    pub(super) fn inject_disks(&mut self) {
        for fault in [Fault::WalRot, Fault::WalUnreadable] {
            if self.strikes(fault) {
                let replica = self.node(fault);
                let offset = self.draw_log_offset(fault);
                self.damage_log(fault, replica, offset);
            }
        }
        for fault in [Fault::GridRot, Fault::GridUnreadable] {
            if self.strikes(fault) {
                let replica = self.node(fault);
                self.damage_grid(fault, replica);
            }
        }
        if self.strikes(Fault::SuperblockDamage) {
            let replica = self.node(Fault::SuperblockDamage);
            self.damage_superblock(replica);
        }
        if self.strikes(Fault::WalRollback) {
            let replica = self.node(Fault::WalRollback);
            self.roll_back_log(replica);
        }
        if self.strikes(Fault::GridRollback) {
            let replica = self.node(Fault::GridRollback);
            self.roll_back_grid(replica);
        }
        if self.strikes(Fault::SuperblockRollback) {
            let replica = self.node(Fault::SuperblockRollback);
            self.roll_back_superblock(replica);
        }
        if self.strikes(Fault::GridHelix) {
            self.damage_helix();
        }
        self.inject_slow_disks();
    }

    /// Makes disks slow or full for a while, and lets that end.
    fn inject_slow_disks(&mut self) {
        let now_ns = self.events.now_ns();
        for replica in 0..self.processes.len() {
            let process = &mut self.processes[replica];
            process.gray = process.gray.filter(|gray| now_ns < gray.until_ns);
            process.full_until_ns = process.full_until_ns.filter(|until_ns| now_ns < *until_ns);
        }
        let fault = Fault::DiskGray;
        if self.strikes(fault) {
            let replica = self.node(fault);
            let factor = self.faults.random(fault).scale(10, 100);
            let until_ns = now_ns + self.span_ns(fault, 500, 20_000);
            if atlas::may_be_gray(&self.processes, replica) {
                self.faults.count(fault);
                self.processes[replica].gray = Some(Gray { factor, until_ns });
                self.tell(replica, &format!("disk {factor} times slower"));
            }
        }
        let fault = Fault::DiskFull;
        if self.strikes(fault) {
            let replica = self.node(fault);
            let until_ns = now_ns + self.span_ns(fault, 100, 5_000);
            let full = |process: &super::process::Process| process.full_until_ns.is_some();
            if self.may_be_full(replica) && !self.processes.iter().any(full) {
                self.faults.count(fault);
                self.processes[replica].full_until_ns = Some(until_ns);
                self.tell(replica, "disk is full");
            }
        }
    }

    /// A place in the log where bytes matter: half of the damage hits headers, much of the rest
    /// starts of prepares.
    fn draw_log_offset(&mut self, fault: Fault) -> u64 {
        let zones = Zones::new(&config());
        let start = zones.start(Zone::WalHeaders);
        let headers = zones.size(Zone::WalHeaders).expect("a fixed zone");
        let prepares = zones.size(Zone::WalPrepares).expect("a fixed zone");
        let random = self.faults.random(fault);
        match random.below(4) {
            0 | 1 => start + random.below(headers),
            2 => {
                let slots = u64::from(config().journal_slots);
                let slot = u32::try_from(random.below(slots)).expect("few slots");
                zones.wal_prepare_offset(slot) + random.below(1024)
            }
            _ => start + headers + random.below(prepares),
        }
    }

    fn damage_grid(&mut self, fault: Fault, replica: usize) {
        let blocks = self.blocks_max[replica];
        if blocks == 0 {
            return;
        }
        let size = u64::from(config().block_size);
        let random = self.faults.random(fault);
        let (address, within) = (random.between(1, blocks), random.below(size));
        if !self.may_damage_block(replica, address) {
            return;
        }
        self.faults.count(fault);
        let offset = self.zones.block_offset(address).expect("a block in use") + within;
        let disk = &mut self.processes[replica].disk;
        if fault == Fault::GridUnreadable {
            disk.make_unreadable(offset);
        } else {
            disk.corrupt(offset);
        }
        self.tell(replica, &format!("{} block {address}", fault.name()));
    }

    /// Damages a good part of all blocks at once, each on a replica that is drawn for it.
    fn damage_helix(&mut self) {
        let fault = Fault::GridHelix;
        let blocks = *self.blocks_max.iter().max().expect("there are replicas");
        let size = u64::from(config().block_size);
        let mut count = 0;
        for address in 1..=blocks {
            let nodes = self.processes.len();
            let random = self.faults.random(fault);
            let (hit, replica) = (random.chance(HELIX_PART), random.index(nodes));
            let within = random.below(size);
            let in_use = address <= self.blocks_max[replica];
            if hit && in_use && self.may_damage_block(replica, address) {
                let offset = self.zones.block_offset(address).expect("a block in use");
                self.processes[replica].disk.corrupt(offset + within);
                count += 1;
            }
        }
        if count > 0 {
            self.faults.count(fault);
            self.tell(0, &format!("{count} of {blocks} blocks are damaged on some replica"));
        }
    }

    fn damage_log(&mut self, fault: Fault, replica: usize, offset: u64) {
        let sector = offset / SECTOR * SECTOR;
        if !self.may_harm_log(replica, (sector, SECTOR), Harm::Damage) {
            return;
        }
        self.faults.count(fault);
        let disk = &mut self.processes[replica].disk;
        if fault == Fault::WalRot {
            disk.corrupt(offset);
        } else {
            disk.make_unreadable(offset);
        }
        let (zone, within) = self.zones.locate(offset);
        let slot = match zone {
            Zone::WalHeaders => within / 256,
            _ => within / u64::from(config().message_size_max),
        };
        self.tell(replica, &format!("{} {zone} {slot}", fault.name()));
    }

    /// Damages some of the newest slots of a log whose process is gone: the prepare, the redundant
    /// header, or both.
    pub(super) fn damage_head(&mut self, replica: usize) {
        let fault = Fault::WalHeadDamage;
        if !self.strikes(fault) || !self.may_damage(replica) {
            return;
        }
        self.faults.count(fault);
        let head = self.head_last[replica];
        let random = self.faults.random(fault);
        let mut places = Vec::new();
        for _ in 0..random.between(1, 3) {
            let op = (head + 1).saturating_sub(random.below(5));
            let slot = op % u64::from(config().journal_slots);
            let slot = u32::try_from(slot).expect("few slots");
            // Most often the prepare alone: what hides behind an intact header can be told.
            let (what, rots) = (random.below(4) % 3, random.chance(500_000));
            for index in [0, 1].into_iter().filter(|it| what == 2 || what == count_of(*it)) {
                places.push((index, slot, rots));
            }
        }
        for (index, slot, rots) in places {
            let places = [self.zones.wal_prepare_offset(slot), self.zones.wal_header_offset(slot)];
            let place = places[index];
            let sector = place / SECTOR * SECTOR;
            if !self.may_harm_log(replica, (sector, SECTOR), Harm::Damage) {
                continue;
            }
            let disk = &mut self.processes[replica].disk;
            if rots || index == 1 {
                disk.corrupt(place);
            } else {
                disk.make_unreadable(place);
            }
        }
        self.tell(replica, "head of the log damaged");
    }

    fn damage_superblock(&mut self, replica: usize) {
        // Only a start repairs it, and a write in the meantime could spoil another copy.
        if self.processes[replica].activity != Activity::Down {
            return;
        }
        let random = self.faults.random(Fault::SuperblockDamage);
        let copy = u32::try_from(random.below(SUPERBLOCK_COPIES.into())).expect("few copies");
        let within = random.below(count_of(COPY_SIZE));
        let disk = &mut self.processes[replica].disk;
        let sound = atlas::other_copies_are_sound(disk, copy);
        if !sound || !atlas::superblock_is_safe(disk, Some(copy)) {
            return;
        }
        disk.corrupt(self.zones.superblock_offset(copy) + within);
        self.faults.count(Fault::SuperblockDamage);
        self.tell(replica, &format!("superblock copy {copy} rots"));
    }

    fn roll_back_superblock(&mut self, replica: usize) {
        let fault = Fault::SuperblockRollback;
        if self.processes[replica].activity != Activity::Down {
            return;
        }
        let copies = u64::from(SUPERBLOCK_COPIES);
        let copy = u32::try_from(self.faults.random(fault).below(copies)).expect("few copies");
        let offset = self.zones.superblock_offset(copy);
        let disk = &mut self.processes[replica].disk;
        let sound = atlas::other_copies_are_sound(disk, copy);
        if sound
            && atlas::superblock_is_safe(disk, Some(copy))
            && disk.roll_back(offset, to_size(COPY_SIZE)) > 0
        {
            self.faults.count(fault);
            self.tell(replica, &format!("superblock copy {copy} is as it was"));
        }
    }

    fn roll_back_log(&mut self, replica: usize) {
        let fault = Fault::WalRollback;
        let offset = self.draw_log_offset(fault) / SECTOR * SECTOR;
        let zone = self.zones.locate(offset).0;
        let end = self.zones.start(zone) + self.zones.size(zone).expect("a fixed zone");
        let most = if zone == Zone::WalHeaders { 1 } else { 16 };
        let length = (self.faults.random(fault).between(1, most) * SECTOR).min(end - offset);
        if !self.may_harm_log(replica, (offset, length), Harm::Stale) {
            return;
        }
        let length = to_size(crate::storage::index_of(length));
        let changed = self.processes[replica].disk.roll_back(offset, length);
        if changed > 0 {
            self.faults.count(fault);
            let first = (offset - self.zones.start(zone)) / SECTOR;
            self.tell(replica, &format!("{zone} sectors {first} + {changed} are as they were"));
        }
    }

    fn roll_back_grid(&mut self, replica: usize) {
        let fault = Fault::GridRollback;
        let blocks = self.blocks_max[replica];
        if blocks == 0 {
            return;
        }
        let random = self.faults.random(fault);
        let (first, count) = (random.between(1, blocks), random.between(1, STRETCH_MAX));
        let is_whole = random.chance(500_000);
        let mut changed = 0;
        for address in first..=(first + count - 1).min(blocks) {
            if self.may_damage_block(replica, address) {
                let offset = self.zones.block_offset(address).expect("a block in use");
                let length = if is_whole { config().block_size } else { to_size(4096) };
                changed += self.processes[replica].disk.roll_back(offset, length);
            }
        }
        if changed > 0 {
            self.faults.count(fault);
            let text = format!("{changed} sectors of blocks {first} + {count} are as they were");
            self.tell(replica, &text);
        }
    }
}
