//! The way back: a handle returns to the shard whose log holds its message,
//! which decides what its outcomes mean and records them.

use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::attempt::settle_all;
use super::lane::Failure;
use super::{Core, Handle, Parcel, Settled};
use crate::base::envelope::SharedMail;
use crate::base::{Disposition, Mail, Outcome, QueueId, ShardId};
use crate::io::clock;
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

    /// Sends handles home that could not be tried because of `failure`.
    pub(super) fn defer_all(self: &Rc<Self>, handles: Vec<Handle>, failure: &Failure) {
        let now = clock::wall();
        for handle in handles {
            let Failure { reply, host } = failure;
            self.settled(settle_all(handle, Disposition::Deferred, reply, host, now));
        }
    }

    /// Sends a handle home untouched.
    pub(super) fn release(self: &Rc<Self>, handle: Handle) {
        self.settled(Settled { handle, outcomes: SmallVec::new() });
    }

    /// A handle is home: decides, reports and records.
    pub(super) fn conclude(self: &Rc<Self>, settled: Settled) {
        let Settled { handle, mut outcomes } = settled;
        self.out.set(self.out.get() - 1);
        let kept = self.memory.returned(&handle.mail);
        if outcomes.is_empty() {
            self.put_back(handle.id, &handle.recipients, clock::wall());
        } else {
            for outcome in &mut outcomes {
                self.decide(&handle, outcome);
            }
            let needs_report = |outcome: &Outcome| {
                matches!(outcome.disposition, Disposition::Failed | Disposition::Expired)
            };
            if outcomes.iter().any(needs_report) && !handle.mail.envelope.sender.is_empty() {
                let (failed, rest): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(needs_report);
                self.record(handle.id, &handle.mail, rest);
                let failed = self.still_queued(handle.id, failed);
                if !failed.is_empty() {
                    self.report(handle, kept, failed);
                }
            } else {
                self.record(handle.id, &handle.mail, outcomes.into_vec());
            }
        }
        self.check_drained();
    }

    /// Those outcomes whose recipients an operator has not dropped meanwhile: of
    /// the others nobody wants a report.
    fn still_queued(&self, id: QueueId, mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
        let message = self.log(id).and_then(|queue| queue.message(id));
        let recipients = message.map(|message| message.recipients).unwrap_or_default();
        outcomes.retain(|outcome| recipients.iter().any(|r| r.recipient == outcome.recipient));
        outcomes
    }

    /// Makes a deferral the next attempt, or the end.
    fn decide(&self, handle: &Handle, outcome: &mut Outcome) {
        if outcome.disposition != Disposition::Deferred {
            return;
        }
        let config = self.config();
        let next = after_deferral(
            &config.queue.retry,
            config.queue.expire,
            handle.mail.envelope.arrival(),
            outcome.at,
            outcome.attempts,
            jitter(handle.id, outcome.attempts),
        );
        match next {
            Next::At(time) => outcome.next_attempt = time,
            Next::Expired => outcome.disposition = Disposition::Expired,
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
