//! Operations along any axis of a tensor, and rows in shards.

use std::ffi::c_void;

use softmax::{Element, Merged, MergedRow, Partial};

use crate::along::product;
use crate::options::{Call, call, plain_call, softmax_options};
use crate::raw::{Region, by_dtype, slice, slice_mut, slice_or_none, softmax_dtype, write};
use crate::status::{Failure, Reason, softmax_status};

/// A tensor in C order.
#[derive(Clone, Copy)]
struct Tensor {
    x: *const c_void,
    y: *mut c_void,
    shape: *const usize,
    dims: usize,
    axis: isize,
}

impl Tensor {
    /// # Safety
    /// The shape is valid for reads of `dims` sizes, `x` for reads and `y` for writes of their
    /// product.
    unsafe fn run<T: Element>(&self, call: &Call, log: bool) -> Result<(), Failure> {
        let Self { dims, axis, .. } = *self;
        // SAFETY: as this function's.
        let shape = unsafe { slice("shape", self.shape, dims) }?;
        let n = product(shape.iter()).ok_or(Reason::TooLarge("shape"))?;
        let (x, y) = (self.x.cast::<T>(), self.y.cast::<T>());
        let softmax = &call.given.softmax;
        let needed = || call.given.axis_scratch_size::<T>(shape, axis);
        let shape_region = Region::of("shape", self.shape, dims)?;
        if x == y.cast_const() {
            call.disjoint(&[Region::of("output", y, n)?], &[shape_region])?;
            // SAFETY: as this function's.
            let y = unsafe { slice_mut("output", y, n) }?;
            return call.run(needed, || match log {
                true => softmax.log_softmax_axis_in_place(y, shape, axis),
                false => softmax.softmax_axis_in_place(y, shape, axis),
            });
        }
        call.disjoint(&[Region::of("output", y, n)?], &[Region::of("input", x, n)?, shape_region])?;
        // SAFETY: as this function's; they do not overlap.
        let (x, y) = unsafe { (slice("input", x, n)?, slice_mut("output", y, n)?) };
        call.run(needed, || match log {
            true => softmax.log_softmax_axis(x, y, shape, axis),
            false => softmax.softmax_axis(x, y, shape, axis),
        })
    }
}

/// The softmax along an axis (negative ones count from the end) of a tensor of `dims` dimensions in
/// C order, without gaps, from `x` to `y`, which is `x` itself (in place) or does not overlap it.
/// The bits are those of the same axis as the last one.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_softmax_axis(
    x: *const c_void,
    y: *mut c_void,
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    options: *const softmax_options,
) -> softmax_status {
    let tensor = Tensor { x, y, shape, dims, axis };
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| by_dtype!("a tensor", dtype, T => tensor.run::<T>(call, false)))
    }
}

/// As `softmax_softmax_axis`, for log-softmax.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_softmax_axis(
    x: *const c_void,
    y: *mut c_void,
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    options: *const softmax_options,
) -> softmax_status {
    let tensor = Tensor { x, y, shape, dims, axis };
    // SAFETY: as this function's.
    unsafe { call(options, &|call| by_dtype!("a tensor", dtype, T => tensor.run::<T>(call, true))) }
}

/// As `softmax_scratch_size`, for calls along an axis.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_axis_scratch_size(
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let shape = slice("shape", shape, dims)?;
            by_dtype!("a tensor", dtype, T => {
                write("bytes", bytes, call.given.axis_scratch_size::<T>(shape, axis)?)
            })
        })
    }
}

/// Elements of a block: shards of a row start at multiples of it.
pub const SOFTMAX_BLOCK: usize = 4096;

const _: () = assert!(SOFTMAX_BLOCK == softmax::BLOCK);

/// The partial of a block of a row: four numbers, which may be stored and sent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_partial {
    /// The block's largest element, or the row's.
    pub max: f64,
    /// A lower bound of the elements that count.
    pub least: f64,
    /// The sum of the exponentials.
    pub sum: f64,
    /// The correction of the sum.
    pub rest: f64,
}

// The same four numbers, in the order of `Partial::to_array`.
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<softmax_partial>() == size_of::<Partial>());
    assert!(align_of::<softmax_partial>() == align_of::<Partial>());
    assert!(offset_of!(softmax_partial, max) == 0 && offset_of!(softmax_partial, least) == 8);
    assert!(offset_of!(softmax_partial, sum) == 16 && offset_of!(softmax_partial, rest) == 24);
};

/// Number of partials of a shard of `len` elements: one for each block of `SOFTMAX_BLOCK` elements,
/// and one for the last few.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_partial_count(len: usize, count: *mut usize) -> softmax_status {
    // SAFETY: as this function's.
    plain_call(|| unsafe { write("count", count, Partial::count(len)) })
}

/// The partials of a shard of a row: `x` has `len` elements and starts at a multiple of
/// `SOFTMAX_BLOCK` in its row; `count` must be the number that `softmax_partial_count` gives.
/// `row_max` is null, or the row's largest element, if `softmax_merge` has asked for that. With a
/// scale below 0 a block is negated in scratch memory, or in what the allocator provides if that
/// has less than 32 KiB and 64 bytes; and the largest elements are those of the negated row.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_partials(
    x: *const c_void,
    dtype: softmax_dtype,
    len: usize,
    row_max: *const f64,
    partials: *mut softmax_partial,
    count: usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            by_dtype!("a shard", dtype, T => {
                let x = x.cast::<T>();
                call.disjoint(
                    &[Region::of("partials", partials, count)?],
                    &[Region::of("input", x, len)?, Region::of("row_max", row_max, 1)?],
                )?;
                let x = slice("input", x, len)?;
                let partials = slice_mut("partials", partials.cast::<Partial>(), count)?;
                let row_max = slice_or_none("row_max", row_max, 1)?.map(|max| max[0]);
                call.lent(|| call.given.shards().partials(x, row_max, partials))
            })
        })
    }
}

/// Merges the partials of all blocks of a row of this dtype, in their order, into `row`: the
/// partial of the whole row, with which its shards are finished. (Do not merge some blocks first
/// and the results later: sums are in the order of the blocks.)
///
/// Returns `SOFTMAX_STATUS_AGAIN`, and the row's largest element in `row_max`, if the partials have
/// to be computed again, by that element; then merging succeeds.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_merge(
    partials: *const softmax_partial,
    count: usize,
    row: *mut softmax_partial,
    row_max: *mut f64,
    dtype: softmax_dtype,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let regions = [Region::of("row", row, 1)?, Region::of("row_max", row_max, 1)?];
            call.disjoint(&regions, &[Region::of("partials", partials, count)?])?;
            let partials = slice("partials", partials.cast::<Partial>(), count)?;
            // Checks both outputs, so that failures do not depend on the row.
            let row = slice_mut("row", row.cast::<Partial>(), 1)?;
            let row_max = slice_mut("row_max", row_max, 1)?;
            let shards = call.given.shards();
            by_dtype!("a row", dtype, T => match shards.merge::<T>(partials)? {
                Merged::Row(merged) => {
                    row[0] = merged.to_partial();
                    Ok(())
                }
                Merged::Again(max) => {
                    row_max[0] = max;
                    Err(Reason::Again(max).into())
                }
            })
        })
    }
}

/// Merges the single partial of a whole row.
///
/// # Safety
/// As [`slice`].
unsafe fn row_of<T: Element>(
    call: &Call,
    row: *const softmax_partial,
) -> Result<MergedRow<T>, Failure> {
    // SAFETY: as this function's.
    let row = unsafe { slice("row", row.cast::<Partial>(), 1) }?;
    match call.given.shards().merge(row)? {
        Merged::Row(row) => Ok(row),
        Merged::Again(max) => Err(Reason::Again(max).into()),
    }
}

/// # Safety
/// As the functions that call it.
unsafe fn finish<T: Element>(
    call: &Call,
    x: *const c_void,
    y: *mut c_void,
    len: usize,
    row: *const softmax_partial,
    log: bool,
) -> Result<(), Failure> {
    let (x, y) = (x.cast::<T>(), y.cast::<T>());
    let shards = call.given.shards();
    // SAFETY: as this function's.
    let merged = unsafe { row_of::<T>(call, row) }?;
    let (written, row) = (Region::of("output", y, len)?, Region::of("row", row, 1)?);
    if x == y.cast_const() {
        call.disjoint(&[written], &[row])?;
        // SAFETY: as this function's.
        let y = unsafe { slice_mut("output", y, len) }?;
        return Ok(match log {
            true => shards.log_softmax_in_place(&merged, y),
            false => shards.softmax_in_place(&merged, y),
        }?);
    }
    call.disjoint(&[written], &[Region::of("input", x, len)?, row])?;
    // SAFETY: as this function's; they do not overlap.
    let (x, y) = unsafe { (slice("input", x, len)?, slice_mut("output", y, len)?) };
    Ok(match log {
        true => shards.log_softmax(&merged, x, y),
        false => shards.softmax(&merged, x, y),
    }?)
}

/// The probabilities of a shard of a merged row, from `x` to `y`, which is `x` itself or does not
/// overlap it. The bits are those of the whole row in one call. The options must be those that the
/// row was merged with.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_shard_softmax(
    row: *const softmax_partial,
    x: *const c_void,
    y: *mut c_void,
    dtype: softmax_dtype,
    len: usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(
            options,
            &|call| by_dtype!("a shard", dtype, T => finish::<T>(call, x, y, len, row, false)),
        )
    }
}

/// As `softmax_shard_softmax`, the log-probabilities.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_shard_log_softmax(
    row: *const softmax_partial,
    x: *const c_void,
    y: *mut c_void,
    dtype: softmax_dtype,
    len: usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(
            options,
            &|call| by_dtype!("a shard", dtype, T => finish::<T>(call, x, y, len, row, true)),
        )
    }
}

/// The log-sum-exp of a merged row: one element of the dtype, which is the row's.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_shard_logsumexp(
    row: *const softmax_partial,
    logsumexp: *mut c_void,
    dtype: softmax_dtype,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            by_dtype!("a row", dtype, T => {
                let merged = row_of::<T>(call, row)?;
                write("logsumexp", logsumexp.cast::<T>(), call.given.shards().logsumexp(&merged)?)
            })
        })
    }
}
