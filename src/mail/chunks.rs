//! A stored body as BDAT sends it (RFC 3030): without the dots and the terminator
//! of the wire form, in parts as they are read; and whether a body that was declared
//! binary is text after all, which DATA can carry.

use std::borrow::Cow;

use memchr::memmem;

use super::stuffing::Unstuffer;
use crate::base::limits::TEXT_LINE_MAX;

/// Makes chunks of the parts of a stored body.
#[derive(Debug)]
pub struct Chunker {
    unstuffer: Unstuffer,
    /// The CRLF at the end was added when the body was stored.
    drops_crlf: bool,
    held: &'static [u8],
}

impl Chunker {
    /// For a body from its start. `drops_crlf`: it was stored with a CRLF at the end
    /// that it did not have.
    pub fn new(drops_crlf: bool) -> Self {
        Chunker { unstuffer: Unstuffer::new(), drops_crlf, held: b"" }
    }

    /// The octets of the next part. What may be the CRLF that was added waits for
    /// the part behind.
    pub fn chunk(&mut self, part: &[u8], is_last: bool) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.held.len() + part.len());
        text.extend_from_slice(std::mem::take(&mut self.held));
        self.unstuffer.chunk(part).for_each(|piece| text.extend_from_slice(piece));
        if self.drops_crlf {
            let end: &[u8] = if text.ends_with(b"\r\n") {
                b"\r\n"
            } else if text.ends_with(b"\r") && !is_last {
                b"\r"
            } else {
                b""
            };
            text.truncate(text.len() - end.len());
            self.held = if is_last { b"" } else { end_of(end) };
        }
        text
    }
}

fn end_of(end: &[u8]) -> &'static [u8] {
    &b"\r\n"[..end.len()]
}

/// A whole stored body as one chunk: where no dot is stuffed it lies in `stored`.
///
/// # Panics
/// Unless the terminator is at the end.
pub fn whole(stored: &[u8]) -> Cow<'_, [u8]> {
    let text = stored.strip_suffix(b".\r\n").expect("a stored body has its terminator");
    if text.starts_with(b".") || memmem::find(text, b"\r\n.").is_some() {
        return Cow::Owned(Chunker::new(false).chunk(stored, true));
    }
    Cow::Borrowed(text)
}

/// Finds out whether octets in wire form are lines of text: no bare CR or LF, no
/// NUL, no line that is too long.
#[derive(Debug)]
pub struct TextCheck {
    is_text: bool,
    len: usize,
    behind_cr: bool,
}

impl Default for TextCheck {
    fn default() -> Self {
        TextCheck { is_text: true, len: 0, behind_cr: false }
    }
}

impl TextCheck {
    /// Looks at the next octets; false when it is no text.
    pub fn look(&mut self, octets: &[u8]) -> bool {
        for &octet in octets {
            let ends_line = self.behind_cr && octet == b'\n';
            let is_bare = self.behind_cr != (octet == b'\n') || octet == 0;
            self.behind_cr = octet == b'\r';
            self.len = if ends_line { 0 } else { self.len + 1 };
            // A dot that was stuffed is not counted.
            if is_bare || self.len > TEXT_LINE_MAX {
                self.is_text = false;
                break;
            }
        }
        self.is_text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::stuffing::stuff;

    fn is_text(octets: &[u8]) -> bool {
        let whole = TextCheck::default().look(octets);
        let mut by_one = TextCheck::default();
        let all = octets.iter().all(|octet| by_one.look(&[*octet]));
        assert_eq!(whole, all);
        whole
    }

    #[test]
    fn text_is_told_from_what_is_none() {
        for text in ["", ".\r\n", "a\r\n..b\r\n.\r\n", "\u{e9}\r\n"] {
            assert!(is_text(text.as_bytes()), "{text:?}");
        }
        for binary in ["a\nb\r\n", "a\rb\r\n", "\0\r\n", "\r\r\n", "\n"] {
            assert!(!is_text(binary.as_bytes()), "{binary:?}");
        }
        let line = |len| "x".repeat(len) + "\r\n.\r\n";
        assert!(is_text(line(TEXT_LINE_MAX - 2).as_bytes()));
        assert!(!is_text(line(TEXT_LINE_MAX + 1).as_bytes()));
    }

    #[test]
    fn a_body_without_stuffed_dots_is_one_chunk_as_it_lies() {
        for (stored, text) in [
            (".\r\n", ""),
            ("a\r\n.\r\n", "a\r\n"),
            ("a.\r\n\r\nb.c\r\n.\r\n", "a.\r\n\r\nb.c\r\n"),
        ] {
            assert!(matches!(whole(stored.as_bytes()), Cow::Borrowed(_)), "{stored:?}");
            assert_eq!(&*whole(stored.as_bytes()), text.as_bytes());
        }
        for (stored, text) in [
            ("..\r\n.\r\n", ".\r\n"),
            ("a\r\n..b\r\n...\r\n.\r\n", "a\r\n.b\r\n..\r\n"),
            ("..x\r\n\r\n..\r\n.\r\n", ".x\r\n\r\n.\r\n"),
        ] {
            assert!(matches!(whole(stored.as_bytes()), Cow::Owned(_)), "{stored:?}");
            assert_eq!(&*whole(stored.as_bytes()), text.as_bytes());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_are_the_message_however_it_was_stored(
            pieces in proptest::collection::vec(prop_oneof![
                Just("\r\n"), Just("."), Just("\r"), Just("\n"), Just("\0text"),
            ], 0..24),
            size in 1_usize..6,
            adds_crlf in any::<bool>(),
        ) {
            let text = pieces.concat();
            let stored = if adds_crlf { text.clone() + "\r\n" } else { text.clone() };
            prop_assume!(stored.ends_with("\r\n"));
            let mut wire = Vec::new();
            stuff(stored.as_bytes(), &mut wire);
            let mut chunker = Chunker::new(adds_crlf);
            let count = wire.len().div_ceil(size);
            let mut got = Vec::new();
            for (index, part) in wire.chunks(size).enumerate() {
                got.extend(chunker.chunk(part, index + 1 == count));
            }
            prop_assert_eq!(String::from_utf8(got).unwrap(), text);
            prop_assert_eq!(&*whole(&wire), stored.as_bytes());
        }
    }
}
