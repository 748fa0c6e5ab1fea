//! One site as this shard delivers to it: what waits, the connections, and the
//! back-off when the site cannot be reached.
//!
//! A lane decides nothing about messages. It hands them to connections in
//! order, opens connections up to the shard's share, and after a failure of the
//! whole site returns everything at once, so that nothing waits for a site that
//! is down; a single connection probes it when mail comes after the back-off.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::SiteState;
use super::parcel::Handle;
use crate::base::{Reply, ShardId, UnixMillis};
use crate::io::signal::Signal;
use crate::policy::retry::site_back_off;
use crate::policy::route::Site;

/// Connections in a row that ended before any transaction did, after which a
/// site counts as failed although it can be connected to.
const FRUITLESS_MAX: u32 = 3;
/// How long a lane whose other connections work opens no more of them after
/// one could not be made, in milliseconds.
const GROWTH_PAUSE_MS: u64 = 5_000;

/// A failure of the whole site.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The last word.
    pub(super) reply: Reply,
    /// Who gave it, as `host:port`; empty when the words are ours.
    pub(super) host: String,
}

impl Failure {
    /// A failure in our own words, which name the host.
    pub(super) fn ours(reply: Reply) -> Self {
        Failure { reply, host: String::new() }
    }
}

/// What a lane wants done for a handle just queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kick {
    /// Nothing: a connection will come for it.
    Wait,
    /// Open a connection; it is counted already.
    Open,
}

/// Where an idle connection waits.
pub(super) struct Idle {
    pub(super) signal: Signal,
    since: UnixMillis,
    expired: Cell<bool>,
}

impl Idle {
    /// True when it was woken because it has waited for long, not because
    /// there is something to do.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.get()
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Handle>,
    /// Connections open or being opened.
    connections: u32,
    /// Those of them that are being opened.
    connecting: u32,
    idle: Vec<Rc<Idle>>,
    share: u32,
    /// Failures of the site in a row.
    failures: u32,
    fruitless: u32,
    back_off_until: Option<UnixMillis>,
    grow_after: UnixMillis,
    last_failure: Option<Failure>,
}

/// A lane. See the module's comment.
pub(super) struct Lane {
    pub(super) site: Arc<Site>,
    state: RefCell<State>,
}

impl Lane {
    pub(super) fn new(site: Arc<Site>, share: u32) -> Self {
        Lane { site, state: RefCell::new(State { share, ..State::default() }) }
    }

    /// The share of the site's connections changed.
    pub(super) fn set_share(&self, share: u32) {
        self.state.borrow_mut().share = share;
    }

    /// Queues a handle.
    ///
    /// # Errors
    /// The site is being left alone: the handle back, and why.
    pub(super) fn push(
        &self,
        handle: Handle,
        now: UnixMillis,
    ) -> Result<Kick, Box<(Handle, Failure)>> {
        let mut state = self.state.borrow_mut();
        if state.is_backing_off(now) {
            let failure = state.last_failure.clone().expect("a back-off has a cause");
            return Err(Box::new((handle, failure)));
        }
        state.queue.push_back(handle);
        Ok(state.kick(now))
    }

    /// A connection for what waits, if one is needed and allowed.
    pub(super) fn kick(&self, now: UnixMillis) -> Kick {
        self.state.borrow_mut().kick(now)
    }

    /// The next handle for a connection that has nothing to do.
    pub(super) fn take(&self) -> Option<Handle> {
        self.state.borrow_mut().queue.pop_front()
    }

    /// The next handle for a connection that still waits for the reply to a
    /// message: only when more waits than other connections will come for.
    pub(super) fn take_ahead(&self) -> Option<Handle> {
        let mut state = self.state.borrow_mut();
        let (waiting, open) = (state.queue.len(), state.connections as usize);
        let coming = state.connecting as usize;
        let backlog = waiting > coming && (waiting >= open || state.connections >= state.share);
        if backlog { state.queue.pop_front() } else { None }
    }

    /// Puts a handle back at the front, untouched.
    pub(super) fn put_back(&self, handle: Handle) {
        self.state.borrow_mut().queue.push_front(handle);
    }

    /// True when something waits.
    pub(super) fn has_queued(&self) -> bool {
        !self.state.borrow().queue.is_empty()
    }

    /// Takes out what waits of these logs.
    pub(super) fn purge(&self, of_log: impl Fn(ShardId) -> bool) -> Vec<Handle> {
        let queue = &mut self.state.borrow_mut().queue;
        let (out, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(queue).into_iter().partition(|handle| of_log(handle.id.log));
        *queue = kept;
        out.into()
    }

    /// A connection is ready for its first transaction: the site works.
    pub(super) fn connected(&self) {
        let mut state = self.state.borrow_mut();
        state.connecting -= 1;
        state.failures = 0;
        state.back_off_until = None;
    }

    /// A transaction ended in a reply.
    pub(super) fn fruitful(&self) {
        let mut state = self.state.borrow_mut();
        state.fruitless = 0;
        state.failures = 0;
        state.back_off_until = None;
        state.last_failure = None;
    }

    /// A connection could not be made. When no other works, the site has
    /// failed: what waits, to be deferred.
    pub(super) fn connect_failed(&self, failure: Failure, now: UnixMillis) -> Vec<Handle> {
        let mut state = self.state.borrow_mut();
        state.connecting -= 1;
        state.connections -= 1;
        state.last_failure = Some(failure);
        if state.connections > state.connecting {
            state.grow_after = UnixMillis(now.0 + GROWTH_PAUSE_MS);
            return Vec::new();
        }
        state.fail(now)
    }

    /// An open connection has ended. `fruitless`: why, when no transaction on
    /// it came to an end. Too many of those are a failure of the site: what
    /// waits, to be deferred.
    pub(super) fn closed(&self, fruitless: Option<Failure>, now: UnixMillis) -> Vec<Handle> {
        let mut state = self.state.borrow_mut();
        state.connections -= 1;
        let Some(failure) = fruitless else { return Vec::new() };
        state.last_failure = Some(failure);
        state.fruitless += 1;
        if state.fruitless < FRUITLESS_MAX {
            return Vec::new();
        }
        state.fail(now)
    }

    /// A place to wait for the next handle.
    pub(super) fn idle(&self, now: UnixMillis) -> Rc<Idle> {
        let idle =
            Rc::new(Idle { signal: Signal::default(), since: now, expired: Cell::new(false) });
        self.state.borrow_mut().idle.push(Rc::clone(&idle));
        idle
    }

    /// Wakes connections that have been idle since `before`; finding nothing
    /// queued they close.
    pub(super) fn wake_idle(&self, before: UnixMillis) {
        let mut state = self.state.borrow_mut();
        state.idle.retain(|idle| {
            let keep = idle.since > before;
            if !keep {
                idle.expired.set(true);
                idle.signal.raise();
            }
            keep
        });
    }

    /// True when nothing waits, nothing is open and no back-off is on.
    pub(super) fn is_forgettable(&self, now: UnixMillis) -> bool {
        let state = self.state.borrow();
        state.queue.is_empty() && state.connections == 0 && !state.is_backing_off(now)
    }

    /// For operators.
    pub(super) fn figures(&self, now: UnixMillis) -> SiteState {
        let state = self.state.borrow();
        let words = |failure: &Failure| match failure.host.as_str() {
            "" => failure.reply.to_string(),
            host => format!("{host}: {}", failure.reply),
        };
        SiteState {
            site: self.site.to_string(),
            queued: state.queue.len() as u64,
            connections: u64::from(state.connections),
            back_off_until: state.back_off_until.filter(|_| state.is_backing_off(now)),
            last_failure: state.last_failure.as_ref().map(words),
        }
    }
}

impl State {
    fn is_backing_off(&self, now: UnixMillis) -> bool {
        self.back_off_until.is_some_and(|until| now < until)
    }

    fn kick(&mut self, now: UnixMillis) -> Kick {
        if self.queue.is_empty() {
            return Kick::Wait;
        }
        // The one that waited least: those that are not needed grow old.
        if let Some(idle) = self.idle.pop() {
            idle.signal.raise();
            return Kick::Wait;
        }
        let limit = if self.failures > 0 { 1 } else { self.share.max(1) };
        let working = self.connections > self.connecting;
        if self.connections >= limit
            || self.connecting as usize >= self.queue.len()
            || (working && now < self.grow_after)
        {
            return Kick::Wait;
        }
        self.connections += 1;
        self.connecting += 1;
        Kick::Open
    }

    fn fail(&mut self, now: UnixMillis) -> Vec<Handle> {
        self.failures += 1;
        self.fruitless = 0;
        self.back_off_until = Some(now.plus(site_back_off(self.failures)));
        Vec::from(std::mem::take(&mut self.queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Envelope, Location, Mail, QueueId};

    fn handle(log: u16) -> Handle {
        let envelope = Envelope { recipients: vec!["a@x".into()], ..Envelope::default() };
        Handle {
            id: QueueId { log: ShardId(log), ..QueueId::default() },
            recipients: [0].into_iter().collect(),
            attempts: 0,
            at: Location::default(),
            size: 0,
            mail: Arc::new(Mail { envelope, body: Box::default() }),
        }
    }

    fn lane(share: u32) -> Lane {
        Lane::new(Arc::new(Site::new(&["127.0.0.1:25".parse().unwrap()])), share)
    }

    fn failure() -> Failure {
        let reply = Reply { code: 451, enhanced: None, text: "down".into() };
        Failure { reply, host: "h:25".into() }
    }

    const NOW: UnixMillis = UnixMillis(1_000_000);

    #[test]
    fn opens_connections_up_to_the_share_and_wakes_the_idle_first() {
        let lane = lane(2);
        let kicks: Vec<_> = (0..3).map(|_| lane.push(handle(0), NOW).unwrap()).collect();
        assert_eq!(kicks, [Kick::Open, Kick::Open, Kick::Wait]);
        lane.connected();
        assert!(lane.take().is_some() && lane.take().is_some());
        assert!(lane.take_ahead().is_none(), "the other connection will come for it");
        lane.connected();
        assert!(lane.take_ahead().is_some(), "no other connection is to be had");
        let idle = lane.idle(NOW);
        assert_eq!(lane.push(handle(0), NOW).unwrap(), Kick::Wait);
        futures_lite::future::block_on(idle.signal.wait());
        assert!(!idle.is_expired());
        let idle = lane.idle(NOW);
        lane.wake_idle(UnixMillis(NOW.0 - 1));
        assert!(!idle.is_expired(), "it has not waited for long");
        lane.wake_idle(NOW);
        assert!(idle.is_expired());
    }

    #[test]
    fn a_dead_site_is_left_alone_then_probed_by_one_connection() {
        let lane = lane(5);
        assert_eq!(lane.push(handle(0), NOW).unwrap(), Kick::Open);
        assert_eq!(lane.connect_failed(failure(), NOW).len(), 1);
        assert_eq!(lane.push(handle(0), NOW).unwrap_err().1.host, "h:25");
        assert!(!lane.is_forgettable(NOW));
        let after = lane.figures(NOW).back_off_until.unwrap();
        assert!(lane.is_forgettable(after));
        assert_eq!(lane.push(handle(0), after).unwrap(), Kick::Open);
        assert_eq!(lane.push(handle(0), after).unwrap(), Kick::Wait, "one probe");
        lane.connected();
        assert_eq!(lane.kick(after), Kick::Open, "it works again");
        // A second failure in a row would have been a longer one.
        lane.fruitful();
        assert_eq!(lane.figures(after).last_failure, None);
    }

    #[test]
    fn a_refused_further_connection_is_no_failure_of_the_site() {
        let lane = lane(5);
        for _ in 0..3 {
            lane.push(handle(0), NOW).unwrap();
        }
        lane.connected();
        assert!(lane.connect_failed(failure(), NOW).is_empty());
        assert!(lane.connect_failed(failure(), NOW).is_empty());
        assert_eq!(lane.push(handle(0), NOW).unwrap(), Kick::Wait, "not at once");
        let later = UnixMillis(NOW.0 + GROWTH_PAUSE_MS);
        assert_eq!(lane.kick(later), Kick::Open);
    }

    #[test]
    fn connections_that_bring_nothing_are_a_failure_in_the_end() {
        let lane = lane(1);
        for round in 1..=FRUITLESS_MAX {
            assert_eq!(lane.push(handle(0), NOW).unwrap(), Kick::Open);
            lane.connected();
            lane.put_back(lane.take().unwrap());
            let deferred = lane.closed(Some(failure()), NOW).len();
            assert_eq!(deferred, if round == FRUITLESS_MAX { round as usize } else { 0 });
        }
        assert!(lane.push(handle(0), NOW).is_err());
    }

    #[test]
    fn purges_the_logs_meant() {
        let lane = lane(1);
        for log in [0, 1, 0] {
            lane.push(handle(log), NOW).unwrap();
        }
        assert_eq!(lane.purge(|log| log == ShardId(0)).len(), 2);
        assert!(lane.has_queued());
        assert_eq!(lane.purge(|_| true)[0].id.log, ShardId(1));
        assert!(!lane.has_queued());
    }
}
