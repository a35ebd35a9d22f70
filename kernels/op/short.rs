//! Softmax of a few short rows: the result of a classifier, a row of attention. The time to the
//! result counts, so a row's exponentials never leave the registers, and nothing is prepared for
//! further rows.

use std::hint::cold_path;
use std::mem::MaybeUninit;

use crate::call::{Call, Masked};
use crate::isa::vector::{Io, Vector};
use crate::num::element::Element;
use crate::num::exp2::Contract;
use crate::sweep::reduce::{Kept, Reducer, row_exactly};
use crate::sweep::{Inverse, inlined, prob};

/// The most vectors of a row.
const VECTORS: usize = 4;

/// Elements of the longest row, in f32.
const LONGEST: usize = 64;

/// Whether the call's rows are short enough.
#[inline(always)]
pub(crate) fn suits<S: Vector, T>(call: &Call<T>) -> bool {
    const { assert!(VECTORS * S::LANES <= LONGEST) };
    call.cols <= VECTORS * S::LANES
}

/// Softmax of every row of the call. A function of its own, because the stack frame of longer rows
/// takes time to set up.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, and [`suits`] is true. Its rows have no factors
/// of their own.
#[inline(never)]
pub(crate) unsafe fn softmax<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    simd.vectorize(
        #[inline(always)]
        || {
            let mut reducer = Reducer::new(simd, &call.scale);
            for row in 0..call.rows {
                // SAFETY: `row` is one of the call's rows, so x and y point to `cols` elements.
                unsafe {
                    let (x, y) = call.row(row);
                    let done = if !S::SMALL && call.cols <= S::LANES {
                        softmax_row::<S, T, 1>(&mut reducer, x, y, call.cols)
                    } else {
                        softmax_row::<S, T, VECTORS>(&mut reducer, x, y, call.cols)
                    };
                    if !done {
                        exactly(&reducer, x, y, call.cols, call.masked);
                    }
                }
            }
        },
    );
}

/// As [`row_exactly`]. Rare, so a function of its own.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `n` elements, no more than [`LONGEST`].
#[cold]
#[inline(never)]
unsafe fn exactly<S, T>(reducer: &Reducer<S>, x: *const T, y: *mut T, n: usize, masked: Masked)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    reducer.exp.simd.vectorize(
        #[inline(always)]
        || {
            let mut kept = MaybeUninit::<[S::E; LONGEST]>::uninit();
            // SAFETY: as this function's; `kept` has room for the longest row.
            unsafe {
                row_exactly::<S, T, Kept>(reducer, x, y, n, masked, kept.as_mut_ptr().cast())
            };
        },
    );
}

/// Softmax of a row of at most `N` vectors, with a guessed shift. Returns whether the guess was
/// good; if not, nothing is written.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `n` elements, `1 <= n <= N * LANES`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as indices the loops unroll into registers
unsafe fn softmax_row<S, T, const N: usize>(
    reducer: &mut Reducer<S>,
    x: *const T,
    y: *mut T,
    n: usize,
) -> bool
where
    S: Io<T>,
    T: Element,
{
    let exp = reducer.exp;
    let simd = exp.simd;
    let least = S::E::narrow(f64::NEG_INFINITY);
    let mut kept = [simd.splat(S::E::narrow(0.0)); N];
    let mut acc = simd.acc_zero();
    let mut max = simd.splat(least);
    let mut min = simd.splat(S::E::narrow(f64::INFINITY));
    for k in 0..N {
        let at = k * S::LANES;
        if at >= n {
            break;
        }
        // SAFETY: n - at elements are there. Missing ones become -inf, which is below the cut and
        // so adds 0.
        let v = unsafe {
            if n - at >= S::LANES {
                simd.load(x.add(at))
            } else {
                simd.load_part(x.add(at), n - at, least)
            }
        };
        max = simd.max(v, max);
        min = simd.min_not_below(min, v, exp.cut);
        kept[k] = exp.of(false, true, v);
        acc = simd.acc_add(acc, kept[k]);
    }
    let sum = simd.acc_fold(acc);
    let (max, min) = (simd.max_lane(max).widen(), simd.min_lane(min).widen());
    if reducer.judge(max, min).is_none() || sum.hi.is_nan() {
        return false;
    }
    let (hi, lo) = S::E::reciprocal(sum);
    let wide = reducer.scale.is_wide(max, min, n);
    let inverse = Inverse { hi: simd.splat(hi), lo: simd.splat(lo), wide };
    let mut write = inlined(
        #[inline(always)]
        |inverse: Inverse<S::V>| {
            for k in 0..N {
                let at = k * S::LANES;
                if at >= n {
                    break;
                }
                let v = prob(simd, kept[k], inverse);
                // SAFETY: n - at elements are there.
                unsafe {
                    if n - at >= S::LANES {
                        simd.store(y.add(at), v);
                    } else {
                        simd.store_part(y.add(at), n - at, v);
                    }
                }
            }
        },
    );
    // Decided once for the row, not for each vector.
    if wide {
        cold_path();
        write(inverse);
    } else {
        write(Inverse { wide: false, ..inverse });
    }
    true
}
