//! The byte automaton: the reference that the other variants are tested
//! against, and the state that lies between two chunks.

use super::State;

/// Where the data stands: how much of `CRLF . CRLF` has been matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// Within a line.
    Text,
    /// Behind a CR within a line.
    Cr,
    /// Behind CRLF, or at the start of the data.
    LineStart,
    /// Behind a dot that began a line.
    Dot,
    /// Behind a CR behind such a dot.
    DotCr,
}

impl At {
    /// True if the last octet was a CR.
    pub(super) fn is_behind_cr(self) -> bool {
        matches!(self, At::Cr | At::DotCr)
    }

    /// Where the data stands after `byte`; `None` when that ends the message.
    #[inline]
    pub(super) fn step(self, byte: u8) -> Option<At> {
        match (self, byte) {
            (At::DotCr, b'\n') => None,
            (At::Cr, b'\n') => Some(At::LineStart),
            (At::Dot, b'\r') => Some(At::DotCr),
            (At::LineStart, b'.') => Some(At::Dot),
            (_, b'\r') => Some(At::Cr),
            _ => Some(At::Text),
        }
    }
}

/// Reads `chunk`; the length up to and with the terminator if it is there.
pub(super) fn scan(state: &mut State, chunk: &[u8]) -> Option<usize> {
    for (index, &byte) in chunk.iter().enumerate() {
        let behind_cr = state.at.is_behind_cr();
        let is_lf = byte == b'\n';
        state.size += 1;
        state.line += 1;
        state.longest = state.longest.max(state.line);
        state.bare_cr |= behind_cr && !is_lf;
        state.bare_lf |= is_lf && !behind_cr;
        state.eight_bit |= byte >= 0x80;
        if behind_cr && is_lf {
            state.line = 0;
        }
        match state.at.step(byte) {
            Some(at) => state.at = at,
            None => return Some(index + 1),
        }
    }
    None
}
