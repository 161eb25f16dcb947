//! The other world: reference model, and later the simulated cluster.
//!
//! * [`model`]: the reference model of the accounting semantics, the judge of the ledger.
//! * [`examples`]: the specification's worked examples and a runner for any state machine.
//! * [`batches`]: multi-batch bodies, written apart from the server's code.
//! * [`disk`]: a disk in memory with random order, faults and power loss.
//! * [`workload`]: seeded random requests that reach every status and every read.

pub mod batches;
pub mod disk;
pub mod examples;
pub mod model;
pub mod workload;
