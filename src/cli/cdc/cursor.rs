//! The file that remembers how far a stream has come.
//!
//! `FILE.lock` is locked while a process uses the cursor, and is never removed. The cursor is
//! replaced as a whole ([`replacement`](crate::cli::replacement)), by way of `FILE.new`; a symbolic
//! link is followed. Besides the [`Position`] it names the cluster and the selection. It also keeps
//! marks of earlier events, dense near the end, so that an error can report where two histories
//! diverge.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::position::{Identity, Kind, Mark, Position};
use super::selection::Selection;
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::replacement::{Replacement, Target, take_over};
use crate::io::system::try_lock;
use crate::protocol::checksum;

/// Maximum size of a cursor file in bytes: another file that is named by mistake is left alone.
const FILE_SIZE_MAX: u64 = 1 << 16;
/// Maximum length of the options that select events, in bytes. Of longer ones the cursor keeps the
/// beginning and a checksum.
const SELECTION_SIZE_MAX: usize = 2048;
/// Length of that beginning.
const SELECTION_HEAD_SIZE: usize = 200;
/// Attempts to lock the file before it counts as in use.
const LOCK_ATTEMPTS: u32 = 20;
/// Pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// The name of the lock, behind that of the cursor.
const LOCK: &str = ".lock";
/// The name of the new content, behind that of the cursor.
const NEW: &str = ".new";
/// In place of an event: the stream has seen none of this kind since it began.
const NO_EVENT: &str = "none";
/// The first bytes of cursors of each form.
const BEGINNINGS: [&[u8]; 2] = [b"{\"account_event\":", b"{\"cluster\":"];

/// The content of a cursor file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// How far the stream has come.
    pub position: Position,
    /// Marks of earlier events.
    pub history: History,
}

/// Maximum number of marks of a kind that a cursor sets in its life.
const MARKS_EVER_MAX: u64 = 1 << 48;

/// Marks of earlier events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Marks with their numbers, which rise within a kind. All have an identity.
    marks: Vec<(u64, Mark)>,
}

/// Where the history of a ledger leaves that of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// All transfers and accounts of the stream up to this moment are in the ledger. `None` if the
    /// cursor remembers no such moment.
    pub common: Option<u64>,
    /// The oldest event that is known to be missing.
    pub missing: u64,
}

impl History {
    /// Sets the marks of a position.
    fn push(&mut self, position: &Position) {
        for mark in position.marks() {
            self.push_mark(mark);
        }
    }

    /// Sets a mark. Of the older ones of its kind those remain whose age is small for the power of
    /// two that divides their number: two of each power.
    fn push_mark(&mut self, mark: Mark) {
        let newest = self.marks.iter().rev().find(|(_, other)| is_same_kind(other, &mark));
        let count = match newest {
            Some((_, newest)) if *newest == mark => return,
            Some((number, _)) => number + 1,
            None => 1,
        };
        self.marks.push((count, mark));
        self.marks.retain(|(number, other)| {
            !is_same_kind(other, &mark) || count - number < 4 << number.trailing_zeros().min(56)
        });
    }

    /// Whether the marks can be those of a stream at this position: once an event was passed, the
    /// position has one.
    fn is_consistent(&self, position: &Position) -> bool {
        let has = |kind| self.newest_first(kind).next().is_some();
        (position.newest.identity.is_some() || self.marks.is_empty())
            && (position.transfer.identity.is_some() || !has(Kind::Transfer))
            && (position.account.identity.is_some() || !has(Kind::Account))
    }

    /// Returns the marks of a kind, the newest first.
    fn newest_first(&self, kind: Kind) -> impl Iterator<Item = Mark> {
        let marks = self.marks.iter().rev().map(|(_, mark)| *mark);
        marks.filter(move |mark| kind_of(mark) == Some(kind))
    }

    /// Finds out where the ledger's history leaves this one. `has` looks for the event of a mark,
    /// and returns `None` if the user ends the search before its result.
    ///
    /// A kind's records rise in timestamps as they are committed. So everything of the kind up to
    /// a mark that is found is common, and of both kinds up to the lower one. An expiry is newer
    /// than all records that were committed before it: it can be missing only above both.
    ///
    /// # Errors
    ///
    /// If `has` fails.
    pub fn divergence(
        &self,
        missing: Mark,
        mut has: impl FnMut(Mark) -> Result<Option<bool>, Failure>,
    ) -> Result<Option<Divergence>, Failure> {
        let mut found = Divergence { common: Some(u64::MAX), missing: missing.timestamp };
        for kind in [Kind::Transfer, Kind::Account, Kind::Expiry] {
            let mut common = None;
            let mut is_known = kind_of(&missing) == Some(kind);
            for mark in self.newest_first(kind) {
                is_known = true;
                let Some(is_there) = has(mark)? else { return Ok(None) };
                if is_there {
                    common = Some(mark.timestamp);
                    break;
                }
                found.missing = found.missing.min(mark.timestamp);
            }
            if is_known && kind != Kind::Expiry {
                found.common = found.common.min(common);
            }
        }
        // The cursor knows expiries only, or nothing.
        found.common = found.common.filter(|common| *common != u64::MAX);
        Ok(Some(found))
    }
}

fn kind_of(mark: &Mark) -> Option<Kind> {
    mark.identity.map(|identity| identity.kind)
}

fn is_same_kind(mark: &Mark, other: &Mark) -> bool {
    kind_of(mark) == kind_of(other)
}

/// The cursor of a stream. See the module.
#[derive(Debug)]
pub struct CursorFile {
    place: Place,
    history: History,
    /// Keeps other processes away.
    _lock: File,
}

/// The path of a cursor, and the stream that it must be of.
#[derive(Debug)]
struct Place {
    target: Target,
    cluster: u128,
    /// The options that select the events; see [`shorten`].
    selection: String,
}

impl CursorFile {
    /// Opens the cursor at this path for the stream of a cluster, and returns the position that it
    /// remembers; `None` if the file does not exist. Tries to write it, and keeps other processes
    /// from opening it.
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
        let target = match Target::find(path) {
            Ok(Some(target)) => target,
            Ok(None) => return Err(cannot(path, "written", &ErrorKind::Unsupported.into())),
            Err(error) => return Err(cannot(path, "opened", &error)),
        };
        let place = Place { target, cluster, selection: shorten(&selection.to_string()) };
        // Before the lock: no lock is left beside a file that is not a cursor.
        place.read()?;
        let lock = lock(&place.target)?;
        let Some((text, remembered)) = place.read()? else {
            // The folder must admit new files: better to know now than after the first events.
            drop(place.new_content("")?);
            return Ok((CursorFile { place, history: History::default(), _lock: lock }, None));
        };
        place.replace(&text)?;
        let file = CursorFile { place, history: remembered.history, _lock: lock };
        Ok((file, Some(remembered.position)))
    }

    /// Returns marks of earlier events.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the path of the file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.target.path()
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
        self.history.push(position);
        let Place { cluster, selection, .. } = &self.place;
        self.place.replace(&encode(*cluster, selection, position, &self.history))
    }
}

impl Place {
    /// Reads and checks the file; returns its text and content. `None` if it does not exist.
    fn read(&self) -> Result<Option<(String, Remembered)>, Failure> {
        let path = self.target.path();
        match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
            Ok(facts) if !facts.is_file() || facts.len() > FILE_SIZE_MAX => {
                return Err(self.not_a_cursor());
            }
            Ok(_) => {}
        }
        let bytes = fs::read(path).map_err(|error| self.failed("read", &error))?;
        let text = String::from_utf8(bytes).map_err(|_| self.not_a_cursor())?;
        let remembered = self.check(&text)?;
        Ok(Some((text, remembered)))
    }

    /// Returns the content of the text, if it is that of this stream.
    fn check(&self, text: &str) -> Result<Remembered, Failure> {
        let Some((cluster, selection, remembered)) = decode(text) else {
            return Err(self.not_a_cursor());
        };
        let path = self.target.path().display();
        if cluster != self.cluster {
            let message = format!(
                "--cursor: {path} is of cluster {cluster}, the stream is of cluster {}; name \
                 another file, or the right --cluster",
                self.cluster
            );
            return Err(Failure::new(ExitClass::Usage, message));
        }
        let selection = shorten(&selection);
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
        let content = self.new_content(text)?;
        content.complete().map_err(|error| self.failed("written", &error))
    }

    /// Writes a text to the file that is to take the place of the old one.
    fn new_content(&self, text: &str) -> Result<Replacement, Failure> {
        assert!(text.len() as u64 <= FILE_SIZE_MAX, "a cursor that is written can be read");
        let failed = |error: io::Error| self.failed("written", &error);
        self.clear_way()?;
        let content = Replacement::create(&self.target, NEW).map_err(failed)?;
        content.file().write_all(text.as_bytes()).map_err(failed)?;
        Ok(content)
    }

    /// Removes the new content that an earlier process left when it ended during a write.
    fn clear_way(&self) -> Result<(), Failure> {
        let name = self.target.beside(NEW);
        // A cursor of this name is that of another stream.
        let is_cursor = self.target.beside(&format!("{NEW}{LOCK}")).exists();
        let facts = match fs::symlink_metadata(&name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            facts => facts.map_err(|error| cannot(&name, "removed", &error))?,
        };
        let is_small = facts.is_file() && facts.len() <= FILE_SIZE_MAX;
        let bytes = if is_small { fs::read(&name) } else { Ok(Vec::new()) };
        let bytes = bytes.map_err(|error| cannot(&name, "read", &error))?;
        // The write may have been cut off anywhere.
        let is_own = |beginning: &[u8]| {
            let length = bytes.len().min(beginning.len());
            bytes[..length] == beginning[..length]
        };
        if is_small && !is_cursor && BEGINNINGS.into_iter().any(is_own) {
            return fs::remove_file(&name).map_err(|error| cannot(&name, "removed", &error));
        }
        let message = format!(
            "--cursor: {} is needed while the cursor is written, and is not a part of one; rename \
             it, or name another cursor",
            name.display()
        );
        Err(Failure::new(ExitClass::Error, message))
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        cannot(self.target.path(), what, error)
    }

    fn not_a_cursor(&self) -> Failure {
        let message = format!(
            "--cursor: {} is not the cursor of a stream; name another file",
            self.target.path().display()
        );
        Failure::new(ExitClass::Usage, message)
    }
}

fn cannot(path: &Path, what: &str, error: &io::Error) -> Failure {
    let message = format!("--cursor: {} cannot be {what}: {error}", path.display());
    Failure::new(ExitClass::Error, message)
}

/// Returns the options that select events, or their beginning and a checksum if they are long.
fn shorten(options: &str) -> String {
    match options.get(..SELECTION_HEAD_SIZE) {
        Some(head) if options.len() > SELECTION_SIZE_MAX => {
            let checksum = checksum(options.as_bytes());
            format!("{head}... ({} characters, checksum {checksum:032x})", options.len())
        }
        _ => options.to_owned(),
    }
}

/// Locks a cursor.
fn lock(target: &Target) -> Result<File, Failure> {
    let name = target.beside(LOCK);
    let file = open_lock(&name, target).map_err(|error| cannot(&name, "opened", &error))?;
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
        target.path().display()
    );
    Err(Failure::new(ExitClass::DataFile, message))
}

/// Opens the lock of a cursor. A new one gets the cursor's owner and permissions, so that its user
/// can still lock it after root did.
fn open_lock(name: &Path, target: &Target) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Locks of network file systems demand a file that is open for writing. A link could lead to
    // any file of the system.
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    match options.open(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    match options.clone().create_new(true).open(name) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(name),
        Err(error) => Err(error),
        Ok(file) => {
            if let Ok(cursor) = fs::metadata(target.path()) {
                take_over(&file, &cursor)?;
            }
            Ok(file)
        }
    }
}

/// Returns a line of JSON: numbers are strings, as in events.
fn encode(cluster: u128, selection: &str, position: &Position, history: &History) -> String {
    let Position { newest, transfer, account } = position;
    let marks: Vec<Value> = history
        .marks
        .iter()
        .map(|(number, mark)| {
            json!([number.to_string(), mark.timestamp.to_string(), encode_event(mark)])
        })
        .collect();
    let document = json!({
        "cluster": cluster.to_string(),
        "selection": selection,
        "timestamp": newest.timestamp.to_string(),
        "transfer_timestamp": transfer.timestamp.to_string(),
        "account_timestamp": account.timestamp.to_string(),
        "event": encode_event(newest),
        "transfer_event": encode_event(transfer),
        "account_event": encode_event(account),
        "history": marks,
    });
    let text = format!("{document}\n");
    assert!(BEGINNINGS.iter().any(|beginning| text.as_bytes().starts_with(beginning)));
    text
}

fn encode_event(mark: &Mark) -> String {
    match mark.identity {
        Some(Identity { kind, checksum }) => format!("{}:{checksum:032x}", kind.name()),
        None => NO_EVENT.to_owned(),
    }
}

/// Returns cluster, selection, and the rest. The first cursors had the cluster and two timestamps
/// only. The next ones counted all marks together, and had null where no event was seen: today a
/// null is the trace of an edit, which would turn the check of the history off.
fn decode(text: &str) -> Option<(u128, String, Remembered)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let cluster = value["cluster"].as_str()?.parse().ok()?;
    let is_first = value["selection"].as_str().is_none();
    let is_old = is_first || !value["history_count"].is_null();
    let newest = decode_mark(&value["timestamp"], &value["event"], is_old)?;
    let transfer = decode_mark(&value["transfer_timestamp"], &value["transfer_event"], is_old)?;
    let mut remembered = Remembered {
        position: Position { newest, transfer, account: Mark { timestamp: 0, identity: None } },
        history: History::default(),
    };
    let mut selection = "--what=transfers".to_owned();
    if let Some(options) = value["selection"].as_str() {
        options.clone_into(&mut selection);
        remembered.position.account =
            decode_mark(&value["account_timestamp"], &value["account_event"], is_old)?;
        let mut number_max = MARKS_EVER_MAX;
        if is_old {
            number_max = value["history_count"].as_str()?.parse().ok()?;
        }
        remembered.history = decode_history(&value["history"], number_max)?;
    }
    let Remembered { position, history } = &mut remembered;
    let is_consistent = position.is_valid() && history.is_consistent(position);
    // Older cursors have marks of the newest event alone.
    history.push(position);
    is_consistent.then_some((cluster, selection, remembered))
}

fn decode_history(entries: &Value, number_max: u64) -> Option<History> {
    // More than were ever set: the file was edited.
    if number_max > MARKS_EVER_MAX {
        return None;
    }
    let mut history = History::default();
    for entry in entries.as_array()? {
        let number = entry[0].as_str()?.parse().ok()?;
        let mark = decode_mark(&entry[1], &entry[2], false)?;
        let newest = history.marks.iter().rev().find(|(_, other)| is_same_kind(other, &mark));
        let last = newest.map_or(0, |(number, _)| *number);
        if number <= last || number > number_max || mark.identity.is_none() {
            return None;
        }
        history.marks.push((number, mark));
    }
    Some(history)
}

/// Returns a mark; one without an event if none was seen, or in an old cursor if it is null.
fn decode_mark(timestamp: &Value, event: &Value, is_old: bool) -> Option<Mark> {
    let timestamp = timestamp.as_str()?.parse().ok()?;
    if event == NO_EVENT || (is_old && event.is_null()) {
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
    use std::path::PathBuf;
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

    fn time_of(mark: Mark) -> u64 {
        mark.timestamp
    }

    fn position(timestamp: u64) -> Position {
        let mut position = Position::before(1);
        let event = ChangeEvent { timestamp, ..ChangeEvent::new_zeroed() };
        position.pass(&Event::Change(event));
        position
    }

    /// Goal: a position is read back with its history; only the lock is left beside the cursor.
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
        let timestamps: Vec<u64> = history.newest_first(Kind::Transfer).map(time_of).collect();
        assert_eq!(timestamps, [TIMESTAMP_MAX, 5]);
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

    /// Goal: links stay, whether their targets exist or not; permissions are kept.
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
        assert!(
            folder.open("round").unwrap_err().message.contains("Too many levels of symbolic links")
        );
    }

    /// Goal: a folder that cannot be written is refused when the cursor is opened.
    #[test]
    fn folders_without_room() {
        for path in ["/proc/florin-cursor", "/nowhere/cursor"] {
            let selection = Selection::of(&[What::All]);
            let failure = CursorFile::open(Path::new(path), 7, &selection).unwrap_err();
            assert_eq!(failure.class, ExitClass::Error);
            assert!(failure.message.contains(path), "{failure}");
        }
    }

    /// Goal: the cursor of another cluster or selection is refused; other files are refused and
    /// not changed.
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
        let event = position(5).newest;
        let event = format!("\"{}\"", encode_event(&event));
        let numbered = |count: &str| text.replace("{\"", &format!("{{{count},\""));
        let wrong = [
            text.replace("transfer:", "debit:"),
            text.replace("[\"1\",", "[\"0\","),
            text.replace("[\"1\",", "[\"18446744073709551615\","),
            numbered("\"history_count\":\"0\""),
            numbered("\"history_count\":\"18446744073709551615\""),
            text.replace("\"transfer_timestamp\":\"5\"", "\"transfer_timestamp\":\"6\""),
            // Without its events, a cursor would fit any history.
            text.replace(&event, "null"),
            text.replace(&format!("event\":{event}"), "event\":\"none\""),
            text.replace(&format!("transfer_event\":{event}"), "transfer_event\":\"none\""),
            numbered("\"history_count\":\"1\"")
                .replace(&format!("event\":{event}"), "event\":null"),
        ];
        assert!(wrong.iter().all(|wrong| *wrong != text));
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

    /// Goal: cursors of older builds are read. Their history has marks of the newest events alone:
    /// the marks of the position are added.
    #[test]
    fn old_files() {
        let folder = Folder::new("old");
        let text = "{\"cluster\":\"7\",\"timestamp\":\"9\",\"transfer_timestamp\":\"5\"}\n";
        fs::write(folder.0.join("c"), text).unwrap();
        let (_, position) = folder.open("c").unwrap();
        let position = position.unwrap();
        assert_eq!((position.newest.timestamp, position.transfer.timestamp), (9, 5));
        assert_eq!(position.marks(), []);
        let (transfer, expiry) = (mark(Kind::Transfer, 5), mark(Kind::Expiry, 9));
        let text = json!({
            "cluster": "7", "selection": "--what=transfers", "timestamp": "9",
            "transfer_timestamp": "5", "account_timestamp": "0", "event": encode_event(&expiry),
            "transfer_event": encode_event(&transfer), "account_event": null,
            "history_count": "8", "history": [["8", "9", encode_event(&expiry)]],
        });
        fs::write(folder.0.join("second"), text.to_string()).unwrap();
        let (mut file, position) = folder.open("second").unwrap();
        let position = position.unwrap();
        assert_eq!((position.newest, position.transfer), (expiry, transfer));
        assert_eq!(file.history.marks, [(8, expiry), (1, transfer)]);
        file.write(&position).unwrap();
        drop(file);
        let (file, remembered) = folder.open("second").unwrap();
        assert_eq!(remembered, Some(position));
        assert_eq!(file.history.marks, [(8, expiry), (1, transfer)]);
    }

    /// Goal: a selection of any length is remembered, and another one is refused. The cursors of
    /// older builds have the whole text.
    #[test]
    fn long_selections() {
        let folder = Folder::new("long");
        let path = folder.0.join("c");
        let of = |first: u128| {
            let ids: Vec<u128> = (first..first + 3000).map(|id| u128::MAX / 2 + id).collect();
            Selection::of(&[What::All]).only(&[], &[], &ids)
        };
        let open = |selection: &Selection| CursorFile::open(&path, 7, selection);
        open(&of(1)).unwrap().0.write(&position(5)).unwrap();
        assert_eq!(open(&of(1)).unwrap().1, Some(position(5)));
        let failure = open(&of(2)).unwrap_err();
        assert_eq!(failure.class, ExitClass::Usage);
        assert!(failure.message.contains("this one has `--what=all --account="), "{failure}");
        assert!(failure.message.len() < 1500, "{failure}");
        let ids: Vec<u128> = (1..1000).collect();
        let selection = Selection::of(&[What::All]).only(&[], &[], &ids);
        let older = encode(7, &selection.to_string(), &position(5), &History::default());
        fs::write(&path, older).unwrap();
        assert_eq!(open(&selection).unwrap().1, Some(position(5)));
    }

    /// Goal: nothing is written beside a file that is not a cursor.
    #[test]
    fn no_locks_of_others() {
        let folder = Folder::new("lockless");
        fs::write(folder.0.join("passwd"), "root:x:0:0\n").unwrap();
        let failure = folder.open("passwd").unwrap_err();
        assert!(failure.message.contains("is not the cursor"), "{failure}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    /// Goal: a part of a cursor that an earlier process left is replaced; another file of its name
    /// stays, and so does a cursor.
    #[test]
    fn files_in_the_way() {
        let folder = Folder::new("way");
        let new = folder.0.join("c.new");
        let text = encode(7, "--what=transfers", &position(5), &History::default());
        for part in ["", "{\"acc", &text] {
            fs::write(&new, part).unwrap();
            folder.open("c").unwrap().0.write(&position(5)).unwrap();
            assert!(!new.exists());
        }
        fs::write(&new, "notes").unwrap();
        let failure = folder.open("c").unwrap_err();
        assert!(failure.message.contains("c.new is needed"), "{failure}");
        assert_eq!(fs::read_to_string(&new).unwrap(), "notes");
        fs::remove_file(&new).unwrap();
        folder.open("c.new").unwrap().0.write(&position(6)).unwrap();
        let failure = folder.open("c").unwrap_err();
        assert!(failure.message.contains("c.new is needed"), "{failure}");
        assert_eq!(folder.open("c.new").unwrap().1, Some(position(6)));
    }

    /// Goal: root leaves cursor and lock to the owner of the cursor.
    #[test]
    fn owners() {
        use std::os::unix::fs::{MetadataExt, chown};
        let folder = Folder::new("owners");
        let path = folder.0.join("c");
        folder.open("c").unwrap().0.write(&position(5)).unwrap();
        fs::remove_file(folder.0.join("c.lock")).unwrap();
        if chown(&path, Some(12_345), Some(23_456)).is_err() {
            eprintln!("skipped: only root can change owners");
            return;
        }
        folder.open("c").unwrap().0.write(&position(6)).unwrap();
        for name in ["c", "c.lock"] {
            let facts = fs::metadata(folder.0.join(name)).unwrap();
            assert_eq!((facts.uid(), facts.gid()), (12_345, 23_456), "{name}");
        }
    }

    fn mark(kind: Kind, timestamp: u64) -> Mark {
        Mark { timestamp, identity: Some(Identity { kind, checksum: u128::from(timestamp) }) }
    }

    fn divergence(history: &History, missing: Mark, known: &[Mark]) -> Divergence {
        let has = |mark: Mark| Ok(Some(known.contains(&mark)));
        history.divergence(missing, has).unwrap().unwrap()
    }

    /// Goal: a moment up to which histories are the same is one of every kind of records: a late
    /// transfer can be missing where a newer expiry or account is not.
    #[test]
    fn divergences() {
        let (first, late) = (mark(Kind::Transfer, 10), mark(Kind::Transfer, 15));
        let (account, expiry) = (mark(Kind::Account, 18), mark(Kind::Expiry, 20));
        let mut history = History::default();
        for mark in [first, expiry, account, late] {
            history.push_mark(mark);
        }
        let found = divergence(&history, late, &[first, expiry, account]);
        assert_eq!(found, Divergence { common: Some(10), missing: 15 });
        let found = divergence(&history, expiry, &[first, late, account]);
        assert_eq!(found, Divergence { common: Some(15), missing: 20 });
        let found = divergence(&history, late, &[first]);
        assert_eq!(found, Divergence { common: None, missing: 15 });
        let found = divergence(&history, mark(Kind::Account, 30), &[first, late, account]);
        assert_eq!(found, Divergence { common: Some(15), missing: 20 });
        let found = divergence(&History::default(), late, &[]);
        assert_eq!(found, Divergence { common: None, missing: 15 });
        let mut expiries = History::default();
        expiries.push_mark(expiry);
        let found = divergence(&expiries, mark(Kind::Expiry, 30), &[expiry]);
        assert_eq!(found, Divergence { common: None, missing: 30 });
    }

    /// Goal: the search ends when the user wants it to, and with the failure of the cluster.
    #[test]
    fn divergences_without_end() {
        let mut history = History::default();
        history.push(&position(5));
        let missing = position(5).newest;
        assert_eq!(history.divergence(missing, |_| Ok(None)).unwrap(), None);
        let failure = || Failure::new(ExitClass::Cluster, "gone");
        assert_eq!(history.divergence(missing, |_| Err(failure())), Err(failure()));
    }

    /// Goal: the marks of each kind are sparse by themselves: many events of one kind leave those
    /// of the others.
    #[test]
    fn history_of_kinds() {
        let mut history = History::default();
        history.push_mark(mark(Kind::Account, 1));
        (2..1000).for_each(|timestamp| history.push_mark(mark(Kind::Transfer, timestamp)));
        history.push_mark(mark(Kind::Account, 1000));
        let accounts: Vec<u64> = history.newest_first(Kind::Account).map(time_of).collect();
        assert_eq!(accounts, [1000, 1]);
        let position = Position { newest: mark(Kind::Account, 1000), ..position(999) };
        let position = Position { account: position.newest, ..position };
        let text = encode(7, "", &position, &history);
        let marks = decode_history(&serde_json::from_str::<Value>(&text).unwrap()["history"], 999);
        assert_eq!(marks, Some(history));
    }

    /// Goal: a cursor with the most marks that there can be is read back.
    #[test]
    fn longest_files() {
        let mut history = History::default();
        for kind in [Kind::Transfer, Kind::Account, Kind::Expiry] {
            for power in 0..=MARKS_EVER_MAX.trailing_zeros() {
                let step = 1_u64 << power;
                let last = MARKS_EVER_MAX / step;
                let numbers = [last.saturating_sub(3), last.saturating_sub(1)];
                let numbers = numbers.map(|number| number * step);
                let marks = numbers.map(|number| (number, mark(kind, TIMESTAMP_MAX)));
                history.marks.extend(marks);
            }
        }
        let selection = "x".repeat(SELECTION_SIZE_MAX);
        let text = encode(u128::MAX, &selection, &position(TIMESTAMP_MAX), &history);
        assert!(text.len() as u64 <= FILE_SIZE_MAX, "{}", text.len());
    }

    /// Goal: a long history keeps few marks, dense near the end, and the oldest part is not lost.
    #[test]
    fn history_is_sparse() {
        let mut history = History::default();
        for timestamp in 1..=100_000 {
            history.push(&position(timestamp));
        }
        let kept: Vec<u64> = history.newest_first(Kind::Transfer).map(time_of).collect();
        assert!(kept.len() < 40, "{}", kept.len());
        assert_eq!(kept[..3], [100_000, 99_999, 99_998]);
        assert!(kept.last().is_some_and(|oldest| *oldest <= 65_536), "{kept:?}");
    }
}
