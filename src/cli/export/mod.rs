//! `florin export`: accounts, transfers or balances at a moment, as a file for other programs.
//!
//! From a data file that is not in use, or from a live cluster. `records.rs` what the rows are,
//! `offline.rs` (with `replay.rs`) and `online.rs` where they come from, `balances.rs` how balances
//! follow from events, `sink.rs` and `columns.rs` where rows go.

pub mod balances;
pub mod columns;
pub mod offline;
pub mod online;
pub mod records;
pub mod replay;
pub mod sink;

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use zerocopy::IntoBytes;

use super::destination::Destination;
use super::exit::{ExitClass, Failure};
use super::moment::Moment;
use super::output::print_error;
use super::patient::{PatientClient, Stop};
use super::progress::{self, Counts};
use crate::client::resolve_addresses;
use crate::repl::schema::{Record, TRANSFER};
use balances::{BalancesAt, sides_of_event, sides_of_rows};
use offline::DataFileSource;
use online::ClusterSource;
use records::{ACCOUNT_CREATED, BALANCE_AT, BalanceAt, unchanging};
use sink::{Format, Sink, SinkError};

const EXAMPLES: &str = "\
Examples:
  florin export --addresses=3000 --what=balances
      the balances of all accounts now, as csv on standard output
  florin export --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 --cluster=7 \\
      --what=transfers --at=2026-11-01T00:00:00Z --format=parquet --output=october.parquet
      all transfers until then, for an SQL engine
  florin export 0_0.florin --what=accounts --format=jsonl --output=accounts.jsonl
      from a data file whose server is stopped, without changing it

Rows are in the order of their timestamps. `accounts` is what never changes of them: flags without \
`closed`, no balances. `balances` is one row for each account, with its flags, and the time of its \
last event at or before --at. An --output file appears when it is complete.

Numbers of 64 and 128 bits are strings in jsonl. In parquet, amounts and balances are DECIMAL(38, \
0), other 128-bit numbers 16 bytes with the highest first, timestamps moments with nanoseconds, \
flags names separated by |. TIME is in nanoseconds since 1970, or like 2026-11-26T18:30:00Z.";

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Accounts as they were created.
    Accounts,
    /// Transfers of all kinds.
    Transfers,
    /// The balances of every account.
    Balances,
}

impl What {
    fn record(self) -> &'static Record {
        match self {
            What::Accounts => &ACCOUNT_CREATED,
            What::Transfers => &TRANSFER,
            What::Balances => &BALANCE_AT,
        }
    }
}

/// Where records come from: a data file or a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct SourceArguments {
    /// The data file of a server that is stopped
    #[arg(
        value_name = "PATH",
        conflicts_with = "addresses",
        required_unless_present = "addresses"
    )]
    pub path: Option<PathBuf>,
    /// All replicas of the cluster, in order; host names are resolved
    #[arg(long, value_name = "LIST")]
    pub addresses: Option<String>,
    /// Id of the cluster
    #[arg(long, value_name = "ID", default_value_t = 0, conflicts_with = "path")]
    pub cluster: u128,
    /// Give up after so many seconds without an answer; 30 for the first one if not given
    #[arg(long, value_name = "SECONDS", conflicts_with = "path",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline: Option<u64>,
}

/// A source of records.
#[derive(Debug)]
pub enum Source {
    /// A data file.
    DataFile(Box<DataFileSource>),
    /// A cluster.
    Cluster(Box<ClusterSource>),
}

impl SourceArguments {
    /// Opens the source; of a data file it is told what it does not have.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or an address is none.
    ///
    /// # Panics
    ///
    /// Never: one of both is given.
    pub fn open(&self, stop: &Stop) -> Result<Source, Failure> {
        if let Some(path) = &self.path {
            let source = DataFileSource::open(path)?;
            warn_of_newer(path, &source)?;
            return Ok(Source::DataFile(Box::new(source)));
        }
        let list = self.addresses.as_ref().expect("a path or addresses are given");
        let addresses = resolve_addresses(list)
            .map_err(|error| Failure::new(ExitClass::Usage, error.to_string()))?;
        let deadline = self.deadline.map(Duration::from_secs);
        let client = PatientClient::new(self.cluster, addresses, deadline, stop.clone());
        Ok(Source::Cluster(Box::new(ClusterSource::new(client))))
    }
}

/// What was done after the checkpoint is not in its rows.
fn warn_of_newer(path: &Path, source: &DataFileSource) -> Result<(), Failure> {
    let (op, newer) = (source.checkpoint_op(), source.newer_ops()?);
    if newer > 0 {
        let path = path.display();
        print_error(&format!(
            "warning: {path}: as of its checkpoint, op {op}. The {newer} ops after it are not \
             included, since the other replicas decide about them: to have them, use --addresses"
        ));
    }
    Ok(())
}

/// Options of `florin export`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ExportArguments {
    /// Where from
    #[command(flatten)]
    pub source: SourceArguments,
    /// What to export
    #[arg(long, value_enum, default_value = "balances")]
    pub what: What,
    /// As it was at this moment
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub at: Moment,
    /// How to write it
    #[arg(long, value_enum, default_value = "csv")]
    pub format: Format,
    /// Where to; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

/// Why an export ends before its end.
enum End {
    Failure(Failure),
    ReaderGone,
    Stopped,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failure(failure)
    }
}

/// Writes the rows.
///
/// # Errors
///
/// If the source cannot be read or the output cannot be written. Nothing is left of the file then.
pub fn run(arguments: &ExportArguments) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    // First, so that what cannot be written is not read for nothing.
    let destination = Destination::open("--output", &arguments.output, &stop)?;
    let sink = Sink::new(destination, arguments.format, arguments.what.record())?;
    let mut source = arguments.source.open(&stop)?;
    let mut export = Export { sink, bar: progress_bar(&source), stop, is_gone: false };
    let result = export.run(&mut source, arguments.what, arguments.at);
    export.bar.finish_and_clear();
    let count = export.sink.count;
    match result {
        Ok(()) => match export.sink.finish() {
            Ok(()) if arguments.output != Path::new("-") => {
                let (what, path) = (arguments.what.record().plural, arguments.output.display());
                print_error(&format!("{count} {what} written to {path}"));
                Ok(())
            }
            Ok(()) | Err(SinkError::ReaderGone) => Ok(()),
            Err(SinkError::Failed(text)) => Err(cannot_write(&text)),
        },
        Err(end) => {
            export.sink.abandon();
            match end {
                End::Failure(failure) => Err(failure),
                End::ReaderGone => Ok(()),
                End::Stopped => {
                    Err(Failure::new(ExitClass::Error, "interrupted: nothing was written"))
                }
            }
        }
    }
}

fn cannot_write(text: &str) -> Failure {
    Failure::new(ExitClass::Error, format!("the rows cannot be written: {text}"))
}

/// A bar where the end is known, else a count.
#[must_use]
pub fn progress_bar(source: &Source) -> ProgressBar {
    let length = match source {
        Source::DataFile(source) => source.row_counts().ok(),
        Source::Cluster(_) => None,
    };
    let counts = length.map(|(events, accounts)| Counts::Things(events + accounts));
    progress::bar(counts.unwrap_or(Counts::Unknown))
}

/// An export under way.
struct Export {
    sink: Sink,
    bar: ProgressBar,
    stop: Stop,
    /// Nobody reads any more.
    is_gone: bool,
}

impl Export {
    fn run(&mut self, source: &mut Source, what: What, at: Moment) -> Result<(), End> {
        let result = match source {
            Source::DataFile(source) => {
                self.offline(source, what, at.timestamp(u64::MAX)).map(|()| true)
            }
            Source::Cluster(source) => self.online(source, what, at),
        };
        match result {
            Err(_) if self.is_gone => Err(End::ReaderGone),
            Err(_) | Ok(false) if self.stop.is_wanted() => Err(End::Stopped),
            Err(failure) => Err(failure.into()),
            Ok(is_complete) => {
                assert!(is_complete, "only who shall stop does so early");
                Ok(())
            }
        }
    }

    fn offline(
        &mut self,
        source: &mut DataFileSource,
        what: What,
        last: u64,
    ) -> Result<(), Failure> {
        if what == What::Transfers {
            self.bar.set_prefix("transfers");
            return source.transfers(&mut |transfer| {
                let is_wanted = transfer.timestamp <= last;
                if is_wanted { self.push(transfer.as_bytes()) } else { self.step() }
            });
        }
        let mut newest = BalancesAt::new();
        if what == What::Balances {
            self.bar.set_prefix("events");
            source.events(&mut |event| {
                if event.transfer.timestamp <= last {
                    newest.add(sides_of_rows(&event.transfer, &event.balances));
                }
                self.step()
            })?;
        }
        self.bar.set_prefix("accounts");
        source.accounts(&mut |account| match (account.timestamp <= last, what) {
            (true, What::Accounts) => self.push(unchanging(account).as_bytes()),
            (true, _) => {
                let row = newest.row(account).unwrap_or(BalanceAt::of_new(account));
                self.push(row.as_bytes())
            }
            (false, _) => self.step(),
        })
    }

    /// Whether it came to the end.
    fn online(
        &mut self,
        source: &mut ClusterSource,
        what: What,
        at: Moment,
    ) -> Result<bool, Failure> {
        let Some(now) = source.now()? else { return Ok(false) };
        let last = at.timestamp(now).min(now);
        if what == What::Transfers {
            self.bar.set_prefix("transfers");
            return source.transfers(last, &mut |transfer| self.push(transfer.as_bytes()));
        }
        let mut newest = BalancesAt::new();
        if what == What::Balances {
            self.bar.set_prefix("events");
            let is_complete = source.events(1, last, &mut |event| {
                newest.add(sides_of_event(event));
                self.step()
            })?;
            if !is_complete {
                return Ok(false);
            }
        }
        self.bar.set_prefix("accounts");
        let mut next = 1;
        loop {
            let Some(accounts) = source.accounts(next, last)? else { return Ok(false) };
            let Some(newest_account) = accounts.last() else { return Ok(true) };
            next = newest_account.timestamp + 1;
            for account in &accounts {
                if what == What::Accounts {
                    self.push(unchanging(account).as_bytes())?;
                } else if let Some(row) = newest.row(account) {
                    self.push(row.as_bytes())?;
                } else {
                    let row = source.before_first_event(account)?;
                    let Some(row) = row else { return Ok(false) };
                    self.push(row.as_bytes())?;
                }
            }
        }
    }

    fn push(&mut self, row: &[u8]) -> Result<(), Failure> {
        match self.sink.push(row) {
            Ok(()) => self.step(),
            Err(SinkError::Failed(text)) => Err(cannot_write(&text)),
            Err(SinkError::ReaderGone) => {
                self.is_gone = true;
                Err(cannot_write("nobody reads them"))
            }
        }
    }

    /// One record more was looked at.
    fn step(&mut self) -> Result<(), Failure> {
        self.bar.inc(1);
        if self.stop.is_wanted() {
            return Err(Failure::new(ExitClass::Error, "interrupted"));
        }
        Ok(())
    }
}
