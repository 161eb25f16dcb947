//! The order of the records in an answer.
//!
//! Readers of many records ask for page after page, each for the timestamps behind the page before.
//! They end only if every page keeps to its range, so a page that does not is a server's mistake.

use super::error::ServerError;
use crate::protocol::types::{Account, ChangeEvent, Transfer};

/// A record that is read in the order of timestamps.
pub trait Record {
    /// Returns its timestamp and its type. No other record of its kind has both.
    fn place(&self) -> (u64, u8);
}

impl Record for Account {
    fn place(&self) -> (u64, u8) {
        (self.timestamp, 0)
    }
}

impl Record for Transfer {
    fn place(&self) -> (u64, u8) {
        (self.timestamp, 0)
    }
}

impl Record for ChangeEvent {
    fn place(&self) -> (u64, u8) {
        (self.timestamp, self.type_)
    }
}

/// Checks that records are of a range, and that their timestamps rise. Only events of different
/// types can have the same timestamp.
///
/// # Errors
///
/// If one is not where it must be.
pub fn check_order(
    places: impl Iterator<Item = (u64, u8)>,
    first: u64,
    last: u64,
) -> Result<(), ServerError> {
    let mut before: Option<(u64, u8)> = None;
    for place in places {
        let (timestamp, type_) = place;
        let rises = before.is_none_or(|(other, other_type)| {
            timestamp > other || (timestamp == other && type_ != other_type)
        });
        if !rises || !(first..=last).contains(&timestamp) {
            return Err(ServerError::Timestamp(timestamp));
        }
        before = Some(place);
    }
    Ok(())
}
