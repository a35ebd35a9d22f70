//! How a CPU of which nothing is known does the operations of [`Vector`]: on `wide`, for x86-64
//! before AVX2, WebAssembly, RISC-V and the rest.
//!
//! There may be no fused multiply-add. It is made of wider or of error-free operations, with a check for the
//! cases in which those round differently, so that the results are the same bits as the other kernels'. That costs
//! more than half of the speed that a kernel with other bits would have on such CPUs.

use crate::isa::vector::{
    Bands, Io, Vector, acc_of_pairs, inverses_f32, log_softmax_f64, narrow_io, part,
    sums_one_by_one, two_sum_lanes,
};
use crate::num::exp2::Contract;
use crate::num::exp2::{Sum, fold_f32, fold_f64};
use crate::num::scale::LogShift;
use half::bf16;
use half::f16;
use std::array::from_fn;
use wide::f32x8;
use wide::f64x4;

/// Every CPU has it.
pub(crate) fn is_available() -> bool {
    true
}

/// f32 arithmetic: 16 lanes.
#[derive(Clone, Copy)]
pub(crate) struct F32;

/// f64 arithmetic: 8 lanes.
#[derive(Clone, Copy)]
pub(crate) struct F64;

/// Four f64 of eight f32.
#[inline(always)]
fn widen(v: f32x8) -> [f64x4; 2] {
    let a = v.to_array();
    [f64x4::new(from_fn(|i| f64::from(a[i]))), f64x4::new(from_fn(|i| f64::from(a[i + 4])))]
}

/// Eight f32 of eight f64, each rounded to nearest.
#[inline(always)]
fn narrow(v: [f64x4; 2]) -> f32x8 {
    let (a, b) = (v[0].to_array(), v[1].to_array());
    f32x8::new(from_fn(|i| if i < 4 { a[i] as f32 } else { b[i - 4] as f32 }))
}

/// `a * b + c`, rounded once, by way of f64, which holds the product exactly.
///
/// The sum in f64 is rounded, and then again to f32. That differs from one rounding only if the first ends
/// half-way between two f32, which is looked for: such vectors, and those with subnormal results, whose half-ways
/// lie elsewhere, are done by the system's slow function.
// Not inlined: dozens of copies of this, most of them in loops, would be most of the crate's code.
#[cfg_attr(any(target_feature = "fma", target_arch = "aarch64"), inline(always))]
#[cfg_attr(not(any(target_feature = "fma", target_arch = "aarch64")), inline(never))]
fn fma_f32x8(a: f32x8, b: f32x8, c: f32x8) -> f32x8 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        return a.mul_add(b, c);
    }
    let (wa, wb, wc) = (widen(a), widen(b), widen(c));
    let s = [wa[0] * wb[0] + wc[0], wa[1] * wb[1] + wc[1]];
    let doubtful = |s: f64x4| {
        s.to_array().into_iter().fold(false, |doubtful, s| {
            let half_way = s.to_bits() & 0x1fff_ffff == 0x1000_0000;
            // Below f32's normal numbers, but not 0.
            let small = (s.to_bits() << 1).wrapping_sub(1)
                < (f64::from(f32::MIN_POSITIVE).to_bits() << 1) - 1;
            doubtful | half_way | small
        })
    };
    if doubtful(s[0]) | doubtful(s[1]) {
        let (a, b, c) = (a.to_array(), b.to_array(), c.to_array());
        return f32x8::new(from_fn(|i| a[i].mul_add(b[i], c[i])));
    }
    narrow(s)
}

/// `a * b + c`, rounded once, from the exact product and the exact sum of its larger part and `c` (Dekker, Knuth).
///
/// What is left of both is added with a rounding. Where that could change the result (it is checked with a little more and
/// a little less), and where exactness itself is in doubt (near overflow and underflow), the system's
/// slow function does it.
#[cfg_attr(any(target_feature = "fma", target_arch = "aarch64"), inline(always))]
#[cfg_attr(not(any(target_feature = "fma", target_arch = "aarch64")), inline(never))]
fn fma_f64x4(a: f64x4, b: f64x4, c: f64x4) -> f64x4 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        return a.mul_add(b, c);
    }
    let split = f64x4::splat(134_217_729.0);
    let p = a * b;
    let (ta, tb) = (split * a, split * b);
    let (ah, bh) = (ta - (ta - a), tb - (tb - b));
    let (al, bl) = (a - ah, b - bh);
    let p_lo = ((ah * bh - p) + ah * bl + al * bh) + al * bl;
    let s = p + c;
    let t = s - p;
    let s_lo = (p - (s - t)) + (c - t);
    let lo = p_lo + s_lo;
    let (more, less) = (f64x4::splat(1.0 + f64::EPSILON), f64x4::splat(1.0 - f64::EPSILON));
    let (up, down) = (s + lo * more, s + lo * less);
    let (up_, down_) = (up.to_array(), down.to_array());
    let (pa, sa) = (p.to_array(), s.to_array());
    let in_range = |v: f64| (1e-250..1e250).contains(&v.abs());
    if (0..4).all(|i| up_[i] == down_[i] && in_range(pa[i]) && in_range(sa[i])) {
        return up;
    }
    let (a, b, c) = (a.to_array(), b.to_array(), c.to_array());
    f64x4::new(from_fn(|i| a[i].mul_add(b[i], c[i])))
}

impl Vector for F32 {
    type E = f32;
    type V = [f32x8; 2];
    type Table = [u32; 8];
    type Acc = [f64x4; 4];
    type Wide = F64;
    const LANES: usize = 16;
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    const SMALL: bool = true;
    const CHAINS: usize = 3;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn wide(self) -> F64 {
        F64
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [f32x8::splat(x); 2]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] + b[0], a[1] + b[1]]
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] - b[0], a[1] - b[1]]
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] * b[0], a[1] * b[1]]
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] / b[0], a[1] / b[1]]
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0].fast_max(b[0]), a[1].fast_max(b[1])]
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0].fast_min(b[0]), a[1].fast_min(b[1])]
    }
    #[inline(always)]
    fn min_not_below(self, m: Self::V, x: Self::V, cut: Self::V) -> Self::V {
        from_fn(|k| x[k].simd_lt(cut[k]).select(m[k], x[k]).fast_min(m[k]))
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [fma_f32x8(a[0], b[0], c[0]), fma_f32x8(a[1], b[1], c[1])]
    }
    #[inline(always)]
    fn select_below(self, x: Self::V, cut: Self::V, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|k| x[k].simd_lt(cut[k]).select(a[k], b[k]))
    }
    #[inline(always)]
    fn zero_below(self, x: Self::V, cut: Self::V, e: Self::V) -> Self::V {
        let zero = f32x8::splat(0.0);
        [x[0].simd_lt(cut[0]).select(zero, e[0]), x[1].simd_lt(cut[1]).select(zero, e[1])]
    }
    #[inline(always)]
    fn first_lane(self, a: Self::V) -> f32 {
        a[0].as_array()[0]
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f32 {
        a[0].fast_max(a[1]).to_array().into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn min_lane(self, a: Self::V) -> f32 {
        a[0].fast_min(a[1]).to_array().into_iter().fold(f32::INFINITY, f32::min)
    }

    #[inline(always)]
    fn table(self, m: i32) -> [u32; 8] {
        f32::TABLE.map(|entry| entry.wrapping_sub((m as u32) << 23))
    }
    #[inline(always)]
    fn lookup(self, table: [u32; 8], t: Self::V) -> Self::V {
        t.map(
            #[inline(always)]
            |t| {
                f32x8::new(t.to_array().map(|t| {
                    let t = t.to_bits();
                    f32::from_bits(table[(t & 7) as usize].wrapping_add(t << f32::SHIFT))
                }))
            },
        )
    }

    #[inline(always)]
    fn acc_zero(self) -> Self::Acc {
        [f64x4::splat(0.0); 4]
    }
    #[inline(always)]
    fn acc_add(self, acc: Self::Acc, v: Self::V) -> Self::Acc {
        let (a, b) = (widen(v[0]), widen(v[1]));
        [acc[0] + a[0], acc[1] + a[1], acc[2] + b[0], acc[3] + b[1]]
    }
    #[inline(always)]
    fn acc_plus(self, a: Self::Acc, b: Self::Acc) -> Self::Acc {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }
    #[inline(always)]
    unsafe fn acc_inverses(self, acc: Self::Acc, hi: *mut f32, lo: *mut f32) -> bool {
        let sums = [[acc[0], acc[1]], [acc[2], acc[3]]];
        // SAFETY: as this function's.
        unsafe { inverses_f32(self.wide(), sums, hi, lo) }
    }
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        let lanes = acc.map(f64x4::to_array);
        fold_f32(from_fn(|i| lanes[i / 4][i % 4]))
    }
    sums_one_by_one!();

    #[inline(always)]
    fn widen(self, v: Self::V) -> [[f64x4; 2]; 2] {
        [widen(v[0]), widen(v[1])]
    }
    #[inline(always)]
    fn narrow(self, v: [[f64x4; 2]; 2]) -> Self::V {
        [narrow(v[0]), narrow(v[1])]
    }
    #[inline(always)]
    fn log_softmax(self, x: Self::V, shift: &LogShift) -> Self::V {
        let [max, scale, minus_c] = [shift.max, shift.scale.0, -shift.c.0].map(f64x4::splat);
        x.map(
            #[inline(always)]
            |x| narrow(widen(x).map(|x| fma_f64x4(x - max, scale, minus_c))),
        )
    }
}

impl Vector for F64 {
    type E = f64;
    type V = [f64x4; 2];
    type Table = [u64; 8];
    type Acc = (Self::V, Self::V);
    type Wide = F64;
    const LANES: usize = 8;
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    const SMALL: bool = true;
    const CHAINS: usize = 3;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self
    }
    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    #[inline(always)]
    fn wide(self) -> F64 {
        self
    }
    #[inline(always)]
    fn splat(self, x: f64) -> Self::V {
        [f64x4::splat(x); 2]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] + b[0], a[1] + b[1]]
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] - b[0], a[1] - b[1]]
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] * b[0], a[1] * b[1]]
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] / b[0], a[1] / b[1]]
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0].fast_max(b[0]), a[1].fast_max(b[1])]
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0].fast_min(b[0]), a[1].fast_min(b[1])]
    }
    #[inline(always)]
    fn min_not_below(self, m: Self::V, x: Self::V, cut: Self::V) -> Self::V {
        from_fn(|k| x[k].simd_lt(cut[k]).select(m[k], x[k]).fast_min(m[k]))
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [fma_f64x4(a[0], b[0], c[0]), fma_f64x4(a[1], b[1], c[1])]
    }
    #[inline(always)]
    fn select_below(self, x: Self::V, cut: Self::V, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|k| x[k].simd_lt(cut[k]).select(a[k], b[k]))
    }
    #[inline(always)]
    fn zero_below(self, x: Self::V, cut: Self::V, e: Self::V) -> Self::V {
        let zero = f64x4::splat(0.0);
        [x[0].simd_lt(cut[0]).select(zero, e[0]), x[1].simd_lt(cut[1]).select(zero, e[1])]
    }
    #[inline(always)]
    fn first_lane(self, a: Self::V) -> f64 {
        a[0].as_array()[0]
    }
    #[inline(always)]
    fn max_lane(self, a: Self::V) -> f64 {
        a[0].fast_max(a[1]).to_array().into_iter().fold(f64::NEG_INFINITY, f64::max)
    }
    #[inline(always)]
    fn min_lane(self, a: Self::V) -> f64 {
        a[0].fast_min(a[1]).to_array().into_iter().fold(f64::INFINITY, f64::min)
    }

    #[inline(always)]
    fn table(self, m: i32) -> [u64; 8] {
        f64::TABLE.map(|entry| entry.wrapping_sub((i64::from(m) << 52) as u64))
    }
    #[inline(always)]
    fn lookup(self, table: [u64; 8], t: Self::V) -> Self::V {
        t.map(
            #[inline(always)]
            |t| {
                f64x4::new(t.to_array().map(|t| {
                    let t = t.to_bits();
                    f64::from_bits(table[(t & 7) as usize].wrapping_add(t << f64::SHIFT))
                }))
            },
        )
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
        let lanes = |v: Self::V| {
            let (a, b) = (v[0].to_array(), v[1].to_array());
            from_fn(|i| if i < 4 { a[i] } else { b[i - 4] })
        };
        fold_f64(lanes(acc.0), lanes(acc.1))
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

/// Conversions of f16 and bf16 are long here, and so functions of their own.
macro_rules! io {
    ($inline:ident, $vector:ty, $half:ident, $lanes:literal, $t:ty, $load:expr, $store:expr) => {
        // SAFETY: LANES elements are read and written as arrays of that many.
        unsafe impl Io<$t> for $vector {
            #[inline($inline)]
            unsafe fn load(self, p: *const $t) -> Self::V {
                // SAFETY: the caller vouches for LANES elements; arrays of two-, four- or
                // eight-byte numbers are read without regard to more than the element's own alignment.
                let a = unsafe { p.cast::<[$t; $lanes]>().read() };
                [
                    $half::new(from_fn(|i| $load(a[i]))),
                    $half::new(from_fn(|i| $load(a[i + $lanes / 2]))),
                ]
            }
            #[inline($inline)]
            unsafe fn store(self, p: *mut $t, v: Self::V) {
                let (a, b) = (v[0].to_array(), v[1].to_array());
                let all: [$t; $lanes] =
                    from_fn(|i| $store(if i < $lanes / 2 { a[i] } else { b[i - $lanes / 2] }));
                // SAFETY: the caller vouches for LANES elements; alignment as above.
                unsafe { p.cast::<[$t; $lanes]>().write(all) };
            }
            part!($t, $lanes);
        }
    };
}

io!(always, F32, f32x8, 16, f32, |x: f32| x, |x: f32| x);

io!(always, F64, f64x4, 8, f64, |x: f64| x, |x: f64| x);

io!(never, F32, f32x8, 16, f16, f16::to_f32_const, f16::from_f32_const);

io!(never, F32, f32x8, 16, bf16, bf16::to_f32_const, bf16::from_f32_const);

narrow_io!(F64, 8, f32, f16, bf16);

impl Bands for F32 {
    #[inline(always)]
    fn less(self, a: Self::V, b: Self::V) -> u32 {
        a[0].simd_lt(b[0]).to_bitmask() | a[1].simd_lt(b[1]).to_bitmask() << 8
    }
}
