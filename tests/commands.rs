//! Every command, used rightly and wrongly; a command that is missing here fails the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[path = "support/program.rs"]
mod program;
#[path = "support/serve_dev.rs"]
mod serve_dev;

use clap::CommandFactory;
use florin::cli::Arguments;
use serve_dev::serve_dev;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Output, Stdio};

/// Words that succeed, with a part of what is printed; words that fail, with the exit code and a
/// part of the message. `DIR` is a folder with the data file `there`, `ADDRESS` a server's.
type Uses = ((&'static str, &'static str), (&'static str, i32, &'static str));

/// By command, in an order in which each has what it needs.
const USES: [Uses; 15] = [
    (
        (
            "format --cluster=7 --replica=0 --replica-count=1 --development DIR/new",
            "replica 0 of 1",
        ),
        ("format --cluster=7 --replica=0 --replica-count=1 DIR/there", 3, "exists already"),
    ),
    (
        (
            "recover --cluster=7 --replica=1 --replica-count=3 --development --addresses=1,2,3 \
             DIR/lost",
            "of a lost file",
        ),
        ("recover --cluster=7 --replica=1 --replica-count=2 DIR/two", 2, "neither of two"),
    ),
    // Without input it ends as soon as it serves.
    (
        ("start --development --addresses=0 DIR/new", "\n"),
        ("start --development --addresses=0 DIR/missing", 3, "florin format"),
    ),
    (
        ("completions bash", "complete -F _florin"),
        ("completions cobol", 2, "possible values: bash"),
    ),
    (("man", ".TH florin 1"), ("man /dev/null/pages", 1, "/dev/null/pages: ")),
    (
        ("status --addresses=ADDRESS", "cluster 0: healthy"),
        ("status --addresses=127.0.0.1:1", 7, "unavailable"),
    ),
    (("doctor --development DIR", "io_uring"), ("doctor /no/such/place", 4, "direct I/O")),
    (("version --verbose", "protocol release"), ("version --loud", 2, "unexpected argument")),
    (
        ("repl --addresses=ADDRESS --command=create_accounts_id=1_ledger=1_code=1", "created"),
        ("repl --addresses=ADDRESS --command=select", 2, "no operation `select`"),
    ),
    (
        ("cdc --addresses=ADDRESS --until=now", ""),
        ("cdc --addresses=ADDRESS --from=yesterday", 2, "nanoseconds since 1970"),
    ),
    (
        ("export --addresses=ADDRESS --what=accounts", "\n1,0,0,0,1,1,"),
        ("export --addresses=ADDRESS --output=/dev/null/x", 1, "cannot be written"),
    ),
    (
        ("balance --addresses=ADDRESS --account=1", "account id       1\n"),
        ("balance --addresses=ADDRESS --account=2", 1, "there is no account 2"),
    ),
    (
        (
            "benchmark --addresses=ADDRESS --yes --transfer-count=100 --query-count=1",
            "\ntransfers     100  ",
        ),
        ("benchmark --addresses=ADDRESS --cluster=9", 7, "it is not of cluster 9"),
    ),
    (
        ("inspect superblock DIR/new", "cluster"),
        ("inspect superblock DIR/missing", 3, "does not exist"),
    ),
    (
        ("vopr 1 --calm --requests=5 --batch-events=4", "1"),
        ("vopr 1 --fault=rain=1", 2, "no such fault"),
    ),
];

fn florin(words: &str, folder: &str, address: &str) -> Output {
    let words = words.split(' ').map(|word| {
        let word = word.replace("DIR", folder).replace("ADDRESS", address);
        // A statement is one word.
        if word.starts_with("--command=create_accounts_") {
            return word
                .replace("_id", " id")
                .replace("_ledger", " ledger")
                .replace("_code", " code");
        }
        word
    });
    let mut command = program::florin();
    command.args(words).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names of all commands.
fn commands() -> BTreeSet<String> {
    Arguments::command().get_subcommands().map(|it| it.get_name().to_owned()).collect()
}

/// Goal: each command does what it is for, and has an exit code of its own for each failure, which
/// is reported on standard error alone and names the mistake.
#[test]
fn good_and_bad() {
    let folder = std::env::temp_dir().join(format!("florin-test-uses-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    // `dev` is the server of the others; wrongly used, it finds a folder where its file should be.
    let (mut server, address) = serve_dev(&folder.join("there"));
    let place = folder.display().to_string();
    let mut used = BTreeSet::from(["dev".to_owned()]);
    let wrong = florin("dev --address=0 DIR", &place, "");
    assert_eq!(wrong.status.code(), Some(3), "{}", text(&wrong.stderr));
    assert!(text(&wrong.stderr).contains("is not a regular file"), "{}", text(&wrong.stderr));
    for ((good, shown), (bad, code, message)) in USES {
        let output = florin(good, &place, &address);
        assert!(output.status.success(), "{good}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(shown), "{good}: {}", text(&output.stdout));
        let output = florin(bad, &place, &address);
        assert_eq!(output.status.code(), Some(code), "{bad}: {}", text(&output.stderr));
        // Findings are printed, a failure is reported.
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(all.contains(message) && !output.stderr.is_empty(), "{bad}: {all}");
        used.extend(good.split(' ').next().map(str::to_owned));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(used, commands(), "every command is here");
}

/// Goal: the environment says which cluster is used, the command line wins, an empty variable
/// counts as none, and an error about a value from the environment names the variable.
#[test]
fn environment() {
    let run = |words: &str, variables: &[(&str, &str)]| {
        let mut command = program::florin();
        let output = command.args(words.split(' ')).envs(variables.iter().copied()).output();
        let output = output.unwrap();
        let all = text(&output.stdout) + &text(&output.stderr);
        (output.status.code().unwrap(), all)
    };
    let nobody = ("FLORIN_ADDRESSES", "127.0.0.1:1");
    for words in ["status", "balance --account=1 --deadline=1", "repl --command=x --deadline=1"] {
        let words = words.replace("--command=x", "--command=query_accounts");
        let (code, all) = run(&words, &[nobody]);
        assert!(code == 7 && all.contains("127.0.0.1:1"), "{words}: {all}");
        let (code, all) = run(&format!("{words} --addresses=127.0.0.1:2"), &[nobody]);
        assert!(code == 7 && all.contains("127.0.0.1:2"), "{words}: {all}");
        let (code, all) = run(&words, &[("FLORIN_ADDRESSES", "nowhere:"), nobody]);
        assert_eq!(code, 7, "{words}: {all}");
        let (code, all) = run(&words, &[("FLORIN_ADDRESSES", "nowhere:")]);
        assert!(code == 2 && all.contains("variable FLORIN_ADDRESSES"), "{words}: {all}");
        let (code, all) = run(&words, &[nobody, ("FLORIN_CLUSTER", "seven")]);
        assert!(code == 2 && all.contains("variable FLORIN_CLUSTER"), "{words}: {all}");
        let (code, all) = run(&format!("{words} --cluster=seven"), &[("FLORIN_CLUSTER", "7")]);
        assert!(code == 2 && !all.contains("variable"), "{words}: {all}");
        let (code, all) = run(&words, &[nobody, ("FLORIN_CLUSTER", "")]);
        assert_eq!(code, 7, "{words}: {all}");
    }
    // A data file on the command line is not contradicted by a variable for other commands.
    let (code, all) = run("balance --account=1 /no/such/file", &[nobody]);
    assert_eq!(code, 3, "{all}");
    let (code, all) = run("balance --account=1 --addresses=1 /no/such/file", &[]);
    assert!(code == 2 && all.contains("--addresses cannot be used with PATH"), "{all}");
}

/// Goal: a value that is not text is an error that names its variable.
#[test]
fn environment_that_is_not_text() {
    let value = OsStr::from_bytes(b"\xff\xfe");
    let mut command = program::florin();
    let output = command.arg("status").env("FLORIN_ADDRESSES", value).output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("variable FLORIN_ADDRESSES is not UTF-8"), "{errors}");
    let output = program::florin().arg("status").arg(value).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!text(&output.stderr).contains("variable"), "{}", text(&output.stderr));
}

/// Goal: a message that quotes a value is short, and has no control characters of it.
#[test]
fn quoted_values() {
    let long = format!("\x1b]0;\x07{}", "x".repeat(100_000));
    for (words, code) in [
        (vec!["status".to_owned(), format!("--addresses={long}")], 2),
        (vec!["export".to_owned(), format!("--output=/no/{long}")], 1),
        (vec!["inspect".to_owned(), "superblock".to_owned(), long.clone()], 3),
        (vec!["repl".to_owned(), format!("--command=lookup_accounts id={long}")], 2),
    ] {
        let output = program::florin().args(&words).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors:.400}");
        assert!(!errors.contains(['\x1b', '\x07']) && errors.contains("u{1b}"), "{errors:.400}");
        assert!(errors.len() < 3_000, "{}: {errors:.400}", errors.len());
    }
    // Mistakes that the parser of options finds.
    let output = program::florin().arg("status").arg(format!("--cluster={long}")).output().unwrap();
    let errors = text(&output.stderr);
    assert!(!errors.contains(['\x1b', '\x07']) && errors.len() < 3_000, "{errors:.400}");
}

/// Goal: one spelling for JSON wherever a command has it, and the earlier one, which `--help` does
/// not show.
#[test]
fn json_everywhere() {
    let folder = std::env::temp_dir().join(format!("florin-test-json-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let (mut server, address) = serve_dev(&folder.join("dev.florin"));
    let create = "repl --addresses=ADDRESS --command=create_accounts_id=1_ledger=1_code=1";
    assert!(florin(create, "", &address).status.success());
    for (words, other) in [
        ("version", "table"),
        ("doctor --development .", "table"),
        ("inspect constants", "table"),
        ("status --addresses=ADDRESS", "table"),
        ("balance --addresses=ADDRESS --account=1", "table"),
        (create, "table"),
        ("export --addresses=ADDRESS --what=accounts", "csv"),
        ("cdc --addresses=ADDRESS --until=now --what=accounts", "jsonl"),
        ("benchmark --addresses=ADDRESS --yes --transfer-count=10 --query-count=1", "table"),
    ] {
        for option in ["--format=json", "--json"] {
            let output = florin(&format!("{words} {option}"), "", &address);
            let shown = text(&output.stdout);
            // `export` and `cdc` print a document on each line.
            let lines = if other == "table" { vec![&shown[..]] } else { shown.lines().collect() };
            assert!(!shown.is_empty(), "{words} {option}: {}", text(&output.stderr));
            for line in lines {
                let document: Result<serde_json::Value, _> = serde_json::from_str(line);
                assert!(document.is_ok(), "{words} {option}: {line}");
            }
        }
        let both = florin(&format!("{words} --format={other} --json"), "", &address);
        assert_eq!(both.status.code(), Some(2), "{words}: {}", text(&both.stderr));
        let help = florin(&format!("{} --help", words.split(' ').next().unwrap()), "", &address);
        assert!(!text(&help.stdout).contains("--json"), "{words}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Goal: `doctor` judges the limit of locked memory as the server does: below 1 MiB rings are
/// small, which is a warning, and 1 MiB is enough.
#[test]
fn locked_memory() {
    for (limit_kib, verdict) in [(64, "warn"), (1024, "ok")] {
        let script = format!("ulimit -l {limit_kib} || exit 77; exec \"$0\" \"$@\"");
        let florin = program::florin();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).arg(florin.get_program());
        command.args(["doctor", "--development", "--json", "."]);
        let output = command.output().unwrap();
        if output.status.code() == Some(77) {
            // The limit of the tests themselves is lower.
            continue;
        }
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = document["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "locked memory").unwrap();
        assert_eq!(check["verdict"], verdict, "{limit_kib} KiB: {check}");
    }
}

/// Goal: a benchmark of a cluster that has accounts is refused without `--yes`, and writes nothing
/// then; one of an empty cluster is not. Both say what is written, and where.
#[test]
fn benchmark_of_a_ledger_in_use() {
    let folder = std::env::temp_dir().join(format!("florin-test-in-use-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let (mut server, address) = serve_dev(&folder.join("dev.florin"));
    let run = |yes: &str| {
        let words =
            "benchmark --addresses=ADDRESS --account-count=10 --transfer-count=50 --query-count=0";
        let output = florin(&format!("{words}{yes}"), "", &address);
        (output.status.code(), text(&output.stderr))
    };
    let accounts = || {
        let words = "export --addresses=ADDRESS --what=accounts --json";
        text(&florin(words, "", &address).stdout).lines().count()
    };
    let written = "creates 10 accounts and 50 transfers in ledger";
    let (code, message) = run("");
    assert!(code == Some(0) && message.contains("is empty. This benchmark"), "{message}");
    assert!(message.contains(written) && accounts() == 10, "{message}");
    let (code, message) = run("");
    assert!(code == Some(2) && message.contains("it has accounts, the first of"), "{message}");
    assert!(message.contains(written) && message.contains("Give --yes"), "{message}");
    assert_eq!(accounts(), 10, "a benchmark that is refused writes nothing");
    let (code, message) = run(" --yes");
    assert!(code == Some(0) && message.contains(written), "{message}");
    assert_eq!(accounts(), 20);
    server.kill().unwrap();
    server.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Goal: `help` lists the commands, and shows what `--help` of a command shows.
#[test]
fn help_of_commands() {
    let list = text(&florin("help", "", "").stdout);
    assert!(list.contains("\nRun replicas:\n"), "{list}");
    for command in commands() {
        assert!(list.contains(&format!("\n  {command} ")), "{command}: {list}");
        let output = florin(&format!("help {command}"), "", "");
        let expected = florin(&format!("{command} --help"), "", "");
        assert_eq!(text(&output.stdout), text(&expected.stdout), "{command}");
    }
}

/// Goal: the help of every command has examples of it, and no line is too long for a terminal.
#[test]
fn help() {
    for command in commands() {
        let output = florin(&format!("{command} --help"), "", "");
        assert!(output.status.success());
        let help = text(&output.stdout);
        assert!(help.contains("Examples:"), "{help}");
        assert!(help.contains(&format!("  florin {command}")), "{help}");
        let long = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{command}");
    }
    let help = text(&florin("--help", "", "").stdout);
    assert!(help.contains("Exit codes:"), "{help}");
}
