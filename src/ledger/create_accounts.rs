//! `create_accounts`: what has to be in memory, then event by event.

use zerocopy::{FromBytes, IntoBytes};

use crate::protocol::status::CreateAccountStatus as Status;
use crate::protocol::to_index;
use crate::protocol::types::{Account, CreateResult, account_flags};
use crate::ready;
use crate::storage::fetch::Fetch;
use crate::storage::find::FindTimestamp;
use crate::storage::store::Store;

use super::Ledger;
use super::account_cache::{AccountCache, ROW_NONE, SLOT_NONE};
use super::chain::{ChainEnd, Frame, FrameEvent, FrameFailure};
use super::counters::count_results;
use super::creates::{Creates, ITEM_KIND_SHIFT};
use super::exists;
use super::transfer_rules::has;
use super::work::{Task, insert_pinned, load_pinned};

/// Bring the account with the event's id into the cache.
const ITEM_ACCOUNT: u32 = 0;
/// Does a transfer have the event's timestamp?
const ITEM_TIMESTAMP: u32 = 1;

const EVENT_SIZE: usize = size_of::<Account>();

/// The event at `index` of a request, counted over all its batches.
fn event_at(body: &[u8], index: u32) -> Account {
    let start = to_index(index) * EVENT_SIZE;
    Account::read_from_bytes(&body[start..start + EVENT_SIZE]).expect("the size is right")
}

fn is_valid_id(id: u128) -> bool {
    id != 0 && id != u128::MAX
}

/// What the lookups of a request work on.
struct Context<'a> {
    store: &'a mut Store,
    cache: &'a mut AccountCache,
    creates: &'a mut Creates,
    body: &'a [u8],
}

fn run_task(context: &mut Context<'_>, task: &mut Task) -> Fetch<()> {
    let index = task.item & ((1 << ITEM_KIND_SHIFT) - 1);
    let event = event_at(context.body, index);
    match task.item >> ITEM_KIND_SHIFT {
        ITEM_ACCOUNT => {
            let slot = ready!(load_pinned(context.store, context.cache, &mut task.load, event.id));
            context.creates.slots_mut(index)[0] = slot;
        }
        ITEM_TIMESTAMP => {
            let find =
                task.find_timestamp.get_or_insert_with(|| FindTimestamp::new(event.timestamp));
            let is_taken = ready!(context.store.find_transfer_timestamp(find));
            context.creates.detail_mut(index).timestamp_is_taken = is_taken;
        }
        _ => unreachable!("there are two kinds of items"),
    }
    Fetch::Ready(())
}

impl Ledger {
    /// Lists what has to be looked up; most accounts are new or cached.
    pub(super) fn accounts_prefetch_start(&mut self, body: &[u8]) {
        let events = self.batches.events_total();
        self.creates.begin(events, self.store.events_rows());
        self.work.clear();
        let mut id_before = 0;
        for index in 0..events {
            let event = event_at(body, index);
            self.creates.ids_ascend &= event.id > id_before;
            id_before = event.id;
            if is_valid_id(event.id) {
                let slot = self.cache.find_pinned(event.id);
                if slot == SLOT_NONE {
                    self.work.push(ITEM_ACCOUNT << ITEM_KIND_SHIFT | index);
                } else {
                    self.creates.slots_mut(index)[0] = slot;
                }
            }
            if has(event.flags, account_flags::IMPORTED)
                && (1..=self.state.transfer_timestamp_max).contains(&event.timestamp)
            {
                self.work.push(ITEM_TIMESTAMP << ITEM_KIND_SHIFT | index);
            }
        }
    }

    /// Goes on looking up.
    pub(super) fn accounts_prefetch(&mut self, body: &[u8]) -> Fetch<()> {
        let Ledger { store, cache, creates, work, .. } = self;
        work.drive(&mut Context { store, cache, creates, body }, run_task)
    }

    /// Executes all events of all batches: the size of the reply's body in bytes.
    pub(super) fn accounts_execute(&mut self, body: &[u8], reply: &mut [u8]) -> u32 {
        while !self.batches.is_done() {
            let mut frame = self.batch_frame();
            let before = self.batches.events_before();
            for index in 0..self.batches.events() {
                let event = event_at(body, before + index);
                self.account_execute(&mut frame, index, before + index, &event, reply);
            }
            assert!(!self.scope.is_open(), "chains end within their batch");
            self.batches.finish_batch();
        }
        count_results(&mut self.counters.accounts, self.batches.answered(reply));
        self.batches.finish(reply)
    }

    fn account_execute(
        &mut self,
        frame: &mut Frame,
        index: u32,
        index_in_request: u32,
        event: &Account,
        reply: &mut [u8],
    ) {
        let frame_event = FrameEvent {
            linked: has(event.flags, account_flags::LINKED),
            imported: has(event.flags, account_flags::IMPORTED),
            timestamp: event.timestamp,
        };
        if frame.opens_chain(&frame_event) {
            self.scope.start(&self.store, &self.state);
        }
        let event_timestamp = frame.event_timestamp(index);
        let (status, timestamp) = match frame.enter(index, &frame_event) {
            Err(failure) => (frame_status(failure), event_timestamp),
            Ok(()) => self.account_create(event, index_in_request, event_timestamp),
        };
        let result = CreateResult { timestamp, status: status.number(), reserved: 0 };
        self.batches.push(reply, result.as_bytes());
        match frame.leave(index, &frame_event, status == Status::Created) {
            ChainEnd::Open => {}
            ChainEnd::Committed => self.scope.commit(),
            ChainEnd::Broken { start } => {
                self.scope.undo(&mut self.store, &mut self.cache, &mut self.state);
                for undone in start..index {
                    let failed = Status::LinkedEventFailed.number();
                    self.batches.set_status(reply, undone, failed);
                }
            }
        }
    }

    /// The content of one event: status and timestamp of its result.
    fn account_create(
        &mut self,
        event: &Account,
        index_in_request: u32,
        event_timestamp: u64,
    ) -> (Status, u64) {
        if let Err(status) = check_front(event) {
            return (status, event_timestamp);
        }
        let mut slot = self.creates.slots(index_in_request)[0];
        if slot == SLOT_NONE && !self.creates.ids_ascend {
            // An earlier event of this request may have created it: then it is still pinned.
            slot = self.cache.find_pinned(event.id);
        }
        if slot != SLOT_NONE {
            let existing = &self.cache.entry(slot).account;
            assert!(existing.id == event.id);
            let status = exists::account(event, existing);
            let exists = status == Status::Exists;
            return (status, if exists { existing.timestamp } else { event_timestamp });
        }
        if let Err(status) = check_rest(event) {
            return (status, event_timestamp);
        }
        let mut account = *event;
        if has(event.flags, account_flags::IMPORTED) {
            let detail = self.creates.detail(index_in_request);
            if event.timestamp <= self.state.account_timestamp_max
                || detail.is_some_and(|detail| detail.timestamp_is_taken)
            {
                return (Status::ImportedEventTimestampMustNotRegress, event_timestamp);
            }
        } else {
            account.timestamp = event_timestamp;
        }
        assert!(
            account.timestamp > self.state.account_timestamp_max,
            "timestamps of accounts only rise"
        );
        self.state.account_timestamp_max = account.timestamp;
        self.store.append_account(&account);
        let slot = insert_pinned(&mut self.store, &mut self.cache, &account, ROW_NONE);
        self.scope.was_created(slot);
        (Status::Created, account.timestamp)
    }
}

/// Rows 1 to 4, before the id is looked up.
fn check_front(event: &Account) -> Result<(), Status> {
    if event.reserved != 0 {
        return Err(Status::ReservedField);
    }
    if has(event.flags, !account_flags::ALL) {
        return Err(Status::ReservedFlag);
    }
    if event.id == 0 {
        return Err(Status::IdMustNotBeZero);
    }
    if event.id == u128::MAX {
        return Err(Status::IdMustNotBeIntMax);
    }
    Ok(())
}

/// Rows 6 to 12, after it.
fn check_rest(event: &Account) -> Result<(), Status> {
    if has(event.flags, account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS)
        && has(event.flags, account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS)
    {
        return Err(Status::FlagsAreMutuallyExclusive);
    }
    if event.debits_pending != 0 {
        return Err(Status::DebitsPendingMustBeZero);
    }
    if event.debits_posted != 0 {
        return Err(Status::DebitsPostedMustBeZero);
    }
    if event.credits_pending != 0 {
        return Err(Status::CreditsPendingMustBeZero);
    }
    if event.credits_posted != 0 {
        return Err(Status::CreditsPostedMustBeZero);
    }
    if event.ledger == 0 {
        return Err(Status::LedgerMustNotBeZero);
    }
    if event.code == 0 {
        return Err(Status::CodeMustNotBeZero);
    }
    Ok(())
}

fn frame_status(failure: FrameFailure) -> Status {
    match failure {
        FrameFailure::LinkedEventChainOpen => Status::LinkedEventChainOpen,
        FrameFailure::LinkedEventFailed => Status::LinkedEventFailed,
        FrameFailure::ImportedEventNotExpected => Status::ImportedEventNotExpected,
        FrameFailure::ImportedEventExpected => Status::ImportedEventExpected,
        FrameFailure::TimestampOutOfRange => Status::ImportedEventTimestampOutOfRange,
        FrameFailure::TimestampMustNotAdvance => Status::ImportedEventTimestampMustNotAdvance,
        FrameFailure::TimestampMustBeZero => Status::TimestampMustBeZero,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each rule about the event itself hides all later ones.
    #[test]
    fn precedence() {
        let mut event = Account {
            id: 0,
            reserved: 1,
            flags: 0x40 | 2 | 4,
            debits_pending: 1,
            debits_posted: 1,
            credits_pending: 1,
            credits_posted: 1,
            ..Account::default()
        };
        let mut expect = |change: fn(&mut Account), status| {
            let checked = check_front(&event).and_then(|()| check_rest(&event));
            assert_eq!(checked, Err(status));
            change(&mut event);
        };
        expect(|e| e.reserved = 0, Status::ReservedField);
        expect(|e| e.flags = 6, Status::ReservedFlag);
        expect(|e| e.id = u128::MAX, Status::IdMustNotBeZero);
        expect(|e| e.id = 1, Status::IdMustNotBeIntMax);
        expect(|e| e.flags = 2, Status::FlagsAreMutuallyExclusive);
        expect(|e| e.debits_pending = 0, Status::DebitsPendingMustBeZero);
        expect(|e| e.debits_posted = 0, Status::DebitsPostedMustBeZero);
        expect(|e| e.credits_pending = 0, Status::CreditsPendingMustBeZero);
        expect(|e| e.credits_posted = 0, Status::CreditsPostedMustBeZero);
        expect(|e| e.ledger = 1, Status::LedgerMustNotBeZero);
        expect(|e| e.code = 1, Status::CodeMustNotBeZero);
        assert_eq!(check_front(&event).and_then(|()| check_rest(&event)), Ok(()));
    }
}
