//! The envelope of a message (RFC 5321, section 2.3.1) as it is queued, and a
//! message held in memory for its first attempt.

use std::sync::Arc;

use crate::base::clock::UnixMillis;
use crate::base::dsn::{Dsn, Notify, RecipientDsn};
use crate::base::terms::Terms;

/// What the sender declared about the body (RFC 6152).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub enum BodyType {
    /// No BODY parameter, or `BODY=7BIT`.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// How a message came in, for the WITH clause of `Received:` (RFC 5321, 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
    /// EHLO, and MAIL with SMTPUTF8 (RFC 6531, 4.3).
    Utf8Smtp,
    /// LHLO.
    Lmtp,
    /// LHLO, and MAIL with SMTPUTF8 (RFC 6531, 4.3).
    Utf8Lmtp,
}

impl Protocol {
    /// The registered keyword (RFC 3848).
    pub fn keyword(self) -> &'static str {
        match self {
            Protocol::Smtp => "SMTP",
            Protocol::Esmtp => "ESMTP",
            Protocol::Utf8Smtp => "UTF8SMTP",
            Protocol::Lmtp => "LMTP",
            Protocol::Utf8Lmtp => "UTF8LMTP",
        }
    }
}

/// Who sent a message, to whom, and how it came in. Stored once, at the head of
/// the message's first record, as an rkyv archive; what few messages have is not
/// part of that archive but follows it (`queue::record`).
#[derive(
    Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Envelope {
    /// Reverse-path without angle brackets; empty for the null sender.
    pub sender: String,
    /// Forward-paths without angle brackets, in the order of the RCPT commands.
    /// An outcome names a recipient by its index here.
    pub recipients: Vec<String>,
    /// When DATA ended, in milliseconds since the epoch.
    pub arrival_ms: u64,
    /// BODY parameter of MAIL.
    pub body_type: BodyType,
    /// SMTPUTF8 parameter of MAIL (RFC 6531).
    pub smtputf8: bool,
    /// Address of the client, as text; empty for mail made here (reports).
    pub client: String,
    /// What the client said in EHLO or HELO.
    pub helo: String,
    /// What the sender asked about reports (RFC 3461), if anything.
    #[rkyv(with = rkyv::with::Skip)]
    pub dsn: Option<Box<Dsn>>,
    /// What else few messages have, if anything.
    #[rkyv(with = rkyv::with::Skip)]
    pub terms: Option<Box<Terms>>,
}

impl Envelope {
    /// When the message was accepted.
    pub fn arrival(&self) -> UnixMillis {
        UnixMillis(self.arrival_ms)
    }

    /// What the sender asked about reports on the recipient with this index, if
    /// anything.
    pub fn recipient_dsn(&self, index: usize) -> Option<&RecipientDsn> {
        self.dsn.as_ref()?.recipients.get(index)
    }

    /// When a report about that recipient is wanted.
    pub fn notify(&self, index: usize) -> Notify {
        self.recipient_dsn(index).and_then(|asked| asked.notify).unwrap_or(Notify::ABSENT)
    }
}

/// A whole message that is still in memory after its commit, shared by the
/// attempts for its recipients, on whichever core they run.
#[derive(Debug)]
pub struct Mail {
    /// The envelope, as queued.
    pub envelope: Envelope,
    /// The body as stored: wire form, dot-stuffed, `Received:` first, and the
    /// terminating `.CRLF` last, so that DATA sends it as it lies.
    pub body: Box<[u8]>,
}

/// A message shared between attempts.
pub type SharedMail = Arc<Mail>;
