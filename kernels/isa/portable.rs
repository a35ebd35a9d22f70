//! How any CPU does the operations of [`Vector`], with the crate `wide`: for x86-64 before AVX2,
//! WebAssembly, RISC-V and the rest.
//!
//! There may be no fused multiply-add. It is emulated by wider or by error-free operations, with a
//! check for the cases in which these round differently, so that results have the bits of the other
//! kernels. This costs more than half of the speed that a kernel with other bits would have on such
//! CPUs.

use std::array::from_fn;

use half::{bf16, f16};
use wide::{f32x8, f64x4};

use crate::isa::registers::{
    elementwise, f32_alike, f64_alike, narrow_io, one_lane, part, sums_in_order, sums_one_by_one,
};
use crate::isa::vector::{Across, Io, Vector, fold_f32_lanes};
use crate::num::exp2::{Contract, Sum};

/// Every CPU can run this.
pub(crate) fn is_available() -> bool {
    true
}

/// f32 arithmetic: 16 lanes.
#[derive(Clone, Copy)]
pub(crate) struct F32;

/// f64 arithmetic: 8 lanes.
#[derive(Clone, Copy)]
pub(crate) struct F64;

/// Widens eight f32 to two vectors of four f64.
#[inline(always)]
fn widen(v: f32x8) -> [f64x4; 2] {
    let a = v.to_array();
    [f64x4::new(from_fn(|i| f64::from(a[i]))), f64x4::new(from_fn(|i| f64::from(a[i + 4])))]
}

/// Narrows eight f64 to f32, each rounded to nearest.
#[inline(always)]
fn narrow(v: [f64x4; 2]) -> f32x8 {
    let (a, b) = (v[0].to_array(), v[1].to_array());
    f32x8::new(from_fn(|i| if i < 4 { a[i] as f32 } else { b[i - 4] as f32 }))
}

/// The lanes of eight f64 as an array.
#[inline(always)]
fn lanes(v: [f64x4; 2]) -> [f64; 8] {
    let (a, b) = (v[0].to_array(), v[1].to_array());
    from_fn(|i| if i < 4 { a[i] } else { b[i - 4] })
}

/// `a * b + c`, rounded once, in f64, which holds the product exactly.
///
/// The sum is rounded to f64 and then to f32. That differs from one rounding only if the f64 lies
/// half-way between two f32, or if the result is subnormal, where half-ways lie elsewhere. Vectors
/// with such lanes are computed by the system's slow function.
// Not inlined: dozens of copies, most of them in loops, would be most of the crate's code.
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

/// `a * b + c`, rounded once, from the exact product and the exact sum of its larger part and `c`
/// (Dekker, Knuth).
///
/// The remainders of both are added with a rounding. Where this could change the result (checked
/// with a little more and a little less), and near overflow and underflow, where exactness is in
/// doubt, the system's slow function is called.
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

/// The operations of both types, except `$more`.
macro_rules! arithmetic {
    ($vector:ty, $e:ident, $bits:ty, $half:ident, $fma:ident, {$($more:tt)*}) => {
        impl Vector for $vector {
            type V = [$half; 2];
            type Table = [$bits; 8];
            type Wide = F64;
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
            #[inline(never)]
            fn apart<R>(self, f: impl FnOnce() -> R) -> R {
                f()
            }
            #[inline(always)]
            fn wide(self) -> F64 {
                F64
            }
            elementwise! { 2, s:
                splat(x) = $half::splat(x);
                add(a, b) = a + b;
                sub(a, b) = a - b;
                mul(a, b) = a * b;
                div(a, b) = a / b;
                max(a, b) = a.fast_max(b);
                min(a, b) = a.fast_min(b);
                fma(a, b, c) = $fma(a, b, c);
                select_below(x, cut, a, b) = x.simd_lt(cut).select(a, b);
                zero_below(x, cut, e) = x.simd_lt(cut).select($half::splat(0.0), e);
                lookup[table](t) = {
                    $half::new(t.to_array().map(
                        #[inline(always)]
                        |t| {
                            let (entry, n) = (table[(t.to_bits() & 7) as usize], t.to_bits());
                            $e::from_bits(entry.wrapping_add(n << $e::SHIFT))
                        },
                    ))
                };
            }
            #[inline(always)]
            fn select_bits(self, bits: u32, a: Self::V, b: Self::V) -> Self::V {
                const HALF: usize = <$vector as Vector>::LANES / 2;
                [0, 1].map(
                    #[inline(always)]
                    |k| {
                        // All bits of a lane set, or none.
                        let bit = |i| <$bits>::from(bits >> (k * HALF + i) & 1);
                        let lane = |i: usize| bit(i).wrapping_neg();
                        let set = $half::new(from_fn(|i| $e::from_bits(lane(i))));
                        set.select(a[k], b[k])
                    },
                )
            }
            one_lane! { s:
                first_lane(a) = a[0].as_array()[0];
                max_lane(a) =
                    a[0].fast_max(a[1]).to_array().into_iter().fold($e::NEG_INFINITY, $e::max);
                min_lane(a) =
                    a[0].fast_min(a[1]).to_array().into_iter().fold($e::INFINITY, $e::min);
            }
            #[inline(always)]
            fn table(self, m: i32) -> Self::Table {
                $e::TABLE.map(|entry| entry.wrapping_sub((m as $bits) << ($e::SHIFT + 3)))
            }
            $($more)*
        }
    };
}

arithmetic!(F64, f64, u64, f64x4, fma_f64x4, {
    f64_alike!(lanes);
});

arithmetic!(F32, f32, u32, f32x8, fma_f32x8, {
    f32_alike!();
    sums_in_order!();
    sums_one_by_one!();
    #[inline(always)]
    fn acc_fold(self, acc: Self::Acc) -> Sum {
        fold_f32_lanes(self.wide(), acc)
    }
    #[inline(always)]
    fn widen(self, v: Self::V) -> [[f64x4; 2]; 2] {
        [widen(v[0]), widen(v[1])]
    }
    #[inline(always)]
    fn narrow(self, v: [[f64x4; 2]; 2]) -> Self::V {
        [narrow(v[0]), narrow(v[1])]
    }
});

/// Loads and stores; conversions of f16 and bf16 are long, so they are functions of their own.
macro_rules! io {
    ($inline:ident, $vector:ty, $half:ident, $lanes:literal, $t:ty, $load:expr, $store:expr) => {
        // SAFETY: LANES elements are read and written as arrays of that many.
        unsafe impl Io<$t> for $vector {
            #[inline($inline)]
            unsafe fn load(self, p: *const $t) -> Self::V {
                // SAFETY: the caller guarantees LANES elements; an array of numbers needs no more
                // alignment than one of them.
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
                // SAFETY: the caller guarantees LANES elements; alignment as above.
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

/// Bits of comparisons, and lanes in turn, of half a vector's `$lanes`.
macro_rules! across {
    ($vector:ty, $half:ident, $lanes:literal) => {
        impl Across for $vector {
            #[inline(always)]
            fn less(self, a: Self::V, b: Self::V) -> u32 {
                a[0].simd_lt(b[0]).to_bitmask() | a[1].simd_lt(b[1]).to_bitmask() << $lanes
            }
            #[inline(always)]
            fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
                [0, 1].map(
                    #[inline(always)]
                    |k| {
                        let (a, b) = (a[k].to_array(), b[k].to_array());
                        let lane = |i: usize| if i % 2 == 0 { a[i / 2] } else { b[i / 2] };
                        [$half::new(from_fn(lane)), $half::new(from_fn(|i| lane(i + $lanes)))]
                    },
                )
            }
        }
    };
}

across!(F32, f32x8, 8);

across!(F64, f64x4, 4);
