//! `florin balance`: the balances of one account at a moment, with or without `history`.
//!
//! The balances are the sum of the account's events up to the moment (`export/balances.rs`). A data
//! file is read whole. For a cluster, the sum begins with the balances after one of the account's
//! last transfers, so that few questions are enough; only if a pending transfer may have expired
//! since, the events of all accounts are read. A terminal shows the progress.

use indicatif::ProgressBar;
use zerocopy::IntoBytes;

use super::account_id::parse_account_id;
use super::exit::{ExitClass, Failure};
use super::export::balances::BalancesAt;
use super::export::progress_bar;
use super::export::records::{BALANCE_AT, BalanceAt};
use super::export::source::{Source, SourceArguments};
use super::moment::{Moment, Rfc3339, TIME_HELP};
use super::output::{OutputArguments, print};
use super::patient::Stop;
use crate::repl::answer::field_text;
use crate::repl::json;
use crate::repl::schema::Field;

const EXAMPLES: &str = "\
Examples:
  florin balance --account=1 --addresses=3000
      now
  florin balance --account=1 --at=2026-11-01 --addresses=3000 --format=json
      at the end of October
  florin balance --account=0xC0FFEE --at=-1h 0_0.florin
      an hour ago, from a data file whose server is stopped

Any account, whether it has `history` or not. Balances are the sum of the account's events at or \
before --at: transfers, and pending transfers that expired. A transfer that was imported counts \
from its own timestamp on. `timestamp` is that of the last event that changed something.

A cluster is asked a handful of questions. Only if an amount was pending at that moment, and has \
changed since, are all events read from the account's last transfer before the moment up to it, \
2730 with each question. A data file is read whole. Both show their progress.";

fn after_help() -> String {
    format!("{EXAMPLES}\n\n{TIME_HELP}")
}

/// Options of `florin balance`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = after_help())]
pub struct BalanceArguments {
    /// The source
    #[command(flatten)]
    pub source: SourceArguments,
    /// Id of the account, decimal or hexadecimal
    #[arg(long, value_name = "ID", value_parser = parse_account_id)]
    pub account: u128,
    /// The moment
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    pub at: Moment,
    /// Form of the output
    #[command(flatten)]
    pub output: OutputArguments,
}

/// Shows the balances.
///
/// # Errors
///
/// If the source cannot be read, or there was no such account.
pub fn run(arguments: &BalanceArguments) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let mut source = arguments.source.open(&stop)?;
    let walk = Walk { bar: progress_bar(&source), stop };
    let found = find(&mut source, arguments.account, arguments.at, &walk)?;
    walk.bar.finish_and_clear();
    let row = found.row(arguments.account, arguments.at)?;
    if arguments.output.is_json() {
        let mut text = String::new();
        json::push_object(&mut text, &BALANCE_AT, row.as_bytes());
        print(&text);
    } else {
        print(&text_of(&row));
    }
    Ok(())
}

/// Shows the progress of reading many records, and ends it on a signal.
struct Walk {
    bar: ProgressBar,
    stop: Stop,
}

impl Walk {
    /// Counts a record that was read; fails if the user wants the command to end.
    fn step(&self) -> Result<(), Failure> {
        self.bar.inc(1);
        if self.stop.is_wanted() {
            return Err(Failure::new(ExitClass::Error, "interrupted"));
        }
        Ok(())
    }
}

/// The state of an account at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The account does not exist.
    NoAccount,
    /// The account was created later, at this timestamp.
    Later(u64),
    /// The account existed, with these balances.
    Row(BalanceAt),
}

impl Found {
    fn row(self, account: u128, at: Moment) -> Result<BalanceAt, Failure> {
        let message = match self {
            Found::Row(row) => return Ok(row),
            Found::NoAccount => format!("there is no account {account}"),
            Found::Later(timestamp) => format!(
                "account {account} did not exist at {at}: it was created at {}",
                Rfc3339(timestamp)
            ),
        };
        Err(Failure::new(ExitClass::Error, message))
    }
}

/// Finds the state of an account.
fn find(source: &mut Source, id: u128, at: Moment, walk: &Walk) -> Result<Found, Failure> {
    let extent = source.extent(at)?;
    let Some(account) = source.account(id)? else { return Ok(Found::NoAccount) };
    if !extent.has_account(&account) {
        return Ok(Found::Later(account.timestamp));
    }
    walk.bar.set_prefix("events");
    let mut balances = BalancesAt::of_account(id);
    source.events_of(id, &extent, &mut balances, &mut || walk.step())?;
    let row = balances.row(&account)?;
    Ok(Found::Row(row.unwrap_or_else(|| BalanceAt::of_new(&account))))
}

/// Returns the row as text, with one field on each line.
fn text_of(row: &BalanceAt) -> String {
    let width = BALANCE_AT.fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
    let line = |field: &Field| {
        let name = field.name;
        let text = match field_text(field, row.as_bytes()) {
            text if name == "timestamp" => format!("{text}  {}", Rfc3339(row.timestamp)),
            text if text.is_empty() => "-".to_owned(),
            text => text,
        };
        format!("{:width$}  {text}", name.replace('_', " "))
    };
    BALANCE_AT.fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the text has every field, and the moment in both forms.
    #[test]
    fn texts() {
        let row = BalanceAt { account_id: 7, debits_posted: 5, timestamp: 1, ..Default::default() };
        let text = text_of(&row);
        for part in [
            "account id       7\n",
            "debits posted    5\n",
            "flags            -\n",
            "1  1970-01-01T",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
