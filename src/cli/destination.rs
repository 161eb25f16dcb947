//! The file that a command writes because its user named it.
//!
//! A regular file, or one that does not exist yet, is replaced as a whole when the new content is
//! complete: nobody ever reads a part of it, and after a failure the old content is still there.
//! Symbolic links are followed: the file at their end is replaced, and the links stay. A device or
//! a FIFO is written into. Everything else is refused when the destination is opened, which is
//! before the command reads anything: a folder, a socket, a file that may not be written, and the
//! data file of a replica.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::exit::{ExitClass, Failure};
use super::patient::Stop;
use crate::vsr::superblock::{COPIES, COPY_SIZE, MAGIC, MAGIC_OFFSET};

/// Symbolic links that are followed, as many as Linux follows.
const LINKS_MAX: usize = 40;
/// Pause between looks for a reader of a FIFO.
const READER_PAUSE: Duration = Duration::from_millis(20);

/// Where the bytes go.
#[derive(Debug)]
enum Place {
    /// Standard output.
    Stdout,
    /// What has the name: a device, a FIFO, or a descriptor below `/proc`.
    Itself,
    /// A file that is replaced in the end.
    Replaced { part: PathBuf, path: PathBuf },
}

/// A file that is being written. See the module. If it is dropped before it is complete, nothing
/// of it is left.
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
    /// If it cannot be written or must not be; `option` names it in the message. Also if it shall
    /// stop while it waits.
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

    /// Returns the writer. To be called once.
    ///
    /// # Panics
    ///
    /// If it was called before.
    pub fn writer(&mut self) -> Box<dyn Write + Send> {
        match self.place {
            Place::Stdout => Box::new(io::stdout()),
            _ => Box::new(self.output.take().expect("the writer is taken once")),
        }
    }

    /// Gives a complete file its name, once all bytes were written.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be made durable or the name cannot be given.
    pub fn complete(mut self) -> io::Result<()> {
        if let Place::Replaced { part, path } = &self.place {
            File::open(part)?.sync_data()?;
            fs::rename(part, path)?;
            self.place = Place::Itself;
        }
        Ok(())
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if let Place::Replaced { part, .. } = &self.place {
            let _ = fs::remove_file(part);
        }
    }
}

/// Why a destination is refused.
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
    let Some(end) = end_of_links(path)? else {
        return itself(OpenOptions::new().append(true).open(path)?);
    };
    if facts.is_some() {
        // A file that may not be written is not to be replaced either.
        OpenOptions::new().write(true).open(&end)?;
    }
    open_part(end, facts.as_ref())
}

/// Whether this is what standard output is, by whatever name.
fn is_stdout(facts: &Metadata) -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(|it| File::from(it).metadata());
    stdout.is_ok_and(|stdout| (stdout.dev(), stdout.ino()) == (facts.dev(), facts.ino()))
}

/// Opens a FIFO once it has a reader. An open that blocks would not end at a signal.
fn open_fifo(path: &Path, stop: &Stop) -> Result<File, Refusal> {
    let mut attempt = OpenOptions::new();
    attempt.write(true).custom_flags(libc::O_NONBLOCK);
    loop {
        match attempt.open(path) {
            // Opened again, since writes to the first one would fail when the FIFO is full.
            Ok(_has_reader) => return Ok(OpenOptions::new().write(true).open(path)?),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => sleep(READER_PAUSE),
            Err(error) => return Err(error.into()),
        }
        if stop.is_wanted() {
            return Err(Refusal::Interrupted);
        }
    }
}

/// Refuses what begins with a superblock, even a damaged one: one of its copies is enough.
fn refuse_data_file(path: &Path) -> Result<(), Refusal> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    // Without permission to read it cannot be known; the permission to write is checked elsewhere.
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

/// Returns the path at the end of all symbolic links, whether there is a file or not; none if it
/// is only reached through the descriptors below `/proc`.
fn end_of_links(path: &Path) -> Result<Option<PathBuf>, Refusal> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let folder = folder_of(&path).to_owned();
        if fs::canonicalize(&folder)?.starts_with("/proc") {
            return Ok(None);
        }
        match fs::symlink_metadata(&path) {
            Ok(facts) if facts.is_symlink() => path = folder.join(fs::read_link(&path)?),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => return Ok(Some(path)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP).into())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates the file that will get the name, with owner and permissions of the one that has it.
fn open_part(path: PathBuf, facts: Option<&Metadata>) -> Result<Destination, Refusal> {
    let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let Some(name) = path.file_name().filter(|_| !is_folder) else {
        return Err(Refusal::Kind("it names a directory; name a file in it"));
    };
    let mut name = name.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = folder_of(&path).join(name);
    let output = OpenOptions::new().write(true).create_new(true).open(&part)?;
    let destination =
        Destination { place: Place::Replaced { part: part.clone(), path }, output: Some(output) };
    if let Some(facts) = facts {
        // Only root can give files away; the owner of the new file is then whoever made it.
        let _ = chown(&part, Some(facts.uid()), Some(facts.gid()));
        fs::set_permissions(&part, facts.permissions())?;
    }
    Ok(destination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

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

        /// Names of all that is in it.
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
        destination.writer().write_all(text.as_bytes()).unwrap();
        destination.complete().unwrap();
    }

    fn refused(path: &Path) -> Failure {
        Destination::open("--output", path, &Stop::never()).unwrap_err()
    }

    /// Goal: a file appears when it is complete; what is given up leaves the old one; permissions
    /// stay; the part that is written is not left behind.
    #[test]
    fn files_are_replaced_whole() {
        let folder = Folder::new("whole");
        let path = folder.path("x.csv");
        write(&path, "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut destination = Destination::open("--output", &path, &Stop::never()).unwrap();
        destination.writer().write_all(b"half").unwrap();
        assert_eq!(folder.names().len(), 2);
        drop(destination);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write(&path, "two");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.names(), ["x.csv"]);
    }

    /// Goal: links stay links, of any number, relative, absolute or with nothing at their end.
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

    /// Goal: a device is written into and stays one. Only root may make one to try.
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

    /// Goal: what must not be written is refused at once, with the reason, and is as before.
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

    /// Goal: who may not write a file may not replace it either.
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
