//! Many small lookups at once: whatever an operation has to read before it can go on.
//!
//! An operation lists *items* (numbers whose meaning is its own); a bounded number of them is
//! active at a time, each with its own cursors, so that the disk always has several reads to do.
//! Also here: loading one account from the store. Not covered: what items mean.

use crate::protocol::types::Account;
use crate::ready;
use crate::storage::fetch::Fetch;
use crate::storage::find::{Find, FindTimestamp};
use crate::storage::store::Store;

use super::account_cache::{AccountCache, ROW_NONE, SLOT_NONE};

/// Items that are worked on at the same time.
const TASKS_MAX: usize = 128;

/// What is known so far about one item. Fields mean what the operation wants them to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub item: u32,
    /// How far the task has come; 0 at the start.
    pub stage: u8,
    pub row: u64,
    pub find: Option<Find>,
    pub find_timestamp: Option<FindTimestamp>,
    pub load: Option<AccountLoad>,
}

impl Task {
    fn new(item: u32) -> Task {
        Task { item, stage: 0, row: ROW_NONE, find: None, find_timestamp: None, load: None }
    }

    /// Goes on to the next stage, without cursors.
    pub fn advance(&mut self, stage: u8) {
        assert!(stage > self.stage);
        self.stage = stage;
        self.find = None;
        self.load = None;
    }
}

/// The items of an operation: those to begin and those begun.
#[derive(Debug)]
pub(super) struct Work {
    todo: Vec<u32>,
    begun: usize,
    active: Vec<Task>,
}

impl Work {
    /// Room for `items_max` items.
    pub fn new(items_max: usize) -> Work {
        Work {
            todo: Vec::with_capacity(items_max),
            begun: 0,
            active: Vec::with_capacity(TASKS_MAX),
        }
    }

    /// Bytes that the lists occupy.
    pub fn memory_bytes(items_max: usize) -> u64 {
        let todo = items_max * size_of::<u32>();
        let active = TASKS_MAX * size_of::<Task>();
        u64::try_from(todo + active).expect("memory sizes fit 64 bits")
    }

    /// Starts an empty list.
    pub fn clear(&mut self) {
        self.todo.clear();
        self.begun = 0;
        self.active.clear();
    }

    /// Adds an item.
    pub fn push(&mut self, item: u32) {
        assert!(self.todo.len() < self.todo.capacity(), "the list holds all items of an operation");
        self.todo.push(item);
    }

    /// Goes on with all items; ready when all are.
    pub fn drive<Context>(
        &mut self,
        context: &mut Context,
        run: impl Fn(&mut Context, &mut Task) -> Fetch<()>,
    ) -> Fetch<()> {
        let mut index = 0;
        loop {
            if index == self.active.len() {
                if index == TASKS_MAX || self.begun == self.todo.len() {
                    break;
                }
                self.active.push(Task::new(self.todo[self.begun]));
                self.begun += 1;
            }
            match run(context, &mut self.active[index]) {
                Fetch::Wait => index += 1,
                Fetch::Ready(()) => {
                    self.active.swap_remove(index);
                }
            }
        }
        if self.active.is_empty() {
            assert!(self.begun == self.todo.len());
            Fetch::Ready(())
        } else {
            Fetch::Wait
        }
    }
}

/// How much of an account is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Balances and flags as they are now.
    Current,
    /// Only what never changes.
    Immutable,
}

#[derive(Clone, Copy, Debug)]
enum LoadStage {
    FindAccount,
    ReadAccount { row: u64 },
    FindNewest,
    ReadBalances { row: u64 },
}

/// Loads one account from the store, resumably.
#[derive(Clone, Copy, Debug)]
pub(super) struct AccountLoad {
    id: u128,
    extent: Extent,
    stage: LoadStage,
    find: Option<Find>,
    account: Account,
}

impl AccountLoad {
    /// Of the account with this id, if there is one.
    pub fn new(id: u128, extent: Extent) -> AccountLoad {
        assert!(id != 0 && id != u128::MAX);
        let stage = LoadStage::FindAccount;
        AccountLoad { id, extent, stage, find: None, account: Account::default() }
    }

    /// Of the current balances of an account that was read from its row.
    pub fn current(account: &Account) -> AccountLoad {
        AccountLoad {
            id: account.id,
            extent: Extent::Current,
            stage: LoadStage::FindNewest,
            find: None,
            account: *account,
        }
    }

    /// Goes on: the account and its newest row ([`ROW_NONE`] without events, or not looked for).
    pub fn step(&mut self, store: &mut Store) -> Fetch<Option<(Account, u64)>> {
        loop {
            match self.stage {
                LoadStage::FindAccount => {
                    let find = self.find.get_or_insert_with(|| store.find_account_start(self.id));
                    let Some(row) = ready!(store.find(find)) else {
                        return Fetch::Ready(None);
                    };
                    self.stage = LoadStage::ReadAccount { row };
                }
                LoadStage::ReadAccount { row } => {
                    self.account = ready!(store.account(row));
                    assert!(self.account.id == self.id, "found rows are verified");
                    if self.extent == Extent::Immutable {
                        return Fetch::Ready(Some((self.account, ROW_NONE)));
                    }
                    self.find = None;
                    self.stage = LoadStage::FindNewest;
                }
                LoadStage::FindNewest => {
                    let find =
                        self.find.get_or_insert_with(|| store.find_newest_event_start(self.id));
                    let Some(row) = ready!(store.find(find)) else {
                        return Fetch::Ready(Some((self.account, ROW_NONE)));
                    };
                    self.stage = LoadStage::ReadBalances { row };
                }
                LoadStage::ReadBalances { row } => {
                    // Both pages are asked for before waiting for either.
                    let transfer = store.transfer(row);
                    let balances = store.balances(row);
                    let transfer = ready!(transfer);
                    let balances = ready!(balances);
                    let (side, flags) = if transfer.debit_account_id == self.id {
                        (balances.debit, balances.debit_flags)
                    } else {
                        assert!(transfer.credit_account_id == self.id, "found rows are verified");
                        (balances.credit, balances.credit_flags)
                    };
                    self.account.debits_pending = side.debits_pending;
                    self.account.debits_posted = side.debits_posted;
                    self.account.credits_pending = side.credits_pending;
                    self.account.credits_posted = side.credits_posted;
                    self.account.flags = u16::from(flags);
                    return Fetch::Ready(Some((self.account, row)));
                }
            }
        }
    }
}

/// Makes sure that an account is cached and pinned: its slot, or [`SLOT_NONE`] if there is none.
pub(super) fn load_pinned(
    store: &mut Store,
    cache: &mut AccountCache,
    load: &mut Option<AccountLoad>,
    id: u128,
) -> Fetch<u32> {
    if id == 0 || id == u128::MAX {
        return Fetch::Ready(SLOT_NONE);
    }
    // Another task may have brought it in the meantime.
    let slot = cache.find_pinned(id);
    if slot != SLOT_NONE {
        return Fetch::Ready(slot);
    }
    if load.is_none() {
        cache.misses += 1;
    }
    let load = load.get_or_insert_with(|| AccountLoad::new(id, Extent::Current));
    match ready!(load.step(store)) {
        None => Fetch::Ready(SLOT_NONE),
        Some((account, newest_row)) => {
            Fetch::Ready(insert_pinned(store, cache, &account, newest_row))
        }
    }
}

/// Caches an account, pinned; tells the store which one was evicted.
pub(super) fn insert_pinned(
    store: &mut Store,
    cache: &mut AccountCache,
    account: &Account,
    newest_row: u64,
) -> u32 {
    let (slot, evicted) = cache.insert(account, newest_row);
    if let Some(evicted) = evicted {
        store.spill_account(evicted.id, evicted.newest_row);
    }
    slot
}

/// An account for a read, from the cache or the store; the cache stays as it is.
pub(super) fn load_copy(
    store: &mut Store,
    cache: &AccountCache,
    load: &mut Option<AccountLoad>,
    id: u128,
    extent: Extent,
) -> Fetch<Option<Account>> {
    if id == 0 || id == u128::MAX {
        return Fetch::Ready(None);
    }
    if load.is_none() {
        let slot = cache.find(id);
        if slot != SLOT_NONE {
            return Fetch::Ready(Some(cache.entry(slot).account));
        }
    }
    let load = load.get_or_insert_with(|| AccountLoad::new(id, extent));
    Fetch::Ready(ready!(load.step(store)).map(|(account, _)| account))
}
