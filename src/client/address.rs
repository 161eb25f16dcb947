//! Addresses of the replicas of a cluster, as a client is given them.
//!
//! A list is separated by commas, in order of the replicas; [`parse`] defines its entries.
//! [`ToReplicas`] accepts host names. They are looked up before a client connects, on threads, so
//! that a name service that hangs cannot delay it for long. A name without an address stays in the
//! list and is looked up again later, as is a name none of whose addresses can be reached. All
//! addresses of a name are tried in turn.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use crate::io::address::PORT_DEFAULT;
use crate::io::address::{Written, parse};

/// Maximum number of addresses in a client's list: replicas of a cluster.
pub const ADDRESSES_MAX: usize = 6;
/// Maximum time for looking up names if the caller has no deadline.
const LOOKUP_MAX: Duration = Duration::from_secs(30);
/// Maximum time for looking up the other names once a replica has an address.
const LOOKUP_GRACE: Duration = Duration::from_secs(1);

/// What is wrong with an address or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The list, or an entry between two commas, is empty.
    Empty,
    /// The list has more entries than the largest cluster has replicas.
    TooMany {
        /// Entries in the list.
        count: usize,
        /// Maximum number of entries.
        limit: usize,
    },
    /// The text is neither an address with port, nor a host, nor a port.
    Invalid(String),
    /// Two entries of the list are the same.
    Duplicate(String),
    /// No entry of the list has an address: names are unknown, or no name service answers.
    Unresolved {
        /// The first such name.
        name: String,
        /// The reason that the system gave.
        message: String,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Empty => formatter.write_str("an address is missing"),
            AddressError::TooMany { count, limit } => {
                write!(formatter, "{count} addresses, at most {limit} are possible")?;
                if *limit == ADDRESSES_MAX {
                    return formatter.write_str(": a client's list has no standbys");
                }
                Ok(())
            }
            AddressError::Invalid(text) => write!(
                formatter,
                "`{text}` is not a valid address: expected HOST:PORT, a host, a port or [IPv6]:PORT"
            ),
            AddressError::Duplicate(address) => write!(
                formatter,
                "{address} is listed twice: list the address of each replica once"
            ),
            AddressError::Unresolved { name, message } => {
                write!(formatter, "`{name}` has no address: {message}")
            }
        }
    }
}

impl std::error::Error for AddressError {}

/// Reads one address.
///
/// # Errors
///
/// If the text is empty or not an address. A host name is not one.
pub fn parse_address(text: &str) -> Result<SocketAddr, AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    match parse(text) {
        Ok(Written::Socket(address)) => Ok(address),
        Ok(Written::Name { .. }) | Err(_) => Err(AddressError::Invalid(text.to_owned())),
    }
}

/// Reads a list of 1 to 6 addresses.
///
/// # Errors
///
/// If the list is empty or too long, or an entry is invalid or there twice. Port zero may repeat.
///
/// # Panics
///
/// Never: there is an entry before the first comma.
pub fn parse_addresses(text: &str) -> Result<Vec<SocketAddr>, AddressError> {
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(ADDRESSES_MAX);
    check_count(text, ADDRESSES_MAX)?;
    for part in text.split(',') {
        let address = parse_address(part.trim())?;
        if address.port() != 0 && addresses.contains(&address) {
            return Err(AddressError::Duplicate(address.to_string()));
        }
        addresses.push(address);
    }
    assert!(!addresses.is_empty());
    Ok(addresses)
}

fn check_count(text: &str, limit: usize) -> Result<(), AddressError> {
    let count = text.split(',').count();
    if count > limit { Err(AddressError::TooMany { count, limit }) } else { Ok(()) }
}

/// Where one replica can be reached: one address, or all that its host name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAddress {
    /// Empty only if there is a name.
    candidates: Vec<SocketAddr>,
    /// The name and the port to look up.
    name: Option<(String, u16)>,
}

impl ReplicaAddress {
    /// All addresses of one replica, in the order in which they shall be tried.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[must_use]
    pub fn new(candidates: Vec<SocketAddr>) -> ReplicaAddress {
        assert!(!candidates.is_empty(), "a replica without a name has an address");
        ReplicaAddress { candidates, name: None }
    }

    /// A host name that is to be looked up when its address is needed.
    #[must_use]
    pub fn named(name: &str, port: u16) -> ReplicaAddress {
        ReplicaAddress { candidates: Vec::new(), name: Some((name.to_owned(), port)) }
    }

    /// All addresses that a host name has now, those of IPv4 first.
    ///
    /// # Errors
    ///
    /// If it has none, or no name service answers.
    pub fn look_up(name: &str, port: u16) -> Result<ReplicaAddress, AddressError> {
        let error = |message: String| AddressError::Unresolved { name: name.to_owned(), message };
        let found = (name, port).to_socket_addrs().map_err(|failure| error(failure.to_string()))?;
        let mut candidates: Vec<SocketAddr> = Vec::new();
        for address in found {
            if !candidates.contains(&address) {
                candidates.push(address);
            }
        }
        // Servers listen on IPv4 addresses more often than not.
        candidates.sort_by_key(SocketAddr::is_ipv6);
        if candidates.is_empty() {
            return Err(error("the name exists without an address".to_owned()));
        }
        Ok(ReplicaAddress { candidates, ..ReplicaAddress::named(name, port) })
    }

    /// The addresses as they were before the host moved.
    #[cfg(test)]
    pub(super) fn move_to(&mut self, address: SocketAddr) {
        self.candidates = vec![address];
    }

    /// The host name and the port to look up, if the address was written as a name.
    #[must_use]
    pub fn name(&self) -> Option<(&str, u16)> {
        self.name.as_ref().map(|(name, port)| (name.as_str(), *port))
    }

    /// The addresses in the order in which they are tried; none while a name has none.
    #[must_use]
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }
}

impl From<SocketAddr> for ReplicaAddress {
    fn from(address: SocketAddr) -> ReplicaAddress {
        ReplicaAddress::new(vec![address])
    }
}

impl fmt::Display for ReplicaAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.candidates.first()) {
            (Some((name, port)), _) => write!(formatter, "{name}:{port}"),
            (None, Some(address)) => write!(formatter, "{address}"),
            (None, None) => unreachable!("a replica has a name or an address"),
        }
    }
}

/// Something that says where the replicas of a cluster are, in order: a text as of
/// [`resolve_addresses`], or socket addresses.
pub trait ToReplicas {
    /// The addresses of 1 to 6 replicas.
    ///
    /// # Errors
    ///
    /// If there are none or too many, one is invalid, or none of them has an address within
    /// `lookup_max`.
    fn to_replicas(&self, lookup_max: Duration) -> Result<Vec<ReplicaAddress>, AddressError>;
}

impl ToReplicas for str {
    fn to_replicas(&self, lookup_max: Duration) -> Result<Vec<ReplicaAddress>, AddressError> {
        resolve_addresses_within(self, lookup_max)
    }
}

impl ToReplicas for String {
    fn to_replicas(&self, lookup_max: Duration) -> Result<Vec<ReplicaAddress>, AddressError> {
        resolve_addresses_within(self, lookup_max)
    }
}

impl<Address: Clone + Into<ReplicaAddress>> ToReplicas for [Address] {
    fn to_replicas(&self, _lookup_max: Duration) -> Result<Vec<ReplicaAddress>, AddressError> {
        match self.len() {
            0 => Err(AddressError::Empty),
            1..=ADDRESSES_MAX => Ok(self.iter().cloned().map(Into::into).collect()),
            count => Err(AddressError::TooMany { count, limit: ADDRESSES_MAX }),
        }
    }
}

impl<Address: Clone + Into<ReplicaAddress>, const COUNT: usize> ToReplicas for [Address; COUNT] {
    fn to_replicas(&self, lookup_max: Duration) -> Result<Vec<ReplicaAddress>, AddressError> {
        self.as_slice().to_replicas(lookup_max)
    }
}

impl<Address: Clone + Into<ReplicaAddress>> ToReplicas for Vec<Address> {
    fn to_replicas(&self, lookup_max: Duration) -> Result<Vec<ReplicaAddress>, AddressError> {
        self.as_slice().to_replicas(lookup_max)
    }
}

/// Reads a list of 1 to `limit` entries, and looks no name up.
///
/// # Errors
///
/// If the list is empty or too long, or an entry is invalid or there twice.
///
/// # Panics
///
/// Never: there is an entry before the first comma.
pub fn read_replicas(text: &str, limit: usize) -> Result<Vec<ReplicaAddress>, AddressError> {
    check_count(text, limit)?;
    let mut replicas: Vec<ReplicaAddress> = Vec::with_capacity(limit);
    for part in text.split(',').map(str::trim) {
        let replica = match parse(part) {
            _ if part.is_empty() => return Err(AddressError::Empty),
            Ok(Written::Socket(address)) if address.port() > 0 => address.into(),
            Ok(Written::Name { host, port }) if port > 0 => ReplicaAddress::named(&host, port),
            Ok(_) | Err(_) => return Err(AddressError::Invalid(part.to_owned())),
        };
        if replicas.contains(&replica) {
            return Err(AddressError::Duplicate(replica.to_string()));
        }
        replicas.push(replica);
    }
    assert!(!replicas.is_empty());
    Ok(replicas)
}

/// Reads a list of 1 to 6 addresses for a client, and looks host names up. Names without an address
/// stay in the list: the other replicas may serve.
///
/// # Errors
///
/// If the list is empty or too long, or an entry is invalid, or no entry has an address.
pub fn resolve_addresses(text: &str) -> Result<Vec<ReplicaAddress>, AddressError> {
    resolve_addresses_within(text, LOOKUP_MAX)
}

/// As [`resolve_addresses`], but a look-up that takes longer than `lookup_max` has failed.
///
/// # Errors
///
/// As [`resolve_addresses`].
pub fn resolve_addresses_within(
    text: &str,
    lookup_max: Duration,
) -> Result<Vec<ReplicaAddress>, AddressError> {
    let replicas = read_replicas(text, ADDRESSES_MAX)?;
    look_up_all(replicas, lookup_max, ReplicaAddress::look_up)
}

type LookUp = fn(&str, u16) -> Result<ReplicaAddress, AddressError>;

/// Looks up all names at once, each on a thread, since the system may take long for it. Once one
/// replica has an address, the others are waited for only a moment.
fn look_up_all(
    mut replicas: Vec<ReplicaAddress>,
    lookup_max: Duration,
    look_up: LookUp,
) -> Result<Vec<ReplicaAddress>, AddressError> {
    let start = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let mut pending = 0;
    let mut failure = None;
    for (index, replica) in replicas.iter().enumerate() {
        let Some((name, port)) = replica.name() else { continue };
        let (sender, host) = (sender.clone(), name.to_owned());
        // The receiver may be gone when the answer comes.
        let work = move || drop(sender.send((index, look_up(&host, port))));
        let thread = std::thread::Builder::new().name("florin-lookup".to_owned());
        match thread.spawn(work) {
            Ok(_) => pending += 1,
            Err(error) => failure = Some((name.to_owned(), error.to_string())),
        }
    }
    for _ in 0..pending {
        let known = replicas.iter().any(|replica| !replica.candidates.is_empty());
        let limit = if known { LOOKUP_GRACE.min(lookup_max / 2) } else { lookup_max };
        match receiver.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok((index, Ok(found))) => replicas[index] = found,
            Ok((_, Err(AddressError::Unresolved { name, message }))) => {
                failure.get_or_insert((name, message));
            }
            Ok((_, Err(error))) => return Err(error),
            Err(_) => break,
        }
    }
    if replicas.iter().any(|replica| !replica.candidates.is_empty()) {
        return Ok(replicas);
    }
    let (name, message) = failure.unwrap_or_else(|| {
        let seconds = lookup_max.as_secs_f64();
        (replicas[0].to_string(), format!("no answer from the name service within {seconds:.1} s"))
    });
    Err(AddressError::Unresolved { name, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(parse_address(text).map(|address| address.to_string()), Ok(expected.to_owned()));
    }

    /// Goal: each of the forms means what the module says.
    #[test]
    fn forms() {
        check("3000", "127.0.0.1:3000");
        check("0", "127.0.0.1:0");
        check("10.0.0.7:3000", "10.0.0.7:3000");
        check("10.0.0.7", "10.0.0.7:3001");
        check("::1", "[::1]:3001");
        check("[::1]", "[::1]:3001");
        check("[::1]:3002", "[::1]:3002");
    }

    /// Goal: what is no address is refused with its text.
    #[test]
    fn invalid() {
        for text in ["localhost", "localhost:3000", "65536", "1.2.3:4", "1.2.3.4:70000", "-1"] {
            assert_eq!(parse_address(text), Err(AddressError::Invalid(text.to_owned())));
        }
        assert_eq!(parse_address(""), Err(AddressError::Empty));
    }

    /// Goal: lists keep their order and are bounded, and an address appears once.
    #[test]
    fn lists() {
        let list = parse_addresses("3000, 3001,127.0.0.2:3000").unwrap();
        assert_eq!(list.iter().map(SocketAddr::port).collect::<Vec<_>>(), [3000, 3001, 3000]);
        assert_eq!(parse_addresses("1,2,3,4,5,6").unwrap().len(), 6);
        assert_eq!(
            parse_addresses("1,2,3,4,5,6,7"),
            Err(AddressError::TooMany { count: 7, limit: 6 })
        );
        assert_eq!(parse_addresses(""), Err(AddressError::Empty));
        assert_eq!(parse_addresses("3000,"), Err(AddressError::Empty));
        let twice = "127.0.0.1:3000".to_owned();
        assert_eq!(parse_addresses("3000,3000"), Err(AddressError::Duplicate(twice)));
        assert_eq!(parse_addresses("0,0").unwrap().len(), 2);
    }

    /// Goal: a client's list may have names; all addresses of a name are kept, IPv4 first.
    #[test]
    fn names() {
        let list = resolve_addresses("localhost:3000, 3001, 10.0.0.1").unwrap();
        let texts: Vec<String> =
            list.iter().map(|replica| replica.candidates()[0].to_string()).collect();
        assert_eq!(texts, ["127.0.0.1:3000", "127.0.0.1:3001", "10.0.0.1:3001"]);
        assert!(list[0].candidates()[1..].iter().all(SocketAddr::is_ipv6));
        let replicas = resolve_addresses("localhost").unwrap();
        assert_eq!(replicas[0].candidates()[0].port(), PORT_DEFAULT);
    }

    /// Goal: what can be no host is refused without asking anybody; an unknown one is an error.
    #[test]
    fn names_refused() {
        for text in ["1.2.3.4.5:1", "1.2.3:4", "a b", "-x", "host:", "host:0", "host:65536", "0"] {
            let error = resolve_addresses(text).unwrap_err();
            assert_eq!(error, AddressError::Invalid(text.to_owned()));
        }
        let error = resolve_addresses("florin.invalid:3000").unwrap_err();
        assert!(matches!(error, AddressError::Unresolved { .. }), "{error}");
        assert!(error.to_string().contains("`florin.invalid` has no address"), "{error}");
        assert_eq!(resolve_addresses("1,2,,3"), Err(AddressError::Empty));
        let twice = "127.0.0.1:3000".to_owned();
        assert_eq!(resolve_addresses("3000,3000"), Err(AddressError::Duplicate(twice)));
    }

    /// Goal: a name without an address stays in the list beside one that has an address.
    #[test]
    fn names_unknown() {
        let list = resolve_addresses("florin.invalid:3000,3001,localhost:3002").unwrap();
        let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["florin.invalid:3000", "127.0.0.1:3001", "localhost:3002"]);
        assert_eq!(list[0].candidates(), []);
        assert_eq!(list[0].name(), Some(("florin.invalid", 3000)));
        assert!(!list[2].candidates().is_empty());
    }

    /// Goal: a name service that hangs is not waited for longer than allowed, and only for a moment
    /// if another replica has an address.
    #[test]
    fn names_that_hang() {
        let hang: LookUp = |name, port| {
            std::thread::sleep(Duration::from_secs(60));
            ReplicaAddress::look_up(name, port)
        };
        let start = Instant::now();
        let list = read_replicas("a.invalid:1,b.invalid:2", 6).unwrap();
        let error = look_up_all(list, Duration::from_millis(200), hang).unwrap_err();
        let text = "`a.invalid:1` has no address: no answer from the name service within 0.2 s";
        assert_eq!(error.to_string(), text);
        let list = read_replicas("a.invalid:1,3000", 6).unwrap();
        let list = look_up_all(list, LOOKUP_MAX, hang).unwrap();
        assert_eq!((list[0].candidates().len(), list[1].candidates().len()), (0, 1));
        assert!(start.elapsed() < LOOKUP_MAX, "it did not wait for the look-up");
    }

    /// Goal: everything that names replicas gives the same.
    #[test]
    fn to_replicas() {
        let addresses = parse_addresses("3000,3001").unwrap();
        let expected = resolve_addresses("3000,3001").unwrap();
        assert_eq!(addresses.to_replicas(LOOKUP_MAX), Ok(expected.clone()));
        assert_eq!([addresses[0], addresses[1]].to_replicas(LOOKUP_MAX), Ok(expected.clone()));
        assert_eq!("3000,3001".to_replicas(LOOKUP_MAX), Ok(expected.clone()));
        assert_eq!("3000,3001".to_owned().to_replicas(LOOKUP_MAX), Ok(expected.clone()));
        assert_eq!(expected.to_replicas(LOOKUP_MAX), Ok(expected));
        assert_eq!(Vec::<SocketAddr>::new().to_replicas(LOOKUP_MAX), Err(AddressError::Empty));
        assert_eq!(
            [addresses[0]; 7].to_replicas(LOOKUP_MAX),
            Err(AddressError::TooMany { count: 7, limit: 6 })
        );
    }
}
