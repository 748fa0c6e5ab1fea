//! Where a connection is, what the client found last, and why it can be of no
//! more use; with the words and time-outs that belong to them.

use std::time::Duration;

use crate::base::limits::client_timeout;
use crate::proto::smtp::reply::Malformed;

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
    /// The server awaits the body of the transaction begun first, or the next
    /// chunk of it.
    SendBody,
    /// LMTP: [`Client::reply`] is what became of the message for a recipient.
    Verdict {
        /// Its index among those given to [`Client::begin`].
        recipient: usize,
    },
    /// That transaction is over: [`Client::reply`] holds for each recipient
    /// that was not refused by itself.
    Finished,
    /// The server is ready for the handshake: nothing that it sends is to be
    /// given to [`Client::step`] before [`Client::secured`].
    Handshake,
    /// The server does not want TLS after all, as [`Client::reply`] says.
    NoTls,
    /// AUTH goes on with a line to this text: [`Client::challenge`].
    Challenge,
    /// AUTH has succeeded, as the server says.
    Authenticated,
    /// AUTH was refused with [`Client::reply`].
    NotAuthenticated,
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
    /// Something followed the reply to STARTTLS in the clear: it may be anybody's.
    Injected,
    /// AUTH has more steps than any mechanism.
    EndlessChallenges,
    /// The server does not know BDAT, which it offers; see [`Client::denies_chunks`].
    NoChunks,
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
            End::Injected => "sent something behind its reply to STARTTLS, in the clear",
            End::EndlessChallenges => "sent one challenge after the other",
            End::NoChunks => "does not know BDAT, which it offers,",
            End::Malformed(what) => what.text(),
        }
    }
}

/// The reply that a connection waits for, or the step it stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The greeting.
    Greeting,
    /// The reply to EHLO or LHLO.
    Ehlo,
    /// The reply to HELO, EHLO having been refused.
    Helo,
    /// The reply to STARTTLS.
    StartTls,
    /// The driver, which makes the handshake.
    Handshake,
    /// The reply to AUTH or to a line of it.
    Auth,
    /// The driver, which answers a challenge.
    Challenge,
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
    /// The reply to a chunk that is not the last.
    Chunk,
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
            Phase::StartTls | Phase::Handshake => client_timeout::HANDSHAKE,
            Phase::Auth | Phase::Challenge => client_timeout::AUTH,
            Phase::Mail | Phase::Reset | Phase::Idle => client_timeout::MAIL,
            Phase::Recipient => client_timeout::RCPT,
            Phase::Data => client_timeout::DATA_INIT,
            Phase::Body => client_timeout::DATA_BLOCK,
            Phase::Chunk | Phase::Dot => client_timeout::DATA_DONE,
            Phase::Quit => client_timeout::QUIT,
        }
    }

    /// In words: "waiting for ..." or the like.
    pub fn text(self) -> &'static str {
        match self {
            Phase::Greeting => "waiting for the greeting",
            Phase::Ehlo => "waiting for the reply to EHLO",
            Phase::Helo => "waiting for the reply to HELO",
            Phase::StartTls => "waiting for the reply to STARTTLS",
            Phase::Handshake => "in the TLS handshake",
            Phase::Auth | Phase::Challenge => "authenticating",
            Phase::Idle => "idle",
            Phase::Reset => "waiting for the reply to RSET",
            Phase::Mail => "waiting for the reply to MAIL",
            Phase::Recipient => "waiting for the reply to RCPT",
            Phase::Data => "waiting for the reply to DATA",
            Phase::Body | Phase::Chunk => "sending the message",
            Phase::Dot => "waiting for the reply to the end of the message",
            Phase::Quit => "waiting for the reply to QUIT",
        }
    }
}
