//! A retrying client for long-running commands: it continues through failovers, restarts of the
//! cluster, lost sessions and replicas without room for more clients, and stops on a signal.
//!
//! It only sends queries, which are safe to repeat; it creates nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::exit::{ExitClass, Failure};
use super::output::print_error;
use crate::client::{Client, ClientError, Lifetime, Options, ReplicaAddress, ServerError};
use crate::protocol::{EvictionReason, Operation, to_index, to_size};

/// Maximum delay before a signal is noticed.
const SLICE: Duration = Duration::from_millis(250);
/// Maximum duration of one attempt to open a session.
const CONNECT_SLICE: Duration = Duration::from_secs(2);
/// Time without an answer after which a session is given up for a new one. Doubles each time until
/// the question is answered, so that a busy cluster is not asked to open session after session.
const SESSION_SILENT: Duration = Duration::from_secs(10);
/// Interval of the lines that report what the client waits for.
const SILENCE: Duration = Duration::from_secs(10);
/// Pause before the next attempt after all replicas have refused the connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Deadline of the first answer, unless the user gives one.
pub const FIRST_DEADLINE: Duration = Duration::from_secs(30);
/// Maximum number of sessions lost in a row without an answer; one more is an error.
const LOST_MAX: u32 = 8;

/// Whether the user wants the command to end.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set by the first SIGINT or SIGTERM; the second ends the process at once.
    ///
    /// # Errors
    ///
    /// If the system refuses to have signals handled.
    pub fn on_signals() -> Result<Stop, Failure> {
        let wanted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the second signal finds what the first has left.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&wanted))
                .and_then(|_| flag::register(signal, Arc::clone(&wanted)))
                .map_err(|error| {
                    Failure::new(ExitClass::Error, format!("signals cannot be handled: {error}"))
                })?;
        }
        Ok(Stop(wanted))
    }

    /// Never set.
    #[must_use]
    pub fn never() -> Stop {
        Stop(Arc::new(AtomicBool::new(false)))
    }

    /// Set already.
    #[cfg(test)]
    pub(crate) fn at_once() -> Stop {
        Stop(Arc::new(AtomicBool::new(true)))
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct Answered<Outcome> {
    /// What was found.
    pub results: Vec<Outcome>,
    /// When the cluster answered, by its clock: in nanoseconds since 1970.
    pub timestamp: u64,
}

/// A retrying client. See the module.
#[derive(Debug)]
pub struct PatientClient {
    cluster: u128,
    addresses: Vec<ReplicaAddress>,
    /// Maximum time for an answer; no limit if `None`.
    deadline: Option<Duration>,
    stop: Stop,
    client: Option<Client>,
    /// Number of sessions that were opened.
    sessions: u64,
    /// When the question was sent in this session, if it was and is not answered yet.
    asked_at: Option<Instant>,
    /// There was an answer already.
    was_answered: bool,
}

impl PatientClient {
    /// A client that is not connected yet.
    ///
    /// # Panics
    ///
    /// If there are no addresses.
    #[must_use]
    pub fn new(
        cluster: u128,
        addresses: Vec<ReplicaAddress>,
        deadline: Option<Duration>,
        stop: Stop,
    ) -> PatientClient {
        assert!(!addresses.is_empty());
        PatientClient {
            cluster,
            addresses,
            deadline,
            stop,
            client: None,
            sessions: 0,
            asked_at: None,
            was_answered: false,
        }
    }

    /// Returns the number of sessions that were opened. In a new session, the answers may be those
    /// of another ledger. Within a session they are not, even when the client has to connect again:
    /// each question carries a checksum of the answer before, and a server that did not give that
    /// answer ignores the question.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Asks one question until it is answered; `None` if a signal comes before.
    ///
    /// # Errors
    ///
    /// If the cluster refuses the client, or does not answer in time.
    ///
    /// # Panics
    ///
    /// If the types are not those of the operation, or it creates something.
    pub fn ask<Event, Outcome>(
        &mut self,
        operation: Operation,
        events: &[Event],
    ) -> Result<Option<Answered<Outcome>>, Failure>
    where
        Event: IntoBytes + Immutable,
        Outcome: FromBytes,
    {
        assert!(!operation.is_create(), "what creates is not to be repeated unasked");
        assert_eq!(to_index(operation.event_size()), size_of::<Event>());
        assert_eq!(to_index(operation.result_size()), size_of::<Outcome>());
        let mut patience = Patience::new(self.deadline, self.was_answered);
        let mut lost = 0;
        let mut silent_max = SESSION_SILENT;
        while !self.stop.is_wanted() {
            match self.attempt(operation, events.as_bytes(), patience.left()) {
                Ok(answered) => {
                    self.was_answered = true;
                    return Ok(Some(answered));
                }
                Err(ClientError::Evicted(EvictionReason::NoSession)) if lost < LOST_MAX => {
                    lost += 1;
                    self.end_session();
                }
                Err(error @ ClientError::Deadline { .. }) => {
                    patience.wait_on(&error)?;
                    // A server that was restored may know an older state of this session, and
                    // then ignores what comes later in it. Questions may be asked again.
                    if self.asked_at.is_some_and(|at| at.elapsed() >= silent_max) {
                        self.end_session();
                        silent_max *= 2;
                    }
                }
                // Most likely another client leaves soon, and makes room.
                Err(error @ ClientError::ClusterMismatch { .. }) => {
                    patience.wait_on(&error)?;
                    std::thread::sleep(REFUSED_PAUSE.min(patience.left()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn end_session(&mut self) {
        (self.client, self.asked_at) = (None, None);
    }

    /// Opens a session unless one is open, asks or keeps waiting, and returns within `left`.
    fn attempt<Outcome: FromBytes>(
        &mut self,
        operation: Operation,
        events: &[u8],
        left: Duration,
    ) -> Result<Answered<Outcome>, ClientError> {
        let client = match &mut self.client {
            Some(client) => client,
            none => {
                let slice = left.min(CONNECT_SLICE);
                let options =
                    Options { deadline: slice, lifetime: Lifetime::Short, ..Options::default() };
                let client = Client::connect(self.cluster, &self.addresses, &options)?;
                self.sessions += 1;
                none.insert(client)
            }
        };
        client.set_deadline(left.min(SLICE));
        let asked_at = self.asked_at.take();
        let sent_at = asked_at.unwrap_or_else(Instant::now);
        let result = match asked_at {
            Some(_) => client.resume(),
            None => client.call_reply(operation, events),
        };
        if matches!(result, Err(ClientError::Deadline { .. })) {
            self.asked_at = Some(sent_at);
        }
        let reply = result?;
        let timestamp = reply.facts.timestamp;
        let bytes = reply.results()?;
        let size = size_of::<Outcome>();
        if !bytes.len().is_multiple_of(size) {
            let body_size = to_size(bytes.len());
            return Err(ClientError::Server(ServerError::Body { body_size }));
        }
        let read = |bytes| Outcome::read_from_bytes(bytes).expect("a chunk has the result's size");
        Ok(Answered { results: bytes.chunks_exact(size).map(read).collect(), timestamp })
    }
}

/// The wait for an answer: its start and limit, and when the user was notified.
struct Patience {
    start: Instant,
    limit: Option<Duration>,
    /// When the last line was printed, as time since the start.
    said: Option<Duration>,
}

impl Patience {
    fn new(deadline: Option<Duration>, was_answered: bool) -> Patience {
        let limit = deadline.or(Some(FIRST_DEADLINE).filter(|_| !was_answered));
        Patience { start: Instant::now(), limit, said: None }
    }

    /// The time until the limit.
    fn left(&self) -> Duration {
        self.limit.map_or(Duration::MAX, |limit| limit.saturating_sub(self.start.elapsed()))
    }

    /// Fails if the limit is reached. Otherwise prints at intervals what the client waits for: at
    /// once when it was refused, since that may be a mistake of the user.
    fn wait_on(&mut self, error: &ClientError) -> Result<(), Failure> {
        let waited = self.start.elapsed();
        let is_refused = matches!(error, ClientError::ClusterMismatch { .. });
        let late = match error {
            ClientError::Deadline { request, connection, .. } => {
                let connection = connection.clone();
                ClientError::Deadline { waited, request: *request, connection }
            }
            other => other.clone(),
        };
        if self.limit.is_some_and(|limit| waited >= limit) {
            return Err(late.into());
        }
        let next = self
            .said
            .map_or(if is_refused { Duration::ZERO } else { SILENCE }, |said| said + SILENCE);
        if waited >= next {
            let limit = self.limit.map_or(String::new(), |limit| {
                format!(", for {:.0} s at most", limit.as_secs_f64().ceil())
            });
            print_error(&format!("{late}; still trying{limit}"));
            self.said = Some(waited);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::resolve_addresses;
    use crate::protocol::types::Account;

    /// Goal: a stopped client asks nothing; an unreachable cluster is an error in time.
    #[test]
    fn stops_and_gives_up() {
        let addresses = resolve_addresses("127.0.0.1:1").unwrap();
        let stop = Stop::never();
        let deadline = Some(Duration::from_millis(20));
        let mut client = PatientClient::new(0, addresses, deadline, stop.clone());
        let failure = client.ask::<u128, Account>(Operation::LookupAccounts, &[1]).unwrap_err();
        assert_eq!(failure.class, ExitClass::Cluster);
        assert!(failure.message.contains("127.0.0.1:1: connection refused"), "{failure}");
        stop.0.store(true, Ordering::Relaxed);
        assert!(client.ask::<u128, Account>(Operation::LookupAccounts, &[1]).unwrap().is_none());
    }

    /// Goal: only the first answer has a limit if none is wanted.
    #[test]
    fn limits() {
        assert_eq!(Patience::new(None, false).limit, Some(FIRST_DEADLINE));
        assert_eq!(Patience::new(None, true).limit, None);
        let deadline = Some(Duration::from_secs(1));
        assert_eq!(Patience::new(deadline, true).limit, deadline);
    }

    /// Goal: a refusal is reported at once, silence only later.
    #[test]
    fn reports() {
        let mut patience = Patience::new(None, true);
        let (waited, request, connection) = (Duration::ZERO, None, None);
        patience.wait_on(&ClientError::Deadline { waited, request, connection }).unwrap();
        assert_eq!(patience.said, None);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 3000));
        patience.wait_on(&ClientError::ClusterMismatch { cluster: 7, address }).unwrap();
        assert!(patience.said.is_some());
    }
}
