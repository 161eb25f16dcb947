//! Servers that send anything: a client gives answers and errors, and never ends its process.

use super::session::Staged;
use super::tests::{CREATED_ONE, account, eviction, read_frame, reply};
use super::{Client, Options, Session, SessionOptions, to_index, to_size};
use crate::protocol::types::RegisterResult;
use crate::protocol::{
    AlignedMemory, EvictionReason, Header, Operation, PongClientHeader, Release, checksum,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use zerocopy::{FromZeros, IntoBytes};

const SESSIONS: u64 = 20_000;
const FRAMES: u32 = 12;
const CONVERSATIONS: u64 = 150;

fn below(random: &mut ChaCha8Rng, bound: usize) -> usize {
    to_index(random.next_u32() % to_size(bound))
}

/// The result of a register; its limit is often a strange one.
fn registered(random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut result = RegisterResult::new_zeroed();
    result.batch_size_limit = match below(random, 6) {
        0 => random.next_u32(),
        1 => random.next_u32() % 300,
        _ => 1_048_320,
    };
    result.as_bytes().to_vec()
}

fn pong(request: &Header, random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut pong = PongClientHeader::new();
    pong.frame.cluster = request.frame.cluster;
    pong.frame.release = Release::SERVER;
    pong.frame.view = random.next_u32() >> below(random, 32);
    pong.header_mut().set_checksums(&[]);
    pong.as_bytes().to_vec()
}

/// A frame about a request: right, with other bytes here and there, or of another kind. Its size,
/// cluster and checksums hold: others are refused before anybody interprets them.
fn frame(request: &Header, random: &mut ChaCha8Rng) -> Vec<u8> {
    let is_register = request.request().operation == u8::from(Operation::Register);
    let body = match below(random, 8) {
        0 => vec![0xff; below(random, 600)],
        _ if is_register => registered(random),
        _ => CREATED_ONE.to_vec(),
    };
    let mut bytes = match below(random, 8) {
        0 => eviction(request, EvictionReason::NoSession),
        1 => pong(request, random),
        _ => reply(request, random.next_u32() % 9, &body),
    };
    let changes = if below(random, 3) == 0 { 1 + below(random, 3) } else { 0 };
    for _ in 0..changes {
        let position = below(random, bytes.len());
        bytes[position] = match below(random, 3) {
            0 => 0,
            1 => 0xff,
            _ => random.next_u64().to_le_bytes()[0],
        };
    }
    let mut aligned = AlignedMemory::new(bytes.len());
    aligned.copy_from_slice(&bytes);
    let (header, body) = aligned.split_at_mut(256);
    let header = Header::from_bytes_mut(header);
    header.frame.cluster = request.frame.cluster;
    header.frame.size = to_size(bytes.len());
    header.set_checksums(body);
    aligned.to_vec()
}

/// The next request of a session: a register, then accounts.
fn next_request(session: &mut Session) -> Header {
    let mut memory = AlignedMemory::new(1024);
    let operation =
        if session.is_registered() { Operation::CreateAccounts } else { Operation::Register };
    let body_size = 256;
    let checksum_body = checksum(&memory[256..512]);
    session.seal(&mut memory, &Staged { operation, body_size, checksum_body });
    *Header::from_bytes(&memory)
}

/// Goal: whatever is received, a session judges it, and its next request is a valid one; it is
/// useless after an error alone.
#[test]
fn sessions() {
    let (mut requests, mut errors) = (0_u64, 0_u64);
    for seed in 0..SESSIONS {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut session = Session::new(SessionOptions {
            cluster: 7,
            client: 1 + u128::from(seed),
            release: Release::SERVER,
            replica_count: 1 + u8::try_from(seed % 6).unwrap(),
        });
        let mut request = next_request(&mut session);
        for _ in 0..FRAMES {
            let bytes = frame(&request, &mut random);
            let mut aligned = AlignedMemory::new(bytes.len());
            aligned.copy_from_slice(&bytes);
            if session.receive(&aligned).is_err() {
                errors += 1;
                break;
            }
            assert!(u32::from(session.primary()) < 6);
            if !session.is_in_flight() {
                request = next_request(&mut session);
                assert_eq!(request.invalid(), None);
                requests += 1;
            }
        }
    }
    assert!(requests > SESSIONS && errors > SESSIONS / 4, "{requests} requests, {errors} errors");
}

/// Answers each request with some frames, or bytes that are none, or closes; until the peer goes.
fn talk(mut stream: TcpStream, random: &mut ChaCha8Rng) {
    while let Some(request) = read_frame(&mut stream) {
        let header = *Header::from_bytes(&request);
        for _ in 0..=below(random, 3) {
            let bytes = match below(random, 12) {
                0 => return,
                1 => vec![7; below(random, 700)],
                _ => frame(&header, random),
            };
            if stream.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

/// Goal: the same through sockets: frames after an eviction or an error, several at once, cut off,
/// and garbage are outcomes of calls.
#[test]
fn conversations() {
    let (mut answers, mut errors) = (0_u32, 0_u32);
    for seed in 0..CONVERSATIONS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            // The connection after the client's end says nothing.
            while let Ok((stream, _)) = listener.accept() {
                let mut byte = [0];
                if stream.peek(&mut byte).is_ok_and(|count| count == 1) {
                    talk(stream, &mut random);
                } else {
                    return;
                }
            }
        });
        let options = Options { deadline: Duration::from_millis(50), ..Options::default() };
        match Client::connect(7, &[address], &options) {
            Ok(mut client) => {
                client.set_deadline(Duration::from_millis(10));
                for _ in 0..4 {
                    match client.create_accounts(&[account()]) {
                        Ok(_) => answers += 1,
                        Err(error) => {
                            assert!(!error.to_string().is_empty());
                            errors += 1;
                        }
                    }
                }
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                errors += 1;
            }
        }
        drop(TcpStream::connect(address));
        server.join().unwrap();
    }
    // How many of which depends on how busy the machine is.
    assert!(errors > 0 && u64::from(answers + errors) >= CONVERSATIONS, "{answers}, {errors}");
}
