//! The other world: a simulated cluster in one thread, from one seed, and the judges of it.
//!
//! The cluster runs the production code of replicas, ledger and client sessions:
//!
//! * [`swarm`]: what a seed draws; [`run`]: the phases of a run; [`cluster`]: machines, clients and
//!   network together, one event after the other.
//! * [`process`], [`disk`], [`clocks`], [`network`], [`clients`], [`events`], [`random`]: parts.
//! * [`faults`], [`injector`], [`atlas`]: what goes wrong, when, and what may.
//! * [`checkers`], [`trace`]: what must hold, and what happened; [`performance`]: how fast.
//!
//! Judges of the ledger alone:
//!
//! * [`model`]: the reference model of the accounting semantics, the judge of the ledger.
//! * [`examples`]: the specification's worked examples and a runner for any state machine.
//! * [`batches`]: multi-batch bodies, written apart from the server's code.
//! * [`workload`]: seeded random requests that reach every status and every read.

pub mod atlas;
pub mod batches;
pub mod checkers;
pub mod clients;
pub mod clocks;
pub mod cluster;
pub mod disk;
mod disk_faults;
pub mod events;
pub mod examples;
pub mod faults;
mod injector;
pub mod model;
pub mod network;
pub mod performance;
pub mod process;
pub mod random;
pub mod run;
pub mod swarm;
pub mod trace;
pub mod workload;
