//! MAIL and RCPT as the client writes them: with the parameters that the server
//! offers, and no others. What a message cannot do without is held against the
//! offer before; what is written here beyond that is a courtesy.

use super::offer::Offer;
use crate::base::dsn::{Notify, RecipientDsn, Ret, escape_utf8};
use crate::base::limits::ORCPT_MAX;
use crate::base::xtext;
use crate::base::{BodyType, Envelope};

/// What MAIL says about a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transaction<'a> {
    /// Reverse-path without angle brackets; empty for the null sender.
    pub sender: &'a str,
    /// Size of the body in octets; 0 when it is not known.
    pub size: u64,
    /// True when the body has octets above 127.
    pub eight_bit: bool,
    /// True when addresses or headers need SMTPUTF8.
    pub smtputf8: bool,
    /// RET, if the sender gave it.
    pub ret: Option<Ret>,
    /// ENVID as the sender gave it, encoded.
    pub envid: Option<&'a str>,
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
    /// What MAIL says about a queued message of `size` octets, if the sender used
    /// all that was declared.
    pub fn of(envelope: &'a Envelope, size: u64) -> Self {
        let dsn = envelope.dsn.as_deref();
        Transaction {
            sender: &envelope.sender,
            size,
            eight_bit: envelope.body_type == BodyType::EightBitMime,
            smtputf8: envelope.smtputf8,
            ret: dsn.and_then(|dsn| dsn.ret),
            envid: dsn.and_then(|dsn| dsn.envid.as_deref()),
        }
    }

    /// Writes MAIL; false when the address cannot be written.
    pub(super) fn write(&self, offer: &Offer, out: &mut Vec<u8>) -> bool {
        put(out, &[b"MAIL FROM:<", self.sender.as_bytes(), b">"]);
        if offer.size.is_some() && self.size > 0 {
            put(out, &[b" SIZE="]);
            put_number(out, self.size);
        }
        if self.eight_bit {
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
        put(out, &[b"\r\n"]);
        is_clean(self.sender)
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
        if let Some(asked) = self.asked.filter(|_| offer.dsn) {
            if let Some(notify) = asked.notify {
                put(out, &[b" NOTIFY="]);
                for (index, word) in notify.words().enumerate() {
                    put(out, &[if index > 0 { b"," } else { b"" }, word.as_bytes()]);
                }
            }
            self.write_original(asked, transaction.smtputf8, out);
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
fn put_number(out: &mut Vec<u8>, mut number: u64) {
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
