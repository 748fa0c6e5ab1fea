//! What all sessions of a listener have in common: limits, what is offered, and
//! the replies that name the host.

use std::time::Duration;

use super::proxying;
use crate::base::{Mechanism, Mechanisms, UnixMillis};
use crate::proto::address::Address;

/// What is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// SMTP between servers (RFC 5321).
    #[default]
    Relay,
    /// Message submission (RFC 6409).
    Submission,
    /// LMTP (RFC 2033).
    Lmtp,
}

/// Extensions that are offered in the reply to EHLO, beside SIZE (RFC 1870) and
/// ENHANCEDSTATUSCODES (RFC 2034), which always are. What is not offered is
/// refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offers {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207), in the clear.
    pub starttls: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030); nothing without CHUNKING.
    pub binarymime: bool,
    /// DELIVERBY (RFC 2852).
    pub deliver_by: bool,
    /// FUTURERELEASE (RFC 4865), for [`Kind::Submission`] alone: the longest hold, in
    /// seconds.
    pub future_release: Option<u32>,
    /// MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// REQUIRETLS (RFC 8689), over TLS.
    pub requiretls: bool,
    /// LIMITS (RFC 9422).
    pub limits: bool,
    /// ETRN (RFC 1985), to clients that may relay, where mail is not submitted.
    pub etrn: bool,
    /// VRFY, with answers by policy.
    pub vrfy: bool,
    /// EXPN.
    pub expn: bool,
    /// AUTH (RFC 4954), with these mechanisms as far as a connection has what
    /// they need; TLS first of all.
    pub auth: Mechanisms,
}

impl Default for Offers {
    /// All that harms nobody.
    fn default() -> Self {
        Offers {
            pipelining: true,
            eight_bit: true,
            smtputf8: true,
            dsn: true,
            starttls: false,
            chunking: true,
            binarymime: true,
            deliver_by: true,
            future_release: Some(30 * 24 * 3600),
            mt_priority: true,
            requiretls: true,
            limits: true,
            etrn: true,
            vrfy: false,
            expn: false,
            auth: Mechanisms::NONE,
        }
    }
}

/// What the reply to EHLO depends on beside the listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// The session is over TLS.
    pub(super) secured: bool,
    /// The client may relay.
    pub(super) trusted: bool,
    /// When the session began.
    pub(super) begun: UnixMillis,
    /// What the client may authenticate with.
    pub(super) mechanisms: Mechanisms,
    /// TLS can begin.
    pub(super) starttls: bool,
    /// The client may send XCLIENT.
    pub(super) xclient: bool,
    /// The client may send XFORWARD.
    pub(super) xforward: bool,
}

/// Limits and name of a server, and what it offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What the server calls itself.
    pub hostname: String,
    /// What is served.
    pub kind: Kind,
    /// Most octets in a message.
    pub message_size: u64,
    /// Most recipients in a transaction.
    pub recipients_max: u32,
    /// The number of the error that ends a session.
    pub errors_max: u32,
    /// Nothing is done in the clear but to ask for TLS.
    pub tls_required: bool,
    /// Commands without mail that end a session, less one.
    pub idle_commands_max: u32,
    /// Who sends commands ahead of a reply that must be waited for is ended.
    pub strict: bool,
    /// The extensions.
    pub offers: Offers,
}

impl Default for Spec {
    /// `localhost`, which serves [`Kind::Relay`] within the default limits.
    fn default() -> Self {
        Spec {
            hostname: "localhost".into(),
            kind: Kind::default(),
            message_size: 50 << 20,
            recipients_max: 1000,
            errors_max: 20,
            tls_required: false,
            idle_commands_max: 10_000,
            strict: false,
            offers: Offers::default(),
        }
    }
}

/// A [`Spec`] with what follows from it, made once; shared by the sessions of a
/// listener.
#[derive(Debug)]
pub struct Settings {
    spec: Spec,
    greeting: Box<[u8]>,
    helo: Box<[u8]>,
}

impl Settings {
    /// The settings of the server that `spec` describes.
    pub fn new(mut spec: Spec) -> Settings {
        // RFC 6531, 3.1: together only.
        spec.offers.smtputf8 &= spec.offers.eight_bit;
        let hostname = &spec.hostname;
        let protocol = if spec.kind == Kind::Lmtp { "LMTP" } else { "ESMTP" };
        debug_assert!(Address::parse(&format!("postmaster@{hostname}")).is_ok());
        Settings {
            greeting: format!("220 {hostname} {protocol} ringpost\r\n").into_bytes().into(),
            helo: format!("250 {hostname}\r\n").into_bytes().into(),
            spec,
        }
    }

    /// The name of the host.
    pub fn hostname(&self) -> &str {
        &self.spec.hostname
    }

    /// What is served.
    pub fn kind(&self) -> Kind {
        self.spec.kind
    }

    /// What is offered.
    pub fn offers(&self) -> &Offers {
        &self.spec.offers
    }

    /// Most octets in a message.
    pub fn message_size(&self) -> u64 {
        self.spec.message_size
    }

    /// Most recipients in a transaction.
    pub fn recipients_max(&self) -> usize {
        self.spec.recipients_max as usize
    }

    /// The number of the error that ends a session.
    pub fn errors_max(&self) -> u32 {
        self.spec.errors_max
    }

    /// The longest hold, in seconds, where mail is held. RFC 4865, 4.2: that must not
    /// be offered but where mail is submitted.
    pub(super) fn future_release(&self) -> Option<u32> {
        self.offers().future_release.filter(|_| self.kind() == Kind::Submission)
    }

    /// Whether ETRN is served. RFC 6409, 7: not where mail is submitted.
    pub(super) fn has_etrn(&self) -> bool {
        self.offers().etrn && self.kind() != Kind::Submission
    }

    pub(super) fn tls_required(&self) -> bool {
        self.spec.tls_required
    }

    pub(super) fn idle_commands_max(&self) -> u32 {
        self.spec.idle_commands_max
    }

    pub(super) fn is_strict(&self) -> bool {
        self.spec.strict
    }

    pub(super) fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// Appends the reply to HELO.
    pub(super) fn write_helo(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.helo);
    }

    /// Appends the reply to EHLO.
    pub(super) fn write_ehlo(&self, standing: &Standing, out: &mut Vec<u8>) {
        let mut line = |text: &[u8]| {
            out.extend_from_slice(b"250-");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        };
        let offers = self.offers();
        line(self.hostname().as_bytes());
        if offers.pipelining {
            line(b"PIPELINING");
        }
        line(format!("SIZE {}", self.message_size()).as_bytes());
        let extensions: [(bool, &[u8]); 12] = [
            (standing.starttls, b"STARTTLS"),
            (offers.eight_bit, b"8BITMIME"),
            (offers.smtputf8, b"SMTPUTF8"),
            (offers.dsn, b"DSN"),
            (offers.chunking, b"CHUNKING"),
            (offers.chunking && offers.binarymime, b"BINARYMIME"),
            (offers.deliver_by, b"DELIVERBY"),
            (offers.mt_priority, b"MT-PRIORITY"),
            (offers.requiretls && standing.secured, b"REQUIRETLS"),
            (self.has_etrn() && standing.trusted, b"ETRN"),
            (offers.vrfy, b"VRFY"),
            (offers.expn, b"EXPN"),
        ];
        for (_, keyword) in extensions.iter().filter(|(is_offered, _)| *is_offered) {
            line(keyword);
        }
        if let Some(longest) = self.future_release() {
            // A session that lasts may ask for more than it was told.
            let until = standing.begun.plus(Duration::from_secs(u64::from(longest)));
            let until = UnixMillis(until.as_secs() * 1000).to_string().replace(".000", "");
            line(format!("FUTURERELEASE {longest} {until}").as_bytes());
        }
        if offers.limits {
            line(format!("LIMITS RCPTMAX={}", self.recipients_max()).as_bytes());
        }
        if !standing.mechanisms.is_empty() {
            let names: Vec<&str> = standing.mechanisms.iter().map(Mechanism::name).collect();
            line(format!("AUTH {}", names.join(" ")).as_bytes());
        }
        line(b"ENHANCEDSTATUSCODES");
        if standing.xclient {
            line(proxying::XCLIENT);
        }
        if standing.xforward {
            line(proxying::XFORWARD);
        }
        out.extend_from_slice(b"250 HELP\r\n");
    }
}
