//! The addresses of a header field: which they are, and whether they are written as RFC
//! 5322 (3.4) has it, with domains that are fully qualified, as a submission server has
//! to see to (RFC 6409, 4.2 and 5.1).
//!
//! Called by `submission` with the value of a field as it comes. [`ListWatch`] keeps
//! nothing of it, so it may be of any length. The obsolete forms of RFC 5322 (4.4) count
//! as well written: routes, empty members of a list, blanks around dots.
//! So does an encoded word with commas or parentheses (`encoded_word`).

use super::encoded_word::{self, EncodedWord, Step};

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

    /// The section of RFC 6409 that asks for what it has not.
    pub fn section(self) -> &'static str {
        match self {
            Fault::Malformed | Fault::NoDomain => "5.1",
            Fault::NotQualified => "4.2",
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
    /// The octet before is part of a word, which goes on.
    in_word: bool,
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
    /// What may be an encoded word.
    Encoded(EncodedWord),
}

/// What was seen of a mailbox.
#[derive(Clone, Copy, Debug, Default)]
struct Mailbox {
    is_begun: bool,
    /// Behind the `@`, if there was one.
    domain: Option<DomainSeen>,
    /// Nothing that follows makes an address of it.
    is_malformed: bool,
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
        match (&mut self.domain, octet) {
            (None, b'@') => {
                self.is_malformed |= !self.is_begun;
                self.domain = Some(DomainSeen::default());
            }
            // Lists end outside the brackets, and a route is forgotten when it ends.
            (Some(_), b'@') | (_, b',' | b';') => self.is_malformed = true,
            (None, _) => {}
            (Some(domain), b'.') => {
                self.is_malformed |= !domain.is_begun || domain.ends_in_dot;
                domain.ends_in_dot = true;
                domain.is_begun = true;
            }
            (Some(domain), _) => {
                domain.is_dotted |= domain.ends_in_dot;
                domain.ends_in_dot = false;
                domain.is_begun = true;
                domain.is_literal |= octet == b'[';
            }
        }
        self.is_begun = true;
    }

    fn fault(&self) -> Option<Fault> {
        match &self.domain {
            _ if self.is_malformed => Some(Fault::Malformed),
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
        if let Within::Encoded(word) = self.within {
            self.end_encoded(word);
        }
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
            (Within::Encoded(word), _) => self.take_encoded(word, octet),
            (Within::Text, _) => self.take_text(octet),
        }
    }

    fn take_encoded(&mut self, mut word: EncodedWord, octet: u8) {
        match word.step(octet) {
            Step::On => self.within = Within::Encoded(word),
            Step::Ended => {
                self.within = Within::Text;
                self.in_word = false;
            }
            Step::Broken => {
                self.end_encoded(word);
                self.take_text(octet);
            }
        }
    }

    /// It was none: what separates words elsewhere has done so here.
    fn end_encoded(&mut self, word: EncodedWord) {
        self.within = Within::Text;
        if word.has_specials() {
            self.note(Fault::Malformed);
        }
    }

    /// Takes an octet outside comments, quotes and literals.
    fn take_text(&mut self, octet: u8) {
        let was_in_word = std::mem::take(&mut self.in_word);
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
            _ => {
                // They stand before an address, never in it.
                let may_begin = !was_in_word && !self.in_angle && self.plain.domain.is_none();
                if octet == b'=' && may_begin {
                    self.within = Within::Encoded(EncodedWord::default());
                }
                self.in_word = true;
                self.push_octet(octet);
            }
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

/// What is wrong with the first address of a list that is not as it should be.
pub fn fault(value: &[u8]) -> Option<Fault> {
    let mut watch = ListWatch::default();
    watch.push(value);
    watch.end()
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
    let (mut chars, mut in_word) = (text.chars(), false);
    loop {
        let rest = chars.as_str();
        let Some(c) = chars.next() else { break };
        let was_in_word = std::mem::take(&mut in_word);
        let part = if in_angle { angle.get_or_insert_default() } else { &mut plain };
        if !was_in_word
            && !in_angle
            && !part.contains('@')
            && let Some(len) = encoded_word::len(rest)
        {
            part.push_str(&rest[..len]);
            chars = rest[len..].chars();
            continue;
        }
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
            c => {
                in_word = true;
                part.push(c);
            }
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
            "<@a,@b:c@d.example>",
            "a@x.example: b@c.example;",
            "=?utf-8?Q?Smith,_John?= <a@b.example>, =?utf-8?Q?Smith,_Jane?=\r\n\t<c@d.example>",
            "us: =?utf-8?B?4pi6?= =?utf-8?Q?(a)b:c;_[?= <a@b.example>;",
            "\"x\"=?utf-8?q?=28a,b?==?utf-8?q?c,d?=<a@b.example>",
            // These only begin like one.
            "=?utf-8?Q?Smith <a@b.example>",
            "=?utf-8?Q?j.smith@x?= <a@b.example>",
            "=?x <a@b.example>, =x@b.example, =?@b.example",
            "=?utf-8?Q?x@b.example",
        ] {
            assert_eq!(fault(value.as_bytes()), None, "{value:?}");
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
            ("a@(b.example)sales", NotQualified),
            ("a@b.example <a@sales>", NotQualified),
            ("a@", Malformed),
            ("a@@b.example", Malformed),
            ("a@b@c.example", Malformed),
            ("a@b.example c@d.example", Malformed),
            ("<a@b.example c@d.example>", Malformed),
            ("<a@b.example,c>", Malformed),
            ("<a@b.example;c>", Malformed),
            ("@b.example", Malformed),
            ("<@b.example>", Malformed),
            ("a@b.example, (c) @d.example", Malformed),
            ("a@b..example", Malformed),
            ("a@.b.example", Malformed),
            ("a@.sales", Malformed),
            ("Smith, John <a@b.example>", NoDomain),
            // No encoded words.
            ("=?utf-8?Q?Smith, John?= <a@b.example>", Malformed),
            ("=?utf-8?Q?Smith,_John", Malformed),
            ("=?utf-8?Q?a,b?c?d= <a@b.example>", Malformed),
            ("x=?utf-8?Q?Smith,_John?= <a@b.example>", NoDomain),
            ("=?utf,8?Q?Smith?= <a@b.example>", NoDomain),
            ("=?utf-8?Q?Smith,_John?=", NoDomain),
            ("a@b.example =?utf-8?Q?Smith,_John?=", NoDomain),
            ("<a@b.example> =?utf-8?Q?Smith?=", Malformed),
            ("Al <a@b.example", Malformed),
            ("\"Al <a@b.example>", Malformed),
            ("a@b.example (x", Malformed),
            ("a@[192.0.2.1", Malformed),
            ("a@b.example>", Malformed),
            ("Al <a@b.example> <c@d.example>", Malformed),
            ("<a@b.example> Al", Malformed),
        ] {
            assert_eq!(fault(value.as_bytes()), Some(expected), "{value:?}");
            assert!(!expected.text().is_empty());
        }
    }

    #[test]
    fn an_encoded_word_is_part_of_a_name() {
        for (value, expected) in [
            ("=?utf-8?Q?Smith,_John?= <a@b.example>", &["a@b.example"][..]),
            ("us: =?utf-8?q?(a,b?==?utf-8?q?c)?= <a@b.example>, c@d", &["a@b.example", "c@d"]),
            ("=?utf-8?q?a,b?=", &["=?utf-8?q?a,b?="]),
            // What may be another author is not hidden.
            ("=?u?q?<x@y>,?= <a@b.example>", &["x@y", "a@b.example"]),
            ("=?u?q?x@y,?= <a@b.example>", &["=?u?q?x@y", "a@b.example"]),
            ("=?u?q?x, y?= <a@b.example>", &["=?u?q?x", "a@b.example"]),
            ("c@d =?u?q?x,y?= <a@b.example>", &["c@d=?u?q?x", "a@b.example"]),
            ("x=?u?q?x,y?= <a@b.example>", &["x=?u?q?x", "a@b.example"]),
        ] {
            assert_eq!(addresses(value.as_bytes()), expected, "{value:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_depends_on_how_the_value_is_cut(value in "[a@=?.,;:<>()\\[\\]\"\\\\ \r\n]{0,30}", cut in 1..9usize) {
            let mut watch = ListWatch::default();
            value.as_bytes().chunks(cut).for_each(|part| watch.push(part));
            prop_assert_eq!(watch.end(), fault(value.as_bytes()));
        }
    }
}
