//! Entropies of rows, and their gradient.

use std::ffi::c_void;

use crate::along::sizes;
use crate::mask::{mask_or_none, softmax_mask};
use crate::options::{call, softmax_options};
use crate::raw::{
    Region, by_dtype, read, same_dtype, slice, slice_mut, softmax_dtype, softmax_matrix,
};
use crate::status::softmax_status;

/// The entropy of the softmax of every row of `x`, in nats, into `entropy`: one element of the
/// dtype of `x` for each row. `mask` is as in `softmax_log_softmax_masked`, or null for none. With
/// one, and with a scale below 0, rows are copied; what scratch memory is too small for (1 MiB and
/// 17 rows of double a thread are enough) the allocator provides.
///
/// Rows that are all -inf, or have no elements, give NaN or, with `SOFTMAX_MASKED_ZERO`, 0.
/// Temperatures 0 and infinity are refused (`SOFTMAX_STATUS_VALUE`).
///
/// Error: 3 ULP (f64: 5; f16, bf16: 0.51), near 0, too.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_entropy(
    x: *const softmax_matrix,
    mask: *const softmax_mask,
    entropy: *mut c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            let (mask, mask_region) = mask_or_none((!mask.is_null()).then_some(mask), x)?;
            by_dtype!("a matrix", x.dtype, T => {
                let entropy = entropy.cast::<T>();
                let written = [Region::of("entropy", entropy, x.rows)?];
                call.disjoint(&written, &[x.region::<T>("input")?, mask_region])?;
                let h = slice_mut("entropy", entropy, x.rows)?;
                let x = x.view::<T>("input")?;
                let softmax = call.given.softmax;
                call.lent(|| match mask {
                    Some(mask) => softmax.mask(mask).entropy(x, h),
                    None => softmax.entropy(x, h),
                })
            })
        })
    }
}

/// The entropy along an axis (negative ones count from the end) of a tensor of `dims` dimensions in
/// C order, without gaps: one element of `dtype` for each lane, in the order of the tensor without
/// the axis. The bits are those of `softmax_entropy` for the same axis as the last one. Scratch
/// memory is as for `softmax_logsumexp_axis`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_entropy_axis(
    x: *const c_void,
    entropy: *mut c_void,
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            by_dtype!("a tensor", dtype, T => {
                let (x, h) = (x.cast::<T>(), entropy.cast::<T>());
                let of = sizes(shape, dims, axis)?;
                let written = [Region::of("entropy", h, of.lanes)?];
                call.disjoint(&written, &[Region::of("input", x, of.all)?, of.region])?;
                let x = slice("input", x, of.all)?;
                let h = slice_mut("entropy", h, of.lanes)?;
                let given = call.given;
                call.run(
                    || given.axis_scratch_size::<T>(of.shape, axis),
                    || given.softmax.entropy_axis(x, h, of.shape, axis),
                )
            })
        })
    }
}

/// The gradient of `sum_i upstream_i H_i` with respect to `x`, where `H_i` is the entropy of row
/// `i` that `softmax_entropy` gives: `-upstream_i scale p_j (ln p_j + H_i)`. `upstream` has one
/// element of the dtype of `x` for each row; `gradient` is a matrix of the shape and dtype of `x`
/// elsewhere. `mask` is null, or only hides (numbers are 0 or -inf).
///
/// Rows without an entropy have a gradient of NaN; where it is 0 by `SOFTMAX_MASKED_ZERO`, of 0.
///
/// Error: 6 ULP (f64: 14; f16, bf16: 0.51) of the largest of `upstream_i scale p_j` times `scale
/// (max - x_j)`, the same times the mean of these, and the gradient; in f64 also
/// `2^-1040 scale^2 upstream_i p_j`, for logits that differ by less than 2^-960.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_entropy_backward(
    x: *const softmax_matrix,
    mask: *const softmax_mask,
    upstream: *const c_void,
    gradient: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (x, gradient) = (read(x)?, read(gradient)?);
            same_dtype("input and gradient", x, gradient)?;
            let (mask, mask_region) = mask_or_none((!mask.is_null()).then_some(mask), x)?;
            by_dtype!("a matrix", x.dtype, T => {
                let upstream = upstream.cast::<T>();
                let of_upstream = Region::of("upstream", upstream, x.rows)?;
                call.disjoint(
                    &[gradient.region::<T>("gradient")?],
                    &[x.region::<T>("input")?, of_upstream, mask_region],
                )?;
                let upstream = slice("upstream", upstream, x.rows)?;
                let (x, y) = (x.view::<T>("input")?, gradient.view_mut::<T>("gradient")?);
                let softmax = call.given.softmax;
                Ok(match mask {
                    Some(mask) => softmax.mask(mask).entropy_backward(x, upstream, y),
                    None => softmax.entropy_backward(x, upstream, y),
                }?)
            })
        })
    }
}
