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

/// Files of `src/io` and of the core that no thread enters once the memory is frozen, and why.
const NEVER_FROZEN: [(&str, &str); 7] = [
    ("src/io/address.rs", "parses what the operator wrote, before the server is made"),
    ("src/io/file.rs", "creates and opens the data file; the ring does what comes later"),
    ("src/io/memory.rs", "sums up what is going to be reserved, before it is"),
    ("src/protocol/mutations.rs", "chosen by the command line of the simulator"),
    ("src/storage/reachable.rs", "for `florin inspect`, which does not serve"),
    ("src/vsr/format.rs", "makes data files, which a server finds made"),
    ("src/vsr/inspect.rs", "text for the simulator's reports"),
];

/// What stands above a line that runs before the memory is frozen, or after; followed by the
/// reason.
const NOT_FROZEN: &str = "// Not frozen: ";

/// Names that allocate, at least on some path.
const ALLOCATES: [&str; 27] = [
    "fs::",
    "File::open",
    "std::env",
    "process::Command",
    "Command::new",
    "thread::spawn",
    "thread::Builder",
    "ToSocketAddrs",
    "to_socket_addrs",
    "read_to_string",
    "read_to_end",
    "format!",
    "println!",
    "eprintln!",
    "dbg!",
    "String",
    ".to_string()",
    ".to_owned()",
    ".to_vec()",
    "Vec::new()",
    "Box<dyn",
    "io::Error::new(",
    "io::Error::other(",
    // Stable sorts take a buffer.
    ".sort()",
    ".sort_by(",
    ".sort_by_key(",
    "RefCell<",
];

/// Names that make what a server reserves at its start: only constructors may use them.
const RESERVES: [&str; 6] =
    ["Box::new", "Arc::new", "vec!", "with_capacity", ".collect()", ".collect::<"];

/// Functions that a server calls at its start only.
const CONSTRUCTORS: [&str; 7] =
    ["new", "new_resident", "with_entries", "with_filters", "connections_make", "zeros", "blank"];

/// Where `fs::` is innocent.
const HARMLESS: [&str; 2] = ["use std::fs::File;", "use std::os::unix::fs::"];

/// Whether a thread may run the lines of this file while the memory is frozen.
fn runs_frozen(path: &Path) -> bool {
    let never = NEVER_FROZEN.iter().any(|(file, _)| path == Path::new(file));
    (is_core(path) || path.starts_with("src/io")) && !never && !is_test(path)
}

/// Whether a name stands in a line as a word of its own.
fn has_name(code: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + name.len()..].chars().next();
        let joined_before = name.starts_with(is_word) && before.is_some_and(is_word);
        let joined_after = name.ends_with(is_word) && after.is_some_and(is_word);
        !joined_before && !joined_after
    })
}

/// The function that a line belongs to.
#[derive(Default)]
struct Function {
    name: String,
    /// It is compiled for tests only.
    is_test: bool,
    /// The line before was an attribute to that effect.
    marked: bool,
}

impl Function {
    /// Goes to the next line.
    fn advance(&mut self, code: &str) {
        let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if words.any(|word| word == "fn") {
            words.next().unwrap_or_default().clone_into(&mut self.name);
            self.is_test = self.marked;
        }
        self.marked = code.trim() == "#[cfg(test)]";
    }

    fn may_reserve(&self) -> bool {
        self.is_test || CONSTRUCTORS.contains(&self.name.as_str())
    }
}

/// Goal: a server that is frozen aborts at its first allocation, and errors are the paths that no
/// test takes. So what may run then names nothing that allocates.
#[test]
fn what_runs_frozen_does_not_allocate() {
    let mut found = String::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| runs_frozen(path)) {
        // Up to the module of tests, not to the first function that is for tests only.
        let tests =
            text.find("\n#[cfg(test)]\nmod ").or(text.find("\n#[cfg(test)]\npub(crate) mod "));
        let production = &text[..tests.unwrap_or(text.len())];
        let mut excused = false;
        let mut function = Function::default();
        for (index, line) in production.lines().enumerate() {
            if let Some(reason) = line.trim().strip_prefix(NOT_FROZEN) {
                assert!(reason.len() > 10, "{}:{}: a reason", path.display(), index + 1);
                excused = true;
                continue;
            }
            let is_comment = line.trim().starts_with("//");
            let code = line.split("// ").next().unwrap_or_default();
            function.advance(if is_comment { "" } else { code });
            let harmless = HARMLESS.iter().any(|start| line.starts_with(start));
            // The text of a system's error is made by the system, into memory; the core has none.
            let has_error = code.contains("{error}") && !is_core(&path);
            let reserves = RESERVES.iter().any(|name| has_name(code, name));
            let allocates = has_error
                || ALLOCATES.iter().any(|name| has_name(code, name))
                || (reserves && !function.may_reserve());
            if allocates && !is_comment && !excused && !harmless {
                writeln!(found, "{}:{}: {line}", path.display(), index + 1).expect("to a string");
            }
            // An excuse holds for the next statement.
            excused &= is_comment || !line.trim_end().ends_with([';', '{', '}', ',']);
        }
    }
    assert!(
        found.is_empty(),
        "no allocation after the start; if a line runs before or after, say so above it with \
         `{NOT_FROZEN}why`:\n{found}"
    );
    for (file, _) in NEVER_FROZEN {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file} is gone");
    }
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

/// The part of the architecture's page from a heading to the next one of its level or above.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let level = heading.split(' ').next().unwrap_or_default();
    let begin = page.find(&format!("\n{heading}")).expect("the page has this heading");
    let text = &page[begin + 1 + heading.len()..];
    let ends =
        (2..=level.len()).filter_map(|count| text.find(&format!("\n{} ", "#".repeat(count))));
    &text[..ends.min().unwrap_or(text.len())]
}

#[test]
fn the_code_map_is_complete() {
    let page = include_str!("../docs/ARCHITECTURE.md");
    let map = section(page, "## Code map");
    let mut missing = String::new();
    for (path, _) in sources() {
        let parts: Vec<_> = path.iter().map(|part| part.to_str().expect("UTF-8")).collect();
        let ["src", folders @ .., file] = parts.as_slice() else { continue };
        if is_test(&path) || *file == "mod.rs" {
            continue;
        }
        let heading = format!("### `src/{}`", folders.first().unwrap_or(&""));
        let part = if map.contains(&heading) { section(map, &heading) } else { map };
        let is_named = |name: &str| part.contains(&format!("`{name}`"));
        // A line about a folder is enough for what is in it, but not one about a whole layer.
        let has_folder = folders.iter().skip(1).any(|folder| part.contains(&format!("{folder}/`")));
        if !is_named(file) && !is_named(&path.display().to_string()) && !has_folder {
            writeln!(missing, "{}", path.display()).expect("to a string");
        }
    }
    assert!(missing.is_empty(), "the code map in docs/ARCHITECTURE.md lacks:\n{missing}");
}

#[test]
fn the_architecture_has_the_version_of_the_format() {
    let version = include_str!("../src/vsr/superblock.rs")
        .split_once("pub const VERSION: u32 = ")
        .and_then(|(_, rest)| rest.split_once(';'))
        .map(|(version, _)| version)
        .expect("the superblock has a version");
    let page = include_str!("../docs/ARCHITECTURE.md");
    assert!(page.contains(&format!("| version of the format: {version} |")), "it is {version}");
}
