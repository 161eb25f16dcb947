//! Every block that a checkpoint refers to, one after another.
//!
//! From the root in the superblock to the blocks of the blob, and from the blob to the blocks of
//! logs, their directories and runs. The walk does no input or output and owns no memory: whoever
//! walks reads and verifies blocks, and gives it those that refer to others. So the same walk
//! serves inspection, repair and a replica that fetches a checkpoint from peers, each block when
//! it comes.
//! Not covered: addresses that are only reserved, see [`CheckpointImage::scheduled`].

use std::fmt;

use zerocopy::FromBytes;

use super::block::{BlockHeader, BlockKind, BlockRef};
use super::checkpoint::{CheckpointRoot, append_part};
use super::config::Config;
use super::decode::{DecodeError, require};
use super::directory::DIRECTORY_ENTRY_SIZE;
use super::free_set::FreeSet;
use super::image::{CheckpointImage, LogImage};
use super::index_of;
use super::packing::Packing;
use super::persistence::OpenError;
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
/// [`CheckpointWalk::next`] gives a block. If it refers to others, [`CheckpointWalk::parent`] names
/// it, and the following calls must be given its bytes, until there is another parent or none. The
/// blocks of the blob come first; from then on the decoded blob is needed.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointWalk {
    root: CheckpointRoot,
    block_size: u32,
    stage: Stage,
    parent: Option<Parent>,
}

impl CheckpointWalk {
    /// A walk that begins at a root.
    #[must_use]
    pub fn new(root: &CheckpointRoot, config: &Config) -> CheckpointWalk {
        let stage = if root.is_empty() { Stage::End } else { Stage::Index };
        CheckpointWalk { root: *root, block_size: config.block_size, stage, parent: None }
    }

    /// A walk over the blocks of one log alone. It needs the decoded blob from the start, and goes
    /// on with other blocks behind those of the log.
    ///
    /// # Panics
    ///
    /// If there is no such log.
    #[must_use]
    pub fn of_log(root: &CheckpointRoot, config: &Config, log: usize) -> CheckpointWalk {
        assert!(log < LOG_FORMS.len());
        CheckpointWalk {
            stage: Stage::Directory { log, number: 0 },
            ..CheckpointWalk::new(root, config)
        }
    }

    /// The block whose bytes the next call needs.
    #[must_use]
    pub fn parent(&self) -> Option<&Reached> {
        self.parent.as_ref().map(|parent| &parent.reached)
    }

    /// The next block; `None` at the end, and after the blocks of the blob while `image` is
    /// missing. `parent` are the verified bytes of [`CheckpointWalk::parent`]: without them, what
    /// it refers to is left out.
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

/// What is wrong with the owners of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimFault {
    /// It is above the highest one of the checkpoint, or zero.
    Beyond,
    /// It has two owners.
    Twice,
    /// It has an owner, but is not in use by the free set.
    NotAcquired,
    /// It is in use by the free set, but has no owner.
    Leaked,
}

impl fmt::Display for ClaimFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ClaimFault::Beyond => "its address is above the highest one of the checkpoint",
            ClaimFault::Twice => "it has two owners",
            ClaimFault::NotAcquired => "in use, but not so by the free set",
            ClaimFault::Leaked => "not free, but nothing refers to it",
        })
    }
}

/// Which addresses have an owner: to be compared with the free set.
#[derive(Clone, Debug)]
pub struct Claims {
    owned: Vec<bool>,
}

impl Claims {
    /// No address up to this one has an owner.
    #[must_use]
    pub fn new(address_max: u64) -> Claims {
        Claims { owned: vec![false; index_of(address_max)] }
    }

    /// Notes that something refers to an address, or has reserved it.
    ///
    /// # Errors
    ///
    /// If it has an owner, or cannot have one.
    pub fn claim(&mut self, address: u64) -> Result<(), ClaimFault> {
        let index = address.checked_sub(1).ok_or(ClaimFault::Beyond)?;
        let owned = self.owned.get_mut(index_of(index)).ok_or(ClaimFault::Beyond)?;
        if *owned {
            return Err(ClaimFault::Twice);
        }
        *owned = true;
        Ok(())
    }

    /// Addresses that the free set sees otherwise.
    pub fn compare<'a>(
        &'a self,
        free_set: &'a FreeSet,
    ) -> impl Iterator<Item = (u64, ClaimFault)> + 'a {
        (1..).zip(&self.owned).filter_map(|(address, owned)| {
            match (*owned, free_set.is_acquired(address)) {
                (true, false) => Some((address, ClaimFault::NotAcquired)),
                (false, true) => Some((address, ClaimFault::Leaked)),
                _ => None,
            }
        })
    }
}

/// Everything that a checkpoint refers to, when all of it can be read at once.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The blocks, in the order of the walk.
    pub blocks: Vec<Reached>,
    /// Addresses that are reserved for flushes and merges.
    pub scheduled: Vec<u64>,
    /// The free set.
    pub free_set: FreeSet,
    /// The decoded blob's bytes.
    pub blob: Vec<u8>,
}

/// Why a checkpoint cannot be surveyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SurveyFault<E> {
    /// A block that refers to others, or a part of the blob, could not be read.
    Block(Reached, E),
    /// A block is not what its owner counts on.
    Parent(DecodeError),
    /// The blob makes no sense.
    Blob(OpenError),
}

/// Walks over all blocks of a checkpoint. `read` reads and verifies those that the walk needs.
///
/// # Errors
///
/// The first block that cannot be read or makes no sense.
pub fn survey<E>(
    root: &CheckpointRoot,
    config: &Config,
    mut read: impl FnMut(&Reached, &mut [u8]) -> Result<(), E>,
) -> Result<Survey, SurveyFault<E>> {
    let mut walk = CheckpointWalk::new(root, config);
    let mut read = |reached: &Reached, bytes: &mut [u8]| {
        read(reached, bytes).map_err(|error| SurveyFault::Block(*reached, error))
    };
    let (mut blocks, mut blob) = (Vec::new(), Vec::new());
    let mut parent = vec![0; to_index(config.block_size)];
    let mut part = parent.clone();
    while let Some(reached) = walk.next(None, Some(&parent)).map_err(SurveyFault::Parent)? {
        blocks.push(reached);
        if reached.kind == BlockKind::CheckpointRoot {
            read(&reached, &mut parent)?;
        } else {
            read(&reached, &mut part)?;
            append_part(config.block_size, &part, root.blob_size, &mut blob);
        }
    }
    let image = CheckpointImage::decode(&blob, config).map_err(SurveyFault::Blob)?;
    while let Some(reached) = walk.next(Some(&image), Some(&parent)).map_err(SurveyFault::Parent)? {
        blocks.push(reached);
        if walk.parent() == Some(&reached) {
            read(&reached, &mut parent)?;
        }
    }
    let mut free_set = FreeSet::new(root.address_max.max(1));
    let decoded = free_set.decode(image.free_set);
    decoded.map_err(|error| SurveyFault::Blob(OpenError::Part { part: "free set", error }))?;
    let scheduled = image.scheduled().collect();
    Ok(Survey { blocks, scheduled, free_set, blob })
}

impl Survey {
    /// Addresses whose owners are not as they must be: every block in use has exactly one.
    #[must_use]
    pub fn claim_faults(&self) -> Vec<(u64, ClaimFault)> {
        let mut claims = Claims::new(self.free_set.blocks_max());
        let mut faults = Vec::new();
        let addresses = self.blocks.iter().map(|reached| reached.block.address);
        for address in addresses.chain(self.scheduled.iter().copied()) {
            if let Err(fault) = claims.claim(address) {
                faults.push((address, fault));
            }
        }
        faults.extend(claims.compare(&self.free_set));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an empty root reaches nothing, and one that names more blocks than an index can hold
    /// is an error of the index and ends the walk there.
    #[test]
    fn roots() {
        let config = Config::testing();
        let mut walk = CheckpointWalk::new(&CheckpointRoot::EMPTY, &config);
        assert_eq!(walk.next(None, None), Ok(None));
        let index = BlockRef { address: 5, sequence: 16, checksum: 1 };
        let root = CheckpointRoot { index, blob_blocks: u64::MAX, ..CheckpointRoot::EMPTY };
        let mut walk = CheckpointWalk::new(&root, &config);
        assert_eq!(walk.next(None, None).unwrap().unwrap().block, index);
        assert_eq!(walk.parent().unwrap().block, index);
        let bytes = vec![0; to_index(config.block_size)];
        assert!(walk.next(None, Some(&bytes)).is_err());
        assert_eq!(walk.next(None, None), Ok(None));
    }

    /// Goal: an address with two owners, with none, or out of range is told, and nothing else.
    #[test]
    fn claims() {
        let mut free_set = FreeSet::new(10);
        (0..4).for_each(|_| assert!(free_set.acquire() > 0));
        free_set.release(4);
        let mut claims = Claims::new(5);
        for address in [1, 2, 5] {
            assert_eq!(claims.claim(address), Ok(()));
        }
        assert_eq!(claims.claim(2), Err(ClaimFault::Twice));
        assert_eq!(claims.claim(0), Err(ClaimFault::Beyond));
        assert_eq!(claims.claim(6), Err(ClaimFault::Beyond));
        let found: Vec<_> = claims.compare(&free_set).collect();
        assert_eq!(found, [(3, ClaimFault::Leaked), (5, ClaimFault::NotAcquired)]);
    }
}
