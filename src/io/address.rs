//! Addresses of replicas as an operator writes them, names included.
//!
//! A name is looked up when the server starts. The names of other replicas need no address then,
//! and are looked up again whenever they cannot be reached ([`resolver`](super::resolver)); our own
//! address stays what it is. Not covered: how a client writes addresses.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use super::resolver::{HostName, look_up};

/// Port of an address that names none.
pub const PORT_DEFAULT: u16 = 3001;

/// An address is none, or names nothing.
#[derive(Debug)]
pub struct AddressError {
    /// As given.
    pub address: String,
    /// What is wrong with it.
    pub error: io::Error,
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AddressError { address, error } = self;
        write!(
            formatter,
            "\"{address}\" is no usable address: {error}; give HOST:PORT, a host, a port, or \
             [IPv6]:PORT"
        )
    }
}

impl std::error::Error for AddressError {}

/// Where a replica is, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAddress {
    /// As the operator wrote it.
    text: String,
    /// What to look up, if it was written as a name.
    name: Option<HostName>,
    /// The address, or why there is none.
    found: Result<SocketAddr, String>,
}

impl ReplicaAddress {
    /// The address; `None` if its name has none yet.
    #[must_use]
    pub fn known(&self) -> Option<SocketAddr> {
        self.found.as_ref().ok().copied()
    }

    /// What to look up, if it was written as a name.
    #[must_use]
    pub fn name(&self) -> Option<&HostName> {
        self.name.as_ref()
    }

    /// The port, which is known in any case.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.name.as_ref().map(|name| name.port).or(self.known().map(|it| it.port())).unwrap_or(0)
    }

    /// Why there is no address; `None` if there is one.
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

/// The host and port of a text that has the form of a name: what [`resolve`] would look up.
fn host_name(text: &str) -> Option<HostName> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || text.parse::<SocketAddr>().is_ok() || bare.parse::<IpAddr>().is_ok() {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, PORT_DEFAULT),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) || host.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    Some(HostName { host: CString::new(host).ok()?, port })
}

/// The replicas in a list separated by commas. A name without an address is no error: in many
/// places it appears only when its replica does.
///
/// # Errors
///
/// If one of them is no address and no name, or appears twice. Port zero may repeat.
///
/// # Panics
///
/// Never: there is something before the first comma.
pub fn replica_list(text: &str) -> Result<Vec<ReplicaAddress>, AddressError> {
    let mut replicas: Vec<ReplicaAddress> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let replica = match host_name(part) {
            None => ReplicaAddress { text: part.to_owned(), ..resolve(part)?.into() },
            Some(name) => {
                let found = look_up(&name.host, name.port).map_err(|error| error.to_string());
                let found = found.map(|addresses| addresses.as_slice()[0]);
                ReplicaAddress { text: part.to_owned(), name: Some(name), found }
            }
        };
        let is_same = |other: &ReplicaAddress| match (other.known(), replica.known()) {
            (Some(one), Some(two)) => one == two,
            _ => other.name.is_some() && other.name == replica.name,
        };
        if replica.port() != 0 && replicas.iter().any(is_same) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is listed twice");
            return Err(AddressError { address: part.to_owned(), error });
        }
        replicas.push(replica);
    }
    assert!(!replicas.is_empty(), "there is something before the first comma");
    Ok(replicas)
}

/// The addresses in a list separated by commas.
///
/// # Errors
///
/// If one of them is none, or appears twice. Port zero may repeat.
///
/// # Panics
///
/// Never: there is something before the first comma.
pub fn resolve_list(text: &str) -> Result<Vec<SocketAddr>, AddressError> {
    let mut addresses = Vec::new();
    for part in text.split(',') {
        let address = resolve(part.trim())?;
        if address.port() != 0 && addresses.contains(&address) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is listed twice");
            return Err(AddressError { address: part.trim().to_owned(), error });
        }
        addresses.push(address);
    }
    assert!(!addresses.is_empty(), "there is something before the first comma");
    Ok(addresses)
}

/// The address that `text` names: `host:port`, `host` (port 3001), `port` (on 127.0.0.1),
/// `[IPv6]:port` or `IPv6`. A host is an IP address or a name; of a name the first address counts.
///
/// # Errors
///
/// If it names none.
pub fn resolve(text: &str) -> Result<SocketAddr, AddressError> {
    let failure = |error| AddressError { address: text.to_owned(), error };
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let reason = "a port is a number up to 65535";
        return Err(failure(io::Error::new(io::ErrorKind::InvalidInput, reason)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, PORT_DEFAULT));
    }
    let found = if text.contains(':') {
        text.to_socket_addrs()
    } else {
        (text, PORT_DEFAULT).to_socket_addrs()
    };
    let first = found.map_err(failure)?.next();
    first.ok_or_else(|| failure(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every form of address is understood, and nonsense is refused with a hint.
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
            assert!(error.contains("is no usable address"), "{error}");
        }
    }

    /// Goal: what is a name is known as one with its port, looked up or not; twins are refused.
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
            assert!(error.contains("listed twice"), "{error}");
        }
        for nonsense in ["", "3000,", "99999999", "a b:1", "host:99999", "1.2.3.4:99999", ":1"] {
            assert!(replica_list(nonsense).is_err(), "{nonsense}");
        }
    }

    /// Goal: lists keep their order; an address that is none, or is there twice, is named.
    #[test]
    fn lists() {
        let ports = |text: &str| {
            let addresses = resolve_list(text).map_err(|error| error.to_string())?;
            Ok::<_, String>(addresses.iter().map(SocketAddr::port).collect::<Vec<_>>())
        };
        assert_eq!(ports("3000"), Ok(vec![3000]));
        assert_eq!(ports("3002, localhost:3000,[::1]:3001"), Ok(vec![3002, 3000, 3001]));
        assert_eq!(ports("0,0"), Ok(vec![0, 0]));
        assert!(ports("3000,127.0.0.1:3000").unwrap_err().contains("listed twice"));
        assert!(ports("3000,,3001").unwrap_err().contains("\"\""));
    }
}
