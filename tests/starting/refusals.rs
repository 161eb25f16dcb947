//! Starts that fail: one message that says what failed, the value and what to do, and a code that
//! is documented.

use super::support::{BINARY, Directory, florin, text};
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// Goal: a development server that cannot listen leaves no data file behind, unless it was there.
#[test]
fn dev_on_a_taken_port_leaves_nothing() {
    let directory = Directory::new("refused-dev");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--address={}", taken.local_addr().unwrap());
    let path = directory.path("dev.florin");
    let output = florin(&["dev", &address, &path]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{errors}");
    assert!(errors.contains("--address=0"), "{errors}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    assert!(!std::fs::exists(&path).unwrap());
    directory.format("dev.florin", 0, 1, &["--development"]);
    assert_eq!(florin(&["dev", &address, &path]).status.code(), Some(5));
    // The address of the metrics is another option.
    let metrics = address.replace("--address", "--metrics");
    let output = florin(&["dev", "--address=0", &metrics, &path]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{errors}");
    assert!(!errors.contains("--address=0"), "{errors}");
    assert!(std::fs::exists(&path).unwrap(), "this one was there before");
}

/// Goal: limits, folders and sizes that a server can't start with are named, with what to do.
#[test]
fn starts_that_fail() {
    let directory = Directory::new("refused-starts");
    let path = directory.format("0_0.florin", 0, 1, &["--development"]);
    let folder = directory.0.display();
    std::os::unix::fs::symlink("circle", directory.0.join("circle")).unwrap();
    let long = "x".repeat(300);
    let start = format!("exec {BINARY} start --development --addresses=0");
    let cases = [
        (format!("{start} {folder}"), 3, "is not a regular file"),
        (format!("{start} {path}/x"), 3, "cannot open the file"),
        (format!("{start} {folder}/circle"), 3, "the symbolic links lead in a circle"),
        (format!("{start} {folder}/{long}"), 3, "choose a shorter path"),
        (format!("{start} --cache-grid=64KiB {path}"), 2, "must be at least 4MiB"),
        (format!("{start} --cache-accounts=0 {path}"), 2, "must be at least 2MiB"),
        (format!("{start} --cache-accounts=17TiB {path}"), 2, "must be at most 192GiB"),
        (format!("{start} --limit-storage=8MiB {path}"), 2, "must be at least 248MiB"),
        (format!("{start} --limit-storage=100TiB {path}"), 2, "must be at most 4514GiB"),
        (format!("{start} --cache-grid=800TiB {path}"), 4, "not enough memory"),
        (format!("ulimit -d 20000; {start} {path}"), 4, "not enough memory for data"),
        (format!("ulimit -n 8; {start} {path}"), 4, "raise the limit of open files"),
        (format!("ulimit -n 100; {start} {path}"), 4, "raise the limit of open files"),
        (format!("ulimit -v 400000; {start} {path}"), 4, "not enough address space"),
        (format!("{start} --statsd=999999 {path}"), 2, "--statsd"),
    ];
    for (script, code, part) in cases {
        let mut command = Command::new("sh");
        let output = command.args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{script}: {errors}");
        let lines: Vec<&str> = errors.lines().filter(|line| line.contains("Z error ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(part), "{script}: {errors}");
    }
}
