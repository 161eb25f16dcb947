//! The rows of a data file, in the order of its logs.
//!
//! Rows of the checkpoint are read block by block, with the code of a replica, and every block is
//! verified. Later rows are only in the write-ahead log, as requests. `replay.rs` executes the log
//! of a cluster of one, which gives the later rows. The log of a larger cluster's replica is not
//! read, since the other replicas decide which of its ops are committed;
//! [`DataFileSource::newer_ops`] counts them.

use std::path::Path;

use zerocopy::FromBytes;

use super::event::Event;
use super::replay::Replayed;
use crate::cli::exit::Failure;
use crate::cli::inspect::file::{Checkpoint, Inspected};
use crate::cli::inspect::wal::WalReader;
use crate::protocol::types::{Account, Transfer};
use crate::protocol::{AlignedMemory, to_size};
use crate::storage::image::CheckpointImage;
use crate::storage::reachable::{CheckpointWalk, Owner};
use crate::storage::{BlockRef, Packing};

/// Index of each log.
const TRANSFERS: usize = 0;
const ACCOUNTS: usize = 2;

/// A data file with its checkpoint.
#[derive(Debug)]
pub struct DataFileSource {
    inspected: Inspected,
    /// `None` before the first checkpoint.
    checkpoint: Option<Checkpoint>,
    /// The rows since the checkpoint, in a cluster of one.
    replayed: Option<Replayed>,
}

impl DataFileSource {
    /// Opens a data file for reading only.
    ///
    /// # Errors
    ///
    /// If the file is missing or in use, its superblock or checkpoint is damaged, or the log of a
    /// cluster of one cannot be executed.
    pub fn open(path: &Path) -> Result<DataFileSource, Failure> {
        let inspected = Inspected::open(path)?;
        let checkpoint = inspected.checkpoint()?;
        let is_alone = inspected.superblock.replica_count == 1 && inspected.superblock.replica == 0;
        let replayed = if is_alone { Some(Replayed::new(&inspected)?) } else { None };
        Ok(DataFileSource { inspected, checkpoint, replayed })
    }

    /// Returns the op of the checkpoint; zero before the first.
    #[must_use]
    pub fn checkpoint_op(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.root.op)
    }

    /// Returns the number of ops in the write-ahead log that are in none of the rows.
    ///
    /// # Errors
    ///
    /// If the system cannot read the file.
    pub fn newer_ops(&self) -> Result<u64, Failure> {
        if self.replayed.is_some() {
            return Ok(0);
        }
        let checkpoint = self.inspected.superblock.checkpoint.op;
        let mut reader = WalReader::new(&self.inspected)?;
        let mut newest = checkpoint;
        for slot in 0..reader.slots() {
            if let Some(header) = reader.slot(slot)?.known() {
                newest = newest.max(header.op);
            }
        }
        Ok(newest - checkpoint)
    }

    /// Returns the number of rows of events, and of accounts.
    ///
    /// # Errors
    ///
    /// If the checkpoint is not valid.
    pub fn row_counts(&self) -> Result<(u64, u64), Failure> {
        match &self.replayed {
            Some(replayed) => Ok(replayed.row_counts()),
            None => self.checkpoint_rows(),
        }
    }

    fn checkpoint_rows(&self) -> Result<(u64, u64), Failure> {
        let Some(checkpoint) = &self.checkpoint else { return Ok((0, 0)) };
        let image = self.inspected.image(checkpoint)?;
        Ok((image.logs[TRANSFERS].rows, image.logs[ACCOUNTS].rows))
    }

    /// Visits all events in the order of their execution; orphaned ids are skipped.
    ///
    /// # Errors
    ///
    /// If a block is damaged, or the visitor fails.
    ///
    /// # Panics
    ///
    /// Never: rows have their size.
    pub fn events(
        &mut self,
        visit: &mut dyn FnMut(&Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if let Some(checkpoint) = &self.checkpoint {
            let image = self.inspected.image(checkpoint)?;
            let mut rows = LogRows::<128>::new(self, checkpoint, &image, TRANSFERS);
            while let Some(row) = rows.next()? {
                let row = Transfer::read_from_bytes(row).expect("a row has the size");
                Event::of_row(&row).map_or(Ok(()), |event| visit(&event))?;
            }
        }
        let (first, _) = self.checkpoint_rows()?;
        let Some(replayed) = &mut self.replayed else { return Ok(()) };
        for row in first..replayed.row_counts().0 {
            let row = replayed.transfer(&self.inspected, row)?;
            Event::of_row(&row).map_or(Ok(()), |event| visit(&event))?;
        }
        Ok(())
    }

    /// Visits all accounts as they were created, in the order of their creation.
    ///
    /// # Errors
    ///
    /// If a block is damaged, or the visitor fails.
    ///
    /// # Panics
    ///
    /// Never: rows have their size.
    pub fn accounts(
        &mut self,
        visit: &mut dyn FnMut(&Account) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if let Some(checkpoint) = &self.checkpoint {
            let image = self.inspected.image(checkpoint)?;
            let mut rows = LogRows::<128>::new(self, checkpoint, &image, ACCOUNTS);
            while let Some(row) = rows.next()? {
                visit(&Account::read_from_bytes(row).expect("a row has the size"))?;
            }
        }
        let (_, first) = self.checkpoint_rows()?;
        let Some(replayed) = &mut self.replayed else { return Ok(()) };
        for row in first..replayed.row_counts().1 {
            visit(&replayed.account(&self.inspected, row)?)?;
        }
        Ok(())
    }
}

/// The rows of one log, of `SIZE` bytes each, one after the other.
struct LogRows<'a, const SIZE: usize> {
    inspected: &'a Inspected,
    image: &'a CheckpointImage<'a>,
    log: usize,
    packing: Packing,
    walk: CheckpointWalk,
    /// The block that refers to the blocks of rows, and its bytes.
    parent: Option<BlockRef>,
    parent_memory: AlignedMemory,
    /// The block of rows that is being read.
    memory: AlignedMemory,
    /// Index of its next row, and the number of its rows.
    next: u64,
    count: u64,
}

impl<'a, const SIZE: usize> LogRows<'a, SIZE> {
    fn new(
        source: &'a DataFileSource,
        checkpoint: &'a Checkpoint,
        image: &'a CheckpointImage<'a>,
        log: usize,
    ) -> LogRows<'a, SIZE> {
        let inspected = &source.inspected;
        let config = inspected.config();
        LogRows {
            inspected,
            image,
            log,
            packing: Packing::new(to_size(SIZE), config.block_size),
            walk: CheckpointWalk::of_log(&checkpoint.root, config, log),
            parent: None,
            parent_memory: inspected.block_memory(),
            memory: inspected.block_memory(),
            next: 0,
            count: 0,
        }
    }

    /// Returns the next row; `None` after the last.
    fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        if self.next == self.count && !self.next_block()? {
            return Ok(None);
        }
        assert!(self.next < self.count, "no block of rows is empty");
        let start = self.packing.offset_in_block(self.next);
        self.next += 1;
        Ok(Some(&self.memory[start..start + SIZE]))
    }

    /// Reads the next block of rows. Returns whether there is one.
    fn next_block(&mut self) -> Result<bool, Failure> {
        loop {
            let inspected = self.inspected;
            if let Some(parent) = self.walk.parent().filter(|it| self.parent != Some(it.block)) {
                let damage = |problem| inspected.block_damage(parent.block.address, &problem);
                inspected.read_reached(parent, &mut self.parent_memory).map_err(damage)?;
                self.parent = Some(parent.block);
            }
            let parent = self.walk.parent().map(|_| &self.parent_memory[..]);
            let address = self.parent.map_or(0, |block| block.address);
            let next = self.walk.next(Some(self.image), parent);
            let next = next.map_err(|error| inspected.block_damage(address, &error))?;
            // The walk continues with blocks of other owners.
            let Some(reached) = next.filter(|reached| reached.owner == Owner::Log(self.log)) else {
                return Ok(false);
            };
            if reached.kind as usize == self.log + 1 {
                let damage = |problem| inspected.block_damage(reached.block.address, &problem);
                inspected.read_reached(&reached, &mut self.memory).map_err(damage)?;
                (self.next, self.count) = (0, u64::from(reached.item_count));
                return Ok(true);
            }
        }
    }
}
