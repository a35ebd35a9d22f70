//! Losses and their gradients.

use softmax::{CrossEntropy, Element, Reduction, Shape, Targets, internal};

use crate::options::{Call, call, plain_call, softmax_options};
use crate::raw::{
    Descriptor, Region, by_dtype, read, read_or, same_dtype, slice, slice_mut, slice_or_none,
    softmax_matrix, write,
};
use crate::status::{Failure, Reason, softmax_status};

/// The mean of the rows' losses.
pub const SOFTMAX_REDUCTION_MEAN: u32 = 0;
/// The sum of the rows' losses.
pub const SOFTMAX_REDUCTION_SUM: u32 = 1;

/// Subtracts the entropy of the targets from the loss: the Kullback-Leibler divergence.
pub const SOFTMAX_CROSS_ENTROPY_DIVERGENCE: u32 = 1;

/// The options of losses. With target probabilities `q` (1 at a label), label smoothing `s`, class
/// weights `w`, `C` classes and scale `a` the loss of a row of logits `x` is `- sum_j t_j
/// log_softmax(a x)_j + z logsumexp(a x)^2` with `t_j = w_j ((1 - s) q_j + s / C)`.
/// `softmax_cross_entropy_default` has those of a call with a null pointer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_cross_entropy {
    /// `sizeof(softmax_cross_entropy)`.
    pub size: usize,
    /// `SOFTMAX_REDUCTION_MEAN` or `SOFTMAX_REDUCTION_SUM`.
    pub reduction: u32,
    /// 0 or `SOFTMAX_CROSS_ENTROPY_DIVERGENCE`.
    pub flags: u32,
    /// Rows with this label have loss 0 and gradient 0, and do not count in the mean. -100 by
    /// default.
    pub ignore_index: i64,
    /// The share of every target's mass that is spread over all classes, within 0 to 1.
    pub label_smoothing: f64,
    /// The factor of the square of each row's log-sum-exp.
    pub z_loss: f64,
    /// One weight for each class, finite and not negative (else `SOFTMAX_STATUS_VALUE`). Null for
    /// 1.
    pub weights: *const f32,
    /// One factor for each row's loss and gradient; null for 1.
    pub row_factors: *const f64,
    /// Multiplies the gradient, but not the loss. 1 by default.
    pub gradient_factor: f64,
    /// As `weights`, in double; null if there are none, or if there are `weights`.
    pub weights_f64: *const f64,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_cross_entropy {
    const NAME: &'static str = "softmax_cross_entropy";
}

pub(crate) const DEFAULT: softmax_cross_entropy = softmax_cross_entropy {
    size: size_of::<softmax_cross_entropy>(),
    reduction: SOFTMAX_REDUCTION_MEAN,
    flags: 0,
    ignore_index: -100,
    label_smoothing: 0.0,
    z_loss: 0.0,
    weights: std::ptr::null(),
    row_factors: std::ptr::null(),
    gradient_factor: 1.0,
    weights_f64: std::ptr::null(),
};

/// # Safety
/// The arrays are valid for reads.
pub(crate) unsafe fn options_of<'a>(
    call: &Call<'a>,
    o: &softmax_cross_entropy,
    rows: usize,
    cols: usize,
) -> Result<CrossEntropy<'a>, Failure> {
    let unknown = o.flags & !SOFTMAX_CROSS_ENTROPY_DIVERGENCE;
    if unknown != 0 {
        return Err(Reason::Flags { of: softmax_cross_entropy::NAME, flags: unknown }.into());
    }
    let reduction = match o.reduction {
        SOFTMAX_REDUCTION_MEAN => Reduction::Mean,
        SOFTMAX_REDUCTION_SUM => Reduction::Sum,
        value => return Err(Reason::Choice { of: "reduction", value }.into()),
    };
    let mut loss = call
        .given
        .cross_entropy()
        .reduction(reduction)
        .ignore_index(o.ignore_index)
        .label_smoothing(o.label_smoothing)
        .z_loss(o.z_loss)
        .gradient_factor(o.gradient_factor);
    if o.flags & SOFTMAX_CROSS_ENTROPY_DIVERGENCE != 0 {
        loss = loss.divergence();
    }
    // SAFETY: as this function's.
    unsafe {
        if let Some(weights) = slice_or_none("weights", o.weights, cols)? {
            loss = loss.weights(weights);
        }
        if let Some(weights) = slice_or_none("weights_f64", o.weights_f64, cols)? {
            if !o.weights.is_null() {
                return Err(Reason::OneOf("weights", "weights_f64").into());
            }
            loss = loss.weights(weights);
        }
        if let Some(factors) = slice_or_none("row_factors", o.row_factors, rows)? {
            loss = loss.row_factors(factors);
        }
    }
    Ok(loss)
}

/// The divisor of the sum of the losses of rows with these targets.
pub(crate) fn divisor_of<T>(
    loss: &CrossEntropy,
    targets: &Targets<T>,
    rows: usize,
    cols: usize,
) -> Result<f64, softmax::Error> {
    match targets {
        Targets::Labels(labels) => loss.divisor(labels, cols),
        _ => Ok(internal::divisor(loss, rows, cols)),
    }
}

/// The places of results.
#[derive(Clone, Copy)]
struct Wanted {
    losses: *mut f64,
    loss: *mut f64,
    gradient: *const softmax_matrix,
}

/// The targets of the rows.
#[derive(Clone, Copy)]
enum Against {
    Labels(*const i64),
    Probs(softmax_matrix),
}

/// # Safety
/// As the head of the crate says.
unsafe fn run<T: Element>(
    call: &Call,
    logits: &softmax_matrix,
    against: Against,
    wanted: Wanted,
    o: &softmax_cross_entropy,
) -> Result<(), Failure> {
    let (rows, cols) = (logits.rows, logits.cols);
    // SAFETY: as this function's.
    let loss = unsafe { options_of(call, o, rows, cols) }?;
    let gradient = if wanted.gradient.is_null() {
        None
    } else {
        // SAFETY: as this function's.
        Some(unsafe { read(wanted.gradient) }?)
    };
    let in_place = gradient.is_some_and(|gradient| gradient.is(logits));
    let none = Region::of("nothing", std::ptr::null::<u8>(), 0)?;
    if let Some(gradient) = &gradient {
        same_dtype("logits and gradient", logits, gradient)?;
    }
    let targets_region = match against {
        Against::Labels(labels) => Region::of("labels", labels, rows)?,
        Against::Probs(targets) => targets.region::<T>("targets")?,
    };
    let written = [
        Region::of("losses", wanted.losses, rows)?,
        Region::of("loss", wanted.loss, 1)?,
        match &gradient {
            Some(gradient) => gradient.region::<T>("gradient")?,
            None => none,
        },
    ];
    call.disjoint(
        &written,
        &[
            if in_place { none } else { logits.region::<T>("logits")? },
            targets_region,
            Region::of("weights", o.weights, cols)?,
            Region::of("weights_f64", o.weights_f64, cols)?,
            Region::of("row_factors", o.row_factors, rows)?,
        ],
    )?;
    // SAFETY: as this function's; nothing that is written overlaps anything.
    let targets: Targets<T> = unsafe {
        match against {
            Against::Labels(labels) => slice("labels", labels, rows)?.into(),
            Against::Probs(targets) => targets.view::<T>("targets")?.into(),
        }
    };
    let divisor = |loss: &CrossEntropy| divisor_of(loss, &targets, rows, cols);
    let needed = || loss.scratch_size::<T>(Shape::new(rows, cols));
    // SAFETY: as above.
    unsafe {
        let losses = (!wanted.losses.is_null()).then_some(());
        let losses = losses.map(|()| slice_mut("losses", wanted.losses, rows)).transpose()?;
        let mut reduced = None;
        match (losses, gradient) {
            (Some(losses), None) => {
                let logits = logits.view::<T>("logits")?;
                call.run(needed, || {
                    loss.losses(logits, targets, losses)?;
                    reduced = Some(loss.reduce(losses, divisor(&loss)?));
                    Ok::<_, softmax::Error>(())
                })?;
            }
            (None, None) => {
                let logits = logits.view::<T>("logits")?;
                call.run(needed, || {
                    reduced = Some(loss.loss(logits, targets)?);
                    Ok::<_, softmax::Error>(())
                })?;
            }
            (losses, Some(gradient)) => {
                let gradient = gradient.view_mut::<T>("gradient")?;
                let logits = if in_place { None } else { Some(logits.view::<T>("logits")?) };
                call.run(needed, || {
                    reduced = Some(match (losses, logits) {
                        (Some(losses), Some(logits)) => {
                            loss.losses_and_gradient(logits, targets, losses, gradient)?;
                            loss.reduce(losses, divisor(&loss)?)
                        }
                        (Some(losses), None) => {
                            loss.losses_and_gradient_in_place(gradient, targets, losses)?;
                            loss.reduce(losses, divisor(&loss)?)
                        }
                        (None, Some(logits)) => loss.gradient(logits, targets, gradient)?,
                        (None, None) => loss.gradient_in_place(gradient, targets)?,
                    });
                    Ok::<_, softmax::Error>(())
                })?;
            }
        }
        match reduced {
            Some(value) if !wanted.loss.is_null() => write("loss", wanted.loss, value),
            _ => Ok(()),
        }
    }
}

/// Cross-entropy of rows of logits against `labels`, one for each row: the loss of each row to
/// `losses`, the reduced loss to `loss`, the gradient with respect to the logits to `gradient`,
/// each unless it is null. The gradient is a matrix of the logits' shape and dtype, which is
/// `logits` itself (in place) or does not overlap it. A `cross_entropy` of null is the default.
///
/// Error of a row's loss: 1e-7 of it (f64: 2e-15), however near to 0 it is; of a divergence, 5e-13
/// (f64: 2e-15) of the sum of cross-entropy, entropy and targets. Error of the gradient: 3 ULP
/// (f16, bf16: 0.51); with smoothing, probabilities or z, that many ULP of the larger of its two
/// terms or of itself, and 6 in f64; one more in f64 for a mean. A z-loss adds the effect of an
/// error of 5e-13 (f64: 2e-15) of `1 + |lse|` in the log-sum-exp. Where nothing counts (rows that
/// are ignored, or whose targets have weight 0) the gradient is 0, and the mean NaN.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_labels(
    logits: *const softmax_matrix,
    labels: *const i64,
    losses: *mut f64,
    loss: *mut f64,
    gradient: *const softmax_matrix,
    cross_entropy: *const softmax_cross_entropy,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, o) = (read(logits)?, read_or(cross_entropy, &DEFAULT)?);
            let wanted = Wanted { losses, loss, gradient };
            by_dtype!("logits", logits.dtype, T => {
                run::<T>(call, logits, Against::Labels(labels), wanted, o)
            })
        })
    }
}

/// As `softmax_cross_entropy_labels`, against the probabilities `targets`, a matrix of the logits'
/// shape and dtype.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_probs(
    logits: *const softmax_matrix,
    targets: *const softmax_matrix,
    losses: *mut f64,
    loss: *mut f64,
    gradient: *const softmax_matrix,
    cross_entropy: *const softmax_cross_entropy,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, targets) = (read(logits)?, read(targets)?);
            let o = read_or(cross_entropy, &DEFAULT)?;
            same_dtype("logits and targets", logits, targets)?;
            let wanted = Wanted { losses, loss, gradient };
            by_dtype!("logits", logits.dtype, T => {
                run::<T>(call, logits, Against::Probs(*targets), wanted, o)
            })
        })
    }
}

/// The divisor of the sum of the losses of `rows` rows with these labels. It serves callers who
/// compute rows in several calls: each call as a sum, with the inverse of this divisor as its
/// `gradient_factor`, and at the end one reduction of all losses.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_divisor(
    labels: *const i64,
    rows: usize,
    cols: usize,
    divisor: *mut f64,
    cross_entropy: *const softmax_cross_entropy,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let mut o = *read_or(cross_entropy, &DEFAULT)?;
            // Row factors do not change the divisor.
            o.row_factors = std::ptr::null();
            let loss = options_of(call, &o, rows, cols)?;
            write("divisor", divisor, loss.divisor(slice("labels", labels, rows)?, cols)?)
        })
    }
}

/// The loss from the losses of all rows: their sum, in the order of all calls, divided by
/// `divisor`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_reduce(
    losses: *const f64,
    rows: usize,
    divisor: f64,
    loss: *mut f64,
) -> softmax_status {
    // SAFETY: as this function's.
    plain_call(|| unsafe {
        let losses = slice("losses", losses, rows)?;
        write("loss", loss, CrossEntropy::new().reduce(losses, divisor))
    })
}

/// As `softmax_scratch_size`, for losses of logits with the shape and dtype of this matrix; its
/// data is not used.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_scratch_size(
    logits: *const softmax_matrix,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let logits = read(logits)?;
            let loss = call.given.cross_entropy();
            by_dtype!("logits", logits.dtype, T => {
                write("bytes", bytes, loss.scratch_size::<T>(Shape::new(logits.rows, logits.cols))?)
            })
        })
    }
}

/// # Safety
/// As [`softmax_softmax_backward`].
unsafe fn backward(
    output: *const softmax_matrix,
    upstream: *const softmax_matrix,
    gradient: *const softmax_matrix,
    options: *const softmax_options,
    log: bool,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (output, upstream, gradient) = (read(output)?, read(upstream)?, read(gradient)?);
            same_dtype("output and upstream gradient", output, upstream)?;
            same_dtype("output and gradient", output, gradient)?;
            by_dtype!("a gradient", output.dtype, T => {
                call.disjoint(
                    &[gradient.region::<T>("gradient")?],
                    &[output.region::<T>("output")?, upstream.region::<T>("upstream")?],
                )?;
                let (y, u) = (output.view::<T>("output")?, upstream.view::<T>("upstream")?);
                let gradient = gradient.view_mut::<T>("gradient")?;
                Ok(match log {
                    true => call.given.backward().log_softmax(y, u, gradient),
                    false => call.given.backward().softmax(y, u, gradient),
                }?)
            })
        })
    }
}

/// The gradient through a softmax: from its output `probs` and the gradient `upstream` with respect
/// to that output, the gradient with respect to its input, into `gradient`. Three matrices of one
/// shape and dtype, of which the last overlaps neither of the others.
///
/// Error: 0.51 ULP (f64: 3) plus 5e-13 (f64: 1e-24) of `scale p_j sum_i p_i |u_i|`, for rows of up
/// to 2^24 elements.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_softmax_backward(
    probs: *const softmax_matrix,
    upstream: *const softmax_matrix,
    gradient: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { backward(probs, upstream, gradient, options, false) }
}

/// As `softmax_softmax_backward`, through a log-softmax, whose output is `log_probs`.
///
/// Error: 3 ULP (f16, bf16: 0.51) of the largest of `scale |u_j|`, `scale p_j |sum_i u_i|` and the
/// gradient, plus 5e-13 (f64: 1e-24) of `scale p_j sum_i |u_i|`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_softmax_backward(
    log_probs: *const softmax_matrix,
    upstream: *const softmax_matrix,
    gradient: *const softmax_matrix,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { backward(log_probs, upstream, gradient, options, true) }
}
