//! Recovery of the log on a disk that tears writes and rots: what was acknowledged is found or
//! known to be missing, what was not may be nacked, and it can be interrupted anywhere.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::journal::{Journal, JournalGeometry};
use super::test_log::{
    CLUSTER, checksum, empty_disk, geometry, offsets, outbox, prepare, pulse, read_log, recover,
    recover_solo, sectors_of, with_parent, write_header, write_sectors,
};
use crate::protocol::{Message, Pool, PrepareHeader, to_index};
use crate::simulator::disk::MemoryDisk;
use crate::storage::StorageOutbox;

/// Bytes of a prepare of three sectors.
const LARGE: u32 = 9_000;

fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// What the slot had before a write of it was torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Empty,
    /// An op that the checkpoint covers.
    Old,
    /// The same op of an earlier view, acknowledged.
    EarlierView,
    /// The same op of a later view, acknowledged.
    LaterView,
    /// The same prepare, acknowledged and damaged since.
    Damaged,
    /// The same prepare, acknowledged, and both copies of its header damaged since.
    BothDamaged,
}

/// A write of one slot, to be torn.
struct Torn {
    disk: MemoryDisk,
    checkpoint: PrepareHeader,
    old: Option<Message>,
    new: Message,
}

impl Torn {
    fn new(before: Before, pool: &Pool) -> Torn {
        let (op, view) = if before == Before::Old { (41, 2) } else { (9, 2) };
        let checkpoint = *pulse(op - 1, 1, pool).prepare();
        let new = with_parent(op, view, checkpoint.frame.checksum, LARGE, pool);
        let old = match before {
            Before::Empty => None,
            Before::Old | Before::EarlierView => Some(prepare(9, 1, LARGE, pool)),
            Before::LaterView => Some(prepare(9, 3, LARGE, pool)),
            Before::Damaged | Before::BothDamaged => Some(new.clone()),
        };
        let mut disk = empty_disk();
        if let Some(old) = &old {
            write_sectors(&mut disk, old, |_| true);
            write_header(&mut disk, old.prepare());
        }
        let (prepare_at, header_at) = offsets(op);
        if matches!(before, Before::Damaged | Before::BothDamaged) {
            disk.corrupt(prepare_at + 5_000);
        }
        if before == Before::BothDamaged {
            disk.corrupt(header_at + 7);
        }
        Torn { disk, checkpoint, old, new }
    }

    /// Whether the prepare is whole on the disk.
    fn is_whole(&self, message: &Message) -> bool {
        let length = to_index(sectors_of(message) * 4096);
        let (prepare_at, _) = offsets(message.prepare().op);
        self.disk.read(prepare_at, length) == message.0.bytes()[..length]
    }

    /// Asserts what the journal must say of the slot.
    fn check(&self, before: Before, header_written: bool, journal: &Journal) {
        let op = self.new.prepare().op;
        let new = checksum(&self.new);
        let there = self.is_whole(&self.new);
        assert_eq!(journal.has(op, new), there);
        let lost = matches!(before, Before::Damaged | Before::BothDamaged) && !there;
        assert_eq!(journal.may_nack(op, new), !there && !lost);
        let replaces = matches!(before, Before::EarlierView | Before::LaterView);
        if there {
            // The one before is not given up while its redundant header is there.
            assert_eq!(journal.is_faulty(op), replaces && !header_written);
            let old = self.old.as_ref().filter(|_| before == Before::LaterView && !header_written);
            assert_eq!(journal.header(op), Some(old.unwrap_or(&self.new).prepare()));
        }
        if lost {
            assert!(journal.is_faulty(op));
            let unknown = before == Before::BothDamaged;
            assert_eq!(journal.header(op).is_none(), unknown);
            assert_eq!(journal.may_hide_op_after(op - 1, op), unknown);
        }
        if replaces && !header_written {
            let old = self.old.as_ref().unwrap();
            assert_eq!(journal.has(op, checksum(old)), self.is_whole(old));
            assert!(!journal.may_nack(op, checksum(old)), "it was acknowledged");
            if !there && !self.is_whole(old) {
                assert!(journal.is_faulty(op) && journal.header(op) == Some(old.prepare()));
            }
        }
        if before == Before::Old || before == Before::Empty {
            assert!(!journal.is_faulty(op));
        }
    }
}

/// Goal: a write that is torn at any step, over anything that a slot may have had, leaves the slot
/// as the rules say; recovery gives the same again, and after it the write can be done again.
#[test]
fn torn_at_every_step() {
    let pool = Pool::new("test", 16, geometry().message_size_max);
    let cases = [
        Before::Empty,
        Before::Old,
        Before::EarlierView,
        Before::LaterView,
        Before::Damaged,
        Before::BothDamaged,
    ];
    for before in cases {
        for (sectors, header_written) in
            (0..8_u32).map(|sectors| (sectors, false)).chain([(7, true)])
        {
            let mut torn = Torn::new(before, &pool);
            assert_eq!(sectors_of(&torn.new), 3);
            write_sectors(&mut torn.disk, &torn.new, |sector| sectors & (1 << sector) != 0);
            if header_written {
                write_header(&mut torn.disk, torn.new.prepare());
            }
            for crashes in [&[][..], &[3], &[20, 33, 34, 35], &[36, 37, 38, 39, 40], &[]] {
                let mut random = random(sectors.into());
                let checkpoint = torn.checkpoint;
                let journal = recover(&mut torn.disk, &checkpoint, &mut random, crashes);
                torn.check(before, header_written, &journal);
            }
            write_again(&mut torn);
        }
    }
}

/// The prepare is fetched from others and written; then it is there for good.
fn write_again(torn: &mut Torn) {
    let checkpoint = torn.checkpoint;
    let mut random = random(1);
    let mut journal = recover(&mut torn.disk, &checkpoint, &mut random, &[]);
    let mut outbox = outbox();
    let op = torn.new.prepare().op;
    journal.write(&mut torn.new, &mut outbox);
    settle(&mut journal, &mut torn.disk, &mut outbox, &mut random);
    assert_eq!(journal.take_written().as_ref(), Some(torn.new.prepare()));
    assert!(journal.has(op, checksum(&torn.new)) && !journal.is_faulty(op));
    let journal = recover(&mut torn.disk, &checkpoint, &mut random, &[]);
    assert!(journal.has(op, checksum(&torn.new)) && !journal.is_faulty(op));
    assert!(!journal.may_hide_op_after(op - 1, op));
}

fn settle(
    journal: &mut Journal,
    disk: &mut MemoryDisk,
    outbox: &mut StorageOutbox,
    random: &mut ChaCha8Rng,
) {
    disk.submit_all(outbox);
    while let Some(done) = disk.complete_one(random) {
        journal.on_disk_done(done, outbox).unwrap();
        disk.submit_all(outbox);
    }
}

/// Goal: alone, a torn head is cut off and its slot emptied for good; an acknowledged prepare that
/// is damaged or replaced by a torn one is fatal, with its place and why.
#[test]
fn torn_alone() {
    let pool = Pool::new("test", 16, geometry().message_size_max);
    let cases =
        [Before::Empty, Before::Old, Before::EarlierView, Before::LaterView, Before::Damaged];
    for before in cases {
        for sectors in 0..8_u32 {
            let mut torn = Torn::new(before, &pool);
            write_sectors(&mut torn.disk, &torn.new, |sector| sectors & (1 << sector) != 0);
            let whole = torn.is_whole(&torn.new);
            let replaces = matches!(before, Before::EarlierView | Before::LaterView);
            let acknowledged = replaces || before == Before::Damaged;
            if acknowledged && !whole || before == Before::LaterView {
                let recovery = read_log(&mut torn.disk, &torn.checkpoint);
                let text = recovery.solo_head().unwrap_err().to_string();
                let expected = if replaces && sectors == 0 {
                    "the prepare does not continue the one before it"
                } else if whole {
                    "the prepare is older than its redundant header"
                } else {
                    "the prepare is damaged"
                };
                assert!(text.contains("zone WAL prepares: slot 9 at file offset"), "{text}");
                assert!(text.contains("needed for op 9") && text.contains(expected), "{text}");
                continue;
            }
            let (journal, head) = recover_solo(&mut torn.disk, &torn.checkpoint);
            let expected = if whole { *torn.new.prepare() } else { torn.checkpoint };
            assert_eq!(head, expected);
            assert_eq!(journal.has(torn.new.prepare().op, checksum(&torn.new)), whole);
            let mut again = read_log(&mut torn.disk, &torn.checkpoint);
            assert_eq!(again.solo_head().unwrap(), expected);
            again.finish_solo(&expected, &mut outbox());
            assert!(again.is_done() && again.repairs() == 0, "nothing is left to do");
        }
    }
}

/// Goal: alone, what lies beyond the head is removed, unless it proves that the log ends too
/// early: a later op that the pipeline could not reach, or that knows of its commit.
#[test]
fn end_of_the_log_alone() {
    let pool = Pool::new("test", 16, geometry().message_size_max);
    let checkpoint = PrepareHeader::root(CLUSTER);
    for (beyond, fatal) in [(3, true), (2, false), (9, true), (10, true)] {
        let mut disk = empty_disk();
        let first = with_parent(1, 1, checkpoint.frame.checksum, 0, &pool);
        write_sectors(&mut disk, &first, |_| true);
        // Its commit is the op before it.
        let later = pulse(beyond, 1, &pool);
        if beyond != 2 {
            write_sectors(&mut disk, &later, |_| true);
        }
        write_header(&mut disk, first.prepare());
        let recovery = read_log(&mut disk, &checkpoint);
        let head = recovery.solo_head();
        assert_eq!(head.is_err(), fatal, "{beyond}");
        if let Err(error) = head {
            assert!(error.to_string().contains("prove that it was committed"), "{error}");
        }
    }
}

/// Goal: a slot of an op that this checkpoint could not have admitted is faulty, with the op that
/// was needed unknown; where such slots matter is asked by range.
#[test]
fn beyond_the_checkpoint() {
    let pool = Pool::new("test", 16, geometry().message_size_max);
    let checkpoint = *pulse(16, 1, &pool).prepare();
    for (op, beyond) in [(16, false), (17, false), (48, false), (49, true), (81, true)] {
        let mut disk = empty_disk();
        let message = pulse(op, 1, &pool);
        write_sectors(&mut disk, &message, |_| true);
        write_header(&mut disk, message.prepare());
        let journal = recover(&mut disk, &checkpoint, &mut random(op), &[]);
        assert_eq!(journal.has(op, checksum(&message)), !beyond);
        assert_eq!(journal.is_faulty(17), beyond);
        assert_eq!(journal.may_nack(17, 1), !beyond);
        assert_eq!(journal.may_hide_op_after(16, 17), beyond);
        assert!(!journal.may_hide_op_after(17, 48), "another slot");
        assert_eq!(journal.may_hide_op_after(17, 49), beyond, "the same slot again");
        assert!(!journal.may_hide_op_after(16, 16));
        assert_eq!(journal.may_hide_op_after(0, u64::MAX), beyond);
    }
}

/// A replica's part in a history that grows, is truncated and checkpointed, on a bad disk.
struct World {
    disk: MemoryDisk,
    journal: Journal,
    outbox: StorageOutbox,
    random: ChaCha8Rng,
    pool: Pool,
    geometry: JournalGeometry,
    /// The log as it should be, from the checkpoint on.
    history: BTreeMap<u64, Message>,
    acknowledged: BTreeMap<u64, u128>,
    checkpoint: PrepareHeader,
    view: u32,
    rots: bool,
    /// Acknowledged prepares found by a recovery, and found to be missing.
    found: u32,
    missing: u32,
    /// Headers written for prepares that were there.
    told: u32,
}

impl World {
    fn new(seed: u64, rots: bool) -> World {
        let geometry = geometry();
        World {
            disk: empty_disk(),
            journal: Journal::new(geometry),
            outbox: outbox(),
            random: random(seed),
            pool: Pool::new("test", 128, geometry.message_size_max),
            geometry,
            history: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            checkpoint: PrepareHeader::root(CLUSTER),
            view: 1,
            rots,
            found: 0,
            missing: 0,
            told: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn head(&self) -> u64 {
        self.history.keys().next_back().copied().unwrap_or(self.checkpoint.op)
    }

    fn append(&mut self) {
        let op = self.head() + 1;
        let room = op <= self.checkpoint.op + u64::from(self.geometry.slots);
        if !room || !self.journal.can_write(op) {
            return;
        }
        let size = [0, 2_000, LARGE][to_index(u32::try_from(self.below(3)).unwrap())];
        let mut message = prepare(op, self.view, size, &self.pool);
        self.journal.write(&mut message, &mut self.outbox);
        self.history.insert(op, message);
    }

    /// Writes a prepare that is missing, as a repair does.
    fn repair(&mut self) {
        let missing = |(op, message): &(&u64, &Message)| {
            let has = self.journal.has(**op, checksum(message));
            !has && self.journal.can_write(**op)
        };
        let Some(op) = self.history.iter().find(missing).map(|(op, _)| *op) else { return };
        let message = self.history.get_mut(&op).unwrap();
        self.journal.write(message, &mut self.outbox);
    }

    /// Writes the header of a prepare whose slot has that of another one, before it counts.
    fn tell_header(&mut self) {
        let untold = |(op, message): &(&u64, &Message)| {
            let has = self.journal.has(**op, checksum(message));
            has && self.journal.is_untold(**op) && self.journal.can_write(**op)
        };
        let Some((op, _)) = self.history.iter().find(untold) else { return };
        self.journal.write_header(*op, &mut self.outbox);
        self.told += 1;
    }

    /// A view change that gives up some ops at the end, and sometimes replaces them.
    fn truncate(&mut self) {
        let span = self.head() - self.checkpoint.op;
        if span == 0 {
            return;
        }
        let head = self.checkpoint.op + self.below(span);
        self.view += 1;
        self.history.split_off(&(head + 1));
        self.acknowledged.split_off(&(head + 1));
        self.journal.remove_after(head);
    }

    fn checkpoint(&mut self) {
        let mut op = self.checkpoint.op;
        while self.acknowledged.contains_key(&(op + 1)) {
            op += 1;
        }
        if let Some(message) = self.history.get(&op) {
            self.checkpoint = *message.prepare();
            self.history = self.history.split_off(&(op + 1));
            self.acknowledged = self.acknowledged.split_off(&(op + 1));
        }
    }

    fn complete(&mut self) {
        self.disk.submit_all(&mut self.outbox);
        if let Some(done) = self.disk.complete_one(&mut self.random) {
            self.journal.on_disk_done(done, &mut self.outbox).unwrap();
        }
        while let Some(header) = self.journal.take_written() {
            let wanted = self.history.get(&header.op);
            if wanted.is_some_and(|message| *message.prepare() == header) {
                self.acknowledged.insert(header.op, header.frame.checksum);
            }
        }
    }

    fn rot(&mut self) {
        let slots = u64::from(self.geometry.slots);
        let (prepare_at, header_at) = offsets(self.below(slots));
        let at = if self.below(3) == 0 {
            header_at + self.below(256)
        } else {
            prepare_at + self.below(256)
        };
        self.disk.corrupt(at);
    }

    fn crash(&mut self) {
        self.disk.submit_all(&mut self.outbox);
        self.disk.crash(&mut self.random);
        self.outbox = outbox();
        let crashes: Vec<u32> = (0..self.below(3))
            .map(|_| u32::try_from(self.random.next_u64() % 50).unwrap())
            .collect();
        let random = &mut self.random;
        self.journal = recover(&mut self.disk, &self.checkpoint, random, &crashes);
        for (op, sum) in &self.acknowledged {
            let has = self.journal.has(*op, *sum);
            assert!(has || self.rots, "op {op} was acknowledged");
            assert!(!self.journal.may_nack(*op, *sum), "op {op} was acknowledged");
            assert!(has || self.journal.is_faulty(*op));
            self.found += u32::from(has);
            self.missing += u32::from(!has);
        }
        // What became durable without being acknowledged may stay; what did not is no damage.
        for (op, message) in &self.history {
            let sum = checksum(message);
            let known = self.journal.has(*op, sum) || self.journal.may_nack(*op, sum);
            assert!(known || self.rots, "op {op} was not acknowledged");
            self.journal.set_header(message.prepare());
            if self.journal.has(*op, checksum(message)) && !self.journal.is_untold(*op) {
                self.acknowledged.insert(*op, checksum(message));
            }
        }
        let head = self.head();
        self.journal.remove_after(head);
    }

    fn run(&mut self) {
        for _ in 0..1_500 {
            match self.below(40) {
                0 => self.crash(),
                1 => self.truncate(),
                2 => self.checkpoint(),
                3 | 4 if self.rots => self.rot(),
                5 => self.tell_header(),
                6..8 => self.repair(),
                8..16 => self.append(),
                _ => self.complete(),
            }
        }
    }
}

/// Goal: whatever happens in whatever order, on a disk that loses power, each acknowledged prepare
/// is found again, through interrupted recoveries, truncations and wraps of the ring.
#[test]
fn acknowledged_prepares_survive() {
    let (mut found, mut told) = (0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed, false);
        world.run();
        assert_eq!(world.missing, 0);
        found += world.found;
        told += world.told;
        assert!(world.checkpoint.op > 32, "the ring wraps: {}", world.checkpoint.op);
    }
    assert!(found > 2_000 && told > 10, "{found} {told}");
}

/// Goal: the same when bytes rot too: an acknowledged prepare is found or known to be faulty, and
/// never nacked.
#[test]
fn rotten_prepares_are_not_nacked() {
    let (mut found, mut missing) = (0, 0);
    for seed in 100..140 {
        let mut world = World::new(seed, true);
        world.run();
        found += world.found;
        missing += world.missing;
    }
    assert!(found > 1_000 && missing > 100, "{found} {missing}");
}
