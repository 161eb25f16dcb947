//! `DoViewChange`: which log a new view begins with.
//!
//! Each replica reports the end of its log as the last view that it took part in had it. The logs
//! of the newest such view are canonical. Of their ops those known to be committed stay; any other
//! is cut off, with all after it, only if a nack quorum certainly never acknowledged it; it stays
//! if somebody has it, also in a log of an older view, if the next op names it as its parent; with
//! neither the new primary waits for more reports, as cutting could lose an acknowledged op
//! ("Protocol-Aware Recovery for Consensus-Based Storage", section 3.3). A pure function of the
//! reports. Not covered: sending them, and fetching what the chosen log needs.

use super::quorum::Quorums;
use crate::protocol::peer::{body_headers, prepare_header};
use crate::protocol::{Message, PrepareHeader, to_index};

/// Headers of the end of a log at most: those that may be uncommitted, and one below.
pub const SUFFIX_MAX: u32 = super::superblock::VIEW_HEADERS_MAX;

/// The end of a log: headers from the head downwards. What is left out is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffix {
    headers: [PrepareHeader; SUFFIX_MAX as usize],
    count: usize,
}

impl Suffix {
    /// A suffix of the head alone.
    #[must_use]
    pub fn new(head: &PrepareHeader) -> Suffix {
        Suffix { headers: [*head; SUFFIX_MAX as usize], count: 1 }
    }

    /// The headers, head first.
    #[must_use]
    pub fn headers(&self) -> &[PrepareHeader] {
        &self.headers[..self.count]
    }

    /// Header of the newest op.
    #[must_use]
    pub fn head(&self) -> &PrepareHeader {
        &self.headers[0]
    }

    /// Header of the oldest op.
    #[must_use]
    pub fn lowest(&self) -> &PrepareHeader {
        &self.headers[self.count - 1]
    }

    /// The header of this op, if it is there.
    #[must_use]
    pub fn find(&self, op: u64) -> Option<&PrepareHeader> {
        self.headers().iter().find(|header| header.op == op)
    }

    /// Adds a header below the last; false if there is no room, or if it should be the last one's
    /// parent and is not.
    pub fn push(&mut self, header: &PrepareHeader) -> bool {
        let last = self.lowest();
        let linked = header.op + 1 != last.op || header.frame.checksum == last.parent;
        let fits = self.count < self.headers.len() && header.op < last.op && linked;
        if fits {
            self.headers[self.count] = *header;
            self.count += 1;
        }
        fits
    }

    /// The suffix in the body of a message: `None` if a header is damaged or does not fit.
    ///
    /// # Panics
    ///
    /// If the message is none with headers.
    #[must_use]
    pub fn of(message: &Message, cluster: u128) -> Option<Suffix> {
        let mut headers = body_headers(message).iter();
        let head = prepare_header(headers.next()?, cluster)?;
        let mut suffix = Suffix::new(head);
        for header in headers {
            let header = prepare_header(header, cluster)?;
            if !suffix.push(header) {
                return None;
            }
        }
        Some(suffix)
    }
}

/// What one replica reports of its log.
#[derive(Clone, Debug)]
pub struct LogReport {
    /// Newest view in which it was in normal operation.
    pub log_view: u32,
    /// Newest op it knows to be committed.
    pub commit: u64,
    /// The end of its log in that view.
    pub suffix: Suffix,
    /// Bit i: it has the prepare of head − i.
    pub present: u32,
    /// Bit i: it certainly never acknowledged the prepare of head − i.
    pub nack: u32,
}

impl LogReport {
    /// The report in a `DoViewChange`; `None` if its parts contradict each other.
    ///
    /// # Panics
    ///
    /// If it is no such message.
    #[must_use]
    pub fn of(message: &Message, cluster: u128) -> Option<LogReport> {
        let peer = message.peer();
        let suffix = Suffix::of(message, cluster)?;
        let head = suffix.head();
        let agrees = head.op == peer.op
            && head.frame.checksum == peer.context
            && peer.log_view < peer.frame.view
            && peer.present & peer.nack == 0;
        let (log_view, commit) = (peer.log_view, peer.commit);
        agrees.then_some(LogReport {
            log_view,
            commit,
            suffix,
            present: peer.present,
            nack: peer.nack,
        })
    }

    fn bit(&self, mask: u32, op: u64) -> bool {
        let distance = self.suffix.head().op.checked_sub(op);
        distance.is_some_and(|distance| distance < 32 && mask & (1 << distance) != 0)
    }

    /// Whether it has the canonical prepare of this op.
    fn has(&self, canonical: &PrepareHeader) -> bool {
        let same = self.suffix.find(canonical.op) == Some(canonical);
        same && self.bit(self.present, canonical.op)
    }

    /// Whether it certainly never acknowledged the canonical prepare of this op.
    fn nacks(&self, op: u64, canonical: &Canonical, log_view: u32) -> bool {
        if op > self.suffix.head().op {
            return true;
        }
        // What an older view had in this place was replaced, if it is something else.
        let own = self.suffix.find(op);
        let replaced = self.log_view < log_view && own.is_some_and(|own| !canonical.may_be(own));
        replaced || self.bit(self.nack, op)
    }
}

/// What is known of the prepare that the canonical log has in one place.
#[derive(Clone, Copy, Debug)]
struct Canonical<'a> {
    /// Its header.
    header: Option<&'a PrepareHeader>,
    /// Its checksum, as the header of the next op tells it.
    checksum: Option<u128>,
    /// It is of this view or a later one, as the log before it is.
    view_min: u32,
}

impl Canonical<'_> {
    /// Whether it may be this prepare. A gap may be what an older view had there: it was carried
    /// over, and may be committed.
    fn may_be(&self, other: &PrepareHeader) -> bool {
        match self.header {
            Some(header) => header == other,
            None => {
                self.checksum.is_none_or(|checksum| checksum == other.frame.checksum)
                    && other.frame.view >= self.view_min
            }
        }
    }
}

/// What the reports tell of the canonical log in one place: what those of the newest log view have
/// there, or any one if it is the parent of the next.
fn canonical(
    reports: &[Option<LogReport>],
    log_view: u32,
    head_max: u64,
    op: u64,
) -> Canonical<'_> {
    let known = || reports.iter().flatten();
    let newest = || known().filter(move |report| report.log_view == log_view);
    let (mut header, mut checksum) = (None::<&PrepareHeader>, None);
    for place in (op..=head_max).rev() {
        checksum = header.map(|child| child.parent);
        let newest = newest().find_map(|report| report.suffix.find(place));
        let mut parents = known().filter_map(|report| report.suffix.find(place));
        header = newest.or_else(|| parents.find(|it| Some(it.frame.checksum) == checksum));
    }
    let views = newest().flat_map(|report| report.suffix.headers());
    let before = views.filter(|header| header.op <= op).map(|header| header.frame.view);
    Canonical { header, checksum, view_min: before.max().unwrap_or(0) }
}

/// The log that a view begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenLog {
    /// Its end.
    pub suffix: Suffix,
    /// Newest op known to be committed.
    pub commit: u64,
}

/// Chooses the log for the new view; `None` while the reports do not decide it. At most one report
/// of each replica.
#[must_use]
pub fn choose(reports: &[Option<LogReport>], quorums: &Quorums) -> Option<ChosenLog> {
    let known = || reports.iter().flatten();
    if known().count() < usize::from(quorums.view_change) {
        return None;
    }
    let log_view = known().map(|report| report.log_view).max()?;
    let commit = known().map(|report| report.commit).max()?;
    let newest = known().filter(|report| report.log_view == log_view);
    let head_max = newest.map(|report| report.suffix.head().op).max()?;
    if commit > head_max {
        // A committed op is in the log of some canonical replica: that one has not reported.
        return None;
    }
    let find = |op| canonical(reports, log_view, head_max, op);
    let mut head = commit;
    for op in commit + 1..=head_max {
        let place = find(op);
        let nacks = known().filter(|report| report.nacks(op, &place, log_view)).count();
        let hasty = crate::mutated!("cut_without_quorum") && nacks > 0;
        if nacks >= usize::from(quorums.nack) || hasty {
            crate::mark!("view_change_truncates");
            break;
        }
        let copies = place.header.is_some_and(|header| known().any(|report| report.has(header)));
        if !copies {
            crate::mark!("view_change_undecided");
            return None;
        }
        head = op;
    }
    let mut suffix = Suffix::new(find(head).header?);
    while suffix.headers().len() < to_index(SUFFIX_MAX) {
        let lowest = suffix.headers()[suffix.headers().len() - 1].op;
        let Some(below) = lowest.checked_sub(1).and_then(|op| find(op).header) else { break };
        if !suffix.push(below) {
            break;
        }
    }
    Some(ChosenLog { suffix, commit })
}

#[cfg(test)]
#[path = "do_view_change_tests.rs"]
mod tests;
