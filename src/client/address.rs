//! Addresses of replicas as people write them.
//!
//! `127.0.0.1:3000`, `[::1]:3000`, an IP address alone (port 3001) or a port alone (127.0.0.1);
//! a list is separated by commas and in order of the replicas. [`ToReplicas`] takes host names,
//! too: they are looked up when connecting, and again when none of their addresses can be reached
//! any more; all addresses that a name has are tried in turn.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// Port of an address that names none.
pub const PORT_DEFAULT: u16 = 3001;
/// Addresses in a list at most: replicas of a cluster.
pub const ADDRESSES_MAX: usize = 6;

/// What is wrong with an address or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The list, or an entry between two commas, is empty.
    Empty,
    /// More entries than replicas in the largest cluster.
    TooMany(usize),
    /// Neither an address with port, nor an address, nor a port.
    Invalid(String),
    /// Two replicas cannot be at one address.
    Duplicate(SocketAddr),
    /// A host name without an address, or nobody who knows it could be asked.
    Unresolved {
        /// The host's name and the port.
        name: String,
        /// What the system said.
        message: String,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Empty => formatter.write_str("an address is missing"),
            AddressError::TooMany(count) => {
                write!(formatter, "{count} addresses, at most {ADDRESSES_MAX} are possible")
            }
            AddressError::Invalid(text) => write!(
                formatter,
                "`{text}` is no address: expected HOST:PORT, a host, a port or [IPv6]:PORT"
            ),
            AddressError::Duplicate(address) => write!(formatter, "{address} is listed twice"),
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
/// If the text is none.
pub fn parse_address(text: &str) -> Result<SocketAddr, AddressError> {
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = text.parse::<u16>().map_err(|_| AddressError::Invalid(text.to_owned()))?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, PORT_DEFAULT)),
        Err(_) => Err(AddressError::Invalid(text.to_owned())),
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
    let count = text.split(',').count();
    if count > ADDRESSES_MAX {
        return Err(AddressError::TooMany(count));
    }
    for part in text.split(',') {
        let address = parse_address(part.trim())?;
        if address.port() != 0 && addresses.contains(&address) {
            return Err(AddressError::Duplicate(address));
        }
        addresses.push(address);
    }
    assert!(!addresses.is_empty());
    Ok(addresses)
}

/// Where one replica can be reached: one address, or all that its host name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAddress {
    candidates: Vec<SocketAddr>,
    /// The name and the port that they were found by.
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
        assert!(!candidates.is_empty(), "a replica has an address");
        ReplicaAddress { candidates, name: None }
    }

    /// All addresses that a host name has now, those of IPv4 first.
    ///
    /// # Errors
    ///
    /// If it has none, or nobody could be asked.
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
            return Err(error("the name exists, but has none".to_owned()));
        }
        Ok(ReplicaAddress { candidates, name: Some((name.to_owned(), port)) })
    }

    /// The addresses as they were before the host moved.
    #[cfg(test)]
    pub(super) fn move_to(&mut self, address: SocketAddr) {
        self.candidates = vec![address];
    }

    /// The host name and the port that the addresses were found by, if they were.
    #[must_use]
    pub fn name(&self) -> Option<(&str, u16)> {
        self.name.as_ref().map(|(name, port)| (name.as_str(), *port))
    }

    /// The addresses, of which there is one at least, in the order in which they are tried.
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

/// Something that says where the replicas of a cluster are, in order: a text as of
/// [`resolve_addresses`], or socket addresses.
pub trait ToReplicas {
    /// The addresses of 1 to 6 replicas.
    ///
    /// # Errors
    ///
    /// If there are none, too many, or one is invalid or unknown.
    fn to_replicas(&self) -> Result<Vec<ReplicaAddress>, AddressError>;
}

impl ToReplicas for str {
    fn to_replicas(&self) -> Result<Vec<ReplicaAddress>, AddressError> {
        resolve_addresses(self)
    }
}

impl ToReplicas for String {
    fn to_replicas(&self) -> Result<Vec<ReplicaAddress>, AddressError> {
        resolve_addresses(self)
    }
}

impl<Address: Clone + Into<ReplicaAddress>> ToReplicas for [Address] {
    fn to_replicas(&self) -> Result<Vec<ReplicaAddress>, AddressError> {
        match self.len() {
            0 => Err(AddressError::Empty),
            1..=ADDRESSES_MAX => Ok(self.iter().cloned().map(Into::into).collect()),
            count => Err(AddressError::TooMany(count)),
        }
    }
}

impl<Address: Clone + Into<ReplicaAddress>, const COUNT: usize> ToReplicas for [Address; COUNT] {
    fn to_replicas(&self) -> Result<Vec<ReplicaAddress>, AddressError> {
        self.as_slice().to_replicas()
    }
}

impl<Address: Clone + Into<ReplicaAddress>> ToReplicas for Vec<Address> {
    fn to_replicas(&self) -> Result<Vec<ReplicaAddress>, AddressError> {
        self.as_slice().to_replicas()
    }
}

/// Reads a list of 1 to 6 addresses for a client: those of [`parse_addresses`], and host names with
/// or without a port, which are resolved now.
///
/// # Errors
///
/// If the list is empty or too long, or an entry is invalid or has no address.
///
/// # Panics
///
/// Never: there is an entry before the first comma.
pub fn resolve_addresses(text: &str) -> Result<Vec<ReplicaAddress>, AddressError> {
    let count = text.split(',').count();
    if count > ADDRESSES_MAX {
        return Err(AddressError::TooMany(count));
    }
    let mut replicas: Vec<ReplicaAddress> = Vec::with_capacity(count);
    for part in text.split(',') {
        let replica = resolve_address(part.trim())?;
        let first = replica.candidates[0];
        if replicas.contains(&replica) {
            return Err(AddressError::Duplicate(first));
        }
        replicas.push(replica);
    }
    assert!(!replicas.is_empty());
    Ok(replicas)
}

fn resolve_address(text: &str) -> Result<ReplicaAddress, AddressError> {
    let invalid = match parse_address(text) {
        Ok(address) if address.port() == 0 => {
            return Err(AddressError::Invalid(text.to_owned()));
        }
        Ok(address) => return Ok(address.into()),
        Err(error) => error,
    };
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => match port.parse::<u16>() {
            Ok(port) if port > 0 => (name, port),
            _ => return Err(invalid),
        },
        None => (text, PORT_DEFAULT),
    };
    if !is_host_name(name) {
        return Err(invalid);
    }
    ReplicaAddress::look_up(name, port)
}

/// Labels of letters, digits, `-` and `_`, separated by dots; the last is no number, since then an
/// IP address was meant.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_valid)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && !is_number && !name.starts_with('-')
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
        assert_eq!(parse_addresses("1,2,3,4,5,6,7"), Err(AddressError::TooMany(7)));
        assert_eq!(parse_addresses(""), Err(AddressError::Empty));
        assert_eq!(parse_addresses("3000,"), Err(AddressError::Empty));
        let twice = parse_address("3000").unwrap();
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
        let twice = parse_address("3000").unwrap();
        assert_eq!(resolve_addresses("3000,3000"), Err(AddressError::Duplicate(twice)));
    }

    /// Goal: everything that names replicas gives the same.
    #[test]
    fn to_replicas() {
        let addresses = parse_addresses("3000,3001").unwrap();
        let expected = resolve_addresses("3000,3001").unwrap();
        assert_eq!(addresses.to_replicas(), Ok(expected.clone()));
        assert_eq!([addresses[0], addresses[1]].to_replicas(), Ok(expected.clone()));
        assert_eq!("3000,3001".to_replicas(), Ok(expected.clone()));
        assert_eq!("3000,3001".to_owned().to_replicas(), Ok(expected.clone()));
        assert_eq!(expected.to_replicas(), Ok(expected));
        assert_eq!(Vec::<SocketAddr>::new().to_replicas(), Err(AddressError::Empty));
        assert_eq!([addresses[0]; 7].to_replicas(), Err(AddressError::TooMany(7)));
    }
}
