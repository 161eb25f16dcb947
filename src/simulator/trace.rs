//! What happened: a hash of everything, and lines for people.
//!
//! In the short log every node is a column and every state transition a line; the full log adds
//! each message and disk request. The hash tells whether two runs were the same.

use std::fmt::Write as _;
use std::io::Write as _;

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    #[default]
    None,
    /// State transitions and faults.
    Short,
    /// Messages and disk requests too.
    Full,
}

/// Columns of a node.
const WIDTH: usize = 24;

/// The trace of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    detail: Detail,
    nodes: usize,
    hash: u64,
    events: u64,
}

impl Trace {
    /// A trace of so many nodes.
    #[must_use]
    pub fn new(detail: Detail, nodes: usize) -> Trace {
        Trace { detail, nodes, hash: 0xcbf2_9ce4_8422_2325, events: 0 }
    }

    /// Of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Things noted so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Notes a thing that happened: some numbers that tell it from others.
    pub fn note(&mut self, words: [u64; 4]) {
        self.events += 1;
        for word in words {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    /// Whether lines of this detail are wanted.
    #[must_use]
    pub fn wants(&self, detail: Detail) -> bool {
        self.detail >= detail
    }

    /// Prints what became of a node in its column.
    pub fn node(&self, now_ns: u64, node: usize, text: &str) {
        if !self.wants(Detail::Short) {
            return;
        }
        let mut line = time(now_ns);
        for column in 0..self.nodes {
            let cell = if column == node { text } else { "" };
            write!(line, "| {cell:WIDTH$}").expect("to a string");
        }
        print_line(line.trim_end());
    }

    /// Prints what happened to the whole.
    pub fn line(&self, now_ns: u64, detail: Detail, text: impl FnOnce() -> String) {
        if self.wants(detail) {
            print_line(&format!("{}{}", time(now_ns), text()));
        }
    }
}

fn time(now_ns: u64) -> String {
    format!("{:>6}.{:03} ", now_ns / 1_000_000, now_ns / 1000 % 1000)
}

/// Whoever reads may stop reading: that is no failure.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the hash depends on what is noted and on the order.
    #[test]
    fn hashes() {
        let hash = |notes: &[u64]| {
            let mut trace = Trace::new(Detail::None, 1);
            for word in notes {
                trace.note([*word, 0, 0, 0]);
            }
            trace.hash()
        };
        assert_eq!(hash(&[1, 2]), hash(&[1, 2]));
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
        assert_ne!(hash(&[1, 2]), hash(&[1, 2, 0]));
    }
}
