//! The file that remembers how far a stream has come.
//!
//! One process has it at a time: the lock is on a file beside it, `FILE.lock`, which stays. The
//! file is replaced as a whole, durably, never changed in place; a symbolic link is followed.
//! Besides the [`Position`] it names the cluster and the selection, and keeps marks of earlier
//! events, close to each other near the end and sparse before, to tell since when another history
//! differs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::position::{Identity, Kind, Mark, Position};
use super::selection::Selection;
use crate::cli::exit::{ExitClass, Failure};
use crate::io::system::try_lock;

/// Maximum size of a cursor file in bytes: another file that is named by mistake is left alone.
const FILE_SIZE_MAX: u64 = 1 << 16;
/// Attempts to lock the file before it counts as in use.
const LOCK_ATTEMPTS: u32 = 20;
/// Pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of symbolic links that lead to the file.
const LINKS_MAX: u32 = 40;

/// What a cursor file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// How far the stream has come.
    pub position: Position,
    /// Marks of earlier events, the newest last.
    pub history: History,
}

/// Maximum number of marks that a cursor sets in its life.
const MARKS_EVER_MAX: u64 = 1 << 48;

/// Marks of earlier events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Number of marks that were ever set.
    count: u64,
    /// Marks with their numbers.
    marks: Vec<(u64, Mark)>,
}

impl History {
    /// Sets a mark. Of the older ones those remain whose age is small for the power of two that
    /// divides their number: two of each power.
    fn push(&mut self, mark: Mark) {
        if mark.identity.is_none() || self.marks.last().is_some_and(|(_, last)| *last == mark) {
            return;
        }
        self.count += 1;
        self.marks.push((self.count, mark));
        let count = self.count;
        self.marks.retain(|(number, _)| count - number < 4 << number.trailing_zeros().min(56));
    }

    /// The marks, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = Mark> {
        self.marks.iter().rev().map(|(_, mark)| *mark)
    }
}

/// The file. See the module.
#[derive(Debug)]
pub struct CursorFile {
    /// The file itself, to which symbolic links have led.
    path: PathBuf,
    cluster: u128,
    /// The options that select the events.
    selection: String,
    history: History,
    /// Keeps other processes away.
    _lock: File,
}

impl CursorFile {
    /// Opens the file at this path for the stream of a cluster, and reads its position; a file that
    /// does not exist has none. From then on no other process can open the file, and this process
    /// has proven that it can write it.
    ///
    /// # Errors
    ///
    /// If the file is in use, cannot be read or written, is not a cursor, or is that of another
    /// stream.
    pub fn open(
        path: &Path,
        cluster: u128,
        selection: &Selection,
    ) -> Result<(CursorFile, Option<Position>), Failure> {
        let path = follow_links(path)?;
        let lock = lock(&path)?;
        let mut file = CursorFile {
            path,
            cluster,
            selection: selection.to_string(),
            history: History::default(),
            _lock: lock,
        };
        let Some(text) = file.read()? else {
            // The folder must admit new files: better to know now than after the first events.
            let name = file.write_new("")?;
            fs::remove_file(name).map_err(|error| file.failed("written", &error))?;
            return Ok((file, None));
        };
        let remembered = file.check(&text)?;
        file.replace(&text)?;
        file.history = remembered.history;
        Ok((file, Some(remembered.position)))
    }

    /// Marks of earlier events.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The path of the file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers a position, durably.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    ///
    /// # Panics
    ///
    /// If no stream can be at the position.
    pub fn write(&mut self, position: &Position) -> Result<(), Failure> {
        assert!(position.is_valid());
        self.history.push(position.newest);
        let text = encode(self.cluster, &self.selection, position, &self.history);
        self.replace(&text)
    }

    /// The text of the file, if there is one.
    fn read(&self) -> Result<Option<String>, Failure> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
            Ok(facts) if !facts.is_file() || facts.len() > FILE_SIZE_MAX => {
                return Err(self.not_a_cursor());
            }
            Ok(_) => {}
        }
        let bytes = fs::read(&self.path).map_err(|error| self.failed("read", &error))?;
        String::from_utf8(bytes).map(Some).map_err(|_| self.not_a_cursor())
    }

    /// What the text says, if it is that of this stream.
    fn check(&self, text: &str) -> Result<Remembered, Failure> {
        let Some((cluster, selection, remembered)) = decode(text) else {
            return Err(self.not_a_cursor());
        };
        let path = self.path.display();
        if cluster != self.cluster {
            let message = format!(
                "--cursor: {path} is of cluster {cluster}, the stream is of cluster {}; name \
                 another file, or the right --cluster",
                self.cluster
            );
            return Err(Failure::new(ExitClass::Usage, message));
        }
        if selection != self.selection {
            let message = format!(
                "--cursor: {path} is of a stream with `{selection}`, this one has `{}`: events \
                 that only this one selects would be missing; name another file, or the same \
                 options",
                self.selection
            );
            return Err(Failure::new(ExitClass::Usage, message));
        }
        Ok(remembered)
    }

    /// Replaces the file by one with this text, durably.
    fn replace(&self, text: &str) -> Result<(), Failure> {
        let failed = |error: io::Error| self.failed("written", &error);
        let name = self.write_new(text)?;
        if let Ok(facts) = fs::metadata(&self.path) {
            fs::set_permissions(&name, facts.permissions()).map_err(failed)?;
        }
        fs::rename(&name, &self.path).map_err(failed)?;
        File::open(folder_of(&self.path)).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Writes a text to the file that is to take the place of the old one.
    fn write_new(&self, text: &str) -> Result<PathBuf, Failure> {
        let failed = |error: io::Error| self.failed("written", &error);
        let name = beside(&self.path, ".new");
        match fs::remove_file(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&name).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(name)
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        cannot(&self.path, what, error)
    }

    fn not_a_cursor(&self) -> Failure {
        let message = format!(
            "--cursor: {} is not the cursor of a stream; name another file",
            self.path.display()
        );
        Failure::new(ExitClass::Usage, message)
    }
}

fn cannot(path: &Path, what: &str, error: &io::Error) -> Failure {
    let message = format!("--cursor: {} cannot be {what}: {error}", path.display());
    Failure::new(ExitClass::Error, message)
}

/// The file to which symbolic links lead, whether it exists or not.
fn follow_links(path: &Path) -> Result<PathBuf, Failure> {
    let mut found = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&found) else { return Ok(found) };
        // An absolute target replaces the folder.
        found = folder_of(&found).join(target);
    }
    let message = format!("--cursor: {}: too many symbolic links", path.display());
    Err(Failure::new(ExitClass::Error, message))
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The path of a file that belongs to another one.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<File, Failure> {
    let name = beside(path, ".lock");
    // Opened for writing: locks of network file systems demand it.
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&name);
    let file = file.map_err(|error| cannot(&name, "opened", &error))?;
    for attempt in 0..LOCK_ATTEMPTS {
        // A stream whose reader was killed a moment ago is about to end.
        if attempt > 0 {
            std::thread::sleep(LOCK_PAUSE);
        }
        if try_lock(file.as_fd()).map_err(|error| cannot(&name, "locked", &error))? {
            return Ok(file);
        }
    }
    let message = format!(
        "--cursor: {} is in use by another `florin cdc`; each stream needs a cursor of its own",
        path.display()
    );
    Err(Failure::new(ExitClass::DataFile, message))
}

/// A line of JSON: numbers are strings, as in events.
fn encode(cluster: u128, selection: &str, position: &Position, history: &History) -> String {
    let Position { newest, transfer, account } = position;
    let marks: Vec<Value> = history
        .marks
        .iter()
        .map(|(number, mark)| {
            let event = mark.identity.map(encode_identity);
            json!([number.to_string(), mark.timestamp.to_string(), event])
        })
        .collect();
    let document = json!({
        "cluster": cluster.to_string(),
        "selection": selection,
        "timestamp": newest.timestamp.to_string(),
        "transfer_timestamp": transfer.timestamp.to_string(),
        "account_timestamp": account.timestamp.to_string(),
        "event": newest.identity.map(encode_identity),
        "transfer_event": transfer.identity.map(encode_identity),
        "account_event": account.identity.map(encode_identity),
        "history_count": history.count.to_string(),
        "history": marks,
    });
    format!("{document}\n")
}

fn encode_identity(identity: Identity) -> String {
    format!("{}:{:032x}", identity.kind.name(), identity.checksum)
}

/// Cluster, selection, and the rest. The first cursors had the cluster and two timestamps only.
fn decode(text: &str) -> Option<(u128, String, Remembered)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let cluster = value["cluster"].as_str()?.parse().ok()?;
    let newest = decode_mark(&value["timestamp"], &value["event"])?;
    let transfer = decode_mark(&value["transfer_timestamp"], &value["transfer_event"])?;
    let mut remembered = Remembered {
        position: Position { newest, transfer, account: Mark { timestamp: 0, identity: None } },
        history: History::default(),
    };
    let mut selection = "--what=transfers".to_owned();
    if let Some(options) = value["selection"].as_str() {
        options.clone_into(&mut selection);
        let account = decode_mark(&value["account_timestamp"], &value["account_event"])?;
        remembered.position.account = account;
        let count = value["history_count"].as_str()?.parse().ok()?;
        // More than were ever set: somebody has edited the file.
        if count > MARKS_EVER_MAX {
            return None;
        }
        remembered.history.count = count;
        let mut last = 0;
        for entry in value["history"].as_array()? {
            let number = entry[0].as_str()?.parse().ok()?;
            if number <= last || number > remembered.history.count {
                return None;
            }
            last = number;
            remembered.history.marks.push((number, decode_mark(&entry[1], &entry[2])?));
        }
    }
    remembered.position.is_valid().then_some((cluster, selection, remembered))
}

/// A mark: without an event if there is none or it is null.
fn decode_mark(timestamp: &Value, event: &Value) -> Option<Mark> {
    let timestamp = timestamp.as_str()?.parse().ok()?;
    if event.is_null() {
        return Some(Mark { timestamp, identity: None });
    }
    let (kind, checksum) = event.as_str()?.split_once(':')?;
    let checksum = u128::from_str_radix(checksum, 16).ok()?;
    let identity = Some(Identity { kind: Kind::find(kind)?, checksum });
    Some(Mark { timestamp, identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cdc::position::Event;
    use crate::cli::cdc::selection::What;
    use crate::protocol::types::{ChangeEvent, TIMESTAMP_MAX};
    use std::os::unix::fs::symlink;
    use zerocopy::FromZeros;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("florin-test-cursor-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn open(&self, name: &str) -> Result<(CursorFile, Option<Position>), Failure> {
            CursorFile::open(&self.0.join(name), 7, &Selection::of(&[What::Transfers]))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn position(timestamp: u64) -> Position {
        let mut position = Position::before(1);
        let event = ChangeEvent { timestamp, ..ChangeEvent::new_zeroed() };
        position.pass(&Event::Change(event));
        position
    }

    /// Goal: what is remembered is read back, with its history; nothing is left beside it but the
    /// lock.
    #[test]
    fn remembers() {
        let folder = Folder::new("remembers");
        let (mut file, none) = folder.open("c").unwrap();
        assert_eq!(none, None);
        file.write(&position(5)).unwrap();
        file.write(&position(TIMESTAMP_MAX)).unwrap();
        let history = file.history.clone();
        drop(file);
        let (file, remembered) = folder.open("c").unwrap();
        assert_eq!(remembered, Some(position(TIMESTAMP_MAX)));
        assert_eq!(file.history, history);
        assert_eq!(history.newest_first().map(|mark| mark.timestamp).last(), Some(5));
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);
    }

    /// Goal: a second process is refused while the first has the cursor, also through a link.
    #[test]
    fn locks() {
        let folder = Folder::new("locks");
        symlink("c", folder.0.join("link")).unwrap();
        let first = folder.open("c").unwrap();
        for name in ["c", "link"] {
            let failure = folder.open(name).unwrap_err();
            assert_eq!(failure.class, ExitClass::DataFile);
            assert!(failure.message.contains("in use by another"), "{failure}");
        }
        drop(first);
        folder.open("link").unwrap();
    }

    /// Goal: links stay links, whether their targets exist or not; permissions are kept.
    #[test]
    fn follows_links() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("links");
        fs::create_dir(folder.0.join("deep")).unwrap();
        symlink("deep/other", folder.0.join("link")).unwrap();
        symlink(folder.0.join("c"), folder.0.join("deep/other")).unwrap();
        for timestamp in [5, 6] {
            let (mut file, _) = folder.open("link").unwrap();
            file.write(&position(timestamp)).unwrap();
            let target = folder.0.join("c");
            fs::set_permissions(&target, PermissionsExt::from_mode(0o600)).unwrap();
            file.write(&position(timestamp)).unwrap();
            assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(folder.0.join("link").is_symlink() && folder.0.join("deep/other").is_symlink());
        assert_eq!(folder.open("c").unwrap().1, Some(position(6)));
        symlink("round", folder.0.join("round")).unwrap();
        assert!(folder.open("round").unwrap_err().message.contains("too many symbolic links"));
    }

    /// Goal: a folder in which nothing can be written is found out at once.
    #[test]
    fn folders_without_room() {
        for path in ["/proc/florin-cursor", "/nowhere/cursor"] {
            let selection = Selection::of(&[What::All]);
            let failure = CursorFile::open(Path::new(path), 7, &selection).unwrap_err();
            assert_eq!(failure.class, ExitClass::Error);
            assert!(failure.message.contains(path), "{failure}");
        }
    }

    /// Goal: the cursor of another cluster or selection is refused, and any other file left alone.
    #[test]
    fn other_files() {
        let folder = Folder::new("other");
        let path = folder.0.join("c");
        folder.open("c").unwrap().0.write(&position(5)).unwrap();
        let of = |cluster, what| CursorFile::open(&path, cluster, &Selection::of(&[what]));
        for (result, part) in [
            (of(8, What::Transfers), "of cluster 7"),
            (of(7, What::All), "a stream with `--what=transfers`, this one has `--what=all`"),
        ] {
            let failure = result.unwrap_err();
            assert_eq!(failure.class, ExitClass::Usage);
            assert!(failure.message.contains(part), "{failure}");
        }
        let text = fs::read_to_string(&path).unwrap();
        let wrong = [
            text.replace("transfer:", "debit:"),
            text.replace("\"history_count\":\"1\"", "\"history_count\":\"0\""),
            text.replace("\"history_count\":\"1\"", "\"history_count\":\"18446744073709551615\""),
            text.replace("\"transfer_timestamp\":\"5\"", "\"transfer_timestamp\":\"6\""),
        ];
        for text in
            ["", "{}", "[1]", "{\"cluster\":\"7\",\"timestamp\":\"5\"}", &"x".repeat(70_000)]
                .into_iter()
                .chain(wrong.iter().map(String::as_str))
        {
            fs::write(&path, text).unwrap();
            let failure = folder.open("c").unwrap_err();
            assert!(failure.message.contains("is not the cursor"), "{failure}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(folder.open(".").unwrap_err().message.contains("is not the cursor"));
    }

    /// Goal: a cursor of the first release is read.
    #[test]
    fn old_files() {
        let folder = Folder::new("old");
        let text = "{\"cluster\":\"7\",\"timestamp\":\"9\",\"transfer_timestamp\":\"5\"}\n";
        fs::write(folder.0.join("c"), text).unwrap();
        let (_, position) = folder.open("c").unwrap();
        let position = position.unwrap();
        assert_eq!((position.newest.timestamp, position.transfer.timestamp), (9, 5));
        assert_eq!(position.marks(), []);
    }

    /// Goal: a long history keeps few marks, dense near the end, and the oldest part is not lost.
    #[test]
    fn history_is_sparse() {
        let mut history = History::default();
        for timestamp in 1..=100_000 {
            history.push(position(timestamp).newest);
        }
        let kept: Vec<u64> = history.newest_first().map(|mark| mark.timestamp).collect();
        assert!(kept.len() < 40, "{}", kept.len());
        assert_eq!(kept[..3], [100_000, 99_999, 99_998]);
        assert!(kept.last().is_some_and(|oldest| *oldest <= 65_536), "{kept:?}");
    }
}
