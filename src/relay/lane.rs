//! One site as this shard delivers to it: what waits for a connection, the
//! connections, and the pace of a limited site.
//!
//! A lane decides nothing about messages, and whether a connection may be opened
//! or a message of a limited site may go is the governor's word. It hands
//! messages to connections in order (`ranks`), and after a failure of the whole site
//! returns them all, so that nothing waits here for a site that is down.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::accounts::Account;
use super::parcel::Handle;
use super::ranks::Ranks;
use crate::base::ShardId;
use crate::io::signal::Signal;
use crate::policy::governor::{Failure, Opening, Why};

/// When the governor is asked again that could not say when.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long after its time a message of a limited site may go without a question.
const LATE: Duration = Duration::from_millis(20);

/// What a lane wants done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kick {
    /// Nothing: a connection will come for what waits, or nothing may be done.
    Wait,
    /// Open a connection; it is counted already.
    Open,
    /// Kick again at that time, when the next message may go.
    Pace(Instant),
}

/// Where an idle connection waits.
pub(super) struct Idle {
    pub(super) signal: Signal,
    since: Instant,
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
    queue: Ranks<Handle>,
    /// Connections open or being opened.
    connections: u32,
    /// Those of them that are being opened.
    connecting: u32,
    /// Those of these that move on to another host for one message: whether it can be
    /// reached says nothing about when others go.
    moving: u32,
    idle: Vec<Rc<Idle>>,
    /// Handles that connections go on to other hosts with, and the last number given.
    aside: Vec<(u64, Handle)>,
    last_aside: u64,
    /// Why the governor allowed no connection, and when it is asked again.
    refused: Option<(Why, Instant)>,
    /// When the next message may go: asked of the governor ahead.
    slot: Option<Instant>,
    /// Somebody waits for that time, or an earlier one.
    pacing: Option<Instant>,
    /// Messages taken since the last tick.
    taken: u64,
}

impl State {
    /// Connections being opened that come for whatever waits.
    fn coming(&self) -> usize {
        (self.connecting - self.moving) as usize
    }

    /// A connection is being opened no more.
    fn opened(&mut self, opens: Opens) {
        self.connecting -= 1;
        self.moving -= u32::from(opens == Opens::Anew);
        self.refused = None;
    }
}

/// Which connection is being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opens {
    /// One that [`Kick::Open`] has asked for.
    First,
    /// One that has moved on to another host.
    Anew,
}

/// A lane. See the module's comment.
pub(super) struct Lane {
    me: u16,
    account: Arc<Account>,
    is_limited: Cell<bool>,
    state: RefCell<State>,
}

impl Lane {
    /// The lane of shard `me`. `is_limited`: the site's message rate is.
    pub(super) fn new(me: ShardId, account: Arc<Account>, is_limited: bool) -> Self {
        let state = RefCell::default();
        Lane { me: me.0, account, is_limited: Cell::new(is_limited), state }
    }

    /// Whether the site's message rate is limited has changed.
    pub(super) fn set_limited(&self, is_limited: bool) {
        self.is_limited.set(is_limited);
        self.state.borrow_mut().refused = None;
    }

    /// The limits are about to change: gives back the time that the next message
    /// had by the old ones.
    pub(super) fn give_way(&self) {
        self.give_back_slot(&mut self.state.borrow_mut());
    }

    /// Queues a handle.
    pub(super) fn push(&self, handle: Handle, now: Instant) -> Kick {
        self.state.borrow_mut().queue.push(handle.priority(), handle);
        self.kick(now)
    }

    /// What is to be done for what waits.
    pub(super) fn kick(&self, now: Instant) -> Kick {
        let mut state = self.state.borrow_mut();
        if state.queue.is_empty() {
            if state.refused.take().is_some() {
                self.account.with(|governor| governor.withdraw(self.me));
            }
            return Kick::Wait;
        }
        if !self.may_go(&mut state, now) {
            let at = state.slot.expect("it was reserved");
            if state.pacing.is_some_and(|earlier| earlier <= at) {
                return Kick::Wait;
            }
            state.pacing = Some(at);
            return Kick::Pace(at);
        }
        // The one that waited least: those that are not needed grow old.
        if let Some(idle) = state.idle.pop() {
            idle.signal.raise();
            return Kick::Wait;
        }
        if state.coming() >= state.queue.len()
            || state.refused.is_some_and(|(_, again)| now < again)
        {
            return Kick::Wait;
        }
        match self.account.with(|governor| governor.open(self.me, now)) {
            Opening::Go => {
                state.refused = None;
                state.connections += 1;
                state.connecting += 1;
                Kick::Open
            }
            Opening::Wait { why, until } => {
                state.refused = Some((why, until.unwrap_or(now + ASK_AGAIN)));
                Kick::Wait
            }
        }
    }

    /// The time `at` that a [`Kick::Pace`] named has come.
    pub(super) fn paced(&self, at: Instant) {
        let mut state = self.state.borrow_mut();
        state.pacing = state.pacing.filter(|waits| *waits != at);
    }

    /// True when the next message may go now. Has its time reserved if not.
    fn may_go(&self, state: &mut State, now: Instant) -> bool {
        if !self.is_limited.get() {
            return true;
        }
        let slot = *state.slot.get_or_insert_with(|| self.account.with(|g| g.reserve(now)));
        slot <= now
    }

    /// True when the next message may go although its time came a while ago: others
    /// may have had theirs since.
    fn may_go_late(&self, state: &mut State, now: Instant) -> bool {
        match state.slot {
            Some(slot) if slot + LATE < now => {
                let slot = self.account.with(|g| g.renew(slot, now, super::IDLE_MAX));
                state.slot = Some(slot);
                slot <= now
            }
            _ => true,
        }
    }

    /// The next handle for a connection that has nothing to do.
    pub(super) fn take(&self, now: Instant) -> Option<Handle> {
        let mut state = self.state.borrow_mut();
        if state.queue.is_empty()
            || !self.may_go(&mut state, now)
            || !self.may_go_late(&mut state, now)
        {
            return None;
        }
        state.slot = None;
        state.taken += 1;
        state.queue.pop()
    }

    /// The next handle for a connection that still waits for the reply to a
    /// message: only when more waits than other connections will come for.
    pub(super) fn take_ahead(&self, now: Instant) -> Option<Handle> {
        let backlog = {
            let state = self.state.borrow();
            let waiting = state.queue.len();
            let open = (state.connections - state.moving) as usize;
            let is_refused = state.refused.is_some_and(|(_, again)| now < again);
            waiting > state.coming() && (waiting >= open || is_refused)
        };
        if backlog { self.take(now) } else { None }
    }

    /// Puts a handle back at the front, untouched.
    pub(super) fn put_back(&self, handle: Handle) {
        let mut state = self.state.borrow_mut();
        state.taken = state.taken.saturating_sub(1);
        state.queue.put_back(handle.priority(), handle);
    }

    /// Keeps a handle for the connection that takes it to another host: its number.
    /// It is sent home from here as what waits.
    pub(super) fn set_aside(&self, handle: Handle) -> u64 {
        let mut state = self.state.borrow_mut();
        state.last_aside += 1;
        let number = state.last_aside;
        state.aside.push((number, handle));
        number
    }

    /// The handle that was set aside under this number, unless it was sent home.
    pub(super) fn fetch(&self, number: u64) -> Option<Handle> {
        let mut state = self.state.borrow_mut();
        let at = state.aside.iter().position(|(known, _)| *known == number)?;
        Some(state.aside.swap_remove(at).1)
    }

    /// True while a handle is set aside under this number.
    pub(super) fn is_aside(&self, number: u64) -> bool {
        self.state.borrow().aside.iter().any(|(known, _)| *known == number)
    }

    /// True when something waits that may go within `span`.
    pub(super) fn has_work(&self, now: Instant, span: Duration) -> bool {
        let state = self.state.borrow();
        !state.queue.is_empty() && state.slot.is_none_or(|slot| slot <= now + span)
    }

    /// Takes out what waits of these logs.
    pub(super) fn purge(&self, of_log: impl Fn(ShardId) -> bool) -> Vec<Handle> {
        let mut out = self.take_out(|handle| of_log(handle.id.log));
        let aside = &mut self.state.borrow_mut().aside;
        out.extend(aside.extract_if(.., |(_, handle)| of_log(handle.id.log)).map(|(_, h)| h));
        out
    }

    /// Takes out those that wait for which `goes` is true.
    pub(super) fn take_out(&self, goes: impl Fn(&Handle) -> bool) -> Vec<Handle> {
        let mut state = self.state.borrow_mut();
        let out = state.queue.take_out(goes);
        if state.queue.is_empty() {
            self.give_back_slot(&mut state);
        }
        out
    }

    fn give_back_slot(&self, state: &mut State) {
        if let Some(slot) = state.slot.take() {
            self.account.with(|governor| governor.unreserve(slot));
        }
    }

    /// A connection is ready for its first transaction.
    pub(super) fn connected(&self, opens: Opens, now: Instant) {
        self.state.borrow_mut().opened(opens);
        self.account.with(|governor| governor.connected(self.me, now));
    }

    /// A transaction ended in a reply.
    pub(super) fn finished(&self, now: Instant) {
        if !self.account.is_steady() {
            self.state.borrow_mut().refused = None;
            self.account.with(|governor| governor.finished(self.me, now));
        }
    }

    /// The site is in trouble although the connection works: it asked to be
    /// sent less.
    pub(super) fn slow_down(&self, now: Instant) {
        self.account.with(|governor| governor.slow_down(now));
    }

    /// A connection could not be made. If the whole site has failed by that:
    /// what waits, to go home.
    pub(super) fn connect_failed(&self, failure: Failure, now: Instant) -> Vec<Handle> {
        {
            let mut state = self.state.borrow_mut();
            state.opened(Opens::First);
            state.connections -= 1;
        }
        let whole = self.account.with(|governor| governor.connect_failed(self.me, now, failure));
        if whole { self.purge(|_| true) } else { Vec::new() }
    }

    /// The site has no host that could ever be reached: what waits, to fail.
    pub(super) fn unreachable(&self, now: Instant) -> Vec<Handle> {
        self.abandoned(Opens::First, now);
        self.purge(|_| true)
    }

    /// A connection is not made after all, which says nothing about the site.
    pub(super) fn abandoned(&self, opens: Opens, now: Instant) {
        {
            let mut state = self.state.borrow_mut();
            state.opened(opens);
            state.connections -= 1;
        }
        self.account.with(|governor| governor.abandoned(self.me, now));
    }

    /// An open connection has ended, and its place is kept for one to another host.
    pub(super) fn moves_on(&self, now: Instant) {
        {
            let mut state = self.state.borrow_mut();
            state.connecting += 1;
            state.moving += 1;
        }
        self.account.with(|governor| governor.moves_on(self.me, now));
    }

    /// When that one may be opened.
    pub(super) fn reserve_connection(&self, now: Instant) -> Instant {
        self.account.with(|governor| governor.reserve_connection(now))
    }

    /// An open connection has ended. `fruitless`: why, when no transaction on
    /// it came to an end. If the whole site has failed by that: what waits, to
    /// go home.
    pub(super) fn closed(&self, fruitless: Option<Failure>, now: Instant) -> Vec<Handle> {
        {
            let mut state = self.state.borrow_mut();
            state.connections -= 1;
            state.refused = None;
        }
        let whole = self.account.with(|governor| governor.closed(self.me, fruitless, now));
        if whole { self.purge(|_| true) } else { Vec::new() }
    }

    /// True when a connection of this lane should end after its message, so
    /// that another lane gets one.
    pub(super) fn must_yield(&self) -> bool {
        self.account.is_contended() && self.account.with(|governor| governor.must_yield(self.me))
    }

    /// A place to wait for the next handle.
    pub(super) fn idle(&self, now: Instant) -> Rc<Idle> {
        let idle =
            Rc::new(Idle { signal: Signal::default(), since: now, expired: Cell::new(false) });
        self.state.borrow_mut().idle.push(Rc::clone(&idle));
        idle
    }

    /// Wakes connections that have been idle for `span`, or all of them if
    /// another lane waits for one; finding nothing to do they close.
    pub(super) fn wake_idle(&self, now: Instant, span: Duration) {
        let span = if self.account.is_contended() { Duration::ZERO } else { span };
        let mut state = self.state.borrow_mut();
        state.idle.retain(|idle| {
            let keep = now.saturating_duration_since(idle.since) < span;
            if !keep {
                idle.expired.set(true);
                idle.signal.raise();
            }
            keep
        });
    }

    /// Tells the account what was taken since the last time; how much that was.
    pub(super) fn tell_taken(&self) -> u64 {
        let taken = std::mem::take(&mut self.state.borrow_mut().taken);
        self.account.count_taken(taken);
        taken
    }

    /// True when nothing waits and nothing is open.
    pub(super) fn is_unused(&self) -> bool {
        let state = self.state.borrow();
        state.queue.is_empty() && state.connections == 0
    }

    /// Connections open or being opened.
    pub(super) fn connections(&self) -> u32 {
        self.state.borrow().connections
    }

    /// True when handles wait here, or are on their way to another host.
    pub(super) fn has_handles(&self) -> bool {
        let state = self.state.borrow();
        !state.queue.is_empty() || !state.aside.is_empty()
    }

    /// Handles that wait here.
    pub(super) fn queued(&self) -> usize {
        self.state.borrow().queue.len()
    }

    /// What holds back what waits here: a reason, and until when if that is
    /// known.
    pub(super) fn held_up(&self, now: Instant) -> Option<(Why, Option<Instant>)> {
        let state = self.state.borrow();
        if let Some(slot) = state.slot.filter(|slot| *slot > now) {
            return Some((Why::MessageRate, Some(slot)));
        }
        state.refused.filter(|(_, again)| *again > now).map(|(why, again)| (why, Some(again)))
    }
}
