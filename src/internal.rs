//! Functions for the other crates of this workspace: the C ABI, the command and the measurements.
//! Nothing here is stable: anything may change or disappear with any release.

pub use softmax_kernels::{Limits, limits};

pub use crate::axis::index_of;
use crate::executor::Crew;
use crate::{
    Caches, CrossEntropy, Element, Error, Exec, Executor, Kernel, Matrix, MatrixMut, Op,
    RaggedTargets, Shape, Softmax, Threads,
};

/// An [`Exec`] made in one step: a copy would have to wait for the fields that setters store.
#[inline(always)]
pub const fn exec<'a>(
    kernel: Option<&'static Kernel>,
    threads: Threads,
    executor: Option<&'a dyn Executor>,
    caches: Option<Caches>,
) -> Exec<'a> {
    Exec { kernel, crew: Crew { threads, executor }, caches }
}

/// An operation from rows to rows of [`Softmax`] that is chosen at run time.
///
/// # Errors
/// Those of the operation's own method.
#[inline]
pub fn map<T: Element>(
    options: &Softmax,
    op: Op,
    x: Matrix<T>,
    y: MatrixMut<T>,
) -> Result<(), Error> {
    options.map(op.into(), x, y)
}

/// Checks that the scale or temperature is in its range, before there is a matrix.
///
/// # Errors
/// Those of calls.
pub fn check(options: &Softmax) -> Result<(), Error> {
    options.factor.check()
}

/// As [`check`], for operations without a meaning at temperatures 0 and infinity.
///
/// # Errors
/// Those of calls.
pub fn check_finite(options: &Softmax) -> Result<(), Error> {
    options.factor.check_finite()
}

/// The divisor of the sum of the losses of `rows` rows whose targets are probabilities.
pub fn divisor(options: &CrossEntropy, rows: usize, cols: usize) -> f64 {
    options.divides_by(None, rows, cols)
}

/// The divisor of the sum of the losses of rows of different lengths, whose targets were checked.
pub fn ragged_divisor<T>(options: &CrossEntropy, targets: &RaggedTargets<T>, rows: usize) -> f64 {
    options.ragged_divisor(targets, rows)
}

/// [`Exec::scratch_size`], with enough for a scale below 0.
///
/// # Errors
/// As [`Exec::scratch_size`].
pub fn scratch_size<T: Element>(options: &Softmax, op: Op, shape: Shape) -> Result<usize, Error> {
    options.scratch_size::<T>(op, shape)
}

/// [`Exec::axis_scratch_size`], with enough for a scale below 0.
///
/// # Errors
/// As [`Exec::axis_scratch_size`].
pub fn axis_scratch_size<T: Element>(
    options: &Softmax,
    shape: &[usize],
    axis: isize,
) -> Result<usize, Error> {
    options.axis_scratch_size::<T>(shape, axis)
}
