//! Unpredictable octets for nonces and salts, from the library that computes
//! with them.

/// `N` random octets.
///
/// # Panics
/// When there is no randomness: nothing would be secret then.
pub fn octets<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    aws_lc_rs::rand::fill(&mut octets).expect("the kernel has randomness");
    octets
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_repeats() {
        assert_ne!(super::octets::<16>(), super::octets::<16>());
        assert_ne!(super::octets::<16>(), [0; 16]);
    }
}
