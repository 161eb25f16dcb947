//! `florin status`: how a cluster is, asked of each of its replicas.
//!
//! Asks all addresses at once, with a time limit, and judges: healthy, degraded, or not available.
//! The exit code says which. Works for a cluster of one too. Not covered: metrics over time.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zerocopy::IntoBytes;

use super::benchmark::report::thousands;
use super::exit::{ExitClass, Failure};
use super::output::print;
use crate::io::address::resolve_list;
use crate::protocol::about::{STATUS_SIZE, StatusBody, request_status, status_body};
use crate::protocol::{AlignedMemory, Command, HEADER_SIZE, Header, to_index};
use crate::vsr::Standing;
use crate::vsr::quorum::Quorums;

/// A replica whose log is so many ops behind the primary's is behind.
const LAG_MAX: u64 = 64;
/// A clock that is so far from the others' is wrong, in nanoseconds.
const CLOCK_OFFSET_MAX_NS: u64 = 1_000_000_000;

const EXAMPLES: &str = "\
Examples:
  florin status
      what `florin dev` serves
  florin status --cluster=7 --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000
  florin status --cluster=7 --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 --json

Exit codes: 0 all is well; 10 clients are served, but a replica is away, behind, or set up wrongly;
7 nobody is served: no quorum, or nobody can be reached.";

/// Options of `florin status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct StatusArguments {
    /// Id of the cluster
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cluster: u128,
    /// All replicas of the cluster, in order, and then its standbys
    #[arg(long, value_name = "LIST", default_value = "3000")]
    pub addresses: String,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What came of asking one address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    address: SocketAddr,
    /// Index of who answered, and what it said; or why there is no answer.
    result: Result<(u8, StatusBody), String>,
}

/// How the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Healthy,
    Degraded,
    Unavailable,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Degraded => "degraded",
            State::Unavailable => "unavailable",
        }
    }
}

/// Asks all replicas and prints what they say.
///
/// # Errors
///
/// If the cluster is not healthy.
pub fn run(arguments: &StatusArguments) -> Result<(), Failure> {
    let addresses = resolve_list(&arguments.addresses)
        .map_err(|error| Failure::new(ExitClass::Usage, format!("--addresses: {error}")))?;
    let answers = ask_all(arguments.cluster, &addresses, Duration::from_secs(arguments.timeout));
    let (state, problems) = judge(&answers);
    if arguments.json {
        print(&json_of(arguments.cluster, state, &problems, &answers));
    } else {
        print(&table(arguments.cluster, state, &problems, &answers));
    }
    let class = match state {
        State::Healthy => return Ok(()),
        State::Degraded => ExitClass::Degraded,
        State::Unavailable => ExitClass::Cluster,
    };
    let count = problems.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    Err(Failure::new(class, format!("the cluster is {}: {count} {noun}", state.name())))
}

fn ask_all(cluster: u128, addresses: &[SocketAddr], time: Duration) -> Vec<Answer> {
    let ask_one = |address: SocketAddr| {
        let question = move || ask(cluster, address, time).map_err(|error| reason(&error, time));
        (address, thread::spawn(question))
    };
    let asked: Vec<_> = addresses.iter().map(|address| ask_one(*address)).collect();
    let answer = |(address, thread): (SocketAddr, thread::JoinHandle<_>)| {
        let result = thread.join().unwrap_or_else(|_| Err("asking it failed".to_owned()));
        Answer { address, result }
    };
    asked.into_iter().map(answer).collect()
}

/// Why there is no answer, for people.
fn reason(error: &io::Error, time: Duration) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nobody listens there".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("no answer within {} s: it is starting, hangs, or is no florin", time.as_secs())
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => {
            "closed the connection: another cluster's id (its messages name it), too many \
             connections, or no florin"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Asks one replica how it is: its index, and what it says.
fn ask(cluster: u128, address: SocketAddr, time: Duration) -> io::Result<(u8, StatusBody)> {
    let end = Instant::now() + time;
    let mut stream = TcpStream::connect_timeout(&address, time)?;
    stream.set_write_timeout(Some(time))?;
    stream.write_all(request_status(cluster).as_bytes())?;
    let length = to_index(HEADER_SIZE + STATUS_SIZE);
    // Aligned as a header has to be.
    let mut memory = AlignedMemory::new(length);
    let bytes = &mut memory[..length];
    let mut filled = 0;
    while filled < length {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    let (header, body) = bytes.split_at(to_index(HEADER_SIZE));
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "its answer is no status");
    let header = Header::from_bytes(header);
    let valid = header.valid_checksum() && header.frame.command == Command::Status as u8;
    if !valid || header.invalid().is_some() || !header.valid_checksum_body(body) {
        return Err(wrong());
    }
    status_body(body).map(|body| (header.frame.replica, body)).ok_or_else(wrong)
}

fn standing(body: &StatusBody) -> Standing {
    let known = Standing::ALL.get(usize::from(body.standing));
    known.copied().unwrap_or(Standing::Stopped)
}

/// The primary, if one is known: who says so with the highest view.
fn primary(answers: &[Answer]) -> Option<(u8, StatusBody)> {
    let said = answers.iter().filter_map(|answer| answer.result.as_ref().ok());
    let primaries = said.filter(|(_, body)| standing(body) == Standing::Primary);
    primaries.max_by_key(|(_, body)| body.view).copied()
}

/// The view in which clients are served, as far as known: that of the primary, or of backups whose
/// primary is not listed.
fn view_served(answers: &[Answer]) -> Option<u32> {
    if let Some((_, body)) = primary(answers) {
        return Some(body.view);
    }
    let said = answers.iter().filter_map(|answer| answer.result.as_ref().ok());
    let backups = said.filter(|(_, body)| standing(body) == Standing::Backup);
    let (_, newest) = backups.max_by_key(|(_, body)| body.view)?;
    let leads = newest.view.checked_rem(u32::from(newest.replica_count))?;
    (to_index(leads) >= answers.len()).then_some(newest.view)
}

/// How the cluster is, and every problem in words. Replicas that are not listed count as well.
fn judge(answers: &[Answer]) -> (State, Vec<String>) {
    let mut problems = Vec::new();
    let primary = primary(answers);
    let view = view_served(answers);
    let mut voters = 0;
    let mut count = None;
    for (place, answer) in answers.iter().enumerate() {
        match &answer.result {
            Err(reason) => problems.push(format!("replica {place}: {reason}")),
            Ok((replica, body)) => {
                count = count.max(Some(body.replica_count));
                let is_voter = *replica < body.replica_count && usize::from(*replica) == place;
                let follows = view == Some(body.view) && standing(body).takes_part();
                voters += usize::from(follows && is_voter);
                problems.extend(problems_of(place, *replica, body, primary.as_ref()));
            }
        }
    }
    let unlisted = usize::from(count.unwrap_or(0)).saturating_sub(answers.len());
    if let Some(count) = count.filter(|_| unlisted > 0) {
        let listed = answers.len();
        problems.push(format!("--addresses lists {listed} of {count} replicas: list all of them"));
    }
    let quorum = count.is_some_and(|count| {
        let valid = (1..=6).contains(&count);
        valid && voters + unlisted >= usize::from(Quorums::new(count).replication)
    });
    if view.is_none() && count.is_some() {
        problems.push("there is no primary: nobody is served".to_owned());
    } else if !quorum && count.is_some() {
        problems.push(format!("{voters} replicas follow the primary: that is no quorum"));
    }
    let state = match (view.is_some() && quorum, problems.is_empty()) {
        (true, true) => State::Healthy,
        (true, false) => State::Degraded,
        (false, _) => State::Unavailable,
    };
    (state, problems)
}

/// What is wrong with one replica.
fn problems_of(
    place: usize,
    replica: u8,
    body: &StatusBody,
    primary: Option<&(u8, StatusBody)>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut problem = |text: String| problems.push(format!("replica {place}: {text}"));
    if usize::from(replica) != place {
        problem(format!(
            "replica {replica} answers at its address: check the order of --addresses"
        ));
    }
    if !standing(body).takes_part() {
        problem(format!("takes no part in a view ({})", role(body)));
    }
    if body.syncing > 0 {
        problem("is fetching what is missing of a checkpoint".to_owned());
    }
    if body.too_far_behind > 0 {
        problem("is too far behind for the logs of the others".to_owned());
    }
    if let Some((_, primary)) = primary {
        let lag = primary.op.saturating_sub(body.op);
        if primary.view != body.view {
            problem(format!("is in view {} and the primary in {}", body.view, primary.view));
        } else if lag > LAG_MAX && body.syncing == 0 {
            problem(format!("its log is {} ops behind", thousands(lag)));
        }
    }
    if body.clock_known > 0 && body.clock_offset_ns.unsigned_abs() > CLOCK_OFFSET_MAX_NS {
        let clock = clock(body).unwrap_or_default();
        problem(format!("its clock is {clock} from the others': keep clocks by NTP"));
    }
    problems
}

fn role(body: &StatusBody) -> String {
    standing(body).name().replace('_', " ")
}

/// The clock's offset for people.
fn clock(body: &StatusBody) -> Option<String> {
    if body.clock_known == 0 {
        return None;
    }
    let offset_us = body.clock_offset_ns.unsigned_abs() / 1000;
    let sign = match body.clock_offset_ns {
        _ if offset_us < 100 => "",
        ahead if ahead < 0 => "-",
        _ => "+",
    };
    Some(match offset_us {
        0..10_000 => format!("{sign}{}.{} ms", offset_us / 1000, offset_us % 1000 / 100),
        10_000..10_000_000 => format!("{sign}{} ms", offset_us / 1000),
        _ => format!("{sign}{} s", offset_us / 1_000_000),
    })
}

/// The cells of a replica's row: role, view, op, commit, lag, checkpoint, clock.
fn cells(body: &StatusBody, primary: Option<&(u8, StatusBody)>) -> [String; 7] {
    let lag = primary.map(|(_, primary)| thousands(primary.op.saturating_sub(body.op)));
    let role = if body.syncing > 0 { "syncing".to_owned() } else { role(body) };
    [
        role,
        body.view.to_string(),
        body.op.to_string(),
        body.commit.to_string(),
        lag.unwrap_or_else(|| "-".to_owned()),
        body.checkpoint_op.to_string(),
        clock(body).unwrap_or_else(|| "-".to_owned()),
    ]
}

/// For people: a line on all, a table, and what is wrong.
fn table(cluster: u128, state: State, problems: &[String], answers: &[Answer]) -> String {
    const COLUMNS: [&str; 9] =
        ["#", "address", "role", "view", "op", "commit", "lag", "checkpoint", "clock"];
    /// Words to the left, numbers to the right.
    const WORDS: usize = 3;
    let primary = primary(answers);
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    for (place, answer) in answers.iter().enumerate() {
        let (name, address) = (place.to_string(), answer.address.to_string());
        let said = match &answer.result {
            Ok((_, body)) => cells(body, primary.as_ref()),
            Err(_) => ["unreachable", "-", "-", "-", "-", "-", "-"].map(str::to_owned),
        };
        let mut row = [const { String::new() }; 9];
        for (place, cell) in row.iter_mut().zip([name, address].into_iter().chain(said)) {
            *place = cell;
        }
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut text = format!("cluster {cluster}: {}{}\n\n", state.name(), versions(answers));
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let (gap, width) = (if column == 0 { "" } else { "  " }, widths[column]);
            let written = if column < WORDS {
                write!(line, "{gap}{cell:width$}")
            } else {
                write!(line, "{gap}{cell:>width$}")
            };
            written.expect("a string takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if !problems.is_empty() {
        text.push('\n');
        for problem in problems {
            text.push_str(problem);
            text.push('\n');
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The versions that run, if any is known.
fn versions(answers: &[Answer]) -> String {
    let said = answers.iter().filter_map(|answer| answer.result.as_ref().ok());
    let mut versions: Vec<&str> = said.map(|(_, body)| body.version()).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.as_slice() {
        [] => String::new(),
        [version] => format!(", version {version}"),
        several => format!(", versions {}", several.join(" and ")),
    }
}

fn json_of(cluster: u128, state: State, problems: &[String], answers: &[Answer]) -> String {
    let primary = primary(answers);
    let replicas: Vec<Value> = answers
        .iter()
        .enumerate()
        .map(|(place, answer)| {
            let mut value = json!({ "place": place, "address": answer.address.to_string() });
            let more = match &answer.result {
                Err(reason) => json!({ "reachable": false, "reason": reason }),
                Ok((replica, body)) => json_body(*replica, body, primary.as_ref()),
            };
            if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
                value.extend(more);
            }
            value
        })
        .collect();
    let value = json!({
        "cluster": cluster.to_string(),
        "state": state.name(),
        "primary": primary.map(|(replica, _)| replica),
        "problems": problems,
        "replicas": replicas,
    });
    serde_json::to_string_pretty(&value).expect("plain values are JSON")
}

fn json_body(replica: u8, body: &StatusBody, primary: Option<&(u8, StatusBody)>) -> Value {
    let clock = (body.clock_known > 0)
        .then(|| json!({ "offset_ns": body.clock_offset_ns, "error_ns": body.clock_error_ns }));
    json!({
        "reachable": true,
        "replica": replica,
        "role": standing(body).name(),
        "view": body.view,
        "op": body.op,
        "commit": body.commit,
        "commit_max": body.commit_max,
        "lag": primary.map(|(_, primary)| primary.op.saturating_sub(body.op)),
        "checkpoint": body.checkpoint_op,
        "syncing": body.syncing > 0,
        "too_far_behind": body.too_far_behind > 0,
        "clock": clock,
        "sessions": body.sessions,
        "storage_used": body.storage_used,
        "storage_usable": body.storage_usable,
        "replica_count": body.replica_count,
        "standby_count": body.standby_count,
        "version": body.version(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(place: u16, standing: Standing, op: u64) -> Answer {
        let mut body = StatusBody::new();
        body.standing = standing as u8;
        (body.view, body.op, body.commit, body.replica_count) = (3, op, op, 3);
        (body.clock_known, body.clock_offset_ns) = (1, -250_000);
        body.set_version("0.1.0");
        let address = SocketAddr::from(([10, 0, 0, 1], 3000 + place));
        Answer { address, result: Ok((u8::try_from(place).unwrap(), body)) }
    }

    fn healthy() -> Vec<Answer> {
        vec![
            answer(0, Standing::Primary, 1_000_000),
            answer(1, Standing::Backup, 1_000_000),
            answer(2, Standing::Backup, 999_990),
        ]
    }

    fn lost(place: usize) -> Answer {
        let result = Err("connection refused: nobody listens there".to_owned());
        Answer { result, ..healthy()[place].clone() }
    }

    /// Goal: all well is healthy, one away is degraded, two away or no primary is unavailable.
    #[test]
    fn states() {
        let mut answers = healthy();
        assert_eq!(judge(&answers), (State::Healthy, Vec::new()));
        answers[2] = lost(2);
        let (state, problems) = judge(&answers);
        assert_eq!((state, problems.len()), (State::Degraded, 1));
        assert!(problems[0].starts_with("replica 2: connection refused"), "{problems:?}");
        answers[1] = lost(1);
        let (state, problems) = judge(&answers);
        assert_eq!((state, problems.len()), (State::Unavailable, 3));
        assert!(problems[2].contains("no quorum"), "{problems:?}");
        let answers = [lost(0), lost(1), lost(2)];
        assert_eq!((judge(&answers).0, judge(&answers).1.len()), (State::Unavailable, 3));
        let mut answers = healthy();
        answers[0] = answer(0, Standing::ViewChange, 5);
        let (state, problems) = judge(&answers);
        assert_eq!(state, State::Unavailable);
        assert!(problems.iter().any(|it| it.contains("there is no primary")), "{problems:?}");
    }

    /// Goal: a list that leaves replicas out is no reason for alarm, whoever is the primary, as
    /// long as those that are left out may serve.
    #[test]
    fn parts_of_a_list() {
        let all = healthy();
        let (state, problems) = judge(&all[..2]);
        assert_eq!((state, problems.len()), (State::Degraded, 1));
        assert!(problems[0].contains("lists 2 of 3 replicas"), "{problems:?}");
        // The primary of view 5 is replica 2.
        let view_5 = |standing| {
            let mut answers = [answer(0, Standing::Backup, 7), answer(1, standing, 7)];
            for answer in &mut answers {
                answer.result.as_mut().unwrap().1.view = 5;
            }
            answers
        };
        assert_eq!(judge(&view_5(Standing::Backup)), (State::Degraded, problems));
        let (state, problems) = judge(&view_5(Standing::ViewChange));
        assert_eq!((state, problems.len()), (State::Degraded, 2), "{problems:?}");
        // In view 3 it would be replica 0, which says that it is not.
        let answers = [answer(0, Standing::ViewChange, 7), answer(1, Standing::Backup, 7)];
        let (state, problems) = judge(&answers);
        assert_eq!(state, State::Unavailable);
        assert!(problems.iter().any(|it| it.contains("there is no primary")), "{problems:?}");
        let (state, problems) = judge(&[lost(0), lost(1)]);
        assert_eq!((state, problems.len()), (State::Unavailable, 2));
    }

    /// Goal: what is wrong with a replica that takes part is said, and is no reason for alarm.
    #[test]
    fn problems() {
        let change = |change: fn(&mut Answer)| {
            let mut answers = healthy();
            change(&mut answers[2]);
            let (state, problems) = judge(&answers);
            assert_eq!(state, State::Degraded, "{problems:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
            problems[0].clone()
        };
        assert!(change(|it| it.result.as_mut().unwrap().0 = 1).contains("check the order"));
        let text = change(|it| *it = answer(2, Standing::Backup, 900_000));
        assert_eq!(text, "replica 2: its log is 100,000 ops behind");
        let text = change(|it| it.result.as_mut().unwrap().1.syncing = 1);
        assert!(text.contains("is fetching"), "{text}");
        let text = change(|it| it.result.as_mut().unwrap().1.view = 2);
        assert!(text.contains("in view 2 and the primary in 3"), "{text}");
        let text = change(|it| it.result.as_mut().unwrap().1.clock_offset_ns = -30_000_000_000);
        assert!(text.contains("its clock is -30 s from the others'"), "{text}");
        let mut answers = healthy();
        answers.pop();
        let (state, problems) = judge(&answers);
        assert_eq!(state, State::Degraded);
        assert!(problems[0].contains("lists 2 of 3 replicas"), "{problems:?}");
    }

    /// Goal: the table fits 80 columns with millions of ops, and JSON says the same.
    #[test]
    fn shown() {
        let mut answers = healthy();
        answers[1] = lost(1);
        let (state, problems) = judge(&answers);
        let text = table(7, state, &problems, &answers);
        assert!(text.starts_with("cluster 7: degraded, version 0.1.0\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for part in ["unreachable", "primary", "backup", "-0.2 ms", "999990", "\nreplica 1: conn"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let value: Value = serde_json::from_str(&json_of(7, state, &problems, &answers)).unwrap();
        assert_eq!(value["state"], "degraded");
        assert_eq!(value["primary"], 0);
        assert_eq!(value["replicas"][1]["reachable"], false);
        assert_eq!(value["replicas"][2]["lag"], 10);
        assert_eq!(value["replicas"][2]["clock"]["offset_ns"], -250_000);
    }
}
