//! Reports of running servers about themselves and about wrong set-ups, with real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod evictions;
#[path = "../support/free_port.rs"]
mod free_port;
mod full_disk;
mod metrics;
#[path = "../support/program.rs"]
mod program;
#[allow(dead_code, reason = "shared with the tests of clusters, which do more")]
#[path = "../cluster/proxy.rs"]
mod proxy;
mod servers;
mod setups;
mod states;
mod status;
mod trio;
