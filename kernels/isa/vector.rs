//! What a kernel needs from a CPU: a few operations on vectors of a fixed number of lanes.
//!
//! A [`Vector`] is a token, the proof that the instruction set is there, seen as arithmetic
//! in one type. Its `V` has the same number of lanes on every CPU (16 of f32, 8 of f64): one
//! AVX-512 register, two of AVX2, four of NEON. So the algorithms in `sweep/` and `op/` are
//! written once, the order of every addition is the same everywhere, and narrow
//! CPUs get their unrolling for free.

use std::hint::cold_path;

use crate::num::exp2::{Contract, ROWS_AT_ONCE, Sum, fold_f32};
use crate::num::scale::LogShift;

/// Vectors that read and write elements of type `T`, numbers of their own, and f32.
pub(crate) trait Lanes<T>: Io<T> + Io<f32> + Io<<Self as Vector>::E> {}

impl<T, S: Io<T> + Io<f32> + Io<<S as Vector>::E>> Lanes<T> for S {}

/// Comparisons that end in bits.
pub(crate) trait Bands: Vector<E = f32> + Io<f32> {
    /// Bit `i` tells whether lane `i` of `a` is less than that of `b`.
    fn less(self, a: Self::V, b: Self::V) -> u32;
}

/// The vector operations of one CPU in one arithmetic type.
///
/// Every method is one IEEE operation per lane (or exact), so its result does not depend on the
/// CPU.
pub(crate) trait Vector: Copy {
    /// The arithmetic type: f32 or f64.
    type E: Contract + PartialOrd;
    /// [`Vector::LANES`] elements.
    type V: Copy;
    /// The eight table entries of a row, ready to be looked up.
    type Table: Copy;
    /// The running sum of a block, lane by lane.
    type Acc: Copy;
    /// The sum of many blocks, or columns, lane by lane.
    type Total: Copy;
    /// The sums of several rows.
    type Sums: Copy;
    /// The same CPU's vectors of f64.
    type Wide: Vector<E = f64> + Io<f64>;
    /// Elements in a `V`.
    const LANES: usize;
    /// Whether [`Io::stream`] differs from `store`.
    const STREAMS: bool = false;
    /// Whether `fma` is one operation of the CPU.
    const FUSED: bool = true;
    /// Arithmetic is so slow that code may be small: nothing is gained by loops for special cases,
    /// nor by unrolled ones, nor by exponentials without a call.
    const SMALL: bool = false;
    /// Whether there are registers for the exponentials of four `V` at a time. A sweep is faster so
    /// where a CPU looks less far ahead than its units would need (Zen 5: 1.1 times).
    const ABREAST: bool = false;
    /// Whether results are of a half type, and what only f32 would show is left out.
    const SHORT: bool = false;
    /// Coefficients of `(2^(r/8) - 1) / r`.
    const POLY: &'static [Self::E] = Self::E::POLY;
    /// How many `V` keep the units for arithmetic busy, each with an operation that waits for the
    /// one before, and find room in the registers.
    const CHAINS: usize = 6;

    /// The proof, where it is known.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    unsafe fn assume() -> Self;
    /// Runs `f`, an exponential: in place, or if code is to be small, as a function of its own.
    #[inline(always)]
    fn apart<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
    /// Runs `f`, which must be inlined, compiled for this instruction set.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// The same CPU in f64.
    fn wide(self) -> Self::Wide;
    fn splat(self, x: Self::E) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// Asks for the cache line at `p` in the first-level cache: a hint, for any address, that
    /// changes nothing.
    #[inline(always)]
    fn prefetch<T>(self, _p: *const T) {}
    /// Lane 0.
    fn first_lane(self, a: Self::V) -> Self::E;
    /// Asks for the cache line at `p` in the second-level cache, as [`Vector::prefetch`].
    #[inline(always)]
    fn prefetch_far<T>(self, _p: *const T) {}
    /// Orders the stores of [`Io::stream`] before all that follow: without it another thread that
    /// is told of the result by an ordinary store might not see it.
    #[inline(always)]
    fn fence(self) {}
    /// The larger; which one where either is NaN is not specified.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; which one where either is NaN is not specified.
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
    /// `e` where `x` is not less than `cut` (or is NaN), 0 elsewhere.
    fn zero_below(self, x: Self::V, cut: Self::V, e: Self::V) -> Self::V;
    /// The largest lane.
    fn max_lane(self, a: Self::V) -> Self::E;
    /// The smallest lane.
    fn min_lane(self, a: Self::V) -> Self::E;

    /// `Contract::TABLE` scaled by `2^-m`.
    fn table(self, m: i32) -> Self::Table;
    /// `C * 2^(n/8 - m)`, n being the integer in the low bits of `t`.
    fn lookup(self, table: Self::Table, t: Self::V) -> Self::V;

    fn acc_zero(self) -> Self::Acc;
    /// Adds lane `i` of `v` to lane `i` of the sum.
    fn acc_add(self, acc: Self::Acc, v: Self::V) -> Self::Acc;
    /// `acc_add` to 0.
    #[inline(always)]
    fn acc_of(self, v: Self::V) -> Self::Acc {
        self.acc_add(self.acc_zero(), v)
    }
    /// A running sum, to be added to others.
    fn total(self, acc: Self::Acc) -> Self::Total;
    /// The sums of two sums, lane by lane.
    fn total_plus(self, a: Self::Total, b: Self::Total) -> Self::Total;
    /// Writes `1 / sum` of every lane as `hi + lo`; whether all sums are numbers above 0.
    ///
    /// # Safety
    /// `hi` and `lo` are valid for writes of LANES elements.
    unsafe fn total_inverses(self, sum: Self::Total, hi: *mut Self::E, lo: *mut Self::E) -> bool;
    /// All lanes, added as a binary tree: lane i and i + half, and again.
    fn acc_fold(self, acc: Self::Acc) -> Sum;
    /// `acc_fold` of several rows, of their totals.
    fn fold_rows(self, totals: &[Self::Total; ROWS_AT_ONCE]) -> Self::Sums;
    /// Whether all are numbers above 0.
    fn are_positive(self, sums: Self::Sums) -> bool;
    /// The reciprocals of the sums, `hi + lo` of each.
    fn reciprocals(
        self,
        sums: Self::Sums,
        hi: &mut [Self::E; ROWS_AT_ONCE],
        lo: &mut [Self::E; ROWS_AT_ONCE],
    );
    /// The lanes in f64: of f32 the first eight and the others, of f64 all of them, twice.
    fn widen(self, v: Self::V) -> [<Self::Wide as Vector>::V; 2];
    /// What [`Vector::widen`] gives, rounded to nearest; of f64 the first.
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
    /// Lanes from `n` on are `fill`.
    ///
    /// # Safety
    /// `p` is valid for reads of `n` elements, and `n < LANES`.
    unsafe fn load_part(self, p: *const T, n: usize, fill: Self::E) -> Self::V;
    /// `n` elements, LANES or fewer; the lanes behind them are `fill`.
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
    /// As `store`, past the caches where the CPU has such stores. [`Vector::fence`] must follow.
    ///
    /// # Safety
    /// `p` is valid for writes of `LANES` elements and a multiple of their size, `LANES *
    /// size_of::<T>()`.
    #[inline(always)]
    unsafe fn stream(self, p: *mut T, v: Self::V) {
        // SAFETY: the caller vouches for more than this.
        unsafe { self.store(p, v) };
    }
    /// As `store`, of numbers that are 0 or normal, which may be faster.
    ///
    /// # Safety
    /// As [`Io::store`].
    #[inline(always)]
    unsafe fn store_normal(self, p: *mut T, v: Self::V) {
        // SAFETY: as this function's.
        unsafe { self.store(p, v) };
    }
    /// As `stream`, of such numbers.
    ///
    /// # Safety
    /// As [`Io::stream`].
    #[inline(always)]
    unsafe fn stream_normal(self, p: *mut T, v: Self::V) {
        // SAFETY: as this function's.
        unsafe { self.stream(p, v) };
    }
}

/// Adds `v` to the running double-double sums `(hi, lo)`, lane by lane: Knuth's two-sum, the errors
/// gathered in `lo`. The sum of f64 rows on every CPU.
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

/// Above every sum: exponentials are below 2^11, and rows shorter than 2^64.
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

/// [`Vector::total_inverses`] of f32, from the sums in f64.
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

/// The lanes of a running sum of f32, added as a binary tree.
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

/// Log-softmax in f64: `(x - max) * scale - c` with every part carried as a pair, and rounded
/// twice.
#[inline(always)]
pub(crate) fn log_softmax_f64<S: Vector<E = f64>>(s: S, x: S::V, shift: &LogShift) -> S::V {
    if shift.is_far() {
        cold_path();
        return log_softmax_near(s, s.mul(x, s.splat(0.5)), &shift.halved());
    }
    log_softmax_near(s, x, shift)
}

/// As [`log_softmax_f64`], of elements whose difference from the maximum does not overflow.
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
    // What is infinite has no tail (it may be NaN, or infinite the other way).
    let tail = s.zero_below(z, s.splat(f64::MIN), tail);
    s.add(z, tail)
}
