//! What a replica does with the pings and requests of clients.
//!
//! Only a primary that has executed everything its view began with judges requests: accepted ones
//! go into its pipeline, others are answered, ignored or their session ends. Every other replica
//! keeps a request for a while and hands it over; it answers by itself only what it has the stored
//! reply of. Not covered: the rules, which are in [`requests`](super::requests), and the requests
//! kept, in [`held`](super::held).

use super::endings::Ending;
use super::machine::StateMachine;
use super::replica::{Replica, Status};
use super::requests::{Circumstances, Verdict, judge};
use super::{ConnectionId, Destination};
use crate::mark;
use crate::protocol::{
    Command, EvictionHeader, EvictionReason, Message, PingClientHeader, Release,
};

/// A request that was not seen in a prepare for so long is forwarded.
const FORWARD_NS: u64 = 100_000_000;
/// One that was forwarded is forwarded again after so long more.
const FORWARD_AGAIN_NS: u64 = 900_000_000;
/// A request is not kept for longer: its client asks again.
const KEEP_NS: u64 = 30_000_000_000;

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// The client itself.
    Client(ConnectionId),
    /// Another replica, which had it from the client.
    Replica(u8),
    /// Nobody knows any more.
    Unknown,
}

impl Sender {
    /// Where the client is, if that is known.
    fn connection(self) -> Option<ConnectionId> {
        match self {
            Sender::Client(connection) => Some(connection),
            Sender::Replica(_) | Sender::Unknown => None,
        }
    }
}

impl<M: StateMachine> Replica<M> {
    pub(super) fn on_ping_client(&mut self, connection: ConnectionId, ping: &PingClientHeader) {
        if ping.invalid().is_some() || self.options.is_standby() {
            return;
        }
        if self.is_serving() && self.evict_pinging(connection, ping) {
            return;
        }
        if let Some(session) = self.sessions.find_mut(ping.client) {
            session.connection = Some(connection);
        }
        let Some(buffer) = self.pool.try_acquire() else { return };
        let mut answer = Message::new(buffer, Command::PongClient);
        let header = answer.pong_client_mut();
        header.frame.cluster = self.options.cluster;
        // Clients never go back: they are told of no view that may never begin.
        header.frame.view = self.superblock.durable().log_view;
        header.frame.release = Release::SERVER;
        header.frame.replica = self.options.replica;
        header.ping_timestamp_monotonic = ping.ping_timestamp_monotonic;
        answer.set_checksums();
        self.send(Destination::Connection(connection), answer);
    }

    fn evict_pinging(&mut self, connection: ConnectionId, ping: &PingClientHeader) -> bool {
        let release = ping.frame.release;
        let unknown = ping.session != 0 && self.sessions.find(ping.client).is_none();
        let reason = if release < self.options.release_client_min {
            EvictionReason::ClientReleaseTooLow
        } else if release > self.options.release_client_max {
            EvictionReason::ClientReleaseTooHigh
        } else if unknown && ping.session <= self.commit.op && !self.is_ahead() {
            EvictionReason::NoSession
        } else {
            return false;
        };
        self.evict(Destination::Connection(connection), ping.client, reason);
        true
    }

    /// Whether this replica is a primary that has executed all that its view began with, so that it
    /// knows every session.
    pub(super) fn is_serving(&self) -> bool {
        self.is_primary() && self.commit.op >= self.view_op
    }

    pub(super) fn on_request(&mut self, connection: ConnectionId, message: Message) {
        // Requests that another replica hands over say nothing of where the client is.
        let sender = match self.peers.find(connection) {
            Some(replica) => Sender::Replica(replica),
            None => Sender::Client(connection),
        };
        if self.options.is_standby() || message.request().invalid().is_some() {
            return;
        }
        if self.is_serving() {
            self.judge_request(sender, message);
        } else {
            self.hold_request(sender.connection(), message);
        }
    }

    /// Keeps a request until it is seen in a prepare or can be handed over.
    fn hold_request(&mut self, connection: Option<ConnectionId>, message: Message) {
        let header = message.request();
        let (client, checksum) = (header.client, header.frame.checksum);
        let number = header.request;
        if let Some(session) = self.sessions.find_mut(client) {
            session.connection = connection.or(session.connection);
            let facts = session.facts();
            if number < facts.request {
                return;
            }
            if number == facts.request {
                if checksum == facts.request_checksum
                    && let Some(connection) = connection
                {
                    mark!("reply_from_backup");
                    let reply = session.reply.clone();
                    self.send(Destination::Connection(connection), reply);
                }
                return;
            }
        }
        self.held.keep(connection, message, self.now.monotonic_ns);
        if self.recent_has_request(client, checksum) {
            self.held.prepared(client, checksum);
        }
    }

    /// Whether a prepare that is on its way has this request.
    fn recent_has_request(&self, client: u128, checksum: u128) -> bool {
        let first = (self.commit.op + 1).max(self.chain.op_min());
        (first..=self.chain.head().op).any(|op| {
            let header = self.journal.header(op);
            let message = header.and_then(|header| self.recent.get(op, header.frame.checksum));
            message.is_some_and(|message| {
                crate::protocol::Requests::of(message).is_ok_and(|mut requests| {
                    requests.any(|request| {
                        request.client == client && request.request_checksum == checksum
                    })
                })
            })
        })
    }

    fn judge_request(&mut self, sender: Sender, message: Message) {
        let connection = sender.connection();
        let header = message.request();
        let client = header.client;
        let session = self.sessions.find(client);
        let circumstances = Circumstances {
            view: self.view,
            release_min: self.options.release_client_min,
            release_max: self.options.release_client_max,
            request_size_max: self.options.config.message_size_max,
            session: session.map(super::sessions::Session::facts),
            in_flight: self.pipeline.find(client).map(super::prepare::InFlight::facts),
            full: self.pipeline.is_full(),
            executed: (!self.options.is_solo()).then_some(self.commit.op),
        };
        match judge(header, message.body(), &circumstances) {
            Verdict::Ignore(_) => {
                // The same bytes from elsewhere: the client has reconnected.
                self.pipeline.heard(client, header.frame.checksum, connection);
            }
            // What ended the session may not be durable. The client asks again.
            Verdict::Evict(reason) if self.is_ahead() && reason.is_about_session() => {}
            Verdict::Evict(reason) => match sender {
                Sender::Client(connection) => {
                    self.evict(Destination::Connection(connection), client, reason);
                }
                // Who handed the request over knows where the client is.
                Sender::Replica(replica) => {
                    self.evict(Destination::Replica(replica), client, reason);
                }
                Sender::Unknown => {}
            },
            Verdict::Resend => {
                mark!("request_resent");
                let session = self.sessions.find_mut(client).expect("a known client");
                session.connection = connection.or(session.connection);
                if let Some(connection) = session.connection {
                    let reply = session.reply.clone();
                    self.send(Destination::Connection(connection), reply);
                }
            }
            Verdict::Accept(_) => {
                if let Some(session) = self.sessions.find_mut(client) {
                    session.connection = connection.or(session.connection);
                }
                self.pipeline.accept(connection, message, self.now.monotonic_ns);
            }
        }
    }

    /// Tells a client that its session is over. If there is no room the client asks again.
    fn evict(&mut self, to: Destination, client: u128, reason: EvictionReason) {
        let Some(buffer) = self.pool.try_acquire() else { return };
        let mut eviction = Message::new(buffer, Command::Eviction);
        let header: &mut EvictionHeader = eviction.eviction_mut();
        header.frame.cluster = self.options.cluster;
        header.frame.view = self.view;
        header.frame.release = Release::SERVER;
        header.frame.replica = self.options.replica;
        header.client = client;
        header.reason = reason.into();
        eviction.set_checksums();
        let connection = match to {
            Destination::Connection(connection) => Some(connection),
            Destination::Replica(_) => None,
        };
        self.endings.note(Ending::Evicted { client, reason, connection });
        self.send(to, eviction);
    }

    /// Passes an eviction on to a client whose request this replica had handed over.
    pub(super) fn on_eviction(&mut self, connection: ConnectionId, message: Message) {
        let eviction = message.eviction();
        if self.peers.find(connection).is_none() || eviction.invalid().is_some() {
            return;
        }
        if let Some(held) = self.held.evict(eviction.client)
            && let Some(connection) = held.connection
        {
            mark!("eviction_passed_on");
            self.send(Destination::Connection(connection), message);
        }
    }

    /// On the primary: takes up the requests that were kept; whether there were any.
    pub(super) fn pump_requests(&mut self) -> bool {
        if self.held.is_empty() || !self.is_serving() {
            return false;
        }
        let mut progress = false;
        while let Some(held) = self.held.take() {
            let message = held.message.expect("only whole ones are taken");
            let sender = held.connection.map_or(Sender::Unknown, Sender::Client);
            self.judge_request(sender, message);
            progress = true;
        }
        progress
    }

    /// On a backup: forwards requests that have waited long enough.
    pub(super) fn forward_requests(&mut self) {
        let now_ns = self.now.monotonic_ns;
        self.held.forget(now_ns.saturating_sub(KEEP_NS));
        if self.status == Status::Normal && !self.is_primary_index() {
            self.forward_before(now_ns.saturating_sub(FORWARD_NS));
        }
    }

    /// On a backup: forwards requests that came before `before_ns`.
    pub(super) fn forward_before(&mut self, before_ns: u64) {
        assert!(self.status == Status::Normal && !self.is_primary_index());
        let primary = self.options.primary_of(self.view);
        for held in self.held.due(before_ns) {
            let Some(message) = &held.message else { continue };
            if self.outbox.sends.room() <= usize::from(crate::protocol::NODES_MAX) {
                break;
            }
            mark!("request_forwarded");
            held.forwarded = true;
            held.since_ns = self.now.monotonic_ns + FORWARD_AGAIN_NS;
            self.outbox.sends.push((Destination::Replica(primary), message.clone()));
        }
    }

    /// After a view began: requests of the pipeline that were not prepared are kept or handed over.
    pub(super) fn release_pipeline(&mut self) {
        while let Some((message, connection)) = self.pipeline.take_waiting() {
            self.held.keep(connection, message, self.now.monotonic_ns);
        }
        while let Some((client, checksum, connection)) = self.pipeline.take_in_flight() {
            self.held.remember(client, checksum, connection, self.now.monotonic_ns);
        }
        self.pipeline.reset();
    }
}
