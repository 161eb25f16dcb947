//! What a replica knows of the others: when they were heard, and where.

use super::ConnectionId;
use super::report::PeerReport;
use crate::protocol::{NODES_MAX, Release};

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// Monotonic time at which it was heard last; `None` before.
    heard_ns: Option<u64>,
    /// Connection on which it was heard last.
    connection: Option<ConnectionId>,
    /// Monotonic time of the newest ping that it has answered; `None` before.
    answered_ns: Option<u64>,
    /// Its connection broke or was refused since it was heard.
    lost: bool,
    /// Op of its durable checkpoint, as far as known.
    checkpoint_op: u64,
    /// Newest op that it told of last.
    op: u64,
    /// Release of its program, once it has said so.
    program: Option<Release>,
}

/// The other replicas and standbys, by index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peers {
    peers: [Peer; NODES_MAX as usize],
}

impl Peers {
    /// Notes a control message.
    pub fn heard(&mut self, replica: u8, connection: ConnectionId, now_ns: u64) {
        let peer = &mut self.peers[usize::from(replica)];
        peer.heard_ns = Some(now_ns);
        peer.connection = Some(connection);
        peer.lost = false;
    }

    /// Notes that a replica has answered a ping of `sent_ns`.
    pub fn answered(&mut self, replica: u8, sent_ns: u64) {
        let peer = &mut self.peers[usize::from(replica)];
        peer.answered_ns = peer.answered_ns.max(Some(sent_ns));
    }

    /// Notes that a replica's connection broke or was refused.
    pub fn lost(&mut self, replica: u8) {
        self.peers[usize::from(replica)].lost = true;
    }

    /// Notes the durable checkpoint of a replica.
    pub fn checkpoint(&mut self, replica: u8, op: u64) {
        self.peers[usize::from(replica)].checkpoint_op = op;
    }

    /// Notes the newest op of a replica's log; zero says nothing.
    pub fn has_op(&mut self, replica: u8, op: u64) {
        if op > 0 {
            self.peers[usize::from(replica)].op = op;
        }
    }

    /// What is known of each.
    #[must_use]
    pub fn report(&self, now_ns: u64) -> [PeerReport; NODES_MAX as usize] {
        self.peers.map(|peer| PeerReport {
            silence_ns: peer.heard_ns.map(|heard_ns| now_ns.saturating_sub(heard_ns)),
            unanswered_ns: peer.answered_ns.map(|sent_ns| now_ns.saturating_sub(sent_ns)),
            op: peer.op,
            checkpoint_op: peer.checkpoint_op,
        })
    }

    /// Op of a replica's durable checkpoint, as far as known.
    #[must_use]
    pub fn checkpoint_op(&self, replica: u8) -> u64 {
        self.peers[usize::from(replica)].checkpoint_op
    }

    /// Notes the release of a replica's program.
    pub fn runs(&mut self, replica: u8, program: Release) {
        self.peers[usize::from(replica)].program = Some(program);
    }

    /// Release of a replica's program, if it has said so.
    #[must_use]
    pub fn program(&self, replica: u8) -> Option<Release> {
        self.peers[usize::from(replica)].program
    }

    /// Whether a replica's connection broke or was refused since it was heard.
    #[must_use]
    pub fn is_lost(&self, replica: u8) -> bool {
        self.peers[usize::from(replica)].lost
    }

    /// The replica that sends on this connection, if it is one's.
    #[must_use]
    pub fn find(&self, connection: ConnectionId) -> Option<u8> {
        let found = (0..NODES_MAX).zip(&self.peers);
        let mut found = found.filter(|(_, peer)| peer.connection == Some(connection));
        found.next().map(|(replica, _)| replica)
    }

    /// Whether a replica was heard since `since_ns`.
    #[must_use]
    pub fn was_heard(&self, replica: u8, since_ns: u64) -> bool {
        self.peers[usize::from(replica)].heard_ns.is_some_and(|heard_ns| heard_ns >= since_ns)
    }

    /// How many of the first `count` replicas were heard since `since_ns`.
    ///
    /// # Panics
    ///
    /// If there can be no so many.
    #[must_use]
    pub fn heard_since(&self, count: u8, since_ns: u64) -> u8 {
        let heard = (0..count).filter(|replica| self.was_heard(*replica, since_ns));
        u8::try_from(heard.count()).expect("at most twelve")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a replica is lost until it is heard again, and its connection is known as its own.
    #[test]
    fn lost_and_heard() {
        let mut peers = Peers::default();
        let connection = ConnectionId { index: 4, generation: 2 };
        assert!(peers.find(connection).is_none() && !peers.is_lost(1));
        peers.heard(1, connection, 50);
        peers.lost(1);
        assert!(peers.is_lost(1) && peers.find(connection) == Some(1));
        assert_eq!((peers.heard_since(2, 50), peers.heard_since(2, 51)), (1, 0));
        assert!(peers.was_heard(1, 50) && !peers.was_heard(1, 51) && !peers.was_heard(0, 0));
        assert_eq!(peers.heard_since(1, 0), 0);
        peers.heard(1, connection, 60);
        assert!(!peers.is_lost(1));
        assert_eq!(peers.report(70)[1].unanswered_ns, None);
        peers.answered(1, 40);
        peers.answered(1, 30);
        assert_eq!(peers.report(70)[1].unanswered_ns, Some(30));
    }
}
