//! Faults that strike with time: every ten milliseconds each kind gets its chance.
//!
//! What strikes a packet or a job on its way is in the files of those, and what strikes disks in
//! [`disk_faults`](super::disk_faults).

use super::atlas;
use super::cluster::Cluster;
use super::events::Event;
use super::faults::Fault;
use super::process::Activity;
use super::trace::Detail;
use crate::protocol::Command;
use crate::vsr::Status;

const MILLISECOND_NS: u64 = 1_000_000;
/// Commands that may be lost for a while.
const COMMANDS: [Command; 13] = [
    Command::Ping,
    Command::Pong,
    Command::Request,
    Command::Prepare,
    Command::PrepareOk,
    Command::Commit,
    Command::StartViewChange,
    Command::DoViewChange,
    Command::RequestStartView,
    Command::RequestHeaders,
    Command::RequestPrepare,
    Command::Headers,
    Command::StartView,
];

impl Cluster {
    /// Gives every kind its chance.
    pub(super) fn inject(&mut self) {
        self.inject_processes();
        self.inject_absence();
        self.inject_file_loss();
        self.inject_upgrade();
        self.inject_network();
        self.inject_disks();
        self.inject_clocks();
        self.inject_clients();
    }

    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        let (from_ms, until_ms) = self.swarm.faults_ms;
        let now_ms = self.events.now_ns() / MILLISECOND_NS;
        let strikes = self.faults.strikes(fault);
        strikes && (from_ms..until_ms).contains(&now_ms)
    }

    pub(super) fn node(&mut self, fault: Fault) -> usize {
        let nodes = self.processes.len();
        self.faults.random(fault).index(nodes)
    }

    /// Milliseconds on a logarithmic scale, as nanoseconds.
    pub(super) fn span_ns(&mut self, fault: Fault, least_ms: u64, most_ms: u64) -> u64 {
        let most_ms = if self.swarm.turbulent { (most_ms / 8).max(least_ms) } else { most_ms };
        self.faults.random(fault).scale(least_ms, most_ms) * MILLISECOND_NS
    }

    fn inject_processes(&mut self) {
        for replica in 0..self.processes.len() {
            let is_opening = matches!(self.processes[replica].status(), Some(Status::Opening(_)));
            if is_opening && self.strikes(Fault::CrashOpening) {
                self.faults.count(Fault::CrashOpening);
                let powered = self.faults.random(Fault::CrashOpening).chance(500_000);
                let span = self.span_ns(Fault::CrashOpening, 1, 500);
                self.kill(replica, powered, span);
            }
        }
        if self.strikes(Fault::Crash) {
            let replica = self.node(Fault::Crash);
            let powered = self.faults.random(Fault::Crash).chance(500_000);
            let span = self.span_ns(Fault::Crash, 1, 3000);
            if self.processes[replica].replica.is_some() {
                self.faults.count(Fault::Crash);
                self.kill(replica, powered, span);
            }
        }
        if self.strikes(Fault::Pause) {
            let replica = self.node(Fault::Pause);
            let span = self.span_ns(Fault::Pause, 5, 3000);
            let until_ns = self.events.now_ns() + span;
            if self.processes[replica].is_running() {
                self.faults.count(Fault::Pause);
                self.processes[replica].activity = Activity::Paused { until_ns };
                self.tell(replica, &format!("paused for {} ms", span / MILLISECOND_NS));
            }
        }
    }

    /// Keeps a machine down until it has fallen out of the logs of the others.
    fn inject_absence(&mut self) {
        if !self.strikes(Fault::Absence) {
            return;
        }
        let replica = self.node(Fault::Absence);
        let running = self.processes[replica].replica.is_some();
        if running && self.may_be_away(replica) {
            let span = self.take_down(Fault::Absence, replica, (300, 10_000));
            self.tell(replica, &format!("away for {} ms", span / MILLISECOND_NS));
        }
    }

    /// Kills a process, with its machine or without, for a drawn span of milliseconds; that in
    /// nanoseconds.
    fn take_down(&mut self, fault: Fault, replica: usize, (least, most): (u64, u64)) -> u64 {
        self.faults.count(fault);
        let powered = self.faults.random(fault).chance(500_000);
        let span = self.faults.random(fault).scale(least, most) * MILLISECOND_NS;
        self.kill(replica, powered, span);
        span
    }

    /// Takes a data file away for good.
    fn inject_file_loss(&mut self) {
        if !self.strikes(Fault::FileLoss) {
            return;
        }
        let replica = self.node(Fault::FileLoss);
        let running = self.processes[replica].replica.is_some();
        if running && self.may_lose_file(replica) {
            self.take_down(Fault::FileLoss, replica, (1, 3_000));
            self.lose_file(replica);
        }
    }

    /// Stops a process and starts the next release of the program in its place.
    fn inject_upgrade(&mut self) {
        if !self.strikes(Fault::Upgrade) {
            return;
        }
        let replica = self.node(Fault::Upgrade);
        if self.processes[replica].replica.is_none() {
            return;
        }
        self.faults.count(Fault::Upgrade);
        self.kill(replica, true, MILLISECOND_NS);
        let process = &mut self.processes[replica];
        process.program.0 += 1;
        let program = process.program;
        self.tell(replica, &format!("is release {program} from now on"));
    }

    fn inject_network(&mut self) {
        let now = self.events.now_ns();
        if self.network.end_partition(now) {
            self.trace.line(now, Detail::Short, || "network: partition ends".to_owned());
        }
        if self.strikes(Fault::PathClog) {
            let (from, to) = (self.node(Fault::PathClog), self.node(Fault::PathClog));
            let span = self.span_ns(Fault::PathClog, 1, 1000);
            self.faults.count(Fault::PathClog);
            self.network.clog(from, to, now + span);
        }
        if self.strikes(Fault::Swizzle) {
            self.faults.count(Fault::Swizzle);
            self.swizzle(now);
        }
        if self.strikes(Fault::CommandDrop) {
            let random = self.faults.random(Fault::CommandDrop);
            let command = COMMANDS[random.index(COMMANDS.len())];
            let everywhere = random.chance(500_000);
            let (from, to) = (self.node(Fault::CommandDrop), self.node(Fault::CommandDrop));
            let span = self.span_ns(Fault::CommandDrop, 20, 2000);
            self.faults.count(Fault::CommandDrop);
            self.drop_command(command, (from, to), everywhere, now + span);
        }
        if self.strikes(Fault::Partition) && !self.network.is_partitioned() {
            self.faults.count(Fault::Partition);
            let span = self.span_ns(Fault::Partition, 20, 4000);
            self.partition(now + span);
        }
        if self.strikes(Fault::ConnectionDrop) {
            self.faults.count(Fault::ConnectionDrop);
            let from = self.node(Fault::ConnectionDrop);
            let ends = self.processes.len() + self.clients.len();
            let to = self.faults.random(Fault::ConnectionDrop).index(ends);
            self.drop_connection(from, to);
        }
    }

    /// Stops a random subset of the paths; each goes on at a time of its own.
    fn swizzle(&mut self, now: u64) {
        for from in 0..self.processes.len() {
            for to in 0..self.processes.len() {
                let random = self.faults.random(Fault::Swizzle);
                let (stops, span) = (random.chance(500_000), random.scale(5, 1500));
                if stops {
                    self.network.clog(from, to, now + span * MILLISECOND_NS);
                }
            }
        }
        self.trace.line(now, Detail::Short, || "network: swizzle".to_owned());
    }

    fn drop_command(
        &mut self,
        command: Command,
        (from, to): (usize, usize),
        everywhere: bool,
        until_ns: u64,
    ) {
        let now = self.events.now_ns();
        let nodes = self.processes.len();
        for (left, right) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            if everywhere || (left, right) == (from, to) {
                self.network.drop_command(left, right, command.into(), until_ns);
            }
        }
        self.trace.line(now, Detail::Short, || {
            let place = if everywhere { "everywhere".to_owned() } else { format!("{from}->{to}") };
            format!("network: {command:?} is lost {place} until {} ms", until_ns / MILLISECOND_NS)
        });
    }

    /// Draws a partition: one node alone, two halves, or single directions.
    fn partition(&mut self, until_ns: u64) {
        let nodes = self.processes.len();
        let random = self.faults.random(Fault::Partition);
        let (mode, alone) = (random.below(4), random.index(nodes));
        let sides: Vec<bool> = (0..nodes).map(|_| random.chance(500_000)).collect();
        let (out, both) = (random.chance(500_000), random.chance(500_000));
        let mut cuts = Vec::new();
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            let cut = match mode {
                0 => (from == alone) != (to == alone),
                1 => sides[from] != sides[to],
                2 if both => sides[from] && !sides[to],
                2 => (if out { from } else { to }) == alone && from != to,
                _ => from != to && random.chance(300_000),
            };
            if cut {
                cuts.push((from, to));
            }
        }
        for (from, to) in &cuts {
            self.network.set_cut(*from, *to, true);
        }
        self.network.set_partition_end(until_ns);
        let now = self.events.now_ns();
        self.trace.line(now, Detail::Short, || {
            let cuts: Vec<String> = cuts.iter().map(|(from, to)| format!("{from}->{to}")).collect();
            format!("network: cut {} until {} ms", cuts.join(" "), until_ns / MILLISECOND_NS)
        });
    }

    /// Breaks the connections between two nodes; replicas learn it of those they opened.
    fn drop_connection(&mut self, from: usize, to: usize) {
        let delay = self.faults.random(Fault::ConnectionDrop).scale(1, 20) * MILLISECOND_NS;
        self.network.disconnect(from, to);
        if to < self.processes.len() {
            self.events.after(delay, Event::PeerLost { replica: from, peer: to });
        } else {
            self.network.disconnect(to, from);
        }
    }

    fn inject_clocks(&mut self) {
        if self.strikes(Fault::ClockJump) {
            let replica = self.node(Fault::ClockJump);
            self.faults.count(Fault::ClockJump);
            self.processes[replica].clock.jump(self.faults.random(Fault::ClockJump));
        }
        if self.strikes(Fault::ClockFar) {
            let replica = self.node(Fault::ClockFar);
            if self.processes[replica].clock.is_far() {
                self.processes[replica].clock.repair();
                self.tell(replica, "clock is set right");
            } else if atlas::may_go_far(&self.processes, replica) {
                self.faults.count(Fault::ClockFar);
                let clock = &mut self.processes[replica].clock;
                clock.go_far(replica, self.faults.random(Fault::ClockFar));
                self.tell(replica, "clock goes far off");
            }
        }
    }

    fn inject_clients(&mut self) {
        let count = self.clients.len();
        let mut sends = Vec::new();
        if self.strikes(Fault::ClientRestart) {
            let client = self.faults.random(Fault::ClientRestart).index(count);
            self.faults.count(Fault::ClientRestart);
            self.clients.restart(client, self.events.now_ns());
            self.plan_client(client);
        }
        if self.strikes(Fault::ClientRepeat) {
            let voters = usize::from(self.swarm.replicas);
            let random = self.faults.random(Fault::ClientRepeat);
            let (client, target) = (random.index(count), random.index(voters));
            self.faults.count(Fault::ClientRepeat);
            self.clients.repeat(client, target, &mut sends);
        }
        if self.strikes(Fault::ClientHostile) {
            let target = self.node(Fault::ClientHostile);
            self.faults.count(Fault::ClientHostile);
            let frame = super::clients::hostile_frame(self.faults.random(Fault::ClientHostile));
            sends.push((count, target, frame));
        }
        self.send_from_clients(sends);
    }
}
