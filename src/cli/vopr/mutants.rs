//! `florin vopr mutations`: makes each deliberate mistake in turn and demands that it is noticed.

use super::fleet;
use super::{VoprArguments, VoprOptions};
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::output::print;
use clap::Parser;

/// A mistake, and the fleet that must notice it.
struct Trial {
    /// One of [`crate::protocol::mutations::MUTATIONS`].
    mutation: &'static str,
    /// Within so many seeds. A few times as many as it took when this was written.
    seeds: u64,
    /// What makes the fleet look where the mistake shows: a second line of defence hides some in
    /// most runs.
    arguments: &'static str,
}

/// Crashes that damage heads while others are cut off, and nothing that gives them time to mend.
const DAMAGED_HEADS: &str = "--lite --replicas=3 --fault=wal-head-damage=900000 \
                             --fault=crash=10000 --fault=partition=30000 \
                             --fault=packet-loss=100000 --fault-kinds=25";

/// Files are lost while others are cut off.
const LOST_FILES: &str = "--lite --replicas=3 --fault=file-loss=5000 --fault=partition=30000 \
                          --fault=packet-loss=100000 --fault=grid-rot=0 \
                          --fault=grid-unreadable=0 --fault=absence=0 --fault-kinds=30";

/// The same of five, two of which may be lost at a time.
const LOST_FILES_OF_FIVE: &str = "--lite --replicas=5 --fault=file-loss=5000 \
                                  --fault=partition=30000 --fault=packet-loss=100000 \
                                  --fault=grid-rot=0 --fault=grid-unreadable=0 \
                                  --fault=absence=0 --fault-kinds=44";

const TRIALS: [Trial; 25] = [
    Trial { mutation: "ack_before_durable", seeds: 20, arguments: "" },
    Trial { mutation: "ack_beyond_checkpoint", seeds: 40, arguments: "" },
    Trial { mutation: "answer_ahead", seeds: 100, arguments: "" },
    Trial { mutation: "checkpoint_backwards", seeds: 20, arguments: "" },
    Trial { mutation: "commit_without_quorum", seeds: 20, arguments: "" },
    Trial { mutation: "count_syncing_checkpoint", seeds: 1500, arguments: "" },
    Trial { mutation: "cut_without_quorum", seeds: 150, arguments: "" },
    Trial { mutation: "drop_chain_rollback", seeds: 40, arguments: "" },
    Trial { mutation: "execute_twice", seeds: 20, arguments: "" },
    Trial { mutation: "forget_log_view", seeds: 20, arguments: "" },
    Trial { mutation: "forget_sync_range", seeds: 200, arguments: "" },
    Trial { mutation: "nack_damaged", seeds: 3000, arguments: DAMAGED_HEADS },
    Trial { mutation: "recover_leads", seeds: 2000, arguments: LOST_FILES_OF_FIVE },
    Trial { mutation: "retry_sync", seeds: 600, arguments: "" },
    Trial { mutation: "reuse_blocks_early", seeds: 400, arguments: "" },
    Trial { mutation: "serve_unverified", seeds: 40, arguments: "" },
    Trial { mutation: "skip_block_repair", seeds: 20, arguments: "" },
    Trial {
        mutation: "skip_chain_check",
        seeds: 3000,
        arguments: "--lite --replicas=3 --fault=partition=50000 --fault=packet-loss=100000 \
                    --fault-kinds=25",
    },
    Trial { mutation: "skip_log_scrub", seeds: 20, arguments: "" },
    Trial { mutation: "skip_sync", seeds: 20, arguments: "" },
    Trial { mutation: "skip_sync_walk", seeds: 600, arguments: "" },
    Trial { mutation: "trust_one_clock", seeds: 20, arguments: "" },
    Trial { mutation: "trust_uncertain_head", seeds: 1500, arguments: DAMAGED_HEADS },
    Trial { mutation: "upgrade_hastily", seeds: 40, arguments: "--fault=upgrade=2000" },
    Trial { mutation: "vote_after_recover", seeds: 400, arguments: LOST_FILES },
];

/// A command line of `florin vopr`.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: VoprArguments,
}

impl Trial {
    fn options(&self, jobs: u32) -> VoprOptions {
        let text = format!(
            "vopr --mutation={} --seeds={} --failures-max=1 --jobs={jobs} {}",
            self.mutation, self.seeds, self.arguments
        );
        let line = Line::try_parse_from(text.split_ascii_whitespace());
        line.expect("the table has arguments that a test parses").arguments.options
    }
}

/// Tries all mistakes with seeds from `first` on.
///
/// # Errors
///
/// If one went unnoticed, or this program was built without them.
pub(super) fn run(first: u64, jobs: u32) -> Result<(), Failure> {
    if !cfg!(feature = "mutations") {
        let message = "this program makes no mistakes: build it with --features mutations";
        return Err(Failure::new(ExitClass::Usage, message));
    }
    let mut unnoticed = Vec::new();
    for trial in &TRIALS {
        let (seeds, message) = fleet::find_failure(&trial.options(jobs), first)?;
        let Trial { mutation, seeds: limit, .. } = trial;
        if let Some(message) = message {
            let line = message.lines().next().unwrap_or_default();
            print(&format!("{mutation:22} seed {seeds:4} of {limit:4}  {line}"));
        } else {
            print(&format!("{mutation:22} NOT NOTICED in {limit} seeds"));
            unnoticed.push(*mutation);
        }
    }
    let count = TRIALS.len() - unnoticed.len();
    print(&format!("{count} passed, {} failed", unnoticed.len()));
    if unnoticed.is_empty() {
        return Ok(());
    }
    let message = format!("nothing noticed {}", unnoticed.join(", "));
    Err(Failure::new(ExitClass::Correctness, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::mutations::MUTATIONS;

    /// Goal: every mistake has its trial, whose arguments can be parsed.
    #[test]
    fn every_mutation_has_a_trial() {
        let names: Vec<&str> = TRIALS.iter().map(|trial| trial.mutation).collect();
        assert_eq!(names, MUTATIONS);
        for trial in &TRIALS {
            let options = trial.options(2);
            assert_eq!(options.mutation.as_deref(), Some(trial.mutation));
            assert_eq!((options.seeds, options.failures_max), (Some(trial.seeds), 1));
        }
    }
}
