//! `florin cdc`: what changes, as lines of JSON on standard output, for as long as it is wanted.
//!
//! Every event comes at least once and in the order of timestamps. Whoever reads may stop reading,
//! and whoever runs it may end it, at any time: it goes on where it was, from a timestamp or from a
//! file that is written after the events were handed over. Not covered: other formats and
//! destinations; a pipe leads to them.

pub mod cursor;

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use zerocopy::{FromZeros, IntoBytes};

use super::exit::{ExitClass, Failure};
use super::moment::Moment;
use super::patient::{PatientClient, Stop};
use crate::client::resolve_addresses;
use crate::client::system::{pollfd, wait_ready};
use crate::protocol::Operation;
use crate::protocol::types::{
    ChangeEvent, ChangeEventsFilter, QueryFilter, TIMESTAMP_MAX, Transfer, change_event_type,
};
use crate::repl::json;
use crate::repl::schema::CHANGE_EVENT;
use cursor::{CursorFile, Position};

/// Shortest pause when there is nothing new; doubles each time.
const IDLE_MIN: Duration = Duration::from_millis(10);
/// Bytes of lines that are kept together.
const LINES_SIZE: usize = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  florin cdc
      everything that ever happened in what `florin dev` serves, and what happens from now on
  florin cdc --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 --cluster=7 \\
      --cursor=/var/lib/books/cursor | kafka-console-producer --topic books ...
      goes on after the last event that was handed over, each time it is started
  florin cdc --from=2026-11-01T00:00:00Z --until=now | jq 'select(.ledger == 700)'
      what there is since then, and no more

An event is a line: a JSON object with the fields of get_change_events in `florin repl`. Numbers \
of 64 and 128 bits are strings. `type` is single_phase, two_phase_pending, two_phase_posted, \
two_phase_voided or two_phase_expired; balances are those right after the event.

Events may come again after a restart, never out of order and never not at all: take `timestamp` \
and `type` to know one that came already. An imported transfer can be older than an expiry that \
was read before, and comes after it then. TIME is in nanoseconds since 1970, or like \
2026-11-26T18:30:00Z.

Ends with exit code 0 on SIGINT or SIGTERM, when its reader has gone, and at --until.";

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object on each line.
    Jsonl,
}

/// Options of `florin cdc`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CdcArguments {
    /// Id of the cluster
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub cluster: u128,
    /// All replicas of the cluster, in order; host names are resolved
    #[arg(long, value_name = "LIST", default_value = "3000")]
    pub addresses: String,
    /// How events are written
    #[arg(long, value_enum, default_value = "jsonl")]
    pub format: Format,
    /// Begin with events of this moment; all there are if not given
    #[arg(long, value_name = "TIME")]
    pub from: Option<Moment>,
    /// End after events of this moment, `now` for the present, instead of following
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// Follow what happens until interrupted; this is so unless --until is given
    #[arg(long, conflicts_with = "until")]
    pub follow: bool,
    /// Remember in this file what was written, and go on after it when it exists
    #[arg(long, value_name = "FILE")]
    pub cursor: Option<PathBuf>,
    /// The longest pause between questions while nothing happens, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub idle: u64,
    /// Give up after so many seconds without an answer; 30 for the first one if not given
    #[arg(long, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline: Option<u64>,
}

/// Writes events until it shall stop.
///
/// # Errors
///
/// If an address or the cursor is none, the cluster cannot be reached or refuses the client, or the
/// events cannot be written.
pub fn run(arguments: &CdcArguments) -> Result<(), Failure> {
    let addresses = resolve_addresses(&arguments.addresses)
        .map_err(|error| Failure::new(ExitClass::Usage, error.to_string()))?;
    let stop = Stop::on_signals()?;
    let deadline = arguments.deadline.map(Duration::from_secs);
    let client = PatientClient::new(arguments.cluster, addresses, deadline, stop.clone());
    let cursor = arguments.cursor.as_ref().map(|path| CursorFile::new(path, arguments.cluster));
    let remembered = cursor.as_ref().map(CursorFile::read).transpose()?.flatten();
    let mut stream = Stream {
        client,
        stop,
        until: arguments.until,
        position: Position::before(1),
        now: 0,
        idle_max: Duration::from_millis(arguments.idle),
    };
    stream.begin(arguments.from, remembered)?;
    let mut output = Output { lines: String::with_capacity(LINES_SIZE), cursor };
    match stream.run(&mut output) {
        Err(End::Failure(failure)) => Err(failure),
        Err(End::ReaderGone) | Ok(()) => Ok(()),
    }
}

/// Why the stream ends before it is wanted to.
#[derive(Debug)]
enum End {
    Failure(Failure),
    /// Nobody reads what is written.
    ReaderGone,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        End::Failure(failure)
    }
}

/// The stream. See the module.
struct Stream {
    client: PatientClient,
    stop: Stop,
    until: Option<Moment>,
    position: Position,
    /// The cluster's time when it answered last.
    now: u64,
    idle_max: Duration,
}

impl Stream {
    /// Finds where to begin and, if that is the present, where to end.
    fn begin(&mut self, from: Option<Moment>, remembered: Option<Position>) -> Result<(), Failure> {
        let is_relative = from == Some(Moment::Now) || self.until == Some(Moment::Now);
        if is_relative {
            let filter = filter(1, 1);
            let Some(answered) = self.client.change_events(&filter)? else { return Ok(()) };
            self.now = answered.timestamp;
            self.until = self.until.map(|until| Moment::At(until.timestamp(answered.timestamp)));
        }
        self.position = match (remembered, from) {
            (Some(position), _) => position,
            (None, Some(from)) => Position::before(from.timestamp(self.now)),
            (None, None) => Position::before(1),
        };
        Ok(())
    }

    /// The last timestamp that is wanted.
    fn last(&self) -> u64 {
        self.until.map_or(TIMESTAMP_MAX, |until| until.timestamp(self.now))
    }

    fn run(&mut self, output: &mut Output) -> Result<(), End> {
        let last = self.last();
        let mut idle = IDLE_MIN;
        while !self.stop.is_wanted() && self.position.event < last {
            let Some(events) = self.next(last)? else { break };
            if events.is_empty() {
                // Nothing older than the answer can be added any more.
                if self.now > last {
                    break;
                }
                rest(idle)?;
                idle = (idle * 2).min(self.idle_max);
                continue;
            }
            idle = IDLE_MIN;
            output.write(&events, self.position)?;
        }
        Ok(())
    }

    /// The next events, if there are some already; none if it shall stop.
    fn next(&mut self, last: u64) -> Result<Option<Vec<ChangeEvent>>, Failure> {
        let before = self.position;
        let page = self.client.change_events(&filter(before.event + 1, last))?;
        let Some(page) = page else { return Ok(None) };
        // After the page: what came late was there before any newer transfer.
        let Some(mut events) = self.late(before)? else { return Ok(None) };
        events.extend(page.results);
        for event in &events {
            self.position.event = self.position.event.max(event.timestamp);
            if event.type_ != change_event_type::TWO_PHASE_EXPIRED {
                self.position.transfer = self.position.transfer.max(event.timestamp);
            }
        }
        self.now = page.timestamp;
        Ok(Some(events))
    }

    /// Transfers that came after expiries with a later timestamp.
    fn late(&mut self, before: Position) -> Result<Option<Vec<ChangeEvent>>, Failure> {
        let mut late = Vec::new();
        if before.transfer == before.event {
            return Ok(Some(late));
        }
        let query = QueryFilter {
            timestamp_min: before.transfer + 1,
            timestamp_max: before.event,
            limit: Operation::QueryTransfers.results_max(),
            ..QueryFilter::new_zeroed()
        };
        let found = self.client.ask::<_, Transfer>(Operation::QueryTransfers, &[query])?;
        let Some(found) = found else { return Ok(None) };
        for transfer in found.results {
            let one = filter(transfer.timestamp, transfer.timestamp);
            let Some(events) = self.client.change_events(&one)? else { return Ok(None) };
            let is_transfer =
                |event: &ChangeEvent| event.type_ != change_event_type::TWO_PHASE_EXPIRED;
            late.extend(events.results.into_iter().filter(is_transfer));
        }
        Ok(Some(late))
    }
}

/// All events of a range.
fn filter(timestamp_min: u64, timestamp_max: u64) -> ChangeEventsFilter {
    assert!(timestamp_min <= timestamp_max);
    let limit = Operation::GetChangeEvents.results_max();
    ChangeEventsFilter { timestamp_min, timestamp_max, limit, ..ChangeEventsFilter::new_zeroed() }
}

/// Where events go.
struct Output {
    lines: String,
    cursor: Option<CursorFile>,
}

impl Output {
    /// Hands over events, and then remembers that it did.
    fn write(&mut self, events: &[ChangeEvent], position: Position) -> Result<(), End> {
        self.lines.clear();
        for event in events {
            json::push_object(&mut self.lines, &CHANGE_EVENT, event.as_bytes());
            self.lines.push('\n');
        }
        let mut output = io::stdout().lock();
        match output.write_all(self.lines.as_bytes()).and_then(|()| output.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(End::ReaderGone),
            Err(error) => {
                let message = format!("the events cannot be written: {error}");
                return Err(Failure::new(ExitClass::Error, message).into());
            }
            Ok(()) => {}
        }
        if let Some(cursor) = &self.cursor {
            sync(&output)?;
            cursor.write(position)?;
        }
        Ok(())
    }
}

/// Waits, but not for somebody who does not read any more.
fn rest(pause: Duration) -> Result<(), End> {
    let mut descriptors = [pollfd { fd: io::stdout().as_raw_fd(), events: 0, revents: 0 }];
    let ready = wait_ready(&mut descriptors, pause).map_err(|error| {
        Failure::new(ExitClass::Error, format!("the output cannot be waited for: {error}"))
    })?;
    if ready > 0 { Err(End::ReaderGone) } else { Ok(()) }
}

/// Makes a file that the events go to durable before the cursor says that they are there.
fn sync(output: &impl AsFd) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(ExitClass::Error, format!("the events cannot be made durable: {error}"))
    };
    let file = std::fs::File::from(output.as_fd().try_clone_to_owned().map_err(failed)?);
    let is_file = file.metadata().map_err(failed)?.is_file();
    if is_file { file.sync_data().map_err(failed) } else { Ok(()) }
}
