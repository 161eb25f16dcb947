//! A throw-away server for a benchmark: a child process of the same executable, and its use of the
//! machine according to `/proc` and its metrics.

use crate::cli::exit::{ExitClass, Failure};
use crate::cli::output::print_error;
use crate::client::parse_address;
use crate::client::system::clock_ticks_per_second;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;
/// Timeout for a request of metrics: they are served at once or not at all.
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);

/// How to start the server.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Path of the data file, which must not exist; by default in a directory that is removed.
    pub file: Option<PathBuf>,
    /// Small geometry, and no demands on the file system.
    pub is_development: bool,
    /// More arguments of `start`.
    pub arguments: Vec<String>,
}

/// The resources that a server has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all its threads, in nanoseconds.
    pub processor_ns: u64,
    /// Bytes that it caused to be written to the storage layer.
    pub written_bytes: u64,
    /// Maximum resident memory, in bytes.
    pub memory_peak_bytes: u64,
    /// Size of the data file in bytes.
    pub file_bytes: u64,
    /// Duration of the slowest disk request, in nanoseconds.
    pub disk_longest_ns: u64,
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// The server ends when this closes.
    stdin: Option<ChildStdin>,
    /// Kept open, so that the server can write.
    _stdout: BufReader<ChildStdout>,
    messages: Messages,
    /// Address of its metrics.
    metrics: SocketAddr,
    file: PathBuf,
    /// To be removed at the end.
    directory: Option<PathBuf>,
    address: SocketAddr,
    file_bytes_at_birth: u64,
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(ExitClass::Error, format!("{what}: {error}"))
}

/// Creates a directory of our own.
fn directory_make() -> Result<PathBuf, Failure> {
    let name = format!("florin-benchmark-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir(&directory)
        .map_err(|error| failed(&format!("making {}", directory.display()), &error))?;
    Ok(directory)
}

/// Removes the directory when something fails before the server owns it.
struct DirectoryGuard(Option<PathBuf>);

impl Drop for DirectoryGuard {
    fn drop(&mut self) {
        if let Some(directory) = self.0.take() {
            directory_remove(&directory);
        }
    }
}

fn directory_remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        print_error(&format!("removing {}: {error}", directory.display()));
    }
}

fn file_size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

impl Server {
    /// Formats a data file and starts a server on it, on a free port.
    ///
    /// # Errors
    ///
    /// If the file exists, or either of the two commands fails.
    ///
    /// # Panics
    ///
    /// Never: the child's standard streams are pipes.
    pub fn start(options: &ServerOptions) -> Result<Server, Failure> {
        let executable =
            std::env::current_exe().map_err(|error| failed("finding the executable", &error))?;
        let mut guard = DirectoryGuard(None);
        let file = if let Some(file) = &options.file {
            file.clone()
        } else {
            let directory = directory_make()?;
            guard.0 = Some(directory.clone());
            directory.join("benchmark.florin")
        };
        if file.exists() {
            let message = format!("{} exists already", file.display());
            return Err(Failure::new(ExitClass::DataFile, message));
        }
        print_error(&format!("starting a throw-away server on {}", file.display()));
        format(&executable, &file, options)?;
        let file_bytes_at_birth = file_size(&file);
        let mut child = spawn(&executable, &file, options)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut stdout = BufReader::new(stdout);
        let mut messages = Messages::new(&mut child);
        let addresses = read_address(&mut stdout)
            .and_then(|address| messages.find_metrics().map(|metrics| (address, metrics)));
        let (address, metrics) = match addresses {
            Ok(addresses) => addresses,
            Err(failure) => {
                drop(stdin);
                let _ = child.kill();
                let _ = child.wait();
                messages.print();
                return Err(failure);
            }
        };
        let directory = guard.0.take();
        Ok(Server {
            child,
            stdin,
            _stdout: stdout,
            messages,
            metrics,
            file,
            directory,
            address,
            file_bytes_at_birth,
        })
    }

    /// Address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Size of the data file after it was formatted, in bytes.
    #[must_use]
    pub fn file_bytes_at_birth(&self) -> u64 {
        self.file_bytes_at_birth
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.messages.print();
                Err(Failure::new(ExitClass::Error, format!("the server has ended: {status}")))
            }
            Err(error) => Err(failed("looking after the server", &error)),
        }
    }

    /// Its use so far; zero where the system does not report it.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default()
        };
        Usage {
            processor_ns: processor_ns(&read("stat"), clock_ticks_per_second()).unwrap_or(0),
            written_bytes: field(&read("io"), "write_bytes:").unwrap_or(0),
            memory_peak_bytes: field(&read("status"), "VmHWM:").unwrap_or(0) * 1024,
            file_bytes: file_size(&self.file),
            disk_longest_ns: metrics_text(self.metrics).map_or(0, |text| disk_longest_ns(&text)),
        }
    }

    /// Ends it and waits until it has ended.
    ///
    /// # Errors
    ///
    /// If it does not end cleanly.
    pub fn stop(mut self) -> Result<(), Failure> {
        drop(self.stdin.take());
        let status = self.child.wait().map_err(|error| failed("waiting for the server", &error))?;
        if status.success() {
            return Ok(());
        }
        self.messages.print();
        Err(Failure::new(ExitClass::Error, format!("the server did not end cleanly: {status}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(directory) = self.directory.take() {
            directory_remove(&directory);
        }
    }
}

/// A command of this program that ignores the variables for the user's own servers.
fn command_of(executable: &Path) -> Command {
    let mut command = Command::new(executable);
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("FLORIN_")) {
        command.env_remove(name);
    }
    command
}

fn format(executable: &Path, file: &Path, options: &ServerOptions) -> Result<(), Failure> {
    let mut command = command_of(executable);
    command.args(["format", "--cluster=0", "--replica=0", "--replica-count=1"]);
    if options.is_development {
        command.arg("--development");
    }
    let status = command
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| failed("starting `florin format`", &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(ExitClass::Error, format!("`florin format` failed: {status}")))
}

fn spawn(executable: &Path, file: &Path, options: &ServerOptions) -> Result<Child, Failure> {
    let mut command = command_of(executable);
    command.args(["start", "--addresses=0", "--metrics=127.0.0.1:0"]);
    if options.is_development {
        command.arg("--development");
    }
    command
        .args(&options.arguments)
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed("starting `florin start`", &error))
}

/// Messages of a server. The few of a running one fit the pipe.
#[derive(Debug)]
struct Messages {
    stderr: BufReader<ChildStderr>,
    /// Messages read so far.
    said: String,
}

impl Messages {
    fn new(child: &mut Child) -> Messages {
        let stderr = child.stderr.take().expect("standard error is a pipe");
        Messages { stderr: BufReader::new(stderr), said: String::new() }
    }

    /// Waits for the message with the address of the metrics, which follows the port soon.
    fn find_metrics(&mut self) -> Result<SocketAddr, Failure> {
        loop {
            let start = self.said.len();
            let count = self.stderr.read_line(&mut self.said);
            if count.map_err(|error| failed("reading the server's messages", &error))? == 0 {
                let message = "the server ended before it served metrics; see its messages above";
                return Err(Failure::new(ExitClass::Error, message));
            }
            if let Some(address) = metrics_address(&self.said[start..]) {
                return Ok(address);
            }
        }
    }

    /// Prints the messages of an ended server.
    fn print(&mut self) {
        // Bytes that are not text end it: then the rest is not printed.
        let _ = self.stderr.read_to_string(&mut self.said);
        if !self.said.is_empty() {
            print_error(self.said.trim_end());
        }
    }
}

/// The address in the message that metrics are served.
fn metrics_address(line: &str) -> Option<SocketAddr> {
    let (_, url) = line.split_once("metrics at http://")?;
    url.split('/').next()?.parse().ok()
}

/// All metrics as a text, or a part of it if the server ends meanwhile.
fn metrics_text(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, METRICS_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(METRICS_TIMEOUT)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    // Text that was read before an error is kept.
    let _ = stream.read_to_string(&mut text);
    Some(text)
}

/// Finds the duration of the slowest disk request in a text of metrics.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn disk_longest_ns(text: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix("florin_disk_longest_seconds{"));
    let seconds = lines.filter_map(|line| line.split_once("} ")?.1.trim().parse::<f64>().ok());
    // 0 if it is negative or not a number.
    (seconds.fold(0.0, f64::max) * 1e9) as u64
}

fn read_address(stdout: &mut impl BufRead) -> Result<SocketAddr, Failure> {
    let mut line = String::new();
    stdout.read_line(&mut line).map_err(|error| failed("reading the server's port", &error))?;
    if line.is_empty() {
        let message = "the server ended before it listened; see its message above";
        return Err(Failure::new(ExitClass::Error, message));
    }
    parse_address(line.trim())
        .map_err(|error| Failure::new(ExitClass::Error, format!("the server's port: {error}")))
}

/// Processor time in the text of `/proc/PID/stat`: fields 14 and 15, after a name in parentheses
/// that may contain anything.
fn processor_ns(stat: &str, ticks_per_second: u64) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * (NANOSECONDS_PER_SECOND / ticks_per_second))
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the times are found behind a name that looks like fields.
    #[test]
    fn stat() {
        let stat = "42 (a) b) 1 2) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1";
        assert_eq!(processor_ns(stat, 100), Some(3 * NANOSECONDS_PER_SECOND));
        assert_eq!(processor_ns("42 (a) S 1", 100), None);
        assert_eq!(processor_ns("", 100), None);
    }

    /// Goal: named numbers are found, and only whole names.
    #[test]
    fn fields() {
        let text = "cancelled_write_bytes: 9\nwrite_bytes: 4096\n";
        assert_eq!(field(text, "write_bytes:"), Some(4096));
        assert_eq!(field("VmPeak:\t 9 kB\nVmHWM:\t  12 kB\n", "VmHWM:"), Some(12));
        assert_eq!(field(text, "VmHWM:"), None);
    }

    /// Goal: the facts that are read of a server exist of this very process.
    #[test]
    fn own_process() {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap();
        assert!(processor_ns(&read("stat"), clock_ticks_per_second()).is_some());
        assert!(field(&read("status"), "VmHWM:").unwrap() > 0);
    }

    /// Goal: the address of the metrics is found in its message, and among metrics the slowest
    /// request of any kind.
    #[test]
    fn metrics() {
        let line = "2026-11-26 metrics at http://127.0.0.1:9100/metrics\n";
        assert_eq!(metrics_address(line).unwrap().to_string(), "127.0.0.1:9100");
        assert_eq!(metrics_address("listening on 127.0.0.1:3000\n"), None);
        assert_eq!(metrics_address("metrics at http://nowhere/metrics\n"), None);
        let text = "# HELP florin_disk_longest_seconds Some.\n\
                    florin_disk_longest_seconds{request=\"read\"} 0.000100000\n\
                    florin_disk_longest_seconds{request=\"durable_write\"} 0.0765\n\
                    florin_disk_seconds_sum{request=\"sync\"} 3\n";
        assert_eq!(disk_longest_ns(text), 76_500_000);
        assert_eq!(disk_longest_ns("florin_disk_longest_seconds{request=\"sync\"} x\n"), 0);
        assert_eq!(disk_longest_ns(""), 0);
    }

    /// Goal: the first line is a port; anything else, or nothing, is a failure.
    #[test]
    fn address_line() {
        let address = read_address(&mut "3000\nmore\n".as_bytes()).unwrap();
        assert_eq!(address.to_string(), "127.0.0.1:3000");
        assert!(read_address(&mut "".as_bytes()).is_err());
        assert!(read_address(&mut "listening\n".as_bytes()).is_err());
    }
}
