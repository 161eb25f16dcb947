//! The one history: what was committed, in which order, and what each request is answered.
//!
//! The first replica that commits an op makes history; everybody else must commit the same. The
//! reference model executes history as it is made, so every reply that any replica sends can be
//! compared bit for bit, and whoever asks again must get the very same bytes. Also here: who has a
//! session, and that no request is executed twice.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::{FromBytes, IntoBytes};

use super::Failure;
use crate::protocol::packed::{RequestView, Requests};
use crate::protocol::types::RegisterResult;
use crate::protocol::{
    EvictionReason, HEADER_SIZE, Header, Operation, PrepareHeader, ReplyHeader, checksum, to_index,
};
use crate::require;
use crate::simulator::model::{Model, ModelOptions};
use crate::storage::{Config, count_of, index_of};

/// Ops between two looks at the invariants of all balances.
const INVARIANTS_INTERVAL: u64 = 64;

/// What a request is answered.
#[derive(Debug)]
struct Answer {
    timestamp: u64,
    request_checksum: u128,
    operation: Operation,
    body: Vec<u8>,
    /// Checksum of the whole reply as it was sent first.
    sent: Option<u128>,
}

/// A session as the committed ops make it.
#[derive(Clone, Copy, Debug)]
struct SessionRecord {
    /// Op and place of its newest request.
    recency: (u64, u32),
}

/// The committed history.
#[derive(Debug)]
pub struct History {
    config: Config,
    /// Prepares that somebody wrote and that may still be committed.
    prepares: BTreeMap<(u64, u128), Vec<u8>>,
    /// The op of each place, from the root on.
    headers: Vec<PrepareHeader>,
    model: Model,
    /// By client, request and op: a session that went may register a second time.
    answers: BTreeMap<(u128, u32, u64), Answer>,
    /// Requests of clients that were executed.
    executed: BTreeSet<(u128, u32)>,
    sessions: BTreeMap<u128, SessionRecord>,
    evicted: BTreeSet<u128>,
    /// Clients that were told so while a replica executes the next op, which must do it.
    evicted_early: BTreeSet<u128>,
    timestamp: u64,
    replies_checked: u64,
}

impl History {
    /// Nothing but the root.
    #[must_use]
    pub fn new(cluster: u128, config: &Config) -> History {
        let reply_size = config.reply_size_max - HEADER_SIZE;
        let change_events = Operation::change_events_max(config.message_size_max - HEADER_SIZE);
        let model = Model::new(ModelOptions {
            pulse_expiries_max: to_index(config.pulse_max),
            query_results_max: to_index(reply_size / 128 - 1),
            change_events_max: to_index(change_events.min(reply_size / 384)),
        });
        History {
            config: *config,
            prepares: BTreeMap::new(),
            headers: vec![PrepareHeader::root(cluster)],
            model,
            answers: BTreeMap::new(),
            executed: BTreeSet::new(),
            sessions: BTreeMap::new(),
            evicted: BTreeSet::new(),
            evicted_early: BTreeSet::new(),
            timestamp: 0,
            replies_checked: 0,
        }
    }

    /// The newest committed op.
    #[must_use]
    pub fn head(&self) -> u64 {
        count_of(self.headers.len()) - 1
    }

    /// Header of a committed op.
    #[must_use]
    pub fn header(&self, op: u64) -> Option<&PrepareHeader> {
        self.headers.get(index_of(op))
    }

    /// Replies that were compared.
    #[must_use]
    pub fn replies_checked(&self) -> u64 {
        self.replies_checked
    }

    /// Remembers a prepare that somebody is about to write to a log.
    pub fn learn(&mut self, prepare: &[u8]) {
        let Ok((header, _)) = PrepareHeader::read_from_prefix(prepare) else { return };
        if header.op <= self.head() || header.frame.checksum == 0 {
            return;
        }
        let size = to_index(header.frame.size);
        self.prepares
            .entry((header.op, header.frame.checksum))
            .or_insert_with(|| prepare[..size].to_vec());
    }

    /// Notes that a replica committed this op; whether it is the first.
    ///
    /// # Errors
    ///
    /// If it is another op than others committed, or none that could come next.
    pub fn commit(&mut self, replica: usize, header: &PrepareHeader) -> Result<bool, Failure> {
        let op = header.op;
        if op <= self.head() {
            let known = self.headers[index_of(op)].frame.checksum;
            require!(
                known == header.frame.checksum,
                "replica {replica} committed op {op} as {:#x} of view {}, others as {known:#x}",
                header.frame.checksum,
                header.frame.view
            );
            return Ok(false);
        }
        require!(
            op == self.head() + 1,
            "replica {replica} committed op {op} after {}",
            self.head()
        );
        let parent = self.headers[index_of(op - 1)].frame.checksum;
        require!(header.parent == parent, "replica {replica}: op {op} does not follow the log");
        let program = self.headers[index_of(op - 1)].program;
        require!(
            header.program >= program,
            "replica {replica}: op {op} is of release {}, the one before of {program}",
            header.program
        );
        let Some(bytes) = self.prepares.remove(&(op, header.frame.checksum)) else {
            let message = format!("replica {replica} committed op {op}, which nobody wrote");
            return Err(Failure::correctness(message));
        };
        self.execute(header, &bytes[to_index(HEADER_SIZE)..])?;
        self.headers.push(*header);
        for client in std::mem::take(&mut self.evicted_early) {
            let went = self.evicted.contains(&client);
            require!(went, "client {client:#x} was evicted, but not by op {op}");
        }
        self.prepares.retain(|(other, _), _| *other > op);
        if op.is_multiple_of(INVARIANTS_INTERVAL) {
            self.model.check_invariants();
        }
        Ok(true)
    }

    /// The last look at all balances.
    ///
    /// # Errors
    ///
    /// If a client was told that its session is over, and it is not.
    pub fn finish(&self) -> Result<(), Failure> {
        self.model.check_invariants();
        require!(
            self.evicted_early.is_empty(),
            "clients {:#x?} were evicted although their sessions are alive",
            self.evicted_early
        );
        Ok(())
    }

    fn execute(&mut self, header: &PrepareHeader, body: &[u8]) -> Result<(), Failure> {
        let op = header.op;
        if header.operation == u8::from(Operation::Pulse) {
            self.advance(op, header.timestamp)?;
            self.model.pulse(header.timestamp);
            return Ok(());
        }
        let requests = Requests::decode(header, body)
            .map_err(|error| Failure::correctness(format!("op {op} does not decode: {error:?}")))?;
        for (place, request) in (0..).zip(requests) {
            self.advance(op, request.timestamp)?;
            self.execute_request(op, place, &request)?;
        }
        Ok(())
    }

    fn advance(&mut self, op: u64, timestamp: u64) -> Result<(), Failure> {
        let before = self.timestamp;
        require!(timestamp > before, "op {op} has timestamp {timestamp}, not after {before}");
        self.timestamp = timestamp;
        Ok(())
    }

    fn execute_request(
        &mut self,
        op: u64,
        place: u32,
        request: &RequestView<'_>,
    ) -> Result<(), Failure> {
        let client = request.client;
        let body = if request.operation == Operation::Register {
            let limit = self.config.message_size_max - HEADER_SIZE;
            RegisterResult { batch_size_limit: limit, reserved: [0; 60] }.as_bytes().to_vec()
        } else {
            self.model.execute(request.operation, request.timestamp, request.body)
        };
        let answer = Answer {
            timestamp: request.timestamp,
            request_checksum: request.request_checksum,
            operation: request.operation,
            body,
            sent: None,
        };
        self.answers.insert((client, request.request, op), answer);
        let first = self.executed.insert((client, request.request));
        // A late copy of a registration, after the session went, makes another session.
        let again = request.operation == Operation::Register && self.evicted.contains(&client);
        require!(
            first || again,
            "op {op} executes request {} of client {client:#x} a second time",
            request.request
        );
        self.note_session((op, place), request);
        Ok(())
    }

    fn note_session(&mut self, recency: (u64, u32), request: &RequestView<'_>) {
        let client = request.client;
        if let Some(record) = self.sessions.get_mut(&client) {
            record.recency = recency;
        } else if request.operation == Operation::Register {
            if self.sessions.len() == to_index(self.config.clients_max) {
                let oldest = self.sessions.iter().min_by_key(|(_, record)| record.recency);
                let oldest = *oldest.expect("the table is full").0;
                self.sessions.remove(&oldest);
                self.evicted.insert(oldest);
            }
            self.sessions.insert(client, SessionRecord { recency });
        }
    }

    /// Checks a reply that a replica sends.
    ///
    /// # Errors
    ///
    /// If it is not what the model says, or not what was sent before.
    pub fn reply(&mut self, replica: usize, frame: &[u8]) -> Result<(), Failure> {
        let header: &ReplyHeader = Header::from_bytes(frame).reply();
        let (client, number) = (header.client, header.request);
        let who = format!("replica {replica} to client {client:#x}, request {number}");
        let op = header.op;
        let Some(answer) = self.answers.get_mut(&(client, number, op)) else {
            return Err(Failure::correctness(format!("{who}: a reply to what was not committed")));
        };
        let facts = (header.timestamp, header.request_checksum, header.operation);
        let operation = u8::from(answer.operation);
        let expected = (answer.timestamp, answer.request_checksum, operation);
        require!(facts == expected, "{who}: reply says {facts:?}, history {expected:?}");
        let body = &frame[to_index(HEADER_SIZE)..];
        require!(
            body == answer.body,
            "{who}: {:?} of op {op} got {} bytes that differ from the model's {}: first at {:?}",
            answer.operation,
            body.len(),
            answer.body.len(),
            body.iter().zip(&answer.body).position(|(left, right)| left != right)
        );
        let sum = checksum(frame);
        let sent = *answer.sent.get_or_insert(sum);
        require!(sent == sum, "{who}: two replies that differ outside the body");
        self.replies_checked += 1;
        Ok(())
    }

    /// Checks that a session is over when its client is told so.
    ///
    /// # Errors
    ///
    /// If it can't be over.
    pub fn evicted(&mut self, client: u128, reason: EvictionReason) -> Result<(), Failure> {
        let went = self.evicted.contains(&client);
        // A late copy of the registration may have made another session since.
        let known = reason == EvictionReason::NoSession
            || (reason == EvictionReason::SessionTooLow && went);
        require!(known, "client {client:#x} was evicted because of {reason:?}");
        // Then it must go by the op after the newest: a replica that is executing it knows that
        // before it has done so.
        if self.sessions.contains_key(&client) && !went {
            self.evicted_early.insert(client);
        }
        Ok(())
    }
}
