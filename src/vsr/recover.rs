//! `recover`: how a replica whose data file was lost comes back.
//!
//! Such a replica has forgotten what it promised: which ops it acknowledged, and for which views it
//! reported its log. An op may be committed by its acknowledgement and one other. So it may not
//! vote as if it had never had that op, and nobody may be elected by a report of it that is still
//! on its way. It recovers in three steps, each durable in its superblock:
//!
//! 1. It asks the others for their views, until it has heard so many that every election it can
//!    have taken part in had a voter among them. Votes go only so far beyond what a voter has
//!    written down, so there is a view that it never was in: [`safe_view`].
//! 2. It writes that view down and waits until others are in it, or in a later one. They hear of it
//!    by its pings, and vote for views of the same primary as far ahead as votes go; that takes two
//!    elections. It has no vote itself, and does not lead the way: of a view to which one replica
//!    goes alone no voter knows, and no rule tells that a second file that is lost was in it.
//!    Any log that a quorum without this replica chooses has everything that was ever committed,
//!    since the quorum shares a replica with every other one that has not forgotten anything.
//! 3. It follows that view, or a later one, like a standby: it acknowledges and reports nothing,
//!    and fetches what it lacks. Once it has the whole log with which the view began here, and all
//!    blocks of its checkpoint, it is a replica like any other: what it forgot it has again, and of
//!    what came later it acknowledged nothing.
//!
//! Viewstamped Replication Revisited (section 4.3) recovers with a nonce alone, which is unsafe if
//! reports of the forgetful replica are still on their way (Michael et al., "Recovering Shared
//! Objects Without Stable Storage", 2017); hence the first step. Not covered: how ops and blocks
//! are fetched, which is like for any other replica that is behind.

use super::machine::StateMachine;
use super::quorum::Quorums;
use super::replica::{Replica, Status};
use super::superblock::{ASKING_FOR_VIEWS, NOT_RECOVERING};
use crate::protocol::{PeerHeader, REPLICAS_MAX};
use crate::{mark, mutated};

/// A replica that recovers says in each ping what it waits for, so many times in this time.
const AWAITED_NS: u64 = 250_000_000;

/// What a recovering replica has heard, and what is known of others that recover.
#[derive(Debug, Default)]
pub struct Recover {
    /// Marks the questions of this start; zero if none are asked.
    nonce: u64,
    /// Of each replica, the view it was in when it was asked.
    views: [Option<u32>; REPLICAS_MAX as usize],
    /// The view that this replica can follow, or any later one.
    safe: Option<u32>,
    /// The view that each other replica waits for, and until when that counts.
    awaited: [Option<(u32, u64)>; REPLICAS_MAX as usize],
    /// The superblock is being told that the replica has recovered.
    is_ending: bool,
}

impl Recover {
    /// Notes for what view another replica waits.
    pub fn hear(&mut self, replica: u8, view: u32, now_ns: u64) {
        self.awaited[usize::from(replica)] = Some((view, now_ns + AWAITED_NS));
    }

    /// The view that a replica waits for.
    fn awaited_by(&self, replica: u8, now_ns: u64) -> Option<u32> {
        let awaited = self.awaited[usize::from(replica)];
        awaited.filter(|(_, until_ns)| now_ns < *until_ns).map(|(view, _)| view)
    }

    /// The last view that anybody waits for.
    fn awaited(&self, now_ns: u64) -> Option<u32> {
        (0..REPLICAS_MAX).filter_map(|replica| self.awaited_by(replica, now_ns)).max()
    }
}

/// Whether a lost data file of such a cluster can be made anew. A single replica has nobody to ask,
/// and of two neither can elect anybody without the other's report.
#[must_use]
pub fn may_recover(replica_count: u8) -> bool {
    replica_count >= 3
}

/// A view that this replica never was in before it lost its file, nor in any later one; `None` as
/// long as too few views are known.
///
/// Whoever is first in a view is there because a quorum had voted for it, some of whom are known,
/// unless so many are not that they could have been the whole quorum; or because a primary started
/// again and left for the next one. A vote is at most as many views ahead of what the voter has
/// written down as there are replicas.
///
/// # Panics
///
/// If the replica is none of the cluster.
#[must_use]
pub fn safe_view(replica: u8, replica_count: u8, views: &[Option<u32>]) -> Option<u32> {
    assert!(replica < replica_count && may_recover(replica_count));
    let others = views.iter().enumerate().filter(|(index, _)| *index != usize::from(replica));
    let known = others.filter_map(|(_, view)| *view);
    let unknown = usize::from(replica_count) - 1 - known.clone().count();
    let quorum = usize::from(Quorums::new(replica_count).view_change);
    if unknown + 1 >= quorum {
        return None;
    }
    known.max()?.checked_add(u32::from(replica_count) + 2)
}

impl<M: StateMachine> Replica<M> {
    /// Whether the data file was lost, and what it had promised may still matter: no vote counts.
    ///
    /// # Panics
    ///
    /// If the superblock was not read yet.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.superblock.durable().recovering != NOT_RECOVERING && !mutated!("vote_after_recover")
    }

    /// Whether this replica waits to hear in which views the others are.
    pub(super) fn is_asking_for_views(&self) -> bool {
        self.recover.nonce != 0
    }

    /// The log was opened: whether views must be asked for first.
    pub(super) fn starts_asking(&mut self) -> bool {
        let asks = self.superblock.durable().recovering == ASKING_FOR_VIEWS;
        if !asks || !self.is_recovering() {
            return false;
        }
        mark!("recover_asks");
        let safe = self.superblock.durable().safe_view;
        self.recover.safe = (safe != 0).then_some(safe);
        // Another one after every restart, as time goes on.
        self.recover.nonce = (self.timers.random() ^ self.now.monotonic_ns) | 1;
        true
    }

    /// Takes the answer of another replica, which tells what its superblock says.
    pub(super) fn learn_view(&mut self, replica: u8, view: u32, nonce: u64) {
        let asked = self.is_asking_for_views() && nonce == self.recover.nonce;
        if !asked || replica >= self.options.replica_count {
            return;
        }
        assert!(self.status == Status::RecoveringHead && replica != self.options.replica);
        if self.recover.safe.is_none() {
            self.recover.views[usize::from(replica)] = Some(view);
            let (own, count) = (self.options.replica, self.options.replica_count);
            self.recover.safe = safe_view(own, count, &self.recover.views);
        }
        let Some(safe) = self.recover.safe else { return };
        let view = if mutated!("recover_leads") { view.max(safe) } else { view };
        if view < safe {
            mark!("recover_waits");
            return;
        }
        mark!("recover_leaves");
        self.recover.nonce = 0;
        // A checkpoint that was taken over meanwhile may be of a later one.
        self.view = view.max(self.view);
        self.begin_view_change();
    }

    /// Writes into a ping what is asked, and what is waited for: once that is durable, so that it
    /// is the same after a restart, and the others are asked for no view that nobody will follow.
    pub(super) fn ask(&self, ping: &mut PeerHeader) {
        if self.is_asking_for_views() {
            ping.nonce = self.recover.nonce;
            ping.awaited = self.superblock.durable().safe_view;
        }
    }

    /// Whether another replica waits for a view later than this one.
    pub(super) fn is_view_awaited(&self) -> bool {
        self.recover.awaited(self.now.monotonic_ns).is_some_and(|view| view > self.view)
    }

    /// Whether a replica is known to wait for a view: it can lead none.
    pub(super) fn awaits_view(&self, replica: u8) -> bool {
        self.recover.awaited_by(replica, self.now.monotonic_ns).is_some()
    }

    /// Writes down the view that is safe, once it is known: what it was derived from happened after
    /// the file was lost, so that it holds for as long as this one lives.
    fn record_safe_view(&mut self) -> bool {
        let Some(safe) = self.recover.safe.filter(|_| self.is_asking_for_views()) else {
            return false;
        };
        if !self.superblock.is_idle() || self.superblock.durable().safe_view != 0 {
            return false;
        }
        self.superblock.update(&mut self.outbox.storage, |superblock| superblock.safe_view = safe);
        true
    }

    /// Goes on with the last step; whether there was progress.
    pub(super) fn pump_recover(&mut self) -> bool {
        if self.recover.is_ending {
            if !self.superblock.is_idle() {
                return false;
            }
            assert!(self.superblock.durable().recovering == NOT_RECOVERING);
            mark!("recover_completed");
            self.recover.is_ending = false;
            self.acknowledge_all();
            return true;
        }
        if self.record_safe_view() {
            return true;
        }
        if self.status != Status::Normal || !self.superblock.is_idle() || !self.is_recovering() {
            return false;
        }
        if self.is_syncing() || !self.has_log_of_view() {
            return false;
        }
        assert!(!self.is_primary_index(), "nobody reported for it");
        assert!(self.superblock.durable().log_view == self.view);
        self.recover.is_ending = true;
        self.superblock.update(&mut self.outbox.storage, |superblock| {
            superblock.recovering = NOT_RECOVERING;
            superblock.safe_view = 0;
        });
        true
    }

    /// Whether everything that the view began with here, and that no checkpoint here covers, is
    /// proven and durable.
    fn has_log_of_view(&self) -> bool {
        let first = self.checkpoint_op() + 1;
        self.chain.op_min() <= self.commit.op + 1
            && (first..=self.view_op).all(|op| {
                let header = self.journal.header(op);
                header.is_some_and(|header| self.journal.has(op, header.frame.checksum))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: in clusters of each size, a view is safe only once enough others are heard, and is
    /// beyond every view that a heard one can have voted for.
    #[test]
    fn safe_views() {
        for (count, needed) in [(3_u8, 2), (4, 2), (5, 3), (6, 3)] {
            for replica in 0..count {
                let mut views = [None; REPLICAS_MAX as usize];
                let others = (0..count).filter(|other| *other != replica);
                for (heard, other) in others.enumerate() {
                    let found = safe_view(replica, count, &views);
                    assert_eq!(found.is_some(), heard >= needed, "{count} {heard}");
                    views[usize::from(other)] = Some(7 + u32::from(other));
                }
                let newest = views.iter().flatten().max().unwrap();
                let view = safe_view(replica, count, &views).unwrap();
                assert!(view > newest + u32::from(count) + 1);
                // What the lost file itself said is not asked.
                views[usize::from(replica)] = Some(1_000);
                assert_eq!(safe_view(replica, count, &views), Some(view));
            }
        }
        assert!(!may_recover(1) && !may_recover(2) && may_recover(3));
    }

    /// Goal: of what others wait for the latest counts, and nothing for long; of one replica it is
    /// what that said last.
    #[test]
    fn awaited_views() {
        let mut recover = Recover::default();
        assert_eq!(recover.awaited(1), None);
        recover.hear(2, 12, 1);
        recover.hear(4, 7, 2);
        assert_eq!(recover.awaited(AWAITED_NS), Some(12));
        assert_eq!(recover.awaited(AWAITED_NS + 1), Some(7));
        assert_eq!(recover.awaited(AWAITED_NS + 2), None);
        recover.hear(2, 9, AWAITED_NS + 2);
        recover.hear(2, 8, AWAITED_NS + 3);
        assert_eq!(recover.awaited(AWAITED_NS + 3), Some(8));
        let by = |replica| recover.awaited_by(replica, AWAITED_NS + 3);
        assert_eq!((by(2), by(4), by(0)), (Some(8), None, None));
    }
}
