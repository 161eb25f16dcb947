//! Equal bytes: checkpoints of one op are the same everywhere, and so are grids and logs at last.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, IntoBytes};

use super::Failure;
use super::history::History;
use crate::protocol::{HEADER_SIZE, PrepareHeader, checksum, to_index};
use crate::require;
use crate::simulator::disk::MemoryDisk;
use crate::storage::zones::SUPERBLOCK_COPIES;
use crate::storage::{Config, Zone, Zones};
use crate::vsr::Superblock;
use crate::vsr::superblock::COPY_SIZE;

/// What a checkpoint is told from others by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    /// Checksum of the last prepare.
    header: u128,
    /// Checksum of the root, which names all blocks with their checksums.
    root: u128,
    storage_size: u64,
}

/// The checkpoints so far.
#[derive(Debug, Default)]
pub struct Storage {
    checkpoints: BTreeMap<u64, Identity>,
}

impl Storage {
    /// None yet.
    #[must_use]
    pub fn new() -> Storage {
        Storage::default()
    }

    /// Checkpoints that some replica made.
    #[must_use]
    pub fn count(&self) -> usize {
        self.checkpoints.len()
    }

    /// Notes that a replica's superblock names this checkpoint.
    ///
    /// # Errors
    ///
    /// If others made another one of the same op, or history says otherwise.
    pub fn checkpoint(
        &mut self,
        replica: usize,
        superblock: &Superblock,
        history: &History,
    ) -> Result<(), Failure> {
        let op = superblock.checkpoint.op;
        let identity = Identity {
            header: superblock.checkpoint.frame.checksum,
            root: checksum(&superblock.root),
            storage_size: superblock.storage_size,
        };
        let Some(header) = history.header(op) else {
            let message = format!("replica {replica} has a checkpoint of op {op}, not committed");
            return Err(Failure::correctness(message));
        };
        require!(
            header.frame.checksum == identity.header,
            "replica {replica} has a checkpoint of another op {op}"
        );
        let known = *self.checkpoints.entry(op).or_insert(identity);
        require!(
            known == identity,
            "replica {replica} has checkpoint {op} as {identity:x?}, others as {known:x?}"
        );
        Ok(())
    }
}

/// Checks that the log of a replica is intact from its checkpoint to `head`, in both rings.
///
/// # Errors
///
/// The first op that is not.
///
/// # Panics
///
/// If an invariant of the simulator is broken.
pub fn check_log(
    replica: usize,
    disk: &MemoryDisk,
    config: &Config,
    ops: std::ops::RangeInclusive<u64>,
    history: &History,
) -> Result<(), Failure> {
    let zones = Zones::new(config);
    for op in ops {
        let slot = u32::try_from(op % u64::from(config.journal_slots)).expect("few slots");
        let expected = history.header(op).expect("a committed op");
        let prepare = disk.read(zones.wal_prepare_offset(slot), to_index(expected.frame.size));
        let (header, body) = prepare.split_at(to_index(HEADER_SIZE));
        require!(
            header == expected.as_bytes() && checksum(body) == expected.frame.checksum_body,
            "replica {replica}: the prepare of op {op} is not intact on disk"
        );
        let redundant = disk.read(zones.wal_header_offset(slot), to_index(HEADER_SIZE));
        let found = PrepareHeader::read_from_bytes(&redundant).expect("as long as a header");
        require!(
            redundant == expected.as_bytes(),
            "replica {replica}: the redundant header of op {op} is not intact on disk, but of op \
             {}",
            found.op
        );
    }
    Ok(())
}

/// Checks that all copies of a replica's superblock are the same.
///
/// # Errors
///
/// The first copy that differs.
pub fn check_superblock(replica: usize, disk: &MemoryDisk, config: &Config) -> Result<(), Failure> {
    let zones = Zones::new(config);
    let copy = |index: u32| {
        let mut bytes = disk.read(zones.superblock_offset(index), COPY_SIZE);
        bytes[16..20].fill(0);
        bytes
    };
    let first = copy(0);
    for index in 1..SUPERBLOCK_COPIES {
        require!(copy(index) == first, "replica {replica}: copy {index} of the superblock differs");
    }
    Ok(())
}

/// Checks that two replicas at the same op have the same bytes in the grid.
///
/// # Errors
///
/// Where they differ first.
///
/// # Panics
///
/// Never: a header is read as long as it is.
pub fn check_grids(
    replicas: (usize, usize),
    disks: (&MemoryDisk, &MemoryDisk),
    config: &Config,
) -> Result<(), Failure> {
    let start = Zones::new(config).start(Zone::Grid);
    if let Some(offset) = disks.0.first_difference(disks.1, start) {
        let address = (offset - start) / u64::from(config.block_size) + 1;
        let (left, right) = replicas;
        let header = |disk: &MemoryDisk| {
            let start = start + (address - 1) * u64::from(config.block_size);
            let bytes = disk.read(start, 256);
            let header = crate::storage::BlockHeader::read_from_bytes(&bytes);
            let header = header.expect("as long as a header");
            (header.sequence, header.kind, offset - start)
        };
        let message = format!(
            "replicas {left} and {right} differ in block {address}, of op, of kind, at: {:?}, {:?}",
            header(disks.0),
            header(disks.1)
        );
        return Err(Failure::correctness(message));
    }
    Ok(())
}
