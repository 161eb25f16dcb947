//! What must hold, looked at after every step. Checkers draw no randomness.
//!
//! * [`history`]: one log, executed by the model, with every reply as the model gives it.
//! * [`durability`]: nothing is promised or committed before it is durable where it must be.
//! * [`blocks`]: equal bytes in every block that is written or sent, and none left damaged at rest.
//! * [`references`]: blocks in use are those that the checkpoint refers to, and the free set says
//!   so.
//! * [`storage`]: equal checkpoints, and at the end equal grids and intact logs.

pub mod blocks;
pub mod durability;
pub mod history;
pub mod references;
pub mod storage;

use std::fmt;

/// What a failed run means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Something wrong was done.
    Correctness,
    /// Nothing was done although it could have been.
    Liveness,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// What happened, for people.
    pub message: String,
}

impl Failure {
    /// Something wrong was done.
    #[must_use]
    pub fn correctness(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Correctness, message: message.into() }
    }

    /// Nothing was done.
    #[must_use]
    pub fn liveness(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::Liveness, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.kind, self.message)
    }
}

/// Fails with a message unless a condition holds.
#[macro_export]
macro_rules! require {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err($crate::simulator::checkers::Failure::correctness(format!($($message)+)));
        }
    };
}
