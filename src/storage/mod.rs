//! Data file zones, grid, free set, log, index, manifest, block cache, jobs.
