//! The DATA scanner: finds the end of a message in the bytes as they arrive,
//! in one pass over each chunk and without a copy.
//!
//! Called by the receiving session with every chunk after 354, by the sink of
//! the tools, and by whatever reads a stored body up to its terminator.
//!
//! Invariants:
//! * Only `CRLF . CRLF` ends a message (RFC 5321, 4.1.1.4), where the start of
//!   the data counts as after a CRLF, so that `.CRLF` alone is an empty message.
//!   A bare CR or a bare LF is no line end (2.3.8), in any place: that is what
//!   closes SMTP smuggling. The scan goes on over them and reports them.
//! * What is found does not depend on how the data is cut into chunks, nor on
//!   the instruction set in use.
//! * No byte behind the terminator is looked at for the findings: it belongs to
//!   the next command.
//!
//! One algorithm over blocks of 64 octets (`blocks`) serves each instruction set
//! (`x86`); elsewhere `search` leaps from one CR or LF to the next. The byte
//! automaton (`scalar`) is what carries the state from one chunk to the next,
//! and the reference for the rest.

#[cfg(target_arch = "x86_64")]
mod blocks;
mod scalar;
mod search;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use scalar::At;

use crate::base::limits;

/// What a chunk held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Scan {
    /// All of the chunk belongs to the body; more follows.
    More,
    /// The message ends within the chunk.
    End {
        /// Bytes of the chunk that belong to the message, terminator included.
        /// The next command begins behind them.
        len: usize,
    },
}

/// The way a scanner reads its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// One byte after the other; the reference for the rest.
    Scalar,
    /// From one CR or LF to the next; for machines without the ones below.
    Search,
    /// 64 octets at a time with SSE2, which every x86-64 has.
    Sse2,
    /// 64 octets at a time with AVX2.
    Avx2,
    /// 64 octets at a time with AVX-512BW.
    Avx512,
}

impl Variant {
    /// All variants, slowest first, whether this machine can run them or not.
    pub const ALL: [Variant; 5] =
        [Variant::Scalar, Variant::Search, Variant::Sse2, Variant::Avx2, Variant::Avx512];

    /// The fastest variant that this machine can run. What the machine can do
    /// is found out once for the process; asking again is a load and a test.
    #[inline]
    pub fn best() -> Variant {
        let preferred = [Variant::Avx512, Variant::Avx2, Variant::Sse2];
        preferred.into_iter().find(|variant| variant.is_available()).unwrap_or(Variant::Search)
    }

    /// True if this machine can run it.
    #[inline]
    pub fn is_available(self) -> bool {
        match self {
            Variant::Scalar | Variant::Search => true,
            #[cfg(target_arch = "x86_64")]
            Variant::Sse2 => true,
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2 => x86::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512 => x86::has_avx512(),
            #[cfg(not(target_arch = "x86_64"))]
            Variant::Sse2 | Variant::Avx2 | Variant::Avx512 => false,
        }
    }
}

/// Lines up to this length are not told apart by [`Scanner::longest_line`], in
/// octets. It is what lets a scan over ordinary mail do without measuring; all
/// that a limit of SMTP needs is longer (RFC 5321, 4.5.3.1.6: 1000).
pub const LINE_FLOOR: u64 = 512;

const _: () = assert!((LINE_FLOOR as usize) < limits::TEXT_LINE_MAX);

/// Finds the end of one message. Make a new one for the next.
#[derive(Clone, Debug)]
pub struct Scanner {
    state: State,
    variant: Variant,
    ended: bool,
}

/// What is known about the message so far.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// Octets so far.
    size: u64,
    /// Octets of the line that is not ended yet.
    line: u64,
    /// The longest line, at least [`LINE_FLOOR`].
    longest: u64,
    at: At,
    bare_cr: bool,
    bare_lf: bool,
    eight_bit: bool,
}

impl Scanner {
    /// A scanner that stands behind the CRLF of the 354 reply's command.
    pub fn new() -> Scanner {
        Scanner::of(Variant::best())
    }

    /// A scanner that uses `variant`; `None` if this machine cannot run it.
    pub fn with(variant: Variant) -> Option<Scanner> {
        variant.is_available().then(|| Scanner::of(variant))
    }

    fn of(variant: Variant) -> Scanner {
        let state = State {
            size: 0,
            line: 0,
            longest: LINE_FLOOR,
            at: At::LineStart,
            bare_cr: false,
            bare_lf: false,
            eight_bit: false,
        };
        Scanner { state, variant, ended: false }
    }

    /// Reads the next chunk of the data.
    ///
    /// # Panics
    ///
    /// If the message has ended already.
    #[inline]
    pub fn scan(&mut self, chunk: &[u8]) -> Scan {
        assert!(!self.ended, "a scanner reads one message");
        let end = match self.variant {
            Variant::Scalar => scalar::scan(&mut self.state, chunk),
            Variant::Search => search::scan(&mut self.state, chunk),
            #[cfg(target_arch = "x86_64")]
            Variant::Sse2 => x86::sse2(&mut self.state, chunk),
            // SAFETY: a scanner is made only with a variant that is available.
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2 => unsafe { x86::avx2(&mut self.state, chunk) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512 => unsafe { x86::avx512(&mut self.state, chunk) },
            #[cfg(not(target_arch = "x86_64"))]
            Variant::Sse2 | Variant::Avx2 | Variant::Avx512 => {
                unreachable!("a scanner is made only with a variant that is available")
            }
        };
        match end {
            None => Scan::More,
            Some(len) => {
                self.ended = true;
                Scan::End { len }
            }
        }
    }

    /// True once the terminator was found.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Octets so far, the terminator included once it was found.
    pub fn size(&self) -> u64 {
        self.state.size
    }

    /// True if a CR without LF behind it was seen.
    pub fn bare_cr(&self) -> bool {
        self.state.bare_cr
    }

    /// True if a LF without CR before it was seen.
    pub fn bare_lf(&self) -> bool {
        self.state.bare_lf
    }

    /// True if an octet above 127 was seen.
    pub fn has_8bit(&self) -> bool {
        self.state.eight_bit
    }

    /// Octets of the longest line as sent: CRLF and a stuffing dot counted, and
    /// the line that is not ended yet too. [`LINE_FLOOR`] if none was longer.
    pub fn longest_line(&self) -> u64 {
        self.state.longest
    }
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner::new()
    }
}
