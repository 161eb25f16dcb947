//! How a replica is, as plain numbers: for metrics, for `florin status`, for people.
//!
//! Made on demand from what the components know. Decides nothing. Not covered: the state machine,
//! which tells of itself.

use super::clock::ClockReading;
use super::endings::EVICTION_REASONS;
use super::machine::StateMachine;
use super::opening::Opening;
use super::replica::{Replica, Status};
use crate::protocol::NODES_MAX;

/// How a replica is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Reading its file.
    Opening = 0,
    /// Executing its log.
    Replaying = 1,
    /// It orders.
    Primary = 2,
    /// It follows the primary.
    Backup = 3,
    /// It follows without a vote.
    Standby = 4,
    /// Between two views.
    ViewChange = 5,
    /// It does not know the end of its log.
    RecoveringHead = 6,
    /// It cannot go on.
    Stopped = 7,
}

impl Standing {
    /// All of them, in order of their numbers.
    pub const ALL: [Standing; 8] = [
        Standing::Opening,
        Standing::Replaying,
        Standing::Primary,
        Standing::Backup,
        Standing::Standby,
        Standing::ViewChange,
        Standing::RecoveringHead,
        Standing::Stopped,
    ];

    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Standing::Opening => "opening",
            Standing::Replaying => "replaying",
            Standing::Primary => "primary",
            Standing::Backup => "backup",
            Standing::Standby => "standby",
            Standing::ViewChange => "view_change",
            Standing::RecoveringHead => "recovering_head",
            Standing::Stopped => "stopped",
        }
    }

    /// Whether it takes part in a view.
    #[must_use]
    pub const fn takes_part(self) -> bool {
        matches!(self, Standing::Primary | Standing::Backup | Standing::Standby)
    }
}

/// What is known of another replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerReport {
    /// How long ago it was heard, in nanoseconds; `None` if never.
    pub silence_ns: Option<u64>,
    /// Age of the newest ping that it has answered, in nanoseconds; `None` if it answered none.
    pub unanswered_ns: Option<u64>,
    /// The newest op that it was known to have in its log.
    pub op: u64,
    /// Op of its durable checkpoint.
    pub checkpoint_op: u64,
}

/// How a replica is.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each reported by itself")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// In one word.
    pub standing: Standing,
    /// Its index.
    pub replica: u8,
    /// Replicas that vote.
    pub replica_count: u8,
    /// Standbys.
    pub standby_count: u8,
    /// The primary of its view.
    pub primary: u8,
    /// Its view.
    pub view: u32,
    /// The newest view in which it took part.
    pub log_view: u32,
    /// Newest op of its log.
    pub op: u64,
    /// Newest op executed.
    pub commit: u64,
    /// Newest op known to be committed.
    pub commit_max: u64,
    /// Op of the durable checkpoint.
    pub checkpoint_op: u64,
    /// Blocks of the checkpoint may be missing.
    pub syncing: bool,
    /// The others' logs do not reach back to what must be executed next.
    pub too_far_behind: bool,
    /// The data file was lost, and this replica has no vote yet.
    pub recovering: bool,
    /// It is the primary, and has executed what its view began with.
    pub serving: bool,
    /// A majority of the clocks agrees on the time.
    pub clocks_agree: bool,
    /// Nanoseconds since a backup heard its primary's heartbeat, or since the view began.
    pub heartbeat_ns: u64,
    /// Nanoseconds for which work has waited without progress.
    pub still_ns: u64,
    /// The op that is being executed waits for the disk.
    pub awaits_disk: bool,
    /// Nanoseconds for which this replica has executed much less than is committed.
    pub behind_ns: u64,
    /// Sessions of clients.
    pub sessions: u64,
    /// Sessions at most.
    pub sessions_max: u64,
    /// Requests that were accepted and are not answered.
    pub requests_in_flight: u64,
    /// Those of them that are in no prepare.
    pub requests_waiting: u64,
    /// Requests kept for the primary.
    pub requests_held: u64,
    /// Prepares that are not executed, on the primary.
    pub prepares_in_flight: u64,
    /// Prepares asked for from others.
    pub prepares_requested: u64,
    /// Blocks asked for from others.
    pub blocks_requested: u64,
    /// Times that the scrub has read everything.
    pub scrubs: u64,
    /// Copies of the superblock, and slots and sectors of the log, that were damaged.
    pub repairs: u64,
    /// Evictions by reason; the reason of number 1 comes first.
    pub evicted: [u64; EVICTION_REASONS],
    /// Sessions that made way for new ones.
    pub displaced: u64,
    /// Our clock against the cluster's; `None` alone, and while no majority agrees.
    pub clock: Option<ClockReading>,
    /// Other replicas and standbys, by index; our own place says nothing.
    pub peers: [PeerReport; NODES_MAX as usize],
}

impl<M: StateMachine> Replica<M> {
    /// How it is in one word.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.status {
            Status::Opening(Opening::Replay) => Standing::Replaying,
            Status::Opening(_) => Standing::Opening,
            Status::Normal if self.options.is_standby() => Standing::Standby,
            Status::Normal if self.is_primary_index() => Standing::Primary,
            Status::Normal => Standing::Backup,
            Status::ViewChange => Standing::ViewChange,
            Status::RecoveringHead => Standing::RecoveringHead,
            Status::Fatal => Standing::Stopped,
        }
    }

    /// How it is.
    #[must_use]
    pub fn report(&self) -> Report {
        let read = self.superblock.was_read();
        let now_ns = self.now.monotonic_ns;
        Report {
            standing: self.standing(),
            replica: self.options.replica,
            replica_count: self.options.replica_count,
            standby_count: self.options.standby_count,
            primary: self.options.primary_of(self.view),
            view: self.view,
            log_view: self.log_view,
            op: self.chain.head().op,
            commit: self.commit_op(),
            commit_max: self.commit_max,
            checkpoint_op: if read { self.checkpoint_op() } else { 0 },
            syncing: self.is_syncing(),
            too_far_behind: self.waits_for_sync(),
            recovering: read && self.is_recovering(),
            serving: self.is_serving(),
            clocks_agree: self.cluster_now().is_some(),
            heartbeat_ns: self.timers.heartbeat_age_ns(now_ns),
            still_ns: self.progress.still_ns(now_ns),
            awaits_disk: self.progress.awaits_disk(),
            behind_ns: self.progress.behind_ns(now_ns),
            sessions: count(self.sessions.len()),
            sessions_max: self.options.config.clients_max.into(),
            requests_in_flight: count(self.pipeline.requests_in_flight()),
            requests_waiting: count(self.pipeline.requests_waiting()),
            requests_held: count(self.held.len()),
            prepares_in_flight: count(self.pipeline.prepared().count()),
            prepares_requested: count(self.repair.requested()),
            blocks_requested: count(self.blocks.requested()),
            scrubs: self.scrubs(),
            repairs: if read { self.repairs() } else { 0 },
            evicted: self.endings.evicted(),
            displaced: self.endings.displaced(),
            clock: self.cluster_clock.reading(self.now),
            peers: self.peers.report(now_ns),
        }
    }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).expect("64 bits")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of the primary of three, all of which are well.
    pub(crate) fn report() -> Report {
        let mut peers = [PeerReport::default(); NODES_MAX as usize];
        for peer in &mut peers[1..3] {
            let ns = Some(5_000_000);
            *peer = PeerReport { silence_ns: ns, unanswered_ns: ns, op: 90, checkpoint_op: 80 };
        }
        Report {
            standing: Standing::Primary,
            replica: 0,
            replica_count: 3,
            standby_count: 0,
            primary: 0,
            view: 3,
            log_view: 3,
            op: 100,
            commit: 99,
            commit_max: 99,
            checkpoint_op: 80,
            syncing: false,
            too_far_behind: false,
            recovering: false,
            serving: true,
            clocks_agree: true,
            heartbeat_ns: 0,
            still_ns: 0,
            awaits_disk: false,
            behind_ns: 0,
            sessions: 1,
            sessions_max: 64,
            requests_in_flight: 0,
            requests_waiting: 0,
            requests_held: 0,
            prepares_in_flight: 1,
            prepares_requested: 0,
            blocks_requested: 0,
            scrubs: 0,
            repairs: 0,
            evicted: [0; EVICTION_REASONS],
            displaced: 0,
            clock: None,
            peers,
        }
    }

    /// Goal: numbers and names of standings are as listed.
    #[test]
    fn standings() {
        for (index, standing) in Standing::ALL.iter().enumerate() {
            assert_eq!(usize::from(*standing as u8), index);
            assert!(!standing.name().contains(' '));
        }
        assert_eq!(Standing::ALL.iter().filter(|standing| standing.takes_part()).count(), 3);
    }
}
