//! What a sender asked about reports (RFC 3461): the parameters RET and ENVID of
//! MAIL, NOTIFY and ORCPT of RCPT. Part of the envelope; most mail has none.

use crate::base::limits::{ENVID_MAX, ORCPT_MAX};
use crate::base::xtext;

/// RET: what of the message a report about a failure returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header.
    Headers,
}

impl Ret {
    /// The value of the parameter.
    pub fn keyword(self) -> &'static str {
        match self {
            Ret::Full => "FULL",
            Ret::Headers => "HDRS",
        }
    }

    /// Reads the value, in any case.
    pub fn parse(value: &[u8]) -> Option<Ret> {
        [Ret::Full, Ret::Headers]
            .into_iter()
            .find(|ret| value.eq_ignore_ascii_case(ret.keyword().as_bytes()))
    }
}

/// NOTIFY: when a report about a recipient is wanted; none of the three is
/// `NEVER`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Notify {
    /// Once the message was delivered.
    pub success: bool,
    /// When it could not be.
    pub failure: bool,
    /// When that takes long.
    pub delay: bool,
}

impl Notify {
    /// `NEVER`.
    pub const NEVER: Notify = Notify { success: false, failure: false, delay: false };
    /// What the absence of NOTIFY means: RFC 3461, section 4.1, leaves the choice
    /// between this and failures alone.
    pub const ABSENT: Notify = Notify { success: false, failure: true, delay: true };

    /// Reads the value: `NEVER` alone, or a list of the others, in any case.
    pub fn parse(value: &[u8]) -> Option<Notify> {
        if value.eq_ignore_ascii_case(b"NEVER") {
            return Some(Notify::NEVER);
        }
        let mut notify = Notify::default();
        for word in value.split(|&byte| byte == b',') {
            let slot = if word.eq_ignore_ascii_case(b"SUCCESS") {
                &mut notify.success
            } else if word.eq_ignore_ascii_case(b"FAILURE") {
                &mut notify.failure
            } else if word.eq_ignore_ascii_case(b"DELAY") {
                &mut notify.delay
            } else {
                return None;
            };
            *slot = true;
        }
        Some(notify)
    }

    /// The words of the value; they are joined by commas.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        [
            (self == Notify::NEVER, "NEVER"),
            (self.success, "SUCCESS"),
            (self.failure, "FAILURE"),
            (self.delay, "DELAY"),
        ]
        .into_iter()
        .filter_map(|(is_said, word)| is_said.then_some(word))
    }
}

/// What was asked for one recipient.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct RecipientDsn {
    /// NOTIFY.
    pub notify: Option<Notify>,
    /// ORCPT, as it came: type, semicolon, encoded address.
    pub orcpt: Option<String>,
}

impl RecipientDsn {
    /// True when neither parameter was given.
    pub fn is_empty(&self) -> bool {
        self.notify.is_none() && self.orcpt.is_none()
    }
}

/// What was asked for a message.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Dsn {
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID, as it came: encoded.
    pub envid: Option<String>,
    /// What was asked for each recipient, in their order. The last ones are left
    /// out when nothing was.
    pub recipients: Vec<RecipientDsn>,
}

impl Dsn {
    /// Takes note of the parameters of the recipient with this index, all of
    /// those before it being known.
    pub fn note(&mut self, index: usize, asked: RecipientDsn) {
        if !asked.is_empty() {
            self.recipients.resize_with(index, RecipientDsn::default);
            self.recipients.push(asked);
        }
    }
}

/// True if `value` can be an ENVID.
pub fn is_envid(value: &[u8]) -> bool {
    (1..=ENVID_MAX).contains(&value.len()) && xtext::is_printable(value)
}

/// The text of an ORCPT if `value` is one: an address type that is an atom, and
/// xtext. Of type `utf-8` it may hold UTF-8 as it is (RFC 6533, section 3), which
/// goes with SMTPUTF8 only: for the caller to see to.
pub fn orcpt(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= ORCPT_MAX)?;
    let (kind, address) = text.split_once(';')?;
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*-/?^_`{|}~".contains(&byte);
    if kind.is_empty() || address.is_empty() || !kind.bytes().all(is_atom) {
        return None;
    }
    let is_sound = if kind.eq_ignore_ascii_case("utf-8") {
        !address.chars().any(|letter| letter.is_control() || letter.is_whitespace())
            && address.split(|letter: char| !letter.is_ascii()).all(is_printable)
    } else {
        is_printable(address)
    };
    is_sound.then_some(text)
}

fn is_printable(text: &str) -> bool {
    xtext::is_printable(text.as_bytes())
}

/// Appends `text` with what is not ASCII escaped as RFC 6533, section 3, has it
/// for places without UTF-8. What is escaped already stays so.
pub fn escape_utf8(text: &str, out: &mut String) {
    for letter in text.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            out.push_str(&format!("\\x{{{:X}}}", u32::from(letter)));
        }
    }
}

/// `text` with its escapes (`\x{F6}`) undone, as RFC 6533, section 3, has it for places
/// with UTF-8; `None` if one is malformed or stands for a control character.
pub fn unescape_utf8(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        let (digits, behind) = escape.strip_prefix("x{")?.split_once('}')?;
        let is_point = (2..=6).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let point = u32::from_str_radix(digits, 16).ok().filter(|_| is_point)?;
        let letter = char::from_u32(point).filter(|letter| !letter.is_control())?;
        plain.push_str(before);
        plain.push(letter);
        rest = behind;
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_as_a_whole_or_not_at_all() {
        for (text, plain) in [
            ("a@b", Some("a@b")),
            ("j\\x{F6}rg\\x{2B}a@b", Some("j\u{f6}rg+a@b")),
            ("\\x{5C}x{41}\\x{1F600}", Some("\\x{41}\u{1f600}")),
            ("\u{f6}\\x{f6}", Some("\u{f6}\u{f6}")),
            ("\\", None),
            ("\\x{F6", None),
            ("\\x{6}", None),
            ("\\x{0000041}", None),
            ("\\x{+F6}", None),
            ("\\x{D800}", None),
            ("\\x{0D}", None),
            ("\\x{F6}\\y", None),
        ] {
            assert_eq!(unescape_utf8(text).as_deref(), plain, "{text}");
        }
        let (mut escaped, text) = (String::new(), "\u{4f8b}@\u{e4}.example");
        escape_utf8(text, &mut escaped);
        assert_eq!(unescape_utf8(&escaped).as_deref(), Some(text));
    }

    #[test]
    fn notify_is_never_or_a_list() {
        let notify = |success, failure, delay| Some(Notify { success, failure, delay });
        for (value, expected) in [
            ("never", Some(Notify::NEVER)),
            ("SUCCESS", notify(true, false, false)),
            ("Failure,delay", Some(Notify::ABSENT)),
            ("DELAY,SUCCESS,FAILURE", notify(true, true, true)),
            ("DELAY,DELAY", notify(false, false, true)),
            ("", None),
            ("NEVER,FAILURE", None),
            ("FAILURE,NEVER", None),
            ("NEVER,NEVER", None),
            ("SUCCESS,", None),
            (",SUCCESS", None),
            ("SUCCESS,,DELAY", None),
            ("ALWAYS", None),
            ("SUCCESS DELAY", None),
        ] {
            let parsed = Notify::parse(value.as_bytes());
            assert_eq!(parsed, expected, "{value}");
            if let Some(notify) = parsed {
                let words: Vec<_> = notify.words().collect();
                assert_eq!(Notify::parse(words.join(",").as_bytes()), parsed);
            }
        }
        assert_eq!(Ret::parse(b"hdrs"), Some(Ret::Headers));
        assert_eq!(Ret::parse(b"FULLY"), None);
    }

    #[test]
    fn orcpt_has_a_type_and_xtext() {
        for good in [
            "rfc822;bob@example.org",
            "RFC822;a+2Bb@example.org",
            "x400;/S+3Dx",
            "utf-8;j\u{f6}rg@example.org",
            "UTF-8;j\\x{F6}rg@example.org",
        ] {
            assert_eq!(orcpt(good.as_bytes()), Some(good));
        }
        for bad in [
            "",
            "bob@example.org",
            ";bob@example.org",
            "rfc822;",
            "x400;/S=x",
            "rfc 822;a@b",
            "rfc822;a b@c",
            "rfc822;a+0Ab@c",
            "rfc822;a+2bb@c",
            "rfc822;j\u{f6}rg@c",
            "utf-8;a+00\u{f6}",
            "utf-8;a\u{85}b",
            "utf-8;a\u{2028}b",
            "utf-8;a\u{2029}b",
            "utf-8;a\u{a0}b",
            "utf-8;a=\u{f6}",
        ] {
            assert_eq!(orcpt(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(orcpt(b"rfc822;\xff"), None);
        let longest = format!("rfc822;{}", "a".repeat(ORCPT_MAX - 7));
        assert!(orcpt(longest.as_bytes()).is_some());
        assert!(orcpt(format!("{longest}a").as_bytes()).is_none());
        assert!(is_envid("e".repeat(ENVID_MAX).as_bytes()) && !is_envid(b""));
        assert!(!is_envid("e".repeat(ENVID_MAX + 1).as_bytes()) && !is_envid(b"a+0D"));
    }

    #[test]
    fn what_was_asked_is_kept_by_recipient() {
        let mut dsn = Dsn::default();
        let never = RecipientDsn { notify: Some(Notify::NEVER), orcpt: None };
        dsn.note(0, RecipientDsn::default());
        assert_eq!(dsn, Dsn::default());
        dsn.note(2, never.clone());
        dsn.note(3, RecipientDsn::default());
        let none = RecipientDsn::default;
        assert_eq!(dsn.recipients, [none(), none(), never]);
    }
}
