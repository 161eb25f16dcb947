//! Where rows go: a file that appears when it is complete, or standard output.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::columns::ParquetRows;
use crate::cli::exit::{ExitClass, Failure};
use crate::repl::answer::field_text;
use crate::repl::json;
use crate::repl::schema::Record;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line with names, then a line for each row.
    Csv,
    /// One JSON object on each line.
    Jsonl,
    /// Apache Parquet: for SQL engines and data frames.
    Parquet,
}

/// What rows are written to.
type Writer = BufWriter<Box<dyn Write + Send>>;

/// The formats, each with what it needs.
enum Rows {
    Csv(Box<csv::Writer<Writer>>),
    Jsonl(Writer, String),
    Parquet(Box<ParquetRows<Writer>>),
}

/// Where rows go. See the module.
pub struct Sink {
    record: &'static Record,
    rows: Rows,
    /// The file that is being written, and its name when it is complete.
    file: Option<(PathBuf, PathBuf)>,
    /// Rows so far.
    pub count: u64,
}

/// Why a row could not be written.
#[derive(Debug, PartialEq, Eq)]
pub enum SinkError {
    /// Nobody reads any more.
    ReaderGone,
    /// Anything else, in words.
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
    /// Begins to write; to standard output if the path is `-`.
    ///
    /// # Errors
    ///
    /// If the file cannot be made, or bytes would go to a terminal.
    pub fn new(path: &Path, format: Format, record: &'static Record) -> Result<Sink, Failure> {
        let is_stdout = path == Path::new("-");
        if is_stdout && format == Format::Parquet && io::stdout().is_terminal() {
            let message = "parquet is not for a terminal: name a file with --output=FILE";
            return Err(Failure::new(ExitClass::Usage, message));
        }
        let cannot = |error: &dyn std::fmt::Display| {
            let path = path.display();
            Failure::new(ExitClass::Error, format!("--output: {path} cannot be written: {error}"))
        };
        let (output, file): (Box<dyn Write + Send>, _) = if is_stdout {
            (Box::new(io::stdout()), None)
        } else {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}.part", std::process::id()));
            let part = PathBuf::from(name);
            let output = File::create(&part).map_err(|error| cannot(&error))?;
            (Box::new(output), Some((part, path.to_owned())))
        };
        let writer = BufWriter::with_capacity(1 << 20, output);
        let rows = match format {
            Format::Csv => {
                let mut rows = csv::Writer::from_writer(writer);
                let names = record.fields.iter().map(|field| field.name);
                rows.write_record(names).map_err(|error| cannot(&error))?;
                Rows::Csv(Box::new(rows))
            }
            Format::Jsonl => Rows::Jsonl(writer, String::new()),
            Format::Parquet => {
                let rows = ParquetRows::new(writer, record).map_err(|error| cannot(&error))?;
                Rows::Parquet(Box::new(rows))
            }
        };
        Ok(Sink { record, rows, file, count: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn push(&mut self, row: &[u8]) -> Result<(), SinkError> {
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
            Rows::Parquet(rows) => rows.push(row).map_err(SinkError::Failed),
        }
    }

    /// Ends: a file gets its name now.
    ///
    /// # Errors
    ///
    /// If the rest cannot be written.
    pub fn finish(mut self) -> Result<(), SinkError> {
        let file = self.file.take();
        let result = self.end(file.as_ref().map(|(part, _)| part.as_path()));
        let Some((part, path)) = file else { return result };
        let result = result.and_then(|()| Ok(fs::rename(&part, path)?));
        if result.is_err() {
            let _ = fs::remove_file(&part);
        }
        result
    }

    fn end(self, part: Option<&Path>) -> Result<(), SinkError> {
        let failed = |error: &dyn std::fmt::Display| SinkError::Failed(error.to_string());
        let mut writer = match self.rows {
            Rows::Csv(rows) => rows.into_inner().map_err(|error| failed(&error.error()))?,
            Rows::Jsonl(output, _) => output,
            Rows::Parquet(rows) => rows.finish().map_err(|error| failed(&error))?,
        };
        writer.flush()?;
        match part {
            Some(part) => Ok(File::open(part)?.sync_data()?),
            None => Ok(()),
        }
    }

    /// Gives up: nothing is left of a file that was not completed.
    pub fn abandon(self) {
        if let Some((part, _)) = &self.file {
            let _ = fs::remove_file(part);
        }
    }
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
    use zerocopy::IntoBytes;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("florin-test-sink-{name}-{}", std::process::id()))
    }

    /// Goal: a file appears when it is complete and not before, and nothing is left of others.
    #[test]
    fn appears_complete() {
        let path = path("csv");
        let row = BalanceAt { account_id: u128::MAX, flags: 40, ledger: 7, ..BalanceAt::default() };
        let mut sink = Sink::new(&path, Format::Csv, &BALANCE_AT).unwrap();
        sink.push(row.as_bytes()).unwrap();
        assert!(!path.exists() && sink.count == 1);
        sink.finish().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let expected = "account_id,ledger,code,flags,debits_pending,debits_posted,\
             credits_pending,credits_posted,timestamp\n\
             340282366920938463463374607431768211455,7,0,history|closed,0,0,0,0,0\n";
        assert_eq!(text, expected);
        fs::remove_file(&path).unwrap();
        let sink = Sink::new(&path, Format::Jsonl, &BALANCE_AT).unwrap();
        let part = sink.file.as_ref().unwrap().0.clone();
        assert!(part.exists());
        sink.abandon();
        assert!(!part.exists() && !path.exists());
    }

    /// Goal: a place that is none is named.
    #[test]
    fn no_such_place() {
        let path = path("none").join("nothing.csv");
        let Err(failure) = Sink::new(&path, Format::Csv, &BALANCE_AT) else { panic!("made") };
        assert!(failure.message.contains("nothing.csv cannot be written"), "{failure}");
    }
}
