//! What travels and is stored: headers, commands, checksum, multi-batch, record types.
//!
//! Covers every byte that a client and a server exchange (frames, sessions' register and eviction,
//! operations, multi-batch bodies, the ledger's records and statuses), our own prepare frame with
//! its packed requests, and the pooled memory all of them live in. Does not cover sockets, the
//! session rules (which request is next, which is too old) or what an operation does.

pub mod about;
pub mod buffer;
pub mod checksum;
pub mod client_id;
pub mod command;
pub mod eviction;
pub mod header;
pub mod huge_pages;
pub mod marks;
pub mod message;
pub mod multi_batch;
pub mod mutations;
pub mod names;
pub mod operation;
pub mod packed;
pub mod peer;
pub mod prepare;
pub mod release;
pub mod status;
pub mod types;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod header_tests;

pub use buffer::{AlignedMemory, Buffer, Pool};
pub use checksum::checksum;
pub use command::Command;
pub use eviction::EvictionReason;
pub use header::{
    EvictionHeader, Frame, HEADER_SIZE, Header, HeaderError, PingClientHeader, PongClientHeader,
    ReplyHeader, RequestHeader,
};
pub use message::Message;
pub use multi_batch::{MultiBatch, MultiBatchError, MultiBatchWriter};
pub use operation::{BodyError, OPERATION_PACKED, Operation, body_valid};
pub use packed::{PackedError, PackedRequest, PackedWriter, RequestView, Requests};
pub use peer::PeerHeader;
pub use prepare::{PrepareFacts, PrepareHeader};
pub use release::Release;

/// Largest message, header and body, in bytes.
pub const MESSAGE_SIZE_MAX: u32 = 1024 * 1024;
/// Largest message body in bytes.
pub const BODY_SIZE_MAX: u32 = MESSAGE_SIZE_MAX - HEADER_SIZE;
/// Sessions a cluster keeps at a time.
pub const CLIENTS_MAX: u32 = 64;
/// Replicas a cluster can have: a client refuses a longer list of addresses.
pub const REPLICAS_MAX: u8 = 6;
/// Standbys a cluster can have: they follow and do not vote.
pub const STANDBYS_MAX: u8 = 6;
/// Replicas and standbys together at most.
pub const NODES_MAX: u8 = REPLICAS_MAX + STANDBYS_MAX;
/// Unit of alignment of every buffer in bytes.
pub const SECTOR_SIZE: u32 = 4096;

static_assertions::const_assert!(size_of::<usize>() >= size_of::<u32>());
static_assertions::const_assert_eq!(BODY_SIZE_MAX, 1_048_320);

/// A 32-bit size or count as an index: never loses, as the assertion above proves.
#[must_use]
pub const fn to_index(value: u32) -> usize {
    value as usize
}

/// A length known to stay below 4 GiB as a 32-bit size.
///
/// # Panics
///
/// If the length does not fit: sizes of that order do not occur in any message.
#[must_use]
pub fn to_size(length: usize) -> u32 {
    u32::try_from(length).expect("lengths within a message fit 32 bits")
}

/// The next multiple of `unit` that is not smaller than `value`; both in bytes.
///
/// # Panics
///
/// If the unit is zero.
#[must_use]
pub const fn round_up(value: u32, unit: u32) -> u32 {
    assert!(unit > 0);
    value.div_ceil(unit) * unit
}
