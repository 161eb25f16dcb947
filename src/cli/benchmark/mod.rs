//! `florin benchmark`: measures the throughput and latency of a cluster on this machine.
//!
//! Starts a throw-away server (or uses a running cluster), creates accounts and transfers, queries
//! some of them and reports throughput, latencies and what the server used. One thread serves all
//! clients and generates the load, at a few dozen nanoseconds per transfer, so that the server has
//! the rest of the machine.

pub mod distribution;
pub mod generate;
pub mod identity;
pub mod ledger_in_use;
pub mod load;
pub mod report;
pub mod server;
pub mod work;

#[cfg(test)]
mod tests;

use super::connect::connect_patiently;
use super::environment::is_given;
use super::exit::{ExitClass, Failure};
use super::output::{OutputArguments, print};
use super::patient::Stop;
use super::progress::{self, Counts};
use crate::client::{
    IdGenerator, Lifetime, Options, Poller, Random, Wire, WireOptions, resolve_addresses,
};
use crate::protocol::{Operation, Release, to_index};
use distribution::Distribution;
use generate::{Generator, Plan, Totals};
use identity::IdOrder;
use load::{Load, Phase, Work};
use report::{Report, ServerUsage};
use server::{Server, ServerOptions};
use std::cell::RefCell;
use std::path::PathBuf;
use work::{
    CreateAccounts, CreateTransfers, QueryAccountTransfers, ValidateAccounts, ValidateTransfers,
};

/// Sessions a cluster keeps: more clients would displace each other.
const CLIENTS_MAX: i64 = 64;

const EXAMPLES: &str = "\
Examples:
  florin benchmark
      ten million transfers between ten thousand accounts, on a throw-away server
  florin benchmark --transfer-count=1000000 --account-distribution=zipfian --validate
      fewer, between accounts of unequal activity, all of them read back and compared
  florin benchmark --clients=32 --transfer-batch-count=1 --transfer-count=300000
      many clients, each with one transfer per request
  florin benchmark --addresses=3000 --yes --format=json
      a cluster that is running already; the result as JSON";

/// Options of `florin benchmark`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools)]
pub struct BenchmarkArguments {
    /// Number of accounts to create
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(2..))]
    pub account_count: u32,
    /// Number of hot accounts; see --transfer-hot-percent
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub account_count_hot: u32,
    /// Distribution of transfers over accounts
    #[arg(long, value_enum, default_value = "uniform")]
    pub account_distribution: Distribution,
    /// Number of transfers to create
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub transfer_count: u64,
    /// Percentage of transfers that debit a hot account, if there are any
    #[arg(long, value_name = "PERCENT", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(..=100))]
    pub transfer_hot_percent: u32,
    /// Create pending transfers only
    #[arg(long)]
    pub transfer_pending: bool,
    /// Maximum number of transfers or accounts in one request; fewer if the cluster accepts fewer
    #[arg(long, value_name = "N", default_value_t = 8189,
        value_parser = clap::value_parser!(u32).range(1..=8189))]
    pub transfer_batch_count: u32,
    /// Pause of each client between a reply and its next request, in microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=60_000_000))]
    pub transfer_batch_delay: u64,
    /// Number of queries, each for all transfers of a random account
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub query_count: u64,
    /// Order of the ids of accounts and transfers
    #[arg(long, value_enum, default_value = "tbid")]
    pub id_order: IdOrder,
    /// Number of clients, each with one request in flight
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// Read all accounts and transfers back and compare them
    #[arg(long)]
    pub validate: bool,
    /// Create accounts without the history of their balances
    #[arg(long)]
    pub no_history: bool,
    /// Import accounts and transfers with timestamps of their own (one client only)
    #[arg(long)]
    pub imported: bool,
    /// Seed of all random choices but time-ordered ids
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Data file of the throw-away server, which stays; must not exist [default: in a temporary
    /// directory, removed at the end]
    #[arg(long, value_name = "PATH", conflicts_with = "addresses")]
    pub file: Option<PathBuf>,
    /// Use the cluster at these addresses instead of a throw-away server. The variable
    /// `FLORIN_ADDRESSES` is ignored, so that no cluster in use is measured by accident
    #[arg(long, value_name = "LIST")]
    pub addresses: Option<String>,
    /// Write to the cluster at --addresses even if it has accounts already. What a benchmark
    /// creates cannot be deleted
    #[arg(long, requires = "addresses")]
    pub yes: bool,
    /// Id of the cluster at --addresses
    #[arg(
        long,
        value_name = "ID",
        default_value_t = 0,
        env = "FLORIN_CLUSTER",
        hide_env_values = true
    )]
    pub cluster: u128,
    /// Throw-away server: small sizes, any file system
    #[arg(long, conflicts_with = "addresses")]
    pub development: bool,
    /// Throw-away server: as of `florin start`
    #[arg(long, value_name = "SIZE", conflicts_with = "addresses")]
    pub cache_grid: Option<super::size::ByteSize>,
    /// Throw-away server: as of `florin start`
    #[arg(long, value_name = "SIZE", conflicts_with = "addresses")]
    pub cache_accounts: Option<super::size::ByteSize>,
    /// Throw-away server: as of `florin start`
    #[arg(long, value_name = "SIZE", conflicts_with = "addresses")]
    pub cache_transfers: Option<super::size::ByteSize>,
    /// Throw-away server: as of `florin start`
    #[arg(long, value_name = "SIZE", conflicts_with = "addresses")]
    pub filters: Option<super::size::ByteSize>,
    /// Form of the output
    #[command(flatten)]
    pub output: OutputArguments,
}

impl BenchmarkArguments {
    /// Checks the options together.
    ///
    /// # Errors
    ///
    /// If options contradict each other.
    pub fn check(&self) -> Result<(), Failure> {
        let usage = |message: &str| Err(Failure::new(ExitClass::Usage, message));
        if self.account_count_hot > self.account_count {
            return usage("--account-count-hot is more than --account-count");
        }
        if self.imported && self.clients > 1 {
            return usage("--imported needs --clients=1: timestamps must arrive in their order");
        }
        if self.addresses.is_none() && is_given("--cluster") {
            return usage("--cluster needs --addresses: a throw-away server has the cluster id 0");
        }
        if self.imported && self.addresses.is_some() {
            return usage("--imported needs a fresh server, not --addresses");
        }
        Ok(())
    }

    fn plan(&self, account_limit: u32, transfer_limit: u32) -> Plan {
        Plan {
            seed: self.seed,
            account_count: self.account_count,
            account_count_hot: self.account_count_hot,
            account_distribution: self.account_distribution,
            account_batch_count: account_limit,
            transfer_count: self.transfer_count,
            transfer_hot_percent: self.transfer_hot_percent,
            transfer_batch_count: self.transfer_batch_count.min(transfer_limit),
            id_order: self.id_order,
            is_pending: self.transfer_pending,
            has_history: !self.no_history,
            is_imported: self.imported,
        }
    }

    fn server_options(&self) -> ServerOptions {
        let caches = [
            ("--cache-grid", self.cache_grid),
            ("--cache-accounts", self.cache_accounts),
            ("--cache-transfers", self.cache_transfers),
            ("--filters", self.filters),
        ];
        let arguments =
            caches.iter().filter_map(|(name, size)| size.map(|size| format!("{name}={size}")));
        ServerOptions {
            file: self.file.clone(),
            is_development: self.development,
            arguments: arguments.collect(),
        }
    }
}

/// Does a work, and shows its progress.
fn run_phase(
    load: &mut Load<'_>,
    work: &mut dyn Work,
    clients: usize,
    name: &'static str,
    length: u64,
) -> Result<Phase, Failure> {
    let bar = progress::bar(Counts::Things(length));
    bar.set_prefix(name);
    let counts_batches = length == work.batches();
    let phase = load.run(work, clients, &mut |events| {
        bar.inc(if counts_batches { 1 } else { events });
    });
    bar.finish_and_clear();
    phase
}

/// The failure of a benchmark that SIGINT or SIGTERM ends.
fn interrupted() -> Failure {
    Failure::new(ExitClass::Error, "interrupted before a result")
}

/// Options of the session that only asks whether the ledger is in use: it makes way before an
/// application's. The clients that make the load are as long-lived as those.
fn question_options() -> Options {
    Options { lifetime: Lifetime::Short, ..Options::default() }
}

/// Runs the benchmark and prints its report.
///
/// # Errors
///
/// If the server cannot be started or reached, a result is not the expected one, or a signal ends
/// the benchmark.
pub fn run(arguments: &BenchmarkArguments) -> Result<(), Failure> {
    arguments.check()?;
    let stop = Stop::on_signals()?;
    let (server, addresses) = if let Some(list) = &arguments.addresses {
        let addresses = resolve_addresses(list)
            .map_err(|error| Failure::new((&error).into(), format!("--addresses: {error}")))?;
        (None, addresses)
    } else {
        let server = Server::start(&arguments.server_options());
        // The server may have got the same signal, and fail for it.
        let server = if stop.is_wanted() { Err(interrupted()) } else { server }?;
        let addresses = vec![server.address().into()];
        (Some(server), addresses)
    };
    let cluster = if server.is_some() { 0 } else { arguments.cluster };
    if let Some(list) = &arguments.addresses {
        let mut client = connect_patiently(cluster, &addresses, &question_options())?;
        let plan = arguments.plan(u32::MAX, u32::MAX);
        ledger_in_use::check(&mut client, &plan, list, arguments.yes)?;
    }
    let options =
        WireOptions { cluster, addresses, release: Release::SERVER, lifetime: Lifetime::Long };
    let server = RefCell::new(server);
    let report = measure(arguments, &options, &server, &stop)?;
    if let Some(server) = server.into_inner() {
        server.stop()?;
    }
    if arguments.output.is_json() {
        print(&report.json().to_string());
    } else {
        print(&report.text());
    }
    Ok(())
}

fn measure(
    arguments: &BenchmarkArguments,
    options: &WireOptions,
    server: &RefCell<Option<Server>>,
    stop: &Stop,
) -> Result<Report, Failure> {
    let poller = Poller::new();
    let now_ns = poller.now_ns();
    let wires: Result<Vec<Wire>, _> =
        (0..arguments.clients).map(|_| Wire::new(options, now_ns)).collect();
    let mut check = || {
        if stop.is_wanted() {
            return Err(interrupted());
        }
        server.borrow_mut().as_mut().map_or(Ok(()), Server::check)
    };
    let delay_ns = arguments.transfer_batch_delay * 1000;
    let mut load = Load::new(wires?, poller, delay_ns, &mut check);
    load.register()?;
    let plan = arguments.plan(
        load.wire().events_max(Operation::CreateAccounts),
        load.wire().events_max(Operation::CreateTransfers),
    );
    let (account_count, transfer_count) = (u64::from(plan.account_count), plan.transfer_count);
    let random = Random::from_system().map_err(crate::client::ClientError::from)?;
    let mut generator = Generator::new(plan.clone(), IdGenerator::new(random));
    let clients = to_index(arguments.clients);
    let usage = || server.borrow().as_ref().map(Server::usage).unwrap_or_default();

    // Accounts go through one client: with imported timestamps their order matters, and they are
    // few.
    let mut work = CreateAccounts(&generator);
    let accounts = run_phase(&mut load, &mut work, 1, "accounts", account_count)?;
    let before = usage();
    let mut work = CreateTransfers(&mut generator);
    let transfers = run_phase(&mut load, &mut work, clients, "transfers", transfer_count)?;
    let after = usage();
    let query_count = arguments.query_count;
    let mut work = QueryAccountTransfers { generator: &generator, count: query_count };
    let queries = run_phase(&mut load, &mut work, 1, "queries", query_count)?;
    let validated =
        if arguments.validate { Some(validate(&mut load, &generator, clients)?) } else { None };
    let birth = server.borrow().as_ref().map(Server::file_bytes_at_birth);
    let server = birth.map(|file_bytes_at_birth| ServerUsage {
        file_bytes_at_birth,
        before,
        after,
        end: usage(),
    });
    let clients = arguments.clients;
    Ok(Report { plan, clients, accounts, transfers, queries, validated, server })
}

/// Reads everything back; returns the number of accounts and transfers.
fn validate(
    load: &mut Load<'_>,
    generator: &Generator,
    clients: usize,
) -> Result<(u64, u64), Failure> {
    let plan = generator.plan();
    let mut totals = vec![Totals::default(); to_index(plan.account_count)];
    let lookup_max = load.wire().events_max(Operation::LookupTransfers);
    let mut work = ValidateTransfers::new(generator, &mut totals, lookup_max);
    let transfers = run_phase(load, &mut work, clients, "validate", plan.transfer_count)?;
    let lookup_max = load.wire().events_max(Operation::LookupAccounts);
    let mut work = ValidateAccounts::new(generator, &totals, lookup_max);
    let count = u64::from(plan.account_count);
    let accounts = run_phase(load, &mut work, clients, "validate", count)?;
    Ok((accounts.events, transfers.events))
}
