//! Log-sum-exp, decisions and losses along any axis of a tensor; masks on plain rows; weights.

use std::ffi::c_void;

use softmax::{CrossEntropy, Element, Error, LogProbs, Matrix, Targets, TopK, Weights};

use crate::loss::{self, softmax_cross_entropy};
use crate::mask::{mask_of, softmax_mask};
use crate::options::{Call, call, softmax_options};
use crate::raw::{
    Region, SOFTMAX_F32, SOFTMAX_F64, by_dtype, read, read_or, same_dtype, slice, slice_mut,
    softmax_dtype, softmax_matrix, write,
};
use crate::rows::{softmax_ties, ties_of};
use crate::status::{Failure, Reason, softmax_status};

/// The product of sizes; with a 0 it is 0, however large the others are.
pub(crate) fn product<'a>(mut sizes: impl Iterator<Item = &'a usize> + Clone) -> Option<usize> {
    if sizes.clone().any(|&size| size == 0) {
        return Some(0);
    }
    sizes.try_fold(1usize, |n, &size| n.checked_mul(size))
}

/// A shape, the number of elements in it and without the axis.
pub(crate) struct Sizes<'a> {
    pub(crate) shape: &'a [usize],
    /// Elements of the tensor.
    pub(crate) all: usize,
    /// Elements along the axis.
    len: usize,
    /// Lanes along the axis.
    pub(crate) lanes: usize,
    pub(crate) region: Region,
}

/// # Safety
/// The shape is valid for reads of `dims` sizes.
pub(crate) unsafe fn sizes<'a>(
    shape: *const usize,
    dims: usize,
    axis: isize,
) -> Result<Sizes<'a>, Failure> {
    let region = Region::of("shape", shape, dims)?;
    // SAFETY: as this function's.
    let shape = unsafe { slice("shape", shape, dims) }?;
    let index = softmax::internal::index_of(axis, dims)?;
    let lanes = product(shape[..index].iter().chain(&shape[index + 1..]));
    let all = product(shape.iter());
    match (lanes, all) {
        (Some(lanes), Some(all)) => Ok(Sizes { shape, all, len: shape[index], lanes, region }),
        _ => Err(Reason::TooLarge("shape").into()),
    }
}

/// The log-sum-exp along an axis (negative ones count from the end) of a tensor of `dims`
/// dimensions in C order, without gaps: one element of `dtype` for each lane, in the order of the
/// tensor without the axis. The bits are those of `softmax_logsumexp` for the same axis as the last
/// one.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_logsumexp_axis(
    x: *const c_void,
    logsumexp: *mut c_void,
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
                let (x, y) = (x.cast::<T>(), logsumexp.cast::<T>());
                let of = sizes(shape, dims, axis)?;
                let written = [Region::of("logsumexp", y, of.lanes)?];
                call.disjoint(&written, &[Region::of("input", x, of.all)?, of.region])?;
                let x = slice("input", x, of.all)?;
                let y = slice_mut("logsumexp", y, of.lanes)?;
                let given = call.given;
                call.run(
                    || given.axis_scratch_size::<T>(of.shape, axis),
                    || given.softmax.logsumexp_axis(x, y, of.shape, axis),
                )
            })
        })
    }
}

/// As `softmax_softmax_axis`, for `softmax_hardmax`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_hardmax_axis(
    x: *const c_void,
    y: *mut c_void,
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    ties: softmax_ties,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let ties = ties_of(ties)?;
            by_dtype!("a tensor", dtype, T => {
                let (x, y) = (x.cast::<T>(), y.cast::<T>());
                let of = sizes(shape, dims, axis)?;
                let hardmax = call.given.hardmax(ties);
                let needed = || call.given.axis_scratch_size::<T>(of.shape, axis);
                let written = [Region::of("output", y, of.all)?];
                if x == y.cast_const() {
                    call.disjoint(&written, &[of.region])?;
                    let y = slice_mut("output", y, of.all)?;
                    return call.run(needed, || hardmax.hardmax_axis_in_place(y, of.shape, axis));
                }
                call.disjoint(&written, &[Region::of("input", x, of.all)?, of.region])?;
                let (x, y) = (slice("input", x, of.all)?, slice_mut("output", y, of.all)?);
                call.run(needed, || hardmax.hardmax_axis(x, y, of.shape, axis))
            })
        })
    }
}

/// As `softmax_logsumexp_axis`, for `softmax_argmax`: one index for each lane.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_argmax_axis(
    x: *const c_void,
    indices: *mut usize,
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
                let x = x.cast::<T>();
                let of = sizes(shape, dims, axis)?;
                let written = [Region::of("indices", indices, of.lanes)?];
                call.disjoint(&written, &[Region::of("input", x, of.all)?, of.region])?;
                let x = slice("input", x, of.all)?;
                let indices = slice_mut("indices", indices, of.lanes)?;
                let given = call.given;
                call.run(
                    || given.axis_scratch_size::<T>(of.shape, axis),
                    || given.hardmax(softmax::Ties::Share).argmax_axis(x, indices, of.shape, axis),
                )
            })
        })
    }
}

/// As `softmax_top_k`, along an axis of a tensor in C order: outputs are tensors of its shape, but
/// for `k` elements along the axis. Not both of `log_probs` and `probs` are wanted: one is null.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_top_k_axis(
    x: *const c_void,
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    k: usize,
    log_probs: *mut c_void,
    probs: *mut c_void,
    indices: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            by_dtype!("a tensor", dtype, T => {
                let x = x.cast::<T>();
                let log_probs = log_probs.cast::<<T as Element>::Arithmetic>();
                let probs = probs.cast::<<T as Element>::Arithmetic>();
                let of = sizes(shape, dims, axis)?;
                let n = of.lanes.checked_mul(k).ok_or(Reason::TooLarge("indices"))?;
                let written = [
                    Region::of("log_probs", log_probs, n)?,
                    Region::of("probs", probs, n)?,
                    Region::of("indices", indices, n)?,
                ];
                call.disjoint(&written, &[Region::of("input", x, of.all)?, of.region])?;
                let x = slice("input", x, of.all)?;
                let indices = slice_mut("indices", indices, n)?;
                let log_probs = optional("log_probs", log_probs, n)?;
                let probs = optional("probs", probs, n)?;
                let top = call.given.top_k(k);
                call.run(
                    || top.axis_scratch_size::<T>(of.shape, axis),
                    || top_k_of::<T>(&top, x, log_probs, probs, indices, of.shape, axis),
                )
            })
        })
    }
}

/// `n` elements to write; `None` if it is null.
///
/// # Safety
/// As [`slice_mut`].
unsafe fn optional<'a, T>(
    what: &'static str,
    p: *mut T,
    n: usize,
) -> Result<Option<&'a mut [T]>, Failure> {
    // SAFETY: as this function's.
    if p.is_null() { Ok(None) } else { unsafe { slice_mut(what, p, n) }.map(Some) }
}

/// A function of its own: the frames of all types together would be too much of the stack.
#[inline(never)]
fn top_k_of<T: Element>(
    top: &TopK,
    x: &[T],
    log_probs: Option<&mut [T::Arithmetic]>,
    probs: Option<&mut [T::Arithmetic]>,
    indices: &mut [usize],
    shape: &[usize],
    axis: isize,
) -> Result<(), Error> {
    match (log_probs, probs) {
        (None, None) => top.indices_axis(x, indices, shape, axis),
        (Some(log_probs), None) => top.log_probs_axis(x, log_probs, indices, shape, axis),
        (None, Some(probs)) => top.probs_axis(x, probs, indices, shape, axis),
        (Some(log_probs), Some(probs)) => {
            top.log_probs_and_probs_axis(x, log_probs, probs, indices, shape, axis)
        }
    }
}

/// As `softmax_log_probs`, along an axis of a tensor in C order: `tokens` and `log_probs` are
/// tensors of its shape, but for `tokens_per_lane` elements along the axis; `logsumexp` has one
/// element for each lane.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_probs_axis(
    x: *const c_void,
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    tokens: *const usize,
    tokens_per_lane: usize,
    log_probs: *mut c_void,
    logsumexp: *mut c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            by_dtype!("a tensor", dtype, T => {
                let x = x.cast::<T>();
                let log_probs = log_probs.cast::<<T as Element>::Arithmetic>();
                let logsumexp = logsumexp.cast::<<T as Element>::Arithmetic>();
                let of = sizes(shape, dims, axis)?;
                let n = of.lanes.checked_mul(tokens_per_lane).ok_or(Reason::TooLarge("tokens"))?;
                let written = [
                    Region::of("log_probs", log_probs, n)?,
                    Region::of("logsumexp", logsumexp, of.lanes)?,
                ];
                let read = [
                    Region::of("input", x, of.all)?,
                    Region::of("tokens", tokens, n)?,
                    of.region,
                ];
                call.disjoint(&written, &read)?;
                let (x, tokens) = (slice("input", x, of.all)?, slice("tokens", tokens, n)?);
                let log_probs = slice_mut("log_probs", log_probs, n)?;
                let logsumexp = optional("logsumexp", logsumexp, of.lanes)?;
                let (shape, by) = (of.shape, call.given.log_probs());
                call.lent(|| log_probs_of(&by, x, tokens, log_probs, logsumexp, shape, axis))
            })
        })
    }
}

/// As [`top_k_of`].
#[inline(never)]
fn log_probs_of<T: Element>(
    of: &LogProbs,
    x: &[T],
    tokens: &[usize],
    log_probs: &mut [T::Arithmetic],
    logsumexp: Option<&mut [T::Arithmetic]>,
    shape: &[usize],
    axis: isize,
) -> Result<(), Error> {
    match logsumexp {
        None => of.log_probs_axis(x, tokens, log_probs, shape, axis),
        Some(logsumexp) => {
            of.log_probs_and_logsumexp_axis(x, tokens, log_probs, logsumexp, shape, axis)
        }
    }
}

/// The losses of lanes.
struct Lanes<'a, T> {
    loss: &'a CrossEntropy<'a>,
    /// None if the gradient overwrites them.
    logits: Option<&'a [T]>,
    targets: Targets<'a, T>,
    losses: Option<&'a mut [f64]>,
    gradient: Option<&'a mut [T]>,
    shape: &'a [usize],
    axis: isize,
    /// Elements of a lane, and the number of lanes.
    len: usize,
    lanes: usize,
}

impl<T: Element> Lanes<'_, T> {
    /// The reduced loss. As [`top_k_of`].
    #[inline(never)]
    fn run(self) -> Result<f64, Error> {
        let Self { loss, logits, targets, gradient, shape, axis, .. } = self;
        let Some(losses) = self.losses else {
            return match (logits, gradient) {
                (Some(x), None) => loss.loss_axis(x, targets, shape, axis),
                (Some(x), Some(y)) => loss.gradient_axis(x, targets, y, shape, axis),
                (None, y) => {
                    loss.gradient_axis_in_place(y.unwrap_or_default(), targets, shape, axis)
                }
            };
        };
        match (logits, gradient) {
            (Some(x), None) => loss.losses_axis(x, targets, losses, shape, axis),
            (Some(x), Some(y)) => loss.losses_and_gradient_axis(x, targets, losses, y, shape, axis),
            (None, y) => {
                let y = y.unwrap_or_default();
                loss.losses_and_gradient_axis_in_place(y, targets, losses, shape, axis)
            }
        }?;
        Ok(loss.reduce(losses, loss::divisor_of(loss, &targets, self.lanes, self.len)?))
    }
}

/// The arguments of losses along an axis.
struct Logits {
    logits: *const c_void,
    shape: *const usize,
    dims: usize,
    axis: isize,
    /// Labels, or probabilities if these are null.
    labels: *const i64,
    probs: *const c_void,
    losses: *mut f64,
    loss: *mut f64,
    gradient: *mut c_void,
}

impl Logits {
    fn is_in_place(&self) -> bool {
        self.logits == self.gradient.cast_const() && !self.logits.is_null()
    }

    /// A function of its own, so that this is not on the stack below the work.
    #[inline(never)]
    fn disjoint<T>(
        &self,
        call: &Call,
        o: &softmax_cross_entropy,
        of: &Sizes,
    ) -> Result<(), Failure> {
        let written = [
            Region::of("losses", self.losses, of.lanes)?,
            Region::of("loss", self.loss, 1)?,
            Region::of("gradient", self.gradient.cast::<T>(), of.all)?,
        ];
        let read = [
            Region::of(
                "logits",
                self.logits.cast::<T>(),
                if self.is_in_place() { 0 } else { of.all },
            )?,
            Region::of("labels", self.labels, of.lanes)?,
            Region::of("targets", self.probs.cast::<T>(), of.all)?,
            Region::of("weights", o.weights, of.len)?,
            Region::of("weights_f64", o.weights_f64, of.len)?,
            Region::of("row_factors", o.row_factors, of.lanes)?,
            of.region,
        ];
        call.disjoint(&written, &read)
    }

    /// # Safety
    /// As the head of the crate says.
    #[inline(never)]
    unsafe fn run<T: Element>(
        &self,
        call: &Call,
        o: &softmax_cross_entropy,
        by_labels: bool,
    ) -> Result<(), Failure> {
        // SAFETY: as this function's.
        unsafe {
            let (x, gradient) = (self.logits.cast::<T>(), self.gradient.cast::<T>());
            let of = sizes(self.shape, self.dims, self.axis)?;
            let loss = loss::options_of(call, o, of.lanes, of.len)?;
            self.disjoint::<T>(call, o, &of)?;
            let targets = if by_labels {
                slice("labels", self.labels, of.lanes)?.into()
            } else {
                let probs = slice("targets", self.probs.cast::<T>(), of.all)?;
                Matrix::with_stride(probs, of.all, 1, 1)?.into()
            };
            let logits = match self.is_in_place() {
                true => None,
                false => Some(slice("logits", x, of.all)?),
            };
            let losses = optional("losses", self.losses, of.lanes)?;
            let gradient = optional("gradient", gradient, of.all)?;
            let (shape, axis, len, lanes) = (of.shape, self.axis, of.len, of.lanes);
            let loss = &loss;
            let work = Lanes { loss, logits, targets, losses, gradient, shape, axis, len, lanes };
            let mut reduced = 0.0;
            call.run(
                || loss.axis_scratch_size::<T>(shape, axis),
                || work.run().map(|value| reduced = value),
            )?;
            if self.loss.is_null() { Ok(()) } else { write("loss", self.loss, reduced) }
        }
    }
}

/// As `softmax_cross_entropy_labels`, along an axis of a tensor in C order, of classes: the second
/// of PyTorch's N, C, d1, d2. There is one label, one loss and one row factor for each lane, in the
/// order of the tensor without the axis. The gradient is a tensor of the logits' shape, which is
/// `logits` itself (in place) or does not overlap it.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_labels_axis(
    logits: *const c_void,
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    labels: *const i64,
    losses: *mut f64,
    loss: *mut f64,
    gradient: *mut c_void,
    cross_entropy: *const softmax_cross_entropy,
    options: *const softmax_options,
) -> softmax_status {
    let probs = std::ptr::null();
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let o = read_or(cross_entropy, &loss::DEFAULT)?;
            let tensor =
                Logits { logits, shape, dims, axis, labels, probs, losses, loss, gradient };
            by_dtype!("logits", dtype, T => tensor.run::<T>(call, o, true))
        })
    }
}

/// As `softmax_cross_entropy_labels_axis`, against the probabilities `targets`, a tensor of the
/// logits' shape and dtype.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_probs_axis(
    logits: *const c_void,
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    targets: *const c_void,
    losses: *mut f64,
    loss: *mut f64,
    gradient: *mut c_void,
    cross_entropy: *const softmax_cross_entropy,
    options: *const softmax_options,
) -> softmax_status {
    let (labels, probs) = (std::ptr::null(), targets);
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let o = read_or(cross_entropy, &loss::DEFAULT)?;
            let tensor =
                Logits { logits, shape, dims, axis, labels, probs, losses, loss, gradient };
            by_dtype!("logits", dtype, T => tensor.run::<T>(call, o, false))
        })
    }
}

/// As `softmax_axis_scratch_size`, for `softmax_top_k_axis` and, with the two sizes of a matrix and
/// axis 1, for `softmax_top_k`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_top_k_scratch_size(
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    k: usize,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (shape, top) = (slice("shape", shape, dims)?, call.given.top_k(k));
            by_dtype!("a tensor", dtype, T => {
                write("bytes", bytes, top.axis_scratch_size::<T>(shape, axis)?)
            })
        })
    }
}

/// As `softmax_axis_scratch_size`, for losses of logits along an axis.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_axis_scratch_size(
    dtype: softmax_dtype,
    shape: *const usize,
    dims: usize,
    axis: isize,
    bytes: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (shape, loss) = (slice("shape", shape, dims)?, call.given.cross_entropy());
            by_dtype!("a tensor", dtype, T => {
                write("bytes", bytes, loss.axis_scratch_size::<T>(shape, axis)?)
            })
        })
    }
}

/// # Safety
/// As the head of the crate says.
unsafe fn masked(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    mask: *const softmax_mask,
    options: *const softmax_options,
    log: bool,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (x, y, mask) = (read(x)?, read(y)?, read(mask)?);
            same_dtype("input and output", x, y)?;
            let (mask, mask_region) = mask_of(mask, x)?;
            let softmax = call.given.softmax.mask(mask);
            by_dtype!("a matrix", x.dtype, T => {
                let written = [y.region::<T>("output")?];
                if x.is(y) {
                    call.disjoint(&written, &[mask_region])?;
                    let y = y.view_mut_unchecked::<T>();
                    return call.lent(|| match log {
                        true => softmax.log_softmax_in_place(y),
                        false => softmax.softmax_in_place(y),
                    });
                }
                call.disjoint(&written, &[x.region::<T>("input")?, mask_region])?;
                let (x, y) = (x.view_unchecked::<T>(), y.view_mut_unchecked::<T>());
                call.lent(|| match log {
                    true => softmax.log_softmax(x, y),
                    false => softmax.softmax(x, y),
                })
            })
        })
    }
}

/// As `softmax_softmax`, with a mask. Hidden elements have probability 0, whatever their value.
/// What scratch memory is too small for (1 MiB and 17 rows of double a thread are enough) the
/// allocator provides.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_softmax_masked(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    mask: *const softmax_mask,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { masked(x, y, mask, options, false) }
}

/// As `softmax_softmax_masked`, the logarithms: -inf where the mask hides. In f64, where numbers
/// are added, as of logits that were rounded first.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_softmax_masked(
    x: *const softmax_matrix,
    y: *const softmax_matrix,
    mask: *const softmax_mask,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { masked(x, y, mask, options, true) }
}

/// As `softmax_logsumexp`, with a mask (as in `softmax_log_softmax_masked`), or null for none, and
/// weights: the logarithm of `sum_j w_j exp(scale * x_j)`. Weights are `SOFTMAX_F32` or
/// `SOFTMAX_F64`, finite and not negative (else `SOFTMAX_STATUS_VALUE`): `weights_rows` rows of
/// them, 1, which serves for all, or as many as there are. What has weight 0 is as if it were not
/// there. Null for 1. Error with weights: 0.51 ULP (f64: 1) and 5e-16 on top.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_logsumexp_of(
    x: *const softmax_matrix,
    mask: *const softmax_mask,
    weights: *const c_void,
    weights_dtype: softmax_dtype,
    weights_rows: usize,
    logsumexp: *mut c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            let mut softmax = call.given.softmax;
            let none = Region::of("nothing", std::ptr::null::<u8>(), 0)?;
            let mut regions = [none, none];
            if !mask.is_null() {
                let (mask, region) = mask_of(read(mask)?, x)?;
                softmax = softmax.mask(mask);
                regions[0] = region;
            }
            let mut of: Option<Weights> = None;
            if !weights.is_null() {
                if weights_rows != 1 && weights_rows != x.rows {
                    let what = "number of rows of weights (1, or as many as there are)";
                    return Err(Error::count(what, x.rows, weights_rows).into());
                }
                let n = weights_rows.checked_mul(x.cols).ok_or(Reason::TooLarge("weights"))?;
                (of, regions[1]) = match weights_dtype {
                    SOFTMAX_F32 => {
                        let p = weights.cast::<f32>();
                        (Some(slice("weights", p, n)?.into()), Region::of("weights", p, n)?)
                    }
                    SOFTMAX_F64 => {
                        let p = weights.cast::<f64>();
                        (Some(slice("weights", p, n)?.into()), Region::of("weights", p, n)?)
                    }
                    dtype => return Err(Reason::Dtype { of: "weights", dtype }.into()),
                };
            }
            by_dtype!("a matrix", x.dtype, T => {
                let logsumexp = logsumexp.cast::<T>();
                let written = [Region::of("logsumexp", logsumexp, x.rows)?];
                let [mask_region, weights_region] = regions;
                let read = [x.region::<T>("input")?, mask_region, weights_region];
                call.disjoint(&written, &read)?;
                let y = slice_mut("logsumexp", logsumexp, x.rows)?;
                let x = x.view_unchecked::<T>();
                call.lent(|| match of {
                    Some(weights) => softmax.logsumexp_weighted(x, weights, y),
                    None => softmax.logsumexp(x, y),
                })
            })
        })
    }
}
