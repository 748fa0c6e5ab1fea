//! The header section of a stored body (RFC 5322, 2.2): where it ends, its
//! fields, how many `Received:` fields it holds (RFC 5321, 6.3: a message that has
//! passed too many hosts is looping), and whether it may go without TLS (RFC 8689).
//!
//! Called by the receiving session (loops) and by reports (the returned header).
//! All of it reads the wire form, where a line that begins with a dot carries a
//! stuffed one in front, and no octet behind the blank line is read.
//!
//! Only CRLF ends a line, as in the scanner: a reader that took a bare LF for
//! one would see other fields than the next hop does.

use std::borrow::Cow;

use memchr::memmem;

/// The header section of a stored body: everything up to the blank line, the
/// terminator or the end of `body`, whichever is first. The CRLF of the last
/// field is part of it, the blank line is not.
pub fn header_section(body: &[u8]) -> &[u8] {
    let mut from = 0;
    while !ends_section(&body[from..]) {
        match memmem::find(&body[from..], b"\r\n") {
            Some(at) => from += at + 2,
            None => return body,
        }
    }
    &body[..from]
}

/// True if a line that starts here is none of the header section.
fn ends_section(rest: &[u8]) -> bool {
    rest.is_empty() || rest.starts_with(b"\r\n") || rest.starts_with(b".\r\n")
}

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, without the colon and blanks before it.
    pub name: &'a [u8],
    /// What is behind the colon, folds and the last CRLF included.
    pub raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// True if the field has this name; case does not matter.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value with its folds undone (RFC 5322, 2.2.3), and without the blanks
    /// around it.
    pub fn value(&self) -> Cow<'a, [u8]> {
        let raw = self.raw.trim_ascii();
        if memmem::find(raw, b"\r\n").is_none() {
            return Cow::Borrowed(raw);
        }
        let mut value = Vec::with_capacity(raw.len());
        let mut from = 0;
        for at in memmem::find_iter(raw, b"\r\n") {
            value.extend_from_slice(&raw[from..at]);
            from = at + 2;
        }
        value.extend_from_slice(&raw[from..]);
        Cow::Owned(value)
    }
}

/// The fields of a stored body's header section, in order. Lines that are no
/// field and no continuation of one are passed over.
pub fn fields(body: &[u8]) -> Fields<'_> {
    Fields { rest: header_section(body) }
}

/// The iterator that [`fields`] returns.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        while !self.rest.is_empty() {
            let (text, rest) = self.rest.split_at(field_len(self.rest));
            self.rest = rest;
            let text = text.strip_prefix(b".").unwrap_or(text);
            let Some(colon) = memchr::memchr(b':', text) else { continue };
            let name = trim_end(&text[..colon]);
            if !name.is_empty() && name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
                return Some(Field { name, raw: &text[colon + 1..] });
            }
        }
        None
    }
}

/// `name` without the blanks behind it. A CR there is part of a broken name.
fn trim_end(name: &[u8]) -> &[u8] {
    let len = name.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |at| at + 1);
    &name[..len]
}

/// Octets of the line that starts here and of the lines that continue it.
fn field_len(text: &[u8]) -> usize {
    for at in memmem::find_iter(text, b"\r\n") {
        if !matches!(text.get(at + 2), Some(b' ' | b'\t')) {
            return at + 2;
        }
    }
    text.len()
}

/// Watches the fields of a body that comes in chunks: counts `Received:` and
/// notices `TLS-Required: No` (RFC 8689, 3). Reads the header section only: once
/// that has ended, [`push`](Self::push) costs nothing.
#[derive(Clone, Debug)]
pub struct HeaderWatch {
    received: u32,
    tls_optional: bool,
    value: NoValue,
    at: At,
}

/// Where a watch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the start of a line.
    LineStart,
    /// Behind the dot that began a line.
    Dot,
    /// Behind a CR that began a line, or followed such a dot.
    BlankCr,
    /// Behind this many letters of a name, in a line that has begun so.
    Name(Watched, u8),
    /// Behind the whole name and perhaps blanks (RFC 5322, 4.5, allows them).
    Colon(Watched),
    /// In a value that matters.
    Value,
    /// Behind a CR in such a value.
    ValueCr,
    /// Behind CRLF in such a value: a blank goes on with it.
    ValueFold,
    /// Somewhere in a line that does not matter any more.
    Text,
    /// Behind a CR in such a line.
    Cr,
    /// Behind the header section.
    Done,
}

/// A field that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Received,
    TlsRequired,
}

impl Watched {
    /// Its name in small letters.
    fn name(self) -> &'static [u8] {
        match self {
            Watched::Received => b"received",
            Watched::TlsRequired => b"tls-required",
        }
    }
}

/// What has been read of a value that may be `No`, in any case, with comments and
/// white space around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NoValue {
    /// Letters of `no` so far.
    letters: u8,
    /// Comments that are open.
    depth: u16,
    /// Behind a backslash in a comment.
    quoted: bool,
    /// It is something else.
    other: bool,
}

impl NoValue {
    fn push(&mut self, byte: u8) {
        if self.depth > 0 {
            match byte {
                _ if self.quoted => self.quoted = false,
                b'\\' => self.quoted = true,
                b'(' => self.depth = self.depth.saturating_add(1),
                b')' => self.depth -= 1,
                _ => {}
            }
            return;
        }
        match (self.letters, byte) {
            (0 | 2, b' ' | b'\t') => {}
            (0 | 2, b'(') => self.depth = 1,
            (0, b'n' | b'N') => self.letters = 1,
            (1, b'o' | b'O') => self.letters = 2,
            _ => self.other = true,
        }
    }

    fn is_no(self) -> bool {
        self.letters == 2 && self.depth == 0 && !self.other
    }
}

impl HeaderWatch {
    /// A watch at the start of a body.
    pub fn new() -> HeaderWatch {
        HeaderWatch {
            received: 0,
            tls_optional: false,
            value: NoValue::default(),
            at: At::LineStart,
        }
    }

    /// Reads the next chunk. True while the header section goes on, so that
    /// a caller may stop pushing when it does not.
    pub fn push(&mut self, chunk: &[u8]) -> bool {
        let mut rest = chunk;
        while let [byte, tail @ ..] = rest {
            match self.at {
                At::Done => return false,
                At::Text => match memchr::memchr(b'\r', rest) {
                    Some(cr) => {
                        self.at = At::Cr;
                        rest = &rest[cr + 1..];
                    }
                    None => break,
                },
                at => {
                    self.at = self.step(at, *byte);
                    rest = tail;
                }
            }
        }
        self.at != At::Done
    }

    /// `Received:` fields so far.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// True once a field `TLS-Required: No` has ended.
    pub fn tls_optional(&self) -> bool {
        self.tls_optional
    }

    fn step(&mut self, at: At, byte: u8) -> At {
        match (at, byte) {
            (At::BlankCr, b'\n') => At::Done,
            (At::Cr, b'\n') => At::LineStart,
            (At::LineStart, b'.') => At::Dot,
            (At::LineStart | At::Dot, b'\r') => At::BlankCr,
            (At::Value, b'\r') => At::ValueCr,
            (At::ValueCr, b'\n') => At::ValueFold,
            (At::ValueCr, _) => {
                self.value.other = true;
                if byte == b'\r' { At::ValueCr } else { At::Value }
            }
            (At::ValueFold, b' ' | b'\t') | (At::Value, _) => {
                self.value.push(byte);
                At::Value
            }
            (At::ValueFold, _) => {
                self.tls_optional |= self.value.is_no();
                self.step(At::LineStart, byte)
            }
            (_, b'\r') => At::Cr,
            (At::LineStart | At::Dot, b'r' | b'R') => At::Name(Watched::Received, 1),
            (At::LineStart | At::Dot, b't' | b'T') => At::Name(Watched::TlsRequired, 1),
            (At::Name(field, len), _)
                if byte.to_ascii_lowercase() == field.name()[usize::from(len)] =>
            {
                let whole = usize::from(len) + 1 == field.name().len();
                if whole { At::Colon(field) } else { At::Name(field, len + 1) }
            }
            (At::Colon(_), b' ' | b'\t') => at,
            (At::Colon(Watched::Received), b':') => {
                self.received = self.received.saturating_add(1);
                At::Text
            }
            (At::Colon(Watched::TlsRequired), b':') => {
                self.value = NoValue::default();
                At::Value
            }
            _ => At::Text,
        }
    }
}

impl Default for HeaderWatch {
    fn default() -> HeaderWatch {
        HeaderWatch::new()
    }
}

/// The `Received:` fields of a body that lies in one piece.
pub fn received_count(body: &[u8]) -> u32 {
    let mut counter = HeaderWatch::new();
    counter.push(body);
    counter.received()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &[u8] = b"Received: from a\r\n\tby b; now\r\nRECEIVED \t: x\r\n..dotted: 1\r\n\
        not a field\r\nReceivedBy: no\r\nX: Received: no\r\n Received: a fold\r\n\
        Subject:  two \r\n  words \r\nreceived:\r\n\r\nReceived: in the text\r\n.\r\n";

    #[test]
    fn the_section_ends_at_the_blank_line_or_the_terminator() {
        assert!(header_section(BODY).ends_with(b"\r\nreceived:\r\n"));
        assert_eq!(header_section(b"\r\nReceived: text\r\n.\r\n"), b"");
        assert_eq!(header_section(b".\r\n"), b"");
        assert_eq!(header_section(b"A: 1\r\n.\r\n"), b"A: 1\r\n");
        assert_eq!(header_section(b"A: 1\r\n..\r\n.\r\n"), b"A: 1\r\n..\r\n");
        assert_eq!(header_section(b"A: 1\n\nB: 2\r\n\r\n"), b"A: 1\n\nB: 2\r\n");
        assert_eq!(header_section(b"A: 1"), b"A: 1");
    }

    #[test]
    fn fields_are_unfolded_and_unstuffed() {
        let all: Vec<(String, String)> = fields(BODY)
            .map(|field| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(field.name), text(&field.value()))
            })
            .collect();
        let expected = [
            ("Received", "from a\tby b; now"),
            ("RECEIVED", "x"),
            (".dotted", "1"),
            ("ReceivedBy", "no"),
            ("X", "Received: no Received: a fold"),
            ("Subject", "two   words"),
            ("received", ""),
        ];
        let all: Vec<_> = all.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        assert_eq!(all, expected);
        assert_eq!(fields(BODY).find(|field| field.is("SUBJECT")).unwrap().name, b"Subject");
    }

    #[test]
    fn received_fields_are_counted_and_nothing_behind_the_header_is() {
        assert_eq!(received_count(BODY), 3);
        assert_eq!(received_count(b".Received: x\r\n.\r\nReceived: next\r\n"), 1);
        assert_eq!(received_count(b"A: \nReceived: x\rReceived: y\r\n\r\n"), 0);
        let mut counter = HeaderWatch::new();
        assert!(counter.push(b"Received: x\r\n\r"));
        assert!(!counter.push(b"\nReceived: y\r\n"));
        assert!(!counter.push(b"Received: z\r\n"));
        assert_eq!(counter.received(), 1);
    }

    #[test]
    fn tls_is_optional_when_the_field_says_no_and_nothing_else() {
        let says = |header: &str| {
            let mut watch = HeaderWatch::new();
            for byte in header.bytes() {
                watch.push(&[byte]);
            }
            let mut whole = HeaderWatch::new();
            whole.push(header.as_bytes());
            assert_eq!(whole.tls_optional(), watch.tls_optional(), "{header:?}");
            watch.tls_optional()
        };
        for yes in [
            "TLS-Required: No\r\n.\r\n",
            "A: 1\r\ntls-required:no\r\n\r\ntext\r\n.\r\n",
            "TLS-Required :\r\n\t(a (b\\) c)) nO (d)\r\n \r\nB: 2\r\n\r\n.\r\n",
            "TLS-Required: yes\r\nTLS-Required: No\r\n\r\n.\r\n",
        ] {
            assert!(says(yes), "{yes:?}");
        }
        for no in [
            "TLS-Required: No",
            "TLS-Required: Yes\r\n\r\n.\r\n",
            "TLS-Required: None\r\n\r\n.\r\n",
            "TLS-Required: N o\r\n\r\n.\r\n",
            "TLS-Required: N\r\n o\r\n\r\n.\r\n",
            "TLS-Required: No\r\n way\r\n\r\n.\r\n",
            "TLS-Required: No (open\r\n\r\n.\r\n",
            "TLS-Required: No\n\r\n\r\n.\r\n",
            "TLS-Required: \rNo\r\n\r\n.\r\n",
            "TLS-Required: (No)\r\n\r\n.\r\n",
            "TLS-Required:\r\n\r\n.\r\n",
            "X-TLS-Required: No\r\n\r\n.\r\n",
            " TLS-Required: No\r\n\r\n.\r\n",
            "A: 1\r\n\r\nTLS-Required: No\r\n.\r\n",
        ] {
            assert!(!says(no), "{no:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn counting_agrees_with_the_fields_however_it_is_cut(
            pieces in proptest::collection::vec(prop_oneof![
                Just("Received"), Just("rEceived: x"), Just(":"), Just(" "), Just("\r\n"),
                Just("\r"), Just("\n"), Just("."), Just("Subject: y"), Just("\r\n\r\n"),
            ], 0..20),
            cut in any::<proptest::sample::Index>(),
        ) {
            let body = pieces.concat().into_bytes();
            let expected = fields(&body).filter(|field| field.is("received")).count() as u32;
            prop_assert_eq!(received_count(&body), expected, "{:?}", pieces.concat());
            let (one, two) = body.split_at(cut.index(body.len() + 1));
            let mut counter = HeaderWatch::new();
            let open = counter.push(one);
            prop_assert_eq!(counter.push(two) && !open, false);
            prop_assert_eq!(counter.received(), expected);
        }
    }
}
