//! The block: header, per-sector checks, and the reference that identifies one.
//!
//! A block begins with a 256-byte header in the style of a message frame, so that it can be sent to
//! a peer as it lies. Its references carry the header's checksum, which covers the checksum of the
//! rest. In addition every 4 KiB sector ends with a crc32c seeded with the block's address, its
//! sequence and the sector's number, so that one sector can be read and trusted alone: neither a
//! misdirected nor a stale sector passes. Not covered: what the items of a block mean.

use std::fmt;

use aegis::aegis128x4::Aegis128X4;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::packing::{BLOCK_HEADER_SIZE, SECTOR_ITEMS_END};
use crate::protocol::{SECTOR_SIZE, checksum, to_index};

const HEADER: usize = to_index(BLOCK_HEADER_SIZE);
const SECTOR: usize = to_index(SECTOR_SIZE);
const ITEMS_END: usize = to_index(SECTOR_ITEMS_END);
/// The header's own checksum is not covered by itself.
const CHECKSUM_SIZE: usize = 16;
/// Number of the command "block" among the messages between replicas.
const COMMAND_BLOCK: u8 = 20;

/// Reference to a block: where it is, which write made it, and what it must contain. 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BlockRef {
    /// Address in the grid, from 1; 0 for no block.
    pub address: u64,
    /// The op that created the block; unique for the address.
    pub sequence: u64,
    /// Checksum of the block's header, which covers everything.
    pub checksum: u128,
}

static_assertions::const_assert_eq!(size_of::<BlockRef>(), 32);

impl BlockRef {
    /// No block: all zero.
    pub const NONE: BlockRef = BlockRef { address: 0, sequence: 0, checksum: 0 };

    /// Whether this refers to no block.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.address == 0
    }
}

/// What a block contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum BlockKind {
    /// Rows of the transfer log.
    Transfers = 1,
    /// Rows of the balance log.
    Balances = 2,
    /// Rows of the account log.
    Accounts = 3,
    /// Directory entries of the transfer log.
    TransfersDirectory = 4,
    /// Directory entries of the balance log.
    BalancesDirectory = 5,
    /// Directory entries of the account log.
    AccountsDirectory = 6,
    /// Entries of an index run.
    RunData = 7,
    /// Bucket offsets of an index run.
    RunDirectory = 8,
    /// References to the blocks of an index run.
    RunRoot = 9,
    /// Part of the state that a checkpoint writes as one sequence of bytes.
    Checkpoint = 10,
    /// References to the blocks of a checkpoint.
    CheckpointRoot = 11,
}

impl BlockKind {
    /// All kinds, with their names for people, in order of number.
    pub const ALL: [(BlockKind, &'static str); 11] = [
        (BlockKind::Transfers, "transfers"),
        (BlockKind::Balances, "balances"),
        (BlockKind::Accounts, "accounts"),
        (BlockKind::TransfersDirectory, "transfers directory"),
        (BlockKind::BalancesDirectory, "balances directory"),
        (BlockKind::AccountsDirectory, "accounts directory"),
        (BlockKind::RunData, "run entries"),
        (BlockKind::RunDirectory, "run directory"),
        (BlockKind::RunRoot, "run root"),
        (BlockKind::Checkpoint, "checkpoint"),
        (BlockKind::CheckpointRoot, "checkpoint index"),
    ];

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<BlockKind> {
        let known = BlockKind::ALL.iter().find(|(kind, _)| *kind as u8 == byte);
        known.map(|(kind, _)| *kind)
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        BlockKind::ALL[usize::from(self as u8) - 1].1
    }
}

/// First 256 bytes of a block; little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BlockHeader {
    /// Checksum of the header's other bytes.
    pub checksum: u128,
    /// Zero.
    pub checksum_padding: u128,
    /// Checksum of the block behind the header.
    pub checksum_body: u128,
    /// Zero.
    pub checksum_body_padding: u128,
    /// Zero.
    pub nonce: u128,
    /// Cluster that the block belongs to.
    pub cluster: u128,
    /// Bytes of the block with its header.
    pub size: u32,
    /// Zero.
    pub epoch: u32,
    /// Zero.
    pub view: u32,
    /// Zero.
    pub release: u32,
    /// Zero.
    pub protocol: u16,
    /// Always "block".
    pub command: u8,
    /// Zero.
    pub replica: u8,
    /// Zero.
    pub reserved_frame: [u8; 12],
    /// Address of the block.
    pub address: u64,
    /// The op that created the block.
    pub sequence: u64,
    /// Items in the block.
    pub item_count: u32,
    /// Bytes of an item.
    pub item_size: u32,
    /// A [`BlockKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 103],
}

static_assertions::const_assert_eq!(size_of::<BlockHeader>(), HEADER);

/// What is wrong with bytes that should be a certain block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The header does not have its own checksum: it is damaged.
    Header {
        /// Checksum computed from the header.
        computed: u128,
        /// Checksum found in the header.
        found: u128,
    },
    /// The header is whole, but that of another block.
    Other {
        /// Address and sequence wanted.
        expected: (u64, u64),
        /// Address and sequence found.
        found: (u64, u64),
    },
    /// The bytes behind the header are damaged.
    Body {
        /// Checksum computed from the bytes.
        computed: u128,
        /// Checksum found in the header.
        found: u128,
    },
    /// A sector is damaged, or belongs elsewhere, or is from another time.
    Sector {
        /// Number of the sector in the block.
        sector: u32,
        /// Check computed from the bytes and the wanted place.
        computed: u64,
        /// Check found at its end.
        found: u64,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::Header { computed, found } => {
                write!(formatter, "header checksum {found:032x}, computed {computed:032x}")
            }
            BlockError::Other { expected, found } => write!(
                formatter,
                "found block {} of op {} instead of block {} of op {}",
                found.0, found.1, expected.0, expected.1
            ),
            BlockError::Body { computed, found } => {
                write!(formatter, "body checksum {found:032x}, computed {computed:032x}")
            }
            BlockError::Sector { sector, computed, found } => {
                write!(formatter, "sector {sector} check {found:016x}, computed {computed:016x}")
            }
        }
    }
}

impl std::error::Error for BlockError {}

/// Facts that [`seal`] puts into the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// Cluster that the block belongs to.
    pub cluster: u128,
    /// Address in the grid, from 1.
    pub address: u64,
    /// The op that creates the block.
    pub sequence: u64,
    /// What it contains.
    pub kind: BlockKind,
    /// Bytes of an item.
    pub item_size: u32,
    /// Items in it.
    pub item_count: u32,
}

/// Completes a block whose items are in place and whose other bytes are zero: writes the check of
/// every sector and the header. Pure.
///
/// # Panics
///
/// If the address is 0 or the buffer is no whole number of sectors.
pub fn seal(buffer: &mut [u8], facts: &BlockFacts) -> BlockRef {
    assert!(facts.address > 0);
    assert!(buffer.len() >= SECTOR);
    assert!(buffer.len().is_multiple_of(SECTOR));
    for (sector, bytes) in (0..).zip(buffer.chunks_exact_mut(SECTOR)) {
        let check = sector_check(bytes, facts.address, facts.sequence, sector);
        bytes[ITEMS_END..].copy_from_slice(&check.to_le_bytes());
    }
    let (head, body) = buffer.split_at_mut(HEADER);
    let mut header = BlockHeader {
        checksum: 0,
        checksum_padding: 0,
        checksum_body: checksum_body(body),
        checksum_body_padding: 0,
        nonce: 0,
        cluster: facts.cluster,
        size: BLOCK_HEADER_SIZE + u32::try_from(body.len()).expect("a block is below 4 GiB"),
        epoch: 0,
        view: 0,
        release: 0,
        protocol: 0,
        command: COMMAND_BLOCK,
        replica: 0,
        reserved_frame: [0; 12],
        address: facts.address,
        sequence: facts.sequence,
        item_count: facts.item_count,
        item_size: facts.item_size,
        kind: facts.kind as u8,
        reserved: [0; 103],
    };
    header.checksum = checksum(&header.as_bytes()[CHECKSUM_SIZE..]);
    head.copy_from_slice(header.as_bytes());
    BlockRef { address: facts.address, sequence: facts.sequence, checksum: header.checksum }
}

/// The header of a block; its contents are as found.
///
/// # Panics
///
/// If there are fewer bytes than a header.
#[must_use]
pub fn header(buffer: &[u8]) -> BlockHeader {
    BlockHeader::read_from_bytes(&buffer[..HEADER]).expect("the size of a header")
}

/// Whether `buffer` is exactly the block that `block` refers to.
///
/// # Errors
///
/// What differs.
pub fn verify(buffer: &[u8], block: &BlockRef) -> Result<(), BlockError> {
    verify_header(buffer, block)?;
    let found = header(buffer).checksum_body;
    let computed = checksum_body(&buffer[HEADER..]);
    if computed == found { Ok(()) } else { Err(BlockError::Body { computed, found }) }
}

/// Whether `bytes`, 4096 of them, are exactly sector `sector` of the block that `block` refers to.
///
/// # Errors
///
/// What differs.
///
/// # Panics
///
/// If `bytes` is not one sector long.
pub fn verify_sector(bytes: &[u8], block: &BlockRef, sector: u32) -> Result<(), BlockError> {
    assert!(bytes.len() == SECTOR);
    if sector == 0 {
        verify_header(bytes, block)?;
    }
    let computed = sector_check(bytes, block.address, block.sequence, sector);
    let trailer = bytes[ITEMS_END..].try_into().expect("a trailer has 8 bytes");
    let found = u64::from_le_bytes(trailer);
    if computed == found { Ok(()) } else { Err(BlockError::Sector { sector, computed, found }) }
}

fn verify_header(buffer: &[u8], block: &BlockRef) -> Result<(), BlockError> {
    let computed = checksum(&buffer[CHECKSUM_SIZE..HEADER]);
    let header = header(buffer);
    if computed != header.checksum {
        return Err(BlockError::Header { computed, found: header.checksum });
    }
    if header.checksum != block.checksum {
        let expected = (block.address, block.sequence);
        return Err(BlockError::Other { expected, found: (header.address, header.sequence) });
    }
    Ok(())
}

/// The crc32c in the low half of the trailer; the high half is zero.
fn sector_check(bytes: &[u8], address: u64, sequence: u64, sector: u32) -> u64 {
    let mut seed = [0; 20];
    seed[..8].copy_from_slice(&address.to_le_bytes());
    seed[8..16].copy_from_slice(&sequence.to_le_bytes());
    seed[16..].copy_from_slice(&sector.to_le_bytes());
    // The header of sector 0 carries its own checksum, and is written after the checks.
    let start = if sector == 0 { HEADER } else { 0 };
    u64::from(crc32c::crc32c_append(crc32c::crc32c(&seed), &bytes[start..ITEMS_END]))
}

/// Checksum of what lies behind the header. Only replicas read it, never a client, so it can be the
/// wide variant of the cipher, which is four times as fast as the one of the messages.
fn checksum_body(body: &[u8]) -> u128 {
    let state = Aegis128X4::<16>::new(&[0; 16], &[0; 16]);
    u128::from_le_bytes(state.encrypt_in_place(&mut [], body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: BlockFacts = BlockFacts {
        cluster: 7,
        address: 3,
        sequence: 99,
        kind: BlockKind::Transfers,
        item_size: 128,
        item_count: 31,
    };

    fn sample(facts: &BlockFacts) -> (Vec<u8>, BlockRef) {
        let mut bytes = vec![0; 8192];
        for (index, byte) in (0_u8..=250).cycle().zip(&mut bytes) {
            *byte = index;
        }
        let block = seal(&mut bytes, facts);
        (bytes, block)
    }

    /// Goal: a sealed block verifies as a whole and by sector, and its header says what it is.
    #[test]
    fn sealed_verifies() {
        let (bytes, block) = sample(&FACTS);
        assert_eq!(verify(&bytes, &block), Ok(()));
        assert_eq!(verify_sector(&bytes[..4096], &block, 0), Ok(()));
        assert_eq!(verify_sector(&bytes[4096..], &block, 1), Ok(()));
        let header = header(&bytes);
        assert_eq!((header.size, header.item_count, header.item_size), (8192, 31, 128));
        assert_eq!((header.address, header.sequence, header.cluster), (3, 99, 7));
        assert_eq!(header.kind, BlockKind::Transfers as u8);
        assert_eq!(&bytes[4092..4096], [0; 4]);
    }

    /// Goal: any flipped byte is found by the whole check, and by that of its sector.
    #[test]
    fn flips_are_found() {
        let (mut bytes, block) = sample(&FACTS);
        for index in 0..bytes.len() {
            bytes[index] ^= 0x10;
            assert!(verify(&bytes, &block).is_err(), "byte {index}");
            let sector = index / SECTOR;
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            let number = u32::try_from(sector).unwrap();
            assert!(verify_sector(&bytes[range], &block, number).is_err(), "byte {index}");
            bytes[index] ^= 0x10;
        }
        assert_eq!(verify(&bytes, &block), Ok(()));
    }

    /// Goal: a whole sector of another block, another sector, or an older write is refused.
    #[test]
    fn misdirected_and_stale_are_found() {
        let (bytes, block) = sample(&FACTS);
        let (moved, moved_ref) = sample(&BlockFacts { address: 4, ..FACTS });
        let (older, older_ref) = sample(&BlockFacts { sequence: 98, ..FACTS });
        for (wrong, reference) in [(&moved, moved_ref), (&older, older_ref)] {
            assert_eq!(verify(wrong, &reference), Ok(()));
            assert!(matches!(verify(wrong, &block), Err(BlockError::Other { .. })));
            assert!(matches!(
                verify_sector(&wrong[..4096], &block, 0),
                Err(BlockError::Other { .. })
            ));
            assert!(matches!(
                verify_sector(&wrong[4096..], &block, 1),
                Err(BlockError::Sector { sector: 1, .. })
            ));
        }
        assert!(verify_sector(&bytes[4096..], &block, 2).is_err());
        assert!(verify_sector(&bytes[4096..], &block, 0).is_err());
        assert!(verify(&[0; 8192], &block).is_err());
    }

    /// Goal: errors tell the facts.
    #[test]
    fn errors_display() {
        let error = BlockError::Other { expected: (3, 99), found: (4, 98) };
        assert_eq!(error.to_string(), "found block 4 of op 98 instead of block 3 of op 99");
        let error = BlockError::Sector { sector: 1, computed: 1, found: 2 };
        assert_eq!(error.to_string(), "sector 1 check 0000000000000002, computed 0000000000000001");
    }
}
