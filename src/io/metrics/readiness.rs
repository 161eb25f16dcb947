//! What `/readyz` answers: whether the replica serves, and if not, the reason in one line.
//!
//! Formats what the serving thread has published; judges only whether that is recent. Not covered:
//! the judgement itself, see `vsr::readiness`.

use std::fmt::{self, Write};

use super::Metrics;
use super::catalogue::{Label, Metric, Unit};
use super::text::{Text, Value};
use crate::vsr::{Standing, Unready};

/// What the serving thread has published is not relied on if it has not turned for so long.
const PUBLISHED_MAX_NS: u64 = 1_500_000_000;

/// Whether a replica serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Ready,
    /// It does not, for this reason.
    Unready(Unready),
    /// Its serving thread has not turned for this many nanoseconds.
    Hung(u64),
}

/// Whether the replica serves.
#[must_use]
pub fn verdict(metrics: &Metrics) -> Verdict {
    let age_ns = metrics.get(Metric::LoopAge, 0).unwrap_or(0).unsigned_abs();
    if age_ns > PUBLISHED_MAX_NS {
        return Verdict::Hung(age_ns);
    }
    if metrics.is_set(Metric::Ready) {
        return Verdict::Ready;
    }
    let mut places = 0..Label::Unready.count();
    let place = places.find(|place| metrics.get(Metric::Unready, *place) == Some(1));
    // Before anything was published it is still opening.
    Verdict::Unready(place.map_or(Unready::Opening, |place| Unready::ALL[place]))
}

fn standing(metrics: &Metrics) -> Standing {
    let mut places = 0..Label::Standing.count();
    let place = places.find(|place| metrics.get(Metric::Standing, *place) == Some(1));
    place.map_or(Standing::Opening, |place| Standing::ALL[place])
}

/// The answer as one line.
///
/// # Errors
///
/// If it does not fit.
pub fn write_plain(metrics: &Metrics, out: &mut Text<'_>) -> fmt::Result {
    match verdict(metrics) {
        Verdict::Ready => writeln!(out, "{}", standing(metrics).name()),
        Verdict::Unready(reason) => {
            write!(out, "{}: ", reason.name())?;
            write_reason(metrics, reason, out)?;
            writeln!(out)
        }
        Verdict::Hung(age_ns) => {
            write!(out, "hung: ")?;
            write_hung(age_ns, out)?;
            writeln!(out)
        }
    }
}

/// The answer as a JSON object in one line. No text in it needs to be escaped.
///
/// # Errors
///
/// If it does not fit.
pub fn write_json(metrics: &Metrics, out: &mut Text<'_>) -> fmt::Result {
    let role = standing(metrics).name();
    match verdict(metrics) {
        Verdict::Ready => return writeln!(out, "{{\"ready\":true,\"role\":\"{role}\"}}"),
        Verdict::Unready(reason) => {
            let name = reason.name();
            write!(out, "{{\"ready\":false,\"role\":\"{role}\",\"reason\":\"{name}\",\"text\":\"")?;
            write_reason(metrics, reason, out)?;
        }
        Verdict::Hung(age_ns) => {
            write!(out, "{{\"ready\":false,\"role\":\"{role}\",\"reason\":\"hung\",\"text\":\"")?;
            write_hung(age_ns, out)?;
        }
    }
    writeln!(out, "\"}}")
}

fn write_hung(age_ns: u64, out: &mut Text<'_>) -> fmt::Result {
    write!(out, "the serving thread has not turned for {}", Seconds(age_ns))
}

/// Writes a reason with the numbers that belong to it, as they were published last.
///
/// # Errors
///
/// If it does not fit.
pub fn write_reason(metrics: &Metrics, reason: Unready, out: &mut Text<'_>) -> fmt::Result {
    out.write_str(reason.text())?;
    match reason {
        Unready::NoQuorum | Unready::NoPrimary | Unready::Unheard => write_contacts(metrics, out),
        Unready::WaitsForDisk | Unready::StandsStill => {
            let still_ns = metrics.get(Metric::StillFor, 0).unwrap_or(0).unsigned_abs();
            write!(out, " for {}", Seconds(still_ns))
        }
        Unready::Behind | Unready::TooFarBehind => {
            let op = |metric| metrics.get(metric, 0).unwrap_or(0);
            write!(out, ": op {} of {}", op(Metric::Commit), op(Metric::CommitMax))
        }
        _ => Ok(()),
    }
}

/// When each other replica was heard, and when it has answered.
fn write_contacts(metrics: &Metrics, out: &mut Text<'_>) -> fmt::Result {
    let identity = &metrics.identity;
    let mut mark = ':';
    for replica in (0..identity.replica_count).filter(|replica| *replica != identity.replica) {
        let age = |metric| Age(metrics.get(metric, replica.into()));
        let (heard, answered) = (age(Metric::ReplicaSilence), age(Metric::ReplicaUnanswered));
        write!(out, "{mark} replica {replica} heard {heard}, answered {answered}")?;
        mark = ';';
    }
    let nodes = 0..Label::Replica.count();
    let dials = nodes.into_iter().any(|it| metrics.get(Metric::ReplicaConnected, it) == Some(1));
    if dials && metrics.get(Metric::ReplicaInbound, 0) == Some(0) {
        write!(
            out,
            "; connections to others stand, but no other replica connects here: another process \
             serves replica {} at the address in their lists, or the way to this one is blocked",
            identity.replica
        )?;
    }
    Ok(())
}

/// A duration, to a tenth of a second.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths_ns = i64::try_from(self.0 / 100_000_000 * 100_000_000).unwrap_or(i64::MAX);
        write!(formatter, "{} s", Value(tenths_ns, Unit::Seconds))
    }
}

/// How long ago something was last.
struct Age(Option<i64>);

impl fmt::Display for Age {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => formatter.write_str("never"),
            Some(age_ns) => write!(formatter, "{} ago", Seconds(age_ns.unsigned_abs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::metrics::Identity;
    use crate::io::metrics::publish::publish_replica;
    use crate::vsr::Report;
    use crate::vsr::report::tests::report;

    fn metrics(report: &Report) -> Metrics {
        let metrics = Metrics::new(Identity { cluster: 7, replica: 0, replica_count: 3 });
        publish_replica(report, &metrics);
        metrics
    }

    fn plain(metrics: &Metrics) -> String {
        let mut buffer = [0; 2048];
        let mut text = Text::new(&mut buffer);
        write_plain(metrics, &mut text).unwrap();
        String::from_utf8(text.bytes().to_vec()).unwrap()
    }

    fn json(metrics: &Metrics) -> serde_json::Value {
        let mut buffer = [0; 2048];
        let mut text = Text::new(&mut buffer);
        write_json(metrics, &mut text).unwrap();
        serde_json::from_slice(text.bytes()).unwrap()
    }

    /// Goal: a reason comes with the numbers that belong to it, and JSON says the same.
    #[test]
    fn numbers() {
        let mut alone = report();
        alone.peers[1].silence_ns = Some(12_340_000_000);
        alone.peers[1].unanswered_ns = Some(12_500_000_000);
        (alone.peers[2].silence_ns, alone.peers[2].unanswered_ns) = (None, None);
        let alone = metrics(&alone);
        assert_eq!(
            plain(&alone),
            "no_quorum: too few of the other replicas are in contact for a quorum: replica 1 heard \
             12.3 s ago, answered 12.5 s ago; replica 2 heard never, answered never\n"
        );
        assert_eq!(json(&alone)["reason"], "no_quorum");
        alone.set_at(Metric::ReplicaConnected, 1, 1);
        assert!(plain(&alone).contains("no other replica connects here"));
        let reading = Report { still_ns: 3_210_000_000, awaits_disk: true, ..report() };
        assert!(plain(&metrics(&reading)).ends_with("stands still for 3.2 s\n"));
        let behind = Report { behind_ns: u64::MAX / 4, commit: 20, commit_max: 400, ..report() };
        assert!(plain(&metrics(&behind)).ends_with("have committed: op 20 of 400\n"));
        assert_eq!(plain(&metrics(&report())), "primary\n");
        assert_eq!(json(&metrics(&report()))["ready"], true);
    }

    /// Goal: what was published long ago is not relied on.
    #[test]
    fn old_news() {
        let metrics = metrics(&report());
        metrics.set(Metric::LoopAge, PUBLISHED_MAX_NS + 1);
        assert_eq!(plain(&metrics), "hung: the serving thread has not turned for 1.5 s\n");
        assert_eq!(json(&metrics)["reason"], "hung");
    }
}
