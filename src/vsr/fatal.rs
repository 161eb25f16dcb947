//! Why a replica stops: every way in which going on could be wrong.
//!
//! Each value says where (zone, offset in the file, op), what was found and what a person can do.
//! A replica that is fatal ignores everything from then on.

use std::fmt;

use super::machine::CheckpointFault;
use super::superblock::SuperblockError;
use crate::protocol::Release;
use crate::storage::grid::{GridFault, GridFaultKind};
use crate::storage::{DiskError, Zone};

/// The reason for stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// No superblock can be believed.
    Superblock(SuperblockError),
    /// A copy of the superblock could not be written.
    SuperblockWrite {
        /// The copy.
        copy: u32,
        /// Where it lies in the file.
        offset: u64,
        /// What the device said.
        error: DiskError,
    },
    /// A part of the write-ahead log that is needed is damaged.
    Journal(JournalFault),
    /// The write-ahead log could not be read or written.
    JournalDisk {
        /// The ring.
        zone: Zone,
        /// Where in the file.
        offset: u64,
        /// What the device said.
        error: DiskError,
    },
    /// A block of the grid cannot be read or written, or is not what its reference says.
    Grid(GridFault),
    /// What a checkpoint holds does not decode although its blocks are intact.
    Checkpoint {
        /// The checkpoint's op.
        op: u64,
        /// What is wrong with it.
        fault: CheckpointFault,
    },
    /// What was executed here is not what the cluster's log says.
    Diverged {
        /// Newest op executed here.
        op: u64,
        /// Checksum of its header.
        executed: u128,
        /// What the log says it must be.
        expected: u128,
    },
    /// Another replica has made another checkpoint of the same op.
    CheckpointDiverged {
        /// Its op.
        op: u64,
        /// The other replica.
        replica: u8,
        /// Identity of the checkpoint here.
        own: u128,
        /// Identity of the checkpoint there.
        other: u128,
    },
    /// Nothing is wrong: this replica took over a newer checkpoint and has to start from it.
    Synced {
        /// Its op.
        op: u64,
    },
    /// An op or checkpoint has to be executed by the rules of a release that this program does not
    /// know.
    Program {
        /// The op.
        op: u64,
        /// The release.
        needed: Release,
        /// That of this program.
        own: Release,
    },
    /// The prepares since the checkpoint were made by a program this one does not know.
    Prepare {
        /// Its op.
        op: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Damage in the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalFault {
    /// The ring in which it shows.
    pub zone: Zone,
    /// The slot of the ring.
    pub slot: u32,
    /// The op that is needed from there.
    pub op: u64,
    /// Where it lies in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Fatal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Superblock(error) => write!(formatter, "{error}"),
            Fatal::SuperblockWrite { copy, offset, error } => write!(
                formatter,
                "zone superblock: copy {copy} at file offset {offset} could not be \
                 written: {error}; {}",
                write_remedy(*error)
            ),
            Fatal::Journal(fault) => write!(
                formatter,
                "zone {}: slot {} at file offset {}, needed for op {}: {}; {RESTORE}",
                fault.zone, fault.slot, fault.offset, fault.op, fault.what
            ),
            Fatal::JournalDisk { zone, offset, error } => {
                let remedy = write_remedy(*error);
                write!(formatter, "zone {zone}: file offset {offset}: {error}; {remedy}")
            }
            Fatal::Grid(fault) => write!(formatter, "zone {fault}; {}", grid_remedy(&fault.kind)),
            Fatal::Checkpoint { op, fault } => {
                write!(formatter, "zone grid: checkpoint of op {op}: {fault}; {RESTORE}")
            }
            Fatal::Synced { op } => write!(
                formatter,
                "the others' logs do not reach back to what this replica needs: it took over their \
                 checkpoint of op {op} and has to start again"
            ),
            Fatal::Diverged { op, executed, expected } => write!(
                formatter,
                "op {op} was executed as {executed:#034x}, but the cluster's log has \
                 {expected:#034x} in its place; keep this file and report it"
            ),
            Fatal::CheckpointDiverged { op, replica, own, other } => write!(
                formatter,
                "checkpoint of op {op} is {own:#034x} here and {other:#034x} on replica {replica}; \
                 keep both files and report it"
            ),
            Fatal::Program { op, needed, own } if needed > own => write!(
                formatter,
                "op {op} is of release {needed}, and this program is release {own}, which does not \
                 know its rules: install release {needed} or a later one and start again; nothing \
                 is lost"
            ),
            Fatal::Program { op, needed, own } => write!(
                formatter,
                "op {op} is of release {needed}, and this program, release {own}, knows the rules \
                 of {} and later: install a release in between, let all replicas run it until \
                 their checkpoints are of it, and then this one",
                Release::PROGRAM_MIN
            ),
            Fatal::Prepare { op, what } => {
                write!(formatter, "zone WAL prepares: op {op}: {what}; use a matching program")
            }
        }
    }
}

impl std::error::Error for Fatal {}

const RESTORE: &str = "a cluster of one cannot repair it: restore the file from a backup";
/// The system's numbers for "no space left" and "quota exceeded".
const NO_SPACE: [i32; 2] = [28, 122];
/// The system's number for "file too large".
const TOO_LARGE: i32 = 27;

/// What helps when the log or the superblock cannot be read or written. Nothing that was
/// acknowledged is lost by a failed write.
fn write_remedy(error: DiskError) -> &'static str {
    if NO_SPACE.contains(&error.errno) {
        "nothing is lost: free space for the file and start again"
    } else if error.errno == TOO_LARGE {
        "nothing is lost: move the file to a file system, or raise the limit (ulimit -f), that \
         lets it grow, and start again"
    } else {
        "look at the device and the kernel's log, then start again"
    }
}

/// What helps against what the grid met.
fn grid_remedy(kind: &GridFaultKind) -> &'static str {
    match kind {
        GridFaultKind::Address => {
            "start with a --limit-storage no smaller than before; if it was not lowered, restore \
             the file from a backup"
        }
        GridFaultKind::Block(_) => RESTORE,
        GridFaultKind::Read(_) => {
            "look at the device and the kernel's log, then start again; if the place stays \
             unreadable, restore the file from a backup"
        }
        GridFaultKind::Write(error) | GridFaultKind::Sync(error) => write_remedy(*error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: GridFaultKind) -> String {
        let fault = GridFault { zone: Zone::Grid, offset: 4096, address: 1, sequence: 7, kind };
        Fatal::Grid(fault).to_string()
    }

    /// Goal: a backup is advised only where it helps; a full disk and a bad one are told apart.
    #[test]
    fn remedies() {
        let full = DiskError { errno: 28, bytes_done: 0 };
        let bad = DiskError { errno: 5, bytes_done: 0 };
        let large = DiskError { errno: 27, bytes_done: 0 };
        assert!(
            text(GridFaultKind::Write(full)).ends_with("free space for the file and start again")
        );
        assert!(text(GridFaultKind::Sync(bad)).ends_with("kernel's log, then start again"));
        assert!(text(GridFaultKind::Write(large)).contains("ulimit -f"));
        for kind in [GridFaultKind::Write(bad), GridFaultKind::Sync(full)] {
            assert!(!text(kind).contains("backup"), "{kind:?}");
        }
        assert!(text(GridFaultKind::Read(bad)).contains("backup"));
        assert!(text(GridFaultKind::Address).contains("--limit-storage"));
        let journal = Fatal::JournalDisk { zone: Zone::Grid, offset: 0, error: full }.to_string();
        assert!(journal.contains("nothing is lost"), "{journal}");
    }
}
