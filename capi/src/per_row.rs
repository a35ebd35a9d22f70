//! Rows with a scale or a temperature each.

use std::ffi::c_void;

use softmax::{Error, PerRow, Softmax};

use crate::mask::{mask_or_none, softmax_mask};
use crate::options::{call, softmax_options};
use crate::raw::{Region, by_dtype, read, same_dtype, slice, slice_mut, softmax_matrix};
use crate::status::{Failure, Reason, softmax_status};

/// Factors of rows are scales.
pub const SOFTMAX_FACTORS_SCALES: u32 = 0;
/// Factors of rows are temperatures.
pub const SOFTMAX_FACTORS_TEMPERATURES: u32 = 1;

/// The options for rows with these factors.
fn per_row<'a>(softmax: Softmax<'a>, kind: u32, factors: &'a [f64]) -> Result<PerRow<'a>, Failure> {
    match kind {
        SOFTMAX_FACTORS_SCALES => Ok(softmax.scales(factors)),
        SOFTMAX_FACTORS_TEMPERATURES => Ok(softmax.temperatures(factors)),
        value => Err(Reason::Choice { of: "kind of factors", value }.into()),
    }
}

/// # Safety
/// As [`softmax_softmax_per_row`].
unsafe fn map(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    mask: *const softmax_mask,
    kind: u32,
    factors: *const f64,
    options: *const softmax_options,
    log: bool,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (x, y) = (read(x)?, read(y)?);
            same_dtype("input and output", x, y)?;
            let (mask, of_mask) = mask_or_none((!mask.is_null()).then_some(mask), x)?;
            let of_factors = Region::of("factors", factors, x.rows)?;
            let softmax = call.given.softmax;
            let softmax = mask.map_or(softmax, |mask| softmax.mask(mask));
            let softmax = per_row(softmax, kind, slice("factors", factors, x.rows)?)?;
            by_dtype!("a matrix", x.dtype, T => {
                let written = [y.region::<T>("output")?];
                if x.is(y) {
                    call.disjoint(&written, &[of_mask, of_factors])?;
                    let y = y.view_mut_unchecked::<T>();
                    return call.lent(|| match log {
                        true => softmax.log_softmax_in_place(y),
                        false => softmax.softmax_in_place(y),
                    });
                }
                call.disjoint(&written, &[x.region::<T>("input")?, of_mask, of_factors])?;
                let (x, y) = (x.view_unchecked::<T>(), y.view_mut_unchecked::<T>());
                call.lent(|| match log {
                    true => softmax.log_softmax(x, y),
                    false => softmax.softmax(x, y),
                })
            })
        })
    }
}

/// As `softmax_softmax`, with a factor for each row of `x` in place of the scale or temperature of
/// the options: `factors` are `SOFTMAX_FACTORS_SCALES` or `SOFTMAX_FACTORS_TEMPERATURES`, as many
/// as rows. Each row has the bits that it has alone with its factor. `mask` is as in
/// `softmax_softmax_masked`, or null for none.
///
/// `SOFTMAX_STATUS_VALUE` if a factor is out of range (with a mask 0 and infinity are, too);
/// nothing is written then. What scratch memory is too small for (1 MiB and 17 rows of double a
/// thread are enough) the allocator provides.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_softmax_per_row(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    mask: *const softmax_mask,
    kind: u32,
    factors: *const f64,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { map(x, y, mask, kind, factors, options, false) }
}

/// As `softmax_softmax_per_row`, the logarithms.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_softmax_per_row(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    mask: *const softmax_mask,
    kind: u32,
    factors: *const f64,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { map(x, y, mask, kind, factors, options, true) }
}

/// # Safety
/// As [`softmax_logsumexp_per_row`].
unsafe fn to_one(
    x: *const softmax_matrix,
    values: *mut c_void,
    mask: *const softmax_mask,
    kind: u32,
    factors: *const f64,
    options: *const softmax_options,
    entropy: bool,
) -> softmax_status {
    let what = if entropy { "entropy" } else { "logsumexp" };
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            let (mask, of_mask) = mask_or_none((!mask.is_null()).then_some(mask), x)?;
            let of_factors = Region::of("factors", factors, x.rows)?;
            let softmax = call.given.softmax;
            let softmax = mask.map_or(softmax, |mask| softmax.mask(mask));
            let softmax = per_row(softmax, kind, slice("factors", factors, x.rows)?)?;
            by_dtype!("a matrix", x.dtype, T => {
                let values = values.cast::<T>();
                let written = [Region::of(what, values, x.rows)?];
                call.disjoint(&written, &[x.region::<T>("input")?, of_mask, of_factors])?;
                let values = slice_mut(what, values, x.rows)?;
                let x = x.view_unchecked::<T>();
                call.lent(|| -> Result<(), Error> {
                    match entropy {
                        true => softmax.entropy(x, values),
                        false => softmax.logsumexp(x, values),
                    }
                })
            })
        })
    }
}

/// As `softmax_logsumexp`, with factors and a mask as in `softmax_softmax_per_row`. Temperatures 0
/// and infinity are refused.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_logsumexp_per_row(
    x: *const softmax_matrix,
    logsumexp: *mut c_void,
    mask: *const softmax_mask,
    kind: u32,
    factors: *const f64,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { to_one(x, logsumexp, mask, kind, factors, options, false) }
}

/// As `softmax_entropy`, with factors and a mask as in `softmax_logsumexp_per_row`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_entropy_per_row(
    x: *const softmax_matrix,
    entropy: *mut c_void,
    mask: *const softmax_mask,
    kind: u32,
    factors: *const f64,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { to_one(x, entropy, mask, kind, factors, options, true) }
}
