//! Moments as they are typed: nanoseconds since 1970, or a date and time of day.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::protocol::types::{TIMESTAMP_MAX, TIMESTAMP_MIN};

/// A moment that a ledger can have timestamps of, or the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The present, as the cluster's clock has it when it is asked.
    Now,
    /// Nanoseconds since 1970: from 1 to 2^63 - 1.
    At(u64),
}

impl Moment {
    /// The moment in nanoseconds, if the present is this.
    #[must_use]
    pub fn timestamp(self, now: u64) -> u64 {
        match self {
            Moment::Now => now,
            Moment::At(timestamp) => timestamp,
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        if text.eq_ignore_ascii_case("now") {
            return Ok(Moment::Now);
        }
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let timestamp = if is_number {
            text.parse::<u64>().ok()
        } else {
            let moment = text.parse::<Timestamp>().map_err(|error| {
                format!(
                    "neither nanoseconds since 1970 nor a moment like 2026-11-26T18:30:00Z: {error}"
                )
            })?;
            u64::try_from(moment.as_nanosecond()).ok()
        };
        timestamp
            .filter(|timestamp| (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(timestamp))
            .map(Moment::At)
            .ok_or_else(|| "a moment after 1970 and before April 2262 is expected".to_owned())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Now => formatter.write_str("now"),
            Moment::At(timestamp) => write!(formatter, "{}", Rfc3339(*timestamp)),
        }
    }
}

/// Nanoseconds since 1970; prints as RFC 3339 in UTC, with all nine digits of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339(pub u64);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = Timestamp::from_nanosecond(i128::from(self.0)).expect("before the year 9999");
        write!(formatter, "{moment:.9}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both forms mean the same, offsets are understood, and what is shown can be typed.
    #[test]
    fn moments() {
        let at = |text: &str| text.parse::<Moment>();
        assert_eq!(at("now"), Ok(Moment::Now));
        assert_eq!(at("1"), Ok(Moment::At(1)));
        assert_eq!(at("1234567890000000005"), Ok(Moment::At(1_234_567_890_000_000_005)));
        assert_eq!(at("2009-02-13T23:31:30.000000005Z"), at("1234567890000000005"));
        assert_eq!(at("2009-02-14 00:31:30.000000005+01:00"), at("1234567890000000005"));
        let shown = Moment::At(1_234_567_890_000_000_005).to_string();
        assert_eq!(shown, "2009-02-13T23:31:30.000000005Z");
        assert_eq!(at(&shown), at("1234567890000000005"));
        assert_eq!(Moment::Now.timestamp(7), 7);
        assert_eq!(Moment::At(5).timestamp(7), 5);
    }

    /// Goal: what is no moment, or none that a ledger can have, is refused.
    #[test]
    fn refusals() {
        for text in ["0", "9223372036854775808", "99999999999999999999", "1969-12-31T23:59:59Z"] {
            let error = text.parse::<Moment>().unwrap_err();
            assert!(error.contains("after 1970"), "{text}: {error}");
        }
        for text in ["", "yesterday", "2026-11-26", "2026-13-01T00:00:00Z", "-5", "1.5"] {
            let error = text.parse::<Moment>().unwrap_err();
            assert!(error.contains("2026-11-26T18:30:00Z"), "{text}: {error}");
        }
        let last = i64::MAX.to_string().parse::<Moment>().unwrap();
        assert_eq!(last.to_string(), "2262-04-11T23:47:16.854775807Z");
    }
}
