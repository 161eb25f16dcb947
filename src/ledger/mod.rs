//! The state machine: accounts, transfers, chains, expiry, queries. Knows no replication.
//!
//! A request is begun with [`Ledger::begin`] and carried on with [`Ledger::step`] until it is
//! ready. Writing requests first look up everything they need (which may have to wait for the
//! disk), then execute all their events in order without waiting, but with a pause now and then in
//! which the caller may do something more urgent. Reads look up and answer in
//! turns. Results depend on the committed operations only: never on caches, the order of disk
//! completions, or time.
//!
//! Covered: the accounting rules, reads, pulses, and the scalar state that goes into a
//! checkpoint. Not covered: where rows are kept (`storage`), the order of operations and sessions
//! (`vsr`). The caller ends every op with [`Store::end_op`], after the last request of the op.

mod account_cache;
mod apply;
mod batches;
mod chain;
mod change_events;
mod counters;
mod create_accounts;
mod create_transfers;
mod creates;
mod exists;
mod lookup;
mod post_void;
mod pulse;
mod query;
mod reads;
mod state;
mod transfer_rules;
mod work;

#[cfg(test)]
mod tests;

use crate::protocol::operation::Operation;
use crate::protocol::types::{Account, Transfer};
use crate::protocol::{HEADER_SIZE, to_index};
use crate::ready;
use crate::storage::config::Config;
use crate::storage::fetch::Fetch;
use crate::storage::packing::Packing;
use crate::storage::store::Store;

use account_cache::AccountCache;
use batches::Batches;
use chain::{Frame, Scope};
use change_events::ChangeEvents;
use creates::{Creates, ITEMS_PER_EVENT};
use lookup::Lookup;
use pulse::Pulse;
use query::Query;
use reads::{Reads, WINDOW_MAX};
use state::State;

pub use counters::{ACCOUNT_STATUSES, LedgerCounters, TRANSFER_STATUSES};
pub use state::{STATE_SIZE, StateError, check_state};

/// Parts in which the largest batch of transfers is executed.
const SLICES: u32 = 4;
/// Bytes of a row of the transfers' and the accounts' logs.
const ROW_SIZE: u32 = 128;
static_assertions::const_assert_eq!(size_of::<Transfer>(), 128);
static_assertions::const_assert_eq!(size_of::<Account>(), 128);

/// What the ledger is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerOptions {
    /// Accounts that the cache holds; raised to [`LedgerOptions::accounts_min`].
    pub cache_accounts: u32,
    /// Largest request body in bytes.
    pub request_body_size_max: u32,
    /// Create events of one request at most.
    pub batch_max: u32,
    /// Pending transfers that one pulse expires at most.
    pub pulse_max: u32,
    /// Rows in a block of the transfers' and the accounts' logs.
    pub rows_per_block: u64,
}

impl LedgerOptions {
    /// For a data file of this geometry and a cache of `cache_accounts` accounts.
    #[must_use]
    pub fn new(config: &Config, cache_accounts: u32) -> LedgerOptions {
        LedgerOptions {
            cache_accounts,
            request_body_size_max: config.message_size_max - HEADER_SIZE,
            batch_max: config.batch_max,
            pulse_max: config.pulse_max,
            rows_per_block: Packing::new(ROW_SIZE, config.block_size).per_block(),
        }
    }

    /// The smallest useful cache: four times what one operation can pin.
    #[must_use]
    pub fn accounts_min(&self) -> u32 {
        8 * self.batch_max.max(self.pulse_max)
    }

    /// Accounts that the cache holds.
    fn accounts(&self) -> u32 {
        self.cache_accounts.max(self.accounts_min())
    }

    /// Items that one operation looks up at most.
    fn items_max(&self) -> usize {
        let events = to_index(self.batch_max) * ITEMS_PER_EVENT;
        events.max(to_index(self.pulse_max)).max(WINDOW_MAX)
    }
}

/// How far the current request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is none.
    Idle,
    /// Nothing is done yet.
    Begun,
    /// Lookups are going on.
    Working,
}

/// The state machine.
#[derive(Debug)]
pub struct Ledger {
    /// Where all rows are.
    pub store: Store,
    options: LedgerOptions,
    operation: Operation,
    /// Commit timestamp of the current request.
    timestamp: u64,
    phase: Phase,
    /// The request was looked at before, and waits for pages.
    has_waited: bool,
    /// Transfers that are executed without a pause.
    slice_events: u32,
    /// The last `Wait` was only a pause.
    is_paused: bool,
    /// A batch in whose middle there was a pause, and its next event.
    begun_batch: Option<(Frame, u32)>,
    state: State,
    cache: AccountCache,
    batches: Batches,
    work: work::Work,
    creates: Creates,
    scope: Scope,
    /// Highest id that an event of `create_transfers` had since the start. Volatile: it only
    /// saves searches.
    newest_id: u128,
    lookup: Lookup,
    query: Query,
    reads: Reads,
    change_events: ChangeEvents,
    pulse: Pulse,
    counters: LedgerCounters,
}

impl Ledger {
    /// Allocates everything that the ledger will ever use.
    ///
    /// # Panics
    /// When the options name no room for events.
    #[must_use]
    pub fn new(store: Store, options: &LedgerOptions) -> Ledger {
        assert!(options.batch_max > 0);
        assert!(options.pulse_max > 0);
        let events_max = to_index(options.batch_max);
        let expiries_max = to_index(options.pulse_max);
        Ledger {
            store,
            options: *options,
            operation: Operation::Pulse,
            timestamp: 0,
            phase: Phase::Idle,
            has_waited: false,
            slice_events: options.batch_max.div_ceil(SLICES),
            is_paused: false,
            begun_batch: None,
            state: State::default(),
            cache: AccountCache::new(options.accounts()),
            batches: Batches::new(options.request_body_size_max),
            work: work::Work::new(options.items_max()),
            creates: Creates::new(events_max),
            scope: Scope::new(events_max),
            newest_id: 0,
            lookup: Lookup::default(),
            query: Query::new(),
            reads: Reads::new(),
            change_events: ChangeEvents::new(),
            pulse: Pulse::new(expiries_max),
            counters: LedgerCounters::default(),
        }
    }

    /// Memory of each part of a ledger in bytes, the store's excepted.
    #[must_use]
    pub fn memory_bytes(options: &LedgerOptions) -> [(&'static str, u64); 7] {
        let events_max = to_index(options.batch_max);
        let expiries_max = to_index(options.pulse_max);
        let work = work::Work::memory_bytes(options.items_max());
        [
            ("account cache", AccountCache::memory_bytes(options.accounts())),
            ("batches", Batches::memory_bytes(options.request_body_size_max)),
            ("create lookups", Creates::memory_bytes(events_max) + work),
            ("chain undo", Scope::memory_bytes(events_max)),
            ("reads", Reads::memory_bytes()),
            ("change events", ChangeEvents::memory_bytes()),
            ("pulse", Pulse::memory_bytes(expiries_max)),
        ]
    }

    /// Begins a request with its commit timestamp; for a pulse, the body is empty. The body was
    /// found valid before it was ordered.
    ///
    /// # Panics
    /// When another request is not finished, or the clock did not advance.
    pub fn begin(&mut self, operation: Operation, timestamp: u64, body: &[u8]) {
        assert!(self.phase == Phase::Idle, "one request at a time");
        assert!(timestamp >= self.state.commit_timestamp, "the clock never runs back");
        self.phase = Phase::Begun;
        self.has_waited = false;
        self.operation = operation;
        self.timestamp = timestamp;
        self.state.commit_timestamp = timestamp;
        self.cache.begin_operation();
        match operation {
            Operation::Pulse => self.pulse.reset(timestamp),
            Operation::Root | Operation::Register => unreachable!("not the ledger's concern"),
            _ => {
                self.batches.begin(operation, body);
                self.lookup = Lookup::default();
                self.query = Query::new();
                self.reads.clear();
                self.change_events.reset();
            }
        }
        assert!(!self.scope.is_open());
    }

    /// Goes on with the request: ready with the size of the reply's body in bytes, which is then
    /// in `reply`. After `Wait`, call again with the same body and the same reply area.
    ///
    /// # Panics
    /// When no request was begun.
    pub fn step(&mut self, body: &[u8], reply: &mut [u8]) -> Fetch<u32> {
        assert!(self.phase != Phase::Idle, "begin comes first");
        if self.has_waited && !self.is_paused && !self.store.pages_arrived() {
            return Fetch::Wait;
        }
        self.has_waited = true;
        self.is_paused = false;
        let size = match self.operation {
            Operation::CreateAccounts => {
                if self.phase == Phase::Begun {
                    self.accounts_prefetch_start(body);
                    self.phase = Phase::Working;
                }
                ready!(self.accounts_prefetch(body));
                self.accounts_execute(body, reply)
            }
            Operation::CreateTransfers => {
                if self.phase == Phase::Begun {
                    self.transfers_prefetch_start(body);
                    self.phase = Phase::Working;
                    if self.batches.events_total() > self.slice_events {
                        return self.pause();
                    }
                }
                ready!(self.transfers_prefetch(body));
                ready!(self.transfers_execute(body, reply))
            }
            Operation::LookupAccounts | Operation::LookupTransfers => {
                ready!(self.lookup_step(self.operation, body, reply))
            }
            Operation::GetAccountTransfers
            | Operation::GetAccountBalances
            | Operation::QueryAccounts
            | Operation::QueryTransfers => ready!(self.query_step(self.operation, body, reply)),
            Operation::GetChangeEvents => ready!(self.change_events_step(body, reply)),
            Operation::Pulse => ready!(self.pulse_step()),
            Operation::Root | Operation::Register => unreachable!("refused by `begin`"),
        };
        self.phase = Phase::Idle;
        Fetch::Ready(size)
    }

    /// Leaves the rest of long work to the next call.
    fn pause<T>(&mut self) -> Fetch<T> {
        self.is_paused = true;
        Fetch::Wait
    }

    /// Whether the last `Wait`, of the end of an op too, was only a pause: the next call goes on at
    /// once.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused || self.store.is_paused()
    }

    /// How much of the clock a request takes: its commit timestamp is that much later than the
    /// time of its preparation.
    #[must_use]
    pub fn timestamp_span(&self, operation: Operation, body: &[u8]) -> u64 {
        if operation.is_create() {
            u64::from(batches::create_events(operation, body))
        } else if operation == Operation::Pulse {
            u64::from(self.options.pulse_max)
        } else {
            0
        }
    }

    /// Commit timestamp of the newest request.
    #[must_use]
    pub fn commit_timestamp(&self) -> u64 {
        self.state.commit_timestamp
    }

    /// Writes the scalar state, for a checkpoint.
    ///
    /// # Panics
    /// When a request is not finished.
    pub fn encode(&self, out: &mut [u8; STATE_SIZE]) {
        assert!(self.phase == Phase::Idle);
        self.state.encode(out);
    }

    /// Reads the scalar state of a checkpoint and forgets all that is cached.
    ///
    /// # Errors
    /// When the bytes cannot be what [`Ledger::encode`] wrote.
    ///
    /// # Panics
    /// When a request is not finished.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        assert!(self.phase == Phase::Idle);
        self.state = State::decode(bytes)?;
        self.cache.clear();
        self.newest_id = 0;
        Ok(())
    }

    /// The frame of the current sub-batch of a create request.
    fn batch_frame(&self) -> Frame {
        let events = self.batches.events();
        let after = self.batches.events_total() - self.batches.events_before() - events;
        Frame::new(self.timestamp - u64::from(after), events)
    }
}
