//! The server side of SMTP (RFC 5321) without I/O: it is fed what the client
//! sent and writes replies into the caller's buffer. `receive` drives it for
//! the relay, `ringpost-sink` to be a cheap peer.
//!
//! A driver does this:
//!
//! 1. [`Server::new`] writes the greeting.
//! 2. [`Server::step`] with the unread input. It says how much of it was used
//!    and what is next:
//!    * [`Step::NeedInput`]: write the out buffer, read more. Up to
//!      [`COMMAND_LINE_ALLOWED`] octets may stay unread, so a buffer of that
//!      size always makes progress; while a client authenticates, up to
//!      [`AUTH_LINE_MAX`].
//!    * [`Step::Flush`]: write the out buffer, then step again: the input holds
//!      more commands, and their replies are bounded by this.
//!    * [`Step::Ask`]: decide and [`answer`](Server::answer), then step again.
//!      No command behind the one in question is looked at before.
//!    * [`Step::Authenticate`]: see [`Server::authentication`], then step again.
//!    * [`Step::Body`]: write the out buffer (it ends with 354), then find the
//!      end of the message with [`Scanner`](crate::proto::scan::Scanner), from
//!      the unread input on; store it with [`Server::take_transaction`]; say
//!      [`body_done`](Server::body_done); step again.
//!    * [`Step::StartTls`]: write the out buffer (it ends with 220), drop all unread
//!      input, do the handshake as the server; say [`secured`](Server::secured), or
//!      close if it failed. If there can be none now, say
//!      [`put_tls_off`](Server::put_tls_off) before anything else.
//!    * [`Step::Chunk`]: write the out buffer, then take that many octets of the
//!      input, as they are. They begin a message if the step says so, else they
//!      go on with it. Behind the last of a message say
//!      [`body_done`](Server::body_done), else [`chunk_taken`](Server::chunk_taken);
//!      a chunk that is not taken is refused with `body_done`, behind its octets.
//!      Whenever [`is_amid_chunks`](Server::is_amid_chunks) is not true, forget what
//!      was taken.
//!    * [`Step::Close`]: write the out buffer, close.
//! 3. When the client is silent, [`timed_out`](Server::timed_out); when the
//!    process ends, [`shutting_down`](Server::shutting_down).
//!
//! Invariants:
//! * What is written does not depend on how the input is cut into pieces.
//! * One reply for each line, in order; none for a line that is not complete,
//!   but for one that is too long, which is answered once when that is known.
//! * Only CRLF ends a command. A line that ends in LF alone is refused unread,
//!   and so is one with a CR, a NUL or another control character in it: what
//!   another server before us may have seen as one line is never two commands
//!   here.
//! * What a chunk holds is never looked at for commands, taken or not (`chunks`).
//! * Nothing of the input is kept but the client's name and the addresses of
//!   the transaction with what was asked about reports, each bounded.
//! * Extensions (RFC 1870, 2034, 2852, 2920, 3030, 3207, 3461, 4865, 6152, 6531,
//!   6710, 8689, 9422) hold after EHLO only.

mod authentication;
mod budget;
#[cfg(test)]
mod chunk_tests;
mod chunks;
mod lines;
mod lmtp;
pub mod proxying;
mod queries;
mod replies;
mod securing;
mod settings;
mod states;
#[cfg(test)]
mod tests;
mod transaction;

use std::sync::Arc;

use crate::base::limits::{AUTH_LINE_MAX, COMMAND_LINE_ALLOWED};
use crate::base::{BodyType, Mechanisms, Protocol, QueueId, Reply, UnixMillis};
use crate::proto::address::Address;
use crate::proto::smtp::asks::Asks;
use crate::proto::smtp::command::begins_chunk;
use lines::Line;
use proxying::Attributes;
use states::State;

pub use authentication::{Authentication, Identified};
pub use budget::Overdraft;
pub use replies::write_reply;
pub use settings::{Kind, Offers, Settings, Spec};
pub use transaction::Transaction;

/// Octets of replies after which [`Step::Flush`] asks for them to be written.
const OUT_HIGH_WATER: usize = 4096;

/// What the driver must do next.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Write what is in the out buffer and read more.
    NeedInput,
    /// Write what is in the out buffer; there is more input to look at.
    Flush,
    /// Decide, and tell [`Server::answer`].
    Ask(Question<'a>),
    /// See [`Server::authentication`]: ask the users, or take note of the end.
    Authenticate,
    /// Write what is in the out buffer; what follows in the input is a message.
    Body,
    /// Write what is in the out buffer, drop what was read, do the handshake of TLS.
    StartTls,
    /// Write what is in the out buffer; what follows in the input is a chunk.
    Chunk {
        /// Its octets.
        octets: u64,
        /// It begins a message.
        first: bool,
        /// It ends the message.
        last: bool,
    },
    /// Write what is in the out buffer and close the connection.
    Close,
}

/// What the engine does not decide by itself. One at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// May this transaction begin?
    Mail {
        /// The reverse-path; `None` for the null path `<>`.
        sender: Option<Address<'a>>,
        /// Octets declared with SIZE; within the limit already.
        size: Option<u64>,
        /// BODY.
        body: BodyType,
        /// SMTPUTF8.
        smtputf8: bool,
        /// What else is asked.
        asks: Asks,
    },
    /// May the message go to this recipient?
    Recipient(Address<'a>),
    /// May the body be sent? Asked once there is a recipient.
    Data,
    /// May the client say that it is another? What it says is for the driver to
    /// keep; the session begins anew.
    Xclient(Attributes<'a>),
    /// May the client say where the next message came from?
    Xforward(Attributes<'a>),
    /// Would mail for this address be taken? Asked by VRFY.
    Verify(Address<'a>),
    /// May what is queued for a domain be tried now? On yes it is. Asked by ETRN.
    Turn {
        /// The domain.
        domain: &'a str,
        /// Domains below it are meant too.
        below: bool,
    },
}

/// The answer to a [`Question`].
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Accept,
    /// No, in these words; the session goes on.
    Refuse(Reply),
    /// No, in these words (421); the session is over.
    Close(Reply),
}

/// What became of a message whose end was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyVerdict {
    /// It is stored under this id.
    Queued(QueueId),
    /// It was not taken, for this reason; the session goes on.
    Refuse(Reply),
    /// It was not taken, for this reason (421); the session is over.
    Close(Reply),
}

/// What a session did since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Command lines read, whether they were understood or not.
    pub commands: u32,
    /// Those refused for their form or order.
    pub errors: u32,
}

/// One session. Small while idle: what a transaction needs is boxed.
#[derive(Debug)]
pub struct Server {
    session: Session,
    state: State,
}

/// What outlives a transaction.
#[derive(Debug)]
struct Session {
    settings: Arc<Settings>,
    /// What the client called itself; empty before that.
    helo: Box<str>,
    /// The client said EHLO.
    extended: bool,
    /// The session is over TLS.
    secured: bool,
    /// The client may relay.
    trusted: bool,
    /// When the session began.
    begun: UnixMillis,
    /// The client has authenticated.
    authenticated: bool,
    /// An exchange was bound to this TLS connection.
    bound: bool,
    /// What it may authenticate with: nothing before there is TLS.
    mechanisms: Mechanisms,
    /// Errors since the last message was queued.
    errors: u32,
    /// Commands since then that were no step of a transaction.
    idle_commands: u32,
    /// Recipients of this transaction that were taken, repeats counted.
    taken: u32,
    overdraft: Option<Overdraft>,
    /// XCLIENT and XFORWARD are offered to this client.
    xclient: bool,
    xforward: bool,
    /// Octets skipped of a line that is too long; 0 when there is none.
    skipped: u32,
    tally: Tally,
}

impl Server {
    /// A session that begins, its greeting written to `out`.
    pub fn new(settings: Arc<Settings>, out: &mut Vec<u8>) -> Server {
        out.extend_from_slice(settings.greeting());
        let session = Session {
            settings,
            helo: Box::default(),
            extended: false,
            secured: false,
            trusted: false,
            begun: UnixMillis::default(),
            authenticated: false,
            bound: false,
            mechanisms: Mechanisms::NONE,
            errors: 0,
            idle_commands: 0,
            taken: 0,
            overdraft: None,
            xclient: false,
            xforward: false,
            skipped: 0,
            tally: Tally::default(),
        };
        Server { session, state: State::AwaitHello }
    }

    /// Says who the client is: whether it may relay, and when it came.
    pub fn introduce(&mut self, trusted: bool, now: UnixMillis) {
        self.session.trusted = trusted;
        self.session.begun = now;
    }

    /// Looks at `input`, which begins with what was not used before. Returns
    /// the next state, how many octets were used, and what is to be done.
    ///
    /// # Panics
    ///
    /// If the question asked last was not answered.
    pub fn step<'a>(mut self, input: &'a [u8], out: &mut Vec<u8>) -> (Server, usize, Step<'a>) {
        let mut used = 0;
        loop {
            match &self.state {
                State::AwaitBody(_) => return (self, used, Step::Body),
                State::AwaitHandshake => return (self, used, Step::StartTls),
                State::AwaitChunk(chunk) => {
                    let step = chunk.step();
                    return (self, used, step);
                }
                State::Closed => return (self, used, Step::Close),
                State::AuthAsked(_) => return (self, used, Step::Authenticate),
                State::Skipping(_) => {
                    let (server, len, ended) = self.skip(&input[used..], out);
                    (self, used) = (server, used + len);
                    if !ended {
                        return (self, used, Step::NeedInput);
                    }
                    continue;
                }
                asked if asked.is_question() => panic!("a question was left without an answer"),
                _ => {}
            }
            if out.len() >= OUT_HIGH_WATER && used < input.len() {
                return (self, used, Step::Flush);
            }
            let in_exchange = matches!(self.state, State::AwaitResponse(_));
            let longest = if in_exchange { AUTH_LINE_MAX } else { COMMAND_LINE_ALLOWED };
            let (line, len) = self.session.next_line(&input[used..], longest);
            used += len;
            if matches!(line, Line::Partial) {
                return (self, used, Step::NeedInput);
            }
            let question;
            (self, question) = if in_exchange {
                (self.in_exchange(line, out), None)
            } else {
                self.took(line, used < input.len(), out)
            };
            if let Some(question) = question {
                return (self, used, Step::Ask(question));
            }
        }
    }

    /// Does what a line within an AUTH exchange says.
    fn in_exchange(self, line: Line<'_>, out: &mut Vec<u8>) -> Server {
        match line {
            Line::Whole(line) => self.response(line, out),
            Line::BareLf(_) => self.no_response(replies::BARE_LF, out),
            Line::TooLong(_) => self.no_response(replies::RESPONSE_TOO_LONG, out),
            Line::Endless => self.close(replies::ENDLESS_LINE, out),
            Line::Partial => self,
        }
    }

    /// Does what a line says; `more` has come behind it.
    #[inline]
    fn took<'a>(
        mut self,
        line: Line<'a>,
        more: bool,
        out: &mut Vec<u8>,
    ) -> (Server, Option<Question<'a>>) {
        let server = match line {
            Line::Whole(line) => match self.session.overdrawn(line, more) {
                None => return self.line(line, out),
                Some(text) => self.close(&text, out),
            },
            Line::BareLf(line) | Line::TooLong(line) if begins_chunk(line) => {
                self.close(replies::BAD_CHUNK, out)
            }
            Line::BareLf(_) => self.error(replies::BARE_LF, out),
            Line::TooLong(_) => self.error(replies::LINE_TOO_LONG, out),
            Line::Endless => self.close(replies::ENDLESS_LINE, out),
            Line::Partial => self,
        };
        (server, None)
    }

    /// Answers the question that the last step asked, or lets the end of an
    /// authentication be said.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn answer(mut self, verdict: Verdict, out: &mut Vec<u8>) -> Server {
        self.state = match (self.state, verdict) {
            (State::MailAsked(asked), Verdict::Accept) => {
                self.session.taken = 0;
                asked.accepted(out)
            }
            (State::RecipientAsked(asked), Verdict::Accept) => {
                self.session.taken += 1;
                asked.accepted(out)
            }
            (State::DataAsked(asked), Verdict::Accept) => asked.accepted(out),
            (State::ClaimsAsked(asked), Verdict::Accept) => {
                return Server { state: State::AwaitMail, ..self }.claims_accepted(asked, out);
            }
            (State::ChunkAsked(asked), Verdict::Accept) => asked.accepted(),
            (State::ChunkAsked(asked), Verdict::Refuse(reply)) => asked.refused(reply),
            (State::QueryAsked(asked), Verdict::Accept) => asked.accepted(out),
            (State::AuthAsked(asked), Verdict::Accept) => {
                return Server { state: State::AwaitMail, ..self }.auth_ended(asked, out);
            }
            (asked, Verdict::Refuse(reply)) => {
                return Server { state: asked.refused(), ..self }.refuse(&reply, out);
            }
            (asked, Verdict::Close(reply)) => {
                asked.refused();
                write_reply(&reply, out);
                State::Closed
            }
            (_, Verdict::Accept) => panic!("an answer to no question"),
        };
        self
    }

    /// Says what became of the message, after [`Step::Body`], or behind the octets of
    /// a [`Step::Chunk`] that was its last or is refused.
    ///
    /// # Panics
    ///
    /// If no message was awaited.
    pub fn body_done(mut self, verdict: BodyVerdict, out: &mut Vec<u8>) -> Server {
        let mut is_whole = true;
        self.state = match self.state {
            State::AwaitBody(_) => State::AwaitMail,
            State::AwaitChunk(chunk) => {
                is_whole = chunk.is_last();
                chunk.ended(&verdict)
            }
            _ => panic!("no message was awaited"),
        };
        self.conclude(&verdict, is_whole, out)
    }

    /// Ends the session since the client was silent for too long.
    pub fn timed_out(self, out: &mut Vec<u8>) -> Server {
        self.close(replies::TIMED_OUT, out)
    }

    /// Ends the session since the process ends.
    pub fn shutting_down(self, out: &mut Vec<u8>) -> Server {
        self.close(replies::SHUTTING_DOWN, out)
    }

    /// The transaction that is open: MAIL was accepted. While a recipient is in
    /// question it is not among the recipients.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.state.transaction()
    }

    /// Takes the transaction out, after [`Step::Body`] or the first
    /// [`Step::Chunk`]; recipients named twice are in it once.
    ///
    /// # Panics
    ///
    /// If no message is awaited.
    pub fn take_transaction(&mut self) -> Transaction {
        match &mut self.state {
            State::AwaitBody(transaction) => std::mem::take(&mut **transaction),
            State::AwaitChunk(chunk) => std::mem::take(&mut *chunk.transaction),
            _ => panic!("no message is awaited"),
        }
    }

    /// What the client called itself in EHLO or HELO; empty before that.
    pub fn helo(&self) -> &str {
        &self.session.helo
    }

    /// How the client speaks, in this transaction if there is one.
    pub fn protocol(&self) -> Protocol {
        match self.transaction() {
            Some(transaction) if transaction.smtputf8 && self.session.is_lmtp() => {
                Protocol::Utf8Lmtp
            }
            Some(transaction) if transaction.smtputf8 => Protocol::Utf8Smtp,
            _ if self.session.is_lmtp() => Protocol::Lmtp,
            _ if self.session.extended => Protocol::Esmtp,
            _ => Protocol::Smtp,
        }
    }

    /// True when the session ended because of too many errors.
    pub fn had_too_many_errors(&self) -> bool {
        self.session.errors >= self.session.settings.errors_max()
    }

    /// Counts since this was last called.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.session.tally)
    }

    /// A reply in the driver's words; refusals for good count as errors.
    fn refuse(mut self, reply: &Reply, out: &mut Vec<u8>) -> Server {
        if reply.is_permanent() {
            self.session.errors += 1;
            if self.had_too_many_errors() {
                return self.close(replies::TOO_MANY_ERRORS, out);
            }
        }
        write_reply(reply, out);
        self
    }

    /// A reply to a command that was wrong in form or order; `text` has its
    /// CRLF. The last one allowed is answered with 421 instead.
    fn error(mut self, text: &str, out: &mut Vec<u8>) -> Server {
        self.session.errors += 1;
        self.session.tally.errors += 1;
        if self.had_too_many_errors() {
            return self.close(replies::TOO_MANY_ERRORS, out);
        }
        out.extend_from_slice(text.as_bytes());
        self
    }

    fn close(mut self, text: &str, out: &mut Vec<u8>) -> Server {
        out.extend_from_slice(text.as_bytes());
        self.state = State::Closed;
        self
    }
}

const _: () = assert!(size_of::<Server>() <= 200);
const _: () = assert!(COMMAND_LINE_ALLOWED <= OUT_HIGH_WATER);
