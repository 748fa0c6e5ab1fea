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
mod offer;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::base::Reply;
use crate::base::limits::client_timeout;
use crate::proto::smtp::reply::{Malformed, ReplyReader};

use group::put;
pub use group::{Recipient, Transaction};
pub use offer::{Offer, Unsupported};

/// What [`Client::step`] found.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// No further reply in the input: write what there is to write, read more.
    NeedInput,
    /// Greeting and EHLO are done: transactions may begin.
    Ready,
    /// A recipient was refused with [`Client::reply`].
    Refused {
        /// Its index among those given to [`Client::begin`].
        recipient: usize,
    },
    /// The server awaits the body of the transaction begun first.
    SendBody,
    /// That transaction is over: [`Client::reply`] holds for each recipient
    /// that was not refused by itself.
    Finished,
    /// Nothing more can be done on this connection.
    Closed(End),
}

/// Why a connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server greeted or answered EHLO and HELO with a refusal, which is
    /// [`Client::reply`].
    TurnedAway,
    /// The server said 421; the words are [`Client::reply`].
    Unavailable,
    /// QUIT was answered.
    Quit,
    /// The server sent a reply that nothing had asked for.
    Unasked,
    /// The server answered a command with a code that makes no sense for it.
    WrongCode,
    /// The server sent something else than replies.
    Malformed(Malformed),
}

impl End {
    /// In words, as the subject is the server.
    pub fn text(self) -> &'static str {
        match self {
            End::TurnedAway => "refused the session",
            End::Unavailable => "closed the session",
            End::Quit => "ended the session",
            End::Unasked => "sent a reply that nothing had asked for",
            End::WrongCode => "gave a reply code that its command does not have",
            End::Malformed(what) => what.text(),
        }
    }
}

/// The reply that a connection waits for, or the step it stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The greeting.
    Greeting,
    /// The reply to EHLO.
    Ehlo,
    /// The reply to HELO, EHLO having been refused.
    Helo,
    /// Nothing: a transaction may begin.
    Idle,
    /// The reply to RSET, sent ahead of MAIL.
    Reset,
    /// The reply to MAIL.
    Mail,
    /// The reply to a RCPT.
    Recipient,
    /// The reply to DATA.
    Data,
    /// The driver, which is sending the body.
    Body,
    /// The reply to the final dot.
    Dot,
    /// The reply to QUIT.
    Quit,
}

impl Phase {
    /// How long the server may take (RFC 5321, section 4.5.3.2).
    pub fn timeout(self) -> Duration {
        match self {
            Phase::Greeting => client_timeout::GREETING,
            Phase::Ehlo | Phase::Helo => client_timeout::EHLO,
            Phase::Mail | Phase::Reset | Phase::Idle => client_timeout::MAIL,
            Phase::Recipient => client_timeout::RCPT,
            Phase::Data => client_timeout::DATA_INIT,
            Phase::Body => client_timeout::DATA_BLOCK,
            Phase::Dot => client_timeout::DATA_DONE,
            Phase::Quit => client_timeout::QUIT,
        }
    }

    /// In words: "waiting for ..." or the like.
    pub fn text(self) -> &'static str {
        match self {
            Phase::Greeting => "waiting for the greeting",
            Phase::Ehlo => "waiting for the reply to EHLO",
            Phase::Helo => "waiting for the reply to HELO",
            Phase::Idle => "idle",
            Phase::Reset => "waiting for the reply to RSET",
            Phase::Mail => "waiting for the reply to MAIL",
            Phase::Recipient => "waiting for the reply to RCPT",
            Phase::Data => "waiting for the reply to DATA",
            Phase::Body => "sending the message",
            Phase::Dot => "waiting for the reply to the end of the message",
            Phase::Quit => "waiting for the reply to QUIT",
        }
    }
}

/// How far the transaction is whose replies are being read.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    recipients: usize,
    answered: usize,
    accepted: usize,
    mail_accepted: bool,
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
    /// Recipients of the transaction whose group follows the current body.
    next: Option<usize>,
    /// The server holds a transaction that came to nothing: RSET goes first.
    must_reset: bool,
    /// Commands still to be sent one by one, and how many bytes of them are.
    script: Vec<u8>,
    script_sent: usize,
    /// The refusal of MAIL, kept while the replies behind it are read.
    mail_reply: Option<Reply>,
    finish: bool,
    end: Option<End>,
}

impl Client {
    /// The client of a connection just made, which will announce itself as
    /// `helo` (a host name or an address literal).
    pub fn new(helo: &str) -> Self {
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
            must_reset: false,
            script: Vec::new(),
            script_sent: 0,
            mail_reply: None,
            finish: false,
            end: None,
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
            Phase::Dot => self.offer.pipelining && self.next.is_none(),
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
        group.extend_from_slice(b"DATA\r\n");
        if self.phase == Phase::Dot {
            self.next = Some(count);
        } else {
            self.start(count);
            self.phase = if reset { Phase::Reset } else { Phase::Mail };
        }
        if self.offer.pipelining {
            self.fresh += count + 2 + usize::from(reset);
        } else {
            self.send_next(out);
        }
        Ok(())
    }

    /// The driver has sent the body, or put it where [`Client::begin`] would
    /// append.
    ///
    /// # Panics
    /// Unless the last event was [`Event::SendBody`].
    pub fn body_sent(&mut self) {
        assert!(self.phase == Phase::Body && self.end.is_none(), "a body was asked for");
        self.phase = Phase::Dot;
        self.fresh += 1;
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
            let line = match self.reader.line(&input[used..]) {
                Ok(Some(line)) => line,
                Ok(None) => return (used, Event::NeedInput),
                Err(what) => {
                    self.end = Some(End::Malformed(what));
                    continue;
                }
            };
            used += line.len;
            if self.phase == Phase::Ehlo {
                self.offer.learn(line.text);
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
                self.end = self.end.or(Some(End::Unasked));
            }
            match event {
                // What came early is the server's word on the body it awaits,
                // or reason enough not to begin anything.
                Some(Event::Ready | Event::SendBody) if early => {}
                Some(event) => return (used, event),
                None => {}
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
            (Phase::Greeting, 2) => {
                put(out, &[b"EHLO ", self.helo.as_bytes(), b"\r\n"]);
                self.await_next(Phase::Ehlo);
            }
            (Phase::Ehlo | Phase::Helo, 2) => {
                self.phase = Phase::Idle;
                return Some(Event::Ready);
            }
            (Phase::Ehlo, 5) => {
                self.offer = Offer::default();
                put(out, &[b"HELO ", self.helo.as_bytes(), b"\r\n"]);
                self.await_next(Phase::Helo);
            }
            (Phase::Greeting | Phase::Ehlo | Phase::Helo, 4 | 5) => {
                self.end = Some(End::TurnedAway);
            }
            (Phase::Reset, 2) => {
                self.phase = Phase::Mail;
                self.send_next(out);
            }
            (Phase::Mail, 2 | 4 | 5) => self.mail_replied(code, out),
            (Phase::Recipient, 2 | 4 | 5) => return self.recipient_replied(code, out),
            (Phase::Data, 3..=5) => return self.data_replied(code, out),
            (Phase::Dot, 2 | 4 | 5) => self.finish_transaction(),
            (Phase::Quit, _) => self.end = Some(End::Quit),
            _ => self.end = Some(End::WrongCode),
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
        let last = self.current.answered == self.current.recipients;
        if last && self.current.accepted == 0 && !self.offer.pipelining {
            self.must_reset = true;
            self.finish_transaction();
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
        // Nobody to deliver to, yet the server waits for a message: the
        // shortest one ends it (RFC 2920, section 3.1).
        out.extend_from_slice(b".\r\n");
        self.await_next(Phase::Dot);
        None
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
            Phase::Greeting | Phase::Ehlo | Phase::Helo => End::TurnedAway,
            Phase::Quit => End::Quit,
            _ => End::Unavailable,
        });
        self.finish =
            matches!(self.phase, Phase::Mail | Phase::Recipient | Phase::Data | Phase::Dot);
    }

    /// The transaction under way is over; the one begun behind it takes over.
    fn finish_transaction(&mut self) {
        self.finish = true;
        match self.next.take() {
            Some(recipients) => {
                self.start(recipients);
                self.phase = Phase::Mail;
            }
            None => self.phase = Phase::Idle,
        }
    }

    fn start(&mut self, recipients: usize) {
        self.current = Progress { recipients, ..Progress::default() };
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
