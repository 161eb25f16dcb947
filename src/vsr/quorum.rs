//! How many replicas must agree on what, for each size of a cluster.
//!
//! An op is committed when a replication quorum has it; a view starts with the logs of a
//! view-change quorum. Any two such quorums share a replica, so that no committed op is missed
//! (Howard et al., "Flexible Paxos", 2016). An uncommitted op may be cut off when so many replicas
//! never had it that the others are no replication quorum: the nack quorum (Alagappan et al.,
//! "Protocol-Aware Recovery", FAST '18).

use crate::protocol::REPLICAS_MAX;

/// The quorums of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums {
    /// Replicas on which an op is durable before it is committed.
    pub replication: u8,
    /// Replicas whose logs a new view begins with.
    pub view_change: u8,
    /// Replicas that never had an op, so that it may be cut off.
    pub nack: u8,
}

impl Quorums {
    /// The quorums of a cluster of so many replicas.
    ///
    /// # Panics
    ///
    /// If the count is not from 1 to 6.
    #[must_use]
    pub const fn new(replica_count: u8) -> Quorums {
        assert!(replica_count >= 1 && replica_count <= REPLICAS_MAX);
        let (replication, view_change) = match replica_count {
            1 => (1, 1),
            2 | 3 => (2, 2),
            4 => (2, 3),
            5 => (3, 3),
            _ => (3, 4),
        };
        assert!(replication + view_change > replica_count, "the quorums intersect");
        let nack = replica_count - replication + 1;
        Quorums { replication, view_change, nack }
    }
}

/// Replicas that agree on time: always more than half.
#[must_use]
pub const fn majority(replica_count: u8) -> u8 {
    replica_count / 2 + 1
}

const _: () = {
    let mut count = 1;
    while count <= REPLICAS_MAX {
        let quorums = Quorums::new(count);
        assert!(quorums.replication + quorums.view_change > count);
        assert!(quorums.replication + quorums.nack > count);
        count += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the table of the design, size by size.
    #[test]
    fn table() {
        let rows = [(1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 3, 3), (3, 3, 3), (3, 4, 4)];
        for (count, (replication, view_change, nack)) in (1_u8..).zip(rows) {
            let expected = Quorums { replication, view_change, nack };
            assert_eq!(Quorums::new(count), expected, "{count} replicas");
            assert!(majority(count) * 2 > count);
        }
    }
}
