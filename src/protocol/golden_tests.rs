//! Tests against frames recorded between official clients and the reference server: each one
//! decodes, is valid, and is rebuilt byte for byte from what was understood of it.

use std::collections::BTreeMap;
use std::path::Path;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::operation::{Operation, body_valid};
use super::status::{CreateAccountStatus, CreateTransferStatus};
use super::types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, RegisterRequest, RegisterResult, Transfer, account_flags, transfer_flags,
};
use super::{
    BODY_SIZE_MAX, Command, EvictionHeader, EvictionReason, Header, MESSAGE_SIZE_MAX, Message,
    MultiBatch, MultiBatchWriter, PackedWriter, PingClientHeader, PongClientHeader, Pool,
    PrepareFacts, Release, ReplyHeader, RequestHeader, Requests, to_index, to_size,
};

/// The limit of the server that most frames were recorded with.
const BODY_LIMIT_SMALL: u32 = 32_512;
/// Old encodings, of which we read the headers only.
const OPERATIONS_OLD: [u8; 2] = [129, 138];

/// A recorded frame with its file's name.
struct Golden {
    name: String,
    message: Message,
}

/// All frames, in the order of their numbers.
fn golden_frames() -> Vec<Golden> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire");
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "bin"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 88);
    let pool = Pool::new("golden", 88, MESSAGE_SIZE_MAX);
    let read = |name: String| {
        let bytes = std::fs::read(directory.join(&name)).unwrap();
        let mut buffer = pool.acquire();
        buffer.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        let message = Message(buffer);
        assert_eq!(message.bytes().len(), bytes.len(), "{name}");
        Golden { name, message }
    };
    names.into_iter().map(read).collect()
}

fn frame(frames: &[Golden], number: usize) -> &Message {
    let golden = &frames[number - 1];
    assert!(golden.name.starts_with(&format!("{number:03}-")));
    &golden.message
}

/// Rebuilds a header from the fields that mean something, everything else being zero.
fn rebuild(old: &Header, body: &[u8]) -> Header {
    let mut new = Header::new(old.command());
    new.frame.cluster = old.frame.cluster;
    new.frame.size = to_size(256 + body.len());
    new.frame.view = old.frame.view;
    new.frame.release = old.frame.release;
    new.frame.replica = old.frame.replica;
    match old.command() {
        Command::PingClient => rebuild_ping(old.ping_client(), new.ping_client_mut()),
        Command::PongClient => rebuild_pong(old.pong_client(), new.pong_client_mut()),
        Command::Request => rebuild_request(old.request(), new.request_mut()),
        Command::Reply => {
            rebuild_reply(old.reply(), new.reply_mut());
            new.reply_mut().seal(body);
            return new;
        }
        Command::Eviction => rebuild_eviction(old.eviction(), new.eviction_mut()),
        other => panic!("{other:?} is not recorded"),
    }
    new.set_checksums(body);
    new
}

fn rebuild_ping(old: &PingClientHeader, new: &mut PingClientHeader) {
    new.client = old.client;
    new.ping_timestamp_monotonic = old.ping_timestamp_monotonic;
    new.session = old.session;
}

fn rebuild_pong(old: &PongClientHeader, new: &mut PongClientHeader) {
    new.ping_timestamp_monotonic = old.ping_timestamp_monotonic;
}

fn rebuild_request(old: &RequestHeader, new: &mut RequestHeader) {
    new.parent = old.parent;
    new.client = old.client;
    new.session = old.session;
    new.request = old.request;
    new.operation = old.operation;
    new.previous_request_latency = old.previous_request_latency;
}

fn rebuild_reply(old: &ReplyHeader, new: &mut ReplyHeader) {
    new.request_checksum = old.request_checksum;
    new.client = old.client;
    new.op = old.op;
    new.commit = old.op;
    new.timestamp = old.timestamp;
    new.request = old.request;
    new.operation = old.operation;
}

fn rebuild_eviction(old: &EvictionHeader, new: &mut EvictionHeader) {
    new.client = old.client;
    new.reason = old.reason;
}

/// Reads elements as records, lets `rebuild` make each anew, and writes them.
fn rewrite<T>(elements: &[u8], rebuild: impl Fn(&T) -> T) -> Vec<u8>
where
    T: FromBytes + IntoBytes + KnownLayout + Immutable,
{
    let size = size_of::<T>();
    assert!(elements.len().is_multiple_of(size));
    let read = |element: &[u8]| T::read_from_bytes(element).unwrap();
    elements.chunks(size).flat_map(|element| rebuild(&read(element)).as_bytes().to_vec()).collect()
}

fn account(elements: &[u8]) -> Vec<u8> {
    rewrite(elements, |old: &Account| {
        assert_eq!(old.flags & !account_flags::ALL, 0);
        Account { reserved: 0, ..*old }
    })
}

fn transfer(elements: &[u8]) -> Vec<u8> {
    rewrite(elements, |old: &Transfer| {
        assert_eq!(old.flags & !transfer_flags::ALL, 0);
        *old
    })
}

fn identifiers(elements: &[u8]) -> Vec<u8> {
    rewrite(elements, |old: &u128| *old)
}

/// The events of one batch, made anew from their fields.
fn events(operation: Operation, elements: &[u8]) -> Vec<u8> {
    match operation {
        Operation::Register => rewrite(elements, |old: &RegisterRequest| {
            assert_eq!(old.batch_size_limit, 0);
            RegisterRequest::new_zeroed()
        }),
        Operation::GetChangeEvents => rewrite(elements, |old: &ChangeEventsFilter| {
            ChangeEventsFilter { reserved: [0; 44], ..*old }
        }),
        Operation::LookupAccounts | Operation::LookupTransfers => identifiers(elements),
        Operation::GetAccountTransfers | Operation::GetAccountBalances => {
            rewrite(elements, |old: &AccountFilter| AccountFilter { reserved: [0; 58], ..*old })
        }
        Operation::QueryAccounts | Operation::QueryTransfers => {
            rewrite(elements, |old: &QueryFilter| QueryFilter { reserved: [0; 6], ..*old })
        }
        Operation::CreateAccounts => account(elements),
        Operation::CreateTransfers => transfer(elements),
        Operation::Root | Operation::Pulse => panic!("clients do not send {operation:?}"),
    }
}

fn create_results(elements: &[u8], status: impl Fn(u32) -> u32) -> Vec<u8> {
    rewrite(elements, |old: &CreateResult| CreateResult {
        timestamp: old.timestamp,
        status: status(old.status),
        reserved: 0,
    })
}

/// The results of one batch, made anew from their fields.
fn results(operation: Operation, elements: &[u8]) -> Vec<u8> {
    match operation {
        Operation::Register => rewrite(elements, |old: &RegisterResult| RegisterResult {
            batch_size_limit: old.batch_size_limit,
            reserved: [0; 60],
        }),
        Operation::GetChangeEvents => rewrite(elements, |old: &ChangeEvent| {
            assert!(old.type_ <= 4);
            assert!(old.timestamp >= old.transfer_timestamp);
            ChangeEvent { reserved: [0; 39], ..*old }
        }),
        Operation::LookupAccounts | Operation::QueryAccounts => account(elements),
        Operation::LookupTransfers | Operation::GetAccountTransfers | Operation::QueryTransfers => {
            transfer(elements)
        }
        Operation::GetAccountBalances => {
            rewrite(elements, |old: &AccountBalance| AccountBalance { reserved: [0; 56], ..*old })
        }
        Operation::CreateAccounts => create_results(elements, |number| {
            CreateAccountStatus::try_from(number).unwrap().number()
        }),
        Operation::CreateTransfers => create_results(elements, |number| {
            CreateTransferStatus::try_from(number).unwrap().number()
        }),
        Operation::Root | Operation::Pulse => panic!("nobody answers {operation:?}"),
    }
}

/// Decodes a body and encodes it again, element by element.
fn rebuild_body(
    operation: Operation,
    body: &[u8],
    element_size: u32,
    rebuild: impl Fn(Operation, &[u8]) -> Vec<u8>,
) -> Vec<u8> {
    if !operation.is_multi_batch() {
        return rebuild(operation, body);
    }
    let batches = MultiBatch::decode(body, element_size).unwrap();
    let mut area = vec![0xee; to_index(BODY_SIZE_MAX)];
    let mut writer = MultiBatchWriter::new(&mut area, element_size, batches.batch_count());
    for batch in &batches {
        writer.write_batch(&rebuild(operation, batch));
    }
    let size = writer.finish();
    area.truncate(to_index(size));
    area
}

/// Goal: every recorded frame is valid and is rebuilt byte for byte from its typed fields.
#[test]
fn headers() {
    let mut commands = BTreeMap::new();
    for Golden { name, message } in golden_frames() {
        let header = message.header();
        assert!(header.valid_checksum(), "{name}");
        assert!(message.valid_checksum_body(), "{name}");
        assert_eq!(header.invalid(), None, "{name}");
        let rebuilt = rebuild(header, message.body());
        assert_eq!(rebuilt.as_bytes(), header.as_bytes(), "{name}");
        *commands.entry(u8::from(header.command())).or_insert(0) += 1;
    }
    assert_eq!(commands.values().sum::<u32>(), 88);
    let kinds: Vec<u8> = commands.into_keys().collect();
    assert_eq!(kinds, [3, 4, 5, 8, 18]);
}

/// Goal: every body of an operation of ours is rebuilt byte for byte from its typed records, and
/// requests that were answered are well-formed.
#[test]
fn bodies() {
    let mut rebuilt = 0;
    for Golden { name, message } in golden_frames() {
        let body = message.body();
        let (operation, is_request) = match message.header().command() {
            Command::Request => (message.request().operation, true),
            Command::Reply => (message.reply().operation, false),
            _ => {
                assert!(body.is_empty(), "{name}");
                continue;
            }
        };
        // Old encodings, and the requests that were evicted for operation, body and size.
        let foreign = OPERATIONS_OLD.contains(&operation)
            || ["070", "072", "074"].iter().any(|number| name.starts_with(number));
        if foreign {
            continue;
        }
        let operation = Operation::from_client(operation).expect(&name);
        let again = if is_request {
            assert_eq!(body_valid(operation, body, BODY_SIZE_MAX), Ok(()), "{name}");
            rebuild_body(operation, body, operation.event_size(), events)
        } else {
            rebuild_body(operation, body, operation.result_size(), results)
        };
        assert!(again == body, "{name}");
        rebuilt += 1;
    }
    assert_eq!(rebuilt, 70);
}

/// Goal: each reply in the set belongs to its request: checksum, client, number, operation,
/// release, batches; and the client's next request carries the reply's context.
#[test]
fn pairs() {
    let frames = golden_frames();
    let mut requests = BTreeMap::new();
    let mut contexts = BTreeMap::new();
    let (mut pairs, mut links) = (0, 0);
    for Golden { name, message } in &frames {
        match message.header().command() {
            Command::Request => {
                let request = message.request();
                requests.insert(request.frame.checksum, message);
                if let Some(context) = contexts.get(&(request.client, request.request)) {
                    assert_eq!(request.parent, *context, "{name}");
                    links += 1;
                }
            }
            Command::Reply => {
                let reply = message.reply();
                contexts.insert((reply.client, reply.request + 1), reply.context);
                if let Some(request) = requests.get(&reply.request_checksum) {
                    assert_pair(request, message);
                    pairs += 1;
                }
            }
            _ => (),
        }
    }
    assert_eq!((pairs, links), (33, 25));
}

fn assert_pair(request: &Message, reply: &Message) {
    let (header, answer) = (request.request(), reply.reply());
    assert_eq!(answer.client, header.client);
    assert_eq!(answer.request, header.request);
    assert_eq!(answer.operation, header.operation);
    assert_eq!(answer.frame.release, header.frame.release);
    assert_eq!(answer.frame.cluster, header.frame.cluster);
    let Some(operation) = Operation::from_client(header.operation) else { return };
    if !operation.is_multi_batch() {
        return;
    }
    let events = MultiBatch::decode(request.body(), operation.event_size()).unwrap();
    let results = MultiBatch::decode(reply.body(), operation.result_size()).unwrap();
    assert_eq!(results.batch_count(), events.batch_count());
    if operation.is_create() {
        let count = |batches: &MultiBatch, size: u32| -> Vec<usize> {
            batches.iter().map(|batch| batch.len() / to_index(size)).collect()
        };
        let event_counts = count(&events, operation.event_size());
        assert_eq!(count(&results, operation.result_size()), event_counts);
    }
}

/// Goal: the session's number is the commit of the register's reply, and the recorded limits are
/// what the documents say.
#[test]
fn sessions() {
    let frames = golden_frames();
    let register = frame(&frames, 4);
    let result = RegisterResult::read_from_bytes(register.body()).unwrap();
    assert_eq!(result.batch_size_limit, BODY_LIMIT_SMALL);
    assert_eq!(frame(&frames, 5).request().session, register.reply().commit);
    let register = frame(&frames, 59);
    let result = RegisterResult::read_from_bytes(register.body()).unwrap();
    assert_eq!(result.batch_size_limit, BODY_SIZE_MAX);
    assert_eq!(frame(&frames, 60).request().session, register.reply().commit);
    let old = frame(&frames, 81);
    assert_eq!(old.reply().frame.release, Release::CLIENT_MIN);
}

/// Goal: the requests that were evicted for their release, operation, body or size are recognised
/// as what they are, and the evictions name their client and reason.
#[test]
fn evictions() {
    let frames = golden_frames();
    for (number, reason) in (64..80).step_by(2).zip(1_u8..) {
        let (request, eviction) = (frame(&frames, number), frame(&frames, number + 1));
        assert_eq!(eviction.eviction().client, request.request().client);
        assert_eq!(eviction.eviction().reason, reason);
        assert!(EvictionReason::try_from(reason).is_ok());
    }
    assert!(frame(&frames, 66).header().frame.release < Release::CLIENT_MIN);
    assert!(frame(&frames, 68).header().frame.release > Release::new(0, 17, 9));
    assert_eq!(Operation::from_client(frame(&frames, 70).request().operation), None);
    for (number, reason) in
        [(72, EvictionReason::InvalidRequestBody), (74, EvictionReason::InvalidRequestBodySize)]
    {
        let request = frame(&frames, number);
        let operation = Operation::from_client(request.request().operation).unwrap();
        let error = body_valid(operation, request.body(), BODY_LIMIT_SMALL).unwrap_err();
        assert_eq!(error.eviction_reason(), reason);
    }
}

/// Goal: known records in known frames have the values that the index of the set shows.
#[test]
fn known_values() {
    let frames = golden_frames();
    let ping = frame(&frames, 1).ping_client();
    assert_eq!(ping.client, 0xb0b9_677b_756c_a863_0261_f5fd_f26f_f468);
    assert_eq!((ping.ping_timestamp_monotonic, ping.session), (1_326_230_043_880, 40));
    let answer = frame(&frames, 2).pong_client();
    assert_eq!(answer.ping_timestamp_monotonic, ping.ping_timestamp_monotonic);
    let request = frame(&frames, 5);
    assert_eq!(request.request().previous_request_latency, 594_514);
    let batch = MultiBatch::decode(request.body(), 128).unwrap().iter().next().unwrap();
    let accounts = <[Account]>::ref_from_bytes(batch).unwrap();
    let fields = |account: &Account| (account.id, account.ledger, account.code, account.flags);
    let expected = [(1, 1, 10, account_flags::HISTORY), (2, 1, 10, 8), (3, 1, 10, 0)];
    assert_eq!(accounts.iter().map(fields).collect::<Vec<_>>(), expected);
    let user_data = (accounts[0].user_data_128, accounts[0].user_data_64, accounts[0].user_data_32);
    assert_eq!(user_data, (4369, 34, 3));
    let reply = frame(&frames, 6);
    let batch = MultiBatch::decode(reply.body(), 16).unwrap().iter().next().unwrap();
    let results = <[CreateResult]>::ref_from_bytes(batch).unwrap();
    assert_eq!(results[2].timestamp, reply.reply().timestamp);
    assert_eq!(results[2].status, CreateAccountStatus::Created.number());
    let answer = frame(&frames, 86).pong_client();
    assert_eq!((answer.frame.view, answer.frame.replica), (2, 2));
    assert_eq!(frame(&frames, 87).bytes(), frame(&frames, 88).bytes());
}

/// Goal: the multi-batch requests have the batches that the index of the set shows.
#[test]
fn known_batches() {
    let frames = golden_frames();
    let counts = |number: usize, element_size: u32| -> Vec<usize> {
        let batches = MultiBatch::decode(frame(&frames, number).body(), element_size).unwrap();
        batches.iter().map(|batch| batch.len() / to_index(element_size)).collect()
    };
    assert_eq!(counts(49, 128), [1, 2, 3, 0]);
    assert_eq!(counts(50, 16), [1, 2, 3, 0]);
    assert_eq!(counts(60, 128), [8189]);
    assert_eq!(counts(61, 16), [8189]);
    assert_eq!(counts(63, 128), [0]);
    assert_eq!(counts(84, 128), [1, 0, 2]);
    assert_eq!(counts(85, 8), [1, 0, 2]);
    assert_eq!(frame(&frames, 60).size(), MESSAGE_SIZE_MAX);
    assert_eq!(frame(&frames, 61).size(), 131_296);
}

/// Goal: real requests survive the way through a prepare, alone (also the largest) and together.
#[test]
fn through_a_prepare() {
    let frames = golden_frames();
    let facts = |cluster: u128, timestamp: u64| PrepareFacts {
        cluster,
        view: 1,
        replica: 0,
        release: Release::SERVER,
        program: Release::PROGRAM,
        parent: 1,
        checkpoint_id: 0,
        op: 2,
        commit: 1,
        timestamp,
    };
    let pool = Pool::new("prepare", 2, MESSAGE_SIZE_MAX);
    for number in [3, 5, 45, 60, 62] {
        let request = frame(&frames, number);
        let mut writer = PackedWriter::new(Message(pool.acquire()));
        writer.append(request.request(), request.body(), 50);
        let prepare = writer.finish(&facts(request.header().frame.cluster, 50));
        assert!(prepare.valid_checksum_body());
        let view = Requests::of(&prepare).unwrap().next().unwrap();
        assert_eq!(view.request_checksum, request.header().frame.checksum);
        assert!(view.body == request.body());
    }
    let together = [5, 66, 68, 80].map(|number| frame(&frames, number));
    let mut writer = PackedWriter::new(Message(pool.acquire()));
    for (request, timestamp) in together.iter().zip(1..) {
        writer.append(request.request(), request.body(), timestamp);
    }
    let prepare = writer.finish(&facts(0, 9));
    let views = Requests::of(&prepare).unwrap();
    assert_eq!(views.len(), 4);
    for (view, request) in views.zip(together) {
        assert_eq!(view.client, request.request().client);
        assert_eq!(view.release, request.header().frame.release);
        assert_eq!(view.body, request.body());
    }
}
