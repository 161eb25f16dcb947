//! Reads the events of a cluster, page after page, so that each comes at least once.
//!
//! # Why no event is missed
//!
//! Events have timestamps, and pages are read by timestamp; but an imported record brings a
//! timestamp of its own, which may be older than what was read already. The ledger guarantees (see
//! `docs/CONCEPTS.md`, "Time"):
//!
//! 1. The timestamp of a transfer, imported or not, is higher than those of all transfers that were
//!    committed before it. The same holds for accounts among accounts.
//! 2. The timestamp of anything that is not imported, and of each expiry, is higher than every
//!    timestamp that was committed before it, since it is that of its own operation.
//!
//! A [`Position`] therefore has three parts: the newest transfer, the newest account, and the
//! newest event of any kind. The invariant: *all transfers up to `transfer`, all accounts up to
//! `account` and all expiries up to `newest` were passed.* By (1) and (2) no record can be
//! committed later at or below its own part, so that a reader that was away for any time finds all
//! that it missed above the three parts. Records that are not imported are above `newest`; imported
//! ones may be between their kind's part and `newest`: these are *late*.
//!
//! A [`round`](Stream::round) keeps the invariant. It reads one page of events above `newest`, and
//! *then* one page of late transfers. As long as there are late ones, only these are passed, and
//! the other page is discarded. If there are none, every transfer that was committed before those
//! of the page, which by (1) includes all that are lower, was passed before or is in the page
//! itself; so the page may move `transfer`. Expiries of the page move `newest`: by (2) none below
//! is missing. Accounts are read last, so that the account of a transfer that is passed is never
//! missing: an account precedes its transfers in commits and in timestamps. Each page ends at the
//! last record that it has, and nothing beyond the earliest of these ends is passed.
//!
//! # The order
//!
//! Events come in the order of their timestamps, but for late ones: those come as soon as they are
//! found, in the order of their own timestamps, and are marked as late. Not covered: where events
//! go ([`delivery`](super::delivery)).

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::position::{Event, Kind, Mark, Position};
use super::selection::Selection;
use crate::cli::exit::Failure;
use crate::cli::patient::{Answered, PatientClient};
use crate::client::ClientError;
use crate::client::page::{Record, check_order};
use crate::protocol::Operation;
use crate::protocol::types::{
    Account, ChangeEvent, ChangeEventsFilter, QueryFilter, TIMESTAMP_MAX, Transfer,
    query_filter_flags,
};

/// An event as it was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The event.
    pub event: Event,
    /// Whether an event with this timestamp or a higher one was passed before it.
    pub is_late: bool,
    /// Whether the selection includes it.
    pub is_wanted: bool,
}

/// The stream. See the module.
#[derive(Debug)]
pub struct Stream {
    client: PatientClient,
    selection: Selection,
    /// The last timestamp that is wanted.
    last: u64,
    position: Position,
    /// The cluster's time when it answered the first question of the last round, if it did.
    now: Option<u64>,
    /// Number of the session in which the ledger was found to have the position.
    checked: u64,
}

/// Events up to a moment.
struct Page {
    events: Vec<Event>,
    /// The events up to this timestamp are all there are.
    complete: u64,
}

impl Page {
    /// Pages end at their last event. An empty one is complete up to the moment of the answer.
    fn new(events: Vec<Event>, now: u64) -> Page {
        let complete = events.last().map_or(now, Event::timestamp);
        Page { events, complete }
    }

    /// The page of a question that is not asked, since no event can match it.
    fn none() -> Page {
        Page { events: Vec::new(), complete: TIMESTAMP_MAX }
    }
}

impl Stream {
    /// A stream of a cluster that begins at its first event.
    #[must_use]
    pub fn new(client: PatientClient, selection: Selection) -> Stream {
        let position = Position::before(1);
        Stream { client, selection, last: TIMESTAMP_MAX, position, now: None, checked: 0 }
    }

    /// Continues at this position.
    pub fn seek(&mut self, position: Position) {
        self.position = position;
    }

    /// Ends after events of this moment.
    pub fn limit(&mut self, last: u64) {
        self.last = last;
    }

    /// How far the stream has come.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Returns the number of the client's session.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.client.sessions()
    }

    /// Whether the ledger was found to have the position in this session. Another ledger may answer
    /// in the next session.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.checked == self.session()
    }

    /// Records that the ledger of this session has the position.
    pub fn set_checked(&mut self, session: u64) {
        self.checked = session;
    }

    /// Whether all events of the range were passed, if the last round found none.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.now.is_some_and(|now| now > self.last)
    }

    /// Asks for the cluster's time; `None` if the user ends the stream.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn time(&mut self) -> Result<Option<u64>, Failure> {
        let answered = self.changes(events_filter(1, 1))?;
        Ok(answered.map(|answered| answered.timestamp))
    }

    /// Finds the position after which all later commits come, imported or not; `None` if the user
    /// ends the stream.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn present(&mut self) -> Result<Option<Position>, Failure> {
        let newest = QueryFilter { limit: 1, flags: query_filter_flags::REVERSED, ..query(1, 0) };
        let Some(accounts) = self.accounts_by(newest)? else { return Ok(None) };
        let Some(transfers) = self.transfers_by(newest)? else { return Ok(None) };
        let now = transfers.timestamp;
        let transfer = transfers.results.first().map_or(0, |transfer| transfer.timestamp);
        let account = accounts.results.first().map_or(0, |account| account.timestamp);
        for (kind, timestamp) in [(Kind::Transfer, transfer), (Kind::Account, account)] {
            if timestamp > now {
                return Err(contradiction(kind.name(), timestamp));
            }
        }
        let mark = |timestamp| Mark { timestamp, identity: None };
        Ok(Some(Position { newest: mark(now), transfer: mark(transfer), account: mark(account) }))
    }

    /// Finds the event of this kind at this timestamp, if any; `None` if the user ends the stream.
    ///
    /// # Errors
    ///
    /// If the cluster fails.
    pub fn event_at(
        &mut self,
        timestamp: u64,
        kind: Kind,
    ) -> Result<Option<Option<Event>>, Failure> {
        // Another history answers otherwise, which is not a contradiction: the answers are compared
        // and not checked.
        if kind == Kind::Account {
            let filter = query(timestamp, timestamp);
            let answered = self.ask::<_, Account>(Operation::QueryAccounts, filter)?;
            return Ok(answered.map(|it| it.results.first().copied().map(Event::Account)));
        }
        let filter = events_filter(timestamp, timestamp);
        let answered = self.ask::<_, ChangeEvent>(Operation::GetChangeEvents, filter)?;
        let find = |found: Vec<ChangeEvent>| {
            found.into_iter().map(Event::Change).find(|event| event.kind() == kind)
        };
        Ok(answered.map(|answered| find(answered.results)))
    }

    /// Finds the next events and passes them: no events if none exist yet, or if the history
    /// [must be checked](Stream::is_checked) first. `None` if the user ends the stream.
    ///
    /// # Errors
    ///
    /// If the cluster fails. If its answers contradict each other, the failure is of the class
    /// [`Corruption`](crate::cli::exit::ExitClass::Corruption), and no event was passed.
    pub fn round(&mut self) -> Result<Option<Vec<Found>>, Failure> {
        self.now = None;
        let Some(events) = self.events()? else { return Ok(None) };
        let Some(accounts) = self.accounts()? else { return Ok(None) };
        if self.now.is_none() && self.time()?.is_none() {
            return Ok(None);
        }
        if !self.is_checked() {
            return Ok(Some(Vec::new()));
        }
        let complete = events.complete.min(accounts.complete);
        let mut all = accounts.events;
        all.extend(events.events);
        all.retain(|event| event.timestamp() <= complete);
        all.sort_by_key(|event| (event.timestamp(), event.kind()));
        let mut position = self.position;
        let mut found = Vec::with_capacity(all.len());
        for event in all {
            if !position.admits(&event) {
                return Err(contradiction(event.kind().name(), event.timestamp()));
            }
            let is_late = event.timestamp() <= position.newest.timestamp;
            position.pass(&event);
            found.push(Found { event, is_late, is_wanted: self.selection.has(&event) });
        }
        self.position = position;
        Ok(Some(found))
    }

    /// The next events of transfers: late ones as long as there are any.
    fn events(&mut self) -> Result<Option<Page>, Failure> {
        if !self.selection.transfers {
            return Ok(Some(Page::none()));
        }
        let newest = self.position.newest.timestamp;
        let mut fresh = Page::none();
        if newest < self.last {
            let Some(answered) = self.changes(events_filter(newest + 1, self.last))? else {
                return Ok(None);
            };
            let events = answered.results.into_iter().map(Event::Change).collect();
            fresh = Page::new(events, answered.timestamp);
        }
        // After the page, see the module.
        let Some(late) = self.late(newest.min(self.last))? else { return Ok(None) };
        Ok(Some(if late.events.is_empty() { fresh } else { late }))
    }

    /// The first transfers that are between the newest one that was passed and this moment.
    fn late(&mut self, until: u64) -> Result<Option<Page>, Failure> {
        let first = self.position.transfer.timestamp + 1;
        if first > until {
            return Ok(Some(Page::none()));
        }
        // There may be any number of expiries before it.
        let one = QueryFilter { limit: 1, ..query(first, until) };
        let Some(found) = self.transfers_by(one)? else { return Ok(None) };
        let Some(transfer) = found.results.first() else { return Ok(Some(Page::none())) };
        let filter = events_filter(transfer.timestamp.clamp(first, until), until);
        let Some(answered) = self.changes(filter)? else { return Ok(None) };
        let is_transfer = |event: &Event| event.kind() == Kind::Transfer;
        let events = answered.results.into_iter().map(Event::Change).filter(is_transfer);
        let events: Vec<Event> = events.collect();
        if events.is_empty() {
            return Err(contradiction("no event of a transfer", transfer.timestamp));
        }
        Ok(Some(Page::new(events, answered.timestamp)))
    }

    /// The next accounts, late or not.
    fn accounts(&mut self) -> Result<Option<Page>, Failure> {
        let first = self.position.account.timestamp + 1;
        if !self.selection.accounts || first > self.last {
            return Ok(Some(Page::none()));
        }
        let Some(answered) = self.accounts_by(query(first, self.last))? else { return Ok(None) };
        let events = answered.results.into_iter().map(Event::Account).collect();
        Ok(Some(Page::new(events, answered.timestamp)))
    }

    fn changes(
        &mut self,
        filter: ChangeEventsFilter,
    ) -> Result<Option<Answered<ChangeEvent>>, Failure> {
        let (first, last) = (filter.timestamp_min, filter.timestamp_max);
        let answered = self.ask::<_, ChangeEvent>(Operation::GetChangeEvents, filter)?;
        check(answered, first, last)
    }

    fn accounts_by(&mut self, filter: QueryFilter) -> Result<Option<Answered<Account>>, Failure> {
        let (first, last) = range_of(&filter);
        let answered = self.ask::<_, Account>(Operation::QueryAccounts, filter)?;
        check(answered, first, last)
    }

    fn transfers_by(&mut self, filter: QueryFilter) -> Result<Option<Answered<Transfer>>, Failure> {
        let (first, last) = range_of(&filter);
        let answered = self.ask::<_, Transfer>(Operation::QueryTransfers, filter)?;
        check(answered, first, last)
    }

    /// Asks one question, and keeps the time of the first answer of a round.
    fn ask<Filter, Outcome>(
        &mut self,
        operation: Operation,
        filter: Filter,
    ) -> Result<Option<Answered<Outcome>>, Failure>
    where
        Filter: IntoBytes + Immutable,
        Outcome: FromBytes,
    {
        let answered = self.client.ask(operation, &[filter])?;
        if let Some(answered) = &answered {
            self.now.get_or_insert(answered.timestamp);
        }
        Ok(answered)
    }
}

/// All events of a range.
fn events_filter(timestamp_min: u64, timestamp_max: u64) -> ChangeEventsFilter {
    assert!(timestamp_min <= timestamp_max);
    let limit = Operation::GetChangeEvents.results_max();
    ChangeEventsFilter { timestamp_min, timestamp_max, limit, ..ChangeEventsFilter::new_zeroed() }
}

/// All accounts or transfers of a range.
fn query(timestamp_min: u64, timestamp_max: u64) -> QueryFilter {
    let limit = Operation::QueryTransfers.results_max();
    QueryFilter { timestamp_min, timestamp_max, limit, ..QueryFilter::new_zeroed() }
}

/// The range of a filter, in which 0 stands for no limit.
fn range_of(filter: &QueryFilter) -> (u64, u64) {
    let last = if filter.timestamp_max == 0 { TIMESTAMP_MAX } else { filter.timestamp_max };
    (filter.timestamp_min, last)
}

/// Checks that the records of an answer are where they must be.
fn check<Row: Record>(
    answered: Option<Answered<Row>>,
    first: u64,
    last: u64,
) -> Result<Option<Answered<Row>>, Failure> {
    let rows = answered.iter().flat_map(|answered| &answered.results);
    check_order(rows.map(Row::place), first, last).map_err(ClientError::Server)?;
    Ok(answered)
}

fn contradiction(what: &str, timestamp: u64) -> Failure {
    Failure::contradiction(format!("{what} at timestamp {timestamp}"))
}
