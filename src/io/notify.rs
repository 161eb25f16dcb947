//! Notifies the service manager (systemd, `sd_notify`): ready, status, still alive, ending.
//!
//! A datagram to the socket that `NOTIFY_SOCKET` names, a path or an abstract name (`@`); nothing
//! without it. The socket is made before the memory is frozen, and sending neither allocates nor
//! blocks; an error is ignored, since only the manager would miss the datagram.
//!
//! **Ready** is a replica that listens and has opened its data file. In a cluster of one that
//! includes replaying the log: no client is served before. In a larger cluster it does not wait
//! for a quorum or a view: replicas are started one after the other, and a start that waited for
//! the second replica would wait for ever. Until it is ready, each turn of the loop
//! extends the manager's start timeout, as opening a large data file may take minutes.
//!
//! **Alive** (`WATCHDOG=1`) is said by the serving loop only, so that a loop that hangs is
//! restarted. Not covered: health for load balancers (`/readyz`).

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

use super::log;
use super::metrics::text::{Characters, Text};
use crate::vsr::{Report, Standing, Unready};

/// Maximum bytes of a datagram.
const MESSAGE_MAX: usize = 512;
/// Time between two changes of the status line, and between two extensions, in ns.
const STATUS_NS: u64 = 2_000_000_000;
/// Time by which a start timeout is extended, in µs.
const EXTEND_US: u64 = 60_000_000;
/// Whether it was logged that the manager cannot be notified.
static WARNED: AtomicBool = AtomicBool::new(false);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Time between two signs of life, in ns.
    watchdog_ns: Option<u64>,
    watchdog_next_ns: u64,
    status_next_ns: u64,
    is_ready: bool,
    is_stopping: bool,
}

impl Notifier {
    /// The manager that the environment names.
    #[must_use]
    pub fn from_environment() -> Notifier {
        // Not frozen: it is made before.
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(name) = variable("NOTIFY_SOCKET") else { return Notifier::default() };
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|it| it == u64::from(std::process::id()));
        let watchdog_us = number("WATCHDOG_USEC").filter(|us| is_ours && *us > 0);
        match Notifier::to(&name, watchdog_us) {
            Ok(notifier) => notifier,
            Err(error) => {
                let name = name.display();
                // Each thread of the start makes one.
                if WARNED.swap(true, Ordering::Relaxed) {
                    return Notifier::default();
                }
                // Not frozen: it is made before.
                log::warn(format_args!(
                    "the service manager is not notified: {name}: {error} (NOTIFY_SOCKET must be \
                     the path of a socket, or @ and an abstract name)"
                ));
                Notifier::default()
            }
        }
    }

    /// The manager behind a socket, which wants a sign of life at least every `watchdog_us`.
    ///
    /// # Errors
    ///
    /// If the name is neither a path nor an abstract one, or the system refuses a socket.
    pub fn to(name: &OsStr, watchdog_us: Option<u64>) -> io::Result<Notifier> {
        let address = match name.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            Some((b'/', _)) => SocketAddr::from_pathname(name)?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Half of the time, as the manual of sd_watchdog_enabled recommends.
        let half_ns = watchdog_us.map(|us| us.saturating_mul(1000) / 2);
        let socket = Some((socket, address));
        Ok(Notifier { socket, watchdog_ns: half_ns, ..Notifier::default() })
    }

    /// Notes that a step of the start makes progress: extends the start timeout, and the watchdog's
    /// after a restart in place.
    pub fn starting(&self, step: fmt::Arguments<'_>) {
        self.send(format_args!("EXTEND_TIMEOUT_USEC={EXTEND_US}\nWATCHDOG=1\nSTATUS={step}"));
    }

    /// Notes that the loop turns; to be called about every tenth of a second.
    pub fn look(&mut self, now_ns: u64, is_listening: bool, report: &Report) {
        if self.socket.is_none() {
            return;
        }
        if self.watchdog_ns.is_some() && now_ns >= self.watchdog_next_ns {
            self.watchdog_next_ns = now_ns.saturating_add(self.watchdog_ns.unwrap_or(u64::MAX));
            self.send(format_args!("WATCHDOG=1"));
        }
        let becomes_ready = !self.is_ready && is_listening && is_opened(report.standing);
        if self.is_stopping || !(becomes_ready || now_ns >= self.status_next_ns) {
            return;
        }
        self.status_next_ns = now_ns.saturating_add(STATUS_NS);
        self.is_ready |= becomes_ready;
        let status = StatusLine(report);
        if becomes_ready {
            self.send(format_args!("READY=1\nSTATUS={status}"));
        } else if self.is_ready {
            self.send(format_args!("STATUS={status}"));
        } else {
            self.send(format_args!("EXTEND_TIMEOUT_USEC={EXTEND_US}\nSTATUS={status}"));
        }
    }

    /// Notes that the server ends.
    pub fn stopping(&mut self) {
        self.is_stopping = true;
        self.send(format_args!("STOPPING=1\nSTATUS=ending"));
    }

    /// Notes why the server ends.
    pub fn failed(&self, reason: &str) {
        // A status is one line.
        let line = reason.lines().next().unwrap_or_default();
        self.send(format_args!("STOPPING=1\nSTATUS=failed: {line}"));
    }

    fn send(&self, message: fmt::Arguments<'_>) {
        let Some((socket, address)) = &self.socket else { return };
        let mut buffer = [0; MESSAGE_MAX];
        let mut text = Text::new(&mut buffer);
        // A message that does not fit loses its end, which is the status.
        let _ = Characters(&mut text).write_fmt(message);
        let _ = socket.send_to_addr(text.bytes(), address);
    }
}

/// Whether the replica has read its data file.
fn is_opened(standing: Standing) -> bool {
    !matches!(standing, Standing::Opening | Standing::Replaying | Standing::Stopped)
}

/// A replica's role, view and lag on one line; or why it is not ready.
pub struct StatusLine<'a>(pub &'a Report);

impl fmt::Display for StatusLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { standing, view, op, commit, commit_max, primary, .. } = *self.0;
        let (name, behind) = (standing.name(), commit_max.saturating_sub(commit));
        match self.0.unready() {
            Some(Unready::Opening) => write!(formatter, "opening the data file"),
            Some(Unready::Replaying) => {
                write!(formatter, "replaying the log: op {commit} of {op}")
            }
            Some(Unready::Stopped) => write!(formatter, "stopped"),
            Some(reason) => {
                let reason = reason.text();
                write!(formatter, "not serving: {reason} ({name}, view {view}, op {commit})")
            }
            None if standing == Standing::Primary => {
                let waiting = op.saturating_sub(commit);
                write!(formatter, "primary of view {view}, op {op}, {waiting} not executed")
            }
            None => {
                write!(formatter, "{name} in view {view} of replica {primary}, ")?;
                write!(formatter, "op {commit}, {behind} behind")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsr::report::tests::report;

    /// Goal: the status says the same as `/readyz`: also of a replica whose messages do not arrive,
    /// and of one whose work stands still.
    #[test]
    fn status_lines() {
        let healthy = report();
        assert_eq!(healthy.unready(), None);
        let text = |report: &Report| StatusLine(report).to_string();
        assert!(text(&healthy).starts_with("primary of view "), "{}", text(&healthy));
        let mut unanswered = report();
        for peer in &mut unanswered.peers {
            peer.unanswered_ns = Some(60_000_000_000);
        }
        let mut still = report();
        still.still_ns = 60_000_000_000;
        for report in [unanswered, still] {
            let reason = report.unready().unwrap();
            let expected = format!("not serving: {} (primary, view ", reason.text());
            assert!(text(&report).starts_with(&expected), "{}", text(&report));
        }
        let backup = Report { standing: Standing::Backup, primary: 1, ..report() };
        assert!(text(&backup).contains(" of replica 1, op "), "{}", text(&backup));
        let opening = Report { standing: Standing::Opening, ..report() };
        assert_eq!(text(&opening), "opening the data file");
    }
}
