//! Sigmoid, the softmax of two classes.

use softmax_kernels::{Call, Element, Masked, Matrix, MatrixMut, Op as Work};

use crate::changed::{negated, negated_in_place};
use crate::exec::exec_setter;
use crate::factor::{Factor, factor_setters};
use crate::lanes::{between, run};
use crate::rows::mismatch;
use crate::{Error, Exec};

/// Sigmoid and log-sigmoid of every element, with options.
///
/// ```
/// use softmax::{Matrix, MatrixMut, Sigmoid};
/// let mut y = [0.0f64; 2];
/// let x = Matrix::new(&[0.0, 3.0], 2)?;
/// Sigmoid::new().temperature(2.0).sigmoid(x, MatrixMut::new(&mut y, 2)?)?;
/// assert_eq!(y.map(|y| (y * 1e6).round() / 1e6), [0.5, 0.817574]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sigmoid<'a> {
    factor: Factor,
    exec: Exec<'a>,
}

impl<'a> Sigmoid<'a> {
    /// Scale 1; calls choose kernel and threads themselves.
    ///
    /// ```
    /// use softmax::{MatrixMut, Sigmoid};
    /// let mut x = [0.0f32, f32::INFINITY];
    /// Sigmoid::new().sigmoid_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.5, 1.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    #[inline]
    pub const fn new() -> Self {
        Self { factor: Factor::One, exec: Exec::new() }
    }

    factor_setters!(
        "Scales below 0 have the bits of `-x` by the scale without its sign, and take longer, because\nrows are copied."
    );
    exec_setter!();

    /// The sigmoid of every element of `x`, into `y`, which has the same shape: `1 / (1 +
    /// exp(-scale * x_i))`, which is `softmax([x_i, 0])[0]`. An element of 0 gives exactly 0.5,
    /// `-inf` gives 0, `+inf` 1 and NaN NaN.
    ///
    /// Error: at most 3 ULP in f32 and f64 (f16, bf16: 0.51); results below 2^-126 (f64: 2^-1022)
    /// may be 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::Value`] if the scale or temperature is out
    /// of range, or a kernel that cannot run.
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Sigmoid};
    /// let mut y = [9.0f32; 2];
    /// let x = Matrix::new(&[f32::NEG_INFINITY, 0.0], 2)?;
    /// Sigmoid::new().sigmoid(x, MatrixMut::new(&mut y, 2)?)?;
    /// assert_eq!(y, [0.0, 0.5]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn sigmoid<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Work::Sigmoid, x, y)
    }

    /// [`Sigmoid::sigmoid`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Sigmoid::sigmoid`].
    ///
    /// ```
    /// use softmax::{MatrixMut, Sigmoid};
    /// let mut x = [0.0f64; 3];
    /// Sigmoid::new().scale(-2.0).sigmoid_in_place(MatrixMut::new(&mut x, 3)?)?;
    /// assert_eq!(x, [0.5; 3]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn sigmoid_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.map_in_place(Work::Sigmoid, x)
    }

    /// The logarithm of the sigmoid of every element of `x`, into `y`, which has the same shape:
    /// `-ln(1 + exp(-scale * x_i))`, without overflow. `-inf` gives `-inf`, `+inf` 0 and NaN NaN.
    ///
    /// Error: at most 1 ULP in f32, 3 ULP in f64 (f16, bf16: 0.51); in f64 results nearer to 0 than
    /// 2^-1022 may be 0. All types are computed in f64.
    ///
    /// # Errors
    /// As [`Sigmoid::sigmoid`].
    ///
    /// ```
    /// use softmax::{Matrix, MatrixMut, Sigmoid};
    /// let mut y = [9.0f64; 2];
    /// let x = Matrix::new(&[0.0, -1000.0], 2)?;
    /// Sigmoid::new().log_sigmoid(x, MatrixMut::new(&mut y, 2)?)?;
    /// assert_eq!(y, [-std::f64::consts::LN_2, -1000.0]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_sigmoid<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Work::LogSigmoid, x, y)
    }

    /// [`Sigmoid::log_sigmoid`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Sigmoid::sigmoid`].
    ///
    /// ```
    /// use softmax::{MatrixMut, Sigmoid};
    /// let mut x = [f32::INFINITY, f32::NEG_INFINITY];
    /// Sigmoid::new().log_sigmoid_in_place(MatrixMut::new(&mut x, 2)?)?;
    /// assert_eq!(x, [0.0, f32::NEG_INFINITY]);
    /// # Ok::<(), softmax::Error>(())
    /// ```
    pub fn log_sigmoid_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.map_in_place(Work::LogSigmoid, x)
    }

    /// A matrix without padding is treated as one column, which can be split anywhere.
    fn map<T: Element>(&self, work: Work, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        if self.factor.is_negative() && (x.rows(), x.cols()) == (y.rows(), y.cols()) {
            return self.negative(work, Some(x), y);
        }
        if (x.rows(), x.cols()) != (y.rows(), y.cols()) {
            return self.rows(work, x, y);
        }
        match (x.into_slice(), y.into_slice()) {
            (Some(x), Ok(y)) => self.rows(work, Matrix::new(x, 1)?, MatrixMut::new(y, 1)?),
            (_, Ok(y)) => self.rows(work, x, MatrixMut::new(y, x.cols())?),
            (_, Err(y)) => self.rows(work, x, y),
        }
    }

    #[inline(always)]
    fn rows<T: Element>(&self, work: Work, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        let scale = self.factor.finite()?;
        self.exec.run(Call::new(work, x, y, scale, Masked::Nan).map_err(mismatch)?)
    }

    /// The same as [`Sigmoid::map`], in place.
    fn map_in_place<T: Element>(&self, work: Work, x: MatrixMut<T>) -> Result<(), Error> {
        if self.factor.is_negative() {
            return self.negative(work, None, x);
        }
        let x = match x.into_slice() {
            Ok(x) => MatrixMut::new(x, 1)?,
            Err(x) => x,
        };
        let scale = self.factor.finite()?;
        self.exec.run(Call::in_place(work, x, scale, Masked::Nan))
    }

    /// The same with a scale below 0: of `x`, or in place.
    #[cold]
    fn negative<T: Element>(
        &self,
        work: Work,
        x: Option<Matrix<T>>,
        y: MatrixMut<T>,
    ) -> Result<(), Error> {
        let positive = Self { factor: self.factor.minus(), ..*self };
        let cols = y.cols();
        let rows = between(x.map(negated), negated_in_place(y));
        run::<T, _>(&self.exec, work, cols, rows, &|exec, n, x| {
            let x = MatrixMut::with_stride(x, n, cols, cols)?;
            positive.exec(*exec).map_in_place(work, x)
        })
    }
}
