//! A server that is asked to end ends with 0, whatever it is doing.

use super::support::{BINARY, Directory, Process, text, wait_for};
use florin::client::Random;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Starts in all, and threads that share them.
const STARTS: u64 = 200;
const THREADS: u64 = 4;
/// The longest delay of a signal, in milliseconds.
const DELAY_MAX_MS: u64 = 150;

/// Goal: a signal at any moment of the first 150 ms ends `start` and `dev` with 0.
#[test]
fn at_random_moments() {
    let start = |seed| std::thread::spawn(move || start_many(seed));
    let workers: Vec<_> = (0..THREADS).map(start).collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

fn start_many(seed: u64) {
    let directory = Directory::new(&format!("signals-{seed}"));
    let path = directory.format("0_0.florin", 0, 1, &["--development"]);
    let mut random = Random::new(seed, 0);
    for round in 0..STARTS / THREADS {
        let delay = Duration::from_micros(random.below(DELAY_MAX_MS * 1000));
        let signal = if round % 2 == 0 { "-TERM" } else { "-INT" };
        let arguments: &[&str] = match round % 3 {
            0 => &["start", "--development", "--addresses=0"],
            // Makes its data file, too.
            1 => &["dev", "--address=0"],
            _ => &["dev", "--address=localhost:0"],
        };
        let new = directory.path("new.florin");
        let _ = std::fs::remove_file(&new);
        let input = if arguments[0] == "start" { Stdio::piped() } else { Stdio::null() };
        let mut process = Process::spawn(
            Command::new(BINARY)
                .args(arguments)
                .arg(if round % 3 == 1 { &new } else { &path })
                .stdin(input)
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        // Before, it is not this program that runs, but the loader.
        process.wait_main();
        std::thread::sleep(delay);
        process.signal(signal);
        process.expect_zero(&format!("{arguments:?} {signal} after {delay:?}, seed {seed}"));
    }
}

/// Goal: a server that reserves gigabytes, which takes seconds, says so at once, and ends with 0
/// when it is asked to.
#[test]
fn while_memory_is_reserved() {
    let directory = Directory::new("signals-memory");
    let path = directory.format("0_0.florin", 0, 1, &[]);
    let mut process = Process::spawn(
        Command::new(BINARY)
            .args(["start", "--addresses=127.0.0.1:1", "--cache-grid=1GiB", &path])
            .stderr(Stdio::piped()),
    );
    let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains(&format!("starting: data file {path}")), "{first}");
    let second = lines.next().unwrap().unwrap();
    assert!(second.contains("replica 0 of cluster 7") && second.contains("reserving"), "{second}");
    process.signal("-TERM");
    process.expect_zero("while memory is reserved");
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(rest.last().unwrap().contains("ended by SIGTERM before"), "{rest:?}");
}

/// Goal: a server that waits for a port that another process has ends with 0 at once.
#[test]
fn while_it_waits_for_a_port() {
    let directory = Directory::new("signals-port");
    let path = directory.format("0_0.florin", 0, 1, &["--development"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--addresses={}", taken.local_addr().unwrap());
    let mut process = Process::spawn(
        Command::new(BINARY)
            .args(["start", "--development", &address, &path])
            .stderr(Stdio::piped()),
    );
    let mut errors = process.0.stderr.take().unwrap();
    let mut first = [0; 1];
    errors.read_exact(&mut first).unwrap();
    // It waits for two seconds: most signals come in them.
    std::thread::sleep(Duration::from_millis(700));
    process.signal("-TERM");
    process.expect_zero("while it waits for a port");
    let mut rest = Vec::new();
    errors.read_to_end(&mut rest).unwrap();
    assert!(!text(&rest).contains("cannot listen"), "{}", text(&rest));
}

/// Goal: every thread of a server that serves blocks both signals, so that its loop takes them. The
/// thread that looks up names of other replicas could end the process with replies in flight.
#[test]
fn while_it_looks_up_names() {
    let directory = Directory::new("signals-names");
    let path = directory.format("0_0.florin", 0, 3, &["--development"]);
    let [port, metrics] = std::array::from_fn(|_| super::free_port::free_port());
    let mut process = Process::spawn(
        Command::new(BINARY)
            .args(["start", "--development", &format!("--metrics={metrics}")])
            .arg(format!("--addresses=localhost:{port},localhost:1,no.such.name.invalid:2"))
            .arg(&path)
            .stderr(Stdio::piped()),
    );
    let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("data file opened")).unwrap();
    let blocked = process.blocked_by_thread();
    let both = 1 << (libc::SIGINT - 1) | 1 << (libc::SIGTERM - 1);
    assert!(blocked.len() >= 4, "the loop, the helper, metrics, names: {blocked:x?}");
    assert!(blocked.iter().all(|(_, set)| set & both == both), "{blocked:x?}");
    process.signal("-TERM");
    process.expect_zero("while it looks up names");
    let rest: Vec<String> = lines.collect();
    assert!(rest.last().unwrap().ends_with("ended by SIGTERM"), "{rest:?}");
}

/// Goal: a signal while `dev` makes its data file leaves a whole one, or none.
#[test]
fn while_a_data_file_is_made() {
    let directory = Directory::new("signals-dev");
    for round in 0..20 {
        let path = directory.path(&format!("{round}.florin"));
        let mut process = Process::spawn(
            Command::new(BINARY)
                .args(["dev", "--address=0", &path])
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        wait_for("the data file", || std::fs::exists(&path).unwrap().then_some(()));
        process.signal("-TERM");
        process.expect_zero("while a data file is made");
        let output = super::support::florin(&["inspect", "superblock", &path]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}
