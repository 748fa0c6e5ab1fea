//! SASLprep (RFC 4013): one form for names and passwords that look the same, and
//! none for those with control characters or code points without a meaning.
//!
//! Names are compared without regard to case besides: people write their address
//! as they like.

use std::borrow::Cow;

/// Longest name or password taken, in octets.
pub const LENGTH_MAX: usize = 1024;

/// The form of a name by which users are known; `None` if it cannot be one.
pub fn prepared_name(name: &str) -> Option<String> {
    prepared(name).map(|name| name.to_lowercase())
}

/// The form of a password that is hashed; `None` if it cannot be one.
pub fn prepared_password(password: &str) -> Option<Cow<'_, str>> {
    prepared(password)
}

fn prepared(text: &str) -> Option<Cow<'_, str>> {
    if text.len() > LENGTH_MAX {
        return None;
    }
    stringprep::saslprep(text).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4013, section 3, and what attackers send.
    #[test]
    fn one_form_for_what_looks_the_same() {
        for (given, form) in [
            ("I\u{ad}X", Some("IX")),
            ("user", Some("user")),
            ("USER", Some("USER")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("IX")),
            ("\u{7}", None),
            ("\u{627}\u{31}", None),
            ("a\u{a0}b", Some("a b")),
            ("a\0b", None),
            ("a\r\nb", None),
            ("a\u{85}b", None),
            ("\u{ad}", None),
            ("", None),
        ] {
            assert_eq!(prepared_password(given).as_deref(), form, "{given:?}");
        }
        assert_eq!(prepared_name("Al\u{ad}ice@Example.ORG").as_deref(), Some("alice@example.org"));
        assert_eq!(prepared_name(&"a".repeat(LENGTH_MAX + 1)), None);
    }
}
