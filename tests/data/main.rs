//! Getting data out: `florin cdc`, `export` and `balance`, against servers of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod answers;
mod balances;
mod cdc;
mod export;
#[path = "../support/free_port.rs"]
mod free_port;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/serve_dev.rs"]
mod serve_dev;
mod server;
