//! How far ahead of its last write the data file is made to reach.
//!
//! A write that makes a file longer is not asynchronous on Linux: it is handed to a thread of the
//! kernel and holds the file's lock until it has ended, so that the log's writes wait for it. So
//! space is reserved ahead, in few and large pieces. Not covered: reserving it (`ring`).

/// Smallest and largest piece in bytes.
const PIECE_MIN: u64 = 4 << 20;
const PIECE_MAX: u64 = 128 << 20;
/// Part of the file that a piece is.
const PIECE_PART: u64 = 16;

/// What is reserved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// Everything before is reserved or being reserved; `None` while the size is not known.
    end: Option<u64>,
    /// A piece is being reserved.
    busy: bool,
    /// It does not work here, or there is no more space: writes grow the file as they can.
    stopped: bool,
}

impl Growth {
    /// Whether the size of the file must be set.
    pub fn wants_size(&self) -> bool {
        self.end.is_none()
    }

    /// Sets the size of the file in bytes.
    pub fn set_size(&mut self, size: u64) {
        assert!(self.end.is_none(), "set once");
        self.end = Some(size);
    }

    /// Offset and length of the piece to reserve now that there is a write up to `write_end`, if
    /// any. [`Growth::done`] must follow.
    pub fn next(&mut self, write_end: u64) -> Option<(u64, u64)> {
        let end = self.end?;
        let piece = (write_end / PIECE_PART).clamp(PIECE_MIN, PIECE_MAX) / PIECE_MIN * PIECE_MIN;
        if self.busy || self.stopped || write_end + piece / 2 <= end {
            return None;
        }
        let new_end = write_end.max(end) + piece;
        self.busy = true;
        self.end = Some(new_end);
        Some((end, new_end - end))
    }

    /// Gives back the piece from this offset on, which could not be asked for now: the next write
    /// that comes near the end asks for it again.
    pub fn put_off(&mut self, offset: u64) {
        assert!(self.busy, "a piece was about to be reserved");
        assert!(self.end.is_some_and(|end| offset < end), "it was not empty");
        self.busy = false;
        self.end = Some(offset);
    }

    /// The piece is reserved, or could not be.
    pub fn done(&mut self, is_reserved: bool) {
        assert!(self.busy, "a piece was being reserved");
        self.busy = false;
        self.stopped |= !is_reserved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a piece that could not be asked for is asked for again, without a gap.
    #[test]
    fn put_off() {
        let mut growth = Growth::default();
        growth.set_size(10 << 20);
        let piece = growth.next(9 << 20);
        growth.put_off(10 << 20);
        assert_eq!(piece, Some((10 << 20, 4 << 20)));
        assert_eq!(growth.next(9 << 20), piece);
    }

    /// Goal: pieces follow each other without gaps, one at a time, before they are needed.
    #[test]
    fn ahead() {
        let mut growth = Growth::default();
        assert!(growth.wants_size() && growth.next(1 << 30).is_none());
        growth.set_size(10 << 20);
        assert!(!growth.wants_size());
        assert_eq!(growth.next(8 << 20), None);
        assert_eq!(growth.next(9 << 20), Some((10 << 20, 4 << 20)));
        assert_eq!(growth.next(13 << 20), None, "one at a time");
        growth.done(true);
        assert_eq!(growth.next(11 << 20), None);
        assert_eq!(growth.next(4 << 30), Some((14 << 20, (4 << 30) + (128 << 20) - (14 << 20))));
        growth.done(false);
        assert_eq!(growth.next(8 << 30), None, "it does not work here");
    }
}
