//! How AVX2 with FMA and F16C does the operations of [`Vector`].

use crate::isa::vector::{
    Bands, Io, Vector, acc_of_pairs, each, inverses_f32, log_softmax_f64, narrow_io, part,
    sums_one_by_one, two_sum_lanes,
};
use crate::num::exp2::Contract;
use crate::num::exp2::{ROWS_AT_ONCE, Sum, fold_f64};
use crate::num::scale::LogShift;
use half::bf16;
use half::f16;

use std::arch::x86_64::*;

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

/// Whether this CPU has it.
pub(crate) fn is_available() -> bool {
    Avx2::try_new().is_some()
}

/// f32 arithmetic: 16 lanes, two registers.
#[derive(Clone, Copy)]
pub(crate) struct F32(Avx2);

/// f64 arithmetic: 8 lanes, two registers.
#[derive(Clone, Copy)]
pub(crate) struct F64(Avx2);

impl Vector for F32 {
    type E = f32;
    type V = [__m256; 2];
    type Table = __m256;
    /// Lanes 0 to 3, 4 to 7, 8 to 11, 12 to 15.
    type Acc = [__m256d; 4];
    type Sums = [__m256d; 2];
    type Wide = F64;
    const LANES: usize = 16;
    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as this function's.
        Self(unsafe { Avx2::new_unchecked() })
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        Avx2::vectorize(self.0, f)
    }
    #[inline(always)]
    fn wide(self) -> F64 {
        F64(self.0)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [self.0.avx._mm256_set1_ps(x); 2]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_add_ps(a[0], b[0]), self.0.avx._mm256_add_ps(a[1], b[1])]
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_sub_ps(a[0], b[0]), self.0.avx._mm256_sub_ps(a[1], b[1])]
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_mul_ps(a[0], b[0]), self.0.avx._mm256_mul_ps(a[1], b[1])]
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_div_ps(a[0], b[0]), self.0.avx._mm256_div_ps(a[1], b[1])]
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_max_ps(a[0], b[0]), self.0.avx._mm256_max_ps(a[1], b[1])]
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_min_ps(a[0], b[0]), self.0.avx._mm256_min_ps(a[1], b[1])]
    }
    #[inline(always)]
    fn min_not_below(self, m: Self::V, x: Self::V, cut: Self::V) -> Self::V {
        let a = self.0.avx;
        each!(2, |k| {
            let below = a._mm256_cmp_ps::<_CMP_LT_OQ>(x[k], cut[k]);
            a._mm256_min_ps(a._mm256_blendv_ps(x[k], m[k], below), m[k])
        })
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let f = self.0.fma;
        [f._mm256_fmadd_ps(a[0], b[0], c[0]), f._mm256_fmadd_ps(a[1], b[1], c[1])]
    }
    #[inline(always)]
    fn select_below(self, x: Self::V, cut: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let i = self.0.avx;
        each!(2, |k| i._mm256_blendv_ps(b[k], a[k], i._mm256_cmp_ps::<_CMP_LT_OQ>(x[k], cut[k])))
    }
    #[inline(always)]
    fn zero_below(self, x: Self::V, cut: Self::V, e: Self::V) -> Self::V {
        let a = self.0.avx;
        let below = [
            a._mm256_cmp_ps::<_CMP_LT_OQ>(x[0], cut[0]),
            a._mm256_cmp_ps::<_CMP_LT_OQ>(x[1], cut[1]),
        ];
        [a._mm256_andnot_ps(below[0], e[0]), a._mm256_andnot_ps(below[1], e[1])]
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch accesses nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
    #[inline(always)]
    fn prefetch_far<T>(self, p: *const T) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
    }
    #[inline(always)]
    fn fence(self) {
        // SAFETY: every x86-64 CPU has SSE.
        unsafe { _mm_sfence() };
    }
    #[inline(always)]
    fn first_lane(self, a: Self::V) -> f32 {
        self.0.avx._mm256_cvtss_f32(a[0])
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f32 {
        let m = self.0.avx._mm256_max_ps(a[0], a[1]);
        let sse = self.0.sse;
        let m = sse._mm_max_ps(
            self.0.avx._mm256_castps256_ps128(m),
            self.0.avx._mm256_extractf128_ps::<1>(m),
        );
        let m = sse._mm_max_ps(m, sse._mm_movehl_ps(m, m));
        sse._mm_cvtss_f32(sse._mm_max_ps(m, sse._mm_shuffle_ps::<1>(m, m)))
    }
    #[inline(always)]
    fn min_lane(self, a: Self::V) -> f32 {
        let m = self.0.avx._mm256_min_ps(a[0], a[1]);
        let sse = self.0.sse;
        let m = sse._mm_min_ps(
            self.0.avx._mm256_castps256_ps128(m),
            self.0.avx._mm256_extractf128_ps::<1>(m),
        );
        let m = sse._mm_min_ps(m, sse._mm_movehl_ps(m, m));
        sse._mm_cvtss_f32(sse._mm_min_ps(m, sse._mm_shuffle_ps::<1>(m, m)))
    }

    #[inline(always)]
    fn table(self, m: i32) -> __m256 {
        let table: __m256i = pulp::cast(f32::TABLE);
        let m = self.0.avx._mm256_set1_epi32(m << 23);
        self.0.avx._mm256_castsi256_ps(self.0.avx2._mm256_sub_epi32(table, m))
    }
    #[inline(always)]
    fn lookup(self, table: __m256, t: Self::V) -> Self::V {
        let (a, i) = (self.0.avx, self.0.avx2);
        let t = [a._mm256_castps_si256(t[0]), a._mm256_castps_si256(t[1])];
        each!(2, |k| {
            let entry = a._mm256_castps_si256(i._mm256_permutevar8x32_ps(table, t[k]));
            let n = i._mm256_slli_epi32::<{ f32::SHIFT as i32 }>(t[k]);
            a._mm256_castsi256_ps(i._mm256_add_epi32(entry, n))
        })
    }

    #[inline(always)]
    fn acc_zero(self) -> [__m256d; 4] {
        [self.0.avx._mm256_setzero_pd(); 4]
    }
    #[inline(always)]
    fn acc_add(self, acc: [__m256d; 4], v: Self::V) -> [__m256d; 4] {
        let a = self.0.avx;
        let v = self.widen4(v);
        [
            a._mm256_add_pd(acc[0], v[0]),
            a._mm256_add_pd(acc[1], v[1]),
            a._mm256_add_pd(acc[2], v[2]),
            a._mm256_add_pd(acc[3], v[3]),
        ]
    }
    #[inline(always)]
    fn acc_plus(self, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        each!(4, |k| self.0.avx._mm256_add_pd(a[k], b[k]))
    }
    #[inline(always)]
    unsafe fn acc_inverses(self, acc: Self::Acc, hi: *mut f32, lo: *mut f32) -> bool {
        let sums = [[acc[0], acc[1]], [acc[2], acc[3]]];
        // SAFETY: as this function's.
        unsafe { inverses_f32(self.wide(), sums, hi, lo) }
    }
    #[inline(always)]
    fn acc_fold(self, acc: [__m256d; 4]) -> Sum {
        let a = self.0.avx;
        let four = self.fold_to_four(acc);
        let low = a._mm256_castpd256_pd128(four);
        let [x, y]: [f64; 2] =
            pulp::cast(self.0.sse2._mm_add_pd(low, a._mm256_extractf128_pd::<1>(four)));
        Sum { hi: x + y, lo: 0.0 }
    }
    /// The same trees, four rows side by side.
    #[inline(always)]
    fn fold_rows(self, acc: &[[__m256d; 4]; ROWS_AT_ONCE]) -> [__m256d; 2] {
        let a = self.0.avx;
        let mut four = [a._mm256_setzero_pd(); ROWS_AT_ONCE];
        for k in 0..ROWS_AT_ONCE {
            four[k] = self.fold_to_four(acc[k]);
        }
        // Pairs (i, i + 2) of two rows in each.
        let mut two = [a._mm256_setzero_pd(); ROWS_AT_ONCE / 2];
        for k in 0..ROWS_AT_ONCE / 2 {
            two[k] = a._mm256_add_pd(
                a._mm256_permute2f128_pd::<0x20>(four[2 * k], four[2 * k + 1]),
                a._mm256_permute2f128_pd::<0x31>(four[2 * k], four[2 * k + 1]),
            );
        }
        // Pairs (i, i + 1): rows 0, 2, 1, 3, put in order.
        let i = self.0.avx2;
        [
            i._mm256_permute4x64_pd::<0b11_01_10_00>(a._mm256_hadd_pd(two[0], two[1])),
            i._mm256_permute4x64_pd::<0b11_01_10_00>(a._mm256_hadd_pd(two[2], two[3])),
        ]
    }
    #[inline(always)]
    fn are_positive(self, sums: [__m256d; 2]) -> bool {
        let a = self.0.avx;
        let positive = a._mm256_and_pd(
            a._mm256_cmp_pd::<_CMP_GT_OQ>(sums[0], a._mm256_setzero_pd()),
            a._mm256_cmp_pd::<_CMP_GT_OQ>(sums[1], a._mm256_setzero_pd()),
        );
        a._mm256_movemask_pd(positive) == 0xf
    }
    #[inline(always)]
    fn reciprocals(
        self,
        sums: [__m256d; 2],
        hi: &mut [f32; ROWS_AT_ONCE],
        lo: &mut [f32; ROWS_AT_ONCE],
    ) {
        let a = self.0.avx;
        let (mut high, mut low) =
            ([self.0.sse._mm_setzero_ps(); 2], [self.0.sse._mm_setzero_ps(); 2]);
        for k in 0..2 {
            let inverse = a._mm256_div_pd(a._mm256_set1_pd(1.0), sums[k]);
            high[k] = a._mm256_cvtpd_ps(inverse);
            low[k] = a._mm256_cvtpd_ps(a._mm256_sub_pd(inverse, a._mm256_cvtps_pd(high[k])));
        }
        (*hi, *lo) = (pulp::cast(high), pulp::cast(low));
    }

    #[inline(always)]
    fn widen(self, v: Self::V) -> [[__m256d; 2]; 2] {
        let [a, b, c, d] = self.widen4(v);
        [[a, b], [c, d]]
    }
    #[inline(always)]
    fn narrow(self, v: [[__m256d; 2]; 2]) -> Self::V {
        let a = self.0.avx;
        let [[x, y], [z, w]] = v;
        [
            a._mm256_set_m128(a._mm256_cvtpd_ps(y), a._mm256_cvtpd_ps(x)),
            a._mm256_set_m128(a._mm256_cvtpd_ps(w), a._mm256_cvtpd_ps(z)),
        ]
    }
    #[inline(always)]
    fn log_softmax(self, x: Self::V, shift: &LogShift) -> Self::V {
        let a = self.0.avx;
        let max = a._mm256_set1_pd(shift.max);
        let (scale, c) = (a._mm256_set1_pd(shift.scale.0), a._mm256_set1_pd(shift.c.0));
        let x = self.widen4(x);
        let y: [__m128; 4] = each!(4, |k| {
            let d = a._mm256_sub_pd(x[k], max);
            a._mm256_cvtpd_ps(self.0.fma._mm256_fmsub_pd(d, scale, c))
        });
        [a._mm256_set_m128(y[1], y[0]), a._mm256_set_m128(y[3], y[2])]
    }
}

impl Vector for F64 {
    type E = f64;
    type V = [__m256d; 2];
    /// The lower and the upper halves of the eight entries: AVX2 permutes eight 32-bit numbers, not 64-bit ones.
    type Table = [__m256i; 2];
    type Acc = (Self::V, Self::V);
    type Wide = F64;
    const LANES: usize = 8;
    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as this function's.
        Self(unsafe { Avx2::new_unchecked() })
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        Avx2::vectorize(self.0, f)
    }
    #[inline(always)]
    fn wide(self) -> F64 {
        self
    }
    #[inline(always)]
    fn splat(self, x: f64) -> Self::V {
        [self.0.avx._mm256_set1_pd(x); 2]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_add_pd(a[0], b[0]), self.0.avx._mm256_add_pd(a[1], b[1])]
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_sub_pd(a[0], b[0]), self.0.avx._mm256_sub_pd(a[1], b[1])]
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_mul_pd(a[0], b[0]), self.0.avx._mm256_mul_pd(a[1], b[1])]
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_div_pd(a[0], b[0]), self.0.avx._mm256_div_pd(a[1], b[1])]
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_max_pd(a[0], b[0]), self.0.avx._mm256_max_pd(a[1], b[1])]
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        [self.0.avx._mm256_min_pd(a[0], b[0]), self.0.avx._mm256_min_pd(a[1], b[1])]
    }
    #[inline(always)]
    fn min_not_below(self, m: Self::V, x: Self::V, cut: Self::V) -> Self::V {
        let a = self.0.avx;
        each!(2, |k| {
            let below = a._mm256_cmp_pd::<_CMP_LT_OQ>(x[k], cut[k]);
            a._mm256_min_pd(a._mm256_blendv_pd(x[k], m[k], below), m[k])
        })
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let f = self.0.fma;
        [f._mm256_fmadd_pd(a[0], b[0], c[0]), f._mm256_fmadd_pd(a[1], b[1], c[1])]
    }
    #[inline(always)]
    fn select_below(self, x: Self::V, cut: Self::V, a: Self::V, b: Self::V) -> Self::V {
        let i = self.0.avx;
        each!(2, |k| i._mm256_blendv_pd(b[k], a[k], i._mm256_cmp_pd::<_CMP_LT_OQ>(x[k], cut[k])))
    }
    #[inline(always)]
    fn zero_below(self, x: Self::V, cut: Self::V, e: Self::V) -> Self::V {
        let a = self.0.avx;
        let below = [
            a._mm256_cmp_pd::<_CMP_LT_OQ>(x[0], cut[0]),
            a._mm256_cmp_pd::<_CMP_LT_OQ>(x[1], cut[1]),
        ];
        [a._mm256_andnot_pd(below[0], e[0]), a._mm256_andnot_pd(below[1], e[1])]
    }
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch accesses nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
    #[inline(always)]
    fn prefetch_far<T>(self, p: *const T) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
    }
    #[inline(always)]
    fn fence(self) {
        // SAFETY: every x86-64 CPU has SSE.
        unsafe { _mm_sfence() };
    }
    #[inline(always)]
    fn first_lane(self, a: Self::V) -> f64 {
        pulp::cast::<__m256d, [f64; 4]>(a[0])[0]
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f64 {
        let lanes: [f64; 4] = pulp::cast(self.0.avx._mm256_max_pd(a[0], a[1]));
        let larger = |a: f64, b: f64| if a > b { a } else { b };
        larger(larger(lanes[0], lanes[1]), larger(lanes[2], lanes[3]))
    }
    #[inline(always)]
    fn min_lane(self, a: Self::V) -> f64 {
        let lanes: [f64; 4] = pulp::cast(self.0.avx._mm256_min_pd(a[0], a[1]));
        let smaller = |a: f64, b: f64| if a < b { a } else { b };
        smaller(smaller(lanes[0], lanes[1]), smaller(lanes[2], lanes[3]))
    }

    #[inline(always)]
    fn table(self, m: i32) -> [__m256i; 2] {
        const HALVES: [[u32; 8]; 2] = {
            let mut halves = [[0; 8]; 2];
            let mut j = 0;
            while j < 8 {
                halves[0][j] = f64::TABLE[j] as u32;
                halves[1][j] = (f64::TABLE[j] >> 32) as u32;
                j += 1;
            }
            halves
        };
        let [low, high]: [__m256i; 2] = pulp::cast(HALVES);
        [low, self.0.avx2._mm256_sub_epi32(high, self.0.avx._mm256_set1_epi32(m << 20))]
    }
    #[inline(always)]
    fn lookup(self, table: [__m256i; 2], t: Self::V) -> Self::V {
        let (a, i) = (self.0.avx, self.0.avx2);
        each!(2, |k| {
            let t = a._mm256_castpd_si256(t[k]);
            // The index, in both halves of each lane.
            let j = i._mm256_shuffle_epi32::<0b10_10_00_00>(t);
            let low = i._mm256_permutevar8x32_epi32(table[0], j);
            let high = i._mm256_permutevar8x32_epi32(table[1], j);
            let entry = i._mm256_blend_epi32::<0b1010_1010>(low, high);
            let n = i._mm256_slli_epi64::<{ f64::SHIFT as i32 }>(t);
            a._mm256_castsi256_pd(i._mm256_add_epi64(entry, n))
        })
    }

    #[inline(always)]
    fn acc_zero(self) -> Self::Acc {
        (self.splat(0.0), self.splat(0.0))
    }
    #[inline(always)]
    fn acc_add(self, acc: Self::Acc, v: Self::V) -> Self::Acc {
        two_sum_lanes(self, acc, v)
    }
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        fold_f64(pulp::cast(acc.0), pulp::cast(acc.1))
    }
    sums_one_by_one!();
    acc_of_pairs!();

    #[inline(always)]
    fn widen(self, v: Self::V) -> [Self::V; 2] {
        [v; 2]
    }
    #[inline(always)]
    fn narrow(self, v: [Self::V; 2]) -> Self::V {
        v[0]
    }
    #[inline(always)]
    fn log_softmax(self, x: Self::V, shift: &LogShift) -> Self::V {
        log_softmax_f64(self, x, shift)
    }
}

impl F32 {
    /// Lanes i and i + 8, then i and i + 4 of a sum.
    #[inline(always)]
    fn fold_to_four(self, acc: [__m256d; 4]) -> __m256d {
        let a = self.0.avx;
        a._mm256_add_pd(a._mm256_add_pd(acc[0], acc[2]), a._mm256_add_pd(acc[1], acc[3]))
    }
    /// All lanes as f64, four by four.
    #[inline(always)]
    fn widen4(self, v: [__m256; 2]) -> [__m256d; 4] {
        let a = self.0.avx;
        [
            a._mm256_cvtps_pd(a._mm256_castps256_ps128(v[0])),
            a._mm256_cvtps_pd(a._mm256_extractf128_ps::<1>(v[0])),
            a._mm256_cvtps_pd(a._mm256_castps256_ps128(v[1])),
            a._mm256_cvtps_pd(a._mm256_extractf128_ps::<1>(v[1])),
        ]
    }
    #[inline(always)]
    fn widen_f16(self, h: __m128i) -> __m256 {
        // SAFETY: the token proves F16C.
        unsafe { _mm256_cvtph_ps(h) }
    }
    #[inline(always)]
    fn narrow_f16(self, v: __m256) -> __m128i {
        // SAFETY: the token proves F16C.
        unsafe { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v) }
    }
    #[inline(always)]
    fn widen_bf16(self, h: __m128i) -> __m256 {
        let i = self.0.avx2;
        self.0.avx._mm256_castsi256_ps(i._mm256_slli_epi32::<16>(i._mm256_cvtepu16_epi32(h)))
    }
    /// Ties to even. Of NaNs it is right for `NAN` alone, which stays a NaN when it is rounded: no
    /// other reaches it.
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

macro_rules! io {
    ($vector:ty, $t:ty, $half:literal, $self:ident, $load:expr, $store:expr, $stream:expr) => {
        // SAFETY: both halves together are LANES elements; parts go through a buffer.
        unsafe impl Io<$t> for $vector {
            #[inline(always)]
            unsafe fn load($self, p: *const $t) -> Self::V {
                // SAFETY: the caller vouches for LANES elements; the second half starts in their middle.
                unsafe { [$load(p), $load(p.add($half))] }
            }
            #[inline(always)]
            unsafe fn store($self, p: *mut $t, v: Self::V) {
                // SAFETY: the caller vouches for LANES elements; the second half starts in their middle.
                unsafe {
                    $store(p, v[0]);
                    $store(p.add($half), v[1]);
                }
            }
            #[inline(always)]
            unsafe fn stream($self, p: *mut $t, v: Self::V) {
                // SAFETY: as for store; both halves are aligned because the whole is. The token proves AVX.
                unsafe {
                    $stream(p, v[0]);
                    $stream(p.add($half), v[1]);
                }
            }
            part!($t, 2 * $half);
        }
    };
}

io!(
    F32,
    f32,
    8,
    self,
    |p| self.0.avx._mm256_loadu_ps(p),
    |p, v| self.0.avx._mm256_storeu_ps(p, v),
    |p, v| _mm256_stream_ps(p, v)
);

io!(
    F64,
    f64,
    4,
    self,
    |p| self.0.avx._mm256_loadu_pd(p),
    |p, v| self.0.avx._mm256_storeu_pd(p, v),
    |p, v| _mm256_stream_pd(p, v)
);

io!(
    F32,
    f16,
    8,
    self,
    |p: *const f16| self.widen_f16(self.0.sse2._mm_loadu_si128(p.cast())),
    |p: *mut f16, v| self.0.sse2._mm_storeu_si128(p.cast(), self.narrow_f16(v)),
    |p: *mut f16, v| _mm_stream_si128(p.cast(), self.narrow_f16(v))
);

io!(
    F32,
    bf16,
    8,
    self,
    |p: *const bf16| self.widen_bf16(self.0.sse2._mm_loadu_si128(p.cast())),
    |p: *mut bf16, v| self.0.sse2._mm_storeu_si128(p.cast(), self.narrow_bf16(v)),
    |p: *mut bf16, v| _mm_stream_si128(p.cast(), self.narrow_bf16(v))
);

narrow_io!(F64, 8, f32, f16, bf16);

impl Bands for F32 {
    #[inline(always)]
    fn less(self, a: Self::V, b: Self::V) -> u32 {
        let i = self.0.avx;
        let low = i._mm256_movemask_ps(i._mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])) as u32;
        let high = i._mm256_movemask_ps(i._mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])) as u32;
        low | high << 8
    }
}
