//! Notices of delay: who is told, and that it is once.
//!
//! A notice is due with the first deferral that is recorded after a message has
//! become late: by `queue.delay_notice`, and by what its sender has set (BY). Nothing more is kept about it: whether it is the first, the last
//! outcome in the log tells, by its time. The notice is durable before the outcome
//! that would have another one not sent, so that a crash in between can repeat
//! it and never lose it.

use std::rc::Rc;

use super::{Core, Handle};
use crate::base::{Envelope, Outcome};
use crate::io::executor::spawn;
use crate::io::store::Store;
use crate::policy::times::Times;

impl<S: Store> Core<S> {
    /// The times of a message.
    pub(super) fn times(&self, envelope: &Envelope) -> Times {
        Times::new(&self.config().queue, envelope)
    }

    /// Looks up in the log whether these deferrals are the first since their
    /// message is late, one after the other: a site that fails brings many at
    /// once. Then reports or records them.
    pub(super) fn find_out(self: &Rc<Self>, handle: Handle, deferred: Vec<Outcome>) {
        self.unsure.borrow_mut().push_back((handle, deferred));
        if self.unsure.borrow().len() > 1 {
            return;
        }
        self.reports.set(self.reports.get() + 1);
        let core = Rc::clone(self);
        spawn(async move {
            loop {
                // It stays in front while it is looked at: so there is one task.
                let front = core.unsure.borrow().front().cloned();
                let Some((handle, deferred)) = front else { break };
                let (first, others) = core.split_first(&handle, deferred).await;
                core.record(handle.id, &handle.mail, others);
                let id = handle.id;
                if first.is_empty() {
                    core.joined(id);
                } else {
                    let kept = core.memory.returned(&handle.mail);
                    core.join(handle, kept, first);
                }
                core.unsure.borrow_mut().pop_front();
            }
            core.reports.set(core.reports.get() - 1);
            core.check_drained();
        })
        .detach();
    }

    /// Those outcomes with which a notice is due, and the others. Where the
    /// outcome before cannot be read, none is.
    async fn split_first(
        &self,
        handle: &Handle,
        deferred: Vec<Outcome>,
    ) -> (Vec<Outcome>, Vec<Outcome>) {
        let Some(queue) = self.log(handle.id) else { return (Vec::new(), deferred) };
        let times = self.times(&handle.mail.envelope);
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for outcome in deferred {
            let last = queue.last_outcome(handle.id, outcome.recipient).await;
            let is_first =
                last.is_ok_and(|last| times.notice_due(outcome.at, last.map(|last| last.at)));
            if is_first { first.push(outcome) } else { others.push(outcome) }
        }
        (first, others)
    }
}
