//! Logs the leader of the cluster, and the reasons for which this replica cannot follow.
//!
//! A line when the view changes or has begun, and one when the replica starts and ends to fetch a
//! checkpoint, or to recover a lost file; once a minute while it is too far behind for the others'
//! logs, or while no majority of the clocks agrees. Nothing in a cluster of one. Not covered:
//! metrics.

use std::fmt;

use super::log::{Level, write};
use crate::vsr::{ClusterState, Role};

/// Ticks between two looks: a tenth of a second.
const LOOK_TICKS: u64 = 10;
/// Looks between two warnings of a replica that cannot catch up: a minute.
const REPEAT_LOOKS: u64 = 600;
/// Looks without an agreed time before that is logged: five seconds. After a start it takes some.
const TIMELESS_LOOKS: u64 = 50;

/// Decides when to log.
#[derive(Debug, Default)]
pub struct ClusterReport {
    ticks: u64,
    looks: u64,
    logged: Option<(u32, Role)>,
    /// Whether blocks were missing at the last line about that.
    syncing: bool,
    /// Whether the last line about it said that the replica has no vote.
    recovering: bool,
    /// Whether the replica had no vote since the last line about that, if only between two looks.
    was_recovering: bool,
    /// The look from which on another line may report that the replica is too far behind.
    behind_next: u64,
    /// Looks since a majority of the clocks last agreed.
    timeless: u64,
    /// The look from which on another line may report that they do not; none if none has.
    timeless_next: Option<u64>,
}

impl ClusterReport {
    /// Counts a tick, and looks at the state now and then; returns the message to log, if any.
    pub fn tick(&mut self, state: Option<ClusterState>) -> Option<ClusterMessage> {
        self.ticks += 1;
        let state = state?;
        self.was_recovering |= state.recovering;
        if self.ticks.is_multiple_of(LOOK_TICKS) { self.look(state) } else { None }
    }

    fn look(&mut self, state: ClusterState) -> Option<ClusterMessage> {
        self.looks += 1;
        self.was_recovering |= state.recovering;
        self.timeless = if state.clocks_agree { 0 } else { self.timeless + 1 };
        if self.logged != Some((state.view, state.role)) {
            self.logged = Some((state.view, state.role));
            return Some(ClusterMessage::View(state));
        }
        if state.syncing != self.syncing {
            self.syncing = state.syncing;
            return Some(ClusterMessage::Sync(state));
        }
        let recovers = state.recovering && !self.recovering;
        let is_recovered = self.was_recovering && !state.recovering;
        if recovers || is_recovered {
            (self.recovering, self.was_recovering) = (state.recovering, state.recovering);
            return Some(ClusterMessage::Recover(state));
        }
        if state.clocks_agree && self.timeless_next.take().is_some() {
            return Some(ClusterMessage::Timed);
        }
        if self.timeless >= TIMELESS_LOOKS && self.timeless_next.unwrap_or(0) <= self.looks {
            self.timeless_next = Some(self.looks + REPEAT_LOOKS);
            return Some(ClusterMessage::Timeless);
        }
        if !state.too_far_behind || self.looks < self.behind_next {
            return None;
        }
        self.behind_next = self.looks + REPEAT_LOOKS;
        Some(ClusterMessage::Behind(state))
    }
}

/// A message to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterMessage {
    /// The leader.
    View(ClusterState),
    /// Blocks of the checkpoint are being fetched, or all are there.
    Sync(ClusterState),
    /// The file is a new one in place of a lost one, or that is over.
    Recover(ClusterState),
    /// The replica needs what the others' logs no longer have.
    Behind(ClusterState),
    /// No majority of the clocks agrees on a time.
    Timeless,
    /// It does again.
    Timed,
}

impl ClusterMessage {
    /// Logs it.
    pub fn log(&self) {
        let level = match self {
            ClusterMessage::Behind(_) | ClusterMessage::Timeless => Level::Warning,
            ClusterMessage::View(_)
            | ClusterMessage::Sync(_)
            | ClusterMessage::Recover(_)
            | ClusterMessage::Timed => Level::Info,
        };
        write(level, format_args!("{self}"));
    }
}

impl fmt::Display for ClusterMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterMessage::View(state) => {
                let ClusterState { view, primary, .. } = state;
                match state.role {
                    Role::Primary => write!(formatter, "view {view}: this replica is the primary"),
                    Role::Follower => write!(formatter, "view {view}: following replica {primary}"),
                    Role::Changing => {
                        write!(formatter, "view {view}: waiting for replica {primary} to start it")
                    }
                    Role::Recovering if state.recovering => write!(
                        formatter,
                        "the data file was recreated: asking the other replicas for their views; \
                         all but a minority must answer"
                    ),
                    Role::Recovering => write!(
                        formatter,
                        "view {view}: the end of the log is damaged; waiting to learn it from \
                         replica {primary}"
                    ),
                }
            }
            ClusterMessage::Sync(state) if state.syncing => write!(
                formatter,
                "fetching the missing blocks of an installed checkpoint; until it is complete, \
                 the cluster tolerates one failure less"
            ),
            ClusterMessage::Sync(state) => write!(
                formatter,
                "the installed checkpoint is complete; executed op {}, the cluster op {}",
                state.executed, state.committed
            ),
            ClusterMessage::Recover(state) if state.recovering => write!(
                formatter,
                "recovering the lost data file from the other replicas: until it is complete, \
                 this replica has no vote, and the cluster tolerates one failure less"
            ),
            ClusterMessage::Recover(state) => write!(
                formatter,
                "the data file is recovered: this replica votes again; executed op {}, the \
                 cluster op {}",
                state.executed, state.committed
            ),
            ClusterMessage::Timeless => write!(
                formatter,
                "no majority of the replicas' clocks agrees on a time, as seen from here: without \
                 one a primary serves no client; set the clocks right (NTP), and start the \
                 replicas that are down"
            ),
            ClusterMessage::Timed => {
                write!(formatter, "a majority of the replicas' clocks agrees on the time again")
            }
            ClusterMessage::Behind(state) => write!(
                formatter,
                "this replica has executed op {} and the cluster op {}: the logs of the others \
                 do not reach back that far; asking for a newer checkpoint",
                state.executed, state.committed
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(view: u32, role: Role, too_far_behind: bool) -> ClusterState {
        let (primary, executed, committed) = (1, 10, 5_000);
        let (syncing, recovering) = (false, false);
        ClusterState {
            view,
            primary,
            role,
            executed,
            committed,
            too_far_behind,
            syncing,
            recovering,
            clocks_agree: true,
        }
    }

    /// Goal: clocks that do not agree for long are logged, then once a minute, and when they agree
    /// again; a short disagreement is not.
    #[test]
    fn clocks() {
        let mut report = ClusterReport::default();
        let agreed = state(1, Role::Primary, false);
        let timeless = ClusterState { clocks_agree: false, ..agreed };
        assert!(report.look(agreed).is_some());
        assert!((1..TIMELESS_LOOKS).all(|_| report.look(timeless).is_none()));
        assert_eq!(report.look(agreed), None);
        let count =
            (0..REPEAT_LOOKS + TIMELESS_LOOKS).filter_map(|_| report.look(timeless)).count();
        assert_eq!(count, 2);
        assert!(ClusterMessage::Timeless.to_string().contains("set the clocks right"));
        assert_eq!(report.look(agreed), Some(ClusterMessage::Timed));
        assert_eq!(report.look(agreed), None);
    }

    /// Goal: each change is logged once, being too far behind once a minute, and nothing else.
    #[test]
    fn logged_once() {
        let mut report = ClusterReport::default();
        let changing = state(2, Role::Changing, false);
        let text = report.look(changing).unwrap().to_string();
        assert_eq!(text, "view 2: waiting for replica 1 to start it");
        assert_eq!(report.look(changing), None);
        let text = report.look(state(2, Role::Follower, false)).unwrap().to_string();
        assert_eq!(text, "view 2: following replica 1");
        let behind = state(2, Role::Follower, true);
        let text = report.look(behind).unwrap().to_string();
        assert!(text.contains("op 10 and the cluster op 5000"), "{text}");
        let later = (0..REPEAT_LOOKS).filter_map(|_| report.look(behind)).count();
        assert_eq!(later, 1);
        let text = report.look(state(3, Role::Primary, false)).unwrap().to_string();
        assert_eq!(text, "view 3: this replica is the primary");
        let primary = state(3, Role::Primary, false);
        let fetching = ClusterState { syncing: true, ..primary };
        assert!(report.look(fetching).unwrap().to_string().contains("fetching"));
        assert_eq!(report.look(fetching), None);
        assert!(report.look(primary).unwrap().to_string().contains("complete"));
        assert_eq!(report.look(primary), None);
        let text = report.look(state(3, Role::Recovering, false)).unwrap().to_string();
        assert!(text.contains("damaged"), "{text}");
        let mut report = ClusterReport::default();
        let asking = ClusterState { recovering: true, ..state(0, Role::Recovering, false) };
        let text = report.look(asking).unwrap().to_string();
        assert!(text.contains("asking the other replicas"), "{text}");
        assert!(report.look(asking).unwrap().to_string().contains("no vote"));
        assert_eq!(report.look(asking), None);
        let follower = state(8, Role::Follower, false);
        assert!(report.look(follower).unwrap().to_string().contains("following"));
        assert!(report.look(follower).unwrap().to_string().contains("votes again"));
    }

    /// Goal: a replica that votes again is logged, even if it had no vote for an instant only.
    #[test]
    fn brief_recovery() {
        let mut report = ClusterReport::default();
        let follower = state(8, Role::Follower, false);
        let recovering = ClusterState { recovering: true, ..follower };
        assert_eq!(report.tick(None), None);
        assert_eq!(report.tick(Some(recovering)), None);
        let lines: Vec<String> = (0..5 * LOOK_TICKS)
            .filter_map(|_| report.tick(Some(follower)))
            .map(|message| message.to_string())
            .collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("following") && lines[1].contains("votes again"), "{lines:?}");
    }
}
