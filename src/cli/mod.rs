//! The command line: what can be typed, and which of the subcommands it means.
//!
//! One file per subcommand. A command that fails returns a [`Failure`]: its message goes to
//! standard error and its class is the exit code.

pub mod account_id;
pub mod balance;
pub mod benchmark;
pub mod cdc;
pub mod connect;
pub mod destination;
pub mod dev;
pub mod doctor;
pub mod environment;
pub mod exit;
pub mod export;
pub mod format;
pub mod help;
pub mod inspect;
pub mod manual;
pub mod moment;
pub mod output;
pub mod patient;
pub mod progress;
pub mod recover;
pub mod repl;
pub mod replacement;
pub mod size;
pub mod start;
pub mod status;
pub mod version;
pub mod vopr;

use crate::io::{log, signals, system};
use clap::{Parser, Subcommand};
use exit::{EXIT_CODES_HELP, Failure};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  florin dev
      a ledger to develop against, on port 3000, in dev.florin
  florin format --cluster=7 --replica=0 --replica-count=1 0_0.florin
  florin start --addresses=3000 0_0.florin
      a ledger for production
  florin benchmark
      how fast this machine is

Options with [env: FLORIN_…] in their help can be set in the environment: FLORIN_ADDRESSES and \
FLORIN_CLUSTER say which cluster commands use. The command line wins. --format=json prints JSON.

SIZE is a whole number with a unit: 512MiB, 1GiB, 64M. LIST is HOST:PORT, HOST (port 3001) or PORT \
(host 127.0.0.1), separated by commas.
";

fn after_help() -> String {
    format!("{EXAMPLES}\n{EXIT_CODES_HELP}")
}

/// A double-entry ledger as a database.
#[derive(Clone, Debug, Parser)]
#[command(name = "florin", version, after_long_help = after_help(), max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Create the data file of a replica
    Format(format::FormatArguments),
    /// Recreate a lost data file while the cluster keeps running
    Recover(recover::RecoverArguments),
    /// Serve a data file
    Start(start::StartArguments),
    /// Serve a small ledger for development, without setup
    Dev(dev::DevArguments),
    /// Print the completion script of a shell
    Completions(manual::CompletionsArguments),
    /// Print or write manual pages
    Man(manual::ManArguments),
    /// Show the health of a cluster: role, lag and clock of each replica
    Status(status::StatusArguments),
    /// Check whether this machine has what a server needs
    Doctor(doctor::DoctorArguments),
    /// Print the version
    Version(version::VersionArguments),
    /// Run statements against a cluster, interactively or from a script
    Repl(repl::ReplArguments),
    /// Stream change events to standard output
    Cdc(cdc::CdcArguments),
    /// Export accounts, transfers or balances, now or at a past moment
    Export(export::ExportArguments),
    /// Show the balances of one account, now or at a past moment
    Balance(balance::BalanceArguments),
    /// Measure the throughput and latency of a server or a cluster
    Benchmark(benchmark::BenchmarkArguments),
    /// Inspect and verify a data file without changing it
    Inspect(inspect::InspectArguments),
    /// Simulate clusters with faults and verify what they do
    Vopr(vopr::VoprArguments),
}

/// Runs the command that was typed; returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    // The very first: a server that is asked to end ends with 0 from here on.
    if std::env::args_os().nth(1).is_some_and(|command| command == "start" || command == "dev") {
        signals::end_at_once();
    }
    system::ignore_file_size_signal();
    let arguments = environment::parse();
    let result = match &arguments.command {
        Command::Format(arguments) => format::run(arguments),
        Command::Recover(arguments) => recover::run(arguments),
        Command::Start(arguments) => start::run(arguments),
        Command::Dev(arguments) => dev::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Version(arguments) => version::run(arguments),
        Command::Repl(arguments) => repl::run(arguments),
        Command::Cdc(arguments) => cdc::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Balance(arguments) => balance::run(arguments),
        Command::Completions(arguments) => manual::run_completions(arguments),
        Command::Man(arguments) => manual::run_man(arguments),
        Command::Benchmark(arguments) => benchmark::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Vopr(arguments) => vopr::run(arguments),
    };
    match result.and_then(|()| output::check_written()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    match log::format() {
        // A server's last line carries time and replica like the others.
        _ if log::has_begun() => log::error(format_args!("{failure}")),
        log::Format::Text => output::print_error(&format!("florin: {failure}")),
        log::Format::Json => log::error(format_args!("{failure}")),
    }
    failure.code()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(text: &str) -> Result<Command, ErrorKind> {
        let words = std::iter::once("florin").chain(text.split_ascii_whitespace());
        match Arguments::try_parse_from(words) {
            Ok(arguments) => Ok(arguments.command),
            Err(error) => Err(error.kind()),
        }
    }

    fn benchmark(text: &str) -> benchmark::BenchmarkArguments {
        match parse(&format!("benchmark {text}")) {
            Ok(Command::Benchmark(arguments)) => arguments,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Goal: the catalogue of options is consistent, and the long help has examples and exit codes.
    #[test]
    fn catalogue() {
        Arguments::command().debug_assert();
        let help = Arguments::command().render_long_help().to_string();
        for part in ["florin benchmark", "Exit codes:", "SIZE is"] {
            assert!(help.contains(part), "{help}");
        }
    }

    /// Goal: a benchmark without options has the documented defaults.
    #[test]
    fn benchmark_defaults() {
        let arguments = benchmark("");
        assert_eq!((arguments.account_count, arguments.account_count_hot), (10_000, 0));
        assert_eq!(arguments.account_distribution.name(), "uniform");
        assert_eq!((arguments.transfer_count, arguments.transfer_hot_percent), (10_000_000, 100));
        assert_eq!((arguments.transfer_batch_count, arguments.transfer_batch_delay), (8189, 0));
        assert_eq!((arguments.query_count, arguments.clients), (100, 1));
        assert_eq!(arguments.id_order.name(), "tbid");
        let switches = [
            arguments.transfer_pending,
            arguments.validate,
            arguments.no_history,
            arguments.imported,
            arguments.output.is_json(),
        ];
        assert_eq!(switches, [false; 5]);
        assert!(arguments.check().is_ok());
    }

    /// Goal: options are understood with and without `=`, and sizes with their units.
    #[test]
    fn benchmark_options() {
        let arguments = benchmark(
            "--clients 32 --transfer-batch-count=1 --id-order=reversed --cache-grid=1GiB \
             --account-distribution zipfian --file x.florin --json",
        );
        assert_eq!((arguments.clients, arguments.transfer_batch_count), (32, 1));
        assert_eq!(arguments.id_order.name(), "reversed");
        assert_eq!(arguments.account_distribution.name(), "zipfian");
        assert_eq!(arguments.cache_grid, Some(size::ByteSize(1 << 30)));
        assert!(arguments.output.is_json() && arguments.file.is_some());
    }

    /// Goal: what is out of range, unknown or contradictory is refused.
    #[test]
    fn benchmark_refusals() {
        let kind = |text: &str| parse(&format!("benchmark {text}")).unwrap_err();
        for text in [
            "--account-count=1",
            "--transfer-hot-percent=101",
            "--transfer-batch-count=0",
            "--transfer-batch-count=8190",
            "--clients=0",
            "--clients=65",
            "--cache-grid=1XB",
        ] {
            assert_eq!(kind(text), ErrorKind::ValueValidation, "{text}");
        }
        assert_eq!(kind("--id-order=best"), ErrorKind::InvalidValue);
        assert_eq!(kind("--speed=11"), ErrorKind::UnknownArgument);
        assert_eq!(kind("--file=x --addresses=3000"), ErrorKind::ArgumentConflict);
        for text in
            ["--account-count-hot=10001", "--imported --clients=2", "--imported --addresses=3000"]
        {
            let failure = benchmark(text).check().unwrap_err();
            assert_eq!(failure.class, exit::ExitClass::Usage, "{text}");
        }
    }

    /// Goal: no command, and an unknown one, are usage errors.
    #[test]
    fn commands() {
        assert_eq!(parse("").unwrap_err(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(parse("run").unwrap_err(), ErrorKind::InvalidSubcommand);
        assert!(matches!(parse("version --verbose"), Ok(Command::Version(_))));
        let text = "format --cluster=7 --replica=0 --replica-count=1 x.florin";
        assert!(matches!(parse(text), Ok(Command::Format(_))));
        let missing = parse("format --replica=0 --replica-count=1 x").unwrap_err();
        assert_eq!(missing, ErrorKind::MissingRequiredArgument);
    }
}
