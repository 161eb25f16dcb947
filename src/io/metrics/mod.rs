//! Metrics: numbers that the serving thread publishes, and their readers.
//!
//! [`Metrics`] is a fixed array of numbers. The serving thread alone writes it, with plain stores,
//! while it works; [`endpoint`] reads it on a thread of its own and answers Prometheus, health
//! checks and StatsD. So no client, however slow or hostile, can hold up the server, and nothing
//! allocates. Numbers are read one by one: two of them may be some microseconds apart.
//! Not covered: what the numbers mean ([`catalogue`] says it), how they come about (the core).

pub mod catalogue;
pub mod endpoint;
pub mod publish;
pub mod readiness;
pub mod statsd;
pub mod text;

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::protocol::to_index;
use crate::storage::DiskKind;
use crate::vsr::{Stage, Standing, Unready};
use catalogue::{BUCKET_BOUNDS_NS, DEFINITIONS, HISTOGRAM_VALUES, Kind, Label, Metric};

/// The mark of a value that is absent.
const ABSENT: u64 = 1 << 63;

/// The identity of a server: the same for all its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u128,
    /// Index of the replica.
    pub replica: u8,
    /// Replicas that vote.
    pub replica_count: u8,
}

/// The numbers. See the module.
#[derive(Debug)]
pub struct Metrics {
    /// The server that publishes them.
    pub identity: Identity,
    /// Time of the last turn of the serving thread's loop, by its monotonic clock in nanoseconds.
    pub turned_ns: AtomicU64,
    /// Standing and readiness in one value, so that no reader sees half of a change.
    state: AtomicU16,
    values: Box<[AtomicU64]>,
    /// Where the values of each metric begin.
    starts: [u16; DEFINITIONS.len()],
}

/// Values of a metric.
const fn places(metric: usize) -> usize {
    let definition = &DEFINITIONS[metric];
    match definition.kind {
        Kind::Histogram => definition.label.count() * HISTOGRAM_VALUES,
        Kind::Counter | Kind::Gauge => definition.label.count(),
    }
}

impl Metrics {
    /// All zero; the values of other replicas are absent, and so is the clock.
    ///
    /// # Panics
    ///
    /// Never: there are some hundred values.
    #[must_use]
    pub fn new(identity: Identity) -> Metrics {
        let mut starts = [0; DEFINITIONS.len()];
        let mut count = 0;
        for (metric, start) in starts.iter_mut().enumerate() {
            *start = u16::try_from(count).expect("there are some hundred values");
            count += places(metric);
        }
        let values = (0..count).map(|_| AtomicU64::new(0)).collect();
        let (turned_ns, state) = (AtomicU64::new(0), AtomicU16::new(0));
        let metrics = Metrics { identity, turned_ns, state, values, starts };
        metrics.set_state(Standing::Opening, Some(Unready::Opening));
        for metric in Metric::ALL {
            if metric.definition().label == Label::Replica {
                for place in 0..Label::Replica.count() {
                    metrics.forget(*metric, place);
                }
            }
        }
        metrics.forget(Metric::ClockOffset, 0);
        metrics.forget(Metric::ClockError, 0);
        metrics
    }

    /// Bytes that the numbers occupy.
    ///
    /// # Panics
    ///
    /// Never: they are few.
    #[must_use]
    pub fn memory_bytes() -> u64 {
        let count: usize = (0..DEFINITIONS.len()).map(places).sum();
        u64::try_from(count * size_of::<AtomicU64>()).expect("64 bits")
    }

    fn slot(&self, metric: Metric, place: usize) -> &AtomicU64 {
        assert!(place < places(metric.index()));
        &self.values[usize::from(self.starts[metric.index()]) + place]
    }

    /// Sets a metric of one value.
    pub fn set(&self, metric: Metric, value: u64) {
        self.set_at(metric, 0, value);
    }

    /// Sets a value.
    ///
    /// # Panics
    ///
    /// If the metric has no such place.
    pub fn set_at(&self, metric: Metric, place: usize, value: u64) {
        self.slot(metric, place).store(value.min(ABSENT - 1), Ordering::Relaxed);
    }

    /// Sets a gauge that may be negative.
    pub fn set_signed(&self, metric: Metric, value: i64) {
        self.slot(metric, 0).store(value.max(i64::MIN + 1).cast_unsigned(), Ordering::Relaxed);
    }

    /// Makes a value absent.
    pub fn forget(&self, metric: Metric, place: usize) {
        self.slot(metric, place).store(ABSENT, Ordering::Relaxed);
    }

    /// Publishes the standing of the replica, and why it is not ready, if it is not.
    pub fn set_state(&self, standing: Standing, unready: Option<Unready>) {
        let number = unready.map_or(0, |reason| reason as u8);
        for (place, other) in Standing::ALL.iter().enumerate() {
            self.set_at(Metric::Standing, place, (*other == standing).into());
        }
        for (place, reason) in Unready::ALL.iter().enumerate() {
            self.set_at(Metric::Unready, place, (unready == Some(*reason)).into());
        }
        self.set(Metric::Ready, unready.is_none().into());
        // With the numbers that were published before it.
        self.state.store(u16::from_be_bytes([standing as u8, number]), Ordering::Release);
    }

    /// Returns the state that was published last; at first the replica is opening.
    ///
    /// # Panics
    ///
    /// Never: standings are numbered in order.
    #[must_use]
    pub fn state(&self) -> (Standing, Option<Unready>) {
        let [standing, number] = self.state.load(Ordering::Acquire).to_be_bytes();
        (Standing::ALL[usize::from(standing)], Unready::from_number(number))
    }

    /// Adds to a counter. Only one thread may write to it.
    pub fn add(&self, metric: Metric, value: u64) {
        let slot = self.slot(metric, 0);
        slot.store(slot.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
    }

    /// A value; `None` if it is absent.
    ///
    /// # Panics
    ///
    /// If the metric has no such place.
    #[must_use]
    pub fn get(&self, metric: Metric, place: usize) -> Option<i64> {
        let value = self.slot(metric, place).load(Ordering::Relaxed);
        (value != ABSENT).then(|| value.cast_signed())
    }

    /// Whether a metric that is a flag is set.
    #[must_use]
    pub fn is_set(&self, metric: Metric) -> bool {
        self.get(metric, 0).is_some_and(|value| value != 0)
    }

    /// Records the duration of a stage of the work.
    pub fn record_stage(&self, stage: Stage, duration_ns: u64) {
        self.record(Metric::StageSeconds, stage as usize, duration_ns);
    }

    /// Records the duration of a request of the disk.
    pub fn record_disk(&self, kind: DiskKind, duration_ns: u64) {
        let place = kind as usize;
        self.record(Metric::DiskSeconds, place, duration_ns);
        let longest = self.slot(Metric::DiskLongest, place);
        let value = duration_ns.min(ABSENT - 1).max(longest.load(Ordering::Relaxed));
        longest.store(value, Ordering::Relaxed);
    }

    /// Records a duration. Every one has a bucket.
    fn record(&self, metric: Metric, place: usize, duration_ns: u64) {
        let first = place * HISTOGRAM_VALUES;
        let bucket = BUCKET_BOUNDS_NS.partition_point(|bound| *bound < duration_ns);
        for (place, value) in [(bucket, 1), (HISTOGRAM_VALUES - 1, duration_ns)] {
            let slot = self.slot(metric, first + place);
            slot.store(slot.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
        }
    }

    /// The values of one of a metric's histograms: buckets, one for what is larger, and the sum.
    #[must_use]
    pub fn histogram(&self, metric: Metric, place: usize) -> [u64; HISTOGRAM_VALUES] {
        let first = place * HISTOGRAM_VALUES;
        std::array::from_fn(|value| self.slot(metric, first + value).load(Ordering::Relaxed))
    }

    /// All values in one row, for a reader that keeps older ones beside them.
    #[must_use]
    pub fn values(&self) -> &[AtomicU64] {
        &self.values
    }

    /// Where the values of a metric begin in that row.
    #[must_use]
    pub fn start(&self, metric: Metric) -> usize {
        to_index(self.starts[metric.index()].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: values come back, also negative and absent ones, and each metric has its own.
    #[test]
    fn values() {
        let metrics = Metrics::new(Identity::default());
        for (index, metric) in (1_u64..).zip(Metric::ALL) {
            if metric.definition().kind != Kind::Histogram {
                metrics.set(*metric, index);
            }
        }
        for (index, metric) in (1_i64..).zip(Metric::ALL) {
            if metric.definition().kind != Kind::Histogram {
                assert_eq!(metrics.get(*metric, 0), Some(index));
            }
        }
        metrics.set_signed(Metric::ClockOffset, -5);
        assert_eq!(metrics.get(Metric::ClockOffset, 0), Some(-5));
        metrics.forget(Metric::ClockOffset, 0);
        assert_eq!(metrics.get(Metric::ClockOffset, 0), None);
        assert_eq!(metrics.get(Metric::ReplicaLag, 3), None);
        metrics.add(Metric::Op, 7);
        assert!(metrics.is_set(Metric::Op));
        metrics.set(Metric::Op, u64::MAX);
        assert_eq!(metrics.get(Metric::Op, 0), Some(i64::MAX));
    }

    /// Goal: every standing and every reason comes back, and the metrics say the same.
    #[test]
    fn states() {
        let metrics = Metrics::new(Identity::default());
        assert_eq!(metrics.state(), (Standing::Opening, Some(Unready::Opening)));
        assert_eq!(metrics.get(Metric::Unready, 0), Some(1));
        let reasons = Unready::ALL.into_iter().map(Some).chain([None]);
        for unready in reasons {
            for standing in Standing::ALL {
                metrics.set_state(standing, unready);
                assert_eq!(metrics.state(), (standing, unready));
                assert_eq!(metrics.is_set(Metric::Ready), unready.is_none());
            }
        }
    }

    /// Goal: a duration goes into the first bucket that is not below it, and into the sum.
    #[test]
    fn histograms() {
        let metrics = Metrics::new(Identity::default());
        for duration_ns in [0, 10_000, 10_001, u64::MAX / 4] {
            metrics.record_stage(Stage::Reply, duration_ns);
        }
        let histogram = metrics.histogram(Metric::StageSeconds, Stage::Reply as usize);
        assert_eq!((histogram[0], histogram[1]), (2, 1));
        assert_eq!(histogram[BUCKET_BOUNDS_NS.len()], 1);
        assert_eq!(histogram[HISTOGRAM_VALUES - 1], 20_001 + u64::MAX / 4);
        let other = metrics.histogram(Metric::StageSeconds, Stage::Queue as usize);
        assert_eq!(other, [0; HISTOGRAM_VALUES]);
    }

    /// Goal: each kind of request of the disk has its own histogram and its slowest request.
    #[test]
    fn slowest_request() {
        let metrics = Metrics::new(Identity::default());
        for duration_ns in [100, 300_000_000, 200] {
            metrics.record_disk(DiskKind::WriteDurable, duration_ns);
        }
        metrics.record_disk(DiskKind::Sync, u64::MAX);
        let longest = |kind| metrics.get(Metric::DiskLongest, kind as usize);
        assert_eq!(longest(DiskKind::WriteDurable), Some(300_000_000));
        assert_eq!((longest(DiskKind::Sync), longest(DiskKind::Read)), (Some(i64::MAX), Some(0)));
        let histogram = metrics.histogram(Metric::DiskSeconds, DiskKind::WriteDurable as usize);
        assert_eq!((histogram[0], histogram[HISTOGRAM_VALUES - 1]), (2, 300_000_300));
        for (place, kind) in DiskKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
