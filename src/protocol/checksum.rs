//! The one checksum for everything that travels or is stored.
//!
//! AEGIS-128L with a zero key and a zero nonce over an empty message, the data being associated
//! data; the checksum is the 128-bit authentication tag. It finds any corruption by chance; it is
//! not a protection against someone who wants to forge.

use aegis::aegis128l::Aegis128L;

/// Checksum of the empty input: of every body that is not there.
pub const CHECKSUM_EMPTY: u128 = u128::from_le_bytes([
    0x83, 0xcc, 0x60, 0x0d, 0xc4, 0xe3, 0xe7, 0xe6, 0x2d, 0x40, 0x55, 0x82, 0x61, 0x74, 0xf1, 0x49,
]);

/// Checksum of `data`; the tag's bytes in their order of travel, read as a little-endian number.
#[must_use]
pub fn checksum(data: &[u8]) -> u128 {
    let state = Aegis128L::<16>::new(&[0; 16], &[0; 16]);
    u128::from_le_bytes(state.encrypt_in_place(&mut [], data))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tag as it is printed: in the order of travel.
    fn hexadecimal(data: &[u8]) -> String {
        format!("{:032x}", checksum(data).swap_bytes())
    }

    fn counting(length: usize) -> Vec<u8> {
        (0..=u8::MAX).cycle().take(length).collect()
    }

    /// Goal: inputs of zeros give the published vectors, at 0, 1, 16, 256 bytes and a full body.
    #[test]
    fn vectors_of_zeros() {
        assert_eq!(hexadecimal(&[]), "83cc600dc4e3e7e62d4055826174f149");
        assert_eq!(hexadecimal(&[0]), "6e12b8774264fed574e418fe77b706bc");
        assert_eq!(hexadecimal(&[0; 16]), "f72ad48dd05dd1656133101cd4be3a26");
        assert_eq!(hexadecimal(&[0; 256]), "651b82f3ddd4fcbf2deb8496e8ff613c");
        assert_eq!(hexadecimal(&vec![0; 1_048_320]), "c60f20bd33c6d4721dbb8a59e8264929");
    }

    /// Goal: counting inputs give the published vectors, around the cipher's block of 32 bytes.
    #[test]
    fn vectors_of_counting_bytes() {
        let vectors = [
            (15, "977666ded767116cd35c3d7ff44d9d60"),
            (31, "419e43b0a730e59ecedf48700b4d97ba"),
            (32, "2a7ca5353eba9161dc6c83c36d2e6adb"),
            (33, "205dbc4d693090b206092b05c26870c4"),
            (240, "cf36208392381922c05b21f99ce8fff6"),
            (256, "d6ba1c495ca4c976f5d0993644aa9acd"),
            (4096, "1a6024c028f73a57736daddc54308dbc"),
        ];
        for (length, expected) in vectors {
            assert_eq!(hexadecimal(&counting(length)), expected, "{length} bytes");
        }
    }

    /// Goal: the constant for the empty input is what the function computes.
    #[test]
    fn empty_constant() {
        assert_eq!(checksum(&[]), CHECKSUM_EMPTY);
    }

    /// Goal: flipping any single bit of a header-sized input changes the checksum.
    #[test]
    fn every_bit_matters() {
        let mut data = counting(240);
        let before = checksum(&data);
        for index in 0..data.len() {
            for bit in 0..8 {
                data[index] ^= 1 << bit;
                assert_ne!(checksum(&data), before, "byte {index} bit {bit}");
                data[index] ^= 1 << bit;
            }
        }
        assert_eq!(checksum(&data), before);
    }
}
