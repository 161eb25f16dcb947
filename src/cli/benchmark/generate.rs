//! Generated accounts and transfers: a function of the seed and the number of the batch.
//!
//! The same batch can be generated again, so that validation needs no copy of it.
//! Every record has random user data and a random code, none of them zero, as real records do.

use super::distribution::{Chooser, Distribution};
use super::identity::{IdOrder, IdRange};
use crate::client::IdGenerator;
use crate::client::id::milliseconds_now;
use crate::client::random::{Random, low_word, mix};
use crate::protocol::to_index;
use crate::protocol::types::{Account, Transfer, account_flags, transfer_flags};

/// The ledger of all accounts and transfers.
pub const LEDGER: u32 = 1;
const STREAM_ACCOUNTS: u64 = 1 << 60;
const STREAM_TRANSFERS: u64 = 2 << 60;
const STREAM_QUERIES: u64 = 3 << 60;
/// Draws of the credit account before the next account is taken instead.
const CREDIT_DRAWS_MAX: u32 = 64;

/// The accounts and transfers to generate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All randomness but time-ordered ids follows from it.
    pub seed: u64,
    /// Accounts; at least two.
    pub account_count: u32,
    /// Number of hot accounts: the first ones.
    pub account_count_hot: u32,
    /// Which accounts transfers are between.
    pub account_distribution: Distribution,
    /// Accounts of one request at most.
    pub account_batch_count: u32,
    /// Transfers.
    pub transfer_count: u64,
    /// Percentage of transfers that debit a hot account, if there are any.
    pub transfer_hot_percent: u32,
    /// Transfers of one request at most.
    pub transfer_batch_count: u32,
    /// Order of ids.
    pub id_order: IdOrder,
    /// Whether all transfers are pending.
    pub is_pending: bool,
    /// Whether accounts keep their history of balances.
    pub has_history: bool,
    /// Whether all records bring their timestamps.
    pub is_imported: bool,
}

/// Generates the accounts and transfers of a plan.
#[derive(Debug)]
pub struct Generator {
    plan: Plan,
    chooser: Chooser,
    ids: IdGenerator,
    account_tbid: u128,
    /// First time-ordered id of each batch of transfers; empty for other orders.
    transfer_tbids: Vec<u128>,
}

fn nonzero_u32(bits: u64) -> u32 {
    low_word(bits).max(1)
}

fn nonzero_u16(bits: u64) -> u16 {
    let [low, high, ..] = bits.to_le_bytes();
    u16::from_le_bytes([low, high]).max(1)
}

impl Generator {
    /// A generator for a plan; time-ordered ids are drawn from `ids`.
    ///
    /// # Panics
    ///
    /// If the plan's numbers are out of range.
    #[must_use]
    pub fn new(plan: Plan, mut ids: IdGenerator) -> Generator {
        assert!(plan.account_count >= 2);
        assert!(plan.account_count_hot <= plan.account_count);
        assert!(plan.account_batch_count > 0);
        assert!(plan.transfer_batch_count > 0);
        let chooser = Chooser::new(plan.account_distribution, plan.account_count, plan.seed);
        let is_tbid = plan.id_order == IdOrder::Tbid;
        let batches = plan.transfer_count.div_ceil(u64::from(plan.transfer_batch_count));
        let batches = usize::try_from(batches).expect("a machine of 64 bits");
        let account_tbid = ids.reserve(milliseconds_now(), u64::from(plan.account_count));
        let transfer_tbids = if is_tbid { vec![0; batches] } else { Vec::new() };
        Generator { plan, chooser, ids, account_tbid, transfer_tbids }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of batches of accounts.
    #[must_use]
    pub fn account_batches(&self) -> u64 {
        u64::from(self.plan.account_count.div_ceil(self.plan.account_batch_count))
    }

    /// Number of batches of transfers.
    #[must_use]
    pub fn transfer_batches(&self) -> u64 {
        self.plan.transfer_count.div_ceil(u64::from(self.plan.transfer_batch_count))
    }

    /// Number of accounts in a batch.
    #[must_use]
    pub fn account_batch_size(&self, batch: u64) -> u32 {
        let (count, size) = (self.plan.account_count, self.plan.account_batch_count);
        batch_size(u64::from(count), size, batch)
    }

    /// Number of transfers in a batch.
    #[must_use]
    pub fn transfer_batch_size(&self, batch: u64) -> u32 {
        batch_size(self.plan.transfer_count, self.plan.transfer_batch_count, batch)
    }

    /// The id of an account.
    #[inline]
    #[must_use]
    pub fn account_id(&self, index: u32) -> u128 {
        let seed = self.plan.seed ^ STREAM_ACCOUNTS;
        IdRange::new(self.plan.id_order, 0, self.account_tbid, seed).at(u64::from(index))
    }

    /// An account for the query of this number, chosen evenly.
    #[must_use]
    pub fn query_account(&self, query: u64) -> u32 {
        let mut random = Random::new(self.plan.seed, STREAM_QUERIES | query);
        low_word(random.below(u64::from(self.plan.account_count)))
    }

    /// Writes a batch of accounts.
    ///
    /// # Panics
    ///
    /// If there is no such batch.
    pub fn accounts(&self, batch: u64, accounts: &mut [Account]) {
        let mut random = Random::new(self.plan.seed, STREAM_ACCOUNTS | batch);
        let first = batch * u64::from(self.plan.account_batch_count);
        let mut flags = 0;
        if self.plan.has_history {
            flags |= account_flags::HISTORY;
        }
        if self.plan.is_imported {
            flags |= account_flags::IMPORTED;
        }
        for (number, account) in (first..).zip(accounts) {
            let bits = random.next_u64();
            let index = u32::try_from(number).expect("numbers of accounts are of 32 bits");
            *account = Account {
                id: self.account_id(index),
                user_data_128: random.next_u128().max(1),
                user_data_64: random.next_u64().max(1),
                user_data_32: nonzero_u32(bits >> 32),
                ledger: LEDGER,
                code: nonzero_u16(bits),
                flags,
                timestamp: if self.plan.is_imported { number + 1 } else { 0 },
                ..Account::default()
            };
        }
    }

    /// Writes a batch of transfers for the first time: draws its time-ordered ids.
    ///
    /// # Panics
    ///
    /// If there is no such batch.
    pub fn transfers_new(&mut self, batch: u64, transfers: &mut [Transfer]) {
        if self.plan.id_order == IdOrder::Tbid {
            let count = u64::from(self.transfer_batch_size(batch));
            let index = usize::try_from(batch).expect("a machine of 64 bits");
            self.transfer_tbids[index] = self.ids.reserve(milliseconds_now(), count);
        }
        self.transfers(batch, transfers);
    }

    /// Writes a batch of transfers (again).
    ///
    /// # Panics
    ///
    /// If ids are time-ordered and the batch was not made before.
    pub fn transfers(&self, batch: u64, transfers: &mut [Transfer]) {
        self.transfers_with(batch, transfers, |_, _| ());
    }

    /// As [`Generator::transfers`]; also calls `note` with the indexes of each transfer's accounts.
    pub fn transfers_with(
        &self,
        batch: u64,
        transfers: &mut [Transfer],
        mut note: impl FnMut(u32, u32),
    ) {
        let mut random = Random::new(self.plan.seed, STREAM_TRANSFERS | batch);
        let ids = self.transfer_ids(batch);
        let first = batch * u64::from(self.plan.transfer_batch_count);
        let mut flags = 0;
        if self.plan.is_pending {
            flags |= transfer_flags::PENDING;
        }
        let mut timestamp = 0;
        if self.plan.is_imported {
            flags |= transfer_flags::IMPORTED;
            timestamp = u64::from(self.plan.account_count) + first + 1;
        }
        for (offset, transfer) in (0..).zip(transfers) {
            let bits = random.next_u64();
            let (debit, credit) = self.choose_accounts(&mut random);
            note(debit, credit);
            *transfer = Transfer {
                id: ids.at(offset),
                debit_account_id: self.account_id(debit),
                credit_account_id: self.account_id(credit),
                amount: u128::from(nonzero_u16(bits >> 16)),
                user_data_128: random.next_u128().max(1),
                user_data_64: random.next_u64().max(1),
                user_data_32: nonzero_u32(bits >> 32),
                ledger: LEDGER,
                code: nonzero_u16(bits),
                flags,
                timestamp: if timestamp == 0 { 0 } else { timestamp + offset },
                ..Transfer::default()
            };
        }
    }

    fn transfer_ids(&self, batch: u64) -> IdRange {
        let index = usize::try_from(batch).expect("a machine of 64 bits");
        let tbid = self.transfer_tbids.get(index).copied().unwrap_or(0);
        let first = batch * u64::from(self.plan.transfer_batch_count);
        IdRange::new(self.plan.id_order, first, tbid, mix(self.plan.seed ^ STREAM_TRANSFERS))
    }

    #[inline]
    fn choose_accounts(&self, random: &mut Random) -> (u32, u32) {
        let plan = &self.plan;
        let is_hot =
            plan.account_count_hot > 0 && random.below(100) < u64::from(plan.transfer_hot_percent);
        let debit = if is_hot {
            low_word(random.below(u64::from(plan.account_count_hot)))
        } else {
            self.chooser.choose(random)
        };
        for _ in 0..CREDIT_DRAWS_MAX {
            let credit = self.chooser.choose(random);
            if credit != debit {
                return (debit, credit);
            }
        }
        (debit, (debit + 1) % plan.account_count)
    }
}

fn batch_size(count: u64, size: u32, batch: u64) -> u32 {
    let left = count - batch * u64::from(size);
    u32::try_from(left.min(u64::from(size))).expect("at most a whole batch")
}

/// Sums of a validated account, and where it stands in the list of accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of all transfers that debit the account.
    pub debits: u128,
    /// Of all transfers that credit the account.
    pub credits: u128,
}

impl Totals {
    /// Adds a transfer's amount to both of its accounts.
    pub fn add(totals: &mut [Totals], debit: u32, credit: u32, amount: u128) {
        totals[to_index(debit)].debits += amount;
        totals[to_index(credit)].credits += amount;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            seed: 42,
            account_count: 100,
            account_count_hot: 0,
            account_distribution: Distribution::Uniform,
            account_batch_count: 64,
            transfer_count: 1000,
            transfer_hot_percent: 100,
            transfer_batch_count: 300,
            id_order: IdOrder::Tbid,
            is_pending: false,
            has_history: true,
            is_imported: false,
        }
    }

    fn generator(plan: Plan) -> Generator {
        Generator::new(plan, IdGenerator::new(Random::new(1, 1)))
    }

    fn batch(generator: &mut Generator, batch: u64) -> Vec<Transfer> {
        let mut transfers =
            vec![Transfer::default(); to_index(generator.transfer_batch_size(batch))];
        generator.transfers_new(batch, &mut transfers);
        transfers
    }

    /// Goal: batches cover the counts exactly, the last one being shorter.
    #[test]
    fn batch_sizes() {
        let generator = generator(plan());
        assert_eq!((generator.account_batches(), generator.transfer_batches()), (2, 4));
        assert_eq!(generator.account_batch_size(1), 36);
        assert_eq!(generator.transfer_batch_size(0), 300);
        assert_eq!(generator.transfer_batch_size(3), 100);
    }

    /// Goal: all records are valid as the ledger demands, with every optional field filled.
    #[test]
    fn records_are_valid() {
        let mut generator = generator(plan());
        let mut accounts = vec![Account::default(); 64];
        generator.accounts(0, &mut accounts);
        for account in &accounts {
            assert_ne!(account.id, 0);
            assert!(account.user_data_128 != 0 && account.user_data_64 != 0);
            assert!(account.user_data_32 != 0 && account.code != 0 && account.ledger != 0);
            assert_eq!((account.flags, account.timestamp), (account_flags::HISTORY, 0));
        }
        for transfer in batch(&mut generator, 0) {
            assert_ne!(transfer.debit_account_id, transfer.credit_account_id);
            assert!(transfer.amount != 0 && transfer.user_data_128 != 0);
            assert!(transfer.user_data_64 != 0 && transfer.user_data_32 != 0);
            assert!(transfer.code != 0 && transfer.ledger != 0);
            assert_eq!((transfer.flags, transfer.timestamp, transfer.timeout), (0, 0, 0));
        }
    }

    /// Goal: in every order of ids a batch can be generated again, and batches differ.
    #[test]
    fn repeats() {
        for id_order in [IdOrder::Tbid, IdOrder::Sequential, IdOrder::Random, IdOrder::Reversed] {
            let mut generator = generator(Plan { id_order, ..plan() });
            let (first, second) = (batch(&mut generator, 0), batch(&mut generator, 1));
            let mut again = vec![Transfer::default(); 300];
            let mut count = 0;
            generator.transfers_with(0, &mut again, |debit, credit| {
                assert_ne!(debit, credit);
                count += 1;
            });
            assert_eq!(first, again);
            assert_eq!(count, 300);
            assert!(first.iter().zip(&second).all(|(a, b)| a.id != b.id));
            assert_ne!(first[0].user_data_128, second[0].user_data_128);
        }
    }

    /// Goal: the wanted share of transfers debits a hot account.
    #[test]
    fn hot_accounts() {
        for percent in [0_u32, 50, 100] {
            let hot = Plan { account_count_hot: 2, transfer_hot_percent: percent, ..plan() };
            let mut generator = generator(hot);
            let hot_ids = [generator.account_id(0), generator.account_id(1)];
            let transfers = batch(&mut generator, 0);
            let count = transfers.iter().filter(|t| hot_ids.contains(&t.debit_account_id)).count();
            let expected = 3 * to_index(percent);
            assert!(count.abs_diff(expected) < 40, "{count} of 300 with {percent} %");
            assert!(percent < 100 || count == 300);
        }
    }

    /// Goal: imported records have increasing timestamps, transfers after all accounts.
    #[test]
    fn imported() {
        let mut generator = generator(Plan { is_imported: true, is_pending: true, ..plan() });
        let mut accounts = vec![Account::default(); 36];
        generator.accounts(1, &mut accounts);
        assert_eq!((accounts[0].timestamp, accounts[35].timestamp), (65, 100));
        let transfers = batch(&mut generator, 1);
        assert_eq!((transfers[0].timestamp, transfers[299].timestamp), (401, 700));
        let flags = transfer_flags::IMPORTED | transfer_flags::PENDING;
        assert!(transfers.iter().all(|transfer| transfer.flags == flags));
    }

    /// Goal: two accounts suffice, even if one of them is nearly always drawn.
    #[test]
    fn two_accounts() {
        let two = Plan { account_count: 2, account_count_hot: 1, ..plan() };
        let mut generator = generator(two);
        let ids = [generator.account_id(0), generator.account_id(1)];
        for transfer in batch(&mut generator, 0) {
            assert_eq!([transfer.debit_account_id, transfer.credit_account_id], ids);
        }
    }
}
