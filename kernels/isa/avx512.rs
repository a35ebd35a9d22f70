//! How AVX-512 does the operations of [`Vector`].

use crate::isa::vector::{
    Bands, Io, Vector, acc_of_pairs, inverses_f32, log_softmax_f64, narrow_io, sums_one_by_one,
    two_sum_lanes,
};
use crate::num::exp2::Contract;
use crate::num::exp2::{ROWS_AT_ONCE, Sum, fold_f64};
use crate::num::scale::LogShift;
use half::bf16;
use half::f16;
use pulp::x86::V4;
use std::arch::asm;

use std::arch::x86_64::*;

/// Whether this CPU has it.
pub(crate) fn is_available() -> bool {
    V4::try_new().is_some()
}

/// f32 arithmetic: 16 lanes, one register.
#[derive(Clone, Copy)]
pub(crate) struct F32(V4);

/// f64 arithmetic: 8 lanes, one register.
#[derive(Clone, Copy)]
pub(crate) struct F64(V4);

/// What the widened sums must be multiplied by: 2^896.
const WIDENED: f64 = f64::from_bits((1023 + 896) << 52);

/// The least that a widened NaN can come to, 2^128; exponentials are below 8 and rows shorter than 2^64.
const TOO_LARGE: f64 = f64::from_bits((1023 + 128) << 52);

/// The product of the lower halves of 64 bits. In assembly, because the compiler makes two operations of the multiplication
/// by a power of two: a shift and a mask.
#[inline]
#[target_feature(enable = "avx512f")]
fn mul_low(a: __m512i, b: __m512i) -> __m512i {
    let product;
    // SAFETY: one instruction between registers.
    unsafe {
        asm!(
            "vpmuludq {}, {}, {}",
            lateout(zmm_reg) product,
            in(zmm_reg) a,
            in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    product
}

/// A mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> u16 {
    debug_assert!(n < 16);
    (1u16 << n) - 1
}

impl Vector for F32 {
    type E = f32;
    type V = __m512;
    /// The table twice over: the lookup uses four bits of its index.
    type Table = __m512;
    /// Even lanes and odd lanes, times [`WIDENED`].
    type Acc = [__m512d; 2];
    type Sums = __m512d;
    type Wide = F64;
    const LANES: usize = 16;
    const STREAMS: bool = true;
    const CHAINS: usize = 12;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as this function's.
        Self(unsafe { V4::new_unchecked() })
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.vectorize(f)
    }
    #[inline(always)]
    fn wide(self) -> F64 {
        F64(self.0)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        self.0.avx512f._mm512_set1_ps(x)
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_add_ps(a, b)
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_sub_ps(a, b)
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_mul_ps(a, b)
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_div_ps(a, b)
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_max_ps(a, b)
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_min_ps(a, b)
    }
    #[inline(always)]
    fn min_not_below(self, m: __m512, x: __m512, cut: __m512) -> __m512 {
        let keep = self.0.avx512f._mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, cut);
        self.0.avx512f._mm512_mask_min_ps(m, keep, x, m)
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        self.0.avx512f._mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    fn select_below(self, x: __m512, cut: __m512, a: __m512, b: __m512) -> __m512 {
        let f = self.0.avx512f;
        f._mm512_mask_blend_ps(f._mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, cut), b, a)
    }
    #[inline(always)]
    fn zero_below(self, x: __m512, cut: __m512, e: __m512) -> __m512 {
        let keep = self.0.avx512f._mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, cut);
        // One instruction with the operation that made e.
        self.0.avx512f._mm512_maskz_mov_ps(keep, e)
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
    fn first_lane(self, a: __m512) -> f32 {
        pulp::cast::<__m512, [f32; 16]>(a)[0]
    }
    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        self.0.avx512f._mm512_reduce_max_ps(a)
    }
    #[inline(always)]
    fn min_lane(self, a: __m512) -> f32 {
        self.0.avx512f._mm512_reduce_min_ps(a)
    }

    #[inline(always)]
    fn table(self, m: i32) -> __m512 {
        let f = self.0.avx512f;
        const TWICE: [u32; 16] = {
            let mut t = [0; 16];
            let mut j = 0;
            while j < 16 {
                t[j] = f32::TABLE[j % 8];
                j += 1;
            }
            t
        };
        let table: __m512i = pulp::cast(TWICE);
        f._mm512_castsi512_ps(f._mm512_sub_epi32(table, f._mm512_set1_epi32(m << 23)))
    }
    #[inline(always)]
    fn lookup(self, table: __m512, t: __m512) -> __m512 {
        let f = self.0.avx512f;
        let t = f._mm512_castps_si512(t);
        let entry = f._mm512_castps_si512(f._mm512_permutexvar_ps(t, table));
        f._mm512_castsi512_ps(f._mm512_add_epi32(entry, f._mm512_slli_epi32::<{ f32::SHIFT }>(t)))
    }

    #[inline(always)]
    fn acc_zero(self) -> [__m512d; 2] {
        [self.0.avx512f._mm512_setzero_pd(); 2]
    }
    /// Widens by moving bits: the 31 bits of a positive f32, 29 places up, are the f64 of the same
    /// mantissa and 2^-896 times the value. That takes 3 operations on the two arithmetic ports
    /// where conversion takes 5 (two of 2, and an extraction), and the sums round alike.
    #[inline(always)]
    fn acc_of(self, v: __m512) -> [__m512d; 2] {
        let f = self.0.avx512f;
        let v = f._mm512_castps_si512(v);
        let up = f._mm512_set1_epi64(1 << 29);
        // SAFETY: the token proves AVX-512.
        let (even, odd) = unsafe { (mul_low(v, up), mul_low(f._mm512_srli_epi64::<32>(v), up)) };
        [f._mm512_castsi512_pd(even), f._mm512_castsi512_pd(odd)]
    }
    #[inline(always)]
    fn acc_add(self, acc: [__m512d; 2], v: __m512) -> [__m512d; 2] {
        let [even, odd] = self.acc_of(v);
        let f = self.0.avx512f;
        [f._mm512_add_pd(acc[0], even), f._mm512_add_pd(acc[1], odd)]
    }
    #[inline(always)]
    fn acc_plus(self, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        [self.0.avx512f._mm512_add_pd(a[0], b[0]), self.0.avx512f._mm512_add_pd(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn acc_inverses(self, acc: Self::Acc, hi: *mut f32, lo: *mut f32) -> bool {
        let sums = {
            let f = self.0.avx512f;
            let low: __m512i = pulp::cast([0i64, 8, 1, 9, 2, 10, 3, 11]);
            let high: __m512i = pulp::cast([4i64, 12, 5, 13, 6, 14, 7, 15]);
            let [even, odd] = acc;
            let scale = f._mm512_set1_pd(WIDENED);
            [
                f._mm512_mul_pd(f._mm512_permutex2var_pd(even, low, odd), scale),
                f._mm512_mul_pd(f._mm512_permutex2var_pd(even, high, odd), scale),
            ]
        };
        // SAFETY: as this function's.
        unsafe { inverses_f32(self.wide(), sums, hi, lo) }
    }
    #[inline(always)]
    fn acc_fold(self, acc: [__m512d; 2]) -> Sum {
        let f = self.0.avx512f;
        // Pairs (i, i + 8), then (i, i + 4), then (i, i + 2) of each, then even and odd: the same tree as fold_f32's.
        let quarter = |v: __m512d| {
            let high = f._mm512_extractf64x4_pd::<1>(v);
            let v = self.0.avx._mm256_add_pd(f._mm512_castpd512_pd256(v), high);
            let high = self.0.avx._mm256_extractf128_pd::<1>(v);
            self.0.sse2._mm_add_pd(self.0.avx._mm256_castpd256_pd128(v), high)
        };
        let [even, odd]: [[f64; 2]; 2] = [pulp::cast(quarter(acc[0])), pulp::cast(quarter(acc[1]))];
        let sum = ((even[0] + even[1]) + (odd[0] + odd[1])) * WIDENED;
        // A NaN among the elements has become a number larger than any sum.
        Sum { hi: if sum < TOO_LARGE { sum } else { f64::NAN }, lo: 0.0 }
    }
    /// The same trees, side by side: 5.75 operations a row.
    #[inline(always)]
    fn fold_rows(self, acc: &[[__m512d; 2]; ROWS_AT_ONCE]) -> __m512d {
        let f = self.0.avx512f;
        // Pairs (i, i + 8): even lanes of a row in the lower half, odd ones in the upper.
        let mut eight = [self.0.avx512f._mm512_setzero_pd(); ROWS_AT_ONCE];
        for k in 0..ROWS_AT_ONCE {
            let [even, odd] = acc[k];
            eight[k] = f._mm512_add_pd(
                f._mm512_shuffle_f64x2::<0b01_00_01_00>(even, odd),
                f._mm512_shuffle_f64x2::<0b11_10_11_10>(even, odd),
            );
        }
        // Pairs (i, i + 4), of two rows in each half.
        let low: __m512i = pulp::cast([0i64, 1, 8, 9, 4, 5, 12, 13]);
        let high: __m512i = pulp::cast([2i64, 3, 10, 11, 6, 7, 14, 15]);
        let four = |a, b| {
            f._mm512_add_pd(
                f._mm512_permutex2var_pd(a, low, b),
                f._mm512_permutex2var_pd(a, high, b),
            )
        };
        // Pairs (i, i + 2): a c b d of rows a, b, c, d in each half.
        let two = |a, b| f._mm512_add_pd(f._mm512_unpacklo_pd(a, b), f._mm512_unpackhi_pd(a, b));
        let [a, b, c, d, e, g, h, i] = eight;
        let first = two(four(a, b), four(c, d));
        let second = two(four(e, g), four(h, i));
        // Even and odd.
        let sums = f._mm512_add_pd(
            f._mm512_shuffle_f64x2::<0b01_00_01_00>(first, second),
            f._mm512_shuffle_f64x2::<0b11_10_11_10>(first, second),
        );
        let sums = f._mm512_mul_pd(sums, f._mm512_set1_pd(WIDENED));
        // Rows a, c, b, d and so on.
        let order: __m512i = pulp::cast([0i64, 2, 1, 3, 4, 6, 5, 7]);
        f._mm512_permutexvar_pd(order, sums)
    }
    #[inline(always)]
    fn are_positive(self, sums: __m512d) -> bool {
        let f = self.0.avx512f;
        // A NaN among the elements has become a number larger than any sum.
        let small = f._mm512_cmp_pd_mask::<_CMP_LT_OQ>(sums, f._mm512_set1_pd(TOO_LARGE));
        let positive = f._mm512_cmp_pd_mask::<_CMP_GT_OQ>(sums, f._mm512_setzero_pd());
        small & positive == 0xff
    }
    #[inline(always)]
    fn reciprocals(
        self,
        sums: __m512d,
        hi: &mut [f32; ROWS_AT_ONCE],
        lo: &mut [f32; ROWS_AT_ONCE],
    ) {
        let f = self.0.avx512f;
        let inverse = f._mm512_div_pd(f._mm512_set1_pd(1.0), sums);
        let high = f._mm512_cvtpd_ps(inverse);
        let low = f._mm512_cvtpd_ps(f._mm512_sub_pd(inverse, f._mm512_cvtps_pd(high)));
        (*hi, *lo) = (pulp::cast(high), pulp::cast(low));
    }

    #[inline(always)]
    fn widen(self, v: __m512) -> [__m512d; 2] {
        let f = self.0.avx512f;
        let high = self.0.avx512dq._mm512_extractf32x8_ps::<1>(v);
        [f._mm512_cvtps_pd(f._mm512_castps512_ps256(v)), f._mm512_cvtps_pd(high)]
    }
    #[inline(always)]
    fn narrow(self, v: [__m512d; 2]) -> __m512 {
        let f = self.0.avx512f;
        let [low, high] = [f._mm512_cvtpd_ps(v[0]), f._mm512_cvtpd_ps(v[1])];
        self.0.avx512dq._mm512_insertf32x8::<1>(f._mm512_castps256_ps512(low), high)
    }
    #[inline(always)]
    fn log_softmax(self, x: __m512, shift: &LogShift) -> __m512 {
        let f = self.0.avx512f;
        let low = self.log_softmax_half(f._mm512_castps512_ps256(x), shift);
        let high = self.log_softmax_half(self.0.avx512dq._mm512_extractf32x8_ps::<1>(x), shift);
        self.0.avx512dq._mm512_insertf32x8::<1>(f._mm512_castps256_ps512(low), high)
    }
}

impl Vector for F64 {
    type E = f64;
    type V = __m512d;
    type Table = __m512d;
    type Acc = (__m512d, __m512d);
    type Wide = F64;
    const LANES: usize = 8;
    const STREAMS: bool = true;
    const CHAINS: usize = 12;

    #[inline(always)]
    unsafe fn assume() -> Self {
        // SAFETY: as this function's.
        Self(unsafe { V4::new_unchecked() })
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.vectorize(f)
    }
    #[inline(always)]
    fn wide(self) -> F64 {
        self
    }
    #[inline(always)]
    fn splat(self, x: f64) -> __m512d {
        self.0.avx512f._mm512_set1_pd(x)
    }
    #[inline(always)]
    fn add(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_add_pd(a, b)
    }
    #[inline(always)]
    fn sub(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_sub_pd(a, b)
    }
    #[inline(always)]
    fn mul(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_mul_pd(a, b)
    }
    #[inline(always)]
    fn div(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_div_pd(a, b)
    }
    #[inline(always)]
    fn max(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_max_pd(a, b)
    }
    #[inline(always)]
    fn min(self, a: __m512d, b: __m512d) -> __m512d {
        self.0.avx512f._mm512_min_pd(a, b)
    }
    #[inline(always)]
    fn min_not_below(self, m: __m512d, x: __m512d, cut: __m512d) -> __m512d {
        let keep = self.0.avx512f._mm512_cmp_pd_mask::<_CMP_NLT_UQ>(x, cut);
        self.0.avx512f._mm512_mask_min_pd(m, keep, x, m)
    }
    #[inline(always)]
    fn fma(self, a: __m512d, b: __m512d, c: __m512d) -> __m512d {
        self.0.avx512f._mm512_fmadd_pd(a, b, c)
    }
    #[inline(always)]
    fn select_below(self, x: __m512d, cut: __m512d, a: __m512d, b: __m512d) -> __m512d {
        let f = self.0.avx512f;
        f._mm512_mask_blend_pd(f._mm512_cmp_pd_mask::<_CMP_LT_OQ>(x, cut), b, a)
    }
    #[inline(always)]
    fn zero_below(self, x: __m512d, cut: __m512d, e: __m512d) -> __m512d {
        let keep = self.0.avx512f._mm512_cmp_pd_mask::<_CMP_NLT_UQ>(x, cut);
        self.0.avx512f._mm512_maskz_mov_pd(keep, e)
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
    fn first_lane(self, a: __m512d) -> f64 {
        pulp::cast::<__m512d, [f64; 8]>(a)[0]
    }
    #[inline(always)]
    fn max_lane(self, a: __m512d) -> f64 {
        self.0.avx512f._mm512_reduce_max_pd(a)
    }
    #[inline(always)]
    fn min_lane(self, a: __m512d) -> f64 {
        self.0.avx512f._mm512_reduce_min_pd(a)
    }

    #[inline(always)]
    fn table(self, m: i32) -> __m512d {
        let f = self.0.avx512f;
        let table: __m512i = pulp::cast(f64::TABLE);
        f._mm512_castsi512_pd(f._mm512_sub_epi64(table, f._mm512_set1_epi64(i64::from(m) << 52)))
    }
    #[inline(always)]
    fn lookup(self, table: __m512d, t: __m512d) -> __m512d {
        let f = self.0.avx512f;
        let t = f._mm512_castpd_si512(t);
        let entry = f._mm512_castpd_si512(f._mm512_permutexvar_pd(t, table));
        f._mm512_castsi512_pd(f._mm512_add_epi64(entry, f._mm512_slli_epi64::<{ f64::SHIFT }>(t)))
    }

    #[inline(always)]
    fn acc_zero(self) -> (__m512d, __m512d) {
        (self.splat(0.0), self.splat(0.0))
    }
    #[inline(always)]
    fn acc_add(self, acc: (__m512d, __m512d), v: __m512d) -> (__m512d, __m512d) {
        two_sum_lanes(self, acc, v)
    }
    #[inline(always)]
    fn acc_fold(self, acc: (__m512d, __m512d)) -> Sum {
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
    fn log_softmax(self, x: __m512d, shift: &LogShift) -> __m512d {
        log_softmax_f64(self, x, shift)
    }
}

// SAFETY: every access below is of LANES elements, or masked to n.
unsafe impl Io<f32> for F32 {
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { self.0.avx512f._mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize, fill: f32) -> __m512 {
        // SAFETY: only the first n elements are read, for which the caller vouches.
        unsafe { self.0.avx512f._mm512_mask_loadu_ps(self.splat(fill), first(n), p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { self.0.avx512f._mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize, v: __m512) {
        // SAFETY: only the first n elements are written, for which the caller vouches.
        unsafe { self.0.avx512f._mm512_mask_storeu_ps(p, first(n), v) }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller vouches for 64 bytes at a multiple of 64; the token proves AVX-512.
        unsafe { _mm512_stream_ps(p, v) }
    }
}

// SAFETY: every access below is of LANES elements, or masked to n.
unsafe impl Io<f64> for F64 {
    #[inline(always)]
    unsafe fn load(self, p: *const f64) -> __m512d {
        // SAFETY: the caller vouches for 8 elements.
        unsafe { self.0.avx512f._mm512_loadu_pd(p) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f64, n: usize, fill: f64) -> __m512d {
        // SAFETY: only the first n elements are read, for which the caller vouches.
        unsafe { self.0.avx512f._mm512_mask_loadu_pd(self.splat(fill), first(n) as u8, p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f64, v: __m512d) {
        // SAFETY: the caller vouches for 8 elements.
        unsafe { self.0.avx512f._mm512_storeu_pd(p, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f64, n: usize, v: __m512d) {
        // SAFETY: only the first n elements are written, for which the caller vouches.
        unsafe { self.0.avx512f._mm512_mask_storeu_pd(p, first(n) as u8, v) }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f64, v: __m512d) {
        // SAFETY: the caller vouches for 64 bytes at a multiple of 64; the token proves AVX-512.
        unsafe { _mm512_stream_pd(p, v) }
    }
}

impl F32 {
    #[inline(always)]
    fn log_softmax_half(self, x: __m256, shift: &LogShift) -> __m256 {
        let f = self.0.avx512f;
        let d = f._mm512_sub_pd(f._mm512_cvtps_pd(x), f._mm512_set1_pd(shift.max));
        let (scale, c) = (f._mm512_set1_pd(shift.scale.0), f._mm512_set1_pd(shift.c.0));
        f._mm512_cvtpd_ps(f._mm512_fmsub_pd(d, scale, c))
    }
    #[inline(always)]
    fn widen_f16(self, h: __m256i) -> __m512 {
        self.0.avx512f._mm512_cvtph_ps(h)
    }
    #[inline(always)]
    fn narrow_f16(self, v: __m512) -> __m256i {
        self.0.avx512f._mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
    }
    #[inline(always)]
    fn widen_bf16(self, h: __m256i) -> __m512 {
        let f = self.0.avx512f;
        f._mm512_castsi512_ps(f._mm512_slli_epi32::<16>(f._mm512_cvtepu16_epi32(h)))
    }
    /// Ties to even, by integer arithmetic: the instruction of AVX512-BF16 would flush subnormals.
    /// Of NaNs it is right for `NAN` alone, which stays a NaN when it is rounded: no other reaches
    /// it.
    #[inline(always)]
    fn narrow_bf16(self, v: __m512) -> __m256i {
        let f = self.0.avx512f;
        let bits = f._mm512_castps_si512(v);
        let odd = f._mm512_and_si512(f._mm512_srli_epi32::<16>(bits), f._mm512_set1_epi32(1));
        let bias = f._mm512_add_epi32(odd, f._mm512_set1_epi32(0x7fff));
        f._mm512_cvtepi32_epi16(f._mm512_srli_epi32::<16>(f._mm512_add_epi32(bits, bias)))
    }
}

macro_rules! half_io {
    ($t:ty, $widen:ident, $narrow:ident) => {
        // SAFETY: every access below is of 16 elements of two bytes, or masked to n.
        unsafe impl Io<$t> for F32 {
            #[inline(always)]
            unsafe fn load(self, p: *const $t) -> __m512 {
                // SAFETY: the caller vouches for 16 elements, 32 bytes.
                self.$widen(unsafe { self.0.avx._mm256_loadu_si256(p.cast()) })
            }
            #[inline(always)]
            unsafe fn load_part(self, p: *const $t, n: usize, fill: f32) -> __m512 {
                let f = self.0.avx512f;
                // SAFETY: only the first n elements are read, for which the caller vouches.
                let v = self.$widen(unsafe {
                    self.0.avx512bw._mm256_maskz_loadu_epi16(first(n), p.cast())
                });
                f._mm512_mask_mov_ps(self.splat(fill), first(n), v)
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t, v: __m512) {
                // SAFETY: the caller vouches for 16 elements, 32 bytes.
                unsafe { self.0.avx._mm256_storeu_si256(p.cast(), self.$narrow(v)) }
            }
            #[inline(always)]
            unsafe fn store_part(self, p: *mut $t, n: usize, v: __m512) {
                let v = self.$narrow(v);
                // SAFETY: only the first n elements are written, for which the caller vouches.
                unsafe { self.0.avx512bw._mm256_mask_storeu_epi16(p.cast(), first(n), v) }
            }
            #[inline(always)]
            unsafe fn stream(self, p: *mut $t, v: __m512) {
                // SAFETY: the caller vouches for 32 bytes at a multiple of 32; the token proves AVX.
                unsafe { _mm256_stream_si256(p.cast(), self.$narrow(v)) }
            }
        }
    };
}

half_io!(f16, widen_f16, narrow_f16);

half_io!(bf16, widen_bf16, narrow_bf16);

narrow_io!(F64, 8, f32, f16, bf16);

impl Bands for F32 {
    #[inline(always)]
    fn less(self, a: __m512, b: __m512) -> u32 {
        self.0.avx512f._mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b).into()
    }
}
