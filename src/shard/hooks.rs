//! Where receiving and relaying meet, without knowing one another: what was
//! accepted is handed to the relay, and both are written to the mail log.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use hdrhistogram::Histogram;

use crate::base::{Disposition, Envelope, Outcome, QueueId, Reply, UnixMillis};
use crate::io::clock;
use crate::io::uring::UringStore;
use crate::receive::{Accepted, Broken, Hooks, Refused};
use crate::relay::{Events, Relay};

use super::maillog::MailLog;

/// Receiving's view of the shard.
pub(super) struct Front {
    pub(super) log: Rc<MailLog>,
    pub(super) relay: Relay<UringStore>,
}

impl Hooks for Front {
    fn now(&self) -> UnixMillis {
        clock::wall()
    }

    fn accepted(&self, message: Accepted<'_>) {
        let envelope = &message.envelope;
        self.log.line(envelope.arrival(), "accepted", |line| {
            line.word("id", message.id)
                .text("client", &envelope.client)
                .text("helo", &envelope.helo)
                .address("from", &envelope.sender)
                .number("recipients", envelope.recipients.len() as u64);
            if let Some(first) = envelope.recipients.first() {
                line.address("to", first);
            }
            line.number("size", message.size).number("us", message.took.as_micros() as u64);
        });
        let body = (message.trace, message.body);
        let stored = message.size + message.trace.len() as u64;
        self.relay.accepted(message.id, message.envelope, body, message.commit, stored);
    }

    fn refused(&self, refused: Refused<'_>) {
        self.log.line(clock::wall(), "refused", |line| {
            line.word("client", refused.client)
                .text("helo", refused.helo)
                .address("from", refused.sender);
            if let Some(recipient) = refused.recipient {
                line.address("to", recipient);
            }
            line.text("reply", &refused.reply.to_string());
        });
    }

    fn broken(&self, client: SocketAddr, helo: &str, how: Broken) {
        self.log.line(clock::wall(), "session ended", |line| {
            line.word("client", client).text("helo", helo).text("why", how.name());
        });
    }

    fn turned_away(&self, client: SocketAddr, reply: &Reply) {
        self.log.line(clock::wall(), "turned away", |line| {
            line.word("client", client).text("reply", &reply.to_string());
        });
    }
}

/// Relaying's view of the shard.
pub(super) struct Back {
    pub(super) log: Rc<MailLog>,
    pub(super) delivery_latency: Rc<RefCell<Histogram<u64>>>,
}

impl Events for Back {
    fn outcome(&self, id: QueueId, envelope: &Envelope, outcome: &Outcome) {
        let took = outcome.at.since(envelope.arrival());
        if outcome.disposition == Disposition::Delivered {
            self.delivery_latency.borrow_mut().saturating_record(took.as_millis() as u64);
        }
        let to = envelope.recipients.get(usize::from(outcome.recipient)).map_or("", |to| to);
        self.log.line(outcome.at, outcome.disposition.name(), |line| {
            line.word("id", id)
                .address("from", &envelope.sender)
                .address("to", to)
                .text("host", &outcome.host)
                .number("attempts", u64::from(outcome.attempts))
                .number("ms", took.as_millis() as u64);
            if outcome.disposition == Disposition::Deferred {
                line.word("next", outcome.next_attempt);
            }
            line.text("reply", &outcome.reply.to_string());
        });
    }

    fn reported(&self, report: QueueId, envelope: &Envelope, id: QueueId) {
        self.log.line(clock::wall(), "reported", |line| {
            line.word("id", report).word("about", id).address("to", &envelope.sender);
        });
    }
}
