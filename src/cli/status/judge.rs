//! Derives the state of the cluster from the answers: healthy, degraded, or unavailable.
//!
//! Believes replicas about themselves, and the primary about the others: it alone knows whose
//! acknowledgements arrive. Clients are served if the primary of the newest view reports that it
//! serves, or, if it cannot be reached from here, if a backup reports contact with it. Replicas
//! that are not listed may serve without those that are. Pure. Not covered: the order of the list.

use super::super::benchmark::report::thousands;
use super::arrange::{Arranged, Row};
use super::ask::{Reason, Said};
use super::show::{clock, role};
use crate::io::twins::{Twins, address_from};
use crate::protocol::about::SILENCE_NEVER;
use crate::vsr::quorum::Quorums;
use crate::vsr::readiness::CONTACT_NS;
use crate::vsr::{Standing, Unready};

/// Ops by which a log may be behind the primary's before that is a problem.
const LAG_MAX: u64 = 64;
/// Maximum offset of a clock from the others' before that is a problem, in nanoseconds.
const CLOCK_OFFSET_MAX_NS: u64 = 1_000_000_000;

/// The state of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Clients are served, and there is no problem.
    Healthy,
    /// Clients are served, as far as is known, but there are problems.
    Degraded,
    /// No client is served.
    Unavailable,
}

impl State {
    /// Returns the state in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Degraded => "degraded",
            State::Unavailable => "unavailable",
        }
    }
}

/// Returns the primary, if one is known: of those that report it, the one of the highest view.
#[must_use]
pub fn primary(rows: &[Row]) -> Option<&Said> {
    let said = rows.iter().filter_map(|row| row.answer.said());
    let primaries = said.filter(|said| said.standing() == Standing::Primary);
    // Of two processes of one index, the one that serves.
    primaries.max_by_key(|said| (said.body.view, said.unready().is_none()))
}

/// The contacts on which a judgement relies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contacts {
    /// All that replicas report.
    Reported,
    /// Of these, contacts with replicas that answered, or are not listed.
    Confirmed,
}

impl Contacts {
    /// Whether a contact with this replica counts.
    fn count(self, replica: u8, rows: &[Row]) -> bool {
        let answered = |row: &Row| row.replica == Some(replica) && row.answer.said().is_some();
        let may_be_silent =
            |row: &Row| row.answer.said().is_none() && row.replica.is_none_or(|it| it == replica);
        self == Contacts::Reported || rows.iter().any(answered) || !rows.iter().any(may_be_silent)
    }
}

/// Whether clients are served only if a contact with a replica that gave no answer still lasts.
/// Replicas report a contact for [`CONTACT_NS`] after the other one has ended.
#[must_use]
pub fn relies_on_silent(rows: &[Row]) -> bool {
    served(rows, Contacts::Reported).is_ok() && served(rows, Contacts::Confirmed).is_err()
}

/// Checks whether the replicas that are listed serve clients; the error is the reason if not.
fn served(rows: &[Row], contacts: Contacts) -> Result<(), String> {
    let said = || rows.iter().filter_map(|row| row.answer.said());
    let follows = |said: &&Said| matches!(said.standing(), Standing::Primary | Standing::Backup);
    let Some(newest) = said().filter(follows).max_by_key(|said| said.body.view) else {
        return Err("there is no primary: nobody is served".to_owned());
    };
    let view = newest.body.view;
    if let Some(primary) = primary(rows).filter(|primary| primary.body.view == view) {
        return served_by(primary, rows, contacts);
    }
    let primary = newest.body.primary;
    let mut backups = said().filter(|said| follows(said) && said.body.view == view);
    let is_in_contact = backups.any(|said| match said.unready() {
        None => said.judges_itself() || is_unlisted_primary(said, rows),
        Some(reason) => still_serves(reason),
    });
    if is_in_contact && contacts.count(primary, rows) {
        Ok(())
    } else {
        Err(format!("nobody is in contact with replica {primary}, the primary: nobody is served"))
    }
}

/// Returns the number of voting replicas that are not listed, if they can be a quorum alone.
fn quorum_not_listed(rows: &[Row]) -> Option<usize> {
    let said = rows.iter().filter_map(|row| row.answer.said());
    let count = said.map(|said| said.body.replica_count).max()?;
    let has_row = |replica: &u8| rows.iter().any(|row| row.replica == Some(*replica));
    let listed = (0..count).filter(has_row).count();
    // An address without a known index may be that of any replica.
    let unknown = rows.iter().filter(|row| row.replica.is_none()).count();
    let missing = usize::from(count).saturating_sub(listed + unknown);
    (missing >= usize::from(Quorums::new(count).replication)).then_some(missing)
}

/// Whether the primary that a backup of an older release follows is not listed, so that it may
/// serve.
fn is_unlisted_primary(said: &Said, rows: &[Row]) -> bool {
    !rows.iter().any(|row| row.replica == Some(said.body.primary))
}

/// Whether a primary that is not ready for this reason serves clients nevertheless.
const fn still_serves(reason: Reason) -> bool {
    matches!(reason, Reason::Known(Unready::Syncing | Unready::TooFarBehind | Unready::Behind))
}

/// Whether too few replicas can acknowledge to a primary: one that recovers answers it, and has no
/// vote.
fn lacks_votes(primary: &Said, rows: &[Row], contacts: Contacts) -> bool {
    let body = &primary.body;
    let has_vote = |replica: u8| {
        let place = usize::from(replica);
        let contact =
            body.peers[place].silence_ns <= CONTACT_NS && body.unanswered_ns[place] <= CONTACT_NS;
        let row = rows.iter().find(|row| row.replica == Some(replica));
        let said = row.and_then(|row| row.answer.said());
        contact
            && contacts.count(replica, rows)
            && said.is_none_or(|said| said.body.recovering == 0)
    };
    let others = (0..body.replica_count).filter(|replica| *replica != primary.replica);
    others.filter(|replica| has_vote(*replica)).count() + 1
        < usize::from(Quorums::new(body.replica_count).replication)
}

fn served_by(primary: &Said, rows: &[Row], contacts: Contacts) -> Result<(), String> {
    if primary.judges_itself() {
        return match primary.unready() {
            Some(reason) if !still_serves(reason) => Err(format!(
                "replica {}, the primary, serves nobody: {}",
                primary.replica,
                reason.text()
            )),
            _ if lacks_votes(primary, rows, contacts) => Err(format!(
                "replica {}, the primary, serves nobody: too few replicas that have a vote are in \
                 contact with it",
                primary.replica
            )),
            _ => Ok(()),
        };
    }
    // An older release does not report its contacts: it needs a quorum of followers.
    let count = primary.body.replica_count;
    let follows = rows.iter().filter(|row| {
        row.replica.is_some_and(|replica| replica < count)
            && row.answer.said().is_some_and(|said| {
                said.body.view == primary.body.view && said.standing().takes_part()
            })
    });
    let (follows, unlisted) = (follows.count(), usize::from(count).saturating_sub(rows.len()));
    if follows + unlisted >= usize::from(Quorums::new(count).replication) {
        return Ok(());
    }
    Err(format!("{follows} replicas follow the primary: that is not a quorum"))
}

/// Returns the state of the cluster, and every problem in words.
#[must_use]
pub fn judge(arranged: &Arranged) -> (State, Vec<String>) {
    let rows = arranged.rows.as_slice();
    let mut problems = arranged.problems.clone();
    for row in rows {
        match &row.answer.result {
            Err(reason) => problems.push(format!("{}: {reason}", row.name())),
            Ok(said) => problems.extend(problems_of(row, said, rows)),
        }
    }
    problems.extend(twins(rows));
    let state = match (served(rows, Contacts::Reported), quorum_not_listed(rows)) {
        (Ok(()), _) if problems.is_empty() => State::Healthy,
        (Ok(()), _) => State::Degraded,
        (Err(_), Some(missing)) => {
            problems.push(format!(
                "no listed replica serves clients; the {missing} that are not listed may serve them"
            ));
            State::Degraded
        }
        (Err(reason), None) => {
            if rows.iter().any(|row| row.answer.said().is_some()) {
                problems.push(reason);
            }
            State::Unavailable
        }
    };
    (state, problems)
}

/// Returns the problems of one replica.
fn problems_of(row: &Row, said: &Said, rows: &[Row]) -> Vec<String> {
    let mut problems = Vec::new();
    let name = row.name();
    let mut problem = |text: String| problems.push(format!("{name}: {text}"));
    let body = &said.body;
    if let Some(reason) = said.unready() {
        problem(format!("is not ready ({}): {}", role(said), reason.text()));
    } else if !said.standing().takes_part() {
        problem(format!("takes no part in a view ({})", role(said)));
    }
    if !said.judges_itself() && body.syncing > 0 {
        problem(Unready::Syncing.text().to_owned());
    }
    if !said.judges_itself() && body.too_far_behind > 0 {
        problem(Unready::TooFarBehind.text().to_owned());
    }
    if let Some(primary) = primary(rows) {
        let lag = primary.body.op.saturating_sub(body.op);
        if primary.body.view != body.view {
            let (own, other) = (body.view, primary.body.view);
            problem(format!("is in view {own} and the primary in {other}"));
        } else if lag > LAG_MAX && body.syncing == 0 {
            problem(format!("its log is {} ops behind", thousands(lag)));
        }
    }
    if body.clock_known > 0 && body.clock_offset_ns.unsigned_abs() > CLOCK_OFFSET_MAX_NS {
        let clock = clock(body).unwrap_or_default();
        problem(format!("its clock is {clock} from the others': keep clocks by NTP"));
    }
    if body.storage_usable > 0 && body.storage_used >= body.storage_usable {
        problem("its storage limit is reached: creates get no answer".to_owned());
    }
    problems.extend(silences(said, rows));
    problems
}

/// Returns the replicas that answered here and that this replica does not hear.
fn silences(said: &Said, rows: &[Row]) -> Vec<String> {
    let mut problems = Vec::new();
    let is_primary = primary(rows).is_some_and(|it| it.body == said.body);
    let own = said.replica;
    // A replica that is out of contact has reported that already.
    let is_apart =
        matches!(said.unready(), Some(Reason::Known(Unready::NoQuorum | Unready::Opening)));
    if is_apart || !said.standing().takes_part() {
        return problems;
    }
    for row in rows {
        let Some((replica, other)) = row.replica.zip(row.answer.said()) else { continue };
        let place = usize::from(replica);
        if replica == own || place >= said.body.peers.len() {
            continue;
        }
        let (silence_ns, op) = (said.body.peers[place].silence_ns, said.body.peers[place].op);
        let unanswered_ns = said.body.unanswered_ns[place];
        let answers = unanswered_ns <= CONTACT_NS;
        if silence_ns > CONTACT_NS {
            let since = since(silence_ns);
            problems.push(format!(
                "replica {own} has heard nothing from replica {replica}{since}: look at the way \
                 from there to here"
            ));
        } else if said.judges_itself() && !answers && is_primary {
            let since = since(unanswered_ns);
            problems.push(format!("replica {replica} has not answered the primary{since}"));
        }
        let lag = said.body.op.saturating_sub(op);
        let own_lag = said.body.op.saturating_sub(other.body.op);
        if is_primary && op > 0 && lag > LAG_MAX && own_lag <= LAG_MAX {
            let lag = thousands(lag);
            problems.push(format!(
                "replica {replica}: what the primary knows of its log is {lag} ops behind; its \
                 acknowledgements do not arrive"
            ));
        }
    }
    problems
}

/// Returns the duration of a silence in words.
fn since(silence_ns: u64) -> String {
    match silence_ns {
        SILENCE_NEVER => " since it started".to_owned(),
        _ => format!(" for {}.{} s", silence_ns / 1_000_000_000, silence_ns / 100_000_000 % 10),
    }
}

/// Returns pairs of processes of one index that any replica hears, each once.
fn twins(rows: &[Row]) -> Vec<String> {
    let mut found: Vec<Twins> = Vec::new();
    for said in rows.iter().filter_map(|row| row.answer.said()) {
        let Some(replica) = said.body.twins.checked_sub(1) else { continue };
        let addresses = said.body.twin_addresses.map(|bytes| address_from(&bytes));
        let twins = Twins { replica, addresses };
        if said.judges_itself() && !found.contains(&twins) {
            found.push(twins);
        }
    }
    found.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::arrange::arrange;
    use super::super::ask::Answer;
    use super::*;
    use crate::io::twins::address_bytes;
    use crate::protocol::about::{STATUS_EDITION, StatusBody};
    use std::net::SocketAddr;

    const SECOND_NS: u64 = 1_000_000_000;

    pub fn answer(place: u16, standing: Standing, op: u64) -> Answer {
        let mut body = StatusBody::new();
        body.standing = standing as u8;
        (body.view, body.op, body.commit, body.replica_count) = (3, op, op, 3);
        (body.clock_known, body.clock_offset_ns) = (1, -250_000);
        (body.edition, body.instance) = (STATUS_EDITION, 100 + u64::from(place));
        for peer in &mut body.peers {
            peer.op = op;
        }
        body.set_version("0.1.0");
        let address = format!("10.0.0.1:{}", 3000 + place);
        Answer { address, result: Ok(Said { replica: u8::try_from(place).unwrap(), body }) }
    }

    pub fn healthy() -> Vec<Answer> {
        vec![
            answer(0, Standing::Primary, 1_000_000),
            answer(1, Standing::Backup, 1_000_000),
            answer(2, Standing::Backup, 999_990),
        ]
    }

    pub fn lost(place: usize) -> Answer {
        let result = Err("connection refused: no process listens there".to_owned());
        Answer { result, ..healthy()[place].clone() }
    }

    fn judged(answers: &[Answer]) -> (State, Vec<String>) {
        judge(&arrange(answers))
    }

    fn body(answer: &mut Answer) -> &mut StatusBody {
        &mut answer.result.as_mut().unwrap().body
    }

    fn unready(answers: &mut [Answer], place: usize, reason: Unready) {
        body(&mut answers[place]).unready = reason as u8;
    }

    /// The answers of a release before 0.2.
    fn old(mut answers: Vec<Answer>) -> Vec<Answer> {
        for answer in answers.iter_mut().filter(|answer| answer.result.is_ok()) {
            let body = body(answer);
            (body.edition, body.instance) = (0, 0);
        }
        answers
    }

    /// Goal: no problem is healthy, one lost replica degraded, no quorum or no primary unavailable,
    /// of this release and of older ones, which do not judge themselves.
    #[test]
    fn states() {
        assert_eq!(judged(&healthy()), (State::Healthy, Vec::new()));
        assert_eq!(judged(&old(healthy())), (State::Healthy, Vec::new()));
        let mut answers = healthy();
        answers[2] = lost(2);
        let (state, problems) = judged(&answers);
        assert_eq!((state, problems.len()), (State::Degraded, 1));
        assert!(problems[0].starts_with("replica 2: connection refused"), "{problems:?}");
        answers[1] = lost(1);
        let (state, problems) = judged(&old(answers.clone()));
        assert_eq!((state, problems.len()), (State::Unavailable, 3));
        assert!(problems[2].contains("not a quorum"), "{problems:?}");
        unready(&mut answers, 0, Unready::NoQuorum);
        let (state, problems) = judged(&answers);
        assert_eq!((state, problems.len()), (State::Unavailable, 4));
        assert!(problems[3].contains("the primary, serves nobody"), "{problems:?}");
        let answers = [lost(0), lost(1), lost(2)];
        assert_eq!((judged(&answers).0, judged(&answers).1.len()), (State::Unavailable, 3));
        let mut answers = healthy();
        answers[0] = answer(0, Standing::ViewChange, 5);
        for answer in &mut answers[1..] {
            body(answer).unready = Unready::NoPrimary as u8;
        }
        let (state, problems) = judged(&answers);
        assert_eq!(state, State::Unavailable);
        assert!(problems.iter().any(|it| it.contains("in contact with replica 0")), "{problems:?}");
    }

    /// Goal: a primary that cannot be reached from here serves, if a backup is in contact with it.
    #[test]
    fn primary_out_of_reach() {
        let mut answers = healthy();
        answers[0] = lost(0);
        assert_eq!(judged(&answers).0, State::Degraded);
        unready(&mut answers, 1, Unready::NoPrimary);
        assert_eq!(judged(&answers).0, State::Degraded);
        unready(&mut answers, 2, Unready::Unheard);
        assert_eq!(judged(&answers).0, State::Unavailable);
        assert_eq!(judged(&old(answers)).0, State::Unavailable);
        let part = old(healthy());
        assert_eq!(judged(&part[1..]).0, State::Degraded, "an older primary that is not listed");
    }

    /// Goal: a cut of one direction shows: the primary knows the replicas that it does not hear,
    /// and those that do not answer it; backups know of each other.
    #[test]
    fn one_way_cuts() {
        let mut answers = healthy();
        body(&mut answers[0]).peers[1].silence_ns = 15 * SECOND_NS;
        body(&mut answers[0]).peers[1].op = 1_000_000 - 6_111;
        let (state, problems) = judged(&answers);
        assert_eq!(state, State::Degraded);
        assert!(problems[0].contains("replica 0 has heard nothing from replica 1 for 15.0 s"));
        assert!(problems[1].contains("6,111 ops behind"), "{problems:?}");
        let mut answers = healthy();
        body(&mut answers[0]).unanswered_ns[2] = SILENCE_NEVER;
        let (state, problems) = judged(&answers);
        assert_eq!((state, problems.len()), (State::Degraded, 1));
        let text = "replica 2 has not answered the primary since it started";
        assert!(problems[0].contains(text), "{problems:?}");
        let mut answers = healthy();
        body(&mut answers[1]).peers[2].silence_ns = 3 * SECOND_NS;
        let (state, problems) = judged(&answers);
        assert_eq!((state, problems.len()), (State::Degraded, 1));
        assert!(problems[0].contains("replica 1 has heard nothing from replica 2 for 3.0 s"));
        // A dead replica is reported once.
        answers[2] = lost(2);
        assert_eq!(judged(&answers).1.len(), 1);
    }

    /// Goal: the reason for which a replica is not ready is reported; a primary that stands still
    /// serves nobody.
    #[test]
    fn not_ready() {
        for reason in Unready::ALL {
            let mut answers = healthy();
            unready(&mut answers, 2, reason);
            let (state, problems) = judged(&answers);
            assert_eq!((state, problems.len()), (State::Degraded, 1), "{problems:?}");
            assert!(problems[0].contains(reason.text()), "{problems:?}");
        }
        for reason in [Unready::WaitsForDisk, Unready::StandsStill, Unready::NoTime] {
            let mut answers = healthy();
            unready(&mut answers, 0, reason);
            assert_eq!(judged(&answers).0, State::Unavailable);
        }
        let mut answers = healthy();
        body(&mut answers[2]).recovering = 1;
        assert_eq!(judged(&answers).0, State::Healthy, "the replica itself reports it");
        answers[1] = lost(1);
        body(&mut answers[0]).peers[1].silence_ns = SILENCE_NEVER;
        assert_eq!(judged(&answers).0, State::Unavailable);
        let mut answers = healthy();
        unready(&mut answers, 0, Unready::Syncing);
        assert_eq!(judged(&answers).0, State::Degraded);
    }

    /// Goal: problems of a replica that takes part are reported, and are not a reason for alarm.
    #[test]
    fn problems() {
        let change = |change: fn(&mut Answer)| {
            let mut answers = healthy();
            change(&mut answers[2]);
            let (state, problems) = judged(&answers);
            assert_eq!(state, State::Degraded, "{problems:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
            problems[0].clone()
        };
        let text = change(|it| *it = answer(2, Standing::Backup, 900_000));
        assert_eq!(text, "replica 2: its log is 100,000 ops behind");
        let text = change(|it| body(it).view = 2);
        assert!(text.contains("in view 2 and the primary in 3"), "{text}");
        let text = change(|it| body(it).clock_offset_ns = -30_000_000_000);
        assert!(text.contains("its clock is -30 s from the others'"), "{text}");
        let text = change(|it| {
            let body = body(it);
            (body.storage_used, body.storage_usable) = (7, 7);
        });
        assert!(text.contains("its storage limit is reached"), "{text}");
        let text = change(|it| {
            let addresses = [3001, 4001].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
            let body = body(it);
            (body.twins, body.twin_addresses) = (2, addresses.map(address_bytes));
        });
        assert!(text.contains("replica 1, at 10.0.0.1:3001 and at 10.0.0.1:4001"), "{text}");
    }

    /// Goal: a list in a wrong order is not a reason for alarm.
    #[test]
    fn wrong_orders() {
        let mut answers = healthy();
        answers.rotate_left(1);
        let (state, problems) = judged(&answers);
        assert_eq!((state, problems.len()), (State::Degraded, 1), "{problems:?}");
        assert!(
            problems[0].starts_with("the addresses are in the wrong order; the right list is ")
        );
    }

    /// Goal: a list that leaves replicas out is not a reason for alarm, whichever is the primary,
    /// as long as those that are left out may serve.
    #[test]
    fn parts_of_a_list() {
        for answers in [healthy(), old(healthy())] {
            let (state, problems) = judged(&answers[..2]);
            assert_eq!((state, problems.len()), (State::Degraded, 1), "{problems:?}");
            assert!(problems[0].contains("lists 2 of 3 replicas"), "{problems:?}");
            assert_eq!(judged(&answers[1..]).0, State::Degraded);
            assert_eq!(judged(&answers[2..]).0, State::Degraded);
            let part = [answers[0].clone(), lost(1)];
            assert_eq!(judged(&part).0, State::Degraded, "the third may follow");
        }
        // The primary of view 5 is replica 2, which is not listed.
        let view_5 = |standing| {
            let mut answers = [answer(0, Standing::Backup, 7), answer(1, standing, 7)];
            for answer in &mut answers {
                (body(answer).view, body(answer).primary) = (5, 2);
            }
            answers
        };
        assert_eq!(judged(&view_5(Standing::Backup)).1.len(), 1);
        let (state, problems) = judged(&view_5(Standing::ViewChange));
        assert_eq!((state, problems.len()), (State::Degraded, 2), "{problems:?}");
        // In view 3 it would be replica 0, which reports that it is not, and one more is no quorum.
        let mut answers = [answer(0, Standing::ViewChange, 7), answer(1, Standing::Backup, 7)];
        for (place, reason) in [(0, Unready::ViewChange), (1, Unready::NoPrimary)] {
            unready(&mut answers, place, reason);
        }
        let (state, problems) = judged(&answers);
        assert_eq!(state, State::Unavailable, "{problems:?}");
        assert!(problems.iter().any(|it| it.contains("nobody is served")), "{problems:?}");
        let (state, problems) = judged(&[lost(0), lost(1)]);
        assert_eq!((state, problems.len()), (State::Unavailable, 2));
    }

    /// Goal: a listed replica that is cut off proves nothing about those that are not listed.
    #[test]
    fn a_part_that_is_cut_off() {
        for (standing, reason) in [
            (Standing::Backup, Unready::NoPrimary),
            (Standing::ViewChange, Unready::NoQuorum),
            (Standing::Primary, Unready::NoQuorum),
        ] {
            let mut answers = [answer(0, standing, 7)];
            unready(&mut answers, 0, reason);
            let (state, problems) = judged(&answers);
            assert_eq!(state, State::Degraded, "{problems:?}");
            let text = "no listed replica serves clients; the 2 that are not listed may serve them";
            assert!(problems.iter().any(|it| it == text), "{problems:?}");
            let listed = [answers[0].clone(), lost(1)];
            let (state, problems) = judged(&listed);
            assert_eq!(state, State::Unavailable, "one is no quorum: {problems:?}");
        }
    }

    /// Goal: a judgement that relies on a contact with a replica that gave no answer is noticed.
    #[test]
    fn silent_replicas() {
        let relies = |answers: &[Answer]| relies_on_silent(&arrange(answers).rows);
        assert!(!relies(&healthy()));
        let mut answers = healthy();
        answers[2] = lost(2);
        assert!(!relies(&answers), "a quorum answered");
        answers[1] = lost(1);
        assert_eq!(judged(&answers).0, State::Degraded);
        assert!(relies(&answers), "the primary may not know yet");
        assert!(relies(&[lost(1), answers[0].clone(), lost(2)]), "in a wrong order too");
        unready(&mut answers, 0, Unready::NoQuorum);
        assert!(!relies(&answers), "it does not serve");
        let mut answers = healthy();
        answers[0] = lost(0);
        assert!(relies(&answers), "the backups may not know yet");
        assert!(!relies(&healthy()[1..]), "it is not listed");
    }
}
