//! `florin start`: serves a data file.
//!
//! Reads the superblock to learn which cluster and which geometry the file is of, reserves all
//! memory, freezes the allocator, and serves until a signal, the end of the input, or a fault.

mod progress;
mod serve;
mod sizes;

pub use progress::Progress;
pub(in crate::cli) use serve::fatal_class;
pub use serve::serve;
pub use sizes::{Sizes, memory_needed};

use super::exit::{ExitClass, Failure};
use super::size::ByteSize;
use crate::io::address::{ReplicaAddress, replica_list, resolve};
use crate::io::log;
use crate::io::memory::HumanSize;
use crate::protocol::Release;
use crate::vsr::scrub::SCRUB_RATE;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// No size is larger than a pebibyte: a mistake in typing, and sums would not fit 64 bits.
const SIZE_MAX: u64 = 1 << 50;

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
    #[arg(long, value_name = "LIST", env = "FLORIN_ADDRESSES", hide_env_values = true)]
    pub addresses: String,
    /// Memory for pages of the data file [default: 64MiB, in development 32MiB; at least
    /// 4MiB]
    #[arg(long, value_name = "SIZE", env = "FLORIN_CACHE_GRID", hide_env_values = true)]
    pub cache_grid: Option<ByteSize>,
    /// Memory for accounts [default: 192MiB, in development 8MiB; at least 12MiB, in development
    /// 2MiB]
    #[arg(long, value_name = "SIZE", env = "FLORIN_CACHE_ACCOUNTS", hide_env_values = true)]
    pub cache_accounts: Option<ByteSize>,
    /// Memory for the newest transfers [default: 560MiB, in development 8MiB; at least 76MiB, in
    /// development 6MiB]
    #[arg(long, value_name = "SIZE", env = "FLORIN_CACHE_TRANSFERS", hide_env_values = true)]
    pub cache_transfers: Option<ByteSize>,
    /// Memory for filters that spare searches for new transfer ids; 0 for none [default: 64MiB, in
    /// development 1MiB]
    #[arg(long, value_name = "SIZE", env = "FLORIN_FILTERS", hide_env_values = true)]
    pub filters: Option<ByteSize>,
    /// Maximum size of the data in the file [default: 1TiB, in development 64GiB; at least 366MiB,
    /// in development 248MiB; at most 1PiB, in development 4514GiB]
    #[arg(long, value_name = "SIZE", env = "FLORIN_LIMIT_STORAGE", hide_env_values = true)]
    pub limit_storage: Option<ByteSize>,
    /// Bytes of the data file read in the background each second, to find damage while other
    /// replicas can repair it; 0 for none
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(SCRUB_RATE),
        env = "FLORIN_SCRUB_RATE", hide_env_values = true)]
    pub scrub_rate: ByteSize,
    /// Seconds by which the clock is ahead, to test the effect of a wrong clock
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        default_value_t = 0,
        requires = "development",
        allow_negative_numbers = true
    )]
    pub clock_offset: i64,
    /// Monitoring endpoints
    #[command(flatten)]
    pub monitoring: MonitoringArguments,
    /// Release that this program pretends to be, to test upgrades
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
    /// Minimum log level
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "FLORIN_LOG_LEVEL",
        hide_env_values = true
    )]
    pub log_level: log::Level,
    /// Format of events: lines of text, or JSON objects with time, level and message
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        env = "FLORIN_LOG_FORMAT",
        hide_env_values = true
    )]
    pub log_format: log::Format,
    /// Accept any file system and use little memory; not for data of value
    #[arg(long)]
    pub development: bool,
    /// Accepted for scripts of the reference; has no effect
    #[arg(long, hide = true)]
    pub experimental: bool,
    /// The data file, made by `florin format`
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// Monitoring endpoints of a server.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MonitoringArguments {
    /// Address to serve metrics on, for Prometheus: /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDRESS", env = "FLORIN_METRICS", hide_env_values = true)]
    pub metrics: Option<String>,
    /// Address to send metrics to, for StatsD with tags: a datagram or some every 10 seconds
    #[arg(long, value_name = "ADDRESS", env = "FLORIN_STATSD", hide_env_values = true)]
    pub statsd: Option<String>,
}

impl MonitoringArguments {
    /// Where metrics are served, and where they are sent.
    ///
    /// # Errors
    ///
    /// If an address is none, or metrics are to be served where clients are.
    pub fn resolve(&self, own: &[SocketAddr]) -> Result<Monitoring, Failure> {
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
        Ok(Monitoring { metrics, statsd })
    }
}

/// See [`MonitoringArguments`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Monitoring {
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where metrics are sent.
    pub statsd: Option<SocketAddr>,
}

impl Monitoring {
    fn is_wanted(&self) -> bool {
        self.metrics.is_some() || self.statsd.is_some()
    }
}

fn parse_release(text: &str) -> Result<Release, String> {
    text.parse().map_err(|_| format!("`{text}` is not a release such as {}", Release::SERVER))
}

impl StartArguments {
    /// The addresses of all replicas.
    ///
    /// # Errors
    ///
    /// If an address is none, a size is absurd, or the admitted releases are none.
    pub fn check(&self) -> Result<Vec<ReplicaAddress>, Failure> {
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
        let addresses = replica_list(&self.addresses).map_err(|error| usage(error.to_string()))?;
        if let [own] = addresses.as_slice()
            && let Some(reason) = own.missing()
        {
            return Err(no_own_address(own, reason));
        }
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

/// A server must know where to listen. Not an error of the command line: a name may have no address
/// yet right after a boot, and a service manager shall try again.
fn no_own_address(own: &ReplicaAddress, reason: &str) -> Failure {
    let message = format!(
        "--addresses: \"{own}\" is this replica's own address, and its name has none: {reason}; \
         give an address of this machine, or have the name resolved before the start"
    );
    Failure::new(ExitClass::Network, message)
}

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct Service {
    /// Addresses of all replicas and standbys; the data file knows which one is ours.
    pub addresses: Vec<ReplicaAddress>,
    /// The data file.
    pub path: PathBuf,
    /// How much of everything.
    pub sizes: Sizes,
    /// Bytes that are scrubbed in a second.
    pub scrub_rate: u64,
    /// Seconds that the clock is ahead of the system's.
    pub clock_offset: i64,
    /// Monitoring endpoints.
    pub monitoring: Monitoring,
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
    /// What to do, besides, if the address cannot be listened on.
    pub address_hint: &'static str,
}

/// Writes the first line of the log, at once, and begins to report progress.
pub(super) fn begin(path: &Path, addresses: &str) -> Progress {
    log::begin();
    let (version, path) = (env!("CARGO_PKG_VERSION"), path.display());
    log::info(format_args!("florin {version} starting: data file {path}, addresses {addresses}"));
    Progress::begin()
}

/// Serves until asked to end.
///
/// # Errors
///
/// If the server cannot be started or cannot continue.
pub fn run(arguments: &StartArguments) -> Result<(), Failure> {
    log::set(arguments.log_level, arguments.log_format);
    let progress = begin(&arguments.path, &arguments.addresses);
    let addresses = arguments.check()?;
    let known: Vec<SocketAddr> = addresses.iter().filter_map(ReplicaAddress::known).collect();
    let service = Service {
        is_child: matches!(addresses.as_slice(), [address] if address.port() == 0),
        monitoring: arguments.monitoring.resolve(&known)?,
        addresses,
        path: arguments.path.clone(),
        sizes: arguments.sizes(),
        scrub_rate: arguments.scrub_rate.0,
        clock_offset: arguments.clock_offset,
        program: arguments.program_release,
        release_min: arguments.release_min,
        release_max: arguments.release_max,
        is_development: arguments.development,
        address_hint: "",
    };
    serve(&service, progress, |address| log::info(format_args!("listening on {address}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format;
    use crate::io::file::DataFile;
    use crate::storage::Config;
    use crate::vsr::Genesis;
    use crate::vsr::scrub::scrub_ns;

    pub(super) fn arguments(text: &str) -> StartArguments {
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
        assert_eq!(check("--addresses=no.such.invalid:3000 x"), Err(ExitClass::Network));
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
