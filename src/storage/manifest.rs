//! A table's part of a checkpoint: its runs, and its schedule with all reserved addresses.
//!
//! Only what is a function of the committed rows is encoded: not how far work has come. After a
//! restart all scheduled work starts from zero. Not covered: the rows in memtables, which are
//! indexed again from the logs.

use zerocopy::IntoBytes;

use super::decode::{DecodeError, Reader, require};
use super::image::{Addresses, MergeImage, TableImage};
use super::table::Table;
use super::{count_of, index_of};

impl Table {
    /// Appends the manifest; there must be room.
    ///
    /// # Panics
    ///
    /// If rows are being indexed again.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(!self.reindexing);
        let word = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&value.to_le_bytes());
        let addresses = |out: &mut Vec<u8>, lists: &[Vec<u64>]| {
            for list in lists {
                word(out, count_of(list.len()));
                out.extend_from_slice(list.as_bytes());
            }
        };
        word(out, count_of(self.runs.len()));
        word(out, count_of(self.tasks.merges.len()));
        word(out, self.options.bar_rows);
        word(out, self.bars);
        word(out, self.frozen.first_row());
        word(out, self.active.first_row());
        word(out, count_of(self.runs[0].len()));
        for runs in &self.runs {
            out.extend_from_slice(runs.as_bytes());
        }
        word(out, u64::from(self.tasks.flush.live));
        word(out, self.tasks.flush.sequence);
        addresses(out, &self.tasks.flush.addresses);
        for group in &self.tasks.merges {
            word(out, u64::from(group.live));
            if group.live {
                word(out, group.sequence);
                word(out, group.deadline);
                word(out, group.first_row);
                addresses(out, &group.addresses);
            }
        }
    }

    /// Addresses that scheduled work writes: nobody reads them before its deadline.
    pub fn reserved(&self) -> impl Iterator<Item = u64> {
        let flush = Some(&self.tasks.flush).filter(|flush| flush.live).map(|it| &it.addresses);
        let merges = self.tasks.merges.iter().filter(|merge| merge.live).map(|it| &it.addresses);
        flush.into_iter().chain(merges).flatten().flatten().copied()
    }

    /// Fills an empty table from a manifest; returns the bytes read. Then rows from
    /// [`Table::watermark`] on must be indexed again, see [`Table::reindex_begin`].
    ///
    /// # Errors
    ///
    /// What does not fit this table.
    ///
    /// # Panics
    ///
    /// If the table was used before.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        assert!(self.tasks.is_idle());
        assert!(self.runs[0].is_empty());
        let mut reader = Reader::new(bytes);
        let image = TableImage::read(&mut reader, &self.options)?;
        self.bars = image.bars;
        self.frozen.reset(image.frozen_row);
        self.active.reset(image.active_row);
        let count = image.run_count();
        let fits = count <= count_of(self.runs[0].capacity());
        require(fits, "runs", count, "no more than there is memory for")?;
        for (tag, runs) in self.runs.iter_mut().enumerate() {
            runs.extend(image.runs(tag));
        }
        self.filters.extend((0..count).map(|_| None));
        self.tasks.flush.clear();
        self.tasks.flush.live = image.flush.live;
        self.tasks.flush.sequence = image.flush.sequence;
        fill_addresses(image.flush.addresses, &mut self.tasks.flush.addresses)?;
        for level in 0..self.tasks.merges.len() {
            self.tasks.merges[level].clear();
            if let Some(merge) = &image.merges[level] {
                self.decode_merge(level, merge)?;
            }
        }
        Ok(reader.position())
    }

    fn decode_merge(&mut self, level: usize, merge: &MergeImage<'_>) -> Result<(), DecodeError> {
        let group = &mut self.tasks.merges[level];
        group.live = true;
        group.sequence = merge.sequence;
        group.deadline = merge.deadline;
        group.first_row = merge.first_row;
        fill_addresses(merge.addresses, &mut group.addresses)?;
        let (at, count) = (index_of(merge.first_run), index_of(self.options.fan_in));
        for tag in 0..self.runs.len() {
            let result = Table::merge_result(&self.runs[tag][at..at + count]);
            let blocks = if result.has_blocks() { self.layout(&result).blocks() } else { 0 };
            let group = &mut self.tasks.merges[level];
            let found = count_of(group.addresses[tag].len());
            require(found == blocks, "merge addresses", found, "as many as blocks")?;
            group.results.push(result);
        }
        Ok(())
    }
}

fn fill_addresses(image: Addresses<'_>, lists: &mut [Vec<u64>]) -> Result<(), DecodeError> {
    for (tag, list) in lists.iter_mut().enumerate() {
        let count = count_of(image.of(tag).count());
        let fits = count <= count_of(list.capacity());
        require(fits, "addresses", count, "no more than there is memory for")?;
        list.clear();
        list.extend(image.of(tag));
    }
    Ok(())
}
