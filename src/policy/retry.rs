//! When a deferred recipient is tried again, and when it is given up (RFC 5321,
//! section 4.5.4.1). Pure: the time and the jitter are arguments.

use std::time::Duration;

use crate::base::UnixMillis;

/// What follows a deferral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next attempt.
    At(UnixMillis),
    /// The message is too old: give up.
    Expired,
}

/// Parts of a wait that jitter adds or takes away at most: an eighth.
const JITTER_DIVISOR: u64 = 8;

/// What follows attempt number `attempts` (the first is 1) at `now`, of a
/// message that arrived at `arrival`.
///
/// `waits` are the waits after each attempt, the last repeats; `jitter` is any
/// number, from which up to an eighth more or less is made, so that what failed
/// together is not retried together. The last attempt falls on the moment of
/// expiry.
///
/// # Panics
/// When `waits` is empty.
pub fn after_deferral(
    waits: &[Duration],
    expire: Duration,
    arrival: UnixMillis,
    now: UnixMillis,
    attempts: u16,
    jitter: u64,
) -> Next {
    let end = arrival.plus(expire);
    if now >= end {
        return Next::Expired;
    }
    let index = usize::from(attempts.max(1) - 1).min(waits.len() - 1);
    let wait_ms = waits[index].as_millis().min(u128::from(u64::MAX / 2)) as u64;
    let spread_ms = wait_ms / JITTER_DIVISOR;
    let shift_ms = jitter % (2 * spread_ms + 1);
    let wait = Duration::from_millis(wait_ms - spread_ms + shift_ms);
    Next::At(now.plus(wait).min(end))
}

/// How long a destination is left alone after its `failures`-th failure in a
/// row (the first is 1): ten seconds, doubled each time, five minutes at most.
pub fn site_back_off(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(5);
    Duration::from_secs(10 << doublings).min(Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];
    const HOUR: Duration = Duration::from_secs(3600);

    fn next(arrival: u64, now: u64, attempts: u16, jitter: u64) -> Next {
        let (arrival, now) = (UnixMillis(arrival * 1000), UnixMillis(now * 1000));
        after_deferral(&WAITS, HOUR, arrival, now, attempts, jitter)
    }

    #[test]
    fn waits_in_order_the_last_repeats_within_an_eighth() {
        for (attempts, wait_ms) in [(0, 60_000), (1, 60_000), (2, 300_000), (9, 300_000)] {
            let spread = wait_ms / 8;
            let at = |jitter| match next(0, 0, attempts, jitter) {
                Next::At(time) => time.0,
                Next::Expired => panic!("not that old"),
            };
            assert_eq!(at(0), wait_ms - spread);
            assert_eq!(at(spread), wait_ms);
            assert_eq!(at(2 * spread), wait_ms + spread);
            assert_eq!(at(2 * spread + 1), wait_ms - spread);
        }
    }

    #[test]
    fn the_last_attempt_is_at_expiry() {
        assert_eq!(next(0, 3599, 5, 0), Next::At(UnixMillis(3_600_000)));
        assert_eq!(next(0, 3600, 6, 0), Next::Expired);
        // A clock that jumped back does not expire anything.
        assert!(matches!(next(100, 50, 1, 0), Next::At(_)));
    }

    #[test]
    fn back_off_grows_to_five_minutes() {
        let seconds: Vec<u64> = (1..8).map(|n| site_back_off(n).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
    }
}
