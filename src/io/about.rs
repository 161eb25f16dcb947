//! What a server says about itself to others who ask, and what it checks of replicas that connect.
//!
//! Questions for the status are answered by the loop, not by the core: they change nothing, and
//! cost a frame of 768 bytes. Not covered: who may ask; as for everything else, who knows the
//! cluster's id.

use std::fmt;

use zerocopy::IntoBytes;

use super::twins::{Twins, address_bytes};
use crate::protocol::about::{
    Hello, SILENCE_NEVER, STATUS_EDITION, STATUS_SIZE, StatusBody, StatusPeer,
};
use crate::protocol::{Buffer, Command, Message, Release};
use crate::storage::StorageUse;
use crate::vsr::Report;

/// What the server knows about itself and others beside the replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// The number that it drew when it started.
    pub instance: u64,
    /// Two processes of one index that it hears.
    pub twins: Option<Twins>,
}

/// The answer to a question for the status.
///
/// # Panics
///
/// If the buffer is too small.
#[must_use]
pub fn status_message(
    buffer: Buffer,
    cluster: u128,
    report: &Report,
    storage: Option<StorageUse>,
    process: &ProcessFacts,
) -> Message {
    let mut body = StatusBody::new();
    body.op = report.op;
    body.commit = report.commit;
    body.commit_max = report.commit_max;
    body.checkpoint_op = report.checkpoint_op;
    if let Some(clock) = report.clock {
        body.clock_offset_ns = clock.offset_ns;
        body.clock_error_ns = clock.error_ns;
        body.clock_known = 1;
    }
    body.sessions = report.sessions;
    if let Some(storage) = storage {
        body.storage_used = storage.used_bytes;
        body.storage_usable = storage.usable_bytes;
    }
    body.view = report.view;
    body.log_view = report.log_view;
    body.standing = report.standing as u8;
    body.primary = report.primary;
    body.replica_count = report.replica_count;
    body.standby_count = report.standby_count;
    body.syncing = report.syncing.into();
    body.too_far_behind = report.too_far_behind.into();
    body.set_version(env!("CARGO_PKG_VERSION"));
    for (place, peer) in body.peers.iter_mut().zip(&report.peers) {
        let silence_ns = peer.silence_ns.unwrap_or(SILENCE_NEVER);
        *place = StatusPeer { silence_ns, op: peer.op };
    }
    set_edition_1(&mut body, report, process);
    let mut message = Message::new(buffer, Command::Status);
    message.set_body_size(STATUS_SIZE);
    message.body_mut().copy_from_slice(body.as_bytes());
    let frame = &mut message.header_mut().frame;
    frame.cluster = cluster;
    frame.release = Release::SERVER;
    frame.replica = report.replica;
    message.set_checksums();
    message
}

/// Sets what the first edition of the answer did not have.
fn set_edition_1(body: &mut StatusBody, report: &Report, process: &ProcessFacts) {
    body.edition = STATUS_EDITION;
    body.instance = process.instance;
    body.still_ns = report.still_ns;
    for (place, peer) in body.unanswered_ns.iter_mut().zip(&report.peers) {
        *place = peer.unanswered_ns.unwrap_or(SILENCE_NEVER);
    }
    if let Some(twins) = &process.twins {
        body.twins = twins.replica + 1;
        body.twin_addresses = twins.addresses.map(address_bytes);
    }
    body.unready = report.unready().map_or(0, |reason| reason as u8);
    body.recovering = report.recovering.into();
}

/// A replica that connects was set up otherwise than this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupMismatch {
    /// It expects another replica at our address.
    Index {
        /// Who it is.
        replica: u8,
        /// Whom it expects.
        expected: u8,
        /// Who we are.
        own: u8,
    },
    /// Its index is ours.
    Twin {
        /// Whom it expects.
        expected: u8,
        /// The index of both.
        own: u8,
    },
    /// Its file is of a cluster of another size.
    Count {
        /// Who it is.
        replica: u8,
        /// Replicas of its cluster.
        count: u8,
        /// Replicas of ours.
        own: u8,
    },
    /// Its file is of another geometry: of development, where ours is of production, or the
    /// reverse.
    Geometry {
        /// Who it is.
        replica: u8,
        /// Largest message of its file, in bytes.
        message_size_max: u32,
        /// Largest message of ours, in bytes.
        own: u32,
    },
    /// Its list is of another length.
    Nodes {
        /// Who it is.
        replica: u8,
        /// Addresses in its list.
        nodes: u8,
        /// Addresses in ours.
        own: u8,
    },
}

impl fmt::Display for SetupMismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupMismatch::Index { replica, expected, own } => write!(
                formatter,
                "replica {replica} expects replica {expected} here, and this is replica {own}: \
                 --addresses must be the same list in the same order everywhere"
            ),
            SetupMismatch::Twin { expected, own } => write!(
                formatter,
                "it is replica {own}, as this one, and expects replica {expected} here: the \
                 address of replica {expected} in --addresses leads here, or a copy of this data \
                 file is being served"
            ),
            SetupMismatch::Count { replica, count, own } => write!(
                formatter,
                "the data file of replica {replica} is of a cluster of {count} replicas, and this \
                 one is of a cluster of {own}: format them with the same --replica-count"
            ),
            SetupMismatch::Geometry { replica, message_size_max, own } => write!(
                formatter,
                "the data file of replica {replica} is for messages of up to {message_size_max} \
                 bytes, and this one for {own}: one was made with --development and the other \
                 without; make the file of the one that is wrong anew with `florin recover`"
            ),
            SetupMismatch::Nodes { replica, nodes, own } => write!(
                formatter,
                "replica {replica} was started with {nodes} addresses, and this one with {own}: \
                 --addresses must be the same list everywhere"
            ),
        }
    }
}

/// Whether a replica that connects was set up as `own`, what we would say ourselves.
///
/// # Errors
///
/// What differs.
pub fn check_hello(hello: &Hello, own: &Hello) -> Result<(), SetupMismatch> {
    let replica = hello.replica;
    if hello.replica_count != own.replica_count {
        let (count, own) = (hello.replica_count, own.replica_count);
        return Err(SetupMismatch::Count { replica, count, own });
    }
    let sizes = (hello.message_size_max, own.message_size_max);
    // A release before 0.2 does not tell.
    if sizes.0 != sizes.1 && sizes.0 != 0 {
        let (message_size_max, own) = sizes;
        return Err(SetupMismatch::Geometry { replica, message_size_max, own });
    }
    if replica == own.replica {
        return Err(SetupMismatch::Twin { expected: hello.expected, own: replica });
    }
    if hello.expected != own.replica {
        let (expected, own) = (hello.expected, own.replica);
        return Err(SetupMismatch::Index { replica, expected, own });
    }
    if hello.nodes != own.nodes {
        return Err(SetupMismatch::Nodes { replica, nodes: hello.nodes, own: own.nodes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each difference is told with both values, and none where there is none.
    #[test]
    fn mismatches() {
        let (expected, nodes, instance, listen) = (1, 3, 5, [0; 18]);
        let (replica_count, message_size_max) = (3, 1 << 20);
        let own = Hello {
            cluster: 7,
            replica: 0,
            expected,
            replica_count,
            nodes,
            message_size_max,
            instance,
            listen,
        };
        let other = Hello { replica: 1, expected: 0, ..own };
        assert_eq!(check_hello(&other, &own), Ok(()));
        let told = |hello: Hello| check_hello(&hello, &own).unwrap_err().to_string();
        let text = told(Hello { expected: 2, ..other });
        assert!(text.starts_with("replica 1 expects replica 2 here, and this is replica 0"));
        assert!(
            told(Hello { replica: 0, expected: 1, ..own })
                .starts_with("it is replica 0, as this one")
        );
        assert!(told(Hello { replica_count: 5, ..other }).contains("of 5 replicas, and this one"));
        let text = told(Hello { message_size_max: 131_072, ..other });
        assert!(text.contains("up to 131072 bytes, and this one for 1048576: one was"), "{text}");
        assert_eq!(check_hello(&Hello { message_size_max: 0, ..other }, &own), Ok(()));
        let text = told(Hello { nodes: 4, ..other });
        assert!(text.contains("with 4 addresses, and this one with 3"), "{text}");
    }
}
