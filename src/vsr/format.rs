//! What must be written to make a fresh data file.
//!
//! A pure list of steps, to be done in order. The superblock's copies come last and one after
//! another: a file whose formatting was interrupted has no quorum of them, and is refused as such.
//! Not covered: creating the file, reserving its space and refusing to overwrite.

use zerocopy::IntoBytes;

use super::journal::reserved_header;
use super::superblock::{Genesis, Superblock};
use crate::protocol::{Header, PrepareHeader, SECTOR_SIZE, to_index};
use crate::storage::zones::SUPERBLOCK_COPIES;
use crate::storage::{Zone, Zones};

/// One step of making a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatStep {
    /// Make this range read as zeros.
    Zero {
        /// Where it begins in the file.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Write these bytes.
    Write {
        /// Where they begin in the file, a multiple of 4096.
        offset: u64,
        /// The bytes, a multiple of 4096.
        bytes: Vec<u8>,
    },
    /// Make all steps before this one durable.
    Sync,
}

/// The steps, in order. Afterwards the file is `Zones::file_size(0)` bytes long.
///
/// # Panics
///
/// If the geometry is not valid.
#[must_use]
pub fn format(genesis: &Genesis) -> Vec<FormatStep> {
    let zones = Zones::new(&genesis.config);
    let mut steps = vec![
        FormatStep::Zero { offset: 0, length: zones.start(Zone::Grid) },
        FormatStep::Write { offset: zones.wal_prepare_offset(0), bytes: root_sector(genesis) },
        FormatStep::Write { offset: zones.wal_header_offset(0), bytes: headers_ring(genesis) },
        FormatStep::Sync,
    ];
    let mut superblock = Superblock::genesis(genesis);
    for copy in 0..SUPERBLOCK_COPIES {
        superblock.copy = copy;
        let bytes = superblock.as_bytes().to_vec();
        steps.push(FormatStep::Write { offset: zones.superblock_offset(copy), bytes });
        steps.push(FormatStep::Sync);
    }
    steps
}

fn root_sector(genesis: &Genesis) -> Vec<u8> {
    let mut bytes = PrepareHeader::root(genesis.cluster).as_bytes().to_vec();
    bytes.resize(to_index(SECTOR_SIZE), 0);
    bytes
}

/// The whole ring of redundant headers: the root in slot 0, marks of emptiness in the others.
fn headers_ring(genesis: &Genesis) -> Vec<u8> {
    let root: Header = *PrepareHeader::root(genesis.cluster).header();
    let mut bytes = root.as_bytes().to_vec();
    for slot in 1..genesis.config.journal_slots {
        bytes.extend_from_slice(reserved_header(genesis.cluster, slot).as_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(to_index(SECTOR_SIZE)), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Config;

    /// Goal: steps are aligned, stay in their zones, and the superblocks come last, each durable
    /// before the next.
    #[test]
    fn order_and_alignment() {
        let config = Config::testing();
        let genesis =
            Genesis { cluster: 3, replica: 0, replica_count: 1, config, is_recovering: false };
        let zones = Zones::new(&config);
        let steps = format(&genesis);
        let mut superblocks = 0;
        let mut synced = true;
        for step in &steps {
            match step {
                FormatStep::Zero { offset, length } => {
                    assert_eq!(superblocks, 0);
                    assert!(offset + length <= zones.file_size(0));
                    synced = false;
                }
                FormatStep::Write { offset, bytes } => {
                    assert!(offset.is_multiple_of(4096));
                    assert!(bytes.len().is_multiple_of(4096));
                    if zones.locate(*offset).0 == Zone::Superblock {
                        assert!(synced, "everything before is durable");
                        assert_eq!(*offset, superblocks * 16_384);
                        superblocks += 1;
                    } else {
                        assert_eq!(superblocks, 0);
                    }
                    synced = false;
                }
                FormatStep::Sync => synced = true,
            }
        }
        assert_eq!(superblocks, 4);
        assert!(synced);
    }
}
