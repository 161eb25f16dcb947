//! Asks servers for their status, all at once and within a time limit.
//!
//! One small frame each way, outside the protocol of clients, so that neither a session nor a
//! quorum is needed. Each round looks names up again, and tries all addresses of a name. Not
//! covered: what the answers mean together.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use crate::client::ReplicaAddress;
use crate::protocol::about::{STATUS_SIZE, StatusBody, request_status, status_body};
use crate::protocol::{AlignedMemory, Command, HEADER_SIZE, Header, to_index};
use crate::protocol::{REPLICAS_MAX, STANDBYS_MAX};
use crate::vsr::{Standing, Unready};

/// The time that a round may take beyond its limit, so that threads that end at it are heard.
const MARGIN: Duration = Duration::from_millis(500);

/// Minimum time for one address: a connection needs more than none.
const TIME_MIN: Duration = Duration::from_millis(1);

/// The status that a server reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its index.
    pub replica: u8,
    /// The status.
    pub body: StatusBody,
}

impl Said {
    /// Returns its role.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let known = Standing::ALL.get(usize::from(self.body.standing));
        known.copied().unwrap_or(Standing::Stopped)
    }

    /// Whether it reports whether it is ready, and when others answered it: older releases do not.
    #[must_use]
    pub fn judges_itself(&self) -> bool {
        self.body.edition > 0
    }

    /// Returns the reason for which the server reports that it is not ready. A number that this
    /// release does not know is a reason of a newer one.
    #[must_use]
    pub fn unready(&self) -> Option<Reason> {
        match self.body.unready {
            0 => None,
            _ if !self.judges_itself() => None,
            number => {
                Some(Unready::from_number(number).map_or(Reason::Unknown(number), Reason::Known))
            }
        }
    }
}

/// A reason for which a replica is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One of this release.
    Known(Unready),
    /// One of a newer release.
    Unknown(u8),
}

impl Reason {
    /// Returns the reason in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Known(reason) => reason.name(),
            Reason::Unknown(_) => "unknown",
        }
    }

    /// Returns the reason as a clause about the replica.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Reason::Known(reason) => reason.text().to_owned(),
            Reason::Unknown(number) => {
                format!("it gives reason {number}, which this release does not know")
            }
        }
    }
}

/// The result of a query to one address of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address as it is listed.
    pub address: String,
    /// The status, or why there is none.
    pub result: Result<Said, String>,
}

impl Answer {
    /// Returns the status, if there is one.
    #[must_use]
    pub fn said(&self) -> Option<&Said> {
        self.result.as_ref().ok()
    }
}

/// Asks all replicas at once, within this time.
#[must_use]
pub fn ask_all(cluster: u128, replicas: &[ReplicaAddress], time: Duration) -> Vec<Answer> {
    let end = Instant::now() + time;
    let (sender, receiver) = mpsc::channel();
    for (place, replica) in replicas.iter().enumerate() {
        let (replica, sender) = (replica.clone(), sender.clone());
        // The receiver may be gone when a look-up ends.
        thread::spawn(move || drop(sender.send((place, ask(cluster, &replica, end, time)))));
    }
    drop(sender);
    let late = |replica: &ReplicaAddress| {
        let reason = match replica.name() {
            Some(_) => format!("the look-up of its name takes longer than {} s", time.as_secs()),
            None => reason(&io::ErrorKind::TimedOut.into(), time),
        };
        Answer { address: replica.to_string(), result: Err(reason) }
    };
    let mut answers: Vec<Answer> = replicas.iter().map(late).collect();
    let left = || (end + MARGIN).saturating_duration_since(Instant::now());
    while let Ok((place, result)) = receiver.recv_timeout(left()) {
        answers[place].result = result;
    }
    answers
}

/// Asks one server at each of its addresses until one answers.
fn ask(
    cluster: u128,
    replica: &ReplicaAddress,
    end: Instant,
    time: Duration,
) -> Result<Said, String> {
    let found = match replica.name() {
        Some((name, port)) => ReplicaAddress::look_up(name, port),
        None => Ok(replica.clone()),
    };
    let found = found.map_err(|error| error.to_string())?;
    let candidates = found.candidates();
    let mut failure: Option<io::Error> = None;
    for (address, remaining) in candidates.iter().zip((1..=candidates.len()).rev()) {
        let left = end.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(remaining).unwrap_or(u32::MAX);
        match ask_at(cluster, *address, share.max(TIME_MIN)) {
            Ok(said) => return Ok(said),
            Err(error) => {
                // A refusal at one address says less than what another one does.
                let is_refusal = |it: &io::Error| it.kind() == io::ErrorKind::ConnectionRefused;
                if failure.as_ref().is_none_or(is_refusal) {
                    failure = Some(error);
                }
            }
        }
    }
    Err(reason(&failure.expect("a name that was found has an address"), time))
}

/// Returns the reason for which there is no answer.
fn reason(error: &io::Error, time: Duration) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: no process listens there".to_owned()
        }
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

/// Asks at one address.
fn ask_at(cluster: u128, address: SocketAddr, time: Duration) -> io::Result<Said> {
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
    let body = status_body(body).filter(has_valid_counts).ok_or_else(wrong)?;
    Ok(Said { replica, body })
}

/// Whether a cluster can have these numbers of replicas and standbys.
fn has_valid_counts(body: &StatusBody) -> bool {
    (1..=REPLICAS_MAX).contains(&body.replica_count) && body.standby_count <= STANDBYS_MAX
}

fn not_a_status(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its answer is not a status: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::answer;
    use super::super::{arrange, judge, show};
    use super::*;
    use crate::protocol::Release;
    use crate::vsr::Standing;
    use std::net::TcpListener;

    const TIME: Duration = Duration::from_secs(5);

    /// Starts a server that answers each connection with these bytes.
    fn serve(bytes: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut question = [0; HEADER_SIZE as usize];
                stream.read_exact(&mut question).unwrap();
                stream.write_all(&bytes).unwrap();
            }
        });
        address
    }

    fn status_with(change: impl FnOnce(&mut StatusBody)) -> Vec<u8> {
        let mut body = answer(0, Standing::Primary, 5).result.unwrap().body;
        change(&mut body);
        let mut header = Header::new(Command::Status);
        header.frame.release = Release::SERVER;
        header.frame.size = HEADER_SIZE + STATUS_SIZE;
        header.set_checksums(body.as_bytes());
        [header.as_bytes(), body.as_bytes()].concat()
    }

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// Goal: counts that no cluster has are refused, since sums of them overflow.
    #[test]
    fn hostile_counts() {
        for (replicas, standbys, is_valid) in [
            (3, 0, true),
            (6, 6, true),
            (0, 0, false),
            (7, 0, false),
            (1, 7, false),
            (200, 200, false),
        ] {
            let counts = |body: &mut StatusBody| {
                (body.replica_count, body.standby_count) = (replicas, standbys);
            };
            let address = serve(status_with(counts));
            let answers = ask_all(7, &[address.into()], TIME);
            let arranged = arrange::arrange(&answers);
            let (state, problems) = judge::judge(&arranged);
            let found = show::Found { cluster: 7, state, problems, rows: arranged.rows };
            let value = show::json_of(&found);
            assert_eq!(value["replicas"][0]["reachable"], is_valid, "{replicas} {standbys}");
        }
    }

    /// Goal: all addresses of a replica are tried; a name is looked up in each round, and one
    /// without an address is a row with the reason, and nothing more.
    #[test]
    fn names() {
        let address = serve(status_with(|_| {}));
        let dead = free_address();
        let replicas = [
            ReplicaAddress::new(vec![dead, address]),
            ReplicaAddress::named("localhost", address.port()),
            ReplicaAddress::named("florin.invalid", 1),
            dead.into(),
        ];
        for _ in 0..2 {
            let answers = ask_all(7, &replicas, TIME);
            let said: Vec<bool> = answers.iter().map(|it| it.said().is_some()).collect();
            assert_eq!(said, [true, true, false, false], "{answers:?}");
            assert_eq!(answers[2].address, "florin.invalid:1");
            let reason = |place: usize| answers[place].result.as_ref().unwrap_err();
            assert!(reason(2).contains("`florin.invalid` has no address"), "{}", reason(2));
            assert!(reason(3).starts_with("connection refused"), "{}", reason(3));
        }
    }

    /// Goal: a replica that gives a reason that this release does not know is not ready.
    #[test]
    fn unknown_reasons() {
        let mut said = *answer(1, Standing::Backup, 5).said().unwrap();
        assert_eq!(said.unready(), None);
        said.body.unready = 77;
        let reason = said.unready().unwrap();
        assert_eq!((reason, reason.name()), (Reason::Unknown(77), "unknown"));
        assert!(reason.text().contains("reason 77"), "{}", reason.text());
    }
}
