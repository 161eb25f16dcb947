//! Consensus and the write-ahead log: replica, journal, superblock, sessions, views, repair.
//!
//! Viewstamped Replication for clusters of one to six replicas and standbys. [`Replica`] decides;
//! each component is its own file with its own tests, each protocol a file of its name. Not
//! covered: sockets, files and time, which the worlds bring.

pub mod ahead;
pub mod block_repair;
pub mod checkpoint;
pub mod client_requests;
pub mod clock;
pub mod commit;
pub mod do_view_change;
pub mod endings;
pub mod fatal;
pub mod format;
pub mod held;
pub mod inspect;
pub mod journal;
pub mod journal_decision;
pub mod journal_geometry;
pub mod journal_recovery;
pub mod laps;
pub mod ledger_machine;
pub mod log_chain;
pub mod machine;
pub mod marzullo;
pub mod missing_op;
pub mod opening;
pub mod peers;
pub mod prepare;
pub mod quorum;
pub mod readiness;
pub mod recent;
pub mod recover;
pub mod repair;
pub mod replica;
pub mod replication;
pub mod report;
pub mod requests;
pub mod scrub;
pub mod sessions;
pub mod superblock;
pub mod superblock_zone;
pub mod sync;
pub mod timers;
pub mod upgrade;
pub mod view_change;
pub mod votes;

#[cfg(test)]
mod journal_recovery_tests;
#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod replica_tests;
#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
mod test_cluster;
#[cfg(test)]
pub(crate) mod test_log;
#[cfg(test)]
mod test_machine;
#[cfg(test)]
mod test_script;
#[cfg(test)]
mod test_world;

pub use clock::Now;
pub use endings::{EVICTION_REASONS, Ending};
pub use fatal::Fatal;
pub use format::{FormatStep, format};
pub use laps::{Lap, Stage};
pub use machine::{CheckpointRoot, StateMachine};
pub use opening::Opening;
pub use readiness::Unready;
pub use replica::{
    ClusterState, Replica, ReplicaOptions, Role, Status, journal_memory_bytes, messages_needed,
};
pub use report::{PeerReport, Report, Standing};
pub use superblock::{Genesis, Superblock, SuperblockError};

use crate::protocol::Message;
use crate::storage::{Queue, StorageOutbox};

/// A connection of the bus: an index that is used again, and how often it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Place in the bus's table of connections.
    pub index: u32,
    /// Distinguishes the connections that had this place; what is sent to an old one is dropped.
    pub generation: u32,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// To a client, or whoever is at this connection.
    Connection(ConnectionId),
    /// To this replica of the cluster: an index of the list of addresses, standbys last.
    Replica(u8),
}

/// What a replica wants from the world: to be drained after every input.
#[derive(Debug)]
pub struct Outbox {
    /// Disk requests and jobs.
    pub storage: StorageOutbox,
    /// Messages to clients and other replicas.
    pub sends: Queue<(Destination, Message)>,
    /// Connections to close.
    pub closes: Queue<ConnectionId>,
}

impl Outbox {
    /// An empty outbox for so many disk requests, jobs, and messages as well as connections.
    ///
    /// # Panics
    ///
    /// If a limit is zero.
    #[must_use]
    pub fn new(disk_max: usize, jobs_max: usize, sends_max: usize) -> Outbox {
        Outbox {
            storage: StorageOutbox::new(disk_max, jobs_max),
            sends: Queue::new(sends_max),
            closes: Queue::new(sends_max),
        }
    }
}
