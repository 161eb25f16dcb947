//! `florin cdc` as its users run it.

use crate::server::{BINARY, Following, Servers, send, text};
use serde_json::Value;
use std::process::Command;

const ACCOUNTS: &str = "create_accounts id=1 ledger=1 code=1, id=2 ledger=1 code=1;";

fn transfer(id: u32, more: &str) -> String {
    format!(
        "create_transfers id={id} debit_account_id=1 credit_account_id=2 amount={id} \
         ledger=1 code=1 {more};"
    )
}

/// What is printed: id and type of each event.
fn events(output: &str) -> Vec<(String, String)> {
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| event[name].as_str().unwrap().to_owned();
        (field("transfer_id"), field("type"))
    };
    output.lines().map(event).collect()
}

/// Goal: all kinds of events come in order, up to the present, and only those of a range if one is
/// given; the lines are what the REPL shows.
#[test]
fn ranges() {
    let servers = Servers::single("cdc-ranges");
    servers.say(ACCOUNTS);
    let first = servers.say_at(&transfer(10, ""));
    servers.say(&transfer(11, "flags=pending"));
    let third = servers
        .say_at("create_transfers id=12 pending_id=11 amount=5 flags=post_pending_transfer;");
    servers.say(&transfer(13, "flags=pending"));
    servers.say("create_transfers id=14 pending_id=13 amount=0 flags=void_pending_transfer;");
    let output = servers.stdout(&["cdc", "--until=now"]);
    let expected = [
        ("10", "single_phase"),
        ("11", "two_phase_pending"),
        ("12", "two_phase_posted"),
        ("13", "two_phase_pending"),
        ("14", "two_phase_voided"),
    ];
    let expected = expected.map(|(id, kind)| (id.to_owned(), kind.to_owned()));
    assert_eq!(events(&output), expected);
    let lines: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::from(lines), servers.say("get_change_events;"));

    let from = format!("--from={}", first + 1);
    let until = format!("--until={third}");
    assert_eq!(events(&servers.stdout(&["cdc", &from, &until])), expected[1..3]);
    assert_eq!(servers.stdout(&["cdc", "--from=now", "--until=now"]), "");
}

/// Goal: the stream follows, ends cleanly on a signal, and goes on after what was written when it
/// is started again; without a cursor it begins anew.
#[test]
fn follows_and_goes_on() {
    let servers = Servers::single("cdc-follows");
    servers.say(ACCOUNTS);
    let cursor = servers.folder.join("cursor");
    let words = ["cdc", &format!("--cursor={}", cursor.display()), "--idle=10"];
    let mut stream = Following::start(servers.command(&words));
    for id in [1, 2] {
        servers.say(&transfer(id, ""));
        assert_eq!(stream.line()["transfer_id"], id.to_string());
    }
    // A transfer that nobody is told of while nobody follows. The cursor is written after the
    // lines, so the second may come again, but never instead of the third.
    send(&stream.process, "-TERM");
    assert_eq!(stream.wait(), Some(0));
    servers.say(&transfer(3, ""));
    let mut stream = Following::start(servers.command(&words));
    let mut id = stream.line()["transfer_id"].clone();
    if id == "2" {
        id = stream.line()["transfer_id"].clone();
    }
    assert_eq!(id, "3");
    send(&stream.process, "-INT");
    assert_eq!(stream.wait(), Some(0));
    assert_eq!(servers.stdout(&["cdc", "--until=now"]).lines().count(), 3);
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(&cursor).unwrap()).unwrap();
    assert_eq!(kept["cluster"], "0");
}

/// Goal: who stops reading ends the stream, with success, even while nothing happens.
#[test]
fn reader_goes() {
    let servers = Servers::single("cdc-reader");
    servers.say(ACCOUNTS);
    servers.say(&transfer(1, ""));
    let mut stream = Following::start(servers.command(&["cdc"]));
    assert_eq!(stream.line()["transfer_id"], "1");
    stream.close();
    assert_eq!(stream.wait(), Some(0));
}

/// Goal: an imported transfer that is older than an expiry which was read already is not missed,
/// neither while following nor from a cursor.
#[test]
fn late_imports() {
    let servers = Servers::single("cdc-late");
    servers.say(ACCOUNTS);
    let pending = servers.say_at(&transfer(1, "flags=pending timeout=1"));
    let cursor = servers.folder.join("cursor");
    let words = ["cdc", &format!("--cursor={}", cursor.display()), "--idle=10"];
    let mut stream = Following::start(servers.command(&words));
    assert_eq!(stream.line()["type"], "two_phase_pending");
    assert_eq!(stream.line()["type"], "two_phase_expired");
    let imported = |id: u32, timestamp: u64| {
        servers.say_at(&transfer(id, &format!("flags=imported timestamp={timestamp}")));
    };
    imported(2, pending + 1);
    let late = stream.line();
    assert_eq!((&late["transfer_id"], &late["type"]), (&"2".into(), &"single_phase".into()));
    send(&stream.process, "-TERM");
    assert_eq!(stream.wait(), Some(0));
    imported(3, pending + 2);
    servers.say(&transfer(4, ""));
    let output = servers.stdout(&["cdc", words[1], "--until=now"]);
    let ids: Vec<String> = events(&output).into_iter().map(|(id, _)| id).collect();
    assert!(ids.ends_with(&["3".to_owned(), "4".to_owned()]), "{ids:?}");
}

/// Goal: when the primary is killed the stream goes on: no event is missing and the order holds.
#[test]
fn survives_failover() {
    let mut servers = Servers::cluster("cdc-failover");
    servers.say(ACCOUNTS);
    let mut stream = Following::start(servers.command(&["cdc", "--idle=10"]));
    for id in 1..=3 {
        servers.say(&transfer(id, ""));
        assert_eq!(stream.line()["transfer_id"], id.to_string());
    }
    servers.end(0, "-KILL");
    for id in 4..=8 {
        servers.say(&transfer(id, ""));
        assert_eq!(stream.line()["transfer_id"], id.to_string());
    }
    send(&stream.process, "-TERM");
    assert_eq!(stream.wait(), Some(0));
}

/// Goal: each way to begin that cannot work is told apart by its exit code.
#[test]
fn exit_codes() {
    let servers = Servers::single("cdc-codes");
    let cursor = servers.folder.join("cursor");
    std::fs::write(&cursor, "something else").unwrap();
    let cursor = format!("--cursor={}", cursor.display());
    for (words, code, part) in [
        (vec!["cdc", "--from=yesterday"], 2, "nanoseconds since 1970"),
        (vec!["cdc", "--follow", "--until=now"], 2, "cannot be used with"),
        (vec!["cdc", "--format=xml"], 2, "jsonl"),
        (vec!["cdc", &cursor], 2, "is not the cursor"),
        (vec!["cdc", "--cluster=7"], 7, "not of cluster 7"),
    ] {
        let output = servers.output(&words);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
        assert!(errors.contains(part), "{words:?}: {errors}");
    }
    let words = ["cdc", "--deadline=1", "--addresses=127.0.0.1:1"];
    let output = Command::new(BINARY).args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output.stderr).contains("connection refused"), "{}", text(&output.stderr));
    if std::path::Path::new("/dev/full").exists() {
        servers.say(ACCOUNTS);
        servers.say(&transfer(1, ""));
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = servers.command(&["cdc", "--until=now"]).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("cannot be written"));
    }
}
