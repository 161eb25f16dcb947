//! A cluster of three in many states: compares what `florin status` and `/readyz` report in each
//! with what is true.
//!
//! Cuts, stops, kills and wrong lists lead to each state, with roles as they are at that time. A
//! state names the exit code of `status`, a phrase in its output, the answer of each replica's
//! `/readyz`, and whether a client is served. The cluster must come to all of that within a
//! generous time, and stay there. The clock of the server, which a busy machine does not falsify,
//! proves that a lost contact shows within two seconds. The tables that are printed are those of
//! `docs/OPERATING.md`.

use super::servers::wait_for;
use super::trio::{CLUSTER, Trio, readyz, serves, status};
use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

/// Time in which a state must show, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// A cluster that is healed is healthy within this time.
const HEALTH_PATIENCE: Duration = Duration::from_secs(180);
/// Times that a state is tried.
const ATTEMPTS: u32 = 3;
/// Exit codes of `florin status`.
const HEALTHY: i32 = 0;
const DEGRADED: i32 = 10;
const UNAVAILABLE: i32 = 7;

/// The expected answer of a replica's `/readyz`.
#[derive(Clone, Copy, Debug)]
enum Ready {
    /// 200.
    Yes,
    /// 503, for one of these reasons.
    No(&'static [&'static str]),
    /// Nothing: it is dead or stopped.
    Away,
    /// Anything: it does not follow from the state.
    Any,
}
use Ready::{Any, Away, No, Yes};

/// The answer of a replica without contact to any other, whatever its role was.
const ALONE: Ready = No(&["no_quorum"]);
/// The answer of a backup that the primary does not hear.
const UNHEARD: Ready = No(&["unheard"]);
/// The answers of a replica cut off in one direction, which may or may not have left its view.
const CUT_OFF: Ready = No(&["unheard", "no_quorum", "no_primary"]);
const NOT_READY_P: &str = "replica P: is not ready";
const NOT_READY_B: &str = "replica B: is not ready";
const NOT_READY_C: &str = "replica C: is not ready";
const ORDER: &str = "the addresses are in the wrong order; the right list is";

impl Ready {
    fn fits(self, said: &str) -> bool {
        match self {
            Yes => said.starts_with("200 "),
            No(reasons) => reasons.iter().any(|it| said.starts_with(&format!("503 {it}: "))),
            Away => said == "no answer",
            Any => true,
        }
    }

    fn text(self) -> String {
        match self {
            Yes => "200".to_owned(),
            No(reasons) => reasons.join(" or "),
            Away => "-".to_owned(),
            Any => "*".to_owned(),
        }
    }
}

/// A replica by its role before anything happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The primary.
    P,
    /// The backup that leads the next view.
    B,
    /// The other backup.
    C,
    /// The standby.
    S,
}
use Role::{B, C, P, S};

/// The index of a standby.
const STANDBY: usize = 3;

/// The indexes of the roles.
#[derive(Clone, Copy, Debug)]
struct Roles([usize; 4]);

/// The letters of the roles.
const LETTERS: [&str; 4] = ["P", "B", "C", "S"];

impl Roles {
    fn of(self, role: Role) -> usize {
        self.0[role as usize]
    }
}

/// A step from a healthy cluster to a state.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Kill(Role),
    /// Stops the process where it stands.
    Stop(Role),
    Restart(Role),
    /// Cuts the way from one to another.
    Cut(Role, Role),
    /// Cuts all ways from a replica, and to it.
    Isolate(Role),
    /// Executes 120 ops.
    Load,
    /// Restarts a replica with a clock that is ahead by these hours.
    Clock(Role, i64),
    /// Restarts all replicas with such clocks, after all of them were killed.
    Clocks([i64; 3]),
    /// Restarts a replica on a file that `florin recover` created.
    Lose(Role),
    /// Starts a second process of a replica.
    Twin(Role),
}
use Deed::{Clock, Clocks, Cut, Isolate, Kill, Load, Lose, Restart, Stop, Twin};

impl Deed {
    fn perform(self, trio: &mut Trio, roles: Roles) {
        match self {
            Kill(role) => trio.kill(roles.of(role)),
            Stop(role) => trio.pause(roles.of(role)),
            Restart(role) => trio.restart(roles.of(role)),
            Cut(from, to) => trio.cut(roles.of(from), roles.of(to)),
            Isolate(role) => trio.isolate(roles.of(role)),
            Load => trio.load(120),
            Clock(role, hours) => {
                trio.kill(roles.of(role));
                trio.spawn(roles.of(role), hours * 3600);
            }
            Clocks(hours) => {
                for role in [P, B, C] {
                    trio.kill(roles.of(role));
                }
                for (role, hours) in [P, B, C].into_iter().zip(hours) {
                    trio.spawn(roles.of(role), hours * 3600);
                }
            }
            Lose(role) => {
                trio.kill(roles.of(role));
                trio.format(roles.of(role), "recover");
                trio.spawn(roles.of(role), 0);
            }
            Twin(role) => trio.spawn_twin(roles.of(role)),
        }
    }
}

/// The list that `status` is given.
#[derive(Clone, Copy, Debug)]
enum List {
    /// As it should be.
    Right,
    /// The addresses of these indexes.
    Order(&'static [usize]),
    /// An order in which the primary is in a wrong place.
    Shifted,
    /// With the first replica also in place of the second.
    Doubled,
    /// With an address where no process listens in place of one.
    Stranger(Role),
}

impl List {
    fn text(self, trio: &Trio, roles: Roles) -> String {
        let address = |index: usize| trio.address(index).to_string();
        let all =
            |order: &[usize]| order.iter().map(|it| address(*it)).collect::<Vec<_>>().join(",");
        match self {
            List::Right => all(&[0, 1, 2]),
            List::Order(order) => all(order),
            List::Shifted if roles.of(P) == 0 => all(&[1, 2, 0]),
            List::Shifted => all(&[roles.of(P), (roles.of(P) + 1) % 3, (roles.of(P) + 2) % 3]),
            List::Doubled => {
                let other = format!("[::ffff:127.0.0.1]:{}", trio.address(0).port());
                all(&[0, 1, 2]).replace(&address(1), &other)
            }
            List::Stranger(role) => {
                all(&[0, 1, 2]).replace(&address(roles.of(role)), "127.0.0.1:9")
            }
        }
    }
}

/// A state, and its expected signs.
struct State {
    name: &'static str,
    deeds: &'static [Deed],
    code: i32,
    /// Part of the output of `status`; in `replica P` the letter stands for the index.
    phrase: &'static str,
    /// The answers of P, B and C.
    ready: [Ready; 3],
    list: List,
    cluster: u128,
}

const fn state(
    name: &'static str,
    deeds: &'static [Deed],
    code: i32,
    phrase: &'static str,
    ready: [Ready; 3],
) -> State {
    State { name, deeds, code, phrase, ready, list: List::Right, cluster: CLUSTER }
}

/// A state whose only fault is the list.
const fn listed(name: &'static str, phrase: &'static str, list: List) -> State {
    State { list, ..state(name, &[], DEGRADED, phrase, [Yes; 3]) }
}

/// The last observation.
struct Seen {
    code: i32,
    text: String,
    ready: [String; 3],
}

impl State {
    fn phrase(&self, roles: Roles) -> String {
        let mut phrase = self.phrase.to_owned();
        for (letter, index) in LETTERS.into_iter().zip(roles.0) {
            phrase = phrase.replace(&format!("replica {letter}"), &format!("replica {index}"));
        }
        phrase
    }

    fn look(&self, trio: &Trio, roles: Roles) -> Seen {
        check_contacts(trio);
        let (code, text) = status(self.cluster, &self.list.text(trio, roles));
        let ready = [P, B, C].map(|role| trio.readyz(roles.of(role)));
        Seen { code, text, ready }
    }

    fn fits(&self, seen: &Seen, roles: Roles) -> bool {
        let mut ready = self.ready.iter().zip(&seen.ready);
        seen.code == self.code
            && seen.text.contains(&self.phrase(roles))
            && ready.all(|(expected, said)| expected.fits(said))
    }

    /// Checks this state, again if it differs: on a busy machine the cluster may choose another
    /// primary at any time, and a state is described by the roles with which it began. Returns the
    /// row of the last attempt, whether it is as expected, and the number of attempts before it.
    fn check(&self, trio: &mut Trio) -> (String, bool, u32) {
        let (mut row, mut holds) = self.check_once(trio);
        let mut retries = 0;
        while !holds && retries + 1 < ATTEMPTS {
            println!("{row}");
            retries += 1;
            (row, holds) = self.check_once(trio);
        }
        (row, holds, retries)
    }

    /// Puts a healthy cluster into this state and looks. Returns a row of the table, and whether it
    /// is as expected.
    fn check_once(&self, trio: &mut Trio) -> (String, bool) {
        trio.heal();
        let roles = wait_for_health(trio);
        self.deeds.iter().for_each(|deed| deed.perform(trio, roles));
        let since = Instant::now();
        let mut seen = self.look(trio, roles);
        while !self.fits(&seen, roles) && since.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
            seen = self.look(trio, roles);
        }
        let after = since.elapsed();
        let expected = self.code != UNAVAILABLE || self.cluster != CLUSTER;
        let served = serves(&trio.list(), expected);
        // It stays so.
        let mut holds = served == expected;
        for _ in 0..2 {
            seen = self.look(trio, roles);
            holds &= self.fits(&seen, roles);
        }
        (self.row(roles, &seen, served, after, holds), holds)
    }

    fn row(&self, roles: Roles, seen: &Seen, served: bool, after: Duration, holds: bool) -> String {
        let expected = self.ready.map(Ready::text).join(", ");
        let mut row = format!(
            "| {} | {} | {} | {expected} | {} | {:.1} |",
            self.name,
            self.code,
            self.phrase,
            if served { "yes" } else { "no" },
            after.as_secs_f64()
        );
        if !holds {
            let Roles(roles) = roles;
            write!(row, "\n  DIFFERS: {roles:?}, served {served}, exit {}, ", seen.code).unwrap();
            write!(row, "{:?}\n{}", seen.ready, seen.text).unwrap();
        }
        row
    }
}

/// Waits until the cluster is healthy, and returns the roles.
fn wait_for_health(trio: &Trio) -> Roles {
    let since = Instant::now();
    loop {
        let ready = (0..trio.nodes()).all(|index| trio.readyz(index).starts_with("200 "));
        if let Some(p) = trio.primary().filter(|_| ready) {
            return Roles([p, (p + 1) % 3, (p + 2) % 3, STANDBY]);
        }
        assert!(since.elapsed() < HEALTH_PATIENCE, "not healthy\n{}", trio.logs());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Fails if a replica reports that it is ready, and has been out of contact for two seconds.
fn check_contacts(trio: &Trio) {
    for index in 0..trio.nodes() {
        if let Some(metrics) = trio.ready_without_contact(index) {
            panic!("replica {index} is ready, and out of contact\n{metrics}\n{}", trio.logs());
        }
    }
}

/// Checks all states, prints a table, and fails if a row differs.
fn check_all(mut trio: Trio, name: &str, states: &[State]) {
    let mut table = String::from(
        "| state | `status` | phrase | `/readyz` of P, B, C | served | after s |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut differing = Vec::new();
    let mut retries = 0;
    for state in states {
        let (row, holds, more) = state.check(&mut trio);
        println!("{row}");
        retries += more;
        writeln!(table, "{row}").unwrap();
        if !holds {
            differing.push(state.name);
        }
    }
    let (count, differ) = (states.len(), differing.len());
    println!("{name}: {count} states, {retries} retries, {differ} differ");
    assert!(differing.is_empty(), "{differing:?} differ\n{table}\n{}", trio.logs());
}

/// Kills, stops, clocks and lost files.
const KILLS: &[State] = &[
    state("all is well", &[], HEALTHY, "healthy", [Yes; 3]),
    state("C killed", &[Kill(C)], DEGRADED, "replica C: connection refused", [Yes, Yes, Away]),
    state("B killed", &[Kill(B)], DEGRADED, "replica B: connection refused", [Yes, Away, Yes]),
    state("P killed", &[Kill(P)], DEGRADED, "replica P: connection refused", [Away, Yes, Yes]),
    state("B, C killed", &[Kill(B), Kill(C)], UNAVAILABLE, "serves nobody", [ALONE, Away, Away]),
    state("P, C killed", &[Kill(P), Kill(C)], UNAVAILABLE, "nobody is served", [Away, ALONE, Away]),
    state("P, B killed", &[Kill(P), Kill(B)], UNAVAILABLE, "nobody is served", [Away, Away, ALONE]),
    state("all killed", &[Kill(P), Kill(B), Kill(C)], UNAVAILABLE, "unavailable", [Away; 3]),
    state("C stopped", &[Stop(C)], DEGRADED, "replica C: no answer within", [Yes, Yes, Away]),
    state("B stopped", &[Stop(B)], DEGRADED, "replica B: no answer within", [Yes, Away, Yes]),
    state("P stopped", &[Stop(P)], DEGRADED, "replica P: no answer within", [Away, Yes, Yes]),
    state("B, C stopped", &[Stop(B), Stop(C)], UNAVAILABLE, "serves nobody", [ALONE, Away, Away]),
    state(
        "P, B stopped",
        &[Stop(P), Stop(B)],
        UNAVAILABLE,
        "nobody is served",
        [Away, Away, ALONE],
    ),
    state(
        "C killed, B stopped",
        &[Kill(C), Stop(B)],
        UNAVAILABLE,
        "serves nobody",
        [ALONE, Away, Away],
    ),
    state("C's clock an hour ahead", &[Clock(C, 1)], DEGRADED, "its clock is", [Yes; 3]),
    state(
        "all clocks apart",
        &[Clocks([1, 2, 3])],
        UNAVAILABLE,
        "no majority of the clocks agrees",
        [Any; 3],
    ),
    state(
        "C without its data file, B killed",
        &[Kill(B), Lose(C)],
        UNAVAILABLE,
        "its data file was lost",
        [Any, Away, No(&["recovering"])],
    ),
    state(
        "C without its data file, no way from B to it",
        &[Cut(B, C), Lose(C)],
        DEGRADED,
        "its data file was lost",
        [Yes, Yes, No(&["recovering"])],
    ),
];

/// Isolation, also after a restart, and ways that are cut in both directions.
const ISOLATION: &[State] = &[
    state("C isolated", &[Isolate(C)], DEGRADED, NOT_READY_C, [Yes, Yes, ALONE]),
    state("B isolated", &[Isolate(B)], DEGRADED, NOT_READY_B, [Yes, ALONE, Yes]),
    state("P isolated", &[Isolate(P)], DEGRADED, NOT_READY_P, [ALONE, Yes, Yes]),
    state(
        "C isolated and restarted",
        &[Isolate(C), Restart(C)],
        DEGRADED,
        NOT_READY_C,
        [Yes, Yes, ALONE],
    ),
    state(
        "B isolated and restarted",
        &[Isolate(B), Restart(B)],
        DEGRADED,
        NOT_READY_B,
        [Yes, ALONE, Yes],
    ),
    state(
        "P isolated and restarted",
        &[Isolate(P), Restart(P)],
        DEGRADED,
        NOT_READY_P,
        [ALONE, Yes, Yes],
    ),
    state("C isolated under load", &[Isolate(C), Load], DEGRADED, "ops behind", [Yes, Yes, ALONE]),
    state("all isolated", &[Isolate(P), Isolate(B)], UNAVAILABLE, "nobody", [ALONE; 3]),
    state(
        "C isolated, B killed",
        &[Isolate(C), Kill(B)],
        UNAVAILABLE,
        "serves nobody",
        [ALONE, Away, ALONE],
    ),
    state(
        "no ways between B and C",
        &[Cut(B, C), Cut(C, B)],
        DEGRADED,
        "replica B has heard nothing from replica C for",
        [Yes; 3],
    ),
    state(
        "no ways between P and C",
        &[Cut(P, C), Cut(C, P)],
        DEGRADED,
        "replica P has heard nothing from replica C for",
        [Yes, Yes, No(&["no_primary"])],
    ),
    state(
        "no ways between P and B",
        &[Cut(P, B), Cut(B, P)],
        DEGRADED,
        "replica P has heard nothing from replica B for",
        [Yes, No(&["no_primary"]), Yes],
    ),
    state(
        "no ways between P and C, B killed",
        &[Cut(P, C), Cut(C, P), Kill(B)],
        UNAVAILABLE,
        "serves nobody",
        [ALONE, Away, ALONE],
    ),
];

/// Ways that are cut in one direction.
const CUTS: &[State] = &[
    state(
        "no way from C to P",
        &[Cut(C, P)],
        DEGRADED,
        "replica P has heard nothing from replica C for",
        [Yes, Yes, UNHEARD],
    ),
    state(
        "no way from B to P",
        &[Cut(B, P)],
        DEGRADED,
        "replica P has heard nothing from replica B for",
        [Yes, UNHEARD, Yes],
    ),
    state(
        "no way from C to P under load",
        &[Cut(C, P), Load],
        DEGRADED,
        "ops behind; its acknowledgements do not arrive",
        [Yes, Yes, UNHEARD],
    ),
    state(
        "no way from P to C",
        &[Cut(P, C)],
        DEGRADED,
        "replica C has not answered the primary for",
        [Yes, Yes, No(&["no_primary"])],
    ),
    state(
        "no way from P to B",
        &[Cut(P, B)],
        DEGRADED,
        "replica B has not answered the primary for",
        [Yes, No(&["no_primary"]), Yes],
    ),
    state(
        "no way from B to C",
        &[Cut(B, C)],
        DEGRADED,
        "replica C has heard nothing from replica B for",
        [Yes; 3],
    ),
    state(
        "no way from C to B",
        &[Cut(C, B)],
        DEGRADED,
        "replica B has heard nothing from replica C for",
        [Yes; 3],
    ),
    state("nothing leaves C", &[Cut(C, P), Cut(C, B)], DEGRADED, NOT_READY_C, [Yes, Yes, UNHEARD]),
    state("nothing reaches C", &[Cut(P, C), Cut(B, C)], DEGRADED, NOT_READY_C, [Yes, Yes, ALONE]),
    state("nothing leaves P", &[Cut(P, B), Cut(P, C)], DEGRADED, NOT_READY_P, [CUT_OFF, Yes, Yes]),
    state("nothing reaches P", &[Cut(B, P), Cut(C, P)], DEGRADED, NOT_READY_P, [ALONE, Yes, Yes]),
    state(
        "no way from C to P, B killed",
        &[Cut(C, P), Kill(B)],
        UNAVAILABLE,
        "serves nobody",
        [ALONE, Away, CUT_OFF],
    ),
    state(
        "no way from P to C, B killed",
        &[Cut(P, C), Kill(B)],
        UNAVAILABLE,
        "nobody",
        [ALONE, Away, ALONE],
    ),
    state(
        "no way from C to P, B stopped",
        &[Cut(C, P), Stop(B)],
        UNAVAILABLE,
        "serves nobody",
        [ALONE, Away, CUT_OFF],
    ),
    state(
        "one way of each pair, in a ring",
        &[Cut(P, B), Cut(B, C), Cut(C, P)],
        UNAVAILABLE,
        "nobody",
        [Any; 3],
    ),
];

/// Wrong lists, and two processes of one index.
const LISTS: &[State] = &[
    listed("the list reads 0 2 1", ORDER, List::Order(&[0, 2, 1])),
    listed("the list reads 1 0 2", ORDER, List::Order(&[1, 0, 2])),
    listed("the list reads 1 2 0", ORDER, List::Order(&[1, 2, 0])),
    listed("the list reads 2 0 1", ORDER, List::Order(&[2, 0, 1])),
    listed("the list reads 2 1 0", ORDER, List::Order(&[2, 1, 0])),
    listed("the list ends early", "lists 2 of 3 replicas", List::Order(&[0, 1])),
    listed("the list has one replica twice", "lead to the same server, replica 0", List::Doubled),
    listed("a stranger for C", "replica C: connection refused", List::Stranger(C)),
    listed("P cannot be reached from here", "replica P: connection refused", List::Stranger(P)),
    State {
        cluster: 8,
        code: UNAVAILABLE,
        ..listed("another cluster's id", "another cluster's id", List::Right)
    },
    State {
        deeds: &[Kill(C)],
        ready: [Yes, Yes, Away],
        ..listed("C killed, and the list is wrong", ORDER, List::Shifted)
    },
    state("a twin of C", &[Twin(C)], DEGRADED, "two processes serve replica C, at", [Yes; 3]),
    state("a twin of P", &[Twin(P)], DEGRADED, "two processes serve replica P, at", [Yes; 3]),
];

/// A standby, which clients do not know and need not be listed.
const STANDBYS: &[State] = &[
    state("a standby, not listed", &[], HEALTHY, "healthy", [Yes; 3]),
    State {
        code: HEALTHY,
        ..listed("a standby, listed", "healthy", List::Order(&[0, 1, 2, STANDBY]))
    },
    listed("a standby in front", ORDER, List::Order(&[STANDBY, 0, 1, 2])),
    State {
        deeds: &[Kill(S)],
        ..listed(
            "the standby killed",
            "replica S: connection refused",
            List::Order(&[0, 1, 2, STANDBY]),
        )
    },
    State {
        deeds: &[Isolate(S)],
        ..listed(
            "the standby isolated",
            "replica S: is not ready",
            List::Order(&[0, 1, 2, STANDBY]),
        )
    },
    state(
        "B, C killed beside a standby",
        &[Kill(B), Kill(C)],
        UNAVAILABLE,
        "serves nobody",
        [ALONE, Away, Away],
    ),
];

/// Goal: kills and stops.
#[test]
#[ignore = "takes minutes, run by tools/test"]
fn kills_and_stops() {
    check_all(Trio::start("states-kills"), "kills", KILLS);
}

/// Goal: isolation in both directions, also after a restart, and ways without any.
#[test]
#[ignore = "takes minutes, run by tools/test"]
fn isolation() {
    check_all(Trio::start("states-isolation"), "isolation", ISOLATION);
}

/// Goal: ways that are cut in one direction.
#[test]
#[ignore = "takes minutes, run by tools/test"]
fn one_way_cuts() {
    check_all(Trio::start("states-cuts"), "cuts", CUTS);
}

/// Goal: wrong lists, and two processes of one index.
#[test]
#[ignore = "takes minutes, run by tools/test"]
fn lists_and_twins() {
    check_all(Trio::start("states-lists"), "lists", LISTS);
}

/// Goal: a cluster with a standby, listed or not.
#[test]
#[ignore = "takes minutes, run by tools/test"]
fn standbys() {
    check_all(Trio::start_with_standby("states-standbys"), "standbys", STANDBYS);
}

/// Goal: by its own clock, a replica that loses contact is not ready within two seconds.
#[test]
fn lost_contact() {
    let trio = Trio::start("states-contact");
    let roles = wait_for_health(&trio);
    trio.isolate(roles.of(C));
    wait_for("a replica that is not ready", || {
        check_contacts(&trio);
        trio.readyz(roles.of(C)).starts_with("503 no_quorum: ").then_some(())
    });
}

/// Goal: of two processes of one index, the one to which no replica connects reports that it is not
/// ready, and the others warn of both addresses.
#[test]
fn a_twin_is_not_ready() {
    let mut trio = Trio::start("states-twin");
    let roles = wait_for_health(&trio);
    trio.spawn_twin(roles.of(C));
    let said = wait_for("the twin's readiness", || {
        let said = readyz(trio.twin_metrics)?;
        said.contains("no other replica connects here").then_some(said)
    });
    assert!(said.starts_with("503 no_quorum: "), "{said}");
    let logs = |trio: &Trio| trio.log("twin").contains("not ready: no_quorum: ");
    wait_for("a warning of the twin", || logs(&trio).then_some(()));
    let text = format!("two processes serve replica {}, at 127.0.0.1:", roles.of(C));
    for index in [roles.of(P), roles.of(B)] {
        wait_for("a warning", || trio.log(&index.to_string()).contains(&text).then_some(()));
    }
    assert!(trio.readyz(roles.of(C)).starts_with("200 "), "{}", trio.readyz(roles.of(C)));
}
