//! For tests: scenarios in words, for the cluster of [`test_cluster`](super::test_cluster).
//!
//! A line is a command or an expectation; what they are is told at the head of
//! `scenarios/README.md`. At the end of each scenario everything is healed, all clients get their
//! answers, the cluster must converge, lose its power and converge again to the same state.

use std::fmt::Write;
use std::ops::ControlFlow;

use super::test_cluster::{Cluster, EPOCH_NS, Fate, Frozen, Place, Rule};
use super::test_world::Client;
use super::*;
use crate::protocol::{Command, PrepareHeader};

/// Steps that an expectation may take to come true, if it does not say so: ten seconds.
const PATIENCE: u64 = 10_000;
/// Transfers of a request that travels alone, and of one that may be packed.
const LARGE: u32 = 40;

/// One scenario: its name, and its lines with their numbers.
pub struct Scenario {
    pub name: String,
    pub lines: Vec<(usize, String)>,
}

/// Scenarios of a text; blank lines and what follows `#` are ignored.
pub fn parse(text: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap().trim();
        if let Some(name) = line.strip_prefix("scenario ") {
            scenarios.push(Scenario { name: name.to_owned(), lines: Vec::new() });
        } else if !line.is_empty() {
            let scenario = scenarios.last_mut().expect("a text begins with a scenario");
            scenario.lines.push((index + 1, line.to_owned()));
        }
    }
    scenarios
}

/// Runs one scenario; `at` is always the line that is being run, zero at the end.
pub fn run(scenario: &Scenario, at: &mut usize) {
    let mut script: Option<Script> = None;
    for (number, line) in &scenario.lines {
        *at = *number;
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words[0], &mut script) {
            ("why", _) => {}
            ("cluster", None) => script = Some(Script::start(&words[1..])),
            (_, Some(script)) => script.line(&words),
            _ => panic!("a scenario begins with its cluster"),
        }
    }
    *at = 0;
    let mut script = script.expect("a scenario has a cluster");
    if !script.broken {
        script.finish();
    }
}

struct Script {
    cluster: Cluster,
    /// It ends with something that can't be healed.
    broken: bool,
}

/// Cuts a list of names at commas.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|name| !name.is_empty())
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("'{word}' is no number"))
}

/// Nanoseconds of `300ms`, `-5s`, `+2h`.
fn duration_ns(word: &str) -> i64 {
    let end = word.find(char::is_alphabetic).unwrap_or(word.len());
    let unit = match &word[end..] {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "h" => 3_600_000_000_000,
        _ => panic!("'{word}' is no time: 5ms, 5s or 5h"),
    };
    word[..end].parse::<i64>().expect("a time begins with a number") * unit
}

fn steps(word: &str) -> u64 {
    u64::try_from(duration_ns(word)).expect("time goes on") / 1_000_000
}

fn node(word: &str) -> u8 {
    let digits = word.strip_prefix('r').unwrap_or_else(|| panic!("'{word}' is no replica"));
    digits.parse().expect("a replica's index")
}

fn client(word: &str) -> u8 {
    let digits = word.strip_prefix('c').unwrap_or_else(|| panic!("'{word}' is no client"));
    digits.parse().expect("a client's number")
}

fn place(word: &str) -> Option<Place> {
    match word.as_bytes()[0] {
        b'*' => None,
        b'c' => Some(Place::Client(client(word))),
        _ => Some(Place::Replica(node(word))),
    }
}

fn command(word: &str) -> Command {
    match word {
        "ping" => Command::Ping,
        "pong" => Command::Pong,
        "request" => Command::Request,
        "reply" => Command::Reply,
        "prepare" => Command::Prepare,
        "prepare_ok" => Command::PrepareOk,
        "commit" => Command::Commit,
        "start_view_change" => Command::StartViewChange,
        "do_view_change" => Command::DoViewChange,
        "request_start_view" => Command::RequestStartView,
        "start_view" => Command::StartView,
        "request_headers" => Command::RequestHeaders,
        "request_prepare" => Command::RequestPrepare,
        "headers" => Command::Headers,
        "checkpoint" => Command::Checkpoint,
        "block" => Command::Block,
        other => panic!("no command '{other}'"),
    }
}

/// `A -> B` or `A <-> B`, with lists of names, as pairs.
fn links(words: &[&str]) -> Vec<(Option<Place>, Option<Place>)> {
    let [from, arrow, to] = words else { panic!("a link is A -> B or A <-> B") };
    let mut pairs = Vec::new();
    for one in names(from) {
        for other in names(to) {
            pairs.push((place(one), place(other)));
            if *arrow == "<->" {
                pairs.push((place(other), place(one)));
            }
        }
    }
    pairs
}

impl Script {
    /// `3`, `3 standbys 2`, `3 blocks`, `3 closed`: an open cluster is in view 1 and knows the
    /// time.
    fn start(words: &[&str]) -> Script {
        let voters = u8::try_from(number(words[0])).unwrap();
        let standbys = words.iter().position(|word| *word == "standbys");
        let standbys = standbys.map_or(0, |at| u8::try_from(number(words[at + 1])).unwrap());
        let mut script = Script { cluster: Cluster::new(voters, standbys), broken: false };
        script.cluster.has_blocks = words.contains(&"blocks");
        if words.last() == Some(&"closed") {
            return script;
        }
        for node in script.cluster.indexes() {
            script.cluster.open(node);
        }
        let ready = |cluster: &Cluster| {
            cluster.has_converged()?;
            let primary = cluster.primary().ok_or("no primary")?;
            let timed = cluster.replica(primary).may_prepare();
            if timed { Ok(()) } else { Err("no time".to_owned()) }
        };
        script.wait(PATIENCE, ready);
        script
    }

    fn line(&mut self, words: &[&str]) {
        let rest = &words[1..];
        match words[0] {
            "open" | "restart" => names(rest[0]).for_each(|name| self.cluster.open(node(name))),
            "crash" => self.crash(rest),
            "register" | "request" | "retry" => self.clients(words),
            "fill" => self.fill(rest),
            "reconnect" => self.cluster.reconnect(client(rest[0])),
            "cut" => self.rules(Fate::Drop, None, None, rest),
            "drop" => self.command_rules(Fate::Drop, rest),
            "hold" => self.command_rules(Fate::Hold, rest),
            "copy" => self.command_rules(Fate::Copy, rest),
            "heal" => self.heal(rest),
            "release" => self.cluster.release(),
            "run" => self.steps(steps(rest[0])),
            "expect" => self.expect(rest),
            "check" => self.truth(rest).unwrap_or_else(|found| panic!("it is not so: {found}")),
            "never" => self.never(rest),
            "stuck" => self.stuck(steps(rest[0])),
            "ends" => self.broken = true,
            _ => self.machines(words),
        }
    }

    /// Commands about machines.
    fn machines(&mut self, words: &[&str]) {
        let target = node(words[1]);
        match words[0] {
            "stop" => self.cluster.node_mut(target).stopped = true,
            "continue" => self.cluster.go_on(target),
            "freeze" => {
                self.cluster.node_mut(target).frozen = match words.get(2) {
                    None => Frozen::All,
                    Some(&"superblock") => Frozen::Superblock,
                    Some(&"log") => Frozen::Log,
                    Some(other) => panic!("no part '{other}' of a disk"),
                };
            }
            "thaw" => self.cluster.node_mut(target).frozen = Frozen::Nothing,
            "answer" => {
                self.cluster.finish_disk(target, usize::try_from(number(words[2])).unwrap());
            }
            "fail" => {
                let offset = Cluster::offset(words[2], number(words[3]));
                self.cluster.node_mut(target).disk.fail(offset, 1);
            }
            "lose" => {
                let offset = Cluster::offset(words[2], number(words[3]));
                self.cluster.node_mut(target).disk.lose_write(offset);
            }
            "corrupt" => self.cluster.corrupt(target, words[2], number(words[3])),
            "blank" => self.cluster.blank(target, number(words[2])),
            "forget" => self.cluster.forget(target),
            "clock" => self.cluster.node_mut(target).clock_ns = duration_ns(words[2]),
            "lost" => {
                for other in names(words[3]) {
                    self.cluster.lose_connection(node(other), target);
                }
            }
            "may_stop" => {
                self.cluster.may_stop.insert(target);
            }
            other => panic!("no command '{other}'"),
        }
    }

    /// `r0,r1`, or `r0 torn first`.
    fn crash(&mut self, words: &[&str]) {
        let torn = words.iter().position(|word| *word == "torn").map_or("none", |at| words[at + 1]);
        for name in names(words[0]) {
            let keep = |index: u64, count: u64| match torn {
                "none" => false,
                "all" => true,
                "first" => index == 0,
                "last" => index + 1 == count && count > 1,
                other => panic!("torn is none, all, first or last, not {other}"),
            };
            self.cluster.crash(node(name), keep);
        }
    }

    /// `request c1,c2 [small] [to r0,r1]`: to the primary, if it is not said to whom. Who registers
    /// there waits for its answer, so that each registration is an op.
    fn clients(&mut self, words: &[&str]) {
        let to = words.iter().position(|word| *word == "to").map(|at| words[at + 1]);
        let small = words.contains(&"small");
        for name in names(words[1]) {
            let index = client(name);
            if words[0] == "register" {
                let fresh = Client::new(u128::from(index) + 1);
                assert!(self.cluster.clients.insert(index, fresh).is_none());
            }
            if words[0] != "retry" {
                let client = self.cluster.clients.get_mut(&index).expect("a registered client");
                client.next(0, if small { 0 } else { LARGE });
            }
            let primary = self.cluster.primary().map(|node| format!("r{node}"));
            let to = to.map(str::to_owned).or(primary).expect("there is a primary");
            names(&to).for_each(|to| self.cluster.send(index, node(to)));
            if words[0] == "register" && !words.contains(&"to") {
                self.expect(&["reply", name]);
            }
        }
    }

    /// `fill c1 20`: so many requests, one after the other.
    fn fill(&mut self, words: &[&str]) {
        for _ in 0..number(words[1]) {
            self.clients(&["request", words[0]]);
            self.expect(&["reply", words[0]]);
        }
    }

    fn rules(&mut self, fate: Fate, command: Option<Command>, op: Option<u64>, link: &[&str]) {
        for (from, to) in links(link) {
            self.cluster.rules.push(Rule { fate, command, op, from, to });
        }
    }

    /// `prepare r1 -> r0`, `prepare op 5 r1 -> *`.
    fn command_rules(&mut self, fate: Fate, words: &[&str]) {
        let (op, link) = if words[1] == "op" { (Some(number(words[2])), 3) } else { (None, 1) };
        for name in names(words[0]) {
            self.rules(fate, Some(command(name)), op, &words[link..]);
        }
    }

    /// All rules, or those of a link, or those for a command.
    fn heal(&mut self, words: &[&str]) {
        match words {
            [] => self.cluster.rules.clear(),
            [name] => {
                let healed = Some(command(name));
                self.cluster.rules.retain(|rule| rule.command != healed);
            }
            _ => {
                for (from, to) in links(words) {
                    self.cluster.rules.retain(|rule| (rule.from, rule.to) != (from, to));
                }
            }
        }
    }

    fn steps(&mut self, count: u64) {
        for _ in 0..count {
            self.cluster.step();
        }
    }

    /// Lets time pass until something holds.
    fn wait(&mut self, patience: u64, holds: impl Fn(&Cluster) -> Result<(), String>) {
        let mut found = String::new();
        for _ in 0..patience {
            match holds(&self.cluster) {
                Ok(()) => return,
                Err(reason) => found = reason,
            }
            self.cluster.step();
        }
        panic!("it did not come in {patience} ms: {found}\n{}", self.describe());
    }

    fn expect(&mut self, words: &[&str]) {
        let at = words.iter().position(|word| *word == "within").unwrap_or(words.len());
        let patience = words.get(at + 1).map_or(PATIENCE, |word| steps(word));
        let (fact, started) = (&words[..at], self.cluster.now_ns);
        for _ in 0..patience {
            if self.truth(fact).is_ok() {
                return;
            }
            self.cluster.step();
        }
        let found = self.truth(fact).unwrap_err();
        let waited = (self.cluster.now_ns - started) / 1_000_000;
        panic!("it did not come in {waited} ms: {found}\n{}", self.describe());
    }

    /// `never FACT for 3s`.
    fn never(&mut self, words: &[&str]) {
        let at = words.iter().position(|word| *word == "for").expect("never … for a time");
        for _ in 0..steps(words[at + 1]) {
            assert!(self.truth(&words[..at]).is_err(), "it is so\n{}", self.describe());
            self.cluster.step();
        }
    }

    /// Nobody executes anything new.
    fn stuck(&mut self, count: u64) {
        let newest = |cluster: &Cluster| {
            let commits = cluster.running().into_iter();
            commits.map(|node| cluster.replica(node).commit_op()).max()
        };
        let before = newest(&self.cluster);
        self.steps(count);
        assert!(newest(&self.cluster) <= before, "there was progress\n{}", self.describe());
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for index in self.cluster.indexes() {
            let node = self.cluster.node(index);
            let Some(replica) = &node.replica else {
                writeln!(text, "  r{index}: down").expect("to a string");
                continue;
            };
            writeln!(
                text,
                "  r{index}: {:?} view {} log view {} checkpoint {:?} executed {} committed {} \
                 head {} proven from {}{}, reported as {:?}",
                replica.status(),
                replica.view(),
                replica.log_view(),
                (!matches!(replica.status(), Status::Opening(_))).then(|| replica.checkpoint_op()),
                replica.commit_op(),
                replica.commit_max(),
                replica.head_op(),
                replica.chain.op_min(),
                if replica.cluster_now().is_some() { "" } else { ", no time" },
                replica.reported_log(),
            )
            .expect("to a string");
        }
        text
    }

    /// Heals everything; then all is answered, agreed on, and outlives a loss of power.
    fn finish(&mut self) {
        self.cluster.rules.clear();
        self.cluster.held.clear();
        for node in self.cluster.indexes() {
            self.cluster.node_mut(node).frozen = Frozen::Nothing;
            if self.cluster.node(node).stopped {
                self.cluster.go_on(node);
            }
            if self.cluster.node(node).replica.is_none() {
                self.cluster.open(node);
            }
        }
        self.converge();
        for node in self.cluster.indexes() {
            self.cluster.crash(node, |_, _| false);
        }
        self.cluster.indexes().for_each(|node| self.cluster.open(node));
        self.converge();
    }

    fn converge(&mut self) {
        for _ in 0..120 {
            let waits: Vec<u8> = self.waiting();
            if waits.is_empty() && self.cluster.has_converged().is_ok() {
                break;
            }
            for client in waits {
                (0..self.cluster.voters).for_each(|node| self.cluster.send(client, node));
            }
            self.steps(500);
        }
        assert!(self.waiting().is_empty(), "unanswered: {:?}\n{}", self.waiting(), self.describe());
        if let Err(reason) = self.cluster.has_converged() {
            panic!("{reason}\n{}", self.describe());
        }
        self.cluster.check_history();
        self.cluster.check_logs();
    }

    /// Clients that wait for an answer.
    fn waiting(&self) -> Vec<u8> {
        let clients = self.cluster.clients.iter();
        let waits = clients.filter(|(_, client)| !client.answered && client.evicted.is_none());
        waits.map(|(index, _)| *index).collect()
    }

    /// Whether a fact holds; what was found if it does not.
    fn truth(&mut self, words: &[&str]) -> Result<(), String> {
        if words[0] == "not" {
            return match self.truth(&words[1..]) {
                Ok(()) => Err(format!("{} holds", words[1..].join(" "))),
                Err(_) => Ok(()),
            };
        }
        let at = words.iter().position(|word| *word == "on").unwrap_or(words.len());
        let (fact, on) = (&words[..at], words.get(at + 1).copied());
        let nodes: Vec<u8> = match on {
            Some(list) => names(list).map(node).collect(),
            None => self.cluster.running(),
        };
        if let ControlFlow::Break(result) = self.truth_of_cluster(fact) {
            return result;
        }
        for index in nodes {
            if self.cluster.node(index).replica.is_none() {
                return Err(format!("r{index} is down"));
            }
            let replica = self.cluster.replica(index);
            if matches!(replica.status(), Status::Opening(_)) {
                return Err(format!("r{index} is opening"));
            }
            self.truth_of_replica(fact, index)?;
        }
        Ok(())
    }

    /// Facts about clients and the cluster.
    fn truth_of_cluster(&mut self, fact: &[&str]) -> ControlFlow<Result<(), String>> {
        let require = |holds: bool, found: &str| {
            ControlFlow::Break(if holds { Ok(()) } else { Err(found.to_owned()) })
        };
        match fact[0] {
            "reply" | "evicted" => {
                for name in names(fact[1]) {
                    let client = &self.cluster.clients[&client(name)];
                    let holds = match fact[0] {
                        "reply" => client.answered,
                        _ => client.evicted.is_some(),
                    };
                    if !holds {
                        return require(false, name);
                    }
                }
                require(true, "")
            }
            "resent" => {
                let client = &self.cluster.clients[&client(fact[1])];
                require(u64::from(client.resent) >= number(fact[2]), "fewer")
            }
            "told_time" => {
                let client = &self.cluster.clients[&client(fact[1])];
                let reply = &client.last.as_ref().expect("an answered client").reply;
                let told = u64::from_le_bytes(reply[256 + 8..256 + 16].try_into().unwrap());
                let wrong_ns = i128::from(told) - i128::from(EPOCH_NS + self.cluster.now_ns);
                let limit = i128::from(duration_ns(fact[2]));
                require(wrong_ns.abs() <= limit, &format!("wrong by {wrong_ns} ns"))
            }
            "primary" => {
                let primary = self.cluster.primary();
                let found = format!("the primary is {primary:?}\n{}", self.describe());
                require(primary == Some(node(fact[1])), &found)
            }
            "converged" => ControlFlow::Break(self.cluster.has_converged()),
            "sent" => {
                let (command, from) = (command(fact[1]) as u8, place(fact[2]).unwrap());
                let to = fact.get(4).and_then(|word| place(word));
                let sent = self.cluster.sent.keys().any(|(sent, sender, receiver)| {
                    *sent == command && *sender == from && to.is_none_or(|to| to == *receiver)
                });
                require(sent, "it was not sent")
            }
            "held" => require(!self.cluster.held.is_empty(), "nothing is held"),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Facts about one replica.
    fn truth_of_replica(&self, fact: &[&str], index: u8) -> Result<(), String> {
        let replica = self.cluster.replica(index);
        let value = |at: usize| number(fact[at]);
        let equal = |found: u64| {
            let holds = found == value(1);
            if holds { Ok(()) } else { Err(format!("{} of r{index} is {found}", fact[0])) }
        };
        let require = |holds: bool| {
            if holds { Ok(()) } else { Err(format!("not so on r{index}\n{}", self.describe())) }
        };
        match fact[0] {
            "view" => {
                require(replica.status() == Status::Normal)?;
                equal(replica.view().into())
            }
            "durable_view" => equal(replica.superblock.durable().view.into()),
            "log_view" => equal(replica.log_view().into()),
            "durable_log_view" => equal(replica.superblock.durable().log_view.into()),
            "in_view" => equal(replica.view().into()),
            "executed" => equal(replica.commit_op()),
            "ahead" => equal(replica.commit.op),
            "committed" => equal(replica.commit_max()),
            "head" => equal(replica.head_op()),
            "checkpoint" => equal(replica.checkpoint_op()),
            "has" => {
                let header = replica.journal.header(value(1));
                let has =
                    |header: &PrepareHeader| replica.journal.has(header.op, header.frame.checksum);
                require(header.is_some_and(has))
            }
            "damaged" => require(self.cluster.is_damaged(index, fact[1], value(2))),
            "knows" => require(replica.journal.header(value(1)).is_some()),
            "holds" => require(!replica.held.is_empty()),
            "recovered" => {
                let opening = matches!(replica.status(), Status::Opening(_));
                require(!opening && !replica.is_recovering())
            }
            "timed" => require(replica.cluster_now().is_some()),
            "status" => {
                let found = match replica.status() {
                    Status::Opening(_) => "opening",
                    Status::Normal => "normal",
                    Status::ViewChange => "view_change",
                    Status::RecoveringHead => "recovering_head",
                    Status::Fatal => "fatal",
                };
                require(found == fact[1])
            }
            "repairing" => require(replica.is_repairing()),
            other => panic!("no fact '{other}'"),
        }
    }
}
