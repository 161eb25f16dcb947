//! Consensus and the write-ahead log: replica, journal, superblock, sessions, views, repair.

pub mod fatal;
pub mod format;
pub mod journal;
pub mod journal_decision;
pub mod journal_recovery;
pub mod superblock;
pub mod superblock_zone;

pub use fatal::Fatal;
