//! What a running server tells about itself, and what a wrong set-up is told: with real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[path = "../support/free_port.rs"]
mod free_port;
mod full_disk;
mod metrics;
mod servers;
mod setups;
mod status;
