//! A run of one seed: faults, then a core that must make progress, then all, then once more.
//!
//! 1. *Faults*: clients work and everything goes wrong that may, until enough requests are
//!    answered or the time is up.
//! 2. *Core*: faults stop. A view-change quorum of replicas is healed, all others are dead, or
//!    slow. The core must answer requests within bounded time.
//! 3. *All*: everything is healed. Every request in flight must be answered and all replicas must
//!    come to the same op, with equal grids and intact logs.
//! 4. *Once more*: all processes are killed at once and must come to the same state again.
//!
//! Not covered: how a failure is shown.

use std::collections::BTreeSet;

use super::atlas;
use super::checkers::Failure;
use super::checkers::blocks::in_use;
use super::checkers::durability::view_change_quorum;
use super::checkers::references::check_references;
use super::checkers::storage::{check_grids, check_log, check_superblock};
use super::cluster::{Cluster, TICK_NS};
use super::faults::{FAULTS, Fault};
use super::process::{Gray, config};
use super::random::{Part, Random};
use super::swarm::{RunKind, Swarm};
use super::trace::Detail;
use crate::require;
use crate::storage::zones::SUPERBLOCK_COPIES;
use crate::storage::{Zones, count_of};
use crate::vsr::recent::RecentPrepares;
use crate::vsr::superblock::COPY_SIZE;

const SECOND_NS: u64 = 1_000_000_000;
/// Simulated time within which a healed core must answer, and a healed cluster converge.
const HEAL_LIMIT_NS: u64 = 60 * SECOND_NS;
/// Answers that a healed core must give.
const CORE_ANSWERS: u64 = 3;
/// Ops that a replica may lag while only the core works: still within the log.
const CORE_LAG_MAX: u64 = 14;

/// The blocks of each replica that were in use when a full scrub began.
type Scrubbed = Vec<BTreeSet<u64>>;

/// What a passed run has done.
#[derive(Clone, Debug)]
pub struct Report {
    /// Ticks of ten simulated milliseconds.
    pub ticks: u64,
    /// Simulated nanoseconds.
    pub simulated_ns: u64,
    /// Ops committed.
    pub ops: u64,
    /// Requests answered.
    pub answered: u64,
    /// Replies compared with the model's.
    pub replies_checked: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Starts of processes.
    pub starts: u64,
    /// Times a replica came to a newer view.
    pub view_changes: u64,
    /// Faults by kind.
    pub faults: [u64; FAULTS],
    /// Hash of the trace.
    pub hash: u64,
    /// Latencies of answered requests in nanoseconds.
    pub latencies_ns: Vec<u64>,
}

/// Runs a seed to its end.
///
/// # Errors
///
/// What went wrong.
pub fn run(swarm: &Swarm, detail: Detail) -> Result<Report, Failure> {
    let mut cluster = Cluster::new(swarm, detail);
    let result = phases(&mut cluster);
    let now_ns = cluster.events.now_ns();
    cluster.trace.line(now_ns, Detail::Short, || match &result {
        Ok(()) => "passed".to_owned(),
        Err(failure) => failure.to_string(),
    });
    result?;
    Ok(report(&cluster))
}

fn report(cluster: &Cluster) -> Report {
    Report {
        ticks: cluster.counters.ticks,
        simulated_ns: cluster.events.now_ns(),
        ops: cluster.history.head(),
        answered: cluster.clients.answered(),
        replies_checked: cluster.history.replies_checked(),
        checkpoints: crate::storage::count_of(cluster.storage.count()),
        starts: cluster.counters.starts,
        view_changes: cluster.counters.view_changes,
        faults: cluster.faults.counts(),
        hash: cluster.trace.hash(),
        latencies_ns: cluster.latencies_ns.clone(),
    }
}

fn phases(cluster: &mut Cluster) -> Result<(), Failure> {
    let mut random = Random::new(cluster.swarm.seed, Part::Phases, 0);
    let requests = cluster.swarm.requests;
    let until_ns = cluster.swarm.time_max_ms * 1_000_000;
    run_until(cluster, until_ns, |cluster| cluster.clients.answered() >= requests)?;
    if cluster.swarm.kind == RunKind::Lite {
        return Ok(());
    }
    cluster.faults.set_active(false);
    cluster.faults_are_over = true;
    let quorum = view_change_quorum(usize::from(cluster.swarm.replicas));
    let limit_ns = cluster.events.now_ns() + HEAL_LIMIT_NS;
    // Who has just missed a checkpoint while a block of his was damaged cannot be relied on yet.
    let calm = |cluster: &Cluster| !cluster.is_rescuing && fit(cluster).len() >= quorum;
    if !run_until(cluster, limit_ns, calm)? {
        return Err(stuck(cluster, "the rescue does not end, or leaves no fit quorum"));
    }
    cluster.may_rescue = false;
    if cluster.swarm.kind != RunKind::Calm {
        heal_core(cluster, &mut random)?;
    }
    let scrubbed = heal_all(cluster, &mut random)?;
    check_all(cluster, &scrubbed)?;
    let scrubbed = once_more(cluster)?;
    check_all(cluster, &scrubbed)?;
    cluster.history.finish()
}

/// Lets time pass until a condition holds at a tick; whether it came to hold.
fn run_until(
    cluster: &mut Cluster,
    until_ns: u64,
    holds: impl Fn(&Cluster) -> bool,
) -> Result<bool, Failure> {
    while cluster.events.now_ns() < until_ns {
        if cluster.step()? && holds(cluster) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn say(cluster: &Cluster, text: &str) {
    cluster.trace.line(cluster.events.now_ns(), Detail::Short, || format!("==== {text}"));
}

/// Voters that can be relied on.
fn fit(cluster: &Cluster) -> Vec<usize> {
    let voters = usize::from(cluster.swarm.replicas);
    (0..voters).filter(|index| cluster.is_fit(*index)).collect()
}

/// Heals a view-change quorum, kills all others or leaves them with slow disks, and demands
/// progress.
fn heal_core(cluster: &mut Cluster, random: &mut Random) -> Result<(), Failure> {
    let mut candidates = fit(cluster);
    let quorum = view_change_quorum(usize::from(cluster.swarm.replicas));
    require!(candidates.len() >= quorum, "the atlas left no fit quorum: {candidates:?}");
    while candidates.len() > quorum {
        let count = candidates.len();
        let drawn = random.index(count);
        let mut places = (drawn..count).chain(0..drawn);
        let Some(out) = places.find(|place| cluster.can_do_without(&candidates, *place)) else {
            break;
        };
        candidates.swap_remove(out);
    }
    candidates.sort_unstable();
    say(cluster, &format!("core {candidates:?}"));
    let nodes = cluster.processes.len();
    let gray = Fault::DiskGray;
    let are_slow = cluster.faults.rate(gray) > 0 && cluster.faults.random(gray).chance(600_000);
    for index in (0..nodes).filter(|index| !candidates.contains(index)) {
        if are_slow {
            continue;
        }
        cluster.kept_down[index] = true;
        if cluster.processes[index].replica.is_some() {
            let powered = random.chance(500_000);
            cluster.kill(index, powered, 0);
        }
    }
    let is_member = |node: usize| node >= nodes || candidates.contains(&node);
    cluster.heal(is_member);
    if are_slow {
        say(cluster, "the others are slow");
        for index in (0..nodes).filter(|index| !candidates.contains(index)) {
            let factor = cluster.faults.random(gray).scale(10, 100);
            cluster.processes[index].gray = Some(Gray { factor, until_ns: u64::MAX });
        }
    }
    cluster.lag_max = CORE_LAG_MAX;
    let answered = cluster.clients.answered();
    let limit_ns = cluster.events.now_ns() + HEAL_LIMIT_NS;
    let done = run_until(cluster, limit_ns, |cluster| {
        let head = cluster.history.head();
        // Clients are held back so that nobody falls out of the log: then a view that works is
        // all that can be demanded.
        let waiting = cluster.must_wait();
        let current = |index: &usize| {
            cluster.processes[*index].is_normal() && cluster.seen[*index].commit == head
        };
        let progress = cluster.clients.answered() >= answered + CORE_ANSWERS;
        progress || (waiting && candidates.iter().all(current))
    })?;
    if !done {
        return Err(stuck(cluster, "the core makes no progress"));
    }
    cluster.kept_down.fill(false);
    cluster.lag_max = atlas::LAG_MAX;
    Ok(())
}

/// Heals everything and demands that all come to the same op and rest, and that then everything is
/// read once, and what rotted meanwhile repaired.
fn heal_all(cluster: &mut Cluster, random: &mut Random) -> Result<Scrubbed, Failure> {
    say(cluster, "all");
    cluster.heal(|_| true);
    cluster.clients.is_asking = false;
    converge(cluster, "the cluster does not come to rest")?;
    if cluster.swarm.kind != RunKind::Calm {
        rot_at_rest(cluster, random);
    }
    let scrubbed = scrub(cluster)?;
    converge(cluster, "the cluster does not come to rest again")?;
    Ok(scrubbed)
}

/// Damages a copy of the superblock, a header and a prepare of each replica, which nobody would
/// read before it starts again. No prepare twice, and none of a replica that votes alone: it has
/// nobody to mend it.
fn rot_at_rest(cluster: &mut Cluster, random: &mut Random) {
    let (config, zones) = (config(), Zones::new(&config()));
    let head = cluster.history.head();
    let voters = u64::from(cluster.swarm.replicas);
    say(cluster, "rot");
    for index in 0..cluster.processes.len() {
        let mut slot_after = |op: u64| {
            let op = op + 1 + random.below(head - op);
            (op, u32::try_from(op % u64::from(config.journal_slots)).expect("few slots"))
        };
        let checkpoint = cluster.seen[index].checkpoint;
        let disk = &mut cluster.processes[index].disk;
        if checkpoint < head {
            let (_, slot) = slot_after(checkpoint);
            disk.corrupt(zones.wal_header_offset(slot));
            let (op, slot) = slot_after(checkpoint);
            if voters > 1 && op % voters == count_of(index) {
                disk.corrupt(zones.wal_prepare_offset(slot));
            }
        }
        let copy = u32::try_from(random.below(SUPERBLOCK_COPIES.into())).expect("few copies");
        disk.corrupt(zones.superblock_offset(copy) + random.below(count_of(COPY_SIZE)));
    }
}

/// Demands that everything is read once more, and so repaired. Pulses go on meanwhile, so that a
/// merge may come due with damage that only the next scrub will find: which blocks were in use when
/// it began.
fn scrub(cluster: &mut Cluster) -> Result<Scrubbed, Failure> {
    let scrubbed = cluster.processes.iter().map(|process| {
        let replica = process.replica.as_ref().expect("all run");
        in_use(&replica.machine.store).collect()
    });
    let scrubbed = scrubbed.collect();
    let scrubs = |cluster: &Cluster| -> Vec<u64> {
        let replicas = cluster.processes.iter().map(|process| process.replica.as_ref());
        replicas.map(|replica| replica.map_or(0, |replica| replica.scrubs())).collect()
    };
    // The one under way may have passed what was damaged since.
    let before = scrubs(cluster);
    let limit_ns = cluster.events.now_ns() + HEAL_LIMIT_NS;
    let done = run_until(cluster, limit_ns, |cluster| {
        scrubs(cluster).iter().zip(&before).all(|(now, before)| *now >= before + 2)
    })?;
    if done { Ok(scrubbed) } else { Err(stuck(cluster, "blocks are missing for good")) }
}

/// Kills everything at once and demands the same again.
fn once_more(cluster: &mut Cluster) -> Result<Scrubbed, Failure> {
    say(cluster, "once more");
    for index in 0..cluster.processes.len() {
        cluster.kill(index, false, 0);
    }
    converge(cluster, "the cluster does not come back")?;
    let scrubbed = scrub(cluster)?;
    converge(cluster, "the cluster does not come to rest again")?;
    Ok(scrubbed)
}

fn converge(cluster: &mut Cluster, complaint: &str) -> Result<(), Failure> {
    let limit_ns = cluster.events.now_ns() + HEAL_LIMIT_NS;
    let done = run_until(cluster, limit_ns, |cluster| {
        let head = cluster.history.head();
        let at_head = cluster.seen.iter().all(|seen| seen.commit == head);
        let rests = |index: usize| {
            let process = &cluster.processes[index];
            let log = process.replica.as_ref().is_some_and(|replica| replica.is_log_whole());
            let whole = log && !cluster.syncing[index] && !cluster.recovering[index];
            process.is_normal() && process.is_quiet() && whole
        };
        at_head && cluster.clients.is_idle() && (0..cluster.processes.len()).all(rests)
    })?;
    if done { Ok(()) } else { Err(stuck(cluster, complaint)) }
}

fn stuck(cluster: &Cluster, complaint: &str) -> Failure {
    let mut lines = vec![format!("{complaint}; head {}", cluster.history.head())];
    for (index, process) in cluster.processes.iter().enumerate() {
        let seen = &cluster.seen[index];
        let (status, quiet) = (process.status(), process.is_quiet());
        let damaged = atlas::first_damage(process)
            .map_or(String::new(), |(zone, offset)| format!(", log damaged: {zone} at {offset}"));
        let (view, commit, checkpoint) = (seen.view, seen.commit, seen.checkpoint);
        lines.push(format!(
            "  replica {index}: {status:?} view {view} commit {commit} (once {}) checkpoint \
             {checkpoint}, quiet: {quiet}{damaged}",
            cluster.commit_max[index]
        ));
        if let Some(replica) = &process.replica {
            lines.push(format!("    {}", replica.describe()));
        }
    }
    for index in 0..cluster.clients.len() {
        lines.push(format!("  {}", cluster.clients.describe(index)));
    }
    Failure::liveness(lines.join("\n"))
}

/// Looks at all disks at rest.
fn check_all(cluster: &Cluster, scrubbed: &[BTreeSet<u64>]) -> Result<(), Failure> {
    let config = config();
    let head = cluster.history.head();
    for (index, process) in cluster.processes.iter().enumerate() {
        // The scrub has found what rotted while nobody looked, but cannot mend it without peers.
        if cluster.swarm.replicas > 1 || !atlas::log_is_damaged(process) {
            let ops = cluster.seen[index].checkpoint + 1..=head;
            check_log(index, &process.disk, &config, ops, &cluster.history)?;
        }
        check_superblock(index, &process.disk, &config)?;
        let messages = process.messages_held();
        let replica = process.replica.as_ref().expect("all run");
        if let Some(superblock) = replica.durable_superblock() {
            let free_set = replica.machine.store.grid().free_set();
            // A replica that votes alone has nobody to mend its blocks: none of them is damaged.
            let is_alone = cluster.swarm.replicas == 1;
            let was_read = |address| is_alone || scrubbed[index].contains(&address);
            let is_needed = |address| free_set.is_acquired(address) && was_read(address);
            check_references(index, &process.disk, superblock, is_needed)?;
            if !is_alone {
                let both = in_use(&replica.machine.store).filter(|address| was_read(*address));
                cluster.blocks.rest(index, &process.disk, both)?;
            }
        }
        let sessions = u32::try_from(replica.sessions_count()).expect("few sessions");
        require!(
            messages <= sessions + config.clients_max + RecentPrepares::places(config.pipeline_max),
            "replica {index} holds {messages} messages at rest, of which {sessions} are sessions'"
        );
        let compares =
            atlas::GRID_HARM.into_iter().all(|fault| cluster.faults.counts()[fault as usize] == 0)
                && !cluster.ever_synced[0]
                && !cluster.ever_synced[index];
        if compares && cluster.seen[index].checkpoint == cluster.seen[0].checkpoint {
            let disks = (&cluster.processes[0].disk, &process.disk);
            check_grids((0, index), disks, &config)?;
        }
    }
    Ok(())
}

/// How many ticks fit a simulated second.
pub const TICKS_PER_SECOND: u64 = SECOND_NS / TICK_NS;

#[cfg(test)]
mod tests {
    use super::super::swarm::Overrides;
    use super::*;

    /// Goal: the same seed gives the same run, and another seed another.
    #[test]
    fn same_seed_same_run() {
        let overrides = Overrides { replicas: Some(1), requests: Some(60), ..Overrides::default() };
        let hash = |seed| {
            let swarm = Swarm::draw(seed, &overrides);
            run(&swarm, Detail::None).unwrap_or_else(|failure| panic!("{failure}")).hash
        };
        assert_eq!(hash(5), hash(5));
        assert_ne!(hash(5), hash(6));
    }
}
