//! Control messages between replicas: one header for all of them, and bodies of prepare headers.
//!
//! This is our own encoding; no client sees it. Every field that a command has no use for is zero,
//! which the rules here check. Five commands have a body: [`Command::Headers`] and
//! [`Command::DoViewChange`] bring headers of prepares, [`Command::StartView`] brings a
//! [`CheckpointState`] and then headers, [`Command::Checkpoint`] the former alone,
//! [`Command::Block`] brings a block of the grid as it lies, or nothing if it is not intact there.
//! Not covered: what replicas do with any
//! of it.

use static_assertions::const_assert_eq;
use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

use super::command::Command;
use super::header::{
    Frame, HEADER_SIZE, Header, HeaderError, bodiless_invalid, first_broken, is_zero,
};
use super::message::Message;
use super::prepare::PrepareHeader;
use super::release::Release;
use super::{NODES_MAX, SECTOR_SIZE, to_index};

/// Bytes of the state machine's root of a checkpoint.
pub const ROOT_SIZE: u32 = 256;
/// Headers in one message at most.
pub const HEADERS_MAX: u32 = 32;

/// Header of a control message. Which fields a command uses is told at each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PeerHeader {
    /// The common half: sender, its release, and its view; of a `StartViewChange` the view that is
    /// voted for.
    pub frame: Frame,
    /// Checksum of the prepare that the message is about (`PrepareOk`, `RequestPrepare`), or of the
    /// sender's head (Ping, Commit, `DoViewChange`, `StartView`).
    pub context: u128,
    /// Identity of the sender's durable checkpoint (Ping, `PrepareOk`).
    pub checkpoint_id: u128,
    /// The op it is about: of the prepare, the head, or the last of a range; with `Checkpoint`, one
    /// that was asked for and is not there, or zero.
    pub op: u64,
    /// First of a range (`RequestHeaders`).
    pub op_min: u64,
    /// Newest op known to be committed (Ping, `PrepareOk`, Commit, `DoViewChange`, `StartView`).
    pub commit: u64,
    /// Op of the sender's durable checkpoint (Ping, `PrepareOk`, `DoViewChange`, `StartView`).
    pub checkpoint_op: u64,
    /// Monotonic clock of the pinging replica in nanoseconds (Ping, and returned by Pong).
    pub monotonic_ns: u64,
    /// The sender's real time in nanoseconds since the Unix epoch (Pong).
    pub realtime_ns: u64,
    /// Newest view in which the sender was in normal operation (Ping, `DoViewChange`).
    pub log_view: u32,
    /// Bit i: the prepare of op − i is durable here (`DoViewChange`).
    pub present: u32,
    /// Bit i: the prepare of op − i was certainly never acknowledged from here (`DoViewChange`).
    pub nack: u32,
    /// 1 if the sender has left its view for the one that it votes for (`StartViewChange`).
    pub entered: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// Marks a question (`RequestStartView`, Ping) and is returned with its answer (`StartView`,
    /// Pong); zero if it does not matter which question is answered.
    pub nonce: u64,
    /// Address of the block (`RequestBlock`, `Block`), whose checksum is `context` and whose
    /// sequence is `op`.
    pub address: u64,
    /// Release of the sender's program (Ping).
    pub program: Release,
    /// The view that the sender, which recovers, waits for the others to be in (Ping); or zero.
    pub awaited: u32,
    /// Zero.
    pub reserved: [u8; 8],
}

const_assert_eq!(size_of::<PeerHeader>(), 256);
const_assert_eq!(offset_of!(PeerHeader, context), 128);
const_assert_eq!(offset_of!(PeerHeader, op), 160);
const_assert_eq!(offset_of!(PeerHeader, log_view), 208);
const_assert_eq!(offset_of!(PeerHeader, entered), 220);
const_assert_eq!(offset_of!(PeerHeader, nonce), 224);
const_assert_eq!(offset_of!(PeerHeader, address), 232);
const_assert_eq!(offset_of!(PeerHeader, program), 240);
const_assert_eq!(offset_of!(PeerHeader, awaited), 244);

/// A checkpoint as a `StartView` announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CheckpointState {
    /// Header of the last prepare that it covers.
    pub header: PrepareHeader,
    /// The state machine's root.
    pub root: [u8; ROOT_SIZE as usize],
    /// Bytes of the data file that it needs.
    pub storage_size: u64,
    /// Release under which it was made.
    pub release: Release,
    /// How sure others can be to have it: [`INCOMPLETE`], [`COMPLETE`] or [`SHARED`].
    pub standing: u8,
    /// Zero.
    pub reserved: [u8; 243],
}

/// Blocks of a checkpoint may be missing where it is told from.
pub const INCOMPLETE: u8 = 0;
/// A checkpoint is whole where it is told from.
pub const COMPLETE: u8 = 1;
/// A replication quorum has a checkpoint.
pub const SHARED: u8 = 2;

const_assert_eq!(size_of::<CheckpointState>(), 768);

impl Command {
    /// Whether this is a control message between replicas, with a [`PeerHeader`].
    #[must_use]
    pub fn is_peer(self) -> bool {
        match self {
            Command::Ping
            | Command::Pong
            | Command::PrepareOk
            | Command::Commit
            | Command::StartViewChange
            | Command::DoViewChange
            | Command::RequestStartView
            | Command::RequestHeaders
            | Command::RequestPrepare
            | Command::Headers
            | Command::RequestBlock
            | Command::Block
            | Command::RequestCheckpoint
            | Command::Checkpoint
            | Command::StartView => true,
            Command::PingClient
            | Command::PongClient
            | Command::Request
            | Command::Prepare
            | Command::Reply
            | Command::Eviction
            | Command::RequestStatus
            | Command::Status
            | Command::Hello => false,
        }
    }
}

impl Header {
    /// The header of a control message.
    ///
    /// # Panics
    ///
    /// If the command is no such.
    #[must_use]
    pub fn peer(&self) -> &PeerHeader {
        assert!(self.command().is_peer());
        transmute_ref!(self)
    }

    /// The header of a control message, for writing.
    ///
    /// # Panics
    ///
    /// If the command is no such.
    #[must_use]
    pub fn peer_mut(&mut self) -> &mut PeerHeader {
        assert!(self.command().is_peer());
        transmute_mut!(self)
    }
}

impl PeerHeader {
    /// A header of this command, everything else zero but a size without body.
    ///
    /// # Panics
    ///
    /// If the command is none of a control message.
    #[must_use]
    pub fn new(command: Command) -> PeerHeader {
        *Header::new(command).peer()
    }

    /// The same as a general header.
    #[must_use]
    pub fn header(&self) -> &Header {
        transmute_ref!(self)
    }

    /// The same as a general header, for writing.
    #[must_use]
    pub fn header_mut(&mut self) -> &mut Header {
        transmute_mut!(self)
    }

    /// The rules of control messages: see [`Header::invalid`](super::Header::invalid).
    pub(super) fn part_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        first_broken(&[
            (frame.replica < NODES_MAX, HeaderError::Replica(frame.replica)),
            (frame.release != Release::ZERO, HeaderError::Release(frame.release)),
            (self.entered <= 1, HeaderError::Padding),
            (is_zero(&self.padding), HeaderError::Padding),
            (is_zero(&self.reserved), HeaderError::Reserved),
        ])
        .or_else(|| self.body_invalid())
        .or_else(|| self.unused_invalid())
    }

    fn body_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        let body_size = frame.size - HEADER_SIZE;
        let checkpoint_size = u32::try_from(size_of::<CheckpointState>()).expect("a small size");
        let (prefix, count_min) = match self.header().command() {
            Command::Headers | Command::DoViewChange => (0, 1),
            Command::StartView => (checkpoint_size, 1),
            Command::Checkpoint => {
                let whole = body_size == checkpoint_size;
                return first_broken(&[(whole, HeaderError::SizeOfCommand(frame.size))]);
            }
            Command::Block => {
                let whole = body_size.is_multiple_of(SECTOR_SIZE);
                return first_broken(&[(whole, HeaderError::SizeOfCommand(frame.size))]);
            }
            _ => return bodiless_invalid(frame),
        };
        let headers_size = body_size.checked_sub(prefix).unwrap_or(1);
        let count = headers_size / HEADER_SIZE;
        let whole = headers_size.is_multiple_of(HEADER_SIZE);
        let holds = whole && (count_min..=HEADERS_MAX).contains(&count);
        first_broken(&[(holds, HeaderError::SizeOfCommand(frame.size))])
    }

    /// Fields that the command does not use are zero.
    fn unused_invalid(&self) -> Option<HeaderError> {
        use Command::{
            Block, Checkpoint, Commit, DoViewChange, Ping, Pong, PrepareOk, RequestBlock,
            RequestHeaders, RequestPrepare, RequestStartView, StartView, StartViewChange,
        };
        let command = self.header().command();
        let unused = |used: &[Command], zero: bool| zero || used.contains(&command);
        let about = [Ping, PrepareOk, Commit, DoViewChange, StartView];
        let commit = unused(&about, self.commit == 0) || command == Checkpoint;
        let blocks = [RequestBlock, Block];
        let context = unused(&about, self.context == 0)
            || command == RequestPrepare
            || blocks.contains(&command);
        let op = unused(&about, self.op == 0)
            || [RequestPrepare, RequestHeaders, Checkpoint].contains(&command)
            || blocks.contains(&command);
        let checkpoint = [Ping, PrepareOk, DoViewChange, StartView];
        let range = self.op_min <= self.op;
        first_broken(&[
            (context, HeaderError::Parent),
            (op, HeaderError::Op(self.op)),
            (commit, HeaderError::Commit(self.commit)),
            (unused(&[Ping, PrepareOk], self.checkpoint_id == 0), HeaderError::CheckpointId),
            (unused(&checkpoint, self.checkpoint_op == 0), HeaderError::CheckpointId),
            (unused(&[RequestHeaders], self.op_min == 0) && range, HeaderError::Op(self.op_min)),
            (unused(&[Ping, Pong], self.monotonic_ns == 0), HeaderError::Timestamp(0)),
            (unused(&[Pong], self.realtime_ns == 0), HeaderError::Timestamp(0)),
            (unused(&[Ping, DoViewChange], self.log_view == 0), HeaderError::View(self.log_view)),
            (unused(&[DoViewChange], self.present == 0), HeaderError::Padding),
            (unused(&[DoViewChange], self.nack == 0), HeaderError::Padding),
            (unused(&[StartViewChange], self.entered == 0), HeaderError::Padding),
            (
                unused(&[RequestStartView, StartView, Ping, Pong], self.nonce == 0),
                HeaderError::Padding,
            ),
            (unused(&blocks, self.address == 0), HeaderError::Padding),
            (unused(&[Ping], self.program == Release::ZERO), HeaderError::Release(self.program)),
            (unused(&[Ping], self.awaited == 0), HeaderError::View(self.awaited)),
        ])
    }
}

/// The checkpoint in the body of a `Checkpoint`, and in front of the headers of a `StartView`.
///
/// # Panics
///
/// If the message is neither.
#[must_use]
pub fn checkpoint_state(message: &Message) -> &CheckpointState {
    assert!(matches!(message.header().command(), Command::StartView | Command::Checkpoint));
    let (state, _) = CheckpointState::ref_from_prefix(message.body()).expect("aligned and whole");
    state
}

/// The headers in the body of a control message. Each still has to be checked.
///
/// # Panics
///
/// If the message is none that has headers.
#[must_use]
pub fn body_headers(message: &Message) -> &[Header] {
    let skipped = match message.header().command() {
        Command::Headers | Command::DoViewChange => 0,
        Command::StartView => size_of::<CheckpointState>(),
        other => panic!("{other:?} has no headers"),
    };
    <[Header]>::ref_from_bytes(&message.body()[skipped..]).expect("aligned and whole")
}

/// The header if it is an intact one of a prepare of this cluster.
#[must_use]
pub fn prepare_header(header: &Header, cluster: u128) -> Option<&PrepareHeader> {
    let prepare = header.frame.command == Command::Prepare as u8;
    if !prepare || !header.valid_checksum() || header.invalid().is_some() {
        return None;
    }
    (header.frame.cluster == cluster).then(|| header.prepare())
}

/// Writes headers, and before them the checkpoint of a `StartView`, as the body of a message, whose
/// header is then complete but for its checksums.
///
/// # Panics
///
/// If there are too many or the buffer is too small.
pub fn write_headers<'a>(
    message: &mut Message,
    checkpoint: Option<&CheckpointState>,
    headers: impl Iterator<Item = &'a PrepareHeader>,
) {
    let area = message.body_area_mut();
    let mut end = 0;
    if let Some(checkpoint) = checkpoint {
        end = size_of::<CheckpointState>();
        area[..end].copy_from_slice(checkpoint.as_bytes());
    }
    let mut count = 0;
    for header in headers {
        let next = end + to_index(HEADER_SIZE);
        area[end..next].copy_from_slice(header.as_bytes());
        end = next;
        count += 1;
    }
    assert!(count <= HEADERS_MAX);
    message.set_body_size(super::to_size(end));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Pool;

    const COMMANDS: [Command; 15] = [
        Command::Ping,
        Command::Pong,
        Command::PrepareOk,
        Command::Commit,
        Command::StartViewChange,
        Command::DoViewChange,
        Command::RequestStartView,
        Command::RequestHeaders,
        Command::RequestPrepare,
        Command::Headers,
        Command::RequestBlock,
        Command::Block,
        Command::RequestCheckpoint,
        Command::Checkpoint,
        Command::StartView,
    ];

    fn message(command: Command) -> Message {
        let pool = Pool::new("test", 1, 16_384);
        let mut message = Message::new(pool.acquire(), command);
        let peer = message.header_mut().peer_mut();
        peer.frame.release = Release::SERVER;
        peer.frame.cluster = 7;
        let root = PrepareHeader::root(7);
        let state = CheckpointState {
            header: root,
            root: [0; ROOT_SIZE as usize],
            storage_size: 0,
            release: Release::SERVER,
            standing: SHARED,
            reserved: [0; 243],
        };
        match command {
            Command::Headers | Command::DoViewChange => {
                write_headers(&mut message, None, [root; 2].iter());
            }
            Command::StartView => write_headers(&mut message, Some(&state), [root; 3].iter()),
            Command::Block => message.set_body_size(SECTOR_SIZE),
            Command::Checkpoint => write_headers(&mut message, Some(&state), [].iter()),
            _ => {}
        }
        message.set_checksums();
        message
    }

    /// Goal: each command is valid with what it uses, and its headers come back.
    #[test]
    fn round_trip() {
        for command in COMMANDS {
            let message = message(command);
            assert_eq!(message.header().invalid(), None, "{command:?}");
            assert!(command.is_peer());
        }
        let start = message(Command::StartView);
        assert_eq!(body_headers(&start).len(), 3);
        assert_eq!(checkpoint_state(&start).header.op, 0);
        for header in body_headers(&start) {
            assert!(prepare_header(header, 7).is_some());
            assert!(prepare_header(header, 8).is_none());
        }
        assert_eq!(body_headers(&message(Command::Headers)).len(), 2);
    }

    /// Goal: whatever a command does not use must be zero, and each used field may be set.
    #[test]
    fn unused_fields() {
        type Set = fn(&mut PeerHeader);
        use Command::{
            Block, Checkpoint, Commit, DoViewChange, Ping, Pong, PrepareOk, RequestBlock,
            RequestHeaders, RequestPrepare, RequestStartView, StartView, StartViewChange,
        };
        let about: &[Command] = &[Ping, PrepareOk, Commit, DoViewChange, StartView, Checkpoint];
        let op: &[Command] = &[
            Ping,
            PrepareOk,
            Commit,
            DoViewChange,
            StartView,
            RequestPrepare,
            RequestHeaders,
            RequestBlock,
            Block,
            Checkpoint,
        ];
        let cases: [(Set, &[Command]); 14] = [
            (|peer| peer.op = 1, op),
            (|peer| peer.address = 1, &[RequestBlock, Block]),
            (|peer| peer.program = Release::PROGRAM, &[Ping]),
            (|peer| peer.awaited = 1, &[Ping]),
            (|peer| peer.commit = 1, about),
            (|peer| peer.checkpoint_id = 1, &[Ping, PrepareOk]),
            (|peer| peer.checkpoint_op = 1, &[Ping, PrepareOk, DoViewChange, StartView]),
            (|peer| (peer.op_min, peer.op) = (1, 1), &[RequestHeaders]),
            (|peer| peer.monotonic_ns = 1, &[Ping, Pong]),
            (|peer| peer.realtime_ns = 1, &[Pong]),
            (|peer| peer.log_view = 1, &[Ping, DoViewChange]),
            (|peer| (peer.present, peer.nack) = (1, 1), &[DoViewChange]),
            (|peer| peer.entered = 1, &[StartViewChange]),
            (|peer| peer.nonce = 1, &[RequestStartView, StartView, Ping, Pong]),
        ];
        for command in COMMANDS {
            for (index, (set, used)) in cases.iter().enumerate() {
                let mut message = message(command);
                set(message.header_mut().peer_mut());
                let valid = message.header().invalid().is_none();
                assert_eq!(valid, used.contains(&command), "{command:?} {index}");
            }
            let mut message = message(command);
            message.header_mut().peer_mut().frame.replica = NODES_MAX;
            assert!(message.header().invalid().is_some());
            message.header_mut().peer_mut().frame.replica = NODES_MAX - 1;
            message.header_mut().peer_mut().reserved[7] = 1;
            assert!(message.header().invalid().is_some());
        }
    }

    /// Goal: a body of another size than whole headers within the limits is refused.
    #[test]
    fn body_sizes() {
        for (command, sizes) in [
            (Command::Headers, [256, 512 + 16, 256 + 33 * 256]),
            (Command::DoViewChange, [256, 512 + 16, 256 + 33 * 256]),
            (Command::StartView, [256 + 512, 256 + 768, 256 + 768 + 16]),
            (Command::Ping, [256 + 16, 512, 1024]),
            (Command::Checkpoint, [256, 256 + 512, 256 + 768 + 256]),
            (Command::Block, [256 + 1, 256 + 4095, 256 + 4096 + 256]),
        ] {
            for size in sizes {
                let mut message = message(command);
                message.header_mut().frame.size = size;
                assert!(message.header().invalid().is_some(), "{command:?} {size}");
            }
        }
    }
}
