//! `get_change_events`: the event log in the order of timestamps.
//!
//! Created transfers rise in the log, and so do expiries; but an imported transfer may carry an
//! older timestamp than an expiry before it. So two cursors run over the log, one of which sees
//! transfers only and the other expiries only, and their events are merged. An expiry older
//! than a transfer always lies before it in the log (it happened before the transfer was stored),
//! which tells how far the second cursor has to look.

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::protocol::operation::Operation;
use crate::protocol::to_index;
use crate::protocol::types::{Account, ChangeEvent, ChangeEventsFilter, TIMESTAMP_MAX, Transfer};
use crate::ready;
use crate::storage::fetch::Fetch;
use crate::storage::find::TimeKey;
use crate::storage::rows::{BalanceRow, EventKind, STORED_FLAG_EXPIRY, is_expiry, is_orphan};
use crate::storage::store::Store;

use super::Ledger;
use super::account_cache::AccountCache;
use super::work::{Extent, Task, load_copy};

/// Rows that a cursor reads ahead at most, and events that are answered at a time.
const BLOCK_MAX: usize = 256;
/// Rows that a cursor reads ahead at least.
const BLOCK_MIN: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Parse,
    StartTransfers,
    StartExpiries,
    /// Choosing the next events; may need rows read ahead.
    Merge,
    /// Reading rows ahead for one of the cursors.
    ReadAhead {
        cursor: usize,
    },
    /// Reading what else belongs to the chosen events.
    Details,
}

/// A cursor over the log that sees one kind of event.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    key: TimeKey,
    /// First row of the rows read ahead.
    start: u64,
    /// How many there are.
    count: u32,
    /// How many of them have been seen.
    seen: u32,
    /// Past the last timestamp asked for.
    done: bool,
}

impl Cursor {
    fn new(key: TimeKey) -> Cursor {
        Cursor { key, start: 0, count: 0, seen: 0, done: false }
    }

    /// The next row to see.
    fn row(&self) -> u64 {
        self.start + u64::from(self.seen)
    }
}

/// Everything about an event that is being answered.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    row: u64,
    transfer: Transfer,
    balances: BalanceRow,
    /// Of the transfer; of an expiry, of the pending transfer.
    transfer_timestamp: u64,
    debit: Account,
    credit: Account,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ChangeEvents {
    stage: Stage,
    timestamp_min: u64,
    timestamp_max: u64,
    /// Events still wanted.
    limit: u32,
    /// Rows of the log when the read began.
    rows: u64,
    /// First the transfers', then the expiries'.
    cursors: [Cursor; 2],
    ahead: [Vec<Transfer>; 2],
    chosen: Vec<Chosen>,
}

const TRANSFERS: usize = 0;
const EXPIRIES: usize = 1;

impl ChangeEvents {
    /// Allocates all buffers.
    pub fn new() -> ChangeEvents {
        ChangeEvents {
            stage: Stage::Parse,
            timestamp_min: 0,
            timestamp_max: 0,
            limit: 0,
            rows: 0,
            cursors: [Cursor::new(TimeKey::Transfer), Cursor::new(TimeKey::Expiry)],
            ahead: [vec![Transfer::default(); BLOCK_MAX], vec![Transfer::default(); BLOCK_MAX]],
            chosen: Vec::with_capacity(BLOCK_MAX),
        }
    }

    /// Bytes that the buffers occupy.
    pub fn memory_bytes() -> u64 {
        let event = 2 * size_of::<Transfer>() + size_of::<Chosen>();
        u64::try_from(BLOCK_MAX * event).expect("memory sizes fit 64 bits")
    }

    /// Before a request.
    pub fn reset(&mut self) {
        self.stage = Stage::Parse;
        self.cursors = [Cursor::new(TimeKey::Transfer), Cursor::new(TimeKey::Expiry)];
        self.chosen.clear();
    }

    /// Moves a cursor to its next event below row `end`: the event's place among the rows read
    /// ahead, or what stopped it.
    fn seek(&mut self, cursor: usize, end: u64) -> Seek {
        let state = &mut self.cursors[cursor];
        loop {
            if state.done || state.row() >= end {
                return Seek::None;
            }
            if state.seen == state.count {
                return Seek::ReadAhead;
            }
            let place = to_index(state.seen);
            let transfer = &self.ahead[cursor][place];
            let is_mine = !is_orphan(transfer) && is_expiry(transfer) == (cursor == EXPIRIES);
            if is_mine && transfer.timestamp > self.timestamp_max {
                state.done = true;
                return Seek::None;
            }
            if is_mine && transfer.timestamp >= self.timestamp_min {
                return Seek::Found { place };
            }
            state.seen += 1;
        }
    }

    /// Chooses events in order until enough are chosen, rows are missing, or there are no more.
    fn merge(&mut self) -> Stage {
        let wanted = to_index(self.limit).min(BLOCK_MAX);
        while self.chosen.len() < wanted {
            let transfer = match self.seek(TRANSFERS, self.rows) {
                Seek::ReadAhead => return Stage::ReadAhead { cursor: TRANSFERS },
                Seek::Found { place } => Some(place),
                Seek::None => None,
            };
            // Expiries behind the next transfer are younger than it.
            let end = match transfer {
                Some(_) => self.cursors[TRANSFERS].row(),
                None => self.rows,
            };
            let expiry = match self.seek(EXPIRIES, end) {
                Seek::ReadAhead => return Stage::ReadAhead { cursor: EXPIRIES },
                Seek::Found { place } => Some(place),
                Seek::None => None,
            };
            let transfer = transfer.map(|place| self.ahead[TRANSFERS][place]);
            let expiry = expiry.map(|place| self.ahead[EXPIRIES][place]);
            let (cursor, event) = match (transfer, expiry) {
                (None, None) => break,
                (Some(transfer), None) => (TRANSFERS, transfer),
                (None, Some(expiry)) => (EXPIRIES, expiry),
                (Some(transfer), Some(expiry)) => {
                    if expiry.timestamp <= transfer.timestamp {
                        (EXPIRIES, expiry)
                    } else {
                        (TRANSFERS, transfer)
                    }
                }
            };
            self.choose(cursor, &event);
        }
        Stage::Details
    }

    fn choose(&mut self, cursor: usize, event: &Transfer) {
        assert!(self.chosen.len() < self.chosen.capacity());
        let state = &mut self.cursors[cursor];
        self.chosen.push(Chosen {
            row: state.row(),
            transfer: *event,
            balances: BalanceRow::default(),
            transfer_timestamp: event.timestamp,
            debit: Account::default(),
            credit: Account::default(),
        });
        state.seen += 1;
    }

    /// Prepares to read rows ahead: how many.
    fn read_ahead_start(&mut self, cursor: usize) -> u32 {
        let state = &mut self.cursors[cursor];
        assert!(state.seen == state.count);
        state.start = state.row();
        state.seen = 0;
        let block_max = u32::try_from(BLOCK_MAX).expect("a small number");
        let wanted = u64::from(self.limit.clamp(BLOCK_MIN, block_max));
        let count = wanted.min(self.rows - state.start);
        state.count = u32::try_from(count).expect("a small number");
        assert!(state.count > 0);
        state.count
    }
}

/// Where a cursor stands.
enum Seek {
    Found { place: usize },
    ReadAhead,
    None,
}

/// What reading ahead works on.
struct AheadContext<'a> {
    store: &'a mut Store,
    start: u64,
    ahead: &'a mut [Transfer],
}

fn run_ahead(context: &mut AheadContext<'_>, task: &mut Task) -> Fetch<()> {
    let transfer = ready!(context.store.transfer(context.start + u64::from(task.item)));
    context.ahead[to_index(task.item)] = transfer;
    Fetch::Ready(())
}

/// What reading details works on.
struct DetailsContext<'a> {
    store: &'a mut Store,
    cache: &'a AccountCache,
    chosen: &'a mut [Chosen],
}

/// Stages: balances, the pending transfer of an expiry, both accounts.
fn run_details(context: &mut DetailsContext<'_>, task: &mut Task) -> Fetch<()> {
    let DetailsContext { store, cache, chosen } = context;
    let chosen = &mut chosen[to_index(task.item)];
    if task.stage == 0 {
        chosen.balances = ready!(store.balances(chosen.row));
        task.advance(1);
    }
    if task.stage == 1 {
        if is_expiry(&chosen.transfer) {
            let pending = ready!(store.transfer(chosen.balances.pending_row()));
            assert!(pending.id == chosen.transfer.id, "an expiry knows its pending transfer");
            chosen.transfer_timestamp = pending.timestamp;
        }
        task.advance(2);
    }
    if task.stage == 2 {
        let id = chosen.transfer.debit_account_id;
        let account = ready!(load_copy(store, cache, &mut task.load, id, Extent::Immutable));
        chosen.debit = account.expect("transfers have accounts");
        task.advance(3);
    }
    let id = chosen.transfer.credit_account_id;
    let account = ready!(load_copy(store, cache, &mut task.load, id, Extent::Immutable));
    chosen.credit = account.expect("transfers have accounts");
    Fetch::Ready(())
}

impl Ledger {
    /// Goes on with the read: the size of the reply's body in bytes.
    pub(super) fn change_events_step(&mut self, body: &[u8], reply: &mut [u8]) -> Fetch<u32> {
        loop {
            match self.change_events.stage {
                Stage::Parse => {
                    if !self.change_events_parse(body, reply) {
                        break;
                    }
                    self.change_events.stage = Stage::StartTransfers;
                }
                Stage::StartTransfers => {
                    ready!(self.change_events_seek(TRANSFERS));
                    self.change_events.stage = Stage::StartExpiries;
                }
                Stage::StartExpiries => {
                    ready!(self.change_events_seek(EXPIRIES));
                    self.change_events.stage = Stage::Merge;
                }
                Stage::Merge => {
                    let stage = self.change_events.merge();
                    self.change_events.stage = stage;
                    self.work.clear();
                    let count = match stage {
                        Stage::ReadAhead { cursor } => self.change_events.read_ahead_start(cursor),
                        _ => {
                            u32::try_from(self.change_events.chosen.len()).expect("a small number")
                        }
                    };
                    (0..count).for_each(|item| self.work.push(item));
                    if count == 0 {
                        break;
                    }
                }
                Stage::ReadAhead { cursor } => {
                    let Ledger { store, work, change_events, .. } = self;
                    let start = change_events.cursors[cursor].start;
                    let ahead = &mut change_events.ahead[cursor];
                    ready!(work.drive(&mut AheadContext { store, start, ahead }, run_ahead));
                    self.change_events.stage = Stage::Merge;
                }
                Stage::Details => {
                    let Ledger { store, cache, work, change_events, .. } = self;
                    let chosen = &mut change_events.chosen;
                    ready!(work.drive(&mut DetailsContext { store, cache, chosen }, run_details));
                    self.change_events_answer(reply);
                    if self.change_events.limit == 0 {
                        break;
                    }
                    self.change_events.stage = Stage::Merge;
                }
            }
        }
        self.batches.finish_batch();
        Fetch::Ready(self.batches.finish(reply))
    }

    /// Whether the filter can select anything.
    fn change_events_parse(&mut self, body: &[u8], reply: &[u8]) -> bool {
        let filter = ChangeEventsFilter::read_from_bytes(body).expect("the size is right");
        let limit_max = Operation::change_events_max(self.options.request_body_size_max);
        let state = &mut self.change_events;
        state.timestamp_min = filter.timestamp_min;
        state.timestamp_max =
            if filter.timestamp_max == 0 { TIMESTAMP_MAX } else { filter.timestamp_max };
        state.limit = filter.limit.min(limit_max).min(self.batches.room(reply));
        state.rows = self.store.events_rows();
        filter.is_valid() && state.limit > 0
    }

    /// Moves a cursor to the first row that may be of interest.
    fn change_events_seek(&mut self, cursor: usize) -> Fetch<()> {
        let timestamp = self.change_events.timestamp_min;
        if timestamp > 1 {
            let key = self.change_events.cursors[cursor].key;
            let row = ready!(self.store.search_events(key, timestamp));
            self.change_events.cursors[cursor].start = row;
        }
        Fetch::Ready(())
    }

    /// Answers the chosen events.
    fn change_events_answer(&mut self, reply: &mut [u8]) {
        for index in 0..self.change_events.chosen.len() {
            let event = change_event(&self.change_events.chosen[index]);
            self.batches.push(reply, event.as_bytes());
            self.change_events.limit -= 1;
        }
        self.change_events.chosen.clear();
    }
}

/// The event as it travels.
fn change_event(chosen: &Chosen) -> ChangeEvent {
    let Chosen { transfer, balances, debit, credit, .. } = chosen;
    let kind = balances.event_kind().expect("rows have a known kind");
    assert!((kind == EventKind::Expired) == is_expiry(transfer));
    assert!(kind != EventKind::Orphan);
    ChangeEvent {
        transfer_id: transfer.id,
        transfer_amount: transfer.amount,
        transfer_pending_id: transfer.pending_id,
        transfer_user_data_128: transfer.user_data_128,
        transfer_user_data_64: transfer.user_data_64,
        transfer_user_data_32: transfer.user_data_32,
        transfer_timeout: transfer.timeout,
        transfer_code: transfer.code,
        transfer_flags: transfer.flags & !STORED_FLAG_EXPIRY,
        ledger: transfer.ledger,
        type_: kind as u8,
        debit_account_id: debit.id,
        debit_account_debits_pending: balances.debit.debits_pending,
        debit_account_debits_posted: balances.debit.debits_posted,
        debit_account_credits_pending: balances.debit.credits_pending,
        debit_account_credits_posted: balances.debit.credits_posted,
        debit_account_user_data_128: debit.user_data_128,
        debit_account_user_data_64: debit.user_data_64,
        debit_account_user_data_32: debit.user_data_32,
        debit_account_code: debit.code,
        debit_account_flags: u16::from(balances.debit_flags),
        credit_account_id: credit.id,
        credit_account_debits_pending: balances.credit.debits_pending,
        credit_account_debits_posted: balances.credit.debits_posted,
        credit_account_credits_pending: balances.credit.credits_pending,
        credit_account_credits_posted: balances.credit.credits_posted,
        credit_account_user_data_128: credit.user_data_128,
        credit_account_user_data_64: credit.user_data_64,
        credit_account_user_data_32: credit.user_data_32,
        credit_account_code: credit.code,
        credit_account_flags: u16::from(balances.credit_flags),
        timestamp: transfer.timestamp,
        transfer_timestamp: chosen.transfer_timestamp,
        debit_account_timestamp: debit.timestamp,
        credit_account_timestamp: credit.timestamp,
        ..ChangeEvent::new_zeroed()
    }
}
