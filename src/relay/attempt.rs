//! One attempt: a handle in a transaction, what was said about each of its
//! recipients, and the outcomes made of that.

use std::ops::Range;

use smallvec::{SmallVec, smallvec};

use super::parcel::{Handle, Knows, Settled};
use crate::base::{Disposition, EnhancedCode, Outcome, Reply, Security, UnixMillis};
use crate::policy::governor::Failure;
use crate::queue::QueueError;

/// What was said about one recipient.
#[derive(Clone)]
struct Verdict {
    reply: Reply,
    host: String,
    /// It was the reply to RCPT.
    is_of_rcpt: bool,
}

/// By recipient; `None` while only the reply to the whole transaction counts.
type Verdicts = SmallVec<[Option<Verdict>; 1]>;

/// A handle whose transaction is under way; several, one after the other, where
/// the server takes fewer recipients in one.
pub(super) struct Attempt {
    pub(super) handle: Handle,
    verdicts: Verdicts,
    /// See [`Settled::knows`].
    knows: Knows,
    /// Of the connection.
    security: Security,
    /// The recipients of the transaction under way, or of the last one.
    current: Range<usize>,
}

impl Attempt {
    /// `knows` is of who gets it, by a connection with this security.
    pub(super) fn new(handle: Handle, knows: Knows, security: Security) -> Self {
        let verdicts = smallvec![None; handle.recipients.len()];
        Attempt { handle, verdicts, current: 0..0, knows, security }
    }

    /// The recipients that no transaction has been for.
    pub(super) fn rest(&self) -> &[u16] {
        &self.handle.recipients[self.current.end..]
    }

    /// True during the first transaction.
    pub(super) fn is_first(&self) -> bool {
        self.current.start == 0
    }

    /// A transaction begins for so many of them, the first ones.
    pub(super) fn begin(&mut self, count: usize) {
        self.current = self.current.end..self.current.end + count;
    }

    /// The recipient with this index within the transaction was refused by `host`.
    pub(super) fn refused(&mut self, recipient: usize, reply: Reply, host: &str) {
        self.say(recipient, Verdict { reply, host: host.into(), is_of_rcpt: true });
    }

    /// LMTP: this became of the message for that recipient.
    pub(super) fn decided(&mut self, recipient: usize, reply: Reply, host: &str) {
        self.say(recipient, Verdict { reply, host: host.into(), is_of_rcpt: false });
    }

    fn say(&mut self, recipient: usize, verdict: Verdict) {
        self.verdicts[self.current.start + recipient] = Some(verdict);
    }

    /// A transaction is over for those of its recipients about whom nothing was
    /// said before.
    pub(super) fn heard(&mut self, said: &Failure) {
        for verdict in &mut self.verdicts[self.current.clone()] {
            verdict.get_or_insert_with(|| Verdict::of(said));
        }
    }

    /// The attempt is over, and `said` holds for those about whom nothing was said
    /// before.
    pub(super) fn finish(self, said: &Failure, now: UnixMillis) -> Settled {
        let outcomes = self.handle.recipients.iter().zip(self.verdicts).map(|(index, verdict)| {
            let verdict = verdict.unwrap_or_else(|| Verdict::of(said));
            let Verdict { reply, host, is_of_rcpt } = verdict;
            let disposition = disposition(&reply, is_of_rcpt);
            let outcome = outcome(&self.handle, *index, disposition, reply, &host, now);
            Outcome { security: Some(self.security), ..outcome }
        });
        let outcomes = outcomes.collect();
        Settled { handle: self.handle, outcomes, knows: self.knows }
    }
}

impl Verdict {
    fn of(said: &Failure) -> Self {
        Verdict { reply: said.reply.clone(), host: said.host.clone(), is_of_rcpt: false }
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
    Settled { handle, outcomes, knows: Knows::default() }
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

/// A message cannot be read from the log, for now.
pub(super) fn unreadable(error: QueueError) -> Failure {
    tracing::error!(target: "relay", %error, "a message cannot be read from the queue");
    Failure::ours(trouble(EnhancedCode(4, 3, 0), format!("reading the message: {error}")))
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
        security: None,
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

    fn plain(code: u16) -> Reply {
        Reply { code, enhanced: None, text: String::new() }
    }

    /// For three of four recipients.
    fn handle() -> Handle {
        let recipients = ["a@x", "b@x", "c@x", "d@x"].map(String::from).to_vec();
        let envelope = Envelope { recipients, ..Envelope::default() };
        Handle {
            id: QueueId::default(),
            recipients: smallvec![0, 2, 3],
            attempts: 4,
            at: Location::default(),
            size: 0,
            station: 0,
            mail: Arc::new(Mail { envelope, body: Box::default() }),
        }
    }

    #[test]
    fn an_attempt_may_take_several_transactions() {
        let mut attempt = Attempt::new(handle(), Knows::default(), Security::Plain);
        assert_eq!(attempt.rest(), [0, 2, 3]);
        attempt.begin(2);
        attempt.refused(1, plain(550), "h");
        attempt.heard(&Failure { reply: plain(250), host: "h".into() });
        assert_eq!(attempt.rest(), [3]);
        attempt.begin(1);
        assert!(attempt.rest().is_empty());
        let settled = attempt.finish(&Failure::ours(plain(451)), UnixMillis(7));
        let seen: Vec<_> = settled
            .outcomes
            .iter()
            .map(|o| (o.recipient, o.disposition, o.host.as_str(), o.attempts))
            .collect();
        use Disposition::{Deferred, Delivered, Failed};
        assert_eq!(seen, [(0, Delivered, "h", 5), (2, Failed, "h", 5), (3, Deferred, "", 5)]);
    }

    #[test]
    fn what_lmtp_says_after_the_body_is_no_word_on_how_many_recipients_there_are() {
        let mut attempt = Attempt::new(handle(), Knows::default(), Security::Plain);
        attempt.begin(3);
        attempt.decided(0, plain(250), "h");
        attempt.decided(1, plain(552), "h");
        // The connection is lost before the third.
        let settled = attempt.finish(&Failure::ours(plain(451)), UnixMillis(7));
        let seen: Vec<_> = settled.outcomes.iter().map(|o| o.disposition).collect();
        use Disposition::{Deferred, Delivered, Failed};
        assert_eq!(seen, [Delivered, Failed, Deferred]);
    }

    #[test]
    fn each_recipient_gets_what_was_said_about_it() {
        let handle = handle();
        assert_eq!(handle.addresses().collect::<Vec<_>>(), ["a@x", "c@x", "d@x"]);
        let knows = Knows { dsn: true, ..Knows::default() };
        let mut attempt = Attempt::new(handle, knows, Security::Plain);
        attempt.begin(3);
        attempt.refused(0, plain(552), "h:25");
        attempt.refused(2, plain(550), "h:25");
        let said = Failure::ours(plain(250));
        let settled = attempt.finish(&said, UnixMillis(7));
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
        assert!(settled.outcomes.iter().all(|o| o.security == Some(Security::Plain)));
        assert!(settled.knows.dsn && !settled.knows.deliver_by);
        assert_eq!(disposition(&plain(552), false), Disposition::Failed);
        let full = Reply::new(552, EnhancedCode(5, 2, 2), "mailbox full");
        assert_eq!(disposition(&full, true), Disposition::Failed);
        assert_eq!(disposition(&plain(354), false), Disposition::Deferred);
    }
}
