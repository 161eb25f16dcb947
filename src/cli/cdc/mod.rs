//! `florin cdc`: the change stream, as lines of JSON on standard output.
//!
//! Each event comes at least once. The stream may be ended, killed and started again at any time:
//! it continues after the last event that its cursor records as delivered. Its parts: [`stream`]
//! reads events without missing any, [`selection`] selects them, [`lines`] formats one as JSON,
//! [`delivery`] hands them over, [`cursor`] stores the [`position`]. Not covered: other formats and
//! destinations; a pipe leads to them.

pub mod cursor;
pub mod delivery;
pub mod lines;
pub mod position;
pub mod selection;
pub mod stream;

use std::path::PathBuf;
use std::time::Duration;

use super::account_id::parse_account_id;
use super::environment::ClusterArguments;
use super::exit::{ExitClass, Failure};
use super::moment::{Moment, Rfc3339, TIME_HELP};
use super::output::{JsonArgument, Output, print_error};
use super::patient::{PatientClient, Stop};
use cursor::CursorFile;
use delivery::{Delivery, End};
use position::{Mark, Position};
use selection::{Selection, What};
use stream::Stream;

/// Minimum pause after a round without events; doubles with each such round.
const IDLE_MIN: Duration = Duration::from_millis(10);

const EXAMPLES: &str = "\
Examples:
  florin cdc
      print all events in the ledger of `florin dev`, and follow
  florin cdc --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 --cluster=7 \\
      --cursor=/var/lib/books/cursor | kafka-console-producer --topic books ...
      continue after the last event that was delivered, each time it is started
  florin cdc --from=2026-11-01T00:00:00Z --until=now --ledger=700
      print the events of ledger 700 since then, and end
  florin cdc --what=all --account=1001,1002 --from=now
      print the events of two accounts from now on, including their creation

Events:
  Each line is a JSON object with the fields of get_change_events in `florin repl`. Numbers of 64 \
and 128 bits are strings. `type` is single_phase, two_phase_pending, two_phase_posted, \
two_phase_voided or two_phase_expired; the balances are those right after the event. With \
--what=accounts or all, `type` may be account_created: such a line has the fields of an account \
without its balances and without the flag `closed`.

Order:
  Events come in the order of `timestamp`. An imported record can be older than an event that was \
printed before; it comes as soon as it is found, in the order of the imported timestamps, and its \
line ends with \"late\":true. No event is left out. An event can come again after a restart: \
`timestamp` and `type` identify it.

Delivery:
  The cursor moves past an event when it is delivered. By default, this is when the kernel has \
accepted its line. If standard output is a pipe, the reader may end before it has read the line; \
the line is then lost. With --ack=stdin, an event is delivered when the reader writes its \
`timestamp` on a line to the standard input of cdc; this covers all events before it. A reader \
that acknowledges only stored events loses none, whenever either side is killed. An expiry and \
an imported record may have the same timestamp: acknowledge each of them. End of standard input \
ends the stream.

Cursor:
  The cursor belongs to one cluster, one ledger history and one selection of events, and is locked \
while cdc runs: FILE.lock stays beside it. It is written durably, FILE.new takes its place. \
Remove it to start over.";

const EXIT_CODES: &str = "\
Exit codes:
  0   --until was reached, SIGINT or SIGTERM came, the reader closed its end, or standard input \
ended
  1   the events or the cursor cannot be read or written, or an acknowledgement is wrong
  2   the command line is wrong, or the cursor is that of another cluster or selection
  3   the cursor is in use by another process
  6   the cluster's answers contradict each other
  7   the cluster did not answer in time, or refused the client
  11  the ledger does not have the event after which the cursor continues: an older copy was \
restored, or it is another ledger";

fn after_help() -> String {
    format!("{EXAMPLES}\n\nMoments:\n  {TIME_HELP}\n\n{EXIT_CODES}")
}

/// Formats of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object on each line.
    #[value(alias = "json")]
    Jsonl,
}

/// Where acknowledgements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Acknowledgements {
    /// Lines of standard input.
    Stdin,
}

/// Options of `florin cdc`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = after_help())]
pub struct CdcArguments {
    /// Cluster to connect to
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Format of the events
    #[arg(long, value_enum, default_value = "jsonl")]
    pub format: Format,
    /// Earlier spelling of `--format=json`
    #[command(flatten)]
    pub json: JsonArgument,
    /// Kinds of events
    #[arg(long, value_enum, value_delimiter = ',', default_value = "transfers")]
    pub what: Vec<What>,
    /// Print only events of these ledgers
    #[arg(long, value_name = "LEDGER", value_delimiter = ',')]
    pub ledger: Vec<u32>,
    /// Print only events with these codes: of the transfer, or of the account that was created
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub code: Vec<u16>,
    /// Print only events of these accounts, on either side of a transfer; ids are decimal or
    /// hexadecimal
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = parse_account_id)]
    pub account: Vec<u128>,
    /// Begin with events of this moment [default: the first event]; `now` also begins before
    /// records that are imported from now on with older timestamps
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<Moment>,
    /// End after events of this moment instead of following; `now` is the present
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<Moment>,
    /// Follow until interrupted [default, unless --until is given]
    #[arg(long, conflicts_with = "until")]
    pub follow: bool,
    /// Store the position of the last delivered event in this file; continue there if it exists
    #[arg(long, value_name = "FILE")]
    pub cursor: Option<PathBuf>,
    /// Move the cursor only past events that the reader acknowledges: it writes the timestamp of
    /// the last event that it has processed, on a line, to the standard input of cdc
    #[arg(long, value_enum, value_name = "stdin", requires = "cursor")]
    pub ack: Option<Acknowledgements>,
    /// Maximum number of events that are printed and not acknowledged
    #[arg(long, value_name = "COUNT", default_value_t = 8192, requires = "ack",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub ack_window: u32,
    /// Maximum pause between two queries while no event comes, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub idle: u64,
    /// Timeout for an answer of the cluster, in seconds [default: 30 for the first answer, no limit
    /// afterwards]
    #[arg(long, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub deadline: Option<u64>,
}

/// Prints events until the stream ends.
///
/// # Errors
///
/// If an address or the cursor is wrong, the cluster cannot be reached or refuses the client, its
/// history is not the cursor's, or the events cannot be written.
///
/// # Panics
///
/// Never: the window is small.
pub fn run(arguments: &CdcArguments) -> Result<(), Failure> {
    let cluster = arguments.cluster.cluster;
    let deadline = arguments.deadline.map(Duration::from_secs);
    let addresses = arguments.cluster.replicas(deadline)?;
    let stop = Stop::on_signals()?;
    // First, so that nothing is read for an output that cannot be written.
    let output = Output::standard()?;
    let selection =
        Selection::of(&arguments.what).only(&arguments.ledger, &arguments.code, &arguments.account);
    let opened = arguments
        .cursor
        .as_ref()
        .map(|path| CursorFile::open(path, cluster, &selection))
        .transpose()?;
    let (cursor, remembered) = opened.map_or((None, None), |(file, at)| (Some(file), at));
    if remembered.is_some() && arguments.from.is_some() {
        print_error("--from is not used: the stream continues after its cursor");
    }
    let client = PatientClient::new(cluster, addresses, deadline, stop.clone());
    let mut stream = Stream::new(client, selection);
    let mut cursor = cursor;
    let begun = match (&mut cursor, remembered) {
        (Some(file), Some(position)) => resume(&mut stream, file, position, arguments.until)?,
        (file, _) => begin(&mut stream, file.as_mut(), arguments)?,
    };
    if !begun {
        return Ok(());
    }
    let mut delivery = Delivery::new(output, cursor, *stream.position(), stop.clone());
    if arguments.ack == Some(Acknowledgements::Stdin) {
        let window = usize::try_from(arguments.ack_window).expect("a million fits");
        delivery.acknowledge(window)?;
    }
    let idle_max = Duration::from_millis(arguments.idle);
    let followed = follow(&mut stream, &mut delivery, &stop, idle_max);
    let closed = delivery.close();
    match followed {
        Err(End::Failure(failure)) => Err(failure),
        Err(End::ReaderGone) | Ok(()) => closed,
    }
}

/// Begins a stream that has no cursor yet. False if the user wants it to end.
fn begin(
    stream: &mut Stream,
    cursor: Option<&mut CursorFile>,
    arguments: &CdcArguments,
) -> Result<bool, Failure> {
    let Some(now) = stream.time()? else { return Ok(false) };
    check_range(arguments, now)?;
    if let Some(until) = arguments.until {
        stream.limit(until.timestamp(now));
    }
    if arguments.from == Some(Moment::Now) {
        let Some(position) = stream.present()? else { return Ok(false) };
        stream.seek(position);
    } else {
        stream.seek(Position::before(arguments.from.map_or(1, |from| from.timestamp(now))));
    }
    // The begin of a stream is that of its first start, even if nothing happens before the next.
    if let Some(file) = cursor {
        file.write(stream.position())?;
    }
    Ok(true)
}

/// Refuses a range that can have no event yet, or never.
fn check_range(arguments: &CdcArguments, now: u64) -> Result<(), Failure> {
    let Some(from) = arguments.from.map(|from| from.timestamp(now)) else { return Ok(()) };
    let until = arguments.until.map(|until| until.timestamp(now));
    let message = if from > now {
        format!(
            "--from: {} is in the future (the cluster's time is {}); begin with --from=now",
            moment(from),
            moment(now),
        )
    } else if let Some(until) = until.filter(|until| from > *until) {
        format!("--from: {} is after --until, {}; exchange them", moment(from), moment(until))
    } else {
        return Ok(());
    };
    Err(Failure::new(ExitClass::Usage, message))
}

/// Continues at the position of a cursor, if the ledger's history has the events that were passed
/// there. False if the user wants it to end.
fn resume(
    stream: &mut Stream,
    file: &CursorFile,
    position: Position,
    until: Option<Moment>,
) -> Result<bool, Failure> {
    let Some(now) = stream.time()? else { return Ok(false) };
    if let Some(until) = until {
        stream.limit(until.timestamp(now));
    }
    if position.newest.timestamp > now {
        let message = format!(
            "--cursor: {} continues after {}, but the cluster's time is {}: it is the cursor of \
             another ledger, or an older copy of this one was restored on a machine with a wrong \
             clock; start over with another file",
            file.path().display(),
            moment(position.newest.timestamp),
            moment(now),
        );
        return Err(Failure::new(ExitClass::History, message));
    }
    if !check(stream, Some(file), &position)? {
        return Ok(false);
    }
    stream.seek(position);
    Ok(true)
}

/// Checks that the ledger's history has the events that were passed at a position, all in one
/// session. False if the user wants it to end.
fn check(
    stream: &mut Stream,
    file: Option<&CursorFile>,
    position: &Position,
) -> Result<bool, Failure> {
    loop {
        let session = stream.session();
        for mark in position.marks() {
            let Some(is_there) = has(stream, mark)? else { return Ok(false) };
            if !is_there {
                return other_history(stream, file, mark)?.map_or(Ok(false), Err);
            }
        }
        if stream.session() == session {
            stream.set_checked(session);
            return Ok(true);
        }
    }
}

/// Whether the ledger's history has the event of a mark; `None` if the user ends the stream.
fn has(stream: &mut Stream, mark: Mark) -> Result<Option<bool>, Failure> {
    let identity = mark.identity.expect("only marks of events are looked for");
    let found = stream.event_at(mark.timestamp, identity.kind)?;
    Ok(found.map(|event| event.is_some_and(|event| event.checksum() == identity.checksum)))
}

/// Returns the failure that reports where the histories diverge; nothing if the user wants the
/// search to end.
fn other_history(
    stream: &mut Stream,
    file: Option<&CursorFile>,
    missing: Mark,
) -> Result<Option<Failure>, Failure> {
    let Some(file) = file else {
        let message = format!(
            "the ledger is of another history: an event that was printed, of {}, is not in it. If \
             an older copy was restored, undo what was made of later events",
            moment(missing.timestamp)
        );
        return Ok(Some(Failure::new(ExitClass::History, message)));
    };
    let divergence = file.history().divergence(missing, |mark| has(stream, mark))?;
    let Some(cursor::Divergence { common, missing: oldest }) = divergence else { return Ok(None) };
    let (same, advice) = match common {
        Some(timestamp) => (
            format!("The histories are the same up to {}", moment(timestamp)),
            format!(
                "undo what was made of later events, and start over with another file and \
                 --from={}",
                timestamp + 1
            ),
        ),
        None => (
            "The cursor remembers no moment up to which the histories are the same".to_owned(),
            "undo what was made of all events, and start over with another file".to_owned(),
        ),
    };
    let message = format!(
        "--cursor: {} is of another history: the event after which it continues, of {}, is not in \
         this ledger. {same}; the oldest event that is known to be missing is of {}. If an older \
         copy was restored, {advice}",
        file.path().display(),
        moment(missing.timestamp),
        moment(oldest),
    );
    Ok(Some(Failure::new(ExitClass::History, message)))
}

/// Formats a moment in both ways in which the user can type it.
fn moment(timestamp: u64) -> String {
    format!("{} ({timestamp})", Rfc3339(timestamp))
}

/// Hands over events up to the last one of the range.
fn follow(
    stream: &mut Stream,
    delivery: &mut Delivery,
    stop: &Stop,
    idle_max: Duration,
) -> Result<(), End> {
    let mut idle = IDLE_MIN;
    while !stop.is_wanted() {
        let position = *stream.position();
        if !stream.is_checked() && !check(stream, delivery.cursor(), &position)? {
            return Ok(());
        }
        let found = match stream.round() {
            Err(failure) if failure.class == ExitClass::Corruption => {
                let is_of_one_session = stream.is_checked();
                // Another history is a more likely reason than a damaged ledger.
                if !check(stream, delivery.cursor(), &position)? {
                    return Ok(());
                }
                if is_of_one_session {
                    return Err(failure.into());
                }
                continue;
            }
            found => found?,
        };
        let Some(found) = found else { return Ok(()) };
        if !stream.is_checked() {
            // The answers may be those of another history.
            continue;
        }
        if !found.is_empty() {
            idle = IDLE_MIN;
            delivery.deliver(&found)?;
        } else if stream.is_complete() {
            return delivery.finish();
        } else {
            delivery.rest(idle)?;
            idle = (idle * 2).min(idle_max);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::patient::FIRST_DEADLINE;
    use crate::client::resolve_addresses;
    use crate::client::tests::{Act, serve};
    use crate::protocol::types::{ChangeEvent, Transfer};
    use std::fs::File;
    use zerocopy::{FromZeros, IntoBytes};

    /// An answer with one event of this timestamp.
    fn event(timestamp: u64) -> Act {
        let event = ChangeEvent { timestamp, ..ChangeEvent::new_zeroed() };
        Act::Answer(Box::leak(event.as_bytes().into()))
    }

    /// Follows a cluster that answers this way, and fails.
    fn follow_failing(script: Vec<Act>) -> Failure {
        let addresses = resolve_addresses(&serve(script).address.to_string()).unwrap();
        let stop = Stop::never();
        let client = PatientClient::new(0, addresses, Some(Duration::from_secs(30)), stop.clone());
        let mut stream = Stream::new(client, Selection::of(&[What::Transfers]));
        let output = Output::new(File::options().write(true).open("/dev/null").unwrap()).unwrap();
        let mut delivery = Delivery::new(output, None, *stream.position(), stop.clone());
        match follow(&mut stream, &mut delivery, &stop, IDLE_MIN) {
            Err(End::Failure(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    /// Goal: where answers contradict each other, another history is the reason if the ledger lacks
    /// the last event, and damage otherwise.
    #[test]
    fn contradictions() {
        // The first answer opens the session; the history is checked before it counts.
        let script = |last| vec![event(10), event(10), event(5), last];
        assert_eq!(follow_failing(script(event(10))).class, ExitClass::Corruption);
        assert_eq!(follow_failing(script(event(7))).class, ExitClass::History);
    }

    /// Goal: a cluster whose newest transfer is of the future is reported: a stream cannot begin
    /// there.
    #[test]
    fn newest_of_the_future() {
        let transfer = Transfer { timestamp: 1 << 60, ..Transfer::default() };
        // One batch of this many transfers or accounts.
        let batch = |rows: &[u8], count| {
            let body = [rows, &[0xff; 124], &[count, 0, 1, 0]].concat();
            Act::Answer(Box::leak(body.into()))
        };
        let server = serve(vec![batch(&[], 0), batch(transfer.as_bytes(), 1)]);
        let addresses = resolve_addresses(&server.address.to_string()).unwrap();
        let client = PatientClient::new(0, addresses, Some(FIRST_DEADLINE), Stop::never());
        let mut stream = Stream::new(client, Selection::of(&[What::Transfers]));
        let failure = stream.present().unwrap_err();
        assert_eq!(failure.class, ExitClass::Corruption);
        assert!(failure.message.contains("transfer at timestamp 1152921504606846976"), "{failure}");
    }
}
