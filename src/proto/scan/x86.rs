//! The instruction sets of x86-64 for [`super::blocks`]: thin wrappers, each
//! with one entry point compiled for its features.

use std::arch::x86_64::*;

use super::State;
use super::blocks::{self, Lanes};

/// True if [`avx2`] may be called.
#[inline]
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// True if [`avx512`] may be called.
#[inline]
pub(super) fn has_avx512() -> bool {
    has_avx2() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// Scans with SSE2.
pub(super) fn sse2(state: &mut State, chunk: &[u8]) -> Option<usize> {
    // SAFETY: SSE2 is part of the target.
    unsafe { blocks::scan::<Sse2>(state, chunk) }
}

/// Scans with AVX2.
///
/// # Safety
///
/// [`has_avx2`] must be true.
#[target_feature(enable = "avx2,bmi1,lzcnt,popcnt")]
pub(super) unsafe fn avx2(state: &mut State, chunk: &[u8]) -> Option<usize> {
    // SAFETY: the caller vouches for the features.
    unsafe { blocks::scan::<Avx2>(state, chunk) }
}

/// Scans with AVX-512.
///
/// # Safety
///
/// [`has_avx512`] must be true.
#[target_feature(enable = "avx512f,avx512bw,avx2,bmi1,lzcnt,popcnt")]
pub(super) unsafe fn avx512(state: &mut State, chunk: &[u8]) -> Option<usize> {
    // SAFETY: the caller vouches for the features.
    unsafe { blocks::scan::<Avx512>(state, chunk) }
}

/// SSE2: four registers to a block. Every x86-64 has it.
#[derive(Clone, Copy)]
struct Sse2 {
    odd: __m128i,
    octets: __m128i,
}

impl Sse2 {
    /// The octets at `from` that equal `byte`, as all ones.
    #[inline(always)]
    unsafe fn equal(from: *const u8, byte: u8) -> __m128i {
        // SAFETY: the caller vouches for 16 octets; SSE2 is part of the target.
        unsafe { _mm_cmpeq_epi8(_mm_loadu_si128(from.cast()), _mm_set1_epi8(byte as i8)) }
    }

    #[inline(always)]
    unsafe fn mask(octets: __m128i) -> u64 {
        // SAFETY: SSE2 is part of the target.
        unsafe { u64::from(_mm_movemask_epi8(octets) as u32) }
    }
}

impl Lanes for Sse2 {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: SSE2 is part of the target.
        unsafe { Sse2 { odd: _mm_setzero_si128(), octets: _mm_setzero_si128() } }
    }

    #[inline(always)]
    unsafe fn look(&mut self, from: *const u8) -> u64 {
        let mut mask = 0;
        for part in 0..4 {
            // SAFETY: the caller vouches for the octets; SSE2 is in the target.
            unsafe {
                let from = from.add(16 * part);
                let lf = Sse2::equal(from, b'\n');
                let behind_cr = Sse2::equal(from.sub(1), b'\r');
                self.odd = _mm_or_si128(self.odd, _mm_xor_si128(lf, behind_cr));
                self.octets = _mm_or_si128(self.octets, _mm_loadu_si128(from.cast()));
                mask |= Sse2::mask(lf) << (16 * part);
            }
        }
        mask
    }

    #[inline(always)]
    unsafe fn odd(self) -> u64 {
        // SAFETY: SSE2 is part of the target.
        unsafe { Sse2::mask(self.odd) }
    }

    #[inline(always)]
    unsafe fn without_odd(self) -> Self {
        // SAFETY: SSE2 is part of the target.
        Sse2 { odd: unsafe { _mm_setzero_si128() }, ..self }
    }

    #[inline(always)]
    unsafe fn note_high(&mut self, from: *const u8) {
        for part in 0..4 {
            // SAFETY: as in `look`.
            unsafe {
                let octets = _mm_loadu_si128(from.add(16 * part).cast());
                self.octets = _mm_or_si128(self.octets, octets);
            }
        }
    }

    #[inline(always)]
    unsafe fn has_high(self) -> bool {
        // SAFETY: SSE2 is part of the target.
        unsafe { Sse2::mask(self.octets) != 0 }
    }

    #[inline(always)]
    unsafe fn masks(from: *const u8) -> (u64, u64) {
        let (mut lf, mut behind_cr) = (0, 0);
        for part in 0..4 {
            // SAFETY: as in `look`.
            unsafe {
                let from = from.add(16 * part);
                lf |= Sse2::mask(Sse2::equal(from, b'\n')) << (16 * part);
                behind_cr |= Sse2::mask(Sse2::equal(from.sub(1), b'\r')) << (16 * part);
            }
        }
        (lf, behind_cr)
    }
}

/// AVX2: two registers to a block.
#[derive(Clone, Copy)]
struct Avx2 {
    odd: __m256i,
    octets: __m256i,
}

impl Avx2 {
    /// The octets at `from` that equal `byte`, as all ones.
    #[inline(always)]
    unsafe fn equal(from: *const u8, byte: u8) -> __m256i {
        // SAFETY: the caller vouches for 32 octets and for AVX2.
        unsafe { _mm256_cmpeq_epi8(_mm256_loadu_si256(from.cast()), _mm256_set1_epi8(byte as i8)) }
    }

    #[inline(always)]
    unsafe fn mask(octets: __m256i) -> u64 {
        // SAFETY: the caller vouches for AVX2.
        unsafe { u64::from(_mm256_movemask_epi8(octets) as u32) }
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller vouches for AVX2, here and below.
        unsafe { Avx2 { odd: _mm256_setzero_si256(), octets: _mm256_setzero_si256() } }
    }

    #[inline(always)]
    unsafe fn look(&mut self, from: *const u8) -> u64 {
        let mut mask = 0;
        for part in 0..2 {
            // SAFETY: the caller vouches for the octets and for AVX2.
            unsafe {
                let from = from.add(32 * part);
                let lf = Avx2::equal(from, b'\n');
                let behind_cr = Avx2::equal(from.sub(1), b'\r');
                self.odd = _mm256_or_si256(self.odd, _mm256_xor_si256(lf, behind_cr));
                self.octets = _mm256_or_si256(self.octets, _mm256_loadu_si256(from.cast()));
                mask |= Avx2::mask(lf) << (32 * part);
            }
        }
        mask
    }

    #[inline(always)]
    unsafe fn odd(self) -> u64 {
        // SAFETY: as above.
        unsafe { Avx2::mask(self.odd) }
    }

    #[inline(always)]
    unsafe fn without_odd(self) -> Self {
        // SAFETY: as above.
        Avx2 { odd: unsafe { _mm256_setzero_si256() }, ..self }
    }

    #[inline(always)]
    unsafe fn note_high(&mut self, from: *const u8) {
        for part in 0..2 {
            // SAFETY: as in `look`.
            unsafe {
                let octets = _mm256_loadu_si256(from.add(32 * part).cast());
                self.octets = _mm256_or_si256(self.octets, octets);
            }
        }
    }

    #[inline(always)]
    unsafe fn has_high(self) -> bool {
        // SAFETY: as above.
        unsafe { Avx2::mask(self.octets) != 0 }
    }

    #[inline(always)]
    unsafe fn masks(from: *const u8) -> (u64, u64) {
        // SAFETY: as in `look`.
        unsafe {
            let lf = Avx2::mask(Avx2::equal(from, b'\n'))
                | Avx2::mask(Avx2::equal(from.add(32), b'\n')) << 32;
            let behind_cr = Avx2::mask(Avx2::equal(from.sub(1), b'\r'))
                | Avx2::mask(Avx2::equal(from.add(31), b'\r')) << 32;
            (lf, behind_cr)
        }
    }
}

/// AVX-512BW: one register to a block.
#[derive(Clone, Copy)]
struct Avx512 {
    odd: u64,
    octets: __m512i,
}

impl Avx512 {
    /// The mask of the octets at `from` that equal `byte`.
    #[inline(always)]
    unsafe fn equal(from: *const u8, byte: u8) -> u64 {
        // SAFETY: the caller vouches for 64 octets and for AVX-512BW.
        unsafe {
            _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(byte as i8))
        }
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller vouches for AVX-512BW, here and below.
        unsafe { Avx512 { odd: 0, octets: _mm512_setzero_si512() } }
    }

    #[inline(always)]
    unsafe fn look(&mut self, from: *const u8) -> u64 {
        // SAFETY: the caller vouches for the octets and for AVX-512BW.
        unsafe {
            let (lf, behind_cr) = Avx512::masks(from);
            self.odd |= lf ^ behind_cr;
            self.note_high(from);
            lf
        }
    }

    #[inline(always)]
    unsafe fn odd(self) -> u64 {
        self.odd
    }

    #[inline(always)]
    unsafe fn without_odd(self) -> Self {
        Avx512 { odd: 0, ..self }
    }

    #[inline(always)]
    unsafe fn note_high(&mut self, from: *const u8) {
        // SAFETY: as in `look`.
        unsafe {
            self.octets = _mm512_or_si512(self.octets, _mm512_loadu_si512(from.cast()));
        }
    }

    #[inline(always)]
    unsafe fn has_high(self) -> bool {
        // SAFETY: as above.
        unsafe { _mm512_movepi8_mask(self.octets) != 0 }
    }

    #[inline(always)]
    unsafe fn masks(from: *const u8) -> (u64, u64) {
        // SAFETY: as in `look`.
        unsafe { (Avx512::equal(from, b'\n'), Avx512::equal(from.sub(1), b'\r')) }
    }
}
