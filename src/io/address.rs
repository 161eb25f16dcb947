//! Addresses of replicas as an operator writes them, names included.
//!
//! A name is looked up when the server starts, and never again: a replica that moves to another
//! address needs the others to be started again. Not covered: how a client writes addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

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
