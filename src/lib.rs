//! Florin: a double-entry ledger as a database.
//!
//! Dependencies point one way: `protocol` ← `storage` ← `ledger` ← `vsr` ← the worlds (`io`,
//! `simulator`) ← `client` ← `repl` ← `cli`. The first four are the core: deterministic and without
//! a socket, a file, a thread or a clock of their own. `docs/ARCHITECTURE.md` is the map.

#[cfg(not(target_endian = "little"))]
compile_error!("Florin's wire and disk formats are little-endian, and so must be the machine");

pub mod cli;
pub mod client;
pub mod io;
pub mod ledger;
pub mod protocol;
pub mod repl;
pub mod simulator;
pub mod storage;
pub mod vsr;

pub use client::id::id;
