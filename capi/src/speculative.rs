//! Verification of drafted tokens.

use softmax::{DraftRows, Element, Ragged, Shape, SpeculativeSampler, TargetRows};

use crate::options::{Call, call, softmax_options};
use crate::raw::{Descriptor, Region, by_dtype, read, slice, slice_mut, softmax_matrix, write};
use crate::status::{Failure, Reason, softmax_status};

/// The rows of the target are probabilities, not logits.
pub const SOFTMAX_SPECULATIVE_TARGET_PROBS: u32 = 1;
/// The rows of the draft are probabilities, not logits.
pub const SOFTMAX_SPECULATIVE_DRAFT_PROBS: u32 = 2;

/// How drafted tokens are verified. `softmax_speculative_default` makes one for logits at
/// temperature 1. (Scale and temperature of `softmax_options` have no effect.)
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_speculative {
    /// `sizeof(softmax_speculative)`.
    pub size: usize,
    /// The seed of all sequences, if `seeds` is null.
    pub seed: u64,
    /// The position of the first drafted token of all sequences, if `steps` is null. Positions are
    /// below 2^48.
    pub step: u64,
    /// The number of the first sequence, so that a batch may be cut. Sequences are numbered below
    /// 2^48.
    pub first_row: u64,
    /// The divisor of logits of all sequences, if `temperatures` is null; 0 verifies greedily.
    pub temperature: f64,
    /// A seed for each sequence, or null. With it, every sequence has the number `first_row`, so
    /// that its place in the batch makes no difference.
    pub seeds: *const u64,
    /// The position of the first drafted token of each sequence, or null.
    pub steps: *const u64,
    /// A temperature for each sequence, or null.
    pub temperatures: *const f64,
    /// 0, `SOFTMAX_SPECULATIVE_TARGET_PROBS`, `SOFTMAX_SPECULATIVE_DRAFT_PROBS` or both.
    pub flags: u32,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_speculative {
    const NAME: &'static str = "softmax_speculative";
}

const FLAGS: u32 = SOFTMAX_SPECULATIVE_TARGET_PROBS | SOFTMAX_SPECULATIVE_DRAFT_PROBS;

/// The options without arrays.
fn options_of<'a>(
    call: &Call<'a>,
    s: &softmax_speculative,
) -> Result<SpeculativeSampler<'a>, Failure> {
    if s.flags & !FLAGS != 0 {
        return Err(Reason::Flags { of: softmax_speculative::NAME, flags: s.flags }.into());
    }
    let sampler = SpeculativeSampler::new(s.seed).step(s.step).first_row(s.first_row);
    Ok(sampler.temperature(s.temperature).exec(call.given.exec))
}

/// The arguments of a call.
struct Drafted {
    drafted: *const usize,
    offsets: *const usize,
    sequences: usize,
    tokens: *mut usize,
    accepted: *mut usize,
}

/// # Safety
/// As [`softmax_verify`].
unsafe fn verify<T: Element>(
    call: &Call,
    target: &softmax_matrix,
    draft: Option<&softmax_matrix>,
    d: &Drafted,
    s: &softmax_speculative,
) -> Result<(), Failure> {
    let (rows, n) = (target.rows, d.sequences);
    let mut sampler = options_of(call, s)?;
    let count = n.checked_add(1).ok_or(Reason::TooLarge("offsets"))?;
    // SAFETY: as this function's; what is written does not overlap anything.
    unsafe {
        let offsets = slice("offsets", d.offsets, count)?;
        let len = offsets.last().copied().unwrap_or(0);
        let of_draft = match draft {
            Some(draft) => draft.region::<T>("draft")?,
            None => Region::of("draft", d.drafted, 0)?,
        };
        let of_each = |p: *const u64| if p.is_null() { 0 } else { n };
        let temperatures = if s.temperatures.is_null() { 0 } else { n };
        call.disjoint(
            &[Region::of("tokens", d.tokens, rows)?, Region::of("accepted", d.accepted, n)?],
            &[
                target.region::<T>("target")?,
                of_draft,
                Region::of("drafted", d.drafted, len)?,
                Region::of("offsets", d.offsets, count)?,
                Region::of("seeds", s.seeds, of_each(s.seeds))?,
                Region::of("steps", s.steps, of_each(s.steps))?,
                Region::of("temperatures", s.temperatures, temperatures)?,
            ],
        )?;
        let drafted = Ragged::new(slice("drafted", d.drafted, len)?, offsets)?;
        if !s.seeds.is_null() {
            sampler = sampler.seeds(slice("seeds", s.seeds, n)?);
        }
        if !s.steps.is_null() {
            sampler = sampler.steps(slice("steps", s.steps, n)?);
        }
        if !s.temperatures.is_null() {
            sampler = sampler.temperatures(slice("temperatures", s.temperatures, n)?);
        }
        let tokens = slice_mut("tokens", d.tokens, rows)?;
        let accepted = slice_mut("accepted", d.accepted, n)?;
        let needed = || sampler.scratch_size::<T>(Shape::new(rows, target.cols));
        let of_target = target.view::<T>("target")?;
        let of_target = match s.flags & SOFTMAX_SPECULATIVE_TARGET_PROBS {
            0 => TargetRows::Logits(of_target),
            _ => TargetRows::Probs(of_target),
        };
        let of_draft = match (draft, s.flags & SOFTMAX_SPECULATIVE_DRAFT_PROBS) {
            (None, _) => DraftRows::OneHot,
            (Some(draft), 0) => DraftRows::Logits(draft.view::<T>("draft")?),
            (Some(draft), _) => DraftRows::Probs(draft.view::<T>("draft")?),
        };
        call.run(needed, || sampler.verify(of_target, of_draft, drafted, tokens, accepted))
    }
}

/// Verifies drafted tokens (speculative decoding): accepts each with probability min(1, p / q) and
/// draws one more token for each sequence, from the residual max(p - q, 0) in place of the first
/// that is not accepted, or from the last row of `target` if all are. docs/sampling.md defines it.
///
/// Sequence `i` has the tokens from `drafted[offsets[i]]` to the one before
/// `drafted[offsets[i + 1]]`, which may be none; there are `sequences + 1` offsets, which never
/// fall. `target` has a row for each drafted token and one more for each sequence, those of the
/// first sequence first; `draft` has a row for each drafted token, and the dtype and columns of
/// `target`, or is null, if each drafted token had probability 1.
///
/// `tokens` has a place for each row of `target`: of each sequence the accepted tokens, whose
/// number is in `accepted[i]`, one more, and `SOFTMAX_NO_TOKEN` in what is left. That is also in
/// place of a token that cannot be drawn, because a row of the target or the draft has NaN or +inf,
/// or nothing but -inf, or numbers that are not probabilities. `accepted` has one place for each
/// sequence.
///
/// # Safety
/// As the head of this file says.
#[allow(clippy::too_many_arguments)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_verify(
    target: *const softmax_matrix,
    draft: *const softmax_matrix,
    drafted: *const usize,
    offsets: *const usize,
    sequences: usize,
    tokens: *mut usize,
    accepted: *mut usize,
    speculative: *const softmax_speculative,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (target, speculative) = (read(target)?, read(speculative)?);
            let draft = if draft.is_null() { None } else { Some(read(draft)?) };
            if let Some(draft) = draft
                && draft.dtype != target.dtype
            {
                let dtypes = (target.dtype, draft.dtype);
                return Err(Reason::Dtypes { of: "target and draft", dtypes }.into());
            }
            let d = Drafted { drafted, offsets, sequences, tokens, accepted };
            by_dtype!("target", target.dtype, T => {
                verify::<T>(call, target, draft, &d, speculative)
            })
        })
    }
}

/// As `softmax_scratch_size`, for verification with a target of the shape and dtype of this matrix,
/// whose data is not used, nor are the arrays of `speculative`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_verify_scratch_size(
    target: *const softmax_matrix,
    speculative: *const softmax_speculative,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (target, speculative) = (read(target)?, read(speculative)?);
            let sampler = options_of(call, speculative)?;
            by_dtype!("target", target.dtype, T => {
                let shape = Shape::new(target.rows, target.cols);
                write("bytes", bytes, sampler.scratch_size::<T>(shape)?)
            })
        })
    }
}
