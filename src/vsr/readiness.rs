//! Whether a replica can serve now, and if not, the reason.
//!
//! A replica is ready when a request that reaches it is executed without anybody's help: its data
//! is whole, it is in two-way contact with the replicas that it depends on, and work does not stand
//! still. [`Report::unready`] is a pure function of the report; [`Progress`] remembers since when
//! work waits. Read-only: no decision of the protocol depends on it. Not covered: a process that
//! does not turn its loop, which the world sees.

use super::commit::Stage;
use super::machine::StateMachine;
use super::quorum::Quorums;
use super::replica::Replica;
use super::report::{Report, Standing};

/// A replica that was not heard, or did not answer a ping, for this long is out of contact.
/// Pings go out every 200 ms.
pub const CONTACT_NS: u64 = 1_500_000_000;
/// Work that makes no progress for this long stands still.
const STILL_NS: u64 = 1_500_000_000;
/// Committed ops that are not executed here, beyond which a replica is behind.
const BEHIND_OPS: u64 = 64;
/// A replica that was behind for this long all the time is not ready.
const BEHIND_NS: u64 = 1_000_000_000;

/// Why a replica is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unready {
    /// It reads its data file.
    Opening = 1,
    /// It executes the log that the last checkpoint does not cover.
    Replaying = 2,
    /// It cannot continue.
    Stopped = 3,
    /// Fewer replicas than a quorum are in contact.
    NoQuorum = 4,
    /// Its data file was lost, and is not complete yet.
    Recovering = 5,
    /// The end of its log is damaged.
    RecoveringHead = 6,
    /// A view has not begun here.
    ViewChange = 7,
    /// Blocks of the checkpoint are missing.
    Syncing = 8,
    /// The logs of the others do not reach back far enough.
    TooFarBehind = 9,
    /// The primary is silent.
    NoPrimary = 10,
    /// The primary does not hear this replica.
    Unheard = 11,
    /// No majority of the clocks agrees on the time.
    NoTime = 12,
    /// An op that is being executed waits for the disk.
    WaitsForDisk = 13,
    /// It has ops to execute or requests to order, and has executed nothing.
    StandsStill = 14,
    /// It executes later than the others commit.
    Behind = 15,
}

impl Unready {
    /// All of them, in order of their numbers.
    pub const ALL: [Unready; 15] = [
        Unready::Opening,
        Unready::Replaying,
        Unready::Stopped,
        Unready::NoQuorum,
        Unready::Recovering,
        Unready::RecoveringHead,
        Unready::ViewChange,
        Unready::Syncing,
        Unready::TooFarBehind,
        Unready::NoPrimary,
        Unready::Unheard,
        Unready::NoTime,
        Unready::WaitsForDisk,
        Unready::StandsStill,
        Unready::Behind,
    ];

    /// The reason of this number; none for 0 and unknown numbers.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Unready> {
        Unready::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The reason in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Unready::Opening => "opening",
            Unready::Replaying => "replaying",
            Unready::Stopped => "stopped",
            Unready::NoQuorum => "no_quorum",
            Unready::Recovering => "recovering",
            Unready::RecoveringHead => "recovering_head",
            Unready::ViewChange => "view_change",
            Unready::Syncing => "syncing",
            Unready::TooFarBehind => "too_far_behind",
            Unready::NoPrimary => "no_primary",
            Unready::Unheard => "unheard",
            Unready::NoTime => "no_time",
            Unready::WaitsForDisk => "waits_for_disk",
            Unready::StandsStill => "stands_still",
            Unready::Behind => "behind",
        }
    }

    /// The reason as a clause about the replica.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Unready::Opening => "it is reading its data file",
            Unready::Replaying => "it is executing the log from the last checkpoint on",
            Unready::Stopped => "it cannot continue; its messages say why",
            Unready::NoQuorum => "too few of the other replicas are in contact for a quorum",
            Unready::Recovering => {
                "its data file was lost and is being fetched; it has no vote yet"
            }
            Unready::RecoveringHead => {
                "the end of its log is damaged; it waits to learn it from the others"
            }
            Unready::ViewChange => "it waits for a view to begin",
            Unready::Syncing => "it is fetching what is missing of a checkpoint",
            Unready::TooFarBehind => {
                "the logs of the others do not reach back to what it must execute next"
            }
            Unready::NoPrimary => "it hears nothing from the primary",
            Unready::Unheard => {
                "the primary does not answer it: nothing that it sends arrives there"
            }
            Unready::NoTime => "no majority of the clocks agrees on the time",
            Unready::WaitsForDisk => "the op that it executes waits for the disk and stands still",
            Unready::StandsStill => "it has work to do, and has executed no op",
            Unready::Behind => "it has executed less than the others have committed",
        }
    }
}

/// Since when work waits without progress.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    executed: u64,
    stage: Stage,
    /// When work had progressed last, or there was none.
    moved_ns: u64,
    /// When the replica was not behind last.
    near_ns: u64,
}

impl Progress {
    /// Nothing happened yet.
    #[must_use]
    pub fn new() -> Progress {
        Progress { executed: 0, stage: Stage::Idle, moved_ns: 0, near_ns: 0 }
    }

    /// For how long work has waited without progress.
    #[must_use]
    pub fn still_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.moved_ns)
    }

    /// For how long the replica has been behind.
    #[must_use]
    pub fn behind_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.near_ns)
    }

    /// Whether the op that is executed has begun and waits for the disk.
    #[must_use]
    pub fn awaits_disk(&self) -> bool {
        matches!(self.stage, Stage::Load | Stage::Execute { .. } | Stage::End)
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl<M: StateMachine> Replica<M> {
    /// Notes on every tick how far the work is.
    pub(super) fn note_progress(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let (executed, stage) = (self.commit.op, self.commit.stage);
        let waits = executed < self.commit_max || !self.pipeline.is_quiet();
        let progress = &mut self.progress;
        if !waits || executed != progress.executed || stage != progress.stage {
            progress.moved_ns = now_ns;
        }
        (progress.executed, progress.stage) = (executed, stage);
        if self.commit_max <= executed + BEHIND_OPS {
            progress.near_ns = now_ns;
        }
    }
}

impl Report {
    /// Whether a replica was heard lately and has answered lately.
    #[must_use]
    pub fn is_in_contact(&self, replica: u8) -> bool {
        let peer = &self.peers[usize::from(replica)];
        let lately = |silence_ns: Option<u64>| silence_ns.is_some_and(|it| it <= CONTACT_NS);
        lately(peer.silence_ns) && lately(peer.unanswered_ns)
    }

    /// Other replicas that vote and are in contact.
    ///
    /// # Panics
    ///
    /// Never: they are few.
    #[must_use]
    pub fn contacts(&self) -> u8 {
        let others = (0..self.replica_count).filter(|replica| *replica != self.replica);
        let count = others.filter(|replica| self.is_in_contact(*replica)).count();
        u8::try_from(count).expect("at most five")
    }

    /// Other replicas that must be in contact for a quorum.
    #[must_use]
    pub fn contacts_needed(&self) -> u8 {
        let quorums = Quorums::new(self.replica_count);
        match self.standing {
            Standing::Primary => quorums.replication - 1,
            // A backup needs its primary, which needs the quorum.
            Standing::Backup | Standing::Standby => 1,
            _ => quorums.view_change - 1,
        }
    }

    /// Why this replica is not ready; none if it is.
    #[must_use]
    pub fn unready(&self) -> Option<Unready> {
        match self.standing {
            Standing::Opening => return Some(Unready::Opening),
            Standing::Replaying => return Some(Unready::Replaying),
            Standing::Stopped => return Some(Unready::Stopped),
            _ => {}
        }
        let solo = self.replica_count == 1 && self.replica == 0;
        if !solo {
            if let Some(reason) = self.out_of_contact() {
                return Some(reason);
            }
            if self.recovering {
                return Some(Unready::Recovering);
            }
        }
        match self.standing {
            Standing::RecoveringHead => return Some(Unready::RecoveringHead),
            Standing::ViewChange => return Some(Unready::ViewChange),
            Standing::Primary if !self.serving => return Some(Unready::ViewChange),
            _ => {}
        }
        [
            (self.syncing, Unready::Syncing),
            (self.too_far_behind, Unready::TooFarBehind),
            (!solo && self.standing == Standing::Primary && !self.clocks_agree, Unready::NoTime),
            (self.still_ns >= STILL_NS && self.awaits_disk, Unready::WaitsForDisk),
            (self.still_ns >= STILL_NS, Unready::StandsStill),
            (self.behind_ns >= BEHIND_NS, Unready::Behind),
        ]
        .into_iter()
        .find_map(|(holds, reason)| holds.then_some(reason))
    }

    /// Why this replica of several cannot serve for want of contact, if so.
    fn out_of_contact(&self) -> Option<Unready> {
        let follows = matches!(self.standing, Standing::Backup | Standing::Standby);
        let lately = |silence_ns: Option<u64>| silence_ns.is_some_and(|it| it <= CONTACT_NS);
        if follows {
            let others = (0..self.replica_count).filter(|replica| *replica != self.replica);
            let heard = others.filter(|it| lately(self.peers[usize::from(*it)].silence_ns)).count();
            let primary = &self.peers[usize::from(self.primary)];
            // Who starts again has heard nobody, whatever it takes for the time of the heartbeat.
            let heartbeat = lately(primary.silence_ns) && lately(Some(self.heartbeat_ns));
            return match (heard, heartbeat, lately(primary.unanswered_ns)) {
                (0, _, _) => Some(Unready::NoQuorum),
                (_, false, _) => Some(Unready::NoPrimary),
                (_, true, false) => Some(Unready::Unheard),
                (_, true, true) => None,
            };
        }
        (self.contacts() < self.contacts_needed()).then_some(Unready::NoQuorum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsr::PeerReport;
    use crate::vsr::report::tests::report;

    const LATE: Option<u64> = Some(CONTACT_NS + 1);

    fn out(
        mut report: Report,
        replica: usize,
        heard: Option<u64>,
        answered: Option<u64>,
    ) -> Report {
        report.peers[replica].silence_ns = heard;
        report.peers[replica].unanswered_ns = answered;
        report
    }

    /// Goal: names and numbers are as listed.
    #[test]
    fn reasons() {
        for (index, reason) in (1_u8..).zip(Unready::ALL) {
            assert_eq!(reason as u8, index);
            assert_eq!(Unready::from_number(index), Some(reason));
            assert!(!reason.name().contains(' ') && !reason.text().ends_with('.'));
        }
        assert_eq!(Unready::from_number(0), None);
        assert_eq!(Unready::from_number(16), None);
    }

    /// Goal: a primary is ready while a quorum hears it and is heard by it, in both directions.
    #[test]
    fn primaries() {
        let primary = report();
        assert_eq!(primary.unready(), None);
        let one = out(primary, 2, LATE, Some(0));
        assert_eq!((one.unready(), one.contacts()), (None, 1));
        assert_eq!(out(one, 1, LATE, Some(0)).unready(), Some(Unready::NoQuorum));
        assert_eq!(out(one, 1, Some(0), LATE).unready(), Some(Unready::NoQuorum));
        assert_eq!(out(one, 1, None, None).unready(), Some(Unready::NoQuorum));
        let beginning = Report { serving: false, ..primary };
        assert_eq!(beginning.unready(), Some(Unready::ViewChange));
        let timeless = Report { clocks_agree: false, ..primary };
        assert_eq!(timeless.unready(), Some(Unready::NoTime));
        let still = Report { still_ns: STILL_NS, ..primary };
        assert_eq!(still.unready(), Some(Unready::StandsStill));
        let reading = Report { awaits_disk: true, ..still };
        assert_eq!(reading.unready(), Some(Unready::WaitsForDisk));
        assert_eq!(Report { still_ns: STILL_NS - 1, ..reading }.unready(), None);
    }

    /// Goal: a backup is ready while it follows a primary that answers it, and lacks nothing.
    #[test]
    fn backups() {
        let backup = Report { standing: Standing::Backup, replica: 1, serving: false, ..report() };
        let backup = out(backup, 0, Some(0), Some(0));
        assert_eq!(backup.unready(), None);
        assert_eq!(out(backup, 2, None, None).unready(), None);
        assert_eq!(out(backup, 0, LATE, LATE).unready(), Some(Unready::NoPrimary));
        let alone = out(out(backup, 0, None, None), 2, LATE, Some(0));
        assert_eq!(alone.unready(), Some(Unready::NoQuorum));
        assert_eq!(out(backup, 0, Some(0), LATE).unready(), Some(Unready::Unheard));
        let quiet = Report { heartbeat_ns: CONTACT_NS + 1, ..backup };
        assert_eq!(quiet.unready(), Some(Unready::NoPrimary));
        for (report, reason) in [
            (Report { recovering: true, ..backup }, Unready::Recovering),
            (Report { syncing: true, ..backup }, Unready::Syncing),
            (Report { too_far_behind: true, ..backup }, Unready::TooFarBehind),
            (Report { behind_ns: BEHIND_NS, ..backup }, Unready::Behind),
            (Report { standing: Standing::ViewChange, ..backup }, Unready::ViewChange),
            (Report { standing: Standing::RecoveringHead, ..backup }, Unready::RecoveringHead),
            (Report { standing: Standing::Opening, ..backup }, Unready::Opening),
            (Report { standing: Standing::Replaying, ..backup }, Unready::Replaying),
            (Report { standing: Standing::Stopped, ..backup }, Unready::Stopped),
        ] {
            assert_eq!(report.unready(), Some(reason));
        }
    }

    /// Goal: a cluster of one needs nobody.
    #[test]
    fn alone() {
        let peers = [PeerReport::default(); 12];
        let solo = Report { replica_count: 1, clocks_agree: false, peers, ..report() };
        assert_eq!(solo.unready(), None);
    }
}
