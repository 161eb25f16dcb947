//! Asks servers how they are, all at once and within a time limit.
//!
//! One small frame each way, outside the protocol of clients, so that neither a session nor a
//! quorum is needed. Not covered: what the answers mean together.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use crate::protocol::about::{STATUS_SIZE, StatusBody, request_status, status_body};
use crate::protocol::{AlignedMemory, Command, HEADER_SIZE, Header, to_index};
use crate::vsr::{Standing, Unready};

/// How a server said that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its index.
    pub replica: u8,
    /// What it said.
    pub body: StatusBody,
}

impl Said {
    /// What it does.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let known = Standing::ALL.get(usize::from(self.body.standing));
        known.copied().unwrap_or(Standing::Stopped)
    }

    /// Whether it says of itself whether it is ready, and when others answered it: older releases
    /// do not.
    #[must_use]
    pub fn judges_itself(&self) -> bool {
        self.body.edition > 0
    }

    /// Why it says that it is not ready.
    #[must_use]
    pub fn unready(&self) -> Option<Unready> {
        Unready::from_number(self.body.unready).filter(|_| self.judges_itself())
    }
}

/// What came of asking one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address.
    pub address: SocketAddr,
    /// The answer, or why there is none.
    pub result: Result<Said, String>,
}

impl Answer {
    /// What was said, if anything was.
    #[must_use]
    pub fn said(&self) -> Option<&Said> {
        self.result.as_ref().ok()
    }
}

/// Asks all addresses, and waits at most this long.
#[must_use]
pub fn ask_all(cluster: u128, addresses: &[SocketAddr], time: Duration) -> Vec<Answer> {
    let ask_one = |address: SocketAddr| {
        let question = move || ask(cluster, address, time).map_err(|error| reason(&error, time));
        (address, thread::spawn(question))
    };
    let asked: Vec<_> = addresses.iter().map(|address| ask_one(*address)).collect();
    let answer = |(address, thread): (SocketAddr, thread::JoinHandle<_>)| {
        let result = thread.join().unwrap_or_else(|_| Err("asking it failed".to_owned()));
        Answer { address, result }
    };
    asked.into_iter().map(answer).collect()
}

/// Why there is no answer.
fn reason(error: &io::Error, time: Duration) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nobody listens there".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => format!(
            "no answer within {} s: it is still starting, is hung, or is not a Florin server",
            time.as_secs()
        ),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => {
            "closed the connection: another cluster's id (its messages name it), too many \
             connections, or not a Florin server"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Asks one server.
fn ask(cluster: u128, address: SocketAddr, time: Duration) -> io::Result<Said> {
    let end = Instant::now() + time;
    let mut stream = TcpStream::connect_timeout(&address, time)?;
    stream.set_write_timeout(Some(time))?;
    stream.write_all(request_status(cluster).as_bytes())?;
    let length = to_index(HEADER_SIZE + STATUS_SIZE);
    // Aligned as a header has to be.
    let mut memory = AlignedMemory::new(length);
    let bytes = &mut memory[..length];
    let mut filled = 0;
    while filled < length {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes[filled..])? {
            0 if bytes.starts_with(b"HTTP/") => return Err(not_a_status("it is a web server")),
            0 if filled > 0 => return Err(not_a_status("it is not a Florin server")),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    let (header, body) = bytes.split_at(to_index(HEADER_SIZE));
    let wrong = || not_a_status("it is not a Florin server, or one of another release");
    let header = Header::from_bytes(header);
    let valid = header.valid_checksum() && header.frame.command == Command::Status as u8;
    if !valid || header.invalid().is_some() || !header.valid_checksum_body(body) {
        return Err(wrong());
    }
    let replica = header.frame.replica;
    status_body(body).map(|body| Said { replica, body }).ok_or_else(wrong)
}

fn not_a_status(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its answer is not a status: {why}"))
}
