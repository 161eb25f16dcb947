//! What a create request needs to have in memory before its first event is executed.
//!
//! The common event (a transfer between two cached accounts with an id newer than all others) is
//! described by twelve bytes here. Everything rarer has a [`Detail`].

use crate::protocol::types::Transfer;
use crate::storage::rows::EventKind;

use super::account_cache::{ROW_NONE, SLOT_NONE};
use crate::protocol::to_index;

/// No detail.
const DETAIL_NONE: u32 = u32::MAX;
/// Items of an event's `Work` list at most: its id, two accounts (or a pending transfer) and its
/// timestamp.
pub(super) const ITEMS_PER_EVENT: usize = 4;
/// The low bits of an item are the event's index, the high ones what to look up.
pub(super) const ITEM_KIND_SHIFT: u32 = 29;

/// The rarer facts about one event, as of before the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Detail {
    /// The row with the event's id: a transfer or a burnt id.
    pub existing: Option<Transfer>,
    /// The transfer that the event wants to post or void.
    pub pending: Option<PendingDetail>,
    /// An imported timestamp that another record has already.
    pub timestamp_is_taken: bool,
}

/// A transfer that is to be posted or voided, as of before the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingDetail {
    pub row: u64,
    pub transfer: Transfer,
    /// How it ended; none while it is open (or was never pending).
    pub resolution: Option<EventKind>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Creates {
    /// Slots of the debit and the credit account; for accounts, of the existing account.
    slots: Vec<[u32; 2]>,
    detail_of: Vec<u32>,
    details: Vec<Detail>,
    /// The ids of the request strictly ascend: no event can meet the id of an earlier one.
    pub ids_ascend: bool,
    /// Rows of events before the request.
    pub rows_before: u64,
}

impl Creates {
    /// Room for `events_max` events.
    pub fn new(events_max: usize) -> Creates {
        Creates {
            slots: Vec::with_capacity(events_max),
            detail_of: Vec::with_capacity(events_max),
            details: Vec::with_capacity(events_max),
            ids_ascend: true,
            rows_before: ROW_NONE,
        }
    }

    /// Bytes that the lists occupy.
    pub fn memory_bytes(events_max: usize) -> u64 {
        let event = size_of::<[u32; 2]>() + size_of::<u32>() + size_of::<Detail>();
        u64::try_from(events_max * event).expect("memory sizes fit 64 bits")
    }

    /// Starts a request of `events` events.
    pub fn begin(&mut self, events: u32, rows_before: u64) {
        let events = to_index(events);
        assert!(events <= self.slots.capacity(), "requests have at most `batch_max` events");
        self.slots.clear();
        self.slots.resize(events, [SLOT_NONE; 2]);
        self.detail_of.clear();
        self.detail_of.resize(events, DETAIL_NONE);
        self.details.clear();
        self.ids_ascend = true;
        self.rows_before = rows_before;
    }

    /// Slots of an event.
    #[inline]
    pub fn slots(&self, event: u32) -> [u32; 2] {
        self.slots[to_index(event)]
    }

    /// Slots of an event, to change.
    #[inline]
    pub fn slots_mut(&mut self, event: u32) -> &mut [u32; 2] {
        &mut self.slots[to_index(event)]
    }

    /// What is known beyond the slots.
    #[inline]
    pub fn detail(&self, event: u32) -> Option<&Detail> {
        let detail = self.detail_of[to_index(event)];
        if detail == DETAIL_NONE { None } else { Some(&self.details[to_index(detail)]) }
    }

    /// The detail of an event, made if there is none yet.
    pub fn detail_mut(&mut self, event: u32) -> &mut Detail {
        let place = &mut self.detail_of[to_index(event)];
        if *place == DETAIL_NONE {
            assert!(self.details.len() < self.details.capacity(), "one detail per event");
            *place = u32::try_from(self.details.len()).expect("an index of an event");
            self.details.push(Detail { existing: None, pending: None, timestamp_is_taken: false });
        }
        &mut self.details[to_index(*place)]
    }
}
