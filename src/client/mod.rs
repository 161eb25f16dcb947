//! A client of the wire protocol in Rust.
//!
//! [`Client`] is the blocking client: one session, one request at a time, typed calls, errors as
//! values and deadlines for everything. [`Wire`] and [`Poller`] are what it is made of: a session
//! that never blocks, many of which one thread can serve. Ids are made by [`IdGenerator`].
//!
//! Not here: several batches in one request, and calls from several threads (make a client each).

pub mod address;
pub mod batch;
mod connection;
pub mod error;
pub mod id;
pub mod random;
pub mod session;
pub mod system;
pub mod wire;

#[cfg(test)]
mod tests;

pub use address::{AddressError, parse_address, parse_addresses};
pub use error::{ClientError, ServerError};
pub use id::IdGenerator;
pub use random::Random;
pub use session::{ReplyFacts, Session, SessionOptions};
pub use wire::{Poller, Reply, Wire, WireOptions};

use crate::protocol::types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, CreateResult,
    QueryFilter, Transfer,
};
use crate::protocol::{Operation, Release, to_index, to_size};
use std::net::SocketAddr;
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Choices of a client.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The release the client claims.
    pub release: Release,
    /// How long connecting, and each call, may take.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { release: Release::SERVER, deadline: Duration::from_secs(30) }
    }
}

/// A blocking client. See the module.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    poller: Poller,
    deadline: Duration,
}

impl Client {
    /// Connects to a cluster, all of whose replicas are listed in order, and opens a session.
    ///
    /// # Errors
    ///
    /// If no session is open before the deadline, or the cluster refuses the client.
    ///
    /// # Panics
    ///
    /// If there are no addresses or more than six.
    pub fn connect(
        cluster: u128,
        addresses: &[SocketAddr],
        options: &Options,
    ) -> Result<Client, ClientError> {
        let poller = Poller::new();
        let wire_options =
            WireOptions { cluster, addresses: addresses.to_vec(), release: options.release };
        let wire = Wire::new(&wire_options, poller.now_ns())?;
        let mut client = Client { wire, poller, deadline: options.deadline };
        client.wait()?;
        assert!(client.wire.is_registered());
        Ok(client)
    }

    /// Changes how long each call may take.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Events of one call at most.
    #[must_use]
    pub fn events_max(&self, operation: Operation) -> u32 {
        self.wire.events_max(operation)
    }

    /// Sends a body as it is and waits for the answer.
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
        self.wire.submit(self.poller.now_ns());
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
        self.prepare()?;
        let limit = self.wire.events_max(operation);
        if events.len() > to_index(limit) {
            let events = u64::try_from(events.len()).expect("lengths fit 64 bits");
            return Err(ClientError::TooMuchData { events, limit });
        }
        let bytes = events.as_bytes();
        self.wire.body_mut()[..bytes.len()].copy_from_slice(bytes);
        self.wire.stage(operation, to_size(events.len()));
        self.wire.submit(self.poller.now_ns());
        let results = self.resume()?.results()?;
        let read = |bytes| Outcome::read_from_bytes(bytes).expect("a chunk has the result's size");
        Ok(results.chunks_exact(size_of::<Outcome>()).map(read).collect())
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
        self.wait()?;
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

    /// Waits until the wire is not waiting any more, but no longer than the deadline.
    fn wait(&mut self) -> Result<(), ClientError> {
        let start_ns = self.poller.now_ns();
        while self.wire.is_waiting() {
            let waited = Duration::from_nanos(self.poller.now_ns() - start_ns);
            let Some(left) = self.deadline.checked_sub(waited).filter(|left| !left.is_zero())
            else {
                let connection = self.wire.connection_error();
                return Err(ClientError::Deadline { waited, connection });
            };
            self.poller.turn(std::slice::from_mut(&mut self.wire), left)?;
        }
        match self.wire.outcome() {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(()),
        }
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
