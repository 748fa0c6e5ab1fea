//! The result of one delivery attempt for one recipient: one record for every
//! cause, from the peer's refusal to an operator's `drop`, with what a report
//! (RFC 3464), the log and `queue show` need to say about it.

use std::fmt;

use crate::base::clock::UnixMillis;

/// An enhanced status code (RFC 3463): class.subject.detail.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A reply: the peer's, or our own words where no peer spoke.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Reply {
    /// Three-digit code (RFC 5321, section 4.2); for our own words the code a
    /// server would have given (4xx or 5xx).
    pub code: u16,
    /// Enhanced status code, the peer's where it gave one.
    pub enhanced: Option<EnhancedCode>,
    /// Text, lines joined by a space, control characters replaced, bounded.
    pub text: String,
}

impl Reply {
    /// A reply in our own words.
    pub fn new(code: u16, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        Reply { code, enhanced: Some(enhanced), text: text.into() }
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.code)?;
        if let Some(code) = self.enhanced {
            write!(f, " {code}")?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", self.text)?;
        }
        Ok(())
    }
}

/// What became of a recipient.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub enum Disposition {
    /// The next hop took responsibility.
    Delivered,
    /// Tried, to be tried again.
    Deferred,
    /// Refused for good; a report is durable (or none is due).
    Failed,
    /// Given up after `queue.expire`; a report is durable (or none is due).
    Expired,
    /// Removed by an operator.
    Dropped,
}

impl Disposition {
    /// True when nothing is left to do for the recipient.
    pub fn is_final(self) -> bool {
        self != Disposition::Deferred
    }

    /// Lower-case word for logs, JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Disposition::Delivered => "delivered",
            Disposition::Deferred => "deferred",
            Disposition::Failed => "failed",
            Disposition::Expired => "expired",
            Disposition::Dropped => "dropped",
        }
    }
}

/// Whether the connection that an outcome comes from had TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// It had none.
    Plain,
    /// It had.
    Tls {
        /// The version: `TLS1.3`.
        version: &'static str,
        /// The certificate was one for the host, from a trusted authority.
        is_verified: bool,
    },
}

/// What an attempt did for one recipient of one message. Logged where the
/// message lives, durable within 10 ms, as an rkyv archive: a change of the
/// fields is a new format version of the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Outcome {
    /// Index into the envelope's recipients.
    pub recipient: u16,
    /// What became of it.
    pub disposition: Disposition,
    /// The last word about it.
    pub reply: Reply,
    /// Who gave that word: `host:port` of the next hop; empty if it was us.
    pub host: String,
    /// When.
    pub at: UnixMillis,
    /// Attempts so far, this one included.
    pub attempts: u16,
    /// When to try again; meaningful for [`Disposition::Deferred`] only.
    pub next_attempt: UnixMillis,
    /// What secured the connection, if there was one. For the log of the moment: it is
    /// no part of the archive.
    #[rkyv(with = rkyv::with::Skip)]
    pub security: Option<Security>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_reads_like_a_reply() {
        let reply = Reply::new(550, EnhancedCode(5, 1, 1), "no such user");
        assert_eq!(reply.to_string(), "550 5.1.1 no such user");
        assert!(reply.is_permanent() && !reply.is_positive());
    }
}
