//! The table of clients' sessions with their newest replies.
//!
//! A session is known by its client and holds the newest reply, from which everything else about
//! it follows. The table changes only by committed ops, so it is the same on every replica; where
//! a client was last heard is beside it and is not.
//!
//! When a client registers and the table is full, the session whose reply is oldest makes way.
//! Since release 0.2.0 only sessions of clients that end soon are considered while the table holds
//! at least [`SHORT_LIVED_MIN`] of them: their commands must not displace an idle application.
//! With fewer, they need protection themselves: in a table filled by applications that are gone,
//! two of them would displace each other at every question. Covered: the table and its form in a
//! checkpoint. Not covered: the rules by which a request is judged.

use super::ConnectionId;
use super::machine::CheckpointFault;
use super::requests::SessionFacts;
use crate::protocol::client_id::is_short_lived;
use crate::protocol::{Command, HEADER_SIZE, Header, Message, Pool, Release, to_index, to_size};

/// The first release by which sessions of clients that end soon make way before others.
const SHORT_LIVED_FIRST: Release = Release::new(0, 2, 0);
/// Sessions of clients that end soon which a full table holds before they make way first.
const SHORT_LIVED_MIN: usize = 8;
/// Bytes in front of each reply in a checkpoint.
const ENTRY_SIZE: u32 = 16;
/// Bytes in front of all sessions in a checkpoint.
const TABLE_HEADER_SIZE: u32 = 16;

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Its number: the op in which it registered.
    pub session: u64,
    /// Place of the newest request among those of its op.
    pub place: u32,
    /// Where the client was last heard.
    pub connection: Option<ConnectionId>,
    /// The newest reply.
    pub reply: Message,
}

impl Session {
    /// Whose it is.
    #[must_use]
    pub fn client(&self) -> u128 {
        self.reply.reply().client
    }

    /// When it was last active: the op of its newest reply, and the place in it.
    #[must_use]
    pub fn recency(&self) -> (u64, u32) {
        (self.reply.reply().op, self.place)
    }

    /// What the rules for requests need.
    #[must_use]
    pub fn facts(&self) -> SessionFacts {
        let reply = self.reply.reply();
        SessionFacts {
            session: self.session,
            release: reply.frame.release,
            request: reply.request,
            request_checksum: reply.request_checksum,
            context: reply.context,
        }
    }
}

/// The table of sessions.
#[derive(Debug)]
pub struct Sessions {
    sessions: Vec<Session>,
    clients_max: usize,
}

impl Sessions {
    /// Returns an empty table for `clients_max` sessions.
    ///
    /// # Panics
    ///
    /// If it is for none.
    #[must_use]
    pub fn new(clients_max: u32) -> Sessions {
        assert!(clients_max > 0);
        let clients_max = to_index(clients_max);
        Sessions { sessions: Vec::with_capacity(clients_max), clients_max }
    }

    /// Sessions now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// All sessions; of a table that was decoded, the one least recently active first.
    #[must_use]
    pub fn all(&self) -> &[Session] {
        &self.sessions
    }

    /// The session of a client.
    #[must_use]
    pub fn find(&self, client: u128) -> Option<&Session> {
        self.sessions.iter().find(|session| session.client() == client)
    }

    /// The session of a client, to change it.
    pub fn find_mut(&mut self, client: u128) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.client() == client)
    }

    /// Adds the session that a reply to a register is about. In a full table one makes way by the
    /// rules of `program`, the release by which the op is executed; returns its client.
    ///
    /// # Panics
    ///
    /// If the client has a session.
    pub fn register(&mut self, session: Session, program: Release) -> Option<u128> {
        assert!(self.find(session.client()).is_none(), "a client registers once");
        let mut evicted = None;
        if self.sessions.len() == self.clients_max {
            let index = self.makes_way(program);
            evicted = Some(self.sessions.swap_remove(index).client());
        }
        self.sessions.push(session);
        assert!(self.sessions.len() <= self.clients_max);
        evicted
    }

    /// Index of the session that makes way for another by the rules of `program`.
    fn makes_way(&self, program: Release) -> usize {
        let is_short = |session: &Session| is_short_lived(session.client());
        let short_lived = self.sessions.iter().filter(|session| is_short(session)).count();
        let short_first = program >= SHORT_LIVED_FIRST && short_lived >= SHORT_LIVED_MIN;
        let sessions = self.sessions.iter().enumerate();
        let oldest = sessions.min_by_key(|(_, session)| {
            let stays = short_first && !is_short(session);
            (stays, session.recency())
        });
        oldest.expect("a full table is not empty").0
    }

    /// Maximum bytes of a table of sessions in a checkpoint.
    #[must_use]
    pub fn encoded_size_max(clients_max: u32, reply_size_max: u32) -> u64 {
        let entry_size_max = u64::from(ENTRY_SIZE) + u64::from(reply_size_max);
        u64::from(TABLE_HEADER_SIZE) + u64::from(clients_max) * entry_size_max
    }

    /// Appends the table to `out`, the session least recently active first.
    ///
    /// # Panics
    ///
    /// If `out` would have to grow.
    pub fn encode(&mut self, out: &mut Vec<u8>) {
        let capacity = out.capacity();
        self.sessions.sort_unstable_by_key(Session::recency);
        out.extend_from_slice(&to_size(self.sessions.len()).to_le_bytes());
        out.extend_from_slice(&[0; to_index(TABLE_HEADER_SIZE) - 4]);
        for session in &self.sessions {
            out.extend_from_slice(&session.session.to_le_bytes());
            out.extend_from_slice(&session.place.to_le_bytes());
            out.extend_from_slice(&session.reply.size().to_le_bytes());
            out.extend_from_slice(session.reply.bytes());
        }
        assert!(out.capacity() == capacity, "room for all sessions is reserved");
    }

    /// Reads what [`Sessions::encode`] wrote into an empty table.
    ///
    /// # Errors
    ///
    /// What is wrong.
    ///
    /// # Panics
    ///
    /// If the table is not empty or the pool has too few buffers.
    pub fn decode(&mut self, bytes: &[u8], pool: &Pool) -> Result<(), CheckpointFault> {
        assert!(self.is_empty());
        let length = u64::from(to_size(bytes.len()));
        let short = fault("the size", length, "enough for the table");
        let (table, mut rest) = bytes.split_at_checked(to_index(TABLE_HEADER_SIZE)).ok_or(short)?;
        let count = read_u32(&table[..4]);
        if to_index(count) > self.clients_max {
            return Err(fault("the number of sessions", count.into(), "at most the limit"));
        }
        require(table[4..].iter().all(|byte| *byte == 0), "the padding", 1, "zero")?;
        for _ in 0..count {
            let (entry, after) = rest.split_at_checked(to_index(ENTRY_SIZE)).ok_or(short)?;
            let size = read_u32(&entry[12..]);
            let fits = (HEADER_SIZE..=pool.size()).contains(&size);
            require(fits, "the size of a reply", size.into(), "that of a message")?;
            let (reply, after) = after.split_at_checked(to_index(size)).ok_or(short)?;
            let mut buffer = pool.acquire();
            buffer.bytes_mut()[..reply.len()].copy_from_slice(reply);
            let session = Session {
                session: u64::from_le_bytes(entry[..8].try_into().expect("eight bytes")),
                place: read_u32(&entry[8..12]),
                connection: None,
                reply: Message(buffer),
            };
            self.check(&session, size)?;
            self.sessions.push(session);
            rest = after;
        }
        require(rest.is_empty(), "the size", length, "that of the sessions in it")
    }

    fn check(&self, session: &Session, size: u32) -> Result<(), CheckpointFault> {
        let number = session.session;
        let header: &Header = session.reply.header();
        let whole = header.valid_checksum() && header.invalid().is_none();
        let reply = whole && header.frame.command == Command::Reply as u8;
        require(reply, "the reply of a session", number, "with a valid header")?;
        require(header.frame.size == size, "the size of a reply", size.into(), "its header's")?;
        let body = session.reply.valid_checksum_body();
        require(body, "the reply of a session", number, "with a valid body")?;
        let older = number > 0 && number <= header.reply().op;
        require(older, "a session", number, "not newer than its reply")?;
        let single = self.find(session.client()).is_none();
        require(single, "a session", number, "the only one of its client")?;
        let last = self.sessions.last();
        let ordered = last.is_none_or(|last| last.recency() < session.recency());
        require(ordered, "a session", number, "in the order of the replies")
    }
}

fn fault(what: &'static str, found: u64, expected: &'static str) -> CheckpointFault {
    CheckpointFault { part: "sessions", what, found, expected }
}

fn require(
    holds: bool,
    what: &'static str,
    found: u64,
    expected: &'static str,
) -> Result<(), CheckpointFault> {
    if holds { Ok(()) } else { Err(fault(what, found, expected)) }
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Operation;
    use crate::protocol::client_id::short_lived;

    fn session(pool: &Pool, client: u128, op: u64, place: u32) -> Session {
        let mut reply = Message::new(pool.acquire(), Command::Reply);
        reply.set_body_size(32);
        reply.body_mut().fill(7);
        let header = reply.reply_mut();
        header.frame.release = Release::SERVER;
        header.client = client;
        header.op = op;
        header.commit = op;
        header.timestamp = op * 100;
        header.request = 1;
        header.operation = Operation::LookupAccounts.into();
        reply.seal_reply();
        Session { session: 1, place, connection: None, reply }
    }

    fn table(pool: &Pool) -> Sessions {
        let mut sessions = Sessions::new(4);
        for (client, op, place) in [(11, 9, 0), (12, 7, 3), (13, 7, 2), (14, 8, 0)] {
            assert_eq!(sessions.register(session(pool, client, op, place), Release::PROGRAM), None);
        }
        sessions
    }

    /// A full table: a session for each of these clients, in order of their activity.
    fn full(pool: &Pool, clients: &[u128]) -> Sessions {
        let mut sessions = Sessions::new(to_size(clients.len()));
        for (client, op) in clients.iter().zip(1..) {
            let one = session(pool, *client, op, 0);
            assert_eq!(sessions.register(one, Release::PROGRAM), None);
        }
        sessions
    }

    /// Goal: clients that end soon make way before an idle one, by the rules of the release that
    /// brought this, and not by those of the one before.
    #[test]
    fn short_lived_first() {
        let pool = Pool::new("test", 82, 4096);
        let clients: Vec<u128> = [11].into_iter().chain((1..80).map(short_lived)).collect();
        for program in [Release::new(0, 1, 0), Release::PROGRAM] {
            let mut sessions = full(&pool, &clients);
            for (op, newcomer) in (100..).zip([short_lived(90), 12]) {
                let evicted = sessions.register(session(&pool, newcomer, op, 0), program);
                let expected = match (program == Release::PROGRAM, op) {
                    (true, op) => short_lived(op - 99),
                    (false, 100) => 11,
                    (false, op) => short_lived(op - 100),
                };
                assert_eq!(evicted, Some(expected), "{program} {op}");
            }
            assert_eq!(sessions.find(11).is_some(), program == Release::PROGRAM);
        }
    }

    /// Goal: in a table filled by clients that are gone, two that end soon and take turns do not
    /// displace each other; with eight of them, the next one displaces the oldest of the eight.
    #[test]
    fn short_lived_are_not_starved() {
        let pool = Pool::new("test", 18, 4096);
        let mut sessions = full(&pool, &(1..=16).collect::<Vec<u128>>());
        for (client, displaced) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8)]
        {
            let op = 100 + client;
            let newcomer = session(&pool, short_lived(client), op, 0);
            assert_eq!(sessions.register(newcomer, Release::PROGRAM), Some(displaced));
            assert!(sessions.find(short_lived(1)).is_some(), "the first of them asks on");
        }
        let newcomer = session(&pool, short_lived(9), 200, 0);
        assert_eq!(sessions.register(newcomer, Release::PROGRAM), Some(short_lived(1)));
        assert!(sessions.find(16).is_some() && sessions.find(9).is_some());
    }

    /// Goal: a session too many displaces the one whose reply is oldest, by op and then by place,
    /// and not the one that registered first.
    #[test]
    fn least_recently_active_goes() {
        let pool = Pool::new("test", 16, 4096);
        let mut sessions = table(&pool);
        assert_eq!(sessions.register(session(&pool, 15, 10, 0), Release::PROGRAM), Some(13));
        assert_eq!(sessions.register(session(&pool, 16, 11, 0), Release::PROGRAM), Some(12));
        sessions.find_mut(14).unwrap().reply = session(&pool, 14, 12, 0).reply;
        assert_eq!(sessions.register(session(&pool, 17, 13, 0), Release::PROGRAM), Some(11));
        assert!(sessions.find(14).is_some() && sessions.find(13).is_none());
        assert_eq!(sessions.len(), 4);
    }

    fn encoded(sessions: &mut Sessions) -> Vec<u8> {
        let size = usize::try_from(Sessions::encoded_size_max(4, 4096)).unwrap();
        let mut bytes = Vec::with_capacity(size);
        sessions.encode(&mut bytes);
        bytes
    }

    /// Goal: a table survives a checkpoint with its replies byte by byte, and its encoding does
    /// not depend on the order in which it came about.
    #[test]
    fn encoding() {
        let pool = Pool::new("test", 16, 4096);
        let mut sessions = table(&pool);
        let bytes = encoded(&mut sessions);
        let mut copy = Sessions::new(4);
        copy.decode(&bytes, &pool).unwrap();
        for client in 11..=14 {
            let (one, other) = (sessions.find(client).unwrap(), copy.find(client).unwrap());
            assert_eq!(one.reply.bytes(), other.reply.bytes());
            assert_eq!((one.session, one.place), (other.session, other.place));
        }
        copy.sessions.reverse();
        assert_eq!(encoded(&mut copy), bytes);
    }

    /// Goal: no damaged encoding is accepted where a checksum, an order or a bound can tell, and
    /// none panics.
    #[test]
    fn damaged_encodings() {
        let pool = Pool::new("test", 16, 4096);
        let mut bytes = encoded(&mut table(&pool));
        for length in 0..bytes.len() {
            assert!(Sessions::new(4).decode(&bytes[..length], &pool).is_err(), "{length}");
        }
        assert!(Sessions::new(3).decode(&bytes, &pool).is_err(), "too many");
        bytes.push(0);
        assert!(Sessions::new(4).decode(&bytes, &pool).is_err(), "rest");
        bytes.pop();
        for index in 0..bytes.len() {
            bytes[index] ^= 0x80;
            let result = Sessions::new(4).decode(&bytes, &pool);
            // The place within an op has no redundancy of its own; the block has.
            let place = index >= 16 && (8..12).contains(&((index - 16) % (16 + 288)));
            assert!(result.is_err() || place, "byte {index}");
            bytes[index] ^= 0x80;
        }
    }
}
