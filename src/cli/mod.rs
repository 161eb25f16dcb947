//! The command line: one file per subcommand.

pub mod benchmark;
pub mod exit;
pub mod size;
