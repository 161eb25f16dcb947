//! What to believe about one slot of the write-ahead log after a restart.
//!
//! The log has two copies of every header: one with the prepare, one in the ring of redundant
//! headers, and the second is written only after the first is durable. From what both say about
//! the op that history needs next, [`decide`] finds a row of [`TABLE`]. Rows are data, so that a
//! test proves them exhaustive and disjoint. What to do about a [`Decision::Faulty`] slot depends
//! on the cluster: with peers it is fetched, alone it is fatal.

/// What the redundant header of the slot is, compared with the op that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HeaderCase {
    /// Does not verify.
    Invalid = 1,
    /// The mark of an empty slot.
    Reserved = 2,
    /// Of an op before the one needed.
    Older = 4,
    /// Of the op needed; identical to the prepare's own, if that is of the op needed too.
    Match = 8,
    /// Of the op needed, but of an earlier view than the prepare.
    Superseded = 16,
    /// Of the op needed, but not of an earlier view than the prepare, which differs.
    Superseding = 32,
    /// Of an op after the one needed.
    Newer = 64,
}

impl HeaderCase {
    /// All of them.
    pub const ALL: [HeaderCase; 7] = [
        HeaderCase::Invalid,
        HeaderCase::Reserved,
        HeaderCase::Older,
        HeaderCase::Match,
        HeaderCase::Superseded,
        HeaderCase::Superseding,
        HeaderCase::Newer,
    ];
}

/// What the prepare of the slot is, compared with the op that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PrepareCase {
    /// Header or body does not verify.
    Invalid = 1,
    /// Nothing was ever written.
    Blank = 2,
    /// Of an op before the one needed.
    Older = 4,
    /// The op needed, whose parent is the op before it.
    Chained = 8,
    /// The op needed, but its parent is another.
    Unchained = 16,
    /// Of an op after the one needed.
    Newer = 32,
}

impl PrepareCase {
    /// All of them.
    pub const ALL: [PrepareCase; 6] = [
        PrepareCase::Invalid,
        PrepareCase::Blank,
        PrepareCase::Older,
        PrepareCase::Chained,
        PrepareCase::Unchained,
        PrepareCase::Newer,
    ];
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The op is there.
    Keep,
    /// The op is there; its redundant header must be written again.
    RepairHeader,
    /// The op was never written here: the log ends before it.
    End,
    /// The op was being written when the power went: it was never acknowledged, and is cut off.
    Cut,
    /// The op may have been acknowledged, and what is here is not it.
    Faulty(&'static str),
}

/// One row: applies if the header's case is in the first set and the prepare's in the second.
pub struct Row {
    headers: u8,
    prepares: u8,
    decision: Decision,
}

const INVALID: u8 = HeaderCase::Invalid as u8;
const RESERVED: u8 = HeaderCase::Reserved as u8;
const OLDER: u8 = HeaderCase::Older as u8;
const MATCH: u8 = HeaderCase::Match as u8;
const SUPERSEDED: u8 = HeaderCase::Superseded as u8;
const SUPERSEDING: u8 = HeaderCase::Superseding as u8;
const NEWER: u8 = HeaderCase::Newer as u8;
const ANY: u8 = 127;
const NEEDED_OR_NEWER: u8 = MATCH | SUPERSEDED | SUPERSEDING | NEWER;
const NOTHING_HERE: u8 = PrepareCase::Blank as u8 | PrepareCase::Older as u8;

/// All rows; exactly one applies to any pair of cases.
pub const TABLE: [Row; 10] = [
    Row { headers: MATCH, prepares: PrepareCase::Chained as u8, decision: Decision::Keep },
    // The header was on its way when the power went, or was damaged since.
    Row {
        headers: INVALID | RESERVED | OLDER | SUPERSEDED,
        prepares: PrepareCase::Chained as u8,
        decision: Decision::RepairHeader,
    },
    // A header follows its prepare: the newer prepare was durable once and is lost.
    Row {
        headers: SUPERSEDING | NEWER,
        prepares: PrepareCase::Chained as u8,
        decision: Decision::Faulty("the prepare is older than its redundant header"),
    },
    Row {
        headers: ANY,
        prepares: PrepareCase::Unchained as u8,
        decision: Decision::Faulty("the prepare does not continue the one before it"),
    },
    Row {
        headers: ANY,
        prepares: PrepareCase::Newer as u8,
        decision: Decision::Faulty("the prepare was overwritten by a newer one"),
    },
    // The old contents are intact, so no write of the op needed ever finished. A damaged header
    // proves nothing else.
    Row { headers: INVALID | RESERVED | OLDER, prepares: NOTHING_HERE, decision: Decision::End },
    Row {
        headers: NEEDED_OR_NEWER,
        prepares: NOTHING_HERE,
        decision: Decision::Faulty("the prepare is missing, but its redundant header is there"),
    },
    // A header that still is the old one proves that the prepare was never durable.
    Row {
        headers: RESERVED | OLDER,
        prepares: PrepareCase::Invalid as u8,
        decision: Decision::Cut,
    },
    Row {
        headers: INVALID,
        prepares: PrepareCase::Invalid as u8,
        decision: Decision::Faulty("the prepare and its redundant header are both damaged"),
    },
    Row {
        headers: NEEDED_OR_NEWER,
        prepares: PrepareCase::Invalid as u8,
        decision: Decision::Faulty("the prepare is damaged"),
    },
];

/// The decision for a pair of cases.
///
/// # Panics
///
/// Never: the table is exhaustive.
#[must_use]
pub fn decide(header: HeaderCase, prepare: PrepareCase) -> Decision {
    let applies = |row: &&Row| row.headers & header as u8 != 0 && row.prepares & prepare as u8 != 0;
    TABLE.iter().find(applies).expect("the table is exhaustive").decision
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: exactly one row applies to every pair of cases.
    #[test]
    fn exhaustive_and_disjoint() {
        for header in HeaderCase::ALL {
            for prepare in PrepareCase::ALL {
                let applies = |row: &&Row| {
                    row.headers & header as u8 != 0 && row.prepares & prepare as u8 != 0
                };
                assert_eq!(TABLE.iter().filter(applies).count(), 1, "{header:?} {prepare:?}");
            }
        }
    }

    /// Goal: an op is only ever given up if its redundant header does not exist.
    #[test]
    fn nothing_acknowledged_is_cut() {
        for header in
            [HeaderCase::Match, HeaderCase::Superseded, HeaderCase::Superseding, HeaderCase::Newer]
        {
            for prepare in PrepareCase::ALL {
                let decision = decide(header, prepare);
                assert!(!matches!(decision, Decision::Cut | Decision::End), "{header:?}");
            }
        }
        for header in HeaderCase::ALL {
            let decision = decide(header, PrepareCase::Chained);
            assert!(!matches!(decision, Decision::Cut | Decision::End), "{header:?}");
        }
    }
}
