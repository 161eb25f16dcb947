//! Normal operation: prepares to all, acknowledgements back, commits told.
//!
//! The primary sends each prepare to every replica itself (a star) while it writes its own log. A
//! replica acknowledges once the prepare is durable in its log; at a quorum the op is committed.
//! Backups learn of commits from later prepares and heartbeats. Standbys are fed by backups. See
//! Viewstamped Replication Revisited, section 4.1. Not covered: what to do about gaps, which is in
//! [`repair`](super::repair).

use super::clock::Now;
use super::fatal::Fatal;
use super::laps::Stage;
use super::machine::StateMachine;
use super::replica::{Audience, Replica, Status};
use super::{ConnectionId, Destination};
use crate::protocol::{Command, Message, NODES_MAX, PeerHeader, PrepareHeader, Requests};
use crate::{mark, mutated};

impl<M: StateMachine> Replica<M> {
    /// Whether this replica may prepare requests now.
    pub(super) fn may_prepare(&self) -> bool {
        self.is_serving() && self.cluster_now().is_some()
    }

    /// The time as the cluster agrees on it.
    pub(super) fn cluster_now(&self) -> Option<Now> {
        if mutated!("trust_one_clock") {
            return Some(self.now);
        }
        let realtime_ns = self.cluster_clock.realtime(self.now)?;
        Some(Now { realtime_ns, ..self.now })
    }

    /// On the primary: sends a new prepare to all who must have it.
    pub(super) fn replicate(&mut self, message: &Message) {
        assert!(self.is_primary());
        for replica in 0..self.options.replica_count {
            if replica != self.options.replica {
                self.send(Destination::Replica(replica), message.clone());
            }
        }
        self.feed_standbys(message);
    }

    /// Gives a prepare to the standbys that this replica feeds.
    fn feed_standbys(&mut self, message: &Message) {
        let count = self.options.replica_count;
        let primary = self.options.primary_of(self.view);
        for standby in count..self.options.nodes() {
            let feeder = if count == 1 { 0 } else { (primary + 1 + standby % (count - 1)) % count };
            if feeder == self.options.replica {
                self.send(Destination::Replica(standby), message.clone());
            }
        }
    }

    /// On the primary: sends prepares again that were last sent before `before_ns` and still lack
    /// a quorum.
    pub(super) fn resend_prepares(&mut self, before_ns: u64) {
        let (count, own) = (self.options.replica_count, self.options.replica);
        let now_ns = self.now.monotonic_ns;
        for prepared in self.pipeline.prepared_mut() {
            if prepared.op <= self.commit_max || prepared.sent_ns > before_ns {
                continue;
            }
            let Some(message) = self.recent.get(prepared.op, prepared.checksum) else { continue };
            mark!("prepare_resent");
            prepared.sent_ns = now_ns;
            for replica in (0..count).filter(|replica| *replica != own) {
                let room = self.outbox.sends.room() > usize::from(NODES_MAX);
                if room && !prepared.is_acked(replica) {
                    self.outbox.sends.push((Destination::Replica(replica), message.clone()));
                }
            }
        }
    }

    /// Takes a prepare, from the primary or from whoever was asked for it.
    pub(super) fn on_prepare(&mut self, connection: ConnectionId, message: Message) {
        let header = *message.prepare();
        if header.header().invalid().is_some() || header.op == 0 {
            return;
        }
        if header.frame.size > self.options.config.message_size_max {
            return;
        }
        let wanted = self.journal.header(header.op);
        if wanted.is_some_and(|wanted| wanted.frame.checksum == header.frame.checksum) {
            return self.take_wanted(connection, &header, message);
        }
        let from_primary = header.frame.view == self.view
            && header.frame.replica == self.options.primary_of(self.view);
        if self.status != Status::Normal || !from_primary || self.is_primary_index() {
            if self.status == Status::Normal && header.frame.view > self.view {
                self.request_start_view(header.frame.view);
            }
            return;
        }
        self.hear_prepare(connection);
        self.learn_commit(header.commit);
        if header.op <= self.chain.head().op {
            return;
        }
        if self.chain.follows(&header) {
            self.chain.append(&header);
        } else if header.op > self.chain.head().op + 1 {
            mark!("prepare_gap");
            self.jump_to(&header);
        } else {
            return;
        }
        if header.op <= self.op_max() {
            self.store(&header, message);
        } else {
            // Not even its header is kept: after the next checkpoint repair asks for both.
            mark!("prepare_beyond_log");
            self.repair.wanted = true;
        }
    }

    /// Takes a prepare of which the log knows the header.
    fn take_wanted(&mut self, connection: ConnectionId, header: &PrepareHeader, message: Message) {
        let (op, checksum) = (header.op, header.frame.checksum);
        let current = header.frame.view == self.view && self.status == Status::Normal;
        if current && !self.is_primary_index() {
            self.hear_prepare(connection);
            self.learn_commit(header.commit);
        }
        if self.journal.has(op, checksum) {
            self.repair.arrived(op);
            // The primary sends it again: the acknowledgement was lost.
            self.acknowledge(op, checksum);
        } else if op <= self.op_max() && (self.chain.is_proven(op) || !self.journal.is_untold(op)) {
            // One of two prepares is there, and may be the one that the log has.
            self.store(header, message);
        }
    }

    /// Writes a prepare to the log and keeps it at hand, unless too many are being written.
    pub(super) fn store(&mut self, header: &PrepareHeader, mut message: Message) {
        assert!(header.op <= self.op_max());
        if !message.valid_checksum_body() || Requests::of(&message).is_err() {
            return;
        }
        if !self.journal.can_write(header.op) {
            // Only its header is taken: repair asks for it again.
            mark!("write_postponed");
            self.journal.set_header(header);
            self.repair.wanted = true;
            return;
        }
        // Not before: what cannot be written yet would be asked for again at once, and again.
        self.repair.arrived(header.op);
        self.laps.write_began(header.op, self.now.monotonic_ns);
        self.journal.write(&mut message, &mut self.outbox.storage);
        self.recent.put(&message);
        if mutated!("ack_before_durable") {
            self.acknowledge_unchecked(header.op, header.frame.checksum);
        }
        if let Ok(requests) = Requests::of(&message) {
            for request in requests {
                self.held.prepared(request.client, request.request_checksum);
            }
        }
        if self.status == Status::Normal && header.frame.view == self.view {
            self.feed_standbys(&message);
        }
    }

    /// Notes that the primary lives.
    pub(super) fn hear_primary(&mut self) {
        assert!(self.status == Status::Normal);
        self.timers.primary_heard(self.now.monotonic_ns);
        if !self.is_view_awaited() {
            self.withdraw_vote();
        }
    }

    /// Notes that the primary lives, if a prepare of its came from itself: others send them, too.
    fn hear_prepare(&mut self, connection: ConnectionId) {
        if self.peers.find(connection) == Some(self.options.primary_of(self.view)) {
            self.hear_primary();
        }
    }

    /// Notes that ops up to `commit` are committed; what this view says counts.
    pub(super) fn learn_commit(&mut self, commit: u64) {
        self.commit_max = self.commit_max.max(commit);
    }

    /// Acknowledges a prepare that is durable here, if this view wants to know.
    pub(super) fn acknowledge(&mut self, op: u64, checksum: u128) {
        let known = self.journal.header(op);
        let wanted = known.is_some_and(|known| known.frame.checksum == checksum);
        if !wanted || !self.chain.is_proven(op) || !self.journal.has(op, checksum) {
            return;
        }
        // An op beyond this is committed only when a quorum has the checkpoint that it frees the
        // blocks of.
        if op > self.acknowledge_max() && !mutated!("ack_beyond_checkpoint") {
            if self.is_syncing() {
                mark!("ack_waits_for_sync");
            } else {
                mark!("ack_waits_for_checkpoint");
            }
            return;
        }
        if self.journal.is_untold(op) {
            // It is acknowledged when its own header is there.
            return self.tell_header(op);
        }
        self.acknowledge_unchecked(op, checksum);
    }

    /// Writes the header of a prepare that is proven to be of this view's log, if this view has
    /// begun here: what the header tells of until now is not.
    pub(super) fn tell_header(&mut self, op: u64) {
        assert!(self.chain.is_proven(op));
        if self.status == Status::Normal && self.journal.can_write(op) {
            mark!("header_rewritten");
            self.journal.write_header(op, &mut self.outbox.storage);
        }
    }

    fn acknowledge_unchecked(&mut self, op: u64, checksum: u128) {
        if self.status != Status::Normal || self.options.is_standby() || self.is_recovering() {
            return;
        }
        if self.is_primary_index() {
            self.pipeline.acknowledge(op, checksum, self.options.replica);
            return self.advance_commit();
        }
        let Some(mut message) = self.control(Command::PrepareOk) else { return };
        let durable = self.superblock.durable();
        let peer = message.peer_mut();
        peer.op = op;
        peer.context = checksum;
        peer.commit = self.commit.op;
        peer.checkpoint_op = durable.checkpoint.op;
        peer.checkpoint_id = durable.checkpoint_id();
        self.send_control(self.options.primary_of(self.view), message);
    }

    /// Highest op that may be acknowledged on top of the durable checkpoint.
    fn acknowledge_max(&self) -> u64 {
        let config = &self.options.config;
        let checkpoint = self.checkpoint_counted();
        checkpoint + u64::from(config.checkpoint_interval) + u64::from(config.release_delay) - 1
    }

    /// Acknowledges everything that this view may not know to be durable here.
    pub(super) fn acknowledge_all(&mut self) {
        if self.status != Status::Normal {
            return;
        }
        let first = (self.commit_max + 1).max(self.chain.op_min());
        for op in first..=self.chain.head().op {
            let checksum = self.journal.header(op).map(|header| header.frame.checksum);
            if let Some(checksum) = checksum {
                self.acknowledge(op, checksum);
            }
        }
    }

    pub(super) fn on_prepare_ok(&mut self, message: &Message) {
        let peer = message.peer();
        let replica = peer.frame.replica;
        self.compare_checkpoints(replica, peer.checkpoint_op, peer.checkpoint_id);
        let ours = peer.frame.view == self.view && self.is_primary();
        if !ours || replica >= self.options.replica_count {
            return;
        }
        self.peers.has_op(replica, peer.op);
        self.pipeline.acknowledge(peer.op, peer.context, replica);
        self.advance_commit();
    }

    /// Two replicas with the same checkpoint's op must have the same checkpoint.
    pub(super) fn compare_checkpoints(&mut self, replica: u8, op: u64, other: u128) {
        self.peers.checkpoint(replica, op);
        let durable = self.superblock.durable();
        let own = durable.checkpoint_id();
        if op > 0 && durable.checkpoint.op == op && own != other {
            self.stop(Fatal::CheckpointDiverged { op, replica, own, other });
        }
    }

    /// Commits what a quorum has, in order.
    fn advance_commit(&mut self) {
        assert!(self.is_primary());
        let mut quorum = u32::from(self.quorums.replication);
        if mutated!("commit_without_quorum") {
            quorum = 1;
        }
        for prepared in self.pipeline.prepared() {
            if prepared.op <= self.commit_max {
                continue;
            }
            if prepared.op != self.commit_max + 1 || prepared.acks_count() < quorum {
                break;
            }
            self.commit_max = prepared.op;
            if prepared.made_ns > 0 {
                let now_ns = self.now.monotonic_ns;
                self.laps.end_at(Stage::Commit, prepared.made_ns, now_ns);
            }
        }
    }

    /// On the primary: tells others of commits at once when no prepare will.
    pub(super) fn send_commit_if_idle(&mut self) {
        if !self.is_primary() || self.is_alone() || self.repair.commit_told >= self.commit_max {
            return;
        }
        let on_its_way = self.pipeline.prepared().any(|prepared| prepared.op > self.commit_max);
        if !on_its_way {
            self.send_commit();
        }
    }

    /// On the primary: a heartbeat.
    pub(super) fn send_commit(&mut self) {
        assert!(self.is_primary());
        if self.is_alone() {
            return;
        }
        let Some(mut message) = self.control(Command::Commit) else { return };
        self.repair.commit_told = self.commit_max;
        let head = self.chain.head();
        let peer = message.peer_mut();
        peer.op = head.op;
        peer.context = head.frame.checksum;
        peer.commit = self.commit_max;
        self.broadcast(message, Audience::All);
    }

    pub(super) fn on_commit(&mut self, message: &Message) {
        let peer = *message.peer();
        if peer.frame.view > self.view {
            return self.request_start_view(peer.frame.view);
        }
        let primary = self.options.primary_of(self.view);
        let ours = peer.frame.view == self.view && peer.frame.replica == primary;
        if !ours || self.status != Status::Normal || self.is_primary_index() {
            return;
        }
        self.hear_primary();
        self.learn_commit(peer.commit);
        self.peers.has_op(primary, peer.op);
        let head = self.chain.head().op;
        if peer.op > head {
            self.request_newer_headers(primary, peer.op);
        }
        if peer.commit < head {
            // An acknowledgement may have been lost, and a primary that has inherited the op need
            // not have it at hand to send it again.
            self.acknowledge_all();
        }
    }

    /// Answers a ping, and learns from it where the sender is.
    pub(super) fn on_ping(&mut self, message: &Message) {
        let peer = *message.peer();
        let replica = peer.frame.replica;
        self.compare_checkpoints(replica, peer.checkpoint_op, peer.checkpoint_id);
        self.peers.has_op(replica, peer.op);
        self.peers.runs(replica, peer.program);
        if let Some(mut answer) = self.control(Command::Pong) {
            let header = answer.peer_mut();
            header.frame.view = self.superblock.durable().view;
            header.monotonic_ns = peer.monotonic_ns;
            header.realtime_ns = self.now.realtime_ns;
            // Who has forgotten its own views tells nobody else of views.
            header.nonce = if self.is_recovering() { 0 } else { peer.nonce };
            self.send_control(replica, answer);
        }
        let normal = peer.log_view == peer.frame.view;
        let votes = replica < self.options.replica_count;
        if votes && peer.awaited > self.view {
            self.recover.hear(replica, peer.awaited, self.now.monotonic_ns);
        }
        if peer.frame.view > self.view {
            if normal {
                self.request_start_view(peer.frame.view);
            }
            if votes {
                // Even if the view has begun: its primary may be dead by now, and who stays in an
                // older view would never vote for a newer one.
                self.join_view_change(peer.frame.view);
            }
        } else if normal && peer.frame.view == self.view && self.status == Status::Normal {
            self.learn_from_peer(&peer);
        }
    }

    /// Learns from one in normal operation of this view what is committed, and where the log ends.
    fn learn_from_peer(&mut self, peer: &PeerHeader) {
        if !self.is_primary_index() {
            self.learn_commit(peer.commit);
            if peer.op > self.chain.head().op {
                self.request_newer_headers(peer.frame.replica, peer.op);
            }
            return;
        }
        // What an older view has committed a backup may know and the primary not, and nobody
        // acknowledges it to the primary any more. It is of this log if the backup's head is.
        let head = self.log_header(peer.op);
        let is_ours = head.is_some_and(|head| head.frame.checksum == peer.context);
        if is_ours && self.chain.is_proven(peer.op) && peer.commit.min(peer.op) > self.commit_max {
            mark!("backup_knows_commit");
            self.learn_commit(peer.commit.min(peer.op));
        }
    }

    pub(super) fn on_pong(&mut self, message: &Message) {
        let peer = message.peer();
        let (replica, view, nonce) = (peer.frame.replica, peer.frame.view, peer.nonce);
        self.cluster_clock.learn(replica, peer.monotonic_ns, peer.realtime_ns, self.now);
        // A later time is an answer to a ping of another process of this index.
        if peer.monotonic_ns <= self.now.monotonic_ns {
            self.peers.answered(replica, peer.monotonic_ns);
        }
        self.learn_view(replica, view, nonce);
    }
}
