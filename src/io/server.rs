//! The event loop: one thread, one ring, the replica in the middle.
//!
//! Each turn makes one system call: it submits what the last turn produced and waits for
//! completions, at most until the next tick. Then everything that has ended is given to the core,
//! what the core wants is taken from its outboxes, and messages that have arrived are delivered.
//! Before it would wait, a core that has work does a part of it.
//! Ends cleanly on SIGINT, SIGTERM or the end of an input: nothing more is accepted, what is in
//! flight ends. All memory is reserved by [`Server::new`], which then freezes the allocator.
//! Not covered: making the replica (the caller does), what it decides.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::about::status_message;
use super::allocator;
use super::bus::{Bus, BusError, BusOptions};
use super::clock::Clock;
use super::cluster_report::ClusterReport;
use super::ending_log::EndingLog;
use super::file::DataFile;
use super::file_watch::FileWatch;
use super::log::warn;
use super::metrics::catalogue::Metric;
use super::metrics::publish::{Publish, publish_bus, publish_replica, publish_storage};
use super::metrics::{Identity, Metrics};
use super::notify::Notifier;
use super::opening_report::OpeningReport;
use super::readiness_log::ReadinessLog;
use super::resolver::look_up;
use super::ring::{Completion, Ring, RingError, Watch};
use super::signals::EndSignals;
use super::storage_warning::StorageWarning;
use super::worker::Worker;
use crate::protocol::{Command, Message, Pool};
use crate::storage::{DiskDone, Job, StorageOutbox, StorageUse};
use crate::vsr::{
    ClusterState, ConnectionId, Destination, Ending, Lap, Now, Replica, Report, Stage,
    StateMachine, Status,
};

/// Client connections at a time: a session for each and some to spare.
pub const CONNECTIONS_MAX: u32 = 80;
/// Time between ticks.
const TICK_NS: u64 = 10_000_000;
/// Ticks between two publications of how everything is: a tenth of a second.
const PUBLISH_TICKS: u64 = 10;
/// On shutdown, ticks to wait for operations in flight.
const STOP_TICKS_MAX: u32 = 200;
/// Watched descriptors: worker, signals, input.
const WATCHES_MAX: u32 = 3;

/// What the loop drives: a replica, or a stand-in in tests.
pub trait Core {
    /// The loop starts.
    fn open(&mut self, now: Now);
    /// A message has arrived; its frame is valid.
    fn on_message(&mut self, connection: ConnectionId, message: Message, now: Now);
    /// The connection to another replica broke, or could not be made.
    fn on_peer_lost(&mut self, replica: u8, now: Now);
    /// A disk request has ended.
    fn on_disk_done(&mut self, done: DiskDone, now: Now);
    /// A job has been run.
    fn on_job_done(&mut self, job: Job, now: Now);
    /// 10 ms have passed.
    fn tick(&mut self, now: Now);
    /// Whether there is work that is to be done once everything that was wanted is on its way.
    fn has_work(&self) -> bool;
    /// Does it.
    fn work(&mut self, now: Now);
    /// Disk requests and jobs to start.
    fn storage_outbox(&mut self) -> &mut StorageOutbox;
    /// The next message to send.
    fn next_send(&mut self) -> Option<(Destination, Message)>;
    /// The next connection to close.
    fn next_close(&mut self) -> Option<ConnectionId>;
    /// Whether connections are accepted and made: before, they wait. Once so, always so.
    fn is_connecting(&self) -> bool;
    /// Whether clients can be served.
    fn is_ready(&self) -> bool;
    /// Whether it cannot continue.
    fn is_fatal(&self) -> bool;
    /// How it stands in its cluster, if it is one of several and knows.
    fn cluster_state(&self) -> Option<ClusterState>;
    /// How much of the storage limit is used; asked while it is ready.
    fn storage_use(&self) -> StorageUse;
    /// The next stage of the work that has ended.
    fn next_lap(&mut self) -> Option<Lap>;
    /// The next session that ended against its client's will.
    fn next_ending(&mut self) -> Option<Ending>;
    /// Publishes the metrics of its state machine.
    fn publish(&self, metrics: &Metrics);
    /// Its state, for the metrics and for status requests.
    fn report(&self) -> Option<Report>;
}

impl<M: StateMachine + Publish> Core for Replica<M> {
    fn open(&mut self, now: Now) {
        Replica::open(self, now);
    }

    fn on_message(&mut self, connection: ConnectionId, message: Message, now: Now) {
        Replica::on_message(self, connection, message, now);
    }

    fn on_peer_lost(&mut self, replica: u8, now: Now) {
        Replica::on_peer_lost(self, replica, now);
    }

    fn on_disk_done(&mut self, done: DiskDone, now: Now) {
        Replica::on_disk_done(self, done, now);
    }

    fn on_job_done(&mut self, job: Job, now: Now) {
        Replica::on_job_done(self, job, now);
    }

    fn tick(&mut self, now: Now) {
        Replica::tick(self, now);
    }

    fn has_work(&self) -> bool {
        Replica::has_work(self)
    }

    fn work(&mut self, now: Now) {
        Replica::work(self, now);
    }

    fn storage_outbox(&mut self) -> &mut StorageOutbox {
        &mut self.outbox.storage
    }

    fn next_send(&mut self) -> Option<(Destination, Message)> {
        self.outbox.sends.pop()
    }

    fn next_close(&mut self) -> Option<ConnectionId> {
        self.outbox.closes.pop()
    }

    fn is_connecting(&self) -> bool {
        // Alone, nobody can be served before the log is replayed. In a cluster others need us.
        self.has_peers() || self.status() == Status::Normal
    }

    fn is_ready(&self) -> bool {
        self.status() == Status::Normal
    }

    fn is_fatal(&self) -> bool {
        self.status() == Status::Fatal
    }

    fn cluster_state(&self) -> Option<ClusterState> {
        Replica::cluster_state(self)
    }

    fn storage_use(&self) -> StorageUse {
        Replica::storage_use(self)
    }

    fn next_lap(&mut self) -> Option<Lap> {
        Replica::next_lap(self)
    }

    fn next_ending(&mut self) -> Option<Ending> {
        Replica::next_ending(self)
    }

    fn publish(&self, metrics: &Metrics) {
        self.machine.publish(metrics);
    }

    fn report(&self) -> Option<Report> {
        Some(Replica::report(self))
    }
}

/// What the server needs to know.
#[derive(Debug)]
pub struct ServerOptions {
    /// Options of the bus.
    pub bus: BusOptions,
    /// The replica whose metrics they are.
    pub identity: Identity,
    /// Disk requests in flight at a time.
    pub disk_requests_max: u32,
    /// Jobs in flight at a time.
    pub jobs_max: usize,
    /// What time it is.
    pub clock: Clock,
    /// The port is printed, alone on the first line, to standard output.
    pub print_port: bool,
    /// The server ends when this does: standard input, if it is started by a program that may die.
    pub input: Option<OwnedFd>,
    /// SIGINT and SIGTERM end the server.
    pub signals: bool,
    /// Allocations after the start abort the process.
    pub freeze: bool,
    /// The service manager.
    pub notifier: Notifier,
}

/// Why the server does not start or cannot continue.
#[derive(Debug)]
pub enum ServerError {
    /// The ring cannot be made, or has failed.
    Ring(RingError),
    /// The bus cannot listen.
    Bus(BusError),
    /// The system refuses the named thing.
    System {
        /// What was tried.
        step: &'static str,
        /// What the system answered.
        error: io::Error,
    },
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Not frozen: whoever asked for the server to run is told when it does not any more.
            ServerError::Ring(error) => write!(formatter, "{error}"),
            // Not frozen: as the one above.
            ServerError::Bus(error) => write!(formatter, "{error}"),
            // Not frozen: as the one above.
            ServerError::System { step, error } => write!(formatter, "cannot {step}: {error}"),
        }
    }
}

impl std::error::Error for ServerError {}

impl From<RingError> for ServerError {
    fn from(error: RingError) -> ServerError {
        ServerError::Ring(error)
    }
}

impl From<BusError> for ServerError {
    fn from(error: BusError) -> ServerError {
        ServerError::Bus(error)
    }
}

/// Why the server ended in good order, or the core could not continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// This signal asked for it.
    Signal(i32),
    /// The input ended.
    InputEnd,
    /// The core cannot continue; it knows the reason.
    Fatal,
}

/// The loop and everything it uses.
pub struct Server<C: Core> {
    core: C,
    // Before file and bus: it waits for what is in flight on their descriptors.
    ring: Ring,
    bus: Bus,
    file: DataFile,
    worker: Worker<Job>,
    signals: Option<EndSignals>,
    input: Option<File>,
    clock: Clock,
    disk_requests_max: u32,
    disk_in_flight: u32,
    next_tick_ns: u64,
    accepting: bool,
    stop: Option<ExitReason>,
    stop_ticks: u32,
    storage_warning: StorageWarning,
    file_watch: FileWatch,
    cluster_report: ClusterReport,
    ending_log: EndingLog,
    readiness_log: ReadinessLog,
    metrics: Arc<Metrics>,
    publish_ticks: u64,
    opening_report: OpeningReport,
    notifier: Notifier,
}

impl<C: Core> Server<C> {
    /// Makes everything: listens, starts the helper thread, and freezes the allocator. Messages
    /// are received into buffers of `pool`.
    ///
    /// # Errors
    ///
    /// If the system refuses something.
    pub fn new(
        options: ServerOptions,
        core: C,
        file: DataFile,
        pool: Pool,
    ) -> Result<Server<C>, ServerError> {
        let system = |step| move |error| ServerError::System { step, error };
        let mut bus = Bus::new(&options.bus, pool)?;
        let operations_max = Bus::operations_max(options.bus.clients_max, bus.peers.count())
            + options.disk_requests_max
            + WATCHES_MAX;
        let ring = Ring::new(operations_max)?;
        // After the wait for the port, which a signal ends at once; before any thread that stays:
        // it inherits the blocked signals. A thread that does not would end the process in the
        // middle of serving.
        let signals = if options.signals {
            Some(EndSignals::new().map_err(system("wait for signals"))?)
        } else {
            None
        };
        bus.peers
            .start_resolver(look_up)
            .map_err(system("start the thread that looks up names"))?;
        let worker =
            Worker::new(options.jobs_max, Job::run).map_err(system("start the helper thread"))?;
        if options.print_port {
            let mut output = io::stdout().lock();
            let printed = writeln!(output, "{}", bus.address().port());
            printed.and_then(|()| output.flush()).map_err(system("print the port"))?;
        }
        let server = Server {
            core,
            ring,
            bus,
            file_watch: FileWatch::new(file.as_fd()),
            file,
            worker,
            signals,
            input: options.input.map(File::from),
            clock: options.clock,
            disk_requests_max: options.disk_requests_max,
            disk_in_flight: 0,
            next_tick_ns: TICK_NS,
            accepting: false,
            stop: None,
            stop_ticks: 0,
            storage_warning: StorageWarning::default(),
            cluster_report: ClusterReport::default(),
            ending_log: EndingLog::default(),
            readiness_log: ReadinessLog::default(),
            metrics: Arc::new(Metrics::new(options.identity)),
            publish_ticks: 0,
            opening_report: OpeningReport::default(),
            notifier: options.notifier,
        };
        if options.freeze {
            allocator::freeze();
        }
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.bus.address()
    }

    /// What it publishes about itself, and the clock whose times are in there.
    #[must_use]
    pub fn metrics(&self) -> (Arc<Metrics>, Clock) {
        (Arc::clone(&self.metrics), self.clock)
    }

    /// The core, which knows why it could not continue.
    #[must_use]
    pub fn core(&self) -> &C {
        &self.core
    }

    /// Serves until asked to end or unable to continue. Afterwards memory may be allocated again.
    ///
    /// # Errors
    ///
    /// If the ring fails.
    pub fn run(&mut self) -> Result<ExitReason, ServerError> {
        let result = self.serve();
        allocator::unfreeze();
        result
    }

    fn serve(&mut self) -> Result<ExitReason, ServerError> {
        self.ring.watch(self.worker.done_event().as_fd(), Watch::WorkerDone);
        if let Some(signals) = &self.signals {
            self.ring.watch(signals.as_fd(), Watch::EndSignals);
        }
        if let Some(input) = &self.input {
            self.ring.watch(input.as_fd(), Watch::Input);
        }
        let mut now = self.clock.now();
        self.core.open(now);
        self.drain();
        self.connect();
        loop {
            if self.core.has_work() {
                self.ring.submit()?;
                self.core.work(self.clock.now());
                self.drain();
            }
            let elapsed_ns = self.clock.monotonic_ns();
            self.note_turn(now.monotonic_ns, elapsed_ns);
            let idle_ns = self.next_tick_ns.saturating_sub(elapsed_ns);
            self.ring.wait(if self.core.has_work() { 0 } else { idle_ns })?;
            now = self.clock.now();
            if let Some(reason) = self.turn(now) {
                return Ok(reason);
            }
        }
    }

    /// Everything that is to be done now; the reason if that was the last time.
    fn turn(&mut self, now: Now) -> Option<ExitReason> {
        self.bus.set_now(now.monotonic_ns);
        while let Some(completion) = self.ring.next_completion() {
            self.on_completion(completion, now);
            self.drain();
        }
        if now.monotonic_ns >= self.next_tick_ns {
            self.tick(now);
        }
        self.connect();
        while let Some((connection, message)) = self.bus.next_message(&mut self.ring) {
            self.on_message(connection, message, now);
        }
        if self.core.is_fatal() {
            return Some(ExitReason::Fatal);
        }
        let reason = self.stop?;
        (self.is_idle() || self.stop_ticks > STOP_TICKS_MAX).then_some(reason)
    }

    /// Gives a message to the core, but for those that are about the server as a whole.
    fn on_message(&mut self, connection: ConnectionId, message: Message, now: Now) {
        match Command::try_from(message.header().frame.command) {
            Ok(Command::RequestStatus) => {
                if message.header().invalid().is_none() {
                    self.answer_status(connection);
                }
            }
            Ok(Command::Hello) => self.bus.on_hello(connection, message.header()),
            _ => {
                self.core.on_message(connection, message, now);
                self.drain();
            }
        }
    }

    /// Answers a request for the status, unless buffers are short.
    fn answer_status(&mut self, connection: ConnectionId) {
        let Some(report) = self.core.report() else { return };
        let Some(buffer) = self.bus.spare_buffer() else { return };
        let storage = self.core.is_ready().then(|| self.core.storage_use());
        let facts = self.bus.process_facts();
        let message = status_message(buffer, self.bus.cluster(), &report, storage, &facts);
        self.bus.send(&mut self.ring, connection, message);
    }

    /// Notes that a turn has lasted from then until now.
    fn note_turn(&self, from_ns: u64, to_ns: u64) {
        self.metrics.add(Metric::LoopTurns, 1);
        self.metrics.add(Metric::LoopBusy, to_ns.saturating_sub(from_ns));
        self.metrics.turned_ns.store(to_ns, Ordering::Relaxed);
    }

    /// Publishes how everything is, now and then.
    fn publish(&mut self, now: Now) {
        self.publish_ticks += 1;
        if !self.publish_ticks.is_multiple_of(PUBLISH_TICKS) {
            return;
        }
        // First, since the reasons of an unready replica refer to its connections.
        publish_bus(&self.bus, &self.metrics);
        self.core.publish(&self.metrics);
        if self.core.is_ready() {
            publish_storage(&self.core.storage_use(), &self.metrics);
        }
        if let Some(report) = self.core.report() {
            publish_replica(&report, &self.metrics);
            self.opening_report.look(&report);
            self.notifier.look(now.monotonic_ns, self.accepting, &report);
            if self.core.cluster_state().is_some() {
                self.readiness_log.look(&report, &self.metrics);
            }
        }
        let jobs = u64::try_from(self.worker.jobs_in_flight()).expect("64 bits");
        self.metrics.set(Metric::JobsInFlight, jobs);
        self.metrics.set(Metric::DiskInFlight, self.disk_in_flight.into());
    }

    /// Measures the stages of the work that have ended.
    fn measure_laps(&mut self) {
        let Some(mut lap) = self.core.next_lap() else { return };
        let now_ns = self.clock.monotonic_ns();
        loop {
            let until_ns = lap.until_ns.unwrap_or(now_ns);
            self.metrics.record_stage(lap.stage, until_ns.saturating_sub(lap.since_ns));
            let Some(next) = self.core.next_lap() else { return };
            lap = next;
        }
    }

    /// Accepts connections and makes them, from the moment when the core wants them.
    fn connect(&mut self) {
        if !self.accepting && self.core.is_connecting() {
            self.accepting = true;
            self.bus.start(&mut self.ring);
            self.bus.peers.tick(&mut self.ring);
        }
    }

    /// Reports lost replicas to the core.
    fn report_lost(&mut self, now: Now) {
        while let Some(replica) = self.bus.peers.next_lost() {
            self.core.on_peer_lost(replica, now);
            self.drain();
        }
    }

    fn tick(&mut self, now: Now) {
        // Ticks that were missed are not made up for.
        self.next_tick_ns = (self.next_tick_ns + TICK_NS).max(now.monotonic_ns);
        if self.accepting {
            self.bus.tick(&mut self.ring);
            self.report_lost(now);
        }
        // Should the word of the helper thread have been lost: they are seldom there.
        self.take_jobs(now);
        self.core.tick(now);
        self.drain();
        self.stop_ticks += u32::from(self.stop.is_some());
        self.publish(now);
        while let Some(ending) = self.core.next_ending() {
            self.ending_log.write(&ending, &self.bus);
        }
        self.ending_log.tick(&self.bus);
        if let Some(message) = self.cluster_report.tick(self.core.cluster_state()) {
            message.log();
        }
        self.file_watch.tick(self.file.as_fd());
        if self.storage_warning.tick()
            && self.core.is_ready()
            && let Some(message) = self.storage_warning.look(self.core.storage_use())
        {
            warn(format_args!("{message}"));
        }
    }

    fn on_completion(&mut self, completion: Completion, now: Now) {
        match completion {
            Completion::Disk { done, since_ns } => {
                assert!(self.disk_in_flight > 0);
                self.disk_in_flight -= 1;
                let taken_ns = now.monotonic_ns.saturating_sub(since_ns);
                self.metrics.record_disk(done.request.kind, taken_ns);
                self.core.on_disk_done(done, now);
            }
            Completion::Accepted(result) => self.bus.on_accepted(&mut self.ring, result),
            Completion::Received { connection, buffer, result } => {
                self.bus.on_received(connection, buffer, result);
            }
            Completion::Sent { connection, message, result } => {
                let since_ns = self.bus.on_sent(&mut self.ring, connection, message, result);
                if let Some(since_ns) = since_ns {
                    let taken_ns = now.monotonic_ns.saturating_sub(since_ns);
                    self.metrics.record_stage(Stage::Reply, taken_ns);
                }
            }
            Completion::Connected { replica, result } => {
                self.bus.peers.on_connected(&mut self.ring, replica, result);
                self.report_lost(now);
            }
            Completion::BatchSent { replica, batch, result } => {
                self.bus.peers.on_sent(&mut self.ring, replica, batch, result);
                self.report_lost(now);
            }
            Completion::Readable(Watch::Replica(replica)) => {
                self.bus.peers.on_readable(&mut self.ring, replica);
                self.report_lost(now);
            }
            Completion::Readable(Watch::WorkerDone) => {
                // Whether it was readable does not matter: what counts is what is done.
                let _ = self.worker.done_event().reset();
                self.take_jobs(now);
                self.ring.watch(self.worker.done_event().as_fd(), Watch::WorkerDone);
            }
            Completion::Readable(Watch::EndSignals) => self.on_signal(),
            Completion::Readable(Watch::Input) => self.on_input(),
        }
    }

    /// Gives finished jobs to the core.
    fn take_jobs(&mut self, now: Now) {
        while let Some(job) = self.worker.take_done() {
            self.core.on_job_done(job, now);
            self.drain();
        }
    }

    fn on_signal(&mut self) {
        let signals = self.signals.as_ref().expect("only an existing one is watched");
        if let Some(signal) = signals.take() {
            if self.stop.is_some() {
                // Asked twice: no more waiting.
                self.stop_ticks = STOP_TICKS_MAX;
            }
            self.request_stop(ExitReason::Signal(signal));
        }
        let signals = self.signals.as_ref().expect("only an existing one is watched");
        self.ring.watch(signals.as_fd(), Watch::EndSignals);
    }

    fn on_input(&mut self) {
        let input = self.input.as_mut().expect("only an existing one is watched");
        let ended = match input.read(&mut [0; 512]) {
            Ok(count) => count == 0,
            Err(error) => {
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        };
        if ended {
            self.request_stop(ExitReason::InputEnd);
        } else {
            self.ring.watch(input.as_fd(), Watch::Input);
        }
    }

    fn request_stop(&mut self, reason: ExitReason) {
        if self.stop.is_none() {
            self.stop = Some(reason);
            self.notifier.stopping();
            self.bus.stop();
        }
    }

    /// Starts what the core wants.
    fn drain(&mut self) {
        self.measure_laps();
        while let Some((destination, message)) = self.core.next_send() {
            match destination {
                Destination::Connection(id) => self.bus.send(&mut self.ring, id, message),
                Destination::Replica(index) => self.bus.peers.send(&mut self.ring, index, message),
            }
        }
        while let Some(connection) = self.core.next_close() {
            self.bus.close(connection);
        }
        let outbox = self.core.storage_outbox();
        while self.disk_in_flight < self.disk_requests_max {
            let Some(request) = outbox.disk.pop() else { break };
            self.disk_in_flight += 1;
            self.ring.disk(self.file.as_fd(), request, self.clock.monotonic_ns());
        }
        while self.worker.has_room() {
            let Some(job) = outbox.jobs.pop() else { break };
            self.worker.submit(job);
        }
    }

    /// Nothing is in flight but waiting.
    fn is_idle(&mut self) -> bool {
        let outbox = self.core.storage_outbox();
        let quiet = outbox.disk.is_empty() && outbox.jobs.is_empty();
        quiet
            && !self.core.has_work()
            && self.disk_in_flight == 0
            && self.worker.jobs_in_flight() == 0
            && self.bus.sends_pending() == 0
    }
}

impl<C: Core> fmt::Debug for Server<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Server({:?}, {:?})", self.bus, self.ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::address::resolve;
    use crate::io::allocator::tests::allocations_of_thread;
    use crate::io::file::tests::TemporaryPath;
    use crate::io::framing::tests::{CLUSTER, frame};
    use crate::io::signals::tests::raise_terminate;
    use crate::protocol::{Buffer, MESSAGE_SIZE_MAX, to_index};
    use crate::storage::{DiskKind, DiskOwner, DiskRequest, DiskToken, Queue, Room};
    use std::net::TcpStream;

    /// Writes each message durably, reads it back, and answers with what it read.
    struct EchoFromDisk {
        outbox: StorageOutbox,
        sends: Queue<(Destination, Message)>,
        closes: Queue<ConnectionId>,
        /// Whom the file's slots are for.
        slots: Vec<Option<ConnectionId>>,
        blocks: Pool,
        ticks_until_ready: u32,
        fatal: bool,
        allocations: u64,
    }

    const SLOT_SIZE: u32 = 65_536;

    impl EchoFromDisk {
        fn new() -> EchoFromDisk {
            EchoFromDisk {
                outbox: StorageOutbox::new(8, 1),
                sends: Queue::new(4),
                closes: Queue::new(4),
                slots: vec![None; 4],
                blocks: Pool::new("blocks", 8, SLOT_SIZE),
                ticks_until_ready: 3,
                fatal: false,
                allocations: 0,
            }
        }

        fn request(&mut self, kind: DiskKind, slot: u32, buffer: Buffer) {
            let token = DiskToken { owner: DiskOwner::GridPage, index: slot };
            self.outbox.disk.push(DiskRequest {
                token,
                kind,
                offset: u64::from(slot) * u64::from(SLOT_SIZE),
                length: SLOT_SIZE,
                buffer: Some(buffer),
                buffer_offset: 0,
            });
        }
    }

    impl Core for EchoFromDisk {
        fn open(&mut self, _now: Now) {
            assert_eq!(self.ticks_until_ready, 3);
            self.ticks_until_ready = 2;
        }

        fn on_message(&mut self, connection: ConnectionId, message: Message, _now: Now) {
            match message.size() {
                256 => return self.closes.push(connection),
                257 => return self.fatal = true,
                258 => return raise_terminate(),
                _ => {}
            }
            let slot = self.slots.iter().position(Option::is_none).unwrap();
            self.slots[slot] = Some(connection);
            let mut buffer = self.blocks.acquire();
            let bytes = message.bytes();
            buffer.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
            self.request(DiskKind::WriteDurable, u32::try_from(slot).unwrap(), buffer);
        }

        fn on_disk_done(&mut self, done: DiskDone, _now: Now) {
            assert_eq!(done.result, Ok(()));
            let slot = done.request.token.index;
            if done.request.kind == DiskKind::WriteDurable {
                let buffer = self.blocks.acquire();
                self.request(DiskKind::Read, slot, buffer);
                return;
            }
            let connection = self.slots[to_index(slot)].take().unwrap();
            let destination = Destination::Connection(connection);
            self.sends.push((destination, Message(done.request.buffer.unwrap())));
            self.allocations = allocations_of_thread();
        }

        fn on_peer_lost(&mut self, replica: u8, _now: Now) {
            panic!("there is no replica {replica}");
        }

        fn on_job_done(&mut self, _job: Job, _now: Now) {
            panic!("there are no jobs");
        }

        fn has_work(&self) -> bool {
            false
        }

        fn work(&mut self, _now: Now) {
            panic!("there is no work");
        }

        fn tick(&mut self, _now: Now) {
            self.ticks_until_ready = self.ticks_until_ready.saturating_sub(1);
        }

        fn storage_outbox(&mut self) -> &mut StorageOutbox {
            &mut self.outbox
        }

        fn next_send(&mut self) -> Option<(Destination, Message)> {
            self.sends.pop()
        }

        fn next_close(&mut self) -> Option<ConnectionId> {
            self.closes.pop()
        }

        fn is_connecting(&self) -> bool {
            self.is_ready()
        }

        fn is_ready(&self) -> bool {
            self.ticks_until_ready == 0
        }

        fn is_fatal(&self) -> bool {
            self.fatal
        }

        fn cluster_state(&self) -> Option<ClusterState> {
            None
        }

        fn storage_use(&self) -> StorageUse {
            let room = Room::Everything;
            StorageUse { limit_bytes: 1 << 20, used_bytes: 0, usable_bytes: 1 << 20, room }
        }

        fn next_lap(&mut self) -> Option<Lap> {
            None
        }

        fn next_ending(&mut self) -> Option<Ending> {
            None
        }

        fn publish(&self, metrics: &Metrics) {
            metrics.set(Metric::View, 1);
        }

        fn report(&self) -> Option<Report> {
            None
        }
    }

    fn server(path: &TemporaryPath, input: Option<OwnedFd>, signals: bool) -> Server<EchoFromDisk> {
        DataFile::format(&path.0, 4 * u64::from(SLOT_SIZE), &[], true).unwrap();
        let options = ServerOptions {
            bus: BusOptions {
                addresses: vec![resolve("127.0.0.1:0").unwrap().into()],
                replica: 0,
                clients_max: CONNECTIONS_MAX,
                cluster: CLUSTER,
                pool_reserve: 0,
                pool_reserve_replica: 0,
                large_frames_max: 2,
                sends_total_max: 8,
                hello: None,
            },
            identity: Identity::default(),
            disk_requests_max: 2,
            jobs_max: 1,
            clock: Clock::new(),
            print_port: false,
            input,
            signals,
            freeze: false,
            notifier: Notifier::default(),
        };
        let file = DataFile::open(&path.0, 0, true).unwrap();
        let pool = Pool::new("messages", 4, MESSAGE_SIZE_MAX);
        let core = EchoFromDisk::new();
        Server::new(options, core, file, pool).unwrap()
    }

    /// Goal: messages go to the disk and back to their peer, the core's closes are obeyed, the loop
    /// allocates nothing once it runs, and the end of the input ends it.
    #[test]
    fn echo_from_disk() {
        let path = TemporaryPath::new("server-echo");
        let (reader, mut writer) = io::pipe().unwrap();
        let mut server = server(&path, Some(reader.into()), false);
        let address = server.address();
        let peer = std::thread::spawn(move || {
            let mut peer = TcpStream::connect(address).unwrap();
            for round in 0..10_u8 {
                let bytes = frame(5, CLUSTER, 300 + u32::from(round), round);
                peer.write_all(&bytes).unwrap();
                let mut back = vec![0; bytes.len()];
                peer.read_exact(&mut back).unwrap();
                assert_eq!(back, bytes);
                writer.write_all(&[round]).unwrap();
            }
            peer.write_all(&frame(5, CLUSTER, 256, 0)).unwrap();
            assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
            drop(writer);
        });
        let before = allocations_of_thread();
        assert_eq!(server.run().unwrap(), ExitReason::InputEnd);
        assert_eq!(server.core().allocations, before);
        peer.join().unwrap();
    }

    /// Goal: a core that cannot continue ends the loop.
    #[test]
    fn fatal_ends() {
        let path = TemporaryPath::new("server-fatal");
        let mut server = server(&path, None, false);
        let mut peer = TcpStream::connect(server.address()).unwrap();
        peer.write_all(&frame(5, CLUSTER, 257, 0)).unwrap();
        assert_eq!(server.run().unwrap(), ExitReason::Fatal);
        assert!(server.core().fatal);
    }

    /// Goal: a signal ends the loop in good order: what was asked before is still answered.
    #[test]
    fn signal_ends() {
        let path = TemporaryPath::new("server-signal");
        let mut server = server(&path, None, true);
        let mut peer = TcpStream::connect(server.address()).unwrap();
        let question = frame(5, CLUSTER, 1_000, 7);
        let bytes = [question.clone(), frame(5, CLUSTER, 258, 0)].concat();
        peer.write_all(&bytes).unwrap();
        assert_eq!(server.run().unwrap(), ExitReason::Signal(15));
        drop(server);
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, question);
    }
}
