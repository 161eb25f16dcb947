//! Reading fixed little-endian structures from bytes that came from a disk.

use std::fmt;

use zerocopy::FromBytes;

/// Why bytes from a checkpoint cannot be what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before the structure does.
    Short {
        /// Which structure.
        what: &'static str,
        /// Bytes still needed.
        needed: u64,
        /// Bytes left.
        found: u64,
    },
    /// A value is out of its range.
    Value {
        /// Which value.
        what: &'static str,
        /// What was found.
        found: u64,
        /// What it must be.
        expected: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Short { what, needed, found } => {
                write!(formatter, "{what}: {needed} bytes needed, {found} left")
            }
            DecodeError::Value { what, found, expected } => {
                write!(formatter, "{what} is {found}, but must be {expected}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// A position in bytes that are decoded from front to back.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// At the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, position: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// All bytes, those read included.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next value of type `T`.
    ///
    /// # Errors
    ///
    /// If too few bytes are left.
    ///
    /// # Panics
    ///
    /// Never: the slice has the size of the value.
    pub fn read<T: FromBytes>(&mut self, what: &'static str) -> Result<T, DecodeError> {
        let bytes = self.read_bytes(what, size_of::<T>())?;
        Ok(T::read_from_bytes(bytes).expect("exactly the size of the value"))
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    ///
    /// If fewer are left.
    pub fn read_bytes(
        &mut self,
        what: &'static str,
        length: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let left = &self.bytes[self.position..];
        let Some(bytes) = left.get(..length) else {
            let (needed, found) = (super::count_of(length), super::count_of(left.len()));
            return Err(DecodeError::Short { what, needed, found });
        };
        self.position += length;
        Ok(bytes)
    }
}

/// `Ok` if `holds`, else a [`DecodeError::Value`].
///
/// # Errors
///
/// If `holds` is false.
pub fn require(
    holds: bool,
    what: &'static str,
    found: u64,
    expected: &'static str,
) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(DecodeError::Value { what, found, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: values come out in order, and the end is an error with the facts.
    #[test]
    fn reads_until_the_end() {
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 9];
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.read::<u32>("one"), Ok(1));
        assert_eq!(reader.read::<u32>("two"), Ok(2));
        assert_eq!(reader.position(), 8);
        let error = reader.read::<u64>("three").unwrap_err();
        assert_eq!(error, DecodeError::Short { what: "three", needed: 8, found: 1 });
        assert_eq!(error.to_string(), "three: 8 bytes needed, 1 left");
        assert_eq!(reader.read_bytes("rest", 1), Ok(&[9_u8][..]));
        let error = require(false, "rows", 3, "even").unwrap_err();
        assert_eq!(error.to_string(), "rows is 3, but must be even");
    }
}
