//! The draw of a run: everything about a seed that is decided before it begins.
//!
//! Size of the cluster, clients, load, speeds, rates of faults. The draw is printed as one line of
//! JSON; parts of it can be overridden from the command line, which leaves the rest as drawn.

use serde_json::{Map, Value, json};

use super::faults::{FAULTS, Fault, Faults};
use super::random::{MILLION, Part, Random};
use crate::protocol::to_index;

/// What is to be different from the draw.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Replicas that vote.
    pub replicas: Option<u8>,
    /// Standbys.
    pub standbys: Option<u8>,
    /// Clients at a time.
    pub clients: Option<u32>,
    /// Requests before the faults stop.
    pub requests: Option<u64>,
    /// Events in a batch at most.
    pub batch_events: Option<u32>,
    /// Milliseconds from which on faults strike.
    pub faults_from_ms: u64,
    /// Milliseconds from which on no fault strikes, if any.
    pub faults_until_ms: Option<u64>,
    /// Never turbulent.
    pub steady: bool,
    /// Only the first so many kinds of faults are drawn, if not all: those that a seed of an older
    /// program knew.
    pub fault_kinds: Option<u32>,
    /// Rates, in parts of a million.
    pub rates: Vec<(Fault, u32)>,
    /// What the run is for.
    pub kind: RunKind,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunKind {
    /// Faults, then healing.
    #[default]
    Full,
    /// No healing: assertions and checks of every step only.
    Lite,
    /// Few requests, and every fault until the healing begins.
    Liveness,
    /// No faults at all.
    Calm,
}

/// Everything drawn.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// The seed of all.
    pub seed: u64,
    /// What the run is for.
    pub kind: RunKind,
    /// Replicas that vote, 1 to 6.
    pub replicas: u8,
    /// Standbys, 0 to 6.
    pub standbys: u8,
    /// Clients at a time.
    pub clients: u32,
    /// Requests to be answered before the faults stop.
    pub requests: u64,
    /// Simulated milliseconds after which the faults stop in any case.
    pub time_max_ms: u64,
    /// Events in a batch at most.
    pub batch_events: u32,
    /// Mean pause of a client between a reply and its next request, in microseconds.
    pub think_us: u64,
    /// Least delay of a packet in microseconds.
    pub packet_min_us: u64,
    /// Mean of what comes on top of it.
    pub packet_mean_us: u64,
    /// Least time of a disk request in microseconds.
    pub disk_min_us: u64,
    /// Mean of what comes on top of it.
    pub disk_mean_us: u64,
    /// Mean time of a job in microseconds.
    pub job_mean_us: u64,
    /// Whether clients send each request to a random other replica at once, as official ones do.
    pub clients_broadcast: bool,
    /// Whether processes and network are shaken often and briefly: many view changes.
    pub turbulent: bool,
    /// Faults strike in this span of milliseconds only.
    pub faults_ms: (u64, u64),
    /// Kinds of faults with their rates.
    pub faults: Faults,
}

/// Replicas that vote, as often as they are to occur.
const REPLICAS: [u8; 16] = [1, 1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 6, 6];
/// How many times more often faults strike in a turbulent run.
const TURBULENCE: u32 = 10;
/// Standbys, as often as they are to occur.
const STANDBYS: [u8; 8] = [0, 0, 0, 0, 0, 1, 1, 2];

impl Swarm {
    /// The draw of a seed.
    ///
    /// # Panics
    ///
    /// If an invariant of the simulator is broken.
    #[must_use]
    pub fn draw(seed: u64, overrides: &Overrides) -> Swarm {
        let mut random = Random::new(seed, Part::Swarm, 0);
        let replicas = REPLICAS[random.index(REPLICAS.len())];
        let standbys = STANDBYS[random.index(STANDBYS.len())];
        let mut swarm = Swarm {
            seed,
            kind: overrides.kind,
            replicas,
            standbys,
            clients: u32::try_from(random.scale(1, 12)).expect("few clients"),
            requests: random.scale(100, 800),
            time_max_ms: 30_000,
            batch_events: u32::try_from(random.scale(1, 60)).expect("small batches"),
            think_us: random.scale(100, 20_000),
            packet_min_us: random.scale(20, 1_000),
            packet_mean_us: random.scale(20, 10_000),
            disk_min_us: random.scale(10, 500),
            disk_mean_us: random.scale(10, 5_000),
            job_mean_us: random.scale(100, 50_000),
            clients_broadcast: random.chance(MILLION / 2),
            faults_ms: (overrides.faults_from_ms, overrides.faults_until_ms.unwrap_or(u64::MAX)),
            faults: Faults::draw(seed, &mut random),
            turbulent: random.chance(2 * MILLION / 5),
        };
        swarm.turbulent &= !overrides.steady;
        if swarm.turbulent {
            swarm.faults.multiply(TURBULENCE);
            swarm.requests = swarm.requests.min(250);
        }
        swarm.apply(overrides);
        swarm
    }

    fn apply(&mut self, overrides: &Overrides) {
        self.replicas = overrides.replicas.unwrap_or(self.replicas);
        let standbys = if self.replicas == 1 { 0 } else { self.standbys };
        self.standbys = overrides.standbys.unwrap_or(standbys);
        self.clients = overrides.clients.unwrap_or(self.clients);
        if self.kind == RunKind::Liveness {
            self.requests = self.requests.min(150);
            self.time_max_ms = 6_000;
        }
        if self.kind == RunKind::Calm {
            self.faults = Faults::none(self.seed);
        }
        self.requests = overrides.requests.unwrap_or(self.requests);
        self.batch_events = overrides.batch_events.unwrap_or(self.batch_events);
        let kinds = overrides.fault_kinds.map_or(FAULTS, to_index);
        for fault in Fault::all().into_iter().skip(kinds) {
            self.faults.set_rate(fault, 0);
        }
        for (fault, rate) in &overrides.rates {
            self.faults.set_rate(*fault, *rate);
        }
        assert!((1..=6).contains(&self.replicas) && self.standbys <= 6);
        assert!(self.clients > 0 && self.batch_events > 0);
    }

    /// Replicas and standbys.
    #[must_use]
    pub fn nodes(&self) -> usize {
        usize::from(self.replicas) + usize::from(self.standbys)
    }

    /// The draw as one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let mut faults = Map::new();
        for fault in Fault::all() {
            if self.faults.rate(fault) > 0 {
                faults.insert(fault.name().to_owned(), Value::from(self.faults.rate(fault)));
            }
        }
        json!({
            "seed": self.seed,
            "kind": format!("{:?}", self.kind),
            "replicas": self.replicas,
            "standbys": self.standbys,
            "clients": self.clients,
            "requests": self.requests,
            "batch_events": self.batch_events,
            "think_us": self.think_us,
            "packet_us": [self.packet_min_us, self.packet_mean_us],
            "disk_us": [self.disk_min_us, self.disk_mean_us],
            "job_us": self.job_mean_us,
            "turbulent": self.turbulent,
            "clients_broadcast": self.clients_broadcast,
            "faults_per_million": faults,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the same seed gives the same draw, as one line; overrides change only their own.
    #[test]
    fn draws_and_overrides() {
        let none = Overrides::default();
        let line = Swarm::draw(7, &none).json();
        assert_eq!(line, Swarm::draw(7, &none).json());
        assert!(!line.contains('\n') && line.contains("\"seed\":7"));
        let rates = vec![(Fault::Crash, 5)];
        let overrides = Overrides { replicas: Some(4), rates, ..Overrides::default() };
        let (drawn, changed) = (Swarm::draw(7, &none), Swarm::draw(7, &overrides));
        assert_eq!((changed.replicas, changed.faults.rate(Fault::Crash)), (4, 5));
        assert_eq!(drawn.faults.rate(Fault::Pause), changed.faults.rate(Fault::Pause));
        assert_eq!((drawn.requests, drawn.clients), (changed.requests, changed.clients));
        let rates = vec![(Fault::DiskFull, 9)];
        let overrides = Overrides { fault_kinds: Some(17), rates, ..Overrides::default() };
        let older = Swarm::draw(7, &overrides);
        for (index, fault) in Fault::all().into_iter().enumerate() {
            let kept = if index < 17 { drawn.faults.rate(fault) } else { 0 };
            let expected = if fault == Fault::DiskFull { 9 } else { kept };
            assert_eq!(older.faults.rate(fault), expected, "{}", fault.name());
        }
    }
}
