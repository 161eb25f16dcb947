//! Which faults a cluster must survive, so that every failure is a bug.
//!
//! A voter is *fit* if it has no damage on its log that was not repaired, knows its head and is not
//! waiting for state sync, nor does it lag by more than the logs reach. Damage may be done to a
//! voter only if the others that are fit make up a view-change quorum: then everything committed is
//! intact on one of them, and they can go on without the damaged one. A cluster of one or two gets
//! no damage of its log. A superblock is damaged only while the process is down and if three equal
//! copies remain: starting repairs it.
//!
//! A block of the grid may be damaged on as many voters as the others can do without, of whom those
//! that lack blocks anyway count as damaged: any view-change quorum then has an intact one. So many
//! may be away, too, for as long as it takes to fall out of the log.
//!
//! The data file of a voter may be lost if the others that are fit make up a view-change quorum:
//! whatever it acknowledged is on one of them. It is not fit before it has recovered.

use super::checkers::durability::view_change_quorum;
use super::disk::MemoryDisk;
use super::process::{Process, config};
use crate::protocol::AlignedMemory;
use crate::storage::zones::SUPERBLOCK_COPIES;
use crate::storage::{Zone, Zones};
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

/// Whether damage was done to a log and not repaired.
#[must_use]
pub fn log_is_damaged(process: &Process) -> bool {
    let zones = Zones::new(&config());
    let start = zones.start(Zone::WalHeaders);
    process.disk.is_damaged(start, zones.start(Zone::Grid) - start)
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

/// Sequence and checksum of each copy that is intact.
fn superblock_copies(disk: &MemoryDisk) -> Vec<(u64, u128)> {
    let zones = Zones::new(&config());
    let mut memory = AlignedMemory::new(COPY_SIZE);
    let mut found = Vec::new();
    for copy in 0..SUPERBLOCK_COPIES {
        memory.copy_from_slice(&disk.read(zones.superblock_offset(copy), COPY_SIZE));
        if let Ok(superblock) = Superblock::parse(&memory, copy) {
            found.push((superblock.sequence, superblock.checksum));
        }
    }
    found
}

/// Whether a superblock survives a torn write of any one copy: three copies are equal.
#[must_use]
pub fn superblock_is_safe(disk: &MemoryDisk) -> bool {
    let copies = superblock_copies(disk);
    copies.iter().any(|pair| copies.iter().filter(|other| *other == pair).count() >= 3)
}
