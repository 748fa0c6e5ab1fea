//! Chance for the tools: which messages the sink misbehaves on, what names a
//! run. Fast and of no cryptographic worth.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A number that differs from run to run.
pub fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A generator of pseudo-random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Draw(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to less than 1.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True once in `1 / share` draws.
    pub fn hits(&mut self, share: f64) -> bool {
        share > 0.0 && self.unit() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_as_often_as_asked() {
        let mut draw = Draw::new(1);
        let hits = (0..100_000).filter(|_| draw.hits(0.05)).count();
        assert!((4_800..5_200).contains(&hits), "{hits}");
        assert!(!draw.hits(0.0));
        assert!((0..1000).all(|_| draw.hits(1.0)));
        assert_ne!(seed(), seed());
    }
}
