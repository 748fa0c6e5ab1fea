//! The instruction sets of x86-64 for [`super::blocks`]: thin wrappers, each
//! with one entry point compiled for its features.

use std::arch::x86_64::*;

use super::State;
use super::blocks::{self, Lanes};

/// 64 octets in four registers of SSE2, which every x86-64 has.
#[derive(Clone, Copy)]
struct Sse2([__m128i; 4]);

impl Lanes for Sse2 {
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for 64 octets; loads are unaligned ones.
        unsafe {
            Sse2([
                _mm_loadu_si128(from.cast()),
                _mm_loadu_si128(from.add(16).cast()),
                _mm_loadu_si128(from.add(32).cast()),
                _mm_loadu_si128(from.add(48).cast()),
            ])
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: SSE2 is part of the target.
        unsafe { Sse2([_mm_setzero_si128(); 4]) }
    }

    #[inline(always)]
    unsafe fn equal(self, byte: u8) -> u64 {
        // SAFETY: SSE2 is part of the target.
        unsafe {
            let wanted = _mm_set1_epi8(byte as i8);
            let [a, b, c, d] = self.0;
            Sse2([
                _mm_cmpeq_epi8(a, wanted),
                _mm_cmpeq_epi8(b, wanted),
                _mm_cmpeq_epi8(c, wanted),
                _mm_cmpeq_epi8(d, wanted),
            ])
            .high()
        }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        // SAFETY: SSE2 is part of the target.
        unsafe {
            Sse2([_mm_or_si128(a, e), _mm_or_si128(b, f), _mm_or_si128(c, g), _mm_or_si128(d, h)])
        }
    }

    #[inline(always)]
    unsafe fn high(self) -> u64 {
        let [a, b, c, d] = self.0;
        // SAFETY: SSE2 is part of the target.
        unsafe {
            u64::from(_mm_movemask_epi8(a) as u32)
                | u64::from(_mm_movemask_epi8(b) as u32) << 16
                | u64::from(_mm_movemask_epi8(c) as u32) << 32
                | u64::from(_mm_movemask_epi8(d) as u32) << 48
        }
    }
}

/// 64 octets in two registers of AVX2.
#[derive(Clone, Copy)]
struct Avx2([__m256i; 2]);

impl Lanes for Avx2 {
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for AVX2 and for 64 octets.
        unsafe { Avx2([_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())]) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for AVX2.
        unsafe { Avx2([_mm256_setzero_si256(); 2]) }
    }

    #[inline(always)]
    unsafe fn equal(self, byte: u8) -> u64 {
        // SAFETY: the caller vouches for AVX2.
        unsafe {
            let wanted = _mm256_set1_epi8(byte as i8);
            let [a, b] = self.0;
            Avx2([_mm256_cmpeq_epi8(a, wanted), _mm256_cmpeq_epi8(b, wanted)]).high()
        }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        // SAFETY: the caller vouches for AVX2.
        unsafe { Avx2([_mm256_or_si256(a, c), _mm256_or_si256(b, d)]) }
    }

    #[inline(always)]
    unsafe fn high(self) -> u64 {
        let [a, b] = self.0;
        // SAFETY: the caller vouches for AVX2.
        unsafe {
            u64::from(_mm256_movemask_epi8(a) as u32)
                | u64::from(_mm256_movemask_epi8(b) as u32) << 32
        }
    }
}

/// 64 octets in one register of AVX-512BW.
#[derive(Clone, Copy)]
struct Avx512(__m512i);

impl Lanes for Avx512 {
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for AVX-512 and for 64 octets.
        unsafe { Avx512(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for AVX-512.
        unsafe { Avx512(_mm512_setzero_si512()) }
    }

    #[inline(always)]
    unsafe fn equal(self, byte: u8) -> u64 {
        // SAFETY: the caller vouches for AVX-512BW.
        unsafe { _mm512_cmpeq_epi8_mask(self.0, _mm512_set1_epi8(byte as i8)) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX-512.
        unsafe { Avx512(_mm512_or_si512(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn high(self) -> u64 {
        // SAFETY: the caller vouches for AVX-512BW.
        unsafe { _mm512_movepi8_mask(self.0) }
    }
}

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
