//! The output of `florin status`: a table, or JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::benchmark::report::thousands;
use super::arrange::Row;
use super::ask::{Reason, Said};
use super::judge::{State, primary};
use crate::protocol::about::{SILENCE_NEVER, StatusBody};

/// The result of one round.
#[derive(Clone, Debug)]
pub struct Found {
    /// The id of the cluster.
    pub cluster: u128,
    /// Its state.
    pub state: State,
    /// Its problems, in words.
    pub problems: Vec<String>,
    /// Its replicas.
    pub rows: Vec<Row>,
}

/// Returns the role of a replica in words.
#[must_use]
pub fn role(said: &Said) -> String {
    said.standing().name().replace('_', " ")
}

/// Returns the clock's offset in words.
#[must_use]
pub fn clock(body: &StatusBody) -> Option<String> {
    if body.clock_known == 0 {
        return None;
    }
    let offset_us = body.clock_offset_ns.unsigned_abs() / 1000;
    let sign = match body.clock_offset_ns {
        _ if offset_us < 100 => "",
        ahead if ahead < 0 => "-",
        _ => "+",
    };
    Some(match offset_us {
        0..10_000 => format!("{sign}{}.{} ms", offset_us / 1000, offset_us % 1000 / 100),
        10_000..10_000_000 => format!("{sign}{} ms", offset_us / 1000),
        _ => format!("{sign}{} s", offset_us / 1_000_000),
    })
}

/// Returns the cells of a replica's row: role, view, op, commit, lag, checkpoint, clock.
fn cells(said: &Said, primary: Option<&Said>) -> [String; 7] {
    let body = &said.body;
    let lag = primary.map(|primary| thousands(primary.body.op.saturating_sub(body.op)));
    let role = if body.syncing > 0 { "syncing".to_owned() } else { role(said) };
    [
        role,
        body.view.to_string(),
        body.op.to_string(),
        body.commit.to_string(),
        lag.unwrap_or_else(|| "-".to_owned()),
        body.checkpoint_op.to_string(),
        clock(body).unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Returns a line about the cluster, a table of its replicas, and the problems.
///
/// # Panics
///
/// Never: a string takes everything.
#[must_use]
pub fn table(found: &Found) -> String {
    const COLUMNS: [&str; 9] =
        ["#", "address", "role", "view", "op", "commit", "lag", "checkpoint", "clock"];
    /// Words to the left, numbers to the right.
    const WORDS: usize = 3;
    let primary = primary(&found.rows);
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    for row in &found.rows {
        let name = row.replica.map_or_else(|| "?".to_owned(), |replica| replica.to_string());
        let address = row.answer.address.clone();
        let said = match &row.answer.result {
            Ok(said) => cells(said, primary),
            Err(_) => ["unreachable", "-", "-", "-", "-", "-", "-"].map(str::to_owned),
        };
        let mut cells = [const { String::new() }; 9];
        for (place, cell) in cells.iter_mut().zip([name, address].into_iter().chain(said)) {
            *place = cell;
        }
        rows.push(cells);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let (cluster, state) = (found.cluster, found.state.name());
    let mut text = format!("cluster {cluster}: {state}{}\n\n", versions(&found.rows));
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let (gap, width) = (if column == 0 { "" } else { "  " }, widths[column]);
            let written = if column < WORDS {
                write!(line, "{gap}{cell:width$}")
            } else {
                write!(line, "{gap}{cell:>width$}")
            };
            written.expect("a string takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if !found.problems.is_empty() {
        text.push('\n');
        for problem in &found.problems {
            text.push_str(problem);
            text.push('\n');
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Returns the versions that run, if any is known.
fn versions(rows: &[Row]) -> String {
    let said = rows.iter().filter_map(|row| row.answer.said());
    let mut versions: Vec<&str> = said.map(|said| said.body.version()).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.as_slice() {
        [] => String::new(),
        [version] => format!(", version {version}"),
        several => format!(", versions {}", several.join(" and ")),
    }
}

/// Returns the same as JSON, with more about each replica.
#[must_use]
pub fn json_of(found: &Found) -> Value {
    let primary = primary(&found.rows);
    let replica = |row: &Row| {
        let mut value = json!({ "replica": row.replica, "address": row.answer.address });
        let more = match &row.answer.result {
            Err(reason) => json!({ "reachable": false, "reason": reason }),
            Ok(said) => json_body(said, primary),
        };
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        value
    };
    let replicas: Vec<Value> = found.rows.iter().map(replica).collect();
    json!({
        "cluster": found.cluster.to_string(),
        "state": found.state.name(),
        "primary": primary.map(|said| said.replica),
        "problems": found.problems,
        "replicas": replicas,
    })
}

fn json_body(said: &Said, primary: Option<&Said>) -> Value {
    let body = &said.body;
    let clock = (body.clock_known > 0)
        .then(|| json!({ "offset_ns": body.clock_offset_ns, "error_ns": body.clock_error_ns }));
    let mut value = json!({
        "reachable": true,
        "replica": said.replica,
        "role": said.standing().name(),
        "view": body.view,
        "op": body.op,
        "commit": body.commit,
        "commit_max": body.commit_max,
        "lag": primary.map(|primary| primary.body.op.saturating_sub(body.op)),
        "checkpoint": body.checkpoint_op,
        "syncing": body.syncing > 0,
        "too_far_behind": body.too_far_behind > 0,
        "clock": clock,
        "sessions": body.sessions,
        "storage_used": body.storage_used,
        "storage_usable": body.storage_usable,
        "replica_count": body.replica_count,
        "standby_count": body.standby_count,
        "version": body.version(),
    });
    if said.judges_itself() {
        value["ready"] = said.unready().is_none().into();
        value["unready"] = said.unready().map(Reason::name).into();
        value["recovering"] = (body.recovering > 0).into();
        value["peers"] = peers(said);
    }
    value
}

/// Returns the times since the others were heard and since they answered; null for never.
fn peers(said: &Said) -> Value {
    let body = &said.body;
    let nodes = body.replica_count + body.standby_count;
    let age = |ns: u64| (ns != SILENCE_NEVER).then_some(ns);
    let peer = |replica: u8| {
        let place = usize::from(replica);
        let (peer, unanswered_ns) = (body.peers.get(place)?, body.unanswered_ns.get(place)?);
        Some(json!({
            "replica": replica,
            "heard_ns_ago": age(peer.silence_ns),
            "answered_ns_ago": age(*unanswered_ns),
            "op": peer.op,
        }))
    };
    let others = (0..nodes).filter(|replica| *replica != said.replica);
    others.filter_map(peer).collect::<Vec<Value>>().into()
}

#[cfg(test)]
mod tests {
    use super::super::arrange::arrange;
    use super::super::judge::judge;
    use super::super::judge::tests::{healthy, lost};
    use super::*;

    /// Goal: the table fits 80 columns with millions of ops, and JSON has the same content.
    #[test]
    fn shown() {
        let mut answers = healthy();
        answers[1] = lost(1);
        let arranged = arrange(&answers);
        let (state, problems) = judge(&arranged);
        let found = Found { cluster: 7, state, problems, rows: arranged.rows };
        let text = table(&found);
        assert!(text.starts_with("cluster 7: degraded, version 0.1.0\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for part in ["unreachable", "primary", "backup", "-0.2 ms", "999990", "\nreplica 1: conn"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let value = json_of(&found);
        assert_eq!(value["state"], "degraded");
        assert_eq!(value["primary"], 0);
        assert_eq!(value["replicas"][1]["reachable"], false);
        assert_eq!(value["replicas"][1]["replica"], 1);
        assert_eq!(value["replicas"][2]["lag"], 10);
        assert_eq!(value["replicas"][2]["clock"]["offset_ns"], -250_000);
        assert_eq!(value["replicas"][2]["ready"], true);
        assert_eq!(value["replicas"][2]["peers"][1]["heard_ns_ago"], 0);
    }
}
