//! The times of one message: from when it is tried and until when, and the moments
//! at which its sender is to be told that it is late. The configuration sets
//! them, and the terms of the message (FUTURERELEASE, RFC 4865; DELIVERBY, RFC
//! 2852) change them. Pure: the time is an argument.

use crate::base::terms::{ByMode, DeliverBy};
use crate::base::{EnhancedCode, Envelope, Reply, UnixMillis};
use crate::config::Queue;

/// See the module's comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From when it is tried: its arrival, or later if its sender wants that.
    pub from: UnixMillis,
    /// When it is given up.
    pub until: UnixMillis,
    /// When it is late by `queue.delay_notice`.
    notice: Option<UnixMillis>,
    by: Option<DeliverBy>,
}

impl Times {
    /// The times of a message with this envelope.
    pub fn new(queue: &Queue, envelope: &Envelope) -> Self {
        let terms = envelope.terms.as_deref();
        let arrival = envelope.arrival();
        let from = terms.and_then(|terms| terms.hold_until()).unwrap_or(arrival).max(arrival);
        let by = terms.and_then(|terms| terms.deliver_by);
        let expiry = from.plus(queue.expire);
        let until = match by {
            Some(by) if by.mode == ByMode::Return => by.at().min(expiry),
            _ => expiry,
        };
        Times { from, until, notice: queue.delay_notice.map(|age| from.plus(age)), by }
    }

    /// The moments at which its sender is to be told that it is late.
    fn moments(&self) -> impl Iterator<Item = UnixMillis> {
        self.notice.into_iter().chain(self.notify())
    }

    /// When its sender wants to be told that it is not delivered.
    fn notify(&self) -> Option<UnixMillis> {
        self.by.filter(|by| by.mode == ByMode::Notify).map(|by| by.at())
    }

    /// How many of these moments have come.
    pub fn moments_passed(&self, now: UnixMillis) -> u8 {
        self.moments().filter(|moment| *moment <= now).count() as u8
    }

    /// The next of them.
    pub fn next_moment(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.moments().filter(|moment| *moment > now).min()
    }

    /// Whether the sender is to be told at `now` that the message is late: a moment
    /// for it has come, and nothing was recorded for the recipient since then.
    /// `last_at` is when an attempt for it was recorded last, before this one.
    pub fn notice_due(&self, now: UnixMillis, last_at: Option<UnixMillis>) -> bool {
        self.moments().any(|moment| now >= moment && last_at.is_none_or(|last| last < moment))
    }

    /// The time set by the sender is up, and nothing may be tried any more.
    pub fn is_up(&self, now: UnixMillis) -> bool {
        self.by.is_some_and(|by| by.mode == ByMode::Return && by.at() <= now)
    }

    /// The sender's time is up, and it wanted to be told.
    pub fn is_overdue(&self, now: UnixMillis) -> bool {
        self.notify().is_some_and(|at| at <= now)
    }

    /// An attempt that falls on `next`, brought forward to the end, or to when the
    /// sender wants to hear how things stand.
    pub fn within(&self, next: UnixMillis, now: UnixMillis) -> UnixMillis {
        let told = self.notify().filter(|at| *at > now);
        next.min(self.until).min(told.unwrap_or(next))
    }

    /// Why a message is given up whose time is up (RFC 2852; X.4.7 of RFC 3463).
    /// `last` is what was said last.
    pub fn time_is_up(&self, last: Option<&Reply>) -> Reply {
        let mut text = "not delivered within the time that its sender has set".to_owned();
        if let Some(last) = last {
            text.push_str(&format!("; the last answer was {last}"));
        }
        Reply::new(554, TIME_IS_UP, text)
    }
}

/// Delivery time expired, for good.
pub const TIME_IS_UP: EnhancedCode = EnhancedCode(5, 4, 7);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::terms::Terms;

    fn hours(count: u64) -> UnixMillis {
        UnixMillis(count * 3_600_000)
    }

    fn times(queue: &Queue, terms: Option<Terms>) -> Times {
        let terms = terms.map(Box::new);
        Times::new(queue, &Envelope { arrival_ms: hours(1).0, terms, ..Envelope::default() })
    }

    fn by(at: UnixMillis, mode: ByMode) -> Option<Terms> {
        let deliver_by = Some(DeliverBy { at_ms: at.0, mode, trace: false });
        Some(Terms { deliver_by, ..Terms::default() })
    }

    #[test]
    fn without_terms_the_configuration_holds() {
        let times = times(&Queue::default(), None);
        assert_eq!((times.from, times.until), (hours(1), hours(121)));
        assert_eq!(
            (times.next_moment(hours(1)), times.next_moment(hours(5))),
            (Some(hours(5)), None)
        );
        assert!(!times.is_up(hours(999)) && !times.is_overdue(hours(999)));
        assert_eq!(times.within(hours(9), hours(1)), hours(9));
        assert_eq!(times.within(hours(999), hours(1)), hours(121));
    }

    #[test]
    fn a_delay_is_told_once() {
        let times = times(&Queue::default(), None);
        let due = |now, last| times.notice_due(now, last);
        assert!(!due(hours(4), Some(hours(3))));
        assert!(due(hours(5), Some(hours(3))) && due(hours(50), None));
        assert!(due(hours(5), Some(UnixMillis(hours(5).0 - 1))));
        assert!(!due(hours(6), Some(hours(5))), "the attempt at five hours has told it");
        let off = Queue { delay_notice: None, ..Queue::default() };
        assert!(!Times::new(&off, &Envelope::default()).notice_due(hours(100), None));
    }

    #[test]
    fn what_is_kept_grows_old_from_its_release_on() {
        let terms = Terms { hold_until_ms: Some(hours(11).0), ..Terms::default() };
        let times = times(&Queue::default(), Some(terms));
        assert_eq!((times.from, times.until), (hours(11), hours(131)));
        assert_eq!(times.next_moment(hours(11)), Some(hours(15)));
        let past = Terms { hold_until_ms: Some(0), ..Terms::default() };
        let times = super::tests::times(&Queue::default(), Some(past));
        assert_eq!(times.from, hours(1));
    }

    #[test]
    fn a_sender_that_wants_it_back_gets_it_at_that_time() {
        let times = times(&Queue::default(), by(hours(3), ByMode::Return));
        assert_eq!(times.until, hours(3));
        assert!(!times.is_up(UnixMillis(hours(3).0 - 1)) && times.is_up(hours(3)));
        assert_eq!(times.within(hours(4), hours(2)), hours(3));
        assert_eq!(times.next_moment(hours(1)), Some(hours(5)), "by then it has gone");
        let long = by(hours(9999), ByMode::Return);
        assert_eq!(super::tests::times(&Queue::default(), long).until, hours(121));
        let said = Reply::new(450, EnhancedCode(4, 2, 0), "later");
        assert_eq!(
            times.time_is_up(Some(&said)).to_string(),
            "554 5.4.7 not delivered within the time that its sender has set; the last answer was \
             450 4.2.0 later"
        );
    }

    #[test]
    fn a_sender_that_wants_to_be_told_is_told_then_and_of_the_usual_delay_too() {
        let times = times(&Queue::default(), by(hours(3), ByMode::Notify));
        assert_eq!(times.until, hours(121));
        assert!(!times.is_up(hours(99)) && times.is_overdue(hours(3)));
        assert_eq!(times.within(hours(4), hours(2)), hours(3), "there is something to tell then");
        assert_eq!(times.within(hours(4), hours(3)), hours(4));
        assert!(!times.notice_due(hours(2), None) && times.notice_due(hours(3), None));
        assert!(!times.notice_due(hours(4), Some(hours(3))));
        assert!(times.notice_due(hours(5), Some(hours(4))));
        let passed: Vec<u8> = (2..7).map(|hour| times.moments_passed(hours(hour))).collect();
        assert_eq!(passed, [0, 1, 1, 2, 2]);
        let off = Queue { delay_notice: None, ..Queue::default() };
        let only = super::tests::times(&off, by(hours(3), ByMode::Notify));
        assert_eq!(only.next_moment(hours(0)), Some(hours(3)));
    }
}
