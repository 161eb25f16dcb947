//! The log that a view prescribes: its head, and how far down from it the hash chain is proven.
//!
//! The head comes from the primary of the view. Every header names its parent by checksum, so from
//! the head on downwards each header can be proven to belong to the log, whoever sent it. Ops of
//! the proven part may be executed once they are committed; what lies below is a guess until the
//! chain reaches it. Not covered: where headers and prepares are kept.

use crate::protocol::PrepareHeader;

/// Head and proven part of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogChain {
    head: PrepareHeader,
    /// Lowest op of the proven part.
    op_min: u64,
    /// Checksum of the header below it.
    parent: u128,
}

impl LogChain {
    /// A log of which only the head is known.
    #[must_use]
    pub fn new(head: &PrepareHeader) -> LogChain {
        LogChain { head: *head, op_min: head.op, parent: head.parent }
    }

    /// Header of the newest op.
    #[must_use]
    pub fn head(&self) -> &PrepareHeader {
        &self.head
    }

    /// Lowest op of the proven part.
    #[must_use]
    pub fn op_min(&self) -> u64 {
        self.op_min
    }

    /// Checksum of the header just below the proven part.
    #[must_use]
    pub fn parent(&self) -> u128 {
        self.parent
    }

    /// Whether the header of this op is proven to belong to the log.
    #[must_use]
    pub fn is_proven(&self, op: u64) -> bool {
        (self.op_min..=self.head.op).contains(&op)
    }

    /// Whether this header would be the next after the head.
    #[must_use]
    pub fn follows(&self, header: &PrepareHeader) -> bool {
        header.op == self.head.op + 1
            && header.parent == self.head.frame.checksum
            && header.timestamp > self.head.timestamp
    }

    /// Adds the op after the head.
    ///
    /// # Panics
    ///
    /// If it does not follow.
    pub fn append(&mut self, header: &PrepareHeader) {
        assert!(self.follows(header), "each op names its parent");
        self.head = *header;
    }

    /// Adds the header below the proven part, if this is it.
    pub fn link(&mut self, header: &PrepareHeader) -> bool {
        let chained = header.frame.checksum == self.parent || crate::mutated!("skip_chain_check");
        let below = header.op + 1 == self.op_min && chained;
        if below {
            self.op_min = header.op;
            self.parent = header.parent;
        }
        below
    }

    /// Proves everything again from the head down.
    pub fn restart(&mut self) {
        *self = LogChain::new(&self.head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(op: u64, parent: u128) -> PrepareHeader {
        let mut header = PrepareHeader::new();
        header.op = op;
        header.parent = parent;
        header.timestamp = op * 10;
        header.header_mut().set_checksum();
        header
    }

    /// Goal: the chain grows at both ends with what fits, and with nothing else.
    #[test]
    fn grows_at_both_ends() {
        let one = header(1, 7);
        let two = header(2, one.frame.checksum);
        let three = header(3, two.frame.checksum);
        let other = header(2, 8);
        let mut chain = LogChain::new(&two);
        assert!(chain.is_proven(2) && !chain.is_proven(1) && !chain.is_proven(3));
        assert!(chain.follows(&three) && !chain.follows(&header(3, 9)));
        chain.append(&three);
        assert!(!chain.link(&header(1, 6)) && !chain.link(&other));
        assert!(chain.link(&one));
        assert_eq!((chain.op_min(), chain.parent(), chain.head().op), (1, 7, 3));
        chain.restart();
        assert_eq!(chain.op_min(), 3);
        assert!(chain.link(&two) && chain.link(&one));
        assert!(chain.is_proven(1) && chain.is_proven(3));
    }
}
