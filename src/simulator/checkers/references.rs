//! Blocks in use: exactly those that the durable checkpoint refers to, each with one owner.

use super::Failure;
use crate::require;
use crate::simulator::disk::MemoryDisk;
use crate::storage::reachable::survey;
use crate::storage::{Config, Zones, block};
use crate::vsr::Superblock;
use crate::vsr::ledger_machine::store_root;

/// Checks the checkpoint that a replica's superblock names, from nothing but its disk.
///
/// # Errors
///
/// The first block that is damaged where others are named, or the first address whose owners are
/// not those that the free set says.
pub fn check_references(
    replica: usize,
    disk: &MemoryDisk,
    config: &Config,
    superblock: &Superblock,
) -> Result<(), Failure> {
    let op = superblock.checkpoint.op;
    if op == 0 {
        return Ok(());
    }
    let zones = Zones::new(config);
    let fail =
        |what: String| Failure::correctness(format!("replica {replica}, checkpoint {op}: {what}"));
    let root = store_root(op, &superblock.checkpoint_root());
    let root = root.map_err(|fault| fail(fault.to_string()))?;
    let found = survey(&root, config, |reached, bytes| {
        let address = reached.block.address;
        let offset = zones.block_offset(address).ok_or("the address is none".to_owned())?;
        bytes.copy_from_slice(&disk.read(offset, bytes.len()));
        block::verify(bytes, &reached.block).map_err(|error| error.to_string())
    });
    let found = found.map_err(|fault| fail(format!("{fault:?}")))?;
    let faults = found.claim_faults();
    require!(
        faults.is_empty(),
        "replica {replica}, checkpoint {op}: blocks with other owners than they should have: \
         {faults:?}"
    );
    Ok(())
}
