//! `florin inspect` on a file that a server has filled, intact and damaged in each of its zones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[path = "support/program.rs"]
mod program;

use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

/// Enough for runs that have merged and a checkpoint behind them.
const TRANSFERS: &str = "340000";

fn florin(arguments: &[&str]) -> Output {
    let mut command = program::florin();
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A data file of this test, removed at its end.
struct DataFile(PathBuf);

impl DataFile {
    fn new(name: &str) -> DataFile {
        let name = format!("florin-inspect-{name}-{}.florin", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        DataFile(path)
    }

    /// What a benchmark leaves.
    fn filled(name: &str) -> DataFile {
        let file = DataFile::new(name);
        let path = format!("--file={}", file.path());
        let transfers = format!("--transfer-count={TRANSFERS}");
        let arguments = ["benchmark", "--development", "--account-count=500", "--query-count=1"];
        let output = florin(&[&arguments[..], &[&transfers, &path]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        file
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn open(&self) -> File {
        OpenOptions::new().read(true).write(true).open(&self.0).unwrap()
    }

    /// Inverts a byte.
    fn flip(&self, offset: u64) {
        let file = self.open();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[!byte[0]], offset).unwrap();
    }

    fn run(&self, subject: &str, options: &[&str]) -> Output {
        florin(&[&["inspect", subject], options, &[self.path()]].concat())
    }

    fn json(&self, subject: &str, options: &[&str]) -> Value {
        let output = self.run(subject, &[options, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{subject}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Demands that integrity names damage in this zone and at this offset, of which the text says
    /// this; and repairs it.
    fn expect_damage(&self, flip: u64, zone: &str, offset: u64, part: &str) {
        self.flip(flip);
        let output = self.run("integrity", &["--json"]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{zone} {offset}: {message}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["integrity"]["state"], "damaged");
        let damage = report["damage"].as_array().unwrap();
        let named = damage.iter().any(|place| {
            let words = format!("{} {}", place["what"], place["problem"]);
            place["zone"] == zone && place["offset"] == offset && words.contains(part)
        });
        assert!(named, "{zone} {offset} {part}: {damage:#?}");
        assert!(message.contains("damaged in") && message.contains("file offset"), "{message}");
        self.flip(flip);
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Lines of what people see fit a terminal of 100 columns.
fn check_width(output: &Output) -> String {
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let long = shown.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None, "{shown}");
    shown
}

/// Goal: every subject shows what is there, for people within 100 columns and for programs as JSON,
/// and the numbers agree with each other.
#[test]
fn intact() {
    let file = DataFile::filled("intact");
    let superblock = file.json("superblock", &[]);
    assert_eq!(superblock["copies"].as_array().unwrap().len(), 4);
    let op = superblock["checkpoint"]["op"].as_u64().unwrap();
    assert!(op > 0 && op.is_multiple_of(160), "a checkpoint was made: {op}");
    let constants = file.json("constants", &[]);
    assert_eq!(constants["geometry"]["block_size"], 65_536);
    let wal = file.json("wal", &[]);
    assert_eq!(wal["wal"]["slots_damaged"], 0);
    let op_max = wal["wal"]["op_max"].as_u64().unwrap();
    assert!(op_max >= op);
    let slot = format!("--slot={}", op_max % 256);
    assert_eq!(file.json("wal", &[&slot])["prepare"]["op"], op_max);
    let replies = file.json("replies", &[]);
    assert!(!replies["sessions"].as_array().unwrap().is_empty());
    assert!(file.json("replies", &["--slot=0"])["reply"]["op"].as_u64().unwrap() <= op);
    let log = file.json("log", &[]);
    let rows = log["logs"][0]["rows"].as_u64().unwrap();
    assert_eq!(log["logs"][2]["rows"], 500);
    let row = format!("--row={}", rows - 1);
    let event = file.json("log", &[&row]);
    assert_eq!(
        (&event["event"]["kind"], &event["transfer"]["ledger"]),
        (&"single_phase".into(), &1.into())
    );
    let account = file.json("log", &["--row=499", "--accounts"]);
    assert_eq!(account["account_row"]["row"], 499);
    let manifest = file.json("manifest", &[]);
    let runs = manifest["event_runs"].as_array().unwrap();
    assert!(runs.iter().any(|run| run["level"] == 1), "runs have merged");
    let grid = file.json("grid", &[]);
    let blocks = |kind: &str| {
        let kinds = grid["kinds"].as_array().unwrap();
        kinds.iter().find(|row| row["kind"] == kind).unwrap()["blocks"].as_u64().unwrap()
    };
    assert_eq!(blocks("checkpoint index"), 1);
    check_list(&file, &grid);
    let block = format!("--block={}", event["event"]["transfer_block"]);
    let block = file.json("grid", &[&block]);
    assert_eq!(
        (&block["block"]["state"], &block["use"]["state"]),
        (&"intact".into(), &"in use".into())
    );
    let integrity = file.json("integrity", &[]);
    assert_eq!(integrity["integrity"]["state"], "intact");
    assert_eq!(integrity["integrity"]["rows_checked"], rows + 500);
    let requests = florin(&["inspect", "op", file.path(), &op_max.to_string(), "--json"]);
    let requests: Value = serde_json::from_slice(&requests.stdout).unwrap();
    assert_eq!(requests["prepare"]["op"], op_max);
    check_shown(&file, &slot, &row);
    let op = op_max.to_string();
    check_width(&florin(&["inspect", "op", file.path(), &op]));
}

/// All blocks one by one are as many as those of all kinds, each at an offset of its own.
fn check_list(file: &DataFile, grid: &Value) {
    let list = file.json("grid", &["--list"]);
    let kinds = grid["kinds"].as_array().unwrap();
    let count: u64 = kinds.iter().map(|row| row["blocks"].as_u64().unwrap()).sum();
    let blocks = list["blocks"].as_array().unwrap();
    let offsets = blocks.iter().map(|row| row["offset"].as_u64().unwrap());
    let distinct = offsets.collect::<std::collections::BTreeSet<u64>>();
    assert_eq!(u64::try_from(blocks.len()).unwrap(), count);
    assert_eq!(distinct.len(), blocks.len());
}

/// What people see of each subject.
fn check_shown(file: &DataFile, slot: &str, row: &str) {
    for (subject, options, part) in [
        ("constants", &[][..], "Zones"),
        ("superblock", &[], "valid"),
        ("wal", &[], "create_transfers"),
        ("wal", &[slot], "Prepare"),
        ("replies", &[], "Sessions"),
        ("replies", &["--slot=0"], "Reply"),
        ("log", &[], "directory"),
        ("log", &[row], "Balances after"),
        ("log", &["--row=0", "--accounts"], "Account"),
        ("manifest", &[], "user_data_128"),
        ("grid", &[], "run entries"),
        ("grid", &["--block=1"], "intact"),
        ("grid", &["--list"], "offset"),
        ("integrity", &[], "intact"),
    ] {
        let shown = check_width(&file.run(subject, options));
        assert!(shown.contains(part), "{subject} {options:?}: {shown}");
    }
    check_width(&florin(&["inspect", "constants"]));
    for (subject, options) in [
        ("wal", "--slot=256"),
        ("replies", "--slot=64"),
        ("log", "--row=100000000"),
        ("grid", "--block=0"),
        ("grid", "--block=100000000"),
    ] {
        let output = file.run(subject, &[options]);
        assert_eq!(output.status.code(), Some(2), "{subject} {options}");
    }
    let missing = florin(&["inspect", "op", file.path(), "1000000"]);
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
}

/// Goal: one byte that changed in any zone, and in each kind of block, is named with its zone and
/// offset; nothing is written while looking.
#[test]
fn damaged() {
    let file = DataFile::filled("damaged");
    let zones = file.json("constants", &[]);
    let zone = |index: usize| zones["zones"][index]["offset"].as_u64().unwrap();
    let wal = file.json("wal", &[]);
    let slots = wal["slots"].as_array().unwrap();
    let newest = slots.iter().max_by_key(|slot| slot["op"].as_u64()).unwrap();
    let (slot, op) = (newest["slot"].as_u64().unwrap(), newest["op"].as_u64().unwrap());
    file.expect_damage(16_384 + 1000, "superblock", 16_384, "copy 1");
    let header = zone(1) + slot * 256;
    file.expect_damage(header + 20, "WAL headers", header, &format!("op {op}"));
    let prepare = zone(2) + slot * 131_072;
    file.expect_damage(prepare + 300, "WAL prepares", prepare, &format!("op {op}"));
    file.expect_damage(prepare + 20, "WAL prepares", prepare, "damaged");
    let log = file.json("log", &["--row=1000"]);
    let manifest = file.json("manifest", &[]);
    let runs = manifest["event_runs"].as_array().unwrap();
    let root = runs.iter().find(|run| run["root"].is_u64()).unwrap()["root"].as_u64().unwrap();
    let superblock = file.json("superblock", &[]);
    let logs = file.json("log", &[]);
    for (address, part) in [
        (log["event"]["transfer_block"].as_u64().unwrap(), "transfers of the log"),
        (log["event"]["balances_block"].as_u64().unwrap(), "balances of the log"),
        (logs["logs"][0]["directory_tail"].as_u64().unwrap(), "transfers directory"),
        (root, "run root of the index of events"),
        (superblock["checkpoint"]["index_address"].as_u64().unwrap(), "checkpoint index"),
    ] {
        let offset = zone(3) + (address - 1) * 65_536;
        for byte in [5, 700, 65_535] {
            file.expect_damage(offset + byte, "grid", offset, part);
        }
        file.flip(offset + 700);
        let shown = file.json("grid", &[&format!("--block={address}")]);
        assert!(shown["block"]["state"].as_str().unwrap().contains("damaged"));
        file.flip(offset + 700);
    }
    assert_eq!(file.json("integrity", &[])["integrity"]["state"], "intact");
}

/// Goal: files that are none, of another version, truncated, or in use, are told apart.
#[test]
fn other_files() {
    let file = DataFile::new("other");
    let missing = file.run("superblock", &[]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing.stderr));
    std::fs::write(&file.0, vec![7; 100_000]).unwrap();
    for subject in ["superblock", "wal", "integrity", "grid"] {
        let output = file.run(subject, &[]);
        assert_eq!(output.status.code(), Some(6), "{subject}: {}", text(&output.stderr));
    }
    std::fs::write(&file.0, b"short").unwrap();
    assert_eq!(file.run("superblock", &[]).status.code(), Some(3));
    assert_eq!(file.run("wal", &[]).status.code(), Some(3));
    std::fs::remove_file(&file.0).unwrap();
    let form = ["format", "--cluster=7", "--replica=0", "--replica-count=1", "--development"];
    assert!(florin(&[&form[..], &[file.path()]].concat()).status.success());
    for subject in ["superblock", "wal", "replies", "grid", "manifest", "log", "integrity"] {
        check_width(&file.run(subject, &[]));
    }
    let lock = file.open();
    lock.lock().unwrap();
    let output = file.run("integrity", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("in use by another process"));
    drop(lock);
    for copy in 0..4 {
        // The version, which the checksum covers: damage and no other version.
        file.flip(copy * 16_384 + 40);
    }
    let output = file.run("superblock", &[]);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stdout).contains("checksum does not match"), "{}", text(&output.stdout));
    for copy in 0..4 {
        file.flip(copy * 16_384 + 40);
    }
    file.open().set_len(1 << 20).unwrap();
    let output = file.run("grid", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("truncated"), "{}", text(&output.stderr));
}
