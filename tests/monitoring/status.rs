//! `florin status` of real clusters, and `florin doctor` on this machine.

use super::free_port::free_port;
use super::servers::{Servers, errors, florin, wait_for};
use std::process::Output;

fn status(cluster: u32, addresses: &str, more: &[&str]) -> Output {
    let cluster = format!("--cluster={cluster}");
    let addresses = format!("--addresses={addresses}");
    florin(&[&["status", &cluster, &addresses], more].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits for an exit code, and returns the output.
fn wait_for_code(cluster: u32, addresses: &str, code: i32) -> String {
    wait_for(&format!("exit code {code} of status"), || {
        let output = status(cluster, addresses, &[]);
        (output.status.code() == Some(code)).then(|| text(&output))
    })
}

/// Goal: a cluster of three is healthy, degraded with one killed, and unavailable with two.
#[test]
fn three_replicas() {
    let mut servers = Servers::new("status");
    let ports: [u16; 3] = std::array::from_fn(|_| free_port());
    let list = format!("{},{},{}", ports[0], ports[1], ports[2]);
    for replica in 0..3 {
        servers.format(&replica.to_string(), 7, replica, 3);
    }
    for replica in 0..3 {
        servers.start(&replica.to_string(), &[&format!("--addresses={list}")]);
    }
    let table = wait_for_code(7, &list, 0);
    assert!(table.starts_with("cluster 7: healthy, version "), "{table}");
    assert_eq!(table.matches("primary").count(), 1, "{table}");
    assert_eq!(table.matches("backup").count(), 2, "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");

    let swapped = format!("{},{},{}", ports[1], ports[0], ports[2]);
    let table = wait_for_code(7, &swapped, 10);
    let right = [0, 1, 2].map(|place: usize| format!("127.0.0.1:{}", ports[place])).join(",");
    assert!(table.contains(&format!("the right list is {right}")), "{table}");
    let part = format!("{},{}", ports[0], ports[1]);
    // A machine that stands still for a moment makes it 7, as long as that lasts.
    let table = wait_for_code(7, &part, 10);
    assert!(table.contains("lists 2 of 3 replicas"), "{table}");
    let output = status(8, &list, &[]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output).contains("another cluster's id"), "{}", text(&output));

    servers.kill("2");
    let table = wait_for("a refusal", || {
        let table = wait_for_code(7, &list, 10);
        table.contains("connection refused").then_some(table)
    });
    assert!(table.contains("unreachable"), "{table}");
    servers.kill("1");
    // At once, although the last one has heard the others a moment ago.
    let output = status(7, &list, &[]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert!(text(&output).starts_with("cluster 7: unavailable"), "{}", text(&output));
    let output = status(7, &list, &["--json"]);
    assert_eq!(output.status.code(), Some(7));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["state"], "unavailable");
    assert_eq!(value["replicas"][0]["reachable"], true);
    assert_eq!(value["replicas"][1]["reachable"], false);
}

/// Goal: a cluster of one is healthy; names without an address and other services are unreachable.
#[test]
fn one_replica() {
    let mut servers = Servers::new("status-one");
    servers.format("0", 0, 0, 1);
    let port = free_port().to_string();
    servers.start("0", &[&format!("--addresses={port}")]);
    let table = wait_for_code(0, &port, 0);
    assert!(table.contains("primary"), "{table}");
    let output = status(0, "no.such.invalid:1", &[]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output).contains("`no.such.invalid` has no address"), "{}", text(&output));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = status(0, &address, &["--timeout=1"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output).contains("no answer within 1 s"), "{}", text(&output));
}

/// Goal: the doctor checks a data file and a place for one, and its exit code is 4 if no server can
/// start.
#[test]
fn doctor() {
    let servers = Servers::new("doctor");
    let path = servers.format("0", 7, 0, 2);
    let output = florin(&["doctor", "--development", &path]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", errors(&output));
    assert!(shown.contains("cluster 7, replica 0 of 2, development"), "{shown}");
    // Advice is broken into lines.
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("one or three are better"), "{shown}");
    for check in ["kernel", "io_uring", "memory", "direct I/O", "disk space", "clock"] {
        assert!(shown.lines().any(|line| line.contains(check)), "{check}: {shown}");
    }
    // A path is not cut, however long it is.
    let folder = std::env::temp_dir().display().to_string();
    let is_narrow = |line: &str| line.chars().count() <= 80 || line.contains(&folder);
    assert!(shown.lines().all(is_narrow), "{shown}");
    let output = florin(&["doctor", "--json", "/no/such/place/0_0.florin"]);
    assert_eq!(output.status.code(), Some(4));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["ok"], false);
    assert!(errors(&output).contains("a server cannot be started here: "), "{}", errors(&output));
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let own = left.filter(|it| {
        let name = it.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".florin-doctor")
    });
    assert_eq!(own.count(), 0, "nothing is left behind");
}
