//! View changes: from a silent primary to the next.
//!
//! Votes ([`votes`](super::votes)) of a quorum to leave the view; then each replica writes down
//! that it has left and reports its log to the new primary, which chooses
//! ([`do_view_change`](super::do_view_change)), fetches what it lacks, writes down that the view
//! begins and tells the others (`StartView`). Nobody acts on a view before it is durable in its
//! superblock. See Viewstamped Replication Revisited, section 4.2.

use super::do_view_change::{ChosenLog, LogReport, Suffix, choose};
use super::log_chain::LogChain;
use super::machine::StateMachine;
use super::replica::{Audience, Replica, Status};
use super::superblock::{ASKING_FOR_VIEWS, FOLLOWING, VIEW_HEADERS_MAX};
use super::votes::Votes;
use crate::protocol::peer::write_headers;
use crate::protocol::{Command, Message, PrepareHeader, REPLICAS_MAX, to_index, to_size};
use crate::{mark, mutated};

/// What a view change is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none.
    Idle,
    /// Reporting, and on the new primary collecting reports.
    Collect,
    /// The new primary fetches what its log lacks.
    Repair,
    /// The view is known and is being written down.
    Start,
}

/// The view change in progress.
#[derive(Debug)]
pub struct ViewChange {
    stage: Stage,
    votes: Votes,
    /// The view that this replica votes for.
    vote: Option<u32>,
    /// Of each replica, what it reported for this view.
    reports: Vec<Option<LogReport>>,
    /// Whether the report went out, or in, once.
    reported: bool,
    /// The end of the log as `log_view` had it: part of the superblock.
    pub suffix: Suffix,
}

impl ViewChange {
    /// None in progress.
    #[must_use]
    pub fn new(root: &PrepareHeader) -> ViewChange {
        ViewChange {
            stage: Stage::Idle,
            votes: Votes::default(),
            vote: None,
            reports: vec![None; usize::from(REPLICAS_MAX)],
            reported: false,
            suffix: Suffix::new(root),
        }
    }
}

impl<M: StateMachine> Replica<M> {
    /// Whether this replica takes part in choosing logs.
    fn may_vote(&self) -> bool {
        let known = matches!(self.status, Status::Normal | Status::ViewChange);
        known && !self.options.is_standby() && !self.options.is_solo()
    }

    /// Votes to leave for `view`, or for a later one whose primary seems to be there.
    pub(super) fn vote_for(&mut self, view: u32) {
        let mut later = view..view + u32::from(self.options.replica_count);
        let chosen = later.find(|view| self.may_lead(self.options.primary_of(*view)));
        self.vote(view, chosen.unwrap_or(view));
    }

    /// Lets time pass while another replica waits for a later view, or does so no longer.
    pub(super) fn help_recover(&mut self) {
        if self.status != Status::Normal {
            return;
        }
        if !self.is_view_awaited() {
            // Backups take their votes back when they hear the primary.
            if self.is_primary_index() {
                self.withdraw_vote();
            }
        } else if self.change.vote.is_none() {
            self.vote_ahead();
        }
    }

    /// Votes to leave for a view so far ahead as votes go: that of the same primary, if that can.
    fn vote_ahead(&mut self) {
        let last = self.view + u32::from(self.options.replica_count);
        let mut views = (self.view + 1..=last).rev();
        let chosen = views.find(|view| self.may_lead(self.options.primary_of(*view)));
        let chosen = chosen.unwrap_or(last);
        mark!("view_change_for_recovery");
        self.vote(chosen, chosen);
    }

    /// Votes for a view, unless it does so already for `least` or a later one.
    fn vote(&mut self, least: u32, chosen: u32) {
        if !self.may_vote() || self.change.vote.is_some_and(|vote| vote >= least) {
            return;
        }
        // A quorum that counts on who cannot report would leave a view for one that can't begin.
        if self.is_recovering() {
            return;
        }
        // A vote goes little farther than what its replica has written down: whoever recovers
        // concludes from that which views there can have been.
        if self.status == Status::ViewChange && !self.may_act_on_view() {
            return;
        }
        let ahead = chosen - self.superblock.durable().view.min(chosen);
        assert!(ahead <= u32::from(self.options.replica_count) || mutated!("forget_log_view"));
        mark!("view_change_vote");
        self.change.vote = Some(chosen);
        self.repeat_vote();
        self.count_votes();
    }

    /// Whether a replica seems to be there and able to take over: its log has room for the head.
    fn may_lead(&self, replica: u8) -> bool {
        let own = replica == self.options.replica;
        let checkpoint = if own { self.checkpoint_op() } else { self.peers.checkpoint_op(replica) };
        let slots = u64::from(self.options.config.journal_slots);
        let follows = checkpoint + slots >= self.chain.head().op;
        follows && (own || !self.peers.is_lost(replica) && !self.awaits_view(replica))
    }

    /// Takes the vote back: the primary is there.
    pub(super) fn withdraw_vote(&mut self) {
        if self.change.vote.take().is_some() {
            self.change.votes.withdraw(self.options.replica);
        }
    }

    /// Notes evidence that another replica is gone.
    pub(super) fn suspect_primary(&mut self, replica: u8) {
        if replica == self.options.primary_of(self.view) {
            self.vote_for(self.view + 1);
        }
    }

    /// Sends the vote, if there is one.
    pub(super) fn repeat_vote(&mut self) {
        if !self.may_vote() || self.is_recovering() {
            return;
        }
        let Some(view) = self.change.vote else { return };
        let own = self.options.replica;
        self.change.votes.record(own, view, self.now.monotonic_ns);
        let Some(mut message) = self.control(Command::StartViewChange) else { return };
        let durable = self.superblock.durable().view;
        let peer = message.peer_mut();
        peer.frame.view = view;
        peer.entered = u8::from(self.status == Status::ViewChange && durable == view);
        self.broadcast(message, Audience::Voters);
    }

    pub(super) fn on_start_view_change(&mut self, message: &Message) {
        let peer = *message.peer();
        if peer.frame.replica >= self.options.replica_count || !self.may_vote() {
            return;
        }
        if peer.entered == 1 {
            self.join_view_change(peer.frame.view);
        }
        self.change.votes.record(peer.frame.replica, peer.frame.view, self.now.monotonic_ns);
        self.count_votes();
    }

    fn count_votes(&mut self) {
        let quorum = self.quorums.view_change;
        let elected = self.change.votes.elected(self.view, quorum, self.now.monotonic_ns);
        if let Some(view) = elected {
            self.enter_view_change(view);
        }
    }

    /// Follows a replica that has left for `view`: a quorum once voted for it.
    pub(super) fn join_view_change(&mut self, view: u32) {
        if self.may_vote() && view > self.view {
            mark!("view_change_joined");
            self.enter_view_change(view);
        }
    }

    /// Leaves the view for a later one.
    pub(super) fn enter_view_change(&mut self, view: u32) {
        assert!(view > self.view);
        if self.log_view == self.view {
            // From here on the log is reported as it is now, whatever repair does to it.
            self.change.suffix = self.log_suffix();
        }
        self.view = view;
        self.begin_view_change();
    }

    /// Starts to report for the view this replica is in, and to collect.
    pub(super) fn begin_view_change(&mut self) {
        assert!(self.log_view < self.view);
        self.status = Status::ViewChange;
        self.change.stage = Stage::Collect;
        self.change.reported = false;
        self.change.vote = Some(self.view);
        self.change.reports.fill(None);
        self.release_pipeline();
        self.timers.change_began(self.now.monotonic_ns);
        self.laps.change_ns.get_or_insert(self.now.monotonic_ns);
        self.repeat_vote();
    }

    /// Whether the superblock says in which view this replica is, and goes on to say so: a replica
    /// that recovers may be in the view that it wrote down before it started again, while it writes
    /// that it has yet to begin one.
    fn is_view_durable(&self) -> bool {
        [self.superblock.durable(), self.superblock.newest()]
            .into_iter()
            .all(|superblock| superblock.view == self.view && superblock.log_view == self.log_view)
    }

    /// Nobody acts on a view before it is durable.
    fn may_act_on_view(&self) -> bool {
        self.is_view_durable() || mutated!("forget_log_view")
    }

    /// Goes on with a view change; whether there was progress.
    pub(super) fn pump_view(&mut self) -> bool {
        if self.change.stage == Stage::Idle {
            return false;
        }
        if !self.may_act_on_view() {
            if self.superblock.is_idle() {
                self.record_view();
            }
            return false;
        }
        match self.change.stage {
            Stage::Collect if !self.change.reported => {
                self.send_report();
                true
            }
            Stage::Repair if self.is_log_complete() => {
                // What this replica had before in the place of chosen ops is over.
                self.change.suffix = Suffix::new(self.chain.head());
                self.change.suffix = self.log_suffix();
                self.log_view = self.view;
                self.change.stage = Stage::Start;
                true
            }
            Stage::Start => {
                self.begin_view();
                true
            }
            Stage::Idle | Stage::Collect | Stage::Repair => false,
        }
    }

    fn record_view(&mut self) {
        let (view, log_view) = (self.view, self.log_view);
        let headers = self.change.suffix.headers();
        self.superblock.update(&mut self.outbox.storage, |superblock| {
            superblock.view = view;
            superblock.log_view = log_view;
            if superblock.recovering == ASKING_FOR_VIEWS {
                superblock.recovering = FOLLOWING;
            }
            superblock.view_headers_count = to_size(headers.len());
            superblock.view_headers.fill(zerocopy::FromZeros::new_zeroed());
            superblock.view_headers[..headers.len()].copy_from_slice(headers);
        });
    }

    /// Reports the log to the primary of the view, which may be this replica.
    pub(super) fn send_report(&mut self) {
        if self.change.stage != Stage::Collect || !self.may_act_on_view() {
            return;
        }
        self.change.reported = true;
        if self.is_recovering() {
            // It has forgotten what it must report. The view may have begun without it.
            mark!("recovering_does_not_report");
            return self.request_start_view(self.view);
        }
        let report = self.log_report();
        let primary = self.options.primary_of(self.view);
        if primary == self.options.replica {
            self.change.reports[usize::from(primary)] = Some(report);
            return self.choose_log();
        }
        let Some(mut message) = self.control(Command::DoViewChange) else { return };
        let head = report.suffix.head();
        let peer = message.peer_mut();
        peer.op = head.op;
        peer.context = head.frame.checksum;
        peer.commit = report.commit;
        peer.log_view = report.log_view;
        peer.present = report.present;
        peer.nack = report.nack;
        peer.checkpoint_op = self.superblock.durable().checkpoint.op;
        write_headers(&mut message, None, report.suffix.headers().iter());
        self.send_control(primary, message);
    }

    /// What this replica can say of its log as `log_view` had it.
    fn log_report(&self) -> LogReport {
        let suffix = self.suffix_found();
        let (mut present, mut nack) = (0, 0);
        let head = suffix.head().op;
        for op in self.suffix_min(head)..=head {
            let bit = 1 << (head - op);
            match suffix.find(op).map(|header| header.frame.checksum) {
                Some(checksum) if self.journal.has(op, checksum) => present |= bit,
                Some(checksum) if self.journal.may_nack(op, checksum) => nack |= bit,
                // Never seen in that view, unless damage hides it, or an older view had it, too.
                None if self.is_gap(op, &suffix) => nack |= bit,
                Some(_) | None if mutated!("nack_damaged") => nack |= bit,
                Some(_) | None => mark!("damage_not_nacked"),
            }
        }
        LogReport { log_view: self.log_view, commit: self.commit_max, suffix, present, nack }
    }

    /// Whether the op that `log_view` had in this gap of its log certainly never was here. What is
    /// here of an older view is another one if it is not the parent of the next op, or if the log
    /// was of a later view already.
    fn is_gap(&self, op: u64, suffix: &Suffix) -> bool {
        let child = suffix.find(op + 1);
        let hidden = child
            .map_or(self.journal.is_faulty(op), |child| self.journal.may_hide(op, child.parent));
        if hidden {
            return false;
        }
        let Some(stored) = self.journal.stored(op) else { return true };
        let overtaken = suffix
            .headers()
            .iter()
            .any(|header| header.op < op && header.frame.view > stored.frame.view);
        child.is_some() || overtaken
    }

    /// The end of the log as `log_view` had it, with what was not known of it then: damage may
    /// have hidden an op that a view which did not begin has repaired since, and a view may begin
    /// with less than is here. An op that was prepared in `log_view` is the only one of its number
    /// there, and so is the parent of the next; up to the checkpoint all is committed, and may be
    /// of later views if the checkpoint is not from here.
    fn suffix_found(&self) -> Suffix {
        let known = &self.change.suffix;
        let head = known.head();
        let mut suffix = Suffix::new(head);
        let checkpoint = self.superblock.durable().checkpoint;
        for op in (self.suffix_min(head.op)..head.op).rev() {
            let lowest = suffix.lowest();
            let stored = self.journal.stored(op).filter(|header| {
                let own = header.frame.view == self.log_view;
                let parent = op + 1 == lowest.op && header.frame.checksum == lowest.parent;
                own && op > checkpoint.op || parent
            });
            if let Some(header) = known.find(op).or(stored) {
                let fits = suffix.push(header);
                assert!(fits, "ops of one view follow each other");
            } else if op == checkpoint.op {
                // Its slot has nothing of it if the checkpoint was taken over from others. A log
                // that continues it otherwise has come to nothing.
                let _ = suffix.push(&checkpoint);
            }
        }
        suffix
    }

    pub(super) fn on_do_view_change(&mut self, message: &Message) {
        let peer = *message.peer();
        if peer.frame.replica >= self.options.replica_count {
            return;
        }
        self.join_view_change(peer.frame.view);
        if peer.frame.view != self.view || !self.is_primary_index() {
            return;
        }
        if self.is_primary() {
            // The sender has missed the beginning of the view.
            return self.send_start_view(Some(peer.frame.replica), 0);
        }
        if self.status != Status::ViewChange || self.change.stage != Stage::Collect {
            return;
        }
        if let Some(report) = LogReport::of(message, self.options.cluster) {
            self.change.reports[usize::from(peer.frame.replica)] = Some(report);
            self.choose_log();
        }
    }

    /// On the new primary: takes the log that the reports decide on, if they do.
    fn choose_log(&mut self) {
        assert!(self.change.stage == Stage::Collect && self.is_primary_index());
        if self.change.reports[usize::from(self.options.replica)].is_none() {
            return;
        }
        let Some(ChosenLog { suffix, commit }) = choose(&self.change.reports, &self.quorums) else {
            return;
        };
        if suffix.head().op > self.op_max() {
            // Others have a newer checkpoint, and its log does not fit on top of the one here.
            mark!("view_change_forfeits");
            return self.vote_for(self.view + 1);
        }
        self.take_log(&suffix, commit);
        self.change.stage = Stage::Repair;
    }

    /// Replaces the end of the log by what the view prescribes.
    fn take_log(&mut self, suffix: &Suffix, commit: u64) {
        let head = suffix.head();
        assert!(head.op >= self.commit.op, "what is committed is in every later log");
        self.journal.remove_after(head.op);
        self.recent.remove_after(head.op);
        self.chain = LogChain::new(head);
        for header in suffix.headers() {
            self.know_header(header);
        }
        self.learn_commit(commit.max(head.commit));
        self.repair.restart();
    }

    /// For tests: ops of the log as it would be reported, head first, with the views they are of.
    #[cfg(test)]
    pub(super) fn reported_log(&self) -> Vec<(u64, u32)> {
        let normal = self.log_view == self.view;
        let suffix = if normal { self.log_suffix() } else { self.change.suffix.clone() };
        suffix.headers().iter().map(|header| (header.op, header.frame.view)).collect()
    }

    /// Whether the new primary is fetching what its log lacks.
    pub(super) fn is_repairing(&self) -> bool {
        self.status == Status::ViewChange && self.change.stage == Stage::Repair
    }

    /// Whether every op that was not executed yet is here, durable and proven.
    fn is_log_complete(&self) -> bool {
        let first = self.commit.op + 1;
        let head = self.chain.head().op;
        (self.chain.op_min() <= first || head < first)
            && (first..=head).all(|op| {
                let header = self.journal.header(op);
                header.is_some_and(|header| self.journal.has(op, header.frame.checksum))
            })
    }

    /// Takes part in the view, which is durable here.
    fn begin_view(&mut self) {
        assert!(self.log_view == self.view);
        let head = *self.chain.head();
        self.status = Status::Normal;
        self.change.stage = Stage::Idle;
        self.change.vote = None;
        self.change.votes = Votes::default();
        self.view_op = head.op;
        self.journal.settle_after(head.op, self.op_max());
        self.repair.restart();
        self.timers.view_began(self.now.monotonic_ns);
        if let Some(since_ns) = self.laps.change_ns.take() {
            self.lap(super::laps::Stage::ViewChange, since_ns);
        }
        if self.is_primary_index() && !self.options.is_standby() {
            mark!("view_began_as_primary");
            self.clock.newest = self.clock.newest.max(head.timestamp);
            for op in self.commit_max + 1..=head.op {
                let header = self.journal.header(op).expect("the log is complete");
                self.pipeline.inherit(header);
            }
            self.send_start_view(None, 0);
            self.acknowledge_all();
            self.send_commit();
        } else {
            self.acknowledge_all();
            let primary = self.options.primary_of(self.view);
            self.request_newer_headers(primary, head.op + 1);
            if !self.options.is_standby() {
                self.forward_before(u64::MAX);
            }
        }
    }

    /// On the primary: tells one replica, or all, how the view's log is now.
    fn send_start_view(&mut self, to: Option<u8>, nonce: u64) {
        assert!(self.is_primary());
        let Some(mut message) = self.control(Command::StartView) else { return };
        let checkpoint = self.checkpoint_state();
        let suffix = self.log_suffix();
        let peer = message.peer_mut();
        peer.op = suffix.head().op;
        peer.context = suffix.head().frame.checksum;
        peer.commit = self.commit_max;
        peer.nonce = nonce;
        peer.checkpoint_op = checkpoint.header.op;
        write_headers(&mut message, Some(&checkpoint), suffix.headers().iter());
        match to {
            Some(replica) => self.send_control(replica, message),
            None => self.broadcast(message, Audience::All),
        }
    }

    pub(super) fn on_request_start_view(&mut self, message: &Message) {
        let peer = message.peer();
        let (view, replica, nonce) = (peer.frame.view, peer.frame.replica, peer.nonce);
        if self.is_primary() && view == self.view {
            self.send_start_view(Some(replica), nonce);
        }
    }

    pub(super) fn on_start_view(&mut self, message: &Message) {
        let peer = *message.peer();
        let view = peer.frame.view;
        if view < self.view || self.options.primary_of(view) != peer.frame.replica {
            return;
        }
        if self.is_asking_for_views() {
            return;
        }
        self.consider_checkpoint(message);
        // Known already: the log has grown since, or is on its way to the superblock. Who lost its
        // head needs it again; but only as it is now: of what it acknowledged before it lost it, a
        // message from then may know nothing.
        let lost = self.status == Status::RecoveringHead && self.repair.is_answer(peer.nonce);
        if view == self.log_view && !lost {
            return;
        }
        let Some(suffix) = Suffix::of(message, self.options.cluster) else { return };
        let head = suffix.head();
        let whole = head.op == peer.op && head.frame.checksum == peer.context;
        if !whole || head.op < self.commit.op || peer.commit > head.op {
            return;
        }
        if self.status == Status::RecoveringHead {
            mark!("head_recovered");
        }
        self.release_pipeline();
        self.status = Status::ViewChange;
        self.view = view;
        self.log_view = view;
        self.take_log(&suffix, peer.commit);
        self.change.suffix = suffix;
        self.change.stage = Stage::Start;
        self.change.vote = None;
        self.timers.change_began(self.now.monotonic_ns);
        self.laps.change_ns.get_or_insert(self.now.monotonic_ns);
    }

    /// The suffix that the superblock holds, if there is one.
    pub(super) fn recorded_suffix(&self) -> Option<Suffix> {
        let durable = self.superblock.durable();
        let count = to_index(durable.view_headers_count.min(VIEW_HEADERS_MAX));
        let (head, rest) = durable.view_headers[..count].split_first()?;
        let mut suffix = Suffix::new(head);
        for header in rest {
            suffix.push(header);
        }
        Some(suffix)
    }
}
