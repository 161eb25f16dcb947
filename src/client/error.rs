//! Everything that can go wrong for a client, as values: the process is never aborted.

use super::address::AddressError;
use crate::protocol::{EvictionReason, HeaderError, Operation, Release};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a call of the client failed.
///
/// After some of them it is unknown whether the request was executed:
/// see [`ClientError::is_outcome_unknown`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The list of addresses is not valid, or none of its names has an address.
    Address(AddressError),
    /// A replica closes every connection without an answer: most likely it is of another cluster.
    ClusterMismatch {
        /// The cluster that was asked for.
        cluster: u128,
        /// The address of the replica.
        address: SocketAddr,
    },
    /// The cluster ended the session; this client is of no further use. Among the reasons: the
    /// client's release is too old or too new, or another client took its place.
    Evicted(EvictionReason),
    /// No answer in time. A request that was sent may have been executed, or may be later: see
    /// [`Client::resume`](super::Client::resume).
    Deadline {
        /// Duration of the wait for the answer.
        waited: Duration,
        /// The operation; none if nothing was sent: there was no session yet, or no time left.
        request: Option<Operation>,
        /// A replica that does not answer, and why, as far as is known.
        connection: Option<(String, Trouble)>,
    },
    /// The wait for an answer was interrupted, see [`Options`](super::Options).
    Interrupted {
        /// The operation sent last; none if there was no session yet.
        request: Option<Operation>,
    },
    /// More events than fit one request.
    TooMuchData {
        /// Events given.
        events: u64,
        /// Events that fit.
        limit: u32,
    },
    /// A request is still in flight after its deadline: its outcome must be awaited first.
    Unresolved,
    /// There is no request in flight to wait for.
    NothingToResume,
    /// Too many calls wait to be executed, and this one is not.
    Busy {
        /// Calls that may wait.
        limit: u32,
    },
    /// The client is gone: its thread ended.
    Closed,
    /// The server broke the protocol; this client is of no further use.
    Server(ServerError),
    /// The operating system refused something that the client cannot do without.
    System(io::ErrorKind),
}

/// Why an address sends nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The host's name has no address, or no name service answers.
    Unresolved,
    /// Connecting or exchanging bytes failed.
    Failed(io::ErrorKind),
    /// The attempt to connect is neither accepted nor refused.
    Connecting,
    /// The connection was accepted, and nothing arrived on it.
    Silent,
    /// HTTP arrived.
    Http,
    /// Bytes arrived that are not of the protocol.
    Foreign,
    /// The replica is connected and has sent something, but does not answer the request.
    Unanswered,
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unresolved => formatter.write_str("the name has no address"),
            Trouble::Failed(kind) => write!(formatter, "{kind}"),
            Trouble::Connecting => formatter.write_str(
                "no answer to the attempt to connect: the host is down, or behind a firewall",
            ),
            Trouble::Silent => formatter.write_str(
                "it accepted the connection but sent nothing: it is hung, or not a Florin server",
            ),
            Trouble::Http => formatter.write_str(
                "it speaks HTTP: a web server or a metrics port, not the port for clients",
            ),
            Trouble::Foreign => {
                formatter.write_str("it sent something that is not the protocol of this client")
            }
            Trouble::Unanswered => formatter.write_str(
                "it is connected but does not answer: the cluster may have no quorum; see `florin \
                 status`",
            ),
        }
    }
}

/// How a server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// A header breaks a rule of its command.
    Header(HeaderError),
    /// A reply's release is not that of the request.
    Release(Release),
    /// A reply's number was not requested yet.
    Request(u32),
    /// A reply to the request's number, but to other bytes.
    RequestChecksum,
    /// A reply to another operation.
    Operation(u8),
    /// The limit of request bodies in the answer to a register is unusable.
    BatchSizeLimit(u32),
    /// A result's timestamp is not of the range that was asked for, or not in its order.
    Timestamp(u64),
    /// The body of a reply is not what the operation prescribes.
    Body {
        /// Size of the body in bytes.
        body_size: u32,
    },
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Header(error) => write!(formatter, "invalid header: {error:?}"),
            ServerError::Release(release) => {
                write!(formatter, "a reply of release {release}, which is not the request's")
            }
            ServerError::Request(request) => {
                write!(formatter, "a reply to request {request}, which was not sent yet")
            }
            ServerError::RequestChecksum => {
                formatter.write_str("a reply to a request with this number but other contents")
            }
            ServerError::Operation(operation) => {
                write!(formatter, "a reply to operation {operation}, which was not requested")
            }
            ServerError::BatchSizeLimit(limit) => {
                write!(formatter, "a limit of {limit} bytes for request bodies")
            }
            ServerError::Timestamp(timestamp) => write!(
                formatter,
                "a record at timestamp {timestamp}, which is outside of the range, there twice or \
                 in the wrong order"
            ),
            ServerError::Body { body_size } => {
                write!(formatter, "a reply body of {body_size} bytes that does not decode")
            }
        }
    }
}

/// The advice if it is unknown whether events were executed.
pub const RETRY: &str = "it is safe to retry with the same ids";

/// Returns the meaning of an eviction for the user of the client.
fn explain(reason: EvictionReason) -> &'static str {
    match reason {
        EvictionReason::NoSession => "the session is unknown, more than 64 clients are active",
        EvictionReason::ClientReleaseTooLow => "the client's release is too old for the cluster",
        EvictionReason::ClientReleaseTooHigh => "the client's release is too new for the cluster",
        EvictionReason::InvalidRequestOperation => "the operation is unknown to the cluster",
        EvictionReason::InvalidRequestBody => "a request's body was malformed",
        EvictionReason::InvalidRequestBodySize => "a request was larger than the cluster admits",
        EvictionReason::SessionTooLow => "the client's id was registered again by another client",
        EvictionReason::SessionReleaseMismatch => "the release changed within the session",
    }
}

impl ClientError {
    /// Whether the request may have been executed, or may be later. It is safe to send events with
    /// the same ids again, on a new client if need be: an event that was done answers `exists`. In
    /// a linked chain the first event decides: if it answers `exists`, the chain was done, although
    /// the others answer `linked_event_failed`.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            ClientError::Deadline { request, .. } | ClientError::Interrupted { request } => {
                request.is_some()
            }
            ClientError::Unresolved
            | ClientError::Server(_)
            | ClientError::Closed
            | ClientError::System(_) => true,
            ClientError::Evicted(reason) => {
                matches!(reason, EvictionReason::NoSession | EvictionReason::SessionTooLow)
            }
            ClientError::Address(_)
            | ClientError::ClusterMismatch { .. }
            | ClientError::TooMuchData { .. }
            | ClientError::Busy { .. }
            | ClientError::NothingToResume => false,
        }
    }
}

impl From<AddressError> for ClientError {
    fn from(error: AddressError) -> ClientError {
        ClientError::Address(error)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Address(error) => write!(formatter, "{error}"),
            ClientError::ClusterMismatch { cluster, address } => write!(
                formatter,
                "{address} closes every connection without an answer: it is not of cluster \
                 {cluster}, or something else listens there, or it has no room for more clients"
            ),
            ClientError::Evicted(reason) => {
                let (number, text) = (u8::from(*reason), explain(*reason));
                write!(formatter, "evicted by the cluster: {text} ({reason:?}, reason {number})")
            }
            ClientError::Deadline { waited, request, connection } => {
                write!(formatter, "no answer within {:.1} s", waited.as_secs_f64())?;
                if let Some((address, trouble)) = connection {
                    write!(formatter, "; {address}: {trouble}")?;
                }
                match request {
                    Some(request) if request.is_create() => {
                        write!(formatter, "; the outcome is unknown: {RETRY}")
                    }
                    _ => Ok(()),
                }
            }
            ClientError::Interrupted { .. } => {
                formatter.write_str("interrupted while waiting for the cluster's answer")
            }
            ClientError::TooMuchData { events, limit } => {
                write!(formatter, "{events} events, at most {limit} fit one request")
            }
            ClientError::Unresolved => {
                formatter.write_str("the previous request has not been answered yet")
            }
            ClientError::Busy { limit } => {
                write!(formatter, "{limit} calls wait already: await some of them first")
            }
            ClientError::Closed => formatter.write_str("the client's thread has ended"),
            ClientError::NothingToResume => formatter.write_str("no request is in flight"),
            ClientError::Server(error) => write!(formatter, "the server sent {error}"),
            ClientError::System(kind) => write!(formatter, "the operating system refused: {kind}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        ClientError::System(error.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the texts name the facts: the reason, the address, the limit.
    #[test]
    fn texts() {
        let text = ClientError::Evicted(EvictionReason::SessionTooLow).to_string();
        assert!(text.contains("SessionTooLow") && text.contains("reason 7"), "{text}");
        let address: SocketAddr = "127.0.0.1:3000".parse().unwrap();
        let late = |request| ClientError::Deadline {
            waited: Duration::from_millis(1500),
            request,
            connection: Some((
                address.to_string(),
                Trouble::Failed(io::ErrorKind::ConnectionRefused),
            )),
        };
        let text = "no answer within 1.5 s; 127.0.0.1:3000: connection refused";
        assert_eq!(late(None).to_string(), text);
        assert_eq!(late(Some(Operation::LookupAccounts)).to_string(), text);
        assert_eq!(
            late(Some(Operation::CreateTransfers)).to_string(),
            format!("{text}; the outcome is unknown: it is safe to retry with the same ids")
        );
        let text = ClientError::TooMuchData { events: 8190, limit: 8189 }.to_string();
        assert_eq!(text, "8190 events, at most 8189 fit one request");
        let text = ClientError::ClusterMismatch { cluster: 7, address }.to_string();
        assert!(text.contains("127.0.0.1:3000") && text.contains("cluster 7"), "{text}");
        assert_eq!(ClientError::from(AddressError::Empty).to_string(), "an address is missing");
    }

    /// Goal: whoever must know whether to send again is told.
    #[test]
    fn outcomes() {
        let deadline =
            |request| ClientError::Deadline { waited: Duration::ZERO, request, connection: None };
        assert!(deadline(Some(Operation::CreateAccounts)).is_outcome_unknown());
        assert!(!deadline(None).is_outcome_unknown(), "nothing was sent");
        assert!(ClientError::Evicted(EvictionReason::NoSession).is_outcome_unknown());
        assert!(!ClientError::Evicted(EvictionReason::ClientReleaseTooLow).is_outcome_unknown());
        assert!(!ClientError::TooMuchData { events: 2, limit: 1 }.is_outcome_unknown());
    }
}
