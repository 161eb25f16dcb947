//! `florin format`: makes the data file of a replica.
//!
//! What is typed here is stamped in the file and never changes: the cluster, the place in it, and
//! the geometry (production or development).

use super::exit::{ExitClass, Failure};
use super::output::print;
use crate::io::file::{FileError, FileErrorKind, format_data_file};
use crate::io::memory::HumanSize;
use crate::storage::{Config, Zones};
use crate::vsr::{Genesis, SuperblockError};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  florin format --cluster=7 --replica=0 --replica-count=1 0_0.florin
  florin format --cluster=0 --replica=0 --replica-count=1 --development test.florin

An existing file is never overwritten.";

/// Options of `florin format`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct FormatArguments {
    /// Id of the cluster, which clients must name: any number of 128 bits
    #[arg(long, value_name = "ID")]
    pub cluster: u128,
    /// Index of this replica, from zero
    #[arg(long, value_name = "I")]
    pub replica: u8,
    /// Replicas of the cluster; this version serves clusters of one
    #[arg(long, value_name = "N")]
    pub replica_count: u8,
    /// Small sizes for development and tests, and any file system; not for data of value
    #[arg(long)]
    pub development: bool,
    /// The data file to create
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

impl FormatArguments {
    /// What no single option can tell.
    ///
    /// # Errors
    ///
    /// If options contradict each other, or ask for what this version does not do.
    pub fn check(&self) -> Result<(), Failure> {
        let usage = |message: String| Err(Failure::new(ExitClass::Usage, message));
        if self.replica >= self.replica_count {
            return usage(format!(
                "--replica={} is no index of {} replicas: they count from zero",
                self.replica, self.replica_count
            ));
        }
        if self.replica_count != 1 {
            return usage(format!(
                "--replica-count={}: this version serves clusters of one replica only",
                self.replica_count
            ));
        }
        Ok(())
    }
}

/// The class of a file whose superblock is not as it should be.
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
            | FileErrorKind::TooShort { .. }
            | FileErrorKind::Unaligned { .. } => ExitClass::DataFile,
            FileErrorKind::Superblock(error) => superblock_class(error),
            FileErrorKind::NoSpace { .. } => ExitClass::Machine,
            FileErrorKind::System { .. } => ExitClass::Error,
        };
        Failure::new(class, error.to_string())
    }
}

/// Formats a data file and says so.
///
/// # Errors
///
/// If the options contradict each other, the file exists or cannot be made.
pub fn run(arguments: &FormatArguments) -> Result<(), Failure> {
    arguments.check()?;
    let config = if arguments.development { Config::development() } else { Config::production() };
    let genesis = Genesis {
        cluster: arguments.cluster,
        replica: arguments.replica,
        replica_count: arguments.replica_count,
        config,
    };
    let size = create(&genesis, &arguments.path, arguments.development)?;
    print(&format!(
        "{}: cluster {}, replica {} of {}, {}",
        arguments.path.display(),
        arguments.cluster,
        arguments.replica,
        arguments.replica_count,
        HumanSize(size)
    ));
    Ok(())
}

/// Creates a data file, durable when this returns; its size in bytes.
///
/// # Errors
///
/// If the file exists or cannot be made.
pub fn create(genesis: &Genesis, path: &Path, is_development: bool) -> Result<u64, Failure> {
    format_data_file(path, genesis, is_development)?;
    Ok(Zones::new(&genesis.config).file_size(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(replica: u8, replica_count: u8, path: &Path) -> FormatArguments {
        let path = path.to_path_buf();
        FormatArguments { cluster: 7, replica, replica_count, development: true, path }
    }

    /// Goal: indexes outside the cluster, and clusters we cannot serve, are usage errors.
    #[test]
    fn refusals() {
        let check = |replica, count| {
            let result = arguments(replica, count, Path::new("x")).check();
            result.map_err(|failure| failure.class)
        };
        assert_eq!(check(0, 1), Ok(()));
        assert_eq!(check(1, 1), Err(ExitClass::Usage));
        assert_eq!(check(0, 0), Err(ExitClass::Usage));
        assert_eq!(check(0, 3), Err(ExitClass::Usage));
    }

    /// Goal: a formatted file has the size of its geometry, and is not overwritten.
    #[test]
    fn creates_once() {
        let name = format!("florin-format-{}.florin", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        run(&arguments(0, 1, &path)).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(size, Zones::new(&Config::development()).file_size(0));
        let failure = run(&arguments(0, 1, &path)).unwrap_err();
        assert_eq!(failure.class, ExitClass::DataFile);
        assert!(failure.message.contains("exists already"), "{failure}");
        std::fs::remove_file(&path).unwrap();
    }
}
