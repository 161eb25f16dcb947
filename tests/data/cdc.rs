//! `florin cdc` as its users run it.

use crate::program::florin;
use crate::server::{Following, Servers, send, text};
use florin::client::{Client, Options};
use florin::protocol::status::CreateTransferStatus;
use florin::protocol::types::{Transfer, transfer_flags};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
        (vec!["cdc", "--from=2200-01-01"], 2, "is in the future"),
        (vec!["cdc", "--from=2020-01-02", "--until=2020-01-01"], 2, "is after --until"),
        (vec!["cdc", "--follow", "--until=now"], 2, "cannot be used with"),
        (vec!["cdc", "--format=xml"], 2, "jsonl"),
        (vec!["cdc", &cursor], 2, "is not the cursor"),
        (vec!["cdc", "--cluster=7", "--deadline=1"], 7, "not of cluster 7"),
        (vec!["cdc", "--ack=stdin"], 2, "--cursor"),
        (vec!["cdc", "--cursor=/proc/florin-cursor"], 1, "/proc/florin-cursor"),
    ] {
        let output = servers.output(&words);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
        assert!(errors.contains(part), "{words:?}: {errors}");
    }
    let words = ["cdc", "--deadline=1", "--addresses=127.0.0.1:1"];
    let output = florin().args(words).output().unwrap();
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

/// Goal: a standard output that is closed, or open for reading only, is an error before the cursor
/// exists.
#[test]
fn output_that_cannot_be_written() {
    let servers = Servers::single("cdc-output");
    let cursor = cursor_option(&servers);
    let read_only = std::fs::File::open("/dev/null").unwrap();
    let mut command = servers.command(&["cdc", &cursor, "--until=now"]);
    let output = command.stdout(read_only).output().unwrap();
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$@\" >&-", "sh", env!("CARGO_BIN_EXE_florin"), "cdc", &cursor]);
    closed.args(["--until=now", &format!("--addresses={}", servers.addresses)]);
    for output in [output, closed.output().unwrap()] {
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("standard output cannot be written"), "{errors}");
    }
    assert!(!servers.folder.join("cursor").exists());
}

/// Goal: lines are not appended to the part of a line that a full disk left in a file.
#[test]
fn half_a_line() {
    let servers = Servers::single("cdc-half");
    servers.say(ACCOUNTS);
    servers.say(&transfer(1, ""));
    let path = servers.folder.join("events");
    std::fs::write(&path, "{\"half").unwrap();
    // A file that is open for writing alone is read by its name in /proc.
    let has_names = std::path::Path::new("/proc/self/fd").exists();
    for count in [2, 3] {
        let is_read = count == 3 || !has_names;
        let file = std::fs::File::options().read(is_read).append(true).open(&path).unwrap();
        let status = servers.command(&["cdc", "--until=now"]).stdout(file).status().unwrap();
        assert!(status.success());
        let found = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!((lines[0], lines.len()), ("{\"half", count), "{found}");
        assert_eq!(events(&found[lines[0].len() + 1..]).len(), count - 1);
    }
}

/// Creates transfers with the ids from 1 to this one.
pub fn create_many(servers: &Servers, count: u128) {
    let mut client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
    let ids: Vec<u128> = (1..=count).collect();
    for part in ids.chunks(200) {
        let transfers: Vec<Transfer> =
            part.iter().map(|id| Transfer { id: *id, ..plain() }).collect();
        client.create_transfers(&transfers).unwrap();
    }
}

/// Goal: a reader that does not read delays neither a signal nor acknowledgements; the events that
/// the pipe did not take come after a restart, and no line is cut off.
#[test]
fn reader_sleeps() {
    const COUNT: u128 = 1000;
    let servers = Servers::single("cdc-sleeps");
    servers.say(ACCOUNTS);
    create_many(&servers, COUNT);
    let words = ["cdc", &cursor_option(&servers), "--until=now"];
    let mut stream = Following::start(servers.command(&words));
    assert_eq!(stream.line()["transfer_id"], "1");
    // Much more is ready than a pipe takes: it waits.
    std::thread::sleep(Duration::from_millis(500));
    send(&stream.process, "-TERM");
    assert_eq!(stream.wait(), Some(0));
    let mut found = events(&stream.rest());
    assert!(found.len() < 500, "{}", found.len());
    found.extend(events(&servers.stdout(&words)));
    let ids: Vec<String> = found.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, (2..=COUNT).map(|id| id.to_string()).collect::<Vec<_>>());

    let path = servers.folder.join("cursor");
    std::fs::remove_file(&path).unwrap();
    let mut reader = Acknowledging::start(&servers, &[]);
    let (_, first) = reader.next();
    std::thread::sleep(Duration::from_millis(500));
    reader.acknowledge(&first);
    let begin = Instant::now();
    loop {
        let cursor: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if cursor["timestamp"] == *first {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{cursor}");
        std::thread::sleep(Duration::from_millis(20));
    }
    send(&reader.stream.process, "-TERM");
    assert_eq!(reader.stream.wait(), Some(0));
}

/// Goal: a stream into a file that is killed again and again leaves no event out.
#[test]
fn killed_without_acknowledgements() {
    const COUNT: u128 = 4000;
    let servers = Servers::single("cdc-killed");
    servers.say(ACCOUNTS);
    create_many(&servers, COUNT);
    let path = servers.folder.join("events");
    let start = |more: &str| {
        let file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        let mut command = servers.command(&["cdc", &cursor_option(&servers), more]);
        command.stdout(file).spawn().unwrap()
    };
    let size = || std::fs::metadata(&path).map_or(0, |facts| facts.len());
    for _ in 0..4 {
        let before = size();
        let mut process = start("--follow");
        let begin = Instant::now();
        while size() == before && begin.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert!(start("--until=now").wait().unwrap().success());
    let found = std::fs::read_to_string(&path).unwrap();
    let is_whole = |line: &&str| serde_json::from_str::<Value>(line).is_ok();
    let (whole, halves): (Vec<&str>, Vec<&str>) = found.lines().partition(is_whole);
    assert!(halves.len() <= 4, "a kill cuts off one line, and nothing follows on it: {halves:?}");
    let found = events(&whole.join("\n"));
    let mut ids: Vec<u128> = found.iter().map(|(id, _)| id.parse().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids == (1..=COUNT).collect::<Vec<_>>(), "{} of {COUNT}", ids.len());
}

/// Creates transfers of amount 1 with these ids, imported from this moment on, one nanosecond
/// apart.
fn import(client: &mut Client, ids: std::ops::Range<u128>, mut timestamp: u64) {
    let ids: Vec<u128> = ids.collect();
    for part in ids.chunks(200) {
        let transfers: Vec<Transfer> = part
            .iter()
            .map(|id| {
                timestamp += 1;
                let flags = transfer_flags::IMPORTED;
                Transfer { id: *id, flags, timestamp, ..plain() }
            })
            .collect();
        let created = CreateTransferStatus::Created.number();
        let results = client.create_transfers(&transfers).unwrap();
        assert!(results.iter().all(|result| result.status == created), "{:?}", results[0]);
    }
}

fn plain() -> Transfer {
    Transfer {
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 1,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    }
}

fn cursor_option(servers: &Servers) -> String {
    format!("--cursor={}", servers.folder.join("cursor").display())
}

/// Goal: more late transfers than fit any page all come, in their order and marked, from a cursor
/// and while following; expiries between them come once.
#[test]
fn late_imports_without_end() {
    const COUNT: u128 = 9000;
    let servers = Servers::single("cdc-late-many");
    servers.say(ACCOUNTS);
    let pending = servers.say_at(&transfer(1, "flags=pending timeout=1"));
    let cursor = cursor_option(&servers);
    let mut stream = Following::start(servers.command(&["cdc", "--idle=10"]));
    assert_eq!(stream.line()["type"], "two_phase_pending");
    assert_eq!(stream.line()["type"], "two_phase_expired");
    assert_eq!(events(&servers.stdout(&["cdc", &cursor, "--until=now"])).len(), 2);
    let mut client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
    import(&mut client, 100..100 + COUNT, pending);
    client.create_transfers(&[Transfer { id: 5, ..plain() }]).unwrap();
    let output = servers.stdout(&["cdc", &cursor, "--until=now"]);
    let ids: Vec<u128> = (100..100 + COUNT).chain([5]).collect();
    let found: Vec<u128> = events(&output).iter().map(|(id, _)| id.parse().unwrap()).collect();
    assert!(found == ids, "{} of {COUNT}", found.len());
    assert_eq!(output.matches("\"late\":true").count(), usize::try_from(COUNT).unwrap());
    for id in ids {
        assert_eq!(stream.line()["transfer_id"], id.to_string());
    }
}

/// Goal: the cursor of a ledger whose older copy was restored is refused, with the moments between
/// which the histories part; one that the copy has seen is not.
#[test]
fn other_histories() {
    let mut servers = Servers::single("cdc-history");
    let words = ["cdc", &cursor_option(&servers), "--until=now"];
    servers.say(ACCOUNTS);
    let common = servers.say_at(&transfer(1, ""));
    assert_eq!(servers.stdout(&words).lines().count(), 1);
    servers.end(0, "-TERM");
    let copy = servers.folder.join("copy");
    std::fs::copy(servers.path(), &copy).unwrap();
    servers.restart();
    servers.say(&transfer(2, ""));
    let lost = servers.say_at(&transfer(3, ""));
    servers.end(0, "-TERM");
    let later = std::fs::read(servers.path()).unwrap();
    std::fs::copy(&copy, servers.path()).unwrap();
    servers.restart();
    // The cursor has seen nothing yet that this history does not have.
    servers.say(&transfer(4, ""));
    let other = servers.folder.join("other");
    std::fs::copy(servers.folder.join("cursor"), &other).unwrap();
    let also = format!("--cursor={}", other.display());
    assert_eq!(servers.stdout(&["cdc", &also, "--until=now"]).lines().count(), 1);
    servers.end(0, "-TERM");
    std::fs::write(servers.path(), later).unwrap();
    servers.restart();
    assert_eq!(servers.stdout(&words).lines().count(), 2);
    servers.end(0, "-TERM");
    std::fs::copy(&copy, servers.path()).unwrap();
    servers.restart();
    servers.say(&transfer(4, ""));
    let output = servers.output(&words);
    let errors = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(11), String::new()), "{errors}");
    assert!(errors.contains("is of another history"), "{errors}");
    let same = errors.find("the same up to").unwrap();
    assert!(errors[same..].contains(&common.to_string()), "{errors}");
    assert!(errors.ends_with(&format!("--from={}\n", common + 1)), "{errors}");
    assert!(errors[..same].contains(&lost.to_string()), "{errors}");
}

/// Goal: a stream that runs while another history takes the place of its ledger ends before the
/// first event of it; its cursor is refused there, and is still that of its own history.
#[test]
fn other_history_while_following() {
    let mut servers = Servers::single("cdc-swap");
    servers.say(ACCOUNTS);
    servers.say(&transfer(1, ""));
    servers.end(0, "-TERM");
    let (own, copy) = (servers.path(), servers.folder.join("copy"));
    std::fs::copy(&own, &copy).unwrap();
    servers.restart_there(&own);
    let words = ["cdc", &cursor_option(&servers), "--idle=10"];
    let mut streams =
        [&words[..], &["cdc", "--idle=10"]].map(|words| Following::start(servers.command(words)));
    for stream in &mut streams {
        assert_eq!(stream.line()["transfer_id"], "1");
    }
    for id in [2, 3] {
        servers.say(&transfer(id, ""));
        for stream in &mut streams {
            assert_eq!(stream.line()["transfer_id"], id.to_string());
        }
    }
    servers.end(0, "-TERM");
    servers.restart_there(&copy);
    servers.say(&transfer(4, ""));
    servers.say(&transfer(5, ""));
    for stream in &mut streams {
        assert_eq!((stream.rest(), stream.wait()), (String::new(), Some(11)));
        let errors = stream.errors();
        assert!(errors.contains("of another history"), "{errors}");
    }
    let until = ["cdc", words[1], "--until=now"];
    assert_eq!(servers.output(&until).status.code(), Some(11));
    servers.end(0, "-TERM");
    servers.restart_there(&own);
    assert_eq!(servers.stdout(&until), "");
}

/// Goal: a stream whose session is part of the copy that is restored beside it does not wait for
/// ever: it finds that the history is another one.
#[test]
fn restored_with_its_session() {
    let mut servers = Servers::single("cdc-session");
    servers.say(ACCOUNTS);
    servers.say(&transfer(1, ""));
    servers.end(0, "-TERM");
    let (own, copy) = (servers.path(), servers.folder.join("copy"));
    servers.restart_there(&own);
    let mut stream = Following::start(servers.command(&["cdc", "--idle=10"]));
    assert_eq!(stream.line()["transfer_id"], "1");
    servers.end(0, "-TERM");
    std::fs::copy(&own, &copy).unwrap();
    servers.restart_there(&own);
    for id in [2, 3] {
        servers.say(&transfer(id, ""));
        assert_eq!(stream.line()["transfer_id"], id.to_string());
    }
    servers.end(0, "-TERM");
    servers.restart_there(&copy);
    servers.say(&transfer(4, ""));
    servers.say(&transfer(5, ""));
    assert_eq!((stream.rest(), stream.wait()), (String::new(), Some(11)));
    let errors = stream.errors();
    assert!(errors.contains("of another history"), "{errors}");
}

/// Goal: of two processes with one cursor the second is refused; the first is not disturbed.
#[test]
fn one_process_per_cursor() {
    let servers = Servers::single("cdc-two");
    servers.say(ACCOUNTS);
    let words = ["cdc", &cursor_option(&servers), "--idle=10"];
    let mut stream = Following::start(servers.command(&words));
    servers.say(&transfer(1, ""));
    stream.line();
    let output = servers.output(&words);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("in use by another"), "{}", text(&output.stderr));
    assert_eq!(output.stdout, b"");
    servers.say(&transfer(2, ""));
    assert_eq!(stream.line()["transfer_id"], "2");
    send(&stream.process, "-KILL");
    stream.wait();
    assert_eq!(servers.output(&["cdc", words[1], "--until=now"]).status.code(), Some(0));
}

/// Goal: a cursor ahead of the ledger is refused before any event; the first kind of cursor is read
/// and becomes one of today's.
#[test]
fn cursors_of_the_future_and_the_past() {
    let servers = Servers::single("cdc-future");
    servers.say(ACCOUNTS);
    let first = servers.say_at(&transfer(1, ""));
    servers.say(&transfer(2, ""));
    let path = servers.folder.join("cursor");
    let words = ["cdc", &cursor_option(&servers), "--until=now"];
    let old = |timestamp: u64| {
        let timestamp = timestamp.to_string();
        let cursor = json!({
            "cluster": "0", "timestamp": timestamp, "transfer_timestamp": timestamp
        });
        std::fs::write(&path, cursor.to_string()).unwrap();
    };
    old(first + 3_600_000_000_000);
    let output = servers.output(&words);
    let errors = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(11), String::new()), "{errors}");
    assert!(errors.contains("the cluster's time is"), "{errors}");
    old(first);
    assert_eq!(events(&servers.stdout(&words)).len(), 1);
    let cursor: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(cursor["event"].as_str().unwrap().starts_with("transfer:"), "{cursor}");
    assert_eq!(servers.stdout(&words), "");
}

/// Goal: a stream that begins now and sees nothing before it is ended begins there the next time;
/// what is imported with an older timestamp after its begin is part of it.
#[test]
fn begins_now() {
    let servers = Servers::single("cdc-now");
    servers.say(ACCOUNTS);
    let first = servers.say_at(&transfer(1, ""));
    let words = ["cdc", &cursor_option(&servers), "--from=now", "--until=now"];
    assert_eq!(servers.stdout(&words), "");
    servers.say(&transfer(2, &format!("flags=imported timestamp={}", first + 1)));
    servers.say(&transfer(3, ""));
    let ids: Vec<String> = events(&servers.stdout(&words)).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["2", "3"]);
}

/// Goal: when all places are taken the stream says so, waits for one, and begins when there is one.
#[test]
fn waits_for_a_place() {
    let servers = Servers::single("cdc-places");
    servers.say(ACCOUNTS);
    servers.say(&transfer(1, ""));
    let taken: Vec<TcpStream> =
        (0..100).map_while(|_| TcpStream::connect(&servers.addresses).ok()).collect();
    let begin = Instant::now();
    let output = servers.output(&["cdc", "--until=now", "--deadline=2"]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{errors}");
    assert!(errors.contains("no room for more clients; still trying, for 2 s at most"), "{errors}");
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    let mut stream = Following::start(servers.command(&["cdc", "--until=now"]));
    let mut said = String::new();
    let mut errors = BufReader::new(stream.process.stderr.take().unwrap());
    errors.read_line(&mut said).unwrap();
    assert!(said.contains("no room for more clients; still trying"), "{said}");
    drop(taken);
    assert_eq!(stream.line()["transfer_id"], "1");
    assert_eq!(stream.wait(), Some(0));
}

/// Goal: accounts are events, each before its first transfer; events are selected by ledger, code
/// and account; a cursor belongs to its selection.
#[test]
fn selections() {
    let servers = Servers::single("cdc-selections");
    servers.say(ACCOUNTS);
    servers.say(&transfer(1, ""));
    servers.say("create_accounts id=3 ledger=2 code=7 flags=history, id=4 ledger=2 code=8;");
    servers.say(
        "create_transfers id=2 debit_account_id=3 credit_account_id=4 amount=5 ledger=2 code=9;",
    );
    let shown = |words: &[&str]| -> Vec<String> {
        let output = servers.stdout(&[&["cdc", "--until=now"], words].concat());
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            match event["type"].as_str().unwrap() {
                "account_created" => format!("account {}", event["id"].as_str().unwrap()),
                _ => event["transfer_id"].as_str().unwrap().to_owned(),
            }
        };
        output.lines().map(event).collect()
    };
    let all = ["account 1", "account 2", "1", "account 3", "account 4", "2"];
    assert_eq!(shown(&["--what=all"]), all);
    assert_eq!(shown(&["--what=accounts,transfers"]), all);
    assert_eq!(shown(&[]), ["1", "2"]);
    assert_eq!(shown(&["--what=accounts"]), ["account 1", "account 2", "account 3", "account 4"]);
    assert_eq!(shown(&["--what=all", "--ledger=2,5"]), ["account 3", "account 4", "2"]);
    assert_eq!(shown(&["--what=all", "--code=7,9"]), ["account 3", "2"]);
    assert_eq!(shown(&["--what=all", "--account=2,4"]), ["account 2", "1", "account 4", "2"]);
    assert_eq!(shown(&["--what=all", "--ledger=1", "--account=4"]), [""; 0]);
    let cursor = cursor_option(&servers);
    assert_eq!(shown(&["--what=all", "--ledger=2", &cursor]).len(), 3);
    assert_eq!(shown(&["--what=all", "--ledger=2", &cursor]).len(), 0);
    let output = servers.output(&["cdc", "--until=now", "--what=all", &cursor]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("`--what=all --ledger=2`, this one has `--what=all`"), "{errors}");
}

/// A stream whose reader acknowledges.
struct Acknowledging {
    stream: Following,
    input: std::process::ChildStdin,
}

impl Acknowledging {
    fn start(servers: &Servers, words: &[&str]) -> Acknowledging {
        let cursor = cursor_option(servers);
        let mut command =
            servers.command(&[&["cdc", &cursor, "--ack=stdin", "--idle=10"], words].concat());
        command.stdin(Stdio::piped());
        let mut stream = Following::start(command);
        let input = stream.process.stdin.take().unwrap();
        Acknowledging { stream, input }
    }

    /// The next event's id and timestamp.
    fn next(&mut self) -> (String, String) {
        let event = self.stream.line();
        let field = |name: &str| event[name].as_str().unwrap().to_owned();
        (field("transfer_id"), field("timestamp"))
    }

    fn acknowledge(&mut self, timestamp: &str) {
        writeln!(self.input, "{timestamp}").unwrap();
    }
}

/// Goal: a reader that takes one event at a time and ends, again and again, gets each when it
/// acknowledges; what it has only read comes again.
#[test]
fn acknowledged_one_at_a_time() {
    let servers = Servers::single("cdc-ack");
    servers.say(ACCOUNTS);
    let ids = 1..=6;
    ids.clone().for_each(|id| drop(servers.say(&transfer(id, ""))));
    for id in ids {
        // The reader dies after it has read, before it acknowledges.
        let mut reader = Acknowledging::start(&servers, &[]);
        assert_eq!(reader.next().0, id.to_string());
        send(&reader.stream.process, if id % 2 == 0 { "-KILL" } else { "-TERM" });
        reader.stream.wait();
        let mut reader = Acknowledging::start(&servers, &[]);
        let (again, timestamp) = reader.next();
        assert_eq!(again, id.to_string());
        reader.acknowledge(&timestamp);
        drop(reader.input);
        assert_eq!(reader.stream.wait(), Some(0), "the end of standard input ends it");
    }
    let reader = Acknowledging::start(&servers, &["--until=now"]);
    let Acknowledging { mut stream, input } = reader;
    assert_eq!(stream.wait(), Some(0), "everything is acknowledged");
    drop(input);
}

/// Goal: no more than the window is printed ahead of the reader; one acknowledgement covers all
/// before it; the reader sees the end of its input before its last acknowledgement is waited for.
#[test]
fn windows() {
    let servers = Servers::single("cdc-window");
    servers.say(ACCOUNTS);
    (1..=5).for_each(|id| drop(servers.say(&transfer(id, ""))));
    let mut reader = Acknowledging::start(&servers, &["--until=now", "--ack-window=2"]);
    reader.next();
    let (_, second) = reader.next();
    reader.acknowledge(&second);
    assert_eq!(reader.next().0, "3");
    let (_, fourth) = reader.next();
    reader.acknowledge(&fourth);
    reader.acknowledge(&fourth);
    let (id, fifth) = reader.next();
    assert_eq!(id, "5");
    assert_eq!(reader.stream.rest(), "");
    reader.acknowledge(&fifth);
    assert_eq!(reader.stream.wait(), Some(0));
    assert_eq!(servers.stdout(&["cdc", &cursor_option(&servers), "--until=now"]), "");
}

/// Goal: an acknowledgement of an event that was not written ends the stream with an error; half
/// a line is none.
#[test]
fn wrong_acknowledgements() {
    let servers = Servers::single("cdc-ack-wrong");
    servers.say(ACCOUNTS);
    servers.say(&transfer(1, ""));
    for line in ["12345\n", "yes\n", "18446744073709551616\n", &"1".repeat(100)] {
        let mut reader = Acknowledging::start(&servers, &[]);
        reader.next();
        reader.input.write_all(line.as_bytes()).unwrap();
        assert_eq!(reader.stream.wait(), Some(1), "{line}");
    }
    let mut reader = Acknowledging::start(&servers, &[]);
    let (_, timestamp) = reader.next();
    write!(reader.input, "{timestamp}").unwrap();
    drop(reader.input);
    assert_eq!(reader.stream.wait(), Some(0));
    let mut reader = Acknowledging::start(&servers, &[]);
    assert_eq!(reader.next().1, timestamp, "it comes again");
}

/// Goal: acknowledgements before a wrong one count, and so do those that are there when the user
/// ends the stream.
#[test]
fn acknowledged_before_the_end() {
    let servers = Servers::single("cdc-ack-end");
    servers.say(ACCOUNTS);
    (1..=3).for_each(|id| drop(servers.say(&transfer(id, ""))));
    let mut reader = Acknowledging::start(&servers, &[]);
    let (_, first) = reader.next();
    let (_, second) = reader.next();
    // In one piece.
    reader.input.write_all(format!("{first}\n12345\n{second}\n").as_bytes()).unwrap();
    assert_eq!(reader.stream.wait(), Some(1));
    let mut reader = Acknowledging::start(&servers, &[]);
    assert_eq!(reader.next().0, "2");
    send(&reader.stream.process, "-STOP");
    reader.acknowledge(&second);
    send(&reader.stream.process, "-TERM");
    std::thread::sleep(Duration::from_millis(300));
    send(&reader.stream.process, "-CONT");
    assert_eq!(reader.stream.wait(), Some(0));
    assert_eq!(Acknowledging::start(&servers, &[]).next().0, "3");
}

/// All events of [`twins`], with `--what=all`.
const TWINS: [&str; 11] = [
    "1 account_created",
    "2 account_created",
    "1 two_phase_pending",
    "2 two_phase_pending",
    "1 two_phase_expired",
    "3 account_created",
    "2 two_phase_expired",
    "3 single_phase",
    "4 single_phase",
    "5 single_phase",
    "6 single_phase",
];

/// Two linked holds expire. An imported account has the timestamp of the first expiry, an imported
/// transfer that of the second one. Returns both timestamps, each with the place of its expiry.
fn twins(name: &str) -> (Servers, [(u64, usize); 2]) {
    let servers = Servers::single(name);
    servers.say(ACCOUNTS);
    servers.say(
        "create_transfers \
         id=1 debit_account_id=1 credit_account_id=2 amount=1 ledger=1 code=1 \
         flags=linked|pending timeout=1, \
         id=2 debit_account_id=1 credit_account_id=2 amount=1 ledger=1 code=1 \
         flags=pending timeout=2;",
    );
    let mut stream = Following::start(servers.command(&["cdc", "--idle=10"]));
    let mut expiry = || loop {
        let event = stream.line();
        if event["type"] == "two_phase_expired" {
            return event["timestamp"].as_str().unwrap().parse::<u64>().unwrap();
        }
    };
    let [first, second] = [expiry(), expiry()];
    let account = format!("id=3 ledger=1 code=1 flags=imported timestamp={first}");
    servers.say_at(&format!("create_accounts {account};"));
    servers.say_at(&transfer(3, &format!("flags=imported timestamp={second}")));
    (4..=6).for_each(|id| drop(servers.say(&transfer(id, ""))));
    (servers, [(first, 4), (second, 6)])
}

/// The next events: id of the account or transfer, and type.
fn next_events(reader: &mut Acknowledging, count: usize) -> Vec<String> {
    let mut next = || {
        let event = reader.stream.line();
        let id = event.get("transfer_id").unwrap_or(&event["id"]);
        format!("{} {}", id.as_str().unwrap(), event["type"].as_str().unwrap())
    };
    (0..count).map(|_| next()).collect()
}

/// Goal: a reader that is killed after it acknowledged the first of two events with the same
/// timestamp gets the second one.
#[test]
fn twins_acknowledged_one_by_one() {
    let (servers, twins) = twins("cdc-twins");
    let mut begin = 0;
    for (timestamp, place) in twins {
        for last in [place + 1, place + 2] {
            let mut reader = Acknowledging::start(&servers, &["--what=all"]);
            assert_eq!(next_events(&mut reader, last - begin + 1), TWINS[begin..=last]);
            reader.acknowledge(&timestamp.to_string());
            drop(reader.input);
            assert_eq!(reader.stream.wait(), Some(0));
            begin = last;
        }
    }
}

/// Goal: a reader that acknowledges both events of one timestamp at once is not waited for: neither
/// at the end nor with a full window.
#[test]
fn twins_acknowledged_together() {
    let (servers, twins) = twins("cdc-twins-together");
    let mut begin = 0;
    for (timestamp, place) in twins {
        let until = format!("--until={timestamp}");
        let mut reader = Acknowledging::start(&servers, &["--what=all", &until]);
        assert_eq!(next_events(&mut reader, place + 2 - begin), TWINS[begin..place + 2]);
        reader.acknowledge(&timestamp.to_string());
        assert_eq!(reader.stream.wait(), Some(0));
        begin = place + 1;
    }
    std::fs::remove_file(servers.folder.join("cursor")).unwrap();
    let (timestamp, place) = twins[1];
    let from = format!("--from={timestamp}");
    let words = ["--what=all", &from, "--ack-window=2", "--until=now"];
    let mut reader = Acknowledging::start(&servers, &words);
    assert_eq!(next_events(&mut reader, 2), TWINS[place..place + 2]);
    reader.acknowledge(&timestamp.to_string());
    reader.next();
    let (id, timestamp) = reader.next();
    assert_eq!(id, "5", "both made room");
    reader.acknowledge(&timestamp);
    let (_, timestamp) = reader.next();
    reader.acknowledge(&timestamp);
    assert_eq!(reader.stream.wait(), Some(0));
}

/// Goal: a reader that acknowledges the first lines of many and closes a pipe which is full is not
/// told that it is wrong, and gets the others the next time.
#[test]
fn acknowledged_before_the_pipe_breaks() {
    let servers = Servers::single("cdc-ack-pipe");
    servers.say(ACCOUNTS);
    let mut client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
    let transfers: Vec<Transfer> = (1..=250).map(|id| Transfer { id, ..plain() }).collect();
    client.create_transfers(&transfers).unwrap();
    for id in 1..=3 {
        let mut reader = Acknowledging::start(&servers, &[]);
        let (found, timestamp) = reader.next();
        assert_eq!(found, id.to_string());
        reader.acknowledge(&timestamp);
        reader.stream.close();
        drop(reader.input);
        assert_eq!(reader.stream.wait(), Some(0));
    }
}

/// Goal: a reader that closes a pipe which is full leaves the cursor where it was.
#[test]
fn cursor_stays_when_the_pipe_breaks() {
    let servers = Servers::single("cdc-pipe");
    servers.say(ACCOUNTS);
    let mut client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
    let transfers: Vec<Transfer> = (1..=250).map(|id| Transfer { id, ..plain() }).collect();
    client.create_transfers(&transfers).unwrap();
    let words = ["cdc", &cursor_option(&servers)];
    for _ in 0..3 {
        let mut stream = Following::start(servers.command(&words));
        assert_eq!(stream.line()["transfer_id"], "1");
        stream.close();
        assert_eq!(stream.wait(), Some(0));
    }
}

/// Goal: the program of OPERATING.md keeps every event exactly once while both sides are killed.
#[test]
fn program_of_the_documentation() {
    let servers = Servers::single("cdc-program");
    servers.say(ACCOUNTS);
    let page = include_str!("../../docs/OPERATING.md");
    let program =
        page.split("```python\n").skip(1).find(|part| part.contains("--ack=stdin")).unwrap();
    let program = program.split("```").next().unwrap();
    let bin = servers.folder.join("bin");
    std::fs::create_dir(&bin).unwrap();
    // Leaves its number behind, for whoever kills it.
    let pid = servers.folder.join("pid");
    let script = format!(
        "#!/bin/sh\necho $$ > {0}.new && mv {0}.new {0}\nexec {1} \"$@\"\n",
        pid.display(),
        env!("CARGO_BIN_EXE_florin")
    );
    std::fs::write(bin.join("florin"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("florin"), mode).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let address = format!("--addresses={}", servers.addresses);
    let start = |until: &str| {
        Command::new("python3")
            .args(["-c", program, &address, "--idle=10", until])
            .current_dir(&servers.folder)
            .env("PATH", &path)
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    };
    let count = 40;
    for id in 1..=count {
        servers.say(&transfer(id, ""));
        if id % 10 == 0 {
            let _ = std::fs::remove_file(&pid);
            let mut reader = start("--follow");
            std::thread::sleep(Duration::from_millis(u64::from(id) * 5));
            if id % 20 == 0 {
                while !pid.exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let child = std::fs::read_to_string(&pid).unwrap();
                let status = Command::new("kill").args(["-KILL", child.trim()]).status().unwrap();
                assert!(status.success(), "{child}");
                assert!(!reader.wait().unwrap().success(), "it reports the end of cdc");
                continue;
            }
            reader.kill().unwrap();
            reader.wait().unwrap();
            // The stream sees the end of its standard input, and lets go of the cursor.
        }
    }
    let begin = Instant::now();
    while !start("--until=now").wait().unwrap().success() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the cursor is free soon");
        std::thread::sleep(Duration::from_millis(100));
    }
    let query = "import sqlite3; print(*sqlite3.connect('events.db').execute(\
                 'select count(*), count(distinct event) from events').fetchone())";
    let output = Command::new("python3").args(["-c", query]).current_dir(&servers.folder).output();
    assert_eq!(text(&output.unwrap().stdout), format!("{count} {count}\n"));
}
