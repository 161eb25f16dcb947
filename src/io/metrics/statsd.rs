//! Metrics for StatsD: datagrams of lines, counters as what was added since the last time.
//!
//! The lines have tags (`|#cluster:7,replica:0`), as Datadog, Telegraf, Vector and others read
//! them. Histograms go out as two counters, the number of durations and their sum in microseconds.
//! Nobody answers: what is lost is lost. Not covered: when to send.

use std::fmt::{self, Write};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;

use super::Metrics;
use super::catalogue::{HISTOGRAM_VALUES, Kind, LabelValue, Metric};
use super::text::{Text, Value};

/// Bytes of a datagram at most: they must not be split on their way.
const DATAGRAM_MAX: usize = 1432;
/// Prefix of each name.
const PREFIX: &str = "florin.";

/// A sender of metrics, and the values of counters that it has sent.
#[derive(Debug)]
pub struct StatsD {
    socket: UdpSocket,
    values: Values,
    buffer: Box<[u8; DATAGRAM_MAX]>,
}

/// All values as they are, and as they were when they were sent last.
#[derive(Debug)]
struct Values {
    now: Box<[u64]>,
    before: Box<[u64]>,
}

impl Values {
    /// The growth of a counter.
    fn added(&self, index: usize) -> u64 {
        self.now[index].wrapping_sub(self.before[index])
    }
}

impl StatsD {
    /// Sends to this address.
    ///
    /// # Errors
    ///
    /// If the system refuses a socket.
    pub fn new(address: SocketAddr, metrics: &Metrics) -> io::Result<StatsD> {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        let zeros = || vec![0; metrics.values().len()].into_boxed_slice();
        let values = Values { now: zeros(), before: zeros() };
        Ok(StatsD { socket, values, buffer: Box::new([0; DATAGRAM_MAX]) })
    }

    /// Sends all metrics once.
    ///
    /// # Panics
    ///
    /// If a line does not fit a datagram, which a test excludes.
    pub fn send(&mut self, metrics: &Metrics) {
        let StatsD { socket, values, buffer } = self;
        for (copy, value) in values.now.iter_mut().zip(metrics.values()) {
            *copy = value.load(Ordering::Relaxed);
        }
        let mut text = Text::new(buffer.as_mut_slice());
        for metric in Metric::ALL {
            for place in 0..metric.definition().label.count() {
                let whole = text.len();
                if write_lines(metrics, values, *metric, place, &mut text).is_err() {
                    text.truncate(whole);
                    // The thread does not wait for a receiver that is missing or slow.
                    let _ = socket.send(text.bytes());
                    text.truncate(0);
                    let again = write_lines(metrics, values, *metric, place, &mut text);
                    assert!(again.is_ok(), "the lines of a value fit a datagram");
                }
            }
        }
        let _ = socket.send(text.bytes());
        std::mem::swap(&mut values.now, &mut values.before);
    }
}

/// Writes the lines of one value; nothing of a counter that did not grow.
fn write_lines(
    metrics: &Metrics,
    values: &Values,
    metric: Metric,
    place: usize,
    text: &mut Text<'_>,
) -> fmt::Result {
    let definition = metric.definition();
    let label = definition.label.value(place);
    if label == LabelValue::None && definition.label.count() > 1 {
        return Ok(());
    }
    let name = definition.name.trim_end_matches("_total");
    let start = metrics.start(metric);
    let mut line = |name: &str, part: &str, value: &dyn fmt::Display, kind: &str| {
        write!(text, "{PREFIX}{name}{part}:{value}|{kind}")?;
        write_tags(metrics, metric, label, text)
    };
    match definition.kind {
        Kind::Gauge => {
            let Some(value) = metrics.get(metric, place) else { return Ok(()) };
            if value < 0 {
                // A sign would mean a change of what it was.
                line(name, "", &0, "g")?;
            }
            line(name, "", &Value(value, definition.unit), "g")
        }
        Kind::Counter => match values.added(start + place) {
            0 => Ok(()),
            added => line(name, "", &Value(added.cast_signed(), definition.unit), "c"),
        },
        Kind::Histogram => {
            let first = start + place * HISTOGRAM_VALUES;
            let sum = first + HISTOGRAM_VALUES - 1;
            let counts = (first..sum).map(|index| values.added(index));
            let count = counts.fold(0, u64::wrapping_add);
            if count == 0 {
                return Ok(());
            }
            let name = name.trim_end_matches("_seconds");
            line(name, "_count", &count, "c")?;
            line(name, "_microseconds", &(values.added(sum) / 1000), "c")
        }
    }
}

fn write_tags(
    metrics: &Metrics,
    metric: Metric,
    label: LabelValue,
    text: &mut Text<'_>,
) -> fmt::Result {
    let identity = &metrics.identity;
    write!(text, "|#cluster:{},replica:{}", identity.cluster, identity.replica)?;
    if label == LabelValue::None {
        return writeln!(text);
    }
    // The tag `replica` is taken.
    let name = metric.definition().label.name();
    let name = if name == "replica" { "other" } else { name };
    writeln!(text, ",{name}:{label}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::metrics::Identity;
    use crate::vsr::Stage;
    use std::time::Duration;

    /// All lines of the datagrams that have arrived.
    fn lines(receiver: &UdpSocket) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0; 4_096];
        receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while let Ok(count) = receiver.recv(&mut buffer) {
            assert!(count <= DATAGRAM_MAX);
            let text = std::str::from_utf8(&buffer[..count]).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }

    /// Goal: gauges are sent as they are, counters as what was added, histograms as two counters,
    /// all with tags, in datagrams that fit a network.
    #[test]
    fn datagrams() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let metrics = Metrics::new(Identity { cluster: 7, replica: 2, replica_count: 3 });
        let mut statsd = StatsD::new(receiver.local_addr().unwrap(), &metrics).unwrap();
        metrics.set(Metric::View, 9);
        metrics.set(Metric::Received, 100);
        metrics.set_at(Metric::ReplicaLag, 1, 5);
        metrics.set_signed(Metric::ClockOffset, -1_500_000_000);
        metrics.record_stage(Stage::Log, 2_500_000);
        statsd.send(&metrics);
        let first = lines(&receiver);
        for line in [
            "florin.view:9|g|#cluster:7,replica:2",
            "florin.messages_received:100|c|#cluster:7,replica:2",
            "florin.replica_lag_ops:5|g|#cluster:7,replica:2,other:1",
            "florin.clock_offset_seconds:0|g|#cluster:7,replica:2",
            "florin.clock_offset_seconds:-1.5|g|#cluster:7,replica:2",
            "florin.stage_count:1|c|#cluster:7,replica:2,stage:log",
            "florin.stage_microseconds:2500|c|#cluster:7,replica:2,stage:log",
        ] {
            assert_eq!(first.iter().filter(|it| *it == line).count(), 1, "{line}: {first:?}");
        }
        metrics.set(Metric::Received, 130);
        statsd.send(&metrics);
        let second = lines(&receiver);
        assert!(second.iter().any(|it| it.starts_with("florin.messages_received:30|c")));
        assert!(!second.iter().any(|it| it.starts_with("florin.stage")), "{second:?}");
    }

    /// Goal: the longest lines fit a datagram.
    #[test]
    fn longest() {
        let identity = Identity { cluster: u128::MAX, replica: 255, replica_count: 255 };
        let metrics = Metrics::new(identity);
        for metric in Metric::ALL {
            for value in 0..metrics.values().len() - metrics.start(*metric) {
                metrics.values()[metrics.start(*metric) + value].store(1 << 62, Ordering::Relaxed);
            }
        }
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut statsd = StatsD::new(receiver.local_addr().unwrap(), &metrics).unwrap();
        statsd.send(&metrics);
        assert!(lines(&receiver).len() > Metric::ALL.len());
    }
}
