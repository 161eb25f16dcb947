//! Why a replica stops: every way in which going on could be wrong.
//!
//! Each value says where (zone, offset in the file, op), what was found and what a person can do.
//! A replica that is fatal ignores everything from then on.

use std::fmt;

use super::machine::CheckpointFault;
use super::superblock::SuperblockError;
use crate::storage::grid::GridFault;
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
        const RESTORE: &str = "a cluster of one cannot repair it: restore the file from a backup";
        match self {
            Fatal::Superblock(error) => write!(formatter, "{error}"),
            Fatal::SuperblockWrite { copy, offset, error } => write!(
                formatter,
                "zone superblock: copy {copy} at file offset {offset} could not be written: {error}"
            ),
            Fatal::Journal(fault) => write!(
                formatter,
                "zone {}: slot {} at file offset {}, needed for op {}: {}; {RESTORE}",
                fault.zone, fault.slot, fault.offset, fault.op, fault.what
            ),
            Fatal::JournalDisk { zone, offset, error } => {
                write!(formatter, "zone {zone}: file offset {offset}: {error}")
            }
            Fatal::Grid(fault) => write!(formatter, "zone {fault}; {RESTORE}"),
            Fatal::Checkpoint { op, fault } => {
                write!(formatter, "zone grid: checkpoint of op {op}: {fault}; {RESTORE}")
            }
            Fatal::Prepare { op, what } => {
                write!(formatter, "zone WAL prepares: op {op}: {what}; use a matching program")
            }
        }
    }
}

impl std::error::Error for Fatal {}
