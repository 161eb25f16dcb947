//! A fleet of seeds in child processes, and one summary.
//!
//! Each child runs every n-th seed and prints one line of JSON when it begins and ends one. A child
//! that dies has found a broken assertion; another takes over with its next seed.

use super::{VoprOptions, run_seed};
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::output::print;
use crate::protocol::marks;
use crate::simulator::checkers::FailureKind;
use crate::simulator::faults::Fault;
use crate::simulator::run::TICKS_PER_SECOND;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of a dead child's last words that are shown.
const LAST_WORDS_LINES: usize = 12;

/// Runs seeds from `first` on for a fleet, one after another, until nobody listens.
pub(super) fn work(options: &VoprOptions, first: u64) {
    let mut seed = first;
    let mut left = options.seeds.unwrap_or(u64::MAX);
    let mut marks_before = marks::counts();
    while left > 0 {
        if !say(&json!({ "begin": seed })) {
            return;
        }
        let start = Instant::now();
        let mut line = match run_seed(options, seed) {
            Ok(report) => json!({
                "end": seed,
                "ticks": report.ticks,
                "ops": report.ops,
                "answered": report.answered,
                "replies": report.replies_checked,
                "checkpoints": report.checkpoints,
                "starts": report.starts,
                "views": report.view_changes,
                "faults": report.faults.to_vec(),
            }),
            Err(failure) => json!({
                "end": seed,
                "failed": failure.message,
                "liveness": failure.kind == FailureKind::Liveness,
            }),
        };
        let marks = marks::counts();
        let difference: Vec<u64> =
            marks.iter().zip(&marks_before).map(|(now, before)| now - before).collect();
        marks_before = marks;
        line["marks"] = json!(difference);
        line["cpu_us"] = json!(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        if !say(&line) {
            return;
        }
        seed = seed.wrapping_add(options.stride);
        left -= 1;
    }
}

fn say(line: &Value) -> bool {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).is_ok()
}

/// How a seed failed.
#[derive(Clone, Debug)]
struct FailedSeed {
    seed: u64,
    class: ExitClass,
    message: String,
}

/// What a fleet has done so far.
#[derive(Clone, Debug, Default)]
struct Totals {
    seeds: u64,
    sums: [u64; SUMS.len()],
    faults: Vec<u64>,
    marks: Vec<u64>,
    failed: Vec<FailedSeed>,
}

/// What is summed up, by the names in a child's lines.
const SUMS: [&str; 8] =
    ["ticks", "ops", "answered", "replies", "checkpoints", "starts", "views", "cpu_us"];

impl Totals {
    fn add(&mut self, line: &Value) {
        self.seeds += 1;
        for (sum, name) in self.sums.iter_mut().zip(SUMS) {
            *sum += line[name].as_u64().unwrap_or(0);
        }
        add_all(&mut self.faults, &line["faults"]);
        add_all(&mut self.marks, &line["marks"]);
        if let Some(message) = line["failed"].as_str() {
            let liveness = line["liveness"].as_bool().unwrap_or(false);
            let class = if liveness { ExitClass::Liveness } else { ExitClass::Correctness };
            let seed = line["end"].as_u64().unwrap_or(0);
            self.failed.push(FailedSeed { seed, class, message: message.to_owned() });
        }
    }

    fn sum(&self, name: &str) -> u64 {
        SUMS.iter().zip(self.sums).find(|(known, _)| **known == name).map_or(0, |(_, sum)| sum)
    }
}

fn add_all(sums: &mut Vec<u64>, values: &Value) {
    let values = values.as_array().map_or(&[][..], Vec::as_slice);
    sums.resize(sums.len().max(values.len()), 0);
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value.as_u64().unwrap_or(0);
    }
}

/// What a fleet hears from its children.
enum Heard {
    Line(usize, Value),
    /// A child is gone.
    End(usize),
}

/// A child and what it is doing.
struct Worker {
    process: Child,
    /// The seed it runs.
    seed: Option<u64>,
    next: u64,
    left: u64,
}

/// Runs a fleet from seed `first` on.
///
/// # Errors
///
/// If a seed failed: the class of the first failure. Or if no child could be started.
pub(super) fn run(options: &VoprOptions, first: u64) -> Result<(), Failure> {
    print(&format!("first seed {first}"));
    let seeds = options.seeds.unwrap_or(u64::MAX);
    let start = Instant::now();
    let deadline = options.minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes));
    let bar = progress_bar(options);
    let face = Face { bar, is_quiet: false };
    let totals = run_children(options, first, seeds, &face, |totals| {
        deadline.is_none_or(|deadline| start.elapsed() < deadline)
            && totals.failed.len() < options.failures_max
    })?;
    face.bar.finish_and_clear();
    print(&summary(&totals, start.elapsed()));
    match totals.failed.first() {
        None => Ok(()),
        Some(first) => {
            let count = totals.failed.len();
            let message = format!("{count} of {} seeds failed", totals.seeds);
            Err(Failure::new(first.class, message))
        }
    }
}

/// Runs a fleet until a seed fails, quietly: how many ran, and what the failed one says.
///
/// # Errors
///
/// If no child could be started.
pub(super) fn find_failure(
    options: &VoprOptions,
    first: u64,
) -> Result<(u64, Option<String>), Failure> {
    let face = Face { bar: ProgressBar::hidden(), is_quiet: true };
    let seeds = options.seeds.unwrap_or(u64::MAX);
    let totals = run_children(options, first, seeds, &face, |it| it.failed.is_empty())?;
    Ok((totals.seeds, totals.failed.into_iter().next().map(|failed| failed.message)))
}

/// What people see of a fleet while it runs.
struct Face {
    bar: ProgressBar,
    /// Failures are not told at once.
    is_quiet: bool,
}

fn progress_bar(options: &VoprOptions) -> ProgressBar {
    let bar = match options.seeds {
        Some(seeds) => ProgressBar::new(seeds),
        None => ProgressBar::new_spinner(),
    };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn run_children(
    options: &VoprOptions,
    first: u64,
    seeds: u64,
    face: &Face,
    go_on: impl Fn(&Totals) -> bool,
) -> Result<Totals, Failure> {
    let jobs = u64::from(options.jobs).min(seeds);
    let (sender, receiver) = channel();
    let mut workers = Vec::new();
    for index in 0..jobs {
        let left = (seeds - index).div_ceil(jobs);
        let next = first.wrapping_add(index);
        let place = workers.len();
        workers.push(start_worker(options, place, (next, jobs, left), &sender)?);
    }
    let mut totals = Totals::default();
    let mut running = workers.len();
    while running > 0 {
        match receive(&receiver) {
            Heard::Line(place, line) => {
                let worker = &mut workers[place];
                if let Some(seed) = line["begin"].as_u64() {
                    worker.seed = Some(seed);
                } else {
                    note_end(&mut totals, worker, &line, jobs, options, face);
                }
                if !go_on(&totals) {
                    break;
                }
            }
            Heard::End(place) => {
                running -= 1;
                if let Some(next) =
                    note_death(&mut totals, &mut workers[place], jobs, options, face)
                    && go_on(&totals)
                {
                    workers[place] = start_worker(options, place, next, &sender)?;
                    running += 1;
                }
            }
        }
    }
    for worker in &mut workers {
        // A child that is gone already needs no killing.
        let _ = worker.process.kill();
        let _ = worker.process.wait();
    }
    Ok(totals)
}

fn receive(receiver: &Receiver<Heard>) -> Heard {
    receiver.recv().expect("the fleet holds a sender itself")
}

fn note_end(
    totals: &mut Totals,
    worker: &mut Worker,
    line: &Value,
    jobs: u64,
    options: &VoprOptions,
    face: &Face,
) {
    worker.seed = None;
    worker.next = worker.next.wrapping_add(jobs);
    worker.left -= 1;
    let failures = totals.failed.len();
    totals.add(line);
    face.bar.inc(1);
    face.bar.set_message(format!("{} ops, {} failed", totals.sum("ops"), totals.failed.len()));
    if totals.failed.len() > failures {
        show(&totals.failed[failures], options, face);
    }
}

/// A child is gone: with a seed at work, it has crashed. Returns what is to be done in its place.
fn note_death(
    totals: &mut Totals,
    worker: &mut Worker,
    jobs: u64,
    options: &VoprOptions,
    face: &Face,
) -> Option<(u64, u64, u64)> {
    let mut words = String::new();
    if let Some(stderr) = &mut worker.process.stderr {
        // What cannot be read is not shown.
        let _ = stderr.read_to_string(&mut words);
    }
    let status = worker.process.wait().map_or_else(|error| error.to_string(), |it| it.to_string());
    let seed = worker.seed.take()?;
    let lines: Vec<&str> = words.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_WORDS_LINES)..].join("\n");
    let message = format!("crash ({status}): {last}");
    totals.seeds += 1;
    totals.failed.push(FailedSeed { seed, class: ExitClass::Crash, message });
    face.bar.inc(1);
    show(totals.failed.last().expect("just added"), options, face);
    let left = worker.left.saturating_sub(1);
    (left > 0).then(|| (worker.next.wrapping_add(jobs), jobs, left))
}

fn show(failed: &FailedSeed, options: &VoprOptions, face: &Face) {
    if !face.is_quiet {
        let text = format!("FAILED {}\n  {}", options.replay(failed.seed), failed.message);
        face.bar.suspend(|| print(&text));
    }
}

fn start_worker(
    options: &VoprOptions,
    place: usize,
    (next, jobs, left): (u64, u64, u64),
    sender: &Sender<Heard>,
) -> Result<Worker, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::new(ExitClass::Error, error.to_string()))?;
    let mut command = Command::new(program);
    command.args(["vopr", &next.to_string(), "--worker"]);
    command.args([format!("--stride={jobs}"), format!("--seeds={left}")]);
    command.args(options.words());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = command.spawn();
    let mut process =
        spawned.map_err(|error| Failure::new(ExitClass::Error, format!("no child: {error}")))?;
    let output = process.stdout.take().expect("the output is piped");
    let sender = sender.clone();
    thread::spawn(move || listen(place, output, &sender));
    Ok(Worker { process, seed: None, next, left })
}

fn listen(place: usize, output: ChildStdout, sender: &Sender<Heard>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { break };
        let Ok(value) = serde_json::from_str(&line) else { continue };
        if sender.send(Heard::Line(place, value)).is_err() {
            return;
        }
    }
    // If nobody listens any more, nobody wants to know.
    let _ = sender.send(Heard::End(place));
}

fn summary(totals: &Totals, elapsed: Duration) -> String {
    let ticks = totals.sum("ticks");
    let simulated_hours = ticks / TICKS_PER_SECOND / 36;
    let cpu_us = totals.sum("cpu_us").max(1);
    let mut lines = vec![
        format!(
            "{} seeds, {} failed, {:.0} s; {}.{:02} simulated hours, {} ticks, {} per second and \
             core",
            totals.seeds,
            totals.failed.len(),
            elapsed.as_secs_f64(),
            simulated_hours / 100,
            simulated_hours % 100,
            ticks,
            ticks.saturating_mul(1_000_000) / cpu_us,
        ),
        format!(
            "{} ops committed, {} requests answered, {} replies compared, {} checkpoints, {} \
             starts, {} view changes",
            totals.sum("ops"),
            totals.sum("answered"),
            totals.sum("replies"),
            totals.sum("checkpoints"),
            totals.sum("starts"),
            totals.sum("views"),
        ),
    ];
    let faults = Fault::all().into_iter().zip(&totals.faults);
    let faults: Vec<String> =
        faults.map(|(fault, count)| format!("{} {count}", fault.name())).collect();
    lines.push(format!("faults: {}", faults.join(", ")));
    let never: Vec<&str> = marks::MARKS
        .iter()
        .enumerate()
        .filter(|(index, _)| totals.marks.get(*index).copied().unwrap_or(0) == 0)
        .map(|(_, name)| *name)
        .collect();
    lines.push(format!(
        "marks never hit: {}",
        if never.is_empty() { "none".to_owned() } else { never.join(", ") }
    ));
    for failed in &totals.failed {
        let first = failed.message.lines().next().unwrap_or_default();
        lines.push(format!("failed: seed {} ({:?}): {first}", failed.seed, failed.class));
    }
    lines.join("\n")
}
