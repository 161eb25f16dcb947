//! Addresses of replicas as an operator writes them, names included.
//!
//! A name is looked up when the server starts. The names of other replicas need no address then,
//! and are looked up again whenever they cannot be reached ([`resolver`](super::resolver)); the
//! server's own address never changes. Clients ([`crate::client::address`]) read their lists with
//! [`parse`] too.

use std::ffi::CString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::resolver::{HostName, look_up};

/// Port of an address without one.
pub const PORT_DEFAULT: u16 = 3001;

/// What is wrong with an address; each has it as written.
#[derive(Debug)]
pub enum AddressError {
    /// The text is not an address or a name, or the name has no address, for this reason.
    Unusable {
        /// The address.
        address: String,
        /// The reason.
        reason: String,
    },
    /// An address before it in the list is the same.
    Duplicate(String),
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Unusable { address, reason } => write!(
                formatter,
                "\"{address}\" is not a usable address: {reason} (expected HOST:PORT, a host, a \
                 port or [IPv6]:PORT)"
            ),
            AddressError::Duplicate(address) => write!(
                formatter,
                "{address} is listed twice: list the address of each replica once"
            ),
        }
    }
}

impl std::error::Error for AddressError {}

/// The address of a replica, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAddress {
    /// The text of the operator.
    text: String,
    /// The name to look up, if it was written as one.
    name: Option<HostName>,
    /// The address, or the reason for which there is none.
    found: Result<SocketAddr, String>,
}

impl ReplicaAddress {
    /// Returns the address; `None` if its name has none yet.
    #[must_use]
    pub fn known(&self) -> Option<SocketAddr> {
        self.found.as_ref().ok().copied()
    }

    /// Returns the name to look up, if it was written as one.
    #[must_use]
    pub fn name(&self) -> Option<&HostName> {
        self.name.as_ref()
    }

    /// Returns the port, which a name has too.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.name.as_ref().map(|name| name.port).or(self.known().map(|it| it.port())).unwrap_or(0)
    }

    /// Returns the reason for which there is no address; `None` if there is one.
    #[must_use]
    pub fn missing(&self) -> Option<&str> {
        self.found.as_ref().err().map(String::as_str)
    }

    /// The name of a test, looked up or not.
    #[cfg(test)]
    pub(crate) fn named(host: &str, port: u16, found: Option<SocketAddr>) -> ReplicaAddress {
        let host = CString::new(host).unwrap();
        let text = format!("{}:{port}", host.to_str().unwrap());
        let name = Some(HostName { host, port });
        ReplicaAddress { text, name, found: found.ok_or_else(|| "not looked up".to_owned()) }
    }
}

impl From<SocketAddr> for ReplicaAddress {
    fn from(address: SocketAddr) -> ReplicaAddress {
        ReplicaAddress { text: address.to_string(), name: None, found: Ok(address) }
    }
}

impl fmt::Display for ReplicaAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// An entry of a list as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// An address, which may have come without its host or port.
    Socket(SocketAddr),
    /// A name to look up.
    Name {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
}

const PORT_INVALID: &str = "a port is a number up to 65535";

/// Reads `host:port`, `host` (port 3001), `port` (on 127.0.0.1), `[IPv6]:port` or `IPv6`. A host is
/// an IP address or a name, which is not looked up.
///
/// # Errors
///
/// The reason, if the text is none of these.
pub fn parse(text: &str) -> Result<Written, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = text.parse::<u16>().map_err(|_| PORT_INVALID)?;
        return Ok(Written::Socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Written::Socket(address));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Written::Socket(SocketAddr::new(address, PORT_DEFAULT)));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| PORT_INVALID)?),
        None => (text, PORT_DEFAULT),
    };
    if !is_host_name(host) {
        return Err("it is neither an IP address nor a valid host name");
    }
    Ok(Written::Name { host: host.to_owned(), port })
}

/// Whether the name consists of labels of letters, digits, `-` and `_`, separated by dots. The last
/// label is not a number, since then an IP address was meant.
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

fn unusable(text: &str, reason: impl fmt::Display) -> AddressError {
    AddressError::Unusable { address: text.to_owned(), reason: reason.to_string() }
}

fn host_name(host: &str, port: u16) -> HostName {
    HostName { host: CString::new(host).expect("a host name has no zero"), port }
}

/// Reads the replicas in a list separated by commas. A name without an address is not an error: in
/// many networks the name appears only when its replica starts.
///
/// # Errors
///
/// If an entry is not an address or a name, or appears twice. Port zero may repeat.
///
/// # Panics
///
/// Never: there is something before the first comma.
pub fn replica_list(text: &str) -> Result<Vec<ReplicaAddress>, AddressError> {
    let mut replicas: Vec<ReplicaAddress> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let replica = match parse(part).map_err(|reason| unusable(part, reason))? {
            Written::Socket(found) => ReplicaAddress { text: part.to_owned(), ..found.into() },
            Written::Name { host, port } => {
                let name = host_name(&host, port);
                let found = look_up(&name.host, port).map_err(|error| error.to_string());
                let found = found.map(|addresses| addresses.as_slice()[0]);
                ReplicaAddress { text: part.to_owned(), name: Some(name), found }
            }
        };
        let is_same = |other: &ReplicaAddress| match (other.known(), replica.known()) {
            (Some(one), Some(two)) => one == two,
            _ => other.name.is_some() && other.name == replica.name,
        };
        if replica.port() != 0 && replicas.iter().any(is_same) {
            return Err(AddressError::Duplicate(part.to_owned()));
        }
        replicas.push(replica);
    }
    assert!(!replicas.is_empty(), "there is something before the first comma");
    Ok(replicas)
}

/// Reads an address as [`parse`] does, and looks a name up: its first address counts.
///
/// # Errors
///
/// If the text is not an address, or the name has none.
pub fn resolve(text: &str) -> Result<SocketAddr, AddressError> {
    match parse(text).map_err(|reason| unusable(text, reason))? {
        Written::Socket(address) => Ok(address),
        Written::Name { host, port } => {
            let found = look_up(&host_name(&host, port).host, port);
            found.map(|addresses| addresses.as_slice()[0]).map_err(|error| unusable(text, error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every form of address is understood, and other texts are refused with a hint.
    #[test]
    fn addresses() {
        let text = |input: &str| resolve(input).unwrap().to_string();
        assert_eq!(text("3005"), "127.0.0.1:3005");
        assert_eq!(text("0"), "127.0.0.1:0");
        assert_eq!(text("10.1.2.3"), "10.1.2.3:3001");
        assert_eq!(text("10.1.2.3:99"), "10.1.2.3:99");
        assert_eq!(text("[::1]:99"), "[::1]:99");
        assert_eq!(text("::1"), "[::1]:3001");
        assert_eq!(text("[::1]"), "[::1]:3001");
        assert_eq!(resolve("localhost:7").unwrap().port(), 7);
        for input in ["", ":", "99999999", "no.such.name.invalid:1", "1.2.3.4:99999"] {
            let error = resolve(input).unwrap_err().to_string();
            assert!(error.contains("is not a usable address"), "{error}");
        }
    }

    /// Goal: a name is recognised as one and keeps its port, whether or not it has an address; an
    /// address that is there twice is refused.
    #[test]
    fn replicas() {
        let list = replica_list("3000, localhost:7,no.such.name.invalid:8,localhost,[::1]:9");
        let list = list.unwrap();
        let ports: Vec<u16> = list.iter().map(ReplicaAddress::port).collect();
        assert_eq!(ports, [3000, 7, 8, PORT_DEFAULT, 9]);
        let named = |it: &ReplicaAddress| it.name().is_some();
        assert_eq!(list.iter().map(named).collect::<Vec<_>>(), [false, true, true, true, false]);
        assert!(list[1].known().is_some_and(|it| it.ip().is_loopback()));
        assert!(list[2].known().is_none() && list[2].missing().is_some());
        assert_eq!(list[2].to_string(), "no.such.name.invalid:8");
        for twins in ["a.invalid:1,a.invalid:1", "localhost:5,localhost:5", "3000,127.0.0.1:3000"] {
            let error = replica_list(twins).unwrap_err().to_string();
            assert!(error.contains("is listed twice: list the address"), "{error}");
        }
        for nonsense in ["", "3000,", "99999999", "a b:1", "host:99999", "1.2.3.4:99999", ":1"] {
            assert!(replica_list(nonsense).is_err(), "{nonsense}");
        }
    }

    /// Goal: a name is read without a look-up, and a text that cannot be one is refused with the
    /// reason.
    #[test]
    fn written() {
        let name = |host: &str, port| Ok(Written::Name { host: host.to_owned(), port });
        assert_eq!(parse("no.such.name.invalid:8"), name("no.such.name.invalid", 8));
        assert_eq!(parse("ledger-0_a.example."), name("ledger-0_a.example.", PORT_DEFAULT));
        assert_eq!(parse("host:0"), name("host", 0));
        for text in ["65536", "host:", "host:65536", "1.2.3.4:70000"] {
            assert_eq!(parse(text), Err(PORT_INVALID), "{text}");
        }
        for text in ["1.2.3:4", "1.2.3.4.5:1", "a b", "-1", "a..b", "-x", ":1", "[::1"] {
            assert!(parse(text).is_err_and(|reason| reason != PORT_INVALID), "{text}");
        }
    }

    /// Goal: lists keep their order; an entry that is invalid, or is there twice, is named.
    #[test]
    fn lists() {
        let ports = |text: &str| {
            let addresses = replica_list(text).map_err(|error| error.to_string())?;
            Ok::<_, String>(addresses.iter().map(ReplicaAddress::port).collect::<Vec<_>>())
        };
        assert_eq!(ports("3000"), Ok(vec![3000]));
        assert_eq!(ports("3002, localhost:3000,[::1]:3001"), Ok(vec![3002, 3000, 3001]));
        assert_eq!(ports("0,0"), Ok(vec![0, 0]));
        assert!(ports("3000,127.0.0.1:3000").unwrap_err().contains("listed twice"));
        assert!(ports("3000,,3001").unwrap_err().contains("\"\""));
    }
}
