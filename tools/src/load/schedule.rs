//! Which message is next and when it should begin. Closed loop: at once, so the
//! server's speed sets the pace. Open loop: at fixed times that do not depend
//! on the server; a connection that is free too late takes a message that is
//! overdue, and its latency counts from when it should have begun, so that a
//! stall is not hidden by the messages that it kept from being sent.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::profile::Profile;

/// One message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its number within the run.
    pub seq: u64,
    /// When it should begin; `None`: now.
    pub due: Option<Instant>,
}

/// The messages of one worker: every `stride`th of the run.
#[derive(Debug)]
pub struct Schedule {
    next: Cell<u64>,
    stopped: Cell<bool>,
    first: u64,
    stride: u64,
    limit: u64,
    start: Instant,
    end: Option<Instant>,
    profile: Option<Arc<Profile>>,
}

impl Schedule {
    /// The share of worker `index` of `workers` in a run of `messages` (no end
    /// if `None`) from `start` to `end`; in an open loop by `profile`.
    pub fn new(
        (index, workers): (usize, usize),
        messages: Option<u64>,
        (start, end): (Instant, Option<Instant>),
        profile: Option<Arc<Profile>>,
    ) -> Self {
        let (first, stride) = (index as u64, workers as u64);
        let limit =
            messages.map_or(u64::MAX, |all| (all + stride - 1).saturating_sub(first) / stride);
        let (next, stopped) = (Cell::new(0), Cell::new(false));
        Schedule { next, stopped, first, stride, limit, start, end, profile }
    }

    /// The next message; `None` when the run is over.
    pub fn take(&self, now: Instant) -> Option<Ticket> {
        self.peek(now).inspect(|_| self.next.set(self.next.get() + 1))
    }

    /// The next message if it is to begin now.
    pub fn take_due(&self, now: Instant) -> Option<Ticket> {
        let ticket = self.peek(now)?;
        ticket.due.is_none_or(|due| due <= now).then(|| {
            self.next.set(self.next.get() + 1);
            ticket
        })
    }

    fn peek(&self, now: Instant) -> Option<Ticket> {
        let count = self.next.get();
        if self.stopped.get() || count >= self.limit {
            return None;
        }
        let seq = self.first + count * self.stride;
        let due = self.profile.as_ref().map(|profile| self.start + profile.at(seq));
        let begins = due.unwrap_or(now);
        self.end.is_none_or(|end| begins < end).then_some(Ticket { seq, due })
    }

    /// The time left; `None` if it has no end.
    pub fn until_end(&self, now: Instant) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(now))
    }

    /// No further message.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    /// True when nothing further will be sent.
    pub fn is_over(&self, now: Instant) -> bool {
        self.peek(now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::profile::Shape;

    #[test]
    fn workers_share_the_messages_without_gap_or_overlap() {
        let start = Instant::now();
        for (messages, workers) in [(10, 3), (2, 3), (9, 3), (1, 1)] {
            let mut seen: Vec<u64> = Vec::new();
            for index in 0..workers {
                let schedule = Schedule::new((index, workers), Some(messages), (start, None), None);
                seen.extend(std::iter::from_fn(|| schedule.take(start)).map(|ticket| ticket.seq));
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..messages).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn open_loop_times_do_not_depend_on_when_they_are_asked_for() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let profile = Profile::new(&Shape::Constant(100.0), Duration::ZERO, Duration::ZERO);
        let profile = Some(Arc::new(profile));
        let schedule = Schedule::new((0, 1), None, (start, Some(at(50))), profile);
        assert_eq!(schedule.take(start).unwrap().due, Some(start));
        assert_eq!(schedule.take_due(at(5)), None);
        let late = schedule.take_due(at(48)).unwrap();
        assert_eq!((late.seq, late.due), (1, Some(at(10))));
        // Overdue messages are sent even when the time is up.
        for expected in [20, 30, 40] {
            assert_eq!(schedule.take(at(90)).unwrap().due, Some(at(expected)));
        }
        assert!(schedule.is_over(at(45)));
    }

    #[test]
    fn closed_loop_ends_on_time_and_when_stopped() {
        let start = Instant::now();
        let end = start + Duration::from_millis(50);
        let schedule = Schedule::new((0, 1), None, (start, Some(end)), None);
        assert_eq!(schedule.take(start), Some(Ticket { seq: 0, due: None }));
        assert_eq!(schedule.take(end), None);
        schedule.stop();
        assert!(schedule.is_over(start));
    }
}
