//! CRC32C (Castagnoli), hardware-assisted, as the segment log and the ledger
//! use it.

/// The checksum of `bytes`, continuing from `seed` (0 to start).
#[inline]
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(seed, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer_and_continuation() {
        // RFC 3720, appendix B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(crc32c(0, b"12345"), b"6789"), 0xe306_9283);
    }
}
