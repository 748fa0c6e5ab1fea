//! Taking the body of a message: from the 354 to the verdict that the engine
//! answers with. What comes by BDAT is stored by it too (`chunks`).
//!
//! The bytes are scanned as they arrive, in the session's own buffer. A body
//! that fits it is appended to the log in one record; a longer one streams to
//! the log part by part, so that no session holds more than `buffer::HUGE`.
//! What is to be refused is read to its end and forgotten. A message exists
//! from the moment its commit is durable, and only then is it answered 250.
//!
//! RFC 5321: 4.1.1.4 (DATA), 4.5.2 (transparency), 6.3 (loops); RFC 1870 (SIZE).

use std::time::Instant;

use crate::base::limits::RECEIVED_MAX;
use crate::base::{EnhancedCode, Envelope, Protocol, QueueId, Reply, UnixMillis};
use crate::io::clock;
use crate::io::store::Store;
use crate::mail::date;
use crate::mail::headers::HeaderWatch;
use crate::mail::trace::Trace;
use crate::policy::abuse::Pace;
use crate::proto::scan::{Scan, Scanner};
use crate::proto::smtp::server::{BodyVerdict, Server};
use crate::queue::{QueueError, StreamedAppend};

use super::hooks::{Accepted, Hooks, Refused};
use super::passage::Passage;
use super::session::Session;

/// A body past `limits.message_size` is read on, to be refused at its end; the
/// end of one past this many times the limit is not waited for.
const PATIENCE: u64 = 4;

/// The client went away or was too slow: no verdict.
pub(super) struct Lost;

/// Where the body goes.
enum Stored<S: Store> {
    /// It has fitted the session's buffer so far.
    Buffered,
    /// To the log, part by part.
    Streaming(Box<StreamedAppend<S>>),
    /// Nowhere: it will be refused.
    Refused(Reply),
}

/// A body being taken.
pub(super) struct Intake<S: Store> {
    pub(super) scanner: Scanner,
    pub(super) headers: HeaderWatch,
    stored: Stored<S>,
    envelope: Envelope,
    protocol: Protocol,
    trace: Vec<u8>,
    passage: Passage,
    /// Most octets that the scanner may count.
    size_max: u64,
    /// Lines may end in any way.
    binary: bool,
}

impl<S: Store, H: Hooks> Session<S, H> {
    /// Reads the body that follows the 354 and stores it.
    pub(super) async fn take_body(&mut self, server: &mut Server) -> Result<BodyVerdict, Lost> {
        let protocol = server.protocol();
        let size_max = self.shard.config().limits.message_size;
        let envelope = self.envelope(server);
        let passage = self.passage(&envelope);
        let mut intake = Intake::new(envelope, passage, protocol, size_max);
        let mut scanned = 0;
        let mut pace = Pace::default();
        loop {
            let filled = self.buffer.filled();
            match intake.scanner.scan(&filled[scanned..]) {
                Scan::End { len } => return Ok(self.conclude(intake, scanned + len).await),
                Scan::More => scanned = filled.len(),
            }
            if self.buffer.room().is_empty() {
                self.buffer.compact();
                if self.buffer.room().is_empty() && !self.buffer.grow() {
                    if let Some(verdict) = self.out_of_patience(&intake) {
                        return Ok(verdict);
                    }
                    self.guard.disarm();
                    intake.headers.push(&self.buffer.filled()[..scanned]);
                    self.spill(&mut intake, &self.buffer.filled()[..scanned]).await;
                    self.buffer.consume(scanned);
                    scanned = 0;
                }
            }
            self.read_body(&mut pace).await?;
        }
    }

    /// Ends the session of a client that sends far more than it may: the end of
    /// its message may never come.
    fn out_of_patience(&self, intake: &Intake<S>) -> Option<BodyVerdict> {
        let reply = intake.fault()?;
        (intake.scanner.size() > intake.size_max.saturating_mul(PATIENCE)).then(|| {
            self.refuse(intake, &reply);
            BodyVerdict::Close(reply)
        })
    }

    /// Takes the next part of a long body to the log, or drops what will be refused.
    pub(super) async fn spill(&self, intake: &mut Intake<S>, part: &[u8]) {
        if let Some(reply) = intake.fault() {
            intake.stored = Stored::Refused(reply);
        }
        if matches!(intake.stored, Stored::Buffered) {
            intake.stored = self.begin_stream(intake);
        }
        if let Stored::Streaming(stream) = &mut intake.stored {
            let part = intake.passage.pass(part);
            if let Err(error) = stream.push(part).await {
                intake.stored = Stored::Refused(storage_reply(&error));
            }
            intake.passage.let_go();
        }
    }

    fn begin_stream(&self, intake: &mut Intake<S>) -> Stored<S> {
        intake.seal(self.shard.hooks.now());
        let (envelope, protocol) = (&intake.envelope, intake.protocol);
        let trace = &mut intake.trace;
        let begun = self.shard.queue.stream(envelope, |id, out| {
            self.write_trace(envelope, protocol, id, trace);
            out.extend_from_slice(trace);
        });
        match begun {
            Ok(stream) => Stored::Streaming(Box::new(stream)),
            Err(error) => Stored::Refused(storage_reply(&error)),
        }
    }

    /// The body has ended with the first `len` bytes of the buffer.
    async fn conclude(&mut self, mut intake: Intake<S>, len: usize) -> BodyVerdict {
        let ended = clock::monotonic();
        self.guard.disarm();
        let body = &self.buffer.filled()[..len];
        intake.headers.push(body);
        let verdict = match self.store(&mut intake, body, ended).await {
            Ok(id) => BodyVerdict::Queued(id),
            Err(reply) => {
                self.refuse(&intake, &reply);
                BodyVerdict::Refuse(reply)
            }
        };
        self.buffer.consume(len);
        verdict
    }

    /// Counts and logs a message that is not taken.
    pub(super) fn refuse(&self, intake: &Intake<S>, reply: &Reply) {
        let mut counters = self.shard.counters.borrow_mut();
        if reply.is_permanent() {
            counters.messages_refused += 1;
        } else {
            counters.messages_tempfailed += 1;
        }
        drop(counters);
        self.shard.hooks.refused(Refused {
            client: self.peer,
            helo: &intake.envelope.helo,
            sender: &intake.envelope.sender,
            recipient: None,
            reply,
        });
    }

    /// Appends the body, or what is left of it, and waits for the commit; the shard
    /// then takes the message over.
    pub(super) async fn store(
        &self,
        intake: &mut Intake<S>,
        body: &[u8],
        ended: Instant,
    ) -> Result<QueueId, Reply> {
        // What is wrong with the body is so whatever the disk says. What has not been
        // stored from its beginning on cannot be judged by its header any more.
        if let Some(reply) = intake.fault().or_else(|| intake.refusal()) {
            return Err(reply);
        }
        let held_most = self.shard.config().limits.held_per_user;
        let now = self.shard.hooks.now();
        let reserved = self.shard.authority.reserve(&intake.envelope, held_most, now)?;
        let stored = std::mem::replace(&mut intake.stored, Stored::Buffered);
        let mut passage = std::mem::take(&mut intake.passage);
        let (end, size) = passage.end(body, intake.scanner.size())?;
        let (id, commit, body) = match stored {
            Stored::Refused(reply) => return Err(reply),
            Stored::Buffered => (self.append(intake, end).await?, None, Some(end)),
            Stored::Streaming(stream) => {
                let id = self.close_stream(*stream, end).await?;
                let state = self.shard.queue.message(id);
                (id, state.and_then(|state| state.at.commit), None)
            }
        };
        let took = ended.elapsed();
        self.count_acceptance(intake, took);
        if let Some(reserved) = reserved {
            reserved.fill(id, self.shard.hooks.now());
        }
        self.shard.hooks.accepted(Accepted {
            id,
            envelope: std::mem::take(&mut intake.envelope),
            trace: &intake.trace,
            body,
            commit,
            size,
            took,
            forwarded: self.forwarded(),
        });
        Ok(id)
    }

    /// Writes the `Received:` field of a message (RFC 5321, 4.4).
    fn write_trace(&self, envelope: &Envelope, protocol: Protocol, id: QueueId, out: &mut Vec<u8>) {
        let terms = envelope.terms.as_deref();
        let trace = Trace {
            helo: &envelope.helo,
            client: &envelope.client,
            by: &self.shard.config().hostname,
            protocol,
            secured: terms.and_then(|terms| terms.secured.as_deref()),
            authenticated: terms.is_some_and(|terms| terms.user.is_some()),
            id: &id.encode(),
            recipient: match envelope.recipients.as_slice() {
                [only] => Some(only),
                _ => None,
            },
            priority: terms.map_or(0, |terms| terms.priority),
            date: &date::rfc5322(envelope.arrival()),
        };
        trace.write(out);
    }

    async fn append(&self, intake: &mut Intake<S>, body: &[u8]) -> Result<QueueId, Reply> {
        self.shard.queue.room().await.map_err(|error| storage_reply(&error))?;
        intake.seal(self.shard.hooks.now());
        let (envelope, protocol) = (&intake.envelope, intake.protocol);
        let trace = &mut intake.trace;
        let (id, commit) = self
            .shard
            .queue
            .append(
                envelope,
                |id, out| {
                    self.write_trace(envelope, protocol, id, trace);
                    out.extend_from_slice(trace);
                },
                &[body],
            )
            .map_err(|error| storage_reply(&error))?;
        commit.await.map_err(|error| storage_reply(&error))?;
        Ok(id)
    }

    async fn close_stream(
        &self,
        mut stream: StreamedAppend<S>,
        end: &[u8],
    ) -> Result<QueueId, Reply> {
        let id = stream.id();
        stream.push(end).await.map_err(|error| storage_reply(&error))?;
        let commit = stream.finish().map_err(|error| storage_reply(&error))?;
        commit.await.map_err(|error| storage_reply(&error))?;
        Ok(id)
    }

    fn count_acceptance(&self, intake: &Intake<S>, took: std::time::Duration) {
        let mut counters = self.shard.counters.borrow_mut();
        counters.messages_accepted += 1;
        counters.bytes_accepted += intake.scanner.size();
        counters.recipients_accepted += intake.envelope.recipients.len() as u64;
        drop(counters);
        self.shard.accept_latency.borrow_mut().saturating_record(took.as_micros() as u64);
    }
}

impl<S: Store> Intake<S> {
    /// A body by DATA that begins, of `size_max` octets at most.
    fn new(envelope: Envelope, passage: Passage, protocol: Protocol, size_max: u64) -> Intake<S> {
        Intake {
            passage,
            scanner: Scanner::new(),
            headers: HeaderWatch::new(),
            stored: Stored::Buffered,
            envelope,
            protocol,
            trace: Vec::new(),
            size_max,
            binary: false,
        }
    }

    /// A body in chunks that begins. The engine has seen to its size.
    pub(super) fn of_chunks(
        envelope: Envelope,
        passage: Passage,
        protocol: Protocol,
        binary: bool,
    ) -> Intake<S> {
        Intake { binary, ..Intake::new(envelope, passage, protocol, u64::MAX) }
    }

    /// Completes the envelope with what was learnt since, before it is stored.
    fn seal(&mut self, now: UnixMillis) {
        self.envelope.arrival_ms = now.0;
        let terms = &mut self.envelope.terms;
        // REQUIRETLS counts more (RFC 8689, 4.1).
        let requires = terms.as_ref().is_some_and(|terms| terms.require_tls);
        if self.headers.tls_optional() && !requires {
            terms.get_or_insert_default().tls_optional = true;
        }
    }

    /// The body is to be refused, whatever else comes of it.
    pub(super) fn give_up(&mut self, reply: Reply) {
        self.stored = Stored::Refused(reply);
    }

    /// What comes of the body is of no use: it was found that it will be refused.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.stored, Stored::Refused(_))
    }

    /// Why the body will not be taken, as far as that is known by now.
    pub(super) fn refusal(&self) -> Option<Reply> {
        match &self.stored {
            Stored::Refused(reply) => Some(reply.clone()),
            _ => self.fault(),
        }
    }

    /// What is wrong with the body as far as it has been read.
    fn fault(&self) -> Option<Reply> {
        let size_max = self.size_max;
        if self.scanner.size() > size_max {
            let text = format!("message exceeds {size_max} bytes, the limit of this server");
            return Some(Reply::new(552, EnhancedCode(5, 3, 4), text));
        }
        if !self.binary && (self.scanner.bare_cr() || self.scanner.bare_lf()) {
            let what = if self.scanner.bare_lf() { "LF" } else { "CR" };
            let text = format!("bare {what} in message; lines end with CRLF (RFC 5321, 2.3.8)");
            return Some(Reply::new(550, EnhancedCode(5, 6, 0), text));
        }
        if self.headers.received() as usize > RECEIVED_MAX {
            let text = format!("mail loop: more than {RECEIVED_MAX} Received fields");
            return Some(Reply::new(554, EnhancedCode(5, 4, 6), text));
        }
        self.passage.fault()
    }
}

/// What a client is told when its message could not be stored.
pub(super) fn storage_reply(error: &QueueError) -> Reply {
    match error {
        QueueError::Full { .. } => {
            Reply::new(452, EnhancedCode(4, 3, 1), "queue is full, try again later")
        }
        QueueError::TooLarge { .. } => {
            Reply::new(552, EnhancedCode(5, 3, 4), "too many recipients for one message")
        }
        _ => Reply::new(451, EnhancedCode(4, 3, 0), "message could not be stored, try again later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Place, ShardId, Terms};
    use crate::io::memory::MemoryStore;

    #[test]
    fn requiretls_counts_more_than_the_header() {
        for require_tls in [false, true] {
            let terms = Some(Box::new(Terms { require_tls, ..Terms::default() }));
            let envelope = Envelope { terms, ..Envelope::default() };
            let passage = Passage::default();
            let mut intake: Intake<MemoryStore> =
                Intake::new(envelope, passage, Protocol::Esmtp, u64::MAX);
            intake.headers.push(b"TLS-Required: No\r\n\r\n");
            intake.seal(UnixMillis(7));
            let terms = intake.envelope.terms.unwrap();
            assert_eq!((terms.require_tls, terms.tls_optional), (require_tls, !require_tls));
        }
    }

    #[test]
    fn trouble_with_the_disk_is_never_the_senders_fault_for_good() {
        let id = QueueId { log: ShardId(0), place: Place::default() };
        let io = || std::io::Error::other("EIO");
        for (error, code, enhanced) in [
            (QueueError::Full { needed: 2, available: 1 }, 452, EnhancedCode(4, 3, 1)),
            (QueueError::Poisoned("flush failed".into()), 451, EnhancedCode(4, 3, 0)),
            (QueueError::Io { what: "write".into(), source: io() }, 451, EnhancedCode(4, 3, 0)),
            (QueueError::Unknown(id), 451, EnhancedCode(4, 3, 0)),
            (QueueError::TooLarge { bytes: 2, limit: 1 }, 552, EnhancedCode(5, 3, 4)),
        ] {
            let reply = storage_reply(&error);
            assert_eq!((reply.code, reply.enhanced), (code, Some(enhanced)), "{error}");
            assert!(!reply.text.contains("flush"), "a client is told nothing of our disk");
        }
    }
}
