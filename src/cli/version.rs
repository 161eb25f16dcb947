//! `florin version`: version, commit and compatibility of this program.

use super::exit::Failure;
use super::output::{OutputArguments, print};
use crate::protocol::{BODY_SIZE_MAX, CLIENTS_MAX, Release};

const EXAMPLES: &str = "\
Examples:
  florin version
  florin version --verbose
      with the commit, and the releases of clients that are admitted
  florin version --format=json";

/// Options of `florin version`.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct VersionArguments {
    /// Also print the commit, its date, the platform and the admitted client releases
    #[arg(long)]
    pub verbose: bool,
    /// Form of the output
    #[command(flatten)]
    pub output: OutputArguments,
}

/// The commit that the program was built from, or "unknown": see `build.rs`.
const COMMIT: &str = env!("FLORIN_BUILD_COMMIT");
/// The day of that commit, or "unknown".
const DATE: &str = env!("FLORIN_BUILD_DATE");

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

/// All there is to say about this program, by the names of the JSON object.
fn facts() -> Vec<(&'static str, String)> {
    let profile = if cfg!(debug_assertions) { "development" } else { "release" };
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("commit", COMMIT.to_owned()),
        ("date", DATE.to_owned()),
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
    let version = format!("florin {}", env!("CARGO_PKG_VERSION"));
    if !is_verbose {
        return version;
    }
    let facts = facts();
    let (_, built_for) = facts.last().expect("there are facts");
    [
        version,
        format!("commit: {COMMIT}"),
        format!("date: {DATE}"),
        format!("protocol release: {}", Release::SERVER),
        format!("client releases: {} to {}", Release::CLIENT_MIN, Release::CLIENT_MAX),
        format!("request body: at most {BODY_SIZE_MAX} bytes"),
        format!("sessions: at most {CLIENTS_MAX}"),
        format!("built for: {built_for}"),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the short form is one line, the long one says what clients need to know.
    #[test]
    fn forms() {
        assert_eq!(text(false), concat!("florin ", env!("CARGO_PKG_VERSION")));
        let long = text(true);
        assert!(long.starts_with(&text(false)));
        assert!(long.contains("protocol release: 0.17.9"), "{long}");
        assert!(long.contains("\ncommit: ") && long.contains("\ndate: "), "{long}");
        let day = DATE.split('-').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
        assert!(DATE == "unknown" || (day[0] > 2025 && day[1] <= 12 && day[2] <= 31), "{DATE}");
        let document = json_of(&facts());
        assert!(document.contains(&format!("\"commit\":\"{COMMIT}\"")), "{document}");
        assert!(long.contains("client releases: 0.17.0 to 0.17.255"), "{long}");
    }
}
