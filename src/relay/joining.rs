//! Failures and delays that wait for company: recipients of one message fail at
//! about the same time at different sites, and their sender gets one report.
//!
//! What is kept here is not recorded yet: its recipients are *out* in the index,
//! and after a crash they are tried again. It is reported as soon as no other
//! recipient of the message is out, after [`JOIN_WAIT`] at the latest, and at
//! once in a drain.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::memory::Kept;
use super::{Core, Handle};
use crate::base::{Outcome, QueueId};
use crate::io::clock;
use crate::io::store::Store;

/// How long a failure waits for others of its message.
const JOIN_WAIT: Duration = Duration::from_secs(5);
/// Recipients that the messages kept may have together; what is past that is
/// reported at once. Bounds the memory: their envelopes are kept too.
const KEPT_MAX: usize = 20_000;

/// What waits, by message.
pub(super) struct Joining {
    batches: RefCell<HashMap<QueueId, Batch>>,
    /// Outcomes that wait, and recipients of their messages.
    count: Cell<usize>,
    weight: Cell<usize>,
    wait: Cell<Duration>,
}

/// What waits of one message.
struct Batch {
    handle: Handle,
    outcomes: Vec<Outcome>,
    since: Instant,
}

impl Batch {
    fn weight(&self) -> usize {
        self.handle.mail.envelope.recipients.len()
    }
}

impl Default for Joining {
    fn default() -> Self {
        let wait = Cell::new(JOIN_WAIT);
        Joining { batches: RefCell::default(), count: Cell::new(0), weight: Cell::new(0), wait }
    }
}

impl Joining {
    /// Outcomes that wait.
    pub(super) fn len(&self) -> usize {
        self.count.get()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.borrow().is_empty()
    }

    #[cfg(test)]
    pub(super) fn set_wait(&self, wait: Duration) {
        self.wait.set(wait);
    }

    fn contains(&self, id: QueueId) -> bool {
        self.batches.borrow().contains_key(&id)
    }

    /// Adds to what waits of a message.
    fn add(&self, handle: Handle, outcomes: Vec<Outcome>) {
        let mut batches = self.batches.borrow_mut();
        self.count.set(self.count.get() + outcomes.len());
        if let Some(batch) = batches.get_mut(&handle.id) {
            batch.outcomes.extend(outcomes);
            return;
        }
        let id = handle.id;
        let batch = Batch { handle: handle.without_body(), outcomes, since: clock::monotonic() };
        self.weight.set(self.weight.get() + batch.weight());
        batches.insert(id, batch);
    }

    fn take(&self, id: QueueId) -> Option<Batch> {
        let batch = self.batches.borrow_mut().remove(&id)?;
        self.weight.set(self.weight.get() - batch.weight());
        self.count.set(self.count.get() - batch.outcomes.len());
        Some(batch)
    }

    /// The messages of which something waits since `before` or longer.
    fn since(&self, before: Instant) -> Vec<QueueId> {
        let batches = self.batches.borrow();
        batches.iter().filter(|(_, batch)| batch.since <= before).map(|(id, _)| *id).collect()
    }
}

impl<S: Store> Core<S> {
    /// Reports these outcomes of a message, at once if nothing else of it is
    /// under way.
    pub(super) fn join(self: &Rc<Self>, handle: Handle, kept: Kept, outcomes: Vec<Outcome>) {
        let id = handle.id;
        if !self.joining.contains(id) {
            let full = self.joining.weight.get() >= KEPT_MAX;
            if full || self.stopping() || !self.are_others_out(id, outcomes.len()) {
                self.report(handle, Some(kept), outcomes);
                return;
            }
        }
        drop(kept);
        self.joining.add(handle, outcomes);
        self.joined(id);
    }

    /// A recipient of this message is not out any more: reports what waits of the
    /// message if that was the last.
    pub(super) fn joined(self: &Rc<Self>, id: QueueId) {
        let waiting = self.joining.batches.borrow().get(&id).map(|batch| batch.outcomes.len());
        let Some(waiting) = waiting else { return };
        if self.stopping() || !self.are_others_out(id, waiting) {
            self.report_joined(id);
        }
    }

    /// Reports what has waited long enough.
    pub(super) fn report_late(self: &Rc<Self>) {
        if self.joining.is_empty() {
            return;
        }
        let Some(before) = clock::monotonic().checked_sub(self.joining.wait.get()) else { return };
        self.joining.since(before).into_iter().for_each(|id| self.report_joined(id));
    }

    /// Reports all that waits.
    pub(super) fn report_all(self: &Rc<Self>) {
        let all = self.joining.since(clock::monotonic());
        all.into_iter().for_each(|id| self.report_joined(id));
    }

    fn report_joined(self: &Rc<Self>, id: QueueId) {
        if let Some(Batch { handle, outcomes, .. }) = self.joining.take(id) {
            self.report(handle, None, outcomes);
        }
    }

    /// True when more recipients of the message are out than the `kept` that
    /// wait here.
    fn are_others_out(&self, id: QueueId, kept: usize) -> bool {
        let message = self.log(id).and_then(|queue| queue.message(id));
        message.is_some_and(|message| {
            message.recipients.iter().filter(|recipient| recipient.out).count() > kept
        })
    }
}
