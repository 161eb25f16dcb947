//! Wrong set-ups: one line reports each, and names the fault.

use super::free_port::free_port;
use super::servers::{Servers, errors, florin};

/// Goal: a fault that shows before a server starts is refused with its class, naming both values.
#[test]
fn refused_at_start() {
    let mut servers = Servers::new("setups");
    let one = servers.format("one", 7, 0, 1);
    let three = servers.format("three", 7, 1, 3);
    let running = servers.format("running", 7, 0, 1);
    let port = free_port();
    servers.start("running", &[&format!("--addresses={port}")]);
    servers.wait_for_line("running", "listening on");
    let no_data = servers.path("no-data");
    std::fs::write(&no_data, vec![7; 100_000]).unwrap();
    let free = free_port();
    let cases: [(String, &str, i32, &str); 8] = [
        (format!("{port}"), &one, 5, "another process uses that port"),
        (format!("{free}"), &running, 3, "is in use by another process"),
        (format!("{free}"), "/no/such/file", 3, "does not exist"),
        (format!("{free}"), &no_data, 6, "fewer than 2 of 4 copies agree"),
        (format!("{free},{}", free_port()), &one, 2, "is of a cluster of one replica: list one"),
        (format!("{free}"), &three, 2, "lists 1 and"),
        (format!("{free},{port},3999"), &three, 5, "is of replica 1, whose address is entry 2"),
        (format!("{free},192.0.2.1:9,3999"), &three, 5, "this machine has no such address"),
    ];
    for (addresses, path, code, part) in cases {
        let output = florin(&["start", "--development", &format!("--addresses={addresses}"), path]);
        let told = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{addresses} {path}: {told}");
        assert!(told.contains(part), "{part}: {told}");
        assert_eq!(told.lines().filter(|line| line.contains("Z error   ")).count(), 1, "{told}");
    }
    let two = servers.path("two");
    let arguments =
        ["format", "--development", "--cluster=7", "--replica=0", "--replica-count=2", &two];
    let output = florin(&arguments);
    assert!(output.status.success());
    assert!(errors(&output).contains("warning"), "{}", errors(&output));
}

/// Goal: too little memory is refused with both figures.
#[test]
fn too_little_memory() {
    let servers = Servers::new("machine");
    let path = servers.format("one", 7, 0, 1);
    let addresses = format!("--addresses={}", free_port());
    let output = florin(&["start", &addresses, "--cache-grid=900TiB", &path]);
    assert_eq!(output.status.code(), Some(4), "{}", errors(&output));
    let told = errors(&output);
    assert!(
        told.contains("not enough memory: the server needs ") && told.contains("TiB"),
        "{told}"
    );
}

/// Goal: replicas of one cluster that were started with different lists, or formatted with
/// different counts, report that with both values; so does one of another cluster.
#[test]
fn replicas_that_differ() {
    let mut servers = Servers::new("differ");
    let ports: [u16; 3] = std::array::from_fn(|_| free_port());
    let [a, b, c] = ports;
    servers.format("0", 7, 0, 3);
    servers.start("0", &[&format!("--addresses={a},{b},{c}")]);
    servers.wait_for_line("0", "listening on");

    servers.format("1", 7, 1, 3);
    servers.start("1", &[&format!("--addresses={c},{b},{a}")]);
    let line = servers.wait_for_line("0", "expects replica 2 here, and this is replica 0");
    assert!(
        line.contains("Z warning replica=0 closed a connection from 127.0.0.1: replica 1"),
        "{line}"
    );
    assert!(line.contains("--addresses must be the same list in the same order"), "{line}");
    let own = format!("replica 0 listens on 127.0.0.1:{a}, which is entry 3 of --addresses here");
    let line = servers.wait_for_line("1", &own);
    assert!(line.contains("and must be entry 1"), "{line}");
    servers.kill("1");
    servers.kill("0");

    servers.start("0", &[&format!("--addresses={a},{b},{c}"), "--log-format=json"]);
    servers.wait_for_line("0", "listening on");
    let d = free_port();
    servers.format("other", 7, 1, 4);
    servers.start("other", &[&format!("--addresses={a},{b},{c},{d}")]);
    let line = servers.wait_for_line("0", "is of a cluster of 4 replicas");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["level"], "warning");
    let message = value["message"].as_str().unwrap();
    assert!(message.contains("and this one is of a cluster of 3"), "{message}");
    assert!(value["time"].as_f64().unwrap() > 1.6e9);
    servers.kill("other");

    servers.format("stranger", 8, 1, 3);
    servers.start("stranger", &[&format!("--addresses={a},{b},{c}")]);
    let line = servers.wait_for_line("0", "it is for cluster 8, and this is cluster 7");
    assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    let log = servers.log("0");
    assert!(
        log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{log}"
    );
}

/// Goal: a log level leaves out lines of lower levels.
#[test]
fn log_levels() {
    let mut servers = Servers::new("levels");
    servers.format("0", 7, 0, 3);
    let [a, b, c]: [u16; 3] = std::array::from_fn(|_| free_port());
    servers.start("0", &[&format!("--addresses={a},{b},{c}"), "--log-level=warning"]);
    servers.wait_for_line("0", "Z warning replica=0 no connection to replica");
    assert!(!servers.log("0").contains("listening on"), "{}", servers.log("0"));
    assert!(!servers.log("0").contains("memory reserved"), "{}", servers.log("0"));
}
