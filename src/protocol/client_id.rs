//! Ids of clients that end soon, whose sessions make way before others.
//!
//! The protocol has no way to end a session, and a full table of sessions drops the one that was
//! quiet for longest. A command that asks one question and ends leaves a session behind, and some
//! dozens of such commands would drop the session of an application that is idle. So the ids of
//! Florin's own commands mark them. Not covered: which session makes way (`vsr::sessions`).

/// Upper half of the ids of clients that end soon, or that connect again by themselves. Other
/// clients draw ids at random, so none of them has it.
const SHORT_LIVED: u64 = 0x8d1f_6c2b_e0a7_5934;

/// The id of a client that ends soon.
#[must_use]
pub const fn short_lived(random: u64) -> u128 {
    (SHORT_LIVED as u128) << 64 | random as u128
}

/// Whether the id is one of [`short_lived`].
#[must_use]
pub const fn is_short_lived(client: u128) -> bool {
    client >> 64 == SHORT_LIVED as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: ids are recognised, and others are not.
    #[test]
    fn ids() {
        assert!(is_short_lived(short_lived(0)) && is_short_lived(short_lived(u64::MAX)));
        assert!(!is_short_lived(1) && !is_short_lived(u128::MAX));
        assert_ne!(short_lived(1), short_lived(2));
    }
}
