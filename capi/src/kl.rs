//! Kullback-Leibler divergences of two rows of logits, and their gradients.

use std::ffi::c_void;

use softmax::Softmax;

use crate::mask::{mask_or_none, softmax_mask};
use crate::options::{call, softmax_options};
use crate::raw::{Region, by_dtype, read, same_dtype, slice, slice_mut, softmax_matrix};
use crate::status::softmax_status;

/// The Kullback-Leibler divergence of every row, in nats, into `kl`: `sum_j p_j (ln p_j - ln q_j)`
/// of the softmax p of a row of `x` and the softmax q of that row of `y`, which has the shape and
/// dtype of `x`; one element of the dtype for each row. The scale or temperature of the options
/// holds for both. `mask` is null, or hides in both (numbers are 0 or -inf). With one, and with a
/// scale below 0, rows are copied; what scratch memory is too small for (two rows a thread are
/// enough) the allocator provides.
///
/// Rows of `x` that are all -inf, or have no elements, give NaN or, with `SOFTMAX_MASKED_ZERO`, 0.
/// Where p is not 0, a `y` of -inf gives +inf. Temperatures 0 and infinity are refused
/// (`SOFTMAX_STATUS_VALUE`).
///
/// Error: 0.51 ULP and 1e-24 (f64: 8 ULP and 1e-31), for rows that hardly differ, too; 0 for equal
/// ones.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_kl_divergence(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    mask: *const softmax_mask,
    kl: *mut c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (x, y) = (read(x)?, read(y)?);
            same_dtype("x and y", x, y)?;
            let (mask, mask_region) = mask_or_none((!mask.is_null()).then_some(mask), x)?;
            by_dtype!("a matrix", x.dtype, T => {
                let kl = kl.cast::<T>();
                let written = [Region::of("kl", kl, x.rows)?];
                let read = [x.region::<T>("x")?, y.region::<T>("y")?, mask_region];
                call.disjoint(&written, &read)?;
                let kl = slice_mut("kl", kl, x.rows)?;
                let (x, y) = (x.view::<T>("x")?, y.view::<T>("y")?);
                let softmax = masked(call.given.softmax, mask);
                call.lent(|| softmax.kl_divergence(x, y, kl))
            })
        })
    }
}

/// The gradients of `sum_i upstream_i KL_i`, where `KL_i` is the divergence of row `i` that
/// `softmax_kl_divergence` gives: with respect to `x`, `upstream_i scale p_j (d_j - KL_i)` with
/// `d_j = ln p_j - ln q_j`, into `x_gradient`; with respect to `y`, `upstream_i scale (q_j - p_j)`,
/// into `y_gradient`. Both are null or matrices of the shape and dtype of `x` elsewhere. `upstream`
/// has one element of that dtype for each row. `mask` and scratch memory are as there.
///
/// Where the divergence is NaN or 0 by `SOFTMAX_MASKED_ZERO`, so are the gradients. Where it is
/// +inf, the first is NaN but for elements with p 0, the second NaN if `y` is nothing but -inf.
///
/// Error: of the first 0.51 ULP (f64: 12) of the largest of `upstream_i scale p_j |d_j|`,
/// `upstream_i scale p_j KL_i` and the gradient; of the second as much of the gradient; plus 1e-12
/// (f64: 1e-15) of `upstream_i scale p_j`.
/// Exponentials below 2^-1022 of their row's largest count 0.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_kl_divergence_backward(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    mask: *const softmax_mask,
    upstream: *const c_void,
    x_gradient: *const softmax_matrix,
    y_gradient: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (x, y) = (read(x)?, read(y)?);
            same_dtype("x and y", x, y)?;
            let of_x = if x_gradient.is_null() { None } else { Some(read(x_gradient)?) };
            let of_y = if y_gradient.is_null() { None } else { Some(read(y_gradient)?) };
            same_dtype("x and its gradient", x, of_x.unwrap_or(x))?;
            same_dtype("y and its gradient", y, of_y.unwrap_or(y))?;
            let (mask, mask_region) = mask_or_none((!mask.is_null()).then_some(mask), x)?;
            by_dtype!("a matrix", x.dtype, T => {
                let upstream = upstream.cast::<T>();
                let nothing = || Region::of::<T>("nothing", std::ptr::null(), 0);
                let written = [
                    of_x.map_or_else(nothing, |g| g.region::<T>("x_gradient"))?,
                    of_y.map_or_else(nothing, |g| g.region::<T>("y_gradient"))?,
                ];
                let of_upstream = Region::of("upstream", upstream, x.rows)?;
                let read = [x.region::<T>("x")?, y.region::<T>("y")?, of_upstream, mask_region];
                call.disjoint(&written, &read)?;
                let upstream = slice("upstream", upstream, x.rows)?;
                let (x, y) = (x.view::<T>("x")?, y.view::<T>("y")?);
                let of_x = of_x.map(|g| g.view_mut::<T>("x_gradient")).transpose()?;
                let of_y = of_y.map(|g| g.view_mut::<T>("y_gradient")).transpose()?;
                let softmax = masked(call.given.softmax, mask);
                call.lent(|| softmax.kl_divergence_backward(x, y, upstream, of_x, of_y))
            })
        })
    }
}

fn masked<'a>(softmax: Softmax<'a>, mask: Option<softmax::MaskData<'a>>) -> Softmax<'a> {
    match mask {
        Some(mask) => softmax.mask(mask),
        None => softmax,
    }
}
