//! CRC32C (Castagnoli), hardware-assisted, as the segment log and the ledger
//! use it.

/// The checksum of `bytes`, continuing from `seed` (0 to start).
#[inline]
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(seed, bytes)
}

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The seed from which `bytes` lead to `crc`: [`crc32c`] run backwards. For any
/// bytes and any checksum there is exactly one.
pub fn crc32c_unwind(crc: u32, bytes: &[u8]) -> u32 {
    let mut state = !crc;
    for byte in bytes.iter().rev() {
        for _ in 0..8 {
            // The topmost bit tells whether the polynomial was added.
            let added = state >> 31 != 0;
            state = if added { (state ^ POLYNOMIAL) << 1 | 1 } else { state << 1 };
        }
        state ^= u32::from(*byte);
    }
    !state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwinding_finds_the_seed() {
        let bytes: Vec<u8> = (0..=255).collect();
        for seed in [0, 1, 0x8000_0000, 0xffff_ffff, 0x1234_5678] {
            for len in [0, 1, 4, 12, 16, 256] {
                let crc = crc32c(seed, &bytes[..len]);
                assert_eq!(crc32c_unwind(crc, &bytes[..len]), seed, "{seed:08x}, {len} bytes");
            }
        }
    }

    #[test]
    fn known_answer_and_continuation() {
        // RFC 3720, appendix B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(crc32c(0, b"12345"), b"6789"), 0xe306_9283);
    }
}
