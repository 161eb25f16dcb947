//! `florin dev`: a ledger to develop against, at once.
//!
//! Makes a small data file if there is none, serves it, and says how to connect.

use super::exit::Failure;
use super::output::print;
use super::start::{self, MonitoringArguments, Service, Sizes, serve};
use super::{exit::ExitClass, format};
use crate::io::address::resolve;
use crate::io::signals::Held;
use crate::protocol::Release;
use crate::storage::Config;
use crate::vsr::Genesis;
use crate::vsr::scrub::SCRUB_RATE;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  florin dev
  florin dev --address=0 /tmp/test.florin
  florin dev --metrics=9100
      with metrics at http://127.0.0.1:9100/metrics

The data file stays; remove it to start over. The cluster's id is 0.";

/// Options of `florin dev`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DevArguments {
    /// Where to listen: HOST:PORT, HOST or PORT; the port 0 stands for a free one
    #[arg(long, value_name = "ADDRESS", default_value = "3000")]
    pub address: String,
    /// Monitoring endpoints
    #[command(flatten)]
    pub monitoring: MonitoringArguments,
    /// The data file; made if it does not exist
    #[arg(value_name = "PATH", default_value = "dev.florin")]
    pub path: PathBuf,
}

/// Serves until asked to end.
///
/// # Errors
///
/// If the server cannot be started or cannot continue.
pub fn run(arguments: &DevArguments) -> Result<(), Failure> {
    let progress = start::begin(&arguments.path, &arguments.address);
    let address = resolve(&arguments.address)
        .map_err(|error| Failure::new(ExitClass::Usage, error.to_string()))?;
    let monitoring = arguments.monitoring.resolve(&[address])?;
    let is_new = !arguments.path.exists();
    if is_new {
        create(&arguments.path)?;
    }
    let service = Service {
        addresses: vec![address.into()],
        path: arguments.path.clone(),
        sizes: Sizes::DEVELOPMENT,
        scrub_rate: SCRUB_RATE,
        clock_offset: 0,
        monitoring,
        program: Release::PROGRAM,
        release_min: Release::CLIENT_MIN,
        release_max: Release::CLIENT_MAX,
        is_development: true,
        is_child: false,
        address_hint: "; use --address=0 for a free port, or --address=PORT for another",
    };
    let mut is_serving = false;
    let result = serve(&service, progress, |address| {
        is_serving = true;
        print(&welcome(address));
    });
    result.inspect_err(|_| {
        if is_new && !is_serving {
            // Best effort: nothing was ever in it.
            let _ = std::fs::remove_file(&arguments.path);
        }
    })
}

/// Makes the data file. A signal waits meanwhile: half a file would fail the next start.
fn create(path: &Path) -> Result<(), Failure> {
    let _held = Held::new();
    let config = Config::development();
    let genesis =
        Genesis { cluster: 0, replica: 0, replica_count: 1, config, is_recovering: false };
    format::create(&genesis, path, true).map(drop)
}

/// The address, and four lines on how to connect.
fn welcome(address: SocketAddr) -> String {
    format!(
        "{address}\n\
         Shell:   florin repl --addresses={address}\n\
         Python:  tigerbeetle.ClientSync(cluster_id=0, replica_addresses=\"{address}\")\n\
         Node.js: createClient({{ cluster_id: 0n, replica_addresses: [\"{address}\"] }})\n\
         Rust:    florin::client::Client::connect(0, \"{address}\", &Options::default())"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the address stands alone on the first line, four lines follow, each with it.
    #[test]
    fn welcome_lines() {
        let text = welcome("127.0.0.1:3000".parse().unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0], "127.0.0.1:3000");
        assert!(lines[1..].iter().all(|line| line.contains("127.0.0.1:3000")), "{text}");
    }
}
