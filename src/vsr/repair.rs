//! Repair: fetching from peers what the log here lacks.
//!
//! First headers, backwards along the hash chain from the head that the view prescribes down to
//! what was executed; then missing or damaged prepares, lowest first. A few requests are on their
//! way at a time, each to a replica chosen by chance, so that repair never starves the normal path
//! and no silent replica holds it up. Any replica serves what it has verified. Not covered:
//! blocks of the grid ([`block_repair`](super::block_repair)), and replicas that are too far behind
//! ([`sync`](super::sync)).

use super::Destination;
use super::do_view_change::Suffix;
use super::journal::ReadPurpose;
use super::log_chain::LogChain;
use super::machine::StateMachine;
use super::replica::{Replica, Status};
use crate::protocol::peer::{HEADERS_MAX, body_headers, prepare_header, write_headers};
use crate::protocol::{Command, Message, PrepareHeader};
use crate::{mark, mutated};

/// Prepares asked for at a time.
const REQUESTS_MAX: usize = 8;
/// A prepare is asked for again after so long.
const REQUEST_NS: u64 = 100_000_000;
/// Headers, and the beginning of a view, are asked for again after so long.
const HEADERS_NS: u64 = 40_000_000;

#[derive(Clone, Copy, Debug)]
struct Request {
    op: u64,
    since_ns: u64,
}

/// What repair is doing.
#[derive(Debug, Default)]
pub struct Repair {
    /// Something may be missing.
    pub wanted: bool,
    /// The newest commit that others were told of in a heartbeat.
    pub commit_told: u64,
    /// It is time to look what is missing.
    look: bool,
    requests: [Option<Request>; REQUESTS_MAX],
    /// Oldest executed op whose prepare was found damaged; none if there is none.
    damaged: Option<u64>,
    /// Prepares that were found damaged when they were read.
    pub prepares_damaged: u64,
    /// When headers below the proven part were asked for last; zero when none are on their way.
    older_ns: u64,
    newer_ns: u64,
    start_view_ns: u64,
    /// The view whose beginning was asked for last.
    start_view: u32,
    /// Marks questions for the view's beginning that only an answer to them settles.
    nonce: u64,
}

impl Repair {
    /// Notes that a prepare has arrived.
    pub fn arrived(&mut self, op: u64) {
        for request in &mut self.requests {
            if request.is_some_and(|request| request.op == op) {
                *request = None;
                self.look = true;
            }
        }
    }

    /// Forgets what was asked for: the log is another.
    pub fn restart(&mut self) {
        self.requests = [None; REQUESTS_MAX];
        self.older_ns = 0;
        self.newer_ns = 0;
        self.wanted = true;
        self.look = true;
    }

    /// From now on only answers to questions of now count.
    ///
    /// # Panics
    ///
    /// If the mark is zero, which is none.
    pub fn set_nonce(&mut self, nonce: u64) {
        assert!(nonce != 0);
        self.nonce = nonce;
    }

    /// Whether a `StartView` with this mark answers a question of now.
    #[must_use]
    pub fn is_answer(&self, nonce: u64) -> bool {
        nonce != 0 && nonce == self.nonce
    }

    /// Whether prepares were found damaged and are not repaired yet.
    #[must_use]
    pub fn has_damaged(&self) -> bool {
        self.damaged.is_some()
    }

    /// Prepares that were asked for and have not come.
    #[must_use]
    pub fn requested(&self) -> usize {
        self.requests.iter().flatten().count()
    }

    fn is_requested(&self, op: u64) -> bool {
        self.requests.iter().flatten().any(|request| request.op == op)
    }
}

impl<M: StateMachine> Replica<M> {
    /// Takes a head that is not the next op: what lies between is fetched.
    pub(super) fn jump_to(&mut self, header: &PrepareHeader) {
        assert!(header.op > self.chain.head().op);
        self.chain = LogChain::new(header);
        self.repair.wanted = true;
        self.repair.look = true;
    }

    /// Whether the log in memory is what the view prescribes, so that it may be completed.
    pub(super) fn may_repair(&self) -> bool {
        let known = self.status == Status::Normal || self.is_repairing();
        known && !self.options.is_solo()
    }

    /// Goes on with repair; whether there was progress.
    pub(super) fn pump_repair(&mut self) -> bool {
        if !self.repair.wanted || !self.may_repair() {
            return false;
        }
        let linked = self.link_chain();
        if self.chain.op_min() > self.commit.op + 1 {
            self.request_older_headers();
            return linked;
        }
        if std::mem::take(&mut self.repair.look) {
            self.request_missing();
        }
        linked
    }

    /// Extends the proven part downwards with what is known here; whether it grew.
    pub(super) fn link_chain(&mut self) -> bool {
        let mut linked = false;
        while self.chain.op_min() > self.commit.op + 1 {
            let op = self.chain.op_min() - 1;
            let parent = self.chain.parent();
            let fits = |header: &&PrepareHeader| header.frame.checksum == parent;
            let known = self.journal.header(op).filter(fits);
            let known = known.or_else(|| self.journal.stored(op).filter(fits));
            let known = known.or_else(|| self.change.suffix.find(op).filter(fits)).copied();
            let Some(header) = known else { break };
            self.link(&header);
            linked = true;
        }
        if linked {
            self.acknowledge_all();
            self.repair.look = true;
        }
        linked
    }

    /// Adds a header below the proven part; whether it is the one.
    fn link(&mut self, header: &PrepareHeader) -> bool {
        let linked = self.chain.link(header);
        if linked {
            self.know_header(header);
        }
        linked
    }

    /// Keeps a header that is proven to belong to the log, if the log has room for its op.
    pub(super) fn know_header(&mut self, header: &PrepareHeader) {
        let op = header.op;
        if op <= self.checkpoint_op() || op > self.op_max() {
            return;
        }
        if self.journal.header(op).is_none_or(|known| known != header) {
            self.journal.set_header(header);
        }
    }

    /// A prepare of this log was found damaged: it is written again from memory, or fetched.
    /// Executed ones too, since a restart executes them again, unless a checkpoint covers them.
    pub(super) fn prepare_damaged(&mut self, op: u64, checksum: u128) {
        self.repair.prepares_damaged += 1;
        if op <= self.checkpoint_op() || mutated!("skip_log_scrub") {
            return;
        }
        let wanted = self.journal.header(op).map(|header| header.frame.checksum);
        let recent = self.recent.get(op, checksum).filter(|_| wanted == Some(checksum)).cloned();
        if let Some(message) = recent.filter(|_| self.journal.can_write(op)) {
            mark!("prepare_rewritten");
            let header = *message.prepare();
            return self.store(&header, message);
        }
        if self.options.is_solo() {
            // Nobody has another copy. The next checkpoint makes it unnecessary, or the device can
            // read it the next time.
            return self.journal.count_as_stored(op, checksum);
        }
        self.repair.damaged = Some(self.repair.damaged.map_or(op, |other| other.min(op)));
        self.repair.wanted = true;
        self.repair.look = true;
    }

    /// Asks for prepares that are not here, lowest first.
    fn request_missing(&mut self) {
        let last = self.chain.head().op.min(self.op_max());
        let mut missing = false;
        let first = self.repair.damaged.map_or(self.commit.op + 1, |op| op.min(self.commit.op + 1));
        for op in first.max(self.checkpoint_op() + 1)..=last {
            if op == self.chain.head().op {
                let head = *self.chain.head();
                self.know_header(&head);
            }
            let Some(header) = self.journal.header(op) else {
                if op <= self.commit.op {
                    continue;
                }
                // The log had no room for its header before the last checkpoint.
                mark!("chain_restarted");
                self.chain.restart();
                self.repair.look = true;
                return;
            };
            let checksum = header.frame.checksum;
            if self.journal.has(op, checksum) {
                continue;
            }
            missing = true;
            if self.journal.is_writing(op) || self.repair.is_requested(op) {
                continue;
            }
            if !self.request_prepare(op, checksum) {
                break;
            }
        }
        if !missing {
            self.repair.damaged = None;
        }
        self.repair.wanted = missing || self.chain.head().op > last;
    }

    /// Asks the next replica for a prepare; false if enough are on their way.
    fn request_prepare(&mut self, op: u64, checksum: u128) -> bool {
        let Some(place) = self.repair.requests.iter().position(Option::is_none) else {
            return false;
        };
        let Some(mut message) = self.control(Command::RequestPrepare) else { return false };
        mark!("prepare_requested");
        let peer = message.peer_mut();
        peer.op = op;
        peer.context = checksum;
        self.repair.requests[place] = Some(Request { op, since_ns: self.now.monotonic_ns });
        let replica = self.next_peer();
        self.send_control(replica, message);
        true
    }

    /// The replica to be asked next: one that seems to be there, if there is any.
    ///
    /// Chosen by chance: with turns, two kinds of requests that are repeated in step would each
    /// go to the same replica for ever, and that may be the one that can't help.
    pub(super) fn next_peer(&mut self) -> u8 {
        let voter = u8::from(!self.options.is_standby());
        let others = u64::from(self.options.replica_count - voter);
        let skipped = u8::try_from(self.timers.random() % others).expect("less than the count");
        self.peer_after(self.options.replica + skipped)
    }

    /// The first replica after this one that seems to be there, or the one next to it.
    pub(super) fn peer_after(&self, replica: u8) -> u8 {
        let count = self.options.replica_count;
        let mut chosen = None;
        for step in 1..=count {
            let peer = (replica % count + step) % count;
            if peer == self.options.replica {
                continue;
            }
            if !self.peers.is_lost(peer) {
                return peer;
            }
            chosen = chosen.or(Some(peer));
        }
        chosen.expect("who repairs is not alone")
    }

    fn request_older_headers(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let asked_ns = self.repair.older_ns;
        if asked_ns > 0 && now_ns.saturating_sub(asked_ns) < HEADERS_NS {
            return;
        }
        let last = self.chain.op_min() - 1;
        let first = (self.commit.op + 1).max((last + 1).saturating_sub(u64::from(HEADERS_MAX)));
        self.repair.older_ns = now_ns.max(1);
        let replica = self.next_peer();
        mark!("headers_requested");
        self.request_headers(replica, first, last);
    }

    /// Asks a replica that is in this view for headers after the head.
    pub(super) fn request_newer_headers(&mut self, replica: u8, newest: u64) {
        let now_ns = self.now.monotonic_ns;
        let asked_ns = self.repair.newer_ns;
        if asked_ns > 0 && now_ns.saturating_sub(asked_ns) < HEADERS_NS {
            return;
        }
        let head = self.chain.head().op;
        assert!(newest > head);
        self.repair.newer_ns = now_ns.max(1);
        self.request_headers(replica, head + 1, newest.min(head + u64::from(HEADERS_MAX)));
    }

    fn request_headers(&mut self, replica: u8, first: u64, last: u64) {
        assert!(first <= last);
        if let Some(mut message) = self.control(Command::RequestHeaders) {
            message.peer_mut().op_min = first;
            message.peer_mut().op = last;
            self.send_control(replica, message);
        }
    }

    /// Tells headers that certainly belong to the log, in the chain of this view or below it: what
    /// was executed here, and what links to the checkpoint. Farther down a slot may still have what
    /// was cut, if the checkpoint was taken over from others.
    pub(super) fn on_request_headers(&mut self, message: &Message) {
        let peer = *message.peer();
        let last = peer.op.min(self.chain.head().op);
        let first = peer.op_min.max((last + 1).saturating_sub(u64::from(HEADERS_MAX)));
        // Only who is in normal operation may tell what comes after a head.
        let view = if self.status == Status::Normal { self.view } else { 0 };
        let checkpoint = self.superblock.durable().checkpoint;
        let linked = self.journal.linked_down_to(&checkpoint, first);
        let known = |op: u64| {
            if op == checkpoint.op && op > 0 {
                return Some(&checkpoint);
            }
            let executed = (linked..=self.commit.op).contains(&op);
            self.journal.header(op).filter(|_| executed || self.chain.is_proven(op))
        };
        // Whoever asks needs the last one, to link it, or the first, which follows its head.
        let asked = [Some(peer.op), Some(peer.op_min).filter(|op| *op < peer.op)];
        let missing = asked.map(|op| op.filter(|op| *op > last || known(*op).is_none()));
        let headers = (first..=last).rev().filter_map(known);
        if headers.clone().next().is_some()
            && let Some(mut answer) = self.control(Command::Headers)
        {
            answer.peer_mut().frame.view = view;
            write_headers(&mut answer, None, headers);
            self.send_control(peer.frame.replica, answer);
        }
        for op in missing.into_iter().flatten() {
            self.refuse_op(peer.frame.replica, op);
        }
    }

    pub(super) fn on_headers(&mut self, message: &Message) {
        if !self.may_repair() {
            return;
        }
        let cluster = self.options.cluster;
        let same_view = message.peer().frame.view == self.view && self.view > 0;
        self.repair.older_ns = 0;
        for header in body_headers(message) {
            let Some(header) = prepare_header(header, cluster) else { return };
            self.link(header);
        }
        if same_view && self.status == Status::Normal && !self.is_primary_index() {
            for header in body_headers(message).iter().rev() {
                let Some(header) = prepare_header(header, cluster) else { return };
                if header.frame.view <= self.view && self.chain.follows(header) {
                    self.chain.append(header);
                    self.know_header(header);
                    self.repair.newer_ns = 0;
                    self.repair.wanted = true;
                }
            }
        }
        self.acknowledge_all();
        self.repair.look = true;
    }

    pub(super) fn on_request_prepare(&mut self, message: &Message) {
        let peer = *message.peer();
        let (op, checksum, to) = (peer.op, peer.context, peer.frame.replica);
        if let Some(prepare) = self.recent.get(op, checksum) {
            let prepare = prepare.clone();
            return self.send(Destination::Replica(to), prepare);
        }
        let purpose = ReadPurpose::Serve { to };
        if !self.journal.has(op, checksum) {
            if !self.journal.is_writing(op) {
                self.refuse_op(to, op);
            }
        } else if self.journal.can_read(purpose) {
            let Some(buffer) = self.pool.try_acquire() else { return };
            mark!("prepare_served_from_disk");
            self.journal.read(op, checksum, buffer, purpose, &mut self.outbox.storage);
        }
    }

    /// Asks the primary of a view what the view began with.
    pub(super) fn request_start_view(&mut self, view: u32) {
        let primary = self.options.primary_of(view);
        let now_ns = self.now.monotonic_ns;
        let asked_ns = self.repair.start_view_ns;
        // Questions about an older view do not hold up those about a newer one.
        let asked = view <= self.repair.start_view;
        let early = asked && asked_ns > 0 && now_ns.saturating_sub(asked_ns) < HEADERS_NS;
        if early || primary == self.options.replica {
            return;
        }
        if let Some(mut message) = self.control(Command::RequestStartView) {
            self.repair.start_view_ns = now_ns.max(1);
            self.repair.start_view = view;
            message.peer_mut().frame.view = view;
            message.peer_mut().nonce = self.repair.nonce;
            self.send_control(primary, message);
        }
    }

    /// Asks again for what did not come.
    pub(super) fn repair_tick(&mut self) {
        let before_ns = self.now.monotonic_ns.saturating_sub(REQUEST_NS);
        for request in &mut self.repair.requests {
            if request.is_some_and(|request| request.since_ns < before_ns) {
                mark!("repair_timed_out");
                *request = None;
            }
        }
        self.repair.look = self.repair.wanted;
    }

    /// The end of the log as `log_view` has it: what may be uncommitted, and one op more. What is
    /// missing from it was never seen here.
    pub(super) fn log_suffix(&self) -> Suffix {
        let head = self.chain.head();
        let mut suffix = Suffix::new(head);
        for op in (self.suffix_min(head.op)..head.op).rev() {
            if let Some(header) = self.canonical_header(op, suffix.lowest()) {
                suffix.push(header);
            }
        }
        suffix
    }

    /// The oldest op that the suffix of a log with this head tells of: all before are committed.
    pub(super) fn suffix_min(&self, head: u64) -> u64 {
        head.saturating_sub(u64::from(self.options.config.pipeline_max))
    }

    /// The header of this op if it certainly is that of the log of `log_view`: it is that of the
    /// checkpoint, it was executed from here, it is proven, it is the parent of `child`, the view
    /// began with it, or the primary of
    /// the view sent it since.
    fn canonical_header(&self, op: u64, child: &PrepareHeader) -> Option<&PrepareHeader> {
        let checkpoint = &self.superblock.durable().checkpoint;
        if op == checkpoint.op {
            return Some(checkpoint);
        }
        let known = self.journal.header(op);
        let executed = op > checkpoint.op && op <= self.commit.op;
        let parent =
            |header: &&PrepareHeader| op + 1 == child.op && header.frame.checksum == child.parent;
        if known.is_some() && (executed || self.chain.is_proven(op))
            || known.as_ref().is_some_and(parent)
        {
            return known;
        }
        let begun = &self.change.suffix;
        if op <= begun.head().op {
            return begun.find(op);
        }
        known.filter(|header| header.frame.view == self.log_view)
    }
}
