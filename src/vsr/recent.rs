//! The newest prepares in memory.
//!
//! What was just received or prepared is executed, sent again and given to peers from here,
//! without reading it back from the log. A cache: losing any of it costs a read.

use crate::protocol::{Message, to_index};

/// Prepares by op modulo the number of places.
#[derive(Debug)]
pub struct RecentPrepares {
    places: Vec<Option<Message>>,
}

impl RecentPrepares {
    /// Places that a pipeline of this length needs: all ops on their way stay, and as many before.
    #[must_use]
    pub fn places(pipeline_max: u32) -> u32 {
        2 * pipeline_max
    }

    /// An empty cache for a pipeline of this length.
    #[must_use]
    pub fn new(pipeline_max: u32) -> RecentPrepares {
        RecentPrepares { places: vec![None; to_index(RecentPrepares::places(pipeline_max))] }
    }

    fn place(&self, op: u64) -> usize {
        let count = u64::try_from(self.places.len()).expect("a small count");
        usize::try_from(op % count).expect("below the count")
    }

    /// Keeps a prepare, unless a newer one has its place.
    pub fn put(&mut self, message: &Message) {
        let op = message.prepare().op;
        let place = self.place(op);
        let newer = self.places[place].as_ref().is_some_and(|other| other.prepare().op > op);
        if !newer {
            self.places[place] = Some(message.clone());
        }
    }

    /// The prepare of this op with this checksum.
    #[must_use]
    pub fn get(&self, op: u64, checksum: u128) -> Option<&Message> {
        let message = self.places[self.place(op)].as_ref()?;
        let header = message.prepare();
        (header.op == op && header.frame.checksum == checksum).then_some(message)
    }

    /// Forgets the prepare of this op.
    pub fn remove(&mut self, op: u64) {
        let place = self.place(op);
        if self.places[place].as_ref().is_some_and(|message| message.prepare().op == op) {
            self.places[place] = None;
        }
    }

    /// Forgets all prepares of ops after this one.
    pub fn remove_after(&mut self, op: u64) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|message| message.prepare().op > op) {
                *place = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Command, Pool};

    /// Goal: a prepare is found by op and checksum, and makes way only for newer ones.
    #[test]
    fn newest_stay() {
        let pool = Pool::new("test", 8, 4096);
        let message = |op: u64| {
            let mut message = Message::new(pool.acquire(), Command::Prepare);
            message.prepare_mut().op = op;
            message.set_checksums();
            message
        };
        let mut recent = RecentPrepares::new(2);
        let (one, five) = (message(1), message(5));
        recent.put(&five);
        recent.put(&one);
        let checksum = |message: &Message| message.header().frame.checksum;
        assert!(recent.get(5, checksum(&five)).is_some());
        assert!(recent.get(5, checksum(&one)).is_none() && recent.get(1, checksum(&one)).is_none());
        recent.put(&message(2));
        recent.remove_after(4);
        assert!(recent.get(5, checksum(&five)).is_none());
        recent.remove(2);
        drop((one, five));
        assert_eq!(pool.available(), 8);
    }
}
