//! Long rows: one row in pieces of whole blocks, which any number of threads may compute in any
//! order.
//!
//! A piece is read once for its sums, with a shift that is guessed from the row's first elements,
//! and once more to be finished. In between, the sums of all blocks are added in order, so that the
//! result has the same bits however the row was cut.

use crate::call::pieces::{BlockSum, Extremes, Piece, PieceOptions, RowShift, Whole};
use crate::call::{Op, Store};
use crate::isa::vector::{Io, Vector};
use crate::num::element::Element;
use crate::num::exp2::{BLOCK, Contract};
use crate::num::scale::Scale;
use crate::sweep::reduce::{Again, Kept, Log, Reduced, Task, sweep_alone};
use crate::sweep::{Exact, Exp, Finish, Forget, Guessed, Keep, Keeps, Plain, finish_row};

/// Sums the blocks of a piece.
///
/// # Safety
/// The piece's pointers are valid as it says; `options.keep` is set only if `T` is the arithmetic
/// type and `y` is not `x`.
#[inline(always)]
pub(crate) unsafe fn sum<S, T>(
    simd: S,
    piece: &mut Piece<T>,
    scale: &Scale,
    shift: &RowShift,
    options: PieceOptions,
    sums: &mut [BlockSum],
) -> Extremes
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let exp = Exp::new(simd, scale, &shift.shift);
    let plain = Plain::of(options.store);
    let mut extremes = Extremes::NONE;
    for (i, sum) in sums.iter_mut().enumerate().take(BlockSum::count(piece.n)) {
        let start = i * BLOCK;
        let n = BLOCK.min(piece.n - start);
        // SAFETY: start + n <= piece.n; `kept` is the output.
        let found = unsafe {
            let (x, kept) = (piece.x.add(start), piece.y.wrapping_add(start).cast());
            let keep = const { T::IS_ARITHMETIC } && options.keep;
            // A second sum, after a wrong guess, is rare.
            match (shift.guess.is_some(), keep) {
                (true, true) => sweep_alone::<S, T, _, Guessed<Keep, true, false, false>>(
                    &exp, x, kept, n, &plain,
                ),
                (true, false) => sweep_alone::<S, T, _, Guessed<Forget, true, false, true>>(
                    &exp, x, kept, n, &plain,
                ),
                (false, true) => sweep_alone::<S, T, _, Exact<Keep>>(&exp, x, kept, n, &plain),
                (false, false) => sweep_alone::<S, T, _, Exact<Forget>>(&exp, x, kept, n, &plain),
            }
        };
        *sum = BlockSum(found.sum);
        extremes = extremes.and(Extremes { max: found.max.widen(), min: found.min.widen() });
    }
    extremes
}

/// Finishes a piece of a row whose sum is known.
///
/// # Safety
/// As [`sum`], with the same options.
#[inline(always)]
pub(crate) unsafe fn finish<S, T>(
    simd: S,
    piece: &mut Piece<T>,
    op: Op,
    scale: &Scale,
    whole: &Whole,
    options: PieceOptions,
) where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: as this function's.
    unsafe {
        match (op, const { T::IS_ARITHMETIC } && options.keep) {
            (Op::Softmax, true) => {
                finish_by::<S, T, Kept>(simd, piece, scale, whole, options.store)
            }
            (Op::Softmax, false) => {
                finish_by::<S, T, Again>(simd, piece, scale, whole, options.store);
            }
            (Op::LogSoftmax, _) => finish_by::<S, T, Log>(simd, piece, scale, whole, options.store),
            _ => {}
        }
    }
}

/// As [`finish`], for one task.
///
/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn finish_by<S, T, K>(
    simd: S,
    piece: &mut Piece<T>,
    scale: &Scale,
    whole: &Whole,
    store: Store,
) where
    S: Io<T> + Io<K::From> + Io<<S as Vector>::E>,
    T: Element,
    K: Task<S, T>,
{
    let last = K::last(scale, &reduced(simd, scale, whole));
    let from = K::from(piece.x, piece.y.cast_const().cast());
    let mut finish = Finish::new(from, piece.y, piece.n, last);
    if !K::Keeps::KEEP {
        finish.prefetch = store.prefetch();
    }
    // SAFETY: as this function's.
    unsafe {
        if S::STREAMS && store.is_past() {
            finish_row::<S, T, K::From, true>(simd, &finish);
            simd.fence();
        } else {
            finish_row::<S, T, K::From, false>(simd, &finish);
        }
    }
}

/// The log-sum-exp of a row.
#[inline(always)]
pub(crate) fn logsumexp<S: Vector, T: Element>(simd: S, scale: &Scale, whole: &Whole) -> T {
    T::from_f64(reduced(simd, scale, whole).log_shift(scale).logsumexp())
}

#[inline(always)]
fn reduced<S: Vector>(simd: S, scale: &Scale, whole: &Whole) -> Reduced<S> {
    let exp = Exp::new(simd, scale, &whole.used);
    let Whole { max, own, sum, factor, wide, .. } = *whole;
    Reduced { max, own, sum, factor, wide, exp }
}
