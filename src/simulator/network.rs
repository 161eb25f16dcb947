//! The network between replicas and clients: paths with delays, and what can go wrong on them.
//!
//! Each ordered pair of nodes is a path, one way. What a path delivers is in order unless a fault
//! says otherwise. Nodes are numbered: replicas, standbys, clients, and last somebody hostile.
//! Not covered: what a frame means; a receiver checks it as the production code does.

use std::rc::Rc;

use zerocopy::IntoBytes;

use super::events::{Event, Events};
use super::faults::{Fault, Faults};
use super::random::Random;

/// Where the command stands in a frame.
pub const COMMAND_OFFSET: usize = std::mem::offset_of!(crate::protocol::Frame, command);
const MICROSECOND_NS: u64 = 1_000;
const MILLISECOND_NS: u64 = 1_000_000;

/// Bytes of a frame, aligned as headers want it.
#[derive(Clone, Debug)]
pub struct FrameBytes {
    words: Rc<Vec<u128>>,
    length: usize,
}

impl FrameBytes {
    /// A copy of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> FrameBytes {
        let mut words = vec![0_u128; bytes.len().div_ceil(size_of::<u128>())];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        FrameBytes { words: Rc::new(words), length: bytes.len() }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.length]
    }

    /// A copy with one bit flipped.
    #[must_use]
    fn flipped(&self, random: &mut Random) -> FrameBytes {
        let mut words = (*self.words).clone();
        let byte = random.index(self.length);
        words.as_mut_bytes()[byte] ^= 1 << random.below(8);
        FrameBytes { words: Rc::new(words), length: self.length }
    }
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The sending node.
    pub from: usize,
    /// The receiving node.
    pub to: usize,
    /// Which connection of the path it travels on.
    pub connection: u32,
    /// What arrives.
    pub frame: FrameBytes,
}

/// What is to become of a packet that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It arrives.
    Now,
    /// It is lost.
    Never,
    /// It goes on waiting.
    Later {
        /// Nanoseconds.
        delay_ns: u64,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Path {
    /// Counts the connections there were.
    connection: u32,
    /// Nothing arrives before.
    clogged_until_ns: u64,
    /// When the last packet in order is due.
    last_ns: u64,
    /// Nothing arrives and nothing is known of it.
    cut: bool,
    /// This command is lost until then.
    drop_command: u8,
    drop_until_ns: u64,
}

/// Speeds of the network.
#[derive(Clone, Copy, Debug)]
pub struct NetworkOptions {
    /// Nodes that talk.
    pub nodes: usize,
    /// Least delay in microseconds.
    pub min_us: u64,
    /// Mean of what comes on top of it.
    pub mean_us: u64,
}

/// All paths.
#[derive(Debug)]
pub struct Network {
    options: NetworkOptions,
    paths: Vec<Path>,
    random: Random,
    /// When the present partition ends; 0 if there is none.
    partition_until_ns: u64,
    delivered: u64,
}

impl Network {
    /// A network in which everybody reaches everybody.
    #[must_use]
    pub fn new(options: NetworkOptions, random: Random) -> Network {
        let paths = vec![Path::default(); options.nodes * options.nodes];
        Network { options, paths, random, partition_until_ns: 0, delivered: 0 }
    }

    fn path(&mut self, from: usize, to: usize) -> &mut Path {
        assert!(from < self.options.nodes && to < self.options.nodes);
        &mut self.paths[from * self.options.nodes + to]
    }

    /// The connection that packets sent now on this path belong to.
    #[must_use]
    pub fn connection(&self, from: usize, to: usize) -> u32 {
        self.paths[from * self.options.nodes + to].connection
    }

    /// Packets that arrived.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether this path is cut now.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.paths[from * self.options.nodes + to].cut
    }

    /// Takes a frame and plans its arrivals: none, one, or several.
    pub fn send(
        &mut self,
        from: usize,
        to: usize,
        frame: FrameBytes,
        events: &mut Events,
        faults: &mut Faults,
    ) {
        let now = events.now_ns();
        let (min_us, mean_us) = (self.options.min_us, self.options.mean_us);
        let mut delay_ns = self.random.delay(min_us, mean_us) * MICROSECOND_NS;
        let path = self.path(from, to);
        if path.cut {
            return;
        }
        if faults.strikes(Fault::PacketLoss) {
            faults.count(Fault::PacketLoss);
            return;
        }
        if faults.strikes(Fault::PacketDelay) {
            faults.count(Fault::PacketDelay);
            delay_ns += faults.random(Fault::PacketDelay).scale(1, 1000) * MILLISECOND_NS;
        } else {
            delay_ns = delay_ns.max((path.last_ns + 1).saturating_sub(now));
            path.last_ns = now + delay_ns;
        }
        let packet = Packet { from, to, connection: path.connection, frame };
        if faults.strikes(Fault::PacketDuplicate) {
            faults.count(Fault::PacketDuplicate);
            let late_ns = faults.random(Fault::PacketDuplicate).scale(1, 3000) * MILLISECOND_NS;
            events.after(delay_ns + late_ns, Event::Deliver(packet.clone()));
        }
        events.after(delay_ns, Event::Deliver(packet));
    }

    /// What becomes of a packet that is due now.
    pub fn arrive(&mut self, packet: &Packet, now_ns: u64) -> Arrival {
        let command = packet.frame.bytes()[COMMAND_OFFSET];
        let path = self.path(packet.from, packet.to);
        if path.cut || packet.connection != path.connection {
            return Arrival::Never;
        }
        if now_ns < path.drop_until_ns && command == path.drop_command {
            return Arrival::Never;
        }
        if now_ns < path.clogged_until_ns {
            return Arrival::Later { delay_ns: path.clogged_until_ns - now_ns };
        }
        self.delivered += 1;
        Arrival::Now
    }

    /// Perhaps a flipped bit: the frame as it arrives, and whether it was touched.
    pub fn corrupt(&mut self, frame: &FrameBytes, faults: &mut Faults) -> Option<FrameBytes> {
        if !faults.strikes(Fault::PacketCorrupt) {
            return None;
        }
        faults.count(Fault::PacketCorrupt);
        Some(frame.flipped(faults.random(Fault::PacketCorrupt)))
    }

    /// Breaks the connection of a path: what is on its way is lost.
    pub fn disconnect(&mut self, from: usize, to: usize) {
        self.path(from, to).connection += 1;
    }

    /// Stops one direction for a while.
    pub fn clog(&mut self, from: usize, to: usize, until_ns: u64) {
        let path = self.path(from, to);
        path.clogged_until_ns = path.clogged_until_ns.max(until_ns);
    }

    /// Loses all frames of one command on a path for a while.
    pub fn drop_command(&mut self, from: usize, to: usize, command: u8, until_ns: u64) {
        let path = self.path(from, to);
        path.drop_command = command;
        path.drop_until_ns = until_ns;
    }

    /// Cuts or joins one direction.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.path(from, to).cut = cut;
    }

    /// Whether a partition lasts.
    #[must_use]
    pub fn is_partitioned(&self) -> bool {
        self.partition_until_ns > 0
    }

    /// Remembers when the present partition ends.
    pub fn set_partition_end(&mut self, until_ns: u64) {
        self.partition_until_ns = until_ns;
    }

    /// Ends a partition that is over; whether it just did.
    pub fn end_partition(&mut self, now_ns: u64) -> bool {
        if self.partition_until_ns == 0 || now_ns < self.partition_until_ns {
            return false;
        }
        self.partition_until_ns = 0;
        for path in &mut self.paths {
            path.cut = false;
        }
        true
    }

    /// Opens every path among these nodes, both ways.
    pub fn heal(&mut self, among: impl Fn(usize) -> bool) {
        for from in 0..self.options.nodes {
            for to in 0..self.options.nodes {
                if among(from) && among(to) {
                    let path = self.path(from, to);
                    path.cut = false;
                    path.clogged_until_ns = 0;
                    path.drop_until_ns = 0;
                }
            }
        }
    }
}
