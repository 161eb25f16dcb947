//! `florin doctor`: checks that this machine has what a server needs, and prints remedies.
//!
//! Each check tries an operation of the server, or asks the kernel, and reports its finding; a
//! warning or a failure comes with its remedy. Given a data file, its own geometry counts; given
//! another path, a file of production size that would be created there. Nothing is changed; one
//! small file is created beside the path and removed. Not covered: the network, other replicas
//! (`florin status`).

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::exit::{ExitClass, Failure};
use super::output::{OutputArguments, print};
use super::start::memory_needed;
use crate::io::file::{DataFile, FileError};
use crate::io::memory::{self, HumanSize};
use crate::io::ring::{LOCKED_MEMORY_WANTED, Ring};
use crate::io::system::{Limit, clock_state, file_system_space, limit};
use crate::protocol::{AlignedMemory, SECTOR_SIZE, to_index};
use crate::storage::{Config, Zones};
use crate::vsr::Superblock;

/// Number of operations of the ring that is tried: about that of a server.
const RING_OPERATIONS: u32 = 512;
/// Number of files that a server opens: connections and some more.
const OPEN_FILES_MIN: u64 = 256;
/// Disk space for the growth of the data that is enough, in bytes.
const SPACE_COMFORT: u64 = 10 << 30;
/// The oldest kernel with all features that a server uses: major and minor version.
const KERNEL_MIN: (u32, u32) = (5, 11);
/// Maximum error of a clock that is kept well, in microseconds.
const CLOCK_ERROR_MAX_US: i64 = 500_000;
/// Width of the terminal that the lines fit, in columns.
const WIDTH: usize = 80;

const EXAMPLES: &str = "\
Examples:
  florin doctor
      checks this machine, and the current directory
  florin doctor /data/0_0.florin
      checks for a data file that exists, or will be created there
  florin doctor --development test.florin

Exit codes: 0 a server can be started, perhaps with warnings; 4 it cannot.";

/// Options of `florin doctor`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DoctorArguments {
    /// Check what `start --development` needs
    #[arg(long)]
    pub development: bool,
    /// Form of the output
    #[command(flatten)]
    pub output: OutputArguments,
    /// A data file, the path of one to be created, or a directory
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: PathBuf,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// A check: its finding, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        let (found, remedy) = (found.into(), remedy.into());
        Check { name, verdict: Verdict::Warn, found, remedy }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { verdict: Verdict::Fail, ..Check::warn(name, found, remedy) }
    }
}

/// Checks everything and prints the findings.
///
/// # Errors
///
/// If a server cannot be started.
pub fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let subject = Subject::of(&arguments.path, arguments.development);
    let checks = check_all(&subject);
    if arguments.output.is_json() {
        print(&json_of(&checks));
    } else {
        print(&lines(&checks));
    }
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .map(|check| check.name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let message = format!("a server cannot be started here: {}", failed.join(", "));
    Err(Failure::new(ExitClass::Machine, message))
}

/// The server that the machine is checked for.
struct Subject {
    path: PathBuf,
    /// Directory of the file.
    directory: PathBuf,
    development: bool,
    /// Superblock of the data file, if there is one that can be read.
    superblock: Option<Superblock>,
    /// Why an existing file cannot be read.
    problem: Option<FileError>,
}

impl Subject {
    fn of(path: &Path, development: bool) -> Subject {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        let directory = if path.is_dir() { path } else { parent };
        let mut subject = Subject {
            path: path.to_path_buf(),
            directory: directory.to_path_buf(),
            development,
            superblock: None,
            problem: None,
        };
        if path.is_file() {
            match DataFile::open(path, 0, true).and_then(|file| file.superblock()) {
                Ok(superblock) => subject.superblock = Some(*superblock),
                Err(error) => subject.problem = Some(error),
            }
        }
        subject
    }

    /// Geometry of the file that exists, or would be created.
    fn config(&self) -> Config {
        match &self.superblock {
            Some(superblock) => superblock.config,
            None if self.development => Config::development(),
            None => Config::production(),
        }
    }
}

fn check_all(subject: &Subject) -> Vec<Check> {
    let mut checks = vec![check_kernel(), check_ring(), check_cpu()];
    checks.push(check_memory(subject));
    // Below the limit a server uses a small ring, and starts if there is room for that: see the
    // check of io_uring.
    checks.push(check_limit(
        "locked memory",
        Limit::LockedMemory,
        LOCKED_MEMORY_WANTED,
        "servers start, each with a small ring of 8 KiB, which costs some system calls under load; \
         for full ones `ulimit -l 8192`, or LimitMEMLOCK=8M in the unit",
    ));
    checks.push(check_limit(
        "open files",
        Limit::OpenFiles,
        OPEN_FILES_MIN,
        "each connection is one: `ulimit -n 1024`, or LimitNOFILE=1024 in the unit",
    ));
    checks.push(check_file_size(subject));
    checks.extend(check_data_file(subject));
    checks.push(check_direct(subject));
    checks.push(check_space(subject));
    checks.push(check_clock());
    checks
}

fn check_kernel() -> Check {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = text.trim();
    let Some(version) = kernel_version(release) else {
        return Check::warn("kernel", format!("unknown: `{release}`"), "Linux 5.11 or newer");
    };
    if version < KERNEL_MIN {
        let (major, minor) = KERNEL_MIN;
        let remedy = format!("io_uring needs Linux {major}.{minor} or newer: upgrade it");
        return Check::fail("kernel", format!("Linux {release}"), remedy);
    }
    Check::ok("kernel", format!("Linux {release}"))
}

/// Major and minor version.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn check_ring() -> Check {
    match Ring::new(RING_OPERATIONS) {
        Ok(_) => Check::ok("io_uring", "allowed, with all features that are needed"),
        Err(error) => {
            let text = error.to_string();
            // The error, then its meaning and the remedy.
            let (found, remedy) = text.rsplit_once("): ").unwrap_or((&text, ""));
            let closed = if remedy.is_empty() { "" } else { ")" };
            Check::fail("io_uring", format!("{found}{closed}"), remedy)
        }
    }
}

/// Features that make checksums fast.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<(&'static str, bool)> {
    vec![
        ("AES", std::arch::is_x86_feature_detected!("aes")),
        ("SSE4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<(&'static str, bool)> {
    vec![
        ("AES", std::arch::is_aarch64_feature_detected!("aes")),
        ("CRC32", std::arch::is_aarch64_feature_detected!("crc")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

fn check_cpu() -> Check {
    let features = cpu_features();
    let names = |wanted: bool| {
        let some = features.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name);
        some.collect::<Vec<_>>().join(", ")
    };
    if features.is_empty() || features.iter().any(|(_, has)| !has) {
        let missing = if features.is_empty() { "any known feature".into() } else { names(false) };
        let remedy = "checksums are many times slower: use another machine, or have the virtual \
                      one pass through its host's processor";
        return Check::warn("processor", format!("without {missing}"), remedy);
    }
    Check::ok("processor", format!("has {}", names(true)))
}

fn check_memory(subject: &Subject) -> Check {
    let needed = memory_needed(&subject.config(), subject.superblock.as_ref(), subject.development);
    let Some(available) = memory::available() else {
        return Check::warn("memory", "unknown", format!("{} are needed", HumanSize(needed)));
    };
    let found = format!(
        "{} {}, {} are needed",
        HumanSize(available.bytes),
        available.source,
        HumanSize(needed)
    );
    if available.bytes >= needed {
        return Check::ok("memory", found);
    }
    let remedy = "lower --cache-transfers, --cache-accounts, --cache-grid or --filters of `start`, \
                  use --development, or give it more memory";
    if subject.development {
        // Memory that is never touched costs nothing, and `start` does not check it.
        return Check::warn("memory", found, "little of it is used in development");
    }
    Check::fail("memory", found, remedy)
}

fn check_limit(name: &'static str, which: Limit, min: u64, remedy: &str) -> Check {
    let show = |value: u64| {
        if which == Limit::OpenFiles { value.to_string() } else { HumanSize(value).to_string() }
    };
    match limit(which) {
        Ok(None) => Check::ok(name, "no limit"),
        Ok(Some(value)) if value >= min => Check::ok(name, format!("up to {}", show(value))),
        Ok(Some(value)) => {
            let found = format!("up to {}, {} are wanted", show(value), show(min));
            Check::warn(name, found, remedy)
        }
        Err(error) => Check::warn(name, format!("unknown: {error}"), remedy),
    }
}

/// Bytes of a new data file.
fn file_size_min(config: &Config) -> u64 {
    Zones::new(config).file_size(0)
}

fn check_file_size(subject: &Subject) -> Check {
    let min = file_size_min(&subject.config()) + (1 << 30);
    let remedy = "the data file grows: `ulimit -f unlimited`, or LimitFSIZE=infinity in the unit";
    check_limit("file size", Limit::FileSize, min, remedy)
}

/// The data file itself, if there is one.
fn check_data_file(subject: &Subject) -> Option<Check> {
    const NAME: &str = "data file";
    if let Some(error) = &subject.problem {
        let remedy = "a file in use is fine if its server runs; else see OPERATING, Exit codes";
        return Some(Check::warn(NAME, error.to_string(), remedy));
    }
    let superblock = subject.superblock.as_ref()?;
    let kind = if superblock.config == Config::development() { ", development" } else { "" };
    let found = format!(
        "cluster {}, replica {} of {}{kind}",
        superblock.cluster, superblock.replica, superblock.replica_count
    );
    if superblock.replica_count == 2 {
        let remedy = "two replicas answer nothing while either is down: one or three are better";
        return Some(Check::warn(NAME, found, remedy));
    }
    Some(Check::ok(NAME, found))
}

/// Tries direct I/O with a file of one sector beside the path.
fn check_direct(subject: &Subject) -> Check {
    const NAME: &str = "direct I/O";
    let name = format!(".florin-doctor-{}", std::process::id());
    let path = subject.directory.join(name);
    let result = try_direct(&path);
    // It may not have been created.
    let _ = fs::remove_file(&path);
    let directory = subject.directory.display();
    match result {
        Ok(()) => Check::ok(NAME, format!("works in {directory}")),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let found = format!("the file system of {directory} does not support it");
            if subject.development {
                return Check::warn(NAME, found, "fine for development");
            }
            Check::fail(NAME, found, "put the data file on ext4 or xfs")
        }
        Err(error) => Check::fail(
            NAME,
            format!("no file can be created in {directory}: {error}"),
            "name a directory that exists and may be written to",
        ),
    }
}

fn try_direct(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path)?;
    let mut memory = AlignedMemory::new(to_index(SECTOR_SIZE));
    file.write_all_at(&memory, 0)?;
    file.read_exact_at(&mut memory, 0)
}

fn check_space(subject: &Subject) -> Check {
    const NAME: &str = "disk space";
    let directory = &subject.directory;
    let space = File::open(directory).and_then(|file| file_system_space(file.as_fd()));
    let space = match space {
        Ok(space) => space,
        Err(error) => {
            let found = format!("unknown in {}: {error}", directory.display());
            return Check::warn(NAME, found, "name a directory that exists");
        }
    };
    let free = HumanSize(space.free_bytes);
    let exists = subject.path.is_file();
    let needed = if exists { 0 } else { file_size_min(&subject.config()) };
    let found = if exists {
        format!("{free} free for its growth")
    } else {
        format!("{free} free, a new data file takes {}", HumanSize(needed))
    };
    if space.free_bytes < needed {
        return Check::fail(NAME, found, "free some space, or use another file system");
    }
    let comfort = if subject.development { 1 << 30 } else { SPACE_COMFORT };
    if space.free_bytes < needed + comfort {
        let remedy = "a full file system ends the server: about 335 bytes for each transfer, and \
                      as much again while runs merge";
        return Check::warn(NAME, found, remedy);
    }
    Check::ok(NAME, found)
}

fn check_clock() -> Check {
    const NAME: &str = "clock";
    const REMEDY: &str = "run chrony, systemd-timesyncd or another NTP client (in a container: on \
                          its host)";
    match clock_state() {
        Err(error) => Check::warn(NAME, format!("unknown: {error}"), REMEDY),
        Ok(state) if !state.synchronised => {
            Check::warn(NAME, "not synchronised, as far as the kernel knows", REMEDY)
        }
        Ok(state) if state.error_us > CLOCK_ERROR_MAX_US => {
            let found =
                format!("synchronised, but with an error of up to {} ms", state.error_us / 1000);
            Check::warn(NAME, found, REMEDY)
        }
        Ok(state) => {
            Check::ok(NAME, format!("synchronised to {} ms", state.error_us.div_euclid(1000) + 1))
        }
    }
}

/// Breaks text into lines of a width, at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

/// Human-readable.
fn lines(checks: &[Check]) -> String {
    let names = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = Vec::new();
    for check in checks {
        let head = format!("{:4}  {:names$}  ", check.verdict.name(), check.name);
        let indent = head.len();
        let found = wrap(&check.found, WIDTH - indent);
        let remedy = wrap(&check.remedy, WIDTH - indent - 3);
        for (index, line) in found.iter().enumerate() {
            let start = if index == 0 { head.clone() } else { " ".repeat(indent) };
            text.push(format!("{start}{line}"));
        }
        for (index, line) in remedy.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
            let mark = if index == 0 { "-> " } else { "   " };
            text.push(format!("{}{mark}{line}", " ".repeat(indent)));
        }
    }
    text.join("\n")
}

fn json_of(checks: &[Check]) -> String {
    let list: Vec<_> = checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name,
                "verdict": check.verdict.name(),
                "found": check.found,
                "remedy": check.remedy,
            })
        })
        .collect();
    let ok = checks.iter().all(|check| check.verdict != Verdict::Fail);
    let value = json!({ "ok": ok, "checks": list });
    serde_json::to_string_pretty(&value).expect("plain values are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: versions of kernels are read as distributions write them.
    #[test]
    fn kernels() {
        assert_eq!(kernel_version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.10.0"), Some((5, 10)));
        assert!(kernel_version("5.9.1") < Some(KERNEL_MIN));
        assert_eq!(kernel_version("none"), None);
    }

    /// Goal: every check is done, has a remedy unless its verdict is ok, and fits 80 columns.
    #[test]
    fn shown() {
        let subject = Subject::of(&std::env::temp_dir(), true);
        let checks = check_all(&subject);
        let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
        assert_eq!(
            names,
            [
                "kernel",
                "io_uring",
                "processor",
                "memory",
                "locked memory",
                "open files",
                "file size",
                "direct I/O",
                "disk space",
                "clock"
            ]
        );
        for check in &checks {
            assert_eq!(check.remedy.is_empty(), check.verdict == Verdict::Ok, "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
        }
        let text = lines(&checks);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let value: serde_json::Value = serde_json::from_str(&json_of(&checks)).unwrap();
        assert_eq!(value["checks"].as_array().unwrap().len(), checks.len());
    }

    /// Goal: limits that are too low, and directories that cannot be written to, have a remedy.
    #[test]
    fn findings() {
        let check = check_limit("open files", Limit::OpenFiles, u64::MAX, "raise it");
        assert!(check.verdict != Verdict::Fail && check.name == "open files");
        let subject = Subject::of(Path::new("/no/such/directory/0_0.florin"), false);
        let check = check_direct(&subject);
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.found.contains("/no/such/directory"), "{}", check.found);
        assert_eq!(check_space(&subject).verdict, Verdict::Warn);
        assert_eq!(subject.config(), Config::production());
        let shown = lines(&[Check::fail("x", "a ".repeat(60), "b ".repeat(60))]);
        assert!(shown.lines().count() >= 4 && shown.contains("-> b"), "{shown}");
    }
}
