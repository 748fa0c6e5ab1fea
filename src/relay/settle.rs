//! The way back: a handle returns to the shard whose log holds its message,
//! which decides what its outcomes mean and records them.

use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::memory::Kept;
use super::parcel::Knows;
use super::{Core, Handle, Parcel, Settled};
use crate::base::envelope::SharedMail;
use crate::base::{Disposition, Mail, Outcome, QueueId, ShardId};
use crate::io::store::Store;
use crate::policy::retry::{Next, after_deferral};
use crate::queue::QueueError;

impl<S: Store> Core<S> {
    /// Sends a handle home.
    pub(super) fn settled(self: &Rc<Self>, settled: Settled) {
        let home = self.mesh.holder(settled.handle.id.log);
        if home == self.mesh.me() {
            self.conclude(settled);
        } else {
            self.outboxes.borrow_mut()[usize::from(home.0)].settled.push(settled);
            self.post.raise();
        }
    }

    /// Sends a handle home untouched.
    pub(super) fn release(self: &Rc<Self>, handle: Handle) {
        self.settled(Settled { handle, outcomes: SmallVec::new(), knows: Knows::default() });
    }

    /// A handle is home.
    pub(super) fn conclude(self: &Rc<Self>, settled: Settled) {
        self.out.set(self.out.get() - 1);
        let id = settled.handle.id;
        let station = self.stations.borrow().numbered(settled.handle.station).map(Rc::clone);
        if let Some(station) = &station {
            station.flow.borrow_mut().came_home();
        }
        let kept = self.memory.returned(&settled.handle.mail);
        if settled.outcomes.is_empty() {
            self.untried(station.as_ref(), settled.handle);
            drop(kept);
            self.joined(id);
        } else {
            self.judge(settled, kept);
        }
        if let Some(station) = &station {
            self.refill_soon(station);
        }
        self.check_drained();
    }

    /// Decides what outcomes mean, reports and records them. `kept` is a hold on
    /// the body.
    pub(super) fn judge(self: &Rc<Self>, settled: Settled, kept: Kept) {
        let Settled { handle, mut outcomes, knows } = settled;
        for outcome in &mut outcomes {
            self.decide(&handle, outcome);
        }
        self.note_late(&handle, &outcomes);
        self.report_or_record(handle, kept, outcomes, knows);
    }

    /// With these deferrals it is decided whether a notice of the delay is sent:
    /// what waits for its site need not be woken for that any more.
    fn note_late(&self, handle: &Handle, outcomes: &[Outcome]) {
        let times = self.times(&handle.mail.envelope);
        let Some(queue) = self.log(handle.id) else { return };
        for outcome in outcomes.iter().filter(|o| o.disposition == Disposition::Deferred) {
            let moments = times.moments_passed(outcome.at);
            if moments > 0 {
                queue.set_noticed(handle.id, &[outcome.recipient], moments);
            }
        }
    }

    /// Makes a deferral the next attempt, or the end.
    fn decide(&self, handle: &Handle, outcome: &mut Outcome) {
        if outcome.disposition != Disposition::Deferred {
            return;
        }
        let config = self.config();
        let times = self.times(&handle.mail.envelope);
        let (at, attempts, reply) = (outcome.at, outcome.attempts, &outcome.reply);
        let next = if attempts == handle.attempts {
            // It was not tried, its site had no room: it waits on, unless it has
            // waited too long.
            if at >= times.until { Next::Expired } else { Next::At(at) }
        } else {
            let jitter = jitter(handle.id, attempts);
            after_deferral(&config.queue, &times, at, attempts, reply, jitter)
        };
        match next {
            Next::At(time) => outcome.next_attempt = time,
            Next::Expired => {
                outcome.next_attempt = at;
                outcome.disposition = Disposition::Expired;
                if times.is_up(at) {
                    outcome.reply = times.time_is_up(Some(&outcome.reply));
                }
            }
        }
    }

    /// Records outcomes, counts them and tells of them.
    pub(super) fn record(self: &Rc<Self>, id: QueueId, mail: &SharedMail, outcomes: Vec<Outcome>) {
        let (Some(queue), false) = (self.log(id), outcomes.is_empty()) else { return };
        match queue.record(id, &outcomes) {
            // They ride the next flush, which nobody waits for: until then a
            // crash can only deliver twice.
            Ok(commit) => drop(commit),
            // An operator has dropped the message meanwhile.
            Err(QueueError::Unknown(_)) => return,
            Err(QueueError::Full { .. }) => {
                // The body is of no more use.
                let envelope = mail.envelope.clone();
                let mail = Arc::new(Mail { envelope, body: Box::default() });
                let unrecorded = (id, mail, outcomes);
                self.unrecorded.borrow_mut().push(unrecorded);
                return;
            }
            Err(error) => return self.halt(id.log, &error),
        }
        for outcome in &outcomes {
            self.count(outcome.disposition);
            self.events.outcome(id, &mail.envelope, outcome);
        }
    }

    /// Records what found no room on the disk before. Until that is done,
    /// nothing is given out.
    pub(super) fn record_again(self: &Rc<Self>) {
        for (id, mail, outcomes) in self.unrecorded.take() {
            self.record(id, &mail, outcomes);
        }
    }

    fn count(&self, disposition: Disposition) {
        let mut counters = self.counters.borrow_mut();
        match disposition {
            Disposition::Delivered => counters.recipients_delivered += 1,
            Disposition::Deferred => counters.recipients_deferred += 1,
            Disposition::Failed => counters.recipients_failed += 1,
            Disposition::Expired => counters.recipients_expired += 1,
            Disposition::Dropped => counters.recipients_dropped += 1,
        }
    }

    /// Outcomes cannot be recorded in this log any more: to go on delivering
    /// from it would be to deliver everything again after the restart.
    pub(super) fn halt(self: &Rc<Self>, log: ShardId, error: &QueueError) {
        if self.is_halted(log) {
            return;
        }
        tracing::error!(target: "relay", %log, %error, "deliveries from this log stop");
        self.halted.borrow_mut().push(log);
        self.purge(|of| of == log);
        for shard in (0..self.mesh.shards()).map(ShardId) {
            if shard != self.mesh.me() {
                self.mesh.send(shard, Parcel::Halt(log));
            }
        }
    }
}

/// Spreads retries: the same for the same attempt, unlike for any two.
fn jitter(id: QueueId, attempts: u16) -> u64 {
    let place = (u64::from(id.place.segment) << 32) | u64::from(id.place.offset);
    let seed = place ^ (u64::from(id.log.0) << 48) ^ (u64::from(attempts) << 16);
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
}
