//! Full disks: a file system of some megabytes, and a limit of the length of files.

use super::free_port::free_port;
use super::program::{command, florin};
use super::servers::{BINARY, Servers, errors, wait_for};
use florin::client::{Client, Options};
use florin::protocol::types::{Account, Transfer};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// Events of a request in development.
const EVENTS_MAX: u128 = 1021;
/// Number of requests that fill a disk of some megabytes.
const REQUESTS_MAX: u128 = 1000;
/// Bytes of a new data file for development.
const FILE_SIZE: &str = "33685504";

/// A file system of a given size. Only processes that are started in its namespace see it, and it
/// is gone with the last of them.
struct SmallDisk {
    holder: Child,
    folder: String,
}

impl SmallDisk {
    /// Returns none if this system does not permit mounts.
    fn new(folder: String, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir(&folder).unwrap();
        let script = format!("mount -t tmpfs -o size={size} none {folder} && echo mounted && cat");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "bash", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line == "mounted\n" {
            return Some(SmallDisk { holder, folder });
        }
        assert!(!holder.wait().unwrap().success());
        None
    }

    /// A command that sees the disk.
    fn command(&self, words: &[&str]) -> Command {
        let target = self.holder.id().to_string();
        let mut command = command("nsenter");
        command
            .args(["--target", &target, "--user", "--preserve-credentials", "--mount"])
            .args(words)
            .stdin(Stdio::null());
        command
    }

    fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        // Only this option: the owner that /proc names is one of another namespace.
        let words = ["mount", "--options-mode=ignore", "-o", &size, "none", &self.folder];
        assert!(self.command(&words).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn format_words(path: &str) -> [&str; 7] {
    let index = ["--replica=0", "--replica-count=1"];
    [BINARY, "format", "--development", "--cluster=7", index[0], index[1], path]
}

/// A running server and its log.
struct Server {
    process: Child,
    log: String,
    port: u16,
}

impl Server {
    /// Starts a server; `command` runs the words appended to it.
    fn start(mut command: Command, path: &str, log: String) -> Server {
        let port = free_port();
        command
            .args([BINARY, "start", "--development", &format!("--addresses={port}"), path])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        Server { process: command.spawn().unwrap(), log, port }
    }

    fn client(&self, deadline: Duration) -> Client {
        let options = Options { deadline, ..Options::default() };
        Client::connect(7, self.port.to_string().as_str(), &options).unwrap()
    }

    /// Creates transfers until there is no answer. Returns the number of acknowledged ones.
    fn fill(&self) -> u128 {
        let mut client = self.client(Duration::from_secs(5));
        let account = |id| Account { id, ledger: 1, code: 1, ..Account::default() };
        client.create_accounts(&[account(1), account(2)]).unwrap();
        for request in 0..REQUESTS_MAX {
            let transfer = |index| Transfer {
                id: request * EVENTS_MAX + index + 1,
                debit_account_id: 1,
                credit_account_id: 2,
                amount: 1,
                ledger: 1,
                code: 1,
                ..Transfer::default()
            };
            let transfers: Vec<Transfer> = (0..EVENTS_MAX).map(transfer).collect();
            match client.create_transfers(&transfers) {
                Ok(results) => assert!(results.iter().all(|result| result.status == u32::MAX)),
                Err(error) => {
                    assert!(error.to_string().contains("safe to retry with the same ids"));
                    return request * EVENTS_MAX;
                }
            }
        }
        panic!("the disk does not become full");
    }

    /// Waits for its end. Returns its status and the only line of its log with the reason.
    fn end(mut self) -> (ExitStatus, String) {
        let status = wait_for("the end of the server", || self.process.try_wait().unwrap());
        let log = std::fs::read_to_string(&self.log).unwrap();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("Z error   ")).collect();
        assert_eq!(told.len(), 1, "{log}");
        (status, told[0].to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn told(output: &Output, code: i32, part: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", errors(output));
    assert!(errors(output).contains(part), "{}", errors(output));
}

/// Goal: on a full disk no file is created, and nothing is left of the attempt; a server that runs
/// out of space ends with the reason and the remedy; with more space it has all that it
/// acknowledged.
#[test]
fn file_system() {
    let servers = Servers::new("full-disk");
    let Some(disk) = SmallDisk::new(servers.path("disk"), "20M") else {
        // `limit_of_length` is for systems where this cannot be tried.
        assert!(std::fs::read_dir(servers.path("disk")).unwrap().next().is_none());
        return;
    };
    let path = servers.path("disk/0_0.florin");
    let output = disk.command(&format_words(&path)).output().unwrap();
    told(&output, 4, &format!("needs {FILE_SIZE} bytes and the file system has no room for them"));
    assert!(!disk.command(&["test", "-e", &path]).status().unwrap().success(), "it is removed");
    let output = disk.command(&[BINARY, "doctor", "--development", &path]).output().unwrap();
    told(&output, 4, "a server cannot be started here: disk space");

    disk.resize("40M");
    told(&disk.command(&format_words(&path)).output().unwrap(), 0, "");
    let server = Server::start(disk.command(&[]), &path, servers.path("log"));
    let acknowledged = server.fill();
    let (status, line) = server.end();
    assert_eq!(status.code(), Some(4), "{line}");
    assert!(line.contains("nothing is lost: free space for the file and start again"), "{line}");

    disk.resize("400M");
    let server = Server::start(disk.command(&[]), &path, servers.path("log"));
    let mut client = server.client(Duration::from_secs(60));
    let posted = client.lookup_accounts(&[1]).unwrap()[0].debits_posted;
    assert!(posted >= acknowledged && posted <= acknowledged + EVENTS_MAX, "{posted}");
    assert_eq!(posted % EVENTS_MAX, 0, "a request is executed or not");
}

/// Goal: the limit of a file's length, which Linux enforces with a signal that would end the
/// process silently, is reported like a full disk, with the way to raise it.
#[test]
fn limit_of_length() {
    let servers = Servers::new("file-limit");
    let path = servers.path("0_0.florin");
    let limited = |kibibytes: u32| {
        let mut command = command("bash");
        command.args(["-c", &format!("ulimit -f {kibibytes} && exec \"$@\""), "bash"]);
        command
    };
    let output = limited(20_000).args(format_words(&path)).output().unwrap();
    told(&output, 4, "raise the limit of file size (ulimit -f)");
    assert!(!std::fs::exists(&path).unwrap(), "it is removed");
    told(&florin().args(&format_words(&path)[1..]).output().unwrap(), 0, "");
    let server = Server::start(limited(40_000), &path, servers.path("log"));
    server.fill();
    let (status, line) = server.end();
    assert_eq!(status.code(), Some(4), "{line}");
    assert!(line.contains("raise the limit (ulimit -f)"), "{line}");
}
