//! Softmax of attention scores.

use std::ffi::c_void;

use softmax::half::{bf16, f16};
use softmax::{Attention, BitMask, Element, Mask, MaskData, Probs, Shape};

use crate::options::{Call, call, softmax_options};
use crate::raw::{
    Descriptor, Region, SOFTMAX_BF16, SOFTMAX_BITS, SOFTMAX_BOOL, SOFTMAX_F16, SOFTMAX_F32,
    SOFTMAX_F64, read, slice, slice_mut, slice_or_none, softmax_dtype, softmax_matrix, write,
};
use crate::status::{Failure, Reason, softmax_status};

/// Hides the keys after the query's position.
pub const SOFTMAX_ATTENTION_CAUSAL: u32 = 1;
/// `window` is used.
pub const SOFTMAX_ATTENTION_WINDOW: u32 = 2;
/// `offset` is used.
pub const SOFTMAX_ATTENTION_OFFSET: u32 = 4;
/// `window_ahead` is used.
pub const SOFTMAX_ATTENTION_WINDOW_AHEAD: u32 = 8;
/// `mask_keys` counts.
pub const SOFTMAX_ATTENTION_MASK_KEYS: u32 = 16;

/// The options of attention. Scores are a matrix whose rows are those of a tensor of batch, heads,
/// queries and keys, in C order: row `(b * heads + h) * queries + q` has the scores of query `q` of
/// head `h`, one for each key. The logit of the score `x` of a key is `cap(scale * x) +
/// mask_slopes[h] * mask[b][h][q][key] + alibi[h] * (key - position(q))` with `cap(u) = c * tanh(u
/// / c)`; the probability is `exp(logit) / (exp(sinks[h]) + sum exp(logits))` over the keys that
/// the query sees, and 0 for the others. `softmax_attention_default` makes one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_attention {
    /// `sizeof(softmax_attention)`.
    pub size: usize,
    /// Heads.
    pub heads: usize,
    /// Queries of a head.
    pub queries: usize,
    /// Any of `SOFTMAX_ATTENTION_...`.
    pub flags: u32,
    /// The soft cap `c`, within 2^-20 to 2^20; 0 for none.
    pub soft_cap: f64,
    /// A mask without gaps; null for none.
    pub mask: *const c_void,
    /// `SOFTMAX_F32`, `SOFTMAX_F16` or `SOFTMAX_BF16`, which are added, or `SOFTMAX_BOOL`: not 0
    /// where a key is seen, or `SOFTMAX_BITS`: each row starts at a word.
    pub mask_dtype: softmax_dtype,
    /// The mask's batch, heads and queries: each as many as the scores have, or 1 for one that
    /// serves all. Its rows are as long as the scores', or `mask_keys`.
    pub mask_shape: [usize; 3],
    /// Each head's factor of the mask; null for 1.
    pub mask_slopes: *const f32,
    /// Each head's slope of ALiBi; null for none. Keys that queries see may be at most 2^24 - 16
    /// (f64: 2^53 - 16) away from them.
    pub alibi: *const f32,
    /// Each head's sink; null for none.
    pub sinks: *const f32,
    /// Number of valid keys, for each sequence of the batch or for each row; null for all.
    pub lengths: *const usize,
    /// Number of lengths.
    pub lengths_count: usize,
    /// Number of keys up to its position that a query sees, its own among them: the last ones. Keys
    /// after its position are not changed by this.
    pub window: usize,
    /// The position of the first query among the keys; without the flag it is keys - queries.
    /// (PyTorch's is_causal counts from 0, and so does ONNX's without a cache.)
    pub offset: isize,
    /// Number of keys after its position that a query sees: the first ones. None if causal.
    pub window_ahead: usize,
    /// The position of the first query of each sequence of the batch, or of the query of each row;
    /// null for `offset`, whose flag is not set otherwise.
    pub offsets: *const isize,
    /// How many offsets there are.
    pub offsets_count: usize,
    /// How long the mask's rows are: keys from there on are hidden. No more than there are.
    pub mask_keys: usize,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_attention {
    const NAME: &'static str = "softmax_attention";
}

/// The mask, which is not null, for so many keys, and its bytes. A function of its own, so that its
/// frame is not on the stack of the work.
///
/// # Safety
/// The mask is valid for reads, as its type and shape say.
#[inline(never)]
unsafe fn mask_of<'a>(a: &softmax_attention, keys: usize) -> Result<(Mask<'a>, usize), Failure> {
    let [batch, heads, queries] = a.mask_shape;
    let is_short = a.flags & SOFTMAX_ATTENTION_MASK_KEYS != 0;
    let cols = if is_short { a.mask_keys } else { keys };
    let of_row = if a.mask_dtype == SOFTMAX_BITS { cols.div_ceil(32) } else { cols };
    let n = [heads, queries, of_row].into_iter().try_fold(batch, usize::checked_mul);
    let n = n.ok_or(Reason::TooLarge("mask"))?;
    // SAFETY: as this function's.
    let (data, size): (MaskData, _) = unsafe {
        match a.mask_dtype {
            SOFTMAX_F32 => (slice("mask", a.mask.cast::<f32>(), n)?.into(), 4),
            SOFTMAX_F16 => (slice("mask", a.mask.cast::<f16>(), n)?.into(), 2),
            SOFTMAX_BF16 => (slice("mask", a.mask.cast::<bf16>(), n)?.into(), 2),
            SOFTMAX_BOOL => (slice("mask", a.mask.cast::<u8>(), n)?.into(), 1),
            SOFTMAX_BITS => (BitMask::new(slice("mask", a.mask.cast::<u32>(), n)?).into(), 4),
            dtype => return Err(Reason::Dtype { of: "a mask", dtype }.into()),
        }
    };
    let mask = Mask::new(data, a.mask_shape);
    let mask = if is_short { mask.hidden_from(cols) } else { mask };
    Ok((mask, n.saturating_mul(size)))
}

/// The options, and the memory regions of their arrays.
///
/// # Safety
/// The arrays are valid for reads.
unsafe fn options_of<'a>(
    call: &Call<'a>,
    a: &softmax_attention,
    keys: usize,
) -> Result<(Attention<'a>, [Region; 6]), Failure> {
    const FLAGS: u32 = SOFTMAX_ATTENTION_CAUSAL
        | SOFTMAX_ATTENTION_WINDOW
        | SOFTMAX_ATTENTION_OFFSET
        | SOFTMAX_ATTENTION_WINDOW_AHEAD
        | SOFTMAX_ATTENTION_MASK_KEYS;
    let unknown = a.flags & !FLAGS;
    if unknown != 0 {
        return Err(Reason::Flags { of: softmax_attention::NAME, flags: unknown }.into());
    }
    let mut attention = call.given.attention(a.heads, a.queries);
    // By its bits, since the environment is the caller's: 0 of either sign is none. The compiler
    // would make a comparison of numbers of them if it saw where they are from.
    if std::hint::black_box(a.soft_cap.to_bits()) << 1 != 0 {
        attention = attention.soft_cap(a.soft_cap);
    }
    let mut mask_bytes = 0;
    if !a.mask.is_null() {
        // SAFETY: as this function's.
        let (mask, bytes) = unsafe { mask_of(a, keys) }?;
        mask_bytes = bytes;
        attention = attention.mask(mask);
    }
    // SAFETY: as this function's.
    let heads = |what, p| unsafe { slice_or_none(what, p, a.heads) };
    if let Some(slopes) = heads("mask_slopes", a.mask_slopes)? {
        attention = attention.mask_slopes(slopes);
    }
    if let Some(slopes) = heads("alibi", a.alibi)? {
        attention = attention.alibi(slopes);
    }
    if let Some(sinks) = heads("sinks", a.sinks)? {
        attention = attention.sinks(sinks);
    }
    // SAFETY: as this function's.
    if let Some(lengths) = unsafe { slice_or_none("lengths", a.lengths, a.lengths_count) }? {
        attention = attention.lengths(lengths);
    }
    if a.flags & SOFTMAX_ATTENTION_CAUSAL != 0 {
        attention = attention.causal();
    }
    if a.flags & SOFTMAX_ATTENTION_WINDOW != 0 {
        attention = attention.window(a.window);
    }
    if a.flags & SOFTMAX_ATTENTION_WINDOW_AHEAD != 0 {
        attention = attention.window_ahead(a.window_ahead);
    }
    if a.flags & SOFTMAX_ATTENTION_OFFSET != 0 {
        if !a.offsets.is_null() {
            return Err(Reason::Offsets.into());
        }
        attention = attention.offset(a.offset);
    }
    // SAFETY: as this function's.
    if let Some(offsets) = unsafe { slice_or_none("offsets", a.offsets, a.offsets_count) }? {
        attention = attention.offsets(offsets);
    }
    let regions = [
        Region::of("mask", a.mask.cast::<u8>(), mask_bytes)?,
        Region::of("mask_slopes", a.mask_slopes, a.heads)?,
        Region::of("alibi", a.alibi, a.heads)?,
        Region::of("sinks", a.sinks, a.heads)?,
        Region::of("lengths", a.lengths, a.lengths_count)?,
        Region::of("offsets", a.offsets, a.offsets_count)?,
    ];
    Ok((attention, regions))
}

/// Evaluates the expression with `$t` and `$u` as the types of scores and probabilities.
macro_rules! by_dtypes {
    ($scores:expr, $probs:expr, $t:ident, $u:ident => $e:expr, $($a:ident $ty:ty, $b:ident $uy:ty;)*) => {
        match ($scores, $probs) {
            $(($a, $b) => {
                type $t = $ty;
                type $u = $uy;
                $e
            })*
            dtypes => Err(Reason::Dtypes { of: "scores and probabilities", dtypes }.into()),
        }
    };
    ($scores:expr, $probs:expr, $t:ident, $u:ident => $e:expr) => {
        by_dtypes!(
            $scores, $probs, $t, $u => $e,
            SOFTMAX_F32 f32, SOFTMAX_F32 f32;
            SOFTMAX_F32 f32, SOFTMAX_F16 f16;
            SOFTMAX_F32 f32, SOFTMAX_BF16 bf16;
            SOFTMAX_F16 f16, SOFTMAX_F16 f16;
            SOFTMAX_F16 f16, SOFTMAX_F32 f32;
            SOFTMAX_BF16 bf16, SOFTMAX_BF16 bf16;
            SOFTMAX_BF16 bf16, SOFTMAX_F32 f32;
            SOFTMAX_F64 f64, SOFTMAX_F64 f64;
        )
    };
}

/// The options, once it is sure that nothing is written that is read. A function of its own, so
/// that the call that follows has its part of the stack.
///
/// # Safety
/// As [`options_of`].
#[inline(never)]
pub(crate) unsafe fn options_apart<'a>(
    call: &Call<'a>,
    attention: &softmax_attention,
    cols: usize,
    written: &[Region],
    scores: Region,
) -> Result<Attention<'a>, Failure> {
    // SAFETY: as this function's.
    let (attention, [a, b, c, d, e, f]) = unsafe { options_of(call, attention, cols) }?;
    call.disjoint(written, &[scores, a, b, c, d, e, f])?;
    Ok(attention)
}

/// # Safety
/// As [`softmax_attention_softmax`].
unsafe fn attend<T: Element, U: Probs<T>>(
    call: &Call,
    scores: &softmax_matrix,
    probs: &softmax_matrix,
    logsumexp: *mut T::Arithmetic,
    attention: &softmax_attention,
) -> Result<(), Failure> {
    let (rows, cols) = (scores.rows, scores.cols);
    let written = [probs.region::<U>("probs")?, Region::of("logsumexp", logsumexp, rows)?];
    let read = scores.region::<T>("scores")?;
    // SAFETY: as this function's.
    let attention = unsafe { options_apart(call, attention, cols, &written, read) }?;
    let needed = || attention.scratch_size::<T, U>(Shape::new(rows, cols));
    let n = if logsumexp.is_null() { 0 } else { rows };
    // SAFETY: as this function's; what is written does not overlap anything.
    let (scores, probs, place) = unsafe {
        let place = (!logsumexp.is_null()).then_some(slice_mut("logsumexp", logsumexp, n)?);
        (scores.view::<T>("scores")?, probs.view_mut::<U>("probs")?, place)
    };
    call.run(needed, || match place {
        Some(logsumexp) => attention.softmax_and_logsumexp(scores, probs, logsumexp),
        None => attention.softmax(scores, probs),
    })
}

/// As [`attend`], overwriting the scores with their probabilities.
///
/// # Safety
/// As [`softmax_attention_softmax`].
unsafe fn attend_in_place<T: Probs<T>>(
    call: &Call,
    scores: &softmax_matrix,
    logsumexp: *mut T::Arithmetic,
    attention: &softmax_attention,
) -> Result<(), Failure> {
    let (rows, cols) = (scores.rows, scores.cols);
    let written = [scores.region::<T>("scores")?, Region::of("logsumexp", logsumexp, rows)?];
    let none = Region::of("nothing", std::ptr::null::<u8>(), 0)?;
    // SAFETY: as this function's.
    let attention = unsafe { options_apart(call, attention, cols, &written, none) }?;
    let needed = || attention.scratch_size::<T, T>(Shape::new(rows, cols));
    let n = if logsumexp.is_null() { 0 } else { rows };
    // SAFETY: as this function's.
    let (scores, place) = unsafe {
        let place = (!logsumexp.is_null()).then_some(slice_mut("logsumexp", logsumexp, n)?);
        (scores.view_mut::<T>("scores")?, place)
    };
    call.run(needed, || match place {
        Some(logsumexp) => attention.softmax_and_logsumexp_in_place(scores, logsumexp),
        None => attention.softmax_in_place(scores),
    })
}

/// The softmax of attention scores, into `probs`: a matrix of the same shape, which is `scores`
/// itself (in place) or does not overlap it. Its dtype is that of the scores; scores of f32 may
/// also give f16 or bf16, and scores of f16 or bf16 may give f32. Scores that causality, windows
/// and lengths hide are not read, and those under a mask's -inf may be anything. The log-sum-exp of
/// each row's logits is written to `logsumexp` (float, or double for f64), unless it is null.
///
/// Errors are those of `softmax_softmax` and `softmax_logsumexp`, as if logits had been computed
/// exactly, while logits are below 45,000 (probabilities of f16 from 16,384 on: 0.54 ULP); larger
/// logits are rounded to the type first. Log-sum-exps beside probabilities of f16 and bf16 are
/// within 2 ULP or 2e-5, whichever is larger. In f64 a soft cap `c` adds up to `1.25 c` ULP to
/// probabilities, and `0.61 c` 2^-53 to log-sum-exps.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_attention_softmax(
    scores: *const softmax_matrix,
    probs: *const softmax_matrix,
    logsumexp: *mut c_void,
    attention: *const softmax_attention,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (scores, probs, attention) = (read(scores)?, read(probs)?, read(attention)?);
            if scores.is(probs) {
                return crate::raw::by_dtype!("scores", scores.dtype, T => {
                    attend_in_place::<T>(call, scores, logsumexp.cast(), attention)
                });
            }
            by_dtypes!(scores.dtype, probs.dtype, T, U => {
                attend::<T, U>(call, scores, probs, logsumexp.cast(), attention)
            })
        })
    }
}

/// As `softmax_scratch_size`, for scores and probabilities with the shape and dtypes of these
/// matrices; their data is not used.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_attention_scratch_size(
    scores: *const softmax_matrix,
    probs: *const softmax_matrix,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (scores, probs) = (read(scores)?, read(probs)?);
            let attention = call.given.attention(1, 1);
            let shape = Shape::new(scores.rows, scores.cols);
            by_dtypes!(scores.dtype, probs.dtype, T, U => {
                write("bytes", bytes, attention.scratch_size::<T, U>(shape)?)
            })
        })
    }
}
