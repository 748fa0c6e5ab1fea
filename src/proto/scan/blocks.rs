//! The scan, 64 octets at a time, in the registers of an instruction set
//! ([`Lanes`]). One generic algorithm; `x86` has the wrappers.
//!
//! Ordinary mail has only CRLF line ends, lines shorter than a group of blocks,
//! and one terminator, at its end. So a group of blocks is first looked at for
//! whether that holds, in few instructions and without a branch within it:
//! * Each LF has a CR before it and each CR a LF behind it: compared octet by
//!   octet with the octets one place before, the two never differ.
//! * A message can only end where one line end follows another by three octets.
//!   No search for dots is needed: the octet is looked at where that happens.
//! * A line longer than [`LINE_FLOOR`] covers a whole group. So only a group
//!   without a line end, and where it ends, need measuring.
//!
//! A group where something does not hold is gone through again, block by block,
//! with care; so is what is left at the end of a chunk.

use super::scalar::{self, At};
use super::{LINE_FLOOR, State};

/// Octets in a block.
const BLOCK: usize = 64;
/// Blocks in a group.
const GROUP_BLOCKS: usize = 4;
/// Octets in a group.
const GROUP: usize = GROUP_BLOCKS * BLOCK;

// Wherever a line of more octets than this begins, it covers a whole group
// before its LF.
const _: () = assert!(LINE_FLOOR as usize >= 2 * GROUP - 1);

/// Chunks shorter than this are left to the byte automaton.
const CHUNK_MIN: usize = 32;

/// What an instruction set has seen of a chunk.
///
/// # Safety
///
/// Each function may be called only where the instruction set is available, and
/// those that take `from` only if 65 octets beginning at `from - 1` are readable.
pub(super) trait Lanes: Copy {
    /// Nothing yet.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn new() -> Self;
    /// Looks at 64 octets; returns the mask of LFs, the first octet in the
    /// lowest bit.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn look(&mut self, from: *const u8) -> u64;
    /// Not zero if a LF without CR or a CR without LF was looked at.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn odd(self) -> u64;
    /// The same, with that forgotten.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn without_odd(self) -> Self;
    /// Looks at 64 octets for those above 127 only.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn note_high(&mut self, from: *const u8);
    /// True if an octet above 127 was looked at.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn has_high(self) -> bool;
    /// The masks of LFs and of octets behind a CR.
    ///
    /// # Safety
    ///
    /// See the trait.
    unsafe fn masks(from: *const u8) -> (u64, u64);
}

/// One pass over one chunk. Positions are octets from the start of the chunk;
/// a line that began in an earlier one began at a (wrapped) negative position.
struct Pass<'a> {
    chunk: &'a [u8],
    /// Line ends among the three octets before the next block, the last in bit
    /// 2. One from an earlier chunk is here only if what followed it can still
    /// become the terminator; so it needs no second look.
    line_ends: u64,
    /// Where the line began that is being measured, if one is.
    measured: Option<usize>,
    longest: usize,
    bare_lf: u64,
    bare_cr: u64,
}

impl<'a> Pass<'a> {
    #[inline(always)]
    fn new(state: &State, chunk: &'a [u8], read: usize) -> Pass<'a> {
        let line_ends = match state.at {
            At::Text | At::Cr => 0,
            At::LineStart => 0b100,
            At::Dot => 0b010,
            At::DotCr => 0b001,
        };
        Pass {
            chunk,
            line_ends,
            measured: Some(read.wrapping_sub(state.line as usize)),
            longest: state.longest as usize,
            bare_lf: 0,
            bare_cr: 0,
        }
    }

    /// Line ends that follow another by three octets; moves on by a block.
    #[inline(always)]
    fn candidates(&mut self, line_ends: u64) -> u64 {
        let candidates = line_ends & ((line_ends << 3) | self.line_ends);
        self.line_ends = line_ends >> (BLOCK - 3);
        candidates
    }

    /// Goes through the first `len` octets of the block at `base`, given its
    /// masks.
    #[inline(always)]
    fn block(&mut self, (lf, behind_cr): (u64, u64), base: usize, len: usize) -> Block {
        let mut keep = u64::MAX >> (BLOCK - len);
        let candidates = self.candidates(lf & behind_cr & keep);
        let end = if candidates == 0 { None } else { self.terminator(base, candidates) };
        if let Some(end) = end {
            keep = u64::MAX >> (BLOCK - (end - base));
        }
        self.bare_lf |= lf & !behind_cr & keep;
        self.bare_cr |= behind_cr & !lf & keep;
        let line_ends = lf & behind_cr & keep;
        if line_ends != 0 {
            self.measure_to(base + line_ends.trailing_zeros() as usize + 1);
        }
        match end {
            Some(end) => Block::End(end),
            None => Block::Body { has_line_end: line_ends != 0 },
        }
    }

    /// The position behind the terminator, if one of `candidates` in the block
    /// at `base` has its dot.
    #[cold]
    fn terminator(&self, base: usize, mut candidates: u64) -> Option<usize> {
        while candidates != 0 {
            let at = base + candidates.trailing_zeros() as usize;
            if at < 2 || self.chunk[at - 2] == b'.' {
                return Some(at + 1);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// Ends the measuring of a line, if one is measured, `end` being behind it.
    #[inline(always)]
    fn measure_to(&mut self, end: usize) {
        if let Some(start) = self.measured.take() {
            self.longest = self.longest.max(end.wrapping_sub(start));
        }
    }

    /// The same, the line ends in the group at `base` being `line_ends`.
    #[cold]
    fn measure_to_first(&mut self, base: usize, line_ends: [u64; GROUP_BLOCKS]) {
        let block = line_ends.iter().position(|&mask| mask != 0).expect("a line end");
        self.measure_to(base + block * BLOCK + line_ends[block].trailing_zeros() as usize + 1);
    }

    /// Begins to measure the line that the octet at `position` belongs to.
    #[cold]
    fn measure_from(&mut self, position: usize) {
        self.measured = Some(self.line_start(position));
    }

    /// Where the line began that the octet at `position` belongs to.
    fn line_start(&self, position: usize) -> usize {
        if let Some(start) = self.measured {
            return start;
        }
        let mut until = position;
        loop {
            let lf = memchr::memrchr(b'\n', &self.chunk[..until])
                .expect("a line that is not measured begins behind a line end of this chunk");
            if lf > 0 && self.chunk[lf - 1] == b'\r' {
                return lf + 1;
            }
            until = lf;
        }
    }

    /// Hands the findings over, all of the chunk having been read.
    #[inline(always)]
    fn finish(mut self, state: &mut State, read: usize) {
        let len = self.chunk.len();
        let line_start = self.line_start(len);
        self.measured = Some(line_start);
        self.measure_to(len);
        state.line = len.wrapping_sub(line_start) as u64;
        // The last four octets say where the data stands.
        state.at = self.chunk[len - 4..].iter().fold(At::Text, |at, &byte| {
            at.step(byte).expect("a terminator has five octets behind text")
        });
        self.hand_over(state, len - read);
    }

    /// Hands over what does not depend on the place, `size` octets being read.
    #[inline(always)]
    fn hand_over(&self, state: &mut State, size: usize) {
        state.size += size as u64;
        state.longest = self.longest as u64;
        state.bare_lf |= self.bare_lf != 0;
        state.bare_cr |= self.bare_cr != 0;
    }
}

/// What going through a block came to.
enum Block {
    Body { has_line_end: bool },
    End(usize),
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
    // The octet before a block is read too, so the first one is read apart.
    if let Some(end) = scalar::scan(state, &chunk[..1]) {
        return Some(end);
    }
    let mut pass = Pass::new(state, chunk, 1);
    // SAFETY: the caller vouches for the instruction set.
    let mut seen = unsafe { L::new() };
    // SAFETY: as above.
    if let Some(end) = unsafe { groups::<L>(&mut pass, &mut seen) } {
        // What was looked at reaches past the end, so it is only a hint.
        // SAFETY: as above.
        state.eight_bit |= unsafe { seen.has_high() } && !chunk[..end].is_ascii();
        pass.hand_over(state, end - 1);
        state.line = 0;
        return Some(end);
    }
    // SAFETY: as above.
    state.eight_bit |= unsafe { seen.has_high() };
    pass.finish(state, 1);
    None
}

/// Goes through the chunk from its second octet on.
///
/// # Safety
///
/// As for [`scan`].
#[inline(always)]
unsafe fn groups<L: Lanes>(pass: &mut Pass<'_>, seen: &mut L) -> Option<usize> {
    let len = pass.chunk.len();
    let mut base = 1;
    loop {
        // SAFETY: the caller vouches for the instruction set.
        base = unsafe { ordinary::<L>(pass, seen, base) };
        let until = len.min(base + GROUP);
        // SAFETY: as above; `base` is at least 1.
        if let Some(end) = unsafe { with_care::<L>(pass, seen, base, until) } {
            return Some(end);
        }
        base = until;
        if base == len {
            return None;
        }
    }
}

/// Goes on from `base` over groups that can hold neither a terminator nor a bare
/// CR or LF; returns where the first other one begins, or what is less than one.
///
/// # Safety
///
/// As for [`scan`]; `base` must be at least 1.
#[inline(always)]
unsafe fn ordinary<L: Lanes>(pass: &mut Pass<'_>, seen: &mut L, mut base: usize) -> usize {
    let chunk = pass.chunk;
    while chunk.len() - base >= GROUP {
        let carried = pass.line_ends;
        let mut candidates = 0;
        let mut lfs = [0; GROUP_BLOCKS];
        // SAFETY: the caller vouches for the instruction set, here and below.
        let mut group = unsafe { seen.without_odd() };
        for (index, lf) in lfs.iter_mut().enumerate() {
            // SAFETY: the block lies within the chunk, not at its start.
            *lf = unsafe { group.look(chunk.as_ptr().add(base + index * BLOCK)) };
            candidates |= pass.candidates(*lf);
        }
        // SAFETY: as above.
        if candidates | unsafe { group.odd() } != 0 {
            pass.line_ends = carried;
            break;
        }
        *seen = group;
        if lfs.iter().fold(0, |any, lf| any | lf) == 0 {
            pass.measure_from(base);
        } else if pass.measured.is_some() {
            pass.measure_to_first(base, lfs);
        }
        base += GROUP;
    }
    base
}

/// Goes through the octets from `from` to `to`, at most a group of them.
///
/// # Safety
///
/// As for [`scan`]; `from` must be at least 1.
#[inline(always)]
unsafe fn with_care<L: Lanes>(
    pass: &mut Pass<'_>,
    seen: &mut L,
    from: usize,
    to: usize,
) -> Option<usize> {
    let mut has_line_end = false;
    let mut base = from;
    while base < to {
        let len = (to - base).min(BLOCK);
        // SAFETY: `base` is at least 1 and `base + len` within the chunk.
        let masks = unsafe { masks::<L>(pass.chunk, seen, base, len) };
        match pass.block(masks, base, len) {
            Block::End(end) => return Some(end),
            Block::Body { has_line_end: has } => has_line_end |= has,
        }
        base += len;
    }
    if !has_line_end && to - from == GROUP {
        pass.measure_from(from);
    }
    None
}

/// The masks of the `len` octets at `base`. Where fewer than 64 are left, the
/// last 64 of the chunk are read and the masks shifted.
///
/// # Safety
///
/// As for [`scan`]; `base` must be at least 1 and `base + len` in the chunk.
#[inline(always)]
unsafe fn masks<L: Lanes>(chunk: &[u8], seen: &mut L, base: usize, len: usize) -> (u64, u64) {
    debug_assert!(base >= 1 && base + len <= chunk.len() && (1..=BLOCK).contains(&len));
    let mut padded = [0; BLOCK + 1];
    let (from, shift) = if len == BLOCK {
        (&chunk[base - 1..], 0)
    } else if let Some(from) = chunk.len().checked_sub(BLOCK + 1) {
        (&chunk[from..], BLOCK - len)
    } else {
        padded[..=len].copy_from_slice(&chunk[base - 1..base + len]);
        (&padded[..], 0)
    };
    debug_assert!(from.len() > BLOCK);
    // SAFETY: `from` has 65 octets; the caller vouches for the instruction set.
    let (lf, behind_cr) = unsafe {
        seen.note_high(from.as_ptr().add(1));
        L::masks(from.as_ptr().add(1))
    };
    (lf >> shift, behind_cr >> shift)
}
