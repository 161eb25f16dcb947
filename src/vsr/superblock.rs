//! The superblock: the root of everything a replica cannot learn from its peers.
//!
//! Four copies, each in its own 16 KiB of the file, are written one after another, so that a crash
//! can spoil one at most and two identical copies always remain. This file covers the layout, the
//! checksum and [`quorum`], the pure choice of what to believe when copies differ; reading and
//! writing them is in [`superblock_zone`](super::superblock_zone). Not covered: what the
//! checkpoint's root means, which is the state machine's business.

use std::fmt;
use std::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::machine::CheckpointRoot;
pub use crate::protocol::peer::ROOT_SIZE;
use crate::protocol::{PrepareHeader, REPLICAS_MAX, Release, STANDBYS_MAX, checksum};
use crate::storage::zones::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use crate::storage::{Config, ConfigError, Zones};

/// First bytes of a copy after its checksum: this is a data file of ours.
pub const MAGIC: u64 = u64::from_le_bytes(*b"florin\0\0");
/// Version of the data file's format that this code reads and writes.
pub const VERSION: u32 = 2;
/// Headers of a view's log suffix that a superblock has room for.
pub const VIEW_HEADERS_MAX: u32 = 16;
/// A replica that remembers all that it ever promised.
pub const NOT_RECOVERING: u8 = 0;
/// A replica whose file was lost, and that does not know yet which views it may have been in.
pub const ASKING_FOR_VIEWS: u8 = 1;
/// A replica whose file was lost, in a view that the lost one never was in, or on its way to it.
pub const FOLLOWING: u8 = 2;
/// Bytes at the start of a copy that its checksum does not cover.
const UNCOVERED_SIZE: usize = 32;
/// Offset of [`MAGIC`] in a copy, in bytes.
pub const MAGIC_OFFSET: usize = UNCOVERED_SIZE;
/// Copies as an array length.
pub const COPIES: usize = SUPERBLOCK_COPIES as usize;
/// Bytes of a copy as an array length.
pub const COPY_SIZE: usize = SUPERBLOCK_COPY_SIZE as usize;
/// Copies that must agree.
const QUORUM: usize = 2;

/// One copy, 16 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Superblock {
    /// Of bytes 32.. of the copy.
    pub checksum: u128,
    /// Which copy this is: not covered by the checksum, so that copies compare by it.
    pub copy: u32,
    /// Zero.
    pub copy_padding: [u8; 12],
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Release of the program by whose rules the checkpoint's last op was executed; before the
    /// first checkpoint, of the program that made the file.
    pub checkpoint_release: Release,
    /// The cluster.
    pub cluster: u128,
    /// Checksum of the superblock before this one; zero in the first.
    pub parent: u128,
    /// Counts the superblocks of this file, from 1.
    pub sequence: u64,
    /// View the replica is in.
    pub view: u32,
    /// Newest view in which the replica was in normal operation.
    pub log_view: u32,
    /// Index of this replica; a standby's is not below the count.
    pub replica: u8,
    /// Replicas that vote.
    pub replica_count: u8,
    /// Zero.
    pub replica_padding: [u8; 2],
    /// Zero: generation of the cluster's membership.
    pub epoch: u32,
    /// How many of `view_headers` are in use.
    pub view_headers_count: u32,
    /// Zero.
    pub count_padding: u32,
    /// Bytes of the data file that the checkpoint needs.
    pub storage_size: u64,
    /// Ops whose effects are still being fetched from peers, first: zero when there are none.
    pub sync_op_min: u64,
    /// The same, last.
    pub sync_op_max: u64,
    /// Whether this file replaces a lost one, and how far it has come: [`NOT_RECOVERING`],
    /// [`ASKING_FOR_VIEWS`] or [`FOLLOWING`].
    pub recovering: u8,
    /// Zero.
    pub recovering_padding: [u8; 3],
    /// While the file replaces a lost one, a view that the lost one never was in, once known.
    pub safe_view: u32,
    /// Geometry of the file.
    pub config: Config,
    /// Header of the last prepare that the checkpoint covers.
    pub checkpoint: PrepareHeader,
    /// The state machine's root of the checkpoint; all zero before the first.
    pub root: [u8; ROOT_SIZE as usize],
    /// Headers of the newest ops as the view began with them.
    pub view_headers: [PrepareHeader; VIEW_HEADERS_MAX as usize],
    /// The view of who told of a checkpoint that was taken over, if it is later than this one's:
    /// this replica is to follow there with its log.
    pub sync_view: u32,
    /// Zero.
    pub reserved: [u8; 11_500],
}

const_assert_eq!(size_of::<Superblock>(), COPY_SIZE);
const_assert_eq!(align_of::<Superblock>(), 16);
const_assert_eq!(offset_of!(Superblock, magic), UNCOVERED_SIZE);
const_assert_eq!(offset_of!(Superblock, cluster), 48);
const_assert_eq!(offset_of!(Superblock, sequence), 80);
const_assert_eq!(offset_of!(Superblock, view), 88);
const_assert_eq!(offset_of!(Superblock, replica), 96);
const_assert_eq!(offset_of!(Superblock, storage_size), 112);
const_assert_eq!(offset_of!(Superblock, config), 144);
const_assert_eq!(offset_of!(Superblock, checkpoint), 272);
const_assert_eq!(offset_of!(Superblock, root), 528);
const_assert_eq!(offset_of!(Superblock, view_headers), 784);
const_assert_eq!(offset_of!(Superblock, sync_view), 4880);

/// What a fresh data file is made from.
#[derive(Clone, Copy, Debug)]
pub struct Genesis {
    /// The cluster's id.
    pub cluster: u128,
    /// Index of the replica.
    pub replica: u8,
    /// Replicas of the cluster.
    pub replica_count: u8,
    /// Geometry of the file.
    pub config: Config,
    /// Whether it takes the place of a file that was lost: see [`recover`](super::recover).
    pub is_recovering: bool,
}

impl Superblock {
    /// Memory for a superblock, all zero: on the heap, for it is large.
    #[must_use]
    pub fn blank() -> Box<Superblock> {
        Box::new(Superblock::new_zeroed())
    }

    /// The first superblock of a file: an empty history.
    ///
    /// # Panics
    ///
    /// If the replica can be none of the cluster.
    #[must_use]
    pub fn genesis(genesis: &Genesis) -> Box<Superblock> {
        assert!((1..=REPLICAS_MAX).contains(&genesis.replica_count));
        assert!(genesis.replica < genesis.replica_count + STANDBYS_MAX);
        let mut superblock = Superblock::blank();
        superblock.magic = MAGIC;
        superblock.version = VERSION;
        superblock.checkpoint_release = Release::PROGRAM;
        superblock.cluster = genesis.cluster;
        superblock.sequence = 1;
        superblock.replica = genesis.replica;
        superblock.replica_count = genesis.replica_count;
        superblock.config = genesis.config;
        superblock.checkpoint = PrepareHeader::root(genesis.cluster);
        if genesis.is_recovering {
            superblock.recovering = ASKING_FOR_VIEWS;
        }
        superblock.seal();
        superblock
    }

    /// Identity of the checkpoint: two replicas that made the same one agree on it.
    ///
    /// # Panics
    ///
    /// Never: both parts have fixed sizes.
    #[must_use]
    pub fn checkpoint_id(&self) -> u128 {
        let mut bytes = [0; 16 + ROOT_SIZE as usize];
        bytes[..16].copy_from_slice(&self.checkpoint.frame.checksum.to_le_bytes());
        bytes[16..].copy_from_slice(&self.root);
        checksum(&bytes)
    }

    /// The root of the checkpoint, for the state machine.
    ///
    /// # Panics
    ///
    /// If the geometry is not valid.
    #[must_use]
    pub fn checkpoint_root(&self) -> CheckpointRoot {
        let grid_size = self.storage_size.saturating_sub(Zones::new(&self.config).file_size(0));
        let address_max = grid_size / u64::from(self.config.block_size);
        CheckpointRoot { bytes: self.root, address_max }
    }

    /// Writes the checksum; nothing but the copy's index may change afterwards.
    pub fn seal(&mut self) {
        self.checksum = self.compute_checksum();
    }

    fn compute_checksum(&self) -> u128 {
        checksum(&self.as_bytes()[UNCOVERED_SIZE..])
    }

    /// The copy in `bytes`, which lay at the place of copy `copy`.
    ///
    /// # Errors
    ///
    /// Why the bytes are not a copy.
    ///
    /// # Panics
    ///
    /// If `bytes` is not 16 KiB aligned to 16 bytes.
    pub fn parse(bytes: &[u8], copy: u32) -> Result<&Superblock, CopyFault> {
        let superblock = Superblock::ref_from_bytes(bytes).expect("a copy is aligned and whole");
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(CopyFault::Blank);
        }
        if superblock.checksum != superblock.compute_checksum() {
            return Err(CopyFault::Checksum);
        }
        if superblock.magic != MAGIC {
            return Err(CopyFault::Magic { found: superblock.magic });
        }
        if superblock.copy != copy || superblock.copy_padding != [0; 12] {
            return Err(CopyFault::Misplaced { found: superblock.copy });
        }
        Ok(superblock)
    }

    /// The rules that hold for the contents of every superblock, once its checksum does.
    fn validate(&self) -> Result<(), SuperblockError> {
        if self.version != VERSION {
            return Err(SuperblockError::Version { found: self.version });
        }
        self.config.validate().map_err(SuperblockError::Config)?;
        let rule = |holds: bool, field: &'static str| {
            if holds { Ok(()) } else { Err(SuperblockError::Field { field }) }
        };
        rule(self.sequence > 0, "sequence")?;
        let counted = (1..=REPLICAS_MAX).contains(&self.replica_count);
        rule(counted, "replica_count")?;
        rule(self.replica < self.replica_count + STANDBYS_MAX, "replica")?;
        rule(self.log_view <= self.view, "log_view")?;
        rule(self.epoch == 0, "epoch")?;
        rule(self.view_headers_count <= VIEW_HEADERS_MAX, "view_headers_count")?;
        rule(self.sync_op_min <= self.sync_op_max, "sync_op_min")?;
        rule(self.recovering <= FOLLOWING && self.recovering_padding == [0; 3], "recovering")?;
        rule(self.recovering != NOT_RECOVERING || self.safe_view == 0, "safe_view")?;
        rule(self.reserved.iter().all(|byte| *byte == 0), "reserved")?;
        let checkpoint = self.checkpoint.header();
        rule(checkpoint.valid_checksum(), "checkpoint")?;
        rule(checkpoint.invalid().is_none(), "checkpoint")?;
        rule(checkpoint.frame.cluster == self.cluster, "checkpoint")
    }
}

/// What is wrong with one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFault {
    /// All bytes are zero: never written.
    Blank,
    /// The bytes do not have the checksum they claim.
    Checksum,
    /// Not the mark of a data file.
    Magic {
        /// What stands in its place.
        found: u64,
    },
    /// The copy belongs elsewhere.
    Misplaced {
        /// The copy it claims to be.
        found: u32,
    },
    /// The device could not read it.
    Unreadable {
        /// The system's error number.
        errno: i32,
    },
}

impl fmt::Display for CopyFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyFault::Blank => write!(formatter, "never written"),
            CopyFault::Checksum => write!(formatter, "checksum does not match the bytes"),
            CopyFault::Magic { found } => {
                write!(formatter, "mark is {found:#018x}, expected {MAGIC:#018x}")
            }
            CopyFault::Misplaced { found } => write!(formatter, "says that it is copy {found}"),
            CopyFault::Unreadable { errno } => write!(formatter, "unreadable, error {errno}"),
        }
    }
}

/// What one copy holds: sequence and checksum, or its fault.
pub type CopyState = Result<(u64, u128), CopyFault>;

/// Why no superblock can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuperblockError {
    /// Nothing was ever written, or formatting was interrupted.
    NotFormatted,
    /// Fewer than two copies agree.
    NoQuorum {
        /// The sequence of each copy, or its fault.
        copies: [Result<u64, CopyFault>; COPIES],
    },
    /// Two pairs of copies disagree about the same sequence.
    Fork {
        /// The sequence.
        sequence: u64,
    },
    /// Written by other software.
    Version {
        /// The format's version in the file.
        found: u32,
    },
    /// The geometry is not usable.
    Config(ConfigError),
    /// A field breaks its rule although the checksum holds.
    Field {
        /// Its name.
        field: &'static str,
    },
}

impl fmt::Display for SuperblockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "zone superblock: ")?;
        match self {
            SuperblockError::NotFormatted => {
                write!(formatter, "the file is not formatted, or formatting was interrupted")
            }
            SuperblockError::NoQuorum { copies } => {
                write!(formatter, "fewer than {QUORUM} of {COPIES} copies agree:")?;
                for (index, copy) in copies.iter().enumerate() {
                    let offset = index * COPY_SIZE;
                    write!(formatter, " copy {index} at file offset {offset}: ")?;
                    match copy {
                        Ok(sequence) => write!(formatter, "valid, sequence {sequence};")?,
                        Err(fault) => write!(formatter, "{fault};")?,
                    }
                }
                write!(formatter, " restore the file from a backup")
            }
            SuperblockError::Fork { sequence } => {
                write!(formatter, "two pairs of copies disagree about sequence {sequence}")
            }
            SuperblockError::Version { found } => {
                write!(formatter, "format version {found}, this program reads {VERSION}")
            }
            SuperblockError::Config(error) => write!(formatter, "configuration: {error}"),
            SuperblockError::Field { field } => write!(formatter, "field {field} breaks its rule"),
        }
    }
}

/// What to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// A copy to believe.
    pub copy: u32,
    /// Copies that are not identical to it and must be written again.
    pub repair: [bool; COPIES],
    /// Highest sequence of any valid copy: the next superblock must have a higher one.
    pub sequence_max: u64,
}

/// Chooses among copies: the highest sequence on which two identical copies agree.
///
/// # Errors
///
/// If there is no such pair, or two of them contradict each other.
///
/// # Panics
///
/// Never: there are four copies.
pub fn quorum(copies: &[CopyState; COPIES]) -> Result<Quorum, SuperblockError> {
    let mut best: Option<(u64, u128, usize)> = None;
    for (index, copy) in copies.iter().enumerate() {
        let Ok((sequence, sum)) = *copy else { continue };
        let agreeing = copies.iter().filter(|other| **other == *copy).count();
        if agreeing < QUORUM {
            continue;
        }
        match best {
            Some((known, other, _)) if known == sequence && other != sum => {
                return Err(SuperblockError::Fork { sequence });
            }
            Some((known, ..)) if sequence <= known => {}
            _ => best = Some((sequence, sum, index)),
        }
    }
    let Some((sequence, sum, index)) = best else {
        let valid = copies.iter().filter(|copy| copy.is_ok()).count();
        let blank = copies.iter().filter(|copy| **copy == Err(CopyFault::Blank)).count();
        // Formatting writes the copies last and one after another: a single first copy, perhaps
        // torn, beside blank ones is what an interruption leaves.
        if blank == COPIES || (blank == COPIES - 1 && copies[0] != Err(CopyFault::Blank)) {
            return Err(SuperblockError::NotFormatted);
        }
        let first = copies.iter().flatten().map(|(sequence, _)| *sequence).max();
        if valid == 1 && first == Some(1) && copies[2..] == [Err(CopyFault::Blank); 2] {
            return Err(SuperblockError::NotFormatted);
        }
        let copies = copies.map(|copy| copy.map(|(sequence, _)| sequence));
        return Err(SuperblockError::NoQuorum { copies });
    };
    let repair = copies.map(|copy| copy != Ok((sequence, sum)));
    let sequence_max = copies.iter().flatten().map(|(sequence, _)| *sequence).max();
    Ok(Quorum {
        copy: u32::try_from(index).expect("four copies"),
        repair,
        sequence_max: sequence_max.expect("a quorum has a sequence"),
    })
}

/// Reads all copies as they lie in the file and copies the believed one to `chosen`; its contents
/// are checked too.
///
/// # Errors
///
/// As [`quorum`], and if the contents break a rule.
///
/// # Panics
///
/// If a copy is not 16 KiB aligned to 16 bytes.
pub fn choose(
    copies: &[Result<&[u8], CopyFault>; COPIES],
    chosen: &mut Superblock,
) -> Result<Quorum, SuperblockError> {
    let mut states: [CopyState; COPIES] = [Err(CopyFault::Blank); COPIES];
    for (index, copy) in (0_u32..).zip(copies) {
        let parsed = copy.and_then(|bytes| Superblock::parse(bytes, index));
        states[index as usize] = parsed.map(|parsed| (parsed.sequence, parsed.checksum));
    }
    let quorum = quorum(&states)?;
    let bytes = copies[quorum.copy as usize].expect("the chosen copy was read");
    chosen.as_mut_bytes().copy_from_slice(bytes);
    chosen.validate()?;
    Ok(quorum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::AlignedMemory;

    fn genesis() -> Box<Superblock> {
        let config = Config::testing();
        Superblock::genesis(&Genesis {
            cluster: 7,
            replica: 0,
            replica_count: 1,
            config,
            is_recovering: false,
        })
    }

    /// Goal: every combination of four copies, each of two generations, a stray newer one or
    /// damaged, is judged by an independent count.
    #[test]
    fn every_combination() {
        let kinds: [CopyState; 4] =
            [Ok((5, 50)), Ok((6, 60)), Ok((6, 61)), Err(CopyFault::Checksum)];
        for number in 0..256_usize {
            let pick = |position: usize| kinds[(number >> (2 * position)) & 3];
            let copies = [pick(0), pick(1), pick(2), pick(3)];
            let count = |kind: usize| copies.iter().filter(|copy| **copy == kinds[kind]).count();
            let result = quorum(&copies);
            if count(1) >= 2 && count(2) >= 2 {
                assert_eq!(result, Err(SuperblockError::Fork { sequence: 6 }));
            } else if let Some(kind) = [1, 2, 0].into_iter().find(|kind| count(*kind) >= 2) {
                let result = result.unwrap();
                assert_eq!(copies[result.copy as usize], kinds[kind]);
                for (copy, repair) in copies.iter().zip(result.repair) {
                    assert_eq!(repair, *copy != kinds[kind]);
                }
                let newer = count(1) + count(2) > 0;
                assert_eq!(result.sequence_max, if newer { 6 } else { 5 });
            } else {
                let copies = copies.map(|copy| copy.map(|(sequence, _)| sequence));
                assert_eq!(result, Err(SuperblockError::NoQuorum { copies }));
            }
        }
    }

    /// Goal: an interrupted write of four copies leaves the old or the new superblock, never none,
    /// and an interrupted format is told from damage.
    #[test]
    fn interruptions() {
        let (old, new): (CopyState, CopyState) = (Ok((1, 1)), Ok((2, 2)));
        let torn: CopyState = Err(CopyFault::Checksum);
        let blank: CopyState = Err(CopyFault::Blank);
        for written in 0..4 {
            for middle in [old, torn, new] {
                let mut copies = [old; 4];
                copies[..written].fill(new);
                copies[written] = middle;
                let chosen = quorum(&copies).unwrap();
                let fresh = copies.iter().filter(|copy| **copy == new).count() >= 2;
                assert_eq!(copies[chosen.copy as usize], if fresh { new } else { old });
            }
        }
        for copies in [[blank; 4], [torn, blank, blank, blank], [old, torn, blank, blank]] {
            assert_eq!(quorum(&copies), Err(SuperblockError::NotFormatted));
        }
        assert_eq!(quorum(&[old, blank, blank, blank]), Err(SuperblockError::NotFormatted));
        assert!(quorum(&[old, old, torn, blank]).is_ok());
        let copies = [Err(CopyFault::Checksum); 4];
        assert_eq!(quorum(&[torn; 4]), Err(SuperblockError::NoQuorum { copies }));
    }

    /// Goal: a flipped bit anywhere is found, misplaced and foreign copies are named, and the
    /// copy's index does not enter the checksum.
    #[test]
    fn parse_finds_damage() {
        let mut memory = AlignedMemory::new(COPY_SIZE);
        assert_eq!(Superblock::parse(&memory, 0), Err(CopyFault::Blank));
        let mut superblock = genesis();
        memory.copy_from_slice(superblock.as_bytes());
        let sum = Superblock::parse(&memory, 0).unwrap().checksum;
        for index in (0..COPY_SIZE).step_by(7) {
            memory[index] ^= 16;
            let found = Superblock::parse(&memory, 0);
            assert!(found.is_err(), "byte {index}");
            memory[index] ^= 16;
        }
        superblock.copy = 3;
        memory.copy_from_slice(superblock.as_bytes());
        assert_eq!(Superblock::parse(&memory, 0), Err(CopyFault::Misplaced { found: 3 }));
        assert_eq!(Superblock::parse(&memory, 3).unwrap().checksum, sum);
        superblock.magic = 1;
        superblock.seal();
        memory.copy_from_slice(superblock.as_bytes());
        assert_eq!(Superblock::parse(&memory, 3), Err(CopyFault::Magic { found: 1 }));
    }

    /// Goal: contents that break a rule are refused by name although the checksums hold.
    #[test]
    fn contents_are_checked() {
        let check = |change: fn(&mut Superblock), expected: Option<SuperblockError>| {
            let mut memory = AlignedMemory::new(4 * COPY_SIZE);
            let mut superblock = genesis();
            change(&mut superblock);
            superblock.seal();
            for copy in 0..4_u32 {
                superblock.copy = copy;
                let start = copy as usize * COPY_SIZE;
                memory[start..start + COPY_SIZE].copy_from_slice(superblock.as_bytes());
            }
            let copy = |index: usize| Ok(&memory[index * COPY_SIZE..(index + 1) * COPY_SIZE]);
            let mut chosen = genesis();
            let result = choose(&[copy(0), copy(1), copy(2), copy(3)], &mut chosen);
            assert_eq!(result.err(), expected);
        };
        check(|_| {}, None);
        check(|block| block.version = 9, Some(SuperblockError::Version { found: 9 }));
        check(|block| block.epoch = 1, Some(SuperblockError::Field { field: "epoch" }));
        check(|block| block.replica = 6, None);
        check(|block| block.replica = 7, Some(SuperblockError::Field { field: "replica" }));
        let count = SuperblockError::Field { field: "replica_count" };
        check(|block| block.replica_count = 7, Some(count));
        check(|block| block.log_view = 1, Some(SuperblockError::Field { field: "log_view" }));
        check(|block| block.sequence = 0, Some(SuperblockError::Field { field: "sequence" }));
        check(|block| block.reserved[9] = 1, Some(SuperblockError::Field { field: "reserved" }));
        check(
            |block| block.checkpoint.op = 5,
            Some(SuperblockError::Field { field: "checkpoint" }),
        );
    }

    /// Goal: errors tell a person the zone, copy and offset.
    #[test]
    fn messages() {
        let mut copies = [Err(CopyFault::Checksum); 4];
        copies[2] = Ok(9);
        let text = SuperblockError::NoQuorum { copies }.to_string();
        assert!(text.contains("zone superblock"), "{text}");
        assert!(text.contains("copy 1 at file offset 16384: checksum"), "{text}");
        assert!(text.contains("copy 2 at file offset 32768: valid, sequence 9"), "{text}");
    }
}
