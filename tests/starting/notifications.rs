//! A service manager is told when a server is ready, how it is, that it is alive, and that it ends.

use super::support::{BINARY, Directory, Process, text, wait_for};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a service manager is: a socket.
struct Manager {
    socket: UnixDatagram,
    messages: Vec<String>,
}

impl Manager {
    fn new(socket: UnixDatagram) -> Manager {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Manager { socket, messages: Vec::new() }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
    }

    /// Messages with this line.
    fn count(&self, line: &str) -> usize {
        self.messages.iter().filter(|message| message.lines().any(|it| it == line)).count()
    }

    fn wait_for(&mut self, line: &str, count: usize) {
        wait_for(line, || {
            self.receive();
            (self.count(line) >= count).then_some(())
        });
    }

    fn has_status(&self, part: &str) -> bool {
        let mut lines = self.messages.iter().flat_map(|message| message.lines());
        lines.any(|line| line.starts_with("STATUS=") && line.contains(part))
    }
}

/// Goal: a server alone is ready once it serves, keeps saying that it is alive and how it is, and
/// says that it ends; the socket is a path.
#[test]
fn alone() {
    let directory = Directory::new("notify-alone");
    let socket = directory.path("notify");
    let mut manager = Manager::new(UnixDatagram::bind(&socket).unwrap());
    let data = directory.format("0_0.florin", 0, 1, &["--development"]);
    let mut process = Process::spawn(
        Command::new(BINARY)
            .args(["start", "--development", "--addresses=0", &data])
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "400000")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    manager.wait_for("READY=1", 1);
    let ready = manager.messages.last().unwrap();
    assert!(ready.contains("STATUS=primary of view"), "{:?}", manager.messages);
    manager.wait_for("WATCHDOG=1", 5);
    // Of a loop that stands, nobody hears.
    process.signal("-STOP");
    manager.receive();
    let before = manager.messages.len();
    std::thread::sleep(Duration::from_secs(1));
    manager.receive();
    assert_eq!(manager.messages.len(), before);
    process.signal("-CONT");
    process.signal("-TERM");
    process.expect_zero("after SIGTERM");
    manager.receive();
    assert_eq!((manager.count("READY=1"), manager.count("STOPPING=1")), (1, 1));
}

/// Goal: one of three replicas is ready although the others are away, and says what it waits for;
/// the socket has an abstract name.
#[test]
fn without_a_quorum() {
    let directory = Directory::new("notify-quorum");
    let name = format!("florin-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut manager = Manager::new(UnixDatagram::bind_addr(&address).unwrap());
    let data = directory.format("0_1.florin", 1, 3, &["--development"]);
    let port = super::free_port::free_port();
    let mut process = Process::spawn(
        Command::new(BINARY)
            .args(["start", "--development", &format!("--addresses=1,{port},2"), &data])
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .env("WATCHDOG_USEC", "400000")
            .env("WATCHDOG_PID", "1")
            .stderr(Stdio::null()),
    );
    manager.wait_for("READY=1", 1);
    wait_for("a status without a quorum", || {
        manager.receive();
        manager.has_status("not serving: ").then_some(())
    });
    assert_eq!(manager.count("WATCHDOG=1"), 0, "another process has the watchdog");
    process.signal("-INT");
    process.expect_zero("after SIGINT");
}

/// Goal: a socket that cannot be used is reported once, also by a start that fails.
#[test]
fn no_manager() {
    let directory = Directory::new("notify-none");
    let data = directory.format("0_0.florin", 0, 1, &["--development"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new(BINARY)
        .args(["start", "--development", &format!("--addresses={}", taken.local_addr().unwrap())])
        .arg(&data)
        .env("NOTIFY_SOCKET", "relative")
        .output()
        .unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{errors}");
    assert_eq!(errors.matches("the service manager is not notified").count(), 1, "{errors}");
}

/// Goal: a start that takes long extends its timeout, and one that fails says why.
#[test]
fn starting_and_failing() {
    let directory = Directory::new("notify-failing");
    let socket = directory.path("notify");
    let mut manager = Manager::new(UnixDatagram::bind(&socket).unwrap());
    let data = directory.format("0_0.florin", 0, 1, &["--development"]);
    // The port stays taken for the two seconds that a start waits for it.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--addresses={}", taken.local_addr().unwrap());
    let mut process = Process::spawn(
        Command::new(BINARY)
            .args(["start", "--development", &address, &data])
            .env("NOTIFY_SOCKET", &socket)
            .stderr(Stdio::null()),
    );
    assert_eq!(process.wait().code(), Some(5));
    manager.receive();
    assert!(manager.count("EXTEND_TIMEOUT_USEC=60000000") > 0, "{:?}", manager.messages);
    assert!(manager.has_status("waiting for the port"), "{:?}", manager.messages);
    assert!(manager.has_status("failed: cannot listen on"), "{:?}", manager.messages);
    assert_eq!(manager.count("READY=1"), 0);
}
