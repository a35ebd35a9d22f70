//! The two-class case.

use softmax_kernels::{Call, Element, Masked, Matrix, MatrixMut, Op as Work};

use crate::changed::{negated, negated_in_place};
use crate::exec::exec_setter;
use crate::factor::{Factor, factor_setters};
use crate::lanes::{between, run};
use crate::rows::mismatch;
use crate::{Error, Exec};

/// Sigmoid and its logarithm, of every element, with options.
///
/// ```
/// use softmax::{Matrix, MatrixMut, Sigmoid};
/// let mut y = [0.0f64; 2];
/// let x = Matrix::new(&[0.0, 3.0], 2)?;
/// Sigmoid::new().temperature(2.0).sigmoid(x, MatrixMut::new(&mut y, 2)?)?;
/// assert_eq!(y.map(|y| (y * 1e6).round() / 1e6), [0.5, 0.817574]);
/// # Ok::<(), softmax::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid<'a> {
    factor: Factor,
    exec: Exec<'a>,
}

impl Default for Sigmoid<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Sigmoid<'a> {
    /// Scale 1, wherever calls run best.
    #[inline]
    pub const fn new() -> Self {
        Self { factor: Factor::One, exec: Exec::new() }
    }

    factor_setters!(
        "Scales below 0 have the bits of `-x` by the scale without its sign, and take up to twice as\nlong, for a copy of the rows."
    );
    exec_setter!();

    /// The sigmoid of every element of `x`, into `y`, which has the same shape: `1 / (1 +
    /// exp(-scale * x_i))`, which is `softmax([x_i, 0])[0]`. Elements that are 0 give exactly 0.5,
    /// `-inf` 0, `+inf` 1 and NaN NaN.
    ///
    /// Error: at most 3 ULP in f32 and f64 (f16, bf16: 0.51); what is below 2^-126 (f64: 2^-1022)
    /// may be 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::Value`] if the scale or temperature is out
    /// of range, or a kernel that cannot run.
    pub fn sigmoid<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Work::Sigmoid, x, y)
    }

    /// [`Sigmoid::sigmoid`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Sigmoid::sigmoid`].
    pub fn sigmoid_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.map_in_place(Work::Sigmoid, x)
    }

    /// The logarithm of the sigmoid of every element of `x`, into `y`, which has the same shape:
    /// `-ln(1 + exp(-scale * x_i))`, without overflow. `-inf` gives `-inf`, `+inf` 0 and NaN NaN.
    ///
    /// Error: at most 1 ULP in f32, 3 ULP in f64 (f16, bf16: 0.51); in f64 what is nearer to 0 than
    /// 2^-1022 may be 0. It is computed in f64 for all types.
    ///
    /// # Errors
    /// As [`Sigmoid::sigmoid`].
    pub fn log_sigmoid<T: Element>(&self, x: Matrix<T>, y: MatrixMut<T>) -> Result<(), Error> {
        self.map(Work::LogSigmoid, x, y)
    }

    /// [`Sigmoid::log_sigmoid`] in place. The same bits.
    ///
    /// # Errors
    /// As [`Sigmoid::sigmoid`].
    pub fn log_sigmoid_in_place<T: Element>(&self, x: MatrixMut<T>) -> Result<(), Error> {
        self.map_in_place(Work::LogSigmoid, x)
    }

    /// The elements of a matrix without padding are a column, which may be cut anywhere.
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

    /// As [`Sigmoid::map`].
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

    /// With a scale below 0: of `x`, or in place.
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
