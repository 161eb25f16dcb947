//! The few system calls of the client that the standard library does not offer.
//!
//! Starting a connection without waiting for it, waiting for several sockets at once, and the unit
//! of processor time. Everything else goes through `std`.

#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::io::socket::expect_no_congestion;

pub use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, pollfd};

/// Seconds without traffic until the connection is probed.
const KEEPALIVE_IDLE_SECONDS: libc::c_int = 5;
/// Seconds between probes.
const KEEPALIVE_INTERVAL_SECONDS: libc::c_int = 4;
/// Probes without answer until the connection is given up.
const KEEPALIVE_PROBES: libc::c_int = 3;
/// Milliseconds that sent bytes may stay unacknowledged.
const USER_TIMEOUT_MILLISECONDS: libc::c_int = 17_000;

/// A 32-bit constant of `libc` that is known to be small, as the type a structure wants.
fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("a socket structure is small")
}

fn family_of(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("address families fit their type")
}

/// Starts to connect and returns at once; the socket is writable when the attempt has ended.
///
/// # Errors
///
/// If the system refuses to make the socket or knows already that the peer cannot be reached.
pub fn connect_start(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `socket` takes plain numbers; a negative result is handled before use.
    let descriptor = unsafe { libc::socket(family, kind, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and nobody else owns it.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    stream.set_nodelay(true)?;
    set_option(&stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(&stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)?;
    set_option(&stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)?;
    set_option(&stream, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES)?;
    set_option(&stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS)?;
    expect_no_congestion(stream.as_fd(), address.ip());
    connect(&stream, address)?;
    Ok(stream)
}

fn connect(stream: &TcpStream, address: SocketAddr) -> io::Result<()> {
    let result = match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: family_of(libc::AF_INET),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            let pointer = (&raw const name).cast::<libc::sockaddr>();
            let length = length_of::<libc::sockaddr_in>();
            // SAFETY: the pointer is to `name`, alive during the call and of that length.
            unsafe { libc::connect(stream.as_raw_fd(), pointer, length) }
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: family_of(libc::AF_INET6),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            let pointer = (&raw const name).cast::<libc::sockaddr>();
            let length = length_of::<libc::sockaddr_in6>();
            // SAFETY: the pointer is to `name`, alive during the call and of that length.
            unsafe { libc::connect(stream.as_raw_fd(), pointer, length) }
        }
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINPROGRESS) => Ok(()),
        _ => Err(error),
    }
}

fn set_option(
    stream: &TcpStream,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let pointer = (&raw const value).cast::<libc::c_void>();
    let length = length_of::<libc::c_int>();
    // SAFETY: the pointer is to `value`, alive during the call and of that length.
    let result = unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, pointer, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until one of the sockets is ready or the time is over; returns how many are ready.
/// Entries with a negative descriptor are skipped. An interruption by a signal counts as time over.
///
/// # Errors
///
/// If the system cannot wait (out of memory, bad argument).
///
/// # Panics
///
/// Never: the arguments fit.
pub fn wait_ready(descriptors: &mut [pollfd], timeout: Duration) -> io::Result<u32> {
    let count = libc::nfds_t::try_from(descriptors.len()).expect("few descriptors");
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(
            i32::try_from(timeout.subsec_nanos()).expect("less than a billion"),
        ),
    };
    let mask = std::ptr::null::<libc::sigset_t>();
    for descriptor in descriptors.iter_mut() {
        descriptor.revents = 0;
    }
    // SAFETY: the pointer and the count describe a live slice that the call may write to; the
    // timeout is alive during the call; a null mask leaves signals alone.
    let result = unsafe { libc::ppoll(descriptors.as_mut_ptr(), count, &raw const timeout, mask) };
    if let Ok(ready) = u32::try_from(result) {
        return Ok(ready);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
}

/// Units of processor time per second, as counted in `/proc`.
#[must_use]
pub fn clock_ticks_per_second() -> u64 {
    // SAFETY: `sysconf` takes and returns plain numbers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Goal: a connection started without waiting becomes writable and carries bytes both ways.
    #[test]
    fn connects() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert_ne!(address, "127.0.0.1:0", "the loopback interface exists");
                continue;
            };
            let mut stream = connect_start(listener.local_addr().unwrap()).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let mut set = [pollfd { fd: stream.as_raw_fd(), events: POLLOUT, revents: 0 }];
            assert_eq!(wait_ready(&mut set, Duration::from_secs(10)).unwrap(), 1);
            assert_eq!(set[0].revents & POLLOUT, POLLOUT);
            stream.write_all(b"ping").unwrap();
            let mut bytes = [0; 4];
            peer.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"ping");
        }
    }

    /// Goal: waiting on nothing returns when the time is over.
    #[test]
    fn waits_for_nothing() {
        let mut set = [pollfd { fd: -1, events: POLLIN, revents: 7 }];
        assert_eq!(wait_ready(&mut set, Duration::from_millis(1)).unwrap(), 0);
        assert_eq!(set[0].revents, 0);
        assert!(clock_ticks_per_second() >= 1);
    }
}
