//! Connecting to a cluster for a user who waits: a slow connection is reported.

use super::exit::Failure;
use super::output::print_error;
use crate::client::{Client, ClientError, Options, ReplicaAddress};
use std::time::Duration;

/// Time to connect before a line reports why no replica has answered.
const SILENT: Duration = Duration::from_millis(1500);

/// Connects within the deadline of the options. If that takes a while, a line on standard error
/// reports why, and that the attempt continues.
///
/// # Errors
///
/// If the cluster cannot be reached in time, or refuses the client.
pub fn connect_patiently(
    cluster: u128,
    addresses: &[ReplicaAddress],
    options: &Options,
) -> Result<Client, Failure> {
    let deadline = options.deadline.min(SILENT);
    let left = options.deadline.saturating_sub(deadline);
    let connect = |deadline| Client::connect(cluster, addresses, &Options { deadline, ..*options });
    let mut client = match connect(deadline) {
        Err(error @ ClientError::Deadline { .. }) if !left.is_zero() => {
            print_error(&format!("{error}; still trying, for {:.0} s", left.as_secs_f64().ceil()));
            connect(left)?
        }
        result => result?,
    };
    client.set_deadline(options.deadline);
    Ok(client)
}
