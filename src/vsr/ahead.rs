//! Executing ahead of the disk, and behind everything else: what a cluster of one does instead of
//! waiting for its log.
//!
//! With peers an op may be truncated until a quorum has it. Alone nobody can truncate it: it is
//! durable soon, or the process is gone, and with it everything that was executed. So the two may
//! happen at the same time, as long as nobody hears of an op that is not durable: its replies
//! are withheld until then, its requests count as being executed, and what it did to sessions is no
//! reason to end one. An op that makes a checkpoint is not executed ahead, so that every checkpoint
//! is of committed ops.
//!
//! Execution is the long work: 3.5 ms for a batch of 8189 transfers, a third of it at the op's end
//! for the indexes. Were it done as soon as it is possible, writes of the log, and the replies
//! themselves, would wait for it. So the world asks for it, a part at a time, each time when it
//! has handed on everything that this replica wanted: the log's two durable writes (2.5 ms beside
//! writes of the grid) pass meanwhile, and the indexes are filled while the client reads its reply.

use super::clock::Now;
use super::commit::Stage;
use super::machine::StateMachine;
use super::replica::{Replica, Status};
use crate::protocol::{Message, to_index};
use crate::storage::{Config, Queue};

/// What was executed ahead.
#[derive(Debug)]
pub struct Ahead {
    /// Nothing more can be executed before the next input.
    waits: bool,
    /// Replies of ops that are not durable, oldest first; at most one for each client.
    withheld: Queue<Message>,
}

impl Ahead {
    /// Nothing.
    #[must_use]
    pub fn new(config: &Config) -> Ahead {
        Ahead { waits: false, withheld: Queue::new(to_index(config.clients_max)) }
    }

    /// Notes that something has happened.
    pub fn input(&mut self) {
        self.waits = false;
    }
}

impl<M: StateMachine> Replica<M> {
    /// Whether ops are executed when the world asks for it, and not as soon as they can be.
    pub(super) fn executes_when_asked(&self) -> bool {
        self.options.is_solo() && self.status == Status::Normal
    }

    /// Whether there is something to execute.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let next = self.commit.op + 1;
        let begun = !self.commit.is_idle();
        let more = next <= self.chain.head().op && next <= self.execute_max(next);
        self.executes_when_asked() && !self.ahead.waits && (begun || more)
    }

    /// Executes a part of what there is to execute. To be called when everything that this replica
    /// wants is on its way.
    pub fn work(&mut self, now: Now) {
        if !self.has_work() {
            return;
        }
        self.now = now;
        let mut progress = false;
        loop {
            let before = self.commit.stage;
            progress |= self.commit_step() || self.machine.is_paused();
            let after = self.commit.stage;
            if after == before || matches!(after, Stage::Idle | Stage::End) {
                break;
            }
        }
        self.ahead.waits = !progress;
        self.pump();
    }

    /// Newest op that may be executed if `next` is to be the next one.
    pub(super) fn execute_max(&self, next: u64) -> u64 {
        if self.executes_when_asked() && !self.is_checkpoint(next) {
            self.chain.head().op
        } else {
            self.commit_max
        }
    }

    /// Whether something was executed that is not durable, or is being executed.
    pub(super) fn is_ahead(&self) -> bool {
        self.commit.op + u64::from(!self.commit.is_idle()) > self.commit_max
    }

    /// Keeps the reply of an op that is not durable yet.
    pub(super) fn withhold(&mut self, reply: Message) {
        assert!(self.options.is_solo(), "with peers only what is committed is executed");
        assert!(reply.reply().op > self.commit_max);
        crate::mark!("reply_withheld");
        self.ahead.withheld.push(reply);
    }

    /// Ends ops that are durable and executed, and gives replies away that were withheld. Whether
    /// there were any.
    pub(super) fn pump_ahead(&mut self) -> bool {
        let mut progress = false;
        while let Some(reply) = self.ahead.withheld.front() {
            if reply.reply().op > self.commit_max || self.outbox.sends.is_full() {
                break;
            }
            let reply = self.ahead.withheld.pop().expect("there is a front");
            let client = reply.reply().client;
            let heard = self.deliver(reply);
            if let Some(session) = self.sessions.find_mut(client) {
                session.connection = heard.or(session.connection);
            }
            progress = true;
        }
        let end = self.commit_op();
        while let Some(op) = self.pipeline.oldest().filter(|op| *op <= end) {
            self.pipeline.executed(op);
            self.prepare_pulse();
            progress = true;
        }
        progress
    }
}
