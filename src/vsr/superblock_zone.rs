//! Reading, repairing and updating the four copies of the superblock in the file.
//!
//! One thing happens at a time and every write is durable before the next begins: first copies
//! that differ from the chosen one are repaired, later each update writes all four in turn. An
//! update counts once all four are durable. Between updates the scrub reads a copy now and then.
//! What a superblock contains is in [`superblock`](super::superblock).

use zerocopy::IntoBytes;

use super::fatal::Fatal;
use super::superblock::{COPIES, COPY_SIZE, CopyFault, Superblock, choose};
use crate::protocol::{Buffer, Pool, to_size};
use crate::storage::zones::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use crate::storage::{DiskDone, DiskKind, DiskOwner, DiskRequest, DiskToken, StorageOutbox};

/// What the zone is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was read yet.
    Closed,
    /// Copies are being read; how many are still to come.
    Reading { remaining: u32 },
    /// This copy is being written to equal the chosen one.
    Repairing { copy: u32 },
    /// This copy of an update is being written.
    Updating { copy: u32 },
    /// This copy is being read, to see whether it is intact.
    Scrubbing { copy: u32 },
    /// Nothing to do.
    Idle,
}

/// The superblock of an open file.
#[derive(Debug)]
pub struct SuperblockZone {
    pool: Pool,
    stage: Stage,
    read: [Result<Option<Buffer>, CopyFault>; COPIES],
    repair: [bool; COPIES],
    sequence_max: u64,
    durable: Box<Superblock>,
    staged: Box<Superblock>,
    repaired: u32,
}

impl SuperblockZone {
    /// A zone that knows nothing yet.
    #[must_use]
    pub fn new() -> SuperblockZone {
        SuperblockZone {
            pool: Pool::new("superblock", SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE),
            stage: Stage::Closed,
            read: [Ok(None), Ok(None), Ok(None), Ok(None)],
            repair: [false; COPIES],
            sequence_max: 0,
            durable: Superblock::blank(),
            staged: Superblock::blank(),
            repaired: 0,
        }
    }

    /// Starts to read all copies.
    ///
    /// # Panics
    ///
    /// If called twice.
    pub fn open(&mut self, outbox: &mut StorageOutbox) {
        assert!(self.stage == Stage::Closed, "a superblock is opened once");
        for copy in 0..SUPERBLOCK_COPIES {
            let buffer = self.pool.acquire();
            outbox.disk.push(request(DiskKind::Read, copy, buffer));
        }
        self.stage = Stage::Reading { remaining: SUPERBLOCK_COPIES };
    }

    /// Whether nothing is being read or written, and the superblock is known.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Whether nothing is being written, and the superblock is known.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Scrubbing { .. })
    }

    /// Starts to read a copy, to write it again if it is damaged; whether it could be done now.
    ///
    /// # Panics
    ///
    /// If there is no such copy.
    pub fn scrub(&mut self, copy: u32, outbox: &mut StorageOutbox) -> bool {
        if self.stage != Stage::Idle {
            return false;
        }
        self.stage = Stage::Scrubbing { copy };
        outbox.disk.push(request(DiskKind::Read, copy, self.pool.acquire()));
        true
    }

    /// Whether the copies have been read.
    #[must_use]
    pub fn was_read(&self) -> bool {
        self.durable.sequence > 0
    }

    /// The newest superblock that is durable.
    ///
    /// # Panics
    ///
    /// Before the copies have been read.
    #[must_use]
    pub fn durable(&self) -> &Superblock {
        assert!(self.durable.sequence > 0, "the superblock was read");
        &self.durable
    }

    /// The superblock that is being written, or else the durable one.
    ///
    /// # Panics
    ///
    /// Before the copies have been read.
    #[must_use]
    pub fn newest(&self) -> &Superblock {
        if matches!(self.stage, Stage::Updating { .. }) { &self.staged } else { self.durable() }
    }

    /// Copies that were damaged or stale and have been repaired since the file was opened.
    #[must_use]
    pub fn repaired(&self) -> u32 {
        self.repaired
    }

    /// Starts to replace the superblock by a changed one.
    ///
    /// # Panics
    ///
    /// If another change is still being written.
    pub fn update(&mut self, outbox: &mut StorageOutbox, change: impl FnOnce(&mut Superblock)) {
        assert!(self.is_idle(), "one update at a time");
        let durable = &*self.durable;
        let staged = &mut *self.staged;
        staged.clone_from(durable);
        change(staged);
        assert!(staged.view >= durable.view, "views do not go back");
        assert!(staged.log_view <= staged.view);
        assert!(staged.checkpoint.op >= durable.checkpoint.op, "checkpoints do not go back");
        self.sequence_max = self.sequence_max.checked_add(1).expect("sequences do not run out");
        staged.sequence = self.sequence_max;
        staged.parent = durable.checksum;
        staged.seal();
        self.write_update(0, outbox);
    }

    /// Takes the answer to one of this zone's requests.
    ///
    /// # Errors
    ///
    /// If no copy can be believed or a write failed.
    ///
    /// # Panics
    ///
    /// If the answer is to nothing that was asked.
    pub fn on_disk_done(
        &mut self,
        done: DiskDone,
        outbox: &mut StorageOutbox,
    ) -> Result<(), Fatal> {
        let copy = done.request.token.index;
        assert!(done.request.token.owner == DiskOwner::Superblock);
        if let Stage::Reading { remaining } = self.stage {
            let buffer = done.request.buffer.expect("a read returns its buffer");
            self.read[copy as usize] = match done.result {
                Ok(()) => Ok(Some(buffer)),
                Err(error) => Err(CopyFault::Unreadable { errno: error.errno }),
            };
            self.stage = Stage::Reading { remaining: remaining - 1 };
            return if remaining == 1 { self.read_done(outbox) } else { Ok(()) };
        }
        if let Stage::Scrubbing { copy: reading } = self.stage {
            assert!(copy == reading);
            self.scrub_done(&done, outbox);
            return Ok(());
        }
        if let Err(error) = done.result {
            let offset = done.request.offset;
            return Err(Fatal::SuperblockWrite { copy, offset, error });
        }
        drop(done);
        match self.stage {
            Stage::Repairing { copy: writing } => {
                assert!(copy == writing);
                self.repair[copy as usize] = false;
                self.repaired += 1;
                self.repair_next(outbox);
            }
            Stage::Updating { copy: writing } => {
                assert!(copy == writing);
                if copy + 1 < SUPERBLOCK_COPIES {
                    self.write_update(copy + 1, outbox);
                } else {
                    std::mem::swap(&mut self.durable, &mut self.staged);
                    self.stage = Stage::Idle;
                }
            }
            Stage::Closed | Stage::Reading { .. } | Stage::Scrubbing { .. } | Stage::Idle => {
                panic!("an answer without a request")
            }
        }
        Ok(())
    }

    fn read_done(&mut self, outbox: &mut StorageOutbox) -> Result<(), Fatal> {
        let [first, second, third, fourth] = &self.read;
        let bytes = |copy: &'_ Result<Option<Buffer>, CopyFault>| match copy {
            Ok(buffer) => Ok(buffer.clone().expect("all copies were read")),
            Err(fault) => Err(*fault),
        };
        let held = [bytes(first), bytes(second), bytes(third), bytes(fourth)];
        let copies = std::array::from_fn(|index| match &held[index] {
            Ok(buffer) => Ok(buffer.bytes()),
            Err(fault) => Err(*fault),
        });
        let quorum = choose(&copies, &mut self.durable).map_err(Fatal::Superblock)?;
        self.repair = quorum.repair;
        self.sequence_max = quorum.sequence_max;
        self.read = [Ok(None), Ok(None), Ok(None), Ok(None)];
        drop(held);
        self.repair_next(outbox);
        Ok(())
    }

    fn scrub_done(&mut self, done: &DiskDone, outbox: &mut StorageOutbox) {
        let copy = done.request.token.index;
        let buffer = done.request.buffer.as_ref().expect("a read returns its buffer");
        let parsed = done.result.is_ok().then(|| Superblock::parse(buffer.bytes(), copy));
        let intact = parsed.is_some_and(|parsed| {
            parsed.is_ok_and(|parsed| {
                (parsed.sequence, parsed.checksum) == (self.durable.sequence, self.durable.checksum)
            })
        });
        if !intact {
            crate::mark!("superblock_repaired");
        }
        self.repair[copy as usize] = !intact;
        self.repair_next(outbox);
    }

    fn repair_next(&mut self, outbox: &mut StorageOutbox) {
        let Some(index) = self.repair.iter().position(|repair| *repair) else {
            self.stage = Stage::Idle;
            return;
        };
        let copy = to_size(index);
        self.stage = Stage::Repairing { copy };
        let buffer = encode(&self.pool, &self.durable, copy);
        outbox.disk.push(request(DiskKind::WriteDurable, copy, buffer));
    }

    fn write_update(&mut self, copy: u32, outbox: &mut StorageOutbox) {
        self.stage = Stage::Updating { copy };
        let buffer = encode(&self.pool, &self.staged, copy);
        outbox.disk.push(request(DiskKind::WriteDurable, copy, buffer));
    }
}

impl Default for SuperblockZone {
    fn default() -> SuperblockZone {
        SuperblockZone::new()
    }
}

/// The bytes of one copy in a buffer.
fn encode(pool: &Pool, superblock: &Superblock, copy: u32) -> Buffer {
    let mut buffer = pool.acquire();
    buffer.bytes_mut().copy_from_slice(superblock.as_bytes());
    let at = std::mem::offset_of!(Superblock, copy);
    buffer.bytes_mut()[at..at + 4].copy_from_slice(&copy.to_le_bytes());
    buffer
}

fn request(kind: DiskKind, copy: u32, buffer: Buffer) -> DiskRequest {
    assert!(copy < SUPERBLOCK_COPIES);
    assert!(buffer.size() == to_size(COPY_SIZE));
    DiskRequest {
        token: DiskToken { owner: DiskOwner::Superblock, index: copy },
        kind,
        offset: u64::from(copy) * u64::from(SUPERBLOCK_COPY_SIZE),
        length: SUPERBLOCK_COPY_SIZE,
        buffer: Some(buffer),
        buffer_offset: 0,
    }
}
