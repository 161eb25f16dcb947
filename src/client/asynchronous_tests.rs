//! The asynchronous client, against a server that follows a script.

use super::asynchronous::{AsyncClient, CALLS_MAX};
use super::tests::{Act, CREATED_ONE, Server, account, serve};
use super::{ClientError, Options};
use crate::protocol::EvictionReason;
use std::net::TcpListener;
use std::time::Duration;

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/block_on.inc"));

fn connect(server: &Server) -> AsyncClient {
    let addresses = server.address.to_string();
    block_on(AsyncClient::connect(7, &addresses, &Options::default())).unwrap()
}

/// Goal: calls are executed in the order in which they are made, whatever is awaited first, and the
/// future can go to another thread.
#[test]
fn calls_in_order() {
    let server = serve(vec![Act::Answer(&CREATED_ONE), Act::Answer(&CREATED_ONE)]);
    let client = connect(&server);
    let first = client.create_accounts(&[account()]);
    let second = client.clone().create_accounts(&[account()]);
    let second = std::thread::spawn(|| block_on(second)).join().unwrap().unwrap();
    let first = block_on(first).unwrap();
    assert_eq!((first[0].timestamp, second[0].timestamp), (5, 5));
    drop(client);
    assert_eq!(server.thread.join().unwrap().len(), 3);
}

/// Goal: a deadline is an error in time; what comes after is executed when the late answer is
/// there, and not before.
#[test]
fn deadlines() {
    let server = serve(vec![Act::Ignore, Act::Answer(&CREATED_ONE), Act::Answer(&CREATED_ONE)]);
    let mut client = connect(&server);
    client.set_deadline(Duration::from_millis(1));
    let error = block_on(client.create_accounts(&[account()])).unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }) && error.is_outcome_unknown());
    client.set_deadline(Duration::from_secs(60));
    assert_eq!(block_on(client.create_accounts(&[account()])).unwrap().len(), 1);
    drop(client);
    let requests = server.thread.join().unwrap();
    assert_eq!(requests[1], requests[2], "the first request was sent again");
    assert_eq!(requests.len(), 4);
}

/// Goal: who waits behind a call that hangs is told when the own deadline has passed, not when
/// that of the other has.
#[test]
fn deadlines_of_others() {
    let server = serve(vec![Act::Ignore, Act::Answer(&CREATED_ONE)]);
    let client = connect(&server);
    let mut hasty = client.clone();
    hasty.set_deadline(Duration::from_millis(1));
    let patient = client.create_accounts(&[account()]);
    let error = block_on(hasty.create_accounts(&[account()])).unwrap_err();
    assert!(matches!(error, ClientError::Deadline { request: None, .. }), "{error}");
    assert!(!error.is_outcome_unknown(), "it was not sent");
    assert_eq!(block_on(patient).unwrap().len(), 1);
    drop((client, hasty));
    assert_eq!(server.thread.join().unwrap().len(), 3, "only the patient call was sent");
}

/// Goal: an eviction is an error for the call and all later ones; a cluster that is not there and
/// too many calls are errors, too.
#[test]
fn errors() {
    let server = serve(vec![Act::Evict(EvictionReason::NoSession)]);
    let client = connect(&server);
    let expected = ClientError::Evicted(EvictionReason::NoSession);
    assert_eq!(block_on(client.create_accounts(&[account()])).unwrap_err(), expected);
    assert_eq!(block_on(client.lookup_accounts(&[1])).unwrap_err(), expected);
    drop(client);
    server.thread.join().unwrap();

    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let options = Options { deadline: Duration::from_millis(200), ..Options::default() };
    let error = block_on(AsyncClient::connect(7, &address, &options)).unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    let error = block_on(AsyncClient::connect(7, "host:0", &options)).unwrap_err();
    assert!(matches!(error, ClientError::Address(_)), "{error}");

    let server = serve(vec![Act::Ignore]);
    let mut client = connect(&server);
    client.set_deadline(Duration::from_millis(500));
    // The queue, what the thread took from it, and the one that hangs.
    let calls: Vec<_> = (0..2 * CALLS_MAX + 2).map(|_| client.lookup_accounts(&[1])).collect();
    let outcomes: Vec<_> = calls.into_iter().map(|call| block_on(call).unwrap_err()).collect();
    assert!(outcomes.contains(&ClientError::Busy { limit: CALLS_MAX }));
    assert!(outcomes.iter().any(|error| matches!(error, ClientError::Deadline { .. })));
}
