//! A development server for a test.

use super::program::florin;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

/// Serves a data file on a free port, and makes the file if it is not there; the process, and where
/// it listens.
///
/// # Panics
///
/// If the server does not say where it listens.
pub fn serve_dev(path: &Path) -> (Child, String) {
    let mut process = florin()
        .args(["dev", "--address=0"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut address = String::new();
    let output = process.stdout.as_mut().expect("its output is a pipe");
    BufReader::new(output).read_line(&mut address).expect("it says where it listens");
    let address = address.trim().to_owned();
    assert!(!address.is_empty(), "the server says where it listens");
    (process, address)
}
