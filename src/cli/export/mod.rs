//! `florin export`: accounts, transfers or balances at a moment, as a file for other programs.
//!
//! The rows come from a data file that is not in use, or from a live cluster. `source.rs` is the
//! interface of both; `offline.rs` (with `replay.rs`) and `online.rs` implement it. `event.rs`
//! defines events and which of them belong to a moment, `balances.rs` derives balances from events,
//! `records.rs` defines the rows, `sink.rs` and `columns.rs` write them.

pub mod balances;
pub mod columns;
pub mod event;
pub mod offline;
pub mod online;
pub mod records;
pub mod replay;
pub mod sink;
pub mod source;

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use zerocopy::IntoBytes;

use super::destination::Destination;
use super::exit::{ExitClass, Failure};
use super::moment::{Moment, TIME_HELP};
use super::output::{JsonArgument, print_error};
use super::patient::Stop;
use super::progress::{self, Counts};
use crate::repl::schema::Record;
use balances::BalancesAt;
use columns::DECIMAL_DIGITS;
use event::Extent;
use records::{ACCOUNT_CREATED, BALANCE_AT, BalanceAt, TRANSFER_MOVED, TransferMoved};
use sink::{Format, Sink, SinkError};
use source::{Source, SourceArguments};

const EXAMPLES: &str = "\
Examples:
  florin export --addresses=3000 --what=balances
      the balances of all accounts now, as csv on standard output
  florin export --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 --cluster=7 \\
      --what=transfers --at=2026-11-01 --format=parquet --output=october.parquet
      all transfers until then, for an SQL engine
  florin export 0_0.florin --what=accounts --format=jsonl --output=accounts.jsonl
      from a data file whose server is stopped, without changing it

Rows are in the order of their timestamps. Rows of `accounts` have the fields that never change: \
flags without `closed`, no balances. Rows of `balances`, one for each account, have its flags and \
the time of its last event at or before --at. Rows of `transfers` have a column `posted_amount`, \
the money that moved: 0 for a pending transfer and for one that voids another. Sum that column: \
`amount` counts money twice that was reserved and then posted.

An --output file appears when it is complete. Devices and FIFOs are written into, and symbolic \
links are followed; directories and data files are refused.

Numbers of 64 and 128 bits are strings in jsonl. In parquet, amounts and balances are DECIMAL(38, \
0), and null if they have 39 digits; other 128-bit numbers are 16 bytes, big-endian. Each of them \
also has a text column with its decimal digits: WHERE id_text = '100'. Timestamps have \
nanoseconds. Flags are names, separated by |.";

fn after_help() -> String {
    format!("{EXAMPLES}\n\n{TIME_HELP}")
}

/// The kinds of rows.
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
            What::Transfers => &TRANSFER_MOVED,
            What::Balances => &BALANCE_AT,
        }
    }
}

/// Options of `florin export`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = after_help())]
pub struct ExportArguments {
    /// The source
    #[command(flatten)]
    pub source: SourceArguments,
    /// Kind of rows to export
    #[arg(long, value_enum, default_value = "balances")]
    pub what: What,
    /// Export the state at this moment
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    pub at: Moment,
    /// Format of the rows
    #[arg(long, value_enum, default_value = "csv")]
    pub format: Format,
    /// Earlier spelling of `--format=json`
    #[command(flatten)]
    pub json: JsonArgument,
    /// File to write; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

/// The reasons for an export to end early.
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
/// If the source cannot be read or the output cannot be written. Then no new file is left.
pub fn run(arguments: &ExportArguments) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    // First: reading may take hours, and is useless if the output cannot be written.
    let destination = Destination::open("--output", &arguments.output, &stop)?;
    let format = if arguments.json.is_given() { Format::Jsonl } else { arguments.format };
    let sink = Sink::new(destination, format, arguments.what.record(), &stop)?;
    let mut source = arguments.source.open(&stop)?;
    let mut export = Export { sink, bar: progress_bar(&source), stop, is_gone: false };
    let result = export.run(&mut source, arguments.what, arguments.at);
    export.bar.finish_and_clear();
    let (count, wide_count) = (export.sink.count, export.sink.wide_count());
    match result {
        Ok(()) => match export.sink.finish() {
            Ok(()) => {
                report(arguments, count, wide_count);
                Ok(())
            }
            Err(SinkError::ReaderGone) => Ok(()),
            Err(SinkError::Failed(_)) if export.stop.is_wanted() => Err(interrupted()),
            Err(SinkError::Failed(text)) => Err(cannot_write(&text)),
        },
        Err(end) => {
            export.sink.abandon();
            match end {
                End::Failure(failure) => Err(failure),
                End::ReaderGone => Ok(()),
                End::Stopped => Err(interrupted()),
            }
        }
    }
}

/// Reports the number of rows, and notes why there may be fewer numbers than expected.
fn report(arguments: &ExportArguments, count: u64, wide_count: u64) {
    let (what, at) = (arguments.what.record().plural, arguments.at);
    if arguments.output != Path::new("-") {
        print_error(&format!("{count} {what} written to {}", arguments.output.display()));
    }
    if count == 0 && at != Moment::Now {
        print_error(&format!("note: there were no {what} at or before {at}"));
    }
    if wide_count > 0 {
        print_error(&format!(
            "note: {wide_count} amounts or balances have more than {DECIMAL_DIGITS} digits: they \
             are null in the columns of decimals, and whole in those with names like amount_text"
        ));
    }
}

fn interrupted() -> Failure {
    Failure::new(ExitClass::Error, "interrupted: nothing was written")
}

fn cannot_write(text: &str) -> Failure {
    Failure::new(ExitClass::Error, format!("the rows cannot be written: {text}"))
}

/// Returns a bar if the number of records is known, else a counter.
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
    /// Whether the reader of the output has ended.
    is_gone: bool,
}

impl Export {
    fn run(&mut self, source: &mut Source, what: What, at: Moment) -> Result<(), End> {
        match source.extent(at).and_then(|extent| self.rows(source, what, &extent)) {
            Err(_) if self.is_gone => Err(End::ReaderGone),
            Err(_) if self.stop.is_wanted() => Err(End::Stopped),
            Err(failure) => Err(failure.into()),
            Ok(()) => Ok(()),
        }
    }

    fn rows(&mut self, source: &mut Source, what: What, extent: &Extent) -> Result<(), Failure> {
        if what == What::Transfers {
            self.bar.set_prefix("transfers");
            return source.transfers(extent, &mut |transfer| {
                let is_wanted = transfer.timestamp <= extent.last;
                if is_wanted {
                    self.push(TransferMoved::new(transfer).as_bytes())
                } else {
                    self.step()
                }
            });
        }
        let mut balances = BalancesAt::new();
        if what == What::Balances {
            self.bar.set_prefix("events");
            source.events(extent, &mut |event| {
                if extent.has(event) {
                    balances.add(event)?;
                }
                self.step()
            })?;
        }
        self.bar.set_prefix("accounts");
        source.accounts(extent, &mut |account, creation| {
            if !extent.has_account(account) {
                return self.step();
            }
            if what == What::Accounts {
                return self.push(account.created().as_bytes());
            }
            let row = match balances.row(account)? {
                Some(row) => row,
                None => BalanceAt::of_new(&creation(account)?),
            };
            self.push(row.as_bytes())
        })
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

    /// Counts a record that was read; fails if the user wants the export to end.
    fn step(&mut self) -> Result<(), Failure> {
        self.bar.inc(1);
        if self.stop.is_wanted() {
            return Err(Failure::new(ExitClass::Error, "interrupted"));
        }
        Ok(())
    }
}
