//! Where the items of an array lie inside a block.
//!
//! Items never straddle sectors: every 4 KiB sector ends with its own check, and a reader of one
//! item reads one sector. Sector 0 begins with the block header and holds fewer items.

use crate::protocol::{SECTOR_SIZE, to_index};

/// Bytes of the header at the start of every block.
pub const BLOCK_HEADER_SIZE: u32 = 256;
/// Bytes of the check at the end of every sector.
pub const SECTOR_TRAILER_SIZE: u32 = 8;
/// End of the items in every sector: the offset of the sector's check.
pub const SECTOR_ITEMS_END: u32 = SECTOR_SIZE - SECTOR_TRAILER_SIZE;
/// Largest item in bytes: at least two must fit in sector 0.
pub const ITEM_SIZE_MAX: u32 = (SECTOR_ITEMS_END - BLOCK_HEADER_SIZE) / 2;

/// Division by a number that is known long before, as one multiplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Divisor {
    divisor: u64,
    /// 2^64 / divisor, rounded down.
    reciprocal: u64,
}

impl Divisor {
    fn new(divisor: u32) -> Divisor {
        assert!(divisor >= 2);
        let divisor = u64::from(divisor);
        // (2^64 - 1) / d is 2^64 / d rounded down unless d divides 2^64; then it is one less,
        // which the correction in `divide` covers as well.
        Divisor { divisor, reciprocal: u64::MAX / divisor }
    }

    /// Quotient and remainder. The estimate is at most one too low: the reciprocal misses the true
    /// value by at most one, so the product misses by at most value / 2^64 < 1, plus the rounding.
    #[inline]
    fn divide(self, value: u64) -> (u64, u64) {
        let mut quotient = ((u128::from(value) * u128::from(self.reciprocal)) >> 64) as u64;
        let mut remainder = value - quotient * self.divisor;
        if remainder >= self.divisor {
            quotient += 1;
            remainder -= self.divisor;
        }
        (quotient, remainder)
    }
}

/// Place of an item: block number in the array, sector in the block, byte offset in the sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Block of the array, counted from 0.
    pub block: u64,
    /// Sector of the block, counted from 0.
    pub sector: u32,
    /// First byte of the item within the sector.
    pub offset: u32,
}

/// Layout of items of one size in blocks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    item_size: u32,
    block_size: u32,
    first_sector: u32,
    per_sector: Divisor,
    per_block: Divisor,
}

impl Packing {
    /// Layout of items of `item_size` bytes in blocks of `block_size` bytes.
    ///
    /// # Panics
    ///
    /// If `item_size` is zero or above [`ITEM_SIZE_MAX`], or `block_size` is not a positive
    /// multiple of 4096.
    #[must_use]
    pub fn new(item_size: u32, block_size: u32) -> Packing {
        assert!(item_size > 0);
        assert!(item_size <= ITEM_SIZE_MAX);
        assert!(block_size > 0);
        assert!(block_size.is_multiple_of(SECTOR_SIZE));
        let first_sector = (SECTOR_ITEMS_END - BLOCK_HEADER_SIZE) / item_size;
        let per_sector = SECTOR_ITEMS_END / item_size;
        let per_block = first_sector + (block_size / SECTOR_SIZE - 1) * per_sector;
        Packing {
            item_size,
            block_size,
            first_sector,
            per_sector: Divisor::new(per_sector),
            per_block: Divisor::new(per_block),
        }
    }

    /// Bytes of an item.
    #[must_use]
    pub fn item_size(&self) -> u32 {
        self.item_size
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Items in a full block.
    #[must_use]
    pub fn per_block(&self) -> u64 {
        self.per_block.divisor
    }

    /// Blocks needed for `items` items.
    #[must_use]
    pub fn blocks_for(&self, items: u64) -> u64 {
        let (quotient, remainder) = self.per_block.divide(items);
        quotient + u64::from(remainder > 0)
    }

    /// Place of item `item` of the array.
    #[inline]
    #[must_use]
    pub fn locate(&self, item: u64) -> Location {
        let (block, index) = self.split(item);
        let (sector, offset) = self.place(index);
        Location { block, sector, offset }
    }

    /// Block of item `item`, and the item's index in that block.
    #[inline]
    #[must_use]
    pub fn split(&self, item: u64) -> (u64, u64) {
        self.per_block.divide(item)
    }

    /// Sector of the item with `index` in a block, and its byte offset in the sector.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "an index in a block fits 32 bits")]
    pub fn place(&self, index: u64) -> (u32, u32) {
        debug_assert!(index < self.per_block.divisor);
        let first_sector = u64::from(self.first_sector);
        if index < first_sector {
            return (0, BLOCK_HEADER_SIZE + index as u32 * self.item_size);
        }
        let (sector, slot) = self.per_sector.divide(index - first_sector);
        (sector as u32 + 1, slot as u32 * self.item_size)
    }

    /// Byte offset in a block of the item with `index` in it.
    #[inline]
    #[must_use]
    pub fn offset_in_block(&self, index: u64) -> usize {
        let (sector, offset) = self.place(index);
        to_index(sector) * to_index(SECTOR_SIZE) + to_index(offset)
    }

    /// Range of item indexes `[first, end)` in a block that lie in `sector`.
    ///
    /// # Panics
    ///
    /// If `sector` is not in a block.
    #[must_use]
    pub fn sector_items(&self, sector: u32) -> (u64, u64) {
        assert!(sector < self.block_size / SECTOR_SIZE);
        let first_sector = u64::from(self.first_sector);
        if sector == 0 {
            return (0, first_sector);
        }
        let first = first_sector + u64::from(sector - 1) * self.per_sector.divisor;
        (first, first + self.per_sector.divisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: consecutive items lie one after another, inside their sector and behind the header,
    /// and fill exactly `per_block` places; for all sizes in use and odd ones.
    #[test]
    fn walks_every_item() {
        for item_size in [1, 4, 7, 8, 24, 32, 64, 128, 136, 256, 1000, ITEM_SIZE_MAX] {
            for block_size in [8192, 65_536] {
                let packing = Packing::new(item_size, block_size);
                let mut expected = Location { block: 0, sector: 0, offset: BLOCK_HEADER_SIZE };
                for item in 0..=2 * packing.per_block() {
                    if expected.offset + item_size > SECTOR_ITEMS_END {
                        expected.offset = 0;
                        expected.sector += 1;
                    }
                    if expected.sector == block_size / SECTOR_SIZE {
                        expected = Location {
                            block: expected.block + 1,
                            sector: 0,
                            offset: BLOCK_HEADER_SIZE,
                        };
                    }
                    assert_eq!(packing.locate(item), expected, "item {item} of {item_size}");
                    let (first, end) = packing.sector_items(expected.sector);
                    let index = packing.split(item).1;
                    assert!((first..end).contains(&index));
                    expected.offset += item_size;
                }
                let per_block = packing.per_block();
                assert_eq!(packing.locate(per_block - 1).block, 0);
                assert_eq!(packing.locate(per_block).block, 1);
                assert_eq!(packing.blocks_for(0), 0);
                assert_eq!(packing.blocks_for(1), 1);
                assert_eq!(packing.blocks_for(per_block), 1);
                assert_eq!(packing.blocks_for(per_block + 1), 2);
            }
        }
    }

    /// Goal: the known capacities of production blocks.
    #[test]
    fn production_capacities() {
        assert_eq!(Packing::new(128, 524_288).per_block(), 29 + 127 * 31);
        assert_eq!(Packing::new(136, 524_288).per_block(), 28 + 127 * 30);
        assert_eq!(Packing::new(8, 524_288).per_block(), 479 + 127 * 511);
    }

    /// Goal: division by multiplication is exact everywhere, also at the very ends.
    #[test]
    fn divisor_is_exact() {
        let divisors = [2, 3, 4, 5, 7, 29, 30, 31, 511, 3966, 65_536, u32::MAX - 1, u32::MAX];
        for divisor in divisors {
            let fast = Divisor::new(divisor);
            let wide = u64::from(divisor);
            let mut values = vec![0, 1, wide - 1, wide, wide + 1, u64::MAX, u64::MAX - 1];
            let mut value = 1_u64;
            for _ in 0..10_000 {
                value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                values.push(value);
                values.push(value >> 24);
                values.push((value >> 24) / wide * wide);
                values.push(((value >> 24) / wide * wide).saturating_sub(1));
            }
            for value in values {
                assert_eq!(fast.divide(value), (value / wide, value % wide), "{value}/{divisor}");
            }
        }
    }
}
