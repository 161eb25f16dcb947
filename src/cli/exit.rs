//! How the process ends: exit codes by class of cause, and failures with their text.

use crate::client::{AddressError, ClientError, ServerError};
use std::fmt;
use std::process::ExitCode;

/// The class of a failure, for scripts: the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitClass {
    /// Anything that no other class names.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The data file is missing, exists already, is in use, or is not a valid one; or the cursor of
    /// a stream is in use.
    DataFile = 3,
    /// The machine has too little memory, or the kernel lacks what is needed.
    Machine = 4,
    /// An address cannot be listened on.
    Network = 5,
    /// Stored bytes were found damaged.
    Corruption = 6,
    /// The cluster could not be reached, or refused the client.
    Cluster = 7,
    /// A simulated cluster did something wrong.
    Correctness = 8,
    /// A simulated cluster made no progress although it could have.
    Liveness = 9,
    /// A cluster serves its clients, but part of it is away, behind, or set up wrongly.
    Degraded = 10,
    /// The ledger's history is not the one that a cursor follows.
    History = 11,
    /// A simulated cluster broke an invariant: the code of an abort.
    Crash = 134,
}

/// The table of exit codes, for the help text.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0    success
  1    an error that is none of the following
  2    the command line is wrong, or a statement in it or in a script
  3    the data file is missing, exists already, in use, or of another kind; a cursor is in use
  4    too little memory, or the kernel lacks something that is needed
  5    an address cannot be listened on
  6    stored bytes were found damaged, or a cluster contradicts itself
  7    the cluster could not be reached, or refused the client
  8    a simulated cluster did something wrong
  9    a simulated cluster made no progress although it could have
  10   clients are served, but part of the cluster is away or behind
  11   the ledger's history is not the one that the cursor of `florin cdc` follows
  134  a broken invariant: please report it with the message";

/// A failed command: what to print and how to exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class, which is the exit code.
    pub class: ExitClass,
    /// A human-readable message: what failed, with the values.
    pub message: String,
}

impl Failure {
    /// Returns a failure of a class with its message.
    #[must_use]
    pub fn new(class: ExitClass, message: impl Into<String>) -> Failure {
        Failure { class, message: message.into() }
    }

    /// Returns the failure of a cluster whose answers contradict its questions, or each other.
    #[must_use]
    pub fn contradiction(what: impl fmt::Display) -> Failure {
        let message = format!(
            "the cluster returned {what}, which contradicts the question or an earlier answer; \
             check the data files with `florin inspect integrity`, and report this"
        );
        Failure::new(ExitClass::Corruption, message)
    }

    /// Returns the exit code.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.class as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<&AddressError> for ExitClass {
    /// A name service that is down is not a mistake of the command line.
    fn from(error: &AddressError) -> ExitClass {
        match error {
            AddressError::Unresolved { .. } => ExitClass::Cluster,
            AddressError::Empty
            | AddressError::TooMany { .. }
            | AddressError::Invalid(_)
            | AddressError::Duplicate(_) => ExitClass::Usage,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let class = match error {
            ClientError::System(_) => ExitClass::Error,
            ClientError::Address(ref error) => error.into(),
            ClientError::TooMuchData { .. } => ExitClass::Usage,
            ClientError::Server(error @ ServerError::Timestamp(_)) => {
                return Failure::contradiction(error);
            }
            _ => ExitClass::Cluster,
        };
        Failure::new(class, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the help lists the code of every class.
    #[test]
    fn help_is_complete() {
        let classes = [
            ExitClass::Error,
            ExitClass::Usage,
            ExitClass::DataFile,
            ExitClass::Machine,
            ExitClass::Network,
            ExitClass::Corruption,
            ExitClass::Cluster,
            ExitClass::Correctness,
            ExitClass::Liveness,
            ExitClass::Degraded,
            ExitClass::History,
        ];
        for (index, class) in classes.iter().enumerate() {
            assert_eq!(usize::from(*class as u8), index + 1);
            assert!(EXIT_CODES_HELP.contains(&format!("\n  {:<5}", *class as u8)));
        }
    }
}
