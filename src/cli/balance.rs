//! `florin balance`: the balances of one account at a moment, with or without `history`.
//!
//! The account's last event up to the moment carries them. In a data file all events are looked
//! through. Of a cluster the account's last transfer is asked for, and then whether a pending
//! transfer expired since: an expiry is an event, but no transfer. If nothing was pending there was
//! none; if what is pending now is what was pending then, neither; else the events in between are
//! read, those of all accounts. Who waits at a terminal sees how far that is.

use indicatif::ProgressBar;
use zerocopy::IntoBytes;

use super::exit::{ExitClass, Failure};
use super::export::balances::{Side, balance_at, sides_of_event, sides_of_rows};
use super::export::offline::DataFileSource;
use super::export::online::ClusterSource;
use super::export::records::{BALANCE_AT, BalanceAt};
use super::export::{Source, SourceArguments, progress_bar};
use super::moment::{Moment, Rfc3339};
use super::output::print;
use super::patient::Stop;
use crate::protocol::types::{Account, account_filter_flags, account_flags};
use crate::repl::answer::field_text;
use crate::repl::json;
use crate::repl::schema::Field;
use crate::storage::rows::Balances;

const EXAMPLES: &str = "\
Examples:
  florin balance --account=1 --addresses=3000
      now
  florin balance --account=1 --at=2026-11-01T00:00:00Z --addresses=3000 --format=json
      at the end of October
  florin balance --account=0xC0FFEE --at=1795661629539959331 0_0.florin
      from a data file whose server is stopped

Any account, whether it has `history` or not. Balances are those right after the account's last \
event at or before --at: a transfer, or a pending transfer that expired. TIME is in nanoseconds \
since 1970, or like 2026-11-26T18:30:00Z.

A cluster is asked three or four questions. Only if something was pending at that moment, and is \
not so any more, all events from the account's last transfer before the moment up to it are read, \
2730 with each question. Of a data file all events are read. Both show how far they are.";

/// How balances are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object on a line.
    Json,
}

/// Options of `florin balance`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct BalanceArguments {
    /// Where from
    #[command(flatten)]
    pub source: SourceArguments,
    /// Id of the account, decimal or hexadecimal
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    pub account: u128,
    /// The moment
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub at: Moment,
    /// How to show them
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

fn parse_id(text: &str) -> Result<u128, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let id = match digits {
        Some(digits) => u128::from_str_radix(digits, 16),
        None => text.parse(),
    };
    id.ok()
        .filter(|id| *id != 0 && *id != u128::MAX)
        .ok_or_else(|| "a number is expected, neither 0 nor the largest one of 128 bits".to_owned())
}

/// Shows the balances.
///
/// # Errors
///
/// If the source cannot be read, or there was no such account.
pub fn run(arguments: &BalanceArguments) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let source = arguments.source.open(&stop)?;
    let (id, at) = (arguments.account, arguments.at);
    let walk = Walk { bar: progress_bar(&source), stop };
    let found = match source {
        Source::DataFile(mut source) => offline(&mut source, id, at, &walk)?,
        Source::Cluster(mut source) => {
            online(&mut source, id, at, &walk)?.ok_or_else(interrupted)?
        }
    };
    walk.bar.finish_and_clear();
    let row = found.row(arguments.account, arguments.at)?;
    match arguments.format {
        Format::Json => {
            let mut text = String::new();
            json::push_object(&mut text, &BALANCE_AT, row.as_bytes());
            print(&text);
        }
        Format::Text => print(&text_of(&row)),
    }
    Ok(())
}

fn interrupted() -> Failure {
    Failure::new(ExitClass::Error, "interrupted")
}

/// Shows how far looking through many records is, and ends it if that is wanted.
struct Walk {
    bar: ProgressBar,
    stop: Stop,
}

impl Walk {
    /// One record more was looked at.
    fn step(&self) -> Result<(), Failure> {
        self.bar.inc(1);
        if self.stop.is_wanted() { Err(interrupted()) } else { Ok(()) }
    }
}

/// What there is to say of an account at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// There is none.
    NoAccount,
    /// It was created later.
    Later(u64),
    /// Its balances.
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

/// From the rows of a data file.
fn offline(
    source: &mut DataFileSource,
    id: u128,
    at: Moment,
    walk: &Walk,
) -> Result<Found, Failure> {
    let last = at.timestamp(u64::MAX);
    let mut account = None;
    walk.bar.set_prefix("accounts");
    source.accounts(&mut |row| {
        if row.id == id {
            account = Some(*row);
        }
        walk.step()
    })?;
    let Some(account) = account else { return Ok(Found::NoAccount) };
    if account.timestamp > last {
        return Ok(Found::Later(account.timestamp));
    }
    let mut newest = None;
    walk.bar.set_prefix("events");
    source.events(&mut |event| {
        let transfer = &event.transfer;
        let is_ours = transfer.debit_account_id == id || transfer.credit_account_id == id;
        if is_ours && transfer.timestamp <= last {
            newest = ours(&sides_of_rows(transfer, &event.balances), id);
        }
        walk.step()
    })?;
    Ok(Found::Row(row_after(&account, newest)))
}

/// The side of an account, if it is one of both.
fn ours(sides: &[Side; 2], id: u128) -> Option<Side> {
    sides.iter().find(|side| side.account_id == id).copied()
}

fn row_after(account: &Account, newest: Option<Side>) -> BalanceAt {
    newest.map_or(BalanceAt::of_new(account), |side| balance_at(account, &side))
}

/// From a cluster; none if it shall stop.
fn online(
    source: &mut ClusterSource,
    id: u128,
    at: Moment,
    walk: &Walk,
) -> Result<Option<Found>, Failure> {
    let Some((current, now)) = source.account(id)? else { return Ok(None) };
    let Some(current) = current else { return Ok(Some(Found::NoAccount)) };
    let last = at.timestamp(now).min(now);
    if current.timestamp > last {
        return Ok(Some(Found::Later(current.timestamp)));
    }
    let reversed = account_filter_flags::REVERSED;
    let Some(transfers) = source.transfers_of(id, last, 1, reversed)? else { return Ok(None) };
    let Some(transfer) = transfers.first() else {
        let row = source.before_first_event(&current)?;
        return Ok(row.map(Found::Row));
    };
    // Its event, and an expiry that has the same timestamp by chance.
    let mut newest = None;
    let mut note = |sides: [Side; 2]| newest = ours(&sides, id).or(newest);
    let (first, end) = (transfer.timestamp, transfer.timestamp);
    if !source.events(first, end, &mut |event| {
        note(sides_of_event(event));
        Ok(())
    })? {
        return Ok(None);
    }
    let after = newest.expect("every transfer is an event of both its accounts");
    let is_open = is_open(&after);
    let is_settled = if is_open && is_as_now(&after, &current) {
        // The same as now, unless it went and came again: only a newer transfer can do that.
        let Some(newer) = source.transfers_of(id, now, 1, reversed)? else { return Ok(None) };
        newer.first() == Some(transfer)
    } else {
        !is_open
    };
    if !is_settled {
        walk.bar.set_prefix("events");
        let is_complete = source.events(first + 1, last, &mut |event| {
            newest = ours(&sides_of_event(event), id).or(newest);
            walk.step()
        })?;
        if !is_complete {
            return Ok(None);
        }
    }
    Ok(Some(Found::Row(row_after(&current, newest))))
}

/// Whether a pending transfer that expires would change something.
fn is_open(after: &Side) -> bool {
    let Balances { debits_pending, credits_pending, .. } = after.balances;
    debits_pending > 0 || credits_pending > 0 || after.flags & account_flags::CLOSED != 0
}

/// Whether balances and flags are those that the account has now.
fn is_as_now(after: &Side, current: &Account) -> bool {
    let now = Balances {
        debits_pending: current.debits_pending,
        debits_posted: current.debits_posted,
        credits_pending: current.credits_pending,
        credits_posted: current.credits_posted,
    };
    after.balances == now && after.flags == current.flags
}

/// A fact on each line.
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

    /// Goal: ids are understood in both forms, and what is none is refused.
    #[test]
    fn ids() {
        assert_eq!(parse_id("10"), Ok(10));
        assert_eq!(parse_id("0xfF"), Ok(255));
        for text in ["", "0", "0x", "-1", "x", "340282366920938463463374607431768211455"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }

    /// Goal: what expires or not, and what is as it was, is told apart by every balance and flag.
    #[test]
    fn expiries() {
        let account = Account { id: 1, debits_pending: 5, debits_posted: 7, ..Account::default() };
        let balances = Balances { debits_pending: 5, debits_posted: 7, ..Balances::default() };
        let after = Side { account_id: 1, balances, flags: 0, timestamp: 3 };
        assert!(is_open(&after) && is_as_now(&after, &account));
        assert!(!is_as_now(&after, &Account { debits_pending: 4, ..account }));
        assert!(!is_as_now(&after, &Account { credits_posted: 8, ..account }));
        assert!(!is_as_now(&after, &Account { flags: account_flags::CLOSED, ..account }));
        let settled = Side { balances: Balances { debits_pending: 0, ..balances }, ..after };
        assert!(!is_open(&settled));
        assert!(is_open(&Side { flags: account_flags::CLOSED, ..settled }));
    }

    /// Goal: people see every number, and the moment in both forms.
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
