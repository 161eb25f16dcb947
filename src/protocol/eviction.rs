//! Why a session ends against the client's will.

/// Reason of an eviction. A client aborts its process on any other value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EvictionReason {
    /// The client is unknown: never registered, or displaced by others.
    NoSession = 1,
    /// The client's release is older than the oldest admitted.
    ClientReleaseTooLow = 2,
    /// The client's release is newer than the newest admitted.
    ClientReleaseTooHigh = 3,
    /// The operation is unknown.
    InvalidRequestOperation = 4,
    /// The body does not decode for the operation.
    InvalidRequestBody = 5,
    /// The message is above the configured limit, or a register without its body.
    InvalidRequestBodySize = 6,
    /// The session is older than the one known for this client.
    SessionTooLow = 7,
    /// The release changed within a session.
    SessionReleaseMismatch = 8,
}

/// A reason byte outside 1..8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictionReasonUnknown(pub u8);

impl TryFrom<u8> for EvictionReason {
    type Error = EvictionReasonUnknown;

    fn try_from(value: u8) -> Result<EvictionReason, EvictionReasonUnknown> {
        match value {
            1 => Ok(EvictionReason::NoSession),
            2 => Ok(EvictionReason::ClientReleaseTooLow),
            3 => Ok(EvictionReason::ClientReleaseTooHigh),
            4 => Ok(EvictionReason::InvalidRequestOperation),
            5 => Ok(EvictionReason::InvalidRequestBody),
            6 => Ok(EvictionReason::InvalidRequestBodySize),
            7 => Ok(EvictionReason::SessionTooLow),
            8 => Ok(EvictionReason::SessionReleaseMismatch),
            unknown => Err(EvictionReasonUnknown(unknown)),
        }
    }
}

impl EvictionReason {
    /// All of them, in order of their numbers.
    pub const ALL: [EvictionReason; 8] = [
        EvictionReason::NoSession,
        EvictionReason::ClientReleaseTooLow,
        EvictionReason::ClientReleaseTooHigh,
        EvictionReason::InvalidRequestOperation,
        EvictionReason::InvalidRequestBody,
        EvictionReason::InvalidRequestBodySize,
        EvictionReason::SessionTooLow,
        EvictionReason::SessionReleaseMismatch,
    ];

    /// The reason in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EvictionReason::NoSession => "no_session",
            EvictionReason::ClientReleaseTooLow => "client_release_too_low",
            EvictionReason::ClientReleaseTooHigh => "client_release_too_high",
            EvictionReason::InvalidRequestOperation => "invalid_request_operation",
            EvictionReason::InvalidRequestBody => "invalid_request_body",
            EvictionReason::InvalidRequestBodySize => "invalid_request_body_size",
            EvictionReason::SessionTooLow => "session_too_low",
            EvictionReason::SessionReleaseMismatch => "session_release_mismatch",
        }
    }

    /// The reason as a clause.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            EvictionReason::NoSession => {
                "it has no session; others took the place of the one that it had, or the cluster \
                 is another one"
            }
            EvictionReason::ClientReleaseTooLow => "its release is older than the oldest admitted",
            EvictionReason::ClientReleaseTooHigh => "its release is newer than the newest admitted",
            EvictionReason::InvalidRequestOperation => "it asked for an unknown operation",
            EvictionReason::InvalidRequestBody => "the body of its request is not valid",
            EvictionReason::InvalidRequestBodySize => "its request is too large",
            EvictionReason::SessionTooLow => "it registered again; this is its older session",
            EvictionReason::SessionReleaseMismatch => "its release changed within a session",
        }
    }

    /// Whether the reason is what became of the session, not what the client sent.
    #[must_use]
    pub fn is_about_session(self) -> bool {
        matches!(
            self,
            EvictionReason::NoSession
                | EvictionReason::SessionTooLow
                | EvictionReason::SessionReleaseMismatch
        )
    }
}

impl From<EvictionReason> for u8 {
    fn from(reason: EvictionReason) -> u8 {
        reason as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: exactly 1..8 are reasons and each converts back to itself.
    #[test]
    fn bytes() {
        for byte in 0..=u8::MAX {
            match EvictionReason::try_from(byte) {
                Ok(reason) => {
                    assert!((1..=8).contains(&byte));
                    assert_eq!(u8::from(reason), byte);
                    assert_eq!(EvictionReason::ALL[usize::from(byte) - 1], reason);
                }
                Err(error) => {
                    assert!(!(1..=8).contains(&byte));
                    assert_eq!(error, EvictionReasonUnknown(byte));
                }
            }
        }
    }
}
