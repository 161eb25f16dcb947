//! A network that misbehaves: every connection from one party to one replica goes through a link
//! of its own, which can hold back, delay, damage or cut what passes.
//!
//! Threads and buffers are not bounded as in the server: this is a test. They end with the process.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How long a thread waits for bytes or room until it looks at the link's faults again.
const PATIENCE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(2);

/// The way from one party to one replica, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Link {
    blocked: AtomicBool,
    delay_ms: AtomicU64,
    /// Counts the times that all connections were cut.
    cuts: AtomicU32,
    /// The next bytes that pass are damaged.
    garbage: AtomicBool,
    /// Bytes that have passed.
    passed: AtomicU64,
}

impl Link {
    /// A link to a replica, and the address at which it is entered.
    pub fn open(target: SocketAddr) -> (Arc<Link>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it was bound");
        let link = Arc::new(Link::default());
        let shared = Arc::clone(&link);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accept(&shared, stream, target);
            }
        });
        (link, address)
    }

    /// Nothing passes until this is taken back; connections stay.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// What passes takes so much longer.
    pub fn set_delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("short");
        self.delay_ms.store(delay, Ordering::Relaxed);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// Damages the next bytes that pass.
    pub fn damage(&self) {
        self.garbage.store(true, Ordering::Relaxed);
    }

    /// Bytes that have passed.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

fn accept(link: &Arc<Link>, inside: TcpStream, target: SocketAddr) {
    // Who cannot be reached shows by a connection that ends at once.
    let Ok(outside) = TcpStream::connect(target) else { return };
    let cuts = link.cuts.load(Ordering::Relaxed);
    for stream in [&inside, &outside] {
        stream.set_nodelay(true).expect("a fresh socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a fresh socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a fresh socket");
    }
    let copies = (inside.try_clone(), outside.try_clone());
    let (Ok(inside_copy), Ok(outside_copy)) = copies else { return };
    for (from, to) in [(inside, outside), (outside_copy, inside_copy)] {
        let link = Arc::clone(link);
        thread::spawn(move || {
            pump(&link, cuts, &from, &to);
            // Errors mean that they are closed already.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

/// Hands on what arrives until either side ends or the link is cut.
fn pump(link: &Link, cuts: u32, mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    let is_cut = || link.cuts.load(Ordering::Relaxed) != cuts;
    while !is_cut() {
        let count = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if is_pause(error.kind()) => continue,
            Err(_) => return,
        };
        thread::sleep(Duration::from_millis(link.delay_ms.load(Ordering::Relaxed)));
        while link.blocked.load(Ordering::Relaxed) {
            if is_cut() {
                return;
            }
            thread::sleep(PAUSE);
        }
        if link.garbage.swap(false, Ordering::Relaxed) {
            buffer[count / 2] ^= 0x55;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            if is_cut() {
                return;
            }
            match to.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if is_pause(error.kind()) => {}
                Err(_) => return,
            }
        }
        link.passed.fetch_add(u64::try_from(count).expect("64 bits"), Ordering::Relaxed);
    }
}

fn is_pause(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
