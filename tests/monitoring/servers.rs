//! Servers as an operator starts them, in a directory of the test, ended with it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_florin");
/// Maximum wait for an event that takes a fraction of a second; a busy machine may need more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the program to its end.
pub fn florin(arguments: &[&str]) -> Output {
    super::program::florin().args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Returns the standard error of the program.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asks repeatedly until there is an answer.
///
/// # Panics
///
/// If there is none for a long time.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A directory of data files, and the servers that were started on them.
pub struct Servers {
    directory: PathBuf,
    running: Vec<(String, Child)>,
}

impl Servers {
    /// None yet.
    pub fn new(name: &str) -> Servers {
        let name = format!("florin-monitoring-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        Servers { directory, running: Vec::new() }
    }

    /// The path of a data file.
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Creates the data file of a replica, for development.
    pub fn format(&self, name: &str, cluster: u32, replica: usize, count: usize) -> String {
        let path = self.path(name);
        let output = florin(&[
            "format",
            "--development",
            &format!("--cluster={cluster}"),
            &format!("--replica={replica}"),
            &format!("--replica-count={count}"),
            &path,
        ]);
        assert!(output.status.success(), "{}", errors(&output));
        path
    }

    /// Starts a server on a data file.
    pub fn start(&mut self, name: &str, options: &[&str]) {
        let log = File::create(self.path(name) + ".log").unwrap();
        let child = super::program::florin()
            .args(["start", "--development"])
            .args(options)
            .arg(self.path(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.running.push((name.to_owned(), child.unwrap()));
    }

    /// Returns the standard error of a server.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name) + ".log").unwrap()
    }

    /// Waits until a server has written this, and returns the line.
    pub fn wait_for_line(&self, name: &str, part: &str) -> String {
        wait_for(part, || {
            let log = self.log(name);
            log.lines().find(|line| line.contains(part)).map(str::to_owned)
        })
    }

    /// Kills a server.
    pub fn kill(&mut self, name: &str) {
        let index = self.running.iter().position(|(running, _)| running == name).unwrap();
        let (_, mut child) = self.running.remove(index);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
