//! The works of a benchmark: create accounts, create transfers, query, read everything back.

use super::generate::{Generator, Totals};
use super::load::{Work, refused};
use crate::cli::exit::Failure;
use crate::client::Wire;
use crate::protocol::status::{CreateAccountStatus, CreateTransferStatus};
use crate::protocol::types::{
    Account, AccountFilter, CreateResult, Transfer, account_filter_flags,
};
use crate::protocol::{Operation, to_index, to_size};
use zerocopy::{FromBytes, FromZeros, Immutable, KnownLayout};

const CREATED: u32 = u32::MAX;

/// Results as records.
fn records<Record>(results: &[u8]) -> Result<&[Record], Failure>
where
    Record: FromBytes + Immutable + KnownLayout,
{
    <[Record]>::ref_from_bytes(results)
        .map_err(|_| refused(format!("{} bytes of results do not divide", results.len())))
}

/// Checks that every event was created.
fn check_created(
    results: &[u8],
    count: u32,
    kind: &str,
    name: fn(u32) -> String,
) -> Result<u64, Failure> {
    let results = records::<CreateResult>(results)?;
    if results.len() != to_index(count) {
        let message = format!("{} results for {count} {kind}s", results.len());
        return Err(refused(message));
    }
    let refusals = results.iter().filter(|result| result.status != CREATED).count();
    let Some(result) = results.iter().find(|result| result.status != CREATED) else {
        return Ok(u64::from(count));
    };
    Err(refused(format!(
        "{refusals} of {count} {kind}s in a request were refused, the first with `{}` (a cluster \
         that was used before needs another --seed, or --id-order=tbid)",
        name(result.status)
    )))
}

fn account_status(number: u32) -> String {
    CreateAccountStatus::try_from(number)
        .map_or_else(|_| format!("status {number}"), |status| status.to_string())
}

fn transfer_status(number: u32) -> String {
    CreateTransferStatus::try_from(number)
        .map_or_else(|_| format!("status {number}"), |status| status.to_string())
}

/// Creates all accounts.
pub struct CreateAccounts<'world>(pub &'world Generator);

impl Work for CreateAccounts<'_> {
    fn batches(&self) -> u64 {
        self.0.account_batches()
    }

    fn stage(&mut self, wire: &mut Wire, batch: u64) {
        let count = self.0.account_batch_size(batch);
        self.0.accounts(batch, wire.events_mut::<Account>(count));
        wire.stage(Operation::CreateAccounts, count);
    }

    fn finish(&mut self, batch: u64, results: &[u8]) -> Result<u64, Failure> {
        check_created(results, self.0.account_batch_size(batch), "account", account_status)
    }
}

/// Creates all transfers.
pub struct CreateTransfers<'world>(pub &'world mut Generator);

impl Work for CreateTransfers<'_> {
    fn batches(&self) -> u64 {
        self.0.transfer_batches()
    }

    fn stage(&mut self, wire: &mut Wire, batch: u64) {
        let count = self.0.transfer_batch_size(batch);
        self.0.transfers_new(batch, wire.events_mut::<Transfer>(count));
        wire.stage(Operation::CreateTransfers, count);
    }

    fn finish(&mut self, batch: u64, results: &[u8]) -> Result<u64, Failure> {
        check_created(results, self.0.transfer_batch_size(batch), "transfer", transfer_status)
    }
}

/// Reads the transfers of accounts chosen at random; counts the transfers read.
pub struct QueryAccountTransfers<'world> {
    /// Knows the accounts.
    pub generator: &'world Generator,
    /// Number of queries.
    pub count: u64,
}

impl Work for QueryAccountTransfers<'_> {
    fn batches(&self) -> u64 {
        self.count
    }

    fn stage(&mut self, wire: &mut Wire, batch: u64) {
        let account = self.generator.query_account(batch);
        let filter = AccountFilter {
            account_id: self.generator.account_id(account),
            limit: Operation::GetAccountTransfers.results_max(),
            flags: account_filter_flags::DEBITS | account_filter_flags::CREDITS,
            ..AccountFilter::new_zeroed()
        };
        wire.events_mut::<AccountFilter>(1)[0] = filter;
        wire.stage(Operation::GetAccountTransfers, 1);
    }

    fn finish(&mut self, batch: u64, results: &[u8]) -> Result<u64, Failure> {
        let account = self.generator.query_account(batch);
        let id = self.generator.account_id(account);
        let transfers = records::<Transfer>(results)?;
        let is_of_account = |transfer: &Transfer| {
            [transfer.debit_account_id, transfer.credit_account_id].contains(&id)
        };
        if !transfers.iter().all(is_of_account) {
            return Err(refused(format!("a query of account {id} found a transfer of others")));
        }
        if !transfers.is_sorted_by_key(|transfer| transfer.timestamp) {
            return Err(refused(format!("a query of account {id} came back out of order")));
        }
        Ok(u64::from(to_size(transfers.len())))
    }
}

/// Batches whose records one lookup reads: as many as fit it.
fn batches_per_lookup(wire_limit: u32, batch_count: u32) -> u64 {
    u64::from((wire_limit / batch_count).max(1))
}

/// Reads all transfers and compares them with the generated ones, adding up the accounts.
pub struct ValidateTransfers<'world> {
    generator: &'world Generator,
    totals: &'world mut [Totals],
    per_lookup: u64,
    scratch: Vec<Transfer>,
}

impl<'world> ValidateTransfers<'world> {
    /// Validation with lookups of at most `lookup_max` ids; `totals` has an entry per account.
    ///
    /// # Panics
    ///
    /// If a batch does not fit a lookup.
    #[must_use]
    pub fn new(
        generator: &'world Generator,
        totals: &'world mut [Totals],
        lookup_max: u32,
    ) -> ValidateTransfers<'world> {
        let plan = generator.plan();
        assert!(plan.transfer_batch_count <= lookup_max);
        assert_eq!(totals.len(), to_index(plan.account_count));
        let per_lookup = batches_per_lookup(lookup_max, plan.transfer_batch_count);
        ValidateTransfers { generator, totals, per_lookup, scratch: Vec::new() }
    }

    /// Generates the transfers of a lookup again.
    fn generate(&mut self, lookup: u64, mut note: impl FnMut(u32, u32)) {
        let first = lookup * self.per_lookup;
        let end = (first + self.per_lookup).min(self.generator.transfer_batches());
        self.scratch.clear();
        for batch in first..end {
            let start = self.scratch.len();
            let size = to_index(self.generator.transfer_batch_size(batch));
            self.scratch.resize(start + size, Transfer::default());
            self.generator.transfers_with(batch, &mut self.scratch[start..], &mut note);
        }
    }
}

impl Work for ValidateTransfers<'_> {
    fn batches(&self) -> u64 {
        self.generator.transfer_batches().div_ceil(self.per_lookup)
    }

    fn stage(&mut self, wire: &mut Wire, batch: u64) {
        self.generate(batch, |_, _| ());
        let count = to_size(self.scratch.len());
        for (id, transfer) in wire.events_mut::<u128>(count).iter_mut().zip(&self.scratch) {
            *id = transfer.id;
        }
        wire.stage(Operation::LookupTransfers, count);
    }

    fn finish(&mut self, batch: u64, results: &[u8]) -> Result<u64, Failure> {
        let mut accounts = Vec::new();
        self.generate(batch, |debit, credit| accounts.push((debit, credit)));
        for ((debit, credit), transfer) in accounts.iter().zip(&self.scratch) {
            Totals::add(self.totals, *debit, *credit, transfer.amount);
        }
        let is_imported = self.generator.plan().is_imported;
        let found = records::<Transfer>(results)?;
        if found.len() != self.scratch.len() {
            let (found, expected) = (found.len(), self.scratch.len());
            return Err(refused(format!("{found} of {expected} transfers were found again")));
        }
        for (expected, actual) in self.scratch.iter_mut().zip(found) {
            if !is_imported && actual.timestamp != 0 {
                expected.timestamp = actual.timestamp;
            }
            if expected != actual {
                let message = format!("a transfer changed: {actual:?}, expected {expected:?}");
                return Err(refused(message));
            }
        }
        Ok(u64::from(to_size(found.len())))
    }
}

/// Reads all accounts and compares them with the generated ones and the sums of the transfers.
pub struct ValidateAccounts<'world> {
    generator: &'world Generator,
    totals: &'world [Totals],
    per_lookup: u64,
    scratch: Vec<Account>,
}

impl<'world> ValidateAccounts<'world> {
    /// Validation with lookups of at most `lookup_max` ids; `totals` has an entry per account.
    ///
    /// # Panics
    ///
    /// If a batch does not fit a lookup.
    #[must_use]
    pub fn new(
        generator: &'world Generator,
        totals: &'world [Totals],
        lookup_max: u32,
    ) -> ValidateAccounts<'world> {
        let plan = generator.plan();
        assert!(plan.account_batch_count <= lookup_max);
        assert_eq!(totals.len(), to_index(plan.account_count));
        let per_lookup = batches_per_lookup(lookup_max, plan.account_batch_count);
        ValidateAccounts { generator, totals, per_lookup, scratch: Vec::new() }
    }

    /// Generates the accounts of a lookup again, with their balances.
    fn generate(&mut self, lookup: u64) {
        let plan = self.generator.plan();
        let first = lookup * self.per_lookup;
        let end = (first + self.per_lookup).min(self.generator.account_batches());
        self.scratch.clear();
        for batch in first..end {
            let start = self.scratch.len();
            let size = to_index(self.generator.account_batch_size(batch));
            self.scratch.resize(start + size, Account::default());
            self.generator.accounts(batch, &mut self.scratch[start..]);
        }
        let first_account = first * u64::from(plan.account_batch_count);
        let first_account = usize::try_from(first_account).expect("numbers of accounts are small");
        for (account, totals) in self.scratch.iter_mut().zip(&self.totals[first_account..]) {
            if plan.is_pending {
                account.debits_pending = totals.debits;
                account.credits_pending = totals.credits;
            } else {
                account.debits_posted = totals.debits;
                account.credits_posted = totals.credits;
            }
        }
    }
}

impl Work for ValidateAccounts<'_> {
    fn batches(&self) -> u64 {
        self.generator.account_batches().div_ceil(self.per_lookup)
    }

    fn stage(&mut self, wire: &mut Wire, batch: u64) {
        self.generate(batch);
        let count = to_size(self.scratch.len());
        for (id, account) in wire.events_mut::<u128>(count).iter_mut().zip(&self.scratch) {
            *id = account.id;
        }
        wire.stage(Operation::LookupAccounts, count);
    }

    fn finish(&mut self, batch: u64, results: &[u8]) -> Result<u64, Failure> {
        self.generate(batch);
        let is_imported = self.generator.plan().is_imported;
        let found = records::<Account>(results)?;
        if found.len() != self.scratch.len() {
            let (found, expected) = (found.len(), self.scratch.len());
            return Err(refused(format!("{found} of {expected} accounts were found again")));
        }
        for (expected, actual) in self.scratch.iter_mut().zip(found) {
            if !is_imported && actual.timestamp != 0 {
                expected.timestamp = actual.timestamp;
            }
            if expected != actual {
                let message = format!("an account differs: {actual:?}, expected {expected:?}");
                return Err(refused(message));
            }
        }
        Ok(u64::from(to_size(found.len())))
    }
}
