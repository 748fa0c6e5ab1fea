//! The `Received:` field that a relay puts in front of each message (RFC 5321,
//! 4.4; the protocol names RFC 3848 and RFC 6531, 4.3; PRIORITY RFC 6710, 4.1; the
//! cipher suite of TLS RFC 8314, 4.3).
//!
//! Called by the queue's append through the receiving session, once a message,
//! so it writes straight into the batch and allocates nothing for ordinary mail.
//!
//! Security: what the client said in EHLO and its recipient are written by a
//! stranger. Whatever could end the line, open a comment or pass for another
//! clause of the field is replaced, and lengths are bounded.

use crate::base::{Protocol, limits};

/// The facts of one `Received:` field.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// What the client said in EHLO or HELO, as it said it.
    pub helo: &'a str,
    /// The client's IP address as text, without brackets.
    pub client: &'a str,
    /// Our host name.
    pub by: &'a str,
    /// How the message came in.
    pub protocol: Protocol,
    /// Version and cipher of TLS, with a space between, if it came over TLS.
    pub secured: Option<&'a str>,
    /// The client had authenticated.
    pub authenticated: bool,
    /// The queue id, printed.
    pub id: &'a [u8],
    /// The recipient if there is one only: with several, a `for` would show
    /// them to each other (RFC 5321, 7.6).
    pub recipient: Option<&'a str>,
    /// The priority of the message, 0 for ordinary mail, of which nothing is said.
    pub priority: i8,
    /// When, as [`crate::mail::date::rfc5322`] writes it.
    pub date: &'a [u8],
}

impl Trace<'_> {
    /// Appends the field, folded, CRLF at its end. In wire form: no line of it
    /// begins with a dot.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Received: from ");
        self.write_helo(out);
        out.extend_from_slice(if self.client.contains(':') { b" ([IPv6:" } else { b" ([" });
        out.extend_from_slice(self.client.as_bytes());
        out.extend_from_slice(b"])");
        let secured = self.secured.and_then(|words| words.split_once(' '));
        if let Some((version, _)) = secured {
            for part in [" (using ", version, ")"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n\tby ");
        out.extend_from_slice(self.by.as_bytes());
        out.extend_from_slice(b" (ringpost)");
        let suffix = self.suffix();
        let keyword = self.protocol.keyword();
        let clauses = self.by.len() + keyword.len() + suffix.len() + self.id.len();
        let fits = clauses + b"\tby  (ringpost) with  id ;".len() <= limits::TEXT_LINE_ADVISED;
        out.extend_from_slice(if fits { b" with " } else { b"\r\n\twith " });
        out.extend_from_slice(keyword.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        out.extend_from_slice(b" id ");
        out.extend_from_slice(self.id);
        if let Some(recipient) = self.shown_recipient() {
            out.extend_from_slice(b"\r\n\tfor <");
            out.extend_from_slice(recipient.as_bytes());
            out.push(b'>');
        }
        if let Some((_, cipher)) = secured {
            out.extend_from_slice(b"\r\n\ttls ");
            out.extend_from_slice(cipher.as_bytes());
        }
        if self.priority != 0 {
            out.extend_from_slice(format!("\r\n\tPRIORITY {}", self.priority).as_bytes());
        }
        out.extend_from_slice(b";\r\n\t");
        out.extend_from_slice(self.date);
        out.extend_from_slice(b"\r\n");
    }

    /// What follows the name of the protocol (RFC 3848): `S` over TLS, `A` after
    /// authentication. HELO has neither.
    fn suffix(&self) -> &'static str {
        match (self.secured.is_some(), self.authenticated) {
            _ if self.protocol == Protocol::Smtp => "",
            (true, true) => "SA",
            (true, false) => "S",
            (false, true) => "A",
            (false, false) => "",
        }
    }

    /// The name the client gave, in the characters of a domain or an address
    /// literal; other octets become `?`.
    fn write_helo(&self, out: &mut Vec<u8>) {
        let utf8 = matches!(self.protocol, Protocol::Utf8Smtp | Protocol::Utf8Lmtp);
        let mut len = self.helo.len().min(limits::DOMAIN_MAX);
        while !self.helo.is_char_boundary(len) {
            len -= 1;
        }
        let mut helo = &self.helo[..len];
        if helo.is_empty() {
            helo = "unknown";
        }
        out.extend(helo.bytes().map(|byte| match byte {
            b'.' | b'-' | b'_' | b':' | b'[' | b']' => byte,
            _ if byte.is_ascii_alphanumeric() || (utf8 && byte >= 0x80) => byte,
            _ => b'?',
        }));
    }

    /// The recipient if the field can show it: printable, not too long for a
    /// line, and ASCII unless the message is internationalised.
    fn shown_recipient(&self) -> Option<&str> {
        let shown = self.recipient?;
        let utf8 = matches!(self.protocol, Protocol::Utf8Smtp | Protocol::Utf8Lmtp);
        let fits = !shown.is_empty() && shown.len() <= limits::PATH_MAX;
        let printable = shown.bytes().all(|byte| match byte {
            b'<' | b'>' => false,
            b' '..=b'~' => true,
            _ => utf8 && byte >= 0x80,
        });
        (fits && printable).then_some(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Trace<'static> {
        Trace {
            helo: "client.example.net",
            client: "192.0.2.7",
            by: "relay1.example.com",
            protocol: Protocol::Esmtp,
            secured: None,
            authenticated: false,
            id: b"000000000000G00Z",
            recipient: Some("bob@example.org"),
            priority: 0,
            date: b"Tue, 24 Nov 2026 00:09:25 +0000",
        }
    }

    fn written(trace: Trace<'_>) -> String {
        let mut out = vec![];
        trace.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_the_field() {
        assert_eq!(
            written(plain()),
            "Received: from client.example.net ([192.0.2.7])\r\n\
             \tby relay1.example.com (ringpost) with ESMTP id 000000000000G00Z\r\n\
             \tfor <bob@example.org>;\r\n\
             \tTue, 24 Nov 2026 00:09:25 +0000\r\n"
        );
        let several = written(Trace { recipient: None, client: "2001:db8::1", ..plain() });
        assert!(several.contains("([IPv6:2001:db8::1])"), "{several}");
        assert!(several.contains("id 000000000000G00Z;\r\n"), "{several}");
        assert!(!several.contains("for "), "{several}");
    }

    #[test]
    fn says_how_the_connection_was_secured() {
        let secured = Some("TLS1.3 TLS_AES_256_GCM_SHA384");
        let text = written(Trace { secured, authenticated: true, ..plain() });
        assert!(
            text.starts_with(
                "Received: from client.example.net ([192.0.2.7]) (using TLS1.3)\r\n\
                 \tby relay1.example.com (ringpost) with ESMTPSA id "
            ),
            "{text}"
        );
        assert!(
            text.contains("\r\n\tfor <bob@example.org>\r\n\ttls TLS_AES_256_GCM_SHA384;\r\n\tTue"),
            "{text}"
        );
        let urgent = written(Trace { secured, priority: 9, recipient: None, ..plain() });
        assert!(
            urgent.contains("G00Z\r\n\ttls TLS_AES_256_GCM_SHA384\r\n\tPRIORITY 9;"),
            "{urgent}"
        );
        let protocol = Protocol::Utf8Smtp;
        assert!(written(Trace { secured, protocol, ..plain() }).contains("with UTF8SMTPS id"));
        for (protocol, word) in [(Protocol::Lmtp, "LMTPS"), (Protocol::Utf8Lmtp, "UTF8LMTPS")] {
            let text = written(Trace { secured, protocol, ..plain() });
            assert!(text.contains(&format!("with {word} id")), "{text}");
        }
        let authenticated = true;
        assert!(written(Trace { authenticated, ..plain() }).contains("with ESMTPA id"));
        let helo = Trace { secured, protocol: Protocol::Smtp, ..plain() };
        assert!(written(helo).contains("with SMTP id"), "there is no SMTPS");
    }

    #[test]
    fn a_priority_is_a_clause_of_its_own() {
        let text = written(Trace { priority: -3, ..plain() });
        assert!(text.contains("\r\n\tfor <bob@example.org>\r\n\tPRIORITY -3;\r\n\tTue,"), "{text}");
        let several = written(Trace { priority: 9, recipient: None, ..plain() });
        assert!(several.contains(" id 000000000000G00Z\r\n\tPRIORITY 9;\r\n"), "{several}");
    }

    #[test]
    fn a_hostile_name_adds_no_line_and_no_clause() {
        let text = written(Trace { helo: "x\r\nBcc: (a)\\;\" by\u{e9}", ..plain() });
        assert!(text.starts_with("Received: from x??Bcc:??a?????by?? (["), "{text}");
        assert_eq!(text.matches("\r\n").count(), 4, "{text}");
        assert!(text.is_ascii());
        let long = written(Trace { helo: &"\u{e9}".repeat(400), ..plain() });
        assert!(long.lines().all(|line| line.len() < 998), "{long}");
        assert!(written(Trace { helo: "", ..plain() }).starts_with("Received: from unknown (["));
    }

    #[test]
    fn a_recipient_that_would_break_the_field_is_not_shown() {
        let long = "x".repeat(300);
        for hostile in ["a\r\n@b", "a>@b", "caf\u{e9}@example.org", "", &long] {
            let text = written(Trace { recipient: Some(hostile), ..plain() });
            assert!(!text.contains("for <"), "{text}");
        }
        let utf8 = Trace {
            recipient: Some("caf\u{e9}@example.org"),
            protocol: Protocol::Utf8Smtp,
            ..plain()
        };
        assert!(written(utf8).contains("with UTF8SMTP id"));
        assert!(written(utf8).contains("for <caf\u{e9}@example.org>;"));
    }

    #[test]
    fn lines_are_folded_within_78_columns_for_names_of_usual_length() {
        let by = "relay-with-a-rather-long-name.eu-central.example.com";
        let text = written(Trace { by, protocol: Protocol::Utf8Smtp, ..plain() });
        for line in text.lines() {
            assert!(line.len() <= 78, "{line}");
        }
    }
}
