//! For the other crates of this workspace: the C ABI, the command and the measuring. There is no
//! stable interface here: anything may change or go with any release.

pub use softmax_kernels::{Limits, in_default_environment, limits};

use crate::executor::Crew;
use crate::{
    Caches, Element, Error, Exec, Executor, Kernel, Matrix, MatrixMut, Op, Softmax, Threads,
};

/// Where calls run, made at one go: what setters store in parts, a copy has to wait for.
#[inline(always)]
pub const fn exec<'a>(
    kernel: Option<&'static Kernel>,
    threads: Threads,
    executor: Option<&'a dyn Executor>,
    caches: Option<Caches>,
) -> Exec<'a> {
    Exec { kernel, crew: Crew { threads, executor }, caches }
}

/// An operation from rows to rows of [`Softmax`] that is chosen while the program runs.
///
/// # Errors
/// As the operation's own method.
#[inline]
pub fn map<T: Element>(
    options: &Softmax,
    op: Op,
    x: Matrix<T>,
    y: MatrixMut<T>,
) -> Result<(), Error> {
    options.map(op.into(), x, y)
}

/// Whether the scale or temperature is in its range, for those who want to know before there is a
/// matrix.
///
/// # Errors
/// As those of calls.
pub fn check(options: &Softmax) -> Result<(), Error> {
    options.factor.check()
}

/// As [`check`], for what has no meaning at temperatures 0 and infinity.
///
/// # Errors
/// As those of calls.
pub fn check_finite(options: &Softmax) -> Result<(), Error> {
    options.factor.finite().map(drop)
}
