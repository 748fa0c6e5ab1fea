//! Dot-stuffing (RFC 5321, 4.5.2): between the text of a message and the wire
//! form in which it is stored and sent.
//!
//! The data path never calls this: it stores and sends what it received. Reports
//! are made with it, returned headers are read with it, and so does whatever
//! shows a stored message to a person.

use memchr::memmem;

/// Appends `text` to `out` in wire form, the terminator last. A text that does
/// not end in CRLF gets one: a terminator needs a line of its own.
pub fn stuff(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 8);
    let mut rest = text;
    while !rest.is_empty() {
        if rest[0] == b'.' {
            out.push(b'.');
        }
        let len = memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
        out.extend_from_slice(&rest[..len]);
        rest = &rest[len..];
    }
    if !text.is_empty() && !text.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
}

/// Undoes the stuffing of a body that comes in chunks.
#[derive(Clone, Debug)]
pub struct Unstuffer {
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Text,
    Cr,
    /// Behind a dot that began a line; it was left out.
    Dot,
    /// Behind such a dot and a CR, which is held back.
    DotCr,
    /// Behind the terminator.
    Done,
}

impl Unstuffer {
    /// At the start of a body.
    pub fn new() -> Unstuffer {
        Unstuffer { at: At::LineStart }
    }

    /// True behind the terminator.
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// The text of the next chunk, as slices of it that leave out stuffed dots
    /// and the terminator.
    pub fn chunk<'a>(&'a mut self, chunk: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        let mut rest = chunk;
        std::iter::from_fn(move || {
            while !rest.is_empty() && self.at != At::Done {
                let text = self.piece(&mut rest);
                if !text.is_empty() {
                    return Some(text);
                }
            }
            None
        })
    }

    /// Takes the next piece from `rest`: one octet that decides, or the text up
    /// to the next line.
    fn piece<'a>(&mut self, rest: &mut &'a [u8]) -> &'a [u8] {
        let byte = rest[0];
        match (self.at, byte) {
            (At::LineStart, b'.') => {
                self.at = At::Dot;
                *rest = &rest[1..];
                b""
            }
            (At::Dot, b'\r') => {
                self.at = At::DotCr;
                *rest = &rest[1..];
                b""
            }
            (At::DotCr, b'\n') => {
                self.at = At::Done;
                *rest = &rest[1..];
                b""
            }
            (At::DotCr, _) => {
                self.at = At::Cr;
                b"\r"
            }
            (At::Cr, b'\n') => {
                self.at = At::LineStart;
                take(rest, 1)
            }
            _ => {
                let (len, at) = match memmem::find(rest, b"\r\n") {
                    Some(found) => (found + 2, At::LineStart),
                    None if rest.ends_with(b"\r") => (rest.len(), At::Cr),
                    None => (rest.len(), At::Text),
                };
                self.at = at;
                take(rest, len)
            }
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (text, behind) = rest.split_at(len);
    *rest = behind;
    text
}

impl Default for Unstuffer {
    fn default() -> Unstuffer {
        Unstuffer::new()
    }
}

/// The text of a body, or of a part from its start, that lies in one piece.
pub fn unstuff(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.len());
    for piece in Unstuffer::new().chunk(body) {
        text.extend_from_slice(piece);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stuffed(text: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        stuff(text, &mut out);
        out
    }

    #[test]
    fn dots_are_stuffed_at_line_starts_only() {
        assert_eq!(stuffed(b""), b".\r\n");
        assert_eq!(stuffed(b"a"), b"a\r\n.\r\n");
        assert_eq!(stuffed(b".\r\n..b\r\nc.\r\n"), b"..\r\n...b\r\nc.\r\n.\r\n");
        assert_eq!(stuffed(b"a\n.\r.\r\n"), b"a\n.\r.\r\n.\r\n");
    }

    #[test]
    fn unstuffing_ends_at_the_terminator() {
        assert_eq!(unstuff(b".a\r\n..\r\n.\r\nQUIT\r\n"), b"a\r\n.\r\n");
        assert_eq!(unstuff(b"a\r\n.\rb\r\n.\r\n"), b"a\r\n\rb\r\n");
        assert_eq!(unstuff(b"a\r\n.\r\r\n.\r\n"), b"a\r\n\r\r\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_text_survives_the_wire_however_it_is_cut(
            pieces in proptest::collection::vec(prop_oneof![
                Just("\r\n"), Just("."), Just("\r"), Just("\n"), Just("text"),
            ], 0..24),
            size in 1_usize..6,
        ) {
            let text = (pieces.concat() + "\r\n").into_bytes();
            let wire = stuffed(&text);
            prop_assert_eq!(unstuff(&wire), &text[..]);
            let mut unstuffer = Unstuffer::new();
            let mut cut = vec![];
            for chunk in wire.chunks(size) {
                unstuffer.chunk(chunk).for_each(|piece| cut.extend_from_slice(piece));
            }
            prop_assert_eq!(cut, text);
            prop_assert!(unstuffer.is_done());
        }
    }
}
