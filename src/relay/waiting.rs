//! Between routing and the lanes: a handle goes out if its site has room, and its
//! recipients wait if not, by id alone (`outflow`). When room comes back, those
//! that have waited longest are read again and go out.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{settle_untried, trouble};
use super::due::READ_BATCH;
use super::origin::Came;
use super::outflow::Limits;
use super::station::Station;
use super::{Core, Handle, OUT_MAX};
use crate::base::{Disposition, EnhancedCode};
use crate::io::clock;
use crate::io::store::Store;
use crate::policy::governor::Failure;

/// When what came back untried is given out again.
const UNTRIED_WAIT: Duration = Duration::from_millis(250);
/// Stations past which nothing waits at one that could be dropped without that:
/// it is looked at again instead.
const STATIONS_MAX: usize = 16_384;
/// When.
const CROWDED_WAIT: Duration = Duration::from_secs(30);

impl<S: Store> Core<S> {
    /// What the window of a station depends on now.
    pub(super) fn limits(&self, station: &Station) -> Limits {
        Limits {
            free: OUT_MAX.saturating_sub(self.out.get()),
            rate: station.rate(),
            probing: station.account.is_probing(),
        }
    }

    /// Sends a handle to the lane if there is room for one more; has it wait
    /// otherwise.
    pub(super) fn offer(self: &Rc<Self>, station: &Rc<Station>, mut handle: Handle, came: Came) {
        if self.stopping() || self.is_halted(handle.id.log) {
            self.put_back(handle.id, &handle.recipients, clock::wall());
            return;
        }
        let now = clock::wall();
        let times = self.times(&handle.mail.envelope);
        if times.is_up(now) {
            let failure = Failure::ours(times.time_is_up(None));
            let kept = self.hold(&handle.mail);
            let mut settled = settle_untried(handle, &failure, now);
            for outcome in &mut settled.outcomes {
                outcome.disposition = Disposition::Expired;
            }
            self.judge(settled, kept);
            return;
        }
        let may_go = {
            let flow = station.flow.borrow();
            let in_turn = came == Came::Waited || flow.is_in_turn(handle.priority());
            in_turn
                && flow.has_room(self.limits(station))
                && station.account.closed_for(clock::monotonic()).is_none()
        };
        if !may_go {
            self.park(station, handle);
            return;
        }
        self.out.set(self.out.get() + 1);
        self.memory.hold(&handle.mail);
        station.flow.borrow_mut().went_out();
        handle.station = station.id;
        let me = self.mesh.me();
        let to = match station.account.is_laned() {
            true => me,
            false => station.account.owner(self.mesh.shards()),
        };
        if to == me {
            self.push(station, handle);
            return;
        }
        self.counters.borrow_mut().handed_off += 1;
        let site = station.site();
        let deliver = &mut self.outboxes.borrow_mut()[usize::from(to.0)].deliver;
        match deliver.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &site)) {
            Some((_, handles)) => handles.push(handle),
            None => deliver.push((site, vec![handle])),
        }
        self.post.raise();
    }

    /// Has the recipients of a handle wait for their site, until it has room or
    /// something has to be said to the sender.
    fn park(self: &Rc<Self>, station: &Rc<Station>, handle: Handle) {
        let now = clock::wall();
        let times = self.times(&handle.mail.envelope);
        let passed = times.moments_passed(now);
        let is_untold = passed > 0 && {
            let message = self.log(handle.id).and_then(|queue| queue.message(handle.id));
            message.is_some_and(|message| {
                let mut pending = message.recipients.iter();
                pending.any(|r| r.noticed < passed && handle.recipients.contains(&r.recipient))
            })
        };
        let next = times.next_moment(now).map_or(times.until, |next| next.min(times.until));
        let wake = if is_untold { now } else { next };
        if wake <= now {
            let failure = self.why_not(station);
            let kept = self.hold(&handle.mail);
            self.judge(settle_untried(handle, &failure, now), kept);
        } else if self.stations.borrow().len() > STATIONS_MAX && station.flow.borrow().is_unused() {
            self.put_back(handle.id, &handle.recipients, now.plus(CROWDED_WAIT));
        } else if let Some(queue) = self.log(handle.id) {
            queue.park(handle.id, &handle.recipients, wake);
            station.flow.borrow_mut().park(handle.id, &handle.recipients, handle.priority());
            self.counters.borrow_mut().parked += handle.recipients.len() as u64;
            // There may be room already: what is out may all have come home
            // before this one queued up.
            self.refill_soon(station);
        }
    }

    /// Why mail for a site waits, in words for its sender.
    fn why_not(&self, station: &Station) -> Failure {
        let failure = station.account.with(|governor| governor.last_failure().cloned());
        failure.unwrap_or_else(|| {
            let text = format!("more mail waits for {} than it may be sent", station.site().name);
            Failure::ours(trouble(EnhancedCode(4, 4, 5), text))
        })
    }

    /// What came home untried: it waits for its site if that is left alone now,
    /// and is given out again soon if not.
    pub(super) fn untried(self: &Rc<Self>, station: Option<&Rc<Station>>, handle: Handle) {
        let is_closed = |station: &&Rc<Station>| {
            let account = &station.account;
            account.closed_for(clock::monotonic()).is_some() || account.is_probing()
        };
        let now = clock::wall();
        match station.filter(is_closed) {
            _ if self.stopping() || self.is_halted(handle.id.log) => {
                self.put_back(handle.id, &handle.recipients, now);
            }
            Some(station) => self.park(station, handle),
            None => self.put_back(handle.id, &handle.recipients, now.plus(UNTRIED_WAIT)),
        }
    }

    /// Puts a station on the list of those to be refilled, if it wants that.
    pub(super) fn refill_soon(&self, station: &Rc<Station>) {
        let wants = station.flow.borrow().wanted(self.limits(station)) > 0;
        if wants
            && !station.listed.get()
            && station.account.closed_for(clock::monotonic()).is_none()
        {
            station.listed.set(true);
            self.to_refill.borrow_mut().push_back(Rc::clone(station));
            self.refill.raise();
        }
    }

    /// Gives out what waits for sites that have room again.
    pub(super) async fn run_refills(self: Rc<Self>) {
        loop {
            self.refill.wait().await;
            loop {
                let next = self.to_refill.borrow_mut().pop_front();
                let Some(station) = next else { break };
                station.listed.set(false);
                self.refill_one(&station).await;
            }
        }
    }

    async fn refill_one(self: &Rc<Self>, station: &Rc<Station>) {
        let wanted = station.flow.borrow().wanted(self.limits(station));
        if wanted == 0
            || self.room() == 0
            || station.account.closed_for(clock::monotonic()).is_some()
        {
            return;
        }
        let taken = station.flow.borrow_mut().take(wanted.min(READ_BATCH));
        let mut due = Vec::with_capacity(taken.len());
        for (id, recipients) in taken {
            // Of a log that has failed nothing goes out any more.
            let Some(queue) = self.log(id).filter(|_| !self.is_halted(id.log)) else { continue };
            let recipients = queue.unpark(id.place, &recipients);
            if !recipients.is_empty() {
                due.push((queue.clone(), id, recipients));
            }
        }
        self.read_and_give_out(due, Came::Waited).await;
        self.refill_soon(station);
    }
}
