//! Real clusters over loopback, through a network that misbehaves, with replicas that are killed
//! and stopped in turn. Bounded in time: about half a minute each.
//!
//! The clients' requests are a random workload on common accounts. Afterwards everything that they
//! were answered is put in order and compared with the reference model: no acknowledged transfer
//! may be lost, changed or doubled, no read may be stale, and nobody may be left without an answer.
//! In the end the data files of all replicas have the same checkpoint. `FLORIN_CLUSTER_SEED`
//! chooses another seed.

mod faults;
mod load;
mod proxy;
mod replicas;

use florin::client::Random;
use load::Load;
use replicas::Cluster;
use std::sync::Mutex;

/// The machine is small: one cluster at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const CLIENTS: usize = 4;

fn seed() -> u64 {
    let text = std::env::var("FLORIN_CLUSTER_SEED").unwrap_or_else(|_| "1".to_owned());
    text.parse().expect("FLORIN_CLUSTER_SEED is a number")
}

/// Runs so many replicas through all faults, which hit at most `together` of them at a time.
fn survive(name: &str, replicas: usize, together: usize) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seed = seed();
    let mut cluster = Cluster::start(name, replicas);
    let load = Load::start(cluster.id(), cluster.client_addresses(), CLIENTS, seed);
    faults::run(&mut cluster, together, &mut Random::new(seed, 0));
    assert!(load.answers() > 100, "the cluster made progress\n{}", cluster.logs());
    let passed = (0..replicas).filter(|index| cluster.client_link(*index).passed() > 0).count();
    assert!(passed > 1, "clients talked to {passed} replicas");
    let answers = load.finish();
    println!("{name}, seed {seed}: {answers} answers are those of the model");
    cluster.agree_and_stop();
}

/// Goal: three replicas, of which one at a time is in trouble, and all at the end.
#[test]
fn three_replicas() {
    survive("three", 3, 1);
}

/// Goal: six replicas, of which two at a time are in trouble, and all at the end.
#[test]
fn six_replicas() {
    survive("six", 6, 2);
}
