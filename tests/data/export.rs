//! `florin export` and `florin balance`, from a cluster and from a data file.

use crate::cdc::create_many;
use crate::program::florin;
use crate::server::{Following, Servers, send, text};
use florin::client::{Client, Options};
use florin::protocol::types::{AMOUNT_MAX, Account, Transfer, account_flags, transfer_flags};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use zerocopy::FromBytes;

/// Balances and flags of an account as `lookup_accounts` had them.
pub type Seen = (u128, u128, u128, u128, u16);

fn seen(account: &Account) -> Seen {
    (
        account.debits_pending,
        account.debits_posted,
        account.credits_pending,
        account.credits_posted,
        account.flags,
    )
}

/// Balances and flags of a line of JSON.
pub fn shown(row: &Value) -> Seen {
    let number = |name: &str| row[name].as_str().unwrap().parse::<u128>().unwrap();
    let flags = row["flags"].as_array().unwrap();
    let bit = |name: &Value| match name.as_str().unwrap() {
        "history" => account_flags::HISTORY,
        "closed" => account_flags::CLOSED,
        other => panic!("{other}"),
    };
    (
        number("debits_pending"),
        number("debits_posted"),
        number("credits_pending"),
        number("credits_posted"),
        flags.iter().map(bit).sum(),
    )
}

/// The accounts at some moments.
struct Story {
    /// Moments with the four accounts as they were.
    moments: Vec<(u64, BTreeMap<u128, Seen>)>,
}

impl Story {
    /// Notes the accounts of now.
    fn note(&mut self, client: &mut Client) {
        let ids = [1_u128, 2, 3, 4];
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let reply = client.call_reply(florin::protocol::Operation::LookupAccounts, &bytes).unwrap();
        let timestamp = reply.facts.timestamp;
        let accounts = reply.results().unwrap().chunks_exact(128).map(|bytes| {
            let account = Account::read_from_bytes(bytes).unwrap();
            (account.id, seen(&account))
        });
        self.moments.push((timestamp, accounts.collect()));
    }
}

fn create(client: &mut Client, transfer: &Transfer) {
    let results = client.create_transfers(&[*transfer]).unwrap();
    assert_eq!(results[0].status, u32::MAX, "{transfer:?}");
}

/// Executes plain transfers, and pending ones that are posted in part, voided, expire, close an
/// account and reopen it. Notes the accounts after each step.
fn tell(servers: &Servers) -> Story {
    let mut client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
    let account = |id, flags| Account { id, ledger: 7, code: 1, flags, ..Account::default() };
    client.create_accounts(&[account(1, account_flags::HISTORY), account(2, 0)]).unwrap();
    let mut story = Story { moments: Vec::new() };
    story.note(&mut client);
    client.create_accounts(&[account(3, 0), account(4, 0)]).unwrap();
    let transfer = |id, amount, flags| Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount,
        ledger: 7,
        code: 1,
        flags,
        ..Transfer::default()
    };
    let resolve = |id, pending_id, amount, flags| Transfer {
        id,
        pending_id,
        amount,
        flags,
        ..Transfer::default()
    };
    let closing = transfer_flags::PENDING | transfer_flags::CLOSING_CREDIT;
    for step in [
        transfer(10, 100, 0),
        transfer(11, 50, transfer_flags::PENDING),
        resolve(12, 11, 30, transfer_flags::POST_PENDING_TRANSFER),
        transfer(13, 7, transfer_flags::PENDING),
        resolve(14, 13, 0, transfer_flags::VOID_PENDING_TRANSFER),
        Transfer { credit_account_id: 3, ..transfer(15, 0, closing) },
        resolve(16, 15, 0, transfer_flags::VOID_PENDING_TRANSFER),
        Transfer { timeout: 1, ..transfer(17, 9, transfer_flags::PENDING) },
        Transfer { credit_account_id: 3, timeout: 1, ..transfer(18, 4, closing) },
    ] {
        create(&mut client, &step);
        story.note(&mut client);
    }
    // Until both have expired, as the cluster sees it.
    while client.lookup_accounts(&[1]).unwrap()[0].debits_pending > 0 {
        story.note(&mut client);
    }
    story.note(&mut client);
    // The same amount is pending again as before the expiry.
    create(&mut client, &transfer(19, 9, transfer_flags::PENDING));
    story.note(&mut client);
    create(&mut client, &transfer(20, 1, 0));
    create(&mut client, &resolve(21, 19, AMOUNT_MAX, transfer_flags::POST_PENDING_TRANSFER));
    story.note(&mut client);
    // Closed for good.
    create(&mut client, &Transfer { credit_account_id: 4, ..transfer(22, 0, closing) });
    story.note(&mut client);
    story
}

/// The rows that an export writes, by account.
pub fn balances(output: &str) -> BTreeMap<u128, Seen> {
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        (row["account_id"].as_str().unwrap().parse().unwrap(), shown(&row))
    };
    output.lines().map(row).collect()
}

/// Goal: at every noted moment, `export` and `balance` report what `lookup_accounts` returned then:
/// after plain, pending, posted, voided, expired and closing transfers. An account that did not
/// exist then is absent.
#[test]
fn balances_at_every_moment() {
    let servers = Servers::single("export-moments");
    let story = tell(&servers);
    assert!(story.moments.len() > 12);
    let all = ["export", "--what=balances", "--format=jsonl"];
    let count = story.moments.len();
    for (index, (timestamp, accounts)) in story.moments.iter().enumerate() {
        // Of the many moments before the expiry the last ones are enough.
        if (10..count.saturating_sub(8)).contains(&index) {
            continue;
        }
        let at = format!("--at={timestamp}");
        let output = servers.stdout(&[all[0], all[1], all[2], &at]);
        assert_eq!(&balances(&output), accounts, "{timestamp}");
        for id in 1..=4_u128 {
            let words = ["balance", &format!("--account={id}"), &at, "--format=json"];
            let output = servers.output(&words);
            if let Some(expected) = accounts.get(&id) {
                let row: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(&shown(&row), expected, "account {id} at {timestamp}");
            } else {
                assert_eq!(output.status.code(), Some(1));
                assert!(text(&output.stderr).contains("did not exist at"));
            }
        }
    }
    let now = balances(&servers.stdout(&all));
    assert_eq!(now, story.moments.last().unwrap().1);
    let output = servers.output(&["balance", "--account=77"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "florin: there is no account 77\n");
}

/// Goal: csv has a line of names and the numbers in full; a file appears with a count; a moment
/// bounds transfers and accounts.
#[test]
fn formats() {
    let servers = Servers::single("export-formats");
    servers.say(
        "create_accounts id=1 ledger=7 code=1 user_data_32=5, id=2 ledger=7 code=1 flags=history;",
    );
    let first = servers.say_at(
        "create_transfers id=-5 debit_account_id=1 credit_account_id=2 amount=12 ledger=7 code=1 \
         flags=pending;",
    );
    servers.say("create_transfers id=9 pending_id=-5 amount=-0 flags=post_pending_transfer;");
    let output = servers.stdout(&["export", "--what=accounts"]);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "id,user_data_128,user_data_64,user_data_32,ledger,code,flags,timestamp");
    assert!(lines[1].starts_with("1,0,0,5,7,1,,") && lines[2].starts_with("2,0,0,0,7,1,history,"));
    assert_eq!(lines.len(), 3);
    let output = servers.stdout(&["export", "--what=transfers", &format!("--at={first}")]);
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("id,debit_account_id,credit_account_id,amount,pending_id,"));
    let id = u128::MAX - 5;
    assert!(lines[1].starts_with(&format!("{id},1,2,12,0,0,0,0,0,7,1,pending,{first}")));
    assert_eq!(lines.len(), 2);

    let path = servers.folder.join("transfers.parquet");
    let to = format!("--output={}", path.display());
    let output = servers.output(&["export", "--what=transfers", "--format=parquet", &to]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("2 transfers written to "));
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    let parts = std::fs::read_dir(&servers.folder).unwrap().count();
    assert_eq!(parts, 2, "the data file and the export, nothing else");
}

/// Returns output and errors of a command with a data file.
fn local(words: &[&str], path: &str) -> (String, String) {
    let output = florin().args(words).arg(path).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Goal: the data file of a cluster of one gives the same rows as its server, those of the
/// checkpoint and those that are only in the log, and does not change; a file in use is refused.
#[test]
fn data_file() {
    let mut servers = Servers::single("export-file");
    let path = servers.path().display().to_string();
    tell(&servers);
    let busy = florin().args(["export", &path]).output().unwrap();
    assert_eq!(busy.status.code(), Some(3), "the server has it");
    let mut client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
    // None, some and many ops after a checkpoint: it is due every 160 ops.
    for transfers in [0, 1, 90, 200] {
        for id in 0..transfers {
            let transfer = Transfer {
                id: florin::id(),
                debit_account_id: 1 + id % 2,
                credit_account_id: 2 - id % 2,
                amount: id,
                ledger: 7,
                code: 1,
                ..Transfer::default()
            };
            create(&mut client, &transfer);
        }
        drop(client);
        servers.end(0, "-KILL");
        let before = std::fs::read(servers.path()).unwrap();
        let whats = ["--what=accounts", "--what=transfers", "--what=balances"];
        let offline = whats.map(|what| local(&["export", what], &path));
        let balance = ["balance", "--account=1", "--format=json"];
        let (row, errors) = local(&balance, &path);
        assert_eq!(errors, "");
        assert_eq!(std::fs::read(servers.path()).unwrap(), before, "only read");
        servers.restart();
        for (what, (rows, errors)) in whats.iter().zip(offline) {
            assert_eq!(errors, "");
            assert_eq!(servers.stdout(&["export", what]), rows, "{what}");
        }
        assert_eq!(servers.stdout(&balance), row);
        client = Client::connect(0, servers.addresses.as_str(), &Options::default()).unwrap();
    }
}

/// Goal: the file of one of several replicas gives the rows of its checkpoint; a warning counts the
/// ops that are left out.
#[test]
fn data_file_of_a_replica() {
    let mut servers = Servers::cluster("export-replica");
    servers.say("create_accounts id=1 ledger=7 code=1;");
    for index in 0..3 {
        servers.end(index, "-TERM");
    }
    let path = servers.folder.join("0.florin").display().to_string();
    let (rows, warning) = local(&["export", "--what=accounts"], &path);
    assert_eq!(rows.lines().count(), 1, "the line of names");
    assert!(warning.contains("as of its checkpoint, op 0"), "{warning}");
    assert!(warning.contains("the other replicas decide"), "{warning}");
}

/// Goal: each failure has its exit code; a reader that stops reading is not a failure.
#[test]
fn failures() {
    let servers = Servers::single("export-failures");
    servers.say("create_accounts id=1 ledger=7 code=1;");
    let nowhere = format!("--output={}/none/x.csv", servers.folder.display());
    for (words, code, part) in [
        (vec!["export", "x.florin"], 2, "cannot be used with"),
        (vec!["export", "--at=tomorrow"], 2, "nanoseconds since 1970"),
        (vec!["export", "--at=1796053368"], 2, "as seconds it is 2026-11-30T15:42:48Z"),
        (vec!["export", "--what=money"], 2, "balances"),
        (vec!["export", "--cluster=9", "--deadline=1"], 7, "not of cluster 9"),
        (vec!["export", &nowhere], 1, "cannot be written"),
        (vec!["balance", "--account=0"], 2, "neither 0"),
        (
            vec!["balance", "--account=1", "--at=1970-01-01T00:00:00.000000005Z"],
            1,
            "did not exist at",
        ),
    ] {
        let output = servers.output(&words);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
        assert!(errors.contains(part), "{words:?}: {errors}");
    }
    let nobody = "--addresses=127.0.0.1:1";
    for (words, code) in
        [(vec!["export", "/nowhere.florin"], 3), (vec!["export", "--deadline=1", nobody], 7)]
    {
        let output = florin().args(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}: not the line of names either");
    }
    let mut command = servers.command(&["export", "--format=jsonl", "--what=accounts"]);
    command.stdin(std::process::Stdio::null());
    let mut export = Following::start(command);
    export.close();
    assert_eq!(export.wait(), Some(0));
}

/// Goal: a reader that does not read does not keep the export from ending at a signal.
#[test]
fn reader_sleeps() {
    let servers = Servers::single("export-sleeps");
    servers.say("create_accounts id=1 ledger=1 code=1, id=2 ledger=1 code=1;");
    create_many(&servers, 6000);
    let words = ["export", "--what=transfers", "--format=jsonl"];
    let mut export = Following::start(servers.command(&words));
    assert_eq!(export.line()["id"], "1");
    // More is ready than a pipe and a buffer take: it waits.
    std::thread::sleep(std::time::Duration::from_millis(500));
    send(&export.process, "-TERM");
    assert_eq!(export.wait(), Some(1));
    assert!(export.errors().contains("interrupted"));
}

/// Goal: an output that is a FIFO is written into, one that is a link is followed, and one that
/// cannot or must not be written is refused before the source is asked.
#[test]
fn destinations() {
    let servers = Servers::single("export-destinations");
    servers.say("create_accounts id=1 ledger=7 code=1;");
    let path = |name: &str| servers.folder.join(name);
    let output = |name: &str| format!("--output={}", path(name).display());
    let all = servers.stdout(&["export", "--what=accounts"]);
    assert_eq!(servers.stdout(&["export", "--what=accounts", "--output=-"]), all);
    // Not /dev/stdout itself: a mistake would replace it for the whole machine.
    if std::path::Path::new("/proc/self/fd").exists() {
        std::os::unix::fs::symlink("/proc/self/fd/1", path("stdout")).unwrap();
        assert_eq!(servers.stdout(&["export", "--what=accounts", &output("stdout")]), all);
        std::fs::remove_file(path("stdout")).unwrap();
    }

    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    let fifo = path("fifo");
    let reader = std::thread::spawn(move || std::fs::read_to_string(fifo).unwrap());
    servers.stdout(&["export", "--what=accounts", &output("fifo")]);
    assert_eq!(reader.join().unwrap(), all);
    assert!(!std::fs::metadata(path("fifo")).unwrap().is_file());

    std::os::unix::fs::symlink("target.csv", path("link.csv")).unwrap();
    servers.stdout(&["export", "--what=accounts", &output("link.csv")]);
    assert_eq!(std::fs::read_to_string(path("target.csv")).unwrap(), all);
    assert!(std::fs::symlink_metadata(path("link.csv")).unwrap().is_symlink());

    std::os::unix::fs::symlink("dev.florin", path("link.florin")).unwrap();
    for (name, part) in [
        ("dev.florin", "the data file of a replica"),
        ("link.florin", "the data file of a replica"),
        (".", "it is a directory"),
        ("none/x.csv", "No such file"),
    ] {
        // Nobody listens there: the refusal comes first.
        let words = ["export", "--addresses=127.0.0.1:1", &output(name)];
        let refused = florin().args(words).output().unwrap();
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{name}");
        assert!(text(&refused.stderr).contains(part), "{name}: {}", text(&refused.stderr));
    }
    let words = ["export", "--addresses=127.0.0.1:1", "--deadline=1"];
    let failed = florin().args(words).output().unwrap();
    assert_eq!((failed.status.code(), text(&failed.stdout)), (Some(7), String::new()));
    let words = ["export", "--addresses=127.0.0.1:1", "--deadline=1", &output("target.csv")];
    assert!(!florin().args(words).output().unwrap().status.success());
    assert_eq!(std::fs::read_to_string(path("target.csv")).unwrap(), all, "as it was");
    servers.say("lookup_accounts id=1;");
    let mut names: Vec<_> =
        std::fs::read_dir(&servers.folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dev.florin", "fifo", "link.csv", "link.florin", "target.csv"]);
}

/// Goal: under a limit of memory that is too small for a file, the command reports that and ends;
/// it never aborts.
#[test]
fn memory_limits() {
    let folder = std::env::temp_dir().join(format!("florin-test-limits-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("data.florin");
    let words = ["format", "--cluster=0", "--replica=0", "--replica-count=1", "--development"];
    assert!(florin().args(words).arg(&path).status().unwrap().success());
    let export = |limit: u32| {
        let words = [env!("CARGO_BIN_EXE_florin"), "export", path.to_str().unwrap()];
        let script = format!("ulimit -v {limit} && exec \"$@\"");
        Command::new("bash").args(["-c", &script, "bash"]).args(words).output().unwrap()
    };
    for limit in (100_000..1_500_000).step_by(100_000) {
        let output = export(limit);
        let (code, errors) = (output.status.code(), text(&output.stderr));
        assert!(code == Some(0) || code == Some(4), "{limit}: {code:?} {errors}");
        if code == Some(4) {
            let part = format!("not enough address space: reading {} needs", path.display());
            assert!(errors.contains(&part), "{limit}: {errors}");
        }
    }
    assert_eq!(export(100_000).status.code(), Some(4));
    assert_eq!(export(2_000_000).status.code(), Some(0));
    std::fs::remove_dir_all(&folder).unwrap();
}
