//! Every metric that there is: name, kind, unit, label and help, once for all who need them.
//!
//! Names follow Prometheus: a prefix, the thing, the unit; counters end in `_total`. Not covered:
//! values.

use crate::protocol::EvictionReason;
use crate::protocol::NODES_MAX;
use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::storage::DiskKind;
use crate::storage::config::RUN_LEVELS_MAX;
use crate::vsr::{EVICTION_REASONS, Stage, Standing, Unready};

/// Prefix of each name.
pub const PREFIX: &str = "florin_";
/// Upper bounds of the buckets of histograms, in nanoseconds: 10 µs to 10 s.
pub const BUCKET_BOUNDS_NS: [u64; 19] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// Values of a histogram: its buckets, one for what is larger, and the sum in nanoseconds.
pub const HISTOGRAM_VALUES: usize = BUCKET_BOUNDS_NS.len() + 2;

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero when the process starts unless the help says otherwise.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts durations by size.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Kept in nanoseconds, shown in seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Ops of the log.
    Ops,
    /// Things named by the metric.
    Count,
    /// 1 for yes, 0 for no.
    Flag,
}

impl Unit {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Ops => "ops",
            Unit::Count => "count",
            Unit::Flag => "0 or 1",
        }
    }
}

/// The label that distinguishes the values of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// There is one value.
    None,
    /// Index of another replica.
    Replica,
    /// Stage of the work.
    Stage,
    /// The kind of a request of the disk.
    Request,
    /// The standing of a replica.
    Standing,
    /// The status of a creation of an account.
    AccountStatus,
    /// The status of a creation of a transfer.
    TransferStatus,
    /// Level of runs of an index.
    Level,
    /// Why a replica is not ready.
    Unready,
    /// Why a client was evicted.
    Eviction,
}

impl Label {
    /// The label's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Label::None => "",
            Label::Replica => "replica",
            Label::Stage => "stage",
            Label::Request => "request",
            Label::Standing => "standing",
            Label::AccountStatus | Label::TransferStatus => "status",
            Label::Level => "level",
            Label::Unready | Label::Eviction => "reason",
        }
    }

    /// Values of a metric with this label.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Label::None => 1,
            Label::Replica => NODES_MAX as usize,
            Label::Stage => Stage::ALL.len(),
            Label::Request => DiskKind::ALL.len(),
            Label::Standing => Standing::ALL.len(),
            Label::AccountStatus => crate::ledger::ACCOUNT_STATUSES,
            Label::TransferStatus => crate::ledger::TRANSFER_STATUSES,
            Label::Level => RUN_LEVELS_MAX,
            Label::Unready => Unready::ALL.len(),
            Label::Eviction => EVICTION_REASONS,
        }
    }

    /// The label of a value; empty if there is no such value.
    ///
    /// # Panics
    ///
    /// If the place is none of this label's.
    #[must_use]
    pub fn value(self, place: usize) -> LabelValue {
        assert!(place < self.count());
        let number = u32::try_from(place).expect("labels are few");
        // The status of what was created has the place of zero, which is none.
        let status = if place == 0 { u32::MAX } else { number };
        match self {
            Label::None => LabelValue::None,
            Label::Replica | Label::Level => LabelValue::Number(number),
            Label::Stage => LabelValue::Word(Stage::ALL[place].name()),
            Label::Request => LabelValue::Word(DiskKind::ALL[place].name()),
            Label::Standing => LabelValue::Word(Standing::ALL[place].name()),
            Label::Unready => LabelValue::Word(Unready::ALL[place].name()),
            Label::Eviction => LabelValue::Word(EvictionReason::ALL[place].name()),
            Label::AccountStatus => CreateAccountStatus::try_from(status)
                .map_or(LabelValue::None, |status| LabelValue::Word(status.name())),
            Label::TransferStatus => CreateTransferStatus::try_from(status)
                .map_or(LabelValue::None, |status| LabelValue::Word(status.name())),
        }
    }

    /// Whether values that are zero are left out, since most always are.
    #[must_use]
    pub const fn is_sparse(self) -> bool {
        matches!(self, Label::AccountStatus | Label::TransferStatus)
    }
}

/// The value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelValue {
    /// There is none.
    None,
    /// A word.
    Word(&'static str),
    /// A number.
    Number(u32),
}

impl std::fmt::Display for LabelValue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LabelValue::None => Ok(()),
            LabelValue::Word(word) => formatter.write_str(word),
            LabelValue::Number(number) => write!(formatter, "{number}"),
        }
    }
}

/// The definition of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Without the prefix.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// The label of its values.
    pub label: Label,
    /// For people: what it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($metric:ident, $name:literal, $kind:ident, $unit:ident, $label:ident, $help:literal;)+) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Metric {
            $(#[doc = $help] $metric,)+
        }

        /// Their definitions, in the same order.
        pub static DEFINITIONS: [Definition; Metric::ALL.len()] = [
            $(Definition {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                label: Label::$label,
                help: $help,
            },)+
        ];

        impl Metric {
            /// All of them.
            pub const ALL: &'static [Metric] = &[$(Metric::$metric,)+];
        }
    };
}

metrics! {
    Standing, "standing", Gauge, Flag, Standing,
        "Standing of the replica: 1 for the one that it has, 0 for all others.";
    Ready, "ready", Gauge, Flag, None,
        "Whether the replica serves: 1 when /readyz is 200.";
    Unready, "unready", Gauge, Flag, Unready,
        "Why the replica is not ready: 1 for the reason that holds, 0 for all others.";
    StillFor, "still_seconds", Gauge, Seconds, None,
        "Seconds for which work has waited without progress; 0 while there is none.";
    View, "view", Gauge, Count, None, "Number of the view.";
    PrimaryIndex, "primary_index", Gauge, Count, None, "Index of the primary of the view.";
    Op, "op", Gauge, Ops, None, "Newest op of the log here.";
    Commit, "commit_op", Gauge, Ops, None, "Newest op executed here.";
    CommitMax, "commit_max_op", Gauge, Ops, None,
        "Newest op known to be committed; executed soon, unless the replica is behind.";
    CheckpointOp, "checkpoint_op", Gauge, Ops, None, "Op of the durable checkpoint here.";
    Syncing, "syncing", Gauge, Flag, None,
        "Whether blocks of an installed checkpoint may be missing here.";
    TooFarBehind, "too_far_behind", Gauge, Flag, None,
        "Whether the logs of the others do not reach back to what must be executed here next.";
    ReplicaOp, "replica_op", Gauge, Ops, Replica,
        "Newest op that another replica has reported in its log.";
    ReplicaLag, "replica_lag_ops", Gauge, Ops, Replica,
        "Ops by which the log of another replica is known to be behind the log here.";
    ReplicaCheckpoint, "replica_checkpoint_op", Gauge, Ops, Replica,
        "Op of the durable checkpoint of another replica.";
    ReplicaSilence, "replica_silence_seconds", Gauge, Seconds, Replica,
        "Seconds since another replica was heard.";
    ReplicaUnanswered, "replica_unanswered_seconds", Gauge, Seconds, Replica,
        "Age of the newest ping that another replica has answered, in seconds: how long nothing \
         that is sent from here may have arrived there.";
    ReplicaTwins, "replica_twins", Gauge, Flag, Replica,
        "Whether two processes that serve the same replica are heard here.";
    ReplicaInbound, "replica_connections_inbound", Gauge, Count, None,
        "Connections that other replicas have opened to this one.";
    ReplicaConnected, "replica_connected", Gauge, Flag, Replica,
        "Whether messages to another replica go out now.";
    ClockOffset, "clock_offset_seconds", Gauge, Seconds, None,
        "Seconds by which the clock here is ahead of what a majority of the cluster agrees on. \
         Missing in a cluster of one, and while there is no agreement.";
    ClockError, "clock_error_seconds", Gauge, Seconds, None,
        "Seconds by which that agreement may be wrong, to either side.";
    StageSeconds, "stage_seconds", Histogram, Seconds, Stage,
        "Seconds that stages of the work take. Of a request on the primary: queue (until it is \
         in a prepare), commit (from there until a quorum has it durably), request (all of it \
         until the reply is handed to the network), reply (until the kernel has taken the \
         reply). Of an op on any replica: log (its write), execute. Also checkpoint, and \
         view_change (from leaving a view to the next).";
    DiskSeconds, "disk_seconds", Histogram, Seconds, Request,
        "Seconds that requests of the disk take, from being handed to the kernel until the \
         serving thread takes the answer: read, write, durable_write (of the log and the \
         superblock), sync.";
    DiskLongest, "disk_longest_seconds", Gauge, Seconds, Request,
        "Seconds that the slowest of them took since the start; work that waited for it took as \
         long.";
    LoopTurns, "loop_turns_total", Counter, Count, None, "Turns of the serving thread's loop.";
    LoopBusy, "loop_busy_seconds_total", Counter, Seconds, None,
        "Seconds that the serving thread worked instead of waiting; at a rate near 1 it is the \
         limit.";
    LoopAge, "loop_age_seconds", Gauge, Seconds, None,
        "Seconds since the serving thread's loop turned; it turns every 0.01 at least.";
    AccountResults, "account_results_total", Counter, Count, AccountStatus,
        "Results of creating accounts, by status; ops executed again after a restart count \
         again. Statuses that did not occur are left out.";
    TransferResults, "transfer_results_total", Counter, Count, TransferStatus,
        "Results of creating transfers, by status; ops executed again after a restart count \
         again. Statuses that did not occur are left out.";
    Events, "events", Gauge, Count, None,
        "Events in the log: transfers, expiries, and ids orphaned by failures.";
    Accounts, "accounts", Gauge, Count, None, "Accounts.";
    Sessions, "sessions", Gauge, Count, None, "Sessions of clients.";
    SessionsMax, "sessions_max", Gauge, Count, None,
        "Maximum number of sessions; one more takes the place of the least recently active.";
    SessionsDisplaced, "sessions_displaced_total", Counter, Count, None,
        "Sessions that made way for new ones, as seen by this primary.";
    Evictions, "evictions_total", Counter, Count, Eviction,
        "Clients that were notified that their session is over, by reason.";
    RequestsInFlight, "requests_in_flight", Gauge, Count, None,
        "Requests accepted here and not answered yet.";
    RequestsWaiting, "requests_waiting", Gauge, Count, None,
        "Requests accepted here and in no prepare yet.";
    RequestsHeld, "requests_held", Gauge, Count, None,
        "Requests kept here to be handed to the primary if need be.";
    PreparesInFlight, "prepares_in_flight", Gauge, Count, None,
        "Prepares of this primary that are not executed yet.";
    PreparesRequested, "repair_prepares_requested", Gauge, Count, None,
        "Prepares that repair of the log has requested from peers.";
    BlocksRequested, "repair_blocks_requested", Gauge, Count, None,
        "Blocks that repair of the grid has requested from peers.";
    BlocksMissing, "repair_blocks_missing", Gauge, Flag, None,
        "Whether blocks that are needed here are being fetched from peers.";
    BlocksRepaired, "repair_blocks_total", Counter, Count, None, "Blocks fetched from peers.";
    LogRepairs, "repair_log_total", Counter, Count, None,
        "Copies of the superblock, and slots and sectors of the log, that were damaged.";
    ScrubCycles, "scrub_cycles_total", Counter, Count, None,
        "Times that the scrub has read everything.";
    ScrubBlocks, "scrub_blocks", Gauge, Count, None,
        "Blocks that the scrub, or the fetching of a checkpoint, has read in its present round.";
    BlocksUsed, "grid_blocks_used", Gauge, Count, None, "Blocks of the grid in use.";
    AccountLookups, "account_cache_lookups_total", Counter, Count, None,
        "Accounts that transfers named.";
    AccountMisses, "account_cache_misses_total", Counter, Count, None,
        "Those of them that were not in the cache of accounts.";
    AccountsCached, "account_cache_entries", Gauge, Count, None, "Accounts in the cache.";
    AccountsCachedMax, "account_cache_entries_max", Gauge, Count, None,
        "Accounts that fit the cache; see --cache-accounts.";
    PageHits, "page_cache_hits_total", Counter, Count, None,
        "Pages of the grid that were wanted and in memory.";
    PageMisses, "page_cache_misses_total", Counter, Count, None,
        "Pages of the grid read from the disk; see --cache-grid.";
    BlockReads, "grid_block_reads_total", Counter, Count, None, "Whole blocks read.";
    BlockWrites, "grid_block_writes_total", Counter, Count, None, "Blocks written.";
    GridRetries, "grid_retries_total", Counter, Count, None,
        "Reads and writes of the grid that failed and were tried again.";
    GridReadBytes, "grid_read_bytes_total", Counter, Bytes, None, "Bytes read from the grid.";
    GridWrittenBytes, "grid_written_bytes_total", Counter, Bytes, None,
        "Bytes written to the grid.";
    GridWritesQueued, "grid_writes_queued", Gauge, Count, None, "Blocks that wait to be written.";
    EventRuns, "event_index_runs", Gauge, Count, Level, "Runs of each index of events, by level.";
    AccountRuns, "account_index_runs", Gauge, Count, Level,
        "Runs of each index of accounts, by level.";
    Flushes, "index_flushes_total", Counter, Count, None,
        "Memtables that were full, in the life of the data file.";
    Merges, "index_merges_total", Counter, Count, None, "Merges of runs that are done.";
    IndexWork, "index_work", Gauge, Count, None, "Flushes and merges under way.";
    StorageLimit, "storage_limit_bytes", Gauge, Bytes, None,
        "Size that the grid may have; see --limit-storage.";
    StorageUsable, "storage_usable_bytes", Gauge, Bytes, None,
        "Use of the grid beyond which requests that create are not answered: the limit less what \
         merges and checkpoints need.";
    StorageUsed, "storage_used_bytes", Gauge, Bytes, None, "Blocks of the grid in use, in bytes.";
    FileSystemFree, "file_system_free_bytes", Gauge, Bytes, None,
        "Bytes free on the file system of the data file.";
    FileBytes, "data_file_bytes", Gauge, Bytes, None, "Length of the data file.";
    MemoryReserved, "memory_reserved_bytes", Gauge, Bytes, None,
        "Memory reserved at the start; never grows.";
    MemoryResident, "memory_resident_bytes", Gauge, Bytes, None,
        "Memory that the process holds of the machine's.";
    CpuSeconds, "cpu_seconds_total", Counter, Seconds, None,
        "Processor time that the process has used.";
    MessagesFree, "messages_free", Gauge, Count, None,
        "Message buffers that are free; near 0 clients have to wait.";
    MessagesMax, "messages_max", Gauge, Count, None, "Message buffers in all.";
    DiskInFlight, "disk_requests_in_flight", Gauge, Count, None, "Disk requests in flight.";
    JobsInFlight, "jobs_in_flight", Gauge, Count, None, "Jobs of the helper thread in flight.";
    Connections, "connections", Gauge, Count, None,
        "Connections that clients and other replicas have opened.";
    ConnectionsMax, "connections_max", Gauge, Count, None,
        "Places for such connections.";
    ClientsMax, "connections_clients_max", Gauge, Count, None,
        "Places for connections of clients; one more is closed at once.";
    Accepted, "connections_accepted_total", Counter, Count, None, "Connections accepted.";
    Refused, "connections_refused_total", Counter, Count, None,
        "Connections closed because all places for clients, or all places, were taken.";
    Broken, "connections_broken_total", Counter, Count, None,
        "Connections closed because of what they sent: damaged bytes, or another cluster's.";
    Stalled, "connections_stalled_total", Counter, Count, None,
        "Connections closed because they made no progress, or did not take their replies.";
    Received, "messages_received_total", Counter, Count, None, "Messages received.";
    Sent, "messages_sent_total", Counter, Count, None, "Messages sent to clients.";
    SendsQueued, "sends_queued", Gauge, Count, None, "Messages not yet taken by clients.";
    PeerConnected, "peer_connections_made_total", Counter, Count, None,
        "Connections made to other replicas.";
    PeerRefused, "peer_connections_refused_total", Counter, Count, None,
        "Attempts to connect to other replicas that failed.";
    PeerLost, "peer_connections_lost_total", Counter, Count, None,
        "Connections to other replicas that broke.";
    PeerDropped, "peer_messages_dropped_total", Counter, Count, None,
        "Messages to other replicas dropped, for want of a connection or of room; they are \
         repeated if need be.";
    PeerSent, "peer_messages_sent_total", Counter, Count, None,
        "Messages sent to other replicas.";
    MetricsRequests, "metrics_requests_total", Counter, Count, None,
        "Requests for metrics and health answered.";
    MetricsRefused, "metrics_refused_total", Counter, Count, None,
        "Connections to the metrics address closed for being slow, wrong or too many.";
}

impl Metric {
    /// Its place among all.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its definition.
    #[must_use]
    pub fn definition(self) -> &'static Definition {
        &DEFINITIONS[self.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names are unique and of the form that Prometheus wants, units are in the names, and
    /// every help is a sentence.
    #[test]
    fn definitions() {
        for (index, metric) in Metric::ALL.iter().enumerate() {
            assert_eq!(metric.index(), index);
            let Definition { name, kind, unit, help, .. } = metric.definition();
            let word = |text: &str| text.chars().all(|it| it.is_ascii_lowercase() || it == '_');
            assert!(word(name), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            assert!(*unit != Unit::Seconds || base.ends_with("_seconds"), "{name}");
            assert!(*unit != Unit::Bytes || base.ends_with("_bytes"), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\']), "{help}");
            let same = DEFINITIONS.iter().filter(|other| other.name == *name);
            assert_eq!(same.count(), 1, "{name}");
        }
        assert!(BUCKET_BOUNDS_NS.is_sorted());
    }

    /// Goal: every place of a label has a value of its own, but for the statuses that are none.
    #[test]
    fn labels() {
        let (account, transfer) = (Label::AccountStatus, Label::TransferStatus);
        let others = [Label::Stage, Label::Request, Label::Standing, Label::Unready];
        for label in others.into_iter().chain([Label::Eviction, account, transfer]) {
            let values: Vec<String> =
                (0..label.count()).map(|place| label.value(place).to_string()).collect();
            let mut unique: Vec<&String> = values.iter().filter(|it| !it.is_empty()).collect();
            let missing = usize::from(label == Label::TransferStatus);
            assert_eq!(unique.len(), label.count() - missing);
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), label.count() - missing);
        }
        assert_eq!(Label::TransferStatus.value(0), LabelValue::Word("created"));
        assert_eq!(Label::Replica.value(11), LabelValue::Number(11));
    }
}
