//! Softmax of many short rows that follow each other in memory.
//!
//! A row of ten elements fills ten of sixteen lanes and spends most of its time in horizontal
//! steps: maximum, sum, reciprocal. Here a group of rows is computed as if it were one row. First
//! come the exponentials, lane by lane, wherever rows begin, with one guessed shift (`guess.rs`)
//! that is good for all rows if it is good for the group's extremes; then the sums of eight rows
//! together and their reciprocals; then the quotients, row by row.
//!
//! The results of a group are staged, and written while the next group's exponentials are computed.
//! A group with a special row, or for which the guess is not good, is computed row by row.

use std::hint::black_box;

use crate::call::Call;
use crate::isa::vector::{Io, Vector};
use crate::mem::memory::LINE;
use crate::mem::scratch::{Scratch, room_for};
use crate::num::element::Element;
use crate::num::exp2::{Contract, ROWS_AT_ONCE};
use crate::sweep::reduce::{Kept, Reducer, row_exactly, sweep_alone};
use crate::sweep::{Finish, Inverse, Mode, Plain, Same, finish_row_by, prob, sweep};

/// Elements of the longest row that is computed here.
pub const TINY: usize = 64;

/// The least number of rows that is worth a group.
pub const ROWS_AT_LEAST: usize = ROWS_AT_ONCE;

/// The most elements of a group: its input, its exponentials and its results stay in the
/// first-level cache.
const GROUP: usize = 2048;

/// The most rows of a group.
const ROWS: usize = 256;

/// Elements of room behind a group: for a last vector that starts in its last row, and, behind its
/// exponentials, for rows up to a multiple of [`ROWS_AT_ONCE`].
const MARGIN: usize = ROWS_AT_ONCE * TINY + 16;

/// A sweep that computes a group's exponentials without their sum.
struct Dense<const CUT: bool, const FINISH: bool, const STREAM: bool>;

impl<const CUT: bool, const FINISH: bool, const STREAM: bool> Mode for Dense<CUT, FINISH, STREAM> {
    const GUESSED: bool = true;
    const CUT: bool = CUT;
    const SUM: bool = false;
    const KEEP: bool = true;
    const FINISH: bool = FINISH;
    const STREAM: bool = STREAM;
}

/// The sums of a group's rows.
type Sums<S> = [<S as Vector>::Sums; ROWS / ROWS_AT_ONCE];

/// Whether the call's rows can be computed here.
#[inline(always)]
pub(crate) fn suits<T>(call: &Call<T>) -> bool {
    call.cols <= TINY && call.rows >= ROWS_AT_LEAST && call.is_dense()
}

/// Bytes of scratch memory for a call.
pub const fn room_for_tiny<T: Element>() -> usize {
    let lanes = GROUP + MARGIN;
    // A sum is two f64 in rows of f64, else one.
    room_for::<T::Arithmetic>(lanes) + room_for::<T>(lanes) + room_for::<[f64; 2]>(ROWS)
}

/// Softmax of every row of the call. Returns `false`, with nothing written, if there is no memory
/// for a group.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, and [`suits`] is true.
#[inline(never)]
pub(crate) unsafe fn softmax<S, T>(simd: S, call: &Call<T>) -> bool
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    const {
        assert!(size_of::<Sums<S>>() <= ROWS * size_of::<[f64; 2]>());
        assert!(align_of::<Sums<S>>() <= LINE && size_of::<S::E>() == size_of::<T::Arithmetic>());
    }
    let Some(mut scratch) = Scratch::take::<u8>(room_for_tiny::<T>()) else { return false };
    let memory: *mut u8 = scratch.as_mut_ptr();
    simd.vectorize(
        #[inline(always)]
        || {
            // SAFETY: as this function's; the scratch memory is that large.
            unsafe {
                if S::STREAMS && call.store.is_past() {
                    softmax_by::<S, T, true>(simd, call, memory);
                } else {
                    softmax_by::<S, T, false>(simd, call, memory);
                }
            }
        },
    );
    true
}

/// As [`softmax`], in `memory`.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, and [`suits`] is true; `memory` is initialised,
/// starts at a cache line, and is as large as [`room_for_tiny`] says.
#[inline(always)]
unsafe fn softmax_by<S, T, const STREAM: bool>(simd: S, call: &Call<T>, memory: *mut u8)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let cols = call.cols;
    let rows_of_group = (GROUP / cols).min(ROWS) / ROWS_AT_ONCE * ROWS_AT_ONCE;
    let kept: *mut S::E = memory.cast();
    let memory = memory.wrapping_add(room_for::<S::E>(GROUP + MARGIN));
    let staged: *mut T = memory.cast();
    let sums: *mut S::Sums = memory.wrapping_add(room_for::<T>(GROUP + MARGIN)).cast();
    let plain = Plain::of(call.store);
    let mut reducer = Reducer::new(simd, &call.scale);
    // The results that are staged.
    let mut last: Option<Finish<T, T, Same>> = None;
    let mut row = 0;
    while row < call.rows {
        let rows = rows_of_group.min(call.rows - row);
        let n = rows * cols;
        // SAFETY: the rows from `row` to `row + rows` are the call's and follow each other, so x
        // and y point to n elements, n <= GROUP. What is staged is a whole group: only the last one
        // may be smaller.
        unsafe {
            let (x, y) = call.row(row);
            if rows < rows_of_group
                && let Some(last) = last.take()
            {
                finish_row_by(simd, &last, STREAM);
            }
            let exp = &reducer.exp;
            let alone = &Plain::NEAR;
            let found = match last.take() {
                Some(f) if const { S::SMALL } => {
                    finish_row_by(simd, &f, STREAM);
                    sweep_alone::<S, T, _, Dense<true, false, false>>(exp, x, kept, n, alone)
                }
                Some(f) if const { STREAM } || reducer.cut => {
                    sweep::<S, T, T, T, _, Dense<true, true, STREAM>>(exp, x, kept, n, &plain, &f)
                }
                Some(f) => {
                    sweep::<S, T, T, T, _, Dense<false, true, STREAM>>(exp, x, kept, n, &plain, &f)
                }
                None if const { S::SMALL } || reducer.cut => {
                    sweep_alone::<S, T, _, Dense<true, false, false>>(exp, x, kept, n, alone)
                }
                None => sweep_alone::<S, T, _, Dense<false, false, false>>(exp, x, kept, n, alone),
            };
            let (max, min) = (found.max.widen(), found.min.widen());
            let good = reducer.judge_rows(max, min)
                && if cols <= S::LANES {
                    sum::<S, true>(simd, kept, sums, rows, cols)
                } else {
                    sum::<S, false>(simd, kept, sums, rows, cols)
                };
            if good {
                let wide = call.scale.is_wide(max, min, n);
                if cols <= S::LANES {
                    scale::<S, T, true>(simd, kept, sums, staged, rows, cols, wide);
                } else {
                    scale::<S, T, false>(simd, kept, sums, staged, rows, cols, wide);
                }
                last = Some(Finish::new(staged, y, n, Same));
            } else {
                for i in 0..rows {
                    let (x, y) = (x.add(i * cols), y.add(i * cols));
                    row_exactly::<S, T, Kept>(&reducer, x, y, cols, call.masked, kept);
                }
            }
        }
        row += rows;
    }
    if let Some(last) = last {
        // SAFETY: as above.
        unsafe { finish_row_by(simd, &last, STREAM) };
    }
    if STREAM {
        simd.fence();
    }
}

/// Sums rows. Returns whether all sums are numbers above 0. If `ONE`, a row is at most one vector.
///
/// # Safety
/// `kept` has `rows * cols` elements and is valid for writes of `MARGIN` more; `sums` is valid for
/// writes of one entry for every [`ROWS_AT_ONCE`] rows, rounded up.
#[inline(always)]
unsafe fn sum<S: Io<<S as Vector>::E>, const ONE: bool>(
    simd: S,
    kept: *mut S::E,
    sums: *mut S::Sums,
    rows: usize,
    cols: usize,
) -> bool {
    let n = rows * cols;
    // Ones behind the last row, so that rows missing from the last eight do not look special, and
    // their last vectors, which end less than LANES behind n + missing, are initialised.
    let missing = rows.next_multiple_of(ROWS_AT_ONCE) * cols - n;
    for i in 0..missing.div_ceil(S::LANES) + 1 {
        // SAFETY: the store ends less than 2 LANES behind n + missing, and missing <= 7 TINY:
        // within MARGIN.
        unsafe { simd.store(kept.add(n + i * S::LANES), simd.splat(S::E::narrow(1.0))) };
    }
    // Lanes from `cols % LANES` on are zeroed as if they were below a cut.
    let lanes = S::E::lanes();
    // SAFETY: the array has LANES elements.
    let lanes = unsafe { simd.load(lanes.as_ptr()) };
    let (vectors, rest) = ((cols - 1) / S::LANES, (cols - 1) % S::LANES);
    let cut = simd.splat(S::E::narrow(-(rest as f64)));
    let mut good = true;
    for eight in 0..rows.div_ceil(ROWS_AT_ONCE) {
        let mut totals = [simd.total(simd.acc_zero()); ROWS_AT_ONCE];
        for (k, total) in totals.iter_mut().enumerate() {
            // SAFETY: the last vector of a row starts in the row and ends less than LANES behind
            // it.
            unsafe {
                let row = kept.add((eight * ROWS_AT_ONCE + k) * cols);
                *total = simd.total(if ONE {
                    simd.acc_of(simd.zero_below(lanes, cut, simd.load(row)))
                } else {
                    let mut acc = simd.acc_of(simd.load(row));
                    for v in 1..vectors {
                        acc = simd.acc_add(acc, simd.load(row.add(v * S::LANES)));
                    }
                    let end = simd.load(row.add(vectors * S::LANES));
                    simd.acc_add(acc, simd.zero_below(lanes, cut, end))
                });
            }
        }
        let eight_sums = simd.fold_rows(&totals);
        good &= simd.are_positive(eight_sums);
        // SAFETY: there is room for one entry for every eight rows.
        unsafe { sums.add(eight).write(eight_sums) };
    }
    good
}

/// Computes the quotients of rows. The reciprocals are computed here and not with the sums, because
/// divisions take long and can overlap with this loop. Vectors overlap, too: what one writes behind
/// its row is overwritten by the next row's.
///
/// # Safety
/// `kept` has `rows * cols` elements, with `rows` rounded up to a multiple of [`ROWS_AT_ONCE`], and
/// is valid for reads of LANES more; `staged` is valid for writes of as many, and `sums` for reads.
#[inline(always)]
unsafe fn scale<S, T, const ONE: bool>(
    simd: S,
    kept: *const S::E,
    sums: *const S::Sums,
    staged: *mut T,
    rows: usize,
    cols: usize,
    wide: bool,
) where
    S: Io<T> + Io<<S as Vector>::E>,
{
    let zero = S::E::narrow(0.0);
    for eight in 0..rows.div_ceil(ROWS_AT_ONCE) {
        let (mut hi, mut lo) = ([zero; ROWS_AT_ONCE], [zero; ROWS_AT_ONCE]);
        // SAFETY: there is an entry for every eight rows.
        simd.reciprocals(unsafe { *sums.add(eight) }, &mut hi, &mut lo);
        // Through memory, where single lanes cost nothing: the compiler would shuffle them out of
        // registers.
        let (hi, lo) = (black_box(&hi), black_box(&lo));
        for k in 0..ROWS_AT_ONCE {
            let inverse = Inverse { hi: simd.splat(hi[k]), lo: simd.splat(lo[k]), wide };
            let row = (eight * ROWS_AT_ONCE + k) * cols;
            let mut i = 0;
            loop {
                // SAFETY: i < cols, and the row is one of the group's.
                unsafe {
                    let e = simd.load(kept.add(row + i));
                    simd.store(staged.add(row + i), prob(simd, e, inverse));
                }
                i += S::LANES;
                if ONE || i >= cols {
                    break;
                }
            }
        }
    }
}
