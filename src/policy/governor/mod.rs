//! Decides for one site when another connection may be opened and when a message
//! may be sent, so that the limits hold over all cores. Pure: time is an
//! argument.
//!
//! There is one governor for a site in the process, behind a lock, shared by the
//! site's *lanes* (its deliveries on one shard). A lane asks before it opens a
//! connection and tells how each ends.
//!
//! * **Limits.** Connections are counted here, so their sum never exceeds the
//!   limit. Rates are kept by `pacer`.
//! * **Slow start.** A site begins with two connections, gets one more for each
//!   finished transaction, and half as many after trouble.
//! * **Fairness.** A free connection is kept for the waiting lane whose turn it is
//!   (`lanes`). Where none is free, lanes that have more are told to close one
//!   ([`Governor::must_yield`]).
//! * **Back-off.** When no connection is left after a failure the site is closed
//!   to all lanes for a while that grows with each time; then one connection
//!   probes it. It is open again when a transaction has ended in a reply.

mod lanes;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use lanes::Lanes;

use super::back_off::back_off;
use super::pacer::Pacer;
use super::site::{Rate, SiteLimits};
use crate::base::Reply;

/// Connections that a site begins with.
const SLOW_START: u32 = 2;
/// Connections in a row that ended before any transaction did, after which a
/// site counts as failed although it can be connected to.
const FRUITLESS_MAX: u32 = 3;
/// How long no further connection is opened after one could not be made while
/// others work; doubled each time.
const GROWTH_PAUSE: Duration = Duration::from_secs(5);
const GROWTH_DOUBLINGS_MAX: u8 = 4;
/// A failure of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The last word.
    pub reply: Reply,
    /// Who gave it, as `host:port`; empty when the words are ours.
    pub host: String,
}

impl Failure {
    /// A failure in our own words, which name the host.
    pub fn ours(reply: Reply) -> Self {
        Failure { reply, host: String::new() }
    }
}

/// Whether a lane may open a connection.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It may, and has to: the connection is counted already.
    Go,
    /// Not now.
    Wait {
        /// What keeps it.
        why: Why,
        /// When to ask again; `None` when that is not known: when something has
        /// changed, and within a second.
        until: Option<Instant>,
    },
}

/// What keeps mail from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All connections that the site may have are open, or kept for lanes that
    /// have fewer.
    Connections,
    /// The site may have more, but has not shown yet that it bears them.
    SlowStart,
    /// New connections are limited to a rate.
    ConnectionRate,
    /// Messages are limited to a rate ([`Governor::reserve`]); never a reason
    /// not to open a connection.
    MessageRate,
    /// The site failed and is left alone.
    BackOff,
    /// The site failed, and one connection tries whether it works again.
    Probe,
}

/// See the module's comment.
#[derive(Debug)]
pub struct Governor {
    limit: u32,
    /// Connections that the site has shown to bear; 1 to `limit`.
    window: u32,
    connects: Option<Box<Pacer>>,
    messages: Option<Box<Pacer>>,
    lanes: Lanes,
    /// Failures of the site in a row.
    failures: u32,
    closed_until: Option<Instant>,
    /// Connections without a transaction in a row.
    fruitless: u32,
    /// No more than `grow_most` connections until then.
    grow_after: Option<Instant>,
    grow_most: u32,
    growth_doublings: u8,
    last_failure: Option<Box<Failure>>,
    /// The latest time told.
    now: Option<Instant>,
}

impl Governor {
    /// A governor of a site that nothing is known of.
    pub fn new(limits: &SiteLimits) -> Self {
        let pacer = |rate: Option<Rate>| rate.map(|rate| Box::new(Pacer::new(rate)));
        let limit = limits.connections.value.max(1);
        Governor {
            limit,
            window: limit.min(SLOW_START),
            connects: pacer(limits.connection_rate.value),
            messages: pacer(limits.message_rate.value),
            lanes: Lanes::default(),
            failures: 0,
            closed_until: None,
            fruitless: 0,
            grow_after: None,
            grow_most: 0,
            growth_doublings: 0,
            last_failure: None,
            now: None,
        }
    }

    /// Other limits hold from now on. Connections past them are closed by
    /// [`Governor::must_yield`].
    pub fn set_limits(&mut self, limits: &SiteLimits) {
        self.limit = limits.connections.value.max(1);
        self.window = self.window.min(self.limit);
        set_rate(&mut self.connects, limits.connection_rate.value, self.now);
        set_rate(&mut self.messages, limits.message_rate.value, self.now);
    }

    /// `lane` wants one more connection. One that is told to wait and keeps
    /// asking gets one in the end, whatever the others do.
    pub fn open(&mut self, lane: u16, now: Instant) -> Opening {
        self.note(now);
        if let Some(until) = self.closed_until(now) {
            return Opening::Wait { why: Why::BackOff, until: Some(until) };
        }
        let total = self.connections();
        let (mut why, mut until, mut free) = self.room(total, now);
        if let Some(pacer) = self.connects.as_ref().filter(|_| free > 0) {
            free = free.min(pacer.available(now));
            if free == 0 {
                (why, until) = (Why::ConnectionRate, Some(pacer.next(now)));
            }
        }
        if free <= self.lanes.ahead_of(lane, now) {
            self.lanes.wait(lane, until.map_or(now, |until| until.max(now)));
            return Opening::Wait { why, until };
        }
        if let Some(pacer) = &mut self.connects {
            pacer.take(now);
        }
        self.lanes.opening(lane);
        Opening::Go
    }

    /// `lane` needs no further connection for now, so none is kept for it.
    pub fn withdraw(&mut self, lane: u16) {
        self.lanes.withdraw(lane);
    }

    /// A connection is made: its greeting and EHLO are done.
    pub fn connected(&mut self, lane: u16, now: Instant) {
        self.note(now);
        self.lanes.connected(lane);
        if self.connections() > self.grow_most {
            self.growth_doublings = 0;
        }
    }

    /// A transaction ended in a reply other than 421: the site works.
    pub fn finished(&mut self, lane: u16, now: Instant) {
        self.note(now);
        self.lanes.finished(lane);
        self.window = match self.failures {
            0 => (self.window + 1).min(self.limit),
            _ => self.limit.min(SLOW_START),
        };
        self.failures = 0;
        self.closed_until = None;
        self.fruitless = 0;
        self.last_failure = None;
    }

    /// A connection could not be made. True when the whole site has failed and
    /// is left alone: no other connection works, or is still being made.
    pub fn connect_failed(&mut self, lane: u16, now: Instant, failure: Failure) -> bool {
        self.note(now);
        let before = self.connections();
        self.lanes.failed(lane);
        self.last_failure = Some(Box::new(failure));
        if self.connections() == 0 || self.failures > 0 {
            return self.fail(now);
        }
        self.window = (self.window.min(before) / 2).max(1);
        self.grow_after = Some(now + GROWTH_PAUSE * (1 << self.growth_doublings));
        self.grow_most = self.connections();
        self.growth_doublings = (self.growth_doublings + 1).min(GROWTH_DOUBLINGS_MAX);
        false
    }

    /// A connection is not made after all, which says nothing about the site.
    pub fn abandoned(&mut self, lane: u16, now: Instant) {
        self.note(now);
        self.lanes.failed(lane);
    }

    /// A connection that was made has ended, and its place is kept for another one: it
    /// counts as one that is being opened. When that may be is asked of
    /// [`Governor::reserve_connection`].
    pub fn moves_on(&mut self, lane: u16, now: Instant) {
        self.note(now);
        self.lanes.moves_on(lane);
    }

    /// When a connection may be opened for which there is a place already.
    pub fn reserve_connection(&mut self, now: Instant) -> Instant {
        self.connects.as_mut().map_or(now, |pacer| pacer.take(now))
    }

    /// A connection that was made has ended. `fruitless`: why, when no
    /// transaction on it ended in a reply. True as for
    /// [`Governor::connect_failed`]: too many of those in a row, or the probe,
    /// are a failure of the site.
    pub fn closed(&mut self, lane: u16, fruitless: Option<Failure>, now: Instant) -> bool {
        self.note(now);
        self.lanes.ended(lane);
        let Some(failure) = fruitless else { return false };
        self.last_failure = Some(Box::new(failure));
        self.fruitless += 1;
        if self.fruitless >= FRUITLESS_MAX || self.failures > 0 {
            return self.fail(now);
        }
        self.window = (self.window / 2).max(1);
        false
    }

    /// Whether a connection of `lane` has to be closed after its message: more
    /// are open than the limit allows, or another lane waits that has fewer.
    /// Whoever is told so must close it; others then need not.
    pub fn must_yield(&mut self, lane: u16) -> bool {
        if self.lanes.must_shrink(lane, self.limit) {
            return true;
        }
        let allowed = self.allowed();
        let Some(now) = self.now.filter(|_| self.failures == 0) else { return false };
        self.lanes.must_make_way(lane, allowed, now)
    }

    /// A slot for one message: when it may be sent. They are given out in the
    /// order asked for; `now` where messages are not limited to a rate.
    pub fn reserve(&mut self, now: Instant) -> Instant {
        self.messages.as_mut().map_or(now, |pacer| pacer.take(now))
    }

    /// The slot `at` is not used. It goes to the next who asks, if it was the
    /// last given out.
    pub fn unreserve(&mut self, at: Instant) {
        if let Some(pacer) = &mut self.messages {
            pacer.give_back(at);
        }
    }

    /// The slot `at` has passed unused, and is wanted still: when its holder may
    /// send. One that would have to wait for longer than `patience` may at once.
    pub fn renew(&mut self, at: Instant, now: Instant, patience: Duration) -> Instant {
        self.messages.as_mut().map_or(now, |pacer| pacer.renew(at, now, patience))
    }

    /// True when messages are limited to a rate.
    pub fn limits_messages(&self) -> bool {
        self.messages.is_some()
    }

    /// Until when the site is left alone, if it is.
    pub fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.closed_until.filter(|until| now < *until)
    }

    /// True when the site has failed and is not left alone any more, but has not
    /// been seen to work yet either.
    pub fn is_probing(&self, now: Instant) -> bool {
        self.failures > 0 && self.closed_until(now).is_none()
    }

    /// Ends the time in which the site is left alone: the next connection probes
    /// it. An operator's wish.
    pub fn lift(&mut self) {
        self.closed_until = None;
        self.grow_after = None;
        self.growth_doublings = 0;
    }

    /// True when further finished transactions change nothing: all connections
    /// that the limits allow may be opened, nothing has failed, and no lane waits
    /// for what others have.
    pub fn is_steady(&self) -> bool {
        self.failures == 0
            && self.window == self.limit
            && self.fruitless == 0
            && self.last_failure.is_none()
            && !self.is_contended()
    }

    /// True when a lane with connections should ask [`Governor::must_yield`]:
    /// another one waits that has fewer, or more are open than may be.
    pub fn is_contended(&self) -> bool {
        self.now.is_some_and(|now| self.lanes.is_uneven(now)) || self.connections() > self.limit
    }

    /// The site asked, by the end of a connection that had worked, to be sent
    /// less: half as many connections from now on.
    pub fn slow_down(&mut self, now: Instant) {
        self.note(now);
        self.window = (self.window.min(self.connections()) / 2).max(1);
    }

    /// The last failure, if no transaction has ended well since.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_deref()
    }

    /// Failures of the site in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Connections open or being opened, over all lanes.
    pub fn connections(&self) -> u32 {
        self.lanes.connections()
    }

    /// Connections that the site may have now: what slow start has come to, one
    /// after a failure.
    pub fn allowed(&self) -> u32 {
        if self.failures > 0 { 1 } else { self.window }
    }

    /// True when a new governor would decide as this one: nothing is open,
    /// nothing is left alone and no rate has been used.
    pub fn is_forgettable(&self, now: Instant) -> bool {
        self.is_unused(now) && self.closed_until(now).is_none()
    }

    /// True when nothing is open and no rate has been used: a new governor would
    /// keep to the limits as well.
    pub fn is_unused(&self, now: Instant) -> bool {
        let is_idle = |pacer: &Option<Box<Pacer>>| pacer.as_ref().is_none_or(|p| p.is_idle(now));
        self.connections() == 0 && is_idle(&self.connects) && is_idle(&self.messages)
    }

    fn note(&mut self, now: Instant) {
        // Cores may tell the time in another order than they read it.
        self.now = self.now.max(Some(now));
    }

    /// How many more connections the site may have, and what the matter is if
    /// that are none.
    fn room(&self, total: u32, now: Instant) -> (Why, Option<Instant>, u32) {
        let pause = self.grow_after.filter(|until| now < *until);
        let most = if pause.is_some() { self.grow_most } else { self.limit };
        let free = self.allowed().min(most).saturating_sub(total);
        if self.failures > 0 {
            return (Why::Probe, None, free);
        }
        if free == 0 && total >= most && pause.is_some() {
            return (Why::SlowStart, pause, free);
        }
        let why = if self.window < self.limit { Why::SlowStart } else { Why::Connections };
        (why, None, free)
    }

    /// The site has failed; once for all connections that fail while it is left
    /// alone.
    fn fail(&mut self, now: Instant) -> bool {
        if self.closed_until(now).is_none() {
            self.failures = self.failures.saturating_add(1);
            self.closed_until = Some(now + back_off(self.failures));
        }
        self.fruitless = 0;
        true
    }
}

fn set_rate(pacer: &mut Option<Box<Pacer>>, rate: Option<Rate>, now: Option<Instant>) {
    match (pacer.as_mut(), rate) {
        (Some(pacer), Some(rate)) => pacer.set_rate(rate, now),
        (_, rate) => *pacer = rate.map(|rate| Box::new(Pacer::new(rate))),
    }
}
