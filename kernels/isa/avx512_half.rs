//! How AVX-512 loads and stores elements of two bytes.

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::isa::avx512::F32;
use crate::isa::avx512_bf16::{convert_bf16, converts_bf16};
use crate::isa::registers::memory;
use crate::isa::vector::{Io, Vector};

impl F32 {
    /// Converts numbers that are 0 or normal.
    #[inline(always)]
    fn narrow_normal_bf16(self, v: __m512) -> __m256i {
        if converts_bf16() {
            // SAFETY: the token proves AVX-512, and the CPU has the instruction.
            return unsafe { convert_bf16(v) };
        }
        self.narrow_bf16(v)
    }
    /// Rounds ties to even, by integer arithmetic, because AVX512-BF16 would flush subnormals.
    /// Right for the one NaN [`NAN`](crate::num::element::Element::NAN) only, which stays a NaN
    /// when it is rounded: no other reaches this.
    #[inline(always)]
    fn narrow_bf16(self, v: __m512) -> __m256i {
        let f = self.0.avx512f;
        let bits = f._mm512_castps_si512(v);
        let odd = f._mm512_and_si512(f._mm512_srli_epi32::<16>(bits), f._mm512_set1_epi32(1));
        let bias = f._mm512_add_epi32(odd, f._mm512_set1_epi32(0x7fff));
        f._mm512_cvtepi32_epi16(f._mm512_srli_epi32::<16>(f._mm512_add_epi32(bits, bias)))
    }
}

/// Loads and stores of two-byte elements, from expressions that widen and narrow 16 of them, and
/// narrow numbers that are 0 or normal.
macro_rules! half_memory {
    ($t:ty, $s:ident: $h:ident => $widen:expr, $x:ident => $narrow:expr, $normal:expr) => {
        memory! { F32, 1 of 16 $t, $s:
            load_part(p, mask, fill) = {
                let $h = $s.0.avx512bw._mm256_maskz_loadu_epi16(mask, p.cast());
                $s.0.avx512f._mm512_mask_mov_ps(fill, mask, $widen)
            };
            store_part(p, mask, $x) =
                $s.0.avx512bw._mm256_mask_storeu_epi16(p.cast(), mask, $narrow);
            load(p) = { let $h = $s.0.avx._mm256_loadu_si256(p.cast()); $widen };
            store(p, $x) = $s.0.avx._mm256_storeu_si256(p.cast(), $narrow);
            stream(p, $x) = _mm256_stream_si256(p.cast(), $narrow);
            store_normal(p, $x) = $s.0.avx._mm256_storeu_si256(p.cast(), $normal);
            stream_normal(p, $x) = _mm256_stream_si256(p.cast(), $normal);
        }
    };
}
half_memory!(f16, s: h => s.0.avx512f._mm512_cvtph_ps(h),
    x => s.0.avx512f._mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x),
    s.0.avx512f._mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
half_memory!(bf16, s: h => {
    let wide = s.0.avx512f._mm512_cvtepu16_epi32(h);
    s.0.avx512f._mm512_castsi512_ps(s.0.avx512f._mm512_slli_epi32::<16>(wide))
}, x => s.narrow_bf16(x), s.narrow_normal_bf16(x));
