//! Where the write-ahead log lies: the slot of an op, requests for parts of the two rings, and the
//! bytes of the ring of redundant headers.
//!
//! Slot of an op: op modulo slots. Not covered: what is in the slots.

use zerocopy::{FromZeros, IntoBytes};

use super::fatal::{Fatal, JournalFault};
use crate::protocol::{Buffer, HEADER_SIZE, Header, SECTOR_SIZE, to_index, to_size};
use crate::storage::{Config, DiskDone, DiskKind, DiskOwner, DiskRequest, DiskToken, Zone, Zones};

/// Headers in one sector of the ring.
pub const HEADERS_PER_SECTOR: u32 = SECTOR_SIZE / HEADER_SIZE;

/// The mark of an empty slot in the headers ring: command 0, and the slot where a prepare has its
/// op, so that a misdirected mark is noticed.
#[must_use]
pub fn reserved_header(cluster: u128, slot: u32) -> Header {
    let mut header = Header::new_zeroed();
    header.frame.cluster = cluster;
    header.frame.size = HEADER_SIZE;
    header.command_part[64..72].copy_from_slice(&u64::from(slot).to_le_bytes());
    header.frame.checksum_body = crate::protocol::checksum::CHECKSUM_EMPTY;
    header.set_checksum();
    header
}

/// Where and how large the rings are.
#[derive(Clone, Copy, Debug)]
pub struct JournalGeometry {
    /// The file's zones.
    pub zones: Zones,
    /// Slots of each ring.
    pub slots: u32,
    /// Bytes of the largest prepare.
    pub message_size_max: u32,
    /// Ops on their way at most.
    pub pipeline_max: u32,
    /// Whose log it is.
    pub cluster: u128,
}

impl JournalGeometry {
    /// The geometry that follows from a configuration.
    #[must_use]
    pub fn new(config: &Config, cluster: u128) -> JournalGeometry {
        JournalGeometry {
            zones: Zones::new(config),
            slots: config.journal_slots,
            message_size_max: config.message_size_max,
            pipeline_max: config.pipeline_max,
            cluster,
        }
    }

    /// The slot of an op.
    ///
    /// # Panics
    ///
    /// Never: a remainder is below its divisor.
    #[must_use]
    pub fn slot(&self, op: u64) -> u32 {
        u32::try_from(op % u64::from(self.slots)).expect("below the number of slots")
    }

    /// Sectors of the headers ring.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        self.slots.div_ceil(HEADERS_PER_SECTOR)
    }

    /// A request for one sector of headers.
    ///
    /// # Panics
    ///
    /// If there is no such sector.
    #[must_use]
    pub fn header_request(&self, kind: DiskKind, sector: u32, buffer: Buffer) -> DiskRequest {
        assert!(sector < self.sectors());
        DiskRequest {
            token: DiskToken { owner: DiskOwner::JournalHeader, index: sector },
            kind,
            offset: self.zones.wal_header_offset(sector * HEADERS_PER_SECTOR),
            length: SECTOR_SIZE,
            buffer: Some(buffer),
            buffer_offset: 0,
        }
    }

    /// A request for the first `length` bytes of a slot of prepares.
    ///
    /// # Panics
    ///
    /// If the slot is shorter.
    #[must_use]
    pub fn prepare_request(
        &self,
        kind: DiskKind,
        slot: u32,
        length: u32,
        buffer: Buffer,
    ) -> DiskRequest {
        assert!(length <= self.message_size_max);
        DiskRequest {
            token: DiskToken { owner: DiskOwner::JournalPrepare, index: slot },
            kind,
            offset: self.zones.wal_prepare_offset(slot),
            length,
            buffer: Some(buffer),
            buffer_offset: 0,
        }
    }

    /// Damage of a prepare.
    #[must_use]
    pub fn prepare_fault(&self, op: u64, what: &'static str) -> Fatal {
        let slot = self.slot(op);
        let offset = self.zones.wal_prepare_offset(slot);
        Fatal::Journal(JournalFault { zone: Zone::WalPrepares, slot, op, offset, what })
    }

    /// An operation on the log that the device refused.
    #[must_use]
    pub fn disk_fault(&self, done: &DiskDone) -> Option<Fatal> {
        let error = done.result.err()?;
        let offset = done.request.offset;
        let (zone, _) = self.zones.locate(offset);
        Some(Fatal::JournalDisk { zone, offset, error })
    }
}

/// The bytes of one sector of the headers ring; zero past its last slot.
///
/// # Panics
///
/// If there is no such sector or `bytes` is none.
pub fn encode_sector(headers: &[Header], sector: u32, bytes: &mut [u8]) {
    assert!(bytes.len() == to_index(SECTOR_SIZE));
    let first = to_index(sector * HEADERS_PER_SECTOR);
    let end = headers.len().min(first + to_index(HEADERS_PER_SECTOR));
    let used = headers[first..end].as_bytes();
    assert!(to_size(used.len()) <= SECTOR_SIZE);
    bytes[..used.len()].copy_from_slice(used);
    bytes[used.len()..].fill(0);
}
