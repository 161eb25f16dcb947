//! The client for asynchronous programs, under any executor: it needs none, and brings none.
//!
//! A thread drives the blocking client; a call is handed to it and returns a future that the thread
//! completes. A session has one request in flight, so calls of all clones of a client are executed
//! one after the other, in order; who wants more makes a client each.
//!
//! Deadlines are as in the blocking client, from the moment of the call on: a future is ready when
//! its deadline has passed, at the latest a tenth of a second later, with
//! [`ClientError::Deadline`]. A future that is dropped before its request was sent is not sent; if
//! it was sent, it is executed all the same.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/example_server.inc"));
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/block_on.inc"));
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = ExampleServer::start();
//! # let addresses = server.address.as_str();
//! use florin::client::{AsyncClient, Options};
//! use florin::protocol::status::CreateTransferStatus;
//! use florin::protocol::types::{Account, Transfer};
//!
//! # block_on(async {
//! let client = AsyncClient::connect(0, addresses, &Options::default()).await?;
//!
//! let account = |id| Account { id, ledger: 700, code: 10, ..Account::default() };
//! client.create_accounts(&[account(1), account(2)]).await?;
//!
//! let transfer = Transfer {
//!     id: florin::id(),
//!     debit_account_id: 1,
//!     credit_account_id: 2,
//!     amount: 10,
//!     ledger: 700,
//!     code: 1,
//!     ..Transfer::default()
//! };
//! // Both calls are handed over before either is answered.
//! let created = client.create_transfers(&[transfer]);
//! let accounts = client.lookup_accounts(&[1, 2]);
//! assert_eq!(created.await?[0].status, CreateTransferStatus::Created.number());
//! assert_eq!(accounts.await?[1].credits_posted, 10);
//! # Ok::<(), florin::client::ClientError>(())
//! # })?;
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Client, ClientError, Options};
use crate::protocol::types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, Transfer,
};
use crate::protocol::{Operation, to_index};

/// Calls that wait to be executed at most; more are refused with [`ClientError::Busy`].
pub const CALLS_MAX: u32 = 1024;
/// How long the thread waits for an answer before it looks at deadlines again.
const SLICE: Duration = Duration::from_millis(100);

/// What a call's thread leaves for its future.
#[derive(Debug)]
struct Slot<Outcome> {
    outcome: Option<Result<Outcome, ClientError>>,
    waker: Option<Waker>,
}

type Shared<Outcome> = Arc<Mutex<Slot<Outcome>>>;

/// The slot; who panicked while holding it left it whole.
fn lock<Outcome>(shared: &Shared<Outcome>) -> MutexGuard<'_, Slot<Outcome>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Completes a future, once.
#[derive(Debug)]
struct Promise<Outcome>(Shared<Outcome>);

impl<Outcome> Promise<Outcome> {
    fn new() -> (Promise<Outcome>, Shared<Outcome>) {
        let shared = Arc::new(Mutex::new(Slot { outcome: None, waker: None }));
        (Promise(Arc::clone(&shared)), shared)
    }

    /// Nobody waits for the outcome any more.
    fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn complete(&self, outcome: Result<Outcome, ClientError>) {
        let mut slot = lock(&self.0);
        if slot.outcome.is_some() {
            return;
        }
        slot.outcome = Some(outcome);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<Outcome> Drop for Promise<Outcome> {
    /// Nobody waits for ever for a thread that is gone.
    fn drop(&mut self) {
        self.complete(Err(ClientError::Closed));
    }
}

/// A wait for what a promise brings.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
struct Wait<Outcome>(Shared<Outcome>);

impl<Outcome> Future for Wait<Outcome> {
    type Output = Result<Outcome, ClientError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = lock(&self.0);
        if let Some(outcome) = slot.outcome.take() {
            // Asked again in spite of the rules: an error, not a wait without end.
            slot.outcome = Some(Err(ClientError::Closed));
            return Poll::Ready(outcome);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The future of a call: its results, in order.
#[derive(Debug)]
#[must_use = "the outcome of a call is known when it is awaited"]
pub struct Call<Outcome> {
    wait: Wait<Vec<u8>>,
    outcome: PhantomData<fn() -> Outcome>,
}

impl<Outcome: FromBytes> Future for Call<Outcome> {
    type Output = Result<Vec<Outcome>, ClientError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.get_mut().wait).poll(context).map_ok(|bytes| {
            let chunks = bytes.chunks_exact(size_of::<Outcome>());
            let read = chunks.map(|bytes| Outcome::read_from_bytes(bytes));
            read.map(|row| row.expect("a chunk has the result's size")).collect()
        })
    }
}

/// A call on its way to the thread.
#[derive(Debug)]
struct Job {
    operation: Operation,
    events: Vec<u8>,
    start: Instant,
    deadline: Duration,
    promise: Promise<Vec<u8>>,
}

impl Job {
    fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.start.elapsed())
    }

    fn expire(&self) {
        let waited = self.start.elapsed();
        // It was not sent.
        let late = ClientError::Deadline { waited, request: None, connection: None };
        self.promise.complete(Err(late));
    }
}

/// A client whose calls are futures. Clones share its session. See the module.
#[derive(Clone, Debug)]
pub struct AsyncClient {
    jobs: SyncSender<Job>,
    deadline: Duration,
}

impl AsyncClient {
    /// Connects to a cluster, all of whose replicas are listed in order, and opens a session.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`], and if there can be no thread.
    ///
    /// # Panics
    ///
    /// Never: the bound of calls is small.
    pub async fn connect(
        cluster: u128,
        addresses: &str,
        options: &Options,
    ) -> Result<AsyncClient, ClientError> {
        let (jobs, queue) = sync_channel(usize::try_from(CALLS_MAX).expect("a small number"));
        let (promise, shared) = Promise::new();
        let (addresses, options) = (addresses.to_owned(), *options);
        thread::Builder::new().name("florin-client".to_owned()).spawn(
            move || match Client::connect(cluster, &addresses, &options) {
                Ok(client) => {
                    promise.complete(Ok(()));
                    drop(promise);
                    Server { client, queue, waiting: VecDeque::new(), is_late: false }.run();
                }
                Err(error) => promise.complete(Err(error)),
            },
        )?;
        Wait(shared).await?;
        Ok(AsyncClient { jobs, deadline: options.deadline })
    }

    /// Changes how long calls may take that are made with this clone.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Sends one batch of events; the future has the batch of results. The call is made at once,
    /// not when the future is awaited first.
    ///
    /// # Panics
    ///
    /// If the types are not those of the operation.
    pub fn call<Event, Outcome>(&self, operation: Operation, events: &[Event]) -> Call<Outcome>
    where
        Event: IntoBytes + Immutable,
        Outcome: FromBytes,
    {
        assert_eq!(to_index(operation.event_size()), size_of::<Event>());
        assert_eq!(to_index(operation.result_size()), size_of::<Outcome>());
        let (promise, shared) = Promise::new();
        let events = events.as_bytes().to_vec();
        let job =
            Job { operation, events, start: Instant::now(), deadline: self.deadline, promise };
        if let Err(TrySendError::Full(job)) = self.jobs.try_send(job) {
            job.promise.complete(Err(ClientError::Busy { limit: CALLS_MAX }));
        }
        Call { wait: Wait(shared), outcome: PhantomData }
    }

    /// Creates accounts: one result per account, in order.
    pub fn create_accounts(&self, accounts: &[Account]) -> Call<CreateResult> {
        self.call(Operation::CreateAccounts, accounts)
    }

    /// Creates transfers: one result per transfer, in order.
    pub fn create_transfers(&self, transfers: &[Transfer]) -> Call<CreateResult> {
        self.call(Operation::CreateTransfers, transfers)
    }

    /// Reads accounts by id; those that do not exist are left out.
    pub fn lookup_accounts(&self, ids: &[u128]) -> Call<Account> {
        self.call(Operation::LookupAccounts, ids)
    }

    /// Reads transfers by id; those that do not exist are left out.
    pub fn lookup_transfers(&self, ids: &[u128]) -> Call<Transfer> {
        self.call(Operation::LookupTransfers, ids)
    }

    /// Reads the transfers of an account.
    pub fn get_account_transfers(&self, filter: &AccountFilter) -> Call<Transfer> {
        self.call(Operation::GetAccountTransfers, std::slice::from_ref(filter))
    }

    /// Reads the balances of an account over time.
    pub fn get_account_balances(&self, filter: &AccountFilter) -> Call<AccountBalance> {
        self.call(Operation::GetAccountBalances, std::slice::from_ref(filter))
    }

    /// Reads accounts by their fields.
    pub fn query_accounts(&self, filter: &QueryFilter) -> Call<Account> {
        self.call(Operation::QueryAccounts, std::slice::from_ref(filter))
    }

    /// Reads transfers by their fields.
    pub fn query_transfers(&self, filter: &QueryFilter) -> Call<Transfer> {
        self.call(Operation::QueryTransfers, std::slice::from_ref(filter))
    }

    /// Reads what changed, in order.
    pub fn get_change_events(&self, filter: &ChangeEventsFilter) -> Call<ChangeEvent> {
        self.call(Operation::GetChangeEvents, std::slice::from_ref(filter))
    }
}

/// What the thread works with.
struct Server {
    client: Client,
    queue: Receiver<Job>,
    /// Calls that were taken from the queue, the first of which is executed.
    waiting: VecDeque<Job>,
    /// An answer is awaited to a request whose deadline has passed.
    is_late: bool,
}

impl Server {
    /// Executes calls until no clone of the client is left.
    fn run(mut self) {
        while self.receive() {
            let Some(job) = self.waiting.pop_front() else { continue };
            if job.promise.is_abandoned() {
                continue;
            }
            // What is late blocks the session: its answer comes first, and is nobody's any more.
            while self.is_late && !job.left().is_zero() {
                self.set_slice(&job);
                let result = self.client.resume().map(|_| ());
                self.is_late = matches!(result, Err(ClientError::Deadline { .. }));
                self.expire();
            }
            if job.left().is_zero() {
                job.expire();
                continue;
            }
            let outcome = self.execute(&job);
            job.promise.complete(outcome);
        }
    }

    /// Takes what is in the queue, and waits if there is nothing; whether there may be more.
    fn receive(&mut self) -> bool {
        if self.waiting.is_empty() {
            let Ok(job) = self.queue.recv() else { return false };
            self.waiting.push_back(job);
        }
        self.receive_more();
        true
    }

    /// Takes what is in the queue, as far as it is bounded.
    fn receive_more(&mut self) {
        while self.waiting.len() < to_index(CALLS_MAX) {
            match self.queue.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Completes the calls that cannot be in time any more.
    fn expire(&mut self) {
        self.receive_more();
        self.waiting.iter().filter(|job| job.left().is_zero()).for_each(Job::expire);
        self.waiting.retain(|job| !job.left().is_zero());
    }

    fn set_slice(&mut self, job: &Job) {
        self.client.set_deadline(job.left().min(SLICE));
    }

    /// Sends a request and waits for its answer, but not longer than its deadline.
    fn execute(&mut self, job: &Job) -> Result<Vec<u8>, ClientError> {
        assert!(!self.is_late);
        self.set_slice(job);
        let mut result = results(self.client.call_reply(job.operation, &job.events));
        while let Err(ClientError::Deadline { request, connection, .. }) = result {
            self.expire();
            if job.left().is_zero() {
                self.is_late = true;
                let waited = job.start.elapsed();
                return Err(ClientError::Deadline { waited, request, connection });
            }
            self.set_slice(job);
            result = results(self.client.resume());
        }
        result
    }
}

fn results(reply: Result<super::Reply<'_>, ClientError>) -> Result<Vec<u8>, ClientError> {
    Ok(reply?.results()?.to_vec())
}
