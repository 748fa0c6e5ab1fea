//! What a server offers in its reply to EHLO (RFC 5321, section 4.1.1.1), as
//! far as a relay makes use of it, and what a message needs of it.

use std::fmt;

use super::group::By;
use crate::base::terms::ByMode;
use crate::base::{EnhancedCode, Mechanism, Mechanisms, Reply};

/// The extensions a server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): the largest message in octets, 0 for no fixed limit.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// AUTH (RFC 4954): the mechanisms.
    pub auth: Mechanisms,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// DELIVERBY (RFC 2852): the least time in seconds that may be set, 0 for any.
    pub deliver_by: Option<u32>,
    /// MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// REQUIRETLS (RFC 8689), over TLS.
    pub require_tls: bool,
    /// No keyword: we have authenticated to it.
    pub knows_us: bool,
    /// LIMITS (RFC 9422).
    pub limits: Limits,
}

/// What LIMITS says (RFC 9422); `None` where it says nothing. Never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// MAILMAX: transactions in a session.
    pub mails: Option<u32>,
    /// RCPTMAX: recipients in a transaction.
    pub recipients: Option<u32>,
    /// RCPTDOMAINMAX: domains of recipients in a transaction.
    pub domains: Option<u32>,
}

impl Limits {
    /// Takes note of one `NAME=VALUE`. What is not understood is as if it had not
    /// been said (RFC 9422, section 3).
    fn learn(&mut self, word: &[u8]) {
        let Some((name, value)) = std::str::from_utf8(word).ok().and_then(|w| w.split_once('='))
        else {
            return;
        };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let Some(value) = value.parse().ok().filter(|value| digits && *value > 0) else { return };
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mails = Some(value),
            "RCPTMAX" => self.recipients = Some(value),
            "RCPTDOMAINMAX" => self.domains = Some(value),
            _ => {}
        }
    }

    /// How many of `recipients`, the first ones, go into one transaction: one at
    /// least.
    pub fn fitting<'a>(&self, recipients: impl IntoIterator<Item = &'a str>) -> usize {
        let most = self.recipients.map_or(usize::MAX, |most| most as usize);
        let mut domains: Vec<&str> = Vec::new();
        let mut count = 0;
        for address in recipients {
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            let known = domains.iter().any(|known| known.eq_ignore_ascii_case(domain));
            let has_room = self.domains.is_none_or(|most| domains.len() < most as usize);
            if count == most || (!known && !has_room) {
                break;
            }
            // Without a limit for them they need not be remembered.
            if !known && self.domains.is_some() {
                domains.push(domain);
            }
            count += 1;
        }
        count
    }
}

impl Offer {
    /// Takes note of one line of the reply to EHLO, the first one excepted.
    pub fn learn(&mut self, line: &[u8]) {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        let flag = match keyword.to_ascii_uppercase().as_slice() {
            b"PIPELINING" => &mut self.pipelining,
            b"8BITMIME" => &mut self.eight_bit_mime,
            b"SMTPUTF8" => &mut self.smtputf8,
            b"DSN" => &mut self.dsn,
            b"STARTTLS" => &mut self.starttls,
            b"CHUNKING" => &mut self.chunking,
            b"BINARYMIME" => &mut self.binary_mime,
            b"REQUIRETLS" => &mut self.require_tls,
            b"MT-PRIORITY" => &mut self.mt_priority,
            b"SIZE" => {
                self.size = Some(number(words.next()).unwrap_or(0));
                return;
            }
            b"DELIVERBY" => {
                // What follows a comma is for extensions of the extension.
                let least = words.next().and_then(|word| word.split(|byte| *byte == b',').next());
                let least = number(least).unwrap_or(0);
                self.deliver_by = Some(u32::try_from(least).unwrap_or(u32::MAX));
                return;
            }
            b"AUTH" => {
                let known = words.filter_map(Mechanism::parse);
                self.auth = known.fold(self.auth, Mechanisms::with);
                return;
            }
            b"LIMITS" => return words.for_each(|word| self.limits.learn(word)),
            _ => return,
        };
        *flag = true;
    }

    /// Holds what a message needs against the offer.
    ///
    /// # Errors
    /// The server cannot take the message, now or ever.
    pub fn admits(&self, transaction: &super::Transaction<'_>) -> Result<(), Unsupported> {
        if transaction.smtputf8 && !self.smtputf8 {
            return Err(Unsupported::Utf8);
        }
        if transaction.binary && !(self.binary_mime && self.chunking) {
            return Err(Unsupported::Binary);
        }
        if transaction.eight_bit && !transaction.binary && !self.eight_bit_mime {
            return Err(Unsupported::EightBit);
        }
        // What has no sender goes out all the same: it would be lost (RFC 8689, section 5).
        if transaction.require_tls && !self.require_tls && !transaction.sender.is_empty() {
            return Err(Unsupported::RequireTls);
        }
        self.admits_time(transaction.by)?;
        match self.size {
            Some(max) if max > 0 && transaction.size > max => Err(Unsupported::Size { max }),
            _ => Ok(()),
        }
    }
}

impl Offer {
    /// What is to come back in time may only go where that is seen to (RFC 2852,
    /// 4.1.4).
    fn admits_time(&self, by: Option<By>) -> Result<(), Unsupported> {
        let Some(By { seconds, .. }) = by.filter(|by| by.mode == ByMode::Return) else {
            return Ok(());
        };
        if seconds <= 0 {
            return Err(Unsupported::TimeIsUp);
        }
        match self.deliver_by {
            None => Err(Unsupported::DeliverBy),
            Some(least) if seconds < i64::from(least) => Err(Unsupported::TooShort { least }),
            Some(_) => Ok(()),
        }
    }
}

fn number(word: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(word?).ok()?.parse().ok()
}

/// Why a message cannot be given to a server. All are permanent: nothing is
/// converted on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// An eight-bit body, and no 8BITMIME.
    EightBit,
    /// A body that only BDAT can carry, and no BINARYMIME.
    Binary,
    /// Internationalised addresses or headers, and no SMTPUTF8.
    Utf8,
    /// Larger than the SIZE the server gives.
    Size {
        /// That size, in octets.
        max: u64,
    },
    /// An address that cannot be written in a command.
    Address,
    /// Only for servers that see to TLS, and no REQUIRETLS.
    RequireTls,
    /// To be returned when its time is up, and no DELIVERBY.
    DeliverBy,
    /// Less of its time is left than the server gives for DELIVERBY.
    TooShort {
        /// The least time, in seconds.
        least: u32,
    },
    /// Its time is up.
    TimeIsUp,
}

impl Unsupported {
    /// As the reply that a server would have given.
    pub fn reply(self) -> Reply {
        let (code, enhanced) = match self {
            Unsupported::EightBit | Unsupported::Binary => (554, EnhancedCode(5, 6, 3)),
            Unsupported::Utf8 => (553, EnhancedCode(5, 6, 7)),
            Unsupported::Size { .. } => (552, EnhancedCode(5, 3, 4)),
            Unsupported::Address => (553, EnhancedCode(5, 1, 3)),
            Unsupported::RequireTls => (550, EnhancedCode(5, 7, 30)),
            Unsupported::DeliverBy | Unsupported::TooShort { .. } | Unsupported::TimeIsUp => {
                (554, EnhancedCode(5, 4, 7))
            }
        };
        Reply::new(code, enhanced, self.to_string())
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsupported::EightBit => {
                f.write_str("the body has 8-bit octets and the next hop does not offer 8BITMIME")
            }
            Unsupported::Binary => {
                f.write_str("the body is binary and the next hop does not offer BINARYMIME")
            }
            Unsupported::Utf8 => f.write_str(
                "addresses or headers are internationalised and the next hop does not offer \
                 SMTPUTF8",
            ),
            Unsupported::Size { max } => {
                write!(f, "the message is larger than the {max} octets that the next hop takes")
            }
            Unsupported::Address => f.write_str("an address holds control characters"),
            Unsupported::RequireTls => f.write_str(
                "the sender requires TLS all the way and the next hop does not offer REQUIRETLS",
            ),
            Unsupported::DeliverBy => f.write_str(
                "the sender wants the message back if it is not delivered in time, and the next \
                 hop does not offer DELIVERBY",
            ),
            Unsupported::TooShort { least } => write!(
                f,
                "less of the time that the sender has set is left than the {least} seconds that \
                 the next hop needs"
            ),
            Unsupported::TimeIsUp => f.write_str("the time that the sender has set is up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::smtp::client::Transaction;

    #[test]
    fn keywords_in_any_case_and_sizes_of_any_kind() {
        let mut offer = Offer::default();
        for line in
            [&b"pipelining"[..], b"SIZE 1000", b"8BitMime", b"", b"XFOO bar", b"SMTPUTF8 x", b"dsn"]
        {
            offer.learn(line);
        }
        for line in ["DeliverBy 240,more", "mt-priority MIXER"] {
            offer.learn(line.as_bytes());
        }
        for line in [&b"StartTLS"[..], b"AUTH login X-OAUTH PLAIN", b"auth SCRAM-SHA-256"] {
            offer.learn(line);
        }
        for line in [&b"chunking"[..], b"BINARYMIME", b"REQUIRETLS", b"LIMITS RCPTMAX=7"] {
            offer.learn(line);
        }
        let auth = Mechanisms::NONE.with(Mechanism::Login).with(Mechanism::Plain);
        let all = Offer {
            pipelining: true,
            size: Some(1000),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            deliver_by: Some(240),
            mt_priority: true,
            starttls: true,
            auth: auth.with(Mechanism::ScramSha256),
            chunking: true,
            binary_mime: true,
            require_tls: true,
            knows_us: false,
            limits: Limits { recipients: Some(7), ..Limits::default() },
        };
        assert_eq!(offer, all);
        for unlimited in [&b"SIZE"[..], b"SIZE 0", b"SIZE many"] {
            offer.learn(unlimited);
            assert_eq!(offer.size, Some(0));
        }
        for (line, least) in [("DELIVERBY", 0), ("DELIVERBY ,x", 0), ("DELIVERBY 1e9", 0)] {
            offer.learn(line.as_bytes());
            assert_eq!(offer.deliver_by, Some(least));
        }
        offer.learn(b"DELIVERBY 99999999999");
        assert_eq!(offer.deliver_by, Some(u32::MAX));
    }

    #[test]
    fn what_a_message_cannot_do_without_is_held_against_the_offer() {
        let by = |seconds, mode| Some(By { seconds, mode, trace: false });
        let needs = |change: fn(&mut Transaction<'_>)| {
            let mut transaction = Transaction::default();
            change(&mut transaction);
            transaction
        };
        let binary = needs(|t| t.binary = true);
        let tls = needs(|t| (t.require_tls, t.sender) = (true, "a@b"));
        let report = needs(|t| t.require_tls = true);
        let back =
            |seconds| Transaction { by: by(seconds, ByMode::Return), ..Transaction::default() };
        let told = Transaction { by: by(-9, ByMode::Notify), ..Transaction::default() };
        let none = Offer::default();
        let all = Offer {
            chunking: true,
            binary_mime: true,
            deliver_by: Some(60),
            require_tls: true,
            ..none
        };
        for (transaction, without, with) in [
            (binary, Some(Unsupported::Binary), None),
            (tls, Some(Unsupported::RequireTls), None),
            (report, None, None),
            (back(60), Some(Unsupported::DeliverBy), None),
            (back(59), Some(Unsupported::DeliverBy), Some(Unsupported::TooShort { least: 60 })),
            (back(0), Some(Unsupported::TimeIsUp), Some(Unsupported::TimeIsUp)),
            (told, None, None),
        ] {
            assert_eq!(none.admits(&transaction).err(), without, "{transaction:?}");
            assert_eq!(all.admits(&transaction).err(), with, "{transaction:?}");
        }
        let half = Offer { binary_mime: true, ..none };
        assert_eq!(half.admits(&binary), Err(Unsupported::Binary), "it goes by BDAT only");
        assert_eq!(Unsupported::RequireTls.reply().enhanced, Some(EnhancedCode(5, 7, 30)));
        assert_eq!(Unsupported::TimeIsUp.reply().enhanced, Some(EnhancedCode(5, 4, 7)));
    }

    #[test]
    fn limits_are_read_as_far_as_they_make_sense() {
        let mut offer = Offer::default();
        offer.learn(b"LIMITS mailmax=3 RCPTMAX=0 RCPTDOMAINMAX=+2 RCPTMAX X=Y RCPTDOMAINMAX=2 A=");
        let limits = Limits { mails: Some(3), recipients: None, domains: Some(2) };
        assert_eq!(offer.limits, limits);
        offer.learn(b"LIMITS RCPTMAX=99999999999 MAILMAX=");
        assert_eq!(offer.limits, limits);
    }

    #[test]
    fn recipients_are_cut_where_a_limit_is_reached() {
        let all = ["a@x", "b@X", "c@y", "d@x", "e@z"];
        let fitting =
            |recipients, domains| Limits { mails: None, recipients, domains }.fitting(all);
        assert_eq!(fitting(None, None), 5);
        assert_eq!(fitting(Some(3), None), 3);
        assert_eq!(fitting(None, Some(1)), 2);
        assert_eq!(fitting(None, Some(2)), 4);
        assert_eq!(fitting(Some(9), Some(9)), 5);
        assert_eq!(fitting(Some(1), Some(1)), 1);
    }
}
