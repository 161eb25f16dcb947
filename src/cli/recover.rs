//! `florin recover`: recreates the data file of a replica that lost it.
//!
//! The file is marked as the replacement of another one. Started with it, the replica fetches what
//! the old file had from the others, and has no vote until it has all of it: see
//! [`vsr::recover`](crate::vsr::recover). Not covered: whether the old file is really lost, which
//! only an operator can know.

use super::exit::{ExitClass, Failure};
use super::format::create;
use super::output::print;
use crate::io::address::replica_list;
use crate::io::memory::HumanSize;
use crate::protocol::{REPLICAS_MAX, STANDBYS_MAX};
use crate::storage::Config;
use crate::vsr::Genesis;
use crate::vsr::recover::may_recover;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  florin recover --cluster=7 --replica=1 --replica-count=3 0_1.florin
  florin start --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 0_1.florin
      the second of three replicas, whose file was lost; with the addresses that it had

Recovery needs both others of three replicas, all three of four, three of five, or four of six. Once
started, the replica asks them for their views, has them elect a primary in a later one, and fetches
everything; until then it has no vote. A standby has nothing to recover: format it again. An
existing file is never overwritten; if it is only damaged, start the replica, which repairs it.

Be sure that the old file is gone for good: started again, it would be another replica of the same
index.";

/// Options of `florin recover`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct RecoverArguments {
    /// Id of the cluster, as it was formatted
    #[arg(long, value_name = "ID")]
    pub cluster: u128,
    /// Index of the recovering replica, whose data file was lost
    #[arg(long, value_name = "I")]
    pub replica: u8,
    /// Number of replicas in the cluster, without standbys: 3 to 6
    #[arg(long, value_name = "N")]
    pub replica_count: u8,
    /// Addresses of all replicas, as for `florin start`. Only checked, so that a wrong list is
    /// noticed before the start: the data file does not hold addresses
    #[arg(long, value_name = "LIST")]
    pub addresses: Option<String>,
    /// The cluster was formatted with --development
    #[arg(long)]
    pub development: bool,
    /// The data file to create
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

impl RecoverArguments {
    /// # Errors
    ///
    /// If there is no such replica, or its cluster cannot restore it.
    fn check(&self) -> Result<(), Failure> {
        let usage = |message: String| Err(Failure::new(ExitClass::Usage, message));
        let (replica, count) = (self.replica, self.replica_count);
        match count {
            1 => {
                return usage(
                    "--replica-count=1: no other replica has the data of the lost file; restore a \
                     backup"
                        .to_owned(),
                );
            }
            2 => {
                return usage(
                    "--replica-count=2: neither of two replicas can continue without the log of \
                     the other; restore backups of both, made while both were stopped"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if count > REPLICAS_MAX || !may_recover(count) {
            return usage(format!(
                "--replica-count={count}: a cluster that can recover has 3 to {REPLICAS_MAX} \
                 replicas"
            ));
        }
        if replica >= count {
            return usage(format!(
                "--replica={replica} is not an index of {count} replicas: they count from zero. A \
                 standby is formatted again"
            ));
        }
        match &self.addresses {
            None => Ok(()),
            Some(list) => check_addresses(list, count),
        }
    }
}

/// Refuses a list that does not have all replicas, and perhaps standbys.
fn check_addresses(list: &str, replica_count: u8) -> Result<(), Failure> {
    let usage = |message: String| Failure::new(ExitClass::Usage, format!("--addresses: {message}"));
    let found = replica_list(list).map_err(|error| usage(error.to_string()))?.len();
    let count = usize::from(replica_count);
    if (count..=count + usize::from(STANDBYS_MAX)).contains(&found) {
        return Ok(());
    }
    Err(usage(format!(
        "{found} addresses for a cluster of {count} replicas (expected one for each replica and \
         then one for each standby); list all of them"
    )))
}

/// Creates the file, and prints the next step.
///
/// # Errors
///
/// If the options contradict each other, or the file exists or cannot be created.
pub fn run(arguments: &RecoverArguments) -> Result<(), Failure> {
    arguments.check()?;
    let development = arguments.development;
    let config = if development { Config::development() } else { Config::production() };
    let (replica, replica_count) = (arguments.replica, arguments.replica_count);
    let cluster = arguments.cluster;
    let genesis = Genesis { cluster, replica, replica_count, config, is_recovering: true };
    let size = create(&genesis, &arguments.path, development)?;
    let path = arguments.path.display();
    print(&format!(
        "{path}: cluster {cluster}, replica {replica} of {replica_count}, {}, in place of a lost \
         file. Start it: it has no vote until it has everything from the others",
        HumanSize(size)
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: clusters that cannot restore a replica are refused with a reason.
    #[test]
    fn refusals() {
        let check = |replica, replica_count| {
            let path = PathBuf::from("x");
            let development = true;
            let addresses = None;
            RecoverArguments { cluster: 7, replica, replica_count, addresses, development, path }
                .check()
        };
        for (replica, count, reason) in [
            (0, 1, "restore a backup"),
            (1, 2, "neither of two"),
            (0, 0, "3 to 6"),
            (0, 7, "3 to 6"),
            (3, 3, "count from zero"),
        ] {
            let failure = check(replica, count).unwrap_err();
            assert_eq!(failure.class, ExitClass::Usage);
            assert!(failure.message.contains(reason), "{failure}");
        }
        assert!((3..=6).all(|count| check(count - 1, count).is_ok()));
    }
}
