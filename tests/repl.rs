//! `florin repl` as people and scripts use it, against a server of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[path = "support/program.rs"]
mod program;
#[path = "support/serve_dev.rs"]
mod serve_dev;

use serde_json::Value;
use serve_dev::serve_dev;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A server with an empty ledger, ended and removed at the end of the test.
struct Server {
    process: Child,
    address: String,
    folder: PathBuf,
}

impl Server {
    fn start(name: &str) -> Server {
        let name = format!("florin-test-repl-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let (process, address) = serve_dev(&folder.join("dev.florin"));
        Server { process, address, folder }
    }

    /// Runs the binary with this input.
    fn repl(&self, arguments: &[&str], input: &str) -> Output {
        let mut process = florin(&["repl", &format!("--addresses={}", self.address)])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that does not read its input may have ended already.
        let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
        process.wait_with_output().unwrap()
    }

    /// The output for this input, which shall succeed.
    fn script(&self, input: &str) -> String {
        let output = self.repl(&["--format=table"], input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
        text(&output.stdout)
    }

    /// The results of one statement, as JSON.
    fn json(&self, statement: &str) -> Value {
        let output = self.repl(&["--format=json", &format!("--command={statement}")], "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["results"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn florin(arguments: &[&str]) -> Command {
    let mut command = program::florin();
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Timestamps and durations look the same every time; empty lines don't matter.
fn normalized(output: &str) -> String {
    let mut lines = Vec::new();
    for line in output.lines().filter(|line| !line.is_empty()) {
        let line = match line.rsplit_once(", ") {
            Some((line, time)) if time.ends_with(" ms") => line,
            _ => line,
        };
        let is_timestamp =
            |word: &&str| word.len() == 19 && word.bytes().all(|b| b.is_ascii_digit());
        let timestamps: Vec<&str> = line.split(' ').filter(is_timestamp).collect();
        let line = timestamps.iter().fold(line.to_owned(), |line, timestamp| {
            line.replace(timestamp, "TTTTTTTTTTTTTTTTTTT")
        });
        lines.push(line);
    }
    lines.join("\n")
}

const ACCOUNTS: &str = "create_accounts id=1 code=10 ledger=700 flags=history,\n\
    id=2 code=10 ledger=700 user_data_64=7;\n";

/// Goal: every statement does what it says, from a script.
#[test]
fn statements() {
    let server = Server::start("statements");
    let output = server.script(&format!(
        "{ACCOUNTS}create_transfers id=0x10 debit_account_id=1 credit_account_id=2 amount=25 \
         ledger=700 code=1;"
    ));
    assert!(output.contains(" 1  created "), "{output}");
    assert!(output.contains("2 accounts\n") && output.ends_with("1 transfer\n"), "{output}");

    let accounts = server.json("lookup_accounts id=1, id=2, id=3;");
    assert_eq!(accounts.as_array().unwrap().len(), 2);
    assert_eq!(accounts[0]["debits_posted"], "25");
    assert_eq!(accounts[0]["flags"], serde_json::json!(["history"]));
    assert_eq!(accounts[1]["credits_posted"], "25");
    let transfers = server.json("lookup_transfers id=16");
    assert_eq!(transfers[0]["amount"], "25");
    assert_eq!(server.json("get_account_transfers account_id=1 flags=debits;"), transfers);
    assert_eq!(
        server.json("get_account_transfers account_id=1 flags=credits;"),
        Value::from(vec![Value::Null; 0])
    );
    let balances = server.json("get_account_balances account_id=1;");
    assert_eq!(balances[0]["debits_posted"], "25");
    assert_eq!(balances[0]["timestamp"], transfers[0]["timestamp"]);
    assert_eq!(server.json("query_accounts user_data_64=7;")[0]["id"], "2");
    assert_eq!(server.json("query_transfers code=1 flags=reversed limit=1;"), transfers);
    let events = server.json("get_change_events limit=10;");
    assert_eq!(events[0]["type"], "single_phase");
    assert_eq!(events[0]["transfer_id"], "16");
    assert_eq!(events[0]["credit_account_credits_posted"], "25");
}

/// Goal: one document for each statement that asks the cluster.
#[test]
fn json_documents() {
    let server = Server::start("json");
    let output = server.repl(&["--format=json"], &format!("{ACCOUNTS}query_accounts;"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let documents: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[0]["statement"], "create_accounts");
    assert_eq!(documents[0]["results"][1]["status"], "created");
    assert_eq!(documents[1]["results"].as_array().unwrap().len(), 2);
}

/// Goal: a program that reads the answer gets the reference's form: an object for each result.
#[test]
fn objects_for_programs() {
    let server = Server::start("objects");
    let output = server.repl(&[], &format!("{ACCOUNTS}query_accounts; lookup_accounts id=9;"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let objects = serde_json::Deserializer::from_str(&shown).into_iter::<Value>();
    let objects: Vec<Value> = objects.map(Result::unwrap).collect();
    assert_eq!(objects.len(), 4, "{shown}");
    assert_eq!((&objects[0]["id"], &objects[0]["status"]), (&"1".into(), &"created".into()));
    assert_eq!((&objects[3]["code"], &objects[3]["user_data_64"]), (&"10".into(), &"7".into()));
}

/// Goal: a query whose results fill a reply says that there may be more; a larger limit and `--all`
/// read page after page, in both directions, each result once.
#[test]
fn more_than_a_page() {
    let server = Server::start("pages");
    for first in (0_u32..10_000).step_by(1000) {
        let objects: Vec<String> =
            (first + 1..=first + 1000).map(|id| format!("id={id} ledger=1 code=1")).collect();
        let output = server.repl(&[], &format!("create_accounts {};", objects.join(",")));
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let query = |options: &[&str], statement: &str| {
        let command = format!("--command={statement}");
        let output = server.repl(&[options, &["--format=json", &command]].concat(), "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = document["results"].as_array().unwrap().clone();
        let ids: Vec<u32> =
            rows.iter().map(|row| row["id"].as_str().unwrap().parse().unwrap()).collect();
        (ids, text(&output.stderr))
    };
    let all: Vec<u32> = (1..=10_000).collect();
    let (ids, note) = query(&[], "query_accounts");
    assert_eq!(ids, all[..8189]);
    assert!(note.contains("may be more") && note.contains("--all"), "{note}");
    for (options, statement, count) in [
        (vec![], "query_accounts limit=9000", 9000),
        (vec![], "query_accounts limit=100000", 10_000),
        (vec!["--all"], "query_accounts", 10_000),
    ] {
        let (ids, note) = query(&options, statement);
        assert_eq!((ids.as_slice(), note.as_str()), (&all[..count], ""), "{statement}");
        let (mut ids, _) = query(&options, &format!("{statement} flags=reversed"));
        ids.reverse();
        assert_eq!(ids, all[10_000 - count..], "{statement}");
    }
    // A limit that is given counts, whether or not all is wanted otherwise.
    for options in [&[][..], &["--all"]] {
        let first = query(options, "query_accounts limit=10");
        assert_eq!(first, (all[..10].to_vec(), String::new()));
        let (ids, _) = query(options, "query_accounts limit=10 flags=reversed");
        assert_eq!(ids, all[9990..].iter().rev().copied().collect::<Vec<u32>>());
    }
    // As a table, page behind page, with one summary and one numbering.
    let output = server.repl(&["--all", "--format=table", "--command=query_accounts"], "");
    let shown = text(&output.stdout);
    assert!(shown.ends_with("\n10000 accounts\n"), "{}", &shown[shown.len() - 200..]);
    assert_eq!(shown.matches(" accounts\n").count(), 1);
}

/// Goal: an account without balances over time is explained, as far as it can be.
#[test]
fn no_balances() {
    let server = Server::start("balances");
    server.script(ACCOUNTS);
    let note = |account_id: u32| {
        let command = format!("--command=get_account_balances account_id={account_id}");
        let output = server.repl(&["--format=json", &command], "");
        assert!(output.status.success());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["results"], Value::from(vec![Value::Null; 0]));
        text(&output.stderr)
    };
    assert_eq!(note(1), "", "it has a history, and no transfer yet");
    let without = "note: account 2 was created without flags=history: only its current balances \
                   are kept\n";
    assert_eq!(note(2), without);
    assert_eq!(note(3), "note: there is no account 3\n");
}

/// Goal: hints come on standard error before the answer, which is as it would be without.
#[test]
fn hints() {
    let server = Server::start("hints");
    let pending = "create_transfers id=9 debit_account_id=1 credit_account_id=2 amount=10 \
                   ledger=700 code=1 flags=pending;";
    server.script(&format!("{ACCOUNTS}{pending}"));
    let post = "create_transfers id=10 pending_id=9 flags=post_pending_transfer;";
    let output = server.repl(&["--format=table"], post);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("note: without `amount`, 0 of the pending"));
    assert_eq!(server.json("lookup_transfers id=10;")[0]["amount"], "0");
    let accounts = server.json("lookup_accounts id=1;");
    assert_eq!(
        (&accounts[0]["debits_pending"], &accounts[0]["debits_posted"]),
        (&"0".into(), &"0".into())
    );
}

/// Goal: each failure has its exit code, and nothing after a mistake is executed.
#[test]
fn exit_codes() {
    let server = Server::start("codes");
    let refused = "create_accounts id=1 code=0 ledger=1; create_accounts id=2 code=1 ledger=1;";
    let output = server.repl(&["--format=table"], refused);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("code_must_not_be_zero"));
    assert_eq!(text(&output.stderr), "florin: 1 event was refused\n");

    let output = server
        .repl(&["--format=table"], "query_accounts;\nlookup_accounts idd=1;\nquery_accounts;");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).ends_with("1 account\n"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("2 | lookup_accounts idd=1;\n  |                 ^^^\n"));

    let wrong = "--command=create_accounts id=3 code=1 ledger=1; nonsense;";
    assert_eq!(server.repl(&[wrong], "").status.code(), Some(2));
    assert_eq!(server.json("lookup_accounts id=3;").as_array().unwrap().len(), 0);

    let output = server.repl(&["--cluster=7", "--command=query_accounts;"], "");
    assert_eq!(output.status.code(), Some(7), "another cluster");
    assert!(text(&output.stderr).contains("not of cluster 7"), "{}", text(&output.stderr));

    for (list, code, part) in [
        ("nowhere.invalid:1", 7, "`nowhere.invalid` has no address"),
        ("nowhere.invalid:1,127.0.0.1:1", 7, "nowhere.invalid:1: the name has no address"),
        ("127.0.0.1:1", 7, "127.0.0.1:1: connection refused"),
    ] {
        let output = florin(&["repl", "--deadline=1", "--command=query_accounts"])
            .arg(format!("--addresses={list}"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{list}");
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

/// Goal: a name with several addresses is as good as an address.
#[test]
fn host_names() {
    let server = Server::start("names");
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let addresses = format!("--addresses=localhost:{port}");
    let output = florin(&["repl", &addresses, "--command=query_accounts", "--format=table"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "0 accounts\n", "{}", text(&output.stderr));
}

/// Goal: the transcript of the README is what happens: all of its four statements.
#[test]
fn readme_transcript() {
    let path = format!("{}/README.md", env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(path).unwrap();
    let mut blocks = readme.split("```console\n").filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.contains("$ florin repl\n> ")).expect("the transcript");
    let (mut shell, mut statements, mut expected) = (Vec::new(), String::new(), String::new());
    let mut is_statement = false;
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            shell.push(command);
        } else if let Some(statement) = line.strip_prefix("> ") {
            statements.push_str(statement);
            statements.push('\n');
            is_statement = !statement.ends_with(';');
        } else if is_statement {
            statements.push_str(line);
            statements.push('\n');
            is_statement = !line.ends_with(';');
        } else if !statements.is_empty() && !line.is_empty() {
            expected.push_str(line);
            expected.push('\n');
        }
    }
    assert_eq!(shell, ["export PATH=\"$PWD/target/release:$PATH\"", "florin repl"]);
    assert_eq!(statements.matches(';').count(), 4, "{statements}");
    assert_eq!(expected.matches("\n2 accounts, ").count(), 2, "{expected}");
    assert_eq!(expected.matches("\n1 transfer, ").count(), 2, "{expected}");
    let server = Server::start("readme");
    let output = server.script(&statements);
    assert_eq!(normalized(&output), normalized(&expected));
}

/// A terminal of 100 columns: the end of a person, and the end of a program.
#[allow(unsafe_code)]
fn terminal() -> (File, File) {
    use std::os::fd::AsRawFd;
    let person = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    let (unlocked, mut number) = (0_i32, 0_u32);
    let size = libc::winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let descriptor = person.as_raw_fd();
    // SAFETY: the descriptor is open, and each pointer is to a live value of the type of its call.
    unsafe {
        assert_eq!(libc::ioctl(descriptor, libc::TIOCSPTLCK, &raw const unlocked), 0);
        assert_eq!(libc::ioctl(descriptor, libc::TIOCGPTN, &raw mut number), 0);
        assert_eq!(libc::ioctl(descriptor, libc::TIOCSWINSZ, &raw const size), 0);
    }
    let program = File::options().read(true).write(true).open(format!("/dev/pts/{number}"));
    (person, program.unwrap())
}

/// The text on the screen so far, as it arrives.
struct Screen {
    arriving: Receiver<Vec<u8>>,
    text: String,
}

impl Screen {
    fn new(mut person: File) -> Screen {
        let (sender, arriving) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = person.read(&mut bytes) {
                if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Screen { arriving, text: String::new() }
    }

    /// Whether this text is there, or arrives within this time.
    fn has(&mut self, part: &str, time: Duration) -> bool {
        while !self.text.contains(part) {
            let Ok(bytes) = self.arriving.recv_timeout(time) else { return false };
            self.text.push_str(&text(&bytes));
        }
        true
    }

    /// Waits until this text is there, and forgets all up to it.
    fn expect(&mut self, part: &str) {
        loop {
            if let Some(position) = self.text.find(part) {
                self.text.drain(..position + part.len());
                return;
            }
            let bytes = self.arriving.recv_timeout(Duration::from_secs(60));
            let bytes = bytes.unwrap_or_else(|_| panic!("`{part}` does not come: {}", self.text));
            self.text.push_str(&text(&bytes));
        }
    }
}

/// A session of `florin repl` at a terminal of its own.
struct Session {
    process: Child,
    person: File,
    screen: Screen,
}

impl Session {
    /// Starts the program and waits for its first prompt.
    fn start(server: &Server, term: &str) -> Session {
        let (person, program) = terminal();
        let clone = || Stdio::from(program.try_clone().unwrap());
        let process = florin(&["repl", &format!("--addresses={}", server.address)])
            .env("XDG_STATE_HOME", &server.folder)
            .env("TERM", term)
            .env("NO_COLOR", "1")
            .stdin(clone())
            .stdout(clone())
            .stderr(clone())
            .spawn()
            .unwrap();
        let mut screen = Screen::new(person.try_clone().unwrap());
        screen.expect("> ");
        Session { process, person, screen }
    }

    fn types(&mut self, keys: &str) {
        self.person.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end of the program.
    fn ends(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

/// Goal: at a terminal words are completed, statements continue over lines, mistakes do not end
/// anything, and the history is there again in the next session.
#[test]
fn at_the_terminal() {
    let server = Server::start("terminal");
    let mut session = Session::start(&server, "xterm");
    session.types("nonsense;\r");
    session.screen.expect("error: no operation `nonsense`");
    session.screen.expect("> ");
    session.types("create_a\tid=1 ledger=1\r");
    session.types("code=1;\r");
    session.screen.expect("created");
    session.screen.expect("1 account, ");
    session.screen.expect("> ");
    session.types("\u{4}");
    assert!(session.ends().success());
    let mut session = Session::start(&server, "xterm");
    session.types("\u{1b}[A\r");
    session.screen.expect("exists");
    session.types("exit\r");
    assert!(session.ends().success());
    let history = std::fs::read_to_string(server.folder.join("florin").join("history")).unwrap();
    assert!(history.contains("create_accounts id=1 ledger=1"), "{history}");
}

fn create(id: u32) -> String {
    format!("create_accounts id={id} ledger=1 code=1;\r")
}

/// Goal: every statement that is typed ahead of the answers runs, in order: several lines at once,
/// statements over several lines, lines behind one that Ctrl-C discards, and lines that are typed
/// while an earlier statement runs.
#[test]
fn typed_ahead() {
    let server = Server::start("ahead");
    let mut session = Session::start(&server, "xterm");
    let mut lines: String = (1..=5).map(create).collect();
    lines.push_str("create_accounts\rid=6 ledger=1\rcode=1;\r");
    session.types(&lines);
    session.screen.expect("6  created");
    session.screen.expect("> ");
    session.types(&format!("create_accounts id=7 ledger=1\u{3}{}{}", create(8), create(9)));
    // More than the line editor reads at a time, and most of it while statements run.
    for id in 10..=60 {
        session.types(&create(id));
    }
    session.types("exit\r");
    assert!(session.ends().success());
    let accounts = server.json("query_accounts limit=100;");
    let accounts = accounts.as_array().unwrap().iter();
    let ids: Vec<&str> = accounts.map(|account| account["id"].as_str().unwrap()).collect();
    let expected: Vec<String> =
        (1..=60).filter(|id| *id != 7).map(|id: u32| id.to_string()).collect();
    assert_eq!(ids, expected);
}

/// Goal: Ctrl-C while a statement runs ends the wait, not the program; what was typed ahead is
/// discarded with it, and the next statement runs.
#[test]
fn interrupted_at_the_terminal() {
    let server = Server::start("interrupted");
    let mut session = Session::start(&server, "xterm");
    let signal = |name: &str, process: &Child| {
        let status = Command::new("kill").args([name, &process.id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP", &server.process);
    session.types(&format!("{}{}", create(1), create(2)));
    session.screen.expect("1 ledger=1 code=1;");
    session.screen.expect("\n");
    // There is no sign on the screen that the statement was sent: until then the signal is ignored.
    while !session.screen.has("interrupted while waiting", Duration::from_secs(5)) {
        signal("-INT", &session.process);
    }
    session.screen.expect("safe to retry");
    session.screen.expect("> ");
    signal("-CONT", &server.process);
    session.types(&create(3));
    session.screen.expect("3  created");
    session.types("exit\r");
    assert!(session.ends().success());
    assert_eq!(server.json("lookup_accounts id=2;").as_array().unwrap().len(), 0);
}

/// Goal: a failure within a pasted text ends it, and the statements behind it are counted and
/// listed: none vanishes in silence. Lines behind the paste run.
#[test]
fn pasted() {
    let server = Server::start("pasted");
    let mut session = Session::start(&server, "xterm");
    let lines = format!("{}nonsense;\r{}{}", create(1), create(2), create(3));
    session.types(&format!("\u{1b}[200~{lines}\u{1b}[201~\r"));
    session.screen.expect("1  created");
    session.screen.expect("error: no operation `nonsense`");
    session.screen.expect("The 2 statements behind it did not run:");
    session.screen.expect("  create_accounts id=2 ledger=1 code=1;");
    session.screen.expect("  create_accounts id=3 ledger=1 code=1;");
    session.screen.expect("> ");
    session.types(&create(4));
    session.screen.expect("4  created");
    session.types("exit\r");
    assert!(session.ends().success());
    let accounts = server.json("query_accounts;");
    let ids: Vec<&Value> = accounts.as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["1", "4"]);
}

/// Goal: on a terminal without an editor Ctrl-C ends the wait for an answer, too; the statements
/// behind it are listed; and a second SIGINT ends the program, even where it cannot notice one.
#[test]
fn interrupted_twice() {
    let server = Server::start("twice");
    let mut session = Session::start(&server, "dumb");
    let signal = |name: &str, process: &Child| {
        let status = Command::new("kill").args([name, &process.id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP", &server.process);
    session.types(&format!("{} {}", create(1).trim(), create(2)));
    session.screen.expect("id=2 ledger=1 code=1;");
    session.screen.expect("\n");
    // One signal is not lost: it ends the wait, whether or not that has begun.
    while !session.screen.has("interrupted while waiting", Duration::from_secs(5)) {
        signal("-INT", &session.process);
    }
    session.screen.expect("The statement behind it did not run:");
    session.screen.expect("  create_accounts id=2 ledger=1 code=1;");
    session.screen.expect("> ");
    signal("-CONT", &server.process);
    // Until the second of two signals: they may arrive as one.
    while session.process.try_wait().unwrap().is_none() {
        signal("-INT", &session.process);
        std::thread::yield_now();
    }
    assert_eq!(session.ends().code(), Some(130));
}
