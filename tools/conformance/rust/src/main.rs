//! Every operation through the official Rust client, alone and with many calls in flight.
//!
//! Usage: `conformance ADDRESS`. Prints one line for each check and a count at the end; the exit
//! code is 0 only if all pass. A check fails by panicking.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use tigerbeetle as tb;
use tigerbeetle::{CreateAccountStatus, CreateTransferStatus};

const BATCH_MAX: u32 = 8189;
const AMOUNT_MAX: u128 = u128::MAX;

/// Wakes the thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn account(flags: tb::AccountFlags) -> tb::Account {
    tb::Account { id: tb::id(), ledger: 1, code: 1, flags, ..Default::default() }
}

fn transfer(debit: u128, credit: u128, amount: u128) -> tb::Transfer {
    tb::Transfer {
        id: tb::id(),
        debit_account_id: debit,
        credit_account_id: credit,
        amount,
        ledger: 1,
        code: 1,
        ..Default::default()
    }
}

fn account_filter(account_id: u128) -> tb::AccountFilter {
    tb::AccountFilter {
        account_id,
        limit: BATCH_MAX,
        flags: tb::AccountFilterFlags::Debits | tb::AccountFilterFlags::Credits,
        ..Default::default()
    }
}

fn new_accounts(client: &tb::Client, flags: &[tb::AccountFlags]) -> Vec<u128> {
    let accounts: Vec<tb::Account> = flags.iter().map(|flags| account(*flags)).collect();
    let results = wait(client.create_accounts(&accounts)).expect("the request succeeds");
    assert_eq!(results.len(), accounts.len());
    assert!(results.iter().all(|result| result.status == CreateAccountStatus::Created));
    accounts.iter().map(|account| account.id).collect()
}

fn expect(client: &tb::Client, transfers: &[tb::Transfer], expected: &[CreateTransferStatus]) {
    let results = wait(client.create_transfers(transfers)).expect("the request succeeds");
    let statuses: Vec<CreateTransferStatus> = results.iter().map(|result| result.status).collect();
    assert_eq!(statuses, expected);
}

fn balances(client: &tb::Client, id: u128) -> [u128; 4] {
    let found = wait(client.lookup_accounts(&[id])).expect("the request succeeds");
    assert_eq!(found.len(), 1);
    let account = found[0];
    [account.debits_pending, account.debits_posted, account.credits_pending, account.credits_posted]
}

fn check_records(client: &tb::Client) {
    let mut made = account(tb::AccountFlags::History);
    made.user_data_128 = 1 << 127;
    made.user_data_64 = 2;
    made.user_data_32 = 3;
    let results = wait(client.create_accounts(&[made])).expect("the request succeeds");
    assert_eq!(results[0].status, CreateAccountStatus::Created);
    let found = wait(client.lookup_accounts(&[made.id])).expect("the request succeeds");
    assert_eq!(found, [tb::Account { timestamp: results[0].timestamp, ..made }]);
    let other = new_accounts(client, &[tb::AccountFlags::empty()])[0];
    let made = tb::Transfer { user_data_64: 7, code: 9, ..transfer(other, made.id, 1 << 90) };
    let results = wait(client.create_transfers(&[made])).expect("the request succeeds");
    assert_eq!(results[0].status, CreateTransferStatus::Created);
    let found = wait(client.lookup_transfers(&[made.id, tb::id()])).expect("the request succeeds");
    assert_eq!(found, [tb::Transfer { timestamp: results[0].timestamp, ..made }]);
    expect(client, &[made], &[CreateTransferStatus::Exists]);
    assert_eq!(balances(client, other), [0, 1 << 90, 0, 0]);
}

fn check_two_phase_and_chains(client: &tb::Client) {
    let ids = new_accounts(client, &[tb::AccountFlags::empty(); 2]);
    let pending = tb::Transfer { flags: tb::TransferFlags::Pending, ..transfer(ids[0], ids[1], 9) };
    let post = tb::Transfer {
        id: tb::id(),
        pending_id: pending.id,
        amount: AMOUNT_MAX,
        flags: tb::TransferFlags::PostPendingTransfer,
        ..Default::default()
    };
    let void = tb::Transfer {
        id: tb::id(),
        amount: 0,
        flags: tb::TransferFlags::VoidPendingTransfer,
        ..post
    };
    let linked = tb::Transfer { flags: tb::TransferFlags::Linked, ..transfer(ids[0], ids[1], 1) };
    let broken = tb::Transfer { code: 0, ..transfer(ids[0], ids[1], 1) };
    let balancing = tb::Transfer {
        flags: tb::TransferFlags::BalancingCredit,
        ..transfer(ids[0], ids[1], AMOUNT_MAX)
    };
    let back = transfer(ids[1], ids[0], 4);
    expect(
        client,
        &[pending, post, void, linked, broken, back, balancing],
        &[
            CreateTransferStatus::Created,
            CreateTransferStatus::Created,
            CreateTransferStatus::PendingTransferAlreadyPosted,
            CreateTransferStatus::LinkedEventFailed,
            CreateTransferStatus::CodeMustNotBeZero,
            CreateTransferStatus::Created,
            CreateTransferStatus::Created,
        ],
    );
    assert_eq!(balances(client, ids[0]), [0, 9, 0, 4]);
}

fn check_filters(client: &tb::Client) {
    let flags = [tb::AccountFlags::History, tb::AccountFlags::empty(), tb::AccountFlags::empty()];
    let ids = new_accounts(client, &flags);
    let mark = tb::id();
    let made: Vec<tb::Transfer> = (0..20)
        .map(|number: usize| tb::Transfer {
            user_data_128: mark,
            user_data_32: if number.is_multiple_of(2) { 2 } else { 1 },
            ..transfer(ids[number % 2], ids[2], 1)
        })
        .collect();
    expect(client, &made, &[CreateTransferStatus::Created; 20]);
    let wanted: Vec<u128> = made.iter().step_by(2).map(|transfer| transfer.id).collect();
    let of = |found: Vec<tb::Transfer>| -> Vec<u128> { found.iter().map(|each| each.id).collect() };
    let found = wait(client.get_account_transfers(account_filter(ids[0])));
    assert_eq!(of(found.expect("the request succeeds")), wanted);
    let rows = wait(client.get_account_balances(account_filter(ids[0])));
    let rows = rows.expect("the request succeeds");
    assert_eq!(rows.len(), 10);
    assert_eq!(rows[9].debits_posted, 10);
    let filter = tb::QueryFilter {
        user_data_128: mark,
        user_data_32: 2,
        limit: 4,
        flags: tb::QueryFilterFlags::Reversed,
        ..Default::default()
    };
    let found = wait(client.query_transfers(filter)).expect("the request succeeds");
    assert_eq!(of(found), wanted.iter().rev().take(4).copied().collect::<Vec<u128>>());
    let filter = tb::QueryFilter { limit: 3, ledger: 1, ..Default::default() };
    let found = wait(client.query_accounts(filter)).expect("the request succeeds");
    assert_eq!(found.len(), 3);
    assert!(found.is_sorted_by_key(|account| account.timestamp));
}

fn check_concurrent(client: &tb::Client) {
    let ids = new_accounts(client, &[tb::AccountFlags::empty(); 2]);
    let batches: Vec<Vec<tb::Transfer>> = (0..300_u128)
        .map(|number| (0..number % 5).map(|_| transfer(ids[0], ids[1], number)).collect())
        .collect();
    // All calls are under way before the first is waited for.
    let calls: Vec<_> = batches.iter().map(|batch| client.create_transfers(batch)).collect();
    for (call, batch) in calls.into_iter().zip(&batches) {
        let results = wait(call).expect("the request succeeds");
        assert_eq!(results.len(), batch.len());
        assert!(results.iter().all(|result| result.status == CreateTransferStatus::Created));
    }
    let lookups: Vec<_> = batches
        .iter()
        .map(|batch| {
            let ids: Vec<u128> = batch.iter().map(|transfer| transfer.id).collect();
            client.lookup_transfers(&ids)
        })
        .collect();
    for (lookup, batch) in lookups.into_iter().zip(&batches) {
        let found = wait(lookup).expect("the request succeeds");
        let found: Vec<(u128, u128)> = found.iter().map(|each| (each.id, each.amount)).collect();
        let made: Vec<(u128, u128)> = batch.iter().map(|each| (each.id, each.amount)).collect();
        assert_eq!(found, made);
    }
}

fn check_full_batches(client: &tb::Client) {
    let count = usize::try_from(BATCH_MAX).expect("the count is small");
    let ids = new_accounts(client, &vec![tb::AccountFlags::empty(); count]);
    let found = wait(client.lookup_accounts(&ids)).expect("the request succeeds");
    assert!(found.iter().map(|account| account.id).eq(ids.iter().copied()));
    let mut made: Vec<tb::Transfer> =
        (0..count).map(|number| transfer(ids[0], ids[1 + number % 99], 1)).collect();
    expect(client, &made, &vec![CreateTransferStatus::Created; count]);
    let found = wait(client.get_account_transfers(account_filter(ids[0])));
    let found = found.expect("the request succeeds");
    assert!(found.iter().map(|each| each.id).eq(made.iter().map(|each| each.id)));
    made.push(transfer(ids[0], ids[1], 1));
    let refused = wait(client.create_transfers(&made)).map(|results| results.len());
    assert_eq!(refused, Err(tb::Error::TooMuchData));
    let empty = wait(client.create_transfers(&[])).map(|results| results.len());
    assert_eq!(empty, Ok(0));
}

/// A check of one aspect.
type Check = fn(&tb::Client);

fn main() -> ExitCode {
    let address = std::env::args().nth(1).expect("usage: conformance ADDRESS");
    let client = tb::Client::new(0, &address).expect("the client starts");
    let checks: [(&str, Check); 5] = [
        ("records", check_records),
        ("two-phase and chains", check_two_phase_and_chains),
        ("filters", check_filters),
        ("concurrent calls", check_concurrent),
        ("full batches", check_full_batches),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&client)));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{word} rust client: {name}");
        failed += usize::from(outcome.is_err());
    }
    let closed = wait(client.close()).is_ok();
    assert!(closed, "the client closes");
    println!("{} passed, {failed} failed", checks.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
