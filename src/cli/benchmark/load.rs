//! Sends batches over one or more clients as fast as they are answered, and measures.
//!
//! All clients are served by one thread. Each has one request in flight; its next one is made
//! while the server works on that. Latency is from submitting a request to the arrival of its
//! whole reply.

use crate::cli::exit::{ExitClass, Failure};
use crate::client::{ClientError, Poller, Wire};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Longest wait between two looks at the server's health.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for one answer, in nanoseconds.
const ANSWER_DEADLINE_NS: u64 = 120_000_000_000;
/// Longest wait for all sessions to open.
const SESSION_DEADLINE: Duration = Duration::from_secs(30);
/// Maximum latency that is recorded exactly, in microseconds: one hour.
const LATENCY_MAX_US: u64 = 3_600_000_000;
const LATENCY_DIGITS: u8 = 3;

/// Batches to send, one after the other.
pub trait Work {
    /// Number of batches.
    fn batches(&self) -> u64;
    /// Writes and stages a batch on a wire.
    fn stage(&mut self, wire: &mut Wire, batch: u64);
    /// Judges the results of a batch; returns how many events it counts for.
    ///
    /// # Errors
    ///
    /// If they are not the expected ones, which ends the benchmark.
    fn finish(&mut self, batch: u64, results: &[u8]) -> Result<u64, Failure>;
}

/// Measurements of one work.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Sum of what the batches counted for.
    pub events: u64,
    /// Number of batches.
    pub batches: u64,
    /// From the first submission to the last answer, in nanoseconds.
    pub duration_ns: u64,
    /// Latencies of the batches in microseconds.
    pub latency_us: Histogram<u64>,
}

impl Phase {
    /// An empty measurement.
    ///
    /// # Panics
    ///
    /// Never: the bounds are constants that suit the histogram.
    #[must_use]
    pub fn new() -> Phase {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS)
            .expect("the bounds are valid");
        Phase { events: 0, batches: 0, duration_ns: 0, latency_us }
    }

    fn record(&mut self, latency_ns: u64, events: u64) {
        self.events += events;
        self.batches += 1;
        self.latency_us.saturating_record((latency_ns / 1000).max(1));
    }
}

impl Default for Phase {
    fn default() -> Phase {
        Phase::new()
    }
}

/// The state of a client.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    staged: Option<u64>,
    flying: Option<u64>,
    /// When the staged batch may be submitted.
    submit_at_ns: u64,
}

/// Several clients and the time.
pub struct Load<'world> {
    wires: Vec<Wire>,
    poller: Poller,
    delay_ns: u64,
    /// Fails if the server has ended, or the user wants to stop.
    check: &'world mut dyn FnMut() -> Result<(), Failure>,
}

impl<'world> Load<'world> {
    /// A load of these wires, with a pause of every client between a reply and its next request.
    ///
    /// # Panics
    ///
    /// If there are no wires.
    #[must_use]
    pub fn new(
        wires: Vec<Wire>,
        poller: Poller,
        delay_ns: u64,
        check: &'world mut dyn FnMut() -> Result<(), Failure>,
    ) -> Load<'world> {
        assert!(!wires.is_empty());
        Load { wires, poller, delay_ns, check }
    }

    /// Waits until all sessions are open.
    ///
    /// # Errors
    ///
    /// If one of them is refused, or the server cannot be reached.
    pub fn register(&mut self) -> Result<(), Failure> {
        let start_ns = self.poller.now_ns();
        let mut checked_at_ns = start_ns;
        while self.wires.iter().any(|wire| !wire.is_registered()) {
            self.poller.turn(&mut self.wires, CHECK_INTERVAL)?;
            for wire in &self.wires {
                if let Some(Err(error)) = wire.outcome() {
                    return Err(error.into());
                }
            }
            self.look_after(&mut checked_at_ns)?;
            self.check_sessions(start_ns)?;
        }
        Ok(())
    }

    /// Fails if waiting for sessions makes no sense: the cluster is another one, or no replica
    /// answers.
    fn check_sessions(&self, start_ns: u64) -> Result<(), ClientError> {
        let waited = Duration::from_nanos(self.poller.now_ns() - start_ns);
        let is_late = waited >= SESSION_DEADLINE;
        for wire in self.wires.iter().filter(|wire| !wire.is_registered()) {
            match wire.refusal() {
                Some((address, is_everywhere)) if is_everywhere || is_late => {
                    let cluster = wire.cluster();
                    return Err(ClientError::ClusterMismatch { cluster, address });
                }
                Some(_) | None if is_late => {
                    let connection = wire.connection_error();
                    return Err(ClientError::Deadline { waited, request: None, connection });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// The first of the wires, to ask for limits.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wires[0]
    }

    /// Does a work with the first `clients` of the wires; reports each batch's number of events to
    /// `progress`.
    ///
    /// # Errors
    ///
    /// If a client fails, the server ends or the work rejects a result.
    ///
    /// # Panics
    ///
    /// If there are fewer wires.
    pub fn run(
        &mut self,
        work: &mut dyn Work,
        clients: usize,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Phase, Failure> {
        assert!((1..=self.wires.len()).contains(&clients));
        let mut lanes = vec![Lane::default(); clients];
        let mut phase = Phase::new();
        let mut next = 0;
        let batches = work.batches();
        for (lane, wire) in lanes.iter_mut().zip(&mut self.wires) {
            stage_next(work, lane, wire, &mut next, batches);
        }
        let start_ns = self.poller.now_ns();
        let mut checked_at_ns = start_ns;
        while phase.batches < batches {
            let now_ns = self.poller.now_ns();
            let mut wait = CHECK_INTERVAL;
            for (lane, wire) in lanes.iter_mut().zip(&mut self.wires) {
                if let (Some(batch), true) = (lane.staged, wire.is_idle()) {
                    if now_ns < lane.submit_at_ns {
                        wait = wait.min(Duration::from_nanos(lane.submit_at_ns - now_ns));
                        continue;
                    }
                    wire.submit(now_ns);
                    lane.flying = Some(batch);
                    lane.staged = None;
                }
            }
            for (lane, wire) in lanes.iter_mut().zip(&mut self.wires) {
                if lane.staged.is_none() && wire.is_sent() {
                    stage_next(work, lane, wire, &mut next, batches);
                }
            }
            self.poller.turn(&mut self.wires, wait)?;
            self.collect(work, &mut lanes, &mut phase, progress)?;
            self.look_after(&mut checked_at_ns)?;
        }
        phase.duration_ns = self.poller.now_ns() - start_ns;
        assert_eq!(next, batches);
        Ok(phase)
    }

    /// Takes the answers that have arrived.
    fn collect(
        &mut self,
        work: &mut dyn Work,
        lanes: &mut [Lane],
        phase: &mut Phase,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let now_ns = self.poller.now_ns();
        for (lane, wire) in lanes.iter_mut().zip(&mut self.wires) {
            let Some(outcome) = wire.outcome() else {
                continue;
            };
            let reply = outcome?;
            let batch = lane.flying.take().expect("an answer has its request");
            let events = work.finish(batch, reply.results()?)?;
            phase.record(reply.latency_ns, events);
            progress(events);
            wire.finish(now_ns);
            lane.submit_at_ns = now_ns + self.delay_ns;
        }
        Ok(())
    }

    /// Checks from time to time that the server lives and answers.
    fn look_after(&mut self, checked_at_ns: &mut u64) -> Result<(), Failure> {
        let now_ns = self.poller.now_ns();
        if u128::from(now_ns - *checked_at_ns) < CHECK_INTERVAL.as_nanos() {
            return Ok(());
        }
        *checked_at_ns = now_ns;
        (self.check)()?;
        for wire in &self.wires {
            let waited_ns = now_ns - wire.submitted_at_ns();
            if wire.is_waiting() && waited_ns > ANSWER_DEADLINE_NS {
                let waited = Duration::from_nanos(waited_ns);
                let connection = wire.connection_error();
                // The request is not sent again.
                return Err(ClientError::Deadline { waited, request: None, connection }.into());
            }
        }
        Ok(())
    }
}

fn stage_next(work: &mut dyn Work, lane: &mut Lane, wire: &mut Wire, next: &mut u64, end: u64) {
    if *next < end {
        work.stage(wire, *next);
        assert!(wire.is_staged());
        lane.staged = Some(*next);
        *next += 1;
    }
}

/// Returns the failure of a work whose results are not the expected ones.
#[must_use]
pub fn refused(message: String) -> Failure {
    Failure::new(ExitClass::Error, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a phase adds up its batches and keeps microseconds.
    #[test]
    fn phase_records() {
        let mut phase = Phase::new();
        phase.record(1_500_000, 10);
        phase.record(10, 20);
        assert_eq!((phase.events, phase.batches), (30, 2));
        assert_eq!(phase.latency_us.min(), 1);
        assert!(phase.latency_us.max().abs_diff(1500) <= 1);
        phase.record(u64::MAX, 1);
        assert_eq!(phase.latency_us.len(), 3);
    }
}
