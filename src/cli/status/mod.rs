//! `florin status`: reports the health of a cluster by asking each replica.
//!
//! Asks all addresses at once, with a time limit ([`ask`]), puts the answers in the order of the
//! replicas ([`arrange`]), judges ([`judge`]): healthy, degraded, or not available, and prints
//! ([`show`]). The exit code says which. Works for a cluster of one too. Not covered: metrics over
//! time.

pub mod arrange;
pub mod ask;
pub mod judge;
pub mod show;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::environment::ClusterArguments;
use super::exit::{ExitClass, Failure};
use super::output::{OutputArguments, note_lost, print};
use super::patient::Stop;
use crate::client::ReplicaAddress;
use crate::vsr::readiness::CONTACT_NS;
use judge::State;
use show::Found;

/// Time between two looks at the signal to stop.
const SLICE: Duration = Duration::from_millis(50);
/// Moves to the upper left corner of a terminal and clears everything below.
const REDRAW: &str = "\x1b[H\x1b[J";

const EXAMPLES: &str = "\
Examples:
  florin status
      the server that `florin dev` runs
  florin status --cluster=7 --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000
  florin status --cluster=7 --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 --format=json
  florin status --watch=5
      the same every five seconds, until Ctrl-C

The list may continue with the standbys.

Exit codes: 0 healthy; 10 clients are served, but a replica is down, behind, not ready, or set up \
wrongly, or the list of addresses is wrong; 7 no client is served, or no replica can be reached. \
With --watch 0 after Ctrl-C or the end of its reader.";

/// Options of `florin status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct StatusArguments {
    /// Cluster to connect to
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout: u64,
    /// Form of the output
    #[command(flatten)]
    pub output: OutputArguments,
    /// Seconds between two rounds; asks until interrupted [without a value: 2]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
        default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
}

/// Asks all replicas and prints their status.
///
/// # Errors
///
/// If the cluster is not healthy.
///
/// # Panics
///
/// Never: plain values are JSON.
pub fn run(arguments: &StatusArguments) -> Result<(), Failure> {
    let replicas = arguments.cluster.replicas_and_standbys()?;
    if let Some(seconds) = arguments.watch {
        return watch(arguments, &replicas, Duration::from_secs(seconds));
    }
    let found = find_out(arguments, &replicas);
    if arguments.output.is_json() {
        let value = show::json_of(&found);
        print(&serde_json::to_string_pretty(&value).expect("plain values are JSON"));
    } else {
        print(&show::table(&found));
    }
    let class = match found.state {
        State::Healthy => return Ok(()),
        State::Degraded => ExitClass::Degraded,
        State::Unavailable => ExitClass::Cluster,
    };
    let count = found.problems.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    Err(Failure::new(class, format!("the cluster is {}: {count} {noun}", found.state.name())))
}

fn find_out(arguments: &StatusArguments, replicas: &[ReplicaAddress]) -> Found {
    let time = Duration::from_secs(arguments.timeout);
    let cluster = arguments.cluster.cluster;
    let ask = || arrange::arrange(&ask::ask_all(cluster, replicas, time));
    let start = Instant::now();
    let mut arranged = ask();
    if judge::relies_on_silent(&arranged.rows) {
        // They may have ended just now: a contact that was reported then is over after this time.
        let contact = Duration::from_nanos(CONTACT_NS);
        thread::sleep((start + contact).saturating_duration_since(Instant::now()));
        arranged = ask();
    }
    let (state, problems) = judge::judge(&arranged);
    Found { cluster, state, problems, rows: arranged.rows }
}

/// Asks in rounds until a signal comes, or the output cannot be written.
fn watch(
    arguments: &StatusArguments,
    replicas: &[ReplicaAddress],
    interval: Duration,
) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let redraws = !arguments.output.is_json() && io::stdout().is_terminal();
    let mut next = Instant::now();
    while !stop.is_wanted() {
        let found = find_out(arguments, replicas);
        let block = block(&found, arguments.output.is_json(), redraws, interval);
        let mut output = io::stdout().lock();
        if let Err(error) = output.write_all(block.as_bytes()).and_then(|()| output.flush()) {
            note_lost(&error);
            return Ok(());
        }
        drop(output);
        // Rounds that took longer than the interval are not made up for.
        next = (next + interval).max(Instant::now());
        while Instant::now() < next && !stop.is_wanted() {
            thread::sleep(SLICE.min(next.saturating_duration_since(Instant::now())));
        }
    }
    Ok(())
}

/// Returns one round of a watch: a line of JSON, a screen, or a block that ends with an empty line.
fn block(found: &Found, json: bool, redraws: bool, interval: Duration) -> String {
    let now = Timestamp::now();
    if json {
        let mut value = show::json_of(found);
        value["time"] = now.as_millisecond().into();
        return format!("{value}\n");
    }
    // Whole seconds, as in 2026-11-30T15:40:00Z.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let table = show::table(found);
    if redraws {
        let seconds = interval.as_secs();
        return format!("{REDRAW}{now}, every {seconds} s until Ctrl-C\n\n{table}\n");
    }
    format!("{now}\n{table}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a round of a watch is one line of JSON with its time, a screen, or a block with its
    /// time.
    #[test]
    fn rounds() {
        let rows = arrange::arrange(&judge::tests::healthy()).rows;
        let found = Found { cluster: 7, state: State::Healthy, problems: Vec::new(), rows };
        let second = Duration::from_secs(1);
        let line = block(&found, true, false, second);
        assert_eq!(line.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(value["time"].as_i64().unwrap() > 1_600_000_000_000);
        let screen = block(&found, false, true, second);
        assert!(screen.starts_with(REDRAW) && screen.contains("every 1 s until Ctrl-C"));
        let text = block(&found, false, false, second);
        assert!(text.ends_with("\n\n") && text.contains("Z\ncluster 7: healthy"), "{text}");
    }
}
