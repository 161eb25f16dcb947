//! How much memory there is, and whether what the server wants fits.
//!
//! The answer is the least of what the system has available and what each control group (v1 and v2)
//! around this process has left; page cache that can be dropped counts as left. Also the table
//! of what is reserved for what. Not covered: swap.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::system;

/// Address space of the program besides what it reserves: itself, libraries, stacks of threads.
const PROGRAM_BYTES: u64 = 128 << 20;

/// Where the figure for the available memory comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemorySource {
    /// `MemAvailable` of `/proc/meminfo`.
    System,
    /// The limit of the control group with this directory.
    ControlGroup(PathBuf),
}

impl fmt::Display for MemorySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemorySource::System => write!(formatter, "available on this machine"),
            MemorySource::ControlGroup(path) => {
                write!(formatter, "left in the control group {}", path.display())
            }
        }
    }
}

/// Memory that can be had, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryAvailable {
    /// Bytes.
    pub bytes: u64,
    /// What set the limit.
    pub source: MemorySource,
}

/// The memory wanted is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryError {
    /// Bytes the server would reserve.
    pub needed: u64,
    /// What there is.
    pub available: MemoryAvailable,
}

impl fmt::Display for MemoryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "not enough memory: the server needs {} and {} are {}; lower --cache-transfers, \
             --cache-accounts, --cache-grid or --filters, use --development, or give it more \
             memory",
            HumanSize(self.needed),
            HumanSize(self.available.bytes),
            self.available.source,
        )
    }
}

impl std::error::Error for MemoryError {}

/// The memory this process could still get; `None` if the system does not tell.
#[must_use]
pub fn available() -> Option<MemoryAvailable> {
    available_under(Path::new("/"))
}

/// Whether `needed` bytes can be had now. A system that does not tell is believed to have them.
///
/// # Errors
///
/// If they cannot.
pub fn check(needed: u64) -> Result<(), MemoryError> {
    check_against(needed, available())
}

/// Whether the limit of address space (`ulimit -v`) has room for `needed` bytes besides what the
/// program itself takes.
///
/// # Errors
///
/// If it has not: what there is, and what to do.
pub fn check_address_space(needed: u64) -> Result<(), String> {
    let limit = system::limit(system::Limit::AddressSpace).unwrap_or(None);
    match limit {
        Some(limit) if limit < needed.saturating_add(PROGRAM_BYTES) => Err(format!(
            "not enough address space: the server needs {} and its limit is {}; raise it (ulimit \
             -v unlimited, LimitAS=infinity in a systemd unit)",
            HumanSize(needed.saturating_add(PROGRAM_BYTES)),
            HumanSize(limit),
        )),
        _ => Ok(()),
    }
}

fn check_against(needed: u64, available: Option<MemoryAvailable>) -> Result<(), MemoryError> {
    match available {
        Some(available) if available.bytes < needed => Err(MemoryError { needed, available }),
        _ => Ok(()),
    }
}

/// [`available`] with the system's files looked for under another root.
fn available_under(root: &Path) -> Option<MemoryAvailable> {
    let system = fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| field_kibibytes(&text, "MemAvailable:"))
        .map(|bytes| MemoryAvailable { bytes, source: MemorySource::System });
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut least = system;
    for line in groups.lines() {
        let Some((mount, path, files)) = control_group(line) else { continue };
        let Some(left) = group_left(&root.join(mount), path, files) else { continue };
        if least.as_ref().is_none_or(|least| left.bytes < least.bytes) {
            least = Some(left);
        }
    }
    least
}

/// Names of a control group's files: limit, usage.
type GroupFiles = (&'static str, &'static str);

/// Mount point, path and file names of the memory group that a line of `/proc/self/cgroup` names.
fn control_group(line: &str) -> Option<(&'static str, &str, GroupFiles)> {
    let mut parts = line.splitn(3, ':');
    let (_number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let path = path.trim_start_matches('/');
    if controllers.is_empty() {
        return Some(("sys/fs/cgroup", path, ("memory.max", "memory.current")));
    }
    if controllers.split(',').any(|controller| controller == "memory") {
        let files = ("memory.limit_in_bytes", "memory.usage_in_bytes");
        return Some(("sys/fs/cgroup/memory", path, files));
    }
    None
}

/// What the tightest group from `path` up to the mount point has left; `None` without a limit.
fn group_left(mount: &Path, path: &str, files: GroupFiles) -> Option<MemoryAvailable> {
    let mut least: Option<MemoryAvailable> = None;
    // In a container the path may name directories that are not visible: those are skipped.
    for directory in mount.join(path).ancestors().take_while(|place| place.starts_with(mount)) {
        let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
        // "max" stands for no limit in v2; v1 has a number above any memory.
        let limit = read(files.0).and_then(|text| text.trim().parse::<u64>().ok());
        let usage = read(files.1).and_then(|text| text.trim().parse::<u64>().ok());
        let (Some(limit), Some(usage)) = (limit, usage) else { continue };
        let droppable = read("memory.stat").map_or(0, |text| droppable_bytes(&text));
        let bytes = limit.saturating_sub(usage.saturating_sub(droppable));
        if least.as_ref().is_none_or(|least| bytes < least.bytes) {
            let source = MemorySource::ControlGroup(directory.to_path_buf());
            least = Some(MemoryAvailable { bytes, source });
        }
    }
    least
}

/// Page cache that the group gives up when memory is wanted, in bytes.
fn droppable_bytes(stat: &str) -> u64 {
    let field = |name: &str| {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(key, _)| *key == name)?;
        value.trim().parse::<u64>().ok()
    };
    field("total_inactive_file").or_else(|| field("inactive_file")).unwrap_or(0)
}

/// A field of `/proc/meminfo` in bytes.
fn field_kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// A number of bytes for people to read: in the largest unit of which there is one, rounded to one
/// decimal, as in `1.5 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HumanSize(pub u64);

impl fmt::Display for HumanSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40_u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 >> shift > 0 {
                let tenths = tenths(self.0, shift);
                return write!(formatter, "{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        write!(formatter, "{} bytes", self.0)
    }
}

/// Tenths of 2^`shift` in `value`, rounded.
fn tenths(value: u64, shift: u32) -> u128 {
    (u128::from(value) * 10 + (1 << (shift - 1))) >> shift
}

/// What is reserved for what, in bytes. Prints as a table with a total.
#[derive(Clone, Debug, Default)]
pub struct MemoryTable {
    rows: Vec<(&'static str, u64)>,
}

impl MemoryTable {
    /// A table without rows.
    #[must_use]
    pub fn new() -> MemoryTable {
        MemoryTable::default()
    }

    /// Adds a row.
    pub fn add(&mut self, name: &'static str, bytes: u64) {
        self.rows.push((name, bytes));
    }

    /// Sum of all rows, in bytes.
    ///
    /// # Panics
    ///
    /// If it exceeds 2^64.
    #[must_use]
    pub fn total(&self) -> u64 {
        let add = |sum: u64, row: &(&str, u64)| sum.checked_add(row.1);
        self.rows.iter().try_fold(0, add).expect("the sum of all memory fits 64 bits")
    }
}

impl fmt::Display for MemoryTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.0.len()).max().unwrap_or(0).max(5);
        let mebibytes = |bytes| {
            let tenths = tenths(bytes, 20);
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        for (name, bytes) in &self.rows {
            writeln!(formatter, "  {name:width$} {:>9} MiB", mebibytes(*bytes))?;
        }
        write!(formatter, "  {:width$} {:>9} MiB", "total", mebibytes(self.total()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let name = format!("florin-memory-{name}-{}", std::process::id());
            let root = Root(std::env::temp_dir().join(name));
            fs::create_dir_all(&root.0).unwrap();
            root
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MEMINFO: &str = "MemTotal:  8000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n";

    /// Goal: without control groups the system's figure counts, and no file means no answer.
    #[test]
    fn system_only() {
        let root = Root::new("system");
        assert_eq!(available_under(&root.0), None);
        root.write("proc/meminfo", MEMINFO);
        let expected = MemoryAvailable { bytes: 4_096_000, source: MemorySource::System };
        assert_eq!(available_under(&root.0), Some(expected));
    }

    /// Goal: the tightest group of version 2 counts, on any level, with droppable cache added.
    #[test]
    fn groups_version_2() {
        let root = Root::new("v2");
        root.write("proc/meminfo", MEMINFO);
        root.write("proc/self/cgroup", "0::/outer/inner\n");
        root.write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
        root.write("sys/fs/cgroup/outer/inner/memory.current", "5\n");
        root.write("sys/fs/cgroup/outer/memory.max", "1000000\n");
        root.write("sys/fs/cgroup/outer/memory.current", "700000\n");
        root.write("sys/fs/cgroup/outer/memory.stat", "anon 9\ninactive_file 200000\n");
        let found = available_under(&root.0).unwrap();
        assert_eq!(found.bytes, 500_000);
        assert!(matches!(found.source, MemorySource::ControlGroup(path)
            if path.ends_with("sys/fs/cgroup/outer")));
    }

    /// Goal: version 1 is read too, and a looser limit than the system's does not count.
    #[test]
    fn groups_version_1() {
        let root = Root::new("v1");
        root.write("proc/meminfo", MEMINFO);
        root.write("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/docker/abc\n");
        root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
        root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1");
        assert_eq!(available_under(&root.0).unwrap().source, MemorySource::System);
        root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000");
        root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000");
        assert_eq!(available_under(&root.0).unwrap().bytes, 0);
    }

    /// Goal: needing exactly what there is passes, one more does not, and the message tells all.
    #[test]
    fn check_limits() {
        let available = MemoryAvailable { bytes: 5 << 20, source: MemorySource::System };
        assert_eq!(check_against(5 << 20, Some(available.clone())), Ok(()));
        assert_eq!(check_against(u64::MAX, None), Ok(()));
        let error = check_against((5 << 20) + 1, Some(available)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("needs 5.0 MiB and 5.0 MiB are available on this machine"), "{text}");
        for option in ["transfers", "accounts", "grid"] {
            assert!(text.contains(&format!("--cache-{option}")), "{text}");
        }
        assert_eq!(check(1), Ok(()));
    }

    /// Goal: sizes are in the unit that people would use, rounded.
    #[test]
    fn human_sizes() {
        let print = |bytes| HumanSize(bytes).to_string();
        assert_eq!(print(0), "0 bytes");
        assert_eq!(print(1023), "1023 bytes");
        assert_eq!(print(1536), "1.5 KiB");
        assert_eq!(print(1_049_088 << 10), "1.0 GiB");
        assert_eq!(print((5 << 20) - 1), "5.0 MiB");
        assert_eq!(print(u64::MAX), "16777216.0 TiB");
    }

    /// Goal: the table adds up and is aligned.
    #[test]
    fn table() {
        let mut table = MemoryTable::new();
        table.add("messages", 3 << 20);
        table.add("page cache", 100_000);
        assert_eq!(table.total(), (3 << 20) + 100_000);
        let expected = "  messages         3.0 MiB\n  page cache       0.1 MiB\n  \
                        total            3.1 MiB";
        assert_eq!(table.to_string(), expected);
    }
}
