//! What happens to the replicas and their network, one after the other, and is taken back.

use crate::proxy::Link;
use crate::replicas::Cluster;
use florin::client::Random;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How long a fault lasts, in milliseconds: at least, and more at most.
const HOLD_MS: (u64, u64) = (300, 1_000);
/// Time to recover from a fault, in milliseconds.
const SETTLE: Duration = Duration::from_millis(700);

/// A fault of some replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The processes are killed, and started again.
    Kill,
    /// The processes are stopped where they stand, and go on.
    Stop,
    /// Nothing reaches them and nothing leaves them.
    Isolate,
    /// What they send to other replicas does not arrive.
    Mute,
    /// What other replicas send does not reach them.
    Deafen,
    /// All connections from and to them end.
    Cut,
    /// Bytes to and from them are damaged.
    Damage,
    /// Everything from and to them takes longer.
    Delay,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] = [
        Kind::Kill,
        Kind::Stop,
        Kind::Isolate,
        Kind::Mute,
        Kind::Deafen,
        Kind::Cut,
        Kind::Damage,
        Kind::Delay,
    ];
}

/// Kills and stops each replica in turn, at most `together` at a time, with the other faults in
/// between in random places; last, all are killed at once.
pub fn run(cluster: &mut Cluster, together: usize, random: &mut Random) {
    let count = cluster.count();
    for (round, kinds) in Kind::ALL[2..].iter().cycle().zip(0..count).map(|(a, b)| (b, *a)) {
        let victims: Vec<usize> = (0..together).map(|offset| (round + offset) % count).collect();
        inflict(cluster, Kind::Kill, &victims, random);
        let first = usize::try_from(random.below(count as u64)).expect("few replicas");
        let others: Vec<usize> = (0..together).map(|offset| (first + offset) % count).collect();
        inflict(cluster, kinds, &others, random);
        inflict(cluster, Kind::Stop, &victims, random);
    }
    if count == 3 {
        // Too few rounds for all kinds.
        for kind in &Kind::ALL[2 + count..] {
            inflict(cluster, *kind, &[0], random);
        }
    }
    inflict(cluster, Kind::Kill, &(0..count).collect::<Vec<usize>>(), random);
}

/// One fault, from its beginning to the end of the time to recover from it.
fn inflict(cluster: &mut Cluster, kind: Kind, victims: &[usize], random: &mut Random) {
    println!("  {kind:?} {victims:?}");
    for index in victims {
        begin(cluster, kind, *index);
    }
    thread::sleep(Duration::from_millis(HOLD_MS.0 + random.below(HOLD_MS.1)));
    for index in victims {
        end(cluster, kind, *index);
    }
    thread::sleep(SETTLE);
}

/// All links that a replica has to do with.
fn links(cluster: &Cluster, index: usize) -> Vec<Arc<Link>> {
    let mut links = cluster.links_from(index);
    links.extend(cluster.links_to(index));
    links.push(Arc::clone(cluster.client_link(index)));
    links
}

fn begin(cluster: &mut Cluster, kind: Kind, index: usize) {
    match kind {
        Kind::Kill => cluster.kill(index),
        Kind::Stop => cluster.pause(index),
        Kind::Isolate => set_blocked(&links(cluster, index), true),
        Kind::Mute => set_blocked(&cluster.links_from(index), true),
        Kind::Deafen => set_blocked(&cluster.links_to(index), true),
        Kind::Cut => links(cluster, index).iter().for_each(|link| link.cut()),
        Kind::Damage => links(cluster, index).iter().for_each(|link| link.damage()),
        Kind::Delay => set_delay(&links(cluster, index), Duration::from_millis(20)),
    }
}

fn end(cluster: &mut Cluster, kind: Kind, index: usize) {
    match kind {
        Kind::Kill => cluster.spawn(index),
        Kind::Stop => cluster.resume(index),
        Kind::Isolate => set_blocked(&links(cluster, index), false),
        Kind::Mute => set_blocked(&cluster.links_from(index), false),
        Kind::Deafen => set_blocked(&cluster.links_to(index), false),
        Kind::Cut | Kind::Damage => {}
        Kind::Delay => set_delay(&links(cluster, index), Duration::ZERO),
    }
}

fn set_blocked(links: &[Arc<Link>], blocked: bool) {
    for link in links {
        link.set_blocked(blocked);
    }
}

fn set_delay(links: &[Arc<Link>], delay: Duration) {
    for link in links {
        link.set_delay(delay);
    }
}
