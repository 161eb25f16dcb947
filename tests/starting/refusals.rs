//! Starts that fail: one message that says what failed, the value and what to do, and a code that
//! is documented.

use super::support::{Directory, florin, text};
use std::net::TcpListener;

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
    assert!(std::fs::exists(&path).unwrap(), "this one was there before");
}
