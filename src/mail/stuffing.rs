//! Dot-stuffing (RFC 5321, 4.5.2): between the text of a message and the wire
//! form in which it is stored and sent.
//!
//! What comes and goes by DATA never passes here: it is stored and sent as it is.
//! What comes in chunks (RFC 3030) is stuffed to be stored, and unstuffed to be
//! sent in chunks. Reports are made with it, returned headers are read with it, and
//! so does whatever shows a stored message to a person.
//!
//! The wire form needs a CRLF before the terminator. A body of lines that lacks its
//! last one gets it. A binary body (`Terms::no_final_crlf`) is any octets: a CRLF is
//! added to all of them, whatever they end with, and taken off by whoever wants the
//! octets back ([`Unstuffer::exact`]).

use memchr::memmem;

/// Appends `text` to `out` in wire form, the terminator last. A text that does
/// not end in CRLF gets one: a terminator needs a line of its own.
pub fn stuff(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 8);
    let mut stuffer = Stuffer::new();
    stuffer.push(text, out);
    stuffer.finish(out);
}

/// Stuffs a body that comes in pieces.
#[derive(Clone, Debug)]
pub struct Stuffer {
    at: Edge,
}

/// Where a body stands between two pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    LineStart,
    Text,
    Cr,
}

impl Stuffer {
    /// At the start of a body.
    pub fn new() -> Stuffer {
        Stuffer { at: Edge::LineStart }
    }

    /// Appends the next piece to `out`, its dots stuffed. However a body is cut, what
    /// is appended in all is the same.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        if self.at == Edge::Cr && rest.first() == Some(&b'\n') {
            out.push(b'\n');
            rest = &rest[1..];
            self.at = Edge::LineStart;
        }
        while !rest.is_empty() {
            if self.at == Edge::LineStart && rest[0] == b'.' {
                out.push(b'.');
            }
            let (len, at) = match memmem::find(rest, b"\r\n") {
                Some(at) => (at + 2, Edge::LineStart),
                None if rest.ends_with(b"\r") => (rest.len(), Edge::Cr),
                None => (rest.len(), Edge::Text),
            };
            out.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
            self.at = at;
        }
    }

    /// Ends a body of lines: the CRLF that its last line may lack, and the
    /// terminator.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.at != Edge::LineStart {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }

    /// Ends a binary body: a CRLF that is none of it, and the terminator.
    pub fn finish_binary(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n.\r\n");
    }
}

impl Default for Stuffer {
    fn default() -> Stuffer {
        Stuffer::new()
    }
}

/// Undoes the stuffing of a body that comes in chunks.
#[derive(Clone, Debug)]
pub struct Unstuffer {
    at: At,
    /// The CRLF before the terminator is none of the text: each CRLF is held back
    /// until it is clear whether it is that one.
    holds: bool,
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
    /// Behind a CR that is held back.
    HeldCr,
    /// At the start of a line, with the CRLF before it held back.
    HeldLine,
    /// Behind a dot that begins such a line.
    HeldDot,
    /// Behind such a dot and a CR, both CRs and the LF held back.
    HeldDotCr,
    /// Behind the terminator.
    Done,
}

impl Unstuffer {
    /// At the start of a body of lines.
    pub fn new() -> Unstuffer {
        Unstuffer { at: At::LineStart, holds: false }
    }

    /// At the start of a body whose envelope says `no_final_crlf`: the octets that
    /// were given to [`Stuffer`], and nothing else, come out.
    pub fn exact(no_final_crlf: bool) -> Unstuffer {
        Unstuffer { at: At::LineStart, holds: no_final_crlf }
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
                self.at = if self.holds { At::HeldCr } else { At::Cr };
                if self.holds { b"" } else { b"\r" }
            }
            (At::Cr, b'\n') => {
                self.at = At::LineStart;
                take(rest, 1)
            }
            (At::HeldCr | At::HeldLine | At::HeldDot | At::HeldDotCr, _) => self.held(rest),
            _ if self.holds => {
                let (len, at, skipped) = match memmem::find(rest, b"\r\n") {
                    Some(found) => (found, At::HeldLine, 2),
                    None if rest.ends_with(b"\r") => (rest.len() - 1, At::HeldCr, 1),
                    None => (rest.len(), At::Text, 0),
                };
                self.at = at;
                let text = take(rest, len);
                *rest = &rest[skipped..];
                text
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

    /// The next octet where something is held back: it either goes on towards the
    /// terminator or sets free what is held.
    fn held(&mut self, rest: &mut &[u8]) -> &'static [u8] {
        let (at, freed): (At, &'static [u8]) = match (self.at, rest[0]) {
            (At::HeldCr, b'\n') => (At::HeldLine, b""),
            (At::HeldLine, b'.') => (At::HeldDot, b""),
            (At::HeldDot, b'\r') => (At::HeldDotCr, b""),
            (At::HeldDotCr, b'\n') => (At::Done, b""),
            // What is set free ends before this octet, which is looked at again.
            (At::HeldCr, _) => {
                self.at = At::Text;
                return b"\r";
            }
            (At::HeldLine | At::HeldDot, _) => {
                self.at = At::Text;
                return b"\r\n";
            }
            _ => {
                self.at = At::HeldCr;
                return b"\r\n";
            }
        };
        self.at = at;
        *rest = &rest[1..];
        freed
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

    #[test]
    fn a_binary_body_gets_a_crlf_that_is_taken_off_again() {
        for body in [&b""[..], b"\r\n", b"a", b"a\r\n", b"a\r", b".", b".\r\n.\r\n", b"\r\n.\r"] {
            let mut wire = vec![];
            let mut stuffer = Stuffer::new();
            stuffer.push(body, &mut wire);
            stuffer.finish_binary(&mut wire);
            assert!(wire.ends_with(b"\r\n.\r\n"));
            let mut text = vec![];
            let mut unstuffer = Unstuffer::exact(true);
            unstuffer.chunk(&wire).for_each(|piece| text.extend_from_slice(piece));
            assert_eq!(text, body);
            assert!(unstuffer.is_done());
        }
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

        #[test]
        fn binary_octets_survive_the_wire_however_they_are_cut(
            pieces in proptest::collection::vec(prop_oneof![
                Just("\r\n"), Just("."), Just("\r"), Just("\n"), Just("\r\n.\r\n"), Just("\0x"),
            ], 0..24),
            size in 1_usize..6,
            other in 1_usize..6,
        ) {
            let body = pieces.concat().into_bytes();
            let (mut wire, mut stuffer) = (vec![], Stuffer::new());
            body.chunks(size).for_each(|piece| stuffer.push(piece, &mut wire));
            stuffer.finish_binary(&mut wire);
            let end = memmem::find(&wire, b"\r\n.\r\n").map(|at| at + 5);
            prop_assert_eq!(end, Some(wire.len()));
            prop_assert!(!wire.starts_with(b".\r\n"));
            let (mut text, mut unstuffer) = (vec![], Unstuffer::exact(true));
            for chunk in wire.chunks(other) {
                unstuffer.chunk(chunk).for_each(|piece| text.extend_from_slice(piece));
            }
            prop_assert_eq!(text, body);
            prop_assert!(unstuffer.is_done());
        }
    }
}
