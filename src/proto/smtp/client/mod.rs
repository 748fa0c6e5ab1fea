//! The client side of SMTP (RFC 5321) without I/O: it is fed what the server
//! sent and writes commands into the caller's buffer. `relay` drives it to
//! deliver, `ringpost-load` to make load.
//!
//! A driver connects and then repeats: call [`Client::step`] with the unread
//! input until it says [`Event::NeedInput`], write what is in the out buffer,
//! read. On [`Event::Ready`] (and later whenever [`Client::may_begin`]) it may
//! [`begin`](Client::begin) a transaction; on [`Event::SendBody`] it sends the
//! body in wire form, terminator included, and calls [`Client::body_sent`]; on
//! [`Event::Finished`] the transaction is over.
//!
//! With PIPELINING (RFC 2920) MAIL, RCPT and DATA leave as one group. The
//! content of a message may be the first member of the next group (section
//! 3.1), so after `body_sent` the next transaction may begin at once, and a
//! busy connection needs one round trip for a message. Without it, commands
//! are sent one by one.
//!
//! Invariant: a reply counts only for a command that the driver had before the
//! reply was read. Anything that comes unasked ends the connection, so that no
//! reply is ever taken for the reply to another message.

mod group;
mod hello;
mod offer;
#[cfg(test)]
mod pair;
mod phase;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::base::Reply;
use crate::proto::smtp::reply::ReplyReader;

use group::put;
pub use group::{By, Recipient, Transaction};
pub use offer::{Limits, Offer, Unsupported};
pub use phase::{End, Event, Phase};

/// How far the transaction is whose replies are being read.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    recipients: usize,
    answered: usize,
    accepted: usize,
    mail_accepted: bool,
    /// Its body goes in chunks.
    is_chunked: bool,
    /// Its body has been sent, ahead of the replies to its recipients.
    is_ahead: bool,
}

/// One connection's client.
#[derive(Debug)]
pub struct Client {
    helo: Box<str>,
    phase: Phase,
    offer: Offer,
    reader: ReplyReader,
    /// Commands the driver had before the last step that are not answered.
    asked: usize,
    /// Commands given to the driver since.
    fresh: usize,
    /// Replies read so far.
    replies: u64,
    current: Progress,
    /// The transaction whose group follows the current body.
    next: Option<Progress>,
    /// LMTP: recipients that were taken and not yet been spoken of, in order.
    taken: VecDeque<usize>,
    /// The server holds a transaction that came to nothing: RSET goes first.
    must_reset: bool,
    /// Commands still to be sent one by one, and how many bytes of them are.
    script: Vec<u8>,
    script_sent: usize,
    /// The refusal of MAIL, kept while the replies behind it are read.
    mail_reply: Option<Reply>,
    finish: bool,
    /// The body is asked for with the next event.
    body_is_due: bool,
    end: Option<End>,
    is_lmtp: bool,
    is_secured: bool,
    /// What the last 334 said, and how many came.
    challenge: String,
    challenges: u8,
}

impl Client {
    /// The client of a connection just made, which will announce itself as
    /// `helo` (a host name or an address literal).
    pub fn new(helo: &str) -> Self {
        Client::of(helo, false)
    }

    /// The same, for a server that speaks LMTP (RFC 2033).
    pub fn lmtp(helo: &str) -> Self {
        Client::of(helo, true)
    }

    fn of(helo: &str, is_lmtp: bool) -> Self {
        Client {
            helo: helo.into(),
            phase: Phase::Greeting,
            offer: Offer::default(),
            reader: ReplyReader::default(),
            asked: 1,
            fresh: 0,
            replies: 0,
            current: Progress::default(),
            next: None,
            taken: VecDeque::new(),
            must_reset: false,
            script: Vec::new(),
            script_sent: 0,
            mail_reply: None,
            finish: false,
            body_is_due: false,
            end: None,
            is_lmtp,
            is_secured: false,
            challenge: String::new(),
            challenges: 0,
        }
    }

    /// What the server offers; settled once [`Event::Ready`] was seen.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// Sends commands one by one from now on, whatever the server offers.
    ///
    /// # Panics
    /// Unless nothing is under way.
    pub fn send_one_by_one(&mut self) {
        assert!(self.phase == Phase::Idle, "between transactions");
        self.offer.pipelining = false;
    }

    /// What the connection waits for, or where it stood when it ended.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How many replies have come; a change means that the server has said
    /// something whole.
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// The reply that the last event is about.
    pub fn reply(&self) -> Reply {
        self.mail_reply.clone().unwrap_or_else(|| self.reader.reply())
    }

    /// The code of that reply.
    pub fn code(&self) -> u16 {
        self.mail_reply.as_ref().map_or(self.reader.code(), |reply| reply.code)
    }

    /// True when [`Client::begin`] may be called: nothing is under way, or with
    /// PIPELINING only the reply to a body is.
    pub fn may_begin(&self) -> bool {
        let ready = match self.phase {
            Phase::Idle => true,
            // How many replies a body has in LMTP is the server's word: it is not
            // trusted with telling them from those of the next message. And a server
            // that refuses a chunk may still hold the transaction when the next
            // MAIL comes.
            Phase::Dot => {
                let is_plain = !self.is_lmtp && !self.current.is_chunked;
                self.offer.pipelining && self.next.is_none() && is_plain
            }
            _ => false,
        };
        ready && self.end.is_none() && !self.finish
    }

    /// Begins a transaction for `recipients` (at least one) and writes what may
    /// be sent of it now.
    ///
    /// # Errors
    /// The server cannot take the message; nothing was written, and another
    /// transaction may begin.
    ///
    /// # Panics
    /// Unless [`Client::may_begin`].
    pub fn begin<'r>(
        &mut self,
        transaction: &Transaction<'_>,
        recipients: impl IntoIterator<Item: Into<Recipient<'r>>>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unsupported> {
        assert!(self.may_begin(), "a transaction begins between transactions");
        self.offer.admits(transaction)?;
        self.script.clear();
        self.script_sent = 0;
        let group = if self.offer.pipelining { &mut *out } else { &mut self.script };
        let start = group.len();
        let reset = self.must_reset && self.phase == Phase::Idle;
        if reset {
            group.extend_from_slice(b"RSET\r\n");
        }
        let mut clean = transaction.write(&self.offer, group);
        let mut count = 0;
        for recipient in recipients {
            clean &= recipient.into().write(transaction, &self.offer, group);
            count += 1;
        }
        assert!(count > 0, "a transaction has a recipient");
        if !clean {
            group.truncate(start);
            return Err(Unsupported::Address);
        }
        let is_chunked = transaction.chunked;
        if !is_chunked {
            group.extend_from_slice(b"DATA\r\n");
        }
        let begun = Progress { recipients: count, is_chunked, ..Progress::default() };
        if self.phase == Phase::Dot {
            self.next = Some(begun);
        } else {
            self.start(begun);
            self.phase = if reset { Phase::Reset } else { Phase::Mail };
        }
        if self.offer.pipelining {
            self.fresh += 1 + count + usize::from(!is_chunked) + usize::from(reset);
        } else {
            self.send_next(out);
        }
        Ok(())
    }

    /// The driver has sent the body, or put it where [`Client::begin`] would
    /// append.
    ///
    /// # Panics
    /// Unless the last event was [`Event::SendBody`], of a body not in chunks.
    pub fn body_sent(&mut self) {
        assert!(self.awaits_body() && !self.current.is_chunked, "a body was asked for");
        self.phase = Phase::Dot;
        self.fresh += self.last_replies();
    }

    /// Announces a chunk of `len` octets, which the driver sends behind it as they
    /// are: BDAT (RFC 3030). Another [`Event::SendBody`] asks for the next unless it
    /// is the last.
    ///
    /// # Panics
    /// Unless the last event was [`Event::SendBody`], of a body in chunks.
    pub fn chunk(&mut self, len: usize, is_last: bool, out: &mut Vec<u8>) {
        assert!(self.awaits_body() && self.current.is_chunked, "a chunk was asked for");
        announce(len, is_last, out);
        if is_last {
            self.phase = Phase::Dot;
            self.fresh += self.last_replies();
        } else {
            self.await_next(Phase::Chunk);
        }
    }

    /// Announces the whole body of `len` octets as one chunk behind the commands of
    /// the transaction just begun, ahead of the replies to them; the driver sends it
    /// behind that, and no [`Event::SendBody`] asks for it. One round trip is all
    /// that the message takes, but a server that takes no recipient is sent it too.
    ///
    /// # Panics
    /// Unless the last call was [`Client::begin`], for a body in chunks, with a server
    /// that offers PIPELINING.
    pub fn chunk_ahead(&mut self, len: usize, out: &mut Vec<u8>) {
        assert!(self.offer.pipelining, "the server counts on it");
        let begun = self.next.as_mut().unwrap_or(&mut self.current);
        assert!(begun.is_chunked && begun.answered == 0, "a transaction was begun");
        begun.is_ahead = true;
        announce(len, true, out);
        // In LMTP each recipient that is taken has one; the first stands for all
        // until it is known which are.
        self.fresh += 1;
    }

    /// Sends no ordinary message in chunks from now on, whatever the server offers.
    ///
    /// # Panics
    /// Unless nothing is under way.
    pub fn forgo_chunks(&mut self) {
        assert!(self.phase == Phase::Idle, "between transactions");
        self.offer.chunking = false;
    }

    /// True when the server does not know BDAT although it offers that: the
    /// transaction finished last came to nothing.
    pub fn denies_chunks(&self) -> bool {
        self.end == Some(End::NoChunks)
    }

    fn awaits_body(&self) -> bool {
        self.phase == Phase::Body && self.end.is_none()
    }

    /// Replies that the end of a body gets.
    fn last_replies(&self) -> usize {
        if self.is_lmtp { self.taken.len() } else { 1 }
    }

    /// Says goodbye, if the connection is idle; else does nothing.
    pub fn quit(&mut self, out: &mut Vec<u8>) {
        if self.phase == Phase::Idle && self.end.is_none() {
            out.extend_from_slice(b"QUIT\r\n");
            self.phase = Phase::Quit;
            self.fresh += 1;
        }
    }

    /// Reads `input` up to the next event and writes what it leads to. Returns
    /// how many bytes of `input` are done with.
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        self.asked += std::mem::take(&mut self.fresh);
        let mut used = 0;
        loop {
            if std::mem::take(&mut self.finish) {
                return (used, Event::Finished);
            }
            if let Some(end) = self.end {
                return (used, Event::Closed(end));
            }
            if std::mem::take(&mut self.body_is_due) && used == input.len() {
                return (used, Event::SendBody);
            }
            let line = match self.reader.line(&input[used..]) {
                Ok(Some(line)) => line,
                Ok(None) => return (used, Event::NeedInput),
                Err(what) => {
                    self.end = Some(End::Malformed(what));
                    continue;
                }
            };
            used += line.len;
            match self.phase {
                Phase::Ehlo => self.offer.learn(line.text),
                Phase::Auth => self.challenge = String::from_utf8_lossy(line.text).into_owned(),
                _ => {}
            }
            if !line.last {
                continue;
            }
            if !matches!(self.phase, Phase::Recipient | Phase::Data | Phase::Dot) {
                self.mail_reply = None;
            }
            let event = self.replied(out);
            let early = self.asked == 0 && used < input.len();
            if early && self.phase != Phase::Body {
                let is_injected = self.phase == Phase::Handshake;
                let end = if is_injected { End::Injected } else { End::Unasked };
                self.end = self.end.or(Some(end));
            }
            match event {
                Some(Event::Refused { .. } | Event::Verdict { .. }) => {}
                // What came early is the server's word on the body it awaits,
                // or reason enough not to begin anything.
                Some(_) if early => continue,
                _ => {}
            }
            if let Some(event) = event {
                return (used, event);
            }
        }
    }

    /// Acts on a whole reply.
    fn replied(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.replies += 1;
        let code = self.reader.code();
        if self.asked == 0 {
            return self.unasked(code);
        }
        self.asked -= 1;
        if code == 421 {
            self.unavailable();
            return None;
        }
        match (self.phase, code / 100) {
            (Phase::Reset, 2) => {
                self.phase = Phase::Mail;
                self.send_next(out);
            }
            (Phase::Mail, 2 | 4 | 5) => self.mail_replied(code, out),
            (Phase::Recipient, 2 | 4 | 5) => return self.recipient_replied(code, out),
            (Phase::Data, 3..=5) => return self.data_replied(code, out),
            (Phase::Chunk | Phase::Dot, 5) if self.is_denied(code) => {
                // It will take the body for commands, and what it says to them for
                // replies.
                self.end = Some(End::NoChunks);
                self.finish = true;
            }
            (Phase::Chunk, 2) => {
                self.phase = Phase::Body;
                return Some(Event::SendBody);
            }
            (Phase::Chunk, 4 | 5) => {
                self.must_reset = true;
                self.finish_transaction();
            }
            (Phase::Dot, 2 | 4 | 5) => return self.body_replied(code),
            (Phase::Quit, _) => self.end = Some(End::Quit),
            _ => return self.greeted(code, out),
        }
        None
    }

    fn mail_replied(&mut self, code: u16, out: &mut Vec<u8>) {
        let accepted = code / 100 == 2;
        self.current.mail_accepted = accepted;
        if accepted || self.offer.pipelining {
            if !accepted {
                self.mail_reply = Some(self.reader.reply());
            }
            self.phase = Phase::Recipient;
            self.send_next(out);
        } else {
            self.finish_transaction();
        }
    }

    fn recipient_replied(&mut self, code: u16, out: &mut Vec<u8>) -> Option<Event> {
        let recipient = self.current.answered;
        let accepted = code / 100 == 2;
        self.current.answered += 1;
        self.current.accepted += usize::from(accepted);
        if accepted && self.is_lmtp {
            self.taken.push_back(recipient);
        }
        let last = self.current.answered == self.current.recipients;
        let is_chunked = self.current.is_chunked;
        let nobody = self.current.accepted == 0 || !self.current.mail_accepted;
        if last && self.current.is_ahead {
            self.must_reset = nobody && self.current.mail_accepted;
            if self.is_lmtp && self.taken.is_empty() {
                self.leave(out);
            } else {
                self.asked += self.taken.len().saturating_sub(1);
                self.phase = Phase::Dot;
            }
        } else if last && nobody && (is_chunked || !self.offer.pipelining) {
            self.must_reset = self.current.mail_accepted;
            self.finish_transaction();
        } else if last && is_chunked {
            self.phase = Phase::Body;
            // A refusal of this recipient is told first.
            self.body_is_due = !accepted;
            if accepted {
                return Some(Event::SendBody);
            }
        } else {
            self.phase = if last { Phase::Data } else { Phase::Recipient };
            self.send_next(out);
        }
        let refused = !accepted && self.current.mail_accepted;
        refused.then_some(Event::Refused { recipient })
    }

    fn data_replied(&mut self, code: u16, out: &mut Vec<u8>) -> Option<Event> {
        if code / 100 != 3 {
            self.must_reset = self.current.mail_accepted;
            self.finish_transaction();
            return None;
        }
        if self.current.mail_accepted && self.current.accepted > 0 {
            self.phase = Phase::Body;
            return Some(Event::SendBody);
        }
        if self.is_lmtp {
            // Whether a message for nobody has a reply, servers do not agree on.
            self.end = Some(End::WrongCode);
            return None;
        }
        // Nobody to deliver to, yet the server waits for a message: the
        // shortest one ends it (RFC 2920, section 3.1).
        out.extend_from_slice(b".\r\n");
        self.await_next(Phase::Dot);
        None
    }

    /// The reply to the end of a body, or in LMTP to it for one recipient.
    fn body_replied(&mut self, code: u16) -> Option<Event> {
        let recipient = if self.is_lmtp { self.taken.pop_front() } else { None };
        self.must_reset |= self.current.is_chunked && code / 100 != 2;
        if self.taken.is_empty() {
            self.finish_transaction();
        }
        recipient.map(|recipient| Event::Verdict { recipient })
    }

    /// True for the first reply to a chunk that recipients wait for, if it is one that a
    /// server has for a command that it does not know.
    fn is_denied(&self, code: u16) -> bool {
        let Progress { accepted, mail_accepted, is_chunked, .. } = self.current;
        let is_first = !self.is_lmtp || self.taken.len() == accepted;
        let is_awaited = is_chunked && mail_accepted && accepted > 0 && is_first;
        is_awaited && matches!(code, 500..=504)
    }

    /// A reply came for which no command is outstanding. Before the end of a
    /// body a refusal is the server's last word on it; whatever else it is
    /// cannot be trusted to belong to what follows.
    fn unasked(&mut self, code: u16) -> Option<Event> {
        self.end = Some(if code == 421 { End::Unavailable } else { End::Unasked });
        self.finish = self.phase == Phase::Body && matches!(code / 100, 4 | 5);
        None
    }

    /// 421 in reply to a command.
    fn unavailable(&mut self) {
        self.end = Some(match self.phase {
            Phase::Greeting | Phase::Ehlo | Phase::Helo | Phase::StartTls | Phase::Auth => {
                End::TurnedAway
            }
            Phase::Quit => End::Quit,
            _ => End::Unavailable,
        });
        self.finish = matches!(
            self.phase,
            Phase::Mail | Phase::Recipient | Phase::Data | Phase::Chunk | Phase::Dot
        );
    }

    /// Finishes the transaction and says goodbye, for it is not known whether another
    /// reply comes: a last chunk for nobody has none in LMTP (RFC 2033, 4.3), and yet
    /// there are servers that have one.
    fn leave(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"QUIT\r\n");
        self.finish = true;
        self.phase = Phase::Quit;
        self.asked += 1;
    }

    /// The transaction under way is over; the one begun behind it takes over.
    fn finish_transaction(&mut self) {
        self.finish = true;
        match self.next.take() {
            Some(begun) => {
                self.start(begun);
                self.phase = Phase::Mail;
            }
            None => self.phase = Phase::Idle,
        }
    }

    fn start(&mut self, begun: Progress) {
        self.current = begun;
        self.taken.clear();
        self.must_reset = false;
    }

    /// Waits for the reply to a command just written.
    fn await_next(&mut self, phase: Phase) {
        self.phase = phase;
        self.fresh += 1;
    }

    /// Sends the next command where commands go one by one; those of a
    /// pipelined group have all been sent.
    fn send_next(&mut self, out: &mut Vec<u8>) {
        let rest = &self.script[self.script_sent..];
        if let Some(end) = memchr::memchr(b'\n', rest) {
            out.extend_from_slice(&rest[..=end]);
            self.script_sent += end + 1;
            self.fresh += 1;
        }
    }
}

/// Writes the command that a chunk of `len` octets follows.
fn announce(len: usize, is_last: bool, out: &mut Vec<u8>) {
    put(out, &[b"BDAT "]);
    group::put_number(out, len as u64);
    put(out, &[if is_last { b" LAST\r\n" } else { b"\r\n" }]);
}
