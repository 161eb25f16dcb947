//! Numbers as they are typed: decimal, hexadecimal, and counted down from the maximum.
//!
//! `10`, `0x1F`, `1_000_000`; `-0` is the maximum of the field, `-1` one less, and so on.

/// Why a text is not a number that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// It is not a number.
    Invalid,
    /// It is larger than the maximum.
    TooLarge,
}

/// Reads a number between zero and `max`.
///
/// # Errors
///
/// If the text is not a number, or the number is too large.
///
/// # Panics
///
/// Never: larger numbers are refused before.
pub fn parse_number(text: &str, max: u128) -> Result<u128, NumberError> {
    let (from_max, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (radix, digits) = match hexadecimal {
        Some(digits) => (16, digits),
        None => (10, digits),
    };
    if digits.is_empty() || digits.starts_with('_') || digits.ends_with('_') {
        return Err(NumberError::Invalid);
    }
    if !digits.chars().all(|digit| digit.is_digit(radix) || digit == '_') {
        return Err(NumberError::Invalid);
    }
    let mut value: u128 = 0;
    for digit in digits.chars().filter_map(|digit| digit.to_digit(radix)) {
        let next = value
            .checked_mul(u128::from(radix))
            .and_then(|value| value.checked_add(u128::from(digit)))
            .filter(|value| *value <= max);
        value = next.ok_or(NumberError::TooLarge)?;
    }
    assert!(value <= max);
    Ok(if from_max { max - value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every form of a number is read.
    #[test]
    fn forms() {
        let max = u128::MAX;
        for (text, value) in [
            ("0", 0),
            ("10", 10),
            ("007", 7),
            ("1_000_000", 1_000_000),
            ("0x1F", 31),
            ("0Xff_ff", 65_535),
            ("340282366920938463463374607431768211455", max),
            ("0xffffffffffffffffffffffffffffffff", max),
            ("-0", max),
            ("-1", max - 1),
            ("-0x10", max - 16),
        ] {
            assert_eq!(parse_number(text, max), Ok(value), "{text}");
        }
        assert_eq!(parse_number("-0", 65_535), Ok(65_535));
        assert_eq!(parse_number("-65535", 65_535), Ok(0));
    }

    /// Goal: texts that are not numbers, and numbers that are too large, give different errors.
    #[test]
    fn errors() {
        for text in ["", "-", "--1", "0x", "x1", "1f", "0xg", "_1", "1_", "0x_1", "1-", "+1"] {
            assert_eq!(parse_number(text, u128::MAX), Err(NumberError::Invalid), "{text}");
        }
        for text in ["65536", "0x10000", "-65536", "99999999999999999999999999999999999999999999"] {
            assert_eq!(parse_number(text, 65_535), Err(NumberError::TooLarge), "{text}");
        }
        let above = "340282366920938463463374607431768211456";
        assert_eq!(parse_number(above, u128::MAX), Err(NumberError::TooLarge));
    }
}
