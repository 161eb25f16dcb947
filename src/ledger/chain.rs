//! The frame around each event of a create batch: linked chains and the imported rule, and what
//! it takes to undo a chain.

use crate::protocol::types::{TIMESTAMP_MAX, TIMESTAMP_MIN};
use crate::storage::store::Store;

use super::account_cache::AccountCache;
use super::state::State;

/// Why the frame refuses an event before its content is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameFailure {
    LinkedEventChainOpen,
    LinkedEventFailed,
    ImportedEventNotExpected,
    ImportedEventExpected,
    TimestampOutOfRange,
    TimestampMustNotAdvance,
    TimestampMustBeZero,
}

/// What the frame has to know of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameEvent {
    pub linked: bool,
    pub imported: bool,
    /// As sent.
    pub timestamp: u64,
}

/// What an event means for the chain it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainEnd {
    /// Nothing ends here.
    Open,
    /// All effects become permanent.
    Committed,
    /// The chain breaks: everything from event `start` on is undone.
    Broken { start: u32 },
}

/// State kept through one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Of the batch.
    commit_timestamp: u64,
    events: u32,
    /// The first event is imported, and so must be all.
    imported: bool,
    /// First event of the open chain.
    chain_start: Option<u32>,
    chain_broken: bool,
}

impl Frame {
    /// Before the first event.
    pub fn new(commit_timestamp: u64, events: u32) -> Frame {
        Frame { commit_timestamp, events, imported: false, chain_start: None, chain_broken: false }
    }

    /// The timestamp that the clock gives to an event.
    pub fn event_timestamp(&self, index: u32) -> u64 {
        assert!(index < self.events);
        self.commit_timestamp - u64::from(self.events) + u64::from(index) + 1
    }

    /// Whether event `index` opens a chain: then what follows can be undone, the event included.
    pub fn opens_chain(&self, event: &FrameEvent) -> bool {
        event.linked && self.chain_start.is_none()
    }

    /// The rules that come before the content of an event, first match wins.
    pub fn enter(&mut self, index: u32, event: &FrameEvent) -> Result<(), FrameFailure> {
        assert!(index < self.events);
        if index == 0 {
            self.imported = event.imported;
        }
        if event.linked {
            if self.chain_start.is_none() {
                assert!(!self.chain_broken);
                self.chain_start = Some(index);
            }
            if index + 1 == self.events {
                return Err(FrameFailure::LinkedEventChainOpen);
            }
        }
        if self.chain_broken {
            return Err(FrameFailure::LinkedEventFailed);
        }
        if event.imported != self.imported {
            return Err(if event.imported {
                FrameFailure::ImportedEventNotExpected
            } else {
                FrameFailure::ImportedEventExpected
            });
        }
        if event.imported {
            if !(TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&event.timestamp) {
                return Err(FrameFailure::TimestampOutOfRange);
            }
            if event.timestamp >= self.commit_timestamp {
                return Err(FrameFailure::TimestampMustNotAdvance);
            }
        } else if event.timestamp != 0 {
            return Err(FrameFailure::TimestampMustBeZero);
        }
        Ok(())
    }

    /// After an event: what becomes of its chain. `Broken` comes once per chain, at the event
    /// that breaks it.
    pub fn leave(&mut self, index: u32, event: &FrameEvent, created: bool) -> ChainEnd {
        let Some(start) = self.chain_start else {
            return ChainEnd::Open;
        };
        let breaks = !created && !self.chain_broken;
        self.chain_broken |= breaks;
        let is_last = !event.linked || index + 1 == self.events;
        let committed = is_last && !self.chain_broken;
        if is_last {
            self.chain_start = None;
            self.chain_broken = false;
        }
        if breaks {
            ChainEnd::Broken { start }
        } else if committed {
            ChainEnd::Committed
        } else {
            ChainEnd::Open
        }
    }
}

/// An account before a change.
#[derive(Clone, Copy, Debug)]
struct Change {
    slot: u32,
    flags: u16,
    debits_pending: u128,
    debits_posted: u128,
    credits_pending: u128,
    credits_posted: u128,
    newest_row: u64,
}

/// Everything that changed since a chain opened, so that it can be undone.
#[derive(Debug)]
pub(super) struct Scope {
    open: bool,
    event_rows: u64,
    account_rows: u64,
    state: State,
    changes: Vec<Change>,
    created: Vec<u32>,
}

impl Scope {
    /// Room for `events_max` events, each of which changes two accounts or creates one.
    pub fn new(events_max: usize) -> Scope {
        Scope {
            open: false,
            event_rows: 0,
            account_rows: 0,
            state: State::default(),
            changes: Vec::with_capacity(events_max * 2),
            created: Vec::with_capacity(events_max),
        }
    }

    /// Bytes that the lists occupy.
    pub fn memory_bytes(events_max: usize) -> u64 {
        let event = 2 * size_of::<Change>() + size_of::<u32>();
        u64::try_from(events_max * event).expect("memory sizes fit 64 bits")
    }

    /// From here on everything can be undone.
    pub fn start(&mut self, store: &Store, state: &State) {
        assert!(!self.open, "chains do not nest");
        self.open = true;
        self.event_rows = store.events_rows();
        self.account_rows = store.accounts_rows();
        self.state = *state;
        self.changes.clear();
        self.created.clear();
    }

    /// Remembers an account before it changes.
    #[inline]
    pub fn will_change(&mut self, cache: &AccountCache, slot: u32) {
        if !self.open {
            return;
        }
        assert!(self.changes.len() < self.changes.capacity(), "an event changes two accounts");
        let entry = cache.entry(slot);
        self.changes.push(Change {
            slot,
            flags: entry.account.flags,
            debits_pending: entry.account.debits_pending,
            debits_posted: entry.account.debits_posted,
            credits_pending: entry.account.credits_pending,
            credits_posted: entry.account.credits_posted,
            newest_row: entry.newest_row,
        });
    }

    /// Remembers that an account was created.
    pub fn was_created(&mut self, slot: u32) {
        if self.open {
            assert!(self.created.len() < self.created.capacity(), "an event creates one account");
            self.created.push(slot);
        }
    }

    /// Everything stays as it is.
    pub fn commit(&mut self) {
        assert!(self.open);
        self.open = false;
    }

    /// Everything is as it was at the start.
    pub fn undo(&mut self, store: &mut Store, cache: &mut AccountCache, state: &mut State) {
        assert!(self.open);
        self.open = false;
        for change in self.changes.iter().rev() {
            let entry = cache.entry_mut(change.slot);
            entry.account.flags = change.flags;
            entry.account.debits_pending = change.debits_pending;
            entry.account.debits_posted = change.debits_posted;
            entry.account.credits_pending = change.credits_pending;
            entry.account.credits_posted = change.credits_posted;
            entry.newest_row = change.newest_row;
        }
        for slot in self.created.iter().rev() {
            cache.remove(*slot);
        }
        if crate::mutated!("drop_chain_rollback") {
            return;
        }
        if store.events_rows() > self.event_rows {
            store.truncate_events(self.event_rows);
        }
        if store.accounts_rows() > self.account_rows {
            store.truncate_accounts(self.account_rows);
        }
        *state = self.state;
    }

    /// Nothing may be open between batches.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(linked: bool) -> FrameEvent {
        FrameEvent { linked, imported: false, timestamp: 0 }
    }

    /// Goal: a chain ends with its first event that is not linked, and commits if none failed.
    #[test]
    fn chain_commits() {
        let mut frame = Frame::new(100, 3);
        assert!(frame.opens_chain(&event(true)));
        assert_eq!(frame.enter(0, &event(true)), Ok(()));
        assert_eq!(frame.leave(0, &event(true), true), ChainEnd::Open);
        assert!(!frame.opens_chain(&event(true)));
        assert_eq!(frame.enter(1, &event(false)), Ok(()));
        assert_eq!(frame.leave(1, &event(false), true), ChainEnd::Committed);
        assert_eq!(frame.enter(2, &event(false)), Ok(()));
        assert_eq!(frame.leave(2, &event(false), false), ChainEnd::Open);
    }

    /// Goal: a chain breaks once; later events of it fail, the next chain is a new one.
    #[test]
    fn chain_breaks() {
        let mut frame = Frame::new(100, 6);
        assert_eq!(frame.enter(0, &event(true)), Ok(()));
        assert_eq!(frame.leave(0, &event(true), true), ChainEnd::Open);
        assert_eq!(frame.enter(1, &event(true)), Ok(()));
        assert_eq!(frame.leave(1, &event(true), false), ChainEnd::Broken { start: 0 });
        assert_eq!(frame.enter(2, &event(true)), Err(FrameFailure::LinkedEventFailed));
        assert_eq!(frame.leave(2, &event(true), false), ChainEnd::Open);
        assert_eq!(frame.enter(3, &event(false)), Err(FrameFailure::LinkedEventFailed));
        assert_eq!(frame.leave(3, &event(false), false), ChainEnd::Open);
        assert_eq!(frame.enter(4, &event(false)), Ok(()));
        assert_eq!(frame.leave(4, &event(false), true), ChainEnd::Open);
        let last = event(true);
        assert_eq!(frame.enter(5, &last), Err(FrameFailure::LinkedEventChainOpen));
        assert_eq!(frame.leave(5, &last, false), ChainEnd::Broken { start: 5 });
    }

    /// Goal: an open chain at the end of a broken one is still reported as open.
    #[test]
    fn chain_open_beats_failed() {
        let mut frame = Frame::new(100, 2);
        assert_eq!(frame.enter(0, &event(true)), Ok(()));
        assert_eq!(frame.leave(0, &event(true), false), ChainEnd::Broken { start: 0 });
        assert_eq!(frame.enter(1, &event(true)), Err(FrameFailure::LinkedEventChainOpen));
        assert_eq!(frame.leave(1, &event(true), false), ChainEnd::Open);
    }

    /// Goal: the first event decides whether the batch is imported, and times are judged so.
    #[test]
    fn imported() {
        let imported = |timestamp| FrameEvent { linked: false, imported: true, timestamp };
        let mut frame = Frame::new(100, 9);
        assert_eq!(frame.enter(0, &imported(0)), Err(FrameFailure::TimestampOutOfRange));
        assert_eq!(frame.enter(1, &imported(1 << 63)), Err(FrameFailure::TimestampOutOfRange));
        assert_eq!(frame.enter(2, &imported(100)), Err(FrameFailure::TimestampMustNotAdvance));
        assert_eq!(frame.enter(3, &imported(99)), Ok(()));
        assert_eq!(frame.enter(4, &event(false)), Err(FrameFailure::ImportedEventExpected));
        let mut frame = Frame::new(100, 9);
        assert_eq!(frame.enter(0, &event(false)), Ok(()));
        assert_eq!(frame.enter(1, &imported(0)), Err(FrameFailure::ImportedEventNotExpected));
        let timed = FrameEvent { timestamp: 1, ..event(false) };
        assert_eq!(frame.enter(2, &timed), Err(FrameFailure::TimestampMustBeZero));
        assert_eq!(frame.event_timestamp(0), 92);
        assert_eq!(frame.event_timestamp(8), 100);
    }
}
