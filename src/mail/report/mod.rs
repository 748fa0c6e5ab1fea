//! Reports to the sender of a message (RFC 3464 in a multipart/report, RFC 6522;
//! RFC 6533 for internationalised addresses): what could not be delivered, what
//! takes long, what was delivered, what was passed on to where no report comes from.
//!
//! Called by the relay. The result is a stored body like any other: wire form
//! with its terminator, only the `Received:` field is missing, which the append
//! puts in front. `words` is the part for people, `status` the one for programs,
//! `returned` what is returned of the message.
//!
//! Invariants:
//! * A report goes to ASCII senders as 7-bit text, so that no next hop can
//!   refuse it for want of 8BITMIME or SMTPUTF8. Only to a sender whose own
//!   address is internationalised is it an SMTPUTF8 message.
//! * Whatever strangers wrote (addresses, replies, parameters, the message)
//!   cannot add a field, end a part or end the message.
//! * Of the message no more than its header is returned, and of that no more than
//!   [`HEADER_RETURNED_MAX`], unless its sender asked for all of it: a report must
//!   not be a way to send mail to others.

mod returned;
mod status;
#[cfg(test)]
mod tests;
mod words;

use crate::base::{BodyType, Outcome, UnixMillis};
use crate::mail::{date, encoding, stuffing};

/// Most octets of the original header that a report returns.
pub const HEADER_RETURNED_MAX: usize = 32 * 1024;
/// Most octets of a message, as stored, that a report returns whole.
pub const MESSAGE_RETURNED_MAX: usize = 64 * 1024;

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Recipients that failed or expired: nothing more will be tried.
    Failed,
    /// Recipients that are still tried.
    Delayed,
    /// Recipients whose next hop took the message and does not know of reports.
    Relayed,
    /// Recipients to whose mailboxes it was delivered.
    Delivered,
}

/// What is to be returned of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// The header.
    Header,
    /// All of it: its sender asked for that.
    Whole,
    /// The header, although its sender asked for all: it is longer than
    /// [`MESSAGE_RETURNED_MAX`].
    TooLong,
}

/// A recipient to report on.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// Its address in the envelope.
    pub address: &'a str,
    /// ORCPT, if it was given: as it came.
    pub orcpt: Option<&'a str>,
    /// The last outcome.
    pub outcome: &'a Outcome,
}

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct ReportInput<'a> {
    /// What it is about.
    pub kind: Kind,
    /// Our host name.
    pub host: &'a str,
    /// Who gets the report: the sender of the message, not null.
    pub sender: &'a str,
    /// ENVID, if it was given: as it came.
    pub envid: Option<&'a str>,
    /// The queue id of the message, printed.
    pub queue_id: &'a str,
    /// When the message arrived.
    pub arrival: UnixMillis,
    /// Until when it is tried.
    pub retry_until: UnixMillis,
    /// When its sender wanted it to be delivered, if that was said (BY).
    pub deliver_by: Option<UnixMillis>,
    /// Until when its sender wanted it kept, if that was said (HOLDFOR, HOLDUNTIL).
    pub hold_until: Option<UnixMillis>,
    /// The time of delivery is up, and its sender wanted to be told.
    pub is_overdue: bool,
    /// The recipients that it is about.
    pub recipients: &'a [Reported<'a>],
    /// The body of the message as stored, or its first part with the header.
    pub original: &'a [u8],
    /// What of it to return; [`Returned::Whole`] only if `original` is all of it.
    pub returned: Returned,
    /// When the report is made.
    pub now: UnixMillis,
    /// Makes the message id and the boundary unique: at most 40 letters and
    /// digits (RFC 2046, 5.1.1, has 70 octets for a boundary).
    pub seed: &'a str,
}

/// A report, ready to be queued from the null sender to the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The stored body, without `Received:`.
    pub body: Vec<u8>,
    /// For the envelope.
    pub body_type: BodyType,
    /// For the envelope.
    pub smtputf8: bool,
}

/// One part of the report.
struct Part {
    header: String,
    text: Vec<u8>,
}

/// Makes the report.
pub fn build(input: &ReportInput<'_>) -> Report {
    let utf8 = !input.sender.is_ascii();
    let (original, attached) = returned::part(input, utf8);
    let parts = [words::part(input, attached, utf8), status::part(input, utf8), original];
    let boundary = boundary(input.seed, &parts);
    let mut message = header(input, &boundary, utf8);
    for part in &parts {
        message.extend_from_slice(format!("--{boundary}\r\n{}\r\n", part.header).as_bytes());
        message.extend_from_slice(&part.text);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let mut body = Vec::new();
    stuffing::stuff(&message, &mut body);
    let body_type = if utf8 { BodyType::EightBitMime } else { BodyType::SevenBit };
    Report { body, body_type, smtputf8: utf8 }
}

/// A boundary that no part contains.
fn boundary(seed: &str, parts: &[Part]) -> String {
    let mut boundary = format!("report-{seed}");
    while parts.iter().any(|part| memchr::memmem::find(&part.text, boundary.as_bytes()).is_some()) {
        boundary.push('x');
    }
    boundary
}

/// The header of the report and the blank line.
fn header(input: &ReportInput<'_>, boundary: &str, utf8: bool) -> Vec<u8> {
    let ReportInput { host, seed, .. } = input;
    let encoding = if utf8 { "8bit" } else { "7bit" };
    format!(
        "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\n\
         To: <{sender}>\r\n\
         Subject: {subject}\r\n\
         Date: {date}\r\n\
         Message-ID: <{seed}.{queue_id}@{host}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\
         \tboundary=\"{boundary}\"\r\n\
         Content-Transfer-Encoding: {encoding}\r\n\
         \r\n\
         This is a report in MIME format.\r\n\
         \r\n",
        sender = one_line(input.sender, utf8),
        subject = words::subject(input),
        date = date(input.now),
        queue_id = input.queue_id,
    )
    .into_bytes()
}

/// A part of this type, sent as it is if the transport can take that, and in
/// quoted-printable otherwise.
fn encode(kind: &str, text: Vec<u8>, utf8: bool) -> Part {
    let (encoding, text) = if encoding::is_seven_bit(&text) {
        ("7bit", text)
    } else if utf8 && encoding::is_clean(&text) {
        ("8bit", text)
    } else {
        let mut quoted = Vec::with_capacity(text.len() * 2);
        encoding::quoted_printable(&text, &mut quoted);
        ("quoted-printable", quoted)
    };
    let header = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n");
    Part { header, text }
}

/// A date as header fields have it.
fn date(at: UnixMillis) -> String {
    String::from_utf8_lossy(&date::rfc5322(at)).into_owned()
}

/// `text` without what would end a line, and in ASCII unless `utf8`.
fn one_line(text: &str, utf8: bool) -> String {
    let ends_line = |letter: char| letter.is_control() || "\u{2028}\u{2029}".contains(letter);
    let is_fit = |letter: char| !ends_line(letter) && (utf8 || letter.is_ascii());
    text.chars().map(|letter| if is_fit(letter) { letter } else { '?' }).collect()
}
