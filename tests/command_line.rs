//! The binary as people and programs use it: formatted, started, stopped, started again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[path = "support/program.rs"]
mod program;
#[path = "support/serve_dev.rs"]
mod serve_dev;

use florin::client::{Client, Options, parse_address};
use florin::protocol::types::{Account, Transfer};
use serve_dev::serve_dev;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const CREATED: u32 = u32::MAX;

fn florin(arguments: &[&str]) -> Command {
    let mut command = program::florin();
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    florin(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory of this test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let name = format!("florin-test-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn format(path: &str) {
    let arguments =
        ["format", "--cluster=7", "--replica=0", "--replica-count=1", "--development", path];
    let output = output(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(Path::new(path).exists());
}

/// Starts a server on a free port; ends with the pipe to its input.
fn start(path: &str) -> (Child, SocketAddr) {
    let mut child = florin(&["start", "--addresses=0", "--development", path])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = parse_address(line.trim()).unwrap();
    (child, address)
}

fn connect(address: SocketAddr) -> Client {
    Client::connect(7, &[address], &Options::default()).unwrap()
}

fn account(id: u128) -> Account {
    Account { id, ledger: 1, code: 1, ..Account::default() }
}

fn transfer(id: u128) -> Transfer {
    Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 10,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    }
}

/// Goal: what was answered is there after a clean end, by input or by signal, and after a crash.
#[test]
fn serves_across_restarts() {
    let directory = Directory::new("restarts");
    let path = directory.file("data.florin");
    format(&path);

    let (mut child, address) = start(&path);
    let mut client = connect(address);
    let results = client.create_accounts(&[account(1), account(2)]).unwrap();
    assert!(results.iter().all(|result| result.status == CREATED));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "the end of the input is a clean end");

    let (mut child, address) = start(&path);
    let mut client = connect(address);
    let results = client.create_transfers(&[transfer(100)]).unwrap();
    assert_eq!(results[0].status, CREATED);
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert!(child.wait().unwrap().success(), "SIGTERM is a clean end");

    let (mut child, address) = start(&path);
    let mut client = connect(address);
    let results = client.create_transfers(&[transfer(101)]).unwrap();
    assert_eq!(results[0].status, CREATED);
    child.kill().unwrap();
    child.wait().unwrap();

    let (mut child, address) = start(&path);
    let mut client = connect(address);
    let accounts = client.lookup_accounts(&[1, 2, 3]).unwrap();
    assert_eq!(accounts.len(), 2);
    assert_eq!((accounts[0].debits_posted, accounts[1].credits_posted), (20, 20));
    let transfers = client.lookup_transfers(&[100, 101]).unwrap();
    assert_eq!(transfers.iter().map(|transfer| transfer.id).collect::<Vec<_>>(), [100, 101]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// Goal: the benchmark starts its own server, validates, and prints one JSON object.
#[test]
fn benchmark_of_itself() {
    let directory = Directory::new("benchmark");
    let file = format!("--file={}", directory.file("kept.florin"));
    let arguments = [
        "benchmark",
        "--development",
        "--transfer-count=5000",
        "--account-count=100",
        "--clients=3",
        "--query-count=5",
        "--validate",
        "--json",
        &file,
    ];
    let result = output(&arguments);
    assert!(result.status.success(), "{}", text(&result.stderr));
    let report: serde_json::Value = serde_json::from_slice(&result.stdout).unwrap();
    assert_eq!(report["transfers"]["events"], 5000);
    assert_eq!(report["validated"]["transfers"], 5000);
    assert!(report["server"]["file_bytes"].as_u64().unwrap() > 0);
    let again = output(&arguments);
    assert_eq!(again.status.code(), Some(3), "the file was kept and is not overwritten");
}

/// Goal: a benchmark prints its first line before it starts its server; a signal ends it, and its
/// server and its temporary file go with it.
#[test]
fn benchmark_interrupted() {
    for signal in ["-TERM", "-INT"] {
        let directory = Directory::new(&format!("interrupted{signal}"));
        let mut child = florin(&["benchmark", "--development", "--transfer-count=1000000000"])
            .env("TMPDIR", &directory.0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let file = line.strip_prefix("starting a throw-away server on ").unwrap().to_owned();
        assert!(Path::new(&file).starts_with(&directory.0), "{file}");
        while !Path::new(&file).exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        let messages: Vec<String> = lines.map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{messages:?}");
        assert_eq!(messages.last().unwrap(), "florin: interrupted before a result");
        assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 0, "{file} is gone");
    }
}

/// A data file as `tools/golden/make.py` has kept it.
fn golden_file(sectors: &[u8], path: &str) {
    let (sectors, size) = sectors.split_at(sectors.len() - 8);
    let size = u64::from_le_bytes(size.try_into().unwrap());
    let mut contents = vec![0; usize::try_from(size).unwrap()];
    for sector in sectors.chunks_exact(8 + 4096) {
        let (offset, bytes) = sector.split_at(8);
        let offset = usize::try_from(u64::from_le_bytes(offset.try_into().unwrap())).unwrap();
        contents[offset..offset + 4096].copy_from_slice(bytes);
    }
    std::fs::write(path, contents).unwrap();
}

/// Goal: data files of all releases are intact for this one, and answer what they did then.
#[test]
fn files_of_all_releases() {
    let directory = Directory::new("golden");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data_files");
    let mut opened = 0;
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_none_or(|extension| extension != "sectors") {
            continue;
        }
        let path = directory.file("golden.florin");
        golden_file(&std::fs::read(&source).unwrap(), &path);
        let checked = output(&["inspect", "integrity", &path]);
        assert!(checked.status.success(), "{}", text(&checked.stdout));
        let (mut child, address) = serve_dev(Path::new(&path));
        let questions = std::fs::read_to_string(source.with_extension("questions")).unwrap();
        let addresses = format!("--addresses={address}");
        let command = format!("--command={questions}");
        let asked = output(&["repl", &addresses, "--format=json", &command]);
        let answers = std::fs::read_to_string(source.with_extension("answers")).unwrap();
        assert_eq!(text(&asked.stdout), answers, "{}", text(&asked.stderr));
        child.kill().unwrap();
        child.wait().unwrap();
        opened += 1;
    }
    assert!(opened > 0, "there is a file of each release");
}

/// Goal: each failure has its exit code and is explained on standard error.
#[test]
fn exit_codes() {
    let directory = Directory::new("codes");
    let path = directory.file("data.florin");
    format(&path);
    let zeros = directory.file("zeros.florin");
    std::fs::write(&zeros, vec![0; 1 << 20]).unwrap();
    let missing = directory.file("missing.florin");
    let cases: [(&[&str], i32, &str); 8] = [
        (&[], 2, "Usage"),
        (&["serve"], 2, "unrecognized"),
        (&["start", "--addresses=1,2", "--development", &path], 2, "cluster of one"),
        (&["start", "--addresses=0", "--cache-grid=1XB", &path], 2, "no unit of size"),
        (&["start", "--addresses=0", "--development", &missing], 3, "florin format"),
        (&["start", "--addresses=0", "--development", &zeros], 3, "not formatted"),
        (&["start", "--addresses=192.0.2.1:3000", "--development", &path], 5, "no such address"),
        (&["format", "--cluster=7", "--replica=0", "--replica-count=1", &path], 3, "exists"),
    ];
    for (arguments, code, part) in cases {
        let output = output(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}

/// Goal: each mistake in setting up a cluster has its message, and nothing is created or served.
#[test]
fn cluster_mistakes() {
    let directory = Directory::new("cluster");
    let (path, standby) = (directory.file("1.florin"), directory.file("3.florin"));
    let form = ["format", "--cluster=7", "--development"];
    let made = output(&[&form[..], &["--replica=1", "--replica-count=3", &path]].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made = output(&[&form[..], &["--standby=3", "--replica-count=3", &standby]].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(text(&made.stdout).contains("standby 3 of 3"));
    let start = |list: &str, path: &str| {
        let result = output(&["start", "--development", &format!("--addresses={list}"), path]);
        (result.status.code(), text(&result.stderr))
    };
    let far = "192.0.2.1:3000";
    let cases = [
        ("1,2".to_owned(), &path, 2, "cluster of 3 replicas: list all"),
        ("1,2,3,4,5,6,7,8,9,10".to_owned(), &path, 2, "can have at most 6 standbys"),
        ("1,2,3".to_owned(), &standby, 2, "of standby 3"),
        ("1,0,3".to_owned(), &path, 2, "port 0"),
        ("1,2,2".to_owned(), &path, 2, "listed twice"),
        (format!("1,{far},3"), &path, 5, "is of replica 1, whose address is entry 2"),
        (format!("1,2,3,{far}"), &standby, 5, "is of replica 3, whose address is entry 4"),
    ];
    for (list, path, code, part) in cases {
        let (found, message) = start(&list, path);
        assert_eq!(found, Some(code), "{list}: {message}");
        assert!(message.contains(part), "{list}: {message}");
    }
    let unmade = directory.file("unmade.florin");
    for (indexes, part) in [
        (["--replica=3", "--replica-count=3"], "count from zero"),
        (["--standby=2", "--replica-count=3"], "indexes 3 to 8"),
        (["--replica=0", "--replica-count=7"], "1 to 6 replicas"),
    ] {
        let result = output(&[&form[..], &indexes, &[&unmade]].concat());
        assert_eq!(result.status.code(), Some(2));
        assert!(text(&result.stderr).contains(part), "{}", text(&result.stderr));
        assert!(!std::path::Path::new(&unmade).exists());
    }
    let recover = ["recover", "--cluster=7", "--development"];
    for (indexes, part) in [
        (["--replica=0", "--replica-count=1"], "restore a backup"),
        (["--replica=0", "--replica-count=2"], "neither of two"),
    ] {
        let result = output(&[&recover[..], &indexes, &[&unmade]].concat());
        assert_eq!(result.status.code(), Some(2));
        assert!(text(&result.stderr).contains(part), "{}", text(&result.stderr));
        assert!(!std::path::Path::new(&unmade).exists());
    }
    let kept = output(&[&recover[..], &["--replica=1", "--replica-count=3", &path]].concat());
    assert_eq!(kept.status.code(), Some(3), "what is there is not overwritten");
    let two = output(&[&form[..], &["--replica=0", "--replica-count=2", &unmade]].concat());
    assert!(two.status.success());
    assert!(text(&two.stderr).contains("survives no failure"));
}

/// Goal: `dev` makes its file, says where it listens and how to connect, and serves.
#[test]
fn dev_serves() {
    let directory = Directory::new("dev");
    let path = directory.file("dev.florin");
    let mut child = florin(&["dev", "--address=0", &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = parse_address(&lines.next().unwrap().unwrap()).unwrap();
    for _ in 0..4 {
        assert!(lines.next().unwrap().unwrap().contains(&address.to_string()));
    }
    let mut client = Client::connect(0, &[address], &Options::default()).unwrap();
    assert_eq!(client.create_accounts(&[account(1)]).unwrap()[0].status, CREATED);
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert!(child.wait().unwrap().success(), "SIGINT is a clean end");
}

/// Goal: output that is lost is a failure, and says so; a reader that ends is none.
#[test]
fn lost_output() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let watch = ["status", "--watch", "--addresses=127.0.0.1:1"];
    for arguments in [&["version"], watch.as_slice()] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = florin(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("standard output cannot be written"), "{message}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert!(florin(arguments).stdout(writer).status().unwrap().success(), "{arguments:?}");
    }
}
