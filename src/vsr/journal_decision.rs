//! What to believe about one slot of the write-ahead log after a restart.
//!
//! The log has two copies of every header: one with the prepare, one in the ring of redundant
//! headers, and the second is written only after the first is durable. A slot can hold only one op
//! that is still *needed*: one after the checkpoint, and no more slots after it than there are.
//! From what both copies are compared with that, and with each other, [`decide`] finds a row of
//! [`TABLE`]. Rows are data, so that a test proves them exhaustive and disjoint. What to do about a
//! faulty slot depends on the cluster: with peers it is fetched, alone it is fatal.

/// What the redundant header of the slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HeaderCase {
    /// Does not verify.
    Invalid = 1,
    /// The mark of an empty slot.
    Reserved = 2,
    /// Of an op that the checkpoint covers.
    Old = 4,
    /// Of the op needed.
    Needed = 8,
    /// Of an op that could not be prepared on this checkpoint.
    Beyond = 16,
}

impl HeaderCase {
    /// All of them.
    pub const ALL: [HeaderCase; 5] = [
        HeaderCase::Invalid,
        HeaderCase::Reserved,
        HeaderCase::Old,
        HeaderCase::Needed,
        HeaderCase::Beyond,
    ];
}

/// What the prepare of the slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PrepareCase {
    /// Header or body does not verify.
    Invalid = 1,
    /// Nothing was ever written.
    Blank = 2,
    /// Of an op that the checkpoint covers.
    Old = 4,
    /// The op needed.
    Needed = 8,
    /// Of an op that could not be prepared on this checkpoint.
    Beyond = 16,
}

impl PrepareCase {
    /// All of them.
    pub const ALL: [PrepareCase; 5] = [
        PrepareCase::Invalid,
        PrepareCase::Blank,
        PrepareCase::Old,
        PrepareCase::Needed,
        PrepareCase::Beyond,
    ];
}

/// How the redundant header compares with the prepare's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Relation {
    /// They are not both old or both needed: the cases say it all.
    Apart = 1,
    /// They are identical.
    Same = 2,
    /// They differ; if both are needed, they are of one op.
    Different = 4,
}

impl Relation {
    /// All of them.
    pub const ALL: [Relation; 3] = [Relation::Apart, Relation::Same, Relation::Different];

    /// Whether this relation can hold between a header and a prepare of these cases.
    #[must_use]
    pub fn fits(self, header: HeaderCase, prepare: PrepareCase) -> bool {
        let comparable = matches!(
            (header, prepare),
            (HeaderCase::Old, PrepareCase::Old) | (HeaderCase::Needed, PrepareCase::Needed)
        );
        comparable == (self != Relation::Apart)
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The prepare is there.
    Keep,
    /// The prepare is there; its redundant header must be written again.
    RepairHeader,
    /// The prepare is there, and the redundant header is of another one of the same op. Either was
    /// written last and may have been acknowledged: a view takes the place of what an earlier one
    /// had, or brings back what a later one that came to nothing had replaced. So neither is given
    /// up, and the header stays as it is. Alone, where nothing is brought back, the later view's
    /// was the last.
    Either,
    /// The op needed was never written here.
    Empty,
    /// Nothing is here, and the header that would say so is damaged: what was read may be another
    /// place, or what was written may have gone to one. Alone, there is nobody to ask.
    Unproven,
    /// The op needed was being written when the power went, or nothing needed has rotted: no
    /// prepare that matters was ever acknowledged.
    Torn,
    /// The op of the redundant header may have been acknowledged, and what is here is not it.
    FaultyKnown(&'static str),
    /// The op needed may have been acknowledged, and nothing here says what it was.
    FaultyUnknown(&'static str),
}

/// One row: applies if header, prepare and relation are all in its sets.
pub struct Row {
    headers: u8,
    prepares: u8,
    relations: u8,
    decision: Decision,
}

impl Row {
    const fn new(headers: u8, prepares: u8, relations: u8, decision: Decision) -> Row {
        Row { headers, prepares, relations, decision }
    }

    fn applies(&self, header: HeaderCase, prepare: PrepareCase, relation: Relation) -> bool {
        self.headers & header as u8 != 0
            && self.prepares & prepare as u8 != 0
            && self.relations & relation as u8 != 0
    }
}

const INVALID: u8 = HeaderCase::Invalid as u8;
const RESERVED: u8 = HeaderCase::Reserved as u8;
const OLD: u8 = HeaderCase::Old as u8;
const NEEDED: u8 = HeaderCase::Needed as u8;
const BEYOND: u8 = HeaderCase::Beyond as u8;
const NOT_BEYOND: u8 = INVALID | RESERVED | OLD | NEEDED;

const PREPARE_INVALID: u8 = PrepareCase::Invalid as u8;
const PREPARE_BLANK: u8 = PrepareCase::Blank as u8;
const PREPARE_OLD: u8 = PrepareCase::Old as u8;
const PREPARE_NEEDED: u8 = PrepareCase::Needed as u8;
const PREPARE_BEYOND: u8 = PrepareCase::Beyond as u8;
const PREPARE_ANY: u8 = 31;

const APART: u8 = Relation::Apart as u8;
const SAME: u8 = Relation::Same as u8;
const DIFFERENT: u8 = Relation::Different as u8;

/// All rows; exactly one applies to any three cases that fit together.
pub const TABLE: [Row; 15] = [
    Row::new(NEEDED, PREPARE_NEEDED, SAME, Decision::Keep),
    // The header was on its way when the power went, or was damaged since.
    Row::new(INVALID | RESERVED | OLD, PREPARE_NEEDED, APART, Decision::RepairHeader),
    // A header follows its prepare: it was on its way, or one of the two writes was lost.
    Row::new(NEEDED, PREPARE_NEEDED, DIFFERENT, Decision::Either),
    Row::new(
        NEEDED,
        PREPARE_BLANK | PREPARE_OLD,
        APART,
        Decision::FaultyKnown("the prepare is missing, but its redundant header is there"),
    ),
    Row::new(NEEDED, PREPARE_INVALID, APART, Decision::FaultyKnown("the prepare is damaged")),
    // The old contents are intact and in their place, so no write of the op needed ever finished. A
    // damaged header proves nothing else.
    Row::new(OLD, PREPARE_OLD, SAME, Decision::Keep),
    Row::new(OLD, PREPARE_OLD, DIFFERENT, Decision::RepairHeader),
    Row::new(INVALID | RESERVED, PREPARE_OLD, APART, Decision::RepairHeader),
    Row::new(RESERVED | OLD, PREPARE_BLANK, APART, Decision::Empty),
    Row::new(INVALID, PREPARE_BLANK, APART, Decision::Unproven),
    // A header that still is the old one proves that no needed prepare was ever durable.
    Row::new(RESERVED | OLD, PREPARE_INVALID, APART, Decision::Torn),
    Row::new(
        INVALID,
        PREPARE_INVALID,
        APART,
        Decision::FaultyUnknown("the prepare and its redundant header are both damaged"),
    ),
    // A slot is used again only when a durable checkpoint covers what it had: the checkpoint of
    // the superblock is not the newest, and what was needed from here is gone.
    Row::new(
        NOT_BEYOND,
        PREPARE_BEYOND,
        APART,
        Decision::FaultyUnknown("the prepare was overwritten by a newer one"),
    ),
    Row::new(
        BEYOND,
        PREPARE_NEEDED,
        APART,
        Decision::FaultyUnknown("the prepare is older than its redundant header"),
    ),
    Row::new(
        BEYOND,
        PREPARE_ANY & !PREPARE_NEEDED,
        APART,
        Decision::FaultyUnknown("the redundant header is of a newer prepare"),
    ),
];

/// The decision for cases that fit together.
///
/// # Panics
///
/// If they do not: the table is exhaustive.
#[must_use]
pub fn decide(header: HeaderCase, prepare: PrepareCase, relation: Relation) -> Decision {
    assert!(relation.fits(header, prepare));
    let row = TABLE.iter().find(|row| row.applies(header, prepare, relation));
    row.expect("the table is exhaustive").decision
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every three cases that fit together, with their decision.
    fn all() -> Vec<(HeaderCase, PrepareCase, Relation)> {
        let mut all = Vec::new();
        for header in HeaderCase::ALL {
            for prepare in PrepareCase::ALL {
                let fits = |relation: &Relation| relation.fits(header, prepare);
                let relations = Relation::ALL.into_iter().filter(fits);
                all.extend(relations.map(|relation| (header, prepare, relation)));
            }
        }
        assert_eq!(all.len(), 23 + 2 * 2);
        all
    }

    /// Goal: exactly one row applies to all cases that fit together, and every row to some.
    #[test]
    fn exhaustive_and_disjoint() {
        let mut used = [0; TABLE.len()];
        for (header, prepare, relation) in all() {
            let mut count = 0;
            for (row, used) in TABLE.iter().zip(&mut used) {
                let applies = row.applies(header, prepare, relation);
                count += u32::from(applies);
                *used += u32::from(applies);
            }
            assert_eq!(count, 1, "{header:?} {prepare:?} {relation:?}");
        }
        assert!(used.iter().all(|used| *used > 0), "{used:?}");
    }

    /// Goal: a slot is only ever given up if its redundant header is of nothing that is needed, and
    /// the prepare is not there; nothing is believed that does not verify.
    #[test]
    fn nothing_acknowledged_is_given_up() {
        for (header, prepare, relation) in all() {
            let decision = decide(header, prepare, relation);
            let given_up = matches!(decision, Decision::Empty | Decision::Torn);
            if header == HeaderCase::Invalid {
                assert!(!given_up, "{prepare:?}: a header that is damaged proves nothing");
            }
            if matches!(header, HeaderCase::Needed | HeaderCase::Beyond)
                || matches!(prepare, PrepareCase::Needed | PrepareCase::Beyond)
            {
                assert!(!given_up, "{header:?} {prepare:?} {relation:?}");
            }
            if matches!(decision, Decision::Keep | Decision::RepairHeader | Decision::Either) {
                assert!(matches!(prepare, PrepareCase::Old | PrepareCase::Needed));
            }
            if header == HeaderCase::Needed && relation != Relation::Same {
                let is_remembered = matches!(decision, Decision::FaultyKnown(_) | Decision::Either);
                assert!(is_remembered || prepare == PrepareCase::Beyond, "{prepare:?}");
            }
            if matches!(decision, Decision::FaultyKnown(_)) {
                assert_eq!(header, HeaderCase::Needed, "the header that is known");
            }
        }
    }
}
