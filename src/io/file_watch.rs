//! Warns when the data file of a running server is deleted, or cut off.
//!
//! A deleted file serves on as long as the process runs, and is gone when it ends: nobody else
//! notices before the next start. A file that was cut off has lost blocks that may be read much
//! later. The size that a file had before is compared, since it only ever grows. The server keeps
//! running: in both cases its end makes matters worse. Not covered: another file that was put at
//! the path.

use std::fmt;
use std::os::fd::BorrowedFd;

use super::log::warn;
use super::system::{FileFacts, file_facts};

/// Ticks between two looks: a second.
const LOOK_TICKS: u64 = 100;
/// Looks between two warnings: a minute.
const REPEAT_LOOKS: u64 = 60;

/// When to look and to warn. See the module.
#[derive(Debug)]
pub struct FileWatch {
    ticks: u64,
    looks: u64,
    size_max: u64,
    /// The look at which it may be said again.
    next_look: u64,
}

impl FileWatch {
    /// Notes how large a file is at the start.
    #[must_use]
    pub fn new(file: BorrowedFd<'_>) -> FileWatch {
        FileWatch::with_size(file_facts(file).map_or(0, |facts| facts.size))
    }

    fn with_size(size_max: u64) -> FileWatch {
        FileWatch { ticks: 0, looks: 0, size_max, next_look: 0 }
    }

    /// Lets a tick pass, looks at the file now and then, and logs if need be.
    pub fn tick(&mut self, file: BorrowedFd<'_>) {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(LOOK_TICKS) {
            return;
        }
        let Some(facts) = file_facts(file) else { return };
        if let Some(message) = self.look(facts) {
            warn(format_args!("{message}"));
        }
    }

    fn look(&mut self, facts: FileFacts) -> Option<FileMessage> {
        self.looks += 1;
        self.size_max = self.size_max.max(facts.size);
        let message = if facts.links == 0 {
            FileMessage::Deleted
        } else if facts.size < self.size_max {
            FileMessage::CutOff { before: self.size_max, now: facts.size }
        } else {
            return None;
        };
        if self.looks < self.next_look {
            return None;
        }
        self.next_look = self.looks + REPEAT_LOOKS;
        Some(message)
    }
}

/// What happened to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileMessage {
    Deleted,
    CutOff { before: u64, now: u64 },
}

impl fmt::Display for FileMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileMessage::Deleted => write!(
                formatter,
                "the data file was deleted: its content is lost when this server ends; in a \
                 cluster, end it and recreate the file with `florin recover`; alone, stop the \
                 clients and export the data from this server before it ends"
            ),
            FileMessage::CutOff { before, now } => write!(
                formatter,
                "the data file was cut off: it had {before} bytes and has {now}; in a cluster, end \
                 this server and recreate the file with `florin recover`; alone, restore a backup"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a file that is deleted or becomes shorter is reported at once and then each minute;
    /// one that grows is not.
    #[test]
    fn messages() {
        let mut watch = FileWatch::with_size(1 << 20);
        for size in [1 << 20, 1 << 20, 2 << 20] {
            assert_eq!(watch.look(FileFacts { links: 1, size }), None);
        }
        let short = FileFacts { links: 1, size: 1 << 20 };
        let expected = FileMessage::CutOff { before: 2 << 20, now: 1 << 20 };
        assert_eq!(watch.look(short), Some(expected));
        assert_eq!((0..120).filter(|_| watch.look(short).is_some()).count(), 2);
        let mut watch = FileWatch::with_size(1 << 20);
        let deleted = FileFacts { links: 0, size: 1 << 20 };
        assert_eq!(watch.look(deleted), Some(FileMessage::Deleted));
        assert_eq!(watch.look(deleted), None);
    }
}
