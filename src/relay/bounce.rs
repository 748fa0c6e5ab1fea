//! Reports to senders (RFC 3464): when recipients have failed or expired, when
//! they are late, when they were delivered or passed on to where no report comes from. The
//! report is queued and durable before the outcome that it is about is recorded,
//! so that a crash in between can report twice but never lose a message silently.
//!
//! `joining` waits for what belongs into one report, `notice` finds out who is
//! told of a delay.
//!
//! Reports have the null sender; nobody is told when one of them fails
//! (RFC 5321, section 4.5.5), but the log is.

use std::rc::Rc;
use std::time::Duration;

use smallvec::SmallVec;

use super::memory::Kept;
use super::parcel::Knows;
use super::{Core, Handle};
use crate::base::dsn::{Notify, Ret};
use crate::base::terms::{DeliverBy, Terms};
use crate::base::{Disposition, Envelope, Outcome, QueueId};
use crate::io::clock;
use crate::io::executor::spawn;
use crate::io::store::Store;
use crate::mail::date::rfc5322;
use crate::mail::report::{
    self, Kind, MESSAGE_RETURNED_MAX, Report, ReportInput, Reported, Returned,
};
use crate::queue::QueueError;

/// When a failure is tried again whose report found no room on the disk.
const FULL_WAIT: Duration = Duration::from_secs(300);
/// Most recipients in one report: some kilobytes each at worst.
const RECIPIENTS_PER_REPORT: usize = 500;

/// Whether an outcome is to be reported.
enum Due {
    No,
    Yes,
    /// Yes if it is the first since the message counts as late.
    IfFirst,
}

impl<S: Store> Core<S> {
    /// Records what a handle brought home, what has to be reported once its
    /// report is durable. `knows` is of [`super::Settled`].
    pub(super) fn report_or_record(
        self: &Rc<Self>,
        handle: Handle,
        kept: Kept,
        outcomes: SmallVec<[Outcome; 1]>,
        knows: Knows,
    ) {
        let (mut plain, mut due, mut passed_on, mut unsure) = (vec![], vec![], vec![], vec![]);
        for outcome in outcomes {
            let list = match self.due(&handle, &outcome, knows) {
                Due::No => &mut plain,
                Due::Yes if outcome.disposition == Disposition::Delivered => &mut passed_on,
                Due::Yes => &mut due,
                Due::IfFirst => &mut unsure,
            };
            list.push(outcome);
        }
        let id = handle.id;
        self.record(id, &handle.mail, plain);
        if !unsure.is_empty() {
            self.find_out(handle.without_body(), unsure);
        }
        if !passed_on.is_empty() {
            // Not kept for company: until it is recorded, a crash delivers twice.
            let kind = if knows.delivers { Kind::Delivered } else { Kind::Relayed };
            self.report_as(handle.without_body(), None, passed_on, kind);
        }
        if due.is_empty() {
            drop(kept);
            self.joined(id);
        } else {
            self.join(handle, kept, due);
        }
    }

    /// Whether this outcome is to be reported: RFC 3461, 5.2.2, 5.2.5 and 5.2.6.
    fn due(&self, handle: &Handle, outcome: &Outcome, knows: Knows) -> Due {
        let envelope = &handle.mail.envelope;
        if envelope.sender.is_empty() {
            return Due::No;
        }
        let notify = envelope.notify(usize::from(outcome.recipient));
        let is_due = match outcome.disposition {
            Disposition::Failed | Disposition::Expired => notify.failure,
            Disposition::Delivered => match deliver_by(envelope) {
                _ if notify == Notify::NEVER => false,
                // It has arrived, and in time: there is nothing to be traced.
                _ if knows.delivers => notify.success && !knows.dsn,
                // RFC 2852, 4.1.4: who wants to trace it, and who may not be told in
                // time by the next hop, is told that it was passed on.
                Some(by) if by.trace || !knows.deliver_by => true,
                _ => notify.success && !knows.dsn,
            },
            Disposition::Dropped => false,
            Disposition::Deferred => {
                let is_late = || self.times(envelope).moments_passed(outcome.at) > 0;
                return if notify.delay && is_late() { Due::IfFirst } else { Due::No };
            }
        };
        if is_due { Due::Yes } else { Due::No }
    }

    /// Reports `outcomes` of `handle`'s message, failures or delays, and then records
    /// them. What an operator has dropped meanwhile nobody wants to hear of.
    pub(super) fn report(
        self: &Rc<Self>,
        handle: Handle,
        kept: Option<Kept>,
        outcomes: Vec<Outcome>,
    ) {
        self.report_as(handle, kept, outcomes, Kind::Relayed);
    }

    /// The same; what was delivered is reported as `taken`.
    fn report_as(
        self: &Rc<Self>,
        handle: Handle,
        kept: Option<Kept>,
        outcomes: Vec<Outcome>,
        taken: Kind,
    ) {
        let outcomes = self.still_queued(handle.id, outcomes);
        if outcomes.is_empty() {
            return;
        }
        self.reports.set(self.reports.get() + 1);
        let core = Rc::clone(self);
        spawn(async move {
            for kind in [Kind::Failed, Kind::Delayed, taken] {
                let is_it = |outcome: &&Outcome| kind_of(outcome, taken) == kind;
                let of_kind: Vec<_> = outcomes.iter().filter(is_it).cloned().collect();
                for part in of_kind.chunks(RECIPIENTS_PER_REPORT) {
                    core.report_then_record(&handle, kind, part.to_vec()).await;
                }
            }
            drop(kept);
            core.reports.set(core.reports.get() - 1);
            core.check_drained();
        })
        .detach();
    }

    /// Those outcomes whose recipients are still queued.
    fn still_queued(&self, id: QueueId, mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
        let message = self.log(id).and_then(|queue| queue.message(id));
        let recipients = message.map(|message| message.recipients).unwrap_or_default();
        let queued = |outcome: &Outcome| {
            recipients.binary_search_by_key(&outcome.recipient, |left| left.recipient).is_ok()
        };
        outcomes.retain(queued);
        outcomes
    }

    async fn report_then_record(
        self: &Rc<Self>,
        handle: &Handle,
        kind: Kind,
        mut outcomes: Vec<Outcome>,
    ) {
        let original = &handle.mail.envelope;
        let Report { body, body_type, smtputf8 } = self.build(handle, kind, &outcomes).await;
        let envelope = Envelope {
            recipients: vec![original.sender.clone()],
            arrival_ms: clock::wall().0,
            body_type,
            smtputf8,
            terms: terms_of_report(original),
            ..Envelope::default()
        };
        match self.queue_report(&envelope, &body).await {
            Ok((report, trace)) => {
                self.counters.borrow_mut().reports_queued += 1;
                self.events.reported(report, &envelope, handle.id);
                self.record(handle.id, &handle.mail, outcomes);
                let size = (trace.len() + body.len()) as u64;
                self.accepted(report, envelope, (&trace, Some(&body)), None, size);
            }
            Err(QueueError::Full { .. }) => {
                let again = clock::wall().plus(FULL_WAIT);
                // What was delivered stays so, and what is late may be told late.
                for outcome in outcomes.iter_mut().filter(|_| kind == Kind::Failed) {
                    outcome.disposition = Disposition::Deferred;
                    outcome.next_attempt = again;
                }
                self.record(handle.id, &handle.mail, outcomes);
            }
            Err(error) => self.halt(self.own_log().0, &error),
        }
    }

    /// Makes a report durable; its id and the trace header put in front.
    async fn queue_report(
        &self,
        envelope: &Envelope,
        body: &[u8],
    ) -> Result<(QueueId, Vec<u8>), QueueError> {
        let host = self.config().hostname.clone();
        let date = rfc5322(envelope.arrival());
        let mut trace = Vec::new();
        let write = |id: QueueId, out: &mut Vec<u8>| {
            trace.extend_from_slice(
                format!("Received: by {host} (ringpost) id {id};\r\n\t").as_bytes(),
            );
            trace.extend_from_slice(&date);
            trace.extend_from_slice(b"\r\n");
            out.extend_from_slice(&trace);
        };
        let (id, commit) = self.own_log().1.append(envelope, write, &[body])?;
        commit.await?;
        Ok((id, trace))
    }

    async fn build(&self, handle: &Handle, kind: Kind, outcomes: &[Outcome]) -> Report {
        let envelope = &handle.mail.envelope;
        let (original, returned) = self.to_return(handle, kind).await;
        let recipients: Vec<_> = outcomes
            .iter()
            .map(|outcome| {
                let index = usize::from(outcome.recipient);
                let asked = envelope.recipient_dsn(index);
                let orcpt = asked.and_then(|asked| asked.orcpt.as_deref());
                Reported { address: &envelope.recipients[index], orcpt, outcome }
            })
            .collect();
        let host = self.config().hostname.clone();
        let times = self.times(envelope);
        let (queue_id, now) = (handle.id.to_string(), clock::wall());
        // Several may be made of one message within a millisecond.
        let number = outcomes.first().map_or(0, |outcome| outcome.recipient);
        report::build(&ReportInput {
            kind,
            host: &host,
            sender: &envelope.sender,
            envid: envelope.dsn.as_ref().and_then(|dsn| dsn.envid.as_deref()),
            queue_id: &queue_id,
            arrival: envelope.arrival(),
            retry_until: times.until,
            deliver_by: deliver_by(envelope).map(|by| by.at()),
            hold_until: envelope.terms.as_ref().and_then(|terms| terms.hold_until()),
            is_overdue: times.is_overdue(now),
            recipients: &recipients,
            original: &original,
            returned,
            now,
            seed: &format!("{queue_id}{}r{number}", now.0),
        })
    }

    /// What the report returns of the message: all of it only if it is about a
    /// failure, that was asked for, and it is not too long. Of a message that may
    /// go over TLS only, the header (RFC 8689, section 5).
    async fn to_return(&self, handle: &Handle, kind: Kind) -> (Vec<u8>, Returned) {
        let envelope = &handle.mail.envelope;
        let ret = envelope.dsn.as_ref().and_then(|dsn| dsn.ret);
        let is_secret = envelope.terms.as_ref().is_some_and(|terms| terms.require_tls);
        if kind != Kind::Failed || ret != Some(Ret::Full) || is_secret {
            return (self.header(handle).await, Returned::Header);
        }
        if handle.size > MESSAGE_RETURNED_MAX as u64 {
            return (self.header(handle).await, Returned::TooLong);
        }
        match self.whole(handle).await {
            Some(body) => (body, Returned::Whole),
            None => (self.header(handle).await, Returned::Header),
        }
    }

    /// A whole body of moderate size; `None` if it cannot be read.
    async fn whole(&self, handle: &Handle) -> Option<Vec<u8>> {
        if let Some(body) = handle.body() {
            return Some(body.to_vec());
        }
        let mut whole = Vec::with_capacity(handle.size as usize);
        let mut body = self.open_body(handle).await.ok()?;
        while let Some(part) = body.next().await.ok()? {
            part.with(|bytes| whole.extend_from_slice(bytes))?;
        }
        Some(whole)
    }
}

/// BY of a message.
fn deliver_by(envelope: &Envelope) -> Option<DeliverBy> {
    envelope.terms.as_ref()?.deliver_by
}

/// The terms on which a report about a message goes: as urgently (RFC 6710), and
/// over TLS only if the message has to (RFC 8689, section 5).
fn terms_of_report(original: &Envelope) -> Option<Box<Terms>> {
    let of = original.terms.as_deref()?;
    let (priority, require_tls) = (of.priority, of.require_tls);
    let terms = Terms { priority, require_tls, ..Terms::default() };
    (!terms.is_empty()).then(|| Box::new(terms))
}

/// What a report about an outcome is, `taken` if it was delivered.
fn kind_of(outcome: &Outcome, taken: Kind) -> Kind {
    match outcome.disposition {
        Disposition::Deferred => Kind::Delayed,
        Disposition::Delivered => taken,
        Disposition::Failed | Disposition::Expired | Disposition::Dropped => Kind::Failed,
    }
}
