//! Ids of accounts, as users write them on the command line.

use crate::repl::number::parse_number;

/// Parses a decimal or hexadecimal number that an account can have as its id.
///
/// # Errors
///
/// If the text is not such a number.
pub fn parse_account_id(text: &str) -> Result<u128, String> {
    // `-1` is a number counted down from the maximum in the REPL; here it is a slip.
    let id = if text.starts_with('-') { None } else { parse_number(text, u128::MAX).ok() };
    id.filter(|id| *id != 0 && *id != u128::MAX).ok_or_else(|| {
        "expected the id of an account: a decimal or hexadecimal number, neither 0 nor the maximum \
         of 128 bits"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: ids are accepted in both forms; other texts are refused.
    #[test]
    fn ids() {
        assert_eq!(parse_account_id("10"), Ok(10));
        assert_eq!(parse_account_id("0xfF"), Ok(255));
        assert_eq!(parse_account_id("1_000"), Ok(1000));
        for text in ["", "0", "0x", "-1", "x", "340282366920938463463374607431768211455"] {
            assert!(parse_account_id(text).is_err(), "{text}");
        }
    }
}
