//! `florin format`: creates the data file of a replica.
//!
//! The options are written to the file and never change: the cluster, the index of the replica, and
//! the geometry (production or development).

use super::exit::{ExitClass, Failure};
use super::output::{print, print_error};
use crate::io::file::{FileError, FileErrorKind, format_data_file};
use crate::io::memory::HumanSize;
use crate::protocol::{REPLICAS_MAX, STANDBYS_MAX};
use crate::storage::{Config, Zones};
use crate::vsr::{Genesis, SuperblockError};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  florin format --cluster=7 --replica=0 --replica-count=1 0_0.florin
  florin format --cluster=7 --replica=1 --replica-count=3 0_1.florin
      the second of three replicas
  florin format --cluster=7 --standby=3 --replica-count=3 0_3.florin
      a standby for them: it follows and does not vote
  florin format --cluster=0 --replica=0 --replica-count=1 --development test.florin

An existing file is never overwritten.";

/// Options of `florin format`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct FormatArguments {
    /// Id of the cluster, which clients must give: any number of 128 bits
    #[arg(long, value_name = "ID")]
    pub cluster: u128,
    /// Index of this replica, from zero
    #[arg(long, value_name = "I", required_unless_present = "standby", conflicts_with = "standby")]
    pub replica: Option<u8>,
    /// Index of this standby: the first one follows the last replica
    #[arg(long, value_name = "I")]
    pub standby: Option<u8>,
    /// Number of replicas in the cluster, without standbys: 1 to 6, best 3 or 6. A cluster of three
    /// survives the loss of one replica, a cluster of six the loss of two
    #[arg(long, value_name = "N")]
    pub replica_count: u8,
    /// Use small sizes for development and tests, on any file system; not for valuable data
    #[arg(long)]
    pub development: bool,
    /// The data file to create
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

impl FormatArguments {
    /// Checks the options together, and returns the index of the replica or standby.
    ///
    /// # Errors
    ///
    /// If options contradict each other, or there can be no such cluster.
    ///
    /// # Panics
    ///
    /// Never: clap requires one of the two indexes.
    pub fn check(&self) -> Result<u8, Failure> {
        let usage = |message: String| Err(Failure::new(ExitClass::Usage, message));
        let count = self.replica_count;
        if !(1..=REPLICAS_MAX).contains(&count) {
            return usage(format!(
                "--replica-count={count}: a cluster has 1 to {REPLICAS_MAX} replicas"
            ));
        }
        if let Some(standby) = self.standby {
            if count == 1 {
                return usage("--standby: a cluster of one replica has no standbys".to_owned());
            }
            let indexes = count..count + STANDBYS_MAX;
            if !indexes.contains(&standby) {
                return usage(format!(
                    "--standby={standby}: standbys of {count} replicas have the indexes {} to {}",
                    indexes.start,
                    indexes.end - 1
                ));
            }
            return Ok(standby);
        }
        let replica = self.replica.expect("one of the two is required");
        if replica >= count {
            return usage(format!(
                "--replica={replica} is not an index of {count} replicas: they count from zero"
            ));
        }
        Ok(replica)
    }
}

/// Returns the exit class of a file whose superblock is not valid.
pub(super) fn superblock_class(error: &SuperblockError) -> ExitClass {
    match error {
        SuperblockError::NotFormatted | SuperblockError::Version { .. } => ExitClass::DataFile,
        _ => ExitClass::Corruption,
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        let class = match &error.kind {
            FileErrorKind::Exists
            | FileErrorKind::Missing
            | FileErrorKind::NotRegular
            | FileErrorKind::Locked
            | FileErrorKind::NoDirectIo
            | FileErrorKind::TooShort { .. } => ExitClass::DataFile,
            FileErrorKind::Superblock(error) => superblock_class(error),
            FileErrorKind::NoSpace { .. } => ExitClass::Machine,
            FileErrorKind::System { error, .. } => match error.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EMFILE | libc::ENFILE) => {
                    ExitClass::Machine
                }
                Some(
                    libc::EACCES
                    | libc::EPERM
                    | libc::EROFS
                    | libc::ENOENT
                    | libc::ENOTDIR
                    | libc::ELOOP
                    | libc::ENAMETOOLONG,
                ) => ExitClass::DataFile,
                _ => ExitClass::Error,
            },
        };
        Failure::new(class, error.to_string())
    }
}

/// Formats a data file, and prints a summary.
///
/// # Errors
///
/// If the options contradict each other, or the file exists or cannot be created.
pub fn run(arguments: &FormatArguments) -> Result<(), Failure> {
    let replica = arguments.check()?;
    if arguments.replica_count == 2 {
        print_error(
            "warning: a cluster of two replicas survives no failure: if either is down, requests \
             get no answer. It is less available than a single replica; use three",
        );
    }
    let config = if arguments.development { Config::development() } else { Config::production() };
    let genesis = Genesis {
        cluster: arguments.cluster,
        replica,
        replica_count: arguments.replica_count,
        config,
        is_recovering: false,
    };
    let size = create(&genesis, &arguments.path, arguments.development)?;
    print(&format!(
        "{}: cluster {}, {} {replica} of {}, {}",
        arguments.path.display(),
        arguments.cluster,
        if arguments.standby.is_some() { "standby" } else { "replica" },
        arguments.replica_count,
        HumanSize(size)
    ));
    Ok(())
}

/// Creates a durable data file, and returns its size in bytes.
///
/// # Errors
///
/// If the file exists or cannot be created.
pub fn create(genesis: &Genesis, path: &Path, is_development: bool) -> Result<u64, Failure> {
    format_data_file(path, genesis, is_development)?;
    Ok(Zones::new(&genesis.config).file_size(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(
        replica: Option<u8>,
        standby: Option<u8>,
        replica_count: u8,
        path: &Path,
    ) -> FormatArguments {
        let path = path.to_path_buf();
        FormatArguments { cluster: 7, replica, standby, replica_count, development: true, path }
    }

    /// Goal: indexes outside the cluster, and impossible clusters, are usage errors.
    #[test]
    fn refusals() {
        let check = |replica, standby, count| {
            let result = arguments(replica, standby, count, Path::new("x")).check();
            result.map_err(|failure| failure.class)
        };
        for count in 1..=6 {
            assert_eq!(check(Some(count - 1), None, count), Ok(count - 1));
            assert_eq!(check(Some(count), None, count), Err(ExitClass::Usage));
        }
        assert_eq!(check(Some(0), None, 0), Err(ExitClass::Usage));
        assert_eq!(check(Some(0), None, 7), Err(ExitClass::Usage));
        assert_eq!(check(None, Some(3), 3), Ok(3));
        assert_eq!(check(None, Some(8), 3), Ok(8));
        assert_eq!(check(None, Some(9), 3), Err(ExitClass::Usage));
        assert_eq!(check(None, Some(2), 3), Err(ExitClass::Usage));
        assert_eq!(check(None, Some(1), 1), Err(ExitClass::Usage));
    }

    /// Goal: a formatted file has the size of its geometry, and is not overwritten.
    #[test]
    fn creates_once() {
        let name = format!("florin-format-{}.florin", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        run(&arguments(Some(0), None, 1, &path)).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(size, Zones::new(&Config::development()).file_size(0));
        let failure = run(&arguments(Some(0), None, 1, &path)).unwrap_err();
        assert_eq!(failure.class, ExitClass::DataFile);
        assert!(failure.message.contains("exists already"), "{failure}");
        std::fs::remove_file(&path).unwrap();
    }
}
