//! Data file zones, grid, free set, log, index, manifest, block cache, jobs.

pub mod block;
pub mod checkpoint;
pub mod config;
pub mod decode;
pub mod directory;
pub mod disk;
pub mod fetch;
pub mod filter;
pub mod find;
pub mod flush;
pub mod free_set;
pub mod grid;
pub mod grid_repair;
pub mod hash;
pub mod image;
pub mod index_check;
pub mod indexing;
pub mod job;
pub mod log;
pub mod lookup;
mod manifest;
pub mod memtable;
pub mod merge;
mod pace;
pub mod packed_rows;
pub mod packing;
pub mod page_cache;
pub mod persistence;
pub mod prefetch;
pub mod queue;
pub mod reachable;
pub mod report;
pub mod ring;
pub mod room;
pub mod rows;
pub mod run;
pub mod scan;
pub mod scanning;
pub mod store;
#[cfg(test)]
mod store_tests;
pub mod table;
mod task;
pub mod walk;
pub mod zones;

pub use block::{BlockError, BlockHeader, BlockKind, BlockRef};
pub use config::{Config, ConfigError};
pub use decode::DecodeError;
pub use disk::{DiskDone, DiskError, DiskKind, DiskOwner, DiskRequest, DiskToken, StorageOutbox};
pub use fetch::Fetch;
pub use free_set::FreeSet;
pub use grid::{BlockReadId, Grid, GridCounters, GridFault, GridFaultKind, GridOptions};
pub use job::Job;
pub use log::{Log, LogOptions};
pub use packing::{Location, Packing};
pub use queue::Queue;
pub use report::{StoreReport, TableReport};
pub use room::{Room, StorageUse};
pub use zones::{Zone, Zones};

static_assertions::const_assert_eq!(size_of::<usize>(), size_of::<u64>());

/// A 64-bit count as an index: never loses, as the assertion above proves.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "usize is as wide as u64, asserted above")]
pub const fn index_of(value: u64) -> usize {
    value as usize
}

/// A length or index in memory as a 64-bit count: never loses.
#[must_use]
pub const fn count_of(value: usize) -> u64 {
    value as u64
}
