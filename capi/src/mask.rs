//! Masks of rows.

use std::ffi::c_void;

use softmax::{BitMask, Error, MaskData};

use crate::raw::{
    Descriptor, Region, SOFTMAX_BF16, SOFTMAX_BITS, SOFTMAX_BOOL, SOFTMAX_F16, SOFTMAX_F32,
    SOFTMAX_F64, read, slice, softmax_dtype, softmax_matrix,
};
use crate::status::{Failure, Reason};

/// A mask of rows: elements of `SOFTMAX_BOOL`, not 0 where an element is seen, or `SOFTMAX_BITS`,
/// or numbers that are added to the scaled elements, -inf hiding: of `SOFTMAX_F32`, `SOFTMAX_F16`
/// or `SOFTMAX_BF16`, for rows of f64 also `SOFTMAX_F64`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_mask {
    /// `sizeof(softmax_mask)`.
    pub size: usize,
    /// The elements, without gaps.
    pub data: *const c_void,
    /// Their type.
    pub dtype: softmax_dtype,
    /// Rows of the mask: 1, which serves for all, or as many as there are.
    pub rows: usize,
    /// Of bits: the words from one row to the next; 0 if there are no gaps.
    pub stride: usize,
    /// Of bits: columns from this one on are hidden, and there need be no bits for them; 0 for no
    /// such column. (Models pad their vocabularies.)
    pub hidden_from: usize,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_mask {
    const NAME: &'static str = "softmax_mask";
}

/// The mask of a matrix, and its region.
///
/// # Safety
/// The mask is valid for reads, as its type and rows say.
pub(crate) unsafe fn mask_of<'a>(
    mask: &softmax_mask,
    x: &softmax_matrix,
) -> Result<(MaskData<'a>, Region), Failure> {
    if mask.rows != 1 && mask.rows != x.rows {
        let what = "number of rows of the mask (1, or as many as there are)";
        return Err(Error::count(what, x.rows, mask.rows).into());
    }
    let n = mask.rows.checked_mul(x.cols).ok_or(Reason::TooLarge("mask"))?;
    macro_rules! of {
        ($t:ty) => {{
            let data = mask.data.cast::<$t>();
            // SAFETY: as this function's.
            let elements = unsafe { slice("mask", data, n) }?;
            Ok((elements.into(), Region::of("mask", data, n)?))
        }};
    }
    if mask.dtype != SOFTMAX_BITS {
        for (what, value) in [("stride", mask.stride), ("hidden_from", mask.hidden_from)] {
            if value != 0 {
                return Err(Reason::OfBits(what, value).into());
            }
        }
    }
    match mask.dtype {
        // SAFETY: as this function's.
        SOFTMAX_BITS => unsafe { bits_of(mask, x.cols) },
        SOFTMAX_F32 => of!(f32),
        SOFTMAX_F64 => of!(f64),
        SOFTMAX_F16 => of!(softmax::half::f16),
        SOFTMAX_BF16 => of!(softmax::half::bf16),
        SOFTMAX_BOOL => of!(u8),
        dtype => Err(Reason::Dtype { of: "a mask", dtype }.into()),
    }
}

/// The mask of bits of rows of `cols` columns, and its region.
///
/// # Safety
/// As [`mask_of`].
unsafe fn bits_of<'a>(mask: &softmax_mask, cols: usize) -> Result<(MaskData<'a>, Region), Failure> {
    let width = if mask.hidden_from == 0 { cols } else { mask.hidden_from.min(cols) };
    let words = width.div_ceil(32);
    let stride = if mask.stride == 0 { words } else { mask.stride };
    // The gap behind the last row is not read.
    let gaps = mask.rows.saturating_sub(1).checked_mul(stride).ok_or(Reason::TooLarge("mask"))?;
    let n = if mask.rows == 0 { Some(0) } else { gaps.checked_add(words) };
    let (n, data) = (n.ok_or(Reason::TooLarge("mask"))?, mask.data.cast::<u32>());
    // SAFETY: as this function's.
    let mut bits = BitMask::new(unsafe { slice("mask", data, n) }?).stride(stride);
    if mask.hidden_from != 0 {
        bits = bits.hidden_from(mask.hidden_from);
    }
    Ok((bits.into(), Region::of("mask", data, n)?))
}

/// A mask that there may be, and its region.
///
/// # Safety
/// As [`mask_of`].
pub(crate) unsafe fn mask_or_none<'a>(
    mask: Option<*const softmax_mask>,
    x: &softmax_matrix,
) -> Result<(Option<MaskData<'a>>, Region), Failure> {
    let Some(mask) = mask else {
        return Ok((None, Region::of("mask", std::ptr::null::<u8>(), 0)?));
    };
    // SAFETY: as this function's.
    let (mask, region) = unsafe { mask_of(read(mask)?, x) }?;
    Ok((Some(mask), region))
}
