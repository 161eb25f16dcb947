//! `florin start`: serves a data file.
//!
//! Reads the superblock to learn which cluster and which geometry the file is of, reserves all
//! memory, freezes the allocator, and serves until a signal, the end of the input, or a fault.

use super::exit::{ExitClass, Failure};
use super::format::superblock_class;
use super::size::ByteSize;
use crate::client::Random;
use crate::io::address::{resolve, resolve_list};
use crate::io::bus::{Bus, BusOptions};
use crate::io::clock::Clock;
use crate::io::file::DataFile;
use crate::io::log;
use crate::io::memory::{HumanSize, MemoryTable};
use crate::io::metrics::catalogue::Metric;
use crate::io::metrics::endpoint::{Endpoint, EndpointError, EndpointOptions};
use crate::io::metrics::{Identity, Metrics};
use crate::io::peers::Peers;
use crate::io::server::{CONNECTIONS_MAX, ExitReason, Server, ServerError, ServerOptions};
use crate::io::{allocator, memory};
use crate::ledger::{Ledger, LedgerOptions};
use crate::protocol::about::Hello;
use crate::protocol::buffer::mapped_bytes;
use crate::protocol::huge_pages;
use crate::protocol::{Pool, Release, STANDBYS_MAX};
use crate::storage::grid::GridFaultKind;
use crate::storage::store::{Store, StoreOptions};
use crate::storage::{Config, Zones};
use crate::vsr::checkpoint::checkpoint_extra_max;
use crate::vsr::scrub::{SCRUB_RATE, scrub_ns};
use crate::vsr::{
    Fatal, Replica, ReplicaOptions, Superblock, journal_memory_bytes, messages_needed,
};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// Disk requests in flight at a time.
const DISK_REQUESTS_MAX: u32 = 128;
/// Large requests that may be arriving at a time.
const LARGE_FRAMES_MAX: u32 = 32;
/// Jobs in flight at a time: the two tables have one each.
const JOBS_MAX: usize = 4;
/// Page reads in flight at a time.
const PAGE_READS_MAX: u32 = 256;
/// Memory of a cached account with its place in the index, in bytes.
const ACCOUNT_BYTES: u64 = 192;
const MEBIBYTE: u64 = 1 << 20;
/// No size is larger than a pebibyte: a mistake in typing, and sums would not fit 64 bits.
const SIZE_MAX: u64 = 1 << 50;
/// Room for what is too small to be counted one by one: queues, sessions, the kernel's rings, the
/// helper thread.
const OTHER_BYTES: u64 = 4 * MEBIBYTE;

const EXAMPLES: &str = "\
Examples:
  florin start --addresses=127.0.0.1:3000 0_0.florin
  florin start --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 0_1.florin
      one of three replicas; all are started with the same list
  florin start --addresses=3000 --cache-grid=4GiB --cache-accounts=1GiB 0_0.florin
  florin start --addresses=3000 --metrics=9100 0_0.florin
      with metrics at http://127.0.0.1:9100/metrics, and /healthz and /readyz
  florin start --addresses=0 --development test.florin
      for a program that starts its own server: prints the port and ends with its input

Ends cleanly on SIGINT and SIGTERM. All memory is reserved at the start; what for is printed to
standard error. SIZE is a whole number with a unit, such as 512MiB.";

/// Options of `florin start`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct StartArguments {
    /// Addresses of all replicas and then of all standbys, in order of their indexes: HOST:PORT,
    /// HOST or PORT. The data file knows which of them is its own, to listen on. In a cluster of
    /// one the port 0 stands for a free one, which is printed alone on the first line; the server
    /// then ends when its standard input closes
    #[arg(long, value_name = "LIST")]
    pub addresses: String,
    /// Memory for pages of the data file [default: 64MiB, in development 32MiB]
    #[arg(long, value_name = "SIZE")]
    pub cache_grid: Option<ByteSize>,
    /// Memory for accounts [default: 192MiB, in development 8MiB]
    #[arg(long, value_name = "SIZE")]
    pub cache_accounts: Option<ByteSize>,
    /// Memory for the newest transfers [default: 560MiB, in development 8MiB]
    #[arg(long, value_name = "SIZE")]
    pub cache_transfers: Option<ByteSize>,
    /// Memory for filters that spare searches for new transfer ids [default: 64MiB, in development
    /// 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub filters: Option<ByteSize>,
    /// How large the data of the file may grow [default: 1TiB, in development 64GiB]
    #[arg(long, value_name = "SIZE")]
    pub limit_storage: Option<ByteSize>,
    /// How much of the data file is read in the background each second, to find damage while others
    /// can repair it; 0 for none
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(SCRUB_RATE))]
    pub scrub_rate: ByteSize,
    /// Seconds that the clock is ahead, to test what a wrong one does
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        default_value_t = 0,
        requires = "development",
        allow_negative_numbers = true
    )]
    pub clock_offset: i64,
    /// Where it tells how it is
    #[command(flatten)]
    pub telling: TellingArguments,
    /// Release that this program takes itself for, to test upgrades
    #[arg(long, hide = true, value_name = "RELEASE", default_value_t = Release::PROGRAM,
        requires = "development", value_parser = parse_release)]
    pub program_release: Release,
    /// Oldest client release that is admitted
    #[arg(long, value_name = "RELEASE", default_value_t = Release::CLIENT_MIN,
        value_parser = parse_release)]
    pub release_min: Release,
    /// Newest client release that is admitted
    #[arg(long, value_name = "RELEASE", default_value_t = Release::CLIENT_MAX,
        value_parser = parse_release)]
    pub release_max: Release,
    /// How grave events must be to be written to standard error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: log::Level,
    /// Events as lines of text, or as JSON objects: time, level, message
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: log::Format,
    /// Any file system, little memory; not for data of value
    #[arg(long)]
    pub development: bool,
    /// The data file, made by `florin format`
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// Where a server tells how it is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TellingArguments {
    /// Address to serve metrics on, for Prometheus: /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
    /// Address to send metrics to, for StatsD with tags: a datagram or some every 10 seconds
    #[arg(long, value_name = "ADDRESS")]
    pub statsd: Option<String>,
}

impl TellingArguments {
    /// Where metrics are served, and where they are sent.
    ///
    /// # Errors
    ///
    /// If an address is none, or metrics are to be served where clients are.
    pub fn resolve(&self, own: &[SocketAddr]) -> Result<Telling, Failure> {
        let of = |option: &str, text: &Option<String>| {
            let usage =
                |error: String| Failure::new(ExitClass::Usage, format!("--{option}: {error}"));
            let address = text.as_deref().map(resolve).transpose();
            address.map_err(|error| usage(error.to_string()))
        };
        let (metrics, statsd) = (of("metrics", &self.metrics)?, of("statsd", &self.statsd)?);
        if let Some(address) = metrics.filter(|it| it.port() != 0 && own.contains(it)) {
            let message = format!("--metrics: {address} is for clients: choose another port");
            return Err(Failure::new(ExitClass::Usage, message));
        }
        Ok(Telling { metrics, statsd })
    }
}

/// See [`TellingArguments`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where metrics are sent.
    pub statsd: Option<SocketAddr>,
}

impl Telling {
    fn is_wanted(&self) -> bool {
        self.metrics.is_some() || self.statsd.is_some()
    }
}

fn parse_release(text: &str) -> Result<Release, String> {
    text.parse().map_err(|_| format!("`{text}` is no release such as {}", Release::SERVER))
}

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Memory for pages in bytes.
    pub cache_grid: u64,
    /// Memory for accounts in bytes.
    pub cache_accounts: u64,
    /// Memory for the newest transfers in bytes.
    pub cache_transfers: u64,
    /// Memory for filters of transfer ids in bytes.
    pub filters: u64,
    /// Largest size of the grid in bytes.
    pub limit_storage: u64,
}

impl Sizes {
    /// For production.
    pub const PRODUCTION: Sizes = Sizes {
        cache_grid: 64 * MEBIBYTE,
        cache_accounts: 192 * MEBIBYTE,
        cache_transfers: 560 * MEBIBYTE,
        filters: 64 * MEBIBYTE,
        limit_storage: MEBIBYTE * MEBIBYTE,
    };
    /// For development.
    pub const DEVELOPMENT: Sizes = Sizes {
        cache_grid: 32 * MEBIBYTE,
        cache_accounts: 8 * MEBIBYTE,
        cache_transfers: 8 * MEBIBYTE,
        filters: MEBIBYTE,
        limit_storage: 64 * 1024 * MEBIBYTE,
    };
}

impl Sizes {
    /// By name of the option.
    fn options(&self) -> [(&'static str, u64); 5] {
        [
            ("cache-grid", self.cache_grid),
            ("cache-accounts", self.cache_accounts),
            ("cache-transfers", self.cache_transfers),
            ("filters", self.filters),
            ("limit-storage", self.limit_storage),
        ]
    }
}

impl StartArguments {
    /// The addresses of all replicas.
    ///
    /// # Errors
    ///
    /// If an address is none, a size is absurd, or the admitted releases are none.
    pub fn check(&self) -> Result<Vec<SocketAddr>, Failure> {
        let usage = |message: String| Failure::new(ExitClass::Usage, message);
        if self.release_min > self.release_max {
            let (min, max) = (self.release_min, self.release_max);
            return Err(usage(format!("--release-min={min} is above --release-max={max}")));
        }
        let sizes = self.sizes();
        for (option, size) in sizes.options() {
            if size > SIZE_MAX {
                let max = HumanSize(SIZE_MAX);
                return Err(usage(format!("--{option} is {}: at most {max}", HumanSize(size))));
            }
        }
        let addresses = resolve_list(&self.addresses).map_err(|error| usage(error.to_string()))?;
        if addresses.len() > 1 && addresses.iter().any(|address| address.port() == 0) {
            let message = "--addresses: the port 0 is for a cluster of one; in a larger one \
                           every replica must be where the others expect it";
            return Err(usage(message.to_owned()));
        }
        Ok(addresses)
    }

    fn sizes(&self) -> Sizes {
        let default = if self.development { Sizes::DEVELOPMENT } else { Sizes::PRODUCTION };
        let or = |size: Option<ByteSize>, default| size.map_or(default, |size| size.0);
        Sizes {
            cache_grid: or(self.cache_grid, default.cache_grid),
            cache_accounts: or(self.cache_accounts, default.cache_accounts),
            cache_transfers: or(self.cache_transfers, default.cache_transfers),
            filters: or(self.filters, default.filters),
            limit_storage: or(self.limit_storage, default.limit_storage),
        }
    }
}

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct Service {
    /// Addresses of all replicas and standbys; the data file knows which one is ours.
    pub addresses: Vec<SocketAddr>,
    /// The data file.
    pub path: PathBuf,
    /// How much of everything.
    pub sizes: Sizes,
    /// Bytes that are scrubbed in a second.
    pub scrub_rate: u64,
    /// Seconds that the clock is ahead of the system's.
    pub clock_offset: i64,
    /// Where it tells how it is.
    pub telling: Telling,
    /// Release of the program.
    pub program: Release,
    /// Oldest client release admitted.
    pub release_min: Release,
    /// Newest client release admitted.
    pub release_max: Release,
    /// Any file system, and memory is not checked.
    pub is_development: bool,
    /// The port is printed and the server ends with its standard input.
    pub is_child: bool,
}

/// Serves until asked to end.
///
/// # Errors
///
/// If the server cannot be started or cannot go on.
pub fn run(arguments: &StartArguments) -> Result<(), Failure> {
    log::set(arguments.log_level, arguments.log_format);
    let addresses = arguments.check()?;
    let service = Service {
        is_child: matches!(addresses.as_slice(), [address] if address.port() == 0),
        telling: arguments.telling.resolve(&addresses)?,
        addresses,
        path: arguments.path.clone(),
        sizes: arguments.sizes(),
        scrub_rate: arguments.scrub_rate.0,
        clock_offset: arguments.clock_offset,
        program: arguments.program_release,
        release_min: arguments.release_min,
        release_max: arguments.release_max,
        is_development: arguments.development,
    };
    serve(&service, |address| log::info(format_args!("listening on {address}")))
}

/// Serves until asked to end; `announce` is told the address before the memory is frozen.
///
/// # Errors
///
/// If the server cannot be started or cannot go on.
///
/// # Panics
///
/// Never: a replica that stopped says why.
pub fn serve(service: &Service, announce: impl FnOnce(SocketAddr)) -> Result<(), Failure> {
    allocator::install_panic_hook();
    if !service.is_development {
        huge_pages::prefer();
    }
    let file = DataFile::open(&service.path, 0, service.is_development)?;
    let superblock = file.superblock()?;
    let size_min = Zones::new(&superblock.config).file_size(0);
    if file.size() < size_min {
        let (path, size) = (service.path.display(), file.size());
        let message = format!("{path} has {size} bytes and must have {size_min}: it was truncated");
        return Err(Failure::new(ExitClass::DataFile, message));
    }
    check_addresses(service, &superblock)?;
    let table = memory_table(service, &superblock);
    if !service.is_development {
        memory::check(table.total())
            .map_err(|error| Failure::new(ExitClass::Machine, format!("{error}\n{table}")))?;
    }
    let pool = message_pool(&superblock.config, others(service));
    let options = server_options(service, &superblock)?;
    let replica = replica_make(service, &superblock, pool.clone())?;
    let is_text = log::format() == log::Format::Text && log::writes(log::Level::Info);
    let mut report: Box<dyn Write> =
        if is_text { Box::new(std::io::stderr()) } else { Box::new(std::io::sink()) };
    let server = Server::new(options, replica, file, pool, &table, &mut report);
    let mut server = server.map_err(|error| explain_address(service, &superblock, error))?;
    let endpoint = endpoint_start(service, &server)?;
    check_reserved(&table);
    if !is_text {
        log::info(format_args!("memory reserved: {}", HumanSize(table.total())));
    }
    announce(server.address());
    if let Some(address) = endpoint.as_ref().and_then(Endpoint::address) {
        log::info(format_args!("metrics at http://{address}/metrics"));
    }
    allocator::freeze();
    match server.run()? {
        ExitReason::Signal(_) | ExitReason::InputEnd => Ok(()),
        ExitReason::Fatal => {
            let fatal = *server.core().fatal().expect("a replica that stopped says why");
            let path = service.path.display();
            if matches!(fatal, Fatal::Synced { .. }) {
                log::info(format_args!("{path}: {fatal}"));
                drop(server);
                return Err(start_again());
            }
            Err(Failure::new(fatal_class(&fatal), format!("{path}: {fatal}")))
        }
    }
}

/// Starts to tell metrics, if that is wanted.
fn endpoint_start(
    service: &Service,
    server: &Server<Replica<Ledger>>,
) -> Result<Option<Endpoint>, Failure> {
    if !service.telling.is_wanted() {
        return Ok(None);
    }
    let (metrics, clock) = server.metrics();
    let options = EndpointOptions {
        listen: service.telling.metrics,
        statsd: service.telling.statsd,
        file: File::open(&service.path).ok(),
    };
    let reserved = Arc::clone(&metrics);
    let endpoint = Endpoint::start(options, metrics, clock)?;
    reserved.set(Metric::MemoryReserved, reserved_bytes());
    Ok(Some(endpoint))
}

/// Replaces this process by the same program with the same arguments, which opens the data file
/// as it is now; returns only if that fails.
fn start_again() -> Failure {
    // Not by its path, where another release may lie by now.
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1));
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    let error = command.exec();
    let message = format!("the program could not be started again: {error}; start it");
    Failure::new(ExitClass::Error, message)
}

/// Whether there is an address for each replica of the file's cluster, and for us.
fn check_addresses(service: &Service, superblock: &Superblock) -> Result<(), Failure> {
    let (own, count) = (usize::from(superblock.replica), usize::from(superblock.replica_count));
    let listed = service.addresses.len();
    let path = service.path.display();
    let failure = |message: String| Err(Failure::new(ExitClass::Usage, message));
    if listed < count {
        return failure(format!(
            "--addresses lists {listed} and {path} is of a cluster of {count} replicas: list all \
             of them, in order"
        ));
    }
    if listed > count + usize::from(STANDBYS_MAX) {
        return failure(format!(
            "--addresses lists {listed} and {path} is of a cluster of {count} replicas, which \
             can have {STANDBYS_MAX} standbys at most"
        ));
    }
    if count == 1 && listed > 1 {
        return failure(format!(
            "--addresses lists {listed} and {path} is of a cluster of one replica: list one"
        ));
    }
    if own >= listed {
        return failure(format!(
            "--addresses lists {listed} and {path} is of standby {own}: list all {count} \
             replicas, then all standbys, in order of their indexes from zero"
        ));
    }
    Ok(())
}

/// In a cluster it may be the file that is wrong and not the address.
fn explain_address(service: &Service, superblock: &Superblock, error: ServerError) -> Failure {
    let is_address = matches!(error, ServerError::Bus(_));
    let mut failure = Failure::from(error);
    if is_address && service.addresses.len() > 1 {
        let (path, own) = (service.path.display(), superblock.replica);
        let position = u32::from(own) + 1;
        failure.message = format!(
            "{} ({path} is of replica {own}, whose address is entry {position} of --addresses)",
            failure.message
        );
    }
    failure
}

fn standby_count(service: &Service, superblock: &Superblock) -> u8 {
    let count = service.addresses.len() - usize::from(superblock.replica_count);
    u8::try_from(count).expect("the list was checked")
}

/// Replicas and standbys besides us.
fn others(service: &Service) -> u32 {
    u32::try_from(service.addresses.len() - 1).expect("the list was checked")
}

/// Messages whose memory is resident from the start: what a few busy clients use.
const MESSAGES_RESIDENT: u32 = 16;

/// Buffers of the replica: what it needs itself at most, what is left to it while the bus takes
/// others, a request of each client, and for each other replica what waits for it and what is
/// arriving from it. Their number and size.
fn message_sizes(config: &Config, others: u32) -> (u32, u32) {
    let own = messages_needed(config) - config.clients_max;
    let replicas = Peers::messages_max(others) + arriving_max(others);
    let count = own + message_reserve(config) + config.clients_max + replicas;
    (count, config.reply_size_max.max(config.message_size_max))
}

/// Frames of other replicas that may be arriving at a time; an old connection may outlast its
/// replica.
const fn arriving_max(others: u32) -> u32 {
    2 * others
}

fn message_pool(config: &Config, others: u32) -> Pool {
    let (count, size) = message_sizes(config, others);
    Pool::new_resident("messages", count, size, MESSAGES_RESIDENT.min(count))
}

/// Memory that a server reserves with this geometry and the default sizes, in bytes; alone unless
/// the file is of a larger cluster.
#[must_use]
pub fn memory_needed(config: &Config, superblock: Option<&Superblock>, development: bool) -> u64 {
    let mut file = superblock.copied().unwrap_or_else(|| *Superblock::blank());
    file.config = *config;
    let count = superblock.map_or(1, |superblock| superblock.replica_count.max(1));
    let addresses = (0..count).map(|index| SocketAddr::from(([127, 0, 0, 1], index.into())));
    let service = Service {
        addresses: addresses.collect(),
        path: PathBuf::new(),
        sizes: if development { Sizes::DEVELOPMENT } else { Sizes::PRODUCTION },
        scrub_rate: SCRUB_RATE,
        clock_offset: 0,
        telling: Telling::default(),
        program: Release::PROGRAM,
        release_min: Release::CLIENT_MIN,
        release_max: Release::CLIENT_MAX,
        is_development: development,
        is_child: false,
    };
    memory_table(&service, &file).total()
}

/// All memory that the server is going to reserve, before any of it is.
fn memory_table(service: &Service, superblock: &Superblock) -> MemoryTable {
    let config = &superblock.config;
    let others = others(service);
    let (count, size) = message_sizes(config, others);
    let mut table = MemoryTable::new();
    table.add("messages", Pool::memory_bytes(count, size));
    table.add("receive buffers", Bus::memory_bytes(CONNECTIONS_MAX, others));
    table.add("write-ahead log", journal_memory_bytes(config, superblock.cluster));
    for (name, bytes) in Store::memory_bytes(config, &store_options(service, superblock)) {
        table.add(name, bytes);
    }
    for (name, bytes) in Ledger::memory_bytes(&ledger_options(service, config)) {
        table.add(name, bytes);
    }
    if service.telling.is_wanted() {
        table.add("metrics", Metrics::memory_bytes() + Endpoint::memory_bytes());
    }
    table.add("everything else", OTHER_BYTES);
    table
}

/// The table says what is: neither less, so that the check means something, nor much more.
fn check_reserved(table: &MemoryTable) {
    let reserved = reserved_bytes();
    let total = table.total();
    assert!(reserved <= total, "{reserved} bytes are reserved, {total} were announced");
    assert!(total - reserved <= 2 * OTHER_BYTES, "{total} were announced, {reserved} are reserved");
}

/// All memory that is reserved now.
fn reserved_bytes() -> u64 {
    u64::try_from(allocator::bytes_now()).expect("64 bits") + mapped_bytes()
}

/// Messages that the bus leaves alone: a reply for each session, the pipeline, and small answers.
fn message_reserve(config: &Config) -> u32 {
    config.clients_max + 2 * config.pipeline_max + 16
}

fn server_options(service: &Service, superblock: &Superblock) -> Result<ServerOptions, Failure> {
    let input: Option<OwnedFd> = if service.is_child {
        let input = std::io::stdin().as_fd().try_clone_to_owned();
        Some(input.map_err(|error| Failure::new(ExitClass::Error, error.to_string()))?)
    } else {
        None
    };
    Ok(ServerOptions {
        identity: Identity {
            cluster: superblock.cluster,
            replica: superblock.replica,
            replica_count: superblock.replica_count,
        },
        bus: BusOptions {
            addresses: service.addresses.clone(),
            replica: superblock.replica,
            clients_max: CONNECTIONS_MAX,
            cluster: superblock.cluster,
            pool_reserve: message_reserve(&superblock.config) + arriving_max(others(service)),
            pool_reserve_replica: message_reserve(&superblock.config),
            large_frames_max: LARGE_FRAMES_MAX,
            sends_total_max: 2 * superblock.config.clients_max,
            hello: Some(Hello {
                cluster: superblock.cluster,
                replica: superblock.replica,
                expected: superblock.replica,
                replica_count: superblock.replica_count,
                nodes: superblock.replica_count + standby_count(service, superblock),
            }),
        },
        disk_requests_max: DISK_REQUESTS_MAX,
        jobs_max: JOBS_MAX,
        clock: Clock::ahead(service.clock_offset),
        print_port: service.is_child,
        input,
        signals: true,
        // Only after the address was announced.
        freeze: false,
    })
}

fn store_options(service: &Service, superblock: &Superblock) -> StoreOptions {
    let (config, sizes) = (&superblock.config, &service.sizes);
    StoreOptions {
        cluster: superblock.cluster,
        cache_grid_bytes: sizes.cache_grid,
        cache_transfers_bytes: sizes.cache_transfers,
        filter_bytes: sizes.filters,
        storage_limit_bytes: sizes.limit_storage.max(u64::from(config.block_size)),
        blob_extra_bytes: checkpoint_extra_max(config),
        page_reads_max: PAGE_READS_MAX,
    }
}

fn ledger_options(service: &Service, config: &Config) -> LedgerOptions {
    let accounts = service.sizes.cache_accounts / ACCOUNT_BYTES;
    let accounts = u32::try_from(accounts).unwrap_or(u32::MAX).min(1 << 30);
    LedgerOptions::new(config, accounts)
}

fn replica_make(
    service: &Service,
    superblock: &Superblock,
    pool: Pool,
) -> Result<Replica<Ledger>, Failure> {
    let config = &superblock.config;
    let store = Store::new(config, &store_options(service, superblock));
    let ledger = Ledger::new(store, &ledger_options(service, config));
    let mut random =
        Random::from_system().map_err(|error| Failure::new(ExitClass::Error, error.to_string()))?;
    let seed = random.below(u64::MAX);
    let options = ReplicaOptions {
        cluster: superblock.cluster,
        replica: superblock.replica,
        replica_count: superblock.replica_count,
        standby_count: standby_count(service, superblock),
        seed,
        scrub_ns: scrub_ns(config.block_size, service.scrub_rate),
        config: *config,
        program: service.program,
        release_client_min: service.release_min,
        release_client_max: service.release_max,
    };
    Ok(Replica::new(&options, pool, ledger))
}

/// The class of a failure that ended a replica.
pub(super) fn fatal_class(fatal: &Fatal) -> ExitClass {
    match fatal {
        Fatal::Superblock(error) => superblock_class(error),
        Fatal::SuperblockWrite { .. } | Fatal::JournalDisk { .. } => ExitClass::Machine,
        Fatal::Prepare { .. } | Fatal::Program { .. } => ExitClass::DataFile,
        // It starts again instead.
        Fatal::Synced { .. } => ExitClass::Error,
        Fatal::Journal(_)
        | Fatal::Checkpoint { .. }
        | Fatal::Diverged { .. }
        | Fatal::CheckpointDiverged { .. } => ExitClass::Corruption,
        Fatal::Grid(fault) => match fault.kind {
            GridFaultKind::Address | GridFaultKind::Block(_) => ExitClass::Corruption,
            GridFaultKind::Read(_) | GridFaultKind::Write(_) | GridFaultKind::Sync(_) => {
                ExitClass::Machine
            }
        },
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Failure {
        let class = match &error {
            EndpointError::Listen(_) => ExitClass::Network,
            EndpointError::System(_) => ExitClass::Error,
        };
        Failure::new(class, error.to_string())
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Failure {
        let class = match &error {
            ServerError::Ring(_) => ExitClass::Machine,
            ServerError::Bus(_) => ExitClass::Network,
            ServerError::System { .. } => ExitClass::Error,
        };
        Failure::new(class, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format;
    use crate::vsr::Genesis;

    fn arguments(text: &str) -> StartArguments {
        let words = ["florin", "start"].into_iter().chain(text.split_ascii_whitespace());
        let arguments = <crate::cli::Arguments as clap::Parser>::try_parse_from(words);
        match arguments.unwrap().command {
            crate::cli::Command::Start(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    /// Goal: defaults depend on the mode, and what is given counts.
    #[test]
    fn sizes() {
        assert_eq!(arguments("--addresses=1 x").sizes(), Sizes::PRODUCTION);
        assert_eq!(arguments("--addresses=1 --development x").sizes(), Sizes::DEVELOPMENT);
        let sizes = arguments("--addresses=1 --cache-grid=1GiB --limit-storage=2TiB x").sizes();
        let expected = Sizes { cache_grid: 1 << 30, limit_storage: 2 << 40, ..Sizes::PRODUCTION };
        assert_eq!(sizes, expected);
    }

    /// Goal: addresses are demanded that can be, and releases in order.
    #[test]
    fn refusals() {
        let check = |text: &str| arguments(text).check().map_err(|failure| failure.class);
        assert_eq!(check("--addresses=0 x").map(|list| list[0].port()), Ok(0));
        assert_eq!(check("--addresses=3000,3001 x").map(|list| list.len()), Ok(2));
        assert_eq!(check("--addresses=3000,0 x"), Err(ExitClass::Usage));
        assert_eq!(check("--addresses=3000,3000 x"), Err(ExitClass::Usage));
        assert_eq!(check("--addresses=no.such.invalid:3000 x"), Err(ExitClass::Usage));
        assert_eq!(check("--addresses=1 --cache-grid=1025TiB x"), Err(ExitClass::Usage));
        assert_eq!(check("--addresses=1 --limit-storage=2PiB x"), Err(ExitClass::Usage));
        let text = "--addresses=1 --release-min=0.17.5 --release-max=0.17.4 x";
        assert_eq!(check(text), Err(ExitClass::Usage));
        assert_eq!(arguments("--addresses=1 --release-min=0.17.5 x").release_min.patch(), 5);
    }

    /// Goal: a wrong clock is for tests alone; the scrub can be hurried and switched off.
    #[test]
    fn clock_and_scrub() {
        let words = ["florin", "start", "--addresses=1", "--clock-offset=-7200", "x"];
        let parse = |words: &[&str]| <crate::cli::Arguments as clap::Parser>::try_parse_from(words);
        assert!(parse(&words).is_err());
        let text = "--addresses=1 --development --clock-offset=-7200 --scrub-rate=64MiB x";
        let given = arguments(text);
        assert_eq!((given.clock_offset, given.scrub_rate.0), (-7200, 64 << 20));
        assert_eq!(arguments("--addresses=1 x").scrub_rate.0, SCRUB_RATE);
        assert_eq!(scrub_ns(1 << 16, 1 << 20), 62_500_000);
        assert_eq!(scrub_ns(1 << 16, 0), u64::MAX);
    }

    /// Goal: the pool holds what the replica needs besides what the bus leaves alone.
    #[test]
    fn pool_is_large_enough() {
        for config in [Config::production(), Config::development(), Config::testing()] {
            for others in [0, 2, 5, 11] {
                let (count, size) = message_sizes(&config, others);
                let left = count - messages_needed(&config) - message_reserve(&config);
                assert!(left >= Peers::messages_max(others) + arriving_max(others));
                assert!(size >= config.message_size_max);
            }
        }
    }

    /// Goal: the table knows all caches by what was asked for, before anything is allocated.
    #[test]
    fn memory_tables() {
        let total = |text: &str| {
            let arguments = arguments(text);
            let service = Service {
                addresses: arguments.check().unwrap(),
                path: arguments.path.clone(),
                sizes: arguments.sizes(),
                scrub_rate: SCRUB_RATE,
                clock_offset: 0,
                telling: Telling::default(),
                program: Release::PROGRAM,
                release_min: Release::CLIENT_MIN,
                release_max: Release::CLIENT_MAX,
                is_development: false,
                is_child: false,
            };
            let config = Config::production();
            let mut superblock = Superblock::blank();
            superblock.config = config;
            memory_table(&service, &superblock).total()
        };
        let base = total("--addresses=1 x");
        assert!((1 << 30..3 << 30).contains(&base), "{base}");
        let large = 1_u64 << 37;
        for option in ["cache-grid", "cache-accounts", "cache-transfers"] {
            let more = total(&format!("--addresses=1 --{option}=128GiB x")) - base;
            assert!(more > large / 5 && more < large + large / 20, "{option}: {more}");
        }
        assert!(total("--addresses=1 --filters=0 x") < base - (32 << 20));
        assert!(total("--addresses=1 --limit-storage=1PiB x") > base + (1 << 28));
    }

    /// Goal: a formatted file's superblock is read; other files are refused by class.
    #[test]
    fn superblocks() {
        let name = format!("florin-start-{}.florin", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let config = Config::development();
        let genesis =
            Genesis { cluster: 9, replica: 0, replica_count: 1, config, is_recovering: false };
        format::create(&genesis, &path, true).unwrap();
        let file = DataFile::open(&path, 0, true).unwrap();
        assert_eq!(file.superblock().unwrap().cluster, 9);
        drop(file);
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let file = DataFile::open(&path, 0, true).unwrap();
        let failure = Failure::from(file.superblock().unwrap_err());
        assert_eq!(failure.class, ExitClass::DataFile);
        drop(file);
        std::fs::remove_file(&path).unwrap();
    }
}
