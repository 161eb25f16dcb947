//! A table's part of a checkpoint: its runs, and its schedule with all reserved addresses.
//!
//! Only what is a function of the committed rows is encoded: not how far work has come. After a
//! restart all scheduled work starts from zero. Not covered: the rows in memtables, which are
//! indexed again from the logs.

use zerocopy::IntoBytes;

use super::decode::{DecodeError, Reader, require};
use super::run::Run;
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
        let tags = reader.read::<u64>("index tags")?;
        require(tags == count_of(self.runs.len()), "index tags", tags, "as many as built in")?;
        let merges = reader.read::<u64>("index levels")?;
        let same = merges == count_of(self.tasks.merges.len());
        require(same, "index levels", merges, "as many as the geometry gives")?;
        let rows = reader.read::<u64>("bar rows")?;
        require(rows == self.options.bar_rows, "bar rows", rows, "those of the geometry")?;
        self.bars = reader.read("bars")?;
        let frozen = reader.read::<u64>("frozen row")?;
        let active = reader.read::<u64>("active row")?;
        let fits = active >= frozen && active - frozen <= self.options.bar_rows;
        require(fits, "active row", active, "within a bar of the frozen row")?;
        self.frozen.reset(frozen);
        self.active.reset(active);
        self.decode_runs(&mut reader, frozen)?;
        let live = read_flag(&mut reader, "flush")?;
        require(live == (active > frozen), "flush", u64::from(live), "for frozen rows")?;
        self.tasks.flush.clear();
        self.tasks.flush.live = live;
        self.tasks.flush.sequence = reader.read("flush op")?;
        read_addresses(&mut reader, &mut self.tasks.flush.addresses)?;
        for level in 0..self.tasks.merges.len() {
            self.decode_merge(&mut reader, level)?;
        }
        Ok(reader.position())
    }

    fn decode_runs(&mut self, reader: &mut Reader<'_>, frozen: u64) -> Result<(), DecodeError> {
        let count = reader.read::<u64>("runs")?;
        let fits = count <= count_of(self.runs[0].capacity());
        require(fits, "runs", count, "no more than there is memory for")?;
        for (tag, runs) in (0_u32..).zip(&mut self.runs) {
            let mut row = 0;
            for _ in 0..count {
                let run = reader.read::<Run>("run")?;
                let known = run.tag == tag && run.level < self.levels;
                require(known, "run tag", u64::from(run.tag), "that of its list")?;
                let next = run.first_row == row && run.end_row > row;
                require(next, "run row", run.first_row, "the one after the run before")?;
                row = run.end_row;
                runs.push(run);
            }
            require(row == frozen, "last run row", row, "the frozen row")?;
        }
        self.filters.extend((0..count).map(|_| None));
        Ok(())
    }

    fn decode_merge(&mut self, reader: &mut Reader<'_>, level: usize) -> Result<(), DecodeError> {
        self.tasks.merges[level].clear();
        if !read_flag(reader, "merge")? {
            return Ok(());
        }
        let group = &mut self.tasks.merges[level];
        group.live = true;
        group.sequence = reader.read("merge op")?;
        group.deadline = reader.read("merge bar")?;
        group.first_row = reader.read("merge row")?;
        let first_row = group.first_row;
        let found = self.runs[0].iter().position(|run| run.first_row == first_row);
        let count = index_of(self.options.fan_in);
        let at = found.filter(|at| at + count <= self.runs[0].len()).filter(|at| {
            let runs = &self.runs[0][*at..at + count];
            runs.iter().all(|run| count_of(level) == u64::from(run.level))
        });
        let Some(at) = at else {
            return require(false, "merge row", first_row, "the first of runs of its level");
        };
        read_addresses(reader, &mut self.tasks.merges[level].addresses)?;
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

fn read_flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    let flag = reader.read::<u64>(what)?;
    require(flag <= 1, what, flag, "0 or 1")?;
    Ok(flag == 1)
}

fn read_addresses(reader: &mut Reader<'_>, lists: &mut [Vec<u64>]) -> Result<(), DecodeError> {
    for list in lists {
        let count = reader.read::<u64>("addresses")?;
        let fits = count <= count_of(list.capacity());
        require(fits, "addresses", count, "no more than there is memory for")?;
        list.clear();
        for _ in 0..count {
            list.push(reader.read("address")?);
        }
    }
    Ok(())
}
