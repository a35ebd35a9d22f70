//! The largest elements of rows.

use softmax_kernels::{Call, Element, Masked, Matrix, MatrixMut, Op as Work, Picks, Scale, Ties};

use crate::exec::exec_setter;
use crate::rows::mismatch;
use crate::{Error, Exec, picks};

/// Hardmax, which has all the mass at the largest element of a row, and argmax, which is where that
/// is.
///
/// ```
/// use softmax::{Hardmax, Matrix, MatrixMut, Ties};
/// let x = Matrix::new(&[1.0f32, 3.0, 2.0, 3.0], 4)?;
/// let mut y = [0.0f32; 4];
/// Hardmax::new().hardmax(x, MatrixMut::new(&mut y, 4)?)?;
/// assert_eq!(y, [0.0, 0.5, 0.0, 0.5]);
/// Hardmax::new().ties(Ties::First).hardmax(x, MatrixMut::new(&mut y, 4)?)?;
/// assert_eq!(y, [0.0, 1.0, 0.0, 0.0]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Hardmax<'a> {
    pub(crate) ties: Ties,
    masked: Masked,
    pub(crate) exec: Exec<'a>,
}

impl Default for Hardmax<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Hardmax<'a> {
    /// Equals share the mass, NaN for fully masked rows, wherever calls run best.
    #[inline]
    pub const fn new() -> Self {
        Self { ties: Ties::Share, masked: Masked::Nan, exec: Exec::new() }
    }

    /// What hardmax gives several elements that are the largest of their row.
    #[inline]
    #[must_use]
    pub const fn ties(mut self, ties: Ties) -> Self {
        self.ties = ties;
        self
    }

    /// What hardmax makes of a row whose every entry is `-inf`.
    #[inline]
    #[must_use]
    pub const fn masked(mut self, masked: Masked) -> Self {
        self.masked = masked;
        self
    }

    exec_setter!();

    /// The hardmax of every row of `x`, into the rows of `y`, which have the same shape: 1 for the
    /// largest element, 0 for the others. `+inf` is the largest; a row with NaN is NaN; what
    /// becomes of one that has nothing but `-inf` says [`Hardmax::masked`]. Exact, but for `1/N` of
    /// `N` equals, which is rounded.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, or a kernel that cannot run.
    pub fn hardmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        let work = Work::Hardmax(self.ties);
        self.exec.run(Call::new(work, x, y, Scale::ONE, self.masked).map_err(mismatch)?)
    }

    /// [`Hardmax::hardmax`] in place. The same bits.
    ///
    /// # Errors
    /// A kernel that cannot run.
    pub fn hardmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.exec.run(Call::in_place(Work::Hardmax(self.ties), x, Scale::ONE, self.masked))
    }

    /// The index of the largest element of every row: the first of equals, or that of the row's
    /// first NaN, as PyTorch and NumPy have it, whatever [`Hardmax::ties`] and [`Hardmax::masked`]
    /// say. The matrix is read once.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one index for each row, [`Error::Value`] if rows have no
    /// elements, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Hardmax, Matrix};
    /// let mut indices = [0; 2];
    /// let x = Matrix::new(&[1.0f32, 3.0, 3.0, -1.0, -2.0, -3.0], 3)?;
    /// Hardmax::new().argmax(x, &mut indices)?;
    /// assert_eq!(indices, [1, 0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn argmax<T: Element>(&self, x: Matrix<T>, indices: &mut [usize]) -> Result<(), Error> {
        picks::run(&self.exec, Picks::largest(x, indices)?, false)
    }
}
