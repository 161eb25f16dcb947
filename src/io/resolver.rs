//! Looks the names of other replicas up again, on a thread of its own.
//!
//! A look-up may take seconds, and the C library takes memory for it; so the serving thread only
//! asks for one and looks now and then whether it has ended. The thread allocates nothing itself:
//! names are made at the start, and answers lie in one place for each replica. One look-up at a
//! time, one question for each replica. Not covered: when to ask ([`peers`](super::peers)); our own
//! address, which is looked up once.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

/// Addresses of a name that are looked at; those that follow are not.
const ADDRESSES_MAX: usize = 16;

/// Addresses of a name, in the order in which the system prefers them.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    list: [SocketAddr; ADDRESSES_MAX],
    length: usize,
}

impl Addresses {
    /// None yet.
    #[must_use]
    pub fn new() -> Addresses {
        let none = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Addresses { list: [none; ADDRESSES_MAX], length: 0 }
    }

    /// Adds one, unless it is there or there are too many.
    pub fn add(&mut self, address: SocketAddr) {
        if self.length < ADDRESSES_MAX && !self.as_slice().contains(&address) {
            self.list[self.length] = address;
            self.length += 1;
        }
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[SocketAddr] {
        &self.list[..self.length]
    }

    /// Which one to try after this one failed: the one behind it, or the first if the name does not
    /// have it any more.
    #[must_use]
    pub fn after(&self, failed: Option<SocketAddr>) -> Option<SocketAddr> {
        let list = self.as_slice();
        let place = failed.and_then(|failed| list.iter().position(|it| *it == failed));
        let next = place.map_or(0, |place| (place + 1) % list.len());
        list.get(next).copied()
    }
}

impl Default for Addresses {
    fn default() -> Addresses {
        Addresses::new()
    }
}

/// Why a name has no address: a number of `getaddrinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupError(pub i32);

impl fmt::Display for LookupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the call takes a number and gives a text that is never released.
        let text = unsafe { libc::gai_strerror(self.0) };
        assert!(!text.is_null(), "every number has a text");
        // SAFETY: the text is not null, ends with a zero, and lives as long as the process.
        let text = unsafe { CStr::from_ptr(text) };
        formatter.write_str(text.to_str().unwrap_or("the name has no address"))
    }
}

impl std::error::Error for LookupError {}

/// Finds the addresses of a host, with this port.
pub type Lookup = fn(&CStr, u16) -> Result<Addresses, LookupError>;

/// Asks the system. Allocates nothing of ours; the C library does for itself.
///
/// # Errors
///
/// If the name has no address, or no name server answers.
pub fn look_up(host: &CStr, port: u16) -> Result<Addresses, LookupError> {
    // SAFETY: all zeros is a value of this structure of numbers and pointers to nothing.
    let mut hints: libc::addrinfo = unsafe { MaybeUninit::zeroed().assume_init() };
    hints.ai_family = libc::AF_UNSPEC;
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut first = std::ptr::null_mut();
    // SAFETY: the name ends with a zero, the hints are live, and the result is ours to write.
    let result = unsafe {
        libc::getaddrinfo(host.as_ptr(), std::ptr::null(), &raw const hints, &raw mut first)
    };
    if result != 0 {
        return Err(LookupError(result));
    }
    let mut addresses = Addresses::new();
    let mut next = first;
    // Bounded by the list that the system made.
    while !next.is_null() {
        // SAFETY: the list and the addresses in it are the system's until released below.
        unsafe {
            if let Some(address) = address_of((*next).ai_family, (*next).ai_addr, port) {
                addresses.add(address);
            }
            next = (*next).ai_next;
        }
    }
    // SAFETY: the list came from the call above and is not used afterwards.
    unsafe { libc::freeaddrinfo(first) };
    if addresses.as_slice().is_empty() { Err(LookupError(libc::EAI_NONAME)) } else { Ok(addresses) }
}

/// An address as the kernel has it, with a port.
///
/// # Safety
///
/// `name` is null or an address of this family.
unsafe fn address_of(family: i32, name: *const libc::sockaddr, port: u16) -> Option<SocketAddr> {
    if name.is_null() {
        return None;
    }
    match family {
        libc::AF_INET => {
            // SAFETY: the caller says that it is one of this family.
            let name = unsafe { name.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::from((ip, port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { name.cast::<libc::sockaddr_in6>().read_unaligned() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id)))
        }
        _ => None,
    }
}

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// The host alone.
    pub host: CString,
    /// The port that belongs to it.
    pub port: u16,
}

/// How the question about a replica stands. Each has one place, as large as an answer.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug)]
enum Question {
    /// There is none.
    None,
    /// It waits for the thread, or the thread is at it.
    Asked,
    /// It is answered.
    Answered(Result<Addresses, LookupError>),
}

/// What both threads share.
struct Shared {
    /// By index of the replica; `None` for those that are not names.
    names: Box<[Option<HostName>]>,
    lookup: Lookup,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    questions: Box<[Question]>,
    stop: bool,
    /// The thread has reached its loop: from here on it does not allocate.
    ready: bool,
}

impl Shared {
    /// The state; it is consistent at any time.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, and the questions to it. It ends after this is dropped, which does not wait for a
/// look-up.
pub struct Resolver {
    shared: Arc<Shared>,
}

impl Resolver {
    /// Starts the thread; returns when it is at its loop.
    ///
    /// # Errors
    ///
    /// If the system refuses the thread.
    pub fn new(names: Box<[Option<HostName>]>, lookup: Lookup) -> io::Result<Resolver> {
        let questions = names.iter().map(|_| Question::None).collect();
        let state = Mutex::new(State { questions, stop: false, ready: false });
        let shared = Arc::new(Shared { names, lookup, state, wake: Condvar::new() });
        let shared_of_thread = Arc::clone(&shared);
        // Not frozen: the thread is started before.
        std::thread::Builder::new()
            .name("florin-resolver".to_owned())
            .spawn(move || work(&shared_of_thread))?;
        let mut state = shared.state();
        while !state.ready {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        Ok(Resolver { shared })
    }

    /// Asks for the addresses of a replica, unless that is being done.
    ///
    /// # Panics
    ///
    /// If it has no name.
    pub fn ask(&self, replica: u8) {
        let place = usize::from(replica);
        assert!(self.shared.names[place].is_some(), "only names are looked up");
        let mut state = self.shared.state();
        if matches!(state.questions[place], Question::None) {
            state.questions[place] = Question::Asked;
            self.shared.wake.notify_one();
        }
    }

    /// Whether there is a question about a replica, answered or not.
    #[cfg(test)]
    #[must_use]
    pub fn has_question(&self, replica: u8) -> bool {
        !matches!(self.shared.state().questions[usize::from(replica)], Question::None)
    }

    /// Takes the answer to the last question about a replica, if it is there.
    #[must_use]
    pub fn take(&self, replica: u8) -> Option<Result<Addresses, LookupError>> {
        let mut state = match self.shared.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The thread is writing: next time.
            Err(TryLockError::WouldBlock) => return None,
        };
        let question = &mut state.questions[usize::from(replica)];
        let Question::Answered(answer) = *question else { return None };
        *question = Question::None;
        Some(answer)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.wake.notify_all();
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Resolver({} replicas)", self.shared.names.len())
    }
}

/// The thread: answers one question after another until it is stopped.
fn work(shared: &Shared) {
    let mut state = shared.state();
    state.ready = true;
    shared.wake.notify_all();
    // Questions are taken in turn, so that none waits for ever.
    let mut cursor = 0;
    loop {
        if state.stop {
            return;
        }
        let count = shared.names.len();
        let places = (0..count).map(|step| (cursor + step) % count);
        let asked = places
            .into_iter()
            .find(|place| matches!(state.questions[*place], Question::Asked))
            .and_then(|place| shared.names[place].as_ref().map(|name| (place, name)));
        let Some((place, name)) = asked else {
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        let answer = (shared.lookup)(&name.host, name.port);
        cursor = (place + 1) % count;
        state = shared.state();
        state.questions[place] = Question::Answered(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::allocator::tests::allocations_of_thread;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// Allocations of the thread when it looked something up.
    static ALLOCATIONS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn name(host: &str, port: u16) -> HostName {
        HostName { host: CString::new(host).unwrap(), port }
    }

    fn wait(resolver: &Resolver, replica: u8) -> Result<Addresses, LookupError> {
        for _ in 0..20_000 {
            if let Some(answer) = resolver.take(replica) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the look-up never ended");
    }

    fn count_and_look_up(host: &CStr, port: u16) -> Result<Addresses, LookupError> {
        ALLOCATIONS[0].fetch_add(allocations_of_thread(), Ordering::Relaxed);
        let answer = look_up(host, port);
        ALLOCATIONS[1].fetch_add(allocations_of_thread(), Ordering::Relaxed);
        answer
    }

    /// Goal: names are looked up without an allocation on either thread, also those that have no
    /// address; a replica that nobody asked for has no answer.
    #[test]
    fn looks_up() {
        let names = [None, Some(name("localhost", 77)), Some(name("no.such.name.invalid", 78))];
        let resolver = Resolver::new(names.into(), count_and_look_up).unwrap();
        let before = allocations_of_thread();
        resolver.ask(1);
        resolver.ask(1);
        resolver.ask(2);
        let found = wait(&resolver, 1).unwrap();
        let failed = wait(&resolver, 2).unwrap_err();
        assert!(resolver.take(0).is_none() && resolver.take(1).is_none());
        assert_eq!(allocations_of_thread(), before);
        assert!(found.as_slice().iter().all(|it| it.ip().is_loopback() && it.port() == 77));
        assert!(!found.as_slice().is_empty());
        assert!(!failed.to_string().is_empty());
        let [started, ended] = &ALLOCATIONS;
        assert_eq!(started.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
    }

    /// Goal: after an address that failed its successor is tried, from the last one the first, and
    /// the first of a name that does not have it any more.
    #[test]
    fn successors() {
        let mut addresses = Addresses::new();
        assert_eq!(addresses.after(None), None);
        let (one, two) = (address("10.0.0.1:1"), address("[::1]:1"));
        for it in [one, two, one] {
            addresses.add(it);
        }
        assert_eq!(addresses.as_slice(), [one, two]);
        assert_eq!(addresses.after(None), Some(one));
        assert_eq!(addresses.after(Some(one)), Some(two));
        assert_eq!(addresses.after(Some(two)), Some(one));
        assert_eq!(addresses.after(Some(address("10.0.0.9:1"))), Some(one));
        for port in 1..100 {
            addresses.add(SocketAddr::from(([10, 0, 0, 2], port)));
        }
        assert_eq!(addresses.as_slice().len(), ADDRESSES_MAX);
    }

    /// Goal: an address as the kernel has it is read as it is.
    #[test]
    fn numbers_are_names_of_themselves() {
        for text in ["192.0.2.7:9", "[2001:db8::5]:9"] {
            let expected = address(text);
            let host = CString::new(expected.ip().to_string()).unwrap();
            assert_eq!(look_up(&host, 9).unwrap().as_slice(), [expected]);
        }
    }
}
