//! Formats rows and writes them to a destination.
//!
//! Nothing is written before the first row. A file appears when it is complete
//! ([`destination`](crate::cli::destination)); other destinations get a MiB of rows at a time, so
//! that an export that fails early leaves them empty.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::mem::forget;

use parquet::errors::ParquetError;

use super::columns::ParquetRows;
use crate::cli::destination::Destination;
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::output::StoppableOutput;
use crate::cli::patient::Stop;
use crate::repl::answer::field_text;
use crate::repl::json;
use crate::repl::schema::Record;

/// Formats of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line with names, then a line for each row.
    Csv,
    /// One JSON object on each line.
    #[value(alias = "json")]
    Jsonl,
    /// Apache Parquet: for SQL engines and data frames.
    Parquet,
}

/// What rows are written to.
type Writer = BufWriter<StoppableOutput>;

/// The writer of each format.
enum Rows {
    Csv(Box<csv::Writer<Writer>>),
    Jsonl(Writer, String),
    Parquet(Box<ParquetRows<Writer>>),
}

/// Writes rows of one record. See the module.
pub struct Sink {
    record: &'static Record,
    rows: Rows,
    destination: Destination,
    /// Number of rows so far.
    pub count: u64,
}

/// The reasons for a row not to be written.
#[derive(Debug, PartialEq, Eq)]
pub enum SinkError {
    /// The reader of the output has ended.
    ReaderGone,
    /// Any other reason, as text.
    Failed(String),
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> SinkError {
        match error.kind() {
            ErrorKind::BrokenPipe => SinkError::ReaderGone,
            _ => SinkError::Failed(error.to_string()),
        }
    }
}

impl Sink {
    /// Prepares to write to a destination.
    ///
    /// # Errors
    ///
    /// If bytes would go to a terminal, or standard output is not open for writing.
    pub fn new(
        mut destination: Destination,
        format: Format,
        record: &'static Record,
        stop: &Stop,
    ) -> Result<Sink, Failure> {
        if destination.is_stdout() && format == Format::Parquet && io::stdout().is_terminal() {
            let message = "parquet is not for a terminal: name a file with --output=FILE";
            return Err(Failure::new(ExitClass::Usage, message));
        }
        let writer = BufWriter::with_capacity(1 << 20, destination.writer(stop)?);
        let rows = match format {
            Format::Csv => Rows::Csv(Box::new(csv::Writer::from_writer(writer))),
            Format::Jsonl => Rows::Jsonl(writer, String::new()),
            Format::Parquet => {
                let rows = ParquetRows::new(writer, record).map_err(|error| {
                    Failure::new(ExitClass::Error, format!("the rows cannot be written: {error}"))
                })?;
                Rows::Parquet(Box::new(rows))
            }
        };
        Ok(Sink { record, rows, destination, count: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn push(&mut self, row: &[u8]) -> Result<(), SinkError> {
        if self.count == 0 {
            self.write_names()?;
        }
        self.count += 1;
        match &mut self.rows {
            Rows::Csv(rows) => {
                let texts = self.record.fields.iter().map(|field| field_text(field, row));
                rows.write_record(texts).map_err(csv_error)
            }
            Rows::Jsonl(output, line) => {
                line.clear();
                json::push_object(line, self.record, row);
                line.push('\n');
                Ok(output.write_all(line.as_bytes())?)
            }
            Rows::Parquet(rows) => rows.push(row).map_err(|error| parquet_error(&error)),
        }
    }

    /// Writes the line of names that csv begins with.
    fn write_names(&mut self) -> Result<(), SinkError> {
        if let Rows::Csv(rows) = &mut self.rows {
            let names = self.record.fields.iter().map(|field| field.name);
            rows.write_record(names).map_err(csv_error)?;
        }
        Ok(())
    }

    /// Returns the number of amounts and balances that do not fit a column of decimals.
    #[must_use]
    pub fn wide_count(&self) -> u64 {
        match &self.rows {
            Rows::Parquet(rows) => rows.wide_count,
            _ => 0,
        }
    }

    /// Writes the rest, and gives a file its name.
    ///
    /// # Errors
    ///
    /// If the rest cannot be written.
    pub fn finish(mut self) -> Result<(), SinkError> {
        if self.count == 0 {
            self.write_names()?;
        }
        let mut writer = match self.rows {
            Rows::Csv(rows) => rows.into_inner().map_err(|error| {
                let error = error.error();
                io::Error::new(error.kind(), error.to_string())
            })?,
            Rows::Jsonl(output, _) => output,
            Rows::Parquet(rows) => rows.finish().map_err(|error| parquet_error(&error))?,
        };
        writer.flush()?;
        drop(writer);
        Ok(self.destination.complete()?)
    }

    /// Discards the rows that were not written yet.
    pub fn abandon(self) {
        // Dropped buffers would write themselves. The process is about to end.
        forget(self.rows);
    }
}

fn parquet_error(error: &ParquetError) -> SinkError {
    let is_gone = match error {
        ParquetError::External(cause) => cause
            .downcast_ref::<io::Error>()
            .is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe),
        _ => false,
    };
    if is_gone { SinkError::ReaderGone } else { SinkError::Failed(error.to_string()) }
}

fn csv_error(error: csv::Error) -> SinkError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => SinkError::Failed(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::export::records::{BALANCE_AT, BalanceAt};
    use std::fs;
    use std::path::PathBuf;
    use zerocopy::IntoBytes;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("florin-test-sink-{name}-{}", std::process::id()))
    }

    fn sink(path: &std::path::Path, format: Format) -> Sink {
        let destination = Destination::open("--output", path, &Stop::never()).unwrap();
        Sink::new(destination, format, &BALANCE_AT, &Stop::never()).unwrap()
    }

    /// Goal: a file appears when it is complete and not before; an abandoned one leaves nothing.
    #[test]
    fn appears_complete() {
        let path = path("csv");
        let row = BalanceAt { account_id: u128::MAX, flags: 40, ledger: 7, ..BalanceAt::default() };
        let names = "account_id,ledger,code,flags,debits_pending,debits_posted,\
             credits_pending,credits_posted,timestamp\n";
        let mut rows = sink(&path, Format::Csv);
        rows.push(row.as_bytes()).unwrap();
        assert!(!path.exists() && rows.count == 1);
        rows.finish().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let line = "340282366920938463463374607431768211455,7,0,history|closed,0,0,0,0,0\n";
        assert_eq!(text, format!("{names}{line}"));
        sink(&path, Format::Csv).finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), names, "no rows are a line of names");
        fs::remove_file(&path).unwrap();
        let mut rows = sink(&path, Format::Jsonl);
        rows.push(row.as_bytes()).unwrap();
        rows.abandon();
        assert!(!path.exists());
    }
}
