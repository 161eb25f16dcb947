//! Lines to the operator that a peer may cause: at most one in some seconds, so that no peer can
//! fill a disk with them. Not covered: errors that end the process.

use std::fmt;

use super::log::warn;

/// Complaints about peers are printed at most this often, in ticks of 10 ms.
pub const COMPLAINT_TICKS: u64 = 1_000;

/// At most one complaint in [`COMPLAINT_TICKS`].
#[derive(Debug, Default)]
pub struct Complaint {
    next_tick: u64,
    suppressed: u64,
}

impl Complaint {
    /// Prints, unless something was printed a short time ago; that is only counted then.
    pub fn write(&mut self, tick: u64, what: fmt::Arguments<'_>) {
        if tick < self.next_tick {
            self.suppressed += 1;
            return;
        }
        self.next_tick = tick + COMPLAINT_TICKS;
        if self.suppressed == 0 {
            warn(what);
        } else {
            warn(format_args!("{what} ({} more not shown)", self.suppressed));
        }
        self.suppressed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: within the interval complaints are counted, not printed; the next one starts anew.
    #[test]
    fn interval() {
        let mut complaint = Complaint::default();
        complaint.write(5, format_args!("first"));
        complaint.write(6, format_args!("second"));
        complaint.write(4 + COMPLAINT_TICKS, format_args!("third"));
        assert_eq!(complaint.suppressed, 2);
        complaint.write(5 + COMPLAINT_TICKS, format_args!("fourth"));
        assert_eq!(complaint.suppressed, 0);
    }
}
