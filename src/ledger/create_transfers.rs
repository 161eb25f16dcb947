//! `create_transfers`: what has to be in memory, then event by event.
//!
//! Lookups before the first event see the books as they were before the request. What events of
//! the same request do to one another is found synchronously while executing: rows of the
//! request are in memory, and so are all its accounts, pinned.

use zerocopy::{FromBytes, IntoBytes};

use crate::protocol::status::CreateTransferStatus as Status;
use crate::protocol::to_index;
use crate::protocol::types::{CreateResult, Transfer, transfer_flags};
use crate::ready;
use crate::storage::fetch::Fetch;
use crate::storage::find::FindTimestamp;
use crate::storage::rows::{EventKind, is_orphan};
use crate::storage::store::Store;

use super::Ledger;
use super::account_cache::{AccountCache, SLOT_NONE};
use super::apply::Books;
use super::chain::{ChainEnd, Frame, FrameEvent, FrameFailure};
use super::counters::count_results;
use super::creates::{Creates, ITEM_KIND_SHIFT, PendingDetail};
use super::transfer_rules::{self, ImportFacts, has};
use super::work::{Task, load_pinned};
use super::{exists, post_void};

/// Read the row that has the event's id.
const ITEM_EXISTING: u32 = 0;
/// Bring the debit account into the cache.
const ITEM_DEBIT: u32 = 1;
/// Bring the credit account into the cache.
const ITEM_CREDIT: u32 = 2;
/// Find the transfer to post or void, its resolution and its accounts.
const ITEM_PENDING: u32 = 3;
/// Does an account have the event's timestamp?
const ITEM_TIMESTAMP: u32 = 4;

const EVENT_SIZE: usize = size_of::<Transfer>();
/// Events whose accounts are looked up together, so that cache misses overlap.
const GROUP: usize = to_index(GROUP_EVENTS);
const GROUP_EVENTS: u32 = 32;
/// How many events ahead the index of ids is brought into the processor's cache.
const AHEAD: u32 = 8;

/// The event at `index` of a request, counted over all its batches.
#[inline]
fn event_at(body: &[u8], index: u32) -> Transfer {
    let start = to_index(index) * EVENT_SIZE;
    Transfer::read_from_bytes(&body[start..start + EVENT_SIZE]).expect("the size is right")
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
        ITEM_EXISTING => return run_existing(context, task, index, &event),
        ITEM_DEBIT => {
            let id = event.debit_account_id;
            let slot = ready!(load_pinned(context.store, context.cache, &mut task.load, id));
            context.creates.slots_mut(index)[0] = slot;
        }
        ITEM_CREDIT => {
            let id = event.credit_account_id;
            let slot = ready!(load_pinned(context.store, context.cache, &mut task.load, id));
            context.creates.slots_mut(index)[1] = slot;
        }
        ITEM_PENDING => return run_pending(context, task, index, &event),
        ITEM_TIMESTAMP => {
            let find =
                task.find_timestamp.get_or_insert_with(|| FindTimestamp::new(event.timestamp));
            let is_taken = ready!(context.store.find_account_timestamp(find));
            context.creates.detail_mut(index).timestamp_is_taken = is_taken;
        }
        _ => unreachable!("there are five kinds of items"),
    }
    Fetch::Ready(())
}

fn run_existing(
    context: &mut Context<'_>,
    task: &mut Task,
    index: u32,
    event: &Transfer,
) -> Fetch<()> {
    if task.stage == 0 {
        let find = task.find.get_or_insert_with(|| context.store.find_transfer_start(event.id));
        let Some(row) = ready!(context.store.find(find)) else {
            return Fetch::Ready(());
        };
        task.row = row;
        task.advance(1);
    }
    let existing = ready!(context.store.transfer(task.row));
    assert!(existing.id == event.id, "found rows are verified");
    context.creates.detail_mut(index).existing = Some(existing);
    Fetch::Ready(())
}

/// Stages: the transfer's row, the transfer, its resolution's row, the resolution, the accounts.
fn run_pending(
    context: &mut Context<'_>,
    task: &mut Task,
    index: u32,
    event: &Transfer,
) -> Fetch<()> {
    let Context { store, cache, creates, .. } = context;
    if task.stage == 0 {
        let find = task.find.get_or_insert_with(|| store.find_transfer_start(event.pending_id));
        let Some(row) = ready!(store.find(find)) else {
            return Fetch::Ready(());
        };
        task.row = row;
        task.advance(1);
    }
    if task.stage == 1 {
        let transfer = ready!(store.transfer(task.row));
        assert!(transfer.id == event.pending_id, "found rows are verified");
        if is_orphan(&transfer) {
            return Fetch::Ready(());
        }
        let pending = PendingDetail { row: task.row, transfer, resolution: None };
        creates.detail_mut(index).pending = Some(pending);
        if !has(transfer.flags, transfer_flags::PENDING) {
            return Fetch::Ready(());
        }
        task.advance(2);
    }
    let pending = creates.detail_mut(index).pending.as_mut().expect("set in stage 1");
    if task.stage == 2 {
        let find = task.find.get_or_insert_with(|| store.find_resolution_start(pending.row));
        if let Some(row) = ready!(store.find(find)) {
            task.row = row;
            task.advance(3);
        } else {
            task.advance(4);
        }
    }
    if task.stage == 3 {
        let kind = ready!(store.balances(task.row)).event_kind();
        pending.resolution = Some(kind.expect("rows have a known kind"));
        task.advance(4);
    }
    let accounts = [pending.transfer.debit_account_id, pending.transfer.credit_account_id];
    if task.stage == 4 {
        creates.slots_mut(index)[0] =
            ready!(load_pinned(store, cache, &mut task.load, accounts[0]));
        task.advance(5);
    }
    creates.slots_mut(index)[1] = ready!(load_pinned(store, cache, &mut task.load, accounts[1]));
    assert!(!creates.slots(index).contains(&SLOT_NONE), "transfers have accounts");
    Fetch::Ready(())
}

impl Ledger {
    /// Finds everything that is in memory, and lists the rest.
    pub(super) fn transfers_prefetch_start(&mut self, body: &[u8]) {
        let events = self.batches.events_total();
        self.creates.begin(events, self.store.events_rows());
        self.work.clear();
        let mut id_before = 0;
        let mut newest_id = self.newest_id;
        let mut start = 0;
        while start < events {
            let end = events.min(start + GROUP_EVENTS);
            self.transfers_find_accounts(body, start, end);
            for index in start..end {
                let event = event_at(body, index);
                self.creates.ids_ascend &= event.id > id_before;
                id_before = event.id;
                self.transfer_prefetch_start(index, &event);
                if is_valid_id(event.id) {
                    newest_id = newest_id.max(event.id);
                }
            }
            start = end;
        }
        self.newest_id = newest_id;
    }

    /// Slots of the accounts of a group of events: first all hashes, then all index words, then
    /// all entries, so that the processor waits for memory only once for each of the three.
    fn transfers_find_accounts(&mut self, body: &[u8], start: u32, end: u32) {
        let mut ids = [[0u128; 2]; GROUP];
        let mut tags = [[0u32; 2]; GROUP];
        let mut guesses = [[SLOT_NONE; 2]; GROUP];
        let count = to_index(end - start);
        self.cache.lookups += 2 * u64::from(end - start);
        for (place, index) in (start..end).enumerate() {
            let event = event_at(body, index);
            let ahead = index + GROUP_EVENTS;
            if ahead < self.batches.events_total() {
                // Hashed again when its turn comes: cheaper than waiting for memory.
                let event = event_at(body, ahead);
                self.cache.prefetch_index(event.debit_account_id);
                self.cache.prefetch_index(event.credit_account_id);
            }
            if !post_void::is_post_or_void(&event) {
                ids[place] = [event.debit_account_id, event.credit_account_id];
                tags[place] = ids[place].map(AccountCache::tag);
            }
        }
        for place in 0..count {
            guesses[place] = tags[place].map(|tag| self.cache.guess(tag));
            for slot in guesses[place] {
                self.cache.prefetch_id(slot);
            }
        }
        for (place, index) in (start..end).enumerate() {
            for side in 0..2 {
                let id = ids[place][side];
                if is_valid_id(id) {
                    let (tag, guess) = (tags[place][side], guesses[place][side]);
                    let slot = self.cache.find_guessed(id, tag, guess);
                    self.creates.slots_mut(index)[side] = slot;
                }
            }
        }
    }

    #[inline]
    fn transfer_prefetch_start(&mut self, index: u32, event: &Transfer) {
        // Whether an id is newer than all others, those of earlier requests of this op included,
        // is usually known without a search.
        let is_newest = event.id > self.newest_id && self.store.transfer_id_is_newest(event.id);
        if is_valid_id(event.id) && !is_newest {
            let mut find = self.store.find_transfer_start(event.id);
            match self.store.find(&mut find) {
                Fetch::Ready(None) => {}
                Fetch::Ready(Some(_)) | Fetch::Wait => {
                    self.work.push(ITEM_EXISTING << ITEM_KIND_SHIFT | index);
                }
            }
        }
        if post_void::is_post_or_void(event) {
            if is_valid_id(event.pending_id) {
                self.work.push(ITEM_PENDING << ITEM_KIND_SHIFT | index);
            }
        } else {
            let [debit, credit] = self.creates.slots(index);
            if debit == SLOT_NONE && is_valid_id(event.debit_account_id) {
                self.work.push(ITEM_DEBIT << ITEM_KIND_SHIFT | index);
            }
            if credit == SLOT_NONE && is_valid_id(event.credit_account_id) {
                self.work.push(ITEM_CREDIT << ITEM_KIND_SHIFT | index);
            }
        }
        if has(event.flags, transfer_flags::IMPORTED)
            && (1..=self.state.account_timestamp_max).contains(&event.timestamp)
        {
            self.work.push(ITEM_TIMESTAMP << ITEM_KIND_SHIFT | index);
        }
    }

    /// Goes on looking up.
    pub(super) fn transfers_prefetch(&mut self, body: &[u8]) -> Fetch<()> {
        let Ledger { store, cache, creates, work, .. } = self;
        work.drive(&mut Context { store, cache, creates, body }, run_task)
    }

    /// Executes all events of all batches, with pauses: the size of the reply's body in bytes.
    pub(super) fn transfers_execute(&mut self, body: &[u8], reply: &mut [u8]) -> Fetch<u32> {
        let mut slice = self.slice_events;
        while !self.batches.is_done() {
            let begun = self.begun_batch.take();
            let (mut frame, first) = begun.unwrap_or_else(|| (self.batch_frame(), 0));
            let before = self.batches.events_before();
            let events = self.batches.events();
            let end = events.min(first + slice);
            for index in first..end {
                if index + AHEAD < events {
                    let ahead = before + index + AHEAD;
                    self.store.prefetch_transfer(event_at(body, ahead).id);
                    for slot in self.creates.slots(ahead) {
                        self.cache.prefetch(slot);
                    }
                }
                let event = event_at(body, before + index);
                self.transfer_execute(&mut frame, index, before + index, &event, reply);
            }
            if end < events {
                self.begun_batch = Some((frame, end));
                return self.pause();
            }
            slice -= end - first;
            assert!(!self.scope.is_open(), "chains end within their batch");
            self.batches.finish_batch();
        }
        count_results(&mut self.counters.transfers, self.batches.answered(reply));
        Fetch::Ready(self.batches.finish(reply))
    }

    fn transfer_execute(
        &mut self,
        frame: &mut Frame,
        index: u32,
        index_in_request: u32,
        event: &Transfer,
        reply: &mut [u8],
    ) {
        let frame_event = FrameEvent {
            linked: has(event.flags, transfer_flags::LINKED),
            imported: has(event.flags, transfer_flags::IMPORTED),
            timestamp: event.timestamp,
        };
        if frame.opens_chain(&frame_event) {
            self.scope.start(&self.store, &self.state);
        }
        let event_timestamp = frame.event_timestamp(index);
        let outcome = match frame.enter(index, &frame_event) {
            Err(failure) => Err(frame_status(failure).into()),
            Ok(()) => self.transfer_create(event, index_in_request, event_timestamp),
        };
        let (status, timestamp) = match outcome {
            Ok(timestamp) => (Status::Created, timestamp),
            Err(failure) => (failure.status, failure.timestamp.unwrap_or(event_timestamp)),
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
        if status.is_transient() {
            // After the rollback, so that it stays.
            self.books().burn(event.id, event_timestamp);
        }
    }

    /// The content of one event: the stored timestamp if it is created.
    #[inline]
    fn transfer_create(
        &mut self,
        event: &Transfer,
        index: u32,
        event_timestamp: u64,
    ) -> Result<u64, Failure> {
        if has(event.flags, !transfer_flags::ALL) {
            return Err(Status::ReservedFlag.into());
        }
        if event.id == 0 {
            return Err(Status::IdMustNotBeZero.into());
        }
        if event.id == u128::MAX {
            return Err(Status::IdMustNotBeIntMax.into());
        }
        if let Some(existing) = self.transfer_existing(event, index) {
            return Err(self.transfer_exists(event, index, &existing));
        }
        if post_void::is_post_or_void(event) {
            return Ok(self.transfer_resolve(event, index, event_timestamp)?);
        }
        transfer_rules::check_event(event)?;
        let [debit_slot, credit_slot] = self.creates.slots(index);
        if debit_slot == SLOT_NONE {
            return Err(Status::DebitAccountNotFound.into());
        }
        if credit_slot == SLOT_NONE {
            return Err(Status::CreditAccountNotFound.into());
        }
        let debit = &self.cache.entry(debit_slot).account;
        let credit = &self.cache.entry(credit_slot).account;
        let import = self.import_facts(index);
        transfer_rules::check_accounts(event, debit, credit, &import)?;
        let is_imported = has(event.flags, transfer_flags::IMPORTED);
        let stored = Transfer {
            amount: transfer_rules::amount(event, debit, credit),
            timestamp: if is_imported { event.timestamp } else { event_timestamp },
            ..*event
        };
        transfer_rules::check_amount(&stored, debit, credit)?;
        self.books().create(&stored, [debit_slot, credit_slot]);
        Ok(stored.timestamp)
    }

    /// A post or a void whose id is new.
    fn transfer_resolve(
        &mut self,
        event: &Transfer,
        index: u32,
        event_timestamp: u64,
    ) -> Result<u64, Status> {
        post_void::check_event(event)?;
        let Some((pending, slots)) = self.pending_transfer(event, index) else {
            return Err(Status::PendingTransferNotFound);
        };
        let amount = post_void::check_pending(event, &pending.transfer)?;
        post_void::check_open(&pending.transfer, pending.resolution, event_timestamp)?;
        let debit = &self.cache.entry(slots[0]).account;
        let credit = &self.cache.entry(slots[1]).account;
        post_void::check_accounts(event, debit, credit, &self.import_facts(index))?;
        let is_imported = has(event.flags, transfer_flags::IMPORTED);
        let timestamp = if is_imported { event.timestamp } else { event_timestamp };
        let stored = post_void::stored(event, &pending.transfer, amount, timestamp);
        let kind = post_void::kind(event);
        self.books().resolve(&stored, &pending.transfer, pending.row, slots, kind);
        Ok(timestamp)
    }

    /// The row with the event's id: a transfer or a burnt id.
    #[inline]
    fn transfer_existing(&self, event: &Transfer, index: u32) -> Option<Transfer> {
        if let Some(existing) = self.creates.detail(index).and_then(|detail| detail.existing) {
            return Some(existing);
        }
        if self.creates.ids_ascend {
            return None;
        }
        self.transfer_of_request(event.id).map(|(_, transfer)| transfer)
    }

    /// A row that an earlier event of this request appended.
    fn transfer_of_request(&self, id: u128) -> Option<(u64, Transfer)> {
        let row = self.store.recent_transfer(id)?;
        if row < self.creates.rows_before {
            return None;
        }
        let transfer = self.store.transfer_recent(row).expect("rows of the op are in memory");
        assert!(transfer.id == id);
        Some((row, *transfer))
    }

    fn transfer_exists(&self, event: &Transfer, index: u32, existing: &Transfer) -> Failure {
        if is_orphan(existing) {
            return Status::IdAlreadyFailed.into();
        }
        let status = exists::transfer(event, existing, || {
            let (pending, _) = self
                .pending_transfer(event, index)
                .expect("a stored post or void has a pending transfer");
            pending.transfer
        });
        let exists = status == Status::Exists;
        Failure { status, timestamp: exists.then_some(existing.timestamp) }
    }

    /// The transfer that the event posts or voids as it is now, and the slots of its accounts.
    /// Without slots if it is no pending transfer.
    fn pending_transfer(&self, event: &Transfer, index: u32) -> Option<(PendingDetail, [u32; 2])> {
        let known = self.creates.detail(index).and_then(|detail| detail.pending);
        let (mut pending, slots) = if let Some(pending) = known {
            (pending, self.creates.slots(index))
        } else {
            let (row, transfer) = self.transfer_of_request(event.pending_id)?;
            if is_orphan(&transfer) {
                return None;
            }
            let pending = PendingDetail { row, transfer, resolution: None };
            let debit = self.cache.find(transfer.debit_account_id);
            let credit = self.cache.find(transfer.credit_account_id);
            assert!(debit != SLOT_NONE, "accounts of the request are pinned");
            assert!(credit != SLOT_NONE, "accounts of the request are pinned");
            (pending, [debit, credit])
        };
        if pending.resolution.is_none() {
            pending.resolution = self.resolution_of_request(pending.row);
        }
        Some((pending, slots))
    }

    /// How an earlier event of this request ended a pending transfer.
    fn resolution_of_request(&self, pending_row: u64) -> Option<EventKind> {
        let row = self.store.recent_resolution(pending_row)?;
        assert!(row >= self.creates.rows_before, "older resolutions were looked up before");
        let balances = self.store.balances_recent(row).expect("rows of the op are in memory");
        Some(balances.event_kind().expect("rows have a known kind"))
    }

    #[inline]
    fn import_facts(&self, index: u32) -> ImportFacts {
        let detail = self.creates.detail(index);
        ImportFacts {
            transfer_timestamp_max: self.state.transfer_timestamp_max,
            timestamp_is_taken: detail.is_some_and(|detail| detail.timestamp_is_taken),
        }
    }

    #[inline]
    pub(super) fn books(&mut self) -> Books<'_> {
        let Ledger { store, cache, scope, state, .. } = self;
        Books { store, cache, scope, state }
    }
}

/// Why an event is not created.
#[derive(Clone, Copy, Debug)]
struct Failure {
    status: Status,
    /// Of the existing record if the status is `exists`; otherwise the event's is used.
    timestamp: Option<u64>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure { status, timestamp: None }
    }
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
