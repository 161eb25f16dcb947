//! What a dead replica, or one with a slow disk, costs clients, in simulated time.
//!
//! Runs of one seed without faults: all replicas, one backup dead, one disk slow. Latencies must
//! stay within a budget.

use super::VoprOptions;
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::output::print;
use crate::simulator::performance::{Handicap, Latencies, measure};

/// With one replica dead a latency may be so much of the healthy one, in percent.
const BUDGET_PERCENT: u64 = 150;

/// Measures, prints, and judges.
///
/// # Errors
///
/// If a run fails or the budget is exceeded.
pub(super) fn run(options: &VoprOptions, seed: u64) -> Result<(), Failure> {
    print(&format!("seed {seed}"));
    let mut swarm = options.swarm(seed);
    swarm.replicas = options.replicas.unwrap_or(3);
    swarm.requests = options.requests.unwrap_or(2_000);
    let failed = |failure: crate::simulator::checkers::Failure| {
        Failure::new(super::class_of(failure.kind), failure.to_string())
    };
    let healthy = measure(&swarm, Handicap::None).map_err(failed)?;
    print(&format!("all {} replicas: {}", swarm.replicas, line(&healthy)));
    // The first primary too may have a slow disk; dead it would only be another replica.
    let dead = (1..swarm.replicas).map(|replica| (Handicap::Dead(replica.into()), "dead"));
    let slow = (0..swarm.replicas).map(|replica| (Handicap::Slow(replica.into()), "slow"));
    for (handicap, what) in dead.chain(slow) {
        let (Handicap::Dead(replica) | Handicap::Slow(replica)) = handicap else { continue };
        let degraded = measure(&swarm, handicap).map_err(failed)?;
        print(&format!("replica {replica} {what}: {}", line(&degraded)));
        // A primary stays one although its disk is slow, as long as it gets on.
        if what == "slow" {
            continue;
        }
        for (name, now, before) in
            [("p50", degraded.p50_us, healthy.p50_us), ("p99", degraded.p99_us, healthy.p99_us)]
        {
            if now * 100 > before * BUDGET_PERCENT {
                let message = format!(
                    "{name} is {now} us with replica {replica} {what}, {before} us without"
                );
                return Err(Failure::new(ExitClass::Liveness, message));
            }
        }
    }
    Ok(())
}

fn line(latencies: &Latencies) -> String {
    let Latencies { count, p50_us, p99_us, max_us } = latencies;
    format!("{count} requests, p50 {p50_us} us, p99 {p99_us} us, max {max_us} us")
}
