//! Draws from rows of logits.

use softmax::{Method, Order, Sampler, Shape};

use crate::options::{Call, call, softmax_options};
use crate::raw::{Descriptor, Region, by_dtype, read, slice, slice_mut, softmax_matrix, write};
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
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_sampler {
    const NAME: &'static str = "softmax_sampler";
}

/// The options, and the memory regions of their arrays.
///
/// # Safety
/// The arrays are valid for reads.
unsafe fn options_of<'a>(
    call: &Call<'a>,
    s: &softmax_sampler,
) -> Result<(Sampler<'a>, [Region; 4]), Failure> {
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
        .repetition_penalty(s.repetition_penalty)
        .presence_penalty(s.presence_penalty)
        .frequency_penalty(s.frequency_penalty);
    // SAFETY: as this function's.
    unsafe {
        let tokens = slice("bias_tokens", s.bias_tokens, s.bias_count)?;
        sampler = sampler.bias_lists(tokens, slice("bias", s.bias, s.bias_count)?);
    }
    let mut regions = [
        Region::of("bias_tokens", s.bias_tokens, s.bias_count)?,
        Region::of("bias", s.bias, s.bias_count)?,
        Region::of("history", s.history, 0)?,
        Region::of("history_starts", s.history_starts, 0)?,
    ];
    if s.history_count > 0 {
        let n = s.history_count.checked_add(1).ok_or(Reason::TooLarge("history_starts"))?;
        // SAFETY: as this function's.
        unsafe {
            let starts = slice("history_starts", s.history_starts, n)?;
            let len = starts.last().copied().unwrap_or(0);
            let history = slice("history", s.history, len)?;
            sampler = sampler.packed_history(history, starts);
            regions[2] = Region::of("history", s.history, len)?;
        }
        regions[3] = Region::of("history_starts", s.history_starts, n)?;
    }
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
            let (sampler, [a, b, c, d]) = options_of(call, sampler)?;
            by_dtype!("logits", logits.dtype, T => {
                let written = [Region::of("draws", draws, n)?];
                call.disjoint(&written, &[logits.region::<T>("logits")?, a, b, c, d])?;
                let draws = slice_mut("draws", draws, n)?;
                let needed = || sampler.scratch_size::<T>(Shape::new(rows, cols));
                let logits = logits.view::<T>("logits")?;
                call.run(needed, || sampler.sample(logits, draws))
            })
        })
    }
}

/// As `softmax_scratch_size`, for draws from logits with the shape and dtype of this matrix; its
/// data is not used.
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
            let (sampler, _) = options_of(call, sampler)?;
            by_dtype!("logits", logits.dtype, T => {
                write("bytes", bytes, sampler.scratch_size::<T>(Shape::new(logits.rows, logits.cols))?)
            })
        })
    }
}
