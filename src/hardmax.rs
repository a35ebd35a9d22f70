//! The largest elements of rows.

use softmax_kernels::{Call, Element, Masked, Matrix, MatrixMut, Op as Work, Picks, Scale, Ties};

use crate::exec::exec_setter;
use crate::rows::mismatch;
use crate::{Error, Exec, picks};

/// Hardmax, which puts all the mass on the largest element of a row, and argmax, which is the index
/// of that element.
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
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardmax<'a> {
    pub(crate) ties: Ties,
    pub(crate) masked: Masked,
    pub(crate) exec: Exec<'a>,
}

impl<'a> Hardmax<'a> {
    /// The defaults: equal largest elements share the mass, fully masked rows are NaN, and calls
    /// choose kernel and threads themselves.
    ///
    /// ```
    /// use softmax::{Hardmax, MatrixMut};
    /// let mut row = [1.0f32, 3.0, 3.0];
    /// Hardmax::new().hardmax_in_place(MatrixMut::new(&mut row, 3)?)?;
    /// assert_eq!(row, [0.0, 0.5, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    pub const fn new() -> Self {
        Self { ties: Ties::Share, masked: Masked::Nan, exec: Exec::new() }
    }

    /// What hardmax gives when several elements are the largest of their row.
    ///
    /// ```
    /// use softmax::{Hardmax, MatrixMut, Ties};
    /// let mut row = [1.0f32, 3.0, 3.0];
    /// Hardmax::new().ties(Ties::First).hardmax_in_place(MatrixMut::new(&mut row, 3)?)?;
    /// assert_eq!(row, [0.0, 1.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn ties(mut self, ties: Ties) -> Self {
        self.ties = ties;
        self
    }

    /// What hardmax gives for a row that is all `-inf`.
    ///
    /// ```
    /// use softmax::{Hardmax, Masked, MatrixMut};
    /// let mut row = [f32::NEG_INFINITY; 2];
    /// Hardmax::new().masked(Masked::Zero).hardmax_in_place(MatrixMut::new(&mut row, 2)?)?;
    /// assert_eq!(row, [0.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn masked(mut self, masked: Masked) -> Self {
        self.masked = masked;
        self
    }

    exec_setter!();

    /// The hardmax of every row of `x`, into the rows of `y`, which have the same shape: 1 for the
    /// largest element, 0 for the others. `+inf` is the largest; a row with NaN gives NaN; for a
    /// row that is all `-inf` see [`Hardmax::masked`]. Exact, except that the `1/N` of `N` equal
    /// elements is rounded.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Hardmax, Matrix, MatrixMut};
    /// let mut y = [0.0f32; 3];
    /// let x = Matrix::new(&[1.0, f32::INFINITY, 3.0], 3)?;
    /// Hardmax::new().hardmax(x, MatrixMut::new(&mut y, 3)?)?;
    /// assert_eq!(y, [0.0, 1.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn hardmax<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        let work = Work::Hardmax(self.ties);
        self.exec.run(Call::new(work, x, y, Scale::ONE, self.masked).map_err(mismatch)?)
    }

    /// [`Hardmax::hardmax`] in place. The same bits.
    ///
    /// # Errors
    /// A kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Hardmax, MatrixMut};
    /// let mut rows = [1.0f32, 2.0, 4.0, 3.0];
    /// Hardmax::new().hardmax_in_place(MatrixMut::new(&mut rows, 2)?)?;
    /// assert_eq!(rows, [0.0, 1.0, 1.0, 0.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn hardmax_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.exec.run(Call::in_place(Work::Hardmax(self.ties), x, Scale::ONE, self.masked))
    }

    /// The index of the largest element of every row: the first of several equal ones, or the row's
    /// first NaN, as in PyTorch and NumPy, whatever [`Hardmax::ties`] and [`Hardmax::masked`] say.
    /// The matrix is read once.
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
