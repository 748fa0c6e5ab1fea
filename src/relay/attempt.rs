//! One attempt: a handle in a transaction, what was said about each of its
//! recipients, and the outcomes made of that.

use smallvec::{SmallVec, smallvec};

use super::parcel::{Handle, Settled};
use crate::base::{Disposition, EnhancedCode, Outcome, Reply, UnixMillis};
use crate::policy::governor::Failure;

/// Text kept for one refused recipient; `None` while only the reply to the
/// whole transaction counts.
type Verdicts = SmallVec<[Option<Reply>; 1]>;

/// A handle whose transaction is under way.
pub(super) struct Attempt {
    pub(super) handle: Handle,
    verdicts: Verdicts,
    /// See [`Settled::confirms`].
    confirms: bool,
}

impl Attempt {
    /// `confirms`: what was asked about reports goes along.
    pub(super) fn new(handle: Handle, confirms: bool) -> Self {
        let verdicts = smallvec![None; handle.recipients.len()];
        Attempt { handle, verdicts, confirms }
    }

    /// The recipient with this index within the handle was refused.
    pub(super) fn refused(&mut self, recipient: usize, reply: Reply) {
        self.verdicts[recipient] = Some(reply);
    }

    /// The transaction is over for those not refused before.
    /// `said` are its words and whose they are; `peer` is who refused the others.
    pub(super) fn finish(self, said: &Failure, peer: &str, now: UnixMillis) -> Settled {
        let outcomes = self.handle.recipients.iter().zip(self.verdicts).map(|(index, verdict)| {
            let (reply, host, of_recipient) = match verdict {
                Some(reply) => (reply, peer, true),
                None => (said.reply.clone(), &*said.host, false),
            };
            outcome(&self.handle, *index, disposition(&reply, of_recipient), reply, host, now)
        });
        let outcomes = outcomes.collect();
        Settled { handle: self.handle, outcomes, confirms: self.confirms }
    }
}

/// All recipients of `handle` get the same outcome.
pub(super) fn settle_all(
    handle: Handle,
    disposition: Disposition,
    reply: &Reply,
    host: &str,
    now: UnixMillis,
) -> Settled {
    let indices = handle.recipients.iter();
    let outcomes = indices
        .map(|index| outcome(&handle, *index, disposition, reply.clone(), host, now))
        .collect();
    Settled { handle, outcomes, confirms: false }
}

/// All recipients of `handle` wait on, without an attempt: `failure` says why.
pub(super) fn settle_untried(handle: Handle, failure: &Failure, now: UnixMillis) -> Settled {
    let Failure { reply, host } = failure;
    let mut settled = settle_all(handle, Disposition::Deferred, reply, host, now);
    for outcome in &mut settled.outcomes {
        outcome.attempts = settled.handle.attempts;
    }
    settled
}

/// A reply in our own words for a deferral.
pub(super) fn trouble(enhanced: EnhancedCode, text: impl Into<String>) -> Reply {
    Reply::new(451, enhanced, text)
}

fn outcome(
    handle: &Handle,
    recipient: u16,
    disposition: Disposition,
    reply: Reply,
    host: &str,
    now: UnixMillis,
) -> Outcome {
    Outcome {
        recipient,
        disposition,
        reply,
        host: host.into(),
        at: now,
        attempts: handle.attempts.saturating_add(1),
        next_attempt: now,
    }
}

/// What a reply means for a recipient.
fn disposition(reply: &Reply, of_recipient: bool) -> Disposition {
    match reply.code / 100 {
        2 => Disposition::Delivered,
        // "Too many recipients" in the old way is 452 (RFC 5321, 4.5.3.1.10).
        5 if of_recipient && is_too_many(reply) => Disposition::Deferred,
        5 => Disposition::Failed,
        _ => Disposition::Deferred,
    }
}

fn is_too_many(reply: &Reply) -> bool {
    reply.code == 552 && matches!(reply.enhanced, None | Some(EnhancedCode(5, 5, 3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::base::{Envelope, Location, Mail, QueueId};

    #[test]
    fn each_recipient_gets_what_was_said_about_it() {
        let recipients = ["a@x", "b@x", "c@x", "d@x"].map(String::from).to_vec();
        let envelope = Envelope { recipients, ..Envelope::default() };
        let handle = Handle {
            id: QueueId::default(),
            recipients: smallvec![0, 2, 3],
            attempts: 4,
            at: Location::default(),
            size: 0,
            station: 0,
            mail: Arc::new(Mail { envelope, body: Box::default() }),
        };
        assert_eq!(handle.addresses().collect::<Vec<_>>(), ["a@x", "c@x", "d@x"]);
        let mut attempt = Attempt::new(handle, true);
        let plain = |code| Reply { code, enhanced: None, text: String::new() };
        attempt.refused(0, plain(552));
        attempt.refused(2, plain(550));
        let said = Failure::ours(plain(250));
        let settled = attempt.finish(&said, "h:25", UnixMillis(7));
        let hosts: Vec<_> = settled.outcomes.iter().map(|outcome| &*outcome.host).collect();
        assert_eq!(hosts, ["h:25", "", "h:25"]);
        let seen: Vec<_> =
            settled.outcomes.iter().map(|o| (o.recipient, o.disposition, o.attempts)).collect();
        assert_eq!(
            seen,
            [
                (0, Disposition::Deferred, 5),
                (2, Disposition::Delivered, 5),
                (3, Disposition::Failed, 5)
            ]
        );
        assert!(settled.confirms);
        assert_eq!(disposition(&plain(552), false), Disposition::Failed);
        let full = Reply::new(552, EnhancedCode(5, 2, 2), "mailbox full");
        assert_eq!(disposition(&full, true), Disposition::Failed);
        assert_eq!(disposition(&plain(354), false), Disposition::Deferred);
    }
}
