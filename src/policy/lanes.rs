//! Whether a site gets a lane on each core, or is delivered to from its owner
//! alone. Pure: the owner says at each tick what was delivered.
//!
//! A site that is most of what its owner sends would make one core the
//! bottleneck and have the mail of all others handed to it; split, mail leaves
//! on the core that accepted it. Small sites stay whole, so that their
//! connections are used by all cores' mail.

use std::time::Duration;

/// Messages a second from which a site may be split.
const SPLIT_RATE: u64 = 500;
/// Messages a second below which it is made whole again, if that lasts.
const WHOLE_RATE: u64 = 100;
/// How long it has to last.
const WHOLE_AFTER: Duration = Duration::from_secs(30);

/// What the owner of a site keeps in mind for the decision.
#[derive(Debug, Default)]
pub struct Split {
    seen: u64,
    calm: Duration,
}

impl Split {
    /// Another `span` has passed: `taken` messages of the site have been taken
    /// by all lanes since the beginning, and `own` messages of all sites by the
    /// owner's lanes within the span. Whether the site is to be split or not;
    /// `None` for as it is.
    pub fn tick(&mut self, span: Duration, is_split: bool, taken: u64, own: u64) -> Option<bool> {
        let site = taken.saturating_sub(self.seen);
        self.seen = taken;
        let rate = (u128::from(site) * 1000 / span.as_millis().max(1)) as u64;
        if !is_split {
            self.calm = Duration::ZERO;
            return (rate >= SPLIT_RATE && 2 * site >= own).then_some(true);
        }
        self.calm = if rate < WHOLE_RATE { self.calm + span } else { Duration::ZERO };
        (self.calm >= WHOLE_AFTER).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn most_of_the_traffic_is_split() {
        let mut split = Split::default();
        assert_eq!(split.tick(SECOND, false, 499, 499), None, "little");
        assert_eq!(split.tick(SECOND, false, 1099, 1300), None, "others have more");
        assert_eq!(split.tick(SECOND, false, 1699, 1200), Some(true));
    }

    #[test]
    fn a_split_site_is_made_whole_after_a_calm_while() {
        let mut split = Split::default();
        let mut taken = 0;
        for _ in 0..29 {
            taken += 99;
            assert_eq!(split.tick(SECOND, true, taken, 1), None);
        }
        taken += 100;
        assert_eq!(split.tick(SECOND, true, taken, 1), None, "it begins anew");
        for _ in 0..29 {
            assert_eq!(split.tick(SECOND, true, taken, 1), None);
        }
        assert_eq!(split.tick(SECOND, true, taken, 1), Some(false));
    }
}
