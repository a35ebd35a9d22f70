//! Softmax, log-softmax and log-sum-exp of rows: the choice of the way, and the way of rows that
//! are longer than a few elements and fit in a cache. Until a row is finished, its exponentials are
//! kept in scratch memory (softmax), or it is read again (log-softmax).

use crate::call::{Call, special_row};
use crate::isa::vector::{Io, Vector};
use crate::mem::scratch::Scratch;
use crate::num::element::Element;
use crate::num::exp2::BLOCK;
use crate::op::{short, tiny};
use crate::sweep::reduce::{Again, Kept, Log, Pipeline, Reducer, Task, row_exactly};
use crate::sweep::{Finish, Forget, Plain};

/// Softmax of every row of the call, by the best way. This function is not compiled for the
/// instruction set, its callees are: so short calls do not pay for the stack frame of long ones.
///
/// # Safety
/// The CPU has the instruction set of `S`. The call's pointers are valid as it says: a call is made
/// only of what was checked.
pub(crate) unsafe fn softmax<S, T>(call: &mut Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: as this function's.
    unsafe {
        let simd = S::assume();
        if tiny::suits(call) && tiny::softmax(simd, call) {
            // Done.
        } else if short::suits::<S, T>(call) {
            if call.has_factors() {
                short_runs(simd, call);
            } else {
                short::softmax(simd, call);
            }
        } else {
            long(simd, call);
        }
    }
}

/// As [`softmax`] of short rows with factors of their own: for such rows no guess is worth keeping
/// from one factor to the next. A function of its own, so that other short rows need no stack
/// frame here.
///
/// # Safety
/// As [`softmax`]; [`short::suits`] is true.
#[inline(never)]
unsafe fn short_runs<S, T>(simd: S, call: &mut Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let mut first = 0;
    while let Some(run) = call.run_alone(first) {
        // SAFETY: as this function's; these are rows of the call.
        unsafe { short::softmax(simd, &run) };
        first += run.rows;
    }
}

/// As [`softmax`], one row after another.
///
/// # Safety
/// As [`softmax`].
#[inline(never)]
unsafe fn long<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    // At a place that does not hinder the row after the first, which is read while the first is
    // written.
    let (next, y) = (call.x.wrapping_add(call.x_stride).addr(), call.y.addr());
    let _scratch;
    let kept: *mut S::E =
        if call.cols > BLOCK && T::IS_ARITHMETIC && !call.is_in_place() && call.store.is_cached() {
            // The exponentials are kept in the output.
            std::ptr::null_mut()
        } else if let Some((scratch, kept)) = Scratch::take_row(call.cols, next, y) {
            _scratch = scratch;
            kept
        } else {
            // There is no memory.
            // SAFETY: as this function's.
            return unsafe { softmax_without_memory(simd, call) };
        };
    simd.vectorize(
        #[inline(always)]
        || {
            // SAFETY: as this function's. `kept` has room for a row, and is not the input.
            unsafe {
                if S::STREAMS && call.store.is_past() {
                    rows::<S, T, Kept, true>(simd, call, kept);
                } else {
                    rows::<S, T, Kept, false>(simd, call, kept);
                }
            }
        },
    );
}

/// As [`softmax`], without any memory but the call's: every row is read three times.
///
/// # Safety
/// As [`softmax`].
#[cold]
#[inline(never)]
unsafe fn softmax_without_memory<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    simd.vectorize(
        #[inline(always)]
        || {
            let (mut first, mut own) = (0, None);
            while first < call.rows {
                let (end, scale) = call.run(first, &mut own);
                let reducer = Reducer::new(simd, scale);
                for row in first..end {
                    let ((x, y), none) = (call.row(row), std::ptr::null_mut());
                    // SAFETY: `row` is one of the call's rows, and nothing is kept.
                    unsafe {
                        row_exactly::<S, T, Again>(&reducer, x, y, call.cols, call.masked, none);
                    }
                }
                first = end;
            }
        },
    );
}

/// Log-softmax of every row of the call.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says.
#[inline(always)]
pub(crate) unsafe fn log_softmax<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    // SAFETY: as this function's.
    unsafe {
        let none = std::ptr::null_mut();
        if S::STREAMS && call.store.is_past() {
            rows::<S, T, Log, true>(simd, call, none);
        } else {
            rows::<S, T, Log, false>(simd, call, none);
        }
    }
}

/// Does the task `K` for every row; past the caches if `STREAM`.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says. If the task keeps exponentials, `kept` has room
/// for a row of them, or is null and the output is of their type and not the input.
#[inline(always)]
unsafe fn rows<S, T, K, const STREAM: bool>(simd: S, call: &Call<T>, kept: *mut S::E)
where
    S: Io<T> + Io<K::From> + Io<<S as Vector>::E>,
    T: Element,
    K: Task<S, T>,
{
    let n = call.cols;
    let plain = Plain::of(call.store);
    let mut pipeline = Pipeline::<S, K::From, T, K::Last, STREAM>::new(simd);
    let (mut learned, mut first, mut own) = (None, 0, None);
    while first < call.rows {
        let (end, scale) = call.run(first, &mut own);
        let mut reducer = Reducer::after(learned.as_ref(), simd, scale);
        for row in first..end {
            // SAFETY: `row` is one of the call's rows, so x and y point to n elements; `kept` has
            // room for them. The row before was one of the call's, too.
            unsafe {
                let (x, y) = call.row(row);
                let kept = if kept.is_null() { y.cast() } else { kept };
                pipeline.prefetch_ends(y, n);
                match pipeline.reduce::<T, K::Keeps, _>(&mut reducer, x, kept, n, &plain) {
                    Ok(reduced) => {
                        let last = K::last(scale, &reduced);
                        pipeline.finish_later(Finish::new(K::from(x, kept), y, n, last));
                    }
                    Err(special) => special_row(&special, y, n, call.masked, K::NOTHING),
                }
            }
        }
        first = end;
        if first < call.rows {
            learned = Some(reducer.learned());
        }
    }
    // SAFETY: as above.
    unsafe { pipeline.end() };
}

/// Log-sum-exp of every row of the call: one value per row.
///
/// # Safety
/// The call's pointers are valid as [`Call`] says, with outputs of one element a row.
#[inline(always)]
pub(crate) unsafe fn logsumexp<S, T>(simd: S, call: &Call<T>)
where
    S: Io<T> + Io<<S as Vector>::E>,
    T: Element,
{
    let none = std::ptr::null_mut();
    let (mut learned, mut first, mut own) = (None, 0, None);
    while first < call.rows {
        let (end, scale) = call.run(first, &mut own);
        let mut reducer = Reducer::after(learned.as_ref(), simd, scale);
        for row in first..end {
            // SAFETY: `row` is one of the call's rows: x points to `cols` elements, y to one.
            // Nothing is kept.
            unsafe {
                let (x, y) = call.row(row);
                let reduced =
                    reducer.reduce_alone::<T, Forget, _>(x, none, call.cols, &Plain::NEAR);
                *y = match reduced {
                    Ok(reduced) => T::from_f64(reduced.log_shift(scale).logsumexp()),
                    Err(special) => special.value(),
                };
            }
        }
        first = end;
        if first < call.rows {
            learned = Some(reducer.learned());
        }
    }
}
