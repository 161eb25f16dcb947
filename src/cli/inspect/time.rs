//! Timestamps as people read them.

use std::fmt;

const NS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;
/// Days of 400 years of the calendar, after which it repeats.
const DAYS_PER_ERA: u64 = 146_097;
/// Days from the first of March of the year 0 to the first of January 1970.
const DAYS_BEFORE_EPOCH: u64 = 719_468;

/// Nanoseconds since 1970; prints as date and time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub u64);

impl Time {
    /// The same without what is smaller than a millisecond.
    #[must_use]
    pub fn milliseconds(self) -> String {
        let mut text = self.to_string();
        text.truncate(text.len() - 6);
        text
    }
}

/// Year, month and day of a number of days since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that leap days come last.
    let days = days + DAYS_BEFORE_EPOCH;
    let (era, day) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leaps = day / 1460 + day / (DAYS_PER_ERA - 1);
    let year = (day - leaps + day / 36_524) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, over and over.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    let month = if is_next_year { month - 9 } else { month + 3 };
    (era * 400 + year + u64::from(is_next_year), month, day)
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ns) = (self.0 / NS_PER_SECOND, self.0 % NS_PER_SECOND);
        let (year, month, day) = date(seconds / SECONDS_PER_DAY);
        let second = seconds % SECONDS_PER_DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(formatter, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ns:09}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: known moments, and leap days of all kinds of years.
    #[test]
    fn moments() {
        assert_eq!(Time(0).to_string(), "1970-01-01 00:00:00.000000000");
        let moment = 1_234_567_890 * NS_PER_SECOND + 5;
        assert_eq!(Time(moment).to_string(), "2009-02-13 23:31:30.000000005");
        assert_eq!(Time(moment).milliseconds(), "2009-02-13 23:31:30.000");
        assert_eq!(Time(u64::MAX).to_string(), "2554-07-21 23:34:33.709551615");
        let leap = 951_782_400 * NS_PER_SECOND;
        assert_eq!(Time(leap).to_string(), "2000-02-29 00:00:00.000000000");
        let not_leap = 4_107_542_400 * NS_PER_SECOND;
        assert_eq!(Time(not_leap).to_string(), "2100-03-01 00:00:00.000000000");
    }

    /// Goal: every day is the day after the one before, over four centuries.
    #[test]
    fn days_follow() {
        let mut last = date(0);
        for days in 1..DAYS_PER_ERA {
            let (year, month, day) = date(days);
            let next_day = (year, month) == (last.0, last.1) && day == last.2 + 1;
            let next_month = (year, month) == (last.0, last.1 + 1) && day == 1;
            let next_year = year == last.0 + 1 && (month, day, last.1, last.2) == (1, 1, 12, 31);
            assert!(next_day || (next_month && last.2 >= 28) || next_year, "{year}-{month}-{day}");
            last = (year, month, day);
        }
        assert_eq!(last, (2369, 12, 31));
    }
}
