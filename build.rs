//! Passes the commit that the program is built from, and its time, to `florin version`.
//!
//! `FLORIN_COMMIT` and `SOURCE_DATE_EPOCH` in the environment win: builds of packages are
//! reproducible with them. Otherwise git is asked; without a repository both are unknown. A commit
//! whose sources were changed has the mark `-dirty`.

use std::path::Path;
use std::process::Command;

/// The files that the program is built from.
const SOURCES: [&str; 4] = ["build.rs", "Cargo.lock", "Cargo.toml", "src"];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    for variable in ["FLORIN_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    // The tree of another project around an unpacked archive says nothing about this one.
    let has_repository = Path::new(".git").exists();
    if has_repository {
        for name in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|it| is_file(it)) {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
    let ask = |words: &[&str]| if has_repository { git(words) } else { None };
    let commit = given("FLORIN_COMMIT").or_else(|| {
        let commit = ask(&["rev-parse", "--short=12", "HEAD"])?;
        let changed = ask(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat());
        Some(if changed.is_some() { commit + "-dirty" } else { commit })
    });
    let seconds = given("SOURCE_DATE_EPOCH").or_else(|| ask(&["log", "-1", "--format=%ct"]));
    let seconds = seconds.filter(|text| text.parse::<u64>().is_ok());
    println!("cargo::rustc-env=FLORIN_BUILD_COMMIT={}", commit.unwrap_or_default());
    println!("cargo::rustc-env=FLORIN_BUILD_SECONDS={}", seconds.unwrap_or_default());
}

fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

fn is_file(path: &str) -> bool {
    Path::new(path).is_file()
}

/// Returns the output of git, if it succeeds and prints anything.
fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok().filter(|it| it.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    if text.is_empty() { None } else { Some(text) }
}
