//! The sweep of entropies: beside the sum of a row's exponentials their sum times the elements.
//!
//! Both are sums in f64 of the lanes in order (rows of f64: pairs), so that an exponential is
//! widened once for both on most CPUs. The first has the bits that [`sweep`](crate::sweep::sweep)
//! gives it.

use crate::isa::vector::{Io, Vector, two_sum_lanes};
use crate::mem::memory::LINE;
use crate::num::exp2::{BLOCK, Contract, MOST_LANES, Sum, fold_f32, fold_f64};
use crate::sweep::{Exp, NEAR, UNROLL};

/// Vectors of f64 of the same CPU.
type Wide<S> = <<S as Vector>::Wide as Vector>::V;

/// Lanes of a vector of f64.
const EIGHT: usize = MOST_LANES / 2;

/// Whether a vector widens to two vectors of f64; one of f64 is one.
const fn is_f32<S: Vector>() -> bool {
    S::LANES > EIGHT
}

/// A running sum in f64, lane by lane: in two vectors, or for f64 as a pair.
#[derive(Clone, Copy)]
pub(crate) struct Running<S: Vector>([Wide<S>; 2]);

impl<S: Vector> Running<S> {
    #[inline(always)]
    pub(crate) fn zero(simd: S) -> Self {
        Self([simd.wide().splat(0.0); 2])
    }

    /// Adds numbers that were widened.
    #[inline(always)]
    pub(crate) fn add(&mut self, simd: S, v: [Wide<S>; 2]) {
        let (w, sum) = (simd.wide(), self.0);
        self.0 = if is_f32::<S>() {
            [w.add(sum[0], v[0]), w.add(sum[1], v[1])]
        } else {
            two_sum_lanes(w, sum.into(), v[0]).into()
        };
    }

    /// Adds products of numbers that were widened. Those of f32 are exact in f64; those of f64 are
    /// added with their errors.
    #[inline(always)]
    pub(crate) fn add_products(&mut self, simd: S, a: [Wide<S>; 2], b: [Wide<S>; 2]) {
        let (w, sum) = (simd.wide(), self.0);
        self.0 = if !is_f32::<S>() {
            let p = w.mul(a[0], b[0]);
            let error = w.fma(a[0], b[0], w.sub(w.splat(0.0), p));
            let (hi, lo) = two_sum_lanes(w, sum.into(), p);
            [hi, w.add(lo, error)]
        } else if const { S::FUSED } {
            [w.fma(a[0], b[0], sum[0]), w.fma(a[1], b[1], sum[1])]
        } else {
            // The same bits, because the products are exact.
            [w.add(sum[0], w.mul(a[0], b[0])), w.add(sum[1], w.mul(a[1], b[1]))]
        };
    }

    /// Adds the lanes as a binary tree, as [`Vector::acc_fold`] does.
    #[inline(always)]
    pub(crate) fn fold(self, simd: S) -> Sum {
        let (w, mut lanes) = (simd.wide(), [[0.0; EIGHT]; 2]);
        // SAFETY: each array has room for a vector.
        unsafe {
            w.store(lanes[0].as_mut_ptr(), self.0[0]);
            w.store(lanes[1].as_mut_ptr(), self.0[1]);
        }
        if is_f32::<S>() {
            fold_f32(std::array::from_fn(|i| lanes[i / EIGHT][i % EIGHT]))
        } else {
            fold_f64(lanes[0], lanes[1])
        }
    }
}

/// The result of a weighing sweep.
#[derive(Clone, Copy)]
pub(crate) struct Weighed<E> {
    /// The sum of the exponentials; NaN if the row has one.
    pub(crate) sum: Sum,
    /// The sum of the exponentials times the elements, less the row's maximum in huge rows.
    pub(crate) weighted: Sum,
    /// The extremes, as in [`Found`](crate::sweep::Found).
    pub(crate) max: E,
    pub(crate) min: E,
}

/// What a sweep has met in a block, lane by lane; the extremes in the row so far.
struct Met<S: Vector> {
    sum: Running<S>,
    weighted: Running<S>,
    max: S::V,
    min: S::V,
}

/// Sums a row's exponentials and their products with the elements. A function of its own for all
/// callers.
///
/// If GUESSED, the shift is guessed, and the extremes are found to judge it. If not, it is the
/// row's own, and may need a subtraction. Without CUT no element may be below the cut, which the
/// caller finds out afterwards; rows by their own shift have it in any case.
///
/// # Safety
/// `x` is valid for reads of `n` elements.
#[inline(never)]
pub(crate) unsafe fn weigh<S, T, const GUESSED: bool, const CUT: bool>(
    exp: &Exp<S>,
    x: *const T,
    n: usize,
) -> Weighed<S::E>
where
    S: Io<T>,
{
    exp.simd.vectorize(
        #[inline(always)]
        || {
            let exp = *exp;
            let simd = exp.simd;
            let fill = |value| simd.splat(S::E::narrow(value));
            let zero = Running::zero(simd);
            let (max, min) = (fill(f64::NEG_INFINITY), fill(f64::INFINITY));
            let mut met = Met { sum: zero, weighted: zero, max, min };
            let (mut sum, mut weighted) = (Sum::ZERO, Sum::ZERO);
            let mut start = 0;
            while start < n {
                let end = n.min(start + BLOCK);
                (met.sum, met.weighted) = (zero, zero);
                let mut i = start;
                // SAFETY: the row has every vector and part that is read.
                unsafe {
                    while !S::SMALL && i + UNROLL * S::LANES <= end {
                        if S::ABREAST {
                            step::<UNROLL, S, T, GUESSED, CUT>(&exp, x.add(i), &mut met);
                        } else {
                            for k in 0..UNROLL {
                                let x = x.add(i + k * S::LANES);
                                step::<1, S, T, GUESSED, CUT>(&exp, x, &mut met);
                            }
                        }
                        i += UNROLL * S::LANES;
                    }
                    while i + S::LANES <= end {
                        step::<1, S, T, GUESSED, CUT>(&exp, x.add(i), &mut met);
                        i += S::LANES;
                    }
                    if i < end {
                        let part = |fill| simd.load_part(x.add(i), end - i, S::E::narrow(fill));
                        // With the cut in any case, so that the missing lanes, -inf, add 0.
                        let v = part(f64::NEG_INFINITY);
                        let least = if CUT { v } else { part(f64::INFINITY) };
                        add::<1, S, GUESSED, true>(&exp, [v], &mut met, |_, e| e);
                        if GUESSED {
                            see::<S, CUT>(&exp, v, least, &mut met);
                        }
                    }
                }
                let (block, products) = (met.sum.fold(simd), met.weighted.fold(simd));
                let first = start == 0;
                sum = if first { block } else { S::E::sum_add(sum, block) };
                weighted = if first { products } else { S::E::sum_add(weighted, products) };
                start = end;
            }
            Weighed { sum, weighted, max: simd.max_lane(met.max), min: simd.min_lane(met.min) }
        },
    )
}

/// The next N vectors, abreast.
///
/// # Safety
/// `x` is valid for reads of N vectors.
#[inline(always)]
unsafe fn step<const N: usize, S, T, const GUESSED: bool, const CUT: bool>(
    exp: &Exp<S>,
    x: *const T,
    met: &mut Met<S>,
) where
    S: Io<T>,
{
    let simd = exp.simd;
    let mut v = [met.max; N];
    for (k, v) in v.iter_mut().enumerate() {
        // SAFETY: this vector is there.
        *v = unsafe { simd.load(x.add(k * S::LANES)) };
    }
    if GUESSED {
        for &v in &v {
            see::<S, CUT>(exp, v, v, met);
        }
    }
    // Vectors of half types share lines.
    let lines = (N * S::LANES * size_of::<T>()).div_ceil(LINE);
    add::<N, S, GUESSED, CUT>(exp, v, met, |k, e| {
        let line = x.wrapping_byte_add(NEAR + k * LINE);
        if k < lines { simd.prefetch_beside(line, e) } else { e }
    });
}

/// Includes numbers in the largest and in the least that are not cut.
#[inline(always)]
fn see<S: Vector, const CUT: bool>(exp: &Exp<S>, v: S::V, least: S::V, met: &mut Met<S>) {
    let simd = exp.simd;
    met.max = simd.max(v, met.max);
    met.min =
        if CUT { simd.min_not_below(met.min, least, exp.cut) } else { simd.min(least, met.min) };
}

/// Adds the exponentials of N vectors, and their products with the elements. `beside` prefetches.
#[inline(always)]
fn add<const N: usize, S: Vector, const GUESSED: bool, const CUT: bool>(
    exp: &Exp<S>,
    v: [S::V; N],
    met: &mut Met<S>,
    beside: impl Fn(usize, S::V) -> S::V,
) {
    let simd = exp.simd;
    let e = exp.of_each::<N, false>(!GUESSED, !GUESSED || CUT, v, v);
    for k in 0..N {
        let v = if GUESSED && !CUT {
            v[k]
        } else if GUESSED {
            simd.zero_below(v[k], exp.cut, v[k])
        } else {
            exp.weight(v[k])
        };
        let e = simd.widen(beside(k, e[k]));
        met.sum.add(simd, e);
        met.weighted.add_products(simd, e, simd.widen(v));
    }
}
