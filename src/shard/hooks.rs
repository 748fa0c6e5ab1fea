//! Where receiving and relaying meet, without knowing one another: what was
//! accepted is handed to the relay, and both are written to the mail log.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use hdrhistogram::Histogram;

use crate::base::{Disposition, Envelope, Outcome, QueueId, Reply, Security, UnixMillis};
use crate::io::clock;
use crate::io::tls;
use crate::io::uring::UringStore;
use crate::proto::smtp::server::proxying::Claims;
use crate::receive::{Accepted, Authenticated, Broken, Hooks, Introduced, Refused};
use crate::relay::{Events, Relay};

use super::maillog::{Line, MailLog};
use super::turns::Turns;

/// Receiving's view of the shard.
pub(super) struct Front {
    pub(super) log: Rc<MailLog>,
    pub(super) relay: Relay<UringStore>,
    pub(super) turns: Turns,
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
            let terms = envelope.terms.as_deref();
            let secured = terms.and_then(|terms| terms.secured.as_deref());
            if let Some((version, cipher)) = secured.and_then(|secured| secured.split_once(' ')) {
                line.word("tls", version).word("tls_cipher", cipher);
            }
            if let Some(user) = terms.and_then(|terms| terms.user.as_deref()) {
                line.text("user", user);
            }
            if let Some(priority) = terms.map(|terms| terms.priority).filter(|given| *given != 0) {
                line.word("priority", priority);
            }
            line.number("size", message.size).number("us", message.took.as_micros() as u64);
            if let Some(origin) = message.forwarded {
                told(line, origin, FORWARDED);
            }
        });
        let body = (message.trace, message.body);
        let stored = message.size + message.trace.len() as u64;
        self.relay.accepted(message.id, message.envelope, body, message.commit, stored);
    }

    fn introduced(&self, introduced: Introduced<'_>) {
        self.log.line(clock::wall(), "introduced", |line| {
            line.word("client", introduced.client)
                .word("via", introduced.connection)
                .word("by", introduced.by);
            told(line, introduced.claims, TOLD);
        });
    }

    fn turn(&self, client: SocketAddr, domain: &str, below: bool) -> bool {
        self.turns.ask(&format!("ETRN from {}", client.ip().to_canonical()), domain, below)
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

    fn authenticated(&self, authenticated: Authenticated<'_>) {
        let event = match authenticated.failed {
            Some(_) => "not authenticated",
            None => "authenticated",
        };
        self.log.line(clock::wall(), event, |line| {
            line.word("client", authenticated.client)
                .text("helo", authenticated.helo)
                .text("user", authenticated.user)
                .word("mechanism", authenticated.mechanism);
            if let Some(why) = authenticated.failed {
                line.text("why", why);
            }
        });
    }

    fn broken(&self, client: SocketAddr, helo: &str, how: Broken) {
        self.log.line(clock::wall(), "session ended", |line| {
            line.word("client", client).text("helo", helo).text("why", how.name());
        });
    }

    fn insecure(&self, client: SocketAddr, helo: &str, why: &str) {
        self.log.line(clock::wall(), "tls failed", |line| {
            line.word("client", client).text("helo", helo).text("why", why);
        });
    }

    fn turned_away(&self, client: SocketAddr, reply: &Reply) {
        self.log.line(clock::wall(), "turned away", |line| {
            line.word("client", client).text("reply", &reply.to_string());
        });
    }
}

/// How the attributes of a client are named in the log: name, address, port,
/// protocol, name in EHLO, user, address and port connected to, id, source.
type Names = [&'static str; 10];
const TOLD: Names = [
    "name", "addr", "port", "protocol", "helo", "user", "to_addr", "to_port", "their_id", "source",
];
const FORWARDED: Names = [
    "orig_name",
    "orig_client",
    "orig_port",
    "orig_protocol",
    "orig_helo",
    "orig_user",
    "orig_to_addr",
    "orig_to_port",
    "orig_id",
    "orig_source",
];

/// Logs what was told of a client, where it was.
fn told(line: &mut Line<'_>, claims: &Claims, names: Names) {
    fn text<T: ToString>(claim: &Option<Option<T>>) -> Option<String> {
        let unknown = || "unknown".to_owned();
        claim.as_ref().map(|value| value.as_ref().map_or_else(unknown, T::to_string))
    }
    let texts = [
        text(&claims.name),
        text(&claims.address),
        text(&claims.port),
        text(&claims.protocol),
        text(&claims.helo),
        text(&claims.login),
        text(&claims.destination),
        text(&claims.destination_port),
        text(&claims.ident),
        text(&claims.source),
    ];
    for (name, text) in names.into_iter().zip(texts) {
        if let Some(text) = text {
            line.text(name, &text);
        }
    }
}

fn yes_or_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
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
            match outcome.security {
                None => {}
                Some(Security::Plain) => drop(line.word("tls", "none")),
                Some(Security::Tls { version, is_verified }) => {
                    line.word("tls", version).word("verified", yes_or_no(is_verified));
                }
            }
            if outcome.disposition == Disposition::Deferred {
                line.word("next", outcome.next_attempt);
            }
            line.text("reply", &outcome.reply.to_string());
        });
    }

    fn secured(&self, host: &str, facts: &tls::Facts) {
        let is_verified = facts.peer.as_ref().is_some_and(|peer| peer.is_verified);
        self.log.line(clock::wall(), "secured", |line| {
            line.text("host", host)
                .word("tls", facts.version)
                .word("tls_cipher", &facts.cipher)
                .word("verified", yes_or_no(is_verified))
                .word("resumed", yes_or_no(facts.is_resumed));
        });
    }

    fn not_secured(&self, host: &str, why: &str, is_strict: bool) {
        self.log.line(clock::wall(), "not secured", |line| {
            line.text("host", host)
                .word("then", if is_strict { "deferred" } else { "plain" })
                .text("why", why);
        });
    }

    fn reported(&self, report: QueueId, envelope: &Envelope, id: QueueId) {
        self.log.line(clock::wall(), "reported", |line| {
            line.word("id", report).word("about", id).address("to", &envelope.sender);
        });
    }
}
