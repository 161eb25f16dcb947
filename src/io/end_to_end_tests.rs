//! A real replica in a process of its own, with a real data file, a frozen allocator and sockets;
//! only the state machine is a stand-in.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::address::resolve;
use super::bus::BusOptions;
use super::clock::Clock;
use super::file::tests::TemporaryPath;
use super::file::{DataFile, format_data_file};
use super::notify::Notifier;
use super::server::{CONNECTIONS_MAX, ExitReason, Server, ServerOptions};
use super::test_faults::{self, Fault, Kind};
use crate::io::metrics::Metrics;
use crate::io::metrics::publish::Publish;
use crate::protocol::{Message, Operation, Pool, Release, RequestHeader, to_index};
use crate::storage::grid::GridFault;
use crate::storage::{Config, DiskDone, Fetch, Job, Room, StorageOutbox, StorageUse};
use crate::vsr::machine::{CheckpointFault, CheckpointRoot, StateMachine};
use crate::vsr::{Genesis, Replica, ReplicaOptions, messages_needed};

/// Path of the data file, set in the process that a test starts.
const CHILD_VARIABLE: &str = "FLORIN_TEST_SERVER_FILE";
/// A [`Fault`] as text, likewise.
const FAULT_VARIABLE: &str = "FLORIN_TEST_SERVER_FAULT";
/// Exit code of a server that cannot go on.
const FATAL_CODE: i32 = 3;
const CLUSTER: u128 = 99;
const LARGE_FRAMES_MAX: u32 = 4;

/// Answers every operation with nothing and has nothing to keep: for fewer ops than a checkpoint.
struct Silent {
    extra: Vec<u8>,
}

impl Publish for Silent {
    fn publish(&self, _metrics: &Metrics) {}
}

impl StateMachine for Silent {
    fn open(&mut self, op: u64, _root: &CheckpointRoot) -> Result<(), CheckpointFault> {
        assert_eq!(op, 0);
        Ok(())
    }

    fn open_step(&mut self) -> Fetch<Result<(), CheckpointFault>> {
        Fetch::Ready(Ok(()))
    }

    fn opened_extra(&self) -> &[u8] {
        &self.extra
    }

    fn decode(&mut self, _bytes: &[u8]) -> Result<(), CheckpointFault> {
        Ok(())
    }

    fn encode(&self, _out: &mut [u8]) -> usize {
        0
    }

    fn timestamp_span(&self, _operation: Operation, _body: &[u8]) -> u64 {
        0
    }

    fn room(&self) -> Room {
        Room::Everything
    }

    fn storage_use(&self) -> StorageUse {
        let room = Room::Everything;
        StorageUse { limit_bytes: 1 << 20, used_bytes: 0, usable_bytes: 1 << 20, room }
    }

    fn pulse_due(&self, _now: u64) -> bool {
        false
    }

    fn begin(&mut self, _operation: Operation, _timestamp: u64, _body: &[u8]) {}

    fn step(&mut self, _body: &[u8], _reply: &mut [u8]) -> Fetch<u32> {
        Fetch::Ready(0)
    }

    fn end_op(&mut self, _op: u64) -> Fetch<()> {
        Fetch::Ready(())
    }

    fn is_paused(&self) -> bool {
        false
    }

    fn checkpoint_begin(&mut self, op: u64) -> &mut Vec<u8> {
        panic!("op {op} is no op of these tests")
    }

    fn checkpoint_start(&mut self) {
        panic!("there are no checkpoints in these tests");
    }

    fn checkpoint_step(&mut self) -> Fetch<CheckpointRoot> {
        panic!("there are no checkpoints in these tests");
    }

    fn release_staged(&mut self) {}

    fn pump(&mut self, _outbox: &mut StorageOutbox) {}

    fn on_disk_done(&mut self, _done: DiskDone) {}

    fn on_job_done(&mut self, _job: Job) {}

    fn fault(&self) -> Option<GridFault> {
        None
    }
}

fn serve(path: &Path) -> ExitReason {
    let file = DataFile::open(path, 0, true).unwrap();
    let superblock = file.superblock().unwrap();
    let config = superblock.config;
    let options = ServerOptions {
        identity: crate::io::metrics::Identity::default(),
        bus: BusOptions {
            addresses: vec![resolve("127.0.0.1:0").unwrap().into()],
            replica: 0,
            clients_max: CONNECTIONS_MAX,
            cluster: superblock.cluster,
            pool_reserve: 8,
            pool_reserve_replica: 8,
            large_frames_max: LARGE_FRAMES_MAX,
            sends_total_max: config.clients_max,
            hello: None,
        },
        disk_requests_max: 64,
        jobs_max: 2,
        clock: Clock::new(),
        print_port: true,
        input: Some(std::io::stdin().as_fd().try_clone_to_owned().unwrap()),
        signals: true,
        freeze: true,
        notifier: Notifier::default(),
    };
    let count = messages_needed(&config) + LARGE_FRAMES_MAX;
    let pool = Pool::new("messages", count, config.reply_size_max);
    let replica_options = ReplicaOptions {
        cluster: superblock.cluster,
        replica: superblock.replica,
        replica_count: 1,
        standby_count: 0,
        seed: 0,
        scrub_ns: 100_000_000,
        config,
        program: Release::PROGRAM,
        release_client_min: Release::CLIENT_MIN,
        release_client_max: Release::CLIENT_MAX,
    };
    let machine = Silent { extra: Vec::new() };
    let replica = Replica::new(&replica_options, pool.clone(), machine);
    let mut server = Server::new(options, replica, file, pool).unwrap();
    let reason = server.run().unwrap();
    if let Some(fatal) = server.core().fatal() {
        eprintln!("{fatal}");
    }
    reason
}

/// The process, and what keeps it alive.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    port: u16,
}

impl Process {
    fn start(path: &TemporaryPath) -> Process {
        Process::start_with(path, None)
    }

    /// Starts it with completions that fail, if any.
    fn start_with(path: &TemporaryPath, fault: Option<Fault>) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "io::end_to_end_tests::child", "--nocapture", "--test-threads=1"])
            .env(CHILD_VARIABLE, &path.0)
            .env(FAULT_VARIABLE, fault.map(Fault::text).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        // The harness that the process is made of prints text of its own, also before the port.
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let number = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse().ok());
        let port = lines.find_map(|line| number(&line.unwrap())).unwrap();
        Process { child, input, port }
    }

    /// Ends its input and waits for it.
    fn end(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }

    /// Sends a frame to it and reads one back, on a new connection.
    fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.try_ask(request).unwrap()
    }

    /// The same, with what the network says if that fails.
    fn try_ask(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(request)?;
        let mut reply = vec![0; 256];
        stream.read_exact(&mut reply)?;
        let size = u32::from_le_bytes(reply[96..100].try_into().unwrap());
        reply.resize(to_index(size), 0);
        stream.read_exact(&mut reply[256..])?;
        Ok(reply)
    }

    /// Ends its input and gives its exit code, or the signal that ended it.
    fn end_somehow(mut self) -> Result<i32, Option<i32>> {
        drop(self.input.take());
        let status = self.child.wait().unwrap();
        status.code().ok_or(status.signal())
    }
}

fn register(client: u128) -> Vec<u8> {
    let pool = Pool::new("test", 1, 4096);
    let mut message = Message::new(pool.acquire(), crate::protocol::Command::Request);
    let header: &mut RequestHeader = message.request_mut();
    header.frame.cluster = CLUSTER;
    header.frame.release = Release::new(0, 17, 9);
    header.client = client;
    header.operation = 2;
    message.set_body_size(256);
    message.body_mut().fill(0);
    message.set_checksums();
    message.bytes().to_vec()
}

/// Waits until the main thread, the harness, waits for this test: it allocates when it begins to,
/// and would end the process if the memory were frozen by then.
fn wait_for_harness() {
    let path = format!("/proc/self/task/{}/stat", std::process::id());
    for _ in 0..1_000 {
        let text = std::fs::read_to_string(&path).unwrap();
        if text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Goal: not a test of its own: the process that the test below starts.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD_VARIABLE) else { return };
    if let Ok(fault) = std::env::var(FAULT_VARIABLE)
        && !fault.is_empty()
    {
        test_faults::set(Fault::parse(&fault));
    }
    wait_for_harness();
    let reason = serve(Path::new(&path));
    assert!(matches!(reason, ExitReason::InputEnd | ExitReason::Fatal));
    std::process::exit(if reason == ExitReason::Fatal { FATAL_CODE } else { 0 });
}

/// Goal: whatever the kernel answers to an operation, at the start or later, once or some times, a
/// replica whose memory is frozen serves, or ends with a reason; never by a signal.
#[test]
fn completions_fail() {
    use libc::{
        EAGAIN, ECANCELED, ECONNABORTED, ECONNRESET, EDQUOT, EFBIG, EINTR, EIO, EMFILE, ENFILE,
        ENOBUFS, ENOMEM, ENOSPC, EPERM, EPIPE, EPROTO, ETIMEDOUT,
    };
    let faults: [(Kind, &[i32]); 7] = [
        (Kind::Read, &[EIO, EAGAIN, EINTR, ENOMEM]),
        (Kind::Write, &[EIO, ENOSPC, EDQUOT, EFBIG, EAGAIN, EINTR, ENOMEM]),
        (Kind::Sync, &[EIO, ENOSPC, EINTR]),
        (Kind::Accept, &[EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EPERM, EPROTO, EINTR]),
        (Kind::Receive, &[ECONNRESET, ETIMEDOUT, EINTR, EAGAIN, ENOMEM]),
        (Kind::Send, &[EPIPE, ECONNRESET, EINTR, EAGAIN, ENOBUFS]),
        (Kind::Watch, &[ENOMEM, ECANCELED, EINTR]),
    ];
    let path = TemporaryPath::new("end-to-end-faults");
    let config = Config::testing();
    let genesis =
        Genesis { cluster: CLUSTER, replica: 0, replica_count: 1, config, is_recovering: false };
    let mut ended = 0;
    for (kind, errors) in faults {
        for errno in errors {
            for (skip, times) in [(0, 3), (3, 1)] {
                let _ = std::fs::remove_file(&path.0);
                format_data_file(&path.0, &genesis, true).unwrap();
                let fault = Fault { kind, errno: *errno, skip, times };
                let process = Process::start_with(&path, Some(fault));
                // Those whose connection fails say nothing about the server.
                let answers = (1..=6).filter(|client| process.try_ask(&register(*client)).is_ok());
                let answers = answers.count();
                let end = process.end_somehow();
                assert!(end == Ok(0) || end == Ok(FATAL_CODE), "{fault:?}: {end:?}");
                assert!(end == Ok(FATAL_CODE) || answers > 0, "{fault:?}: nobody was answered");
                ended += u32::from(end == Ok(FATAL_CODE));
            }
        }
    }
    assert!(ended > 0, "a write that fails ends a replica that is alone");
}

/// Goal: a replica in its own process registers sessions without allocating,
/// ends with its input, and gives the identical reply to a repeated request after a restart, also
/// when it was killed.
#[test]
fn sessions_survive() {
    let path = TemporaryPath::new("end-to-end");
    let config = Config::testing();
    let genesis =
        Genesis { cluster: CLUSTER, replica: 0, replica_count: 1, config, is_recovering: false };
    format_data_file(&path.0, &genesis, true).unwrap();
    let process = Process::start(&path);
    let count = u128::from(config.clients_max).min(8);
    let replies: Vec<Vec<u8>> = (1..=count).map(|client| process.ask(&register(client))).collect();
    for reply in &replies {
        assert_eq!(reply.len(), 320);
        assert_eq!(reply[114], 8, "it is a reply");
    }
    process.end();
    let mut process = Process::start(&path);
    for (client, reply) in (1..=count).zip(&replies) {
        assert!(process.ask(&register(client)) == *reply);
    }
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let process = Process::start(&path);
    assert!(process.ask(&register(1)) == replies[0]);
    process.end();
}
