//! What will happen and when: the one queue that a simulated cluster lives from.
//!
//! Things due at the same instant happen in the order in which they were planned, so that the
//! order is a function of the seed alone.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::network::Packet;

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// Ten milliseconds have passed: replicas tick, faults are drawn.
    Tick,
    /// A packet arrives.
    Deliver(Packet),
    /// A disk is done with a request.
    Disk {
        /// Whose disk.
        replica: usize,
        /// The start of the process that asked.
        incarnation: u32,
        /// The disk's number of the request.
        id: u64,
    },
    /// A helper is done with a job.
    Job {
        /// Whose helper.
        replica: usize,
        /// The start of the process that asked.
        incarnation: u32,
        /// The process's number of the job.
        id: u64,
    },
    /// A replica gets around to a part of its work.
    Work {
        /// Which one.
        replica: usize,
        /// The start of its process.
        incarnation: u32,
    },
    /// A replica learns that its connection to another is broken.
    PeerLost {
        /// Who learns it.
        replica: usize,
        /// The other.
        peer: usize,
    },
    /// A process starts, unless it runs.
    Start {
        /// The process.
        replica: usize,
    },
    /// A client looks what there is to do.
    Client {
        /// The client.
        client: usize,
    },
}

#[derive(Debug)]
struct Entry {
    at_ns: u64,
    sequence: u64,
    event: Event,
}

impl Entry {
    fn key(&self) -> (u64, u64) {
        (self.at_ns, self.sequence)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: the heap gives that first.
    fn cmp(&self, other: &Entry) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// The queue and the time.
#[derive(Debug, Default)]
pub struct Events {
    heap: BinaryHeap<Entry>,
    planned: u64,
    now_ns: u64,
}

impl Events {
    /// Nothing planned at time zero.
    #[must_use]
    pub fn new() -> Events {
        Events::default()
    }

    /// Nanoseconds since the beginning of the run.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Plans something in so many nanoseconds.
    pub fn after(&mut self, delay_ns: u64, event: Event) {
        self.planned += 1;
        let at_ns = self.now_ns + delay_ns;
        self.heap.push(Entry { at_ns, sequence: self.planned, event });
    }

    /// Goes to what is due next.
    ///
    /// # Panics
    ///
    /// If nothing is planned: a cluster ticks for ever.
    pub fn advance(&mut self) -> Event {
        let entry = self.heap.pop().expect("a tick is always planned");
        self.now_ns = self.now_ns.max(entry.at_ns);
        entry.event
    }

    /// Planned things for which this does not hold are forgotten.
    pub fn retain(&mut self, keep: impl Fn(&Event) -> bool) {
        self.heap.retain(|entry| keep(&entry.event));
    }

    /// How many planned things this holds for.
    #[must_use]
    pub fn count(&self, holds: impl Fn(&Event) -> bool) -> usize {
        self.heap.iter().filter(|entry| holds(&entry.event)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: events come in the order of time, those of one instant in the order of planning.
    #[test]
    fn order() {
        let mut events = Events::new();
        events.after(5, Event::Client { client: 1 });
        events.after(3, Event::Client { client: 2 });
        events.after(5, Event::Client { client: 3 });
        let mut clients = Vec::new();
        for _ in 0..3 {
            let Event::Client { client } = events.advance() else { panic!("a client's event") };
            clients.push((events.now_ns(), client));
        }
        assert_eq!(clients, [(3, 2), (5, 1), (5, 3)]);
        events.after(0, Event::Tick);
        events.retain(|event| !matches!(event, Event::Tick));
        assert_eq!(events.count(|_| true), 0);
    }
}
