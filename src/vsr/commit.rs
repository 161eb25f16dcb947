//! Executing the log: one op after the other, request after request.
//!
//! An op is executed once it is committed, proven to belong to the log, and here; in a cluster of
//! one maybe a little earlier (see [`ahead`](super::ahead)). The same code
//! runs on a primary, on a backup and when the log is replayed after a restart; the replies come
//! out the same, byte for byte, because everything in them comes from the prepare and the state.

use zerocopy::IntoBytes;

use super::endings::Ending;
use super::fatal::Fatal;
use super::journal::ReadPurpose;
use super::machine::StateMachine;
use super::opening::Opening;
use super::replica::{Replica, Status};
use super::sessions::Session;
use super::{ConnectionId, Destination};
use crate::protocol::packed::{RequestView, Requests};
use crate::protocol::types::RegisterResult;
use crate::protocol::{
    Command, HEADER_SIZE, Message, Operation, PrepareHeader, Release, to_index, to_size,
};
use crate::storage::Fetch;
use crate::{mark, mutated};

/// Where the execution of the next op is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waiting for the next op to be durable.
    Idle,
    /// Reading the op from the log.
    Load,
    /// Waiting until the checkpoint whose blocks are to be freed now is durable.
    Release,
    /// Executing the request at this place.
    Execute { place: u32, begun: bool },
    /// Ending the op.
    End,
}

/// The execution of the log.
#[derive(Debug)]
pub struct Commit {
    /// Newest op executed.
    pub op: u64,
    /// Checksum of its header.
    pub checksum: u128,
    pub(super) stage: Stage,
    /// The op being executed.
    message: Option<Message>,
    /// The reply being written.
    reply: Option<Message>,
}

impl Commit {
    /// Nothing executed.
    #[must_use]
    pub fn new() -> Commit {
        Commit { op: 0, checksum: 0, stage: Stage::Idle, message: None, reply: None }
    }

    /// Whether no op is being executed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }
}

impl Default for Commit {
    fn default() -> Commit {
        Commit::new()
    }
}

impl<M: StateMachine> Replica<M> {
    /// Executes what can be executed; whether there was any progress.
    pub(super) fn pump_commit(&mut self) -> bool {
        if !self.may_commit() || self.executes_when_asked() {
            return false;
        }
        let mut progress = false;
        loop {
            let before = self.commit.stage;
            let went_on = self.commit_step();
            progress |= went_on || self.commit.stage != before;
            if !went_on || self.status == Status::Fatal {
                return progress;
            }
        }
    }

    /// One stage of the execution of an op; whether the next can follow at once.
    pub(super) fn commit_step(&mut self) -> bool {
        match self.commit.stage {
            Stage::Idle => self.commit_next(),
            Stage::Load => false,
            Stage::Release => self.commit_release(),
            Stage::Execute { place, begun } => self.commit_execute(place, begun),
            Stage::End => self.commit_end(),
        }
    }

    /// Whether anything may be executed: while opening nothing is known to be committed, and a
    /// replica that does not know its head knows nothing of the log.
    fn may_commit(&self) -> bool {
        match self.status {
            Status::Normal | Status::ViewChange | Status::Opening(Opening::Replay) => true,
            Status::Opening(_) | Status::RecoveringHead | Status::Fatal => false,
        }
    }

    fn commit_next(&mut self) -> bool {
        assert!(self.commit.message.is_none());
        let next = self.commit.op + 1;
        if next > self.execute_max(next) || !self.chain.is_proven(next) || self.sync_holds_commits()
        {
            return false;
        }
        let Some(header) = self.journal.header(next).copied() else {
            self.repair.wanted = true;
            return false;
        };
        if header.parent != self.commit.checksum && !mutated!("skip_chain_check") {
            let (op, executed) = (self.commit.op, self.commit.checksum);
            self.stop(Fatal::Diverged { op, executed, expected: header.parent });
            return false;
        }
        let checksum = header.frame.checksum;
        if let Some(message) = self.recent.get(next, checksum) {
            self.commit.message = Some(message.clone());
            self.commit.stage = Stage::Release;
            return true;
        }
        if !self.journal.has(next, checksum) {
            // What is not committed is still being written.
            self.repair.wanted |= next <= self.commit_max;
            return false;
        }
        if !self.journal.can_read(ReadPurpose::Commit) {
            return false;
        }
        let Some(buffer) = self.pool.try_acquire() else { return false };
        let storage = &mut self.outbox.storage;
        self.journal.read(next, checksum, buffer, ReadPurpose::Commit, storage);
        self.commit.stage = Stage::Load;
        true
    }

    /// Takes the prepare that was read for execution; none if it turned out to be damaged.
    pub(super) fn commit_loaded(&mut self, message: Option<Message>) {
        assert!(self.commit.stage == Stage::Load);
        let Some(message) = message else {
            self.commit.stage = Stage::Idle;
            self.repair.wanted = true;
            return;
        };
        assert!(message.prepare().op == self.commit.op + 1);
        self.commit.message = Some(message);
        self.commit.stage = Stage::Release;
    }

    /// Blocks that only checkpoints before the durable one needed become free at a fixed op, so
    /// that every replica hands out the same addresses.
    fn commit_release(&mut self) -> bool {
        let next = self.commit.op + 1;
        let delay = u64::from(self.options.config.release_delay);
        let checkpoint = next.saturating_sub(delay);
        if self.is_checkpoint(checkpoint) {
            if self.superblock.durable().checkpoint.op < checkpoint {
                return false;
            }
            assert!(self.superblock.durable().checkpoint.op == checkpoint);
            self.machine.release_staged();
        }
        self.commit.stage = Stage::Execute { place: 0, begun: false };
        self.laps.execute_ns = self.now.monotonic_ns;
        true
    }

    /// Executes requests from the one at `place` on; a pulse counts as one.
    fn commit_execute(&mut self, place: u32, begun: bool) -> bool {
        let message = self.commit.message.take().expect("an op is being executed");
        let went_on = self.execute_message(&message, place, begun);
        self.commit.message = Some(message);
        went_on
    }

    fn execute_message(&mut self, message: &Message, mut place: u32, mut begun: bool) -> bool {
        let header = message.prepare();
        if header.operation == u8::from(Operation::Pulse) {
            if !begun {
                self.machine.begin(Operation::Pulse, header.timestamp, &[]);
            }
            let pauses = self.executes_when_asked();
            self.commit.stage = match step(&mut self.machine, pauses, &[], &mut []) {
                Fetch::Ready(_) => Stage::End,
                Fetch::Wait => Stage::Execute { place, begun: true },
            };
            return self.commit.stage == Stage::End;
        }
        let Ok(requests) = Requests::of(message) else {
            let what = "the requests in it do not decode";
            self.stop(Fatal::Prepare { op: header.op, what });
            return false;
        };
        for request in requests.skip(to_index(place)) {
            self.commit.stage = Stage::Execute { place, begun };
            if !self.execute_request(header, place, begun, &request) {
                return false;
            }
            place += 1;
            begun = false;
        }
        self.commit.stage = Stage::End;
        true
    }

    /// Executes one request and answers it; false if it must be tried again.
    fn execute_request(
        &mut self,
        header: &PrepareHeader,
        place: u32,
        begun: bool,
        request: &RequestView<'_>,
    ) -> bool {
        if self.outbox.sends.is_full() {
            return false;
        }
        if self.commit.reply.is_none() {
            let Some(buffer) = self.pool.try_acquire() else { return false };
            self.commit.reply = Some(Message::new(buffer, Command::Reply));
        }
        let body_max = self.reply_body_max();
        let pauses = self.executes_when_asked();
        let reply = self.commit.reply.as_mut().expect("a reply's buffer was acquired");
        let body_size = if request.operation == Operation::Register {
            let limit = self.options.config.message_size_max - HEADER_SIZE;
            let result = RegisterResult { batch_size_limit: limit, reserved: [0; 60] };
            let bytes = result.as_bytes();
            reply.body_area_mut()[..bytes.len()].copy_from_slice(bytes);
            to_size(bytes.len())
        } else {
            if !begun {
                self.machine.begin(request.operation, request.timestamp, request.body);
                self.commit.stage = Stage::Execute { place, begun: true };
            }
            let area = &mut reply.body_area_mut()[..body_max];
            match step(&mut self.machine, pauses, request.body, area) {
                Fetch::Ready(size) => size,
                Fetch::Wait => return false,
            }
        };
        let mut reply = self.commit.reply.take().expect("a reply is being written");
        reply.set_body_size(body_size);
        fill_reply(&mut reply, header, request);
        self.answer(reply, place, request, header.program);
        true
    }

    /// Keeps a reply with its session, and sends it if its op is committed.
    fn answer(&mut self, reply: Message, place: u32, request: &RequestView<'_>, program: Release) {
        let client = request.client;
        let mut connection = None;
        if reply.reply().op <= self.commit_max || mutated!("answer_ahead") {
            connection = self.deliver(reply.clone());
        } else {
            self.withhold(reply.clone());
        }
        if let Some(session) = self.sessions.find_mut(client) {
            session.connection = connection.or(session.connection);
            session.place = place;
            session.reply = reply;
        } else if request.operation == Operation::Register {
            let session = reply.reply().op;
            let entry = Session { session, place, connection, reply };
            if let Some(displaced) = self.sessions.register(entry, program) {
                mark!("session_evicted");
                if self.is_primary() {
                    self.endings.note(Ending::Displaced { client: displaced, by: client });
                }
            }
        }
        // Else the session went while its request was on its way: the client gets this reply, and
        // an eviction when it asks again.
    }

    /// Sends a reply: on the primary to whom it accepted the request from, elsewhere to whom it has
    /// handed the request over for. Where the client was heard, if it was.
    pub(super) fn deliver(&mut self, reply: Message) -> Option<ConnectionId> {
        let header = reply.reply();
        let (client, checksum) = (header.client, header.request_checksum);
        let view = header.frame.view;
        let accepted = self.pipeline.finish(client, checksum);
        if let Some(accepted) = accepted {
            self.lap(super::laps::Stage::Request, accepted.accepted_ns);
        }
        let accepted = accepted.map(|accepted| accepted.connection);
        let held = self.held.finish(client, checksum);
        let orphan = view < self.view;
        let handed = held.filter(|held| held.forwarded || orphan).and_then(|held| held.connection);
        let heard = accepted.flatten().or(handed);
        let session = self.sessions.find(client);
        let known = session.and_then(|session| session.connection);
        let here = accepted.is_some() || (orphan && self.is_primary());
        let connection = heard.or(if here { known } else { None });
        if let Some(connection) = connection {
            self.outbox.sends.push((Destination::Connection(connection), reply));
        }
        heard
    }

    fn commit_end(&mut self) -> bool {
        let op = self.commit.op + 1;
        while self.machine.end_op(op).is_wait() {
            if !self.machine.is_paused() || self.executes_when_asked() {
                return false;
            }
        }
        let message = self.commit.message.take().expect("an op is being executed");
        assert!(message.prepare().op == op);
        self.commit.op = op;
        self.lap(super::laps::Stage::Execute, self.laps.execute_ns);
        self.commit.checksum = message.header().frame.checksum;
        self.commit.stage = Stage::Idle;
        if self.options.is_solo() {
            self.recent.remove(op);
        }
        if self.is_checkpoint(op) {
            self.checkpoint_start(message.prepare());
        }
        drop(message);
        if op <= self.commit_max {
            self.pipeline.executed(op);
            self.prepare_pulse();
        }
        true
    }
}

/// Goes on with an operation, past pauses if they are not wanted.
fn step<M: StateMachine>(
    machine: &mut M,
    pauses: bool,
    body: &[u8],
    reply: &mut [u8],
) -> Fetch<u32> {
    loop {
        let result = machine.step(body, reply);
        if !result.is_wait() || pauses || !machine.is_paused() {
            return result;
        }
    }
}

/// The header of a reply: a function of the prepare, the request and the body alone.
fn fill_reply(reply: &mut Message, prepare: &PrepareHeader, request: &RequestView<'_>) {
    let header = reply.reply_mut();
    header.frame.cluster = prepare.frame.cluster;
    header.frame.view = prepare.frame.view;
    header.frame.release = request.release;
    header.frame.replica = prepare.frame.replica;
    header.request_checksum = request.request_checksum;
    header.client = request.client;
    header.op = prepare.op;
    header.commit = prepare.op;
    header.timestamp = request.timestamp;
    header.request = request.request;
    header.operation = request.operation.into();
    reply.seal_reply();
    assert!(reply.header().invalid().is_none());
}
