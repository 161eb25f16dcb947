//! Data file zones, grid, free set, log, index, manifest, block cache, jobs.

pub mod flush;
pub mod job;
pub mod merge;
