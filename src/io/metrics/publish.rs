//! Translates the reports of the components to metrics.

use super::Metrics;
use super::catalogue::{Label, Metric};
use crate::io::bus::Bus;
use crate::ledger::Ledger;
use crate::storage::{StorageUse, StoreReport, TableReport};
use crate::vsr::Report;

/// A state machine that has metrics of its own.
pub trait Publish {
    /// Publishes them.
    fn publish(&self, metrics: &Metrics);
}

impl Publish for Ledger {
    fn publish(&self, metrics: &Metrics) {
        let counters = self.counters();
        for (place, count) in counters.accounts.iter().enumerate() {
            metrics.set_at(Metric::AccountResults, place, *count);
        }
        for (place, count) in counters.transfers.iter().enumerate() {
            metrics.set_at(Metric::TransferResults, place, *count);
        }
        let (cached, cached_max) = self.cached_accounts();
        metrics.set(Metric::AccountLookups, counters.account_lookups);
        metrics.set(Metric::AccountMisses, counters.account_misses);
        metrics.set(Metric::AccountsCached, cached.into());
        metrics.set(Metric::AccountsCachedMax, cached_max.into());
        publish_store(&self.store.report(), self.store.blocks_used(), metrics);
    }
}

fn publish_store(report: &StoreReport, blocks_used: u64, metrics: &Metrics) {
    let grid = &report.grid;
    for (metric, value) in [
        (Metric::Events, report.events),
        (Metric::Accounts, report.accounts),
        (Metric::PageHits, grid.page_hits),
        (Metric::PageMisses, grid.page_reads),
        (Metric::BlockReads, grid.block_reads),
        (Metric::BlockWrites, grid.block_writes),
        (Metric::GridRetries, grid.retries),
        (Metric::GridReadBytes, grid.bytes_read),
        (Metric::GridWrittenBytes, grid.bytes_written),
        (Metric::BlocksRepaired, grid.blocks_repaired),
        (Metric::BlocksMissing, report.blocks_missing.into()),
        (Metric::GridWritesQueued, report.writes_queued),
        (Metric::ScrubBlocks, report.walk_visited),
        (Metric::BlocksUsed, blocks_used),
    ] {
        metrics.set(metric, value);
    }
    let tables = [&report.event_table, &report.account_table];
    let sum = |field: fn(&TableReport) -> u64| tables.iter().map(|table| field(table)).sum();
    metrics.set(Metric::Flushes, sum(|table| table.flushes));
    metrics.set(Metric::Merges, sum(|table| table.merges));
    metrics.set(Metric::IndexWork, sum(|table| table.work));
    for (metric, table) in [Metric::EventRuns, Metric::AccountRuns].into_iter().zip(tables) {
        for (level, runs) in table.runs.iter().enumerate() {
            metrics.set_at(metric, level, *runs);
        }
    }
}

/// Publishes the state of the replica.
pub fn publish_replica(report: &Report, metrics: &Metrics) {
    for (place, count) in report.evicted.iter().enumerate() {
        metrics.set_at(Metric::Evictions, place, *count);
    }
    for (metric, value) in [
        (Metric::StillFor, report.still_ns),
        (Metric::SessionsDisplaced, report.displaced),
        (Metric::View, report.view.into()),
        (Metric::PrimaryIndex, report.primary.into()),
        (Metric::Op, report.op),
        (Metric::Commit, report.commit),
        (Metric::CommitMax, report.commit_max),
        (Metric::CheckpointOp, report.checkpoint_op),
        (Metric::Syncing, report.syncing.into()),
        (Metric::TooFarBehind, report.too_far_behind.into()),
        (Metric::Sessions, report.sessions),
        (Metric::SessionsMax, report.sessions_max),
        (Metric::RequestsInFlight, report.requests_in_flight),
        (Metric::RequestsWaiting, report.requests_waiting),
        (Metric::RequestsHeld, report.requests_held),
        (Metric::PreparesInFlight, report.prepares_in_flight),
        (Metric::PreparesRequested, report.prepares_requested),
        (Metric::BlocksRequested, report.blocks_requested),
        (Metric::ScrubCycles, report.scrubs),
        (Metric::LogRepairs, report.repairs),
    ] {
        metrics.set(metric, value);
    }
    if let Some(clock) = report.clock {
        metrics.set_signed(Metric::ClockOffset, clock.offset_ns);
        metrics.set(Metric::ClockError, clock.error_ns);
    } else {
        metrics.forget(Metric::ClockOffset, 0);
        metrics.forget(Metric::ClockError, 0);
    }
    publish_peers(report, metrics);
    // Last, so that the numbers which explain a reason are there before it.
    metrics.set_state(report.standing, report.unready());
}

fn publish_peers(report: &Report, metrics: &Metrics) {
    let nodes = usize::from(report.replica_count + report.standby_count);
    for (place, peer) in report.peers.iter().enumerate().take(nodes) {
        if let Some(unanswered_ns) = peer.unanswered_ns {
            metrics.set_at(Metric::ReplicaUnanswered, place, unanswered_ns);
        }
        let Some(silence_ns) = peer.silence_ns else { continue };
        metrics.set_at(Metric::ReplicaSilence, place, silence_ns);
        metrics.set_at(Metric::ReplicaOp, place, peer.op);
        metrics.set_at(Metric::ReplicaLag, place, report.op.saturating_sub(peer.op));
        metrics.set_at(Metric::ReplicaCheckpoint, place, peer.checkpoint_op);
    }
}

/// Publishes how much of the storage limit is used.
pub fn publish_storage(used: &StorageUse, metrics: &Metrics) {
    metrics.set(Metric::StorageLimit, used.limit_bytes);
    metrics.set(Metric::StorageUsable, used.usable_bytes);
    metrics.set(Metric::StorageUsed, used.used_bytes);
}

/// Publishes connections and messages.
///
/// # Panics
///
/// Never: there are few connections.
pub fn publish_bus(bus: &Bus, metrics: &Metrics) {
    let (counters, peers) = (bus.counters(), bus.peers.counters());
    let size = |count: usize| u64::try_from(count).expect("64 bits");
    for (metric, value) in [
        (Metric::MessagesFree, bus.pool().available().into()),
        (Metric::MessagesMax, bus.pool().count().into()),
        (Metric::Connections, size(bus.connections_open())),
        (Metric::ConnectionsMax, size(bus.connections_max())),
        (Metric::ClientsMax, bus.clients_max().into()),
        (Metric::Accepted, counters.accepted),
        (Metric::Refused, counters.refused),
        (Metric::Broken, counters.broken),
        (Metric::Stalled, counters.stalled),
        (Metric::Received, counters.received),
        (Metric::Sent, counters.sent),
        (Metric::SendsQueued, bus.sends_pending().into()),
        (Metric::ReplicaInbound, size(bus.inbound())),
        (Metric::PeerConnected, peers.connected),
        (Metric::PeerRefused, peers.refused),
        (Metric::PeerLost, peers.lost + peers.stalled),
        (Metric::PeerDropped, peers.dropped),
        (Metric::PeerSent, peers.sent),
    ] {
        metrics.set(metric, value);
    }
    let nodes = bus.peers.count() + 1;
    for replica in (0..nodes).filter_map(|replica| u8::try_from(replica).ok()) {
        if replica != bus.replica() && usize::from(replica) < Label::Replica.count() {
            let open = bus.peers.is_open(replica);
            metrics.set_at(Metric::ReplicaConnected, replica.into(), open.into());
        }
        if bus.peers.count() > 0 && usize::from(replica) < Label::Replica.count() {
            metrics.set_at(Metric::ReplicaTwins, replica.into(), bus.has_twins(replica).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::metrics::Identity;
    use crate::vsr::report::tests::report;
    use crate::vsr::{Standing, Unready};

    /// Goal: a replica is ready while it takes part and lacks nothing; replicas that were heard
    /// have lags.
    #[test]
    fn replicas() {
        let metrics = Metrics::new(Identity::default());
        let report = report();
        publish_replica(&report, &metrics);
        assert!(metrics.is_set(Metric::Ready));
        assert_eq!(metrics.get(Metric::ReplicaLag, 1), Some(10));
        assert_eq!(metrics.get(Metric::ReplicaLag, 3), None);
        assert_eq!(metrics.get(Metric::ClockOffset, 0), None);
        let places = 0..Standing::ALL.len();
        let set = places.filter(|place| metrics.get(Metric::Standing, *place) == Some(1));
        assert_eq!(set.collect::<Vec<_>>(), [usize::from(Standing::Primary as u8)]);
        publish_replica(&Report { syncing: true, ..report }, &metrics);
        assert!(!metrics.is_set(Metric::Ready));
        let unready = |place: Unready| metrics.get(Metric::Unready, place as usize - 1);
        assert_eq!(unready(Unready::Syncing), Some(1));
        assert_eq!(unready(Unready::NoQuorum), Some(0));
        publish_replica(&Report { standing: Standing::ViewChange, ..report }, &metrics);
        assert!(!metrics.is_set(Metric::Ready));
    }
}
