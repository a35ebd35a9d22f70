//! Draws from rows of logits.

use std::ffi::c_void;

use softmax::half::{bf16, f16};
use softmax::{Element, Method, Order, Sampler, Shape};

use crate::mask::{mask_of, softmax_mask};
use crate::options::{Call, call, softmax_options};
use crate::raw::{
    Descriptor, Region, SOFTMAX_BF16, SOFTMAX_F16, SOFTMAX_F32, SOFTMAX_F64, by_dtype, read, slice,
    slice_mut, softmax_matrix, write,
};
use crate::status::{Failure, Reason, softmax_status};

/// The order of Hugging Face transformers: temperature, top-k, top-p, min-p, typical-p.
pub const SOFTMAX_ORDER_TRANSFORMERS: u32 = 0;
/// The order of llama.cpp: top-k, typical-p, top-p, min-p at temperature 1, and then the
/// temperature.
pub const SOFTMAX_ORDER_LLAMA_CPP: u32 = 1;

/// One random number for each draw.
pub const SOFTMAX_METHOD_INVERSE_CDF: u32 = 0;
/// The largest sum of logarithm and Gumbel noise: one random number for each token.
pub const SOFTMAX_METHOD_GUMBEL_MAX: u32 = 1;

/// How tokens are drawn. A draw depends on nothing but its row, these options, the seed, the number
/// of the row, the step and the number of the draw. `softmax_sampler_default` makes one that draws
/// from the plain distribution.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_sampler {
    /// `sizeof(softmax_sampler)`.
    pub size: usize,
    /// The seed.
    pub seed: u64,
    /// The position in the sequence, below 2^48.
    pub step: u64,
    /// The number of the first row of the matrix, so that a batch may be cut. Rows are numbered
    /// below 2^48.
    pub first_row: u64,
    /// The divisor of logits; 0 takes the largest. 1 by default. (Scale and temperature of
    /// `softmax_options` have no effect.)
    pub temperature: f64,
    /// `SOFTMAX_ORDER_TRANSFORMERS` or `SOFTMAX_ORDER_LLAMA_CPP`.
    pub order: u32,
    /// `SOFTMAX_METHOD_INVERSE_CDF` or `SOFTMAX_METHOD_GUMBEL_MAX`.
    pub method: u32,
    /// Keeps this number of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Keeps the most likely tokens that together have this share of the mass; 1, the default,
    /// keeps all.
    pub top_p: f64,
    /// Keeps the tokens that are at least this many times as likely as the most likely one; 0 keeps
    /// all.
    pub min_p: f64,
    /// Keeps the tokens nearest to the entropy that together have this share of the mass; 1, the
    /// default, keeps all.
    pub typical_p: f64,
    /// Divides positive logits of tokens in the history and multiplies the others. 1 by default.
    pub repetition_penalty: f64,
    /// Subtracted from the logits of tokens in the history.
    pub presence_penalty: f64,
    /// Subtracted for each time that a token is in the history.
    pub frequency_penalty: f64,
    /// Tokens whose logits are changed first.
    pub bias_tokens: *const usize,
    /// Numbers that are added to their logits; -inf bans a token.
    pub bias: *const f32,
    /// Number of these tokens.
    pub bias_count: usize,
    /// The histories, one after another.
    pub history: *const usize,
    /// The start of each history in `history`, and the end of the last one: `history_count + 1`
    /// numbers.
    pub history_starts: *const usize,
    /// Number of histories: 0, one for all rows, or one for each row.
    pub history_count: usize,
    /// How many tokens top-p, min-p and typical-p leave at least, if there are so many. 0 is 1.
    pub min_keep: usize,
    /// Hides tokens; null for none. Its numbers, if it is not of bits or bools, must be 0 or -inf.
    pub mask: *const softmax_mask,
    /// A temperature for each row, in place of `temperature`; null for none. A row with settings of
    /// its own has the draws that it has alone with them.
    pub temperatures: *const f64,
    /// The same in place of `top_k`.
    pub top_ks: *const usize,
    /// The same in place of `top_p`.
    pub top_ps: *const f64,
    /// The same in place of `min_p`.
    pub min_ps: *const f64,
    /// The same in place of `typical_p`.
    pub typical_ps: *const f64,
    /// The same in place of `seed`. Every row then has the number `first_row`, wherever it lies.
    pub seeds: *const u64,
    /// The same in place of `step`.
    pub steps: *const u64,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_sampler {
    const NAME: &'static str = "softmax_sampler";
}

/// One number for each row, if there are any.
///
/// # Safety
/// `p` is null or valid for reads of `rows` numbers.
unsafe fn each<'a, T>(
    what: &'static str,
    p: *const T,
    rows: usize,
    region: &mut Region,
) -> Result<Option<&'a [T]>, Failure> {
    *region = Region::of(what, p, if p.is_null() { 0 } else { rows })?;
    // SAFETY: as this function's.
    (!p.is_null()).then(|| unsafe { slice(what, p, rows) }).transpose()
}

/// The options, and the memory regions of what is read: first that of the logits, which is still
/// missing, and then their arrays. Lists of rows have `rows` elements.
///
/// # Safety
/// The arrays, and the mask for such logits, are valid for reads.
unsafe fn options_of<'a>(
    call: &Call<'a>,
    s: &softmax_sampler,
    logits: &softmax_matrix,
    rows: usize,
) -> Result<(Sampler<'a>, [Region; 13]), Failure> {
    let order = match s.order {
        SOFTMAX_ORDER_TRANSFORMERS => Order::Transformers,
        SOFTMAX_ORDER_LLAMA_CPP => Order::LlamaCpp,
        value => return Err(Reason::Choice { of: "order", value }.into()),
    };
    let method = match s.method {
        SOFTMAX_METHOD_INVERSE_CDF => Method::InverseCdf,
        SOFTMAX_METHOD_GUMBEL_MAX => Method::GumbelMax,
        value => return Err(Reason::Choice { of: "method", value }.into()),
    };
    let mut sampler = Sampler::new(s.seed)
        .exec(call.given.exec)
        .step(s.step)
        .first_row(s.first_row)
        .temperature(s.temperature)
        .order(order)
        .method(method)
        .top_k(s.top_k)
        .top_p(s.top_p)
        .min_p(s.min_p)
        .typical_p(s.typical_p)
        .min_keep(s.min_keep)
        .repetition_penalty(s.repetition_penalty)
        .presence_penalty(s.presence_penalty)
        .frequency_penalty(s.frequency_penalty);
    // SAFETY: as this function's.
    unsafe {
        let tokens = slice("bias_tokens", s.bias_tokens, s.bias_count)?;
        sampler = sampler.bias_lists(tokens, slice("bias", s.bias, s.bias_count)?);
    }
    let mut regions = [Region::of("mask", s.mask.cast::<u8>(), 0)?; 13];
    regions[1] = Region::of("bias_tokens", s.bias_tokens, s.bias_count)?;
    regions[2] = Region::of("bias", s.bias, s.bias_count)?;
    if !s.mask.is_null() {
        // SAFETY: as this function's.
        let (mask, region) = unsafe { mask_of(read(s.mask)?, logits) }?;
        sampler = sampler.mask(mask);
        regions[3] = region;
    }
    if s.history_count > 0 {
        let n = s.history_count.checked_add(1).ok_or(Reason::TooLarge("history_starts"))?;
        // SAFETY: as this function's.
        unsafe {
            let starts = slice("history_starts", s.history_starts, n)?;
            let len = starts.last().copied().unwrap_or(0);
            let history = slice("history", s.history, len)?;
            sampler = sampler.packed_history(history, starts);
            regions[4] = Region::of("history", s.history, len)?;
        }
        regions[5] = Region::of("history_starts", s.history_starts, n)?;
    }
    let of_rows = &mut regions[6..];
    macro_rules! each {
        ($at:literal, $list:ident) => {
            // SAFETY: as this function's.
            let list = unsafe { each(stringify!($list), s.$list, rows, &mut of_rows[$at]) }?;
            sampler = list.map_or(sampler, |list| sampler.$list(list));
        };
    }
    each!(0, temperatures);
    each!(1, top_ks);
    each!(2, top_ps);
    each!(3, min_ps);
    each!(4, typical_ps);
    each!(5, seeds);
    each!(6, steps);
    Ok((sampler, regions))
}

/// Draws `draws_per_row` tokens from every row of `logits`, into `draws`: those of a row follow
/// each other. `SOFTMAX_NO_TOKEN` is written where there is nothing to draw, because the row has
/// NaN or +inf, or nothing but -inf.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_sample(
    logits: *const softmax_matrix,
    draws: *mut usize,
    draws_per_row: usize,
    sampler: *const softmax_sampler,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, sampler) = (read(logits)?, read(sampler)?);
            let (rows, cols) = (logits.rows, logits.cols);
            let n = rows.checked_mul(draws_per_row).ok_or(Reason::TooLarge("draws"))?;
            let (sampler, mut read) = options_of(call, sampler, logits, logits.rows)?;
            by_dtype!("logits", logits.dtype, T => {
                let written = [Region::of("draws", draws, n)?];
                read[0] = logits.region::<T>("logits")?;
                call.disjoint(&written, &read)?;
                let draws = slice_mut("draws", draws, n)?;
                let needed = || sampler.scratch_size::<T>(Shape::new(rows, cols));
                let logits = logits.view::<T>("logits")?;
                call.run(needed, || sampler.sample(logits, draws))
            })
        })
    }
}

/// # Safety
/// As [`softmax_kept_probs`].
#[allow(clippy::too_many_arguments)]
unsafe fn kept<T: Element>(
    call: &Call,
    logits: &softmax_matrix,
    tokens: *mut usize,
    values: *mut c_void,
    counts: *mut usize,
    room: usize,
    sampler: &softmax_sampler,
    log: bool,
) -> Result<(), Failure> {
    let (rows, cols) = (logits.rows, logits.cols);
    let n = rows.checked_mul(room).ok_or(Reason::TooLarge("tokens"))?;
    let values = values.cast::<T::Arithmetic>();
    let written = [
        Region::of("tokens", tokens, n)?,
        Region::of("values", values, n)?,
        Region::of("counts", counts, rows)?,
    ];
    // SAFETY: as this function's; what is written does not overlap anything.
    unsafe {
        let (sampler, mut read) = options_of(call, sampler, logits, logits.rows)?;
        read[0] = logits.region::<T>("logits")?;
        call.disjoint(&written, &read)?;
        let tokens = slice_mut("tokens", tokens, n)?;
        let values = slice_mut("values", values, n)?;
        let counts = slice_mut("counts", counts, rows)?;
        let needed = || sampler.scratch_size::<T>(Shape::new(rows, cols));
        let logits = logits.view::<T>("logits")?;
        call.run(needed, || match log {
            false => sampler.kept_probs(logits, tokens, values, counts),
            true => sampler.kept_log_probs(logits, tokens, values, counts),
        })
    }
}

/// The tokens of each row that filters leave, and their probabilities, most likely first and
/// equally likely ones by rising index: of row `i` the first `counts[i]` of the `room` places of
/// `tokens` and `probs` (float, or double for f64) from `i * room` on. What follows stays as it is.
/// `counts` has one place for each row.
///
/// What is left are the tokens that `softmax_sample` may draw. The probabilities add up to 1: they
/// are those of `softmax_softmax` for a row of the logits of these tokens alone, with its bits and
/// its bound. No random number is used. Rows where there is nothing to draw have no tokens.
///
/// Returns `SOFTMAX_STATUS_ROOM` if a row has more tokens than `room`: all counts are written then,
/// and the rows that fit.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_kept_probs(
    logits: *const softmax_matrix,
    tokens: *mut usize,
    probs: *mut c_void,
    counts: *mut usize,
    room: usize,
    sampler: *const softmax_sampler,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, sampler) = (read(logits)?, read(sampler)?);
            by_dtype!("logits", logits.dtype, T => kept::<T>(
                call, logits, tokens, probs, counts, room, sampler, false,
            ))
        })
    }
}

/// As `softmax_kept_probs`, with the logarithms of the probabilities, which are those of
/// `softmax_log_softmax`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_kept_log_probs(
    logits: *const softmax_matrix,
    tokens: *mut usize,
    log_probs: *mut c_void,
    counts: *mut usize,
    room: usize,
    sampler: *const softmax_sampler,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, sampler) = (read(logits)?, read(sampler)?);
            by_dtype!("logits", logits.dtype, T => kept::<T>(
                call, logits, tokens, log_probs, counts, room, sampler, true,
            ))
        })
    }
}

/// # Safety
/// As [`softmax_filtered_probs`].
unsafe fn filtered<T: Element>(
    call: &Call,
    logits: &softmax_matrix,
    out: &softmax_matrix,
    sampler: &softmax_sampler,
    log: bool,
) -> Result<(), Failure> {
    let shape = Shape::new(logits.rows, logits.cols);
    let written = [out.region::<T::Arithmetic>("output")?];
    // SAFETY: as this function's; what is written does not overlap anything.
    unsafe {
        let (sampler, mut read) = options_of(call, sampler, logits, logits.rows)?;
        read[0] = logits.region::<T>("logits")?;
        call.disjoint(&written, &read)?;
        let (logits, out) = (logits.view::<T>("logits")?, out.view_mut("output")?);
        let needed = || sampler.scratch_size::<T>(shape);
        call.run(needed, || match log {
            false => sampler.filtered_probs(logits, out),
            true => sampler.filtered_log_probs(logits, out),
        })
    }
}

/// # Safety
/// As [`softmax_filtered_probs`].
unsafe fn filtered_of(
    logits: *const softmax_matrix,
    out: *const softmax_matrix,
    sampler: *const softmax_sampler,
    options: *const softmax_options,
    log: bool,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, out, sampler) = (read(logits)?, read(out)?, read(sampler)?);
            match (logits.dtype, out.dtype) {
                (SOFTMAX_F32, SOFTMAX_F32) => filtered::<f32>(call, logits, out, sampler, log),
                (SOFTMAX_F64, SOFTMAX_F64) => filtered::<f64>(call, logits, out, sampler, log),
                (SOFTMAX_F16, SOFTMAX_F32) => filtered::<f16>(call, logits, out, sampler, log),
                (SOFTMAX_BF16, SOFTMAX_F32) => filtered::<bf16>(call, logits, out, sampler, log),
                dtypes => Err(Reason::Dtypes { of: "logits and probabilities", dtypes }.into()),
            }
        })
    }
}

/// The probabilities of `softmax_kept_probs`, the same bits, in whole rows of `probs`, a matrix of
/// the shape of the logits and of f32, or f64 for f64, which does not overlap them: 0 for tokens
/// that are not left. Rows where there is nothing to draw become NaN.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_filtered_probs(
    logits: *const softmax_matrix,
    probs: *const softmax_matrix,
    sampler: *const softmax_sampler,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { filtered_of(logits, probs, sampler, options, false) }
}

/// As `softmax_filtered_probs`, with the logarithms of the probabilities: -inf for tokens that are
/// not left.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_filtered_log_probs(
    logits: *const softmax_matrix,
    log_probs: *const softmax_matrix,
    sampler: *const softmax_sampler,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { filtered_of(logits, log_probs, sampler, options, true) }
}

/// As `softmax_scratch_size`, for draws from logits with the shape and dtype of this matrix, whose
/// data is not used, nor are lists of rows, and for the tokens that filters leave of them.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_sample_scratch_size(
    logits: *const softmax_matrix,
    sampler: *const softmax_sampler,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, sampler) = (read(logits)?, read(sampler)?);
            // Lists of rows are not read.
            let (sampler, _) = options_of(call, sampler, logits, 0)?;
            by_dtype!("logits", logits.dtype, T => {
                write("bytes", bytes, sampler.scratch_size::<T>(Shape::new(logits.rows, logits.cols))?)
            })
        })
    }
}
