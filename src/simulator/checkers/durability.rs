//! Promises: what is acknowledged, voted or committed must be durable first.
//!
//! Follows each durable write to the logs and superblocks. Damage done later by a fault does not
//! break a promise. Not covered: the redundant headers.

use zerocopy::FromBytes;

use super::Failure;
use crate::protocol::{Command, Header, PrepareHeader, checksum, to_index};
use crate::require;
use crate::simulator::disk::MemoryDisk;
use crate::storage::zones::SUPERBLOCK_COPIES;
use crate::storage::{Config, DiskRequest, Zone, Zones, index_of};
use crate::vsr::superblock::{ASKING_FOR_VIEWS, COPY_SIZE, Superblock};

/// What a superblock promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Promise {
    sequence: u64,
    view: u32,
    log_view: u32,
    checkpoint: u64,
    /// The last op in the checkpoint and the checksum of its prepare: committed, even if blocks of
    /// the checkpoint are missing here.
    covers: (u64, u128),
}

/// What one replica has on disk.
#[derive(Clone, Debug)]
struct Holdings {
    /// Op and checksum of the prepare in each slot.
    slots: Vec<Option<(u64, u128)>>,
    copies: [Promise; SUPERBLOCK_COPIES as usize],
    /// What it had before it lost its file, as long as it recovers: it may have acknowledged it.
    lost: Option<Lost>,
}

#[derive(Clone, Debug)]
struct Lost {
    slots: Vec<Option<(u64, u128)>>,
    checkpoint: u64,
    /// The last view that any of the files it lost was in: it may have reported its log for it.
    view: u32,
}

/// What every replica has on disk.
#[derive(Debug)]
pub struct Durability {
    config: Config,
    zones: Zones,
    voters: usize,
    replicas: Vec<Holdings>,
}

impl Durability {
    /// Fresh data files of so many replicas, the first of which vote.
    #[must_use]
    pub fn new(config: &Config, replicas: usize, voters: usize) -> Durability {
        let slots = vec![None; to_index(config.journal_slots)];
        let holdings = Holdings { slots, copies: [Promise::default(); 4], lost: None };
        Durability {
            config: *config,
            zones: Zones::new(config),
            voters,
            replicas: vec![holdings; replicas],
        }
    }

    /// Notes a durable write that has completed.
    ///
    /// # Panics
    ///
    /// If an invariant of the simulator is broken.
    pub fn written(&mut self, replica: usize, request: &DiskRequest) {
        let (zone, offset) = self.zones.locate(request.offset);
        let start = to_index(request.buffer_offset);
        let end = start + to_index(request.length);
        let bytes = &request.buffer.as_ref().expect("a write has a buffer").bytes()[start..end];
        let holdings = &mut self.replicas[replica];
        if zone == Zone::WalPrepares {
            let slot = index_of(offset / u64::from(self.config.message_size_max));
            holdings.slots[slot] = prepare_in(bytes);
        } else if zone == Zone::Superblock {
            let copy = index_of(offset) / COPY_SIZE;
            holdings.copies[copy] = promise_in(bytes, copy);
        }
    }

    /// Looks at a disk again after a crash: writes in flight may have come through.
    pub fn rescan(&mut self, replica: usize, disk: &MemoryDisk) {
        let size = to_index(self.config.message_size_max);
        for slot in 0..self.config.journal_slots {
            let offset = self.zones.wal_prepare_offset(slot);
            let found = prepare_in(&disk.read(offset, size));
            let known = &mut self.replicas[replica].slots[to_index(slot)];
            // An older op than one that was durable: that one was written elsewhere.
            let older = found.zip(*known).is_some_and(|(found, known)| found.0 < known.0);
            // A fault has put back what was there before, which may be a prepare of the same op in
            // an earlier view. A write that has come through would have replaced it.
            let put_back = found.is_some() && disk.is_stale(offset, 1);
            if older || put_back {
                continue;
            }
            if found.is_some() || !disk.is_damaged(offset, u64::from(self.config.message_size_max))
            {
                *known = found;
            }
        }
        for copy in 0..SUPERBLOCK_COPIES {
            let offset = self.zones.superblock_offset(copy);
            let bytes = disk.read(offset, COPY_SIZE);
            let copy = to_index(copy);
            let found = promise_in(&bytes, copy);
            self.replicas[replica].copies[copy] = found;
        }
    }

    /// Notes that a replica has lost its file.
    pub fn lose(&mut self, replica: usize) {
        let Promise { checkpoint, view, .. } = self.promise(replica);
        let holdings = &mut self.replicas[replica];
        let empty = vec![None; holdings.slots.len()];
        let slots = std::mem::replace(&mut holdings.slots, empty);
        // Nothing is acknowledged before it has recovered: what counts is what the first file had.
        let lost = holdings.lost.get_or_insert(Lost { slots, checkpoint, view });
        lost.view = lost.view.max(view);
        holdings.copies = [Promise::default(); SUPERBLOCK_COPIES as usize];
    }

    /// Notes that a replica has recovered.
    pub fn recovered(&mut self, replica: usize) {
        self.replicas[replica].lost = None;
    }

    /// Whether a replica has a prepare, or had it before it lost its file.
    fn held(&self, replica: usize, op: u64, checksum: u128) -> bool {
        let slot = index_of(op % u64::from(self.config.journal_slots));
        let lost = self.replicas[replica].lost.as_ref();
        let had = lost.is_some_and(|lost| lost.slots[slot] == Some((op, checksum)));
        had || self.holds(replica, op, checksum)
    }

    /// Whether a replica has a prepare.
    #[must_use]
    pub fn holds(&self, replica: usize, op: u64, checksum: u128) -> bool {
        let slot = index_of(op % u64::from(self.config.journal_slots));
        self.replicas[replica].slots[slot] == Some((op, checksum))
    }

    /// Checks that a quorum has an op when it is committed first.
    ///
    /// # Errors
    ///
    /// If fewer have it.
    pub fn committed(&self, replica: usize, header: &PrepareHeader) -> Result<(), Failure> {
        let quorum = replication_quorum(self.voters);
        let (op, checksum) = (header.op, header.frame.checksum);
        let holders: Vec<usize> =
            (0..self.voters).filter(|voter| self.held(*voter, op, checksum)).collect();
        require!(
            holders.len() >= quorum,
            "replica {replica} committed op {op}, which only voters {holders:?} have durably, of \
             a quorum of {quorum}"
        );
        // What a checkpoint releases is used again after this many ops: a quorum must have it.
        let reach = u64::from(self.config.checkpoint_interval + self.config.release_delay);
        let ready = |voter: &usize| {
            let lost = self.replicas[*voter].lost.as_ref().map_or(0, |lost| lost.checkpoint);
            op < self.promise(*voter).checkpoint.max(lost) + reach
        };
        let count = (0..self.voters).filter(ready).count();
        require!(
            count >= quorum,
            "replica {replica} committed op {op}, but the checkpoint that it rests on is durable \
             on {count} voters only, of a quorum of {quorum}"
        );
        Ok(())
    }

    /// Checks a message that a replica sends to another.
    ///
    /// # Errors
    ///
    /// If it promises what is not durable.
    pub fn sent(&self, replica: usize, header: &Header) -> Result<(), Failure> {
        let Ok(command) = Command::try_from(header.frame.command) else { return Ok(()) };
        let view = header.frame.view;
        let promise = self.promise(replica);
        if let Some(lost) = &self.replicas[replica].lost {
            require!(
                promise.view == 0 || promise.view > lost.view,
                "replica {replica} recovers in view {}, though a file that it lost was in view {}",
                promise.view,
                lost.view
            );
        }
        match command {
            Command::PrepareOk => {
                let peer = header.peer();
                let op = peer.op;
                // The last op in a checkpoint is committed, and nobody needs its prepare to have
                // what it did: of that only the header is verified when the log is opened.
                require!(
                    promise.covers == (op, peer.context) || self.holds(replica, op, peer.context),
                    "replica {replica} acknowledges op {op}, which it does not have durably"
                );
                require!(
                    promise.view >= view,
                    "replica {replica} acknowledges in view {view}; durable is {promise:?}"
                );
            }
            Command::DoViewChange => {
                let log_view = header.peer().log_view;
                require!(
                    promise.view >= view && promise.log_view >= log_view,
                    "replica {replica} votes for view {view} with log view {log_view}; durable is \
                     {promise:?}"
                );
            }
            Command::StartView => require!(
                promise.view >= view && promise.log_view >= view,
                "replica {replica} starts view {view}; durable is {promise:?}"
            ),
            _ => {}
        }
        Ok(())
    }

    /// The newest promise that two copies make.
    fn promise(&self, replica: usize) -> Promise {
        let copies = &self.replicas[replica].copies;
        let agreed = |promise: &&Promise| {
            copies.iter().filter(|other| other.sequence == promise.sequence).count() >= 2
        };
        copies.iter().filter(agreed).max_by_key(|copy| copy.sequence).copied().unwrap_or_default()
    }
}

/// Replicas that must have an op before it is committed.
#[must_use]
pub fn replication_quorum(voters: usize) -> usize {
    [1, 2, 2, 2, 3, 3][voters - 1]
}

/// Replicas that must take part in a change of view.
#[must_use]
pub fn view_change_quorum(voters: usize) -> usize {
    [1, 2, 2, 3, 3, 4][voters - 1]
}

/// The prepare in a slot, if it is intact.
fn prepare_in(bytes: &[u8]) -> Option<(u64, u128)> {
    let (header, body) = PrepareHeader::read_from_prefix(bytes).ok()?;
    if header.frame.command != Command::Prepare as u8 || !header.header().valid_checksum() {
        return None;
    }
    let size = to_index(header.frame.size).checked_sub(size_of::<PrepareHeader>())?;
    (header.frame.checksum_body == checksum(body.get(..size)?))
        .then_some((header.op, header.frame.checksum))
}

fn promise_in(bytes: &[u8], copy: usize) -> Promise {
    let Ok(superblock) = Superblock::read_from_bytes(bytes) else { return Promise::default() };
    let valid = superblock.checksum == checksum(&bytes[32..]) && to_index(superblock.copy) == copy;
    if !valid {
        return Promise::default();
    }
    let Superblock { sequence, log_view, sync_op_max, .. } = superblock;
    // A new file is in no view before it has asked for those of others.
    let asks = superblock.recovering == ASKING_FOR_VIEWS;
    let view = if asks { 0 } else { superblock.view };
    let checkpoint = match sync_op_max {
        0 => superblock.checkpoint.op,
        // Its blocks need not be there yet.
        op => op - u64::from(superblock.config.checkpoint_interval),
    };
    let covers = (superblock.checkpoint.op, superblock.checkpoint.frame.checksum);
    Promise { sequence, view, log_view, checkpoint, covers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::peer::PeerHeader;
    use crate::protocol::{Pool, to_size};
    use crate::storage::{DiskKind, DiskOwner, DiskToken};
    use crate::vsr::Genesis;
    use crate::vsr::test_log::prepare;
    use zerocopy::IntoBytes;

    /// Goal: the quorums of every size intersect.
    #[test]
    fn quorums_intersect() {
        for voters in 1..=6 {
            assert!(replication_quorum(voters) + view_change_quorum(voters) > voters);
        }
    }

    /// Goal: a prepare that a fault replaces by the one before, of the same op, still counts as
    /// durable; one that a write in flight replaces at a crash does not.
    #[test]
    fn prepares_that_are_put_back() {
        let config = Config::testing();
        let zones = Zones::new(&config);
        let pool = Pool::new("test", 8, config.message_size_max);
        let mut durability = Durability::new(&config, 3, 3);
        let mut disk = MemoryDisk::new(zones.start(Zone::Grid));
        let offset = zones.wal_prepare_offset(10);
        let prepares: Vec<_> = (1..=3).map(|view| prepare(42, view, 512, &pool)).collect();
        let write = |number: usize| {
            let mut buffer = pool.acquire();
            buffer.bytes_mut()[..512].copy_from_slice(&prepares[number].bytes()[..512]);
            let token = DiskToken { owner: DiskOwner::JournalPrepare, index: 0 };
            let (kind, length, buffer) = (DiskKind::WriteDurable, 4096, Some(buffer));
            DiskRequest { token, kind, offset, length, buffer, buffer_offset: 0 }
        };
        let holds = |durability: &Durability, number: usize| {
            durability.holds(0, 42, prepares[number].header().frame.checksum)
        };
        for number in 0..2 {
            durability.written(0, &write(number));
            let id = disk.submit(write(number));
            assert!(disk.complete(id).unwrap().result.is_ok());
        }
        assert_eq!(disk.roll_back(offset, 4096), 1);
        durability.rescan(0, &disk);
        assert!(holds(&durability, 1) && !holds(&durability, 0));
        disk.submit(write(2));
        disk.crash_keeping(|_, _| true);
        durability.rescan(0, &disk);
        assert!(holds(&durability, 2));
    }

    /// Goal: without its prepare only the last op of a durable checkpoint may be acknowledged, and
    /// only as what the checkpoint names.
    #[test]
    fn acknowledgements_need_the_prepare() {
        let config = Config::testing();
        let mut durability = Durability::new(&config, 3, 3);
        let sends = |durability: &Durability, op, checksum| {
            let mut peer = PeerHeader::new(Command::PrepareOk);
            (peer.op, peer.context) = (op, checksum);
            durability.sent(1, peer.header())
        };
        assert!(sends(&durability, 16, 5).is_err());
        let genesis =
            Genesis { cluster: 1, replica: 1, replica_count: 3, config, is_recovering: false };
        let mut superblock = Superblock::genesis(&genesis);
        superblock.checkpoint.op = 16;
        superblock.checkpoint.frame.checksum = 5;
        superblock.seal();
        let pool = Pool::new("test", 1, to_size(COPY_SIZE));
        let zones = Zones::new(&config);
        for copy in 0..2 {
            assert!(sends(&durability, 16, 5).is_err(), "one copy is no promise");
            superblock.copy = copy;
            let mut buffer = pool.acquire();
            buffer.bytes_mut().copy_from_slice(superblock.as_bytes());
            let token = DiskToken { owner: DiskOwner::Superblock, index: copy };
            let (kind, length) = (DiskKind::WriteDurable, buffer.size());
            let offset = zones.superblock_offset(copy);
            let buffer = Some(buffer);
            let request = DiskRequest { token, kind, offset, length, buffer, buffer_offset: 0 };
            durability.written(1, &request);
        }
        assert_eq!(sends(&durability, 16, 5), Ok(()));
        for (op, checksum) in [(15, 5), (16, 6), (17, 5)] {
            assert!(sends(&durability, op, checksum).is_err());
        }
    }
}
