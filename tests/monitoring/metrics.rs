//! Metrics and health of real servers.

use super::free_port::free_port;
use super::servers::{Servers, errors, florin, wait_for};
use florin::client::{Client, Options, parse_address};
use florin::protocol::types::{Account, Transfer};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// Status and body of an answer; none if nobody listens yet.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The value of a sample; none while it is not there.
fn sample(address: SocketAddr, name: &str) -> Option<f64> {
    let (status, body) = get(address, "/metrics")?;
    assert_eq!(status, 200);
    body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn account(id: u128) -> Account {
    Account { id, ledger: 1, code: 1, ..Account::default() }
}

/// Goal: a server tells what it did, is ready and healthy, sends the same to StatsD, and slow
/// connections to its metrics change nothing of that.
#[test]
fn a_cluster_of_one() {
    let mut servers = Servers::new("one");
    servers.format("0", 7, 0, 1);
    let (port, metrics_port) = (free_port(), free_port());
    let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
    let statsd_address = statsd.local_addr().unwrap();
    let metrics = SocketAddr::from(([127, 0, 0, 1], metrics_port));
    servers.start(
        "0",
        &[
            &format!("--addresses={port}"),
            &format!("--metrics={metrics_port}"),
            &format!("--statsd={statsd_address}"),
        ],
    );
    servers.wait_for_line("0", &format!("metrics at http://{metrics}/metrics"));
    wait_for("readiness", || get(metrics, "/readyz").filter(|(status, _)| *status == 200));
    assert_eq!(get(metrics, "/healthz"), Some((200, "ok\n".to_owned())));

    let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(metrics).unwrap()).collect();
    let address = parse_address(&port.to_string()).unwrap();
    let mut client = Client::connect(7, &[address], &Options::default()).unwrap();
    client.create_accounts(&[account(1), account(2)]).unwrap();
    let transfer = Transfer {
        id: 5,
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 10,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    };
    client.create_transfers(&[transfer, Transfer { id: 6, amount: 11, ..transfer }]).unwrap();
    client.create_transfers(&[transfer]).unwrap();
    let has = |name: &str, value: f64| {
        wait_for(name, || sample(metrics, name).filter(|it| (it - value).abs() < 0.1));
    };
    has("florin_transfer_results_total{status=\"created\"}", 2.0);
    has("florin_transfer_results_total{status=\"exists\"}", 1.0);
    has("florin_account_results_total{status=\"created\"}", 2.0);
    has("florin_commit_op", 4.0);
    has("florin_sessions", 1.0);
    has("florin_stage_seconds_count{stage=\"request\"}", 4.0);
    has("florin_stage_seconds_count{stage=\"log\"}", 4.0);
    has("florin_stage_seconds_count{stage=\"execute\"}", 4.0);
    has("florin_info{version=\"0.2.0\",cluster=\"7\",replica=\"0\",replica_count=\"1\"}", 1.0);
    assert!(sample(metrics, "florin_memory_reserved_bytes").unwrap() > 1e8);
    drop(silent);

    statsd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut buffer = [0; 2048];
    let count = statsd.recv(&mut buffer).unwrap();
    let line = String::from_utf8_lossy(&buffer[..count]).lines().next().unwrap().to_owned();
    assert!(line.starts_with("florin.") && line.contains("|#cluster:7,replica:0"), "{line}");
}

/// Goal: a replica without the others is healthy and not ready, and says why; with one more it is,
/// and tells of the other's lag, and of its silence once that is killed.
#[test]
fn a_replica_of_three() {
    let mut servers = Servers::new("three");
    let ports: [u16; 3] = std::array::from_fn(|_| free_port());
    let addresses = format!("--addresses={},{},{}", ports[0], ports[1], ports[2]);
    let metrics_port = free_port();
    let metrics = SocketAddr::from(([127, 0, 0, 1], metrics_port));
    for replica in 0..2 {
        servers.format(&replica.to_string(), 7, replica, 3);
    }
    servers.start("0", &[&addresses, &format!("--metrics={metrics_port}")]);
    let (status, reason) = wait_for("an answer", || {
        get(metrics, "/readyz").filter(|(_, body)| !body.starts_with("opening"))
    });
    assert_eq!(status, 503);
    assert!(
        reason.starts_with("no_quorum: ") && reason.contains("replica 1 heard never"),
        "{reason}"
    );
    assert_eq!(get(metrics, "/healthz").unwrap().0, 200);

    servers.start("1", &[&addresses]);
    wait_for("readiness", || get(metrics, "/readyz").filter(|(status, _)| *status == 200));
    wait_for("no lag", || {
        sample(metrics, "florin_replica_lag_ops{replica=\"1\"}").filter(|lag| *lag < 0.5)
    });
    wait_for("the time", || sample(metrics, "florin_clock_error_seconds"));
    assert_eq!(sample(metrics, "florin_replica_lag_ops{replica=\"2\"}"), None);
    servers.kill("1");
    let silence = "florin_replica_silence_seconds{replica=\"1\"}";
    wait_for("silence", || sample(metrics, silence).filter(|seconds| *seconds > 0.5));
}

/// Goal: addresses for metrics that cannot be are refused, with the option's name.
#[test]
fn wrong_addresses() {
    let servers = Servers::new("wrong");
    let path = servers.format("0", 7, 0, 1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (option, code, part) in [
        (format!("--metrics={taken}"), 5, "another process uses that port"),
        ("--metrics=70000".to_owned(), 2, "--metrics: "),
        ("--statsd=no.such.invalid:1".to_owned(), 2, "--statsd: "),
        ("--metrics=3999".to_owned(), 2, "is for clients: choose another port"),
    ] {
        let output = florin(&["start", "--development", "--addresses=3999", &option, &path]);
        assert_eq!(output.status.code(), Some(code), "{}", errors(&output));
        assert!(errors(&output).contains(part), "{}", errors(&output));
    }
}
