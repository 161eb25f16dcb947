//! The procedures of `docs/OPERATING.md`, carried out as they are written there: deploying three
//! replicas, replacing a lost one, upgrading one after the other, backing up.
//!
//! What differs: all machines are this one, so addresses and folders are others, and the geometry
//! is that of development.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[path = "support/free_port.rs"]
mod free_port;
#[path = "support/program.rs"]
mod program;

use florin::client::{Client, Options};
use florin::protocol::types::Account;
use free_port::free_port;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HOSTS: [&str; 3] = ["a", "b", "c"];
/// The addresses that the page gives to the hosts.
const ADDRESSES: &str = "10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000";
/// What is waited for takes a fraction of a second; a machine that is busy may need more.
const PATIENCE: Duration = Duration::from_secs(120);

/// The commands of a section that change something, with the host that each is typed at; empty if
/// the page names none. What the others show is compared by `tools/documentation`.
fn commands(section: &str) -> Vec<(String, String)> {
    let path = format!("{}/docs/OPERATING.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once(&format!("# {section}\n")).expect("the section is there");
    let section = rest.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let mut found = Vec::new();
    for block in section.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            if let Some((host, command)) = line.split_once("$ ")
                && !["florin status", "florin doctor"].iter().any(|it| command.starts_with(it))
            {
                found.push((host.to_owned(), command.to_owned()));
            }
        }
    }
    assert!(!found.is_empty(), "the section has commands");
    found
}

/// Machines, each with a folder in place of `/data` and a server at most.
struct Hosts {
    folder: PathBuf,
    list: String,
    running: BTreeMap<String, Child>,
    /// The command that started each server last.
    started: BTreeMap<String, String>,
}

impl Hosts {
    fn new(name: &str) -> Hosts {
        let name = format!("florin-test-runbook-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        for host in HOSTS {
            std::fs::create_dir_all(folder.join(host).join("backup")).unwrap();
        }
        let ports: [String; 3] = std::array::from_fn(|_| free_port().to_string());
        Hosts { folder, list: ports.join(","), running: BTreeMap::new(), started: BTreeMap::new() }
    }

    /// A command as typed at a host, with what differs here.
    fn here(&self, host: &str, command: &str) -> String {
        let folder = self.folder.join(host).display().to_string();
        command
            .replace(ADDRESSES, &self.list)
            .replace("/data/", &format!("{folder}/"))
            .replace("/backup/", &format!("{folder}/backup/"))
    }

    fn log(&self, host: &str) -> PathBuf {
        self.folder.join(host).join("log")
    }

    /// Carries out a command: a server is left running, anything else must succeed.
    fn run(&mut self, host: &str, typed: &str) {
        let command = self.here(host, typed);
        let mut words = command.split(' ');
        let program = words.next().unwrap();
        if program != "florin" {
            assert!(Command::new(program).args(words).status().unwrap().success(), "{command}");
            return;
        }
        let words: Vec<&str> = words.collect();
        let mut process = program::florin();
        process.args(&words).arg("--development").stdin(Stdio::null());
        if words[0] == "start" {
            let log = File::create(self.log(host)).unwrap();
            let child = process.stdout(Stdio::null()).stderr(log).spawn().unwrap();
            let before = self.running.insert(host.to_owned(), child);
            assert!(before.is_none(), "{host} has one server");
            self.started.insert(host.to_owned(), typed.to_owned());
        } else {
            let output = process.output().unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
        }
    }

    /// Runs all commands of a section.
    fn follow(&mut self, section: &str) {
        for (host, command) in commands(section) {
            self.run(&host, &command);
        }
    }

    /// `kill -TERM`, which ends a server cleanly, or `-KILL`.
    fn stop(&mut self, host: &str, signal: &str) {
        let mut child = self.running.remove(host).expect("it runs");
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(status.success() || signal == "-KILL", "{host} ends cleanly: {status}");
    }

    /// Waits until `florin status` is content, which is what an operator does before the next step.
    fn wait_healthy(&self) {
        let since = Instant::now();
        loop {
            let output = program::florin()
                .args(["status", "--cluster=7", &format!("--addresses={}", self.list)])
                .output()
                .unwrap();
            if output.status.success() {
                return;
            }
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(since.elapsed() < PATIENCE, "not healthy: {shown}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_for_line(&self, host: &str, part: &str) {
        let since = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.log(host)).unwrap();
            if log.contains(part) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "`{part}` does not come: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn client(&self) -> Client {
        let options = Options { deadline: PATIENCE, ..Options::default() };
        Client::connect(7, self.list.as_str(), &options).unwrap()
    }

    /// Creates an account, and demands that all earlier ones are there.
    fn work(&self, id: u128) {
        let mut client = self.client();
        let account = Account { id, ledger: 1, code: 1, ..Account::default() };
        let results = client.create_accounts(&[account]).unwrap();
        assert_eq!(results[0].status, u32::MAX, "created");
        let ids: Vec<u128> = (1..=id).collect();
        assert_eq!(client.lookup_accounts(&ids).unwrap().len(), ids.len());
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Goal: whoever follows the page has a cluster of three, has it back after the loss of a data
/// file, restarts it one by one while it serves, and starts it from a backup.
#[test]
fn cluster_of_three() {
    let mut hosts = Hosts::new("three");
    hosts.follow("Run a cluster");
    hosts.wait_healthy();
    hosts.work(1);

    hosts.stop("b", "-KILL");
    std::fs::remove_file(hosts.folder.join("b").join("0_1.florin")).unwrap();
    hosts.work(2);
    hosts.follow("Replace a lost data file");
    hosts.wait_for_line("b", "the data file is recovered: this replica votes again");
    hosts.wait_healthy();
    hosts.work(3);

    for (host, id) in HOSTS.into_iter().zip(4..) {
        hosts.stop(host, "-TERM");
        hosts.work(id);
        hosts.run(host, &hosts.started[host].clone());
        hosts.wait_healthy();
    }
    hosts.work(7);

    let backup = commands("Backup");
    let (_, copy) = backup.iter().find(|(_, it)| it.starts_with("cp ")).expect("files are copied");
    for host in HOSTS {
        hosts.stop(host, "-TERM");
    }
    for (index, host) in HOSTS.into_iter().enumerate() {
        let name = format!("0_{index}.florin");
        hosts.run(host, &copy.replace("0_0.florin", &name));
        let folder = hosts.folder.join(host);
        std::fs::remove_file(folder.join(&name)).unwrap();
        std::fs::rename(folder.join("backup").join(&name), folder.join(&name)).unwrap();
        hosts.run(host, &hosts.started[host].clone());
    }
    hosts.wait_healthy();
    hosts.work(8);
}

/// Goal: whoever follows the page has a server of one, which ends cleanly.
#[test]
fn cluster_of_one() {
    let mut hosts = Hosts::new("one");
    let port = free_port();
    for (_, command) in commands("Make a file, start, stop") {
        hosts.run("a", &command.replace("127.0.0.1:3000", &format!("127.0.0.1:{port}")));
    }
    hosts.list = port.to_string();
    hosts.wait_healthy();
    hosts.work(1);
    hosts.stop("a", "-TERM");
}
