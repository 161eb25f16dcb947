//! `lookup_accounts` and `lookup_transfers`: records by id, in the order asked for.

use zerocopy::IntoBytes;

use crate::protocol::operation::Operation;
use crate::protocol::to_index;
use crate::ready;
use crate::storage::fetch::Fetch;
use crate::storage::rows::is_orphan;
use crate::storage::store::Store;

use super::Ledger;
use super::account_cache::AccountCache;
use super::reads::{Reads, Verdict, WINDOW_MAX};
use super::work::{Extent, Task, load_copy};

const ID_SIZE: usize = size_of::<u128>();

/// A window of ids of the current sub-batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lookup {
    /// Ids of the sub-batch before the window.
    start: u32,
    /// Ids in the window; zero when none is being fetched.
    count: u32,
}

/// What the lookups of a window work on.
struct Context<'a> {
    store: &'a mut Store,
    cache: &'a AccountCache,
    reads: &'a mut Reads,
    /// The ids of the window.
    ids: &'a [u8],
}

impl Context<'_> {
    fn id(&self, item: u32) -> u128 {
        let start = to_index(item) * ID_SIZE;
        let bytes = &self.ids[start..start + ID_SIZE];
        u128::from_le_bytes(bytes.try_into().expect("an id has 16 bytes"))
    }
}

fn run_account(context: &mut Context<'_>, task: &mut Task) -> Fetch<()> {
    let id = context.id(task.item);
    let Context { store, cache, reads, .. } = context;
    let account = ready!(load_copy(store, cache, &mut task.load, id, Extent::Current));
    if let Some(account) = account {
        let place = to_index(task.item);
        reads.accounts[place] = account;
        reads.verdicts[place] = Verdict::Keep;
    }
    Fetch::Ready(())
}

fn run_transfer(context: &mut Context<'_>, task: &mut Task) -> Fetch<()> {
    let id = context.id(task.item);
    if id == 0 || id == u128::MAX {
        return Fetch::Ready(());
    }
    let Context { store, reads, .. } = context;
    if task.stage == 0 {
        let find = task.find.get_or_insert_with(|| store.find_transfer_start(id));
        let Some(row) = ready!(store.find(find)) else {
            return Fetch::Ready(());
        };
        task.row = row;
        task.advance(1);
    }
    let transfer = ready!(store.transfer(task.row));
    if !is_orphan(&transfer) {
        let place = to_index(task.item);
        reads.transfers[place] = transfer;
        reads.verdicts[place] = Verdict::Keep;
    }
    Fetch::Ready(())
}

impl Ledger {
    /// Goes on with a lookup: the size of the reply's body in bytes.
    pub(super) fn lookup_step(
        &mut self,
        operation: Operation,
        body: &[u8],
        reply: &mut [u8],
    ) -> Fetch<u32> {
        while !self.batches.is_done() {
            while self.lookup.start < self.batches.events() {
                ready!(self.lookup_window(operation, body, reply));
            }
            self.lookup = Lookup::default();
            self.batches.finish_batch();
        }
        Fetch::Ready(self.batches.finish(reply))
    }

    fn lookup_window(&mut self, operation: Operation, body: &[u8], reply: &mut [u8]) -> Fetch<()> {
        let is_accounts = operation == Operation::LookupAccounts;
        if self.lookup.count == 0 {
            let left = self.batches.events() - self.lookup.start;
            let window_max = u32::try_from(WINDOW_MAX).expect("a small number");
            self.lookup.count = left.min(window_max);
            self.reads.window_start(to_index(self.lookup.count));
            self.work.clear();
            for item in 0..self.lookup.count {
                self.work.push(item);
            }
        }
        let first = to_index(self.batches.events_before() + self.lookup.start) * ID_SIZE;
        let ids = &body[first..first + to_index(self.lookup.count) * ID_SIZE];
        let Ledger { store, cache, reads, work, .. } = self;
        let mut context = Context { store, cache, reads, ids };
        if is_accounts {
            ready!(work.drive(&mut context, run_account));
        } else {
            ready!(work.drive(&mut context, run_transfer));
        }
        for place in 0..to_index(self.lookup.count) {
            if self.reads.verdicts[place] == Verdict::Keep {
                let record = if is_accounts {
                    self.reads.accounts[place].as_bytes()
                } else {
                    self.reads.transfers[place].as_bytes()
                };
                self.batches.push(reply, record);
            }
        }
        self.lookup.start += self.lookup.count;
        self.lookup.count = 0;
        Fetch::Ready(())
    }
}
