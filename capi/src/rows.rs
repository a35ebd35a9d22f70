//! Operations from rows to rows, log-sum-exp, decisions.

use softmax::{Element, Op, Shape, Ties, internal};

use crate::mask::{mask_or_none, softmax_mask};
use crate::options::{Call, call, plain_call, softmax_options};
use crate::raw::{
    Descriptor, Region, by_dtype, read, same_dtype, slice, slice_mut, softmax_dtype,
    softmax_matrix, write,
};
use crate::status::{Failure, Reason, softmax_status};

/// An operation on rows: one of `SOFTMAX_OP_...`.
pub type softmax_op = u32;

/// `softmax_softmax`.
pub const SOFTMAX_OP_SOFTMAX: softmax_op = 0;
/// `softmax_log_softmax`.
pub const SOFTMAX_OP_LOG_SOFTMAX: softmax_op = 1;
/// `softmax_logsumexp`.
pub const SOFTMAX_OP_LOGSUMEXP: softmax_op = 2;
/// `softmax_sigmoid`.
pub const SOFTMAX_OP_SIGMOID: softmax_op = 3;
/// `softmax_log_sigmoid`.
pub const SOFTMAX_OP_LOG_SIGMOID: softmax_op = 4;
/// `softmax_hardmax`.
pub const SOFTMAX_OP_HARDMAX: softmax_op = 5;

/// The result for several largest elements of a row: `SOFTMAX_TIES_SHARE` or `SOFTMAX_TIES_FIRST`.
pub type softmax_ties = u32;

/// Each of N gets 1/N.
pub const SOFTMAX_TIES_SHARE: softmax_ties = 0;
/// The first of them gets 1.
pub const SOFTMAX_TIES_FIRST: softmax_ties = 1;

/// The way with several largest elements.
pub(crate) fn ties_of(ties: softmax_ties) -> Result<Ties, Failure> {
    match ties {
        SOFTMAX_TIES_SHARE => Ok(Ties::Share),
        SOFTMAX_TIES_FIRST => Ok(Ties::First),
        value => Err(Reason::Choice { of: "rule for ties", value }.into()),
    }
}

/// Does work that depends on these ties, or tells that there are no such ones.
///
/// # Safety
/// As the head of the crate says, for the options.
pub(crate) unsafe fn by_ties(
    ties: softmax_ties,
    options: *const softmax_options,
    work: impl FnOnce(Ties) -> softmax_status,
) -> softmax_status {
    match ties_of(ties) {
        Ok(ties) => work(ties),
        // SAFETY: as this function's.
        Err(_) => unsafe { call(options, &|_| ties_of(ties).map(drop)) },
    }
}

/// The token for rows that have none to draw.
///
/// cbindgen:ignore
pub const SOFTMAX_NO_TOKEN: usize = usize::MAX;

/// The shape for plans and sizes of scratch memory. Padding is left out, which does not make them
/// smaller.
fn shape(x: &softmax_matrix, in_place: bool) -> Shape {
    let shape = Shape::new(x.rows, x.cols);
    if in_place { shape.in_place() } else { shape }
}

/// Maps rows of a matrix to rows of another, or to themselves.
///
/// # Safety
/// As the head of the crate says.
unsafe fn map(
    op: Op,
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (x, y) = (read(x)?, read(y)?);
            same_dtype("input and output", x, y)?;
            by_dtype!("a matrix", x.dtype, T => map_of::<T>(call, op, x, y))
        })
    }
}

/// As [`map_of`], in place. It is a function of its own, so that both have enough registers: a call
/// of 1 x 16 takes 0.7 ns less (Zen 5).
///
/// # Safety
/// As [`map`].
#[inline(never)]
unsafe fn map_in_place<T: Element>(call: &Call, op: Op, y: &softmax_matrix) -> Result<(), Failure> {
    let (given, softmax) = (call.given, &call.given.softmax);
    let written = y.region::<T>("output")?;
    if call.has_scratch() {
        call.disjoint(&[written], &[])?;
    }
    call.run(
        || given.scratch_size::<T>(op, shape(y, true)),
        || {
            // SAFETY: as this function's; accepted above.
            let y = unsafe { y.view_mut_unchecked::<T>() };
            match op {
                Op::LogSoftmax => softmax.log_softmax_in_place(y),
                Op::Sigmoid => given.sigmoid().sigmoid_in_place(y),
                Op::LogSigmoid => given.sigmoid().log_sigmoid_in_place(y),
                Op::Hardmax(ties) => given.hardmax(ties).hardmax_in_place(y),
                _ => softmax.softmax_in_place(y),
            }
        },
    )
}

/// # Safety
/// As [`map`].
unsafe fn map_of<T: Element>(
    call: &Call,
    op: Op,
    x: &softmax_matrix,
    y: &softmax_matrix,
) -> Result<(), Failure> {
    if x.is(y) {
        // SAFETY: as this function's.
        return unsafe { map_in_place::<T>(call, op, y) };
    }
    let (given, softmax) = (call.given, &call.given.softmax);
    let needed = || given.scratch_size::<T>(op, shape(x, false));
    let written = y.region::<T>("output")?;
    let read = x.region::<T>("input")?;
    if !written.is_apart_from(&read) || call.has_scratch() {
        call.disjoint(&[written], &[read])?;
    }
    // The views are made where they are used: a copy waits until their fields have been stored, 5
    // ns.
    call.run(needed, || {
        // SAFETY: as this function's; they do not overlap, and were accepted above.
        let (x, y) = unsafe { (x.view_unchecked::<T>(), y.view_mut_unchecked::<T>()) };
        match op {
            Op::Sigmoid => given.sigmoid().sigmoid(x, y),
            Op::LogSigmoid => given.sigmoid().log_sigmoid(x, y),
            Op::Hardmax(ties) => given.hardmax(ties).hardmax(x, y),
            _ => internal::map(softmax, op, x, y),
        }
    })
}

/// The softmax of every row of `x`, into the rows of `y`: a matrix of the same shape and dtype,
/// which is `x` itself (in place) or does not overlap it. At most 3 ULP of error in f32 and f64; in
/// f16 at most 0.53 ULP of the type, and in bf16 0.51, with 0 for results below 2^-126.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_softmax(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { map(Op::Softmax, x, y, options) }
}

/// As `softmax_softmax`, the logarithms: `scale * x_i - ln(sum_j exp(scale * x_j))`. At most 2 ULP
/// or 1e-7 of error in f32, 3 ULP or 3e-16 in f64, whichever is larger; in f16 and bf16 at most
/// 0.51 ULP of the type and 1e-7 on top.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_softmax(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { map(Op::LogSoftmax, x, y, options) }
}

/// As `softmax_softmax`, the sigmoid of every element: `1 / (1 + exp(-scale * x_i))`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_sigmoid(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { map(Op::Sigmoid, x, y, options) }
}

/// As `softmax_softmax`, the logarithm of the sigmoid of every element.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_sigmoid(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { map(Op::LogSigmoid, x, y, options) }
}

/// As `softmax_softmax`, but 1 for the largest element of each row and 0 for the others. Scale and
/// temperature have no effect.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_hardmax(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    ties: softmax_ties,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { by_ties(ties, options, |ties| map(Op::Hardmax(ties), x, y, options)) }
}

/// The log-sum-exp of every row of `x`, into `logsumexp`: one element of the dtype of `x` for each
/// row.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_logsumexp(
    x: *const softmax_matrix,
    logsumexp: *mut std::ffi::c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            by_dtype!("a matrix", x.dtype, T => {
                let logsumexp = logsumexp.cast::<T>();
                call.disjoint(&[Region::of("logsumexp", logsumexp, x.rows)?], &[x.region::<T>("input")?])?;
                let (shape, given) = (shape(x, false), call.given);
                let (x, logsumexp) = (x.view::<T>("input")?, slice_mut("logsumexp", logsumexp, x.rows)?);
                call.run(
                    || given.scratch_size::<T>(Op::LogSumExp, shape),
                    || given.softmax.logsumexp(x, logsumexp),
                )
            })
        })
    }
}

/// The index of the largest element of every row of `x`, into `indices`, one for each row: the
/// first of equals, or the row's first NaN.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_argmax(
    x: *const softmax_matrix,
    indices: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            by_dtype!("a matrix", x.dtype, T => {
                let written = [Region::of("indices", indices, x.rows)?];
                call.disjoint(&written, &[x.region::<T>("input")?])?;
                let indices = slice_mut("indices", indices, x.rows)?;
                Ok(call.given.hardmax(Ties::Share).argmax(x.view::<T>("input")?, indices)?)
            })
        })
    }
}

/// The log-probabilities of some elements of each row, `tokens_per_row` of them: those of row `i`
/// have the numbers `tokens[i * tokens_per_row + j]`, and their log-probabilities are written to
/// the same places of `log_probs`; the log-sum-exp of each row to `logsumexp`, unless it is null.
/// Both are float, or double for f64. With a scale below 0 rows are copied; what scratch memory is
/// too small for (1 MiB and 17 rows a thread are enough) the allocator provides.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_probs(
    x: *const softmax_matrix,
    tokens: *const usize,
    tokens_per_row: usize,
    log_probs: *mut std::ffi::c_void,
    logsumexp: *mut std::ffi::c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { picked(x, tokens, tokens_per_row, log_probs, logsumexp, None, options) }
}

/// As `softmax_log_probs`, with a mask that only hides: of bits, bools, or numbers that are 0 or
/// -inf. Hidden elements count as -inf. Rows are copied, as with a scale below 0.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_probs_masked(
    x: *const softmax_matrix,
    tokens: *const usize,
    tokens_per_row: usize,
    log_probs: *mut std::ffi::c_void,
    logsumexp: *mut std::ffi::c_void,
    mask: *const softmax_mask,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { picked(x, tokens, tokens_per_row, log_probs, logsumexp, Some(mask), options) }
}

/// # Safety
/// As [`softmax_log_probs_masked`].
unsafe fn picked(
    x: *const softmax_matrix,
    tokens: *const usize,
    tokens_per_row: usize,
    log_probs: *mut std::ffi::c_void,
    logsumexp: *mut std::ffi::c_void,
    mask: Option<*const softmax_mask>,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            let (mask, mask_region) = mask_or_none(mask, x)?;
            by_dtype!("a matrix", x.dtype, T => {
                let log_probs = log_probs.cast::<<T as Element>::Arithmetic>();
                let logsumexp = logsumexp.cast::<<T as Element>::Arithmetic>();
                let n = x.rows.checked_mul(tokens_per_row).ok_or(Reason::TooLarge("tokens"))?;
                call.disjoint(
                    &[Region::of("log_probs", log_probs, n)?, Region::of("logsumexp", logsumexp, x.rows)?],
                    &[x.region::<T>("input")?, Region::of("tokens", tokens, n)?, mask_region],
                )?;
                let rows = x.rows;
                let x = x.view::<T>("input")?;
                let tokens = slice("tokens", tokens, n)?;
                let log_probs = slice_mut("log_probs", log_probs, n)?;
                let mut of = call.given.log_probs();
                if let Some(mask) = mask {
                    of = of.mask(mask);
                }
                if logsumexp.is_null() {
                    return call.lent(|| of.log_probs(x, tokens, log_probs));
                }
                let logsumexp = slice_mut("logsumexp", logsumexp, rows)?;
                call.lent(|| of.log_probs_and_logsumexp(x, tokens, log_probs, logsumexp))
            })
        })
    }
}

/// The `k` largest elements of each row, the largest first and the first of equals first: their
/// log-probabilities and their probabilities in the whole row (float, or double for f64), unless
/// these are null, and their indices; `k` of each for a row. (If log-probabilities are not wanted,
/// they go to scratch memory: see `softmax_top_k_scratch_size`.)
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_top_k(
    x: *const softmax_matrix,
    k: usize,
    log_probs: *mut std::ffi::c_void,
    probs: *mut std::ffi::c_void,
    indices: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { largest(x, k, log_probs, probs, indices, None, options) }
}

/// As `softmax_top_k`, with a mask that only hides: of bits, bools, or numbers that are 0 or -inf.
/// Hidden elements count as -inf; where fewer than `k` are seen, they follow in the order of the
/// row, with probability 0. Rows are copied: 1 MiB and 17 rows a thread are enough beside what
/// `softmax_top_k_scratch_size` says; what scratch memory is too small for the allocator provides.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_top_k_masked(
    x: *const softmax_matrix,
    k: usize,
    log_probs: *mut std::ffi::c_void,
    probs: *mut std::ffi::c_void,
    indices: *mut usize,
    mask: *const softmax_mask,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { largest(x, k, log_probs, probs, indices, Some(mask), options) }
}

/// # Safety
/// As [`softmax_top_k_masked`].
unsafe fn largest(
    x: *const softmax_matrix,
    k: usize,
    log_probs: *mut std::ffi::c_void,
    probs: *mut std::ffi::c_void,
    indices: *mut usize,
    mask: Option<*const softmax_mask>,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            let (mask, mask_region) = mask_or_none(mask, x)?;
            by_dtype!("a matrix", x.dtype, T => {
                let log_probs = log_probs.cast::<<T as Element>::Arithmetic>();
                let probs = probs.cast::<<T as Element>::Arithmetic>();
                let n = x.rows.checked_mul(k).ok_or(Reason::TooLarge("indices"))?;
                call.disjoint(
                    &[
                        Region::of("log_probs", log_probs, n)?,
                        Region::of("probs", probs, n)?,
                        Region::of("indices", indices, n)?,
                    ],
                    &[x.region::<T>("input")?, mask_region],
                )?;
                let indices = slice_mut("indices", indices, n)?;
                let (mut top_k, shape) = (call.given.top_k(k), shape(x, false));
                if let Some(mask) = mask {
                    top_k = top_k.mask(mask);
                }
                let x = x.view::<T>("input")?;
                let (with_logs, with_probs) = (!log_probs.is_null(), !probs.is_null());
                let of = |wanted| if wanted { n } else { 0 };
                let log_probs = slice_mut("log_probs", log_probs, of(with_logs))?;
                let probs = slice_mut("probs", probs, of(with_probs))?;
                let needed = || if mask.is_none() { top_k.scratch_size::<T>(shape) } else { Ok(0) };
                call.run(needed, || match (with_logs, with_probs) {
                    (true, true) => top_k.log_probs_and_probs(x, log_probs, probs, indices),
                    (true, false) => top_k.log_probs(x, log_probs, indices),
                    (false, true) => top_k.probs(x, probs, indices),
                    (false, false) => top_k.indices(x, indices),
                })
            })
        })
    }
}

/// The perplexity of a text from the log-probabilities of its tokens: `exp(-mean)`. NaN if there
/// are none.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_perplexity(
    log_probs: *const std::ffi::c_void,
    dtype: softmax_dtype,
    len: usize,
    perplexity: *mut f64,
) -> softmax_status {
    plain_call(|| {
        by_dtype!("log_probs", dtype, T => {
            // SAFETY: as this function's.
            let log_probs = unsafe { slice("log_probs", log_probs.cast::<T>(), len) }?;
            let value = softmax::perplexity(log_probs);
            // SAFETY: as this function's.
            unsafe { write("perplexity", perplexity, value) }
        })
    })
}

/// Frees the memory that this thread, and those of the library's pool, keep for their next calls:
/// as much as the largest call so far needed. Other threads free theirs when they end, or when they
/// call this.
#[unsafe(no_mangle)]
pub extern "C" fn softmax_release_scratch() {
    // If a thread of the pool panics, memory is kept, with no other effect.
    let _ = std::panic::catch_unwind(softmax::release_scratch).map_err(std::mem::forget);
}

/// How a call is computed: see `softmax_plan_of`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_plan {
    /// `sizeof(softmax_plan)`, set by the caller.
    pub size: usize,
    /// The name of the kernel, valid for as long as the library is loaded.
    pub kernel: *const std::ffi::c_char,
    /// The most threads that work.
    pub threads: usize,
    /// One of `SOFTMAX_REGIME_...`.
    pub regime: u32,
    /// Whether the output is written past the caches.
    pub streams: u32,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_plan {
    const NAME: &'static str = "softmax_plan";
}

/// Short rows in groups.
pub const SOFTMAX_REGIME_TINY: u32 = 0;
/// One row after another.
pub const SOFTMAX_REGIME_ROWS: u32 = 1;
/// Each row in pieces.
pub const SOFTMAX_REGIME_PIECES: u32 = 2;

fn op_of(op: softmax_op) -> Result<Op, Failure> {
    Ok(match op {
        SOFTMAX_OP_SOFTMAX => Op::Softmax,
        SOFTMAX_OP_LOG_SOFTMAX => Op::LogSoftmax,
        SOFTMAX_OP_LOGSUMEXP => Op::LogSumExp,
        SOFTMAX_OP_SIGMOID => Op::Sigmoid,
        SOFTMAX_OP_LOG_SIGMOID => Op::LogSigmoid,
        SOFTMAX_OP_HARDMAX => Op::Hardmax(Ties::Share),
        value => return Err(Reason::Choice { of: "operation", value }.into()),
    })
}

/// The operation at the temperature of the options.
fn at_temperature(call: &Call, op: Op) -> Result<Op, Failure> {
    let way = call.given.at_temperature(op);
    if call.given.is_limit() && !matches!(way, Op::Hardmax(_)) {
        internal::check_finite(&call.given.softmax)?;
    }
    Ok(way)
}

/// How a call of an operation is computed for a matrix with the shape and dtype of `x` (its data is
/// not used), in place (not 0) or not.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_plan_of(
    op: softmax_op,
    x: *const softmax_matrix,
    in_place: i32,
    plan: *mut softmax_plan,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (op, x, mut told) = (op_of(op)?, read(x)?, *read(plan.cast_const())?);
            let op = at_temperature(call, op)?;
            let found: Result<_, Failure> = by_dtype!("a matrix", x.dtype, T => {
                Ok(call.given.exec.plan::<T>(op, shape(x, in_place != 0))?)
            });
            let found = found?;
            told.kernel = crate::name_of(found.kernel()).as_ptr();
            told.threads = found.threads();
            told.streams = found.streams().into();
            told.regime = match found.regime() {
                softmax::Regime::Tiny => SOFTMAX_REGIME_TINY,
                softmax::Regime::Rows => SOFTMAX_REGIME_ROWS,
                softmax::Regime::Pieces => SOFTMAX_REGIME_PIECES,
                _ => return Err(Reason::Unknown("a regime").into()),
            };
            write("softmax_plan", plan, told)
        })
    }
}

/// Bytes of scratch memory that a call of an operation needs for a matrix with the shape and dtype
/// of `x` (its data is not used), with these options, in place or not.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_scratch_size(
    op: softmax_op,
    x: *const softmax_matrix,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (op, x) = (at_temperature(call, op_of(op)?)?, read(x)?);
            by_dtype!("a matrix", x.dtype, T => {
                let of = |in_place| call.given.scratch_size::<T>(op, shape(x, in_place));
                write("bytes", bytes, of(false)?.max(of(true)?))
            })
        })
    }
}
