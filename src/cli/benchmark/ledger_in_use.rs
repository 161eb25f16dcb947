//! Protects a ledger that somebody else uses from a benchmark.
//!
//! Accounts and transfers cannot be deleted, so a benchmark of a running cluster starts only if
//! that cluster is empty, or if the user says `--yes`.

use super::generate::{LEDGER, Plan};
use super::identity::IdOrder;
use super::report::thousands;
use crate::cli::exit::{ExitClass, Failure};
use crate::cli::output::print_error;
use crate::client::{Client, ClientError};
use crate::protocol::types::{Account, QueryFilter};

/// Refuses a cluster that has an account, unless the user has agreed; prints what will be written.
///
/// A ledger without accounts has no transfers either, so that the question is about accounts only.
///
/// # Errors
///
/// If the cluster is in use and the user has not agreed, or it cannot be asked.
pub fn check(client: &mut Client, plan: &Plan, addresses: &str, yes: bool) -> Result<(), Failure> {
    let found = first_account(client)?;
    let message = describe(found.as_ref(), plan, addresses);
    if found.is_none() || yes {
        print_error(&message);
        return Ok(());
    }
    Err(Failure::new(ExitClass::Usage, format!("{message}. Give --yes to write it nonetheless")))
}

fn first_account(client: &mut Client) -> Result<Option<Account>, ClientError> {
    let filter = QueryFilter { limit: 1, ..QueryFilter::default() };
    Ok(client.query_accounts(&filter)?.first().copied())
}

/// Returns a sentence on the ledger, and one on what will be written.
fn describe(found: Option<&Account>, plan: &Plan, addresses: &str) -> String {
    let state = match found {
        None => "is empty".to_owned(),
        Some(account) => format!(
            "is in use: it has accounts, the first of them {} in ledger {}",
            account.id, account.ledger
        ),
    };
    let ids = match plan.id_order {
        IdOrder::Tbid => "time-ordered ids of this moment".to_owned(),
        IdOrder::Sequential => "the ids 1, 2, 3 and so on".to_owned(),
        IdOrder::Random => "random ids".to_owned(),
        IdOrder::Reversed => "ids from the largest one down".to_owned(),
    };
    format!(
        "the cluster at {addresses} {state}. This benchmark creates {} accounts and {} transfers \
         in ledger {LEDGER} with {ids}; they cannot be deleted",
        thousands(u64::from(plan.account_count)),
        thousands(plan.transfer_count),
    )
}
