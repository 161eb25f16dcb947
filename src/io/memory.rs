//! How much memory there is, and whether what the server wants fits.
//!
//! The answer is the least of what the system has available and what each control group (v1 and v2)
//! around this process has left; page cache that can be dropped counts as left. Also the table
//! of what is reserved for what. Not covered: swap.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::system::{self, Limit};

/// Memory and address space of the program besides what it reserves: itself, libraries, stacks of
/// threads.
const PROGRAM_BYTES: u64 = 128 << 20;

/// Where the figure for the available memory comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemorySource {
    /// `MemAvailable` of `/proc/meminfo`.
    System,
    /// `MemTotal` of `/proc/meminfo`.
    Machine,
    /// What the limit of the control group with this directory leaves.
    ControlGroup(PathBuf),
    /// The limit of the control group with this directory.
    ControlGroupLimit(PathBuf),
}

impl fmt::Display for MemorySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemorySource::System => write!(formatter, "available on this machine"),
            MemorySource::Machine => write!(formatter, "all that this machine has"),
            MemorySource::ControlGroup(path) => {
                write!(formatter, "left in the control group {}", path.display())
            }
            MemorySource::ControlGroupLimit(path) => {
                write!(formatter, "the limit of the control group {}", path.display())
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

impl MemoryAvailable {
    /// Whether it is all that there is, and not only what is left.
    fn is_total(&self) -> bool {
        matches!(self.source, MemorySource::Machine | MemorySource::ControlGroupLimit(_))
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    /// What could still be had.
    Left,
    /// All that there is, in use or not.
    Total,
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
             --cache-accounts, --cache-grid or --filters, ",
            HumanSize(self.needed),
            HumanSize(self.available.bytes),
            self.available.source,
        )?;
        if !self.available.is_total() {
            write!(formatter, "use --development, ")?;
        }
        write!(formatter, "or give it more memory")
    }
}

impl std::error::Error for MemoryError {}

/// The memory this process could still get; `None` if the system does not tell.
#[must_use]
pub fn available() -> Option<MemoryAvailable> {
    least_under(Path::new("/"), Count::Left)
}

/// Whether `needed` bytes can be had now. A system that does not tell is believed to have them.
///
/// # Errors
///
/// If they cannot.
pub fn check(needed: u64) -> Result<(), MemoryError> {
    check_against(needed, available())
}

/// Whether the machine, and each control group around this process, has `needed` bytes at all,
/// whoever uses them now. A system that does not tell is believed to have them.
///
/// # Errors
///
/// If one has not.
pub fn check_total(needed: u64) -> Result<(), MemoryError> {
    check_against(needed, least_under(Path::new("/"), Count::Total))
}

/// Whether the limits of address space (`ulimit -v`) and of data (`ulimit -d`) have room for the
/// `needed` bytes of `user`, for the message, besides what the program itself takes.
///
/// # Errors
///
/// If one has not: what there is, and what to do.
pub fn check_limits(user: &str, needed: u64) -> Result<(), String> {
    let needed = needed.saturating_add(PROGRAM_BYTES);
    for (limit, name, remedy) in [
        (Limit::AddressSpace, "address space", "ulimit -v unlimited, LimitAS=infinity"),
        (Limit::Data, "memory for data", "ulimit -d unlimited, LimitDATA=infinity"),
    ] {
        let limit = system::limit(limit).unwrap_or(None);
        check_limit(user, needed, limit, name, remedy)?;
    }
    Ok(())
}

fn check_limit(
    user: &str,
    needed: u64,
    limit: Option<u64>,
    name: &str,
    remedy: &str,
) -> Result<(), String> {
    match limit {
        Some(limit) if limit < needed => Err(format!(
            "not enough {name}: {user} needs {} and its limit is {}; raise it ({remedy} in a \
             systemd unit)",
            HumanSize(needed),
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

/// The least of what the machine and the groups have, with the system's files looked for under
/// `root`.
fn least_under(root: &Path, count: Count) -> Option<MemoryAvailable> {
    let (field, source) = match count {
        Count::Left => ("MemAvailable:", MemorySource::System),
        Count::Total => ("MemTotal:", MemorySource::Machine),
    };
    let system = fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| field_kibibytes(&text, field))
        .map(|bytes| MemoryAvailable { bytes, source });
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut least = system;
    for line in groups.lines() {
        let Some((mount, path, files)) = control_group(line) else { continue };
        let Some(left) = group_least(&root.join(mount), path, files, count) else { continue };
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

/// What the tightest group from `path` up to the mount point has; `None` without a limit.
fn group_least(
    mount: &Path,
    path: &str,
    files: GroupFiles,
    count: Count,
) -> Option<MemoryAvailable> {
    let mut least: Option<MemoryAvailable> = None;
    // In a container the path may name directories that are not visible: those are skipped.
    for directory in mount.join(path).ancestors().take_while(|place| place.starts_with(mount)) {
        let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
        // "max" stands for no limit in v2; v1 has a number above any memory.
        let limit = read(files.0).and_then(|text| text.trim().parse::<u64>().ok());
        let usage = read(files.1).and_then(|text| text.trim().parse::<u64>().ok());
        let (Some(limit), Some(usage)) = (limit, usage) else { continue };
        let droppable = read("memory.stat").map_or(0, |text| droppable_bytes(&text));
        let place = directory.to_path_buf();
        let (bytes, source) = match count {
            Count::Left => {
                let left = limit.saturating_sub(usage.saturating_sub(droppable));
                (left, MemorySource::ControlGroup(place))
            }
            Count::Total => (limit, MemorySource::ControlGroupLimit(place)),
        };
        if least.as_ref().is_none_or(|least| bytes < least.bytes) {
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
        assert_eq!(least_under(&root.0, Count::Left), None);
        root.write("proc/meminfo", MEMINFO);
        let expected = MemoryAvailable { bytes: 4_096_000, source: MemorySource::System };
        assert_eq!(least_under(&root.0, Count::Left), Some(expected));
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
        let found = least_under(&root.0, Count::Left).unwrap();
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
        assert_eq!(least_under(&root.0, Count::Left).unwrap().source, MemorySource::System);
        root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000");
        root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000");
        assert_eq!(least_under(&root.0, Count::Left).unwrap().bytes, 0);
    }

    /// Goal: needing exactly what there is passes, one more does not, and the message tells all.
    #[test]
    fn memory_limits() {
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

    /// Goal: what there is at all counts whoever uses it, and the tightest group has the last word.
    #[test]
    fn totals() {
        let root = Root::new("totals");
        root.write("proc/meminfo", MEMINFO);
        let find = || least_under(&root.0, Count::Total).unwrap();
        let machine = MemoryAvailable { bytes: 8_192_000, source: MemorySource::Machine };
        assert_eq!(find(), machine);
        root.write("proc/self/cgroup", "0::/outer\n");
        root.write("sys/fs/cgroup/outer/memory.max", "1000000\n");
        root.write("sys/fs/cgroup/outer/memory.current", "700000\n");
        assert_eq!(find().bytes, 1_000_000);
        let text = check_against(1_000_001, Some(find())).unwrap_err().to_string();
        assert!(text.contains("the limit of the control group /"), "{text}");
        assert!(!text.contains("--development"), "{text}");
        assert_eq!(check_against(1_000_000, Some(find())), Ok(()));
        assert_eq!(check_total(1), Ok(()));
        let error = check_total(1 << 60).unwrap_err();
        assert_eq!(error.needed, 1 << 60);
    }

    /// Goal: a limit has room for what is needed exactly, and the message names the remedy.
    #[test]
    fn limits_of_the_process() {
        let check = |limit| {
            check_limit("the server", 5 << 20, limit, "memory for data", "ulimit -d unlimited")
        };
        assert_eq!(check(None), Ok(()));
        assert_eq!(check(Some(5 << 20)), Ok(()));
        let text = check(Some((5 << 20) - 1)).unwrap_err();
        assert!(text.starts_with("not enough memory for data: the server needs 5.0 MiB"), "{text}");
        assert!(text.contains("ulimit -d unlimited"), "{text}");
        assert_eq!(check_limits("the server", 1), Ok(()));
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
