//! When a deferred recipient is tried again, and when it is given up (RFC 5321,
//! section 4.5.4.1). Pure: the time and the jitter are arguments.
//!
//! The waits are the operator's, `queue.retry`. A reply that says by its
//! enhanced code (RFC 3463) what is the matter may lengthen or shorten a wait
//! ([`pace`]), within the longest that the operator wrote.

use std::fmt;
use std::time::Duration;

use crate::base::{EnhancedCode, Reply, UnixMillis};
use crate::config::Queue;
use crate::policy::times::Times;

/// What follows a deferral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next attempt.
    At(UnixMillis),
    /// The message is too old: give up.
    Expired,
}

/// Parts of a wait that jitter adds or takes away at most: an eighth.
const JITTER_DIVISOR: u32 = 8;
const MINUTE: u64 = 60;
/// Attempts whose wait greylisting shortens.
const GREYLISTED_MAX: u16 = 3;

/// What follows attempt number `attempts` (the first is 1) at `now`, of a
/// message with these times, that ended in `reply`.
///
/// `jitter` is any number, from which up to an eighth more or less is made, so
/// that what failed together is not retried together. The last attempt falls on
/// the moment of expiry.
pub fn after_deferral(
    queue: &Queue,
    times: &Times,
    now: UnixMillis,
    attempts: u16,
    reply: &Reply,
    jitter: u64,
) -> Next {
    if now >= times.until {
        return Next::Expired;
    }
    let (at_least, at_most) = pace(reply, attempts);
    let wait = scheduled(&queue.retry, attempts).min(at_most);
    let wait = wait.max(at_least.min(longest(&queue.retry)));
    let wait_ms = wait.as_millis().min(u128::from(u64::MAX / 2)) as u64;
    let spread_ms = wait_ms / u64::from(JITTER_DIVISOR);
    let shift_ms = jitter % (2 * spread_ms + 1);
    let wait = Duration::from_millis(wait_ms - spread_ms + shift_ms);
    Next::At(times.within(now.plus(wait), now))
}

/// The least and the most that makes sense to wait after attempt number
/// `attempts` ended in `reply`.
fn pace(reply: &Reply, attempts: u16) -> (Duration, Duration) {
    let minutes = |count| Duration::from_secs(count * MINUTE);
    let any = (Duration::ZERO, Duration::MAX);
    match reply.enhanced {
        // A mailbox that is full is not emptied in minutes.
        Some(EnhancedCode(4, 2, 2)) => (minutes(60), Duration::MAX),
        // A mailbox that takes no mail now, or gets too much of it.
        Some(EnhancedCode(4, 2, 1) | EnhancedCode(4, 7, 28)) => (minutes(15), Duration::MAX),
        // Most greylisting lets mail in after five minutes (with the jitter six
        // are never less), and some forgets the first attempt within hours.
        _ if is_greylisting(reply) && attempts <= GREYLISTED_MAX => (minutes(6), minutes(15)),
        _ => any,
    }
}

/// Whether a reply looks like greylisting, which has no code of its own: it is
/// told by its words, or by 450 or 451 with 4.7.1.
fn is_greylisting(reply: &Reply) -> bool {
    if reply.code != 450 && reply.code != 451 {
        return false;
    }
    let says = |word: &str| {
        let (text, word) = (reply.text.as_bytes(), word.as_bytes());
        text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
    };
    reply.enhanced == Some(EnhancedCode(4, 7, 1)) || says("greylist") || says("graylist")
}

/// The wait after attempt number `attempts`; the last repeats.
fn scheduled(waits: &[Duration], attempts: u16) -> Duration {
    let index = usize::from(attempts.max(1) - 1);
    waits.get(index).or(waits.last()).copied().unwrap_or_default()
}

fn longest(waits: &[Duration]) -> Duration {
    waits.iter().max().copied().unwrap_or_default()
}

/// `next`, brought nearer when it is further from `now` than `queue` lets any
/// wait be: then the clock was set back after it was chosen.
pub fn sane(next: UnixMillis, now: UnixMillis, queue: &Queue) -> UnixMillis {
    let longest = longest(&queue.retry);
    next.min(now.plus(longest + longest / JITTER_DIVISOR))
}

/// Where a recipient stands in the schedule; printed like `retry 3 of 7, then
/// every 4h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which retry comes next; 0 for the first attempt.
    pub retry: u16,
    /// How many waits the schedule has.
    pub of: u16,
    /// The last of them, which repeats.
    pub every: Duration,
}

/// The step after `attempts` attempts.
pub fn step(queue: &Queue, attempts: u16) -> Step {
    Step {
        retry: attempts,
        of: u16::try_from(queue.retry.len()).unwrap_or(u16::MAX),
        every: queue.retry.last().copied().unwrap_or_default(),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = crate::config::print_duration(self.every);
        match self.retry {
            0 => f.write_str("first attempt"),
            retry if retry <= self.of => {
                write!(f, "retry {retry} of {}, then every {every}", self.of)
            }
            retry => write!(f, "retry {retry}, every {every}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Envelope;

    const HOUR: Duration = Duration::from_secs(3600);

    fn queue(waits: &[u64]) -> Queue {
        let retry = waits.iter().map(|secs| Duration::from_secs(*secs)).collect();
        Queue { retry, expire: HOUR, ..Queue::default() }
    }

    fn reply(code: u16, enhanced: EnhancedCode, text: &str) -> Reply {
        Reply::new(code, enhanced, text)
    }

    fn busy() -> Reply {
        reply(451, EnhancedCode(4, 3, 2), "busy")
    }

    fn times(queue: &Queue, arrival: UnixMillis) -> Times {
        Times::new(queue, &Envelope { arrival_ms: arrival.0, ..Envelope::default() })
    }

    fn next(arrival: u64, now: u64, attempts: u16, jitter: u64) -> Next {
        let (arrival, now) = (UnixMillis(arrival * 1000), UnixMillis(now * 1000));
        let queue = queue(&[60, 300]);
        after_deferral(&queue, &times(&queue, arrival), now, attempts, &busy(), jitter)
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

    /// Every attempt of a message that is deferred for ever, in seconds since it
    /// arrived, with the same reply each time and jitter of `jitter`.
    fn attempts(queue: &Queue, reply: &Reply, mut jitter: impl FnMut() -> u64) -> Vec<u64> {
        let arrival = UnixMillis(1_700_000_000_000);
        let all = self::times(queue, arrival);
        let (mut now, mut times) = (arrival, Vec::new());
        loop {
            times.push(now.since(arrival).as_secs());
            let count = u16::try_from(times.len()).unwrap();
            match after_deferral(queue, &all, now, count, reply, jitter()) {
                Next::At(next) => {
                    assert!(next > now && sane(next, now, queue) == next);
                    now = next;
                }
                Next::Expired => return times,
            }
        }
    }

    #[test]
    fn five_days_of_the_default_schedule() {
        let queue = Queue::default();
        let days_5 = 5 * 24 * 3600;
        let mut seed = 1_u64;
        let times = attempts(&queue, &busy(), || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 20
        });
        assert!((34..=44).contains(&times.len()), "{} attempts", times.len());
        assert_eq!((times[0], *times.last().unwrap()), (0, days_5));
        for (retry, pair) in times.windows(2).enumerate() {
            let wait = queue.retry.get(retry).or(queue.retry.last()).unwrap().as_secs();
            let (least, most) = (wait - wait / 8 - 1, wait + wait / 8 + 1);
            let is_last = pair[1] == days_5;
            assert!(is_last || (least..=most).contains(&(pair[1] - pair[0])), "{pair:?}");
        }
        // One notice in all that time, with the first attempt past four hours.
        let all = self::times(&queue, UnixMillis(0));
        let notices: Vec<u64> = (0..times.len())
            .filter(|&index| {
                let at = |secs: u64| UnixMillis(secs * 1000);
                let last = index.checked_sub(1).map(|last| at(times[last]));
                all.notice_due(at(times[index]), last)
            })
            .map(|index| times[index])
            .collect();
        let first = times.iter().find(|secs| **secs >= 4 * 3600).unwrap();
        assert_eq!(notices, [*first]);
    }

    #[test]
    fn full_mailboxes_are_left_alone_for_an_hour() {
        let full = reply(452, EnhancedCode(4, 2, 2), "mailbox full");
        let times = attempts(&Queue::default(), &full, || u64::MAX);
        let hour_less = HOUR.as_secs() - HOUR.as_secs() / 8;
        let waits: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let all_but_last = &waits[..waits.len() - 1];
        assert!(all_but_last.iter().all(|wait| *wait >= hour_less), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait > 2 * HOUR.as_secs()), "the schedule goes on");
        let busy_mailbox = reply(450, EnhancedCode(4, 2, 1), "receiving mail too quickly");
        let times = attempts(&Queue::default(), &busy_mailbox, || 0);
        assert!(times[1] >= 13 * MINUTE && times[1] <= 17 * MINUTE, "{times:?}");
        // But never longer than the operator ever waits.
        let times = attempts(&queue(&[60, 120]), &full, || 0);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 135), "{times:?}");
    }

    #[test]
    fn greylisting_is_answered_soon_but_not_too_soon() {
        let listed = [
            reply(450, EnhancedCode(4, 7, 1), "come back later"),
            reply(451, EnhancedCode(4, 3, 0), "You are GreyListed for 300 seconds"),
            Reply { code: 450, enhanced: None, text: "graylisting in action".into() },
        ];
        for reply in &listed {
            let times = attempts(&Queue::default(), reply, || 0);
            assert!((300..420).contains(&times[1]), "{times:?}");
            let slow = Queue { expire: 100 * HOUR, ..queue(&[4 * 3600]) };
            let times = attempts(&slow, reply, || 0);
            assert!(times[1] <= 15 * MINUTE && times[3] <= 45 * MINUTE, "{times:?}");
            assert!(times[4] - times[3] > 3 * 3600, "that was no greylisting");
        }
        for other in [
            reply(421, EnhancedCode(4, 7, 1), "too many connections"),
            reply(450, EnhancedCode(4, 7, 0), "try later"),
        ] {
            assert!(attempts(&Queue::default(), &other, || 0)[1] < 60, "{other}");
        }
    }

    #[test]
    fn a_clock_set_back_does_not_hold_mail_for_long() {
        let queue = queue(&[60, 800]);
        let now = UnixMillis(1_000_000_000);
        let longest = Duration::from_secs(900);
        for (ahead, wanted) in [(1, 1), (900_000, 900_000), (900_001, 900_000), (1 << 50, 900_000)]
        {
            let next = UnixMillis(now.0 + ahead);
            assert_eq!(sane(next, now, &queue), UnixMillis(now.0 + wanted));
        }
        assert_eq!(sane(UnixMillis(u64::MAX), now, &queue), now.plus(longest));
        assert_eq!(sane(UnixMillis(5), now, &queue), UnixMillis(5), "what is due is due");
    }

    #[test]
    fn steps_are_told_in_words() {
        let queue = Queue::default();
        for (attempts, words) in [
            (0, "first attempt"),
            (1, "retry 1 of 7, then every 4h"),
            (7, "retry 7 of 7, then every 4h"),
            (8, "retry 8, every 4h"),
        ] {
            assert_eq!(step(&queue, attempts).to_string(), words);
        }
    }
}
