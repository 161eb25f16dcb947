//! Shrinks a failing run: fewer kinds of faults, fewer clients and requests, a shorter span of
//! faults, as long as it still fails in the same way.
//!
//! Each attempt runs in a child, because a failure may be an abort.

use super::VoprOptions;
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::output::print;
use crate::simulator::faults::Fault;
use std::process::{Command, Stdio};

/// Attempts at most.
const ATTEMPTS_MAX: u32 = 200;

/// How an attempt ended: its exit code, 0 if it passed.
fn attempt(options: &VoprOptions, seed: u64) -> Result<i32, Failure> {
    let failed = |error: std::io::Error| Failure::new(ExitClass::Error, error.to_string());
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["vopr", &seed.to_string()]).args(options.words());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().map_err(failed)?;
    Ok(status.code().unwrap_or(134))
}

/// Shrinks and prints the line that replays what is left.
///
/// # Errors
///
/// If there is no seed, or it does not fail.
pub(super) fn run(options: &VoprOptions) -> Result<(), Failure> {
    let Some(seed) = options.seed else {
        return Err(Failure::new(ExitClass::Usage, "minimize needs the seed that fails"));
    };
    let code = attempt(options, seed)?;
    if code == 0 {
        return Err(Failure::new(ExitClass::Usage, format!("seed {seed} does not fail")));
    }
    let mut shrinker = Shrinker { best: options.clone(), seed, code, attempts: 0 };
    shrinker.shrink()?;
    print(&format!("exit code {code} after {} attempts:", shrinker.attempts));
    print(&shrinker.best.replay(seed));
    Ok(())
}

struct Shrinker {
    best: VoprOptions,
    seed: u64,
    code: i32,
    attempts: u32,
}

impl Shrinker {
    /// Takes a change if the run still fails in the same way.
    fn consider(&mut self, change: impl FnOnce(&mut VoprOptions)) -> Result<bool, Failure> {
        if self.attempts == ATTEMPTS_MAX {
            return Ok(false);
        }
        self.attempts += 1;
        let mut candidate = self.best.clone();
        change(&mut candidate);
        let same = attempt(&candidate, self.seed)? == self.code;
        if same {
            self.best = candidate;
        }
        Ok(same)
    }

    fn shrink(&mut self) -> Result<(), Failure> {
        let drawn = self.best.swarm(self.seed);
        for fault in Fault::all() {
            if drawn.faults.rate(fault) > 0 {
                self.consider(|options| {
                    options.faults.retain(|(known, _)| *known != fault);
                    options.faults.push((fault, 0));
                })?;
            }
        }
        self.consider(|options| options.standbys = Some(0))?;
        self.halve(u64::from(drawn.clients), |options, value| {
            options.clients = Some(u32::try_from(value).expect("few clients"));
        })?;
        self.halve(drawn.requests, |options, value| options.requests = Some(value))?;
        self.halve(u64::from(drawn.batch_events), |options, value| {
            options.batch_events = Some(u32::try_from(value).expect("small batches"));
        })?;
        self.halve(drawn.time_max_ms, |options, value| options.faults_until = Some(value))?;
        self.raise(drawn.time_max_ms)
    }

    /// Halves a number as long as it fails, then looks between.
    fn halve(&mut self, start: u64, set: impl Fn(&mut VoprOptions, u64)) -> Result<(), Failure> {
        let (mut fails, mut passes) = (start, 0);
        while fails - passes > 1 && fails - passes > start / 32 {
            let middle = passes + (fails - passes) / 2;
            if self.consider(|options| set(options, middle))? {
                fails = middle;
            } else {
                passes = middle;
            }
        }
        Ok(())
    }

    /// Lets faults begin as late as possible.
    fn raise(&mut self, end: u64) -> Result<(), Failure> {
        let (mut fails, mut passes) = (0, self.best.faults_until.unwrap_or(end));
        while passes - fails > end / 64 {
            let middle = fails + (passes - fails) / 2;
            if self.consider(|options| options.faults_from = middle)? {
                fails = middle;
            } else {
                passes = middle;
            }
        }
        Ok(())
    }
}
