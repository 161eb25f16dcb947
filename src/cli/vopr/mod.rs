//! `florin vopr`: runs simulated clusters and says whether they kept their promises.
//!
//! One seed is run in this process; a fleet in children of it, so that an abort ends one seed and
//! not the fleet.

mod fleet;
mod minimize;
mod mutants;
mod performance;

use super::exit::{ExitClass, Failure};
use super::output::print;
use crate::client::Random;
use crate::protocol::mutations;
use crate::simulator::checkers::{Failure as RunFailure, FailureKind};
use crate::simulator::faults::Fault;
use crate::simulator::run::{Report, run as run_swarm};
use crate::simulator::swarm::{Overrides, RunKind, Swarm};
use crate::simulator::trace::Detail;
use clap::{Subcommand, ValueEnum};
use std::time::Instant;

const EXAMPLES: &str = "\
Examples:
  florin vopr                          one seed, chosen at random
  florin vopr 42 --log=short           that seed again, one line per state transition
  florin vopr --seeds=1000 --jobs=2    a fleet; ends with one summary
  florin vopr 42 --fault=crash=0       without crashes
  florin vopr minimize 42              the shortest run that still fails
  florin vopr mutations                what notices deliberate mistakes

A tick is ten simulated milliseconds of the whole cluster. Rates are parts of a million: of \
packets, disk requests, jobs or ticks. A failed seed exits with 8 (something wrong was done), 9 \
(no progress after healing) or 134 (an assertion).";

/// What is told of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// State transitions and faults
    Short,
    /// Messages too
    Full,
}

/// Options of `florin vopr`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct VoprArguments {
    /// Something else than runs
    #[command(subcommand)]
    pub command: Option<VoprCommand>,
    /// Which runs
    #[command(flatten)]
    pub options: VoprOptions,
}

/// Subcommands of `florin vopr`.
#[derive(Clone, Debug, Subcommand)]
pub enum VoprCommand {
    /// Find the shortest and calmest run of a failing seed that still fails
    Minimize {
        /// The options with which it fails
        #[command(flatten)]
        options: VoprOptions,
    },
    /// Make each deliberate mistake in turn and demand that a checker notices
    Mutations {
        /// The first seed that is tried
        #[arg(value_name = "SEED", default_value_t = 1)]
        seed: u64,
        /// Seeds that run at a time
        #[arg(long, value_name = "N", default_value_t = 2)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        jobs: u32,
    },
}

/// Which runs, and how.
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "they are switches of a command line")]
pub struct VoprOptions {
    /// The seed; of a fleet, the first; random if not given
    #[arg(value_name = "SEED")]
    pub seed: Option<u64>,
    /// Seeds of a fleet
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// Seeds that a fleet runs at a time
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub jobs: u32,
    /// Time after which a fleet begins no more seeds
    #[arg(long, value_name = "MINUTES")]
    pub minutes: Option<f64>,
    /// Only look for broken assertions and checks: no healing
    #[arg(long)]
    pub lite: bool,
    /// Few requests, then healing: look for lost liveness
    #[arg(long, conflicts_with = "lite")]
    pub liveness: bool,
    /// No faults
    #[arg(long, conflicts_with_all = ["lite", "liveness"])]
    pub calm: bool,
    /// Compare latencies with all replicas and with one dead, without other faults
    #[arg(long, conflicts_with_all = ["lite", "liveness", "calm", "seeds"])]
    pub performance: bool,
    /// Replicas that vote
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=6))]
    pub replicas: Option<u8>,
    /// Standbys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=6))]
    pub standbys: Option<u8>,
    /// Clients at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: Option<u32>,
    /// Requests before the healing
    #[arg(long, value_name = "N")]
    pub requests: Option<u64>,
    /// Events in a batch at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_events: Option<u32>,
    /// Not shaken often and briefly, whatever the seed draws
    #[arg(long)]
    pub steady: bool,
    /// Draw only the first so many kinds of faults, as a program did that knew no more
    #[arg(long, value_name = "N")]
    pub fault_kinds: Option<u32>,
    /// Rate of a kind of fault, in parts of a million
    #[arg(long = "fault", value_name = "NAME=RATE", value_parser = parse_fault)]
    pub faults: Vec<(Fault, u32)>,
    /// Simulated milliseconds before which no fault strikes that strikes with time
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub faults_from: u64,
    /// Simulated milliseconds after which no fault strikes that strikes with time
    #[arg(long, value_name = "MS")]
    pub faults_until: Option<u64>,
    /// What is told of the run
    #[arg(long, value_name = "DETAIL")]
    pub log: Option<Log>,
    /// Run each seed twice and compare
    #[arg(long)]
    pub doublecheck: bool,
    /// A mistake to make; needs a build with the feature `mutations`
    #[arg(long, value_name = "NAME")]
    pub mutation: Option<String>,
    /// Failed seeds after which a fleet ends
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub failures_max: usize,
    /// Serve as a child of a fleet: print results for it
    #[arg(long, hide = true)]
    pub worker: bool,
    /// Distance between the seeds of a child
    #[arg(long, hide = true, default_value_t = 1)]
    pub stride: u64,
}

fn parse_fault(text: &str) -> Result<(Fault, u32), String> {
    let known = || Fault::all().map(Fault::name).join(", ");
    let (name, rate) = text.split_once('=').ok_or("expected NAME=RATE")?;
    let fault =
        Fault::from_name(name).ok_or_else(|| format!("no such fault; known: {}", known()))?;
    match rate.parse() {
        Ok(rate) if rate <= 1_000_000 => Ok((fault, rate)),
        _ => Err(format!("rate '{rate}' is not from 0 to 1000000")),
    }
}

impl VoprOptions {
    fn overrides(&self) -> Overrides {
        let kind = match (self.lite, self.liveness, self.calm || self.performance) {
            (true, _, _) => RunKind::Lite,
            (_, true, _) => RunKind::Liveness,
            (_, _, true) => RunKind::Calm,
            _ => RunKind::Full,
        };
        Overrides {
            replicas: self.replicas,
            standbys: self.standbys,
            clients: self.clients,
            requests: self.requests,
            batch_events: self.batch_events,
            faults_from_ms: self.faults_from,
            faults_until_ms: self.faults_until,
            steady: self.steady,
            fault_kinds: self.fault_kinds,
            rates: self.faults.clone(),
            kind,
        }
    }

    fn swarm(&self, seed: u64) -> Swarm {
        Swarm::draw(seed, &self.overrides())
    }

    fn detail(&self) -> Detail {
        match self.log {
            None => Detail::None,
            Some(Log::Short) => Detail::Short,
            Some(Log::Full) => Detail::Full,
        }
    }

    /// The options as words of a command line, but for the seed and what is said of a fleet.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut flag = |on: bool, name: &str| {
            if on {
                words.push(format!("--{name}"));
            }
        };
        flag(self.lite, "lite");
        flag(self.liveness, "liveness");
        flag(self.calm, "calm");
        flag(self.steady, "steady");
        flag(self.doublecheck, "doublecheck");
        let mut value = |value: Option<u64>, name: &str| {
            if let Some(value) = value {
                words.push(format!("--{name}={value}"));
            }
        };
        value(self.replicas.map(u64::from), "replicas");
        value(self.standbys.map(u64::from), "standbys");
        value(self.clients.map(u64::from), "clients");
        value(self.requests, "requests");
        value(self.batch_events.map(u64::from), "batch-events");
        value((self.faults_from > 0).then_some(self.faults_from), "faults-from");
        value(self.faults_until, "faults-until");
        value(self.fault_kinds.map(u64::from), "fault-kinds");
        for (fault, rate) in &self.faults {
            words.push(format!("--fault={}={rate}", fault.name()));
        }
        if let Some(mutation) = &self.mutation {
            words.push(format!("--mutation={mutation}"));
        }
        words
    }

    /// The line that runs a seed again.
    fn replay(&self, seed: u64) -> String {
        let words = self.words();
        let space = if words.is_empty() { "" } else { " " };
        format!("florin vopr {seed}{space}{}", words.join(" "))
    }
}

/// Runs what was asked for.
///
/// # Errors
///
/// If a run failed, or could not be started.
pub fn run(arguments: &VoprArguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(VoprCommand::Minimize { options }) => return minimize::run(options),
        Some(VoprCommand::Mutations { seed, jobs }) => return mutants::run(*seed, *jobs),
        None => {}
    }
    let options = &arguments.options;
    if let Some(name) = &options.mutation {
        mutations::choose(name).map_err(|error| Failure::new(ExitClass::Usage, error))?;
    }
    let seed = match options.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    if options.worker {
        fleet::work(options, seed);
        return Ok(());
    }
    if options.performance {
        return performance::run(options, seed);
    }
    if options.seeds.is_some() || options.minutes.is_some() {
        return fleet::run(options, seed);
    }
    run_one(options, seed)
}

fn random_seed() -> Result<u64, Failure> {
    let random = Random::from_system();
    let mut random = random
        .map_err(|error| Failure::new(ExitClass::Error, format!("no random seed: {error}")))?;
    Ok(random.below(1 << 32))
}

fn run_one(options: &VoprOptions, seed: u64) -> Result<(), Failure> {
    print(&format!("seed {seed}"));
    print(&options.swarm(seed).json());
    let start = Instant::now();
    match run_seed(options, seed) {
        Ok(report) => {
            let seconds = start.elapsed().as_secs_f64();
            print(&describe(&report, seconds));
            Ok(())
        }
        Err(failure) => {
            print(&format!("replay: {}", options.replay(seed)));
            Err(Failure::new(class_of(failure.kind), failure.to_string()))
        }
    }
}

/// Runs one seed, twice if asked to.
fn run_seed(options: &VoprOptions, seed: u64) -> Result<Report, RunFailure> {
    let swarm = options.swarm(seed);
    let report = run_swarm(&swarm, options.detail())?;
    if options.doublecheck {
        let again = run_swarm(&swarm, Detail::None)?;
        if again.hash != report.hash {
            let (first, second) = (report.hash, again.hash);
            let message = format!("two runs differ: trace hashes {first:016x} and {second:016x}");
            return Err(RunFailure::correctness(message));
        }
    }
    Ok(report)
}

fn class_of(kind: FailureKind) -> ExitClass {
    match kind {
        FailureKind::Correctness => ExitClass::Correctness,
        FailureKind::Liveness => ExitClass::Liveness,
    }
}

fn describe(report: &Report, seconds: f64) -> String {
    format!(
        "passed: {} ticks in {seconds:.2} s, {} ops, {} requests answered, {} replies compared, {} \
         checkpoints, {} starts, {} view changes, trace {:016x}",
        report.ticks,
        report.ops,
        report.answered,
        report.replies_checked,
        report.checkpoints,
        report.starts,
        report.view_changes,
        report.hash
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: VoprArguments,
    }

    fn parse(text: &str) -> Result<VoprArguments, clap::Error> {
        let words = std::iter::once("vopr").chain(text.split_ascii_whitespace());
        Line::try_parse_from(words).map(|line| line.arguments)
    }

    /// Goal: the line that replays a seed parses to the same options.
    #[test]
    fn replay_round_trip() {
        let text = "7 --liveness --replicas=5 --standbys=1 --clients=3 --requests=9 \
                    --fault=crash=0 --fault=pause=77 --faults-from=5 --faults-until=90";
        let options = parse(text).unwrap().options;
        let replay = options.replay(7);
        let again = parse(replay.strip_prefix("florin vopr ").unwrap()).unwrap().options;
        assert_eq!(options.replay(7), again.replay(7));
        assert_eq!(options.swarm(7).json(), again.swarm(7).json());
        assert_eq!(again.swarm(7).replicas, 5);
    }

    /// Goal: wrong rates and names are refused, a subcommand has its own options.
    #[test]
    fn refusals() {
        assert!(parse("--fault=hail=3").is_err());
        assert!(parse("--fault=crash=1000001").is_err());
        assert!(parse("--replicas=7").is_err());
        assert!(parse("--lite --liveness").is_err());
        let arguments = parse("minimize 12 --replicas=3").unwrap();
        let Some(VoprCommand::Minimize { options }) = arguments.command else { panic!() };
        assert_eq!((options.seed, options.replicas), (Some(12), Some(3)));
    }
}
