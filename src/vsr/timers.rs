//! What happens because time passes: heartbeats, pings, suspicion, and sending again.
//!
//! All by the monotonic clock, looked at on every tick of 10 ms. Waits before a view is given up
//! have jitter, so that replicas don't vote past each other, and grow while view changes fail. A
//! primary that hears no quorum, knows no time that the cluster agrees on, or whose disk hangs,
//! stops its heartbeats, so that the others replace it.

use super::machine::StateMachine;
use super::replica::{Audience, Replica, Status};
use crate::mark;
use crate::protocol::Command;

/// Between heartbeats of an idle primary.
const HEARTBEAT_NS: u64 = 50_000_000;
/// Between pings once the time is agreed on, and before.
const PING_NS: u64 = 200_000_000;
const PING_EARLY_NS: u64 = 20_000_000;
/// A primary that is silent for so long is suspected, plus jitter.
const SILENCE_NS: u64 = 400_000_000;
/// A view change that takes so long is given up, plus jitter, doubled with each attempt.
const CHANGE_NS: u64 = 300_000_000;
/// Attempts after which that time doubles no more.
const ATTEMPTS_MAX: u32 = 4;
const JITTER_NS: u64 = 100_000_000;
/// Between repetitions of votes, reports and questions.
const REPEAT_NS: u64 = 50_000_000;
/// Between repetitions of a prepare that is not durable on a quorum.
const RESEND_NS: u64 = 100_000_000;
/// A primary without a quorum or without the time for so long goes quiet.
const QUIET_NS: u64 = 1_000_000_000;
/// A primary that executes nothing of what a quorum has, or ends no write of its log, for so long
/// goes quiet: its disk hangs.
const STALL_NS: u64 = 3_000_000_000;
/// How long an idle primary waits before it looks again for something to expire.
const PULSE_NS: u64 = 100_000_000;

/// When things happened last, by the monotonic clock in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    random: u64,
    ping_ns: u64,
    heartbeat_ns: u64,
    repeat_ns: u64,
    /// The primary was heard, or the view began.
    primary_ns: u64,
    /// The view change began.
    change_ns: u64,
    /// View changes since a view began.
    attempts: u32,
    jitter_ns: u64,
    /// The time was agreed on.
    agreed_ns: u64,
    /// The op that had been executed when the primary was looked at last.
    executed: u64,
    /// When that had changed last, or was all there was to execute.
    executed_ns: u64,
    /// The same of the requests to write the log that have ended.
    written: u64,
    written_ns: u64,
}

impl Timers {
    /// Timers that jitter by this seed.
    #[must_use]
    pub fn new(seed: u64) -> Timers {
        Timers {
            random: seed,
            ping_ns: 0,
            heartbeat_ns: 0,
            repeat_ns: 0,
            primary_ns: 0,
            change_ns: 0,
            attempts: 0,
            jitter_ns: 0,
            agreed_ns: 0,
            executed: 0,
            executed_ns: 0,
            written: 0,
            written_ns: 0,
        }
    }

    /// The next number of a sequence that only spreads things (splitmix64).
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Notes that the primary was heard or the view began.
    pub fn primary_heard(&mut self, now_ns: u64) {
        self.primary_ns = now_ns;
        self.jitter_ns = self.random() % JITTER_NS;
    }

    /// Notes that a view change began.
    pub fn change_began(&mut self, now_ns: u64) {
        self.change_ns = now_ns;
        self.jitter_ns = self.random() % JITTER_NS;
        self.attempts = (self.attempts + 1).min(ATTEMPTS_MAX);
        self.repeat_ns = 0;
    }

    /// Notes that a view began.
    pub fn view_began(&mut self, now_ns: u64) {
        self.primary_heard(now_ns);
        self.attempts = 0;
        self.repeat_ns = 0;
        self.heartbeat_ns = 0;
        self.agreed_ns = now_ns;
        self.executed_ns = now_ns;
        self.written_ns = now_ns;
    }

    /// Nanoseconds since the primary was heard or the view began.
    #[must_use]
    pub fn heartbeat_age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.primary_ns)
    }

    fn change_is_late(&self, now_ns: u64) -> bool {
        let attempts = self.attempts.max(1) - 1;
        let limit = (CHANGE_NS << attempts) + self.jitter_ns;
        now_ns.saturating_sub(self.change_ns) >= limit
    }
}

/// Whether `period_ns` have passed since `last_ns`, which then becomes now.
fn due(last_ns: &mut u64, now_ns: u64, period_ns: u64) -> bool {
    let due = *last_ns == 0 || now_ns.saturating_sub(*last_ns) >= period_ns;
    if due {
        *last_ns = now_ns;
    }
    due
}

impl<M: StateMachine> Replica<M> {
    /// Does what is due by now.
    pub(super) fn pump_timers(&mut self) {
        let now_ns = self.now.monotonic_ns;
        if self.status == Status::Fatal {
            return;
        }
        self.blocks_tick();
        self.sync_tick();
        self.scrub_tick();
        if matches!(self.status, Status::Opening(_)) {
            return;
        }
        if !self.is_alone() {
            self.pump_ping();
        }
        match self.status {
            Status::Normal if self.is_primary_index() => self.pump_primary(),
            Status::Normal => {
                if now_ns.saturating_sub(self.timers.primary_ns)
                    >= SILENCE_NS + self.timers.jitter_ns
                {
                    self.vote_for(self.view + 1);
                }
                self.forward_requests();
            }
            Status::ViewChange => {
                let primary = self.options.primary_of(self.view);
                if self.timers.change_is_late(now_ns) || self.peers.is_lost(primary) {
                    self.vote_for(self.view + 1);
                }
            }
            Status::RecoveringHead | Status::Opening(_) | Status::Fatal => {}
        }
        self.help_recover();
        if due(&mut self.timers.repeat_ns, now_ns, REPEAT_NS) {
            self.repeat_messages();
        }
        self.repair_tick();
    }

    /// Whether there is no other replica or standby.
    pub(super) fn is_alone(&self) -> bool {
        self.options.nodes() == 1
    }

    fn pump_ping(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let agreed = self.cluster_now().is_some();
        let period_ns = if agreed && !self.is_asking_for_views() { PING_NS } else { PING_EARLY_NS };
        if !due(&mut self.timers.ping_ns, now_ns, period_ns) {
            return;
        }
        let monotonic_ns = self.cluster_clock.ping(self.now);
        let Some(mut message) = self.control(Command::Ping) else { return };
        let durable = self.superblock.durable();
        let peer = message.peer_mut();
        // What others conclude from a view must hold after a crash too.
        peer.frame.view = durable.view;
        peer.log_view = durable.log_view;
        peer.checkpoint_op = durable.checkpoint.op;
        peer.checkpoint_id = durable.checkpoint_id();
        if self.status == Status::Normal && self.view == durable.log_view {
            let head = self.chain.head();
            peer.op = head.op;
            peer.context = head.frame.checksum;
            peer.commit = self.commit_max;
        }
        peer.monotonic_ns = monotonic_ns;
        self.ask(peer);
        peer.program = self.options.program;
        self.broadcast(message, Audience::All);
    }

    fn pump_primary(&mut self) {
        let now_ns = self.now.monotonic_ns;
        if self.cluster_now().is_some() {
            self.timers.agreed_ns = now_ns;
        }
        let executed = self.commit.op;
        if executed == self.commit_max || executed != self.timers.executed {
            self.timers.executed = executed;
            self.timers.executed_ns = now_ns;
        }
        let written = self.journal.writes_done();
        if !self.journal.is_busy() || written != self.timers.written {
            self.timers.written = written;
            self.timers.written_ns = now_ns;
        }
        if self.is_quiet_primary() {
            mark!("primary_abdicates");
            return;
        }
        if due(&mut self.timers.heartbeat_ns, now_ns, HEARTBEAT_NS) {
            self.send_commit();
        }
        self.resend_prepares(now_ns.saturating_sub(RESEND_NS));
        if self.pipeline.is_empty() && now_ns.saturating_sub(self.pulse_looked_ns) >= PULSE_NS {
            self.prepare_pulse();
        }
    }

    /// Whether this primary must let others take over: it hears no quorum, has had no time that
    /// the cluster agrees on for too long, or does not get on with what a quorum has.
    pub(super) fn is_quiet_primary(&self) -> bool {
        if self.options.is_solo() {
            return false;
        }
        let since_ns = self.now.monotonic_ns.saturating_sub(QUIET_NS);
        if self.timers.primary_ns > since_ns {
            // The view has just begun.
            return false;
        }
        let heard = self.peers.heard_since(self.options.replica_count, since_ns);
        let moved_ns = self.timers.executed_ns.min(self.timers.written_ns);
        let stalled_ns = self.now.monotonic_ns.saturating_sub(moved_ns);
        heard + 1 < self.quorums.replication
            || self.timers.agreed_ns < since_ns
            || stalled_ns >= STALL_NS
    }

    /// Sends again what may have been lost.
    fn repeat_messages(&mut self) {
        self.repeat_vote();
        match self.status {
            Status::ViewChange => self.send_report(),
            // Pings ask for views.
            Status::RecoveringHead if self.is_asking_for_views() => {}
            Status::RecoveringHead => self.request_start_view(self.view),
            Status::Normal | Status::Opening(_) | Status::Fatal => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: attempts at a view change get more and more time, up to a limit, and start over when
    /// a view began.
    #[test]
    fn patience_grows() {
        let mut timers = Timers::new(7);
        let mut waited = Vec::new();
        for _ in 0..6 {
            timers.change_began(0);
            let wait = (0..100_000_000_000).step_by(10_000_000);
            waited.push(wait.into_iter().find(|now| timers.change_is_late(*now)).unwrap());
        }
        assert!(waited[0] >= CHANGE_NS && waited[0] <= CHANGE_NS + JITTER_NS);
        assert!(waited[3] >= CHANGE_NS << 3 && waited[5] <= (CHANGE_NS << 3) + JITTER_NS);
        timers.view_began(0);
        timers.change_began(0);
        assert!(timers.change_is_late(CHANGE_NS + JITTER_NS));
    }

    /// Goal: two seeds give two sequences, one seed the same one.
    #[test]
    fn jitter_is_seeded() {
        let sequence = |seed| {
            let mut timers = Timers::new(seed);
            [timers.random(), timers.random(), timers.random()]
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
    }
}
