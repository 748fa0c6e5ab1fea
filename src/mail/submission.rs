//! What a submission server completes in the header of a message (RFC 6409,
//! section 8): Date, Message-ID and From where they are missing, Sender where the
//! author is not the user's own address, and Bcc taken out (RFC 5322, 3.6.3). Who
//! does that has to see to it that the addresses of the header are whole, too (RFC
//! 6409, 4.2 and 5.1): the first one that is not is told by [`Completion::fault`].
//!
//! Called by the receiving session with the body as it comes, in wire form and
//! chunk by chunk; what it returns is stored. Only the header section is touched:
//! what is added stands at its end. A message that begins without a field has no
//! header section; it gets one.
//!
//! Bounded: of a line no more than its name is held back, of the addresses looked
//! at no more than some kilobytes. As in `headers`, only CRLF ends a line.

use std::sync::Arc;

use super::addresses::{self, Fault, ListWatch, addresses};
use crate::base::users::User;

/// Longest field name; what is longer begins the text.
const NAME_MAX: usize = 128;
/// Octets of From and Sender that are looked at.
const ADDRESSES_MAX: usize = 16 * 1024;

/// Fields whose addresses are looked at. Bcc is taken out, whatever is in it; so is
/// Sender, unless it is the user's own, where From and Sender are held against somebody.
const LISTS: [&str; 9] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
];

/// What fields are made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Now, as [`crate::mail::date::rfc5322`] writes it.
    pub date: Vec<u8>,
    /// What stands left of the `@` in Message-ID: no other message has it.
    pub unique: String,
    /// Our host name.
    pub hostname: String,
    /// The sender in MAIL; empty for the null sender.
    pub sender: String,
    /// Whose addresses From and Sender are held against; `None` to leave them.
    pub owner: Option<Arc<User>>,
}

/// A field that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Date,
    MessageId,
    From,
    Sender,
    Bcc,
    Other,
}

/// Where the header stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the name of a field, or before one: held back.
    Name,
    /// In a line of this field, perhaps behind a CR.
    Line { kind: Kind, cr: bool },
    /// Behind the header section.
    Text,
}

/// What a line turns out to be.
enum Line {
    Field(Kind),
    Continued,
    /// The blank line, or the terminator.
    End,
    /// No field: the text begins without a blank line.
    Text,
}

/// Completes one message.
#[derive(Debug)]
pub struct Completion {
    facts: Facts,
    at: At,
    held: Vec<u8>,
    /// The field that a continuation line belongs to.
    current: Option<Kind>,
    has_date: bool,
    has_message_id: bool,
    from: Option<Vec<u8>>,
    sender: Option<Vec<u8>>,
    /// The addresses of this field, which goes on.
    list: Option<(&'static str, ListWatch)>,
    fault: Option<(&'static str, Fault)>,
}

impl Completion {
    /// For the message that begins now.
    pub fn new(facts: Facts) -> Completion {
        Completion {
            facts,
            at: At::Name,
            held: Vec::new(),
            current: None,
            has_date: false,
            has_message_id: false,
            from: None,
            sender: None,
            list: None,
            fault: None,
        }
    }

    /// Of the header as far as it has come: the field with the first address that is
    /// not as it should be, and what is wrong with it.
    pub fn fault(&self) -> Option<(&'static str, Fault)> {
        self.fault
    }

    /// True behind the header section: what follows is stored as it is.
    pub fn is_done(&self) -> bool {
        self.at == At::Text
    }

    /// Appends what is to be stored for the next chunk. The terminator ends the
    /// header section at the latest, so nothing is held back at the end.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while !rest.is_empty() {
            match self.at {
                At::Text => {
                    out.extend_from_slice(rest);
                    return;
                }
                At::Name => {
                    self.held.push(rest[0]);
                    rest = &rest[1..];
                    if let Some(line) = self.line() {
                        self.begin(line, out);
                    }
                }
                At::Line { kind, cr } => {
                    let (len, ended) = line_len(rest, cr);
                    self.keep(kind, &rest[..len], out);
                    let cr = rest[len - 1] == b'\r';
                    self.at = if ended { At::Name } else { At::Line { kind, cr } };
                    rest = &rest[len..];
                }
            }
        }
    }

    /// What the line is that is held back, once that is clear.
    fn line(&self) -> Option<Line> {
        if self.held == b"\r\n" || self.held == b".\r\n" {
            return Some(Line::End);
        }
        let text = self.held.strip_prefix(b".").unwrap_or(&self.held);
        match text {
            [b' ' | b'\t', ..] => {
                Some(if self.current.is_some() { Line::Continued } else { Line::Text })
            }
            [name @ .., b':'] => {
                let len = name.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
                let name = &name[..len.map_or(0, |at| at + 1)];
                let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
                Some(if is_name { Line::Field(kind_of(name)) } else { Line::Text })
            }
            [.., b'\n'] => Some(Line::Text),
            _ => (text.len() > NAME_MAX).then_some(Line::Text),
        }
    }

    /// Goes on with what is held back, now that it is known what it is.
    fn begin(&mut self, line: Line, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        if !matches!(line, Line::Continued) {
            self.end_list();
        }
        let kind = match line {
            Line::Field(kind) => kind,
            Line::Continued => self.current.expect("a field goes on"),
            Line::End | Line::Text => {
                self.complete(out);
                if matches!(line, Line::Text) {
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(&held);
                self.at = At::Text;
                return;
            }
        };
        if matches!(line, Line::Field(_)) {
            self.current = Some(kind);
            let is_replaced = kind == Kind::Sender && self.facts.owner.is_some();
            let list = list_of(&held).filter(|_| !is_replaced);
            self.list = list.map(|name| (name, ListWatch::default()));
            self.note(kind);
        }
        if !matches!(kind, Kind::Bcc | Kind::Sender) {
            out.extend_from_slice(&held);
        }
        if matches!(line, Line::Continued) {
            // The blank that continues the line belongs to its value.
            self.watch(kind, b" ");
            self.watch_list(b" ");
        }
        self.at = At::Line { kind, cr: false };
    }

    /// A field of this kind begins.
    fn note(&mut self, kind: Kind) {
        match kind {
            Kind::Date => self.has_date = true,
            Kind::MessageId => self.has_message_id = true,
            Kind::From => self.watch(Kind::From, b","),
            Kind::Sender => self.watch(Kind::Sender, b""),
            Kind::Bcc | Kind::Other => {}
        }
    }

    /// The field that went on has ended.
    fn end_list(&mut self) {
        if let Some((name, list)) = self.list.take()
            && let Some(fault) = list.end()
        {
            self.fault.get_or_insert((name, fault));
        }
    }

    fn watch_list(&mut self, part: &[u8]) {
        if let Some((_, list)) = &mut self.list {
            list.push(part);
        }
    }

    /// Passes on a part of a line, unless it is of a field that is taken out.
    fn keep(&mut self, kind: Kind, part: &[u8], out: &mut Vec<u8>) {
        self.watch_list(part);
        match kind {
            Kind::Bcc => {}
            Kind::Sender => self.watch(kind, part),
            Kind::From => {
                self.watch(kind, part);
                out.extend_from_slice(part);
            }
            Kind::Date | Kind::MessageId | Kind::Other => out.extend_from_slice(part),
        }
    }

    /// Remembers a part of a value.
    fn watch(&mut self, kind: Kind, part: &[u8]) {
        let value = match kind {
            Kind::From => &mut self.from,
            Kind::Sender => &mut self.sender,
            _ => return,
        };
        let value = value.get_or_insert_default();
        let room = ADDRESSES_MAX.saturating_sub(value.len());
        let part = &part[..part.len().min(room)];
        value.extend(part.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    }

    /// Appends the fields that are missing.
    fn complete(&self, out: &mut Vec<u8>) {
        let Facts { date, unique, hostname, sender, owner } = &self.facts;
        if !self.has_date {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(date);
            out.extend_from_slice(b"\r\n");
        }
        if !self.has_message_id {
            out.extend_from_slice(format!("Message-ID: <{unique}@{hostname}>\r\n").as_bytes());
        }
        let address = match (&**sender, owner) {
            ("", Some(owner)) if owner.name.contains('@') => &owner.name,
            ("", _) => &format!("MAILER-DAEMON@{hostname}"),
            (sender, _) => sender,
        };
        match &self.from {
            None => out.extend_from_slice(format!("From: <{address}>\r\n").as_bytes()),
            Some(from) => self.complete_sender(from, address, out),
        }
    }

    /// Appends Sender: the one that was written if the user owns it and it is whole, or
    /// nobody asks, ours if the author is somebody else, or there are several.
    fn complete_sender(&self, from: &[u8], address: &str, out: &mut Vec<u8>) {
        let written = self.sender.as_deref().unwrap_or_default();
        let Some(owner) = &self.facts.owner else {
            if self.sender.is_some() {
                write_sender(written, out);
            }
            return;
        };
        let owns = |value: &[u8]| {
            let addresses = addresses(value);
            addresses.len() == 1 && addresses.iter().all(|address| owner.owns(address))
        };
        if owns(written) && addresses::fault(written).is_none() {
            write_sender(written, out);
        } else if !owns(from) {
            write_sender(format!("<{address}>").as_bytes(), out);
        }
    }
}

fn write_sender(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"Sender: ");
    out.extend_from_slice(value.trim_ascii());
    out.extend_from_slice(b"\r\n");
}

fn kind_of(name: &[u8]) -> Kind {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match () {
        () if is("Date") => Kind::Date,
        () if is("Message-ID") => Kind::MessageId,
        () if is("From") => Kind::From,
        () if is("Sender") => Kind::Sender,
        () if is("Bcc") || is("Resent-Bcc") => Kind::Bcc,
        () => Kind::Other,
    }
}

/// The field whose addresses are looked at, if a line that begins with `held` is one.
fn list_of(held: &[u8]) -> Option<&'static str> {
    let text = held.strip_prefix(b".").unwrap_or(held);
    let name = text.strip_suffix(b":").unwrap_or(text).trim_ascii_end();
    LISTS.into_iter().find(|list| name.eq_ignore_ascii_case(list.as_bytes()))
}

/// Octets of `rest` that belong to the line, and whether it ends with them;
/// `cr` if the octet before them was a CR.
fn line_len(rest: &[u8], cr: bool) -> (usize, bool) {
    if cr && rest[0] == b'\n' {
        return (1, true);
    }
    match memchr::memmem::find(rest, b"\r\n") {
        Some(at) => (at + 2, true),
        None => (rest.len(), false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::users::Sender;

    fn facts(sender: &str) -> Facts {
        let mut owner = User::new("alice@a.example".into());
        owner.senders.push(Sender::parse("alice@a.example").unwrap());
        Facts {
            date: b"Wed, 25 Nov 2026 12:00:00 +0000".to_vec(),
            unique: "1f".into(),
            hostname: "mx.example".into(),
            sender: sender.into(),
            owner: Some(Arc::new(owner)),
        }
    }

    fn completed_with(facts: Facts, text: &str, cut: usize) -> String {
        let mut completion = Completion::new(facts);
        let mut out = Vec::new();
        for chunk in text.as_bytes().chunks(cut) {
            completion.push(chunk, &mut out);
        }
        assert!(completion.is_done(), "{text:?}");
        String::from_utf8(out).unwrap()
    }

    fn completed(text: &str) -> String {
        completed_with(facts("alice@a.example"), text, text.len())
    }

    const DATE: &str = "Date: Wed, 25 Nov 2026 12:00:00 +0000\r\n";
    const ID: &str = "Message-ID: <1f@mx.example>\r\n";
    const FROM: &str = "From: <alice@a.example>\r\n";

    #[test]
    fn what_is_missing_stands_at_the_end_of_the_header() {
        for (text, expected) in [
            ("To: b@b\r\n\r\nhi\r\n.\r\n", format!("To: b@b\r\n{DATE}{ID}{FROM}\r\nhi\r\n.\r\n")),
            ("\r\nhi\r\n.\r\n", format!("{DATE}{ID}{FROM}\r\nhi\r\n.\r\n")),
            (".\r\n", format!("{DATE}{ID}{FROM}.\r\n")),
            ("To: b@b\r\n.\r\n", format!("To: b@b\r\n{DATE}{ID}{FROM}.\r\n")),
            ("hi there: you\r\n.\r\n", format!("{DATE}{ID}{FROM}\r\nhi there: you\r\n.\r\n")),
            (" hi\r\n.\r\n", format!("{DATE}{ID}{FROM}\r\n hi\r\n.\r\n")),
            ("To: b\r\nhi\r\n.\r\n", format!("To: b\r\n{DATE}{ID}{FROM}\r\nhi\r\n.\r\n")),
            ("..hi\r\n.\r\n", format!("{DATE}{ID}{FROM}\r\n..hi\r\n.\r\n")),
        ] {
            assert_eq!(completed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_there_is_left() {
        let text = "DATE : x\r\nmessage-id: <y>\r\nFrom: Alice <alice@a.example>\r\n\
                    Subject: Bcc: no\r\n\r\nBcc: body\r\n.\r\n";
        assert_eq!(completed(text), text);
    }

    #[test]
    fn bcc_is_taken_out_with_its_continuations() {
        let rest = format!("Date: x\r\n{ID}{FROM}");
        let text = format!(
            "Bcc: secret@b\r\nBCC : a@b,\r\n c@d\r\n\te@f\r\n.bcc: stuffed@b\r\nResent-Bcc: g@h\r\n\
             Bccx: kept\r\n{rest}\r\nBcc: text\r\n.\r\n"
        );
        assert_eq!(completed(&text), format!("Bccx: kept\r\n{rest}\r\nBcc: text\r\n.\r\n"));
    }

    #[test]
    fn a_sender_is_named_who_is_not_the_author() {
        let head = format!("Date: x\r\n{ID}");
        let ours = "Sender: <alice@a.example>\r\n";
        for (given, expected) in [
            ("From: boss@b.example", ours),
            ("From: \"alice@a.example\" <boss@b.example>", ours),
            ("From: boss@b.example (alice@a.example)", ours),
            ("From: alice@a.example, boss@b.example", ours),
            ("From: alice@a.example\r\nFrom: boss@b.example", ours),
            ("From: boss@b.example\r\nSender: boss@b.example", ours),
            (
                "From: boss@b.example\r\nSender: Al\r\n <alice@a.example>",
                "Sender: Al <alice@a.example>\r\n",
            ),
            ("From: boss@b.example\r\nSender: bob", ours),
            ("From: boss@b.example\r\nSender: <alice@a.example", ours),
            ("From: Alice\r\n <ALICE@a.example>", ""),
            ("From: =?utf-8?Q?A,_Al?= <alice@a.example>", ""),
            ("From: alice@a.example\r\nSender: bob", ""),
            ("From: alice@a.example (me \\) here)", ""),
            ("From: us: alice@a.example;", ""),
            ("From: alice@a.example\r\nSender: boss@b.example", ""),
        ] {
            let from = given.split("\r\nSender").next().unwrap();
            let text = format!("{head}{given}\r\n\r\n.\r\n");
            assert_eq!(completed(&text), format!("{head}{from}\r\n{expected}\r\n.\r\n"), "{given}");
        }
        let lax = Facts { owner: None, ..facts("alice@a.example") };
        let text = format!("{head}Sender: x@y\r\nFrom: boss@b.example\r\n\r\n.\r\n");
        let kept = format!("{head}From: boss@b.example\r\nSender: x@y\r\n\r\n.\r\n");
        assert_eq!(completed_with(lax, &text, 9), kept);
    }

    #[test]
    fn the_null_sender_gets_an_author_too() {
        let text = completed_with(facts(""), "\r\n.\r\n", 1);
        assert!(text.contains("From: <alice@a.example>\r\n"), "{text}");
        let nobody = Facts { owner: None, ..facts("") };
        let text = completed_with(nobody, "\r\n.\r\n", 1);
        assert!(text.contains("From: <MAILER-DAEMON@mx.example>\r\n"), "{text}");
    }

    #[test]
    fn the_first_address_that_is_not_whole_is_told() {
        let fault = |text: &str, is_lax: bool| {
            let faults = [1, 7, text.len()].map(|cut| {
                let mut facts = facts("alice@a.example");
                facts.owner = facts.owner.filter(|_| !is_lax);
                let mut completion = Completion::new(facts);
                text.as_bytes().chunks(cut).for_each(|part| completion.push(part, &mut Vec::new()));
                completion.fault()
            });
            assert!(faults[0] == faults[1] && faults[1] == faults[2], "{text:?}: {faults:?}");
            faults[0].map(|(field, fault)| format!("{field} {}", fault.text()))
        };
        for (text, expected) in [
            ("To: b@c.example\r\nSubject: to bob\r\nBcc: bob\r\n\r\nTo: bob\r\n.\r\n", None),
            ("To:\r\nCc: us:;\r\n\r\n.\r\n", None),
            ("To: Bob\r\n <b@c.example>\r\n.\r\n", None),
            ("TO : bob\r\n\r\n.\r\n", Some("To has no domain")),
            (".cc: b@sales\r\n.\r\n", Some("Cc has a domain that is not fully qualified")),
            ("To: b@c.example,\r\n\tbob\r\nFrom: x\r\n\r\n.\r\n", Some("To has no domain")),
            ("Reply-To: Bob <b@c.example\r\n\r\n.\r\n", Some("Reply-To is malformed")),
            (
                "Resent-From: a@b\r\nhi\r\n.\r\n",
                Some("Resent-From has a domain that is not fully qualified"),
            ),
        ] {
            for is_lax in [false, true] {
                assert_eq!(fault(text, is_lax).as_deref(), expected, "{text:?}");
            }
        }
        // It is put right where it is held against somebody.
        let text = "Sender: bob\r\nTo: b@c.example\r\n\r\n.\r\n";
        assert_eq!(fault(text, false), None);
        assert_eq!(fault(text, true).as_deref(), Some("Sender has no domain"));
    }

    #[test]
    fn lines_without_end_are_not_held() {
        let mut completion = Completion::new(facts("alice@a.example"));
        let mut out = Vec::new();
        completion.push(b"From: ", &mut out);
        for _ in 0..100 {
            completion.push(&[b'x'; 1000], &mut out);
        }
        assert_eq!(out.len(), 100_006);
        assert_eq!(completion.from.as_ref().unwrap().len(), ADDRESSES_MAX);
        let mut completion = Completion::new(facts("alice@a.example"));
        completion.push(&[b'x'; 1000], &mut out);
        assert!(completion.is_done() && completion.held.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_depends_on_how_the_message_is_cut(
            lines in proptest::collection::vec("(Bcc|From|Sender|Date|X|\\.|\\.\\.)?[: ]?[a-z@<>\", \r]{0,9}", 0..8),
            cut in 1..20usize,
        ) {
            let text = lines.join("\r\n") + "\r\n.\r\n";
            let whole = completed(&text);
            prop_assert_eq!(&completed_with(facts("alice@a.example"), &text, cut), &whole);
            prop_assert!(whole.ends_with("\r\n.\r\n") || whole.ends_with(".\r\n"));
        }
    }
}
