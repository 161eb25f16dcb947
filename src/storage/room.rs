//! How much room the storage limit leaves, and for what.
//!
//! Asked before an op is put into the log: once it is there it must be executed, so all blocks that
//! it may take must be free. Ops that append nothing take blocks at checkpoints only and go on when
//! others can't. Not covered: the file system's own limits, which show as failed writes.

use super::checkpoint::BlobWriter;
use super::log::Log;
use super::packing::Packing;
use super::store::{Sizes, Store, StoreOptions, TAILS_MAX, blob_size_max, log_options};
use super::{Config, count_of};

/// Blocks that stay free besides what is counted, so that sizing by hand can't be wrong by one.
const FREE_BLOCKS_MIN: u64 = 64;
/// Transfers that a new ledger has room for at the smallest storage limit.
const TRANSFERS_MIN: u64 = 100_000;
/// Bytes that a transfer takes, rows and index entries, with some to spare.
const TRANSFER_BYTES: u64 = 512;

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
        merges + reserve_fixed(ops * logs, self.checkpoint_blocks_max())
    }

    /// Blocks that a checkpoint takes at most.
    fn checkpoint_blocks_max(&self) -> u64 {
        self.blob.blocks_max() + u64::from(TAILS_MAX)
    }

    /// The smallest storage limit of use, in bytes: a new ledger has room for [`TRANSFERS_MIN`]
    /// transfers, besides what is kept for checkpoints and merges.
    #[must_use]
    pub fn storage_limit_min(config: &Config, options: &StoreOptions) -> u64 {
        let block_size = u64::from(config.block_size);
        let rows = (TRANSFERS_MIN * TRANSFER_BYTES).div_ceil(block_size);
        let mut blocks = 1;
        loop {
            // What is in use is kept free again, for merges. A larger limit takes more for itself,
            // by far less than it is larger.
            let needed = reserve_empty(config, options, blocks) + 2 * rows + 1;
            if needed <= blocks {
                return blocks * block_size;
            }
            blocks = needed;
        }
    }

    /// The largest storage limit whose checkpoints one index block names, up to `bytes_max`.
    #[must_use]
    pub fn storage_limit_max(config: &Config, options: &StoreOptions, bytes_max: u64) -> u64 {
        let block_size = u64::from(config.block_size);
        let fits =
            |blocks: u64| BlobWriter::fits(config.block_size, blob_bytes(config, options, blocks));
        let (mut low, mut high) = (1, bytes_max / block_size);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low * block_size
    }
}

/// Blocks that stay free besides those for merges, when ops on their way take `ops` and a
/// checkpoint takes `checkpoint`.
fn reserve_fixed(ops: u64, checkpoint: u64) -> u64 {
    ops + 2 * checkpoint + FREE_BLOCKS_MIN
}

/// What an empty store keeps free when its limit is `blocks`.
fn reserve_empty(config: &Config, options: &StoreOptions, blocks: u64) -> u64 {
    let sizes = Sizes::new(config, &with_limit(config, options, blocks));
    let logs = log_options(&sizes).map(|log| {
        let packing = Packing::new(log.row_size, config.block_size);
        Log::blocks_per_op_of(&packing, log.op_rows_max.into())
    });
    let ops = u64::from(config.pipeline_max) + 1;
    let blob = blob_bytes(config, options, blocks);
    let checkpoint = BlobWriter::blocks_max_of(config.block_size, blob) + u64::from(TAILS_MAX);
    reserve_fixed(ops * logs.iter().sum::<u64>(), checkpoint)
}

/// Bytes of the largest checkpoint blob when the limit is `blocks`.
fn blob_bytes(config: &Config, options: &StoreOptions, blocks: u64) -> u64 {
    let options = with_limit(config, options, blocks);
    blob_size_max(config, &options, &Sizes::new(config, &options))
}

fn with_limit(config: &Config, options: &StoreOptions, blocks: u64) -> StoreOptions {
    StoreOptions { storage_limit_bytes: blocks * u64::from(config.block_size), ..*options }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: StoreOptions = StoreOptions {
        cluster: 7,
        cache_grid_bytes: 8 << 20,
        cache_transfers_bytes: 8 << 20,
        filter_bytes: 0,
        storage_limit_bytes: 0,
        blob_extra_bytes: 1 << 20,
        page_reads_max: 16,
    };

    /// Goal: a new store has room for anything at the smallest limit, by what was promised and no
    /// more; and what is computed before there is a store is what the store says.
    #[test]
    fn smallest_limit() {
        for config in [Config::testing(), Config::development()] {
            let min = Store::storage_limit_min(&config, &OPTIONS);
            let store = Store::new(&config, &StoreOptions { storage_limit_bytes: min, ..OPTIONS });
            let blocks = min / u64::from(config.block_size);
            assert_eq!(store.reserve_blocks(), reserve_empty(&config, &OPTIONS, blocks));
            let room = store.storage_use();
            assert_eq!(room.room, Room::Everything);
            let promised = 2 * TRANSFERS_MIN * TRANSFER_BYTES;
            assert!(room.usable_bytes >= promised, "{room:?}");
            assert!(room.usable_bytes <= promised + (1 << 20), "{room:?}");
        }
    }

    /// Goal: the largest limit is one that a store can have, and one block more is not.
    #[test]
    fn largest_limit() {
        for config in [Config::testing(), Config::development()] {
            let max = Store::storage_limit_max(&config, &OPTIONS, 1 << 50);
            let blocks = max / u64::from(config.block_size);
            let fits =
                |blocks| BlobWriter::fits(config.block_size, blob_bytes(&config, &OPTIONS, blocks));
            assert!(fits(blocks) && !fits(blocks + 1), "{blocks}");
            let small = u64::from(config.block_size) * 100;
            assert_eq!(Store::storage_limit_max(&config, &OPTIONS, small + 1), small);
        }
    }

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
