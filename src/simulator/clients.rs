//! Simulated clients: the production session, a random workload, and impatience.
//!
//! Clients draw from one common workload, have one request in flight each, send it again with the
//! same bytes when no answer comes, follow the view, and may give up and register anew. Not
//! covered: whether an answer is right (see [`checkers`](super::checkers)).

use zerocopy::IntoBytes;

use super::network::FrameBytes;
use super::process::{CLUSTER, config};
use super::random::{MILLION, Random};
use super::swarm::Swarm;
use super::workload::{Workload, WorkloadOptions, WorkloadStep};
use crate::client::session::{Received, Session, SessionOptions, Staged};
use crate::protocol::types::RegisterRequest;
use crate::protocol::{
    AlignedMemory, HEADER_SIZE, Operation, Release, checksum, to_index, to_size,
};

const MICROSECOND_NS: u64 = 1_000;
/// Pause before a request is sent again, in nanoseconds; doubles with each attempt.
const RETRY_MIN_NS: u64 = 600_000_000;
/// Attempts after which a client asks everybody for the view.
const PING_ATTEMPTS: u32 = 4;
/// Longest time that a client lets pass when the workload asks for it, in nanoseconds.
const WAIT_MAX_NS: u64 = 3_000_000_000;

/// A request that waits for its answer.
#[derive(Clone, Debug)]
struct Waiting {
    operation: Operation,
    frame: FrameBytes,
    body: Vec<u8>,
    retry_at_ns: u64,
    attempts: u32,
    submitted_ns: u64,
    /// Newest op whose answer anybody had when this was sent first.
    acknowledged_op: u64,
}

/// One client.
#[derive(Debug)]
struct Client {
    id: u128,
    session: Session,
    waiting: Option<Waiting>,
    /// When to look again.
    wake_ns: u64,
}

/// Frames to send: from which client, to which replica.
pub type Sends = Vec<(usize, usize, FrameBytes)>;

/// An answer that a client accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Newest op that was known to be answered when the request was sent first.
    pub acknowledged_op: u64,
    /// The op that the answer names.
    pub op: u64,
    /// From the first sending to the answer.
    pub latency_ns: u64,
    /// Whether it only opened the session.
    pub is_register: bool,
}

/// What a frame meant for a client.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// The answer to its request.
    Accepted(Accepted),
    /// The session is over.
    Evicted {
        /// Whose.
        client: u128,
        /// Why.
        reason: crate::protocol::EvictionReason,
    },
    /// The server broke the protocol.
    Broken(String),
}

/// All clients and what they want.
#[derive(Debug)]
pub struct Clients {
    members: Vec<Client>,
    workload: Workload,
    random: Random,
    replicas: u8,
    broadcast: bool,
    think_us: u64,
    created: u64,
    acknowledged_op: u64,
    answered: u64,
    /// Whether new requests are made.
    pub is_asking: bool,
    memory: AlignedMemory,
}

impl Clients {
    /// As many as drawn, none registered.
    #[must_use]
    pub fn new(swarm: &Swarm, random: Random) -> Clients {
        let config = config();
        let records_max = to_index((config.reply_size_max - HEADER_SIZE) / 128 - 1);
        let events_max = to_index(config.batch_max).min(records_max);
        let options = WorkloadOptions {
            batch_events_max: to_index(swarm.batch_events).min(events_max),
            create_events_max: events_max.min(2 * to_index(swarm.batch_events)),
            lookup_ids_max: records_max,
            query_results_max: to_size(records_max),
            ..WorkloadOptions::default()
        };
        let mut clients = Clients {
            members: Vec::new(),
            workload: Workload::new(swarm.seed, options),
            random,
            replicas: swarm.replicas,
            broadcast: swarm.clients_broadcast,
            think_us: swarm.think_us,
            created: 0,
            acknowledged_op: 0,
            answered: 0,
            is_asking: true,
            memory: AlignedMemory::new(to_index(config.message_size_max)),
        };
        for _ in 0..swarm.clients {
            let client = clients.fresh();
            clients.members.push(client);
        }
        clients
    }

    fn fresh(&mut self) -> Client {
        self.created += 1;
        let low = u128::from(self.random.number());
        let id = (u128::from(self.created) << 64) | low.max(1);
        let session = Session::new(SessionOptions {
            cluster: CLUSTER,
            client: id,
            release: Release::SERVER,
            replica_count: self.replicas,
        });
        Client { id, session, waiting: None, wake_ns: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Requests answered, registrations not counted.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Sessions begun.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Whether no request waits for an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.members.iter().all(|client| client.waiting.is_none())
    }

    /// When a client wants to look again.
    #[must_use]
    pub fn wake_ns(&self, index: usize) -> u64 {
        self.members[index].wake_ns
    }

    /// For people: what a client waits for.
    #[must_use]
    pub fn describe(&self, index: usize) -> String {
        let client = &self.members[index];
        match &client.waiting {
            None => format!("client {index}: idle"),
            Some(waiting) => format!(
                "client {index} ({:#x}): {:?}, {} attempts, since {} ms",
                client.id,
                waiting.operation,
                waiting.attempts,
                waiting.submitted_ns / 1_000_000
            ),
        }
    }

    /// Whether a client has no request in flight.
    #[must_use]
    pub fn is_free(&self, index: usize) -> bool {
        self.members[index].waiting.is_none()
    }

    /// Lets a client look again no earlier than then.
    pub fn delay(&mut self, index: usize, wake_ns: u64) {
        self.members[index].wake_ns = wake_ns;
    }

    /// Gives up the session and begins another.
    pub fn restart(&mut self, index: usize, now_ns: u64) {
        self.members[index] = self.fresh();
        self.members[index].wake_ns = now_ns;
    }

    /// Sends the request in flight again, to a random replica.
    pub fn repeat(&mut self, index: usize, target: usize, sends: &mut Sends) {
        if let Some(waiting) = &self.members[index].waiting {
            sends.push((index, target, waiting.frame.clone()));
        }
    }

    /// Does what is due for a client: asks, or asks again.
    pub fn wake(&mut self, index: usize, now_ns: u64, sends: &mut Sends) {
        let client = &mut self.members[index];
        if let Some(waiting) = &mut client.waiting {
            if now_ns >= waiting.retry_at_ns {
                waiting.attempts += 1;
                let pause_ns = RETRY_MIN_NS << waiting.attempts.min(2);
                waiting.retry_at_ns = now_ns + pause_ns + self.random.below(pause_ns / 4);
                let other = self.random.index(usize::from(self.replicas));
                let frame = waiting.frame.clone();
                let primary = usize::from(client.session.primary());
                sends.push((index, primary, frame.clone()));
                if other != primary {
                    sends.push((index, other, frame));
                }
                if waiting.attempts.is_multiple_of(PING_ATTEMPTS) {
                    let ping = FrameBytes::new(client.session.ping(now_ns).as_bytes());
                    let replicas = 0..usize::from(self.replicas);
                    sends.extend(replicas.map(|replica| (index, replica, ping.clone())));
                }
            }
            client.wake_ns = waiting.retry_at_ns;
            return;
        }
        if !self.is_asking {
            client.wake_ns = now_ns + 100_000_000;
            return;
        }
        if !client.session.is_registered() {
            let body = vec![0; size_of::<RegisterRequest>()];
            self.submit(index, Operation::Register, body, now_ns, sends);
            return;
        }
        match self.workload.next_step() {
            WorkloadStep::Request { operation, body } => {
                self.submit(index, operation, body, now_ns, sends);
            }
            WorkloadStep::AdvanceTime { nanoseconds } => {
                self.members[index].wake_ns = now_ns + nanoseconds.clamp(1_000, WAIT_MAX_NS);
            }
            WorkloadStep::Pulse => self.members[index].wake_ns = now_ns + 1_000,
        }
    }

    fn submit(
        &mut self,
        index: usize,
        operation: Operation,
        body: Vec<u8>,
        now_ns: u64,
        sends: &mut Sends,
    ) {
        let staged =
            Staged { operation, body_size: to_size(body.len()), checksum_body: checksum(&body) };
        let header = to_index(HEADER_SIZE);
        let size = header + body.len();
        let client = &mut self.members[index];
        client.session.seal(&mut self.memory, &staged);
        self.memory[header..size].copy_from_slice(&body);
        let frame = FrameBytes::new(&self.memory[..size]);
        let primary = usize::from(client.session.primary());
        sends.push((index, primary, frame.clone()));
        if self.broadcast && self.replicas > 1 {
            let others = usize::from(self.replicas) - 1;
            let other = (primary + 1 + self.random.index(others)) % usize::from(self.replicas);
            sends.push((index, other, frame.clone()));
        }
        let retry_at_ns = now_ns + RETRY_MIN_NS + self.random.below(RETRY_MIN_NS / 4);
        client.wake_ns = retry_at_ns;
        client.waiting = Some(Waiting {
            operation,
            frame,
            body,
            retry_at_ns,
            attempts: 0,
            submitted_ns: now_ns,
            acknowledged_op: self.acknowledged_op,
        });
    }

    /// Takes a frame that arrived.
    ///
    /// # Panics
    ///
    /// If an invariant of the simulator is broken.
    pub fn receive(
        &mut self,
        index: usize,
        frame: &[u8],
        now_ns: u64,
        sends: &mut Sends,
    ) -> Outcome {
        let client = &mut self.members[index];
        let primary = client.session.primary();
        let received = client.session.receive(frame);
        if client.session.primary() != primary
            && let Some(waiting) = &client.waiting
        {
            let target = usize::from(client.session.primary());
            sends.push((index, target, waiting.frame.clone()));
        }
        let op = |frame: &[u8]| crate::protocol::Header::from_bytes(frame).reply().op;
        match received {
            Err(error) => Outcome::Broken(format!("client {:#x}: {error:?}", client.id)),
            Ok(Received::Ignored | Received::Pong { .. }) => Outcome::Nothing,
            Ok(Received::Registered) => {
                let op = op(frame);
                self.accepted(index, op, now_ns, true)
            }
            Ok(Received::Reply(facts)) => {
                let waiting = client.waiting.as_ref().expect("an answer answers a request");
                let body = &frame[to_index(HEADER_SIZE)..];
                let asked = &waiting.body;
                self.workload.on_reply(facts.operation, facts.timestamp, asked, body);
                self.answered += 1;
                self.accepted(index, facts.op, now_ns, false)
            }
            Ok(Received::Evicted(reason)) => {
                let id = client.id;
                self.restart(index, now_ns + self.think_us * MICROSECOND_NS);
                Outcome::Evicted { client: id, reason }
            }
        }
    }

    fn accepted(&mut self, index: usize, op: u64, now_ns: u64, is_register: bool) -> Outcome {
        let think_ns = self.random.delay(1, self.think_us) * MICROSECOND_NS;
        let client = &mut self.members[index];
        let waiting = client.waiting.take().expect("an answer answers a request");
        client.wake_ns = now_ns + think_ns;
        self.acknowledged_op = self.acknowledged_op.max(op);
        Outcome::Accepted(Accepted {
            acknowledged_op: waiting.acknowledged_op,
            op,
            latency_ns: now_ns - waiting.submitted_ns,
            is_register,
        })
    }
}

/// Frames that nobody should send: garbage, or requests with something wrong.
///
/// # Panics
///
/// If an invariant of the simulator is broken.
pub fn hostile_frame(random: &mut Random) -> FrameBytes {
    let mut header = crate::protocol::RequestHeader::new();
    header.frame.cluster = CLUSTER;
    header.frame.release = Release::SERVER;
    header.client = u128::from(random.number()) << 96 | 1;
    header.session = random.below(100);
    header.request = u32::try_from(random.below(5)).expect("small");
    header.operation = u8::try_from(random.between(128, 160)).expect("a byte");
    let body: Vec<u8> = (0..16 * random.below(20)).map(|byte| byte.to_le_bytes()[0]).collect();
    header.frame.size = HEADER_SIZE + to_size(body.len());
    header.header_mut().set_checksums(&body);
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(&body);
    if random.chance(MILLION / 2) {
        let place = random.index(bytes.len());
        bytes[place] ^= 1;
    }
    FrameBytes::new(&bytes)
}
