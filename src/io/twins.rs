//! Two processes that serve one replica's index at the same time.
//!
//! Each process that connects says which replica it is, a number of its own that it drew when it
//! started, and where it listens. Two live connections of one replica with different numbers are
//! two processes: a copy of a data file is being served, or an old server was not stopped. Bounded
//! by the replicas of a cluster; allocates nothing. Not covered: which of the two is the right one,
//! which no other replica can know.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::complaint::Complaint;
use crate::protocol::NODES_MAX;
use crate::protocol::about::{AddressBytes, Hello};

/// A sighting counts for this many ticks of 10 ms after it: two seconds.
const SIGHTING_TICKS: u64 = 200;

/// A process as it has introduced itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The replica that it serves.
    pub replica: u8,
    /// The number that it drew when it started.
    pub instance: u64,
    /// Where it listens; port zero if it did not say so.
    pub address: SocketAddr,
}

impl Process {
    /// The process that says this from `peer`; none if its release does not number processes.
    #[must_use]
    pub fn of(hello: &Hello, peer: IpAddr) -> Option<Process> {
        let mut address = address_from(&hello.listen);
        if address.ip().is_unspecified() {
            address.set_ip(peer);
        }
        let Hello { replica, instance, .. } = *hello;
        (instance != 0).then_some(Process { replica, instance, address })
    }
}

/// Two processes of one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twins<Address = SocketAddr> {
    /// The index.
    pub replica: u8,
    /// Where each of them listens, the smaller address first.
    pub addresses: [Address; 2],
}

impl<Address: fmt::Display> fmt::Display for Twins<Address> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Twins { replica, addresses: [one, other] } = self;
        write!(
            formatter,
            "two processes serve replica {replica}, at {one} and at {other}: stop the one that is \
             not in the others' --addresses, at once; a copy of a data file must never be served"
        )
    }
}

/// What was seen of each replica.
#[derive(Debug)]
pub struct Sightings {
    twins: [Option<(Twins, u64)>; NODES_MAX as usize],
    complaint: Complaint,
}

impl Sightings {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new() -> Sightings {
        Sightings { twins: [None; NODES_MAX as usize], complaint: Complaint::default() }
    }

    /// Notes two processes that were heard just now; ignores one and the same.
    pub fn note(&mut self, tick: u64, one: Process, other: Process) {
        if one.replica != other.replica || one.instance == other.instance {
            return;
        }
        let mut addresses = [one.address, other.address];
        addresses.sort_unstable();
        let twins = Twins { replica: one.replica, addresses };
        let Some(place) = self.twins.get_mut(usize::from(one.replica)) else { return };
        *place = Some((twins, tick));
        self.complaint.write(tick, format_args!("{twins}"));
    }

    /// The twins of a replica, if they were seen lately.
    #[must_use]
    pub fn of(&self, replica: u8, tick: u64) -> Option<Twins> {
        let seen = self.twins.get(usize::from(replica)).copied().flatten();
        seen.filter(|(_, seen)| tick.saturating_sub(*seen) <= SIGHTING_TICKS).map(|it| it.0)
    }

    /// The first twins that were seen lately.
    #[must_use]
    pub fn first(&self, tick: u64) -> Option<Twins> {
        (0..NODES_MAX).find_map(|replica| self.of(replica, tick))
    }
}

impl Default for Sightings {
    fn default() -> Sightings {
        Sightings::new()
    }
}

/// An address as bytes of a frame: IPv6 or an IPv4 address mapped to it, then the port.
#[must_use]
pub fn address_bytes(address: SocketAddr) -> AddressBytes {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_le_bytes());
    bytes
}

/// The address that such bytes stand for.
#[must_use]
pub fn address_from(bytes: &AddressBytes) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[..16]);
    let port = u16::from_le_bytes([bytes[16], bytes[17]]);
    let ip = IpAddr::from(ip).to_canonical();
    SocketAddr::new(if ip.is_unspecified() { Ipv4Addr::UNSPECIFIED.into() } else { ip }, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(instance: u64, port: u16) -> Process {
        Process { replica: 1, instance, address: SocketAddr::from(([10, 0, 0, 2], port)) }
    }

    /// Goal: two processes of one index are remembered for two seconds, with both addresses,
    /// whoever was heard first; one process with two connections is none.
    #[test]
    fn sightings() {
        let mut sightings = Sightings::new();
        sightings.note(5, process(7, 3000), process(7, 3000));
        sightings.note(5, process(7, 3000), Process { replica: 2, ..process(8, 3001) });
        assert_eq!(sightings.first(5), None);
        sightings.note(6, process(8, 3001), process(7, 3000));
        let twins = sightings.first(6 + SIGHTING_TICKS).unwrap();
        assert_eq!((twins.replica, twins.addresses[0].port()), (1, 3000));
        let text = twins.to_string();
        assert!(text.contains("replica 1, at 10.0.0.2:3000 and at 10.0.0.2:3001"), "{text}");
        assert_eq!(sightings.first(7 + SIGHTING_TICKS), None);
        assert_eq!(sightings.of(0, 6), None);
    }

    /// Goal: a process is known by its number; where it listens is completed by where it comes
    /// from.
    #[test]
    fn processes() {
        let peer = IpAddr::from([10, 0, 0, 9]);
        let listen = address_bytes(SocketAddr::from(([0, 0, 0, 0], 3005)));
        let hello = Hello {
            cluster: 7,
            replica: 1,
            expected: 0,
            replica_count: 3,
            nodes: 3,
            message_size_max: 1 << 20,
            instance: 4,
            listen,
        };
        let process = Process::of(&hello, peer).unwrap();
        assert_eq!((process.instance, process.address.to_string()), (4, "10.0.0.9:3005".into()));
        assert_eq!(Process::of(&Hello { instance: 0, ..hello }, peer), None);
        for text in ["10.0.0.1:3000", "[fd00::1]:3001"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(address_from(&address_bytes(address)), address);
        }
    }
}
