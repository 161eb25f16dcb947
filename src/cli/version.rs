//! `florin version`: what this is.

use super::exit::Failure;
use super::output::print;
use crate::protocol::{BODY_SIZE_MAX, CLIENTS_MAX, Release};

const EXAMPLES: &str = "\
Examples:
  florin version
  florin version --verbose
      with the releases of clients that are admitted";

/// Options of `florin version`.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct VersionArguments {
    /// Also print what it was built for and what it is compatible with
    #[arg(long)]
    pub verbose: bool,
}

/// Prints the version.
///
/// # Errors
///
/// Never.
pub fn run(arguments: &VersionArguments) -> Result<(), Failure> {
    print(&text(arguments.verbose));
    Ok(())
}

fn text(is_verbose: bool) -> String {
    let version = format!("florin {}", env!("CARGO_PKG_VERSION"));
    if !is_verbose {
        return version;
    }
    let profile = if cfg!(debug_assertions) { "development" } else { "release" };
    let os = std::env::consts::OS;
    let architecture = std::env::consts::ARCH;
    [
        version,
        format!("protocol release: {}", Release::SERVER),
        format!("client releases: {} to {}", Release::CLIENT_MIN, Release::CLIENT_MAX),
        format!("request body: at most {BODY_SIZE_MAX} bytes"),
        format!("sessions: at most {CLIENTS_MAX}"),
        format!("built for: {architecture}-{os}, {profile}"),
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
        assert!(long.contains("client releases: 0.17.0 to 0.17.255"), "{long}");
    }
}
