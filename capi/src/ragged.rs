//! Rows of different lengths.

use softmax::{Element, Offsets, Op, Ragged, RaggedMut, RaggedTargets};

use crate::loss::{DEFAULT, options_of};
use crate::options::{Call, call, softmax_options};
use crate::raw::{
    Descriptor, Region, by_dtype, read, read_or, slice, slice_mut, softmax_dtype, write,
};
use crate::rows::{by_ties, softmax_ties};
use crate::softmax_cross_entropy;
use crate::status::{Failure, Reason, softmax_status};

/// The type of offsets: `SOFTMAX_I32` or `SOFTMAX_I64`.
pub type softmax_index_type = u32;

/// `int32_t`.
pub const SOFTMAX_I32: softmax_index_type = 0;
/// `int64_t`.
pub const SOFTMAX_I64: softmax_index_type = 1;

/// Rows of different lengths that follow each other in one array: row `i` has the elements from
/// number `offsets[i]` to the one before number `offsets[i + 1]`, and may be empty. Offsets are
/// not negative, never fall, and end within the array (else `SOFTMAX_STATUS_VALUE` or
/// `SOFTMAX_STATUS_LENGTH`); elements before the first row and behind the last are not touched.
/// `softmax_ragged_of` makes one to read, `softmax_ragged_mut` one to write.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_ragged {
    /// `sizeof(softmax_ragged)`.
    pub size: usize,
    /// The array. May be null if it has no elements.
    pub data: *mut std::ffi::c_void,
    /// Elements of the array.
    pub elements: usize,
    /// The type of the elements.
    pub dtype: softmax_dtype,
    /// The type of the offsets.
    pub index_type: softmax_index_type,
    /// Number of rows.
    pub rows: usize,
    /// `rows + 1` offsets.
    pub offsets: *const std::ffi::c_void,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_ragged {
    const NAME: &'static str = "softmax_ragged";
}

impl softmax_ragged {
    /// The number of offsets.
    fn count(&self) -> Result<usize, Failure> {
        self.rows.checked_add(1).ok_or_else(|| Reason::TooLarge("offsets").into())
    }

    /// The memory of the offsets.
    fn offsets_region(&self) -> Result<Region, Failure> {
        let (p, n) = (self.offsets, self.count()?);
        match self.index_type {
            SOFTMAX_I32 => Region::of("offsets", p.cast::<i32>(), n),
            SOFTMAX_I64 => Region::of("offsets", p.cast::<i64>(), n),
            value => Err(Reason::Choice { of: "type of offsets", value }.into()),
        }
    }

    /// The memory of the elements.
    fn region<T>(&self, what: &'static str) -> Result<Region, Failure> {
        Region::of(what, self.data.cast::<T>(), self.elements)
    }

    /// # Safety
    /// The offsets are valid for reads while they are used, and nobody writes them.
    unsafe fn offsets<'a>(&self) -> Result<Offsets<'a>, Failure> {
        let (p, n) = (self.offsets, self.count()?);
        // SAFETY: as this function's.
        unsafe {
            match self.index_type {
                SOFTMAX_I32 => Ok(slice("offsets", p.cast::<i32>(), n)?.into()),
                SOFTMAX_I64 => Ok(slice("offsets", p.cast::<i64>(), n)?.into()),
                value => Err(Reason::Choice { of: "type of offsets", value }.into()),
            }
        }
    }

    /// A view to read.
    ///
    /// # Safety
    /// The array and the offsets are valid for reads while it is used, and nobody writes them.
    unsafe fn view<'a, T>(&self, what: &'static str) -> Result<Ragged<'a, T>, Failure> {
        // SAFETY: as this function's.
        unsafe {
            let data = slice(what, self.data.cast::<T>(), self.elements)?;
            Ok(Ragged::new(data, self.offsets()?)?)
        }
    }

    /// A view to write.
    ///
    /// # Safety
    /// The array is valid for reads and writes while it is used, and nobody else uses it; the
    /// offsets as in [`softmax_ragged::view`].
    unsafe fn view_mut<'a, T>(&self, what: &'static str) -> Result<RaggedMut<'a, T>, Failure> {
        // SAFETY: as this function's.
        unsafe {
            let data = slice_mut(what, self.data.cast::<T>(), self.elements)?;
            Ok(RaggedMut::new(data, self.offsets()?)?)
        }
    }
}

/// Maps rows to the same places of `y`.
///
/// # Safety
/// As the head of the crate says.
unsafe fn map(
    op: Op,
    x: *const softmax_ragged,
    y: *mut std::ffi::c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            by_dtype!("ragged rows", x.dtype, T => map_of::<T>(call, op, x, y.cast()))
        })
    }
}

/// # Safety
/// As [`map`].
unsafe fn map_of<T: Element>(
    call: &Call,
    op: Op,
    x: &softmax_ragged,
    y: *mut T,
) -> Result<(), Failure> {
    let (given, softmax) = (call.given, &call.given.softmax);
    let of_offsets = x.offsets_region()?;
    // SAFETY: as this function's; what is written overlaps nothing else.
    unsafe {
        if y == x.data.cast() {
            call.disjoint(&[x.region::<T>("output")?], &[of_offsets])?;
            let y = x.view_mut::<T>("input")?;
            return call.lent(|| match op {
                Op::LogSoftmax => softmax.log_softmax_ragged_in_place(y),
                Op::Hardmax(ties) => given.hardmax(ties).hardmax_ragged_in_place(y),
                _ => softmax.softmax_ragged_in_place(y),
            });
        }
        let written = Region::of("output", y, x.elements)?;
        call.disjoint(&[written], &[x.region::<T>("input")?, of_offsets])?;
        let y = slice_mut("output", y, x.elements)?;
        let x = x.view::<T>("input")?;
        call.lent(|| match op {
            Op::LogSoftmax => softmax.log_softmax_ragged(x, y),
            Op::Hardmax(ties) => given.hardmax(ties).hardmax_ragged(x, y),
            _ => softmax.softmax_ragged(x, y),
        })
    }
}

/// The softmax of every row of `x`, into the same places of `y`, an array of as many elements of
/// the same type, which is `x->data` itself (in place) or does not overlap it. Each row has the
/// bits that it has alone by `softmax_softmax`. Many short rows are computed in groups. Scratch
/// memory may have any size in all calls on ragged rows: what does not fit is allocated.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_softmax_ragged(
    x: *const softmax_ragged,
    y: *mut std::ffi::c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { map(Op::Softmax, x, y, options) }
}

/// As `softmax_softmax_ragged`, the logarithms: each row has the bits of `softmax_log_softmax`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_softmax_ragged(
    x: *const softmax_ragged,
    y: *mut std::ffi::c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { map(Op::LogSoftmax, x, y, options) }
}

/// As `softmax_softmax_ragged`, but 1 for the largest element of each row and 0 for the others:
/// see `softmax_hardmax`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_hardmax_ragged(
    x: *const softmax_ragged,
    y: *mut std::ffi::c_void,
    ties: softmax_ties,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { by_ties(ties, options, |ties| map(Op::Hardmax(ties), x, y, options)) }
}

/// The log-sum-exp of every row of `x`, into `logsumexp`: one element of the dtype of `x` for each
/// row, `-inf` for an empty one.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_logsumexp_ragged(
    x: *const softmax_ragged,
    logsumexp: *mut std::ffi::c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            by_dtype!("ragged rows", x.dtype, T => {
                let (y, of_offsets) = (logsumexp.cast::<T>(), x.offsets_region()?);
                let written = Region::of("logsumexp", y, x.rows)?;
                call.disjoint(&[written], &[x.region::<T>("input")?, of_offsets])?;
                let y = slice_mut("logsumexp", y, x.rows)?;
                let x = x.view::<T>("input")?;
                call.lent(|| call.given.softmax.logsumexp_ragged(x, y))
            })
        })
    }
}

/// The index, within its row, of the largest element of every row of `x`, into `indices`, one for
/// each row: the first of equals, or the row's first NaN; `SIZE_MAX` for an empty row.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_argmax_ragged(
    x: *const softmax_ragged,
    indices: *mut usize,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let x = read(x)?;
            by_dtype!("ragged rows", x.dtype, T => {
                let of_offsets = x.offsets_region()?;
                let written = Region::of("indices", indices, x.rows)?;
                call.disjoint(&[written], &[x.region::<T>("input")?, of_offsets])?;
                let indices = slice_mut("indices", indices, x.rows)?;
                let x = x.view::<T>("input")?;
                call.lent(|| call.given.hardmax(softmax::Ties::Share).argmax_ragged(x, indices))
            })
        })
    }
}

/// The targets of the rows.
#[derive(Clone, Copy)]
enum Against {
    Labels(*const i64),
    /// At the same places as the logits.
    Probs(*const std::ffi::c_void),
}

/// The places of results.
#[derive(Clone, Copy)]
struct Wanted {
    losses: *mut f64,
    loss: *mut f64,
    gradient: *mut std::ffi::c_void,
}

/// # Safety
/// As the head of the crate says.
unsafe fn losses_of<T: Element>(
    call: &Call,
    logits: &softmax_ragged,
    against: Against,
    wanted: Wanted,
    o: &softmax_cross_entropy,
) -> Result<(), Failure> {
    let (rows, elements) = (logits.rows, logits.elements);
    let gradient = wanted.gradient.cast::<T>();
    let in_place = !gradient.is_null() && gradient == logits.data.cast();
    let of_offsets = logits.offsets_region()?;
    // SAFETY: as this function's.
    let cols = unsafe {
        let x = logits.view::<T>("logits")?;
        (0..rows).map(|row| x.row_len(row)).max().unwrap_or(0)
    };
    // SAFETY: as this function's.
    let loss = unsafe { options_of(call, o, rows, cols) }?;
    let none = Region::of("nothing", std::ptr::null::<u8>(), 0)?;
    let written = [
        Region::of("losses", wanted.losses, rows)?,
        Region::of("loss", wanted.loss, 1)?,
        Region::of("gradient", gradient, elements)?,
    ];
    let of_targets = match against {
        Against::Labels(labels) => Region::of("labels", labels, rows)?,
        Against::Probs(targets) => Region::of("targets", targets.cast::<T>(), elements)?,
    };
    call.disjoint(
        &written,
        &[
            if in_place { none } else { logits.region::<T>("logits")? },
            of_targets,
            of_offsets,
            Region::of("weights", o.weights, cols)?,
            Region::of("weights_f64", o.weights_f64, cols)?,
            Region::of("row_factors", o.row_factors, rows)?,
        ],
    )?;
    // SAFETY: as this function's; nothing that is written overlaps anything.
    unsafe {
        let targets: RaggedTargets<T> = match against {
            Against::Labels(labels) => slice("labels", labels, rows)?.into(),
            Against::Probs(targets) => {
                let targets = slice("targets", targets.cast::<T>(), elements)?;
                Ragged::new(targets, logits.offsets()?)?.into()
            }
        };
        // The losses of all rows; where only their combination is wanted, they go to scratch.
        let mut reduced = None;
        let places = (wanted.losses, gradient);
        if places.0.is_null() {
            reduced = Some(if gradient.is_null() {
                let x = logits.view::<T>("logits")?;
                with(call, || loss.loss_ragged(x, targets))?
            } else if in_place {
                let y = logits.view_mut::<T>("gradient")?;
                with(call, || loss.gradient_ragged_in_place(y, targets))?
            } else {
                let y = slice_mut("gradient", gradient, elements)?;
                let x = logits.view::<T>("logits")?;
                with(call, || loss.gradient_ragged(x, targets, y))?
            });
        } else {
            let losses = slice_mut("losses", wanted.losses, rows)?;
            if gradient.is_null() {
                let x = logits.view::<T>("logits")?;
                with(call, || loss.losses_ragged(x, targets, losses))?;
            } else if in_place {
                let y = logits.view_mut::<T>("gradient")?;
                with(call, || loss.losses_and_gradient_ragged_in_place(y, targets, losses))?;
            } else {
                let y = slice_mut("gradient", gradient, elements)?;
                let x = logits.view::<T>("logits")?;
                with(call, || loss.losses_and_gradient_ragged(x, targets, losses, y))?;
            }
            if !wanted.loss.is_null() {
                let divisor = softmax::internal::ragged_divisor(&loss, &targets, rows);
                reduced = Some(loss.reduce(losses, divisor));
            }
        }
        match reduced {
            Some(value) if !wanted.loss.is_null() => write("loss", wanted.loss, value),
            _ => Ok(()),
        }
    }
}

/// Does the work in the caller's scratch memory, if there is any.
fn with<R>(call: &Call, work: impl FnOnce() -> Result<R, softmax::Error>) -> Result<R, Failure> {
    let mut result = None;
    call.lent(|| work().map(|value| result = Some(value)))?;
    result.ok_or_else(|| Reason::Unknown("what a call gave").into())
}

/// Cross-entropy of rows of different lengths against `labels`, one for each row, which are columns
/// within their rows; otherwise as `softmax_cross_entropy_labels`. The gradient is at the same
/// places of an array of as many elements, which is `logits->data` itself (in place) or does not
/// overlap it. There are as many weights as elements in the longest row. An empty row must be
/// ignored.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_labels_ragged(
    logits: *const softmax_ragged,
    labels: *const i64,
    losses: *mut f64,
    loss: *mut f64,
    gradient: *mut std::ffi::c_void,
    cross_entropy: *const softmax_cross_entropy,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, o) = (read(logits)?, read_or(cross_entropy, &DEFAULT)?);
            let wanted = Wanted { losses, loss, gradient };
            by_dtype!("logits", logits.dtype, T => {
                losses_of::<T>(call, logits, Against::Labels(labels), wanted, o)
            })
        })
    }
}

/// As `softmax_cross_entropy_labels_ragged`, against the probabilities `targets`, an array of as
/// many elements of the same type as `logits->data`, at the same places.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_cross_entropy_probs_ragged(
    logits: *const softmax_ragged,
    targets: *const std::ffi::c_void,
    losses: *mut f64,
    loss: *mut f64,
    gradient: *mut std::ffi::c_void,
    cross_entropy: *const softmax_cross_entropy,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (logits, o) = (read(logits)?, read_or(cross_entropy, &DEFAULT)?);
            let wanted = Wanted { losses, loss, gradient };
            by_dtype!("logits", logits.dtype, T => {
                losses_of::<T>(call, logits, Against::Probs(targets), wanted, o)
            })
        })
    }
}

/// # Safety
/// As [`softmax_softmax_backward_ragged`].
unsafe fn backward(
    output: *const softmax_ragged,
    upstream: *const std::ffi::c_void,
    gradient: *mut std::ffi::c_void,
    options: *const softmax_options,
    log: bool,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let output = read(output)?;
            by_dtype!("a gradient", output.dtype, T => {
                let (n, of_offsets) = (output.elements, output.offsets_region()?);
                let (u, y) = (upstream.cast::<T>(), gradient.cast::<T>());
                call.disjoint(
                    &[Region::of("gradient", y, n)?],
                    &[output.region::<T>("output")?, Region::of("upstream", u, n)?, of_offsets],
                )?;
                let (u, y) = (slice("upstream", u, n)?, slice_mut("gradient", y, n)?);
                let (output, of) = (output.view::<T>("output")?, call.given.backward());
                call.lent(|| match log {
                    true => of.log_softmax_ragged(output, u, y),
                    false => of.softmax_ragged(output, u, y),
                })
            })
        })
    }
}

/// The gradient through a softmax of rows of different lengths, as `softmax_softmax_backward`, from
/// its output `probs` and the gradient `upstream` with respect to that output, into `gradient`:
/// arrays of as many elements of the same type, with the rows at the same places. The last overlaps
/// neither of the others.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_softmax_backward_ragged(
    probs: *const softmax_ragged,
    upstream: *const std::ffi::c_void,
    gradient: *mut std::ffi::c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { backward(probs, upstream, gradient, options, false) }
}

/// As `softmax_softmax_backward_ragged`, through a log-softmax, whose output is `log_probs`.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_log_softmax_backward_ragged(
    log_probs: *const softmax_ragged,
    upstream: *const std::ffi::c_void,
    gradient: *mut std::ffi::c_void,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe { backward(log_probs, upstream, gradient, options, true) }
}
