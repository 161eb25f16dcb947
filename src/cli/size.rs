//! Sizes as people write them: `512MiB`, `1GiB`, `64M`, `4096`.
//!
//! Units are powers of 1024, in either case, with or without `iB` or `B`; no unit means bytes.
//! Whole numbers only.

use std::fmt;
use std::str::FromStr;

const UNITS: [(&str, u32); 5] = [("K", 10), ("M", 20), ("G", 30), ("T", 40), ("P", 50)];

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// What is wrong with the text of a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// There are no digits at its start.
    NumberMissing(String),
    /// The unit is none of ours.
    UnitUnknown(String),
    /// More than 64 bits.
    TooLarge(String),
}

impl fmt::Display for SizeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeError::NumberMissing(text) => {
                write!(formatter, "`{text}` does not start with a whole number, as in 512MiB")
            }
            SizeError::UnitUnknown(unit) => {
                write!(formatter, "`{unit}` is no unit of size: expected KiB, MiB, GiB, TiB or PiB")
            }
            SizeError::TooLarge(text) => write!(formatter, "`{text}` is more than 64 bits hold"),
        }
    }
}

impl std::error::Error for SizeError {}

/// The power of two of a unit.
fn unit_shift(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_uppercase();
    if unit.is_empty() || unit == "B" {
        return Some(0);
    }
    let rest = unit.get(1..).expect("units of other than ASCII letters are unknown below");
    if !["", "B", "IB"].contains(&rest) {
        return None;
    }
    UNITS.iter().find(|(letter, _)| unit.starts_with(letter)).map(|(_, shift)| *shift)
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<ByteSize, SizeError> {
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        if digits.is_empty() {
            return Err(SizeError::NumberMissing(text.to_owned()));
        }
        let unit = unit.trim_start();
        if !unit.is_ascii() {
            return Err(SizeError::UnitUnknown(unit.to_owned()));
        }
        let shift = unit_shift(unit).ok_or_else(|| SizeError::UnitUnknown(unit.to_owned()))?;
        let too_large = || SizeError::TooLarge(text.to_owned());
        let number: u64 = digits.parse().map_err(|_| too_large())?;
        number.checked_mul(1 << shift).map(ByteSize).ok_or_else(too_large)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, shift) in UNITS.iter().rev() {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(formatter, "{}{letter}iB", self.0 >> shift);
            }
        }
        write!(formatter, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: u64) {
        assert_eq!(text.parse(), Ok(ByteSize(expected)), "{text}");
    }

    /// Goal: every way to write a unit means the same.
    #[test]
    fn units() {
        for text in ["64M", "64m", "64MB", "64MiB", "64mib", "64 MiB", "67108864", "65536KiB"] {
            check(text, 64 << 20);
        }
        check("0", 0);
        check("7B", 7);
        check("1GiB", 1 << 30);
        check("2TiB", 2 << 40);
        check("3P", 3 << 50);
    }

    /// Goal: each kind of mistake is told apart, with the text that is wrong.
    #[test]
    fn mistakes() {
        let parse = |text: &str| text.parse::<ByteSize>().unwrap_err();
        assert_eq!(parse(""), SizeError::NumberMissing(String::new()));
        assert_eq!(parse("MiB"), SizeError::NumberMissing("MiB".to_owned()));
        assert_eq!(parse("-1"), SizeError::NumberMissing("-1".to_owned()));
        assert_eq!(parse("1.5GiB"), SizeError::UnitUnknown(".5GiB".to_owned()));
        assert_eq!(parse("1XiB"), SizeError::UnitUnknown("XiB".to_owned()));
        assert_eq!(parse("1MiBs"), SizeError::UnitUnknown("MiBs".to_owned()));
        assert_eq!(parse("1µ"), SizeError::UnitUnknown("µ".to_owned()));
        assert_eq!(parse("99999999P"), SizeError::TooLarge("99999999P".to_owned()));
        let long = "18446744073709551616";
        assert_eq!(parse(long), SizeError::TooLarge(long.to_owned()));
    }

    /// Goal: a size prints in its largest whole unit and reads back.
    #[test]
    fn prints() {
        for (bytes, text) in
            [(0, "0B"), (1000, "1000B"), (1 << 30, "1GiB"), (1536 << 20, "1536MiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
            check(text, bytes);
        }
    }
}
