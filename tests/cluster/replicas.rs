//! A cluster of real processes whose every connection goes through a link of its own.

use super::program::florin;
use crate::free_port::free_port;
use crate::proxy::Link;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The cluster's id: clients of the official libraries and ours use it.
pub const CLUSTER: u128 = 7;
/// A superblock, and where in it are its sequence, and checkpoint and root.
const COPY_SIZE: usize = 16 * 1024;
const RELEASE: std::ops::Range<usize> = 44..48;
const SEQUENCE: std::ops::Range<usize> = 80..88;
const CHECKPOINT: std::ops::Range<usize> = 272..784;

/// One replica: its data file, and its process if it runs.
struct Replica {
    path: PathBuf,
    /// Its own address, and links to the others.
    addresses: String,
    /// The release that its program takes itself for, if another than it is.
    release: Option<&'static str>,
    /// Where the log of its last start begins.
    log_start: usize,
    process: Option<Child>,
}

/// A cluster, and the links between its replicas and from the clients.
pub struct Cluster {
    replicas: Vec<Replica>,
    /// From a replica to another one; the diagonal is unused.
    links: Vec<Vec<Arc<Link>>>,
    /// From the clients to each replica.
    client_links: Vec<Arc<Link>>,
    client_addresses: Vec<SocketAddr>,
    directory: PathBuf,
}

/// The newest copy of a data file's superblock; the file may be in use.
fn newest_copy(path: &Path) -> Vec<u8> {
    let mut copies = vec![0; 4 * COPY_SIZE];
    let mut file = File::open(path).expect("the data file");
    file.read_exact(&mut copies).expect("it has superblocks");
    let newest = copies
        .chunks(COPY_SIZE)
        .max_by_key(|copy| u64::from_le_bytes(copy[SEQUENCE].try_into().expect("eight bytes")));
    newest.expect("four copies").to_vec()
}

/// The release of a data file's checkpoint.
fn checkpoint_release(path: &Path) -> String {
    let release = newest_copy(path)[RELEASE].try_into().expect("four bytes");
    florin::protocol::Release(u32::from_le_bytes(release)).to_string()
}

fn signal(process: &Child, name: &str) {
    let status = Command::new("kill").args([name, &process.id().to_string()]).status();
    assert!(status.expect("there is a kill command").success());
}

impl Cluster {
    /// Formats and starts so many replicas.
    pub fn start(name: &str, count: usize) -> Cluster {
        let directory =
            std::env::temp_dir().join(format!("florin-cluster-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("a place for data files");
        let addresses: Vec<SocketAddr> =
            (0..count).map(|_| SocketAddr::from(([127, 0, 0, 1], free_port()))).collect();
        let mut cluster = Cluster {
            replicas: Vec::new(),
            links: Vec::new(),
            client_links: Vec::new(),
            client_addresses: Vec::new(),
            directory,
        };
        for (own, own_address) in addresses.iter().enumerate() {
            let (links, entries): (Vec<_>, Vec<_>) =
                addresses.iter().map(|address| Link::open(*address)).unzip();
            let mut listed: Vec<String> = entries.iter().map(ToString::to_string).collect();
            listed[own] = own_address.to_string();
            cluster.links.push(links);
            let (link, entry) = Link::open(*own_address);
            cluster.client_links.push(link);
            cluster.client_addresses.push(entry);
            let path = cluster.directory.join(format!("{own}.florin"));
            format(&path, own, count);
            let addresses = listed.join(",");
            let replica = Replica { path, addresses, release: None, log_start: 0, process: None };
            cluster.replicas.push(replica);
        }
        (0..count).for_each(|index| cluster.spawn(index));
        cluster
    }

    /// Replicas.
    pub fn count(&self) -> usize {
        self.replicas.len()
    }

    /// Where clients reach the replicas, in order.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// Starts the process of a replica.
    pub fn spawn(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        assert!(replica.process.is_none());
        let log = replica.path.with_extension("log");
        replica.log_start = fs::read(&log).map_or(0, |text| text.len());
        let log = File::options().append(true).create(true).open(log);
        let child = florin()
            .args(["start", "--development", &format!("--addresses={}", replica.addresses)])
            .args(replica.release.map(|release| format!("--program-release={release}")))
            .arg(&replica.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        replica.process = Some(child.expect("the server starts"));
    }

    /// Ends a replica as an operator does, and starts a program of another release in its place.
    pub fn replace(&mut self, index: usize, release: &'static str) {
        // Before, a signal would end it in another way.
        self.wait_up(index);
        let mut process = self.replicas[index].process.take().expect("it runs");
        self.check_alive(&mut process, index);
        signal(&process, "-TERM");
        assert!(process.wait().expect("it was told to end").success());
        self.replicas[index].release = Some(release);
        self.spawn(index);
    }

    /// Waits until the program of a replica that was started last says how the cluster is.
    pub fn wait_up(&self, index: usize) {
        let replica = &self.replicas[index];
        let log = replica.path.with_extension("log");
        let up = || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text[replica.log_start..].contains("view ")
        };
        self.wait_until("the program comes up", up);
    }

    /// Waits until something holds, for a minute at most.
    pub fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "in vain: {what}\n{}", self.logs());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the checkpoints of all data files are of this release.
    pub fn wait_for_release(&self, release: &str) {
        let known = |replica: &Replica| checkpoint_release(&replica.path) == release;
        self.wait_until(release, || self.replicas.iter().all(known));
    }

    /// Ends a replica and starts it as another release, which must refuse; its message.
    pub fn refused(&mut self, index: usize, release: &'static str) -> String {
        let log = self.replicas[index].path.with_extension("log");
        let before = fs::read_to_string(&log).unwrap_or_default().len();
        self.replace(index, release);
        let mut process = self.replicas[index].process.take().expect("it was started");
        let status = process.wait().expect("it is a child");
        assert_eq!(status.code(), Some(3), "{}", self.logs());
        fs::read_to_string(&log).expect("a log")[before..].to_owned()
    }

    /// Starts a replica that has ended, as this release.
    pub fn spawn_as(&mut self, index: usize, release: &'static str) {
        self.replicas[index].release = Some(release);
        self.spawn(index);
    }

    /// Kills a replica at once, as a power cut would.
    pub fn kill(&mut self, index: usize) {
        let mut process = self.replicas[index].process.take().expect("it runs");
        self.check_alive(&mut process, index);
        process.kill().expect("it is a child");
        process.wait().expect("it was killed");
    }

    /// A replica that ended by itself has failed.
    fn check_alive(&self, process: &mut Child, index: usize) {
        if let Some(status) = process.try_wait().expect("it is a child") {
            panic!("replica {index} ended by itself: {status}\n{}", self.logs());
        }
    }

    /// Stops the process of a replica where it stands.
    pub fn pause(&mut self, index: usize) {
        signal(self.replicas[index].process.as_ref().expect("it runs"), "-STOP");
    }

    /// Lets the process of a replica go on.
    pub fn resume(&mut self, index: usize) {
        signal(self.replicas[index].process.as_ref().expect("it runs"), "-CONT");
    }

    /// Links on which a replica sends, to others.
    pub fn links_from(&self, index: usize) -> Vec<Arc<Link>> {
        let others = self.links[index].iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, link)| Arc::clone(link)).collect()
    }

    /// Links on which a replica receives, from others.
    pub fn links_to(&self, index: usize) -> Vec<Arc<Link>> {
        let others = self.links.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, links)| Arc::clone(&links[index])).collect()
    }

    /// The link between clients and a replica.
    pub fn client_link(&self, index: usize) -> &Arc<Link> {
        &self.client_links[index]
    }

    /// Last lines of what the replicas had to say.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for replica in &self.replicas {
            let log = fs::read_to_string(replica.path.with_extension("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n  ");
            writeln!(text, "{}:\n  {tail}", replica.path.display()).expect("to a string");
        }
        text
    }

    /// Waits until all data files have the same checkpoint, which is not the first, and ends all.
    pub fn agree_and_stop(mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.checkpoints().iter().any(|checkpoint| *checkpoint != self.checkpoints()[0]) {
            assert!(Instant::now() < deadline, "checkpoints differ\n{}", self.logs());
            thread::sleep(Duration::from_millis(100));
        }
        for index in 0..self.count() {
            let mut process = self.replicas[index].process.take().expect("it runs");
            self.check_alive(&mut process, index);
            signal(&process, "-TERM");
            let status = process.wait().expect("it was told to end");
            assert!(status.success(), "replica {index}: {status}\n{}", self.logs());
        }
        let checkpoints = self.checkpoints();
        assert!(checkpoints.iter().all(|checkpoint| *checkpoint == checkpoints[0]));
        let root_start = checkpoints[0].len() / 2;
        assert!(checkpoints[0][root_start..].iter().any(|byte| *byte != 0), "none was made");
        fs::remove_dir_all(&self.directory).expect("the directory is ours");
    }

    /// Header and root of each data file's checkpoint.
    fn checkpoints(&self) -> Vec<Vec<u8>> {
        let read = |replica: &Replica| newest_copy(&replica.path)[CHECKPOINT].to_vec();
        self.replicas.iter().map(read).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            if let Some(mut process) = replica.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

fn format(path: &std::path::Path, index: usize, count: usize) {
    let result = florin()
        .args(["format", "--development", &format!("--cluster={CLUSTER}")])
        .args([format!("--replica={index}"), format!("--replica-count={count}")])
        .arg(path)
        .output()
        .expect("the command starts");
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
}
