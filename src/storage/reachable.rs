//! Every block that a checkpoint refers to, one after another.
//!
//! From the root in the superblock to the blocks of the blob, and from the blob to the blocks of
//! logs, their directories and runs. The walk does no input or output and owns no memory: whoever
//! walks reads and verifies blocks, and gives it those that refer to others. So the same walk
//! serves inspection, repair and a replica that fetches a checkpoint from peers, each block when
//! it comes.
//! Not covered: addresses that are only reserved, see [`CheckpointImage::scheduled`].

use zerocopy::FromBytes;

use super::block::{BlockHeader, BlockKind, BlockRef};
use super::checkpoint::CheckpointRoot;
use super::config::Config;
use super::decode::{DecodeError, require};
use super::directory::DIRECTORY_ENTRY_SIZE;
use super::image::{CheckpointImage, LogImage};
use super::packing::Packing;
use super::run::{ITEM_SIZE, place};
use super::store::LOG_FORMS;
use crate::protocol::{SECTOR_SIZE, to_index};

/// What a block is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The checkpoint's blob and its index.
    Blob,
    /// A log: 0 transfers, 1 balances, 2 accounts.
    Log(usize),
    /// A run of a table.
    Run {
        /// 0 events, 1 accounts.
        table: usize,
        /// The index.
        tag: usize,
        /// Its number among the runs of the tag.
        run: u64,
    },
}

/// A block that something refers to, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The block.
    pub block: BlockRef,
    /// What it contains.
    pub kind: BlockKind,
    /// What it is part of.
    pub owner: Owner,
    /// Its number among the blocks of its kind and owner; of a run, among all blocks of the run.
    pub number: u64,
    /// Items that it has.
    pub item_count: u32,
    /// Bytes of an item.
    pub item_size: u32,
}

impl Reached {
    /// Whether a verified block has the contents that its owner counts on.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn check(&self, header: &BlockHeader) -> Result<(), DecodeError> {
        let kind = u64::from(header.kind);
        require(header.kind == self.kind as u8, "block kind", kind, "that of its owner")?;
        let items = u64::from(header.item_count);
        let counted = header.item_count == self.item_count;
        require(counted, "block items", items, "what its owner counts")?;
        let size = u64::from(header.item_size);
        let same = header.item_size == self.item_size;
        require(same, "block item size", size, "that of its owner")
    }
}

/// A block that refers to others.
#[derive(Clone, Copy, Debug)]
struct Parent {
    reached: Reached,
    /// References in it.
    children: u64,
    /// The next of them.
    next: u64,
}

/// What comes next, apart from children of the block before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Index,
    Directory { log: usize, number: u64 },
    Tail { log: usize },
    Run { table: usize, tag: usize, run: u64 },
    End,
}

/// A walk over all blocks of a checkpoint.
///
/// [`Walk::next`] gives a block. If it refers to others, [`Walk::parent`] names it, and the
/// following calls must be given its bytes, until there is another parent or none. The blocks of
/// the blob come first; from then on the decoded blob is needed.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    root: CheckpointRoot,
    block_size: u32,
    stage: Stage,
    parent: Option<Parent>,
}

impl Walk {
    /// A walk that begins at a root.
    #[must_use]
    pub fn new(root: &CheckpointRoot, config: &Config) -> Walk {
        let stage = if root.is_empty() { Stage::End } else { Stage::Index };
        Walk { root: *root, block_size: config.block_size, stage, parent: None }
    }

    /// A walk over the blocks of one log alone. It needs the decoded blob from the start, and goes
    /// on with other blocks behind those of the log.
    ///
    /// # Panics
    ///
    /// If there is no such log.
    #[must_use]
    pub fn of_log(root: &CheckpointRoot, config: &Config, log: usize) -> Walk {
        assert!(log < LOG_FORMS.len());
        Walk { stage: Stage::Directory { log, number: 0 }, ..Walk::new(root, config) }
    }

    /// The block whose bytes the next call needs.
    #[must_use]
    pub fn parent(&self) -> Option<&Reached> {
        self.parent.as_ref().map(|parent| &parent.reached)
    }

    /// The next block; `None` at the end, and after the blocks of the blob while `image` is
    /// missing. `parent` are the verified bytes of [`Walk::parent`]: without them, what it refers
    /// to is left out.
    ///
    /// # Errors
    ///
    /// If the parent is not what its owner counts on; what it refers to is left out.
    ///
    /// # Panics
    ///
    /// If the bytes of the parent are shorter than a block.
    pub fn next(
        &mut self,
        image: Option<&CheckpointImage<'_>>,
        parent: Option<&[u8]>,
    ) -> Result<Option<Reached>, DecodeError> {
        if let Some(mut state) = self.parent.take()
            && let Some(bytes) = parent
        {
            assert!(bytes.len() == to_index(self.block_size));
            if state.next == 0 {
                state.reached.check(&super::block::header(bytes))?;
            }
            let child = self.child(&state, image, bytes);
            state.next += 1;
            if state.next < state.children {
                self.parent = Some(state);
            }
            return Ok(Some(child));
        }
        // Each turn gives a block or moves on by a log or a tag.
        loop {
            if self.stage == Stage::Index {
                self.stage = Stage::Directory { log: 0, number: 0 };
                let index = Reached {
                    block: self.root.index,
                    kind: BlockKind::CheckpointRoot,
                    owner: Owner::Blob,
                    number: 0,
                    item_count: u32::try_from(self.root.blob_blocks).unwrap_or(u32::MAX),
                    item_size: ITEM_SIZE,
                };
                return Ok(Some(self.begin(index, self.root.blob_blocks)));
            }
            let Some(image) = image else { return Ok(None) };
            if self.stage == Stage::End {
                return Ok(None);
            }
            if let Some(reached) = self.advance(image) {
                return Ok(Some(reached));
            }
        }
    }

    /// Makes a block the parent of what follows, if it refers to any.
    fn begin(&mut self, reached: Reached, children: u64) -> Reached {
        let room = Packing::new(reached.item_size, self.block_size).per_block();
        // An index that cannot be is reported when its bytes are checked.
        let children = children.min(room);
        if children > 0 {
            self.parent = Some(Parent { reached, children, next: 0 });
        }
        reached
    }

    fn advance(&mut self, image: &CheckpointImage<'_>) -> Option<Reached> {
        match self.stage {
            Stage::Index | Stage::End => unreachable!("the caller has dealt with these"),
            Stage::Directory { log, number } => self.directory(&image.logs[log], log, number),
            Stage::Tail { log } => {
                let next = Stage::Directory { log: log + 1, number: 0 };
                let last = log + 1 == image.logs.len();
                self.stage = if last { Stage::Run { table: 0, tag: 0, run: 0 } } else { next };
                self.tail(&image.logs[log], log)
            }
            Stage::Run { table, tag, run } => self.run(image, table, tag, run),
        }
    }

    fn directory(&mut self, image: &LogImage<'_>, log: usize, number: u64) -> Option<Reached> {
        let full = image.directory_blocks();
        let (next, tail) = (Stage::Directory { log, number: number + 1 }, Stage::Tail { log });
        self.stage = if number < full { next } else { tail };
        let per_block = Packing::new(DIRECTORY_ENTRY_SIZE, self.block_size).per_block();
        let (block, entries) = if number < full {
            (image.directory_block(number), per_block)
        } else {
            (image.directory_tail, image.blocks - full * per_block)
        };
        if block.is_none() {
            return None;
        }
        let reached = Reached {
            block,
            kind: LOG_FORMS[log].directory_kind,
            owner: Owner::Log(log),
            number,
            item_count: u32::try_from(entries).expect("items of a block fit 32 bits"),
            item_size: DIRECTORY_ENTRY_SIZE,
        };
        Some(self.begin(reached, entries))
    }

    fn tail(&self, image: &LogImage<'_>, log: usize) -> Option<Reached> {
        if image.tail.is_none() {
            return None;
        }
        let per_block = Packing::new(LOG_FORMS[log].row_size, self.block_size).per_block();
        let rows = image.rows - image.blocks * per_block;
        Some(rows_block(image.tail, log, image.blocks, rows))
    }

    fn run(
        &mut self,
        image: &CheckpointImage<'_>,
        table: usize,
        tag: usize,
        run: u64,
    ) -> Option<Reached> {
        let Some(owner) = image.tables.get(table) else {
            self.stage = Stage::End;
            return None;
        };
        if tag == owner.options.tags.len() {
            self.stage = Stage::Run { table: table + 1, tag: 0, run: 0 };
            return None;
        }
        if run == owner.run_count() {
            self.stage = Stage::Run { table, tag: tag + 1, run: 0 };
            return None;
        }
        self.stage = Stage::Run { table, tag, run: run + 1 };
        let found = owner.run(tag, run);
        if !found.has_blocks() {
            return None;
        }
        let layout = owner.layout(&found);
        let number = layout.blocks() - 1;
        let reached = Reached {
            block: found.root,
            kind: BlockKind::RunRoot,
            owner: Owner::Run { table, tag, run },
            number,
            item_count: layout.items(number),
            item_size: ITEM_SIZE,
        };
        Some(self.begin(reached, number))
    }

    /// The next block that a parent refers to.
    fn child(&self, parent: &Parent, image: Option<&CheckpointImage<'_>>, bytes: &[u8]) -> Reached {
        let number = parent.next;
        match parent.reached.owner {
            Owner::Blob => {
                let packing = Packing::new(ITEM_SIZE, self.block_size);
                let per_block = Packing::new(1, self.block_size).per_block();
                let before = number.saturating_mul(per_block);
                let left = self.root.blob_size.saturating_sub(before).min(per_block);
                Reached {
                    block: reference(bytes, packing.offset_in_block(number)),
                    kind: BlockKind::Checkpoint,
                    owner: Owner::Blob,
                    number,
                    item_count: u32::try_from(left).expect("items of a block fit 32 bits"),
                    item_size: 1,
                }
            }
            Owner::Log(log) => {
                let packing = Packing::new(DIRECTORY_ENTRY_SIZE, self.block_size);
                let block = reference(bytes, packing.offset_in_block(number));
                let rows = Packing::new(LOG_FORMS[log].row_size, self.block_size).per_block();
                let before = parent.reached.number * packing.per_block();
                rows_block(block, log, before + number, rows)
            }
            Owner::Run { table, tag, run } => {
                let owner = &image.expect("runs come after the blob").tables[table];
                let layout = owner.layout(&owner.run(tag, run));
                let (sector, offset, _) = place(number * u64::from(ITEM_SIZE));
                let is_data = number < layout.data_blocks;
                Reached {
                    block: reference(bytes, to_index(sector * SECTOR_SIZE) + offset),
                    kind: if is_data { BlockKind::RunData } else { BlockKind::RunDirectory },
                    owner: parent.reached.owner,
                    number,
                    item_count: layout.items(number),
                    item_size: ITEM_SIZE,
                }
            }
        }
    }
}

fn rows_block(block: BlockRef, log: usize, number: u64, rows: u64) -> Reached {
    Reached {
        block,
        kind: LOG_FORMS[log].kind,
        owner: Owner::Log(log),
        number,
        item_count: u32::try_from(rows).expect("items of a block fit 32 bits"),
        item_size: LOG_FORMS[log].row_size,
    }
}

/// The reference that begins at a byte of a block.
fn reference(bytes: &[u8], start: usize) -> BlockRef {
    let end = start + size_of::<BlockRef>();
    BlockRef::read_from_bytes(&bytes[start..end]).expect("a reference is never cut")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an empty root reaches nothing, and one that names more blocks than an index can hold
    /// is an error of the index and ends the walk there.
    #[test]
    fn roots() {
        let config = Config::testing();
        let mut walk = Walk::new(&CheckpointRoot::EMPTY, &config);
        assert_eq!(walk.next(None, None), Ok(None));
        let index = BlockRef { address: 5, sequence: 16, checksum: 1 };
        let root = CheckpointRoot { index, blob_blocks: u64::MAX, ..CheckpointRoot::EMPTY };
        let mut walk = Walk::new(&root, &config);
        assert_eq!(walk.next(None, None).unwrap().unwrap().block, index);
        assert_eq!(walk.parent().unwrap().block, index);
        let bytes = vec![0; to_index(config.block_size)];
        assert!(walk.next(None, Some(&bytes)).is_err());
        assert_eq!(walk.next(None, None), Ok(None));
    }
}
