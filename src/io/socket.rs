//! Kernel objects the loop waits on that the standard library lacks: an event counter, and the
//! options of sockets. Not covered: signals ([`signals`](super::signals)).

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Bytes the kernel may hold of what a peer sent and we have not read.
pub const RECEIVE_BUFFER_BYTES: i32 = 4 << 20;
/// Bytes the kernel may hold of what we sent and a peer has not taken.
pub const SEND_BUFFER_BYTES: i32 = 2 << 20;
/// A connection without traffic is probed after this time.
const KEEPALIVE_IDLE_S: i32 = 5;
const KEEPALIVE_INTERVAL_S: i32 = 4;
const KEEPALIVE_PROBES: i32 = 3;
/// Sent bytes that stay unacknowledged for this long end the connection.
const USER_TIMEOUT_MS: i32 = 17_000;
/// The same between replicas, which always have something to say: a peer that is gone without a
/// word, or takes nothing, is noticed sooner.
const REPLICA_KEEPALIVE_IDLE_S: i32 = 2;
const REPLICA_KEEPALIVE_INTERVAL_S: i32 = 1;
const REPLICA_USER_TIMEOUT_MS: i32 = 5_000;
/// See [`expect_no_congestion`].
const LOOPBACK_CONGESTION_CONTROL: &[u8] = b"reno";
/// Attempts to connect are repeated so often by the kernel: an absent machine is given up after
/// three seconds.
const REPLICA_CONNECT_REPEATS: i32 = 1;
/// A counter that the kernel refuses to raise so often stays as it is.
const NOTIFY_ATTEMPTS: u32 = 3;
/// Pauses until another process is believed to keep the port for good.
const LISTEN_PAUSES_MAX: u32 = 200;
const LISTEN_PAUSE: Duration = Duration::from_millis(10);

/// The result of a system call that returns −1 for an error.
pub(super) fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that the kernel has just made for us.
pub(super) fn owned(descriptor: RawFd) -> OwnedFd {
    assert!(descriptor >= 0);
    // SAFETY: the caller got this descriptor from a successful system call that makes a new one,
    // and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// A counter in the kernel that one thread raises and another waits for.
#[derive(Debug)]
pub struct EventCounter(File);

impl EventCounter {
    /// A counter at zero.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn new() -> io::Result<EventCounter> {
        // SAFETY: the call takes no pointers.
        let descriptor =
            checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(EventCounter(File::from(owned(descriptor))))
    }

    /// Makes the counter readable, unless the kernel refuses. The waiting thread must also check
    /// periodically.
    ///
    /// # Panics
    ///
    /// If the kernel takes half a number.
    pub fn notify(&self) {
        for _ in 0..NOTIFY_ATTEMPTS {
            match (&self.0).write(&1_u64.to_ne_bytes()) {
                Ok(count) => {
                    assert!(count == 8);
                    return;
                }
                // Full: it is readable, which is all that is wanted.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    /// Makes the counter unreadable; whether it was readable.
    #[must_use]
    pub fn reset(&self) -> bool {
        (&self.0).read(&mut [0; 8]).is_ok()
    }
}

impl AsFd for EventCounter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<i32>()).expect("the size of an int is small");
    // SAFETY: the pointer and size are those of a live local integer, which the call only reads.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size)
    };
    checked(result).map(drop)
}

/// The value of an option.
pub(crate) fn option(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut size = libc::socklen_t::try_from(size_of::<i32>()).expect("an int is small");
    let pointer = (&raw mut value).cast();
    // SAFETY: the pointers are those of live locals, and the size is that of the value.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, pointer, &raw mut size) };
    checked(result).map(|_| value)
}

/// Sets a buffer size beyond the system's limit if we may, up to it if that is enough. Otherwise
/// nothing: a size set below what is wanted would be worse than the system's own adaption.
///
/// Runs while the memory is frozen, so the limit is tried out on another socket rather than read
/// from a file: nothing here allocates, and it works without `/proc`.
fn set_buffer_size(socket: BorrowedFd<'_>, force: i32, name: i32, size: i32) {
    if set_option(socket, libc::SOL_SOCKET, force, size).is_ok() {
        return;
    }
    if is_within_limit(socket, name, size) {
        // Only speed hangs on this.
        let _ = set_option(socket, libc::SOL_SOCKET, name, size);
    }
}

/// Whether the system allows a buffer of this size: sets it on a throw-away socket of the same
/// family.
fn is_within_limit(socket: BorrowedFd<'_>, name: i32, size: i32) -> bool {
    let probe = option(socket, libc::SOL_SOCKET, libc::SO_DOMAIN).and_then(stream_socket);
    let granted = probe.and_then(|probe| {
        set_option(probe.as_fd(), libc::SOL_SOCKET, name, size)?;
        option(probe.as_fd(), libc::SOL_SOCKET, name)
    });
    // The kernel cuts what it is asked for at its limit, then doubles it.
    granted.is_ok_and(|granted| granted >= size.saturating_mul(2))
}

/// A socket for a connection, without options.
fn stream_socket(family: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let descriptor = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    checked(descriptor).map(owned)
}

/// Listens at an address, with the options that connections inherit.
///
/// A process that was killed keeps its port for some milliseconds after it is gone, until the
/// kernel has ended what was in flight. A restart at once must not fail, so this waits.
///
/// # Errors
///
/// If the system refuses, or the port stays in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let mut pauses_left = LISTEN_PAUSES_MAX;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => {
                set_listener_options(listener.as_fd())?;
                return Ok(listener);
            }
            Err(error) if error.kind() != io::ErrorKind::AddrInUse || pauses_left == 0 => {
                return Err(error);
            }
            Err(_) => {
                pauses_left -= 1;
                std::thread::sleep(LISTEN_PAUSE);
            }
        }
    }
}

/// An address in the form that the kernel wants.
#[derive(Clone, Copy)]
pub enum SocketName {
    /// Of version 4.
    V4(libc::sockaddr_in),
    /// Of version 6.
    V6(libc::sockaddr_in6),
}

impl SocketName {
    /// The name of an address.
    ///
    /// # Panics
    ///
    /// Never: address families are small numbers.
    #[must_use]
    pub fn new(address: SocketAddr) -> SocketName {
        let family = |family: i32| libc::sa_family_t::try_from(family).expect("a small number");
        match address {
            SocketAddr::V4(address) => SocketName::V4(libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => SocketName::V6(libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }

    /// Where it is, valid until it moves, and how long it is.
    pub(super) fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        let length = |size: usize| libc::socklen_t::try_from(size).expect("a small structure");
        match self {
            SocketName::V4(name) => {
                ((&raw const *name).cast(), length(size_of::<libc::sockaddr_in>()))
            }
            SocketName::V6(name) => {
                ((&raw const *name).cast(), length(size_of::<libc::sockaddr_in6>()))
            }
        }
    }
}

/// Between programs of one machine there is no congestion to control. With a controller that paces
/// (BBR) a message of 1 MiB was now and then held back for 20 to 100 ms until a delayed
/// acknowledgement came; the plainest one, which every system allows everybody, takes 2 ms at the
/// most. Only speed hangs on it.
///
/// # Panics
///
/// Never: a name is short.
pub fn expect_no_congestion(socket: BorrowedFd<'_>, peer: IpAddr) {
    if !peer.to_canonical().is_loopback() {
        return;
    }
    let name = LOOPBACK_CONGESTION_CONTROL;
    let size = libc::socklen_t::try_from(name.len()).expect("a name is short");
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
    // SAFETY: the pointer and size are those of a constant, which the call only reads.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, name.as_ptr().cast(), size) };
    let _ = checked(result);
}

/// A socket to connect to another replica with.
///
/// # Errors
///
/// If the system refuses.
pub fn dialer(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let stream = TcpStream::from(stream_socket(family)?);
    let (socket, tcp) = (stream.as_fd(), libc::IPPROTO_TCP);
    expect_no_congestion(socket, address.ip());
    set_send_buffer_size(socket);
    set_option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    for (name, value) in [
        (libc::TCP_NODELAY, 1),
        (libc::TCP_KEEPIDLE, REPLICA_KEEPALIVE_IDLE_S),
        (libc::TCP_KEEPINTVL, REPLICA_KEEPALIVE_INTERVAL_S),
        (libc::TCP_KEEPCNT, KEEPALIVE_PROBES),
        (libc::TCP_USER_TIMEOUT, REPLICA_USER_TIMEOUT_MS),
        (libc::TCP_SYNCNT, REPLICA_CONNECT_REPEATS),
    ] {
        set_option(socket, tcp, name, value)?;
    }
    Ok(stream)
}

/// Throws away some of what has arrived, without waiting; how many bytes, zero at the end.
///
/// # Errors
///
/// If nothing is there, or the connection is broken.
pub fn discard(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes = [0_u8; 4096];
    // SAFETY: the pointer and length are those of a live local array.
    let count = unsafe {
        libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT)
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

fn set_send_buffer_size(socket: BorrowedFd<'_>) {
    set_buffer_size(socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER_BYTES);
}

/// Sets the options of a listening socket that its connections inherit: no delay, keepalive, buffer
/// sizes.
///
/// # Errors
///
/// If the system refuses one that matters for more than speed.
fn set_listener_options(listener: BorrowedFd<'_>) -> io::Result<()> {
    set_buffer_size(listener, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES);
    set_send_buffer_size(listener);
    set_option(listener, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    for (name, value) in [
        (libc::TCP_NODELAY, 1),
        (libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
        (libc::TCP_KEEPCNT, KEEPALIVE_PROBES),
        (libc::TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
    ] {
        set_option(listener, libc::IPPROTO_TCP, name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::allocator::tests::allocations_of_thread;

    /// Goal: a connection has the options set on its listener.
    #[test]
    fn options_are_inherited() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let set = |level, name| option(accepted.as_fd(), level, name).unwrap();
        assert_eq!(set(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        for (name, value) in [
            (libc::TCP_NODELAY, 1),
            (libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
            (libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
            (libc::TCP_KEEPCNT, KEEPALIVE_PROBES),
            (libc::TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
        ] {
            assert_eq!(set(libc::IPPROTO_TCP, name), value, "option {name}");
        }
    }

    /// Takes all privileges from the calling thread, as if another user than root ran it.
    fn give_up_privileges() {
        // Version 3 of the structure, and the thread itself.
        let header = [0x2008_0522_u32, 0];
        let none = [0_u32; 6];
        // SAFETY: the pointers are those of live arrays laid out as the call expects; the
        // privileges of a thread are its own.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
        assert_eq!(result, 0);
    }

    /// Goal: a thread without privileges makes a socket to another replica without allocating; its
    /// buffer is as large as is wanted, or left to the system.
    #[test]
    fn dials_without_privileges() {
        let unprivileged = std::thread::spawn(|| {
            give_up_privileges();
            let address = "127.0.0.1:1".parse().unwrap();
            let before = allocations_of_thread();
            let socket = dialer(address).unwrap();
            assert_eq!(allocations_of_thread(), before, "allocations while dialing");
            let untouched = stream_socket(libc::AF_INET).unwrap();
            let size_of =
                |socket: BorrowedFd<'_>| option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap();
            let (size, usual) = (size_of(socket.as_fd()), size_of(untouched.as_fd()));
            assert!(size == usual || size == 2 * SEND_BUFFER_BYTES, "{size}, usually {usual}");
            // A size that every system allows is recognised as such, and an absurd one, too.
            let name = libc::SO_SNDBUF;
            assert!(is_within_limit(socket.as_fd(), name, 8192));
            assert!(!is_within_limit(socket.as_fd(), name, i32::MAX / 2));
        });
        unprivileged.join().unwrap();
    }

    /// The name of a socket's congestion control.
    fn congestion_control(socket: BorrowedFd<'_>) -> Vec<u8> {
        let mut name = [0_u8; 16];
        let mut size = libc::socklen_t::try_from(name.len()).unwrap();
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
        let pointer = name.as_mut_ptr().cast();
        // SAFETY: the pointers are those of live locals, and the size is that of the name.
        let result =
            unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, pointer, &raw mut size) };
        assert_eq!(result, 0);
        name.into_iter().take_while(|byte| *byte != 0).collect()
    }

    /// Goal: congestion is controlled as the machine wants it, but not between its own programs.
    #[test]
    fn no_congestion_at_home() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let usual = congestion_control(client.as_fd());
        expect_no_congestion(client.as_fd(), "192.0.2.1".parse().unwrap());
        assert_eq!(congestion_control(client.as_fd()), usual);
        for peer in ["::ffff:127.0.0.1", "127.0.0.2", "::1"] {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            expect_no_congestion(client.as_fd(), peer.parse().unwrap());
            assert_eq!(congestion_control(client.as_fd()), LOOPBACK_CONGESTION_CONTROL);
        }
        let dialer = dialer(listener.local_addr().unwrap()).unwrap();
        assert_eq!(congestion_control(dialer.as_fd()), LOOPBACK_CONGESTION_CONTROL);
    }

    /// Goal: the counter is readable after one or several notifications, until reset.
    #[test]
    fn event_counter() {
        let counter = EventCounter::new().unwrap();
        assert!(!counter.reset());
        counter.notify();
        counter.notify();
        assert!(counter.reset());
        assert!(!counter.reset());
    }
}
