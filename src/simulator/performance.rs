//! Latencies in simulated time, without faults, with all replicas, without one of them, or with a
//! slow disk.

use super::checkers::Failure;
use super::cluster::Cluster;
use super::process::Gray;
use super::swarm::Swarm;
use super::trace::Detail;

/// Simulated time that a measurement may take, in nanoseconds.
const LIMIT_NS: u64 = 600_000_000_000;

/// How many times slower a slow disk is.
const SLOW_FACTOR: u64 = 50;

/// What is wrong with the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handicap {
    /// Nothing.
    None,
    /// This replica is dead.
    Dead(usize),
    /// This replica has a slow disk.
    Slow(usize),
}

/// How long requests took, in simulated microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// Requests measured.
    pub count: usize,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Lets clients work until the drawn number of requests is answered. The first tenth is not
/// measured: views settle.
///
/// # Errors
///
/// If something wrong is done, or requests stay unanswered.
pub fn measure(swarm: &Swarm, handicap: Handicap) -> Result<Latencies, Failure> {
    let mut cluster = Cluster::new(swarm, Detail::None);
    cluster.faults.set_active(false);
    cluster.may_rescue = false;
    cluster.lag_max = u64::MAX / 2;
    match handicap {
        Handicap::None => {}
        Handicap::Dead(replica) => cluster.kept_down[replica] = true,
        Handicap::Slow(replica) => {
            let gray = Gray { factor: SLOW_FACTOR, until_ns: u64::MAX };
            cluster.processes[replica].gray = Some(gray);
        }
    }
    while cluster.clients.answered() < swarm.requests {
        cluster.step()?;
        if cluster.events.now_ns() > LIMIT_NS {
            return Err(Failure::liveness("requests stay unanswered without faults"));
        }
    }
    let warm = cluster.latencies_ns.len() / 10;
    let mut latencies = cluster.latencies_ns.split_off(warm);
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100] / 1000;
    Ok(Latencies { count: latencies.len(), p50_us: at(50), p99_us: at(99), max_us: at(100) })
}

#[cfg(test)]
mod tests {
    use super::super::swarm::Overrides;
    use super::*;

    /// Goal: a calm cluster of one answers, and the percentiles are in order.
    #[test]
    fn calm_cluster_of_one() {
        let overrides =
            Overrides { replicas: Some(1), requests: Some(100), ..Overrides::default() };
        let latencies = measure(&Swarm::draw(1, &overrides), Handicap::None).unwrap();
        assert!(latencies.count >= 80);
        assert!(latencies.p50_us <= latencies.p99_us && latencies.p99_us <= latencies.max_us);
    }
}
