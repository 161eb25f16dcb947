//! Tells the program which commit it is built from and when: for `florin version --verbose`.
//!
//! `FLORIN_COMMIT` and `SOURCE_DATE_EPOCH` in the environment win: builds of packages are
//! reproducible with them. Otherwise git is asked; without a repository both are unknown. A build
//! is repeated only when `HEAD` or what it refers to changes.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
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
    let commit = given("FLORIN_COMMIT").or_else(|| ask(&["rev-parse", "--short=12", "HEAD"]));
    let seconds = given("SOURCE_DATE_EPOCH").or_else(|| ask(&["log", "-1", "--format=%ct"]));
    let seconds = seconds.and_then(|text| text.parse::<u64>().ok());
    println!("cargo::rustc-env=FLORIN_BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=FLORIN_BUILD_DATE={}", seconds.map_or("unknown".to_owned(), date));
}

fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

fn is_file(path: &str) -> bool {
    Path::new(path).is_file()
}

/// What git prints, if there is git and it succeeds.
fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok().filter(|it| it.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    if text.is_empty() { None } else { Some(text) }
}

/// The day of a time in seconds since 1970, as in 2026-11-30, by the civil calendar.
fn date(seconds: u64) -> String {
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut days = seconds / 86_400;
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    let length = |month: u64| match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    while days >= length(month) {
        days -= length(month);
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}
