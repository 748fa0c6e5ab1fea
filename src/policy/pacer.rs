//! A rate kept exactly: slots are given out in the order asked for, none too
//! early (the generic cell rate algorithm). Pure.

use std::time::{Duration, Instant};

use crate::config::Rate;

/// Gives out slots at a [`Rate`]: in any time `t` at most `rate * t` and
/// [`Rate::burst`] more.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    interval: Duration,
    burst: u32,
    /// When the slots so far would be used up if they were spread evenly.
    full_until: Option<Instant>,
    /// The slot given out last, unless it came back.
    last: Option<Instant>,
}

impl Pacer {
    pub(super) fn new(rate: Rate) -> Self {
        let (interval, burst) = (rate.interval(), rate.burst());
        Pacer { interval, burst, full_until: None, last: None }
    }

    /// Uses `rate` from the last slot on. Slots given out stay as they are, but
    /// when the rate has grown nobody waits for those that lie ahead of `now`: an
    /// hour's, by the old rate, may be what the new one lets through at once.
    pub(super) fn set_rate(&mut self, rate: Rate, now: Option<Instant>) {
        let fresh = Pacer::new(rate);
        if (fresh.interval, fresh.burst) == (self.interval, self.burst) {
            return;
        }
        let shrinks = fresh.interval.as_secs_f64() / self.interval.as_secs_f64();
        let from = |last: Instant| match now {
            Some(now) if last > now && shrinks < 1.0 => now + (last - now).mul_f64(shrinks),
            _ => last,
        };
        let full_until = self.last.map(|last| from(last) + fresh.interval);
        *self = Pacer { full_until, last: self.last, ..fresh };
    }

    /// When the next slot is; `now` if there is one at once.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let earliest = self.full_until.and_then(|until| until.checked_sub(self.tolerance()));
        earliest.map_or(now, |earliest| earliest.max(now))
    }

    /// How many slots there are at once.
    pub(super) fn available(&self, now: Instant) -> u32 {
        let ahead = self.full_until.map_or(Duration::ZERO, |until| until.duration_since(now));
        let used = ahead.as_nanos().div_ceil(self.interval.as_nanos());
        u32::try_from(used).map_or(0, |used| self.burst.saturating_sub(used))
    }

    /// Takes the next slot: when it is.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let at = self.next(now);
        let from = self.full_until.map_or(at, |until| until.max(at));
        self.full_until = Some(from + self.interval);
        self.last = Some(at);
        at
    }

    /// The slot `at` is not used. Only the one given out last can be given to
    /// somebody else.
    pub(super) fn give_back(&mut self, at: Instant) {
        if self.last == Some(at) {
            self.full_until = self.full_until.and_then(|until| until.checked_sub(self.interval));
            self.last = None;
        }
    }

    /// The slot `at` has passed unused, and is wanted still: when its holder may
    /// go, so that no more go in any time than by the slots. The one given out last
    /// moves to `now`; another gives way to the next slot, unless slots are further
    /// apart than `patience`, for which nobody waits.
    pub(super) fn renew(&mut self, at: Instant, now: Instant, patience: Duration) -> Instant {
        if self.last == Some(at) {
            self.give_back(at);
        } else if self.interval > patience {
            return at;
        }
        self.take(now)
    }

    /// True when nothing is lost by forgetting the slots so far.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.full_until.is_none_or(|until| until <= now)
    }

    fn tolerance(&self) -> Duration {
        self.interval * (self.burst - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Per;
    use proptest::prelude::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn slots_come_evenly_after_the_burst() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Rate { count: 20, per: Per::Second });
        assert_eq!(pacer.available(start), 2);
        let slots: Vec<_> = (0..4).map(|_| pacer.take(start)).collect();
        assert_eq!(slots, [0, 0, 50, 100].map(|ms| at(start, ms)));
        assert_eq!((pacer.available(start), pacer.next(start)), (0, at(start, 150)));
        assert_eq!(pacer.available(at(start, 150)), 1);
        assert!(!pacer.is_idle(at(start, 199)) && pacer.is_idle(at(start, 200)));
        assert_eq!(
            pacer.available(at(start, 10_000)),
            2,
            "a pause saves up no more than the burst"
        );
    }

    #[test]
    fn only_the_last_slot_can_be_given_back() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Rate { count: 1, per: Per::Second });
        let (first, second) = (pacer.take(start), pacer.take(start));
        pacer.give_back(first);
        assert_eq!(pacer.next(start), at(start, 2000));
        pacer.give_back(second);
        pacer.give_back(second);
        assert_eq!(pacer.take(start), second);
    }

    #[test]
    fn another_rate_counts_from_the_last_slot() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Rate { count: 1, per: Per::Hour });
        let _ = pacer.take(start);
        pacer.set_rate(Rate { count: 1, per: Per::Hour }, None);
        assert_eq!(pacer.next(start), at(start, 3_600_000));
        pacer.set_rate(Rate { count: 1, per: Per::Second }, None);
        assert_eq!(pacer.next(start), at(start, 1000));
        // Two slots are ahead, of which the new rate makes nothing much.
        let mut pacer = Pacer::new(Rate { count: 1, per: Per::Hour });
        let slots: Vec<_> = (0..3).map(|_| pacer.take(start)).collect();
        pacer.set_rate(Rate { count: 1, per: Per::Second }, Some(start));
        assert_eq!(pacer.next(start), at(start, 3000));
        pacer.set_rate(Rate { count: 2, per: Per::Hour }, Some(start));
        assert_eq!(pacer.next(start), slots[2] + Duration::from_secs(1800));
    }

    #[test]
    fn a_slot_that_has_passed_is_no_licence_to_catch_up() {
        let start = Instant::now();
        let (patience, rate) = (Duration::from_secs(5), Rate { count: 1, per: Per::Second });
        let mut pacer = Pacer::new(rate);
        let slot = pacer.take(start);
        let late = at(start, 900);
        assert_eq!(pacer.renew(slot, late, patience), late, "it was the last");
        assert_eq!(pacer.next(late), at(start, 1900), "a whole second after it");
        let (first, second) = (pacer.take(late), pacer.take(late));
        assert_eq!((first, second), (at(start, 1900), at(start, 2900)));
        let late = at(start, 2850);
        assert_eq!(pacer.renew(first, late, patience), at(start, 3900), "behind the second");
        let mut pacer = Pacer::new(Rate { count: 1, per: Per::Hour });
        let (first, _) = (pacer.take(start), pacer.take(start));
        assert_eq!(pacer.renew(first, late, patience), first, "not in two hours");
    }

    fn rates() -> impl Strategy<Value = Rate> {
        let per = prop_oneof![Just(Per::Second), Just(Per::Minute), Just(Per::Hour)];
        (1..400_u32, per).prop_map(|(count, per)| Rate { count, per })
    }

    proptest! {
        /// In any window of time no more slots are used than the rate and the
        /// burst allow; and none is held back that both allow.
        #[test]
        fn no_window_holds_too_many(
            rate in rates(),
            steps in proptest::collection::vec((0..2000_u64, 0..4_u8), 1..200),
        ) {
            let start = Instant::now();
            let mut pacer = Pacer::new(rate);
            let mut now = start;
            let mut used: Vec<Instant> = Vec::new();
            for (pause_ms, kind) in steps {
                now += Duration::from_millis(pause_ms);
                let promised = pacer.next(now);
                prop_assert_eq!(pacer.available(now) > 0, promised == now);
                let slot = pacer.take(now);
                prop_assert_eq!(slot, promised);
                if kind == 0 {
                    pacer.give_back(slot);
                } else {
                    used.push(slot);
                }
            }
            prop_assert!(used.is_sorted());
            let (burst, interval) = (rate.burst() as usize, rate.interval());
            for first in 0..used.len() {
                for last in first..used.len() {
                    let window = used[last] - used[first];
                    let most = burst + (window.as_nanos() / interval.as_nanos()) as usize;
                    prop_assert!(last - first < most, "{} in {window:?}", last - first + 1);
                    // The same in the operator's words, without rounding.
                    let worth = u128::from(rate.count) * window.as_nanos();
                    let exact = burst as u128 + worth / rate.per.span().as_nanos();
                    prop_assert!(((last - first) as u128) < exact);
                }
            }
        }
    }
}
