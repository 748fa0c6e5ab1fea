//! The scan, 64 octets at a time, over masks of CR and LF that an instruction
//! set provides ([`Lanes`]). One generic algorithm; `x86` has the wrappers.
//!
//! What keeps it cheap on ordinary mail, whose lines are longer than a block is
//! wide or not much shorter:
//! * A LF is a line end if the CR mask, shifted by one, has its bit; what is in
//!   one mask and not in the other is a bare CR or a bare LF.
//! * A message can only end where one line end follows another by three octets.
//!   No mask of dots is needed: the octet is looked at where that happens.
//! * Only the first line end of a block can end a line longer than a block, and
//!   only the last one matters to the next block. So there is no loop over line
//!   ends, and no branch that depends on where they are.

use super::scalar::{self, At};
use super::{LINE_FLOOR, State};

/// Octets in a block.
pub(super) const BLOCK: usize = 64;

const _: () = assert!(LINE_FLOOR as usize == BLOCK);

/// Chunks shorter than this are left to the byte automaton.
const CHUNK_MIN: usize = 32;

/// 64 octets in the registers of an instruction set.
///
/// # Safety
///
/// Each function may be called only where its instruction set is available.
pub(super) trait Lanes: Copy {
    /// Reads 64 octets from `from`, which need not be aligned.
    ///
    /// # Safety
    ///
    /// 64 octets at `from` must be readable; see also the trait.
    unsafe fn load(from: *const u8) -> Self;
    /// 64 zeroes.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn zero() -> Self;
    /// The mask of octets that equal `byte`, the first octet in the lowest bit.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn equal(self, byte: u8) -> u64;
    /// Bitwise or.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn or(self, other: Self) -> Self;
    /// The mask of octets above 127.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn high(self) -> u64;
}

/// The marks of one block.
#[derive(Clone, Copy)]
struct Marks {
    lf: u64,
    /// Octets with a CR before them.
    behind_cr: u64,
    /// LFs with a CR before them.
    line_ends: u64,
    /// Line ends three octets behind another.
    candidates: u64,
}

impl Marks {
    /// The marks of the first `len` octets.
    #[inline(always)]
    fn first(self, len: usize) -> Marks {
        let keep = keep(len);
        Marks {
            lf: self.lf & keep,
            behind_cr: self.behind_cr & keep,
            line_ends: self.line_ends & keep,
            candidates: self.candidates & keep,
        }
    }
}

/// The mask of the first `len` octets, 1 to 64.
#[inline(always)]
fn keep(len: usize) -> u64 {
    debug_assert!((1..=BLOCK).contains(&len));
    u64::MAX >> (BLOCK - len)
}

/// One pass over one chunk. Positions are octets from the start of the chunk;
/// a line that began in an earlier one began at a (wrapped) negative position.
struct Pass {
    /// 1 if the octet before the block is a CR.
    cr: u64,
    /// Line ends among the three octets before the block, the last in bit 2.
    line_ends: u64,
    line_start: usize,
    longest: usize,
    bare_lf: u64,
    bare_cr: u64,
}

impl Pass {
    #[inline(always)]
    fn new(state: &State) -> Pass {
        // A line end counts as carried only if what follows it so far can still
        // become the terminator; so a candidate that needs an octet of an
        // earlier chunk needs no look at it.
        let line_ends = match state.at {
            At::Text | At::Cr => 0,
            At::LineStart => 0b100,
            At::Dot => 0b010,
            At::DotCr => 0b001,
        };
        Pass {
            cr: u64::from(state.at.is_behind_cr()),
            line_ends,
            line_start: 0_usize.wrapping_sub(state.line as usize),
            longest: state.longest as usize,
            bare_lf: 0,
            bare_cr: 0,
        }
    }

    /// The marks of the next block.
    #[inline(always)]
    fn marks(&mut self, cr: u64, lf: u64) -> Marks {
        let behind_cr = (cr << 1) | self.cr;
        let line_ends = lf & behind_cr;
        let candidates = line_ends & ((line_ends << 3) | self.line_ends);
        self.cr = cr >> (BLOCK - 1);
        self.line_ends = line_ends >> (BLOCK - 3);
        Marks { lf, behind_cr, line_ends, candidates }
    }

    /// Takes note of the first `len` octets of the block at `base`, which is
    /// what `marks` covers.
    #[inline(always)]
    fn note(&mut self, marks: Marks, base: usize, len: usize) {
        self.bare_lf |= marks.lf & !marks.behind_cr;
        self.bare_cr |= marks.behind_cr & !marks.lf;
        // Octets up to and with the first line end; all 64 if there is none.
        let first = (marks.line_ends ^ marks.line_ends.wrapping_sub(1)).count_ones() as usize;
        let line = (base + first.min(len)).wrapping_sub(self.line_start);
        self.longest = self.longest.max(line);
        if marks.line_ends != 0 {
            self.line_start = base + BLOCK - marks.line_ends.leading_zeros() as usize;
        }
    }

    /// Hands the findings over, `len` octets having been read.
    #[inline(always)]
    fn finish(self, state: &mut State, len: usize, eight_bit: bool) {
        state.size += len as u64;
        state.line = len.wrapping_sub(self.line_start) as u64;
        state.longest = self.longest as u64;
        state.bare_lf |= self.bare_lf != 0;
        state.bare_cr |= self.bare_cr != 0;
        state.eight_bit |= eight_bit;
    }
}

/// The position behind the terminator, if one of `candidates` in the block at
/// `base` has its dot.
#[cold]
fn terminator(chunk: &[u8], base: usize, mut candidates: u64) -> Option<usize> {
    while candidates != 0 {
        let at = base + candidates.trailing_zeros() as usize;
        if at < 2 || chunk[at - 2] == b'.' {
            return Some(at + 1);
        }
        candidates &= candidates - 1;
    }
    None
}

/// Where the data stands behind `chunk`, which holds no terminator: its last
/// four octets say it all.
fn stand_behind(chunk: &[u8]) -> At {
    chunk[chunk.len() - 4..].iter().fold(At::Text, |at, &byte| {
        at.step(byte).expect("a terminator has five octets behind text")
    })
}

/// Reads `chunk`; the length up to and with the terminator if it is there.
///
/// # Safety
///
/// The instruction set of `L` must be available.
#[inline(always)]
pub(super) unsafe fn scan<L: Lanes>(state: &mut State, chunk: &[u8]) -> Option<usize> {
    if chunk.len() < CHUNK_MIN {
        return scalar::scan(state, chunk);
    }
    let mut pass = Pass::new(state);
    // SAFETY: the caller vouches for the instruction set, here and below.
    let mut seen = unsafe { L::zero() };
    let mut base = 0;
    while base < chunk.len() {
        let len = (chunk.len() - base).min(BLOCK);
        // SAFETY: `base + len` is within the chunk.
        let (lanes, shift) = unsafe { load::<L>(chunk, base, len) };
        // SAFETY: as above.
        let (cr, lf) = unsafe { (lanes.equal(b'\r'), lanes.equal(b'\n')) };
        let marks = pass.marks(cr >> shift, lf >> shift);
        if marks.candidates != 0
            && let Some(end) = terminator(chunk, base, marks.first(len).candidates)
        {
            pass.note(marks.first(end - base), base, end - base);
            // SAFETY: as above.
            let high = unsafe { seen.high() | ((lanes.high() >> shift) & keep(end - base)) };
            pass.finish(state, end, high != 0);
            return Some(end);
        }
        pass.note(marks.first(len), base, len);
        // SAFETY: as above.
        seen = unsafe { seen.or(lanes) };
        base += BLOCK;
    }
    // SAFETY: as above.
    let high = unsafe { seen.high() };
    pass.finish(state, chunk.len(), high != 0);
    state.at = stand_behind(chunk);
    None
}

/// The `len` octets at `base`, and by how much their masks are to be shifted: a
/// last block that is not whole is read from the end of the chunk.
///
/// # Safety
///
/// As for [`scan`], and `base + len` must be within `chunk`.
#[inline(always)]
unsafe fn load<L: Lanes>(chunk: &[u8], base: usize, len: usize) -> (L, usize) {
    debug_assert!(base + len <= chunk.len() && len <= BLOCK);
    if len == BLOCK {
        // SAFETY: 64 octets lie at `base`.
        (unsafe { L::load(chunk.as_ptr().add(base)) }, 0)
    } else if let Some(from) = chunk.len().checked_sub(BLOCK) {
        // SAFETY: 64 octets lie at `from`, up to the end of the chunk.
        (unsafe { L::load(chunk.as_ptr().add(from)) }, BLOCK - len)
    } else {
        let mut whole = [0; BLOCK];
        whole[..len].copy_from_slice(&chunk[base..base + len]);
        // SAFETY: `whole` has 64 octets.
        (unsafe { L::load(whole.as_ptr()) }, 0)
    }
}
