//! How AVX-512 does the operations of [`Vector`].

use std::arch::asm;
use std::arch::x86_64::*;

use half::{bf16, f16};
use pulp::x86::V4;

use crate::isa::avx512_bf16;
use crate::isa::registers::{
    each, elementwise, f32_alike, f64_alike, memory, narrow_io, one_lane, sums_side_by_side, token,
    tokens, x86_caches,
};
use crate::isa::vector::{Across, Io, LARGEST_SUM, Vector, inverses_f32};
use crate::num::exp2::{Contract, ROWS_AT_ONCE, Sum};

tokens!(V4, avx512_bf16::find_bf16_conversions());

/// The factor that widened sums must be multiplied by: 2^896.
const WIDENED: f64 = f64::from_bits((1023 + 896) << 52);

/// The 64-bit product of the lower halves. In assembly, because the compiler replaces the product
/// with a power of two by two operations, a shift and a mask.
#[inline]
#[target_feature(enable = "avx512f")]
fn mul_low(a: __m512i, b: __m512i) -> __m512i {
    let product;
    // SAFETY: one instruction between registers.
    unsafe {
        asm!("vpmuludq {}, {}, {}", lateout(zmm_reg) product, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    product
}

/// A prefetch between what computes `v` and what uses it: the compiler would gather the prefetches
/// of several vectors, and where they come at once Intel's cores lose a fifth.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch_beside(p: *const u8, v: __m512) -> __m512 {
    let same;
    // SAFETY: a prefetch accesses nothing, whatever the address.
    unsafe {
        asm!("prefetcht0 [{}] /* {} */", in(reg) p.addr(), inlateout(zmm_reg) v => same,
            options(nomem, nostack, preserves_flags));
    }
    same
}

impl Vector for F32 {
    type V = [__m512; 1];
    /// The table twice: the lookup uses four bits of its index.
    type Table = __m512;
    const CHAINS: usize = 12;
    const ABREAST: bool = true;
    token!(V4);
    x86_caches!();
    #[inline(always)]
    fn prefetch_beside<T>(self, p: *const T, [v]: Self::V) -> Self::V {
        // SAFETY: the token says that the CPU has AVX-512.
        [unsafe { prefetch_beside(p.cast(), v) }]
    }
    // Running sums are those of even and of odd lanes, divided by WIDENED.
    f32_alike!();
    sums_side_by_side!();

    elementwise! { 1, s:
        splat(x) = s.0.avx512f._mm512_set1_ps(x);
        add(a, b) = s.0.avx512f._mm512_add_ps(a, b);
        sub(a, b) = s.0.avx512f._mm512_sub_ps(a, b);
        mul(a, b) = s.0.avx512f._mm512_mul_ps(a, b);
        div(a, b) = s.0.avx512f._mm512_div_ps(a, b);
        max(a, b) = s.0.avx512f._mm512_max_ps(a, b);
        min(a, b) = s.0.avx512f._mm512_min_ps(a, b);
        fma(a, b, c) = s.0.avx512f._mm512_fmadd_ps(a, b, c);
        min_not_below(m, x, cut) =
            s.0.avx512f._mm512_mask_min_ps(m, s.mask::<_CMP_NLT_UQ>(x, cut), x, m);
        select_below(x, cut, a, b) =
            s.0.avx512f._mm512_mask_blend_ps(s.mask::<_CMP_LT_OQ>(x, cut), b, a);
        // The compiler merges this into the operation that made e.
        zero_below(x, cut, e) = s.0.avx512f._mm512_maskz_mov_ps(s.mask::<_CMP_NLT_UQ>(x, cut), e);
        lookup[table](t) = {
            let (f, t) = (s.0.avx512f, s.0.avx512f._mm512_castps_si512(t));
            let entry = f._mm512_castps_si512(f._mm512_permutexvar_ps(t, table));
            let n = f._mm512_slli_epi32::<{ f32::SHIFT }>(t);
            f._mm512_castsi512_ps(f._mm512_add_epi32(entry, n))
        };
    }
    #[inline(always)]
    fn select_bits(self, bits: u32, [a]: Self::V, [b]: Self::V) -> Self::V {
        [self.0.avx512f._mm512_mask_blend_ps(bits as u16, b, a)]
    }
    one_lane! { s:
        first_lane(a) = pulp::cast::<__m512, [f32; 16]>(a[0])[0];
        max_lane(a) = s.0.avx512f._mm512_reduce_max_ps(a[0]);
        min_lane(a) = s.0.avx512f._mm512_reduce_min_ps(a[0]);
    }
    #[inline(always)]
    fn table(self, m: i32) -> __m512 {
        let (f, twice) = (self.0.avx512f, pulp::cast([f32::TABLE; 2]));
        f._mm512_castsi512_ps(f._mm512_sub_epi32(twice, f._mm512_set1_epi32(m << 23)))
    }
    #[inline(always)]
    fn widen(self, [v]: Self::V) -> [[__m512d; 1]; 2] {
        let f = self.0.avx512f;
        let high = self.0.avx512dq._mm512_extractf32x8_ps::<1>(v);
        [[f._mm512_cvtps_pd(f._mm512_castps512_ps256(v))], [f._mm512_cvtps_pd(high)]]
    }
    #[inline(always)]
    fn narrow(self, [[low], [high]]: [[__m512d; 1]; 2]) -> Self::V {
        let f = self.0.avx512f;
        let low = f._mm512_castps256_ps512(f._mm512_cvtpd_ps(low));
        [self.0.avx512dq._mm512_insertf32x8::<1>(low, f._mm512_cvtpd_ps(high))]
    }
    /// Widens by a shift: the 31 bits of a positive f32, 29 places up, are an f64 with the same
    /// mantissa and 2^-896 times the value. This takes 3 operations on the two arithmetic ports,
    /// where conversion takes 5 (two of 2, and an extraction), and sums are rounded alike.
    #[inline(always)]
    fn acc_of(self, [v]: Self::V) -> Self::Acc {
        let f = self.0.avx512f;
        let v = f._mm512_castps_si512(v);
        let up = f._mm512_set1_epi64(1 << 29);
        // SAFETY: the token proves AVX-512.
        let (even, odd) = unsafe { (mul_low(v, up), mul_low(f._mm512_srli_epi64::<32>(v), up)) };
        [[f._mm512_castsi512_pd(even)], [f._mm512_castsi512_pd(odd)]]
    }
    #[inline(always)]
    unsafe fn total_inverses(self, [[even], [odd]]: Self::Acc, hi: *mut f32, lo: *mut f32) -> bool {
        let (f, w) = (self.0.avx512f, self.wide());
        let low = f._mm512_permutex2var_pd(even, pulp::cast([0i64, 8, 1, 9, 2, 10, 3, 11]), odd);
        let high = f._mm512_permutex2var_pd(even, pulp::cast([4i64, 12, 5, 13, 6, 14, 7, 15]), odd);
        let scale = w.splat(WIDENED);
        // SAFETY: as this function's.
        unsafe { inverses_f32(w, [w.mul([low], scale), w.mul([high], scale)], hi, lo) }
    }
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        let [even, odd] = each!(2, |k| self.fold_to_two(acc[k][0]));
        let sum = ((even[0] + even[1]) + (odd[0] + odd[1])) * WIDENED;
        // A NaN among the elements has become a number above every sum.
        Sum { hi: if sum < LARGEST_SUM { sum } else { f64::NAN }, lo: 0.0 }
    }
    /// The trees of `acc_fold`, side by side: 5.75 operations a row.
    #[inline(always)]
    fn fold_rows(self, acc: &[Self::Total; ROWS_AT_ONCE]) -> Self::Sums {
        let f = self.0.avx512f;
        let low: __m512i = pulp::cast([0i64, 1, 8, 9, 4, 5, 12, 13]);
        let high: __m512i = pulp::cast([2i64, 3, 10, 11, 6, 7, 14, 15]);
        let [first, second] = each!(2, |h| {
            let [ab, cd] = each!(2, |k| {
                // Sums of lanes (i, i + 8): even lanes of a row in the lower half, odd ones in the
                // upper.
                let [a, b] = each!(2, |row| {
                    let [[even], [odd]] = acc[4 * h + 2 * k + row];
                    self.add_halves(even, odd)
                });
                // Sums of lanes (i, i + 4), of two rows in each half.
                let third = f._mm512_permutex2var_pd(a, low, b);
                f._mm512_add_pd(third, f._mm512_permutex2var_pd(a, high, b))
            });
            // Sums of lanes (i, i + 2): rows a, c, b, d in each half.
            f._mm512_add_pd(f._mm512_unpacklo_pd(ab, cd), f._mm512_unpackhi_pd(ab, cd))
        });
        // Sums of even and odd lanes: rows a, c, b, d and so on, then put in order.
        let sums = self.wide().mul([self.add_halves(first, second)], self.wide().splat(WIDENED));
        [f._mm512_permutexvar_pd(pulp::cast([0i64, 2, 1, 3, 4, 6, 5, 7]), sums[0])]
    }
    #[inline(always)]
    fn are_positive(self, [sums]: Self::Sums) -> bool {
        let f = self.0.avx512f;
        // A NaN among the elements has become a number above every sum.
        let small = f._mm512_cmp_pd_mask::<_CMP_LT_OQ>(sums, f._mm512_set1_pd(LARGEST_SUM));
        small & f._mm512_cmp_pd_mask::<_CMP_GT_OQ>(sums, f._mm512_setzero_pd()) == 0xff
    }
}

impl Vector for F64 {
    type V = [__m512d; 1];
    type Table = __m512d;
    const CHAINS: usize = 12;
    const ABREAST: bool = true;
    token!(V4);
    x86_caches!();
    #[inline(always)]
    fn prefetch_beside<T>(self, p: *const T, [v]: Self::V) -> Self::V {
        // SAFETY: as for f32.
        [pulp::cast(unsafe { prefetch_beside(p.cast(), pulp::cast(v)) })]
    }
    f64_alike!(pulp::cast);

    elementwise! { 1, s:
        splat(x) = s.0.avx512f._mm512_set1_pd(x);
        add(a, b) = s.0.avx512f._mm512_add_pd(a, b);
        sub(a, b) = s.0.avx512f._mm512_sub_pd(a, b);
        mul(a, b) = s.0.avx512f._mm512_mul_pd(a, b);
        div(a, b) = s.0.avx512f._mm512_div_pd(a, b);
        max(a, b) = s.0.avx512f._mm512_max_pd(a, b);
        min(a, b) = s.0.avx512f._mm512_min_pd(a, b);
        fma(a, b, c) = s.0.avx512f._mm512_fmadd_pd(a, b, c);
        min_not_below(m, x, cut) =
            s.0.avx512f._mm512_mask_min_pd(m, s.mask::<_CMP_NLT_UQ>(x, cut), x, m);
        select_below(x, cut, a, b) =
            s.0.avx512f._mm512_mask_blend_pd(s.mask::<_CMP_LT_OQ>(x, cut), b, a);
        // The compiler merges this into the operation that made e.
        zero_below(x, cut, e) = s.0.avx512f._mm512_maskz_mov_pd(s.mask::<_CMP_NLT_UQ>(x, cut), e);
        lookup[table](t) = {
            let (f, t) = (s.0.avx512f, s.0.avx512f._mm512_castpd_si512(t));
            let entry = f._mm512_castpd_si512(f._mm512_permutexvar_pd(t, table));
            let n = f._mm512_slli_epi64::<{ f64::SHIFT }>(t);
            f._mm512_castsi512_pd(f._mm512_add_epi64(entry, n))
        };
    }
    #[inline(always)]
    fn select_bits(self, bits: u32, [a]: Self::V, [b]: Self::V) -> Self::V {
        [self.0.avx512f._mm512_mask_blend_pd(bits as u8, b, a)]
    }
    one_lane! { s:
        first_lane(a) = pulp::cast::<__m512d, [f64; 8]>(a[0])[0];
        max_lane(a) = s.0.avx512f._mm512_reduce_max_pd(a[0]);
        min_lane(a) = s.0.avx512f._mm512_reduce_min_pd(a[0]);
    }
    #[inline(always)]
    fn table(self, m: i32) -> __m512d {
        let (f, m) = (self.0.avx512f, i64::from(m) << 52);
        let table = f._mm512_sub_epi64(pulp::cast(f64::TABLE), f._mm512_set1_epi64(m));
        f._mm512_castsi512_pd(table)
    }
}

impl F64 {
    #[inline(always)]
    fn mask<const HOW: i32>(self, a: __m512d, b: __m512d) -> __mmask8 {
        self.0.avx512f._mm512_cmp_pd_mask::<HOW>(a, b)
    }
}

impl F32 {
    #[inline(always)]
    fn mask<const HOW: i32>(self, a: __m512, b: __m512) -> __mmask16 {
        self.0.avx512f._mm512_cmp_ps_mask::<HOW>(a, b)
    }
    /// Adds the halves of one vector, and those of the other.
    #[inline(always)]
    fn add_halves(self, a: __m512d, b: __m512d) -> __m512d {
        let f = self.0.avx512f;
        let low = f._mm512_shuffle_f64x2::<0b01_00_01_00>(a, b);
        f._mm512_add_pd(low, f._mm512_shuffle_f64x2::<0b11_10_11_10>(a, b))
    }
    /// Adds halves of the lanes, twice.
    #[inline(always)]
    fn fold_to_two(self, v: __m512d) -> [f64; 2] {
        let (f, a) = (self.0.avx512f, self.0.avx);
        let high = f._mm512_extractf64x4_pd::<1>(v);
        let v = a._mm256_add_pd(f._mm512_castpd512_pd256(v), high);
        let high = a._mm256_extractf128_pd::<1>(v);
        pulp::cast(self.0.sse2._mm_add_pd(a._mm256_castpd256_pd128(v), high))
    }
}

memory! { F32, 1 of 16 f32, s:
    load_part(p, mask, fill) = s.0.avx512f._mm512_mask_loadu_ps(fill, mask, p);
    store_part(p, mask, v) = s.0.avx512f._mm512_mask_storeu_ps(p, mask, v);
    load(p) = s.0.avx512f._mm512_loadu_ps(p);
    store(p, v) = s.0.avx512f._mm512_storeu_ps(p, v);
    stream(p, v) = _mm512_stream_ps(p, v);
}
memory! { F64, 1 of 8 f64, s:
    load_part(p, mask, fill) = s.0.avx512f._mm512_mask_loadu_pd(fill, mask as u8, p);
    store_part(p, mask, v) = s.0.avx512f._mm512_mask_storeu_pd(p, mask as u8, v);
    load(p) = s.0.avx512f._mm512_loadu_pd(p);
    store(p, v) = s.0.avx512f._mm512_storeu_pd(p, v);
    stream(p, v) = _mm512_stream_pd(p, v);
}
memory! { F64, 1 of 8 f32, s:
    load(p) = s.0.avx512f._mm512_cvtps_pd(s.0.avx._mm256_loadu_ps(p));
    store(p, v) = s.0.avx._mm256_storeu_ps(p, s.0.avx512f._mm512_cvtpd_ps(v));
}
narrow_io!(F64, 8, f16, bf16);

impl Across for F32 {
    #[inline(always)]
    fn less(self, [a]: Self::V, [b]: Self::V) -> u32 {
        self.mask::<_CMP_LT_OQ>(a, b).into()
    }
    #[inline(always)]
    fn zip(self, [a]: Self::V, [b]: Self::V) -> [Self::V; 2] {
        let f = self.0.avx512f;
        let low = pulp::cast([0u32, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23]);
        let high = pulp::cast([8u32, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31]);
        [[f._mm512_permutex2var_ps(a, low, b)], [f._mm512_permutex2var_ps(a, high, b)]]
    }
}

impl Across for F64 {
    #[inline(always)]
    fn less(self, [a]: Self::V, [b]: Self::V) -> u32 {
        self.mask::<_CMP_LT_OQ>(a, b).into()
    }
    #[inline(always)]
    fn zip(self, [a]: Self::V, [b]: Self::V) -> [Self::V; 2] {
        let f = self.0.avx512f;
        let [low, high] = [
            pulp::cast([0u64, 8, 1, 9, 2, 10, 3, 11]),
            pulp::cast([4u64, 12, 5, 13, 6, 14, 7, 15]),
        ];
        [[f._mm512_permutex2var_pd(a, low, b)], [f._mm512_permutex2var_pd(a, high, b)]]
    }
}
