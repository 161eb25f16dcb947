//! Tests of headers: every rule of every command refuses when it alone is broken.

use zerocopy::{FromBytes, IntoBytes};

use super::checksum::CHECKSUM_EMPTY;
use super::header::{
    EvictionHeader, HEADER_SIZE, Header, HeaderError, PingClientHeader, PongClientHeader,
    REGISTER_REPLY_SIZE, REGISTER_REQUEST_SIZE, ReplyHeader, RequestHeader,
};
use super::operation::{OPERATION_PACKED, Operation};
use super::prepare::{PrepareFacts, PrepareHeader};
use super::release::Release;
use super::types::TIMESTAMP_MAX;
use super::{Command, MESSAGE_SIZE_MAX, checksum};

fn ping_client() -> PingClientHeader {
    let mut header = PingClientHeader::new();
    header.frame.release = Release::SERVER;
    header.frame.checksum_body = CHECKSUM_EMPTY;
    header.client = 1;
    header.session = 2;
    header
}

fn pong_client() -> PongClientHeader {
    let mut header = PongClientHeader::new();
    header.frame.release = Release::SERVER;
    header.frame.checksum_body = CHECKSUM_EMPTY;
    header.frame.view = 9;
    header.frame.replica = 5;
    header
}

fn request() -> RequestHeader {
    let mut header = RequestHeader::new();
    header.frame.release = Release::SERVER;
    header.frame.view = 3;
    header.parent = 4;
    header.client = 1;
    header.session = 2;
    header.request = 3;
    header.operation = Operation::CreateAccounts.into();
    header
}

fn register() -> RequestHeader {
    let mut header = RequestHeader::new();
    header.frame.size = REGISTER_REQUEST_SIZE;
    header.frame.release = Release::SERVER;
    header.client = 1;
    header.operation = Operation::Register.into();
    header
}

fn reply() -> ReplyHeader {
    let mut header = ReplyHeader::new();
    header.frame.release = Release::SERVER;
    header.frame.replica = 5;
    header.client = 1;
    header.op = 7;
    header.commit = 7;
    header.timestamp = 8;
    header.request = 3;
    header.operation = Operation::CreateAccounts.into();
    header
}

fn eviction() -> EvictionHeader {
    let mut header = EvictionHeader::new();
    header.frame.release = Release::SERVER;
    header.frame.checksum_body = CHECKSUM_EMPTY;
    header.client = 1;
    header.reason = 8;
    header
}

fn facts() -> PrepareFacts {
    PrepareFacts {
        cluster: 0,
        view: 1,
        replica: 5,
        release: Release::SERVER,
        program: Release::PROGRAM,
        parent: 2,
        checkpoint_id: 3,
        op: 10,
        commit: 9,
        timestamp: TIMESTAMP_MAX,
    }
}

fn lone() -> PrepareHeader {
    PrepareHeader::lone(&facts(), &request())
}

fn packed() -> PrepareHeader {
    let mut header = PrepareHeader::from_facts(&facts());
    header.request_count = 64;
    header.operation = OPERATION_PACKED;
    header.frame.size = HEADER_SIZE + 64 * 64;
    header
}

/// Tries a list of changes to a valid header, each with the error it must give.
macro_rules! assert_rules {
    ($valid:expr, $(|$header:ident| $change:expr => $expected:expr),+ $(,)?) => {
        let valid = $valid;
        assert_eq!(valid.invalid(), None);
        $({
            let mut $header = valid;
            $change;
            assert_eq!($header.invalid(), Some($expected), "{}", stringify!($change));
        })+
    };
}

/// Sets each byte of a field to one in turn and checks what the header says.
fn assert_zeros(valid: &Header, range: std::ops::Range<usize>, expected: HeaderError) {
    assert_eq!(valid.invalid(), None);
    for index in range {
        let mut header = *valid;
        header.as_mut_bytes()[index] = 1;
        assert_eq!(header.invalid(), Some(expected), "byte {index}");
    }
}

/// Goal: the rules of the common half hold for every command.
#[test]
fn frame_rules() {
    let headers = [
        *ping_client().header(),
        *pong_client().header(),
        *request().header(),
        *reply().header(),
        *eviction().header(),
        *lone().header(),
    ];
    for valid in headers {
        assert_zeros(&valid, 16..32, HeaderError::ChecksumPadding);
        assert_zeros(&valid, 48..64, HeaderError::ChecksumBodyPadding);
        assert_zeros(&valid, 64..80, HeaderError::NonceReserved);
        assert_zeros(&valid, 116..128, HeaderError::ReservedFrame);
        assert_rules!(
            valid,
            |header| header.frame.epoch = 1 => HeaderError::Epoch(1),
            |header| header.frame.protocol = 1 => HeaderError::Protocol(1),
            |header| header.frame.size = 0 => HeaderError::Size(0),
            |header| header.frame.size = 255 => HeaderError::Size(255),
            |header| header.frame.size = MESSAGE_SIZE_MAX + 1
                => HeaderError::Size(MESSAGE_SIZE_MAX + 1),
            |header| header.frame.size = u32::MAX => HeaderError::Size(u32::MAX),
        );
    }
}

/// Goal: an unknown command is the first thing noticed, whatever else is wrong.
#[test]
fn unknown_commands() {
    for byte in 0..=u8::MAX {
        let mut header = *request().header();
        header.frame.command = byte;
        header.frame.size = 0;
        let expected = match Command::try_from(byte) {
            Ok(_) => HeaderError::Size(0),
            Err(_) => HeaderError::Command(byte),
        };
        assert_eq!(header.invalid(), Some(expected));
    }
}

/// Goal: each rule of a ping refuses when broken alone.
#[test]
fn ping_client_rules() {
    assert_rules!(
        ping_client(),
        |header| header.frame.size = 257 => HeaderError::SizeOfCommand(257),
        |header| header.frame.checksum_body = 0 => HeaderError::ChecksumBody,
        |header| header.frame.view = 1 => HeaderError::View(1),
        |header| header.frame.replica = 1 => HeaderError::Replica(1),
        |header| header.frame.release = Release::ZERO => HeaderError::Release(Release::ZERO),
        |header| header.client = 0 => HeaderError::Client,
    );
    assert_zeros(ping_client().header(), 160..256, HeaderError::Reserved);
    let old = PingClientHeader { session: 0, ..ping_client() };
    assert_eq!(old.invalid(), None);
}

/// Goal: each rule of a pong refuses when broken alone.
#[test]
fn pong_client_rules() {
    assert_rules!(
        pong_client(),
        |header| header.frame.size = 512 => HeaderError::SizeOfCommand(512),
        |header| header.frame.checksum_body = 1 => HeaderError::ChecksumBody,
        |header| header.frame.replica = 6 => HeaderError::Replica(6),
        |header| header.frame.release = Release::ZERO => HeaderError::Release(Release::ZERO),
    );
    assert_zeros(pong_client().header(), 136..256, HeaderError::Reserved);
}

/// Goal: each rule of a request within a session refuses when broken alone.
#[test]
fn request_rules() {
    assert_rules!(
        request(),
        |header| header.frame.replica = 1 => HeaderError::Replica(1),
        |header| header.parent_padding = 1 => HeaderError::ParentPadding,
        |header| header.client = 0 => HeaderError::Client,
        |header| header.session = 0 => HeaderError::Session(0),
        |header| header.request = 0 => HeaderError::Request(0),
    );
    assert_zeros(request().header(), 197..200, HeaderError::Padding);
    assert_zeros(request().header(), 204..256, HeaderError::Reserved);
    let free =
        RequestHeader { parent: 0, timestamp: 1, previous_request_latency: u32::MAX, ..request() };
    assert_eq!(free.invalid(), None);
}

/// Goal: each rule of a register refuses when broken alone; its body may be missing here.
#[test]
fn register_rules() {
    assert_rules!(
        register(),
        |header| header.client = 0 => HeaderError::Client,
        |header| header.parent = 1 => HeaderError::Parent,
        |header| header.session = 1 => HeaderError::Session(1),
        |header| header.request = 1 => HeaderError::Request(1),
        |header| header.frame.size = 257 => HeaderError::SizeOfCommand(257),
        |header| header.frame.size = 513 => HeaderError::SizeOfCommand(513),
    );
    let mut bare = register();
    bare.frame.size = HEADER_SIZE;
    assert_eq!(bare.invalid(), None);
}

/// Goal: operations that no client may send are invalid even with all other fields zero, and those
/// unknown to us pass here, to be answered with an eviction.
#[test]
fn request_operations() {
    for operation in 0..=u8::MAX {
        let mut header = RequestHeader { operation, ..request() };
        match operation {
            2 => continue,
            3 => header.frame.size = 512,
            _ => (),
        }
        let expected = match operation {
            3 | 6 | 128.. => None,
            _ => Some(HeaderError::Operation(operation)),
        };
        assert_eq!(header.invalid(), expected, "operation {operation}");
        let mut zero = RequestHeader::new();
        zero.operation = operation;
        let expected = expected.unwrap_or(HeaderError::Client);
        assert_eq!(zero.invalid(), Some(expected), "operation {operation}");
    }
    let reconfigure = RequestHeader { operation: 3, ..request() };
    assert_eq!(reconfigure.invalid(), Some(HeaderError::SizeOfCommand(256)));
    let mut noop = RequestHeader { operation: 6, ..request() };
    noop.frame.size = 257;
    assert_eq!(noop.invalid(), Some(HeaderError::SizeOfCommand(257)));
}

/// Goal: each rule of a reply refuses when broken alone.
#[test]
fn reply_rules() {
    assert_rules!(
        reply(),
        |header| header.frame.release = Release::ZERO => HeaderError::Release(Release::ZERO),
        |header| header.frame.replica = 6 => HeaderError::Replica(6),
        |header| header.request_checksum_padding = 1 => HeaderError::RequestChecksumPadding,
        |header| header.context_padding = 1 => HeaderError::ContextPadding,
        |header| header.client = 0 => HeaderError::Client,
        |header| header.op = 0 => HeaderError::Op(0),
        |header| header.commit = 6 => HeaderError::Commit(6),
        |header| header.timestamp = 0 => HeaderError::Timestamp(0),
        |header| header.timestamp = TIMESTAMP_MAX + 1
            => HeaderError::Timestamp(TIMESTAMP_MAX + 1),
        |header| header.request = 0 => HeaderError::Request(0),
        |header| header.operation = 0 => HeaderError::Operation(0),
        |header| header.operation = 127 => HeaderError::Operation(127),
    );
    assert_zeros(reply().header(), 237..256, HeaderError::Reserved);
}

/// Goal: the reply to a register has request zero and its body's size.
#[test]
fn register_reply_rules() {
    let mut valid = reply();
    valid.operation = Operation::Register.into();
    valid.request = 0;
    valid.frame.size = REGISTER_REPLY_SIZE;
    assert_rules!(
        valid,
        |header| header.request = 1 => HeaderError::Request(1),
        |header| header.frame.size = 256 => HeaderError::SizeOfCommand(256),
        |header| header.frame.size = 512 => HeaderError::SizeOfCommand(512),
    );
}

/// Goal: each rule of an eviction refuses when broken alone.
#[test]
fn eviction_rules() {
    assert_rules!(
        eviction(),
        |header| header.frame.size = 257 => HeaderError::SizeOfCommand(257),
        |header| header.frame.checksum_body = 1 => HeaderError::ChecksumBody,
        |header| header.frame.release = Release::ZERO => HeaderError::Release(Release::ZERO),
        |header| header.frame.replica = 6 => HeaderError::Replica(6),
        |header| header.client = 0 => HeaderError::Client,
        |header| header.reason = 0 => HeaderError::Reason(0),
        |header| header.reason = 9 => HeaderError::Reason(9),
    );
    assert_zeros(eviction().header(), 144..255, HeaderError::Reserved);
}

/// Goal: each rule that all prepares but the root share refuses when broken alone.
#[test]
fn prepare_rules() {
    for valid in [lone(), packed(), PrepareHeader::pulse(&facts())] {
        assert_rules!(
            valid,
            |header| header.frame.release = Release::ZERO => HeaderError::Release(Release::ZERO),
            |header| header.frame.replica = 6 => HeaderError::Replica(6),
            |header| header.program = Release::ZERO => HeaderError::Release(Release::ZERO),
            |header| header.op = 0 => HeaderError::Op(0),
            |header| header.commit = 10 => HeaderError::Commit(10),
            |header| header.timestamp = 0 => HeaderError::Timestamp(0),
            |header| header.timestamp = TIMESTAMP_MAX + 1
                => HeaderError::Timestamp(TIMESTAMP_MAX + 1),
            |header| header.operation = 0 => HeaderError::Operation(0),
            |header| header.operation = 129 => HeaderError::Operation(129),
            |header| header.operation = 254 => HeaderError::Operation(254),
        );
        assert_zeros(valid.header(), 233..236, HeaderError::Reserved);
        assert_zeros(valid.header(), 240..256, HeaderError::Reserved);
    }
}

/// Goal: each rule of a prepare with one request refuses when broken alone.
#[test]
fn lone_prepare_rules() {
    assert_rules!(
        lone(),
        |header| header.request_count = 0 => HeaderError::RequestCount(0),
        |header| header.request_count = 2 => HeaderError::RequestCount(2),
        |header| header.client = 0 => HeaderError::Client,
        |header| header.session = 0 => HeaderError::Session(0),
        |header| header.request = 0 => HeaderError::Request(0),
    );
    assert_rules!(
        PrepareHeader::lone(&facts(), &register()),
        |header| header.request_count = 0 => HeaderError::RequestCount(0),
        |header| header.client = 0 => HeaderError::Client,
        |header| header.session = 1 => HeaderError::Session(1),
        |header| header.request = 1 => HeaderError::Request(1),
        |header| header.frame.size = 256 => HeaderError::SizeOfCommand(256),
    );
}

/// Goal: each rule of a prepare with several requests refuses when broken alone.
#[test]
fn packed_prepare_rules() {
    let short = HEADER_SIZE + 64 * 64 - 1;
    assert_rules!(
        packed(),
        |header| header.request_count = 0 => HeaderError::RequestCount(0),
        |header| header.request_count = 1 => HeaderError::RequestCount(1),
        |header| header.request_count = 65 => HeaderError::RequestCount(65),
        |header| header.request_count = u32::MAX => HeaderError::RequestCount(u32::MAX),
        |header| header.frame.size = short => HeaderError::SizeOfCommand(short),
        |header| header.request_checksum = 1 => HeaderError::RequestChecksum,
        |header| header.client = 1 => HeaderError::Client,
        |header| header.session = 1 => HeaderError::Session(1),
        |header| header.request = 1 => HeaderError::Request(1),
    );
}

/// Goal: each rule of a pulse refuses when broken alone.
#[test]
fn pulse_rules() {
    assert_rules!(
        PrepareHeader::pulse(&facts()),
        |header| header.frame.size = 257 => HeaderError::SizeOfCommand(257),
        |header| header.frame.checksum_body = 1 => HeaderError::ChecksumBody,
        |header| header.request_count = 1 => HeaderError::RequestCount(1),
        |header| header.request_checksum = 1 => HeaderError::RequestChecksum,
        |header| header.client = 1 => HeaderError::Client,
        |header| header.session = 1 => HeaderError::Session(1),
        |header| header.request = 1 => HeaderError::Request(1),
    );
}

/// Goal: the root is the same wherever it is made, differs by cluster, and has nothing else in it.
#[test]
fn root_rules() {
    assert_eq!(PrepareHeader::root(7), PrepareHeader::root(7));
    assert_ne!(PrepareHeader::root(7).frame.checksum, PrepareHeader::root(8).frame.checksum);
    assert_rules!(
        PrepareHeader::root(7),
        |header| header.frame.size = 257 => HeaderError::SizeOfCommand(257),
        |header| header.frame.checksum_body = 1 => HeaderError::ChecksumBody,
        |header| header.frame.view = 1 => HeaderError::View(1),
        |header| header.frame.release = Release(1) => HeaderError::Release(Release(1)),
        |header| header.program = Release(1) => HeaderError::Release(Release(1)),
        |header| header.frame.replica = 1 => HeaderError::Replica(1),
        |header| header.parent = 1 => HeaderError::Parent,
        |header| header.checkpoint_id = 1 => HeaderError::CheckpointId,
        |header| header.op = 1 => HeaderError::Op(1),
        |header| header.commit = 1 => HeaderError::Commit(1),
        |header| header.timestamp = 1 => HeaderError::Timestamp(1),
        |header| header.request_count = 1 => HeaderError::RequestCount(1),
        |header| header.request_checksum = 1 => HeaderError::RequestChecksum,
        |header| header.client = 1 => HeaderError::Client,
        |header| header.session = 1 => HeaderError::Session(1),
        |header| header.request = 1 => HeaderError::Request(1),
    );
    assert_zeros(PrepareHeader::root(7).header(), 233..236, HeaderError::Reserved);
    assert_zeros(PrepareHeader::root(7).header(), 240..256, HeaderError::Reserved);
}

/// Goal: the checksum of a header covers each of its other bytes.
#[test]
fn checksum_coverage() {
    let mut header = *request().header();
    header.set_checksums(&[]);
    assert!(header.valid_checksum());
    assert!(header.valid_checksum_body(&[]));
    assert!(!header.valid_checksum_body(&[0]));
    for index in 0..256 {
        let mut changed = header;
        changed.as_mut_bytes()[index] ^= 0x80;
        assert!(!changed.valid_checksum(), "byte {index}");
    }
    assert_eq!(header.frame.checksum, checksum(&header.as_bytes()[16..]));
}

/// Goal: a context covers all but itself and the checksum, and is not the checksum.
#[test]
fn context_coverage() {
    let mut header = reply();
    header.seal(&[]);
    assert_ne!(header.context, header.frame.checksum);
    for index in (16..160).chain(176..256) {
        let mut changed = header;
        changed.as_mut_bytes()[index] ^= 1;
        assert_ne!(changed.compute_context(), header.context, "byte {index}");
    }
    let other = ReplyHeader { context: 1, ..header };
    assert_eq!(other.compute_context(), header.context);
}

/// Goal: random bytes with a valid frame never panic the rules of any command.
#[test]
fn random_parts() {
    let mut seed: u128 = 1;
    for round in 0..20_000_u32 {
        let mut header = Header::new(Command::Request);
        for chunk in header.command_part.chunks_mut(16) {
            seed = checksum(&seed.to_le_bytes());
            chunk.copy_from_slice(&seed.to_le_bytes());
        }
        header.frame.command = [3, 4, 5, 6, 8, 18][(round % 6) as usize];
        header.frame.release = Release::SERVER;
        assert!(header.invalid().is_some());
        let sparse = header.command_part.map(|byte| if byte < 250 { 0 } else { byte });
        header.command_part = sparse;
        let _ = header.invalid();
    }
}

/// Goal: typed and general views are the same bytes, in both directions.
#[test]
fn casts() {
    let mut typed = request();
    assert_eq!(typed.header().as_bytes(), typed.as_bytes());
    typed.header_mut().request_mut().request = 99;
    assert_eq!(typed.request, 99);
    let mut message = [lone(); 1];
    let bytes = message.as_mut_bytes();
    Header::from_bytes_mut(bytes).prepare_mut().op = 11;
    assert_eq!(Header::from_bytes(bytes).prepare().op, 11);
    assert_eq!(Header::read_from_bytes(bytes).unwrap().body_size(), 0);
}

/// Goal: a prepare of an invalid request is a broken invariant.
#[test]
#[should_panic(expected = "header.invalid().is_none()")]
fn lone_of_bare_register() {
    let mut bare = register();
    bare.frame.size = HEADER_SIZE;
    let _ = PrepareHeader::lone(&facts(), &bare);
}

/// Goal: an op that is not after the commit is a broken invariant.
#[test]
#[should_panic(expected = "facts.op > facts.commit")]
fn facts_out_of_order() {
    let _ = PrepareHeader::from_facts(&PrepareFacts { commit: 10, ..facts() });
}
