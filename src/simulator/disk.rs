//! A disk in memory that completes requests in any order and loses what it may at a crash.
//!
//! Reads and writes take effect when they complete. A `Write` is lost or kept by a crash, sector by
//! sector, unless a `Sync` submitted after its completion has completed; a `WriteDurable` is kept
//! once it has completed. In-flight writes may reach the disk in part. A request may also be lost,
//! go elsewhere or fail. Damage can be done to sectors and is remembered until they are written
//! again; what each sector held before its last write is kept, so that it can come back. Not
//! covered: time, and which damage may be done.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::rand_core::Rng;

use crate::protocol::{SECTOR_SIZE, to_index};
use crate::storage::{DiskDone, DiskError, DiskKind, DiskRequest, StorageOutbox, count_of};

const SECTOR: u64 = SECTOR_SIZE as u64;
const SECTOR_LENGTH: usize = to_index(SECTOR_SIZE);
/// Error number that an injected failure reports: input/output error.
pub const ERRNO_IO: i32 = 5;
/// Error number of a full disk.
pub const ERRNO_NO_SPACE: i32 = 28;

type Sector = [u8; SECTOR_LENGTH];
/// Writes that changed a sector, in order, each with the contents before it.
type History = Vec<Before>;

/// What a sector held before a write that a crash may undo.
#[derive(Debug)]
struct Before {
    /// Number of the write.
    write: u64,
    contents: Option<Box<Sector>>,
    /// Whether that was damaged.
    is_damaged: bool,
}

/// What a disk has done, in operations and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Reads completed.
    pub reads: u64,
    /// Writes completed, durable or not.
    pub writes: u64,
    /// Syncs completed.
    pub syncs: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    request: DiskRequest,
    /// Completed writes at the time of submission: what a sync makes durable.
    writes_before: u64,
    /// What it writes counts as damaged.
    leaves_damage: bool,
    /// A read of what nobody wants to know any more.
    is_disregarded: bool,
}

/// Sparse contents of a data file plus the requests in flight.
#[derive(Debug)]
pub struct MemoryDisk {
    size: u64,
    /// What a reader sees; sectors never written are zero and absent.
    sectors: Vec<Option<Box<Sector>>>,
    /// What each sector held before its last write, as far as it was ever written twice.
    older: BTreeMap<u64, Box<Sector>>,
    /// End of the last sector that was ever written: the length of the file.
    extent: u64,
    /// What a crash may undo in every sector: the writes since the last sync that covers them.
    volatile: BTreeMap<u64, History>,
    in_flight: Vec<InFlight>,
    submitted: u64,
    writes_completed: u64,
    failures: BTreeMap<u64, u32>,
    /// Sectors whose next write is lost.
    losses: BTreeSet<u64>,
    /// Sectors that cannot be read until they are written.
    unreadable: BTreeSet<u64>,
    /// Sectors whose content is not what was written last, as far as somebody did that on purpose.
    damaged: BTreeSet<u64>,
    /// Those of the damaged some of whose content is intact, but older than it should be.
    stale: BTreeSet<u64>,
    /// Those of the damaged that were only read wrongly: the next read that succeeds tells so.
    misread: BTreeSet<u64>,
    counters: DiskCounters,
}

impl MemoryDisk {
    /// A disk of `size` bytes, all zero.
    ///
    /// # Panics
    ///
    /// If the size is no multiple of 4096.
    #[must_use]
    pub fn new(size: u64) -> MemoryDisk {
        assert!(size.is_multiple_of(SECTOR));
        MemoryDisk {
            size,
            sectors: vec![None; crate::storage::index_of(size / SECTOR)],
            older: BTreeMap::new(),
            extent: 0,
            volatile: BTreeMap::new(),
            in_flight: Vec::new(),
            submitted: 0,
            writes_completed: 0,
            failures: BTreeMap::new(),
            losses: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            damaged: BTreeSet::new(),
            stale: BTreeSet::new(),
            misread: BTreeSet::new(),
            counters: DiskCounters::default(),
        }
    }

    /// Operations done so far.
    #[must_use]
    pub fn counters(&self) -> DiskCounters {
        self.counters
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Requests in flight that write. A scrub syncs again and again, though it changes nothing.
    #[must_use]
    pub fn writes_in_flight(&self) -> usize {
        let writes = |flight: &&InFlight| {
            matches!(flight.request.kind, DiskKind::Write | DiskKind::WriteDurable)
        };
        self.in_flight.iter().filter(writes).count()
    }

    /// Takes a request; returns the number by which it can be completed.
    ///
    /// # Panics
    ///
    /// If the request breaks a rule or reaches beyond the disk.
    pub fn submit(&mut self, request: DiskRequest) -> u64 {
        self.take(request, false)
    }

    /// Takes a write after which its place counts as damaged: what it writes is damage.
    ///
    /// # Panics
    ///
    /// As [`submit`](Self::submit), or if it is no write.
    pub fn submit_damage(&mut self, request: DiskRequest) -> u64 {
        assert!(matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable));
        self.take(request, true)
    }

    fn take(&mut self, request: DiskRequest, leaves_damage: bool) -> u64 {
        request.check();
        assert!(request.offset + u64::from(request.length) <= self.size, "beyond the disk");
        let writes_before = self.writes_completed;
        self.submitted += 1;
        let id = self.submitted;
        let is_disregarded = false;
        self.in_flight.push(InFlight { id, request, writes_before, leaves_damage, is_disregarded });
        id
    }

    /// Takes all disk requests of an outbox.
    pub fn submit_all(&mut self, outbox: &mut StorageOutbox) {
        while let Some(request) = outbox.disk.pop() {
            self.submit(request);
        }
    }

    /// Completes one request in flight, chosen at random; `None` if there is none.
    pub fn complete_one(&mut self, random: &mut impl Rng) -> Option<DiskDone> {
        if self.in_flight.is_empty() {
            return None;
        }
        let chosen = random.next_u64() % count_of(self.in_flight.len());
        let flight = self.in_flight.swap_remove(crate::storage::index_of(chosen));
        Some(self.finish(flight))
    }

    /// Completes the oldest request in flight; `None` if there is none.
    pub fn complete_first(&mut self) -> Option<DiskDone> {
        if self.in_flight.is_empty() {
            return None;
        }
        let flight = self.in_flight.remove(0);
        Some(self.finish(flight))
    }

    /// Completes the request with this number; `None` if it is not in flight any more.
    pub fn complete(&mut self, id: u64) -> Option<DiskDone> {
        let place = self.in_flight.iter().position(|flight| flight.id == id)?;
        let flight = self.in_flight.swap_remove(place);
        Some(self.finish(flight))
    }

    /// Completes a read or write at another place than the one it is meant for. A write leaves the
    /// place that it is meant for as it was; both places are damaged then.
    ///
    /// # Panics
    ///
    /// If the other place reaches beyond the disk.
    pub fn complete_misdirected(&mut self, id: u64, offset: u64) -> Option<DiskDone> {
        let place = self.in_flight.iter().position(|flight| flight.id == id)?;
        let mut flight = self.in_flight.swap_remove(place);
        let meant = std::mem::replace(&mut flight.request.offset, offset);
        assert!(offset + u64::from(flight.request.length) <= self.size, "beyond the disk");
        let length = flight.request.length;
        let is_read = flight.request.kind == DiskKind::Read;
        let is_disregarded = flight.is_disregarded;
        let mut done = self.finish(flight);
        done.request.offset = meant;
        if is_read {
            if !is_disregarded {
                self.distrust(meant, length);
            }
        } else {
            self.make_stale(meant, length);
            self.damage(offset, length);
        }
        Some(done)
    }

    /// Completes a write that never happens: what was there stays, and nobody is told.
    ///
    /// # Panics
    ///
    /// If it is not a write.
    pub fn complete_lost(&mut self, id: u64) -> Option<DiskDone> {
        let place = self.in_flight.iter().position(|flight| flight.id == id)?;
        let flight = self.in_flight.swap_remove(place);
        Some(self.lose(flight.request))
    }

    /// Answers a write that never happens.
    fn lose(&mut self, request: DiskRequest) -> DiskDone {
        assert!(matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable));
        self.make_stale(request.offset, request.length);
        self.writes_completed += 1;
        self.counters.writes += 1;
        DiskDone { request, result: Ok(()) }
    }

    /// Completes a request with an error. A write has written any of its sectors, and a sync may
    /// have lost any of what it was to make durable.
    pub fn complete_failed(
        &mut self,
        id: u64,
        error: DiskError,
        random: &mut impl Rng,
    ) -> Option<DiskDone> {
        let place = self.in_flight.iter().position(|flight| flight.id == id)?;
        let flight = self.in_flight.swap_remove(place);
        let request = &flight.request;
        match request.kind {
            DiskKind::Read if flight.is_disregarded => {}
            DiskKind::Read => self.distrust(request.offset, request.length),
            DiskKind::Write | DiskKind::WriteDurable => {
                for index in 0..u64::from(request.length) / SECTOR {
                    if error.errno != ERRNO_NO_SPACE && random.next_u64().is_multiple_of(2) {
                        self.write_tracked(&flight, index);
                    }
                }
                self.writes_completed += 1;
            }
            DiskKind::Sync => self.lose_volatile(random),
        }
        Some(DiskDone { request: flight.request, result: Err(error) })
    }

    /// A request in flight.
    #[must_use]
    pub fn request(&self, id: u64) -> Option<&DiskRequest> {
        self.in_flight.iter().find(|flight| flight.id == id).map(|flight| &flight.request)
    }

    /// The sector at `offset` cannot be read until it is written.
    pub fn make_unreadable(&mut self, offset: u64) {
        self.unreadable.insert(offset / SECTOR);
        self.damage(offset, 1);
    }

    /// Counts a range as damaged although it is not, until it is read in full or written: somebody
    /// has read something else from there.
    fn distrust(&mut self, offset: u64, length: u32) {
        for sector in sectors_of(offset, length) {
            if self.damaged.insert(sector) {
                self.misread.insert(sector);
            }
        }
    }

    /// Counts a range as damaged. What is old stays old: a sector has many headers, of which this
    /// may hit one.
    fn damage(&mut self, offset: u64, length: u32) {
        for sector in sectors_of(offset, length) {
            self.damaged.insert(sector);
            self.misread.remove(&sector);
        }
    }

    /// Counts a range as damaged: what is there is intact, but of an earlier write.
    fn make_stale(&mut self, offset: u64, length: u32) {
        self.damage(offset, length);
        self.stale.extend(sectors_of(offset, length));
    }

    /// Counts a sector as damaged no longer, in whatever way it was.
    fn undamage(&mut self, sector: u64) {
        if self.damaged.remove(&sector) {
            self.stale.remove(&sector);
            self.misread.remove(&sector);
        }
    }

    /// Nobody will read this range before it is written again: whatever was done to it no longer
    /// counts, nor what a read that is on its way will find.
    pub fn disregard(&mut self, offset: u64, length: u32) {
        let range = sectors_of(offset, length);
        range.clone().for_each(|sector| self.undamage(sector));
        for flight in &mut self.in_flight {
            let read = sectors_of(flight.request.offset, flight.request.length);
            let overlaps = read.start < range.end && range.start < read.end;
            flight.is_disregarded |= flight.request.kind == DiskKind::Read && overlaps;
        }
    }

    /// Brings back what the sectors of a range held before their last writes; how many changed.
    pub fn roll_back(&mut self, offset: u64, length: u32) -> usize {
        let mut count = 0;
        for sector in sectors_of(offset, length) {
            let Some(older) = self.older.remove(&sector) else { continue };
            let place = &mut self.sectors[crate::storage::index_of(sector)];
            if let Some(newer) = place.replace(older) {
                self.older.insert(sector, newer);
            }
            self.make_stale(sector * SECTOR, 1);
            count += 1;
        }
        count
    }

    /// Whether older content than there should be lies in a range.
    #[must_use]
    pub fn is_stale(&self, offset: u64, length: u64) -> bool {
        let end = (offset + length).div_ceil(SECTOR);
        self.stale.range(offset / SECTOR..end).next().is_some()
    }

    /// End of the last sector that was ever written: writes behind it make the file longer.
    #[must_use]
    pub fn extent(&self) -> u64 {
        self.extent
    }

    /// Offsets of sectors from `start` on that are damaged, or may be after a crash.
    pub fn damaged_from(&self, start: u64) -> impl Iterator<Item = u64> {
        let now = self.damaged.range(start / SECTOR..).copied();
        let then = self.volatile.range(start / SECTOR..);
        let then = then.filter(|(_, history)| history.iter().any(|before| before.is_damaged));
        now.chain(then.map(|(sector, _)| *sector)).map(|sector| sector * SECTOR)
    }

    /// Whether damage was done to a sector of this range and it was not written since.
    #[must_use]
    pub fn is_damaged(&self, offset: u64, length: u64) -> bool {
        let end = (offset + length).div_ceil(SECTOR);
        self.damaged.range(offset / SECTOR..end).next().is_some()
    }

    /// Completes the oldest request in flight of those chosen; `None` if there is none.
    pub fn complete_first_of(&mut self, chosen: impl Fn(&DiskRequest) -> bool) -> Option<DiskDone> {
        let index = self.in_flight.iter().position(|flight| chosen(&flight.request))?;
        let flight = self.in_flight.remove(index);
        Some(self.finish(flight))
    }

    /// The next `count` operations that touch the sector at `offset` fail.
    pub fn fail(&mut self, offset: u64, count: u32) {
        self.failures.insert(offset / SECTOR, count);
    }

    /// The next write that touches the sector at `offset` never happens, and nobody is told.
    pub fn lose_write(&mut self, offset: u64) {
        self.losses.insert(offset / SECTOR);
    }

    /// Whether this is a write that is to be lost, which is over then.
    fn is_lost(&mut self, request: &DiskRequest) -> bool {
        let first = request.offset / SECTOR;
        let mut touched = self.losses.range(first..first + u64::from(request.length) / SECTOR);
        let is_write = matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable);
        let lost = touched.next().copied().filter(|_| is_write);
        lost.is_some_and(|sector| self.losses.remove(&sector))
    }

    /// Flips a bit of the byte at `offset`.
    pub fn corrupt(&mut self, offset: u64) {
        self.damage(offset, 1);
        let sector = self.sector_mut(offset / SECTOR);
        sector[crate::storage::index_of(offset % SECTOR)] ^= 0x40;
    }

    /// Makes a range zero, as if its writes had gone elsewhere.
    pub fn blank(&mut self, offset: u64, length: u32) {
        self.make_stale(offset, length);
        for sector in sectors_of(offset, length) {
            self.sectors[crate::storage::index_of(sector)] = None;
        }
    }

    /// Copies the sector at one offset to another, as a misdirected write would.
    pub fn misdirect(&mut self, from: u64, to: u64) {
        let copy = self.sectors[crate::storage::index_of(from / SECTOR)].clone();
        self.sectors[crate::storage::index_of(to / SECTOR)] = copy;
        self.damage(to, 1);
    }

    /// Power loss: requests in flight vanish, each of their sectors having been written or not;
    /// each sector not made durable keeps any of the contents it had since.
    pub fn crash(&mut self, random: &mut impl Rng) {
        self.crash_untorn(random, 0);
    }

    /// Power loss, with each write in flight that begins below `untorn_below` having been written
    /// in full or not at all.
    pub fn crash_untorn(&mut self, random: &mut impl Rng, untorn_below: u64) {
        self.lose_volatile(random);
        for flight in std::mem::take(&mut self.in_flight) {
            let request = &flight.request;
            if !matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable) {
                continue;
            }
            let untorn = request.offset < untorn_below;
            let whole = untorn.then(|| random.next_u64().is_multiple_of(2));
            for index in 0..u64::from(request.length) / SECTOR {
                if whole.unwrap_or_else(|| random.next_u64().is_multiple_of(2)) {
                    self.write_sector(&flight, index);
                }
            }
        }
    }

    /// Undoes any of the writes that no sync has made durable.
    fn lose_volatile(&mut self, random: &mut impl Rng) {
        for (sector, mut history) in std::mem::take(&mut self.volatile) {
            let survived = random.next_u64() % (count_of(history.len()) + 1);
            let survived = crate::storage::index_of(survived);
            if survived < history.len() {
                let before = history.swap_remove(survived);
                self.restore(sector, before.contents);
                if before.is_damaged {
                    self.damage(sector * SECTOR, 1);
                }
            }
        }
    }

    /// Power loss with a chosen outcome: of each write in flight those sectors reach the disk for
    /// which `keep` says so, given the sector's place in the write and how many it has. What a sync
    /// would have made durable is kept.
    pub fn crash_keeping(&mut self, keep: impl Fn(u64, u64) -> bool) {
        self.volatile.clear();
        for flight in std::mem::take(&mut self.in_flight) {
            let request = &flight.request;
            if !matches!(request.kind, DiskKind::Write | DiskKind::WriteDurable) {
                continue;
            }
            let count = u64::from(request.length) / SECTOR;
            for index in (0..count).filter(|index| keep(*index, count)) {
                self.write_sector(&flight, index);
            }
        }
    }

    /// Contents at `offset`, as a reader would see them now.
    #[must_use]
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        let mut position = offset;
        while bytes.len() < length {
            let within = crate::storage::index_of(position % SECTOR);
            let take = (SECTOR_LENGTH - within).min(length - bytes.len());
            match &self.sectors[crate::storage::index_of(position / SECTOR)] {
                Some(sector) => bytes.extend_from_slice(&sector[within..within + take]),
                None => bytes.resize(bytes.len() + take, 0),
            }
            position += count_of(take);
        }
        bytes
    }

    /// Offset of the first sector from `start` on in which two disks differ.
    #[must_use]
    pub fn first_difference<'a>(&'a self, other: &'a MemoryDisk, start: u64) -> Option<u64> {
        let first = crate::storage::index_of(start / SECTOR);
        let last = self.sectors.len().max(other.sectors.len());
        let zero = [0; SECTOR_LENGTH];
        let bytes = |disk: &'a MemoryDisk, index: usize| match disk.sectors.get(index) {
            Some(Some(sector)) => Some(&**sector),
            _ => None,
        };
        let differs = |index: &usize| match (bytes(self, *index), bytes(other, *index)) {
            (None, None) => false,
            (left, right) => left.unwrap_or(&zero) != right.unwrap_or(&zero),
        };
        (first..last).find(differs).map(|index| count_of(index) * SECTOR)
    }

    /// A disk with the same contents, all of them durable, and nothing in flight.
    #[must_use]
    pub fn copy(&self) -> MemoryDisk {
        let mut copy = MemoryDisk::new(self.size);
        copy.sectors.clone_from(&self.sectors);
        copy.extent = self.extent;
        copy
    }

    fn finish(&mut self, mut flight: InFlight) -> DiskDone {
        if self.is_lost(&flight.request) {
            return self.lose(flight.request);
        }
        let result = self.fails(&flight.request);
        if result.is_ok() {
            match flight.request.kind {
                DiskKind::Read => self.complete_read(&mut flight.request),
                DiskKind::Write | DiskKind::WriteDurable => self.complete_write(&flight),
                DiskKind::Sync => {
                    self.counters.syncs += 1;
                    let before = flight.writes_before;
                    for history in self.volatile.values_mut() {
                        history.retain(|entry| entry.write >= before);
                    }
                    self.volatile.retain(|_, history| !history.is_empty());
                }
            }
        }
        DiskDone { request: flight.request, result }
    }

    fn fails(&mut self, request: &DiskRequest) -> Result<(), DiskError> {
        let first = request.offset / SECTOR;
        let end = first + u64::from(request.length) / SECTOR;
        for (_, left) in self.failures.range_mut(first..end) {
            if *left > 0 {
                *left -= 1;
                return Err(DiskError { errno: ERRNO_IO, bytes_done: 0 });
            }
        }
        if request.kind == DiskKind::Read && self.unreadable.range(first..end).next().is_some() {
            return Err(DiskError { errno: ERRNO_IO, bytes_done: 0 });
        }
        Ok(())
    }

    fn complete_read(&mut self, request: &mut DiskRequest) {
        let bytes = self.read(request.offset, to_index(request.length));
        let start = to_index(request.buffer_offset);
        let buffer = request.buffer.as_mut().expect("a read has a buffer");
        buffer.bytes_mut()[start..start + bytes.len()].copy_from_slice(&bytes);
        if !self.misread.is_empty() {
            for sector in sectors_of(request.offset, request.length) {
                if self.misread.remove(&sector) {
                    self.damaged.remove(&sector);
                }
            }
        }
        self.counters.reads += 1;
        self.counters.bytes_read += count_of(bytes.len());
    }

    fn complete_write(&mut self, flight: &InFlight) {
        let length = u64::from(flight.request.length);
        for index in 0..length / SECTOR {
            self.write_tracked(flight, index);
        }
        self.writes_completed += 1;
        self.counters.writes += 1;
        self.counters.bytes_written += length;
    }

    /// Writes a sector, and notes what a crash may bring back.
    fn write_tracked(&mut self, flight: &InFlight, index: u64) {
        let request = &flight.request;
        let sector = request.offset / SECTOR + index;
        if request.kind == DiskKind::Write {
            let before = Before {
                write: self.writes_completed,
                contents: self.sectors[crate::storage::index_of(sector)].clone(),
                is_damaged: self.damaged.contains(&sector),
            };
            self.volatile.entry(sector).or_default().push(before);
        } else {
            self.volatile.remove(&sector);
        }
        self.write_sector(flight, index);
    }

    fn write_sector(&mut self, flight: &InFlight, index: u64) {
        let request = &flight.request;
        let buffer = request.buffer.as_ref().expect("a write has a buffer");
        let start =
            to_index(request.buffer_offset) + crate::storage::index_of(index) * SECTOR_LENGTH;
        let sector = request.offset / SECTOR + index;
        self.unreadable.remove(&sector);
        self.undamage(sector);
        if flight.leaves_damage {
            self.damaged.insert(sector);
        }
        self.extent = self.extent.max((sector + 1) * SECTOR);
        // The buffer of what is older than the content that becomes old now is used again.
        let mut target = self.older.remove(&sector).unwrap_or_else(zero_sector);
        target.copy_from_slice(&buffer.bytes()[start..start + SECTOR_LENGTH]);
        if let Some(older) = self.sectors[crate::storage::index_of(sector)].replace(target) {
            self.older.insert(sector, older);
        }
    }

    fn restore(&mut self, sector: u64, contents: Option<Box<Sector>>) {
        self.sectors[crate::storage::index_of(sector)] = contents;
    }

    fn sector_mut(&mut self, sector: u64) -> &mut Sector {
        self.sectors[crate::storage::index_of(sector)].get_or_insert_with(zero_sector)
    }
}

/// Numbers of the sectors of a range.
fn sectors_of(offset: u64, length: u32) -> std::ops::Range<u64> {
    offset / SECTOR..(offset + u64::from(length)).div_ceil(SECTOR)
}

fn zero_sector() -> Box<Sector> {
    Box::new([0; SECTOR_LENGTH])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Pool;
    use crate::storage::{DiskOwner, DiskToken};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn request(pool: &Pool, kind: DiskKind, offset: u64, mark: u8) -> DiskRequest {
        let token = DiskToken { owner: DiskOwner::GridWrite, index: mark.into() };
        if kind == DiskKind::Sync {
            return DiskRequest { token, kind, offset, length: 0, buffer: None, buffer_offset: 0 };
        }
        let mut buffer = pool.acquire();
        buffer.bytes_mut().fill(mark);
        let buffer = Some(buffer);
        DiskRequest { token, kind, offset, length: 8192, buffer, buffer_offset: 0 }
    }

    /// Goal: a read gets what was written, and nothing takes effect before it completes.
    #[test]
    fn writes_and_reads() {
        let pool = Pool::new("test", 4, 8192);
        let mut disk = MemoryDisk::new(1 << 20);
        disk.submit(request(&pool, DiskKind::Write, 4096, 7));
        assert_eq!(disk.read(4096, 2), [0, 0]);
        assert!(disk.complete_first().unwrap().result.is_ok());
        disk.submit(request(&pool, DiskKind::Read, 8192, 9));
        let done = disk.complete_first().unwrap();
        let bytes = done.request.buffer.as_ref().unwrap().bytes();
        assert_eq!((bytes[0], bytes[4095], bytes[4096]), (7, 7, 0));
        assert_eq!(disk.counters().bytes_written, 8192);
        assert!(disk.complete_first().is_none());
    }

    /// Goal: durable and synced writes survive every crash; the others are lost in some and torn
    /// in some.
    #[test]
    fn crash_keeps_what_is_durable() {
        let pool = Pool::new("test", 8, 8192);
        let (mut lost, mut torn) = (0, 0);
        for seed in 0..64 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut disk = MemoryDisk::new(1 << 20);
            disk.submit(request(&pool, DiskKind::WriteDurable, 0, 1));
            disk.submit(request(&pool, DiskKind::Write, 8192, 2));
            while disk.complete_one(&mut random).is_some() {}
            disk.submit(request(&pool, DiskKind::Sync, 0, 0));
            while disk.complete_one(&mut random).is_some() {}
            disk.submit(request(&pool, DiskKind::Write, 16_384, 3));
            while disk.complete_one(&mut random).is_some() {}
            disk.submit(request(&pool, DiskKind::WriteDurable, 24_576, 4));
            disk.crash(&mut random);
            assert_eq!(disk.in_flight(), 0);
            assert_eq!(disk.read(0, 8192), [1; 8192]);
            assert_eq!(disk.read(8192, 8192), [2; 8192]);
            let (first, second) = (disk.read(16_384, 1)[0], disk.read(20_480, 1)[0]);
            lost += u32::from(first == 0 && second == 0);
            torn += u32::from(first != second);
            assert_eq!(pool.available(), 8);
        }
        assert!(lost > 0);
        assert!(torn > 0);
    }

    /// Goal: injected failures and corruption are seen, and differences are located.
    #[test]
    fn faults_and_differences() {
        let pool = Pool::new("test", 4, 8192);
        let mut disk = MemoryDisk::new(1 << 20);
        disk.fail(4096, 1);
        disk.submit(request(&pool, DiskKind::Write, 0, 1));
        assert!(disk.complete_first().unwrap().result.is_err());
        disk.submit(request(&pool, DiskKind::Write, 0, 1));
        assert!(disk.complete_first().unwrap().result.is_ok());
        let mut other = disk.copy();
        assert_eq!(disk.first_difference(&other, 0), None);
        other.corrupt(4097);
        assert_eq!(disk.first_difference(&other, 0), Some(4096));
        assert_eq!(disk.first_difference(&other, 8192), None);
        other.misdirect(0, 4096);
        assert_eq!(disk.first_difference(&other, 0), None);
    }

    /// Goal: a misdirected write damages two places, a misdirected read none; damage lasts until
    /// the place is written, and an unreadable sector fails until then.
    #[test]
    fn damage_lasts_until_written() {
        let pool = Pool::new("test", 4, 8192);
        let mut disk = MemoryDisk::new(1 << 20);
        let id = disk.submit(request(&pool, DiskKind::WriteDurable, 0, 1));
        assert_eq!(disk.request(id).unwrap().offset, 0);
        let done = disk.complete_misdirected(id, 16_384).unwrap();
        assert_eq!(done.request.offset, 0);
        assert_eq!((disk.read(0, 1), disk.read(16_384, 1)), (vec![0], vec![1]));
        assert!(disk.is_damaged(0, 8192) && disk.is_damaged(20_480, 4096));
        assert!(!disk.is_damaged(8192, 8192));
        let id = disk.submit(request(&pool, DiskKind::Read, 0, 9));
        let done = disk.complete_misdirected(id, 16_384).unwrap();
        assert_eq!(done.request.buffer.as_ref().unwrap().bytes()[0], 1);
        disk.make_unreadable(0);
        let id = disk.submit(request(&pool, DiskKind::Read, 0, 9));
        assert!(disk.complete(id).unwrap().result.is_err());
        let id = disk.submit(request(&pool, DiskKind::WriteDurable, 0, 2));
        assert!(disk.complete(id).unwrap().result.is_ok());
        assert!(!disk.is_damaged(0, 8192));
        let id = disk.submit(request(&pool, DiskKind::Read, 0, 9));
        assert!(disk.complete(id).unwrap().result.is_ok());
        assert!(disk.complete(id).is_none());
    }

    /// Goal: what nobody will read does not count, neither a failed read nor rot nor old content; a
    /// sector that cannot be read stays so.
    #[test]
    fn disregarded_damage() {
        let pool = Pool::new("test", 1, 8192);
        let mut disk = MemoryDisk::new(1 << 20);
        disk.distrust(0, 8192);
        disk.make_unreadable(8192);
        disk.make_stale(12_288, 4096);
        let late = disk.submit(request(&pool, DiskKind::Read, 0, 9));
        disk.disregard(4096, 12_288);
        assert!(disk.is_damaged(0, 4096), "before it");
        assert!(!disk.is_damaged(4096, 12_288) && !disk.is_stale(4096, 12_288));
        assert!(disk.misread.contains(&0) && disk.misread.len() == 1);
        let error = DiskError { errno: ERRNO_IO, bytes_done: 0 };
        let mut random = ChaCha8Rng::seed_from_u64(1);
        assert!(disk.complete_failed(late, error, &mut random).is_some());
        assert!(!disk.is_damaged(4096, 4096), "it was on its way");
        let id = disk.submit(request(&pool, DiskKind::Read, 4096, 9));
        assert!(disk.complete(id).unwrap().result.is_err());
    }

    /// Goal: a write of what is damage leaves its place damaged, whole or torn by a crash, until
    /// something sound is written.
    #[test]
    fn damage_is_written_again() {
        let pool = Pool::new("test", 3, 8192);
        let mut disk = MemoryDisk::new(1 << 20);
        disk.corrupt(100);
        let id = disk.submit_damage(request(&pool, DiskKind::WriteDurable, 0, 1));
        assert!(disk.complete(id).unwrap().result.is_ok());
        assert!(disk.is_damaged(0, 4096) && disk.is_damaged(4096, 4096));
        let id = disk.submit(request(&pool, DiskKind::WriteDurable, 0, 2));
        assert!(disk.complete(id).unwrap().result.is_ok());
        assert!(!disk.is_damaged(0, 8192));
        disk.submit_damage(request(&pool, DiskKind::WriteDurable, 0, 3));
        disk.crash_keeping(|place, _| place == 1);
        assert!(!disk.is_damaged(0, 4096) && disk.is_damaged(4096, 4096));
    }

    /// Goal: a lost write and a roll-back leave what was there before, and that is told until the
    /// place is written, also if it rots meanwhile.
    #[test]
    fn old_content_comes_back() {
        let pool = Pool::new("test", 2, 8192);
        let mut disk = MemoryDisk::new(1 << 20);
        assert_eq!(disk.extent(), 0);
        for mark in 1..=2 {
            let id = disk.submit(request(&pool, DiskKind::WriteDurable, 0, mark));
            assert!(disk.complete(id).unwrap().result.is_ok());
        }
        assert_eq!(disk.extent(), 8192);
        let id = disk.submit(request(&pool, DiskKind::WriteDurable, 0, 3));
        assert!(disk.complete_lost(id).unwrap().result.is_ok());
        assert_eq!(disk.read(0, 8192), [2; 8192]);
        assert!(disk.is_stale(0, 8192) && disk.is_damaged(4096, 4096));
        let id = disk.submit(request(&pool, DiskKind::WriteDurable, 0, 4));
        assert!(disk.complete(id).unwrap().result.is_ok());
        assert!(!disk.is_stale(0, 8192) && !disk.is_damaged(0, 8192));
        assert_eq!(disk.roll_back(4096, 8192), 1);
        assert_eq!((disk.read(0, 1), disk.read(4096, 1)), (vec![4], vec![2]));
        disk.corrupt(4097);
        assert!(disk.is_stale(4096, 1) && !disk.is_damaged(0, 4096));
        let id = disk.submit(request(&pool, DiskKind::WriteDurable, 0, 5));
        assert!(disk.complete(id).unwrap().result.is_ok());
        assert!(!disk.is_stale(0, 8192) && !disk.is_damaged(0, 8192));
    }

    /// Goal: a failed read counts as damage until one succeeds; a failed write has written some of
    /// its sectors or none; a failed sync loses some of what it was for.
    #[test]
    fn failed_requests() {
        let pool = Pool::new("test", 2, 8192);
        let error = DiskError { errno: ERRNO_IO, bytes_done: 0 };
        let (mut torn, mut lost) = (0, 0);
        for seed in 0..64 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut disk = MemoryDisk::new(1 << 20);
            let id = disk.submit(request(&pool, DiskKind::Read, 0, 9));
            assert_eq!(disk.complete_failed(id, error, &mut random).unwrap().result, Err(error));
            assert!(disk.is_damaged(0, 8192) && !disk.is_stale(0, 8192));
            let id = disk.submit(request(&pool, DiskKind::Read, 0, 9));
            assert!(disk.complete(id).unwrap().result.is_ok());
            assert!(!disk.is_damaged(0, 8192));
            let id = disk.submit(request(&pool, DiskKind::WriteDurable, 0, 1));
            assert!(disk.complete_failed(id, error, &mut random).unwrap().result.is_err());
            torn += u32::from(disk.read(0, 1) != disk.read(4096, 1));
            let full = DiskError { errno: ERRNO_NO_SPACE, bytes_done: 0 };
            let id = disk.submit(request(&pool, DiskKind::Write, 8192, 2));
            assert!(disk.complete_failed(id, full, &mut random).unwrap().result.is_err());
            assert_eq!(disk.read(8192, 8192), [0; 8192]);
            let id = disk.submit(request(&pool, DiskKind::Write, 8192, 3));
            assert!(disk.complete(id).unwrap().result.is_ok());
            let id = disk.submit(request(&pool, DiskKind::Sync, 0, 0));
            assert!(disk.complete_failed(id, error, &mut random).unwrap().result.is_err());
            lost += u32::from(disk.read(8192, 8192) != [3; 8192]);
        }
        assert!(torn > 0);
        assert!(lost > 0);
    }
}
