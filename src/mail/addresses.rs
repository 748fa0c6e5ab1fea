//! The addresses of a header field: which they are, and whether they are written as RFC
//! 5322 (3.4) has it, with domains that are fully qualified, as a submission server has
//! to see to (RFC 6409, 4.2 and 5.1).
//!
//! Called by `submission` with the value of a field as it comes. [`ListWatch`] keeps
//! nothing of it, so it may be of any length. The obsolete forms of RFC 5322 (4.4) count
//! as well written: routes, empty members of a list, blanks around dots.

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be read as one.
    Malformed,
    /// There is no `@` in it.
    NoDomain,
    /// Its domain is a name of one label, which can be a short form of another one.
    NotQualified,
}

impl Fault {
    /// In words, as the subject is an address.
    pub fn text(self) -> &'static str {
        match self {
            Fault::Malformed => "is malformed",
            Fault::NoDomain => "has no domain",
            Fault::NotQualified => "has a domain that is not fully qualified",
        }
    }
}

/// Watches one address list.
#[derive(Clone, Debug, Default)]
pub struct ListWatch {
    within: Within,
    /// Comments that are open.
    comments: u32,
    /// A backslash came before.
    is_escaped: bool,
    /// The mailbox so far: what stands in it outside angle brackets, and inside.
    plain: Mailbox,
    angle: Option<Mailbox>,
    in_angle: bool,
    fault: Option<Fault>,
}

/// What the next octet is part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Text,
    Quotes,
    Literal,
}

/// What was seen of a mailbox.
#[derive(Clone, Copy, Debug, Default)]
struct Mailbox {
    is_begun: bool,
    /// Behind the `@`, if there was one.
    domain: Option<DomainSeen>,
}

/// What was seen of a domain.
#[derive(Clone, Copy, Debug, Default)]
struct DomainSeen {
    is_begun: bool,
    is_literal: bool,
    /// A dot was the last that came.
    ends_in_dot: bool,
    /// A dot stands between two labels.
    is_dotted: bool,
}

impl Mailbox {
    fn push(&mut self, octet: u8) {
        self.is_begun = true;
        match (&mut self.domain, octet) {
            (_, b'@') => self.domain = Some(DomainSeen::default()),
            (None, _) => {}
            (Some(domain), b'.') => {
                domain.ends_in_dot = domain.is_begun;
                domain.is_begun = true;
            }
            (Some(domain), _) => {
                domain.is_dotted |= domain.ends_in_dot;
                domain.ends_in_dot = false;
                domain.is_begun = true;
                domain.is_literal |= octet == b'[';
            }
        }
    }

    fn fault(&self) -> Option<Fault> {
        match &self.domain {
            None => Some(Fault::NoDomain),
            Some(domain) if !domain.is_begun => Some(Fault::Malformed),
            Some(domain) if domain.is_literal || domain.is_dotted => None,
            Some(_) => Some(Fault::NotQualified),
        }
    }
}

impl ListWatch {
    /// Takes the next part of the value, line ends included.
    pub fn push(&mut self, part: &[u8]) {
        for &octet in part {
            self.take(octet);
        }
    }

    /// What is wrong with the first address that is not as it should be, once the
    /// value has ended.
    pub fn end(mut self) -> Option<Fault> {
        let is_open = self.within != Within::Text || self.comments > 0 || self.in_angle;
        if is_open {
            return self.fault.or(Some(Fault::Malformed));
        }
        self.end_mailbox();
        self.fault
    }

    fn take(&mut self, octet: u8) {
        if matches!(octet, b'\r' | b'\n') {
            return;
        }
        if std::mem::take(&mut self.is_escaped) {
            return;
        }
        if self.comments > 0 {
            match octet {
                b'\\' => self.is_escaped = true,
                b'(' => self.comments = self.comments.saturating_add(1),
                b')' => self.comments -= 1,
                _ => {}
            }
            return;
        }
        match (self.within, octet) {
            (Within::Quotes | Within::Literal, b'\\') => self.is_escaped = true,
            (Within::Quotes, b'"') | (Within::Literal, b']') => self.within = Within::Text,
            (Within::Quotes | Within::Literal, _) => {}
            (Within::Text, _) => self.take_text(octet),
        }
    }

    /// Takes an octet outside comments, quotes and literals.
    fn take_text(&mut self, octet: u8) {
        match octet {
            b' ' | b'\t' => {}
            b'(' => self.comments = 1,
            b'<' if self.angle.is_some() => self.note(Fault::Malformed),
            b'<' => {
                self.angle = Some(Mailbox::default());
                self.in_angle = true;
            }
            b'>' if self.in_angle => self.in_angle = false,
            b'>' => self.note(Fault::Malformed),
            // The end of a route, and the name of a group.
            b':' if self.in_angle => self.angle = Some(Mailbox::default()),
            b':' => self.plain = Mailbox::default(),
            b',' | b';' if !self.in_angle => self.end_mailbox(),
            b'"' | b'[' => {
                self.within = if octet == b'"' { Within::Quotes } else { Within::Literal };
                self.push_octet(octet);
            }
            _ => self.push_octet(octet),
        }
    }

    fn push_octet(&mut self, octet: u8) {
        match &mut self.angle {
            Some(mailbox) if self.in_angle => mailbox.push(octet),
            // Words behind the brackets.
            Some(_) => self.note(Fault::Malformed),
            None => self.plain.push(octet),
        }
    }

    fn end_mailbox(&mut self) {
        let plain = std::mem::take(&mut self.plain);
        let fault = match self.angle.take() {
            Some(mailbox) => mailbox.fault(),
            None if plain.is_begun => plain.fault(),
            None => None,
        };
        self.fault = self.fault.or(fault);
    }

    fn note(&mut self, fault: Fault) {
        self.fault = self.fault.or(Some(fault));
    }
}

/// The addresses of an address list (RFC 5322, 3.4), as far as they can be told;
/// what cannot be read as one stands for itself.
pub fn addresses(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value);
    let mut addresses = Vec::new();
    // The mailbox so far, and what stands in angle brackets in it.
    let (mut plain, mut angle): (String, Option<String>) = Default::default();
    let mut in_angle = false;
    let mut end = |plain: &mut String, angle: &mut Option<String>| {
        let address = angle.take().unwrap_or_else(|| std::mem::take(plain));
        plain.clear();
        if !address.is_empty() {
            addresses.push(address);
        }
    };
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let part = if in_angle { angle.get_or_insert_default() } else { &mut plain };
        match c {
            '(' => skip_comment(&mut chars),
            '"' => {
                part.push('"');
                while let Some(c) = chars.next() {
                    part.push(c);
                    match c {
                        '\\' => part.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '<' => {
                in_angle = true;
                angle = Some(String::new());
            }
            '>' => in_angle = false,
            ',' | ';' if !in_angle => end(&mut plain, &mut angle),
            ':' if !in_angle => plain.clear(),
            c if c.is_whitespace() => {}
            c => part.push(c),
        }
    }
    end(&mut plain, &mut angle);
    addresses
}

fn skip_comment(chars: &mut std::str::Chars<'_>) {
    let mut depth = 1;
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(chars.next()),
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(value: &str) -> Option<Fault> {
        let mut watch = ListWatch::default();
        watch.push(value.as_bytes());
        watch.end()
    }

    #[test]
    fn what_is_well_written_is_taken() {
        for value in [
            "",
            " \r\n",
            " a@b.example",
            "Al <a@b.example>",
            "\"Al, of <x> (y\" <a@b.example>, \"c d\"@e.example",
            "a@b.example (of x, <y> \\) and (z))",
            "\"x@y\" (@z) <a@b.example>",
            "us: a@b.example, Bob <c@d.example>; , e@f.example,",
            "undisclosed-recipients:;",
            "<@x,@y.example:a@b.example>",
            "a@[192.0.2.1], <b@[IPv6:::1]>",
            "Al\r\n <a@b\r\n .example>",
            "J\u{fc}rgen <j\u{fc}rgen@b\u{fc}cher.example>",
            "=?utf-8?q?J=C3=BCrgen?= <a@b.example>",
            "\"a\\\"@x\"@b.example",
            "a @ b . example",
        ] {
            assert_eq!(fault(value), None, "{value:?}");
        }
    }

    #[test]
    fn what_is_not_is_told() {
        use Fault::{Malformed, NoDomain, NotQualified};
        for (value, expected) in [
            ("bob", NoDomain),
            ("Bob Smith", NoDomain),
            ("a@b.example, bob, c", NoDomain),
            ("<bob>", NoDomain),
            ("<>", NoDomain),
            ("us: bob;", NoDomain),
            ("\"a@b.example\"", NoDomain),
            ("a@sales", NotQualified),
            ("Al <a@sales>, b@c.example", NotQualified),
            ("a@b.example, c@sales.", NotQualified),
            ("a@.sales", NotQualified),
            ("a@(b.example)sales", NotQualified),
            ("a@b.example <a@sales>", NotQualified),
            ("a@", Malformed),
            ("Al <a@b.example", Malformed),
            ("\"Al <a@b.example>", Malformed),
            ("a@b.example (x", Malformed),
            ("a@[192.0.2.1", Malformed),
            ("a@b.example>", Malformed),
            ("Al <a@b.example> <c@d.example>", Malformed),
            ("<a@b.example> Al", Malformed),
        ] {
            assert_eq!(fault(value), Some(expected), "{value:?}");
            assert!(!expected.text().is_empty());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_depends_on_how_the_value_is_cut(value in "[a@.,;:<>()\\[\\]\"\\\\ \r\n]{0,30}", cut in 1..9usize) {
            let mut watch = ListWatch::default();
            value.as_bytes().chunks(cut).for_each(|part| watch.push(part));
            prop_assert_eq!(watch.end(), fault(&value));
        }
    }
}
