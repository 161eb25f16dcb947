//! Style that no lint checks: see `docs/TIGERSTYLE.md`. Goal of each test: name the file and line
//! that breaks a rule, and what to do instead.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 1500;
const COLUMNS_MAX: usize = 100;

/// Every Rust source of the project, with its text, in a fixed order.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests"), root.join("tools")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(files.len() > 20, "the sources were found");
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            (path.strip_prefix(root).expect("below the root").to_owned(), text)
        })
        .collect()
}

/// Collects every line that breaks a rule, and fails with all of them.
fn check(rule: &str, breaks: impl Fn(&Path, &str) -> bool) {
    let mut found = String::new();
    for (path, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            if breaks(&path, line) {
                writeln!(found, "{}:{}: {line}", path.display(), index + 1).expect("to a string");
            }
        }
    }
    assert!(found.is_empty(), "{rule}:\n{found}");
}

/// Test modules in files of their own; `#[cfg(test)]` stands where they are declared.
fn is_test(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem == "tests" || stem.ends_with("_tests") || stem.starts_with("test_")
}

fn is_core(path: &Path) -> bool {
    ["src/protocol", "src/storage", "src/ledger", "src/vsr"]
        .iter()
        .any(|folder| path.starts_with(folder))
}

#[test]
fn files_are_short() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines, at most {FILE_LINES_MAX}: split it by what it does",
            path.display()
        );
    }
}

#[test]
fn lines_are_short() {
    check("at most 100 columns: break the line", |_, line| {
        line.chars().count() > COLUMNS_MAX && !line.contains("http")
    });
}

#[test]
fn no_unfinished_work() {
    let marks: Vec<String> =
        ["TO", "FIX", "XX"].iter().zip(["DO", "ME", "X"]).map(|(a, b)| format!("{a}{b}")).collect();
    check("finish it, or open an issue: no left-over marks", |_, line| {
        marks.iter().any(|mark| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == mark))
    });
}

#[test]
fn modules_begin_with_a_purpose() {
    for (path, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{}: begin with //! and its purpose", path.display());
    }
}

#[test]
fn the_core_knows_no_world() {
    let banned = [
        "std::time",
        "std::net",
        "std::fs",
        "std::thread",
        "std::collections::HashMap",
        "std::collections::HashSet",
        "HashMap<",
        "HashSet<",
        "async fn",
        "RefCell<",
        "rand_chacha",
        "crate::io",
        "crate::client",
        "crate::cli",
    ];
    let mut found = String::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| is_core(path) && !is_test(path)) {
        let production = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (index, line) in production.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if banned.iter().any(|name| code.contains(name)) {
                writeln!(found, "{}:{}: {line}", path.display(), index + 1).expect("to a string");
            }
        }
    }
    assert!(found.is_empty(), "the core is passed its world, it doesn't name one:\n{found}");
}

#[test]
fn dependencies_point_one_way() {
    let above: [(&str, &[&str]); 4] = [
        ("src/protocol", &["crate::storage", "crate::ledger", "crate::vsr", "crate::simulator"]),
        ("src/storage", &["crate::ledger", "crate::vsr", "crate::simulator"]),
        ("src/ledger", &["crate::vsr", "crate::simulator"]),
        ("src/vsr", &["crate::simulator"]),
    ];
    let mut found = String::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let production = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (folder, banned) in above {
            if path.starts_with(folder) {
                for name in banned.iter().filter(|name| production.contains(**name)) {
                    writeln!(found, "{} uses {name}", path.display()).expect("to a string");
                }
            }
        }
    }
    assert!(found.is_empty(), "protocol <- storage <- ledger <- vsr <- worlds:\n{found}");
}

#[test]
fn every_dependency_has_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    let reasons = fs::read_to_string(root.join("docs/DEPENDENCIES.md")).expect("the reasons");
    let section = manifest.split("[dependencies]").nth(1).expect("there are dependencies");
    let section = section.split("\n[").next().expect("split gives one part at least");
    let mut count = 0;
    for line in section.lines().filter(|line| line.contains('=')) {
        let name = line.split('=').next().unwrap_or_default().trim();
        assert!(reasons.contains(&format!("`{name}`")), "{name} has no line in DEPENDENCIES.md");
        count += 1;
    }
    assert!(count > 5, "the dependencies were found");
}
