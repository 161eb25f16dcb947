//! Real clusters over loopback, through a network that misbehaves, with replicas that are killed
//! and stopped in turn. Bounded in time: about half a minute each.
//!
//! The clients' requests are a random workload on common accounts. Afterwards everything that they
//! were answered is put in order and compared with the reference model: no acknowledged transfer
//! may be lost, changed or doubled, no read may be stale, and nobody may be left without an answer.
//! In the end the data files of all replicas have the same checkpoint. `FLORIN_CLUSTER_SEED`
//! chooses another seed.

mod faults;
#[path = "../support/free_port.rs"]
mod free_port;
mod load;
#[path = "../support/program.rs"]
mod program;
mod proxy;
mod replicas;

use florin::client::Random;
use load::Load;
use replicas::{CLUSTER, Cluster};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

/// The machine is small: one cluster at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const CLIENTS: usize = 4;

fn seed() -> u64 {
    let text = std::env::var("FLORIN_CLUSTER_SEED").unwrap_or_else(|_| "1".to_owned());
    text.parse().expect("FLORIN_CLUSTER_SEED is a number")
}

/// Whoever holds this may start a cluster.
fn turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs so many replicas through all faults, which hit at most `together` of them at a time.
fn survive(name: &str, replicas: usize, together: usize) {
    let _turn = turn();
    let seed = seed();
    let mut cluster = Cluster::start(name, replicas);
    let load = Load::start(CLUSTER, cluster.client_addresses(), CLIENTS, seed);
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

/// Goal: programs are replaced by those of the next release one after another under load; the new
/// rules come into force when all know them, and from then on the old program refuses to start.
#[test]
fn upgrade() {
    let _turn = turn();
    let mut cluster = Cluster::start("upgrade", 3);
    let load = Load::start(CLUSTER, cluster.client_addresses(), CLIENTS, seed());
    let (old, new) = (env!("CARGO_PKG_VERSION"), "99.0.0");
    for index in 0..3 {
        // Until all are of the new release the old one may come back.
        cluster.replace(index, new);
        if index == 1 {
            cluster.wait_for_release(old);
            cluster.replace(index, old);
            cluster.replace(index, new);
        }
        let answers = load.answers();
        cluster.wait_until("the cluster goes on", || load.answers() > answers + 20);
    }
    cluster.wait_for_release(new);
    let message = cluster.refused(2, old);
    assert!(message.contains("install release 99.0.0 or a later one"), "{message}");
    cluster.spawn_as(2, new);
    cluster.wait_up(2);
    println!("upgrade: {} answers are those of the model", load.finish());
    cluster.agree_and_stop();
}

/// Goal: official clients carry on through the same, and find what they were acknowledged, once.
/// Needs `FLORIN_PYTHON`, a Python that has the official client: `tools/test` provides one.
#[test]
#[ignore = "needs the official Python client, run by tools/test"]
fn official_clients() {
    let _turn = turn();
    let python = std::env::var("FLORIN_PYTHON").expect("FLORIN_PYTHON names a Python");
    let mut cluster = Cluster::start("official", 3);
    let addresses: Vec<String> =
        cluster.client_addresses().iter().map(ToString::to_string).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/cluster/clients.py");
    let mut clients = Command::new(python)
        .arg(script)
        .args([CLUSTER.to_string(), addresses.join(",")])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the clients start");
    faults::run(&mut cluster, 1, &mut Random::new(seed(), 1));
    // They end with their input, and check.
    drop(clients.stdin.take());
    let status = clients.wait().expect("the clients were started");
    assert!(status.success(), "{status}\n{}", cluster.logs());
    cluster.agree_and_stop();
}
