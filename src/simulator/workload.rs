//! A random workload for comparing state machines, and for the simulated cluster.
//!
//! A [`Workload`] draws requests from a seed: valid and invalid events of every kind, chains,
//! posts, voids, repeats, imported batches, all reads with all filters. Bodies are complete as on
//! the wire, with one or more sub-batches, and always valid as requests, so that any state
//! machine must answer them. The workload learns from replies what exists ([`Workload::on_reply`])
//! and uses small spaces of ids, codes, ledgers and user data, so that its requests meet each
//! other. Which features are on, and how often each is used, is drawn per seed: some seeds do a
//! few things intensely, others a little of everything.
//!
//! Not covered: requests that a replica must refuse, and the order in which replies arrive (it may
//! be any; replies may also be lost).
//!
//! The driver owns the clock. It should let at least a microsecond pass between operations: then
//! no imported timestamp drawn here can meet the timestamp of an expiry event, the one corner that
//! the specification leaves open.

#[cfg(test)]
mod tests;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zerocopy::{FromBytes, IntoBytes};

use super::batches::{decode_batches, encode_batches, event_and_result_size};
use crate::protocol::operation::Operation;
use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::protocol::types::{
    AMOUNT_MAX, Account, AccountFilter, ChangeEventsFilter, CreateResult, QueryFilter,
    TIMESTAMP_MAX, Transfer, account_flags, transfer_flags,
};

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
/// The most sub-batches whose counts fit one trailer of 128 bytes, and so cost one record.
const BATCHES_MAX: usize = 63;
const KNOWN_MAX: usize = 128;
const RECENT_MAX: usize = 12;

/// The limits a workload keeps to.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadOptions {
    /// The most events or ids in one sub-batch.
    pub batch_events_max: usize,
    /// The most sub-batches in one request, 1 to 63.
    pub batches_max: usize,
    /// The most events in one create request, all sub-batches together.
    pub create_events_max: usize,
    /// The most ids in one lookup request, all sub-batches together.
    pub lookup_ids_max: usize,
    /// The most results of the queries in one request, all sub-batches together.
    pub query_results_max: u32,
    /// How far the driver moves the clock before each step, in nanoseconds. If it is so, the
    /// workload meets expiries and commit timestamps to the nanosecond; else it just misses them.
    pub step_nanoseconds: u64,
}

impl Default for WorkloadOptions {
    /// Small batches that fit every server, in development mode too.
    fn default() -> WorkloadOptions {
        WorkloadOptions {
            batch_events_max: 24,
            batches_max: 5,
            create_events_max: 253,
            lookup_ids_max: 2031,
            query_results_max: 8189,
            step_nanoseconds: 1000,
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadStep {
    /// Send a request; its reply goes to [`Workload::on_reply`].
    Request {
        /// One of the nine operations a client can send.
        operation: Operation,
        /// The complete body.
        body: Vec<u8>,
    },
    /// Let this much time pass.
    AdvanceTime {
        /// Nanoseconds, up to a few seconds.
        nanoseconds: u64,
    },
    /// Carry out a pulse now, if one is due. A driver whose pulses come by themselves ignores it.
    Pulse,
}

/// How often each feature is used, in events or requests of 1000. A feature that is off has 0.
#[derive(Clone, Copy, Debug)]
struct Rates {
    // Requests.
    accounts: u64,
    lookups: u64,
    account_queries: u64,
    queries: u64,
    change_events: u64,
    time: u64,
    pulse: u64,
    several_batches: u64,
    imported: u64,
    // Events.
    chain: u64,
    repeat: u64,
    retry: u64,
    mutation: u64,
    pending: u64,
    timeout: u64,
    post_or_void: u64,
    balancing: u64,
    closing: u64,
    huge_amount: u64,
    limit_flags: u64,
    history: u64,
    closed_account: u64,
    odd_timestamp: u64,
    odd_filter: u64,
}

impl Rates {
    fn draw(random: &mut Random) -> Rates {
        let mut rate = |max: u64| if random.below(2) == 0 { 0 } else { 1 + random.below(max) };
        Rates {
            accounts: 30 + rate(200),
            lookups: rate(150),
            account_queries: rate(200),
            queries: rate(150),
            change_events: rate(80),
            time: rate(150),
            pulse: 20 + rate(200),
            several_batches: rate(600),
            imported: rate(400),
            chain: rate(250),
            repeat: rate(300),
            retry: rate(200),
            mutation: rate(400),
            pending: 50 + rate(600),
            timeout: rate(700),
            post_or_void: rate(500),
            balancing: rate(300),
            closing: rate(150),
            huge_amount: rate(150),
            limit_flags: rate(600),
            history: rate(700),
            closed_account: rate(60),
            odd_timestamp: rate(400),
            odd_filter: rate(400),
        }
    }
}

/// Random numbers of a seed.
#[derive(Clone, Debug)]
struct Random(ChaCha8Rng);

impl Random {
    /// A number below `end`. The bias of the remainder is of no concern here.
    fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0);
        self.0.next_u64() % end
    }

    fn chance(&mut self, rate: u64) -> bool {
        self.below(1000) < rate
    }

    fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("a length fits 64 bits");
        usize::try_from(self.below(length)).expect("an index is below its length")
    }

    fn pick<Item: Copy>(&mut self, items: &[Item]) -> Item {
        items[self.index(items.len())]
    }

    fn pick_known<Item: Copy>(&mut self, items: &[Item]) -> Option<Item> {
        if items.is_empty() { None } else { Some(self.pick(items)) }
    }

    fn small_u32(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(u64::from(end))).expect("below 2^32")
    }

    fn small_u16(&mut self, end: u16) -> u16 {
        u16::try_from(self.below(u64::from(end))).expect("below 2^16")
    }

    /// One of the 16 flag bits.
    fn flag(&mut self) -> u16 {
        1 << self.below(16)
    }
}

/// Adds an item to a list of limited size; a full list loses a random one.
fn remember<Item>(random: &mut Random, items: &mut Vec<Item>, item: Item, items_max: usize) {
    if items.len() < items_max {
        items.push(item);
    } else {
        let index = random.index(items.len());
        items[index] = item;
    }
}

/// How the small numbers that the workload counts with become ids.
#[derive(Clone, Copy, Debug)]
enum IdStyle {
    Ascending,
    Descending,
    HighHalf,
    Scattered,
}

impl IdStyle {
    fn id(self, number: u64) -> u128 {
        assert!(number > 0);
        let number = u128::from(number);
        match self {
            IdStyle::Ascending => number,
            IdStyle::Descending => u128::MAX - number,
            IdStyle::HighHalf => number << 64,
            // An odd factor: different numbers have different products.
            IdStyle::Scattered => number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        }
    }
}

/// A seeded source of requests. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Workload {
    random: Random,
    options: WorkloadOptions,
    rates: Rates,
    id_style: IdStyle,
    /// Account ids are drawn from as many numbers.
    account_numbers: u64,
    /// The next new transfer's number.
    transfer_number: u64,
    /// Accounts and transfers as sent, with their stored timestamps.
    accounts: Vec<Account>,
    transfers: Vec<Transfer>,
    pending: Vec<Transfer>,
    /// Transfers that failed.
    failed: Vec<Transfer>,
    /// The last transfers drawn, whatever became of them; so a batch can refer to itself.
    recent: Vec<Transfer>,
    /// The latest commit timestamp seen.
    last_timestamp: u64,
    /// What the driver's clock shows, if it can be told.
    clock: Option<u64>,
    /// A pending transfer to resolve in the next step, and how many events go before that.
    boundary: Option<(Transfer, usize)>,
    /// The latest timestamps of an account and of a transfer.
    last_account_timestamp: u64,
    last_transfer_timestamp: u64,
    /// The next number of an account beyond the small space of ids.
    account_number: u64,
    /// The last imported timestamp that was meant to succeed.
    import_timestamp: u64,
}

impl Workload {
    /// The workload of a seed.
    ///
    /// # Panics
    ///
    /// If an option is zero, or there are more sub-batches than fit the smallest trailer.
    #[must_use]
    pub fn new(seed: u64, options: WorkloadOptions) -> Workload {
        assert!(options.batch_events_max > 0);
        assert!(options.batches_max > 0);
        assert!(options.batches_max <= BATCHES_MAX);
        assert!(options.create_events_max > 0);
        assert!(options.lookup_ids_max > 0);
        assert!(options.query_results_max > 0);
        let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
        let rates = Rates::draw(&mut random);
        let id_style = random.pick(&[
            IdStyle::Ascending,
            IdStyle::Descending,
            IdStyle::HighHalf,
            IdStyle::Scattered,
        ]);
        let account_numbers = random.pick(&[4, 8, 16, 64]);
        Workload {
            random,
            options,
            rates,
            id_style,
            account_numbers,
            transfer_number: 1,
            accounts: Vec::new(),
            transfers: Vec::new(),
            pending: Vec::new(),
            failed: Vec::new(),
            recent: Vec::new(),
            last_timestamp: 0,
            clock: None,
            boundary: None,
            last_account_timestamp: 1,
            last_transfer_timestamp: 1,
            account_number: account_numbers + 1,
            import_timestamp: 0,
        }
    }

    /// The next step.
    pub fn next_step(&mut self) -> WorkloadStep {
        let rates = self.rates;
        let step = self.options.step_nanoseconds;
        self.clock = self.clock.map(|clock| clock.saturating_add(step));
        if self.accounts.len() < 2 {
            return self.create_accounts();
        }
        if let Some((pending, events_before)) = self.boundary.take() {
            return self.resolve_at_boundary(&pending, events_before);
        }
        let mut draw = self.random.below(1000 + rates.lookups + rates.queries);
        let mut hit = |rate: u64| {
            let hit = draw < rate;
            draw = draw.saturating_sub(rate);
            hit
        };
        if hit(rates.accounts) {
            self.create_accounts()
        } else if hit(rates.lookups) {
            self.lookup()
        } else if hit(rates.account_queries) {
            self.account_query()
        } else if hit(rates.queries) {
            self.query()
        } else if hit(rates.change_events) {
            self.change_events()
        } else if hit(rates.time) {
            let nanoseconds = self.nanoseconds();
            self.clock = self.clock.map(|clock| clock.saturating_add(nanoseconds));
            WorkloadStep::AdvanceTime { nanoseconds }
        } else if hit(rates.pulse) {
            self.clock = None;
            WorkloadStep::Pulse
        } else {
            self.create_transfers()
        }
    }

    /// Learns from the reply to a request: what was created, what failed, and what time it is.
    ///
    /// # Panics
    ///
    /// If the reply does not have the shape that the request calls for.
    pub fn on_reply(&mut self, operation: Operation, timestamp: u64, body: &[u8], reply: &[u8]) {
        self.last_timestamp = self.last_timestamp.max(timestamp);
        self.clock = Some(self.last_timestamp);
        if !matches!(operation, Operation::CreateAccounts | Operation::CreateTransfers) {
            return;
        }
        let (event_size, result_size) = event_and_result_size(operation);
        let batches = decode_batches(event_size, body);
        let replies = decode_batches(result_size, reply);
        assert_eq!(batches.len(), replies.len(), "one reply per sub-batch");
        for (batch, results) in batches.iter().zip(&replies) {
            let events = batch.chunks_exact(event_size);
            let results = results.chunks_exact(result_size);
            assert_eq!(events.len(), results.len(), "one result per event");
            for (event, result) in events.zip(results) {
                let result = CreateResult::read_from_bytes(result).expect("a chunk is a result");
                if operation == Operation::CreateAccounts {
                    self.learn_account(event, result);
                } else {
                    self.learn_transfer(event, result);
                }
            }
        }
    }

    fn learn_account(&mut self, event: &[u8], result: CreateResult) {
        let mut account = Account::read_from_bytes(event).expect("a chunk is an account");
        if result.status == CreateAccountStatus::Created as u32 {
            account.timestamp = result.timestamp;
            self.last_account_timestamp = self.last_account_timestamp.max(account.timestamp);
            remember(&mut self.random, &mut self.accounts, account, KNOWN_MAX);
        }
    }

    fn learn_transfer(&mut self, event: &[u8], result: CreateResult) {
        let mut transfer = Transfer::read_from_bytes(event).expect("a chunk is a transfer");
        if result.status == CreateTransferStatus::Created as u32 {
            transfer.timestamp = result.timestamp;
            self.last_transfer_timestamp = self.last_transfer_timestamp.max(result.timestamp);
            remember(&mut self.random, &mut self.transfers, transfer, KNOWN_MAX);
            if transfer.flags & transfer_flags::PENDING != 0 {
                remember(&mut self.random, &mut self.pending, transfer, KNOWN_MAX / 4);
            }
        } else {
            remember(&mut self.random, &mut self.failed, transfer, KNOWN_MAX / 4);
        }
    }

    /// The sizes of a request's sub-batches, `total_max` together.
    fn batch_sizes(&mut self, total_max: usize) -> Vec<usize> {
        let count = self.batch_count();
        let mut left = total_max;
        let mut sizes = Vec::new();
        for _ in 0..count {
            let size_max = self.options.batch_events_max.min(left);
            let size = match self.random.below(20) {
                0 => 0,
                1 | 2 => size_max,
                3..=12 => size_max.min(1 + self.random.index(6)),
                _ => self.random.index(size_max + 1),
            };
            left -= size;
            sizes.push(size);
        }
        sizes
    }

    fn batch_count(&mut self) -> usize {
        if self.random.chance(self.rates.several_batches) {
            1 + self.random.index(self.options.batches_max)
        } else {
            1
        }
    }

    /// How long to wait: an instant, about a second, or until about the expiry of some transfer.
    fn nanoseconds(&mut self) -> u64 {
        if let Some(pending) = self.random.pick_known(&self.pending)
            && self.random.below(2) == 0
        {
            let timeout = u64::from(pending.timeout.min(5)) * NANOSECONDS_PER_SECOND;
            let expiry = pending.timestamp + timeout;
            let clock = self.clock.unwrap_or(self.last_timestamp);
            // The event with index `events_before` of the next step happens just before, at or
            // just after the expiry.
            let events_before = self.random.index(3);
            let before = self.options.step_nanoseconds + 3 - self.random.below(3);
            let before = before + u64::try_from(events_before).expect("0, 1 or 2");
            if let Some(wait) = expiry.checked_sub(clock + before)
                && wait > 0
            {
                self.boundary = Some((pending, events_before));
                return wait;
            }
        }
        match self.random.below(4) {
            0 => 1 + self.random.below(10_000),
            1 => 1 + self.random.below(NANOSECONDS_PER_SECOND),
            2 => NANOSECONDS_PER_SECOND,
            _ => NANOSECONDS_PER_SECOND + self.random.below(4 * NANOSECONDS_PER_SECOND),
        }
    }

    fn account_id(&mut self) -> u128 {
        if self.random.below(50) == 0 {
            return self.random.pick(&[0, u128::MAX]);
        }
        let number = 1 + self.random.below(self.account_numbers);
        self.id_style.id(number)
    }

    /// The id of a new account: of the small space of ids, or beyond it.
    fn new_account_id(&mut self) -> u128 {
        if self.random.below(4) != 0 {
            return self.account_id();
        }
        self.account_number += 1;
        self.id_style.id(self.account_number)
    }

    /// An id that no account has.
    fn missing_account_id(&self) -> u128 {
        self.id_style.id(1 << 40)
    }

    /// A new transfer id, or sometimes one that may have been used.
    fn transfer_id(&mut self) -> u128 {
        if self.random.below(20) == 0 {
            return self.used_transfer_id();
        }
        self.transfer_number += 1;
        self.id_style.id(self.transfer_number - 1)
    }

    fn used_transfer_id(&mut self) -> u128 {
        if self.random.below(20) == 0 {
            return self.random.pick(&[0, u128::MAX]);
        }
        let number = 1 + self.random.below(self.transfer_number);
        self.id_style.id(number)
    }

    /// Any timestamp that may matter: zero, the ends of the range, about known ones, the future.
    fn any_timestamp(&mut self) -> u64 {
        let account = self.random.pick_known(&self.accounts).map(|account| account.timestamp);
        let transfer = self.random.pick_known(&self.transfers).map(|transfer| transfer.timestamp);
        match self.random.below(14) {
            10 => self.last_account_timestamp,
            11 => self.last_account_timestamp - 1,
            12 => self.last_transfer_timestamp,
            13 => self.last_transfer_timestamp + 1,
            0 => 0,
            1 => self.random.pick(&[1, TIMESTAMP_MAX, TIMESTAMP_MAX + 1, u64::MAX]),
            2 => self.last_timestamp.saturating_add(3600 * NANOSECONDS_PER_SECOND),
            3 => account.unwrap_or(1),
            4 => account.unwrap_or(1) - 1,
            5 => account.unwrap_or(1) + 1,
            6 => transfer.unwrap_or(1) - 1,
            7 => transfer.unwrap_or(1) + 1,
            8 => self.import_timestamp,
            _ => transfer.unwrap_or(1),
        }
    }

    /// The timestamp of an imported event, most often one that succeeds.
    fn imported_timestamp(&mut self) -> u64 {
        if self.random.chance(self.rates.odd_timestamp) {
            return self.any_timestamp();
        }
        let floor = self.import_timestamp.max(self.last_timestamp);
        self.import_timestamp = floor + 1 + self.random.below(20);
        self.import_timestamp
    }

    /// Now and then, about the commit timestamp of the sub-batch that ends with that many events of
    /// the request, if it can be told: no imported event may have it.
    fn commit_timestamp(&mut self, events: usize) -> Option<u64> {
        if !self.random.chance(self.rates.odd_timestamp) || self.random.below(4) != 0 {
            return None;
        }
        let events = u64::try_from(events).expect("a count fits 64 bits");
        self.clock.map(|clock| (clock + events + 1).saturating_sub(self.random.below(3)))
    }

    fn user_data_64(&mut self) -> u64 {
        if self.random.below(2) == 0 { 0 } else { self.random.pick(&[1, 2, u64::MAX]) }
    }

    fn user_data_32(&mut self) -> u32 {
        if self.random.below(2) == 0 { 0 } else { self.random.pick(&[1, 2, u32::MAX]) }
    }

    fn user_data_128(&mut self) -> u128 {
        if self.random.below(2) == 0 { 0 } else { self.random.pick(&[1, 2, 1 << 64, u128::MAX]) }
    }

    fn ledger(&mut self) -> u32 {
        if self.random.below(8) == 0 { 2 } else { 1 }
    }

    fn code(&mut self) -> u16 {
        self.random.pick(&[1, 1, 2, u16::MAX])
    }

    fn amount(&mut self) -> u128 {
        if self.random.chance(self.rates.huge_amount) {
            let less = u128::from(self.random.below(50));
            return self.random.pick(&[
                AMOUNT_MAX,
                AMOUNT_MAX - less,
                AMOUNT_MAX / 2,
                AMOUNT_MAX / 2 + less,
                1 << 64,
            ]);
        }
        match self.random.below(10) {
            0 => 0,
            1..=6 => u128::from(1 + self.random.below(10)),
            _ => u128::from(self.random.below(200)),
        }
    }
}

/// Creating accounts.
impl Workload {
    fn create_accounts(&mut self) -> WorkloadStep {
        let mut batches = Vec::new();
        let mut events = 0;
        for size in self.batch_sizes(self.options.create_events_max) {
            events += size;
            let imported = self.random.chance(self.rates.imported);
            let mut accounts: Vec<Account> = (0..size).map(|_| self.account(imported)).collect();
            let linked = self.chain_links(size);
            for (account, linked) in accounts.iter_mut().zip(linked) {
                account.flags |= if linked { account_flags::LINKED } else { 0 };
            }
            if let Some(last) = accounts.last_mut()
                && self.random.below(4) != 0
            {
                last.flags &= !account_flags::LINKED;
            }
            if let (true, Some(first)) = (imported, accounts.first_mut()) {
                first.timestamp = self.commit_timestamp(events).unwrap_or(first.timestamp);
            }
            batches.push(accounts.as_bytes().to_vec());
        }
        let body = encode_batches(size_of::<Account>(), &batches);
        WorkloadStep::Request { operation: Operation::CreateAccounts, body }
    }

    fn account(&mut self, imported: bool) -> Account {
        let known = self.random.pick_known(&self.accounts);
        let mut account = match known {
            Some(mut account) if self.random.chance(self.rates.repeat) => {
                if self.random.below(8) == 0 {
                    let start = self.random.below(5);
                    let mut index = 0;
                    let mut differs = || {
                        index += 1;
                        index > start && self.random.below(2) == 0
                    };
                    account.user_data_128 ^= u128::from(differs());
                    account.user_data_64 ^= u64::from(differs());
                    account.user_data_32 ^= u32::from(differs());
                    account.ledger ^= 4 * u32::from(differs());
                    account.code ^= 4 * u16::from(differs());
                }
                account
            }
            _ => self.new_account(),
        };
        // A repeat of an imported account in a regular batch (or the reverse) is left as it is
        // now and then.
        if self.random.below(10) != 0 {
            account.flags &= !account_flags::IMPORTED;
            account.flags |= if imported { account_flags::IMPORTED } else { 0 };
        }
        account.timestamp = 0;
        if account.flags & account_flags::IMPORTED != 0 {
            account.timestamp = self.imported_timestamp();
        }
        if self.random.chance(self.rates.mutation) {
            self.mutate_account(&mut account);
            while self.random.below(2) == 0 {
                self.mutate_account(&mut account);
            }
        }
        account
    }

    fn new_account(&mut self) -> Account {
        let mut flags = 0;
        if self.random.chance(self.rates.limit_flags) {
            flags |= self.random.pick(&[
                account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS,
                account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS,
            ]);
        }
        if self.random.chance(self.rates.history) {
            flags |= account_flags::HISTORY;
        }
        if self.random.chance(self.rates.closed_account) {
            flags |= account_flags::CLOSED;
        }
        Account {
            id: self.new_account_id(),
            user_data_128: self.user_data_128(),
            user_data_64: self.user_data_64(),
            user_data_32: self.user_data_32(),
            ledger: self.ledger(),
            code: self.code(),
            flags,
            ..Account::default()
        }
    }

    fn mutate_account(&mut self, account: &mut Account) {
        match self.random.below(18) {
            0 => account.id = 0,
            1 => account.id = u128::MAX,
            2 => account.reserved = 1 + self.random.small_u32(9),
            3 => account.flags ^= self.random.flag(),
            4 => account.flags ^= account_flags::CLOSED,
            5 => {
                account.flags |= account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS
                    | account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS;
            }
            6 => account.debits_pending = 1,
            7 => account.debits_posted = 1,
            8 => account.credits_pending = 1,
            9 => account.credits_posted = 1,
            10 => account.ledger = 0,
            11 => account.code = 0,
            12 => account.ledger = self.ledger(),
            13 => account.code = self.code(),
            14 => account.user_data_128 = self.user_data_128(),
            15 => account.user_data_64 = self.user_data_64(),
            16 => account.user_data_32 = self.user_data_32(),
            _ => account.timestamp = self.any_timestamp(),
        }
    }

    /// Which events of a batch carry the linked flag.
    fn chain_links(&mut self, size: usize) -> Vec<bool> {
        let mut links = Vec::new();
        let mut left = 0;
        for _ in 0..size {
            if left == 0 && self.random.chance(self.rates.chain) {
                left = match self.random.below(8) {
                    0 => size,
                    _ => 2 + self.random.index(4),
                };
            }
            links.push(left > 1);
            left = left.saturating_sub(1);
        }
        links
    }
}

/// Creating transfers.
impl Workload {
    fn create_transfers(&mut self) -> WorkloadStep {
        let mut batches = Vec::new();
        let mut events = 0;
        for size in self.batch_sizes(self.options.create_events_max) {
            events += size;
            let imported = self.random.chance(self.rates.imported);
            let linked = self.chain_links(size);
            let mut transfers: Vec<Transfer> = Vec::new();
            for linked in linked {
                let mut transfer = self.transfer(imported);
                transfer.flags |= if linked { transfer_flags::LINKED } else { 0 };
                remember(&mut self.random, &mut self.recent, transfer, RECENT_MAX);
                transfers.push(transfer);
            }
            if let Some(last) = transfers.last_mut()
                && self.random.below(4) != 0
            {
                last.flags &= !transfer_flags::LINKED;
            }
            if let (true, Some(last)) = (imported, transfers.last_mut()) {
                last.timestamp = self.commit_timestamp(events).unwrap_or(last.timestamp);
            }
            batches.push(transfers.as_bytes().to_vec());
        }
        let body = encode_batches(size_of::<Transfer>(), &batches);
        WorkloadStep::Request { operation: Operation::CreateTransfers, body }
    }

    fn transfer(&mut self, imported: bool) -> Transfer {
        let mut transfer = self.base_transfer();
        if self.random.below(10) != 0 {
            transfer.flags &= !transfer_flags::IMPORTED;
            transfer.flags |= if imported { transfer_flags::IMPORTED } else { 0 };
        }
        transfer.timestamp = 0;
        if transfer.flags & transfer_flags::IMPORTED != 0 {
            transfer.timestamp = self.imported_timestamp();
            // Most timeouts of imported transfers would fail.
            if self.random.below(4) != 0 {
                transfer.timeout = 0;
            }
            if self.random.chance(self.rates.odd_timestamp) {
                self.antedate(&mut transfer);
            }
        }
        if self.random.chance(self.rates.mutation) {
            self.mutate_transfer(&mut transfer);
            while self.random.below(3) == 0 {
                self.mutate_transfer(&mut transfer);
            }
        }
        transfer
    }

    /// Moves an imported transfer before one of its accounts, if that can be done without moving it
    /// before another transfer.
    fn antedate(&mut self, transfer: &mut Transfer) {
        let timestamp = self.last_account_timestamp.saturating_sub(1 + self.random.below(8));
        if timestamp <= self.last_transfer_timestamp {
            return;
        }
        transfer.timestamp = timestamp;
        let later = self.accounts.iter().filter(|account| account.timestamp > timestamp);
        let later: Vec<u128> = later.map(|account| account.id).collect();
        if self.random.below(3) != 0 {
            transfer.debit_account_id = self.random.pick_known(&later).unwrap_or(1);
        }
        if self.random.below(3) != 0 {
            transfer.credit_account_id = self.random.pick_known(&later).unwrap_or(1);
        }
    }

    fn base_transfer(&mut self) -> Transfer {
        if self.random.chance(self.rates.repeat) {
            let from_batch = self.random.below(4) == 0;
            let known = if from_batch { &self.recent } else { &self.transfers };
            if let Some(transfer) = self.random.pick_known(known) {
                return self.repeat(transfer);
            }
        }
        if self.random.chance(self.rates.retry)
            && let Some(transfer) = self.random.pick_known(&self.failed)
        {
            return transfer;
        }
        if self.random.chance(self.rates.post_or_void) {
            let known = match self.random.below(10) {
                0 => &self.transfers,
                1..=3 => &self.recent,
                _ => &self.pending,
            };
            if let Some(transfer) = self.random.pick_known(known) {
                return self.post_or_void(&transfer);
            }
        }
        self.new_transfer()
    }

    /// A repeat, as sent or with what stands for the same, or nearly the same.
    fn repeat(&mut self, mut transfer: Transfer) -> Transfer {
        let resolves =
            transfer_flags::POST_PENDING_TRANSFER | transfer_flags::VOID_PENDING_TRANSFER;
        match self.random.below(11) {
            0 => transfer.amount = AMOUNT_MAX,
            1 => transfer.amount = 0,
            2 => transfer.amount = transfer.amount.saturating_add(1),
            3 if transfer.flags & resolves != 0 => {
                (transfer.debit_account_id, transfer.credit_account_id) = (0, 0);
                (transfer.ledger, transfer.code) = (0, 0);
            }
            4 if transfer.flags & resolves != 0 => {
                transfer.user_data_128 = 0;
                transfer.user_data_64 = 0;
                transfer.user_data_32 = 0;
            }
            5..=7 => self.differ(&mut transfer),
            _ => {}
        }
        transfer
    }

    /// Changes some of the fields in which a repeat is compared with what exists.
    fn differ(&mut self, transfer: &mut Transfer) {
        // What comes first in the comparison is changed more rarely, or it would hide the rest.
        let start = self.random.below(10);
        let mut index = 0;
        let mut differs = || {
            index += 1;
            index > start && self.random.below(2) == 0
        };
        transfer.pending_id ^= u128::from(differs());
        transfer.timeout ^= u32::from(differs());
        transfer.debit_account_id ^= u128::from(differs());
        transfer.credit_account_id ^= u128::from(differs());
        transfer.amount ^= u128::from(differs());
        transfer.user_data_128 ^= u128::from(differs());
        transfer.user_data_64 ^= u64::from(differs());
        transfer.user_data_32 ^= u32::from(differs());
        transfer.ledger ^= 4 * u32::from(differs());
        transfer.code ^= 4 * u16::from(differs());
    }

    /// Events of which one resolves a pending transfer about when it expires.
    fn resolve_at_boundary(&mut self, pending: &Transfer, events_before: usize) -> WorkloadStep {
        let mut transfers: Vec<Transfer> =
            (0..events_before).map(|_| self.new_transfer()).collect();
        let mut resolving = self.post_or_void(pending);
        if self.random.below(4) != 0 {
            resolving.amount = if resolving.flags & transfer_flags::POST_PENDING_TRANSFER != 0 {
                AMOUNT_MAX
            } else {
                0
            };
        }
        transfers.push(resolving);
        transfers.push(self.new_transfer());
        let body = encode_batches(size_of::<Transfer>(), &[transfers.as_bytes().to_vec()]);
        WorkloadStep::Request { operation: Operation::CreateTransfers, body }
    }

    fn post_or_void(&mut self, pending: &Transfer) -> Transfer {
        let post = self.random.below(3) != 0;
        let names_accounts = self.random.below(3) == 0;
        let amount = match self.random.below(8) {
            0 => 0,
            1 | 2 => pending.amount,
            3 => pending.amount.saturating_sub(1),
            4 => pending.amount.saturating_add(1),
            5 => self.amount(),
            _ if post => AMOUNT_MAX,
            _ => 0,
        };
        Transfer {
            id: self.transfer_id(),
            debit_account_id: if names_accounts { pending.debit_account_id } else { 0 },
            credit_account_id: if names_accounts { pending.credit_account_id } else { 0 },
            amount,
            pending_id: pending.id,
            user_data_128: self.user_data_128(),
            user_data_64: self.user_data_64(),
            user_data_32: self.user_data_32(),
            ledger: if self.random.below(3) == 0 { pending.ledger } else { 0 },
            code: if self.random.below(3) == 0 { pending.code } else { 0 },
            flags: if post {
                transfer_flags::POST_PENDING_TRANSFER
            } else {
                transfer_flags::VOID_PENDING_TRANSFER
            },
            ..Transfer::default()
        }
    }

    fn new_transfer(&mut self) -> Transfer {
        let (debit, credit) = self.two_accounts();
        let mut flags = 0;
        let mut timeout = 0;
        let mut amount = self.amount();
        if self.random.chance(self.rates.pending) {
            flags |= transfer_flags::PENDING;
            if self.random.chance(self.rates.timeout) {
                timeout = self.random.pick(&[1, 1, 1, 2, 3, 100, u32::MAX, u32::MAX]);
            }
            if self.random.chance(self.rates.closing) {
                flags |= self.random.pick(&[
                    transfer_flags::CLOSING_DEBIT,
                    transfer_flags::CLOSING_CREDIT,
                    transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT,
                ]);
            }
        }
        if self.random.chance(self.rates.balancing) {
            flags |= self.random.pick(&[
                transfer_flags::BALANCING_DEBIT,
                transfer_flags::BALANCING_CREDIT,
                transfer_flags::BALANCING_DEBIT | transfer_flags::BALANCING_CREDIT,
            ]);
            if self.random.below(2) == 0 {
                amount = AMOUNT_MAX;
            }
        }
        Transfer {
            id: self.transfer_id(),
            debit_account_id: debit.id,
            credit_account_id: credit.id,
            amount,
            user_data_128: self.user_data_128(),
            user_data_64: self.user_data_64(),
            user_data_32: self.user_data_32(),
            timeout,
            ledger: debit.ledger,
            code: self.code(),
            flags,
            ..Transfer::default()
        }
    }

    /// Two accounts, most often different and of the same ledger.
    fn two_accounts(&mut self) -> (Account, Account) {
        assert!(!self.accounts.is_empty());
        let debit = self.random.pick(&self.accounts);
        let mut credit = self.random.pick(&self.accounts);
        for _ in 0..4 {
            if credit.id == debit.id || credit.ledger != debit.ledger {
                credit = self.random.pick(&self.accounts);
            }
        }
        (debit, credit)
    }

    fn mutate_transfer(&mut self, transfer: &mut Transfer) {
        match self.random.below(28) {
            0 => transfer.id = 0,
            1 => transfer.id = u128::MAX,
            2 => transfer.id = self.used_transfer_id(),
            3 => transfer.debit_account_id = 0,
            4 => transfer.debit_account_id = u128::MAX,
            5 => transfer.debit_account_id = self.account_id(),
            6 => transfer.debit_account_id = self.missing_account_id(),
            7 => transfer.credit_account_id = 0,
            8 => transfer.credit_account_id = u128::MAX,
            9 => transfer.credit_account_id = self.account_id(),
            10 => transfer.credit_account_id = self.missing_account_id(),
            11 => transfer.credit_account_id = transfer.debit_account_id,
            12 => transfer.amount = self.amount(),
            13 => transfer.pending_id = 0,
            14 => transfer.pending_id = u128::MAX,
            15 => transfer.pending_id = transfer.id,
            16 => transfer.pending_id = self.used_transfer_id(),
            17 => transfer.user_data_128 = self.user_data_128(),
            18 => transfer.user_data_64 = self.user_data_64(),
            19 => transfer.user_data_32 = self.user_data_32(),
            20 => transfer.timeout = self.random.pick(&[0, 1, 2, u32::MAX]),
            21 => transfer.ledger = self.random.small_u32(4),
            22 => transfer.code = self.random.small_u16(4),
            23 | 24 => transfer.flags ^= self.random.flag(),
            25 => {
                transfer.flags |=
                    self.random.pick(&[transfer_flags::CLOSING_DEBIT, transfer_flags::PENDING]);
            }
            26 => transfer.flags ^= transfer_flags::IMPORTED,
            _ => transfer.timestamp = self.any_timestamp(),
        }
    }
}

/// Reading.
impl Workload {
    fn lookup(&mut self) -> WorkloadStep {
        let accounts = self.random.below(2) == 0;
        let mut batches = Vec::new();
        for size in self.batch_sizes(self.options.lookup_ids_max) {
            let mut ids: Vec<u128> = Vec::new();
            for _ in 0..size {
                let id = match ids.last() {
                    Some(&last) if self.random.below(8) == 0 => last,
                    _ if accounts => self.account_id(),
                    _ => self.used_transfer_id(),
                };
                ids.push(id);
            }
            batches.push(ids.as_bytes().to_vec());
        }
        let operation =
            if accounts { Operation::LookupAccounts } else { Operation::LookupTransfers };
        WorkloadStep::Request { operation, body: encode_batches(size_of::<u128>(), &batches) }
    }

    /// A number of results to ask for. What it can bring is taken from `left`; `None` if nothing
    /// is left.
    fn limit(&mut self, left: &mut u32) -> Option<u32> {
        let most = self.options.query_results_max;
        let limit = match self.random.below(10) {
            0 if self.random.chance(self.rates.odd_filter) => 0,
            0 | 1 => 1,
            2 | 3 => 2,
            4..=6 => 10,
            7 => 1 + self.random.small_u32(200),
            _ => self.random.pick(&[most, most.saturating_add(1), u32::MAX]),
        };
        let limit = if limit.min(most) > *left { *left } else { limit };
        if *left == 0 {
            return None;
        }
        *left -= limit.min(most);
        Some(limit)
    }

    fn timestamp_range(&mut self) -> (u64, u64) {
        match self.random.below(8) {
            0 | 1 => (0, 0),
            2 => (self.any_timestamp(), 0),
            3 => (0, self.any_timestamp()),
            4 => {
                let timestamp = self.any_timestamp();
                (timestamp, timestamp)
            }
            _ => {
                let (one, other) = (self.any_timestamp(), self.any_timestamp());
                if self.random.chance(self.rates.odd_filter) {
                    (one, other)
                } else {
                    (one.min(other), one.max(other))
                }
            }
        }
    }

    fn account_filter(&mut self, limit: u32) -> AccountFilter {
        let (timestamp_min, timestamp_max) = self.timestamp_range();
        let mut filter = AccountFilter {
            account_id: self.account_id(),
            user_data_128: if self.random.below(4) == 0 { self.user_data_128() } else { 0 },
            user_data_64: if self.random.below(4) == 0 { self.user_data_64() } else { 0 },
            user_data_32: if self.random.below(4) == 0 { self.user_data_32() } else { 0 },
            code: if self.random.below(4) == 0 { self.code() } else { 0 },
            reserved: [0; 58],
            timestamp_min,
            timestamp_max,
            limit,
            flags: self.random.pick(&[1, 2, 3, 3, 3, 5, 6, 7, 7]),
        };
        if self.random.chance(self.rates.odd_filter) {
            match self.random.below(4) {
                0 => filter.reserved[self.random.index(58)] = 1,
                1 => filter.flags = self.random.pick(&[0, 4]),
                2 => filter.flags ^= 1 << self.random.below(32),
                _ => filter.account_id = self.random.pick(&[0, u128::MAX]),
            }
        }
        filter
    }

    fn query_filter(&mut self, limit: u32) -> QueryFilter {
        let (timestamp_min, timestamp_max) = self.timestamp_range();
        let mut filter = QueryFilter {
            user_data_128: if self.random.below(3) == 0 { self.user_data_128() } else { 0 },
            user_data_64: if self.random.below(3) == 0 { self.user_data_64() } else { 0 },
            user_data_32: if self.random.below(3) == 0 { self.user_data_32() } else { 0 },
            ledger: if self.random.below(3) == 0 { self.ledger() } else { 0 },
            code: if self.random.below(3) == 0 { self.code() } else { 0 },
            reserved: [0; 6],
            timestamp_min,
            timestamp_max,
            limit,
            flags: self.random.small_u32(2),
        };
        if self.random.chance(self.rates.odd_filter) {
            match self.random.below(2) {
                0 => filter.reserved[self.random.index(6)] = 1,
                _ => filter.flags ^= 1 << self.random.below(32),
            }
        }
        filter
    }

    fn account_query(&mut self) -> WorkloadStep {
        let mut left = self.options.query_results_max;
        let mut batches = Vec::new();
        for _ in 0..self.batch_count() {
            if let Some(limit) = self.limit(&mut left) {
                batches.push(self.account_filter(limit).as_bytes().to_vec());
            }
        }
        let operation =
            self.random.pick(&[Operation::GetAccountTransfers, Operation::GetAccountBalances]);
        let body = encode_batches(size_of::<AccountFilter>(), &batches);
        WorkloadStep::Request { operation, body }
    }

    fn query(&mut self) -> WorkloadStep {
        let mut left = self.options.query_results_max;
        let mut batches = Vec::new();
        for _ in 0..self.batch_count() {
            if let Some(limit) = self.limit(&mut left) {
                batches.push(self.query_filter(limit).as_bytes().to_vec());
            }
        }
        let operation = self.random.pick(&[Operation::QueryAccounts, Operation::QueryTransfers]);
        let body = encode_batches(size_of::<QueryFilter>(), &batches);
        WorkloadStep::Request { operation, body }
    }

    fn change_events(&mut self) -> WorkloadStep {
        let (timestamp_min, timestamp_max) = self.timestamp_range();
        let limit = self.random.pick(&[1, 2, 10, 100, 2730, 2731, u32::MAX]);
        let mut filter =
            ChangeEventsFilter { timestamp_min, timestamp_max, limit, reserved: [0; 44] };
        if self.random.chance(self.rates.odd_filter) {
            match self.random.below(2) {
                0 => filter.reserved[self.random.index(44)] = 1,
                _ => filter.limit = 0,
            }
        }
        let body = filter.as_bytes().to_vec();
        WorkloadStep::Request { operation: Operation::GetChangeEvents, body }
    }
}
