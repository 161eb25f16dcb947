//! How much room the storage limit leaves, and for what.
//!
//! Asked before an op is put into the log: once it is there it must be executed, so all blocks that
//! it may take must be free. Ops that append nothing take blocks at checkpoints only and go on when
//! others can't. Not covered: the file system's own limits, which show as failed writes.

use super::count_of;
use super::store::{Store, TAILS_MAX};

/// Blocks that stay free besides what is counted, so that sizing by hand can't be wrong by one.
const FREE_BLOCKS_MIN: u64 = 64;

/// For what there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Not even for the next checkpoint: the limit is lower than it was.
    Nothing,
    /// For ops that append no rows.
    Reads,
    /// For any op.
    Everything,
}

/// How much of the storage limit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageUse {
    /// The limit, in bytes.
    pub limit_bytes: u64,
    /// Blocks in use, in bytes.
    pub used_bytes: u64,
    /// Beyond this nothing is appended, in bytes: the rest is for merges and checkpoints. Moves
    /// with the use.
    pub usable_bytes: u64,
    /// For what there is room.
    pub room: Room,
}

impl StorageUse {
    /// Whether four fifths of what is usable are used.
    #[must_use]
    pub fn is_high(&self) -> bool {
        u128::from(self.used_bytes) * 5 >= u128::from(self.usable_bytes) * 4
    }
}

impl Store {
    /// For what there is room in the storage limit, with other ops on their way already.
    #[must_use]
    pub fn room(&self) -> Room {
        let set = self.grid.free_set();
        if set.free_count() + set.releasing_count() < self.checkpoint_blocks_max() {
            // What is being released becomes free before the next checkpoint.
            Room::Nothing
        } else if set.free_count() <= self.reserve_blocks()
            || !self.events.admits()
            || !self.account_table.admits()
        {
            Room::Reads
        } else {
            Room::Everything
        }
    }

    /// How much of the storage limit is used.
    #[must_use]
    pub fn storage_use(&self) -> StorageUse {
        let set = self.grid.free_set();
        let bytes = |blocks: u64| blocks * u64::from(self.grid.block_size());
        let used = set.acquired_count();
        StorageUse {
            limit_bytes: bytes(set.blocks_max()),
            used_bytes: bytes(used),
            usable_bytes: bytes(used + set.free_count().saturating_sub(self.reserve_blocks())),
            room: self.room(),
        }
    }

    /// Blocks that must be free for another op that may append: what it and those on their way take
    /// at most, and two checkpoints: theirs, and one that only ops follow which append nothing.
    fn reserve_blocks(&self) -> u64 {
        // Merges make at most as many blocks as there are.
        let merges = self.events.acquires_max() + self.account_table.acquires_max();
        let merges = merges.min(self.grid.free_set().acquired_count());
        let logs = [&self.transfers, &self.balances, &self.accounts];
        let logs: u64 = logs.iter().map(|log| log.blocks_per_op_max()).sum();
        let ops = count_of(self.ops_ahead_max) + 1;
        merges + ops * logs + 2 * self.checkpoint_blocks_max() + FREE_BLOCKS_MIN
    }

    /// Blocks that a checkpoint takes at most.
    fn checkpoint_blocks_max(&self) -> u64 {
        self.blob.blocks_max() + u64::from(TAILS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the use is high from four fifths on, and when nothing is usable.
    #[test]
    fn high_use() {
        let of = |used_bytes, usable_bytes| {
            let room = Room::Everything;
            StorageUse { limit_bytes: u64::MAX, used_bytes, usable_bytes, room }.is_high()
        };
        assert!(!of(79, 100));
        assert!(of(80, 100));
        assert!(!of(u64::MAX / 2, u64::MAX));
        assert!(of(0, 0));
    }
}
