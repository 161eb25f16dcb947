//! `StartViewChange`: votes to leave a view.
//!
//! A replica that has not heard its primary for too long votes for a later view and goes on as
//! before. Nothing happens until a view-change quorum votes; so a replica that can send but not
//! receive topples nothing. A vote for a view counts for every view up to it, and is forgotten
//! when it is not repeated. See Viewstamped Replication Revisited, section 4.2.

use crate::protocol::REPLICAS_MAX;

/// A vote that was not repeated for so long is forgotten, in nanoseconds.
const VOTE_LIFETIME_NS: u64 = 250_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vote {
    view: u32,
    heard_ns: u64,
}

/// The newest vote of each replica.
#[derive(Clone, Copy, Debug, Default)]
pub struct Votes {
    votes: [Option<Vote>; REPLICAS_MAX as usize],
}

impl Votes {
    /// Notes that a replica votes for `view` at this monotonic time. An older vote is not brought
    /// back by a late message.
    ///
    /// # Panics
    ///
    /// If there can be no such replica.
    pub fn record(&mut self, replica: u8, view: u32, now_ns: u64) {
        assert!(replica < REPLICAS_MAX);
        let place = &mut self.votes[usize::from(replica)];
        let newer = place.is_none_or(|vote| vote.view <= view);
        if newer || place.is_some_and(|vote| vote.is_old(now_ns)) {
            *place = Some(Vote { view, heard_ns: now_ns });
        }
    }

    /// Takes a replica's vote back.
    ///
    /// # Panics
    ///
    /// If there can be no such replica.
    pub fn withdraw(&mut self, replica: u8) {
        self.votes[usize::from(replica)] = None;
    }

    /// The highest view for which a quorum votes, if that is above `view`.
    ///
    /// # Panics
    ///
    /// If the quorum is empty or larger than any cluster.
    #[must_use]
    pub fn elected(&self, view: u32, quorum: u8, now_ns: u64) -> Option<u32> {
        assert!((1..=REPLICAS_MAX).contains(&quorum));
        let mut views = [0_u32; REPLICAS_MAX as usize];
        for (place, vote) in views.iter_mut().zip(&self.votes) {
            *place = vote.filter(|vote| !vote.is_old(now_ns)).map_or(0, |vote| vote.view);
        }
        views.sort_unstable_by(|one, other| other.cmp(one));
        let elected = views[usize::from(quorum) - 1];
        (elected > view).then_some(elected)
    }
}

impl Vote {
    fn is_old(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.heard_ns) > VOTE_LIFETIME_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: only a quorum moves, a vote counts for lower views too, and the highest view that a
    /// quorum supports is taken.
    #[test]
    fn quorum_of_votes() {
        let mut votes = Votes::default();
        votes.record(0, 5, 0);
        assert_eq!(votes.elected(3, 2, 0), None);
        votes.record(1, 4, 0);
        assert_eq!(votes.elected(3, 2, 0), Some(4));
        assert_eq!(votes.elected(4, 2, 0), None);
        assert_eq!(votes.elected(3, 3, 0), None);
        votes.record(1, 6, 0);
        assert_eq!(votes.elected(3, 2, 0), Some(5));
        assert_eq!(votes.elected(3, 1, 0), Some(6));
    }

    /// Goal: votes that are not repeated, and votes taken back, count no longer; a late message
    /// with an older vote changes nothing while the newer one lives.
    #[test]
    fn votes_fade() {
        let mut votes = Votes::default();
        votes.record(0, 5, 0);
        votes.record(1, 5, 200_000_000);
        assert_eq!(votes.elected(3, 2, 250_000_000), Some(5));
        assert_eq!(votes.elected(3, 2, 250_000_001), None);
        votes.record(1, 4, 300_000_000);
        assert_eq!(votes.elected(3, 1, 300_000_000), Some(5));
        votes.record(0, 4, 300_000_000);
        assert_eq!(votes.elected(3, 2, 300_000_000), Some(4));
        votes.withdraw(1);
        assert_eq!(votes.elected(3, 2, 300_000_000), None);
    }
}
