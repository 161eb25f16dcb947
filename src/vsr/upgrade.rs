//! Upgrades: by the rules of which release of the program each op is executed.
//!
//! Every op names that release in its header, so all replicas execute it by the same rules whatever
//! program each of them runs, and a program may differ from the one before in what ops do. Pings
//! tell the others' releases. The primary has an op executed by the newest release that all
//! replicas and standbys know, once it has heard all of them since it started, and never by an
//! older one than the op before. So an operator replaces the programs one replica at a time while
//! the cluster goes on, and the new rules hold from an op on that is in the log; before that he may
//! go back to the old program, and afterwards no more.
//!
//! A replica stops, and says why, before it executes an op or opens a checkpoint of a release that
//! its program does not know. Not covered: what releases differ in. So far that is which session
//! makes way in a full table (0.2.0, see [`sessions`](super::sessions)).

use super::fatal::Fatal;
use super::machine::StateMachine;
use super::replica::Replica;
use crate::protocol::Release;
use crate::{mark, mutated};

/// Whether this program can execute ops of that release.
///
/// # Errors
///
/// The reason to stop, which names both.
pub fn check_program(op: u64, needed: Release, own: Release) -> Result<(), Fatal> {
    let known = needed <= own && (needed >= Release::PROGRAM_MIN || needed == Release::ZERO);
    if known { Ok(()) } else { Err(Fatal::Program { op, needed, own }) }
}

/// The release by whose rules the op after one of `last` is executed, if replicas and standbys
/// are of these releases, as far as known.
#[must_use]
pub fn agreed_program(last: Release, nodes: impl Iterator<Item = Option<Release>>) -> Release {
    let mut oldest: Option<Release> = None;
    for program in nodes {
        let Some(program) = program else { return last.max(Release::PROGRAM_MIN) };
        oldest = Some(oldest.map_or(program, |oldest| oldest.min(program)));
    }
    last.max(oldest.unwrap_or(Release::PROGRAM_MIN))
}

impl<M: StateMachine> Replica<M> {
    /// The release by whose rules the next op is to be executed.
    pub(super) fn program_of_next(&self) -> Release {
        let last = self.chain.head().program;
        let own = self.options.program;
        if mutated!("upgrade_hastily") {
            return own;
        }
        let nodes = (0..self.options.nodes()).map(|replica| {
            let is_own = replica == self.options.replica;
            if is_own { Some(own) } else { self.peers.program(replica) }
        });
        let agreed = agreed_program(last, nodes);
        if agreed > last && last > Release::ZERO {
            mark!("upgraded");
        }
        agreed
    }

    /// Stops if the log has an op that this program does not know how to execute.
    pub(super) fn check_log_program(&mut self) {
        let head = self.chain.head();
        if let Err(fatal) = check_program(head.op, head.program, self.options.program) {
            self.stop(fatal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the rules change only when all replicas are known to know the new ones, and never
    /// back.
    #[test]
    fn agreement() {
        let [old, new, newer] = [10, 11, 12].map(|patch| Release::new(0, 1, patch));
        let agreed = |last, nodes: &[Option<Release>]| agreed_program(last, nodes.iter().copied());
        assert_eq!(agreed(old, &[Some(new), Some(old), Some(new)]), old);
        assert_eq!(agreed(old, &[Some(new), None, Some(new)]), old);
        assert_eq!(agreed(old, &[Some(new), Some(newer), Some(new)]), new);
        assert_eq!(agreed(new, &[Some(new), Some(old), Some(new)]), new);
        assert_eq!(agreed(Release::ZERO, &[Some(new), None]), Release::PROGRAM_MIN);
        assert_eq!(agreed(Release::ZERO, &[Some(new)]), new);
    }

    /// Goal: a program takes its own release and older ones down to the oldest it knows.
    #[test]
    fn refusals() {
        let own = Release::new(0, 1, 7);
        for known in [Release::ZERO, Release::PROGRAM_MIN, own] {
            assert_eq!(check_program(5, known, own), Ok(()));
        }
        for needed in [Release::new(0, 1, 8), Release::new(0, 0, 9)] {
            let fatal = check_program(5, needed, own).unwrap_err();
            let text = fatal.to_string();
            assert!(text.contains(&needed.to_string()) && text.contains("0.1.7"), "{text}");
        }
    }
}
