//! Moments on the command line: nanoseconds since 1970, dates, dates with a time of day, or a time
//! ago.
//!
//! A number must be large enough to be nanoseconds. Seconds, milliseconds and microseconds since
//! 1970 are refused with the moment that the user presumably means: as nanoseconds, they are all in
//! the first days of 1970, before any ledger.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use crate::protocol::types::{TIMESTAMP_MAX, TIMESTAMP_MIN};

/// The smallest number that is accepted as nanoseconds: a moment in March 1973. Seconds and
/// microseconds of any moment up to the year 5138 are smaller.
const NANOSECONDS_MIN: u64 = 100_000_000_000_000_000;
/// The forms of a moment, for errors.
const FORMS: &str = "expected nanoseconds since 1970, a moment like 2026-11-26T18:30:00Z, \
     2026-11-26 18:30:00 or 2026-11-26 (in UTC), a time ago like -90s, -15m, -1h or -2d, or now";
/// The forms of a moment, for help texts.
pub const TIME_HELP: &str = "\
TIME is `now`, a date (2026-11-26), a date and time of day (2026-11-26T18:30:00Z, 2026-11-26 \
18:30:00+01:00), a time ago by this machine's clock (-90s, -15m, -1h, -2d), or nanoseconds since \
1970. A date is the moment at which the day begins. Without an offset, it is in UTC.";

/// A moment that a ledger can have as a timestamp, or the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The present by the cluster's clock when it answers.
    Now,
    /// Nanoseconds since 1970: from 1 to 2^63 - 1.
    At(u64),
}

impl Moment {
    /// Returns the moment in nanoseconds, given the present.
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
        parse(text, Timestamp::now())
    }
}

/// Returns the present by this machine's clock, in nanoseconds since 1970.
#[must_use]
pub fn clock() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0)
}

/// Parses a moment; `now` is the present.
fn parse(text: &str, now: Timestamp) -> Result<Moment, String> {
    if text.eq_ignore_ascii_case("now") {
        return Ok(Moment::Now);
    }
    let timestamp = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        nanoseconds(text)?
    } else {
        let moment = match text.strip_prefix('-') {
            Some(length) => ago(length, now),
            None => date(text),
        };
        let moment = moment.ok_or_else(|| FORMS.to_owned())?;
        u64::try_from(moment.as_nanosecond()).unwrap_or(0)
    };
    if (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&timestamp) {
        Ok(Moment::At(timestamp))
    } else {
        Err("expected a moment after 1970 and before April 2262".to_owned())
    }
}

/// Parses a moment with an offset, or a date with or without a time of day in UTC.
fn date(text: &str) -> Option<Timestamp> {
    let moment = text.parse::<Timestamp>().ok();
    moment.or_else(|| Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok())
}

/// Parses a time ago without its minus: a whole number with a unit.
fn ago(length: &str, now: Timestamp) -> Option<Timestamp> {
    let (number, unit) = length.split_at_checked(length.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<i64>());
    let length = SignedDuration::from_secs(number?.ok()?.checked_mul(seconds)?);
    now.checked_sub(length).ok()
}

/// Parses nanoseconds since 1970; refuses numbers that are presumably of another unit.
fn nanoseconds(digits: &str) -> Result<u64, String> {
    let Ok(number) = digits.parse::<u64>() else { return Ok(u64::MAX) };
    if number == 0 || number >= NANOSECONDS_MIN {
        return Ok(number);
    }
    let unit = match number {
        100_000_000..100_000_000_000 => Some(("seconds", 1_000_000_000)),
        100_000_000_000..100_000_000_000_000 => Some(("milliseconds", 1_000_000)),
        100_000_000_000_000.. => Some(("microseconds", 1_000)),
        _ => None,
    };
    if let Some((unit, factor)) = unit
        && let Some(timestamp) = number.checked_mul(factor).filter(|it| *it <= TIMESTAMP_MAX)
    {
        let moment = Timestamp::from_nanosecond(i128::from(timestamp)).expect("before 2263");
        return Err(format!(
            "a number must be nanoseconds since 1970; as {unit} it is {moment}: write {timestamp} \
             or {moment}"
        ));
    }
    if let Some(moment) = compact_date(digits) {
        return Err(format!("a number must be nanoseconds since 1970; a date is like {moment}"));
    }
    let moment = Rfc3339(number);
    Err(format!(
        "a number must be nanoseconds since 1970, and this one is in 1970 or soon after: write \
         {moment} if you mean it"
    ))
}

/// Returns a date like 20261126 with its hyphens.
fn compact_date(digits: &str) -> Option<String> {
    if digits.len() != 8 {
        return None;
    }
    let text = format!("{}-{}-{}", &digits[..4], &digits[4..6], &digits[6..]);
    text.parse::<DateTime>().is_ok().then_some(text)
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

    /// Goal: all forms mean the same, offsets count, and a printed moment can be parsed.
    #[test]
    fn moments() {
        let at = |text: &str| text.parse::<Moment>();
        assert_eq!(at("now"), Ok(Moment::Now));
        assert_eq!(at("1234567890000000005"), Ok(Moment::At(1_234_567_890_000_000_005)));
        assert_eq!(at("2009-02-13T23:31:30.000000005Z"), at("1234567890000000005"));
        assert_eq!(at("2009-02-14 00:31:30.000000005+01:00"), at("1234567890000000005"));
        assert_eq!(at("2009-02-13 23:31:30.000000005"), at("1234567890000000005"));
        assert_eq!(at("2009-02-13T23:31:30.000000005"), at("1234567890000000005"));
        assert_eq!(at("2026-11-30"), at("2026-11-30T00:00:00Z"));
        assert_eq!(at("2026-11-30 15:40"), at("2026-11-30T15:40:00Z"));
        assert_eq!(at("1970-01-01T00:00:00.000000001Z"), Ok(Moment::At(1)));
        let shown = Moment::At(1_234_567_890_000_000_005).to_string();
        assert_eq!(shown, "2009-02-13T23:31:30.000000005Z");
        assert_eq!(at(&shown), at("1234567890000000005"));
        assert_eq!(Moment::Now.timestamp(7), 7);
        assert_eq!(Moment::At(5).timestamp(7), 5);
    }

    /// Goal: a time ago is counted from the present.
    #[test]
    fn times_ago() {
        let now = "2026-11-30T15:40:00.5Z".parse::<Timestamp>().unwrap();
        for (text, moment) in [
            ("-90s", "2026-11-30T15:38:30.5Z"),
            ("-15m", "2026-11-30T15:25:00.5Z"),
            ("-1h", "2026-11-30T14:40:00.5Z"),
            ("-2d", "2026-11-28T15:40:00.5Z"),
            ("-1w", "2026-11-23T15:40:00.5Z"),
            ("-0s", "2026-11-30T15:40:00.5Z"),
        ] {
            assert_eq!(parse(text, now), parse(moment, now), "{text}");
        }
        for text in ["-", "-s", "-1", "-1y", "-1.5h", "--1h", "-9223372036854775807w", "-1 h"] {
            assert!(parse(text, now).is_err(), "{text}");
        }
        assert!(parse("-100000d", now).unwrap_err().contains("after 1970"));
    }

    /// Goal: a text that is not a moment, or not one that a ledger can have, is refused.
    #[test]
    fn refusals() {
        for text in ["0", "9223372036854775808", "99999999999999999999", "1969-12-31T23:59:59Z"] {
            let error = text.parse::<Moment>().unwrap_err();
            assert!(error.contains("after 1970"), "{text}: {error}");
        }
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-31", "-5", "1.5", "+1h"] {
            let error = text.parse::<Moment>().unwrap_err();
            assert!(error.contains("2026-11-26T18:30:00Z"), "{text}: {error}");
        }
        let last = i64::MAX.to_string().parse::<Moment>().unwrap();
        assert_eq!(last.to_string(), "2262-04-11T23:47:16.854775807Z");
    }

    /// Goal: a number of another unit is refused, with the moment that it means; any number that
    /// is accepted is of a plausible year.
    #[test]
    fn other_units() {
        for (text, part) in [
            ("1796053368", "as seconds it is 2026-11-30T15:42:48Z: write 1796053368000000000 or"),
            ("1796053368123", "as milliseconds it is 2026-11-30T15:42:48.123Z: write"),
            ("1796053368123456", "as microseconds it is 2026-11-30T15:42:48.123456Z: write"),
            ("20261130", "a date is like 2026-11-30"),
            ("5", "write 1970-01-01T00:00:00.000000005Z if you mean it"),
            ("99999999", "if you mean it"),
        ] {
            let error = text.parse::<Moment>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(NANOSECONDS_MIN.to_string().parse::<Moment>().is_ok());
    }
}
