//! Every kind of fault: its name, how likely it is, and how often it struck.
//!
//! Swarm testing: in each seed about half of the kinds are off and the others have a drawn rate,
//! so that some runs know a few faults in plenty. Each kind has a random stream of its own:
//! switching one off leaves the others as they were. Which fault is survivable is not decided here
//! (see [`atlas`](super::atlas)), nor what it does.

use super::random::{MILLION, Part, Random};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fault {
    /// A packet is lost.
    PacketLoss,
    /// A packet comes late and out of order.
    PacketDelay,
    /// A packet comes again, perhaps much later.
    PacketDuplicate,
    /// A bit of a packet flips.
    PacketCorrupt,
    /// One direction between two nodes stands still for a while.
    PathClog,
    /// All links stop one after another, and go on in another order.
    Swizzle,
    /// The cluster falls apart for a while.
    Partition,
    /// A command is not delivered between two replicas for a while.
    CommandDrop,
    /// A connection breaks; what was on its way is lost and the sender learns it.
    ConnectionDrop,
    /// A request of a disk takes long.
    DiskSlow,
    /// A bit of the log flips on disk.
    WalRot,
    /// A sector of the log cannot be read.
    WalUnreadable,
    /// A write to the log goes to another slot.
    WalMisdirectedWrite,
    /// A read of the log brings another slot.
    WalMisdirectedRead,
    /// A copy of the superblock is damaged.
    SuperblockDamage,
    /// A process dies, or its machine does.
    Crash,
    /// A process dies again while it starts.
    CrashOpening,
    /// A process stands still for a while.
    Pause,
    /// A clock jumps by up to some seconds.
    ClockJump,
    /// A clock is minutes to hours off.
    ClockFar,
    /// A job of a helper takes long.
    JobSlow,
    /// A client gives up its session and begins another.
    ClientRestart,
    /// A client repeats a request early and elsewhere.
    ClientRepeat,
    /// Somebody sends bytes or requests that nobody should.
    ClientHostile,
    /// The newest slots of the log are damaged at a crash.
    WalHeadDamage,
    /// A bit of the grid flips.
    GridRot,
    /// A sector of the grid can no longer be read.
    GridUnreadable,
    /// A machine is away for longer than the logs of the others reach.
    Absence,
    /// A data file is lost, and made anew by `recover`.
    FileLoss,
    /// A process is replaced by one of the next release.
    Upgrade,
    /// A write to the log is acknowledged and never happens.
    WalLostWrite,
    /// A write of a copy of the superblock is acknowledged and never happens.
    SuperblockLostWrite,
    /// A write of a block is acknowledged and never happens.
    GridLostWrite,
    /// A block is written at another address.
    GridMisdirectedWrite,
    /// A read of the grid brings another address.
    GridMisdirectedRead,
    /// A stretch of the log returns to older content.
    WalRollback,
    /// A copy of the superblock returns to older content.
    SuperblockRollback,
    /// A stretch of the grid returns to older content.
    GridRollback,
    /// Many blocks of all replicas are damaged at once, each on a few of them.
    GridHelix,
    /// A read fails, or brings less than was asked for.
    ReadError,
    /// A write fails, having been done in part or not.
    WriteError,
    /// A sync fails, having lost any of what it was to keep.
    SyncError,
    /// A disk is many times slower than it was, for long.
    DiskGray,
    /// A disk is full for a while: the file cannot grow.
    DiskFull,
}

/// Kinds of faults.
pub const FAULTS: usize = 44;
/// Those whose draws follow on each other; each other one has a draw of its own.
const FAULTS_OF_ONE_DRAW: usize = 25;

/// Name of each kind, and the range of its rate: of a million chances, where a chance is a packet,
/// a request of a disk, a job, or ten milliseconds, as suits the kind. In the order in which the
/// kinds came to be: a kind's place decides its draws, so new ones go to the end, and
/// `--fault-kinds` shows a seed only those that it knew.
const TABLE: [(Fault, &str, u32, u32); FAULTS] = [
    (Fault::PacketLoss, "packet-loss", 1_000, 200_000),
    (Fault::PacketDelay, "packet-delay", 1_000, 200_000),
    (Fault::PacketDuplicate, "packet-duplicate", 1_000, 200_000),
    (Fault::PacketCorrupt, "packet-corrupt", 100, 10_000),
    (Fault::PathClog, "path-clog", 500, 20_000),
    (Fault::Swizzle, "swizzle", 200, 4_000),
    (Fault::Partition, "partition", 500, 8_000),
    (Fault::CommandDrop, "command-drop", 500, 8_000),
    (Fault::ConnectionDrop, "connection-drop", 500, 20_000),
    (Fault::DiskSlow, "disk-slow", 1_000, 50_000),
    (Fault::WalRot, "wal-rot", 500, 20_000),
    (Fault::WalUnreadable, "wal-unreadable", 500, 20_000),
    (Fault::WalMisdirectedWrite, "wal-misdirected-write", 500, 10_000),
    (Fault::WalMisdirectedRead, "wal-misdirected-read", 1_000, 50_000),
    (Fault::SuperblockDamage, "superblock-damage", 5_000, 200_000),
    (Fault::Crash, "crash", 500, 10_000),
    (Fault::CrashOpening, "crash-opening", 5_000, 100_000),
    (Fault::Pause, "pause", 500, 10_000),
    (Fault::ClockJump, "clock-jump", 500, 10_000),
    (Fault::ClockFar, "clock-far", 500, 10_000),
    (Fault::JobSlow, "job-slow", 5_000, 200_000),
    (Fault::ClientRestart, "client-restart", 500, 20_000),
    (Fault::ClientRepeat, "client-repeat", 10_000, 200_000),
    (Fault::ClientHostile, "client-hostile", 1_000, 50_000),
    (Fault::WalHeadDamage, "wal-head-damage", 50_000, 900_000),
    (Fault::GridRot, "grid-rot", 1_000, 100_000),
    (Fault::GridUnreadable, "grid-unreadable", 1_000, 50_000),
    (Fault::Absence, "absence", 500, 5_000),
    (Fault::FileLoss, "file-loss", 200, 5_000),
    (Fault::Upgrade, "upgrade", 200, 5_000),
    (Fault::WalLostWrite, "wal-lost-write", 500, 20_000),
    (Fault::SuperblockLostWrite, "superblock-lost-write", 1_000, 100_000),
    (Fault::GridLostWrite, "grid-lost-write", 500, 50_000),
    (Fault::GridMisdirectedWrite, "grid-misdirected-write", 500, 50_000),
    (Fault::GridMisdirectedRead, "grid-misdirected-read", 500, 50_000),
    (Fault::WalRollback, "wal-rollback", 500, 20_000),
    (Fault::SuperblockRollback, "superblock-rollback", 5_000, 200_000),
    (Fault::GridRollback, "grid-rollback", 500, 20_000),
    (Fault::GridHelix, "grid-helix", 100, 2_000),
    (Fault::ReadError, "read-error", 50, 5_000),
    (Fault::WriteError, "write-error", 20, 2_000),
    (Fault::SyncError, "sync-error", 500, 50_000),
    (Fault::DiskGray, "disk-gray", 200, 5_000),
    (Fault::DiskFull, "disk-full", 200, 5_000),
];

impl Fault {
    /// All kinds.
    #[must_use]
    pub fn all() -> [Fault; FAULTS] {
        TABLE.map(|row| row.0)
    }

    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Fault> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// The faults of one run.
#[derive(Clone, Debug)]
pub struct Faults {
    rates: [u32; FAULTS],
    struck: [u64; FAULTS],
    streams: Vec<Random>,
    active: bool,
}

impl Faults {
    /// All kinds off.
    #[must_use]
    pub fn none(seed: u64) -> Faults {
        let streams = (0..FAULTS).map(|index| Random::new(seed, Part::Fault, index)).collect();
        Faults { rates: [0; FAULTS], struck: [0; FAULTS], streams, active: true }
    }

    /// Each kind off with probability one half, and otherwise with a rate of its range.
    ///
    /// # Panics
    ///
    /// If an invariant of the simulator is broken.
    #[must_use]
    pub fn draw(seed: u64, random: &mut Random) -> Faults {
        let mut faults = Faults::none(seed);
        for (index, (fault, _, least, most)) in TABLE.iter().enumerate() {
            assert!(*fault as usize == index, "the table is in the order of the kinds");
            let mut own = Random::new(seed, Part::FaultDraw, index);
            let random = if index < FAULTS_OF_ONE_DRAW { &mut *random } else { &mut own };
            let on = random.chance(MILLION / 2);
            let rate = random.scale(u64::from(*least), u64::from(*most));
            if on {
                faults.rates[index] = u32::try_from(rate).expect("below a million");
            }
        }
        faults
    }

    /// Makes what shakes processes and network strike so many times more often.
    pub fn multiply(&mut self, factor: u32) {
        for fault in [
            Fault::PathClog,
            Fault::Swizzle,
            Fault::Partition,
            Fault::CommandDrop,
            Fault::ConnectionDrop,
            Fault::Crash,
            Fault::Pause,
        ] {
            let rate = &mut self.rates[fault as usize];
            *rate = (*rate * factor).min(100_000);
        }
    }

    /// Of a million chances, how many.
    #[must_use]
    pub fn rate(&self, fault: Fault) -> u32 {
        self.rates[fault as usize]
    }

    /// Sets a rate.
    ///
    /// # Panics
    ///
    /// If it is above a million.
    pub fn set_rate(&mut self, fault: Fault, per_million: u32) {
        assert!(u64::from(per_million) <= MILLION);
        self.rates[fault as usize] = per_million;
    }

    /// Switches all kinds on or off together; rates stay.
    pub fn set_active(&mut self, active: bool) {
        self.active = active;
    }

    /// Whether this kind strikes at this chance. What strikes is to be counted with
    /// [`Faults::count`] once it is known to be survivable.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let rate = self.rates[fault as usize];
        if rate == 0 {
            return false;
        }
        let strikes = self.streams[fault as usize].chance(u64::from(rate));
        strikes && self.active
    }

    /// The stream from which the details of this kind are drawn.
    pub fn random(&mut self, fault: Fault) -> &mut Random {
        &mut self.streams[fault as usize]
    }

    /// Counts a fault that struck.
    pub fn count(&mut self, fault: Fault) {
        self.struck[fault as usize] += 1;
    }

    /// How often each kind struck.
    #[must_use]
    pub fn counts(&self) -> [u64; FAULTS] {
        self.struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the table names every kind once, in order, with a range that can be drawn from.
    #[test]
    fn table() {
        for (index, (fault, name, least, most)) in TABLE.iter().enumerate() {
            assert_eq!(*fault as usize, index);
            assert_eq!(Fault::from_name(name), Some(*fault));
            assert!(0 < *least && least < most && u64::from(*most) <= MILLION);
        }
        assert_eq!(Fault::from_name("hail"), None);
        assert_eq!(Fault::DiskFull as usize, FAULTS - 1);
    }

    /// Goal: a draw switches about half of the kinds on; nothing strikes while all are inactive.
    #[test]
    fn draws() {
        let mut on = 0;
        for seed in 0..100 {
            let mut random = Random::new(seed, Part::Swarm, 0);
            let faults = Faults::draw(seed, &mut random);
            on += Fault::all().iter().filter(|fault| faults.rate(**fault) > 0).count();
        }
        assert!((40 * FAULTS..60 * FAULTS).contains(&on), "{on}");
        let mut faults = Faults::none(1);
        faults.set_rate(Fault::Crash, 1_000_000);
        assert!(faults.strikes(Fault::Crash) && !faults.strikes(Fault::Pause));
        faults.set_active(false);
        assert!(!faults.strikes(Fault::Crash));
    }
}
