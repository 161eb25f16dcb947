//! Servers in a directory of the test, ended with it.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_florin");
/// Bound of a wait that takes a fraction of a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of a test; removed with it.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Directory {
        // Beside the build: on a disk that has direct I/O more often than `/tmp`.
        let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let directory = Directory(parent.join(format!("{name}-{}", std::process::id())));
        let _ = fs::remove_dir_all(&directory.0);
        fs::create_dir_all(&directory.0).unwrap();
        directory
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Makes a data file; its path.
    pub fn format(&self, name: &str, replica: u8, count: u8, mode: &[&str]) -> String {
        let path = self.path(name);
        let output = Command::new(BINARY)
            .args(["format", "--cluster=7", &format!("--replica={replica}")])
            .arg(format!("--replica-count={count}"))
            .args(mode)
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the program to its end.
pub fn florin(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Asks until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process that is killed with the test.
pub struct Process(pub Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.0;
        wait_for("the end of the process", || child.try_wait().unwrap())
    }

    /// Asserts that it ends by itself, with 0.
    pub fn expect_zero(&mut self, what: &str) {
        let status = self.wait();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{what}");
    }

    /// Waits until the program runs its own code: the first thing it does is to handle SIGTERM.
    /// Before that the loader runs, which no program can make end with 0.
    pub fn wait_main(&self) {
        let status = format!("/proc/{}/status", self.0.id());
        wait_for("the program's main function", || {
            let handled = signal_set(&fs::read_to_string(&status).unwrap(), "SigCgt:")?;
            let end = 1 << (libc::SIGTERM - 1);
            (handled & end != 0).then_some(())
        });
    }

    /// The name of each of its threads, and the set of signals that it blocks.
    pub fn blocked_by_thread(&self) -> Vec<(String, u64)> {
        let read = |thread: io::Result<fs::DirEntry>| {
            let path = thread.unwrap().path();
            let name = fs::read_to_string(path.join("comm")).unwrap();
            let status = fs::read_to_string(path.join("status")).unwrap();
            (name.trim().to_owned(), signal_set(&status, "SigBlk:").unwrap())
        };
        fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap().map(read).collect()
    }
}

/// A set of signals in the status of a process or thread.
fn signal_set(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(u64::from_str_radix(line.trim(), 16).unwrap())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
