//! How far work that is due at a later bar must be by now.
//!
//! A merge has several bars of time. Done in one go, as soon as it is possible, it takes the disk
//! and a core for half a second, in which every batch waits five times as long; so it is done in
//! portions, in step with the rows that arrive, and is done when half of its time is over. The
//! pace decides only when work is done, never what comes of it. Not covered: what there is to do
//! (`table`), and doing it (`task`).
//!
//! Sketch: eight runs of ten columns of 262,144 entries are 21 million entries, 160 steps of a
//! merge; their window is four bars, 128 batches of 8,189 rows, so there are 2.5 steps for each
//! batch of the first half, of about 2 ms each, beside the 4 ms that a batch takes.

/// Work is to be done in this part of its time, so that it is never waited for.
const SLACK: u64 = 2;

/// The part of its time that is over for some work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Rows that arrived since it began.
    elapsed: u64,
    /// Rows that arrive until it must be done.
    window: u64,
}

impl Pace {
    /// The pace of work that began `bars_before` bars before the active one, in which there are
    /// `rows` of the `rows_full` that at least end it; it is due after `bars` bars.
    pub fn new(bars_before: u64, bars: u64, rows: u64, rows_full: u64) -> Pace {
        assert!(bars_before < bars, "work is done at the end of its last bar");
        assert!(rows_full > 0);
        let elapsed = bars_before * rows_full + rows.min(rows_full);
        Pace { elapsed, window: bars * rows_full }
    }

    /// Whether it is time for more when `done` of `total` are done. At the end of the time it
    /// always is.
    pub fn allows(self, done: u64, total: u64) -> bool {
        assert!(done <= total);
        let due = u128::from(total) * u128::from(self.elapsed) * u128::from(SLACK);
        u128::from(done) * u128::from(self.window) <= due
    }

    /// Whether `part` of `total` more could be done in one go.
    pub fn allows_part(self, done: u64, total: u64, part: u64) -> bool {
        self.allows((done + part).min(total), total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: some work is allowed at once, all of it from half of the time on, and no more between
    /// than is in step with the rows.
    #[test]
    fn in_step() {
        assert!(Pace::new(0, 4, 0, 100).allows(0, 1000));
        assert!(!Pace::new(0, 4, 0, 100).allows(1, 1000));
        assert!(Pace::new(0, 4, 50, 100).allows(250, 1000));
        assert!(!Pace::new(0, 4, 50, 100).allows(251, 1000));
        assert!(!Pace::new(0, 4, 50, 100).allows_part(150, 1000, 125));
        assert!(Pace::new(0, 4, 50, 100).allows_part(100, 1000, 125));
        for rows in 0..200 {
            assert!(Pace::new(2, 4, rows, 100).allows(1000, 1000), "half of the time is over");
        }
    }

    /// Goal: at the end of its last bar all work is allowed, however few rows a bar had, and also
    /// if there is nothing to do.
    #[test]
    fn at_the_end() {
        for bars in 1..6 {
            for rows_full in [1, 7, 1000] {
                for total in [0, 1, 3, u64::MAX / 4] {
                    let pace = Pace::new(bars - 1, bars, rows_full, rows_full);
                    assert!(pace.allows(total, total));
                    assert!(pace.allows_part(total / 2, total, 5));
                }
            }
        }
    }
}
