//! Clients that lose their sessions or find no place: what the log and the metrics say.

use super::free_port::free_port;
use super::servers::{Servers, wait_for};
use florin::client::{Client, Options};
use std::io::{Read, Write};
use std::net::TcpStream;

fn metric(port: u16, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let line = answer.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Goal: a session that makes way for a new one, the eviction of its client, and connections that
/// find no place are logged and counted.
#[test]
fn sessions_and_places() {
    let mut servers = Servers::new("evictions");
    servers.format("0", 7, 0, 1);
    let (port, metrics) = (free_port(), free_port());
    servers.start("0", &[&format!("--addresses={port}"), &format!("--metrics={metrics}")]);
    servers.wait_for_line("0", "listening on");
    let address = format!("127.0.0.1:{port}");
    let connect = || Client::connect(7, &address[..], &Options::default()).unwrap();
    let mut idle = connect();
    for _ in 0..64 {
        drop(connect());
    }
    servers.wait_for_line("0", "displaced the session of client ");
    let displaced = || metric(metrics, "florin_sessions_displaced_total").filter(|it| *it > 0.0);
    wait_for("a displaced session", displaced);
    assert!(idle.lookup_accounts(&[1]).is_err());
    let line = servers.wait_for_line("0", "evicted client ");
    assert!(line.contains(" at 127.0.0.1:") && line.contains("it has no session"), "{line}");
    let name = "florin_evictions_total{reason=\"no_session\"}";
    wait_for("an eviction", || metric(metrics, name).filter(|it| *it > 0.0));
    let places: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    servers.wait_for_line("0", "refused connections: ");
    drop(places);
}
