//! Sessions against captured frames, and clients against a scripted server.

use super::session::{Received, Staged};
use super::*;
use crate::protocol::types::RegisterResult;
use crate::protocol::{
    AlignedMemory, Command, EvictionHeader, EvictionReason, Header, ReplyHeader, checksum,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use zerocopy::FromZeros;

fn fixture(name: &str) -> AlignedMemory {
    let path = format!("{}/tests/fixtures/wire/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    aligned(&std::fs::read(path).unwrap())
}

fn aligned(bytes: &[u8]) -> AlignedMemory {
    let mut memory = AlignedMemory::new(bytes.len());
    memory.copy_from_slice(bytes);
    memory
}

/// The session whose register request and following requests were captured.
fn golden_session() -> Session {
    let request = fixture("003-register-request");
    let header = *Header::from_bytes(&request).request();
    Session::new(SessionOptions {
        cluster: header.frame.cluster,
        client: header.client,
        release: header.frame.release,
        replica_count: 1,
    })
}

fn seal(session: &mut Session, request: &AlignedMemory) -> Vec<u8> {
    let header = *Header::from_bytes(request).request();
    let mut frame = aligned(request);
    frame[..256].fill(0);
    session.set_latency_previous(u64::from(header.previous_request_latency));
    let staged = Staged {
        operation: Operation::try_from(header.operation).unwrap(),
        body_size: to_size(request.len() - 256),
        checksum_body: checksum(&request[256..]),
    };
    session.seal(&mut frame, &staged);
    frame.to_vec()
}

/// Goal: replaying the captured replies, the session makes the captured requests bit by bit.
#[test]
fn golden_conversation() {
    let mut session = golden_session();
    let register = fixture("003-register-request");
    assert_eq!(seal(&mut session, &register), register.to_vec());
    let reply = fixture("004-register-reply");
    assert_eq!(session.receive(&reply), Ok(Received::Registered));
    assert_eq!((session.view(), session.batch_size_limit()), (1, 32_512));
    let exchanges = [
        ("005-create_accounts-request", "006-create_accounts-reply"),
        ("007-create_accounts-request", "008-create_accounts-reply"),
        ("009-create_transfers-request", "010-create_transfers-reply"),
        ("011-create_transfers-request", "012-create_transfers-reply"),
    ];
    for (request_name, reply_name) in exchanges {
        let (request, reply) = (fixture(request_name), fixture(reply_name));
        assert_eq!(seal(&mut session, &request), request.to_vec(), "{request_name}");
        let header = *Header::from_bytes(&reply).reply();
        let facts = ReplyFacts {
            operation: Operation::try_from(header.operation).unwrap(),
            op: header.op,
            timestamp: header.timestamp,
            body_size: to_size(reply.len() - 256),
        };
        assert_eq!(session.receive(&reply), Ok(Received::Reply(facts)), "{reply_name}");
        assert_eq!(session.receive(&reply), Ok(Received::Ignored), "a duplicate");
    }
}

fn registered_session() -> Session {
    let mut session = golden_session();
    seal(&mut session, &fixture("003-register-request"));
    session.receive(&fixture("004-register-reply")).unwrap();
    session
}

/// Goal: each way in which a reply can contradict its request has an error of its own.
#[test]
fn contradicting_replies() {
    let golden = fixture("006-create_accounts-reply");
    let check = |change: fn(&mut ReplyHeader), expected: Result<Received, ServerError>| {
        let mut session = registered_session();
        seal(&mut session, &fixture("005-create_accounts-request"));
        let mut reply = aligned(&golden);
        let (header, body) = reply.split_at_mut(256);
        let header = Header::from_bytes_mut(header).reply_mut();
        change(header);
        header.seal(body);
        assert_eq!(session.receive(&reply), expected);
        let ignored = expected == Ok(Received::Ignored);
        assert!(session.is_in_flight() || !ignored);
    };
    let release = Release::new(0, 17, 8);
    check(|header| header.client = 7, Ok(Received::Ignored));
    check(
        |header| header.frame.release = Release::new(0, 17, 8),
        Err(ServerError::Release(release)),
    );
    check(|header| header.request = 2, Err(ServerError::Request(2)));
    check(|header| header.request_checksum ^= 1, Err(ServerError::RequestChecksum));
    check(|header| header.operation = 147, Err(ServerError::Operation(147)));
    let header_error = crate::protocol::HeaderError::Commit(9);
    check(|header| header.commit = 9, Err(ServerError::Header(header_error)));
}

/// Goal: pongs raise the view and never lower it, and with it the primary moves.
#[test]
fn views() {
    let mut session = Session::new(SessionOptions {
        cluster: 0,
        client: 1,
        release: Release::SERVER,
        replica_count: 3,
    });
    assert_eq!(session.primary(), 0);
    let pong = fixture("086-view2-pong_client");
    assert!(matches!(session.receive(&pong), Ok(Received::Pong { .. })));
    assert_eq!((session.view(), session.primary()), (2, 2));
    let pong = fixture("002-pong_client");
    assert!(matches!(session.receive(&pong), Ok(Received::Pong { .. })));
    assert_eq!(session.view(), 2);
}

/// Goal: pings are valid frames that carry the session.
#[test]
fn pings() {
    let session = registered_session();
    let ping = session.ping(12_345);
    assert_eq!(ping.invalid(), None);
    assert!(ping.valid_checksum() && ping.valid_checksum_body(&[]));
    assert_eq!(ping.ping_client().session, 2);
    assert_eq!(ping.ping_client().ping_timestamp_monotonic, 12_345);
}

/// Goal: evictions are reported with their reason, but only the client's own ones.
#[test]
fn evictions() {
    let eviction = fixture("077-evict-7-session_too_low");
    let mut session = registered_session();
    assert_eq!(session.receive(&eviction), Ok(Received::Ignored));
    let client = Header::from_bytes(&eviction).eviction().client;
    let mut session = Session::new(SessionOptions {
        cluster: 0,
        client,
        release: Release::SERVER,
        replica_count: 1,
    });
    let expected = Received::Evicted(EvictionReason::SessionTooLow);
    assert_eq!(session.receive(&eviction), Ok(expected));
}

/// What the scripted server does with a request that is not a register.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// Answers with these results for one batch.
    Answer(&'static [u8]),
    /// Closes the connection.
    Close,
    /// Answers with a damaged body.
    Damage,
    Evict(EvictionReason),
    Ignore,
}

pub(crate) struct Server {
    pub address: SocketAddr,
    pub thread: JoinHandle<Vec<Vec<u8>>>,
}

/// Serves one connection after the other until the script is over; returns all requests.
pub(crate) fn serve(script: Vec<Act>) -> Server {
    serve_in_view(0, script)
}

fn serve_in_view(view: u32, script: Vec<Act>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut script = script.into_iter();
        let mut requests = Vec::new();
        loop {
            let (stream, _) = listener.accept().unwrap();
            if serve_connection(stream, view, &mut script, &mut requests) {
                return requests;
            }
        }
    });
    Server { address, thread }
}

/// Whether the script is over.
fn serve_connection(
    mut stream: TcpStream,
    view: u32,
    script: &mut std::vec::IntoIter<Act>,
    requests: &mut Vec<Vec<u8>>,
) -> bool {
    while let Some(request) = read_frame(&mut stream) {
        let header = *Header::from_bytes(&request);
        if header.frame.command != u8::from(Command::Request) {
            continue;
        }
        requests.push(request.to_vec());
        if header.request().operation == u8::from(Operation::Register) {
            let mut result = RegisterResult::new_zeroed();
            result.batch_size_limit = 1_048_320;
            stream.write_all(&reply(&header, view, result.as_bytes())).unwrap();
            continue;
        }
        match script.next().expect("the script covers the requests") {
            Act::Answer(body) => {
                // In three pieces: frames may be split anywhere.
                let reply = reply(&header, view, body);
                for piece in reply.chunks(reply.len() / 2 - 7) {
                    stream.write_all(piece).unwrap();
                }
            }
            Act::Damage => {
                let mut reply = reply(&header, view, &[0; 16]);
                reply[260] ^= 1;
                stream.write_all(&reply).unwrap();
            }
            Act::Evict(reason) => stream.write_all(&eviction(&header, reason)).unwrap(),
            Act::Close => return script.len() == 0,
            Act::Ignore => {}
        }
    }
    script.len() == 0
}

pub(super) fn read_frame(stream: &mut TcpStream) -> Option<AlignedMemory> {
    let mut header = AlignedMemory::new(256);
    stream.read_exact(&mut header).ok()?;
    let size = to_index(Header::from_bytes(&header).frame.size);
    let mut frame = AlignedMemory::new(size);
    frame[..256].copy_from_slice(&header);
    stream.read_exact(&mut frame[256..]).ok()?;
    assert!(Header::from_bytes(&frame).valid_checksum());
    assert!(Header::from_bytes(&frame).valid_checksum_body(&frame[256..]));
    Some(frame)
}

pub(super) fn reply(header: &Header, view: u32, body: &[u8]) -> Vec<u8> {
    let request = header.request();
    let mut reply = ReplyHeader::new();
    reply.frame.cluster = header.frame.cluster;
    reply.frame.release = header.frame.release;
    reply.frame.view = view;
    reply.frame.replica = u8::try_from(view % 6).unwrap();
    reply.frame.size = to_size(256 + body.len());
    reply.request_checksum = header.frame.checksum;
    reply.client = request.client;
    reply.op = u64::from(request.request) + 2;
    reply.commit = reply.op;
    reply.timestamp = reply.op;
    reply.request = request.request;
    reply.operation = request.operation;
    reply.seal(body);
    [reply.as_bytes(), body].concat()
}

pub(super) fn eviction(header: &Header, reason: EvictionReason) -> Vec<u8> {
    let mut eviction = EvictionHeader::new();
    eviction.frame.cluster = header.frame.cluster;
    eviction.frame.release = Release::SERVER;
    eviction.client = header.request().client;
    eviction.reason = reason.into();
    eviction.header_mut().set_checksums(&[]);
    eviction.as_bytes().to_vec()
}

/// One result `created` with timestamp 5, and the trailer of one batch of one.
pub(super) const CREATED_ONE: [u8; 32] = [
    5, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, //
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0,
];

fn connect(address: SocketAddr) -> Client {
    Client::connect(7, &[address], &Options::default()).unwrap()
}

pub(super) fn account() -> Account {
    Account { id: 1, ledger: 1, code: 1, ..Account::default() }
}

/// Goal: a call reaches the server in its encoding and the results come back.
#[test]
fn typed_call() {
    let server = serve(vec![Act::Answer(&CREATED_ONE)]);
    let mut client = connect(server.address);
    assert_eq!(client.events_max(Operation::CreateAccounts), 8189);
    let results = client.create_accounts(&[account()]).unwrap();
    assert_eq!(results, [CreateResult { timestamp: 5, status: u32::MAX, reserved: 0 }]);
    drop(client);
    let requests = server.thread.join().unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(&requests[1][256..384], account().as_bytes());
    assert_eq!(requests[1].len(), 256 + 128 + 128);
}

/// Goal: when the connection is lost, or a reply is damaged, the same bytes are sent again.
#[test]
fn sends_again() {
    let script = vec![Act::Close, Act::Damage, Act::Answer(&CREATED_ONE)];
    let server = serve(script);
    let mut client = connect(server.address);
    assert_eq!(client.create_accounts(&[account()]).unwrap().len(), 1);
    drop(client);
    let requests = server.thread.join().unwrap();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[1], requests[2]);
    assert_eq!(requests[1], requests[3]);
}

/// Goal: when the primary dies with a request, another replica gets the same bytes at once; its
/// answer carries the new view, and from then on requests go there.
#[test]
fn follows_the_view() {
    let first = serve(vec![Act::Close]);
    let second = serve_in_view(1, vec![Act::Answer(&CREATED_ONE), Act::Answer(&CREATED_ONE)]);
    let addresses = [first.address, second.address];
    let mut client = Client::connect(7, &addresses, &Options::default()).unwrap();
    for _ in 0..2 {
        assert_eq!(client.create_accounts(&[account()]).unwrap().len(), 1);
    }
    drop(client);
    let (first, second) = (first.thread.join().unwrap(), second.thread.join().unwrap());
    assert_eq!(first.len(), 2);
    assert_eq!(second.len(), 2);
    assert_eq!(first[1], second[0]);
}

/// Goal: a request without an answer reaches each other replica in the end; a lone server is asked
/// again.
#[test]
fn retries_reach_everybody() {
    let silent = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = [silent(), silent(), silent()];
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    for count in [1, 3] {
        let options = WireOptions {
            cluster: 7,
            addresses: addresses[..count].to_replicas(Duration::ZERO).unwrap(),
            release: Release::SERVER,
            lifetime: Lifetime::Long,
        };
        let mut wire = Wire::new(&options, 0).unwrap();
        let mut asked = vec![false; count];
        // An hour of the client's clock; nothing is connected, so what is to be sent stays so.
        for second in 1..3_600 {
            wire.tick(second * 1_000_000_000);
            for (index, asked) in asked.iter_mut().enumerate() {
                *asked |= wire.is_pending_at(index);
            }
        }
        assert!(asked.iter().all(|asked| *asked), "{asked:?}");
    }
}

/// Goal: an eviction is an error with its reason, now and for every later call.
#[test]
fn eviction_is_final() {
    let server = serve(vec![Act::Evict(EvictionReason::NoSession)]);
    let mut client = connect(server.address);
    let expected = ClientError::Evicted(EvictionReason::NoSession);
    assert_eq!(client.create_accounts(&[account()]).unwrap_err(), expected);
    assert_eq!(client.lookup_accounts(&[1]).unwrap_err(), expected);
    drop(client);
    server.thread.join().unwrap();
}

/// Goal: a deadline is an error; the request stays in flight, and its answer can still be taken.
#[test]
fn deadline_and_resume() {
    let server = serve(vec![Act::Ignore, Act::Answer(&CREATED_ONE)]);
    let mut client = connect(server.address);
    client.set_deadline(Duration::from_millis(1));
    let error = client.create_accounts(&[account()]).unwrap_err();
    assert!(error.to_string().ends_with("safe to retry with the same ids"), "{error}");
    assert_eq!(client.lookup_accounts(&[1]).unwrap_err(), ClientError::Unresolved);
    client.set_deadline(Duration::from_secs(60));
    let reply = client.resume().unwrap();
    assert_eq!(reply.results().unwrap().len(), 16);
    drop(client);
    let requests = server.thread.join().unwrap();
    assert_eq!(requests[1], requests[2]);
}

/// Goal: a request that does not fit is refused before it is sent; malformed results are an error.
#[test]
fn limits_and_malformed_results() {
    let server = serve(vec![Act::Answer(&CREATED_ONE), Act::Answer(&[0; 16])]);
    let mut client = connect(server.address);
    let error = client.create_accounts(&vec![account(); 8190]).unwrap_err();
    assert_eq!(error, ClientError::TooMuchData { events: 8190, limit: 8189 });
    assert_eq!(client.create_accounts(&[account()]).unwrap().len(), 1);
    let error = client.create_accounts(&[account()]).unwrap_err();
    assert_eq!(error, ClientError::Server(ServerError::Body { body_size: 16 }));
    drop(client);
    server.thread.join().unwrap();
}

/// Goal: an address without a server is an error that names the address and the reason.
#[test]
fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options { deadline: Duration::from_millis(200), ..Options::default() };
    let error = Client::connect(0, &[address], &options).unwrap_err();
    assert!(!error.is_outcome_unknown(), "nothing was asked yet");
    let ClientError::Deadline { connection, .. } = error else {
        panic!("{error}");
    };
    let refused = Trouble::Failed(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(connection, Some((address.to_string(), refused)));
}

/// Goal: the error of a deadline names what the address does: it accepts and stays silent, or sends
/// with HTTP in few or many bytes, with noise, or with a short banner. The error comes at the
/// deadline and not later.
#[test]
fn what_an_address_does() {
    let page: &'static [u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    let long: &'static [u8] = &[b' '; 4096];
    for (answers, expected) in [
        (vec![], Trouble::Silent),
        (vec![page], Trouble::Http),
        (vec![page, long], Trouble::Http),
        (vec![long], Trouble::Foreign),
        (vec![b"220 mail ESMTP\r\n"], Trouble::Foreign),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = read_frame(&mut stream);
                for answer in &answers {
                    let _ = std::io::Write::write_all(&mut stream, answer);
                }
                if answers.is_empty() || answers[0].starts_with(b"220") {
                    held.push(stream);
                }
            }
        });
        let options = Options { deadline: Duration::from_millis(700), ..Options::default() };
        let start = std::time::Instant::now();
        let error = Client::connect(0, &[address], &options).unwrap_err();
        assert!(start.elapsed() >= options.deadline);
        let ClientError::Deadline { connection, .. } = error else { panic!("{error}") };
        assert_eq!(connection, Some((address.to_string(), expected)));
    }
}

/// Goal: an invalid list of addresses is an error, not a panic.
#[test]
fn wrong_addresses() {
    let options = Options::default();
    let error = Client::connect(0, "host:0", &options).unwrap_err();
    assert_eq!(error, ClientError::Address(AddressError::Invalid("host:0".to_owned())));
    let error = Client::connect(0, &Vec::<SocketAddr>::new(), &options).unwrap_err();
    assert_eq!(error, ClientError::Address(AddressError::Empty));
}

/// Goal: a server that closes every connection without an answer is taken for one of another
/// cluster, long before the deadline; one that sends something is not.
#[test]
fn another_cluster() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = read_frame(&mut stream.unwrap());
        }
    });
    let error = Client::connect(7, &[address], &Options::default()).unwrap_err();
    assert_eq!(error, ClientError::ClusterMismatch { cluster: 7, address });
}

/// Goal: a host that has moved is found again: its name is looked up when its addresses fail.
#[test]
fn a_host_that_moved() {
    let server = serve(vec![Act::Answer(&CREATED_ONE)]);
    let mut replica = ReplicaAddress::look_up("localhost", server.address.port()).unwrap();
    assert!(replica.candidates().contains(&server.address));
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    replica.move_to(dead);
    let mut client = Client::connect(7, &[replica], &Options::default()).unwrap();
    assert_eq!(client.create_accounts(&[account()]).unwrap().len(), 1);
    drop(client);
    server.thread.join().unwrap();
}

/// Goal: a name without an address does not keep a client from the replicas that serve; the error
/// of a deadline names it, and it is looked up until it has an address.
#[test]
fn a_name_without_an_address() {
    let server = serve(vec![Act::Answer(&CREATED_ONE)]);
    let unknown = ReplicaAddress::named("florin.invalid", 9);
    let options = Options { deadline: Duration::from_millis(300), ..Options::default() };
    let error = Client::connect(7, &[unknown], &options).unwrap_err();
    let ClientError::Deadline { connection, .. } = error else { panic!("{error}") };
    assert_eq!(connection, Some(("florin.invalid:9".to_owned(), Trouble::Unresolved)));
    let named = ReplicaAddress::named("localhost", server.address.port());
    let mut client = Client::connect(7, &[named], &Options::default()).unwrap();
    assert_eq!(client.create_accounts(&[account()]).unwrap().len(), 1);
    drop(client);
    server.thread.join().unwrap();
}

/// Goal: of a host with several addresses, those that do not answer are passed over at once.
#[test]
fn several_addresses_of_a_host() {
    let server = serve(vec![Act::Answer(&CREATED_ONE)]);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let replica = ReplicaAddress::new(vec![dead, server.address]);
    let mut client = Client::connect(7, &[replica], &Options::default()).unwrap();
    assert_eq!(client.create_accounts(&[account()]).unwrap().len(), 1);
    drop(client);
    server.thread.join().unwrap();
}
