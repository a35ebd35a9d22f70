//! For the other crates of this workspace: the C ABI, the command and the measuring. There is no
//! stable interface here: anything may change or go with any release.

pub use softmax_kernels::{Limits, in_default_environment, limits};

use crate::{Element, Error, Matrix, MatrixMut, Op, Softmax};

/// An operation from rows to rows that is chosen while the program runs. Not for sigmoids of
/// matrices with padding.
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
