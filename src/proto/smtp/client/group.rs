//! MAIL and RCPT as the client writes them: with the parameters that the server
//! offers, and no others. What a message cannot do without is held against the
//! offer before; what is written here beyond that is a courtesy.

use super::offer::Offer;
use crate::base::dsn::{Notify, RecipientDsn, Ret, escape_utf8};
use crate::base::limits::ORCPT_MAX;
use crate::base::terms::{ByMode, DeliverBy};
use crate::base::xtext;
use crate::base::{BodyType, Envelope, UnixMillis};

/// Greatest number of a by-time: nine digits (RFC 2852, section 4).
const BY_MAX: i64 = 999_999_999;
/// Longest value of AUTH (RFC 4954, section 5).
const AUTH_MAX: usize = 500;

/// What MAIL says about a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transaction<'a> {
    /// Reverse-path without angle brackets; empty for the null sender.
    pub sender: &'a str,
    /// Size of the body in octets; 0 when it is not known.
    pub size: u64,
    /// True when the body has octets above 127.
    pub eight_bit: bool,
    /// True when the body has no lines that DATA could carry: it goes in chunks.
    pub binary: bool,
    /// True when the body goes in chunks (RFC 3030).
    pub chunked: bool,
    /// True when addresses or headers need SMTPUTF8.
    pub smtputf8: bool,
    /// RET, if the sender gave it.
    pub ret: Option<Ret>,
    /// ENVID as the sender gave it, encoded.
    pub envid: Option<&'a str>,
    /// BY.
    pub by: Option<By>,
    /// MT-PRIORITY; 0 is what holds without.
    pub priority: i8,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// AUTH: the mailbox of who submitted the message; empty for `<>`.
    pub auth: Option<&'a str>,
}

/// What is left of the time that the sender of a message has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// Seconds that are left; not positive when it is up.
    pub seconds: i64,
    /// What is done then.
    pub mode: ByMode,
    /// Each relay on the way is to be reported.
    pub trace: bool,
}

impl By {
    /// What is left at `now`.
    pub fn at(by: DeliverBy, now: UnixMillis) -> Self {
        let left_ms = i128::from(by.at_ms) - i128::from(now.0);
        // The last second counts.
        let seconds = if left_ms > 0 { (left_ms / 1000).max(1) } else { left_ms / 1000 };
        let seconds = seconds.clamp(-i128::from(BY_MAX), i128::from(BY_MAX)) as i64;
        By { seconds, mode: by.mode, trace: by.trace }
    }

    fn write(self, out: &mut Vec<u8>) {
        put(out, &[if self.seconds < 0 { b" BY=-" } else { b" BY=" }]);
        put_number(out, self.seconds.unsigned_abs());
        put(out, &[if self.mode == ByMode::Return { b";R" } else { b";N" }]);
        if self.trace {
            put(out, &[b"T"]);
        }
    }
}

/// What RCPT says about a recipient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recipient<'a> {
    /// Forward-path without angle brackets.
    pub address: &'a str,
    /// What the sender asked about reports on it.
    pub asked: Option<&'a RecipientDsn>,
}

impl<'a> From<&'a str> for Recipient<'a> {
    fn from(address: &'a str) -> Self {
        Recipient { address, asked: None }
    }
}

impl<'a> Recipient<'a> {
    /// The recipient of a queued message with this index.
    pub fn of(envelope: &'a Envelope, index: usize) -> Self {
        let address = &envelope.recipients[index];
        Recipient { address, asked: envelope.recipient_dsn(index) }
    }
}

impl<'a> Transaction<'a> {
    /// What MAIL says at `now` about a queued message of `size` octets, if the
    /// sender used all that was declared.
    pub fn of(envelope: &'a Envelope, size: u64, now: UnixMillis) -> Self {
        let dsn = envelope.dsn.as_deref();
        let terms = envelope.terms.as_deref();
        Transaction {
            sender: &envelope.sender,
            size,
            eight_bit: envelope.body_type == BodyType::EightBitMime,
            smtputf8: envelope.smtputf8,
            ret: dsn.and_then(|dsn| dsn.ret),
            envid: dsn.and_then(|dsn| dsn.envid.as_deref()),
            binary: terms.is_some_and(|terms| terms.binary),
            by: terms.and_then(|terms| terms.deliver_by).map(|by| By::at(by, now)),
            priority: terms.map_or(0, |terms| terms.priority),
            require_tls: terms.is_some_and(|terms| terms.require_tls),
            auth: terms.and_then(|terms| terms.auth.as_deref()),
            ..Transaction::default()
        }
    }

    /// Writes MAIL; false when the address cannot be written.
    pub(super) fn write(&self, offer: &Offer, out: &mut Vec<u8>) -> bool {
        put(out, &[b"MAIL FROM:<", self.sender.as_bytes(), b">"]);
        if offer.size.is_some() && self.size > 0 {
            put(out, &[b" SIZE="]);
            put_number(out, self.size);
        }
        if self.binary {
            put(out, &[b" BODY=BINARYMIME"]);
        } else if self.eight_bit {
            put(out, &[b" BODY=8BITMIME"]);
        }
        if self.smtputf8 {
            put(out, &[b" SMTPUTF8"]);
        }
        if let Some(ret) = self.ret.filter(|_| offer.dsn) {
            put(out, &[b" RET=", ret.keyword().as_bytes()]);
        }
        if let Some(envid) = self.envid.filter(|_| offer.dsn) {
            put(out, &[b" ENVID=", envid.as_bytes()]);
        }
        self.write_terms(offer, out);
        put(out, &[b"\r\n"]);
        is_clean(self.sender)
    }

    fn write_terms(&self, offer: &Offer, out: &mut Vec<u8>) {
        if let Some(by) = self.by.filter(|_| offer.deliver_by.is_some()) {
            by.write(out);
        }
        if self.priority != 0 && offer.mt_priority {
            put(out, &[if self.priority < 0 { b" MT-PRIORITY=-" } else { b" MT-PRIORITY=" }]);
            put_number(out, u64::from(self.priority.unsigned_abs()));
        }
        if self.require_tls && offer.require_tls {
            put(out, &[b" REQUIRETLS"]);
        }
        // To who knows us, nothing would mean that we are who sent it (RFC 4954, section 5).
        let nobody = Some("").filter(|_| offer.knows_us);
        if let Some(mailbox) = self.auth.or(nobody).filter(|_| !offer.auth.is_empty()) {
            let mut value = String::new();
            xtext::encode(mailbox, &mut value);
            // What cannot be said is not known (RFC 4954, section 5).
            let is_fit = mailbox.is_ascii() && (1..=AUTH_MAX).contains(&value.len());
            put(out, &[b" AUTH=", if is_fit { value.as_bytes() } else { b"<>" }]);
        }
    }

    /// True when the sender wants to be told when its time is up, and the server
    /// does not know of it (RFC 2852, 4.1.4.2): then it is asked to tell of delays.
    fn asks_of_delay(&self, offer: &Offer) -> bool {
        offer.deliver_by.is_none() && self.by.is_some_and(|by| by.mode == ByMode::Notify)
    }
}

impl Recipient<'_> {
    /// Writes RCPT; false when the address cannot be written.
    pub(super) fn write(
        &self,
        transaction: &Transaction<'_>,
        offer: &Offer,
        out: &mut Vec<u8>,
    ) -> bool {
        put(out, &[b"RCPT TO:<", self.address.as_bytes(), b">"]);
        if offer.dsn {
            let mut notify = self.asked.and_then(|asked| asked.notify);
            if transaction.asks_of_delay(offer) && notify != Some(Notify::NEVER) {
                notify = Some(Notify { delay: true, ..notify.unwrap_or(Notify::ABSENT) });
            }
            if let Some(notify) = notify {
                put(out, &[b" NOTIFY="]);
                for (index, word) in notify.words().enumerate() {
                    put(out, &[if index > 0 { b"," } else { b"" }, word.as_bytes()]);
                }
            }
            if let Some(asked) = self.asked {
                self.write_original(asked, transaction.smtputf8, out);
            }
        }
        put(out, &[b"\r\n"]);
        is_clean(self.address)
    }

    /// Writes ORCPT: the very one that the sender gave. Where none was given but
    /// a report may be wanted, the address is the original one (RFC 3461, 5.2.1),
    /// and a report from afar tells which it was.
    fn write_original(&self, asked: &RecipientDsn, smtputf8: bool, out: &mut Vec<u8>) {
        let mut orcpt = String::new();
        match (&asked.orcpt, asked.notify) {
            (Some(given), _) if smtputf8 => orcpt.push_str(given),
            (Some(given), _) => escape_utf8(given, &mut orcpt),
            (None, Some(notify)) if notify != Notify::NEVER && self.address.is_ascii() => {
                orcpt.push_str("rfc822;");
                xtext::encode(self.address, &mut orcpt);
            }
            (None, _) => {}
        }
        // Escaped it may be too long to be taken, and a recipient is worth more.
        if (1..=ORCPT_MAX).contains(&orcpt.len()) {
            put(out, &[b" ORCPT=", orcpt.as_bytes()]);
        }
    }
}

/// True when an address cannot end its command line early.
fn is_clean(address: &str) -> bool {
    address.bytes().all(|byte| byte >= 0x20 && byte != 0x7f)
}

pub(super) fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Decimal digits, without the formatting machinery.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::dsn::Dsn;
    use crate::base::terms::Terms;
    use crate::base::{Mechanism, Mechanisms};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn left(left_ms: i64, mode: ByMode) -> String {
        let at_ms = NOW.0.saturating_add_signed(left_ms);
        let mut out = Vec::new();
        By::at(DeliverBy { at_ms, mode, trace: mode == ByMode::Notify }, NOW).write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_left_of_the_time_is_written_in_seconds() {
        for (left_ms, value) in [
            (120_000, " BY=120;R"),
            (120_999, " BY=120;R"),
            (1, " BY=1;R"),
            (0, " BY=0;R"),
            (i64::MAX, " BY=999999999;R"),
        ] {
            assert_eq!(left(left_ms, ByMode::Return), value);
        }
        for (left_ms, value) in [
            (5000, " BY=5;NT"),
            (-1, " BY=0;NT"),
            (-61_500, " BY=-61;NT"),
            (i64::MIN, " BY=-999999999;NT"),
        ] {
            assert_eq!(left(left_ms, ByMode::Notify), value);
        }
    }

    fn mail(terms: Terms, offer: &Offer) -> String {
        let envelope = Envelope { terms: Some(Box::new(terms)), ..Envelope::default() };
        let mut out = Vec::new();
        assert!(Transaction::of(&envelope, 7, NOW).write(offer, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn terms_are_written_where_they_are_offered() {
        let auth = Mechanisms::NONE.with(Mechanism::Plain);
        let all = Offer { deliver_by: Some(0), mt_priority: true, auth, ..Offer::default() };
        let none = Offer::default();
        let by = DeliverBy { at_ms: NOW.0 + 9000, mode: ByMode::Return, trace: true };
        let terms = Terms {
            deliver_by: Some(by),
            priority: 7,
            auth: Some("a b+c@x.org".into()),
            hold_until_ms: Some(5),
            user: Some("ann".into()),
            ..Terms::default()
        };
        let written = "MAIL FROM:<> BY=9;RT MT-PRIORITY=7 AUTH=a+20b+2Bc@x.org\r\n";
        assert_eq!(
            (mail(terms.clone(), &all).as_str(), mail(terms, &none).as_str()),
            (written, "MAIL FROM:<>\r\n")
        );
        let low = Terms { priority: -9, ..Terms::default() };
        assert_eq!(mail(low, &all), "MAIL FROM:<> MT-PRIORITY=-9\r\n");
        let binary = Terms { binary: true, require_tls: true, ..Terms::default() };
        assert_eq!(mail(binary.clone(), &none), "MAIL FROM:<> BODY=BINARYMIME\r\n");
        let requires = Offer { require_tls: true, ..none };
        assert_eq!(mail(binary, &requires), "MAIL FROM:<> BODY=BINARYMIME REQUIRETLS\r\n");
        let known = Offer { knows_us: true, ..all };
        assert_eq!(mail(Terms::default(), &known), "MAIL FROM:<> AUTH=<>\r\n");
        let named = Terms { auth: Some("a@x.org".into()), ..Terms::default() };
        assert_eq!(mail(named, &known), "MAIL FROM:<> AUTH=a@x.org\r\n");
        for unknown in ["", "j\u{f6}rg@x.org", &"a".repeat(501)] {
            let terms = Terms { auth: Some(unknown.into()), ..Terms::default() };
            assert_eq!(mail(terms, &all), "MAIL FROM:<> AUTH=<>\r\n");
        }
    }

    #[test]
    fn who_does_not_know_the_time_is_asked_to_tell_of_delays() {
        let by = DeliverBy { at_ms: NOW.0, mode: ByMode::Notify, trace: false };
        let terms = Some(Box::new(Terms { deliver_by: Some(by), ..Terms::default() }));
        let knows = Offer { dsn: true, ..Offer::default() };
        let both = Offer { deliver_by: Some(0), ..knows };
        for (value, asks) in [
            (None, " NOTIFY=FAILURE,DELAY"),
            (Some("SUCCESS"), " NOTIFY=SUCCESS,DELAY"),
            (Some("NEVER"), " NOTIFY=NEVER"),
        ] {
            let notify = value.and_then(|value| Notify::parse(value.as_bytes()));
            let recipients = vec![RecipientDsn { notify, orcpt: Some("rfc822;b@x".into()) }];
            let dsn = Some(Box::new(Dsn { recipients, ..Dsn::default() }));
            let recipients = vec!["b@x".to_owned()];
            let envelope =
                Envelope { recipients, dsn, terms: terms.clone(), ..Envelope::default() };
            let written = |offer| {
                let mut out = Vec::new();
                let transaction = Transaction::of(&envelope, 7, NOW);
                assert!(Recipient::of(&envelope, 0).write(&transaction, offer, &mut out));
                String::from_utf8(out).unwrap()
            };
            assert_eq!(written(&knows), format!("RCPT TO:<b@x>{asks} ORCPT=rfc822;b@x\r\n"));
            let asked = value.map_or(String::new(), |value| format!(" NOTIFY={value}"));
            assert_eq!(written(&both), format!("RCPT TO:<b@x>{asked} ORCPT=rfc822;b@x\r\n"));
            assert_eq!(written(&Offer::default()), "RCPT TO:<b@x>\r\n");
        }
    }
}
