//! A client of the wire protocol in Rust.
//!
//! [`Client`] is the blocking client: one session, one request at a time, typed calls, errors as
//! values and deadlines for everything. It is built on [`Wire`], a session that never blocks, and
//! [`Poller`], which serves many of these on one thread. [`IdGenerator`] generates ids.
//!
//! Two accounts and a transfer in two phases:
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/example_server.inc"));
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = ExampleServer::start();
//! # let addresses = server.address.as_str();
//! use florin::client::{Client, Options};
//! use florin::protocol::status::CreateTransferStatus;
//! use florin::protocol::types::{AMOUNT_MAX, Account, Transfer, transfer_flags};
//!
//! // All replicas, in order: "10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000", or host names.
//! let mut client = Client::connect(0, addresses, &Options::default())?;
//!
//! let account = |id| Account { id, ledger: 700, code: 10, ..Account::default() };
//! client.create_accounts(&[account(1), account(2)])?;
//!
//! let reserve = Transfer {
//!     id: florin::id(),
//!     debit_account_id: 1,
//!     credit_account_id: 2,
//!     amount: 100,
//!     ledger: 700,
//!     code: 1,
//!     flags: transfer_flags::PENDING,
//!     ..Transfer::default()
//! };
//! let results = client.create_transfers(&[reserve])?;
//! assert_eq!(results[0].status, CreateTransferStatus::Created.number());
//!
//! let post = Transfer {
//!     id: florin::id(),
//!     pending_id: reserve.id,
//!     amount: AMOUNT_MAX, // All that was reserved.
//!     flags: transfer_flags::POST_PENDING_TRANSFER,
//!     ..Transfer::default()
//! };
//! client.create_transfers(&[post])?;
//! let accounts = client.lookup_accounts(&[1, 2])?;
//! assert_eq!((accounts[0].debits_posted, accounts[1].credits_posted), (100, 100));
//! # Ok(())
//! # }
//! ```
//!
//! An answer may fail to come. Then nobody knows whether the request was executed. It is safe to
//! retry with the same ids: an event that was done answers `exists`. In a linked chain the first
//! event decides: if it answers `exists`, the chain was done, although the others answer
//! `linked_event_failed`.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/example_server.inc"));
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = ExampleServer::start();
//! # let addresses = server.address.as_str();
//! use florin::client::{Client, ClientError, Options};
//! use florin::protocol::status::CreateAccountStatus;
//! use florin::protocol::types::Account;
//! use std::time::Duration;
//!
//! let mut client = Client::connect(0, addresses, &Options::default())?;
//! let account = Account { id: florin::id(), ledger: 700, code: 10, ..Account::default() };
//!
//! client.set_deadline(Duration::ZERO); // No answer is as fast.
//! let error = client.create_accounts(&[account]).unwrap_err();
//! assert!(matches!(error, ClientError::Deadline { .. }) && error.is_outcome_unknown());
//! assert!(error.to_string().ends_with("it is safe to retry with the same ids"));
//!
//! // Either wait for the answer with `resume`, or open a new session:
//! let mut client = Client::connect(0, addresses, &Options::default())?;
//! let results = client.create_accounts(&[account])?;
//! let done = [CreateAccountStatus::Created.number(), CreateAccountStatus::Exists.number()];
//! assert!(done.contains(&results[0].status));
//! # Ok(())
//! # }
//! ```
//!
//! [`AsyncClient`] has the same calls as futures, for any executor.
//!
//! Not covered: several batches in one request, and calls of one blocking client from several
//! threads (create a client for each).

pub mod address;
pub mod asynchronous;
#[cfg(test)]
mod asynchronous_tests;
pub mod batch;
mod connection;
pub mod error;
#[cfg(test)]
mod hostile_tests;
pub mod id;
pub mod page;
pub mod random;
pub mod session;
pub mod system;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub use address::{AddressError, ReplicaAddress, ToReplicas};
pub use address::{parse_address, parse_addresses, read_replicas};
pub use address::{resolve_addresses, resolve_addresses_within};
pub use asynchronous::{AsyncClient, Call};
pub use error::{ClientError, ServerError, Trouble};
pub use id::IdGenerator;
pub use random::Random;
pub use session::{ReplyFacts, Session, SessionOptions};
pub use wire::{Lifetime, Poller, Reply, Wire, WireOptions};

use crate::protocol::types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, Transfer,
};
use crate::protocol::{Operation, Release, to_index, to_size};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Longest wait before an interruption is noticed.
const INTERRUPT_SLICE: Duration = Duration::from_millis(100);

/// Choices of a client.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The release the client claims.
    pub release: Release,
    /// Timeout for connecting, and for each call.
    pub deadline: Duration,
    /// Ends waiting with [`ClientError::Interrupted`] once it is set, by a signal handler for
    /// example.
    pub interrupt: Option<&'static AtomicBool>,
    /// How long the client lives.
    pub lifetime: Lifetime,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            release: Release::SERVER,
            deadline: Duration::from_secs(30),
            interrupt: None,
            lifetime: Lifetime::Long,
        }
    }
}

/// A blocking client. See the module.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    poller: Poller,
    cluster: u128,
    deadline: Duration,
    interrupt: Option<&'static AtomicBool>,
    /// The operation sent last.
    request: Option<Operation>,
}

impl Client {
    /// Connects to a cluster, all of whose replicas are listed in order, and opens a session.
    ///
    /// # Errors
    ///
    /// If an address is wrong, no session is open before the deadline, or the cluster refuses the
    /// client.
    ///
    /// # Panics
    ///
    /// Never: a client is given once its session is open.
    pub fn connect(
        cluster: u128,
        addresses: &(impl ToReplicas + ?Sized),
        options: &Options,
    ) -> Result<Client, ClientError> {
        let poller = Poller::new();
        let addresses = addresses.to_replicas(options.deadline)?;
        let wire_options = WireOptions {
            cluster,
            addresses,
            release: options.release,
            lifetime: options.lifetime,
        };
        let wire = Wire::new(&wire_options, poller.now_ns())?;
        let Options { deadline, interrupt, .. } = *options;
        let mut client = Client { wire, poller, cluster, deadline, interrupt, request: None };
        client.wait(0)?;
        assert!(client.wire.is_registered());
        Ok(client)
    }

    /// Sets the timeout for each call.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Returns the maximum number of events in one call.
    #[must_use]
    pub fn events_max(&self, operation: Operation) -> u32 {
        self.wire.events_max(operation)
    }

    /// Returns the maximum number of results in one reply, if replies are as large as requests may
    /// be.
    #[must_use]
    pub fn results_max(&self, operation: Operation) -> u32 {
        self.wire.results_max(operation)
    }

    /// Sends a body unchanged and waits for the answer.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]. A body larger than the cluster accepts is counted in bytes.
    ///
    /// # Panics
    ///
    /// Never: lengths fit 64 bits.
    pub fn request(&mut self, operation: Operation, body: &[u8]) -> Result<Reply<'_>, ClientError> {
        self.prepare()?;
        let room = self.wire.body_mut();
        let Some(target) = room.get_mut(..body.len()) else {
            let events = u64::try_from(body.len()).expect("lengths fit 64 bits");
            return Err(ClientError::TooMuchData { events, limit: to_size(room.len()) });
        };
        target.copy_from_slice(body);
        self.wire.stage_body(operation, to_size(body.len()));
        self.submit(operation);
        self.resume()
    }

    /// Sends one batch of events and returns the batch of results.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    ///
    /// # Panics
    ///
    /// If the types are not those of the operation.
    pub fn call<Event, Outcome>(
        &mut self,
        operation: Operation,
        events: &[Event],
    ) -> Result<Vec<Outcome>, ClientError>
    where
        Event: IntoBytes + Immutable,
        Outcome: FromBytes,
    {
        assert_eq!(to_index(operation.event_size()), size_of::<Event>());
        assert_eq!(to_index(operation.result_size()), size_of::<Outcome>());
        let results = self.exchange(operation, events.as_bytes())?;
        let read = |bytes| Outcome::read_from_bytes(bytes).expect("a chunk has the result's size");
        Ok(results.chunks_exact(size_of::<Outcome>()).map(read).collect())
    }

    /// As [`Client::call`], with events and results as bytes in the encoding of the protocol.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    ///
    /// # Panics
    ///
    /// If the bytes are not whole events.
    pub fn call_bytes(
        &mut self,
        operation: Operation,
        events: &[u8],
    ) -> Result<Vec<u8>, ClientError> {
        Ok(self.exchange(operation, events)?.to_vec())
    }

    /// Sends one batch and waits for the results.
    fn exchange(&mut self, operation: Operation, events: &[u8]) -> Result<&[u8], ClientError> {
        self.call_reply(operation, events)?.results()
    }

    /// As [`Client::call_bytes`], with the reply's header: [`Reply::results`] has the results.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    ///
    /// # Panics
    ///
    /// If the bytes are not whole events.
    pub fn call_reply(
        &mut self,
        operation: Operation,
        events: &[u8],
    ) -> Result<Reply<'_>, ClientError> {
        let event_size = to_index(operation.event_size());
        assert!(event_size > 0 && events.len().is_multiple_of(event_size));
        self.prepare()?;
        let count = events.len() / event_size;
        let limit = self.wire.events_max(operation);
        if count > to_index(limit) {
            let events = u64::try_from(count).expect("lengths fit 64 bits");
            return Err(ClientError::TooMuchData { events, limit });
        }
        self.wire.body_mut()[..events.len()].copy_from_slice(events);
        self.wire.stage(operation, to_size(count));
        self.submit(operation);
        self.resume()
    }

    fn submit(&mut self, operation: Operation) {
        self.request = Some(operation);
        self.wire.submit(self.poller.now_ns());
    }

    /// Waits on for the answer to a request whose deadline has passed.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    ///
    /// # Panics
    ///
    /// Never: after waiting there is an answer or an error.
    pub fn resume(&mut self) -> Result<Reply<'_>, ClientError> {
        if self.wire.is_idle() {
            return Err(ClientError::NothingToResume);
        }
        self.wait(self.poller.now_ns())?;
        self.wire.outcome().expect("waiting ended with an outcome")
    }

    /// Lets go of the last answer; refuses if there is still none.
    fn prepare(&mut self) -> Result<(), ClientError> {
        match self.wire.outcome() {
            Some(Ok(_)) => self.wire.finish(self.poller.now_ns()),
            Some(Err(error)) => return Err(error),
            None => {}
        }
        if self.wire.is_idle() { Ok(()) } else { Err(ClientError::Unresolved) }
    }

    /// Waits until the wire is not waiting any more, but no longer than the deadline from this time
    /// of the poller's clock on.
    fn wait(&mut self, start_ns: u64) -> Result<(), ClientError> {
        while self.wire.is_waiting() {
            let waited = Duration::from_nanos(self.poller.now_ns() - start_ns);
            let Some(left) = self.deadline.checked_sub(waited).filter(|left| !left.is_zero())
            else {
                return Err(self.late(waited));
            };
            if let Some((address, true)) = self.wire.refusal() {
                return Err(ClientError::ClusterMismatch { cluster: self.cluster, address });
            }
            if self.interrupt.is_some_and(|interrupt| interrupt.load(Ordering::Relaxed)) {
                return Err(ClientError::Interrupted { request: self.request });
            }
            // A signal may come between the look at `interrupt` and the wait.
            let left = if self.interrupt.is_some() { left.min(INTERRUPT_SLICE) } else { left };
            self.poller.turn(std::slice::from_mut(&mut self.wire), left)?;
        }
        match self.wire.outcome() {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Returns the error of an answer that did not come within this time.
    fn late(&self, waited: Duration) -> ClientError {
        if let Some((address, _)) = self.wire.refusal() {
            return ClientError::ClusterMismatch { cluster: self.cluster, address };
        }
        let (request, connection) = (self.request, self.wire.connection_error());
        ClientError::Deadline { waited, request, connection }
    }

    /// Creates accounts: one result per account, in order.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn create_accounts(
        &mut self,
        accounts: &[Account],
    ) -> Result<Vec<CreateResult>, ClientError> {
        self.call(Operation::CreateAccounts, accounts)
    }

    /// Creates transfers: one result per transfer, in order.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn create_transfers(
        &mut self,
        transfers: &[Transfer],
    ) -> Result<Vec<CreateResult>, ClientError> {
        self.call(Operation::CreateTransfers, transfers)
    }

    /// Reads accounts by id; those that do not exist are left out.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn lookup_accounts(&mut self, ids: &[u128]) -> Result<Vec<Account>, ClientError> {
        self.call(Operation::LookupAccounts, ids)
    }

    /// Reads transfers by id; those that do not exist are left out.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn lookup_transfers(&mut self, ids: &[u128]) -> Result<Vec<Transfer>, ClientError> {
        self.call(Operation::LookupTransfers, ids)
    }

    /// Reads the transfers of an account.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn get_account_transfers(
        &mut self,
        filter: &AccountFilter,
    ) -> Result<Vec<Transfer>, ClientError> {
        self.call(Operation::GetAccountTransfers, std::slice::from_ref(filter))
    }

    /// Reads the balances of an account over time.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn get_account_balances(
        &mut self,
        filter: &AccountFilter,
    ) -> Result<Vec<AccountBalance>, ClientError> {
        self.call(Operation::GetAccountBalances, std::slice::from_ref(filter))
    }

    /// Reads accounts by their fields.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn query_accounts(&mut self, filter: &QueryFilter) -> Result<Vec<Account>, ClientError> {
        self.call(Operation::QueryAccounts, std::slice::from_ref(filter))
    }

    /// Reads transfers by their fields.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn query_transfers(&mut self, filter: &QueryFilter) -> Result<Vec<Transfer>, ClientError> {
        self.call(Operation::QueryTransfers, std::slice::from_ref(filter))
    }

    /// Reads what changed, in order.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn get_change_events(
        &mut self,
        filter: &ChangeEventsFilter,
    ) -> Result<Vec<ChangeEvent>, ClientError> {
        self.call(Operation::GetChangeEvents, std::slice::from_ref(filter))
    }
}
