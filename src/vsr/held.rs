//! Requests that reached a replica that cannot prepare them.
//!
//! A client sends each request to the primary it knows and to one other replica. That one keeps the
//! request until it sees it in a prepare; when it does not for a while, or when a view begins, it
//! hands the request to the primary. So a request survives its primary without the client's help.
//! And the client is told from here when the primary may not know where it is. Bounded by one
//! request for each session. Not covered: judging requests, which only a primary does.

use super::ConnectionId;
use crate::protocol::{Message, to_index};

/// A client's request, or what is left of it once a prepare has it.
#[derive(Debug)]
pub struct Held {
    /// Whose it is.
    pub client: u128,
    /// Its checksum.
    pub request_checksum: u128,
    /// Where the client is; unknown if another replica forwarded it.
    pub connection: Option<ConnectionId>,
    /// The request, until it is seen in a prepare.
    pub message: Option<Message>,
    /// When the client asked last, by the monotonic clock.
    came_ns: u64,
    /// When it came first or was forwarded last.
    pub since_ns: u64,
    /// Whether the primary has it from here, so that the reply must come from here as well.
    pub forwarded: bool,
}

/// The newest request of each client.
#[derive(Debug)]
pub struct HeldRequests {
    held: Vec<Held>,
    count_max: usize,
}

impl HeldRequests {
    /// Room for one request of each of so many clients.
    #[must_use]
    pub fn new(clients_max: u32) -> HeldRequests {
        let count_max = to_index(clients_max);
        HeldRequests { held: Vec::with_capacity(count_max), count_max }
    }

    /// Keeps a request in place of the client's last one. If there is no room, it takes the place
    /// of the one that is there longest.
    ///
    /// # Panics
    ///
    /// If the message is no request.
    pub fn keep(&mut self, connection: Option<ConnectionId>, message: Message, now_ns: u64) {
        let header = message.request();
        let (client, request_checksum) = (header.client, header.frame.checksum);
        let known = self.held.iter_mut().find(|held| held.client == client);
        if let Some(held) = known {
            held.connection = connection.or(held.connection);
            held.came_ns = now_ns;
            if held.request_checksum != request_checksum {
                held.request_checksum = request_checksum;
                held.message = Some(message);
                held.since_ns = now_ns;
                held.forwarded = false;
            } else if held.message.is_none() {
                // It was in a prepare, which may have been cut.
                held.message = Some(message);
                held.since_ns = now_ns;
            } else if held.message.as_ref().is_some_and(|kept| !kept.0.is_unique()) {
                // The old one still waits to be sent to somebody who may never take it.
                held.message = Some(message);
            }
            return;
        }
        if self.held.len() == self.count_max {
            let oldest = (0..self.held.len()).min_by_key(|index| self.held[*index].came_ns);
            self.held.swap_remove(oldest.expect("a full table is not empty"));
        }
        let message = Some(message);
        self.held.push(Held {
            client,
            request_checksum,
            connection,
            message,
            came_ns: now_ns,
            since_ns: now_ns,
            forwarded: false,
        });
    }

    /// Remembers where the client is whose request this replica had accepted as primary.
    pub fn remember(
        &mut self,
        client: u128,
        request_checksum: u128,
        connection: Option<ConnectionId>,
        now_ns: u64,
    ) {
        self.held.retain(|held| held.client != client);
        if self.held.len() < self.count_max {
            self.held.push(Held {
                client,
                request_checksum,
                connection,
                message: None,
                came_ns: now_ns,
                since_ns: now_ns,
                forwarded: false,
            });
        }
    }

    /// Notes that a request is in a prepare: it need not be handed over any more.
    pub fn prepared(&mut self, client: u128, request_checksum: u128) {
        let held = self.held.iter_mut().find(|held| held.client == client);
        if let Some(held) = held
            && held.request_checksum == request_checksum
        {
            held.message = None;
        }
    }

    /// Takes out a client's request that was executed.
    pub fn finish(&mut self, client: u128, request_checksum: u128) -> Option<Held> {
        let index = self
            .held
            .iter()
            .position(|held| held.client == client && held.request_checksum == request_checksum)?;
        Some(self.held.swap_remove(index))
    }

    /// Takes out what is known of a client whose session is over, if it was forwarded.
    pub fn evict(&mut self, client: u128) -> Option<Held> {
        let index = self.held.iter().position(|held| held.client == client && held.forwarded)?;
        Some(self.held.swap_remove(index))
    }

    /// Takes out any request that is still whole and whose bytes nobody else is using.
    pub fn take(&mut self) -> Option<Held> {
        let free = |held: &Held| held.message.as_ref().is_some_and(|kept| kept.0.is_unique());
        let index = self.held.iter().position(free)?;
        Some(self.held.swap_remove(index))
    }

    /// Requests that are still whole and came or were forwarded before `before_ns`.
    pub fn due(&mut self, before_ns: u64) -> impl Iterator<Item = &mut Held> {
        let waits = move |held: &&mut Held| held.message.is_some() && held.since_ns < before_ns;
        self.held.iter_mut().filter(waits)
    }

    /// Requests that are kept, or remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Forgets what has waited longer than anybody asks for, and what is only remembered.
    pub fn forget(&mut self, before_ns: u64) {
        self.held.retain(|held| held.came_ns >= before_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Command, Pool};

    fn request(pool: &Pool, client: u128, number: u32) -> Message {
        let mut message = Message::new(pool.acquire(), Command::Request);
        message.request_mut().client = client;
        message.request_mut().request = number;
        message.set_checksums();
        message
    }

    /// Goal: one request a client, newest wins; a full table drops the oldest; what is in a prepare
    /// is not handed over but is still known.
    #[test]
    fn one_for_each_client() {
        let pool = Pool::new("test", 8, 4096);
        let mut held = HeldRequests::new(2);
        let connection = Some(ConnectionId { index: 3, generation: 1 });
        held.keep(connection, request(&pool, 1, 1), 10);
        let newer = request(&pool, 1, 2);
        let checksum = newer.header().frame.checksum;
        held.keep(None, newer, 20);
        assert_eq!(pool.available(), 7);
        assert_eq!(held.due(20).count(), 0);
        assert_eq!(held.due(21).count(), 1);
        held.prepared(1, checksum);
        assert_eq!((pool.available(), held.due(100).count()), (8, 0));
        held.keep(None, request(&pool, 1, 2), 30);
        assert_eq!((pool.available(), held.due(31).count()), (7, 1), "its prepare may be cut");
        held.prepared(1, checksum);
        held.keep(None, request(&pool, 2, 1), 5);
        held.keep(None, request(&pool, 3, 1), 6);
        assert_eq!(held.take().unwrap().client, 3);
        let finished = held.finish(1, checksum).unwrap();
        assert_eq!((finished.connection, finished.message.is_none()), (connection, true));
        assert!(held.take().is_none() && held.is_empty());
    }

    /// Goal: what is handed over again and again is forgotten all the same, unless its client asks
    /// again.
    #[test]
    fn forgotten_however_often_forwarded() {
        let pool = Pool::new("test", 8, 4096);
        let mut held = HeldRequests::new(2);
        held.keep(None, request(&pool, 1, 1), 10);
        held.keep(None, request(&pool, 2, 1), 10);
        held.due(100).for_each(|held| held.since_ns = 1000);
        held.keep(None, request(&pool, 2, 1), 20);
        held.forget(10);
        assert_eq!(held.len(), 2);
        held.forget(11);
        assert_eq!((held.len(), held.take().map(|held| held.client)), (1, Some(2)));
    }
}
