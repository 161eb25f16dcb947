//! Pulses: pending transfers whose time has run out are released, in the order of their times.
//!
//! The index gives candidates by *slots* of 134 ms; each is read and judged, and the earliest are
//! kept. A pulse takes as many as fit, and what it left is due at once. Where the next pulse begins
//! is part of the ledger's state, so that all replicas look at the same slots.
//!
//! A pulse also looks ahead for the next slot with something open, so that a ledger in which
//! nothing runs out needs no pulse for each slot. A running server looks at seven slots a second.
//! After an outage the first pulse looks at every slot of it: an hour has 27 thousand, each of
//! which asks each run of the index once.

use crate::protocol::to_index;
use crate::protocol::types::{Transfer, transfer_flags};
use crate::ready;
use crate::storage::fetch::Fetch;
use crate::storage::find::EventFilter;
use crate::storage::rows::{EXPIRY_SLOT_BITS, expires_at, is_expiry, is_orphan};
use crate::storage::scan::{RowList, ScanState};
use crate::storage::scanning::{Direction, EventScan};
use crate::storage::store::Store;

use super::Ledger;
use super::account_cache::{AccountCache, SLOT_NONE};
use super::transfer_rules::has;
use super::work::{Task, Work, load_pinned};

/// Slots that a pulse looks ahead: 8.6 s. Each costs a question to each run of the index, once.
const SLOTS_AHEAD: u64 = 64;

/// An open transfer whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    expires_at: u64,
    /// Rows of pending transfers with a timeout are in the order of their timestamps.
    row: u64,
}

/// The earliest due transfers among those offered, in bounded memory.
#[derive(Debug)]
struct Earliest {
    /// Up to twice as many as wanted, the surplus dropped now and then.
    list: Vec<Due>,
    wanted: usize,
    /// More were offered than wanted.
    more: bool,
}

impl Earliest {
    fn new(wanted: usize) -> Earliest {
        assert!(wanted > 0);
        Earliest { list: Vec::with_capacity(wanted * 2), wanted, more: false }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.more = false;
    }

    fn offer(&mut self, due: Due) {
        if self.list.len() == self.wanted * 2 {
            self.settle();
        }
        self.list.push(due);
    }

    /// Sorts, and drops what is not among the earliest.
    fn settle(&mut self) {
        self.list.sort_unstable();
        if self.list.len() > self.wanted {
            self.list.truncate(self.wanted);
            self.more = true;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    /// Looking for the next slot with candidates.
    NextSlot,
    /// Next candidates of the slot.
    Scan,
    /// Reading and judging candidates.
    Judge,
    /// Reading the transfers that expire, and their accounts.
    Load,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pulse {
    stage: Stage,
    /// Commit timestamp of the pulse.
    now: u64,
    /// The slot being looked at, or to look at next.
    slot: u64,
    /// The last slot in which something may be due.
    slot_now: u64,
    scan: Option<EventScan>,
    scan_ended: bool,
    rows: RowList,
    earliest: Earliest,
    /// Nothing that is not due yet, of those seen, expires earlier than this, if there is any.
    later: Option<u64>,
    transfers: Vec<Transfer>,
    slots: Vec<[u32; 2]>,
}

impl Pulse {
    /// For up to `expiries_max` at a time.
    pub fn new(expiries_max: usize) -> Pulse {
        Pulse {
            stage: Stage::Start,
            now: 0,
            slot: 0,
            slot_now: 0,
            scan: None,
            scan_ended: true,
            rows: RowList::new(super::reads::WINDOW_MAX),
            earliest: Earliest::new(expiries_max),
            later: None,
            transfers: Vec::with_capacity(expiries_max),
            slots: Vec::with_capacity(expiries_max),
        }
    }

    /// Bytes that the buffers occupy.
    pub fn memory_bytes(expiries_max: usize) -> u64 {
        let expiry = 2 * size_of::<Due>() + size_of::<Transfer>() + size_of::<[u32; 2]>();
        let rows = super::reads::WINDOW_MAX * size_of::<u64>();
        u64::try_from(expiries_max * expiry + rows).expect("memory sizes fit 64 bits")
    }

    /// Whether it is known when the next pulse will be due.
    fn has_looked_ahead(&self) -> bool {
        self.slot > self.slot_now && self.later.is_some()
    }

    /// Before a pulse.
    pub fn reset(&mut self, now: u64) {
        self.stage = Stage::Start;
        self.now = now;
        self.scan = None;
        self.rows.clear();
        self.earliest.clear();
        self.later = None;
    }
}

/// What judging works on.
struct JudgeContext<'a> {
    store: &'a mut Store,
    rows: &'a RowList,
    slot: u64,
    now: u64,
    earliest: &'a mut Earliest,
    later: &'a mut Option<u64>,
}

/// Stages: is it resolved, and if not, is it really a pending transfer of this slot?
fn run_judge(context: &mut JudgeContext<'_>, task: &mut Task) -> Fetch<()> {
    let row = context.rows.rows()[to_index(task.item)];
    if task.stage == 0 {
        let find = task.find.get_or_insert_with(|| context.store.find_resolution_start(row));
        if ready!(context.store.find(find)).is_some() {
            return Fetch::Ready(());
        }
        task.advance(1);
    }
    let transfer = ready!(context.store.transfer(row));
    if is_orphan(&transfer) || is_expiry(&transfer) || !has(transfer.flags, transfer_flags::PENDING)
    {
        return Fetch::Ready(());
    }
    let Some(expires_at) = expires_at(&transfer) else {
        return Fetch::Ready(());
    };
    if expires_at >> EXPIRY_SLOT_BITS != context.slot {
        return Fetch::Ready(());
    }
    if expires_at <= context.now {
        context.earliest.offer(Due { expires_at, row });
    } else if context.slot > context.now >> EXPIRY_SLOT_BITS {
        // Looking ahead, which ends here: others of the slot may be earlier.
        *context.later = Some(context.slot << EXPIRY_SLOT_BITS);
    } else {
        let later = context.later.unwrap_or(expires_at);
        *context.later = Some(later.min(expires_at));
    }
    Fetch::Ready(())
}

/// What loading works on.
struct LoadContext<'a> {
    store: &'a mut Store,
    cache: &'a mut AccountCache,
    due: &'a [Due],
    transfers: &'a mut [Transfer],
    slots: &'a mut [[u32; 2]],
}

/// Stages: the transfer, its debit account, its credit account.
fn run_load(context: &mut LoadContext<'_>, task: &mut Task) -> Fetch<()> {
    let place = to_index(task.item);
    let LoadContext { store, cache, due, transfers, slots } = context;
    if task.stage == 0 {
        transfers[place] = ready!(store.transfer(due[place].row));
        task.advance(1);
    }
    let transfer = &transfers[place];
    if task.stage == 1 {
        let id = transfer.debit_account_id;
        slots[place][0] = ready!(load_pinned(store, cache, &mut task.load, id));
        task.advance(2);
    }
    let id = transfer.credit_account_id;
    slots[place][1] = ready!(load_pinned(store, cache, &mut task.load, id));
    assert!(!slots[place].contains(&SLOT_NONE), "transfers have accounts");
    Fetch::Ready(())
}

fn list_items(work: &mut Work, count: usize) {
    work.clear();
    for item in 0..count {
        work.push(u32::try_from(item).expect("lists are short"));
    }
}

impl Ledger {
    /// Whether a pulse at `now` would find work, as far as is known without reading.
    #[must_use]
    pub fn pulse_due(&self, now: u64) -> bool {
        if self.state.timed_open == 0 || self.state.expiry_bound > now {
            return false;
        }
        match self.store.expiry_slot_min(self.state.expiry_slot()) {
            Some(slot) => slot <= now >> EXPIRY_SLOT_BITS,
            None => false,
        }
    }

    /// Goes on with a pulse; its reply has no body.
    pub(super) fn pulse_step(&mut self) -> Fetch<u32> {
        loop {
            match self.pulse.stage {
                Stage::Start => {
                    if self.state.timed_open == 0 {
                        return Fetch::Ready(0);
                    }
                    let pulse = &mut self.pulse;
                    pulse.slot = self.state.expiry_slot();
                    pulse.slot_now = pulse.now >> EXPIRY_SLOT_BITS;
                    pulse.stage = Stage::NextSlot;
                }
                Stage::NextSlot => {
                    if !self.pulse_next_slot() {
                        self.pulse_load_start();
                        self.pulse.stage = Stage::Load;
                    }
                }
                Stage::Scan => {
                    if self.pulse.scan_ended {
                        self.pulse.slot += 1;
                        self.pulse.stage = Stage::NextSlot;
                        continue;
                    }
                    let Ledger { store, pulse, work, .. } = self;
                    let scan = pulse.scan.as_mut().expect("started with the slot");
                    let state = ready!(store.scan_events(scan, &mut pulse.rows));
                    pulse.scan_ended = state == ScanState::End;
                    list_items(work, pulse.rows.rows().len());
                    pulse.stage = Stage::Judge;
                }
                Stage::Judge => {
                    let Ledger { store, pulse, work, .. } = self;
                    let Pulse { rows, slot, now, earliest, later, .. } = pulse;
                    let (slot, now) = (*slot, *now);
                    let mut context = JudgeContext { store, rows, slot, now, earliest, later };
                    ready!(work.drive(&mut context, run_judge));
                    self.pulse.rows.clear();
                    self.pulse.scan_ended |= self.pulse.has_looked_ahead();
                    self.pulse.stage = Stage::Scan;
                }
                Stage::Load => {
                    let Ledger { store, cache, pulse, work, .. } = self;
                    let Pulse { earliest, transfers, slots, .. } = pulse;
                    let due = &earliest.list;
                    let mut context = LoadContext { store, cache, due, transfers, slots };
                    ready!(work.drive(&mut context, run_load));
                    self.pulse_execute();
                    return Fetch::Ready(0);
                }
            }
        }
    }

    /// Starts the scan of the next slot that may have candidates; false if this pulse is full or
    /// has looked everywhere it needs to.
    fn pulse_next_slot(&mut self) -> bool {
        let pulse = &mut self.pulse;
        if pulse.earliest.list.len() >= pulse.earliest.wanted || pulse.has_looked_ahead() {
            return false;
        }
        let slot_last = pulse.slot_now + SLOTS_AHEAD;
        let next = self.store.expiry_slot_min(pulse.slot).filter(|slot| *slot <= slot_last);
        let Some(slot) = next else {
            pulse.slot = pulse.slot.max(slot_last + 1);
            return false;
        };
        assert!(slot >= pulse.slot);
        pulse.slot = slot;
        let filter = EventFilter { expiry_slot: Some(slot), ..EventFilter::default() };
        let rows = self.store.events_rows();
        let direction = Direction::Ascending;
        pulse.scan = Some(self.store.scan_events_start(&filter, 0, rows, direction));
        pulse.scan_ended = false;
        pulse.stage = Stage::Scan;
        true
    }

    fn pulse_load_start(&mut self) {
        let pulse = &mut self.pulse;
        pulse.earliest.settle();
        let count = pulse.earliest.list.len();
        pulse.transfers.clear();
        pulse.transfers.resize(count, Transfer::default());
        pulse.slots.clear();
        pulse.slots.resize(count, [SLOT_NONE; 2]);
        list_items(&mut self.work, count);
    }

    /// Carries out the expiries, and remembers where the next pulse begins.
    fn pulse_execute(&mut self) {
        let count = self.pulse.earliest.list.len();
        let first = self.pulse.now - u64::try_from(count).expect("a short list") + 1;
        for (timestamp, place) in (first..).zip(0..count) {
            let row = self.pulse.earliest.list[place].row;
            let transfer = self.pulse.transfers[place];
            let slots = self.pulse.slots[place];
            self.books().expire(&transfer, row, slots, timestamp);
        }
        let pulse = &self.pulse;
        let seen_until = pulse.slot << EXPIRY_SLOT_BITS;
        let bound = if pulse.earliest.more {
            // Whatever was left is not before the last that was taken.
            pulse.earliest.list.last().expect("more than wanted").expires_at
        } else {
            pulse.later.map_or(seen_until, |later| later.min(seen_until))
        };
        assert!(bound >= self.state.expiry_bound >> EXPIRY_SLOT_BITS << EXPIRY_SLOT_BITS);
        self.state.expiry_bound = bound.max(self.state.expiry_bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whatever the order of offers, the earliest stay, in order, and surplus is noticed.
    #[test]
    fn earliest_stay() {
        let mut earliest = Earliest::new(10);
        for row in 0..100u64 {
            earliest.offer(Due { expires_at: row * 37 % 100 / 2, row });
        }
        earliest.settle();
        assert!(earliest.more);
        let mut all: Vec<Due> =
            (0..100u64).map(|row| Due { expires_at: row * 37 % 100 / 2, row }).collect();
        all.sort_unstable();
        assert_eq!(earliest.list, all[..10]);
        earliest.clear();
        for row in (0..10).rev() {
            earliest.offer(Due { expires_at: 1, row });
        }
        earliest.settle();
        assert!(!earliest.more);
        let rows: Vec<u64> = earliest.list.iter().map(|due| due.row).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
