//! The position of a stream: the newest record of each kind that it has passed, with a checksum, so
//! that another history is recognized.

use zerocopy::IntoBytes;

use crate::protocol::checksum;
use crate::protocol::types::{Account, ChangeEvent, TIMESTAMP_MAX, change_event_type};

/// The kind of a record. Timestamps rise within a kind in the order of commits, see
/// [`stream`](super::stream). Events of one moment come in the order of their kinds here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A pending transfer expired.
    Expiry,
    /// An account was created.
    Account,
    /// A transfer was created.
    Transfer,
}

impl Kind {
    /// Returns the name in a cursor file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Transfer => "transfer",
            Kind::Expiry => "expiry",
            Kind::Account => "account",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Kind> {
        [Kind::Transfer, Kind::Expiry, Kind::Account].into_iter().find(|kind| kind.name() == name)
    }
}

/// An event of the stream.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are change events")]
pub enum Event {
    /// A transfer was created or has expired.
    Change(ChangeEvent),
    /// An account was created. The record is the account of now; only [`Account::created`] is
    /// compared and printed.
    Account(Account),
}

impl Event {
    /// Returns the kind of its record.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Event::Account(_) => Kind::Account,
            Event::Change(event) if event.type_ == change_event_type::TWO_PHASE_EXPIRED => {
                Kind::Expiry
            }
            Event::Change(_) => Kind::Transfer,
        }
    }

    /// Returns the timestamp of its record, in nanoseconds since 1970. An imported record has the
    /// timestamp that it was imported with.
    #[must_use]
    pub fn timestamp(&self) -> u64 {
        match self {
            Event::Change(event) => event.timestamp,
            Event::Account(account) => account.timestamp,
        }
    }

    /// Returns the checksum of the parts that never change.
    #[must_use]
    pub fn checksum(&self) -> u128 {
        match self {
            Event::Change(event) => checksum(event.as_bytes()),
            Event::Account(account) => checksum(account.created().as_bytes()),
        }
    }

    fn mark(&self) -> Mark {
        let identity = Identity { kind: self.kind(), checksum: self.checksum() };
        Mark { timestamp: self.timestamp(), identity: Some(identity) }
    }
}

/// Distinguishes an event from all others of the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The kind of its record.
    pub kind: Kind,
    /// See [`Event::checksum`].
    pub checksum: u128,
}

/// A moment, and the event that was seen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The moment, in nanoseconds since 1970.
    pub timestamp: u64,
    /// The event; `None` if none was seen there, or the cursor is of a release that kept none.
    pub identity: Option<Identity>,
}

/// The position of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The highest timestamp that was passed. Records that are not imported come after it.
    pub newest: Mark,
    /// The newest transfer that was passed: all transfers up to it were passed.
    pub transfer: Mark,
    /// The newest account that was passed: all accounts up to it were passed.
    pub account: Mark,
}

impl Position {
    /// Returns the position just before a moment.
    ///
    /// # Panics
    ///
    /// If the timestamp is not a valid one.
    #[must_use]
    pub fn before(timestamp: u64) -> Position {
        assert!((1..=TIMESTAMP_MAX).contains(&timestamp));
        let mark = Mark { timestamp: timestamp - 1, identity: None };
        Position { newest: mark, transfer: mark, account: mark }
    }

    /// Whether a stream can have this position.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let Position { newest, transfer, account } = self;
        transfer.timestamp <= newest.timestamp
            && account.timestamp <= newest.timestamp
            && newest.timestamp <= TIMESTAMP_MAX
    }

    /// Whether this event can be the next one of its kind.
    #[must_use]
    pub fn admits(&self, event: &Event) -> bool {
        let timestamp = event.timestamp();
        let last = match event.kind() {
            Kind::Transfer => self.transfer,
            Kind::Account => self.account,
            Kind::Expiry => self.newest,
        };
        timestamp > last.timestamp && timestamp <= TIMESTAMP_MAX
    }

    /// Moves past an event.
    ///
    /// # Panics
    ///
    /// If the event is not admitted.
    pub fn pass(&mut self, event: &Event) {
        assert!(self.admits(event), "timestamps rise within a kind");
        let mark = event.mark();
        match event.kind() {
            Kind::Transfer => self.transfer = mark,
            Kind::Account => self.account = mark,
            Kind::Expiry => {}
        }
        if mark.timestamp >= self.newest.timestamp {
            self.newest = mark;
        }
        assert!(self.is_valid());
    }

    /// Returns the marks of events that a ledger must have if the position is of its history, each
    /// once.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::with_capacity(3);
        for mark in [self.newest, self.transfer, self.account] {
            if mark.identity.is_some() && !marks.contains(&mark) {
                marks.push(mark);
            }
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::account_flags;

    fn transfer(timestamp: u64) -> Event {
        Event::Change(ChangeEvent { timestamp, ..zerocopy::FromZeros::new_zeroed() })
    }

    fn expiry(timestamp: u64) -> Event {
        let type_ = change_event_type::TWO_PHASE_EXPIRED;
        Event::Change(ChangeEvent { type_, timestamp, ..zerocopy::FromZeros::new_zeroed() })
    }

    /// Goal: each kind has its own progress; a late event does not move the newest one back.
    #[test]
    fn passes() {
        let mut position = Position::before(10);
        position.pass(&transfer(10));
        position.pass(&expiry(20));
        assert_eq!((position.newest.timestamp, position.transfer.timestamp), (20, 10));
        position.pass(&transfer(15));
        assert_eq!((position.newest.timestamp, position.transfer.timestamp), (20, 15));
        position.pass(&Event::Account(Account { timestamp: 12, ..Account::default() }));
        assert_eq!((position.newest.timestamp, position.account.timestamp), (20, 12));
        assert_eq!(position.marks().len(), 3);
        position.pass(&transfer(20));
        assert_eq!(position.newest, position.transfer, "two events of one moment");
        assert_eq!(position.marks().len(), 2);
    }

    /// Goal: the identity of an account is that of its creation; the identity of a change event
    /// covers all its bytes.
    #[test]
    fn identities() {
        let account = Account { id: 1, timestamp: 5, ..Account::default() };
        let used = Account { debits_posted: 7, flags: account_flags::CLOSED, ..account };
        assert_eq!(Event::Account(account).checksum(), Event::Account(used).checksum());
        let other = Account { code: 2, ..account };
        assert_ne!(Event::Account(account).checksum(), Event::Account(other).checksum());
        assert_ne!(transfer(5).checksum(), expiry(5).checksum());
        for kind in [Kind::Transfer, Kind::Expiry, Kind::Account] {
            assert_eq!(Kind::find(kind.name()), Some(kind));
        }
    }
}
