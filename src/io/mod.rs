//! The real world: `io_uring` event loop, data file, message bus, clock, allocator, worker.
//!
//! Everything the core must not touch is here: descriptors, threads, time, the process's memory.
//! The core states what it wants in its outbox; [`server`] drains it into [`ring`], [`bus`] and
//! [`worker`] and hands back what happened. Not covered: any decision about the ledger's content.

pub mod about;
pub mod address;
pub mod allocator;
pub mod batch;
pub mod bus;
pub mod clock;
pub mod cluster_report;
pub mod complaint;
pub mod ending_log;
pub mod file;
mod file_watch;
pub mod framing;
mod growth;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod notify;
mod opening_report;
pub mod peers;
pub mod readiness_log;
pub mod resolver;
pub mod ring;
pub mod server;
pub mod signals;
pub mod socket;
pub mod standard_error;
pub mod storage_warning;
pub mod system;
pub mod twins;
pub mod worker;

#[cfg(test)]
mod end_to_end_tests;
#[cfg(test)]
mod test_faults;
