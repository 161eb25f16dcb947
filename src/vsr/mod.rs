//! Replica, journal, superblock, sessions, checkpoint.
