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
                }
                Err(error) => {
                    assert!(!(1..=8).contains(&byte));
                    assert_eq!(error, EvictionReasonUnknown(byte));
                }
            }
        }
    }
}
