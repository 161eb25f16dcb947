//! Where the zones of the data file lie: superblock, write-ahead log, grid.
//!
//! All offsets follow from the [`Config`]. The grid is the last zone and the only one that grows.

use std::fmt;

use super::config::Config;
use crate::protocol::SECTOR_SIZE;

/// Copies of the superblock.
pub const SUPERBLOCK_COPIES: u32 = 4;
/// Bytes reserved for each copy of the superblock.
pub const SUPERBLOCK_COPY_SIZE: u32 = 16 * 1024;
/// Bytes of one prepare header in the ring of redundant headers.
pub const WAL_HEADER_SIZE: u32 = 256;

/// A part of the data file, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Zone {
    /// Four copies of the root of everything.
    Superblock,
    /// Ring of redundant copies of prepare headers.
    WalHeaders,
    /// Ring of prepares.
    WalPrepares,
    /// Blocks, from address 1.
    Grid,
}

impl Zone {
    /// All zones in file order.
    pub const ALL: [Zone; 4] = [Zone::Superblock, Zone::WalHeaders, Zone::WalPrepares, Zone::Grid];
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Zone::Superblock => "superblock",
            Zone::WalHeaders => "WAL headers",
            Zone::WalPrepares => "WAL prepares",
            Zone::Grid => "grid",
        })
    }
}

/// Offsets of the zones of one data file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zones {
    wal_headers: u64,
    wal_prepares: u64,
    grid: u64,
    wal_headers_size: u64,
    wal_prepares_size: u64,
    block_size: u32,
    message_size_max: u32,
    journal_slots: u32,
}

impl Zones {
    /// Layout of a data file with this configuration.
    ///
    /// # Panics
    ///
    /// If the configuration is not valid.
    #[must_use]
    pub fn new(config: &Config) -> Zones {
        assert!(config.validate().is_ok(), "the configuration was validated");
        let slots = u64::from(config.journal_slots);
        let sector = u64::from(SECTOR_SIZE);
        let wal_headers = u64::from(SUPERBLOCK_COPIES) * u64::from(SUPERBLOCK_COPY_SIZE);
        let wal_headers_size = (slots * u64::from(WAL_HEADER_SIZE)).next_multiple_of(sector);
        let wal_prepares = wal_headers + wal_headers_size;
        let wal_prepares_size = slots * u64::from(config.message_size_max);
        let grid =
            (wal_prepares + wal_prepares_size).next_multiple_of(u64::from(config.block_size));
        assert!(grid.is_multiple_of(sector));
        Zones {
            wal_headers,
            wal_prepares,
            grid,
            wal_headers_size,
            wal_prepares_size,
            block_size: config.block_size,
            message_size_max: config.message_size_max,
            journal_slots: config.journal_slots,
        }
    }

    /// Offset of the first byte of `zone`.
    #[must_use]
    pub fn start(&self, zone: Zone) -> u64 {
        match zone {
            Zone::Superblock => 0,
            Zone::WalHeaders => self.wal_headers,
            Zone::WalPrepares => self.wal_prepares,
            Zone::Grid => self.grid,
        }
    }

    /// Bytes in `zone`; `None` for the grid, which grows.
    #[must_use]
    pub fn size(&self, zone: Zone) -> Option<u64> {
        match zone {
            Zone::Superblock => Some(self.wal_headers),
            Zone::WalHeaders => Some(self.wal_headers_size),
            Zone::WalPrepares => Some(self.wal_prepares_size),
            Zone::Grid => None,
        }
    }

    /// The zone that `offset` in the file belongs to, and the offset in that zone. Padding before
    /// the grid counts to the zone before.
    #[must_use]
    pub fn locate(&self, offset: u64) -> (Zone, u64) {
        let mut found = (Zone::Superblock, offset);
        for zone in Zone::ALL {
            if offset >= self.start(zone) {
                found = (zone, offset - self.start(zone));
            }
        }
        found
    }

    /// Offset in the file of a copy of the superblock.
    ///
    /// # Panics
    ///
    /// If there is no such copy.
    #[must_use]
    pub fn superblock_offset(&self, copy: u32) -> u64 {
        assert!(copy < SUPERBLOCK_COPIES);
        u64::from(copy) * u64::from(SUPERBLOCK_COPY_SIZE)
    }

    /// Offset in the file of the redundant header of `slot`; the sector to write begins at the
    /// multiple of 4096 below.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn wal_header_offset(&self, slot: u32) -> u64 {
        assert!(slot < self.journal_slots);
        self.wal_headers + u64::from(slot) * u64::from(WAL_HEADER_SIZE)
    }

    /// Offset in the file of the prepare of `slot`.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn wal_prepare_offset(&self, slot: u32) -> u64 {
        assert!(slot < self.journal_slots);
        self.wal_prepares + u64::from(slot) * u64::from(self.message_size_max)
    }

    /// Offset in the file of the block at `address`; `None` if no file can be that large or the
    /// address is 0.
    #[must_use]
    pub fn block_offset(&self, address: u64) -> Option<u64> {
        let before = address.checked_sub(1)?.checked_mul(u64::from(self.block_size))?;
        let offset = self.grid.checked_add(before)?;
        // Offsets of files are signed for the system.
        let end = offset.checked_add(u64::from(self.block_size))?;
        if i64::try_from(end).is_ok() { Some(offset) } else { None }
    }

    /// Bytes of a data file whose grid reaches up to and including `address_max` (0: no block).
    ///
    /// # Panics
    ///
    /// If no file can be that large.
    #[must_use]
    pub fn file_size(&self, address_max: u64) -> u64 {
        if address_max == 0 {
            return self.grid;
        }
        let offset = self.block_offset(address_max).expect("an acquired address is in range");
        offset + u64::from(self.block_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: zones are aligned, in order and do not overlap, for all configurations.
    #[test]
    fn disjoint() {
        for config in [Config::production(), Config::development(), Config::testing()] {
            let zones = Zones::new(&config);
            for pair in Zone::ALL.windows(2) {
                let end = zones.start(pair[0]) + zones.size(pair[0]).unwrap();
                assert!(end <= zones.start(pair[1]), "{} overlaps {}", pair[0], pair[1]);
            }
            for zone in Zone::ALL {
                let start = zones.start(zone);
                assert!(start.is_multiple_of(4096));
                assert_eq!(zones.locate(start), (zone, 0));
                assert_eq!(zones.locate(start + 4095), (zone, 4095));
            }
            let last = config.journal_slots - 1;
            assert_eq!(zones.locate(zones.wal_prepare_offset(last)).0, Zone::WalPrepares);
            assert_eq!(zones.locate(zones.wal_header_offset(last)).0, Zone::WalHeaders);
            assert_eq!(zones.locate(zones.superblock_offset(3)).0, Zone::Superblock);
            assert!(zones.start(Zone::Grid).is_multiple_of(u64::from(config.block_size)));
        }
    }

    /// Goal: block addresses start at 1, and nonsense from disk gives `None`.
    #[test]
    fn block_offsets() {
        let config = Config::testing();
        let zones = Zones::new(&config);
        let start = zones.start(Zone::Grid);
        assert_eq!(zones.block_offset(1), Some(start));
        assert_eq!(zones.block_offset(3), Some(start + 2 * u64::from(config.block_size)));
        assert_eq!(zones.block_offset(0), None);
        assert_eq!(zones.block_offset(u64::MAX), None);
        assert_eq!(zones.block_offset(u64::MAX / u64::from(config.block_size)), None);
        assert_eq!(zones.file_size(0), start);
        assert_eq!(zones.file_size(2), start + 2 * u64::from(config.block_size));
    }
}
