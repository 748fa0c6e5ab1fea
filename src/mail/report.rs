//! Reports to the sender of what could not be delivered (RFC 3464 in a
//! multipart/report, RFC 6522; RFC 6533 for internationalised addresses).
//!
//! Called by the relay once a recipient has failed for good or expired. The
//! result is a stored body like any other: wire form with its terminator, only
//! the `Received:` field is missing, which the append puts in front.
//!
//! Invariants:
//! * A report goes to ASCII senders as 7-bit text, so that no next hop can
//!   refuse it for want of 8BITMIME or SMTPUTF8. Only to a sender whose own
//!   address is internationalised is it an SMTPUTF8 message.
//! * Whatever strangers wrote (addresses, replies, the header of the message)
//!   cannot add a field, end a part or end the message.
//! * No more than [`HEADER_RETURNED_MAX`] of the header is returned, and nothing
//!   of the text: a report must not be a way to send mail to others.

use crate::base::{BodyType, Disposition, EnhancedCode, Outcome, UnixMillis, limits};
use crate::mail::headers::header_section;
use crate::mail::{date, encoding, stuffing};

/// Most octets of the original header that a report returns.
pub const HEADER_RETURNED_MAX: usize = 32 * 1024;

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct ReportInput<'a> {
    /// Our host name.
    pub host: &'a str,
    /// Who gets the report: the sender of the message, not null.
    pub sender: &'a str,
    /// The queue id of the message, printed.
    pub queue_id: &'a str,
    /// When the message arrived.
    pub arrival: UnixMillis,
    /// The recipients that failed or expired, each with its last outcome.
    pub recipients: &'a [(&'a str, &'a Outcome)],
    /// The body of the message as stored, or its first part.
    pub original: &'a [u8],
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
    let parts = [explanation(input, utf8), status(input, utf8), original(input, utf8)];
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
    let date = String::from_utf8_lossy(&date::rfc5322(input.now)).into_owned();
    let encoding = if utf8 { "8bit" } else { "7bit" };
    format!(
        "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\n\
         To: <{sender}>\r\n\
         Subject: Undelivered mail: returned to sender\r\n\
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
        queue_id = input.queue_id,
    )
    .into_bytes()
}

/// The part for the person who reads it.
fn explanation(input: &ReportInput<'_>, utf8: bool) -> Part {
    let mut text = format!("This is the mail system at {}.\r\n\r\n", input.host);
    wrap(
        "Your message could not be delivered to the recipients named below, and will not be \
         tried again. The reason is given under each address, in the words of the host that \
         gave it; they often tell what to do.",
        0,
        &mut text,
    );
    for (address, outcome) in input.recipients {
        text.push_str(&format!("\r\n<{}>\r\n", one_line(address, true)));
        wrap(&reason(input, outcome), 4, &mut text);
    }
    text.push_str("\r\n");
    wrap(
        &format!(
            "If you need help, send this report to the postmaster of {}. The header of your \
             message is attached; its id there was {}.",
            input.host, input.queue_id
        ),
        0,
        &mut text,
    );
    let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
    encode(&format!("text/plain; charset={charset}"), text.into_bytes(), utf8)
}

/// Why one recipient was given up, in a sentence or two.
fn reason(input: &ReportInput<'_>, outcome: &Outcome) -> String {
    let said = one_line(&outcome.reply.to_string(), true);
    let who = if outcome.host.is_empty() {
        String::new()
    } else {
        format!("{} said: ", one_line(&outcome.host, true))
    };
    if outcome.disposition != Disposition::Expired {
        return format!("{who}{said}");
    }
    let hours = outcome.at.since(input.arrival).as_secs() / 3600;
    let age = match (hours / 24, hours % 24) {
        (0, 0) => "less than an hour".to_owned(),
        (0, hours) => format!("{hours} h"),
        (days, 0) => format!("{days} d"),
        (days, hours) => format!("{days} d {hours} h"),
    };
    let attempts = outcome.attempts;
    format!("Given up after {age} (attempts: {attempts}). The last answer was: {who}{said}")
}

/// The part for programs (RFC 3464, 2; RFC 6533, 3).
fn status(input: &ReportInput<'_>, utf8: bool) -> Part {
    let date = |at| String::from_utf8_lossy(&date::rfc5322(at)).into_owned();
    let mut text = format!(
        "Reporting-MTA: dns; {}\r\nX-Ringpost-Queue-ID: {}\r\nArrival-Date: {}\r\n",
        input.host,
        input.queue_id,
        date(input.arrival)
    );
    for (address, outcome) in input.recipients {
        let kind = if outcome.host.is_empty() { "x-ringpost" } else { "smtp" };
        text.push_str(&format!(
            "\r\nFinal-Recipient: {}\r\nAction: failed\r\nStatus: {}\r\n",
            typed_address(address, utf8),
            status_code(outcome)
        ));
        if !outcome.host.is_empty() {
            let host = host_name(&outcome.host);
            text.push_str(&format!("Remote-MTA: dns; {}\r\n", one_line(&host, utf8)));
        }
        text.push_str(&format!(
            "Diagnostic-Code: {kind}; {}\r\nLast-Attempt-Date: {}\r\n",
            one_line(&outcome.reply.to_string(), utf8),
            date(outcome.at)
        ));
    }
    let kind = if utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    encode(kind, text.into_bytes(), utf8)
}

/// The part that holds the header of the message.
fn original(input: &ReportInput<'_>, utf8: bool) -> Part {
    let section = header_section(input.original);
    let mut kept = &section[..section.len().min(HEADER_RETURNED_MAX)];
    if kept.len() < section.len() {
        // Cut behind a whole line; none at all fits if the first is too long.
        let end = memchr::memmem::rfind(kept, b"\r\n").map_or(0, |at| at + 2);
        kept = &kept[..end];
    }
    let text = stuffing::unstuff(kept);
    let is_global = utf8 && encoding::is_clean(&text) && std::str::from_utf8(&text).is_ok();
    let kind = if is_global { "message/global-headers" } else { "text/rfc822-headers" };
    encode(kind, text, is_global)
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

/// An address with its type. RFC 6533, 3: an internationalised one is given as
/// it is where UTF-8 may be, and with escapes elsewhere.
fn typed_address(address: &str, utf8: bool) -> String {
    if address.is_ascii() {
        return format!("rfc822; {}", one_line(address, utf8));
    }
    if utf8 {
        return format!("utf-8; {}", one_line(address, utf8));
    }
    let mut typed = "utf-8; ".to_owned();
    for letter in address.chars() {
        match letter {
            '\\' | '+' | '=' => typed.push_str(&format!("\\x{{{:X}}}", letter as u32)),
            '!'..='~' => typed.push(letter),
            _ => typed.push_str(&format!("\\x{{{:X}}}", letter as u32)),
        }
    }
    typed
}

/// The status of a recipient. What was deferred until it expired did not fail
/// for the reason last given, but for the time (RFC 3463, X.4.7).
fn status_code(outcome: &Outcome) -> EnhancedCode {
    match outcome.reply.enhanced {
        _ if outcome.disposition == Disposition::Expired => EnhancedCode(4, 4, 7),
        Some(code) => code,
        None => EnhancedCode(5, 0, 0),
    }
}

/// The host of `host:port`, an address in the brackets of a literal.
fn host_name(place: &str) -> String {
    match place.parse() {
        Ok(std::net::SocketAddr::V4(place)) => format!("[{}]", place.ip()),
        Ok(std::net::SocketAddr::V6(place)) => format!("[IPv6:{}]", place.ip()),
        Err(_) => place.rsplit_once(':').map_or(place, |(host, _)| host).to_owned(),
    }
}

/// `text` without what would end a line, and in ASCII unless `utf8`.
fn one_line(text: &str, utf8: bool) -> String {
    let is_fit = |letter: char| !letter.is_control() && (utf8 || letter.is_ascii());
    text.chars().map(|letter| if is_fit(letter) { letter } else { '?' }).collect()
}

/// Appends `text` in lines of usual length, indented; words are not broken.
fn wrap(text: &str, indent: usize, out: &mut String) {
    let mut column = 0;
    for word in text.split_ascii_whitespace() {
        let width = word.chars().count();
        if column == 0 || column + 1 + width > limits::TEXT_LINE_ADVISED - 2 {
            if column > 0 {
                out.push_str("\r\n");
            }
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent + width;
        } else {
            out.push(' ');
            column += 1 + width;
        }
        out.push_str(word);
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Reply;
    use crate::mail::headers::fields;

    fn refused(code: EnhancedCode, text: &str) -> Outcome {
        Outcome {
            recipient: 0,
            disposition: Disposition::Failed,
            reply: Reply::new(550, code, text),
            host: "192.0.2.9:25".to_owned(),
            at: UnixMillis(1_700_000_100_000),
            attempts: 1,
            next_attempt: UnixMillis(0),
        }
    }

    fn input<'a>(recipients: &'a [(&'a str, &'a Outcome)]) -> ReportInput<'a> {
        ReportInput {
            host: "relay1.example.com",
            sender: "ann@example.net",
            queue_id: "000000000000G00Z",
            arrival: UnixMillis(1_700_000_000_000),
            recipients,
            original:
                b"Received: from x\r\n\tby y\r\nSubject: Hello\r\n..odd: 1\r\n\r\nText\r\n.\r\n",
            now: UnixMillis(1_700_000_101_000),
            seed: "s33d",
        }
    }

    fn text(report: &Report) -> String {
        String::from_utf8(stuffing::unstuff(&report.body)).unwrap()
    }

    /// The header and the text of each part, as a reader splits them.
    fn parts(message: &str) -> Vec<(String, String)> {
        let line = message.lines().find(|line| line.contains("boundary=")).unwrap();
        let boundary = line.split('"').nth(1).unwrap();
        let (body, _) = message.split_once(&format!("\r\n--{boundary}--\r\n")).unwrap();
        let delimiter = format!("\r\n--{boundary}\r\n");
        body.split(&delimiter)
            .skip(1)
            .map(|part| {
                let (header, text) = part.split_once("\r\n\r\n").unwrap();
                (header.to_owned(), text.to_owned())
            })
            .collect()
    }

    #[test]
    fn a_report_reads_as_the_one_in_the_fixture() {
        let outcome = refused(EnhancedCode(5, 1, 1), "no such user");
        let mut expired = refused(EnhancedCode(4, 2, 2), "mailbox full");
        expired.disposition = Disposition::Expired;
        expired.reply.code = 452;
        expired.host = String::new();
        expired.attempts = 31;
        expired.at = UnixMillis(1_700_000_000_000 + 101 * 3_600_000);
        let recipients = [("bob@example.org", &outcome), ("eve@example.org", &expired)];
        let report = build(&input(&recipients));
        let fixture = include_str!("../../tests/fixtures/report.eml").replace('\n', "\r\n");
        assert_eq!(text(&report), fixture);
        assert_eq!((report.body_type, report.smtputf8), (BodyType::SevenBit, false));
        assert!(report.body.ends_with(b"\r\n.\r\n"));
        let names: Vec<_> = fields(&report.body).map(|field| field.name.to_vec()).collect();
        assert_eq!(names.len(), 9);
    }

    #[test]
    fn strangers_cannot_add_to_a_report() {
        let outcome = refused(EnhancedCode(5, 0, 0), "no\r\nX-Evil: 1\r\n.\r\n--report-s33d--");
        let recipients = [("a\r\nX-Evil: 1@b", &outcome)];
        let mut hostile = input(&recipients);
        hostile.original = b"X: --report-s33d\r\n--report-s33d--\r\nY: \n.\n\r\n..\r\n.\r\n";
        let report = build(&hostile);
        assert!(!text(&report).lines().any(|line| line.starts_with("X-Evil")));
        let parts = parts(&text(&report));
        assert_eq!(parts.len(), 3, "{}", text(&report));
        assert!(parts[2].0.contains("quoted-printable"), "{}", parts[2].0);
        let mut scanner = crate::mail::stuffing::Unstuffer::new();
        let read: usize = scanner.chunk(&report.body).map(<[u8]>::len).sum();
        assert_eq!(read, text(&report).len());
        assert!(encoding::is_seven_bit(&report.body));
    }

    #[test]
    fn an_international_recipient_of_an_ascii_sender_stays_seven_bit() {
        let outcome = refused(EnhancedCode(5, 1, 1), "kein Postfach f\u{fc}r Sie");
        let recipients = [("j\u{f6}rg+a@example.org", &outcome)];
        let mut ascii = input(&recipients);
        ascii.original = b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n.\r\n";
        let report = build(&ascii);
        assert!(encoding::is_seven_bit(&report.body) && !report.smtputf8);
        let parts = parts(&text(&report));
        assert!(parts[0].0.contains("charset=utf-8") && parts[0].1.contains("j=C3=B6rg"));
        assert!(parts[1].0.contains("message/delivery-status"));
        assert!(parts[1].1.contains("Final-Recipient: utf-8; j\\x{F6}rg\\x{2B}a@example.org\r\n"));
        assert!(parts[1].1.contains("kein Postfach f?r Sie"));
        assert!(parts[2].1.contains("Gr=C3=BC=C3=9Fe"), "{}", parts[2].1);
    }

    #[test]
    fn an_international_sender_gets_an_international_report() {
        let outcome = refused(EnhancedCode(5, 1, 1), "kein Postfach f\u{fc}r Sie");
        let recipients = [("j\u{f6}rg@example.org", &outcome)];
        let mut global = input(&recipients);
        global.sender = "\u{e4}nn@example.net";
        global.original = b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n.\r\n";
        let report = build(&global);
        assert!(report.smtputf8 && report.body_type == BodyType::EightBitMime);
        let parts = parts(&text(&report));
        assert!(parts[1].0.contains("message/global-delivery-status"));
        assert!(parts[1].1.contains("Final-Recipient: utf-8; j\u{f6}rg@example.org\r\n"));
        assert!(parts[2].0.contains("message/global-headers"));
        global.original = b"Subject: \xff\r\n\r\n.\r\n";
        assert!(text(&build(&global)).contains("text/rfc822-headers"));
    }

    #[test]
    fn a_long_header_is_cut_behind_a_line() {
        let outcome = refused(EnhancedCode(5, 1, 1), "no such user");
        let recipients = [("bob@example.org", &outcome)];
        let mut long = input(&recipients);
        let original = b"X-Line: of thirty-two octets...\r\n".repeat(2000);
        long.original = &original;
        let parts = parts(&text(&build(&long)));
        assert!(parts[2].1.len() <= HEADER_RETURNED_MAX);
        assert!(parts[2].1.len() > HEADER_RETURNED_MAX - 40);
        assert!(parts[2].1.ends_with("octets...\r\n"), "{}", &parts[2].1[32_000..]);
    }

    #[test]
    fn hosts_and_codes_are_named_as_the_standard_wants() {
        assert_eq!(host_name("192.0.2.9:25"), "[192.0.2.9]");
        assert_eq!(host_name("[2001:db8::1]:25"), "[IPv6:2001:db8::1]");
        assert_eq!(host_name("mx.example.org:25"), "mx.example.org");
        let mut outcome = refused(EnhancedCode(5, 1, 1), "");
        assert_eq!(status_code(&outcome), EnhancedCode(5, 1, 1));
        outcome.reply.enhanced = None;
        assert_eq!(status_code(&outcome), EnhancedCode(5, 0, 0));
    }
}
