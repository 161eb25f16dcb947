//! `florin inspect`: looks into a data file without changing it, offline.
//!
//! One file for each thing to look at. All of them open the file for reading alone, and are refused
//! while a server has it open. They read through the code that a replica reads with.

pub mod constants;
pub mod document;
pub mod file;
pub mod grid;
pub mod integrity;
mod integrity_index;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod op;
pub mod records;
pub mod replies;
pub mod superblock;
#[cfg(test)]
mod tests;
pub mod time;
pub mod wal;

use std::path::PathBuf;

use super::exit::Failure;
use super::output::{OutputArguments, print};
use document::Document;

const EXAMPLES: &str = "\
Examples:
  florin inspect superblock 0_0.florin
  florin inspect wal --slot=3 0_0.florin
  florin inspect op 0_0.florin 771
  florin inspect log --row=1000 0_0.florin
      an event: the transfer, and the balances of both accounts right after it
  florin inspect grid --block=17 --format=json 0_0.florin
  florin inspect integrity 0_0.florin
      checks everything; exit code 6 if something is damaged, with zone and offset of each place

The file is only read. It must not be in use: stop the server first, or look at a copy that was made
while it was stopped.";

/// Options of `florin inspect`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct InspectArguments {
    /// What to look at.
    #[command(subcommand)]
    pub subject: Subject,
    /// Form of the output
    #[command(flatten)]
    pub output: OutputArguments,
}

/// What there is to look at.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Subject {
    /// Sizes and limits that are built in, and those of a data file
    Constants {
        /// A data file
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// The four copies of the superblock, and what the one to believe says
    Superblock {
        /// The data file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// The write-ahead log: what is in each slot
    Wal {
        /// One slot in detail
        #[arg(long, value_name = "N")]
        slot: Option<u32>,
        /// The data file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// The sessions of the checkpoint with their newest replies
    Replies {
        /// One session in detail, by its place in the table
        #[arg(long, value_name = "N")]
        slot: Option<u32>,
        /// The data file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// What the blocks of the grid are used for
    Grid {
        /// One block in detail, by its address
        #[arg(long, value_name = "N")]
        block: Option<u64>,
        /// All blocks that the checkpoint refers to, one by one
        #[arg(long, conflicts_with = "block")]
        list: bool,
        /// The data file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// The runs of all indexes, and flushes and merges that are scheduled
    Manifest {
        /// The data file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Every metric that a server tells: type, unit and meaning
    Metrics,
    /// The logs of events and accounts as of the checkpoint
    Log {
        /// One row, of the events unless --accounts is given
        #[arg(long, value_name = "N")]
        row: Option<u64>,
        /// The row is one of the accounts
        #[arg(long, requires = "row")]
        accounts: bool,
        /// The data file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// An op that is in the write-ahead log, with its requests
    Op {
        /// The data file
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// The op
        #[arg(value_name = "N")]
        op: u64,
    },
    /// Check all checksums, references, the free set, and the indexes against the log
    Integrity {
        /// The data file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// Looks at a data file and prints what is there.
///
/// # Errors
///
/// If the file cannot be read, or what was asked for is damaged or not there.
pub fn run(arguments: &InspectArguments) -> Result<(), Failure> {
    let (document, failure) = inspect(&arguments.subject)?;
    print(&match &arguments.subject {
        _ if arguments.output.is_json() => document.json(),
        Subject::Metrics => metrics::human(),
        _ => document.human(),
    });
    failure.map_or(Ok(()), Err)
}

/// What is to be printed, and a failure that there is nonetheless.
fn inspect(subject: &Subject) -> Result<(Document, Option<Failure>), Failure> {
    let document = match subject {
        Subject::Superblock { path } => return superblock::inspect(path),
        Subject::Integrity { path } => return integrity::inspect(path),
        Subject::Constants { path } => constants::inspect(path.as_deref()),
        Subject::Wal { slot, path } => wal::inspect(path, *slot),
        Subject::Replies { slot, path } => replies::inspect(path, *slot),
        Subject::Grid { block, list, path } => grid::inspect(path, *block, *list),
        Subject::Manifest { path } => manifest::inspect(path),
        Subject::Metrics => Ok(metrics::inspect()),
        Subject::Log { row, accounts, path } => {
            let row = row
                .map(|row| if *accounts { log::Row::Account(row) } else { log::Row::Event(row) });
            log::inspect(path, row)
        }
        Subject::Op { path, op } => op::inspect(path, *op),
    };
    Ok((document?, None))
}
