//! Tells the operator when the storage limit comes near and when it is reached.
//!
//! Without a word a server at its limit looks as if it hung: requests that append get no answer.
//! Not covered: what counts as used (the store), a full file system (its writes fail).

use std::fmt;

use super::memory::HumanSize;
use crate::storage::{Room, StorageUse};

/// Ticks between two looks: a second.
const LOOK_TICKS: u64 = 100;
/// Looks between two warnings of a limit that is reached: a minute.
const REPEAT_LOOKS: u64 = 60;

/// When to warn.
#[derive(Debug, Default)]
pub struct StorageWarning {
    ticks: u64,
    looks: u64,
    /// It was said that the limit is near.
    near_said: bool,
    /// The look at which it may be said again that it is reached.
    full_next: u64,
}

impl StorageWarning {
    /// Lets a tick pass; whether it is time to look.
    pub fn tick(&mut self) -> bool {
        self.ticks += 1;
        self.ticks.is_multiple_of(LOOK_TICKS)
    }

    /// Looks; what to print, if anything.
    pub fn look(&mut self, used: StorageUse) -> Option<StorageMessage> {
        self.looks += 1;
        if used.room < Room::Everything {
            if self.looks < self.full_next {
                return None;
            }
            self.full_next = self.looks + REPEAT_LOOKS;
            self.near_said = true;
            return Some(StorageMessage(used));
        }
        if self.near_said || !used.is_high() {
            return None;
        }
        self.near_said = true;
        Some(StorageMessage(used))
    }
}

/// A warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageMessage(StorageUse);

impl fmt::Display for StorageMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StorageUse { limit_bytes, used_bytes, usable_bytes, room } = self.0;
        let (limit, used) = (HumanSize(limit_bytes), HumanSize(used_bytes));
        let usable = HumanSize(usable_bytes);
        let what = match room {
            Room::Everything => "is nearly reached",
            Room::Reads => "is reached: creates get no answer, reads do",
            Room::Nothing => "is too low: requests get no answer",
        };
        write!(
            formatter,
            "the storage limit of {limit} {what}; {used} of the {usable} that can be used now are \
             in use (the rest is kept for merges and checkpoints); start again with a larger \
             --limit-storage"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(used_bytes: u64, room: Room) -> StorageUse {
        StorageUse { limit_bytes: 200 << 30, used_bytes, usable_bytes: 100 << 30, room }
    }

    /// Goal: one warning when the limit comes near, then one each minute while it is reached.
    #[test]
    fn rate() {
        let mut warning = StorageWarning::default();
        assert_eq!((0..1_000).filter(|_| warning.tick()).count(), 10);
        let near = used(80 << 30, Room::Everything);
        assert_eq!(warning.look(used(79 << 30, Room::Everything)), None);
        assert_eq!(warning.look(near), Some(StorageMessage(near)));
        assert_eq!(warning.look(near), None);
        let full = used(100 << 30, Room::Reads);
        let said = (0..180).filter(|_| warning.look(full).is_some()).count();
        assert_eq!(said, 3);
        assert_eq!(warning.look(near), None, "it was said before");
    }

    /// Goal: the warnings name the limit, the use and the option; making them takes no memory.
    #[test]
    fn texts() {
        for (room, what) in [
            (Room::Everything, "nearly reached"),
            (Room::Reads, "creates get no answer"),
            (Room::Nothing, "too low"),
        ] {
            let text = StorageMessage(used(90 << 30, room)).to_string();
            for part in [what, "limit of 200.0 GiB", "90.0 GiB of the 100.0", "--limit-storage"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
