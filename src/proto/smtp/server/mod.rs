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
//!      size always makes progress.
//!    * [`Step::Flush`]: write the out buffer, then step again: the input holds
//!      more commands, and their replies are bounded by this.
//!    * [`Step::Ask`]: decide and [`answer`](Server::answer), then step again.
//!      No command behind the one in question is looked at before.
//!    * [`Step::Body`]: write the out buffer (it ends with 354), then find the
//!      end of the message with [`Scanner`](crate::proto::scan::Scanner), from
//!      the unread input on; store it with [`Server::take_transaction`]; say
//!      [`body_done`](Server::body_done); step again.
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
//! * Nothing of the input is kept but the client's name and the addresses of
//!   the transaction with what was asked about reports, each bounded.
//! * Extensions (RFC 1870, 2034, 2920, 3461, 6152, 6531) hold after EHLO only.

mod lines;
mod replies;
mod settings;
mod states;
#[cfg(test)]
mod tests;
mod transaction;

use std::sync::Arc;

use crate::base::limits::COMMAND_LINE_ALLOWED;
use crate::base::{BodyType, Protocol, QueueId, Reply};
use crate::proto::address::Address;
use lines::Line;
use states::State;

pub use replies::write_reply;
pub use settings::Settings;
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
    /// Write what is in the out buffer; what follows in the input is a message.
    Body,
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
    },
    /// May the message go to this recipient?
    Recipient(Address<'a>),
    /// May the body be sent? Asked once there is a recipient.
    Data,
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
    /// Errors since the last message was queued.
    errors: u32,
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
            errors: 0,
            skipped: 0,
            tally: Tally::default(),
        };
        Server { session, state: State::AwaitHello }
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
            match self.state {
                State::AwaitBody(_) => return (self, used, Step::Body),
                State::Closed => return (self, used, Step::Close),
                State::MailAsked(_) | State::RecipientAsked(_) | State::DataAsked(_) => {
                    panic!("a question was left without an answer")
                }
                State::AwaitHello | State::AwaitMail | State::Open(_) => {}
            }
            if out.len() >= OUT_HIGH_WATER && used < input.len() {
                return (self, used, Step::Flush);
            }
            let (line, len) = self.session.next_line(&input[used..]);
            used += len;
            let question = match line {
                Line::Partial => return (self, used, Step::NeedInput),
                Line::Whole(line) => {
                    let question;
                    (self, question) = self.line(line, out);
                    question
                }
                Line::BareLf => {
                    self = self.error(replies::BARE_LF, out);
                    None
                }
                Line::TooLong => {
                    self = self.error(replies::LINE_TOO_LONG, out);
                    None
                }
                Line::Endless => {
                    self = self.close(replies::ENDLESS_LINE, out);
                    None
                }
            };
            if let Some(question) = question {
                return (self, used, Step::Ask(question));
            }
        }
    }

    /// Answers the question that the last step asked.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn answer(mut self, verdict: Verdict, out: &mut Vec<u8>) -> Server {
        self.state = match (self.state, verdict) {
            (State::MailAsked(asked), Verdict::Accept) => asked.accepted(out),
            (State::RecipientAsked(asked), Verdict::Accept) => asked.accepted(out),
            (State::DataAsked(asked), Verdict::Accept) => asked.accepted(out),
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

    /// Says what became of the message, after [`Step::Body`].
    ///
    /// # Panics
    ///
    /// If no message was awaited.
    pub fn body_done(mut self, verdict: BodyVerdict, out: &mut Vec<u8>) -> Server {
        assert!(matches!(self.state, State::AwaitBody(_)), "no message was awaited");
        self.state = State::AwaitMail;
        match verdict {
            BodyVerdict::Queued(id) => {
                self.session.errors = 0;
                replies::queued(id, out);
                self
            }
            BodyVerdict::Refuse(reply) => self.refuse(&reply, out),
            BodyVerdict::Close(reply) => {
                write_reply(&reply, out);
                self.state = State::Closed;
                self
            }
        }
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

    /// Takes the transaction out, after [`Step::Body`]; recipients named twice
    /// are in it once.
    ///
    /// # Panics
    ///
    /// If no message is awaited.
    pub fn take_transaction(&mut self) -> Transaction {
        match &mut self.state {
            State::AwaitBody(transaction) => std::mem::take(&mut **transaction),
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
            Some(transaction) if transaction.smtputf8 => Protocol::Utf8Smtp,
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
