//! The data file: created, locked, opened for direct I/O; reads and writes before the loop runs.
//!
//! A data file belongs to one process at a time (a lock that ends with the process), and is
//! accessed past the page cache. A file system without direct I/O is refused; in development it is
//! used through the page cache, which is safe (durable writes are durable) but slower. All errors
//! say which file, what the system answered and what to do. Not covered: the file's content.

#![allow(unsafe_code)]

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::protocol::{AlignedMemory, SECTOR_SIZE, to_index};
use crate::storage::Zones;
use crate::vsr::superblock::{COPIES, COPY_SIZE, choose};
use crate::vsr::{FormatStep, Genesis, Superblock, SuperblockError, format};

/// Bytes per write of a fresh file.
const CHUNK_SIZE: usize = 1 << 20;
const SECTOR_SIZE_U64: u64 = 4096;
/// Pauses until another process is believed to hold the lock for good.
const LOCK_PAUSES_MAX: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
static_assertions::const_assert_eq!(SECTOR_SIZE, 4096);

/// What went wrong with a data file: which file, what, and what to do about it.
#[derive(Debug)]
pub struct FileError {
    /// The data file, or its directory.
    pub path: PathBuf,
    /// What went wrong.
    pub kind: FileErrorKind,
}

/// See [`FileError`].
#[derive(Debug)]
pub enum FileErrorKind {
    /// To be created, but there already.
    Exists,
    /// To be opened, but not there.
    Missing,
    /// It is a directory, a device or the like.
    NotRegular,
    /// Another process has it open.
    Locked,
    /// The file system has no direct I/O.
    NoDirectIo,
    /// Shorter than it must be, in bytes.
    TooShort {
        /// The file's size.
        actual: u64,
        /// The size it must have at least.
        expected: u64,
    },
    /// No room for the file.
    NoSpace {
        /// Bytes the file needs.
        needed: u64,
    },
    /// Its superblock cannot be believed.
    Superblock(Box<SuperblockError>),
    /// The system refused the named step for another reason.
    System {
        /// What was tried.
        step: &'static str,
        /// What the system answered.
        error: io::Error,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kind {
            FileErrorKind::Exists => write!(
                formatter,
                "{path} exists already and is not overwritten: take another path, or remove it if \
                 its data is not needed"
            ),
            FileErrorKind::Missing => write!(
                formatter,
                "{path} does not exist: create it with `florin format`, or correct the path"
            ),
            FileErrorKind::NotRegular => {
                write!(formatter, "{path} is not a regular file: a data file must be one")
            }
            FileErrorKind::Locked => write!(
                formatter,
                "{path} is in use by another process: stop that one first; a data file belongs to \
                 one replica only"
            ),
            FileErrorKind::NoDirectIo => write!(
                formatter,
                "{path} is on a file system without direct I/O: move it to another (ext4 and xfs \
                 have it), or use --development if it holds nothing of value"
            ),
            FileErrorKind::TooShort { actual, expected } => write!(
                formatter,
                "{path} has {actual} bytes and must have at least {expected}: it was truncated or \
                 its creation was interrupted; restore it, or format a new one"
            ),
            FileErrorKind::NoSpace { needed } => write!(
                formatter,
                "{path} needs {needed} bytes and the file system has no room for them: free some \
                 space, or choose another place"
            ),
            FileErrorKind::Superblock(error) => write!(formatter, "{path}: {error}"),
            FileErrorKind::System { step, error } => {
                write!(formatter, "{path}: cannot {step}: {error}; {}", remedy(error))
            }
        }
    }
}

impl std::error::Error for FileError {}

/// What a person can do about an answer of the system.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "check the permissions of the file and its directory",
        Some(libc::EROFS) => "the file system is mounted read-only",
        Some(libc::ENOENT | libc::ENOTDIR) => "check that the directory exists",
        Some(libc::ELOOP) => "the symbolic links lead in a circle: correct them or the path",
        Some(libc::ENAMETOOLONG) => "choose a shorter path",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (ulimit -n)",
        Some(libc::EIO) => "the device failed: see the kernel's log",
        Some(libc::EFBIG) => "raise the limit of file size (ulimit -f), or use another file system",
        Some(libc::ENOSPC | libc::EDQUOT) => "free some space",
        _ => "see the kernel's log for more",
    }
}

fn failure(path: &Path, kind: FileErrorKind) -> FileError {
    FileError { path: path.to_path_buf(), kind }
}

fn system(path: &Path, step: &'static str, error: io::Error) -> FileError {
    failure(path, FileErrorKind::System { step, error })
}

/// Opens a file that must exist.
fn open_existing(path: &Path, writable: bool) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    options.read(true).write(writable).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => failure(path, FileErrorKind::Missing),
        Some(libc::EISDIR | libc::ENXIO) => failure(path, FileErrorKind::NotRegular),
        _ => system(path, "open the file", error),
    })
}

/// The result of a system call that returns −1 for an error.
fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Locks the file for this process alone.
///
/// A process that was killed keeps its lock for some milliseconds after it is gone: until the
/// kernel has ended the reads and writes that were in flight. They must not meet ours, and a
/// restart at once must not fail, so this waits.
fn lock(file: &File, path: &Path) -> Result<(), FileError> {
    let mut pauses_left = LOCK_PAUSES_MAX;
    loop {
        // SAFETY: the call takes no pointers and the descriptor is open.
        let locked =
            checked(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) });
        match locked {
            Ok(_) => return Ok(()),
            Err(error) if error.raw_os_error() != Some(libc::EWOULDBLOCK) => {
                return Err(system(path, "lock the file", error));
            }
            Err(_) if pauses_left == 0 => return Err(failure(path, FileErrorKind::Locked)),
            Err(_) => {
                pauses_left -= 1;
                std::thread::sleep(LOCK_PAUSE);
            }
        }
    }
}

/// An open data file, locked by this process until dropped.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    path: PathBuf,
    size: u64,
    direct: bool,
}

/// One step of making a data file. Offsets and lengths are multiples of 4096.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Write zeros, for real and not only reserved, so that a later write there needs no change of
    /// the file system's own records to be durable.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Write these bytes.
    Write {
        /// First byte.
        offset: u64,
        /// What to write.
        bytes: &'a [u8],
    },
    /// Make all steps before this one durable.
    Sync,
}

impl<'a> From<&'a FormatStep> for Step<'a> {
    fn from(step: &'a FormatStep) -> Step<'a> {
        match step {
            FormatStep::Zero { offset, length } => Step::Zero { offset: *offset, length: *length },
            FormatStep::Write { offset, bytes } => Step::Write { offset: *offset, bytes },
            FormatStep::Sync => Step::Sync,
        }
    }
}

/// Creates the data file of a new replica.
///
/// # Errors
///
/// See [`DataFile::format`].
///
/// # Panics
///
/// If the geometry is not valid.
pub fn format_data_file(
    path: &Path,
    genesis: &Genesis,
    development: bool,
) -> Result<(), FileError> {
    let size = Zones::new(&genesis.config).file_size(0);
    let steps = format(genesis);
    let steps: Vec<Step<'_>> = steps.iter().map(Step::from).collect();
    DataFile::format(path, size, &steps, development)
}

impl DataFile {
    /// Opens and locks an existing data file of at least `size_min` bytes. Without `development`, a
    /// file system without direct I/O is refused. The end need not be a multiple of a sector: a
    /// full disk may have cut a write off, and nothing refers to that.
    ///
    /// # Errors
    ///
    /// See [`FileErrorKind`].
    pub fn open(path: &Path, size_min: u64, development: bool) -> Result<DataFile, FileError> {
        let file = open_existing(path, true)?;
        let data_file = DataFile::prepare(file, path, development)?;
        let actual = data_file.size;
        if actual < size_min {
            return Err(failure(path, FileErrorKind::TooShort { actual, expected: size_min }));
        }
        Ok(data_file)
    }

    /// Opens and locks an existing data file to look at: it cannot be written. Nothing is demanded
    /// of its size or of the file system.
    ///
    /// # Errors
    ///
    /// See [`FileErrorKind`].
    pub fn open_to_inspect(path: &Path) -> Result<DataFile, FileError> {
        DataFile::prepare(open_existing(path, false)?, path, true)
    }

    /// Creates a data file of `size` bytes, a multiple of 4096, by the given steps; durable when
    /// this returns. What no step writes reads as zero. Never overwrites. What it created it
    /// removes
    /// again if it fails.
    ///
    /// # Errors
    ///
    /// See [`FileErrorKind`].
    ///
    /// # Panics
    ///
    /// If a step is not aligned or exceeds the size.
    pub fn format(
        path: &Path,
        size: u64,
        steps: &[Step<'_>],
        development: bool,
    ) -> Result<(), FileError> {
        assert!(size.is_multiple_of(SECTOR_SIZE_U64));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o640);
        let file = options.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => failure(path, FileErrorKind::Exists),
            _ => system(path, "create the file", error),
        })?;
        let result = DataFile::fill(file, path, size, steps, development);
        if result.is_err() {
            // Best effort: the first error is the one to report.
            let _ = fs::remove_file(path);
        }
        result
    }

    fn fill(
        file: File,
        path: &Path,
        size: u64,
        steps: &[Step<'_>],
        development: bool,
    ) -> Result<(), FileError> {
        let mut data_file = DataFile::prepare(file, path, development)?;
        data_file.reserve(size, development)?;
        data_file.size = size;
        let mut memory = AlignedMemory::new(CHUNK_SIZE);
        for step in steps {
            data_file.step(*step, &mut memory)?;
        }
        data_file.step(Step::Sync, &mut memory)?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = File::open(parent).and_then(|directory| directory.sync_all());
        directory.map_err(|error| system(parent, "sync the directory", error))
    }

    /// Does one step; `memory` is for bytes on their way.
    fn step(&self, step: Step<'_>, memory: &mut AlignedMemory) -> Result<(), FileError> {
        match step {
            Step::Zero { offset, length } => {
                memory.fill(0);
                let mut done = 0;
                while done < length {
                    let rest = usize::try_from(length - done).unwrap_or(CHUNK_SIZE);
                    let chunk = &memory[..rest.min(CHUNK_SIZE)];
                    self.write_at(offset + done, chunk)?;
                    done += to_u64(chunk.len());
                }
                Ok(())
            }
            Step::Write { mut offset, bytes } => {
                for chunk in bytes.chunks(CHUNK_SIZE) {
                    memory[..chunk.len()].copy_from_slice(chunk);
                    self.write_at(offset, &memory[..chunk.len()])?;
                    offset += to_u64(chunk.len());
                }
                Ok(())
            }
            Step::Sync => {
                self.file.sync_all().map_err(|error| system(&self.path, "sync the file", error))
            }
        }
    }

    /// Locks the open file and switches it to direct I/O.
    fn prepare(file: File, path: &Path, development: bool) -> Result<DataFile, FileError> {
        let metadata = file.metadata().map_err(|error| system(path, "examine the file", error))?;
        if !metadata.is_file() {
            return Err(failure(path, FileErrorKind::NotRegular));
        }
        lock(&file, path)?;
        // What held the lock may have written until now.
        let metadata = file.metadata().map_err(|error| system(path, "examine the file", error))?;
        // SAFETY: setting status flags takes no pointers and the descriptor is open.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT) };
        let direct = match checked(result) {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
            Err(error) => return Err(system(path, "switch the file to direct I/O", error)),
        };
        let size = metadata.len();
        let mut data_file = DataFile { file, path: path.to_path_buf(), size, direct };
        if direct && size >= SECTOR_SIZE_U64 {
            // Some file systems accept the flag and refuse the access, or want larger sectors.
            let mut memory = AlignedMemory::new(to_index(SECTOR_SIZE));
            match data_file.file.read_at(&mut memory, 0) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    data_file.direct = false;
                }
                Err(error) => return Err(system(path, "read the file", error)),
                Ok(_) => {}
            }
        }
        if !data_file.direct {
            if !development {
                return Err(failure(path, FileErrorKind::NoDirectIo));
            }
            // SAFETY: as above.
            let result = unsafe { libc::fcntl(data_file.file.as_raw_fd(), libc::F_SETFL, 0) };
            checked(result).map_err(|error| system(path, "switch off direct I/O", error))?;
        }
        Ok(data_file)
    }

    /// Reserves the blocks of a fresh file.
    fn reserve(&self, size: u64, development: bool) -> Result<(), FileError> {
        let no_space = || failure(&self.path, FileErrorKind::NoSpace { needed: size });
        let Ok(length) = libc::off_t::try_from(size) else { return Err(no_space()) };
        let result = loop {
            // SAFETY: the call takes no pointers and the descriptor is open.
            let result = checked(unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, length) });
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT) => Err(no_space()),
                Some(libc::EOPNOTSUPP) if development => {
                    let result = self.file.set_len(size);
                    result.map_err(|error| system(&self.path, "extend the file", error))
                }
                _ => Err(system(&self.path, "reserve space for the file", error)),
            },
        }
    }

    /// Reads `length` bytes at `offset`, both multiples of 4096. Blocks: for before the loop runs.
    ///
    /// # Errors
    ///
    /// If the system cannot read, or the file ends before.
    ///
    /// # Panics
    ///
    /// If offset or length are not aligned, or the length is zero.
    pub fn read(&self, offset: u64, length: u32) -> Result<AlignedMemory, FileError> {
        assert!(offset.is_multiple_of(SECTOR_SIZE_U64));
        assert!(length.is_multiple_of(SECTOR_SIZE));
        let mut memory = AlignedMemory::new(to_index(length));
        self.read_into(offset, length, &mut memory)?;
        Ok(memory)
    }

    /// Reads like [`DataFile::read`], into the start of `memory`.
    ///
    /// # Errors
    ///
    /// If the system cannot read, or the file ends before.
    ///
    /// # Panics
    ///
    /// If offset or length are not aligned, or the memory is shorter.
    pub fn read_into(
        &self,
        offset: u64,
        length: u32,
        memory: &mut AlignedMemory,
    ) -> Result<(), FileError> {
        assert!(offset.is_multiple_of(SECTOR_SIZE_U64));
        assert!(length.is_multiple_of(SECTOR_SIZE));
        let result = self.file.read_exact_at(&mut memory[..to_index(length)], offset);
        result.map_err(|error| system(&self.path, "read the file", error))
    }

    /// The superblock to believe: it tells the cluster and the geometry. For before the replica is
    /// made, which reads it again for itself.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or there is none to believe.
    ///
    /// # Panics
    ///
    /// Never: what is read is aligned.
    pub fn superblock(&self) -> Result<Box<Superblock>, FileError> {
        let size = u32::try_from(COPIES * COPY_SIZE).expect("the copies are small");
        let actual = self.size;
        if actual < u64::from(size) {
            let expected = u64::from(size);
            return Err(failure(&self.path, FileErrorKind::TooShort { actual, expected }));
        }
        let memory = self.read(0, size)?;
        let copies: [_; COPIES] =
            std::array::from_fn(|copy| Ok(&memory[copy * COPY_SIZE..(copy + 1) * COPY_SIZE]));
        let mut chosen = Superblock::blank();
        match choose(&copies, &mut chosen) {
            Ok(_) => Ok(chosen),
            Err(error) => Err(failure(&self.path, FileErrorKind::Superblock(Box::new(error)))),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        assert!(offset.is_multiple_of(SECTOR_SIZE_U64));
        assert!(to_u64(bytes.len()).is_multiple_of(SECTOR_SIZE_U64));
        let end = offset.checked_add(to_u64(bytes.len()));
        assert!(end.is_some_and(|end| end <= self.size));
        self.file.write_all_at(bytes, offset).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                let needed = offset + to_u64(bytes.len());
                failure(&self.path, FileErrorKind::NoSpace { needed })
            }
            _ => system(&self.path, "write the file", error),
        })
    }

    /// Size in bytes when it was opened. The file grows as the grid is written.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether accesses bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for DataFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length in memory fits 64 bits")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::storage::Config;

    /// A path in the temporary directory, removed when dropped.
    pub(crate) struct TemporaryPath(pub PathBuf);

    impl TemporaryPath {
        pub(crate) fn new(name: &str) -> TemporaryPath {
            let name = format!("florin-file-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_file(&path);
            TemporaryPath(path)
        }
    }

    impl Drop for TemporaryPath {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    const SIZE: u64 = 3 << 20;

    fn format_zero(path: &Path) -> Result<(), FileError> {
        DataFile::format(path, SIZE, &[], true)
    }

    /// Goal: what format wrote is read back, everything else is zero, and the size is right.
    #[test]
    fn format_and_open() {
        let path = TemporaryPath::new("format");
        let first = vec![7_u8; 8192];
        let second = vec![9_u8; (1 << 20) + 4096];
        let steps = [
            Step::Zero { offset: 8192, length: (2 << 20) - 4096 },
            Step::Write { offset: 0, bytes: &first },
            Step::Sync,
            Step::Write { offset: 1 << 20, bytes: &second },
        ];
        DataFile::format(&path.0, SIZE, &steps, true).unwrap();
        let file = DataFile::open(&path.0, 3 << 20, true).unwrap();
        assert_eq!(file.size(), 3 << 20);
        assert_eq!(file.path(), path.0);
        assert_eq!(&file.read(0, 8192).unwrap()[..], &first[..]);
        assert!(file.read(8192, (1 << 20) - 8192).unwrap().iter().all(|byte| *byte == 0));
        assert_eq!(&file.read(1 << 20, (1 << 20) + 4096).unwrap()[..], &second[..]);
        assert!(file.read((2 << 20) + 4096, 4096).unwrap().iter().all(|byte| *byte == 0));
        let past = file.read(3 << 20, 4096).unwrap_err();
        assert!(past.to_string().contains("cannot read the file"), "{past}");
    }

    /// Goal: a formatted file tells its cluster and geometry; one of zeros, or too short, does not.
    #[test]
    fn superblock() {
        let path = TemporaryPath::new("superblock");
        let genesis = Genesis {
            cluster: 77,
            config: Config::testing(),
            replica: 0,
            replica_count: 1,
            is_recovering: false,
        };
        format_data_file(&path.0, &genesis, true).unwrap();
        let file = DataFile::open(&path.0, 0, true).unwrap();
        let superblock = file.superblock().unwrap();
        assert_eq!(superblock.cluster, 77);
        assert_eq!(superblock.config, Config::testing());
        assert!(matches!(
            format_data_file(&path.0, &genesis, true).unwrap_err().kind,
            FileErrorKind::Exists
        ));
        let empty = TemporaryPath::new("superblock-zeros");
        format_zero(&empty.0).unwrap();
        let error = DataFile::open(&empty.0, 0, true).unwrap().superblock().unwrap_err();
        assert!(matches!(error.kind, FileErrorKind::Superblock(_)), "{error}");
        fs::write(&path.0, vec![0; 4096]).unwrap();
        drop(file);
        let error = DataFile::open(&path.0, 0, true).unwrap().superblock().unwrap_err();
        assert!(matches!(error.kind, FileErrorKind::TooShort { actual: 4096, .. }), "{error}");
    }

    /// Goal: an existing file, empty or not, is never overwritten and stays as it was.
    #[test]
    fn format_refuses_to_overwrite() {
        let path = TemporaryPath::new("overwrite");
        fs::write(&path.0, b"precious").unwrap();
        let error = format_zero(&path.0).unwrap_err();
        assert!(matches!(error.kind, FileErrorKind::Exists));
        assert!(error.to_string().contains("exists already and is not overwritten"));
        assert_eq!(fs::read(&path.0).unwrap(), b"precious");
    }

    /// Goal: a second opening is refused while the first lives, and possible afterwards.
    #[test]
    fn lock_conflict() {
        let path = TemporaryPath::new("lock");
        format_zero(&path.0).unwrap();
        let first = DataFile::open(&path.0, 0, true).unwrap();
        let error = DataFile::open(&path.0, 0, true).unwrap_err();
        assert!(matches!(error.kind, FileErrorKind::Locked));
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(first);
        DataFile::open(&path.0, 0, true).unwrap();
    }

    /// Goal: missing, truncated and irregular files are told apart; an end that a full disk has
    /// cut off is nobody's business.
    #[test]
    fn open_errors() {
        let path = TemporaryPath::new("errors");
        let kind = |size_min| DataFile::open(&path.0, size_min, true).unwrap_err().kind;
        assert!(matches!(kind(0), FileErrorKind::Missing));
        fs::write(&path.0, vec![0; 4096]).unwrap();
        assert!(matches!(kind(8192), FileErrorKind::TooShort { actual: 4096, expected: 8192 }));
        fs::write(&path.0, vec![0; 5000]).unwrap();
        assert_eq!(DataFile::open(&path.0, 4096, true).unwrap().size(), 5000);
        let directory = std::env::temp_dir();
        let error = DataFile::open(&directory, 0, true).unwrap_err();
        assert!(matches!(error.kind, FileErrorKind::NotRegular));
    }

    /// Goal: creating in a directory that is not there names the path and the remedy.
    #[test]
    fn format_in_missing_directory() {
        let path = TemporaryPath::new("no-such-directory");
        let error = format_zero(&path.0.join("x")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cannot create the file"), "{text}");
        assert!(text.contains("check that the directory exists"), "{text}");
    }

    /// Goal: a file system without direct I/O is refused, and used in development. `/dev/shm` is
    /// memory: whether it has direct I/O depends on the kernel, so both answers are checked.
    #[test]
    fn memory_file_system() {
        let directory = Path::new("/dev/shm");
        if !directory.is_dir() {
            return;
        }
        let path = directory.join(format!("florin-file-{}", std::process::id()));
        let path = TemporaryPath(path);
        match DataFile::format(&path.0, SIZE, &[], false) {
            Ok(()) => assert!(DataFile::open(&path.0, 0, false).unwrap().is_direct()),
            Err(error) => {
                assert!(matches!(error.kind, FileErrorKind::NoDirectIo), "{error}");
                assert!(!path.0.exists());
                format_zero(&path.0).unwrap();
                assert!(!DataFile::open(&path.0, 0, true).unwrap().is_direct());
            }
        }
    }
}
