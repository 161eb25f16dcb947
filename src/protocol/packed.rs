//! How requests travel inside a prepare.

/// Size of the facts of one of several requests in a prepare, in bytes.
pub const PACKED_REQUEST_SIZE: u32 = 64;
