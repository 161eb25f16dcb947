//! Releases: which version of the software wrote a frame, or executes an op.

use std::fmt;
use std::str::FromStr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A version as `major << 16 | minor << 8 | patch`; ordered as versions are. Zero is no release.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(transparent)]
pub struct Release(pub u32);

/// Text that is not `major.minor.patch` with a 16-bit and two 8-bit decimal numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseInvalid;

impl Release {
    /// No release: in frames that are not of any version, such as the root of history.
    pub const ZERO: Release = Release(0);
    /// Oldest client admitted: 0.17.0.
    pub const CLIENT_MIN: Release = Release::new(0, 17, 0);
    /// Newest client admitted: 0.17.255, every client of the 0.17 line.
    pub const CLIENT_MAX: Release = Release::new(0, 17, 255);
    /// The server's own, in pongs and evictions: the protocol it speaks, not its package version.
    pub const SERVER: Release = Release::new(0, 17, 9);

    /// This program's own: its package version.
    pub const PROGRAM: Release = Release::new(
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        small_number(env!("CARGO_PKG_VERSION_MINOR")),
        small_number(env!("CARGO_PKG_VERSION_PATCH")),
    );
    /// The oldest program by whose rules this one can execute ops.
    pub const PROGRAM_MIN: Release = Release::new(0, 1, 0);

    /// The release of three numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u8, patch: u8) -> Release {
        let [major_low, major_high] = major.to_le_bytes();
        Release(u32::from_le_bytes([patch, minor, major_low, major_high]))
    }

    /// The first number.
    #[must_use]
    pub const fn major(self) -> u16 {
        let [_, _, major_low, major_high] = self.0.to_le_bytes();
        u16::from_le_bytes([major_low, major_high])
    }

    /// The second number.
    #[must_use]
    pub const fn minor(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// The third number.
    #[must_use]
    pub const fn patch(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

/// The number that a decimal text is.
const fn number(text: &str) -> u16 {
    let digits = text.as_bytes();
    let mut value = 0_u16;
    let mut at = 0;
    while at < digits.len() {
        assert!(digits[at].is_ascii_digit());
        value = value * 10 + (digits[at] - b'0') as u16;
        at += 1;
    }
    value
}

const fn small_number(text: &str) -> u8 {
    let [low, high] = number(text).to_le_bytes();
    assert!(high == 0, "the second and third number of a release have 8 bits");
    low
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major(), self.minor(), self.patch())
    }
}

impl FromStr for Release {
    type Err = ReleaseInvalid;

    fn from_str(text: &str) -> Result<Release, ReleaseInvalid> {
        if text.bytes().any(|byte| byte != b'.' && !byte.is_ascii_digit()) {
            return Err(ReleaseInvalid);
        }
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(ReleaseInvalid);
        let major = next()?.parse().map_err(|_| ReleaseInvalid)?;
        let minor = next()?.parse().map_err(|_| ReleaseInvalid)?;
        let patch = next()?.parse().map_err(|_| ReleaseInvalid)?;
        if parts.next().is_some() {
            return Err(ReleaseInvalid);
        }
        Ok(Release::new(major, minor, patch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the numbers stand where the wire has them and print and parse the same.
    #[test]
    fn encoding() {
        let release = Release::new(0, 17, 9);
        assert_eq!(release.0, 0x0000_1109);
        assert_eq!(release.as_bytes(), [9, 0x11, 0, 0]);
        assert_eq!(release.to_string(), "0.17.9");
        assert_eq!("0.17.9".parse(), Ok(release));
        assert_eq!("65535.255.255".parse(), Ok(Release(u32::MAX)));
        assert_eq!((release.major(), release.minor(), release.patch()), (0, 17, 9));
    }

    /// Goal: releases order as versions do, and the admitted range is the whole 0.17 line.
    #[test]
    fn order() {
        assert!(Release::CLIENT_MIN <= Release::SERVER);
        assert!(Release::SERVER <= Release::CLIENT_MAX);
        assert!(Release::new(0, 16, 255) < Release::CLIENT_MIN);
        assert!(Release::new(0, 18, 0) > Release::CLIENT_MAX);
        assert!(Release::new(1, 0, 0) > Release::new(0, 255, 255));
        assert!(Release::PROGRAM_MIN <= Release::PROGRAM);
        assert_eq!(Release::PROGRAM.to_string(), env!("CARGO_PKG_VERSION"));
    }

    /// Goal: anything that is not three numbers in range is refused.
    #[test]
    fn invalid_text() {
        let texts = [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "a.b.c",
            "0.256.0",
            "65536.0.0",
            "0.0.256",
            "+1.2.3",
            "1..3",
        ];
        for text in texts {
            assert_eq!(text.parse::<Release>(), Err(ReleaseInvalid), "{text}");
        }
    }
}
