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
use super::signal::Signal;
use crate::base::{Reply, ShardId, UnixMillis};
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
    /// Who gave it, as `host:port`.
    pub(super) host: String,
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
        let open = state.connections as usize;
        let backlog = state.queue.len() >= open
            || (!state.queue.is_empty() && state.connections >= state.share);
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
        let words = |failure: &Failure| format!("{}: {}", failure.host, failure.reply);
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
