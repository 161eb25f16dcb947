//! Frames in which a replica tells about itself: our own, outside the protocol of clients.
//!
//! Whoever knows the cluster's id may ask a replica how it is (`RequestStatus`) and is told
//! (`Status`). A replica that connects to another says first who it is and whom it expects
//! (`Hello`), so that wrong set-ups show. None of them changes anything.

use static_assertions::const_assert_eq;
use std::mem::offset_of;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::command::Command;
use super::header::{Header, HeaderError, bodiless_invalid, first_broken, is_zero};
use super::{HEADER_SIZE, NODES_MAX, REPLICAS_MAX, Release, to_index};

/// Bytes of the body of a `Status`.
pub const STATUS_SIZE: u32 = 512;
/// A silence that never was broken, in nanoseconds.
pub const SILENCE_NEVER: u64 = u64::MAX;
/// An IPv6 address, or an IPv4 address mapped to one, and a port; all zero if unknown.
pub type AddressBytes = [u8; 18];
/// The edition of a [`StatusBody`] whose fields from `instance` on are set.
pub const STATUS_EDITION: u8 = 1;

/// What a replica knows of another.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct StatusPeer {
    /// Nanoseconds since it was heard, or [`SILENCE_NEVER`].
    pub silence_ns: u64,
    /// Newest op that it told of.
    pub op: u64,
}

/// How a replica is: the body of a `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct StatusBody {
    /// Newest op of the log.
    pub op: u64,
    /// Newest op executed.
    pub commit: u64,
    /// Newest op known to be committed.
    pub commit_max: u64,
    /// Op of the durable checkpoint.
    pub checkpoint_op: u64,
    /// Nanoseconds by which the clock is ahead of the cluster's, if that is known.
    pub clock_offset_ns: i64,
    /// By which that may be wrong.
    pub clock_error_ns: u64,
    /// Sessions of clients.
    pub sessions: u64,
    /// Blocks in use, in bytes.
    pub storage_used: u64,
    /// How many may be in use, in bytes.
    pub storage_usable: u64,
    /// The view.
    pub view: u32,
    /// The newest view in which it took part.
    pub log_view: u32,
    /// How it is, as a number that the replica gives it: see its report.
    pub standing: u8,
    /// Index of the primary of the view.
    pub primary: u8,
    /// Replicas that vote.
    pub replica_count: u8,
    /// Standbys.
    pub standby_count: u8,
    /// 1 if blocks of the checkpoint may be missing.
    pub syncing: u8,
    /// 1 if the others' logs do not reach back far enough.
    pub too_far_behind: u8,
    /// 1 if the clock is known.
    pub clock_known: u8,
    /// Zero.
    pub padding: u8,
    /// Version of the program, ASCII, filled up with zeros.
    pub version: [u8; 16],
    /// A number that the process drew when it started; zero if its edition is 0.
    pub instance: u64,
    /// Nanoseconds for which work has waited without progress.
    pub still_ns: u64,
    /// Of the other replicas and standbys, by index: the age of the newest ping that each has
    /// answered, in nanoseconds, or [`SILENCE_NEVER`].
    pub unanswered_ns: [u64; NODES_MAX as usize],
    /// Where two processes of one index listen, if there are such.
    pub twin_addresses: [AddressBytes; 2],
    /// The index of these twins plus one; 0 if none were seen.
    pub twins: u8,
    /// Why the replica is not ready, as a number of `Unready`; 0 if it is.
    pub unready: u8,
    /// 1 if the data file was lost and the replica has no vote yet.
    pub recovering: u8,
    /// [`STATUS_EDITION`]; 0 in releases before 0.2, which set none of the fields from `instance`
    /// on.
    pub edition: u8,
    /// Zero.
    pub reserved: [u8; 64],
    /// The other replicas and standbys, by index.
    pub peers: [StatusPeer; NODES_MAX as usize],
}

const_assert_eq!(size_of::<StatusBody>(), STATUS_SIZE as usize);
const_assert_eq!(offset_of!(StatusBody, view), 72);
const_assert_eq!(offset_of!(StatusBody, version), 88);
const_assert_eq!(offset_of!(StatusBody, instance), 104);
const_assert_eq!(offset_of!(StatusBody, twin_addresses), 216);
const_assert_eq!(offset_of!(StatusBody, edition), 255);
const_assert_eq!(offset_of!(StatusBody, peers), 320);

impl StatusBody {
    /// All zero.
    #[must_use]
    pub fn new() -> StatusBody {
        StatusBody::new_zeroed()
    }

    /// The version of the program.
    #[must_use]
    pub fn version(&self) -> &str {
        let length = self.version.iter().position(|byte| *byte == 0);
        let text = &self.version[..length.unwrap_or(self.version.len())];
        std::str::from_utf8(text).unwrap_or("?")
    }

    /// Sets the version of the program, cut off if it is long.
    pub fn set_version(&mut self, version: &str) {
        self.version = [0; 16];
        for (place, byte) in self.version.iter_mut().zip(version.bytes()) {
            *place = byte;
        }
    }
}

impl Default for StatusBody {
    fn default() -> StatusBody {
        StatusBody::new()
    }
}

/// A replica that connects to another: who it is, and whom it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster.
    pub cluster: u128,
    /// Who it is.
    pub replica: u8,
    /// Whom it expects at the other end.
    pub expected: u8,
    /// Replicas that vote.
    pub replica_count: u8,
    /// Addresses in its list: replicas and standbys.
    pub nodes: u8,
    /// Largest message of its data file's geometry, in bytes; zero in releases before 0.2.
    pub message_size_max: u32,
    /// A number that the process drew when it started; zero in releases before 0.2, which ignore a
    /// hello that has one.
    pub instance: u64,
    /// Where it listens.
    pub listen: AddressBytes,
}

/// Where fields of a [`Hello`] are in its header; what lies between and behind them is zero.
const HELLO_MESSAGE_SIZE: std::ops::Range<usize> = 4..8;
const HELLO_INSTANCE: std::ops::Range<usize> = 8..16;
const HELLO_LISTEN: std::ops::Range<usize> = 16..34;

impl Hello {
    /// As the header of a frame without body, checksums included.
    #[must_use]
    pub fn header(&self) -> Header {
        let mut header = Header::new(Command::Hello);
        header.frame.cluster = self.cluster;
        header.frame.release = Release::SERVER;
        header.frame.replica = self.replica;
        let part = &mut header.command_part;
        part[..3].copy_from_slice(&[self.expected, self.replica_count, self.nodes]);
        part[HELLO_MESSAGE_SIZE].copy_from_slice(&self.message_size_max.to_le_bytes());
        part[HELLO_INSTANCE].copy_from_slice(&self.instance.to_le_bytes());
        part[HELLO_LISTEN].copy_from_slice(&self.listen);
        header.set_checksums(&[]);
        header
    }

    /// From such a header; none if it is no valid one.
    #[must_use]
    pub fn from_header(header: &Header) -> Option<Hello> {
        let valid = header.frame.command == Command::Hello as u8 && header.invalid().is_none();
        let [expected, replica_count, nodes, ..] = header.command_part;
        let Header { frame, command_part, .. } = header;
        let (cluster, replica) = (frame.cluster, frame.replica);
        let (mut instance, mut listen) = ([0; 8], [0; 18]);
        instance.copy_from_slice(&command_part[HELLO_INSTANCE]);
        listen.copy_from_slice(&command_part[HELLO_LISTEN]);
        let mut message_size_max = [0; 4];
        message_size_max.copy_from_slice(&command_part[HELLO_MESSAGE_SIZE]);
        valid.then_some(Hello {
            cluster,
            replica,
            expected,
            replica_count,
            nodes,
            message_size_max: u32::from_le_bytes(message_size_max),
            instance: u64::from_le_bytes(instance),
            listen,
        })
    }
}

/// The header of a `RequestStatus`, checksums included.
#[must_use]
pub fn request_status(cluster: u128) -> Header {
    let mut header = Header::new(Command::RequestStatus);
    header.frame.cluster = cluster;
    header.frame.release = Release::SERVER;
    header.set_checksums(&[]);
    header
}

/// The rules of these frames: see [`Header::invalid`].
pub(super) fn about_invalid(header: &Header) -> Option<HeaderError> {
    let frame = &header.frame;
    let release = (frame.release != Release::ZERO, HeaderError::Release(frame.release));
    let replica = (frame.replica < NODES_MAX, HeaderError::Replica(frame.replica));
    let part = &header.command_part;
    let is_rest_zero = if header.command() == Command::Hello {
        is_zero(&part[3..HELLO_MESSAGE_SIZE.start]) && is_zero(&part[HELLO_LISTEN.end..])
    } else {
        is_zero(part)
    };
    let rest = (is_rest_zero, HeaderError::Reserved);
    if header.command() == Command::Hello {
        let [expected, replica_count, nodes, ..] = *part;
        let rules = [
            (expected < NODES_MAX, HeaderError::Hello),
            ((1..=REPLICAS_MAX).contains(&replica_count), HeaderError::Hello),
            ((1..=NODES_MAX).contains(&nodes), HeaderError::Hello),
        ];
        return bodiless_invalid(frame)
            .or(first_broken(&[release, replica, rest]))
            .or(first_broken(&rules));
    }
    if header.command() == Command::Status {
        let size = frame.size == HEADER_SIZE + STATUS_SIZE;
        return first_broken(&[
            (size, HeaderError::SizeOfCommand(frame.size)),
            release,
            replica,
            rest,
        ]);
    }
    bodiless_invalid(frame).or(first_broken(&[release, replica, rest]))
}

/// The body of a `Status` whose header and checksums are valid; none if it is another size.
#[must_use]
pub fn status_body(body: &[u8]) -> Option<StatusBody> {
    if body.len() != to_index(STATUS_SIZE) {
        return None;
    }
    StatusBody::read_from_bytes(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a hello comes back as it was said, and unused bytes must be zero.
    #[test]
    fn hello() {
        let (instance, listen) = (0x0102_0304_0506_0708, [9; 18]);
        let (expected, replica_count) = (0, 3);
        let hello = Hello {
            cluster: 7,
            replica: 2,
            expected,
            replica_count,
            nodes: 4,
            message_size_max: 0x0304_0506,
            instance,
            listen,
        };
        let mut header = hello.header();
        assert_eq!(Hello::from_header(&header), Some(hello));
        assert!(header.valid_checksum());
        for place in [3, 34, 127] {
            header.command_part[place] = 1;
            assert_eq!(Hello::from_header(&header), None);
            header.command_part[place] = 0;
        }
        for wrong in [
            Hello { expected: NODES_MAX, ..hello },
            Hello { replica_count: 0, ..hello },
            Hello { replica_count: REPLICAS_MAX + 1, ..hello },
            Hello { nodes: 0, ..hello },
            Hello { nodes: NODES_MAX + 1, ..hello },
        ] {
            assert_eq!(wrong.header().invalid(), Some(HeaderError::Hello));
            assert_eq!(Hello::from_header(&wrong.header()), None);
        }
        // As releases before 0.2 say it.
        let bare = Hello { message_size_max: 0, instance: 0, listen: [0; 18], ..hello };
        let bare = bare.header();
        assert!(is_zero(&bare.command_part[3..]) && bare.invalid().is_none());
        assert_eq!(Hello::from_header(&request_status(7)), None);
        let mut header = Hello { replica: NODES_MAX, ..hello }.header();
        assert_eq!(header.invalid(), Some(HeaderError::Replica(NODES_MAX)));
        header.frame.replica = 0;
        header.frame.size += 16;
        assert!(header.invalid().is_some());
    }

    /// Goal: questions have no body, answers have one of the right size, and versions come back.
    #[test]
    fn status() {
        let mut header = request_status(7);
        assert_eq!(header.invalid(), None);
        header.command_part[0] = 1;
        assert_eq!(header.invalid(), Some(HeaderError::Reserved));
        let mut answer = Header::new(Command::Status);
        answer.frame.release = Release::SERVER;
        assert!(answer.invalid().is_some());
        answer.frame.size = HEADER_SIZE + STATUS_SIZE;
        assert_eq!(answer.invalid(), None);
        let mut body = StatusBody::default();
        body.set_version("0.1.0");
        assert_eq!(body.version(), "0.1.0");
        body.set_version("a version of more than sixteen bytes");
        assert_eq!(body.version().len(), 16);
        assert_eq!(status_body(body.as_bytes()), Some(body));
        assert_eq!(status_body(&body.as_bytes()[1..]), None);
    }
}
