//! The thread that serves metrics: HTTP for Prometheus and health checks, datagrams for StatsD.
//!
//! It only reads [`Metrics`], so nothing that happens here can hold up the server. A few
//! connections at a time, one request on each, all within some seconds; when there are too many
//! the oldest makes way. All buffers are made before the allocator is frozen. It speaks the part of
//! HTTP/1.1 that scrapers and probes need: GET and HEAD, no bodies, no connection kept.
//!
//! | path | |
//! |---|---|
//! | `/metrics` | all metrics as text |
//! | `/healthz` | 200 while the serving thread turns, else 503 |
//! | `/readyz` | 200 while the replica serves, else 503 and the reason, as a line or as JSON |

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Metrics;
use super::catalogue::Metric;
use super::readiness::{Readiness, Verdict};
use super::statsd::StatsD;
use super::text::{TEXT_MAX, Text, write_all};
use crate::io::bus::BusError;
use crate::io::clock::Clock;
use crate::io::system::{WAITED_NONE, Waited, cpu_ns, file_system_space, wait, waited};

/// Maximum number of connections.
const CONNECTIONS_MAX: usize = 8;
/// Maximum size of a request with its headers, in bytes.
const REQUEST_MAX: usize = 4096;
/// Maximum number of headers of a request.
const HEADERS_MAX: usize = 64;
/// Maximum size of the head of a response, in bytes.
const HEAD_MAX: usize = 256;
/// Maximum duration of a connection.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// Maximum wait before the thread looks at the time, in milliseconds.
const PAUSE_MS: i32 = 200;
/// Interval of StatsD.
const STATSD_TIME: Duration = Duration::from_secs(10);
/// Maximum age of the last turn of a healthy serving thread, in nanoseconds.
const AGE_MAX_NS: u64 = 5_000_000_000;
/// Size of the pages in which the kernel counts the memory of a process, in bytes.
const PAGE_SIZE: u64 = 4096;

/// Options of the endpoint.
#[derive(Debug, Default)]
pub struct EndpointOptions {
    /// Address to listen on for HTTP.
    pub listen: Option<SocketAddr>,
    /// Address to send StatsD to.
    pub statsd: Option<SocketAddr>,
    /// The data file, whose length and free space are metrics.
    pub file: Option<File>,
}

/// Why metrics cannot be served.
#[derive(Debug)]
pub enum EndpointError {
    /// The address cannot be listened on.
    Listen(BusError),
    /// The system refuses something else.
    System(io::Error),
}

impl fmt::Display for EndpointError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Not frozen: it listens at the start.
            EndpointError::Listen(error) => write!(formatter, "--metrics: {error}"),
            // Not frozen: as the one above.
            EndpointError::System(error) => write!(formatter, "cannot serve metrics: {error}"),
        }
    }
}

impl std::error::Error for EndpointError {}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    address: Option<SocketAddr>,
}

impl Endpoint {
    /// Listens and starts the thread; returns once the thread no longer allocates.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn start(
        options: EndpointOptions,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Endpoint, EndpointError> {
        let system = EndpointError::System;
        let listener = options.listen.map(listen).transpose().map_err(EndpointError::Listen)?;
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let statsd = options.statsd.map(|address| StatsD::new(address, &metrics));
        let mut server = HttpServer {
            // Not frozen: this is the start.
            connections: (0..CONNECTIONS_MAX).map(|_| Connection::new()).collect(),
            listener,
            statsd: statsd.transpose().map_err(system)?,
            statsd_next: Instant::now() + STATSD_TIME,
            process: ProcessFiles::new(options.file),
            metrics,
            clock,
        };
        // Not frozen: this is the start.
        let stop = Arc::new(AtomicBool::new(false));
        // Not frozen: this is the start.
        let ready = Arc::new(AtomicBool::new(false));
        let (stop_of_thread, ready_of_thread) = (Arc::clone(&stop), Arc::clone(&ready));
        let work = move || {
            ready_of_thread.store(true, Ordering::Release);
            while !stop_of_thread.load(Ordering::Relaxed) {
                server.turn();
            }
        };
        // Not frozen: the thread is started before.
        let thread = std::thread::Builder::new().name("florin-metrics".to_owned()).spawn(work);
        let thread = thread.map_err(system)?;
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(Endpoint { stop, thread: Some(thread), address })
    }

    /// The address that it listens on, with the real port if the system chose it.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Bytes that it occupies, beside the metrics.
    ///
    /// # Panics
    ///
    /// Never: the sizes are small.
    #[must_use]
    pub fn memory_bytes() -> u64 {
        let connection = size_of::<Connection>() + REQUEST_MAX + TEXT_MAX;
        u64::try_from(CONNECTIONS_MAX * connection).expect("64 bits")
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "the metrics' thread panicked");
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, BusError> {
    let listener = TcpListener::bind(address).map_err(|error| BusError { address, error })?;
    listener.set_nonblocking(true).map_err(|error| BusError { address, error })?;
    Ok(listener)
}

/// The direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Reading,
    Writing,
}

/// One place for a connection, with its buffers.
#[derive(Debug)]
struct Connection {
    stream: Option<TcpStream>,
    doing: Doing,
    since: Instant,
    request: Box<[u8]>,
    received: usize,
    head: [u8; HEAD_MAX],
    head_length: usize,
    body: Box<[u8]>,
    body_length: usize,
    sent: usize,
}

/// The answer to a request, without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Response {
    status: &'static str,
    has_body: bool,
    content_type: &'static str,
}

impl Connection {
    fn new() -> Connection {
        Connection {
            stream: None,
            doing: Doing::Reading,
            since: Instant::now(),
            request: vec![0; REQUEST_MAX].into_boxed_slice(),
            received: 0,
            head: [0; HEAD_MAX],
            head_length: 0,
            body: vec![0; TEXT_MAX].into_boxed_slice(),
            body_length: 0,
            sent: 0,
        }
    }

    fn open(&mut self, stream: TcpStream) {
        self.stream = Some(stream);
        self.doing = Doing::Reading;
        self.since = Instant::now();
        self.received = 0;
        self.sent = 0;
    }

    /// Receives bytes; returns whether the request is whole, or an error if it never will be.
    fn receive(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let count = stream.read(&mut self.request[self.received..])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received += count;
        Ok(has_empty_line(&self.request[..self.received]) || self.received == REQUEST_MAX)
    }

    /// Sends some of the response; returns whether that was all of it.
    fn send(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(true) };
        let rest = match self.sent.checked_sub(self.head_length) {
            None => &self.head[self.sent..self.head_length],
            Some(sent) => &self.body[sent..self.body_length],
        };
        self.sent += stream.write(rest)?;
        Ok(self.sent == self.head_length + self.body_length)
    }

    /// Writes the response to the request that has arrived into the buffers.
    fn answer(&mut self, metrics: &Metrics) {
        let mut body = Text::new(&mut self.body);
        let response = respond(&self.request[..self.received], metrics, &mut body);
        let length = body.len();
        let mut head = Text::new(&mut self.head);
        let written = write!(
            head,
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n",
            response.status, response.content_type
        );
        assert!(written.is_ok(), "the head of a response is short");
        self.head_length = head.len();
        self.body_length = if response.has_body { length } else { 0 };
        self.doing = Doing::Writing;
    }
}

/// Whether an empty line ends the headers. A line may also end with a bare line feed.
fn has_empty_line(request: &[u8]) -> bool {
    let mut lines = request.split(|byte| *byte == b'\n');
    // The last part is a line that has not ended; the first one is the request itself.
    lines.next_back();
    lines.skip(1).any(|line| line.is_empty() || line == b"\r")
}

/// Answers a request: writes the body, and returns the rest.
fn respond(request: &[u8], metrics: &Metrics, body: &mut Text<'_>) -> Response {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let whole = matches!(parsed.parse(request), Ok(httparse::Status::Complete(_)));
    let (Some(method), Some(path), true) = (parsed.method, parsed.path, whole) else {
        return plain(
            "400 Bad Request",
            "this is not a valid HTTP request, or it is larger than 4096 bytes",
            body,
        );
    };
    if method != "GET" && method != "HEAD" {
        return plain("405 Method Not Allowed", "GET or HEAD only", body);
    }
    let path = path.split('?').next().unwrap_or(path);
    let mut response = match path {
        "/metrics" => {
            let written = write_all(metrics, body);
            assert!(written.is_ok(), "there is room for all metrics");
            Response { status: "200 OK", has_body: true, content_type: PLAIN }
        }
        "/healthz" => health(metrics, body),
        "/readyz" => answer_ready(metrics, wants_json(parsed.headers), body),
        "/" => plain("200 OK", "florin: /metrics /healthz /readyz", body),
        _ => plain("404 Not Found", "there are /metrics, /healthz and /readyz", body),
    };
    response.has_body = method == "GET";
    response
}

fn plain(status: &'static str, line: &str, body: &mut Text<'_>) -> Response {
    let written = writeln!(body, "{line}");
    assert!(written.is_ok(), "there is room for a line");
    Response { status, has_body: true, content_type: PLAIN }
}

const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const UNAVAILABLE: &str = "503 Service Unavailable";

/// Answers `/readyz`, from one judgement.
fn answer_ready(metrics: &Metrics, json: bool, body: &mut Text<'_>) -> Response {
    let readiness = Readiness::of(metrics);
    let written = if json {
        readiness.write_json(metrics, body)
    } else {
        readiness.write_plain(metrics, body)
    };
    assert!(written.is_ok(), "there is room for a reason");
    let status = if readiness.verdict == Verdict::Ready { "200 OK" } else { UNAVAILABLE };
    let content_type = if json { JSON } else { PLAIN };
    Response { status, has_body: true, content_type }
}

/// Whether the client asks for JSON.
fn wants_json(headers: &[httparse::Header<'_>]) -> bool {
    headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("accept")
            && std::str::from_utf8(header.value).is_ok_and(|it| it.contains("application/json"))
    })
}

/// Answers `/healthz`: whether the serving thread turns.
fn health(metrics: &Metrics, body: &mut Text<'_>) -> Response {
    let age_ns = metrics.get(Metric::LoopAge, 0).unwrap_or(0).unsigned_abs();
    if age_ns <= AGE_MAX_NS {
        return plain("200 OK", "ok", body);
    }
    let written = writeln!(
        body,
        "the serving thread has not turned for {} seconds: the machine or its disk hangs",
        age_ns / 1_000_000_000
    );
    assert!(written.is_ok(), "there is room for a line");
    Response { status: UNAVAILABLE, has_body: true, content_type: PLAIN }
}

/// Files with the kernel's facts about the process.
#[derive(Debug)]
struct ProcessFiles {
    /// Memory in pages: all, resident.
    memory: Option<File>,
    data_file: Option<File>,
}

impl ProcessFiles {
    fn new(data_file: Option<File>) -> ProcessFiles {
        // Not frozen: opened before the thread is started.
        ProcessFiles { memory: File::open("/proc/self/statm").ok(), data_file }
    }

    /// Publishes facts that the serving thread does not know.
    fn publish(&self, metrics: &Metrics) {
        metrics.set(Metric::CpuSeconds, cpu_ns());
        if let Some(pages) = self.resident_pages() {
            metrics.set(Metric::MemoryResident, pages * PAGE_SIZE);
        }
        let Some(file) = &self.data_file else { return };
        if let Ok(space) = file_system_space(file.as_fd()) {
            metrics.set(Metric::FileSystemFree, space.free_bytes);
        }
        if let Ok(about) = file.metadata() {
            metrics.set(Metric::FileBytes, about.len());
        }
    }

    fn resident_pages(&self) -> Option<u64> {
        let mut bytes = [0; 128];
        let count = self.memory.as_ref()?.read_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(&bytes[..count]).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse().ok()
    }
}

/// The state of the thread.
struct HttpServer {
    listener: Option<TcpListener>,
    connections: Box<[Connection]>,
    statsd: Option<StatsD>,
    statsd_next: Instant,
    process: ProcessFiles,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl HttpServer {
    /// Waits for events, and handles them.
    fn turn(&mut self) {
        let mut waiting = [WAITED_NONE; CONNECTIONS_MAX + 1];
        if let Some(listener) = &self.listener {
            waiting[CONNECTIONS_MAX] = waited(listener.as_fd(), false);
        }
        for (place, connection) in waiting.iter_mut().zip(&self.connections) {
            if let Some(stream) = &connection.stream {
                *place = waited(stream.as_fd(), connection.doing == Doing::Writing);
            }
        }
        if wait(&mut waiting, PAUSE_MS).is_err() {
            std::thread::sleep(Duration::from_millis(PAUSE_MS.unsigned_abs().into()));
        }
        self.serve(&waiting);
        if waiting[CONNECTIONS_MAX].revents != 0 {
            self.accept();
        }
        let now = Instant::now();
        if self.statsd.is_some() && now >= self.statsd_next {
            self.statsd_next = now + STATSD_TIME;
            self.refresh();
            if let Some(statsd) = &mut self.statsd {
                statsd.send(&self.metrics);
            }
        }
    }

    /// Publishes the metrics that the serving thread does not publish itself.
    fn refresh(&self) {
        self.process.publish(&self.metrics);
        let now_ns = self.clock.monotonic_ns();
        let turned_ns = self.metrics.turned_ns.load(Ordering::Relaxed);
        self.metrics.set(Metric::LoopAge, now_ns.saturating_sub(turned_ns));
    }

    /// Continues connections with events, and ends those that take too long.
    fn serve(&mut self, waiting: &[Waited]) {
        for (index, place) in waiting.iter().enumerate().take(CONNECTIONS_MAX) {
            if self.connections[index].stream.is_none() {
                continue;
            }
            let late = self.connections[index].since.elapsed() > CONNECTION_TIME;
            if late {
                self.refuse(index);
            } else if place.revents != 0 {
                self.proceed(index);
            }
        }
    }

    /// Receives or sends some bytes of a connection.
    fn proceed(&mut self, index: usize) {
        let reading = self.connections[index].doing == Doing::Reading;
        let connection = &mut self.connections[index];
        let result = if reading { connection.receive() } else { connection.send() };
        match result {
            Ok(false) => {}
            Ok(true) if reading => {
                self.refresh();
                self.connections[index].answer(&self.metrics);
            }
            Ok(true) => {
                self.connections[index].stream = None;
                self.metrics.add(Metric::MetricsRequests, 1);
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                _ => self.refuse(index),
            },
        }
    }

    fn refuse(&mut self, index: usize) {
        self.connections[index].stream = None;
        self.metrics.add(Metric::MetricsRefused, 1);
    }

    /// Accepts connections that wait; the oldest ones make way.
    fn accept(&mut self) {
        for _ in 0..CONNECTIONS_MAX {
            let Some(listener) = &self.listener else { return };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, the connection stays and so does the event: without a
                    // pause this thread would spin until one is free.
                    if error.kind() != io::ErrorKind::WouldBlock {
                        std::thread::sleep(Duration::from_millis(PAUSE_MS.unsigned_abs().into()));
                    }
                    return;
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let free = self.connections.iter().position(|it| it.stream.is_none());
            let index = free.unwrap_or_else(|| {
                let oldest = self.connections.iter().enumerate().min_by_key(|(_, it)| it.since);
                oldest.expect("there are places").0
            });
            if free.is_none() {
                self.refuse(index);
            }
            self.connections[index].open(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::super::text::tests::parse;
    use super::*;
    use crate::vsr::{Standing, Unready};

    fn endpoint() -> (Endpoint, SocketAddr, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new(Identity::default()));
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let file = File::open(std::env::current_exe().unwrap()).ok();
        let options = EndpointOptions { listen, statsd: None, file };
        let endpoint = Endpoint::start(options, Arc::clone(&metrics), Clock::new()).unwrap();
        let address = endpoint.address().unwrap();
        (endpoint, address, metrics)
    }

    /// Sends bytes and reads until the end: status line, head and body.
    fn ask(address: SocketAddr, request: &str) -> (String, String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
        (status.to_owned(), head.to_owned(), body.to_owned())
    }

    fn get(address: SocketAddr, path: &str) -> (String, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n");
        let (status, head, body) = ask(address, &request);
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        (status, body)
    }

    /// Goal: metrics are all there, with what the thread itself asks the kernel for.
    #[test]
    fn metrics() {
        let (_endpoint, address, metrics) = endpoint();
        metrics.set(Metric::View, 12);
        let (status, body) = get(address, "/metrics?name=x");
        assert_eq!(status, "200 OK");
        let samples = parse(&body);
        let is = |name: &str, least: f64| assert!(samples[name] >= least, "{name}");
        is("florin_view", 12.0);
        is("florin_memory_resident_bytes", 65_536.0);
        is("florin_cpu_seconds_total", 0.000_001);
        is("florin_data_file_bytes", 65_536.0);
        is("florin_file_system_free_bytes", 1.0);
    }

    /// Goal: healthy while the loop turns; ready while there is no reason against it, otherwise 503
    /// with the reason, as a line or as JSON.
    #[test]
    fn health_and_readiness() {
        let (_endpoint, address, metrics) = endpoint();
        assert_eq!(get(address, "/healthz"), ("200 OK".to_owned(), "ok\n".to_owned()));
        let (status, body) = get(address, "/readyz");
        assert_eq!(status, UNAVAILABLE);
        assert!(body.starts_with("opening: "), "{body}");
        metrics.set_state(Standing::Backup, Some(Unready::Syncing));
        let (status, body) = get(address, "/readyz");
        assert_eq!((status.as_str(), body.lines().count()), (UNAVAILABLE, 1));
        assert!(body.starts_with("syncing: "), "{body}");
        let request = "GET /readyz HTTP/1.1\r\nAccept: application/json\r\n\r\n";
        let (status, head, body) = ask(address, request);
        assert_eq!(status, UNAVAILABLE);
        assert!(head.contains("Content-Type: application/json"), "{head}");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&value["ready"], &value["reason"]), (&false.into(), &"syncing".into()));
        metrics.set_state(Standing::Backup, None);
        assert_eq!(get(address, "/readyz"), ("200 OK".to_owned(), "backup\n".to_owned()));
    }

    /// Goal: a serving thread that has not turned for five seconds is not healthy. The endpoint
    /// measures the age anew for each request, so the answer is asked of the pure function.
    #[test]
    fn hung() {
        let (_endpoint, _, metrics) = endpoint();
        for (age_ns, status, text) in [
            (AGE_MAX_NS, "200 OK", "ok\n"),
            (AGE_MAX_NS + 1, UNAVAILABLE, "the serving thread has not turned for 5 seconds: "),
        ] {
            metrics.set(Metric::LoopAge, age_ns);
            let mut buffer = [0; 256];
            let response = health(&metrics, &mut Text::new(&mut buffer));
            assert_eq!(response.status, status);
            assert!(buffer.starts_with(text.as_bytes()), "{:?}", String::from_utf8_lossy(&buffer));
        }
    }

    /// Goal: other methods and paths are refused, HEAD has no body, and nonsense is answered.
    #[test]
    fn refusals() {
        let (_endpoint, address, _) = endpoint();
        assert_eq!(get(address, "/").0, "200 OK");
        assert_eq!(get(address, "/secret").0, "404 Not Found");
        let post = ask(address, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(post.0, "405 Method Not Allowed");
        let head = ask(address, "HEAD /healthz HTTP/1.0\r\n\r\n");
        assert_eq!((head.0.as_str(), head.2.as_str()), ("200 OK", ""));
        assert_eq!(ask(address, "\u{1}\u{2} nonsense\r\n\r\n").0, "400 Bad Request");
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(ask(address, &many).0, "400 Bad Request");
        let long = format!("GET /{}", "a".repeat(REQUEST_MAX - 5));
        assert_eq!(ask(address, &long).0, "400 Bad Request");
        // Lines that end with a bare line feed.
        assert_eq!(ask(address, "GET /metrics\n\n").0, "400 Bad Request");
        assert_eq!(ask(address, "GET /healthz HTTP/1.1\nHost: x\n\r\n").0, "200 OK");
    }

    /// Goal: a request is whole at the first empty line behind it, and not before.
    #[test]
    fn empty_lines() {
        for (request, is_whole) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET /\n\n", true),
            ("GET /\r\na: b\n\r\nx", true),
            ("GET /\r\n\r", false),
            ("GET /\r\n", false),
            ("\r\nGET /", false),
            ("", false),
        ] {
            assert_eq!(has_empty_line(request.as_bytes()), is_whole, "{request:?}");
        }
    }

    /// Goal: silent connections, however many, do not prevent an answer to another one.
    #[test]
    fn silent_connections() {
        let (_endpoint, address, metrics) = endpoint();
        let silent: Vec<TcpStream> =
            (0..3 * CONNECTIONS_MAX).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(get(address, "/healthz").0, "200 OK");
        assert!(metrics.get(Metric::MetricsRefused, 0).unwrap() > 0);
        drop(silent);
    }

    /// Goal: an address that is taken is named.
    #[test]
    fn taken() {
        let (_endpoint, address, metrics) = endpoint();
        let options = EndpointOptions { listen: Some(address), ..EndpointOptions::default() };
        let error = Endpoint::start(options, metrics, Clock::new()).unwrap_err().to_string();
        assert!(error.contains(&format!("--metrics: cannot listen on {address}")), "{error}");
    }
}
