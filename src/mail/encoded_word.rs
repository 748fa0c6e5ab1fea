//! Encoded words (RFC 2047, 2), `=?charset?encoding?text?=`, as far as it takes to tell
//! where one ends.
//!
//! In a display name their text may have no comma and no parenthesis (RFC 2047, 5), but
//! many have, and everybody reads them. So `addresses` takes the whole for a word. What
//! could be the address itself, `@` and brackets, is not let pass as text; nor are
//! blanks, which no encoded word has.

/// What an octet does to an encoded word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It goes on.
    On,
    /// It ended with this octet.
    Ended,
    /// It is none; this octet does not belong to it.
    Broken,
}

/// Follows one encoded word from behind its `=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EncodedWord {
    /// Question marks so far, those in the text only if they were the last octet.
    marks: u8,
    /// The text has octets that separate words elsewhere.
    has_specials: bool,
}

impl EncodedWord {
    /// Takes the next octet.
    pub(super) fn step(&mut self, octet: u8) -> Step {
        let is_special = matches!(octet, b',' | b';' | b':' | b'(' | b')' | b'[' | b']' | b'\\');
        match (self.marks, octet) {
            (_, b'<' | b'>' | b'@' | b'"') => return Step::Broken,
            (_, octet) if octet.is_ascii_whitespace() => return Step::Broken,
            (0..=3, b'?') => self.marks += 1,
            (0, _) => return Step::Broken,
            (1..=2, _) if is_special => return Step::Broken,
            (4, b'=') => return Step::Ended,
            (4, b'?') => {}
            (4, _) => self.marks = 3,
            _ => {}
        }
        self.has_specials |= is_special;
        Step::On
    }

    /// Whether what came so far is not well written if it is no encoded word.
    pub(super) fn has_specials(self) -> bool {
        self.has_specials
    }
}

/// How long the encoded word is that `text` begins with.
pub(super) fn len(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('=')?;
    let mut word = EncodedWord::default();
    for (at, octet) in rest.bytes().enumerate() {
        match word.step(octet) {
            Step::On => {}
            Step::Ended => return Some("=".len() + at + 1),
            Step::Broken => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_word_ends_behind_its_text() {
        for (text, expected) in [
            ("=?utf-8?Q?Smith,_John?= <a@b>", Some(23)),
            ("=?u?B?Zg==?=", Some(12)),
            // The text begins with an equals sign.
            ("=?u?q?=C3=BC?=", Some(14)),
            ("=?u?q?a?b??=c", Some(12)),
            ("=?u?q??=", Some(8)),
            ("=?u?q?\u{fc}(?=", Some(11)),
            ("", None),
            ("a", None),
            ("=", None),
            ("==?u?q?a?=", None),
            ("=?u?q?a", None),
            ("=?u?q?a?", None),
            ("=?u?q?a b?=", None),
            ("=?u?q?a@b?=", None),
            ("=?u?q?<a?=", None),
            ("=?u?q?\"a?=", None),
            ("=?u,v?q?a?=", None),
            ("=?u?(?a?=", None),
        ] {
            assert_eq!(len(text), expected, "{text:?}");
        }
    }
}
