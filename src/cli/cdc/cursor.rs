//! How far the stream has come, and the file that remembers it.
//!
//! Two moments are needed. Events come in the order of their timestamps, with one exception: an
//! imported transfer brings a timestamp of its own, which is later than those of all transfers
//! before it, but may be earlier than an expiry that was seen already. Nothing else comes late. So
//! it is remembered up to where *transfers* were seen, too, and what is between is looked for.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::exit::{ExitClass, Failure};
use crate::protocol::types::TIMESTAMP_MAX;

/// Bytes of a file at most: who names another file by mistake is told.
const FILE_SIZE_MAX: u64 = 4096;

/// How far the stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Events up to this timestamp were seen.
    pub event: u64,
    /// The newest transfer that was seen; what was seen after it are expiries.
    pub transfer: u64,
}

impl Position {
    /// Just before a moment.
    ///
    /// # Panics
    ///
    /// If there is no such moment.
    #[must_use]
    pub fn before(timestamp: u64) -> Position {
        assert!((1..=TIMESTAMP_MAX).contains(&timestamp));
        Position { event: timestamp - 1, transfer: timestamp - 1 }
    }

    fn is_valid(self) -> bool {
        self.transfer <= self.event && self.event <= TIMESTAMP_MAX
    }
}

/// The file that remembers a position. It is replaced as a whole, never changed in place.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    cluster: u128,
}

impl CursorFile {
    /// The file at this path, for the stream of a cluster.
    #[must_use]
    pub fn new(path: &Path, cluster: u128) -> CursorFile {
        CursorFile { path: path.to_owned(), cluster }
    }

    /// The position that the file has; none if there is no file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is none of these, or of another cluster.
    pub fn read(&self) -> Result<Option<Position>, Failure> {
        let path = self.path.display();
        let text = match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Ok(facts) if facts.len() > FILE_SIZE_MAX => String::new(),
            _ => fs::read_to_string(&self.path).map_err(|error| {
                Failure::new(ExitClass::Error, format!("--cursor: {path} cannot be read: {error}"))
            })?,
        };
        let Some((cluster, position)) = decode(&text) else {
            let message = format!(
                "--cursor: {path} is not the cursor of a stream; name another file, or remove it \
                 to begin anew"
            );
            return Err(Failure::new(ExitClass::Usage, message));
        };
        if cluster != self.cluster {
            let message = format!(
                "--cursor: {path} is of cluster {cluster}, the stream is of cluster {}",
                self.cluster
            );
            return Err(Failure::new(ExitClass::Usage, message));
        }
        Ok(Some(position))
    }

    /// Remembers a position, durably.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    ///
    /// # Panics
    ///
    /// If the position is none.
    pub fn write(&self, position: Position) -> Result<(), Failure> {
        assert!(position.is_valid());
        let text = encode(self.cluster, position);
        let failed = |error: std::io::Error| {
            let path = self.path.display();
            Failure::new(ExitClass::Error, format!("--cursor: {path} cannot be written: {error}"))
        };
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let mut file = File::create(&name).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        fs::rename(&name, &self.path).map_err(failed)
    }
}

/// A line of JSON: numbers are strings, as in events.
fn encode(cluster: u128, position: Position) -> String {
    let Position { event, transfer } = position;
    format!(
        "{{\"cluster\":\"{cluster}\",\"timestamp\":\"{event}\",\
         \"transfer_timestamp\":\"{transfer}\"}}\n"
    )
}

fn decode(text: &str) -> Option<(u128, Position)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let cluster = value["cluster"].as_str()?.parse().ok()?;
    let event = value["timestamp"].as_str()?.parse().ok()?;
    let transfer = value["transfer_timestamp"].as_str()?.parse().ok()?;
    let position = Position { event, transfer };
    position.is_valid().then_some((cluster, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, cluster: u128) -> CursorFile {
        let name = format!("florin-test-cursor-{name}-{}", std::process::id());
        CursorFile::new(&std::env::temp_dir().join(name), cluster)
    }

    /// Goal: what is remembered is read back; another cluster's is refused.
    #[test]
    fn remembers() {
        let ours = file("remembers", 7);
        assert_eq!(ours.read(), Ok(None));
        let position = Position { event: TIMESTAMP_MAX, transfer: 5 };
        ours.write(position).unwrap();
        ours.write(position).unwrap();
        assert_eq!(ours.read(), Ok(Some(position)));
        let failure = file("remembers", 8).read().unwrap_err();
        assert_eq!(failure.class, ExitClass::Usage);
        assert!(failure.message.contains("cluster 7"), "{failure}");
        fs::remove_file(&ours.path).unwrap();
    }

    /// Goal: any other file is left alone and named.
    #[test]
    fn other_files() {
        let other = file("other", 7);
        for text in ["", "{}", "[1]", "{\"cluster\":\"7\",\"timestamp\":\"5\"}", &"x".repeat(5000)]
        {
            fs::write(&other.path, text).unwrap();
            let failure = other.read().unwrap_err();
            assert!(failure.message.contains("is not the cursor"), "{failure}");
        }
        fs::write(&other.path, encode(7, Position { event: 5, transfer: 6 })).unwrap();
        assert!(other.read().is_err(), "transfers are events");
        fs::remove_file(&other.path).unwrap();
    }
}
