//! Domains as text, lower case and without a final dot, and as names of DNS. A
//! domain that is not ASCII goes by its A-labels (RFC 5891).

use std::borrow::Cow;
use std::fmt::Write;

use hickory_proto::rr::Name;

use super::random::Random;

/// Most characters of a name as text (255 octets on the wire).
const TEXT_MAX: usize = 253;
/// Most characters of a label.
const LABEL_MAX: usize = 63;

/// `domain` in the one form by which it is kept and asked for; `None` if no name
/// in DNS can be so, and thus does not exist.
pub(super) fn normal(domain: &str) -> Option<Cow<'_, str>> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if !domain.is_ascii() {
        let text = text(&Name::from_utf8(domain).ok()?);
        return is_name(&text).then_some(Cow::Owned(text.into()));
    }
    if !is_name(domain) {
        return None;
    }
    Some(match domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(domain.to_ascii_lowercase()),
        false => Cow::Borrowed(domain),
    })
}

/// Letters, digits, hyphens, and the underscores that some hosts have.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=LABEL_MAX).contains(&label.len()) && label.bytes().all(is_allowed)
    };
    text.len() <= TEXT_MAX && text.split('.').all(is_label)
}

/// The name that a text of [`normal`] stands for.
///
/// # Panics
/// When the text is no name.
pub(super) fn parse(normal: &str) -> Name {
    from_labels(normal.split('.').map(str::as_bytes))
}

fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Name {
    let append = |name: Name, label| name.append_label(label).expect("labels of a name");
    labels.fold(Name::root(), append)
}

/// A name as text. Octets that no host name has are written `\DDD`; the root is
/// empty.
pub(super) fn text(name: &Name) -> Box<str> {
    let mut text = String::with_capacity(name.len());
    for (index, label) in name.iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        for byte in label {
            match byte.to_ascii_lowercase() {
                byte @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => text.push(char::from(byte)),
                byte => write!(text, "\\{byte:03}").expect("a String takes everything"),
            }
        }
    }
    text.into()
}

/// `name` with each letter in upper or lower case by chance, so that an answer
/// that repeats it cannot have been guessed.
pub(super) fn in_random_case(name: &Name, random: &mut Random) -> Name {
    let (mut bits, mut left) = (0, 0);
    let mut mix = |byte: &mut u8| {
        if left == 0 {
            (bits, left) = (random.u8(), 8);
        }
        *byte ^= (bits & 1) << 5;
        bits >>= 1;
        left -= 1;
    };
    let mut octets = [0; TEXT_MAX + 2];
    let mut mixed = Name::root();
    for label in name {
        let octets = &mut octets[..label.len()];
        octets.copy_from_slice(label);
        octets.iter_mut().filter(|byte| byte.is_ascii_alphabetic()).for_each(&mut mix);
        mixed = mixed.append_label(&*octets).expect("as long as it was");
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_have_one_form() {
        for (domain, form) in [
            ("example.org", Some("example.org")),
            ("EXAMPLE.org.", Some("example.org")),
            ("_x.a-b.9", Some("_x.a-b.9")),
            ("localhost", Some("localhost")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("BÜCHER.example.", Some("xn--bcher-kva.example")),
            ("почта.рф", Some("xn--80a1acny.xn--p1ai")),
            ("", None),
            (".", None),
            ("a..b", None),
            (".a", None),
            ("a..", None),
            ("a b", None),
            ("a\\046b", None),
            ("a\0b", None),
            ("[192.0.2.1]", None),
            ("\u{ad}", None),
        ] {
            assert_eq!(normal(domain).as_deref(), form, "{domain:?}");
        }
        let label = "a".repeat(LABEL_MAX);
        assert!(normal(&label).is_some() && normal(&format!("{label}a")).is_none());
        let long = [&*label, &label, &label, &label[..61]].join(".");
        assert_eq!(long.len(), TEXT_MAX);
        assert_eq!(text(&parse(&normal(&long).unwrap())).as_ref(), long);
        assert!(normal(&format!("{long}a")).is_none());
    }

    #[test]
    fn names_are_written_without_ambiguity() {
        assert_eq!(text(&Name::root()).as_ref(), "");
        let odd = Name::from_labels([&b"A.b"[..], b" \xff", b"c"]).unwrap();
        assert_eq!(text(&odd).as_ref(), "a\\046b.\\032\\255.c");
    }

    #[test]
    fn case_is_mixed_and_nothing_else() {
        let mut random = Random::new();
        let name = parse("abcdefghijklmnopqrstuvwxyz-0123456789.example.org");
        let mixed: Vec<Name> = (0..32).map(|_| in_random_case(&name, &mut random)).collect();
        assert!(mixed.iter().all(|mixed| *mixed == name && text(mixed) == text(&name)));
        let spellings: std::collections::HashSet<String> =
            mixed.iter().map(Name::to_ascii).collect();
        assert!(spellings.len() > 30);
    }
}
