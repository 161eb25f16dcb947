//! A cluster of three real servers, perhaps with a standby. Each connection from one to another
//! goes through a link that can be cut, so that tests can put the cluster into any state.

use super::free_port::free_port;
use super::program;
use super::proxy::Link;
use super::servers::{errors, florin};
use florin::client::{Client, Options};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub const CLUSTER: u128 = 7;
/// Time in which a served client has its answer, also on a busy machine.
const SERVED_TIME: Duration = Duration::from_secs(20);
/// Replicas that vote; a standby comes behind them.
const REPLICAS: usize = 3;
/// A ready replica has contact with another one, not older than this by its own clock, in seconds.
const CONTACT_MAX: f64 = 2.0;
/// Time without an answer after which a client counts as not served.
const UNSERVED_TIME: Duration = Duration::from_millis(1500);

/// One server.
struct Place {
    path: PathBuf,
    /// Its own address, and the links to the others.
    list: String,
    address: SocketAddr,
    metrics: SocketAddr,
    process: Option<Child>,
    is_paused: bool,
    /// Seconds that its clock is ahead.
    clock_offset: i64,
}

/// The cluster, and at most one more process of one of its indexes.
pub struct Trio {
    places: Vec<Place>,
    /// From one replica to another; the diagonal is unused.
    links: Vec<Vec<Arc<Link>>>,
    twin: Option<Child>,
    pub twin_metrics: SocketAddr,
    folder: PathBuf,
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn signal(process: &Child, name: &str) {
    let status = Command::new("kill").args([name, &process.id().to_string()]).status();
    assert!(status.unwrap().success());
}

impl Trio {
    /// Formats and starts three replicas.
    pub fn start(name: &str) -> Trio {
        Trio::start_nodes(name, REPLICAS)
    }

    /// Formats and starts three replicas, and a standby with index 3.
    pub fn start_with_standby(name: &str) -> Trio {
        Trio::start_nodes(name, REPLICAS + 1)
    }

    fn start_nodes(name: &str, nodes: usize) -> Trio {
        let folder = std::env::temp_dir().join(format!("florin-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let addresses: Vec<SocketAddr> = (0..nodes).map(|_| loopback()).collect();
        let (mut places, mut links) = (Vec::new(), Vec::new());
        for (own, address) in addresses.iter().enumerate() {
            let (ways, entries): (Vec<_>, Vec<_>) =
                addresses.iter().map(|address| Link::open(*address)).unzip();
            let mut listed: Vec<String> = entries.iter().map(ToString::to_string).collect();
            listed[own] = address.to_string();
            links.push(ways);
            places.push(Place {
                path: folder.join(format!("{own}.florin")),
                list: listed.join(","),
                address: *address,
                metrics: loopback(),
                process: None,
                is_paused: false,
                clock_offset: 0,
            });
        }
        let mut trio = Trio { places, links, twin: None, twin_metrics: loopback(), folder };
        for index in 0..nodes {
            trio.format(index, "format");
            trio.spawn(index, 0);
        }
        trio
    }

    /// Creates the data file of a replica, by `format` or by `recover`.
    pub fn format(&self, index: usize, command: &str) {
        let path = &self.places[index].path;
        let _ = fs::remove_file(path);
        let place = if index < REPLICAS { "replica" } else { "standby" };
        let (cluster, replica) = (format!("--cluster={CLUSTER}"), format!("--{place}={index}"));
        let path = path.display().to_string();
        let options = [command, "--development", &cluster, &replica, "--replica-count=3", &path];
        let output = florin(&options);
        assert!(output.status.success(), "{}", errors(&output));
    }

    /// Starts a replica whose clock is ahead by `clock_offset` seconds.
    pub fn spawn(&mut self, index: usize, clock_offset: i64) {
        let place = &self.places[index];
        assert!(place.process.is_none());
        let (list, path, metrics) = (place.list.clone(), place.path.clone(), place.metrics);
        let process = self.process(index.to_string(), &list, path, metrics, clock_offset);
        self.places[index].process = Some(process);
        self.places[index].clock_offset = clock_offset;
    }

    fn process(
        &self,
        name: String,
        list: &str,
        path: PathBuf,
        metrics: SocketAddr,
        clock_offset: i64,
    ) -> Child {
        let log = File::options().append(true).create(true).open(self.folder.join(name + ".log"));
        let child = program::florin()
            .args(["start", "--development", &format!("--addresses={list}")])
            .args([format!("--metrics={metrics}"), format!("--clock-offset={clock_offset}")])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        child.unwrap()
    }

    /// Starts a second process of a replica at another address, on a copy of its data file.
    pub fn spawn_twin(&mut self, index: usize) {
        let path = self.folder.join("twin.florin");
        fs::copy(&self.places[index].path, &path).unwrap();
        let mut list: Vec<String> = self.places[index].list.split(',').map(str::to_owned).collect();
        list[index] = loopback().to_string();
        let metrics = self.twin_metrics;
        self.twin = Some(self.process("twin".to_owned(), &list.join(","), path, metrics, 0));
    }

    /// Kills a replica.
    pub fn kill(&mut self, index: usize) {
        let mut process = self.places[index].process.take().unwrap();
        self.places[index].is_paused = false;
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Kills and starts a replica.
    pub fn restart(&mut self, index: usize) {
        self.kill(index);
        self.spawn(index, 0);
    }

    /// Stops the process of a replica where it stands.
    pub fn pause(&mut self, index: usize) {
        signal(self.places[index].process.as_ref().unwrap(), "-STOP");
        self.places[index].is_paused = true;
    }

    /// Cuts the way from one replica to another.
    pub fn cut(&self, from: usize, to: usize) {
        assert!(from != to);
        self.links[from][to].set_blocked(true);
    }

    /// Cuts all ways from a replica, and to it.
    pub fn isolate(&self, index: usize) {
        for other in (0..self.places.len()).filter(|other| *other != index) {
            self.cut(index, other);
            self.cut(other, index);
        }
    }

    /// Undoes all cuts and stops, and starts replicas that were killed.
    pub fn heal(&mut self) {
        if let Some(mut twin) = self.twin.take() {
            twin.kill().unwrap();
            twin.wait().unwrap();
        }
        self.links.iter().flatten().for_each(|link| link.set_blocked(false));
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            if place.is_paused {
                signal(place.process.as_ref().unwrap(), "-CONT");
                place.is_paused = false;
            }
            if place.clock_offset != 0 && place.process.is_some() {
                self.kill(index);
            }
            if self.places[index].process.is_none() {
                self.spawn(index, 0);
            }
        }
    }

    /// Returns the address of a replica.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.places[index].address
    }

    /// Returns the number of nodes, the standby included.
    pub fn nodes(&self) -> usize {
        self.places.len()
    }

    /// Returns the addresses of the replicas that vote, in order.
    pub fn list(&self) -> String {
        let addresses = (0..REPLICAS).map(|index| self.address(index).to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Returns the primary according to `florin status`, if there is one.
    pub fn primary(&self) -> Option<usize> {
        let (code, text) = status(CLUSTER, &self.list());
        let row = text.lines().find(|line| line.contains("  primary "))?;
        let index = row.split_whitespace().next()?.parse().ok()?;
        (code == 0).then_some(index)
    }

    /// Returns the answer of a replica's `/readyz`: `200` or `503` and the first line.
    pub fn readyz(&self, index: usize) -> String {
        readyz(self.places[index].metrics).unwrap_or_else(|| "no answer".to_owned())
    }

    /// Returns the metrics of a replica that is ready although its last contact with any other one
    /// is too long ago, by its own clock: a slow machine does not excuse that.
    pub fn ready_without_contact(&self, index: usize) -> Option<String> {
        let (_, text) = get(self.places[index].metrics, "/metrics")?;
        let sample = |name: &str| -> Option<f64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let is_recent = |metric: &str, replica: usize| {
            sample(&format!("florin_replica_{metric}_seconds{{replica=\"{replica}\"}}"))
                .is_some_and(|seconds| seconds <= CONTACT_MAX)
        };
        let others = (0..REPLICAS).filter(|replica| *replica != index);
        let contacts =
            others.filter(|it| is_recent("silence", *it) && is_recent("unanswered", *it)).count();
        let is_ready = sample("florin_ready").expect("it is always there") > 0.5;
        (is_ready && contacts == 0).then_some(text)
    }

    /// Executes this number of requests.
    pub fn load(&self, requests: u32) {
        let mut client = Client::connect(CLUSTER, &self.list(), &Options::default()).unwrap();
        for _ in 0..requests {
            client.lookup_accounts(&[1]).unwrap();
        }
    }

    /// Returns the last lines of all logs.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["0", "1", "2", "3", "twin"] {
            let log = self.folder.join(format!("{name}.log"));
            let log = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(6)..].join("\n  ");
            writeln!(text, "{name}:\n  {tail}").unwrap();
        }
        text
    }

    /// Returns the log of a server; `twin` is the second process.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default()
    }
}

/// Returns the exit code and the output of `florin status`.
pub fn status(cluster: u128, list: &str) -> (i32, String) {
    let (cluster, list) = (format!("--cluster={cluster}"), format!("--addresses={list}"));
    let output = florin(&["status", &cluster, &list, "--timeout=1"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// Whether a client of these replicas is served. The answer no takes [`UNSERVED_TIME`].
pub fn serves(list: &str, expected: bool) -> bool {
    let deadline = if expected { SERVED_TIME } else { UNSERVED_TIME };
    let options = Options { deadline, ..Options::default() };
    let client = Client::connect(CLUSTER, list, &options);
    client.is_ok_and(|mut client| client.lookup_accounts(&[1]).is_ok())
}

/// Asks a metrics address whether its server is ready; none if there is no answer in time.
pub fn readyz(address: SocketAddr) -> Option<String> {
    let (status, body) = get(address, "/readyz")?;
    Some(format!("{status} {}", body.lines().next().unwrap_or("")))
}

/// Returns the status and body of an answer; none if there is none in time.
fn get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let time = Duration::from_millis(500);
    let mut stream = TcpStream::connect_timeout(&address, time).ok()?;
    stream.set_read_timeout(Some(time)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.to_owned();
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

impl Drop for Trio {
    fn drop(&mut self) {
        let processes = self.places.iter_mut().filter_map(|place| place.process.take());
        for mut process in processes.chain(self.twin.take()) {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
