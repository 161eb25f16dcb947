//! Addresses of replicas as people write them.
//!
//! `127.0.0.1:3000`, `[::1]:3000`, an IP address alone (port 3001) or a port alone (127.0.0.1);
//! a list is separated by commas and in order of the replicas. No host names: an address must mean
//! the same on every machine and at every time.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
                "`{text}` is no address: expected IP:PORT, IP or PORT (host names are not resolved)"
            ),
            AddressError::Duplicate(address) => write!(formatter, "{address} is listed twice"),
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
}
