//! How AVX2 with FMA and F16C does the operations of [`Vector`].

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::isa::registers::{
    each, elementwise, f32_alike, f64_alike, memory, narrow_io, one_lane, sums_in_order,
    sums_side_by_side, token, tokens, x86_caches,
};
use crate::isa::vector::{Across, Io, Vector};
use crate::num::exp2::{Contract, ROWS_AT_ONCE, Sum};

pulp::simd_type! {
    /// The proof of AVX2, FMA and F16C (which pulp's own V3 lacks).
    pub(crate) struct Avx2 {
        sse: "sse",
        sse2: "sse2",
        avx: "avx",
        avx2: "avx2",
        fma: "fma",
        f16c: "f16c",
    }
}

tokens!(Avx2);

/// The largest or the smallest lane, by halves.
macro_rules! extreme_ps {
    ($s:ident, $of_eight:ident, $of_four:ident, $a:ident) => {{
        let (avx, sse) = ($s.0.avx, $s.0.sse);
        let m = avx.$of_eight($a[0], $a[1]);
        let m = sse.$of_four(avx._mm256_castps256_ps128(m), avx._mm256_extractf128_ps::<1>(m));
        let m = sse.$of_four(m, sse._mm_movehl_ps(m, m));
        sse._mm_cvtss_f32(sse.$of_four(m, sse._mm_shuffle_ps::<1>(m, m)))
    }};
}

/// As [`extreme_ps`].
macro_rules! extreme_pd {
    ($s:ident, $of_four:ident, $of_two:ident, $a:ident) => {{
        let (avx, sse2) = ($s.0.avx, $s.0.sse2);
        let m = avx.$of_four($a[0], $a[1]);
        let m = sse2.$of_two(avx._mm256_castpd256_pd128(m), avx._mm256_extractf128_pd::<1>(m));
        sse2._mm_cvtsd_f64(sse2.$of_two(m, sse2._mm_unpackhi_pd(m, m)))
    }};
}

impl Vector for F32 {
    type V = [__m256; 2];
    type Table = __m256;
    token!(Avx2);
    x86_caches!();
    f32_alike!();
    sums_in_order!();
    sums_side_by_side!();

    elementwise! { 2, s:
        splat(x) = s.0.avx._mm256_set1_ps(x);
        add(a, b) = s.0.avx._mm256_add_ps(a, b);
        sub(a, b) = s.0.avx._mm256_sub_ps(a, b);
        mul(a, b) = s.0.avx._mm256_mul_ps(a, b);
        div(a, b) = s.0.avx._mm256_div_ps(a, b);
        max(a, b) = s.0.avx._mm256_max_ps(a, b);
        min(a, b) = s.0.avx._mm256_min_ps(a, b);
        fma(a, b, c) = s.0.fma._mm256_fmadd_ps(a, b, c);
        select_below(x, cut, a, b) =
            s.0.avx._mm256_blendv_ps(b, a, s.0.avx._mm256_cmp_ps::<_CMP_LT_OQ>(x, cut));
        zero_below(x, cut, e) =
            s.0.avx._mm256_andnot_ps(s.0.avx._mm256_cmp_ps::<_CMP_LT_OQ>(x, cut), e);
        lookup[table](t) = {
            let (a, i) = (s.0.avx, s.0.avx2);
            let t = a._mm256_castps_si256(t);
            let entry = a._mm256_castps_si256(i._mm256_permutevar8x32_ps(table, t));
            let n = i._mm256_slli_epi32::<{ f32::SHIFT as i32 }>(t);
            a._mm256_castsi256_ps(i._mm256_add_epi32(entry, n))
        };
    }
    #[inline(always)]
    fn select_bits(self, bits: u32, a: Self::V, b: Self::V) -> Self::V {
        let (f, i) = (self.0.avx, self.0.avx2);
        let lanes: __m256i = pulp::cast([1u32, 2, 4, 8, 16, 32, 64, 128]);
        each!(2, |k| {
            let bits = i._mm256_and_si256(f._mm256_set1_epi32((bits >> (8 * k)) as i32), lanes);
            let set = f._mm256_castsi256_ps(i._mm256_cmpeq_epi32(bits, lanes));
            f._mm256_blendv_ps(b[k], a[k], set)
        })
    }
    one_lane! { s:
        first_lane(a) = s.0.avx._mm256_cvtss_f32(a[0]);
        max_lane(a) = extreme_ps!(s, _mm256_max_ps, _mm_max_ps, a);
        min_lane(a) = extreme_ps!(s, _mm256_min_ps, _mm_min_ps, a);
    }
    #[inline(always)]
    fn table(self, m: i32) -> __m256 {
        let m = self.0.avx._mm256_set1_epi32(m << 23);
        let table = self.0.avx2._mm256_sub_epi32(pulp::cast(f32::TABLE), m);
        self.0.avx._mm256_castsi256_ps(table)
    }
    #[inline(always)]
    fn widen(self, v: Self::V) -> [[__m256d; 2]; 2] {
        let a = self.0.avx;
        each!(2, |k| [
            a._mm256_cvtps_pd(a._mm256_castps256_ps128(v[k])),
            a._mm256_cvtps_pd(a._mm256_extractf128_ps::<1>(v[k])),
        ])
    }
    #[inline(always)]
    fn narrow(self, v: [[__m256d; 2]; 2]) -> Self::V {
        let a = self.0.avx;
        each!(2, |k| a._mm256_set_m128(a._mm256_cvtpd_ps(v[k][1]), a._mm256_cvtpd_ps(v[k][0])))
    }
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        let four = self.fold_to_four(acc);
        let low = self.0.avx._mm256_castpd256_pd128(four);
        let high = self.0.avx._mm256_extractf128_pd::<1>(four);
        let [x, y]: [f64; 2] = pulp::cast(self.0.sse2._mm_add_pd(low, high));
        Sum { hi: x + y, lo: 0.0 }
    }
    /// The trees of `acc_fold`, four rows side by side.
    #[inline(always)]
    fn fold_rows(self, acc: &[Self::Total; ROWS_AT_ONCE]) -> Self::Sums {
        let a = self.0.avx;
        each!(2, |k| {
            // Sums of lanes (i, i + 2), of two rows in each vector.
            let [even, odd] = each!(2, |h| {
                let row = 4 * k + 2 * h;
                let (x, y) = (self.fold_to_four(acc[row]), self.fold_to_four(acc[row + 1]));
                let low = a._mm256_permute2f128_pd::<0x20>(x, y);
                a._mm256_add_pd(low, a._mm256_permute2f128_pd::<0x31>(x, y))
            });
            // Sums of lanes (i, i + 1): rows 0, 2, 1, 3, then put in order.
            let rows = a._mm256_hadd_pd(even, odd);
            self.0.avx2._mm256_permute4x64_pd::<0b11_01_10_00>(rows)
        })
    }
    #[inline(always)]
    fn are_positive(self, sums: Self::Sums) -> bool {
        let (a, zero) = (self.0.avx, self.0.avx._mm256_setzero_pd());
        let [x, y] = each!(2, |k| a._mm256_cmp_pd::<_CMP_GT_OQ>(sums[k], zero));
        a._mm256_movemask_pd(a._mm256_and_pd(x, y)) == 0xf
    }
}

impl Vector for F64 {
    type V = [__m256d; 2];
    /// The lower and the upper halves of the eight entries: AVX2 permutes eight 32-bit numbers, but
    /// not 64-bit ones.
    type Table = [__m256i; 2];
    token!(Avx2);
    x86_caches!();
    f64_alike!(pulp::cast);

    elementwise! { 2, s:
        splat(x) = s.0.avx._mm256_set1_pd(x);
        add(a, b) = s.0.avx._mm256_add_pd(a, b);
        sub(a, b) = s.0.avx._mm256_sub_pd(a, b);
        mul(a, b) = s.0.avx._mm256_mul_pd(a, b);
        div(a, b) = s.0.avx._mm256_div_pd(a, b);
        max(a, b) = s.0.avx._mm256_max_pd(a, b);
        min(a, b) = s.0.avx._mm256_min_pd(a, b);
        fma(a, b, c) = s.0.fma._mm256_fmadd_pd(a, b, c);
        select_below(x, cut, a, b) =
            s.0.avx._mm256_blendv_pd(b, a, s.0.avx._mm256_cmp_pd::<_CMP_LT_OQ>(x, cut));
        zero_below(x, cut, e) =
            s.0.avx._mm256_andnot_pd(s.0.avx._mm256_cmp_pd::<_CMP_LT_OQ>(x, cut), e);
        lookup[table](t) = {
            let (a, i) = (s.0.avx, s.0.avx2);
            let t = a._mm256_castpd_si256(t);
            // The index in both halves of each lane.
            let j = i._mm256_shuffle_epi32::<0b10_10_00_00>(t);
            let low = i._mm256_permutevar8x32_epi32(table[0], j);
            let high = i._mm256_permutevar8x32_epi32(table[1], j);
            let entry = i._mm256_blend_epi32::<0b1010_1010>(low, high);
            let n = i._mm256_slli_epi64::<{ f64::SHIFT as i32 }>(t);
            a._mm256_castsi256_pd(i._mm256_add_epi64(entry, n))
        };
    }
    #[inline(always)]
    fn select_bits(self, bits: u32, a: Self::V, b: Self::V) -> Self::V {
        let (f, i) = (self.0.avx, self.0.avx2);
        let lanes: __m256i = pulp::cast([1u64, 2, 4, 8]);
        each!(2, |k| {
            let bits = f._mm256_set1_epi64x((bits >> (4 * k)).into());
            let set = i._mm256_cmpeq_epi64(i._mm256_and_si256(bits, lanes), lanes);
            f._mm256_blendv_pd(b[k], a[k], f._mm256_castsi256_pd(set))
        })
    }
    one_lane! { s:
        first_lane(a) = pulp::cast::<__m256d, [f64; 4]>(a[0])[0];
        max_lane(a) = extreme_pd!(s, _mm256_max_pd, _mm_max_pd, a);
        min_lane(a) = extreme_pd!(s, _mm256_min_pd, _mm_min_pd, a);
    }
    #[inline(always)]
    fn table(self, m: i32) -> [__m256i; 2] {
        let (a, i) = (self.0.avx, self.0.avx2);
        let [x, y]: [__m256; 2] = pulp::cast(f64::TABLE);
        // Elements 0, 1, 4, 5, 2, 3, 6, 7, then put in order.
        let low = a._mm256_castps_pd(a._mm256_shuffle_ps::<0b10_00_10_00>(x, y));
        let high = a._mm256_castps_pd(a._mm256_shuffle_ps::<0b11_01_11_01>(x, y));
        let low = a._mm256_castpd_si256(i._mm256_permute4x64_pd::<0b11_01_10_00>(low));
        let high = a._mm256_castpd_si256(i._mm256_permute4x64_pd::<0b11_01_10_00>(high));
        [low, i._mm256_sub_epi32(high, a._mm256_set1_epi32(m << 20))]
    }
}

impl F32 {
    /// Adds lanes i and i + 8, then i and i + 4 of a sum.
    #[inline(always)]
    fn fold_to_four(self, acc: [[__m256d; 2]; 2]) -> __m256d {
        let [low, high] = self.wide().add(acc[0], acc[1]);
        self.0.avx._mm256_add_pd(low, high)
    }
    /// Rounds ties to even. Right for the one NaN [`NAN`](crate::num::element::Element::NAN) only,
    /// which stays a NaN when it is rounded: no other reaches this.
    #[inline(always)]
    fn narrow_bf16(self, v: __m256) -> __m128i {
        let (a, i) = (self.0.avx, self.0.avx2);
        let bits = a._mm256_castps_si256(v);
        let odd = i._mm256_and_si256(i._mm256_srli_epi32::<16>(bits), a._mm256_set1_epi32(1));
        let bias = i._mm256_add_epi32(odd, a._mm256_set1_epi32(0x7fff));
        let wide = i._mm256_srli_epi32::<16>(i._mm256_add_epi32(bits, bias));
        let packed = i._mm256_permute4x64_epi64::<0b1000>(i._mm256_packus_epi32(wide, wide));
        a._mm256_castsi256_si128(packed)
    }
}

memory! { F32, 2 of 8 f32, s:
    load(p) = s.0.avx._mm256_loadu_ps(p);
    store(p, v) = s.0.avx._mm256_storeu_ps(p, v);
    stream(p, v) = _mm256_stream_ps(p, v);
}
memory! { F32, 2 of 8 f16, s:
    load(p) = _mm256_cvtph_ps(s.0.sse2._mm_loadu_si128(p.cast()));
    store(p, v) = s.0.sse2._mm_storeu_si128(
        p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
    );
    stream(p, v) = _mm_stream_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
}
memory! { F32, 2 of 8 bf16, s:
    load(p) = {
        let wide = s.0.avx2._mm256_cvtepu16_epi32(s.0.sse2._mm_loadu_si128(p.cast()));
        s.0.avx._mm256_castsi256_ps(s.0.avx2._mm256_slli_epi32::<16>(wide))
    };
    store(p, v) = s.0.sse2._mm_storeu_si128(p.cast(), s.narrow_bf16(v));
    stream(p, v) = _mm_stream_si128(p.cast(), s.narrow_bf16(v));
}
memory! { F64, 2 of 4 f64, s:
    load(p) = s.0.avx._mm256_loadu_pd(p);
    store(p, v) = s.0.avx._mm256_storeu_pd(p, v);
    stream(p, v) = _mm256_stream_pd(p, v);
}
memory! { F64, 2 of 4 f32, s:
    load(p) = s.0.avx._mm256_cvtps_pd(s.0.sse._mm_loadu_ps(p));
    store(p, v) = s.0.sse._mm_storeu_ps(p, s.0.avx._mm256_cvtpd_ps(v));
}
narrow_io!(F64, 8, f16, bf16);

impl Across for F32 {
    #[inline(always)]
    fn less(self, a: Self::V, b: Self::V) -> u32 {
        let i = self.0.avx;
        let [low, high] =
            each!(2, |k| i._mm256_movemask_ps(i._mm256_cmp_ps::<_CMP_LT_OQ>(a[k], b[k])) as u32);
        low | high << 8
    }
    #[inline(always)]
    fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
        let i = self.0.avx;
        each!(2, |k| {
            // In turn within halves of 128 bits.
            let (low, high) = (i._mm256_unpacklo_ps(a[k], b[k]), i._mm256_unpackhi_ps(a[k], b[k]));
            let first = i._mm256_permute2f128_ps::<0x20>(low, high);
            [first, i._mm256_permute2f128_ps::<0x31>(low, high)]
        })
    }
}

impl Across for F64 {
    #[inline(always)]
    fn less(self, a: Self::V, b: Self::V) -> u32 {
        let i = self.0.avx;
        let [low, high] =
            each!(2, |k| i._mm256_movemask_pd(i._mm256_cmp_pd::<_CMP_LT_OQ>(a[k], b[k])) as u32);
        low | high << 4
    }
    #[inline(always)]
    fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
        let i = self.0.avx;
        each!(2, |k| {
            let (low, high) = (i._mm256_unpacklo_pd(a[k], b[k]), i._mm256_unpackhi_pd(a[k], b[k]));
            let first = i._mm256_permute2f128_pd::<0x20>(low, high);
            [first, i._mm256_permute2f128_pd::<0x31>(low, high)]
        })
    }
}
