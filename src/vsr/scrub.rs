//! The scrub: a slow round without end over everything that the file must hold, so that damage is
//! found, and mended, while it can be.
//!
//! First the copies of the superblock and the sectors of the log's headers, which are written again
//! from memory; then the prepares that a restart would execute, which are written again from memory
//! or fetched from a peer; then all blocks, which are fetched from a peer
//! ([`walk`](crate::storage::walk)). A replica without peers mends what it has in memory and does
//! not read its blocks: nobody could give it another copy, and whoever needs one says so.
//!
//! Sketch: a prepare is read in the time of a block, so that a full log of 1024 of them takes 100 s
//! at the default rate (up to 10 MiB/s of 1 MiB prepares), beside six hours for 100 GiB of blocks.

use super::journal::{HEADERS_PER_SECTOR, ReadPurpose};
use super::machine::StateMachine;
use super::replica::{Replica, Status};
use crate::storage::grid_repair::WALKING;
use crate::storage::walk::WalkPart;
use crate::storage::zones::SUPERBLOCK_COPIES;

/// Bytes that the scrub reads in a second unless told otherwise: 100 GiB take less than six hours.
pub const SCRUB_RATE: u64 = 5 << 20;

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Superblock { copy: u32 },
    Headers { sector: u32 },
    Prepares { slot: u32 },
    Blocks { part: WalkPart, begun: bool },
}

const FIRST: Stage = Stage::Superblock { copy: 0 };

/// Where the scrub stands.
#[derive(Debug)]
pub struct Scrub {
    stage: Stage,
    /// When something was read last.
    last_ns: u64,
    /// Times that everything was read.
    rounds: u64,
}

impl Scrub {
    /// At the beginning of the first round.
    #[must_use]
    pub fn new() -> Scrub {
        Scrub { stage: FIRST, last_ns: 0, rounds: 0 }
    }
}

impl Default for Scrub {
    fn default() -> Scrub {
        Scrub::new()
    }
}

/// Nanoseconds between blocks of this size that are scrubbed at so many bytes a second; for ever
/// for a rate of zero.
#[must_use]
pub fn scrub_ns(block_size: u32, rate: u64) -> u64 {
    (u64::from(block_size) * 1_000_000_000).checked_div(rate).map_or(u64::MAX, |ns| ns.max(1))
}

impl<M: StateMachine> Replica<M> {
    /// Times that everything was read, and repaired if need be, since the start.
    #[must_use]
    pub fn scrubs(&self) -> u64 {
        self.scrub.rounds
    }

    /// Lets time pass: reads what is due.
    pub(super) fn scrub_tick(&mut self) {
        // What a tick cannot read is not made up for.
        let now_ns = self.now.monotonic_ns;
        let due = now_ns.saturating_sub(self.scrub.last_ns) / self.options.scrub_ns;
        if due == 0 || self.status != Status::Normal || self.is_syncing() {
            return;
        }
        self.scrub.last_ns = now_ns;
        let due = usize::try_from(due).unwrap_or(WALKING).min(WALKING);
        for _ in 0..due {
            match self.scrub.stage {
                Stage::Superblock { copy } => self.scrub_superblock(copy),
                Stage::Headers { sector } => self.scrub_headers(sector),
                Stage::Prepares { slot } => self.scrub_prepare(slot),
                Stage::Blocks { part, begun } => return self.scrub_blocks(part, begun, due),
            }
        }
    }

    fn scrub_superblock(&mut self, copy: u32) {
        if !self.superblock.scrub(copy, &mut self.outbox.storage) {
            return;
        }
        self.scrub.stage = match copy + 1 {
            SUPERBLOCK_COPIES => Stage::Headers { sector: 0 },
            copy => Stage::Superblock { copy },
        };
    }

    fn scrub_headers(&mut self, sector: u32) {
        let sectors = self.options.config.journal_slots.div_ceil(HEADERS_PER_SECTOR);
        if !self.journal.scrub_sector(sector, &mut self.outbox.storage) {
            return;
        }
        self.scrub.stage = match sector + 1 {
            next if next == sectors => Stage::Prepares { slot: 0 },
            sector => Stage::Headers { sector },
        };
    }

    /// Reads the prepare in this slot or the first behind it that a restart would execute.
    fn scrub_prepare(&mut self, slot: u32) {
        if !self.journal.can_read(ReadPurpose::Scrub) {
            return;
        }
        let (slots, checkpoint) = (self.options.config.journal_slots, self.checkpoint_op());
        let stored =
            |slot: &u32| self.journal.stored_in(*slot).is_some_and(|header| header.op > checkpoint);
        let Some(found) = (slot..slots).find(stored) else {
            self.scrub.stage = if self.options.is_solo() {
                self.scrub.rounds += 1;
                FIRST
            } else {
                Stage::Blocks { part: WalkPart::Directories, begun: false }
            };
            return;
        };
        let header = *self.journal.stored_in(found).expect("it was found");
        let (op, checksum) = (header.op, header.frame.checksum);
        let is_of_log = self.journal.header(op) == Some(&header) && self.chain.is_proven(op);
        if is_of_log && self.journal.is_untold(op) {
            self.tell_header(op);
        }
        let Some(buffer) = self.pool.try_acquire() else { return };
        let outbox = &mut self.outbox.storage;
        self.journal.read(op, checksum, buffer, ReadPurpose::Scrub, outbox);
        self.scrub.stage = Stage::Prepares { slot: found + 1 };
    }

    /// Reads so many blocks more.
    fn scrub_blocks(&mut self, part: WalkPart, begun: bool, blocks_due: usize) {
        let Some(blocks) = self.machine.blocks() else {
            self.scrub.rounds += 1;
            self.scrub.stage = FIRST;
            return;
        };
        if !begun {
            blocks.walk_start(part, u64::MAX);
            self.scrub.stage = Stage::Blocks { part, begun: true };
            return;
        }
        if blocks.walk_step(blocks_due).is_wait() {
            return;
        }
        self.scrub.stage = match part {
            WalkPart::Directories => Stage::Blocks { part: WalkPart::Rest, begun: false },
            WalkPart::Rest => {
                self.scrub.rounds += 1;
                FIRST
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a rate gives the time between blocks, and none of it switches the scrub off.
    #[test]
    fn rates() {
        assert_eq!(scrub_ns(1 << 16, 1 << 20), 62_500_000);
        assert_eq!(scrub_ns(1 << 16, 0), u64::MAX);
        assert_eq!(scrub_ns(1, u64::MAX), 1);
    }
}
