//! Softmax of many short rows at once, that follow each other in memory.
//!
//! A row of ten elements fills ten lanes of sixteen and spends most of its time in horizontal
//! steps: maximum, sum, reciprocal. Here a group of rows is computed as if it were one: the
//! exponentials lane by lane without regard to where rows begin, with one guessed shift
//! (`guess.rs`) that is right for all of them if it is right for the group's extremes; then the
//! sums and their reciprocals of eight rows together; then the quotients row by row.
//!
//! The result of a group is staged and written while the next group's exponentials are computed. A
//! group that has special rows, or for which no shift serves, is done row by row.

use std::hint::black_box;

use crate::call::Call;
use crate::isa::vector::{Io, Vector};
use crate::mem::memory::LINE;
use crate::mem::scratch::{Scratch, room_for};
use crate::num::element::Element;
use crate::num::exp2::{Contract, ROWS_AT_ONCE};
use crate::sweep::reduce::{Kept, Reducer, row_exactly, sweep_alone};
use crate::sweep::{Finish, Inverse, Mode, Plain, Same, finish_row_by, prob, sweep};

/// Rows up to this long, in elements, are done here.
pub const TINY: usize = 64;

/// Fewer rows are not worth a group.
pub const ROWS_AT_LEAST: usize = ROWS_AT_ONCE;

/// Elements of a group at most: what is read, kept and staged of them stays in the first-level
/// cache.
const GROUP: usize = 2048;

/// Rows of a group at most.
const ROWS: usize = 256;

/// Behind what is kept or staged of a group: a last vector that starts in its last row, and, of
/// what is kept, rows up to a multiple of [`ROWS_AT_ONCE`].
const MARGIN: usize = ROWS_AT_ONCE * TINY + 16;

/// The exponentials of a group, without their sum.
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

/// Whether the call's rows can be done here.
#[inline(always)]
pub(crate) fn suits<T>(call: &Call<T>) -> bool {
    call.cols <= TINY && call.rows >= ROWS_AT_LEAST && call.is_dense()
}

/// Bytes of scratch memory that a call takes.
pub const fn room_for_tiny<T: Element>() -> usize {
    let lanes = GROUP + MARGIN;
    // Of f64 a sum is two of them, else one.
    room_for::<T::Arithmetic>(lanes) + room_for::<T>(lanes) + room_for::<[f64; 2]>(ROWS)
}

/// Softmax of every row of the call. `false` if there is no memory for a group; then nothing is
/// written.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, and [`suits`].
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
            // SAFETY: as this function's; there is as much room.
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

/// As [`softmax`].
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, and [`suits`]; `memory` is initialised, starts
/// at a cache line, and is as large as [`room_for_tiny`] says.
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
    // The staged results.
    let mut last: Option<Finish<T, T, Same>> = None;
    let mut row = 0;
    while row < call.rows {
        let rows = rows_of_group.min(call.rows - row);
        let n = rows * cols;
        // SAFETY: the rows from `row` to `row + rows` are the call's and follow each other, so x
        // and y point to n elements, n <= GROUP. What is staged, is of a whole group: only the last
        // one may be smaller.
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

/// The sums of rows; whether all of them are numbers above 0. `ONE` vector holds a row, or it takes
/// more.
///
/// # Safety
/// `kept` has `rows * cols` elements and is valid for writes of `MARGIN` more; `sums` for writes of
/// one for every [`ROWS_AT_ONCE`] rows or part of them.
#[inline(always)]
unsafe fn sum<S: Io<<S as Vector>::E>, const ONE: bool>(
    simd: S,
    kept: *mut S::E,
    sums: *mut S::Sums,
    rows: usize,
    cols: usize,
) -> bool {
    let n = rows * cols;
    // Rows that are not there shall not look special; and nothing uninitialised shall be read behind
    // the last one, whose last vector ends less than LANES behind n + missing.
    let missing = rows.next_multiple_of(ROWS_AT_ONCE) * cols - n;
    for i in 0..missing.div_ceil(S::LANES) + 1 {
        // SAFETY: ends less than 2 LANES behind n + missing, and missing <= 7 TINY, so within
        // MARGIN.
        unsafe { simd.store(kept.add(n + i * S::LANES), simd.splat(S::E::narrow(1.0))) };
    }
    // Lanes from `cols % LANES` on are zeroed as if they were below a cut.
    let lanes = S::E::lanes();
    // SAFETY: there are LANES of them.
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
        // SAFETY: there is room for as many.
        unsafe { sums.add(eight).write(eight_sums) };
    }
    good
}

/// The quotients of rows. The reciprocals are computed here rather than with the sums, because the
/// divisions take long and nothing else here does. Vectors overlap: what one writes behind its row,
/// the next row's overwrite.
///
/// # Safety
/// `kept` has `rows * cols` elements, `rows` rounded up to a multiple of [`ROWS_AT_ONCE`], and is
/// valid for reads of LANES more, `staged` for writes of as many; `sums` for reads.
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
        // SAFETY: there are as many.
        simd.reciprocals(unsafe { *sums.add(eight) }, &mut hi, &mut lo);
        // The compiler would take lanes from registers, by shuffles; from memory it costs nothing.
        let (hi, lo) = (black_box(&hi), black_box(&lo));
        for k in 0..ROWS_AT_ONCE {
            let inverse = Inverse { hi: simd.splat(hi[k]), lo: simd.splat(lo[k]), wide };
            let row = (eight * ROWS_AT_ONCE + k) * cols;
            let mut i = 0;
            loop {
                // SAFETY: i < cols, and the row is one of those there are.
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
