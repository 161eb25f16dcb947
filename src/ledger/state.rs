//! The few numbers that the ledger knows beside its rows, saved with every checkpoint.

use crate::protocol::types::Transfer;
use crate::storage::rows::{EXPIRY_SLOT_BITS, expires_at};

/// Bytes of the saved state.
pub const STATE_SIZE: usize = 48;
/// First bytes of the saved state: tells versions apart.
const STATE_VERSION: u64 = 1;

/// Saved state that cannot be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Another number of bytes than [`STATE_SIZE`].
    Size {
        /// Bytes given.
        found: usize,
    },
    /// Another version than ours.
    Version {
        /// The version found.
        found: u64,
    },
}

impl std::fmt::Display for StateError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StateError::Size { found } => {
                write!(formatter, "ledger state has {found} bytes, expected {STATE_SIZE}")
            }
            StateError::Version { found } => {
                write!(formatter, "ledger state has version {found}, expected {STATE_VERSION}")
            }
        }
    }
}

impl std::error::Error for StateError {}

/// Whether saved state is such that a ledger can go on with it.
///
/// # Errors
///
/// If it cannot be ours.
pub fn check_state(bytes: &[u8]) -> Result<(), StateError> {
    State::decode(bytes).map(|_| ())
}

/// See the module. All times in nanoseconds since 1970, zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Newest commit timestamp.
    pub commit_timestamp: u64,
    /// Highest timestamp of any account, imported or not.
    pub account_timestamp_max: u64,
    /// Highest timestamp of any transfer, imported or not.
    pub transfer_timestamp_max: u64,
    /// Open pending transfers with a timeout.
    pub timed_open: u64,
    /// With open ones: none of them expires before this time.
    pub expiry_bound: u64,
}

impl State {
    /// A pending transfer was created; it counts if it has a timeout.
    pub fn pending_created(&mut self, transfer: &Transfer) {
        if let Some(expires_at) = expires_at(transfer) {
            if self.timed_open == 0 || expires_at < self.expiry_bound {
                self.expiry_bound = expires_at;
            }
            self.timed_open += 1;
        }
    }

    /// A pending transfer was posted, voided or has expired.
    pub fn pending_resolved(&mut self, transfer: &Transfer) {
        if transfer.timeout > 0 {
            assert!(self.timed_open > 0, "a timed transfer counts while it is open");
            self.timed_open -= 1;
        }
    }

    /// The first slot of the expiry index that may hold an open transfer.
    pub fn expiry_slot(&self) -> u64 {
        self.expiry_bound >> EXPIRY_SLOT_BITS
    }

    /// Writes the state.
    pub fn encode(&self, out: &mut [u8; STATE_SIZE]) {
        let words = [
            STATE_VERSION,
            self.commit_timestamp,
            self.account_timestamp_max,
            self.transfer_timestamp_max,
            self.timed_open,
            self.expiry_bound,
        ];
        for (chunk, word) in out.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads what [`State::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<State, StateError> {
        if bytes.len() != STATE_SIZE {
            return Err(StateError::Size { found: bytes.len() });
        }
        let word = |index: usize| {
            let chunk = &bytes[index * 8..(index + 1) * 8];
            u64::from_le_bytes(chunk.try_into().expect("a word has eight bytes"))
        };
        if word(0) != STATE_VERSION {
            return Err(StateError::Version { found: word(0) });
        }
        Ok(State {
            commit_timestamp: word(1),
            account_timestamp_max: word(2),
            transfer_timestamp_max: word(3),
            timed_open: word(4),
            expiry_bound: word(5),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the state survives saving, and foreign bytes are refused with the facts.
    #[test]
    fn round_trip() {
        let state = State {
            commit_timestamp: 1,
            account_timestamp_max: 2,
            transfer_timestamp_max: 3,
            timed_open: 4,
            expiry_bound: 5,
        };
        let mut bytes = [0; STATE_SIZE];
        state.encode(&mut bytes);
        assert_eq!(State::decode(&bytes), Ok(state));
        assert_eq!(State::decode(&bytes[1..]), Err(StateError::Size { found: STATE_SIZE - 1 }));
        bytes[0] = 9;
        assert_eq!(State::decode(&bytes), Err(StateError::Version { found: 9 }));
    }

    /// Goal: the bound follows the earliest open transfer and starts afresh when none was open.
    #[test]
    fn expiry_bound() {
        let pending = |timestamp, timeout| Transfer { timeout, timestamp, ..Transfer::default() };
        let mut state = State::default();
        state.pending_created(&pending(5, 0));
        assert_eq!(state.timed_open, 0);
        state.pending_created(&pending(5, 3));
        assert_eq!((state.timed_open, state.expiry_bound), (1, 3_000_000_005));
        state.pending_created(&pending(6, 2));
        state.pending_created(&pending(7, 9));
        assert_eq!((state.timed_open, state.expiry_bound), (3, 2_000_000_006));
        for (timestamp, timeout) in [(5, 3), (6, 2), (7, 9), (5, 0)] {
            state.pending_resolved(&pending(timestamp, timeout));
        }
        assert_eq!(state.timed_open, 0);
        state.pending_created(&pending(8, 100));
        assert_eq!(state.expiry_bound, 100_000_000_008);
    }
}
