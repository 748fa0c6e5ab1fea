//! Reports to senders (RFC 3464): when recipients have failed or expired, the
//! report is queued and durable before the failure is recorded, so that a crash
//! in between can report twice but never lose a message silently.
//!
//! Reports have the null sender; nobody is told when one of them fails
//! (RFC 5321, section 4.5.5), but the log is.

use std::rc::Rc;
use std::time::Duration;

use super::memory::Kept;
use super::{Core, Handle};
use crate::base::{Disposition, Envelope, Outcome, QueueId};
use crate::io::clock;
use crate::io::executor::spawn;
use crate::io::store::Store;
use crate::mail::date::rfc5322;
use crate::mail::report::{self, Report, ReportInput};
use crate::queue::QueueError;

/// When a failure is tried again whose report found no room on the disk.
const FULL_WAIT: Duration = Duration::from_secs(300);

impl<S: Store> Core<S> {
    /// Reports `failed`, outcomes of `handle`'s message, and then records them.
    pub(super) fn report(self: &Rc<Self>, handle: Handle, kept: Kept, failed: Vec<Outcome>) {
        self.reports.set(self.reports.get() + 1);
        let core = Rc::clone(self);
        spawn(async move {
            core.report_then_record(&handle, failed).await;
            drop(kept);
            core.reports.set(core.reports.get() - 1);
            core.check_drained();
        })
        .detach();
    }

    async fn report_then_record(self: &Rc<Self>, handle: &Handle, mut failed: Vec<Outcome>) {
        let original = &handle.mail.envelope;
        let Report { body, body_type, smtputf8 } = self.build(handle, &failed).await;
        let envelope = Envelope {
            recipients: vec![original.sender.clone()],
            arrival_ms: clock::wall().0,
            body_type,
            smtputf8,
            ..Envelope::default()
        };
        match self.queue_report(&envelope, &body).await {
            Ok((report, trace)) => {
                self.counters.borrow_mut().reports_queued += 1;
                self.events.reported(report, &envelope, handle.id);
                self.record(handle.id, &handle.mail, failed);
                let size = (trace.len() + body.len()) as u64;
                self.accepted(report, envelope, (&trace, Some(&body)), None, size);
            }
            Err(QueueError::Full { .. }) => {
                let again = clock::wall().plus(FULL_WAIT);
                for outcome in &mut failed {
                    outcome.disposition = Disposition::Deferred;
                    outcome.next_attempt = again;
                }
                self.record(handle.id, &handle.mail, failed);
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

    async fn build(&self, handle: &Handle, failed: &[Outcome]) -> Report {
        let original = &handle.mail.envelope;
        let header = self.header(handle).await;
        let address = |outcome: &Outcome| &*original.recipients[usize::from(outcome.recipient)];
        let recipients: Vec<(&str, &Outcome)> =
            failed.iter().map(|outcome| (address(outcome), outcome)).collect();
        let (host, now) = (self.config().hostname.clone(), clock::wall());
        let queue_id = handle.id.to_string();
        report::build(&ReportInput {
            host: &host,
            sender: &original.sender,
            queue_id: &queue_id,
            arrival: original.arrival(),
            recipients: &recipients,
            original: &header,
            now,
            seed: &format!("{queue_id}{}", now.0),
        })
    }
}
