//! One TCP connection to one replica: bytes in, bytes out, frames found and checked.
//!
//! Never blocks. Checks the checksums and sizes of frames, not their contents. A connection that
//! fails is opened again after a pause, and the request in flight is then sent from its beginning.
//! Meanwhile a thread looks the host name up again, since that may block: the host may have moved,
//! or its name had no address yet.

use super::address::ReplicaAddress;
use super::error::Trouble;
use super::random::Random;
use super::system::{POLLIN, POLLOUT, connect_start, pollfd};
use crate::protocol::{AlignedMemory, HEADER_SIZE, Header, MESSAGE_SIZE_MAX, to_index};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use zerocopy::IntoBytes;

/// Shortest pause before connecting again, in nanoseconds; doubles with each failure.
const RECONNECT_MIN_NS: u64 = 50_000_000;
/// Longest pause before connecting again, in nanoseconds.
const RECONNECT_MAX_NS: u64 = 1_000_000_000;

/// A connection. See the module.
#[derive(Debug)]
pub(super) struct Connection {
    address: ReplicaAddress,
    /// Index of the address that is tried or connected.
    candidate: usize,
    stream: Option<TcpStream>,
    is_established: bool,
    incoming: AlignedMemory,
    filled: usize,
    /// Nothing has arrived on this connection yet.
    is_silent: bool,
    /// A valid header of the cluster has arrived on this connection.
    is_understood: bool,
    /// Bytes already sent of the request in flight, if it is to be sent here.
    request_offset: Option<usize>,
    ping: Option<Header>,
    ping_offset: usize,
    failures: u32,
    connect_at_ns: u64,
    /// The failure of the last attempt, and its address if it had one.
    error_last: Option<(Option<SocketAddr>, Trouble)>,
    /// Consecutive connections that the peer closed without having sent anything.
    refusals: u32,
    /// The host's name is being looked up.
    lookup: Option<JoinHandle<Option<ReplicaAddress>>>,
}

impl Connection {
    pub(super) fn new(address: ReplicaAddress) -> Connection {
        Connection {
            address,
            candidate: 0,
            stream: None,
            is_established: false,
            incoming: AlignedMemory::new(to_index(MESSAGE_SIZE_MAX)),
            filled: 0,
            is_silent: true,
            is_understood: false,
            request_offset: None,
            ping: None,
            ping_offset: 0,
            failures: 0,
            connect_at_ns: 0,
            error_last: None,
            refusals: 0,
            lookup: None,
        }
    }

    /// Returns the address that is tried or connected; none while the name has none.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address.candidates().get(self.candidate).copied()
    }

    /// Consecutive connections that the peer closed without having sent anything.
    pub(super) fn refusals(&self) -> u32 {
        self.refusals
    }

    /// Whether bytes can be exchanged, as far as is known.
    pub(super) fn is_established(&self) -> bool {
        self.is_established
    }

    /// Returns the reason for which this replica sends nothing: the failure of the last attempt,
    /// unless bytes arrived since, or the step that the connection waits for.
    pub(super) fn trouble(&self) -> Option<(String, Trouble)> {
        let (address, trouble) = match (self.error_last, &self.stream) {
            (Some(error), _) => error,
            (None, None) => return None,
            (None, Some(_)) if !self.is_established => (self.address(), Trouble::Connecting),
            (None, Some(_)) if self.is_silent => (self.address(), Trouble::Silent),
            (None, Some(_)) => (self.address(), self.foreign().unwrap_or(Trouble::Unanswered)),
        };
        let text = address.map_or_else(|| self.address.to_string(), |it| it.to_string());
        Some((text, trouble))
    }

    /// Returns the trouble with a peer that sent bytes, none of them of the protocol. The banner of
    /// another service may be shorter than a header.
    fn foreign(&self) -> Option<Trouble> {
        let bytes = &self.incoming[..self.filled];
        match bytes {
            [] => None,
            _ if self.is_understood => None,
            _ if bytes.starts_with(b"HTTP/") => Some(Trouble::Http),
            _ => Some(Trouble::Foreign),
        }
    }

    /// Returns the time to call [`Connection::start`], if there is no connection.
    pub(super) fn connect_at_ns(&self) -> Option<u64> {
        if self.stream.is_none() { Some(self.connect_at_ns) } else { None }
    }

    /// Begins to connect if it is time to.
    pub(super) fn start(&mut self, now_ns: u64, random: &mut Random) {
        if self.stream.is_some() || now_ns < self.connect_at_ns {
            return;
        }
        self.lookup_finish();
        let Some(address) = self.address() else {
            return self.fail(ErrorKind::NotFound, now_ns, random);
        };
        match connect_start(address) {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => self.fail(error.kind(), now_ns, random),
        }
    }

    /// Closes the connection; it will be tried again later.
    pub(super) fn fail(&mut self, error: ErrorKind, now_ns: u64, random: &mut Random) {
        let trouble = match (self.foreign(), error) {
            _ if self.address().is_none() => Trouble::Unresolved,
            (Some(foreign), _) => foreign,
            (None, ErrorKind::InvalidData) => Trouble::Foreign,
            (None, error) => Trouble::Failed(error),
        };
        self.error_last = Some((self.address(), trouble));
        if !self.is_established {
            self.refusals = 0;
            let count = self.address.candidates().len();
            self.candidate = (self.candidate + 1).checked_rem(count).unwrap_or(0);
            if self.candidate > 0 {
                // Another address of the same host: no reason to wait.
                self.connect_at_ns = now_ns;
                return self.reset();
            }
        }
        self.lookup_start();
        let pause_ns = (RECONNECT_MIN_NS << self.failures.min(5)).min(RECONNECT_MAX_NS);
        self.connect_at_ns = now_ns + pause_ns / 2 + random.below(pause_ns / 2);
        self.failures += 1;
        self.reset();
    }

    /// Starts a look-up of the host's name, if it has one and no look-up runs.
    fn lookup_start(&mut self) {
        let Some((name, port)) = self.address.name().filter(|_| self.lookup.is_none()) else {
            return;
        };
        let name = name.to_owned();
        let thread = std::thread::Builder::new().name("florin-lookup".to_owned());
        // Without a thread the addresses stay as they are.
        self.lookup = thread.spawn(move || ReplicaAddress::look_up(&name, port).ok()).ok();
    }

    /// Takes the addresses of a look-up that has ended.
    fn lookup_finish(&mut self) {
        let Some(lookup) = self.lookup.take_if(|lookup| lookup.is_finished()) else { return };
        match lookup.join() {
            Ok(Some(found)) if found != self.address => {
                assert!(self.stream.is_none(), "addresses change between connections");
                self.candidate = 0;
                self.address = found;
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Closes the connection and connects again at the next opportunity.
    fn reset(&mut self) {
        self.stream = None;
        self.is_established = false;
        self.is_silent = true;
        self.is_understood = false;
        self.filled = 0;
        self.ping = None;
        self.ping_offset = 0;
        self.request_offset = self.request_offset.map(|_| 0);
    }

    /// Marks the request in flight to be sent here, unless it is being sent already.
    pub(super) fn request_start(&mut self) {
        self.request_offset.get_or_insert(0);
    }

    /// Whether the request is still to be sent here, entirely or in part.
    pub(super) fn request_is_pending(&self) -> bool {
        self.request_offset.is_some()
    }

    /// Cancels the request. A request that was sent in part cannot be taken back: the connection is
    /// closed.
    pub(super) fn request_cancel(&mut self) {
        if self.request_offset.is_some_and(|offset| offset > 0) {
            self.reset();
        }
        self.request_offset = None;
    }

    /// Sends a ping when there is a connection and none is waiting already.
    pub(super) fn ping_start(&mut self, ping: &Header) {
        if self.is_established && self.ping.is_none() {
            self.ping = Some(*ping);
            self.ping_offset = 0;
        }
    }

    /// Returns the events to wait for.
    pub(super) fn interest(&self) -> pollfd {
        let Some(stream) = &self.stream else {
            return pollfd { fd: -1, events: 0, revents: 0 };
        };
        let mut events = 0;
        if !self.is_established || self.request_offset.is_some() || self.ping.is_some() {
            events |= POLLOUT;
        }
        if self.is_established && self.filled < self.incoming.len() {
            events |= POLLIN;
        }
        pollfd { fd: stream.as_raw_fd(), events, revents: 0 }
    }

    /// Checks how the attempt to connect ended, after the socket was reported ready.
    pub(super) fn establish(&mut self) -> io::Result<()> {
        if self.is_established {
            return Ok(());
        }
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        stream.peer_addr()?;
        self.is_established = true;
        Ok(())
    }

    /// Sends the request and the ping, as far as the system takes them.
    pub(super) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        if !self.is_established {
            return Ok(());
        }
        let stream = self.stream.as_mut().expect("an established connection has a stream");
        // One iteration per frame: a frame that was begun goes first.
        for _ in 0..3 {
            let request_begun = self.request_offset.is_some_and(|offset| offset > 0);
            if let (Some(ping), false) = (&self.ping, request_begun) {
                if !write_some(stream, ping.as_bytes(), &mut self.ping_offset)? {
                    return Ok(());
                }
                self.ping = None;
                self.ping_offset = 0;
            }
            if let Some(offset) = &mut self.request_offset {
                if !write_some(stream, request, offset)? {
                    return Ok(());
                }
                self.request_offset = None;
            }
        }
        Ok(())
    }

    /// Reads the bytes that have arrived, as far as there is room.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.is_established) else {
            return Ok(());
        };
        while self.filled < self.incoming.len() {
            let space = self.incoming.len() - self.filled;
            match stream.read(&mut self.incoming[self.filled..]) {
                Ok(0) => {
                    self.refusals += u32::from(self.is_silent);
                    return Err(ErrorKind::ConnectionReset.into());
                }
                Ok(count) => {
                    self.filled += count;
                    self.failures = 0;
                    self.error_last = None;
                    self.refusals = 0;
                    self.is_silent = false;
                    if count < space {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let is_closed = error.kind() == ErrorKind::ConnectionReset;
                    self.refusals += u32::from(self.is_silent && is_closed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Size of the complete and undamaged frame at the front, if there is one.
    pub(super) fn frame_size(&mut self, cluster: u128) -> io::Result<Option<usize>> {
        if self.filled < to_index(HEADER_SIZE) {
            return Ok(None);
        }
        let header = Header::from_bytes(&self.incoming);
        let size = header.frame.size;
        let size_holds = (HEADER_SIZE..=MESSAGE_SIZE_MAX).contains(&size);
        if !header.valid_checksum() || !size_holds || header.frame.cluster != cluster {
            return Err(ErrorKind::InvalidData.into());
        }
        self.is_understood = true;
        if self.filled < to_index(size) {
            return Ok(None);
        }
        if !header.valid_checksum_body(&self.incoming[to_index(HEADER_SIZE)..to_index(size)]) {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(Some(to_index(size)))
    }

    /// The first bytes that arrived and were not consumed.
    pub(super) fn front(&self, size: usize) -> &[u8] {
        assert!(size <= self.filled);
        &self.incoming[..size]
    }

    /// Drops the frame at the front.
    pub(super) fn consume(&mut self, size: usize) {
        assert!(size <= self.filled);
        let filled = self.filled;
        self.incoming.copy_within(size..filled, 0);
        self.filled -= size;
    }
}

/// Writes from `offset` on. Returns whether everything is written.
fn write_some(stream: &mut TcpStream, bytes: &[u8], offset: &mut usize) -> io::Result<bool> {
    while *offset < bytes.len() {
        match stream.write(&bytes[*offset..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *offset += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
