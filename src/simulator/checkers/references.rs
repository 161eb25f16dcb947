//! Blocks in use: exactly those that the durable checkpoint refers to, each with one owner, and all
//! intact.

use super::Failure;
use crate::require;
use crate::simulator::disk::MemoryDisk;
use crate::storage::reachable::{SurveyFault, survey};
use crate::storage::{BlockRef, Zones, block};
use crate::vsr::Superblock;
use crate::vsr::ledger_machine::store_root;

/// Checks the checkpoint that a replica's superblock names, from nothing but its disk. Blocks that
/// are not needed may be damaged: the replica has gone on since, and of what it has released only a
/// start would read, and repair, anything.
///
/// # Errors
///
/// The first block that is damaged, or the first address whose owners are not those that the free
/// set of the checkpoint says.
///
/// # Panics
///
/// If the geometry is not that of the disk.
pub fn check_references(
    replica: usize,
    disk: &MemoryDisk,
    superblock: &Superblock,
    is_needed: impl Fn(u64) -> bool,
) -> Result<(), Failure> {
    let (op, config) = (superblock.checkpoint.op, &superblock.config);
    if op == 0 {
        return Ok(());
    }
    let zones = Zones::new(config);
    let fail =
        |what: String| Failure::correctness(format!("replica {replica}, checkpoint {op}: {what}"));
    let root = store_root(op, &superblock.checkpoint_root());
    let root = root.map_err(|fault| fail(fault.to_string()))?;
    let read = |block: &BlockRef, bytes: &mut [u8]| {
        let offset = zones.block_offset(block.address).ok_or("the address is none".to_owned())?;
        bytes.copy_from_slice(&disk.read(offset, bytes.len()));
        block::verify(bytes, block).map_err(|error| error.to_string())
    };
    let found = match survey(&root, config, |reached, bytes| read(&reached.block, bytes)) {
        Ok(found) => found,
        Err(SurveyFault::Block(reached, _)) if !is_needed(reached.block.address) => {
            return Ok(());
        }
        Err(fault) => return Err(fail(format!("{fault:?}"))),
    };
    let faults = found.claim_faults();
    require!(
        faults.is_empty(),
        "replica {replica}, checkpoint {op}: blocks with other owners than they should have: \
         {faults:?}"
    );
    let mut bytes = vec![0; crate::protocol::to_index(config.block_size)];
    for reached in &found.blocks {
        let result = read(&reached.block, &mut bytes);
        if let Err(error) = result
            && is_needed(reached.block.address)
        {
            return Err(fail(format!("{reached:?} is not intact: {error}")));
        }
    }
    Ok(())
}
