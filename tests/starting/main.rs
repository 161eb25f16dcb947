//! How a server starts, logs, tells its service manager, and ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[path = "../support/free_port.rs"]
mod free_port;
mod logs;
mod notifications;
mod refusals;
mod signals;
mod support;
