//! Servers with ledgers of their own, ended and removed at the end of the test.

use crate::free_port::free_port;
use crate::program::florin;
use crate::serve_dev::serve_dev;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// One server or several that make a cluster.
pub struct Servers {
    pub processes: Vec<Option<Child>>,
    pub addresses: String,
    pub folder: PathBuf,
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn new_folder(name: &str) -> PathBuf {
    let name = format!("florin-test-data-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    folder
}

impl Servers {
    /// One server with an empty ledger.
    pub fn single(name: &str) -> Servers {
        let folder = new_folder(name);
        let mut servers =
            Servers { processes: vec![None], addresses: String::new(), folder: folder.clone() };
        servers.restart();
        servers
    }

    /// Starts the only server, again or for the first time.
    pub fn restart(&mut self) {
        let (process, address) = serve_dev(&self.path());
        self.addresses = address;
        self.processes[0] = Some(process);
    }

    /// Starts the only server again where it listened before, with this data file.
    pub fn restart_there(&mut self, path: &std::path::Path) {
        let mut process = florin()
            .args(["dev", &format!("--address={}", self.addresses)])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
        assert_eq!(address.trim(), self.addresses);
        self.processes[0] = Some(process);
    }

    /// A cluster of three.
    pub fn cluster(name: &str) -> Servers {
        let folder = new_folder(name);
        let ports: Vec<String> = (0..3).map(|_| free_port().to_string()).collect();
        let addresses = ports.join(",");
        let mut processes = Vec::new();
        for index in 0..3 {
            let path = folder.join(format!("{index}.florin"));
            let output = florin()
                .args(["format", "--cluster=0", "--replica-count=3", "--development"])
                .arg(format!("--replica={index}"))
                .arg(&path)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            let process = florin()
                .args(["start", "--development", &format!("--addresses={addresses}")])
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            processes.push(Some(process));
        }
        Servers { processes, addresses, folder }
    }

    /// The data file of the only server.
    pub fn path(&self) -> PathBuf {
        self.folder.join("dev.florin")
    }

    /// Ends a server with this signal and waits for its end.
    pub fn end(&mut self, index: usize, signal: &str) {
        let mut process = self.processes[index].take().unwrap();
        send(&process, signal);
        process.wait().unwrap();
    }

    /// A command that talks to the servers.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = florin();
        command.args(words).arg(format!("--addresses={}", self.addresses)).stdin(Stdio::null());
        command
    }

    /// The output of such a command.
    pub fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What such a command, which shall succeed, prints.
    pub fn stdout(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The results of one statement.
    pub fn say(&self, statement: &str) -> Value {
        let output = self.stdout(&["repl", "--format=json", &format!("--command={statement}")]);
        serde_json::from_str::<Value>(&output).unwrap()["results"].take()
    }

    /// The timestamp of the last result of one statement.
    pub fn say_at(&self, statement: &str) -> u64 {
        let results = self.say(statement);
        let last = results.as_array().unwrap().last().unwrap();
        assert_eq!(last["status"], "created", "{statement}: {results}");
        last["timestamp"].as_str().unwrap().parse().unwrap()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Sends a signal by its name.
pub fn send(process: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A command whose lines are read while it runs.
pub struct Following {
    pub process: Child,
    lines: Option<BufReader<std::process::ChildStdout>>,
}

impl Following {
    pub fn start(mut command: Command) -> Following {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = process.stdout.take().map(BufReader::new);
        Following { process, lines }
    }

    /// The next line; waits for it.
    pub fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.as_mut().unwrap().read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "a whole line: {line:?} {}", self.errors());
        serde_json::from_str(&line).unwrap()
    }

    /// All that is printed until the output ends.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.lines.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        rest
    }

    /// All that it complains of.
    pub fn errors(&mut self) -> String {
        let mut errors = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        errors
    }

    /// Reads no more.
    pub fn close(&mut self) {
        self.lines = None;
    }

    /// Waits for the end, and returns the exit code. Fails if the command hangs.
    pub fn wait(&mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
