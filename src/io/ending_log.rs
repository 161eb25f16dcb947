//! Lines to the operator when clients lose their sessions or find no place for a connection.
//!
//! Rate-limited, since clients cause them; the metrics count all of them. Not covered: the
//! decision, which is the core's and the bus's.

use std::fmt;

use super::bus::Bus;
use super::complaint::Complaint;
use crate::vsr::{ConnectionId, Ending};

/// Rate-limited lines of each kind. See the module.
#[derive(Debug, Default)]
pub struct EndingLog {
    tick: u64,
    evicted: Complaint,
    displaced: Complaint,
    refused: Complaint,
    refused_before: u64,
}

/// Where a client is, if that is known.
struct From<'a>(&'a Bus, Option<ConnectionId>);

impl fmt::Display for From<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let From(bus, connection) = self;
        match connection.map(|connection| bus.peer_address(connection)) {
            Some(address) if address.port() != 0 => write!(formatter, "{address}"),
            Some(_) => formatter.write_str("a connection that has ended"),
            None => formatter.write_str("another replica"),
        }
    }
}

impl EndingLog {
    /// Logs that a session has ended.
    pub fn write(&mut self, ending: &Ending, bus: &Bus) {
        match ending {
            Ending::Evicted { client, reason, connection } => {
                let from = From(bus, *connection);
                self.evicted.write(
                    self.tick,
                    format_args!("evicted client {client:032x} at {from}: {}", reason.text()),
                );
            }
            Ending::Displaced { client, by } => self.displaced.write(
                self.tick,
                format_args!(
                    "displaced the session of client {client:032x} for client {by:032x}: the table \
                     is full (florin_sessions_max); the displaced client is evicted at its next \
                     request"
                ),
            ),
        }
    }

    /// Lets a tick pass, and logs connections that found no place.
    pub fn tick(&mut self, bus: &Bus) {
        self.tick += 1;
        let refused = bus.counters().refused;
        if refused != self.refused_before {
            let count = refused - self.refused_before;
            self.refused_before = refused;
            self.refused.write(
                self.tick,
                format_args!(
                    "refused connections: {count}, since all {} places for clients are taken; \
                     close connections that are not needed",
                    bus.clients_max()
                ),
            );
        }
    }
}
