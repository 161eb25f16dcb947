//! A data file to look at: its superblock, zones, blocks and checkpoint, read and verified.
//!
//! Opened for reading alone, and locked like by a server, so that nothing changes meanwhile.
//! Whatever is wrong with what was asked for is a failure with zone and offset; who wants to go on
//! after damage (`integrity`) uses the errors of the single reads.

use std::fmt;
use std::path::Path;

use crate::cli::exit::{ExitClass, Failure};
use crate::io::file::{DataFile, FileError};
use crate::protocol::{AlignedMemory, SECTOR_SIZE, to_index};
use crate::storage::checkpoint::{CheckpointRoot, append_part};
use crate::storage::decode::DecodeError;
use crate::storage::image::CheckpointImage;
use crate::storage::reachable::{CheckpointWalk, Reached};
use crate::storage::{BlockError, BlockRef, Config, Zone, Zones, block, count_of};
use crate::vsr::Superblock;
use crate::vsr::journal_geometry::JournalGeometry;
use crate::vsr::ledger_machine::store_root;

/// A data file with a superblock that can be believed.
#[derive(Debug)]
pub struct Inspected {
    /// The file.
    pub file: DataFile,
    /// The superblock to believe.
    pub superblock: Box<Superblock>,
    /// Where its zones lie.
    pub zones: Zones,
}

/// What is wrong with a block.
#[derive(Debug)]
pub enum BlockProblem {
    /// No file can have this address.
    Address,
    /// The file ends before.
    Beyond,
    /// The system cannot read it.
    Unreadable(FileError),
    /// It is damaged, or another block.
    Damaged(BlockError),
    /// It is intact, and not what its owner counts on.
    Unexpected(DecodeError),
}

impl fmt::Display for BlockProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockProblem::Address => write!(formatter, "no such address"),
            BlockProblem::Beyond => write!(formatter, "the file ends before it"),
            BlockProblem::Unreadable(error) => write!(formatter, "{error}"),
            BlockProblem::Damaged(error) => write!(formatter, "{error}"),
            BlockProblem::Unexpected(error) => write!(formatter, "{error}"),
        }
    }
}

/// The checkpoint of a data file.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its root.
    pub root: CheckpointRoot,
    /// Everything that the root names.
    pub blob: Vec<u8>,
}

impl Inspected {
    /// Opens a data file for reading.
    ///
    /// # Errors
    ///
    /// If it is missing, in use, shorter than its zones, or without a superblock to believe.
    pub fn open(path: &Path) -> Result<Inspected, Failure> {
        let file = DataFile::open_to_inspect(path)?;
        let superblock = file.superblock()?;
        let zones = Zones::new(&superblock.config);
        let (size, size_min) = (file.size(), zones.file_size(0));
        if size < size_min {
            let path = path.display();
            let message = format!("{path} has {size} bytes and must have {size_min}: truncated");
            return Err(Failure::new(ExitClass::DataFile, message));
        }
        Ok(Inspected { file, superblock, zones })
    }

    /// The geometry.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.superblock.config
    }

    /// Where the log lies.
    #[must_use]
    pub fn journal(&self) -> JournalGeometry {
        JournalGeometry::new(self.config(), self.superblock.cluster)
    }

    /// Memory for a block.
    #[must_use]
    pub fn block_memory(&self) -> AlignedMemory {
        AlignedMemory::new(to_index(self.config().block_size))
    }

    /// Reads a block, whatever it is.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read_address(
        &self,
        address: u64,
        memory: &mut AlignedMemory,
    ) -> Result<(), BlockProblem> {
        let size = self.config().block_size;
        let offset = self.zones.block_offset(address).ok_or(BlockProblem::Address)?;
        if offset + u64::from(size) > self.file.size() {
            return Err(BlockProblem::Beyond);
        }
        self.file.read_into(offset, size, memory).map_err(BlockProblem::Unreadable)
    }

    /// Reads and verifies a block and each of its sectors.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read_block(
        &self,
        reference: &BlockRef,
        memory: &mut AlignedMemory,
    ) -> Result<(), BlockProblem> {
        self.read_address(reference.address, memory)?;
        // Sectors first: they tell where in the block it is damaged.
        for (sector, bytes) in (0..).zip(memory.chunks_exact(to_index(SECTOR_SIZE))) {
            block::verify_sector(bytes, reference, sector).map_err(BlockProblem::Damaged)?;
        }
        block::verify(memory, reference).map_err(BlockProblem::Damaged)?;
        if block::header(memory).cluster != self.superblock.cluster {
            let what = DecodeError::Value {
                what: "the block's cluster",
                found: 0,
                expected: "that of the file",
            };
            return Err(BlockProblem::Unexpected(what));
        }
        Ok(())
    }

    /// Reads and verifies a block that is to be what its owner counts on.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read_reached(
        &self,
        reached: &Reached,
        memory: &mut AlignedMemory,
    ) -> Result<(), BlockProblem> {
        self.read_block(&reached.block, memory)?;
        reached.check(&block::header(memory)).map_err(BlockProblem::Unexpected)
    }

    /// Damage at an offset of the file, as a failure.
    #[must_use]
    pub fn damage(&self, offset: u64, what: &dyn fmt::Display) -> Failure {
        let (zone, _) = self.zones.locate(offset);
        let path = self.file.path().display();
        let message = format!("{path}: zone {zone}, file offset {offset}: {what}");
        Failure::new(ExitClass::Corruption, message)
    }

    /// Damage of a block, as a failure.
    #[must_use]
    pub fn block_damage(&self, address: u64, what: &dyn fmt::Display) -> Failure {
        let offset = self.zones.block_offset(address).unwrap_or(self.zones.start(Zone::Grid));
        self.damage(offset, &format!("block {address}: {what}"))
    }

    /// The root of the checkpoint; none before the first.
    ///
    /// # Errors
    ///
    /// If the superblock's root makes no sense.
    pub fn root(&self) -> Result<Option<CheckpointRoot>, Failure> {
        let superblock = &self.superblock;
        let op = superblock.checkpoint.op;
        if op == 0 {
            return Ok(None);
        }
        let root = store_root(op, &superblock.checkpoint_root());
        let root = root.map_err(|fault| self.damage(0, &format!("checkpoint {op}: {fault}")))?;
        Ok(Some(root).filter(|root| !root.is_empty()))
    }

    /// Reads the checkpoint's blob; none before the first checkpoint.
    ///
    /// # Errors
    ///
    /// If a block of it is damaged, or the root makes no sense.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, Failure> {
        let Some(root) = self.root()? else { return Ok(None) };
        let mut walk = CheckpointWalk::new(&root, self.config());
        let (mut index, mut memory) = (self.block_memory(), self.block_memory());
        let mut blob = Vec::new();
        loop {
            let parent = walk.parent().map(|_| &index[..]);
            let next = walk.next(None, parent);
            let next = next.map_err(|error| self.block_damage(root.index.address, &error))?;
            let Some(reached) = next else { break };
            self.read_reached(&reached, &mut memory)
                .map_err(|problem| self.block_damage(reached.block.address, &problem))?;
            if reached.block == root.index {
                std::mem::swap(&mut index, &mut memory);
            } else {
                append_part(self.config().block_size, &memory, root.blob_size, &mut blob);
            }
        }
        if count_of(blob.len()) != root.blob_size {
            return Err(self.block_damage(root.index.address, &"names too few blocks"));
        }
        Ok(Some(Checkpoint { root, blob }))
    }

    /// The parts of a checkpoint.
    ///
    /// # Errors
    ///
    /// If they make no sense.
    pub fn image<'a>(&self, checkpoint: &'a Checkpoint) -> Result<CheckpointImage<'a>, Failure> {
        let address = checkpoint.root.index.address;
        CheckpointImage::decode(&checkpoint.blob, self.config())
            .map_err(|error| self.block_damage(address, &error))
    }
}
