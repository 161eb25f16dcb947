//! Headers: the first 256 bytes of every frame.
//!
//! A header is a [`Frame`] of 128 bytes that is common to all commands and a part of 128 bytes that
//! each command lays out for itself. Covered: the layouts, the checksums, and every rule that can
//! be judged from a header alone. Not covered: whether the cluster is ours and the rules that need
//! a session or a view. Our own headers are in [`prepare`](super::prepare) and
//! [`peer`](super::peer).

use static_assertions::const_assert_eq;
use std::mem::offset_of;
use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref,
};

use super::about::about_invalid;
use super::checksum::{CHECKSUM_EMPTY, checksum};
use super::command::Command;
use super::eviction::EvictionReason;
use super::prepare::PrepareHeader;
use super::release::Release;
use super::types::{TIMESTAMP_MAX, TIMESTAMP_MIN};
use super::{MESSAGE_SIZE_MAX, REPLICAS_MAX, to_index};

/// Size of every header in bytes.
pub const HEADER_SIZE: u32 = 256;
/// Size of a register request with its body, in bytes.
pub const REGISTER_REQUEST_SIZE: u32 = HEADER_SIZE + 256;
/// Size of a register reply with its body, in bytes.
pub const REGISTER_REPLY_SIZE: u32 = HEADER_SIZE + 64;

const OPERATION_REGISTER: u8 = 2;
const OPERATION_RECONFIGURE: u8 = 3;
const OPERATION_PULSE_OLD: u8 = 4;
const OPERATION_UPGRADE: u8 = 5;
const OPERATION_NOOP: u8 = 6;
const OPERATION_STATE_MACHINE_MIN: u8 = 128;

/// The half of a header that is common to all commands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Frame {
    /// Of the header's bytes 16..256.
    pub checksum: u128,
    /// Zero.
    pub checksum_padding: u128,
    /// Of the body.
    pub checksum_body: u128,
    /// Zero.
    pub checksum_body_padding: u128,
    /// Zero.
    pub nonce_reserved: u128,
    /// The cluster both sides belong to.
    pub cluster: u128,
    /// Header and body, in bytes.
    pub size: u32,
    /// Zero.
    pub epoch: u32,
    /// See each command.
    pub view: u32,
    /// See each command.
    pub release: Release,
    /// Zero.
    pub protocol: u16,
    /// A [`Command`].
    pub command: u8,
    /// Index of the sending replica; zero from a client.
    pub replica: u8,
    /// Zero.
    pub reserved_frame: [u8; 12],
}

const_assert_eq!(size_of::<Frame>(), 128);
const_assert_eq!(align_of::<Frame>(), 16);
const_assert_eq!(offset_of!(Frame, checksum), 0);
const_assert_eq!(offset_of!(Frame, checksum_padding), 16);
const_assert_eq!(offset_of!(Frame, checksum_body), 32);
const_assert_eq!(offset_of!(Frame, checksum_body_padding), 48);
const_assert_eq!(offset_of!(Frame, nonce_reserved), 64);
const_assert_eq!(offset_of!(Frame, cluster), 80);
const_assert_eq!(offset_of!(Frame, size), 96);
const_assert_eq!(offset_of!(Frame, epoch), 100);
const_assert_eq!(offset_of!(Frame, view), 104);
const_assert_eq!(offset_of!(Frame, release), 108);
const_assert_eq!(offset_of!(Frame, protocol), 112);
const_assert_eq!(offset_of!(Frame, command), 114);
const_assert_eq!(offset_of!(Frame, replica), 115);
const_assert_eq!(offset_of!(Frame, reserved_frame), 116);

/// A header of any command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// The common half.
    pub frame: Frame,
    /// The command's own half.
    pub command_part: [u8; 128],
}

const_assert_eq!(size_of::<Header>(), 256);
const_assert_eq!(offset_of!(Header, command_part), 128);

/// Client to replica: are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PingClientHeader {
    /// The common half; view and replica are zero.
    pub frame: Frame,
    /// Nonzero.
    pub client: u128,
    /// The client's own clock in nanoseconds; to be returned.
    pub ping_timestamp_monotonic: u64,
    /// Zero before registration, and always from clients older than 0.17.6.
    pub session: u64,
    /// Zero.
    pub reserved: [u8; 96],
}

const_assert_eq!(size_of::<PingClientHeader>(), 256);
const_assert_eq!(offset_of!(PingClientHeader, client), 128);
const_assert_eq!(offset_of!(PingClientHeader, ping_timestamp_monotonic), 144);
const_assert_eq!(offset_of!(PingClientHeader, session), 152);
const_assert_eq!(offset_of!(PingClientHeader, reserved), 160);

/// Replica to client: here, in this view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PongClientHeader {
    /// The common half; view and replica are the sender's, the replica below 6.
    pub frame: Frame,
    /// From the ping.
    pub ping_timestamp_monotonic: u64,
    /// Zero.
    pub reserved: [u8; 120],
}

const_assert_eq!(size_of::<PongClientHeader>(), 256);
const_assert_eq!(offset_of!(PongClientHeader, ping_timestamp_monotonic), 128);
const_assert_eq!(offset_of!(PongClientHeader, reserved), 136);

/// Client to replica: register, or execute an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RequestHeader {
    /// The common half; the view is the newest the client knew when it first sent this.
    pub frame: Frame,
    /// Context of the previous reply; zero to register.
    pub parent: u128,
    /// Zero.
    pub parent_padding: u128,
    /// Nonzero, chosen at random.
    pub client: u128,
    /// Zero to register, then the session's number.
    pub session: u64,
    /// Zero. A rule of sessions, for its place among them, and not of [`Header::invalid`].
    pub timestamp: u64,
    /// Zero to register, then counting from one.
    pub request: u32,
    /// See [`Operation`](super::Operation).
    pub operation: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// How long the previous request took, in microseconds; informational.
    pub previous_request_latency: u32,
    /// Zero.
    pub reserved: [u8; 52],
}

const_assert_eq!(size_of::<RequestHeader>(), 256);
const_assert_eq!(offset_of!(RequestHeader, parent), 128);
const_assert_eq!(offset_of!(RequestHeader, parent_padding), 144);
const_assert_eq!(offset_of!(RequestHeader, client), 160);
const_assert_eq!(offset_of!(RequestHeader, session), 176);
const_assert_eq!(offset_of!(RequestHeader, timestamp), 184);
const_assert_eq!(offset_of!(RequestHeader, request), 192);
const_assert_eq!(offset_of!(RequestHeader, operation), 196);
const_assert_eq!(offset_of!(RequestHeader, padding), 197);
const_assert_eq!(offset_of!(RequestHeader, previous_request_latency), 200);
const_assert_eq!(offset_of!(RequestHeader, reserved), 204);

/// Replica to client: the result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReplyHeader {
    /// The common half: the release of the request, view and primary under which it was prepared.
    pub frame: Frame,
    /// Checksum of the request's header.
    pub request_checksum: u128,
    /// Zero.
    pub request_checksum_padding: u128,
    /// See [`ReplyHeader::compute_context`].
    pub context: u128,
    /// Zero.
    pub context_padding: u128,
    /// From the request.
    pub client: u128,
    /// Position in history; nonzero.
    pub op: u64,
    /// Equal to op. Of a register, the session's number.
    pub commit: u64,
    /// Of the commit; nonzero.
    pub timestamp: u64,
    /// From the request.
    pub request: u32,
    /// From the request.
    pub operation: u8,
    /// Zero.
    pub reserved: [u8; 19],
}

const_assert_eq!(size_of::<ReplyHeader>(), 256);
const_assert_eq!(offset_of!(ReplyHeader, request_checksum), 128);
const_assert_eq!(offset_of!(ReplyHeader, request_checksum_padding), 144);
const_assert_eq!(offset_of!(ReplyHeader, context), 160);
const_assert_eq!(offset_of!(ReplyHeader, context_padding), 176);
const_assert_eq!(offset_of!(ReplyHeader, client), 192);
const_assert_eq!(offset_of!(ReplyHeader, op), 208);
const_assert_eq!(offset_of!(ReplyHeader, commit), 216);
const_assert_eq!(offset_of!(ReplyHeader, timestamp), 224);
const_assert_eq!(offset_of!(ReplyHeader, request), 232);
const_assert_eq!(offset_of!(ReplyHeader, operation), 236);
const_assert_eq!(offset_of!(ReplyHeader, reserved), 237);

/// Primary to client: the session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct EvictionHeader {
    /// The common half; the release is the server's.
    pub frame: Frame,
    /// Nonzero.
    pub client: u128,
    /// Zero.
    pub reserved: [u8; 111],
    /// An [`EvictionReason`].
    pub reason: u8,
}

const_assert_eq!(size_of::<EvictionHeader>(), 256);
const_assert_eq!(offset_of!(EvictionHeader, client), 128);
const_assert_eq!(offset_of!(EvictionHeader, reserved), 144);
const_assert_eq!(offset_of!(EvictionHeader, reason), 255);

/// The rule of a header that is broken, named by its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// `checksum_padding` is not zero.
    ChecksumPadding,
    /// `checksum_body` of a frame without a body is not the checksum of nothing.
    ChecksumBody,
    /// `checksum_body_padding` is not zero.
    ChecksumBodyPadding,
    /// `nonce_reserved` is not zero.
    NonceReserved,
    /// `size` is outside 256..=1 MiB.
    Size(u32),
    /// `size` is not what the command or operation prescribes.
    SizeOfCommand(u32),
    /// `epoch` is not zero.
    Epoch(u32),
    /// `view` is not zero where it must be.
    View(u32),
    /// `release` is zero, or not zero where it must be.
    Release(Release),
    /// `protocol` is not zero.
    Protocol(u16),
    /// `command` is none of ours.
    Command(u8),
    /// `replica` is not zero from a client, or no index of a replica.
    Replica(u8),
    /// `reserved_frame` is not zero.
    ReservedFrame,
    /// `parent` is not zero where it must be.
    Parent,
    /// `parent_padding` is not zero.
    ParentPadding,
    /// `client` is zero, or not zero where it must be.
    Client,
    /// `session` is zero, or not zero where it must be.
    Session(u64),
    /// `request` is zero, or not zero where it must be.
    Request(u32),
    /// `operation` never occurs here.
    Operation(u8),
    /// `padding` is not zero.
    Padding,
    /// `reserved` is not zero.
    Reserved,
    /// `request_checksum` is not zero where it must be.
    RequestChecksum,
    /// `request_checksum_padding` is not zero.
    RequestChecksumPadding,
    /// `context_padding` is not zero.
    ContextPadding,
    /// `op` is zero, or not zero where it must be.
    Op(u64),
    /// `commit` is not equal to op in a reply, or not below op in a prepare.
    Commit(u64),
    /// `timestamp` is zero or above the maximum, or not zero where it must be.
    Timestamp(u64),
    /// `checkpoint_id` is not zero where it must be.
    CheckpointId,
    /// `request_count` does not fit the operation.
    RequestCount(u32),
    /// A hello is of an impossible cluster, or expects a replica that cannot exist.
    Hello,
    /// `reason` is none of the known ones.
    Reason(u8),
}

/// The first broken rule of a list of (rule holds, error).
pub(super) fn first_broken(rules: &[(bool, HeaderError)]) -> Option<HeaderError> {
    rules.iter().find(|(holds, _)| !holds).map(|(_, error)| *error)
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The rules of every frame, in the order in which they matter.
fn frame_invalid(frame: &Frame) -> Option<HeaderError> {
    let size_holds = (HEADER_SIZE..=MESSAGE_SIZE_MAX).contains(&frame.size);
    first_broken(&[
        (Command::try_from(frame.command).is_ok(), HeaderError::Command(frame.command)),
        (size_holds, HeaderError::Size(frame.size)),
        (frame.checksum_padding == 0, HeaderError::ChecksumPadding),
        (frame.checksum_body_padding == 0, HeaderError::ChecksumBodyPadding),
        (frame.nonce_reserved == 0, HeaderError::NonceReserved),
        (frame.epoch == 0, HeaderError::Epoch(frame.epoch)),
        (frame.protocol == 0, HeaderError::Protocol(frame.protocol)),
        (is_zero(&frame.reserved_frame), HeaderError::ReservedFrame),
    ])
}

/// The rules of a frame that consists of a header only.
pub(super) fn bodiless_invalid(frame: &Frame) -> Option<HeaderError> {
    first_broken(&[
        (frame.size == HEADER_SIZE, HeaderError::SizeOfCommand(frame.size)),
        (frame.checksum_body == CHECKSUM_EMPTY, HeaderError::ChecksumBody),
    ])
}

impl Header {
    /// A header of the given command, everything else zero but a size without body.
    #[must_use]
    pub fn new(command: Command) -> Header {
        let mut header = Header::new_zeroed();
        header.frame.command = command.into();
        header.frame.size = HEADER_SIZE;
        header
    }

    /// The header at the start of `data`.
    ///
    /// # Panics
    ///
    /// If `data` is shorter than a header or not aligned to 16 bytes.
    #[must_use]
    pub fn from_bytes(data: &[u8]) -> &Header {
        Header::ref_from_bytes(&data[..to_index(HEADER_SIZE)]).expect("headers are aligned")
    }

    /// The header at the start of `data`, for writing.
    ///
    /// # Panics
    ///
    /// If `data` is shorter than a header or not aligned to 16 bytes.
    #[must_use]
    pub fn from_bytes_mut(data: &mut [u8]) -> &mut Header {
        Header::mut_from_bytes(&mut data[..to_index(HEADER_SIZE)]).expect("headers are aligned")
    }

    /// The command.
    ///
    /// # Panics
    ///
    /// If it is unknown: a header is checked by [`Header::invalid`] before anybody asks.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::try_from(self.frame.command).expect("the header is valid")
    }

    /// Size of the body in bytes.
    ///
    /// # Panics
    ///
    /// If the size is below that of a header: see [`Header::invalid`].
    #[must_use]
    pub fn body_size(&self) -> u32 {
        assert!(self.frame.size >= HEADER_SIZE);
        self.frame.size - HEADER_SIZE
    }

    /// Checksum of the header's bytes after the checksum itself.
    #[must_use]
    pub fn compute_checksum(&self) -> u128 {
        checksum(&self.as_bytes()[size_of::<u128>()..])
    }

    /// Writes the header's checksum; nothing may change afterwards.
    pub fn set_checksum(&mut self) {
        self.frame.checksum = self.compute_checksum();
    }

    /// Writes the body's checksum.
    ///
    /// # Panics
    ///
    /// If the body's length is not what the header's size says.
    pub fn set_checksum_body(&mut self, body: &[u8]) {
        assert!(body.len() == to_index(self.body_size()));
        self.frame.checksum_body = checksum(body);
    }

    /// Writes both checksums, in their order.
    ///
    /// # Panics
    ///
    /// If the body's length is not what the header's size says.
    pub fn set_checksums(&mut self, body: &[u8]) {
        self.set_checksum_body(body);
        self.set_checksum();
    }

    /// Whether the header is as it was sealed.
    #[must_use]
    pub fn valid_checksum(&self) -> bool {
        self.frame.checksum == self.compute_checksum()
    }

    /// Whether the body is as it was sealed.
    #[must_use]
    pub fn valid_checksum_body(&self, body: &[u8]) -> bool {
        self.frame.checksum_body == checksum(body)
    }

    /// The first rule of the frame and its command that is broken, `None` if there is no such.
    /// Assumes that the checksum was found valid; does not know which cluster is ours.
    #[must_use]
    pub fn invalid(&self) -> Option<HeaderError> {
        if let Some(error) = frame_invalid(&self.frame) {
            return Some(error);
        }
        match self.command() {
            Command::PingClient => self.ping_client().part_invalid(),
            Command::PongClient => self.pong_client().part_invalid(),
            Command::Request => self.request().part_invalid(),
            Command::Prepare => self.prepare().part_invalid(),
            Command::Reply => self.reply().part_invalid(),
            Command::Eviction => self.eviction().part_invalid(),
            Command::RequestStatus | Command::Status | Command::Hello => about_invalid(self),
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
            | Command::StartView => self.peer().part_invalid(),
        }
    }
}

/// Conversions between the header of a command and the general one.
macro_rules! typed_header {
    ($kind:ident, $command:ident, $accessor:ident, $accessor_mut:ident) => {
        impl $kind {
            /// A header of this command, everything else zero but a size without body.
            #[must_use]
            pub fn new() -> $kind {
                *Header::new(Command::$command).$accessor()
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

            /// The first broken rule: see [`Header::invalid`].
            #[must_use]
            pub fn invalid(&self) -> Option<HeaderError> {
                self.header().invalid()
            }
        }

        impl Default for $kind {
            fn default() -> $kind {
                $kind::new()
            }
        }

        impl Header {
            /// The header as its command lays it out.
            ///
            /// # Panics
            ///
            /// If the command is another.
            #[must_use]
            pub fn $accessor(&self) -> &$kind {
                assert!(self.frame.command == Command::$command as u8);
                transmute_ref!(self)
            }

            /// The header as its command lays it out, for writing.
            ///
            /// # Panics
            ///
            /// If the command is another.
            #[must_use]
            pub fn $accessor_mut(&mut self) -> &mut $kind {
                assert!(self.frame.command == Command::$command as u8);
                transmute_mut!(self)
            }
        }
    };
}

typed_header!(PingClientHeader, PingClient, ping_client, ping_client_mut);
typed_header!(PongClientHeader, PongClient, pong_client, pong_client_mut);
typed_header!(RequestHeader, Request, request, request_mut);
typed_header!(PrepareHeader, Prepare, prepare, prepare_mut);
typed_header!(ReplyHeader, Reply, reply, reply_mut);
typed_header!(EvictionHeader, Eviction, eviction, eviction_mut);

impl PingClientHeader {
    fn part_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        bodiless_invalid(frame).or(first_broken(&[
            (frame.view == 0, HeaderError::View(frame.view)),
            (frame.replica == 0, HeaderError::Replica(frame.replica)),
            (frame.release != Release::ZERO, HeaderError::Release(frame.release)),
            (self.client != 0, HeaderError::Client),
            (is_zero(&self.reserved), HeaderError::Reserved),
        ]))
    }
}

impl PongClientHeader {
    fn part_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        bodiless_invalid(frame).or(first_broken(&[
            (frame.replica < REPLICAS_MAX, HeaderError::Replica(frame.replica)),
            (frame.release != Release::ZERO, HeaderError::Release(frame.release)),
            (is_zero(&self.reserved), HeaderError::Reserved),
        ]))
    }
}

impl RequestHeader {
    fn part_invalid(&self) -> Option<HeaderError> {
        let replica = self.frame.replica;
        first_broken(&[
            (replica == 0, HeaderError::Replica(replica)),
            (self.parent_padding == 0, HeaderError::ParentPadding),
            (is_zero(&self.padding), HeaderError::Padding),
            (is_zero(&self.reserved), HeaderError::Reserved),
            (self.operation_may_occur(), HeaderError::Operation(self.operation)),
            (self.client != 0, HeaderError::Client),
        ])
        .or_else(|| match self.operation {
            OPERATION_REGISTER => self.register_invalid(),
            _ => self.session_invalid(),
        })
    }

    /// Whether some frame from a client may carry the operation. Those that may, but are not known
    /// to us, are answered with an eviction later.
    fn operation_may_occur(&self) -> bool {
        // 4 and 5 are internal operations of the reference: no client sends them.
        static_assertions::const_assert!(OPERATION_PULSE_OLD + 1 == OPERATION_UPGRADE);
        matches!(self.operation, OPERATION_REGISTER | OPERATION_RECONFIGURE | OPERATION_NOOP)
            || self.operation >= OPERATION_STATE_MACHINE_MIN
    }

    fn register_invalid(&self) -> Option<HeaderError> {
        let size = self.frame.size;
        let size_holds = size == HEADER_SIZE || size == REGISTER_REQUEST_SIZE;
        first_broken(&[
            (self.parent == 0, HeaderError::Parent),
            (self.session == 0, HeaderError::Session(self.session)),
            (self.request == 0, HeaderError::Request(self.request)),
            (size_holds, HeaderError::SizeOfCommand(size)),
        ])
    }

    fn session_invalid(&self) -> Option<HeaderError> {
        let size = self.frame.size;
        let size_holds = match self.operation {
            OPERATION_RECONFIGURE => size == HEADER_SIZE + 256,
            OPERATION_NOOP => size == HEADER_SIZE,
            _ => true,
        };
        first_broken(&[
            (self.session != 0, HeaderError::Session(self.session)),
            (self.request != 0, HeaderError::Request(self.request)),
            (size_holds, HeaderError::SizeOfCommand(size)),
        ])
    }
}

impl ReplyHeader {
    /// The link to the client's next request: the header's checksum with a context of zero, the
    /// body's checksum in place.
    #[must_use]
    pub fn compute_context(&self) -> u128 {
        let mut copy = *self;
        copy.context = 0;
        copy.header().compute_checksum()
    }

    /// Writes the body's checksum, the context and the header's checksum, in their order.
    ///
    /// # Panics
    ///
    /// If the body's length is not what the header's size says.
    pub fn seal(&mut self, body: &[u8]) {
        self.header_mut().set_checksum_body(body);
        self.context = self.compute_context();
        self.header_mut().set_checksum();
    }

    fn part_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        let registers = self.operation == OPERATION_REGISTER;
        let size_holds = !registers || frame.size == REGISTER_REPLY_SIZE;
        let timestamp_holds = (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&self.timestamp);
        let operation_holds = registers
            || self.operation == OPERATION_NOOP
            || self.operation >= OPERATION_STATE_MACHINE_MIN;
        first_broken(&[
            (frame.release != Release::ZERO, HeaderError::Release(frame.release)),
            (frame.replica < REPLICAS_MAX, HeaderError::Replica(frame.replica)),
            (self.request_checksum_padding == 0, HeaderError::RequestChecksumPadding),
            (self.context_padding == 0, HeaderError::ContextPadding),
            (self.client != 0, HeaderError::Client),
            (self.op != 0, HeaderError::Op(self.op)),
            (self.commit == self.op, HeaderError::Commit(self.commit)),
            (timestamp_holds, HeaderError::Timestamp(self.timestamp)),
            (operation_holds, HeaderError::Operation(self.operation)),
            ((self.request == 0) == registers, HeaderError::Request(self.request)),
            (size_holds, HeaderError::SizeOfCommand(frame.size)),
            (is_zero(&self.reserved), HeaderError::Reserved),
        ])
    }
}

impl EvictionHeader {
    fn part_invalid(&self) -> Option<HeaderError> {
        let frame = &self.frame;
        let reason_holds = EvictionReason::try_from(self.reason).is_ok();
        bodiless_invalid(frame).or(first_broken(&[
            (frame.release != Release::ZERO, HeaderError::Release(frame.release)),
            (frame.replica < REPLICAS_MAX, HeaderError::Replica(frame.replica)),
            (self.client != 0, HeaderError::Client),
            (is_zero(&self.reserved), HeaderError::Reserved),
            (reason_holds, HeaderError::Reason(self.reason)),
        ]))
    }
}
