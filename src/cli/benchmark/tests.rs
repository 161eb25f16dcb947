//! The whole load against a server in memory: several clients, validation, refusals.

use super::*;
use crate::cli::exit::Failure;
use crate::protocol::types::{Account, AccountFilter, CreateResult, RegisterResult, Transfer};
use crate::protocol::{AlignedMemory, Command, Header, ReplyHeader, to_size};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// A ledger without rules: everything is created.
#[derive(Default)]
struct Ledger {
    op: u64,
    accounts: BTreeMap<u128, Account>,
    transfers: BTreeMap<u128, Transfer>,
    /// Ids that are refused.
    refuse_from: Option<usize>,
    /// Whether amounts are changed on the way.
    is_corrupt: bool,
}

impl Ledger {
    fn execute(&mut self, operation: Operation, payload: &[u8]) -> Vec<u8> {
        match operation {
            Operation::CreateAccounts => {
                let accounts = <[Account]>::ref_from_bytes(payload).unwrap();
                accounts.iter().flat_map(|account| self.create_account(account)).collect()
            }
            Operation::CreateTransfers => {
                let transfers = <[Transfer]>::ref_from_bytes(payload).unwrap();
                transfers.iter().flat_map(|transfer| self.create_transfer(transfer)).collect()
            }
            Operation::LookupAccounts => {
                let ids = <[u128]>::ref_from_bytes(payload).unwrap();
                ids.iter().flat_map(|id| self.accounts[id].as_bytes().to_vec()).collect()
            }
            Operation::LookupTransfers => {
                let ids = <[u128]>::ref_from_bytes(payload).unwrap();
                ids.iter().flat_map(|id| self.transfers[id].as_bytes().to_vec()).collect()
            }
            Operation::GetAccountTransfers => {
                let filter = AccountFilter::read_from_bytes(payload).unwrap();
                let id = filter.account_id;
                let mut found: Vec<Transfer> = self.transfers.values().copied().collect();
                found.retain(|t| t.debit_account_id == id || t.credit_account_id == id);
                found.sort_by_key(|transfer| transfer.timestamp);
                found.as_bytes().to_vec()
            }
            other => panic!("{other:?}"),
        }
    }

    fn result(&mut self, status: u32) -> Vec<u8> {
        self.op += 1;
        CreateResult { timestamp: self.op, status, reserved: 0 }.as_bytes().to_vec()
    }

    fn create_account(&mut self, account: &Account) -> Vec<u8> {
        let result = self.result(u32::MAX);
        let mut account = *account;
        account.timestamp = self.op;
        assert!(self.accounts.insert(account.id, account).is_none());
        result
    }

    fn create_transfer(&mut self, transfer: &Transfer) -> Vec<u8> {
        if self.refuse_from.is_some_and(|count| self.transfers.len() >= count) {
            return self.result(54);
        }
        let result = self.result(u32::MAX);
        let mut transfer = *transfer;
        transfer.timestamp = self.op;
        transfer.amount += u128::from(self.is_corrupt);
        self.accounts.get_mut(&transfer.debit_account_id).unwrap().debits_posted += transfer.amount;
        let credit = self.accounts.get_mut(&transfer.credit_account_id).unwrap();
        credit.credits_posted += transfer.amount;
        assert!(self.transfers.insert(transfer.id, transfer).is_none());
        result
    }
}

fn serve(ledger: Ledger) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ledger = Arc::new(Mutex::new(ledger));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let ledger = Arc::clone(&ledger);
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                while let Some(request) = read_frame(&mut stream) {
                    let reply = answer(&request, ledger.lock().unwrap());
                    stream.write_all(&reply).unwrap();
                }
            });
        }
    });
    address
}

fn read_frame(stream: &mut TcpStream) -> Option<AlignedMemory> {
    let mut header = AlignedMemory::new(256);
    stream.read_exact(&mut header).ok()?;
    let mut frame = AlignedMemory::new(to_index(Header::from_bytes(&header).frame.size));
    frame[..256].copy_from_slice(&header);
    stream.read_exact(&mut frame[256..]).ok()?;
    Some(frame)
}

fn answer(frame: &AlignedMemory, mut ledger: MutexGuard<'_, Ledger>) -> Vec<u8> {
    let header = Header::from_bytes(frame);
    assert_eq!(header.frame.command, u8::from(Command::Request));
    let request = header.request();
    ledger.op += 1;
    let operation = Operation::try_from(request.operation).unwrap();
    let body = if operation == Operation::Register {
        let mut result = RegisterResult::new_zeroed();
        result.batch_size_limit = 32_512;
        result.as_bytes().to_vec()
    } else {
        let payload = frame.len() - 256 - to_index(operation.event_size());
        let mut results = ledger.execute(operation, &frame[256..256 + payload]);
        let size = to_index(operation.result_size());
        let count = u16::try_from(results.len() / size).unwrap();
        results.extend(std::iter::repeat_n(0xff, size - 4));
        results.extend_from_slice(&count.to_le_bytes());
        results.extend_from_slice(&1_u16.to_le_bytes());
        results
    };
    let mut reply = ReplyHeader::new();
    reply.frame.release = header.frame.release;
    reply.frame.size = to_size(256 + body.len());
    reply.request_checksum = header.frame.checksum;
    reply.client = request.client;
    reply.op = ledger.op;
    reply.commit = reply.op;
    reply.timestamp = reply.op;
    reply.request = request.request;
    reply.operation = request.operation;
    reply.seal(&body);
    [reply.as_bytes(), &body].concat()
}

fn run_against(ledger: Ledger, text: &str) -> Result<Report, Failure> {
    let address = serve(ledger);
    let words = ["florin", "benchmark"].into_iter().chain(text.split_ascii_whitespace());
    let arguments = <crate::cli::Arguments as clap::Parser>::parse_from(words);
    let crate::cli::Command::Benchmark(arguments) = arguments.command else {
        panic!("{text}");
    };
    let options = WireOptions {
        cluster: 0,
        addresses: vec![address.into()],
        release: Release::SERVER,
        lifetime: Lifetime::Long,
    };
    measure(&arguments, &options, &RefCell::new(None), &Stop::never())
}

/// Goal: every record arrives once and reads back the same, whatever the order of ids, the number
/// of clients and the size of batches; batches keep to the server's limit.
#[test]
fn creates_and_validates() {
    let cases = [
        ("--id-order=tbid", 8),
        ("--id-order=sequential --clients=3 --transfer-batch-count=100", 20),
        ("--id-order=random --clients=8 --transfer-batch-count=7", 286),
        ("--id-order=reversed --account-distribution=latest --account-count-hot=3", 8),
    ];
    for (text, batches) in cases {
        let text =
            format!("{text} --account-count=300 --transfer-count=2000 --query-count=20 --validate");
        let report = run_against(Ledger::default(), &text).unwrap();
        assert_eq!((report.accounts.events, report.transfers.events), (300, 2000), "{text}");
        assert_eq!(report.transfers.batches, batches, "{text}");
        assert_eq!(report.transfers.latency_us.len(), batches, "{text}");
        assert_eq!((report.queries.batches, report.validated), (20, Some((300, 2000))), "{text}");
        assert!(report.queries.events > 0 && report.server.is_none());
    }
}

/// Goal: a benchmark of nothing ends.
#[test]
fn nothing_to_do() {
    let report =
        run_against(Ledger::default(), "--transfer-count=0 --query-count=0 --validate").unwrap();
    assert_eq!(report.validated, Some((10_000, 0)));
    assert!(report.text().contains("\naccounts  10,000  "));
}

/// Goal: a refused transfer ends the benchmark, with the name of the status.
#[test]
fn refused_transfers() {
    let ledger = Ledger { refuse_from: Some(500), ..Ledger::default() };
    let failure = run_against(ledger, "--transfer-count=1000 --clients=2").unwrap_err();
    assert!(failure.message.contains("`exceeds_credits`"), "{failure}");
}

/// Goal: the session that asks whether the ledger is in use makes way first.
#[test]
fn question_is_short() {
    assert_eq!(question_options().lifetime, Lifetime::Short);
}

/// Goal: a transfer that reads back differently fails the validation.
#[test]
fn corrupt_server() {
    let ledger = Ledger { is_corrupt: true, ..Ledger::default() };
    let failure = run_against(ledger, "--transfer-count=300 --validate").unwrap_err();
    assert!(failure.message.contains("a transfer changed"), "{failure}");
}
