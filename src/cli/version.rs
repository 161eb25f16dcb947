//! `florin version`: version, commit and compatibility of this program.

use super::exit::Failure;
use super::moment::Rfc3339;
use super::output::{OutputArguments, print};
use crate::protocol::{BODY_SIZE_MAX, CLIENTS_MAX, Release};

const EXAMPLES: &str = "\
Examples:
  florin version
  florin version --verbose
      with the platform, and the releases of clients that are admitted
  florin version --format=json";

/// Options of `florin version`.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct VersionArguments {
    /// Also print the platform, the limits and the admitted client releases
    #[arg(long)]
    pub verbose: bool,
    /// Form of the output
    #[command(flatten)]
    pub output: OutputArguments,
}

/// The commit that the program was built from, with `-dirty` if its sources were changed; empty if
/// it is unknown: see `build.rs`.
const COMMIT: &str = env!("FLORIN_BUILD_COMMIT");
/// The time of that commit, or `SOURCE_DATE_EPOCH`, in seconds since 1970; empty if it is unknown.
const SECONDS: &str = env!("FLORIN_BUILD_SECONDS");

/// Returns the day of a time in seconds since 1970, as in 2026-11-30, if it is one.
fn day(seconds: &str) -> Option<String> {
    let time_ns = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?;
    Some(Rfc3339(time_ns).to_string().split('T').next()?.to_owned())
}

/// Returns a fact, or the word for one that the build did not know.
fn known(fact: &str) -> String {
    if fact.is_empty() { "unknown".to_owned() } else { fact.to_owned() }
}

/// Returns the first line: the version, with the commit and the day as far as they are known.
fn title(commit: &str, seconds: &str) -> String {
    let day = day(seconds).unwrap_or_default();
    let facts: Vec<&str> = [commit, &day].into_iter().filter(|fact| !fact.is_empty()).collect();
    let version = format!("florin {}", env!("CARGO_PKG_VERSION"));
    if facts.is_empty() { version } else { format!("{version} ({})", facts.join(", ")) }
}

/// Prints the version.
///
/// # Errors
///
/// Never.
pub fn run(arguments: &VersionArguments) -> Result<(), Failure> {
    if arguments.output.is_json() {
        print(&json_of(&facts()));
    } else {
        print(&text(arguments.verbose));
    }
    Ok(())
}

/// Returns all facts about this program, by the names of the JSON object.
fn facts() -> Vec<(&'static str, String)> {
    let profile = if cfg!(debug_assertions) { "development" } else { "release" };
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("commit", known(COMMIT)),
        ("date", day(SECONDS).unwrap_or_else(|| known(""))),
        ("protocol_release", Release::SERVER.to_string()),
        ("client_release_min", Release::CLIENT_MIN.to_string()),
        ("client_release_max", Release::CLIENT_MAX.to_string()),
        ("request_body_size_max", BODY_SIZE_MAX.to_string()),
        ("sessions_max", CLIENTS_MAX.to_string()),
        ("built_for", format!("{architecture}-{os}, {profile}")),
    ]
}

fn json_of(facts: &[(&'static str, String)]) -> String {
    let object: serde_json::Map<String, serde_json::Value> = facts
        .iter()
        .map(|(name, value)| ((*name).to_owned(), serde_json::Value::from(value.as_str())))
        .collect();
    serde_json::Value::from(object).to_string()
}

fn text(is_verbose: bool) -> String {
    if !is_verbose {
        return title(COMMIT, SECONDS);
    }
    let facts = facts();
    let fact = |name: &str| {
        let (_, value) = facts.iter().find(|(other, _)| *other == name).expect("a known name");
        value.as_str()
    };
    [
        title("", ""),
        format!("commit: {}", fact("commit")),
        format!("date: {}", fact("date")),
        format!("protocol release: {}", Release::SERVER),
        format!("client releases: {} to {}", Release::CLIENT_MIN, Release::CLIENT_MAX),
        format!("maximum request body: {BODY_SIZE_MAX} bytes"),
        format!("maximum sessions: {CLIENTS_MAX}"),
        format!("built for: {}", fact("built_for")),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the short form is one line with the known facts; the long one has the facts that
    /// clients need, and the same ones.
    #[test]
    fn forms() {
        let version = concat!("florin ", env!("CARGO_PKG_VERSION"));
        let line = |commit: &str, seconds: &str| title(commit, seconds).replace(version, "V");
        assert_eq!(line("0123456789ab", "1796083200"), "V (0123456789ab, 2026-12-01)");
        assert_eq!(line("0123456789ab-dirty", ""), "V (0123456789ab-dirty)");
        assert_eq!((line("", "0"), line("", "")), ("V (1970-01-01)".to_owned(), "V".to_owned()));
        assert_eq!(text(false), title(COMMIT, SECONDS));
        let long = text(true);
        assert!(
            long.starts_with(&format!("{version}\ncommit: {}\ndate: ", known(COMMIT))),
            "{long}"
        );
        assert!(long.contains("protocol release: 0.17.9"), "{long}");
        let document = json_of(&facts());
        assert!(document.contains(&format!("\"commit\":\"{}\"", known(COMMIT))), "{document}");
        assert!(long.contains("client releases: 0.17.0 to 0.17.255"), "{long}");
    }

    /// Goal: a day before the project began is as good as another: packages are built with
    /// `SOURCE_DATE_EPOCH=315532800`. A text that is not a time is no day.
    #[test]
    fn days() {
        assert_eq!(day("315532800").as_deref(), Some("1980-01-01"));
        assert_eq!(day("1709164800").as_deref(), Some("2024-02-29"));
        assert_eq!(day("4102444799").as_deref(), Some("2099-12-31"));
        for text in ["", "x", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(day(text), None, "{text}");
        }
        assert_eq!(day(SECONDS).is_none(), SECONDS.is_empty());
    }
}
