//! Getting data out: `florin cdc`, `export` and `balance`, against servers of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod cdc;
mod export;
mod server;
