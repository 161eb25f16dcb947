//! The file that a command writes because its user named it.
//!
//! A regular file, or one that does not exist yet, is replaced as a whole when the new content is
//! complete ([`replacement`](super::replacement)): no reader finds a part of it, and after a
//! failure the old content is still there. Symbolic links are followed: the file at their end is
//! replaced, and the links stay. Bytes for a device or a FIFO are written into it. Everything else
//! is refused when the destination is opened, before the command reads anything: a folder, a
//! socket, a file that the caller cannot write, and the data file of a replica.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::exit::{ExitClass, Failure};
use super::output::{Output, StoppableOutput};
use super::patient::Stop;
use super::replacement::{Replacement, Target};
use crate::vsr::superblock::{COPIES, COPY_SIZE, MAGIC, MAGIC_OFFSET};

/// Pause between looks for a reader of a FIFO.
const READER_PAUSE: Duration = Duration::from_millis(20);

/// The kinds of destinations.
#[derive(Debug)]
enum Place {
    /// Standard output.
    Stdout,
    /// The device, FIFO, or descriptor below `/proc` that has the name.
    Itself,
    /// A file that is replaced in the end.
    Replaced(Replacement),
}

/// A destination that is being written. Dropping it before it is complete removes the new content.
#[derive(Debug)]
pub struct Destination {
    place: Place,
    output: Option<File>,
}

impl Destination {
    /// Opens the destination; `-` is standard output. Waits for the reader of a FIFO.
    ///
    /// # Errors
    ///
    /// If the destination cannot or must not be written, or a signal ends the wait. The message
    /// begins with `option`.
    pub fn open(option: &str, path: &Path, stop: &Stop) -> Result<Destination, Failure> {
        if path == Path::new("-") {
            return Ok(Destination { place: Place::Stdout, output: None });
        }
        open(path, stop).map_err(|refusal| {
            let path = path.display();
            let (class, text) = match refusal {
                Refusal::System(error) => (ExitClass::Error, error.to_string()),
                Refusal::Kind(text) => (ExitClass::Usage, text.to_owned()),
                Refusal::Interrupted => {
                    (ExitClass::Error, "interrupted while waiting for a reader".to_owned())
                }
            };
            Failure::new(class, format!("{option}: {path} cannot be written: {text}"))
        })
    }

    /// Whether bytes go to standard output.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        matches!(self.place, Place::Stdout)
    }

    /// Returns the writer, once. It fails after a signal.
    ///
    /// # Errors
    ///
    /// If standard output is not open for writing.
    ///
    /// # Panics
    ///
    /// If it was called before.
    pub fn writer(&mut self, stop: &Stop) -> Result<StoppableOutput, Failure> {
        let output = if self.is_stdout() {
            Output::standard()?
        } else {
            let file = self.output.take().expect("the writer is taken once");
            Output::new(file).map_err(|error| {
                Failure::new(ExitClass::Error, format!("the output cannot be written: {error}"))
            })?
        };
        Ok(StoppableOutput::new(output, stop.clone()))
    }

    /// Gives a complete file its name, once all bytes were written.
    ///
    /// # Errors
    ///
    /// If the bytes or the name cannot be made durable.
    pub fn complete(self) -> io::Result<()> {
        match self.place {
            Place::Replaced(replacement) => replacement.complete(),
            Place::Stdout | Place::Itself => Ok(()),
        }
    }
}

/// The reasons to refuse a destination.
enum Refusal {
    System(io::Error),
    Kind(&'static str),
    Interrupted,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::System(error)
    }
}

fn open(path: &Path, stop: &Stop) -> Result<Destination, Refusal> {
    let itself = |output| Ok(Destination { place: Place::Itself, output: Some(output) });
    let facts = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        facts => Some(facts?),
    };
    if facts.as_ref().is_some_and(is_stdout) {
        return Ok(Destination { place: Place::Stdout, output: None });
    }
    if let Some(kind) = facts.as_ref().map(Metadata::file_type) {
        if kind.is_dir() {
            return Err(Refusal::Kind("it is a directory; name a file in it"));
        }
        if kind.is_socket() {
            return Err(Refusal::Kind("it is a socket; name a file, a device or a FIFO"));
        }
        if kind.is_fifo() {
            return itself(open_fifo(path, stop)?);
        }
        if kind.is_file() || kind.is_block_device() {
            refuse_data_file(path)?;
        }
        if !kind.is_file() {
            return itself(OpenOptions::new().write(true).open(path)?);
        }
    }
    let target = match Target::find(path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            return Err(Refusal::Kind("it names a directory; name a file in it"));
        }
        target => target?,
    };
    let Some(target) = target else {
        return itself(OpenOptions::new().append(true).open(path)?);
    };
    let replacement = Replacement::create(&target, &format!(".{}.part", std::process::id()))?;
    let output = Some(replacement.file().try_clone()?);
    Ok(Destination { place: Place::Replaced(replacement), output })
}

/// Whether this is the file that standard output writes to.
fn is_stdout(facts: &Metadata) -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(|it| File::from(it).metadata());
    stdout.is_ok_and(|stdout| (stdout.dev(), stdout.ino()) == (facts.dev(), facts.ino()))
}

/// Opens a FIFO once it has a reader. A blocking open would not end at a signal.
fn open_fifo(path: &Path, stop: &Stop) -> Result<File, Refusal> {
    let mut attempt = OpenOptions::new();
    attempt.write(true).custom_flags(libc::O_NONBLOCK);
    loop {
        match attempt.open(path) {
            // Writes to the first handle would fail while the FIFO is full.
            Ok(_has_reader) => return Ok(OpenOptions::new().write(true).open(path)?),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => sleep(READER_PAUSE),
            Err(error) => return Err(error.into()),
        }
        if stop.is_wanted() {
            return Err(Refusal::Interrupted);
        }
    }
}

/// Refuses a file with a superblock in any copy, even a damaged one.
fn refuse_data_file(path: &Path) -> Result<(), Refusal> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    // A file that the caller cannot read cannot be checked; `Replacement` checks that it can be
    // written.
    let Ok(mut file) = options.open(path) else { return Ok(()) };
    for copy in 0..COPIES {
        let offset = u64::try_from(copy * COPY_SIZE + MAGIC_OFFSET).expect("a small offset");
        let mut bytes = [0; 8];
        let is_read = file.seek(SeekFrom::Start(offset)).is_ok_and(|at| at == offset)
            && file.read_exact(&mut bytes).is_ok();
        if is_read && u64::from_le_bytes(bytes) == MAGIC {
            return Err(Refusal::Kind("it is the data file of a replica; name another file"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("florin-test-destination-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            Folder(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        /// Names of its entries.
        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                entries.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(path: &Path, text: &str) {
        let mut destination = Destination::open("--output", path, &Stop::never()).unwrap();
        destination.writer(&Stop::never()).unwrap().write_all(text.as_bytes()).unwrap();
        destination.complete().unwrap();
    }

    fn refused(path: &Path) -> Failure {
        Destination::open("--output", path, &Stop::never()).unwrap_err()
    }

    /// Goal: a file appears when it is complete; an abandoned one leaves the old content;
    /// permissions stay; no part is left behind.
    #[test]
    fn files_are_replaced_whole() {
        let folder = Folder::new("whole");
        let path = folder.path("x.csv");
        write(&path, "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut destination = Destination::open("--output", &path, &Stop::never()).unwrap();
        destination.writer(&Stop::never()).unwrap().write_all(b"half").unwrap();
        assert_eq!(folder.names().len(), 2);
        drop(destination);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write(&path, "two");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.names(), ["x.csv"]);
    }

    /// Goal: symbolic links of any number stay: relative, absolute, and dangling ones.
    #[test]
    fn links_are_followed() {
        let folder = Folder::new("links");
        fs::create_dir(folder.path("data")).unwrap();
        symlink("data/end.csv", folder.path("relative")).unwrap();
        symlink(folder.path("relative"), folder.path("absolute")).unwrap();
        for text in ["nothing was there", "something was there"] {
            write(&folder.path("absolute"), text);
            assert_eq!(fs::read_to_string(folder.path("data/end.csv")).unwrap(), text);
        }
        assert_eq!(folder.names(), ["absolute", "data", "relative"]);
        assert!(fs::symlink_metadata(folder.path("absolute")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(folder.path("relative")).unwrap().is_symlink());
        symlink("circle", folder.path("circle")).unwrap();
        assert!(refused(&folder.path("circle")).message.contains("cannot be written"));
    }

    /// Goal: a FIFO is written into and stays one.
    #[test]
    fn fifos_are_written_into() {
        let folder = Folder::new("fifo");
        let path = folder.path("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        symlink("fifo", folder.path("link")).unwrap();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || fs::read_to_string(path).unwrap()
        });
        write(&folder.path("link"), "rows");
        assert_eq!(reader.join().unwrap(), "rows");
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
        assert_eq!(folder.names(), ["fifo", "link"]);
    }

    /// Goal: a device is written into and stays one. Only root can create one for this test.
    #[test]
    fn devices_are_written_into() {
        let folder = Folder::new("device");
        let path = folder.path("null");
        let arguments = ["c", "1", "3"];
        let made = std::process::Command::new("mknod").arg(&path).args(arguments).output();
        let is_usable = made.is_ok_and(|it| it.status.success())
            && OpenOptions::new().write(true).open(&path).is_ok();
        if !is_usable {
            eprintln!("skipped: devices cannot be made here");
            return;
        }
        write(&path, "rows");
        assert!(fs::metadata(&path).unwrap().file_type().is_char_device());
        assert_eq!(folder.names(), ["null"]);
    }

    /// Goal: a destination that must not be written is refused at once with the reason, and stays
    /// as it is.
    #[test]
    fn refusals() {
        let folder = Folder::new("refusals");
        let _listener = UnixListener::bind(folder.path("socket")).unwrap();
        for copy in 0..COPIES {
            let mut bytes = vec![0; COPIES * COPY_SIZE];
            let at = copy * COPY_SIZE + MAGIC_OFFSET;
            bytes[at..at + 8].copy_from_slice(&MAGIC.to_le_bytes());
            fs::write(folder.path("data.florin"), &bytes).unwrap();
            let failure = refused(&folder.path("data.florin"));
            assert!(failure.message.contains("the data file of a replica"), "{failure}");
            assert_eq!(failure.class, ExitClass::Usage);
            assert_eq!(fs::read(folder.path("data.florin")).unwrap(), bytes);
        }
        symlink("data.florin", folder.path("link")).unwrap();
        for (name, part) in [
            ("socket", "it is a socket"),
            ("link", "the data file of a replica"),
            (".", "it is a directory"),
            ("..", "it is a directory"),
            ("none/x.csv", "No such file or directory"),
            ("new/", "it names a directory"),
            ("socket/x.csv", "Not a directory"),
        ] {
            let failure = refused(&folder.path(name));
            assert!(failure.message.contains(part), "{name}: {failure}");
            assert!(failure.message.starts_with("--output: "), "{failure}");
        }
        assert_eq!(folder.names(), ["data.florin", "link", "socket"]);
    }

    /// Goal: a file that its user cannot write is not replaced.
    #[test]
    fn permissions() {
        let folder = Folder::new("permissions");
        let path = folder.path("x.csv");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        if OpenOptions::new().write(true).open(&path).is_ok() {
            eprintln!("skipped: permissions do not bind this user");
            return;
        }
        assert!(refused(&path).message.contains("Permission denied"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(folder.names(), ["x.csv"]);
    }
}
