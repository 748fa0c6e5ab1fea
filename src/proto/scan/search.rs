//! The scan for machines without a block variant: it leaps from one CR or LF to
//! the next with `memchr`, which has a vector path for most targets, and lets
//! the byte automaton decide there.

use super::State;
use super::scalar::{self, At};

/// Runs up to this long are left to the automaton: they may hold the dot.
const RUN_MIN: usize = 2;

/// Reads `chunk`; the length up to and with the terminator if it is there.
pub(super) fn scan(state: &mut State, chunk: &[u8]) -> Option<usize> {
    let end = leap(state, chunk);
    state.eight_bit |= !chunk[..end.unwrap_or(chunk.len())].is_ascii();
    end
}

fn leap(state: &mut State, chunk: &[u8]) -> Option<usize> {
    let mut from = 0;
    while from < chunk.len() {
        let run = memchr::memchr2(b'\r', b'\n', &chunk[from..]).unwrap_or(chunk.len() - from);
        if run >= RUN_MIN {
            state.bare_cr |= state.at.is_behind_cr();
            state.at = At::Text;
            state.size += run as u64;
            state.line += run as u64;
            state.longest = state.longest.max(state.line);
            from += run;
        }
        let until = (from + 1 + if run < RUN_MIN { run } else { 0 }).min(chunk.len());
        if let Some(len) = scalar::scan(state, &chunk[from..until]) {
            return Some(from + len);
        }
        from = until;
    }
    None
}
