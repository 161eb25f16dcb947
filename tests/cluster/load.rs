//! Clients that send a random workload, and the judgement of everything that they were answered.

use florin::client::{Client, Options};
use florin::protocol::Operation;
use florin::protocol::types::{Account, Transfer};
use florin::simulator::batches::{decode_batches, encode_batches};
use florin::simulator::model::{Model, ModelOptions};
use florin::simulator::workload::{Workload, WorkloadOptions, WorkloadStep};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes};

const TRANSFER_SIZE: usize = 128;
/// Pause of a client between requests: a replica that is away for a moment must find what it
/// missed in the logs of the others, which are short in development mode.
const PAUSE: Duration = Duration::from_millis(50);
/// A request that is not answered for so long has failed the test.
const DEADLINE: Duration = Duration::from_secs(60);

/// A request and its answer.
struct Call {
    client: usize,
    operation: Operation,
    body: Vec<u8>,
    reply: Vec<u8>,
    timestamp: u64,
    sent: Instant,
    answered: Instant,
}

/// Clients at work.
pub struct Load {
    threads: Vec<JoinHandle<Vec<Call>>>,
    ending: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

impl Load {
    /// Starts so many clients.
    pub fn start(cluster: u128, addresses: &[SocketAddr], clients: usize, seed: u64) -> Load {
        let ending = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let thread = |index: usize| {
            let (ending, answers) = (Arc::clone(&ending), Arc::clone(&answers));
            let addresses = addresses.to_vec();
            let seed = seed + u64::try_from(index).expect("few clients");
            thread::spawn(move || work(index, cluster, &addresses, seed, &ending, &answers))
        };
        Load { threads: (0..clients).map(thread).collect(), ending, answers }
    }

    /// Requests answered so far.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Waits until every client has what it asked for, and judges it all; how many answers.
    pub fn finish(self) -> usize {
        self.ending.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        let calls = threads.flat_map(|thread| thread.join().expect("a client carries on"));
        judge(calls.collect())
    }
}

/// One client's life.
fn work(
    client_index: usize,
    cluster: u128,
    addresses: &[SocketAddr],
    seed: u64,
    ending: &AtomicBool,
    answers: &AtomicU64,
) -> Vec<Call> {
    let options = Options { deadline: DEADLINE, ..Options::default() };
    let mut client = Client::connect(cluster, addresses, &options).expect("a session");
    let mut workload = Workload::new(seed, WorkloadOptions::default());
    let mut calls = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        // Time passes by itself, and pulses come when the server wants.
        let WorkloadStep::Request { operation, body } = workload.next_step() else { continue };
        let body = without_timeouts(operation, body);
        let sent = Instant::now();
        let answer = client.request(operation, &body);
        let answer = answer.unwrap_or_else(|error| panic!("client {client_index}: {error}"));
        let (reply, timestamp) = (answer.body.to_vec(), answer.facts.timestamp);
        let answered = Instant::now();
        workload.on_reply(operation, timestamp, &body, &reply);
        let client = client_index;
        calls.push(Call { client, operation, body, reply, timestamp, sent, answered });
        answers.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    calls
}

/// Nothing shall expire: when that happens cannot be seen from outside.
fn without_timeouts(operation: Operation, body: Vec<u8>) -> Vec<u8> {
    if operation != Operation::CreateTransfers {
        return body;
    }
    let mut batches = decode_batches(TRANSFER_SIZE, &body);
    for transfer in batches.iter_mut().flat_map(|batch| batch.chunks_exact_mut(TRANSFER_SIZE)) {
        let mut changed = Transfer::read_from_bytes(transfer).expect("of that size");
        changed.timeout = 0;
        transfer.copy_from_slice(changed.as_bytes());
    }
    encode_batches(TRANSFER_SIZE, &batches)
}

/// There is one order of all requests in which the model gives the same answers, namely that of
/// their timestamps; and no request comes before another that was answered before it was sent.
fn judge(mut calls: Vec<Call>) -> usize {
    calls.sort_by_key(|call| call.timestamp);
    let mut model = Model::new(ModelOptions::default());
    let mut sent_newest: Option<Instant> = None;
    for call in &calls {
        let Call { client, operation, timestamp, .. } = call;
        if let Some(sent) = sent_newest {
            let in_order = sent <= call.answered;
            assert!(in_order, "client {client}: {operation:?} at {timestamp} came from the past");
        }
        sent_newest = sent_newest.max(Some(call.sent));
        let expected = model.execute(*operation, *timestamp, &call.body);
        let same = expected == call.reply;
        assert!(same, "client {client}: {operation:?} at {timestamp} was answered otherwise");
    }
    model.check_invariants();
    assert!(model.accounts().count() > 1 && model.transfers().count() > 0);
    calls.len()
}

/// Two clients create an account each and look both up, one after the other.
fn example() -> Vec<Call> {
    let base = Instant::now();
    let mut model = Model::new(ModelOptions::default());
    let account = |id| Account { id, ledger: 1, code: 1, ..Account::default() };
    let transfer = Transfer {
        id: 1,
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 5,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    };
    let steps = [
        (Operation::CreateAccounts, account(1).as_bytes().to_vec()),
        (Operation::CreateAccounts, account(2).as_bytes().to_vec()),
        (Operation::CreateTransfers, transfer.as_bytes().to_vec()),
        (Operation::LookupAccounts, 1_u128.as_bytes().to_vec()),
    ];
    let call = |(index, (operation, event)): (usize, (Operation, Vec<u8>))| {
        let body = encode_batches(event.len(), &[event]);
        let timestamp = 1_000 * (index as u64 + 1);
        let reply = model.execute(operation, timestamp, &body);
        let sent = base + Duration::from_millis(10 * index as u64);
        let answered = sent + Duration::from_millis(5);
        Call { client: index % 2, operation, body, reply, timestamp, sent, answered }
    };
    steps.into_iter().enumerate().map(call).collect()
}

/// Goal: a true history passes, in whatever order it was collected.
#[test]
fn judge_accepts() {
    let mut calls = example();
    calls.reverse();
    assert_eq!(judge(calls), 4);
}

/// Goal: a lost transfer shows in what is read afterwards.
#[test]
#[should_panic(expected = "was answered otherwise")]
fn judge_finds_loss() {
    let mut calls = example();
    let mut model = Model::new(ModelOptions::default());
    for call in calls[..2].iter().chain(&calls[3..]) {
        let reply = model.execute(call.operation, call.timestamp, &call.body);
        assert_eq!(reply == call.reply, call.operation != Operation::LookupAccounts);
    }
    calls.remove(2);
    judge(calls);
}

/// Goal: a read that was served from the past is found, even if its answer was right there.
#[test]
#[should_panic(expected = "came from the past")]
fn judge_finds_stale_read() {
    let mut calls = example();
    calls[1].sent = calls[3].answered + Duration::from_millis(1);
    calls[1].answered = calls[1].sent;
    judge(calls);
}
