//! Unpredictable numbers: straight from the kernel, a few hundred bytes at a time.

use std::io;

/// Bytes fetched at once; a query takes about six.
const BATCH_BYTES: usize = 256;

/// Numbers that nobody can guess from earlier ones.
pub(super) struct Random {
    bytes: [u8; BATCH_BYTES],
    used: usize,
}

impl Random {
    pub(super) fn new() -> Self {
        Random { bytes: [0; BATCH_BYTES], used: BATCH_BYTES }
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub(super) fn u8(&mut self) -> u8 {
        if self.used == BATCH_BYTES {
            self.fill();
        }
        let byte = std::mem::take(&mut self.bytes[self.used]);
        self.used += 1;
        byte
    }

    /// # Panics
    /// When the kernel has no randomness: there is none at all without it. It
    /// always has once the machine is up, and waits for that.
    fn fill(&mut self) {
        // SAFETY: `bytes` is writable for the length given and outlives the call.
        let got = unsafe { libc::getrandom(self.bytes.as_mut_ptr().cast(), BATCH_BYTES, 0) };
        // Up to 256 bytes come whole and without interruption (getrandom(2)).
        assert_eq!(got, BATCH_BYTES as isize, "getrandom: {}", io::Error::last_os_error());
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_repeat() {
        let mut random = Random::new();
        let numbers: Vec<u16> = (0..4 * BATCH_BYTES).map(|_| random.u16()).collect();
        let distinct: std::collections::HashSet<u16> = numbers.iter().copied().collect();
        // 1024 of 65536: 8 repeats are to be expected, 64 never.
        assert!(distinct.len() > numbers.len() - 64, "{}", distinct.len());
        let other: Vec<u16> = (0..64).map(|_| Random::new().u16()).collect();
        assert!(other.iter().any(|number| *number != other[0]));
    }
}
