//! The operations that a kernel needs from a CPU, on vectors of a fixed number of lanes.
//!
//! A [`Vector`] is a token: it proves that the CPU has the instruction set, and gives arithmetic in
//! one type. Its `V` has the same number of lanes on every CPU (16 of f32, 8 of f64): one AVX-512
//! register, two of AVX2, four of NEON. So the algorithms in `sweep/` and `op/` are written once,
//! additions have the same order everywhere, and CPUs with narrow registers get unrolled loops.

use std::hint::cold_path;

use crate::num::exp2::{Contract, ROWS_AT_ONCE, Sum, fold_f32};
use crate::num::scale::LogShift;

/// Vectors that read and write elements of type `T`, of their own type, and f32.
pub(crate) trait Lanes<T>: Io<T> + Io<f32> + Io<<Self as Vector>::E> {}

impl<T, S: Io<T> + Io<f32> + Io<<S as Vector>::E>> Lanes<T> for S {}

/// Vectors whose lanes can become bits, and change places.
pub(crate) trait Across: Io<<Self as Vector>::E> {
    /// Bit `i` tells whether lane `i` of `a` is less than that of `b`.
    fn less(self, a: Self::V, b: Self::V) -> u32;
    /// Lanes of `a` and `b` in turn: those of their first halves, and those of the others.
    fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2];
}

/// The vector operations of one CPU in one arithmetic type.
///
/// Every method is one IEEE operation per lane, or exact, so its result does not depend on the CPU.
pub(crate) trait Vector: Copy {
    /// The arithmetic type: f32 or f64.
    type E: Contract + PartialOrd;
    /// [`Vector::LANES`] elements.
    type V: Copy;
    /// The eight table entries of a row, ready for lookups.
    type Table: Copy;
    /// The running sum of a block, lane by lane.
    type Acc: Copy;
    /// The sum of many blocks, or columns, lane by lane.
    type Total: Copy;
    /// The sums of several rows.
    type Sums: Copy;
    /// Vectors of f64 on the same CPU.
    type Wide: Vector<E = f64> + Io<f64>;
    /// Number of elements in a `V`.
    const LANES: usize;
    /// Whether [`Io::stream`] differs from `store`.
    const STREAMS: bool = false;
    /// Whether `fma` is one operation of the CPU.
    const FUSED: bool = true;
    /// Whether code should be small, because arithmetic is slow: loops for special cases, unrolled
    /// loops and inlined exponentials would gain nothing.
    const SMALL: bool = false;
    /// Whether four `V` have their exponentials computed abreast: the registers suffice, and the
    /// CPU would not find enough independent operations otherwise (Zen 5: 1.1 times as fast).
    const ABREAST: bool = false;
    /// Whether results are of a half type, so that steps are left out whose effect only f32 would
    /// show.
    const SHORT: bool = false;
    /// Coefficients of `(2^(r/8) - 1) / r`.
    const POLY: &'static [Self::E] = Self::E::POLY;
    /// Number of `V` that keep the arithmetic units busy, each in a chain of dependent operations,
    /// and fit in the registers.
    const CHAINS: usize = 6;

    /// The token, on a CPU that is known to have the instruction set.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    unsafe fn assume() -> Self;
    /// Runs `f`, an exponential: inlined, or as a function of its own where code should be small.
    #[inline(always)]
    fn apart<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    /// Runs `f`, which must be inlined, compiled for this instruction set.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// The token for f64.
    fn wide(self) -> Self::Wide;
    fn splat(self, x: Self::E) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// Prefetches the cache line at `p` into the first-level cache. Any address is allowed.
    #[inline(always)]
    fn prefetch<T>(self, _p: *const T) {}
    /// Prefetches as [`Vector::prefetch`], and returns `v`. Where vectors are computed abreast, the
    /// code does so after `v` is computed and before it is used.
    #[inline(always)]
    fn prefetch_beside<T>(self, p: *const T, v: Self::V) -> Self::V {
        self.prefetch(p);
        v
    }
    /// Lane 0.
    fn first_lane(self, a: Self::V) -> Self::E;
    /// Prefetches the cache line at `p` into the second-level cache. Any address is allowed.
    #[inline(always)]
    fn prefetch_far<T>(self, _p: *const T) {}
    /// Orders the stores of [`Io::stream`] before all later ones. Without it another thread that
    /// learns of the result by an ordinary store might not see it.
    #[inline(always)]
    fn fence(self) {}
    /// The larger one; either of them if one is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; either of them if one is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of `m` and `x` where `x` is not less than `cut` (or is NaN), `m` elsewhere.
    #[inline(always)]
    fn min_not_below(self, m: Self::V, x: Self::V, cut: Self::V) -> Self::V {
        self.min(self.select_below(x, cut, m, x), m)
    }
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` where `x` is less than `cut`, `b` elsewhere (or where either is NaN).
    fn select_below(self, x: Self::V, cut: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Lane `i` of `a` where bit `i` of `bits` is set, that of `b` elsewhere. Other bits may be
    /// anything.
    fn select_bits(self, bits: u32, a: Self::V, b: Self::V) -> Self::V;
    /// `e` where `x` is not less than `cut` (or is NaN), 0 elsewhere.
    fn zero_below(self, x: Self::V, cut: Self::V, e: Self::V) -> Self::V;
    /// The largest lane.
    fn max_lane(self, a: Self::V) -> Self::E;
    /// The smallest lane.
    fn min_lane(self, a: Self::V) -> Self::E;

    /// `Contract::TABLE` scaled by `2^-m`.
    fn table(self, m: i32) -> Self::Table;
    /// `C * 2^(n/8 - m)`, where n is the integer in the low bits of `t`.
    fn lookup(self, table: Self::Table, t: Self::V) -> Self::V;

    fn acc_zero(self) -> Self::Acc;
    /// Adds lane `i` of `v` to lane `i` of the sum.
    fn acc_add(self, acc: Self::Acc, v: Self::V) -> Self::Acc;
    /// The sum of `v` alone.
    #[inline(always)]
    fn acc_of(self, v: Self::V) -> Self::Acc {
        self.acc_add(self.acc_zero(), v)
    }
    /// A running sum in a form that can be added to others.
    fn total(self, acc: Self::Acc) -> Self::Total;
    /// Adds two sums lane by lane.
    fn total_plus(self, a: Self::Total, b: Self::Total) -> Self::Total;
    /// Writes `1 / sum` of every lane as `hi + lo`. Returns whether all sums are numbers above 0.
    ///
    /// # Safety
    /// `hi` and `lo` are valid for writes of LANES elements.
    unsafe fn total_inverses(self, sum: Self::Total, hi: *mut Self::E, lo: *mut Self::E) -> bool;
    /// Adds all lanes as a binary tree: lane i and lane i + half, again and again.
    fn acc_fold(self, acc: Self::Acc) -> Sum;
    /// Does `acc_fold` for the totals of several rows.
    fn fold_rows(self, totals: &[Self::Total; ROWS_AT_ONCE]) -> Self::Sums;
    /// Whether all sums are numbers above 0.
    fn are_positive(self, sums: Self::Sums) -> bool;
    /// Writes the reciprocals of the sums, each as `hi + lo`.
    fn reciprocals(
        self,
        sums: Self::Sums,
        hi: &mut [Self::E; ROWS_AT_ONCE],
        lo: &mut [Self::E; ROWS_AT_ONCE],
    );
    /// The lanes in f64: for f32 the first eight and the last eight, for f64 all of them twice.
    fn widen(self, v: Self::V) -> [<Self::Wide as Vector>::V; 2];
    /// Reverses [`Vector::widen`], rounding to nearest; for f64 it takes the first vector.
    fn narrow(self, v: [<Self::Wide as Vector>::V; 2]) -> Self::V;
    /// Log-softmax of `x`.
    fn log_softmax(self, x: Self::V, shift: &LogShift) -> Self::V;
}

/// Loads and stores of elements of type `T` as vectors of the arithmetic type.
///
/// # Safety
/// `load` reads and `store` writes exactly `LANES` elements at the pointer, the `_part`
/// forms exactly `n`. Implementations must touch nothing else.
pub(crate) unsafe trait Io<T>: Vector {
    /// # Safety
    /// `p` is valid for reads of `LANES` elements.
    unsafe fn load(self, p: *const T) -> Self::V;
    /// Loads `n` elements; the lanes behind them are `fill`.
    ///
    /// # Safety
    /// `p` is valid for reads of `n` elements, and `n < LANES`.
    unsafe fn load_part(self, p: *const T, n: usize, fill: Self::E) -> Self::V;
    /// Loads `n <= LANES` elements; the lanes behind them are `fill`.
    ///
    /// # Safety
    /// `p` is valid for reads of `n` elements, and `n <= LANES`.
    #[inline(always)]
    unsafe fn load_upto(self, p: *const T, n: usize, fill: Self::E) -> Self::V {
        // SAFETY: as this function's.
        unsafe { if n == Self::LANES { self.load(p) } else { self.load_part(p, n, fill) } }
    }
    /// # Safety
    /// `p` is valid for writes of `LANES` elements.
    unsafe fn store(self, p: *mut T, v: Self::V);
    /// # Safety
    /// `p` is valid for writes of `n` elements, and `n < LANES`.
    unsafe fn store_part(self, p: *mut T, n: usize, v: Self::V);
    /// As `store`, past the caches if the CPU has such stores. [`Vector::fence`] must follow.
    ///
    /// # Safety
    /// `p` is valid for writes of `LANES` elements and a multiple of their size, `LANES *
    /// size_of::<T>()`.
    #[inline(always)]
    unsafe fn stream(self, p: *mut T, v: Self::V) {
        // SAFETY: the caller guarantees more than this.
        unsafe { self.store(p, v) };
    }
    /// As `store` for numbers that are 0 or normal, which may be faster.
    ///
    /// # Safety
    /// As [`Io::store`].
    #[inline(always)]
    unsafe fn store_normal(self, p: *mut T, v: Self::V) {
        // SAFETY: as this function's.
        unsafe { self.store(p, v) };
    }
    /// As `stream` for numbers that are 0 or normal.
    ///
    /// # Safety
    /// As [`Io::stream`].
    #[inline(always)]
    unsafe fn stream_normal(self, p: *mut T, v: Self::V) {
        // SAFETY: as this function's.
        unsafe { self.stream(p, v) };
    }
}

/// Adds `v` to the running double-double sums `(hi, lo)`, lane by lane, by Knuth's two-sum; errors
/// are added up in `lo`. This is the sum of f64 rows on every CPU.
#[inline(always)]
pub(crate) fn two_sum_lanes<S: Vector>(s: S, (hi, lo): (S::V, S::V), v: S::V) -> (S::V, S::V) {
    let sum = s.add(hi, v);
    let t = s.sub(sum, hi);
    let err = s.add(s.sub(hi, s.sub(sum, t)), s.sub(v, t));
    (sum, s.add(lo, err))
}

/// As [`Contract::sum_add`], lane by lane.
#[inline(always)]
pub(crate) fn plus_lanes<S: Vector<E = f64>>(
    s: S,
    (a, a_lo): (S::V, S::V),
    (b, b_lo): (S::V, S::V),
) -> (S::V, S::V) {
    let (sum, error) = two_sum_lanes(s, (a, s.splat(0.0)), b);
    let error = s.add(error, s.add(a_lo, b_lo));
    let hi = s.add(sum, error);
    (hi, s.sub(error, s.sub(hi, sum)))
}

/// Whether all lanes are numbers above 0. (A NaN among exponentials may have become a large
/// number.)
#[inline(always)]
fn all_positive<S: Vector<E = f64>>(s: S, sums: S::V) -> bool {
    let numbers = s.select_below(sums, s.splat(LARGEST_SUM), sums, s.splat(0.0));
    s.min_lane(numbers) > 0.0
}

/// A bound above every sum: exponentials are below 2^11, and rows have fewer than 2^64 elements.
pub(crate) const LARGEST_SUM: f64 = f64::from_bits((1023 + 128) << 52);

/// Writes `1 / sum` of every lane as `hi + lo`.
///
/// # Safety
/// `hi` and `lo` are valid for writes of 8 elements.
#[inline(always)]
pub(crate) unsafe fn inverse_f32<S>(s: S, sum: S::V, hi: *mut f32, lo: *mut f32)
where
    S: Vector<E = f64> + Io<f32>,
{
    let inverse = s.div(s.splat(1.0), sum);
    // SAFETY: as this function's.
    unsafe {
        s.store(hi, inverse);
        s.store(lo, s.sub(inverse, s.load(hi.cast_const())));
    }
}

/// [`Vector::total_inverses`] of f32, from sums in f64.
///
/// # Safety
/// `hi` and `lo` are valid for writes of 16 elements.
#[inline(always)]
pub(crate) unsafe fn inverses_f32<S>(s: S, sums: [S::V; 2], hi: *mut f32, lo: *mut f32) -> bool
where
    S: Vector<E = f64> + Io<f64> + Io<f32>,
{
    // SAFETY: as this function's.
    unsafe {
        inverse_f32(s, sums[0], hi, lo);
        inverse_f32(s, sums[1], hi.add(S::LANES), lo.add(S::LANES));
    }
    all_positive(s, sums[0]) & all_positive(s, sums[1])
}

/// [`Vector::total_inverses`] of f64.
///
/// # Safety
/// `hi` and `lo` are valid for writes of 8 elements.
#[inline(always)]
pub(crate) unsafe fn inverses_f64<S>(s: S, sum: (S::V, S::V), hi: *mut f64, lo: *mut f64) -> bool
where
    S: Vector<E = f64> + Io<f64>,
{
    let inverse = s.div(s.splat(1.0), sum.0);
    let negative = s.sub(s.splat(0.0), inverse);
    let rest = s.fma(negative, sum.0, s.splat(1.0));
    let rest = s.mul(s.sub(rest, s.mul(inverse, sum.1)), inverse);
    // SAFETY: as this function's.
    unsafe {
        s.store(hi, inverse);
        s.store(lo, rest);
    }
    all_positive(s, sum.0)
}

/// Adds the lanes of a running sum of f32 as a binary tree.
#[inline(always)]
pub(crate) fn fold_f32_lanes<S: Vector<E = f64> + Io<f64>>(s: S, [low, high]: [S::V; 2]) -> Sum {
    let mut lanes = [0.0; 16];
    // SAFETY: there is room for LANES elements twice.
    unsafe {
        s.store(lanes.as_mut_ptr(), low);
        s.store(lanes.as_mut_ptr().add(S::LANES), high);
    }
    fold_f32(lanes)
}

/// Log-softmax of f32 in f64, to be rounded once.
#[inline(always)]
pub(crate) fn log_softmax_f32<S: Vector<E = f64>>(s: S, x: S::V, shift: &LogShift) -> S::V {
    s.fma(s.sub(x, s.splat(shift.max)), s.splat(shift.scale.0), s.splat(-shift.c.0))
}

/// Log-softmax in f64: `(x - max) * scale - c` with pairs, rounded twice.
#[inline(always)]
pub(crate) fn log_softmax_f64<S: Vector<E = f64>>(s: S, x: S::V, shift: &LogShift) -> S::V {
    if shift.is_far() {
        cold_path();
        return log_softmax_near(s, s.mul(x, s.splat(0.5)), &shift.halved());
    }
    log_softmax_near(s, x, shift)
}

/// As [`log_softmax_f64`] for elements whose difference from the maximum does not overflow.
#[inline(always)]
fn log_softmax_near<S: Vector<E = f64>>(s: S, x: S::V, shift: &LogShift) -> S::V {
    let max = s.splat(shift.max);
    let (scale, scale_lo) = (s.splat(shift.scale.0), s.splat(shift.scale.1));
    let (minus_c, minus_c_lo) = (s.splat(-shift.c.0), s.splat(-shift.c.1));
    let d = s.sub(x, max);
    // The error of that difference (Knuth).
    let t = s.sub(d, x);
    let d_lo = s.sub(s.sub(x, s.sub(d, t)), s.add(max, t));
    let z = s.fma(d, scale, minus_c);
    let tail = s.fma(d, scale_lo, s.fma(d_lo, scale, minus_c_lo));
    // An infinite result gets no tail, which might be NaN or of the other sign.
    let tail = s.zero_below(z, s.splat(f64::MIN), tail);
    s.add(z, tail)
}
