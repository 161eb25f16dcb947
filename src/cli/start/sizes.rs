//! How much memory a server reserves, and for what.

use super::{ExitClass, Failure, Monitoring, SIZE_MAX, Service};
use crate::cli::size::ByteSize;
use crate::io::bus::Bus;
use crate::io::memory::MemoryTable;
use crate::io::metrics::Metrics;
use crate::io::metrics::endpoint::Endpoint;
use crate::io::peers::Peers;
use crate::io::server::CONNECTIONS_MAX;
use crate::io::{allocator, log};
use crate::ledger::{Ledger, LedgerOptions};
use crate::protocol::buffer::mapped_bytes;
use crate::protocol::{Pool, Release, SECTOR_SIZE};
use crate::storage::Config;
use crate::storage::grid::PAGES_PER_READ;
use crate::storage::store::{Store, StoreOptions};
use crate::vsr::checkpoint::checkpoint_extra_max;
use crate::vsr::scrub::SCRUB_RATE;
use crate::vsr::{Superblock, journal_memory_bytes, messages_needed};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Page reads in flight at a time.
const PAGE_READS_MAX: u32 = 256;
/// Memory of a cached account with its place in the index, in bytes.
const ACCOUNT_BYTES: u64 = 192;
const MEBIBYTE: u64 = 1 << 20;
/// The smallest cache of pages: pages that are being read don't evict each other.
const CACHE_GRID_MIN: u64 = PAGE_READS_MAX as u64 * PAGES_PER_READ as u64 * SECTOR_SIZE as u64;
/// Maximum number of accounts that the cache holds.
const CACHED_ACCOUNTS_MAX: u32 = 1 << 30;
/// Room for what is too small to be counted one by one: queues, sessions, the kernel's rings, the
/// helper thread.
const OTHER_BYTES: u64 = 4 * MEBIBYTE;

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
    pub(super) fn options(&self) -> [(&'static str, u64); 5] {
        [
            ("cache-grid", self.cache_grid),
            ("cache-accounts", self.cache_accounts),
            ("cache-transfers", self.cache_transfers),
            ("filters", self.filters),
            ("limit-storage", self.limit_storage),
        ]
    }
}

/// The smallest sizes that a server of this geometry uses, by name of the option; in whole
/// mebibytes, as people write them.
fn minimums(service: &Service, superblock: &Superblock) -> [(&'static str, u64); 5] {
    let config = &superblock.config;
    let accounts = ledger_options(service, config).accounts_min();
    let options = store_options(service, superblock);
    let transfers = Store::cache_transfers_min(config, &options);
    [
        ("cache-grid", CACHE_GRID_MIN),
        ("cache-accounts", u64::from(accounts) * ACCOUNT_BYTES),
        ("cache-transfers", transfers),
        ("filters", 0),
        ("limit-storage", Store::storage_limit_min(config, &options)),
    ]
    .map(|(option, bytes)| (option, bytes.next_multiple_of(MEBIBYTE)))
}

/// Refuses sizes below their minimum, and a storage limit above its maximum. A default that is too
/// small for the file is raised, and that is logged: it is a default, not a choice.
pub(super) fn check_sizes(service: &Service, superblock: &Superblock) -> Result<(), Failure> {
    check_limit_storage(service, superblock)?;
    check_cache_accounts(service)?;
    let default =
        if service.is_development { Sizes::DEVELOPMENT } else { Sizes::PRODUCTION }.options();
    let given = service.sizes.options();
    for (index, (option, min)) in minimums(service, superblock).into_iter().enumerate() {
        assert!(given[index].0 == option);
        let (size, min) = (given[index].1, ByteSize(min));
        if size >= min.0 {
            continue;
        }
        if size == default[index].1 {
            log::info(format_args!("--{option} is {min}: the default is too small for this file"));
            continue;
        }
        return Err(Failure::new(
            ExitClass::Usage,
            format!(
                "--{option} must be at least {min} for {}, and is {}",
                service.path.display(),
                ByteSize(size)
            ),
        ));
    }
    Ok(())
}

/// Refuses a storage limit that checkpoints of this geometry can't describe; the largest in whole
/// gibibytes, as people write it.
fn check_limit_storage(service: &Service, superblock: &Superblock) -> Result<(), Failure> {
    let options = store_options(service, superblock);
    let max = Store::storage_limit_max(&superblock.config, &options, SIZE_MAX);
    let (size, max) = (ByteSize(service.sizes.limit_storage), ByteSize(max >> 30 << 30));
    if size.0 <= max.0 {
        return Ok(());
    }
    let path = service.path.display();
    let message = format!("--limit-storage must be at most {max} for {path}, and is {size}");
    Err(Failure::new(ExitClass::Usage, message))
}

/// Refuses a cache for more accounts than it can hold.
fn check_cache_accounts(service: &Service) -> Result<(), Failure> {
    let size = ByteSize(service.sizes.cache_accounts);
    let max = ByteSize(u64::from(CACHED_ACCOUNTS_MAX) * ACCOUNT_BYTES);
    if size.0 <= max.0 {
        return Ok(());
    }
    let message = format!("--cache-accounts must be at most {max}, and is {size}");
    Err(Failure::new(ExitClass::Usage, message))
}

/// Messages whose memory is resident from the start: what a few busy clients use.
const MESSAGES_RESIDENT: u32 = 16;

/// Buffers of the replica: what it needs itself at most, what is left to it while the bus takes
/// others, a request of each client, and for each other replica what waits for it and what is
/// arriving from it. Their number and size.
pub(super) fn message_sizes(config: &Config, others: u32) -> (u32, u32) {
    let own = messages_needed(config) - config.clients_max;
    let replicas = Peers::messages_max(others) + arriving_max(others);
    let count = own + message_reserve(config) + config.clients_max + replicas;
    (count, config.reply_size_max.max(config.message_size_max))
}

/// Frames of other replicas that may be arriving at a time; an old connection may outlast its
/// replica.
pub(super) const fn arriving_max(others: u32) -> u32 {
    2 * others
}

pub(super) fn message_pool(config: &Config, others: u32) -> Pool {
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
    let addresses = (0..count).map(|index| SocketAddr::from(([127, 0, 0, 1], index.into())).into());
    let service = Service {
        addresses: addresses.collect(),
        path: PathBuf::new(),
        sizes: if development { Sizes::DEVELOPMENT } else { Sizes::PRODUCTION },
        scrub_rate: SCRUB_RATE,
        clock_offset: 0,
        monitoring: Monitoring::default(),
        program: Release::PROGRAM,
        release_min: Release::CLIENT_MIN,
        release_max: Release::CLIENT_MAX,
        is_development: development,
        is_child: false,
        address_hint: "",
    };
    memory_table(&service, &file).total()
}

/// All memory that the server is going to reserve, before any of it is.
pub(super) fn memory_table(service: &Service, superblock: &Superblock) -> MemoryTable {
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
    if service.monitoring.is_wanted() {
        table.add("metrics", Metrics::memory_bytes() + Endpoint::memory_bytes());
    }
    table.add("everything else", OTHER_BYTES);
    table
}

/// The table says what is: neither less, so that the check means something, nor much more.
pub(super) fn check_reserved(table: &MemoryTable) {
    let reserved = reserved_bytes();
    let total = table.total();
    assert!(reserved <= total, "{reserved} bytes are reserved, {total} were announced");
    assert!(total - reserved <= 2 * OTHER_BYTES, "{total} were announced, {reserved} are reserved");
}

/// All memory that is reserved now.
pub(super) fn reserved_bytes() -> u64 {
    u64::try_from(allocator::bytes_now()).expect("64 bits") + mapped_bytes()
}

/// Messages that the bus leaves alone: a reply for each session, the pipeline, and small answers.
pub(super) fn message_reserve(config: &Config) -> u32 {
    config.clients_max + 2 * config.pipeline_max + 16
}

pub(super) fn store_options(service: &Service, superblock: &Superblock) -> StoreOptions {
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

pub(super) fn ledger_options(service: &Service, config: &Config) -> LedgerOptions {
    let accounts = service.sizes.cache_accounts / ACCOUNT_BYTES;
    // A larger cache is refused: see `check_cache_accounts`.
    let accounts = u32::try_from(accounts).unwrap_or(u32::MAX).min(CACHED_ACCOUNTS_MAX);
    LedgerOptions::new(config, accounts)
}

/// Replicas and standbys besides us.
pub(super) fn others(service: &Service) -> u32 {
    u32::try_from(service.addresses.len() - 1).expect("the list was checked")
}

#[cfg(test)]
mod tests {
    use super::super::tests::arguments;
    use super::*;

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

    fn service(arguments: &super::super::StartArguments) -> Service {
        Service {
            addresses: arguments.check().unwrap(),
            path: arguments.path.clone(),
            sizes: arguments.sizes(),
            scrub_rate: SCRUB_RATE,
            clock_offset: 0,
            monitoring: Monitoring::default(),
            program: Release::PROGRAM,
            release_min: Release::CLIENT_MIN,
            release_max: Release::CLIENT_MAX,
            is_development: arguments.development,
            is_child: false,
            address_hint: "",
        }
    }

    /// Goal: the table knows all caches by what was asked for, before anything is allocated.
    #[test]
    fn memory_tables() {
        let total = |text: &str| {
            let arguments = arguments(text);
            let service = service(&arguments);
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

    /// Goal: each size has a minimum, which is what the help says; below it a size that was chosen
    /// is refused, and a default is raised.
    #[test]
    fn size_minimums() {
        let mut superblock = *Superblock::blank();
        for (mode, config, expected) in [
            ("", Config::production(), [4, 12, 76, 0, 366]),
            ("--development", Config::development(), [4, 2, 6, 0, 248]),
        ] {
            superblock.config = config;
            let check = |option: &str| {
                let arguments = arguments(&format!("--addresses=1 {mode} {option} x"));
                check_sizes(&service(&arguments), &superblock)
            };
            let arguments = arguments(&format!("--addresses=1 {mode} x"));
            let found = minimums(&service(&arguments), &superblock);
            for ((option, min), expected) in found.into_iter().zip(expected) {
                assert_eq!(min / MEBIBYTE, expected, "{mode} {option}");
                assert_eq!(check(&format!("--{option}={expected}MiB")), Ok(()), "{option}");
                if min > 0 {
                    let failure = check(&format!("--{option}=1B")).unwrap_err();
                    assert_eq!(failure.class, ExitClass::Usage);
                    let text = format!("--{option} must be at least {expected}MiB for x");
                    assert!(failure.message.contains(&text), "{failure}");
                }
            }
        }
        // The largest storage limit, as the help says.
        let check = |limit: &str, superblock: &Superblock| {
            let text = format!("--addresses=1 --development --limit-storage={limit} x");
            check_sizes(&service(&arguments(&text)), superblock)
        };
        assert_eq!(check("4514GiB", &superblock), Ok(()));
        let failure = check("100TiB", &superblock).unwrap_err();
        assert_eq!(failure.class, ExitClass::Usage);
        let text = "--limit-storage must be at most 4514GiB for x, and is 100TiB";
        assert_eq!(failure.message, text);
        superblock.config = Config::production();
        assert_eq!(check("1PiB", &superblock), Ok(()));
        let check = |size: &str| {
            let arguments = arguments(&format!("--addresses=1 --cache-accounts={size} x"));
            check_sizes(&service(&arguments), &superblock)
        };
        assert_eq!(check("192GiB"), Ok(()));
        let failure = check("17TiB").unwrap_err();
        assert_eq!(failure.class, ExitClass::Usage);
        let text = "--cache-accounts must be at most 192GiB, and is 17TiB";
        assert_eq!(failure.message, text);
        // A file of production geometry that is served with the small defaults.
        superblock.config = Config::production();
        let arguments = arguments("--addresses=1 --development x");
        assert_eq!(check_sizes(&service(&arguments), &superblock), Ok(()));
    }
}
